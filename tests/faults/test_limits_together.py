"""Many processes at once, and kill -9: no budget is overrun, one probe, one minute for all, one that tells of a change.

The controls do the same without lock and transaction: each process looks, waits until all have looked, and then writes.
"""

import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
import writers
from serenamaster import limits, paths

KILLS = 20 * writers.SCALE
NAME = "anthropic/opus/-"
PROVIDER = {"name": "anthropic"}
SPEND = {"provider": "anthropic", "model": "opus", "agent": "", "calls": 1, "tokens": 100, "amount": 0.25, "currency": "USD"}
CALLS = {"name": "calls", "value": 20, "unit": "calls", "per": "day"}
MONEY = {"name": "money", "value": 3.0, "unit": "USD", "per": "month"}
LARGE = MONEY | {"value": 10**6}
T = 1_795_000_000.0
many = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FTAI_HOME", str(tmp_path / "ftai"))
    return tmp_path


class Bare:
    """state.Write with nothing in it: no lock, no transaction; and who is about to write waits for all others to be as far."""

    all_looked: object = None

    def __init__(self, db, path, *, sync):
        self.db, self.first = db, True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def execute(self, question, values=()):
        if self.first and question.startswith(("INSERT", "UPDATE", "DELETE")):
            self.first = False
            self.all_looked.wait(60)
        return self.db.execute(question, values)


@pytest.fixture
def careless(monkeypatch):
    """Makes the processes of together() careless: so many of them."""

    def make(count):
        # The file is there before, as its making is no part of this.
        limits.mark("sk-1")
        monkeypatch.setattr(Bare, "all_looked", many.Barrier(count))
        monkeypatch.setattr(limits, "Write", Bare)

    return make


def together(count: int, work) -> list:
    """What work(number) returns in each of so many processes that begin at the same moment."""
    barrier, out = many.Barrier(count), many.SimpleQueue()

    def run(number):
        barrier.wait(60)
        out.put(work(number))

    runs = [many.Process(target=run, args=(number,)) for number in range(count)]
    for one in runs:
        one.start()
    for one in runs:
        one.join()
    assert [one.exitcode for one in runs] == [0] * count
    return [out.get() for _ in runs]


