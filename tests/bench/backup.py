"""Backups of a journal of 20,000 records in four segments, two of them sealed; with FTAI_TEST_SCALE=10 or FTAI_BENCH=full, of 1,000,000.

Prints rows: name, value, unit, yardstick, ratio, with tabs between them. The yardstick of a backup, of one with little new, of a check and of a
restore is `cp` of the same files and the sync of the copies; that of a drill, which restores and rebuilds, is a rebuild of the archive alone.
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "lib"))
from serenamaster import archive, backup, chain, journal, paths, proofs, record, seal, sealed, segments, verification  # noqa: E402

COUNT = 1_000_000 if os.environ.get("FTAI_BENCH") == "full" or int(os.environ.get("FTAI_TEST_SCALE", "1")) >= 10 else 20_000
WORDS = [f"{a}{b}{c}" for a in ("bor", "kel", "mur", "tan", "vis", "zul") for b in ("a", "e", "i", "o", "u") for c in range(1000)]
STAGE = "ftai-bench"


def fill() -> None:
    folder, chance = paths.journal(), random.Random(1)
    for start in range(0, COUNT, 5000):
        batch = [record.make("note", "ftai-notes", body=" ".join(chance.choices(WORDS, k=10)), privacy="local") for _ in range(min(5000, COUNT - start))]
        journal.append(folder, batch, stage=STAGE)
        if start // (COUNT // 4 + 1) != (start + 5000) // (COUNT // 4 + 1):
            segments.rotate(folder, stage=STAGE)
    for segment in chain.segments(folder)[:2]:
        entry = segments.describe(folder, segment)
        fd = chain.regular(segment.path)
        entry |= sealed.write(fd, segment.path, entry)
        os.close(fd)
        segments.put_away(folder, segment, entry)


def timed(work) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def fails(bad) -> None:
    raise bad


def verified(home: str, segment=None) -> str:
    _, troubles = verification.verify(os.path.join(home, "state", "journal"))
    return str(troubles[0]) if troubles else ""


def rebuilt(home: str) -> str:
    """A rebuild in another home, by the command, as ftai-rotate drill runs it."""
    command = [sys.executable, os.path.join(ROOT, "bin", "ftai-archive"), "rebuild"]
    ran = subprocess.run(command, env=os.environ | {"FTAI_HOME": home}, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return ran.stderr if ran.returncode else ""


def row(name: str, value: float, unit: str, yardstick: float) -> None:
    print(f"{name}\t{value:,.2f}\t{unit}\t{yardstick:,.2f}\t{value / yardstick:.2f}", flush=True)


def copied(place: str) -> float:
    """Seconds of `cp` of journal and archive, and of the sync of the copies."""
    state, names = paths.state(), [*(f"journal/{name}" for name in os.listdir(paths.journal()) if name[0] != "."), "archive.db"]
    files = [os.path.join(state, name) for name in names]
    os.mkdir(place)
    took = timed(lambda: subprocess.run(["cp", *files, place], check=True)) + timed(
        lambda: subprocess.run(["sync", *(os.path.join(place, os.path.basename(name)) for name in files)], check=True)
    )
    shutil.rmtree(place)
    return took


def main() -> None:
    home = tempfile.mkdtemp(prefix="ftai-bench-")
    os.environ["FTAI_HOME"] = os.path.join(home, "own")
    quiet = {"stage": STAGE, "warn": lambda _: None, "fail": fails}
    try:
        proofs.make_key()
        seal.recipient()
        fill()
        assert archive.catch_up(limit=None) is None
        archive._close()
        os.mkdir(to := os.path.join(home, "to"))
        plain = copied(os.path.join(home, "copy"))
        made: list[dict] = []
        took = timed(lambda: made.append(backup.make(to, **quiet)))
        megabytes = made[0]["bytes"] / 1e6
        row(f"backup, {COUNT:,} records, {megabytes:,.0f} MB: the first, opened again", megabytes / took, "MB/s", megabytes / plain)
        journal.append(paths.journal(), [record.make("note", "ftai-notes", body="more")], stage=STAGE)
        took = timed(lambda: made.append(backup.make(to, **quiet)))
        row(f"backup, {COUNT:,} records: the next, with one record more", took, "s", plain)
        took = timed(lambda: backup.check(to, None, fails, read_data=True, warn=quiet["warn"]))
        row(f"backup, {COUNT:,} records: check --read-data of both", took, "s", plain)
        into = os.path.join(home, "restored")
        took = timed(lambda: backup.restore(to, into, None, verify=lambda *_: "", warn=quiet["warn"]))
        row(f"backup, {COUNT:,} records: restore", took, "s", plain)
        bare = timed(lambda: rebuilt(into))
        told: list[dict] = []
        took = timed(lambda: told.append(backup.drill(to, None, verify=verified, rebuild=rebuilt, warn=quiet["warn"])))
        assert told[0]["outcome"] == "done" and told[0]["rows"] >= COUNT, told
        row(f"backup, {COUNT:,} records: drill: restore, verify, rebuild, compare", took, "s", bare)
    finally:
        shutil.rmtree(home)


main()
