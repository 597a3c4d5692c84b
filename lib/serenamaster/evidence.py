"""What proves the journal to others, and to its owner later: signed checkpoints, anchors that are kept elsewhere, proofs of one record.

See ftai(5), Checkpoints.
"""

import os
import re
from collections import namedtuple

from . import canonical, chain, journal, proofs, segments, stream
from .errors import DATAERR, NOINPUT, NOPERM, SOME, TEMPFAIL, USAGE, Failure
from .record import encode, is_id

HEAD = "ftai-proof/1"
MOST = 64 * 1024 * 1024  # bytes of an anchor, or of a proof: a record has 16 MiB at most

# Where a record is, as a proof shows. before: the hash before it; path: as proofs.path() gives it; note: the signed note with the root of the segment.
Proof = namedtuple("Proof", "segment index size before path note stored")


# ---- checkpoints ----


def latest(folder: str) -> proofs.Checkpoint | None:
    """What the latest checkpoint says; None where there is none that we signed, of this or of any journal. Raises Failure 77, OSError."""
    try:
        note = segments.anchor(folder)
        return proofs.parsed(proofs.opened(note)) if note else None
    except Failure as bad:
        if bad.code == DATAERR:
            return None
        raise


def due(folder: str, warn=None, known: dict[int, dict] | None = None) -> tuple[int, list] | None:
    """(seq, segments) that a checkpoint is to sign: where the journal ends, and what was closed since the last one, (number, first, last, root) each.

    known: {number: what segments.describe() gave}, for those of which that is known.
    None where nothing was written since. Of a segment that is damaged, or can't be opened here, there is no root: warn(message).
    Raises Failure 1 where the journal does not go on from the last checkpoint: with a new one, nobody would see it any more; 78 without a key.
    """
    chain.follows(folder)
    before, size = latest(folder), journal.position(folder)
    if before:
        _extends(folder, before)
    fresh = []
    parts = [part for part in chain.segments(folder) if not before or part.number > before.closed]
    if parts:
        proofs.key()  # without one it is in vain to open them all
    for part in parts:
        try:
            # The ledger is not signed, and what is signed here must not come from it: known are those that this process has looked at itself.
            entry = (known or {}).get(part.number) or segments.describe(folder, part)
            if "damaged" in entry:
                raise Failure(entry["damaged"])
            fresh.append((part.number, entry["first"], entry["last"], entry["root"]))
        except Failure as bad:
            if warn:
                warn(f"no root of segment {part.number} is signed: {bad.message}")
    # The last checkpoint is a record itself.
    return (size, fresh) if size and (fresh or not before or size > before.size + 1) else None


def _extends(folder: str, before: proofs.Checkpoint) -> None:
    try:
        seq, rec = next(iter(journal.read(folder, max(before.size - 1, 0))), (0, {"@blocks": []}))
    except Failure as bad:
        if bad.code != NOPERM:  # sealed, and the identity is not at hand
            raise
        return
    # What retention took away is not there to be compared.
    if not seq or (seq == before.size and rec["@blocks"][-1]["hash"] != before.head):
        hint = f"ftai-log --verify tells more; once you know why, mv '{os.path.join(folder, chain.NOTE)}' elsewhere"
        raise Failure(f"the journal does not go on from its last checkpoint, of seq {before.size}", SOME, hint)


def checkpoint(folder: str, *, stage: str, warn=None, known: dict[int, dict] | None = None) -> dict | None:
    """Signs where the journal ends, with the roots of segments that were closed since the last time; returns the record, None where there is nothing new.

    Raises Failure 74, 75, 78 without a key, OSError.
    """
    found = due(folder, warn, known)
    if found is None:
        return None
    _, fresh = found
    before = latest(folder)
    return segments.certify(folder, proofs.lines(fresh[-1][0] if fresh else before.closed if before else 0, fresh), stage=stage)


def anchor(folder: str) -> str:
    """The latest checkpoint, to be kept elsewhere. Raises Failure 66 where there is none, 65 where it is damaged or signed with another key, 78."""
    note = segments.anchor(folder)
    if not note:
        raise Failure("there is no checkpoint yet", NOINPUT, "ftai-log --checkpoint")
    proofs.parsed(proofs.opened(note))
    return note


