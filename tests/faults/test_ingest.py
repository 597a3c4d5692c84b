"""Taking in is exactly once, whatever stops it: kill -9, a full disk, an error of the disk, an aborted statement, at random points.

Each fault must be seen to have fired; after it another process takes in the rest, and rows and index are those of a rebuild.
The control takes in without a transaction, and must lose something.
"""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys

import pytest
from serenamaster import archive, journal, paths, record

SCALE = int(os.environ.get("FTAI_TEST_SCALE", "1"))
FAULTS = 30 * SCALE  # in all; 300 at full scale
LIB = os.path.dirname(os.path.dirname(archive.__file__))

# What a process does that takes in and keeps in shape: several transactions, several checkpoints.
INGEST = """
import sys
from serenamaster import archive
archive.BATCH = 5
if "unsafe" in sys.argv:
    class Unsafe:
        def __init__(self, db): pass
        def __enter__(self): pass
        def __exit__(self, *_): pass
    archive.Transaction = Unsafe
steps = int(sys.argv[1])
if steps:
    opened = archive._open
    def limited(*arguments, **more):
        db = opened(*arguments, **more)
        left = [steps]
        def tick():
            left[0] -= 1
            return left[0] < 0
        db.set_progress_handler(tick, 10)
        return db
    archive._open = limited
reason = archive.catch_up()
if not reason and "maintain" in sys.argv:
    try:
        archive.maintain()
    except archive.Failure as bad:
        reason = bad.message
print(reason or "taken in")
"""
strace = pytest.mark.skipif(not shutil.which("strace"), reason="needs strace, to stop a process at a chosen system call")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FTAI_HOME", str(tmp_path))
    archive._caught.clear()
    yield tmp_path
    archive._writer.clear()
    archive._caught.clear()
    archive._desk.clear()


def put(count, generator):
    records = [record.make("note", "test", body=f"invoice {generator.random()} " + "word " * generator.randrange(60)) for _ in range(count)]
    journal.append(paths.journal(), records, stage="test")


def ingest(*arguments, wrap=()):
    """Takes in, in a process of its own. Returns (status, what it says, what the wrapper says)."""
    command = [*wrap, sys.executable, "-c", INGEST, *map(str, arguments)]
    ran = subprocess.run(command, env=os.environ | {"PYTHONPATH": LIB}, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout.strip(), ran.stderr


def calls(*arguments):
    """How often the system calls that write are called when nothing goes wrong."""
    _, _, counted = ingest(*arguments, wrap=("strace", "-f", "-c", "-e", "trace=pwrite64,fdatasync,ftruncate"))
    found = dict.fromkeys(("pwrite64", "fdatasync", "ftruncate"), 0)
    for line in counted.splitlines():
        words = line.split()
        if words and words[-1] in found:
            found[words[-1]] = int(words[3])
    return found


def held(path):
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab (main, words, instance)")
        db.execute("INSERT INTO words (words, rank) VALUES ('integrity-check', 1)")
        return [
            db.execute("SELECT * FROM records ORDER BY seq").fetchall(),
            db.execute("SELECT term, doc, col, offset FROM temp.vocabulary ORDER BY 1, 2, 3, 4").fetchall(),
        ]
    finally:
        db.close()


def compare(home):
    """What is there against what a rebuild of a copy gives."""
    seen = held(paths.archive_db())
    copy = home / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(home / "state" / "journal", copy / "state" / "journal")
    code = "from serenamaster import archive; archive.rebuild()"
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": LIB, "FTAI_HOME": str(copy)}, check=True)
    return seen, held(copy / "state" / "archive.db")


def rounds(home, generator, faults, strike):
    """So many faults, each on what is new; after each another process goes on, and now and then all is compared. Returns those that fired."""
    fired = 0
    while fired < faults:
        put(generator.randrange(8, 30), generator)
        fired += strike()
        assert ingest(0)[1] == "taken in"
        if not fired % 10 or fired == faults:
            seen, wanted = compare(home)
            assert seen == wanted
    return fired


@strace
@pytest.mark.parametrize(
    "fault, call",
    [("signal=KILL", "pwrite64"), ("signal=KILL", "fdatasync"), ("error=ENOSPC", "pwrite64"), ("error=EIO", "pwrite64"), ("error=EIO", "fdatasync")],
)
def test_faults_of_system_calls(home, fault, call):
    generator = random.Random(f"{fault} {call}")
    put(40, generator)
    total = calls(0, "maintain")[call]
    assert total > 3, "there is nothing to strike at"

    def strike():
        point = generator.randrange(1, total + 1)
        status, said, _ = ingest(0, "maintain", wrap=("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={call}:{fault}:when={point}"))
        if fault == "signal=KILL":
            assert status in (0, -signal.SIGKILL, 128 + signal.SIGKILL)
            return status != 0
        # Some errors are met again and survived: what is late is not lost.
        assert status == 0
        return said != "taken in"

    assert rounds(home, generator, max(FAULTS // 6, 3), strike) >= 3


def test_aborted_statements(home):
    generator = random.Random("abort")
    put(40, generator)

    def strike():
        _, said, _ = ingest(generator.randrange(1, 4000), "maintain")
        assert said
        return "interrupted" in said

    assert rounds(home, generator, max(FAULTS // 6, 3), strike) >= 3


@strace
@pytest.mark.parametrize("call", ["pwrite64", "unlink", "rename", "fsync"])
def test_a_rebuild_that_is_killed(home, call):
    """The old archive stays, or is gone and made again; a WAL is never left beside a file that is not its own."""
    generator = random.Random(call)
    put(60, generator)
    assert ingest(0)[1] == "taken in"
    code = "from serenamaster import archive; archive.BATCH = 20; archive.rebuild()"
    points = {"unlink": [1, 2, 3], "pwrite64": [generator.randrange(1, 40) for _ in range(3 * SCALE)]}
    for point in points.get(call, [1]):
        put(5, generator)
        assert ingest(0)[1] == "taken in"  # something stands in the WAL of the old one
        wrap = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={call}:signal=KILL:when={point}"]
        ran = subprocess.run([*wrap, sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": LIB}, capture_output=True, check=False)
        assert ran.returncode != 0 or point > 1, "the fault never fired"
        put(5, generator)
        assert ingest(0)[1] == "taken in"
        seen, wanted = compare(home)
        assert seen == wanted


@strace
def test_the_control_without_transactions_loses(home):
    generator = random.Random("control")
    put(40, generator)
    assert ingest(0)[1] == "taken in"
    for _ in range(60):
        put(20, generator)
        total = calls(0, "unsafe")["pwrite64"]
        put(20, generator)
        point = generator.randrange(1, total + 1)
        ingest(0, "unsafe", wrap=("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject=pwrite64:signal=KILL:when={point}"))
        ingest(0)
        try:
            seen, wanted = compare(home)
        except sqlite3.DatabaseError:
            return  # the index says of itself that it is not whole
        if seen != wanted:
            return
    pytest.fail("taking in without transactions survived every fault: these faults prove nothing")
