"""Rotation: closing, sealing and checking 64 MB; with FTAI_TEST_SCALE=10 or FTAI_BENCH=full, 1 GB.

Prints rows: name, value, unit, yardstick, ratio, with tabs between them. The yardstick of the time is that of the programs zstd and age, which pack,
encrypt, decrypt and compare the same file; that of the memory is that of a rotation of 1 MB; that of how long a writer waits while it runs is how
long it waits without it.
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
from serenamaster import archive, chain, journal, paths, record, seal, secret  # noqa: E402

BYTES = 1_000_000_000 if os.environ.get("FTAI_BENCH") == "full" or int(os.environ.get("FTAI_TEST_SCALE", "1")) >= 10 else 64_000_000
WORDS = [f"{a}{b}{c}" for a in ("bor", "kel", "mur", "tan", "vis", "zul") for b in ("a", "e", "i", "o", "u") for c in range(1000)]


def fill(size: int) -> None:
    """Appends records until the live segment has so many bytes."""
    folder, chance = paths.journal(), random.Random(1)
    pool = " ".join(chance.choices(WORDS, k=2_000_000))
    live = os.path.join(folder, chain.LIVE)
    while not os.path.exists(live) or os.path.getsize(live) < size:
        starts = [chance.randrange(len(pool) - 1200) for _ in range(min(5000, size // 1200))]
        journal.enter(folder, [record.make("note", "ftai-bench", body=pool[at : at + 1200]) for at in starts], stage="ftai-bench")
    # As it mostly is: else a rotation has that to do as well.
    archive.catch_up(limit=None, wait=10)


def filled(size: int) -> None:
    """fill() in a process of its own: what this one has in memory would be counted as that of the programs that it starts."""
    subprocess.run([sys.executable, __file__, "fill", str(size)], check=True)


def writer() -> None:
    """Appends records until standard input ends, and prints how long they took, in milliseconds: the 99th of a hundred, and the longest."""
    import select

    waits, folder = [], paths.journal()
    journal.append(folder, [record.make("note", "ftai-bench", body="first")], stage="ftai-bench")
    print("ready", flush=True)
    while not select.select([0], [], [], 0.002)[0]:
        made = [record.make("note", "ftai-bench", body="meanwhile")]
        begun = time.perf_counter()
        journal.append(folder, made, stage="ftai-bench")
        waits.append((time.perf_counter() - begun) * 1000)
    waits.sort()
    print(waits[len(waits) * 99 // 100], waits[-1])


def beside(work) -> tuple[float, float]:
    """The milliseconds of a writer beside work(): the 99th of a hundred, and the longest."""
    other = subprocess.Popen([sys.executable, __file__, "writer"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "ready\n"
    work()
    p99, longest = other.communicate()[0].split()
    return float(p99), float(longest)


def rotate() -> tuple[float, float]:
    """(seconds, megabytes of memory) of one run."""
    begun = time.perf_counter()
    child = subprocess.Popen([sys.executable, os.path.join(ROOT, "bin", "ftai-rotate"), "--now", "-q"], stdout=subprocess.PIPE)
    assert child.stdout is not None
    told = child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0 and b'"outcome":"done"' in told and b'"sealed":[' in told, told
    return time.perf_counter() - begun, used.ru_maxrss / (1024 if sys.platform != "darwin" else 1024 * 1024)


def bare(folder: str) -> float:
    """Seconds in which zstd and age pack and encrypt the live segment, and open and compare it; 0 where there are no such programs."""
    if not shutil.which("zstd") or not shutil.which("age"):
        return 0
    place, out, key = os.path.join(folder, chain.LIVE), os.path.join(folder, "bare"), os.path.join(folder, "key")
    with open(os.open(key, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        file.write(secret.identity() or "")
    begun = time.perf_counter()
    script = 'set -e; zstd -q -3 -c "$1" | age -r "$4" -o "$2"; sync "$2"; age -d -i "$3" "$2" | zstd -q -d -c | cmp - "$1"'
    subprocess.run(["sh", "-c", script, "sh", place, out, key, seal.recipient()], check=True)
    took = time.perf_counter() - begun
    os.unlink(out)
    os.unlink(key)
    return took


def row(name: str, value: float, unit: str, yardstick: float) -> None:
    print(f"{name}\t{value:,.2f}\t{unit}\t{yardstick:,.2f}\t{value / yardstick if yardstick else 0:.2f}", flush=True)


def main() -> None:
    home = tempfile.mkdtemp(prefix="ftai-bench-")
    os.environ["FTAI_HOME"] = home
    size = f"{BYTES // 1_000_000:,} MB"
    try:
        filled(1_000_000)
        _, little = rotate()
        filled(BYTES)
        took = bare(paths.journal())
        quiet = beside(lambda: time.sleep(max(took, 5)))
        found: list = []
        busy = beside(lambda: found.extend(rotate()))
        row(f"rotation of {size}", found[0], "s", took)
        row(f"rotation of {size}: memory", found[1], "MB", little)
        row(f"rotation of {size}: a writer beside it waits, p99", busy[0], "ms", quiet[0])
        row(f"rotation of {size}: a writer beside it waits at most", busy[1], "ms", quiet[1])
    finally:
        shutil.rmtree(home)


if sys.argv[1:2] == ["fill"]:
    fill(int(sys.argv[2]))
else:
    writer() if sys.argv[1:] == ["writer"] else main()
