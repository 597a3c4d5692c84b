"""The offline queue: what is stored, leased, fenced, handed over; and that nothing frees or ends what waits."""

import fcntl
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
from collections import namedtuple

import pytest
from serenamaster import execution, record, state, waiting
from serenamaster.errors import CONFIG, NOPERM, SOME, TEMPFAIL, UNAVAILABLE, Failure

PAST, FUTURE = "2020-01-01T00:00:00.000Z", "2999-01-01T00:00:00.000Z"


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "state.db")


def task(body="hello", target="cmd:x", **fields):
    command = record.make("command", "ftai-listen", body=body)
    route = record.make("route", "ftai-route", parent=command, target=target)
    lines = record.encode(route), record.encode(command)
    return waiting.Item(route=route["id"], thread=route["thread"], target=target, lines=lines, **fields)


def put(path, count=1, **fields):
    made = [task(str(n), **fields) for n in range(count)]
    for item in made:
        assert waiting.put(item, path)
    return made


def ask(path, question, *values):
    return sqlite3.connect(path).execute(question, values).fetchall()


def names(path):
    return [item.route for item in waiting.items(path)]


def line(body="done"):
    return record.encode(record.make("result", "t", body=body))


def never(*_):
    raise AssertionError("not to be called")


def spilled(path, own=(), lookup=lambda ids: (0, {}), journaled=never):
    """The bodies that hand_over() gives to the journal."""
    got: list = []
    waiting.hand_over(own, lambda records, known: got.extend(rec["body"] for rec in records), lookup, journaled, path)
    return got


# ---- put ----


def test_what_is_put_is_all_there(path):
    item = task(priority=3, deadline="2999-01-01T01:00:00+01:00", privacy="cloud", key="k", error="offline")._replace(not_before=waiting.after(60))
    assert waiting.put(item, path)
    (found,) = waiting.items(path)
    assert found == item._replace(deadline=FUTURE, queued=found.queued)
    assert ask(path, "SELECT route, state, thread, target, privacy FROM claims") == [(item.route, "queued", item.thread, "cmd:x", "cloud")]


def test_put_takes_over_the_claim_of_the_caller(path):
    item = task()
    claims = state.Claims("t", path)
    mine, _ = claims.take([(item.route, None, "cmd:x", None)])
    claims.begin(mine[item.route])
    assert waiting.put(item, path)
    claims.end(mine[item.route])
    claims.take([])  # settles
    claims.close()
    assert ask(path, "SELECT route, state FROM claims") == [(item.route, "queued")]
    assert ask(path, "SELECT * FROM runs") == []


def test_what_waits_is_put_once_and_a_dead_letter_anew(path):
    (item,) = put(path)
    assert not waiting.put(item._replace(priority=9), path)
    assert [found.priority for found in waiting.items(path)] == [0]
    with waiting.Drain(path) as work:
        assert work.finish(work.take(), [], how="dead", error="e")
        assert [found.state for found in waiting.items(path)] == ["dead"]
        assert waiting.put(item._replace(priority=9), path)
    assert [(found.priority, found.state, found.tries) for found in waiting.items(path)] == [(9, "waiting", 0)]


def test_a_route_in_capital_letters_is_the_same(path):
    item = task()
    assert waiting.put(item._replace(route=item.route.upper()), path)
    assert not waiting.put(item, path)
    assert names(path) == [item.route]


