"""Purging: what the owner wants gone is named in the chain, replaced by tombstones, and taken out of all that was made from it.

The order makes an end in the middle harmless: an audit record of the intent; the live segment closed; audit records that name each record;
closed segments rewritten; archive, state, keys and leftovers cleaned; the certificate. All but the search can be done again from the names,
so what was interrupted is ended by finish(), or by the next purge. See ftai-archive(1), and ftai(5), Tombstones.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections import namedtuple

from . import archive, canonical, chain, journal, paths, segments, stream, text
from .errors import USAGE, Failure
from .record import is_id, make

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NAMES = 12_000  # records that one audit record names, which keeps it below 1 MiB
PAIRS = 20_000  # runs of seqs that a certificate lists
WAIT = 10.0  # seconds to wait for another purge

# What is to go: all that is given must fit. ids, threads: any of them. subject: words. since, until: as archive.instant() gives them, until
# not included. pattern: text, or a regular expression between slashes.
Asked = namedtuple("Asked", "ids threads subject since until pattern", defaults=((), (), None, None, None, None))


# ---- what is to go ----


class Choice:
    """What `asked` says of a record. Raises Failure 2 for what can't be looked for.

    opened(record) -> the record with its encrypted texts opened, as far as they can be.
    """

    def __init__(self, asked: Asked, opened: Callable | None = None):
        self.asked, self.opened = asked, opened
        if not any(asked):
            raise Failure("nothing is said of what is to go", USAGE, "ftai-archive purge --thread ID --because WHY")
        if "" in (*asked, *asked.ids, *asked.threads):
            # An empty shell variable: without it, the rest would take more than was meant.
            raise Failure("what is to go is given as an empty text", USAGE)
        if not all(map(_unicode, (*asked.ids, *asked.threads, asked.subject or "", asked.pattern or ""))):
            raise Failure("what is to go is given in no UTF-8, and no record holds that", USAGE)
        asked = self.asked = asked._replace(subject=asked.subject or "", pattern=asked.pattern or "")
        self.regex = None
        if len(asked.pattern) > 2 and asked.pattern[0] == asked.pattern[-1] == "/":
            try:
                self.regex = re.compile(asked.pattern[1:-1])
            except re.error as bad:
                # The pattern itself is not repeated: it may be what is to go.
                raise Failure(f"the pattern is no regular expression: {bad.msg}", USAGE) from None
        self.words = [_plain(word) + " " for word in asked.subject.split() if _plain(word).strip()]
        if asked.subject and not self.words:
            raise Failure("no word in the subject can be looked for", USAGE)
        self.needles = set() if self.regex else {_nfc(asked.pattern)} - {""}
        self.ids, self.threads = _line("id", asked.ids), _line("thread", asked.threads)
        self.unread: set[bytes] = set()  # records with texts that could not be opened
        self.answers = self._answers()
        self.quick = self._quick()

    def says(self, words: str) -> bool:
        """True where `words`, which go into the journal, hold what is looked for."""
        return bool(self.asked.pattern) and self._pattern([words]) or bool(self.words) and self._words([words])

    def maybe(self, piece: bytes) -> bool:
        """False for most records that don't fit, without reading them."""
        for test in self.quick:
            if not test(piece):
                return bool(self.answers) and any(name in piece for name in self.answers)
        return True

    def fits(self, piece: bytes, stays: bool = False) -> bool:
        """True for the stored bytes of a record, or of damage, that are to go. stays: they are not counted where they can't be opened."""
        if not self._frame(piece):
            return False
        if not self.asked.pattern and not self.words:
            return True
        if any(name in piece for name in self.answers):
            return True
        content = piece[1 : piece.find(chain.MARK) + 1] if chain.MARK in piece else piece
        try:
            rec = canonical.parse(content)
        except ValueError:  # damage, in which nobody can say what is an escape
            whole = content.decode("utf-8", "replace")
            return self._text([whole, text.unescape(whole)])
        if self._text(_texts(rec, not self.regex)):
            return True
        if b"[sealed:" not in content:
            return False
        from . import seal

        texts = _texts(self.opened(rec) if self.opened else rec, not self.regex)
        if self._text(texts):
            return True
        if not stays and any(re.fullmatch(seal.SEALED, words) for words in texts):
            self.unread.add(content)
        return False

    def _frame(self, piece: bytes) -> bool:
        if (self.ids and not self.ids.search(piece)) or (self.threads and not self.threads.search(piece)):
            return False
        if not self.asked.since and not self.asked.until:
            return True
        found = re.search(rb'\n  ts: "([^"\n]*)"\n', piece)
        when = archive.instant(found[1].decode("utf-8", "replace")) if found else None
        return when is not None and (not self.asked.since or when >= self.asked.since) and (not self.asked.until or when < self.asked.until)

    def _text(self, texts: list[str]) -> bool:
        return self._pattern(texts) and self._words(texts)

    def _pattern(self, texts: list[str]) -> bool:
        if self.regex:
            return any(self.regex.search(words) for words in texts)
        return not self.needles or any(needle in _nfc(words) for words in texts for needle in self.needles)

    def _words(self, texts: list[str]) -> bool:
        plain = " ".join(map(_plain, texts)) + " " if self.words else ""
        return all(word in plain for word in self.words)

    def _quick(self) -> list:
        tests = [self._frame]
        if self.needles:
            # Of what is looked for, a part that is stored as it is: without escapes, and without `;`, K and the grave accent, which other
            # characters become in NFC.
            parts = [part.encode() for part in re.split(r"[^ !#-:<-JL-\[\]-_a-~]", _nfc(self.asked.pattern)) if part]
            longest = max(parts, key=len, default=b"")
            tests.append(lambda piece: longest in piece or b"[sealed:" in piece)
        return tests

    def _answers(self) -> list[bytes]:
        """The names of the files in which an answer stands that was too long for its record, of those that hold what is looked for."""
        found = []
        for name in os.listdir(_answers()) if (self.asked.pattern or self.words) and os.path.isdir(_answers()) else ():
            try:
                with open(os.path.join(_answers(), name), encoding="utf-8", errors="replace") as file:
                    if self._text([file.read()]):
                        found.append(name.encode())
            except OSError:
                continue
        return found


