"""The chain: the shape of a segment, its records and their hashes, as ftai(5), JOURNAL, has it; and what reads it."""

import errno
import fcntl
import os
import re
import sys
import time
from collections import namedtuple

import orjson

from . import record, stream
from .errors import CANTCREAT, IOERR, TEMPFAIL, Failure

LIVE = "current.ftai"
LEDGER = "ledger"  # what sealed segments hold: ftai(5), Closed segments
NOTE = "checkpoint"  # the latest signed checkpoint
SEALED = (".zst.sealed", ".zst.age")  # how the name of a sealed segment goes on behind that of the plain one
WAIT = 10.0  # seconds that a writer or reader waits for the lock
CHUNK = 1024 * 1024
WINDOW = 64 * 1024
NEAR = 8 * 1024  # where the search for the last record begins

END = b"\n@end\n"
MARK = b"\n  @chain\n"
CHAIN = re.compile(rb'    seq: ([1-9][0-9]{0,17})\n    (?:salt: "([0-9a-f]{32})"|digest: "([0-9a-f]{64})")\n    hash: "([0-9a-f]{64})"\n  @end')
CHAINED = b'  @chain\n    seq: %d\n    salt: "%b"\n    hash: "%b"\n  @end'
SALT = slice(-117, -85)  # of CHAINED
HEX = frozenset("0123456789abcdef")

Head = namedtuple("Head", "journal number first prev tags start")  # start: the offset behind it


def hashing():
    """What makes a SHA-256, as hashlib.sha256: hashlib itself loads every other algorithm too, which costs a fifth of a start of Python."""
    try:
        from _hashlib import openssl_sha256
    except ImportError:
        from hashlib import sha256 as openssl_sha256
    return openssl_sha256


def root(journal: str) -> str:
    """The hash before seq 1."""
    sha256 = hashing()
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


def pieces(fd: int, at: int, end: int):
    """Yields (offset, bytes) of what stands before each `@end` line of a file from `at` (behind a record) to `end`."""
    rest = b""
    position = at
    while position < end:
        # Reading as much again as is in hand keeps a file without a single `@end` from being copied over and over.
        # What the caches of a processor hold: twice as fast as CHUNK.
        data = os.pread(fd, min(max(WINDOW, len(rest)), end - position), position)
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
    sha256 = hashing()
    # After a wrong record: what else may stand before the next one, so that one bad record is one finding. A hash that is None fits all.
    others: list[tuple] = []
    for offset, piece in pieces(fd, at, end):
        cut, number, salt = piece.find(MARK) + 1, seq + 1, piece[SALT]
        # Nearly all are right: their blocks, written anew, are the same bytes, and that is sooner seen than what they say.
        if number < 10**18 and not salt.translate(None, b"0123456789abcdef"):
            digest = sha256(salt + piece[1:cut]).hexdigest()
            computed = sha256(f"ftai-journal/1 {number} {prev} {digest}\n".encode()).hexdigest()
            if piece[cut:] == CHAINED % (number, salt, computed.encode()) and piece.startswith(b"\n@"):
                seq, prev = number, computed
                others = []
                yield offset, piece, cut, seq, prev, ""
                continue
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


def boundaries(fd: int, top: Head, size: int):
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


def tail(fd: int, top: Head, size: int, until: int | None = None):
    """(seq, hash, offset behind it, what follows) of the last good record of a segment, not reading all of it.

    What follows: "" nothing, "torn" less than a record, "wrong" a record that is not right. until: the last seq that counts.
    """
    for at, seq, prev in boundaries(fd, top, size):
        if until is None or seq <= until:
            found = scan(fd, at, size, seq, prev, until)
            # A record end that was found by searching is believed only if a record behind it goes on from it.
            if found[2] > at:
                return found
    return scan(fd, top.start, size, top.first - 1, top.prev, until)


def scan(fd: int, at: int, size: int, seq: int, prev: str, until: int | None, each=None):
    """As tail(), reading all from offset `at`, where `seq` and `prev` stand before; each(seq, content) is called for the good ones."""
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


class Lock:
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


def live(folder: str) -> Segment:
    """The live segment, there or not."""
    return Segment(0, LIVE, os.path.join(folder, LIVE), False)


