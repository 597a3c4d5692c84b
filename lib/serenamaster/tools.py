"""Local commands that the commands spec declares: an argument list without a shell, in bounds of time and output, in a clean environment."""

import os
import signal
import time

from . import paths
from .errors import CONFIG, DATAERR, NOPERM, SOME, TEMPFAIL, UNAVAILABLE, Failure
from .record import clean

GRACE = 2.0  # seconds between TERM and KILL
PDEATHSIG = 1  # prctl(2)
ARGUMENT = 128 * 1024 - 1  # bytes: what Linux takes as one argument (MAX_ARG_STRLEN)
# What a child sees of our environment; LC_* too.
KEEP = frozenset(("HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR"))
PATH = "/usr/local/bin:/usr/bin:/bin"


def arguments(run: list, slots: dict) -> list[str]:
    """The argument list of a command: `{name}` is replaced by the slot of that name, as one whole argument; `{name?}` may be missing.

    Raises Failure: 78 where a slot is only a part of an argument or names the program; 65 where one is missing or too long; 77 where a slot's
    text would be taken for an option (it begins with `-`, and no `--` stands before it).
    """
    made: list[str] = []
    literal = False
    for place, part in enumerate(run):
        part = str(part)
        if "{" not in part:
            literal = literal or part == "--"
            made.append(part)
            continue
        name = part[1:-1].removesuffix("?")
        if part != "{" + part[1:-1] + "}" or "{" in name or place == 0:
            raise Failure(f"'{part}': a slot is a whole argument, and never the program", CONFIG)
        value = slots.get(name, "")
        if not value:
            if part.endswith("?}"):
                continue
            raise Failure(f"'{run[0]}' needs to know '{name}'", DATAERR)
        if value.startswith("-") and not literal:
            raise Failure(f"'{value[:40]}' would be taken for an option of '{run[0]}'", NOPERM)
        if len(value.encode()) > ARGUMENT:
            raise Failure(f"'{name}' has {len(value.encode())} bytes, expected at most {ARGUMENT}", DATAERR)
        made.append(value)
    return made


def environment(keep=()) -> dict[str, str]:
    """The environment of a child: what is on the list, what the spec names, and the absolute folders of PATH."""
    folders = [folder for folder in os.environ.get("PATH", PATH).split(":") if folder.startswith("/")]
    made = {name: value for name, value in os.environ.items() if name in KEEP or name in keep or name.startswith("LC_")}
    return made | {"PATH": ":".join(folders) or PATH}


def named(name: str) -> tuple:
    """What execution.Act holds, for a declared command. Raises Failure: 78 for one that is not declared, 77 for one that is turned off."""
    from . import specs

    entry = specs.find("commands", "program", name)
    if entry is None:
        commands = specs.load("commands")
        if name in commands["gone"].get("program", ()) or any(other["name"] == name for other in commands["program"]):
            raise Failure(f"the command '{name}' is turned off", NOPERM)
        raise Failure(f"there is no command '{name}'", CONFIG)

    def plan(job) -> str:
        import shlex

        return f"run: {shlex.join(arguments(entry['run'], job.slots))}"

    return (lambda job: run(job, entry)), entry.get("privacy", "local"), plan


def run(job, entry: dict):
    """An act (execution.py): runs the command between the audit records of intent and outcome. Its answer is what it wrote.

    entry: an `@program` of the commands spec, with run, timeout (seconds), output (bytes) and, where given, env (names).
    """
    import shlex
    import shutil

    argv = arguments(entry["run"], job.slots)
    surroundings = environment(entry.get("env", ()))
    program = shutil.which(argv[0], path=surroundings["PATH"])
    if program is None:
        raise Failure(f"cannot run '{argv[0]}': no such program", UNAVAILABLE)
    subject = shlex.join(argv)
    intent = job.audit("run", subject)
    yield intent
    end = _child(job, argv, program, surroundings, entry["timeout"], entry["output"])
    yield job.audit("run", subject, outcome=end.status, intent=intent)
    if end.kind:
        recovery = "ask" if end.kind == "request" else "none"
        yield job.error(end.kind, end.fields.pop("said"), recovery=recovery)
    return end


