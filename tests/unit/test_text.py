"""The reading and the writing of the text form, rule by rule of ftai(5)."""

import os
import sys
from pathlib import Path

import growth
import orjson
import pytest
from serenamaster import record, text
from text_cases import SCALE, own, pieces, split, write


def body(source, **settings):
    """The one record of a document with this block."""
    recs, _ = text.read(("@ftai v2.0\n" + source).encode(), **settings)
    assert len(recs) == 2, recs
    return recs[1]


def rules(source, **settings):
    """The rules that were broken, as `level rule line`."""
    return [f"{found.level} {found.rule} {found.line}" for found in text.read(source.encode(), **settings)[1]]


def tree(source):
    """Tags of a document's records as nested tuples, narrative as its text."""

    def of(rec):
        if "@tag" not in rec:
            return rec["@text"]
        blocks = [of(block) for block in rec.get("@blocks", ())]
        return (rec["@tag"], *blocks) if blocks else rec["@tag"]

    return [of(rec) for rec in text.read(("@ftai v2.0\n" + source).encode())[0][1:]]


# Values

BARE = {
    "7": 7,
    "-3": -3,
    "1.0": 1.0,
    "0.00001": 0.00001,
    "-0.0": -0.0,
    "1e16": 1e16,
    "9223372036854775807": 2**63 - 1,
    "-9223372036854775808": -(2**63),
    "true": True,
    "false": False,
    "5e-324": 5e-324,
    "1.7976931348623157e308": 1.7976931348623157e308,
}
STRINGS = [
    "007",
    "1.10",
    "12.50",
    "-0",
    "+5",
    ".5",
    "5.",
    "1e5",
    "1e+16",
    "0x10",
    "1_000",
    "TRUE",
    "yes",
    "NaN",
    "1e400",
    "-1e999",
    "Infinity",
    "9223372036854775808",
    "-9223372036854775809",
    "null",
    "None",
    "1.2.0",
]
STRINGS += [
    "2026-01-02",
    "١٢",
    "²",
    "1 000",
    "- 3",
    "1e",
    "--1",
    "e5",
    "http://x.y/z//w",
    'say "hi"',
    'a "b',
    "C:\\path",
    "{a}",
    "[docs](x)",
    "[a,,b]",
    '["a" b]',
]
STRINGS += ["[,]", "[a]b", "]", "[a b [c]]", "a\u2028b", "a\x85b", "\xa0x\xa0", "x]", "key: value", '"a" b', '"a" "b"', "a//b", "'x'", "“x”"]


@pytest.mark.parametrize("raw", BARE)
def test_typed(raw):
    value = body(f"@x\nk: {raw}\n@end\n")["k"]
    assert value == BARE[raw] and type(value) is type(BARE[raw]) and str(value) == str(BARE[raw])
    assert f"k: {raw}\n" in text.dump({"@tag": "x", "k": value})


@pytest.mark.parametrize("raw", STRINGS)
def test_not_typed(raw):
    assert body(f"@x\nk: {raw}\n@end\n")["k"] == raw
    assert body(f"@x\n  k:\n  - {raw}\n@end\n")["k"] == [raw]


QUOTED = {
    '"a"': "a",
    '""': "",
    r'"a\"b"': 'a"b',
    r'"\\"': "\\",
    r'"\n\r\t"': "\n\r\t",
    r'"\q\u0041\/"': r"\q\u0041\/",
    '"a // b"': "a // b",
    '"x" // c': "x",
    '"7"': "7",
    '"true"': "true",
    '"[a]"': "[a]",
    '"@end"': "@end",
    '"a\u2028b\x85"': "a\u2028b\x85",
    '"  a  "': "  a  ",
    '"a\tb"': "a\tb",
    r'"a\\" // c': "a\\",
}


@pytest.mark.parametrize("raw", QUOTED)
def test_quoted(raw):
    assert body(f"@x\n  k: {raw} \t\n@end\n")["k"] == QUOTED[raw]
    assert body(f"@x\nk: [{raw.partition(' // c')[0]}]\n@end\n")["k"] == [QUOTED[raw]]
    assert body(f"@x {raw}\n@end\n")["@head"] == QUOTED[raw]


LISTS = {
    "[]": [],
    "[ ]": [],
    "[a]": ["a"],
    "[a, b]": ["a", "b"],
    '["a", 1, 1.0, true, 007]': ["a", 1, 1.0, True, "007"],
    "[a,]": ["a"],
    "[[], [[]]]": [[], [[]]],
    "[a b , c]": ["a b", "c"],
    '["a, b", "]"]': ["a, b", "]"],
    "[a] // c": ["a"],
    "[\n  a,\n  // c\n\n  [b,\n  1]\n]": ["a", ["b", 1]],
    '[ "x"\n, "y" ]': ["x", "y"],
}


@pytest.mark.parametrize("raw", LISTS)
def test_list(raw):
    rec = body(f"@x\nk: {raw}\nl: after\n@end\n")
    assert rec == {"@tag": "x", "k": LISTS[raw], "l": "after"}


def test_items_below_an_empty_key():
    source = '@x\nk:\n  - one\n  - "two"\n  // c\n  - 3 // d\n  -\n  - [a, [b]]\n  - key: value\nl:\nm:\n\n- text\n@end\n'
    assert body(source) == {"@tag": "x", "k": ["one", "two", 3, "", ["a", ["b"]], "key: value"], "l": "", "m": "", "@text": "- text"}


def test_open_list_is_text_and_its_lines_are_read_again():
    source = "@ftai v2.0\n@x\nk: [a,\n  b: 1\n  c,\n@y\n@end\n@end\n"
    (_, rec), findings = text.read(source.encode())
    assert rec == {"@tag": "x", "k": "[a,", "b": 1, "@text": "c,", "@blocks": [{"@tag": "y"}]}
    assert [(found.rule, found.line, found.column, found.level) for found in findings] == [("open-list", 3, 4, "warning")]
    assert "error open-list 3" in rules(source, strict=True)
    assert body("@x\nk: [a,\n---\nb]\n@end\n") == {"@tag": "x", "k": "[a,", "@text": "---\nb]"}
    assert body("@x\nk: [a,\n--- , -\n]\n@end\n") == {"@tag": "x", "k": "[a,", "@text": "--- , -\n]"}


