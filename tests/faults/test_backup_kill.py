"""kill -9 of a backup at every step, and a folder that is full, read-only or slow: what was there before is as good as it was, and the next one works."""

import fcntl
import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import writers
from serenamaster import archive, backup, journal, record, segments, verification

FULL = writers.SCALE >= 10
KILLS = 6 * writers.SCALE if FULL else 4
CALLS = "rename,unlink,unlinkat,fsync,mkdir,flock"
RECORDS = 200


def run(home, *words, prefix=(), **environment):
    """The finished process of a verb of ftai-rotate."""
    command = [*prefix, "ftai-rotate", *map(str, words)]
    return subprocess.run(
        command, env=home.environment | environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False, cwd=home.path
    )


def done(home, *words, code: int = 0):
    ran = run(home, *words)
    assert ran.returncode == code, ran.stderr
    return ran


def tree(place) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in Path(place).rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A home with two segments, and a folder `to` in it with three backups: the next lets go of the first, and of the second's copy of the archive."""
    home = writers.Home(tmp_path_factory.mktemp("full") / "home")
    given = writers.supply(home.path.parent / "given", RECORDS)
    assert home.run(given)[0] == 0
    segments.rotate(str(home.journal), stage="test")
    journal._live.clear()
    assert home.run(given)[0] == 0
    subprocess.run(["ftai-keys", "init"], env=home.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    (home.path / "to").mkdir(mode=0o700)
    (home.path / "config").mkdir(mode=0o700)
    policy = '@ftai v2.0\n\n@retention\n  name: "backups"\n  summary: "x"\n  keep_last: 3\n@end\n'
    (home.path / "config" / "serenamaster.memory.ftai").write_text(policy)
    for _ in range(3):
        done(home, "backup", "--to", home.path / "to")
    return home


@pytest.fixture
def again(full, tmp_path):
    """Copies of that home, as many as are asked for."""

    def copy(name):
        shutil.copytree(full.path, tmp_path / name)
        place = tmp_path / name / "state" / "backups"
        place.write_bytes(place.read_bytes().replace(bytes(full.path), bytes(tmp_path / name)))
        return writers.Home(tmp_path / name)

    return copy


def usable(home, before: dict) -> None:
    """What is in the folder is whole, what was there before is there unless the policy let go of it, and it can be restored."""
    done(home, "check", "--read-data")
    now = tree(home.path / "to")
    names = sorted(name for name in before if name.startswith("snapshots/"))
    assert names[-1] in now
    changed = [name for name, data in before.items() if name in now and now[name] != data and name != "latest/keys.note"]
    assert not changed
    into = home.path / "restored"
    oldest = backup_names(home)[0].removesuffix(".note")
    for at in ([], ["--at", backup.instant(oldest)]):
        done(home, "restore", *at, "--into", into)
        assert verification.verify(str(into / "state" / "journal"))[1] == []
        assert journal.position(str(into / "state" / "journal")) >= 2 * RECORDS
        assert (into / "state" / "archive.db").exists()
        shutil.rmtree(into)


def next_works(home) -> None:
    """The next backup clears away what is left, and is as good as any."""
    done(home, "backup")
    left = [name for name in tree(home.path / "to") if re.search(r"/\.|tmp", name)]
    assert left == []
    done(home, "check", "--read-data")
    every = [entry for name in backup_names(home) for entry in entries(home, name)]
    copies = [entry["object"] for entry in every if entry["kind"] == "archive"]
    named = {entry["object"] for entry in every if entry["kind"] != "archive"} | {*copies[-2:]}
    assert set(os.listdir(home.path / "to" / "objects")) == named
    assert not (home.path / "cache" / "backup").exists()


def backup_names(home) -> list[str]:
    return sorted(name for name in os.listdir(home.path / "to" / "snapshots") if name.endswith(".note"))


def entries(home, name: str) -> list[dict]:
    lines = (home.path / "to" / "snapshots" / name).read_text().split("\n\n")[0].splitlines()
    return [record.decode(line.encode()) for line in lines[1:]]


@pytest.fixture(scope="module")
def strace():
    program = shutil.which("strace")
    if program is None or subprocess.run([program, "-o", os.devnull, "true"], check=False).returncode:
        pytest.skip("STRACE IS MISSING, OR MAY NOT TRACE: a backup is not killed")
    return program


def calls(home, strace, log, names) -> list[tuple[str, int]]:
    """(name, which of that name) of these system calls that a whole backup makes, in order."""
    ran = run(home, "backup", prefix=[strace, "-f", "-o", log, "-e", f"trace={names}"])
    assert ran.returncode == 0, ran.stderr
    made = re.findall(r"^\d+ +([a-z0-9]+)\(", Path(log).read_text(), re.M)
    return [(name, made[: n + 1].count(name)) for n, name in enumerate(made)]


@pytest.mark.parametrize("names", [CALLS, "write,pwrite64"])
def test_killed_at_every_step(again, strace, tmp_path, names):
    home = again("whole")
    made = calls(home, strace, tmp_path / "log", names)
    assert len(made) > 30
    dice, killed, seen = random.Random(names), 0, set()
    for name, n in dice.sample(made, len(made)):
        if killed >= KILLS // 2:
            break
        home = again(f"{name}-{n}")
        before = tree(home.path / "to")
        inject = [strace, "-f", "-o", os.devnull, "-e", f"trace={name}", "-e", f"inject={name}:signal=SIGKILL:when={n}"]
        ran = run(home, "backup", prefix=inject)
        if ran.returncode == 0:
            continue  # not every run makes each call as often
        assert ran.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), ran.stderr
        killed += 1
        seen.add(len(backup_names(home)))
        usable(home, before)
        next_works(home)
        shutil.rmtree(home.path)
    assert killed >= KILLS // 2, "it ended before it was killed"


