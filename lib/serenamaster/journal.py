"""The journal: records that are chained by hashes, only ever appended to, as ftai(5), JOURNAL, describes it. Reading, then writing."""

import os
import re
import sys
from contextlib import contextmanager, suppress

import orjson

from . import canonical, chain, record, stream, text
from .errors import IOERR, USAGE, Failure

GAP = 20_000  # records behind the archive whose ids are looked up in the journal itself


def read(folder: str, after: int = 0):
    """Yields (seq, record) of the records behind seq `after`, in order; each ends with its `@chain` block, so it is history.

    Only synced records that are what the chain says; what is not is left out (verify() tells of it). Raises Failure 75, OSError, and for a sealed
    segment that can't be opened Failure 77 or 65.
    """
    with chain.Lock(folder, shared=True):
        plan = chain.plan(folder, after)
    for seq, content, found in chain.contents(plan, after):
        rec = canonical.parse(content)
        block = {"@tag": "chain", "seq": seq, "salt": found[2].decode()} if found[2] else {"@tag": "chain", "seq": seq, "digest": found[3].decode()}
        block["hash"] = found[4].decode()
        rec.setdefault("@blocks", []).append(block)
        yield seq, rec


def position(folder: str) -> int:
    """The seq of the last record, 0 for an empty or missing journal; reads its end only."""
    live = _live.get(folder)
    if live and live.same():
        return live.seq
    with chain.Lock(folder, shared=True):
        plan = chain.plan(folder, sys.maxsize)
    for _, fd, *_ in plan:
        if fd >= 0:
            os.close(fd)
    return plan[-1][-1] if plan else 0


def _place(folder: str, seq: int, digest: str) -> tuple[int, str] | None:
    """(seq, its hash) where the journal holds a record with that seq and hash ("": any), else of the record before the segment that stands there.

    None while there is no live segment that can be read: the next writer says where it goes on.
    """
    with chain.Lock(folder, shared=True):
        plan = chain.plan(folder, max(seq - 1, 0))
        # What is sealed is not opened for that: of its last record the ledger tells, where one that reads on mostly is when the next one begins.
        found = next(records := chain.contents(plan, max(seq - 1, 0), True), None)
        records.close()
        sealed = next((entry["hash"] for entry in chain.ledger(folder).values() if entry["last"] == seq), "")
    if not plan or os.path.basename(plan[-1][0]) != chain.LIVE:
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
    path = os.path.join(folder, chain.LIVE)
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


def _tags() -> list[str]:
    """What the head of a new segment declares: with all known tags, a further @schema is only needed for foreign ones."""
    from . import rules

    return sorted((rules.CORE | rules.OWN) - {"ftai", "document", "schema", "intent", "include"})


