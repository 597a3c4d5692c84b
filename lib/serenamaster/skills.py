"""What the assistant can do by itself.

A skill is an act (execution.py): a generator that yields the records of its effects and returns the answer.
"""

import os

from . import archive, intake, journal, paths, stream
from .errors import CONFIG, DATAERR, NOINPUT, NOPERM, Failure
from .record import clean

HITS = 10  # files or tasks in one answer
WIDTH = 160  # characters of one hit
LINES = 200  # of a file's head, at most
HEAD = 64 * 1024  # bytes of it
NOTE = 4 * 1024 * 1024  # bytes of a file that a note is added to
ENTRIES = 500_000  # of a walk through folders
# What people said and what became of it; the rest of a journal says how it was done.
SAID = ("memory", "task", "command", "file", "decision", "document", "note", "message", "prose")
# Who asked one of these wanted to see something, not to do it: no answer to "what did I work on yesterday".
ASKING = frozenset(("ask", *(f"skill:{name}" for name in ("recall", "tasks", "find", "head", "help", "status", "time"))))


def remember(job):
    from . import specs

    what = need(job, "what")
    yield job.make("memory", body=what, tier=specs.tier())
    return f"I'll remember: {stopped(what)}"


def recall(job):
    from . import specs, views

    what, when = job.slots.get("what", ""), job.slots.get("when", "")
    since, until = span(job, when)
    hits = found(what, since, until, specs.setting("recall_hits", 10))
    about = (f" for '{what}'" if what else "") + (f" ({when})" if when else "")
    if not hits:
        return f"I found nothing{about}."
    for rec in hits:
        job.holds(rec)
    return f"{count(len(hits), 'hit')}{about}:\n" + "\n".join(f"- {clock(job, rec.get('ts'))}: {views.gist(rec)[:WIDTH]}" for rec in hits)
    yield


def task(job):
    from . import dates

    title, when = need(job, "what"), job.slots.get("when", "")
    day, rest = (when and dates.due(when, job.when())) or (None, when)
    title = f"{title} {rest}".strip()
    yield job.make("task", title=title, due=day, status="open")
    if day is None:
        return f"I've noted the task: {stopped(title)}"
    return f"I'll remind you: {title}, {stopped(dates.spoken(day, job.when()))}"


def tasks(job):
    when = job.slots.get("when", "")
    kept = [rec for rec in open_tasks() if not when or due(job, rec, when)]
    if not kept:
        return f"No task is due {when}." if when else "No task is open."
    for rec in kept:
        job.holds(rec)
    kept.sort(key=lambda rec: (rec.get("due") is None, str(rec.get("due"))))
    return f"{count(len(kept), 'open task')}:\n" + "\n".join(f"- {titled(job, rec)}" for rec in kept)
    yield


def finish(job):
    what = need(job, "what")
    asked = tokens(what)
    kept = [rec for rec in open_tasks() if asked and set(asked) <= set(tokens(name(rec)))]
    same = [rec for rec in kept if tokens(name(rec)) == asked]
    kept = same if len(same) == 1 else kept  # "call Ada" is no question because of "call Ada about the invoice"
    for rec in kept:
        job.holds(rec)
    if not kept:
        return job.end("asked", f"No open task is called '{what}'. Which one is finished?")
    if len(kept) > 1:
        return job.end("asked", "Which one is finished?\n" + "\n".join(f"- {titled(job, rec)}" for rec in kept[:HITS]))
    yield job.make("task", updates=kept[0]["id"], status="done")
    return f"Finished: {stopped(name(kept[0]))}"


def document(job):
    path = place(need(job, "path"))
    # What came in with the command is in the journal with it: the memory points there.
    taken = [block for block in job.command.get("@blocks", ()) if block.get("@tag") == "document" and block.get("path") == shown(path)]
    block = taken[0] if taken else intake.document(path, stopped=job.stopped)
    if not taken and "sha256" not in block:
        return job.end("cancelled", f"Taking in '{shown(path)}' was ended by a signal.")
    about, blocks = (job.command.get("id"), None) if taken else (None, [block])
    size, digest, title = block.get("bytes"), block.get("sha256"), os.path.basename(shown(path))
    yield job.make("memory", about=about, tier="file", subject=title, path=shown(path), bytes=size, sha256=digest, blocks=blocks)
    if not taken:
        yield read(job, block)
    return f"I've taken in '{title}'."


