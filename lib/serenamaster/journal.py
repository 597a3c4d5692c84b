"""The journal: segments of records that are chained by hashes, only ever appended to, as ftai(5), JOURNAL, describes them.

First the shape of a segment and of the chain, then reading, then writing, then verifying.
"""

import errno
import fcntl
import os
import re
import sys
import time
from collections import namedtuple

import orjson

from . import record, stream, text
from .errors import CANTCREAT, CONFIG, IOERR, NOPERM, SOME, TEMPFAIL, USAGE, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .proofs import Checkpoint

LIVE = "current.ftai"
LEDGER = "ledger"  # what sealed segments hold: ftai(5), Closed segments
NOTE = "checkpoint"  # the latest signed checkpoint
SEALED = (".zst.sealed", ".zst.age")  # how the name of a sealed segment goes on behind that of the plain one
WAIT = 10.0  # seconds that a writer or reader waits for the lock
CHUNK = 1024 * 1024
WINDOW = 64 * 1024
NEAR = 8 * 1024  # where the search for the last record begins
GAP = 20_000  # records behind the archive whose ids are looked up in the journal itself

# ---- the shape of a segment ----

END = b"\n@end\n"
MARK = b"\n  @chain\n"
CHAIN = re.compile(rb'    seq: ([1-9][0-9]{0,17})\n    (?:salt: "([0-9a-f]{32})"|digest: "([0-9a-f]{64})")\n    hash: "([0-9a-f]{64})"\n  @end')
HEX = frozenset("0123456789abcdef")

Head = namedtuple("Head", "journal number first prev tags start")  # start: the offset behind it


def _sha256():
    # hashlib itself loads every other algorithm too, which costs a fifth of a start of Python.
    try:
        from _hashlib import openssl_sha256
    except ImportError:
        from hashlib import sha256 as openssl_sha256
    return openssl_sha256


def root(journal: str) -> str:
    """The hash before seq 1."""
    sha256 = _sha256()
    return sha256(f"ftai-journal/1 {journal}\n".encode()).hexdigest()


def heading(journal: str, number: int, first: int, prev: str, tags: list[str]) -> bytes:
    """The head of a segment."""
    names = ", ".join(f'"@{tag}"' for tag in tags)
    return (
        f'@ftai v2.0\n\n@document\n  journal: "{journal}"\n  segment: {number}\n  first: {first}\n  prev: "{prev}"\n  records: 1\n@end\n\n'
        f'@schema\n  name: "serenamaster"\n  required_tags: ["@document"]\n  optional_tags: [{names}]\n@end\n'
    ).encode()


def head(data: bytes) -> Head | None:
    """What the head of a segment says, or None where `data` begins with none."""
    said = [line.partition(b": ")[2] for line in data.split(b"\n", 14)]
    try:
        journal, prev, tags = (orjson.loads(said[n]) for n in (3, 6, 13))
        number, first = int(said[4]), int(said[5])
        made = heading(journal, number, first, prev, [tag[1:] for tag in tags])
    except (ValueError, IndexError, TypeError):
        return None
    # Written anew it must be the same bytes: that leaves nothing in a head that was not looked at.
    good = data.startswith(made) and record.is_id(journal) and number > 0 < first and len(prev) == 64 and HEX.issuperset(prev)
    return Head(journal, number, first, prev, [tag[1:] for tag in tags], len(made)) if good else None


def _pieces(fd: int, at: int, end: int):
    """Yields (offset, bytes) of what stands before each `@end` line of a file from `at` (behind a record) to `end`."""
    rest = b""
    position = at
    while position < end:
        # Reading as much again as is in hand keeps a file without a single `@end` from being copied over and over.
        data = os.pread(fd, min(max(CHUNK, len(rest)), end - position), position)
        if not data:
            return
        position += len(data)
        *pieces, rest = (rest + data).split(END)
        for piece in pieces:
            yield at, piece
            at += len(piece) + len(END)


def walk(fd: int, at: int, end: int, seq: int, prev: str):
    """Yields (offset, piece, cut, seq, hash, wrong) for each record of a segment from offset `at`, where `seq` and `prev` stand before it.

    piece: its bytes with the blank line before and without the `@end` line behind; piece[1:cut] is its content; hash: as stored.
    wrong: "" where it is as ftai(5) says, else the reason; then seq is what was expected there, and cut and hash may be None.
    """
    sha256 = _sha256()
    # After a wrong record: what else may stand before the next one, so that one bad record is one finding. A hash that is None fits all.
    others: list[tuple] = []
    for offset, piece in _pieces(fd, at, end):
        cut = piece.find(MARK) + 1
        found = CHAIN.fullmatch(piece, cut + 9) if cut else None
        if found is None or not piece.startswith(b"\n@"):
            yield offset, piece, None, seq + 1, None, "it does not end with a @chain block as expected" if found is None else "no blank line before it"
            others = [(seq, prev), (seq + 1, None)]
            seq += 1
            continue
        number, salt, stored = int(found[1]), found[2], found[4].decode()
        digest = sha256(salt + piece[1:cut]).hexdigest() if salt else found[3].decode()
        computed = sha256(f"ftai-journal/1 {number} {prev} {digest}\n".encode()).hexdigest()
        good = number == seq + 1 and computed == stored
        for seen, before in others:
            good = good or (number == seen + 1 and (before is None or sha256(f"ftai-journal/1 {number} {before} {digest}\n".encode()).hexdigest() == stored))
        if good and (salt or piece[1:cut] == b"@tombstone\n"):
            seq, prev = number, stored
            others = []
            yield offset, piece, cut, seq, stored, ""
            continue
        if number != seq + 1:
            wrong = f"expected seq {seq + 1}, found {number}"
        else:
            wrong = "its hash does not fit its content and the record before" if not good else "it has a digest and is no tombstone"
        yield offset, piece, cut, seq + 1, stored, wrong
        others = [(seq, prev), (seq + 1, stored), (seq + 1, computed)]
        if number > seq:
            seq, prev = number, stored


def _boundaries(fd: int, top: Head, size: int):
    """Yields (offset, seq, hash) at ends of records, from one near the end of a segment back to its head."""
    window = NEAR
    while size - window > top.start:
        data = os.pread(fd, min(window, WINDOW), size - window)
        mark = data.find(MARK)
        found = CHAIN.match(data, mark + len(MARK))
        if mark >= 0 and found and data.startswith(END, found.end()):
            yield size - window + found.end() + len(END), int(found[1]), found[4].decode()
        window *= 2
    yield top.start, top.first - 1, top.prev


def _tail(fd: int, top: Head, size: int, until: int | None = None):
    """(seq, hash, offset behind it, what follows) of the last good record of a segment, not reading all of it.

    What follows: "" nothing, "torn" less than a record, "wrong" a record that is not right. until: the last seq that counts.
    """
    for at, seq, prev in _boundaries(fd, top, size):
        if until is None or seq <= until:
            found = _last(fd, at, size, seq, prev, until)
            # A record end that was found by searching is believed only if a record behind it goes on from it.
            if found[2] > at:
                return found
    return _last(fd, top.start, size, top.first - 1, top.prev, until)


def _last(fd: int, at: int, size: int, seq: int, prev: str, until: int | None, each=None):
    """As _tail(), reading all from offset `at`, where `seq` and `prev` stand before; each(seq, content) is called for the good ones."""
    end = at
    for offset, piece, cut, number, stored, wrong in walk(fd, at, size, seq, prev):
        if until is not None and number > until:
            break
        end = offset + len(piece) + len(END)
        if not wrong:
            seq, prev, at = number, stored, end
            if each:
                each(number, piece[1:cut])
    # A bad record that good ones go on from is for verify() to tell of: only the end matters to who appends.
    return seq, prev, at, "wrong" if end > at else "" if size == end or (size == end + 1 and os.pread(fd, 1, end) == b"\n") else "torn"


# ---- reading ----


class _Lock:
    """The one lock of a journal; shared for readers, who thereby see only what was synced. Raises Failure 75 after WAIT seconds."""

    def __init__(self, folder: str, shared: bool = False):
        self.path, self.shared, self.fd = os.path.join(folder, ".lock"), shared, -1

    def __enter__(self):
        deadline = time.monotonic() + WAIT
        while True:
            try:
                self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except OSError as bad:
                # Who may not write can still read: a journal on a read-only disk has no writer to wait for.
                if self.shared and bad.errno in (errno.EROFS, errno.EACCES, errno.ENOENT):
                    return
                raise Failure(f"cannot open '{self.path}': {bad.strerror}", CANTCREAT) from None
            while True:
                try:
                    fcntl.flock(self.fd, (fcntl.LOCK_SH if self.shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        os.close(self.fd)
                        raise Failure(f"the journal is locked: no turn within {WAIT:.0f} s", TEMPFAIL, f"fuser '{self.path}'") from None
                    time.sleep(0.001)
                except OSError as bad:
                    os.close(self.fd)
                    raise Failure(f"cannot lock '{self.path}': {bad.strerror}", IOERR) from None
            # A lock on a file that was removed in the meantime keeps nobody out.
            try:
                if os.path.samestat(os.fstat(self.fd), os.stat(self.path)):
                    return
            except FileNotFoundError:
                pass
            os.close(self.fd)

    def __exit__(self, *_):
        if self.fd >= 0:
            os.close(self.fd)


def is_closed(name: str) -> bool:
    """True for the name of a closed segment."""
    return len(name) >= 11 and name.endswith(".ftai") and name[:-5].isdecimal() and name.isascii()


def closed(folder: str) -> list[str]:
    """The names of the closed segments, oldest first."""
    try:
        return sorted((name for name in os.listdir(folder) if is_closed(name)), key=lambda name: int(name[:-5]))
    except FileNotFoundError:
        return []


# A closed segment: its number, the name and path of its file, and whether that is a sealed one.
Segment = namedtuple("Segment", "number name path sealed")


def segments(folder: str) -> list[Segment]:
    """The closed segments, oldest first. Where one is there plain and sealed, the sealing did not end, and the plain one counts."""
    found: dict[int, Segment] = {}
    try:
        names = sorted(os.listdir(folder), reverse=True)
    except FileNotFoundError:
        return []
    for name in names:
        end = next((end for end in SEALED if name.endswith(end)), "")
        if is_closed(plain := name.removesuffix(end)):
            number = int(plain[:-5])
            if not end or number not in found:
                found[number] = Segment(number, name, os.path.join(folder, name), bool(end))
    return [found[number] for number in sorted(found)]


def ledger(folder: str) -> dict[int, dict]:
    """{number: entry} of the sealed segments, as ftai(5), Closed segments, tells. Lines that are damaged are left out."""
    found = {}
    try:
        with open(os.path.join(folder, LEDGER), "rb") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return {}
    except OSError as bad:
        raise Failure(f"cannot read '{folder}/{LEDGER}': {bad.strerror}", IOERR) from None
    for line in lines:
        try:
            entry = record.decode(line)
            first, last, size, records = (entry[name] for name in ("first", "last", "bytes", "records"))
            sound = type(first) is type(last) is type(size) is type(records) is type(entry["segment"]) is int and 0 < first <= last + 1
            if sound and record.is_id(entry["journal"]) and all(len(entry[name]) == 64 and HEX.issuperset(entry[name]) for name in ("prev", "hash")):
                found[entry["segment"]] = entry
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _save_ledger(folder: str, entries: dict[int, dict]) -> None:
    stream.save(os.path.join(folder, LEDGER), b"".join(record.encode(entries[number]) for number in sorted(entries)))


def _entry(segment: Segment, entries: dict[int, dict]) -> dict:
    """What the ledger says of a sealed segment; where it is lost, what the segment itself says. Raises Failure where that can't be opened."""
    if segment.number in entries:
        return entries[segment.number]
    fd, size, top = open_segment(segment)
    try:
        if top is None or top.number != segment.number:
            raise Failure(f"'{segment.path}' holds another segment", IOERR)
        seq, last, *_ = _tail(fd, top, size)
    finally:
        os.close(fd)
    return {"journal": top.journal, "first": top.first, "last": seq, "prev": top.prev, "hash": last, "bytes": size, "records": seq - top.first + 1}


def open_segment(segment: Segment):
    """(fd, size, head or None) of a closed segment; a sealed one is opened. Raises FileNotFoundError, and Failure as sealed.open_() does."""
    if not segment.sealed:
        return _open(segment.path)
    from . import sealed

    if not os.path.lexists(segment.path):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), segment.path)
    try:
        fd = sealed.open_(segment.path)[1]
    except Failure as bad:
        if bad.code not in (CANTCREAT, IOERR):
            raise
        # The plain bytes need room for a while: a disk that is full, or can only be read, has none.
        from tempfile import gettempdir

        fd = sealed.open_(segment.path, folder=gettempdir())[1]
    return fd, os.fstat(fd).st_size, head(os.pread(fd, WINDOW, 0))


def _again(folder: str, top: Head, plain: bool):
    """(fd, size, head) of a segment that a plan names: it may have been sealed since, or brought back. None where retention took it away, or where
    it is sealed and only plain ones are wanted.
    """
    for _ in range(5):
        segment = next((one for one in segments(folder) if one.number == top.number), None)
        if segment is None or (plain and segment.sealed):
            return None
        try:
            fd, size, found = open_segment(segment)
        except FileNotFoundError:
            continue
        if found is None or found[:4] != top[:4]:
            os.close(fd)
            raise Failure(f"'{segment.path}' does not hold what the ledger says: ftai-log --verify tells more", IOERR)
        return fd, size, found
    raise Failure(f"segment {top.number} of the journal can't be found", TEMPFAIL)