class Live:
    """The live segment as this process last saw it. Everything but the start is done under the lock."""

    def __init__(self, folder: str):
        self.folder, self.path = folder, os.path.join(folder, chain.LIVE)
        self.fd, self.top = -1, chain.Head("", 0, 1, "", [], 0)
        self.key: tuple | None = None  # device and inode; None: to be looked at anew
        self.size = self.end = self.seq = 0  # end: behind the last record; size may be one blank line more
        self.hash = ""
        self.declared: set[str] = set()
        self.settled: tuple = ()  # (key, end) up to where this process has synced it
        self.searched = 0  # how far the segment was searched for further schemas
        self.recent: dict = {}  # id -> (seq, hash() of the content, or the content where it holds a marker) of records behind `since`
        self.since = 0
        self.stage, self.warn = "", _silent

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)

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
        # Where another process could not sync, it wrote nothing, and what is written behind the place in doubt is not read.
        # A second link is of a closing that was killed: what is written there now would be behind the end that a rotation has seen.
        if key == self.key and seen.st_size == self.size and seen.st_nlink == 1 and not os.path.lexists(os.path.join(self.folder, ".suspect")):
            return None  # as same() would say
        if key != self.key or seen.st_size < self.end:
            if not self.open():
                return self.restart("the live segment has no head" if seen.st_size else "the live segment was empty")
            chain.follows(self.folder)
            good = chain.tail(self.fd, self.top, seen.st_size, chain.suspect(self.folder, self.top.number))
            self.recent.clear()
            self.since = good[0]
            if good[0] <= self.top.first + 1:
                # It may hold nothing yet but what start() writes, and who began it may have been killed before its name was on the disk.
                chain.sync_folder(self.folder)
        else:
            good = self.follow(seen.st_size)
        self.seq, self.hash, self.end, rest = good
        self.key, self.size = key, seen.st_size
        if chain.suspect(self.folder, self.top.number) is not None:
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
        self.fd = chain.regular(self.path, os.O_RDWR | os.O_APPEND)
        top = chain.head(os.pread(self.fd, chain.WINDOW, 0))
        if top is None:
            return False
        self.top, self.declared, self.searched = top, {"document", "schema", *top.tags}, top.start - 1
        return True

    def follow(self, size: int):
        """Reads what other writers appended; as chain.tail()."""

        def each(seq, content):
            if canonical.PURGE in content:
                # What went is no repeat when it comes again.
                self.recent.clear()
                self.since = seq
            self.remember(seq, content)

        return chain.scan(self.fd, self.end, size, self.seq, self.hash, chain.suspect(self.folder, self.top.number), each)

    def remember(self, seq: int, content: bytes) -> None:
        found = re.search(rb'\n  id: "([0-9a-fA-F-]{36})"\n', content)
        if found:
            self.recent[found[1].decode()] = seq, content if canonical.MARKED.search(content) else hash(content)

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
                chain.write(fd, f"// {record.now()} segment {self.top.number} behind seq {self.seq}: {len(torn)} bytes\n".encode() + kept + b"\n")
            finally:
                os.close(fd)
        except OSError as bad:
            # On a full disk the journal itself comes first.
            self.warn(f"cannot keep them: {bad.strerror}")
        os.ftruncate(self.fd, self.end)
        chain.sync(self.fd)
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
        chain.sync_folder(self.folder)
        self.start(self.top.journal, self.top.number + 1, self.seq, self.hash, why, os.path.basename(name) if audit else "")
        try:
            os.unlink(os.path.join(self.folder, ".suspect"))
            chain.sync_folder(self.folder)
        except FileNotFoundError:
            pass

    def restart(self, why: str) -> None:
        """Starts a segment where the live one is missing or cannot be read: behind the closed ones, or a new journal."""
        number = seq = 0
        journal, prev, damaged = "", "", ""
        parts = chain.segments(self.folder)
        entries = chain.ledger(self.folder)
        for part in reversed(parts):
            if part.sealed:
                entry = chain.entry_of(part, entries)
                journal, seq, prev = entry["journal"], entry["last"], entry["hash"]
                break
            fd, size, top = chain.open_plain(part.path)
            if top is not None:
                journal, (seq, prev, *_) = top.journal, chain.tail(fd, top, size)
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
            prev = chain.root(journal)
        # What this process has written may be gone with its segment: it is no repeat then.
        self.recent.clear()
        self.since = seq
        if number:
            self.warn(f"started segment {number + 1} behind seq {seq}: {why}")
        self.start(journal, number + 1, seq, prev, why if number else "", damaged)

    def start(self, journal: str, number: int, seq: int, prev: str, why: str, damaged: str) -> None:
        """Makes a live segment with its head, and the records that tell `why` where it goes on from another."""
        first = []
        if why:
            first.append(record.make("checkpoint", self.stage, segment=number - 1, last=seq, hash=prev, because=why))
        if damaged:
            first.append(record.make("audit", self.stage, act="close", subject=damaged, who=user(), outcome="closed", because=why))
        data, last = chain.link(chain.digests([canonical.prepare(rec)[1] for rec in first]), seq, prev)
        data = chain.heading(journal, number, seq + 1, prev, _tags()) + data
        temporary = os.path.join(self.folder, ".new")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            chain.write(fd, data)
            os.fsync(fd)
            os.rename(temporary, self.path)
        except BaseException:
            stream.discard(temporary)
            raise
        finally:
            os.close(fd)
        chain.sync_folder(self.folder)
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
        return chain.digests([text.dump(rec)[:-5].encode()])

    def append(self, sealed: list) -> None:
        """Writes records behind the last one and syncs. Raises Failure 74: then nothing of it counts."""
        data, last = chain.link(sealed, self.seq, self.hash)
        if self.size > self.end:
            data = data[1:]  # the blank line is there
        try:
            chain.write(self.fd, data)
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
            chain.sync(self.fd)
        except OSError as bad:
            # What is on the disk can't be known from here on, and another fsync would report success (https://wiki.postgresql.org/wiki/Fsync_Errors).
            self.key = None
            self.doubt()
            raise Failure(f"cannot sync '{self.path}': {bad.strerror}", IOERR, "ftai-doctor") from None
        self.size += len(data)
        self.end, self.seq, self.hash = self.size, self.seq + len(sealed), last
        self.settled = self.key, self.end

    def settle(self) -> None:
        """Syncs what others wrote last, who may have been killed before they did. Raises Failure 74."""
        if self.settled == (self.key, self.end):
            return
        try:
            chain.sync(self.fd)
        except OSError as bad:
            self.doubt()
            raise Failure(f"cannot sync '{self.path}': {bad.strerror}", IOERR, "ftai-doctor") from None
        self.settled = self.key, self.end

    def doubt(self) -> None:
        try:
            fd = os.open(os.path.join(self.folder, ".suspect"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                chain.write(fd, b"%d %d\n" % (self.seq, self.top.number))
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError:
            # The mark may not even be there: then what nobody was told is written must not be taken for written. To cut needs no room.
            with suppress(OSError):
                os.ftruncate(self.fd, self.size)

    def behind(self, upto: int) -> dict:
        """`recent`, made complete for all records behind seq `upto`, as far as that is not too much to read."""
        if upto < self.since and self.seq - upto <= GAP:
            own, self.recent = self.recent, {}
            # What is sealed is not opened while others wait; what of it comes again is written again, if the archive does not know it.
            for seq, content, _ in chain.contents(chain.plan(self.folder, upto, True), upto, True):
                self.remember(seq, content)
            self.recent |= own
            self.since = upto
        elif upto > self.since and len(self.recent) > GAP:
            self.forget(upto)
        return self.recent

    def content(self, seq: int) -> bytes:
        """The content of one record, nothing where it can't be read."""
        found = next(chain.contents(chain.plan(self.folder, seq - 1, True), seq - 1, True), None)
        return found[1] if found and found[0] == seq else b""

    def forget(self, upto: int) -> None:
        """Drops what `recent` holds up to seq `upto`."""
        self.recent = {key: value for key, value in self.recent.items() if value[0] > upto}
        self.since = upto


def _silent(message: str) -> None:
    pass


def user() -> str:
    """Who runs this, as `who` of audit records has it: the name, else the number."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


_live: dict[str, Live] = {}


@contextmanager
def writing(folder: str, stage: str, warn=None):
    """The live segment under the lock, as the last writer left it and what a crash left repaired. Raises Failure 73, 74, 75."""
    live = _live.get(folder) or _live.setdefault(folder, Live(folder))
    with chain.Lock(folder):
        live.stage, live.warn = stage, warn or _silent
        try:
            live.look()
            yield live
        except BaseException as bad:
            live.key = None  # what was half done is looked at anew
            if isinstance(bad, OSError):
                raise Failure(f"cannot write '{bad.filename or live.path}': {bad.strerror}", IOERR) from None
            raise


def _restamp(rec: dict, content: bytes) -> dict:
    """`rec`, which came with an id but without ts or thread, stamped with those of the held record whose content this is."""
    held = canonical.parse(content) if content else {}
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
    clear = canonical.cleared(records, warn) if clear is None else clear
    outcomes: list = [None] * len(records)
    batch, whole = [], []
    for n, rec in enumerate(clear):
        if rec is None:
            outcomes[n] = ("skipped", None, None)
            continue
        try:
            rec, *made = canonical.prepared(rec, records[n], warn)
            batch.append((n, *made))
            whole.append(rec)
        except text.Unwritable as bad:
            outcomes[n] = ("refused", None, str(bad))
    given = batch
    batch, contents = (given, [content for _, _, content, _ in given]) if covered else _covered(given, whole, outcomes, warn)
    if not batch:
        return outcomes
    sealed = chain.digests(contents)
    upto, held = known or (0, {})
    with writing(folder, stage or os.path.basename(sys.argv[0]), warn) as live:
        if batch is not given and not _lasting():
            # A purge destroyed a key since; from here on it waits for the lock.
            batch, contents = _covered(given, whole, outcomes, None)
            sealed = chain.digests(contents)
        recent = live.behind(upto) if known else live.recent
        new: list = []
        fresh: dict = {}
        seq = live.seq
        for (n, own, content, used), one in zip(batch, sealed, strict=True):
            at, stood = fresh.get(own) or recent.get(own) or held.get(own) or (0, b"")
            if at:
                same = stood == hash(content) if type(stood) is int else canonical.equal(stood, content, records[n])
                again = bare and n in bare
                if not same and type(stood) is int and (again or canonical.MARKED.search(content)):
                    stood = new[at - seq - 1][0] if at > seq else live.content(at)
                    same = canonical.equal(stood, content, records[n])
                if not same and again:
                    stamped = _restamp(bare[n], stood)
                    other = clear[n] | {key: stamped[key] for key in ("ts", "thread") if key not in bare[n]}
                    if same := canonical.equal(stood, canonical.prepared(other, records[n])[2], records[n]):
                        records[n] = stamped
                outcomes[n] = ("repeat", at, None) if same else ("conflict", at, f"id '{own}' is journaled as seq {at} with other content")
                continue
            if bare is not None and content[1:2] != b"c" and canonical.proof(content):
                outcomes[n] = ("refused", None, "it says what was purged, and this journal has no such record; only ftai-archive purge writes one")
                continue
            if not used <= live.declared:
                new += live.schema(used)
            new.append(one)
            fresh[own] = seq + len(new), content if canonical.MARKED.search(content) else hash(content)
            outcomes[n] = ("written", seq + len(new), None)
        if new:
            live.append(new)
        else:
            live.settle()  # what is held is told to be on the disk
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
                contents.append(one[2] if made is rec else canonical.prepare(made)[1])
            except canonical.TooLong:
                contents.append(canonical.shortened(rec, made, "encrypted", warn)[2])
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
        if rec.get("@tag") == "specs" and kind in ("written", "repeat") and chain.HEX.issuperset(digest := str(rec.get("digest"))) and digest:
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
    given = [rec if rec.get("@tag") in _UNSTAMPED or canonical.is_own(rec) else record.stamp(rec) for rec, _ in batch]
    clear = canonical.cleared(given, warn)
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
        if canonical.is_kept(rec):
            try:
                own, _, _ = canonical.prepare(rec)
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


def alone(folder: str, after: int, function):
    """What function(threads) returns, called while nobody writes; threads: those of the records behind seq `after`. Raises Failure 75, 74."""
    with chain.Lock(folder):
        return function({canonical.parse(content).get("thread") for _, content, _ in chain.contents(chain.plan(folder, after), after)})


def enter(folder: str, records: list, *, stage: str) -> tuple[int, str]:
    """Appends records of our own that hold nothing but digests, just as they are. Returns (seq, hash) of the last. Raises Failure 74, 75."""
    sealed = chain.digests([canonical.prepare(rec)[1] for rec in records])
    with writing(folder, stage) as live:
        if sealed:
            live.append(sealed)
        return live.seq, live.hash
