"""Templates and routes: what is recognised, who is chosen, why, and how private that is."""

import os
import sys
from pathlib import Path

import growth
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serenamaster import paths, phrases, record, routing, specs, state
from serenamaster.errors import Failure

ROOT = Path(__file__).parents[2]
VECTOR = ROOT.parent / "shared" / "vectors" / "chain.ndjson"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FTAI_HOME", str(tmp_path / "ftai"))
    monkeypatch.chdir(tmp_path)
    specs.forget()
    yield tmp_path
    specs.forget()


def own(name: str, body: str) -> None:
    folder = Path(paths.config())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"serenamaster.{name}.ftai").write_text(f"@ftai v2.0\n\n{body}\n")
    specs.forget()


def command(body="what time is it", **fields) -> dict:
    return record.make("command", "t", body=body, **fields)


def route(body="what time is it", **fields) -> dict:
    return routing.route(command(body, **fields), stage="ftai-route")


def slots(made: dict) -> dict:
    return {key: value for block in record.children(made, "slots") for key, value in block.items() if key != "@tag"}


def why_not(made: dict) -> list[tuple]:
    return [(block["target"], block["why_not"]) for block in record.children(made, "alternative")]


# --- templates

MANNERS = phrases.manners(
    [("before", ["please", "could you", "hey serena"]), ("after", ["please", "thank you"]), ("short", ["what's what is", "i'm i am"])]
)


def heard(templates, sentence, lists=None, rules=None, verbatim=()):
    """{template: slots} of what a sentence matches."""
    tongue = phrases.Language(
        {name: [phrases.parse(value) for value in values] for name, values in (lists or {}).items()},
        {name: [phrases.parse(value) for value in values] for name, values in (rules or {}).items()},
        MANNERS,
    )
    automaton = phrases.build([phrases.parse(template) for template in templates], tongue)
    automaton = orjson.loads(orjson.dumps(automaton))
    said = phrases.Sentence(sentence, MANNERS)
    found = phrases.matches(automaton, said, verbatim)
    return {templates[number]: {name: said.text(*span, number in verbatim) for name, *span in taken} for number, taken in found.items()}


@pytest.mark.parametrize(
    ("template", "sentence", "expected"),
    [
        ("[please] turn (on|off) [the] light[s]", "Turn ON the lights!", {}),
        ("[please] turn (on|off) [the] light[s]", "turn off light", {}),
        ("[please] turn (on|off) [the] light[s]", "turn the light", None),
        ("turn[ed] (on)", "turned on", {}),
        ("turn[ it] on", "turn it on", {}),
        ("turn[ it] on", "turnit on", None),
        ("(re|un)(do|did)", "undid", {}),
        ("say {what}", "say  “Hello,\tWorld”  !", {"what": "Hello,\tWorld"}),
        ("say {what}", "say", None),
        ("say {what} twice", "say a b twice c twice", {"what": "a b twice c"}),
        ("{what} is done", "The invoice is done.", {"what": "The invoice"}),
        ("{a} then {b}", "one then two then three", {"a": "one", "b": "two then three"}),
        ("write {text} to {word:path}", "write go to bed to notes.txt", {"text": "go to bed", "path": "notes.txt"}),
        ("write {text} to {word:path}", 'write go to bed to "my notes.txt"', {"text": "go to bed", "path": "my notes.txt"}),
        ("show {file:path}", "show ~/notes", {"path": "~/notes"}),
        ("show {file:path}", "show notes", None),
        ("what is {what}", "What's up?", {"what": "up"}),
        ("what {what}", "what's the plan", {"what": "the plan"}),
        ("what's {what}", "what is up", {"what": "up"}),
        ("what is {what}", "what’s up", {"what": "up"}),
        ("play {what}", "please hey Serena could you play Yesterday, thank you please", {"what": "Yesterday"}),
        ("play {what}", "play please", {"what": "please"}),
        ("please {what}", "please go", {"what": "go"}),
        ("play \\[x\\] {what}", "play x y", {"what": "y"}),
        ("straße {what}", "STRASSE Bär", {"what": "Bär"}),
        ("caf\u00e9", "cafe\u0301", {}),
        ("note {what}", "note - milk", {"what": "- milk"}),
        ("note {what}", "note milk ; eggs !", {"what": "milk ; eggs"}),
        ("a", "", None),
        ("a", "?!", None),
        ("a", "please", None),
    ],
)
def test_a_template_takes_what_it_says_and_slots_keep_the_words(template, sentence, expected):
    assert heard([template], sentence).get(template) == expected