def forked(work) -> int:
    """The pid of a child that does this, and nothing of the test's own end."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return pid


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


# ---- budgets ----


def reserved(number):
    return limits.reserve(f"call {number}", [CALLS], SPEND, now=T) is None


def begun(number):
    return limits.begin(NAME, PROVIDER, [CALLS], SPEND, f"call {number}", 30, 1, now=T) == ("", 0.0, None)


@pytest.mark.parametrize("act", [reserved, begun])
def test_fifty_at_once_make_exactly_twenty_calls(act):
    assert sum(together(50, act)) == 20
    assert limits.spent(CALLS, now=T) == 20


@pytest.mark.parametrize("act", [reserved, begun])
def test_control_fifty_that_only_look(act, careless):
    careless(50)
    assert sum(together(50, act)) > 20
    assert limits.spent(CALLS, now=T) > 20


def spending(number):
    """Calls until nothing fits any more; returns billionths spent, and how often the budget was seen to be overrun."""
    dice, total, over = random.Random(number), 0, 0
    for n in range(20):
        amount = round(dice.uniform(0.01, 0.2), 4)
        if limits.reserve(f"{number} {n}", [MONEY], SPEND | {"amount": amount}, now=T) is None:
            over += limits.spent(MONEY, now=T) > MONEY["value"]
            actual = round(amount * dice.random(), 6)
            limits.settle(f"{number} {n}", SPEND | {"amount": actual}, now=T)
            total += round(actual * 10**9)
    return total, over


def test_twenty_at_once_never_overspend():
    found = together(20, spending)
    total = sum(row[0] for row in found)
    assert sum(row[1] for row in found) == 0
    assert limits.spent(MONEY, now=T) == total / 10**9 <= MONEY["value"]
    assert total > 2.5 * 10**9, "the budget was the limit"


def test_control_twenty_that_only_look(careless):
    careless(20)
    assert sum(together(20, lambda number: limits.reserve(str(number), [MONEY], SPEND, now=T) is None)) == 20
    assert limits.spent(MONEY, now=T) == 5.0 > MONEY["value"]


# ---- breakers ----


def opened():
    for _ in range(3):
        limits.bad(NAME, "network", "connection refused", now=T)


def entered(number):
    return limits.enter(NAME, 30, str(number), now=T + 60) == ""


def probed(number):
    return limits.begin(NAME, PROVIDER, [], SPEND, str(number), 30, 1, now=T + 60).why == ""


@pytest.mark.parametrize("act", [entered, probed])
def test_thirty_at_a_half_open_breaker_make_one_probe(act):
    opened()
    assert sum(together(30, act)) == 1


@pytest.mark.parametrize("act", [entered, probed])
def test_control_thirty_that_only_look_at_a_breaker(act, careless):
    opened()
    careless(30)
    assert sum(together(30, act)) == 30


def test_thirty_failures_at_once_open_it_once():
    assert sum(together(30, lambda number: limits.bad(NAME, "network", "", str(number), now=T))) == 1
    assert limits.breaker(NAME, now=T + 60).state == "half"


def test_control_thirty_failures_that_are_counted_without_a_turn(careless):
    careless(30)
    assert sum(together(30, lambda number: limits.bad(NAME, "network", "", str(number), now=T))) == 0


def killed(work) -> None:
    """Runs work() in a process that is killed as soon as it has come to its end, and no sooner."""
    into, out = os.pipe()

    def whole():
        work()
        os.write(out, b"x")
        signal.pause()

    pid = forked(whole)
    os.close(out)
    assert os.read(into, 1) == b"x"
    os.close(into)
    kill(pid)


def test_the_probe_of_a_killed_process_is_given_back_to_one():
    opened()
    killed(lambda: entered("dead"))
    assert sum(together(10, entered)) == 0
    assert sum(together(30, lambda number: limits.enter(NAME, 30, str(number), now=T + 90) == "")) == 1


# ---- rates ----


def asked(number):
    return limits.take(PROVIDER | {"requests": 12}, 10, now=T + number / 100)


def test_a_minute_is_shared():
    found = together(30, asked)
    assert found.count(0.0) == 12
    assert all(60 < wait <= 61 for wait in found if wait)


def test_what_headers_said_is_shared():
    limits.told("anthropic", {"requests_left": 7, "requests_reset": 20, "tokens_left": 10**6, "tokens_reset": 20}, now=T)
    found = together(30, lambda number: limits.take(PROVIDER, 10, now=T))
    assert found.count(0.0) == 7
    assert found.count(20.0) == 23


def test_control_thirty_that_only_look_at_a_minute(careless):
    careless(30)
    assert together(30, asked).count(0.0) == 30


# ---- the network ----


@pytest.mark.parametrize("up", [False, True])
def test_one_of_thirty_tells_of_a_change(up):
    limits.seen("anthropic", not up, now=T)
    assert sum(together(30, lambda number: limits.seen("anthropic", up, now=T))) == 1


def test_control_thirty_that_only_look_at_the_network(careless):
    limits.seen("anthropic", True, now=T)
    careless(30)
    assert sum(together(30, lambda number: limits.seen("anthropic", False, now=T))) == 30


# ---- kill -9 ----


def test_what_was_reserved_when_it_was_killed_counts_in_full():
    for n in range(3):
        killed(lambda n=n: limits.reserve(str(n), [MONEY], SPEND | {"amount": 0.9}, now=T))
    assert limits.spent(MONEY, now=T) == 2.7
    assert limits.reserve("next", [MONEY], SPEND | {"amount": 0.9}, now=T) == MONEY
    # Whoever cleans up does not give it back.
    limits.reserve("later", [], SPEND | {"amount": 0}, now=T + 90_000)
    assert limits.spent(MONEY, now=T + 90_000) == 2.7


def test_control_who_keeps_it_in_mind_until_the_end_spends_nothing():
    def work():
        spend = SPEND | {"amount": 0.9}
        assert limits.spent(MONEY, now=T) + spend["amount"] <= MONEY["value"]

    for _ in range(4):
        killed(work)
    assert limits.spent(MONEY, now=T) == 0


def storm(kills: int, seed: int) -> list:
    """Kills callers at random moments; returns [(what they said was spent or reserved so far, what was spent)] after each kill, in tenths."""
    dice, told, seen = random.Random(seed), 0, []
    for turn in range(kills):
        into, out = os.pipe()

        def calls(turn=turn, out=out):
            for n in range(100_000):
                own = f"{turn} {n}"
                assert not any(limits.begin(NAME, PROVIDER, [LARGE], SPEND | {"amount": 0.5}, own, 30, 1, now=T))
                os.write(out, b"b")  # 0.5 is reserved, and the call goes out
                limits.end(NAME, own, SPEND | {"amount": 0.2}, now=T)
                os.write(out, b"e")  # it was 0.2

        pid = forked(calls)
        os.close(out)
        said = os.read(into, 1)
        time.sleep(dice.uniform(0, 0.03))
        kill(pid)
        while more := os.read(into, 65536):
            said += more
        os.close(into)
        ends = said.count(b"e")
        told += ends * 2 + (said.count(b"b") - ends) * 5
        seen.append((told, round(limits.spent(LARGE, now=T) * 10)))
    return seen


def test_killed_at_random():
    seen = storm(KILLS, seed=1)
    # What a killed process did not come to say it did is at most one step: a reservation more, or one settled.
    for n, (told, spent) in enumerate(seen, 1):
        assert told - 3 * n <= spent <= told + 5 * n
    db = sqlite3.connect(paths.state_db())
    left = db.execute("SELECT count(*), total(amount) / 100000000 FROM reservations").fetchone()
    booked = db.execute("SELECT total(amount) / 100000000, total(calls) FROM spends").fetchone()
    assert left[0] <= KILLS
    assert round(booked[0]) == 2 * booked[1]
    assert round(left[1] + booked[0]) == seen[-1][1]
    assert left[0], "some were killed in the middle of a call"
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# ---- a clock set back ----


def test_a_clock_set_back_holds_nobody():
    """The clock of a real process, an hour ahead while it writes."""
    if shutil.which("faketime") is None:
        pytest.skip("FAKETIME IS NOT INSTALLED: a clock that was set back is tried with times that are passed in alone")
    code = f"import sys; sys.path.insert(0, {str(writers.ROOT / 'lib')!r}); from serenamaster import limits; "
    code += f"[limits.bad({NAME!r}, 'network', '') for _ in range(3)]; limits.hold('anthropic', 300); limits.seen('anthropic', True); "
    code += "assert limits.take({'name': 'other', 'requests': 1}, 1) == 0.0; "
    code += f"print(bool(limits.enter({NAME!r}, 5)), limits.take({PROVIDER!r}, 1) > 0, limits.net('anthropic')[0])"
    said = subprocess.run(["faketime", "-f", "+1h", sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert said.stdout == "True True True\n"
    assert limits.net("anthropic")[0] is None
    assert limits.take(PROVIDER, 1) == 0.0
    assert limits.take({"name": "other", "requests": 1}, 1) == 0.0
    assert limits.enter(NAME, 5) == ""
    assert limits.enter(NAME, 5) != ""
