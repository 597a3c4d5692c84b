"""Models: who is asked, what it is told, and the policy for failures, against servers to rehearse with (vendor.py). Privacy: test_models_privacy.py."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import asking
import pytest
import vendor as rehearsal
from asking import Run, drain, end, entry, later, only, pair
from hypothesis import given
from hypothesis import strategies as st
from serenamaster import acting, execution, limits, models, paths, prices, record, routing, secret, specs, state, waiting
from serenamaster.errors import Failure


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FTAI_HOME", str(tmp_path / "ftai"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(models, "FIRST_S", 0.002)
    for name in ("DBUS_SESSION_BUS_ADDRESS", "PYTHON_KEYRING_BACKEND", "FTAI_PASSPHRASE_FD"):
        monkeypatch.delenv(name, raising=False)
    specs.forget()
    yield tmp_path
    specs.forget()


@pytest.fixture(scope="module")
def servers():
    # The first call would take longer for them than others may take in all.
    import anthropic  # noqa: F401
    import openai  # noqa: F401

    with rehearsal.Process() as far, rehearsal.Process() as other, rehearsal.Process() as near:
        yield far, other, near


class There:
    """The three servers, and specs that name them; both clouds are agreed to."""

    def __init__(self, servers):
        self.far, self.other, self.near = servers
        self.all = servers
        for server in servers:
            server.control(reset=True, key=None)
        self.config()
        asking.agree()

    def config(self, **how):
        asking.config(*(server.url for server in self.all), **how)

    @property
    def counts(self):
        """How many answers each server was asked for."""
        return [len(asking.bodies(server.state())) for server in self.all]


@pytest.fixture
def there(servers):
    return There(servers)


def said(records, tag, *fields):
    return [tuple(rec.get(field) for field in fields) if len(fields) > 1 else rec.get(fields[0]) for rec in only(records, tag)]


def hang_up(server):
    server.control(script="hang*")


class Stop(execution.Stop):
    """As it is, without the handlers: threads of a test can't have them."""

    def __init__(self):
        self.number, self.waiting = 0, False


class Over(Stop):
    """The time of a call is over once its server has the request, however long that takes."""

    def __init__(self, server):
        super().__init__()
        self.server = server

    def wait(self, function, *args):
        if function.__name__ == "take" and function.__self__.provider["url"] == self.server.url:
            self.server.wait(requests=1)
            function.__self__.end = time.monotonic()
        return super().wait(function, *args)


# -- who could answer


def test_who_could_answer(there):
    there.config(
        changes={"home": {"privacy": "local"}, "small": {"privacy": "local"}},
        more=entry("model", name="out", provider="near", privacy="cloud", summary="x")
        + entry("model", name="lost", provider="gone", summary="x")
        + entry("provider", name="gone", kind="openai", summary="x", off=True),
    )
    assert [models.candidate(name).reach for name in ("big", "small", "home", "out")] == ["cloud", "cloud", "local", "cloud"]
    assert models.candidate("big").target == "model:big"
    assert models.candidate("claude")[:2] == ("off", "the model 'claude' is turned off")
    assert models.candidate("nobody")[:2] == ("missing", "the model 'nobody' is not set up")
    assert models.candidate("lost")[:2] == ("off", "the provider 'gone' is turned off")


def test_the_models_of_a_route_in_order(there):
    assert models.line("model:big") == ["big", "other", "home"]
    assert models.line("model:small") == ["small"]
    assert models.line("model:big", ["model:small", "model:big", "skill:x", 7]) == ["big", "small"]
    assert models.line("model:*") == ["big", "small", "other", "home"]
    assert models.line("model:home", ["model:*"]) == ["home", "big", "small", "other"]
    assert models.line("model:nobody") == ["nobody"]


@pytest.mark.parametrize("fallback", [7, "model:home", {"a": 1}, [None], [["model:home"]]])
def test_a_route_may_hold_anything_as_fallback(there, fallback):
    made = Run()(*pair("model:small", route={"fallback": fallback}), log=False)
    assert end(made)["status"] == "done"


def test_plan_says_who_would_be_asked_and_asks_nobody(there):
    assert Run().plan(*pair()) == ["would do ask: model:big, else model:other, else model:home"]
    assert Run().plan(*pair(command={"privacy": "local"})) == ["would do ask: model:home"]
    (said,) = Run().plan(*pair("model:small", command={"privacy": "local"}))
    assert said == "would not do 'model:small': 'model:small' may take this off the machine, and it is local"
    assert there.counts == [0, 0, 0]


# -- what it is told


def talk(*turns, privacy="cloud"):
    """Records of a thread: (question, answer or None, privacy of each)."""
    made = []
    for ask, answer, *own in turns:
        one, two = (own * 2)[:2] if own else (privacy, privacy)
        asked, routed = pair(body=ask, command={"privacy": one})
        made += [asked, routed]
        if answer is not None:
            made.append(record.make("result", "ftai-exec", parent=routed, status="done", body=answer) | {"privacy": two})
    for rec in made:
        if rec.get("privacy", "") is None:
            del rec["privacy"]
    return made


