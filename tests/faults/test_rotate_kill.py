"""Rotation under kill -9, power cuts, full and failing disks: nothing that was passed on is lost or doubled, and the next run ends what one began.

Controls: copying and truncating a journal in use, and no syncs, lose.
"""

import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter

import pytest
import rotations
import writers
from rotations import CALLS, Home, Writers, step, tracing, until
from serenamaster import chain, verification
from serenamaster.errors import Failure

KILLS = 40 if writers.SCALE == 1 else 100 * writers.SCALE  # at least half of them of the rotator
CUTS = 5 * writers.SCALE
strace = pytest.mark.skipif(not shutil.which("strace"), reason="STRACE IS MISSING: no system call can be struck at")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FTAI_HOME", str(tmp_path / "home"))
    return Home(tmp_path / "home")


def strike(home, call) -> tuple[bool, str]:
    """A rotator that is killed as it is about to do one call: (whether it was, the step it was killed in)."""
    trace = home.path.parent / "strike"
    child = home.rotator(prefix=tracing(trace, f"trace={','.join(CALLS)}", f"inject={call.name}:signal=KILL:when={call.number}"))
    _, said = child.communicate(timeout=120)
    assert child.returncode in (0, -signal.SIGKILL, 128 + signal.SIGKILL), said
    lines = [line for line in trace.read_text().splitlines() if "(" in line]
    return child.returncode != 0, step(lines[-1]) if lines else "none"


def surprise(home, dice, whole: float) -> bool:
    """Whether a rotator was killed at some moment between its intent and its end, which takes `whole` seconds."""
    child = home.rotator()
    if child.stdout.readline():
        time.sleep(dice.random() * whole)
    child.kill()
    child.communicate()
    return child.returncode == -signal.SIGKILL


def took(home) -> float:
    """Seconds from the intent of a rotation to its end."""
    child = home.rotator()
    assert child.stdout.readline(), "there was nothing to rotate"
    start = time.monotonic()
    _, said = child.communicate(timeout=300)
    assert child.returncode == 0, said
    return time.monotonic() - start


@strace
def test_nothing_is_lost_where_rotators_and_writers_are_killed(home):
    dice = random.Random(11)
    one = writers.supply(home.path.parent / "one", 1)
    calls = home.calls(one)
    assert {call.step for call in calls} >= {name for name, _ in rotations.STEPS}, calls
    pool = Writers(home)
    pool.wait(20)
    whole = took(home)
    steps: Counter = Counter()
    struck = surprised = 0
    missing = calls
    while struck + surprised < KILLS * 0.55 or missing:
        # Each step first.
        if missing := [call for call in calls if not steps[call.step]]:
            assert struck < KILLS, f"no kill came in these steps: {missing}"
        if missing or dice.random() < 0.2:
            # One that nobody kills ends what the others left: with more to seal, the numbers of the calls would be others.
            code, said = home.rotate()
            assert code == 0, said
        if missing or struck <= surprised:
            fired, where = strike(home, dice.choice(missing or calls))
            struck += fired
            steps[where] += fired
        else:
            surprised += surprise(home, dice, whole)
        pool.renew()
        if pool.kills < KILLS * 0.45 * (struck + surprised) / (KILLS * 0.55):
            pool.kill(dice.randrange(4))
    while pool.kills < KILLS * 0.45:
        pool.kill(dice.randrange(4))
    acknowledged = pool.end()
    assert struck + surprised >= KILLS / 2 and struck + surprised + pool.kills >= KILLS
    assert all(steps[name] for name, _ in rotations.STEPS), steps
    code, last, said = home.run(one)
    assert (code, len(last)) == (0, 1), said
    code, said = home.rotate()
    assert code == 0, said
    home.settled()
    assert home.whole(acknowledged + last) > 10
    print(f"{struck} + {surprised} kills of rotators, {pool.kills} of writers, {len(acknowledged)} records, {dict(steps)}")


@strace
def test_a_rotator_goes_on_where_one_was_killed_at_each_of_its_steps(home):
    """And no writer came in between, who would have ended what it left of a closing."""
    one = writers.supply(home.path.parent / "one", 1)
    calls = {call.step: call for call in home.calls(one) if call.name in ("link", "rename", "unlink")}
    assert calls.keys() >= {"close: link", "close: new head", "seal", "ledger", "remove", "checkpoint"}
    acknowledged: list = []
    for call in calls.values():
        code, passed, said = home.run(one)
        assert code == 0, said
        acknowledged += passed
        assert strike(home, call)[0], call
        code, said = home.rotate()
        assert code == 0, said
        home.settled()
        home.whole(acknowledged)


