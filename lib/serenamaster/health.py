"""What of the machine and of this installation SerenaMaster needs, as ftai-doctor checks it. Nothing here changes anything or uses the network."""

import os
import sys
from collections import namedtuple

from . import paths, specs
from .errors import Failure

OK, WARN, FAIL = "ok", "warn", "fail"
Check = namedtuple("Check", "level what detail hint", defaults=("",))

MB = 1024 * 1024
WHOLE = 64 * MB  # a journal or archive of up to this size is checked whole
STALE = 90  # days that a table of prices may be old
SLOW = 6  # times `python -c pass`: what starts more slowly has a cause that can be mended, as no byte code or a shim of pyenv
KEEP = frozenset(("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TERM", "MANPATH"))
KEEP_ALL = ("LC_", "XDG_", "PYTHON", "COVERAGE_")
BIN = os.path.dirname(os.path.realpath(sys.argv[0]))


def guarded(made):
    """What each of some functions yields; where one can't be done that is a failed check, told once, and the others are done."""
    told: set = set()

    def each(function):
        try:
            yield from function()
        except Failure as bad:
            yield Check(FAIL, "check", bad.message, bad.hint)
        except OSError as bad:
            yield Check(FAIL, "check", f"cannot read '{bad.filename or 'a file'}': {bad.strerror}")

    for function in made:
        for one in each(function):
            if one[1] != "check":
                yield one
            elif one not in told:
                told.add(one)
                yield one


def size(*names: str) -> int:
    """The bytes of these files; those that are missing have none."""
    return sum(os.path.getsize(name) for name in names if os.path.exists(name))


def python():
    """The interpreter and the packages that stages need, but for those of models and keychains."""
    version = ".".join(map(str, sys.version_info[:3]))
    level = OK if sys.version_info >= (3, 11) else FAIL
    yield Check(level, "python", f"{version}, {sys.executable}", "" if level == OK else "install Python 3.11 or newer, then: make run")
    from importlib import metadata

    there = []
    for name in ("orjson", "click", "cryptography", "pyrage", "tink", "zstandard"):
        try:
            there.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            yield Check(FAIL, "package", f"'{name}' is missing", "make run")
    yield Check(OK, "package", ", ".join(there))
    import sqlite3

    try:
        sqlite3.connect(":memory:").execute("CREATE VIRTUAL TABLE words USING fts5 (text)")
        yield Check(OK, "sqlite", f"{sqlite3.sqlite_version} with FTS5")
    except sqlite3.Error as bad:
        yield Check(FAIL, "sqlite", f"{sqlite3.sqlite_version}: {bad}", "use a Python whose sqlite3 has FTS5")


def folders():
    """Whose our folders are, and who may look into them and write."""
    for kind in paths.BASES:
        folder = paths.where(kind)
        try:
            seen = os.stat(folder)
        except FileNotFoundError:
            yield Check(OK, "folder", f"{kind} '{folder}' is not there yet, it is made when it is needed")
            continue
        except NotADirectoryError:
            yield Check(FAIL, "folder", f"{kind} '{folder}' cannot be made: a file is in the way", "set FTAI_HOME to a folder of your own")
            continue
        mode = seen.st_mode & 0o777
        if seen.st_uid not in (os.getuid(), 0):
            yield Check(FAIL, "folder", f"{kind} '{folder}' belongs to user {seen.st_uid}", f"sudo chown {os.getuid()} '{folder}'")
        elif mode & 0o022:
            yield Check(FAIL, "folder", f"{kind} '{folder}' is writable by others (mode {mode:o})", f"chmod 700 '{folder}'")
        elif mode & 0o055 and kind != "config":
            yield Check(WARN, "folder", f"{kind} '{folder}' can be read by others (mode {mode:o})", f"chmod 700 '{folder}'")
        elif not os.access(folder, os.W_OK | os.X_OK):
            yield Check(FAIL, "folder", f"{kind} '{folder}' cannot be written", f"chmod 700 '{folder}'")
        else:
            yield Check(OK, "folder", f"{kind} '{folder}'")


def spec_files():
    """Each spec, loaded as the stages load it."""
    good, broken = 0, set()
    for name in specs.names():
        try:
            loaded = specs.load(name)
        except Failure as bad:
            if bad.message not in broken:  # a spec that builds on another is broken with it
                yield Check(FAIL, "specs", bad.message, bad.hint or "put that line right, or move the file away")
            broken.add(bad.message)
            continue
        good += 1
        for note in loaded["notes"]:
            message, _, hint = note.rpartition(": ftai-doctor trust ")
            yield Check(WARN, "specs", message or note, f"ftai-doctor trust {hint}" if message else "")
    if good:
        yield Check(OK, "specs", f"{good} loaded, digest {specs.digest()}")
    elif not broken:
        yield Check(FAIL, "specs", f"none in '{specs.shipped()}'", "install again")


