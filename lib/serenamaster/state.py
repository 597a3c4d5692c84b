"""state.db: what the processes of one user must agree on: who acts on which route, what waits, and what the owner agreed to.

WAL and synchronous FULL lose no commit in a power cut. Every write stands under one lock of our own, as SQLite 3.7.0 to 3.51.2 can
spoil a WAL that two connections write or checkpoint at once (https://sqlite.org/wal.html#walresetbug).
"""

import fcntl
import os

from . import paths, stream
from .errors import CANTCREAT, IOERR, TEMPFAIL, Failure
from .record import now

LOCK_SECONDS = 10
BUSY_MS = 10_000


def m001_claims(db) -> None:
    """Who acts, or acted, on a route. `run`: the process, `n`: which of its claims this is, in the order it acts on them.

    state: held, lost (its process went away in the middle; this run has to say so), queued (see m004_queue), done.
    """
    db.execute("CREATE TABLE runs (run INTEGER PRIMARY KEY, stage TEXT NOT NULL, pid INTEGER NOT NULL, boot TEXT NOT NULL, ts TEXT NOT NULL)")
    db.execute(
        "CREATE TABLE claims (route TEXT PRIMARY KEY, run INTEGER NOT NULL, n INTEGER NOT NULL, state TEXT NOT NULL,"
        " thread TEXT, target TEXT, privacy TEXT) WITHOUT ROWID"
    )
    db.execute("CREATE INDEX claims_open ON claims (run, n) WHERE state != 'done'")


def m002_consents(db) -> None:
    """What the owner said last about a target. scope: tags and ids of threads, apart by spaces, "" for all; times as in records, until: or NULL.

    A target that is withdrawn keeps its row, as it goes before what a spec says.
    """
    db.execute("CREATE TABLE consents (target TEXT PRIMARY KEY, scope TEXT NOT NULL, until TEXT, granted TEXT, withdrawn TEXT) WITHOUT ROWID")


def m003_limits(db) -> None:
    """What keeps calls within bounds; see limits.py. Times are whole milliseconds since the epoch, money whole billionths, `day` is one of UTC.

    A deadline (`until`, `probe`) stands beside how far ahead it was set (`span`, `lease`). `at`: when it was written; of a reservation: when it was made.
    """
    db.execute("CREATE TABLE salts (salt BLOB NOT NULL)")
    db.execute("INSERT INTO salts VALUES (?)", (os.urandom(16),))
    db.execute(
        "CREATE TABLE breakers (name TEXT PRIMARY KEY, failures INTEGER NOT NULL, until INTEGER, span INTEGER NOT NULL,"
        " probe INTEGER, lease INTEGER NOT NULL, holder TEXT, reason TEXT NOT NULL, at INTEGER NOT NULL) WITHOUT ROWID"
    )
    db.execute(
        "CREATE TABLE rates (provider TEXT, second INTEGER, requests INTEGER NOT NULL, tokens INTEGER NOT NULL, PRIMARY KEY (provider, second)) WITHOUT ROWID"
    )
    db.execute(
        'CREATE TABLE quotas (provider TEXT, what TEXT, "left" INTEGER NOT NULL, until INTEGER NOT NULL, span INTEGER NOT NULL, asked INTEGER NOT NULL,'
        " PRIMARY KEY (provider, what)) WITHOUT ROWID"
    )
    of = "day TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL, agent TEXT NOT NULL, currency TEXT NOT NULL"
    much = "calls INTEGER NOT NULL, tokens INTEGER NOT NULL, amount INTEGER NOT NULL"
    db.execute(f"CREATE TABLE reservations (id TEXT PRIMARY KEY, at INTEGER NOT NULL, {of}, {much}) WITHOUT ROWID")
    db.execute("CREATE INDEX reservations_at ON reservations (at)")
    db.execute(f"CREATE TABLE spends ({of}, {much}, PRIMARY KEY (day, provider, model, agent, currency)) WITHOUT ROWID")
    db.execute("CREATE TABLE nets (name TEXT PRIMARY KEY, up INTEGER NOT NULL, reason TEXT NOT NULL, at INTEGER NOT NULL) WITHOUT ROWID")


