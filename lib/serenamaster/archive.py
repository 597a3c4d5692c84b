"""The archive: the journal as a database, to look things up and to search. It is made from the journal and can be made again: ftai-archive(1).

Every write and every checkpoint stands under one lock of our own, as SQLite 3.7.0 to 3.51.2 can spoil a WAL that two connections write or
checkpoint at once (https://sqlite.org/wal.html#walresetbug). Readers open the file read-only.
"""

from __future__ import annotations

import os
import time
from contextlib import closing, suppress

from . import chain, journal, paths, stream
from .errors import IOERR, TEMPFAIL, USAGE, Failure
from .record import encode, is_id, make

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator

BATCH = 10_000  # records of one transaction
BATCH_BYTES = 16 * 1024 * 1024
STEP = 10_000  # records that a writer on its way takes in at once, half a second; who reads takes in all
RANKED = 10_000  # hits that are ranked, the newest; and the number of records from which on a word has no weight
ENOUGH = 1_000  # hits among the newest records that are enough where all words are very common
BUSY = 1.0  # seconds to wait for a program that writes to the file without our lock
PATIENCE = 10_000  # milliseconds that a purge waits for who reads what is to go

# Blocks and records that say how, not what: who searches "invoice" wants the command and the task, not each candidate of the route.
SILENT = frozenset(("route", "attempt", "specs", "checkpoint", "tombstone", "schema", "chain", "slots", "alternative"))
# Fields of a closed vocabulary, or for machines.
MUTE = frozenset(
    ("@tag", "id", "ts", "thread", "parent", "via", "lang", "tz", "privacy", "status", "target", "rule", "rule_at", "specs", "class", "updates", "about")
    + ("recovery", "sha256", "digest", "salt", "hash", "currency", "price_row", "sample", "@hints", "@quoted")
)
SEALED = "[sealed:"  # what begins so is encrypted, and no words
# Words that people put into a question and that records may lack.
STOP = frozenset(
    ("a", "about", "an", "and", "are", "as", "at", "be", "but", "by", "did", "do", "for", "from", "how", "i", "in", "is", "it", "me", "my", "of", "on")
    + ("or", "so", "that", "the", "this", "to", "was", "we", "were", "what", "when", "where", "which", "who", "with", "you")
)
# Of a row r: it did not come by an import. What is done here, and what was, no imported record says.
OWN = "json_type(r.line, '$.origin') IS NULL"
# What says where a record stands: an `updates: ID` never changes it.
FRAME = frozenset(("@tag", "id", "ts", "thread", "parent", "from", "updates", "privacy", "@blocks"))


# -- The schema ---------------------------------------------------------------------------------------------------------------------


def m001_records(db) -> None:
    """A row a record: seq is the rowid, line the record in line form, text what is searched, ts in UTC with milliseconds."""
    db.execute("CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")
    db.execute(
        "CREATE TABLE records (seq INTEGER PRIMARY KEY, id TEXT, ts TEXT, thread TEXT, parent TEXT, tag TEXT, updates TEXT, text TEXT, line TEXT NOT NULL)"
    )
    for column in ("id", "ts", "thread", "parent", "tag"):
        db.execute(f"CREATE INDEX records_{column} ON records ({column})")
    db.execute("CREATE INDEX records_updates ON records (updates) WHERE updates IS NOT NULL")
    # The index keeps no second copy of the text; the view leaves out what has none, also where the index is made again from it.
    # A tag is one word there, whatever signs are in it: so a tag asked for is a word more, and no row need be looked at.
    db.execute("CREATE VIEW searched AS SELECT seq, text, hex(tag) AS tag FROM records WHERE text IS NOT NULL")
    db.execute(
        "CREATE VIRTUAL TABLE words USING fts5 (text, tag, content = 'searched', content_rowid = 'seq', tokenize = 'porter unicode61 remove_diacritics 2')"
    )


# Only ever appended to: their number is the user_version of the file.
MIGRATIONS = [m001_records]


# -- Rows -----------------------------------------------------------------------------------------------------------------------------


def _row(seq: int, rec: dict) -> tuple:
    line = encode(rec)[:-1].decode()
    tag = _key(rec.get("@tag"))
    own, thread, parent, updates = (_key(rec.get(name)) for name in ("id", "thread", "parent", "updates"))
    return seq, own, instant(rec.get("ts")), thread, parent, tag, updates, searchable(rec), line


COLUMNS = "?, ?, ?, ?, ?, ?, ?, ?, ?"


def _key(value) -> str | None:
    return value if type(value) is str else str(value) if type(value) in (int, float) else None


def instant(ts) -> str | None:
    """A time of RFC 3339, or an aware datetime, as rows hold it: UTC with milliseconds, so that text order is time order. None: no time."""
    if type(ts) is str:
        if len(ts) == 24 and ts[23] == "Z" and ts[10] == "T" and ts[19] == "." and ts.isascii() and ts[:4].isdigit() and ts[20:23].isdigit():
            return ts
        import datetime

        try:
            ts = datetime.datetime.fromisoformat(ts)
        except ValueError:
            return None
    if not hasattr(ts, "astimezone"):
        return None
    import datetime

    try:
        if ts.tzinfo is None:
            ts = ts.replace(tzinfo=datetime.UTC)
        return ts.astimezone(datetime.UTC).isoformat(timespec="milliseconds")[:23] + "Z"
    except (OverflowError, ValueError):
        return None


def moment(words: str | None, end: int) -> str | None:
    """The beginning (0) or the end (1) of the time that these words name, as instant() gives it; None without words. Raises Failure 2."""
    from . import dates

    found = dates.span(words, dates.now_in()) if words is not None else None
    if words is not None and found is None:
        raise Failure(f"'{words}' names no time", USAGE, "monday, yesterday, 'last week', 2026-11-22 or 2026-11-22T13:25:00Z")
    return found and instant(found[end])


def searchable(rec: dict) -> str | None:
    """What of a record is searched: its strings, nested blocks included, without what is for machines; None where there is nothing."""
    parts: list[str] = []
    _gather(rec, parts)
    return _spaced("\n".join(parts)) if parts else None


def _gather(rec: dict, parts: list[str]) -> None:
    if rec.get("@tag") in SILENT:
        return
    for key, value in rec.items():
        if key in MUTE:
            continue
        if key == "@blocks":
            for block in value:
                _gather(block, parts)
        elif type(value) is str:
            if value and not is_id(value) and not (key == "from" and value.startswith("ftai-")) and not value.startswith(SEALED):
                parts.append(value)
        elif type(value) is list:
            _strings(value, parts)


def _strings(values: list, parts: list[str]) -> None:
    for value in values:
        if type(value) is list:
            _strings(value, parts)
        elif type(value) is str and value and not is_id(value) and not value.startswith(SEALED):
            parts.append(value)


def _spaced(text: str) -> str:
    """`text` with each Chinese and Japanese character a word of its own, as no spaces say where their words end."""
    if text.isascii() or max(text) < "\u3040":
        return text
    import re

    return re.sub("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]", r" \g<0> ", text)