def notes(folder: str, after: int = 0):
    """Yields (note, what it says) of the checkpoints that we signed: the latest first, then those in the journal behind segment `after`, oldest first."""
    found = [segments.anchor(folder)]
    parts = [*(part for part in chain.segments(folder) if part.number > after), chain.live(folder)]
    while found or parts:
        for note in found:
            try:
                if note:
                    yield note, proofs.parsed(proofs.opened(note))
            except Failure as bad:
                if bad.code != DATAERR:
                    raise
        found = _noted(parts.pop(0)) if parts else []


def _noted(part: chain.Segment) -> list[str]:
    """The notes of the checkpoints in a segment. Whether the chain holds is not asked: they prove themselves."""
    try:
        fd, size, top = chain.open_segment(part)
    except (FileNotFoundError, Failure):
        return []
    found: list[str] = []

    def each(_, piece):
        try:
            found.append(str(canonical.parse(piece[1 : piece.find(chain.MARK) + 1]).get("note")))
        except ValueError:
            pass

    try:
        if top:
            segments.dig(fd, top.start, size, lambda piece: piece.startswith(b"\n@checkpoint\n") and b"\n  note: " in piece, each)
    finally:
        os.close(fd)
    return found


# ---- what an anchor proves ----


class Anchor:
    """A checkpoint that was kept elsewhere, compared with the journal while that is verified: seen() is for verification.verify(), then troubles()."""

    def __init__(self, path: str):
        """Raises Failure 66, 65 for what we did not sign, 78."""
        self.path = path
        words, self.vkey = proofs.signer(_file(path))
        self.said = proofs.parsed(words)
        self.head = ""
        self.trees = {part.number: (part, proofs.Tree()) for part in self.said.segments}
        self.notes: list[str] = []
        self.proven: list[str] = []

    def seen(self, number: int, seq: int, hashes: list[str]) -> None:
        if seq <= self.said.size < seq + len(hashes):
            self.head = hashes[self.said.size - seq]
        if number in self.trees:
            part, tree = self.trees[number]
            for own in hashes[max(0, part.first - seq) : max(0, part.last + 1 - seq)]:
                tree.add(own)

    def troubles(self, folder: str, summary) -> list:
        """What the journal does not hold of what the anchor says. summary: of verification.verify(); folder: "" where it was of files."""
        said = self.said
        if summary.journal != said.journal:
            return [self._trouble(1, f"it is of the journal '{said.journal}', and this is '{summary.journal}'" if summary.journal else "there is no journal")]
        runs = {run for _, each in notes(folder) if each.journal == said.journal for run in each.removed} if folder else set()
        entries = chain.ledger(folder) if folder else {}
        out = self._tail(summary, runs, entries)
        out += [trouble for part, tree in self.trees.values() if (trouble := self._root(part, tree, summary, runs, entries))]
        return out

    def _trouble(self, seq: int, message: str):
        from . import verification

        return verification.Trouble(self.path, 0, seq, "", message)

    def _tail(self, summary, runs: set, entries: dict) -> list:
        """Compares the hash at the seq that the anchor covers."""
        size, head = self.said.size, self.head
        gone = next((run for run in sorted(runs, key=lambda run: run.last) if run.first <= size <= run.last), None)
        shut = next((entry for entry in entries.values() if entry["first"] <= size <= entry["last"]), None)
        if not size:
            head = self.said.head
        elif not head and gone:
            head = gone.hash if gone.last == size else ""
            self.notes.append(f"seq {gone.first} to {gone.last}, which the anchor covers, were removed, as a signed checkpoint says")
            if not head:
                self.notes.append(f"so it proves nothing of what is left: its own seq {size} is among them")
                return []
        elif not head and size > summary.last:
            return [self._trouble(summary.last + 1, f"the records from seq {summary.last + 1} to {size} are missing: the anchor covers them")]
        elif not head and size < summary.first:
            return [self._trouble(size, f"this was verified from seq {summary.first} on only, and the anchor ends before")]
        elif not head and shut:
            head = shut["hash"] if shut["last"] == size else ""
            self.notes.append(f"seq {size} is in a sealed segment that can't be opened here: the ledger alone tells of its hash")
            if not head:
                return []
        if head != self.said.head:
            why = "its hash is not the one that was signed: what stands up to there was written anew" if head else "it is not as written"
            return [self._trouble(size, why)]
        less = f", but for {summary.shut} records that were not read," if summary.shut else ""
        self.proven.append(f"seq {summary.first} to {size}{less}" if summary.first <= size else f"seq {size}")
        return []

    def _root(self, part: proofs.Segment, tree: proofs.Tree, summary, runs: set, entries: dict):
        """Compares the root of a segment; the trouble, or None."""
        entry = entries.get(part.number)
        if tree.size == part.last - part.first + 1 and tree.root() == part.root:
            self.proven.append(f"segment {part.number}")
            return None
        if any(run.first <= part.first and part.last <= run.last for run in runs):
            self.notes.append(f"segment {part.number} was removed, as a signed checkpoint says: nothing is proven of what it held")
        elif part.last < summary.first:
            self.notes.append(f"segment {part.number} is older than what was verified")
        elif not tree.size and entry and entry.get("root") == part.root:
            self.notes.append(f"segment {part.number} can't be opened here: by the ledger alone its root is the one that was signed")
        else:
            return self._trouble(part.first, f"the root of segment {part.number} is not the one that was signed")
        return None


