"""Runs the tour of README, and holds README, NEWS and HACKING against the tree."""

import importlib.util
import os
import re

import pytest
import serenamaster
import surface
from running import Place


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
        named = set(re.findall(r"\bftai-(?:[a-z]+)\b", text(name))) - {"ftai-specs", "ftai-seal", "ftai-rs", "ftai-journal"}
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


def test_floors_are_those_that_are_tested():
    """tests/unit/test_floors.py holds the code against its own lists; these and the table that people read are the same."""
    spec = importlib.util.spec_from_file_location("floors", os.path.join(surface.ROOT, "tests", "unit", "test_floors.py"))
    tested = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tested)
    floor_of, beside = floors()
    assert floor_of == {module: number for number, modules in enumerate(tested.FLOORS) for module in modules}
    assert {(left, right) for left, names in beside.items() for right in names} == tested.SIDEWAYS
