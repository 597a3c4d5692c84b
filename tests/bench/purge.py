"""Purge: a thread of 50 records in an archive of 20,000; with FTAI_TEST_SCALE=10 or FTAI_BENCH=full, of 1,000,000.

Prints rows: name, value, unit, yardstick, ratio, with tabs between them. The yardstick of a purge is the bare VACUUM of the same database, that
of how long a writer waits at most while it runs is how long it waits at most without it.
"""

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "lib"))
from serenamaster import archive, journal, paths, purge, record, segments  # noqa: E402

COUNT = 1_000_000 if os.environ.get("FTAI_BENCH") == "full" or int(os.environ.get("FTAI_TEST_SCALE", "1")) >= 10 else 20_000
WORDS = [f"{a}{b}{c}" for a in ("bor", "kel", "mur", "tan", "vis", "zul") for b in ("a", "e", "i", "o", "u") for c in range(1000)]


def fill() -> str:
    """A journal in four segments, in threads of 50; returns one of them."""
    folder, chance = paths.journal(), random.Random(1)
    for start in range(0, COUNT, 5000):
        batch = []
        for number in range(start, min(start + 5000, COUNT)):
            if number % 50 == 0:
                thread = record.new_id()
            batch.append(record.make("note", "ftai-bench", thread=thread, body=" ".join(chance.choices(WORDS, k=10)), privacy="local"))
        journal.append(folder, batch, stage="ftai-bench")
        if start == COUNT // 2:
            chosen = thread
        if start // (COUNT // 4 + 1) != (start + 5000) // (COUNT // 4 + 1):
            segments.close(folder, 1 << 62, stage="ftai-bench")
    return chosen


def writer() -> None:
    """Appends records until standard input ends, and prints how long the longest took, in milliseconds."""
    import select

    longest, folder = 0.0, paths.journal()
    journal.append(folder, [record.make("note", "ftai-bench", body="first")], stage="ftai-bench")
    print("ready", flush=True)
    while not select.select([0], [], [], 0.002)[0]:
        made = [record.make("note", "ftai-bench", body="meanwhile")]
        begun = time.perf_counter()
        journal.append(folder, made, stage="ftai-bench")
        longest = max(longest, time.perf_counter() - begun)
    print(longest * 1000)


def beside(work) -> tuple[float, float]:
    """(seconds that work() takes, milliseconds that a writer beside it waits at most)."""
    other = subprocess.Popen([sys.executable, __file__, "writer"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "ready\n"
    begun = time.perf_counter()
    work()
    took = time.perf_counter() - begun
    return took, float(other.communicate()[0])


def row(name: str, value: float, unit: str, yardstick: float) -> None:
    print(f"{name}\t{value:,.2f}\t{unit}\t{yardstick:,.2f}\t{value / yardstick:.2f}", flush=True)


def main() -> None:
    home = tempfile.mkdtemp(prefix="ftai-bench-")
    os.environ["FTAI_HOME"] = home
    try:
        thread = fill()
        assert archive.catch_up(limit=None) is None
        copy = os.path.join(home, "copy.db")
        archive._close()
        shutil.copy(paths.archive_db(), copy)
        db = sqlite3.connect(copy, isolation_level=None)
        begun = time.perf_counter()
        db.execute("VACUUM")
        bare = time.perf_counter() - begun
        db.close()
        os.unlink(copy)
        _, quiet = beside(lambda: time.sleep(min(bare, 10)))
        told: list = []
        took, waited = beside(lambda: told.extend(purge.run(purge.Asked(threads=(thread,)), "bench", stage="ftai-bench")))
        assert told[-1]["records"] == 50, told
        row(f"purge, {COUNT:,}: a thread of 50 records", took, "s", bare)
        row(f"purge, {COUNT:,}: a writer beside it waits at most", waited, "ms", quiet)
    finally:
        shutil.rmtree(home)


writer() if sys.argv[1:] == ["writer"] else main()