def _file(path: str) -> str:
    """The text of a file (`-` is standard input), byte by byte as it is. Raises Failure as stream.chunks(), and 65."""
    parts: list[bytes] = []
    for data in stream.chunks(path):
        parts.append(data)
        if sum(map(len, parts)) > MOST:
            raise Failure(f"'{path}' is too long", DATAERR)
    try:
        return b"".join(parts).decode()
    except UnicodeDecodeError:
        raise Failure(f"'{path}' is no UTF-8", DATAERR) from None


# ---- the proof of one record ----


def prove(folder: str, own: str, at: int | None = None) -> str:
    """The proof that the journal holds the record with the id `own`, as ftai(5) describes it. at: its seq, where that is known.

    Raises Failure: 2 for no id, 66 where there is no such record, 75 where its segment is not closed, or no checkpoint has its root yet, 1 for damage.
    """
    if not is_id(own):
        raise Failure(f"'{own}' is no id of a record", USAGE, "ftai-log --prove ID")
    for part, fd, size, top in _around(folder, at):
        try:
            found = _found(fd, size, top, own)
            if found is None:
                continue
            if part.name == chain.LIVE:
                raise Failure(f"'{own}' is in the live segment, whose root nobody has signed yet", TEMPFAIL, "ftai-rotate --now")
            note, line = _rooted(folder, top.number, top.journal)
            hashes, tree = [], proofs.Tree()
            for _, _, _, seq, one, wrong in chain.walk(fd, top.start, size, top.first - 1, top.prev):
                if wrong or seq > line.last:
                    break
                hashes.append(one)
                tree.add(one)
            index = found.seq - line.first
            if tree.root() != line.root or not 0 <= index < tree.size:
                raise Failure(f"segment {line.number} is not what was signed", SOME, "ftai-log --verify")
            stored = os.pread(fd, found.end - found.at - 1, found.at + 1).decode()
        finally:
            os.close(fd)
        return written(Proof(line.number, index, tree.size, hashes[index - 1] if index else top.prev, proofs.path(hashes, index), note, stored))
    raise Failure(f"the journal holds no record '{own}', or no more", NOINPUT)


def _around(folder: str, at: int | None):
    """Yields (segment, fd, size, head) of the segment that holds seq `at`, else of all, the newest first; the caller closes each fd."""
    live = chain.live(folder)
    entries = chain.ledger(folder)
    for part in (live, *reversed(chain.segments(folder))):
        entry = entries.get(part.number) if part.sealed else None
        if at is not None and entry and at < entry["first"]:
            continue
        try:
            fd, size, top = chain.open_segment(part)
        except FileNotFoundError:
            continue
        if top is None or (at is not None and at < top.first):
            os.close(fd)
            continue
        yield part, fd, size, top