def outlived(closed: list[Segment], top: Head, fd: int) -> int | None:
    """The number of the newest closed segment, where a live one, open as `fd` and of this head, was put back by hand and is older than that; else None."""
    if not closed or closed[-1].number < top.number:
        return None
    if closed[-1].number == top.number and not closed[-1].sealed:
        try:
            own, _, other = open_plain(closed[-1].path)
        except FileNotFoundError:
            return None  # it was sealed since
        same = os.path.samestat(os.fstat(own), os.fstat(fd))
        os.close(own)
        # A closing that was killed leaves one file with both names; what is no segment is only in the way.
        if same or other is None or other.journal != top.journal:
            return None
    return closed[-1].number


def ledger(folder: str) -> dict[int, dict]:
    """{number: entry} of the sealed segments, as ftai(5), Closed segments, tells. Lines that are damaged are left out. Raises Failure as regular() does."""
    found = {}
    path = os.path.join(folder, LEDGER)
    try:
        with open(regular(path), "rb") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return {}
    except OSError as bad:
        raise Failure(f"cannot read '{path}': {bad.strerror}", IOERR) from None
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


def save_ledger(folder: str, entries: dict[int, dict]) -> None:
    """Writes the ledger anew, {number: entry}, under the lock. Raises OSError."""
    stream.save(os.path.join(folder, LEDGER), b"".join(record.encode(entries[number]) for number in sorted(entries)))


def entry_of(segment: Segment, entries: dict[int, dict]) -> dict:
    """What the ledger says of a sealed segment; where it is lost, what the segment itself says. Raises Failure where that can't be opened."""
    if segment.number in entries:
        return entries[segment.number]
    fd, size, top = open_segment(segment)
    try:
        if top is None or top.number != segment.number:
            raise Failure(f"'{segment.path}' holds another segment", IOERR)
        seq, last, *_ = tail(fd, top, size)
    finally:
        os.close(fd)
    return {"journal": top.journal, "first": top.first, "last": seq, "prev": top.prev, "hash": last, "bytes": size, "records": seq - top.first + 1}


def open_segment(segment: Segment):
    """(fd, size, head or None) of a closed segment; a sealed one is opened. Raises FileNotFoundError, and Failure as sealed.open_() does."""
    if not segment.sealed:
        return open_plain(segment.path)
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


def open_plain(path: str):
    """(fd, size, head or None) of a segment."""
    fd = regular(path)
    return fd, os.fstat(fd).st_size, head(os.pread(fd, WINDOW, 0))


def suspect(folder: str, number: int) -> int | None:
    """The last good seq where an error of fsync left segment `number` in doubt; sys.maxsize where not even that could be written down.

    Raises Failure as regular() does.
    """
    path = os.path.join(folder, ".suspect")
    if not os.path.exists(path):
        return None  # nor does a link to nowhere mark anything
    try:
        with open(regular(path), "rb") as mark:
            words = mark.read(100).split()
    except FileNotFoundError:
        return None
    if len(words) != 2 or not (words[0] + words[1]).isdigit():
        return sys.maxsize
    return int(words[0]) if int(words[1]) == number else None


def plan(folder: str, after: int, plain: bool = False) -> list:
    """[path, fd or -1, head, size, last seq] of the segments that may hold records behind `after`, oldest first. The caller holds the lock.

    plain: the sealed ones are left out.
    """
    plan = []
    until = None
    parts = segments(folder)
    entries: dict | None = None
    try:
        fd, size, top = open_plain(os.path.join(folder, LIVE))
    except FileNotFoundError:
        pass
    else:
        if top is None or outlived(parts, top, fd):
            os.close(fd)
        else:
            # What stands behind the last good record may get its seq again from the next writer.
            until, _, size, _ = tail(fd, top, size, suspect(folder, top.number))
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
            entry = entry_of(part, entries)
            top = Head(entry["journal"], part.number, entry["first"], entry["prev"], [], 0)
            plan.append((path, -1, top, entry["bytes"], entry["last"] if until is None else until))
            until = top.first - 1
            continue
        fd, size, top = open_plain(path)
        if top is not None:
            plan.append((path, -1, top, size, tail(fd, top, size)[0] if until is None else until))
            until = top.first - 1
        os.close(fd)
    return plan[::-1]


def contents(plan: list, after: int, plain: bool = False):
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
            at, last, prev = next(found for found in boundaries(fd, top, size) if found[1] <= after or found[0] == top.start)
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


def digests(contents: list) -> list:
    """(content, salt, digest) of each: all of the chain that needs no lock."""
    sha256 = hashing()
    salts = os.urandom(16 * len(contents)).hex()
    made = []
    for n, content in enumerate(contents):
        salt = salts[32 * n : 32 * n + 32]
        made.append((content, salt, sha256(salt.encode() + content).hexdigest()))
    return made


