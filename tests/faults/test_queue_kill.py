"""kill -9 of six drains at random moments, and of one at the worst ones: each task is handed off exactly once, none is lost."""

import random
import signal
import time
from pathlib import Path

import drains
import pytest
import writers

DRAINS = 6
KILLS = 50 * writers.SCALE


def storm(home, kills: int, seed: int, how: str = "") -> tuple[int, int, int]:
    """Starts six drains again and again and kills each at a moment of its own.

    Returns how many kills, leases that were broken, rows that were found in the outbox.
    """
    dice = random.Random(seed)
    killed = left = rounds = 0
    home.watch()
    while killed < kills and rounds < kills:
        rounds += 1
        home.put(max(0, 30 - home.count("queue WHERE not_before IS NULL")))
        outs = [home.path.parent / f"{seed}-{n}.out" for n in range(DRAINS)]
        running = [home.drain(out, how=how) for out in outs]
        moments: dict = {}
        while any(one.poll() is None for one in running):
            for n, out in enumerate(outs):
                # The clock of each begins with its own first record, as starting up takes longer than all the rest.
                if n not in moments and out.stat().st_size:
                    moments[n] = time.monotonic() + dice.expovariate(1 / 0.1)
                if n in moments and time.monotonic() > moments[n]:
                    running[n].send_signal(signal.SIGKILL)
            time.sleep(0.001)
        killed += sum(one.wait() == -signal.SIGKILL for one in running)
        said = "".join(Path(f"{out}.err").read_text() for out in outs)
        assert not said, said
        left += home.count("outbox")
    return killed, home.count("broken"), left


def finish(home, out) -> None:
    """What is left, done to the end; what is put off, as three of its leases were broken, too: the last of these the first drain breaks."""
    for _ in range(2):
        db = drains.state.connect(home.db)
        db.execute("UPDATE queue SET not_before = NULL")
        db.close()
        more = Path(f"{out}.more")
        assert home.drain(more).wait(timeout=600) == 0, Path(f"{more}.err").read_text()
        with out.open("ab") as whole:
            whole.write(more.read_bytes())


def test_each_task_is_handed_off_once(tmp_path):
    home = drains.Home(tmp_path / "home")
    killed, leases, left = storm(home, KILLS, seed=1)
    assert killed >= KILLS
    assert leases >= KILLS // 2, "too few of the drains were killed while they had a task"
    finish(home, tmp_path / "last.out")
    assert not home.doubled()
    assert home.results() == dict.fromkeys(home.routes, 1)
    assert home.count("queue") == home.count("outbox") == home.count("claims WHERE state != 'done'") == 0
    assert not home.troubles()
    marks = (home.path / "marks").read_text().split()
    assert set(marks) == {str(n) for n in range(len(home.routes))}
    # At least once, and the fault did fire: some were begun again.
    assert len(marks) > len(home.routes)
    assert not list((home.path / "state" / "runs").iterdir())
    print(f"{killed} kills, {leases} leases broken, {left} rows left in the outbox, {len(home.routes)} tasks, {len(marks)} begun")


@pytest.mark.parametrize(("how", "begun", "rows"), [("die-before-commit", 2, 0), ("die-after-commit", 1, 2), ("die-after-journal", 1, 2)])
def test_killed_at_the_worst_moments(tmp_path, how, begun, rows):
    home = drains.Home(tmp_path / "home")
    home.put(1)
    assert home.drain(tmp_path / "out", how=how).wait() == -signal.SIGKILL
    assert home.count("outbox") == rows
    finish(home, tmp_path / "last.out")
    assert home.results() == {home.routes[0]: 1}
    assert not home.doubled()
    assert (home.path / "marks").read_text().split() == ["0"] * begun
    # What the one that died did not print, the next one did.
    assert ('"result"' in (tmp_path / "last.out").read_text()) and '"result"' not in (tmp_path / "out").read_text()


def test_control_without_the_outbox(tmp_path):
    """What is journaled before its end is committed is done again, and stands there twice."""
    home = drains.Home(tmp_path / "home")
    home.put(1)
    assert home.drain(tmp_path / "out", how="no-outbox,die-after-journal").wait() == -signal.SIGKILL
    finish(home, tmp_path / "last.out")
    assert home.doubled(), "without the outbox nothing was handed off twice: the tests above prove nothing"


@pytest.mark.parametrize("how", ["", "no-fence"])
def test_who_comes_late_is_fenced_off(tmp_path, how):
    """A drain whose lease ran out while it lives; the control is one that is not fenced."""
    home = drains.Home(tmp_path / "home")
    home.put(1, "cmd:gate")
    late = home.drain(tmp_path / "late.out", "--lease", "1", how=how)
    end = time.monotonic() + 120
    while not (home.path / "first").is_dir():
        assert time.monotonic() < end and late.poll() is None
        time.sleep(0.01)
    while home.results() != {home.routes[0]: 1}:
        assert time.monotonic() < end and late.poll() is None
        home.drain(tmp_path / "next.out").wait()
    (home.path / "go").touch()
    late.wait()
    said = (tmp_path / "late.out.err").read_text()
    if how:
        assert home.doubled(), "without fencing nothing was handed off twice: the test proves nothing"
    else:
        assert "took longer than its lease" in said
        assert not home.doubled()