def test_levels_of_lists():
    deep = "[" * 64 + "]" * 64
    assert body(f"@x\nk: {deep}\n@end\n")["k"] == orjson.loads(deep)
    for raw in ("[" * 65 + "]" * 65, "[" * 20_000 + "]" * 20_000, "[" * 20_000):
        (_, rec), findings = text.read(f"@ftai v2.0\n@x\nk: {raw}\nl: 1\n@end\n".encode())
        assert rec == {"@tag": "x", "k": raw, "l": 1}
        assert [(found.level, found.rule, found.line) for found in findings] == [("error", "deep-list", 3)]


HINTS = {
    "int 3": 3,
    "int 007": 7,
    "int +5": 5,
    "float 3": 3.0,
    "float 1.10": 1.1,
    "bool TRUE": True,
    "bool false": False,
    "date 2026-11-22": "2026-11-22",
    'date "2026-11-22"': "2026-11-22",
    "date 2026-11-22T10:00:00Z": "2026-11-22T10:00:00Z",
    "many 3": "many 3",
    "int": "int",
    "x": "x",
}
MISFITS = {
    "int x": "x",
    "int 1.5": 1.5,
    'int "3"': "3",
    "float x": "x",
    "float 1e999": "1e999",
    "bool yes": "yes",
    "date 2026-13-01": "2026-13-01",
    "date soon": "soon",
}


@pytest.mark.parametrize("raw", [*HINTS, *MISFITS])
def test_hint(raw):
    value = body(f"@x\nk:{raw}\n@end\n")["k"]
    assert value == (HINTS | MISFITS)[raw] and type(value) is type((HINTS | MISFITS)[raw])
    found = rules(f"@ftai v2.0\n@x\nk:{raw}\n@end\n", strict=True)
    assert ("error hint 3" in found) == (raw in MISFITS)


def test_a_head_stays_a_string():
    assert body("@version:float 1.10\n@end\n") == {"@tag": "version", "@head": "1.10"}
    assert body("@feedback:pos x\n@end\n") == {"@tag": "feedback", "@head": ":pos x"}
    assert body("@feedback:pos\n@end\n") == {"@tag": "feedback", "@head": ":pos"}
    assert body("@x 7 // seven\n@end\n") == {"@tag": "x", "@head": "7"}
    assert body("@x [a]\n@end\n") == {"@tag": "x", "@head": "[a]"}
    assert "error hint 2" in rules("@ftai v2.0\n@x:int y\n@end\n", strict=True)


# Lines

COMMENTS = {
    "a // b": "a",
    "// a": None,
    "a//b": "a//b",
    "a /// b": "a",
    'a "b // c" d': 'a "b // c" d',
    'a "b // c': 'a "b',
    'a "b\\" // c" // d': 'a "b\\" // c"',
    'say \\"x // y': 'say \\"x',
    "http://a.b // c": "http://a.b",
    "a\t// b": "a",
    "a\xa0// b": "a\xa0// b",
    '"a" // "b': '"a"',
    "# no": "# no",
    "a / / b": "a / / b",
}


@pytest.mark.parametrize("line", COMMENTS)
def test_comment(line):
    assert body(f"@x\nfirst line\n  {line}\n@end\n")["@text"].partition("\n  ")[2] == (COMMENTS[line] or "")
    recs, _ = text.read(f"@ftai v2.0\n@end\n{line}\n".encode())
    assert recs[1:] == ([{"@text": COMMENTS[line]}] if COMMENTS[line] else [])


def test_comments_are_found_in_linear_time():
    for begin, again, end in (
        ('"', '\\"//', ""),
        ('"', '\\"', ""),
        ("", '"a"', " // c"),
        ("", "a//", ""),
        ("", '\\"', " // c"),
        ("", "[", ""),
        ("", '["', ""),
    ):
        part, whole = (begin + again * count + end for count in (25_000, 200_000))
        growth.linear(lambda hostile: text.read(f"@ftai v2.0\n@x\nk: {hostile}\n{hostile}\n@end\n".encode()), part, whole)


def test_keep_comments():
    source = '@ftai v2.0 // v\n// top\n@"odd" x // head\n  // own\n  n:int 3 // n\n  a: "b // c" // d\n@end // end\n// last\n'
    recs, _ = text.read(source.encode(), keep_comments=True)
    assert recs == [
        {"@tag": "ftai", "@head": "v2.0", "@comments": ["// v"]},
        {
            "@tag": "odd",
            "@head": "x",
            "n": 3,
            "a": "b // c",
            "@comments": ["// top", "// head", "// end", "// own", "// n", "// d"],
            "@hints": ["n:int"],
            "@quoted": True,
        },
        {"@tag": "prose", "@comments": ["// last"]},
    ]
    assert own(text.read(write(recs).encode())[0])[0] == {"@tag": "odd", "@head": "x", "n": 3, "a": "b // c"}


FIELDS = {
    "k: v": {"k": "v"},
    "k:v": {"k": "v"},
    "k:": {"k": ""},
    "K.x-y_1: v": {"K.x-y_1": "v"},
    "k: // c": {"k": ""},
    "k:  v  ": {"k": "v"},
    "\tk:\tv\t": {"k": "v"},
    "k::v": {"k": ":v"},
    "k: a: b": {"k": "a: b"},
    "k\u00a0: v": {"@text": "k\u00a0: v"},
    "k://x": {"@text": "k://x"},
    "1k: v": {"@text": "1k: v"},
    "k : v": {"@text": "k : v"},
    "é: v": {"@text": "é: v"},
    "- k: v": {"@text": "- k: v"},
    "k": {"@text": "k"},
    "@2x: v": {"@text": "@2x: v"},
    "}": {"@text": "}"},
}


