"""Recall: taking in, and queries in the process, at 100,000 records; with FTAI_BENCH=full at 1,000,000 too.

Prints rows: name, value, unit, yardstick, ratio, with tabs between them. The yardstick of taking in is the bare insert of the same rows
without index of words; that of a query is SQLite's own `ORDER BY rank` over all hits.
"""

import os
import random
import shutil
import sqlite3
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "lib"))
from serenamaster import archive, journal, paths, record  # noqa: E402

SIZES = (100_000, 1_000_000) if os.environ.get("FTAI_BENCH") == "full" else (100_000,)
QUERIES = 300
TAGS = ("command", "task", "result", "note", "memory")
# The words that language is made of stand nearly everywhere; of the others, most are rare.
COMMON = ("invoice", "meeting", "project", "report", "send", "call", "week", "number", "people", "water")
RARE = [f"{a}{b}{c}" for a in ("bor", "kel", "mur", "tan", "vis", "zul") for b in ("a", "e", "i", "o", "u") for c in range(1000)]


def fill(count: int, chance: random.Random) -> None:
    """A journal of so many records in threads of five, about 270 bytes each in line form."""
    folder = paths.journal()
    for start in range(0, count, 5000):
        batch = []
        for number in range(start, min(start + 5000, count)):
            if number % 5 == 0:
                thread = record.new_id()
            words = [word for word in COMMON if chance.random() < 0.6] + chance.choices(RARE, k=4)
            chance.shuffle(words)
            batch.append(record.make(TAGS[number % 5], "ftai-bench", thread=thread, body=" ".join(words), privacy="local"))
        journal.append(folder, batch, stage="ftai-bench")


def row(name: str, value: float, unit: str, yardstick: float, ratio: float) -> None:
    print(f"{name}\t{value:,.1f}\t{unit}\t{yardstick:,.1f}\t{ratio:.2f}", flush=True)


def bare_insert(path: str) -> float:
    """Rows a second of a bare insert into a table with the same columns and no index."""
    source, target = sqlite3.connect(paths.archive_db()), sqlite3.connect(path, isolation_level=None)
    rows = source.execute("SELECT * FROM records LIMIT 100000").fetchall()
    target.execute("CREATE TABLE records (seq INTEGER PRIMARY KEY, id, ts, thread, parent, tag, updates, text, line)")
    begun = time.perf_counter()
    for start in range(0, len(rows), archive.BATCH):
        target.execute("BEGIN")
        target.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows[start : start + archive.BATCH])
        target.execute("COMMIT")
    source.close()
    return len(rows) / (time.perf_counter() - begun)


def times(ask, questions) -> list[float]:
    """Milliseconds of each question, sorted."""
    seen = []
    for question in questions:
        begun = time.perf_counter()
        ask(question)
        seen.append((time.perf_counter() - begun) * 1000)
    return sorted(seen)


def queries(db, size: int, chance: random.Random) -> None:
    def ranked(words):
        return db.execute("SELECT rowid FROM words WHERE words MATCH ? ORDER BY rank LIMIT 20", (" ".join(archive.terms(words)),)).fetchall()

    pick = chance.choice
    kinds = {
        "a rare word": [pick(RARE) for _ in range(QUERIES)],
        "a rare and a common word": [f"{pick(RARE)} {pick(COMMON)}" for _ in range(QUERIES)],
        "a very common word": [pick(COMMON) for _ in range(QUERIES)],
        "three very common words": [" ".join(chance.sample(COMMON, 3)) for _ in range(QUERIES)],
    }
    for kind, questions in kinds.items():
        ours = times(lambda words: archive.search(db, words), questions)
        plain = times(ranked, questions[: 20 if "very" in kind else QUERIES])
        middle, late = ours[len(ours) // 2], ours[len(ours) * 99 // 100]
        row(f"recall, {size:,}: {kind}, median", middle, "ms", plain[len(plain) // 2], middle / plain[len(plain) // 2])
        row(f"recall, {size:,}: {kind}, p99", late, "ms", plain[len(plain) * 99 // 100], late / plain[len(plain) * 99 // 100])
    for name, ask in {
        "a very common word with a tag": lambda words: archive.search(db, words, tags=["task"]),
        "a very common word, one a thread": lambda words: archive.search(db, words, threads=True),
    }.items():
        ours = times(ask, kinds["a very common word"][:100])
        row(f"recall, {size:,}: {name}, p99", ours[99 * len(ours) // 100], "ms", 50, ours[99 * len(ours) // 100] / 50)


def main() -> None:
    for size in SIZES:
        home = tempfile.mkdtemp(prefix="ftai-bench-")
        os.environ["FTAI_HOME"] = home
        try:
            chance = random.Random(size)
            fill(size, chance)
            begun = time.perf_counter()
            reason = archive.catch_up(limit=None)
            rate = size / (time.perf_counter() - begun)
            assert reason is None, reason
            bare = bare_insert(os.path.join(home, "bare.db"))
            row(f"archive, {size:,}: taking in", rate, "records/s", bare, rate / bare)
            db = archive.connect()
            queries(db, size, chance)
            db.close()
        finally:
            archive._writer.clear()
            archive._caught.clear()
            shutil.rmtree(home)


main()
