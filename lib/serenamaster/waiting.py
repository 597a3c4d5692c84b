"""The offline queue, in state.db: what could not be done when it was asked for, until it is answered.

A drain takes a task by a lease: only who holds the newest token of a task may end it (fencing), so a drain that was stopped, or taken for
dead, changes nothing any more. What came of a task is committed together with its end, into the outbox; from there it goes into the journal,
once, also after a drain has died in between. Outside calls are made at least once.
"""

import fcntl
import os
import time
from collections import namedtuple

from . import paths
from .errors import CANTCREAT, SOME, TEMPFAIL, UNAVAILABLE, USAGE, Failure
from .record import decode, make, now
from .state import BUSY_MS, Locked, Write, connect, quote, storage
from .state import forget as state_forget

TRIES = 5  # failures, after which a task is a dead letter
LOST = 3  # leases of a task that were broken, from which on it is put off: perhaps it is the task that kills the drains
PAUSE, LONGEST = 30, 15 * 60  # seconds between two tries: the first, doubled each time, and the most
AHEAD = 24 * 3600  # seconds: nothing is put off for longer, so what is further ahead was written before the clock was set back
LEASE = 3600.0  # seconds that a task may take; of a drain that is gone its lease is broken at once
LOOK = 30.0  # seconds after which a drain that watches looks again

# A task that waits. route: the id of its route, in small letters. priority: whole, higher first. deadline, not_before: times as in records, or None.
# key: for calls outside, the same at each try. tries: failures so far. error: the last one, in words. lines: route and command as they may be stored,
# redacted and sealed. state: waiting, or dead (it has its end in the journal, an error and a result `failed`). queued: when. lost: how many leases
# were broken. until: the end of the lease, None where nobody has one. token: that of the lease.
Item = namedtuple(
    "Item",
    "route thread target privacy priority deadline not_before key tries error lines state queued lost until token",
    defaults=(None, None, None, 0, None, None, None, 0, None, (), "waiting", None, 0, None, 0),
)
COLUMNS = "route, thread, target, privacy, priority, deadline, not_before, key, tries, error, state, queued, lost, until, token, route_line, command_line"
# Times are compared as strings, as all of them are written by now() and after().
FREE = "state = 'waiting' AND holder IS NULL AND route NOT IN (SELECT value FROM json_each(:skip))"
DUE = f"{FREE} AND (deadline <= :now OR not_before IS NULL OR not_before <= :now OR not_before > :far)"