@pytest.mark.parametrize("how", ["missing folder", "no database", "a link"])
def test_what_cannot_be_stored_is_a_failure(path, tmp_path, how):
    if how == "no database":
        (tmp_path / "state.db").write_text("this is no database" * 100)
    elif how == "a link":
        os.symlink(tmp_path / "else", path)
    with pytest.raises(Failure) as bad:
        waiting.put(task(), path if how != "missing folder" else str(tmp_path / "none" / "state.db"))
    assert bad.value.code == {"missing folder": 73, "no database": 74, "a link": 77}[how]


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", place], capture_output=True, check=False).returncode:
        pytest.skip("NOT ROOT, OR NO MOUNTS ALLOWED: a disk that is full is not tried")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_is_73_and_leaves_the_task_with_the_caller(small_disk):
    path = str(small_disk / "state.db")
    stored = []
    with pytest.raises(Failure) as bad:
        for n in range(1000):
            item = task("x" * 5000 + str(n))
            waiting.put(item, path)
            stored.append(item.route)
    assert bad.value.code == 73, bad.value.message
    assert len(stored) > 5, "the disk was full from the beginning"
    assert names(path) == stored
    assert {row[0] for row in ask(path, "SELECT route FROM claims WHERE state = 'queued'")} == set(stored)
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    assert waiting.put(item, path)
    assert names(path) == [*stored, item.route]


# ---- claims leave alone what waits ----


def test_no_run_frees_or_ends_what_waits(path):
    wanted = [task() for _ in range(4)]
    lib = os.path.dirname(os.path.dirname(state.__file__))
    # One that was begun, one that was handed on, one that never was, each queued; and one that is not.
    code = f"""import os, sys
sys.path.insert(0, {lib!r})
from serenamaster import state, waiting
c = state.Claims('t', {path!r})
c.take({[(item.route, None, "cmd:x", None) for item in wanted]!r})
c.begin(2)
c.end(1)
"""
    code += "".join(f"waiting.put(waiting.Item(*{tuple(item)!r}), {path!r})\n" for item in wanted[:3]) + "os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    after = state.Claims("t", path)
    mine, lost = after.take([(item.route, None, "cmd:x", None) for item in wanted])
    assert (list(mine), lost) == ([wanted[3].route], [])
    after.close()
    assert sorted(ask(path, "SELECT route, state FROM claims")) == sorted((item.route, "queued") for item in wanted[:3])
    assert names(path) == [item.route for item in wanted[:3]]


def test_again_leaves_what_waits_to_the_queue(path):
    (item,) = put(path)
    other = task()
    claims = state.Claims("t", path)
    row = (item.route, None, "cmd:x", None)
    mine, lost = claims.take([row, (other.route, None, "cmd:x", None)], again=True)
    assert (list(mine), lost, claims.queued) == ([other.route], [], {item.route})
    with waiting.Drain(path) as work:
        assert work.finish(work.take(), [line()])
    assert (list(claims.take([row], again=True)[0]), claims.queued) == ([item.route], set())


# ---- leases ----


def test_the_order_is_priority_then_arrival(path):
    low, first, second = put(path, priority=1)[0], put(path, priority=5)[0], put(path, priority=5)[0]
    assert names(path) == [first.route, second.route, low.route]
    with waiting.Drain(path) as one, waiting.Drain(path) as two:
        assert [work.take().route for work in (one, two, one)] == [first.route, second.route, low.route]
        assert two.take() is None


def test_what_is_put_off_waits_and_what_is_too_late_does_not(path):
    put(path, not_before=waiting.after(60))
    (late,) = put(path, not_before=waiting.after(60), deadline=PAST)
    (odd,) = put(path, deadline="some day")
    with waiting.Drain(path) as work:
        assert [work.take().route, work.take().route] == [late.route, odd.route]
        assert work.take() is None
        assert all(map(waiting.late, [late, *waiting.items(path)[2:]]))


def test_nothing_is_put_off_for_longer_than_a_day(path):
    put(path, not_before=FUTURE)
    (item,) = waiting.items(path)
    assert waiting.after(waiting.AHEAD - 60) < item.not_before <= waiting.after(waiting.AHEAD)


def test_after_the_clock_was_set_back_nothing_waits_for_ever(path):
    (item,) = put(path, not_before=waiting.after(60))
    sqlite3.connect(path, isolation_level=None).execute("UPDATE queue SET not_before = ?", (waiting.after(waiting.AHEAD + 60),))
    with waiting.Drain(path) as first, waiting.Drain(path, 100) as second:
        held = first.take()
        assert held.route == item.route and second.take() is None
        sqlite3.connect(path, isolation_level=None).execute("UPDATE queue SET until = ?", (waiting.after(first.seconds + 60),))
        assert second.take().route == item.route
        assert not first.finish(held, [line()])


