"""The text form: its reader and its canonical writer, as ftai(5) describes them.

First what a line can be, then the writer, then the reader: a structure of blocks from lines (`Reader`), and a record from the lines of a block.
"""

import re

import orjson

from .errors import Finding
from .record import CONTROLS, DEPTH, INT_MAX, INT_MIN, KEY, LIMIT, STRUCTURE, TAG, TAG_LIMIT

# ---- what a line can be ----

# A tag line: `@name`, `@@name`, `@"name"`; what comes behind is the head. `@mike,` is text.
TAG_LINE = re.compile(r'(@@?)(?:([A-Za-z_][A-Za-z0-9_.-]*)|"([A-Za-z_][A-Za-z0-9_.-]*)")(?=[ \t:{\n]|\Z)')
FIELD = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]*):(?!//)")
QUOTED = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"')
ESCAPE = re.compile(r"\\(.)")
ESCAPES = {'"': '"', "\\": "\\", "n": "\n", "r": "\r", "t": "\t"}
NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:e-?[0-9]+)?")
UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")  # what a line of text cannot hold as it is
BLANK = " \t"  # white space of the format; str.strip() alone would take NBSP and U+2028 too


def comment_at(line: str) -> int:
    """Where the comment of a line begins, or -1: `//` at its start or after white space, outside pairs of quotes. Linear in the line."""
    at = 0
    slash = line.find("//")
    paired = True
    while slash >= 0:
        quote = line.find('"', at, slash) if paired else -1
        if quote >= 0:
            pair = QUOTED.match(line, quote)
            if pair:
                at = pair.end()
                if slash < at:
                    slash = line.find("//", at)
                continue
            # A quote without a partner is text, and no quote behind it can have one.
            paired = False
        if slash == 0 or line[slash - 1] in BLANK:
            return slash
        at = slash + 1
        slash = line.find("//", at)
    return -1


def typed(text: str):
    """A bare value: true, false, or a number if writing the number gives the same characters; else the text itself."""
    if text[-1:] not in "0123456789":
        return text == "true" if text in ("true", "false") else text
    if text.isdigit() and text.isascii() and len(text) < 19 and (text[0] != "0" or text == "0"):
        return int(text)
    if len(text) > 32 or not NUMBER.fullmatch(text):
        return text
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:  # 1e400
        return text
    if number(value) != text or not (type(value) is float or INT_MIN <= value <= INT_MAX):
        return text
    return value


def number(value: int | float) -> str:
    """A number as canonical text has it. Newer orjson writes 1e+16 for what older ones, and the format, write as 1e16."""
    return orjson.dumps(value).decode().replace("e+", "e")


def declared(schema: dict) -> tuple[list[str], list[str]]:
    """The tags that a `@schema` record requires and allows, as bare lower-case names, from any of the spellings people use."""

    def names(value):
        parts = value if type(value) is list else str(value).strip("[]").split(",")
        return [name.lower() for part in parts if (name := str(part).strip(" \t@\"'"))]

    return names(schema.get("required_tags", [])), names(schema.get("optional_tags", []))


# ---- writing ----


class Unwritable(ValueError):
    """A record that the text form cannot hold: `field` is the key it is about, `reason` what is wrong with it."""

    def __init__(self, field: str, reason: str):
        super().__init__(f"field '{field}': {reason}")
        self.field, self.reason = field, reason


def quote(text: str) -> str:
    """A canonical quoted string. Raises ValueError, naming the character, for what cannot be written."""
    try:
        # JSON's own escapes are the format's five, but for control characters.
        made = orjson.dumps(text).decode()
    except (TypeError, ValueError):
        raise ValueError("a lone surrogate cannot be written") from None
    if ("\\" in made or "\x7f" in made) and (bad := CONTROLS.search(text)):
        raise ValueError(f"U+{ord(bad[0]):04X} cannot be written")
    return made


def literal(value, depth: int = 0) -> str:
    """A field's value as canonical text. Raises ValueError for what is no value."""
    kind = type(value)
    if kind is str:
        return quote(value)
    if kind is bool:
        return "true" if value else "false"
    if kind is int:
        if not INT_MIN <= value <= INT_MAX:
            raise ValueError("an integer of more than 64 bits")
        return str(value)
    if kind is float:
        if value - value != 0:
            raise ValueError("a number that is not finite")
        return number(value)
    if kind is list:
        if depth >= DEPTH:
            raise ValueError(f"more than {DEPTH} lists in one another")
        return f"[{', '.join([literal(item, depth + 1) for item in value])}]"
    raise ValueError("null cannot be written" if value is None else f"a value of type {kind.__name__} cannot be written")


