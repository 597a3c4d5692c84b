"""Ids, stamps and the line form."""

import json
import math
import re
import time

import orjson
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st
from serenamaster import record
from serenamaster.record import Malformed, decode, encode

ID = "0199c2f4-7d1e-7a31-9c1b-2f0a5b6c7d8e"


def test_ids_are_uuid_version_7_and_rise():
    ids = [record.new_id() for _ in range(20000)]
    assert ids == sorted(set(ids))
    assert all(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", own) for own in ids)


def test_an_id_holds_the_time_of_now(monkeypatch):
    monkeypatch.setattr(record, "_last", [0, 0])
    before = time.time_ns() // 1_000_000
    ms = int(record.new_id().replace("-", "")[:12], 16)
    assert before <= ms <= time.time_ns() // 1_000_000


def test_ids_rise_when_the_clock_goes_back(monkeypatch):
    monkeypatch.setattr(record, "_last", [0, 0])
    times = iter([5_000_000_000, 4_000_000_000, 4_000_000_000, 6_000_000_000])
    monkeypatch.setattr(record.time, "time_ns", lambda: next(times))
    ids = [record.new_id() for _ in range(4)]
    assert ids == sorted(set(ids))


def test_ids_rise_over_the_end_of_the_counter(monkeypatch):
    monkeypatch.setattr(record, "_last", [0, 0])
    monkeypatch.setattr(record.time, "time_ns", lambda: 5_000_000_000)
    ids = [record.new_id() for _ in range(10000)]
    assert ids == sorted(set(ids))


def test_now_is_rfc_3339_in_utc_with_milliseconds(monkeypatch):
    monkeypatch.setattr(record.time, "time_ns", lambda: 1_795_353_900_041_999_999)
    assert record.now() == "2026-11-22T13:25:00.041Z"


@pytest.mark.parametrize(
    ("given_id", "ours"),
    [
        (ID, True),
        (ID.upper(), True),
        (ID + "\n", False),
        (ID[:-1], False),
        ("T-1", False),
        ("", False),
        (7, False),
        (None, False),
        ([ID], False),
        (ID.replace("-", ""), False),
    ],
)
def test_only_a_uuid_is_an_id(given_id, ours):
    assert record.is_id(given_id) is ours


def test_make_takes_thread_and_privacy_from_the_parent():
    parent = {"@tag": "command", "id": ID, "thread": "t", "privacy": "cloud"}
    made = record.make("route", "ftai-route", parent=parent, target="ask", rule=None)
    assert list(made) == ["@tag", "id", "ts", "thread", "parent", "from", "target", "privacy"]
    assert (made["thread"], made["parent"], made["from"], made["privacy"]) == ("t", ID, "ftai-route", "cloud")


def test_make_keeps_a_privacy_of_its_own_and_writes_names_that_python_keeps():
    made = record.make("error", "x", parent={"@tag": "a", "id": ID, "privacy": "cloud"}, privacy="local", class_="input", blocks=[{"@tag": "slots"}])
    assert (made["privacy"], made["class"], made["thread"]) == ("local", "input", ID)
    assert list(made)[-1] == "@blocks"


def test_a_record_without_parent_begins_its_thread():
    made = record.make("command", "ftai-listen", body="hello")
    assert made["thread"] == made["id"]
    assert "parent" not in made
    assert record.make("command", "ftai-listen", thread="t")["thread"] == "t"


def test_a_parent_without_id_is_not_named():
    made = record.make("error", "x", parent={"@tag": "task"})
    assert "parent" not in made
    assert made["thread"] == made["id"]


def test_stamp_leaves_a_whole_record_as_it_is():
    rec = {"@tag": "task", "title": "x", "id": ID, "ts": "t", "thread": "t"}
    assert record.stamp(rec) is rec


def test_stamp_adds_only_what_is_missing_in_front():
    stamped = record.stamp({"@tag": "task", "title": "x", "ts": "2020"})
    assert list(stamped) == ["@tag", "id", "ts", "thread", "title"]
    assert stamped["thread"] == stamped["id"]
    assert stamped["ts"] == "2020"


def test_stamp_moves_a_foreign_id_to_ref():
    stamped = record.stamp({"@tag": "task", "id": "T-1", "title": "x"})
    assert (stamped["ref"], record.is_id(stamped["id"])) == ("T-1", True)
    assert record.stamp({"@tag": "task", "id": "T-1", "ref": "old"})["ref"] == "T-1"


@given(strategies.record)
def test_stamp_loses_nothing(rec):
    stamped = record.stamp(rec)
    assert {key: value for key, value in rec.items() if key not in ("id", "ref")}.items() <= stamped.items()
    assert record.stamp(stamped) is stamped or "@tag" not in rec


def test_children_and_history():
    chain, slots = {"@tag": "chain", "seq": 1}, {"@tag": "slots", "@blocks": [{"@tag": "chain"}]}
    assert record.children({"@blocks": [slots, chain, {"@text": "x"}]}, "chain") == [chain]
    assert record.is_history({"@tag": "a", "@blocks": [slots, chain]})
    assert not record.is_history({"@tag": "a", "@blocks": [slots]})
    assert not record.is_history({"@tag": "a"})


@given(st.text(st.characters()))
def test_clean_text_can_be_written_and_keeps_the_rest(words):
    clean = record.clean(words)
    clean.encode()
    assert not record.CONTROLS.search(clean)
    assert record.clean(clean) == clean
    if not record.CONTROLS.search(words) and not any(0xD800 <= ord(c) < 0xE000 for c in words):
        assert clean == words


def test_clean_replaces_each_control_by_one_character():
    assert record.clean("a\x00b\x7f\t\n\r\x1b[0m\ud800") == "a\ufffdb\ufffd\t\n\r\ufffd[0m\ufffd"


@given(strategies.record)
def test_what_is_encoded_is_decoded_the_same(rec):
    line = encode(rec)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    again = decode(line)
    assert again == rec
    assert list(again) == list(rec)
    assert encode(again) == line


@given(strategies.record)
def test_spelling_does_not_matter(rec):
    assert decode(json.dumps(rec, indent=None).encode()) == rec
    assert decode(b"  " + json.dumps(rec, ensure_ascii=False).encode() + b"\r\n") == rec


BAD = {
    b"": "JSON",
    b"nonsense": "JSON",
    b'{"@tag":"a"': "JSON",
    b'{"@tag":"a"} x': "JSON",
    b"[1]": "object",
    b"7": "object",
    b'"x"': "object",
    b"null": "object",
    b"{}": "narrative",
    b'{"a":1}': "narrative",
    b'{"@text":"x","a":1}': "narrative",
    b'{"@text":7}': "narrative",
    b'{"@tag":null}': "narrative",
    b'{"@tag":7}': "'@tag'",
    b'{"@tag":"A"}': "'@tag'",
    b'{"@tag":"a b"}': "'@tag'",
    b'{"@tag":"a\\n"}': "'@tag'",
    b'{"@tag":""}': "'@tag'",
    b'{"@tag":"' + b"a" * 257 + b'"}': "'@tag'",
    b'{"@tag":"a","b":null}': "null",
    b'{"@tag":"a","b":[1,null]}': "null",
    b'{"@tag":"a","b":{}}': "nested object",
    b'{"@tag":"a","b":[{"c":1}]}': "nested object",
    b'{"@tag":"a","b":1,"b":1}': "twice",
    b'{"@tag":"a","b":1,"\\u0062":2}': "twice",
    b'{"@tag":"a","@tag":"b"}': "twice",
    b'{"@tag":"a","@blocks":[{"@tag":"b","c":1,"c":2}]}': "twice",
    b'{"@tag":"a","b":9223372036854775808}': "64 bits",
    b'{"@tag":"a","b":-9223372036854775809}': "64 bits",
    b'{"@tag":"a","b":[18446744073709551616]}': "64 bits",
    b'{"@tag":"a","@blocks":[{"@tag":"b","c":9223372036854775808}]}': "64 bits",
    b'{"@tag":"a","b":1e400}': "infinity",
    b'{"@tag":"a","b":NaN}': "JSON",
    b'{"@tag":"a","b":"\\ud800"}': "",
    b'{"@tag":"a","b":"\xff"}': "",
    b'{"@tag":"a","@x":1}': "unknown key",
    b'{"@tag":"a","b c":1}': "field name",
    b'{"@tag":"a","":1}': "field name",
    b'{"@tag":"a","1":1}': "field name",
    b'{"@tag":"a","b\\n":1}': "field name",
    b'{"@tag":"a","@head":7}': "'@head'",
    b'{"@tag":"a","@text":["x"]}': "'@text'",
    b'{"@tag":"a","@blocks":{}}': "",
    b'{"@tag":"a","@blocks":"x"}': "'@blocks'",
    b'{"@tag":"a","@blocks":[1]}': "'@blocks'",
    b'{"@tag":"a","@blocks":[{"b":1}]}': "narrative",
    b'{"@tag":"a","b":' + b"[" * 65 + b"]" * 65 + b"}": "lists",
    b'{"@tag":"a","b":' + b"[" * 5000 + b"]" * 5000 + b"}": "",
}


@pytest.mark.parametrize("line", BAD, ids=lambda line: line[:50].decode("latin-1"))
def test_what_is_no_record_is_refused_with_its_reason(line):
    with pytest.raises(Malformed) as bad:
        decode(line)
    assert BAD[line] in bad.value.reason


@pytest.mark.parametrize("line", BAD, ids=lambda line: line[:50].decode("latin-1"))
def test_it_is_refused_again_after_a_good_record_of_the_same_shape(line):
    decode(b'{"@tag":"a","b":7}')
    decode(b'{"@tag":"a","b":[1]}')
    decode(b'{"@tag":"a","@blocks":[{"@tag":"b","c":1}]}')
    with pytest.raises(Malformed):
        decode(line)


def test_the_place_of_what_is_no_json_is_told():
    with pytest.raises(Malformed) as bad:
        decode(b'{"@tag": "a", "b": nonsense}')
    assert bad.value.column in (20, 21)


@pytest.mark.parametrize("depth", [200, 300, 900, 2000])
@pytest.mark.parametrize("shape", [(b'{"@tag":"a","x":', b"[", b"]", b"}"), (b'{"@tag":"a"', b',"@blocks":[{"@tag":"b"', b"}]", b"}")])
def test_what_is_nested_too_deep_to_be_written_is_malformed(shape, depth):
    front, opening, closing, end = shape
    with pytest.raises(Malformed):
        decode(front + opening * depth + closing * depth + end)


def test_the_limits_of_depth():
    deep = {"@tag": "a"}
    for _ in range(63):
        deep = {"@tag": "a", "@blocks": [deep]}
    assert decode(encode(deep)) == deep
    with pytest.raises(Malformed, match="blocks in one another"):
        decode(encode({"@tag": "a", "@blocks": [deep]}))
    lists = b'{"@tag":"a","b":' + b"[" * 64 + b"]" * 64 + b"}"
    decode(lists)
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}"), (b'[{"@tag":"a","@blocks":', b"}]")):
        for depth in (300, 900, 5000):
            with pytest.raises(Malformed):
                decode(b'{"@tag":"a","b":' + opening * depth + b"1" + closing * depth + b"}")