def test_a_lease_that_ran_out_is_broken_and_its_holder_is_fenced_off(path):
    (item,) = put(path)
    with waiting.Drain(path) as first, waiting.Drain(path) as second:
        old = first.take()
        assert second.take() is None, "the lease of one that lives was broken"
        sqlite3.connect(path, isolation_level=None).execute("UPDATE queue SET until = ?", (PAST,))
        new = second.take()
        assert (new.route, new.lost) == (item.route, 1)
        assert not first.finish(old, [line("old")])
        assert second.finish(new, [line("new")])
        assert not first.finish(old, [line("old")])
    assert spilled(path) == ["new"]


def test_an_old_token_is_refused_by_the_same_drain_too(path):
    put(path)
    with waiting.Drain(path) as work:
        old = work.take()
        sqlite3.connect(path, isolation_level=None).execute("UPDATE queue SET until = ?", (PAST,))
        new = work.take()
        assert new.token != old.token
        assert not work.finish(old, [line("old")])
        assert work.finish(new, [line("new")])
    assert spilled(path) == ["new"]


def child(path, code):
    lib = os.path.dirname(os.path.dirname(state.__file__))
    head = f"import os, sys\nsys.path.insert(0, {lib!r})\nfrom serenamaster import waiting\nwork = waiting.Drain({path!r})\nitem = work.take()\n"
    ran = subprocess.run([sys.executable, "-c", f"{head}{code}\nos.kill(os.getpid(), 9)"], capture_output=True, text=True, check=False)
    assert ran.returncode == -signal.SIGKILL, ran.stderr


def test_the_lease_of_one_that_is_gone_is_broken_at_once(path):
    (item,) = put(path)
    child(path, "")
    assert len(os.listdir(os.path.join(os.path.dirname(path), "runs"))) == 1
    with waiting.Drain(path) as work:
        found = work.take()
        assert (found.route, found.lost, found.tries) == (item.route, 1, 0)
    assert os.listdir(os.path.join(os.path.dirname(path), "runs")) == []


def test_one_that_died_without_a_task_leaves_no_file(path):
    put(path)
    child(path, "work.finish(item)\nassert work.take() is None")
    runs = os.path.join(os.path.dirname(path), "runs")
    assert len(os.listdir(runs)) == 1
    with waiting.Drain(path) as one, waiting.Drain(path):
        assert len(os.listdir(runs)) == 2
        assert one.name in os.listdir(runs), "that of one that lives was taken away"
    assert os.listdir(runs) == []


def test_what_kills_its_drains_is_put_off_and_never_given_up(path):
    (item,) = put(path)
    for _ in range(waiting.LOST):
        child(path, "")
    with waiting.Drain(path) as work:
        assert work.take() is None
        (found,) = waiting.items(path)
        assert (found.state, found.lost) == ("waiting", waiting.LOST)
        assert waiting.after(waiting.PAUSE - 20) < found.not_before <= waiting.after(waiting.PAUSE)


def _race(path, barrier, out):
    with waiting.Drain(path) as work:
        barrier.wait()
        while (item := work.take()) is not None:
            out.put((item.route, work.finish(item, [line(item.route)])))
    out.put(None)


def test_six_at_once_finish_each_once(path):
    wanted = put(path, 40)
    context = multiprocessing.get_context("fork")
    barrier, out = context.Barrier(6), context.Queue()
    runs = [context.Process(target=_race, args=(path, barrier, out)) for _ in range(6)]
    for run in runs:
        run.start()
    seen, over = [], 0
    while over < 6:
        got = out.get()
        over += got is None
        seen += [] if got is None else [got]
    for run in runs:
        run.join()
    assert [run.exitcode for run in runs] == [0] * 6
    assert sorted(seen) == sorted((item.route, True) for item in wanted)
    assert sorted(spilled(path)) == sorted(item.route for item in wanted)