def link(sealed: list, seq: int, prev: str):
    """The bytes of sealed records in the chain behind `seq`, each with the blank line before it, and the hash of the last."""
    sha256 = hashing()
    out: list[bytes] = []
    for content, salt, digest in sealed:
        seq += 1
        prev = sha256(f"ftai-journal/1 {seq} {prev} {digest}\n".encode()).hexdigest()
        out += (b"\n", content, CHAINED % (seq, salt.encode(), prev.encode()), END)
    return b"".join(out), prev


def sync(fd: int) -> None:
    """Puts a file's bytes on the disk. Raises OSError."""
    if sys.platform == "darwin":
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # fsync there stops at the disk's own cache: fsync(2) of macOS
    else:
        os.fdatasync(fd)


def sync_folder(folder: str) -> None:
    """Puts on the disk which names a folder has. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write(fd: int, data: bytes) -> None:
    """Writes all of `data`, in one write if the system takes it so. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def number(piece: bytes) -> bytes:
    """The seq that a record says, nothing where it says none."""
    at = piece.find(MARK) + len(MARK) + 9
    return piece[at : piece.find(b"\n", at)] if at > len(MARK) + 8 else b""


def heads(folder: str, number: int) -> list:
    """The heads of the segments behind one, as until() takes them: to the first that is one, None for each that is lost before it."""
    later = [part for part in segments(folder) if part.number > number]
    entries = ledger(folder) if any(part.sealed for part in later) else {}
    heads = []
    for part in [*later, live(folder)]:
        if part.sealed:
            entry = entry_of(part, entries)
            heads.append(Head(entry["journal"], part.number, entry["first"], entry["prev"], [], 0))
            break
        try:
            fd, _, top = open_plain(part.path)
        except FileNotFoundError:
            continue
        os.close(fd)
        # Where a closing was interrupted the live one is still this one itself.
        if not part.number and top and top.number <= number:
            continue
        heads.append(top)
        if top and heads[0]:
            break
    return heads


def follows(folder: str) -> None:
    """Raises Failure 74 where the live segment is an old copy: a rotation would seal it in the place of one that has more, or take it for a removed one."""
    closed = segments(folder)  # first, as the live one may be closed at any time
    path = os.path.join(folder, LIVE)
    try:
        fd, _, top = open_plain(path)
    except FileNotFoundError:
        return
    try:
        newer = outlived(closed, top, fd) if top else None
    finally:
        os.close(fd)
    if newer:
        hint = f"put the newer one back, or mv '{path}' elsewhere: then the journal goes on behind the closed ones"
        raise Failure(f"cannot go on with '{path}': it is an old copy, segment {newer} was closed since", IOERR, hint)


def known_head(part: Segment, entries: dict, kept) -> Head | None:
    """The head of a segment that is not opened for it; of a sealed one what the ledger says, or None."""
    if kept:
        return kept[2]
    if part.sealed:
        entry = entries.get(part.number)
        return entry and Head(entry["journal"], part.number, entry["first"], entry["prev"], [], 0)
    fd, _, top = open_plain(part.path)
    os.close(fd)
    return top


def until(fd: int, size: int, top: Head | None, later: list, runs=()) -> int | None:
    """The last seq that counts in a segment, as the heads of later ones tell; None where they do not. runs: of what was removed between them."""
    after = next((head for head in later if head), None)
    if after and top:
        between = [run[1] - 1 for run in runs if top.first <= run[1] - 1 < after.first - 1]
        if between:
            return min(between)
    if after is None or later[0]:
        return after and after.first - 1
    # The next head is lost. The one behind it tells where that segment began if it goes on from this one, as journal.Live.restart() makes it.
    return after.first - 1 if top and tail(fd, top, size)[:2] == (after.first - 1, after.prev) else None


def checksum(fd: int, at: int, end: int) -> str:
    """SHA-256, in hex, of the bytes of a file from one offset to another."""
    made = hashing()()
    while at < end and (data := os.pread(fd, min(CHUNK, end - at), at)):
        made.update(data)
        at += len(data)
    return made.hexdigest()


def line(fd: int, offset: int, at: int = 0) -> int:
    """The number of the line at `offset`, counted from that at offset `at`, which is 1."""
    number = 1
    while at < offset and (data := os.pread(fd, min(CHUNK, offset - at), at)):
        number += data.count(b"\n")
        at += len(data)
    return number