def _answers() -> str:
    return os.path.join(paths.where("data"), "answers")


def _line(name: str, values) -> re.Pattern | None:
    if not values:
        return None
    return re.compile(b'\n  %s: "?(?:%s)"?\n' % (name.encode(), b"|".join(re.escape(_escaped(value).encode()) for value in values)))


def _unicode(words: str) -> bool:
    """False for arguments that are no UTF-8: Python makes lone surrogates of their bytes."""
    return not re.search("[\ud800-\udfff]", words)


def _escaped(words: str) -> str:
    return words.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")


def _nfc(words: str) -> str:
    if words.isascii():
        return words
    import unicodedata

    return unicodedata.normalize("NFC", words)


def _plain(words: str) -> str:
    return archive._plain(archive._spaced(words))


def _texts(rec: dict, whole: bool) -> list[str]:
    """All that a record says, without the escapes it is stored with: names of fields, and values as text, nested blocks included.

    whole: and each tag and field as one text, `@tag "head"` and `name: "value"`.
    """
    out: list[str] = []
    rest: list = [rec]
    while rest:
        value = rest.pop()
        if type(value) is dict:
            out += [key for key in value if key[0] != "@"]
            if whole:
                own = {key: one for key, one in value.items() if key[0] != "@" and type(one) is not list}
                out += [f'{key}: "{one}"' if type(one) is str else f"{key}: {text.literal(one)}" for key, one in own.items()]
                out.append(f'@{value.get("@tag", "")} "{value.get("@head", "")}"')
            rest += [value[key] for key in reversed(value)]
        elif type(value) is list:
            rest += reversed(value)
        else:
            out.append(value if type(value) is str else text.literal(value))
    return out


# ---- where it is ----


class _Part:
    """A segment as it was searched: how far, and what of it is to go."""

    def __init__(self, segment: chain.Segment, top: chain.Head | None):
        self.segment, self.top = segment, top
        self.name = segment.name.partition(".zst.")[0]
        self.size = 0
        self.first: int = top.first if top else 0
        self.at: int = top.start if top else 0
        self.good = 0  # behind the last record that counts: nothing behind it proves anything
        self.found: list = []