def told(records, command=None, cloud=True, default="local"):
    messages, used = models.history(records, command or pair()[0], cloud, default)
    assert [rec["body"] for rec in used] == [message["text"] for message in messages]
    assert [message["role"] for message in messages] == ["user", "assistant"] * (len(messages) // 2)
    return [message["text"] for message in messages]


JOURNAL = "0199c2f4-7d1e-7a31-9c1b-2f0a5b6c7d8"


@pytest.mark.parametrize(
    ("first", "planted", "kept"),
    [
        (None, f"{JOURNAL}e 5", False),
        (None, "ab" * 32, False),
        (f"{JOURNAL}e 5", f"{JOURNAL}e 7", True),
        (f"{JOURNAL}e 5", f"{JOURNAL}f 7", False),
        (f"{JOURNAL}e 5", "ab" * 32, False),
        ("ab" * 32, "ab" * 32, True),
        ("ab" * 32, "cd" * 32, False),
        ("odd", 7, False),
        (7, 7, True),
    ],
)
def test_what_was_imported_is_part_of_a_conversation_that_was_so_as_a_whole(first, planted, kept):
    def came(name, where):
        return {"@tag": "command", "id": name, "thread": "one"} | ({} if where is None else {"origin": where})

    records = [came("one", first), came("two", None), came("three", planted), came("four", None)]
    assert [rec["id"] for rec in models.conversation(records, "one")] == ["one", "two", *["three"] * kept, "four"]
    # Its beginning is gone, or anybody could have known its name before it was there.
    assert [rec["id"] for rec in models.conversation(records, "name") if "origin" in rec] == []
    assert [rec["id"] for rec in models.conversation(records[2:], "one")] == ["four"]
    assert models.conversation([], "one") == []


def test_history_is_pairs():
    records = talk(("one", "1"), ("two", None), ("three", "3"), ("four", "  "), ("", "5"))
    assert told(records) == ["one", "1", "three", "3"]
    failed = record.make("result", "x", parent=records[3], status="failed", body="no")
    assert told([*records, failed]) == ["one", "1", "three", "3"]


def test_only_what_is_cloud_with_all_its_blocks_is_told_to_a_cloud():
    records = talk(("one", "1"), ("two", "2", "local"), ("three", "3", "cloud", "local"), ("four", "4", None), ("five", "5", "cloudy"), ("six", "6"))
    records[-3] = records[-3] | {"@blocks": [{"@tag": "document", "@blocks": [{"@tag": "part", "privacy": "local"}]}]}
    assert told(records) == ["one", "1"]
    assert told(records, default="cloud") == ["one", "1", "four", "4"]
    assert told(records, cloud=False)[::2] == ["one", "two", "three", "four", "five", "six"]


def test_what_came_after_the_question_is_not_told_but_a_late_answer_is():
    first, second, third = talk(("one", "1")), talk(("two", "2")), talk(("three", "3"))
    command = second[0]
    assert told([*first, *second, *third], command) == ["one", "1"]
    # The first waited in the queue, and was answered when the second was asked already.
    assert told([*first[:2], *second[:2], first[2]], command) == ["one", "1"]
    assert told([*first[:2], *second, *third[:2], first[2]], third[0]) == ["one", "1", "two", "2"]


def test_what_cannot_be_opened_is_not_told():
    assert told(talk(("one", "[sealed:1:AA=="), ("[sealed:1:AA==", "2"), ("three", "3")), cloud=False) == ["three", "3"]


TEXT = st.text(st.sampled_from("aé€𝄞 "), max_size=60)


@given(system=TEXT, turns=st.lists(st.tuples(TEXT, TEXT), max_size=8), words=TEXT, window=st.integers(1, 400), output=st.integers(1, 500))
def test_cut_keeps_system_and_question_and_the_newest_that_fit(system, turns, words, window, output):
    before = [{"role": role, "text": text} for turn in turns for role, text in zip(("user", "assistant"), turn, strict=True)]
    model = {"window": window, "output": output}
    made = models.cut(system, before, words, model)
    room = window - models.most(model)
    need = models.tokens(system) + models.tokens(words)
    if made is None:
        assert need > room
        return
    head = [{"role": "system", "text": system}] if system else []
    assert made[: len(head)] == head
    assert made[-1] == {"role": "user", "text": words}
    middle = made[len(head) : -1]
    assert middle == before[len(before) - len(middle) :]
    assert len(middle) % 2 == 0
    used = need + sum(models.tokens(message["text"]) for message in middle)
    assert used <= room
    if len(middle) < len(before):
        assert used + sum(models.tokens(message["text"]) for message in before[len(before) - len(middle) - 2 :][:2]) > room


@given(st.integers(1, 40))
def test_pause_doubles_up_to_eight_seconds_with_jitter(n):
    first = 0.5
    models.FIRST_S, kept = first, models.FIRST_S
    try:
        back = models.pause(n)
    finally:
        models.FIRST_S = kept
    whole = min(8, first * 2 ** (n - 1))
    assert 0.75 * whole <= back <= 1.25 * whole


@given(st.integers(1, 3), st.floats(-5, 1000))
def test_what_the_provider_asks_for_is_waited_for_as_it_says(n, after):
    assert models.pause(n, after) == max(after, 0)


def test_jitter_is_by_chance():
    assert len({models.pause(1) for _ in range(20)}) > 15


def test_documents_are_asked_about():
    block = {"@tag": "document", "title": "page.md", "body": "the text"}
    asked = pair(body="summarise")[0] | {"@blocks": [block, {"@tag": "note", "body": "not this"}]}
    assert models.asked(asked) == "summarise\n\n<document title='page.md'>\nthe text\n</document>"
    assert models.asked({"@tag": "task", "title": "a", "body": "b"}) == "a\nb"
    with pytest.raises(Failure) as bad:
        models.asked(asked | {"@blocks": [block | {"body": None}]})
    assert bad.value.code == 65


def test_a_model_is_told_system_part_conversation_and_question(there):
    there.config(changes={"big": {"system": "be brief"}})
    first = pair(body="one")
    Run()(*first)
    second = pair(body="two", thread=first[0]["thread"])
    there.far.control(reset=True)
    assert end(Run()(*second))["body"] == "You said: two"
    (request,) = there.far.state()["requests"]
    assert request["body"]["system"][0]["text"] == "be brief"
    texts = [(part["role"], part["content"][0]["text"]) for part in request["body"]["messages"]]
    assert texts == [("user", "one"), ("assistant", "You said: one"), ("user", "two")]


def test_the_conversation_is_cut_to_the_window(there):
    there.config(changes={"small": {"window": 400, "output": 20}})
    first = pair("model:small", body="a" * 300)
    Run()(*first)
    thread = first[0]["thread"]
    Run()(*pair("model:small", body="b" * 60, thread=thread))
    there.far.control(reset=True)
    assert end(Run()(*pair("model:small", body="c" * 300, thread=thread)))["status"] == "done"
    (said,) = asking.bodies(there.far.state())
    assert "aaa" not in said
    assert "bbb" in said
    assert specs.setting("system")[:20] in said


def test_what_goes_to_a_cloud_is_redacted_and_what_stays_is_not(there):
    secret_ = "".join(("gh", "p_", "A1b2" * 9))
    Run()(*pair(body=f"what is {secret_}"))
    assert secret_ not in str(there.far.state())
    assert "[redacted:" in str(there.far.state())
    Run()(*pair("model:home", body=f"what is {secret_}"))
    assert secret_ in str(there.near.state())


# -- what --simulate may say


@pytest.mark.parametrize(
    ("words", "want"),
    [
        ("far=429:Retry-After=30", {"far": ("429", "rate", 429, 30.0)}),
        ("far=503", {"far": ("503", "network", 503, None)}),
        ("far=down, other=ok", {"far": ("down", "network", 0, None), "other": ("ok", "", 0, None)}),
        ("far=401,near=400", {"far": ("401", "credential", 401, None), "near": ("400", "request", 400, None)}),
        ("other=418", {"other": ("418", "unknown", 418, None)}),
        ("", {}),
    ],
)
def test_rehearsed(there, words, want):
    assert models.rehearsed(words) == want


@pytest.mark.parametrize("words", ["x", "far", "nobody=429", "far=200", "far=600", "far=429:x=1", "far=429:Retry-After", "far=429:Retry-After=²", "far=²²²"])
def test_rehearsed_refuses_what_says_nothing(there, words):
    with pytest.raises(Failure) as bad:
        models.rehearsed(words)
    assert bad.value.code == 2


# -- how a candidate stands, for the router


def test_standing(there):
    command = pair()[0]
    assert models.standing("big", command) == {"target": "model:big", "why_not": "", "reason": "", "estimate": None, "known": {"breaker": "closed"}}
    assert models.standing("big", command, priced=True)["estimate"] > models.standing("other", command, priced=True)["estimate"] > 0
    assert models.standing("home", command, priced=True)["estimate"] == 0
    assert models.standing("small", command, priced=True)["known"]["price_row"] == "unpriced"
    assert models.standing("claude", command)["why_not"] == "off"
    assert models.standing("nobody", command)["why_not"] == "missing"
    state.withdraw("far")
    assert models.standing("big", command)["why_not"] == "consent"
    assert models.standing("home", command)["why_not"] == ""


def test_standing_knows_an_open_breaker_without_the_key(there):
    there.far.control(script="503*3")
    Run()(*pair("model:big"))
    seen = models.standing("big", pair()[0])
    assert seen["why_not"] == "breaker"
    assert seen["known"]["breaker"].startswith("open until 20")
    # By model, not by provider.
    assert models.standing("small", pair()[0])["why_not"] == ""


def test_standing_knows_that_it_is_offline_for_thirty_seconds(there):
    limits.seen("far", False, "no route")
    assert models.standing("big", pair()[0])["why_not"] == "offline"
    later(31)
    assert models.standing("big", pair()[0])["why_not"] == ""


def test_standing_knows_rate_and_budget(there):
    limits.hold("far", 300)
    assert models.standing("big", pair()[0])["why_not"] == "rate"
    there.config(more=entry("budget", name="few", value=1, unit="calls", per="day", model="other"))
    Run()(*pair("model:other"))
    seen = models.standing("other", pair()[0])
    assert (seen["why_not"], seen["known"]["budget"]) == ("budget", ["few: 1 of 1 calls a day"])


# -- the policy: transient


PASSING = {"408": "timeout", "429": "rate"} | dict.fromkeys(("409", "500", "503", "529", "garbage", "reset", "cut:after=0"), "network")


@pytest.mark.parametrize(("fault", "kind"), PASSING.items())
def test_what_passes_is_tried_twice_more_and_then_the_next_is_asked(there, fault, kind):
    there.far.control(script=f"{fault}*3")
    run = Run()
    made = run(*pair(command={"stream": fault.startswith("cut")}))
    assert there.counts == [3, 1, 0]
    assert said(made, "attempt", "target", "n", "status", "class") == [
        ("model:big", 1, "failed", kind), ("model:big", 2, "failed", kind), ("model:big", 3, "failed", kind), ("model:other", 1, "done", None),
    ]  # fmt: skip
    assert said(made, "error", "class", "recovery", "next", "where") == [
        (kind, "retry", None, "model:big"), (kind, "retry", None, "model:big"), (kind, "fallback", "model:other", "model:big"),
    ]  # fmt: skip
    attempts = [rec["id"] for rec in only(made, "attempt")]
    assert said(made, "error", "parent") == attempts[:3]
    turned = only(made, "decision")[-1]
    assert (turned["agent"], turned["decision"]) == ("router", "model:other")
    code = "offline" if not fault.isdigit() else kind
    assert [(block["target"], block["why_not"]) for block in turned["@blocks"]] == [("model:big", code)]
    assert end(made) | {"status": "done", "body": "You said: what is it", "target": "model:big"} == end(made)
    assert run.codes == []


def test_what_passes_in_time_is_answered_by_the_same(there):
    there.far.control(script="503,429:retry-ms=5,ok")
    made = Run()(*pair())
    assert there.counts == [3, 0, 0]
    assert said(made, "attempt", "n", "status", "model") == [(1, "failed", None), (2, "failed", None), (3, "done", "big-1-20260101")]
    # The same words and the same key of idempotency each time.
    requests = there.far.state()["requests"]
    assert len({str(request["body"]) for request in requests}) == 1
    assert {request["headers"]["idempotency-key"] for request in requests} == {made[1]["id"]}


def test_back_off_is_waited_for(there, monkeypatch):
    monkeypatch.setattr(models, "FIRST_S", 0.2)
    there.far.control(script="503*2")
    Run()(*pair())
    first, second, third = (request["ts"] for request in there.far.state()["requests"])
    assert second - first >= 0.15
    assert third - second >= 0.3


@pytest.mark.parametrize(("header", "least"), [("retry-after=1", 1.0), ("retry-ms=300", 0.3), ("retry-date=2", 0.9)])
def test_retry_after_is_honoured(there, header, least):
    there.far.control(script=f"429:{header},ok")
    assert end(Run()(*pair()))["status"] == "done"
    first, second = (request["ts"] for request in there.far.state()["requests"])
    assert second - first >= least


def test_the_last_retry_after_counts(there):
    there.far.control(script="429:retry-ms=1,503,429:retry-after=50")
    made = Run()(*pair("model:small"))
    (item,) = waiting.items()
    assert item.not_before >= record.now()
    assert waiting.after(40) <= item.not_before <= waiting.after(50)
    assert said(made, "error", "recovery") == ["retry", "retry", "none", "queue"]


def test_a_longer_retry_after_is_for_the_next(there):
    there.far.control(script="429:retry-after=61")
    made = Run()(*pair())
    assert there.counts == [1, 1, 0]
    assert said(made, "error", "class", "recovery", "next") == [("rate", "fallback", "model:other")]
    # It holds for all models of that provider, and all processes.
    made = Run()(*pair("model:small"))
    assert there.counts == [1, 1, 0]
    (item,) = waiting.items()
    assert waiting.after(50) <= item.not_before <= waiting.after(61)


def test_without_a_next_it_is_queued_until_then_and_answered_in_its_thread(there):
    there.far.control(script="429:retry-after=300")
    run = Run()
    asked, routed = pair("model:small", command={"priority": 7}, route={"deadline": "2999-01-01T00:00:00Z"})
    made = run(asked, routed)
    assert run.codes == [75]
    assert not only(made, "result")
    assert said(made, "audit", "act", "outcome")[-2:] == [("queue", "intended"), ("queue", "queued")]
    assert only(made, "error")[-1] | {"class": "rate", "recovery": "queue", "next": "ftai-queue drain"} == only(made, "error")[-1]
    (item,) = waiting.items()
    assert (item.route, item.thread, item.priority, item.privacy, item.key) == (routed["id"], asked["thread"], 7, "cloud", routed["id"])
    assert item.deadline == "2999-01-01T00:00:00.000Z"
    assert waiting.after(290) <= item.not_before <= waiting.after(300)
    assert drain() == []
    # Nothing does it twice.
    again = Run(again=True)
    assert again(asked, routed) == [asked, routed]
    assert again.codes == [75]
    waiting.retry(item)
    later(301)
    made = drain()
    assert end(made) | {"thread": asked["thread"], "parent": routed["id"], "status": "done", "body": "You said: what is it"} == end(made)
    assert waiting.items() == []
    assert there.far.state()["requests"][-1]["headers"]["idempotency-key"] == routed["id"]


# -- the policy: what is not tried again


@pytest.mark.parametrize("status", ["401", "402", "403"])
def test_a_credential_is_not_tried_again_opens_the_breaker_and_alerts(there, status):
    there.far.control(script=f"{status}*")
    made = Run()(*pair())
    assert there.counts == [1, 1, 0]
    assert said(made, "error", "class", "recovery", "next") == [("credential", "fallback", "model:other")]
    (alert,) = only(made, "alert")
    assert alert | {"rule": "credential", "level": "error", "subject": "far", "value": int(status)} == alert
    assert end(made)["status"] == "done"
    # At once, and for the next process too.
    Run()(*pair())
    assert there.counts == [1, 2, 0]
    assert limits.breaker("far/big-1/-").state == "open"


def test_a_wrong_key_says_what_to_type(there):
    there.config(changes={"far": {"key": "far"}}, more=entry("key", name="far", summary="x", readers=["ftai-exec"]))
    secret.write("far", "sk-wrong-0123456789", store="file")
    there.far.control(key="sk-right-0123456789")
    run = Run()
    made = run(*pair("model:small"))
    assert there.counts == [1, 0, 0]
    (bad,) = run.failures
    assert (bad.code, bad.hint) == (69, "ftai-keys set far")
    assert "sk-wrong" not in str(made) + bad.message
    assert said(made, "error", "class", "recovery", "next") == [("credential", "none", "ftai-keys set far")]
    assert end(made)["status"] == "failed"
    # The right one has a breaker of its own.
    secret.write("far", "sk-right-0123456789", store="file")
    made = Run()(*pair("model:small"))
    assert end(made)["status"] == "done"
    assert ("key-read", "far", "done") in said(made, "audit", "act", "subject", "outcome")


def test_no_key_says_what_to_type_and_the_next_is_asked(there):
    there.config(changes={"far": {"key": "far"}}, more=entry("key", name="far", summary="x", readers=["ftai-exec"]))
    run = Run()
    made = run(*pair("model:small"))
    (bad,) = run.failures
    assert (bad.code, bad.hint) == (69, "ftai-keys set far")
    assert bad.message.startswith("'model:small': no key 'far': ")
    (error,) = only(made, "error")
    assert error | {"class": "credential", "parent": made[1]["id"], "next": "ftai-keys set far"} == error
    assert there.counts == [0, 0, 0]
    run = Run()
    made = run(*pair())
    assert (end(made)["status"], run.codes, there.counts) == ("done", [], [0, 1, 0])
    assert only(made, "decision")[0]["@blocks"][0]["why_not"] == "key"


@pytest.mark.parametrize("status", ["400", "404", "413", "422"])
def test_a_request_that_is_refused_is_refused_by_all(there, status):
    there.far.control(script=status)
    run = Run()
    made = run(*pair())
    assert there.counts == [1, 0, 0]
    assert said(made, "error", "class", "recovery") == [("request", "none")]
    assert end(made)["status"] == "failed"
    assert run.codes == [1]
    assert limits.breaker("far/big-1/-").state == "closed"


def test_what_is_too_long_goes_to_a_longer_one_alone(there):
    there.far.control(script="context*2")
    made = Run()(*pair())
    assert there.counts == [1, 0, 0]
    assert said(made, "error", "class", "recovery") == [("request", "none")]
    assert end(made)["status"] == "failed"
    made = Run()(*pair("model:small", route={"fallback": ["model:other", "model:home"]}))
    assert said(made, "error", "class", "recovery", "next") == [("request", "fallback", "model:other")]
    assert there.counts == [2, 1, 0]
    assert end(made)["status"] == "done"


def test_what_has_no_room_is_not_even_sent(there):
    made = Run()(*pair("model:small", body="word " * 6000, route={"fallback": ["model:other", "model:big"]}))
    assert there.counts == [1, 0, 0]
    assert there.far.state()["requests"][0]["body"]["model"] == "big-1"
    assert end(made)["status"] == "done"
    run = Run()
    made = run(*pair("model:small", body="word " * 6000))
    assert said(made, "error", "class", "parent") == [("request", made[1]["id"])]
    assert run.codes == [1]


@pytest.mark.parametrize(("fault", "target", "counts"), [("filter", "other", [0, 1, 0]), ("refusal", "big", [1, 0, 0])])
def test_a_refusal_goes_to_nobody_else(there, fault, target, counts):
    (there.other if target == "other" else there.far).control(script=fault)
    run = Run()
    made = run(*pair(f"model:{target}", route={"fallback": ["model:home"]}))
    assert there.counts == counts
    assert said(made, "error", "class", "recovery") == [("policy", "none")]
    assert (end(made)["status"], run.codes) == ("refused", [77])


def test_a_refusal_goes_to_those_that_the_model_names(there):
    there.config(changes={"big": {"refused": ["home"]}})
    there.far.control(script="refusal")
    made = Run()(*pair())
    assert there.counts == [1, 0, 1]
    assert said(made, "error", "recovery", "next") == [("fallback", "model:home")]
    assert end(made)["status"] == "done"


@pytest.mark.parametrize("status", ["418", "451", "418*2"])
def test_what_nobody_knows_fails_loudly(there, status):
    there.far.control(script=status)
    run = Run()
    made = run(*pair())
    assert there.counts == [1, 0, 0]
    assert said(made, "error", "class", "recovery") == [("bug", "none")]
    assert end(made)["status"] == "failed"
    assert run.codes == [70]


@pytest.mark.parametrize("fault", ["empty", "utf8", "wrong", "broken"])
def test_an_answer_that_is_none_goes_to_the_next(there, fault):
    there.far.control(script=f"{fault}*3")
    made = Run()(*pair(command={"stream": fault != "utf8"}))
    assert there.counts == [1 if fault == "empty" else 3, 1, 0] or fault == "utf8"
    assert end(made)["status"] == "done"


def test_what_is_not_set_up_goes_to_the_next(there, monkeypatch):
    monkeypatch.setitem(sys.modules, "anthropic", None)
    made = Run()(*pair())
    assert said(made, "attempt", "target", "status", "class") == [("model:big", "failed", "spec"), ("model:other", "done", None)]
    run = Run()
    made = run(*pair("model:small"))
    assert (run.codes, run.failures[0].hint) == ([69], "pip install anthropic")
    assert said(made, "audit", "act", "outcome") == [("ask", "intended"), ("ask", "failed")]
    # Nothing was sent, so nothing is spent.
    assert limits.spent({"unit": "calls", "per": "day", "provider": "far"}) == 0


def test_an_unknown_model(there):
    run = Run()
    made = run(*pair("model:nobody"))
    assert run.codes == [69]
    assert said(made, "error", "class", "message", "parent") == [("spec", "the model 'nobody' is not set up", made[1]["id"])]
    assert end(made)["status"] == "failed"
    run = Run()
    made = run(*pair("model:claude"))
    assert (run.codes, end(made)["status"]) == ([77], "refused")
    # What stands behind it in the route is asked.
    made = Run()(*pair("model:nobody", route={"fallback": ["model:home"]}))
    assert (end(made)["status"], there.counts) == ("done", [0, 0, 1])
    assert only(made, "decision")[0]["decision"] == "model:home"


# -- streams


def test_a_stream_comes_in_pieces_and_the_result_has_the_whole(there):
    there.far.control(script=[{"fault": "ok", "text": "one two three", "pieces": 3}])
    made = Run()(*pair(command={"stream": True}))
    parts = only(made, "partial")
    assert [rec["n"] for rec in parts] == list(range(1, len(parts) + 1))
    assert len(parts) > 1
    assert "".join(rec["body"] for rec in parts) == end(made)["body"] == "one two three"
    assert {rec["parent"] for rec in parts} == {made[1]["id"]}


def events(*texts):
    """A stream of Anthropic's, as it is: what no JSON can hold becomes bytes that are no UTF-8."""
    head = {"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "model": "big-1", "content": [], "usage": {}}}
    made = [head, *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}} for text in texts)]
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n" for event in made)