def _found(fd: int, size: int, top: chain.Head, own: str):
    """Where the record with this id is, as segments.dig() tells; None where it is not there. Raises Failure 1 where it is damaged."""
    needle, found = f'\n  id: "{own}"\n'.encode(), []
    segments.dig(fd, top.start, size, lambda piece: needle in piece, lambda one, _: found.append(one))
    if found and found[0].seq is None:
        raise Failure(f"the record '{own}' is damaged", SOME, "ftai-log --verify")
    return found[0] if found else None


def _rooted(folder: str, number: int, own: str) -> tuple[str, proofs.Segment]:
    """(note, what it says of the segment) of a checkpoint with the root of that segment. Raises Failure 75 where there is none."""
    for note, said in notes(folder, number):
        for line in said.segments if said.journal == own else ():
            if line.number == number:
                return note, line
    raise Failure(f"no checkpoint has the root of segment {number} yet", TEMPFAIL, "ftai-log --checkpoint")


def written(proof: Proof) -> str:
    """A proof as text."""
    lines = (HEAD, f"segment {proof.segment}", f"index {proof.index}", f"size {proof.size}", f"before {proof.before}", *(f"path {own}" for own in proof.path))
    return "\n".join((*lines, "", proof.note, proof.stored))


def _read(words: str) -> Proof:
    """The proof that a text is. Raises Failure 65."""
    head, _, rest = words.partition("\n\n")
    text, _, rest = rest.partition("\n\n")
    signature, _, stored = rest.partition("\n\n")
    lines = [line.split(" ") for line in head.split("\n")]
    try:
        (_, segment), (_, index), (_, size), (_, before), *path = lines[1:]
        made = Proof(int(segment), int(index), int(size), before, [own for _, own in path], f"{text}\n\n{signature}\n", stored)
    except ValueError:
        made = None
    # Written anew it must be the same: that leaves nothing in it that was not looked at.
    if made is None or written(made) != words or not all(re.fullmatch(proofs.HEX, own) for own in (before, *made.path)):
        raise Failure(f"no proof of a record: expected '{HEAD}' and what ftai(5) says", DATAERR)
    return made


def checked(words: str, keys=None) -> tuple[str, int, str, str, proofs.Segment]:
    """(journal, seq, the record's content, vkey, segment) that a proof proves. keys: vkeys instead of those in signing.pub.

    Raises Failure 65 where it proves nothing, 77, 78.
    """
    from hashlib import sha256

    proof = _read(words)
    text, vkey = proofs.signer(proof.note, keys)
    said = proofs.parsed(text)
    line = next((line for line in said.segments if line.number == proof.segment), None)
    if line is None or proof.size != line.last - line.first + 1 or not 0 <= proof.index < proof.size:
        raise Failure(f"the note has no root of {proof.size} records of segment {proof.segment}", DATAERR)
    piece = b"\n" + proof.stored.encode().removesuffix(chain.END)
    cut = piece.find(chain.MARK) + 1
    found = chain.CHAIN.fullmatch(piece, cut + 9) if cut else None
    if not found or not found[2] or not piece.startswith(b"\n@") or chain.END in piece or not proof.stored.endswith("\n@end\n"):
        raise Failure("no record with a @chain is in the proof", DATAERR)
    seq, content = int(found[1]), piece[1:cut]
    own = sha256(f"ftai-journal/1 {seq} {proof.before} {sha256(found[2] + content).hexdigest()}\n".encode()).hexdigest()
    if own != found[4].decode() or seq != line.first + proof.index:
        raise Failure("the record in the proof is not what its @chain says", DATAERR)
    if proofs.climb(own, proof.index, proof.size, proof.path) != line.root:
        raise Failure("the record in the proof is not under the root that was signed", DATAERR)
    return said.journal, seq, content.decode(), vkey, line


# ---- what is asked on a command line ----


