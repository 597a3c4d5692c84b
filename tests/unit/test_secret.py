"""Keys without a keychain: the age file, environment, commands, readers, and what can't be read. Real keychains: tests/faults/test_secret_service.py."""

import os
import pty
import secrets
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serenamaster import paths, seal, secret, specs
from serenamaster.errors import Failure

LIB = Path(secret.__file__).parents[1]
VALUE = secrets.token_urlsafe(30)
ROOT_ONLY = pytest.mark.skipif(os.getuid() != 0, reason="NOT ROOT: files of others are not tried")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FTAI_HOME", str(tmp_path / "ftai"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("DBUS_SESSION_BUS_ADDRESS", "PYTHON_KEYRING_BACKEND", "FTAI_PASSPHRASE_FD", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    secret._phrases.clear()
    specs.forget()
    yield tmp_path
    specs.forget()
    secret._phrases.clear()
    assert secret._turns[1] == 0, "a lock was kept"


@pytest.fixture
def keys(home):
    folder = home / "ftai" / "state" / "keys"
    folder.mkdir(parents=True, mode=0o700)
    folder.parent.chmod(0o700)
    folder.parent.parent.chmod(0o700)
    return folder


class Log(list):
    """What was journaled: (act, subject, outcome, because)."""

    def __call__(self, *row):
        self.append(row)


def read(name="vendor", **how):
    """(value, source) of a key that the owner reads."""
    return secret.read(name, **{"reader": "", "log": Log(), "entry": {}} | how)


def fails(code, run, *args, **how):
    """The Failure of a call, which says nothing of a value."""
    with pytest.raises(Failure) as bad:
        run(*args, **how)
    assert bad.value.code == code, bad.value.message
    assert VALUE not in bad.value.message + bad.value.hint
    return bad.value


def spec(home, text):
    config = home / "ftai" / "config"
    config.mkdir(parents=True, exist_ok=True, mode=0o700)
    (config / "serenamaster.config.ftai").write_text(f"@ftai v2.0\n\n{text}\n")
    specs.forget()


# -- names and values


@pytest.mark.parametrize("name", ["", "a b", "a/b", "../a", "ä", "a\n", "a~", "x" * 101, "a*"])
def test_names_that_are_none(name):
    assert "'" not in fails(2, secret.write, name, VALUE).message, "a key that was given as a name is not shown"
    fails(2, secret.grant, "vendor", name)


@pytest.mark.parametrize("value", ["", "short", "x" * 7, "12345678\0", "\ud800" * 8, "x" * (64 * 1024 + 1), "ä" * (32 * 1024 + 1)])
def test_values_that_do_not_fit(value, keys):
    fails(65, secret.write, "vendor", value)
    assert not list(keys.iterdir())


@given(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=8))
def test_any_text_comes_back(value):
    assert secret._current(secret._item(orjson.dumps({"v": 1, "values": [{"value": value, "state": "current"}]}).decode())) == value


@pytest.mark.parametrize("value", ["12345678", "x" * 64 * 1024, "two\nlines\n", "ä€😀\x1b[0m\r\n\t ", '{"v": 1, "values": []}', "-----BEGIN", "%s{0}$(id)"])
def test_values_are_kept_as_they_are(value):
    assert secret.write("vendor", value) == "file"
    assert read() == (value, "file")


@pytest.mark.parametrize("text", ["plain text", '{"type": "service_account"}', '{"v": 2, "values": []}', "[1]", '"quoted"', "12345678", "null"])
def test_what_another_program_put_there_is_the_current_value(text):
    assert secret._item(text + "\n") == {"v": 1, "values": [{"value": text, "state": "current"}]}


@pytest.mark.parametrize("values", ["{}", "1", "[1]", "[[]]", '[{"value": 1, "state": "current"}]', '[{"value": "x"}]', "null"])
def test_a_damaged_item_is_seen(values):
    if values == "{}":
        assert secret._current(secret._item('{"v": 1, "values": {}}')) is None
    else:
        fails(65, secret._item, f'{{"v": 1, "values": {values}}}')