def test_the_limits_of_numbers_and_size():
    rec = {"@tag": "a", "b": 2**63 - 1, "c": -(2**63), "d": 0.1, "e": -0.0}
    assert decode(encode(rec)) == rec
    whole = encode({"@tag": "a", "b": "x" * (record.LIMIT - 20)})
    assert len(whole) == record.LIMIT
    decode(whole)
    with pytest.raises(Malformed, match="at most"):
        decode(whole[:-3] + b'x"}\n')


# Any JSON, also what records can't hold, with keys that stand twice.
key = st.sampled_from(["@tag", "@text", "@head", "@blocks", "@x", "a", "b", "a b", ""])
leaf = st.sampled_from(
    [
        "null",
        "true",
        "7",
        "-0",
        "1.5",
        "1e5",
        "1E400",
        "9223372036854775807",
        "9223372036854775808",
        "1e18",
        "123456789012345678901234567890",
        '"x"',
        '"\\ud83d\\ude00"',
    ]
) | st.sampled_from(['"\\ud800"', '"a"', '"task"', '""', '"\\u0041"', "[]", "{}"])


def objects(inner):
    pairs = st.lists(st.tuples(key, inner), max_size=4)
    return pairs.map(lambda found: "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in found) + "}")


tree = st.recursive(leaf, lambda inner: objects(inner) | st.lists(inner, max_size=3).map(lambda items: "[" + ",".join(items) + "]"), max_leaves=8)
line = st.builds(lambda rest: '{"@tag":"a"' + ("," + rest[1:] if len(rest) > 2 else "}"), objects(tree)) | objects(tree)


