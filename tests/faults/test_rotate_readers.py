"""Readers while a rotator closes, seals and removes segments, and writers append: each record once, all of it, and the archive row for row.

Without the identity nothing sealed is read, and nothing is lost by that.
"""

import os
import signal
import sqlite3
import subprocess
import threading
from contextlib import contextmanager

import pytest
import writers
from rotations import Home, Writers, until
from serenamaster import archive, chain, journal, record, segments
from serenamaster.errors import Failure

ROUNDS = 6 * writers.SCALE


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FTAI_HOME", str(tmp_path / "home"))
    archive._caught.clear()
    yield Home(tmp_path / "home")
    archive._caught.clear()


class Reader(threading.Thread):
    """Asks again and again, until it is told to end: work() once each time, and once more at the end."""

    def __init__(self, work):
        super().__init__(daemon=True)
        self.work, self.over, self.times = work, threading.Event(), 0
        self.bad: BaseException | None = None
        self.start()

    def run(self):
        try:
            last = False
            while not last:
                last = self.over.is_set()
                self.work()
                self.times += 1
        except BaseException as bad:
            self.bad = bad

    def end(self) -> int:
        self.over.set()
        self.join()
        if self.bad:
            raise self.bad
        return self.times


def run(home, *words) -> list[dict]:
    """What a stage that must succeed prints."""
    ran = subprocess.run(words, env=home.environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert ran.returncode == 0, (words, ran.stderr)
    return [record.decode(line) for line in ran.stdout.splitlines()] if ran.stdout.startswith(b"{") else []


def seq(rec) -> int:
    return next(block["seq"] for block in rec["@blocks"] if block["@tag"] == "chain")


def rows(home) -> list[tuple]:
    db = sqlite3.connect(f"file:{home.path}/state/archive.db?mode=ro", uri=True)
    try:
        return db.execute("SELECT * FROM records ORDER BY seq").fetchall()
    finally:
        db.close()


def test_each_record_once_while_segments_are_closed_and_sealed(home):
    out = home.path.parent / "followed"
    pool = Writers(home, 2)
    pool.wait(1)
    recalled: list[dict] = []

    def recall():
        recalled.extend(run(home, "ftai-recall", "--after", str(seq(recalled[-1]) if recalled else 0)))

    def verify():
        run(home, "ftai-log", "--verify", "--quiet")

    with following(home, out) as seen:
        readers = [Reader(recall), Reader(verify), Reader(lambda: run(home, "ftai-archive", "rebuild", "--quiet"))]
        try:
            sealed = 0
            while sealed < ROUNDS or min(reader.times for reader in readers) < 2:
                pool.wait(5)
                sealed += sum(rec.get("sealed") is not None for rec in run(home, "ftai-rotate", "--now"))
                pool.renew()
                assert all(reader.bad is None for reader in readers), [reader.bad for reader in readers]
        finally:
            acknowledged = pool.end()
            assert all(reader.end() for reader in readers)
        run(home, "ftai-rotate", "--now")
        recall()
        held = [rec for _, rec in journal.read(str(home.journal))]
        until(lambda: out.read_bytes().count(b"\n") >= len(held))
    assert seen() == held
    assert recalled == held
    home.whole(acknowledged)
    home.settled()
    # Whoever goes on where it was gets what is new, and nothing again.
    assert home.run(writers.supply(home.path.parent / "more", 3))[0] == 0
    with following(home, out) as seen:
        until(lambda: out.read_bytes().count(b"\n") >= 3)
    assert [seq(rec) for rec in seen()] == [len(held) + n for n in (1, 2, 3)]


@contextmanager
def following(home, out):
    """A reader with a cursor, which is ended in the end; what it got."""
    with out.open("wb") as stdout:
        child = subprocess.Popen(["ftai-log", "--follow", "--cursor", "mail"], stdin=subprocess.DEVNULL, stdout=stdout, env=home.environment)
    try:
        yield lambda: [record.decode(line) for line in out.read_bytes().splitlines()]
    finally:
        child.terminate()
        assert child.wait() == -signal.SIGTERM


def test_the_archive_is_row_for_row_the_same_before_and_after_sealing(home):
    given = writers.supply(home.path.parent / "given", 400)
    for _ in range(3):
        assert home.run(given)[0] == 0
        segments.close(str(home.journal), 1 << 62, stage="test")
    run(home, "ftai-archive", "rebuild")
    before = rows(home)
    assert len(before) > 1200 and [part.sealed for part in chain.segments(str(home.journal))] == [False] * 3
    assert home.rotate()[0] == 0
    assert [part.sealed for part in chain.segments(str(home.journal))] == [True] * len(chain.segments(str(home.journal)))
    for name in ("archive.db", "archive.db-wal", "archive.db-shm"):
        (home.path / "state" / name).unlink(missing_ok=True)
    run(home, "ftai-archive", "rebuild")
    assert rows(home)[: len(before)] == before
    assert not home.troubles()


def test_without_the_identity(home):
    """What is sealed can't be read; the archive still answers, the journal still takes, and all is there when the identity is back."""
    one = writers.supply(home.path.parent / "one", 3, name="pomegranate")
    assert home.run(one)[0] == 0
    run(home, "ftai-recall", "pomegranate")  # takes all in
    assert home.rotate()[0] == 0
    run(home, "ftai-recall", "pomegranate")
    identity = home.path / "state" / "keys" / "identity"
    kept = identity.read_bytes()
    identity.unlink()
    before, place = rows(home), os.stat(home.path / "state" / "archive.db").st_ino
    ran = subprocess.run(["ftai-archive", "rebuild"], env=home.environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 77 and "the identity is missing" in ran.stderr
    assert not ran.stdout
    assert rows(home) == before and os.stat(home.path / "state" / "archive.db").st_ino == place
    assert [name for name in os.listdir(home.path / "state") if ".new" in name] == []
    assert len(run(home, "ftai-recall", "-C", "0", "pomegranate")) == 3
    code, passed, said = home.run(one)
    assert (code, len(passed)) == (0, 3), said
    assert len(run(home, "ftai-recall", "-C", "0", "pomegranate")) == 6
    ran = subprocess.run(["ftai-log", "--verify"], env=home.environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 75 and "1 sealed segment could not be opened" in ran.stderr.replace("segments", "segment")
    assert "were not read" in ran.stdout
    with pytest.raises(Failure):
        home.held()
    # It seals for the recipient, which is still there.
    code, said = home.rotate()
    assert code == 0, said
    assert [part.sealed for part in chain.segments(str(home.journal))] == [True, True]
    identity.write_bytes(kept)
    identity.chmod(0o600)
    run(home, "ftai-archive", "rebuild")
    assert rows(home)[: len(before)] == before
    home.settled()
    assert not home.lost(passed)


def test_control_a_segment_that_is_removed_before_it_is_sealed_is_missed(home):
    """What the tests above would see of a rotation that removes too early."""
    one = writers.supply(home.path.parent / "one", 5)
    assert home.run(one)[0] == 0
    segments.close(str(home.journal), 1 << 62, stage="test")
    assert home.run(one)[0] == 0
    before = len(list(journal.read(str(home.journal))))
    (home.journal / "000001.ftai").unlink()
    assert len(list(journal.read(str(home.journal)))) < before and home.troubles()
