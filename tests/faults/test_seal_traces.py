"""What is local is encrypted: thirty planted texts through the stages leave no trace in any of our files, and come back for who has the identity."""

import os
import random
import secrets
import sqlite3
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
import writers
from serenamaster import journal, record, seal, specs

WORDS = 30


@pytest.fixture
def home(tmp_path, monkeypatch):
    made = writers.Home(tmp_path / "home")
    made.environment["FTAI_ENCRYPT"] = "local"
    monkeypatch.setenv("FTAI_HOME", str(made.path))
    specs.forget()
    seal._identities.clear()
    return made


def run(home, *argv, given=b"", **environment):
    """(status, stdout, stderr) of a stage."""
    done = subprocess.run([str(arg) for arg in argv], input=given, capture_output=True, env=home.environment | environment, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr.decode()


def recall(home, *argv, **environment):
    """The records that are found, without their chain; and what was said."""
    _, out, said = run(home, "ftai-recall", *argv, **environment)
    recs = [orjson.loads(line) for line in out.splitlines()]
    for rec in recs:
        rec["@blocks"] = [block for block in rec["@blocks"] if block.get("@tag") != "chain"]
        if not rec["@blocks"]:
            del rec["@blocks"]
    return recs, said


def planted():
    """Records with texts in all places, and the texts: hex has no letters that porter would cut, and is found by nothing by chance."""
    words = [f"plant{secrets.token_hex(8)}" for _ in range(WORDS)]
    one = iter(words)
    recs = []
    for privacy in (None, "local", "private"):
        blocks = [{"@tag": "slots", "what": next(one), "from": next(one), "@blocks": [{"@tag": "data", "deep": [next(one)]}]}]
        blocks += [{"@tag": "alternative", "target": "skill:help", "why_not": f"no {next(one)}"}, {"@text": next(one)}]
        rec = record.make("message", "test", body=f"a body with {next(one)}", list=[next(one), [next(one)]], privacy=privacy, blocks=blocks)
        rec |= {"@head": f"head {next(one)}", "@text": f"free {next(one)}\nof two lines"}
        recs.append(rec)
    assert next(one, None) is None
    return recs, words


def traces(home, words) -> list:
    """(file, word) of what stands in any file of the home, as it is or with its letters apart as in UTF-16."""
    files = [path for path in home.path.rglob("*") if path.is_file()]
    assert len(files) > 5
    return [(path, word) for path in files for data in [path.read_bytes()] for word in words if word.encode() in data or word.encode("utf-16-le") in data]


def test_planted_texts_leave_no_trace_and_come_back(home):
    recs, words = planted()
    given = b"".join(map(record.encode, recs))
    # A reader keeps the WAL where it is.
    assert run(home, "ftai-archive", "stats")[0] == 0
    code, out, said = run(home, "ftai-log", given=given)
    assert (code, out, said) == (0, given, ""), "what is passed on stays as it was read"
    reader = sqlite3.connect(f"file:{home.path}/state/archive.db?mode=ro", uri=True)
    reader.execute("SELECT count(*) FROM records").fetchone()
    assert run(home, "ftai-run", f"remember {words[0]} {words[1]}")[0] == 0
    assert run(home, "ftai-run", f"note that {words[2]}", "--dry-run")[0] == 0
    run(home, "ftai-log", given=b'{"@tag":"note","body":"%s","body":2}\n{"@tag":"note","%s' % (words[3].encode(), words[4].encode()))
    assert {path.name for path in (home.path / "state").iterdir()} >= {"archive.db", "archive.db-wal", "archive.db-shm", "state.db"}
    assert not traces(home, words)
    reader.close()
    shown, said = recall(home, "--thread", recs[0]["thread"])
    assert (shown, said) == ([recs[0]], "")
    assert [rec for rec in recall(home, "--after", "0")[0] if rec["@tag"] == "message"] == recs
    assert not traces(home, words), "reading left a trace"


def test_control_without_encryption(home):
    recs, words = planted()
    run(home, "ftai-log", given=b"".join(map(record.encode, recs)), FTAI_ENCRYPT="off")
    assert {word for _, word in traces(home, words)} == set(words)


def test_a_note_that_goes_to_the_cloud_is_clear_and_fields_of_choice_are_found(home):
    recs = [
        record.make("message", "test", body="walnut one", privacy="cloud"),
        record.make("message", "test", body="walnut two", title="hazelnut two"),
        record.make("message", "test", body="walnut three", subject="almond three"),
    ]
    run(home, "ftai-log", given=b"".join(map(record.encode, recs)), FTAI_CLEAR="subject,title")
    assert recall(home, "walnut", "-C0")[0] == recs[:1]
    assert recall(home, "hazelnut")[0] == recs[1:2]
    assert recall(home, "almond")[0] == recs[2:]
    # Where there is no archive, the journal itself tells the same.
    for path in (home.path / "state").glob("archive.db*"):
        path.unlink()
    (home.path / "state" / "archive.db").mkdir()
    assert recall(home, "almond")[0] == recs[2:]
    assert recall(home, "walnut")[0] == recs[:1]
    assert recall(home, "--thread", recs[1]["thread"])[0] == recs[1:2]


def rows(home) -> list:
    with sqlite3.connect(home.path / "state" / "archive.db") as db:
        found = db.execute("SELECT * FROM records ORDER BY seq").fetchall()
    db.close()
    return found


def test_the_chain_and_the_archive_are_of_the_sealed_form(home):
    recs, _ = planted()
    given = b"".join(map(record.encode, recs))
    run(home, "ftai-log", given=given)
    assert not home.troubles()
    assert subprocess.run(["sh", writers.ROOT / "tests/vectors/verify.sh", home.current], capture_output=True, check=False).returncode == 0
    before = rows(home)
    assert run(home, "ftai-archive", "rebuild")[0] == 0
    assert rows(home) == before
    assert len(before) == len(recs)


def test_the_same_record_is_a_repeat_and_another_is_not_told_from_it(home):
    recs, _ = planted()
    given = b"".join(map(record.encode, recs))
    assert run(home, "ftai-log", given=given)[0] == 0
    size = home.current.stat().st_size
    for again in (given, b"".join(map(record.encode, recall(home, "--after", "0")[0]))):
        code, out, said = run(home, "ftai-log", given=again)
        assert (code, out, said) == (0, again, "")
    # As the page says: under the same id another text is not told apart, another number or field is.
    code, _, _ = run(home, "ftai-log", given=record.encode(recs[0] | {"body": "other"}))
    assert code == 0
    code, _, said = run(home, "ftai-log", given=record.encode(recs[0] | {"number": 7}))
    assert code == 1 and "with other content" in said
    # Within one run the texts are still known.
    fresh = record.make("message", "test", body="one")
    code, _, said = run(home, "ftai-log", given=record.encode(fresh) * 2 + record.encode(fresh | {"body": "two"}))
    assert code == 1 and "with other content" in said
    assert home.current.stat().st_size > size


def test_what_is_sealed_may_be_journaled_again_as_it_is(home):
    rec = record.make("message", "test", body="walnut")
    run(home, "ftai-log", given=record.encode(rec))
    os.rename(home.path / "state/keys/identity", home.path / "identity")
    _, out, said = run(home, "ftai-recall", "--after", "0")
    assert b"walnut" not in out
    assert said.count("the identity is not at hand") == 1
    code, again, said = run(home, "ftai-log", given=out)
    assert (code, again, said) == (0, out, "")
    os.rename(home.path / "identity", home.path / "state/keys/identity")
    assert recall(home, "--after", "0")[0] == [rec]


def test_without_identity_all_goes_on_and_that_is_said_once(home):
    recs = [record.make("task", "test", body=f"walnut {n}", title=f"chore {n}", status="open", due=f"2026-11-2{n}") for n in range(5)]
    run(home, "ftai-log", given=b"".join(map(record.encode, recs)))
    os.rename(home.path / "state/keys/identity", home.path / "identity")
    for argv in (["ftai-recall", "chore"], ["ftai-recall", "--after", "0"], ["ftai-run", "what are my open tasks"], ["ftai-run", "chore 3 is finished"]):
        code, out, said = run(home, *argv)
        assert code == 0, said
        assert said.count("cannot open what is sealed") == 1, argv
        assert b"walnut" not in out
    assert run(home, "ftai-log", given=record.encode(record.make("message", "test", body="walnut")))[0] == 0
    code, out, said = run(home, "ftai-recall", "chore", "--quiet")
    assert (code, said) == (0, "")
    shown = run(home, "ftai-show", given=out)[1]
    assert shown.count(b"chore ") >= 4
    for end in ("", "-a", "-l"):
        assert b"[sealed:" not in run(home, "ftai-show", *([end] if end else []), given=out)[1]
    assert b"[sealed]" in run(home, "ftai-show", "-l", given=out)[1]


def test_skills_read_what_is_sealed(home):
    assert b"walnut" in run(home, "ftai-run", "remember that the walnut tree is old")[1]
    assert run(home, "ftai-run", "remind me to prune the walnut tree tomorrow")[0] == 0
    code, out, said = run(home, "ftai-run", "what are my open tasks", FTAI_CLEAR="none")
    assert (code, said) == (0, "")
    assert b"prune the walnut tree" in out
    assert b"walnut tree is old" in run(home, "ftai-run", "what did I say today")[1] + run(home, "ftai-run", "what did I work on today")[1]
    code, out, _ = run(home, "ftai-run", "prune the walnut tree is finished", FTAI_CLEAR="none")
    assert (code, out) == (0, b"Finished: prune the walnut tree.\n")
    assert b"walnut" not in run(home, "ftai-run", "what are my open tasks")[1]


def test_a_route_alone_finds_its_sealed_command(home):
    """The command stands in the archive only; what it holds is needed by who acts on the route."""
    command = run(home, "ftai-listen", "what time is it", "--privacy", "local")[1]
    made = orjson.loads(command) | {"tz": "Asia/Tokyo", "body": "walnut"}
    assert run(home, "ftai-log", given=record.encode(made))[0] == 0
    route = record.make("route", "test", parent=made, target="skill:time", reason="a test")
    code, out, said = run(home, "ftai-exec", given=record.encode(route))
    assert (code, said) == (0, "")
    assert orjson.loads(out.splitlines()[-1])["status"] == "done"


def test_a_destroyed_thread_is_unreadable_and_the_chain_true(home):
    recs = [record.make("message", "test", body=f"walnut {n}") for n in range(6)]
    run(home, "ftai-log", given=b"".join(map(record.encode, recs)))
    script = f"from serenamaster import seal; print(seal.destroy({recs[2]['thread']!r}))"
    assert run(home, sys.executable, "-c", script, PYTHONPATH=str(writers.ROOT / "lib"))[1] == b"1\n"
    assert not home.troubles()
    shown, said = recall(home, "--after", "0")
    assert shown[:2] + shown[3:] == recs[:2] + recs[3:]
    assert shown[2]["body"].startswith("[sealed:")
    assert said.count("was destroyed") == 1


def test_a_meddled_archive_shows_no_text(home):
    recs = [record.make("message", "test", body=f"walnut {n}", thread=f"t{n % 2}") for n in range(4)]
    run(home, "ftai-log", given=b"".join(map(record.encode, recs)))
    with sqlite3.connect(home.path / "state" / "archive.db") as db:
        lines = dict(db.execute("SELECT seq, line FROM records"))
        held = {seq: orjson.loads(line) for seq, line in lines.items()}
        db.execute("UPDATE records SET line = ? WHERE seq = 2", (orjson.dumps(held[2] | {"body": held[4]["body"]}).decode(),))
        db.execute("UPDATE records SET line = ? WHERE seq = 3", (orjson.dumps(held[3] | {"thread": "t1"}).decode(),))
    db.close()
    shown, said = recall(home, "--after", "0")
    assert [rec["body"] for rec in shown] == ["walnut 0", seal.DAMAGED, seal.DAMAGED, "walnut 3"]
    assert said.count("is damaged, or was moved there") == 1


def test_eight_writers_at_once(home, tmp_path):
    """Into the same new threads, each of them the first."""
    outs = []
    for n in range(8):
        recs = [record.make("message", "test", body=f"walnut {n} {k}", thread=f"t{k % 25}") for k in range(100)]
        random.Random(n).shuffle(recs)
        given = tmp_path / f"given{n}"
        given.write_bytes(b"".join(map(record.encode, recs)))
        outs.append((recs, given))
    running = [home.start(given, f"{given}.out") for _, given in outs]
    assert [process.wait(timeout=120) for process in running] == [0] * 8, [Path(f"{given}.out.err").read_text() for _, given in outs]
    assert not home.troubles()
    shown = {rec["id"]: rec for rec in recall(home, "--after", "0")[0]}
    assert shown == {rec["id"]: rec for recs, _ in outs for rec in recs}
    with sqlite3.connect(home.path / "state/keys" / seal.THREADS) as db:
        assert db.execute("SELECT count(*) FROM threads").fetchone() == (25,)
    db.close()


def test_of_a_record_that_grows_too_long_the_rest_is_kept(home):
    size = record.LIMIT * 7 // 8
    rec = record.make("message", "test", body="x" * size, note="walnut", blocks=[{"@tag": "slots", "what": "walnut"}])
    code, out, said = run(home, "ftai-log", given=record.encode(rec))
    assert (code, out) == (0, record.encode(rec))
    assert f"'{rec['id']}' is too long when it is encrypted" in said
    assert not home.troubles()
    ((_, held),) = journal.read(str(home.journal))
    assert held["body"] == f"[withheld:{size}]" and held["note"].startswith("[sealed:")
    (shown,), _ = recall(home, "--after", "0")
    assert shown == rec | {"body": held["body"]}
    assert run(home, "ftai-log", given=record.encode(rec))[0] == 0
    assert run(home, "ftai-log", given=record.encode(rec | {"body": "x" * (size - 1)}))[0] == 1
    assert len(list(journal.read(str(home.journal)))) == 2  # the second is the error about the conflict


# A stage that says so where it is told to, and goes on when a FIFO ends.
HELD = f"""
import os, runpy, sys
sys.path.insert(0, {str(writers.ROOT / "lib")!r})
from serenamaster import archive, journal, seal

came, go, where, stage, *sys.argv[1:] = sys.argv[1:]

def behind(module, name):
    function = getattr(module, name)
    def held(*args, **settings):
        made = function(*args, **settings)
        if os.path.exists(came):
            os.unlink(came)
            print("here", flush=True)
            open(go, "rb").read()
        return made
    setattr(module, name, held)

class Connection:
    def __init__(self, db):
        self.execute, self.close = db.execute, db.close

def connect(*args, function=archive.connect, **settings):
    db = function(*args, **settings)
    if sys._getframe(1).f_code.co_name == "_keys":
        db = Connection(db)
        behind(db, "close")
    return db

if where == "cover":
    behind(seal, "cover")
else:
    archive.connect = connect
sys.argv[0] = stage
runpy.run_path(os.path.join({str(writers.ROOT / "bin")!r}, stage), run_name="__main__")
"""


def held(home, tmp_path, where, stage, *argv):
    """A stage that waits at `where`, and a function that lets it go on and returns its status."""
    came, go = tmp_path / "came", tmp_path / "go"
    came.touch()
    os.mkfifo(go)
    command = [sys.executable, "-c", HELD, came, go, where, stage, *argv]
    process = subprocess.Popen(command, env=home.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    said = process.stdout.readline()
    assert said == b"here\n", (said, process.stderr.read())

    def release():
        go.write_bytes(b"")
        return process.communicate(timeout=60)[1].decode(), process.returncode

    return release


@pytest.mark.parametrize("where", ["cover", "keys"])
def test_what_is_written_while_a_thread_is_purged_can_be_opened(home, tmp_path, where):
    """A key is destroyed when a writer has sealed with it and not written yet; a record is written when a purge has seen that there is none."""
    first = record.make("message", "test", body="walnut")
    late = record.make("message", "test", body="hazelnut", thread=first["thread"])
    run(home, "ftai-log", given=record.encode(first))
    (tmp_path / "late").write_bytes(record.encode(late))
    command = "purge", "--thread", first["thread"], "--because", "customer asked"
    if where == "cover":
        release = held(home, tmp_path, where, "ftai-log", str(tmp_path / "late"))
        assert run(home, "ftai-archive", *command)[0] == 0
        assert not list(journal.read(str(home.journal)))[0][1].get("body")  # the first is gone
    else:
        release = held(home, tmp_path, where, "ftai-archive", *command)
        assert run(home, "ftai-log", str(tmp_path / "late"))[0] == 0
    said, code = release()
    assert code == 0, said
    assert [rec for rec in recall(home, "--after", "0")[0] if rec["@tag"] == "message"] == [late]
    assert not home.troubles()


def test_only_what_is_needed_is_readable_by_others(home):
    run(home, "ftai-log", given=record.encode(record.make("message", "test", body="walnut")))
    modes = {path.name: path.stat().st_mode & 0o777 for path in (home.path / "state/keys").iterdir()}
    assert set(modes) >= {"identity", "recipient", "threads.db"}
    assert set(modes.values()) == {0o600}
    (home.path / "state/keys").chmod(0o777)
    code, _, said = run(home, "ftai-log", given=record.encode(record.make("message", "test", body="walnut")))
    assert code == 77
    assert "writable by others" in said


def test_a_purged_thread_takes_its_key_along(home):
    recs = [record.make("message", "test", body=f"walnut {n}", title=f"hazelnut {n}") for n in range(3)]
    run(home, "ftai-log", given=b"".join(map(record.encode, recs)))
    thread = recs[1]["thread"]
    with sqlite3.connect(home.path / "state/keys" / seal.THREADS) as db:
        key = db.execute("SELECT locked FROM threads WHERE thread = ?", (thread,)).fetchone()[0]
    db.close()
    code, _, said = run(home, "ftai-archive", "purge", "--thread", thread, "--because", "customer asked")
    assert code == 0, said
    assert key[-64:] not in (home.path / "state/keys" / seal.THREADS).read_bytes()
    assert not traces(home, ["hazelnut 1"])
    assert not home.troubles()
    assert (
        subprocess.run(["sh", writers.ROOT / "tests/vectors/verify.sh", *sorted(home.journal.glob("*.ftai"))], capture_output=True, check=False).returncode == 0
    )
    assert [rec for rec in recall(home, "--after", "0")[0] if rec["@tag"] == "message"] == recs[::2]