def reader(path: str):
    """A connection to a database that changes nothing, and makes no file."""
    import sqlite3

    return sqlite3.connect(f"file:{path.replace('%', '%25').replace('?', '%3f').replace('#', '%23')}?mode=ro", uri=True, timeout=2)


def databases(position: int):
    """The archive against the journal, whose last seq is `position`, and whether state.db can be read."""
    import sqlite3

    for name, hint in (("archive.db", "ftai-archive rebuild"), ("state.db", "move it away: what is queued or claimed is lost with it")):
        path = os.path.join(paths.where("state"), name)
        if not os.path.exists(path):
            yield Check(OK, name, "not there yet, it is made when it is needed")
            continue
        try:
            db = reader(path)
            found = db.execute("PRAGMA quick_check(1)").fetchone()[0] if size(path) <= WHOLE else "ok"
            last = db.execute("SELECT max(seq) FROM records").fetchone()[0] or 0 if name == "archive.db" else 0
            db.close()
        except sqlite3.Error as bad:
            found = str(bad)
        if found != "ok":
            yield Check(FAIL, name, f"it is damaged: {found}", hint)
        elif name == "archive.db" and last < position:
            yield Check(WARN, name, f"{position - last} records behind the journal", "ftai-archive maintain")
        else:
            yield Check(OK, name, f"{size(path) // 1024} KB")


def providers(ready: list):
    """Which models are set up, and which of them could be asked now, without asking anybody. ready: what vitals.ready() says."""
    if not ready:
        yield Check(OK, "providers", "no model is set up; skills and local commands work without")
        return
    able = [name for name, missing in ready if not missing]
    if able:
        yield Check(OK, "providers", f"can be asked now: {', '.join(able)}")
    word = lambda lack: lack.what.partition(":")[0]  # noqa: E731 (why nobody agreed, and since when, is told with --providers)
    unable = [f"{name} ({', '.join(word(lack) for lack in missing)})" for name, missing in ready if missing]
    if unable:
        hint = next((" && ".join(lack.hint for lack in missing if lack.hint) for _, missing in ready if missing), "")
        yield Check(OK, "providers", f"cannot be asked: {', '.join(unable)}{'' if able else '; skills and local commands work without'}", hint)


def prices_age(days: float | None):
    """The shipped table of prices, and whether it is too old to go by. days: prices.age()."""
    if days is None:
        yield Check(OK, "prices", "no table is installed: what the prices spec does not name is unpriced")
    elif days > STALE:
        hint = "pip install --upgrade genai-prices, or name your own in serenamaster.prices.ftai: ftai-specs(5)"
        yield Check(WARN, "prices", f"the table is {days:.0f} days old, {STALE} are allowed", hint)
    else:
        yield Check(OK, "prices", f"the table is {days:.0f} days old")


def keys(listed: list[dict]):
    """The keys that are kept, and those that are older than the spec allows. listed: the reports of keys.Keeper.listed()."""
    held = [known for known in listed if known["source"]]
    for known in held:
        if known.get("overdue"):
            detail = f"'{known['name']}' is {known['age']:.0f} days old, {known['max_age']} are allowed"
            yield Check(WARN, "keys", detail, f"ftai-keys rotate {known['name']}")
        if known.get("next"):
            yield Check(WARN, "keys", f"the rotation of '{known['name']}' was not finished", "ftai-keys rotate --due")
    yield Check(OK, "keys", " ".join(f"{known['name']} ({known['source']})" for known in held) or "none; skills and local commands work without")


def room(free: int) -> str:
    """The level of so many free bytes."""
    return FAIL if free < 100 * MB else WARN if free < 1000 * MB else OK


def disk():
    """Room where the journal is written."""
    folder = paths.where("state")
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    seen = os.statvfs(folder)
    free = seen.f_bavail * seen.f_frsize
    level = room(free)
    hint = "" if level == OK else f"du -sh '{paths.where('state')}' tells what SerenaMaster takes of it"
    yield Check(level, "disk", f"{free // MB} MB free for '{folder}'", hint)


def clock(newest: str | None):
    """The clock against the newest record: the time a journal was written at is the least that it can be now."""
    from datetime import UTC, datetime, timedelta

    now = datetime.now(UTC)
    shown = now.strftime("%Y-%m-%d %H:%M:%S UTC")
    if newest:
        try:
            ahead = datetime.fromisoformat(newest) - now
        except (ValueError, TypeError):
            ahead = timedelta(0)
        if ahead > timedelta(minutes=1):
            yield Check(FAIL, "clock", f"{shown}, but the newest record is of {newest}", "set the clock: timedatectl set-ntp true, or date -u")
            return
    if now.year < 2026:
        yield Check(FAIL, "clock", f"{shown}, which is before this program was made", "set the clock: timedatectl set-ntp true, or date -u")
    else:
        yield Check(OK, "clock", shown)


