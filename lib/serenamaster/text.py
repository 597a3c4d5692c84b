"""The text form: its reader and its canonical writer, as ftai(5) describes them.

First what a line can be, then the writer, then the reader: a structure of blocks from lines (`Reader`), and a record from the lines of a block.
"""

import re

import orjson

from .record import CONTROLS, DEPTH, INT_MAX, INT_MIN, KEY, STRUCTURE, TAG, TAG_LIMIT

# ---- what a line can be ----

# A tag line: `@name`, `@@name`, `@"name"`; what comes behind is the head. `@mike,` is text.
TAG_LINE = re.compile(r'(@@?)(?:([A-Za-z_][A-Za-z0-9_.-]*)|"([A-Za-z_][A-Za-z0-9_.-]*)")(?=[ \t:{]|\Z)')
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
    if len(text) > 32 or not NUMBER.fullmatch(text):
        return text
    value = orjson.loads(text)
    if orjson.dumps(value).decode() != text or not (type(value) is float or INT_MIN <= value <= INT_MAX):
        return text
    return value


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
        return orjson.dumps(value).decode()
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
    return FIELD.match(bare) is not None and not (tag == "table" and "|" in bare)


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
            out.append(_header(rec))
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
                if len(_known) < 10_000:
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
        elif lone:
            lone = not _write_text(_narrative(block), inner, tag, out, used, notes)
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
