"""Runs the gates of the release spec in order, as ftai-specs(5) describes them; ends with 1 if one does not hold."""

import os
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "lib"))
from serenamaster import __version__, specs  # noqa: E402
from serenamaster.errors import Failure  # noqa: E402


def holds(gate: dict) -> str:
    """Why a gate does not hold, or "". Its command does not see the owner's FTAI_HOME: a gate writes into no journal of theirs."""
    command = [part.replace("{version}", __version__) for part in gate["run"]]
    env = {name: value for name, value in os.environ.items() if not name.startswith("FTAI_")}
    try:
        ran = subprocess.run(
            command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=gate.get("timeout"), check=False
        )
    except subprocess.TimeoutExpired:
        return f"not done after {gate['timeout']} s"
    except OSError as bad:
        return f"cannot run '{command[0]}': {bad.strerror}"
    said = ran.stdout.decode("utf-8", "replace")
    wanted = gate.get("contains", "")
    if ran.returncode != gate.get("expect", 0):
        return f"status {ran.returncode}, expected {gate.get('expect', 0)}\n{said[-3000:]}"
    return "" if wanted in said else f"its output does not contain '{wanted}'\n{said[-3000:]}"


def main() -> int:
    failed = []
    try:
        gates = specs.load("release")["gate"]
    except Failure as bad:
        print(f"release-check: {bad.message}", file=sys.stderr)
        return bad.code
    for gate in gates:
        begun = time.monotonic()
        why = holds(gate)
        print(f"{'FAIL' if why else 'ok  '} {gate['name']} ({time.monotonic() - begun:.0f} s): {gate['summary']}", flush=True)
        if why:
            failed.append(gate["name"])
            print(f"     {gate['at']}: {why}")
    print(f"{len(gates) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


sys.exit(main())
