"""kill -9 of a purge at every step, a full disk and a segment that can't be replaced: the next purge ends it, and nothing else is lost."""

import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
from pathlib import Path

import pytest
import writers
from serenamaster import journal, segments, verification

KILLS = 6 * writers.SCALE
CALLS = "rename,link,linkat,unlink,unlinkat,fsync,fdatasync,ftruncate"
WORD = "geheim4711"
RECORDS = 200


def fill(home) -> list:
    """A home with three segments, in which every fifth record is to go. Returns the records that are to stay, as they passed."""
    passed = []
    for turn in range(3):
        given = home.path.parent / "given"
        with open(given, "wb") as file:
            for n in range(RECORDS):
                file.write(writers.record.encode({"@tag": "note", "body": f"{WORD if n % 5 == 0 else 'stays'} {turn} {n}"}))
        code, more, said = home.run(given)
        assert code == 0, said
        passed += more
        if turn < 2:
            journal._live.clear()
            segments.close(str(home.journal), 1 << 62, stage="test")
    (home.journal / ".torn").write_text(WORD)
    return [rec for rec in passed if WORD not in rec["body"]]


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    home = writers.Home(tmp_path_factory.mktemp("full") / "home")
    return home, fill(home)


@pytest.fixture
def again(full, tmp_path):
    """Copies of that home, as many as are asked for."""

    def copy(name):
        shutil.copytree(full[0].path, tmp_path / name)
        return writers.Home(tmp_path / name)

    return copy


def purge(home, *options, prefix=()):
    """The finished process of a purge."""
    command = [*prefix, "ftai-archive", "purge", *options]
    return subprocess.run(command, env=home.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False)


def traces(home) -> list:
    return [path for path in home.path.rglob("*") if path.is_file() and WORD.encode() in path.read_bytes()]


def rows(home) -> list:
    db = sqlite3.connect(home.path / "state" / "archive.db")
    found = db.execute("SELECT * FROM records ORDER BY seq").fetchall()
    db.close()
    return found


def ended(home, stay) -> None:
    """The purge is done, and all that was to stay is there."""
    assert traces(home) == []
    assert not home.lost(stay)
    seen, troubles = verification.verify(str(home.journal))
    assert (troubles, seen.notes) == ([], [])
    subprocess.run(["ftai-archive", "stats"], env=home.environment, stdout=subprocess.DEVNULL, check=True)
    before = rows(home)
    subprocess.run(["ftai-archive", "rebuild"], env=home.environment, stdout=subprocess.DEVNULL, check=True)
    assert rows(home) == before
    kinds = [rec["@tag"] for rec in (rec for _, rec in journal.read(str(home.journal)))]
    assert kinds.count("tombstone") == 3 * RECORDS // 5


@pytest.fixture(scope="module")
def strace():
    program = shutil.which("strace")
    if program is None or subprocess.run([program, "-o", os.devnull, "true"], check=False).returncode:
        pytest.skip("STRACE IS MISSING, OR MAY NOT TRACE: a purge is not killed")
    return program


def calls(home, strace, log, names) -> list:
    """(name, which of that name) of these system calls that a whole purge makes, in order."""
    ran = purge(home, "--pattern", WORD, "--because", "test", prefix=[strace, "-f", "-o", log, "-e", f"trace={names}"])
    assert ran.returncode == 0, ran.stderr
    made = re.findall(r"^\d+ +([a-z0-9]+)\(", Path(log).read_text(), re.M)
    return [(name, made[: n + 1].count(name)) for n, name in enumerate(made)]


@pytest.mark.parametrize("names", [CALLS, "pwrite64,write"])
def test_killed_at_every_step(full, again, strace, tmp_path, names):
    stay = full[1]
    home = again("whole")
    made = calls(home, strace, tmp_path / "log", names)
    ended(home, stay)
    assert len(made) > 20
    dice = random.Random(names)
    by_itself = killed = 0
    for name, n in dice.sample(made, len(made)):
        if by_itself and killed >= KILLS // 2:
            break
        home = again(f"{name}-{n}")
        inject = [strace, "-f", "-o", os.devnull, "-e", f"trace={name}", "-e", f"inject={name}:signal=SIGKILL:when={n}"]
        ran = purge(home, "--pattern", WORD, "--because", "test", prefix=inject)
        if ran.returncode == 0:
            # Not every run makes each call as often: a cache may be there already.
            ended(home, stay)
            continue
        assert ran.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), ran.stderr
        killed += 1
        # Nothing is lost at any moment; what was named and stands, and what has no certificate, is told.
        assert not home.lost(stay)
        ran = purge(home, "--finish")
        assert ran.returncode in (0, 1), ran.stderr
        if f'"records":{3 * RECORDS // 5},' in ran.stdout:
            by_itself += 1
            ended(home, stay)
        # Before its names were on the disk there is nothing that could be ended: it is given again.
        ran = purge(home, "--pattern", WORD, "--because", "test")
        assert ran.returncode == 0, ran.stderr
        ended(home, stay)
        shutil.rmtree(home.path)
    assert killed >= KILLS // 2, "it ended before it was killed"
    assert by_itself, "no kill came behind the names"


