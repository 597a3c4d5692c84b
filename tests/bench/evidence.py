"""What proves the journal: how fast it is verified against an anchor with the roots of its segments, and what a checkpoint and a proof take.

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
from serenamaster import chain, evidence, journal, paths, proofs, record, segments, verification  # noqa: E402

PARTS, MANY = 4, 25_000
ROUNDS = 5
# No more than splitting, and the hashes: two for the chain, and two for the tree, as each leaf comes with a node.
HASHES = """
import sys
from hashlib import sha256
for path in sys.argv[2:]:
    with open(path, "rb") as file:
        for one in file.read().split(b"\\n@end\\n"):
            own = sha256(sha256(one).hexdigest().encode() * 2)
            own.hexdigest()
            if sys.argv[1] == "tree":
                sha256(sha256(b"\\0" + own.digest()).digest() * 2).digest()
"""


def build() -> None:
    """Closed segments of so many records each, and a live one."""
    for part in range(PARTS + 1):
        made = []
        for n in range(MANY if part < PARTS else 100):
            words = f"what was said at {n}, of average length and with word{n % 1009} of its own in it"
            made.append(record.make("command", "bench", body=words, via="text", lang="en", tz="UTC", privacy="local"))
        for at in range(0, len(made), 1000):
            journal.append(paths.journal(), made[at : at + 1000], stage="bench")
        if part < PARTS:
            segments.rotate(paths.journal(), stage="ftai-bench")


def took(function, *args) -> float:
    begun = time.perf_counter()
    function(*args)
    return time.perf_counter() - begun


def bare(how: str) -> float:
    names = [part.path for part in chain.segments(paths.journal())]
    command = [sys.executable, "-c", HASHES, how, *names]
    return took(lambda: subprocess.run(command, check=True)) - took(lambda: subprocess.run([sys.executable, "-c", "import hashlib"], check=True))


def verify(anchor: str | None) -> None:
    kept = evidence.Anchor(anchor) if anchor else None
    summary, troubles = verification.verify(paths.journal(), seen=kept and kept.seen)
    troubles += kept.troubles(paths.journal(), summary) if kept else []
    assert not troubles and summary.records > PARTS * MANY, troubles


def rate(name: str, anchor: str | None, how: str) -> None:
    ours, yardsticks = [], []
    for _ in range(ROUNDS):
        ours.append(took(verify, anchor))
        yardsticks.append(bare(how))
    value, yardstick = (PARTS * MANY / statistics.median(found) for found in (ours, yardsticks))
    print(f"{name}\t{value:,.0f}\trecords/s\t{yardstick:,.0f}\t{value / yardstick:.2f}", flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("FTAI_BENCH_DIR", "/var/tmp")) as folder:
        os.environ["FTAI_HOME"] = folder
        proofs.make_key()
        build()
        home = paths.journal()
        signing, yardstick = took(lambda: evidence.checkpoint(home, stage="ftai-bench")), bare("tree")
        print(f"ftai-log --checkpoint, {PARTS} roots (yardstick: the hashes)\t{signing * 1000:,.0f}\tms\t{yardstick * 1000:,.0f}\t{signing / yardstick:.2f}")
        with open(f"{folder}/anchor", "w") as file:
            file.write(evidence.anchor(home))
        rate("ftai-log --verify, five segments (aim 100,000/s; yardstick: two hashes)", None, "chain")
        rate("ftai-log --verify --against, four roots (aim 100,000/s; yardstick: four hashes)", f"{folder}/anchor", "tree")
        own = next(rec["id"] for _, rec in journal.read(home, MANY + 100) if rec["@tag"] == "command")
        words = evidence.prove(home, own)
        proving = statistics.median(took(evidence.prove, home, own, MANY + 200) for _ in range(ROUNDS))
        name = f"ftai-log --prove, of {MANY:,} records (yardstick: the hashes)"
        print(f"{name}\t{proving * 1000:,.0f}\tms\t{yardstick / PARTS * 1000:,.0f}\t{proving / yardstick * PARTS:.2f}")
        checking = statistics.median(took(evidence.checked, words) for _ in range(ROUNDS))
        print(f"ftai-log --check-proof\t{checking * 1000:,.2f}\tms\t\t")


main()
