"""Models and many processes at once, an outage, and kill -9: no budget is overrun, a dead target is left alone, what was begun counts as spent."""

import multiprocessing
import os
import signal
import subprocess
import sys

import asking
import pytest
import vendor as rehearsal
from asking import Run, end, entry, later, only, pair
from serenamaster import limits, models, record, specs

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MANY, CALLS = 50, 20
many = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FTAI_HOME", str(tmp_path / "ftai"))
    monkeypatch.setattr(models, "FIRST_S", 0.002)
    specs.forget()
    yield tmp_path
    specs.forget()


@pytest.fixture
def servers():
    with rehearsal.Process() as far, rehearsal.Process() as near:
        yield far, near


def together(target: str, count: int) -> list[tuple]:
    """(status, exit statuses) of as many processes, each of which asks at the same moment."""
    import openai  # noqa: F401  so that none of them waits for it

    barrier, out = many.Barrier(count), many.SimpleQueue()

    def run(number):
        records = pair(target, body=f"question {number}")
        barrier.wait(60)
        one = Run()
        made = one(*records, log=False)
        out.put((end(made)["status"], one.codes))

    runs = [many.Process(target=run, args=(number,)) for number in range(count)]
    for one in runs:
        one.start()
    found = [out.get() for _ in runs]
    for one in runs:
        one.join()
    return found


@pytest.mark.parametrize(("count", "value", "calls"), [(MANY, CALLS, CALLS), (MANY // 2, 10 * MANY, MANY // 2)], ids=["budget", "control"])
def test_many_processes_never_overrun_a_budget(servers, count, value, calls):
    far, near = servers
    budget = {"name": "few", "value": value, "unit": "calls", "per": "day"}
    asking.config(far.url, near.url, more=entry("budget", **budget))
    asking.agree()
    found = together("model:other", count)
    assert len(asking.bodies(near.state())) == calls
    assert sorted(found) == [("done", [])] * calls + [("refused", [77])] * (count - calls)
    assert limits.spent(budget) == calls


def test_many_processes_and_money(servers):
    """What each can cost at the most is reserved before; so fewer of them go than would fit in the end."""
    far, near = servers
    budget = {"name": "money", "value": 0.001, "unit": "USD", "per": "day"}
    asking.config(far.url, near.url, more=entry("budget", **budget))
    asking.agree()
    near.control(script=[{"fault": "ok", "output": 50, "times": 0}])
    found = together("model:other", 20)
    assert 1 <= len(asking.bodies(near.state())) == found.count(("done", [])) < 20
    assert 0 < limits.spent(budget) <= 0.001


@pytest.mark.parametrize("fault", ["reset", "503"])
def test_an_outage_of_a_minute_costs_few_tries(servers, fault):
    """A request every four seconds, by the clock of limits.py: the dead target is asked or probed five times at most, and all are answered."""
    far, near = servers
    asking.config(far.url, near.url, changes={"big": {"fallback": ["home"]}})
    asking.agree()
    far.control(script=f"{fault}*", models=f"{fault}*")
    for _ in range(15):
        made = Run()(*pair(), log=False)
        assert end(made)["status"] == "done"
        later(4)
    assert 3 <= len(far.state()["requests"]) <= 5
    assert len(asking.bodies(near.state())) == 15
    # And it comes back by itself.
    far.control(script="", models="")
    before = len(asking.bodies(near.state()))
    later(130)
    made = Run()(*pair(), log=False)
    assert only(made, "attempt")[-1]["target"] == "model:big"
    assert len(asking.bodies(near.state())) == before


def test_control_without_memory_each_request_tries_the_dead_target_anew(servers, home, monkeypatch):
    far, near = servers
    far.control(script="503*")
    for number in range(5):
        monkeypatch.setenv("FTAI_HOME", str(home / str(number)))
        asking.config(far.url, near.url, changes={"big": {"fallback": ["home"]}})
        asking.agree()
        assert end(Run()(*pair(), log=False))["status"] == "done"
    assert len(far.state()["requests"]) == 15


def exec_(lines: bytes, *options: str) -> tuple[int, list[dict], str]:
    command = [sys.executable, os.path.join(ROOT, "bin", "ftai-exec"), *options]
    done = subprocess.run(command, input=lines, capture_output=True, check=False)
    return done.returncode, [record.decode(line) for line in done.stdout.splitlines()], done.stderr.decode()


def test_kill_9_in_the_middle_of_a_call(servers):
    far, near = servers
    budget = {"name": "money", "value": 1, "unit": "USD", "per": "day"}
    asking.config(far.url, near.url, more=entry("budget", **budget))
    asking.agree()
    near.control(script="hang,ok*")
    records = pair("model:other")
    lines = b"".join(map(record.encode, records))
    child = subprocess.Popen([sys.executable, os.path.join(ROOT, "bin", "ftai-exec")], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdin.write(lines)
    child.stdin.flush()
    near.wait(requests=1)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    # Nobody knows what it cost, so all that it could have cost is spent.
    spent = limits.spent(budget)
    assert spent > 0.0001
    near.wait(closed=1)
    code, made, said = exec_(lines)
    assert code == 1
    assert [rec["class"] for rec in only(made, "error")] == ["interrupted"]
    assert end(made)["status"] == "failed"
    assert "was interrupted" in said
    assert len(asking.bodies(near.state())) == 1
    code, made, _ = exec_(lines, "--again")
    assert (code, end(made)["status"]) == (0, "done")
    assert limits.spent(budget) > spent
