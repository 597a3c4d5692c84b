"""The age file of the keys under kill -9, on full disks and with many writers: the old or the new value is there, never neither."""

import os
import random
import resource
import secrets
import signal
import subprocess
import time
from pathlib import Path

import pytest
import writers
from serenamaster import paths, secret, specs, stream
from serenamaster.errors import Failure

KILLS = 20 * writers.SCALE
# What stream.save() and the lock do to the disk, in their order.
CALLS = ("open", "write", "fsync", "close", "rename", "unlink", "listdir")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FTAI_HOME", str(tmp_path / "ftai"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    secret._phrases.clear()
    specs.forget()
    return tmp_path


def read(name="vendor"):
    return secret.read(name, reader="", log=lambda *row: None, entry={})[0]


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


def ended(pid) -> int:
    """How a child ended: its status, or the signal, below 0."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def dying(work, place):
    """work(), killed before the call of CALLS that has this number. The calls are real ones."""
    count = 0

    def counted(real):
        def call(*args, **more):
            nonlocal count
            count += 1
            if count == place:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **more)

        return call

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    work()


def carelessly(path, data, mode=0o600):
    """What stream.save() is there to be better than: the control."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    os.write(fd, data)
    os.fsync(fd)
    os.close(fd)


def steps(work, check):
    """Kills work() at each of its steps, and checks what is left each time; returns how many there were."""
    for place in range(1, 500):
        status = ended(forked(lambda place=place: dying(work, place)))
        assert status in (0, -signal.SIGKILL), status
        check(place)
        if status == 0:
            return place - 1
    raise AssertionError("it never came to its end")


def test_killed_at_each_step_of_a_replacement():
    secret.write("vendor", "value 00000000")
    secret.write("other", "another value")
    seen = set()

    def check(place):
        value = read()
        assert value in ("value 00000000", "value 00000001")
        assert read("other") == "another value"
        assert {known["name"] for known in secret.listed()} >= {"vendor", "other"}
        seen.add(value)
        if place % 3 == 0:
            secret.write("vendor", "value 00000000")

    assert steps(lambda: secret.write("vendor", "value 00000001"), check) > 15
    assert len(seen) == 2, "it was killed before and behind the replacement"
    assert read() == "value 00000001"


def test_killed_at_each_step_of_the_first_key(home):
    def check(place):
        try:
            assert read() == "the first value"
        except Failure as bad:
            assert bad.code == 69, bad.message
        # What is left is no hindrance.
        secret.write("vendor", "the next value")
        assert read() == "the next value"
        for path in (home / "ftai" / "state" / "keys").iterdir():
            path.unlink()

    assert steps(lambda: secret.write("vendor", "the first value"), check) > 20


def test_killed_at_each_step_of_a_removal():
    def check(place):
        assert read("other") == "another value"
        try:
            assert read() == "the value"
        except Failure as bad:
            assert bad.code == 69, bad.message
        secret.write("vendor", "the value")

    secret.write("vendor", "the value")
    secret.write("other", "another value")
    assert steps(lambda: secret.remove("vendor"), check) > 15


def test_killed_at_each_step_of_a_revocation():
    secret.write("vendor", "the value")
    secret.grant("vendor", "ftai-two")
    secret.grant("vendor", "ftai-one")

    def check(place):
        assert secret.readers("vendor") in (["ftai-two"], ["ftai-one", "ftai-two"])

    assert steps(lambda: secret.revoke("vendor", "ftai-one"), check) > 5
    assert secret.readers("vendor") == ["ftai-two"]


def test_control_that_writes_in_place(monkeypatch):
    secret.write("vendor", "value 00000000")
    monkeypatch.setattr(stream, "save", carelessly)
    lost = []

    def check(place):
        try:
            assert read()
        except Failure as bad:
            lost.append(bad.code)
        for path in Path(paths.state(), "keys").iterdir():
            path.unlink()
        secret.write("vendor", "value 00000000")

    steps(lambda: secret.write("vendor", "value 00000001"), check)
    assert 65 in lost