def test_control_a_manifest_before_its_objects(again):
    """Were the manifest there before what it names, as a plain copy of the folder may have it, it would be seen."""
    home = again("one")
    before = tree(home.path / "to")
    newest = backup_names(home)[-1]
    (home.path / "to" / "objects" / entries(home, newest)[-1]["object"]).unlink()
    with pytest.raises(AssertionError):
        usable(home, before)


def test_killed_by_chance_while_others_write(again):
    """kill -9 from outside, whenever it comes, with a writer at the journal; then what was acknowledged is in the journal, and in the next backup."""
    home = again("one")
    given = writers.supply(home.path.parent / "given", 20_000 if FULL else 4000)
    writer = home.start(given, home.path.parent / "out")
    dice, hits = random.Random(7), 0
    for _ in range(20 * writers.SCALE):
        if hits == 2 * writers.SCALE:
            break
        before = tree(home.path / "to")
        process = subprocess.Popen(
            ["ftai-rotate", "backup"], env=home.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=home.path
        )
        try:
            process.wait(0.1 + dice.random() / 2)
        except subprocess.TimeoutExpired:
            process.kill()
            hits += process.wait() == -signal.SIGKILL
        usable(home, before)
    writer.terminate()
    writer.wait()
    assert hits, "it was never killed"
    next_works(home)
    assert not home.lost(writers.passed(home.path.parent / "out"))
    done(home, "restore", "--into", home.path / "restored")
    held = {rec["id"] for _, rec in journal.read(str(home.path / "restored" / "state" / "journal"))}
    assert {rec["id"] for rec in writers.passed(home.path.parent / "out")} <= held


def mounted(place, options: str) -> None:
    place.mkdir(exist_ok=True)
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", f"{options},mode=700", "tmpfs", place], capture_output=True, check=False).returncode:
        pytest.skip("NOT ROOT, OR NO MOUNTS ALLOWED: a disk that is full, or read-only, is not tried")


def unmounted(place) -> None:
    subprocess.run(["umount", place], check=True)


def test_a_full_disk(again, tmp_path):
    home, place = again("one"), tmp_path / "disk"
    mounted(place, "size=4m")
    try:
        done(home, "backup", "--to", place)
        fired = 0
        for room in (0, 4096, 16_384, 65_536):
            before = tree(place)
            with open(place / "filler", "wb") as filler:
                free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
                filler.write(b"x" * (free - room))
            ran = run(home, "backup", "--to", place)
            (place / "filler").unlink()
            if ran.returncode:
                fired += 1
                assert ran.returncode in (73, 74) and "No space left" in ran.stderr, ran.stderr
                # But for the keys of threads, which may be newer already, nothing is other than before, and nothing is more.
                now = tree(place)
                assert {name: data for name, data in now.items() if name != "latest/keys.note"} == {
                    name: data for name, data in before.items() if name != "latest/keys.note"
                }
                done(home, "check", "--read-data")
        assert fired >= 2, "the disk was never full"
        done(home, "backup", "--to", place)
        done(home, "check", "--read-data")
    finally:
        unmounted(place)


