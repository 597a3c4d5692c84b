"""Export and import: records of the journal as a file for elsewhere, and a file from elsewhere as records of the journal. See ftai-archive(1).

An export begins with a header and ends with a trailer: `report` records with `subject: "export"`, `act` begin and end, and no `@chain`. What is
read from elsewhere is believed in nothing: first all of it is read and checked, and only then the first record is journaled.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from collections import namedtuple
from itertools import islice

from . import archive, canonical, journal, paths, specs, stream, text
from .errors import CANTCREAT, DATAERR, IOERR, NOINPUT, NOPERM, TEMPFAIL, USAGE, Failure
from .record import LIMIT, Malformed, decode, encode, is_id, make, shown, stamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHUNK = 64 * 1024
MIB = 1024 * 1024
BATCH, READS = 1000, 4  # records, and pieces of a file, that are journaled at a time
# Values, names and lines of one record, counted before it is read: each may take a hundred times the memory of its two bytes.
VALUES = 100_000
VALUE = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[,\[{]')
CANONICAL = b'@ftai v2.0\n\n@document\n  generator: "serenamaster"\n@end\n'
SAID = 10  # messages about single records
ORIGIN = re.compile(r"(?:[0-9a-fA-F-]{36} [1-9][0-9]{0,11}|[0-9a-f]{64})\Z")  # the journal and the seq there, or the sha256 of a file
CHANGED = re.compile(r"updated(_[0-9]+)?\Z")  # what an `updates` that is not believed is called
# What texts may hold that are not as they were said.
MARKS = {
    "redacted": (b"[redacted:", "were redacted"),
    "withheld": (b"[withheld:", "were withheld from the journal"),
    "unopened": (b"[sealed:", "are encrypted and could not be opened"),
}

# What is to be exported: all that is given must fit, of several threads or tags one. since, until: as archive.instant() gives them.
Asked = namedtuple("Asked", "threads since until tags", defaults=((), None, None, ()))


def _edge(rec: dict) -> str:
    """ "begin" for the header of an export, "end" for its trailer, else ""; one that was journaled is a record like any other."""
    own = rec.get("@tag") == "report" and rec.get("subject") == "export" and "@blocks" not in rec
    return str(rec.get("act")) if own and rec.get("act") in ("begin", "end") else ""


# ---- export ----


def export(
    asked: Asked,
    form: str,
    to: str | None,
    *,
    stage: str,
    consent: Callable,
    opened: Callable,
    dry_run: bool = False,
    told: Callable | None = None,
    warn: Callable | None = None,
) -> Iterator[dict]:
    """Writes what `asked` says as a file (None: to standard output), and yields the records that tell of it: the intent before, the report behind.

    form: sealed, ndjson or ftai. consent(record) -> "" or why it may not be exported; with None, whether anything may. opened(record) -> the
    record with its encrypted texts open, as far as they can be. told(done, all). Raises Failure 2, 73, 74, 75, 77, 78; no file is left then.
    """
    _sound(asked, form, to)
    folder, begun = paths.journal(), time.monotonic()
    upto, total = journal.position(folder), 0
    why = consent(None)
    for page in _selected(asked, upto, warn):
        for rec, reason in _refused(page, consent):
            raise Failure(f"cannot export the record '{rec.get('id')}': {why or reason}", NOPERM, "ftai-keys consent grant export")
        total += len(page)
        why = consent(None)
    if why:
        raise Failure(f"cannot export: {why}", NOPERM, "ftai-keys consent grant export")
    about = {"format": form, "to": to and shown(os.path.abspath(_place(form, to))), **_said(asked)}
    if dry_run:
        yield make("report", stage, subject="archive", act="export", would=["export"], records=total, **about)
        return
    intent = make("audit", stage, act="export", subject="journal", who=journal.user(), outcome="intended", records=total, **about)
    _journal(intent, stage, warn)
    yield intent
    archive.opened_by(opened)
    try:
        done = _exported(asked, form, to, upto, total, consent, stage, told, warn)
    except BaseException as bad:
        because = bad.message if isinstance(bad, Failure) else f"ended by {type(bad).__name__}"
        try:
            _journal(make("report", stage, parent=intent, subject="archive", act="export", outcome="failed", because=because), stage, warn)
        except Failure as worse:
            if warn:
                warn(worse.message)  # what came first is what is told, and is the status
        raise bad from None
    if not done["records"] and warn:
        warn("no record is what was asked for")
    for kind, (_, words) in MARKS.items():
        if done.get(kind) and warn:
            warn(f"{done[kind]} records hold texts that {words}, and are exported as they are stored")
    report = make("report", stage, parent=intent, subject="archive", act="export", outcome="done", **about, **done, ms=_since(begun))
    _journal(report, stage, warn)
    archive.catch_up()
    yield report


def _refused(page: list[dict], consent: Callable) -> Iterator[tuple[dict, str]]:
    """The records that may not be exported, with the reason. To ask takes a look at the disk, so where the tag alone is enough the thread is left out."""
    known: dict = {}
    for rec in page:
        tag, key = rec.get("@tag"), (rec.get("@tag"), str(rec.get("thread")))
        if tag not in known:
            known[tag] = consent({"@tag": tag})
        if known[tag] and key not in known:
            known[key] = consent(rec)
        if known[tag] and known[key]:
            yield rec, known[key]


def _sound(asked: Asked, form: str, to: str | None) -> None:
    """Raises Failure for what can't be done, before anything is looked at."""
    if not any(asked):
        raise Failure("nothing is said of what is to be exported", USAGE, "ftai-archive export --since 1970-01-01 --to FILE takes all")
    if "" in (*asked.threads, *asked.tags) or to == "":
        # An empty shell variable: without it, the rest would be more than was meant.
        raise Failure("an option is given as an empty text", USAGE)
    if form == "sealed" and to is None:
        raise Failure("a sealed export goes into a file", USAGE, "--to FILE, or --format ndjson")
    if to is not None:
        for place in [_place(form, to, suffix) for suffix in _suffixes()] if form == "sealed" else [to]:
            if os.path.lexists(place):
                raise Failure(f"cannot write '{place}': it exists", CANTCREAT, "take another name, or remove it")


