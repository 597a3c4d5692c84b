"""The story of a decision: what a record goes back to, the rule as it stood then, what happened, and nothing that can steer a terminal."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serenamaster import record, why
from strategies import record as any_record

SPECS = """// shipped/serenamaster.mcp.ftai
@ftai v2.0

@rule
  name: "other"
  target: "ask"
@end
// user/serenamaster.mcp.ftai
@ftai v2.0
// shipped/serenamaster.mcp.ftai
@rule
  name: "drafts"
  target: "model:a"
@end

// rules/try.ftai
@rule
  name: tried
  target: "ask"
@end
"""


def thread(*more):
    """A command, its route, a try that failed, its error, the router's decision, another try, and the result; then what `more` makes of the route."""
    asked = record.make("command", "ftai-listen", body="draft a reminder", via="text", privacy="cloud")
    block = {"@tag": "alternative", "target": "model:b", "why_not": "order", "reason": "is asked later"}
    block |= {"breaker": "closed", "estimate": 0.25, "price_row": "p 1"}
    held = {"rule": "drafts", "rule_at": "user/serenamaster.mcp.ftai:3", "specs": "0123456789ab", "reason": "models draft", "confidence": 0.8}
    held |= {"fallback": ["model:b"], "breaker": "half until 2026-11-26T12:00:00.000Z", "budget": ["few: 1 of 2 calls a day"], "blocks": [block]}
    route = record.make("route", "ftai-route", parent=asked, target="model:a", **held)
    one = record.make("attempt", "ftai-exec", parent=route, target="model:a", n=1, status="failed", class_="rate", ms=12)
    error = record.make("error", "ftai-exec", parent=one, class_="rate", message="slow down", recovery="fallback", next="model:b")
    not_a = {"@tag": "alternative", "target": "model:a", "why_not": "rate", "reason": "slow down"}
    turned = record.make("decision", "ftai-exec", parent=route, agent="router", decision="model:b", reasoning="slow down", blocks=[not_a])
    counts = {"input_tokens": 5, "cached_tokens": 0, "output_tokens": 7, "cost": 0.001, "currency": "USD", "price_row": "user/prices:3"}
    two = record.make("attempt", "ftai-exec", parent=route, target="model:b", n=1, status="done", ms=34, model="b-1", **counts)
    result = record.make("result", "ftai-exec", parent=route, target="model:a", status="done", ms=50, body="Dear Ada")
    return [asked, route, one, error, turned, two, result, *(make(route) for make in more)]


def story(records, own=None):
    found = why.subject(records, own or records[0]["id"])
    assert found is not None
    return why.told(*found, records, lambda digest: SPECS if digest == "0123456789ab" else None)


def test_the_whole_story_in_its_order():
    said = story(thread())
    parts = [
        "command ", "draft a reminder", "via text, privacy cloud", "-> model:a", "because: models draft",
        "rule: drafts  user/serenamaster.mcp.ftai:3  specs 0123456789ab",
        '    @rule\n      name: "drafts"\n      target: "model:a"\n    @end\n', "confidence: 0.8",
        "fallback: model:b", "breaker: half until", "budget: few: 1 of 2 calls a day",
        "not model:b  order: is asked later\n      breaker closed, estimate 0.25, price_row p 1",
        "try 1 of model:a: failed (rate), 12 ms",
        "error rate: slow down", "recovery fallback, next model:b", "router decides: model:b", "because: slow down", "not model:a  rate: slow down",
        "try 1 of model:b: done, 34 ms",
        "b-1, 5 input tokens, 0 cached tokens, 7 output tokens, cost 0.001 USD, price user/prices:3", "result done, 50 ms: Dear Ada",
    ]  # fmt: skip
    places = [said.find(part) for part in parts]
    assert -1 not in places, parts[places.index(-1)]
    assert places == sorted(places)
    assert "no result" not in said


@pytest.mark.parametrize("place", range(7))
def test_every_record_of_it_leads_to_the_same_story(place):
    records = thread()
    assert story(records, records[place]["id"]) == story(records)


def test_each_route_tells_its_own():
    records = thread()
    other = record.make("route", "ftai-route", parent=records[0], target="ask", reason="again")
    end = record.make("result", "ftai-exec", parent=other, target="ask", status="asked", body="What?")
    records += [other, end]
    assert why.subject(records, records[0]["id"])[1] == [records[1], other]
    assert why.subject(records, end["id"])[1] == [other]
    assert "Dear Ada" not in story(records, end["id"])
    assert "rule: none" in story(records, end["id"])


def test_an_error_whose_parent_is_nowhere_is_of_the_route_before_it():
    lost = lambda route: record.make("error", "ftai-exec", parent=route, class_="network", message="gone", recovery="queue") | {"parent": record.new_id()}  # noqa: E731
    records = thread(lost)
    records = [rec for rec in records if rec["@tag"] != "result"]
    assert why.subject(records, records[-1]["id"]) == (records[0], [records[1]])
    said = story(records)
    assert "error network: gone" in said
    assert f"no result: it waits in the queue: ftai-queue show {records[1]['id']}" in said


