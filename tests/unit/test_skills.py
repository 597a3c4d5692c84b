"""Skills: what they answer, what they leave behind, what they refuse."""

import hashlib
import os
import threading

import pytest
from serenamaster import archive, execution, journal, paths, record, skills, specs
from serenamaster.errors import Failure

NOW = "2026-11-22T13:25:00.000Z"  # a Sunday


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FTAI_HOME", str(tmp_path / "ftai"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    os.mkdir(tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    specs.forget()
    yield tmp_path / "home"
    specs.forget()


class Done:
    """What a skill did: its records, its answer, its status."""

    def __init__(self, name, /, command=None, ts=NOW, **slots):
        asked = record.make("command", "t", **({"body": name, "tz": "Europe/Zurich"} | (command or {}))) | {"ts": ts}
        routed = record.make("route", "t", parent=asked, target=f"skill:{name}", rule="r") | {"@blocks": [{"@tag": "slots", **slots}]}
        self.command, self.route = asked, routed
        self.job = execution.Job("t", routed, asked, "local")
        self.records = []
        act = execution._whole(self.job, skills.named(name)[0])
        try:
            while True:
                self.records.append(next(act))
        except StopIteration as ended:
            self.status, self.answer = ended.value.status, ended.value.body

    def journal(self, more=True):
        """Puts command, route, effects and result into the journal, as a pipe would."""
        result = self.job.make("result", target=self.route["target"], status=self.status, body=self.answer)
        append(*({**rec, "ts": NOW} for rec in (self.command, self.route, *self.records, result)))
        return self

    def tags(self):
        return [rec["@tag"] for rec in self.records]


def append(*records):
    assert all(kind in ("written", "repeat") for kind, _, _ in journal.append(paths.journal(), list(records)))


def sha(data):
    return hashlib.sha256(data).hexdigest()


def task(title, when=""):
    return Done("task", what=title, when=when).journal().records[0]


# -- remember and recall


def test_remember():
    done = Done("remember", what="Ada likes tea")
    assert done.answer == "I'll remember: Ada likes tea."
    assert done.tags() == ["memory"]
    assert done.records[0] | {"body": "Ada likes tea", "tier": "long"} == done.records[0]


def test_the_tier_of_a_memory_is_in_the_spec():
    os.makedirs(paths.config())
    with open(os.path.join(paths.config(), "serenamaster.memory.ftai"), "w") as file:
        file.write('@ftai v2.0\n@tier\n  name: "mine"\n  summary: "x"\n  default: true\n@end\n')
    specs.forget()
    assert Done("remember", what="x").records[0]["tier"] == "mine"


def test_nothing_to_remember():
    with pytest.raises(Failure) as bad:
        Done("remember", what="  ")
    assert bad.value.code == 65


def test_recall_by_words():
    Done("remember", what="the invoice goes to Ada").journal()
    Done("remember", what="the shop closes at six").journal()
    assert Done("recall", what="invoice").answer == "1 hit for 'invoice':\n- Sunday 22 November, 14:25: the invoice goes to Ada"
    assert Done("recall", what="rainbow").answer == "I found nothing for 'rainbow'."


def test_a_time_in_an_answer():
    job = Done("time").job
    assert skills.clock(job, NOW) == "Sunday 22 November, 14:25"
    assert skills.clock(job, "2025-01-02T03:04:05+01:00") == "Thursday 2 January 2025, 03:04"
    assert skills.clock(job, "soon") == skills.clock(job, None) == "at some time"


def test_recall_by_time():
    append(record.make("memory", "t", body="written before") | {"ts": "2026-11-21T12:00:00.000Z"})
    append(record.make("memory", "t", body="written today") | {"ts": "2026-11-22T12:00:00.000Z"})
    assert "written before" in Done("recall", when="yesterday").answer
    assert "written today" not in Done("recall", when="yesterday").answer
    assert Done("recall", when="last year").answer == "I found nothing (last year)."
    with pytest.raises(Failure):
        Done("recall", when="whenever")


def test_yesterday_is_a_day_of_the_command():
    append(record.make("memory", "t", body="late") | {"ts": "2026-11-20T23:30:00.000Z"})  # half past midnight in Zurich
    assert "late" in Done("recall", when="yesterday").answer
    assert "late" not in Done("recall", when="yesterday", command={"tz": "America/New_York"}).answer