@pytest.mark.parametrize("fault", ["cut", "fault", "eof", "raw"])
def test_after_the_first_shown_byte_nobody_else_is_asked(there, fault):
    there.far.control(script=[{"fault": fault, "after": 2, "text": "You said one two three", "body": events("You said", "\ud800"), "times": 0}])
    run = Run()
    made = run(*pair(command={"stream": True}))
    assert there.counts == [1, 0, 0]
    shown = "".join(rec["body"] for rec in only(made, "partial"))
    assert shown.startswith("You said")
    assert said(made, "error", "class", "recovery") == [("network", "none")]
    assert end(made)["status"] == "failed"
    assert end(made)["body"].startswith(f"{shown}\n[the answer ends here: ")
    assert run.codes == [1]


def test_what_nobody_was_shown_may_be_asked_again(there):
    there.far.control(script="cut:after=3*2")
    made = Run()(*pair())
    assert there.counts == [3, 0, 0]
    assert end(made)["status"] == "done"


# -- deadlines


def test_the_deadline_of_a_provider(there):
    there.config(changes={"far": {"deadline": 1}})
    hang_up(there.far)
    begun = time.monotonic()
    made = Run()(*pair())
    assert time.monotonic() - begun < 50
    assert said(made, "attempt", "target", "status", "class") == [("model:big", "failed", "timeout"), ("model:other", "done", None)]
    # What has not gone out within that second never does.
    there.far.wait(closed=there.far.state()["counts"]["requests"])


