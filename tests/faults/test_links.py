"""Links in the place of our own files: whatever stands there, nothing is written where it leads, and no stage dies of it as of a bug."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORK = """
ftai-listen "remember to send the invoice tomorrow" | ftai-route | ftai-exec | ftai-log
ftai-run "note buy milk"
ftai-recall invoice
ftai-archive maintain
timeout 10 ftai-log --follow --cursor here | head -n 1 >/dev/null
"""


def work(home: Path) -> str:
    """Runs some stages on a home; what they said on standard error."""
    kept = {name: os.environ[name] for name in ("COVERAGE_PROCESS_START", "COVERAGE_FILE") if name in os.environ}
    environment = kept | {"PATH": f"{ROOT}/bin:{ROOT}/.venv/bin:{os.environ['PATH']}", "FTAI_HOME": str(home), "HOME": str(home), "TZ": "UTC"}
    ran = subprocess.run(["bash", "-c", WORK], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)
    return ran.stderr


@pytest.fixture(scope="module")
def used(tmp_path_factory):
    home = tmp_path_factory.mktemp("used") / "home"
    home.mkdir(mode=0o700)
    assert work(home) == ""
    return home


def test_links_are_not_followed_where_we_write(used, tmp_path):
    names = [path.relative_to(used) for path in used.rglob("*") if path.is_file()]
    assert {"archive.db", "current.ftai", "state.db", "notes.txt", ".lock"} <= {name.name for name in names}
    outside = tmp_path / "outside"
    for name in names:
        if name.parts[0] == "cache" and name.name != "commands.json":
            continue  # one of the cache stands for all of it
        for there in (b"mine\n", None, b"") if name.suffix == ".db" else (b"mine\n",):
            home = tmp_path / "home"
            shutil.copytree(used, home)
            (home / name).unlink()
            (home / name).symlink_to(outside)
            if there is not None:
                outside.write_bytes(there)
            said = work(home)
            assert (outside.read_bytes() if outside.exists() else None) == there, name
            assert "bug" not in said, (name, said)
            shutil.rmtree(home)
            outside.unlink(missing_ok=True)


@pytest.mark.parametrize("name", ["journal", "keys", "runs", "cursors", "specs"])
def test_no_folder_below_the_state_is_written_through_a_link(used, tmp_path, name):
    home = tmp_path / "home"
    shutil.copytree(used, home)
    outside = tmp_path / "outside"
    (home / "state" / name).rename(outside) if (home / "state" / name).exists() else outside.mkdir(0o700)
    (home / "state" / name).symlink_to(outside)
    before = {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}
    said = work(home)
    assert {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()} == before
    assert "bug" not in said, said
    assert "is a link" in said or name in ("keys", "specs"), said