def test_recall_tells_a_thing_once_and_leaves_out_questions():
    Done("remember", what="the invoice is paid", command={"body": "remember that the invoice is paid"}).journal()
    Done("recall", what="invoice", command={"body": "what do you know about the invoice"}).journal()
    assert Done("recall", what="invoice").answer.splitlines()[1:] == ["- Sunday 22 November, 14:25: the invoice is paid"]


def test_recall_tells_at_most_what_the_spec_says(monkeypatch):
    append(*[record.make("memory", "t", body=f"apple {n}") for n in range(30)])
    assert len(Done("recall", what="apple").answer.splitlines()) == 11
    monkeypatch.setenv("FTAI_RECALL_HITS", "3")
    assert len(Done("recall", what="apple").answer.splitlines()) == 4


def test_recall_without_an_archive():
    Done("remember", what="the invoice is paid").journal()
    Done("recall", what="invoice")
    for end in ("", "-wal", "-shm"):
        if os.path.exists(paths.archive_db() + end):
            os.unlink(paths.archive_db() + end)
    assert "the invoice is paid" in Done("recall", what="invoice").answer


def test_recall_and_tasks_from_the_journal_where_the_archive_cannot_be_read(monkeypatch):
    Done("remember", what="the invoice is paid").journal()
    task("call Ada")
    done = task("buy milk")
    append(record.make("task", "t", updates=done["id"], status="done"))

    def connect(*_, **__):
        raise Failure("the archive cannot be read", 74)

    monkeypatch.setattr(archive, "connect", connect)
    assert "the invoice is paid" in Done("recall", what="invoice").answer
    assert Done("tasks").answer == "1 open task:\n- call Ada"


# -- tasks


def test_a_task_with_a_date():
    done = Done("task", what="send the invoice", when="tomorrow")
    assert done.tags() == ["task"]
    assert done.records[0] | {"title": "send the invoice", "due": "2026-11-23", "status": "open"} == done.records[0]
    assert done.answer == "I'll remind you: send the invoice, Monday 23 November."


def test_a_task_without_a_date():
    done = Done("task", what="send the invoice")
    assert "due" not in done.records[0]
    assert done.answer == "I've noted the task: send the invoice."


def test_words_that_are_no_date_stay_in_the_title():
    for when in ("somehow", "by 5", "on February 30", "at 25:00", "every friday"):
        done = Done("task", what="send the invoice", when=when)
        assert done.records[0]["title"] == f"send the invoice {when}"
        assert "due" not in done.records[0]
        assert done.answer == f"I've noted the task: send the invoice {when}."
    done = Done("task", what="send the invoice", when="tomorrow at 25:00")
    assert (done.records[0]["title"], done.records[0]["due"]) == ("send the invoice at 25:00", "2026-11-23")
    assert done.answer == "I'll remind you: send the invoice at 25:00, Monday 23 November."


def test_tasks_in_the_order_of_their_dates():
    task("no date")
    task("later", "on 25 december")
    task("sooner", "tomorrow")
    assert Done("tasks").answer == "3 open tasks:\n- sooner, Monday 23 November\n- later, Friday 25 December\n- no date"
    assert Done("tasks", when="tomorrow").answer == "1 open task:\n- sooner, Monday 23 November"
    assert Done("tasks", when="next month").answer == "1 open task:\n- later, Friday 25 December"
    assert Done("tasks", when="today").answer == "No task is due today."


def test_a_weekday_of_tasks_is_the_one_to_come():
    task("pay the rent", "on friday")
    assert "pay the rent" in Done("tasks", when="on friday").answer


def test_what_is_overdue_is_due_today():
    append(record.make("task", "t", title="late", due="2026-11-01", status="open"))
    assert Done("tasks", when="today").answer == "1 open task:\n- late, Sunday 1 November"
    assert Done("tasks", when="tomorrow").answer == "No task is due tomorrow."


EXTREMES = ("9999-12-31T23:59:59-14:00", "9999-12-31T23:59:59Z", "9999-12-31", "0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00Z", "0001-01-01")


@pytest.mark.parametrize("due", EXTREMES)
@pytest.mark.parametrize("zone", ["Europe/Zurich", "America/Sao_Paulo"])
def test_a_task_at_the_end_of_the_calendar(due, zone):
    append(record.make("task", "t", title="x", due=due, status="open"))
    assert Done("status", command={"tz": zone}).answer.startswith("1 open task, ")
    for when in ("", "today", "next year", "since yesterday"):
        assert "task" in Done("tasks", command={"tz": zone}, when=when).answer
    assert Done("finish", what="x", command={"tz": zone}).status == "done"