@pytest.mark.parametrize("states", [[], ["next"], ["old"], ["current", "current"], ["current", "next", "next"], ["current", "other"]])
def test_an_item_has_one_current_value(states):
    fails(65, secret.replace, "vendor", {"v": 1, "values": [{"value": VALUE + state, "state": state} for state in states]})


def test_an_item_is_replaced_as_a_whole():
    values = [{"value": VALUE + state, "state": state, "added": f"2026-01-0{n}T00:00:00.000Z"} for n, state in enumerate(("old", "current", "next"), 1)]
    values[0]["until"] = "2026-02-01T00:00:00.000Z"
    assert secret.replace("vendor", {"v": 1, "values": values}) == "file"
    assert secret.item("vendor") == {"v": 1, "values": values}
    assert read()[0] == VALUE + "current"
    (known,) = [known for known in secret.listed() if known["name"] == "vendor"]
    assert known == {"name": "vendor", "source": "file", "readers": []} | {"added": values[1]["added"], "next": values[2]["added"], "until": values[0]["until"]}
    secret.replace("vendor", {"v": 1, "values": [dict(values[2], state="current")]})
    assert secret.item("vendor")["values"][0]["value"] == VALUE + "next"
    assert "next" not in secret.listed()[-1] and "until" not in secret.listed()[-1]


# -- the file


def test_set_get_replace_remove(keys):
    assert secret.item("vendor") is None
    secret.write("vendor", VALUE)
    secret.write("other.name-1_x:y", "another value")
    secret.write("vendor", VALUE[::-1])
    assert read() == (VALUE[::-1], "file")
    assert secret.remove("vendor") == ["file"]
    assert secret.remove("vendor") == []
    fails(69, read)
    assert read("other.name-1_x:y") == ("another value", "file")
    assert [known["name"] for known in secret.listed() if known["source"]] == ["other.name-1_x:y"]


def test_files_are_the_owners_alone_and_hold_no_value(keys):
    secret.write("vendor", VALUE)
    held = {path.name: path for path in keys.iterdir()}
    assert {"identity", "keys.age", "keys.ftai", "lock"} <= held.keys()
    assert {oct(path.stat().st_mode & 0o777) for path in held.values()} == {"0o600"}
    assert not [name for name, path in held.items() if VALUE.encode() in path.read_bytes()]
    assert "vendor" not in held["keys.age"].read_bytes().decode("latin-1")
    assert held["keys.age"].read_bytes().startswith(b"age-encryption.org/v1\n")


def test_the_folder_is_the_owners_alone(home):
    old = os.umask(0)
    try:
        secret.write("vendor", VALUE)
    finally:
        os.umask(old)
    folder = home / "ftai" / "state" / "keys"
    assert {oct(path.stat().st_mode & 0o777) for path in (folder, folder.parent)} == {"0o700"}
    assert {oct(path.stat().st_mode & 0o777) for path in folder.iterdir()} == {"0o600"}


def test_what_killed_processes_left_is_taken_away(keys):
    (keys / ".keys.age.1.tmp").write_text("x")
    (keys / ".keys.ftai.2.tmp").write_text("x")
    (keys / ".other.2.tmp").write_text("x")
    secret.write("vendor", VALUE)
    assert sorted(path.name for path in keys.iterdir() if path.name.endswith(".tmp")) == [".other.2.tmp"]


def test_an_age_file_that_age_itself_can_read(keys, tmp_path):
    import shutil

    if not shutil.which("age"):
        pytest.skip("AGE IS MISSING: its view of keys.age is not tried")
    secret.write("vendor", VALUE)
    seen = subprocess.run(["age", "-d", "-i", keys / "identity", keys / "keys.age"], capture_output=True, check=True).stdout
    assert orjson.loads(seen)["keys"]["vendor"]["values"][0]["value"] == VALUE