def regular(path: str, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a segment. Raises FileNotFoundError, and Failure 74 for what can't be opened or is no regular file: a FIFO would keep who opens
    it waiting for ever, and what is written through a link goes elsewhere.
    """
    try:
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as bad:
        raise Failure(f"cannot use '{path}': {'it is a link' if bad.errno == errno.ELOOP else bad.strerror}", IOERR) from None
    if os.fstat(fd).st_mode & 0o170000 != 0o100000:
        os.close(fd)
        raise Failure(f"cannot use '{path}': it is no regular file", IOERR)
    return fd


def _open(path: str):
    """(fd, size, head or None) of a segment."""
    fd = regular(path)
    return fd, os.fstat(fd).st_size, head(os.pread(fd, WINDOW, 0))


def _suspect(folder: str, number: int) -> int | None:
    """The last good seq where an error of fsync left segment `number` in doubt; sys.maxsize where not even that could be written down."""
    try:
        with open(os.path.join(folder, ".suspect"), "rb") as mark:
            words = mark.read(100).split()
    except FileNotFoundError:
        return None
    if len(words) != 2 or not (words[0] + words[1]).isdigit():
        return sys.maxsize
    return int(words[0]) if int(words[1]) == number else None


def _plan(folder: str, after: int, plain: bool = False) -> list:
    """[path, fd or -1, head, size, last seq] of the segments that may hold records behind `after`, oldest first. The caller holds the lock.

    plain: the sealed ones are left out.
    """
    plan = []
    until = None
    parts = segments(folder)
    entries: dict | None = None
    try:
        fd, size, top = _open(os.path.join(folder, LIVE))
    except FileNotFoundError:
        pass
    else:
        if top is None:
            os.close(fd)
        else:
            # What stands behind the last good record may get its seq again from the next writer.
            until, _, size, _ = _tail(fd, top, size, _suspect(folder, top.number))
            plan.append((os.path.join(folder, LIVE), fd, top, size, until))
            until = top.first - 1
            if parts and parts[-1].number == top.number:
                parts.pop()  # a closing that was interrupted: the same file by two names
    while parts and (until is None or after < until):
        part, path = parts[-1], parts.pop().path
        if part.sealed and plain:
            continue
        if part.sealed:
            entries = ledger(folder) if entries is None else entries
            entry = _entry(part, entries)
            top = Head(entry["journal"], part.number, entry["first"], entry["prev"], [], 0)
            plan.append((path, -1, top, entry["bytes"], entry["last"] if until is None else until))
            until = top.first - 1
            continue
        fd, size, top = _open(path)
        if top is not None:
            plan.append((path, -1, top, size, _tail(fd, top, size)[0] if until is None else until))
            until = top.first - 1
        os.close(fd)
    return plan[::-1]


def _contents(plan: list, after: int, plain: bool = False):
    """Yields (seq, content, chain) of the records of a plan behind `after`. chain: the match of their last block. What is not right is left out.

    plain: sealed segments are passed over. Else Failure is raised for one that can't be opened.
    """
    left = {fd for _, fd, *_ in plan if fd >= 0}
    try:
        for path, fd, top, size, until in plan:
            if until <= after:
                continue
            if fd < 0:
                # It may be sealed by now, and a purge may have put a shorter or longer one in its place.
                found = _again(os.path.dirname(path), top, plain)
                if found is None:
                    continue
                fd, size, top = found
                left.add(fd)
            at, last, prev = next(found for found in _boundaries(fd, top, size) if found[1] <= after or found[0] == top.start)
            for _, piece, cut, seq, _, wrong in walk(fd, at, size, last, prev):
                if seq > until:
                    break
                if seq > after and not wrong:
                    after = seq
                    yield seq, piece[1:cut], CHAIN.fullmatch(piece, cut + 9)
            os.close(fd)
            left.remove(fd)
    finally:
        for fd in left:
            os.close(fd)


def read(folder: str, after: int = 0):
    """Yields (seq, record) of the records behind seq `after`, in order; each ends with its `@chain` block, so it is history.

    Only synced records that are what the chain says; what is not is left out (verify() tells of it). Raises Failure 75, OSError, and for a sealed
    segment that can't be opened Failure 77 or 65.
    """
    with _Lock(folder, shared=True):
        plan = _plan(folder, after)
    for seq, content, found in _contents(plan, after):
        rec = parse(content)
        block = {"@tag": "chain", "seq": seq, "salt": found[2].decode()} if found[2] else {"@tag": "chain", "seq": seq, "digest": found[3].decode()}
        block["hash"] = found[4].decode()
        rec.setdefault("@blocks", []).append(block)
        yield seq, rec


def position(folder: str) -> int:
    """The seq of the last record, 0 for an empty or missing journal; reads its end only."""
    live = _live.get(folder)
    if live and live.same():
        return live.seq
    with _Lock(folder, shared=True):
        plan = _plan(folder, sys.maxsize)
    for _, fd, *_ in plan:
        if fd >= 0:
            os.close(fd)
    return plan[-1][-1] if plan else 0


def _place(folder: str, seq: int, digest: str) -> tuple[int, str] | None:
    """(seq, its hash) where the journal holds a record with that seq and hash ("": any), else of the record before the segment that stands there.

    None while there is no live segment that can be read: the next writer says where it goes on.
    """
    with _Lock(folder, shared=True):
        plan = _plan(folder, max(seq - 1, 0))
        # What is sealed is not opened for that: of its last record the ledger tells, where one that reads on mostly is when the next one begins.
        found = next(records := _contents(plan, max(seq - 1, 0), True), None)
        records.close()
        sealed = next((entry["hash"] for entry in ledger(folder).values() if entry["last"] == seq), "")
    if not plan or os.path.basename(plan[-1][0]) != LIVE:
        return None
    held = found[2][4].decode() if found and found[0] == seq else sealed
    # What is damaged where it stands is for verify() to tell of.
    there = seq == 0 or any(top.first <= seq <= until for _, _, top, _, until in plan)
    if there and (not digest or not held or held == digest):
        return seq, digest or held
    top = next((top for _, _, top, _, until in plan if until >= seq), plan[-1][2])
    return top.first - 1, top.prev


def follow(folder: str, after: int, wait, *, digest: str = "", warn=None):
    """Yields lists of (seq, record) of what is written behind seq `after`, as it is written; calls wait() in between, which may raise to end it.

    digest: the hash of the record `after`, "" where it is not known. Where the journal does not hold that record any more, as its segment was
    lost, warn(message) is called, and it goes on from the first record of the segment that stands in its place.
    """
    path = os.path.join(folder, LIVE)
    before = None
    sure = False  # that the journal goes on from `after`
    while True:
        try:
            seen = os.stat(path)
            now = seen.st_ino, seen.st_size
        except FileNotFoundError:
            now = None
        if now != before:
            sure = sure and now is not None and before is not None and now[0] == before[0] and now[1] >= before[1]
            before, fresh = now, []
            if not sure and (found := _place(folder, after, digest)):
                if found[0] != after and warn:
                    warn(f"the journal does not hold seq {after} as it was read, a segment was lost: going on with seq {found[0] + 1}, some may come again")
                (after, digest), sure = found, True
            for seq, rec in read(folder, after):
                fresh.append((seq, rec))
                after, digest = seq, rec["@blocks"][-1]["hash"]
                if len(fresh) == 1000:
                    yield fresh
                    fresh = []
            if fresh:
                yield fresh
        wait()


class Cursor:
    """A place in the journal that a reader goes on from: `seq` is the last it has seen, `hash` its hash ("" if not known).

    Raises Failure (2 for the name, 75 while another has it).
    """

    def __init__(self, folder: str, name: str):
        if not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or name[0] == "." or name.endswith(".lock"):
            raise Failure(f"'{name}' is no name for a cursor: expected letters, digits, '.', '_' or '-'", USAGE)
        if len(name.encode()) > 200:  # the longest name of a file, less what stands behind it in those of the lock and of a new place
            raise Failure(f"a name of {len(name.encode())} bytes for a cursor, expected at most 200", USAGE)
        from . import paths

        self.path = os.path.join(paths.make(folder), name)
        self.lock = stream.Lock(f"{self.path}.lock", 0, f"another process reads with the cursor '{name}'").__enter__().fd
        try:
            with open(self.path, "rb") as file:
                said = file.read(100).split()
        except FileNotFoundError:
            said = []
        self.seq = int(said[0]) if said and said[0].isdigit() else 0
        self.hash = said[1].decode("ascii", "replace") if self.seq and len(said) > 1 else ""

    def save(self, seq: int, digest: str) -> None:
        """Keeps the place, and the hash of the record there, on the disk. Raises OSError."""
        stream.save(self.path, f"{seq} {digest}\n".encode())
        self.seq, self.hash = seq, digest


_NAME = re.compile(rb"[A-Za-z_][A-Za-z0-9_.-]*\Z")
_ODD = re.compile(rb'(?<!\\)(?:\\\\)*\\[^"\\nrt]')  # an escape that JSON may know and the text form does not
# Nothing but strings without any escape, as most records are.
_PLAIN = re.compile(rb'@((?!end\n)[a-z_][a-z0-9_.-]*)\n((?:  [A-Za-z_][A-Za-z0-9_.-]*: "[^"\\\x00-\x1f]*"\n)+)')
_names: dict[bytes, str] = {}  # names of fields and tags that were found good


def parse(content: bytes) -> dict:
    """The record whose canonical text, without its last `@end` line, this is: what text.read() gives, three times as fast."""
    try:
        if plain := _PLAIN.fullmatch(content):
            lines = plain[2].decode()[2:-2].split('"\n  ')
            rec = {"@tag": plain[1].decode(), **dict([line.split(': "', 1) for line in lines])}
            if len(rec) > len(lines):
                return rec
        return _parse(content.split(b"\n"))
    except (ValueError, KeyError, IndexError):
        # Free text, and whatever is not plainly canonical, is for the one reader that knows all of the format.
        found = text.read(content + b"@end\n")[0]
        if len(found) != 1:
            raise ValueError("not the text of one record") from None
        return found[0]


def _name(raw: bytes) -> str:
    if not _NAME.match(raw):
        raise ValueError("no name")
    if len(_names) < 10_000:
        _names[raw] = raw.decode()
    return raw.decode()


def _parse(lines: list[bytes]) -> dict:
    if lines.pop():
        raise ValueError("no line end")
    top = rec = _begin(lines[0], 0)
    above: list[dict] = []
    pad, margin = 2, b"  "
    for line in lines[1:]:
        name, colon, value = line[pad:].partition(b": ")
        if colon and line[:pad] == margin:
            key = _names.get(name) or _name(name)
            if key in rec or "@blocks" in rec:
                raise ValueError("not canonical")
            if value[:1] == b'"':
                if b"\\" in value and _ODD.search(value):
                    raise ValueError("an escape of JSON's own")
                rec[key] = orjson.loads(value)
            else:
                typed = orjson.loads(value)
                if text.literal(typed).encode() != value:
                    raise ValueError("not canonical")
                rec[key] = typed
        elif line[pad : pad + 1] == b"@" and line[:pad] == margin:
            block = _begin(line, pad)
            rec.setdefault("@blocks", []).append(block)
            above.append(rec)
            rec, pad, margin = block, pad + 2, margin + b"  "
        elif line == margin[2:] + b"@end":
            rec, pad, margin = above.pop(), pad - 2, margin[2:]
        else:
            raise ValueError("not a field")
    if above:
        raise ValueError("not closed")
    return top


def _begin(line: bytes, pad: int) -> dict:
    name, space, words = line[pad + 1 :].partition(b" ")
    tag = _names.get(name) or _name(name)
    if line[pad : pad + 1] != b"@" or tag != tag.lower() or tag == "end":
        raise ValueError("no tag")
    if not space:
        return {"@tag": tag}
    if words[:1] != b'"' or _ODD.search(words):
        raise ValueError("no canonical head")
    return {"@tag": tag, "@head": orjson.loads(words)}


# ---- writing ----

FOREIGN = frozenset(("ftai", "document", "schema", "include", "intent"))
_DOCUMENT = {"@tag", "journal", "segment", "first", "prev", "records"}
_SCHEMA = {"@tag", "id", "ts", "thread", "from", "name", "required_tags", "optional_tags", "@blocks"}


def is_own(rec: dict) -> bool:
    """True for a header, `@document` or `@schema` that a journal or the canonical writer makes: passed on, and not journaled."""
    tag = rec.get("@tag")
    if tag == "document" and rec.keys() == _DOCUMENT:
        return record.is_id(rec["journal"])
    if tag == "schema" and rec.get("name") == "serenamaster" and rec.keys() <= _SCHEMA:
        return all(block.get("@tag") == "chain" for block in rec.get("@blocks", ()))
    return tag in FOREIGN and text.is_added(rec)


def stored(rec: dict) -> dict:
    """The record that is journaled for `rec`: without a `@chain` of its own, and as `@prose` where it would break the journal's own head."""
    blocks = rec.get("@blocks")
    if blocks and record.is_history(rec):
        rec = {key: value for key, value in rec.items() if key != "@blocks"}
        rest = [block for block in blocks if block.get("@tag") != "chain"]
        if rest:
            rec["@blocks"] = rest
    tag = rec.get("@tag")
    if tag is None or tag in FOREIGN:
        kept = {key: rec[key] for key in ("id", "ts", "thread", "parent", "from", "privacy", "log") if key in rec}
        rec = {"@tag": "prose", **kept, "part_of": tag or "narrative", "body": text.dump(rec) if tag else rec["@text"]}
    return record.stamp(rec)


def is_kept(rec: dict) -> bool:
    """False for what append() skips: pieces of answers, and heads that a journal or the canonical writer made."""
    return rec.get("@tag") != "partial" and not is_own(rec)


class TooLong(text.Unwritable):
    """A record that is longer by `over` bytes than one may be."""

    def __init__(self, size: int):
        super().__init__("", f"a record of {size} bytes, expected at most {record.LIMIT}")
        self.over = size - record.LIMIT

    def __str__(self):
        return self.reason


def prepare(rec: dict):
    """(id, content, tags used) of a record as it will stand in the journal. Raises text.Unwritable."""
    return _written(stored(rec))


def _written(rec: dict):
    used: dict = {}
    content = text.dump(rec, None, used)[:-5].encode()
    if len(content) > record.LIMIT:
        raise TooLong(len(content))
    return rec["id"], content, used.keys()


def _prepared(rec: dict, came: dict, warn=None):
    """(record, id, content, tags used) as prepare(); what is only too long since it was redacted is shortened. came: the record before that."""
    rec = stored(rec)
    try:
        return rec, *_written(rec)
    except TooLong:
        # It may have got a stamp here.
        if min(len(record.encode(came)), len(text.dump(stored(came)).encode())) > record.LIMIT + 1024:
            raise
    return _shortened(rec, rec, "stamped and redacted", warn)


def _shortened(rec: dict, long: dict, how: str, warn=None):
    """As _prepared(), of `long`, with `[withheld:N]` in the place of its longest values, as many as must be.

    long: what redaction or encryption (how) made of `rec`, field by field; N is of the values of `rec`. Raises TooLong where that is not enough.
    """
    made = {key: list(value) if key == "@blocks" else value for key, value in long.items()}
    sizes = []
    for key, value in made.items():
        if key == "@blocks":
            sizes += [(len(text.dump(block).encode()), n, key) for n, block in enumerate(value)]
        elif key not in ("@tag", "id", "ts", "thread"):
            sizes.append((len(text.dump({"@tag": "x", key: value}).encode()), 0, key))
    sizes.sort()
    out = None
    while out is None:
        try:
            out = made, *prepare(made)
        except TooLong as bad:
            if not sizes:
                raise
            less = 0
            while sizes and less < bad.over:
                size, n, key = sizes.pop()
                if key == "@blocks":
                    made[key][n] = withheld(rec[key][n], ())
                else:
                    made[key] = withheld({key: rec[key]}, ())[key]
                less += size - 100
    if warn:
        warn(f"the record '{made['id']}' is too long when it is {how}: its longest texts are journaled as [withheld:N]")
    return out


_MARKED = re.compile(rb"\[(?:redacted|sealed|withheld):")
_MARK = re.compile(r"\[redacted:([A-Za-z0-9_.-]{1,64}):[0-9a-f]{4}\]")
_NAMED = re.compile(r"redacted_(.{1,64}?)_([0-9a-f]{4})")
_WITHHELD = re.compile(r"\[withheld:(\d{1,18})\]")


def _alike(held, new, typed: str) -> bool:
    """Equal, as far as what redaction, encryption and --no-log took out of one of them lets it be told; typed: marks that are as they came."""
    if held == new and type(held) is type(new):
        return True
    for one, other in ((held, new), (new, held)):
        if type(one) is str and one[-1:] == "]" and not (one is new and one in typed):
            if found := _WITHHELD.fullmatch(one):
                size, said = int(found[1]), str(other)
                return size == len(said) or (size > 0 and _MARK.search(said) is not None)
            if one.startswith("[sealed:") and re.fullmatch(r"\[sealed:[A-Za-z0-9_-]{43}:[A-Za-z0-9_-]{38,}\]", one):
                return type(other) is str
    if type(held) is not type(new):
        return False
    if type(held) is dict:
        pairs = zip(held, new, strict=False)
        return len(held) == len(new) and all(_alike_named(a, b, held[a], new[b]) and _alike(held[a], new[b], typed) for a, b in pairs)
    if type(held) is list:
        return len(held) == len(new) and all(_alike(a, b, typed) for a, b in zip(held, new, strict=True))
    return type(held) is str and _alike_texts(held, new, typed)


def _alike_named(held: str, new: str, *values) -> bool:
    """_alike() for the names of two fields with these values."""
    if held == new:
        return True
    for name, value in zip((held, new), values, strict=True):
        if name.startswith("withheld_") and type(value) is str and _WITHHELD.fullmatch(value):
            return True
    held, new = (_NAMED.sub(r"[redacted:\1:\2]", name) for name in (held, new))
    return _alike_texts(held, new, "")


def _alike_texts(held: str, new: str, typed: str) -> bool:
    """True for texts that are the same but for `[redacted:KIND:xxxx]`: the same one, or one that stands for a run of the other text."""
    here, there = ([(*found.span(), found[0], found[1]) for found in _MARK.finditer(words)] for words in (held, new))
    known = {mark for _, _, mark, _ in here}
    # One that came with the record was not put there by redaction: it may be the same, but stands for nothing else.
    if any(mark not in known and mark in typed for _, _, mark, _ in there):
        return False
    if len(here) == len(there) and _split(held, here) == _split(new, there):
        # What ftai-keys knows goes before the patterns that found it until then.
        return all(a[2] == b[2] or (a[3] != b[3] and "key" in (a[3], b[3])) for a, b in zip(here, there, strict=True))
    known &= {mark for _, _, mark, _ in there}
    common, again = ([one for one in marks if one[2] in known] for marks in (here, there))
    if [one[2] for one in common] != [one[2] for one in again]:
        return False
    at = to = 0
    for a, b in zip([*common, (len(held), 0, "", "")], [*again, (len(new), 0, "", "")], strict=True):
        if not _fits(held[at : a[0]], new[to : b[0]]):
            return False
        at, to = a[1], b[1]
    return True


def _split(words: str, marks: list) -> list[str]:
    """What stands before, between and behind the marks of a text."""
    ends = [0, *(end for _, end, _, _ in marks)]
    return [words[end:start] for end, start in zip(ends, [*(start for start, _, _, _ in marks), len(words)], strict=True)]


def _fits(held: str, new: str) -> bool:
    """True where the one is the other with some runs of it redacted."""
    if held == new:
        return True
    words, plain = (held, new) if _MARK.search(held) else (new, held)
    first, *parts = _split(words, [(*found.span(), "", "") for found in _MARK.finditer(words)])
    if not parts or _MARK.search(plain):
        return False
    last = parts.pop()
    at, end = len(first), len(plain) - len(last)
    if not plain.startswith(first) or not plain.endswith(last):
        return False
    # The first place that fits leaves most for the rest.
    for part in parts:
        at = plain.find(part, at + 1, end)
        if at < 0:
            return False
        at += len(part)
    return at < end


def equal(held: bytes, content: bytes, came=None) -> bool:
    """True if a held record and a new one are equal as ftai(5), Ids, has it; both as content: canonical text without `@chain` and last `@end`.

    came: the new record as it came, before redaction.
    """
    if held == content or not held:
        return held == content
    return bool(_MARKED.search(held) or _MARKED.search(content)) and _alike(parse(held), parse(content), repr(came))


# What stays of a record of which only the fact is kept: fields that stages fill in by themselves. Of its blocks nothing does but who else could have done it.
_FACT = frozenset(("id", "ts", "thread", "parent", "from", "via", "tz", "lang", "privacy", "log", "provisional", "updates", "about"))
_FACT |= {"target", "rule", "rule_at", "specs", "deadline", "confidence", "status", "class", "recovery", "n", "ms", "exit", "signal"}
_FACT |= {"model", "input_tokens", "cached_tokens", "output_tokens", "cost", "currency", "price_row", "act", "who", "outcome", "op", "tier"}
_OTHERS = frozenset(("target", "rule", "why_not"))
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z\Z")
_facts: dict[str, None] = {}  # ids of records of which this process kept the fact, oldest first


def withheld(rec: dict, kept=_FACT, bare: bool = False) -> dict:
    """`rec` with `[withheld:N]`, N its length in characters, in the place of each value but those of the fields `kept`.

    bare: the names of the other fields are replaced too. Comments are dropped, as canonical text has none.
    """
    out: dict = {}
    for key, value in rec.items():
        if key == "@tag" or key in kept:
            out[key] = value
        elif key == "@blocks":
            out[key] = [withheld(block, () if bare or block.get("@tag") != "alternative" else _OTHERS, bare) for block in value]
        elif key not in ("@comments", "@hints", "@quoted"):
            again = type(value) is str and re.fullmatch(r"\[withheld:\d+\]", value)
            name = f"withheld_{len(out)}" if bare and str(key)[:1] != "@" else key
            out[name] = value if again else f"[withheld:{len(value if type(value) is str else str(value))}]"
    return out


def _is_fact(rec: dict) -> bool:
    """True for a record that says so, and for what comes of one that this process has seen; the text of the specs is nobody's request."""
    if rec.get("log") != "fact" and not (_facts and any(type(own) is str and own in _facts for own in (rec.get("parent"), rec.get("thread")))):
        return False
    return rec.get("@tag") != "specs"


def cleared(records: list, warn=None) -> list:
    """What append() may store of each of some records, None for those that it skips: redacted, or withheld where only the fact is to be kept.

    All that one read brought should come at once, as a secret may be cut over two records. Never raises: what cannot be redacted is withheld,
    with a message to warn(message).
    """
    out: list = [rec if is_kept(rec) else None for rec in records]
    for n, rec in enumerate(out):
        if rec is not None and _is_fact(rec):
            out[n] = withheld(rec)
            if type(rec.get("id")) is str:
                _facts[rec["id"]] = None
    if len(_facts) > 2 * GAP:
        for own in list(_facts)[:-GAP]:
            del _facts[own]
    places = [n for n, rec in enumerate(out) if rec is not None]
    try:
        from . import redact

        for n, rec in zip(places, redact.batch([out[n] for n in places], warn=warn), strict=True):
            out[n] = rec
    except Exception as bad:
        for n in places:
            out[n] = _one_cleared(out[n], bad, warn)
    return out


def _one_cleared(rec: dict, bad: Exception, warn) -> dict:
    """As cleared(), for one record of a batch that could not be redacted."""
    try:
        from . import redact

        return redact.batch([rec], warn=warn)[0]
    except Exception:
        if warn:
            warn(f"a record could not be redacted, and is journaled without its texts: {type(bad).__name__}")
        kept = {name for name in ("id", "thread", "parent") if record.is_id(rec.get(name))}
        if type(rec.get("ts")) is str and _TIME.match(rec["ts"]):
            kept.add("ts")
        return withheld(rec, kept, bare=True)


def _seal(contents: list) -> list:
    """(content, salt, digest) of each: all of the chain that needs no lock."""
    sha256 = _sha256()
    salts = os.urandom(16 * len(contents)).hex()
    made = []
    for n, content in enumerate(contents):
        salt = salts[32 * n : 32 * n + 32]
        made.append((content, salt, sha256(salt.encode() + content).hexdigest()))
    return made


def _link(sealed: list, seq: int, prev: str):
    """The bytes of sealed records in the chain behind `seq`, each with the blank line before it, and the hash of the last."""
    sha256 = _sha256()
    out: list[bytes] = []
    for content, salt, digest in sealed:
        seq += 1
        prev = sha256(f"ftai-journal/1 {seq} {prev} {digest}\n".encode()).hexdigest()
        out += (b"\n", content, f'  @chain\n    seq: {seq}\n    salt: "{salt}"\n    hash: "{prev}"\n  @end\n@end\n'.encode())
    return b"".join(out), prev


def sync(fd: int) -> None:
    """Puts a file's bytes on the disk. Raises OSError."""
    if sys.platform == "darwin":
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # fsync there stops at the disk's own cache: fsync(2) of macOS
    else:
        os.fdatasync(fd)


def _sync_folder(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write(fd: int, data: bytes) -> None:
    """All of `data`, in one write if the system takes it so."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _tags() -> list[str]:
    """What the head of a new segment declares: with all known tags, a further @schema is only needed for foreign ones."""
    from . import rules

    return sorted((rules.CORE | rules.OWN) - {"ftai", "document", "schema", "intent", "include"})


class _Live:
    """The live segment as this process last saw it. Everything but the start is done under the lock."""

    def __init__(self, folder: str):
        self.folder, self.path = folder, os.path.join(folder, LIVE)
        self.fd, self.top = -1, Head("", 0, 1, "", [], 0)
        self.key: tuple | None = None  # device and inode; None: to be looked at anew
        self.size = self.end = self.seq = 0  # end: behind the last record; size may be one blank line more
        self.hash = ""
        self.declared: set[str] = set()
        self.searched = 0  # how far the segment was searched for further schemas
        self.recent: dict = {}  # id -> (seq, hash() of the content, or the content where it holds a marker) of records behind `since`
        self.since = 0
        self.stage, self.warn = "", _silent

    def same(self) -> bool:
        """True if nothing was written since this process last held the lock."""
        try:
            seen = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return (seen.st_dev, seen.st_ino) == self.key and seen.st_size == self.size

    def look(self) -> None:
        """Sees what others did since, repairs what a crash left, and starts a segment where there is none to go on with."""
        try:
            seen = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return self.restart("there was no live segment")
        key = seen.st_dev, seen.st_ino
        if key == self.key and seen.st_size == self.size:
            return None  # as same() would say
        if key != self.key or seen.st_size < self.end:
            if not self.open():
                return self.restart("the live segment has no head" if seen.st_size else "the live segment was empty")
            good = _tail(self.fd, self.top, seen.st_size, _suspect(self.folder, self.top.number))
            self.recent.clear()
            self.since = good[0]
        else:
            good = self.follow(seen.st_size)
        self.seq, self.hash, self.end, rest = good
        self.key, self.size = key, seen.st_size
        if _suspect(self.folder, self.top.number) is not None:
            return self.close("an error of fsync left what stands behind in doubt", audit=False)
        if rest == "wrong":
            return self.close(f"the record behind seq {self.seq} is not what the chain says", audit=True)
        if rest == "torn":
            self.cut()
        if os.path.exists(self.numbered(self.top.number)):
            return self.close("a closing was interrupted", audit=False)
        return None

    def open(self) -> bool:
        """True if the live segment could be opened and has a head."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        self.fd = regular(self.path, os.O_RDWR | os.O_APPEND)
        top = head(os.pread(self.fd, WINDOW, 0))
        if top is None:
            return False
        self.top, self.declared, self.searched = top, {"document", "schema", *top.tags}, top.start - 1
        return True

    def follow(self, size: int):
        """Reads what other writers appended; as _tail()."""
        return _last(self.fd, self.end, size, self.seq, self.hash, _suspect(self.folder, self.top.number), self.remember)

    def remember(self, seq: int, content: bytes) -> None:
        found = re.search(rb'\n  id: "([0-9a-fA-F-]{36})"\n', content)
        if found:
            self.recent[found[1].decode()] = seq, content if _MARKED.search(content) else hash(content)

    def numbered(self, number: int) -> str:
        return os.path.join(self.folder, f"{number:06d}.ftai")

    def cut(self) -> None:
        """Takes a torn tail, which nobody was told is written, out of the segment and keeps it in `.torn`."""
        torn = os.pread(self.fd, self.size - self.end, self.end)
        self.warn(f"cut off {len(torn)} bytes of a torn record behind seq {self.seq}, kept in '{self.folder}/.torn'")
        try:
            # What an older version of this wrote, or another program, may hold secrets.
            from . import redact

            kept = redact.text(torn.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
        except Exception:
            kept = b"(not kept, as it could not be redacted)"
        try:
            fd = os.open(os.path.join(self.folder, ".torn"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                _write(fd, f"// {record.now()} segment {self.top.number} behind seq {self.seq}: {len(torn)} bytes\n".encode() + kept + b"\n")
            finally:
                os.close(fd)
        except OSError as bad:
            # On a full disk the journal itself comes first.
            self.warn(f"cannot keep them: {bad.strerror}")
        os.ftruncate(self.fd, self.end)
        sync(self.fd)
        self.size = self.end

    def close(self, why: str, audit: bool) -> None:
        """Gives the live segment its number and starts the next one behind its last good record.

        In this order each crash in between is finished by the next writer: link, sync, new head, sync, rename, sync.
        """
        name = self.numbered(self.top.number)
        self.warn(f"closed segment {self.top.number} behind seq {self.seq}: {why}")
        try:
            os.link(self.path, name)
        except FileExistsError:
            if not os.path.samefile(self.path, name):
                raise Failure(f"cannot close the live segment: '{name}' exists", IOERR, "ftai-log --verify") from None
        _sync_folder(self.folder)
        self.start(self.top.journal, self.top.number + 1, self.seq, self.hash, why, os.path.basename(name) if audit else "")
        try:
            os.unlink(os.path.join(self.folder, ".suspect"))
            _sync_folder(self.folder)
        except FileNotFoundError:
            pass

    def restart(self, why: str) -> None:
        """Starts a segment where the live one is missing or cannot be read: behind the closed ones, or a new journal."""
        number = seq = 0
        journal, prev, damaged = "", "", ""
        parts = segments(self.folder)
        entries = ledger(self.folder)
        for part in reversed(parts):
            if part.sealed:
                entry = _entry(part, entries)
                journal, seq, prev = entry["journal"], entry["last"], entry["hash"]
                break
            fd, size, top = _open(part.path)
            if top is not None:
                journal, (seq, prev, *_) = top.journal, _tail(fd, top, size)
            os.close(fd)
            if journal:
                break
        if parts:
            number = parts[-1].number
        if entries and (lost := max(entries)) > number:
            # What is lost keeps its numbers: with others in them, nobody would miss it.
            number, (journal, seq, prev) = lost, (entries[lost][name] for name in ("journal", "last", "hash"))
        if os.path.exists(self.path) and os.path.getsize(self.path):
            number += 1
            damaged = os.path.basename(self.numbered(number))
            os.rename(self.path, self.numbered(number))
        if not journal:
            journal = record.new_id()
            prev = root(journal)
        if number:
            self.warn(f"started segment {number + 1} behind seq {seq}: {why}")
        self.start(journal, number + 1, seq, prev, why if number else "", damaged)

    def start(self, journal: str, number: int, seq: int, prev: str, why: str, damaged: str) -> None:
        """Makes a live segment with its head, and the records that tell `why` where it goes on from another."""
        first = []
        if why:
            first.append(record.make("checkpoint", self.stage, segment=number - 1, last=seq, hash=prev, because=why))
        if damaged:
            first.append(record.make("audit", self.stage, act="close", subject=damaged, who=_user(), outcome="closed", because=why))
        data, last = _link(_seal([prepare(rec)[1] for rec in first]), seq, prev)
        data = heading(journal, number, seq + 1, prev, _tags()) + data
        temporary = os.path.join(self.folder, ".new")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            _write(fd, data)
            os.fsync(fd)
            os.rename(temporary, self.path)
        except BaseException:
            os.unlink(temporary)
            raise
        finally:
            os.close(fd)
        _sync_folder(self.folder)
        self.open()
        seen = os.fstat(self.fd)
        self.key, self.size, self.end, self.seq, self.hash = (seen.st_dev, seen.st_ino), len(data), len(data), seq + len(first), last

    def schema(self, used: set) -> list:
        """The sealed @schema that must stand before records with these tags, if they need one."""
        missing = used - self.declared
        if missing and self.searched < self.end:
            import mmap

            schema = re.compile(rb"\n@schema\n(?:  [^\n]*\n)*?  optional_tags: (\[[^\n]*\])\n")
            with mmap.mmap(self.fd, self.end, access=mmap.ACCESS_READ) as data:
                for found in schema.finditer(data, self.searched):
                    self.declared.update(name[1:] for name in orjson.loads(found[1]))
            self.searched = self.end - 1
            missing -= self.declared
        if not missing:
            return []
        self.declared |= missing
        names = [f"@{tag}" for tag in sorted(missing)]
        rec = record.make("schema", self.stage, name="serenamaster", required_tags=["@document"], optional_tags=names)
        return _seal([text.dump(rec)[:-5].encode()])

    def append(self, sealed: list) -> None:
        """Writes records behind the last one and syncs. Raises Failure 74: then nothing of it counts."""
        data, last = _link(sealed, self.seq, self.hash)
        if self.size > self.end:
            data = data[1:]  # the blank line is there
        try:
            _write(self.fd, data)
        except BaseException as bad:
            self.key = None
            try:
                os.ftruncate(self.fd, self.size)
            except OSError as worse:
                # What is left there is a torn tail, and the next writer cuts it off.
                self.warn(f"cannot cut '{self.path}' back: {worse.strerror}")
            if isinstance(bad, OSError):
                raise Failure(f"cannot write '{self.path}': {bad.strerror}", IOERR) from None
            raise
        try:
            sync(self.fd)
        except OSError as bad:
            # What is on the disk can't be known from here on, and another fsync would report success (https://wiki.postgresql.org/wiki/Fsync_Errors).
            self.key = None
            self.doubt()
            raise Failure(f"cannot sync '{self.path}': {bad.strerror}", IOERR, "ftai-doctor") from None
        self.size += len(data)
        self.end, self.seq, self.hash = self.size, self.seq + len(sealed), last

    def doubt(self) -> None:
        try:
            fd = os.open(os.path.join(self.folder, ".suspect"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                _write(fd, b"%d %d\n" % (self.seq, self.top.number))
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError:
            pass  # the mark is in the page cache at least; there is nobody left to tell

    def behind(self, upto: int) -> dict:
        """`recent`, made complete for all records behind seq `upto`, as far as that is not too much to read."""
        if upto < self.since and self.seq - upto <= GAP:
            own, self.recent = self.recent, {}
            # What is sealed is not opened while others wait; what of it comes again is written again, if the archive does not know it.
            for seq, content, _ in _contents(_plan(self.folder, upto, True), upto, True):
                self.remember(seq, content)
            self.recent |= own
            self.since = upto
        elif upto > self.since and len(self.recent) > GAP:
            self.forget(upto)
        return self.recent

    def content(self, seq: int) -> bytes:
        """The content of one record, nothing where it can't be read."""
        found = next(_contents(_plan(self.folder, seq - 1, True), seq - 1, True), None)
        return found[1] if found and found[0] == seq else b""

    def forget(self, upto: int) -> None:
        """Drops what `recent` holds up to seq `upto`."""
        self.recent = {key: value for key, value in self.recent.items() if value[0] > upto}
        self.since = upto


def _silent(message: str) -> None:
    pass


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


_live: dict[str, _Live] = {}


def _restamp(rec: dict, content: bytes) -> dict:
    """`rec`, which came with an id but without ts or thread, stamped with those of the held record whose content this is."""
    held = parse(content) if content else {}
    stamped = record.stamp(rec)
    return stamped | {key: held[key] for key in ("ts", "thread") if key in held and key not in rec}


def append(folder: str, records: list, *, stage: str = "", known=None, warn=None, bare=None, clear=None, covered: bool = False) -> list:
    """Appends records to the journal in one write and one sync, and says for each what became of it: (kind, seq, reason).

    kind: "written" (on the disk now); "repeat" (held already, equal); "conflict" (its id is held with other content) and "refused" (cannot be
    written), both with the reason; "skipped" (partial answers and our own heads, which are not journaled). seq is None where there is none.
    Records should be stamped; what lacks an id gets one in the journal only. stage: the name for `from` in the records the journal adds.
    known: (upto, {id: (seq, content)}): those of their ids that the journal holds up to seq `upto`, as archive.lookup() tells; None where that
    can't be told: then only what this process has seen makes a repeat or a conflict.
    bare: {index in records: the record as it came} of those that were stamped, but came with their id: where such a one is held with another
    stamp and is equal else, it is a repeat, and the record with the held stamp takes its place in `records`. Not None, it says that they came from
    elsewhere: then what looks like the record of a purge, and is no repeat, is refused, as it could have records of others taken for purged.
    clear: what cleared() made of `records`, where it was asked before. What is stored is that; `records` stay as they are.
    covered: they are sealed already, as seal.cover() has it.
    warn: called with a message for each repair. Raises Failure: 75 locked, 73 or 74 not written; then nothing of it counts as written.
    """
    clear = cleared(records, warn) if clear is None else clear
    outcomes: list = [None] * len(records)
    batch, whole = [], []
    for n, rec in enumerate(clear):
        if rec is None:
            outcomes[n] = ("skipped", None, None)
            continue
        try:
            rec, *made = _prepared(rec, records[n], warn)
            batch.append((n, *made))
            whole.append(rec)
        except text.Unwritable as bad:
            outcomes[n] = ("refused", None, str(bad))
    given = batch
    batch, contents = (given, [content for _, _, content, _ in given]) if covered else _covered(given, whole, outcomes, warn)
    if not batch:
        return outcomes
    sealed = _seal(contents)
    upto, held = known or (0, {})
    live = _live.get(folder) or _live.setdefault(folder, _Live(folder))
    with _Lock(folder):
        live.stage, live.warn = stage or os.path.basename(sys.argv[0]), warn or _silent
        if batch is not given and not _lasting():
            # A purge destroyed a key since; from here on it waits for the lock.
            batch, contents = _covered(given, whole, outcomes, None)
            sealed = _seal(contents)
        try:
            live.look()
            recent = live.behind(upto) if known else live.recent
        except OSError as bad:
            live.key = None
            raise Failure(f"cannot write '{bad.filename or live.path}': {bad.strerror}", IOERR) from None
        new: list = []
        fresh: dict = {}
        seq = live.seq
        for (n, own, content, used), one in zip(batch, sealed, strict=True):
            at, stood = fresh.get(own) or recent.get(own) or held.get(own) or (0, b"")
            if at:
                same = stood == hash(content) if type(stood) is int else equal(stood, content, records[n])
                again = bare and n in bare
                if not same and type(stood) is int and (again or _MARKED.search(content)):
                    stood = new[at - seq - 1][0] if at > seq else live.content(at)
                    same = equal(stood, content, records[n])
                if not same and again:
                    stamped = _restamp(bare[n], stood)
                    other = clear[n] | {key: stamped[key] for key in ("ts", "thread") if key not in bare[n]}
                    if same := equal(stood, _prepared(other, records[n])[2], records[n]):
                        records[n] = stamped
                outcomes[n] = ("repeat", at, None) if same else ("conflict", at, f"id '{own}' is journaled as seq {at} with other content")
                continue
            if bare is not None and content[1:2] != b"c" and proof(content):
                outcomes[n] = ("refused", None, "it says what was purged, and this journal has no such record; only ftai-archive purge writes one")
                continue
            if not used <= live.declared:
                new += live.schema(used)
            new.append(one)
            fresh[own] = seq + len(new), content if _MARKED.search(content) else hash(content)
            outcomes[n] = ("written", seq + len(new), None)
        if new:
            live.append(new)
        live.recent |= fresh
        if len(live.recent) > 2 * GAP:
            live.forget(live.seq - GAP)  # there is no archive to look the older ones up in; they may be written again
    _mark(folder, records, outcomes)
    return outcomes


def _covered(batch: list, whole: list, outcomes: list, warn) -> tuple[list, list]:
    """The batch without what cannot be made to fit encrypted, and the contents as they are to be stored; digests are of these.

    The batch keeps the contents as they came, as equal() is asked of them. whole: the records. Raises Failure: then nothing is written.
    """
    from . import seal

    covered = seal.cover(whole)
    if covered is whole:
        return batch, [content for _, _, content, _ in batch]
    kept, contents = [], []
    for one, rec, made in zip(batch, whole, covered, strict=True):
        try:
            try:
                contents.append(one[2] if made is rec else prepare(made)[1])
            except TooLong:
                contents.append(_shortened(rec, made, "encrypted", warn)[2])
            kept.append(one)
        except text.Unwritable as bad:
            outcomes[one[0]] = ("refused", None, f"encrypted, it is {bad.reason}")
    return kept, contents


def _lasting() -> bool:
    from . import seal

    return seal.lasting()


def _mark(folder: str, records: list, outcomes: list) -> None:
    """Leaves a file for each text of the specs that is journaled now, so that it is journaled once."""
    for rec, (kind, _, _) in zip(records, outcomes, strict=True):
        if rec.get("@tag") == "specs" and kind in ("written", "repeat") and HEX.issuperset(digest := str(rec.get("digest"))) and digest:
            from . import paths

            try:
                marks = paths.make(os.path.join(os.path.dirname(os.path.abspath(folder)), "specs"))
                os.close(os.open(os.path.join(marks, digest), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            except (OSError, Failure):
                pass  # then they are journaled once more


def takes(folder: str, batch: list, *, stage: str, known=None, warn=None, each: bool = False):
    """Journals a batch of (record, line), and yields lists of what is passed on for it: (record, line, failure) in the same order.

    each: one record at a time, and each is yielded before the next is written; else all at once. Records come out as stamped (the same bytes
    where nothing was missing); in the place of one that was refused stands its `error` record, journaled too, and failure is the reason, else "".
    Otherwise as append().
    """
    given = [rec if rec.get("@tag") in _UNSTAMPED or is_own(rec) else record.stamp(rec) for rec, _ in batch]
    clear = cleared(given, warn)
    step = 1 if each else len(batch) or 1
    for at in range(0, len(batch), step):
        part = slice(at, at + step)
        yield _take(folder, batch[part], given[part], clear[part], stage, known, warn)


def take(folder: str, batch: list, *, stage: str, known=None, warn=None) -> list:
    """All that takes() yields, as one list."""
    return [one for part in takes(folder, batch, stage=stage, known=known, warn=warn) for one in part]


def _take(folder, batch, given, clear, stage, known, warn) -> list:
    # A stamp that was added here is another each time the same record comes.
    bare = {n: rec for n, (rec, _) in enumerate(batch) if given[n] is not rec and record.is_id(rec.get("id"))}
    outcomes = append(folder, given, stage=stage, known=known, warn=warn, bare=bare, clear=clear)
    out, errors = [], []
    for (rec, line), stamped, (kind, _, reason) in zip(batch, given, outcomes, strict=True):
        if kind in ("conflict", "refused"):
            about = rec if record.is_id(rec.get("id")) else {}  # an id that it got here is nobody else's
            found = "conflict" if kind == "conflict" else "input"
            said = {"message": reason, "about": about.get("id"), "recovery": "none", "sample": stream.mask(line[:-1]), "log": rec.get("log")}
            stamped = record.make("error", stage, parent=about or None, thread=stamped.get("thread"), class_=found, **said)
            errors.append(stamped)
        out.append((stamped, line if stamped is rec else record.encode(stamped), reason or ""))
    if errors:
        append(folder, errors, stage=stage, warn=warn)
    return out


def preview(batch: list, known=None):
    """As take(), with nothing written and nothing stamped; and the number of records that would be written."""
    out, count = [], 0
    for rec, line in batch:
        reason = ""
        if is_kept(rec):
            try:
                own, _, _ = prepare(rec)
                count += known is None or own not in known[1]
            except text.Unwritable as bad:
                reason = str(bad)
        out.append((rec, line, reason))
    return out, count


_UNSTAMPED = frozenset((None, "ftai", "intent", "partial"))  # lines that can hold no fields, and what is never journaled


class Partials:
    """The pieces of answers that have not ended yet."""

    def __init__(self):
        self.open: dict[str, list] = {}

    def feed(self, rec: dict) -> None:
        """Takes note of a record that passes: a piece, or the end of what the pieces were of."""
        tag = rec.get("@tag")
        if tag == "partial":
            key = rec.get("parent") or rec.get("thread")
            if type(key) is str and type(rec.get("body")) is str:
                self.open.setdefault(key, []).append(rec)
        elif self.open and tag in ("result", "command"):
            for name in ("parent", "thread"):
                self.open.pop(str(rec.get(name)), None)

    def cut(self, stage: str) -> list[dict]:
        """A `result` with status `cut` for each answer that never ended: call it at the end of the input."""
        made = []
        for key, pieces in self.open.items():
            pieces.sort(key=lambda piece: piece["n"] if type(piece.get("n")) is int else 0)
            first = pieces[0]
            about = {"id": key} if first.get("parent") == key else {}
            closest = {piece.get("privacy") for piece in pieces}
            private = next((word for word in sorted(closest - {None, "cloud"})), "cloud" if closest == {"cloud"} else None)
            about |= {name: first[name] for name in ("thread", "log") if type(first.get(name)) is str}
            body = "".join(piece["body"] for piece in pieces)
            made.append(record.make("result", stage, parent=about, target=first.get("target"), status="cut", body=body, privacy=private))
        self.open.clear()
        return made


# ---- purging ----

PURGE = b'\n  act: "purge"\n'

# A record of a segment: from where to where it stands, and what its tombstone keeps; seq, digest and hash are None for what is no record.
Found = namedtuple("Found", "at end seq digest hash salted")


def named(rec: dict) -> list[str]:
    """The "SEQ DIGEST" of the records that an audit record says were purged."""
    purged = rec.get("purged")
    return [words for words in (purged if type(purged) is list else [purged]) if type(words) is str and re.fullmatch("[1-9][0-9]{0,17} [0-9a-f]{64}", words)]


# The fields of our own records that prove what a purge did. They stay, whatever is asked, but only if they hold nothing else.
_PROOF = frozenset(
    ("@tag", "id", "ts", "thread", "from", "act", "subject", "who", "outcome", "because", "about", "asked", "ids", "since", "until", "records", "of", "purged")
    + ("damage", "threads", "files", "hidden", "answers", "seqs", "named", "segments", "segment", "keys", "removed", "shut", "unreached", "kept", "unread")
    + ("last", "hash", "ms")
)
_SIGNED = {"@tag", "id", "ts", "thread", "from", "size", "hash", "note"}
_NOTE = re.compile(
    "ftai-journal/[0-9a-f-]{36}\n[0-9]{1,18}\n[A-Za-z0-9+/]{43}=\n(?:(?:closed|segment|removed)(?: [0-9a-f]{1,64})+\n)*"
    "\n(?:\u2014 serenamaster [A-Za-z0-9+/]{91}=\n)+"
)
_CLOSING = {"@tag", "id", "ts", "thread", "from", "segment", "last", "hash", "because"}
# As _Live gives them.
_REASON = re.compile(
    "a purge|a rotation|a closing was interrupted|an error of fsync left what stands behind in doubt|there was no live segment"
    "|the live segment (has no head|was empty)|the record behind seq [0-9]{1,18} is not what the chain says"
)


def proof(content: bytes) -> dict | None:
    """The record of this content, where it is of the shape in which _Live tells of a closing, or purge.py of what it does; else None.

    Such a record is believed, and not purged. Those of a purge are taken from nobody else, and those of a closing hold no words of anybody.
    """
    if not content.startswith((b"@checkpoint\n", b"@audit\n", b"@report\n")) or (content[1:2] != b"c" and PURGE not in content):
        return None
    try:
        rec = parse(content)
    except ValueError:
        return None
    tag = rec["@tag"]
    if tag == "checkpoint" and "note" in rec:
        return rec if _is_signed(rec) else None
    if tag == "checkpoint":
        if rec.keys() != _CLOSING or not type(rec["segment"]) is type(rec["last"]) is int or not (record.is_id(rec["id"]) and record.is_id(rec["thread"])):
            return None
        forms: dict = {"hash": "[0-9a-f]{64}", "because": _REASON, "from": "(ftai-)?[a-z]{1,12}", "ts": _TIME}
        return rec if all(re.fullmatch(form, str(rec[name])) for name, form in forms.items()) else None
    if tag == "report":
        sound, lists = "hash" in rec and "purged" not in rec, ["files", "removed"]
    else:
        sound, lists = "purged" in rec or "asked" in rec or record.is_id(rec.get("about")), ["purged", "damage", "threads", "files", "answers", "asked"]
    counts = [name for name in ("of", "records", "hidden", "damage", "shut") if name not in lists]
    sound = sound and rec.keys() <= _PROOF and all(type(rec.get(name, 0)) is int for name in counts)
    for name in lists if sound else ():
        sound = sound and type(rec.get(name, [])) is list and all(type(words) is str for words in rec.get(name, ()))
    return rec if sound and len(named(rec)) == len(rec.get("purged", ())) else None


def _is_signed(rec: dict) -> bool:
    """True for the shape of what certify() writes. Whether the signature is right is not asked: what has no other words holds nobody's."""
    said, runs = str(rec.get("because", "")), rec.get("removed", [])
    return (
        rec.keys() - {"removed", "because"} == _SIGNED
        and record.is_id(rec["id"]) and record.is_id(rec["thread"]) and type(rec["size"]) is int
        and _TIME.match(str(rec["ts"])) is not None and _NOTE.fullmatch(str(rec["note"])) is not None
        and re.fullmatch("[0-9a-f]{64}", str(rec["hash"])) is not None and re.fullmatch("(ftai-)?[a-z]{1,12}", str(rec["from"])) is not None
        and re.fullmatch("[a-z0-9 ,_-]{0,200}", said) is not None
        and type(runs) is list and all(re.fullmatch("[0-9]{1,18} [0-9]{1,18} [0-9]{1,18} [0-9a-f]{64} [0-9a-f]{64}", str(run)) for run in runs)
    )  # fmt: skip


def _number(piece: bytes) -> bytes:
    """The seq that a record says, nothing where it says none."""
    at = piece.find(MARK) + len(MARK) + 9
    return piece[at : piece.find(b"\n", at)] if at > len(MARK) + 8 else b""


def dig(fd: int, at: int, size: int, wanted, each) -> int:
    """Calls each(Found, piece) for each record of a segment from offset `at` on, behind its head or a record, for which wanted(piece) is true.

    piece: as in walk(); what stands behind the last whole record is one too. Whether the chain holds is not asked. Returns where that begins.
    """
    sha256 = _sha256()
    for offset, piece in _pieces(fd, at, size):
        at = offset + len(piece) + len(END)
        if wanted(piece):
            cut = piece.find(MARK) + 1
            found = CHAIN.fullmatch(piece, cut + 9) if cut else None
            if found is None:
                each(Found(offset, at, None, None, None, False), piece)
                continue
            digest = sha256(found[2] + piece[1:cut]).hexdigest() if found[2] else found[3].decode()
            each(Found(offset, at, int(found[1]), digest, found[4].decode(), found[2] is not None), piece)
    rest = os.pread(fd, size - at, at)
    if rest and wanted(rest):
        each(Found(at, size, None, None, None, False), rest)
    return at


def close(folder: str, seq: int, *, stage: str) -> None:
    """Closes the live segment if it begins at or before `seq`, as only closed ones may be rewritten. Raises Failure 74, 75."""
    live = _live.get(folder) or _live.setdefault(folder, _Live(folder))
    with _Lock(folder):
        live.stage, live.warn = stage, _silent
        try:
            live.look()
            if live.top.first <= seq:
                live.close("a purge", audit=False)
        except OSError as bad:
            live.key = None
            raise Failure(f"cannot close '{bad.filename or live.path}': {bad.strerror}", IOERR) from None


def alone(folder: str, after: int, function):
    """What function(threads) returns, called while nobody writes; threads: those of the records behind seq `after`. Raises Failure 75, 74."""
    with _Lock(folder):
        return function({parse(content).get("thread") for _, content, _ in _contents(_plan(folder, after), after)})


def enter(folder: str, records: list, *, stage: str) -> tuple[int, str]:
    """Appends records of our own that hold nothing but digests, just as they are. Returns (seq, hash) of the last. Raises Failure 74, 75."""
    live = _live.get(folder) or _live.setdefault(folder, _Live(folder))
    sealed = _seal([prepare(rec)[1] for rec in records])
    with _Lock(folder):
        live.stage, live.warn = stage, _silent
        try:
            live.look()
        except OSError as bad:
            live.key = None
            raise Failure(f"cannot write '{bad.filename or live.path}': {bad.strerror}", IOERR) from None
        if sealed:
            live.append(sealed)
        return live.seq, live.hash


def bury(folder: str, name: str, stones: list) -> None:
    """Writes a closed segment anew with a tombstone for each Found of `stones`, in their order, and puts it in the place of the old one.

    What is no record becomes an empty one, damage still; damage at the end goes altogether. The journal is locked for the renaming only: a
    closed segment does not change but by a purge, and the caller sees to it that there is one at a time. Raises Failure 73, 74, 75.
    """
    path, temporary = os.path.join(folder, name), os.path.join(folder, f".{name}.new")
    try:
        fd, size, top = _open(path)
        try:
            before = os.fstat(fd)
            good = _tail(fd, top, size, _until(fd, size, top, _heads(folder, int(name[:-5])), removed(folder)))[2] if top else size
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), "wb", CHUNK) as out:
                at = 0
                for stone in stones:
                    if stone.end > good:
                        _copy(fd, out, at, good)
                        at = size
                        break
                    _copy(fd, out, at, stone.at)
                    at = stone.end
                    out.write(_stone(stone))
                _copy(fd, out, at, size)
                out.flush()
                sync(out.fileno())
            with _Lock(folder):
                now = os.stat(path, follow_symlinks=False)
                if not os.path.samestat(now, before) or (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                    raise Failure(f"'{path}' was changed by another process", TEMPFAIL)
                # Where a sealing or an opening was interrupted, the sealed file holds it still.
                for end in SEALED:
                    if os.path.lexists(path + end):
                        os.unlink(path + end)
                entries, number = ledger(folder), int(name[:-5])
                if entries.pop(number, None):
                    _save_ledger(folder, entries)
                os.rename(temporary, path)
                _sync_folder(folder)
        finally:
            os.close(fd)
            if os.path.lexists(temporary):
                os.unlink(temporary)
    except OSError as bad:
        raise Failure(f"cannot rewrite '{path}': {bad.strerror}", CANTCREAT if bad.errno in (errno.ENOSPC, errno.EDQUOT) else IOERR) from None


def _heads(folder: str, number: int) -> list:
    """The heads of the segments behind one, as _until() takes them."""
    later = [part for part in segments(folder) if part.number > number]
    entries = ledger(folder) if any(part.sealed for part in later) else {}
    heads = []
    for part in [*later, Segment(0, LIVE, os.path.join(folder, LIVE), False)]:
        if part.sealed:
            entry = _entry(part, entries)
            heads.append(Head(entry["journal"], part.number, entry["first"], entry["prev"], [], 0))
            break
        try:
            fd, _, top = _open(part.path)
        except FileNotFoundError:
            continue
        os.close(fd)
        heads.append(top)
        if top and heads[0]:
            break
    return heads


def _stone(stone: Found) -> bytes:
    if stone.seq is None:
        return b"\n@tombstone" + END
    return f'\n@tombstone\n  @chain\n    seq: {stone.seq}\n    digest: "{stone.digest}"\n    hash: "{stone.hash}"\n  @end\n@end\n'.encode()


def _copy(fd: int, out, at: int, end: int) -> None:
    while at < end and (data := os.pread(fd, min(CHUNK, end - at), at)):
        out.write(data)
        at += len(data)


# ---- closing, sealing and removing ----


def rotate(folder: str, due, *, stage: str) -> str | None:
    """Closes the live segment where due(head, size, ts of its first record) says so by any reason, and returns the name it has then; else None.

    What a crash left is finished before. A segment with nothing but checkpoints and records of `stage` is never closed: else an idle journal
    would get a new one each time. Raises Failure 74, 75.
    """
    if not os.path.exists(os.path.join(folder, LIVE)) and not segments(folder):
        return None
    live = _live.get(folder) or _live.setdefault(folder, _Live(folder))
    with _Lock(folder):
        live.stage, live.warn = stage, _silent
        try:
            live.look()
            first = _opening(live, stage)
            if first is None or not due(live.top, live.end, first):
                return None
            try:
                sync(live.fd)  # of a writer that was killed in between
            except OSError:
                live.doubt()
                raise
            name = os.path.basename(live.numbered(live.top.number))
            live.close("a rotation", audit=False)
        except OSError as bad:
            live.key = None
            raise Failure(f"cannot close '{bad.filename or live.path}': {bad.strerror}", IOERR) from None
    return name


def _opening(live: _Live, stage: str) -> str | None:
    """The time of the first record of the live segment that is no checkpoint and not of `stage`; None where there is none."""
    own = b'\n  from: "%s"\n' % stage.encode()
    for _, piece, cut, _, _, wrong in walk(live.fd, live.top.start, live.end, live.top.first - 1, live.top.prev):
        if not wrong and not piece.startswith(b"\n@checkpoint\n") and own not in piece[:cut]:
            return _ts(piece[:cut]) or record.now()
    return None


def _ts(content: bytes) -> str:
    """The `ts` of a record, "" where it has none that can be compared."""
    found = re.search(rb'\n  ts: "([^"\n]*)"\n', content)
    ts = found[1].decode("utf-8", "replace") if found else ""
    return ts if len(ts) == 24 and _TIME.match(ts) else ""


def leaves(folder: str, segment: Segment, each=None):
    """Yields (seq, hash) of each record of a closed segment; each(content) is called before. Raises Failure 1 where one is not what the chain says."""
    fd, size, top = open_segment(segment)
    try:
        if top is None or top.number != segment.number:
            raise Failure(f"'{segment.path}' does not begin with the head of segment {segment.number}", SOME, "ftai-log --verify")
        until = _until(fd, size, top, _heads(folder, segment.number), removed(folder))
        last, bad = top.first - 1, ""
        for _, piece, cut, seq, stored, wrong in walk(fd, top.start, size, top.first - 1, top.prev):
            if until is not None and seq > until:
                break
            if wrong:
                bad = bad or f"'{segment.path}': seq {seq}: {wrong}"
                continue
            if bad:
                break
            if each:
                each(piece[1:cut])
            last = seq
            yield seq, stored
        else:
            # A bad record that good ones go on from is no end of a segment.
            bad = bad if until is not None and last < until else ""
        if bad or (until is not None and last < until):
            raise Failure(bad or f"'{segment.path}': the records from seq {last + 1} to {until} are missing", SOME, "ftai-log --verify")
    finally:
        os.close(fd)


def describe(folder: str, segment: Segment) -> dict:
    """What the ledger is to say of a closed segment, as far as its own bytes tell: all up to `until`; `damaged` in the place of `root` where it is
    damaged inside. Raises Failure 1 where it has no head, and as open_segment().
    """
    from . import proofs

    fd, size, top = open_segment(segment)
    end = _tail(fd, top, size, _until(fd, size, top, _heads(folder, segment.number), removed(folder)))[:2] if top else (0, "")
    os.close(fd)
    if top is None:
        raise Failure(f"'{segment.path}' does not begin with the head of a segment", SOME, "ftai-log --verify")
    tree, last, prev, times = proofs.Tree(), top.first - 1, top.prev, ["", ""]

    def each(content):
        if ts := _ts(content):
            times[0], times[1] = times[0] or ts, ts

    damaged = ""
    try:
        for seq, stored in leaves(folder, segment, each):
            tree.add(stored)
            last, prev = seq, stored
    except Failure as bad:
        damaged, (last, prev) = bad.message, end
    about = {"@tag": "segment", "segment": top.number, "journal": top.journal, "first": top.first, "last": last, "prev": top.prev, "hash": prev}
    about |= {"damaged": damaged} if damaged else {"root": tree.root()}
    return about | {"records": last - top.first + 1, "since": times[0], "until": times[1]}


def put_away(folder: str, segment: Segment, entry: dict) -> None:
    """Puts `entry` into the ledger, and only then removes the plain file of a segment, whose sealed one is known to be right. Raises Failure 74, 75."""
    path = os.path.join(folder, entry["file"])
    try:
        with _Lock(folder):
            if os.stat(segment.path, follow_symlinks=False).st_size != entry["bytes"] or os.stat(path, follow_symlinks=False).st_size != entry["sealed_bytes"]:
                raise Failure(f"'{segment.path}' was changed by another process", TEMPFAIL)
            _save_ledger(folder, ledger(folder) | {segment.number: entry})
            for end in ("", *SEALED):
                if (name := f"{segment.name}{end}") != entry["file"] and os.path.lexists(os.path.join(folder, name)):
                    os.unlink(os.path.join(folder, name))
            _sync_folder(folder)
    except OSError as bad:
        raise Failure(f"cannot put '{segment.path}' away: {bad.strerror}", CANTCREAT if bad.errno in stream.FULL else IOERR) from None


def bring_back(folder: str, segment: Segment) -> Segment:
    """Puts the plain file of a sealed segment in its place again, as only such a one may be rewritten. Raises Failure 73, 74, 75, and as sealed.open_()."""
    from . import sealed

    name = f"{segment.number:06d}.ftai"
    path = os.path.join(folder, name)
    sealed.extract(segment.path, path)
    try:
        with _Lock(folder):
            _save_ledger(folder, {number: entry for number, entry in ledger(folder).items() if number != segment.number})
            os.unlink(segment.path)
            _sync_folder(folder)
    except OSError as bad:
        raise Failure(f"cannot open '{segment.path}': {bad.strerror}", IOERR) from None
    return Segment(segment.number, name, path, False)


def relist(folder: str) -> list[str]:
    """Puts sealed segments that the ledger has lost into it again; their names. Raises Failure 1, 65, 74, 75, and 77 where they can't be opened."""
    known, names = ledger(folder), []
    for part in segments(folder):
        if not part.sealed or part.number in known:
            continue
        entry = describe(folder, part)
        fd, size, _ = open_segment(part)
        entry |= {"bytes": size, "sha256": _sum(fd, 0, size)}
        os.close(fd)
        fd = regular(part.path)
        size = os.fstat(fd).st_size
        entry |= {"file": part.name, "sealed_bytes": size, "sealed_sha256": _sum(fd, 0, size)}
        os.close(fd)
        try:
            with _Lock(folder):
                _save_ledger(folder, ledger(folder) | {part.number: entry})
        except OSError as bad:
            raise Failure(f"cannot write '{folder}/{LEDGER}': {bad.strerror}", IOERR) from None
        names.append(part.name)
    return names


def anchor(folder: str) -> str:
    """The latest signed checkpoint, "" where there is none. Raises OSError."""
    try:
        fd = regular(os.path.join(folder, NOTE))
    except FileNotFoundError:
        return ""
    try:
        return os.read(fd, 4 * CHUNK).decode("utf-8", "replace")
    finally:
        os.close(fd)


def _signed(folder: str, journal: str):
    """What the latest checkpoint of this journal says, as proofs.parsed() has it; None where there is none, or it is not signed by us."""
    from . import proofs

    note = anchor(folder)
    try:
        said = proofs.parsed(proofs.opened(note)) if note else None
    except Failure:
        return None
    return said if said and said.journal == journal else None


def certify(folder: str, lines: list[str], *, stage: str, removed=(), because: str | None = None) -> dict:
    """Signs where the journal ends, appends that as a `checkpoint` and keeps it in a file of its own; returns the record.

    lines: `closed` and `segment` of proofs.text(). removed: runs of segments that are about to go, (number, first, last, hash before, last hash).
    What was removed before is said again, so that the latest checkpoint tells of all. Raises Failure 74, 75, 78 without a key.
    """
    from . import proofs

    live = _live.get(folder) or _live.setdefault(folder, _Live(folder))
    with _Lock(folder):
        live.stage, live.warn = stage, _silent
        try:
            live.look()
            before = _signed(folder, live.top.journal) or _last_signed(folder, live.top.journal)
            if before:
                _extends(folder, before, live.seq)
            if not any(line.startswith("closed ") for line in lines):
                lines = [f"closed {before.closed if before else 0}", *lines]
            runs = _merged([*(before.removed if before else ()), *removed])
            lines = [*lines, *(" ".join(map(str, ("removed", *run))) for run in runs)]
            note = proofs.sign(proofs.text(live.top.journal, live.seq, live.hash, lines))
            gone = [" ".join(map(str, run)) for run in removed] or None
            rec = record.make("checkpoint", stage, size=live.seq, hash=live.hash, note=note, removed=gone, because=because)
            live.append(_seal([prepare(rec)[1]]))
            stream.save(os.path.join(folder, NOTE), note.encode())
        except OSError as bad:
            live.key = None
            raise Failure(f"cannot write '{bad.filename or live.path}': {bad.strerror}", IOERR) from None
    return rec


def _extends(folder: str, before: "Checkpoint", last: int) -> None:
    """Raises Failure 1 where the journal, which ends at seq `last`, does not go on from a checkpoint: with a new one nobody would see it any more."""
    found = next(_contents(_plan(folder, before.size - 1, True), before.size - 1, True), None) if before.size else None
    held = found[2][4].decode() if found and found[0] == before.size else before.head
    held = next((entry["hash"] for entry in ledger(folder).values() if entry["last"] == before.size), held)
    if last < before.size or held != before.head:
        hint = f"ftai-log --verify tells more; once you know why, mv '{os.path.join(folder, NOTE)}' elsewhere"
        raise Failure(f"the journal does not go on from its last checkpoint, of seq {before.size}", SOME, hint)


def _last_signed(folder: str, journal: str):
    """As _signed(), of the newest checkpoint in the journal: only looked for where something is gone, and the file that tells of it too."""
    from . import proofs

    parts = segments(folder)
    if not parts or [part.number for part in parts] == list(range(1, len(parts) + 1)):
        return None
    # What can't be opened may hold a newer one, but that is signed, and in the chain, whatever is signed now.
    for part in (Segment(0, LIVE, os.path.join(folder, LIVE), False), *reversed(parts)):
        try:
            fd, size, top = open_segment(part)
        except (Failure, FileNotFoundError):
            continue
        found = []
        for _, piece, cut, _, _, wrong in walk(fd, top.start, size, top.first - 1, top.prev) if top else ():
            if not wrong and piece.startswith(b"\n@checkpoint\n") and b"\n  note: " in piece:
                try:
                    found.append(proofs.parsed(proofs.opened(str(parse(piece[1:cut]).get("note")))))
                except (Failure, ValueError):
                    continue
        os.close(fd)
        if found := [said for said in found if said.journal == journal]:
            return found[-1]
    return None


def _merged(runs: list) -> list[tuple]:
    """Runs of removed records, those that go on from each other made one."""
    out: list[tuple] = []
    for number, first, last, before, stored in sorted(set(map(tuple, runs)), key=lambda run: run[1]):
        if out and out[-1][2] + 1 == first and out[-1][4] == before:
            out[-1] = (number, out[-1][1], last, out[-1][3], stored)
        else:
            out.append((number, first, last, before, stored))
    return out


def drop(folder: str, numbers: list[int], because: str, *, stage: str) -> dict:
    """Removes closed segments for good. A signed checkpoint that tells of it comes first, so that the rest still verifies; returns that record.

    Raises Failure 74, 75, 78 without a key, 1 for a segment that is damaged or is not there.
    """
    parts, entries, runs = {part.number: part for part in segments(folder)}, ledger(folder), []
    for number in sorted(set(numbers)):
        if number not in parts:
            raise Failure(f"segment {number} is not there", SOME)
        # The ledger is not signed: what goes is what the segment itself says.
        entry = describe(folder, parts[number])
        if any(entries[number].get(key) != entry[key] for key in entry if number in entries):
            raise Failure(f"'{parts[number].path}' does not hold what the ledger says", SOME, "ftai-log --verify")
        runs.append((number, entry["first"], entry["last"], entry["prev"], entry["hash"]))
    rec = certify(folder, [], stage=stage, removed=_merged(runs), because=because)
    with _Lock(folder):
        _remove(folder, set(numbers))
    return rec


def _remove(folder: str, numbers: set[int]) -> list[str]:
    """Removes segments and their entries of the ledger, under the lock; the names of the files. Raises Failure 74."""
    gone = []
    try:
        for number in sorted(numbers):
            for end in ("", *SEALED):
                if os.path.lexists(path := os.path.join(folder, f"{number:06d}.ftai{end}")):
                    os.unlink(path)
                    gone.append(os.path.basename(path))
        if gone:
            _sync_folder(folder)
            _save_ledger(folder, {number: entry for number, entry in ledger(folder).items() if number not in numbers})
    except OSError as bad:
        raise Failure(f"cannot remove '{bad.filename or folder}': {bad.strerror}", IOERR) from None
    return gone


def finish(folder: str) -> list[str]:
    """Removes what the latest checkpoint says is removed, and still stands as a crash came in between; the names of it.

    Raises Failure 74, 75, and as sealed.open_() for a segment that looks as if it were one of these.
    """
    runs, entries, numbers = removed(folder), ledger(folder), set()
    for part in segments(folder) if runs else ():
        told = _top(part, entries, None)
        if told and not any(run[1] <= told.first <= run[2] for run in runs):
            continue
        entry = describe(folder, part)
        for number, first, last, before, stored in runs:
            inside = first <= entry["first"] and entry["last"] <= last and entry["segment"] <= number
            if inside and (entry["first"] > first or entry["prev"] == before) and (entry["last"] < last or entry["hash"] == stored):
                numbers.add(part.number)
    if not numbers:
        return []
    with _Lock(folder):
        return _remove(folder, numbers)


def removed(folder: str) -> list[tuple]:
    """The runs of records that the latest checkpoint of this journal says were removed: (number, first, last, hash before, last hash).

    Raises OSError, Failure 74.
    """
    parts, entries = segments(folder), ledger(folder)
    tops = (_top(part, entries, None) for part in (Segment(0, LIVE, os.path.join(folder, LIVE), False), *parts) if os.path.exists(part.path))
    journal = next((top.journal for top in tops if top), "")
    signed = journal and (_signed(folder, journal) or _last_signed(folder, journal))
    return list(signed.removed) if signed else []


def snapshot(folder: str) -> list[tuple[Segment, int, int]]:
    """(segment, fd, size) of all segments as they are at one moment, oldest first, the live one last with the number of its head and the size of its
    good records; of sealed ones the sealed file. The caller closes the descriptors. Raises Failure 75, 74.
    """
    found: list = []
    try:
        with _Lock(folder, shared=True):
            for part in segments(folder):
                fd = regular(part.path)
                found.append((part, fd, os.fstat(fd).st_size))
            try:
                fd, size, top = _open(path := os.path.join(folder, LIVE))
            except FileNotFoundError:
                return found
            if found and os.path.sameopenfile(fd, found[-1][1]):
                os.close(found.pop()[1])  # a closing that was interrupted
            found.append((Segment(top.number if top else 0, LIVE, path, False), fd, _tail(fd, top, size, _suspect(folder, top.number))[2] if top else size))
    except BaseException:
        for _, fd, _ in found:
            os.close(fd)
        raise
    return found


def leftovers(folder: str) -> None:
    """Removes torn records that were cut off, and new segments that were never put in their place. Raises Failure 75, 74."""
    with _Lock(folder):
        for name in os.listdir(folder):
            if name in (".torn", ".new") or (name.startswith(".") and name.endswith(".new") and is_closed(name[1:-4])):
                try:
                    os.unlink(os.path.join(folder, name))
                except OSError as bad:
                    raise Failure(f"cannot remove '{folder}/{name}': {bad.strerror}", IOERR) from None
        _sync_folder(folder)


def tombstones(folder: str, name: str):
    """Yields (seq, record) of the tombstones of a closed segment that are what the chain says, each with its `@chain`. Raises OSError."""
    import mmap

    fd, size, top = _open(os.path.join(folder, name))
    try:
        if top is None:
            return
        with mmap.mmap(fd, size, access=mmap.ACCESS_READ) as data:
            if data.find(b"\n@tombstone\n  @chain\n") < 0:
                return
        for _, piece, cut, seq, _, wrong in walk(fd, top.start, size, top.first - 1, top.prev):
            if not wrong and piece.startswith(b"\n@tombstone\n  @chain\n"):
                digest, stored = CHAIN.findall(piece, cut + 9)[0][2:]
                chain = {"@tag": "chain", "seq": seq, "digest": digest.decode(), "hash": stored.decode()}
                yield seq, {"@tag": "tombstone", "@blocks": [chain]}
    finally:
        os.close(fd)


# ---- verifying ----


class Trouble(namedtuple("Trouble", "path line seq id message damage", defaults=("",))):
    """One thing that is not as ftai(5) says.

    line: where it begins, 0 for the file as a whole. seq: what is or should stand there. id: of the record, "" where there is none.
    damage: the words that name what accept() may take, else "".
    """

    __slots__ = ()

    def __str__(self):
        return f"{self.path}{f':{self.line}' if self.line else ''}: seq {self.seq}{f', id {self.id}' if self.id else ''}: {self.message}"


# shut: how many of the records are in sealed segments that could not be opened.
Summary = namedtuple("Summary", "journal segments records first last hash notes shut", defaults=(0,))


def verify(folder: str = "", files=(), *, since: str | None = None, seen=None):
    """(Summary, list of Trouble): all that ftai(5), JOURNAL, asks of the journal in `folder`, or of segments given as files, oldest first.

    since: a time as archive.instant() gives it: from the segment on that was live then. seen(number, seq, hash) is called for each record that is
    right. Of a sealed segment that can't be opened here the checksum is compared with the ledger's, and a note tells of it.
    Summary is of what is good; its notes are no troubles. Raises OSError, Failure 75.
    """
    notes: list[str] = []
    live = os.path.join(folder, LIVE)
    kept = {}
    entries: dict = {}
    if files:
        parts = [Segment(0, os.path.basename(path), path, path.endswith(SEALED)) for path in files]
    else:
        with _Lock(folder, shared=True):
            parts, entries = segments(folder), ledger(folder)
            if os.path.exists(live):
                if parts and not parts[-1].sealed and os.path.samefile(parts[-1].path, live):
                    parts.pop()
                parts.append(Segment(0, LIVE, live, False))
            # What is plain may be sealed in the next moment.
            kept = {part.path: _open(part.path) for part in parts if not part.sealed}
        if since:
            parts = _later(parts, entries, since)
    check = _Check(folder, _accepted(folder) if folder else set(), seen)
    check.part = bool(files or since)
    if folder and not files:
        check.anchored(folder)
    tops = [_top(part, entries, kept.get(part.path)) for part in parts]
    for n, part in enumerate(parts):
        try:
            try:
                fd, size, found = kept.pop(part.path, None) or open_segment(part)
            except FileNotFoundError:
                # A purge has made it a plain one since, or retention took it away, and says so now.
                again = None if files else next((one for one in segments(folder) if one.number == part.number), None)
                if files or again and again.path == part.path:
                    raise
                check.anchored(folder)
                if again is None:
                    continue
                part = again
                fd, size, found = open_segment(part)
        except Failure as bad:
            if not part.sealed or bad.code in (CANTCREAT, IOERR):
                raise
            check.unopened(part, entries.get(part.number), bad)
            continue
        try:
            check.segment(part.path, fd, size, found, _until(fd, size, found, tops[n + 1 :], check.runs()))
            if part.sealed and (entry := entries.get(part.number)):
                check.listed(part, entry, found, size)
        finally:
            os.close(fd)
    names = [part.path for part in parts]
    # A tombstone is only known to be wrong at the end: the first bad record comes first all the same.
    if check.gone and folder:
        check.later()
    if folder and not files:
        check.whole(parts, entries)
        check.ended()
    else:
        check.troubles += check.short + [trouble for _, _, troubles in check.gaps for trouble in troubles]
    check.purges([part for part in parts if part.path not in check.shut])
    # What is missing is so behind all that is there.
    places = {path: n for n, path in enumerate(names)}
    check.troubles.sort(key=lambda one: (places.get(one.path, len(places)), not one.line and one.message.endswith(" are missing"), one.line))
    if folder:
        notes += check.notes
        notes += [f"the purge at seq {seq} is under way or was interrupted: ftai-archive purge --finish ends it" for seq in sorted(check.open.values())]
        words, size = _torn(folder)
        if words and words not in check.accepted:
            notes.append(f"'{folder}/.torn' keeps {size} bytes of records that nobody was told were written")
    shut = sum(check.shut.values())
    return Summary(check.journal, len(names), check.count - shut, check.first, check.seq, check.prev, notes, shut), check.troubles


def _top(part: Segment, entries: dict, kept) -> Head | None:
    """The head of a segment that is not opened for it; of a sealed one what the ledger says, or None."""
    if kept:
        return kept[2]
    if part.sealed:
        entry = entries.get(part.number)
        return entry and Head(entry["journal"], part.number, entry["first"], entry["prev"], [], 0)
    fd, _, top = _open(part.path)
    os.close(fd)
    return top


def _later(parts: list, entries: dict, since: str) -> list:
    """The segments from the one on that was live at a time: the newest whose first record is not behind it, or the oldest of all."""
    for n in range(len(parts) - 1, 0, -1):
        part = parts[n]
        if part.sealed:
            first = str(entries.get(part.number, {}).get("since", ""))
        else:
            fd, size, top = _open(part.path)
            first = next((_ts(piece) for _, piece in _pieces(fd, top.start, size) if _ts(piece)), "") if top else ""
            os.close(fd)
        if first and first <= since:
            return parts[n:]
    return parts


def _until(fd: int, size: int, top: Head | None, later: list, runs=()) -> int | None:
    """The last seq that counts in a segment, as the heads of later ones tell; None where they do not. runs: of what was removed between them."""
    after = next((head for head in later if head), None)
    if after and top:
        between = [run[1] - 1 for run in runs if top.first <= run[1] - 1 < after.first - 1]
        if between:
            return min(between)
    if after is None or later[0]:
        return after and after.first - 1
    # The next head is lost. The one behind it tells where that segment began if it goes on from this one, as _Live.restart() makes it.
    return after.first - 1 if top and _tail(fd, top, size)[:2] == (after.first - 1, after.prev) else None


def accept(folder: str) -> list:
    """Takes the damage that verify() reports as known, so that it no longer does; returns the troubles that this was about.

    Only what stands behind the last good record of a closed segment, and torn tails, can be accepted; and only as it is now.
    """
    _, troubles = verify(folder)
    found = [trouble for trouble in troubles if trouble.damage]
    lines = [trouble.damage for trouble in found]
    if words := _torn(folder)[0]:
        lines.append(words)
    fd = os.open(os.path.join(folder, ".accepted"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _write(fd, "".join(f"{line}\n" for line in lines).encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    return found


def _accepted(folder: str) -> set[str]:
    try:
        with open(os.path.join(folder, ".accepted"), encoding="utf-8", errors="replace") as known:
            return set(known.read().splitlines())
    except FileNotFoundError:
        return set()


def _damage(name: str, fd: int, at: int, end: int) -> str:
    """The words by which damage is known: the plain file, the place and what stands there."""
    return f"{name} {at} {end - at} {_sum(fd, at, end)}"


def _sum(fd: int, at: int, end: int) -> str:
    made = _sha256()()
    while at < end and (data := os.pread(fd, min(CHUNK, end - at), at)):
        made.update(data)
        at += len(data)
    return made.hexdigest()


def _torn(folder: str) -> tuple[str, int]:
    """(words by which torn records that were cut off are known, how many bytes they are); "" where there are none."""
    try:
        fd = regular(os.path.join(folder, ".torn"))
    except FileNotFoundError:
        return "", 0
    try:
        size = os.fstat(fd).st_size
        return _damage(".torn", fd, 0, size), size
    finally:
        os.close(fd)


def _line(fd: int, offset: int, at: int = 0) -> int:
    """The number of the line at `offset`, counted from that at offset `at`, which is 1."""
    number = 1
    while at < offset and (data := os.pread(fd, min(CHUNK, offset - at), at)):
        number += data.count(b"\n")
        at += len(data)
    return number


def _id(piece: bytes) -> str:
    found = re.search(rb'\n  id: "([^"\n]*)"', piece)
    return found[1].decode("utf-8", "replace") if found else ""


class _Check:
    """verify(), from segment to segment."""

    def __init__(self, folder: str, accepted: set[str], seen=None):
        self.folder, self.accepted, self.seen = folder, accepted, seen
        self.part = False  # that there may be more before the first segment
        self.notes: list[str] = []
        self.shut: dict[str, int] = {}  # sealed segments that could not be opened: how many records the ledger says they hold
        self.signed: Checkpoint | None = None  # what the latest checkpoint says
        self.reached = ""  # the hash of the record that it is of
        self.certified: list[int] = []  # sizes that signed checkpoints in the journal are of
        self.removed: set[tuple] = set()  # runs that signed checkpoints say were removed
        self.gaps: list = []  # (seq and hash before, seq and hash behind, troubles unless it was removed)
        self.short: list[Trouble] = []  # of the segment before
        self.journal, self.number, self.seq, self.prev = "", 0, 0, ""
        self.first = self.count = 0
        self.troubles: list[Trouble] = []
        self.gone: dict[str, tuple] = {}  # "SEQ DIGEST" of tombstones whose audit record has not come yet: path and offset
        self.named: dict[str, int] = {}  # "SEQ DIGEST" that audit records of purges name, and no tombstone before: seq of the audit record
        self.open: dict[str, int] = {}  # id of a purge's first audit record -> its seq, until the certificate comes

    def segment(self, path: str, fd: int, size: int, top: Head | None, until: int | None) -> None:
        if self.folder and until is None and os.path.basename(path) == LIVE and top:
            until = _suspect(self.folder, top.number)
            if until is not None:
                self.say(path, 0, top.first, "", "an error of fsync left its end in doubt; the next record that is written settles it")
            if until == sys.maxsize:
                until = None
        if top is None:
            self.number += 1
            self.damage(path, fd, 0, size, "it does not begin with the head of a segment")
            return
        self.head(path, top)
        self.declared(path, fd, size, top)
        self.seq, self.prev, end = top.first - 1, top.prev, top.start
        size_ = self.signed.size if self.signed else 0
        for offset, piece, cut, seq, stored, wrong in walk(fd, top.start, size, self.seq, self.prev):
            if until is not None and seq > until:
                break
            end = offset + len(piece) + len(END)
            if wrong:
                self.say(path, _line(fd, offset + piece.startswith(b"\n")), seq, _id(piece), wrong)
                self.seq, self.prev = max(self.seq, seq), str(stored)
                continue
            if piece.startswith(b"\n@checkpoint\n") and b"\n  note: " in piece:
                self.note(path, fd, offset, piece[1:cut])
            self.seq, self.prev = seq, str(stored)
            self.count += 1
            if seq == size_:
                self.reached = self.prev
            if self.seen:
                self.seen(top.number, seq, stored)
            if piece.startswith(b"\n@tombstone\n"):
                found = CHAIN.fullmatch(piece, cut + 9)
                if found and found[3]:
                    self.gone[f"{seq} {found[3].decode()}"] = path, offset + 1
            elif piece.startswith((b"\n@audit\n", b"\n@report\n")) and PURGE in piece:
                self.purge(seq, proof(piece[1:cut]))
        if until is not None and self.seq < until:
            self.short = [Trouble(path, 0, self.seq + 1, "", f"the records from seq {self.seq + 1} to {until} are missing")]
        if size > end + 1 or (size > end and os.pread(fd, 1, end) != b"\n"):
            what = "it is cut off: no whole record" if until is None else f"{size - end} bytes of damage behind seq {self.seq}"
            self.damage(path, fd, end, size, what)

    def say(self, path, line, seq, own, message, damage="") -> None:
        self.troubles.append(Trouble(path, line, seq, own, message, damage))

    def damage(self, path: str, fd: int, at: int, size: int, message: str) -> None:
        # Of the live segment nothing is settled yet: its next writer cuts it, or closes it.
        name = os.path.basename(path).partition(".zst.")[0]
        words = "" if name == LIVE else _damage(name, fd, at, size)
        if not words or words not in self.accepted:
            blank = os.pread(fd, 1, at) == b"\n"
            self.say(path, _line(fd, at + blank), self.seq + 1, _id(os.pread(fd, min(size - at, WINDOW), at)), message, words)

    def head(self, path: str, top: Head) -> None:
        """Compares what a head says with the chain so far."""
        before = self.number, self.seq, self.prev
        found = self.short
        self.short = []

        def say(line, seq, message):
            found.append(Trouble(path, line, seq, "", message))

        if not self.journal:
            self.journal, self.first = top.journal, top.first
            if top.first == 1:
                before = self.number if self.number else 0, 0, root(top.journal)
            else:
                if not self.part:
                    say(3, 1, f"the records before seq {top.first} are missing")
                    self.gaps.append(((0, root(top.journal)), (top.first - 1, top.prev), found))
                    found = []
                before = top.number - 1, top.first - 1, top.prev
        elif top.journal != self.journal:
            say(4, self.seq + 1, f"@document: the journal is '{top.journal}', expected '{self.journal}'")
        if top.number != before[0] + 1:
            say(5, self.seq + 1, f"@document: segment {top.number}, expected {before[0] + 1}")
        if top.first != before[1] + 1:
            say(6, before[1] + 1, f"@document: first {top.first}, expected {before[1] + 1}")
        elif top.prev != before[2]:
            say(7, before[1] + 1, "@document: prev is not the hash of the record before")
        name = os.path.basename(path)
        if top.number > before[0] + 1 and top.first > before[1] + 1:
            self.gaps.append((before[1:], (top.first - 1, top.prev), found))
            found = []
        if self.folder and is_closed(name) and int(name[:-5]) != top.number:
            say(5, top.first, f"@document: segment {top.number} in the file of another")
        self.troubles += found
        self.number = top.number

    def declared(self, path: str, fd: int, size: int, top: Head) -> None:
        """The list of tags is all of a head that the chain does not hold: each must be one that is known, or used."""
        from . import rules

        odd = set(top.tags) - rules.CORE - rules.OWN
        if odd:
            for _, piece in _pieces(fd, top.start, size):
                odd -= {tag.decode() for tag in re.findall(rb"\n *@([a-z_][a-z0-9_.-]*)", piece)}
                if not odd:
                    return
            self.say(path, 11, top.first, "", f"@schema declares '@{min(odd)}', which nobody uses")

    def purge(self, seq: int, rec: dict | None) -> None:
        """Takes note of an audit record of a purge, or of its certificate. rec: as proof() gives it."""
        if rec is None:
            return
        if rec["@tag"] == "report":
            self.open.pop(str(rec.get("about")), None)
            return
        for words in named(rec):
            if self.gone.pop(words, None) is None:
                self.named[words] = seq
        if "asked" in rec and self.folder:
            self.open[rec["id"]] = seq

    # -- what is sealed, signed and removed

    def listed(self, part: Segment, entry: dict, top: Head | None, size: int) -> None:
        """Compares a sealed segment that was opened with what the ledger says of it."""
        said = entry["journal"], part.number, entry["first"], entry["prev"], entry["bytes"]
        if top and (*top[:4], size) != said or (self.seq, self.prev, self.seq - entry["first"] + 1) != (entry["last"], entry["hash"], entry["records"]):
            self.say(part.path, 0, entry["first"], "", "it does not hold what the ledger says")

    def unopened(self, part: Segment, entry: dict | None, bad: Failure) -> None:
        """Takes a sealed segment for what the ledger says it is, where it can't be opened here and its checksum is right."""
        self.shut[part.path] = entry["records"] if entry else 0
        first = entry["first"] if entry else self.seq + 1
        if bad.code != NOPERM or entry is None:
            self.say(part.path, 0, first, "", bad.message if bad.code != NOPERM else f"the ledger does not tell of it, and {bad.message}")
        else:
            fd = regular(part.path)
            if _sum(fd, 0, os.fstat(fd).st_size) != entry.get("sealed_sha256"):
                self.say(part.path, 0, first, "", "its checksum is not that of the ledger")
            os.close(fd)
        if entry is None:
            self.number = part.number
            return
        self.head(part.path, Head(entry["journal"], part.number, entry["first"], entry["prev"], [], 0))
        self.seq, self.prev, self.count = entry["last"], entry["hash"], self.count + entry["records"]
        if self.signed and self.signed.size == self.seq:
            self.reached = self.prev

    def anchored(self, folder: str) -> None:
        """Takes note of what the latest checkpoint says, which stands apart from the journal."""
        note = anchor(folder)
        if not note:
            return
        from . import proofs

        try:
            self.signed = proofs.parsed(proofs.opened(note))
            self.removed |= set(self.signed.removed)
        except Failure as bad:
            if bad.code == CONFIG:  # no key is known here that could tell
                self.notes.append(f"'{os.path.join(folder, NOTE)}' proves nothing: {bad.message}")
            else:
                self.say(os.path.join(folder, NOTE), 0, 1, "", f"the latest checkpoint proves nothing: {bad.message}")

    def runs(self) -> list[tuple]:
        """What is known to be removed: all that can be said before the end."""
        return sorted(self.removed)

    def note(self, path: str, fd: int, offset: int, content: bytes) -> None:
        """Compares a signed checkpoint in the journal with the chain before it. What others have signed, or of another journal, says nothing."""
        from . import proofs

        try:
            said = proofs.parsed(proofs.opened(str(parse(content).get("note"))))
        except (Failure, ValueError):
            return
        if said.journal != self.journal:
            return
        self.certified.append(said.size)
        if said.size == self.seq and said.head != self.prev:
            self.say(path, _line(fd, offset + 1), self.seq + 1, _id(content), "the checkpoint is signed for another hash: what stands before was written anew")
        self.removed |= set(said.removed)

    def explains(self, run: tuple, start: tuple, end: tuple) -> bool:
        """True where all of a gap, between a seq with its hash and another, is in a run; of one that is not ended yet segments may stand in between."""
        _, first, last, before, stored = run
        within = first - 1 <= start[0] and end[0] <= last
        return within and (start[0] > first - 1 or start[1] == before) and (end[0] < last or end[1] == stored)

    def whole(self, parts: list[Segment], entries: dict) -> None:
        """Tells of segments behind the last one that there should be."""
        live = os.path.join(self.folder, LIVE)
        has = bool(parts) and parts[-1].name == LIVE
        if parts and not has:
            self.say(live, 0, self.seq + 1, "", "it is missing: closed segments are followed by a live one")
        for number in sorted(number for number in entries if number > self.number or (has and number == self.number)):
            said = entries[number]
            self.say(os.path.join(self.folder, LEDGER), 0, said["first"], "", f"segment {number}, seq {said['first']} to {said['last']}, is missing")

    def ended(self) -> None:
        """What is only known at the end: gaps that no signed checkpoint tells of, and a tail that was cut off."""
        self.troubles += self.short
        for start, end, troubles in self.gaps:
            if any(self.explains(run, start, end) for run in self.removed):
                self.notes.append(f"the records from seq {start[0] + 1} to {end[0]} were removed, as a signed checkpoint says")
            else:
                self.troubles += troubles
        live = os.path.join(self.folder, LIVE)
        # Of a checkpoint that is in the journal, and not in its file yet, a crash in between tells; of two, none does.
        if len([size for size in self.certified if not self.signed or size > self.signed.size]) > 1:
            path = os.path.join(self.folder, NOTE)
            self.say(path, 0, self.certified[-1], "", f"the latest checkpoint is {'an old one' if self.signed else 'missing'}: the journal holds newer ones")
        if not self.signed or self.signed.journal != self.journal:
            if self.signed:
                self.say(live, 0, 1, "", f"the latest checkpoint is of {'another journal' if self.journal else 'a journal that is missing'}")
            return
        size = self.signed.size
        if size > self.seq:
            self.say(live, 0, self.seq + 1, "", f"the records from seq {self.seq + 1} to {size} are missing: the latest checkpoint tells of them")
        elif self.reached and self.reached != self.signed.head:
            self.say(live, 0, size, "", "the latest checkpoint is signed for another hash of this record: what stands before was written anew")

    def later(self) -> None:
        """Takes note of what a purge has named since the journal was looked at: tombstones may stand in segments that were opened only then."""
        with _Lock(self.folder, shared=True):
            plan = _plan(self.folder, self.seq)
        for _, content, _ in _contents(plan, self.seq):
            for words in named(proof(content) or {}):
                self.gone.pop(words, None)

    def purges(self, parts: list[Segment]) -> None:
        """What is only known at the end: tombstones that nobody names, and records that are named and stand."""
        if self.shut:
            many = "1 sealed segment" if len(self.shut) == 1 else f"{len(self.shut)} sealed segments"
            self.notes.append(f"{many} could not be opened here: checked against the ledger, and no more is known")
            self.gone.clear()  # who names them may stand there
        for path in {path for path, _ in self.gone.values()}:
            places = {at: (int(words.split()[0]), "") for words, (own, at) in self.gone.items() if own == path}
            self.tell(path, places, "a tombstone that no audit record of a purge names")
        wanted = {words.split()[0].encode() for words in self.named}
        for part in parts if wanted else ():
            try:
                path, (fd, size, top) = part.path, open_segment(part)
            except FileNotFoundError:
                continue  # sealed or opened since: the next look tells
            stand: dict[int, tuple[int, str, int]] = {}

            def each(found, piece, stand=stand):
                if found.salted and (words := f"{found.seq} {found.digest}") in self.named:
                    stand[found.at + 1] = found.seq, _id(piece), self.named[words]

            if top:
                dig(fd, top.start, size, lambda piece: _number(piece) in wanted, each)
            os.close(fd)
            for at, (seq, own, audit) in stand.items():
                self.tell(path, {at: (seq, own)}, f"seq {audit} says it was purged, and it stands: ftai-archive purge --finish ends that")

    def tell(self, path: str, places: dict[int, tuple[int, str]], message: str) -> None:
        """The same trouble at several offsets of a file: {offset: (seq, id)}."""
        fd = open_segment(Segment(0, os.path.basename(path), path, path.endswith(SEALED)))[0]
        line, last = 1, 0
        for at in sorted(places):
            line, last = line + _line(fd, at, last) - 1, at
            self.say(path, line, *places[at], message)
        os.close(fd)
