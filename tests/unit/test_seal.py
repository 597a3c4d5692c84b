"""seal.py: age files, hidden values of the config, and the texts of records."""

import os
import random
import re
import secrets
import sqlite3
import subprocess
import sys

import orjson
import pytest
from serenamaster import record, seal, specs
from serenamaster.errors import CONFIG, DATAERR, NOPERM, TEMPFAIL, Failure

LIB = os.path.dirname(os.path.dirname(seal.__file__))


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("FTAI_HOME", str(tmp_path / "home"))
    specs.forget()
    seal._told.clear()
    seal._identities.clear()
    return tmp_path / "home" / "state" / "keys"


def code(call, *args, **more):
    with pytest.raises(Failure) as caught:
        call(*args, **more)
    return caught.value.code


# ---- whole files ----


def test_an_age_file_opens_for_its_recipients_alone():
    data = os.urandom(1000)
    one, two, other = (subprocess.run(["age-keygen"], capture_output=True, text=True, check=True).stdout for _ in range(3))
    public = [seal._identity(words).to_public() for words in (one, two)]
    locked = seal.lock(data, [str(key) for key in public])
    assert data not in locked
    assert seal.unlock(locked, one) == seal.unlock(locked, two.splitlines()[-1]) == data
    assert code(seal.unlock, locked, other) == NOPERM
    assert code(seal.unlock, locked, "no identity") == CONFIG
    assert code(seal.unlock, locked) == CONFIG
    assert code(seal.lock, data, ["age1nobody"]) == CONFIG


def test_an_age_file_opens_with_its_passphrase_alone():
    locked = seal.lock(b"words", passphrase="river stone")
    assert seal.unlock(locked, passphrase="river stone") == b"words"
    assert code(seal.unlock, locked, passphrase="river") == NOPERM