def test_a_passphrase_from_a_callable_a_descriptor_a_command_and_a_terminal(keys, home, monkeypatch):
    phrase = secrets.token_urlsafe(12)
    assert secret.write("vendor", VALUE, ask=lambda: phrase + "\n") == "file"
    assert (keys / "keys.age").read_bytes().startswith(b"age-encryption.org/v1\n-> scrypt ")
    assert not (keys / "identity").exists()
    secret._phrases.clear()
    got, put = os.pipe()
    os.write(put, phrase.encode())
    os.close(put)
    monkeypatch.setenv("FTAI_PASSPHRASE_FD", str(got))
    assert read() == (VALUE, "file")
    os.close(got)
    assert secret.phrase() == phrase, "a pipe can be read once"
    secret._phrases.clear()
    assert "FTAI_PASSPHRASE_FD" in fails(69, read).message
    monkeypatch.delenv("FTAI_PASSPHRASE_FD")
    (home / "phrase").write_text(phrase + "\n")
    spec(home, f'@key\n  name: "passphrase"\n  summary: "x"\n  cmd: ["cat", "{home}/phrase"]\n@end')
    assert secret.phrase() == phrase
    spec(home, "")
    secret._phrases.clear()
    assert "its passphrase was not given" in fails(69, read).message
    assert typed(phrase) == "passphrase of the keys: \n0"


def typed(phrase):
    """What a terminal shows while a key is read there and the passphrase is typed, and how that ended."""
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            os._exit(read() != (VALUE, "file"))
        except BaseException:
            os._exit(2)
    shown = b""
    try:
        while part := os.read(terminal, 1024):
            if not shown.endswith(b": ") and (shown + part).endswith(b": "):
                os.write(terminal, phrase.encode() + b"\n")
            shown += part
    except OSError:
        pass  # how Linux says that nobody has it open any more
    os.close(terminal)
    return shown.decode().replace("\r", "") + str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def test_a_wrong_passphrase(keys):
    secret.write("vendor", VALUE, ask=lambda: "the right passphrase")
    before = (keys / "keys.age").read_bytes()
    secret._phrases.clear()
    bad = fails(77, read, ask=lambda: "a wrong passphrase")
    assert "another passphrase" in bad.message and "wrong" not in bad.message
    assert secret._phrases == [], "the next try asks again"
    assert (keys / "keys.age").read_bytes() == before


@pytest.mark.parametrize("number", ["x", "-1", "1000000000", "1e3"])
def test_a_descriptor_that_is_none(number, keys, monkeypatch):
    monkeypatch.setenv("FTAI_PASSPHRASE_FD", number)
    assert fails(2, secret.write, "vendor", VALUE).message.startswith("FTAI_PASSPHRASE_FD is not the number")