class _Search:
    """The journal, searched for what is to go, and for what earlier purges left to do. look() again takes in only what is new."""

    def __init__(self, folder: str, choice: Choice | None, opened: Callable | None):
        self.folder, self.choice, self.opened = folder, choice, opened
        self.parts: dict[tuple, _Part] = {}
        self.stones: dict[str, str] = {}  # "SEQ DIGEST" of the tombstones: hash
        self.proofs: dict[int, dict] = {}
        self.threads: dict[str, None] = {}
        self.files: dict[str, None] = {}
        # Files say nothing of a thread or a time: of those that hold the text, only the ones that records name which go.
        own = choice.answers if choice and not any((choice.ids, choice.threads, choice.asked.since, choice.asked.until)) else ()
        self.answers: dict[str, None] = dict.fromkeys(name.decode() for name in own)
        self.kept: set[int] = set()
        self.all: list[_Part] = []
        self.shut: list[str] = []  # sealed segments that could not be opened

    def look(self) -> None:
        parts = {}
        self.shut = []
        live, runs = chain.live(self.folder), segments.removed(self.folder)
        for segment in [*chain.segments(self.folder), live]:
            try:
                seen = os.stat(segment.path, follow_symlinks=False)
                key = seen.st_dev, seen.st_ino
                # What is sealed does not change.
                if segment.sealed and key in self.parts:
                    parts[key] = self.parts[key]
                    continue
                fd, size, top = chain.open_segment(segment)
            except FileNotFoundError:
                continue
            except Failure:
                if not segment.sealed:
                    raise
                self.shut.append(segment.path)
                continue
            try:
                part = parts[key] = self.parts.get(key) or _Part(segment, top)
                part.size = size
                if top:
                    part.good = chain.tail(fd, top, size, self.until(segment, fd, size, top, runs))[2]
                if size > part.at:
                    part.at = segments.dig(fd, part.at, size, self.wanted, lambda found, piece, part=part: self.each(part, found, piece))
            finally:
                os.close(fd)
        # The end of the live segment may be torn, and cut before it is closed: that one is searched again.
        self.parts = {key: part for key, part in parts.items() if part.name != chain.LIVE}
        self.all = list(parts.values())

    def until(self, segment: chain.Segment, fd: int, size: int, top: chain.Head, runs: list) -> int | None:
        """The last seq that counts in a segment, None where that is not known."""
        if not segment.number:
            return chain.suspect(self.folder, top.number)
        try:
            return segments.until(self.folder, segment.number, fd, size, top, runs)
        except Failure:
            return None  # the next one is sealed, cannot be opened here, and the ledger is lost

    def wanted(self, piece: bytes) -> bool:
        return canonical.PURGE in piece or piece.startswith(b"\n@tombstone\n  @chain\n") or self.choice is not None and self.choice.maybe(piece)

    def each(self, part: _Part, found, piece: bytes) -> None:
        counts = found.seq is not None and found.end <= part.good
        if counts and not found.salted:
            self.stones[f"{found.seq} {found.digest}"] = found.hash
            return
        proof = counts and _proof(piece)
        if proof and proof["@tag"] != "checkpoint":
            self.proofs[found.seq] = self.opened(proof) if b"[sealed:" in piece and self.opened else proof
        if self.choice is None or not self.choice.fits(piece, bool(proof)):
            return
        if proof:
            self.kept.add(found.seq)
            return
        part.found.append(found)
        if own := re.search(rb'\n  thread: "([^"\n]*)"\n', piece):
            self.threads[own[1].decode("utf-8", "replace")] = None
        for path in re.findall(rb'\n *path: ("[^\n]*")\n', piece):
            import orjson

            try:
                self.files[orjson.loads(path)] = None
            except orjson.JSONDecodeError:
                continue
        self.answers |= dict.fromkeys(name.decode() for name in re.findall(rb"/answers/([0-9a-f-]{36}\.txt)", piece))

    def count(self) -> int:
        """How many records are to go."""
        return sum(len(part.found) for part in self.all)

    def standing(self) -> set[str]:
        """Puts what audit records say was purged, and what stands all the same, to what is to go. Returns "SEQ DIGEST" of each."""
        names = {words for rec in self.proofs.values() for words in canonical.named(rec)} - self.stones.keys()
        names -= {f"{found.seq} {found.digest}" for part in self.parts.values() for found in part.found}
        numbers = {words.split()[0].encode() for words in names}
        broken = {tuple(words.split()) for rec in self.proofs.values() for words in rec.get("damage", ())}
        for part in self.parts.values():
            known = {found.at for found in part.found}
            here = {int(at) for name, long, at in broken if (name, long) == (part.name, str(part.size))}
            if not numbers and not here:
                continue
            fd, size, _ = chain.open_segment(part.segment)

            def each(found, _, part=part, here=here, known=known):
                if found.at not in known and (f"{found.seq} {found.digest}" in names and found.salted or found.at in here and found.seq is None):
                    part.found.append(found)

            try:
                start = part.top.start if part.top else 0
                segments.dig(fd, start, size, (lambda _: True) if here else (lambda piece: chain.number(piece) in numbers), each)
            finally:
                os.close(fd)
        return names


