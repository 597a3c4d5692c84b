"""What --simulate prints is what would be done: rehearsals beside real runs against the provider to rehearse with, and never a local record to a cloud."""

import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1]))
from conftest import SCALE
from serenamaster import acting, limits, models, record, routing, specs, stage, state
from serenamaster.errors import Failure
from vendor import Vendor, script

# Two vendors in the cloud, one of them with two models, and one here; Retry-After of 0 keeps the real runs short.
CONFIG = """@ftai v2.0
@provider
  name: "one"
  kind: "anthropic"
  privacy: "cloud"
  url: "{one}"
  summary: "x"
@end
@provider
  name: "two"
  kind: "openai"
  privacy: "cloud"
  url: "{two}/v1"
  summary: "x"
@end
@provider
  name: "here"
  kind: "openai"
  privacy: "local"
  url: "{here}/v1"
  summary: "x"
@end
@model
  name: "a"
  provider: "one"
  window: 4000
  output: 100
  quality: 2
  summary: "x"
@end
@model
  name: "b"
  provider: "one"
  window: 4000
  output: 100
  quality: 3
  summary: "x"
@end
@model
  name: "c"
  provider: "two"
  window: 40000
  output: 100
  quality: 3
  summary: "x"
@end
@model
  name: "h"
  provider: "here"
  window: 40000
  output: 100
  quality: 1
  summary: "x"
@end
@consent
  name: "one"
  summary: "x"
@end
@consent
  name: "two"
  summary: "x"
@end
{more}
"""
RULE = """@ftai v2.0
@rule
  name: "any-model"
  pattern: "draft"
  target: "model:a"
  fallback: ["model:b", "model:c", "model:h"]
  {privacy}
  reason: "x"
@end
"""
# {provider: fault}, what the vendors are told to do then.
FAULTS = {
    "ok": ("ok*", ""), "529": ("529:retry-after=0*", ":Retry-After=0"), "429": ("429:retry-after=0*", ":Retry-After=0"), "401": ("401*", ""),
    "400": ("400*", ""), "418": ("418*", ""), "500": ("500:retry-after=0*", ":Retry-After=0"), "408": ("408:retry-after=0*", ":Retry-After=0"),
    "429-long": ("429:retry-after=90*", ":Retry-After=90"), "down": ("", ""),
}  # fmt: skip


@pytest.fixture(scope="module")
def vendors():
    with Vendor() as one, Vendor() as two, Vendor() as here:
        yield {"one": one, "two": two, "here": here}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FTAI_HOME", str(tmp_path / "ftai"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    specs.forget()
    yield tmp_path / "ftai"
    specs.forget()


def write(home, urls, more="", rule=RULE, privacy='privacy: "cloud"'):
    folder = home / "config"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / "serenamaster.config.ftai").write_text(CONFIG.format(more=more, **urls))
    (folder / "serenamaster.mcp.ftai").write_text(rule.format(privacy=privacy))
    for path in folder.iterdir():
        path.chmod(0o600)
    specs.forget()


def said(words="draft a reminder", **fields):
    return record.make("command", "ftai-listen", body=words, **fields)


def planned(command, faults: dict):
    words = ",".join(f"{name}={fault.removesuffix('-long')}{FAULTS[fault][1]}" for name, fault in faults.items())
    return routing.decide(command, routing.load(), models.rehearsed(words))


def ran(command):
    """The records that a real run makes of a command, and the statuses of its failures."""
    ctx = stage.Context("ftai-exec")
    ctx.quiet = True
    claims = state.Claims(ctx.name)
    try:
        runner = acting.runner(ctx, stage=ctx.name, stop=None, claims=claims)
        routed = routing.route(command, stage="ftai-route")
        pieces = runner.batch([(rec, record.encode(rec)) for rec in (command, routed)])
        return [rec for piece in pieces for rec, _ in piece], ctx.codes
    finally:
        claims.close()


def targets(steps):
    return [step.target for step in steps if step.target]