def test_the_deadline_of_the_record(there):
    hang_up(there.far)
    run = Run()
    made = run(*pair("model:small", route={"deadline": waiting.after(5)}))
    assert said(made, "attempt", "status", "class") == [("failed", "timeout")]
    # Its provider would have had 120.
    assert only(made, "attempt")[0]["ms"] < 100_000
    # There is no time left for which it could be queued.
    assert waiting.items() == []
    assert (end(made)["status"], run.codes) == ("failed", [75])
    assert end(made)["body"].startswith("It was to be done before ")
    run = Run()
    made = run(*pair(route={"deadline": waiting.after(-1)}))
    assert (end(made)["status"], run.codes, there.counts) == ("failed", [75], [1, 0, 0])


def test_what_does_not_fit_into_the_deadline_is_not_waited_for(there):
    there.config(changes={"far": {"deadline": 15}})
    there.far.control(script="429:retry-after=20")
    made = Run()(*pair("model:small"))
    assert there.counts == [1, 0, 0]
    assert said(made, "error", "recovery") == ["none", "queue"]
    (item,) = waiting.items()
    assert waiting.after(10) <= item.not_before <= waiting.after(20)


def test_a_hanging_call_is_no_reason_to_wait_longer_than_the_queue_needs(there):
    there.config(changes={"far": {"deadline": 1}})
    hang_up(there.far)
    made = Run()(*pair("model:small"))
    assert said(made, "error", "class", "recovery") == [("timeout", "none"), ("timeout", "queue")]
    there.config()
    there.far.control(script="")
    assert end(drain())["status"] == "done"


