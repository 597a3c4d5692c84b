"""Limits: what a call to a provider costs in state.db, begin() and end(), against bare transactions of SQLite on the same disk.

Prints rows: name, value, unit, yardstick, ratio, with tabs between them.
"""

import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "lib"))
from serenamaster import limits, paths  # noqa: E402

RUNS = 300
NAME = "anthropic/opus/0123abcd"
PROVIDER = {"name": "anthropic", "requests": 10**6, "tokens": 10**9}
SPEND = {"provider": "anthropic", "model": "opus", "agent": "", "calls": 1, "tokens": 1000, "amount": 0.01, "currency": "USD"}
BUDGETS = [
    {"name": "calls", "value": 10**9, "unit": "calls", "per": "day"},
    {"name": "money", "value": 10**9, "unit": "USD", "per": "month"},
    {"name": "opus", "value": 10**9, "unit": "USD", "per": "day", "model": "opus"},
]
HEADERS = {"requests_left": 10**6, "requests_reset": 30.0, "tokens_left": 10**9, "tokens_reset": 30.0}
FIRST = "import sys; sys.path.insert(0, sys.argv[1]); from serenamaster import limits; import time; begun = time.perf_counter()"
FIRST += f"; limits.begin({NAME!r}, {PROVIDER!r}, [], {SPEND!r}, 'first', 30, 1); print((time.perf_counter() - begun) * 1e6)"


def us(run) -> float:
    begun = time.perf_counter()
    run()
    return (time.perf_counter() - begun) * 1e6


def against(name: str, ours, bare) -> None:
    """The medians, turn by turn, so that a busy disk slows both."""
    mine, yardstick = [], []
    for _ in range(RUNS):
        yardstick.append(us(bare))
        mine.append(us(ours))
    row(name, statistics.median(mine), statistics.median(yardstick))


def row(name: str, value: float, yardstick: float) -> None:
    print(f"{name}\t{value:,.0f}\tus\t{yardstick:,.0f}\t{value / yardstick:.2f}", flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ftai-bench-") as folder:
        os.environ["FTAI_HOME"] = f"{folder}/ftai"
        limits.mark("sk-1")
        # A month of twenty models and five agents.
        db = sqlite3.connect(paths.state_db())
        today = time.strftime("%Y-%m", time.gmtime())
        db.executemany(
            "INSERT INTO spends VALUES (?, 'anthropic', ?, ?, 'USD', 1, 1, 1)",
            [(f"{today}-{day:02}", f"model {n}", f"agent {m}") for day in range(1, 29) for n in range(20) for m in range(5)],
        )
        db.commit()
        db.close()
        other = sqlite3.connect(f"{folder}/bare.db", isolation_level=None)
        other.execute("PRAGMA journal_mode=WAL")
        other.execute("CREATE TABLE t (x)")
        count = 0

        def bare(synchronous: str):
            def run() -> None:
                other.execute(f"PRAGMA synchronous={synchronous}")
                other.execute("BEGIN IMMEDIATE")
                other.execute("INSERT INTO t VALUES (1)")
                other.execute("COMMIT")

            return run

        def call(budgets):
            def run() -> None:
                nonlocal count
                count += 1
                assert not any(limits.begin(NAME, PROVIDER, budgets, SPEND, str(count), 30, 1000))
                limits.end(NAME, str(count), SPEND, limits=HEADERS)

            return run

        full, normal = bare("FULL"), bare("NORMAL")
        against("limits: a call with budgets / bare synced + unsynced", call(BUDGETS), lambda: (full(), normal()))
        against("limits: a call without budgets / two bare unsynced", call([]), lambda: (normal(), normal()))
        against("limits: standings / bare synced", lambda: limits.standings([NAME, "openai/gpt/-", "mlx/tiny/-"], BUDGETS), full)
        first = [float(subprocess.run([sys.executable, "-c", FIRST, f"{ROOT}/lib"], capture_output=True, check=True).stdout) for _ in range(11)]
        row("limits: the first begin of a process / bare synced", statistics.median(first), statistics.median([us(full) for _ in range(50)]))


main()