def damaged(data):
    """Ways to damage a file."""
    yield from (data[: len(data) // 2], data[:-1], data[:-20] + b"x" * 20, b"", b"\0" * len(data), data + b"more")


def test_a_damaged_keys_age(keys):
    secret.write("vendor", VALUE)
    whole = (keys / "keys.age").read_bytes()
    for data in damaged(whole):
        (keys / "keys.age").write_bytes(data)
        fails(65, secret.write, "more", VALUE)
        assert "damaged" in fails(65, read).message
        fails(65, secret.item, "vendor")
        fails(65, secret.remove, "vendor")
        assert (keys / "keys.age").read_bytes() == data, "what may be mended is left alone"
        assert read(entry={"cmd": ["echo", VALUE]}) == (VALUE, "command")
    (keys / "keys.age").write_bytes(whole)
    assert read() == (VALUE, "file")


@pytest.mark.parametrize("text", ["", "x", "[]", '{"v": 1}', '{"keys": 1}', '{"keys": {"vendor": 1}}', '{"keys": {"vendor": {"values": [1]}}}'])
def test_a_keys_age_that_holds_something_else(text, keys):
    secret.write("vendor", VALUE)
    (keys / "keys.age").write_bytes(seal.lock(text.encode(), [seal.recipient()]))
    assert "damaged" in fails(65, read).message


def test_a_damaged_keys_ftai_lets_nobody_read(keys):
    secret.write("vendor", VALUE)
    secret.grant("vendor", "ftai-one")
    secret.write("vendor2", VALUE)
    secret.revoke("vendor", "ftai-one")
    whole = (keys / "keys.ftai").read_bytes()
    for cut in range(len(whole)):
        (keys / "keys.ftai").write_bytes(whole[:cut])
        # Behind the count nothing is missing but an `@end`.
        if b"keys: 2" not in whole[:cut]:
            fails(65, read, reader="ftai-one")
    for data in (b"\xff" * 30, whole.replace(b"readers: []", b"readers: 1"), whole.replace(b'store: "file"', b'store: "other"'), whole + whole[11:]):
        (keys / "keys.ftai").write_bytes(data)
        fails(65, read)
        fails(65, secret.write, "vendor", VALUE)
        fails(65, secret.listed)
    (keys / "keys.ftai").write_bytes(whole)
    assert read() == (VALUE, "file")


@given(st.binary(max_size=300))
def test_any_keys_ftai_ends_in_a_failure_or_a_book(data):
    path = Path(paths.make(os.path.join(paths.state(), "keys"))) / "keys.ftai"
    path.write_bytes(b"@ftai v2.0\n\n" + data)
    path.chmod(0o600)
    try:
        assert type(secret._book()) is dict
    except Failure as bad:
        assert bad.code == 65


def test_the_identity(keys):
    assert secret.identity() is None
    secret.write("vendor", VALUE)
    assert secret.identity().startswith("AGE-SECRET-KEY-1")
    own = (keys / "identity").read_text()
    (keys / "identity").write_text("# public key: age1…\n" + own)
    assert read() == (VALUE, "file")
    for text in ("", "x", own + own, "AGE-SECRET-KEY-\n"):
        (keys / "identity").write_text(text)
        assert fails(65 if text != "AGE-SECRET-KEY-\n" else 69, read).message
    (keys / "identity").unlink()
    assert "its identity is missing" in fails(69, read).message
    fails(69, secret.write, "vendor", VALUE)


def test_another_identity(keys):
    import pyrage

    secret.write("vendor", VALUE)
    own, before = (keys / "identity").read_text(), (keys / "keys.age").read_bytes()
    (keys / "identity").write_text(f"{pyrage.x25519.Identity.generate()}\n")
    assert "another identity" in fails(77, read).message
    fails(77, secret.write, "vendor", VALUE[::-1])
    # The recipient is another's: what it is written for could not be read again.
    (keys / "identity").write_text(own)
    (keys / "recipient").write_text(f"{pyrage.x25519.Identity.generate().to_public()}\n")
    fails(77, secret.write, "vendor", VALUE[::-1])
    assert (keys / "keys.age").read_bytes() == before
    assert read() == (VALUE, "file")


@pytest.mark.parametrize("name", ["identity", "keys.age", "keys.ftai"])
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_file_that_others_may_read(name, mode, keys):
    secret.write("vendor", VALUE)
    (keys / name).chmod(mode)
    bad = fails(77, read)
    assert name in bad.message and f"chmod 600 '{keys / name}'" in bad.hint
    bad = fails(77, secret.write, "vendor", VALUE)
    assert oct((keys / name).stat().st_mode & 0o777) == oct(mode)


@ROOT_ONLY
@pytest.mark.parametrize("name", ["identity", "keys.age", "keys.ftai", "."])
def test_what_belongs_to_another(name, keys):
    secret.write("vendor", VALUE)
    os.chown(keys / name, 65534, 65534)
    assert "belongs to" in fails(77, read).message
    assert "belongs to" in fails(77, secret.write, "vendor", VALUE[::-1]).message


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_a_folder_that_others_may_write_to(mode, keys):
    secret.write("vendor", VALUE)
    keys.chmod(mode)
    fails(77, read)
    fails(77, secret.write, "vendor", VALUE)
    fails(77, secret.listed)


@pytest.mark.parametrize("name", ["identity", "keys.age", "keys.ftai"])
def test_a_link_in_the_way(name, keys, tmp_path):
    secret.write("vendor", VALUE)
    (keys / name).rename(tmp_path / "elsewhere")
    before = (tmp_path / "elsewhere").read_bytes()
    (keys / name).symlink_to(tmp_path / "elsewhere")
    assert "link" in fails(77, read).message
    fails(77, secret.write, "vendor", VALUE[::-1])
    assert (tmp_path / "elsewhere").read_bytes() == before


def test_links_for_the_lock_and_the_folder(keys, tmp_path):
    (keys / "lock").symlink_to(tmp_path / "elsewhere")
    assert "link" in fails(73, secret.write, "vendor", VALUE).message
    assert not (tmp_path / "elsewhere").exists()
    (keys / "lock").unlink()
    (tmp_path / "elsewhere").mkdir()
    keys.rmdir()
    keys.symlink_to(tmp_path / "elsewhere")
    assert "link" in fails(77, secret.write, "vendor", VALUE).message
    fails(77, read)
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("name", ["identity", "keys.age", "keys.ftai"])
def test_what_is_no_file(name, keys):
    secret.write("vendor", VALUE)
    (keys / name).unlink()
    os.mkfifo(keys / name, 0o600)
    assert "no regular file" in fails(77, read).message


def test_a_file_that_is_too_big(keys, monkeypatch):
    secret.write("vendor", VALUE)
    monkeypatch.setattr(secret, "SIZE", 10)
    fails(65, read)


def test_reading_makes_nothing(home):
    fails(69, read)
    secret.listed()
    assert secret.identity() is None
    assert secret.readers("vendor") == []
    assert not (home / "ftai" / "state").exists()


# -- environment and commands


def test_the_environment(monkeypatch):
    entry = {"env": ["FIRST_KEY", "SECOND_KEY"]}
    assert "FIRST_KEY and SECOND_KEY not set" in fails(69, read, entry=entry).message
    monkeypatch.setenv("FIRST_KEY", "")
    monkeypatch.setenv("SECOND_KEY", VALUE + "\n")
    assert read(entry=entry) == (VALUE, "environment")
    monkeypatch.setenv("SECOND_KEY", "short")
    bad = fails(69, read, entry=entry)
    assert "shorter than 8" in bad.message and "short;" not in bad.message
    secret.write("vendor", "what was set counts first")
    monkeypatch.setenv("SECOND_KEY", VALUE)
    assert read(entry=entry) == ("what was set counts first", "file")


def run(*argv):
    return read(entry={"cmd": list(argv)})


def test_a_command(home, monkeypatch):
    (home / "key").write_text(VALUE + "\n")
    assert run("cat", str(home / "key")) == (VALUE, "command")
    assert run("printf", "%s", "$HOME `id` ; x") == ("$HOME `id` ; x", "command")
    assert run("sh", "-c", "cat; echo 12345678") == ("12345678", "command"), "its input is empty"
    assert run("sh", "-c", "sleep 60 & echo 12345678") == ("12345678", "command"), "what it leaves running is not waited for"


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["no-such-program"], "there is no program 'no-such-program'"),
        ([], "there is no program ''"),
        (["sh", "-c", f"echo {VALUE}; echo {VALUE} >&2; exit 3"], "'sh' ended with status 3"),
        (["sh", "-c", f"echo {VALUE}; kill -9 $$"], "'sh' ended with signal 9"),
        (["sh", "-c", "printf '\\377\\377\\377\\377\\377\\377\\377\\377'"], "'sh' wrote no text"),
        (["echo", "short"], "shorter than 8"),
        (["true"], "shorter than 8"),
        (["head", "-c", "70000", "/dev/zero"], "wrote more than 65536 bytes"),
        (["cat", "/dev/zero"], "wrote more than 65536 bytes"),
    ],
)
def test_commands_that_give_no_key(argv, why):
    assert why in fails(69, run, *argv).message


