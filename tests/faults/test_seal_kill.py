"""kill -9 of eight writers that encrypt what they write: every text that is in the journal can be opened."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import writers
from serenamaster import journal, seal, specs
from test_log_kill import storm

KILLS = 20 * writers.SCALE
LATE = f"""
import os, runpy, sys
sys.path.insert(0, {str(writers.ROOT / "lib")!r})
from serenamaster import seal

known, make, late = seal._known, seal._make, {{}}

def keys(db, threads):
    return known(db, threads) | {{name: late[name] for name in threads if name in late}}

def hold(db, threads):
    # The keys of the call before are kept now, those of this one at the next.
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    seal.recipient()
    late.update((name, X25519PrivateKey.generate().public_key().public_bytes_raw()) for name in threads)

seal._known, seal._make = keys, hold
sys.argv = ["ftai-log", *sys.argv[1:]]
runpy.run_path({str(writers.ROOT / "bin" / "ftai-log")!r}, run_name="__main__")
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    made = writers.Home(tmp_path / "home")
    made.environment["FTAI_ENCRYPT"] = "local"
    monkeypatch.setenv("FTAI_HOME", str(made.path))
    specs.forget()
    seal._identities.clear()
    return made


def identity():
    return Path(seal.folder(), "identity").read_text()


def unopened(home) -> int:
    """How many records of the journal do not open; each is to be encrypted."""
    count = 0
    for _, rec in journal.read(str(home.journal)):
        assert rec["body"].startswith("[sealed:")
        count += seal.opened(rec, identity)["body"].startswith("[")
    return count


def test_every_record_in_the_journal_opens(home, tmp_path):
    given = writers.supply(tmp_path / "given", 20_000)
    count, acknowledged = storm(home, given, KILLS, seed=3)
    assert count >= KILLS, "the writers ended before they were killed"
    code, last, said = home.run(writers.supply(tmp_path / "last", 1))
    assert (code, len(last)) == (0, 1), said
    held = {rec["id"] for _, rec in journal.read(str(home.journal))}
    assert len(held) > KILLS and held >= {rec["id"] for rec in acknowledged}
    assert not home.troubles()
    assert unopened(home) == 0
    with sqlite3.connect(os.path.join(seal.folder(), seal.THREADS)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()
    assert not [name for name in os.listdir(seal.folder()) if name not in ("identity", "recipient", "recipient.lock", "threads.db")]


def test_control_with_keys_that_come_later_than_their_records(home, tmp_path):
    given = writers.supply(tmp_path / "given", 2)
    command = [sys.executable, "-c", LATE, str(given)]
    subprocess.run(command, env=home.environment, stdout=subprocess.DEVNULL, check=True)
    assert unopened(home) == 2, "records without a kept key can be opened: the test above proves nothing"


def test_a_full_disk_leaves_no_record_that_is_not_sealed(home, tmp_path):
    """The keys can't be kept (a write to them fails): then nothing is journaled, neither in the clear nor for good."""
    given = writers.supply(tmp_path / "given", 3, name="planted words")
    code, out, said = home.run(given)
    assert (code, len(out)) == (0, 3)
    if not os.path.exists("/usr/bin/strace"):
        pytest.skip("NO STRACE: a disk that is full is not tried")
    before = home.current.read_bytes()
    prefix = ("strace", "-f", "-o", str(tmp_path / "trace"), "-P", os.path.join(seal.folder(), seal.THREADS), "-e", "inject=pwrite64:error=ENOSPC:when=1+")
    code, out, said = home.run(given, prefix=prefix)
    assert "INJECTED" in Path(tmp_path / "trace").read_text(), "the fault did not fire"
    assert (code, out) == (73, [])
    assert "threads.db" in said
    assert home.current.read_bytes() == before
    code, out, said = home.run(given)
    assert (code, len(out)) == (0, 3)
    assert unopened(home) == 0
