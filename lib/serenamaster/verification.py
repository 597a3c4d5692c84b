"""Verifying: that a journal is what ftai(5), JOURNAL, says."""

import os
import re
import sys
from collections import namedtuple

from . import canonical, chain, proofs, segments
from .errors import CANTCREAT, CONFIG, IOERR, NOPERM, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


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


def verify(folder: str = "", files=(), *, since: str | None = None, seen=None, told=None):
    """(Summary, list of Trouble): all that ftai(5), JOURNAL, asks of the journal in `folder`, or of segments given as files, oldest first.

    since: a time as archive.instant() gives it: from the segment on that was live then. seen(number, seq, hashes) is called for each run of records
    of a segment that are right, from seq on, told(segments done, of all, words) now and then. Of a sealed segment that can't be opened here the
    checksum is compared with the ledger's, and a note tells of it. Summary is of what is good; its notes are no troubles. Raises OSError, Failure 75.
    """
    notes: list[str] = []
    live = os.path.join(folder, chain.LIVE)
    kept, note = {}, ""
    entries: dict = {}
    newer, top = None, None
    if files:
        parts = [chain.Segment(0, os.path.basename(path), path, path.endswith(chain.SEALED)) for path in files]
    else:
        with chain.Lock(folder, shared=True):
            parts, entries = chain.segments(folder), chain.ledger(folder)
            if os.path.exists(live):
                if parts and not parts[-1].sealed and os.path.samefile(parts[-1].path, live):
                    parts.pop()
                parts.append(chain.live(folder))
            # What is plain may be sealed in the next moment.
            kept = {part.path: chain.open_plain(part.path) for part in parts if not part.sealed}
            note = segments.anchor(folder)  # of this moment too: the next one tells of records that are not looked at
        fd, _, top = kept.get(live) or (-1, 0, None)
        newer = chain.outlived(parts[:-1], top, fd) if top else None
        if newer:
            # What follows the closed ones is not here, and this one says nothing of them.
            kept.pop(parts.pop().path)
            os.close(fd)
        if since:
            parts = _later(parts, entries, since)
    check = _Check(folder, _accepted(folder) if folder else set(), seen)
    check.part = bool(files or since)
    if folder and not files:
        check.signed = check.anchored(folder, note)
    if newer and top:
        check.say(live, 0, top.first, "", f"it is an old copy, segment {newer} was closed since: put the newer one back, or move it elsewhere")
    tops = [chain.known_head(part, entries, kept.get(part.path)) for part in parts]
    for n, part in enumerate(parts):
        if told:
            check.far = lambda at, size, n=n: told(n + at / size, len(parts), f"segment {n + 1} of {len(parts)}")
        try:
            try:
                fd, size, found = kept.pop(part.path, None) or chain.open_segment(part)
            except FileNotFoundError:
                # A purge has made it a plain one since, or retention took it away, and says so now.
                again = None if files else next((one for one in chain.segments(folder) if one.number == part.number), None)
                if files or again and again.path == part.path:
                    raise
                check.anchored(folder, segments.anchor(folder))
                if again is None:
                    continue
                part = again
                fd, size, found = chain.open_segment(part)
        except Failure as bad:
            if not part.sealed or bad.code in (CANTCREAT, IOERR):
                raise
            check.unopened(part, entries.get(part.number), bad)
            continue
        try:
            check.segment(part.path, fd, size, found, chain.until(fd, size, found, tops[n + 1 :], check.runs()))
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


