"""What ftai-doctor tells of providers, budgets, the queue and a measured model; with the real rehearsal server, state.db and archive."""

import sqlite3
import threading
from collections import namedtuple
from pathlib import Path

import pytest
import vendor as rehearsal
from serenamaster import archive, health, journal, limits, paths, providers, record, specs, state, vitals
from serenamaster.errors import Failure

ANTHROPIC = {"name": "anthropic", "kind": "anthropic", "privacy": "cloud", "key": "anthropic"}
CLAUDE = {"name": "claude", "provider": "anthropic", "id": "claude-1"}
NOW: dict = {"breakers": {}}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FTAI_HOME", str(tmp_path / "ftai"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    specs.forget()
    yield tmp_path
    specs.forget()


def lacks(provider=ANTHROPIC, models=(CLAUDE,), known=None, consent="", missing="", **more):
    known = {"anthropic": {"source": "file", "readers": ["ftai-exec"]}} if known is None else known
    how = {"known": known, "agreed": {}, "consent": lambda name: consent, "there": lambda kind: missing, "reader": "ftai-exec"} | more
    return vitals.lacks(provider, models, **how)


def told(missing=(), reached=(True, "it answered with 200", 12), key=None, now=NOW, past=None, entry=ANTHROPIC, models=(CLAUDE,)):
    return vitals.provider(entry, list(models), list(missing), reached=reached, key=key or {}, now=now, past=past or {})


# --- what is missing


def test_nothing_is_missing():
    assert lacks() == []
    assert vitals.closed([]) == ""


@pytest.mark.parametrize(
    ("given", "code", "what", "hint"),
    [
        ({"known": {}}, "key", "no key", "ftai-keys set anthropic"),
        ({"known": {"anthropic": {"source": "", "readers": ["ftai-exec"]}}}, "key", "no key", "ftai-keys set anthropic"),
        ({"known": {"anthropic": {"source": "file", "readers": []}}}, "reader", "ftai-exec may not read its key", "ftai-keys grant anthropic ftai-exec"),
        ({"consent": "it ended at 2026-01-01"}, "consent", "no consent: it ended at 2026-01-01", "ftai-keys consent grant anthropic"),
        ({"missing": "anthropic"}, "package", "the package anthropic is missing", "pip install anthropic"),
        ({"provider": ANTHROPIC | {"blocked": "x:1"}}, "off", "turned off by a project", ""),
        ({"models": [CLAUDE | {"blocked": "x:1"}]}, "off", "turned off by a project", ""),
    ],
)
def test_what_is_missing_comes_with_what_to_type(given, code, what, hint):
    assert lacks(**given) == [vitals.Lack(code, what, hint)]


def test_consent_is_asked_of_the_cloud_only_and_of_a_model_that_something_was_said_of():
    no = lambda name: f"not {name}"  # noqa: E731
    local = {"name": "here", "kind": "openai", "privacy": "local"}
    assert lacks(local, [{"name": "m"}], consent="no") == []
    # One that does not say where it is may be anywhere.
    assert [lack.code for lack in lacks({"name": "here", "kind": "openai"}, [], consent="no")] == ["consent"]
    codes = [lack.code for lack in vitals.lacks(ANTHROPIC, [CLAUDE], known={}, agreed={"claude": {}}, consent=no, there=lambda kind: "", reader="r")]
    assert codes == ["key", "consent", "model"]


def test_a_model_in_a_folder_that_is_not_there(home):
    mlx = {"name": "mlx", "kind": "mlx", "privacy": "local"}
    (home / "there").mkdir()
    found = lacks(mlx, [{"name": "a", "id": "~/there"}, {"name": "b", "id": "/none"}])
    assert found == [vitals.Lack("folder", "there is no folder '/none'", "")]


@pytest.mark.parametrize(("code", "left"), [("off", True), ("package", True), ("consent", True), ("key", False), ("reader", False), ("folder", False)])
def test_who_is_not_even_looked_at(code, left):
    assert bool(vitals.closed([vitals.Lack(code, "why", "")])) == left