@pytest.mark.parametrize("ts", EXTREMES)
@pytest.mark.parametrize("when", ["today", "yesterday", "tomorrow", "last night", "last week", "next year", "3 days ago", "since monday", "at 5pm", "the 25th"])
def test_a_command_from_the_end_of_the_calendar(ts, when):
    append(record.make("memory", "t", body="x") | {"ts": ts}, record.make("task", "t", title="x", due="2026-11-22", status="open"))
    assert Done("task", what="x", when=when, ts=ts).status == "done"
    for skill in ("recall", "tasks"):
        assert Done(skill, when=when, ts=ts).status == "done"
    assert Done("recall", what="x", ts=ts).status == "done"


def test_no_tasks():
    assert Done("tasks").answer == "No task is open."


def test_finish():
    kept = task("send the invoice", "tomorrow")
    task("call Ada")
    done = Done("finish", what="the invoice").journal()
    assert done.answer == "Finished: send the invoice."
    assert done.tags() == ["task"]
    assert done.records[0] | {"updates": kept["id"], "status": "done"} == done.records[0]
    assert "title" not in done.records[0]
    assert Done("tasks").answer == "1 open task:\n- call Ada"


def test_finish_asks_where_more_than_one_fits():
    task("send the invoice", "tomorrow")
    task("pay the invoice")
    done = Done("finish", what="invoice")
    assert done.status == "asked"
    assert done.records == []
    assert done.answer == "Which one is finished?\n- send the invoice, Monday 23 November\n- pay the invoice"


def test_finish_takes_the_one_that_fits_exactly():
    task("call Ada")
    task("call Ada about the invoice")
    assert Done("finish", what="call ada").answer == "Finished: call Ada."


def test_finish_asks_where_none_fits():
    done = Done("finish", what="the moon")
    assert done.status == "asked"
    assert done.records == []


def test_finish_never_takes_marks_for_words():
    task("call Ada")
    assert Done("finish", what="...").status == "asked"


# -- files


def test_document(home):
    (home / "notes.md").write_bytes(b"# Notes\n")
    done = Done("document", path="notes.md")
    assert done.answer == "I've taken in 'notes.md'."
    assert done.tags() == ["memory", "file"]
    facts = {"path": str(home / "notes.md"), "bytes": 8, "sha256": sha(b"# Notes\n")}
    assert done.records[0] | {"tier": "file", "subject": "notes.md", **facts} == done.records[0]
    assert done.records[0]["@blocks"][0] | {"@tag": "document", "body": "# Notes\n", **facts} == done.records[0]["@blocks"][0]
    assert done.records[1] | {"op": "read", **facts, "bytes_before": 8, "sha256_before": facts["sha256"]} == done.records[1]


def test_a_document_over_a_mebibyte_stays_in_its_file(home):
    data = b"x" * (1024 * 1024 + 1)
    (home / "big.txt").write_bytes(data)
    done = Done("document", path="big.txt")
    assert "body" not in done.records[0]["@blocks"][0]
    assert done.records[0] | {"bytes": len(data), "sha256": sha(data)} == done.records[0]
    assert len(record.encode(done.records[0])) < 10_000


def test_a_document_that_came_with_the_command_is_not_repeated(home):
    block = {"@tag": "document", "title": "x.txt", "path": str(home / "x.txt"), "bytes": 2, "sha256": "ab", "body": "hi"}
    done = Done("document", path=str(home / "x.txt"), command={"blocks": [block]})
    assert done.tags() == ["memory"]
    assert done.records[0] | {"about": done.command["id"], "path": str(home / "x.txt"), "bytes": 2, "sha256": "ab"} == done.records[0]
    assert "@blocks" not in done.records[0]


@pytest.mark.parametrize(("name", "code"), [("missing", 66), (".", 65), ("pipe", 65), ("/dev/zero", 65)])
def test_what_is_no_document(home, name, code):
    os.mkfifo(home / "pipe")
    for skill in ("document", "head"):
        with pytest.raises(Failure) as bad:
            Done(skill, path=name)
        assert bad.value.code == code


def test_head(home):
    (home / "a.txt").write_bytes(b"".join(b"line %d\n" % n for n in range(300)))
    assert Done("head", path="a.txt").answer == "\n".join(f"line {n}" for n in range(10))
    assert Done("head", path="~/a.txt", lines="2").answer == "line 0\nline 1"
    assert len(Done("head", path="a.txt", lines="9999").answer.splitlines()) == skills.LINES
    assert len(Done("head", path="a.txt", lines="9" * 5000).answer.splitlines()) == 10
    assert Done("head", path="a.txt").tags() == ["file"]