# ---- the end of a try ----


def test_an_end_takes_the_task_and_its_claim_along(path):
    (item,) = put(path)
    with waiting.Drain(path) as work:
        assert work.finish(work.take(), [line()])
    assert names(path) == []
    assert ask(path, "SELECT route, state FROM claims") == [(item.route, "done")]


@pytest.mark.parametrize(
    ("how", "tries", "stands", "claim"), [("failed", 1, "waiting", "queued"), ("back", 0, "waiting", "queued"), ("dead", 1, "dead", "done")]
)
def test_what_is_given_back(path, how, tries, stands, claim):
    put(path)
    with waiting.Drain(path) as work:
        assert work.finish(work.take(), [], how=how, error="no network", not_before=waiting.after(90))
        assert work.take() is None
    (found,) = waiting.items(path)
    assert (found.tries, found.state, found.error) == (tries, stands, "no network")
    assert found.not_before > waiting.after(60)
    assert ask(path, "SELECT state FROM claims") == [(claim,)]


def test_the_pause_doubles_to_a_quarter_of_an_hour():
    assert [waiting.pause(n) for n in range(7)] == [30, 60, 120, 240, 480, 900, 900]
    assert waiting.pause(5000) == 900


End = namedtuple("End", "status code fields", defaults=(0, {}))


@pytest.mark.parametrize(
    ("end", "tries", "tried", "stopped", "how"),
    [
        (End("done"), 0, True, False, "done"),
        (End("done"), 0, True, True, "done"),
        (End("asked"), 0, False, False, "done"),
        (End("refused", NOPERM), 0, False, False, "done"),
        (End("failed", SOME), 0, True, False, "done"),
        (End("failed", CONFIG), 0, False, False, "done"),
        (End("failed", TEMPFAIL), 0, True, False, "failed"),
        (End("failed", UNAVAILABLE), 3, False, False, "failed"),
        (End("failed", UNAVAILABLE), 4, False, False, "dead"),
        (End("queued"), 3, True, False, "failed"),
        (End("queued"), 4, True, False, "dead"),
        (End("queued"), 4, False, False, "back"),
        (End("cancelled"), 0, True, True, "back"),
        (End("cancelled"), 0, True, False, "done"),
    ],
)
def test_the_verdict(end, tries, tried, stopped, how):
    found, then = waiting.verdict(task(tries=tries), end, tried=tried, stopped=stopped)
    assert found == how
    assert (then is None) == (how in ("done", "dead") or end.status == "cancelled")


def test_the_time_that_an_end_names_goes_before_the_pause():
    at = waiting.after(7)
    assert waiting.verdict(task(), End("queued", 0, {"not_before": at}), tried=False, stopped=False) == ("back", at)


def told(end, how, *tags, privacy=None):
    item = task(privacy=privacy)
    route = record.decode(item.lines[0])
    records = [record.make(tag, "t", parent=route, recovery="none" if tag == "error" else None, status="failed" if tag == "result" else None) for tag in tags]
    return waiting.told(item, route, records, end, how, "t")


def seen(records):
    return [(rec["@tag"], rec.get("recovery") or rec.get("status")) for rec in records]


def test_a_route_that_waits_on_has_no_result_and_an_error_that_says_so():
    end = execution.End("failed", "It broke.", TEMPFAIL, "timeout")
    assert seen(told(end, "failed", "attempt", "error", "result")) == [("attempt", None), ("error", "queue")]
    assert seen(told(end, "back", "attempt", "result")) == [("attempt", None), ("error", "queue")]
    assert seen(told(execution.End("cancelled"), "back", "attempt", "result")) == [("attempt", None)]


def test_a_route_that_ends_has_one_result_and_a_dead_letter_an_error():
    end = execution.End("queued", "It is offline.", 0, "network")
    assert seen(told(end, "dead", "attempt")) == [("attempt", None), ("error", "none"), ("result", "failed")]
    assert seen(told(end, "dead", "attempt", "error")) == [("attempt", None), ("error", "none"), ("result", "failed")]
    assert seen(told(execution.End("done", "Yes."), "done", "attempt", "result")) == [("attempt", None), ("result", "failed")]
    made = told(end, "dead", privacy="cloud")
    assert [(rec["privacy"], rec.get("class")) for rec in made] == [("cloud", "network"), ("cloud", None)]


