"""Purging: what is found, what is left of it anywhere, and what the journal, the archive and the certificate say afterwards."""

import errno
import os
import random
import re
import sqlite3
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import pytest
from serenamaster import archive, canonical, chain, journal, paths, purge, record, segments, verification
from serenamaster.errors import Failure

ROOT = Path(__file__).parents[2]
SCALE = int(os.environ.get("FTAI_TEST_SCALE", "1"))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FTAI_HOME", str(tmp_path / "ftai"))
    (tmp_path / "ftai").mkdir(mode=0o700)
    yield tmp_path / "ftai"
    archive._close() if archive._writer else None
    archive._caught.clear()
    journal._live.clear()


def put(*records):
    """Journals records, and takes them into the archive."""
    folder = paths.journal()
    made = [record.stamp(rec) for rec in records]
    assert [kind for kind, _, _ in journal.append(folder, made, stage="test")] == ["written"] * len(made)
    assert archive.catch_up(limit=None) is None
    return made


def note(body="x", **fields):
    return {"@tag": "note", "body": body, **fields}


def gone(because="somebody asked", **asked):
    return purge.run(purge.Asked(**asked), because, stage="test")


def held():
    return dict(journal.read(paths.journal()))


def rows():
    db = sqlite3.connect(paths.archive_db())
    found = db.execute("SELECT * FROM records ORDER BY seq").fetchall()
    db.close()
    return found


def sound():
    """The chain holds, for us and for the script of ftai(5), and the archive is what a rebuild makes."""
    summary, troubles = verification.verify(paths.journal())
    assert (troubles, summary.notes) == ([], [])
    folder = paths.journal()
    segments = [os.path.join(folder, name) for name in [*chain.closed(folder), chain.LIVE]]
    ran = subprocess.run(["sh", ROOT / "tests" / "vectors" / "verify.sh", *segments], capture_output=True, text=True, timeout=300, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert archive.catch_up(limit=None) is None
    before = rows()
    archive.rebuild()
    assert rows() == before
    return summary


def traces(folder, word: str) -> list[str]:
    """The files below a folder in which a word stands, in its bytes or in those of its other form; and their names."""
    forms = {unicodedata.normalize(form, word).encode() for form in ("NFC", "NFD")}
    found = []
    for place, _, names in os.walk(folder):
        for name in names:
            data = (Path(place) / name).read_bytes() + name.encode()
            if any(form in data for form in forms):
                found.append(os.path.join(place, name))
    return found


# ---- what is found ----


def test_by_id_and_by_thread():
    first, second, third = put(note("one"), note("two"), note("three"))
    put(note("four", thread=third["id"]))
    gone(ids=(first["id"],))
    assert [rec["@tag"] for rec in held().values()][:4] == ["tombstone", "note", "note", "note"]
    told = gone(threads=(third["id"],))
    assert [rec["@tag"] for rec in held().values()][:4] == ["tombstone", "note", "tombstone", "tombstone"]
    assert told[-1]["seqs"] == [[3, 4]]
    assert told[-1]["ids"] == [third["id"]]
    sound()


@pytest.mark.parametrize(
    ("asked", "left"),
    [
        ({"subject": "falcon PROJECT"}, ["weather"]),
        ({"subject": "falcon"}, ["weather"]),
        ({"subject": "falc"}, ["Project Falcon", "the falcon project", "weather"]),
        ({"pattern": "Falcon"}, ["the falcon project", "weather"]),
        ({"pattern": "/(?i)FALCON/"}, ["weather"]),
        ({"pattern": "/^the f/"}, ["Project Falcon", "weather"]),
        ({"subject": "falcon", "pattern": "Pro"}, ["the falcon project", "weather"]),
        ({"since": "2026-05-01T00:00:00.000Z"}, ["Project Falcon"]),
        ({"until": "2026-05-01T00:00:00.000Z"}, ["the falcon project", "weather"]),
        ({"since": "2026-05-01T00:00:00.000Z", "until": "2026-06-01T00:00:00.000Z"}, ["Project Falcon", "weather"]),
    ],
)
def test_what_fits_goes(asked, left):
    put(
        note("Project Falcon", ts="2026-04-30T23:59:59.999Z"),
        note("the falcon project", ts="2026-05-01T02:00:00+02:00"),
        note("weather", ts="2026-06-01T00:00:00.000Z"),
    )
    gone(**asked)
    assert [rec["body"] for rec in held().values() if "body" in rec] == left
    sound()


@pytest.mark.parametrize("asked", [{}, {"pattern": ""}, {"subject": " "}, {"ids": ("",)}, {"threads": ("x", "")}])
def test_what_is_empty_is_not_left_out(asked):
    put(note("one"))
    for more in {}, {"since": "2026-01-01T00:00:00.000Z"}:
        if asked or not more:
            with pytest.raises(Failure) as bad:
                gone(**asked, **more)
            assert bad.value.code == 2
    assert len(held()) == 1


@pytest.mark.parametrize("asked", [{}, {"pattern": "/(/"}, {"subject": "?!"}, {"pattern": "customer"}, {"subject": "CUSTOMER"}, {"pattern": "/c.st/"}])
def test_what_cannot_be_asked(asked):
    put(note("one customer"))
    with pytest.raises(Failure) as bad:
        gone("a customer asked", **asked)
    assert bad.value.code == 2
    assert len(held()) == 1


ESCAPED = ["cold\nice", "cold\tice", "cold\rice", "cold \\nice", 'cold"ice']


@pytest.mark.parametrize("asked", [{"pattern": word} for word in ("nice", "tice", "rice", "d\\", '\\"', "\\t")] + [{"subject": "nice"}, {"subject": "tice"}])
def test_what_is_stored_with_escapes_is_not_what_it_says(asked):
    put(*[note(body) for body in ESCAPED], {"@tag": "note", "@head": "cold\nice", "@blocks": [{"@tag": "slots", "what": ["cold\tice"]}]})
    before = [rec.get("body") for rec in held().values()]
    gone(**asked)
    # A backslash and an n are what one of them says.
    left = [body for body in before if not (body == "cold \\nice" and asked in ({"pattern": "nice"}, {"subject": "nice"}))]
    assert [rec.get("body") for rec in held().values() if rec["@tag"] == "note"] == left
    sound()


@pytest.mark.parametrize(
    ("body", "pattern"),
    [("cold\nice", "cold\nice"), ("a\tb", "\t"), ('say "x"', '"x"'), ("C:\\new", ":\\n"), ("it is 20 \u212a", "0 K"), ("a\u037eb", "a;b")]
    + [("x", words) for words in ('body: "x"', "@note", "deep: true", "1.5", "/^true$/")],
)
def test_what_is_stored_with_escapes_is_found(body, pattern):
    put(note(body, deep=True, n=1.5), {"@tag": "task", "title": "stays"})
    assert gone(pattern=pattern)[-1]["records"] == 1
    assert [rec["@tag"] for rec in held().values()][:2] == ["tombstone", "task"]


def test_nothing_found_leaves_nothing_behind():
    put(note("one"))
    told = gone(pattern="two")
    assert [(rec["@tag"], rec["records"]) for rec in told] == [("report", 0)]
    assert len(held()) == 1
    assert chain.closed(paths.journal()) == []


def test_dry_run_changes_nothing(home):
    put(note("one"), note("two"))
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in home.rglob("*.ftai")}
    told = purge.run(purge.Asked(pattern="two"), "", stage="test", dry_run=True)
    assert told[0]["would"] == ["close current.ftai", "rewrite current.ftai", "clean the archive"]
    assert told[0]["records"] == 1
    assert "two" not in str(told)
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in home.rglob("*.ftai")} == before