def after(seconds: float) -> str:
    """The time so many seconds from now, as records hold it."""
    whole, ms = divmod(round((time.time() + seconds) * 1000), 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{ms:03d}Z"


def instant(said) -> str | None:
    """A time of ISO 8601 as records hold it; None for None, and what is no time is over ("")."""
    from datetime import UTC, datetime

    if said is None:
        return None
    try:
        at = datetime.fromisoformat(said)
        at = (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return ""
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z" if at.year > 999 else ""


def pause(count: int) -> float:
    """Seconds until the next try of what was tried, or lost, so many times before."""
    return min(PAUSE * 2.0 ** min(count, 20), LONGEST)


def is_due(item: Item) -> bool:
    """True where a drain would take this task now."""
    put_off = item.not_before is not None and now() < item.not_before <= after(AHEAD)
    return item.state == "waiting" and item.until is None and (late(item) or not put_off)


def late(item: Item) -> bool:
    """True where the deadline of a task is over."""
    return item.deadline is not None and item.deadline <= now()


def _item(row) -> Item:
    *fields, route, command = row
    named = dict(zip(COLUMNS.split(", "), fields, strict=False))
    return Item(**named, lines=(bytes(route), bytes(command)))


def _soon(said) -> str | None:
    """not_before as it is stored: nothing is put off for longer than AHEAD."""
    at = instant(said)
    return at and min(at, after(AHEAD))


class _Errors:
    """`with _Errors(path):` errors of SQLite and of the system as Failure (73, 74, 75)."""

    def __init__(self, path: str):
        self.path = path

    def __enter__(self):
        pass

    def __exit__(self, _kind, bad, _trace):
        import sqlite3

        if isinstance(bad, sqlite3.Error):
            raise storage(bad, self.path) from None
        if isinstance(bad, OSError):
            raise Failure(f"cannot write '{bad.filename or self.path}': {bad.strerror}", CANTCREAT) from None


def put(item: Item, path: str | None = None) -> bool:
    """Stores a task and claims its route for the queue, in one transaction that is on the disk when it returns. Its lines are stored as they are.

    False where it waits already; then nothing is changed. A dead letter of the same route goes. Raises Failure: 73 for a full disk, 74, 75;
    then nothing is stored, and the task is still the caller's.
    """
    path = path or paths.state_db()
    route = item.route.lower()
    with _Errors(path):
        db = connect(path)
        try:
            with Write(db, path):
                db.execute("DELETE FROM queue WHERE route = ? AND state = 'dead'", (route,))
                row = (route, item.thread, item.target, item.privacy, int(item.priority), instant(item.deadline), _soon(item.not_before), item.key,
                       item.tries, item.error, *item.lines, now())  # fmt: skip
                fresh = db.execute(
                    "INSERT OR IGNORE INTO queue (route, thread, target, privacy, priority, deadline, not_before, key, tries, error, route_line, command_line,"
                    " queued, state, lost, token) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'waiting', 0, 0)", row,
                ).rowcount  # fmt: skip
                if fresh:
                    _claim(db, route, "queued", item)
        finally:
            db.close()
    return bool(fresh)


def _claim(db, route: str, state: str, item: Item | None = None) -> None:
    if not db.execute("UPDATE claims SET state = ? WHERE route = ?", (state, route)).rowcount and item:
        db.execute("INSERT INTO claims VALUES (?, 0, 0, ?, ?, ?, ?)", (route, state, item.thread, item.target, item.privacy))


# ---- looking ----


def _reader(path: str):
    """A read-only connection, None where there is no queue yet: looking makes no file."""
    import sqlite3

    if not os.path.exists(path):
        return None
    db = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, timeout=BUSY_MS / 1000)
    return db if db.execute("PRAGMA user_version").fetchone()[0] >= 4 else None


def items(path: str | None = None) -> list[Item]:
    """All that waits, in the order it will be done, then the dead letters. Raises Failure (74, 75)."""
    path = path or os.path.join(paths.where("state"), "state.db")
    with _Errors(path):
        db = _reader(path)
        return [_item(row) for row in db.execute(f"SELECT {COLUMNS} FROM queue ORDER BY state DESC, priority DESC, n")] if db else []


def unanswered(routes=(), path: str | None = None) -> set[str]:
    """Which of these routes (of all, where none is named) wait, or have an end that is not journaled yet.

    Raises Failure: 1 for a route that nobody ever claimed, 74, 75.
    """
    path = path or os.path.join(paths.where("state"), "state.db")
    with _Errors(path):
        db = _reader(path)
        open_ = {row[0] for row in db.execute("SELECT route FROM queue WHERE state = 'waiting' UNION SELECT route FROM outbox")} if db else set()
        for route in routes:
            if route not in open_ and not (db and db.execute("SELECT 1 FROM claims WHERE route = ?", (route,)).fetchone()):
                raise Failure(f"'{route}' was never queued", SOME, "ftai-queue list")
    return open_.intersection(routes) if routes else open_


# ---- draining ----


class Drain:
    """The leases of one process. They count while it lives, which a lock on a file in `runs` tells, and for `seconds` at most."""

    def __init__(self, path: str | None = None, seconds: float = LEASE):
        self.path, self.seconds, self.fd = path or paths.state_db(), seconds, -1
        with _Errors(self.path):
            self.db = connect(self.path)
            self.name = "queue-" + os.urandom(8).hex()
            # Under the lock, as another one must not find the file before it is locked.
            with Locked(self.path + ".lock"):
                self.fd = os.open(_life(self.path, self.name), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for name in os.listdir(_life(self.path, "")):
                    if name.startswith("queue-"):
                        _lives(_life(self.path, name))  # removes what one left that had no task

    def take(self, skip=()) -> Item | None:
        """Leases the task that is to be done next: of what is due that of the highest priority, then the oldest. skip: routes to leave alone.

        Leases that ran out are broken first. What is past its deadline is always due. Raises Failure (73, 74, 75).
        """
        # No wait for the disk: after a power cut nobody holds a lease.
        with _Errors(self.path), Write(self.db, self.path, sync=False) as db:
            self._break(db)
            row = db.execute(f"SELECT {COLUMNS} FROM queue WHERE {DUE} ORDER BY priority DESC, n LIMIT 1", self._when(skip)).fetchone()
            if row is None:
                return None
            # By chance, not counted: a route that is queued once more has no token that an earlier lease had.
            item = _item(row)._replace(token=int.from_bytes(os.urandom(8)) >> 1, until=after(self.seconds))
            db.execute(
                "UPDATE queue SET holder = ?, token = ?, until = ?, seconds = ? WHERE route = ?", (self.name, item.token, item.until, self.seconds, item.route)
            )
        return item

    def _when(self, skip) -> dict:
        import orjson

        return {"skip": orjson.dumps(list(skip)).decode(), "now": now(), "far": after(AHEAD)}

    def _break(self, db) -> None:
        for route, holder, until, seconds, lost in db.execute("SELECT route, holder, until, seconds, lost FROM queue WHERE holder IS NOT NULL").fetchall():
            # One that is further ahead than it was ever given is of before the clock was set back.
            if now() < until <= after(seconds) and _lives(_life(self.path, holder)):
                continue
            put_off = after(pause(lost + 1 - LOST)) if lost + 1 >= LOST else None
            db.execute("UPDATE queue SET holder = NULL, until = NULL, lost = lost + 1, not_before = coalesce(?, not_before) WHERE route = ?", (put_off, route))

    def finish(self, item: Item, lines=(), *, how: str = "done", error: str | None = None, not_before: str | None = None) -> bool:
        """Gives a task back, and puts `lines`, the records of what came of it as they may be stored, into the outbox, in one transaction.

        how: "done" (it goes), "dead" (it is kept as a dead letter), "failed" (to be tried again, and counted), "back" (not counted). error: what
        went wrong, in words. False where the lease is not this one any more: then nothing is changed. Raises Failure (73, 74, 75): neither.
        """
        with _Errors(self.path), Write(self.db, self.path) as db:
            if not db.execute("SELECT 1 FROM queue WHERE route = ? AND holder = ? AND token = ?", (item.route, self.name, item.token)).fetchone():
                return False
            _into_outbox(db, item.route, lines)
            if how == "done":
                db.execute("DELETE FROM queue WHERE route = ?", (item.route,))
            else:
                db.execute(
                    "UPDATE queue SET state = ?, tries = tries + ?, error = coalesce(?, error), not_before = ?, holder = NULL, until = NULL WHERE route = ?",
                    ("dead" if how == "dead" else "waiting", how == "failed" or (how == "dead" and not late(item)), error, _soon(not_before), item.route),
                )
            if how in ("done", "dead"):
                _claim(db, item.route, "done")
        return True

    def idle(self, skip=()) -> float:
        """Seconds until there may be something to do again, LOOK at most."""
        from datetime import datetime

        with _Errors(self.path):
            said = self.db.execute(f"SELECT min(not_before), min(deadline) FROM queue WHERE {FREE}", self._when(skip)).fetchone()
        left = [datetime.fromisoformat(at).timestamp() - time.time() if at else 0.0 for at in said if at is not None]
        return max(0.0, min([LOOK, *left]))

    def tasks(self, stop, watch: bool = False):
        """Yields the tasks that are due, each leased; watch: goes on as others become due. Until a signal (stop: an execution.Stop)."""
        skip: set = set()
        while not stop.number:
            if (item := self.take(skip)) is not None:
                yield item
                # Once in a round, whatever came of it.
                if self.db.execute("SELECT 1 FROM queue WHERE route = ?", (item.route,)).fetchone():
                    skip.add(item.route)
            elif not watch:
                return
            else:
                stop.wait(time.sleep, self.idle(skip))
                skip.clear()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Leaves. What it still holds is free again, and no lease of it was broken."""
        with _Errors(self.path), Write(self.db, self.path, sync=False) as db:
            db.execute("UPDATE queue SET holder = NULL, until = NULL WHERE holder = ?", (self.name,))
        os.unlink(_life(self.path, self.name))
        os.close(self.fd)
        self.db.close()


def _life(path: str, name: str) -> str:
    return os.path.join(paths.make(os.path.join(os.path.dirname(path), "runs")), name)


def _lives(name: str) -> bool:
    """True while the process that made this file is there; the file of one that is gone is removed."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.unlink(name)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    finally:
        os.close(fd)
    return False


# What the try of a task comes to that nobody tries any more; as execution.End.
_End = namedtuple("_End", "status body code kind fields")


def once(work: Drain, item: Item, route: dict, steps, stage: str, *, show, flush, stored, stopped) -> tuple[str, list[dict]]:
    """Does a leased task and finishes it. Returns how (see Drain.finish, or "lost" where the lease was), and the records to hand over.

    steps: as Runner.drained() makes them; not begun where the deadline is over. show(record): passes on what is journaled already, or never is;
    flush(): what was passed on is not to wait. stored(records): their lines as they may be kept. stopped(): whether a signal ended it.
    Raises Failure (73, 74, 75): then the lease is broken by the next.
    """
    made: list[dict] = []
    if late(item):
        last = f": {item.error}" if item.error else "."
        end = _End("failed", f"This was to be done before {item.deadline}{last}", TEMPFAIL, "timeout", {})
        how, then = "dead", None
    else:
        end = _run(steps, made, show, flush)
        how, then = verdict(item, end, tried=any(rec["@tag"] == "attempt" for rec in made), stopped=stopped())
    made = told(item, route, made, end, how, stage)
    lines = stored(made)
    return (how, made) if work.finish(item, lines, how=how, error=_last(lines), not_before=then) else ("lost", [])


def _last(lines) -> str | None:
    """What the last error among some records as they are stored says; of one that is sealed only its class."""
    errors = [rec for rec in map(decode, lines) if rec["@tag"] == "error"]
    message = errors[-1]["message"] if errors else None
    return errors[-1]["class"] if message and message.startswith("[sealed:") else message


def _run(steps, made: list, show, flush):
    """Runs a generator of records to its end, which it returns: audit records and pieces of answers go to show(), the others into `made`."""
    while True:
        try:
            rec = next(steps)
        except StopIteration as ended:
            return ended.value
        if rec is not None and rec["@tag"] not in ("audit", "partial"):
            made.append(rec)
            continue
        if rec is not None:
            show(rec)
        if rec is None or rec["@tag"] == "partial":
            flush()


def verdict(item: Item, end, *, tried: bool, stopped: bool) -> tuple[str, str | None]:
    """How a try that came to this end (an execution.End) is to be finished, and when the next one may be: (how, not_before).

    tried: somebody was asked. What could not even be tried (offline, over a limit) is no failure. stopped: a signal ended it.
    """
    if stopped and end.status == "cancelled":
        return "back", None
    if end.status != "queued" and (end.status != "failed" or end.code not in (TEMPFAIL, UNAVAILABLE)):
        return "done", None
    counted = tried or end.status == "failed"
    if counted and item.tries + 1 >= TRIES:
        return "dead", None
    return "failed" if counted else "back", end.fields.get("not_before") or after(pause(item.tries))


def told(item: Item, route: dict, records: list, end, how: str, stage: str) -> list[dict]:
    """The records of one try as they go to the journal: a route that waits on has no result, one that ends has one, and a dead letter an error."""
    goes_on = how in ("failed", "back")
    records = [rec for rec in records if not goes_on or rec["@tag"] != "result"]
    last = next((n for n in reversed(range(len(records))) if records[n]["@tag"] == "error"), None)
    if goes_on and last is not None:
        records[last] = records[last] | {"recovery": "queue"}
    elif last is None and (how == "dead" or goes_on and end.status != "cancelled"):
        said = {"class_": end.kind or "unknown", "message": end.body or "it could not be done", "where": item.target}
        records.append(_caused(item, route, "error", stage, **said, recovery="queue" if goes_on else "none"))
    if not goes_on and not any(rec["@tag"] == "result" for rec in records):
        status = "failed" if end.status == "queued" else end.status
        records.append(_caused(item, route, "result", stage, target=item.target, status=status, ms=0, body=end.body or None))
    return records


def _caused(item: Item, route: dict, tag: str, stage: str, **fields) -> dict:
    """A record caused by a route, as private as its task."""
    rec = make(tag, stage, parent=route, **fields)
    return rec if item.privacy is None else rec | {"privacy": item.privacy}


# ---- the outbox ----


def _into_outbox(db, route: str, lines) -> None:
    db.executemany("INSERT INTO outbox (route, line) VALUES (?, ?)", [(route, line) for line in lines])


def hand_over(own, append, lookup, journaled, path: str | None = None) -> list[dict]:
    """Puts what is in the outbox into the journal, and takes it out. Returns the records.

    Two at once take turns. Whoever died between the two left rows that the journal holds: lookup(ids), as archive.lookup(), tells which, or None
    where there is no archive to ask; then journaled() yields all that the journal holds, as journal.read(). own: ids of records that this process put there.
    append(records, known): as journal.append(). Raises Failure (73, 74, 75): then all stays in the outbox.
    """
    path = path or paths.state_db()
    with _Errors(path), Locked(path + ".outbox"):
        db = connect(path)
        try:
            rows = db.execute("SELECT n, line FROM outbox ORDER BY n").fetchall()
            records = [decode(bytes(line)) for _, line in rows]
            if rows:
                known = lookup([rec["id"] for rec in records])
                foreign = known is None and any(rec["id"] not in own for rec in records)
                held = {rec.get("id") for _, rec in journaled()} if foreign else set()
                append([rec for rec in records if rec["id"] not in held], known)
                # No wait for the disk: what a power cut brings back is found in the journal.
                with Write(db, path, sync=False):
                    db.execute("DELETE FROM outbox WHERE n <= ?", (rows[-1][0],))
        finally:
            db.close()
    return records


# ---- what a person does ----


def chosen(words, *, dead: bool = False) -> list[Item]:
    """The tasks of these routes; dead: all dead letters. Raises Failure 2 without any word, 1 for what is not there."""
    found = {item.route: item for item in items()}
    names = [item.route for item in found.values() if item.state == "dead"] if dead else [word.lower() for word in words]
    if bool(words) == dead:
        raise Failure("expected ids of routes, as they stand under 'about'", USAGE, "ftai-queue list")
    if missing := [name for name in names if name not in found]:
        raise Failure(f"'{missing[0]}' is not in the queue", SOME, "ftai-queue list")
    return [found[name] for name in dict.fromkeys(names)]


def fields(item: Item) -> dict:
    """What a report says of a task."""
    status = "dead" if item.state == "dead" else "held" if item.until and item.until > now() else "waiting"
    said = ("target", "priority", "tries", "queued", "deadline", "not_before", "error", "key", "privacy")
    return {"subject": "queue", "about": item.route, "status": status} | {name: getattr(item, name) for name in said}


def acted(verb: str, item: Item, who: str, stage: str) -> tuple[dict, list[dict]]:
    """The audit record of the intent to retry or drop a task, and the records of it done: the outcome, and for a route that ends by it its result."""
    route = decode(item.lines[0])
    said = {"act": f"queue-{verb}", "subject": item.route, "who": who}
    intent = _caused(item, route, "audit", stage, **said, outcome="intended")
    made = [_caused(item, route, "audit", stage, **said, outcome="done", about=intent["id"])]
    if verb == "drop" and item.state == "waiting":
        made.append(_caused(item, route, "result", stage, target=item.target, status="cancelled", ms=0, body="This was taken out of the queue."))
    return intent, made


def retry(item: Item, lines=(), path: str | None = None) -> None:
    """Makes a task due now, and a dead letter a task again, with no failures so far; `lines` go into the outbox.

    Raises Failure: 1 where it is not as it was seen, or its deadline is over, 75 where a drain is at it, 73, 74.
    """
    with _Changing(item, path) as db:
        if late(item):
            raise Failure(f"'{item.route}' was to be done before {item.deadline}", SOME, f"ftai-queue drop {item.route}")
        _into_outbox(db, item.route, lines)
        db.execute("UPDATE queue SET state = 'waiting', tries = 0, lost = 0, not_before = NULL, holder = NULL WHERE route = ?", (item.route,))
        _claim(db, item.route, "queued", item)


def drop(item: Item, lines=(), path: str | None = None) -> None:
    """Takes a task out of the queue; `lines` go into the outbox. Raises Failure: 1 where it is not as it was seen, 75 where a drain is at it, 73, 74."""
    with _Changing(item, path) as db:
        _into_outbox(db, item.route, lines)
        db.execute("DELETE FROM queue WHERE route = ?", (item.route,))
        _claim(db, item.route, "done")


class _Changing:
    """`with _Changing(item, path) as db:` one transaction on a task that is as it was seen, and that no drain is at."""

    def __init__(self, item: Item, path: str | None):
        self.item, self.path = item, path or paths.state_db()

    def __enter__(self):
        with _Errors(self.path):
            self.write = Write(connect(self.path), self.path)
            db = self.write.__enter__()
            try:
                row = db.execute("SELECT state, holder, until FROM queue WHERE route = ?", (self.item.route,)).fetchone()
                if row is None or row[0] != self.item.state:
                    raise Failure(f"'{self.item.route}' was answered in the meantime", SOME)
                if row[1] is not None and now() < row[2] and _lives(_life(self.path, row[1])):
                    raise Failure(f"'{self.item.route}' is being done", TEMPFAIL, f"ftai-queue wait {self.item.route}")
            except BaseException as bad:
                self.write.__exit__(type(bad))
                raise
        return db

    def __exit__(self, *bad):
        with _Errors(self.path):
            self.write.__exit__(*bad)
            self.write.db.close()


def wait(routes=(), timeout: float | None = None) -> None:
    """Returns when these routes are answered, or all. Raises Failure 75 when that takes longer, 1 for a route that was never queued."""
    end = None if timeout is None else time.monotonic() + timeout
    while left := len(unanswered(routes)):
        if end is not None and time.monotonic() >= end:
            raise Failure(f"{left} task{'s' if left > 1 else ''} of the queue not answered yet", TEMPFAIL, "ftai-queue list")
        time.sleep(0.2 if end is None else min(0.2, max(0.0, end - time.monotonic())))


# ---- purging ----


def see(held, path: str | None = None) -> None:
    """Before a purge: marks what waits and is in the journal, as held(id of a record) tells of route and command: what never was there was not purged."""
    path = path or os.path.join(paths.where("state"), "state.db")
    if not os.path.exists(path):
        return
    db = connect(path)
    with Write(db, path):
        for route, ids in _causes(db):
            if all(map(held, ids)):
                db.execute("UPDATE queue SET seen = 1 WHERE route = ?", (route,))
    db.close()


def clean(held, fits=None) -> int:
    """As forget() and then state.forget(), where there is a state.db: nothing is left in its free pages and its log."""
    path = os.path.join(paths.where("state"), "state.db")
    if not os.path.exists(path):
        return 0
    count = forget(path, held, fits)
    state_forget(path, held)
    return count


def forget(path: str, held, fits=None) -> int:
    """After a purge: takes out what waited and was purged, whole, with what is in the outbox of it, and returns how many tasks that were.

    held(id): whether the journal holds that record. fits(record): whether one that was never journaled is to go too.
    """
    db = connect(path)
    with Write(db, path):
        db.execute("PRAGMA secure_delete = ON")
        gone = {route for route, ids in _causes(db, "WHERE seen = 1") if not all(map(held, ids))}
        if fits:
            for route, *lines in db.execute("SELECT route, route_line, command_line FROM queue UNION ALL SELECT route, line, line FROM outbox").fetchall():
                if any(fits(decode(bytes(line))) for line in lines):
                    gone.add(route)
        count = sum(db.execute("DELETE FROM queue WHERE route = ?", (route,)).rowcount for route in gone)
        for route in gone:
            db.execute("DELETE FROM outbox WHERE route = ?", (route,))
            db.execute("UPDATE claims SET state = 'done', thread = NULL, target = NULL WHERE route = ?", (route,))
    db.close()
    return count


def _causes(db, where: str = "") -> list[tuple]:
    """(route, ids of the records of route and command, as they stand there) of all tasks."""
    rows = db.execute(f"SELECT route, route_line, command_line FROM queue {where}").fetchall()
    return [(route, [decode(bytes(line)).get("id") for line in lines]) for route, *lines in rows]
