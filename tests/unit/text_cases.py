"""What the tests of the text form share: hostile strings, records and documents, and the reading of a text in pieces."""

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from serenamaster import text
from serenamaster.errors import Finding

SCALE = float(os.environ.get("FTAI_TEST_SCALE", "1"))


def many(count):
    """hypothesis settings for `count` examples at scale 1."""
    return settings(max_examples=max(10, int(count * SCALE)), deadline=None, derandomize=SCALE <= 1, suppress_health_check=list(HealthCheck), database=None)


# Pieces that mean something to the format, and characters that other readers take for line breaks or white space.
BITS = ['"', "\\", "\\n", '\\"', "//", " // ", "@", "@end", "@x", "@@y", '@"z"', ":", ": ", "a: b", "[", "]", "[a, b]", ",", "{", "}", "---", "- ", "#", "|"]
BITS += ["true", "007", "1.0", "1e16", "-0", " ", "  ", "\t", "\u2028", "\x85", "\xa0", "\ufeff", "é", "€", "😀", "word", "and more", "**", "///", "'", "`"]
BITS += ["http://x.y/z", "key:int 3", "version: 1.0", "@ftai v2.0", "@schema", "\x1c".replace("\x1c", "\u200b"), ".", "-", "_", "0", "9"]
bit = st.sampled_from(BITS)
line = st.lists(bit, max_size=6).map("".join)
hostile = st.lists(st.one_of(bit, st.sampled_from(["\n", "\r", "\r\n", "\t"])), max_size=8).map("".join) | st.text(
    st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Z"]), max_size=12
)
name = st.sampled_from(["id", "body", "n", "tags", "a_b", "A", "x.y", "b-c", "_u", "true", "note", "data", "from", "end", "title"])
tag = st.sampled_from(["note", "task", "section", "message", "command", "data", "x_own", "t.u", "v-w", "prose", "table", "include", "chain", "intent"])
number = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0, -0.0, 1e16, 1e22, 5e-324, 1.10, 2**53])
scalar = hostile | number | st.booleans()
value = st.recursive(scalar, lambda inner: st.lists(inner, max_size=4), max_leaves=8)


def plain_text(candidate):
    """True for text that the form can hold as it stands."""
    return text.as_text(candidate, "note") == candidate.split("\n")


prose = st.lists(line, min_size=1, max_size=4).map("\n".join).filter(plain_text)


def _record(children):
    def build(parts):
        tag, head, fields, body, blocks = parts
        rec = {"@tag": tag}
        if head is not None:
            rec["@head"] = head
        rec |= fields
        if body is not None and text.as_text(body, tag) == body.split("\n"):
            rec["@text"] = body
        kept = []
        for block in blocks:
            # Narrative stands behind a block only: elsewhere it is the block's own text, or one with the narrative before it.
            if "@tag" not in block and (not kept or "@tag" not in kept[-1] or text.as_text(block["@text"], tag) != block["@text"].split("\n")):
                continue
            kept.append(block)
        if kept:
            rec["@blocks"] = kept
        return rec

    narrative = prose.map(lambda body: {"@text": body})
    return st.tuples(tag, st.none() | hostile, st.dictionaries(name, value, max_size=4), st.none() | prose, st.lists(children | narrative, max_size=3)).map(
        build
    )


record = st.recursive(_record(st.nothing()), _record, max_leaves=5)
narrative = prose.filter(lambda body: text.as_text(body, None) == body.split("\n")).map(lambda body: {"@text": body})
records = st.lists(record | narrative, max_size=5)

# Lines of a document as people and programs write them, right and wrong.
own_lines = [
    "@note",
    "@note Do it",
    "@task {",
    "}",
    "@end",
    "@end // done",
    "@@sub A",
    "@@sub",
    '@"odd" x',
    "@message",
    "@section S",
    "@end words",
    "@2x",
    "@ALERT",
    "@ftai v2.0",
    "@document",
    "@include ./a.ftai",
    "@meta_x",
    "---",
    "",
    "",
    "// a comment",
    "key: value",
    'key: "quoted"',
    'key: "open',
    "n: 3",
    "n: 007",
    "f:float 3",
    "k:int x",
    "tags: [a, b]",
    "tags: [a,",
    "  b]",
    "list:",
    "- one",
    '- "two"',
    "- [3]",
    "url: http://x/y // c",
    "http://x.y",
    "text here",
    "Name | Value",
    "--- | ---",
    "a: b | c",
    "@table T",
    "- @note",
    'q: "a // b" // c',
    'e: "\\n\\q"',
    "k: // nothing",
    "@x: y",
    "@feedback:pos z",
    "e:",
    "@en",
]
indented = st.tuples(st.sampled_from(["", "", "", "  ", "  ", "    ", "\t", " \t"]), st.sampled_from(own_lines) | line).map("".join)
plain_rows = ['from: "a"', "n: 1", "n: 12", 'body: "x y"', "t: 2026-01-02", 'c: "a\\nb"', "u: http://x", "tags: [a]", "e:", "f: 1 // c", "m: x // c: d"]
plain_rows += ["", "// c: d", "some text", "- item", "http://x: y", "a: b: c", "@sub", "@end", "@note N", "n: 007", "n: -4", "t: true"]
plain_block = st.tuples(
    st.sampled_from(["message", "note", "task", "note N", "section A: b"]),
    st.lists(st.sampled_from(plain_rows), max_size=5),
    st.sampled_from(["@end\n", "@end\n\n", "@end\n", "", "\n", "  @note\n    a: 1\n    @end\n  @end\n@end\n", "@end // c\n", "@end x\n", "}\n"]),
    st.sampled_from([1, 1, 1, 5]),
).map(lambda parts: (f"@{parts[0]}\n" + "".join(f"  {row}\n" for row in parts[1]) + parts[2]) * parts[3])
document = st.lists(indented.map(lambda row: row + "\n") | plain_block, max_size=30).map("".join) | st.lists(plain_block, min_size=3, max_size=120).map("".join)
header = st.sampled_from(["@ftai v2.0\n", "@ftai v2.0\n\n", "", "\ufeff@ftai v2.0\n", "@intent fail\n@ftai v2.0\n", "# x\nversion: 1.0\n", "@ftai\n"])
documents = st.tuples(header, document).map("".join)


def pieces(data: bytes, sizes, *, short=True, **reading):
    """The items of `data` fed in pieces of these sizes; short: may the short way be taken."""
    reader = text.Reader(**reading)
    reader.plain = reader.plain and short
    items, at, turn = [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        items += reader.feed(data[at : at + size])
        at, turn = at + size, turn + 1
    return items + reader.close()


def split(items):
    return [item for item in items if type(item) is dict], [item for item in items if type(item) is Finding]


def write(recs, notes=None, **settings):
    """The canonical document of these records."""
    writer = text.Writer(**settings)
    return "".join([writer.write(rec, notes) for rec in recs]) + writer.close()


def own(recs):
    """`recs` without what the writer adds."""
    return [rec for rec in recs if not text.is_added(rec)]