CASES = [
    {}, {"one": "429"}, {"one": "529", "two": "down"}, {"one": "429", "two": "down", "here": "down"}, {"one": "401"},
    {"one": "401", "two": "401", "here": "401"},
    {"one": "400"}, {"one": "418"}, {"one": "429-long"}, {"one": "429-long", "two": "500", "here": "408"}, {"one": "down"}, {"one": "408", "two": "ok"},
    {"one": "down", "two": "down", "here": "400"}, {"two": "down"},
]  # fmt: skip


@pytest.mark.parametrize("faults", CASES, ids=lambda faults: ",".join(f"{name}={fault}" for name, fault in faults.items()) or "well")
def test_the_plan_is_what_a_run_does(home, vendors, faults):
    urls = {name: "http://127.0.0.1:9" if faults.get(name) == "down" else vendor.url for name, vendor in vendors.items()}
    write(home, urls)
    for name, vendor in vendors.items():
        vendor.control({"reset": True, "script": FAULTS[faults.get(name, "ok")][0]})
    command = said()
    plan = planned(command, faults)
    records, codes = ran(command)
    assert plan["target"] == next(rec["target"] for rec in records if rec["@tag"] == "route")
    assert targets(plan["steps"]) == [rec["target"] for rec in records if rec["@tag"] == "attempt"]
    assert targets(plan["steps"])[0] == "model:a"
    # How it ends is the same, too.
    ends = [rec["status"] for rec in records if rec["@tag"] == "result"] or ["queued"]
    assert plan["steps"][-1].words.split(",")[0].split(":")[0] == ends[0]
    assert [f"exit {code}" in plan["steps"][-1].words for code in codes] == [True] * len(codes)
    assert ("exit" in plan["steps"][-1].words) == bool(codes)
    # Nothing that was sent bears another mark than the plan's providers.
    assert sum(len(vendor.requests) for vendor in vendors.values()) == sum(rec["@tag"] == "attempt" and urls[rec["provider"]][-2:] != ":9" for rec in records)


def test_a_plan_asks_nobody_and_leaves_no_trace(home, vendors):
    write(home, {name: vendor.url for name, vendor in vendors.items()})
    for vendor in vendors.values():
        vendor.control({"reset": True, "script": script("ok*")})
    planned(said(), {"one": "529", "two": "ok"})
    assert [vendor.requests for vendor in vendors.values()] == [[], [], []]
    assert not (home / "state" / "state.db").exists()


def test_waits_are_told():
    command = said()
    write(Path(specs.paths.config()).parent, dict.fromkeys(("one", "two", "here"), "http://127.0.0.1:9"))
    steps = routing.decide(command, routing.load(), models.rehearsed("one=429:Retry-After=30,two=down,here=down"))["steps"]
    assert [step.words for step in steps] == [
        "ask model:a: 429 (rate)", "wait 30 s, ask model:a again: 429 (rate)", "wait 30 s, ask model:a again: 429 (rate)",
        "ask model:b: 429 (rate)", "wait 30 s, ask model:b again: 429 (rate)", "wait 30 s, ask model:b again: 429 (rate)",
        "ask model:c: down", "wait about 0.5 s, ask model:c again: down", "wait about 1 s, ask model:c again: down",
        "ask model:h: down", "wait about 0.5 s, ask model:h again: down", "wait about 1 s, ask model:h again: down",
        "queued, exit 75: tried again with the next drain",
    ]  # fmt: skip
    # Longer than the time that is left: not again. Longer than a minute: the whole provider is left alone. Of the others nobody knows until when.
    steps = routing.decide(command, routing.load(), models.rehearsed("one=503:Retry-After=59,two=ok"))["steps"]
    assert targets(steps) == ["model:a"] * 3 + ["model:b"] * 3 + ["model:c"]
    steps = routing.decide(command, routing.load(), models.rehearsed("one=429:Retry-After=90,two=down,here=down"))["steps"]
    assert targets(steps) == ["model:a"] + ["model:c"] * 3 + ["model:h"] * 3
    assert [step.words for step in steps if not step.target][0] == "model:b is not asked: 'one' takes no more requests for 90 s"
    assert steps[-1].words == "queued, exit 75: tried again with the next drain"
    kept = routing.decide(said(log="fact"), routing.load(), models.rehearsed("one=down,two=down,here=down"))["steps"]
    assert kept[-1].words == "failed, exit 75: what is kept out of the journal is not queued either"