def test_a_command_that_does_not_end_is_ended(home, monkeypatch):
    script = f"trap '' TERM; echo {VALUE}; echo $$ > {home}/new; mv {home}/new {home}/pid; sleep 600; touch {home}/late"
    # Its time is over once it is where it does not end, however long it takes to get there.
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + 60 * (home / "pid").exists())
    assert "took longer" in fails(75, secret.command, ["sh", "-c", script], 60).message
    with pytest.raises(ProcessLookupError):
        os.kill(int((home / "pid").read_text()), 0)
    assert not (home / "late").exists()


def test_children_see_no_keys_and_are_no_program_of_a_relative_folder(home, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", VALUE)
    monkeypatch.setenv("SOME_TOKEN", VALUE)
    monkeypatch.setenv("LC_TIME", "C")
    seen = run("env")[0]
    assert VALUE not in seen
    assert {line.partition("=")[0] for line in seen.splitlines()} >= {"PATH", "HOME", "LC_TIME"}
    (home / "mine").write_text("#!/bin/sh\necho 12345678\n")
    (home / "mine").chmod(0o700)
    monkeypatch.chdir(home)
    monkeypatch.setenv("PATH", f".:{os.environ['PATH']}")
    assert "there is no program 'mine'" in fails(69, run, "mine").message
    assert run(str(home / "mine")) == ("12345678", "command")


def test_big_input_reaches_a_child_that_writes_meanwhile():
    data = os.urandom(1 << 20)
    assert secret._run(["cat"], data, 20, 2 << 20) == (0, data)
    assert secret._run(["true"], data, 20, 10) == (0, b""), "one that does not read"
    with pytest.raises(OSError):
        secret._run(["/no/such/program"], b"", 1, 1)


# -- readers


def test_only_readers_read(home):
    log = Log()
    secret.write("vendor", VALUE)
    bad = fails(77, read, reader="ftai-one", log=log)
    assert bad.hint == "ftai-keys grant vendor ftai-one"
    assert log == [("key-read", "vendor", "refused", "'ftai-one': 'ftai-one' is none of its readers")]
    assert secret.grant("vendor", "ftai-one") == ["ftai-one"]
    assert read(reader="ftai-one", log=log) == (VALUE, "file")
    assert log[1:] == [("key-read", "vendor", "done", "'ftai-one', from file")]
    fails(77, read, reader="ftai-two")
    secret.write("vendor", VALUE[::-1])
    assert read(reader="ftai-one")[0] == VALUE[::-1], "a new value keeps its readers"
    assert secret.revoke("vendor", "ftai-one") == []
    fails(77, read, reader="ftai-one")


def test_an_agent_needs_a_grant_of_its_own():
    secret.write("vendor", VALUE)
    secret.grant("vendor", "ftai-one")
    assert fails(77, read, reader="ftai-one", agent="cfo").hint == "ftai-keys grant vendor agent:cfo"
    secret.grant("vendor", "agent:cfo")
    assert read(reader="ftai-one", agent="cfo") == (VALUE, "file")
    fails(77, read, reader="ftai-two", agent="cfo")


def test_the_readers_of_the_spec_count_until_one_is_granted_or_revoked(home, monkeypatch):
    monkeypatch.setenv("VENDOR", VALUE)
    spec(home, '@key\n  name: "vendor"\n  summary: "x"\n  env: ["VENDOR"]\n  readers: ["ftai-one", "ftai-two"]\n@end')
    assert read(reader="ftai-one", entry=None) == (VALUE, "environment")
    assert secret.revoke("vendor", "ftai-one") == ["ftai-two"]
    fails(77, read, reader="ftai-one", entry=None)
    assert secret.revoke("vendor", "ftai-two") == []
    assert secret.readers("vendor") == [], "none is another thing than never said"
    assert {"name": "vendor", "source": "environment", "readers": []} in secret.listed()
    monkeypatch.delenv("VENDOR")
    assert {"name": "vendor", "source": "", "readers": []} in secret.listed()
    secret.remove("vendor")
    assert secret.readers("vendor") == ["ftai-one", "ftai-two"]


def test_an_untrusted_project_names_no_command(home, monkeypatch):
    (home / "project" / ".ftai").mkdir(parents=True)
    (home / "project" / ".ftai" / "serenamaster.config.ftai").write_text(
        f'@ftai v2.0\n\n@key\n  name: "vendor"\n  summary: "x"\n  cmd: ["touch", "{home}/ran"]\n  readers: ["ftai-one"]\n@end\n'
    )
    monkeypatch.chdir(home / "project")
    specs.forget()
    fails(77, read, reader="ftai-one", entry=None)
    fails(69, read, entry=None)
    assert not (home / "ran").exists()


def test_no_value_without_its_audit_record():
    secret.write("vendor", VALUE)

    def broken(*_):
        raise Failure("no journal", 74)

    assert fails(74, read, log=broken).message == "no journal"
    assert fails(74, read, "unknown", log=broken).message == "no journal"
    log = Log()
    fails(69, read, "unknown", log=log)
    assert [row[:3] for row in log] == [("key-read", "unknown", "failed")]


def test_every_source_is_named_that_did_not_serve():
    bad = fails(69, read, entry={"env": ["VENDOR_KEY"], "cmd": ["false"]})
    assert bad.message == (
        "no key 'vendor': keychain: there is no session bus; file: it has no such key; environment: VENDOR_KEY not set; command: 'false' ended with status 1"
    )
    assert bad.hint == "ftai-keys set vendor"


# -- the lock


def test_one_writer_at_a_time(monkeypatch):
    import fcntl

    monkeypatch.setattr(secret, "WAIT", 0.05)
    with secret.turn(), secret.turn():
        secret.write("vendor", VALUE)
    path = os.path.join(paths.state(), "keys", "lock")
    fd = os.open(path, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    assert fails(75, secret.write, "vendor", VALUE[::-1]).hint == f"fuser '{path}'"
    assert read() == (VALUE, "file"), "who reads waits for nobody"
    os.close(fd)
    secret.write("vendor", VALUE[::-1])


# -- this process and its children


def python(script, **more):
    """What a Python with our library says; it fails where it fails."""
    env = {"PATH": os.environ["PATH"], "FTAI_HOME": os.environ["FTAI_HOME"]} | more
    ran = subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {str(LIB)!r})\n{script}"], env=env, capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr.decode()
    return ran.stdout.decode()


@pytest.mark.skipif(sys.platform != "linux", reason="NOT LINUX: prctl is not tried")
def test_no_core_file_and_no_look_into_the_memory():
    script = """
import ctypes, resource, subprocess
from serenamaster import secret
resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
print(ctypes.CDLL(None).prctl(3))
{}
print(ctypes.CDLL(None).prctl(3), *resource.getrlimit(resource.RLIMIT_CORE))
"""
    for call in ("secret.protect()", "secret.write('vendor', '12345678')", "secret.item('vendor')"):
        assert python(script.format(call)).split() == ["1", "0", "0", "0"], call
    assert python(script.format("")).split()[:2] == ["1", "1"], "the control sees what a process is like otherwise"


def test_with_nothing_in_the_environment():
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(LIB)!r})\nfrom serenamaster import secret\nprint(secret._keychain('get', 'x'))"],
        env={}, capture_output=True, check=False,
    )  # fmt: skip
    assert b"there is no session bus" in ran.stderr


