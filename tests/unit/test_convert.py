"""Conversions: canonical text and the published linter, JSON, and what ftai-parse reads."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serenamaster import record, text
from text_cases import hostile, many, number, own, records, write

# What the published linter can never accept; ftai(5), CAVEATS.
BLOCKS = {"task", "config", "ai", "agent", "memory", "protocol"}


def beyond_the_linter(canonical: str) -> bool:
    """True where the linter's own limits are met: its block tags, odd pairs on a line, and lines that it takes for tags."""
    if re.search(rf"^ *@({'|'.join(BLOCKS)})(?![^ \n])", canonical, re.MULTILINE) or canonical.startswith("@intent fail\n"):
        return True
    for line in canonical.split("\n"):
        bare = line.strip()  # of any white space, as the linter does it
        if bare.count('"') % 2 or bare.count("**") % 2 or bare.count("///") % 2:
            return True
        if bare.startswith("@") and not text.TAG_LINE.match(line.lstrip(" ")):
            return True
        if "\t" in line[: len(line) - len(bare) + 1]:
            return True
    return False


def lint(canonical, folder):
    linter = pytest.importorskip("ftai_linter.linter")
    path = folder / "x.ftai"
    path.write_text(canonical, encoding="utf-8", newline="")
    errors, _, passed = linter.lint_file(str(path), strict=True)
    if not beyond_the_linter(canonical):
        missing = [message for _, message in errors if "Missing required schema tag" in message]
        assert passed or len(missing) == len(errors), (errors, canonical)
    return passed


@many(120)
@given(records)
def test_the_published_linter_accepts_canonical_text(tmp_path_factory, recs):
    recs = [rec for rec in recs if not BLOCKS & {rec.get("@tag")}]
    lint(write(recs), tmp_path_factory.getbasetemp())


def test_the_linter_is_asked_at_all(tmp_path):
    """The control: it does refuse."""
    assert not lint("@ftai v2.0\n@document\n@end\n@task\n", tmp_path)
    with pytest.raises(AssertionError):
        lint("@ftai v2.0\n@document\n@end\n@banana\n@end\n", tmp_path)
    assert lint(write([{"@tag": "banana", "body": "x"}]), tmp_path)


# JSON

key = st.sampled_from(["id", "body", "n", "a_b", "A", "x.y", "b-c", "_u", "title"])
block_key = st.sampled_from(["note", "sub", "x.y", "b-c", "_u", "data", "table"])
scalar = hostile | number | st.booleans()
values = st.recursive(scalar, lambda inner: st.lists(inner, max_size=3), max_leaves=6)


def _objects(children):
    fields = st.dictionaries(key, values, max_size=4)
    return st.tuples(fields, st.dictionaries(block_key, children, max_size=2)).map(lambda both: both[0] | both[1])


inner = st.recursive(_objects(st.nothing()), _objects, max_leaves=6)
tagged = st.tuples(st.sampled_from(["note", "x_a", "command", "prose", "section"]), inner).map(lambda both: {"@tag": both[0]} | both[1])
several = st.tuples(inner, st.lists(st.sampled_from([{"@tag": "many", "n": 1}, {"@tag": "many"}, {"@tag": "many", "n": 2}]), min_size=2, max_size=3)).map(
    lambda both: both[0] | {"@blocks": both[1]}
)
narrative = st.sampled_from([{"@text": "some words"}, {"@text": "two\nlines"}])
json_documents = st.lists(inner | tagged | several | narrative, max_size=4)


@many(250)
@given(json_documents)
def test_json_to_text_to_json_is_the_identity(items):
    recs = [record.from_json(item) for item in items]
    canonical = write(recs)
    back, _ = text.read(canonical.encode())
    assert [record.to_json(rec) for rec in own(back)] == items


@many(100)
@given(records)
def test_records_to_json_to_records(recs):
    """Of a record's blocks only their order may differ, as JSON's keys have none: those of one tag keep theirs."""

    def sorted_blocks(rec):
        blocks = sorted([sorted_blocks(item) for item in rec.get("@blocks", ())], key=lambda item: item.get("@tag", ""))
        return {**rec, "@blocks": blocks} if blocks else rec

    recs = [rec for rec in recs if rec.get("@tag") != "data" or set(rec) != {"@tag", "@text"}]
    assert [sorted_blocks(record.from_json(record.to_json(rec))) for rec in recs] == [sorted_blocks(rec) for rec in recs]


def test_json_shapes():
    for item, rec in (
        ({"a": 1}, {"@tag": "data", "a": 1}),
        ({}, {"@tag": "data"}),
        ({"@text": "x"}, {"@text": "x"}),
        ({"@tag": "data", "@text": "x"}, {"@tag": "data", "@text": "x"}),
        ({"b": {"c": [1, ["x"]]}}, {"@tag": "data", "@blocks": [{"@tag": "b", "c": [1, ["x"]]}]}),
        ({"b": {"@text": "x"}}, {"@tag": "data", "@blocks": [{"@tag": "b", "@text": "x"}]}),
        (
            {"@tag": "t", "n": 1, "@blocks": [{"@tag": "n"}, {"@tag": "m"}, {"@tag": "m"}, {"@text": "x"}]},
            {"@tag": "t", "n": 1, "@blocks": [{"@tag": "n"}, {"@tag": "m"}, {"@tag": "m"}, {"@text": "x"}]},
        ),
        ({"a": {"b": {"data": {}}}}, {"@tag": "data", "@blocks": [{"@tag": "a", "@blocks": [{"@tag": "b", "@blocks": [{"@tag": "data"}]}]}]}),
    ):
        assert record.from_json(item) == rec and record.to_json(rec) == item


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ('{"a":null}', "field 'a'"),
        ('{"a":[{"b":1}]}', "key 'a'"),
        ('{"a":[[{}]]}', "key 'a'"),
        ('{"B":{}}', "key 'B'"),
        ('{"a b":{}}', "key 'a b'"),
        ('{"a b":1}', "'a b'"),
        ('{"@x":1}', "'@x'"),
        ('{"a":18446744073709551616}', "field 'a'"),
        ('{"a":1e999}', "field 'a'"),
        ('{"a":NaN}', "NaN"),
        ('{"a":1,"a":2}', "key 'a'"),
        ('{"a":{"@tag":"b"}}', "key 'a'"),
        ('{"a":"\\ud800"}', "field 'a'"),
        ('{"a":{"b":null}}', "field 'b'"),
        ('{"end":{}}', "'end'"),
        ("[1]", "a number"),
        ("null", "null"),
        ("[[]]", "an array"),
        ('{"@blocks":1}', "'@blocks'"),
        ('{"@tag":"A"}', "'A'"),
        ("{", "cannot be read"),
        ('{"a":' * 300 + "1" + "}" * 300, "64 objects"),
        ('{"a":' + "[" * 70 + "]" * 70 + "}", "field 'a'"),
        ("[" * 100_000, "cannot be read"),
    ],
)
def test_json_that_no_record_can_hold_is_refused_by_name(data, named):
    with pytest.raises(record.Malformed) as bad:
        for item in record.load_json(data.encode()):
            record.from_json(item)
    assert named in bad.value.reason


def test_lists_of_two_documents():
    assert record.load_json(b'[{"a":1},{"b":2}]') == [{"a": 1}, {"b": 2}] and record.load_json(b'{"a":1}') == [{"a": 1}]
