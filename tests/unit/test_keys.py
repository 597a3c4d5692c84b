"""Keys: what a provider makes of a new one, what is kept of the old, and what is said of times and targets."""

import multiprocessing
import secrets as chance
import socket
import sys
import time
from pathlib import Path

import pytest
from serenamaster import dates, keys, redact, secret, specs
from serenamaster.errors import Failure

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))
import keysite


@pytest.fixture
def provider():
    made = keysite.Provider()
    yield made
    made.close()


def fake() -> str:
    return "trial-" + chance.token_urlsafe(30)


class Desk:
    """A keeper with a home of its own; acts: what it told the journal."""

    def __init__(self, entry: dict, missing: str = ""):
        self.acts: list[tuple] = []
        self.keeper = keys.Keeper(secret, redact, self.tell, {"trial": entry}, lambda name: ("trial", missing))

    def tell(self, act, subject, outcome, because=None, intent=None):
        self.acts.append((act, subject, outcome, because))
        return {}

    def states(self) -> list[tuple[str, str]]:
        return [(each["state"], each["value"]) for each in (secret.item("trial") or {"values": ()})["values"]]

    def shelve(self, **changes) -> None:
        """Changes all values that the store holds."""
        item = secret.item("trial")
        secret.replace("trial", {"v": 1, "values": [each | changes for each in item["values"]]})


@pytest.fixture
def desk(tmp_path, monkeypatch, provider):
    monkeypatch.setenv("FTAI_HOME", str(tmp_path))
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    specs.forget()
    made = Desk({"check": f"{provider.url}/models", "header": ["x-api-key: {key}", "x-version: 7"], "grace": 1})
    made.old = fake()
    made.keeper.set("trial", made.old)
    made.acts.clear()
    yield made
    specs.forget()


def code_of(function, *args, **more) -> int:
    with pytest.raises(Failure) as bad:
        function(*args, **more)
    for value in [*args, *more.values()]:
        assert type(value) is not str or "trial-" not in value or value not in bad.value.message + bad.value.hint
    return bad.value.code


def marks() -> set[str]:
    return {name.partition("#")[0] for name in redact.known()}


# -- rotation


def test_a_key_that_is_taken(desk, provider):
    new = fake()
    provider.keys.add(new)
    desk.keeper.rotate("trial", new, check=True)
    assert desk.states() == [("current", new), ("old", desk.old)]
    assert provider.asked == [("/models", new)]
    assert [act[:3] for act in desk.acts] == [("key-rotate", "trial", "intended"), ("key-rotate", "trial", "done")]
    assert "HTTP 200" in desk.acts[1][3] and new not in str(desk.acts)


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_not_taken_is_dropped(desk, provider, status):
    provider.answers["/models"] = status, {}
    new = fake()
    assert code_of(desk.keeper.rotate, "trial", new, check=True) == 77
    assert desk.states() == [("current", desk.old)]
    assert len(redact.known()) == 1
    assert [act[2] for act in desk.acts] == ["intended", "refused"]


@pytest.mark.parametrize("status", [400, 404, 429, 500, 529])
def test_an_answer_that_says_nothing_keeps_the_new_one_beside(desk, provider, status):
    provider.answers["/models"] = status, {}
    new = fake()
    assert code_of(desk.keeper.rotate, "trial", new, check=True) == 75
    assert desk.states() == [("current", desk.old), ("next", new)]
    # Another new one takes its place.
    provider.answers.clear()
    newer = fake()
    provider.keys.add(newer)
    desk.keeper.rotate("trial", newer, check=True)
    assert desk.states() == [("current", newer), ("old", desk.old)]
    assert len(redact.known()) == 2


def test_a_redirection_is_not_followed(desk, provider):
    elsewhere = keysite.Provider()
    try:
        provider.answers["/models"] = 302, {"Location": f"{elsewhere.url}/models"}
        assert code_of(desk.keeper.rotate, "trial", fake(), check=True) == 75
        assert elsewhere.asked == []
    finally:
        elsewhere.close()