@pytest.mark.parametrize("line", FIELDS)
def test_field(line):
    assert body(f"@x\n{line}\n@end\n") == {"@tag": "x"} | FIELDS[line]


def test_a_repeated_key_becomes_a_list():
    source = "@ftai v2.0\n@x\nk: 1\nl: [a]\nk: two\nl: [b]\nk: [3]\n@end\n"
    (_, rec), findings = text.read(source.encode())
    assert rec == {"@tag": "x", "k": [1, "two", [3]], "l": [["a"], ["b"]]}
    assert [(found.rule, found.line) for found in findings] == [("repeated-key", 5), ("repeated-key", 6)]


def test_text_loses_its_margin_only():
    assert body("@x\n    a\n      b\n\n    c  \n\n  k: v\n    d\n\n@end\n") == {"@tag": "x", "k": "v", "@text": "a\n  b\n\nc\n\nd"}
    assert body("@x\n\ta\n  b\n@end\n")["@text"] == "\ta\n  b"


def test_line_ends():
    for newline in ("\n", "\r\n", "\r"):
        data = newline.join(["@ftai v2.0", "@x", "k: a\u2028b\x85c\u200bd", "t", "", "u", "@end", ""]).encode()
        expected = [{"@tag": "ftai", "@head": "v2.0"}, {"@tag": "x", "k": "a\u2028b\x85c\u200bd", "@text": "t\n\nu"}]
        for sizes in ([1 << 20], [1], [2, 3]):
            assert pieces(data, sizes) == expected
    # A line feed, a form feed and the rest of C0 are no line ends, and no text.
    for code in (0, 7, 11, 12, 28, 29, 30, 31, 127):
        recs, findings = text.read(b"@ftai v2.0\n@x\nk: a" + bytes([code]) + b"b\n@end\n@y\n@end\n")
        assert [rec["@tag"] for rec in recs] == ["ftai", "y"]
        assert [tuple(found) for found in findings] == [(3, 5, "error", "control", f"control character U+{code:04X}, expected text", True)]


# Tags and blocks

TREES = {
    "@a\n@end\n@b\n@end\n": ["a", "b"],
    "@a\n  @b\n  @end\n@end\n": [("a", "b")],
    "@a\n@b\n@end\n@end\n": [("a", "b")],
    "@a\nk: 1\n@b\nk: 1\n@end\n": ["a", "b"],
    "@a\n@b\n@c\n": ["a", "b", "c"],
    # An @end wants a block with a body; one with a head alone is passed over.
    "@a\nk: 1\n@goal G\n@end\n@b\n@end\n": [("a", "goal"), "b"],
    "@a\n@b B\n  @end\n@c\n@end\n": [("a", "b"), "c"],
    "@a A\n@b B\n@end\n@c\n@end\n": ["a", "b", "c"],
    "@a\n  @b\n@c\n@end\n": [("a", "b"), "c"],
    "@a\n  @b\n  @c\n@end\n": [("a", "b", "c")],
    "@section S\n  @note Do it\n@end\n": [("section", "note")],
    "@goal G\n@constraints\n- x\n@end\n": ["goal", "constraints"],
    "@goal G\n@x\n@end\n@y\n@end\n": ["goal", "x", "y"],
    "@s S\n  @@sub A\n    text\n  @@sub B\n@end\n": [("s", "sub", "sub")],
    "@s S\n@@sub A\n- text\n@end\n": [("s", "sub")],
    "@s One\n@@sub A\nt\n@s Two\n@@sub B\nt\n@end\n": [("s", "sub"), ("s", "sub")],
    "@s S\n  @@sub A\n  @note N\n  @@sub B\n@end\n": [("s", "sub", "note", "sub")],
    "@s S\n  @@sub A\n    @t T\n    @end\n    text\n@end\n@n\n@end\n": [("s", ("sub", "t", "text")), "n"],
    "@a {\n  k: 1\n}\n@b\n@end\n": ["a", "b"],
    "@a {\n  k: 1\n}\n@end\n@b\n@end\n": ["a", "b"],
    "@a {\n@b {\n}\n@c\n@end\n}\n": [("a", "b", "c")],
    "@a\n  @b {\n  }\n@end\n@c\n@end\n": [("a", "b"), "c"],
    "@a{\n}\n@b\n@end\n": ["a", "b"],
    "@a\nk: 1\n---\ntext\n---\n@b\n@end\n": ["a", "text", "b"],
    "@a\n  @b\n  @end\n  after: 1\n  text\n@end\n": [("a", "b", "text")],
    "one\ntwo\n\nthree\n---\nfour\n@a\n@end\nfive": ["one\ntwo", "three", "four", "a", "five"],
    "@a\n\t@b\n    @c\n\t@end\n@end\n": [("a", "b", "c")],
    "@document\nt: 1\n  @note N\n---\nnarrative\n---\n@x\n": [("document", "note"), "narrative", "x"],
    "@a\n\t@b\n  @c\n  @end\n\t@end\n@end\n": [("a", "b", "c")],
    "@a\n  @b\n    @c\n  @end\n    @end\n@end\n": [("a", ("b", "c"))],
    "@A.b-C_1\n@end\n": ["a.b-c_1"],
    "@END\n@a\n@End\n": ["a"],
    "@a\n@end // c\n@b\n@end\t\n": ["a", "b"],
    "@message\nk: 1\n@end\ntimestamp: 2\n": ["message", "timestamp: 2"],
    "@a\ntext\n@b\nk: 1\n@end\nk: 1\n@end\n": [("a", "b")],
    "@a\nx: 1\n@b\nx: 1\n@end\ny: 2\n": ["a", "b", "y: 2"],
    "@ftai v2.0\n@a\n@ftai v2.0\n@b\n": ["ftai", "a", "ftai", "b"],
}


@pytest.mark.parametrize("source", TREES)
def test_tree(source):
    assert tree(source) == TREES[source]
    data = b"@ftai v2.0\n" + source.encode()
    for both in (data, data + b"@z\n@end\n"):
        assert repr(pieces(both, [1 << 20])) == repr(pieces(both, [1 << 20], short=False))