# -- breakers, for one target too


def test_a_breaker_holds_for_a_single_target(there):
    there.far.control(script="503*4")
    made = Run()(*pair("model:small"))
    assert said(made, "decision", "decision")[-1].startswith("far/small-1 is left alone until ")
    for _ in range(3):
        run = Run()
        made = run(*pair("model:small"))
        assert (only(made, "attempt"), run.codes) == ([], [75])
    assert there.counts == [3, 0, 0]
    until = limits.breaker("far/small-1/-").until
    first, *others = (item.not_before for item in waiting.items())
    assert (first, len(others)) == (None, 3)
    assert all(until <= other < waiting.after(61) for other in others)
    # Half open: one probe, which fails, so it is left alone for twice as long.
    later(61)
    Run()(*pair("model:small"))
    assert there.counts == [4, 0, 0]
    later(61)
    Run()(*pair("model:small"))
    assert there.counts == [4, 0, 0]
    later(60)
    assert end(Run()(*pair("model:small")))["status"] == "done"
    assert limits.breaker("far/small-1/-").state == "closed"


def test_a_clock_that_was_set_back_opens_no_breaker_for_ever(there):
    there.far.control(script="503*3")
    Run()(*pair("model:small"))
    limits.hold("far", 600)
    later(-5000)
    assert end(Run()(*pair("model:small")))["status"] == "done"