def _proof(piece: bytes) -> dict | None:
    """The record, where it is one of ours that proves the chain: of a purge, or of a closing."""
    return canonical.proof(piece[1 : piece.find(chain.MARK) + 1])


# ---- the purge ----


def _alone(folder: str):
    """`with _alone(folder):` the only purge. Raises Failure 75 where another is at it for 10 seconds."""
    return stream.Lock(os.path.join(folder, ".purge"), WAIT, "another purge is under way")


def run(
    asked: Asked | None,
    because: str = "",
    *,
    stage: str,
    dry_run: bool = False,
    agreed: Callable | None = None,
    opened: Callable | None = None,
    before: Callable | None = None,
    clean: Callable | None = None,
    warn: Callable | None = None,
    backups: Iterable[str] = (),
) -> list[dict]:
    """Purges what `asked` says (None: only ends what was interrupted), and returns the records that tell of it: intents and certificates.

    agreed(count) -> whether to go on, asked before anything is done. opened: as in Choice. before(): called while all is still there.
    clean(fits): takes texts out of state.db; fits(record): whether one that was never journaled is to go too, or None where that is not known.
    backups: where there are copies that this can't reach.
    Raises Failure: 2 nothing asked, 73 and 74 not written, 75 locked, 77 a folder that is not ours alone; what was begun then is ended by the next run.
    """
    choice = Choice(asked, opened) if asked else None
    if choice and because and choice.says(because):
        raise Failure("the reason holds what is to go, and it stays in the journal", USAGE, "say it in other words")
    _guarded()
    if not _unicode(because):
        raise Failure("the reason is no UTF-8", USAGE)
    folder, began = paths.journal(), time.monotonic()
    search = _Search(folder, choice, opened)
    if dry_run:
        search.look()
        search.standing()
        return [make("report", stage, subject="archive", act="purge", would=_would(search), records=search.count(), **_about(asked), **_unread(choice))]
    with _alone(folder):
        search.look()
        if before:
            before()
        told = []
        if count := search.count():
            if agreed and not agreed(count):
                raise Failure("nothing was purged")
            told.append(_name(search, asked, because, count, stage, warn))
        stand = search.standing()
        unended = _unended(search.proofs)
        if unended or any(part.found for part in search.parts.values()):
            done = _erase(search, {search.proofs[seq]["id"] for seq in unended}, clean and (lambda: clean(_fits(choice))), backups)
            # Of those that are only of a time or a thread that is to go there is nothing to say.
            done["kept"] = len(search.kept) if asked and (asked.pattern or asked.subject) and search.kept else None
            own = told[0]["id"] if told else None
            each = [(search.proofs[seq], _unread(choice) if search.proofs[seq]["id"] == own else {}) for seq in unended]
            certificates = [_certify(search, stage, intent, done | unread, began) for intent, unread in each]
            if not certificates:
                certificates.append(_certify(search, stage, {"purged": sorted(stand)}, done, began))
            journal.append(folder, certificates, stage=stage, warn=warn)
            archive.catch_up(limit=None)
            told += certificates
        kept = {"kept": len(search.kept)} if asked and (asked.pattern or asked.subject) and search.kept else {}
        if count or not choice or told and not choice.unread:
            return told or [make("report", stage, subject="archive", act="purge", outcome="done", records=0)]
        # Of what no record holds there may be traces all the same: torn records, tracebacks, answers without a record.
        if clean and not stand and not unended:
            clean(_fits(choice))
        removed, left = _swept(search)
        gone = _sayable(choice, removed) or None
        said = {"outcome": "incomplete" if choice.unread or search.shut else "done", "records": 0, **_about(asked), **_unread(choice), **kept}
        said |= {"removed": gone, "shut": len(search.shut) or None, "unreached": _unreached(search, _sayable(choice, left), ())}
        report = make("report", stage, subject="archive", act="purge", **said)
        if gone:
            report |= {"because": because}
            journal.append(folder, [report], stage=stage, warn=warn)
            archive.catch_up(limit=None)
    return [*told, report]