def as_text(text: str, tag: str | None) -> list[str] | None:
    """The lines of `@text` as they can stand in a block `tag` (None: at top level), or None where a line would be read as something else."""
    lines = [line.rstrip(BLANK) for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    while lines and not lines[0]:
        del lines[0]
    if UNFIT.search(text) or margin(lines):
        return None
    for line in lines:
        bare = line.lstrip(BLANK)
        if not bare:
            if tag is None:
                return None
        elif bare == "---" or (bare[0] == "@" and TAG_LINE.match(bare)) or (tag and is_field(bare, tag)) or comment_at(bare) >= 0:
            return None
    return lines


def is_field(bare: str, tag: str) -> bool:
    """True for a line of a block `tag` that is a field. In a table a line with `|` is a row, unless its value is one string or list."""
    found = FIELD.match(bare)
    if found is None or tag != "table" or "|" not in bare:
        return found is not None
    raw = bare[found.end() :].strip(BLANK)
    return (raw[:1] == '"' and quoted(raw) is not None) or (raw[:1] == "[" and List().add(raw) == "whole")


def margin(lines: list[str]) -> str:
    """The white space that all lines but blank ones begin with."""
    found = None
    for line in lines:
        if line:
            own = line[: len(line) - len(line.lstrip(BLANK))]
            if found is None or found.startswith(own):
                found = own
            elif not own.startswith(found):
                found = found[: next(i for i, (a, b) in enumerate(zip(found, own, strict=False)) if a != b)]
            if not found:
                break
    return found or ""


def dump(rec: dict, notes: list | None = None, used: dict | None = None) -> str:
    """The canonical text of one record, from its `@tag` line to its `@end` (narrative: between two `---`), with the last newline.

    notes: warnings are appended to it (text that had to be quoted). used: the tags of the text become its keys.
    Raises Unwritable for what the text form cannot hold. `@comments`, `@hints` and `@quoted` are left out, as canonical text has none.
    """
    out: list[str] = []
    notes = [] if notes is None else notes
    used = {} if used is None else used
    if "@tag" in rec:
        _write_block(rec, "", out, used, notes)
    else:
        text = _narrative(rec)
        lines = as_text(text, None)
        if lines:
            out += ["---", *lines, "---"]
        else:
            _write_prose(text, "", out, used, notes)
    out.append("")
    return "\n".join(out)


_known: set[str] = set()  # names of fields that were found good


def _write_block(rec, pad, out, used, notes):
    tag = rec["@tag"]
    if type(tag) is not str or not TAG.match(tag) or len(tag) > TAG_LIMIT or tag == "end":
        raise Unwritable("@tag", f"{tag!r} is no tag that can be written")
    if len(pad) >= 2 * DEPTH:
        raise Unwritable("@blocks", f"more than {DEPTH} blocks in one another")
    try:
        if tag == "ftai":
            out.append(pad + _header(rec))
            return
        used[tag] = None
        key = "@head"
        out.append(f"{pad}@{tag} {quote(rec['@head'])}" if key in rec else f"{pad}@{tag}")
        inner = pad + "  "
        for key, value in rec.items():
            if key in _known:
                out.append(f"{inner}{key}: {quote(value) if type(value) is str else literal(value)}")
            elif key[:1] == "@":
                if key not in STRUCTURE:
                    raise ValueError("unknown key")
            else:
                if not KEY.match(key):
                    raise ValueError("no field name")
                out.append(f"{inner}{key}: {literal(value)}")
                if len(_known) < 10_000 and len(key) < 100:
                    _known.add(key)
        key = "@text"
        if key in rec:
            _write_text(rec[key], inner, tag, out, used, notes)
    except Unwritable:
        raise
    except (ValueError, TypeError, AttributeError) as bad:
        raise Unwritable(key, str(bad)) from None
    lone = False  # narrative can stand here: right behind a block, as else it would be read as @text or as one with other narrative
    for block in rec.get("@blocks", ()):
        if type(block) is not dict:
            raise Unwritable("@blocks", "holds what is no block")
        if "@tag" in block:
            _write_block(block, inner, out, used, notes)
            lone = True
        elif lone and _narrative(block).strip("\n" + BLANK):
            lone = not _write_text(block["@text"], inner, tag, out, used, notes)
        else:
            _write_prose(_narrative(block), inner, out, used, notes)
            lone = True
    out.append(f"{pad}@end")


def _header(rec) -> str:
    words = rec.get("@head", "")
    if set(rec) - {"@tag", "@head", "@comments"}:
        raise Unwritable("@tag", "'ftai' is the header and holds words only")
    if not words:
        return "@ftai" if "@head" not in rec else '@ftai ""'
    plain = words == words.strip(BLANK) and words[0] not in '":{' and "//" not in words and "\n" not in words and not UNFIT.search(words)
    return f"@ftai {words if plain else quote(words)}"


def _narrative(rec) -> str:
    if set(rec) != {"@text"} or type(rec["@text"]) is not str:
        raise Unwritable("@text", "a record without '@tag' is narrative and holds '@text' alone")
    return rec["@text"]


def _write_text(text, pad, tag, out, used, notes) -> bool:
    """Writes lines of text, or a `@prose` block where they can't stand as they are. True if the last thing written is text."""
    lines = as_text(text, tag)
    if lines is None:
        _write_prose(text, pad, out, used, notes)
        return False
    # The published linter refuses a margin of spaces and tabs.
    pad = "" if any(line[:1] == "\t" for line in lines) else pad
    out += [pad + line if line else "" for line in lines]
    return bool(lines)


def _write_prose(text, pad, out, used, notes):
    try:
        body = quote(text)
    except ValueError as bad:
        raise Unwritable("@text", str(bad)) from None
    used["prose"] = None
    out += [f"{pad}@prose", f"{pad}  body: {body}", f"{pad}@end"]
    notes.append("text that would be read as something else is written as a '@prose' block")


OWN = {"@tag": "document", "generator": "serenamaster"}  # the @document of a text whose records came without one


def is_verdict(rec: dict) -> bool:
    """True for `@intent fail`, which stands on line 1 before the header and turns the verdict over."""
    return list(rec) == ["@tag", "@head"] and rec["@tag"] == "intent" and rec["@head"].lower() == "fail"


class Writer:
    """A canonical document from a stream of records: header, `@document` and `@schema` are added where the records bring none.

    name: of the schemas it adds. tags: names that are known to come, so that the first schema can declare them all.
    """

    def __init__(self, name: str = "serenamaster", tags=()):
        self.name, self.ahead = name, dict.fromkeys(tags)
        self.declared: set[str] = {"ftai", "document", "schema"}
        self.pending: dict[str, None] = {}  # what a @document that came in uses; the @schema behind it may declare it
        self.empty, self.header, self.document = True, False, False

    def write(self, rec: dict, notes: list | None = None) -> str:
        """The text to append for one more record. Raises Unwritable, and then nothing is to be appended. notes: see dump()."""
        used: dict[str, None] = {}
        body = dump(rec, notes, used)
        tag = rec.get("@tag")
        if self.empty and is_verdict(rec):
            self.empty = False
            return f"@intent {rec['@head']}\n"
        if not self.header and tag == "ftai":
            self.empty, self.header = False, True
            return body
        out = self._head(tag == "document")
        needed = {name: None for name in used if name not in self.declared}
        if tag == "document" and not self.document:
            self.pending = needed
        else:
            if tag == "schema":
                for name in _declares(rec):
                    self.pending.pop(name, None)
            needed = self.pending | needed
            if needed:
                out += self._schema(needed)
                self.pending = {}
            if tag == "schema":
                self.declared.update(_declares(rec))
        self.document = True
        return out + "\n" + body

    def close(self) -> str:
        """The text that ends the document: header and `@document` of an empty one, a `@schema` that is still owed, or nothing."""
        out = self._head(False)
        self.document = True
        return out + (self._schema(self.pending) if self.pending else "")

    def _head(self, brought: bool) -> str:
        out = ""
        if not self.header:
            self.header, self.empty, out = True, False, "@ftai v2.0\n"
        return out if brought or self.document else out + "\n" + dump(OWN)

    def _schema(self, needed: dict) -> str:
        needed = needed | {name: None for name in self.ahead if name not in self.declared}
        self.declared.update(needed)
        return "\n" + dump({"@tag": "schema", "name": self.name, "required_tags": ["@document"], "optional_tags": ["@" + name for name in needed]})


def _declares(schema: dict) -> set[str]:
    """The tags a schema declares in the one spelling that the published linter sees too."""
    both = [schema.get("required_tags"), schema.get("optional_tags")]
    return {name[1:] for names in both if type(names) is list for name in names if type(name) is str and name[:1] == "@"}


def is_added(rec: dict) -> bool:
    """True for a header, `@document` or `@schema` of the shape that Writer adds: conversions to other forms leave these out."""
    tag = rec.get("@tag")
    if tag == "schema":
        return list(rec) == ["@tag", "name", "required_tags", "optional_tags"] and rec["name"] == OWN["generator"] and rec["required_tags"] == ["@document"]
    return rec == OWN or rec == {"@tag": "ftai", "@head": "v2.0"}


# ---- reading ----

HINT = re.compile(r"(int|float|bool|date)[ \t]+(.+)")
RESERVED = re.compile(r"meta|binary|sys|internal|debug|_|prompt\Z")
DATE = r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?(?:Z|[+-][0-9]{2}:?[0-9]{2})?)?"
NAME = re.compile(r"[a-z][a-z0-9_]*\Z")  # a tag or key of the strict reading
MUST_CLOSE = frozenset(("task", "memory", "agent", "ai", "config", "protocol", "decision", "schema"))
# One of `[ ] ,`, a quoted string, a bare element, or the end of the line; where none of them matches there is no list.
ELEMENT = re.compile(r'[ \t]*+(?:([\[\],])|("[^"\\]*+(?:\\.[^"\\]*+)*+")|([^\[\]," \t][^\[\],"]*+)|\Z)')
C0 = bytes(c for c in range(32) if c not in b"\t\n\r") + b"\x7f"
CHUNK = 256 * 1024
MIB = 1024 * 1024
HELD = 8192  # characters up to which a plain block at the end of what was fed waits for its other lines


