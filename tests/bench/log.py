"""The journal: ftai-log, one writer, each record synced and in batches, with and without archive, redaction and encryption; and how fast it is verified.

Prints rows: name, value, unit, yardstick, ratio, with tabs between them.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "lib"))
from serenamaster import record, verification  # noqa: E402

EACH = 3_000
MANY = 60_000
ROUNDS = 5
BARE = """
import os, sys
fd = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
with open(sys.argv[1], "rb") as file:
    records = file.read().split(b"\\n@end\\n")
for one in records[2:-1]:
    os.write(fd, one + b"\\n@end\\n")
    os.fdatasync(fd)
"""
BATCH = """
import os, sys, orjson
from hashlib import sha256
out = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
fd = os.open(sys.argv[1], os.O_RDONLY)
rest = b""
while data := os.read(fd, 65536):
    *lines, rest = (rest + data).split(b"\\n")
    for line in lines:
        orjson.loads(line)
        sha256(sha256(line).hexdigest().encode() * 2).hexdigest()
    os.write(out, data)
    os.fdatasync(out)
"""
HASHES = """
import sys
from hashlib import sha256
with open(sys.argv[1], "rb") as file:
    for one in file.read().split(b"\\n@end\\n"):
        sha256(sha256(one).hexdigest().encode() * 2).hexdigest()
"""
# ftai-log after some other lines of Python.
CHANGED = """
import runpy, sys
sys.path.insert(0, sys.argv[1] + "/lib")
{}
sys.argv = [sys.argv[1] + "/bin/ftai-log", *sys.argv[2:]]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
WAYS = {
    "redaction by re2": "",
    "redaction by re": "sys.modules['re2'] = None",
    "no redaction": "from serenamaster import redact\nredact.batch = lambda records, **more: records",
}


def row(name: str, value: float, yardstick: float) -> None:
    print(f"{name}\t{value:,.0f}\trecords/s\t{yardstick:,.0f}\t{value / yardstick:.2f}", flush=True)


def seconds(command: list, env: dict) -> float:
    begun = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, env=env, check=True)
    return time.perf_counter() - begun


def supply(path: str, count: int, thread: str | None = None) -> None:
    with open(path, "wb") as file:
        for n in range(count):
            words = f"what was said at {n}, of average length and with word{n % 1009} of its own in it"
            file.write(record.encode(record.make("command", "bench", thread=thread, body=words, via="text", lang="en", tz="UTC", privacy="local")))


class Home:
    """A new home for each run, on the disk of the working folder: a sync on tmpfs costs nothing and says nothing."""

    def __init__(self, folder: str, archive: bool = True):
        self.path = tempfile.mkdtemp(dir=folder)
        os.makedirs(f"{self.path}/state", mode=0o700)
        if not archive:
            # What is a folder is no database: the archive stays behind, as it may.
            os.mkdir(f"{self.path}/state/archive.db")
        self.segment = f"{self.path}/state/journal/current.ftai"
        path = f"{os.path.dirname(sys.executable)}:{ROOT}/bin:/usr/bin:/bin"
        self.env = {"PATH": path, "HOME": self.path, "FTAI_HOME": self.path, "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def each(folder: str, archive: bool) -> None:
    """Turn by turn with the yardstick, as a disk is never the same for long."""
    supply(f"{folder}/each", EACH)
    ours, bare, ratios = [], [], []
    for turn in range(ROUNDS):
        home = Home(folder, archive)
        ours.append(seconds(["ftai-log", "--sync", "each", f"{folder}/each"], home.env))
        bare.append(seconds(["python", "-c", BARE, home.segment, f"{folder}/bare{archive}{turn}"], home.env))
        ratios.append(bare[-1] / ours[-1])
    name = f"ftai-log --sync each{'' if archive else ', no archive'} (aim 0.70 of write and fdatasync)"
    print(f"{name}\t{EACH / statistics.median(ours):,.0f}\trecords/s\t{EACH / statistics.median(bare):,.0f}\t{statistics.median(ratios):.2f}", flush=True)


def batches(folder: str) -> str:
    supply(f"{folder}/many", MANY)
    bare, rates = [], {False: [], True: []}
    for turn in range(3):
        bare.append(MANY / seconds(["python", "-c", BATCH, f"{folder}/many", f"{folder}/batch{turn}"], Home(folder).env))
        for archive, found in rates.items():
            home = Home(folder, archive)
            found.append(MANY / seconds(["ftai-log", "--sink", f"{folder}/many"], home.env))
    for archive, found in rates.items():
        row(f"ftai-log in batches, {'with the' if archive else 'no'} archive (aim 10,000/s)", statistics.median(found), statistics.median(bare))
    return home.segment


def redaction(folder: str) -> None:
    """What it costs to look for secrets in records that hold none, in turn with not looking; with the archive."""
    rates: dict = {way: [] for way in WAYS}
    for _ in range(3):
        for way, lines in WAYS.items():
            home = Home(folder)
            rates[way].append(MANY / seconds(["python", "-c", CHANGED.format(lines), ROOT, "--sink", f"{folder}/many"], home.env))
    for way in list(WAYS)[:-1]:
        row(f"ftai-log in batches, with the archive, {way} (yardstick: none)", statistics.median(rates[way]), statistics.median(rates["no redaction"]))


def encryption(folder: str) -> None:
    """What it costs to seal, where all is one thread and where each record begins one; and to open it again. With the archive."""
    for what, thread, count in (("one thread", "bench", MANY), ("a new thread each", None, MANY // 10)):
        supply(f"{folder}/sealed", count, thread)
        writes: dict = {"off": [], "local": []}
        reads: dict = {"off": [], "local": []}
        for _ in range(3):
            for way, found in writes.items():
                home = Home(folder)
                found.append(count / seconds(["ftai-log", "--sink", f"{folder}/sealed"], home.env | {"FTAI_ENCRYPT": way}))
                reads[way].append(count / seconds(["ftai-recall", "--after", "0"], home.env))
        for name, rates in ((f"ftai-log in batches, with the archive, encrypted, {what}", writes), (f"ftai-recall of it, {what}", reads)):
            row(f"{name} (yardstick: clear)", statistics.median(rates["local"]), statistics.median(rates["off"]))


def verify(folder: str, segment: str) -> None:
    """In this process, against no more than splitting and two hashes a record."""
    env = Home(folder).env
    start = seconds(["python", "-c", "import hashlib"], env)
    took, bare = [], []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        summary, troubles = verification.verify(files=[segment])
        took.append(time.perf_counter() - begun)
        assert summary.records == MANY and not troubles
        bare.append(seconds(["python", "-c", HASHES, segment], env) - start)
    row("ftai-log --verify (aim 100,000/s; yardstick: two hashes)", MANY / statistics.median(took), MANY / statistics.median(bare))


def main() -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("FTAI_BENCH_DIR", "/var/tmp")) as folder:
        each(folder, archive=True)
        each(folder, archive=False)
        segment = batches(folder)
        redaction(folder)
        encryption(folder)
        verify(folder, segment)


main()