def answer(ctx, files, asked: dict, folder, at, dry_run: bool = False) -> None:
    """asked: one of verify, checkpoint, anchor, prove (an id) and check_proof (a file); since (words) and against (a file) go with verify.

    folder() -> that of the journal; at(id) -> its seq, or None where that is not known.
    """
    asked = dict(asked)
    since, against = asked.pop("since", None), asked.pop("against", None)
    if len(asked) != 1 or (asked.keys() != {"verify"} and (files or since is not None or against is not None)) or (files and since is not None):
        hint = "--since and --against go with --verify, and FILEs too, but not with --since"
        raise Failure("expected one of --verify, --checkpoint, --anchor, --prove and --check-proof", USAGE, hint)
    ((name, value),) = asked.items()
    if name == "verify":
        _verify(ctx, "" if files else folder(), files, since, against)
    elif name == "checkpoint":
        _sign(ctx, folder(), dry_run)
    else:
        made = anchor(folder()) if name == "anchor" else prove(folder(), value, at(value)) if name == "prove" else _shown(value)
        stream.write(made.encode())


def _verify(ctx, folder: str, files, since, against) -> None:
    from . import verification

    kept = Anchor(against) if against is not None else None
    try:
        summary, troubles = verification.verify(folder, files, since=_instant(since), seen=kept and kept.seen, told=ctx.bar)
    except FileNotFoundError as bad:
        raise Failure(f"cannot read '{bad.filename}': no such file", NOINPUT) from None
    ctx.bar()
    if kept:
        troubles += kept.troubles(folder, summary)
    for trouble in troubles:
        ctx.error(str(trouble), "ftai-doctor --accept, once you know what was lost" if trouble.damage else "")
        ctx.codes.append(SOME)
    for note in (*summary.notes, *(kept.notes if kept else ())):
        ctx.warn(note)
    if summary.shut and not troubles:
        ctx.codes.append(TEMPFAIL)  # with the identity, it can be told
    if troubles or ctx.quiet:
        return
    more = f"; {summary.shut} more, in sealed segments, were not read" if summary.shut else ""
    said = f"{summary.records} records, seq {summary.first} to {summary.last}, are as written{more}; the last hash is {summary.hash}"
    said = said if summary.records else f"nothing was read{more}" if more else "empty"
    stream.write(f"journal {summary.journal}: {said}\n".encode() if summary.journal else b"no journal yet\n")
    if kept:
        what = f"{', '.join(kept.proven)} as {_key(kept.vkey)} signed; what is behind seq {kept.said.size} is chained to it, and no more is proven"
        stream.write(f"{against}: {what}\n".encode() if kept.proven else f"{against}: nothing is proven\n".encode())


def _key(vkey: str) -> str:
    """Name and id of a key, whose own base64 may hold a `+` too."""
    return "+".join(vkey.split("+", 2)[:2])


def _instant(words: str | None) -> str | None:
    from datetime import UTC

    from . import dates

    if words is None:
        return None
    found = dates.span(words, dates.now_in(None))
    if not found:
        raise Failure(f"'{words}' names no time", USAGE, "--since monday, --since 2026-11-01, --since 'last 3 days'")
    return found[0].astimezone(UTC).isoformat(timespec="milliseconds")[:23] + "Z"


def _sign(ctx, folder: str, dry_run: bool) -> None:
    if dry_run:
        found = due(folder, ctx.warn)
        stream.say(f"{ctx.name}: would sign {f'seq {found[0]}, and the roots of {len(found[1])} segments' if found else 'nothing'}")
        return
    rec = checkpoint(folder, stage=ctx.name, warn=ctx.warn)
    if rec:
        stream.write(encode(rec))
    else:
        ctx.note("nothing was written since the last checkpoint")


def _shown(path: str) -> str:
    own, seq, content, vkey, line = checked(_file(path))
    found = re.search(r'^  id: "([^"\n]*)"$', content, re.MULTILINE)
    what = f"{content.partition(chr(10))[0].partition(' ')[0]} {found[1] if found else ''}".rstrip()
    signed = f"{_key(vkey)} signed that, with seq {line.first} to {line.last} as segment {line.number}"
    return f"{path}: {what} is seq {seq} of the journal {own}: {signed}\n"