def test_a_damaged_age_file_never_opens():
    own = subprocess.run(["age-keygen"], capture_output=True, text=True, check=True).stdout
    locked = seal.lock(b"some words", [str(seal._identity(own).to_public())])
    for cut in range(len(locked)):
        assert code(seal.unlock, locked[:cut], own) in (DATAERR, NOPERM)
    # Every bit of the body, and of the stanza that is ours; another stanza of the header is there to be skipped by who does not know it.
    at = locked.index(b"\n---")
    for bit in range(at * 8, len(locked) * 8):
        flipped = bytearray(locked)
        flipped[bit // 8] ^= 1 << bit % 8
        assert code(seal.unlock, bytes(flipped), own) in (DATAERR, NOPERM)


def test_the_age_program_opens_what_is_locked(tmp_path):
    own = tmp_path / "identity"
    subprocess.run(["age-keygen", "-o", str(own)], capture_output=True, check=True)
    locked = seal.lock(b"some words", [str(seal._identity(own.read_text()).to_public())])
    assert subprocess.run(["age", "-d", "-i", str(own)], input=locked, capture_output=True, check=True).stdout == b"some words"


class Busy:
    """pyrage.passphrase on a machine that others use: a file that cost little, and an answer that it would take too long, so many times."""

    def __init__(self, passphrase, times):
        self.real, self.times = passphrase, times

    def encrypt(self, *args):
        self.times -= 1
        return re.sub(rb"(-> scrypt \S+) \d+", rb"\1 9", made) if (made := self.real.encrypt(*args)) and self.times >= 0 else made

    def decrypt(self, data, phrase):
        self.times -= 1
        return self.real.decrypt(re.sub(rb"(-> scrypt \S+) \d+", rb"\1 40", data) if self.times >= 0 else data, phrase)


def test_a_busy_machine_makes_no_weak_file_and_finds_none_damaged(monkeypatch):
    import pyrage

    real = pyrage.passphrase
    monkeypatch.setattr(pyrage, "passphrase", Busy(real, 1))
    locked = seal.lock(b"some words", passphrase="a phrase")
    assert seal._work(locked) > 9
    monkeypatch.setattr(pyrage, "passphrase", Busy(real, 3))
    assert seal.unlock(locked, passphrase="a phrase") == b"some words"
    monkeypatch.setattr(pyrage, "passphrase", Busy(real, 1000))
    assert code(seal.unlock, locked, passphrase="a phrase") == TEMPFAIL


# ---- the owner's identity ----


def test_an_identity_is_made_once_by_eight_at_once(place):
    script = "from serenamaster import seal; print(seal.recipient())"
    running = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": LIB}) for _ in range(8)]
    said = {process.communicate()[0].strip() for process in running}
    assert len(said) == 1
    own = (place / "identity").read_text()
    assert said == {str(seal._identity(own).to_public())} == {seal.recipient()}
    assert {path.name for path in place.iterdir()} == {"identity", "recipient", "recipient.lock"}
    assert [path.stat().st_mode & 0o777 for path in place.iterdir()] == [0o600] * 3
    assert place.stat().st_mode & 0o777 == 0o700


def test_without_identity_the_recipient_is_enough(place):
    public = seal.recipient()
    (place / "identity").unlink()  # it was moved to a keychain
    assert seal.recipient() == public
    assert not (place / "identity").exists()


@pytest.mark.parametrize("sealed", [f"keys/{seal.THREADS}", "journal/ledger"])
def test_no_second_identity_is_made_for_what_was_sealed_before(place, sealed, monkeypatch):
    seal.recipient()
    (place.parent / sealed).parent.mkdir(exist_ok=True)
    (place.parent / sealed).touch()
    for name in ("identity", "recipient"):
        (place / name).unlink()
    assert code(seal.recipient) == CONFIG
    assert not (place / "identity").exists()
    # What was sealed for others needs none of ours.
    monkeypatch.setenv("FTAI_RECIPIENTS", "ssh-ed25519 AAAA")
    if sealed == "journal/ledger":
        assert seal.recipient().startswith("age1")
    else:
        assert code(seal.recipient) == CONFIG


@pytest.mark.parametrize("name", ["identity", "recipient"])
def test_a_link_and_a_file_of_others_are_refused(place, tmp_path, name):
    seal.recipient()
    real = (place / name).rename(tmp_path / "elsewhere")
    (place / "recipient").unlink(missing_ok=True)
    (place / name).symlink_to(real)
    assert code(seal.recipient) == NOPERM
    (place / name).unlink()
    real.rename(place / name).chmod(0o622)
    assert code(seal.recipient) == NOPERM


# ---- values of the config ----


def test_a_hidden_value_comes_back_under_its_name_alone():
    key, words = os.urandom(32), "pässword " + secrets.token_hex(8)
    hidden = seal.hide(key, "mail-password", words)
    assert hidden.startswith("aes256gcm:")
    assert words not in hidden
    assert hidden != seal.hide(key, "mail-password", words)
    assert seal.reveal(key, "mail-password", hidden) == words
    assert seal.reveal(key, "empty", seal.hide(key, "empty", "")) == ""
    assert code(seal.reveal, key, "other", hidden) == DATAERR
    assert code(seal.reveal, os.urandom(32), "mail-password", hidden) == DATAERR


def test_a_damaged_hidden_value_is_refused():
    key = os.urandom(32)
    hidden = seal.hide(key, "name", "some words")
    for number in range(len(seal.HIDDEN), len(hidden)):
        for other in random.Random(number).sample([sign for sign in "AZaz09+/" if sign != hidden[number]], 3):
            assert code(seal.reveal, key, "name", hidden[:number] + other + hidden[number + 1 :]) == DATAERR
    for hostile in ("", "aes256gcm:", "aes256gcm:AAAA", "aes256gcm:!", hidden[:-5], hidden + "A", hidden[len(seal.HIDDEN) :], "aes256gcm:\ud800"):
        assert code(seal.reveal, key, "name", hostile) == DATAERR


# ---- texts of records ----


@pytest.fixture
def on(monkeypatch):
    monkeypatch.setenv("FTAI_ENCRYPT", "local")


def identity():
    """As secret.identity(), from the file alone."""
    return (seal._text(os.path.join(seal.folder(), "identity"))) or None


def rich(**fields) -> dict:
    """A record with a text of each shape."""
    made = record.make("task", "ftai-exec", body="words é 日本", due="2026-12-01", title="shown", tags=["home", ["deep", 7, True]], priority=2, **fields)
    slots = {"@tag": "slots", "what": "the invoice", "from": "Berlin", "n": 3, "@blocks": [{"@text": "some prose"}, {"@tag": "data", "title": "inner"}]}
    other = {"@tag": "alternative", "target": "skill:help", "why_not": "no phrase of it fits"}
    return made | {"@head": "a head", "@text": "two\nlines", "@blocks": [slots, other]}


def texts(value, path=()):
    """(path, text) of all strings in a record."""
    if type(value) is str:
        yield path, value
    for key, inner in value.items() if type(value) is dict else enumerate(value) if type(value) is list else ():
        yield from texts(inner, (*path, key))


def changed(rec, path, value):
    """A copy of a record with another value at a path."""
    made = orjson.loads(orjson.dumps(rec))
    inner = made
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return made


def test_nothing_is_sealed_unless_the_config_says_so(place, monkeypatch):
    rec = rich()
    for value in ("", "off"):
        monkeypatch.setenv("FTAI_ENCRYPT", value)
        assert seal.cover([rec])[0] is rec
    assert not place.exists()


def test_every_text_of_a_local_record_is_sealed_and_opens_again(on):
    rec = rich(target="skill:task", rule="two words", count=12, status="open")
    (covered,) = seal.cover([rec])
    clear = {path for path, text in texts(covered) if not text.startswith("[sealed:")}
    frame = {"@tag", "id", "ts", "thread", "from", "target", "status", "title"}
    assert clear == {(key,) for key in frame} | {("@blocks", 0, "@tag"), ("@blocks", 1, "@tag"), ("@blocks", 0, "@blocks", 1, "@tag")} | {
        ("@blocks", 0, "@blocks", 1, "title")
    }
    assert all(text not in orjson.dumps(covered).decode() for text in ("words", "deep", "invoice", "Berlin", "prose", "skill:help", "2026-12-01", "a head"))
    assert (covered["priority"], covered["count"], covered["tags"][1][1:]) == (2, 12, [7, True])
    assert list(covered) == list(rec)
    assert seal.opened(covered, identity) == rec
    assert seal.opened(rec, identity) is rec


def test_the_fields_named_in_clear_stay(on, monkeypatch):
    monkeypatch.setenv("FTAI_CLEAR", "body, due,tags")
    covered = seal.cover([rec := rich()])[0]
    assert {key for key in rec if covered[key] == rec[key]} >= {"body", "due", "tags"}
    assert covered["title"] != rec["title"]


@pytest.mark.parametrize(
    ("own", "default", "sealed"), [("cloud", "local", False), ("local", "cloud", True), (None, "local", True), (None, "cloud", False), ("x", "cloud", True)]
)
def test_what_may_go_to_the_cloud_stays_clear(on, monkeypatch, own, default, sealed):
    monkeypatch.setenv("FTAI_PRIVACY", default)
    rec = record.make("message", "test", body="words", privacy=own)
    assert (seal.cover([rec])[0] is not rec) is sealed


def test_a_local_block_of_a_cloud_record_is_sealed(on):
    blocks = [{"@tag": "document", "body": "inner", "privacy": "local", "@blocks": [{"@tag": "data", "x": "deepest"}]}, {"@tag": "data", "x": "open"}]
    rec = record.make("message", "test", body="words", privacy="cloud", blocks=blocks)
    covered = seal.cover([rec])[0]
    assert covered["body"] == "words"
    assert covered["@blocks"][1] == blocks[1]
    assert not {"inner", "deepest"} & {text for _, text in texts(covered)}
    assert seal.opened(covered, identity) == rec


def test_a_frame_field_that_holds_a_text_is_sealed(on):
    fields = {"target": "tell my boss", "status": "done and dusted", "rule": "x" * 129, "class_": "a", "parent": None, "updates": "my secret id"}
    covered = seal.cover([record.make("result", "my aunt", **fields)])[0]
    assert {key for key, value in covered.items() if value.startswith("[sealed:")} == {"from", "target", "status", "rule", "updates"}


def test_what_verify_needs_of_a_purge_stays_clear(on):
    names = [f"12 {secrets.token_hex(32)}", f"345 {secrets.token_hex(32)}"]
    covered = seal.cover([record.make("audit", "x", act="purge", subject="a thread", purged=names)])[0]
    assert (covered["act"], covered["purged"]) == ("purge", names)
    assert covered["subject"] != "a thread"
    assert seal.cover([record.make("audit", "x", act="purge", purged=[*names, "my words"])])[0]["purged"][2].startswith("[sealed:")
    assert seal.cover([record.make("memory", "x", act="purge", purged=names)])[0]["purged"][0].startswith("[sealed:")


def test_what_was_withheld_is_not_sealed(on):
    rec = record.make("message", "x", body="[withheld:12]")
    assert seal.cover([rec])[0]["body"] == "[withheld:12]"


def test_no_two_sealed_texts_are_the_same(on):
    recs = [record.make("message", "x", body="the same", thread="t", list=["the same"] * 100) for _ in range(10)]
    found = [text for rec in seal.cover(recs) for _, text in texts(rec) if text.startswith("[sealed:")]
    assert len(found) == 1010
    assert len({text.rpartition(":")[2][:16] for text in found}) == 1010, "a nonce came twice"


def test_one_key_is_used_for_no_more_than_so_many_texts(on, monkeypatch):
    monkeypatch.setattr(seal, "MOST", 5)
    monkeypatch.setitem(seal._session, "count", 5)
    covered = [seal.cover([record.make("message", "x", body="words", thread="t")])[0] for _ in range(20)]
    names = [rec["body"].split(":")[1] for rec in covered]
    assert max(map(names.count, names)) <= 5
    assert {seal.opened(rec, identity)["body"] for rec in covered} == {"words"}


def test_redaction_finds_nothing_in_what_is_sealed(on):
    from serenamaster import redact

    dice = random.Random(5)
    recs = [record.make("message", "x", body="ab" if n % 2 else "x" * dice.randrange(1, 200), thread="t") for n in range(1000)]
    covered = seal.cover(recs)
    assert redact.batch(covered) == covered


# ---- tampering ----


def sealed_paths(rec):
    return [path for path, text in texts(rec) if text.startswith("[sealed:")]


def test_a_text_that_was_moved_is_damaged(on):
    one, two = seal.cover([rich(thread="t"), rich(thread="t")])
    paths = sealed_paths(one)
    dice = random.Random(1)
    for path in paths:
        text = dict(texts(one))[path]
        for rec, other in ((one, dice.choice([other for other in paths if other != path])), (two, path)):
            shown = dict(texts(seal.opened(changed(rec, other, text), identity)))
            assert shown[other] == seal.DAMAGED
            assert seal.DAMAGED not in {words for place, words in shown.items() if place != other}


@pytest.mark.parametrize("field", ["id", "@tag", "thread"])
def test_a_record_that_was_renamed_is_damaged(on, field):
    one, two = seal.cover([rich(), rich()])
    shown = dict(texts(seal.opened(one | {field: two[field] if field != "@tag" else "memory"}, identity)))
    assert {shown[path] for path in sealed_paths(one)} == {seal.DAMAGED}


def test_every_flipped_bit_is_seen(on):
    rec = seal.cover([record.make("message", "x", body="two words")])[0]
    text, signs = rec["body"], "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for at in range(len("[sealed:"), len(text) - 1):
        if text[at] == ":":
            continue
        for bit in range(6):
            flipped = text[:at] + signs[signs.index(text[at]) ^ 1 << bit] + text[at + 1 :]
            assert seal.opened(rec | {"body": flipped}, identity)["body"] == seal.DAMAGED
    for cut in range(len("[sealed:"), len(text) - 1):
        assert seal.opened(rec | {"body": text[:cut] + "]"}, identity)["body"] in (seal.DAMAGED, text[:cut] + "]")
        assert "two words" not in str(seal.opened(rec | {"body": text[:cut]}, identity))


def test_keys_of_threads_that_were_exchanged_open_nothing(on, place):
    covered = seal.cover([record.make("message", "x", body="one", thread="a"), record.make("message", "x", body="two", thread="b")])
    with sqlite3.connect(place / seal.THREADS) as db:
        rows = dict(db.execute("SELECT thread, locked FROM threads"))
        db.execute("UPDATE threads SET locked = ? WHERE thread = 'a'", (rows["b"],))
    db.close()
    assert seal.opened(covered[0], identity)["body"] == seal.DAMAGED
    assert seal.opened(covered[1], identity)["body"] == "two"


HOSTILE = ["[sealed:", "[sealed::]", f"[sealed:{'A' * 43}:{'A' * 38}]", f"[sealed:{'_' * 43}:{'_' * 40}]", f"[sealed:{'é' * 43}:{'A' * 38}]"]
HOSTILE += [
    f"[sealed:{'A' * 43}:{'A' * 37}]",
    f"[sealed:{'A' * 43}:{'A' * 1_000_000}]",
    f"[sealed:{'A' * 43}:{'A' * 38}]\n",
    f"[sealed:{'A' * 43}:{'A' * 38}] more",
]


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts_never_raise(on, hostile):
    good = seal.cover([rich(thread="t")])[0]
    kept = {"id": "x", "thread": ["no", "id"], "@head": hostile, "list": [[hostile]], "@blocks": [{"@text": hostile}]}
    for rec in (good | {"body": hostile}, {"@tag": "x", "body": hostile}, {"@text": hostile}, good | kept, changed(good, ("@blocks", 0, "what"), hostile)):
        shown = seal.opened(rec, identity)
        assert [path for path, _ in texts(shown)] == [path for path, _ in texts(rec)]
        assert {text for _, text in texts(shown)} <= {hostile, seal.DAMAGED} | {text for _, text in texts(rec)} | {text for _, text in texts(rich())}


def test_a_text_that_looks_sealed_comes_back_as_it_was(on):
    words = f"[sealed:{'A' * 43}:{'A' * 38}]"
    covered = seal.cover([rec := record.make("message", "x", body=words)])[0]
    assert covered["body"] != words
    assert seal.opened(covered, identity) == rec


# ---- keys at hand, or not ----


def test_without_identity_the_sealed_form_is_passed_on_and_that_is_said_once(on, place):
    covered = seal.cover([rich(), rich()])
    asked, said = [], []

    def nobody():
        asked.append(1)

    for rec in covered * 2:
        assert seal.opened(rec, nobody, said.append) == rec
    assert len(asked) == 1
    assert said == ["cannot open what is sealed: the identity is not at hand"]


def test_an_identity_that_fails_is_asked_once(on):
    covered = seal.cover([rich(), rich()])
    asked, said = [], []

    def failing():
        asked.append(1)
        raise Failure("the keychain is locked")

    for rec in covered * 2:
        assert seal.opened(rec, failing, said.append) == rec
    assert len(asked) == 1
    assert said == ["cannot open what is sealed: the keychain is locked"]


def test_another_identity_opens_nothing(on):
    covered = seal.cover([rich()])[0]
    other = subprocess.run(["age-keygen"], capture_output=True, text=True, check=True).stdout
    assert seal.opened(covered, lambda: other) == covered


def test_sealing_needs_no_identity(on, place):
    first = seal.cover([rich()])[0]
    moved = identity()
    (place / "identity").unlink()
    second = seal.cover([rec := rich()])[0]
    assert seal.opened(second, lambda: moved) == rec
    assert seal.opened(first, lambda: moved)["body"] == rec["body"]


def test_a_destroyed_thread_opens_for_nobody_and_leaves_no_trace(on, place):
    recs = [record.make("message", "x", body="words", thread=f"thread {n % 40} of many") for n in range(400)]
    covered = seal.cover(recs)
    with sqlite3.connect(place / seal.THREADS) as db:
        gone = db.execute("SELECT public, locked FROM threads WHERE thread = 'thread 7 of many'").fetchone()
    db.close()
    assert seal.opened(covered[7], identity) == recs[7]
    assert seal.destroy("thread 7 of many") == 1
    assert seal.destroy("thread 7 of many") == 0
    said = []
    for rec, opened in zip(covered, [seal.opened(rec, identity, said.append) for rec in covered], strict=True):
        assert opened == rec if rec["thread"] == "thread 7 of many" else opened["body"] == "words"
    assert len(said) == 1
    for path in place.iterdir():
        data = path.read_bytes()
        assert not [part for part in (b"thread 7 of many", gone[0], gone[1], gone[1][-60:]) if part in data], path
    again = seal.cover([rec := record.make("message", "x", body="new words", thread="thread 7 of many")])[0]
    assert seal.opened(again, identity) == rec
    assert seal.opened(covered[7], identity)["body"] == seal.DAMAGED, "the new key of the thread is none for what was sealed before"


def test_no_copy_of_a_destroyed_key_is_left_where_pages_were_split(on, place):
    recs = [record.make("message", "x", body="words") for _ in range(1200)]
    dice = random.Random(7)
    dice.shuffle(recs)
    for at in range(0, len(recs), 100):
        seal.cover(recs[at : at + 100])
    with sqlite3.connect(place / seal.THREADS) as db:
        keys = {name: (name.encode(), public, locked[-64:]) for name, public, locked in db.execute("SELECT * FROM threads")}
    db.close()
    gone = dice.sample(sorted(keys), 400)
    assert sum(map(seal.destroy, gone)) == 400
    data = (place / seal.THREADS).read_bytes()
    assert not [name for name in gone for part in keys[name] if part in data]
    assert sum(parts[2] in data for parts in keys.values()) == 800


def test_what_another_process_destroys_is_sealed_with_no_more(on):
    seal.cover([record.make("message", "x", body="words", thread="t")])
    env = os.environ | {"PYTHONPATH": LIB}
    subprocess.run([sys.executable, "-c", "from serenamaster import seal; assert seal.destroy('t') == 1"], check=True, env=env)
    covered = seal.cover([rec := record.make("message", "x", body="words", thread="t")])[0]
    seal._opening.clear()
    assert seal.opened(covered, identity) == rec


def test_a_child_has_a_key_of_its_own(on):
    seal.cover([record.make("message", "x", body="words", thread="t")])
    read, write = os.pipe()
    if not (pid := os.fork()):
        rec = seal.cover([record.make("message", "x", body="said by the child", thread="t")])[0]
        os.write(write, orjson.dumps(rec))
        os._exit(0)
    os.waitpid(pid, 0)
    child = orjson.loads(os.read(read, 100_000))
    own = seal.cover([record.make("message", "x", body="words", thread="t")])[0]
    assert own["body"].split(":")[1] != child["body"].split(":")[1]
    assert seal.opened(child, identity)["body"] == "said by the child"


def test_many_writers_and_runs_leave_one_key_for_a_thread(on, place):
    script = "from serenamaster import record, seal; import os\n"
    script += "recs = [record.make('message', 'x', body='words', thread=f't{n % 5}') for n in range(50)]\n"
    script += "os.write(1, b''.join(record.encode(rec) for rec in seal.cover(recs)))"
    made = []
    for _ in range(3):
        running = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": LIB}) for _ in range(8)]
        made += [orjson.loads(line) for process in running for line in process.communicate()[0].splitlines()]
    assert len(made) == 24 * 50
    assert {seal.opened(rec, identity)["body"] for rec in made} == {"words"}
    with sqlite3.connect(place / seal.THREADS) as db:
        assert db.execute("SELECT count(*) FROM threads").fetchone() == (5,)
    db.close()
    assert {path.name for path in place.iterdir()} == {"identity", "recipient", "recipient.lock", "threads.db"}


def test_where_keys_cannot_be_kept_nothing_is_sealed(on, place):
    seal.recipient()
    (place / seal.THREADS).write_bytes(b"no database" * 100)
    (place / seal.THREADS).chmod(0o600)
    with pytest.raises(Failure) as caught:
        seal.cover([rich()])
    assert "threads.db" in caught.value.message
    (place / seal.THREADS).unlink()
    (place / seal.THREADS).symlink_to("/tmp/nowhere")
    assert code(seal.cover, [rich()]) == NOPERM


# ---- who has a say ----


def config(folder, name, value):
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "serenamaster.config.ftai").write_text(f'@ftai v2.0\n\n@setting\n  name: "{name}"\n  value: "{value}"\n  summary: "own"\n@end\n')


ALONE = """
from serenamaster import record, seal
rec = record.make("message", "x", body="words")
print(seal.cover([rec])[0] is rec)
"""


def alone(**more):
    """Whether a record stays clear in a process of its own."""
    run = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": LIB}, **more)
    return run.stdout == "True\n"


def test_every_layer_has_a_say(place, tmp_path, monkeypatch):
    project = tmp_path / "project" / "below"
    project.mkdir(parents=True)
    assert alone(cwd=project) is True
    # A project may not be trusted to turn it off, but it may turn it on.
    (project.parent / ".ftai").mkdir()
    (project.parent / ".ftai" / "serenamaster.config.ftai").write_text('@ftai v2.0\n\n@setting\n  name: "encrypt"\n  value: "local"\n@end\n')
    assert alone(cwd=project) is False
    (project.parent / ".ftai" / "serenamaster.config.ftai").unlink()
    config(place.parent.parent / "config", "encrypt", "local")
    assert alone(cwd=project) is False
    (project.parent / ".ftai" / "serenamaster.config.ftai").write_text('@ftai v2.0\n\n@setting\n  name: "encrypt"\n  value: "off"\n@end\n')
    assert alone(cwd=project) is False
    config(place.parent.parent / "config", "lang", "de")
    assert alone(cwd=tmp_path) is True
    monkeypatch.setenv("FTAI_ENCRYPT", "local")
    assert alone(cwd=tmp_path) is False


def test_with_a_broken_config_what_was_sealed_is_sealed(place):
    folder = place.parent.parent / "config"
    config(folder, "encrypt", '"\n@end\n@setting\n  nonsense: "1')
    assert alone() is True
    config(folder, "encrypt", "local")
    assert alone() is False
    config(folder, "encrypt", '"\n@end\n@setting\n  nonsense: "1')
    assert alone() is False


# ---- the keys while a process goes on ----


def test_known_and_new_threads_come_together(on):
    first = [record.make("message", "x", body=f"one {n}", thread=f"t{n}") for n in range(3)]
    second = [record.make("message", "x", body=f"two {n}", thread=f"t{n}") for n in range(6)]
    for recs in (first, second, second[::-1]):
        assert [seal.opened(rec, identity) for rec in seal.cover(recs)] == recs


def test_keys_are_never_written_into_a_file_that_is_gone(on, place):
    seal.cover([record.make("message", "x", body="one", thread="t")])
    (place / seal.THREADS).rename(place / "elsewhere")
    covered = seal.cover([rec := record.make("message", "x", body="two", thread="t")])
    assert seal.opened(covered[0], identity) == rec
    with sqlite3.connect(place / seal.THREADS) as db:
        assert db.execute("SELECT thread FROM threads").fetchall() == [("t",)]
    db.close()


def test_a_process_keeps_only_so_many_keys_at_hand(on, monkeypatch):
    monkeypatch.setattr(seal, "KEPT", 5)
    recs = [record.make("message", "x", body=f"words {n}") for n in range(40)]
    covered = [rec for at in range(0, 40, 4) for rec in seal.cover(recs[at : at + 4])]
    assert [seal.opened(rec, identity) for rec in covered * 2] == recs * 2
    assert max(map(len, (seal._sealing, seal._opening, seal._private))) <= 5