def m004_queue(db) -> None:
    """What waits, and what waits to be journaled; waiting.py tells what the columns mean. A route that waits has the claim `queued`."""
    db.execute(
        "CREATE TABLE queue (n INTEGER PRIMARY KEY AUTOINCREMENT, route TEXT NOT NULL UNIQUE, thread TEXT, target TEXT, privacy TEXT,"
        " priority INTEGER NOT NULL, deadline TEXT, not_before TEXT, key TEXT, tries INTEGER NOT NULL, error TEXT, route_line BLOB NOT NULL,"
        " command_line BLOB NOT NULL, state TEXT NOT NULL, queued TEXT NOT NULL, lost INTEGER NOT NULL, token INTEGER NOT NULL, holder TEXT,"
        " until TEXT, seconds REAL, seen INTEGER NOT NULL DEFAULT 0)"
    )
    db.execute("CREATE INDEX queue_order ON queue (priority DESC, n) WHERE state = 'waiting'")
    db.execute("CREATE INDEX queue_held ON queue (holder) WHERE holder IS NOT NULL")
    db.execute("CREATE TABLE outbox (n INTEGER PRIMARY KEY AUTOINCREMENT, route TEXT NOT NULL, line BLOB NOT NULL)")


# Only ever appended to: their number is the user_version of the file.
MIGRATIONS = [m001_claims, m002_consents, m003_limits, m004_queue]


def Locked(path: str):
    """`with Locked(path):` holds the lock of all writers. Raises Failure 75 where others hold it for 10 s, 73 where it can't be opened."""
    return stream.Lock(path, LOCK_SECONDS)


class Write:
    """`with Write(db, path) as db:` one transaction under the lock; undone where the block raises. sync: wait for the disk."""

    def __init__(self, db, path: str, *, sync: bool = True):
        self.db, self.lock, self.sync = db, Locked(path + ".lock"), sync

    def __enter__(self):
        self.lock.__enter__()
        try:
            self.db.execute("PRAGMA synchronous=" + ("FULL" if self.sync else "NORMAL"))
            self.db.execute("BEGIN IMMEDIATE")
        except BaseException:
            self.lock.__exit__()
            raise
        return self.db

    def __exit__(self, kind, *_):
        try:
            self.db.execute("ROLLBACK" if kind else "COMMIT")
        except BaseException:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise
        finally:
            self.lock.__exit__()


def storage(bad, path: str) -> Failure:
    """The failure that an error of SQLite is: 75 for one that passes, 73 for a full disk or a place that can't be written, else 74."""
    words = str(bad)
    code = TEMPFAIL if "locked" in words or "busy" in words else CANTCREAT if "full" in words or "readonly" in words or "unable to open" in words else IOERR
    return Failure(f"cannot use '{path}': {words}", code)


def connect(path: str):
    """state.db, made or brought up to date; autocommit, so that Write alone begins transactions. Raises Failure (73, 74, 75)."""
    import sqlite3

    try:
        db = sqlite3.connect(paths.unlinked(path), timeout=BUSY_MS / 1000, isolation_level=None)
        db.execute("PRAGMA synchronous=FULL")
        if db.execute("PRAGMA user_version").fetchone()[0] != len(MIGRATIONS):
            _migrate(db, path)
    except sqlite3.Error as bad:
        raise storage(bad, path) from None
    except OSError as bad:
        raise Failure(f"cannot write '{bad.filename or path}': {bad.strerror}", CANTCREAT) from None
    return db


def _migrate(db, path: str) -> None:
    with Locked(path + ".lock"):
        # It cannot be changed within a transaction, and eight may be here at once.
        db.execute("PRAGMA journal_mode=WAL")
    with Write(db, path):
        done = db.execute("PRAGMA user_version").fetchone()[0]
        if done > len(MIGRATIONS):
            raise Failure(f"'{path}' was made by a newer version of this program", IOERR)
        for step in MIGRATIONS[done:]:
            step(db)
        db.execute(f"PRAGMA user_version={len(MIGRATIONS)}")


