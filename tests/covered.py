"""Reads `coverage json -o -` on standard input; ends with 1 if a file of bin/ or lib/ is not in it, or either of the two is covered below the limit.

coverage never lists an extension-less file that no test ran, so its own report can't be trusted to be whole.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 90


def main() -> int:
    files = {str((ROOT / name).resolve()): seen["summary"] for name, seen in json.load(sys.stdin)["files"].items()}
    bad = False
    for part in ("lib", "bin"):
        own = [path for path in sorted((ROOT / part).rglob("ftai-*" if part == "bin" else "*.py")) if path.read_bytes().strip()]
        unseen = [path for path in own if str(path) not in files]
        for path in unseen:
            print(f"coverage: no test ran '{path.relative_to(ROOT)}'", file=sys.stderr)
        counts = [files[str(path)] for path in own if path not in unseen]
        statements = sum(count["num_statements"] for count in counts)
        percent = 100 * sum(count["covered_lines"] for count in counts) / max(statements, 1)
        print(f"coverage of {part}/: {percent:.1f} % of {statements} statements in {len(counts)} files (at least {LIMIT} % asked)")
        bad |= bool(unseen) or percent < LIMIT
    return bad


sys.exit(main())