def test_who_nobody_decided_about():
    rec = record.make("checkpoint", "ftai-log")
    assert why.subject([rec], rec["id"]) is None
    asked = record.make("command", "ftai-listen", body="hello")
    assert why.subject([asked], asked["id"]) == (asked, [])
    assert "no route: nobody decided about it" in story([asked])
    mine = record.make("task", "ftai-listen", title="call Ada")
    assert why.subject([mine], mine["id"]) is None
    # A route whose command was purged is told all the same.
    route = record.make("route", "ftai-route", parent=asked, target="ask")
    assert story([route], route["id"]).startswith("the journal does not hold what was asked\n-> ask")
    # Parents in a circle are no way out.
    one, two = record.make("note", "x"), record.make("note", "x")
    assert why.subject([one | {"parent": two["id"]}, two | {"parent": one["id"]}], one["id"]) is None


def test_the_rule_as_it_stood_then():
    assert why.entry(SPECS, "user/serenamaster.mcp.ftai:3", "drafts")[1] == '  name: "drafts"'
    assert why.entry(SPECS, "serenamaster.mcp.ftai:3", "other")[1] == '  name: "other"'
    assert why.entry(SPECS, "/tmp/x/try.ftai:1", "tried")[1] == "  name: tried"
    # A line of a spec that looks like a head between two does not mislead, as long as no rule of that name stands there.
    for at, name in (("user/serenamaster.mcp.ftai:3", "other"), ("user/serenamaster.mcp.ftai:4", "drafts"), ("gone.ftai:3", "drafts"), ("x", "y"), ("", "")):
        assert why.entry(SPECS, at, name) == []
    for text, at, name in ((None, "a:1", "b"), (SPECS, None, "b"), (SPECS, "a:1", None), (SPECS, "user/serenamaster.mcp.ftai:99999999999", "drafts")):
        assert why.entry(text, at, name) == []
    said = why.told(None, [thread()[1]], [], lambda _: None)
    assert "the journal does not hold the specs of that time" in said
    assert "are sealed" in why.told(None, [thread()[1]], [], lambda _: "[sealed:x:y]")
    assert "not at that line" in why.told(None, [thread()[1]], [], lambda _: "// nothing\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [("[sealed:" + "a" * 43 + ":" + "b" * 40 + "]", "are sealed"), ("[withheld:7]", "are withheld"),
     ("[damaged]", "are damaged"), ("my [redacted:key]", "redacted")]
)  # fmt: skip
def test_texts_that_are_not_there_are_told(text, said):
    records = thread()
    assert said not in story(records)
    assert said in story([records[0] | {"body": text}, *records[1:]])
    assert said in story([*records[:-1], records[-1] | {"body": text}])


def test_times_are_told_from_the_route_on():
    records = thread()
    records[1]["ts"], records[2]["ts"], records[3]["ts"] = "2026-11-26T12:00:00.000Z", "2026-11-26T12:00:01.500Z", "2026-11-26T13:00:00.000Z"
    records[6]["ts"] = "never"
    said = story(records)
    assert re.search(r"^ +\+1\.500 s  try 1", said, re.M)
    assert re.search(r"^ +\+3600 s  error", said, re.M)
    assert re.search(r"^ {14}result", said, re.M)


STEERED = "\x1b[31m\u202e\x9b\x07\r\nforged: line\u2066"


def test_nothing_steers_a_terminal():
    def soiled(value):
        if type(value) is str and not record.is_id(value):
            return value + STEERED
        if type(value) is list:
            return [soiled(inner) for inner in value]
        if type(value) is not dict:
            return value
        return {key if key[0] == "@" else key + STEERED: inner if key[0] == "@" and key != "@blocks" else soiled(inner) for key, inner in value.items()}

    records = [{key: soiled(value) if key not in ("@tag", "id", "parent", "thread", "ts") else value for key, value in rec.items()} for rec in thread()]
    text = why.told(records[0], [records[1]], records, lambda _: SPECS.replace("model:a", "model:a" + STEERED))
    clean, route, *_ = thread()
    rule = why.told(clean, [route], [], lambda _: SPECS.replace('"model:a"', '"model:a' + STEERED))
    assert 'target: "model:a\ufffd' in rule
    text += rule + why.others(records[0], [*records, records[0] | {"id": "x"}])
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    assert not re.search("^forged", text, re.M)


TAGS = ("command", "route", "attempt", "error", "decision", "result", "audit", "task", "specs", "memory")
ids = st.sampled_from(["a", "b", "c", None, 7, ["a"]])
ours = st.builds(lambda rec, tag, own, parent: rec | {"@tag": tag, "id": own, "parent": parent}, any_record, st.sampled_from(TAGS), ids, ids)


@given(st.lists(ours, max_size=8))
def test_no_record_is_a_bug(records):
    for rec in records:
        found = why.subject(records, rec["id"]) if type(rec["id"]) is str else None
        if found:
            why.told(*found, records, lambda _: SPECS)
    for rec in records:
        text = why.told(rec, [rec], records, lambda _, rec=rec: rec.get("body"))
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)


@pytest.mark.parametrize(
    ("word", "is_end"),
    [("0199c2f4-7d1e-7a31-9c1b-2f0a5b6c7d8e", True), ("6C7D8E", True), ("c7d8e", False), ("%_______", False), ("zzzzzz", False), ("", False)]
)  # fmt: skip
def test_what_may_be_an_id(word, is_end):
    assert why.is_end(word) is is_end