def typed(pattern: str | None) -> str | None:
    """The pattern; `-` is read from standard input, without echo on a terminal: arguments can be seen by everybody on the machine."""
    if pattern != "-":
        return pattern
    if os.isatty(0):
        from getpass import getpass

        return getpass("text to purge: ")
    return b"".join(stream.chunks("-")).decode("utf-8", "surrogateescape").removesuffix("\n")


def asking(name: str) -> Callable | None:
    """What asks on the terminal whether to go on with so many records; None without one. name: of who asks."""
    import sys

    def agreed(count: int) -> bool:
        stream.say(f"{name}: {count} record{'s' if count > 1 else ''} will be gone for good; go on? [y/N]")
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    return agreed if os.isatty(0) and os.isatty(2) else None


def doubts(rec: dict):
    """Yields what a person is to know of what a purge left, as one of its records tells."""
    if rec.get("kept"):
        yield f"{rec['kept']} records that prove earlier purges hold it too, and stay"
    rec = rec if rec["@tag"] == "report" else {}
    if rec.get("files"):
        yield f"files that the records tell of stay: {', '.join(rec['files'])}"
    if rec.get("hidden"):
        yield f"{rec['hidden']} files that the records tell of stay, and are not named as their names may hold what is to go"
    if rec.get("unreached"):
        yield f"what could not be reached may hold it still: {', '.join(rec['unreached'])}"


def _fits(choice: Choice | None) -> Callable | None:
    return (lambda rec: choice.fits(canonical.prepare(rec)[1])) if choice else None


def _sayable(choice: Choice | None, names: list[str]) -> list[str]:
    """Of the paths of files that were removed those that may stand in the journal: without what was looked for, and where nobody knows
    what that was, of folders in which all names are our own."""
    if choice and (choice.asked.pattern or choice.words):
        return [path for path in names if not choice.says(path)]
    return [path for path in names if os.path.dirname(path) in (_answers(), os.path.join(paths.where("state"), "bugs"))]


def _unread(choice: Choice | None) -> dict:
    return {"unread": len(choice.unread)} if choice and choice.unread else {}


def _about(asked: Asked | None) -> dict:
    """What was asked, without the words that were looked for: of those, only that there were some."""
    if asked is None:
        return {}
    own = [one for one in (*asked.ids, *asked.threads) if is_id(one)]
    kinds = [name.removesuffix("s") for name, value in asked._asdict().items() if value]
    return {"asked": kinds, "ids": own or None, "since": asked.since, "until": asked.until}


def _would(search: _Search) -> list[str]:
    names = [part.name for part in search.all if part.found]
    clean = names or _unended(search.proofs)
    return [f"close {name}" for name in names if name == chain.LIVE] + [f"rewrite {name}" for name in names] + ["clean the archive"] * bool(clean)


def _unended(proofs: dict[int, dict]) -> list[int]:
    """The seqs of the intents without certificate."""
    ended = {rec.get("about") for rec in proofs.values() if rec["@tag"] == "report"}
    return [seq for seq, rec in sorted(proofs.items()) if rec["@tag"] == "audit" and "asked" in rec and rec["id"] not in ended]


def _effects(search: _Search) -> dict:
    """Files that the records tell of: those that hold our own long answers, which go too, and those that skills and others wrote, which stay."""
    there = [path for path in search.files if os.path.isabs(path) and os.path.dirname(path) != _answers() and os.path.lexists(path)]
    # Of a whole thread or day nobody looked for a text: there each path is one that is to go.
    choice = search.choice if search.choice and (search.choice.asked.pattern or search.choice.words) else None
    named = [path for path in there if choice and not choice.says(path)]
    return {"files": named or None, "hidden": len(there) - len(named) or None}


