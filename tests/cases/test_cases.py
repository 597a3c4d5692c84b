"""Runs the cases: tests/cases/STAGE/NAME/ holds `cmd` (run by bash in a copy of the folder) and what it must do: `in`, `out`, `err`, `rc`.

A file that is absent is empty (rc: 0). Ids, times and durations are written as <id1>, <ts> and 0, so that equal ids stay equal.
FTAI_ACCEPT=1 writes what was seen into `out`, `err` and `rc`: look at the diff before committing it.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CASES = sorted(path.parent for path in HERE.glob("*/*/cmd"))

UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
SHORT = re.compile(r'("(?:ms|salt|hash|prev|digest)":)("[0-9a-f]+"|[0-9.]+)')


def normal(text: str, seen: dict) -> str:
    """`text` with what differs from run to run replaced; `seen` maps ids to their names, over all outputs of one case."""
    text = UUID.sub(lambda found: seen.setdefault(found[0], f"<id{len(seen) + 1}>"), text)
    return SHORT.sub(r"\g<1>0", TIME.sub("<ts>", text))


def environment(home: Path) -> dict:
    """What a case may count on: the clone's stages first on the PATH, a home of its own, UTC, no colour."""
    kept = {name: os.environ[name] for name in ("COVERAGE_PROCESS_START", "COVERAGE_FILE") if name in os.environ}
    path = f"{ROOT}/bin:{ROOT}/.venv/bin:{os.environ['PATH']}"
    return kept | {"PATH": path, "HOME": str(home), "FTAI_HOME": str(home / "ftai"), "TZ": "UTC", "LC_ALL": "C.UTF-8", "NO_COLOR": "1"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}/{case.name}")
def test_case(case, tmp_path):
    work = tmp_path / "work"
    shutil.copytree(case, work)
    given = (case / "in").read_bytes() if (case / "in").exists() else b""
    command = ["bash", "-o", "pipefail", "-c", (case / "cmd").read_text()]
    ran = subprocess.run(command, input=given, capture_output=True, cwd=work, env=environment(tmp_path), timeout=120, check=False)
    ids: dict = {}
    seen = {"out": normal(ran.stdout.decode("utf-8", "surrogateescape"), ids), "err": normal(ran.stderr.decode("utf-8", "surrogateescape"), ids)}
    seen = {name: text.replace(str(work), "<dir>") for name, text in seen.items()} | {"rc": f"{ran.returncode}\n" if ran.returncode else ""}
    if os.environ.get("FTAI_ACCEPT"):
        for name, text in seen.items():
            (case / name).write_text(text, errors="surrogateescape") if text else (case / name).unlink(missing_ok=True)
    expected = {name: (case / name).read_text(errors="surrogateescape") if (case / name).exists() else "" for name in seen}
    if expected["rc"].strip() == "0":
        expected["rc"] = ""
    assert seen == expected