def test_lists_nest_take_digits_and_are_as_long_as_can_be():
    lists = {"when": ["{day} [at {clock}]", "in {n} day[s]", "####-##-##"], "day": ["monday", "tomorrow"], "clock": ["#", "#pm"], "n": ["#", "two"]}
    what = ["do {what} {when}"]
    for sentence, taken in (
        ("do it monday at 5pm", ("it", "monday at 5pm")),
        ("do it in 3 days", ("it", "in 3 days")),
        ("do it in two days please", ("it", "in two days")),
        ("do it tomorrow tomorrow", ("it tomorrow", "tomorrow")),
        ("do it 2026-11-22", ("it", "2026-11-22")),
    ):
        assert heard(what, sentence, lists) == {what[0]: dict(zip(("what", "when"), taken, strict=True))}
    for sentence in ("do it monday at 55pm", "do it in three days", "do it 2026-1-22", "do tomorrow"):
        assert heard(what, sentence, lists) == {}
    assert heard(["x {n:count}"], "x 7", lists) == {"x {n:count}": {"count": "7"}}


def test_words_that_shapes_cover_too_are_not_lost():
    lists = {"n": ["1 a", "# b"]}
    assert [bool(heard(["x {n}"], f"x {said}", lists)) for said in ("1 a", "1 b", "2 b", "2 a")] == [True, True, True, False]


def test_what_is_verbatim_keeps_polite_words_and_marks():
    template = ["remember {what}"]
    assert heard(template, "Remember to say please!", verbatim={0}) == {template[0]: {"what": "to say please!"}}
    assert heard(template, "Remember to say please!") == {template[0]: {"what": "to say"}}
    assert heard(template, "Remember to call, please", verbatim={0}) == {template[0]: {"what": "to call,"}}


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("a (b", "never closed"), ("a b)", "closes nothing"), ("a [b)", "closes nothing"), ("{a", "expected a name"), ("<a b>", "expected a name"),
        ("{}", "expected a name"), ("{a:}", "expected a name"), ("(a;b)", "not supported"), ("a}", "closes nothing"), ("[" * 100, "brackets"),
        ("x " * 3000, "characters"), ("[a]", "no words"), ("<r>", "no expansion"), ("{l:s}", "no list"), ("x{s}", "touches a word"),
        ("(a|b|c|d)" * 9, "spellings"),
    ],
)  # fmt: skip
def test_a_template_that_cannot_be_is_refused(template, said):
    with pytest.raises(Failure, match=said) as caught:
        heard([template], "a")
    assert caught.value.code == 78


def test_expansions_that_grow_without_end_are_refused():
    rules = {f"r{number}": [f"<r{number + 1}> <r{number + 1}>"] for number in range(40)} | {"r40": ["a"]}
    for template, more in (("<r0>", rules), ("<a>", {"a": ["<b>"], "b": ["x <a>"]})):
        with pytest.raises(Failure, match="steps|within itself"):
            heard([template], "a", rules=more)


PART = st.recursive(
    st.sampled_from(["a", "b", "c", "{x}", "{y}"]),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: "(" + "|".join(parts) + ")"),
        inner.map(lambda part: f"[{part}]"),
        st.lists(inner, min_size=1, max_size=3).map(" ".join),
    ),
    max_leaves=8,
)


@given(PART, st.lists(st.sampled_from("abcd"), min_size=1, max_size=6).map(" ".join))
def test_templates_match_what_a_regular_expression_made_of_them_does(template, sentence):
    import re

    def pattern(parsed):
        made = ""
        for _, node in parsed:
            if node[0] == "word":
                made += re.escape(node[1]) + " " if node[1] else ""
            elif node[0] == "slot":
                made += "(?:[a-z] )+"
            else:
                made += "(?:" + "|".join(pattern(branch) for branch in node[1]) + ")"
        return made

    expected = re.fullmatch(pattern(phrases.parse(template)), sentence + " ") is not None
    try:
        seen = bool(heard([template], sentence))
    except Failure as bad:
        assert "no words" in bad.message
        return
    assert seen is expected