def _name(search: _Search, asked: Asked | None, because: str, count: int, stage: str, warn) -> dict:
    """Journals the intent, closes the live segment where it holds some of the records, and names each. Returns the intent."""
    effects = _effects(search)
    said: dict = {"act": "purge", "subject": "journal", "who": journal.user()}
    intent = make("audit", stage, **said, outcome="intended", because=because, **_about(asked), records=count, **effects)
    at = journal.append(search.folder, [intent], stage=stage, warn=warn)[0][1]
    live = [found.seq for part in search.all if part.name == chain.LIVE for found in part.found]
    if live:
        segments.close(search.folder, max((seq for seq in live if seq), default=1 << 62), stage=stage)
    # What others have written since the first look is found too.
    search.look()
    said |= {"about": intent["id"]}
    if (now := _effects(search)) != effects:
        journal.append(search.folder, [make("audit", stage, thread=intent["thread"], **said, outcome="intended", **now)], stage=stage, warn=warn)
    words = [f"{found.seq} {found.digest}" for part in search.parts.values() for found in part.found if found.seq is not None]
    damage = []
    for part in search.parts.values():
        damage += [f"{part.name} {part.size} {found.at}" for found in part.found if found.seq is None]
    words, threads = list(dict.fromkeys(words)), _marked(list(search.threads))
    answers, named = list(search.answers), []
    for n in range(0, max(len(words), len(threads), len(damage), len(answers)), NAMES):
        lists: dict = {name: all_[n : n + NAMES] or None for name, all_ in (("purged", words), ("damage", damage), ("threads", threads), ("answers", answers))}
        named.append(make("audit", stage, thread=intent["thread"], **said, outcome="named", of=len(words) + len(damage), **lists))
    last, _ = journal.enter(search.folder, named, stage=stage)
    # The intent as it was made: in the journal its words may be encrypted.
    search.proofs |= {at: intent, **{last - len(named) + 1 + n: rec for n, rec in enumerate(named)}}
    return intent


def _marked(threads: list[str]) -> list[str]:
    """The threads as the journal may name them: a name that is no id of ours could hold what is to go, and its key stands for it."""
    if not threads or not _sealed():
        return []
    from . import seal

    return [own for own in threads if is_id(own)] + seal.marks([own for own in threads if not is_id(own)])


def _sealed() -> bool:
    """True where there are keys of threads."""
    from . import seal

    return os.path.exists(os.path.join(paths.where("state"), "keys", seal.THREADS))


def _unreached(search: _Search, left: list[str], backups) -> list[str] | None:
    """Where what is to go may stand still: sealed segments that can't be opened here, what could not be looked at, and backups."""
    return [path for path in (*search.shut, *left, *backups) if not (search.choice and search.choice.says(path))] or None


def _erase(search: _Search, intents: set[str], clean: Callable | None, backups) -> dict:
    """Takes what is named out of the journal, and out of all that was made from it. Returns fields of the certificate."""
    for part in search.parts.values():
        if part.found:
            if part.segment.sealed:  # ftai-rotate seals it again
                part.segment = segments.bring_back(search.folder, part.segment)
            segments.bury(search.folder, part.name, sorted(part.found))
    mine = [rec for rec in search.proofs.values() if rec.get("about") in intents]
    stones = {f"{found.seq} {found.hash}" for part in search.parts.values() for found in part.found}
    stones |= {f"{words.split()[0]} {search.stones[words]}" for rec in mine for words in canonical.named(rec) if words in search.stones}
    blanked = any(found.seq is None for part in search.parts.values() for found in part.found) or any(rec.get("damage") for rec in mine)
    archive.purge({words for words in stones if not words.startswith("None")}, blanked)
    if clean:
        clean()
    removed, left = _swept(search)
    threads = {one for rec in mine for one in rec.get("threads", ())} | search.threads.keys()
    done = {"removed": _sayable(search.choice, removed) or None, "keys": _keys(search.folder, threads)}
    return done | {"shut": len(search.shut) or None, "unreached": _unreached(search, left, backups)}


def _keys(folder: str, threads) -> int:
    """Destroys the data keys of the threads of which no record is left, while nobody writes one. Returns how many."""
    if not threads or not _sealed():
        return 0
    from . import seal

    db = archive.connect()
    last = db.execute("SELECT max(seq) FROM records").fetchone()[0] or 0
    threads = {*threads, *seal.marked([one for one in threads if not is_id(one)])}
    gone = {one for one in threads if not db.execute("SELECT 1 FROM records WHERE thread = ? LIMIT 1", (one,)).fetchone()}
    db.close()
    return journal.alone(folder, last, lambda late: sum(seal.destroy(one) for one in gone - late))


def _guarded() -> None:
    """Raises Failure 77 where a folder that is swept is a link, belongs to somebody else, or can be written by others: who can put a link into it
    could have anything removed.
    """
    state, data = paths.where("state"), paths.where("data")
    for folder in (state, os.path.join(state, "journal"), os.path.join(state, "bugs"), paths.where("cache"), data, _answers()):
        try:
            paths.guard(folder, os.lstat(paths.unlinked(folder)))
        except FileNotFoundError:
            continue


