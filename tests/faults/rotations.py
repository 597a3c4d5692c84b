"""What the fault tests of rotation share: a home whose journal is rotated while writers append, and the look at what is left.

Run as a program it is ftai-rotate without any sync of files and folders, for the control: python rotations.py ARGUMENT...
"""

import os
import re
import subprocess
import sys
import time
from collections import Counter, namedtuple
from pathlib import Path

import writers
from serenamaster import chain, journal, segments, verification

CALLS = ("link", "rename", "unlink", "fsync", "fdatasync")
# What a system call was about to do, by its name and the name of the file: the steps of a rotation in their order.
STEPS = [
    ("close: link", r"link(at)?\b.*current\.ftai"),
    ("close: new head", r"(rename|fsync)\b.*\.new\b"),
    ("seal", r"(rename|fsync)\b.*\.ftai\.zst\."),
    ("ledger", r"(rename|fsync)\b.*\bledger\b"),
    ("remove", r"unlink\b.*/[0-9]{6,}\.ftai\""),
    ("checkpoint", r"(rename|fsync)\b.*\bcheckpoint\b"),
    ("append", r"f(data)?sync\b.*/current\.ftai"),
    ("folder", r"fsync\b.*/journal>"),
]
KEPT = re.compile(r"current\.ftai|\.lock|\.purge|\.failed|\.torn|ledger|checkpoint|[0-9]{6,}\.ftai\.zst\.sealed")
Call = namedtuple("Call", "name number step")  # the number-th call of that name


class Home(writers.Home):
    """A scratch home with keys, whose rotator is ftai-rotate --now."""

    def __init__(self, folder, *, keys: bool = True):
        super().__init__(folder)
        if keys:
            subprocess.run(["ftai-keys", "init"], env=self.environment, stdout=subprocess.DEVNULL, check=True)

    def rotator(self, *, prefix=(), without=False, out=subprocess.PIPE):
        """A rotator that is under way; it says on `out` what it intends before it begins."""
        command = [sys.executable, __file__] if without else ["ftai-rotate"]
        made = [*prefix, *command, "--now"]
        return subprocess.Popen(made, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE, env=self.environment)

    def rotate(self, **settings) -> tuple[int, str]:
        """(status, what it said) of a rotator that may end by itself."""
        child = self.rotator(**settings)
        _, said = child.communicate(timeout=300)
        return child.returncode, said.decode("utf-8", "replace")

    def calls(self, given) -> list[Call]:
        """The system calls of a rotation that nobody disturbs, and that is not the first. given: a file of records, that there is something to rotate."""
        trace = self.path.parent / "calls"
        for _ in range(2):
            code, said = self.rotate()
            assert (code, self.run(given)[0]) == (0, 0), said
        code, said = self.rotate(prefix=tracing(trace, f"trace={','.join(CALLS)}"))
        assert code == 0, said
        seen: Counter = Counter()
        made = []
        for line in trace.read_text().splitlines():
            if call := re.match(r"(?:\d+ +)?(\w+)\(", line):
                seen[call[1]] += 1
                made.append(Call(call[1], seen[call[1]], step(line)))
        return made

    def names(self) -> set[str]:
        return {entry.name for entry in self.journal.iterdir()}

    def settled(self) -> None:
        """Fails unless all but the live segment is sealed, as the ledger tells, and nothing is left over."""
        odd = [name for name in self.names() if not KEPT.fullmatch(name)]
        assert not odd, odd
        parts, entries = chain.segments(str(self.journal)), chain.ledger(str(self.journal))
        assert [part.number for part in parts] == sorted(entries) == list(range(1, len(parts) + 1))
        for part in parts:
            entry = entries[part.number]
            assert segments.describe(str(self.journal), part).items() <= entry.items(), part
            fd, size, _ = chain.open_segment(part)
            with open(fd, "rb") as plain:
                assert (entry["bytes"], entry["sha256"]) == (size, digest(plain.read()))
            data = Path(part.path).read_bytes()
            assert (entry["file"], entry["sealed_bytes"], entry["sealed_sha256"]) == (part.name, len(data), digest(data))

    def whole(self, acknowledged: list) -> int:
        """Fails unless the journal holds each of these records, none twice, in a chain that is whole. Returns how many segments it has."""
        assert not self.lost(acknowledged)
        seqs, ids = [], Counter()
        for seq, rec in journal.read(str(self.journal)):
            seqs.append(seq)
            ids[rec["id"]] += 1
        assert seqs == list(range(1, len(seqs) + 1))
        assert not [own for own, count in ids.items() if count > 1]
        summary, troubles = verification.verify(str(self.journal))
        assert not troubles
        assert not [note for note in summary.notes if "could not be opened" in note]
        return summary.segments