def test_hassil_agrees_on_the_shipped_examples():
    hassil = pytest.importorskip("hassil", reason="HASSIL IS MISSING: the templates are not compared with its own matcher")
    from hassil.recognize import recognize_all

    commands = specs.load("commands")
    intents = {entry["name"]: {"data": [{"sentences": entry["say"]}]} for entry in commands["phrase"] if "file:" not in "".join(entry["say"])}
    values = {entry["name"]: {"values": [{"in": value, "out": value} for value in entry["values"]]} for entry in commands["list"]}
    # It knows neither digits as `#` nor lists in lists: only phrases without times can be compared.
    plain = {name: data for name, data in intents.items() if not any("{when}" in say or "{digits" in say for say in data["data"][0]["sentences"])}
    free = {slot: {"wildcard": True} for slot in ("what", "text", "path", "name", "topic", "word")}
    rules = {entry["name"]: "(" + "|".join(entry["say"]) + ")" for entry in commands["expansion"]}
    made = hassil.Intents.from_dict({"language": "en", "intents": plain, "lists": values | free, "expansion_rules": rules})
    table = routing.load()
    compared = 0
    for entry in commands["phrase"]:
        if entry["name"] not in plain:
            continue
        for example in [*entry["match"], *entry["not_match"]]:
            if any(word in example.casefold() for word in ("'", "please")):
                continue  # contractions and polite words are ours
            theirs = {found.intent.name for found in recognize_all(example, made)}
            found = phrases.matches(table.automaton, phrases.Sentence(example, table.manners), table.verbatim)
            ours = {table.entries[number]["name"] for template in found for number in table.templates[template]}
            assert ours & plain.keys() == theirs, example
            compared += 1
    assert compared > 30


