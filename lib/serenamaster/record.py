"""The record: its ids, its time, and its line form (one line of JSON), as ftai(5) describes them."""

import os
import re
import time

import orjson

LIMIT = 16 * 1024 * 1024  # bytes of one record, in either form

STRUCTURE = frozenset(("@tag", "@head", "@text", "@blocks", "@comments", "@hints", "@quoted"))
UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\Z")
KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")
TAG = re.compile(r"[a-z_][a-z0-9_.-]*\Z")
TAG_LIMIT = 256
INT_MIN, INT_MAX = -(2**63), 2**63 - 1
DEPTH = 64  # blocks in blocks, and brackets in brackets

# C0 controls but tab, LF and CR, and DEL: what text from outside may not bring in.
CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
# What steers a terminal (C0 and C1 controls, DEL) or turns the order of what is read around (bidirectional overrides: CVE-2021-42574).
STEERING = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"


class Malformed(ValueError):
    """A line that is no record. `reason` says what was expected, `column` where (from 1; 0 where it can't be told)."""

    def __init__(self, reason: str, column: int = 0):
        super().__init__(reason)
        self.reason, self.column = reason, column


_last = [0, 0]  # milliseconds and counter of the newest id of this process


def new_id() -> str:
    """A UUIDv7 (RFC 9562), rising within this process: 48 bits of ms, a 12-bit counter (method 1 of section 6.2), 62 random bits."""
    ms = time.time_ns() // 1_000_000
    if ms <= _last[0]:
        ms, counter = _last[0], _last[1] + 1
        if counter > 0xFFF:
            ms, counter = ms + 1, 0
    else:
        counter = 0
    _last[0], _last[1] = ms, counter
    tail = int.from_bytes(os.urandom(8)) & 0x3FFF_FFFF_FFFF_FFFF | 0x8000_0000_0000_0000
    text = f"{ms:012x}7{counter:03x}{tail:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def now() -> str:
    """The time as records hold it: RFC 3339, UTC, milliseconds."""
    seconds, ns = divmod(time.time_ns(), 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{ns // 1_000_000:03d}Z"


def is_id(value) -> bool:
    """True for a UUID in its usual text form: only such an `id` is ours."""
    return type(value) is str and UUID.match(value) is not None


def make(tag: str, stage: str, *, parent: dict | None = None, thread: str | None = None, **fields) -> dict:
    """A new record of `stage`: id, ts, thread, parent, from, then `fields` (those that are None are left out).

    parent: the record that caused it; its thread, its privacy and its `log` are taken over. thread: for a record without parent.
    A trailing underscore of a field name is dropped (`from_`), as Python keeps some words for itself.
    """
    own = new_id()
    rec = {"@tag": tag, "id": own, "ts": now()}
    if parent is None:
        rec["thread"] = thread or own
    else:
        rec["thread"] = thread or parent.get("thread") or parent.get("id") or own
        if "id" in parent:
            rec["parent"] = parent["id"]
    rec["from"] = stage
    blocks = fields.pop("blocks", None)
    for name, value in fields.items():
        if value is not None:
            rec[name.rstrip("_")] = value
    if parent is not None:
        if "privacy" in parent and "privacy" not in rec:
            rec["privacy"] = parent["privacy"]
        if "log" in parent and "log" not in rec:
            rec["log"] = parent["log"]
    if blocks:
        rec["@blocks"] = blocks
    return rec


def stamp(rec: dict) -> dict:
    """`rec` with id, ts and thread at its front; the same object where it had them. An id that is no UUID moves to `ref`."""
    own = rec.get("id")
    if is_id(own) and "ts" in rec and "thread" in rec:
        return rec
    if not is_id(own):
        if own is not None:
            rec = {("ref" if key == "id" else key): value for key, value in rec.items() if key != "ref"}
        own = new_id()
    front = {"@tag": rec.get("@tag")} if "@tag" in rec else {}
    front |= {"id": own, "ts": rec.get("ts", now()), "thread": rec.get("thread", own)}
    return front | {key: value for key, value in rec.items() if key not in front}


def children(rec: dict, tag: str) -> list[dict]:
    """The blocks directly within `rec` that have this tag, in order."""
    return [block for block in rec.get("@blocks", ()) if block.get("@tag") == tag]


def is_history(rec: dict) -> bool:
    """True for a record that was journaled before (it carries a `@chain` block): shown and counted, never acted on."""
    return any(block.get("@tag") == "chain" for block in rec.get("@blocks", ()))


def clean(text: str) -> str:
    """`text` from outside as a record may hold it: U+FFFD for each C0 control but tab, LF and CR, for DEL and for lone surrogates."""
    text = CONTROLS.sub("\ufffd", text)
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def shown(text: str) -> str:
    """`text` as one line that a person can be shown: U+FFFD for line ends, for lone surrogates, and for all that could steer a terminal."""
    return text if text.isprintable() else re.sub(STEERING, "\ufffd", clean(text)).replace("\n", "\ufffd")


def encode(rec: dict) -> bytes:
    """One line of JSON with its newline."""
    return orjson.dumps(rec, option=orjson.OPT_APPEND_NEWLINE)


def decode(line: bytes) -> dict:
    """The record that one line of JSON holds.

    Raises Malformed where the line is no object, or holds what a record cannot: null, a nested object, a repeated key, an integer beyond
    64 bits, a number that is not finite, a lone surrogate, an unknown key with `@`, a tag or key that the text form cannot write.
    """
    if len(line) > LIMIT:
        raise Malformed(f"a record of {len(line)} bytes, expected at most {LIMIT}")
    try:
        rec = orjson.loads(line)
    except orjson.JSONDecodeError as bad:
        raise Malformed(f"not JSON: {bad.msg}", bad.pos + 1) from None
    if type(rec) is not dict:
        raise Malformed("expected a JSON object", 1)
    # What orjson would write the same way has no repeated key (it drops them) and no integer of more than 64 bits (it makes them floats).
    try:
        written = orjson.dumps(rec)
    except TypeError:  # it reads four times as deep as it writes
        raise Malformed("nested too deep") from None
    if line != written and line.rstrip(b"\r\n") != written:
        rec = _reread(line)
    check(rec)
    return rec


def _pairs(pairs: list) -> dict:
    rec = dict(pairs)
    if len(rec) != len(pairs):
        names = [key for key, _ in pairs]
        raise Malformed(f"key '{next(n for n in names if names.count(n) > 1)}' stands twice")
    return rec


def _refuse(name: str):
    raise Malformed(f"{name} is no finite number")


def _reread(line: bytes) -> dict:
    """`line` read by the slow reader, which sees repeated keys and wide numbers."""
    import json

    try:
        return json.loads(line, object_pairs_hook=_pairs, parse_constant=_refuse)
    except (RecursionError, ValueError) as bad:
        raise bad if isinstance(bad, Malformed) else Malformed(f"cannot be read: {bad}") from None


# Shapes (tag, keys, types) that were checked before, with the keys whose values still need a look: integers may be too wide.
# orjson reads no float that is not finite and no lone surrogate, so strings, booleans and floats need none.
_known: dict = {}
_EASY = frozenset((str, bool, float, int))


def check(rec: dict, depth: int = 1) -> None:
    """Raises Malformed where `rec` is not what ftai(5) calls a record. `depth` counts blocks in blocks."""
    if depth > DEPTH:
        raise Malformed(f"more than {DEPTH} blocks in one another")
    tag = rec.get("@tag")
    shape = (str(tag), *rec, *map(type, rec.values()))
    if (integers := _known.get(shape)) is not None:
        for key in integers:
            if not INT_MIN <= rec[key] <= INT_MAX:
                raise Malformed(f"field '{key}': an integer of more than 64 bits")
        for block in rec.get("@blocks", ()):
            if type(block) is not dict:
                raise Malformed("'@blocks' is no list of blocks")
            check(block, depth + 1)
        return
    if tag is None:
        if set(rec) != {"@text"} or type(rec["@text"]) is not str:
            raise Malformed("a record without '@tag' is narrative and holds '@text' alone")
    elif type(tag) is not str or not TAG.match(tag) or len(tag) > TAG_LIMIT or tag == "end":
        raise Malformed(f"'@tag' is {tag!r}, expected a lower-case name")
    for key, value in rec.items():
        kind = type(value)
        if key.startswith("@"):
            if key not in STRUCTURE:
                raise Malformed(f"unknown key '{key}'")
            if key == "@blocks":
                if kind is not list or not all(type(block) is dict for block in value):
                    raise Malformed("'@blocks' is no list of blocks")
                for block in value:
                    check(block, depth + 1)
            elif key in ("@head", "@text"):
                if kind is not str:
                    raise Malformed(f"'{key}' is no string")
                _value(key, value, 0)
            elif key != "@tag":
                _value(key, value, 0)
        elif not KEY.match(key):
            raise Malformed(f"'{key}' is no field name")
        else:
            _value(key, value, 0)
    if len(_known) < 1000 and len(shape) < 100 and all(len(key) < 100 and type(rec[key]) in _EASY for key in rec if key != "@blocks"):
        _known[shape] = [key for key in rec if type(rec[key]) is int]


def _value(key: str, value, depth: int) -> None:
    kind = type(value)
    if kind is str:
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise Malformed(f"field '{key}': a lone surrogate") from None
    elif kind is list:
        if depth >= DEPTH:
            raise Malformed(f"field '{key}': more than {DEPTH} lists in one another")
        for item in value:
            _value(key, item, depth + 1)
    elif kind is int:
        if not INT_MIN <= value <= INT_MAX:
            raise Malformed(f"field '{key}': an integer of more than 64 bits")
    elif kind is float:
        if value - value != 0:
            raise Malformed(f"field '{key}': a number that is not finite")
    elif value is None:
        raise Malformed(f"field '{key}': null, expected the key to be absent")
    elif kind is dict:
        raise Malformed(f"field '{key}': a nested object, expected a block")


# ---- JSON, as ftai-parse converts it ----


def from_json(item, key: str = "", depth: int = 1) -> dict:
    """The record for a JSON object: an object in it becomes the block whose tag is its key, an object without '@tag' a `@data`.

    key: the one that `item` stood under. Raises Malformed, naming the key, for what no record can hold.
    """
    if depth > DEPTH:
        raise Malformed(f"more than {DEPTH} objects in one another")
    if type(item) is not dict:
        raise Malformed(f"a record is an object, not {_kind(item)}")
    if key and item.get("@tag", key) != key:
        raise Malformed(f"key '{key}': holds an object whose '@tag' is another")
    rec: dict = {}
    if key or "@tag" not in item and set(item) != {"@text"}:
        rec["@tag"] = key or "data"
    blocks: list = []
    for name, value in item.items():
        if name == "@blocks":
            if type(value) is not list:
                raise Malformed("'@blocks' is no list of blocks")
            blocks += [from_json(block, depth=depth + 1) for block in value]
        elif type(value) is dict:
            if not TAG.match(name):
                raise Malformed(f"key '{name}': holds an object, but is no lower-case tag")
            blocks.append(from_json(value, name, depth + 1))
        elif type(value) is list and _holds_object(value):
            raise Malformed(f"key '{name}': a list that holds objects")
        else:
            rec[name] = value
    if blocks:
        rec["@blocks"] = blocks
    if depth == 1:
        check(rec)
    return rec


def to_json(rec: dict, key: str = "") -> dict:
    """The JSON object for a record, the way back from from_json(): a block is the value of its tag where nothing else has that name.

    key: the one that the object will stand under, which says its tag.
    """
    out = {name: value for name, value in rec.items() if name not in ("@tag", "@blocks")}
    blocks = rec.get("@blocks", ())
    if "@tag" in rec and not key and (rec["@tag"] != "data" or set(out) == {"@text"} and not blocks):
        out = {"@tag": rec["@tag"], **out}
    times: dict = {}
    for block in blocks:
        times[block.get("@tag")] = times.get(block.get("@tag"), 0) + 1
    rest = []
    for block in blocks:
        tag = block.get("@tag")
        if tag is None or tag in rec or times[tag] > 1:
            # Within '@blocks' a `@data` says so: there, an object without '@tag' may be narrative.
            rest.append({"@tag": tag, **to_json(block, tag)} if tag else block)
        else:
            out[tag] = to_json(block, tag)
    if rest:
        out["@blocks"] = rest
    return out


def load_json(data: bytes) -> list:
    """The items of a JSON document: those of its top-level array, or the one object. Raises Malformed for what is no JSON."""
    value = _reread(data)
    return value if type(value) is list else [value]


def _kind(value) -> str:
    return "null" if value is None else {str: "a string", list: "an array", bool: "a boolean"}.get(type(value), "a number")


def _holds_object(values: list) -> bool:
    rest = list(values)
    while rest:
        value = rest.pop()
        if type(value) is dict:
            return True
        if type(value) is list:
            rest += value
    return False