def find(job):
    from . import specs

    wanted, hits, more = need(job, "name"), [], ""
    for path in walk(job, paths.home(), specs.setting("find_seconds", 10)):
        if path is None:
            more = "\nThere are more files than I could look at."
        elif fits(path, wanted):
            hits.append(path)
        if len(hits) > HITS:
            break
    if not hits:
        return f"I found no file called '{wanted}'.{more}"
    said = f"More than {HITS} files" if len(hits) > HITS else count(len(hits), "file")
    return f"{said} called '{wanted}':\n" + "\n".join(f"- {shown(path)}" for path in hits[:HITS]) + more
    yield


def head(job):
    from . import specs

    path, lines = place(need(job, "path")), job.slots.get("lines", "")
    wanted = min(int(lines) if lines.isdecimal() and len(lines) < 10 else specs.setting("head_lines", 10), LINES)
    # All of a long file is not read for its first lines, so there is no digest of it to give.
    block = intake.document(path, most=intake.BODY)
    with open(path, "rb") as file:
        data = file.read(HEAD)
    # As git and grep tell a binary file.
    if b"\0" in data:
        raise Failure(f"cannot show '{path}': it is no text", DATAERR)
    yield read(job, block)
    return "\n".join(clean(data.decode("utf-8", "replace")).splitlines()[:wanted]) or f"'{block['title']}' is empty."


def note(job):
    words = need(job, "text")
    path = writable(job.slots.get("path", ""))
    yield from job.change("append", path, lambda: append(path, words))
    return f"Noted in '{path}'."


def status(job):
    kept = open_tasks()
    today = sum(due(job, rec, "today") for rec in kept)
    return f"{count(len(kept), 'open task')}, {today} due today. {count(journal.position(paths.journal()), 'record')} in the journal."
    yield


def help(job):  # noqa: A001
    from . import specs

    topic = job.slots.get("topic", "").casefold()
    phrases = [(entry.get("match", entry["say"])[0], entry.get("summary", "")) for entry in specs.load("commands")["phrase"] if "blocked" not in entry]
    chosen = [phrase for phrase in phrases if topic in " ".join(phrase).casefold()] or phrases
    return "You can say:\n" + "\n".join(f"- {say}" + (f": {summary}" if summary else "") for say, summary in chosen)
    yield


def time(job):
    from . import dates

    now = dates.now_in(job.tz)
    return f"It is {now:%H:%M}, {now:%A} {now.day} {now:%B} {now.year}."
    yield


# What the rules can name; a test holds the specs against it.
SKILLS = {skill.__name__: skill for skill in (remember, recall, task, tasks, finish, document, find, head, note, status, help, time)}
JOURNALED = frozenset(("remember", "task", "finish", "document"))  # what they do is a record


def named(name: str) -> tuple:
    """What execution.Act holds, for a skill. Raises Failure: 78 for one that does not exist, 77 for one that the specs turn off."""
    from . import specs

    if name not in SKILLS:
        raise Failure(f"there is no skill '{name}'", CONFIG)
    if specs.find("system", "skill", name) is None:
        raise Failure(f"the skill '{name}' is turned off", NOPERM)
    return SKILLS[name], "local", None, name in JOURNALED


# What skills share: words


def need(job, slot: str) -> str:
    """The text of a slot. Raises Failure 65 where there is none."""
    if not (said := job.slots.get(slot, "").strip()):
        raise Failure(f"'{job.target}' needs to know '{slot}'", DATAERR)
    return said


def stopped(words: str) -> str:
    """Words as the end of a sentence."""
    return words if words.endswith((".", "!", "?", "…")) else words + "."


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def tokens(words: str) -> list[str]:
    """Words as they are compared: without case, marks and articles."""
    bare = "".join(char if char.isalnum() else " " for char in words.casefold()).split()
    return [word for word in bare if word not in ("the", "a", "an", "my", "task", "to")]


def name(rec: dict) -> str:
    """What a task is called."""
    return str(rec.get("title") or rec.get("body") or rec.get("id"))


