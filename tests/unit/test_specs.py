"""The spec files: what they may hold, how they are laid over each other, their cache, and that the code does what they say."""

import hashlib
import os
import shutil
import time
from pathlib import Path

import orjson
import pytest
from serenamaster import paths, record, routing, skills, specs
from serenamaster.errors import Failure

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "specs"
SPECS = ("system", "commands", "memory", "config", "mcp", "prices", "release")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home of its own, and a working folder within no project."""
    monkeypatch.setenv("FTAI_HOME", str(tmp_path / "ftai"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    specs.forget()
    yield tmp_path
    specs.forget()


def own(name: str, body: str, folder: str | Path = "") -> Path:
    """Writes a user's (or a project's) file and forgets what was loaded."""
    place = Path(folder or paths.config())
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"serenamaster.{name}.ftai"
    path.write_text(f'@ftai v2.0\n\n@document\n  title: "own"\n@end\n\n{body}\n')
    old = time.time() - 10
    os.utime(path, (old, old))
    specs.forget()
    return path


def refused(name: str) -> Failure:
    with pytest.raises(Failure) as caught:
        specs.load(name)
    assert caught.value.code == 78
    return caught.value


def names(spec: str, tag: str) -> list[str]:
    return [entry["name"] for entry in specs.load(spec)[tag]]


def target(body: str, **fields) -> str:
    specs.forget()
    return routing.route(record.make("command", "t", body=body, **fields), stage="t")["target"]


# --- whose files they are


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
@pytest.mark.parametrize("warm", [False, True])
def test_an_own_file_that_others_may_write_is_refused_with_a_warm_cache_too(mode, warm):
    path = own("commands", '@phrase\n  name: "zap"\n  say: ["zap"]\n  target: "skill:status"\n@end')
    path.chmod(0o644)
    if warm:
        specs.load("commands")
    path.chmod(mode)
    for ask in (lambda: specs.load("commands"), specs.digest, specs.source_text, routing.load):
        specs.forget()
        with pytest.raises(Failure) as bad:
            ask()
        assert (bad.value.code, bad.value.hint) == (77, f"chmod 600 '{path}'")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a file that belongs to another")
def test_an_own_file_that_belongs_to_another_is_refused():
    path = own("commands", "")
    os.chown(path, 12345, -1)
    with pytest.raises(Failure) as bad:
        specs.load("commands")
    assert bad.value.code == 77
    assert f"'{path}' belongs to user 12345" in bad.value.message


def test_a_trust_file_that_others_may_write_trusts_nothing(tmp_path):
    project = tmp_path / "work" / ".ftai"
    own("commands", '@phrase\n  name: "zap"\n  say: ["zap"]\n  target: "skill:status"\n@end', project).chmod(0o666)
    specs.trust(str(tmp_path / "work"))
    assert target("zap") == "skill:status"
    os.chmod(Path(paths.state()) / "trusted", 0o666)
    specs.forget()
    with pytest.raises(Failure) as bad:
        specs.load("commands")
    assert bad.value.code == 77
    assert "trusted" in bad.value.message


# --- the shipped files


def test_the_shipped_specs_load_and_hold_what_they_are_for():
    assert set(SPECS) <= set(specs.names())
    assert {entry["name"] for entry in specs.load("system")["agent"]} == {"cfo", "cto", "coo"}
    assert {entry["name"] for entry in specs.load("memory")["tier"]} == {"short", "long", "file"}
    assert all(specs.load(name)["notes"] == [] for name in SPECS)


def test_every_phrase_and_rule_has_examples_of_both_kinds():
    for entry in [*specs.load("commands")["phrase"], *specs.load("mcp")["rule"]]:
        assert entry.get("match") or entry.get("tag") == "task", entry["name"]
        assert entry.get("not_match") or entry.get("any"), entry["name"]


def test_every_example_is_routed_to_its_own_phrase_or_rule():
    table = routing.load()
    for entry in [*specs.load("commands")["phrase"], *specs.load("mcp")["rule"]]:
        if entry["name"] in ("writing", "answering", "anything-else"):
            continue  # no model is set up as shipped
        for example in entry.get("match", ()):
            made = routing.decide({"@tag": "command", "body": example}, table)
            assert made["rule"] == entry["name"], f"{example!r}: {made['rule']}"


def test_skills_of_the_spec_are_those_of_the_code():
    assert set(names("system", "skill")) == set(skills.SKILLS)


def test_every_skill_and_every_program_can_be_said():
    said = {entry["target"] for entry in specs.load("commands")["phrase"]}
    assert {f"skill:{name}" for name in names("system", "skill")} <= said
    assert {f"cmd:{name}" for name in names("commands", "program")} <= said


def test_times_that_phrases_take_are_understood():
    """Every kind of {when}, filled with numbers that make sense, is a time for the code that reads it."""
    import random

    from serenamaster import dates

    states = specs.language(specs.load("commands")).listed("when")
    fill = (("####-##-##", "2026-11-12"), ("##.##.####", "11.11.2026"), ("#.##.####", "3.11.2026"), ("##.#.####", "11.3.2026"), ("#.#.####", "3.3.2026"))
    fill += (("####", "2026"), (":##", ":30"), ("###", "100"), ("##", "11"), ("#", "3"))
    now = dates.now_in("UTC")
    chance = random.Random(7)
    wrong = []
    for _ in range(2000):
        number, words = 0, []
        while not states[number][1] or (states[number][0] and chance.random() < 0.5):
            word = chance.choice(list(states[number][0]))
            number = states[number][0][word]
            words.append(word)
        text = " ".join(words)
        for shape, digits in fill:
            text = text.replace(shape, digits)
        due = dates.due(text, now)
        if (due is None or due[1]) and dates.span(text, now) is None and words[0] not in ("from", "between"):
            wrong.append(text)
    # `since tonight at 3am` and the like: one that nobody says, in a hundred.
    assert len(wrong) < 20, wrong


# --- what is refused, where


@pytest.mark.parametrize(
    ("spec", "body", "line", "said"),
    [
        ("config", '@setting\n  name: "x"\n  value: 1\n  colour: "red"\n  summary: "x"\n@end', 10, "unknown key 'colour'"),
        ("config", '@colour\n  name: "x"\n@end', 7, "unknown tag '@colour'"),
        ("config", '@setting\n  value: 1\n  summary: "x"\n@end', 7, "without 'name'"),
        ("config", '@setting\n  name: "x"\n  summary: "x"\n@end', 7, "without 'value'"),
        ("config", '@setting\n  name: "privacy"\n  value: "public"\n  choices: ["local", "cloud"]\n  summary: "x"\n@end', 9, "expected local or cloud"),
        ("config", '@limit\n  name: "x"\n  value: "many"\n  unit: "x"\n  summary: "x"\n@end', 9, "expected a whole number"),
        ("config", '@setting\n  name: "x"\n  value: 1\n  summary: "x"\n@end\n\n@setting\n  name: "x"\n@end', 14, "second '@setting'"),
        ("config", '@setting\n  name: "x"\n  value: 1\n  value: 2\n  summary: "x"\n@end', 10, "stands twice"),
        ("config", '@setting\n  name: "x"\n  value: 1\n  summary: "x"\n', 7, "never closed"),
        ("config", '@setting\n  name: "x"\n  value 1\n  summary: "x"\n@end', 7, "is no field"),
        ("config", '@model\n  name: "x"\n  provider: "nobody"\n@end', 9, "no provider 'nobody'"),
        ("config", '@provider\n  name: "x"\n  kind: "gemini"\n  summary: "x"\n@end', 9, "'kind' is 'gemini', expected anthropic, openai or mlx"),
        ("config", '@provider\n  name: "x"\n  kind: "openai"\n  summary: "x"\n  api: "completions"\n@end', 11, "expected chat or responses"),
        ("config", '@provider\n  name: "x"\n  kind: "openai"\n  summary: "x"\n  privacy: "mine"\n@end', 11, "expected local or cloud"),
        ("config", '@provider\n  name: "x"\n  kind: "openai"\n  summary: "x"\n  requests: 0.5\n@end', 11, "expected a whole number from 0"),
        ("config", '@provider\n  name: "x"\n  kind: "openai"\n  summary: "x"\n  deadline: "soon"\n@end', 11, "expected a number from 0"),
        ("config", '@provider\n  name: "x"\n  kind: "openai"\n  url: "http://example.net/v1"\n  key: "k"\n  summary: "x"\n@end', 10, "would show the key"),
        ("config", '@provider\n  name: "x"\n  kind: "openai"\n  url: "http://127.0.0.1.example.net/"\n  key: "k"\n  summary: "x"\n@end', 10, "expected https"),
        ("config", '@provider\n  name: "x"\n  kind: "openai"\n  url: "http://localhost@example.net/"\n  key: "k"\n  summary: "x"\n@end', 10, "expected https"),
        ("config", '@model\n  name: "x"\n  provider: "server"\n  fallback: ["claude",\n    "nobody"]\n@end', 11, "there is no model 'nobody'"),
        ("config", '@model\n  name: "x"\n  provider: "server"\n  refused: "nobody"\n@end', 10, "there is no model 'nobody'"),
        ("config", '@model\n  name: "x"\n  provider: "server"\n  window: -1\n@end', 10, "expected a whole number from 0"),
        ("config", '@model\n  name: "x"\n  provider: "server"\n  quality: "high"\n@end', 10, "expected a whole number from 0"),
        ("config", '@model\n  name: "x"\n  provider: "server"\n  system: ""\n@end', 10, "'system' is '', expected text"),
        ("config", '@budget\n  name: "x"\n  value: "five"\n  unit: "USD"\n  per: "day"\n@end', 9, "'value' is 'five', expected a number from 0"),
        ("config", '@budget\n  name: "x"\n  value: -5\n  unit: "USD"\n  per: "day"\n@end', 9, "expected a number from 0"),
        ("config", '@budget\n  name: "x"\n  value: true\n  unit: "USD"\n  per: "day"\n@end', 9, "expected a number from 0"),
        ("config", '@budget\n  name: "x"\n  value: 5\n  unit: "USD"\n  per: "week"\n@end', 11, "expected day or month"),
        ("config", '@budget\n  name: "x"\n  value: 5\n  unit: "USD"\n  per: "day"\n  over: "ask"\n@end', 12, "expected cheaper, local or stop"),
        ("config", '@budget\n  name: "x"\n  value: 5\n  unit: "USD"\n  per: "day"\n  provider: "nobody"\n@end', 12, "there is no provider 'nobody'"),
        ("config", '@budget\n  name: "x"\n  value: 5\n  unit: "USD"\n  per: "day"\n  model: "nobody"\n@end', 12, "there is no model 'nobody'"),
        ("config", '@budget\n  name: "x"\n  value: 5\n  unit: "USD"\n@end', 7, "without 'per'"),
        ("config", '@budget\n  name: "hints"\n  value: 5\n  unit: "USD"\n  per: "day"\n@end', 8, "'hints' is a @limit, not a @budget"),
        ("mcp", '@rule\n  name: "x"\n  any: true\n  target: "model:a"\n  reason: "x"\n  fallback: ["model:*",\n    "ask"]\n@end', 13, "'ask' is no fallback"),
        ("mcp", '@rule\n  name: "x"\n  any: true\n  target: "skill:help"\n  reason: "x"\n  fallback: "model:a"\n@end', 12, "a model as target"),
        ("mcp", '@rule\n  name: "x"\n  any: true\n  target: "model:a"\n  reason: "x"\n  quality: 0.5\n@end', 12, "expected a whole number from 0"),
        ("memory", '@tier\n  name: "x"\n  summary: "x"\n  keep: "long"\n@end', 10, "'keep' is 'long', expected a number"),
        ("memory", '@tier\n  name: "x"\n  summary: "x"\n  default: "yes"\n@end', 10, "expected true or false"),
        ("memory", '@retention\n  name: "x"\n  summary: "x"\n  rotate: "hourly"\n@end', 10, "expected daily, weekly or size"),
        ("memory", '@retention\n  name: "x"\n  summary: "x"\n  rotate: "size"\n@end', 10, "'rotate' is size, and there is no 'size'"),
        ("memory", '@retention\n  name: "x"\n  summary: "x"\n  size: 0\n@end', 10, "'size' is 0, expected a number of megabytes"),
        ("memory", '@retention\n  name: "x"\n  summary: "x"\n  size: 1.5\n@end', 10, "expected a whole number"),
        ("memory", '@retention\n  name: "x"\n  summary: "x"\n  keep_last: -1\n@end', 10, "expected a whole number"),
        ("release", '@gate\n  name: "x"\n  summary: "x"\n@end', 7, "without 'run'"),
        ("system", '@skill\n  name: "x y"\n  summary: "x"\n  slots: []\n@end', 8, "expected a name"),
        ("system", '@capability\n  name: "x"\n  summary: "x"\n  say: ["a (b"]\n@end', 10, "never closed"),
        ("commands", '@phrase\n  name: "x"\n  say: ["x"]\n  target: "skill:nosuch"\n@end', 10, "'skill:nosuch' does not exist"),
        ("commands", '@phrase\n  name: "x"\n  say: ["x"]\n  target: "cmd:nosuch"\n@end', 10, "'cmd:nosuch' does not exist"),
        ("commands", '@phrase\n  name: "x"\n  say: ["x"]\n  target: "nobody"\n@end', 10, "is no target"),
        ("commands", '@phrase\n  name: "x"\n  say: ["x"]\n  target: "mcp:server"\n@end', 10, "is no target"),
        ("commands", '@phrase\n  name: "x"\n  say: ["x {colour}"]\n  target: "skill:task"\n@end', 9, "has no slot 'colour'"),
        ("commands", '@phrase\n  name: "x"\n  say: ["x {what}"]\n  target: "cmd:date"\n@end', 9, "has no slot 'what'"),
        ("commands", '@phrase\n  name: "x"\n  say: ["x <nosuch>"]\n  target: "ask"\n@end', 9, "no expansion '<nosuch>'"),
        ("commands", '@phrase\n  name: "x"\n  say: ["x {nosuch:what}"]\n  target: "ask"\n@end', 9, "no list 'nosuch'"),
        ("commands", '@phrase\n  name: "x"\n  say: ["[x]"]\n  target: "ask"\n@end', 9, "matches no words"),
        ("commands", '@phrase\n  name: "x"\n  say: ["x y"]\n  target: "ask"\n  match: ["x y",\n    "x z"]\n@end', 12, "does not match 'x z'"),
        ("commands", '@phrase\n  name: "x"\n  say: ["x (y|z)"]\n  target: "ask"\n  not_match: ["x z"]\n@end', 11, "matches 'x z', which stands in"),
        ("commands", '@list\n  name: "x"\n  values: ["{x}"]\n@end', 9, "within itself"),
        ("commands", '@words\n  name: "x"\n  kind: "loud"\n  values: ["x"]\n@end', 9, "expected before, after or short"),
        ("mcp", '@rule\n  name: "x"\n  target: "ask"\n  reason: "x"\n@end', 7, "matches nothing"),
        ("mcp", '@rule\n  name: "x"\n  target: "ask"\n  reason: "x"\n  pattern: "(x"\n@end', 11, "no regular expression"),
        ("mcp", '@rule\n  name: "x"\n  target: "ask"\n  reason: "x"\n  capability: "flying"\n@end', 11, "no capability 'flying'"),
        ("mcp", '@rule\n  name: "x"\n  target: "ask"\n  reason: "x"\n  pattern: "x+"\n  match: ["yy"]\n@end', 12, "does not match 'yy'"),
        ("mcp", '@rule\n  name: "x"\n  target: "ask"\n  reason: "x"\n  privacy: "secret"\n  any: true\n@end', 11, "expected local or cloud"),
    ],
)
def test_what_does_not_belong_is_refused_with_file_and_line(spec, body, line, said):
    path = own(spec, body)
    bad = refused(spec)
    assert bad.message.startswith(f"{path}:{line}: "), bad.message
    assert said in bad.message


@pytest.mark.parametrize("url", ["https://example.net/v1", "http://127.0.0.1:8080/v1", "http://localhost/v1", "http://[::1]:8080/v1"])
def test_a_key_goes_over_https_or_stays_on_this_machine(url):
    own("config", f'@provider\n  name: "x"\n  kind: "openai"\n  url: "{url}"\n  key: "k"\n  summary: "x"\n@end')
    assert specs.find("config", "provider", "x")["url"] == url


def test_without_a_key_a_url_may_be_any_server_of_the_house():
    own("config", '@provider\n  name: "x"\n  kind: "openai"\n  url: "http://box.lan:8080/v1"\n  privacy: "local"\n  summary: "x"\n@end')
    assert specs.find("config", "provider", "x")["privacy"] == "local"


def test_models_may_name_each_other_and_such_as_are_turned_off():
    models = '@model\n  name: "a"\n  provider: "server"\n  fallback: ["b", "claude"]\n  refused: "b"\n@end\n'
    models += '@model\n  name: "b"\n  provider: "mlx"\n  fallback: "a"\n@end\n'
    own("config", models + '@model\n  name: "claude"\n  off: true\n@end\n@provider\n  name: "mlx"\n  off: true\n@end')
    found = specs.find("config", "model", "a")
    assert (found["fallback"], found["refused"]) == (["b", "claude"], ["b"])
    assert list(specs.load("config")["gone"]["model"]) == ["claude"]


def test_control_characters_and_bad_bytes_in_a_spec_are_refused():
    path = own("config", '@setting\n  name: "x"\n  value: "\x07"\n  summary: "x"\n@end')
    assert refused("config").message.startswith(f"{path}:9: ")
    path.write_bytes(b'@ftai v2.0\n@setting\n  name: "\xff"\n@end\n')
    specs.forget()
    assert str(path) in refused("config").message


def test_a_spec_that_is_too_big_or_no_file_is_refused():
    path = own("config", "// " + "x" * specs.SIZE)
    assert "too big" in refused("config").message
    path.unlink()
    path.mkdir()
    specs.forget()
    assert str(path) in refused("config").message


def test_a_broken_spec_stops_only_who_uses_it():
    own("release", "@nosuch\n@end")
    refused("release")
    assert specs.setting("privacy") == "local"
    assert target("what time is it") == "skill:time"


# --- laying over each other


def test_an_own_entry_stands_before_replaces_in_its_place_or_is_off():
    mine, new = '@tier\n  name: "long"\n  summary: "mine"\n@end\n\n', '@tier\n  name: "new"\n  summary: "new"\n  default: true\n@end\n\n'
    own("memory", mine + new + '@tier\n  name: "file"\n  off: true\n@end')
    assert names("memory", "tier") == ["new", "short", "long"]
    assert specs.find("memory", "tier", "long")["summary"] == "mine"
    assert list(specs.load("memory")["gone"]["tier"]) == ["file"]
    assert specs.tier() == "new"


def test_without_a_default_tier_it_is_said():
    own("memory", '@tier\n  name: "long"\n  off: true\n@end')
    with pytest.raises(Failure) as caught:
        specs.tier()
    assert caught.value.code == 78


def test_a_setting_comes_from_environment_then_own_then_shipped(monkeypatch):
    assert specs.setting("privacy") == "local"
    assert specs.setting("nosuch", "given") == "given"
    own("config", '@setting\n  name: "privacy"\n  value: "cloud"\n  choices: ["local", "cloud"]\n  summary: "x"\n@end')
    assert specs.setting("privacy") == "cloud"
    monkeypatch.setenv("FTAI_PRIVACY", "local")
    assert specs.setting("privacy") == "local"
    monkeypatch.setenv("FTAI_PRIVACY", "public")
    with pytest.raises(Failure, match="expected local or cloud"):
        specs.setting("privacy")
    monkeypatch.setenv("FTAI_HINTS", "7")
    assert specs.setting("hints") == 7
    monkeypatch.setenv("FTAI_HINTS", "seven")
    with pytest.raises(Failure):
        specs.setting("hints")


WRONG = {
    '@limit\n  name: "head_lines"\n  value: 0.5': "limit 'head_lines' is 0.5, expected a whole number from 1",
    '@limit\n  name: "recall_hits"\n  value: 2.5': "limit 'recall_hits' is 2.5",
    '@limit\n  name: "recall_hits"\n  value: 0': "limit 'recall_hits' is 0, expected a whole number from 1",
    '@limit\n  name: "find_seconds"\n  value: true': "limit 'find_seconds' is true",
    '@limit\n  name: "hints"\n  value: "many"': "limit 'hints' is 'many', expected a whole number from 0",
    '@limit\n  name: "hints"\n  value: -1': "limit 'hints' is -1",
    '@limit\n  name: "hints"\n  value: 9000000000000000000': "limit 'hints' is 9000000000000000000",
    '@setting\n  name: "lang"\n  value: 5': "setting 'lang' is 5, expected a value like 'en'",
    '@setting\n  name: "hint"\n  value: true': "setting 'hint' is true, expected a value like 'what can I say'",
    '@place\n  name: "notes"\n  value: 1.5': "place 'notes' is 1.5, expected a value like 'notes'",
    '@setting\n  name: "recall_hits"\n  value: "ten"': "'recall_hits' is a @limit, not a @setting",
}


@pytest.mark.parametrize("body", WRONG)
@pytest.mark.parametrize("layer", ["user", "project"])
def test_a_value_of_the_wrong_type_is_refused_in_every_layer(body, layer, home, monkeypatch):
    body += "" if layer == "project" else '\n  unit: "x"\n  summary: "x"' if body.startswith("@limit") else '\n  summary: "x"'
    path = project(home, monkeypatch, "config", f"{body}\n@end") if layer == "project" else own("config", f"{body}\n@end")
    bad = refused("config")
    assert WRONG[body.split('\n  unit: "x"')[0].split('\n  summary: "x"')[0]] in bad.message
    assert bad.message.startswith(f"{path}:{8 if 'not a @' in bad.message else 9}: ")


def test_an_owners_limit_keeps_the_least_of_the_shipped_one(monkeypatch):
    own("config", '@limit\n  name: "head_lines"\n  value: 3\n  least: 0\n  unit: "lines"\n  summary: "x"\n@end')
    assert specs.setting("head_lines") == 3
    monkeypatch.setenv("FTAI_HEAD_LINES", "0")
    with pytest.raises(Failure):
        specs.setting("head_lines")


@pytest.mark.parametrize(
    ("name", "value"),
    [("recall_hits", "-3"), ("head_lines", "-5"), ("head_lines", "0"), ("find_seconds", "2.5"), ("hints", "1" + "0" * 30), ("lang", "\udcff")],
)
def test_a_value_in_the_environment_that_does_not_fit_names_its_variable(monkeypatch, name, value):
    monkeypatch.setenv(f"FTAI_{name.upper()}", value)
    with pytest.raises(Failure) as bad:
        specs.setting(name)
    assert bad.value.code == 78
    assert bad.value.message.startswith(f"FTAI_{name.upper()} is '{value}', expected ")


# --- a project


def project(tmp_path, monkeypatch, name: str, body: str) -> Path:
    monkeypatch.chdir(tmp_path / "work")
    deep = tmp_path / "work" / "a" / "b"
    deep.mkdir(parents=True, exist_ok=True)
    path = own(name, body, tmp_path / "work" / ".ftai")
    monkeypatch.chdir(deep)
    specs.forget()
    return path


def test_an_untrusted_project_may_lower_a_limit_and_not_raise_it(home, monkeypatch):
    project(home, monkeypatch, "config", '@limit\n  name: "hints"\n  value: 1\n@end\n\n@limit\n  name: "head_lines"\n  value: 99\n@end')
    assert specs.setting("hints") == 1
    assert specs.setting("head_lines") == 10
    assert ["head_lines" in note or ":12: left out" in note for note in specs.load("config")["notes"]] == [True]


def test_an_untrusted_project_may_make_local_and_not_cloud(home, monkeypatch):
    cloud = '@setting\n  name: "privacy"\n  value: "cloud"\n@end'
    project(home, monkeypatch, "config", cloud)
    assert specs.setting("privacy") == "local"
    assert len(specs.load("config")["notes"]) == 1
    own("config", cloud.replace("@end", '  choices: ["local", "cloud"]\n  narrow: "local"\n  summary: "x"\n@end'))
    assert specs.setting("privacy") == "cloud"
    project(home, monkeypatch, "config", cloud.replace('"cloud"', '"local"'))
    assert specs.setting("privacy") == "local"


def test_what_an_untrusted_project_turned_off_asks_and_takes_no_other_way(home, monkeypatch):
    own("mcp", '@rule\n  name: "all"\n  target: "model:x"\n  reason: "x"\n  any: true\n@end')
    assert target("what time is it") == "skill:time"
    project(home, monkeypatch, "commands", '@phrase\n  name: "time"\n  off: true\n@end')
    made = routing.route(record.make("command", "t", body="what time is it"), stage="t")
    assert (made["target"], made["rule"]) == ("ask", "time")
    assert made["@blocks"][0] == {
        "@tag": "alternative",
        "target": "skill:time",
        "why_not": "off",
        "reason": "turned off by project/serenamaster.commands.ftai:7",
    }
    project(home, monkeypatch, "system", '@skill\n  name: "status"\n  off: true\n@end')
    assert target("status") == "ask"
    assert specs.find("system", "skill", "status") is None
    assert target("something else") == "model:x"


def test_an_untrusted_project_adds_and_changes_nothing_else(home, monkeypatch):
    body = '@phrase\n  name: "time"\n  say: ["zap"]\n  target: "cmd:date"\n@end\n\n@phrase\n  name: "new"\n  say: ["zap {what}"]\n  target: "skill:task"\n@end'
    body += '\n\n@words\n  name: "contractions"\n  off: true\n@end\n\n@program\n  name: "date"\n  run: ["rm", "-rf", "/"]\n@end'
    project(home, monkeypatch, "commands", body)
    assert target("zap") == target("zap it") == "ask"
    assert target("what's the time") == "skill:time"
    assert specs.find("commands", "program", "date")["run"][0] == "date"
    assert len(specs.load("commands")["notes"]) == 4
    assert "ftai-doctor trust" in specs.load("commands")["notes"][0]


def test_a_trusted_project_counts_until_its_file_changes(home, monkeypatch):
    body = '@phrase\n  name: "zap"\n  say: ["zap"]\n  target: "skill:status"\n@end'
    path = project(home, monkeypatch, "commands", body)
    assert target("zap") == "ask"
    assert specs.trust(str(home / "work")) == [(str(path), hashlib.sha256(path.read_bytes()).hexdigest())]
    assert target("zap") == "skill:status"
    project(home, monkeypatch, "commands", body.replace("status", "help"))
    assert target("zap") == "ask"
    specs.trust(str(home / "work" / ".ftai"))
    assert target("zap") == "skill:help"
    with pytest.raises(Failure) as caught:
        specs.trust(str(home))
    assert caught.value.code == 66


def test_a_project_of_somebody_else_is_none(home, monkeypatch):
    project(home, monkeypatch, "commands", '@phrase\n  name: "time"\n  off: true\n@end')
    assert specs.project() == str(home / "work" / ".ftai")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    stat = os.stat

    def theirs(path, *more, **keys):
        seen = stat(path, *more, **keys)
        return os.stat_result([*seen[:4], 54321, *seen[5:]]) if str(path).endswith(".ftai") else seen

    monkeypatch.setattr(os, "stat", theirs)
    assert specs.project() is None


# --- the cache


def cache(name: str = "commands") -> Path:
    return Path(paths.cache()) / "specs" / f"{name}.json"


def test_a_warm_load_reads_the_cache_alone(monkeypatch):
    specs.load("commands")
    assert cache().stat().st_mode & 0o777 == 0o600
    specs.forget()
    monkeypatch.setattr(specs, "compile_", lambda *_: pytest.fail("compiled again"))
    assert specs.load("commands")["phrase"]


@pytest.mark.parametrize("spoil", ["cut", "flip", "empty", "noise", "version", "mode"])
def test_a_spoilt_cache_is_made_again(spoil):
    made = specs.load("commands")
    good = cache().read_bytes()
    if spoil == "cut":
        cache().write_bytes(good[: len(good) // 2])
    elif spoil == "flip":
        at = good.rindex(b"invoice")
        cache().write_bytes(good[:at] + b"x" + good[at + 1 :])
    elif spoil == "empty":
        cache().write_bytes(b"")
    elif spoil == "noise":
        cache().write_bytes(os.urandom(1000))
    elif spoil == "version":
        cache().write_bytes(good.replace(specs.FORMAT.encode(), b"0/0.0.0", 1))
    else:
        # Whoever could write it could have: it is not believed.
        cache().write_bytes(good.replace(b"skill:task", b"skill:help"))
        cache().chmod(0o666)
    specs.forget()
    assert specs.load("commands") == made
    assert cache().read_bytes() == good
    assert cache().stat().st_mode & 0o777 == 0o600


def test_a_cache_of_another_user_is_not_believed(monkeypatch):
    made = specs.load("memory")
    place = cache("memory")
    head, _, data = place.read_bytes().partition(b"\n")
    forged = data.replace(b"for today", b"for never")
    from binascii import crc32

    place.write_bytes(orjson.dumps([specs.FORMAT, crc32(forged), orjson.loads(head)[2]]) + b"\n" + forged)
    specs.forget()
    assert specs.load("memory") != made  # so far it was our own, and well formed
    fstat = os.fstat
    monkeypatch.setattr(os, "fstat", lambda fd: os.stat_result([*fstat(fd)[:4], 54321, *fstat(fd)[5:]]))
    specs.forget()
    assert specs.load("memory") == made


def test_without_a_place_for_the_cache_all_works(home, monkeypatch):
    (home / "ftai").mkdir(mode=0o700)
    (home / "ftai" / "cache").write_text("no folder")
    assert specs.load("commands")["phrase"]
    assert target("what time is it") == "skill:time"


def test_a_change_counts_at_once_even_within_the_same_tick():
    path = own("memory", '@tier\n  name: "aaaa"\n  summary: "x"\n@end')
    for name in ("bbbb", "cccc", "dddd"):
        path.write_text(path.read_text().replace(path.read_text().split('name: "')[1][:4], name))
        specs.forget()
        assert names("memory", "tier")[0] == name
    # What could change again without a new time is not kept yet.
    assert not cache("memory").exists()
    os.utime(path, (time.time() - 10,) * 2)
    specs.forget()
    assert names("memory", "tier")[0] == "dddd"
    assert cache("memory").exists()


def test_two_at_once_leave_one_whole_cache():
    import multiprocessing

    def work():
        for _ in range(5):
            specs.forget()
            shutil.rmtree(Path(paths.cache()) / "specs", ignore_errors=True)
            assert specs.load("commands")["phrase"]

    workers = [multiprocessing.get_context("fork").Process(target=work) for _ in range(3)]
    [worker.start() for worker in workers]
    [worker.join() for worker in workers]
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    specs.forget()
    specs.load("commands")
    assert not [name for name in os.listdir(cache().parent) if name.endswith(".tmp")]


def test_the_digest_tells_every_text_from_every_other():
    first = specs.digest()
    assert len(first) == 12
    assert all(path.read_text() in specs.source_text() for path in SHIPPED.glob("*.ftai"))
    path = own("release", '@gate\n  name: "x"\n  summary: "x"\n  run: ["true"]\n@end')
    second = specs.digest()
    assert second != first
    assert path.read_text() in specs.source_text()
    path.unlink()
    specs.forget()
    assert specs.digest() == first


# --- each of the six is in use: a change of the file changes what is done, without a change of code


def test_commands_spec_decides_what_can_be_said():
    assert target("zap the invoice") == "ask"
    own("commands", '@phrase\n  name: "zap"\n  say: ["zap {what}"]\n  target: "skill:finish"\n  match: ["zap it"]\n  not_match: ["zap"]\n@end')
    assert target("zap the invoice") == "skill:finish"


def test_mcp_spec_decides_who_does_what_no_phrase_covers():
    assert target("what should I do next") == "agent:coo"
    own("mcp", '@rule\n  name: "operations"\n  target: "skill:tasks"\n  reason: "mine"\n  capability: "operations"\n@end')
    assert target("what should I do next") == "skill:tasks"


def test_system_spec_decides_which_skills_and_capabilities_there_are():
    assert target("what time is it") == "skill:time"
    own("system", '@skill\n  name: "time"\n  off: true\n@end\n\n@capability\n  name: "operations"\n  summary: "x"\n  say: ["zap"]\n@end')
    assert target("what time is it") == "ask"
    assert target("zap") == "agent:coo"
    with pytest.raises(Failure) as caught:
        skills.named("time")
    assert caught.value.code == 77


def test_config_spec_decides_the_privacy_of_routes():
    def privacy():
        specs.forget()
        return routing.route(record.make("command", "t", body="status"), stage="t")["privacy"]

    assert privacy() == "local"
    own("config", '@setting\n  name: "privacy"\n  value: "cloud"\n  choices: ["local", "cloud"]\n  summary: "x"\n@end')
    assert privacy() == "cloud"


def test_shipped_retention_removes_no_segment():
    kept = {entry["name"]: {key: entry[key] for key in entry if key.startswith(("keep", "rotate", "size"))} for entry in specs.load("memory")["retention"]}
    assert kept == {
        "journal": {"rotate": "daily", "size": 256},
        "backups": {"keep_last": 7, "keep_daily": 14, "keep_weekly": 8, "keep_monthly": 24},
    }


def test_a_project_that_is_not_trusted_does_not_say_what_is_kept():
    folder = Path.cwd() / ".ftai"
    own("memory", '@retention\n  name: "journal"\n  summary: "x"\n  keep_last: 1\n@end\n\n@retention\n  name: "backups"\n  off: true\n@end', folder)
    assert "keep_last" not in specs.find("memory", "retention", "journal")
    assert specs.find("memory", "retention", "backups")["keep_last"] == 7
    assert len(specs.load("memory")["notes"]) == 2


def test_memory_spec_decides_where_a_memory_is_kept():
    class Job:
        target, slots = "skill:remember", {"what": "x"}

        @staticmethod
        def make(tag, **fields):
            return fields

    assert next(skills.remember(Job))["tier"] == "long"
    own("memory", '@tier\n  name: "short"\n  summary: "x"\n  default: true\n@end')
    assert next(skills.remember(Job))["tier"] == "short"


def test_release_spec_decides_which_gates_are_run(home):
    import subprocess
    import sys

    off = "\n\n".join(f'@gate\n  name: "{name}"\n  off: true\n@end' for name in names("release", "gate"))
    gate = '@gate\n  name: "mine"\n  summary: "x"\n  run: ["echo", "hello {version}"]\n  contains: "hello %s"\n@end\n\n'
    for wanted, code in (("0.", 0), ("nothing", 1)):
        own("release", gate % wanted + off)
        ran = subprocess.run([sys.executable, ROOT / "tests" / "gates.py"], capture_output=True, text=True, check=False)
        assert ran.returncode == code, ran.stdout + ran.stderr
        assert "mine" in ran.stdout
        assert "main-job" not in ran.stdout


def test_an_installed_tree_has_its_specs_beside_the_module(home):
    import subprocess
    import sys

    site = home / "site" / "serenamaster"
    shutil.copytree(ROOT / "lib" / "serenamaster", site, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(SHIPPED, site / "specs")
    code = "from serenamaster import routing, specs; print(specs.shipped(), routing.decide({'@tag': 'command', 'body': 'status'}, routing.load())['target'])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": str(home / "site")})
    assert ran.stdout.split() == [str(site / "specs"), "skill:status"]


# -- keys, consent, secret settings

KEY = '@key\n  name: "k"\n  summary: "s"\n'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (KEY + '  check: "http://example.org/"\n  header: "a: {key}"\n@end\n', "would show the key to the network"),
        (KEY + '  check: "http://127.0.0.1.example.org/"\n  header: "a: {key}"\n@end\n', "would show the key to the network"),
        (KEY + '  check: "http://localhost@example.org/"\n  header: "a: {key}"\n@end\n', "would show the key to the network"),
        (KEY + '  check: "file:///etc/passwd"\n  header: "a: {key}"\n@end\n', "would show the key to the network"),
        (KEY + '  check: "https://example.org/"\n@end\n', "'header' is not what 'check' needs"),
        (KEY + '  check: "https://example.org/"\n  header: "a: b"\n@end\n', "'header' is not what 'check' needs"),
        (KEY + '  check: "https://example.org/"\n  header: ["a: {key}", "b"]\n@end\n', "'header' is not what 'check' needs"),
        (KEY + '  check: "https://example.org/"\n  header: ["a: {key}", "b: {key}"]\n@end\n', "'header' is not what 'check' needs"),
        (KEY + '  key: "value"\n@end\n', "unknown key 'key'"),
        ('@consent\n  name: "k"\n  until: "friday"\n@end\n', "'until' is 'friday'"),
    ],
)
def test_keys_and_consents_that_are_wrong(text, reason):
    own("config", text)
    with pytest.raises(Failure) as bad:
        specs.load("config")
    assert bad.value.code == 78 and reason in bad.value.message and "config.ftai:" in bad.value.message


@pytest.mark.parametrize("url", ["https://example.org/v1", "http://127.0.0.1:8080/v1", "http://[::1]/", "http://localhost"])
def test_where_a_key_may_be_checked(url):
    own("config", f'{KEY}  check: "{url}"\n  header: "a: {{key}}"\n@end\n')
    assert specs.find("config", "key", "k")["check"] == url


SECRET = '// mine\n\n@setting\n  name: "token"\n  secret: true\n  summary: "s"\n  value: "{}"\n@end\n'


def test_a_secret_in_the_clear():
    path = own("config", SECRET.format("in the clear"))
    with pytest.raises(Failure) as bad:
        specs.load("config")
    assert bad.value.code == 78 and "in the clear" not in bad.value.message + bad.value.hint and "setting:token" in bad.value.hint
    specs.pardon("token")
    assert specs.setting("token") == ""
    assert specs.put_value("token", "aes256gcm:AAAA") == str(path)
    assert specs.setting("token") == "aes256gcm:AAAA"
    assert path.read_text().endswith("\n\n" + SECRET.format("aes256gcm:AAAA") + "\n")
    assert path.stat().st_mode & 0o777 == 0o600


def test_pardon_is_for_one_setting():
    own("config", SECRET.format("in the clear"))
    with pytest.raises(Failure):
        specs.pardon("other")


@pytest.mark.parametrize("name", ["lang", "no-such", ""])
def test_only_a_secret_setting_is_written(name):
    path = own("config", SECRET.format(""))
    with pytest.raises(Failure) as bad:
        specs.put_value(name, "aes256gcm:AAAA")
    assert bad.value.code == 78
    assert path.read_text().endswith("\n\n" + SECRET.format("") + "\n")


def test_a_value_without_its_line_gets_one():
    path = own("config", SECRET.format("").replace('  value: ""\n', ""))
    specs.put_value("token", "aes256gcm:AAAA")
    assert specs.setting("token") == "aes256gcm:AAAA"
    assert path.read_text().count("value:") == 1


def test_a_config_that_is_a_link_is_not_written():
    path = own("config", SECRET.format(""))
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")
    with pytest.raises(Failure) as bad:
        specs.put_value("token", "aes256gcm:AAAA")
    assert bad.value.code == 77
    assert path.is_symlink()


def test_a_project_declares_no_key_and_agrees_to_nothing(home):
    body = '@consent\n  name: "anthropic"\n@end\n@key\n  name: "anthropic"\n  summary: "s"\n  cmd: ["steal"]\n  readers: ["everybody"]\n@end'
    own("config", body, home / "work" / ".ftai")
    found = specs.load("config")
    assert found["consent"] == [] and "cmd" not in specs.find("config", "key", "anthropic")
    assert len(found["notes"]) == 2
    specs.trust(str(home / "work"))
    assert [entry["name"] for entry in specs.load("config")["consent"]] == ["anthropic"]


# --- budgets of a project


BUDGET = '@budget\n  name: "daily"\n  value: 5\n  unit: "USD"\n  per: "day"\n@end'


@pytest.mark.parametrize(
    ("body", "value"),
    [
        ('  value: 2.5', 2.5),
        ('  value: 0', 0),
        ('  value: 5', 5),
        ('  value: 6', 5),
        ('  value: 2\n  unit: "EUR"', 5),
        ('  value: 2\n  over: "cheaper"', 5),
        ('  value: 2\n  per: "month"', 5),
        ('  value: true', 5),
        ('  off: true', 5),
    ],
)  # fmt: skip
def test_a_project_may_lower_a_budget_and_nothing_else(body, value, home, monkeypatch):
    own("config", BUDGET)
    path = project(home, monkeypatch, "config", f'@budget\n  name: "daily"\n{body}\n@end')
    config = specs.load("config")
    (found,) = config["budget"]
    assert (found["value"], found["unit"], found["per"], found.get("over")) == (value, "USD", "day", None)
    lowered = body in ("  value: 2.5", "  value: 0", "  value: 5")
    assert [f"{path}:7: left out" in note for note in config["notes"]] == ([] if lowered else [True])


def test_a_project_adds_no_budget_that_would_be_read_as_one_of_the_owners(home, monkeypatch):
    project(home, monkeypatch, "config", BUDGET)
    config = specs.load("config")
    assert config["budget"] == []
    assert "left out" in config["notes"][0]