@pytest.mark.parametrize("address", ["", "autolaunch:", "tcp:host=localhost,port=1"])
def test_no_session_bus_is_started(address, monkeypatch):
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
    monkeypatch.setenv("DISPLAY", ":99")
    assert fails(69, secret._keychain, "get", "vendor").message == "there is no session bus"


REFUSED = ["keyring.backends.null.Keyring", "keyring.backends.fail.Keyring", "keyring.backends.chainer.ChainerBackend", "evil.Keyring"]
REFUSED += ["keyrings.alt.file.PlaintextKeyring", "keyrings.cryptfile.cryptfile.CryptFileKeyring", "keyring.backends.SecretService.secretstorage"]


@pytest.mark.parametrize("by", ["PYTHON_KEYRING_BACKEND", "keyringrc.cfg"])
@pytest.mark.parametrize("backend", REFUSED)
def test_backends_that_protect_nothing_are_refused(backend, by, home, monkeypatch):
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={home}/none")
    (home / "evil.py").write_text(f"open({str(home / 'ran')!r}, 'w')\nclass Keyring: pass\n")
    if by == "PYTHON_KEYRING_BACKEND":
        monkeypatch.setenv(by, backend)
        monkeypatch.setenv("PYTHONPATH", str(home))
    else:
        (home / ".config" / "python_keyring").mkdir(parents=True)
        (home / ".config" / "python_keyring" / by).write_text(f"[backend]\ndefault-keyring={backend}\nkeyring-path={home}\n")
    monkeypatch.chdir(home)
    bad = fails(78, secret._keychain, "set", "vendor", VALUE)
    assert bad.message.startswith(f"the backend '{backend}'") and by in bad.message and bad.message.endswith("is refused")
    assert not (home / "ran").exists(), "what the name leads to is not even loaded"