def shown(path: str) -> str:
    """A path as a record may hold it."""
    return clean(os.fsencode(path).decode("utf-8", "replace"))


# What skills share: time


def span(job, when: str, ahead: bool = False) -> tuple:
    """(since, until) of some words, (None, None) without; ahead: "friday" is the one to come. Raises Failure 65 for words that say no time."""
    from . import dates

    if not when:
        return None, None
    found = dates.span(when, job.when(), ahead=ahead)
    if found is None:
        raise Failure(f"I don't know when '{when}' is", DATAERR)
    return found


def moment(job, when):
    """A date or time of a record as an aware datetime in the time zone of the command; None for what is none."""
    from datetime import datetime

    zone = job.when().tzinfo
    try:
        at = datetime.fromisoformat(when)
        return at.astimezone(zone) if at.tzinfo else at.replace(tzinfo=zone)
    except (TypeError, ValueError, OverflowError):
        return None


def clock(job, ts) -> str:
    """When that was, in words."""
    at = moment(job, ts)
    return f"{at:%A} {at.day} {at:%B}{'' if at.year == job.when().year else f' {at.year}'}, {at:%H:%M}" if at else "at some time"


def titled(job, rec: dict) -> str:
    """A task with its date, in words."""
    from . import dates

    return name(rec) + (f", {dates.spoken(rec['due'], job.when())}" if rec.get("due") else "")


def due(job, rec: dict, when: str) -> bool:
    """True for a task that is due in the time that `when` names; what is overdue is due now."""
    since, until = span(job, when, ahead=True)
    at = moment(job, rec.get("due"))
    return at is not None and at < until and (at >= since or since <= job.when())


# What skills share: the journal


def open_tasks() -> list[dict]:
    """The open tasks, from the journal itself where the archive can't be read."""
    from sqlite3 import Error

    try:
        return archive.tasks(archive.connect())
    except (Failure, Error):
        folded = archive.fold(archive.shown(rec) for _, rec in journal.read(paths.journal()) if rec.get("@tag") == "task")
        return [rec for rec in folded if rec.get("status", "open") == "open" and "updates" not in rec]


def found(what: str, since, until, limit: int) -> list[dict]:
    """What people said and what became of it: the best hits for these words and this time. What was only asked is left out."""
    from sqlite3 import Error

    try:
        db = archive.connect()
        rows = archive.search(db, what, since=since, until=until, tags=SAID, limit=3 * limit)
    except (Failure, Error):
        return [rec for _, rec in archive.scan(what, since=since, until=until, tags=SAID, limit=limit)]
    hits = [rec for _, rec in rows]
    made_by = {rec.get("parent") for rec in hits}
    kept = []
    for rec in hits:
        if rec.get("@tag") == "command":
            thread = archive.thread(db, rec["thread"]) if "thread" in rec else []
            routes = [made for made in thread if made.get("@tag") == "route" and made.get("parent") == rec.get("id")]
            # Of "remember X" and the memory X, one line says it all.
            if any(made.get("target") in ASKING or made.get("id") in made_by for made in routes):
                continue
        kept.append(rec)
    return kept[:limit]


# What skills share: files


def place(words: str) -> str:
    """The file that these words name, as an absolute path: from here, from the home folder, or one of our notes."""
    words = words.strip("\"' ")
    if words == "~" or words.startswith("~/"):
        words = paths.home() + words[1:]
    try:
        here = os.getcwd()
    except FileNotFoundError:  # it was removed under our feet
        here = paths.home()
    tried = [os.path.join(folder, words) for folder in (here, paths.home(), notes())]
    return os.path.normpath(next((path for path in tried if os.path.lexists(path)), tried[0]))


def read(job, block: dict) -> dict:
    """The `file` record of a file that was read, from its `@document` block."""
    digest = block.get("sha256")
    return job.make("file", op="read", path=block["path"], bytes_before=block["bytes"], bytes=block["bytes"], sha256_before=digest, sha256=digest)


def notes() -> str:
    """The folder of our own notes, made or not: the place `notes` of the config spec, below our data unless it says more."""
    from . import specs

    where = str(specs.setting("notes", "notes"))
    return os.path.join(paths.where("data"), paths.home() + where[1:] if where.startswith("~/") else where)


