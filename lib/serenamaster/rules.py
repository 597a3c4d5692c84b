"""What a document or a thread must hold beyond its syntax: the vocabulary, and the checks that need all of it (ftai(5), ftai(7)).

A check takes records one by one with the line each begins at, and gives findings; what only the end can tell comes from close().
"""

import re

from .errors import Failure, Finding
from .record import LIMIT, Malformed, decode, encode, is_id
from .text import RESERVED, Reader, Unwritable, Writer, declared, is_added


def _words(text: str) -> frozenset:
    return frozenset(text.split())


CORE = _words(
    "ftai document schema section subsection table note warning goal constraints input output tool tool_call result feedback error memory memory_scope lang"
    " include task config ai ai_note agent protocol issue prose quoted_tag insight recommendations closing_note image intent context rules ref analysis flag"
    " owner date version title author tags message file_change channel decision thread"
)
OWN = _words(
    "command route attempt result error decision memory file alert audit partial checkpoint tombstone report slots alternative chain specs data"
    # The spec files: specs.TAGS holds what each may hold.
    " stage capability skill phrase program list expansion words tier retention setting limit place provider model budget key consent price pattern server rule"
    " gate"
)
NAMES = 10_000  # different tags that are kept in mind for the end of a document
WINDOW = 100_000  # records that are kept in mind for the checks of threads, so that a stream without end is read in flat memory

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)\Z")
CLASSES = _words("network timeout rate credential request policy spec input storage interrupted orphan conflict bug")
# tag -> field -> what it may hold: a set of words, or types
SHAPES: dict[str, dict[str, object]] = {
    "command": {"via": _words("voice text file cron")},
    "route": {"confidence": (int, float)},
    "attempt": {"n": (int,), "ms": (int, float), "class": CLASSES},
    "result": {"status": _words("done failed refused asked cancelled cut"), "ms": (int, float)},
    "error": {"class": CLASSES, "recovery": _words("retry fallback queue ask none")},
    "memory": {"tier": _words("short long file")},
    "file": {"bytes": (int,)},
    "partial": {"n": (int,)},
}
NEEDED = {"route": ("target",), "attempt": ("target",), "result": ("status",), "error": ("class", "message"), "file": ("op", "path")}
PARENTS = {"route": _words("command task"), "attempt": _words("route"), "result": _words("route")}


def is_known(tag: str) -> bool:
    """True for a tag that needs no declaration."""
    return tag in CORE or tag in OWN or tag.startswith("x_")


class Lines:
    """Records of a stream in line form, with the interface of text.Reader: items are (line, record) or Finding."""

    def __init__(self, limit: int = LIMIT):
        self.limit, self.number, self.size = limit, 0, 0
        self.parts: list[bytes] = []

    def feed(self, data: bytes) -> list:
        """What is complete now."""
        items: list = []
        *lines, tail = data.split(b"\n")
        for line in lines:
            self._keep(line)
            self._end(items)
        self._keep(tail)
        return items

    def close(self) -> list:
        """What the last line holds, if no line end closed it."""
        items: list = []
        self._end(items)
        return items

    def _keep(self, piece) -> None:
        self.size += len(piece)
        if piece and self.size <= self.limit:
            self.parts.append(piece)

    def _end(self, items) -> None:
        line, size = b"".join(self.parts), self.size
        self.parts, self.size = [], 0
        self.number += 1
        if size > self.limit:
            items.append(Finding(self.number, 1, "error", "too-long", f"a record of {size} bytes, expected at most {self.limit}", True))
        elif line and not line.isspace():
            try:
                items.append((self.number, decode(line)))
            except Malformed as bad:
                items.append(Finding(self.number, bad.column or 1, "error", "not-a-record", bad.reason, True))


