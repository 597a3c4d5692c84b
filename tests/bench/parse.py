"""ftai-parse, the whole process, against the parser of PyPI's `ftai`: megabytes a second on 20 MB of small blocks, closed and open.

Prints rows: name, value, unit, yardstick, ratio, with tabs between them.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RUNS = 5
SIZE = 20_000_000
YARDSTICK = "import sys; from ftai_linter.linter import parse_ftai_with_lines; parse_ftai_with_lines(sys.argv[1])"
# What can't be done without, without any reading: chunks, blocks, lines, a partition, orjson.
BARE = """
import os, orjson
rest = ""
while data := os.read(0, 262144):
    *blocks, rest = (rest + data.decode()).split("\\n\\n")
    out = []
    for block in blocks:
        rec = {}
        for line in block.split("\\n"):
            key, _, value = line.partition(": ")
            rec[key] = value
        out.append(orjson.dumps(rec, option=orjson.OPT_APPEND_NEWLINE))
    os.write(1, b"".join(out))
"""


def block(n: int, closed: bool) -> str:
    """About 145 bytes: quoted, bare and typed values."""
    fields = f'  from: "vault"\n  timestamp: 2026-04-17T23:16:{n % 60:02d}Z\n  n: {n}\n  body: "message number {n}, of the usual length of a line"\n'
    return f"@message\n{fields}{'@end' + chr(10) if closed else ''}\n"


def journaled(n: int, _closed: bool) -> str:
    """A record as the journal holds it, about 480 bytes."""
    own = f"019ab9c4-7d1e-7a31-9c1b-{n:012x}"
    ids = f'  id: "{own}"\n  ts: "2026-11-22T13:25:00.{n % 1000:03d}Z"\n  thread: "{own}"\n  from: "ftai-listen"\n'
    chain = f'  @chain\n    seq: {n}\n    salt: "{n:032x}"\n    hash: "{n:064x}"\n  @end\n'
    return f'@command\n{ids}  body: "remember to send invoice {n} tomorrow"\n  via: "text"\n  privacy: "local"\n{chain}@end\n\n'


def noted(n: int, _closed: bool) -> str:
    """What takes the long way: a head, text, a comment, nested narrative."""
    words = "  Some words of it, and more of them in\n  a second line.\n\n"
    return f"@section Part {n}\n  about: things // a comment\n{words}  @note Do thing {n}\n  @end\n@end\n\n"


def seconds(command: list[str], path: str) -> tuple[float, float]:
    """(wall, processor) seconds of a whole process that reads `path`."""
    before = os.times()
    begun = time.perf_counter()
    with open(path, "rb") as given:
        subprocess.run(command, stdin=given, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    after = os.times()
    return time.perf_counter() - begun, after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    ours = [sys.executable, f"{ROOT}/bin/ftai-parse"]
    kinds = [("closed", block, True), ("open", block, False), ("of the journal", journaled, True), ("with heads, text and comments", noted, True)]
    for name, make, closed in kinds:
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/x.ftai"
            with open(path, "w", encoding="utf-8") as out:
                out.write("@ftai v2.0\n\n")
                count = SIZE // len(make(100_000, closed))
                out.writelines(make(n, closed) for n in range(100_000, 100_000 + count))
            size = os.path.getsize(path) / 1e6
            ran: dict = {"ours": [], "pypi": [], "bare": []}
            for _ in range(RUNS):  # turn by turn, so that a busy machine slows all of them
                ran["ours"].append(seconds(ours, path))
                ran["pypi"].append(seconds([sys.executable, "-c", YARDSTICK, path], path))
                ran["bare"].append(seconds([sys.executable, "-c", BARE], path))
            for clock, index in (("wall", 0), ("processor", 1)):
                took = {who: statistics.median(times[index] for times in every) for who, every in ran.items()}
                for yardstick in ("pypi", "bare"):
                    ratio = took[yardstick] / took["ours"]
                    aim = " (aim 4)" if yardstick == "pypi" and make is block else ""
                    print(f"ftai-parse, blocks {name}, {clock} time, against {yardstick}{aim}\t{size / took['ours']:.1f}\tMB/s", end="\t")
                    print(f"{size / took[yardstick]:.1f}\t{ratio:.2f}", flush=True)


main()
