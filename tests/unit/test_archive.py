"""The archive is what the journal says, whatever happens to it, and finds what people look for."""

import fcntl
import os
import sqlite3
import subprocess
import sys

import pytest
import strategies
from hypothesis import given, settings
from hypothesis import strategies as st
from serenamaster import archive, chain, journal, paths, record, specs, text
from serenamaster.errors import Failure

LIB = os.path.dirname(os.path.dirname(archive.__file__))


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home; the archive's connections of the last one are forgotten."""
    monkeypatch.setenv("FTAI_HOME", str(tmp_path))
    yield tmp_path
    forget()


def forget():
    archive._writer.clear()
    archive._caught.clear()
    archive._desk.clear()


def put(*records):
    """Journals records and returns their seqs."""
    return [seq for _, seq, _ in journal.append(paths.journal(), list(records), stage="test")]


def note(body, **fields):
    return record.make("note", "test", body=body, **fields)


def rows(path=None):
    """All that the archive holds: its rows, and each word of its index with its place."""
    db = sqlite3.connect(path or paths.archive_db(), isolation_level=None)
    try:
        db.execute("CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab (main, words, instance)")
        db.execute("INSERT INTO words (words, rank) VALUES ('integrity-check', 1)")
        return [
            db.execute("SELECT * FROM records ORDER BY seq").fetchall(),
            db.execute("SELECT term, doc, col, offset FROM temp.vocabulary ORDER BY 1, 2, 3, 4").fetchall(),
        ]
    finally:
        db.close()


def expected():
    """The rows that the journal asks for."""
    return [archive._row(seq, rec) for seq, rec in journal.read(paths.journal())]


def seqs(words, **more):
    db = archive.connect(pytest.fail)
    try:
        return [seq for seq, _ in archive.search(db, words, **more)]
    finally:
        db.close()


def child(code, **environment):
    return subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": LIB} | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


# -- Taking in --


def test_rows_are_numbered_by_seq(home):
    put(note("one"), note("two"))
    assert archive.catch_up() is None
    put(note("three"))
    assert archive.catch_up() is None
    assert rows()[0] == expected()
    assert [row[0] for row in rows()[0]] == [1, 2, 3]


def test_a_rebuild_gives_what_many_steps_gave(home, monkeypatch):
    monkeypatch.setattr(archive, "BATCH", 7)
    for number in range(30):
        put(*(note(f"batch {number} record {n} Zürich 東京", thread=f"t{n % 3}") for n in range(number % 5 + 1)))
        assert archive.catch_up() is None
    before = rows()
    assert archive.rebuild() == (len(before[0]), len(before[0]))
    assert rows() == before


@settings(max_examples=30)
@given(st.lists(strategies.tagged, min_size=1, max_size=5))
def test_any_record_is_taken_in_and_known_again(fresh, records):
    fresh()
    stamped = [record.stamp(rec) for rec in records]
    kinds = [kind for kind, _, _ in journal.append(paths.journal(), stamped, stage="test")]
    assert archive.catch_up() is None
    assert rows()[0] == expected()
    held = archive.lookup([rec["id"] for rec in stamped])
    assert held is not None
    # A process that has seen none of it takes each for what it is: written before.
    journal._live.clear()
    again = [kind for kind, _, _ in journal.append(paths.journal(), stamped, stage="test", known=held)]
    assert ["repeat" if kind == "written" else kind for kind in kinds] == again


def test_limit_leaves_the_rest_for_the_next(home):
    put(*(note(str(n)) for n in range(10)))
    assert archive.catch_up(limit=4) is None
    assert len(rows()[0]) == 4
    assert archive.catch_up(limit=4) is None
    assert archive.catch_up(limit=4) is None
    assert rows()[0] == expected()


def test_nothing_new_costs_no_read(home, monkeypatch):
    put(note("one"))
    archive.catch_up()
    monkeypatch.setattr(journal, "read", lambda *_, **__: pytest.fail("the journal was read"))
    assert archive.catch_up() is None
    forget()  # as another process
    assert archive.catch_up() is None


def test_without_a_journal_there_is_nothing(home):
    assert archive.catch_up() is None
    assert archive.lookup(["x"]) == (0, {})
    assert seqs("anything") == []