def test_a_refused_backend_is_as_none(home, monkeypatch):
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={home}/none")
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", REFUSED[0])
    assert fails(78, secret.write, "vendor", VALUE, store="keychain").message.startswith("cannot use the keychain: the backend 'keyring.backends.null.Keyring'")
    assert secret.write("vendor", VALUE) == "file"
    assert read() == (VALUE, "file")
    assert "is refused" in fails(69, read, "other").message


def test_a_keyringrc_that_is_none(home, monkeypatch):
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={home}/none")
    (home / ".config" / "python_keyring").mkdir(parents=True)
    (home / ".config" / "python_keyring" / "keyringrc.cfg").write_text("no section\n")
    assert fails(78, secret._keychain, "get", "vendor").message.endswith("can't be read")


def test_a_bus_that_nobody_answers_on(home, monkeypatch):
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={home}/none")
    assert fails(69, secret._keychain, "get", "vendor").message == "there is none"
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.SecretService.Keyring")
    assert "can't be used here" in fails(69, secret._keychain, "get", "vendor").message


def test_a_python_that_can_not_be_run(monkeypatch):
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/none")
    for python, why in (("/no/such/python", "it can't be asked: No such file"), ("/bin/true", "it can't be asked: the child died")):
        monkeypatch.setattr(sys, "executable", python)
        assert why in fails(69, secret._keychain, "get", "vendor").message


