"""What each stage has loaded after a plain run: a start is paid for at every run, so a new import is a decision, made here."""

import os
import re
import subprocess
import sys
from pathlib import Path

import plain
import pytest

ROOT = Path(__file__).parents[2]
STAGES = sorted(path.name for path in (ROOT / "bin").glob("ftai-*"))

# What every stage needs, and what orjson brings with it.
GIVEN = "import orjson, signal, re, errno, select"
OURS = {"serenamaster", "errors", "record", "stage", "stream"}
SQLITE = {"sqlite3", "__future__"}
JOURNAL = {"canonical", "chain", "fcntl", "journal"}
# What it takes to see that there is nothing to redact.
REDACT = {"binascii", "bisect", "paths", "redact", "specs"}
# On top of that; _private modules and parts of a package come with the package.
ALLOWED = {
    "ftai-archive": OURS | SQLITE | JOURNAL | {"archive", "paths", "text"},
    "ftai-exec": OURS | {"acting", "execution", "fcntl", "paths", "state"},
    "ftai-keys": OURS | {"binascii", "keys", "paths", "secret", "specs"},
    "ftai-listen": OURS | {"binascii", "intake", "paths", "specs"},
    "ftai-log": OURS | SQLITE | JOURNAL | REDACT | {"archive", "hashlib", "seal", "text"},
    "ftai-parse": OURS | {"convert", "text"},
    "ftai-queue": OURS | SQLITE | {"fcntl", "paths", "state", "waiting"},
    "ftai-redact": OURS | REDACT,
    "ftai-recall": OURS | SQLITE | JOURNAL | {"archive", "dates", "paths", "text"},
    "ftai-report": OURS | SQLITE | JOURNAL | {"archive", "binascii", "paths", "prices", "specs", "text", "views"},
    "ftai-rotate": OURS | JOURNAL | {"__future__", "archive", "binascii", "evidence", "hashlib", "paths", "proofs", "retention", "rotation", "seal"}
    | {"sealed", "secret", "segments", "specs", "struct", "text"},
    "ftai-route": OURS | {"binascii", "paths", "phrases", "routing", "specs"},
    "ftai-run": OURS | SQLITE | JOURNAL | REDACT | {"hashlib", "struct", "zoneinfo", "sysconfig"}
    | {"acting", "archive", "dates", "execution", "intake", "phrases", "routing", "seal", "skills", "state", "text", "views"},
    "ftai-show": OURS | {"views"},
    "ftai-why": OURS | SQLITE | JOURNAL | REDACT | {"acting", "archive", "execution", "paths", "state", "text", "views", "why"},
    "ftai-validate": OURS | {"rules", "text", "views"},
}  # fmt: skip
# It looks for what is installed, and times the other stages.
FREE = {"ftai-doctor"}


def loaded(home: Path, args: list[str], given: bytes = b"") -> set[str]:
    """The modules that a run imported, parts of packages and private ones left out; ours without the package's name."""
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "FTAI_HOME": str(home / "ftai"), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    ran = subprocess.run([sys.executable, "-X", "importtime", *args], input=given, capture_output=True, env=env, timeout=60, check=False)
    names = re.findall(rb"^import time:.*\|.*\| *(\S+)$", ran.stderr, re.MULTILINE)
    assert names, ran.stderr
    seen = {name.decode().removeprefix("serenamaster.") for name in names}
    return {name for name in seen if "." not in name and (not name.startswith("_") or name == "__future__")}


@pytest.mark.parametrize("stage", [name for name in STAGES if name not in FREE])
def test_a_plain_run_loads_no_more_than_is_listed(stage, tmp_path):
    args, given = plain.run_of(stage)
    loaded(tmp_path, [str(ROOT / "bin" / stage), *args], given)  # fills the cache of the specs
    extra = loaded(tmp_path, [str(ROOT / "bin" / stage), *args], given) - loaded(tmp_path, ["-c", GIVEN])
    assert "stage" in extra
    assert extra - ALLOWED.get(stage, OURS) == set()


def test_an_import_is_seen(tmp_path):
    assert {"sqlite3", "click"} <= loaded(tmp_path, ["-c", "import sqlite3, click"])