def test_a_journal_that_went_away_takes_nothing_with_it(home):
    put(note("one"))
    archive.catch_up()
    os.rename(paths.journal(), home / "elsewhere")
    assert archive.catch_up() == "the journal is missing"
    assert len(rows()[0]) == 1


def test_an_archive_of_another_journal_is_made_again(home):
    put(note("one"), note("two"))
    archive.catch_up()
    os.rename(paths.journal(), home / "elsewhere")
    put(note("three"))
    assert archive.lookup(["x"]) is not None
    assert archive.catch_up() is None
    assert rows()[0] == expected()
    assert len(rows()[0]) == 1


def test_rows_that_the_journal_lost_go(home, monkeypatch):
    monkeypatch.setattr(archive, "BATCH", 3)
    first = [note(f"first {n}") for n in range(6)]
    put(*first)
    archive.catch_up()
    live = os.path.join(paths.journal(), chain.LIVE)
    with open(live, "rb") as file:
        backup = file.read()
    lost = note("the lost one")
    put(lost, note("lost too"))
    archive.catch_up()
    assert lost["id"] in archive.lookup([lost["id"]])[1]
    with open(live, "wb") as file:  # the owner restores yesterday's journal
        file.write(backup)
    journal._live.clear()
    put(note("another one"))
    assert lost["id"] not in (archive.lookup([lost["id"]]) or (0, {}))[1]
    assert archive.catch_up() is None
    assert rows()[0] == expected()
    assert seqs("lost") == []
    assert seqs("another") == [7]


def test_what_a_failed_sync_put_in_doubt_goes_with_its_segment(home):
    """The next writer closes the segment and gives the numbers behind the last good record again."""
    put(*(note(f"old {n}") for n in range(8)))
    archive.catch_up()
    with open(os.path.join(paths.journal(), ".suspect"), "w") as mark:
        mark.write("5 1\n")
    journal._live.clear()
    put(note("new"))
    assert chain.closed(paths.journal()) == ["000001.ftai"]
    assert archive.catch_up() is None
    assert rows()[0] == expected()
    assert [row[0] for row in rows()[0]] == [1, 2, 3, 4, 5, 6, 7]
    assert seqs("new") == [7]
    assert len(seqs("old")) == 5
    before = rows()
    archive.rebuild()
    assert rows() == before
    assert [seq for page in archive.follow(4) for seq, _ in page] == [5, 6, 7]


@pytest.mark.parametrize("damage", ["garbage", "cut", "emptied", "deleted", "page", "zeros", "index", "wal alone", "database alone"])
def test_a_damaged_archive_is_made_again(home, damage):
    put(*(note(f"record {n} invoice") for n in range(200)))
    archive.rebuild()
    put(note("one more in the WAL"))
    archive.catch_up()
    before = rows()
    path = paths.archive_db()
    db = archive._writer["db"]
    forget()
    if damage == "index":
        db.execute("DELETE FROM words_data WHERE id > 10")
    db.close()
    with open(path, "r+b") as file:
        if damage == "garbage":
            file.write(os.urandom(8192))
        elif damage == "cut":
            file.truncate(5000)
        elif damage == "emptied":
            file.truncate(0)
        elif damage == "zeros":
            file.write(bytes(100))
        elif damage == "page":
            file.seek(4096)
            file.write(b"\xff" * 4096 * 20)
    for end in {"deleted": ("", "-wal", "-shm"), "wal alone": ("",), "database alone": ("-wal", "-shm")}.get(damage, ()):
        if os.path.exists(path + end):
            os.unlink(path + end)
    put(note("and the next"))
    warned = []
    found = archive.ask(lambda db: archive.search(db, "invoice", limit=300), warned.append)
    assert len(found) == 200
    assert archive.catch_up() is None
    assert archive.maintain()["integrity"] == "ok" or damage in ("index", "page")
    assert rows()[0] == expected()
    assert len(rows()[1]) > len(before[1])