def _suffixes() -> tuple:
    from . import sealed

    return tuple(sealed.SUFFIX.values())


def _place(form: str, to: str, suffix: str | None = None) -> str:
    """The name of the file that `to` means: a sealed one ends with the suffix of its method."""
    if form != "sealed":
        return to
    from . import sealed

    for known in _suffixes():
        to = to.removesuffix(known)
    return to + (sealed.SUFFIX[specs.setting("seal", "aes256")] if suffix is None else suffix)


def _said(asked: Asked) -> dict:
    return {"threads": list(asked.threads) or None, "since": asked.since, "until": asked.until, "tags": list(asked.tags) or None}


def _since(begun: float) -> int:
    return int((time.monotonic() - begun) * 1000)


def _journal(rec: dict, stage: str, warn) -> None:
    for kind, _, reason in journal.append(paths.journal(), [rec], stage=stage, warn=warn):
        if kind != "written":
            raise Failure(f"cannot write the journal: {reason or kind}", IOERR)


def _selected(asked: Asked, upto: int, warn) -> Iterator[list[dict]]:
    """Lists of the records that are asked for, up to a seq. Tombstones and the journal's own heads hold nothing for elsewhere."""
    threads = set(asked.threads)
    only = asked.threads[0] if len(threads) == 1 else None
    for page in archive.follow(since=asked.since, until=asked.until, tags=asked.tags, thread=only, warn=warn):
        fits = [rec for seq, rec in page if seq <= upto and (not threads or str(rec.get("thread")) in threads)]
        if fits := [rec for rec in fits if rec.get("@tag") != "tombstone" and not canonical.is_own(rec)]:
            yield fits


