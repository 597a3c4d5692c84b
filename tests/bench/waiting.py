"""The offline queue: tasks stored a second, and a drain of 1,000 tasks, against bare transactions with a sync in the same place.

Prints rows: name, value, unit, yardstick, ratio, with tabs between them.
"""

import os
import sqlite3
import sys
import tempfile
import time
from collections import namedtuple

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "lib"))
from serenamaster import archive, canonical, journal, paths, record, state, waiting  # noqa: E402

COUNT = 1000
End = namedtuple("End", "status body code kind fields", defaults=("", 0, None, {}))
Stop = namedtuple("Stop", "number", defaults=(0,))


def tasks() -> list:
    made = []
    for n in range(COUNT):
        command = record.make("command", "ftai-listen", body=f"write a polite reminder to customer {n}")
        route = record.make("route", "ftai-route", parent=command, target="model:any")
        lines = record.encode(route), record.encode(command)
        made.append(waiting.Item(route["id"], route["thread"], "model:any", lines=lines))
    return made


def bare(folder: str) -> float:
    """Seconds for as many transactions of one row, WAL and FULL."""
    db = sqlite3.connect(os.path.join(folder, "bare.db"), isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE rows (n INTEGER PRIMARY KEY, line BLOB)")
    line = b"x" * 600
    begun = time.perf_counter()
    for _ in range(COUNT):
        db.execute("INSERT INTO rows (line) VALUES (?)", (line,))
    spent = time.perf_counter() - begun
    db.close()
    os.unlink(os.path.join(folder, "bare.db"))
    return spent


def perform(route: dict):
    """As fast as an answer can be."""
    yield record.make("attempt", "ftai-queue", parent=route, target="model:any", n=1, status="done", ms=0)
    yield record.make("result", "ftai-queue", parent=route, target="model:any", status="done", ms=0, body="Dear customer, please.")
    return End("done")


def drain() -> float:
    """Seconds for a drain of all that waits, as ftai-queue does it, without its start."""

    def enter(records, known):
        outcomes = journal.append(paths.journal(), records, stage="ftai-queue", known=known, clear=records, covered=True)
        assert {kind for kind, _, _ in outcomes} == {"written"}

    begun = time.perf_counter()
    with waiting.Drain() as work:
        for item in work.tasks(Stop()):
            route = record.decode(item.lines[0])
            ways = {"show": None, "flush": None, "stored": lambda made: [record.encode(rec) for rec in canonical.cleared(made)], "stopped": lambda: False}
            how, made = waiting.once(work, item, route, perform(route), "ftai-queue", **ways)
            assert how == "done"
            waiting.hand_over({rec["id"] for rec in made}, enter, archive.lookup, lambda: ())
            archive.catch_up()
    return time.perf_counter() - begun


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ftai-bench-", dir=os.environ.get("FTAI_BENCH_DIR")) as folder:
        os.environ.update({"HOME": folder, "FTAI_HOME": f"{folder}/ftai"})
        wanted = tasks()
        yardstick = bare(paths.state())
        # As in ftai-exec, which has its claims open; the last one that closes the file checkpoints it.
        claims = state.connect(paths.state_db())
        begun = time.perf_counter()
        for item in wanted:
            waiting.put(item)
        spent = time.perf_counter() - begun
        print(f"queue put / bare synced transaction\t{COUNT / spent:,.0f}\t/s\t{COUNT / yardstick:,.0f}\t{spent / yardstick:.2f}", flush=True)
        claims.close()
        yardstick = bare(paths.state())
        spent = drain()
        assert waiting.items() == []
        print(f"queue drain of {COUNT:,} / {COUNT:,} bare transactions\t{spent:,.2f}\ts\t{yardstick:,.2f}\t{spent / yardstick:.2f}", flush=True)


main()