def test_an_end_chooses_no_second_level_block():
    assert rules("@ftai v2.0\n@s S\n@@sub A\n- text\n@end\n") == []
    assert rules("@ftai v2.0\n@@sub A\n- text\n@end\n") == []
    assert rules("@ftai v2.0\n@s S\n@@sub A\n- text\n") == ["warning unclosed 2"]


def test_a_rule_in_a_block():
    """In a closed block `---` is text; a block that was never closed ends there."""
    assert body("@a\nx\n---\ny\n@end\n") == {"@tag": "a", "@text": "x\n---\ny"}
    assert tree("@a\nx\n---\ny\n") == ["a", "y"]
    assert body("@a\n  @b\n    k: 1\n  ---\n  text\n@end\n") == {"@tag": "a", "@blocks": [{"@tag": "b", "k": 1}, {"@text": "---\ntext"}]}


def test_end_with_words():
    recs, findings = text.read(b"@ftai v2.0\n@a\n@end of a\n@end of all\n")
    assert recs[1:] == [{"@tag": "a", "@text": "of a"}, {"@text": "of all"}]
    assert [found.rule for found in findings] == ["end-words", "end-words", "stray-end"]


def test_tag_lines_that_are_text():
    for line in ("@mike, look", "@2x", "@ x", "@", "@@", '@"a b"', "@x!", "@x/y"):
        assert body(f"@a\n{line}\n@end\n") == {"@tag": "a", "@text": line}
        assert rules(f"@ftai v2.0\n@a\n{line}\n@end\n") == ["warning no-tag 3"]


def test_long_tag():
    name = "a" * 256
    assert body(f"@{name}\n@end\n") == {"@tag": name}
    recs, findings = text.read(f"@ftai v2.0\n@{name}a\n  @b\n  @end\n@end\n@c\n@end\n".encode())
    assert [rec["@tag"] for rec in recs] == ["ftai", "c"]
    assert [(found.rule, found.line, found.refused) for found in findings] == [("tag-length", 2, True)]


def test_give_up_at_64():
    source = "@ftai v2.0\n" + "".join(f"@message\nn: {n}\n" for n in range(200))
    reader = text.Reader()
    early = split(reader.feed(source.encode()))[0]
    assert len(early) >= 1 + 200 - 66
    recs = early + split(reader.close())[0]
    assert [rec.get("n") for rec in recs] == [None, *range(200)]
    assert rules(source) == ["warning unclosed 2"]


@pytest.mark.parametrize("short", [True, False])
def test_give_up_at_a_mebibyte(short):
    """An unclosed @document on top of closed notes: it is given up, and the notes come out."""

    def early(source):
        reader = text.Reader()
        reader.plain = short
        data = source.encode()
        return [rec for at in range(0, len(data), 65536) for rec in split(reader.feed(data[at : at + 65536]))[0]]

    note = '@note\n  body: "' + "x" * 1000 + '"\n@end\n'
    recs = early("@ftai v2.0\n@document\ntitle: t\n" + note * 1200)
    assert len(recs) == 1 + 1 + 1200
    assert recs[1] == {"@tag": "document", "title": "t"}
    # Closed before a mebibyte has come, it keeps them.
    assert [len(rec.get("@blocks", ())) for rec in early("@ftai v2.0\n@document\ntitle: t\n" + note * 900 + "@end\n")] == [0, 900]
    # A log of large messages that are never closed does not wait for 64 of them.
    large = "@message\n  body: " + "x" * 30_000 + "\n\n"
    assert len(early("@ftai v2.0\n" + large * 60)) == 27


def test_deep_nesting():
    nested = "".join(" " * n + "@x\n" for n in range(64)) + "".join(" " * n + "@end\n" for n in reversed(range(64)))
    rec = body(nested)
    for _ in range(63):
        (rec,) = rec["@blocks"]
    assert rec == {"@tag": "x"} and not [rule for rule in rules("@ftai v2.0\n" + nested) if rule.startswith("error")]
    for step, count in ((0, 10_000), (1, 3000)):
        source = "@ftai v2.0\n" + "".join(" " * n * step + "@x\n" for n in range(count)) + "@end\n" * count + "@y\n@end\n"
        recs, findings = text.read(source.encode())
        assert sum(orjson.dumps(rec).count(b'"x"') for rec in recs) == count
        assert recs[-1] == {"@tag": "y"}
        assert len([found for found in findings if found.level == "error"]) == step
        assert own(text.read(write(recs).encode())[0]) == own(recs)


# Documents


def test_header():
    for line in ("@ftai v2.0", "@ftai", "@ftai v2.0 lang:en", "@ftai folktech-memory (2025-04-19)", "@FTAI v9.9"):
        recs, findings = text.read(f"{line}\n\n@a\n@end\n".encode())
        assert recs[0] == {"@tag": "ftai"} | ({"@head": line[6:]} if line[6:] else {}) and not findings
        assert write(recs).startswith(line.replace("FTAI", "ftai") + "\n\n@document\n")
        assert text.read(write(recs).encode())[0][0] == recs[0]
        assert ("error header 1" in rules(f"{line}\n", strict=True)) == ("v2.0" not in line)
    assert rules("@a\n@end\n") == ["warning header 1"] and "error header 1" in rules("@a\n@end\n", strict=True)
    assert rules("\n@ftai v2.0\n", strict=True) == ["error header 2"]
    assert rules("@intent fail\n@ftai v2.0\n", strict=True) == []
    assert rules("") == ["warning header 1"]
    recs, findings = text.read(b"\xef\xbb\xbf@ftai v2.0\n")
    assert recs == [{"@tag": "ftai", "@head": "v2.0"}] and [found.rule for found in findings] == ["bom"]