def test_no_reason_holds_nothing():
    put(note("a"), note(""))
    assert purge.run(purge.Asked(pattern="/^$/"), stage="test", dry_run=True)[0]["records"] == 1


def test_who_says_no_keeps_all():
    put(note("one"))
    asked = []
    with pytest.raises(Failure, match="nothing was purged"):
        purge.run(purge.Asked(pattern="one"), "why", stage="test", agreed=lambda count: asked.append(count))
    assert asked == [1]
    assert len(held()) == 1


# ---- what is left ----

LONG = 1024 * 1024 + 1


def planted(word: str) -> dict[str, dict]:
    """Records that hold a word, each in its own way: {way: record}."""
    return {
        "plain": note(f"it is {word} here"),
        "first": note(f"{word} here"),
        "last": note(f"here is {word}"),
        "alone": note(word),
        "line": note(f"a\n{word}\nb"),
        "quoted": note(f'say "{word}"'),
        "backslash": note(f"C:\\{word}\\x"),
        "tab": note(f"a\t{word}"),
        "glued": note(f"xx{word}yy"),
        "field": note("x", subject=word),
        "name": note("x", **{f"x_{word}" if re.fullmatch("[A-Za-z0-9]+", word) else "subject": word}),
        "list": note("x", tags=["a", word]),
        "deep list": note("x", tags=["a", ["b", ["c", word]]]),
        "block": note("x", **{"@blocks": [{"@tag": "slots", "what": word}]}),
        "deep block": note("x", **{"@blocks": [{"@tag": "a", "@blocks": [{"@tag": "b", "@blocks": [{"@tag": "c", "what": word}]}]}]}),
        "head": {"@tag": "document", "@head": word},
        "text": {"@tag": "note", "@text": f"free\n{word} text"},
        "narrative": {"@text": f"Narrative {word}"},
        "thread": note("x", thread=f"thread {word}"),
        "parent": note("x", parent=word),
        "ref": note("x", id=f"T-{word}"),
        "sample": {"@tag": "error", "class": "input", "message": "no", "sample": f"{{{word}"},
        "title": {"@tag": "task", "title": f"call {word}"},
        "update": {"@tag": "task", "updates": record.new_id(), "title": word},
        "path": {"@tag": "file", "op": "read", "path": f"/nowhere/{word}.txt"},
        "audit": {"@tag": "audit", "act": "close", "subject": word},
        "forged": {"@tag": "audit", "act": "purge", "subject": "x", "because": "x", "body": word},
        "checkpoint": {"@tag": "checkpoint", "because": "x", "note": word},
        "long": note("lorem ipsum " * (LONG // 12) + word + " dolor sit" * (LONG // 10)),
        "tombstone": {"@tag": "tombstone", "body": word},
    }


WORDS = ["geheim4711", "Zürich-Grüße", "机密项目", "Z\u0075\u0308rich", "two words", 'a"b\\c', "naïve café"][: 7 if SCALE > 1 else 2]


@pytest.mark.parametrize("word", WORDS)
def test_no_trace_is_left(home, word, capfd):
    ways = planted(word)
    for part in range(0, len(ways), 7):
        put(*list(ways.values())[part : part + 7], note("stays"))
    db = sqlite3.connect(paths.archive_db(), isolation_level=None)
    db.execute("ANALYZE")
    # Free pages, and a WAL that was not emptied.
    db.execute("CREATE TABLE free AS SELECT line || ? AS line FROM records", (word,))
    db.execute("DROP TABLE free")
    db.close()
    state = home / "state"
    (state / "journal" / ".torn").write_text(f"// torn\n{word}\n")
    (state / "journal" / ".new").write_text(word)
    (state / "archive.db.new").write_text(word)
    (state / "bugs").mkdir(mode=0o700)
    (state / "bugs" / "ftai-exec-x.txt").write_text(word)
    (state / ".file.999999999.tmp").write_text(word)
    (home / "cache" / "specs").mkdir(mode=0o700, parents=True)
    (home / "cache" / "specs" / "x.json").write_text(word)
    answer = home / "data" / "answers" / f"{record.new_id()}.txt"
    answer.parent.mkdir(mode=0o700, parents=True)
    answer.write_text("z" * LONG + word)
    put({"@tag": "result", "status": "done", "body": f"The answer has 9 bytes and is in '{answer}'."})
    expected = len(ways) + 1
    assert len(traces(home, word)) >= 8, "it was not planted where it should be"
    told = gone(pattern=word)
    assert told[-1]["records"] == expected, [rec for rec in held().values() if rec["@tag"] not in ("tombstone", "audit")]
    assert traces(home, word) == []
    assert word not in str(told) + "".join(capfd.readouterr())
    assert [rec["body"] for rec in held().values() if "body" in rec] == ["stays"] * -(-len(ways) // 7)
    sound()
    assert traces(home, word) == []


def test_control_that_only_deletes_leaves_traces(home):
    """What a plain DELETE leaves is what the test above looks for."""
    put(*[note(f"geheim4711 {n} " + "x" * 200) for n in range(200)])
    db = sqlite3.connect(paths.archive_db(), isolation_level=None)
    db.execute("DELETE FROM records")
    db.close()
    assert any(name.endswith(("archive.db", "archive.db-wal")) for name in traces(home, "geheim4711"))


def test_by_thread_no_word_of_it_is_left(home):
    dice = random.Random(1)
    words = ["".join(dice.choices("abcdefghijklmnop", k=12)) for _ in range(30)]
    first = put(note(words[0]))[0]
    put(*[note(f"other {n}") for n in range(50)], *[note(word, thread=first["id"]) for word in words[1:]])
    told = gone(threads=(first["id"],))
    assert told[-1]["records"] == 30
    assert [word for word in words if traces(home, word)] == []
    sound()


def test_damage_goes_too(home):
    put(note("one"), note("geheim4711"), note("three"), note("four"))
    live = Path(paths.journal()) / chain.LIVE
    data = live.read_bytes()
    # A record that is not what the chain says, and one without a chain.
    live.write_bytes(data.replace(b'"geheim4711"', b'"geheim4711 x"') + b'\n@note\n  body: "geheim4711"\n@end\n')
    journal._live.clear()
    put(note("five"))
    assert len(verification.verify(paths.journal())[1]) == 2
    told = gone(pattern="geheim4711")
    assert (told[-1]["records"], told[-1]["damage"]) == (1, 1)
    assert traces(home, "geheim4711") == []
    assert [trouble.seq for trouble in verification.verify(paths.journal())[1]] == [2], "the record that was wrong is wrong"
    assert [rec["body"] for rec in held().values() if "body" in rec] == ["one", "three", "four", "five"]


def test_files_of_skills_are_named_and_stay(home, tmp_path):
    written = tmp_path / "note.txt"
    written.write_text("a note")
    secret = tmp_path / "geheim4711.txt"
    secret.write_text("a note")
    put({"@tag": "file", "op": "write", "path": str(written), "body": "geheim4711"}, {"@tag": "file", "op": "write", "path": str(secret)})
    told = gone(pattern="geheim4711")[-1]
    assert told["files"] == [str(written)]
    assert told["hidden"] == 1
    assert written.exists() and secret.exists()
    assert traces(home, "geheim4711") == []


@pytest.mark.parametrize("asked", [{"pattern": "geheim4711"}, {"subject": "geheim4711"}, {"since": "2026-01-01T00:00:00.000Z"}])
def test_no_name_of_what_was_removed_holds_it(home, asked):
    put(note("geheim4711"))
    for name in ("data/notes/.geheim4711-list.txt.999999999.tmp", "state/bugs/ftai-exec-x.txt"):
        (home / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        (home / name).write_text("x")
    assert gone(**asked)[-1]["removed"] == [str(home / "state/bugs/ftai-exec-x.txt")]
    assert traces(home, "geheim4711") == []


def test_by_thread_no_path_of_it_is_left(home, tmp_path):
    written = tmp_path / "geheim4711.txt"
    written.write_text("a note")
    first = put({"@tag": "file", "op": "write", "path": str(written)})[0]
    told = gone(threads=(first["thread"],))[-1]
    assert (told.get("files"), told["hidden"]) == (None, 1)
    assert traces(home, "geheim4711") == []


def test_proof_that_holds_it_is_told_where_nothing_else_does():
    put(note("x"))
    gone("the geheim thing", ids=(held()[1]["id"],))
    assert gone("again", pattern="geheim")[-1]["kept"] == 2


def test_proof_stays():
    put(note("geheim"))
    gone("the geheim thing", ids=(held()[1]["id"],))
    told = gone("again", pattern="geheim")
    assert told[0]["records"] == 0
    put(note("geheim 2"))
    told = gone("again", pattern="geheim")
    assert told[-1]["kept"] == 2
    sound()


# ---- afterwards ----


def test_the_certificate_tells(home):
    put(*[note(f"a {n}") for n in range(5)])
    intent, told = gone(pattern="a 3")
    stored = {rec["id"]: rec for rec in held().values() if "id" in rec}
    assert stored[told["id"]]["seqs"] == told["seqs"] == [[4, 4]]
    assert told["about"] == intent["id"]
    assert (told["segments"], told["records"], told["outcome"], told["because"]) == (["000001.ftai"], 1, "done", "somebody asked")
    before = held()[told["last"]]
    assert before["@blocks"][-1]["hash"] == told["hash"]
    named = held()[told["named"][0]]
    assert named["purged"][0].startswith("4 ")
    kinds = [rec["@tag"] for rec in held().values()]
    assert kinds == ["note", "note", "note", "tombstone", "note", "audit", "checkpoint", "audit", "report"]


def test_many_are_named_in_several_records(monkeypatch):
    monkeypatch.setattr(purge, "NAMES", 10)
    put(*[note(f"a {n}") for n in range(35)])
    told = gone(pattern="a ")[-1]
    assert (told["records"], told["seqs"]) == (35, [[1, 35]])
    assert told["named"][1] - told["named"][0] == 3
    sound()


def test_a_record_of_names_is_below_a_mebibyte():
    words = [f"{10**9 + n} {'a' * 64}" for n in range(purge.NAMES)]
    assert len(canonical.prepare(record.make("audit", "test", act="purge", purged=words))[1]) < 1024 * 1024


def test_cursors_and_followers_go_on(home):
    put(*[note(f"a {n}") for n in range(10)])
    folder = paths.journal()
    cursor = journal.Cursor(str(home / "cursors"), "x")
    cursor.save(4, held()[4]["@blocks"][-1]["hash"])
    gone(pattern="/a [2345]$/")
    told = []

    class End(Exception):
        pass

    def wait():
        raise End

    seen = []
    with pytest.raises(End):
        for fresh in journal.follow(folder, cursor.seq, wait, digest=cursor.hash, warn=told.append):
            seen += [seq for seq, _ in fresh]
    assert seen == list(range(5, 15))
    assert told == []


def test_who_catches_up_later_sees_rewritten_segments(home):
    put(note("one"), note("geheim4711"), note("three"))
    data = Path(paths.archive_db()).read_bytes()
    archive._close()
    gone(pattern="geheim4711")
    # An archive that comes back from a backup.
    archive._close()
    for path in home.rglob("archive.db*"):
        path.unlink()
    Path(paths.archive_db()).write_bytes(data)
    os.chmod(paths.archive_db(), 0o600)
    archive._caught.clear()
    assert archive.catch_up(limit=None) is None
    assert [row[5] for row in rows()] == ["note", "tombstone", "note", "audit", "checkpoint", "audit", "report"]
    db = archive.connect()
    assert archive.search(db, "geheim4711") == []
    assert len(archive.search(db, "three")) == 1
    db.close()


def test_who_catches_up_in_the_middle_does_no_harm(home, monkeypatch):
    put(note("one"), note("geheim4711"))
    bury = segments.bury

    def late(*args):
        assert archive.catch_up(limit=None) is None
        bury(*args)

    monkeypatch.setattr(segments, "bury", late)
    # The archive is right before anything more is written.
    tags = []
    purge.run(purge.Asked(pattern="geheim4711"), "x", stage="test", clean=lambda fits: tags.extend(row[5] for row in rows()))
    assert tags == ["note", "tombstone", "audit", "checkpoint", "audit"]
    assert traces(home, "geheim4711") == []
    sound()


def test_a_damaged_archive_is_made_again(home):
    put(note("one"), note("geheim4711"))
    archive._close()
    Path(paths.archive_db()).write_bytes(b"geheim4711" * 9999)
    gone(pattern="geheim4711")
    assert traces(home, "geheim4711") == []
    sound()


def test_records_that_come_back_from_a_backup_go_again(home):
    put(note("one"), note("geheim4711"))
    put(note("three"))
    segments.close(paths.journal(), 1, stage="test")
    segment = Path(paths.journal()) / "000001.ftai"
    data = segment.read_bytes()
    gone(pattern="geheim4711")
    segment.write_bytes(data)
    found = verification.verify(paths.journal())[1]
    assert [(trouble.seq, trouble.id) for trouble in found] == [(2, re.findall(rb'id: "([^"]*)"', data)[1].decode())]
    assert "it stands: ftai-archive purge --finish" in found[0].message
    told = purge.run(None, stage="test")
    assert told[-1]["seqs"] == [[2, 2]]
    assert traces(home, "geheim4711") == []
    sound()


def test_a_name_that_fits_no_record_is_nothing():
    put(note("one"), {"@tag": "audit", "act": "purge", "purged": ["1 " + "a" * 64, "x", 7, "99 " + "b" * 64]})
    sound()
    assert purge.run(None, stage="test")[0]["records"] == 0


def test_an_end_before_the_names_is_told():
    put(note("one"), record.make("audit", "test", act="purge", subject="journal", who="me", outcome="intended", because="y", asked=["pattern"], records=3))
    assert "seq 2 is under way or was interrupted" in verification.verify(paths.journal())[0].notes[0]
    told = purge.run(None, stage="test")[-1]
    assert (told["outcome"], told["records"]) == ("incomplete", 0)
    sound()


def test_a_purge_under_way_is_75(monkeypatch):
    put(note("one"))
    monkeypatch.setattr(purge, "WAIT", 0.05)
    with purge._alone(paths.journal()), pytest.raises(Failure) as bad:
        gone(pattern="one")
    assert bad.value.code == 75


def test_a_reader_in_a_snapshot_is_75_and_the_next_one_ends_it(home, monkeypatch):
    put(note("one"), note("geheim4711"))
    reader = sqlite3.connect(paths.archive_db(), isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM records").fetchone()
    monkeypatch.setattr(archive, "PATIENCE", 50)
    with pytest.raises(Failure) as bad:
        gone(pattern="geheim4711")
    assert bad.value.code == 75
    assert "was interrupted" in verification.verify(paths.journal())[0].notes[0]
    reader.close()
    told = gone(pattern="nothing else")
    assert told[-1]["outcome"] == "done"
    assert traces(home, "geheim4711") == []
    sound()


def test_what_another_writer_purged_is_no_repeat(monkeypatch):
    folder = paths.journal()
    put(note())
    writer = dict(journal._live)
    journal._live.clear()
    (one,) = put(note("secret"))
    segments.rotate(folder, stage="test")
    other = dict(journal._live)
    # The archive was behind, so the writer looked into the closed segment itself.
    monkeypatch.setattr(journal, "_live", writer)
    assert journal.append(folder, [one], stage="test", known=(1, {})) == [("repeat", 2, None)]
    monkeypatch.setattr(journal, "_live", other)
    gone(pattern="secret")
    monkeypatch.setattr(journal, "_live", writer)
    assert journal.append(folder, [one], stage="test", known=archive.lookup([one["id"]]))[0][0] == "written"
    assert one["id"] in {rec.get("id") for rec in held().values()}


@pytest.mark.parametrize("closing", [False, True])
def test_names_that_could_not_be_synced_name_nothing(monkeypatch, closing):
    one, _ = put(note("secret"), note())
    segments.rotate(paths.journal(), stage="test")
    put(note())
    enter = journal.enter

    def broken(fd):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch, pytest.raises(Failure):
        patch.setattr(journal, "enter", lambda *given, **settings: (patch.setattr(chain, "sync", broken), enter(*given, **settings))[1])
        gone(pattern="secret")
    if closing:  # by a writer that was killed behind the first step
        path = chain.live(paths.journal()).path
        with open(path, "rb") as live:
            number = chain.head(live.read(chain.WINDOW)).number
        os.link(path, f"{paths.journal()}/{number:06d}.ftai")
    purge.run(None, stage="test")
    # They stand as damage behind what counts: with them in its place, nobody would name the tombstone.
    troubles = verification.accept(paths.journal())
    assert [trouble.damage != "" for trouble in troubles] == [True] and one["id"] in {rec.get("id") for rec in held().values()}
    gone(pattern="secret")
    assert not verification.verify(paths.journal())[1] and one["id"] not in {rec.get("id") for rec in held().values()}


def test_who_writes_meanwhile_loses_nothing(home, tmp_path):
    """Four writers and a reader; a purge in between, again and again."""
    put(*[note(f"geheim4711 {n}") for n in range(300 * SCALE)])
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{ROOT}/bin:{os.environ['PATH']}"}
    # They go on until there was more than one purge.
    script = 'for ((i = 1; i <= %d || $(test -e enough; echo $?); i++)); do echo "{\\"@tag\\":\\"note\\",\\"body\\":\\"w%d $i\\"}"; sleep 0.01; done'
    writing = [f"{script % (60 * SCALE, n)} | tee {n}.in | ftai-log >{n}.out" for n in range(4)]
    running = [subprocess.Popen(["bash", "-c", words], env=env, cwd=tmp_path) for words in writing]
    with open(tmp_path / "reader", "wb") as out:
        reader = subprocess.Popen(["ftai-log", "--follow", "--cursor", "all"], stdout=out, env=env)
    turn = 0
    while any(one.poll() is None for one in running):
        gone(pattern=f"/^geheim4711 {turn}$/" if turn < 300 * SCALE - 1 else "/never/")
        turn += 1
        if turn == 3:
            (tmp_path / "enough").touch()
    assert [one.wait() for one in running] == [0] * 4
    assert turn >= 3
    gone(pattern="geheim4711")
    last = journal.position(paths.journal())
    until = time.monotonic() + 300
    while time.monotonic() < until and f'"seq":{last},'.encode() not in (tmp_path / "reader").read_bytes():
        time.sleep(0.05)
    reader.terminate()
    reader.wait()
    passed = [record.decode(line) for n in range(4) for line in (tmp_path / f"{n}.out").read_bytes().splitlines()]
    given = [record.decode(line) for n in range(4) for line in (tmp_path / f"{n}.in").read_bytes().splitlines()]
    assert [rec["body"] for rec in passed] == [rec["body"] for rec in given] and len(given) >= 4 * 60 * SCALE
    bodies = {rec["id"]: rec["body"] for rec in held().values() if rec["@tag"] == "note"}
    assert bodies == {rec["id"]: rec["body"] for rec in passed}
    seen = [record.decode(line)["@blocks"][-1]["seq"] for line in (tmp_path / "reader").read_bytes().splitlines()]
    assert seen == list(range(1, last + 1))
    assert traces(home, "geheim4711") == []
    sound()


# ---- what is swept ----

OURS = ["state", "state/journal", "state/bugs", "cache", "data", "data/answers"]


def precious(tmp_path):
    """A folder of somebody's, with all that would be swept in ours."""
    folder = tmp_path / "precious"
    folder.mkdir(mode=0o700)
    for name in ("thesis.txt", ".thesis.txt.999999999.tmp", f"{record.new_id()}.txt", "sub.txt"):
        (folder / name).write_text("geheim4711")
    return folder


@pytest.mark.parametrize("place", OURS)
def test_a_folder_that_is_a_link_is_refused(home, tmp_path, place):
    folder = precious(tmp_path)
    link = home / place
    if place not in ("state", "state/journal"):
        put(note("geheim4711"))
        link.parent.mkdir(mode=0o700, exist_ok=True)
    else:
        link.parent.mkdir(mode=0o700, exist_ok=True)
    link.symlink_to(folder)
    before = sorted(os.listdir(folder))
    with pytest.raises(Failure, match="is a link") as bad:
        gone(pattern="geheim4711")
    assert bad.value.code == 77
    assert sorted(os.listdir(folder)) == before
    link.unlink()
    assert "tombstone" not in [rec["@tag"] for rec in held().values()]


@pytest.mark.parametrize("place", OURS)
def test_a_folder_that_others_may_write_to_is_refused(home, place):
    put(note("geheim4711"))
    folder = home / place
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o777)
    with pytest.raises(Failure, match="writable by others") as bad:
        gone(pattern="geheim4711")
    assert bad.value.code == 77
    folder.chmod(0o700)
    assert [rec["@tag"] for rec in held().values()] == ["note"]


def test_links_and_open_folders_below_are_left_and_named(home, tmp_path):
    folder = precious(tmp_path)
    put(note("geheim4711"))
    for place in ("state/bugs", "cache/specs", "data/open"):
        (home / place).mkdir(mode=0o700, parents=True, exist_ok=True)
    (home / "cache" / "link").symlink_to(folder)
    (home / "state" / "bugs" / "link").symlink_to(folder)
    (home / "data" / "notes").symlink_to(folder)
    (home / "data" / "open").chmod(0o777)
    (home / "data" / "open" / ".a.999999999.tmp").write_text("x")
    told = gone(pattern="geheim4711")[-1]
    assert len(os.listdir(folder)) == 4
    assert (told["outcome"], told["unreached"]) == ("done", [str(home / "data" / "notes"), str(home / "data" / "open")])
    assert told["removed"] == [str(home / "state" / "bugs" / "link")]
    assert not (home / "cache" / "link").is_symlink()
    assert (home / "data" / "open" / ".a.999999999.tmp").exists()


def test_a_folder_among_the_bugs_stops_no_purge(home):
    put(note("geheim4711"))
    (home / "state" / "bugs" / "sub").mkdir(mode=0o700, parents=True)
    (home / "state" / "bugs" / "sub" / "x").write_text("geheim4711")
    assert gone(pattern="geheim4711")[-1]["outcome"] == "done"
    assert traces(home, "geheim4711") == []


def test_what_no_record_holds_is_swept_too(home):
    put(note("x"))
    (home / "state" / "bugs").mkdir(mode=0o700)
    (home / "state" / "bugs" / "x").write_text("geheim4711")
    (home / "state" / "journal" / ".torn").write_text("geheim4711")
    answers = home / "data" / "answers"
    answers.mkdir(mode=0o700, parents=True)
    orphan, other = (answers / f"{record.new_id()}.txt" for _ in range(2))
    orphan.write_text("geheim4711")
    other.write_text("x")
    told = gone(pattern="geheim4711")
    assert traces(home, "geheim4711") == []
    assert [(rec["@tag"], rec["records"], rec["removed"], rec["because"]) for rec in told] == [
        ("report", 0, [str(home / "state" / "bugs" / "x"), str(orphan)], "somebody asked")
    ]
    assert [rec["@tag"] for rec in held().values()] == ["note", "report"]
    assert other.exists()
    sound()


def test_answers_of_other_threads_stay(home):
    answers = home / "data" / "answers"
    answers.mkdir(mode=0o700, parents=True)
    mine, other = (answers / f"{record.new_id()}.txt" for _ in range(2))
    mine.write_text("geheim4711")
    other.write_text("geheim4711")
    first, _ = put(note(f"in '{mine}'"), note(f"in '{other}'"))
    gone(threads=(first["thread"],), pattern="geheim4711")
    assert (mine.exists(), other.exists()) == (False, True)


@pytest.mark.parametrize("new", [b"x", b"0"])
def test_no_row_is_left_of_what_is_damaged(home, new):
    put(note("first"), note("geheim4711"), note("last"))
    live = Path(paths.journal()) / chain.LIVE
    data = live.read_bytes()
    at = data.index(b' hash: "', data.index(b"geheim4711")) + 8
    live.write_bytes(data[:at] + new * 64 + data[at + 64 :])
    journal._live.clear()
    assert gone(pattern="geheim4711")[-1]["outcome"] == "done"
    assert traces(home, "geheim4711") == []


@pytest.mark.parametrize("step", ["bury", "purge"])
def test_dry_run_tells_what_was_interrupted(monkeypatch, step):
    put(note("geheim4711"), note("x"))
    with monkeypatch.context() as cut, pytest.raises(KeyboardInterrupt):
        cut.setattr({"bury": segments, "purge": archive}[step], step, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        gone(pattern="geheim4711")
    told = purge.run(None, stage="test", dry_run=True)[0]
    rewrite = ["rewrite 000001.ftai"] * (step == "bury")
    assert (told["would"], told["records"]) == ([*rewrite, "clean the archive"], len(rewrite))
    assert purge.run(None, stage="test")[-1]["records"] == 1
    assert purge.run(None, stage="test", dry_run=True)[0]["would"] == []


def test_an_interrupted_purge_ends_with_the_key_of_a_thread_of_any_name(home, monkeypatch):
    monkeypatch.setenv("FTAI_ENCRYPT", "local")
    put(note("x", thread="weird-geheim4711", privacy="local"), note("y", thread="other", privacy="local"))
    keys = lambda: [name for (name,) in sqlite3.connect(home / "state" / "keys" / "threads.db").execute("SELECT thread FROM threads ORDER BY 1")]  # noqa: E731
    assert keys() == ["other", "weird-geheim4711"]
    with monkeypatch.context() as cut, pytest.raises(KeyboardInterrupt):
        cut.setattr(archive, "purge", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        gone(threads=("weird-geheim4711",))
    assert purge.run(None, stage="test")[-1]["keys"] == 1
    assert [name for name in keys() if "geheim" in name] == []
    assert "other" in keys()
    assert traces(home, "geheim4711") == []


@pytest.mark.parametrize("room", [True, False])
def test_a_full_disk_keeps_no_text_in_the_archive(home, monkeypatch, room):
    put(note("geheim4711"), *[note(f"{n} " + "x" * 3000) for n in range(100)])
    db = archive._writer["db"]
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    # So SQLite tells of a full disk: it may not make the file any longer.
    db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0]}")
    opened = os.open

    def full(path, *rest, **more):
        if str(path).endswith("archive.db.new"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return opened(path, *rest, **more)

    if not room:
        monkeypatch.setattr(os, "open", full)
    assert gone(pattern="geheim4711")[-1]["outcome"] == "done"
    assert traces(home, "geheim4711") == []
    monkeypatch.setattr(os, "open", opened)
    sound()


@pytest.mark.parametrize("fields", [{"purged": True}, {"purged": True, "note": "x"}, {"asked": ["id"]}, {"about": "x", "hash": "x", "@tag": "report"}])
def test_a_proof_from_elsewhere_is_not_believed(fields):
    first = put(note("one"), note("two"))[0]
    content = canonical.prepare(first)[1]
    salt = re.search(rb'salt: "([0-9a-f]{32})"', (Path(paths.journal()) / chain.LIVE).read_bytes())[1]
    from hashlib import sha256

    named = {"purged": ["1 " + sha256(salt + content).hexdigest()]} if "purged" in fields else {}
    forged = {"@tag": "audit", "act": "purge", "subject": "journal", "who": "me", "outcome": "intended", **fields, **named}
    _, _, reason = journal.take(paths.journal(), [(forged, record.encode(forged))], stage="test")[0]
    assert ("note" in fields) == (reason == ""), reason
    seen, troubles = verification.verify(paths.journal())
    assert (seen.notes, troubles) == ([], [])
    assert purge.run(None, stage="test")[0]["records"] == 0
    assert [rec["body"] for rec in held().values() if rec["@tag"] == "note"] == ["one", "two"]


def test_a_proof_that_comes_back_is_a_repeat():
    put(note("one"), note("geheim4711"))
    told = gone(pattern="geheim4711")
    archive.catch_up(limit=None)
    known = archive.lookup([rec["id"] for rec in told])
    taken = journal.take(paths.journal(), [(rec, record.encode(rec)) for rec in told], stage="test", known=known)
    assert [reason for _, _, reason in taken] == [""] * len(told)
    sound()


@pytest.mark.parametrize(
    "rec",
    [
        {"@tag": "checkpoint", "because": "geheim4711"},
        {"@tag": "checkpoint", "segment": 1, "last": 1, "hash": "a" * 64, "because": "a purge", "from": "geheim4711"},
        {"@tag": "audit", "act": "purge", "who": "geheim4711"},
        {"@tag": "audit", "act": "purge", "about": "geheim4711"},
        {"@tag": "audit", "act": "purge", "purged": ["geheim4711"]},
        {"@tag": "report", "act": "purge", "because": "geheim4711"},
        {"@tag": "report", "act": "purge", "because": "geheim4711", "hash": "x", "purged": 7},
    ],
)
def test_what_only_looks_like_a_proof_can_be_purged(home, rec):
    assert journal.take(paths.journal(), [(rec, record.encode(rec))], stage="test")[0][2] == ""
    archive.catch_up(limit=None)
    gone(pattern="geheim4711")
    assert traces(home, "geheim4711") == []
    sound()


def test_the_certificate_of_purged_damage_ends_its_purge():
    put(note("one"), note("geheim4711"))
    segment = Path(paths.journal()) / chain.LIVE
    segment.write_bytes(segment.read_bytes().replace(b'hash: "', b'hash: x"', 9))
    journal._live.clear()
    put(note("three"))
    told = gone(pattern="geheim4711")
    assert told[-1].get("damage", 0) >= 1
    assert verification.verify(paths.journal())[0].notes == []


def test_specs_that_went_are_journaled_once_more(home):
    put({"@tag": "specs", "digest": "0123abcd", "body": "x"})
    mark = home / "state" / "specs" / "0123abcd"
    assert mark.exists()
    told = gone(since="2000-01-01T00:00:00.000Z")[-1]
    assert (told["records"], told.get("removed")) == (1, None)
    assert not mark.exists()