def allowed(text: str) -> bool:
    """Whether a line is a record, read slowly from ftai(5): an independent second opinion."""

    def pairs(found):
        if len({name for name, _ in found}) < len(found):
            raise ValueError
        return dict(found)

    def value(item, depth=0):
        if isinstance(item, list):
            return depth < 64 and all(value(inner, depth + 1) for inner in item)
        if isinstance(item, str):
            return not any(0xD800 <= ord(c) < 0xE000 for c in item)
        if isinstance(item, bool):
            return True
        if isinstance(item, int):
            return -(2**63) <= item < 2**63
        return isinstance(item, float) and math.isfinite(item)

    def block(rec):
        if not isinstance(rec, dict):
            return False
        if "@tag" not in rec:
            return set(rec) == {"@text"} and isinstance(rec["@text"], str) and value(rec["@text"])
        tag = rec["@tag"]
        if not (isinstance(tag, str) and re.fullmatch(r"[a-z_][a-z0-9_.-]{0,255}", tag)):
            return False
        for name, item in rec.items():
            if name == "@blocks":
                if not (isinstance(item, list) and all(block(inner) for inner in item)):
                    return False
            elif name in ("@head", "@text"):
                if not (isinstance(item, str) and value(item)):
                    return False
            elif name != "@tag" and not (re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", name) and value(item)):
                return False
        return True

    try:
        rec = json.loads(text, object_pairs_hook=pairs)
    except ValueError:
        return False
    return block(rec)


@given(line)
def test_reading_agrees_with_a_second_opinion(text):
    try:
        rec = decode(text.encode())
    except Malformed:
        assert not allowed(text)
    else:
        assert allowed(text)
        assert rec == json.loads(text)
        assert orjson.loads(encode(rec)) == rec


@given(st.binary(max_size=60) | line.map(str.encode).flatmap(lambda whole: st.integers(0, len(whole)).map(lambda cut: whole[:cut])))
def test_no_bytes_crash_the_reader(data):
    try:
        rec = decode(data)
    except Malformed as bad:
        assert bad.reason
    else:
        assert decode(encode(rec)) == rec


@pytest.mark.parametrize("bad", ["\x00", "\x1b", "\x7f", "\x9b", "\x85", "\r", "\n", "\u202e", "\u2066", "\udcff"])
def test_what_is_shown_is_one_line_that_steers_nothing(bad):
    assert record.shown(f"a{bad}b  \tc \u00e9") == "a\ufffdb  \tc \u00e9"