def test_verdict():
    reader = text.Reader()
    recs = reader.feed(b"@intent fail\n@ftai v2.0\n@a\n@end\n") + reader.close()
    assert reader.verdict and recs[:2] == [{"@tag": "intent", "@head": "fail"}, {"@tag": "ftai", "@head": "v2.0"}]
    assert write(recs).startswith("@intent fail\n@ftai v2.0\n\n@document\n")
    assert text.read(write(recs).encode())[0][:2] == recs[:2]
    reader = text.Reader()
    reader.feed(b"@ftai v2.0\n@intent fail\n@end\n")
    assert not reader.verdict


def test_invalid_utf8():
    data = b'@ftai v2.0\n@a\n  k: "\xc3\xbc\xff x \xc3"\n@end\n@b\n@end\n'
    recs, findings = text.read(data)
    assert recs[1:] == [{"@tag": "a", "k": "ü\ufffd x \ufffd"}, {"@tag": "b"}]
    assert [tuple(found) for found in findings] == [(3, 8, "error", "utf-8", "byte 0xFF at offset 22 is not UTF-8, read as U+FFFD", False)]


def test_old_dialect():
    data = b"# top\nversion: 1.0\ntitle: T // c\n# note\n\nschema:\nname: S\nfield: a:string:true:The a: b\nfield: odd\n"
    data += b"\ncontent:\nOne // two\nmore\n\n# three\n---\n@end\n"
    for old in (False, True):
        recs, findings = text.read(data, old=old)
        assert not findings
        assert recs == [
            {"@tag": "document", "version": 1.0, "title": "T"},
            {
                "@tag": "schema",
                "name": "S",
                "field": "odd",
                "@blocks": [{"@tag": "field", "name": "a", "type": "string", "required": True, "description": "The a: b"}],
            },
            {"@text": "One // two\nmore"},
            {"@text": "# three\n---\n@end"},
        ]
    back = own(text.read(write(recs).encode())[0])
    assert back[:2] == recs[:2] and [rec.get("body") for rec in back[2:]] == ["One // two\nmore", "# three\n---\n@end"]
    assert text.read(b"title: T\ncontent:\nx\n", old=True)[0] == [{"@tag": "document", "title": "T"}, {"@text": "x"}]
    assert text.read(b"# top\n\n# more\n@ftai v2.0\n")[0] == [{"@text": "# top"}, {"@text": "# more"}, {"@tag": "ftai", "@head": "v2.0"}]


def test_strict():
    good = '@ftai v2.0\n\n@document\n  title: "x"\n@end\n\n@note\n  k: [1, "a"]\n  @x_sub\n  @end\n@end\n'
    assert rules(good, strict=True) == []
    for source, rule in {
        "@Note\n@end\n": "warning upper-case 2",
        "@a.b\n@end\n": "error tag 2",
        "@note\nKey: 1\n@end\n": "error key 3",
        '@"odd"\n@end\n': "warning quoted-tag 2",
        '@"o"\n@end\n' * 26: "warning quoted-tags 52",
        '@note\nk: "a\\qb"\n@end\n': "error escape 3",
        '@note\nk: "a\n@end\n': "error unterminated-quote 3",
        "@note\nk: {a}\n@end\n": "warning bare 3",
        "@note\nk: [a](b)\n@end\n": "warning no-list 3",
        "text\n": "warning narrative 2",
        "@note {\n}\n": "error brace 2",
        "@table\na | b\n1 | 2\n@end\n": "error table 4",
        "@table\na |\n--- | ---\n@end\n": "error table 3",
        "@table\na | b\n--- | ---\n1 | 2 | 3\n@end\n": "error table 5",
        "@table\n@end\n": "error table 2",
        "@sys_x\n@end\n": "error reserved 2",
        "@end\n": "error stray-end 2",
        "@task\nk: 1\n": "error unclosed 2",
        "@note\nk: 1\n": "warning unclosed 2",
        "@a\n  @b\n    @c\n    @end\n  @end\n@end\n": "warning levels 4",
    }.items():
        assert rule in rules("@ftai v2.0\n" + source, strict=True), source
    assert "error" not in str(rules("@ftai v2.0\n@table T\n| a | b |\n|---|:-:|\n| 1 | |\n@end\n---\ntext\n---\n", strict=True))
    assert rules("@ftai v2.0\n@sys\n@end\n@prompt x\n@end\n@prompts\n@end\n") == ["warning reserved 2", "warning reserved 4"]
    met = []
    text.read(b'@ftai v2.0\n@A\n  @"b"\n  @end\n@end\n', on_tag=lambda *seen: met.append(seen))
    assert met == [("ftai", 1, 1, False), ("a", 2, 1, False), ("b", 3, 3, True)]


def test_table_rows_are_text():
    rec = body('@table T\nunit: mg\nTime: a | b\n--- | ---\nx: "a | b"\n1 | 2\n@end\n')
    assert rec == {"@tag": "table", "@head": "T", "unit": "mg", "x": "a | b", "@text": "Time: a | b\n--- | ---\n1 | 2"}
    assert body(text.dump(rec)) == rec


def test_schema_is_read_in_all_spellings():
    for source in (
        'required_tags: ["@a", "@B"]\noptional_tags: [c]',
        "required_tags: @a, @b\noptional_tags: @c",
        "required_tags: [a, @b]\noptional_tags:\n- @c",
        'required_tags:\n  - @a\n  - "b"\noptional_tags:\n  - @"c"',
    ):
        assert text.declared(body(f"@schema\n{source}\n@end\n")) == (["a", "b"], ["c"])
    assert text.declared({"@tag": "schema"}) == ([], [])


def test_at():
    recs, _ = text.read(b"@ftai v2.0\n\n@a\n  k: 1\n  t\n  @b\n  @end\n@end\n\nnarrative\n@c\n", at=True)
    assert recs == [
        {"@tag": "ftai", "@head": "v2.0", "at_line": 1},
        {"@tag": "a", "k": 1, "at_line": 3, "@text": "t", "@blocks": [{"@tag": "b"}]},
        {"@text": "narrative"},
        {"@tag": "c", "at_line": 11},
    ]
    assert list(recs[1]) == ["@tag", "k", "at_line", "@text", "@blocks"]