def test_a_key_for_this_machine_goes_past_no_proxy(desk, provider, monkeypatch):
    proxy = keysite.Provider()
    monkeypatch.setenv("http_proxy", proxy.url)
    try:
        new = fake()
        provider.keys.add(new)
        desk.keeper.rotate("trial", new, check=True)
        assert proxy.asked == []
    finally:
        proxy.close()


def test_nobody_there(desk):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        desk.keeper.entries["trial"]["check"] = f"http://127.0.0.1:{free.getsockname()[1]}/"
        assert code_of(desk.keeper.rotate, "trial", fake(), check=True) == 75
    assert [state for state, _ in desk.states()] == ["current", "next"]


def test_a_provider_that_hangs(desk, provider, monkeypatch):
    monkeypatch.setattr(keys, "TRY", 0.3)
    provider.hang.clear()
    assert code_of(desk.keeper.rotate, "trial", fake(), check=True) == 75


def test_a_server_that_drips(monkeypatch):
    """Each byte comes in time, the answer never does."""
    import threading

    monkeypatch.setattr(keys, "TRY", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        over = threading.Event()

        def drip():
            taken, _ = server.accept()
            with taken:
                taken.sendall(b"HTTP/1.1 200 OK\r\n")
                while not over.wait(0.05):
                    taken.sendall(b"x: y\r\n")

        threading.Thread(target=drip, daemon=True).start()
        with pytest.raises(Failure) as bad:
            keys.tried(f"http://127.0.0.1:{server.getsockname()[1]}/", ["x-api-key: a"])
        over.set()
        assert bad.value.code == 75 and "no answer within" in bad.value.message


@pytest.mark.parametrize("value", ["trial-two\nx-other: lines", "trial-\u20ac-no-latin-1"])
def test_a_key_that_no_header_can_hold(desk, provider, value):
    assert code_of(desk.keeper.rotate, "trial", value, check=True) == 65
    assert provider.asked == []
    assert desk.states() == [("current", desk.old)]


def test_without_consent_nothing_is_asked_and_nothing_stored(desk, provider):
    desk.keeper.consent = lambda name: ("trial", "nobody agreed to it")
    assert code_of(desk.keeper.rotate, "trial", fake(), check=True) == 77
    assert provider.asked == []
    assert desk.states() == [("current", desk.old)]


def test_without_a_check_in_the_spec(desk):
    desk.keeper.entries.clear()
    assert code_of(desk.keeper.rotate, "trial", fake(), check=True) == 78
    desk.keeper.rotate("trial", fake(), check=False)


def test_the_fingerprint_is_there_before_the_value_and_goes_after_it(desk, monkeypatch):
    seen = []
    replace = secret.replace

    def watched(name, item, **more):
        seen.append((len(redact.known()), len(item["values"])))
        return replace(name, item, **more)

    monkeypatch.setattr(secret, "replace", watched)
    desk.keeper.rotate("trial", fake(), check=False)
    assert seen == [(2, 2), (2, 2)]
    desk.shelve(until="2020-01-01T00:00:00Z")
    desk.keeper.due(pytest.fail, None, None)
    assert len(redact.known()) == 1 and marks() == {"trial"}
    desk.keeper.remove("trial")
    assert not redact.known()


def test_the_fingerprints_of_other_keys_stay(desk):
    desk.keeper.set("other", fake())
    desk.keeper.set("trial", fake())
    desk.keeper.rotate("trial", fake(), check=False)
    assert marks() == {"other", "trial"} and len(redact.known()) == 3
    desk.keeper.remove("trial")
    assert marks() == {"other"}


def test_several_old_ones_are_kept(desk):
    first, second = fake(), fake()
    desk.keeper.rotate("trial", first, check=False)
    desk.keeper.rotate("trial", second, check=False)
    assert desk.states() == [("current", second), ("old", first), ("old", desk.old)]


@pytest.mark.parametrize("until", ["2020-01-01T00:00:00Z", "2999-01-01T00:00:00Z", "soon", None])
def test_an_old_one_goes_when_its_time_is_over_or_was_never_right(desk, until):
    desk.keeper.rotate("trial", fake(), check=False)
    desk.shelve(until=until)
    assert desk.keeper.plan() == ["would remove an old key 'trial'"]
    desk.keeper.due(pytest.fail, None, None)
    assert [state for state, _ in desk.states()] == ["current"]
    assert desk.keeper.plan() == []


def test_what_is_due_is_rotated_and_checked(desk, provider):
    new = fake()
    provider.keys.add(new)
    desk.keeper.entries["trial"] |= {"max_age": 10, "rotate_cmd": ["make-one"]}
    desk.keeper.due(pytest.fail, pytest.fail, pytest.fail)
    desk.shelve(added="2020-01-01T00:00:00.000Z")
    asked = []
    desk.keeper.due(pytest.fail, pytest.fail, lambda argv: asked.append(argv) or f"{new}\n".encode())
    assert asked == [["make-one"]]
    assert [pair for pair in desk.states() if pair[0] == "current"] == [("current", new)]
    assert provider.asked == [("/models", new)]


def test_of_two_at_once_one_rotates(desk, provider, tmp_path):
    desk.keeper.entries["trial"] = {"max_age": 10, "rotate_cmd": ["make-one"]}
    desk.shelve(added="2020-01-01T00:00:00.000Z")
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(4)

    def run(argv):
        with (tmp_path / "made").open("a") as made:
            made.write("one\n")
        return fake().encode()

    def act():
        barrier.wait()
        desk.keeper.due(pytest.fail, pytest.fail, run)

    crons = [context.Process(target=act) for _ in range(4)]
    for cron in crons:
        cron.start()
    for cron in crons:
        cron.join()
    assert (tmp_path / "made").read_text() == "one\n"
    assert [state for state, _ in desk.states()] == ["current", "old"]


@pytest.mark.parametrize("added", ["2020-01-01T00:00:00.000Z", "2999-01-01T00:00:00.000Z"])
def test_what_is_due_and_cannot_is_told(desk, added):
    desk.keeper.entries["trial"]["max_age"] = 10
    desk.shelve(added=added)
    told = []
    desk.keeper.due(pytest.fail, lambda *words: told.append(words), pytest.fail)
    assert [(name, limit) for name, _, limit in told] == [("trial", 10)]
    (fields,) = [fields for fields in keys.listed(secret.listed(), desk.keeper.entries) if fields["name"] == "trial"]
    assert fields["overdue"] is True and fields["age"] > 10


def test_a_key_that_cannot_be_rotated_does_not_stop_the_others(desk, provider):
    desk.keeper.set("other", fake())
    desk.keeper.entries |= {name: {"max_age": 0, "rotate_cmd": [name]} for name in ("other", "trial")}
    new, bad, told = fake(), [], []

    def run(argv):
        if argv == ["other"]:
            raise Failure("it failed", 69)
        return new.encode()

    desk.keeper.due(bad.append, lambda *words: told.append(words[0]), run)
    assert [failure.code for failure in bad] == [69] and told == ["other"]
    assert ("current", new) in desk.states()


def test_the_same_key_again(desk):
    assert code_of(desk.keeper.rotate, "trial", desk.old, check=False) == 65


def test_what_another_program_stored_is_rotated(desk):
    secret.replace("trial", {"v": 1, "values": [{"value": desk.old, "state": "current"}]})
    new = fake()
    desk.keeper.rotate("trial", new, check=False)
    assert desk.states() == [("current", new), ("old", desk.old)]


def test_a_bug_in_an_act_is_on_record(desk):
    with pytest.raises(ZeroDivisionError):
        desk.keeper.done("key-set", "trial", lambda: 1 / 0)
    assert desk.acts[-1] == ("key-set", "trial", "failed", "ZeroDivisionError")


def test_a_full_disk_is_told_with_the_file(desk, tmp_path):
    """A limit on the size of files is as a full disk to who writes one."""
    import resource
    import signal

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(Failure) as bad:
            desk.keeper.set("trial", fake())
        with pytest.raises(Failure) as other:
            desk.keeper.done("key-set", "trial", lambda: (tmp_path / "x").write_bytes(bytes(1000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
    assert (bad.value.code, other.value.code) == (74, 74)
    assert f"'{tmp_path}/state/keys/fingerprints'" in bad.value.message and "'trial'" not in other.value.message
    assert [act[2] for act in desk.acts] == ["intended", "failed"] * 2
    assert desk.states() == [("current", desk.old)]


def test_an_act_without_its_intent_is_not_done(desk):
    def full(*_):
        raise Failure("cannot write the journal", 74)

    desk.keeper.tell = full
    for act in (lambda: desk.keeper.set("trial", fake()), lambda: desk.keeper.rotate("trial", fake(), check=False), lambda: desk.keeper.remove("trial")):
        assert code_of(act) == 74
    assert desk.states() == [("current", desk.old)]


# -- values, times, targets


@pytest.mark.parametrize(("data", "value"), [(b"abc\n", "abc"), (b"abc\r\n", "abc"), (b"abc", "abc"), (b"a\n\n", "a\n"), ("ä\tb".encode(), "ä\tb")])
def test_values(data, value):
    assert keys.checked(data) == value


@pytest.mark.parametrize("data", [b"", b"\n", b"  \n", b"\xff\xfe", b"a\x00b", b"a\x1b[31mb"])
def test_what_is_no_value(data):
    assert code_of(keys.checked, data) == 65


@pytest.mark.parametrize(
    ("words", "end"),
    [
        ("2999-12-31", "3000-01-01T00:00:00Z"),
        ("2999-12-31T12:00:00+01:00", "2999-12-31T11:00:00Z"),
        ("until 2999-12-31", "3000-01-01T00:00:00Z"),
        ("9999-12-31", "9999-12-31T23:59:59Z"),
        ("until 3000-01-01", "3000-01-01T23:59:59Z"),
        (None, None),
    ],
)
def test_until(words, end):
    assert keys.until(words) == end


@pytest.mark.parametrize("words", ["friday", "tomorrow", "in 3 days", "next week", "end of month"])
def test_until_words_that_people_say(words):
    from datetime import datetime

    assert datetime.fromisoformat(keys.until(words)) > dates.now_in("UTC")


@pytest.mark.parametrize("words", ["", " ", "9999-13-31", "9999-02-30", "soonish", "yesterday", "2020-01-01", "13"])
def test_until_what_is_no_time_to_come(words):
    assert code_of(keys.until, words) == 2


def test_since():
    assert keys.since(None) == "" and keys.since("2026-11-01") == "2026-11-01T00:00:00.000Z"
    assert keys.since("monday")[:10] <= time.strftime("%Y-%m-%d", time.gmtime())
    assert code_of(keys.since, "soonish") == 2


@pytest.mark.parametrize("name", ["anthropic", "my-server_2", "cmd:send", "webhook:hooks.example.org", "webhook:localhost:8080", "export"])
def test_targets(name):
    assert keys.target(name) == name


def test_the_names_of_hosts_know_no_case():
    assert keys.target("webhook:Hooks.Example.ORG") == "webhook:hooks.example.org"
    assert keys.target("cmd:Send") == "cmd:Send"


@pytest.mark.parametrize("name", ["", "mail:x", "cmd:", "a b", "a/b", ":x"])
def test_what_is_no_target(name):
    assert code_of(keys.target, name) == 2


def test_scope():
    thread = "0199c2f4-7d1e-7a31-9c1b-2f0a5b6c7d8e"
    assert keys.scope(f"task, {thread},") == ["task", thread]
    assert keys.scope(None) == []
    for words in ("Task", "", " ", ",", " , "):
        assert code_of(keys.scope, words) == 2