def test_a_locked_archive_is_a_reason_and_no_failure(home):
    put(note("one"))
    archive.catch_up()
    put(note("two"))
    with open(paths.archive_db() + ".lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert archive.catch_up() == "the archive is locked by another process"
        told = []
        db = archive.connect(told.append, wait=0)
        assert [seq for seq, _ in archive.search(db, "one two")] == []
        assert [seq for seq, _ in archive.search(db, "one")] == [1]
        assert told == ["the archive is locked by another process"]
    assert archive.catch_up() is None
    assert seqs("two") == [2]


def test_a_program_that_writes_without_the_lock_is_a_reason_and_no_failure(home, monkeypatch):
    monkeypatch.setattr(archive, "BUSY", 0.01)
    put(note("one"))
    archive.catch_up()
    forget()
    put(note("two"))
    other = sqlite3.connect(paths.archive_db(), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert "locked" in archive.catch_up()
    other.execute("ROLLBACK")
    assert archive.catch_up() is None


def test_a_newer_archive_is_left_alone(home):
    put(note("one"))
    archive.catch_up()
    forget()
    with sqlite3.connect(paths.archive_db()) as db:
        db.execute("PRAGMA user_version = 99")
    assert "newer version" in archive.catch_up()
    assert archive.lookup(["x"]) is None
    with pytest.raises(Failure):
        archive.connect()
    assert [seq for seq, _ in archive.scan("one")] == [1]


@pytest.mark.parametrize("path", ["", ".lock"])
def test_a_folder_in_its_place_is_a_reason_and_no_failure(home, path):
    put(note("one"))
    os.mkdir(paths.archive_db() + path)
    assert archive.catch_up()
    assert archive.lookup(["x"]) is None
    assert [seq for seq, _ in archive.scan("one")] == [1]


def test_on_a_full_disk_it_is_a_reason_and_no_failure(home, monkeypatch):
    put(note("one"))
    archive.catch_up()
    archive._writer["db"].execute(f"PRAGMA max_page_count = {archive._writer['db'].execute('PRAGMA page_count').fetchone()[0]}")
    put(*(note("x" * 5000) for _ in range(20)))
    assert "full" in archive.catch_up()
    assert len(rows()[0]) == 1
    forget()
    assert archive.catch_up() is None
    assert rows()[0] == expected()


@pytest.mark.skipif(os.getuid() != 0, reason="takes root to become somebody else")
def test_who_may_only_read_can_read(home):
    put(note("one invoice"))
    archive.rebuild()
    code = "\n".join(
        (
            "import os, sys, orjson, sqlite3",
            "from serenamaster import archive, paths",
            "os.setuid(65534)",
            "paths.make = lambda folder: folder",  # it would refuse a folder of somebody else
            "print(archive.catch_up() or 'written')",
            "print([seq for seq, _ in archive.search(archive.connect(lambda _: None), 'invoice')])",
        )
    )
    folder = home
    while str(folder) != "/tmp" and folder.parent != folder:
        os.chmod(folder, os.stat(folder).st_mode | 0o055)
        folder = folder.parent
    for name in ("state", "state/journal"):
        os.chmod(home / name, 0o555)
    for name in ("state/archive.db", "state/journal/current.ftai"):
        os.chmod(home / name, 0o444)
    out, _ = child(code).communicate()
    reason, found = out.decode().splitlines()
    assert reason != "written"
    assert found == "[1]"


def test_several_processes_take_in_each_record_once(home):
    code = "\n".join(
        (
            "import sys",
            "from serenamaster import archive",
            "archive.BATCH = 5",
            "print('up', flush=True)",
            "while True:",
            "    reason = archive.catch_up(wait=10)",
            "    assert reason is None, reason",
            "    if sys.stdin.readline() == '': break",
        )
    )
    several = [child(code) for _ in range(4)]
    for process in several:
        process.stdout.readline()
    for number in range(20):
        put(*(note(f"{number} {n}") for n in range(11)))
        for process in several:
            process.stdin.write(b"\n")
            process.stdin.flush()
    assert [process.communicate() and process.returncode for process in several] == [0] * 4
    assert rows()[0] == expected()


def test_a_process_goes_on_where_the_file_was_replaced_under_it(home):
    """And does not take the WAL of the new one away when it closes the old."""
    put(note("one"))
    archive.catch_up()
    put(note("two"))
    code = "import os; from serenamaster import archive; archive.rebuild(); print(archive.catch_up(), flush=True); os._exit(0)"
    assert child(code).communicate()[0] == b"None\n"
    put(note("three"))
    # Another process takes it in and ends without closing, as stages do: what it wrote is in the WAL.
    assert child("import os; from serenamaster import archive; print(archive.catch_up(), flush=True); os._exit(0)").communicate()[0] == b"None\n"
    log = os.stat(paths.archive_db() + "-wal")
    assert log.st_size
    put(note("four"))
    assert archive.catch_up() is None
    assert os.stat(paths.archive_db() + "-wal").st_ino == log.st_ino
    assert rows()[0] == expected()


def test_files_are_the_owners_alone(home):
    def modes():
        folder = paths.state()
        return {name: os.stat(os.path.join(folder, name)).st_mode & 0o777 for name in os.listdir(folder) if name.startswith("archive")}

    old = os.umask(0)
    try:
        put(note("one"))
        archive.catch_up()
        seen = modes()
        archive.rebuild()
        put(note("two"))
        archive.catch_up()
    finally:
        os.umask(old)
    assert set(seen.values()) | set(modes().values()) == {0o600}
    assert "archive.db-wal" in seen


def test_what_is_out_already_is_forgotten_without_waiting(home):
    put(note("one"), note("two"))
    archive.catch_up()
    assert archive.forget([(1, 1)]) is None and len(rows()[0]) == 1
    with archive.Locked(0):
        assert archive.forget([(1, 1), (7, 9)]) is None
    assert archive.forget([(1, 1), (2, 2)]) is None and rows() == [[], []]


def test_an_interrupted_rebuild_leaves_the_old_archive(home):
    put(note("one"))
    archive.catch_up()
    before = rows()

    def told(_):
        raise KeyboardInterrupt

    archive_batch, archive.BATCH = archive.BATCH, 1
    try:
        with pytest.raises(KeyboardInterrupt):
            archive.rebuild(told)
    finally:
        archive.BATCH = archive_batch
    assert rows() == before
    assert not [name for name in os.listdir(paths.state()) if ".new" in name]


def test_maintain_compacts_where_it_is_worth_it(home):
    put(*(note("x" * 3000) for _ in range(1000)))
    archive.catch_up()
    assert "vacuum" not in archive.maintain()["did"]
    with archive.Transaction(archive._writer["db"]):
        archive._writer["db"].execute("INSERT INTO words (words) VALUES ('delete-all')")
        archive._writer["db"].execute("DELETE FROM records WHERE seq > 10")
    assert "vacuum" in archive.maintain(dry_run=True)["would"]
    before = os.path.getsize(paths.archive_db())
    # The index no longer says what the rows say: that counts as damage.
    report = archive.maintain()
    assert report["integrity"] != "ok"
    assert report["did"] == ["rebuild"]
    assert rows()[0] == expected()
    archive._writer.clear()
    assert before


def test_maintain_gives_back_what_is_free(home):
    put(*(note("x" * 3000) for _ in range(100)))
    archive.catch_up()
    db = archive._writer["db"]
    # Room that is free, where the index says what the rows say.
    db.execute("CREATE TABLE large AS WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 2000) SELECT randomblob(2000) FROM n")
    db.execute("DROP TABLE large")
    held = rows()
    assert "vacuum" in archive.maintain(dry_run=True)["would"]
    report = archive.maintain()
    assert report["integrity"] == "ok" and report["did"] == ["analyze", "optimize", "vacuum", "checkpoint"]
    assert report["bytes"] == os.path.getsize(paths.archive_db()) < 2_000_000 < report["bytes_before"] + report["wal_before"]
    assert report["wal"] == os.path.getsize(f"{paths.archive_db()}-wal") == 0
    assert db.execute("SELECT count(*) FROM sqlite_stat1").fetchone()[0]
    assert rows() == held


def test_stats_count_what_is_there(home):
    task = record.make("task", "test", title="one")
    put(task, note("two"), note("three", thread=task["thread"]))
    seen = archive.ask(archive.stats)
    assert (seen["records"], seen["threads"], seen["first"], seen["last"], seen["behind"]) == (3, 2, 1, 3, 0)
    assert [(block["name"], block["records"]) for block in seen["blocks"]] == [("note", 2), ("task", 1)]


def test_a_step_of_the_schema_that_was_published_is_never_edited(home):
    """Only appended to. A change of this text needs a new step, not a new expectation."""
    put(note("one"))
    archive.catch_up()
    with sqlite3.connect(paths.archive_db()) as db:
        schema = [sql for (sql,) in db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'words\\_%' ESCAPE '\\' ORDER BY name")]
    assert [step.__name__ for step in archive.MIGRATIONS][:1] == ["m001_records"]
    assert (
        "CREATE TABLE records (seq INTEGER PRIMARY KEY, id TEXT, ts TEXT, thread TEXT, parent TEXT, tag TEXT, updates TEXT, text TEXT, line TEXT NOT NULL)"
        in schema
    )


# -- Looking up --


def test_lookup_tells_seq_and_content(home):
    first = note("one")
    put(first, note("two"))
    upto, found = archive.lookup([first["id"], "019ab9c4-7d1e-7a31-9c1b-000000000001"])
    assert upto == 2
    assert found == {first["id"]: (1, text.dump(first)[:-5].encode())}


def test_lookup_takes_in_what_is_new_first(home):
    put(note("one"))
    archive.catch_up()
    later = note("two")
    put(later)
    assert archive.lookup([later["id"]])[0] == 2


def test_lookup_names_the_first_of_two(home):
    one = note("one")
    put(one)
    journal._live.clear()
    journal.append(paths.journal(), [one | {"body": "other"}], stage="test")
    journal._live.clear()
    journal.append(paths.journal(), [one | {"body": "other"}], stage="test")
    assert archive.lookup([one["id"]])[1][one["id"]][0] == 1


def test_lookup_waits_for_nobody(home):
    put(note("one"))
    with open(paths.archive_db() + ".lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert archive.lookup(["x"]) is None


# -- Reading --


def test_ids_are_found_by_their_end(home):
    one, two = ({"@tag": "note", "id": f"0199c2f4-000{n}-7a31-9c1b-2f0a5bdddddd", "ts": record.now(), "thread": "t", "n": n} for n in (1, 2))
    put(one, two, record.make("note", "test"))
    db = archive.connect()
    assert [rec["n"] for rec in archive.ending(db, "DDdddd", 20)] == [1, 2]
    assert [rec["n"] for rec in archive.ending(db, "dddddd", 1)] == [1]
    assert [rec["n"] for rec in archive.ending(db, two["id"].upper(), 20)] == [2]
    assert archive.ending(db, "eeeeee", 20) == []
    plan = " ".join(str(row[3]) for row in db.execute("EXPLAIN QUERY PLAN SELECT seq FROM records WHERE id LIKE '%dddddd' LIMIT 2"))
    assert "COVERING INDEX records_id" in plan


def test_get_thread_and_tasks(home):
    asked = record.make("command", "test", body="do it")
    open_task = record.make("task", "test", parent=asked, title="one")
    done_task = record.make("task", "test", parent=asked, title="two", status="open")
    put(asked, open_task, done_task, record.make("task", "test", updates=done_task["id"], status="done"))
    db = archive.connect()
    assert [rec["@tag"] for rec in archive.thread(db, asked["id"])] == ["command", "task", "task"]
    assert [rec["title"] for rec in archive.tasks(db)] == ["one"]
    assert [(rec["title"], rec["status"]) for rec in archive.tasks(db, "done")] == [("two", "done")]
    assert len(archive.tasks(db, None)) == 2
    assert archive.get(db, [done_task["id"], "nothing", 7])[done_task["id"]]["status"] == "done"
    assert archive.get(db, [done_task["id"]], folded=False)[done_task["id"]]["status"] == "open"
    assert all(record.is_history(rec) for rec in archive.get(db, [asked["id"], done_task["id"]]).values())


def test_newest_is_the_thread_of_the_last_command_that_came_this_way(home):
    one, two, three = (record.make("command", "test", body="x", via=via) for via in ("text", "text", "cron"))
    put(one, two, three, note("no command", via="text"))
    db = archive.connect()
    assert archive.newest(db, "text") == two["thread"]
    assert archive.newest(db, "voice") is None


def test_follow_gives_each_record_once_in_order(home):
    put(*(note(str(n), thread=f"t{n % 2}") for n in range(2500)))
    assert [seq for page in archive.follow() for seq, _ in page] == list(range(1, 2501))
    assert [seq for page in archive.follow(2498) for seq, _ in page] == [2499, 2500]
    assert [seq for page in archive.follow(2490, thread="t0") for seq, _ in page] == [2491, 2493, 2495, 2497, 2499]
    os.mkdir(paths.archive_db() + ".lock.d")
    forget()
    os.unlink(paths.archive_db())
    os.mkdir(paths.archive_db())
    told = []
    assert [seq for page in archive.follow(2490, thread="t0", warn=told.append) for seq, _ in page] == [2491, 2493, 2495, 2497, 2499]
    assert "the journal itself is read" in told[-1]


# -- Updates --


def test_fold_applies_later_changes_in_order():
    one = {"@tag": "task", "id": "1", "ts": "a", "title": "x", "@blocks": [{"@tag": "note", "body": "old"}, {"@tag": "chain", "seq": 1}]}
    two = {"@tag": "task", "id": "2", "ts": "b", "updates": "1", "status": "done", "@blocks": [{"@tag": "chain", "seq": 2}]}
    three = {"@tag": "task", "id": "3", "updates": "2", "title": "y", "@blocks": [{"@tag": "note", "body": "new"}, {"@tag": "chain", "seq": 3}]}
    (seen,) = archive.fold([one, two, three])
    blocks = [{"@tag": "note", "body": "new"}, {"@tag": "chain", "seq": 1}]
    assert seen == {"@tag": "task", "id": "1", "ts": "a", "title": "y", "status": "done", "@blocks": blocks}
    assert one["title"] == "x" and "status" not in one


def test_fold_keeps_what_updates_nothing_that_is_there():
    for stray in ({"id": "1", "updates": "1"}, {"id": "1", "updates": "2"}, {"id": "1", "updates": 7}, {"id": "1", "updates": ["2"]}):
        assert archive.fold([stray]) == [stray]
    loop = [{"id": "1", "updates": "2", "a": 1}, {"id": "2", "updates": "1", "b": 2}]
    assert archive.fold(loop) == [{"id": "1", "updates": "2", "a": 1, "b": 2}]


@pytest.mark.parametrize(
    "first, second, folded",
    [("cloud", "cloud", "cloud"), ("local", "cloud", "local"), ("cloud", "local", "local"), ("cloud", None, None), (None, "cloud", None), (None, None, None)]
    + [("local", None, "local"), (None, "local", "local"), ("cloud", "secret", "secret"), ("cloud", "", "")],
)
def test_a_fold_is_as_private_as_its_most_private_part(first, second, folded):
    """`cloud` only where all parts say so; absent means what the config says."""
    one = {"id": "1"} | ({} if first is None else {"privacy": first})
    two = {"id": "2", "updates": "1"} | ({} if second is None else {"privacy": second})
    assert archive.fold([one, two])[0].get("privacy") == folded


def test_an_update_is_found_as_the_record_it_changes(home):
    wrong = record.make("command", "test", body="send the choice")
    put(wrong, record.make("command", "test", updates=wrong["id"], body="send the invoice"))
    db = archive.connect()
    ((seq, rec),) = archive.search(db, "invoice")
    assert (seq, rec["id"], rec["body"]) == (1, wrong["id"], "send the invoice")
    ((_, rec),) = archive.search(db, "choice")
    assert rec["body"] == "send the invoice"
    assert len(archive.search(db, "")) == 1


def test_updates_in_a_ring_end(home):
    one, two = record.make("task", "test", title="ring"), record.make("task", "test", title="ring")
    one["updates"], two["updates"] = two["id"], one["id"]
    put(one, two)
    assert len(seqs("ring")) >= 1


# -- Search --


def test_what_is_searched(home):
    doc = {"@tag": "document", "title": "Offer", "body": "nested words", "sha256": "abc123"}
    put(
        record.make("command", "ftai-listen", body="read this", via="text", blocks=[doc]),
        record.make("route", "ftai-route", target="skill:task", reason="phrase", blocks=[{"@tag": "slots", "what": "hidden"}]),
        record.make("message", "alice", tags=["home", ["money"]], ref="T-17", body="Café crème brûlée"),
        record.make("error", "ftai-exec", message="no route to host", class_="network"),
    )
    assert seqs("nested") == [1]
    assert seqs("offer") == [1]
    assert seqs("money") == [3]
    assert seqs("alice") == [3]
    assert seqs("T-17") == [3]
    assert seqs("cafe CREME brulee") == [3]
    assert seqs("cafe\u0301") == [3]
    assert seqs("host") == [4]
    for words in ("abc123", "hidden", "phrase", "skill", "network", "ftai", "text", "chain"):
        assert seqs(words) == [], words


def test_how_words_match(home):
    put(
        note("Send the invoices to Acme"),
        note("the invoice from 東京都 and naïve résumé_2026.pdf"),
        note("reminding e-mail a@b 100% C++"),
        note("of the in"),
    )
    assert sorted(seqs("invoice")) == [1, 2]
    assert sorted(seqs("INVOICES")) == [1, 2]
    assert seqs("what about the invoice to acme") == [1]
    assert seqs('"invoice from"') == [2]
    assert seqs('"from invoice"') == []
    assert seqs("remind") == [3]
    assert seqs("remi") == [3]
    assert seqs("inv* acme") == [1]
    assert seqs("inv acme") == [1]
    assert seqs("京都") == [2]
    assert seqs("東都") == []
    assert seqs("resume_2026.pdf") == [2]
    assert seqs("e-mail") == [3]
    assert seqs("a@b") == [3]
    assert 4 in seqs("of the")
    assert seqs("what's the invoice to Acme?") == [1]
    assert seqs("Acme\u2019s") == [1]
    assert seqs("invoice nothing") == []


def test_ranking_prefers_what_is_rare_and_short(home):
    put(note("invoice " + "filler " * 50), note("invoice acme"), note("invoice " + "other " * 50 + "acme"), *(note("invoice again") for _ in range(5)))
    assert seqs("acme invoice")[:2] == [2, 3]
    assert seqs("invoice")[-1] in (1, 3)


def test_ranking_of_very_common_words(home, monkeypatch):
    monkeypatch.setattr(archive, "RANKED", 10)
    put(*(note("common " + "filler " * (n % 4 + 1)) for n in range(40)), note("common rare"))
    assert seqs("common rare") == [41]
    shortest = seqs("common", limit=3)
    assert shortest == [41, 37, 33], "the newest ten, the shortest first"
    monkeypatch.setattr(archive, "ENOUGH", 5)
    put(note("common"), *(note("filler") for _ in range(110)), *(note("common common " + "filler " * n) for n in range(5)))
    assert seqs("common", limit=2) == [153, 154], "five among the newest hundred are enough"
    monkeypatch.setattr(archive, "ENOUGH", 6)
    assert seqs("common", limit=1) == [42], "and where they are not, those before count too"


def test_filters(home):
    old = note("invoice old", thread="t1") | {"ts": "2020-01-01T12:00:00.000Z"}
    zoned = note("invoice zoned", thread="t1") | {"ts": "2020-06-01T01:00:00+02:00"}
    odd = note("invoice odd", thread="t2") | {"ts": "no time"}
    new = record.make("task", "test", title="invoice new")
    put(old, zoned, odd, new)
    assert sorted(seqs("invoice")) == [1, 2, 3, 4]
    assert seqs("invoice", until="2020-02-01T00:00:00Z") == [1]
    assert seqs("invoice", since="2020-05-31T23:00:00Z", until="2020-05-31T23:00:01Z") == [2]
    assert seqs("invoice", since="2021-01-01T00:00:00Z") == [4]
    assert seqs("invoice", tags=["task"]) == [4]
    assert seqs("invoice", tags=["@TASK"]) == [4]
    assert sorted(seqs("invoice", tags=["task", "note"])) == [1, 2, 3, 4]
    assert sorted(seqs("invoice", thread="t1")) == [1, 2]
    assert sorted(seqs("invoice", after=2)) == [3, 4]
    assert len(seqs("invoice", limit=2)) == 2
    assert seqs("", tags=["note"], limit=2) == [2, 3]
    assert seqs("", until="2021-01-01T00:00:00Z") == [1, 2]
    assert len(seqs("invoice", threads=True)) == 3
    assert seqs("", threads=True) == [1, 3, 4]
    put(*(note("invoice again and again", thread="t3") for _ in range(300)), note("the invoice, at last, of another thread altogether"))
    assert seqs("invoice", threads=True, limit=5)[-1] == 305
    assert len(seqs("invoice", threads=True, limit=5)) == 5
    assert seqs("invoice", tags=['no" OR "such']) == []
    assert [seq for seq, _ in archive.scan("invoice", thread="t1", since="2020-03-01T00:00:00Z")] == [2]


def test_neighbours(home):
    put(*(note(str(n), thread=f"t{n % 2}") for n in range(10)))
    db = archive.connect()
    assert archive.neighbours(db, 5, 1) == [3, 5, 7]
    assert archive.neighbours(db, 1, 2) == [1, 3, 5]
    assert archive.neighbours(db, 5, 0) == [5]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """fresh() makes a home for one example; what the tests behind these find is as it was before."""
    with pytest.MonkeyPatch.context() as patch:

        def make():
            patch.setenv("FTAI_HOME", str(tmp_path_factory.mktemp("home")))
            forget()
            specs.forget()

        yield make
    forget()
    specs.forget()


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """An archive of hostile texts; its connection, and its home."""
    folder = str(tmp_path_factory.mktemp("library"))
    patch = pytest.MonkeyPatch()
    patch.setenv("FTAI_HOME", folder)
    forget()
    words = [
        "invoice",
        "Zürich",
        "NEAR",
        "AND",
        "OR",
        "NOT",
        "text:",
        "*",
        '"',
        "^a",
        "(b",
        "c)",
        "-d",
        "x{y}",
        "東京",
        "ß",
        "İstanbul",
        "a.b@c",
        "🎉",
        "ﬁne",
        "½",
    ]
    texts = [" ".join(words[n:] + words[:n]) for n in range(len(words))]
    put(*map(note, texts))
    db = archive.connect(pytest.fail)
    patch.undo()
    yield db, folder
    forget()


syntax = st.sampled_from(list("\"*^(){}+-:\0,.;'") + ["NEAR(", "AND", "OR", "NOT", "text :", "tag:", "invoice", "京", "\ud800", "\U0001f600", "\u0301"])


@settings(max_examples=300)
@given(st.lists(syntax | st.text(max_size=6), max_size=8).map(" ".join) | st.lists(syntax | st.text(max_size=3), max_size=12).map("".join))
def test_no_words_are_a_syntax_error(library, words):
    db, _ = library
    for tags in ((), (words,)):
        archive.search(db, words, tags=tags)


@settings(max_examples=60)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30), min_size=1, max_size=4))
def test_a_record_is_found_by_each_of_its_words(fresh, bodies):
    fresh()
    put(*map(note, bodies))
    db = archive.connect(pytest.fail)
    for seq, body in enumerate(bodies, 1):
        for word in body.replace('"', " ").split():
            # Search has no word in what is all signs.
            if archive.terms(word):
                found = [found for found, _ in archive.search(db, word.rstrip("*"), limit=100)]
                assert seq in found, (word, body)
    db.close()


def test_words_by_the_thousand(library):
    db, _ = library
    archive.search(db, "word " * 100_000)
    archive.search(db, " ".join(f"w{n}" for n in range(10_000)))
    archive.search(db, "x" * 1_000_000)
    archive.search(db, '"' * 10_001)


def test_scan_finds_what_search_finds(library, monkeypatch):
    db, folder = library
    monkeypatch.setenv("FTAI_HOME", folder)
    for words in ("invoice", "zurich", "京", "invo", "b c", "nothing", "istanbul"):
        assert {seq for seq, _ in archive.scan(words, limit=100)} == {seq for seq, _ in archive.search(db, words, limit=100)}, words


@pytest.mark.parametrize(
    "ts, held",
    [
        ("2026-11-22T13:25:00.041Z", "2026-11-22T13:25:00.041Z"),
        ("2026-11-22T13:25:00Z", "2026-11-22T13:25:00.000Z"),
        ("2026-11-22T14:25:00+01:00", "2026-11-22T13:25:00.000Z"),
        ("2026-11-22", "2026-11-22T00:00:00.000Z"),
        ("2026-11-22T13:25:00.041999Z", "2026-11-22T13:25:00.041Z"),
        ("0001-01-01T00:00:00+05:00", None),
        ("yesterday", None),
        ("", None),
        (7, None),
        (None, None),
        (["x"], None),
    ],
)
def test_times_are_compared_in_one_form(ts, held):
    assert archive.instant(ts) == held