class Document:
    """The vocabulary of one document or stream by the strict reading: unknown tags, required ones that never come, `@document`.

    text: it is a document in text form, so it must have a `@document`.
    """

    def __init__(self, *, text: bool = True):
        self.text = text
        self.declared: set[str] = set()
        self.required: dict[str, int] = {}  # tag -> line of the schema that wants it
        self.seen: dict[str, None] = {}
        self.unknown: dict[str, list[int]] = {}  # tag -> line and column of its first use, number of uses: a schema may come later

    def tag(self, name: str, line: int, column: int = 1, quoted: bool = False) -> None:
        """Takes one tag; it fits Reader's on_tag."""
        if name not in self.seen:
            if len(self.seen) >= NAMES:
                return
            self.seen[name] = None
        if is_known(name) or quoted or name in self.declared or RESERVED.match(name):
            return
        self.unknown.setdefault(name, [line, column, 0])[2] += 1

    def tags(self, rec: dict, line: int) -> None:
        """Takes the tags of a record and of the blocks in it."""
        if "@tag" in rec:
            self.tag(rec["@tag"], line)
        for block in rec.get("@blocks", ()):
            self.tags(block, line)

    def schemas(self, rec: dict, line: int) -> None:
        """Takes what a `@schema` declares, at top level or within a block that was never closed."""
        if rec.get("@tag") == "schema":
            required, optional = declared(rec)
            self.declared.update(required, optional)
            for name in required:
                self.required.setdefault(name, line)
        for block in rec.get("@blocks", ()):
            self.schemas(block, line)

    def close(self) -> list:
        """The findings, in the order of their lines."""
        found = []
        for tag, (line, column, times) in self.unknown.items():
            if tag not in self.declared:
                often = f" ({times} times)" if times > 1 else ""
                expected = f"expected one of ftai(5), one declared in '@schema', or '@x_{tag}'"
                found.append(Finding(line, column, "error", "unknown-tag", f"unknown tag '@{tag}'{often}, {expected}"))
        if len(self.seen) < NAMES:
            for tag, line in self.required.items():
                if tag not in self.seen and tag != "document":
                    found.append(Finding(line, 1, "error", "required-tag", f"'@{tag}' is required by this '@schema', but never comes"))
            if self.text and "document" not in self.seen:
                found.append(Finding(1, 1, "error", "no-document", "'@document' is missing, expected one behind the header"))
        return sorted(found)


