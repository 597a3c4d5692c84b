"""The floors of lib/serenamaster: arrows only downwards, nothing slow at module level, one family of foreign packages a module."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIB = ROOT / "lib" / "serenamaster"
MODULES = sorted(path.stem for path in LIB.glob("*.py") if path.stem != "__init__")
STAGES = sorted(path for path in (ROOT / "bin").glob("ftai-*"))

FLOORS = [
    {"errors", "record", "text", "phrases"},
    {"stream", "paths", "rules", "specs", "dates", "intake", "views", "proofs", "retention"},
    {"redact", "seal", "secret", "sealed", "chain", "canonical"},
    {"stage", "journal", "segments", "verification", "archive", "state", "routing", "skills", "tools", "execution", "health", "convert", "keys", "purge"}
    | {"limits", "prices", "providers", "waiting", "models", "why", "evidence", "rotation", "backup", "transfer"},
    {"acting", "vitals", "storage"},
]
NAMES = set().union(*FLOORS)
# The only arrows within a floor; what else a module needs comes in as an argument.
SIDEWAYS = {("secret", "redact"), ("secret", "seal"), ("sealed", "seal"), ("sealed", "secret"), ("chain", "sealed"), ("canonical", "redact")}
SIDEWAYS |= {("segments", "journal"), ("verification", "segments"), ("archive", "journal"), ("archive", "segments")}
SIDEWAYS |= {("purge", "journal"), ("purge", "archive"), ("purge", "segments"), ("skills", "archive"), ("skills", "journal")}
SIDEWAYS |= {("evidence", "journal"), ("evidence", "segments"), ("evidence", "verification"), ("transfer", "journal"), ("transfer", "archive")}
SIDEWAYS |= {("rotation", "journal"), ("rotation", "segments"), ("rotation", "evidence"), ("backup", "journal"), ("backup", "segments")}
SIDEWAYS |= {("models", "state"), ("tools", "state"), ("limits", "state"), ("waiting", "state")}
SIDEWAYS |= {("models", "limits"), ("models", "prices"), ("models", "providers"), ("routing", "models")}
# What belongs together though the names don't say so: ciphers, with what packs before they encrypt; the SDKs of models with what they speak HTTP
# and write prompts with.
FAMILIES = {**dict.fromkeys(("pyrage", "tink", "zstandard"), "cryptography"), **dict.fromkeys(("anthropic", "httpx2", "jinja2", "mlx", "mlx_lm"), "openai")}
# On floors 0 and 1, for want of a better place: this list may only shrink.
SIDEWAYS |= {("text", "record"), ("text", "errors"), ("phrases", "errors"), ("specs", "paths"), ("specs", "stream"), ("intake", "specs"), ("intake", "stream")}
SIDEWAYS |= {("proofs", "paths"), ("proofs", "stream")}
# orjson, which every stage needs, brings contextlib, dataclasses, datetime, inspect, json and uuid with it: they cost nothing more.
# What would slow down the start of every stage that imports the module: to be imported in the function that needs it.
SLOW = {"asyncio", "click", "concurrent", "email", "http", "logging", "multiprocessing", "pathlib", "random", "shutil", "socket"}
SLOW |= {"ssl", "subprocess", "tempfile", "threading", "typing", "urllib", "zoneinfo"}


def imports(source: str) -> list[tuple[str, bool, bool]]:
    """(module, ours, at module level) of every import statement. `from . import a, b` names a and b."""
    found = []
    tree = ast.parse(source)
    inner = {id(node) for top in ast.walk(tree) if isinstance(top, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) for node in ast.walk(top)}
    for node in ast.walk(tree):
        outside = id(node) not in inner
        if isinstance(node, ast.Import):
            found += [(alias.name.split(".")[0] if not alias.name.startswith("serenamaster.") else alias.name[13:], False, outside) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            name = (node.module or "").removeprefix("serenamaster").lstrip(".")
            ours = bool(node.level) or (node.module or "").startswith("serenamaster")
            found += [(name.split(".")[0], ours, outside)] if name else [(alias.name, True, outside) for alias in node.names]
    return found


def floor(module: str) -> int:
    return next(number for number, names in enumerate(FLOORS) if module in names)


def wrong(module: str, source: str) -> list[str]:
    """What in the source of `module` breaks the floors."""
    out = []
    families = set()
    for name, ours, outside in imports(source):
        if ours:
            if name in NAMES and floor(name) >= floor(module) and (module, name) not in SIDEWAYS:
                out.append(f"{module} (floor {floor(module)}) imports {name} (floor {floor(name)})")
        elif outside and name in SLOW:
            out.append(f"{module} imports {name} at module level")
        elif name not in sys.stdlib_module_names and name != "orjson":
            families.add(FAMILIES.get(name, name))
            if outside:
                out.append(f"{module} imports the package {name} at module level")
    if len(families) > 1:
        out.append(f"{module} imports {len(families)} foreign packages: {sorted(families)}")
    return out


def test_every_module_has_a_floor():
    assert set(MODULES) <= NAMES, "give the new module a floor here and in HACKING.md"


@pytest.mark.parametrize("module", MODULES)
def test_arrows_go_downwards(module):
    assert wrong(module, (LIB / f"{module}.py").read_text()) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("errors", "from . import stream"),
        ("record", "def f():\n    from .paths import home"),
        ("rules", "from . import stream"),
        ("journal", "from .archive import connect"),
        ("stream", "import serenamaster.stage\nfrom serenamaster.stage import run"),
        ("stage", "import click"),
        ("stage", "import subprocess"),
        ("skills", "def f():\n    import keyring\n    import mcp"),
    ],
)
def test_an_arrow_upwards_is_seen(module, source):
    assert wrong(module, source)


def test_imports_inside_functions_and_for_types_are_free():
    assert wrong("archive", "from . import journal, paths\ndef f():\n    import sqlite3\n    import sqlite_utils") == []


@pytest.mark.parametrize("path", STAGES, ids=lambda path: path.name)
def test_stages_import_lib_and_no_other_stage(path):
    source = path.read_text()
    assert [name for name, ours, outside in imports(source) if not ours and outside and name not in sys.stdlib_module_names] == []
    assert [name for name, ours, outside in imports(source) if not ours and outside and name in SLOW] == []
    assert [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant) and node.value in ("runpy", "importlib.machinery")] == []


@pytest.mark.parametrize("path", STAGES, ids=lambda path: path.name)
def test_stages_leave_by_stage_run_alone(path):
    tree = ast.parse(path.read_text())
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not {"sys.exit", "os._exit", "exit", "quit", "print"} & set(calls)
    last = tree.body[-1]
    assert isinstance(last, ast.Expr)
    assert isinstance(last.value, ast.Call)
    assert ast.unparse(last.value.func) == "stage.run"


# health times the stages, all but the one that runs it.
@pytest.mark.parametrize("module", [module for module in MODULES if module != "health"])
def test_lib_never_decides_by_a_stages_name(module):
    names = {path.name for path in STAGES}
    for node in ast.walk(ast.parse((LIB / f"{module}.py").read_text())):
        compared = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
        assert not [part.value for part in compared if isinstance(part, ast.Constant) and part.value in names]


@pytest.mark.parametrize("path", STAGES, ids=lambda path: path.name)
def test_stages_are_executable_and_short(path):
    assert path.stat().st_mode & 0o111 == 0o111
    lines = path.read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env python3"
    # A tool with subcommands may have about 30 lines for each.
    verbs = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "VERBS"]
    assert len(lines) <= max(150, *(30 * len(made.keys) for made in verbs if isinstance(made, ast.Dict) and isinstance(made.values[0], ast.Tuple)), 0)