def _exported(asked: Asked, form: str, to: str | None, upto: int, total: int, consent, stage: str, told, warn) -> dict:
    """Writes the export; returns what the report says of it."""
    with _Out(form, to) as out:
        writer = text.Writer() if form == "ftai" else None

        def put(rec: dict) -> None:
            try:
                out.write(writer.write(rec).encode() if writer else encode(rec))
            except text.Unwritable as bad:
                raise Failure(f"cannot write the record '{rec.get('id')}' as text: {bad}", DATAERR, "--format ndjson") from None

        head = make("report", stage, subject="export", act="begin", journal=archive._identity(paths.journal()), **_said(asked))
        put(head)
        count, marks = 0, dict.fromkeys(MARKS, 0)
        for page in _selected(asked, upto, warn):
            # What is withdrawn counts at once; that it holds for each of these was asked before.
            if why := consent(None):
                raise Failure(f"cannot export: {why}", NOPERM, "ftai-keys consent grant export")
            for rec in page:
                put(rec)
                line = encode(rec)
                for name, (mark, _) in MARKS.items():
                    marks[name] += mark in line
            count += len(page)
            out.flush()
            if told:
                told(count, total)
        if writer:
            out.write(b"\n")  # which Writer puts before each record
        tail = make("report", stage, parent=head, subject="export", act="end", records=count, sha256=out.digest.hexdigest())
        out.write(writer.write(tail).encode()[1:] if writer else encode(tail))
        made = out.keep({"name": shown(os.path.basename(to or "")), "journal": head.get("journal"), "ts": head["ts"]})
    return {"records": count, **made, **{name: number for name, number in marks.items() if number}}