# ---- the outbox ----


def test_the_outbox_is_emptied_in_order_and_once(path):
    put(path, 2)
    with waiting.Drain(path) as work:
        work.finish(work.take(), [line("a"), line("b")])
        work.finish(work.take(), [line("c")])
    assert spilled(path) == ["a", "b", "c"]
    assert spilled(path) == []


def test_what_cannot_be_journaled_stays_in_the_outbox(path):
    put(path)
    with waiting.Drain(path) as work:
        work.finish(work.take(), [line("a")])

    def fails(records, known):
        raise Failure("cannot write the journal", 74)

    with pytest.raises(Failure):
        waiting.hand_over((), fails, lambda ids: (0, {}), never, path)
    assert spilled(path) == ["a"]


def test_without_an_archive_the_journal_is_asked_for_what_others_left(path):
    put(path)
    lines = [line("a"), line("b")]
    first = record.decode(lines[0])
    with waiting.Drain(path) as work:
        work.finish(work.take(), lines)
    assert spilled(path, lookup=lambda ids: None, journaled=lambda: [(1, first)]) == ["b"]


def test_what_this_process_made_needs_no_look(path):
    put(path)
    one = line("a")
    with waiting.Drain(path) as work:
        work.finish(work.take(), [one])
    assert spilled(path, {record.decode(one)["id"]: 1}, lookup=lambda ids: None) == ["a"]