def _later(parts: list, entries: dict, since: str) -> list:
    """The segments from the one on that was live at a time: the newest whose first record is not behind it, or the oldest of all."""
    for n in range(len(parts) - 1, 0, -1):
        part = parts[n]
        if part.sealed:
            first = str(entries.get(part.number, {}).get("since", ""))
        else:
            fd, size, top = chain.open_plain(part.path)
            first = next((canonical.ts(piece) for _, piece in chain.pieces(fd, top.start, size) if canonical.ts(piece)), "") if top else ""
            os.close(fd)
        if first and first <= since:
            return parts[n:]
    return parts


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
        chain.write(fd, "".join(f"{line}\n" for line in lines).encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    return found


def _accepted(folder: str) -> set[str]:
    try:
        with open(chain.regular(os.path.join(folder, ".accepted")), encoding="utf-8", errors="replace") as known:
            return set(known.read().splitlines())
    except FileNotFoundError:
        return set()


def _damage(name: str, fd: int, at: int, end: int) -> str:
    """The words by which damage is known: the plain file, the place and what stands there."""
    return f"{name} {at} {end - at} {chain.checksum(fd, at, end)}"


def _torn(folder: str) -> tuple[str, int]:
    """(words by which torn records that were cut off are known, how many bytes they are); "" where there are none."""
    try:
        fd = chain.regular(os.path.join(folder, ".torn"))
    except FileNotFoundError:
        return "", 0
    try:
        size = os.fstat(fd).st_size
        return _damage(".torn", fd, 0, size), size
    finally:
        os.close(fd)


def _telling(piece: bytes) -> bool:
    """True for a record that may say something of others: a tombstone, a signed checkpoint, what a purge has written."""
    if piece.startswith((b"\n@audit\n", b"\n@report\n")):
        return canonical.PURGE in piece
    return piece.startswith(b"\n@tombstone\n") or (piece.startswith(b"\n@checkpoint\n") and b"\n  note: " in piece)


STRETCH = 1024 * 1024  # bytes of a segment that are looked at by one process at a time
PROCESSES = 8  # at most
KINDS = frozenset((b"\n@au", b"\n@ch", b"\n@re", b"\n@to"))  # how telling records begin

# A stretch of a segment in which all is right: the offset behind its last record, seq and hash of that, the hashes of all, and
# (offset, piece, cut, seq before, hash before) of the telling ones.
Stretch = namedtuple("Stretch", "end seq hash hashes telling")


def _looked(fd: int, top: chain.Head, size: int, until: int | None):
    """Yields one Stretch after the other from the head of a segment on, as far as all is right, by as many processes as there are processors.

    A stretch begins with the seq and hash that the file says stand before it, and counts only where the one before ends just there and so: then
    it is as if one process had read all. What is wrong, or can't be shared here, is left to the caller.
    """
    import marshal

    spans = [(top.start, top.first - 1, top.prev)]
    for at in range(top.start + STRETCH, size - STRETCH // 2, STRETCH):
        found = next(chain.boundaries(fd, top, at))
        if found[0] > spans[-1][0]:
            spans.append(found)
    jobs = min(PROCESSES, len(spans), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    work = [*zip(spans, [at for at, *_ in spans[1:]] + [size], strict=True)]
    children: list = []
    try:
        for n in range(jobs if jobs > 1 else 0):
            children.append(_child(fd, work[n::jobs], until))
        for n, (span, end) in enumerate(work):
            found = marshal.load(children[n % jobs][1]) if children else _look(fd, span, end, until)
            if found is None or (n + 1 < len(spans) and found[:3] != spans[n + 1]):
                return
            yield Stretch(*found)
    except (OSError, EOFError, ValueError):
        return  # no process to be had, or it was killed
    finally:
        for _, file in children:
            file.close()  # who has more to write ends by that
        for pid, _ in children:
            try:
                os.waitpid(pid, 0)
            except ChildProcessError:
                pass  # who started this ignores SIGCHLD, and so nobody is left to be waited for


def _child(fd: int, work: list, until: int | None):
    """(pid, file) of a process that writes into the file what _look() gives of each ((offset, seq, hash), end), as marshal has it. Raises OSError."""
    import marshal
    import signal

    out, into = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        os.close(out)
        os.close(into)
        raise
    if pid:
        os.close(into)
        return pid, open(out, "rb")
    try:
        os.close(out)  # else it would wait for ever to write to a parent that was killed
        for name in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGTERM):
            if signal.getsignal(name) != signal.SIG_IGN:
                signal.signal(name, signal.SIG_DFL)  # what the stage does then is not for this process to do
        with open(into, "wb") as file:
            for span, end in work:
                marshal.dump(_look(fd, span, end, until), file)
                file.flush()
    finally:
        os._exit(0)


def _look(fd: int, span: tuple, end: int, until: int | None):
    """The fields of a Stretch, None where something in it is wrong. span: where it begins, seq and hash before. until: the last seq that counts."""
    at, seq, prev = span
    hashes, telling = [], []
    for offset, piece, cut, number, stored, wrong in chain.walk(fd, at, end, seq, prev):
        if until is not None and number > until:
            break
        if wrong:
            return None
        if piece[:4] in KINDS and _telling(piece):
            telling.append((offset, piece, cut, seq, prev))
        hashes.append(stored)
        at, seq, prev = offset + len(piece) + len(chain.END), number, stored
    return at, seq, prev, hashes, telling


class _Check:
    """verify(), from segment to segment."""

    def __init__(self, folder: str, accepted: set[str], seen=None):
        self.folder, self.accepted, self.seen = folder, accepted, seen
        self.far: Callable | None = None  # called with (bytes, of all) of the segment that is looked at
        self.part = False  # that there may be more before the first segment
        self.notes: list[str] = []
        self.shut: dict[str, int] = {}  # sealed segments that could not be opened: how many records the ledger says they hold
        self.signed: proofs.Checkpoint | None = None  # what the latest checkpoint says
        self.reached = ""  # the hash of the record that it is of
        self.certified: list[int] = []  # sizes that signed checkpoints in the journal are of
        self.removed: set[proofs.Removed] = set()  # runs that signed checkpoints say were removed
        self.gaps: list = []  # (seq and hash before, seq and hash behind, troubles unless it was removed)
        self.short: list[Trouble] = []  # of the segment before
        self.journal, self.number, self.seq, self.prev = "", 0, 0, ""
        self.first = self.count = 0
        self.troubles: list[Trouble] = []
        self.gone: dict[str, tuple] = {}  # "SEQ DIGEST" of tombstones whose audit record has not come yet: path and offset
        self.named: dict[str, int] = {}  # "SEQ DIGEST" that audit records of purges name, and no tombstone before: seq of the audit record
        self.open: dict[str, int] = {}  # id of a purge's first audit record -> its seq, until the certificate comes

    def segment(self, path: str, fd: int, size: int, top: chain.Head | None, until: int | None) -> None:
        if self.folder and until is None and os.path.basename(path) == chain.LIVE and top:
            until = chain.suspect(self.folder, top.number)
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
        if self.far:
            self.far(end, size)
        for found in _looked(fd, top, size, until):
            for offset, piece, cut, self.seq, self.prev in found.telling:
                self.told(path, fd, offset, piece, cut)
            end, self.seq, self.prev = found[:3]
            if self.far:
                self.far(end, size)
            self.good(top.number, found.hashes)
        for offset, piece, cut, seq, stored, wrong in chain.walk(fd, end, size, self.seq, self.prev):
            if until is not None and seq > until:
                break
            end = offset + len(piece) + len(chain.END)
            if wrong:
                self.say(path, chain.line(fd, offset + piece.startswith(b"\n")), seq, canonical.own_id(piece), wrong)
                self.seq, self.prev = max(self.seq, seq), str(stored)
                continue
            if _telling(piece):
                self.told(path, fd, offset, piece, cut)
            self.seq, self.prev = seq, str(stored)
            self.good(top.number, [self.prev])
        if until is not None and self.seq < until:
            self.short = [Trouble(path, 0, self.seq + 1, "", f"the records from seq {self.seq + 1} to {until} are missing")]
        if size > end + 1 or (size > end and os.pread(fd, 1, end) != b"\n"):
            what = "it is cut off: no whole record" if until is None else f"{size - end} bytes of damage behind seq {self.seq}"
            self.damage(path, fd, end, size, what)

    def good(self, number: int, hashes: list[str]) -> None:
        """Takes note of records of a segment that are right, up to self.seq."""
        self.count += len(hashes)
        first = self.seq + 1 - len(hashes)
        if self.signed and first <= self.signed.size <= self.seq:
            self.reached = hashes[self.signed.size - first]
        if self.seen:
            self.seen(number, first, hashes)

    def told(self, path: str, fd: int, offset: int, piece: bytes, cut: int) -> None:
        """Takes note of a record that is telling, behind self.seq."""
        if piece.startswith(b"\n@tombstone\n"):
            found = chain.CHAIN.fullmatch(piece, cut + 9)
            if found and found[3]:
                self.gone[f"{self.seq + 1} {found[3].decode()}"] = path, offset + 1
        elif piece.startswith(b"\n@checkpoint\n"):
            self.note(path, fd, offset, piece[1:cut])
        else:
            self.purge(self.seq + 1, canonical.proof(piece[1:cut]))

    def say(self, path, line, seq, own, message, damage="") -> None:
        self.troubles.append(Trouble(path, line, seq, own, message, damage))

    def damage(self, path: str, fd: int, at: int, size: int, message: str) -> None:
        # Of the live segment nothing is settled yet: its next writer cuts it, or closes it.
        name = os.path.basename(path).partition(".zst.")[0]
        words = "" if name == chain.LIVE else _damage(name, fd, at, size)
        if not words or words not in self.accepted:
            blank = os.pread(fd, 1, at) == b"\n"
            self.say(path, chain.line(fd, at + blank), self.seq + 1, canonical.own_id(os.pread(fd, min(size - at, chain.WINDOW), at)), message, words)

    def head(self, path: str, top: chain.Head) -> None:
        """Compares what a head says with the chain so far."""
        before = self.number, self.seq, self.prev
        found = self.short
        self.short = []

        def say(line, seq, message):
            found.append(Trouble(path, line, seq, "", message))

        if not self.journal:
            self.journal, self.first = top.journal, top.first
            if top.first == 1:
                before = self.number if self.number else 0, 0, chain.root(top.journal)
            else:
                if not self.part:
                    say(3, 1, f"the records before seq {top.first} are missing")
                    self.gaps.append(((0, chain.root(top.journal)), (top.first - 1, top.prev), found))
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
        if self.folder and chain.is_closed(name) and int(name[:-5]) != top.number:
            say(5, top.first, f"@document: segment {top.number} in the file of another")
        self.troubles += found
        self.number = top.number

    def declared(self, path: str, fd: int, size: int, top: chain.Head) -> None:
        """The list of tags is all of a head that the chain does not hold: each must be one that is known, or used."""
        from . import rules

        odd = set(top.tags) - rules.CORE - rules.OWN
        if odd:
            for _, piece in chain.pieces(fd, top.start, size):
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
        for words in canonical.named(rec):
            if self.gone.pop(words, None) is None:
                self.named[words] = seq
        if "asked" in rec and self.folder:
            self.open[rec["id"]] = seq

    # -- what is sealed, signed and removed

    def listed(self, part: chain.Segment, entry: dict, top: chain.Head | None, size: int) -> None:
        """Compares a sealed segment that was opened with what the ledger says of it."""
        said = entry["journal"], part.number, entry["first"], entry["prev"], entry["bytes"]
        if top and (*top[:4], size) != said or (self.seq, self.prev, self.seq - entry["first"] + 1) != (entry["last"], entry["hash"], entry["records"]):
            self.say(part.path, 0, entry["first"], "", "it does not hold what the ledger says")

    def unopened(self, part: chain.Segment, entry: dict | None, bad: Failure) -> None:
        """Takes a sealed segment for what the ledger says it is, where it can't be opened here and its checksum is right."""
        self.shut[part.path] = entry["records"] if entry else 0
        first = entry["first"] if entry else self.seq + 1
        if bad.code != NOPERM or entry is None:
            self.say(part.path, 0, first, "", bad.message if bad.code != NOPERM else f"the ledger does not tell of it, and {bad.message}")
        else:
            fd = chain.regular(part.path)
            if chain.checksum(fd, 0, os.fstat(fd).st_size) != entry.get("sealed_sha256"):
                self.say(part.path, 0, first, "", "its checksum is not that of the ledger")
            os.close(fd)
        if entry is None:
            self.number = part.number
            return
        self.head(part.path, chain.Head(entry["journal"], part.number, entry["first"], entry["prev"], [], 0))
        self.seq, self.prev, self.count = entry["last"], entry["hash"], self.count + entry["records"]
        if self.signed and self.signed.size == self.seq:
            self.reached = self.prev

    def anchored(self, folder: str, note: str) -> proofs.Checkpoint | None:
        """What the latest checkpoint says, which stands apart from the journal; what it says was removed is taken note of."""
        try:
            said = proofs.parsed(proofs.opened(note)) if note else None
            self.removed |= set(said.removed) if said else set()
            return said
        except Failure as bad:
            if bad.code == CONFIG:  # no key is known here that could tell
                self.notes.append(f"'{os.path.join(folder, chain.NOTE)}' proves nothing: {bad.message}")
            else:
                self.say(os.path.join(folder, chain.NOTE), 0, 1, "", f"the latest checkpoint proves nothing: {bad.message}")
            return None

    def runs(self) -> list[tuple]:
        """What is known to be removed: all that can be said before the end."""
        return sorted(self.removed)

    def note(self, path: str, fd: int, offset: int, content: bytes) -> None:
        """Compares a signed checkpoint in the journal with the chain before it. What others have signed, or of another journal, says nothing."""
        try:
            said = proofs.parsed(proofs.opened(str(canonical.parse(content).get("note"))))
        except (Failure, ValueError):
            return
        if said.journal != self.journal:
            return
        self.certified.append(said.size)
        if said.size == self.seq and said.head != self.prev:
            wrong = "the checkpoint is signed for another hash: what stands before was written anew"
            self.say(path, chain.line(fd, offset + 1), self.seq + 1, canonical.own_id(content), wrong)
        self.removed |= set(said.removed)

    def whole(self, parts: list[chain.Segment], entries: dict) -> None:
        """Tells of segments behind the last one that there should be."""
        live = os.path.join(self.folder, chain.LIVE)
        has = bool(parts) and parts[-1].name == chain.LIVE
        if parts and not has and not any(trouble.path == live for trouble in self.troubles):
            self.say(live, 0, self.seq + 1, "", "it is missing: closed segments are followed by a live one")
        for number in sorted(number for number in entries if number > self.number or (has and number == self.number)):
            said = entries[number]
            self.say(os.path.join(self.folder, chain.LEDGER), 0, said["first"], "", f"segment {number}, seq {said['first']} to {said['last']}, is missing")

    def ended(self) -> None:
        """What is only known at the end: gaps that no signed checkpoint tells of, and a tail that was cut off."""
        self.troubles += self.short
        for start, end, troubles in self.gaps:
            runs = [run for run in self.removed if proofs.explains(run, start, end)]
            if not runs:
                self.troubles += troubles
                continue
            self.notes.append(f"the records from seq {start[0] + 1} to {end[0]} were removed, as a signed checkpoint says")
            # A removal that is killed takes the oldest first: what it leaves goes on to what was not to go.
            if all(run.first <= start[0] for run in runs):
                wrong = "it is among what was removed, and nothing chains it to what follows: ftai-rotate removes it"
                self.say(troubles[0].path, 0, start[0], "", f"what stands up to seq {start[0]}: {wrong}")
        live = os.path.join(self.folder, chain.LIVE)
        # Of a checkpoint that is in the journal, and not in its file yet, a crash in between tells; of two, none does.
        if len([size for size in self.certified if not self.signed or size > self.signed.size]) > 1:
            path = os.path.join(self.folder, chain.NOTE)
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
        with chain.Lock(self.folder, shared=True):
            plan = chain.plan(self.folder, self.seq)
        for _, content, _ in chain.contents(plan, self.seq):
            for words in canonical.named(canonical.proof(content) or {}):
                self.gone.pop(words, None)

    def purges(self, parts: list[chain.Segment]) -> None:
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
                path, (fd, size, top) = part.path, chain.open_segment(part)
            except FileNotFoundError:
                continue  # sealed or opened since: the next look tells
            stand: dict[int, tuple[int, str, int]] = {}

            def each(found, piece, stand=stand):
                if found.salted and (words := f"{found.seq} {found.digest}") in self.named:
                    stand[found.at + 1] = found.seq, canonical.own_id(piece), self.named[words]

            if top:
                segments.dig(fd, top.start, size, lambda piece: chain.number(piece) in wanted, each)
            os.close(fd)
            for at, (seq, own, audit) in stand.items():
                self.tell(path, {at: (seq, own)}, f"seq {audit} says it was purged, and it stands: ftai-archive purge --finish ends that")

    def tell(self, path: str, places: dict[int, tuple[int, str]], message: str) -> None:
        """The same trouble at several offsets of a file: {offset: (seq, id)}."""
        fd = chain.open_segment(chain.Segment(0, os.path.basename(path), path, path.endswith(chain.SEALED)))[0]
        line, last = 1, 0
        for at in sorted(places):
            line, last = line + chain.line(fd, at, last) - 1, at
            self.say(path, line, *places[at], message)
        os.close(fd)
