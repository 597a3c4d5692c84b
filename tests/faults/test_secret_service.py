"""A real Secret Service, gnome-keyring on a session bus of its own: unlocked, locked, hanging, gone, and killed in the middle."""

import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import writers
from serenamaster import secret, specs
from serenamaster.errors import Failure

LIB = Path(secret.__file__).parents[1]
NEEDED = ("dbus-run-session", "gnome-keyring-daemon", "secret-tool", "dbus-monitor")
GONE = [name for name in NEEDED if shutil.which(name) is None]
pytestmark = [
    pytest.mark.skipif(bool(GONE), reason=f"{' '.join(GONE).upper()} MISSING: no real keychain is tried"),
    pytest.mark.skipif(sys.platform != "linux", reason="NOT LINUX: no Secret Service is tried"),
]
LOGIN = "/org/freedesktop/secrets/collection/login"
SLOW = 60.0  # seconds, for what is not about the deadline: a busy machine is no failure
LATER = 6.0  # for what comes to its deadline, and before that is to be seen at work
# Owns the name and never answers.
DEAF = """
import time
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import Proxy, open_dbus_connection
bus = open_dbus_connection()
assert Proxy(message_bus, bus).RequestName("org.freedesktop.secrets") == (1,)
print("ready", flush=True)
time.sleep(3600)
"""


# A bus that starts nothing: a test says itself what keychain there is.
CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:tmpdir=%s</listen>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>
"""


@contextmanager
def session(folder, unlocked=True):
    """A session bus in an environment of its own; with `unlocked`, a gnome-keyring that is. Gives that environment."""
    runtime = tempfile.mkdtemp(prefix="ftai-bus-")  # a socket's path may be no longer than 107 bytes
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FTAI_", "XDG_", "PYTHON", "COVERAGE", "DBUS"))}
    env = kept | {"HOME": str(folder), "FTAI_HOME": f"{folder}/ftai", "XDG_RUNTIME_DIR": runtime}
    script = 'echo "$DBUS_SESSION_BUS_ADDRESS"; exec cat'
    Path(runtime, "bus.conf").write_text(CONFIG % runtime)
    command = ["dbus-run-session", f"--config-file={runtime}/bus.conf", "--", "sh", "-c", script]
    bus = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, text=True)
    daemon = None
    try:
        env["DBUS_SESSION_BUS_ADDRESS"] = bus.stdout.readline().strip()
        if unlocked:
            daemon = subprocess.Popen(
                ["gnome-keyring-daemon", "--foreground", "--unlock", "--components=secrets"],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env,
            )  # fmt: skip
            daemon.stdin.write(b"the password of the keychain")
            daemon.stdin.close()
            until(lambda: "false" in (prop(env, "Locked") or ""))
        yield env
    finally:
        for one in filter(None, (daemon, bus)):
            one.stdin.close()
            if one is daemon:
                one.terminate()
            one.wait(timeout=120)
        bus.stdout.close()
        shutil.rmtree(runtime, ignore_errors=True)


def until(true, seconds=300):
    """Waits for a condition."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)
    return found


def ask(env, method, path, *words):
    """What the Secret Service answers, None for an error."""
    command = ["dbus-send", "--session", "--print-reply", "--dest=org.freedesktop.secrets", path, method, *words]
    ran = subprocess.run(command, env=env, capture_output=True, check=False, timeout=120)
    return ran.stdout.decode() if ran.returncode == 0 else None


def prop(env, name):
    return ask(env, "org.freedesktop.DBus.Properties.Get", LOGIN, "string:org.freedesktop.Secret.Collection", f"string:{name}")


def lock(env):
    ask(env, "org.freedesktop.Secret.Service.Lock", "/org/freedesktop/secrets", f"array:objpath:{LOGIN}")
    assert "true" in prop(env, "Locked")