class Overlong(str):
    """The beginning of a line past the limit."""


class Block:
    """A block whose tag line was read. Its items are lines (number, text) and blocks, as they came."""

    rec: dict | None = None  # what a plain block holds, apart from its items
    head = bad = hint = None
    second = brace = quoted = closed = same = False  # closed: by its own @end or }; same: it has children at its own indentation
    body = True  # a tag line without a head, a line or a deeper child: what an @end looks for
    column = 1
    rest: list | tuple = ()  # what becomes its siblings, once it is settled
    comments: list | tuple = ()

    def __init__(self, tag: str, indent: int, line: int, start: int):
        self.tag, self.indent, self.line, self.start = tag, indent, line, start
        self.items: list = []


class List:
    """A list that is being read, line by line; `value` holds it when it is whole."""

    def __init__(self):
        self.value: list = []
        self.open: list[list] = []
        self.wants = True  # an element can stand here

    def add(self, line: str) -> str:
        """Reads one more line: "" while brackets are open, else "whole", "bad" (no list) or "deep"."""
        at = 0
        while found := ELEMENT.match(line, at):
            at = found.end()
            mark, quoted, bare = found.groups()
            if mark == "]":
                self.value = self.open.pop()
                self.wants = False
                if not self.open:
                    return "bad" if line[at:].strip(BLANK) else "whole"
            elif mark == ",":
                if self.wants:
                    return "bad"
                self.wants = True
            elif mark or quoted or bare:
                if not self.wants:
                    return "bad"
                if mark:
                    if len(self.open) >= DEPTH:
                        return "deep"
                    inner: list = []
                    if self.open:
                        self.open[-1].append(inner)
                    self.open.append(inner)
                else:
                    self.open[-1].append(unescape(quoted[1:-1]) if quoted else typed(bare.rstrip(BLANK)))
                    self.wants = False
            else:
                return ""
        return "bad"


def unescape(text: str) -> str:
    """What stands between the quotes, without the five escapes; an unknown one stays as written."""
    return ESCAPE.sub(lambda found: ESCAPES.get(found[1], found[0]), text) if "\\" in text else text


def quoted(raw: str) -> str | None:
    """The string, if the whole value is a quoted one."""
    found = QUOTED.match(raw)
    return unescape(raw[1:-1]) if found and found.end() == len(raw) else None