def storm(kills, seed):
    """Kills writers of ever new values at random moments; returns (kills, moments in which there was neither the old nor the new value)."""
    dice, count, neither = random.Random(seed), 0, 0
    secret.write("vendor", "value 00000000")
    n = 0
    while count < kills:
        into, out = os.pipe()

        def work(n=n, out=out):
            for m in range(n + 1, n + 100_000):
                secret.write("vendor", f"value {m:08}")
                os.write(out, b"%08d" % m)

        pid = forked(work)
        os.close(out)
        if len(first := os.read(into, 8)) == 8:
            n = int(first)
        time.sleep(dice.uniform(0, 0.02))
        os.kill(pid, signal.SIGKILL)
        count += ended(pid) == -signal.SIGKILL
        while done := os.read(into, 8):
            n = int(done)
        os.close(into)
        try:
            value = read()
        except Failure:
            value = ""
        if value == f"value {n + 1:08}":
            n += 1
        elif value != f"value {n:08}":
            neither += 1
            for path in Path(paths.state(), "keys").iterdir():
                path.unlink()
            secret.write("vendor", f"value {n:08}")
    return count, neither


def test_killed_at_random():
    assert storm(KILLS, seed=1) == (KILLS, 0)


def test_control_killed_at_random_while_it_writes_in_place(monkeypatch):
    def slowly(path, data, mode=0o600):
        carelessly(path, data[: len(data) // 2], mode)
        time.sleep(0.005)
        carelessly(path, data, mode)

    monkeypatch.setattr(stream, "save", slowly)
    # How many kills it takes until one comes between the halves depends on what else the machine does.
    for seed in range(2, 22):
        count, neither = storm(10, seed)
        assert count == 10
        if neither:
            break
    assert neither, "nothing was lost: the test above proves nothing"


def test_many_writers_at_once():
    count = 25 * writers.SCALE

    def work(who):
        for n in range(count):
            secret.write("vendor", f"{who} {n:08}")
            secret.write(f"own-{who}", f"{who} {n:08}")
            secret.grant("vendor", f"reader-{who}-{n % 5}")

    assert [ended(pid) for pid in [forked(lambda who=f"writer{n}": work(who)) for n in range(4)]] == [0] * 4
    assert [read(f"own-writer{n}") for n in range(4)] == [f"writer{n} {count - 1:08}" for n in range(4)]
    assert read() in {f"writer{n} {count - 1:08}" for n in range(4)}
    assert len(secret.readers("vendor")) == 20


def test_control_writers_without_the_lock(monkeypatch):
    class Nothing:
        def __enter__(self):
            paths.make(os.path.join(paths.state(), "keys"))

        def __exit__(self, *_):
            pass

    secret.write("vendor", "the value")
    monkeypatch.setattr(secret, "turn", Nothing)

    def work(who):
        for n in range(50):
            try:
                secret.grant("vendor", f"reader-{who}-{n}")
            except (Failure, OSError):
                continue

    for pid in [forked(lambda who=n: work(who)) for n in range(4)]:
        ended(pid)
    assert len(secret.readers("vendor")) < 200


def kept(old):
    """Nothing is lost, nothing half-written is left, and there is room again for the next value."""
    assert read() == old
    assert not [path for path in Path(paths.state(), "keys").iterdir() if path.name.endswith(".tmp")]


def test_a_file_that_may_grow_no_more():
    """RLIMIT_FSIZE: a write ends with EFBIG, as others do with ENOSPC."""
    secret.write("vendor", "old value")

    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        try:
            secret.write("vendor", "new value")
        except Failure as bad:
            os._exit(bad.code)

    assert ended(forked(work)) == 74
    kept("old value")


@pytest.fixture
def small(tmp_path):
    """A file system of 64 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", place], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("MAY NOT MOUNT: a full disk is not tried")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk(small, monkeypatch):
    monkeypatch.setenv("FTAI_HOME", str(small / "ftai"))
    value = secrets.token_urlsafe(30)
    secret.write("vendor", value)
    kept(value)  # the first reading keeps its fingerprint
    (small / "fill").write_bytes(b"")
    with open(small / "fill", "ab", buffering=0) as fill, pytest.raises(OSError):
        while True:
            fill.write(b"x" * 4096)
    with pytest.raises(Failure) as bad:
        secret.write("vendor", "new value " * 1000)
    assert bad.value.code == 74 and "No space left" in bad.value.message
    assert value not in bad.value.message
    with pytest.raises(Failure) as bad:
        secret.grant("vendor", "ftai-one")
    assert bad.value.code == 74
    kept(value)
    (small / "fill").unlink()
    secret.write("vendor", "new value " * 1000)
    assert read() == "new value " * 1000