@pytest.mark.parametrize(
    "sentence",
    [
        "remember to " + "x " * 50_000, "remember to " + "tomorrow " * 11_000, "note " + "to " * 33_000, "note " + '"a ' * 33_000, "note " + '" ' * 50_000,
        "please " * 15_000, "x" * 100_000, "what's " * 15_000, "in 3 days " * 10_000, "is done " * 12_000, "a.b " * 25_000, "é’ " * 25_000,
    ],
    ids=lambda sentence: sentence[:12],
)  # fmt: skip
def test_time_grows_with_the_words_and_no_faster(sentence):
    table = routing.load()
    growth.linear(lambda text: routing.decide({"@tag": "command", "body": text}, table), sentence[: len(sentence) // 8], sentence)


def test_many_ways_through_free_slots_are_tried_once():
    def steps(times):
        """How many lines of Python run, which no other process can change."""
        count = 0

        def step(_frame, event, _argument):
            nonlocal count
            count += event == "line"
            return step

        before = sys.gettrace()
        sys.settrace(step)
        try:
            assert heard(["{a} then {b} now {c} end"], "x " + "then now " * times + "begin") == {}
        finally:
            sys.settrace(before)
        return count

    # Eight times the words take eight times the steps; were it quadratic, 64 times.
    assert steps(1600) < 10 * steps(200)


# --- routes


@pytest.mark.skipif(not VECTOR.exists(), reason="SHARED VECTORS ARE MISSING: the look of a route is not compared")
def test_the_route_looks_as_the_published_one():
    lines = [orjson.loads(line) for line in VECTOR.read_bytes().splitlines()]
    wanted = lines[1]
    own("config", "".join(f'@model\n  name: "{name}"\n  off: true\n@end\n' for name in ("claude", "gpt")))
    made = routing.route(lines[0], stage="ftai-route")
    assert list(made) == list(wanted)
    loose = ("id", "ts", "specs", "rule_at")
    assert {key: made[key] for key in made if key not in loose} == {key: wanted[key] for key in wanted if key not in loose}
    assert made["rule_at"].startswith("serenamaster.commands.ftai:")
    assert made["specs"] == specs.digest()


@pytest.mark.parametrize(
    ("said", "target", "expected"),
    [
        ("remember to send the invoice tomorrow", "skill:task", {"what": "send the invoice", "when": "tomorrow"}),
        ("Could you please remind me to call Ada next Friday at 5pm, thanks!", "skill:task", {"what": "call Ada", "when": "next Friday at 5pm"}),
        ("remember to enjoy the sun", "skill:task", {"what": "enjoy the sun"}),
        ("remember that I live at No. 5.", "skill:remember", {"what": "I live at No. 5."}),
        ("what did I work on yesterday", "skill:recall", {"when": "yesterday"}),
        ("What did I do since Monday?", "skill:recall", {"when": "since Monday"}),
        ("what do you know about the invoice", "skill:recall", {"what": "the invoice"}),
        ("what's due this week", "skill:tasks", {"when": "this week"}),
        ("list my tasks", "skill:tasks", {}),
        ("I've finished the invoice", "skill:finish", {"what": "invoice"}),
        ("take in /home/a b/c.md", "skill:document", {"path": "/home/a b/c.md"}),
        ("find report.pdf", "skill:find", {"name": "report.pdf"}),
        ("show me the first 5 lines of notes.txt", "skill:head", {"lines": "5", "path": "notes.txt"}),
        ("note milk and bread to shopping.txt", "skill:note", {"text": "milk and bread", "path": "shopping.txt"}),
        ("status", "skill:status", {}),
        ("help me with tasks", "skill:help", {"topic": "tasks"}),
        ("What time is it?", "skill:time", {}),
        ("uptime", "cmd:uptime", {}),
        ("how much did I spend this week", "agent:cfo", {}),
        ("", "ask", {}),
        ("sing me a song", "ask", {}),
    ],
)
def test_who_does_it(said, target, expected):
    made = route(said)
    assert made["target"] == target
    if target.split(":")[0] in ("skill", "cmd"):
        assert slots(made) == expected


def test_the_same_words_lead_to_the_same_route_each_time():
    first, second = (route("rember to by milk") for _ in range(2))
    assert {key: first[key] for key in first if key not in ("id", "ts", "thread", "parent")} == {
        key: second[key] for key in second if key not in ("id", "ts", "thread", "parent")
    }
    assert first["target"] == "ask"
    assert first["hint"]
    assert route()["confidence"] == 1.0
    assert first["confidence"] == 0


def test_hints_are_examples_that_work(monkeypatch):
    made = route("wat did we work on yesterdey")
    assert made["hint"][0] == "what did I work on yesterday"
    assert len(made["hint"]) == 2  # a third is near, and leads to an agent that nobody has made
    assert all(route(hint)["target"] != "ask" for hint in made["hint"])
    assert route("flurbl")["hint"] == ["what can I say"]
    assert route("what can I say")["target"] == "skill:help"
    monkeypatch.setenv("FTAI_HINT", "status")
    monkeypatch.setenv("FTAI_HINTS", "1")
    specs.forget()
    assert route("flurbl")["hint"] == ["status"]
    assert len(route("wat did we work on yesterdey")["hint"]) == 1


def test_confidence_is_that_of_the_rule_times_that_of_the_ear():
    assert route("how much did I spend")["confidence"] == 0.9
    assert route(confidence=0.5)["confidence"] == 0.5
    assert route(confidence=7.0)["confidence"] == 1.0
    rule = '@rule\n  name: "{}"\n  {}\n  target: "{}"\n  reason: "x"\n@end\n\n'
    own("mcp", rule.format("x", 'pattern: "zap"', "model:x") + rule.format("y", 'say: ["zip"]\n  confidence: 0.25', "ask"))
    assert route("a zap")["confidence"] == 0.8
    assert route("zip")["confidence"] == 0.25


def test_order_is_own_then_shipped_then_any():
    rule = '@rule\n  name: "{}"\n  {}\n  target: "{}"\n  reason: "x"\n@end\n\n'
    own("mcp", rule.format("mine", 'pattern: "time"', "model:x") + rule.format("rest", "any: true", "model:y"))
    assert route()["target"] == "model:x"
    assert why_not(route()) == [("skill:time", "order"), ("model:y", "order"), ("model:local", "missing")]
    assert route("status")["target"] == "skill:status"
    assert route("zap")["target"] == "model:y"
    own("commands", '@phrase\n  name: "own"\n  say: ["what time is it"]\n  target: "skill:status"\n@end')
    assert route()["target"] == "skill:status"


def test_named_groups_of_a_pattern_are_slots():
    own("mcp", '@rule\n  name: "x"\n  pattern: "weather in (?P<place>\\\\w+)"\n  target: "mcp:weather.today"\n  reason: "x"\n@end')
    made = route("How is the Weather in Bern?")
    assert (made["target"], slots(made)) == ("mcp:weather.today", {"place": "Bern"})


def test_a_capability_can_be_named_by_the_record():
    assert route("do the sums", capability="money")["target"] == "agent:cfo"
    assert route("do the sums", capability=["money"])["target"] == "ask"


def test_a_deadline_is_a_time():
    own("commands", '@phrase\n  name: "x"\n  say: ["zap"]\n  deadline: 90\n  target: "skill:time"\n@end')
    import datetime

    due = datetime.datetime.fromisoformat(route("zap")["deadline"])
    assert 80 < (due - datetime.datetime.now(datetime.UTC)).total_seconds() < 91


def test_a_task_goes_where_it_says_if_that_exists():
    def task(target):
        return routing.route(record.make("task", "t", title="what time is it", target=target), stage="t")

    assert (task("skill:time")["target"], task("skill:time")["rule"]) == ("skill:time", "task-target")
    assert task("model:x")["target"] == "model:x"
    assert task("mcp:a.b")["target"] == "mcp:a.b"
    assert task("agent:cfo")["target"] == "agent:cfo"
    for wrong in ("skill:nosuch", "cmd:rm", "nobody", "mcp:a", "model:", "", 7):
        made = task(wrong)
        assert made["target"] == "ask", wrong
        assert why_not(made)[0][1] == "off"


@given(st.dictionaries(st.sampled_from(["body", "privacy", "confidence", "capability", "target", "title", "lang"]), st.one_of(
    st.text(max_size=60), st.integers(-3, 3), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.lists(st.text(max_size=3), max_size=2))),
    st.sampled_from(["command", "task"]))  # fmt: skip
def test_any_record_gets_a_route_that_is_a_record(fields, tag):
    made = routing.route(record.make(tag, "t", **fields), stage="t")
    record.decode(record.encode(made))
    assert made["target"]


# --- privacy

CLOUD = '@provider\n  name: "anthropic"\n  kind: "anthropic"\n  privacy: "cloud"\n  summary: "x"\n@end\n\n'
CLOUD += '@model\n  name: "far"\n  provider: "anthropic"\n@end\n'


def test_a_rule_for_the_cloud_takes_only_what_does_not_say_it_is_local():
    own("config", CLOUD)
    own("mcp", '@rule\n  name: "far"\n  pattern: "poem"\n  target: "model:far"\n  privacy: "cloud"\n  reason: "x"\n@end')
    assert (route("a poem")["target"], route("a poem")["privacy"]) == ("model:far", "cloud")
    assert (route("a poem", privacy="cloud")["target"], route("a poem", privacy="cloud")["privacy"]) == ("model:far", "cloud")
    for written in ("local", "secret", "Cloud", "", 1):
        made = route("a poem", privacy=written)
        assert made["target"] == "ask", written
        assert why_not(made)[0] == ("model:far", "privacy")
        assert made["privacy"] != "cloud"
    inside = command("a poem") | {"@blocks": [{"@tag": "document", "body": "x", "privacy": "local"}]}
    assert routing.route(inside, stage="t")["target"] == "ask"


def test_a_target_in_the_cloud_takes_nothing_local():
    own("config", CLOUD)
    own("mcp", '@rule\n  name: "far"\n  pattern: "poem"\n  target: "model:far"\n  reason: "x"\n@end')
    assert route("a poem")["target"] == "ask"
    assert route("a poem", privacy="cloud")["target"] == "model:far"
    # Calling the model local does not bring it here.
    own("config", CLOUD.replace('provider: "anthropic"\n@end', 'provider: "anthropic"\n  privacy: "local"\n@end'))
    assert route("a poem")["target"] == "ask"


def test_who_may_be_asked_in_the_cloud_is_named_once_it_is_agreed_to():
    own("config", CLOUD)
    assert "cloud" not in route("sing me a song")
    state.agree("anthropic")
    made = route("sing me a song")
    assert (made["target"], made["cloud"]) == ("ask", "model:far")
    assert "cloud" not in route("status")


def test_a_rule_may_make_local_and_a_setting_does_not_lift(monkeypatch):
    own("commands", '@phrase\n  name: "x"\n  say: ["zap"]\n  privacy: "local"\n  target: "skill:time"\n@end')
    assert route("zap", privacy="cloud")["privacy"] == "local"
    monkeypatch.setenv("FTAI_PRIVACY", "cloud")
    specs.forget()
    assert route("zap")["privacy"] == "local"
    assert route()["privacy"] == "cloud"
    assert route(privacy="local")["privacy"] == "local"


@given(
    st.sampled_from([None, "cloud", "local", "secret", ""]), st.sampled_from([None, "cloud", "local"]), st.sampled_from(["local", "cloud"]),
    st.sampled_from([None, "cloud", "local"]), st.booleans(), st.booleans(),
)  # fmt: skip
def test_what_says_it_is_local_is_never_routed_to_the_cloud(written, ruled, default, nested, kept, far):
    entry = {"name": "r", "target": "model:x", "at": "f:1", "reason": "x", "any": True, "how": "any"}
    entry |= ({"privacy": ruled} if ruled else {}) | ({"kept": "p:1"} if kept else {})
    data = {"automaton": {"states": [[{}, [], [], []]], "lists": {}}, "manners": MANNERS, "entries": [entry], "templates": [], "texts": [], "verbatim": []}
    table = routing.Table(data | {"examples": [], "notes": [], "targets": {"model:x": ["", "", "cloud" if far else "local"]}}, "0")
    table.privacy = default
    rec = {"@tag": "command", "body": "x"} | ({} if written is None else {"privacy": written})
    if nested:
        rec["@blocks"] = [{"@tag": "document", "privacy": nested}]
    made = routing.decide(rec, table)
    local = written not in (None, "cloud") or nested == "local" or kept
    if local:
        assert made["privacy"] != "cloud"
        # Not even where nobody knows that the target is in the cloud.
        assert ruled != "cloud" or made["target"] == "ask"
    if far and made["target"] == "model:x":
        assert made["privacy"] == "cloud"
        assert not local
        assert ruled == "cloud" or written == "cloud" or default == "cloud"


# --- --rules, specs records, streams


def test_rules_of_a_file_stand_where_the_owners_would(home):
    own("mcp", '@rule\n  name: "mine"\n  pattern: "zap"\n  target: "model:mine"\n  reason: "x"\n@end')
    own("commands", '@phrase\n  name: "zip"\n  say: ["zip"]\n  target: "skill:time"\n@end')
    path = home / "try.ftai"
    path.write_text('@ftai v2.0\n\n@rule\n  name: "tried"\n  say: ["wham {what}"]\n  target: "model:tried"\n  reason: "x"\n@end\n')
    table = routing.load(str(path))

    def target(body):
        return routing.decide(command(body), table)["target"]

    assert [target(body) for body in ("zap", "wham it", "zip", "status")] == ["ask", "model:tried", "skill:time", "skill:status"]
    assert table.digest != specs.digest()
    assert "tried" in routing.announce(command(), stage="t", table=table)["body"]
    assert routing.decide(command("wham it"), table)["rule_at"] == f"{path}:3"
    both = path.read_text() + '\n@phrase\n  name: "zop"\n  say: ["zop"]\n  target: "skill:nosuch"\n@end\n'
    path.write_text(both)
    with pytest.raises(Failure, match=f"{path}:13: .*nosuch"):
        routing.load(str(path))
    for text, code in (("@ftai v2.0\n", 78), ("@ftai v2.0\n@nosuch\n  name: \"x\"\n@end\n", 78)):
        path.write_text(text)
        with pytest.raises(Failure) as caught:
            routing.load(str(path))
        assert caught.value.code == code
    with pytest.raises(Failure) as caught:
        routing.load(str(home / "missing"))
    assert caught.value.code == 66


def test_specs_are_told_once_and_not_when_they_are_journaled():
    asked = command()
    told = routing.announce(asked, stage="ftai-route")
    assert (told["@tag"], told["digest"], told["body"], told["parent"]) == ("specs", specs.digest(), specs.source_text(), asked["id"])
    assert routing.announce(asked, stage="ftai-route") is None
    specs.forget()
    assert routing.announce(asked, stage="ftai-route") is not None
    specs.forget()
    folder = os.path.join(paths.state(), "specs")
    os.mkdir(folder)
    Path(folder, specs.digest()).touch()
    assert routing.announce(asked, stage="ftai-route") is None


def test_what_is_due():
    watch = routing.Watch()
    first = command()
    assert watch.due(first)
    assert not watch.due(first)
    assert not watch.due(command() | {"@blocks": [{"@tag": "chain", "seq": 1}]})
    assert not watch.due(record.make("task", "t", title="x"))
    assert watch.due(record.make("task", "t", title="x", target="skill:time"))
    assert not watch.due(record.make("task", "t", title="x", target="skill:time", status="done"))
    spoken = command(provisional=True)
    assert not watch.due(spoken)
    assert watch.due(command(updates=spoken["id"]))
    assert not watch.due(command(updates=first["id"]))
    routed = command()
    watch.look([(routing.route(routed, stage="t"), b"")])
    assert not watch.due(routed)
    assert watch.due({"@tag": "command", "id": "T-1", "body": "x"})
    assert watch.due({"@tag": "command", "body": "x"})


def test_memory_of_a_stream_is_bounded():
    watch = routing.Watch()
    for _ in range(5 * routing.KEPT):
        watch.due({"@tag": "command", "id": record.new_id(), "body": "x"})
    assert sum(map(len, watch.routed)) <= 2 * routing.KEPT + 1


def test_ahead_gives_the_next_batch_only_where_it_is_there():
    short, long, other = [(command(), b"x")], [(command(), b"x" * routing.ATOMIC)], [({"@tag": "note"}, b"x" * routing.ATOMIC)]
    asked = []

    def ready(patient):
        asked.append(patient)
        return len(asked) != 2

    assert list(routing.ahead([short, long, other], ready)) == [(short, long), (long, ()), (other, ())]
    assert asked == [False, True, False]
    asked.clear()
    list(routing.ahead([long, *[short] * 5], ready))
    assert asked == [True, True, True, True, False, False]

    def broken():
        yield short
        raise Failure("x", 74)

    seen = []
    with pytest.raises(Failure):
        for batch, _ in routing.ahead(broken(), lambda _: True):
            seen.append(batch)
    assert seen == [short]


def test_what_is_explained_can_neither_steer_a_terminal_nor_add_a_line():
    said = command("note that a\x9b2Jb\u202ec\rd\nforged")
    text = routing.explain(said, routing.decide(said, routing.load()))
    assert not set(text) & set("\x9b\u202e\r")
    assert len([line for line in text.split("\n") if line.startswith("forged")]) == 0
    assert "a\ufffd2Jb\ufffdc\ufffdd forged" in text


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("note that I need to file taxes", "I need to file taxes"),
        ("note I need to file taxes", "I need to file taxes"),
        ("note that the report is in file cabinets", "the report is in file cabinets"),
        ("note the report is in the file cabinet", "the report is in the file cabinet"),
        ("make a note that we sent it to acme.com", "we sent it to acme.com"),
        ("make a note saying we sent it to acme.com.", "we sent it to acme.com."),
        ("note that the rate went from 2.5 to 3.5", "the rate went from 2.5 to 3.5"),
        ("note that the list is in list.txt", "the list is in list.txt"),
    ],
)
def test_a_note_that_names_no_file_to_write_to_is_kept_whole(said, text):
    made = route(said)
    assert (made["target"], slots(made)) == ("skill:note", {"text": text})