def test_what_was_reached_and_refused_is_not_looked_for(there):
    there.far.control(script="429:retry-ms=1*3")
    Run()(*pair("model:small"))
    later(100)
    made = Run()(*pair("model:small"))
    assert said(made, "audit", "act") == ["ask", "ask"]
    assert {request["method"] for request in there.far.state()["requests"]} == {"POST"}


def test_only_answers_that_never_came_make_a_provider_offline(there):
    there.far.control(script="503")
    made = Run()(*pair("model:small"))
    assert end(made)["status"] == "done"
    assert only(made, "decision") == []
    assert limits.net("far")[0] is True


# -- rates


def test_a_short_wait_for_the_rate_is_waited(there):
    there.far.control(script=[{"fault": "ok", "requests-left": 0, "reset": 1}])
    Run()(*pair("model:small"))
    assert end(Run()(*pair("model:small")))["status"] == "done"
    first, second = (request["ts"] for request in there.far.state()["requests"])
    assert second - first >= 0.9


def test_a_wait_longer_than_the_deadline_is_queued(there):
    there.config(changes={"far": {"requests": 1, "deadline": 15}})
    assert end(Run()(*pair("model:small")))["status"] == "done"
    run = Run()
    made = run(*pair("model:small"))
    assert (there.counts, run.codes) == ([1, 0, 0], [75])
    assert said(made, "error", "class", "recovery") == [("rate", "queue")]
    (item,) = waiting.items()
    assert waiting.after(30) <= item.not_before <= waiting.after(62)
    # Another takes it where there is one.
    assert end(Run()(*pair()))["status"] == "done"
    assert there.counts == [1, 1, 0]


# -- budgets


@pytest.mark.parametrize(("over", "counts", "status"), [("cheaper", [1, 1, 0], "done"), ("local", [1, 0, 1], "done"), ("stop", [1, 0, 0], "refused")])
def test_over_budget(there, over, counts, status):
    there.config(more=entry("budget", name="few", value=1, unit="calls", per="day", provider="far", over=over))
    Run()(*pair())
    run = Run()
    made = run(*pair())
    assert there.counts == counts
    assert end(made)["status"] == status
    if over == "stop":
        assert run.codes == [77]
        assert said(made, "error", "class", "message", "parent") == [("policy", "the budget 'few' of 1 calls a day would be overrun", made[1]["id"])]
    else:
        assert [block["why_not"] for block in only(made, "decision")[0]["@blocks"]] == ["budget"]


def test_over_budget_the_cheaper_is_no_dearer_one(there):
    there.config(more=entry("budget", name="few", value=0, unit="calls", per="day", provider="other"))
    run = Run()
    made = run(*pair("model:other", route={"fallback": ["model:small", "model:big"]}))
    assert (there.counts, end(made)["status"], run.codes) == ([0, 0, 0], "refused", [77])
    made = Run()(*pair("model:other", route={"fallback": ["model:big", "model:home"]}))
    assert there.counts == [0, 0, 1]


def test_what_was_reserved_is_settled_with_what_it_cost(there):
    budget = {"name": "money", "value": 1, "unit": "USD", "per": "month"}
    there.config(more=entry("budget", **budget))
    there.far.control(script=[{"fault": "ok", "output": 10, "cached": 0}])
    (attempt,) = only(Run()(*pair()), "attempt")
    assert attempt["cost"] == round((attempt["input_tokens"] + 10 * 10) / 1e6, 9)
    assert (attempt["currency"], attempt["price_row"].rpartition(":")[0]) == ("USD", "user/serenamaster.prices.ftai")
    assert limits.spent(budget) == attempt["cost"]
    # Nobody knows what another model costs: it is not asked where money counts.
    run = Run()
    Run()(*pair("model:home"))
    run(*pair("model:small"))
    assert (there.counts, run.codes) == ([1, 0, 1], [77])


def test_the_largest_possible_is_reserved_before(there):
    seen = []
    budget = {"name": "money", "value": 1, "unit": "USD", "per": "day"}
    with rehearsal.Vendor() as vendor:
        asking.config(vendor.url, there.other.url, there.near.url, more=entry("budget", **budget))
        answer = vendor.next
        vendor.next = lambda which: (seen.append(limits.spent(budget)), answer(which))[1]
        (attempt,) = only(Run()(*pair()), "attempt")
    assert seen[0] > attempt["cost"] == limits.spent(budget)


@pytest.mark.parametrize(("script", "counts_in_full"), [("503*3", False), ("hang", True), ("cut:after=0*3", True), ("empty", False)])
def test_what_nobody_knows_the_cost_of_counts_in_full(there, script, counts_in_full):
    budget = {"name": "money", "value": 1, "unit": "USD", "per": "day"}
    there.config(changes={"big": {"fallback": ["home"]}}, more=entry("budget", **budget))
    there.far.control(script=script)
    made = Run(stop=Over(there.far) if script == "hang" else None)(*pair(command={"stream": "cut" in script}))
    assert end(made)["status"] == "done"
    # Fifty tokens of an answer at the least.
    assert (limits.spent(budget) > 0.0005) is counts_in_full
    assert all("cost" not in rec for rec in only(made, "attempt") if rec["status"] == "failed") or script == "empty"


def test_cost_is_unpriced_where_nobody_knows_and_nothing_where_it_is_local(there):
    there.far.control(script=[{"fault": "ok", "model": "dreamt-up"}])
    (attempt,) = only(Run()(*pair()), "attempt")
    assert "cost" not in attempt
    assert "price_row" not in attempt
    (attempt,) = only(Run()(*pair("model:home")), "attempt")
    assert (attempt["cost"], attempt["price_row"]) == (0, "local")


# -- long answers


def test_an_answer_of_50_mb_goes_into_a_file(there):
    there.far.control(script=[{"fault": "ok", "size": 50}])
    kept = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    made = Run()(*pair())
    path = os.path.join(paths.data(), "answers", f"{only(made, 'attempt')[0]['id']}.txt")
    size = os.path.getsize(path)
    assert size == 50 * 65536 * 16
    assert end(made)["body"] == f"The answer has {size} bytes and is in '{path}'."
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert said(made, "file", "op", "path", "bytes") == [("write", path, size)]
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - kept) < 500_000


def test_a_long_answer_that_is_not_to_be_kept_is_cut(there):
    there.far.control(script=[{"fault": "ok", "size": 20}])
    made = Run()(*pair(command={"log": "fact"}), log=False)
    assert not os.path.exists(os.path.join(paths.data(), "answers"))
    assert len(record.encode(end(made))) < 16 << 20
    assert end(made)["body"].endswith(f"[cut here: the answer has {20 * 65536 * 16} bytes, and --no-log keeps it out of a file]")


