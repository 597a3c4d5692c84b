"""What of a record stands in the journal: its canonical text, read and made, compared, redacted or withheld."""

import re

import orjson

from . import record, text

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


def prepared(rec: dict, came: dict, warn=None):
    """(record, id, content, tags used) as prepare(); what is only too long since it was redacted is shortened. came: the record before that."""
    rec = stored(rec)
    try:
        return rec, *_written(rec)
    except TooLong:
        # It may have got a stamp here.
        if min(len(record.encode(came)), len(text.dump(stored(came)).encode())) > record.LIMIT + 1024:
            raise
    return shortened(rec, rec, "stamped and redacted", warn)


def shortened(rec: dict, long: dict, how: str, warn=None):
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


MARKED = re.compile(rb"\[(?:redacted|sealed|withheld):")
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
    return bool(MARKED.search(held) or MARKED.search(content)) and _alike(parse(held), parse(content), repr(came))


# What stays of a record of which only the fact is kept: fields that stages fill in by themselves. Of its blocks nothing does but who else could have done it.
_FACT = frozenset(("id", "ts", "thread", "parent", "from", "via", "tz", "lang", "privacy", "log", "provisional", "updates", "about"))
_FACT |= {"target", "rule", "rule_at", "specs", "deadline", "confidence", "status", "class", "recovery", "n", "ms", "exit", "signal"}
_FACT |= {"model", "input_tokens", "cached_tokens", "output_tokens", "cost", "currency", "price_row", "act", "who", "outcome", "op", "tier"}
_OTHERS = frozenset(("target", "rule", "why_not"))
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z\Z")
FACTS = 20_000
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
    if len(_facts) > 2 * FACTS:
        for own in list(_facts)[:-FACTS]:
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


PURGE = b'\n  act: "purge"\n'


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
# As journal.Live gives them.
_REASON = re.compile(
    "a purge|a rotation|a closing was interrupted|an error of fsync left what stands behind in doubt|there was no live segment"
    "|the live segment (has no head|was empty)|the record behind seq [0-9]{1,18} is not what the chain says"
)


def proof(content: bytes) -> dict | None:
    """The record of this content, where it is of the shape in which journal.Live tells of a closing, or purge.py of what it does; else None.

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


def ts(content: bytes) -> str:
    """The `ts` of a record, "" where it has none that can be compared."""
    found = re.search(rb'\n  ts: "([^"\n]*)"\n', content)
    ts = found[1].decode("utf-8", "replace") if found else ""
    return ts if len(ts) == 24 and _TIME.match(ts) else ""


def own_id(piece: bytes) -> str:
    """The `id` of a record, "" where it has none."""
    found = re.search(rb'\n  id: "([^"\n]*)"', piece)
    return found[1].decode("utf-8", "replace") if found else ""
