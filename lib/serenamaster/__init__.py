"""What the stages share, in floors: see HACKING.md."""

import os
import sys

__version__ = "0.1.0"

# `make install` puts the packages we need beside us, as it may not touch those of the system's Python.
_own = os.path.join(os.path.dirname(__file__), "packages")
if os.path.isdir(_own):
    sys.path.append(_own)


_ran = os.environ.pop("FTAI_AGAIN", "")  # for this process alone: what it starts may have to run again too


def _with_venv() -> None:
    """Runs this stage again with the .venv of its clone, once, where there is one that works; what is no stage goes on."""
    clone, stage = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__)))), os.path.realpath(sys.argv[0])
    python = os.path.join(clone, ".venv", "bin", "python")
    if _ran == python or os.path.dirname(stage) != os.path.join(clone, "bin") or not os.path.isfile(stage) or not os.access(python, os.X_OK):
        return
    try:
        os.execve(python, [python, *sys.argv], os.environ | {"FTAI_AGAIN": python})
    except OSError:
        pass  # it was moved, or is of another machine


def again(missing: ImportError) -> None:
    """Runs this stage again with the .venv of its clone, once, where a package is missing; else says how to get it and exits 78."""
    _with_venv()
    name = os.path.basename(sys.argv[0])
    os.write(2, f"{name}: the package '{missing.name}' is missing\nhint: make run\n".encode())
    os._exit(78)


try:
    import orjson  # noqa: F401
except ImportError as _missing:
    again(_missing)
# A Python may have some of the packages by chance, and then what is missing is found when work is half done: this one nobody has by chance.
if not any(os.path.isdir(os.path.join(folder, "tink")) for folder in sys.path):
    _with_venv()