def test_sniff():
    for head, form in {
        b"": None,
        b"\n \n": None,
        b"@ft": None,
        b"@": None,
        b"\xef\xbb": None,
        b"@intent fail": None,
        b"@intent fail\n": None,
        b"@intent fail\n@ft": None,
        b'{"a"': "line",
        b"@ftai": "text",
        b"\xef\xbb\xbf\n@ftai v2.0\n": "text",
        b"@intent fail\r\n@ftai": "text",
        b"@ftx": "other",
        b"x": "other",
        b"@document\n": "other",
        b"@f\n": "other",
        b"[": "other",
        b"\0": "other",
    }.items():
        assert text.sniff(head) == form, head


# Writing


def test_canonical_text():
    recs = [
        {
            "@tag": "task",
            "@head": "H",
            "id": "x",
            "priority": 2,
            "tags": ["home", ["a", 1.0, True]],
            "@text": "free\n  text",
            "@blocks": [{"@tag": "note", "body": 'first line\nsecond: "line" \\ \t\r'}, {"@text": "between"}, {"@tag": "e"}],
        },
        {"@text": "narrative"},
    ]
    assert write(recs) == (
        '@ftai v2.0\n\n@document\n  generator: "serenamaster"\n@end\n\n@schema\n  name: "serenamaster"\n  required_tags: ["@document"]\n'
        '  optional_tags: ["@task", "@note", "@e"]\n@end\n\n@task "H"\n  id: "x"\n  priority: 2\n  tags: ["home", ["a", 1.0, true]]\n  free\n    text\n'
        '  @note\n    body: "first line\\nsecond: \\"line\\" \\\\ \\t\\r"\n  @end\n  between\n  @e\n  @end\n@end\n\n---\nnarrative\n---\n'
    )
    assert write([]) == '@ftai v2.0\n\n@document\n  generator: "serenamaster"\n@end\n'


def test_a_header_within_a_block():
    rec = {"@tag": "a", "@blocks": [{"@tag": "b", "@blocks": [{"@tag": "ftai", "@head": "v2.0 x"}, {"@text": "t"}]}, {"@tag": "c"}]}
    assert body(text.dump(rec)) == rec


def test_writer_adds_only_what_is_missing():
    head, doc = {"@tag": "ftai", "@head": "v2.0"}, {"@tag": "document", "title": "t", "@blocks": [{"@tag": "title"}]}
    schema = {"@tag": "schema", "optional_tags": ["@note", "@title"]}
    assert [rec["@tag"] for rec in text.read(write([head, doc, schema, {"@tag": "note"}]).encode())[0]] == ["ftai", "document", "schema", "note"]
    assert [rec["@tag"] for rec in text.read(write([doc, {"@tag": "note"}]).encode())[0]] == ["ftai", "document", "schema", "note"]
    assert [rec["@tag"] for rec in text.read(write([doc]).encode())[0]] == ["ftai", "document", "schema"]
    # A stream that meets a new tag declares it before its first use.
    assert [rec["@tag"] for rec in text.read(write([{"@tag": "a"}, {"@tag": "a"}, {"@tag": "b"}]).encode())[0]] == [
        "ftai",
        "document",
        "schema",
        "a",
        "a",
        "schema",
        "b",
    ]
    assert [rec["@tag"] for rec in text.read(write([{"@tag": "a"}, {"@tag": "b"}], tags=["a", "b"]).encode())[0]] == ["ftai", "document", "schema", "a", "b"]
    assert [rec["@tag"] for rec in text.read(write([{"@tag": "a"}, doc]).encode())[0]] == ["ftai", "document", "schema", "a", "schema", "document"]


PROSE = ["a: b", "@x", "@end", "a // b", "// a", "---", "a\n@@x", "a\n  @x y", "a\rb", "  a", "  a\n   b", "k:v", '@"q"']
KEPT = ["a", "@2x", "a\n\n  b", "http://x", "1: b", "- a: b", "}", "[", '"a', "\xa0a", "a\u2028@x", "{", "#", "a\n\tb", "\ta\nb", "-", "a //b"[:1]]


@pytest.mark.parametrize("value", PROSE)
def test_text_that_would_be_something_else_becomes_prose(value):
    notes = []
    rec = body(text.dump({"@tag": "x", "@text": value, "@blocks": [{"@tag": "y"}]}, notes))
    assert rec == {"@tag": "x", "@blocks": [{"@tag": "prose", "body": value}, {"@tag": "y"}]} and len(notes) == 1
    assert body(text.dump({"@tag": "x", "@blocks": [{"@tag": "y"}, {"@text": value}]})) == {
        "@tag": "x",
        "@blocks": [{"@tag": "y"}, {"@tag": "prose", "body": value}],
    }
    if value not in ("a: b", "k:v"):  # at top level there are no fields
        assert body(text.dump({"@text": value})) == {"@tag": "prose", "body": value}


@pytest.mark.parametrize("value", KEPT)
def test_text_stands_as_it_is(value):
    notes = []
    assert body(text.dump({"@tag": "x", "@text": value}, notes)) == {"@tag": "x", "@text": value} and not notes
    assert body(text.dump({"@tag": "x", "@text": f"\n{value} \t\n \n"}, notes)) == {"@tag": "x", "@text": value} and not notes


def test_narrative_that_would_run_together_becomes_prose():
    rec = body(text.dump({"@tag": "x", "@text": "a", "@blocks": [{"@text": "b"}, {"@text": "c"}, {"@tag": "y"}, {"@text": "d"}, {"@text": " "}]}))
    assert rec["@blocks"] == [{"@tag": "prose", "body": "b"}, {"@text": "c"}, {"@tag": "y"}, {"@text": "d"}, {"@tag": "prose", "body": " "}]
    assert body(text.dump({"@text": "a\n\nb"})) == {"@tag": "prose", "body": "a\n\nb"}
    assert body(text.dump({"@text": ""})) == {"@tag": "prose", "body": ""}


