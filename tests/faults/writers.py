"""What the fault tests share: a home, writers that run in it, and the look at what is left.

Run as a program it is ftai-log with something taken out of it, for the controls: python writers.py WITHOUT FILE..., where WITHOUT is
`lock`, `repair` (of torn tails), `short` (the finishing of short writes) or `sync`.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SCALE = int(os.environ.get("FTAI_TEST_SCALE", "1"))
if str(ROOT / "lib") not in sys.path:
    sys.path.insert(0, str(ROOT / "lib"))

from serenamaster import canonical, chain, journal, record, verification  # noqa: E402


class Home:
    """A scratch home with one journal."""

    def __init__(self, folder):
        self.path = Path(folder)
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.journal = self.path / "state" / "journal"
        self.current = self.journal / "current.ftai"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("FTAI_", "XDG_", "PYTHON", "COVERAGE"))}
        kept |= {name: os.environ[name] for name in ("COVERAGE_PROCESS_START", "COVERAGE_FILE") if name in os.environ}
        path = f"{Path(sys.executable).parent}:{ROOT}/bin:{os.environ['PATH']}"
        self.environment = kept | {"PATH": path, "HOME": str(self.path), "FTAI_HOME": str(self.path), "LC_ALL": "C.UTF-8"}

    def command(self, without=None) -> list:
        return ["ftai-log"] if without is None else [sys.executable, __file__, without]

    def start(self, given, out, *, without=None, options=(), prefix=(), **environment):
        """A writer that reads the file `given` and writes to the file `out`."""
        with open(out, "wb") as stdout, open(f"{out}.err", "wb") as stderr:
            command = [*prefix, *self.command(without), *options, str(given)]
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=self.environment | environment)

    def run(self, given, **settings):
        """(status, records that passed, what it said) of a writer that may end by itself."""
        out = self.path.parent / "run.out"
        code = self.start(given, out, **settings).wait(timeout=300)
        return code, passed(out), Path(f"{out}.err").read_text()

    def held(self) -> dict:
        """id -> record of all that the journal holds; the last one where an id stands twice."""
        return {rec["id"]: canonical.stored(rec) for _, rec in journal.read(str(self.journal)) if "id" in rec}

    def lost(self, acknowledged: list) -> list:
        """Those of the records that passed that the journal does not hold as they passed."""
        held = self.held()
        return [rec for rec in acknowledged if held.get(rec["id"]) != rec]

    def troubles(self) -> list:
        return verification.verify(str(self.journal))[1]


def passed(out) -> list:
    """The records that a writer has passed on, a last line that was cut in two left out: each was to be on the disk by then."""
    return [record.decode(line) for line in Path(out).read_bytes().split(b"\n")[:-1]]


def supply(path, count: int, size: int = 60, name: str = "") -> Path:
    """A file of records without ids, so that each writer that reads it makes its own."""
    with open(path, "wb") as file:
        for n in range(count):
            file.write(record.encode({"@tag": "note", "body": f"{name} {n} " + "x" * (n * 7919 % size)}))
    return Path(path)


def main(without: str, files: list) -> None:
    import runpy

    if without == "lock":

        class Open:
            def __init__(self, *_, **__):
                pass

            def __enter__(self):
                return self

            def __exit__(self, *_):
                pass

        chain.Lock = Open  # type: ignore[assignment,misc]
    elif without == "repair":
        chain.scan = _trusting(chain.scan)
    elif without == "short":
        chain.write = lambda fd, data: os.write(fd, data)  # type: ignore[assignment,return-value]
    elif without == "sync":
        os.fsync = os.fdatasync = lambda fd: None
    else:
        sys.exit(f"writers.py: without '{without}'?")
    sys.argv = ["ftai-log", *files]
    runpy.run_path(str(ROOT / "bin" / "ftai-log"), run_name="__main__")


def _trusting(last):
    """A look at the end that takes what it finds there as whole, and goes on behind it."""

    def look(fd, at, size, *rest):
        seq, prev, _, _ = last(fd, at, size, *rest)
        return seq, prev, size, ""

    return look


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