def walk(job, root: str, seconds: float):
    """Yields the files below a folder, the nearest first, and at last None where there were too many to see all in that time.

    Hidden ones, links and other file systems are left out.
    """
    from collections import deque
    from itertools import islice
    from time import monotonic

    end, seen = monotonic() + seconds, 0
    device = os.stat(root).st_dev if os.path.isdir(root) else None
    folders = deque([root])
    while folders:
        try:
            with os.scandir(folders.popleft()) as entries:
                here = sorted(islice(entries, ENTRIES), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in here:
            if entry.name.startswith("."):
                continue
            if entry.is_file(follow_symlinks=False):
                yield entry.path
            elif entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_dev == device:
                folders.append(entry.path)
        seen += len(here)
        if seen >= ENTRIES or monotonic() > end or job.stopped():
            yield None
            return


def fits(path: str, wanted: str) -> bool:
    """True where the name of a file has these words in it, or is of this pattern (`*`, `?`)."""
    from fnmatch import fnmatchcase

    base, wanted = os.path.basename(path).casefold(), wanted.casefold()
    return fnmatchcase(base, wanted) if "*" in wanted or "?" in wanted else all(word in base for word in wanted.split())


def writable(words: str) -> str:
    """The file that a note goes to: one of our own notes, or one below the home folder that no program reads as its own.

    Raises Failure 77 for any other place: a note in ~/.bashrc would be run one day. 66 where the folder is missing.
    """
    words = words.strip("\"' ")
    own = os.path.realpath(paths.make(notes()))
    if not words or "/" not in words:
        words = words or "notes.txt"
        if words.startswith("."):
            raise Failure(f"cannot write '{words}': notes are not hidden", NOPERM)
        return os.path.join(own, words)
    home = os.path.realpath(paths.home())
    path = os.path.join(home, words.removeprefix("~/"))
    folder = os.path.realpath(os.path.dirname(path))
    path = os.path.join(folder, os.path.basename(path))
    if folder == own and not os.path.basename(path).startswith("."):
        return path
    # A path that leads out of the home folder begins with `..`, which is hidden too.
    inside = os.path.relpath(path, home).split("/")
    ours = [os.path.realpath(paths.where(kind)) for kind in paths.BASES]
    if any(part.startswith(".") for part in inside) or any(os.path.commonpath((path, own)) == own for own in ours):
        raise Failure(f"cannot write '{path}': notes go below the home folder, and into nothing hidden", NOPERM)
    if not os.path.isdir(folder):
        raise Failure(f"cannot write '{path}': no such folder", NOINPUT)
    return path


def append(path: str, words: str) -> tuple:
    """Adds a line to a text file, whole or not at all; others that do it wait. Returns (bytes, sha256) before and after.

    Raises Failure 77 for what is a link, a program, or not this user's; 65 for what is no text, or too long.
    """
    import errno
    import fcntl
    import hashlib
    import stat

    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # The folder, not the file: that is replaced, and a lock on the old one would say nothing.
        fcntl.flock(folder, fcntl.LOCK_EX)
        old, mode = None, 0o600
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            pass
        except OSError as bad:
            if bad.errno != errno.ELOOP:
                raise
            raise Failure(f"cannot write '{path}': it is a link", NOPERM) from None
        else:
            with open(fd, "rb") as file:
                seen = os.fstat(fd)
                mode = stat.S_IMODE(seen.st_mode)
                if not stat.S_ISREG(seen.st_mode) or seen.st_uid != os.getuid() or mode & 0o111:
                    raise Failure(f"cannot write '{path}': it is no text file of your own", NOPERM)
                old = file.read(NOTE + 1)
            if len(old) > NOTE or b"\0" in old:
                raise Failure(f"cannot write '{path}': it is no text of at most {NOTE} bytes", DATAERR)
        new = (old or b"") + (b"\n" if old and not old.endswith(b"\n") else b"") + words.encode() + b"\n"
        stream.save(path, new)
        # Made under umask 077; whoever could read the old file can read the new one.
        if mode != 0o600:
            os.chmod(path, mode)
    finally:
        os.close(folder)
    before = (None, None) if old is None else (len(old), hashlib.sha256(old).hexdigest())
    return *before, len(new), hashlib.sha256(new).hexdigest()