class Threads:
    """Records among one another: parents, threads, ids, and one result for each route. Those without an id of ours are left alone."""

    def __init__(self, window: int = WINDOW):
        self.window = window
        self.known: dict[str, tuple] = {}  # id -> tag, thread, parent, what it holds (hash)
        self.full = False  # records were forgotten: what is not known may have been there
        self.missing: dict[str, tuple[int, str]] = {}  # id of a parent -> line and tag of the child that named it
        self.routes: dict[str, int] = {}  # routes without a result -> line
        self.ended: dict[str, int] = {}  # routes with a result -> line of the result

    def feed(self, rec: dict, line: int) -> list:
        """Findings about this record, and about it and those before it."""
        own, tag, parent, thread = rec.get("id", ""), rec.get("@tag"), rec.get("parent", ""), rec.get("thread")
        if not is_id(own) or tag is None:
            return []
        found = fields(rec, line)
        say = lambda level, rule, message: found.append(Finding(line, 1, level, rule, message))  # noqa: E731
        bare = {key: value for key, value in rec.items() if key != "@blocks"}
        bare["@blocks"] = [block for block in rec.get("@blocks", ()) if block.get("@tag") != "chain"]
        held = hash(encode(bare))
        before = self.known.get(own)
        if before is not None:
            if before[3] != held:
                say("error", "id-conflict", f"the id '{own}' stood before with other content, expected a new id")
            return found
        if own in self.missing:
            child, name = self.missing.pop(own)
            say("warning", "parent-late", f"'@{tag}' comes behind its '@{name}' of line {child}, expected it before")
        if is_id(parent):
            self._parent(tag, parent, thread, line, say)
        if tag == "route":
            self.routes[own] = line
        elif tag == "error" and rec.get("recovery") == "queue":
            self.routes.pop(self._route_of(parent), None)
        self.known[own] = (tag, thread, parent, held)
        for kept in (self.known, self.missing, self.routes, self.ended):
            if len(kept) > self.window:
                del kept[next(iter(kept))]  # type: ignore[attr-defined]
                self.full = True
        return found

    def _parent(self, tag, parent, thread, line, say) -> None:
        cause = self.known.get(parent)
        if cause is None:
            self.missing.setdefault(parent, (line, tag))
        else:
            if cause[1] != thread:
                say("error", "thread-mismatch", f"thread '{thread}' is not the thread of its parent '{parent}', expected '{cause[1]}'")
            if tag in PARENTS and cause[0] not in PARENTS[tag]:
                say("warning", "parent-tag", f"the parent of '@{tag}' is '@{cause[0]}', expected '@{' or @'.join(sorted(PARENTS[tag]))}'")
        if tag == "result" and (cause is None or cause[0] == "route"):
            if parent in self.ended:
                say("error", "second-result", f"route '{parent}' has a result in line {self.ended[parent]}, expected one result for each route")
            else:
                self.ended[parent] = line
            self.routes.pop(parent, None)

    def _route_of(self, own):
        """The route that an attempt belongs to, or the id itself."""
        seen = self.known.get(own)
        return seen[2] if seen and seen[0] == "attempt" else own

    def close(self) -> list:
        """Findings that only the end can tell."""
        without = "a route without a result, expected one, or an '@error' that queues it"
        found = [Finding(line, 1, "warning", "route-open", without) for line in self.routes.values()]
        if not self.full:
            found += [
                Finding(line, 1, "warning", "parent-missing", f"the parent '{own}' of '@{tag}' is not here, expected it before")
                for own, (line, tag) in self.missing.items()
            ]
        return sorted(found)


def fields(rec: dict, line: int) -> list:
    """Warnings about the fields of one record of ours: shapes of ts, thread and parent, words of enumerations, types, what is missing."""
    found: list = []
    say = lambda rule, message: found.append(Finding(line, 1, "warning", rule, message))  # noqa: E731
    tag = rec["@tag"]
    if "ts" in rec and not (type(rec["ts"]) is str and TIME.match(rec["ts"])):
        say("field-time", f"field 'ts' of '@{tag}' is no time, expected one such as '2026-11-22T13:25:00.000Z'")
    for key in ("thread", "parent"):
        if key in rec and not is_id(rec[key]):
            say("field-id", f"field '{key}' of '@{tag}' is no id, expected a UUID")
    if "ts" not in rec or "thread" not in rec:
        return found  # somebody else's record that happens to have a UUID
    for key, allowed in SHAPES.get(tag, {}).items():
        value = rec.get(key)
        if value is None:
            continue
        if isinstance(allowed, frozenset):
            if value not in allowed if type(value) is str else True:
                say("field-word", f"field '{key}' of '@{tag}' is '{value}', expected one of: {' '.join(sorted(allowed))}")
        elif type(value) not in allowed:  # type: ignore[operator]
            say("field-type", f"field '{key}' of '@{tag}' is '{value}', expected a number")
    for key in NEEDED.get(tag, ()):
        if key not in rec:
            say("field-missing", f"field '{key}' of '@{tag}' is missing")
    return found