def hinted(hint: str, raw: str):
    """A value as its hint says, or None where it does not fit."""
    if hint == "bool":
        return {"true": True, "false": False}.get(raw.lower())
    if hint == "int":
        return int(raw) if re.fullmatch("[+-]?[0-9]{1,19}", raw) and INT_MIN <= int(raw) <= INT_MAX else None
    if hint == "float":
        value = float(raw) if re.fullmatch(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", raw) else None
        return value if value is not None and value - value == 0 else None
    text = quoted(raw) if raw[0] == '"' else raw
    found = re.fullmatch(DATE, text or "")
    if found:
        from datetime import date

        try:
            date.fromisoformat(found[1])
        except ValueError:
            return None
    return text if found else None


def join(lines: list[str]) -> str:
    """Lines of text as `@text` holds them: without the margin they share, and without blank lines at the end."""
    while lines and not lines[-1]:
        lines.pop()
    width = len(margin(lines))
    return "\n".join([line[width:] for line in lines])


def is_rule(line: str) -> bool:
    return "---" in line and line.strip(BLANK) == "---"


TAGS: dict[str, str] = {}  # tag lines of plain blocks
KEYS: dict[str, str] = {}  # what stands before the colon of a plain field, with its indentation
SHAPES: dict[str, list] = {}  # per tag, what learn() knows
SEEN: dict[tuple, int] = {}  # how often a shape came that is not known yet
SHORT = 100  # characters of a name that is worth remembering
NOT_PLAIN = ("end", "ftai", "table")


def learn(rows: list[str], rec: dict) -> None:
    """Remembers the shape of a plain block (its lines without the tag's) once it has come a few times.

    A shape is the tag, the names of the fields, and how each value stands: quoted, an integer, another bare one.
    """
    names = tuple(rec)
    if len(rows) != len(names) - 1 or len(names) > 50 or max(map(len, names)) > SHORT:
        return
    tag = rec["@tag"]
    count = SEEN.get((tag, *names), 0)
    if count > 8 or len(SEEN) > 10_000:
        return
    SEEN[tag, *names] = count + 1
    known = SHAPES.get(tag, [])
    values = [row.partition(":")[2] for row in rows]
    if count < 3 or len(known) >= 4 or len(SHAPES) > 200 or any(value[:2] in ("", " ", " [") for value in values):
        return
    body = f"@({re.escape(tag)})\n"
    kinds: tuple = ([], [], [])
    line = '{"@tag":"%s"'
    for row, value, key in zip(rows, values, names[1:], strict=True):
        kind = 0 if value.startswith(' "') else 1 if type(rec[key]) is int else 2
        kinds[kind].append(key)
        line += f',"{key}":%s' if kind == 1 else f',"{key}":"%s"'
        body += f"{re.escape(row.partition(':')[0])}: {FORMS[kind]}\n"
    shape = (names, *kinds, line + "}\n")
    closed = re.compile(body + r"@end\n\n*+")
    if all(closed.pattern != other.pattern for other, _, _ in known):
        unclosed = re.compile(body + r"\n*+(?=@(?!end[ \n])[a-z_][a-z0-9_.-]*[ \n])")
        SHAPES[tag] = [*known, (closed, unclosed, shape)]


FORMS = (r'"([^"\\\n]*+(?:\\.[^"\\\n]*+)*+)"', r"(0|-?[1-9][0-9]{0,17})", r'([^" \t\[\n](?:[^\n]*[^ \t\n])?)')


def scan(pattern, shape, text: str, at: int) -> list:
    """The matches of blocks of one shape that follow one another from `at` on."""
    matches = list(iter(pattern.scanner(text, at).match, None))
    bares = [shape[0].index(key) + 1 for key in shape[3]]
    if bares and "//" in text:
        for index, found in enumerate(matches):
            if any("//" in found[group] for group in bares):
                return matches[:index]
    return matches


def records(matches: list, shape) -> list[dict]:
    """The records of blocks of one shape."""
    names, quotes, integers, bares, _ = shape
    made = []
    for found in matches:
        rec = dict(zip(names, found.groups()))  # noqa: B905  (`strict` costs a twentieth of the whole)
        for key in integers:
            rec[key] = int(rec[key])
        for key in bares:
            value = rec[key]
            if value[-1] in "0123456789e":
                rec[key] = typed(value)
        for key in quotes:
            if "\\" in rec[key]:
                rec[key] = unescape(rec[key])
        made.append(rec)
    return made


def lines(matches: list, shape) -> list[bytes]:
    """The same in line form, all lines as one: quoted strings are spelled as in JSON, where they hold no backslash and no tab."""
    bares = [shape[0].index(key) for key in shape[3]]
    line = shape[4]
    made = []
    for found in matches:
        groups = found.groups()
        text = line % groups
        spelled = "\\" not in text and "\t" not in text
        for bare in bares:
            value = groups[bare]
            if value[-1] in "0123456789e" or '"' in value:
                spelled = False
        if not spelled:
            text = orjson.dumps(records([found], shape)[0]).decode() + "\n"
        made.append(text)
    return ["".join(made).encode()]


def plain_tag(row: str) -> str:
    """The tag of a plain block, whose tag line (without `@`) this is, or ""."""
    if not TAG.match(row) or len(row) > TAG_LIMIT or RESERVED.match(row) or row in NOT_PLAIN:
        return ""
    if len(TAGS) < 10_000:
        TAGS[row] = row
    return row


def opening(row: str) -> dict | None:
    """The beginning of a record, for a tag line (without its `@`) that needs no second look."""
    name, _, head = row.partition(" ")
    tag = TAGS.get(name) or plain_tag(name)
    head = head.strip(BLANK)
    if not head or not tag:
        return {"@tag": tag} if tag else None
    if head[-1] == "{" or "//" in head:
        return None
    value = quoted(head) if head[0] == '"' else head
    return None if value is None else {"@tag": tag, "@head": value}


def plain(rows: list[str], slashes: bool) -> dict | None:
    """The record of a block of plain lines (the first without its `@`, the last `@end` left out), or None where it has to be read in full.

    What it takes it reads as Reader._build() does: fields with a value on their line, text, and blocks of the same kind, each closed, within.
    slashes: there may be comments in it.
    """
    while not rows[-1] and len(rows) > 1:
        rows.pop()
    rec = opening(rows[0])
    if rec is None:
        return None
    outer: list = []  # of the nested blocks: what is around them, as (record, indentation, text, its blocks)
    indent = 0
    main: list = []  # the text of the block
    text: list = main  # the text that is being read: its own, or narrative behind a block
    blocks: list = []
    empty = False
    del rows[0]
    for row in rows:
        if slashes and (at := comment_at(row)) >= 0:
            row = row[:at].rstrip(BLANK)
            if not row:
                continue
        left, colon, right = row.partition(":")
        key = KEYS.get(left)
        if key is None or not colon:
            bare = left.lstrip(BLANK)
            if bare[:1] == "@":
                width = len(left) - len(bare)
                if "\t" in left[:width]:
                    return None
                if text is not main and text:
                    blocks.append({"@text": join(text)})
                text = []
                if bare == "@end":
                    if width != indent or not outer or colon:
                        return None
                    if main:
                        rec["@text"] = join(main)
                    if blocks:
                        rec["@blocks"] = blocks
                    rec, indent, main, blocks = outer.pop()
                    continue
                child = opening(row[width + 1 :])
                if child is None or width <= indent or len(outer) > DEPTH // 4:
                    return None
                blocks.append(child)
                outer.append((rec, indent, main, blocks))
                rec, indent, main, blocks = child, width, [], []
                text = main
                continue
            if not colon or not KEY.match(bare):
                if not bare and not colon:
                    if text:
                        text.append("")
                    continue
                if bare[:1] in ("}", "-") and (empty or bare[0] == "}" or bare.startswith("---")):
                    return None
                text.append(row.rstrip(BLANK))
                continue
            key = bare
            if len(KEYS) < 10_000 and len(left) < SHORT:
                KEYS[left] = key
        value: str | list
        if right[:2] == ' "' and right[-1] == '"' and len(right) > 2:
            value = right[2:-1]
            if '"' in value or "\\" in value:
                found = QUOTED.match(right, 1)
                if found is None or found.end() != len(right):
                    return None
                value = unescape(value)
        elif right[:1] == " ":
            value = right.strip(BLANK)
            if not value:
                empty = True
            elif value[0] == '"':
                return None
            elif value[0] == "[":
                whole = List()
                if whole.add(value) != "whole":
                    return None
                value = whole.value
            else:
                value = typed(value)
        elif right:
            return None
        else:
            value = ""
            empty = True
        if key in rec:
            return None
        rec[key] = value
    if outer or "@head" in rec and len(rec) == 2 and not main and not blocks:
        return None
    if text is not main and text:
        blocks.append({"@text": join(text)})
    if main:
        rec["@text"] = join(main)
    if blocks:
        rec["@blocks"] = blocks
    elif not main and "@head" not in rec:
        learn(rows, rec)
    return rec


class Reader:
    """A push parser: feed() takes bytes as they arrive and returns the items that are complete.

    An item is a record (dict) or a Finding, in order of appearance; a Finding with `refused` stands where a record would have come.
    strict: the findings of the strict reading too. keep_comments: `@comments`, `@hints` and `@quoted` in the records.
    at: the line of its tag in each top-level record, as field `at_line`. limit: bytes of a record. old: expects the dialect `version: 1.0`.
    lines: runs of plain blocks may come as bytes, in line form. on_tag(name, line, column, quoted) is called for each tag line.
    `verdict` is True after `@intent fail`. Memory is bounded by the largest top-level block.
    """

    def __init__(self, *, strict=False, keep_comments=False, at=False, limit=LIMIT, old=False, lines=False, on_tag=None):
        self.strict, self.keep, self.at, self.limit, self.lines, self.on_tag = strict, keep_comments, at, limit, lines, on_tag
        self.plain = limit > MIB and not (strict or keep_comments or at or on_tag)
        self.verdict = False
        self.out: list = []
        self.partial: list[bytes] = []  # the line that has begun; past the limit its first bytes only
        self.size = 0  # of that line
        self.bytes = self.number = self.pos = 0  # pos: where the line ends, counted while blocks are open
        self.begun, self.old = False, "head" if old else ""
        self.after_cr = self.dirty = self.skipping = self.bracket = False
        self.held = ""  # a plain block that may go on
        self.run: list[tuple] = []  # plain blocks that were not closed yet, as (record, line, start), where nothing else is open
        self.prefix: list = []  # `#` lines on top, which open either narrative or the old dialect
        self.stack: list[Block] = []
        self.prose: list = []
        self.prose_size = 0
        self.swallow = -1  # the indentation of a block that `}` has just closed
        self.comments: list[str] = []  # of top level, until the next record
        self.refusals: list[Finding] = []
        self.said: set[str] = set()  # what is reported once
        self.quoted = 0

    # From bytes to lines

    def feed(self, data: bytes) -> list:
        """The items that `data` completed."""
        out = self.out = []
        for start in range(0, len(data), CHUNK):
            self._feed(data[start : start + CHUNK])
        return out

    def close(self) -> list:
        """The items that the end of the input completed."""
        out = self.out = []
        if self.partial:
            self._feed(b"\n")
        self._release()
        self._unroll()
        if not self.begun:
            self._open(1)
        self._pop(0)
        self._end_prose()
        if self.comments:
            out.append({"@tag": "prose", "@comments": self.comments})
        return out

    def _feed(self, data):
        if self.after_cr and data[:1] == b"\n":
            data = data[1:]
            self.bytes += 1
        self.after_cr = False
        cut = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if cut:
            self.after_cr = cut == len(data) and data[-1:] == b"\r"
            lines = b"".join([*self.partial, data[:cut]])
            dropped = self.size - sum(map(len, self.partial))
            self.partial, self.size = [], 0
            self._lines(lines, dropped)
            data = data[cut:]
        if data:
            self.size += len(data)
            if self.size <= self.limit:
                self.partial.append(data)
            else:
                self.partial = [b"".join([*self.partial, data])[:1024]]

    def _lines(self, data, dropped=0):
        """Reads whole lines; the middle of the first of them may have been dropped."""
        if len(data) + dropped > self.limit:
            self._release()
            for line in data.splitlines(keepends=True):  # bytes break at LF, CRLF and CR only
                size = len(line) + dropped
                if size > self.limit:
                    self._line(Overlong(line[:1024].decode("utf-8", "replace").rstrip("\r\n")), size)
                    self.bytes += size
                else:
                    self._lines(line)
                dropped = 0
            return
        try:
            text = data.decode()
        except UnicodeDecodeError as bad:
            lines = data.splitlines(keepends=True)
            if len(lines) > 1:
                for line in lines:
                    self._lines(line)
                return
            self._release()
            column = len(data[: bad.start].decode()) + 1
            reason = f"byte 0x{data[bad.start]:02X} at offset {self.bytes + bad.start} is not UTF-8, read as U+FFFD"
            self._find("error", "utf-8", self.number + 1, column, reason)
            text = data.decode("utf-8", "replace")
        if not self.bytes and text[0] == "\ufeff":
            text = text[1:]
            self._find("warning", "bom", 1, 1, "a byte order mark, expected none")
        self.bytes += len(data)
        if "\r" in text:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        text = self.held + text
        self.held = ""
        plain = self.plain
        if len(data.translate(None, C0)) != len(data):
            self.dirty, plain = True, False
        at = 0
        while not self.begun and at < len(text):
            end = text.index("\n", at)
            self._line(text[at:end])
            at = end + 1
        if at < len(text):
            text = text[at:]
            if plain and not self.old:
                self._plain_text(text)
            else:
                for line in text[:-1].split("\n"):
                    self._line(line)

    def _release(self):
        if self.held:
            lines, self.held = self.held[:-1], ""
            for line in lines.split("\n"):
                self._line(line)

    # What a document begins with

    def _begin(self, line, bare):
        """Takes the lines before the first one that counts; True if this was one of them."""
        number = self.number
        if not bare:
            if self.prefix:
                self.prefix.append((number, ""))
        elif bare.startswith("//") and not (self.dirty and CONTROLS.search(bare)):
            if self.keep:
                self.comments.append(bare)
        elif number == 1 and re.fullmatch(r"@intent[ \t]+fail(?:[ \t]+//.*)?", bare, re.IGNORECASE):
            self.verdict = True
            block = Block("intent", 0, 1, 0)
            block.head, block.closed = bare.split()[1], True
            self._flow([block])
        elif bare[0] == "#" and len(self.prefix) < 1000 and type(line) is str:
            self.prefix.append((number, line))
        else:
            if self.old or bare.startswith("version:"):
                self.begun, self.old = True, "head"
                self.stack = [self._old_block("document")]
                self._comment(self.stack[0], "\n".join([text for _, text in self.prefix if text]))
                return False
            self._open(number, bare)
            return False
        return True

    def _open(self, number, bare=""):
        """The first line that counts: the header, if there is one."""
        self.begun = True
        place = number == 1 + self.verdict
        if re.match(r"@ftai(?![^ \t])", bare, re.IGNORECASE):
            if not place:
                self._strict("error", "header", number, 1, f"the header stands on line {number}, expected it on line {1 + self.verdict}")
            if bare.split()[1:2] != ["v2.0"]:
                self._strict("error", "header", number, 1, f"'{bare[:40]}', expected '@ftai v2.0'")
        else:
            self._find("error" if self.strict else "warning", "header", number, 1, "no header, expected '@ftai v2.0' on line 1")
        for number, line in self.prefix:
            self._top_line(number, line, len(line))
        self.prefix = []

    def _old_block(self, tag):
        block = Block(tag, 0, self.number, self.pos)
        block.closed = True
        return block

    def _old_line(self, line, bare):
        """A line of the dialect `version: 1.0`: a head of fields, then the sections `schema:` and `content:`."""
        if self.old == "content":
            if bare:
                self._narrate(self.number, line, len(line))
            else:
                self._end_prose()
        elif bare in ("schema:", "content:"):
            self._pop(0)
            self.old = bare[:-1]
            if self.old == "schema":
                self.stack = [self._old_block("schema")]
        elif bare[:1] == "#":
            self._comment(self.stack[0], bare)
        else:
            parts = bare[6:].split(":", 3)
            if self.old == "schema" and bare.startswith("field:") and len(parts) == 4:
                block = self._old_block("field")
                name, kind, required, description = (part.strip(BLANK) for part in parts)
                block.rec = {"@tag": "field", "name": name, "type": kind, "required": typed(required), "description": description}
                self._add(block)
            else:
                self._add((self.number, line))
            self._bound()

    # From lines to blocks

    def _line(self, line, size=0):
        if self.run:
            self._unroll()
        self.number += 1
        start = self.pos
        self.pos += size or 1 + (len(line) if line.isascii() else len(line.encode()))
        bare = line.strip(BLANK)
        if not self.begun and self._begin(line, bare):
            return
        if self.old:
            self._old_line(line, bare)
            return
        stack = self.stack
        if not bare:
            self._add((self.number, "")) if stack else self._end_prose()
            return
        first = bare[0]
        if first == "@":
            found = TAG_LINE.match(bare)
            if found:
                self._tag(line, bare, found, start)
                return
            self._find("warning", "no-tag", self.number, line.index("@") + 1, "'@' begins no tag here, read as text: expected a name behind it")
        self.swallow = -1
        if first == "}" and not bare[1:].split("//")[0].strip(BLANK):
            for index in range(len(stack) - 1, -1, -1):
                if stack[index].brace:
                    stack[index].closed = True
                    self._comment(stack[index], bare[1:].strip(BLANK))
                    self.swallow = stack[index].indent
                    self._pop(index)
                    return
        if not stack:
            self._top_line(self.number, line, self.pos - start)
            return
        self._add((self.number, line))
        if not bare.startswith("//"):
            stack[-1].body = True
        self._bound()

    def _tag(self, line, bare, found, start):
        rest = bare[found.end() :]
        note = ""
        if "//" in rest:
            at = comment_at(rest)
            if at >= 0:
                rest, note = rest[:at], rest[at:]
        rest = rest.strip(BLANK)
        name = found[2] or found[3]
        tag = name.lower()
        column = line.index("@") + 1
        indent = len(line[: column - 1].expandtabs(4))
        stack = self.stack
        if self.skipping and indent <= stack[0].indent:
            self._pop(0)
        if tag == "end" and not found[3]:
            self._end(indent, column, rest, note)
            return
        self.swallow, self.bracket = -1, False
        block = Block(tag, indent, self.number, start)
        block.column, block.second, block.quoted = column, found[1] == "@@", found[3] is not None
        self._check_tag(block, name)
        if tag != "ftai" and rest[-1:] == "{" and (len(rest) == 1 or rest[-2] in BLANK):
            block.brace = True
            rest = rest[:-1].rstrip(BLANK)
            self._strict("error", "brace", self.number, column, f"'@{tag} {{' opens a block with a brace, expected '@{tag}' and '@end'")
        if rest:
            self._head(block, rest)
        self._comment(block, note)
        block.body = not rest
        self._place(block, tag == "ftai")

    def _place(self, block, whole=False):
        """Puts a new block where its indentation says: on the stack, or (whole: it has no lines) beside what stands there."""
        stack = self.stack
        depth = len(stack)
        while depth and stack[depth - 1].indent > block.indent:
            depth -= 1
        if block.second:
            depth = self._second(depth)
        if depth < len(stack):
            self._pop(depth)
        if len(stack) >= DEPTH and not whole:
            self._give_up()
        if stack:
            outer = stack[-1]
            if block.indent > outer.indent:
                outer.body = True
            elif not block.second:
                outer.same = True
            self._add(block)
        if not whole:
            if not stack:
                self._end_prose()
            stack.append(block)
        else:
            block.closed = True
            if type(block.head) is Overlong:
                block.bad = self._too_long(block.line)
            if not stack:
                self._flow([block])
        self._bound()

    def _second(self, depth):
        """How much of the stack stays where a `@@` tag comes: it closes the last `@@`, unless a block beside that one's parent began since."""
        stack = self.stack
        least = 1 << 62
        for index in range(depth - 1, -1, -1):
            if stack[index].second:
                return index if least > (stack[index - 1].indent if index else -1) else depth
            least = min(least, stack[index].indent)
        return depth

    def _end(self, indent, column, words, note):
        stack = self.stack
        swallow, self.swallow = self.swallow, -1
        if swallow >= 0 and (not stack or swallow == indent):
            return
        if words:
            self._find("warning", "end-words", self.number, column, f"'@end' with words behind it, read as text: '{words[:40]}'")
        if not stack:
            self._find("error" if self.strict else "warning", "stray-end", self.number, column, "'@end' closes nothing, expected an open block")
            if words:
                self._top_line(self.number, words, len(words))
            return
        depth = len(stack) - 1
        last = stack[depth]
        if last.indent != indent or not last.body or last.second:
            every = range(depth, -1, -1)
            firsts = [i for i in every if not stack[i].second] or list(every)
            level = [i for i in firsts if stack[i].indent == indent]
            bodied = [i for i in level or firsts if stack[i].body]
            depth = (bodied or level or firsts)[0]
        if words:
            self._add((self.number, words))
        stack[depth].closed = True
        self._comment(stack[depth], note)
        self._pop(depth)

    def _add(self, item):
        if not self.skipping:
            self.stack[-1].items.append(item)

    def _pop(self, depth):
        """Takes what stands on the stack from `depth` on off it."""
        stack = self.stack
        if depth == 0 and stack:
            outer = stack[0]
            stack.clear()
            self.skipping = False
            self._settle(outer)
            self._flow([outer, *outer.rest])
        else:
            del stack[depth:]

    def _bound(self):
        """Gives up the outermost block where it is too large to wait for its end; past the limit it is refused."""
        stack = self.stack
        while stack and not self.skipping and self.pos - stack[0].start > min(MIB, self.limit):
            outer = stack[0]
            if outer.same:
                self._give_up()
            elif self.pos - outer.start > self.limit:
                outer.bad = self._too_long(outer.line)
                outer.items.clear()
                self.skipping = True
            else:
                break

    def _give_up(self):
        """Takes the outermost block as never closed, though blocks within it are open."""
        stack = self.stack
        if len(stack) == 1:
            self._pop(0)
            return
        outer = stack.pop(0)
        if not self.skipping:
            # The open block is the last item: what follows it is in it. It goes on as the outermost.
            outer.items.pop()
        self.skipping = False
        self._settle(outer)
        if not outer.rest and stack[0].indent > outer.indent and not outer.bad and "deep" not in self.said:
            self.said.add("deep")
            self._find("error", "depth", stack[0].line, stack[0].column, f"more than {DEPTH} open blocks: '@{outer.tag}' was given up")
        self._emit(outer)
        self._flow(outer.rest)

    def _flow(self, items):
        """Emits settled blocks, and lines, at top level."""
        for item in items:
            if type(item) is Block:
                self._emit(item)
            else:
                self._top_line(item[0], item[1], len(item[1]) + 1)

    def _settle(self, block):
        """Makes `rest` of what a block that was never closed gives to its parent: from its first child of the same level, or a `---`, on.

        First its blocks do the same among themselves.
        """
        if not block.closed and not block.second and not block.bad:
            self._unclosed(block)
        if not block.items:
            return
        items: list = []
        for item in block.items:
            items.append(item)
            if type(item) is Block:
                self._settle(item)
                items += item.rest
                item.rest = ()
        if not block.closed:
            for index, item in enumerate(items):
                if (item.indent == block.indent and not item.second) if type(item) is Block else is_rule(item[1]):
                    block.rest = items[index:]
                    del items[index:]
                    break
        block.items = items

    def _unclosed(self, block):
        tag = block.tag
        if self.strict:
            level = "error" if tag in MUST_CLOSE else "warning"
        elif tag in self.said or tag == "include":
            return
        else:
            self.said.add(tag)  # a log holds millions of them
            level = "warning"
        self._find(level, "unclosed", block.line, block.column, f"'@{tag}' is never closed, expected '@end'")

    def _top_line(self, number, line, size):
        """A line that stands in no block."""
        bare = line.strip(BLANK)
        if not bare:
            self._end_prose()
        elif bare == "---":
            self._end_prose()
            self.bracket = not self.bracket
        else:
            self._narrate(number, line, size)

    def _narrate(self, number, line, size):
        self.prose_size += size
        if self.prose_size <= self.limit:
            self.prose.append((number, line))
        elif not self.refusals:
            self.refusals.append(self._too_long(number))
            self.prose.clear()

    # The short way: blocks of plain fields

    def _plain_text(self, text):
        """Reads whole lines as _line() does, but takes plain blocks as wholes; one at the end waits for the lines to come."""
        end = len(text)
        last = text.rfind("\n@") + 1
        found = TAG_LINE.match(text, last)
        if found and end - last < HELD and (found[2] or "x").lower() not in ("end", "ftai"):
            end, self.held = last, text[last:]
        narrow = text.isascii()
        self._roll()
        at = 0
        while at < end:
            if text[at] == "@" and not self.stack:
                done = self._scan(text, at, narrow)
                if done > at:
                    at = done
                    continue
            following, found = at, None
            while not found and following < len(text):
                following = text.find("\n@", following) + 1 or len(text)
                found = TAG_LINE.match(text, following)
            # The last piece may go on; an @end with words behind it gives them to the block before.
            whole = found and (found[2] is None or found[2].lower() != "end" or text[found.end()] == "\n")
            self._piece(text[at:following], narrow, whole)
            at = following

    def _scan(self, text, at, narrow):
        """Reads blocks of a known shape, where nothing else is open; returns where they end."""
        run = self.run
        tag = text[at + 1 : text.index("\n", at)]
        made = lines if self.lines else records
        for closed, unclosed, shape in SHAPES.get(tag, ()):
            matches = [] if run else scan(closed, shape, text, at)
            if matches:
                if self.prose_size:
                    self._end_prose()
                self.swallow = -1
                self.out += made(matches, shape)
                end = matches[-1].end()
                self.number += text.count("\n", at, end)
                return end
            matches = scan(unclosed, shape, text, at)
            if matches:
                if self.prose_size:
                    self._end_prose()
                self.swallow = -1
                over = len(matches) - DEPTH
                if over > 0:
                    # More of them than can be open: all but the last are done, and what was open before them.
                    self._run_on(len(run))
                    if tag not in self.said:
                        self._unclosed(Block(tag, 0, self.number + 1, 0))
                    self.out += made(matches[:over], shape)
                    at = self._advance(text, at, matches[over - 1].end(), narrow)
                    del matches[:over]
                for found, rec in zip(matches, records(matches, shape), strict=True):
                    run.append((rec, self.number + 1, self.pos))
                    at = self._advance(text, at, found.end(), narrow)
                self._run_on(len(run) - DEPTH)
                return at
        return at

    def _advance(self, text, at, end, narrow):
        self.number += text.count("\n", at, end)
        self.pos += end - at if narrow else len(text[at:end].encode())
        return end

    def _run_on(self, over):
        """Emits the first blocks of the run, `over` of them or more, as those that would be given up on the stack."""
        run, least = self.run, self.pos - MIB
        over = max(over, 0)
        while over < len(run) - 1 and run[over][2] < least:
            over += 1
        for rec, number, _ in run[:over]:
            if rec["@tag"] not in self.said:
                self._unclosed(Block(rec["@tag"], 0, number, 0))
            self.out.append(rec)
        del run[:over]

    def _piece(self, piece, narrow, whole):
        """Reads the lines from one tag in the first column to the next; whole: nothing more of its own lines can come."""
        run, stack = self.run, self.stack
        if len(run) == 1 and (piece == "@end\n" or piece == "@end\n\n"):
            self.out.append(run.pop()[0])
            self.number += len(piece) - 4
            return
        rec = plain(piece[1:].split("\n"), "//" in piece) if whole and piece[0] == "@" else None
        if rec is None or len(stack) > DEPTH // 2 and "@blocks" in rec:
            for line in piece[:-1].split("\n"):
                self._line(line)
            return
        number, start = self.number + 1, self.pos
        self.number += piece.count("\n")
        self.pos += len(piece) if narrow else len(piece.encode())
        self.swallow = -1
        if stack:
            if self.skipping:
                self._pop(0)
            block = Block(rec["@tag"], 0, number, start)
            block.rec = rec
            self._place(block)
            return
        if self.prose_size:
            self._end_prose()
        run.append((rec, number, start))
        self._run_on(len(run) - DEPTH)

    def _roll(self):
        """Makes a run of a stack that holds nothing but plain blocks that follow one another."""
        stack = self.stack
        if self.skipping or not stack:
            return
        if all(block.rec is not None and not block.indent and block.items == stack[i : i + 1] for i, block in enumerate(stack, 1)):
            self.run = [(block.rec, block.line, block.start) for block in stack]
            stack.clear()

    def _unroll(self):
        """Makes blocks on the stack of the run: each within the one before, as their tags have the same indentation."""
        for rec, number, start in self.run:
            block = Block(rec["@tag"], 0, number, start)
            block.rec = rec
            if self.stack:
                self.stack[-1].items.append(block)
                self.stack[-1].same = True
            self.stack.append(block)
        self.run.clear()

    # From blocks to records

    def _emit(self, block):
        self._end_prose()
        if block.bad:
            self.refusals.append(block.bad)
            rec = {}
        elif block.rec is not None and not block.items:
            rec = block.rec
        else:
            rec = self._build(block, 1)
        if not self._refused():
            self.out.append(rec)

    def _refused(self):
        found = self.refusals
        if found:
            self.refusals = []
            self.out.append(found[0]._replace(refused=True))
            self.out += found[1:100]
        return bool(found)

    def _end_prose(self):
        if not self.prose_size:
            return
        lines = [(number, text) for number, line in self.prose if (text := self._clean(number, line, self.comments)) is not None]
        self.prose, self.prose_size = [], 0
        if lines and not self._refused():
            if not self.bracket:
                self._strict("warning", "narrative", lines[0][0], 1, "text outside blocks, expected it between two '---'")
            self.out.append({"@text": join([text for _, text in lines])})
        elif not lines:
            self._refused()

    def _clean(self, number, line, comments):
        """A line without its comment and the white space at its end; None where nothing else was on it, or it has to be refused."""
        if self.dirty and (bad := CONTROLS.search(line)):
            self.refusals.append(Finding(number, bad.start() + 1, "error", "control", f"control character U+{ord(bad[0]):04X}, expected text", False))
            return None
        if type(line) is Overlong:
            self.refusals.append(self._too_long(number))
            return None
        if "//" in line and self.old != "content":
            at = comment_at(line)
            if at >= 0:
                if self.keep:
                    comments.append(line[at:].rstrip(BLANK))
                line = line[:at].rstrip(BLANK)
                return line or None
        return line.rstrip(BLANK)

    def _build(self, block, depth):
        """The record of a settled block. `depth` counts blocks in blocks, from 1."""
        rec = block.rec
        if rec is None:
            rec = {"@tag": block.tag}
            if block.head is not None:
                rec["@head"] = block.head
                if self.dirty:
                    self._clean(block.line, block.head, [])
        if depth == 3:
            self._strict("warning", "levels", block.line, block.column, f"'@{block.tag}' stands on level 3, expected at most 2")
        blocks = rec.pop("@blocks", [])
        main = rec.pop("@text", "")
        comments = [*block.comments]
        hints = [block.hint] if block.hint else []
        repeated: set[str] = set()
        table = block.tag == "table"
        text: list = []
        items: list = []
        for item in block.items:
            if type(item) is Block:
                items.append(item)
            elif (line := self._clean(item[0], item[1], comments)) is not None:
                items.append((item[0], line))
        at = 0
        while at < len(items):
            item = items[at]
            at += 1
            if type(item) is Block:
                if text:
                    if joined := join(text):
                        blocks.append({"@text": joined}) if blocks else (main := joined)
                    text = []
                blocks.append(self._build(item, depth + 1))
                continue
            number, line = item
            bare = line.lstrip(BLANK)
            found = FIELD.match(bare)
            if found is None or (table and not is_field(bare, "table")):
                if text or bare:
                    text.append(line)
                continue
            key, raw = found[1], bare[found.end() :]
            column = len(line) - len(bare) + 1
            if self.strict and not NAME.match(key):
                self._find("error", "key", number, column, f"key '{key}', expected lower-case letters, digits and '_'")
            hint = HINT.match(raw) if raw and raw[0] not in BLANK else None
            column += len(bare) - len(raw.lstrip(BLANK))
            if hint:
                hints.append(f"{key}:{hint[1]}")
                value = hinted(hint[1], hint[2])
                raw = hint[2]
                if value is None:
                    self._strict("error", "hint", number, column, f"'{raw[:40]}' does not fit its hint '{hint[1]}'")
                    value, at = self._value(raw, items, at, number, column)
            else:
                value, at = self._value(raw.strip(BLANK), items, at, number, column)
            if key not in rec:
                rec[key] = value
            elif key in repeated:
                rec[key].append(value)
            else:
                repeated.add(key)
                rec[key] = [rec[key], value]
                self._find("warning", "repeated-key", number, len(line) - len(bare) + 1, f"key '{key}' stands twice: read as a list")
        if text and (joined := join(text)):
            blocks.append({"@text": joined}) if blocks else (main := joined)
        if self.at and depth == 1:
            rec["at_line"] = block.line
        if main:
            rec["@text"] = main
        if blocks:
            rec["@blocks"] = blocks
        if self.keep:
            self._keep(rec, block, comments, hints, depth)
        if table and self.strict:
            self._check_table(block, [item for item in items if type(item) is tuple])
        return rec

    def _keep(self, rec, block, comments, hints, depth):
        if depth == 1 and self.comments:
            comments, self.comments = self.comments + comments, []
        if comments:
            rec["@comments"] = comments
        if hints:
            rec["@hints"] = hints
        if block.quoted:
            rec["@quoted"] = True

    def _value(self, raw, items, at, number, column):
        """A field's value, and the index of the item behind it: lists go on over lines."""
        if not raw:
            value: list = []
            while at < len(items) and type(items[at]) is tuple and (bare := items[at][1].lstrip(BLANK))[:2] in ("- ", "-\t", "-"):
                value.append(self._item(bare[1:].strip(BLANK), items[at][0]))
                at += 1
            return value or "", at
        if raw[0] == '"':
            return self._string(raw, number, column), at
        if raw[0] != "[":
            self._bare(raw, number, column)
            return typed(raw), at
        whole = List()
        end = at
        state = whole.add(raw)
        while not state and end < len(items) and type(items[end]) is tuple:
            bare = items[end][1].lstrip(BLANK)
            if bare[:1] == "@" or bare[:3] == "---":
                break
            state = whole.add(bare)
            end += 1
        if state == "whole":
            self._escapes(raw, number, column)
            return whole.value, end
        if state == "deep":
            self._find("error", "deep-list", number, column, f"more than {DEPTH} lists in one another, read as text")
        elif not state or end > at:
            level = "error" if self.strict else "warning"
            self._find(level, "open-list", number, column, "'[' is never closed, expected ']': read as text")
        else:
            self._strict("warning", "no-list", number, column, "'[' and ']' that are no list, expected quotes around the value")
        return raw, at

    def _item(self, raw, number):
        """The value of one `- ` line."""
        if raw[:1] == '"':
            return self._string(raw, number, 1)
        if raw[:1] == "[":
            whole = List()
            if whole.add(raw) == "whole":
                return whole.value
        self._bare(raw, number, 1)
        return typed(raw)

    def _string(self, raw, number, column):
        found = QUOTED.match(raw)
        if found is None:
            level = "error" if self.strict else "warning"
            self._find(level, "unterminated-quote", number, column, "a quote is never closed, expected '\"' at the end: read as text")
            return raw
        if found.end() < len(raw):
            return raw
        self._escapes(raw, number, column)
        return unescape(raw[1:-1])

    # What only the strict reading says

    def _find(self, level, rule, line, column, message):
        self.out.append(Finding(line, column, level, rule, message, False))

    def _strict(self, level, rule, line, column, message):
        if self.strict:
            self.out.append(Finding(line, column, level, rule, message, False))

    def _too_long(self, number):
        return Finding(number, 1, "error", "too-long", f"a record of more than {self.limit} bytes, expected at most that", False)

    def _escapes(self, raw, number, column):
        if self.strict and "\\" in raw:
            for part in QUOTED.finditer(raw):
                for found in ESCAPE.finditer(part[0][1:-1]):
                    if found[1] not in ESCAPES:
                        self._find("error", "escape", number, column + part.start() + 1 + found.start(), f"unknown escape '{found[0]}'")

    def _bare(self, raw, number, column):
        if self.strict and (found := re.search(r"[{}<>\[\]]", raw)):
            self._find("warning", "bare", number, column + found.start(), f"'{found[0]}' in a bare value, expected quotes around it")

    def _comment(self, block, note):
        if note and self.keep:
            block.comments = [*block.comments, note]

    def _head(self, block, raw):
        """The value on the tag's own line: always a string; its hint is only checked."""
        hint = HINT.match(raw, 1) if raw[0] == ":" else None
        if hint:
            raw = hint[2]
            block.hint = f"{block.tag}:{hint[1]}"
            if hinted(hint[1], raw) is None:
                self._strict("error", "hint", block.line, block.column, f"'{raw[:40]}' does not fit its hint '{hint[1]}'")
        block.head = self._string(raw, block.line, block.column + 1 + len(block.tag)) if raw[0] == '"' else raw

    def _check_tag(self, block, name):
        tag, number, column = block.tag, block.line, block.column
        if self.on_tag:
            self.on_tag(tag, number, column, block.quoted)
        if len(tag) > TAG_LIMIT:
            block.bad = Finding(number, column, "error", "tag-length", f"a tag of {len(tag)} bytes, expected at most {TAG_LIMIT}", False)
        if RESERVED.match(tag):
            self._find("error" if self.strict else "warning", "reserved", number, column, f"'@{tag}' is reserved, expected another tag")
        if not self.strict:
            return
        if name != tag:
            self._find("warning", "upper-case", number, column, f"'@{name}', expected '@{tag}'")
        if not NAME.match(tag):
            self._find("error", "tag", number, column, f"'@{tag}', expected lower-case letters, digits and '_' behind '@'")
        if block.quoted:
            self.quoted += 1
            if not any(outer.tag == "schema" for outer in self.stack):
                self._find("warning", "quoted-tag", number, column, f"'@\"{tag}\"' outside '@schema', expected a tag that is declared")
            if self.quoted == 26:
                self._find("warning", "quoted-tags", number, column, "more than 25 quoted tags, expected a '@schema' that declares them")

    def _check_table(self, block, lines):
        rows = []
        for number, line in lines:
            bare = line.strip(BLANK)
            if bare and not is_field(bare, "table"):
                bare = bare[1:].removesuffix("|") if bare[0] == "|" else bare
                rows.append((number, [cell.strip(BLANK) for cell in bare.split("|")]))
        if not rows or not all(rows[0][1]):
            self._find("error", "table", rows[0][0] if rows else block.line, 1, "a table without a header row, expected 'Name | Value'")
        elif len(rows) < 2 or not all(re.fullmatch(":?-+:?", cell) for cell in rows[1][1]):
            self._find("error", "table", rows[1][0] if rows[1:] else block.line, 1, "expected a row of '---' below the header row")
        for number, cells in rows[1:]:
            if len(cells) != len(rows[0][1]):
                self._find("error", "table", number, 1, f"a row of {len(cells)} cells, expected {len(rows[0][1])}")


def read(data: bytes, **settings) -> tuple[list[dict], list[Finding]]:
    """The records and the findings of a whole document. settings: those of Reader."""
    reader = Reader(**settings)
    items = reader.feed(data) + reader.close()
    return [item for item in items if type(item) is dict], [item for item in items if type(item) is Finding]


def sniff(head: bytes) -> str | None:
    """The form that input beginning with `head` is in: "line", "text" or "other"; None where more of it is needed to tell."""
    if head in (b"\xef", b"\xef\xbb"):
        return None
    for line in head.removeprefix(b"\xef\xbb\xbf").splitlines(keepends=True):
        bare = line.strip()
        if not bare:
            continue
        if bare[:1] == b"{":
            return "line"
        if bare.startswith(b"@ftai"):
            return "text"
        whole = line[-1:] in b"\r\n"
        if not whole and (b"@ftai".startswith(bare) or b"@intent".startswith(bare) or bare.startswith(b"@intent")):
            return None
        if not bare.startswith(b"@intent"):
            return "other"
    return None