def test_hand_overs_take_turns(path):
    put(path)
    with waiting.Drain(path) as work:
        work.finish(work.take(), [line("a")])

    def locked(records, known):
        fd = os.open(path + ".outbox", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(fd)

    waiting.hand_over((), locked, lambda ids: (0, {}), never, path)


# ---- what a person does ----


def test_retry_makes_it_due_with_no_failures_so_far(path):
    put(path)
    with waiting.Drain(path) as work:
        work.finish(work.take(), [], how="failed", not_before=waiting.after(90))
        assert work.take() is None
        waiting.retry(waiting.items(path)[0], [line("audit")], path)
        found = work.take()
        assert found.tries == 0
        work.finish(found, [], how="dead")
        waiting.retry(waiting.items(path)[0], [], path)
        assert ask(path, "SELECT state FROM claims") == [("queued",)]
        assert work.take() is not None
    assert spilled(path) == ["audit"]


def test_what_is_past_its_deadline_is_not_tried_again(path):
    put(path, deadline=PAST)
    with pytest.raises(Failure) as bad:
        waiting.retry(waiting.items(path)[0], [line()], path)
    assert bad.value.code == 1
    assert spilled(path) == []


def test_drop_takes_it_out(path):
    (item,) = put(path)
    waiting.drop(item, [line("cancelled")], path)
    assert names(path) == []
    assert ask(path, "SELECT state FROM claims") == [("done",)]
    assert spilled(path) == ["cancelled"]
    with pytest.raises(Failure) as bad:
        waiting.drop(item, [line("twice")], path)
    assert bad.value.code == 1
    assert spilled(path) == []


@pytest.mark.parametrize("change", [waiting.drop, waiting.retry])
def test_what_is_being_done_is_left_alone(path, change):
    put(path)
    with waiting.Drain(path) as work:
        held = work.take()
        (item,) = waiting.items(path)
        with pytest.raises(Failure) as bad:
            change(item, [line("no")], path)
        assert bad.value.code == 75
        assert work.finish(held, [line("yes")])
    assert spilled(path) == ["yes"]


def test_wait_knows_what_is_answered(path):
    first, second = put(path, 2)
    with waiting.Drain(path) as work:
        work.finish(work.take(), [line()])
        assert waiting.unanswered([first.route], path) == {first.route}, "it is not in the journal yet"
        spilled(path)
        assert waiting.unanswered([first.route], path) == set()
        assert waiting.unanswered((), path) == {second.route}
        with pytest.raises(Failure) as bad:
            waiting.unanswered([record.new_id()], path)
        assert bad.value.code == 1


def test_looking_makes_nothing(path, tmp_path):
    assert waiting.items(path) == []
    assert waiting.unanswered((), path) == set()
    assert list(tmp_path.iterdir()) == []


def test_an_older_file_has_no_queue_yet(path):
    db = sqlite3.connect(path)
    for step in state.MIGRATIONS[:2]:
        step(db)
    db.execute("PRAGMA user_version = 2")
    db.commit()
    assert waiting.items(path) == []
    assert waiting.unanswered((), path) == set()
    put(path)
    assert len(waiting.items(path)) == 1


# ---- watching ----


def test_idle_is_until_the_next_may_be_due(path):
    with waiting.Drain(path) as work:
        assert work.idle() == waiting.LOOK
        (item,) = put(path, not_before=waiting.after(10))
        assert 8 < work.idle() <= 10
        assert work.idle([item.route]) == waiting.LOOK
        put(path, not_before=waiting.after(60), deadline=waiting.after(5))
        assert 3 < work.idle() <= 5
        put(path, deadline="some day")
        assert work.idle() == 0


class Stop:
    def __init__(self, rounds):
        self.number, self.rounds, self.waits = 0, rounds, []

    def wait(self, function, seconds):
        self.waits.append(seconds)
        self.number = len(self.waits) == self.rounds


def test_a_round_takes_each_task_once_and_the_next_begins_anew(path):
    (item,) = put(path)
    stop = Stop(3)
    with waiting.Drain(path) as work:
        taken = []
        for one in work.tasks(stop, watch=True):
            taken.append(one.route)
            assert work.finish(one, how="back")
        assert taken == [item.route] * 3
        assert stop.waits == [waiting.LOOK] * 3
        assert [one.route for one in work.tasks(Stop(0))] == [item.route]


# ---- purging ----


def test_what_was_purged_goes_with_its_outbox_and_nothing_else_does(path):
    purged, kept, fresh = put(path, 3)
    ids = {rec["id"] for item in (purged, kept) for rec in map(record.decode, item.lines)}
    waiting.see(ids.__contains__, path)
    ids.discard(record.decode(purged.lines[1])["id"])
    with waiting.Drain(path) as work:
        assert work.finish(work.take(), [line("of the purged")], how="back")
    assert waiting.forget(path, ids.__contains__) == 1
    assert names(path) == [kept.route, fresh.route], "what was never journaled was not purged"
    assert spilled(path) == []
    assert ask(path, "SELECT state, thread, target FROM claims WHERE route = ?", purged.route) == [("done", None, None)]
    assert waiting.forget(path, ids.__contains__, lambda rec: rec.get("body") == "2") == 1
    assert names(path) == [kept.route]


def test_who_has_a_lease_of_what_was_purged_is_fenced_off(path):
    put(path)
    with waiting.Drain(path) as work:
        item = work.take()
        assert waiting.forget(path, never, lambda rec: True) == 1
        assert not work.finish(item, [line()])
    assert spilled(path) == []


def test_no_text_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("FTAI_HOME", str(tmp_path))
    (tmp_path / "state").mkdir(mode=0o700)
    assert waiting.clean(never) == 0
    (item,) = put(str(tmp_path / "state" / "state.db"))
    waiting.put(task("Zoltan the Great"))

    def traces():
        return [path.name for path in tmp_path.rglob("*") if path.is_file() and b"Zoltan" in path.read_bytes()]

    assert traces()
    other = state.connect(str(tmp_path / "state" / "state.db"))  # the last one that closes it would empty the log anyway
    assert waiting.clean(lambda own: True, lambda rec: "Zoltan" in rec.get("body", "")) == 1
    assert traces() == []
    other.close()
    assert [found.route for found in waiting.items()] == [item.route]
