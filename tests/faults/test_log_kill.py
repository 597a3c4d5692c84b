"""kill -9 of eight writers at random moments: no record that was passed on is lost, none is torn, the chain verifies."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import writers
from serenamaster import chain

WRITERS = 8
KILLS = 20 * writers.SCALE


def storm(home, given, kills, seed, *, without=None, options=(), repair=True, **environment):
    """Starts eight writers again and again and kills each at a moment of its own. Returns (kills, records that passed)."""
    dice = random.Random(seed)
    count, rounds, acknowledged = 0, 0, []
    while count < kills and rounds < kills:
        rounds += 1
        outs = [home.path.parent / f"{seed}-{rounds}-{n}.out" for n in range(WRITERS)]
        each = [[*options, "--sync", "each"] if n % 2 else options for n in range(WRITERS)]
        running = [home.start(given, out, without=without, options=own, **environment) for out, own in zip(outs, each, strict=True)]
        moments = {}
        while len(moments) < WRITERS:
            for n, out in enumerate(outs):
                # The clock of each begins with its own first record, as starting up takes longer than all the rest.
                if n not in moments and (out.stat().st_size or running[n].poll() is not None):
                    moments[n] = time.monotonic() + dice.expovariate(1 / 0.05)
            time.sleep(0.001)
            for n, moment in moments.items():
                if time.monotonic() > moment and running[n].poll() is None:
                    running[n].send_signal(signal.SIGKILL)
        for n in sorted(moments, key=moments.__getitem__):
            time.sleep(max(0, moments[n] - time.monotonic()))
            running[n].send_signal(signal.SIGKILL)
        count += sum(one.wait() == -signal.SIGKILL for one in running)
        for out in outs:
            acknowledged += writers.passed(out)
            out.unlink()
    return count, acknowledged


def test_nothing_is_lost(tmp_path):
    home = writers.Home(tmp_path / "home")
    given = writers.supply(tmp_path / "given", 20_000)
    count, acknowledged = storm(home, given, KILLS, seed=1)
    assert count >= KILLS, "the writers ended before they were killed"
    assert len(acknowledged) > KILLS
    # The last one that was killed may have left a torn tail; the next writer takes it away.
    code, last, said = home.run(writers.supply(tmp_path / "last", 1))
    assert (code, len(last)) == (0, 1), said
    assert not home.lost(acknowledged + last)
    assert not home.troubles()
    assert not chain.closed(str(home.journal)), "a kill is no reason to close a segment"


def test_control_without_the_lock(tmp_path):
    home = writers.Home(tmp_path / "home")
    count, acknowledged = storm(home, writers.supply(tmp_path / "given", 20_000), WRITERS, seed=2, without="lock")
    assert count >= 1 and acknowledged
    assert home.lost(acknowledged), "without a lock nothing was lost: the test above proves nothing"


@pytest.fixture
def small_disk(tmp_path):
    """A home on a file system of 1 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", place], capture_output=True, check=False).returncode:
        pytest.skip("NOT ROOT, OR NO MOUNTS ALLOWED: a disk that is full is not tried")
    yield writers.Home(place)
    subprocess.run(["umount", "-l", place], check=True)


def full(outs) -> int:
    return sum("No space left on device" in Path(f"{out}.err").read_text() for out in outs)


def test_nothing_is_lost_on_a_full_disk(small_disk, tmp_path):
    home = small_disk
    given = writers.supply(tmp_path / "given", 2_000, size=400)
    acknowledged, kills, fired = [], 0, 0
    for turn in range(2 * writers.SCALE):
        outs = [tmp_path / f"{turn}-{n}.out" for n in range(WRITERS)]
        running = [home.start(given, out) for out in outs]
        for one in running[:2]:
            while not acknowledged and one.poll() is None and not any(out.stat().st_size for out in outs):
                time.sleep(0.001)
            one.send_signal(signal.SIGKILL)
        codes = [one.wait() for one in running]
        kills += codes.count(-signal.SIGKILL)
        fired += full(outs)
        assert set(codes) <= {73, 74, -signal.SIGKILL}, (codes, [Path(f"{out}.err").read_text() for out in outs])
        for out in outs:
            acknowledged += writers.passed(out)
    assert fired, "the disk was never full"
    assert kills and acknowledged
    # Room again: the next writer goes on.
    subprocess.run(["mount", "-o", "remount,size=8m", home.path], check=True)
    code, last, said = home.run(writers.supply(tmp_path / "last", 1))
    assert (code, len(last)) == (0, 1), said
    assert not home.lost(acknowledged + last)
    assert not home.troubles()


def test_control_without_the_repair(tmp_path):
    """A torn tail that nobody cuts off swallows the record behind it."""
    home = writers.Home(tmp_path / "home")
    one = writers.supply(tmp_path / "one", 1)
    assert home.run(one)[0] == 0
    with home.current.open("ab") as file:
        file.write(b'\n@note\n  id: "torn')
    copy = writers.Home(tmp_path / "copy")
    copy.journal.mkdir(parents=True, mode=0o700)
    os.chmod(copy.path / "state", 0o700)
    copy.current.write_bytes(home.current.read_bytes())
    for place, without in ((home, None), (copy, "repair")):
        code, acknowledged, said = place.run(one, without=without)
        code, more, said = place.run(one, without=without)
        assert code == 0, said
        assert bool(place.lost(acknowledged + more)) == (without is not None)