def _swept(search: _Search) -> tuple[list[str], list[str]]:
    """Removes what crashes and bugs left, answers that are to go, and what can be made again; nobody could say what of it holds a trace.

    Returns the names of what may be missed, the caches left out; and of what was left: where others could lead it elsewhere, or it can't be removed.
    """
    _guarded()
    state, cache = paths.state(), paths.where("cache")
    answers = {name for rec in search.proofs.values() for name in rec.get("answers", ())} | search.answers.keys()
    removed, left = [], []
    segments.leftovers(search.folder)

    def missed(bad):
        left.append(str(bad.filename))

    for place in (state, cache, paths.where("data")):
        if not os.path.isdir(place):
            continue
        # fwalk follows no link, and what is removed is removed from the folder that was looked at.
        for folder, folders, names, fd in os.fwalk(place, onerror=missed):
            # The marks say which specs the journal holds, and of what was named long ago nobody knows whether it was one of these records.
            unnamed = f"{folder}/".startswith((cache + "/", os.path.join(state, "specs", "")))
            whole = unnamed or f"{folder}/".startswith(os.path.join(state, "bugs", ""))
            links = [name for name in folders if _is_link(name, fd)]
            folders[:] = [name for name in folders if name not in links]
            try:
                paths.guard(folder, os.fstat(fd))
            except Failure:
                left.append(folder)
                folders.clear()
                continue
            left += [os.path.join(folder, name) for name in links if not whole]
            for name in sorted(names + links):
                answer = folder == _answers() and name in answers and re.fullmatch(r"[0-9a-f-]{36}\.txt", name)
                if not (whole or answer or stream.is_left(name)):
                    continue
                try:
                    os.unlink(name, dir_fd=fd)
                except FileNotFoundError:
                    continue
                except OSError:
                    left.append(os.path.join(folder, name))
                    continue
                if not unnamed:
                    removed.append(os.path.join(folder, name))
    return removed, left


def _is_link(name: str, fd: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _certify(search: _Search, stage: str, intent: dict, done: dict, began: float) -> dict:
    """The certificate of a purge: what was asked, what was done, and what it could not reach."""
    audits = {seq: rec for seq, rec in sorted(search.proofs.items()) if rec["@tag"] == "audit" and "id" in intent and rec.get("about") == intent["id"]}
    named = [seq for seq, rec in audits.items() if "of" in rec]
    seqs = sorted({int(words.split()[0]) for rec in [intent, *audits.values()] for words in canonical.named(rec)})
    damage = sum(len(rec.get("damage", ())) for rec in audits.values())
    last = audits[named[-1]]["of"] if named else intent.get("records", 0)
    runs: list[list[int]] = []
    for seq in seqs:
        if runs and runs[-1][1] == seq - 1:
            runs[-1][1] = seq
        else:
            runs.append([seq, seq])
    firsts = sorted((part.first, part.name) for part in search.parts.values())
    ends = [first for first, _ in firsts[1:]] + [1 << 63]
    rewritten = [name for (first, name), end in zip(firsts, ends, strict=False) if any(low < end and high >= first for low, high in runs)]
    said = {name: intent.get(name) for name in ("asked", "ids", "since", "until", "because")}
    files = sorted({path for rec in [intent, *audits.values()] for path in rec.get("files", ()) if os.path.lexists(path)})
    head, digest = journal.enter(search.folder, [], stage=stage)
    return make(
        "report",
        stage,
        thread=intent.get("thread"),
        subject="archive",
        act="purge",
        about=intent.get("id"),
        outcome="incomplete" if len(seqs) + damage < last or "unread" in done or search.shut else "done",
        # What cannot be opened here would be no longer what it says it is, in another record.
        **{name: value for name, value in said.items() if "[sealed:" not in str(value)},
        records=len(seqs),
        seqs=runs if len(runs) <= PAIRS else None,
        named=[named[0], named[-1]] if named else None,
        damage=damage or None,
        segments=rewritten,
        files=files or None,
        hidden=sum(rec.get("hidden", 0) for rec in [intent, *audits.values()]) or None,
        last=head,
        hash=digest,
        ms=int((time.monotonic() - began) * 1000),
        **done,
    )