def test_what_cannot_be_written_is_refused_by_name():
    for rec, field, reason in (
        ({"@tag": "a", "body": "x\x07"}, "body", "U+0007 cannot be written"),
        ({"@tag": "a", "@head": "\x7f"}, "@head", "U+007F cannot be written"),
        ({"@tag": "a", "@text": "\0"}, "@text", "U+0000 cannot be written"),
        ({"@tag": "a", "@blocks": [{"@tag": "b", "l": [["\x1b"]]}]}, "l", "U+001B cannot be written"),
        ({"@text": "\x0b"}, "@text", "U+000B cannot be written"),
        ({"@tag": "a", "b": "\ud800"}, "b", "a lone surrogate cannot be written"),
        ({"@tag": "a", "@text": "\ud800"}, "@text", "a lone surrogate cannot be written"),
        ({"@tag": "a", "b": None}, "b", "null cannot be written"),
        ({"@tag": "a", "b": {}}, "b", "a value of type dict cannot be written"),
        ({"@tag": "a", "b": [{}]}, "b", "a value of type dict cannot be written"),
        ({"@tag": "a", "b": 2**63}, "b", "an integer of more than 64 bits"),
        ({"@tag": "a", "b": float("inf")}, "b", "a number that is not finite"),
        ({"@tag": "a", "b c": 1}, "b c", "no field name"),
        ({"@tag": "a", "@b": 1}, "@b", "unknown key"),
        ({"@tag": "A"}, "@tag", "'A' is no tag that can be written"),
        ({"@tag": "end"}, "@tag", "'end' is no tag that can be written"),
        ({"@tag": "ftai", "x": 1}, "@tag", "'ftai' is the header and holds words only"),
        ({"@text": "x", "a": 1}, "@text", "a record without '@tag' is narrative and holds '@text' alone"),
        ({}, "@text", "a record without '@tag' is narrative and holds '@text' alone"),
    ):
        with pytest.raises(text.Unwritable) as bad:
            text.dump(rec)
        assert (bad.value.field, bad.value.reason) == (field, reason)
        writer = text.Writer()
        before = writer.write({"@tag": "x_a"})
        with pytest.raises(text.Unwritable):
            writer.write(rec)
        recs, findings = text.read((before + writer.write({"@tag": "x_b"}) + writer.close()).encode())
        assert [found.rule for found in findings] == [] and recs[-1] == {"@tag": "x_b"}
    deep = {"@tag": "a"}
    for _ in range(64):
        deep = {"@tag": "a", "@blocks": [deep]}
    with pytest.raises(text.Unwritable):
        text.dump(deep)
    text.dump(deep["@blocks"][0])


# Size