def test_the_deadline_of_a_provider_ends_its_tries(home):
    write(home, dict.fromkeys(("one", "two", "here"), "http://127.0.0.1:9"))
    path = home / "config" / "serenamaster.config.ftai"
    path.write_text(path.read_text().replace('url: "http://127.0.0.1:9"\n', 'url: "http://127.0.0.1:9"\n  deadline: 40\n', 1))
    specs.forget()
    steps = routing.decide(said(), routing.load(), models.rehearsed("one=429:Retry-After=30"))["steps"]
    assert targets(steps) == ["model:a"] * 2 + ["model:b"] * 2 + ["model:c"]


BUDGET = '@budget\n  name: "few"\n  value: 0\n  unit: "calls"\n  per: "day"\n  provider: "one"\n  over: "{over}"\n  summary: "x"\n@end'


@pytest.mark.parametrize(("over", "asked", "end"), [("cheaper", ["model:h"], "done"), ("local", ["model:h"], "done"), ("stop", [], "refused, exit 77")])
def test_a_budget_that_is_used_up(home, vendors, over, asked, end):
    write(home, {name: vendor.url for name, vendor in vendors.items()}, more=BUDGET.format(over=over))
    for vendor in vendors.values():
        vendor.control({"reset": True, "script": script("ok*")})
    # The task names its model, so that the router can't choose another one first.
    command = record.make("task", "ftai-listen", title="draft", target="model:a", status="open", privacy="cloud")
    made = routing.decide(command, routing.load()) | {"target": "model:a", "fallback": ["model:c", "model:h"]}
    steps = models.rehearse(made, command, {})
    assert targets(steps) == asked
    assert steps[-1].words.startswith(end)


@pytest.mark.parametrize(("over", "target", "fallback"), [("cheaper", "model:h", ["model:a"]), ("local", "model:h", ["model:a"]), ("stop", "model:a", [])])
def test_the_router_keeps_to_what_a_used_up_budget_says(home, over, target, fallback):
    write(home, dict.fromkeys(("one", "two", "here"), "http://127.0.0.1:9"), more=BUDGET.format(over=over))
    made = routing.decide(said(), routing.load(), {"here": models.Fault("ok", "", 0, None)})
    assert (made["target"], made["fallback"]) == (target, fallback)
    against = {other: why for other, why, *_ in made["alternatives"]}
    assert against["model:c"] == "budget"
    assert made["steps"][-1].words.startswith("refused, exit 77" if over == "stop" else "done")


def test_what_is_known_of_others_counts_and_of_the_simulated_not(home):
    write(home, dict.fromkeys(("one", "two", "here"), "http://127.0.0.1:9"))
    for _ in range(3):
        limits.bad("one/a/-", "network", "no answer")
    limits.seen("two", False, "no answer")
    made = routing.decide(said(), routing.load(), {})
    assert made["target"] == "model:b"
    assert targets(made["steps"]) == ["model:b"]
    made = routing.decide(said(), routing.load(), models.rehearsed("one=ok,two=ok"))
    assert (made["target"], targets(made["steps"])) == ("model:a", ["model:a"])
    made = routing.decide(said(), routing.load(), models.rehearsed("here=400"))
    assert targets(made["steps"]) == ["model:b"]
    # In the order of the route: who can't be had stands last.
    assert made["fallback"] == ["model:h", "model:a", "model:c"]