def test_a_full_disk_where_the_scratch_is(again, tmp_path):
    """The copies of the databases are made beside the cache: where there is no room for them, they are left out, and the journal is backed up."""
    home = again("one")
    before = tree(home.path / "to")
    shutil.rmtree(home.path / "cache", ignore_errors=True)
    mounted(home.path / "cache", "size=64k")
    try:
        ran = run(home, "backup")
        assert ran.returncode == 1 and "archive.db' is not in the backup" in ran.stderr, ran.stderr
    finally:
        unmounted(home.path / "cache")
    usable(home, before)
    next_works(home)


def test_a_disk_that_is_read_only(again, tmp_path):
    home, place = again("one"), tmp_path / "disk"
    mounted(place, "size=8m")
    try:
        done(home, "backup", "--to", place)
        before = tree(place)
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        ran = run(home, "backup", "--to", place)
        assert ran.returncode == 73 and "Read-only file system" in ran.stderr, ran.stderr
        assert run(home, "backup", "--dry-run", "--to", place).returncode == 73
        assert tree(place) == before
        # To look at it, and to restore from it, needs no writing there.
        done(home, "check", "--read-data", "--to", place)
        done(home, "list", "--to", place)
        done(home, "restore", "--to", place, "--into", home.path / "restored")
        subprocess.run(["mount", "-o", "remount,rw", place], check=True)
        (place / ".lock").unlink()
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        done(home, "drill", "--to", place)
    finally:
        unmounted(place)
    ran = run(home, "backup", "--to", place)
    assert ran.returncode == 73 and "not mounted" in ran.stderr, ran.stderr
    assert os.listdir(place) == []


@pytest.mark.parametrize(("call", "error"), [("fsync", "EIO"), ("rename", "ENOSPC"), ("write", "EIO"), ("rename", "EIO")][: None if FULL else 3])
def test_a_disk_that_fails(again, strace, call, error):
    """Whatever fails in its folder: the backup is not made, and those that are there are as good as they were."""
    home, other = again("one"), again("count")
    before = tree(home.path / "to")
    log = home.path.parent / "log"
    for each in (home, other):
        done(each, "backup", "--dry-run")  # the cache of the specs is written, which may fail
    made = calls(other, strace, home.path.parent / "counted", call)
    inject = ["-e", f"inject={call}:error={error}:when={made[len(made) // 2][1]}"]
    ran = run(home, "backup", prefix=[strace, "-f", "-o", log, "-e", f"trace={call}", *inject])
    assert "(INJECTED)" in log.read_text(), "the fault did not fire"
    assert ran.returncode in (1, 73, 74), ran.stderr
    usable(home, before)
    next_works(home)


def test_a_slow_disk_keeps_no_writer_waiting(again, strace):
    """While the backup stands still in its folder, the journal is free."""
    home = again("one")
    log = home.path.parent / "log"
    slow = [strace, "-f", "-o", str(log), "-P", str(home.path / "to" / "objects"), "-e", "trace=fsync", "-e", "inject=fsync:signal=SIGSTOP:when=1"]
    process = subprocess.Popen(
        [*slow, "ftai-rotate", "backup"], env=home.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=home.path
    )
    until = time.monotonic() + 300
    while not (log.exists() and "stopped by SIGSTOP" in log.read_text()):
        assert time.monotonic() < until and process.poll() is None, "the backup never began"
        time.sleep(0.01)
    # All of this happens while that one stands still.
    with open(home.path / "to" / ".lock") as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    given = writers.supply(home.path.parent / "given", 50)
    assert home.run(given)[0] == 0
    assert process.poll() is None
    os.kill(int(re.findall(r"^(\d+) .*stopped by SIGSTOP", log.read_text(), re.M)[-1]), signal.SIGCONT)
    assert process.communicate(timeout=120)[1] == b""
    assert process.returncode == 0
    done(home, "check", "--read-data")


def test_many_at_once(again):
    home = again("one")
    processes = [
        subprocess.Popen(
            ["ftai-rotate", "backup"], env=home.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=home.path
        )
        for _ in range(3)
    ]
    codes = []
    for process in processes:
        said = process.communicate(timeout=300)[1].decode()
        codes.append(process.returncode)
        assert process.returncode in (0, 75), said
    assert 0 in codes
    next_works(home)
    archive._caught.clear()
