"""Sealed texts where the identity is in a real Secret Service: unlocked, and locked."""

import subprocess

import writers
from serenamaster import record
from test_secret_service import lock, pytestmark, session  # noqa: F401


def test_an_identity_in_the_keychain_opens_and_a_locked_one_stops_nobody(tmp_path):
    (tmp_path / "home").mkdir(mode=0o700)
    with session(tmp_path / "home") as env:
        home = writers.Home(tmp_path / "home")
        environment = env | {"PATH": home.environment["PATH"], "FTAI_HOME": str(home.path), "FTAI_ENCRYPT": "local"}

        def run(*argv, given=b""):
            done = subprocess.run(argv, input=given, capture_output=True, env=environment, timeout=120, check=False)
            return done.returncode, done.stdout, done.stderr.decode()

        assert run("ftai-log", "--sink", given=record.encode(record.make("message", "test", body="walnut one")))[0] == 0
        own = home.path / "state" / "keys" / "identity"
        moved = own.read_bytes()
        code, _, said = run("ftai-keys", "set", "identity", given=moved)
        assert code == 0, said
        if own.exists():
            own.unlink()
        code, out, said = run("ftai-recall", "--tag", "message")
        assert (code, b"walnut one" in out, said) == (0, True, "")
        lock(env)
        assert run("ftai-log", "--sink", given=record.encode(record.make("message", "test", body="walnut two"))) == (0, b"", "")
        code, out, said = run("ftai-recall", "--tag", "message")
        assert (code, b"walnut" in out, out.count(b"[sealed:")) == (0, False, 2)
        assert said.count("cannot open what is sealed") == 1
        assert not own.exists(), "a second identity was made"
