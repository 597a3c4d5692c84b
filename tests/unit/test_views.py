"""Records as people see them."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serenamaster import views

THREAD = "0199c2f4-7d1e-7a31-9c1b-2f0a5b6c7d8e"


@pytest.fixture(autouse=True)
def zone(monkeypatch):
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    views._times.clear()


def steers(text: str) -> bool:
    return any(unicodedata.category(c) == "Cc" and c not in "\n\t" or c in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069" for c in text)


values = st.recursive(st.one_of(st.text(), st.integers(-(2**63), 2**63 - 1), st.booleans(), st.floats(allow_nan=False)), lambda v: st.lists(v, max_size=3))
keys = st.sampled_from(
    ["id", "ts", "thread", "parent", "from", "agent", "body", "title", "status", "target", "reason", "class", "message", "due", "updates", "n", "ms", "bytes"]
)
tags = st.sampled_from(["command", "route", "attempt", "result", "error", "task", "file", "decision", "audit", "alert", "memory", "note", "partial"])
records = st.builds(lambda tag, fields, text: {"@tag": tag, **fields, "@text": text}, tags, st.dictionaries(keys, values), st.text())


@given(records)
def test_no_record_can_steer_a_terminal_or_make_a_second_line(rec):
    line = views.line(rec)
    assert not steers(line) and "\n" not in line and "\t" not in line
    assert not steers(views.whole(rec | {"@blocks": [rec]}))


@given(st.text(), st.integers(1, 60))
def test_a_cut_text_fits(text, width):
    cut = views.cut(text, width)
    columns = sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in cut)
    assert columns <= max(width, 1)
    assert cut == text or cut.endswith("…")


def test_wide_characters_take_two_columns():
    assert views.cut("日本語", 6) == "日本語"
    assert views.cut("日本語", 5) == "日本…"
    assert views.cut("日本語", 4) == "日…"


@pytest.mark.parametrize(
    ("rec", "expected"),
    [
        ({"@tag": "command", "body": "two\n  lines"}, "two lines"),
        ({"@tag": "route", "target": "skill:task", "reason": "phrase 'x'"}, "-> skill:task: phrase 'x'"),
        ({"@tag": "attempt", "target": "skill:task", "n": 1, "status": "done", "ms": 2}, "skill:task: done, 2 ms"),
        ({"@tag": "attempt", "target": "model:x", "n": 2, "status": "failed", "class": "rate"}, "model:x: failed rate try 2"),
        ({"@tag": "result", "status": "done", "body": "Here."}, "Here."),
        ({"@tag": "result", "status": "asked", "body": "Which one?"}, "asked: Which one?"),
        ({"@tag": "result", "status": "cut"}, "cut"),
        ({"@tag": "error", "class": "input", "message": "no"}, "input: no"),
        ({"@tag": "task", "title": "send", "status": "open", "due": "2026-11-23"}, "send (due 2026-11-23)"),
        ({"@tag": "task", "updates": THREAD, "status": "done"}, "(updates 6c7d8e) done"),
        ({"@tag": "file", "op": "write", "path": "/a", "bytes": 3}, "write: /a, 3 bytes"),
        ({"@tag": "audit", "act": "purge", "subject": "x", "outcome": "done"}, "purge: x: done"),
        ({"@tag": "decision", "decision": "wait", "reasoning": "why"}, "wait: why"),
        ({"@tag": "alert", "level": "high", "rule": "cost", "value": 3}, "high: cost: 3"),
        ({"@tag": "checkpoint", "size": 7, "hash": "ab", "note": "long"}, "signed: seq 7, ab"),
        ({"@tag": "checkpoint", "size": 7, "hash": "ab", "note": "long", "removed": ["1 1 3 cd ef"]}, "signed: seq 7, ab, removed: 1 1 3 cd ef"),
        ({"@text": "prose\nhere"}, "prose here"),
        ({"@tag": "document", "@head": "Morning"}, "Morning"),
        ({"@tag": "x_y", "a": True, "b": ["c", 1]}, "a=true b=c, 1"),
        ({"@tag": "x_y", "@blocks": [{"@tag": "note"}, {"@text": "t"}]}, "@note @text"),
    ],
)
def test_what_a_record_says_on_one_line(rec, expected):
    assert views.gist(rec) == expected


def test_a_line_has_time_thread_who_and_tag():
    rec = {"@tag": "command", "id": THREAD, "ts": "2026-11-22T13:25:00.041Z", "thread": THREAD, "from": "ftai-listen", "body": "hi"}
    assert views.line(rec) == "2026-11-22 13:25  6c7d8e  listen  command  hi"
    assert views.line({"@text": "hi"}) == "                  -       -       text     hi"


@pytest.mark.parametrize("ts", ["yesterday", "2026-99-99T13:25:00.041Z", 5, "", "0001-01-01T00:00:00.000Z", "9999-12-31T23:59:59.999Z"])
def test_a_time_that_is_none_takes_the_same_place(ts):
    assert len(views.local_time(ts)) == 16


def answers(*recs):
    answer = views.Answer()
    return [answer.feed(rec) for rec in recs] + [answer.close()]


ROUTE = {"@tag": "route", "id": "r"}


def test_the_answer_is_what_the_results_say():
    assert answers({"@tag": "command", "body": "x"}, ROUTE, {"@tag": "result", "parent": "r", "body": "Yes."}) == ["", "", "Yes.\n", ""]
    assert answers({"@tag": "result", "parent": "q", "status": "asked", "body": "Which?\n"}) == ["Which?\n", ""]
    assert answers({"@tag": "result", "parent": "q", "status": "failed"}) == ["", ""]


def test_pieces_come_at_once_and_the_result_adds_only_what_is_missing():
    one, two = {"@tag": "partial", "parent": "r", "body": "Hello "}, {"@tag": "partial", "parent": "r", "body": "you"}
    assert answers(ROUTE, one, two, {"@tag": "result", "parent": "r", "body": "Hello you"}) == ["", "Hello ", "you", "\n", ""]
    assert answers(ROUTE, one, {"@tag": "result", "parent": "r", "body": "Hello you"}) == ["", "Hello ", "you\n", ""]
    assert answers(ROUTE, one, two) == ["", "Hello ", "you", "\n"]
    assert answers(ROUTE, one, two, {"@tag": "result", "parent": "r", "status": "cut"}) == ["", "Hello ", "you", "\n", ""]


def test_a_result_that_says_something_else_is_shown_whole():
    piece = {"@tag": "partial", "parent": "r", "body": "Hel"}
    assert "".join(answers(ROUTE, piece, {"@tag": "result", "parent": "r", "body": "Stopped."})) == "Hel\nStopped.\n"


def test_pieces_of_an_attempt_belong_to_its_route():
    attempt = {"@tag": "attempt", "id": "a", "parent": "r"}
    assert "".join(answers(ROUTE, attempt, {"@tag": "partial", "parent": "a", "body": "Hi"}, {"@tag": "result", "parent": "r", "body": "Hi"})) == "Hi\n"


def test_pieces_of_a_command_being_spoken_are_no_answer():
    assert "".join(answers({"@tag": "partial", "body": "remem"}, {"@tag": "partial", "parent": "c", "body": "remember"})) == ""


def test_answers_of_two_routes_at_once_do_not_share_a_line():
    def piece(route, body):
        return {"@tag": "partial", "parent": route, "body": body}

    ended = [{"@tag": "result", "parent": "r", "body": "one"}, {"@tag": "result", "parent": "s", "body": "two"}]
    lines = "".join(answers(ROUTE, {"@tag": "route", "id": "s"}, piece("r", "on"), piece("s", "tw"), *ended)).split("\n")
    assert "one" in lines and "two" in lines


@given(st.lists(st.text(), max_size=6), st.text())
def test_pieces_and_result_print_the_answer_once(pieces, rest):
    body = "".join(pieces) + rest
    stream = [ROUTE, *({"@tag": "partial", "parent": "r", "body": piece} for piece in pieces), {"@tag": "result", "parent": "r", "body": body}]
    shown = "".join(answers(*stream))
    expected = views.plain(body)
    if "\r" not in body:  # a pair of CR and LF may be cut in two
        assert shown == expected + ("" if expected.endswith("\n") or not expected else "\n")


def test_many_open_routes_are_forgotten():
    answer = views.Answer()
    for n in range(5000):
        answer.feed({"@tag": "route", "id": str(n)})
    assert len(answer._open) <= 1000


def test_a_whole_record_is_readable():
    rec = {"@tag": "note", "@head": "Top", "id": "x", "body": "one\ntwo", "list": ["a", "b"], "@blocks": [{"@tag": "slots", "ok": True}, {"@text": "prose"}]}
    assert views.whole(rec) == "note  Top\n  id: x\n  body:\n    one\n    two\n  list: a, b\n  slots\n    ok: true\n  prose\n"