# -- Writing --------------------------------------------------------------------------------------------------------------------------


def Locked(wait: float):
    """`with Locked(wait):` holds the lock of all writers of the archive. Raises Failure 75 where others still hold it after `wait` seconds."""
    return stream.Lock(paths.archive_db() + ".lock", wait, "the archive is locked by another process")


class Other(Exception):
    """What the file holds is not of this journal: it is made again."""


# This process's connection for writing: kept open, as opening costs more than a small batch. Only used, and only closed, under the lock.
_writer: dict = {}
_inherited: list = []  # connections of a process that forked: SQLite allows neither to use nor to close them here


def _inode(path: str) -> tuple[int, int] | None:
    try:
        seen = os.stat(path)
    except FileNotFoundError:
        return None
    return seen.st_dev, seen.st_ino


def _write(path: str) -> sqlite3.Connection:
    """The connection for writing, its schema of this version. Call it under the lock. Raises sqlite3.Error, Failure for a newer version."""
    here = _inode(paths.unlinked(path))
    if _writer:
        if _writer["path"] == path and _writer["inode"] == here and _writer["pid"] == os.getpid():
            return _writer["db"]
        _close()  # the file was replaced; SQLite sees that too, and leaves the new one's WAL alone
    if here is None:
        # Never open an existing one: closing it again would drop the locks that SQLite holds on it in this process.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    db = _open(path)
    _writer.update(db=db, path=path, inode=_inode(path), pid=os.getpid())
    return db


def _open(path: str, *, wal: bool = True) -> sqlite3.Connection:
    import sqlite3

    db = sqlite3.connect(path, isolation_level=None, timeout=BUSY)
    try:
        if wal:
            db.execute("PRAGMA journal_mode = WAL")
        # NORMAL may lose the last commits in a power cut: the journal has them.
        db.execute(f"PRAGMA synchronous = {'NORMAL' if wal else 'OFF'}")
        db.execute("PRAGMA cache_size = -32768")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise Failure(f"the archive is of a newer version ({version}, this program knows {len(MIGRATIONS)})", IOERR)
        for number in range(version, len(MIGRATIONS)):
            with Transaction(db):
                MIGRATIONS[number](db)
                db.execute(f"PRAGMA user_version = {number + 1}")
    except BaseException:
        db.close()
        raise
    return db


class Transaction:
    """`with Transaction(db):` one transaction, undone where the block raises."""

    def __init__(self, db):
        self.db = db

    def __enter__(self):
        self.db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind, *_):
        try:
            self.db.execute("ROLLBACK" if kind else "COMMIT")
        except BaseException:
            # A COMMIT that failed (disk full) leaves it open; after some errors SQLite has rolled back by itself.
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            if not kind:
                raise