def enter(monkeypatch, env, deadline=SLOW):
    """This process lives in that session from now on."""
    monkeypatch.setattr(secret, "DEADLINE", deadline)
    monkeypatch.setattr(secret, "WAIT", SLOW)
    for name in ("DBUS_SESSION_BUS_ADDRESS", "HOME", "FTAI_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, env[name])
    secret._phrases.clear()
    specs.forget()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with session(tmp_path_factory.mktemp("session")) as env:
        yield env


@pytest.fixture
def bus(shared, tmp_path, monkeypatch):
    """An unlocked keychain that holds nothing of ours."""
    env = shared | {"FTAI_HOME": f"{tmp_path}/ftai"}
    enter(monkeypatch, env)
    for name in ("vendor", "identity"):
        secret._keychain("del", name)
    yield env


@pytest.fixture
def own(tmp_path, monkeypatch):
    """An unlocked keychain of the test's own, to be locked."""
    with session(tmp_path) as env:
        enter(monkeypatch, env)
        yield env


@pytest.fixture
def deaf(tmp_path, monkeypatch):
    with session(tmp_path, unlocked=False) as env:
        enter(monkeypatch, env, secret.DEADLINE)
        with subprocess.Popen([sys.executable, "-c", DEAF], env=env, stdout=subprocess.PIPE) as owner:
            assert owner.stdout.readline() == b"ready\n"
            yield env
            owner.kill()


def children():
    """{pid: (arguments, environment)} of the processes that ask a keychain for this test run."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                line = Path(f"/proc/{name}/cmdline").read_bytes()
                if secret.CHILD.encode() in line and str(LIB).encode() in line:
                    status = Path(f"/proc/{name}/stat").read_text().rpartition(") ")[2]
                    if status[0] != "Z":
                        found[int(name)] = line, Path(f"/proc/{name}/environ").read_bytes()
            except (OSError, IndexError):
                continue
    return found


def ours(env):
    return {pid: seen for pid, seen in children().items() if env["DBUS_SESSION_BUS_ADDRESS"].encode() in seen[1]}


def waiting(env):
    """The pids of those that wait for an answer: they were told what to ask, as they have opened the bus."""

    def opened(pid):
        try:
            return any(os.readlink(f"/proc/{pid}/fd/{fd}").startswith("socket:") for fd in os.listdir(f"/proc/{pid}/fd"))
        except OSError:
            return False

    return [pid for pid in ours(env) if opened(pid)]


def read(name="vendor", **how):
    return secret.read(name, **{"reader": "", "log": lambda *row: None, "entry": {}} | how)


def fails(code, run, *args, **how):
    with pytest.raises(Failure) as bad:
        run(*args, **how)
    assert bad.value.code == code, bad.value.message
    return bad.value.message


# -- unlocked


@pytest.mark.parametrize("value", ["12345678", "ä€😀 \t\\\"'\n" * 4369], ids=["short", "long"])
def test_set_get_replace_remove(bus, value):
    assert secret.item("vendor") is None
    assert secret.write("vendor", value) == "keychain"
    assert read() == (value, "keychain")
    assert secret.write("vendor", value[::-1]) == "keychain"
    assert read() == (value[::-1], "keychain")
    assert "vendor" in subprocess.run(["secret-tool", "search", "service", "ftai"], env=bus, capture_output=True, text=True, check=True).stderr
    assert secret.remove("vendor") == ["keychain"]
    assert secret.remove("vendor") == []
    fails(69, read)
    assert not (Path(bus["FTAI_HOME"]) / "state" / "keys" / "keys.age").exists()
    assert not ours(bus)


def test_a_value_is_in_no_file_in_the_clear(own, tmp_path):
    value = secrets.token_urlsafe(30)
    secret.write("vendor", value)
    secret.grant("vendor", "ftai-one")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.name for path in files if path.suffix == ".keyring"], "the keychain is on the disk"
    assert not [path for path in files if value.encode() in path.read_bytes()]


def test_what_another_program_put_there(bus):
    value = secrets.token_urlsafe(30)

    def store(words):
        command = ["secret-tool", "store", "--label=x", "service", "ftai", "username", "vendor"]
        tick()
        subprocess.run(command, env=bus, input=words.encode(), check=True, timeout=120)
        tick()

    def tick():
        # The keychain finds the newest first, by whole seconds.
        done = int(time.time())
        while int(time.time()) == done:
            time.sleep(0.01)

    store(value)
    assert read() == (value, "keychain")
    assert secret.item("vendor") == {"v": 1, "values": [{"value": value, "state": "current"}]}
    # Its attributes are not those that we write with: it would be found beside ours.
    secret.write("vendor", value[::-1])
    assert read() == (value[::-1], "keychain")
    store("another program again")
    assert read() == ("another program again", "keychain")
    secret.write("vendor", value)
    assert read() == (value, "keychain")
    store("another program again")
    assert secret.remove("vendor") == ["keychain"]
    fails(69, read)


def test_the_identity_may_be_in_the_keychain(own):
    folder = Path(own["FTAI_HOME"]) / "state" / "keys"
    secret.write("vendor", "in the file", store="file")
    kept = secret.identity()
    secret.write("identity", kept)
    (folder / "identity").unlink()
    assert secret.identity() == kept
    assert read() == ("in the file", "file")
    secret.write("vendor", "in the file again")
    assert read() == ("in the file again", "file")
    lock(own)
    assert secret.identity() is None
    assert "its identity is missing" in fails(69, read)


def test_with_nothing_in_the_environment_but_the_bus(bus, tmp_path):
    script = f"import sys; sys.path.insert(0, {str(LIB)!r})\nfrom serenamaster import secret; secret.DEADLINE = {SLOW}\n"
    script += "print(secret.write('vendor', 'the value'), *secret.read('vendor', reader='', log=lambda *row: None, entry={}))"
    for address, store in ((bus["DBUS_SESSION_BUS_ADDRESS"], "keychain"), (f"unix:path={tmp_path}/none", "file")):
        env = {"FTAI_HOME": f"{tmp_path}/{store}", "DBUS_SESSION_BUS_ADDRESS": address}
        ran = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False)
        assert ran.stdout == f"{store} the value {store}\n", ran.stderr


def test_a_damaged_item(bus):
    secret._keychain("set", "vendor", '{"v": 1, "values": [1]}')
    assert "keychain: what it has is damaged; file:" in fails(65, read)
    assert fails(65, secret.item, "vendor") == "cannot use the keychain: what it has is damaged"
    secret._keychain("set", "identity", '{"v": 1, "values": [1]}')
    assert fails(65, secret.identity) == "the identity in the keychain can't be used: what it has is damaged"
    secret.write("vendor", "what is set anew")
    assert read() == ("what is set anew", "keychain")


def test_a_key_moves_from_store_to_store(bus):
    secret.write("vendor", "in the file", store="file")
    assert read() == ("in the file", "file")
    assert secret.write("vendor", "where it was") == "file"
    assert secret.write("vendor", "in the keychain", store="keychain") == "keychain"
    assert read() == ("in the keychain", "keychain")
    assert "vendor" not in secret._open()[0], "the old value is gone"
    assert secret.write("vendor", "in the file", store="file") == "file"
    assert secret._keychain("get", "vendor") is None
    # As a killed writer may have left it.
    secret._keychain("set", "vendor", "an old value")
    assert read() == ("in the file", "file")
    assert secret.remove("vendor") == ["keychain", "file"]
    secret.write("vendor", "in the file", store="file")
    assert secret.remove("vendor") == ["file"]


WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from serenamaster import secret
secret.DEADLINE, secret.WAIT = float(sys.argv[5]), float(sys.argv[5])
for n in range(int(sys.argv[4])):
    secret.write(sys.argv[2], f"{sys.argv[3]} {n:08}")
    secret.write(f"{sys.argv[2]}-{sys.argv[3]}", f"{sys.argv[3]} {n:08}")
    print(n, flush=True)
"""


def writer(env, name, who, count, **how):
    return subprocess.Popen([sys.executable, "-c", WRITER, str(LIB), name, who, str(count), str(SLOW)], env=env, stdout=subprocess.PIPE, text=True, **how)


@pytest.mark.parametrize("store", ["keychain", "file"])
def test_two_writers_at_once(bus, store):
    count = 2 * writers.SCALE
    env = bus if store == "keychain" else bus | {"DBUS_SESSION_BUS_ADDRESS": ""}
    both = [writer(env, "vendor", who, count) for who in ("first", "other")]
    for one in both:
        assert len(one.communicate(timeout=600)[0].split()) == count
        assert one.returncode == 0
    last = f"{count - 1:08}"
    assert read()[0] in (f"first {last}", f"other {last}")
    assert [read(f"vendor-{who}") for who in ("first", "other")] == [(f"first {last}", store), (f"other {last}", store)]
    assert [known["name"] for known in secret.listed() if known["source"] == store] == ["vendor", "vendor-first", "vendor-other"]


def test_killed_in_the_middle_of_a_replacement(bus):
    """The old or the new value is there, and what a killed writer's child still writes is never ahead of the next writer."""
    dice, count, kills = random.Random(3), 4 if writers.SCALE == 1 else 20 * writers.SCALE, 0
    secret.write("vendor", "begin 00000000")
    last = read()[0]
    for turn in range(count):
        one = writer(bus, "vendor", f"turn{turn}", 10_000)
        wait = dice.uniform(0.15, 0.6)
        end = time.monotonic() + wait
        while time.monotonic() < end and one.poll() is None:
            time.sleep(0.002)
        one.kill()
        done = one.communicate(timeout=60)[0].split()
        kills += one.returncode == -signal.SIGKILL
        # One writes at a time: with the lock, nobody can be writing any more.
        with secret.turn():
            assert not ours(bus)
            value = read()[0]
        fine = {f"turn{turn} {n:08}" for n in ((int(done[-1]), int(done[-1]) + 1) if done else (0,))} | ({last} if not done else set())
        assert value in fine, (value, fine)
        last = value
    assert kills == count, "a writer ended before it was killed"
    secret.write("vendor", "after all of it")
    assert read() == ("after all of it", "keychain")


# -- locked


def test_a_locked_keychain_falls_through(own, monkeypatch):
    secret.write("vendor", "in the keychain")
    lock(own)
    assert fails(75, read).startswith("no key 'vendor': keychain: it is locked; file:")
    monkeypatch.setenv("VENDOR_KEY", "of the environment")
    assert read(entry={"env": ["VENDOR_KEY"]}) == ("of the environment", "environment")
    assert fails(75, secret.write, "vendor", "new value") == "cannot use the keychain: it is locked", "it would be in two places"
    assert fails(75, secret.item, "vendor") == "cannot use the keychain: it is locked"
    fails(75, secret.remove, "vendor")
    assert secret.write("another", "goes to the file") == "file"
    assert read("another") == ("goes to the file", "file")
    assert [known["source"] for known in secret.listed() if known["name"] in ("vendor", "another")] == ["file", "keychain"]
    assert not ours(own)


@contextmanager
def watched(env):
    """What goes over the bus meanwhile, as a list of lines, filled when it is left."""
    seen = []
    with subprocess.Popen(["dbus-monitor", "--session"], env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1) as monitor:
        until(lambda: "NameLost" in monitor.stdout.readline() or monitor.poll() is not None)
        yield seen
        # What was said before this has come through when it has.
        subprocess.run(["dbus-send", "--session", "/end", "x.y.TheEnd"], env=env, check=True)
        for line in monitor.stdout:
            seen.append(line)
            if "member=TheEnd" in line:
                break
        monitor.kill()


def prompts(lines):
    asked = [line.partition("member=")[2].strip() for line in lines if line.startswith("method call")]
    return [name for name in asked if name in ("Unlock", "Prompt", "CreateCollection")]


def test_nobody_is_asked_for_the_password(own, monkeypatch):
    secret.write("vendor", "in the keychain")
    lock(own)
    with watched(own) as lines:
        fails(75, read)
        fails(75, secret.write, "vendor", "new value")
        fails(75, secret.remove, "vendor")
    assert lines and not prompts(lines)
    # With a person there, it is another thing; the control that such a prompt is seen.
    monkeypatch.setattr(os, "isatty", lambda fd: fd == 2)
    monkeypatch.setattr(secret, "PATIENCE", LATER)
    with watched(own) as lines:
        fails(75, read, ask=lambda: None)
    assert not prompts(lines), "it could be shown nowhere"
    monkeypatch.setenv("DISPLAY", ":99")
    with watched(own) as lines:
        fails(75, read, ask=lambda: None)
    assert prompts(lines)
    assert not ours(own)


def test_a_keychain_without_a_collection_makes_none(tmp_path, monkeypatch):
    with session(tmp_path, unlocked=False) as env:
        enter(monkeypatch, env)
        nothing = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        with subprocess.Popen(["gnome-keyring-daemon", "--foreground", "--components=secrets"], env=env, **nothing) as daemon:
            until(lambda: ask(env, "org.freedesktop.DBus.Peer.Ping", "/org/freedesktop/secrets") is not None)
            with watched(env) as lines:
                message = fails(69, read)
                assert secret.write("vendor", "in the file") == "file"
            assert "keychain: it has no default collection" in message or "keychain: it is locked" in message
            assert not prompts(lines)
            daemon.terminate()


# -- no keychain, or one that does not answer


def test_a_keychain_that_never_answers(deaf, monkeypatch):
    value = secrets.token_urlsafe(30)
    monkeypatch.setenv("VENDOR_KEY", value)
    assert fails(69, read).startswith("no key 'vendor': keychain: it gave no answer within 2 s; file:")
    assert not ours(deaf), "the child is gone"
    assert read(entry={"env": ["VENDOR_KEY"]}) == (value, "environment")
    assert secret.write("vendor", value) == "file"
    assert read() == (value, "file"), "where it is said to be is asked first"
    assert not ours(deaf)


@pytest.mark.parametrize("op", ["get", "set"])
def test_no_value_is_seen_in_a_child_that_runs(deaf, monkeypatch, op):
    monkeypatch.setattr(secret, "DEADLINE", LATER)
    value = secrets.token_urlsafe(30)
    for name in ("ANTHROPIC_API_KEY", "PYTHONPATH", "KEYRING_PROPERTY_SCHEME", "LD_LIBRARY_PATH"):
        monkeypatch.setenv(name, value)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(fails, 75, secret._keychain, op, "vendor", value if op == "set" else None)
        pid, (arguments, environment) = until(lambda: next(iter(ours(deaf).items()), None))
        assert value.encode() not in arguments + environment
        names = {line.partition(b"=")[0].decode() for line in environment.split(b"\0") if line}
        assert not [name for name in names if name not in secret.KEEP | {"PATH"} and not name.startswith(("LC_", "XDG_"))]
        # It protects itself before it has read what is asked.
        until(lambda: Path(f"/proc/{pid}/limits").read_text().partition("Max core file size")[2].split()[0] == "0")
        if os.getuid():
            assert not os.access(f"/proc/{pid}/environ", os.R_OK)
        assert "no answer" in asked.result()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_child_ends_by_itself_when_nobody_waits(deaf):
    script = f"import sys; sys.path.insert(0, {str(LIB)!r})\nfrom serenamaster import secret; secret.DEADLINE = {LATER}\nsecret._keychain('get', 'vendor')"
    with subprocess.Popen([sys.executable, "-c", script], env=deaf) as asking:
        until(lambda: waiting(deaf))
        asking.kill()
    until(lambda: not ours(deaf))


def test_nobody_writes_before_the_child_of_a_killed_writer_has_ended(deaf, monkeypatch):
    script = f"import sys; sys.path.insert(0, {str(LIB)!r})\nfrom serenamaster import secret; secret.DEADLINE = {LATER}\nsecret.write('vendor', 'the value')"
    with subprocess.Popen([sys.executable, "-c", script], env=deaf) as asking:
        until(lambda: waiting(deaf))
        asking.kill()
    monkeypatch.setattr(secret, "WAIT", 0.0)
    refused = 0
    while ours(deaf):
        try:
            with secret.turn():
                assert not ours(deaf)
        except Failure as bad:
            refused += bad.code == 75
    assert refused
    monkeypatch.setattr(secret, "WAIT", 10.0)
    with secret.turn():
        assert not ours(deaf)


def test_a_signal_ends_the_child_too(deaf):
    script = f"import sys; sys.path.insert(0, {str(LIB)!r})\nfrom serenamaster import secret; secret.DEADLINE = {SLOW}\nsecret._keychain('get', 'vendor')"
    with subprocess.Popen([sys.executable, "-c", script], env=deaf, stderr=subprocess.DEVNULL) as asking:
        (pid,) = until(lambda: waiting(deaf))
        asking.send_signal(signal.SIGINT)
        asking.wait(timeout=120)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_bus_without_a_keychain(tmp_path, monkeypatch):
    with session(tmp_path, unlocked=False) as env:
        enter(monkeypatch, env)
        monkeypatch.setenv("VENDOR_KEY", "of the environment")
        assert read(entry={"env": ["VENDOR_KEY"]}) == ("of the environment", "environment")
        assert secret.write("vendor", "in the file") == "file"
        assert not ours(env)


# -- what a library does between two steps


class DeletesFirst:
    """As the macOS backend: what is replaced is deleted, and then added."""

    def __init__(self, ring):
        self.get_password, self.delete_password, self._set = ring.get_password, ring.delete_password, ring.set_password

    def set_password(self, service, name, value):
        if self.get_password(service, name) is not None:
            self.delete_password(service, name)
        self.between()
        self._set(service, name, value)

    def between(self):
        pass


def test_a_backend_that_deletes_first_has_a_copy_meanwhile(bus, monkeypatch):
    """The macOS backend can't be run here; what it does to an item, a real keychain is made to do in the same order."""
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.SecretService.Keyring")
    ring = DeletesFirst(secret._backend()[1])
    monkeypatch.setattr(secret, "_hush", lambda *_: None)

    def asked(op, value=None, backend="keyring.backends.macOS.Keyring"):
        monkeypatch.setattr(secret, "_backend", lambda: (backend, ring))
        return secret._asked(op, "vendor", value, False, 2)

    asked("set", "old value")
    assert asked("get") == "old value"

    def die():
        raise InterruptedError

    ring.between = die
    for place in ("the copy", "the item"):
        with pytest.raises(InterruptedError):
            asked("set", "new value")
        assert asked("get") in ("old value", "new value"), place
    # The control: without a copy it is gone.
    ring.between = lambda: None
    asked("set", "old value")
    ring.between = die
    with pytest.raises(InterruptedError):
        asked("set", "new value", "another")
    assert asked("get", backend="another") is None
    ring.between = lambda: None
    asked("set", "new value")
    assert asked("get") == "new value" and ring.get_password("ftai", "vendor~") is None
    assert asked("del") == "gone"
    assert asked("get") is None