@pytest.mark.parametrize("path", ["shopping.txt", "~/shopping", "/tmp/list", "./list.md", "the file shopping", "file shopping.md"])
def test_a_note_goes_to_the_file_that_it_names(path):
    assert slots(route(f"note milk to {path}")) == {"text": "milk", "path": path.removeprefix("the ").removeprefix("file ")}


def test_hints_lead_to_skills_and_programs_only():
    table = routing.load()
    others = [example for number, example in table.examples if not table.entries[number]["target"].startswith(("skill:", "cmd:"))]
    assert others
    for example in others:
        for hint in routing.nearest(example, table):
            assert hint not in others
            assert route(hint)["target"].startswith(("skill:", "cmd:")), hint


# --- rules on the past


def past(*pairs):
    """A page of the journal: commands with their routes, each a dict of what is other than usual."""
    page = []
    for command, route in pairs:
        said = record.make("command", "ftai-listen", **{"body": "how is the weather"} | command)
        page.append((len(page) + 1, said))
        if route is not None:
            usual = {"target": "ask", "rule": "nothing-matches", "privacy": "local"}
            page.append((len(page) + 1, record.make("route", "ftai-route", parent=said, **usual | route)))
    return page


def outcomes(pages, table):
    return [(kind, words) for _, rec, kind, words in routing.replayed(pages, table) if rec is not None]