def test_without_consent_nobody_in_the_cloud_is_asked(home):
    write(home, dict.fromkeys(("one", "two", "here"), "http://127.0.0.1:9"))
    path = home / "config" / "serenamaster.config.ftai"
    path.write_text(path.read_text().replace('@consent\n  name: "one"\n  summary: "x"\n@end\n', ""))
    specs.forget()
    made = routing.decide(said(), routing.load(), models.rehearsed("one=ok,two=down,here=ok"))
    assert targets(made["steps"]) == ["model:c"] * 3 + ["model:h"]
    assert [step.words.partition(":")[0] for step in made["steps"][:2]] == ["model", "model"]
    assert "no consent to one" in made["steps"][0].words


@pytest.mark.parametrize(
    "words",
    ["one", "one=", "one=200", "one=600", "one=4x9", "nobody=429", "one=429:Retry-After=", "one=429:Retry-After=soon", "one=429:x=1", "one=ok:Retry-After=3",
     "one=down:Retry-After=3", "one=٤٢٩", "=429", "one=429:Retry-After=9999999999"],
)  # fmt: skip
def test_what_says_nothing_is_refused(home, words):
    write(home, dict.fromkeys(("one", "two", "here"), "http://127.0.0.1:9"))
    with pytest.raises(Failure) as bad:
        models.rehearsed(words)
    assert bad.value.code == 2


blocks = st.lists(st.sampled_from([{"@tag": "document", "body": "x", "privacy": "local"}, {"@tag": "document", "body": "x"}]), max_size=2)


@settings(max_examples=40 * SCALE, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    privacy=st.sampled_from([None, "local", "cloud", "secret", ""]), rule=st.sampled_from(["", 'privacy: "cloud"', 'privacy: "local"']), within=blocks,
    faults=st.dictionaries(st.sampled_from(["one", "two", "here"]), st.sampled_from(["ok", "down", "429:Retry-After=99", "500", "401", "400", "418"])),
    target=st.sampled_from([None, "model:a", "model:c", "model:h", "model:*"]),
)  # fmt: skip
def test_what_is_local_never_reaches_a_cloud_in_a_rehearsal(home, privacy, rule, within, faults, target):
    write(home, dict.fromkeys(("one", "two", "here"), "http://127.0.0.1:9"), privacy=rule)
    simulated = models.rehearsed(",".join(f"{name}={fault}" for name, fault in faults.items()))
    rec = said(privacy=privacy, blocks=within)
    made = routing.decide(rec, routing.load(), simulated)
    # As a route that came in might have it, also one that grants what the command does not.
    forged = {**made, "privacy": "cloud", "target": target or "model:a", "fallback": ["model:b", "model:c", "model:h"]}
    local = privacy not in (None, "cloud") or any("privacy" in block for block in within)
    for steps, closed in ((made.get("steps", []), local or made["privacy"] != "cloud"), (models.rehearse(forged, rec, simulated), local)):
        assert not closed or set(targets(steps)) <= {"model:h"}
    # The control: what may go there does.
    if not local and faults.get("one") == "ok" and (rule == 'privacy: "cloud"' or privacy == "cloud") and rule != 'privacy: "local"':
        assert targets(made["steps"]) == ["model:a"]


def test_errors_name_who_failed_and_what_they_are_about(home, vendors):
    write(home, {name: vendor.url for name, vendor in vendors.items()})
    vendors["one"].control({"reset": True, "script": script("401*")})
    vendors["two"].control({"reset": True, "script": script("ok*")})
    records, _ = ran(said())
    ids = {rec["id"] for rec in records}
    errors = [rec for rec in records if rec["@tag"] == "error"]
    assert [rec["where"] for rec in errors] == ["model:a", "model:b"]
    assert all(rec["parent"] in {tried["id"] for tried in records if tried["@tag"] == "attempt"} for rec in errors)
    # Where nobody was even asked there is no attempt: then it is the route that they are about.
    for name in ("one", "two", "here"):
        limits.seen(name, False, "no answer")
    records, codes = ran(said())
    assert codes == [75]
    assert [rec["@tag"] for rec in records if rec["@tag"] in ("attempt", "error")] == ["error"]
    ids = {rec["id"] for rec in records}
    assert all(rec["parent"] in ids for rec in records if "parent" in rec)
