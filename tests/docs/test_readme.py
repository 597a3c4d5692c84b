"""Runs the tour of README, and holds README, NEWS and HACKING against the tree."""

import ast
import os
import re

import pytest
import serenamaster
import surface
from running import Place

LIB = os.path.join(surface.ROOT, "lib", "serenamaster")


def text(name: str) -> str:
    with open(os.path.join(surface.ROOT, name)) as file:
        return file.read()


def test_tour_runs(tmp_path):
    """All blocks of the tour as one script, from the root of the clone, as a reader would paste them."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text("README.md"), re.S | re.M)
    assert len(blocks) >= 8
    place = Place(tmp_path)
    # The tour writes a file where it stands: it stands in a folder whose bin/ is the clone's.
    os.symlink(os.path.join(surface.ROOT, "bin"), os.path.join(place.work, "bin"))
    ran = place.run("\n".join(blocks), errexit=True)
    assert ran.returncode == 0, f"{ran.stdout[-1500:]}\n--- stderr\n{ran.stderr[-1500:]}"
    assert "invoice" in ran.stdout
    assert not re.search("Traceback|command not found", ran.stderr)


def test_commands_named_exist():
    for name in ("README.md", "HACKING.md", "NEWS.md"):
        named = set(re.findall(r"\bftai-(?:[a-z]+)\b", text(name))) - {"ftai-specs", "ftai-rs", "ftai-journal"}
        assert named <= set(surface.stages()), name


@pytest.mark.parametrize("name", ["README.md", "HACKING.md"])
def test_make_targets_named_exist(name):
    targets = set(re.findall(r"^([a-z][a-z-]*):", text("Makefile"), re.M))
    assert set(re.findall(r"`make ([a-z][a-z-]*)", text(name))) | set(re.findall(r"^    make ([a-z][a-z-]*)", text(name), re.M)) <= targets


def test_news_has_the_version():
    newest = re.search(r"^## (\S+)", text("NEWS.md"), re.M)
    assert newest and newest[1] == serenamaster.__version__


def test_says_whose_the_format_is():
    assert "not a product of FolkTech AI" in " ".join(text("README.md").split())


def floors() -> tuple[dict[str, int], dict[str, set[str]]]:
    """HACKING's table: {module: floor}, {module: what it may import on its own floor}."""
    floor_of: dict[str, int] = {}
    beside: dict[str, set[str]] = {}
    for number, modules, arrows in re.findall(r"^\| (\d) \| ([^|]*) \| ([^|]*)\|$", text("HACKING.md"), re.M):
        floor_of |= dict.fromkeys(modules.split(), int(number))
        for arrow in filter(None, arrows.strip().split(";")):
            left, right = arrow.split("->")
            for module in left.split():
                beside.setdefault(module, set()).update(right.split())
    return floor_of, beside


def imports(path: str) -> set[str]:
    """The modules of serenamaster that a file imports, anywhere in it."""
    with open(path) as file:
        tree = ast.parse(file.read())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            package = (node.module or "").removeprefix("serenamaster").lstrip(".") if node.level or (node.module or "").startswith("serenamaster") else None
            if package:
                found.add(package.split(".")[0])
            elif package == "":
                found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("serenamaster.")}
    return found


MODULES = sorted(name[:-3] for name in os.listdir(LIB) if name.endswith(".py") and name != "__init__.py")


def test_floors_name_every_module_and_no_other():
    assert sorted(floors()[0]) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_arrows_go_down(module):
    floor_of, beside = floors()
    names = imports(os.path.join(LIB, f"{module}.py")) & set(MODULES)
    up = {name for name in names if floor_of.get(name, 9) > floor_of[module]}
    across = {name for name in names if floor_of.get(name) == floor_of[module]} - beside.get(module, set())
    assert not up and not across, f"{module} imports {sorted(up | across)}"


def test_no_arrow_is_left_over():
    for module, right in floors()[1].items():
        assert right <= imports(os.path.join(LIB, f"{module}.py")), f"HACKING allows {module} -> {sorted(right)}, and not all of it is used"


@pytest.mark.parametrize("module", MODULES)
def test_lib_knows_no_stage(module):
    """No stage's name in lib/ but in docstrings, comments and what people are told: nothing that the code could compare with."""
    with open(os.path.join(LIB, f"{module}.py")) as file:
        tree = ast.parse(file.read())
    whole = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert not whole & set(surface.stages())


@pytest.mark.parametrize("stage", surface.stages())
def test_stages_do_not_import_each_other(stage):
    assert imports(os.path.join(surface.ROOT, "bin", stage)) <= set(MODULES)