WEATHER = '@ftai v2.0\n@rule\n  name: "tried"\n  pattern: "weather"\n  target: "skill:status"\n  reason: "x"\n@end\n'


def test_replayed_tells_what_would_be_other(tmp_path):
    rules = tmp_path / "try.ftai"
    rules.write_text(WEATHER)
    table = routing.load(str(rules))
    page = past(({}, {}), ({"body": "what time is it"}, {"target": "skill:time", "rule": "time"}), ({}, {"target": "skill:status", "rule": "tried"}))
    page += past(({"privacy": "cloud"}, {"target": "skill:status", "rule": "tried"}), ({}, None))
    page += past(({"body": "[withheld:7]"}, {}), ({}, {"target": "[sealed:x:y]"}))
    page += [(99, {"@tag": "task", "id": "x", "title": "mine"}), (100, {"@tag": "command", "id": "y", "body": "part", "provisional": True})]
    assert outcomes([page], table) == [
        ("changed", "ask -> skill:status, rule nothing-matches -> tried"), ("same", ""), ("same", ""), ("changed", "privacy local -> cloud"),
        ("unread", ""), ("unread", ""), ("unrouted", ""),
    ]  # fmt: skip


def test_replayed_holds_no_more_than_it_must(tmp_path, monkeypatch):
    monkeypatch.setattr(routing, "PENDING", 3)
    table = routing.load()
    pages = [past(*[({}, None)] * 10), [], past(*[({}, {})] * 2)]
    assert [kind for kind, _ in outcomes(iter(pages), table)] == ["unrouted"] * 8 + ["same"] * 2 + ["unrouted"] * 2