def _damaged(bad: Exception) -> bool:
    import sqlite3

    # The primary code of SQLITE_CORRUPT and all its kinds, and of "file is not a database".
    return isinstance(bad, sqlite3.DatabaseError) and getattr(bad, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _full(bad: Exception) -> bool:
    """True where the disk is, or a quota. With so little left that not even its -shm can be made, SQLite tells of an input/output error."""
    import errno
    import sqlite3

    if isinstance(bad, OSError):
        return bad.errno in (errno.ENOSPC, errno.EDQUOT)
    return getattr(bad, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


def _remove(path: str) -> None:
    """Takes the file away. Call it under the lock. The WAL goes last: without its database it is nothing, beside another it would be poison."""
    if _writer:
        _close()
    _unlink(path)


def _close() -> None:
    db, own = _writer.pop("db"), _writer["pid"] == os.getpid()
    _writer.clear()
    if own:
        db.close()
    else:
        _inherited.append(db)


def _unlink(path: str) -> None:
    for end in ("", "-wal", "-shm", "-journal"):
        if os.path.lexists(path + end):
            os.unlink(path + end)


def _seen(folder: str) -> str | None:
    """What a stat tells of the live segment: as long as it is the same, nothing is new. None where there is no journal."""
    try:
        now = os.stat(os.path.join(folder, chain.LIVE))
    except FileNotFoundError:
        return None
    return f"{now.st_dev} {now.st_ino} {now.st_size} {now.st_mtime_ns}"


def _identity(folder: str) -> str | None:
    """The journal's own id; None where there is no journal."""
    for name in (chain.LIVE, *chain.closed(folder)[-1:]):
        try:
            fd = chain.regular(os.path.join(folder, name))
        except FileNotFoundError:
            continue
        try:
            head = chain.head(os.pread(fd, chain.WINDOW, 0))
        finally:
            os.close(fd)
        if head is not None:
            return head.journal
    return next((entry["journal"] for entry in chain.ledger(folder).values()), None)


_caught: dict = {}  # the last state in which nothing was left to do


def catch_up(*, limit: int | None = STEP, wait: float = 0.0) -> str | None:
    """Takes what is new in the journal into the archive. Returns None, or why it could not, in words for a message; never raises.

    limit: records to take in at most (None: all); what is left over is no failure. wait: seconds to wait for another process that writes.
    A damaged file, or one of another journal, is removed and made again.
    """
    try:
        return _catch_up(limit, wait)
    except Failure as bad:
        return bad.message
    except OSError as bad:
        return f"the archive cannot be written: {bad.strerror or bad}"
    except Exception as bad:  # A view never stops the journal, not even by a bug of its own.
        return f"the archive cannot be written: {bad or type(bad).__name__}"


def _catch_up(limit, wait) -> str | None:
    import sqlite3

    folder, path = paths.journal(), paths.archive_db()
    now = {"folder": folder, "seen": _seen(folder), "inode": _inode(path)}
    if now["inode"] and now == _caught:
        return None
    with Locked(wait):
        for again in (False, True):
            try:
                reason = _follow(_write(path), folder, limit)
                break
            except (sqlite3.DatabaseError, Other) as bad:
                if again or not (isinstance(bad, Other) or _damaged(bad)):
                    raise
                _remove(path)
        now["inode"] = _inode(path)
    if reason is None:
        _caught.update(now)
    return None if reason == "more" else reason


def _follow(db, folder: str, limit, told: Callable | None = None) -> str | None:
    """Takes in what the journal holds behind the newest row. Returns None, "more" where `limit` ended it, or a reason."""
    about = dict(db.execute("SELECT key, value FROM about"))
    seen, own = _seen(folder), _identity(folder)
    if own is None:
        # An archive that has lost its journal may be the last copy: it stays.
        return "the journal is missing" if "journal" in about else None
    if about.get("journal", own) != own:
        raise Other
    if seen is not None and about.get("seen") == seen:
        return None
    stood = _stood(folder)
    _bury(db, folder, {name for name, state in stood.items() if about.get(name) != state})
    fresh = _fresh(db, folder, db.execute("SELECT max(seq) FROM records").fetchone()[0] or 0)
    rows: list[tuple] = []
    size = 0
    more = False
    for taken, (seq, rec) in enumerate(fresh):
        if more := limit is not None and taken >= limit:
            break
        row = _row(seq, rec)
        rows.append(row)
        size += len(row[-1])
        if len(rows) >= BATCH or size >= BATCH_BYTES:
            db.execute("PRAGMA wal_autocheckpoint = 20000")
            _store(db, rows, {"journal": own})
            if told:
                told(seq)
            rows, size = [], 0
    if told and rows:
        told(rows[-1][0])
    # A short WAL in the end: who opens the file first has to read it all.
    db.execute("PRAGMA wal_autocheckpoint = 1000")
    _store(db, rows, {"journal": own, "seen": "" if more else seen or "", **stood})
    return "more" if more else None


def _stood(folder: str) -> dict[str, str]:
    """{name: what a stat tells} of the closed segments: they change where a purge rewrites them, or where they come back from a backup."""
    found = {}
    for name in chain.closed(folder):
        now = os.stat(os.path.join(folder, name))
        found[name] = f"{now.st_ino} {now.st_size} {now.st_mtime_ns}"
    return found


def _bury(db, folder: str, names: set[str]) -> None:
    """Makes rows agree with the tombstones of these closed segments."""
    last = db.execute("SELECT max(seq) FROM records").fetchone()[0] or 0
    if not names or not last:
        return
    from . import segments

    stale = [_row(seq, rec) for name in names for seq, rec in segments.tombstones(folder, name) if seq <= last and not _held(db, seq, rec)]
    if not stale:
        return
    # What is deleted is overwritten with zeros within the file: https://sqlite.org/pragma.html#pragma_secure_delete
    db.execute("PRAGMA secure_delete = ON")
    with Transaction(db):
        for row in stale:
            db.execute("INSERT INTO words (words, rowid, text, tag) SELECT 'delete', seq, text, tag FROM searched WHERE seq = ?", row[:1])
        db.executemany(f"INSERT OR REPLACE INTO records VALUES ({COLUMNS})", stale)


def _store(db, rows: list[tuple], about: dict) -> None:
    with Transaction(db):
        if rows:
            db.executemany(f"INSERT INTO records VALUES ({COLUMNS})", rows)
            # One statement a batch: row triggers on the index cost three times as much.
            db.execute("INSERT INTO words (rowid, text, tag) SELECT seq, text, tag FROM searched WHERE seq BETWEEN ? AND ?", (rows[0][0], rows[-1][0]))
        db.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", about.items())


def _fresh(db, folder: str, last: int) -> Iterator[tuple[int, dict]]:
    """What the journal holds behind row `last`; rows that it does not hold are removed first. The chain makes one equal record enough.

    A journal may come back from a backup, and what one writer could not sync, another may have written anew.
    """
    from itertools import chain

    found = journal.read(folder, after=max(last - 1, 0))
    first = next(found, None)
    if last and (first is None or (first[0] == last and not _held(db, *first))):
        last = _agreed(db, folder, last)
        return journal.read(folder, after=last)
    return found if first is None or first[0] <= last else chain((first,), found)


def _held(db, seq: int, rec: dict) -> bool:
    row = db.execute("SELECT line FROM records WHERE seq = ?", (seq,)).fetchone()
    return row is not None and row[0] == encode(rec)[:-1].decode()


def _agreed(db, folder: str, last: int) -> int:
    """The newest seq up to which archive and journal agree; the rows behind it are removed. Raises Other where they never did."""
    tip = min(last, journal.position(folder))
    here = next(journal.read(folder, after=tip - 1), None) if tip > 0 else None
    if tip > 0 and (here is None or here[0] != tip or _held(db, *here)):
        # A journal that is shorter, or damaged there, says nothing against the rows.
        return last
    good = 0
    for seq, rec in journal.read(folder, after=max(tip - BATCH, 0)):
        if not _held(db, seq, rec):
            break
        good = seq
    if not good:
        raise Other
    with Transaction(db):
        db.execute("INSERT INTO words (words, rowid, text, tag) SELECT 'delete', seq, text, tag FROM searched WHERE seq > ?", (good,))
        db.execute("DELETE FROM records WHERE seq > ?", (good,))
        db.execute("DELETE FROM about WHERE key = 'seen'")
    return good


def rebuild(told: Callable | None = None) -> tuple[int, int]:
    """Makes the archive again from the journal, beside the old one, and puts it in its place. Returns (records, records of the old one).

    told: called with the last seq after each batch. Raises Failure: 75 where another process holds the lock, 74.
    """
    import sqlite3

    folder, path = paths.journal(), paths.archive_db()
    try:
        with Locked(10):
            if _identity(folder) is None:
                if _inode(path) and _write(path).execute("SELECT max(seq) FROM records").fetchone()[0]:
                    raise Failure(f"there is no journal in '{folder}': the archive stays as it is", IOERR)
                return 0, 0
            return _rebuild(folder, path, told)
    except (OSError, sqlite3.Error) as bad:
        raise Failure(f"cannot make the archive again: {getattr(bad, 'strerror', None) or bad}", IOERR) from None
    finally:
        _caught.clear()


def _rebuild(folder: str, path: str, told: Callable | None) -> tuple[int, int]:
    import sqlite3

    count = "SELECT count(*) FROM records"
    try:
        before = _write(path).execute(count).fetchone()[0] if _inode(path) else 0
    except (sqlite3.Error, Failure):
        before = 0
    fresh = path + ".new"
    _unlink(fresh)
    db = None
    try:
        os.close(os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        db = _open(fresh, wal=False)
        # Nobody sees it before it is whole, so it needs no journal of its own.
        db.execute("PRAGMA journal_mode = OFF")
        reason = _follow(db, folder, None, told)
        if reason:
            raise Failure(reason, IOERR)
        db.execute("INSERT INTO words (words) VALUES ('optimize')")
        db.execute("PRAGMA journal_mode = WAL")
        after = db.execute(count).fetchone()[0]
        db.close()
        db = None
        fd = os.open(fresh, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        # The old WAL must be gone before the new file has its name.
        _remove(path)
        os.rename(fresh, path)
    except BaseException:
        if db is not None:
            db.close()
        _unlink(fresh)
        raise
    return after, before


def forget(runs: Iterable[tuple[int, int]]) -> str | None:
    """Takes out rows from one seq to another each, whose segments retention removed. Returns None, or why it could not; a rebuild does it too."""
    runs, path = list(runs), paths.archive_db()
    if not runs:
        return None
    import sqlite3

    # Mostly they are out already, and nobody needs to be waited for.
    with suppress(OSError, Failure, sqlite3.Error), closing(_read(path)) as seen:
        if not any(seen.execute("SELECT 1 FROM records WHERE seq BETWEEN ? AND ?", span).fetchone() for span in runs):
            return None
    try:
        with Locked(10):
            if not _inode(path):
                return None
            db = _write(path)
            with Transaction(db):
                for span in runs:
                    db.execute("INSERT INTO words (words, rowid, text, tag) SELECT 'delete', seq, text, tag FROM searched WHERE seq BETWEEN ? AND ?", span)
                    db.execute("DELETE FROM records WHERE seq BETWEEN ? AND ?", span)
    except (OSError, Failure, sqlite3.Error) as bad:
        return str(bad)
    return None


def purge(names: set[str], damaged: bool = False) -> None:
    """Takes what the journal holds as tombstones out of the archive: rows, index, free pages and write-ahead log. A damaged one is made again.

    names: "SEQ HASH" of records that are to go also where the journal had nothing of them left but damage.
    damaged: of some nobody can say which rows they were, and it is made again too.
    Raises Failure: 75 where another process holds the lock or reads what is to go, 74.
    """
    import sqlite3

    folder, path = paths.journal(), paths.archive_db()
    try:
        with Locked(10):
            _unlink(path + ".new")  # of a rebuild that was killed
            if not _inode(path):
                _unlink(path)
                return
            try:
                db = _write(path)
                if damaged and _identity(folder):
                    raise Other
                # Others may have taken in the newest record before the segments behind it were rewritten.
                db.execute("DELETE FROM about WHERE key = 'seen'")
                if (reason := _follow(db, folder, None)) is not None:
                    raise Failure(reason, IOERR)
                _drop(db, names)
                _clean(db)
            except (sqlite3.DatabaseError, Other) as bad:
                if not (isinstance(bad, Other) or _damaged(bad) or (_full(bad) and _identity(folder))):
                    raise
                try:
                    _rebuild(folder, path, None)
                except (OSError, sqlite3.Error) as worse:
                    if not _full(worse):
                        raise
                    # A view, that holds what is to go, and that whoever reads next makes again.
                    _remove(path)
    except (OSError, sqlite3.Error) as bad:
        raise Failure(f"cannot clean the archive: {getattr(bad, 'strerror', None) or bad}", IOERR) from None
    finally:
        _caught.clear()


def _drop(db, names: set[str]) -> None:
    """Removes the rows of these records, where tombstones have not taken their places. Raises Other where one is none of this journal."""
    import orjson

    numbers = orjson.dumps([int(words.split()[0]) for words in names]).decode()
    question = "SELECT r.seq, r.line FROM json_each(?) AS j CROSS JOIN records AS r ON r.seq = j.value WHERE r.tag IS NOT 'tombstone'"
    gone = []
    for seq, line in db.execute(question, (numbers,)):
        if f"{seq} {orjson.loads(line)['@blocks'][-1]['hash']}" not in names:
            raise Other
        gone.append((seq,))
    with Transaction(db):
        db.executemany("DELETE FROM records WHERE seq = ?", gone)


def _clean(db) -> None:
    """Leaves nothing in the file, and in its write-ahead log, but what the rows hold now."""
    db.execute("PRAGMA secure_delete = ON")
    db.execute(f"PRAGMA busy_timeout = {PATIENCE}")
    # Words that are gone may stand in the index until it is merged; and the planner keeps samples of values.
    db.execute("INSERT INTO words (words) VALUES ('rebuild')")
    counted = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE name LIKE 'sqlite_stat_'")]
    for name in counted:
        db.execute(f"DELETE FROM {name}")
    db.execute("VACUUM")
    if counted:
        db.execute("ANALYZE")
    busy = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    db.execute(f"PRAGMA busy_timeout = {int(BUSY * 1000)}")
    if busy:
        raise Failure("the write-ahead log of the archive cannot be emptied: another process reads from it", TEMPFAIL)


def maintain(*, dry_run: bool = False) -> dict:
    """Checks the archive and keeps it in shape. Returns the fields of a report; with dry_run what it would do, in `would`.

    A damaged one is made again from the journal. Raises Failure: 75 where another process holds the lock, 74.
    """
    import sqlite3

    path = paths.archive_db()
    connect().close()
    report: dict = {"bytes_before": _size(path), "wal_before": _size(path + "-wal"), "integrity": "ok"}
    try:
        with Locked(10):
            db = _write(path)
            try:
                found = [row[0] for row in db.execute("PRAGMA integrity_check(5)")]
                if not dry_run:
                    db.execute("INSERT INTO words (words, rank) VALUES ('integrity-check', 1)")
            except sqlite3.DatabaseError as bad:
                if not _damaged(bad):
                    raise
                found = [str(bad)]
            if found == ["ok"]:
                free, pages = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_count"))
                # A tenth of it free, and a megabyte: less is not worth the copy.
                worth = free * 10 > pages and free > 256
                if dry_run:
                    return report | {"would": ["analyze", "optimize", "checkpoint"] + ["vacuum"] * worth}
                db.execute("PRAGMA analysis_limit = 1000")
                db.execute("ANALYZE")
                db.execute("INSERT INTO words (words) VALUES ('optimize')")
                if worth:
                    db.execute("VACUUM")
                busy = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
                done = ["analyze", "optimize"] + ["vacuum"] * worth + ["checkpoint"] * (not busy)
                return report | {"did": done, "bytes": _size(path), "wal": _size(path + "-wal")}
    except (OSError, sqlite3.Error) as bad:
        raise Failure(f"cannot maintain the archive: {getattr(bad, 'strerror', None) or bad}", IOERR) from None
    report["integrity"] = "; ".join(found)
    if dry_run:
        return report | {"would": ["rebuild"]}
    count, _ = rebuild()
    return report | {"did": ["rebuild"], "records": count, "bytes": _size(path), "wal": _size(path + "-wal")}


def tend(*, stage: str, warn: Callable | None = None, dry_run: bool = False) -> Iterator[dict]:
    """maintain(), and yields the records of it as they are journaled: the `audit` of the intent before, the `report` behind it; with dry_run the report
    alone, which is not journaled. Raises Failure as maintain() and journal.append() do; what maintain() could not do, an `audit` says.
    """
    start = time.monotonic()
    said: dict = {"subject": "archive", "act": "maintain"}
    intent = None

    def kept(rec):
        journal.append(paths.journal(), [rec], stage=stage, warn=warn)
        return rec

    def audit(outcome, **more):
        return kept(make("audit", stage, parent=intent, **said, who=journal.user(), outcome=outcome, **more))

    if not dry_run:
        yield (intent := audit("intended"))
    try:
        fields = maintain(dry_run=dry_run)
    except Failure as bad:
        if intent:
            yield audit("failed", because=bad.message)
        raise
    report = make("report", stage, parent=intent, **said, **fields, ms=int((time.monotonic() - start) * 1000))
    if intent:
        kept(report)
        catch_up()
    yield report


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def stats(db) -> dict:
    """What the archive holds: the fields of a report, with a block `count` for each tag."""
    import sqlite3

    folder, path = paths.journal(), paths.archive_db()
    count, first, last, threads, oldest, newest = db.execute(
        "SELECT count(*), min(seq), max(seq), (SELECT count(DISTINCT thread) FROM records), (SELECT min(ts) FROM records), (SELECT max(ts) FROM records)"
        " FROM records"
    ).fetchone()
    tags = db.execute("SELECT coalesce(tag, 'text'), count(*) FROM records GROUP BY 1 ORDER BY 2 DESC, 1").fetchall()
    return {
        "path": path,
        "journal": _identity(folder),
        "records": count,
        "threads": threads,
        "first": first,
        "last": last,
        "behind": max(journal.position(folder) - (last or 0), 0),
        "oldest": oldest,
        "newest": newest,
        "bytes": _size(path),
        "wal": _size(path + "-wal"),
        "version": len(MIGRATIONS),
        "sqlite": sqlite3.sqlite_version,
        "blocks": [{"@tag": "count", "name": tag, "records": number} for tag, number in tags],
    }


# -- Reading --------------------------------------------------------------------------------------------------------------------------


def connect(warn: Callable | None = None, *, wait: float = 10.0) -> sqlite3.Connection:
    """A read-only connection to the archive, caught up first (waiting for others that write, at most `wait` seconds).

    warn: called with the reason where it could not be caught up and only what it holds can be read.
    Raises Failure (75, 74) where it can't be read at all: read the journal then (scan), the archive is only a view of it.
    """
    import sqlite3

    reason = catch_up(limit=None, wait=wait)
    try:
        db = _read(paths.archive_db())
        if reason:
            own = _identity(paths.journal())
            held = db.execute("SELECT value FROM about WHERE key = 'journal'").fetchone()
            if own is not None and held is not None and held[0] != own:
                raise Failure("the archive is of another journal", IOERR)
    except sqlite3.Error as bad:
        raise Failure(reason or f"the archive cannot be read: {bad}", IOERR, "ftai-archive rebuild") from None
    if reason and warn:
        warn(reason)
    return db


def _read(path: str, *, immutable: bool = False) -> sqlite3.Connection:
    import sqlite3

    name = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    db = sqlite3.connect(f"file:{name}?{'immutable=1' if immutable else 'mode=ro'}", uri=True, isolation_level=None, timeout=BUSY)
    try:
        version = db.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.OperationalError:
        db.close()
        # A WAL database in a folder that can't be written needs to be told that nobody else writes either.
        if immutable or os.access(os.path.dirname(path), os.W_OK) or _size(path + "-wal"):
            raise
        return _read(path, immutable=True)
    except BaseException:
        db.close()
        raise
    if version != len(MIGRATIONS):
        db.close()
        raise Failure(f"the archive is of version {version}, this program reads {len(MIGRATIONS)}", IOERR, "ftai-archive rebuild")
    db.execute("PRAGMA cache_size = -16384")
    return db


def ask(question: Callable, warn: Callable | None = None):
    """What question(connection) returns. A file that turns out to be damaged is removed and made again, once.

    Raises Failure where the archive can't be read; scan() reads the journal itself.
    """
    import sqlite3

    db = connect(warn)
    try:
        return question(db)
    except sqlite3.Error as bad:
        if not _damaged(bad):
            raise Failure(f"the archive cannot be read: {bad}", IOERR) from None
        if warn:
            warn(f"the archive is damaged and is made again from the journal: {bad}")
    finally:
        db.close()
    discard()
    db = connect(warn)
    try:
        return question(db)
    except sqlite3.Error as bad:
        raise Failure(f"the archive cannot be read: {bad}", IOERR, "ftai-archive rebuild") from None
    finally:
        db.close()


def discard() -> None:
    """Removes a damaged archive; who reads next makes it again. Raises Failure 75, 74."""
    with Locked(10):
        try:
            _remove(paths.archive_db())
        except OSError as bad:
            raise Failure(f"cannot remove '{paths.archive_db()}': {bad.strerror}", IOERR) from None
    _caught.clear()


def follow(
    after: int = 0, *, since=None, until=None, tags: Iterable[str] = (), thread: str | None = None, warn: Callable | None = None
) -> Iterator[list[tuple[int, dict]]]:
    """Yields lists of (seq, record) behind seq `after` in the order of the journal, as they were journaled, each record once.

    since, until, tags, thread: as in search(). From the journal itself where the archive can't be read: warn(reason) says so.
    """
    import sqlite3


    start, stop = instant(since) if since is not None else None, instant(until) if until is not None else None
    only = [_sent(tag).lower().removeprefix("@") for tag in tags]
    thread = None if thread is None else _sent(thread)
    try:
        db = connect(warn)
        # Page by page: one long read would keep the WAL from ever being reset.
        while True:
            parts, values = _where(start, stop, only, thread, None, "")
            question = f"SELECT r.seq, r.line FROM records AS r WHERE {' AND '.join(['r.seq > ?', *parts])} ORDER BY r.seq LIMIT 1000"
            page = [(seq, _loaded(line)) for seq, line in db.execute(question, (after, *values))]
            if not page:
                return
            yield page
            after = page[-1][0]
    except (Failure, sqlite3.Error) as bad:
        if warn:
            warn(f"{bad}; the journal itself is read")
    page = []
    for seq, rec in journal.read(paths.journal(), after=after):
        if _fits(rec, start, stop, only, thread):
            page.append((seq, shown(rec)))
            if len(page) == 1000:
                yield page
                page = []
    if page:
        yield page


def _fits(rec: dict, start, stop, only, thread) -> bool:
    if (only and rec.get("@tag") not in only) or (thread is not None and _key(rec.get("thread")) != thread):
        return False
    if not start and not stop:
        return True
    when = instant(rec.get("ts"))
    return when is not None and (not start or when >= start) and (not stop or when < stop)


# What lookup() keeps: a connection, and for which files.
_desk: dict = {}


def lookup(ids: Iterable[str]) -> tuple[int, dict[str, tuple[int, bytes]]] | None:
    """(upto, {id: (seq, content)}) for those of `ids` that the journal holds up to seq `upto`, which is as far as the archive goes.

    content: canonical text without `@chain` and the last `@end`, the first where an id stands twice. None where the archive can't be read,
    or does not agree with the journal: then the record is written, ftai(7). The first call takes in what is new.
    """
    try:
        return _lookup(ids)
    except Exception:  # as in catch_up(): a view never stops the journal
        _desk.clear()
        return None


def _lookup(ids: Iterable[str]) -> tuple[int, dict[str, tuple[int, bytes]]] | None:
    import orjson

    from . import text

    folder, path = paths.journal(), paths.archive_db()
    key = (_inode(path), _inode(os.path.join(folder, chain.LIVE)), os.getpid())
    if None in key or _desk.get("key") != key:
        _desk.clear()
        catch_up()
        db = _read(path)
        held = db.execute("SELECT value FROM about WHERE key = 'journal'").fetchone()
        if held is not None and held[0] != _identity(folder):
            db.close()
            return None
        _desk.update(key=(_inode(path), key[1], key[2]), db=db)
    db = _desk["db"]
    upto = db.execute("SELECT max(seq) FROM records").fetchone()[0] or 0
    found = {}
    question = "SELECT r.id, r.seq, r.line FROM json_each(?) AS j CROSS JOIN records AS r ON r.id = j.value ORDER BY r.seq DESC"
    for own, seq, line in db.execute(question, (orjson.dumps(list(ids)).decode(),)):
        rec = orjson.loads(line)
        rec["@blocks"] = [block for block in rec["@blocks"] if block.get("@tag") != "chain"]
        if not rec["@blocks"]:
            del rec["@blocks"]
        found[own] = seq, text.dump(rec)[:-5].encode()
    if found:
        # A row that the journal has lost would make the second try to write it look like a repeat, and lose it for good.
        tip = next(journal.read(folder, after=upto - 1), None)
        if tip is None or tip[0] != upto or not _held(db, *tip):
            return None
    return upto, found


def get(db, ids: Iterable[str], *, folded: bool = True) -> dict[str, dict]:
    """{id: record} for those of `ids` that the archive holds. folded: with later updates applied."""
    import orjson

    wanted = orjson.dumps([key for key in ids if type(key) is str]).decode()
    question = "SELECT r.line FROM json_each(?) AS j CROSS JOIN records AS r ON r.id = j.value ORDER BY r.seq DESC"
    records = {rec["id"]: rec for rec in _records(db.execute(question, (wanted,)))}
    return {rec["id"]: rec for rec in _updated(db, list(records.values()))} if folded else records


def ending(db, word: str, limit: int) -> list[dict]:
    """The records whose id is `word`, or else ends with it, as they were journaled, at most so many. word: hex digits and hyphens."""
    for where, values in (("id IN (?, ?)", (word, word.lower())), ("id LIKE ?", (f"%{word}",))):
        # The rows by number: so only the index is gone through.
        question = f"SELECT line FROM records WHERE seq IN (SELECT seq FROM records WHERE {where} LIMIT ?) ORDER BY seq"
        if found := list(_records(db.execute(question, (*values, limit)))):
            return found
    return []


def holder():
    """held(id): whether the journal holds such a record, as of the first time that it is asked."""
    from functools import cache

    db = cache(connect)
    return lambda own: db().execute("SELECT 1 FROM records WHERE id = ?", (own,)).fetchone() is not None


def thread(db, name: str) -> list[dict]:
    """All records of a thread in the order of the journal, as they were journaled."""
    return list(_records(db.execute("SELECT line FROM records WHERE thread = ? ORDER BY seq", (str(name),))))


def routed(db, ids: Iterable[str]) -> set[str]:
    """Which of these commands and tasks (ids) have a route."""
    import orjson

    question = f"SELECT DISTINCT r.parent FROM json_each(?) AS j CROSS JOIN records AS r ON r.parent = j.value WHERE r.tag = 'route' AND {OWN}"
    return {row[0] for row in db.execute(question, (orjson.dumps(list(ids)).decode(),))}


def tasks(db, status: str | None = "open") -> list[dict]:
    """The tasks with this status (None: all), with later updates applied, oldest first. A task without status is open."""
    every = list(_records(db.execute("SELECT line FROM records WHERE tag = 'task' AND updates IS NULL ORDER BY seq")))
    return [rec for rec in _updated(db, every) if status is None or rec.get("status", "open") == status]


def needed() -> set[int] | None:
    """The seqs of the open tasks that were not imported, and of what was said of them later: segments with these stay. None where the archive
    can't tell.
    """

    def question(db):
        own = {rec["id"] for rec in tasks(db) if "origin" not in rec}
        found = db.execute("SELECT seq, id, updates FROM records WHERE tag = 'task' OR updates IS NOT NULL")
        return {seq for seq, name, about in found if name in own or about in own}

    try:
        return ask(question)
    except Failure:
        return None


def newest(db, via: str) -> str | None:
    """The thread of the newest of the last 10,000 commands that came in this way and were not imported (text, voice, cron, file), or None."""
    latest = f"SELECT thread, line FROM records WHERE tag = 'command' AND updates IS NULL ORDER BY seq DESC LIMIT {BATCH}"
    found = db.execute(f"SELECT r.thread FROM ({latest}) AS r WHERE json_extract(r.line, '$.via') = ? AND {OWN} LIMIT 1", (via,)).fetchone()
    return found[0] if found else None


def neighbours(db, seq: int, count: int) -> list[int]:
    """The seqs of the record and of up to `count` records before and behind it in its thread, in order."""
    name = db.execute("SELECT thread FROM records WHERE seq = ?", (seq,)).fetchone()
    if not name or name[0] is None or count <= 0:
        return [seq]
    before = db.execute("SELECT seq FROM records WHERE thread = ? AND seq < ? ORDER BY seq DESC LIMIT ?", (name[0], seq, count)).fetchall()
    behind = db.execute("SELECT seq FROM records WHERE thread = ? AND seq > ? ORDER BY seq LIMIT ?", (name[0], seq, count)).fetchall()
    return [row[0] for row in reversed(before)] + [seq] + [row[0] for row in behind]


_reading: dict = {}  # what opens the sealed texts of what is read


def opened_by(opener: Callable) -> None:
    """From now on a record with sealed texts is read as opener(record) gives it. Who shows records sets this before the first is read."""
    _reading["opener"] = opener


def shown(rec: dict) -> dict:
    """A record from the journal itself, opened as those of the archive are."""
    return _loaded(encode(rec).decode()) if _reading else rec


def _loaded(line: str) -> dict:
    import orjson

    rec = orjson.loads(line)
    # Nothing is asked, and nothing imported, for records that were never sealed.
    return _reading["opener"](rec) if _reading and '"[sealed:' in line else rec


def _records(rows: Iterable) -> Iterator[dict]:
    return (_loaded(row[0]) for row in rows)


def at(db, seqs: Iterable[int]) -> list[tuple[int, dict]]:
    """(seq, record) in the order of `seqs`, as they were journaled."""
    import orjson

    seqs = list(seqs)
    question = "SELECT r.seq, r.line FROM json_each(?) AS j CROSS JOIN records AS r ON r.seq = j.value"
    lines = dict(db.execute(question, (orjson.dumps(seqs).decode(),)))
    return [(seq, _loaded(lines[seq])) for seq in seqs if seq in lines]


# -- Updates --------------------------------------------------------------------------------------------------------------------------


def fold(records: Iterable[dict]) -> list[dict]:
    """`records` (in the order of the journal) with each later `updates: ID` applied to the record it names, and left out itself.

    The record keeps its id, time, place and `@chain`; fields and nested blocks that the update has take the place of its own. One whose
    record is not there stays as it is. The fold is as private as the most private of its parts.
    """
    out: dict[int, dict] = {}
    place: dict[str, int] = {}  # id, or id of an update -> where its record stands
    for number, rec in enumerate(records):
        own, target = rec.get("id"), rec.get("updates")
        spot = place.get(target) if type(target) is str and target != own else None
        if spot is None:
            out[number] = rec
            spot = number
        else:
            out[spot] = _applied(out[spot], rec)
        if type(own) is str:
            place.setdefault(own, spot)
    return list(out.values())


def _applied(rec: dict, change: dict) -> dict:
    changed = rec | {key: value for key, value in change.items() if key not in FRAME}
    blocks = [block for block in change.get("@blocks", ()) if block.get("@tag") != "chain"]
    if blocks:
        tags = {block.get("@tag") for block in blocks}
        kept = [block for block in rec.get("@blocks", ()) if block.get("@tag") not in tags]
        changed["@blocks"] = [block for block in kept if block.get("@tag") != "chain"]
        changed["@blocks"] += blocks + [block for block in kept if block.get("@tag") == "chain"]
    first, second = rec.get("privacy"), change.get("privacy")
    if first != second:
        # Absent means what the config says, which may be local: it is never made `cloud`.
        strict = [value for value in (first, second) if value not in (None, "cloud")]
        changed.pop("privacy", None)
        if strict:
            changed["privacy"] = strict[0]
    return changed


def _updated(db, records: list[dict]) -> list[dict]:
    """These records with the archive's updates of them applied, in the same order; updates among them are left out for their records."""
    import orjson

    known = {rec["id"]: rec for rec in records if type(rec.get("id")) is str}
    changes: dict[int, dict] = {}
    ask = list(known)
    # An update of an update counts for the record: follow them until none is new.
    while ask:
        question = "SELECT r.seq, r.line FROM json_each(?) AS j CROSS JOIN records AS r ON r.updates = j.value"
        fresh = {seq: _loaded(line) for seq, line in db.execute(question, (orjson.dumps(ask).decode(),)) if seq not in changes}
        changes |= fresh
        ask = [rec["id"] for rec in fresh.values() if type(rec.get("id")) is str]
    if not changes:
        return records
    later = [changes[seq] for seq in sorted(changes)]
    taken = {id(rec) for rec in later}
    own = {rec.get("id") for rec in later}
    kept = [rec for rec in records if rec.get("id") not in own]
    return [rec for rec in fold([*kept, *later]) if id(rec) not in taken]


def _roots(db, found: list[tuple[int, dict]]) -> list[tuple[int, dict]]:
    """(seq, record) with each update replaced by the record it updates (where that is there), folded, each once, in the order they came."""
    out: dict[str | int, tuple[int, dict]] = {}
    for seq, rec in found:
        climbed: set = set()
        while type(rec.get("updates")) is str and rec["updates"] not in climbed:
            climbed.add(rec["updates"])
            up = db.execute("SELECT seq, line FROM records WHERE id = ? AND seq < ? ORDER BY seq LIMIT 1", (rec["updates"], seq)).fetchone()
            if up is None:
                break
            seq, rec = up[0], next(_records([(up[1],)]))
        key = rec.get("id")
        out.setdefault(key if type(key) is str else seq, (seq, rec))
    folded = {rec.get("id"): rec for rec in _updated(db, [rec for _, rec in out.values()])}
    return [(seq, folded.get(rec.get("id"), rec)) for seq, rec in out.values()]


def folded(db, found: list[tuple[int, dict]]) -> list[tuple[int, dict]]:
    """(seq, record) with later updates applied, in their places; updates among them stay what they are."""
    changed = {rec.get("id"): rec for rec in _updated(db, [rec for _, rec in found if "updates" not in rec])}
    return [(seq, rec if "updates" in rec else changed.get(rec.get("id"), rec)) for seq, rec in found]


# -- Search ---------------------------------------------------------------------------------------------------------------------------


def terms(words: str | Iterable[str]) -> list[str]:
    """The words of a question as FTS5 strings, each quoted, so that none is ever taken as syntax.

    "two words" in double quotes stand beside one another, a trailing * means a beginning. Words such as `the` are left out where others remain.
    """
    text = words if type(words) is str else " ".join(words)
    text = _sent(text)
    found: dict[str, bool] = {}
    for number, part in enumerate(text.split('"')):
        exact = number % 2 == 1 and text.count('"') > number
        for piece in [part] if exact else part.split():
            star = piece.endswith("*") and not exact
            core = _spaced(piece.rstrip("*") if star else piece).replace("\u2019", "'").strip()
            if not exact and core[-2:].lower() == "'s":
                core = core[:-2]
            if any(map(str.isalnum, core)):
                least = sum(map(str.isalnum, core)) > 1
                # `what's` and `the?` are as good as `what` and `the`.
                plain = core.lower().strip(".,;:!?()'").partition("'")[0]
                found.setdefault(f'"{core}"' + ("*" if star and least else ""), exact or plain not in STOP)
    chosen = [term for term, counts in found.items() if counts] or list(found)
    return chosen[:64]


def _sent(words: str) -> str:
    """`words` as SQLite takes them: a NUL would end the question, a lone surrogate (a byte of an argument that is no UTF-8) can't be sent."""
    return words.replace("\0", " ").encode("utf-8", "replace").decode()


def search(
    db,
    words: str | Iterable[str],
    *,
    since=None,
    until=None,
    tags: Iterable[str] = (),
    thread: str | None = None,
    limit: int = 20,
    after: int = 0,
    threads: bool = False,
) -> list[tuple[int, dict]]:
    """(seq, record) of the records that hold all of `words`, the best first; without words the newest, in the order of the journal.

    since, until: RFC 3339 or aware datetimes, until not included. tags, thread: only these. after: only behind this seq. Words that stand
    nowhere as they are count as beginnings. bm25 ranks the newest 10,000 hits; words in more than 10,000 records have no weight.
    threads: only the best hit of each thread; without words the first record of each of the newest threads that have one that fits.
    Records with later updates come folded, once. Raises sqlite3.Error; no words can raise a syntax error.
    """
    start, stop = instant(since) if since is not None else None, instant(until) if until is not None else None
    only = [_sent(tag).lower().removeprefix("@") for tag in tags]
    thread = None if thread is None else _sent(thread)
    asked = terms(words)
    if not asked:
        if (words if type(words) is str else "".join(words)).strip():
            return []
        newest = _newest(db, start, stop, only, thread, limit, after, threads)
        shown = folded if threads else _roots
        return sorted(shown(db, at(db, newest)), key=lambda found: found[0])
    # Folding may make one of several, and many hits be of one thread: take some more, then cut.
    wanted = limit * (50 if threads else 2)
    query = _asked(db, asked, start, stop, only, thread, after)
    ranked = _ranked(db, asked, query, wanted) if query else []
    if query and not ranked and (wider := [term if term.endswith("*") else term + "*" for term in asked if len(term) > 4]):
        asked = wider
        query = _asked(db, asked, start, stop, only, thread, after)
        ranked = _ranked(db, asked, query, wanted) if query else []
    if threads:
        chosen = _one_each(db, ranked, limit)
        if len(chosen) < limit and query and len(ranked) == wanted < RANKED:
            chosen = _one_each(db, _ranked(db, asked, query, RANKED), limit)
        ranked = chosen
    return _roots(db, at(db, ranked))[:limit]


def _where(start, stop, only, thread, after, seq: str) -> tuple[list[str], list]:
    parts: list[str] = []
    values: list = []
    for test, value in ((f"{seq} > ?", after or None), ("r.ts >= ?", start), ("r.ts < ?", stop), ("r.thread = ?", thread)):
        if value is not None:
            parts.append(test)
            values.append(value)
    if only:
        parts.append(f"r.tag IN ({', '.join('?' * len(only))})")
        values += only
    return parts, values


def _newest(db, start, stop, only, thread, limit, after, threads) -> list[int]:
    parts, values = _where(start, stop, only, thread, after, "r.seq")
    where = f" WHERE {' AND '.join(parts)}" if parts else ""
    order = "r.ts DESC, r.seq DESC" if (start or stop) and not thread else "r.seq DESC"
    if not threads:
        return [row[0] for row in db.execute(f"SELECT r.seq FROM records AS r{where} ORDER BY {order} LIMIT ?", (*values, limit))]
    names: dict[str | None, None] = {}
    rows = db.execute(f"SELECT r.thread FROM records AS r{where} ORDER BY {order}", values)
    while len(names) < limit and (row := rows.fetchone()):
        names.setdefault(row[0])
    rows.close()
    names.pop(None, None)
    return [db.execute("SELECT min(seq) FROM records WHERE thread = ?", (name,)).fetchone()[0] for name in names]


def _one_each(db, ranked: list[int], limit: int) -> list[int]:
    """The first of these seqs of each thread, `limit` of them."""
    seen: set = set()
    chosen = []
    for seq in ranked:
        name = db.execute("SELECT thread FROM records WHERE seq = ?", (seq,)).fetchone()[0]
        if name is None or name not in seen:
            seen.add(name)
            chosen.append(seq)
            if len(chosen) >= limit:
                break
    return chosen


def _asked(db, asked, start, stop, only, thread, after) -> tuple[str, list] | None:
    """(the middle of a query for the hits, its values): `FROM words … WHERE …`; None where nothing can be found."""
    match = " ".join(f"text : {term}" for term in asked)
    if only:
        match += " AND tag : (" + " OR ".join(f'"{tag.encode().hex()}"' for tag in only) + ")"
    parts, values = _where(start, stop, (), thread, after, "words.rowid")
    if thread is not None:
        parts.append("words.rowid IN (SELECT seq FROM records WHERE thread = ?)")
        values.append(thread)
    if start or stop:
        # Times mostly rise with seq: a short span is a short range of rows, which spares the hits outside of it.
        times, bounds = _where(start, stop, (), None, 0, "r.seq")
        inner = f"SELECT r.seq FROM records AS r WHERE {' AND '.join(times)} LIMIT 50001"
        count, low, high = db.execute(f"SELECT count(*), min(seq), max(seq) FROM ({inner})", bounds).fetchone()
        if not count:
            return None
        if count <= 50_000:
            parts.append("words.rowid BETWEEN ? AND ?")
            values += [low, high]
    join = " CROSS JOIN records AS r ON r.seq = words.rowid" if any("r." in part for part in parts) else ""
    where = "".join(f" AND {part}" for part in parts)
    return f"FROM words{join} WHERE words MATCH ?{where}", [match, *values]


def _ranked(db, asked, query, limit: int) -> list[int]:
    """The seqs of the best hits, `limit` of them."""
    source, values = query
    newest = f"ORDER BY words.rowid DESC LIMIT {RANKED}"
    # bm25() goes through all records of each word to weigh it, however few hits it is asked for. So only words that are rare are weighed.
    rare = []
    for term in asked:
        if not term.endswith("*"):
            question = f"SELECT count(*) FROM (SELECT 1 FROM words WHERE words MATCH ? LIMIT {RANKED + 1})"
            if db.execute(question, (f"text : {term}",)).fetchone()[0] <= RANKED:
                rare.append(f"text : {term}")
    if not rare:
        # Many common words meet seldom: going back for 10,000 hits could mean going through all. A thousand of late are enough to choose from.
        late = (db.execute("SELECT max(seq) FROM records").fetchone()[0] or 0) - 10 * RANKED
        near = f"{source} AND words.rowid > ?"
        if late > 0 and db.execute(f"SELECT count(*) FROM (SELECT 1 {near} LIMIT {ENOUGH})", (*values, late)).fetchone()[0] == ENOUGH:
            source, values = near, [*values, late]
        # What is left of bm25 is the length: the shorter says it more to the point. A docsize begins with the number of words of the first
        # column, in a form that sorts as bytes.
        hits = f"SELECT words.rowid AS seq {source} {newest}"
        question = f"SELECT h.seq FROM ({hits}) AS h JOIN words_docsize AS d ON d.id = h.seq ORDER BY d.sz, h.seq DESC LIMIT ?"
        return [row[0] for row in db.execute(question, (*values, limit))]
    found = [row[0] for row in db.execute(f"SELECT words.rowid {source} {newest}", values)]
    if not found:
        return []
    question = "SELECT rowid, bm25(words, 1.0, 0.0) FROM words WHERE words MATCH ? AND rowid BETWEEN ? AND ?"
    score = dict(db.execute(question, (" ".join(rare), found[-1], found[0])))
    return sorted(found, key=lambda seq: (score.get(seq, 0), -seq))[:limit]


def scan(
    words: str | Iterable[str], *, since=None, until=None, tags: Iterable[str] = (), thread: str | None = None, limit: int = 20, after: int = 0
) -> list[tuple[int, dict]]:
    """As search(), from the journal itself, for where the archive can't be read: the newest first, not ranked, not folded, each word a beginning.

    Raises Failure where the journal can't be read either.
    """
    from collections import deque

    start, stop = instant(since) if since is not None else None, instant(until) if until is not None else None
    only = {tag.lower().removeprefix("@") for tag in tags}
    asked = [_plain(term.strip('"*')) for term in terms(words)]
    if not asked and (words if type(words) is str else "".join(words)).strip():
        return []
    newest: deque = deque(maxlen=limit)
    for seq, rec in journal.read(paths.journal(), after=after):
        if not _fits(rec, start, stop, only, thread):
            continue
        text = _plain(searchable(rec) or "") if asked else ""
        if all(word in text for word in asked):
            newest.append((seq, rec))
    found = [(seq, shown(rec)) for seq, rec in newest]
    return found[::-1] if asked else found


def _plain(text: str) -> str:
    """`text` as words in lower case with one space before each, without accents: what the index does, nearly."""
    import unicodedata

    bare = "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char)).casefold()
    return " " + " ".join("".join(char if char.isalnum() else " " for char in bare).split())