class Checker:
    """All checks of one FILE: bytes in, findings out.

    text: the FILE is in text form, else in line form. strict: the strict reading of ftai(5).
    `@intent fail` on the first line turns the verdict over: errors become notes, and it is an error if there is none.
    """

    def __init__(self, *, strict: bool = False, text: bool = True):
        self.strict = strict
        self.document, self.threads = Document(text=text), Threads()
        self.reader = Reader(strict=strict, at=True, on_tag=self.document.tag if strict else None) if text else Lines()
        self.levels: dict[str, int] = {}
        self.counts: dict[str, int] = {}  # of each rule
        self.guess: Finding | None = None  # the first finding that no rewriting can put right
        self.journal = False  # it is a segment of a journal

    def feed(self, data: bytes) -> list:
        """The findings that these bytes brought."""
        return self._count(self._check(self.reader.feed(data)))

    def close(self, more=()) -> list:
        """The findings at the end of the FILE and about the whole; `more` are those that others made of it."""
        found = self._check(self.reader.close())
        found += [*(self.document.close() if self.strict else ()), *self.threads.close(), *more]
        found = self._count(found)
        if self._fails() and "note" not in self.levels:
            found.append(Finding(1, 1, "error", "intent-fail", "'@intent fail' says that this document fails, but no error was found"))
            self.levels["error"] = 1
        return found

    def _fails(self) -> bool:
        return getattr(self.reader, "verdict", False)

    def _check(self, items) -> list:
        found: list = []
        for item in items:
            if type(item) is Finding:
                found.append(item)
                continue
            line, rec = item if type(item) is tuple else (item.pop("at_line", 0), item)
            if type(item) is tuple or not self.strict:
                self.document.tags(rec, line)
            tag = rec.get("@tag")
            if tag == "document" and "journal" in rec and "records" in rec:
                self.journal = True
            if self.strict and (tag == "schema" or "@blocks" in rec):
                self.document.schemas(rec, line)
            if "id" in rec:
                found += self.threads.feed(rec, line)
        return found

    def _count(self, found) -> list:
        if self._fails():
            found = [finding._replace(level="note") if finding.level == "error" else finding for finding in found]
        for finding in found:
            if self.guess is None and (finding.refused or finding.rule in GUESSES):
                self.guess = finding
            self.levels[finding.level] = self.levels.get(finding.level, 0) + 1
            self.counts[finding.rule] = self.counts.get(finding.rule, 0) + 1
        return found


# What only a person can put right: rewritten it would look right, and still be a guess.
GUESSES = _words("unterminated-quote open-list deep-list escape hint no-list no-tag table unknown-tag required-tag")


def canonical(chunks, write, tags=()) -> None:
    """Writes the canonical text of a document in text form. chunks: its bytes. write: takes bytes. tags: those that it is known to use.

    Raises Failure, having written a part, where the canonical text could not hold everything.
    """
    from itertools import chain

    reader, writer, notes = Reader(keep_comments=True), Writer(tags=tags), []  # type: ignore[var-annotated]
    for data in chain(chunks, (None,)):
        items = reader.close() if data is None else reader.feed(data)
        out = []
        for item in items:
            if type(item) is Finding:
                if item.level == "error":
                    raise Failure(f"line {item.line}: {item.message}")
                continue
            try:
                out.append(writer.write(_bare(item), notes))
            except Unwritable as bad:
                raise Failure(str(bad)) from None
            if notes:
                raise Failure(notes[0])
        write("".join(out).encode())
    write(writer.close().encode())


def _bare(rec: dict) -> dict:
    """`rec` without the spelling that the canonical text leaves out. Raises Failure for comments, which it can't hold."""
    if "@comments" in rec:
        raise Failure("it has comments, which canonical text cannot hold")
    rec = {key: value for key, value in rec.items() if key not in ("@hints", "@quoted")}
    if "@blocks" in rec:
        rec["@blocks"] = [_bare(block) for block in rec["@blocks"]]
    return rec


def digest(chunks) -> bytes:
    """SHA-256 over the records of a document in text form, without those that the canonical writer adds."""
    import hashlib
    from itertools import chain

    reader, seen = Reader(), hashlib.sha256()
    for data in chain(chunks, (None,)):
        for item in reader.close() if data is None else reader.feed(data):
            if type(item) is dict and not is_added(item):
                seen.update(encode(item))
    return seen.digest()