def surroundings():
    """PATH, man pages, terminal."""
    from shutil import which

    found = which("ftai-show")
    if found is None:
        yield Check(WARN, "path", f"the stages in '{BIN}' are not on the PATH", f'export PATH="{BIN}:$PATH"')
    elif os.path.dirname(os.path.realpath(found)) != BIN:
        yield Check(WARN, "path", f"'{found}' of another installation stands first on the PATH", f'export PATH="{BIN}:$PATH"')
    else:
        yield Check(OK, "path", os.path.dirname(found))
    page = os.path.join(os.path.dirname(BIN), "man", "ftai.7")
    if which("man") is None:
        yield Check(WARN, "manual", "there is no man(1)", "install man-db or mandoc")
    elif _run(["man", "-w", "ftai-show"]) != 0:
        share = os.path.join(sys.prefix, "share", "man")
        hint = f"man '{page}' reads one from here; make install PREFIX=$HOME/.local puts them where man finds them"
        yield Check(WARN, "manual", "man does not find the pages", hint if os.path.exists(page) else f'export MANPATH="{share}:$MANPATH"')
    else:
        yield Check(OK, "manual", "man ftai")
    if os.isatty(1):
        words = next((os.environ[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if os.environ.get(name)), "C")
        utf8 = words.lower().replace("-", "").endswith("utf8")
        hint = "" if utf8 else "export LC_ALL=C.UTF-8"
        shown = f"{os.environ.get('TERM', 'TERM is not set')}, {os.get_terminal_size(1).columns} columns, locale {words}"
        yield Check(OK if utf8 else WARN, "terminal", shown, hint)


def _run(argv, **more) -> int:
    """The status of a program that may neither read nor write; 127 where it can't be started, -9 where it takes 20 s. more: for its environment."""
    import subprocess
    from threading import Timer

    quiet = subprocess.DEVNULL
    # There may be keys in our own environment.
    seen = {name: value for name, value in os.environ.items() if name in KEEP or name.startswith(KEEP_ALL)}
    try:
        child = subprocess.Popen(argv, stdin=quiet, stdout=quiet, stderr=quiet, env=seen | more)
    except OSError:
        return 127
    # wait(timeout=…) would look at it in steps of up to 50 ms, which is no way to measure 40.
    limit = Timer(20, child.kill)
    limit.start()
    try:
        return child.wait()
    finally:
        limit.cancel()


def starts(words: dict[str, str], times: int = 2, every: bool = False):
    """What it takes to start a stage with nothing to do, in CPU time of an empty Python; the best of some.

    CPU time, as a machine that is busy with something else makes each start longer, and not each by the same.

    words: the verb of those that are not started without. every: a line for each stage.
    """
    import resource
    from tempfile import TemporaryDirectory

    def spent():
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    with TemporaryDirectory(prefix="ftai-doctor-") as scratch:
        def start(argv):
            before = spent()
            # A home of their own: a stage that starts may compile specs, or bring the archive up to date.
            _run(argv, FTAI_HOME=scratch)
            return spent() - before

        stages = {name: [os.path.join(BIN, name), *words.get(name, "").split()] for name in sorted(os.listdir(BIN))}
        stages = {name: argv for name, argv in stages.items() if name.startswith("ftai-") and name != "ftai-doctor"}
        for argv in stages.values():
            start(argv)  # writes byte code
        took: dict = {name: [] for name in stages}
        ratios: dict = dict.fromkeys(stages, 0)
        # What disturbs a measurement makes it longer, so one that seems slow is measured again before it is called so.
        for turn in range(3 * times):
            for name, argv in stages.items():
                if turn < times or ratios[name] > SLOW:
                    # One beside the other: how fast a processor is changes within seconds.
                    took[name].append((start([sys.executable, "-c", "pass"]), start(argv)))
                    ratios[name] = min(own for _, own in took[name]) / min(empty for empty, _ in took[name])
    bare = min((empty for pairs in took.values() for empty, _ in pairs), default=0)
    ranked = sorted(ratios.items(), key=lambda item: -item[1])
    slow = [f"{name} {ratio:.1f}" for name, ratio in ranked if ratio > SLOW]
    if every:
        for name, ratio in ranked:
            yield Check(WARN if ratio > SLOW else OK, "start", f"{name} takes {ratio:.1f} times an empty Python ({bare * ratio * 1000:.0f} ms)")
    elif ranked and not slow:
        yield Check(OK, "start", f"the slowest is {ranked[0][0]} with {ranked[0][1]:.1f} times an empty Python ({bare * 1000:.0f} ms)")
    if slow:
        yield Check(WARN, "start", f"slow, in times of an empty Python ({bare * 1000:.0f} ms): {', '.join(slow)}", _faster())


def _faster() -> str:
    """What to type where stages start slowly."""
    from shutil import which

    here = os.path.dirname(sys.executable)
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):
        return "unset PYTHONDONTWRITEBYTECODE"
    if os.path.dirname(which("python3") or "") != here:
        return f'export PATH="{here}:$PATH" (another python3 starts first, and then this one)'
    return "ftai-doctor --start on a quiet machine; python3 -m compileall tells whether byte code can be written"