def boot() -> str:
    """Which start of the machine this is; "" where it can't be told."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        pass
    import subprocess

    try:  # macOS
        return subprocess.run(["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True, timeout=5, env={}).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


class Claims:
    """The claims of one run.

    One commit claims all routes of a batch. How far the run got with them stands in a small file of its own, two numbers: claims up to
    `begun` may have had an effect, claims up to `done` were handed on. Writing it costs a microsecond and outlives kill -9 (a power cut
    it may not: then what was claimed counts as begun). So the next run can tell three cases apart: handed on, interrupted, never begun;
    the last are free again. The run holds a lock on the file as long as it lives, which no reused pid can imitate.
    """

    def __init__(self, stage: str, path: str | None = None):
        self.stage, self._path, self.db = stage, path, None
        self.run = self.fd = -1
        self.n = self.begun = self.done = 0
        self.queued: set = set()  # of the routes of the last take(): those that wait, so that nothing here frees or ends them

    @property
    def path(self) -> str:
        """The file, its folder made when it is first needed."""
        if self._path is None:
            self._path = paths.state_db()
        return self._path

    def take(self, routes, *, again: bool = False) -> tuple[dict, list]:
        """Claims routes, (id, thread, target, privacy) each, in the order they will be acted on.

        Returns ({id: n} of those now held by this run, [(id, n, thread, target, privacy)] of routes whose own run went away in the
        middle: this run is to say so). The numbers of the lost that are not among `routes` come first, the others follow in order.
        again: also what was claimed before, but for what waits in the queue: a drain may be at it, and nothing would be left of it there if this
        process went away; `queued` holds those. Raises Failure (73, 74, 75): then nothing is claimed.
        """
        import sqlite3

        try:
            if self.db is None:
                self.db = connect(self.path)
            with Write(self.db, self.path) as db:
                if self.run < 0:
                    self._enrol(db)
                self._settle(db)
                lost, gone = self._sweep(db)
                numbered = self._number(db, routes, lost, again)
            for name in gone:
                if os.path.exists(name):
                    os.unlink(name)
            return numbered
        except sqlite3.Error as bad:
            raise storage(bad, self.path) from None
        except OSError as bad:
            raise Failure(f"cannot write '{bad.filename or self.path}': {bad.strerror}", CANTCREAT) from None

    def known(self, routes) -> set:
        """Which of these routes (ids) are claimed, by whomever. Changes nothing. Raises Failure (74, 75)."""
        import sqlite3

        if not os.path.exists(self.path):
            return set()
        try:
            db = sqlite3.connect(f"file:{quote(self.path)}?mode=ro", uri=True, timeout=BUSY_MS / 1000)
            if not db.execute("PRAGMA user_version").fetchone()[0]:
                return set()
            return {own for own in routes if db.execute("SELECT 1 FROM claims WHERE route = ?", (own,)).fetchone()}
        except sqlite3.Error as bad:
            raise storage(bad, self.path) from None

    def _folder(self) -> str:
        return paths.make(os.path.join(os.path.dirname(self.path), "runs"))

    def _enrol(self, db) -> None:
        # By chance, not counted: a run that outlives a deleted state.db keeps its file to itself.
        run = int.from_bytes(os.urandom(8)) >> 1
        db.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?)", (run, self.stage, os.getpid(), boot(), now()))
        self.fd = os.open(os.path.join(self._folder(), str(run)), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._mark()  # now, as a full disk is found here and not in the middle of the work
        self.run = run

    def _sweep(self, db) -> tuple[list, list]:
        """Frees what dead runs never began. Returns what they left in the middle, (id, thread, target, privacy), and the names of their files."""
        lost: list = []
        gone: list = []
        here = None
        for run, started_in in db.execute("SELECT run, boot FROM runs WHERE run != ? ORDER BY ts, pid", (self.run,)).fetchall():
            name = os.path.join(self._folder(), str(run))
            marks = _marks(name)
            if marks is None:
                continue
            # What a file held that was never synced is not known after a power cut.
            here = boot() if here is None else here
            begun, done = marks if started_in and started_in == here else (1 << 62, 0)
            db.execute("UPDATE claims SET state = 'done' WHERE run = ? AND n <= ? AND state IN ('held', 'lost')", (run, done))
            db.execute("DELETE FROM claims WHERE run = ? AND n > ? AND state = 'held'", (run, begun))
            lost += db.execute("SELECT route, thread, target, privacy FROM claims WHERE run = ? AND state IN ('held', 'lost') ORDER BY n", (run,)).fetchall()
            db.execute("DELETE FROM runs WHERE run = ?", (run,))
            gone.append(name)
        return lost, gone

    def _number(self, db, routes, lost, again) -> tuple[dict, list]:
        at_hand = {route[0]: route for route in routes}
        missed = {row[0]: row for row in lost}
        order = [*(row for row in lost if row[0] not in at_hand), *at_hand.values()]
        mine, told = {}, []
        self.queued = {row[0] for row in order if db.execute("SELECT 1 FROM claims WHERE route = ? AND state = 'queued'", (row[0],)).fetchone()}
        for row in order:
            if row[0] in self.queued:
                continue
            # What a dead run left for this one to tell stays `lost` until it is told, should this one die too.
            state = "lost" if row[0] in missed and not (again and row[0] in at_hand) else "held"
            how = "REPLACE" if state == "lost" or again else "IGNORE"
            n = self.n + 1
            if db.execute(f"INSERT OR {how} INTO claims VALUES (?, ?, ?, ?, ?, ?, ?)", (row[0], self.run, n, state, *row[1:])).rowcount:
                self.n = n
                if state == "lost":
                    told.append((row[0], n, *row[1:]))
                else:
                    mine[row[0]] = n
        return mine, told

    def _settle(self, db) -> None:
        db.execute("UPDATE claims SET state = 'done' WHERE run = ? AND n <= ? AND state IN ('held', 'lost')", (self.run, self.done))

    def begin(self, n: int) -> None:
        """From now on, claims up to `n` may have had an effect."""
        if n > self.begun:
            self.begun = n
            self._mark()

    def end(self, n: int) -> None:
        """Claims up to `n` were handed on with their results."""
        if n > self.done:
            self.done = n
            self._mark()

    def _mark(self) -> None:
        os.pwrite(self.fd, self.begun.to_bytes(8, "big") + self.done.to_bytes(8, "big"), 0)

    def close(self) -> None:
        """Keeps what was done, gives back what was never begun, and leaves. What was begun and not handed on is for the next run to tell."""
        if self.run < 0:
            return
        import sqlite3

        try:
            # No wait for the disk: what a power cut undoes here is held by a run of another boot, and its result is looked for in the journal.
            with Write(self.db, self.path, sync=False) as db:
                self._settle(db)
                db.execute("DELETE FROM claims WHERE run = ? AND n > ? AND state = 'held'", (self.run, self.begun))
                left = db.execute("SELECT 1 FROM claims WHERE run = ? AND state IN ('held', 'lost') LIMIT 1", (self.run,)).fetchone()
                if not left:
                    db.execute("DELETE FROM runs WHERE run = ?", (self.run,))
            if not left:
                os.unlink(os.path.join(self._folder(), str(self.run)))
        except (sqlite3.Error, OSError, Failure):
            pass  # as after kill -9: the next run finds the file as it is
        os.close(self.fd)
        self.run = self.fd = -1


# ---- consent ----


def agree(target: str, scope=(), until: str | None = None) -> None:
    """Keeps that a target may get what is not local; what was said of it before is replaced. scope: tags and ids of threads; until: as in records.

    On the disk when it returns. Raises Failure (73, 74, 75).
    """
    _say(target, " ".join(sorted(scope)), until, now(), None)


def withdraw(target: str) -> None:
    """Keeps that a target may get nothing more, whatever the specs say. On the disk when it returns. Raises Failure (73, 74, 75)."""
    _say(target, "", None, None, now())


def _say(*row) -> None:
    import sqlite3

    path = paths.state_db()
    try:
        db = connect(path)
        with Write(db, path):
            db.execute("INSERT OR REPLACE INTO consents VALUES (?, ?, ?, ?, ?)", row)
        db.close()
    except sqlite3.Error as bad:
        raise storage(bad, path) from None
    except OSError as bad:
        raise Failure(f"cannot write '{bad.filename or path}': {bad.strerror}", CANTCREAT) from None


def consents(entries=()) -> dict[str, dict]:
    """{target: {scope: [tags and ids of threads], until, granted, withdrawn, at}}, read anew; absent keys are not said.

    entries: the `@consent` entries of the config spec, whose `at` tells where they stand; what was said of the same target goes before them.
    Raises Failure (73, 74, 75).
    """
    import sqlite3

    found = {entry["name"]: {"scope": sorted(entry.get("scope", ())), "until": entry.get("until"), "at": entry["at"]} for entry in entries}
    path = os.path.join(paths.where("state"), "state.db")
    if not os.path.lexists(path):
        return found
    try:
        db = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, timeout=BUSY_MS / 1000)
        # An older file has no such table yet.
        if db.execute("PRAGMA user_version").fetchone()[0] >= 2:
            for target, scope, until, granted, withdrawn in db.execute("SELECT target, scope, until, granted, withdrawn FROM consents ORDER BY target"):
                found[target] = {"scope": scope.split(), "until": until, "granted": granted, "withdrawn": withdrawn}
        db.close()
    except sqlite3.Error as bad:
        raise storage(bad, path) from None
    return found


def consent(target: str, rec: dict | None = None, entries=()) -> str:
    """"" where `target` may get `rec` as far as consent goes, else the reason why not, in words. Read anew each time: what is withdrawn counts at once.

    rec: None where no record is sent (a key is tried). entries: as in consents(). What can't be read is no consent.
    """
    if target.startswith("webhook:"):
        target = target.lower()  # as keys.target() has it: the names of hosts know no case
    try:
        said = consents(entries).get(target)
    except Failure as bad:
        return bad.message
    if said is None:
        return "nobody agreed to it"
    if said.get("withdrawn"):
        return f"it was withdrawn at {said['withdrawn']}"
    if (until := said["until"]) is not None and not before(until):
        return f"it ended at {until}"
    if rec is None or not said["scope"]:
        return ""
    from .record import is_id

    # Of each kind that the scope names one has to fit; a kind that it does not name does not limit.
    for what, own, allowed in (("tag", rec.get("@tag"), [word for word in said["scope"] if not is_id(word)]),
                               ("thread", rec.get("thread"), [word.lower() for word in said["scope"] if is_id(word)])):  # fmt: skip
        if allowed and (own.lower() if type(own) is str else own) not in allowed:
            return f"it does not hold for the {what} '{own}'"
    return ""


def before(until: str) -> bool:
    """True while `until`, a time or a day of ISO 8601, is not over; a day lasts to its end, in UTC. What is no time is over."""
    from datetime import UTC, datetime, timedelta

    try:
        end = datetime.fromisoformat(until)
        end = (end if end.tzinfo else end.replace(tzinfo=UTC)) + timedelta(days=len(until) == 10)
    except OverflowError:  # the last day that there is
        return True
    except (ValueError, TypeError):
        return False
    return datetime.now(UTC) < end


def quote(path: str) -> str:
    """A path as a URI of SQLite holds it."""
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _marks(name: str) -> tuple[int, int] | None:
    """(begun, done) of a run that went away, None for one that lives. All begun where the file is gone or torn."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return 1 << 62, 0
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        data = os.pread(fd, 16, 0)
    except BlockingIOError:
        return None
    finally:
        os.close(fd)
    return (int.from_bytes(data[:8], "big"), int.from_bytes(data[8:], "big")) if data else (0, 0)


def forget(path: str, held) -> None:
    """Takes the thread and target of routes that are done out of the file, its free pages and its log, where held(route) says that they are gone.

    Raises Failure 75 while another process reads from the log.
    """
    db = connect(path)
    with Write(db, path):
        done = [row[0] for row in db.execute("SELECT route FROM claims WHERE state = 'done' AND (thread IS NOT NULL OR target IS NOT NULL)")]
        db.execute("PRAGMA secure_delete = ON")
        db.executemany("UPDATE claims SET thread = NULL, target = NULL WHERE route = ?", [(route,) for route in done if not held(route)])
    with Locked(path + ".lock"):
        db.execute("VACUUM")
        if db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            raise Failure(f"the write-ahead log of '{path}' cannot be emptied: another process reads from it", TEMPFAIL)