def test_the_answer_of_a_keychain_that_fails_is_only_the_kind_of_its_failure(tmp_path, monkeypatch):
    """A library that raises what it was given, in the real child."""
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/none")
    child = "import sys; sys.path.append(sys.argv[1]); from serenamaster import secret\ndef _asked(value, **_): print(value); raise KeyError(value)\n"
    monkeypatch.setattr(secret, "CHILD", child + "secret._asked = _asked; secret.serve()")
    assert fails(69, secret._keychain, "set", "vendor", VALUE).message == "it failed: KeyError"


@pytest.mark.parametrize("how, code", [("raise secret.Failure('it is locked', 75)", 75), ("return None", 69)])
def test_a_key_in_a_locked_keychain_is_not_to_be_set_again(how, code, keys, monkeypatch):
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/none")
    child = f"import sys; sys.path.append(sys.argv[1]); from serenamaster import secret\ndef _asked(**_): {how}\n"
    monkeypatch.setattr(secret, "CHILD", child + "secret._asked = _asked; secret.serve()")
    assert fails(69, read).hint == "ftai-keys set vendor", "nobody knows of it"
    with secret.turn():
        secret._write_book({"vendor": {"@tag": "key", "name": "vendor", "store": "keychain"}})
    bad = fails(code, read)
    assert bad.hint.startswith("unlock the keychain" if code == 75 else "ftai-keys set vendor")
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS")
    assert "set" not in fails(69, read).hint


def test_what_is_read_is_known_to_redaction_wherever_it_came_from(keys, monkeypatch):
    from serenamaster import redact

    monkeypatch.setenv("VENDOR_KEY", "of the environment")
    for entry, value in (({"env": ["VENDOR_KEY"]}, "of the environment"), ({"cmd": ["echo", "of a command"]}, "of a command")):
        assert redact.text(value) == value
        read(entry=entry)
        assert redact.text(value).startswith("[redacted:key:")
    secret.write("vendor", VALUE)
    assert [trouble for trouble, _ in redact.troubles()] == ["the key 'vendor' is not known to redaction"]
    (keys / "fingerprints").unlink()
    read()
    assert redact.troubles() == [] and redact.text(VALUE).startswith("[redacted:key:")


def test_no_value_that_redaction_can_not_know(keys):
    from serenamaster import redact

    secret.write("vendor", VALUE)
    (keys / "fingerprints.lock").mkdir()
    log = Log()
    assert "fingerprints" in fails(73, read, log=log).message
    assert [row[2] for row in log] == ["failed"]
    assert redact.troubles()