def test_providers_that_a_model_uses_or_that_have_a_key():
    found = vitals.used(specs.load("config"))
    assert [(entry["name"], [model["name"] for model in models]) for entry, models in found] == [("anthropic", ["claude"]), ("openai", ["gpt"])]
    providers = [{"name": "a", "kind": "openai"}, {"name": "b", "kind": "openai", "key": "k"}, {"name": "c", "kind": "openai"}]
    found = vitals.used({"provider": providers, "model": [{"name": "m", "provider": "c"}]})
    assert [(entry["name"], len(models)) for entry, models in found] == [("b", 0), ("c", 1)]


def test_a_model_whose_provider_is_gone():
    config = {"provider": [], "model": [{"name": "m", "provider": "p"}]}
    ((name, (lack,)),) = vitals.ready(config)
    assert (name, lack.what) == ("m", "the provider 'p' is turned off")


# --- the look


def test_looks_are_at_once_and_one_that_fails_harms_no_other():
    here = threading.Barrier(3)

    def probe(entry, key, seconds):
        assert key is None
        here.wait(10)
        if entry["name"] == "a":
            raise Failure("no address", 78)
        return entry["name"] == "b", f"'{entry['name']}': words"

    found = vitals.probed([{"name": name} for name in "abc"], probe, 2.0)
    assert {name: one[:2] for name, one in found.items()} == {"a": (False, "no address"), "b": (True, "words"), "c": (False, "words")}


def test_a_look_at_a_real_server_spends_nothing():
    with rehearsal.Vendor(given="500*") as server:
        server.models = rehearsal.script("500")
        entries = [{"name": "up", "kind": "openai", "privacy": "local", "url": f"{server.url}/v1"}, ANTHROPIC | {"url": server.url}]
        entries.append({"name": "down", "kind": "openai", "privacy": "local", "url": "http://127.0.0.1:9/v1"})
        found = vitals.probed(entries, providers.probe, 60.0)
        assert {name: one[0] for name, one in found.items()} == {"up": True, "anthropic": True, "down": False}
        assert sorted((request["method"], request["path"]) for request in server.requests) == [("GET", "/v1/models")] * 2


# --- the past


def test_figures():
    attempts = [{"status": "done", "ms": ms} for ms in range(1, 101)]
    assert vitals.figures(attempts, None) == {"attempts": 100, "failed": 0, "median_ms": 50, "p95_ms": 95}
    assert vitals.figures([{"status": "done", "ms": 7}], None)["p95_ms"] == 7
    failed = [{"status": "failed", "ms": 1, "id": "x", "ts": "t", "class": "rate"}, {"status": "done", "ms": 9}, {"status": "failed", "id": "y"}]
    expected = {"attempts": 3, "failed": 2, "median_ms": 9, "p95_ms": 9, "error_at": "t", "error_class": "rate", "error": "said x"}
    assert vitals.figures(failed, lambda own: f"said {own}") == expected
    assert "median_ms" not in vitals.figures([{"status": "failed"}], lambda own: None)


def seed(count, **more):
    """`count` attempts of one provider in the journal and the archive, the last one failed."""
    made = []
    for n in range(count):
        last = n == count - 1
        own = record.make("attempt", "t", target="model:claude", status="failed" if last else "done", class_="rate" if last else None, ms=n, **more)
        made += [own, *([record.make("error", "t", parent=own, class_="rate", message="too many")] if last else [])]
    list(journal.append(paths.journal(), made))
    assert archive.catch_up(limit=None) is None


def past():
    return vitals.recent(paths.archive_db(), specs.load("config"))


def test_the_last_hundred_of_the_archive():
    seed(150, provider="anthropic")
    seed(3, provider="openai")
    seed(2)  # a skill: nobody was asked
    found = past()
    assert set(found) == {"anthropic", "openai"}
    assert (found["anthropic"]["attempts"], found["openai"]["attempts"]) == (100, 3)
    # Attempts 50 to 148 were answered, the last one was not.
    assert (found["anthropic"]["failed"], found["anthropic"]["median_ms"], found["anthropic"]["p95_ms"]) == (1, 99, 144)
    assert (found["anthropic"]["error_class"], found["anthropic"]["error"]) == ("rate", "too many")


def test_sealed_texts_are_not_opened(monkeypatch):
    monkeypatch.setenv("FTAI_ENCRYPT", "local")
    seed(2, provider="anthropic")
    (line,) = sqlite3.connect(paths.archive_db()).execute("SELECT line FROM records WHERE tag = 'error'").fetchone()
    assert "[sealed:" in line
    (found,) = past().values()
    assert (found["attempts"], found["error_class"], found["error"]) == (2, "rate", None)


