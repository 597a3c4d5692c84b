"""What the stages share, in floors: see HACKING.md."""

import os
import sys

__version__ = "0.1.0"

# `make install` puts the packages we need beside us, as it may not touch those of the system's Python.
_own = os.path.join(os.path.dirname(__file__), "packages")
if os.path.isdir(_own):
    sys.path.append(_own)


_ran = os.environ.pop("FTAI_AGAIN", "")  # for this process alone: what it starts may have to run again too


def _clone() -> str:
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))


def _stage() -> bool:
    """True where a stage of this clone is run, and not something that only imports us."""
    path = os.path.realpath(sys.argv[0])
    return os.path.dirname(path) == os.path.join(_clone(), "bin") and os.path.isfile(path)


def _with_venv() -> None:
    """Runs this stage again with the .venv of its clone, once, where there is one that works."""
    python = os.path.join(_clone(), ".venv", "bin", "python")
    if _ran == python or not _stage() or not os.access(python, os.X_OK):
        return
    try:
        os.execve(python, [python, *sys.argv], os.environ | {"FTAI_AGAIN": python})
    except OSError:
        pass  # it was moved, or is of another machine


def damaged(bad: BaseException) -> str:
    """The file of the byte code that could not be read, which is removed; "" where `bad` is of something else.

    Python does not see that a disk was full while it wrote byte code, and then nothing that needs it would start any more.
    """
    trace = bad.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_name == "_compile_bytecode" and (path := trace.tb_frame.f_locals.get("bytecode_path")):
            try:
                os.unlink(path)
                return path
            except OSError:
                return ""
        trace = trace.tb_next
    return ""


def _unfit(kind, bad, trace) -> None:
    """What is not caught, before a stage runs: with byte code that is damaged, it is run again without that."""
    if damaged(bad):
        os.execv(sys.executable, [sys.executable, *sys.argv])
    sys.__excepthook__(kind, bad, trace)


if _stage():
    sys.excepthook = _unfit


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