def test_limit():
    limit = 2 << 20
    big, small = "x" * (limit + 10), "@note\n  n: 1\n@end\n"
    note = {"@tag": "note", "n": 1}
    for source, refused in (
        (f'@ftai v2.0\n{small}@big\n  body: "{big}"\n@end\n{small}', 4),
        (f"@ftai v2.0\n{small}@big\n" + "  a line\n" * (limit // 8) + f"  k: v\n@end\n{small}", 5),
        (f"@ftai v2.0\n{small}@big\n" + "  a line\n" * (limit // 8) + f"{small}", 5),
        (f"@ftai v2.0\n{small}@big\n  @deeper\n    {big}\n  @end\n@end\n{small}", 5),
        (f"@ftai v2.0\n{small}{big}\nmore of it\n\n{small}", 5),
        (f"@ftai v2.0\n{small}" + "a line\n" * (limit // 6) + f"{small}", 5),
        (f"@ftai v2.0\n{small}@big {big}\n@end\n{small}", 5),
    ):
        for sizes, short in (([1 << 30], True), ([65536], False), ([1 << 20, 3], True)):
            recs, findings = split(pieces(source.encode(), sizes, limit=limit, short=short))
            assert recs[1:] == [note, note], source[:60]
            assert [(found.rule, found.level, found.refused) for found in findings if found.level == "error"] == [("too-long", "error", True)], source[:60]
        assert refused


def peak(code, *args):
    """Peak memory in MB of a Python process that runs `code` with these arguments."""
    import subprocess

    path = {"PYTHONPATH": os.path.dirname(os.path.dirname(text.__file__)), "PATH": os.environ["PATH"]}
    # ru_maxrss would count what the parent held when it forked.
    show = "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    ran = subprocess.run([sys.executable, "-c", f"{code}\n{show}", *map(str, args)], env=path, capture_output=True, text=True, timeout=600, check=True)
    return int(ran.stdout.split()[-1]) / 1024


STREAM = """
import sys
from serenamaster import text
block, count = sys.argv[1].encode().decode("unicode_escape").encode(), int(sys.argv[2])
reader, seen = text.Reader(), 0
for _ in range(count // 500):
    seen += sum(1 for item in reader.feed(block * 500) if type(item) is dict)
seen += sum(1 for item in reader.close() if type(item) is dict)
assert seen == count // 500 * 500, seen
"""


FLAT = [r'@message\n  from: "a"\n  n: 12\n@end\n\n', r"@message\nfrom: a\nbody: some words of it\n\n", r"@message\nbody: x\nfree text\n\n"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("block", FLAT)
def test_memory_is_flat(block):
    small = peak(STREAM, block, 500)
    large = peak(STREAM, block, int(60_000 * SCALE))
    assert large < small + 8 and large < 100


def test_time_is_linear():
    for make in (
        lambda n: "@x\n" + "k: [\n" * n + "@end\n",
        lambda n: "@x\nk: " + "a" * 50 * n + "\n@end\n",
        lambda n: "".join(f"@message\nn: {i}\ntext\n" for i in range(n)),
        lambda n: "@x {\n" * n + "}\n" * n,
        lambda n: "@document\n" + "@n\n@end\n" * n,
        lambda n: "@@x\n" * n + "@end\n" * n,
        lambda n: "@x\n" + "- a\n" * n + "@end\n",
        lambda n: "  @a\n@b\n" * n,
        lambda n: '@x\nk: "' + '\\"' * n + "\n@end\n",
    ):
        growth.linear(text.read, *(("@ftai v2.0\n" + make(n)).encode() for n in (4000, 32_000)))


def test_quadratic_time_would_be_seen():
    with pytest.raises(AssertionError):
        growth.linear(lambda count: [None for n in range(count) for _ in range(n)], 500, 4000)


@pytest.mark.parametrize("block", [*FLAT, r"@task T\n  a: 1 // c\n  @sub\n    k: [1]\n  @end\n  text\n@end\n"])
def test_plain_blocks_take_the_short_way(block, monkeypatch):
    """Else a log that is never closed, or has free text, would be read at a tenth of the speed."""
    taken = []
    long_way = text.Reader._line
    monkeypatch.setattr(text.Reader, "_line", lambda self, *line: taken.append(1) or long_way(self, *line))
    data = b"@ftai v2.0\n\n" + block.encode().decode("unicode_escape").encode() * 5000
    for size in (4096, 65536):
        taken.clear()
        pieces(data, [size])
        assert len(taken) < 20


def test_lines_of_known_shapes():
    """Spelled as JSON right from the text, where nothing needs another spelling."""
    blocks = []
    for value in (
        '"a"',
        '"a\\nb\\"c\\q\\u0041\\\\"',
        '"tab\tin it"',
        '"é\u2028\x85"',
        '"%s"',
        "7",
        "-7",
        "word",
        "1.5",
        "1e16",
        "true",
        "tree",
        'a "quote"',
        "back\\slash",
        "007",
    ):
        blocks += [f"@shape_a\n  k: {value}\n  l: 1\n@end\n" * 8, f"@shape_b\nk: {value}\n\n" * 80]
    data = ("@ftai v2.0\n" + "".join(blocks)).encode()
    for size in (1000, 1 << 20):
        items = pieces(data, [size], lines=True)
        assert [item for item in items if type(item) is bytes]
        made = b"".join([item if type(item) is bytes else record.encode(item) for item in items if type(item) in (bytes, dict)])
        assert made == b"".join([record.encode(item) for item in pieces(data, [size], short=False) if type(item) is dict])


def test_a_brace_swallows_the_next_end_only():
    note = "@note\n  n: 1\n@end\n"
    for between, stray in {"": 1, "\n": 1, "// c\n": 2, note: 2, "text\n": 2, "@goal G\n": 0}.items():
        data = f"@ftai v2.0\n{note * 9}@a {{\n}}\n{between}@end\n{between}@end\n".encode()
        for short in (True, False):
            findings = split(pieces(data, [1 << 20], short=short))[1]
            assert [one.rule for one in findings].count("stray-end") == stray, between


def test_shapes_with_blank_lines_and_comments():
    """What is remembered of a block must fit the next one."""
    for odd in ("", "// c", "  ", "  // c"):
        block = f"@note\n  a: 1\n{odd}\n  b: x // c\n  c: 2\n@end\n".encode()
        data = b"@ftai v2.0\n" + block * 20 + block.replace(b"1", b"x").replace(b"x /", b"7 /") * 20 + block.replace(b"a", b"b") * 20
        assert pieces(data, [1 << 20]) == pieces(data, [1 << 20], short=False)
    names = [f"@note\n  k{n}{'x' * n}: 1\n@end\n" for n in range(300)] * 3
    data = ("@ftai v2.0\n" + "".join(names) + "@n\n" + "".join(f"k{n}: 1\n" for n in range(300)) * 2 + "@end\n").encode()
    assert pieces(data, [1 << 20]) == pieces(data, [1 << 20], short=False)


def test_bytes_one_by_one():
    part, whole = (b"@ftai v2.0\n" + b'@note\n  body: "some words"\n  n: 1\n@end\n' * count + b"x" * 600 * count for count in (60, 480))
    growth.linear(lambda data: pieces(data, [1]), part, whole)
    assert pieces(whole, [1]) == pieces(whole, [1 << 20])


def test_records_come_out_as_they_are_complete():
    reader = text.Reader()
    assert split(reader.feed(b"@ftai v2.0\n"))[0] == [{"@tag": "ftai", "@head": "v2.0"}]
    assert reader.feed(b"@note\n  k: 1\n@en") == []
    assert reader.feed(b"d\n") == [{"@tag": "note", "k": 1}]
    assert reader.feed(b"some\nnarrative\n") == []
    assert reader.feed(b"\n") == [{"@text": "some\nnarrative"}]
    assert reader.feed(b"more\n---\n") == [{"@text": "more"}]
    assert reader.feed(b"and\n@note\n") == [{"@text": "and"}] or reader.close()


def test_the_line_form_and_the_text_form_hold_the_same():
    line = '{"@tag":"task","id":"x","priority":2,"tags":["home","money"],"@blocks":[{"@tag":"note","body":"first line\\nsecond: line"}]}'
    source = '@task\n  id: "x"\n  priority: 2\n  tags: ["home", "money"]\n  @note\n    body: "first line\\nsecond: line"\n  @end\n@end\n'
    assert record.encode(body(source)).decode() == line + "\n"
    assert text.dump(record.decode(line.encode())) == source


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_memory_is_measured():
    """The control of test_memory_is_flat."""
    small = peak("x = 1")
    large = peak("x = bytearray(60_000_000)")
    assert large > small + 40


VECTORS = sorted((Path(__file__).parents[1] / "vectors" / "text").glob("*.ftai"))


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_vector(path):
    """Documents written by hand from ftai(5), with the records that they hold."""
    expected = [orjson.loads(line) for line in path.with_suffix(".ndjson").read_bytes().splitlines()]
    recs, findings = text.read(path.read_bytes())
    assert recs == expected and [list(rec) for rec in recs] == [list(rec) for rec in expected]
    assert not [found for found in findings if found.level == "error"]
    assert str(recs) == str(expected)  # 1 is not 1.0, and -0.0 not 0.0


def test_there_are_vectors():
    assert len(VECTORS) >= 4
