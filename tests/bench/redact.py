"""Redaction: microseconds a clean line of 300 bytes with google-re2 and without, what keys that are held cost, and the worst hostile line of 20 kB.

Prints rows: name, value, unit, yardstick, ratio, with tabs between them. The yardstick is the figure that ftai-redact promises (15 and 150 us, 50 ms).
"""

import glob
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import uuid

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "lib"))
sys.path.insert(0, os.path.join(ROOT, "tests", "unit"))
os.environ["FTAI_HOME"] = tempfile.mkdtemp()
from serenamaster import redact  # noqa: E402

ROUNDS = 7
READ = 200  # lines of one read of 64 KB
SIZE = 20_000
HOSTILE = [
    "a",
    "0",
    "aA1",
    "%41",
    "%5cu0041%2525",
    "\\u0041",
    "\\x41%",
    "\x1b[",
    "\u200b",
    "\uff21",
    "password=",
    "pypi-",
    "eyJaaaaaaaa.",
    "a@a.",
    "@",
    "://a:b@",
    "1.1.1.",
    "+49 ",
]
HOSTILE += [
    "4111 ",
    "4111 1111 1111 1111 ",
    "5105 1051 0510 ",
    "DE89370400440532013000",
    "000 000 ",
    "[redacted:key:12ab]",
    "-----BEGIN PRIVATE KEY-----",
    "Bearer ",
    "A" * 64 + "\n",
]


def content(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def cut(text: str) -> list[str]:
    words = " ".join(text.split())
    return [words[n : n + 300] for n in range(0, len(words) - 300, 300)][:2000]


def clean() -> dict[str, list[str]]:
    """Lines of 300 bytes by kind, those with something in them left out."""
    pages = cut(" ".join(content(path) for path in [f"{ROOT}/README.md", f"{ROOT}/HACKING.md", *sorted(glob.glob(f"{ROOT}/man/*"))]))
    code = cut(" ".join(content(path) for path in sorted(glob.glob(f"{sysconfig.get_paths()['stdlib']}/[a-h]*.py"))))
    log = [
        f"2026-11-22T13:25:00.123Z INFO {uuid.uuid4()} took {n} ms, worker-{n % 9}, /api/v1/items/{n}, 200, {n * 37 % 9999} bytes ".ljust(300, ".")
        for n in range(2000)
    ]
    return {kind: [line for line in lines if redact.text(line) is line] for kind, lines in (("prose", pages), ("code", code), ("log", log))}


def each(function, items: list) -> float:
    """Microseconds of processor time an item, the median of some rounds."""
    spent = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        for n in range(0, len(items), READ):
            function(items[n : n + READ])
        spent.append((time.process_time() - begun) / len(items) * 1e6)
    return statistics.median(spent)


def row(name: str, value: float, unit: str, promised: float) -> None:
    print(f"{name}\t{value:,.1f}\t{unit}\t{promised:,.1f}\t{value / promised:.2f}", flush=True)


def worst() -> tuple[float, str]:
    """Milliseconds of the hostile line that takes longest, and what it is made of."""
    found = []
    for sign in HOSTILE:
        text = (sign * SIZE)[:SIZE]
        redact.text(text[:1000])
        begun = time.process_time()
        redact.text(text)
        found.append(((time.process_time() - begun) * 1000, sign))
    return max(found)


def main() -> None:
    fast = len(sys.argv) < 2
    if not fast:
        sys.modules["re2"] = None  # type: ignore[assignment]
    way, promised = ("re2", 15) if fast else ("re", 150)
    for kind, lines in clean().items():
        row(f"a clean line of {kind}, 300 bytes, {way}", each(redact.lines, lines), "us", promised)
        if kind == "prose":
            records = [{"@tag": "message", "id": str(uuid.uuid4()), "ts": "2026-11-22T13:25:00.123Z", "from": "x", "body": line} for line in lines]
            row(f"the same as body of a record, {way}", each(redact.batch, records), "us", promised)
            for n in range(10):
                redact.remember(f"key{n}", uuid.uuid4().hex)
            row(f"the same line, ten keys held, {way}", each(redact.lines, lines), "us", promised)
            for n in range(10):
                redact.forget(f"key{n}")
    if fast:
        spent, sign = worst()
        row(f"the worst hostile line of 20 kB ({sign[:12]!r})", spent, "ms", 50)
        subprocess.run([sys.executable, __file__, "re"], check=True)


main()
