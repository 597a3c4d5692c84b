"""Starts: each stage, the four-stage pipe and ftai-run against `python -c pass`; and what the pipe carries against a bare loop.

Prints rows: name, value, unit, yardstick, ratio, with tabs between them.
"""

import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "unit"))
import plain  # noqa: E402

RUNS = 21
MANY = 200_000
SENTENCE = "remember to send the invoice tomorrow"
# What a pass-through stage can't do without: read 64 KB, take lines apart, look at each record, write.
BARE = """
import os, orjson
rest = b""
while data := os.read(0, 65536):
    *lines, rest = (rest + data).split(b"\\n")
    out = []
    for line in lines:
        if orjson.loads(line).get("@tag") != "command":
            out.append(line + b"\\n")
    os.write(1, b"".join(out))
"""


def environment(home: str) -> dict:
    """A clean one, with the venv's own python first (a pyenv shim alone costs 90 ms) and byte code kept."""
    return {"PATH": f"{os.path.dirname(sys.executable)}:{ROOT}/bin:/usr/bin:/bin", "HOME": home, "FTAI_HOME": f"{home}/ftai", "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def wall(command: list[str], given: bytes, env: dict) -> float:
    """Milliseconds of a whole run. Its status does not matter: ftai-doctor finds things."""
    begun = time.perf_counter()
    subprocess.run(command, input=given, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env, check=False)
    return (time.perf_counter() - begun) * 1000


def row(name: str, value: float, unit: str, yardstick: float, ratio: float) -> None:
    print(f"{name}\t{value:,.1f}\t{unit}\t{yardstick:,.1f}\t{ratio:.2f}", flush=True)


def against_pass(name: str, command: list[str], given: bytes, env: dict) -> None:
    """The median, turn by turn with the yardstick, so that a busy machine slows both."""
    wall(command, given, env)  # fills the caches
    ours, bare = [], []
    for _ in range(RUNS):
        bare.append(wall(["python", "-c", "pass"], b"", env))
        ours.append(wall(command, given, env))
    row(name, statistics.median(ours), "ms", statistics.median(bare), statistics.median(ours) / statistics.median(bare))


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        env = environment(home)
        stages = sorted(name for name in os.listdir(f"{ROOT}/bin") if name.startswith("ftai-"))
        for stage in stages:
            args, given = plain.run_of(stage)
            against_pass(f"start {stage} (aim 4.5 x python -c pass)", [stage, *args], given, env)
        pipe = f"ftai-listen {shlex.quote(SENTENCE)} | ftai-route | ftai-exec | ftai-log | ftai-show -a"
        against_pass("listen|route|exec|log|show, one sentence (aim 350 ms)", ["bash", "-c", pipe], b"", env)
        against_pass("ftai-run, the same sentence (aim 150 ms)", ["ftai-run", SENTENCE], b"", env)

        many = f"{home}/many"
        with open(many, "wb") as out:
            for n in range(MANY):
                out.write(plain.RECORD.replace(b"5b6c7d8e", b"%08x" % n))
        bare = wall(["bash", "-c", f"python -c {shlex.quote(BARE)} < {many} > /dev/null"], b"", env)
        for stage in ("ftai-route", "ftai-exec"):
            took = min(wall(["bash", "-c", f"{stage} < {many} > /dev/null"], b"", env) for _ in range(3))
            row(f"{stage} passes {MANY:,} records (aim 300,000/s)", MANY / took * 1000, "records/s", MANY / bare * 1000, bare / took)
        took = wall(["bash", "-c", f"cat {many} | ftai-route | ftai-exec | ftai-log | ftai-show -a > /dev/null"], b"", env)
        row(f"route|exec|log|show, {MANY:,} records", MANY / took * 1000, "records/s", MANY / bare * 1000, bare / took)


main()
