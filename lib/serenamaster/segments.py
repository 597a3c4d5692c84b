"""Closed segments: how they come to be, what becomes of them once they are sealed, what is signed of them, and how they go."""

import errno
import os
import sys
from collections import namedtuple

from . import canonical, chain, journal, record, stream
from .errors import CANTCREAT, IOERR, SOME, TEMPFAIL, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .proofs import Checkpoint

# A record of a segment: from where to where it stands, and what its tombstone keeps; seq, digest and hash are None for what is no record.
Found = namedtuple("Found", "at end seq digest hash salted")


def dig(fd: int, at: int, size: int, wanted, each) -> int:
    """Calls each(Found, piece) for each record of a segment from offset `at` on, behind its head or a record, for which wanted(piece) is true.

    piece: as in walk(); what stands behind the last whole record is one too. Whether the chain holds is not asked. Returns where that begins.
    """
    sha256 = chain.hashing()
    for offset, piece in chain.pieces(fd, at, size):
        at = offset + len(piece) + len(chain.END)
        if wanted(piece):
            cut = piece.find(chain.MARK) + 1
            found = chain.CHAIN.fullmatch(piece, cut + 9) if cut else None
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
    with journal.writing(folder, stage) as live:
        if live.top.first <= seq:
            live.settle()
            live.close("a purge", audit=False)