def _bound():
    """What a child does before it becomes the program: it binds its life to ours. None where that can't be done.

    What it is given to do in the child is one system call, and this process has one thread; so nothing can be locked there for ever.
    """
    import sys

    if sys.platform != "linux":
        return None
    try:
        import ctypes

        prctl = ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return None
    parent = os.getpid()

    def bind():
        prctl(PDEATHSIG, signal.SIGKILL)
        # It may be too late for the signal already.
        if os.getppid() != parent:
            os._exit(1)

    return bind


def _child(job, argv, program, surroundings, seconds, cap):
    """Runs a child to its end and says how that was. No child is left when this is left, in whatever way."""
    import subprocess

    # A session of its own: it has no terminal to ask at, and all it starts can be ended with it.
    try:
        child = subprocess.Popen(
            argv, executable=program, cwd=paths.home(), env=surroundings, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
            preexec_fn=_bound(),
        )  # fmt: skip
    except OSError as bad:
        said = f"cannot run '{argv[0]}': {bad.strerror}"
        return job.end("failed", said + ".", UNAVAILABLE, "request", {"said": said})
    wrote: dict = {child.stdout.fileno(): bytearray(), child.stderr.fileno(): bytearray()}  # type: ignore[union-attr]
    try:
        why = _watch(job, child, wrote, time.monotonic() + seconds, cap)
    finally:
        _kill(child)
        child.stdout.close()  # type: ignore[union-attr]
        child.stderr.close()  # type: ignore[union-attr]
    out, err = (clean(bytes(data[:cap]).decode("utf-8", "replace")).rstrip() for data in wrote.values())
    status = {"exit": child.returncode} if child.returncode >= 0 else {"signal": signal.Signals(-child.returncode).name}
    name = argv[0]
    if why == "stopped":
        return job.end("cancelled", f"'{name}' was ended by a signal.", 0, None, status)
    if why is None and child.returncode == 0:
        return job.end("done", out or "Done.", 0, None, status)
    if why == "time":
        said, kind, code = f"'{name}' took longer than {seconds} s and was ended", "timeout", TEMPFAIL
    elif why == "output":
        said, kind, code = f"'{name}' wrote more than {cap} bytes and was ended", "request", SOME
    else:
        how = f"status {child.returncode}" if child.returncode >= 0 else f"signal {status['signal']}"
        said, kind, code = f"'{name}' ended with {how}", "request", SOME
    last = err.splitlines()[-1][:400] if err else ""
    said += f": {last}" if last else ""
    return job.end("failed", "\n".join(filter(None, (said + ".", out))), code, kind, status | {"said": said})


def _watch(job, child, wrote, end, cap) -> str | None:
    """Collects what a child writes until it ends. Returns why it is to be ended: "time", "output", "stopped", or None."""
    import select

    poller = select.poll()
    left = set(wrote)
    for fd in left:
        os.set_blocking(fd, False)
        poller.register(fd, select.POLLIN | select.POLLHUP)
    while True:
        # A grandchild may hold the pipes open when the child is gone: its end is looked for, not theirs alone.
        over = child.poll() is not None
        wait = 0 if over else min(max(end - time.monotonic(), 0), 0.05)
        ready = job.wait(poller.poll, wait * 1000) if left else job.wait(time.sleep, wait) or []
        if job.stopped():
            return "stopped"
        for fd, _ in ready or ():
            data = os.read(fd, 65536)
            wrote[fd] += data
            if not data:
                left.discard(fd)
                poller.unregister(fd)
            if fd == child.stdout.fileno() and len(wrote[fd]) > cap:
                return "output"
            # Of what it says on standard error the end is what counts.
            del wrote[fd][: -max(cap, 4096)]
        if over and not ready:
            return None
        if not over and time.monotonic() >= end:
            return "time"


def _kill(child) -> None:
    """Ends a child and all in its session's group: TERM, then KILL."""
    import subprocess
    from contextlib import suppress

    nobody = suppress(ProcessLookupError, PermissionError)  # macOS says EPERM where only a zombie is left
    if child.poll() is None:
        with nobody, suppress(subprocess.TimeoutExpired):
            os.killpg(child.pid, signal.SIGTERM)
            child.wait(GRACE)
    # Also where the child ended by itself: it may have left others behind.
    with nobody:
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