class _Out:
    """Where an export goes: standard output, a file that is there when all of it is, or a file without a name that is then sealed."""

    def __init__(self, form: str, to: str | None):
        self.form, self.to, self.fd, self.temporary = form, to, -1, ""
        self.digest, self.bytes, self.part = hashlib.sha256(), 0, bytearray()

    def __enter__(self):
        if self.form == "sealed":
            self.fd, _ = _scratch()
        elif self.to is not None:
            try:
                self.fd, self.temporary = stream.draft(self.to)
            except OSError as bad:
                raise self.failure(bad) from None
        return self

    def __exit__(self, *_):
        if self.fd >= 0:
            os.close(self.fd)
        if self.temporary:
            stream.discard(self.temporary)

    def failure(self, bad: OSError) -> Failure:
        return Failure(f"cannot write '{self.to}': {bad.strerror}", IOERR if bad.errno in stream.FULL else CANTCREAT)

    def write(self, data: bytes) -> None:
        self.digest.update(data)
        self.bytes += len(data)
        if self.to is None:
            stream.write(data)
            return
        self.part += data
        if len(self.part) >= READS * CHUNK:
            self.flush()

    def flush(self) -> None:
        if self.to is None:
            return stream.flush()
        try:
            _whole(self.fd, self.part)
        except OSError as bad:
            raise self.failure(bad) from None
        self.part.clear()
        return None

    def keep(self, about: dict) -> dict:
        """Puts the file in its place; returns what the report says of it."""
        self.flush()
        made = {"bytes": self.bytes, "sha256": self.digest.hexdigest()}
        if self.form == "sealed":
            from . import sealed

            done = sealed.write(self.fd, _place("sealed", str(self.to), ""), about)
            return made | {key: done[key] for key in ("method", "sealed_bytes", "sealed_sha256")}
        if self.to is not None:
            try:
                os.fsync(self.fd)
                if os.path.lexists(self.to):
                    raise Failure(f"cannot write '{self.to}': it exists", CANTCREAT)
                os.rename(self.temporary, self.to)
                self.temporary = ""
                fd = os.open(os.path.dirname(self.to) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
            except OSError as bad:
                raise self.failure(bad) from None
        return made


def _whole(fd: int, data) -> None:
    with memoryview(data) as view:
        at = 0
        while at < len(view):
            at += os.write(fd, view[at:])


def _scratch(named: bool = False) -> tuple[int, str]:
    """A file of ours for what has no place yet: (descriptor, name), the name "" unless it is to have one."""
    import tempfile

    try:
        fd, name = tempfile.mkstemp(prefix=".transfer-", dir=paths.state())
        if not named:
            os.unlink(name)
    except OSError as bad:
        raise Failure(f"cannot write in '{paths.state()}': {bad.strerror}", CANTCREAT) from None
    return fd, name if named else ""


# ---- import ----

# A FILE that was checked. header: of an export, else None. records: without header, trailer, and the heads of a document.
Checked = namedtuple("Checked", "name fd form size sha256 header records")


def take(names, *, stage: str, fail: Callable, dry_run: bool = False, told: Callable | None = None, warn: Callable | None = None) -> Iterator[dict]:
    """Journals the records of FILEs (`-`: standard input), and yields the records that tell of it: of each FILE the intent and the report.

    Nothing is journaled before all of the FILEs were found good. fail(Failure): called for records that were not taken. told(bytes done, all).
    Raises Failure: 2, 65 for what is not as it should be, or too much, 66, 73, 74, 75, 77 for a sealed one that can't be opened.
    """
    if not names:
        raise Failure("no FILE is given", USAGE, "ftai-archive import FILE, or - for standard input")
    records, left = specs.setting("import_records", 1_000_000), specs.setting("import_mb", 1024) * MIB
    most = left
    found: list[Checked] = []
    try:
        for name in names:
            fd = _open(name, left, most)
            try:
                one = _check(name, fd, records, told)
            except BaseException:
                os.close(fd)
                raise
            found.append(one)
            left -= one.size
            records -= one.records
        for one in found:
            if dry_run:
                yield make("report", stage, subject="archive", act="import", would=["import"], **_told(one))
            else:
                yield from _take(one, stage, fail, told, warn)
    finally:
        for one in found:
            os.close(one.fd)


def _told(one: Checked) -> dict:
    path = "standard input" if one.name == "-" else shown(os.path.abspath(one.name))
    return {"path": path, "bytes": one.size, "sha256": one.sha256, "records": one.records, "journal": one.header and one.header["journal"]}


def _open(name: str, left: int, most: int) -> int:
    """A descriptor of the plain bytes of a FILE that is no link and no device. Raises Failure."""
    from . import sealed

    if name == "-":
        return _spooled(left, most)
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as bad:
        if os.path.islink(name):
            raise Failure(f"cannot read '{stream.shown(name)}': it is a link", DATAERR, f"ftai-archive import - <'{name}'") from None
        raise Failure(f"cannot read '{name}': {bad.strerror}", NOINPUT) from None
    try:
        seen = os.fstat(fd)
        if not stat.S_ISREG(seen.st_mode):
            raise Failure(f"cannot read '{name}': {'it is a folder' if stat.S_ISDIR(seen.st_mode) else 'it is no regular file'}", DATAERR)
        if _is_sealed(os.pread(fd, 32, 0)):
            _, plain = sealed.open_(name, folder=paths.state(), most=left)
            os.close(fd)
            return plain
        if seen.st_size > left:
            raise _too_much(name, most)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _is_sealed(head: bytes) -> bool:
    from . import sealed

    return head.startswith((sealed.MAGIC, sealed.AGE))


def _too_much(name: str, most: int) -> Failure:
    return Failure(f"'{stream.shown(name)}': more than {most // MIB} MiB", DATAERR, "FTAI_IMPORT_MB=… takes more")


def _spooled(left: int, most: int) -> int:
    """Standard input, in a file without a name."""
    from . import sealed

    if os.isatty(0):
        raise Failure("nothing to read", USAGE, "ftai-archive import FILE")
    source = stream.chunks("-")
    head = b""
    while len(head) < 32 and (data := next(source, b"")):
        head += data
    fd, name = _scratch(named=_is_sealed(head))
    try:
        size = 0
        while head:
            size += len(head)
            if size > left:
                raise _too_much("-", most)
            _whole(fd, head)
            head = next(source, b"")
        if not name:
            return fd
        try:
            plain = sealed.open_(name, folder=paths.state(), most=left)[1]
        except Failure as bad:
            raise Failure(bad.message.replace(f"'{name}'", "standard input"), bad.code, bad.hint) from None
    except BaseException as bad:
        os.close(fd)
        if isinstance(bad, OSError):
            raise Failure(f"cannot write in '{paths.state()}': {bad.strerror}", IOERR) from None
        raise
    finally:
        if name:
            os.unlink(name)
    os.close(fd)
    return plain


def _bad(name: str, line: int, column: int, reason: str) -> Failure:
    place = f"{stream.shown(name)}:{line}" + (f":{column}" if column else "")
    return Failure(f"{place}: {reason if len(reason) <= 200 else reason[:199] + '…'}; nothing was imported", DATAERR)


def _check(name: str, fd: int, most: int, told) -> Checked:
    """Reads a FILE from its beginning to its end. Raises Failure 65 for anything that is not as it should be."""
    size = os.fstat(fd).st_size
    form = text.sniff(os.pread(fd, CHUNK, 0) + b"\n")
    if form not in ("line", "text"):
        hint = "ftai-listen - takes lines of plain text, ftai-parse any document"
        raise Failure(f"'{stream.shown(name)}' holds no records: its first line begins neither with '{{' nor with '@ftai'", DATAERR, hint)
    cut = _cut(fd, size, form)
    whole, before = hashlib.sha256(), hashlib.sha256()

    def seen(data: bytes, at: int) -> None:
        whole.update(data)
        if at < cut:
            before.update(data[: cut - at])
        if told:
            told(at + len(data), size)

    count, heads, header, last = 0, 0, None, None
    for items in _items(name, fd, size, form, seen):
        for rec, line in items:
            edge = _edge(rec)
            if last is not None:
                raise _bad(name, line, 0, "something stands behind the trailer")
            if edge == "end" and header is None:
                raise _bad(name, line, 0, "the trailer of an export without its header")
            if edge == "begin":
                if count or header:
                    raise _bad(name, line, 0, "the header of an export within a file")
                if not is_id(rec.get("journal")) or not is_id(rec.get("id")):
                    raise _bad(name, line, 0, "the header of an export without the id of a journal")
                header = rec
            elif edge == "end":
                last = rec
            else:
                count += 1
                heads += rec.get("@tag") in canonical.FOREIGN
        if count > most:
            limit = specs.setting("import_records", 1_000_000)
            raise Failure(f"'{stream.shown(name)}': more than {limit} records; nothing was imported", DATAERR, "FTAI_IMPORT_RECORDS=… takes more")
    if header is None and count == (heads if form == "text" else 0):
        raise Failure(f"'{stream.shown(name)}' holds no records", DATAERR)
    ends = (b"@end\n", b"\n---\n") if os.pread(fd, len(CANONICAL), 0) == CANONICAL else b"\n"
    if form == "text" and not os.pread(fd, 5, max(size - 5, 0)).endswith(ends):
        raise Failure(f"'{stream.shown(name)}' is cut off; nothing was imported", DATAERR)
    if header is not None:
        if last is None or _tail(fd, size, cut, form) != last:
            raise Failure(f"'{stream.shown(name)}' is cut off: it does not end with the trailer of an export; nothing was imported", DATAERR)
        if (last.get("parent"), last.get("records"), last.get("sha256")) != (header["id"], count, before.hexdigest()):
            raise Failure(f"'{stream.shown(name)}' is damaged: it is not what its trailer says; nothing was imported", DATAERR)
    return Checked(name, fd, form, size, whole.hexdigest(), header, count)


def _cut(fd: int, size: int, form: str) -> int:
    """Where the last record of a file begins, if that is the trailer of an export."""
    start = max(size - CHUNK, 0)
    data = os.pread(fd, CHUNK, start)
    return start + 1 + (data.rfind(b"\n@report\n") if form == "text" else data.rfind(b"\n", 0, len(data) - 1))


def _tail(fd: int, size: int, cut: int, form: str) -> dict | None:
    data = os.pread(fd, size - cut, cut)
    try:
        if form == "line":
            return decode(data) if data.endswith(b"}\n") else None
        return canonical.parse(data.removesuffix(b"@end\n")) if data.endswith(b"\n@end\n") else None
    except ValueError:
        return None


def _items(name: str, fd: int, size: int, form: str, seen) -> Iterator[list[tuple[dict, int]]]:
    """Lists of (record, its line, 0 where that is not known) of a FILE, without the heads that a writer puts before them. Raises Failure 65."""

    def chunks():
        at = 0
        while at < size and (data := os.pread(fd, min(CHUNK, size - at), at)):
            seen(data, at)
            at += len(data)
            yield data

    if form == "line":
        for lines in stream.numbered(chunks()):
            out = []
            for number, line, long in lines:
                if long > LIMIT:
                    raise _bad(name, number, 0, f"a record of {long} bytes, expected at most {LIMIT}")
                if long > VALUES and next(islice(VALUE.finditer(line), VALUES, None), None):
                    raise _bad(name, number, 0, f"a record of more than {VALUES} values")
                try:
                    rec = decode(line)
                except Malformed as bad:
                    raise _bad(name, number, bad.column, bad.reason) from None
                if not canonical.is_own(rec):
                    out.append((rec, number))
            yield out
        return
    reader, count = text.Reader(limit=LIMIT), 0
    for data in chunks():
        here = data.count(b"\n") + data.count(b",") + data.count(b"[")
        items = reader.feed(data)
        count = here + (0 if items else count)
        if count > VALUES:
            raise _bad(name, reader.number, 0, f"a record of more than {VALUES} lines and commas")
        yield _plain(name, items)
    yield _plain(name, reader.close())


def _plain(name: str, items: list) -> list[tuple[dict, int]]:
    out = []
    for item in items:
        if type(item) is dict:
            if not canonical.is_own(item):
                out.append((item, 0))
        elif item.refused or item.level == "error":
            raise _bad(name, item.line, item.column, item.message)
    return out


def _take(one: Checked, stage: str, fail, told, warn) -> Iterator[dict]:
    begun = time.monotonic()
    intent = make("audit", stage, act="import", subject="journal", who=journal.user(), outcome="intended", **_told(one))
    _journal(intent, stage, warn)
    yield intent
    taking = _Taking(one, stage, fail, warn)
    bad = None
    try:
        taking.run(told)
    except Failure as failure:
        bad = failure
    said: dict = {**taking.counts, "outcome": "incomplete" if bad else "done", "because": bad and bad.message, "ms": _since(begun)}
    report = make("report", stage, parent=intent, subject="archive", act="import", **_told(one), **said)
    try:
        _journal(report, stage, warn)
        archive.catch_up()
    except Failure:
        if bad is None:
            raise
    yield report
    if bad:
        raise bad


class _Taking:
    """The records of a FILE on their way into the journal. counts: what became of them."""

    def __init__(self, one: Checked, stage: str, fail, warn):
        self.one, self.stage, self.fail, self.warn = one, stage, fail, warn
        self.folder = paths.journal()
        self.own = archive._identity(self.folder)
        self.counts = dict.fromkeys(("written", "repeats", "conflicts", "refused", "purged", "left", "updated"), 0)
        self.said = 0

    def run(self, told) -> None:
        digest, one = hashlib.sha256(), self.one

        def seen(data: bytes, at: int) -> None:
            digest.update(data)
            if told:
                told(at + len(data), one.size)

        number, batch, reads = 0, [], 0
        for items in _items(one.name, one.fd, one.size, one.form, seen):
            for rec, _ in items:
                if not _edge(rec):
                    number += 1
                    batch.append(self.named(rec, number))
            reads += 1
            if len(batch) >= BATCH or reads >= READS:
                self.put(batch)
                batch, reads = [], 0
        self.put(batch)
        if digest.hexdigest() != one.sha256:
            raise Failure(f"'{stream.shown(one.name)}' was changed while it was read", DATAERR)
        if self.counts["left"] and self.warn:
            self.warn(f"{self.counts['left']} records prove what became of another journal, and nothing here: they were left out")
        if self.counts["updated"] and self.warn:
            self.warn(f"{self.counts['updated']} records say that they change records that came from nowhere else: they do not, and say 'updated' now")
        if self.counts["purged"] and self.warn:
            self.warn(f"{self.counts['purged']} records were purged from this journal, and do not come back")

    def named(self, rec: dict, number: int) -> dict:
        """The record with an id of its own, which is the same each time the file is read; what can't have one as the text that it is."""
        if rec.get("@tag") in (None, "ftai", "intent"):
            made = canonical.stored(rec)
            rec = {key: made[key] for key in ("@tag", "part_of", "body")}
        if not is_id(rec.get("id")):
            words = hashlib.sha256(f"{self.one.sha256} {number}".encode()).hexdigest()
            own = f"{words[:8]}-{words[8:12]}-8{words[13:16]}-a{words[17:20]}-{words[20:32]}"
            rest = {("ref" if key == "id" else key): value for key, value in rec.items() if key not in ("@tag", "ref" if "id" in rec else "")}
            rec = {"@tag": rec["@tag"], "id": own} | rest
        if rec["@tag"] in canonical.FOREIGN:
            # Now, so that what is added later stands beside its text, and not in it.
            rec = {key: value for key, value in canonical.stored(rec).items() if key in rec or key in ("part_of", "body")}
        return rec

    def put(self, batch: list[dict]) -> None:
        if not batch:
            return
        # Of what is behind the archive only a part is looked through, and nothing is to be doubled.
        if reason := archive.catch_up(limit=None, wait=10):
            raise Failure(f"cannot tell which records the journal holds: {reason}", TEMPFAIL, "again when no other import runs; else ftai-archive rebuild")
        known = archive.lookup({own for rec in batch for own in (rec["id"], rec.get("updates")) if type(own) is str})
        if known is None:
            raise Failure("cannot tell which records the journal holds", TEMPFAIL, "ftai-archive rebuild")
        gone = self.gone([rec for rec in batch if rec["id"] not in known[1]])
        self.counts["purged"] += len(gone)
        batch = [rec for rec in batch if rec["id"] not in gone]
        came = [rec for rec in batch if rec["id"] in known[1] or not _proves(rec)]
        self.counts["left"] += len(batch) - len(came)
        kept = self.placed(came, known[1])
        given = [stamp(rec) for rec in kept]
        bare = {n: rec for n, rec in enumerate(kept) if given[n] is not rec}
        errors, again = [], []
        outcomes = journal.append(self.folder, given, stage=self.stage, known=known, warn=self.warn, bare=bare)
        for was, rec, (kind, _, reason) in zip(came, kept, outcomes, strict=True):
            if kind == "conflict" and rec["id"] not in known[1]:
                again.append(was)  # it was journaled since, perhaps the same from another file
                continue
            self.counts["updated"] += kind == "written" and "updates" in was and "updates" not in rec
            name = {"written": "written", "repeat": "repeats", "conflict": "conflicts", "refused": "refused"}.get(kind, "left")
            self.counts[name] += 1
            if reason:
                class_ = "conflict" if kind == "conflict" else "input"
                errors.append(make("error", self.stage, parent=rec, class_=class_, message=reason, about=rec["id"], recovery="none"))
                self.tell(reason)
        if errors:
            journal.append(self.folder, errors, stage=self.stage, warn=self.warn)
        self.put(again)

    def gone(self, batch: list[dict]) -> set[str]:
        """The ids of those that stood in this journal, as they say, and were purged: they do not come back."""
        homes = {rec["id"]: seq for rec in batch if (seq := self.home(rec))}
        if not homes:
            return set()
        db = archive.connect()
        stones = {seq for seq, rec in archive.at(db, homes.values()) if rec.get("@tag") == "tombstone"}
        db.close()
        return {own for own, seq in homes.items() if seq in stones}

    def home(self, rec: dict) -> int:
        """The seq that the record has in this journal, as it says; 0 where it says none."""
        origin, header = rec.get("origin"), self.one.header
        if header and header["journal"] == self.own:
            return _seq(rec)
        return int(origin.split()[1]) if type(origin) is str and ORIGIN.match(origin) and origin.startswith(f"{self.own} ") else 0

    def tell(self, reason: str) -> None:
        self.said += 1
        if self.said <= SAID:
            self.fail(Failure(f"cannot import a record: {reason}"))

    def placed(self, came: list[dict], held: dict) -> list[dict]:
        """The records with the place that they come from, as `origin`, by which all can tell them from the owner's own; and with `updates` only
        where that is of a record which came from elsewhere too. Of what the journal holds both are as there. held: {id: (seq, content)}.
        """
        made: list[dict] = []
        foreign: set[str] = set()
        for rec in came:
            if rec["id"] in held:
                made.append(_as(rec, canonical.parse(held[rec["id"]][1])))
                continue
            if "updates" in rec and not self.is_foreign(rec["updates"], held, foreign):
                rec = _renamed(rec, "updates", _free(rec))
            made.append(rec if "origin" in rec else _with(rec, self.origin(rec)))
            foreign.add(rec["id"])
        return made

    def is_foreign(self, own, held: dict, foreign: set) -> bool:
        """True for the id of a record that came from elsewhere, in this batch or before."""
        if type(own) is not str or own not in held:
            return type(own) is str and own in foreign
        return "origin" in canonical.parse(held[own][1])

    def origin(self, rec: dict) -> str:
        """Where a record comes from that says nothing of it."""
        header, seq = self.one.header, _seq(rec)
        return f"{header['journal']} {seq}" if header and seq else self.one.sha256


def _as(rec: dict, held: dict) -> dict:
    """A record with `origin`, and the name of `updates`, as the journal holds them."""
    if "updates" in rec and "updates" not in held:
        rec = _renamed(rec, "updates", _free(rec))
    elif "updates" in held and "updates" not in rec:
        rec = _renamed(rec, next((name for name in rec if CHANGED.match(name) and name not in held), ""), "updates")
    origin = rec.get("origin")
    if "origin" in rec and not (type(origin) is str and ORIGIN.match(origin)):
        return rec  # of somebody else's meaning
    return _with(rec, held.get("origin"))


def _with(rec: dict, origin) -> dict:
    if origin == rec.get("origin"):
        return rec
    made = {key: value for key, value in rec.items() if key not in ("origin", "@text", "@blocks")}
    if origin is not None:
        made["origin"] = origin
    return made | {key: rec[key] for key in ("@text", "@blocks") if key in rec}


def _renamed(rec: dict, name: str, to: str) -> dict:
    return {(to if key == name else key): value for key, value in rec.items()}


def _free(rec: dict) -> str:
    """What `updates` of a record is called where it is not believed."""
    return next(name for name in ("updated", *(f"updated_{n}" for n in range(1, len(rec) + 1))) if name not in rec)


def _seq(rec: dict) -> int:
    """The seq of a record that came out of a journal; 0 where it says none."""
    seq = next((block.get("seq") for block in rec.get("@blocks", ()) if block.get("@tag") == "chain"), 0)
    return seq if type(seq) is int and 0 < seq < 10**12 else 0


def _proves(rec: dict) -> bool:
    """True for what is believed of a journal by who verifies it."""
    tag = rec.get("@tag")
    return tag in ("checkpoint", "tombstone") or (tag in ("audit", "report") and rec.get("act") == "purge")