def test_hidden_words_stand_nowhere(there):
    there.far.control(script=[{"fault": "503", "message": "I do not like the word Xylophon", "times": 3}])
    run = Run()
    made = run(*pair("model:small", body="Xylophon", command={"log": "fact"}))
    assert (end(made)["status"], limits.breaker("far/small-1/-").reason) == ("failed", "'far': it answered with 503")
    assert "Xylophon" not in str(run.failures)
    assert {rec.get("log") for rec in made[2:]} == {"fact"}
    for folder, _, names in os.walk(os.environ["FTAI_HOME"]):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                assert b"Xylophon" not in file.read(), name
    later(100)
    there.far.control(script="429:retry-after=90")
    run = Run()
    made = run(*pair("model:small", body="Xylophon", command={"log": "fact"}))
    assert (run.codes, waiting.items(), end(made)["status"]) == ([75], [], "failed")


def test_what_a_provider_quotes_stays_in_its_thread(there):
    there.far.control(script=[{"fault": "503", "message": "I do not like the word Xylophon", "times": 3}])
    made = Run()(*pair("model:small", body="Xylophon"))
    assert "Xylophon" in only(made, "error")[0]["message"]
    # The next one is told why it has to wait, and not what the first was about.
    later = Run()(*pair("model:small", body="another"))
    assert "it answered with 503" in only(later, "error")[-1]["message"]
    assert "Xylophon" not in str(later)


# -- consent and privacy: see also test_models_privacy.py


def test_without_consent_nothing_is_sent(there):
    state.withdraw("far")
    run = Run()
    made = run(*pair("model:small"))
    assert (run.codes, end(made)["status"], there.counts) == ([77], "refused", [0, 0, 0])
    assert run.failures[0].hint == "ftai-keys consent grant 'far'"
    assert said(made, "error", "class") == ["policy"]
    assert said(made, "audit", "act") == []
    made = Run()(*pair())
    assert there.counts == [0, 1, 0]
    assert only(made, "decision")[0]["@blocks"][0]["why_not"] == "consent"


def test_consent_that_is_withdrawn_while_it_waits(there):
    there.far.control(script="429:retry-after=70")
    asked, routed = pair("model:small")
    Run()(asked, routed)
    state.withdraw("far")
    waiting.retry(waiting.items()[0])
    later(100)
    made = drain()
    assert end(made) | {"status": "refused", "parent": routed["id"], "thread": asked["thread"]} == end(made)
    assert (there.counts, waiting.items()) == ([1, 0, 0], [])


def test_consent_that_is_withdrawn_between_two_tries(there):
    with rehearsal.Vendor(given="429:retry-ms=1,ok") as vendor:
        asking.config(vendor.url, there.other.url, there.near.url)
        answer = vendor.next
        vendor.next = lambda which: (state.withdraw("far"), answer(which))[1]
        run = Run()
        made = run(*pair("model:small"))
        assert (len(vendor.requests), end(made)["status"], run.codes) == (1, "refused", [77])


def test_specs_that_change_while_the_queue_is_full(there):
    there.far.control(script="429:retry-after=70")
    routes = [pair("model:small", body=body)[::-1] for body in ("one", "two", "three")]
    for routed, asked in routes:
        Run()(asked, routed)
    assert len(waiting.items()) == 3
    # The model is another one now, and what it had done is done by it.
    there.config(changes={"small": {"id": "small-2", "provider": "other"}})
    for item in waiting.items():
        waiting.retry(item)
    made = drain()
    assert [rec["body"] for rec in only(made, "result")] == ["You said: one", "You said: two", "You said: three"]
    assert {request["body"]["model"] for request in there.other.state()["requests"]} == {"small-2"}


def test_a_model_that_is_gone_when_it_is_its_turn(there):
    there.far.control(script="429:retry-after=70")
    Run()(*pair("model:small"))
    there.config(changes={"small": {"off": True, "provider": None}})
    waiting.retry(waiting.items()[0])
    made = drain()
    assert end(made)["status"] == "refused"
    assert end(made)["body"] == "The model 'small' is turned off."


# -- the network


def test_going_offline_and_coming_back_are_decisions(there):
    with rehearsal.Process() as gone:
        asking.config(gone.url, there.other.url, there.near.url)
        assert end(Run()(*pair()))["status"] == "done"
    made = Run()(*pair())
    assert end(made)["status"] == "done"
    assert said(made, "attempt", "target", "class") == [("model:big", "network")] * 3 + [("model:other", None)]
    assert "far is offline" in said(made, "decision", "decision")
    assert {rec["agent"] for rec in only(made, "decision")} == {"router"}
    # Known to all for 30 s: nobody tries, another model of it neither.
    run = Run()
    made = run(*pair("model:small"))
    assert (only(made, "attempt"), run.codes) == ([], [75])
    # Then it is looked at again; and what holds is that.
    later(31)
    made = Run()(*pair("model:small"))
    assert said(made, "audit", "act", "outcome")[:2] == [("probe", "intended"), ("probe", "failed")]
    assert limits.net("far")[0] is False
    assert only(made, "decision") == []
    later(31)
    there.config()
    made = Run()(*pair("model:small"))
    assert said(made, "decision", "decision") == ["far is back"]
    assert end(made)["status"] == "done"


@pytest.mark.parametrize("target", ["model:big", "model:small"])
def test_a_server_that_dies_in_the_middle(there, target):
    with rehearsal.Process("hang*") as dying:
        asking.config(dying.url, there.other.url, there.near.url)
        thread = threading.Thread(target=lambda: (dying.wait(requests=1), dying.child.kill()))
        thread.start()
        run = Run()
        begun = time.monotonic()
        made = run(*pair(target))
        thread.join()
    assert time.monotonic() - begun < 100
    if target == "model:big":
        assert (end(made)["status"], there.counts) == ("done", [0, 1, 0])
    else:
        assert run.codes == [75]
        assert len(waiting.items()) == 1
    assert "far is offline" in said(made, "decision", "decision")


# -- intent, signals, storage


def test_the_intent_is_in_the_journal_before_the_request(there):
    """The server itself looks, when a request arrives."""
    found = []
    with rehearsal.Vendor() as vendor:
        asking.config(vendor.url, there.other.url, there.near.url)
        perform = vendor.next

        def look(which):
            with open(paths.journal() + "/current.ftai") as file:
                found.append([line for line in file.read().splitlines() if '"ask"' in line])
            return perform(which)

        vendor.next = look
        vendor.script = rehearsal.script("503")
        made = Run()(*pair(), log=False)
    assert end(made)["status"] == "done"
    assert [len(lines) for lines in found] == [1, 3]
    assert said(made, "audit", "act", "outcome") == [("ask", "intended"), ("ask", "failed"), ("ask", "intended"), ("ask", "done")]