def bury(folder: str, name: str, stones: list) -> None:
    """Writes a closed segment anew with a tombstone for each Found of `stones`, in their order, and puts it in the place of the old one.

    What is no record becomes an empty one, damage still; damage at the end goes altogether. The journal is locked for the renaming only: a
    closed segment does not change but by a purge, and the caller sees to it that there is one at a time. Raises Failure 73, 74, 75.
    """
    path, temporary = os.path.join(folder, name), os.path.join(folder, f".{name}.new")
    try:
        fd, size, top = chain.open_plain(path)
        try:
            before = os.fstat(fd)
            good = chain.tail(fd, top, size, until(folder, int(name[:-5]), fd, size, top))[2] if top else size
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), "wb", chain.CHUNK) as out:
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
                chain.sync(out.fileno())
            with chain.Lock(folder):
                now = os.stat(path, follow_symlinks=False)
                if not os.path.samestat(now, before) or (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                    raise Failure(f"'{path}' was changed by another process", TEMPFAIL)
                # Where a sealing or an opening was interrupted, the sealed file holds it still.
                for end in chain.SEALED:
                    if os.path.lexists(path + end):
                        os.unlink(path + end)
                entries, number = chain.ledger(folder), int(name[:-5])
                if entries.pop(number, None):
                    chain.save_ledger(folder, entries)
                os.rename(temporary, path)
                chain.sync_folder(folder)
        finally:
            os.close(fd)
            if os.path.lexists(temporary):
                os.unlink(temporary)
    except OSError as bad:
        raise Failure(f"cannot rewrite '{path}': {bad.strerror}", CANTCREAT if bad.errno in (errno.ENOSPC, errno.EDQUOT) else IOERR) from None


def _stone(stone: Found) -> bytes:
    if stone.seq is None:
        return b"\n@tombstone" + chain.END
    return f'\n@tombstone\n  @chain\n    seq: {stone.seq}\n    digest: "{stone.digest}"\n    hash: "{stone.hash}"\n  @end\n@end\n'.encode()


def _copy(fd: int, out, at: int, end: int) -> None:
    while at < end and (data := os.pread(fd, min(chain.CHUNK, end - at), at)):
        out.write(data)
        at += len(data)


def rotate(folder: str, *, stage: str) -> str | None:
    """Closes the live segment, and returns the name it has then; None where it holds nothing that written() yields: else an idle journal would get
    a new segment each time. What a crash left is finished before. Raises Failure 74, 75.
    """
    if not os.path.exists(os.path.join(folder, chain.LIVE)) and not chain.segments(folder):
        return None
    with journal.writing(folder, stage) as live:
        if next(written(live.fd, live.top, live.end, stage), None) is None:
            return None
        live.settle()
        name = os.path.basename(live.numbered(live.top.number))
        live.close("a rotation", audit=False)
    return name


def written(fd: int, top: chain.Head | None, size: int, stage: str):
    """Yields what of the records of a segment is no checkpoint and not of `stage`, as chain.pieces() does; whether the chain holds is not asked."""
    own = b'\n  from: "%b"\n' % stage.encode()
    for _, piece in chain.pieces(fd, top.start, size) if top else ():
        if not piece.startswith(b"\n@checkpoint\n") and own not in piece:
            yield piece


def until(folder: str, number: int, fd: int, size: int, top: chain.Head | None, runs: list | None = None) -> int | None:
    """The last seq that counts in a closed segment, None where that is not known. runs: what removed() says, where that was asked before."""
    found = chain.until(fd, size, top, chain.heads(folder, number), removed(folder) if runs is None else runs)
    if found is None:
        # Where its closing was interrupted there is no later head: then the mark for which it was closed still stands.
        found = chain.suspect(folder, number)
    return None if found == sys.maxsize else found


def leaves(folder: str, segment: chain.Segment, each=None):
    """Yields (seq, hash) of each record of a closed segment; each(content) is called before. Raises Failure 1 where one is not what the chain says."""
    fd, size, top = chain.open_segment(segment)
    try:
        if top is None or top.number != segment.number:
            raise Failure(f"'{segment.path}' does not begin with the head of segment {segment.number}", SOME, "ftai-log --verify")
        end = until(folder, segment.number, fd, size, top)
        last, bad = top.first - 1, ""
        for _, piece, cut, seq, stored, wrong in chain.walk(fd, top.start, size, top.first - 1, top.prev):
            if end is not None and seq > end:
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
            bad = bad if end is not None and last < end else ""
        if bad or (end is not None and last < end):
            raise Failure(bad or f"'{segment.path}': the records from seq {last + 1} to {end} are missing", SOME, "ftai-log --verify")
    finally:
        os.close(fd)


def describe(folder: str, segment: chain.Segment) -> dict:
    """What the ledger is to say of a closed segment, as far as its own bytes tell: all up to `until`; `damaged` in the place of `root` where it is
    damaged inside. Raises Failure 1 where it has no head, and as open_segment().
    """
    from . import proofs

    fd, size, top = chain.open_segment(segment)
    end = chain.tail(fd, top, size, until(folder, segment.number, fd, size, top))[:2] if top else (0, "")
    os.close(fd)
    if top is None:
        raise Failure(f"'{segment.path}' does not begin with the head of a segment", SOME, "ftai-log --verify")
    tree, last, prev, times = proofs.Tree(), top.first - 1, top.prev, ["", ""]

    def each(content):
        if ts := canonical.ts(content):
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


def put_away(folder: str, segment: chain.Segment, entry: dict) -> None:
    """Puts `entry` into the ledger, and only then removes the plain file of a segment, whose sealed one is known to be right. Raises Failure 74, 75."""
    path = os.path.join(folder, entry["file"])
    try:
        with _Held() as held, chain.Lock(folder):
            if os.stat(segment.path, follow_symlinks=False).st_size != entry["bytes"] or os.stat(path, follow_symlinks=False).st_size != entry["sealed_bytes"]:
                raise Failure(f"'{segment.path}' was changed by another process", TEMPFAIL)
            chain.save_ledger(folder, chain.ledger(folder) | {segment.number: entry})
            for end in ("", *chain.SEALED):
                if (name := f"{segment.name}{end}") != entry["file"] and os.path.lexists(os.path.join(folder, name)):
                    held.unlink(os.path.join(folder, name))
            chain.sync_folder(folder)
    except OSError as bad:
        raise Failure(f"cannot put '{segment.path}' away: {bad.strerror}", CANTCREAT if bad.errno in stream.FULL else IOERR) from None


def bring_back(folder: str, segment: chain.Segment) -> chain.Segment:
    """Puts the plain file of a sealed segment in its place again, as only such a one may be rewritten. Raises Failure 73, 74, 75, and as sealed.open_()."""
    from . import sealed

    name = f"{segment.number:06d}.ftai"
    path = os.path.join(folder, name)
    sealed.extract(segment.path, path)
    try:
        with chain.Lock(folder):
            chain.save_ledger(folder, {number: entry for number, entry in chain.ledger(folder).items() if number != segment.number})
            os.unlink(segment.path)
            chain.sync_folder(folder)
    except OSError as bad:
        raise Failure(f"cannot open '{segment.path}': {bad.strerror}", IOERR) from None
    return chain.Segment(segment.number, name, path, False)


def relist(folder: str) -> list[str]:
    """Puts sealed segments that the ledger has lost into it again; their names. Raises Failure 1, 65, 74, 75, and 77 where they can't be opened."""
    known, names = chain.ledger(folder), []
    for part in chain.segments(folder):
        if not part.sealed or part.number in known:
            continue
        entry = describe(folder, part)
        fd, size, _ = chain.open_segment(part)
        entry |= {"bytes": size, "sha256": chain.checksum(fd, 0, size)}
        os.close(fd)
        fd = chain.regular(part.path)
        size = os.fstat(fd).st_size
        entry |= {"file": part.name, "sealed_bytes": size, "sealed_sha256": chain.checksum(fd, 0, size)}
        os.close(fd)
        try:
            with chain.Lock(folder):
                chain.save_ledger(folder, chain.ledger(folder) | {part.number: entry})
        except OSError as bad:
            raise Failure(f"cannot write '{folder}/{chain.LEDGER}': {bad.strerror}", IOERR) from None
        names.append(part.name)
    return names


def anchor(folder: str) -> str:
    """The latest signed checkpoint, "" where there is none. Raises OSError."""
    try:
        fd = chain.regular(os.path.join(folder, chain.NOTE))
    except FileNotFoundError:
        return ""
    try:
        return os.read(fd, 4 * chain.CHUNK).decode("utf-8", "replace")
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

    with journal.writing(folder, stage) as live:
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
        live.append(chain.digests([canonical.prepare(rec)[1]]))
        stream.save(os.path.join(folder, chain.NOTE), note.encode())
    return rec


def _extends(folder: str, before: "Checkpoint", last: int) -> None:
    """Raises Failure 1 where the journal, which ends at seq `last`, does not go on from a checkpoint: with a new one nobody would see it any more."""
    found = next(chain.contents(chain.plan(folder, before.size - 1, True), before.size - 1, True), None) if before.size else None
    held = found[2][4].decode() if found and found[0] == before.size else before.head
    held = next((entry["hash"] for entry in chain.ledger(folder).values() if entry["last"] == before.size), held)
    if last < before.size or held != before.head:
        hint = f"ftai-log --verify tells more; once you know why, mv '{os.path.join(folder, chain.NOTE)}' elsewhere"
        raise Failure(f"the journal does not go on from its last checkpoint, of seq {before.size}", SOME, hint)


def _last_signed(folder: str, journal: str):
    """As _signed(), of the newest checkpoint in the journal: only looked for where something is gone, and the file that tells of it too."""
    from . import proofs

    parts = chain.segments(folder)
    if not parts or [part.number for part in parts] == list(range(1, len(parts) + 1)):
        return None
    # What can't be opened may hold a newer one, but that is signed, and in the chain, whatever is signed now.
    for part in (chain.live(folder), *reversed(parts)):
        try:
            fd, size, top = chain.open_segment(part)
        except (Failure, FileNotFoundError):
            continue
        found = []
        for _, piece, cut, _, _, wrong in chain.walk(fd, top.start, size, top.first - 1, top.prev) if top else ():
            if not wrong and piece.startswith(b"\n@checkpoint\n") and b"\n  note: " in piece:
                try:
                    found.append(proofs.parsed(proofs.opened(str(canonical.parse(piece[1:cut]).get("note")))))
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
    parts, entries, runs = {part.number: part for part in chain.segments(folder)}, chain.ledger(folder), []
    for number in sorted(set(numbers)):
        if number not in parts:
            raise Failure(f"segment {number} is not there", SOME)
        # The ledger is not signed: what goes is what the segment itself says.
        entry = describe(folder, parts[number])
        if any(entries[number].get(key) != entry[key] for key in entry if number in entries):
            raise Failure(f"'{parts[number].path}' does not hold what the ledger says", SOME, "ftai-log --verify")
        runs.append((number, entry["first"], entry["last"], entry["prev"], entry["hash"]))
    rec = certify(folder, [], stage=stage, removed=_merged(runs), because=because)
    _remove(folder, set(numbers))
    return rec


def _remove(folder: str, numbers: set[int]) -> list[str]:
    """Removes segments and their entries of the ledger; the names of the files. Raises Failure 74, 75."""
    gone = []
    try:
        with _Held() as held, chain.Lock(folder):
            for number in sorted(numbers):
                for end in ("", *chain.SEALED):
                    if os.path.lexists(path := os.path.join(folder, f"{number:06d}.ftai{end}")):
                        held.unlink(path)
                        gone.append(os.path.basename(path))
            if gone:
                chain.sync_folder(folder)
                chain.save_ledger(folder, {number: entry for number, entry in chain.ledger(folder).items() if number not in numbers})
    except OSError as bad:
        raise Failure(f"cannot remove '{bad.filename or folder}': {bad.strerror}", IOERR) from None
    return gone


class _Held:
    """`with _Held() as held, Lock(…):` held.unlink(path) removes a file from its folder at once, and from the disk only when the lock is free again: of
    a large one that takes a second (ext4), in which no writer could write.
    """

    def __enter__(self):
        self.fds: list[int] = []
        return self

    def unlink(self, path: str) -> None:
        try:
            self.fds.append(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError:
            pass  # it is removed all the same
        os.unlink(path)

    def __exit__(self, *_):
        for fd in self.fds:
            os.close(fd)


def finish(folder: str) -> list[str]:
    """Removes what the latest checkpoint says is removed, and still stands as a crash came in between; the names of it.

    Raises Failure 74, 75, and as sealed.open_() for a segment that looks as if it were one of these.
    """
    runs, entries, numbers = removed(folder), chain.ledger(folder), set()
    for part in chain.segments(folder) if runs else ():
        told = chain.known_head(part, entries, None)
        if told and not any(run[1] <= told.first <= run[2] for run in runs):
            continue
        entry = describe(folder, part)
        for number, first, last, before, stored in runs:
            inside = first <= entry["first"] and entry["last"] <= last and entry["segment"] <= number
            if inside and (entry["first"] > first or entry["prev"] == before) and (entry["last"] < last or entry["hash"] == stored):
                numbers.add(part.number)
    return _remove(folder, numbers) if numbers else []


def removed(folder: str) -> list[tuple]:
    """The runs of records that the latest checkpoint of this journal says were removed: (number, first, last, hash before, last hash).

    Raises OSError, Failure 74.
    """
    parts, entries = chain.segments(folder), chain.ledger(folder)
    tops = (chain.known_head(part, entries, None) for part in (chain.live(folder), *parts) if os.path.exists(part.path))
    journal = next((top.journal for top in tops if top), "")
    signed = journal and (_signed(folder, journal) or _last_signed(folder, journal))
    return list(signed.removed) if signed else []


def snapshot(folder: str) -> list[tuple[chain.Segment, int, int]]:
    """(segment, fd, size) of all segments as they are at one moment, oldest first, the live one last with the number of its head and the size of its
    good records; of sealed ones the sealed file. The caller closes the descriptors. Raises Failure 75, 74.
    """
    found: list = []
    try:
        with chain.Lock(folder, shared=True):
            for part in chain.segments(folder):
                fd = chain.regular(part.path)
                found.append((part, fd, os.fstat(fd).st_size))
            try:
                fd, size, top = chain.open_plain(path := os.path.join(folder, chain.LIVE))
            except FileNotFoundError:
                return found
            if found and os.path.sameopenfile(fd, found[-1][1]):
                os.close(found.pop()[1])  # a closing that was interrupted
            good = chain.tail(fd, top, size, chain.suspect(folder, top.number))[2] if top else size
            found.append((chain.Segment(top.number if top else 0, chain.LIVE, path, False), fd, good))
    except BaseException:
        for _, fd, _ in found:
            os.close(fd)
        raise
    return found


def leftovers(folder: str) -> None:
    """Removes torn records that were cut off, and new segments that were never put in their place. Raises Failure 75, 74."""
    with chain.Lock(folder):
        for name in os.listdir(folder):
            if name in (".torn", ".new") or (name.startswith(".") and name.endswith(".new") and chain.is_closed(name[1:-4])):
                try:
                    os.unlink(os.path.join(folder, name))
                except OSError as bad:
                    raise Failure(f"cannot remove '{folder}/{name}': {bad.strerror}", IOERR) from None
        chain.sync_folder(folder)


def places(fd: int, size: int, mark: bytes):
    """Yields the offsets at which `mark` stands in a file."""
    for base in range(0, size, chain.CHUNK):
        data = os.pread(fd, chain.CHUNK + len(mark) - 1, base)
        at = data.find(mark)
        while at >= 0:
            yield base + at
            at = data.find(mark, at + 1)


def tombstones(folder: str, name: str):
    """Yields (seq, record) of the tombstones of a closed segment that are what the chain says, each with its `@chain`. Raises OSError."""
    fd, size, top = chain.open_plain(os.path.join(folder, name))
    try:
        if top is None or next(places(fd, size, b"\n@tombstone\n  @chain\n"), None) is None:
            return
        for _, piece, cut, seq, _, wrong in chain.walk(fd, top.start, size, top.first - 1, top.prev):
            if not wrong and piece.startswith(b"\n@tombstone\n  @chain\n"):
                digest, stored = chain.CHAIN.findall(piece, cut + 9)[0][2:]
                block = {"@tag": "chain", "seq": seq, "digest": digest.decode(), "hash": stored.decode()}
                yield seq, {"@tag": "tombstone", "@blocks": [block]}
    finally:
        os.close(fd)
