"""state.db: claims."""

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys

import pytest
from serenamaster import record, state
from serenamaster.errors import Failure


def routes(count):
    return [(record.new_id(), None, "skill:remember", None) for _ in range(count)]


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "state.db")


def rows(path, question="SELECT route, state FROM claims"):
    return sqlite3.connect(path).execute(question).fetchall()


def child(path, code):
    """Runs `code` with a Claims named c in a process that is killed behind it."""
    lib = os.path.dirname(os.path.dirname(state.__file__))
    head = f"import os, sys\nsys.path.insert(0, {lib!r})\nfrom serenamaster import state\nc = state.Claims('t', {path!r})\n"
    done = subprocess.run([sys.executable, "-c", f"{head}{code}\nos.kill(os.getpid(), 9)"], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_a_route_is_claimed_once(path):
    wanted = routes(3)
    first, second = state.Claims("t", path), state.Claims("t", path)
    assert list(first.take(wanted)[0]) == [row[0] for row in wanted]
    assert second.take(wanted) == ({}, [])
    more = routes(1)
    assert list(second.take([*wanted, *more])[0]) == [more[0][0]]


def test_again_takes_what_was_claimed(path):
    wanted = routes(2)
    state.Claims("t", path).take(wanted)
    assert list(state.Claims("t", path).take(wanted, again=True)[0]) == [row[0] for row in wanted]


def test_numbers_rise_in_the_order_of_the_routes(path):
    claims = state.Claims("t", path)
    mine, _ = claims.take(routes(3))
    later, _ = claims.take(routes(2))
    assert [*mine.values(), *later.values()] == [1, 2, 3, 4, 5]


def test_close_gives_back_what_was_never_begun(path):
    wanted = routes(4)
    claims = state.Claims("t", path)
    claims.take(wanted)
    claims.begin(2)
    claims.end(2)
    claims.close()
    assert sorted(rows(path)) == sorted((row[0], "done") for row in wanted[:2])
    assert rows(path, "SELECT count(*) FROM runs") == [(0,)]
    assert os.listdir(os.path.join(os.path.dirname(path), "runs")) == []
    assert list(state.Claims("t", path).take(wanted)[0]) == [row[0] for row in wanted[2:]]


def test_close_leaves_what_was_begun_for_the_next_to_tell(path):
    wanted = routes(2)
    claims = state.Claims("t", path)
    claims.take(wanted)
    claims.begin(1)
    claims.close()
    mine, lost = state.Claims("t", path).take(wanted)
    assert [row[0] for row in lost] == [wanted[0][0]]
    assert list(mine) == [wanted[1][0]]


def test_kill_tells_apart_done_interrupted_and_never_begun(path):
    wanted = [(record.new_id(), "a thread", "cmd:x", "local") for _ in range(4)]
    child(path, f"c.take({wanted!r})\nc.begin(1)\nc.end(1)\nc.begin(2)")
    after = state.Claims("t", path)
    mine, lost = after.take([])
    assert lost == [(wanted[1][0], 1, "a thread", "cmd:x", "local")]
    assert mine == {}
    mine, lost = after.take(wanted)
    assert list(mine) == [wanted[2][0], wanted[3][0]]
    assert lost == []


def test_what_nobody_told_of_is_told_by_the_next(path):
    wanted = routes(1)
    child(path, f"c.take({wanted!r})\nc.begin(1)")
    child(path, "c.take([])")
    assert [row[0] for row in state.Claims("t", path).take([])[1]] == [wanted[0][0]]


def test_what_was_told_is_not_told_again(path):
    wanted = routes(1)
    child(path, f"c.take({wanted!r})\nc.begin(1)")
    teller = state.Claims("t", path)
    (told,) = teller.take(wanted)[1]
    teller.begin(told[1])
    teller.end(told[1])
    teller.close()
    assert state.Claims("t", path).take(wanted) == ({}, [])


def test_again_repeats_what_was_interrupted(path):
    wanted = routes(1)
    child(path, f"c.take({wanted!r})\nc.begin(1)")
    mine, lost = state.Claims("t", path).take(wanted, again=True)
    assert list(mine) == [wanted[0][0]]
    assert lost == []


@pytest.mark.parametrize("how", ["boot", "file"])
def test_after_a_power_cut_all_that_was_claimed_counts_as_begun(path, how):
    wanted = routes(3)
    child(path, f"c.take({wanted!r})\nc.begin(1)\nc.end(1)")
    if how == "boot":
        db = sqlite3.connect(path)
        db.execute("UPDATE runs SET boot = 'another'")
        db.commit()
    else:
        for name in os.listdir(os.path.join(os.path.dirname(path), "runs")):
            os.unlink(os.path.join(os.path.dirname(path), "runs", name))
    mine, lost = state.Claims("t", path).take(wanted)
    assert mine == {}
    assert [row[0] for row in lost] == [row[0] for row in wanted]


def test_the_living_are_left_alone(path):
    wanted = routes(1)
    alive = state.Claims("t", path)
    alive.take(wanted)
    alive.begin(1)
    assert state.Claims("t", path).take(wanted) == ({}, [])


def test_a_queued_claim_is_not_interrupted(path):
    wanted = routes(1)
    child(path, f"c.take({wanted!r})\nc.begin(1)\nc.db.execute(\"UPDATE claims SET state = 'queued'\")")
    assert state.Claims("t", path).take(wanted) == ({}, [])


def test_known_changes_nothing(path):
    assert state.Claims("t", path).known(["x"]) == set()
    assert not os.path.exists(path)
    wanted = routes(2)
    state.Claims("t", path).take(wanted[:1])
    assert state.Claims("t", path).known([row[0] for row in wanted]) == {wanted[0][0]}


def _race(path, wanted, barrier, out):
    claims = state.Claims("t", path)
    barrier.wait()
    for row in wanted:
        out.put(list(claims.take([row])[0]))
        claims.begin(claims.n)
        claims.end(claims.n)


def test_eight_at_once_claim_each_route_once(path):
    context = multiprocessing.get_context("fork")
    wanted, barrier, out = routes(20), context.Barrier(8), context.Queue()
    runs = [context.Process(target=_race, args=(path, wanted, barrier, out)) for _ in range(8)]
    for run in runs:
        run.start()
    taken = [own for _ in range(8 * len(wanted)) for own in out.get()]
    for run in runs:
        run.join()
    assert [run.exitcode for run in runs] == [0] * 8
    assert sorted(taken) == sorted(row[0] for row in wanted)


def test_wal_and_full(path):
    claims = state.Claims("t", path)
    claims.take(routes(1))
    assert claims.db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert claims.db.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_lock_that_is_a_link_is_refused(path, tmp_path):
    os.symlink(tmp_path / "else", f"{path}.lock")
    with pytest.raises(Failure) as bad, state.Locked(f"{path}.lock"):
        pass
    assert (bad.value.code, "it is a link" in bad.value.message) == (73, True)
    assert not os.path.exists(tmp_path / "else")


def test_a_file_of_a_newer_version_is_left_alone(path):
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {len(state.MIGRATIONS) + 1}")
    db.close()
    with pytest.raises(Failure) as bad:
        state.Claims("t", path).take(routes(1))
    assert "newer version" in bad.value.message


def test_migrations_are_appended(path, monkeypatch):
    state.Claims("t", path).take(routes(1))

    def m002_more(db):
        db.execute("CREATE TABLE more (x)")

    monkeypatch.setattr(state, "MIGRATIONS", [*state.MIGRATIONS, m002_more])
    assert len(state.Claims("t", path).take(routes(1))[0]) == 1
    assert rows(path, "SELECT count(*) FROM more") == [(0,)]
    assert rows(path, "SELECT count(*) FROM claims") == [(2,)]


def test_what_is_no_database_is_a_failure(path):
    with open(path, "w") as file:
        file.write("this is no database" * 100)
    with pytest.raises(Failure) as bad:
        state.Claims("t", path).take(routes(1))
    assert bad.value.code == 74


def test_a_folder_that_cannot_be_written(tmp_path):
    with pytest.raises(Failure) as bad:
        state.Claims("t", str(tmp_path / "missing" / "state.db")).take(routes(1))
    assert bad.value.code == 73


def test_the_lock_gives_up(path, monkeypatch):
    claims = state.Claims("t", path)
    claims.take(routes(1))
    monkeypatch.setattr(state, "LOCK_SECONDS", 0.01)
    with state.Locked(path + ".lock"), pytest.raises(Failure) as bad:
        claims.take(routes(1))
    assert bad.value.code == 75
    assert len(claims.take(routes(1))[0]) == 1


# ---- consent ----


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FTAI_HOME", str(tmp_path))
    return tmp_path


THREAD = "0199c2f4-7d1e-7a31-9c1b-2f0a5b6c7d8e"
SENT = {"@tag": "command", "id": THREAD, "thread": THREAD}


def test_nobody_agreed_and_nothing_is_made_by_asking(home):
    assert state.consent("anthropic", SENT) == "nobody agreed to it"
    assert list(home.iterdir()) == []


def test_consent_counts_until_it_is_withdrawn(home):
    state.agree("anthropic")
    assert state.consent("anthropic", SENT) == ""
    assert "nobody" in state.consent("openai", SENT)
    state.withdraw("anthropic")
    assert "withdrawn" in state.consent("anthropic", SENT)
    state.agree("anthropic")
    assert state.consent("anthropic", SENT) == ""


@pytest.mark.parametrize(
    ("scope", "rec", "fits"),
    [
        (["command"], SENT, True),
        (["task", "command"], SENT, True),
        (["task"], SENT, False),
        ([THREAD.upper()], SENT, True),
        ([THREAD], SENT | {"thread": record.new_id()}, False),
        (["command", THREAD], SENT, True),
        (["task", THREAD], SENT, False),
        ([THREAD], {"@tag": "command", "thread": 7}, False),
        ([THREAD], {"@tag": "command"}, False),
        (["task"], None, True),
    ],
)
def test_a_scope_limits_tags_and_threads(home, scope, rec, fits):
    state.agree("anthropic", scope)
    assert (state.consent("anthropic", rec) == "") is fits


@pytest.mark.parametrize(
    ("until", "holds"),
    [("2999-01-01", True), ("2020-01-01", False), ("2999-01-01T00:00:00Z", True), ("2020-01-01T00:00:00+01:00", False), ("9999-12-31", True), ("soon", False)],
)
def test_consent_ends(home, until, holds):
    state.agree("anthropic", until=until)
    assert (state.consent("anthropic", SENT) == "") is holds


def test_a_day_lasts_to_its_end(home):
    assert state.before(record.now()[:10])


def test_what_was_said_goes_before_the_spec(home):
    entries = [{"name": "anthropic", "at": "x:1"}, {"name": "openai", "at": "x:2", "scope": ["task"]}]
    assert state.consent("anthropic", SENT, entries) == ""
    assert "tag 'command'" in state.consent("openai", SENT, entries)
    state.withdraw("anthropic")
    assert "withdrawn" in state.consent("anthropic", SENT, entries)
    assert state.consents(entries)["openai"]["at"] == "x:2"


def test_the_host_of_a_webhook_is_asked_for_in_any_case(home):
    state.agree("webhook:hooks.example.org")
    assert state.consent("webhook:Hooks.Example.org", SENT) == ""


def test_a_file_without_the_table_holds_no_consent(home, monkeypatch):
    monkeypatch.setattr(state, "MIGRATIONS", state.MIGRATIONS[:1])
    state.connect(state.paths.state_db()).close()
    monkeypatch.undo()
    monkeypatch.setenv("FTAI_HOME", str(home))
    assert "nobody" in state.consent("anthropic", SENT)
    state.agree("anthropic")
    assert state.consent("anthropic", SENT) == ""


def test_what_cannot_be_read_is_no_consent(home):
    state.agree("anthropic")
    (home / "state" / "state.db").write_bytes(b"x" * 5000)
    assert "state.db" in state.consent("anthropic", SENT, [{"name": "anthropic", "at": "x:1"}])


def test_consent_that_cannot_be_written_is_told(home):
    (home / "state").mkdir(mode=0o700)
    (home / "state" / "state.db").mkdir()
    for act in (lambda: state.agree("anthropic"), lambda: state.withdraw("anthropic")):
        with pytest.raises(Failure) as bad:
            act()
        assert bad.value.code in (73, 74)