def test_no_archive_and_a_damaged_one():
    assert past() == {}
    assert not Path(paths.archive_db()).exists()
    Path(paths.archive_db()).write_bytes(b"x" * 9000)
    with pytest.raises(Failure) as bad:
        past()
    assert (bad.value.code, bad.value.hint) == (74, "ftai-archive rebuild")


# --- what is told


def test_a_provider_that_is_well():
    fields, checks = told(key={"source": "file"}, past={"attempts": 4, "failed": 0, "median_ms": 5, "p95_ms": 9}, now=NOW | {"requests_left": 7})
    assert [check.level for check in checks] == ["ok", "ok"]
    assert checks[0].detail == "can be reached (it answered with 200, 12 ms); key in the file; consent given; models: claude"
    assert checks[1].detail == "0 of the last 4 attempts failed, median 5 ms, p95 9 ms; 7 requests left of this minute"
    assert (fields["reached"], fields["key_source"], fields["consent"], fields["requests_left"], fields["missing"]) == (True, "file", True, 7, None)
    record.check(record.make("report", "t", **fields))


def test_one_that_is_down_fails_only_where_it_is_set_up():
    down = (False, "no answer", 2000)
    fields, (check,) = told(reached=down)
    assert (fields["level"], check.level) == ("fail", "fail")
    assert "cannot be reached: no answer" in check.detail
    assert told(lacks(known={}), reached=down)[0]["level"] == "warn"


def test_one_without_consent_was_not_asked():
    missing = lacks(known={}, consent="nobody agreed to it")
    fields, (check,) = told(missing, reached=None)
    assert check.level == "warn"
    assert check.detail == "was not asked: no consent: nobody agreed to it; no key; models: claude"
    assert check.hint == "ftai-keys set anthropic && ftai-keys consent grant anthropic"
    assert fields["consent"] is False
    assert "reached" not in fields
    assert fields["probe"] == "not asked: no consent: nobody agreed to it"


def test_consent_is_not_told_of_what_is_local():
    fields, (check,) = told(entry={"name": "here", "kind": "openai", "privacy": "local"})
    assert fields["consent"] is None
    assert "consent" not in check.detail


def test_breakers_are_told():
    now = {"breakers": {"claude-1": limits.Breaker("open", "2026-11-26T12:00:00.000Z", 3, "'anthropic': it answered with 529", "t")}}
    fields, (check,) = told(now=now)
    assert check.level == "warn"
    assert "'claude-1' is left alone until 2026-11-26T12:00:00.000Z after 3 failures in a row: it answered with 529" in check.detail
    (block,) = fields["blocks"]
    assert (block["@tag"], block["model"], block["state"], block["failures"]) == ("breaker", "claude-1", "open", 3)
    record.check(record.make("report", "t", **fields))
    half, one = ({"breakers": {"m": limits.Breaker(state, None, count, "why", "t")}} for state, count in (("half", 4), ("closed", 1)))
    assert "is tried again with the next call after 4 failures" in told(now=half)[1][0].detail
    assert told(now=one)[1][0].level == "ok"
    assert "is asked after 1 failure in a row: why" in told(now=one)[1][0].detail


@pytest.mark.parametrize(("used", "over", "level", "said"), [
    (3.9, None, "ok", "3.9 of 5 USD a day, provider anthropic"),
    (4, None, "warn", "4 of 5 USD a day, provider anthropic"),
    (5, None, "warn", "5 of 5 USD a day, provider anthropic: used up, so cheaper models are asked"),
    (6, "local", "warn", "6 of 5 USD a day, provider anthropic: used up, so local models are asked"),
    (6, "stop", "warn", "6 of 5 USD a day, provider anthropic: used up, so no model is asked"),
])  # fmt: skip
def test_budgets(used, over, level, said):
    entry = {"name": "daily", "provider": "anthropic"} | ({"over": over} if over else {})
    fields, (check,) = vitals.budget(entry, {"used": used, "value": 5, "unit": "USD", "per": "day"})
    assert (check.level, check.what, check.detail) == (level, "budget daily", said)
    assert (fields["subject"], fields["used"], fields["over"]) == ("budget", used, over or "cheaper")