def test_control_a_copy_that_is_cut_short_loses(home):
    """What others do to logs: copy, and truncate. The copies are where closed segments are, so that what is in them is not lost."""
    pool = Writers(home, codes=None)
    for _ in range(60):
        pool.wait(20)
        last = max((int(name[:-5]) for name in home.names() if chain.is_closed(name)), default=0)
        shutil.copy(home.current, home.journal / f"{last + 1:06d}.ftai")
        pool.wait(1)  # a copy of what is not as small takes so long
        os.truncate(home.current, 0)
        pool.renew()
        if home.lost(pool.passed()):
            break
    assert home.lost(pool.end()), "copying and truncating lost nothing: the test above proves nothing"


# ---- disks that are full, or fail ----


@pytest.fixture
def small_disk(tmp_path, monkeypatch):
    """A home on a file system of 24 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "tmpfs", place], capture_output=True, check=False).returncode:
        pytest.skip("NOT ROOT, OR NO MOUNTS ALLOWED: a disk that is full is not tried")
    monkeypatch.setenv("FTAI_HOME", str(place))
    yield Home(place)
    subprocess.run(["umount", "-l", place], check=True)


def test_a_disk_that_is_full_while_sealing(small_disk, tmp_path):
    home, dice = small_disk, random.Random(3)
    # Nothing that can be packed, so that the sealed one is about as large.
    given = tmp_path / "given"
    with given.open("wb") as file:
        for _ in range(300):
            file.write(b'{"@tag":"note","body":"%s"}\n' % dice.randbytes(3000).hex().encode())
    code, acknowledged, said = home.run(given)
    assert code == 0, said
    size = home.current.stat().st_size
    filler = home.path / "filler"
    seen = os.statvfs(home.path)
    # Room for the new head and a few records, and for a part of the sealed one.
    for room in (60_000, size // 4, size // 2):
        filler.write_bytes(b"x" * max(seen.f_bavail * seen.f_frsize - room, 0))
        code, said = home.rotate()
        assert code in (1, 73, 74) and "No space left on device" in said, (code, said)
        assert [name for name in home.names() if ".tmp" in name] == [], "a part of a sealed file is left"
        assert not [part for part in chain.segments(str(home.journal)) if part.sealed], "it was sealed: the disk was not full"
        filler.unlink()
        assert not home.lost(acknowledged) and not home.troubles()
        seen = os.statvfs(home.path)
    subprocess.run(["mount", "-o", "remount,size=64m", home.path], check=True)
    code, said = home.rotate()
    assert code == 0, said
    home.settled()
    home.whole(acknowledged)


@strace
def test_a_disk_that_fails_to_sync(home):
    """Each fsync of a rotation fails once: it says so or survives it, and the next run ends what it left."""
    one = writers.supply(home.path.parent / "one", 3)
    calls = [call for call in home.calls(one) if "sync" in call.name]
    acknowledged, fired, codes = [], 0, Counter()
    assert len(calls) > 8
    for call in calls:
        code, passed, said = home.run(one)
        assert code == 0, said
        acknowledged += passed
        trace = home.path.parent / "trace"
        code, said = home.rotate(prefix=tracing(trace, f"trace={','.join(CALLS)}", f"inject={call.name}:error=EIO:when={call.number}"))
        fired += "(INJECTED)" in trace.read_text()
        codes[code] += 1
        assert code in (0, 1, 73, 74), said
        assert code == 0 or "Input/output error" in said, said
        assert not home.lost(acknowledged), call
        # What an error of fsync left in doubt is settled by the next that is written.
        code, passed, said = home.run(one)
        assert code == 0, said
        acknowledged += passed
        code, said = home.rotate()
        assert code == 0, said
        # What stood behind the place that was in doubt is damage, and no record.
        assert not home.lost(acknowledged) and not [trouble for trouble in home.troubles() if not trouble.damage], call
    assert fired == len(calls)
    assert codes.keys() - {0}, "no error was told of"
    home.settled()
    assert verification.accept(str(home.journal)), "no sync of the live segment failed"
    home.whole(acknowledged)


# ---- power cuts ----


class Disk:
    """ext4 on a loop device: what it has at a moment is what a power cut leaves."""

    def __init__(self, folder):
        self.image, self.copy = folder / "image", folder / "copy"
        self.place, self.other = folder / "disk", folder / "after"
        for path in (self.place, self.other):
            path.mkdir()
        with self.image.open("wb") as file:
            file.truncate(96 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", self.image], check=True)
        # Of a disk that is in use nothing is to be written by itself for a while: what is there was synced.
        self.mounted = not subprocess.run(["mount", "-o", "loop,commit=300", self.image, self.place], capture_output=True, check=False).returncode

    def cut(self):
        """The state of the disk now, mounted at `other`."""
        subprocess.run(["cp", "--sparse=always", self.image, self.copy], check=True)
        subprocess.run(["mount", "-o", "loop", self.copy, self.other], check=True)

    def forget(self):
        subprocess.run(["umount", self.other], check=True)
        self.copy.unlink()


@pytest.fixture
def disk(tmp_path):
    if os.geteuid() != 0 or not shutil.which("mkfs.ext4"):
        pytest.skip("NOT ROOT, OR MKFS.EXT4 IS MISSING: no power is cut")
    made = Disk(tmp_path)
    if not made.mounted:
        pytest.skip("NO LOOP DEVICES: no power is cut")
    yield made
    for place in (made.other, made.place):
        subprocess.run(["umount", "-l", place], capture_output=True, check=False)


def stopped(pids: list[int]) -> bool:
    """True when all of these and their threads have stopped, or are gone."""
    for pid in pids:
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/stat") as file:
                    if file.read().rpartition(")")[2].split()[0] not in "TZX":
                        return False
        except FileNotFoundError:
            continue
    return True


def signalled(pids: list[int], number: int) -> None:
    for pid in pids:
        os.kill(pid, number)


def power(disk, monkeypatch, seed: int, *, writer=None, rotator=False):
    """Cuts the power again and again, while four write and one rotates. Yields (home as it is after that, what was passed on until then)."""
    dice = random.Random(seed)
    home = Home(disk.place / "home")
    subprocess.run(["sync", "-f", disk.place], check=True)
    # 75: who had to stand still had no turn in time.
    pool = Writers(home, without=writer, codes={0, -9, 75})
    child = None
    try:
        pool.wait(5)
        whole = took(home)
        while True:
            pool.wait(20)
            child = home.rotator(without=rotator)
            child.stdout.readline()
            time.sleep(dice.random() * whole)
            pids = [child.pid, *pool.pids()]
            signalled(pids, signal.SIGSTOP)
            until(lambda pids=pids: stopped(pids))
            acknowledged = pool.passed()
            disk.cut()
            signalled(pids, signal.SIGCONT)
            child.communicate()
            pool.renew()
            # While one looks at it the writers stand still: what there is to look at grows with the cuts, not with the time that the looks take.
            pids = pool.pids()
            signalled(pids, signal.SIGSTOP)
            monkeypatch.setenv("FTAI_HOME", str(disk.other / "home"))
            yield Home(disk.other / "home", keys=False), acknowledged
            disk.forget()
            signalled(pids, signal.SIGCONT)
    finally:
        pool.end()


def test_nothing_is_lost_where_the_power_is_cut(disk, monkeypatch):
    cuts = middle = 0
    for after, acknowledged in power(disk, monkeypatch, 5):
        middle += any(not part.sealed for part in chain.segments(str(after.journal)))
        assert not after.lost(acknowledged), "before anybody looked after it"
        code, said = after.rotate()
        assert code == 0, said
        after.settled()
        after.whole(acknowledged)
        cuts += 1
        if cuts >= CUTS and (middle or cuts > CUTS + 20):
            break
    assert middle, "no power was cut in the middle of a rotation"
    print(f"{cuts} cuts, {middle} in the middle of a rotation")


@pytest.mark.parametrize("without", ["writers", "rotator"])
def test_control_without_syncs_loses(disk, monkeypatch, without):
    ways = {"writer": "sync"} if without == "writers" else {"rotator": True}
    for count, (after, acknowledged) in enumerate(power(disk, monkeypatch, 6, **ways)):
        try:
            lost = after.lost(acknowledged)
        except Failure:
            lost = True  # of a sealed segment nothing was written, and the plain one is gone
        if lost:
            break
        assert count < 30, "without syncs nothing was lost: the test above proves nothing"