def test_who_could_not_be_had_then_is_no_change():
    own("config", '@consent\n  name: "anthropic"\n  summary: "x"\n@end\n@consent\n  name: "openai"\n  summary: "x"\n@end')
    fields = 'pattern: "weather"\n  target: "model:claude"\n  fallback: "model:gpt"\n  privacy: "cloud"\n  reason: "x"'
    own("mcp", f'@rule\n  name: "tried"\n  {fields}\n@end')
    table, well = routing.load(), routing.untroubled()
    said = command("how is the weather")
    before = {"@tag": "route", "target": "model:gpt", "rule": "tried", "privacy": "cloud"}

    def otherwise(why):
        blocks = [{"@tag": "alternative", "target": "model:claude", "why_not": why}]
        return routing.changed(said, before | {"@blocks": blocks}, table, well)

    assert [otherwise(why) for why in ("breaker", "offline", "rate", "budget")] == [""] * 4
    assert otherwise("order") == "model:gpt -> model:claude"
    # What is known of them today is nobody's concern.
    from serenamaster import limits

    for _ in range(3):
        limits.bad("anthropic/claude-sonnet-5-5/-", "network", "no answer")
    assert routing.decide(said, table)["target"] == "model:gpt"
    assert otherwise("order") == "model:gpt -> model:claude"