class Writers:
    """Some writers that append all the time: one that ends, or is killed, is followed by the next."""

    def __init__(self, home, count: int = 4, *, without=None, codes: set | None = frozenset((0, -9))):
        self.home, self.without, self.codes = home, without, codes  # codes: that they may end with, None for any
        self.given = writers.supply(home.path.parent / "given", 2000)
        self.acknowledged: list = []
        self.kills = self.number = 0
        self.running: list = []
        for _ in range(count):
            self.begin()

    def begin(self) -> None:
        self.number += 1
        out = self.home.path.parent / f"writer-{self.number}.out"
        self.running.append((self.home.start(self.given, out, without=self.without, options=["--sync", "each"]), out))

    def take(self, place: int) -> int:
        """What one that has ended passed on."""
        child, out = self.running.pop(place)
        code = child.wait()
        said = Path(f"{out}.err").read_text()
        assert self.codes is None or code in self.codes, said
        self.acknowledged += writers.passed(out)
        out.unlink()
        return code

    def kill(self, place: int) -> None:
        """Kills one and begins another; one that ended just before counts as none."""
        self.running[place][0].kill()
        self.kills += self.take(place) == -9
        self.begin()

    def renew(self) -> None:
        """Begins others for those that have ended."""
        for place in reversed(range(len(self.running))):
            if self.running[place][0].poll() is not None:
                self.take(place)
                self.begin()

    def pids(self) -> list[int]:
        return [child.pid for child, _ in self.running]

    def passed(self) -> list:
        """What was passed on until now."""
        return self.acknowledged + [rec for _, out in self.running for rec in writers.passed(out)]

    def wait(self, count: int) -> None:
        """Waits until so many more records were passed on; where all have come to the end of what they were given, others go on."""
        end = self._lines() + count

        def enough() -> bool:
            self.renew()
            return self._lines() >= end

        until(enough)

    def _lines(self) -> int:
        return len(self.acknowledged) + sum(out.read_bytes().count(b"\n") for _, out in self.running)

    def end(self) -> list:
        while self.running:
            self.running[0][0].kill()
            self.take(0)
        return self.acknowledged


def tracing(trace, *expressions) -> list:
    """A prefix that runs a command under strace, which writes to the file `trace`."""
    return ["strace", "-f", "-y", "-qq", "-o", str(trace), *(word for one in expressions for word in ("-e", one))]


def step(line: str) -> str:
    """The step of a rotation that a traced call belongs to."""
    return next((name for name, words in STEPS if re.search(words, line)), "other")


def digest(data: bytes) -> str:
    from hashlib import sha256

    return sha256(data).hexdigest()


def until(true, seconds: float = 300.0) -> None:
    """Waits until `true` is."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.001)


def main(arguments: list) -> None:
    import runpy

    os.fsync = os.fdatasync = lambda fd: None
    os.posix_fadvise = lambda *_: None  # to let go of a page that was not written yet, the kernel writes it
    sys.argv = [str(writers.ROOT / "bin" / "ftai-rotate"), *arguments]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