def test_what_was_interrupted_is_told_and_ended(full, again, strace):
    """Killed between the names and the tombstones: --verify knows each record, and --finish needs no more than the journal."""
    home = again("one")
    inject = [strace, "-f", "-o", os.devnull, "-P", str(home.journal / ".000001.ftai.new"), "-e", "inject=rename:signal=SIGKILL"]
    assert purge(home, "--pattern", WORD, "--because", "test", prefix=inject).returncode in (-signal.SIGKILL, 137)
    seen, troubles = verification.verify(str(home.journal))
    assert len(troubles) == 3 * RECORDS // 5
    assert all("it stands" in trouble.message for trouble in troubles)
    assert "was interrupted" in seen.notes[0]
    assert traces(home)
    ran = purge(home, "--finish")
    assert (ran.returncode, ran.stderr) == (0, "")
    ended(home, full[1])


def test_control_without_the_end(full, again, strace):
    home = again("one")
    inject = [strace, "-f", "-o", os.devnull, "-P", str(home.journal / ".000002.ftai.new"), "-e", "inject=rename:signal=SIGKILL"]
    assert purge(home, "--pattern", WORD, "--because", "test", prefix=inject).returncode in (-signal.SIGKILL, 137)
    with pytest.raises(AssertionError):
        ended(home, full[1])


@pytest.mark.parametrize("call", ["rename", "fdatasync", "write"])
def test_a_segment_that_cannot_be_replaced(full, again, strace, call):
    home = again("one")
    inject = [
        strace,
        "-f",
        "-o",
        os.devnull,
        "-P",
        str(home.journal / ".000002.ftai.new"),
        "-e",
        f"inject={call}:error={'ENOSPC' if call == 'write' else 'EROFS'}",
    ]
    ran = purge(home, "--pattern", WORD, "--because", "test", prefix=inject)
    assert ran.returncode == (73 if call == "write" else 74), ran.stderr
    assert "cannot rewrite" in ran.stderr and WORD not in ran.stderr
    assert not (home.journal / ".000002.ftai.new").exists()
    assert not home.lost(full[1])
    ran = purge(home, "--finish")
    assert (ran.returncode, ran.stderr) == (0, "")
    ended(home, full[1])


def test_a_full_disk(full, tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m,mode=700", "tmpfs", place], capture_output=True, check=False).returncode:
        pytest.skip("NOT ROOT, OR NO MOUNTS ALLOWED: a disk that is full is not tried")
    try:
        shutil.copytree(full[0].path, place, dirs_exist_ok=True)
        home = writers.Home(place)
        fired = 0
        with open(place / "filler", "wb") as filler:
            free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
            filler.write(b"x" * (free - 8192))
        for room in range(0, 1 << 20, 1 << (15 if writers.SCALE > 1 else 17)):
            if room:
                os.truncate(place / "filler", max(os.path.getsize(place / "filler") - (1 << (15 if writers.SCALE > 1 else 17)), 0))
            ran = purge(home, "--pattern", WORD, "--because", "test")
            assert ran.returncode in (0, 73, 74), ran.stderr
            fired += ran.returncode != 0
            assert not home.lost(full[1])
            if ran.returncode == 0 and not traces(home):
                break
        assert fired, "the disk was never full"
        os.unlink(place / "filler")
        assert purge(home, "--pattern", WORD, "--because", "test").returncode == 0
        ended(home, full[1])
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_two_at_once(full, again):
    home = again("one")
    command = ["ftai-archive", "purge", "--because", "test", "--pattern"]
    running = [subprocess.Popen([*command, f"{WORD} {n}"], env=home.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) for n in (0, 1, 2)]
    for one in running:
        one.communicate(timeout=300)
    assert [one.returncode for one in running] == [0, 0, 0]
    ended(home, full[1])