def test_the_queue():
    item = namedtuple("item", "state queued")
    none, (check,) = vitals.queue([], None)
    assert (check.level, check.detail) == ("ok", "0 waiting, 0 due; 0 dead letters")
    assert none["oldest"] is None
    fields, (check,) = vitals.queue([item("waiting", "b"), item("waiting", "a"), item("dead", "0")], lambda one: one.queued == "a")
    assert check.level == "warn"
    assert check.detail == "2 waiting, 1 due, the oldest since a; 1 dead letter"
    assert check.hint
    assert (fields["waiting"], fields["due"], fields["dead"], fields["oldest"]) == (2, 1, 1, "a")


# --- all of it


def all_told():
    return list(health.guarded(vitals.standing("ftai-exec")))


def test_looking_makes_no_file():
    found = all_told()
    assert [fields["subject"] for fields, _ in found] == ["provider", "provider", "queued"]
    assert not Path(paths.where("state")).exists()


def test_a_broken_state_db_is_told_once_and_all_else_is_told():
    seed(3, provider="anthropic")
    Path(paths.state_db()).write_bytes(b"x" * 9000)
    found = all_told()
    broken = [one for one in found if type(one) is health.Check]
    assert [(check.level, "state.db" in check.detail) for check in broken] == [("fail", True)]
    by = {one[0].get("name"): one[0] for one in found if type(one) is not health.Check}
    assert by["anthropic"]["attempts"] == 3
    assert by["anthropic"]["consent"] is False  # what can't be read is no consent


def test_a_broken_archive_is_told_and_all_else_is_told():
    Path(paths.state()).mkdir(parents=True, exist_ok=True)
    Path(paths.archive_db()).write_bytes(b"x" * 9000)
    found = all_told()
    assert found[0].hint == "ftai-archive rebuild"
    assert len(found) == 4


def test_with_a_key_and_consent_the_provider_itself_is_asked(home):
    Path(paths.config()).mkdir(parents=True, exist_ok=True)
    with rehearsal.Vendor() as server:
        spec = f'@ftai v2.0\n@provider\n  name: "there"\n  kind: "openai"\n  privacy: "cloud"\n  url: "{server.url}/v1"\n  summary: "x"\n@end\n'
        spec += '@model\n  name: "m"\n  provider: "there"\n@end\n@budget\n  name: "b"\n  value: 3\n  unit: "calls"\n  per: "day"\n@end\n'
        (Path(paths.config()) / "serenamaster.config.ftai").write_text(spec)
        specs.forget()
        ((fields, _), *_) = all_told()
        assert (fields["name"], fields.get("reached"), server.requests) == ("there", None, [])
        state.agree("there")
        limits.reserve("x", [], {"provider": "there", "model": "m", "calls": 2, "tokens": 0})
        ((fields, _), *rest) = all_told()
        assert (fields["reached"], fields["consent"], len(server.requests)) == (True, True, 1)
        assert next(one for one, _ in rest if one["subject"] == "budget")["used"] == 2


def test_which_models_can_be_asked_now(monkeypatch):
    entry = {"name": "m", "provider": "server"}
    monkeypatch.setitem(specs.loaded, "config", specs.load("config") | {"model": [entry, CLAUDE]})
    able, unable = vitals.models("ftai-exec")
    assert able.detail == "can be asked now: m"
    assert unable.detail == "cannot be asked: claude (no key, no consent)"
    assert unable.hint == "ftai-keys set anthropic && ftai-keys consent grant anthropic"
    monkeypatch.setitem(specs.loaded, "config", specs.load("config") | {"model": []})
    (none,) = vitals.models("ftai-exec")
    assert none.detail.startswith("no model is set up")


def test_a_line_of_a_measured_model():
    row = {"bits": 16, "load_ms": 31.5, "tokens_s": 812.3, "memory": 300 << 20, "size": 1 << 20}
    assert vitals.line(row).split() == ["fp16", "31.5", "ms", "812.3", "300.0", "MiB", "1.0", "MiB"]
    assert len(vitals.line(row)) == len(vitals.HEAD)
    assert vitals.line({"bits": 4, "error": "no memory"}) == "4     no memory"