def test_without_its_record_nothing_is_sent(there, monkeypatch):
    run = Run()

    def refuse(*_, **__):
        raise Failure("cannot write the journal: no space", 74)

    monkeypatch.setattr(acting, "append", refuse)
    made = run(*pair(), log=False)
    assert (there.counts, run.codes, end(made)["status"]) == ([0, 0, 0], [74], "failed")
    # The reservation is given back.
    assert limits.spent({"unit": "calls", "per": "day"}) == 0


def test_a_signal_ends_a_call(there, monkeypatch):
    hang_up(there.far)
    stop = Stop()
    kept = signal.signal(signal.SIGUSR1, lambda number, frame: stop._catch(signal.SIGUSR1, frame))
    try:
        thread = threading.Thread(target=lambda: (there.far.wait(requests=1), os.kill(os.getpid(), signal.SIGUSR1)))
        thread.start()
        made = Run(stop=stop)(*pair())
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, kept)
    assert said(made, "attempt", "status") == ["cancelled"]
    assert said(made, "audit", "outcome") == ["intended", "cancelled"]
    assert end(made)["status"] == "cancelled"
    there.far.wait(closed=1)


def test_an_answer_is_not_lost_where_state_db_cannot_be_written(there, monkeypatch):
    whole = limits.end

    def full(*args, **more):
        whole(*args, **more)
        raise Failure("cannot use 'state.db': database or disk is full", 73)

    monkeypatch.setattr(limits, "end", full)
    made = Run()(*pair())
    assert end(made) | {"status": "done", "body": "You said: what is it"} == end(made)
    assert said(made, "error", "class") == ["storage"]


def test_a_full_disk_leaves_the_task_with_the_caller(there, home, monkeypatch):
    there.far.control(script="429:retry-after=70,ok*")
    place = home / "small"
    place.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", place], capture_output=True, check=False).returncode:
        pytest.skip("NOT ROOT, OR NO MOUNTS ALLOWED: no small disk can be made")
    try:
        # The journal stands elsewhere: it is the queue that has no room.
        monkeypatch.setattr(paths, "state_db", lambda: str(place / "state.db"))
        put, filler = waiting.put, place / "filler"

        def full(*args, **more):
            with open(filler, "wb", buffering=0) as file, suppress(OSError):
                while file.write(b"x" * 4096):
                    pass
            return put(*args, **more)

        monkeypatch.setattr(waiting, "put", full)
        asked, routed = pair("model:small", body="a" * 20000)
        there.config(changes={"small": {"window": 90000}})
        asking.agree()
        run = Run()
        made = run(asked, routed)
        assert run.codes == [73]
        assert made[:2] == [asked, routed]
        assert said(made, "audit", "act", "outcome")[-1] == ("queue", "intended")
        assert only(made, "error")[-1] | {"class": "storage", "recovery": "retry"} == only(made, "error")[-1]
        assert end(made)["status"] == "failed"
        filler.unlink()
        assert waiting.items(str(place / "state.db")) == []
        later(100)
        assert end(Run(again=True)(asked, routed))["status"] == "done"
    finally:
        if limits._writer:
            limits._writer["db"].close()
            limits._writer.clear()
        subprocess.run(["umount", "-l", place], check=True)


def test_every_attempt_is_a_record_with_what_it_used(there):
    there.far.control(script="503,ok:cached=5")
    failed, done = only(Run()(*pair()), "attempt")
    assert (failed["ms"] >= 0, failed["provider"], failed["class"]) == (True, "far", "network")
    assert "input_tokens" not in failed
    assert done | {"provider": "far", "model": "big-1-20260101", "cached_tokens": 5} == done
    assert done["input_tokens"] >= 0
    assert done["output_tokens"] > 0
    assert "class" not in done


def test_records_are_as_private_as_the_command(there):
    made = Run()(*pair(command={"privacy": "local"}))
    assert there.counts == [0, 0, 1]
    assert {rec["privacy"] for rec in made} == {"local"}
    made = Run()(*pair())
    assert {rec["privacy"] for rec in made} == {"cloud"}


def test_an_answer_that_rests_on_what_is_local_is_local(there):
    first = pair("model:home", body="one", command={"privacy": "local"})
    Run()(*first)
    made = Run()(*pair("model:home", body="two", thread=first[0]["thread"]))
    assert end(made)["privacy"] == "local"
    # And where a cloud answers after all, it was told nothing of that.
    there.near.control(script="500*3")
    made = Run()(*pair("model:home", body="three", thread=first[0]["thread"], route={"fallback": ["model:small"]}))
    assert (end(made)["status"], end(made)["privacy"]) == ("done", "cloud")
    assert "one" not in str(asking.bodies(there.far.state())[-1])


@pytest.mark.parametrize("nested", [{"privacy": "local"}, {"@blocks": [{"@tag": "part", "privacy": "secret"}]}])
def test_an_answer_that_rests_on_a_local_attachment_is_local(there, nested):
    asked, routed = pair()
    asked["@blocks"] = [{"@tag": "document", "title": "t", "body": "the text"} | nested]
    made = Run()(asked, routed)
    assert there.counts == [0, 0, 1]
    assert {rec["privacy"] for rec in made[2:]} == {"local"}
    # It is no part of what a cloud is told of that conversation.
    Run()(*pair("model:small", thread=asked["thread"]))
    assert "the text" not in str(there.far.state())


def test_a_broken_archive_costs_the_conversation_alone(there):
    first = pair(body="one")
    Run()(*first)
    for ending in ("", "-wal", "-shm"):
        os.unlink(paths.archive_db() + ending)
    os.mkdir(paths.archive_db())
    run = Run()
    made = run(*pair(body="two", thread=first[0]["thread"]))
    assert end(made)["status"] == "done"
    assert any("the conversation so far is not told" in said for said in run.warnings)


def test_prices_of_tests_are_known(there):
    assert prices.row("far", "big-1", record.now()).output == 10


def test_a_route_with_an_unpriced_candidate_can_be_journaled(there):
    there.config(rules=entry("rule", name="any", say="send {what}", target="model:*", reason="x", privacy="cloud", match=["send it"]))
    asked = record.make("command", "ftai-listen", body="send it")
    decision = routing.decide(asked, table := routing.load())
    routed = routing.route(asked, stage="ftai-route", table=table, decision=decision)
    assert routed["target"] == "model:home"
    assert [block.get("price_row") for block in routed["@blocks"]][-1] == "unpriced"
    asking.enter([asked, routed])