def test_head_of_a_long_file_reads_its_beginning(home):
    with open(home / "a.txt", "wb") as file:
        file.write(b"line\n" * 20_000)
        file.truncate(1 << 40)
    done = Done("head", path="a.txt", lines="2")
    assert done.answer == "line\nline"
    assert done.records[0] | {"op": "read", "path": str(home / "a.txt"), "bytes": 1 << 40} == done.records[0]
    assert not {"sha256", "sha256_before"} & set(done.records[0])
    (home / "a.txt").write_bytes(b"line\n" * 20_000)
    assert Done("head", path="a.txt").records[0]["sha256"] == sha(b"line\n" * 20_000)


def test_head_of_what_is_no_text(home):
    (home / "a.bin").write_bytes(b"a\0b")
    with pytest.raises(Failure):
        Done("head", path="a.bin")
    (home / "empty").write_bytes(b"")
    assert Done("head", path="empty").answer == "'empty' is empty."


def test_head_cannot_steer_a_terminal(home):
    (home / "a.txt").write_bytes(b"\x1b]0;x\x07\xff\n")
    assert Done("head", path="a.txt").answer == "\ufffd]0;x\ufffd\ufffd"


def test_find(home):
    for name in ("docs/Annual Report.pdf", "report.txt", ".hidden/report.txt", "docs/deep/er/report.md"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(b"")
    (home / "loop").symlink_to(home)
    (home / "report.link").symlink_to("/etc/passwd")
    found = [f"- {home / name}" for name in ("report.txt", "docs/Annual Report.pdf", "docs/deep/er/report.md")]
    assert Done("find", name="report").answer.splitlines() == ["3 files called 'report':", *found]
    assert Done("find", name="report annual").answer.splitlines() == ["1 file called 'report annual':", found[1]]
    assert Done("find", name="*.md").answer.splitlines() == ["1 file called '*.md':", found[2]]
    assert Done("find", name="nothing").answer == "I found no file called 'nothing'."


def test_find_is_bounded(home, monkeypatch):
    for n in range(30):
        (home / f"x{n}").write_bytes(b"")
    assert Done("find", name="x").answer.startswith("More than 10 files")
    monkeypatch.setattr(skills, "ENTRIES", 10)
    assert Done("find", name="y").answer == "I found no file called 'y'.\nThere are more files than I could look at."


def test_find_stops_when_its_time_is_over(home, monkeypatch):
    monkeypatch.setenv("FTAI_FIND_SECONDS", "0")
    (home / "a" / "b").mkdir(parents=True)
    assert "more files" in Done("find", name="y").answer


# -- notes


def test_note():
    path = os.path.join(paths.where("data"), "notes", "notes.txt")
    first, second = Done("note", text="buy milk"), Done("note", text="call Ada")
    with open(path, "rb") as file:
        assert file.read() == b"buy milk\ncall Ada\n"
    assert first.answer == f"Noted in '{path}'."
    assert first.tags() == ["audit", "audit", "file"]
    assert [rec["outcome"] for rec in first.records[:2]] == ["intended", "done"]
    assert first.records[2] | {"op": "append", "path": path, "bytes": 9, "sha256": sha(b"buy milk\n")} == first.records[2]
    assert "sha256_before" not in first.records[2]
    after = {"bytes_before": 9, "sha256_before": sha(b"buy milk\n"), "bytes": 18, "sha256": sha(b"buy milk\ncall Ada\n")}
    assert second.records[2] | after == second.records[2]
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_a_note_to_a_file_of_the_home_folder(home):
    (home / "docs").mkdir()
    (home / "docs" / "list.txt").write_bytes(b"no line end")
    os.chmod(home / "docs" / "list.txt", 0o644)
    Done("note", text="more", path="~/docs/list.txt")
    assert (home / "docs" / "list.txt").read_bytes() == b"no line end\nmore\n"
    assert os.stat(home / "docs" / "list.txt").st_mode & 0o777 == 0o644
    assert os.listdir(home / "docs") == ["list.txt"]


@pytest.mark.parametrize(
    "path",
    [
        "~/.bashrc", "~/.config/x", "docs/.hidden", ".hidden", "/etc/passwd", "~/../x", "docs/../../x", "~/docs/../.ssh/authorized_keys",
        "out/x", "docs/link", "docs/program",
    ],
)  # fmt: skip
def test_where_no_note_goes(home, tmp_path, path):
    (home / "docs").mkdir()
    (home / ".ssh").mkdir()
    (home / "out").symlink_to(tmp_path)
    (home / "docs" / "link").symlink_to(tmp_path / "target")
    (home / "docs" / "program").write_bytes(b"#!/bin/sh\n")
    os.chmod(home / "docs" / "program", 0o755)
    seen = sorted(str(found) for found in tmp_path.rglob("*") if "ftai" not in found.parts)
    with pytest.raises(Failure) as bad:
        Done("note", text="rm -rf ~", path=path)
    assert bad.value.code == 77
    assert sorted(str(found) for found in tmp_path.rglob("*") if "ftai" not in found.parts) == seen
    assert (home / "docs" / "program").read_bytes() == b"#!/bin/sh\n"


def test_no_note_goes_into_our_own_places(home, monkeypatch):
    monkeypatch.setenv("FTAI_HOME", str(home / "ftai"))
    paths.state()
    for path in ("~/ftai/state/x", "~/ftai/config/serenamaster.commands.ftai", "~/ftai/state/journal/current.ftai"):
        with pytest.raises(Failure) as bad:
            Done("note", text="x", path=path)
        assert bad.value.code == 77
    Done("note", text="x", path="~/ftai/data/notes/mine.txt")


@pytest.mark.parametrize(("data", "code"), [(b"a\0b", 65), (b"x" * (skills.NOTE + 1), 65)])
def test_what_no_note_is_added_to(home, data, code):
    (home / "docs").mkdir()
    (home / "docs" / "x").write_bytes(data)
    with pytest.raises(Failure) as bad:
        Done("note", text="more", path="docs/x")
    assert bad.value.code == code
    assert (home / "docs" / "x").read_bytes() == data


def test_a_folder_that_is_missing():
    with pytest.raises(Failure) as bad:
        Done("note", text="x", path="nowhere/x")
    assert bad.value.code == 66


def test_notes_at_the_same_time_are_all_there():
    def write(n):
        for k in range(10):
            skills.append(path, f"{n} {k}")

    path = skills.writable("all.txt")
    # stream.save names its temporary file after the process, so the lock is all that keeps these threads apart.
    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with open(path) as file:
        assert sorted(file.read().splitlines()) == sorted(f"{n} {k}" for n in range(8) for k in range(10))


def test_the_folder_of_the_notes_is_a_setting(home, monkeypatch):
    for place, folder in (("~/mine", home / "mine"), (str(home / "other"), home / "other"), ("more", home.parent / "ftai" / "data" / "more")):
        monkeypatch.setenv("FTAI_NOTES", place)
        Done("note", text="x", path="a.txt")
        assert (folder / "a.txt").read_bytes() == b"x\n"
        assert Done("head", path="a.txt").answer == "x"


def test_a_home_that_is_missing_and_a_working_folder_that_is_gone(home, monkeypatch):
    (home / "x").mkdir()
    monkeypatch.chdir(home / "x")
    (home / "x").rmdir()
    monkeypatch.setenv("HOME", str(home / "nowhere"))
    assert Done("find", name="x").answer == "I found no file called 'x'."
    with pytest.raises(Failure) as bad:
        Done("head", path="x")
    assert bad.value.code == 66


def test_a_note_of_many_lines_cannot_forge_a_record():
    done = Done("note", text="x\n@decision\n  decision: yes\n@end")
    assert done.tags() == ["audit", "audit", "file"]


# -- about itself


def test_status():
    task("call Ada", "today")
    assert Done("status").answer == "1 open task, 1 due today. 4 records in the journal."


def test_help():
    answer = Done("help").answer
    assert "- remember to send the invoice tomorrow: adds a task, due when you say" in answer.splitlines()
    assert "remember" not in Done("help", topic="files by name").answer
    assert Done("help", topic="nothing like that").answer == answer


def test_time():
    assert Done("time").answer.startswith("It is ")
    assert Done("time", command={"tz": "Pacific/Kiritimati"}).answer != Done("time", command={"tz": "Pacific/Pago_Pago"}).answer


def test_the_specs_name_the_skills_that_there_are():
    assert [entry["name"] for entry in specs.load("system")["skill"]] == list(skills.SKILLS)


def test_skills_that_do_nothing_but_write_a_record_say_so():
    assert {name for name in skills.SKILLS if execution.Act(*skills.named(name)).journaled} == {"remember", "task", "finish", "document"}


def test_no_skill_but_the_named():
    for name in ("need", "named", "os", "", "append"):
        with pytest.raises(Failure) as bad:
            skills.named(name)
        assert bad.value.code == 78
