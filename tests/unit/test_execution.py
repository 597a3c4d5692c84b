"""Acting on routes: what is acted on, in which order records come, what an effect waits for, who may see it."""

import os
import signal
from contextlib import suppress

import pytest
from serenamaster import archive, execution, journal, paths, record, skills, specs, state
from serenamaster.errors import Failure

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FTAI_HOME", str(tmp_path / "ftai"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TZ", "UTC")
    specs.forget()
    yield tmp_path
    specs.forget()


class Run:
    """A Runner over real claims, journal and archive, whose failures are kept."""

    def __init__(self, acts=None, **more):
        self.failures, self.bugs, self.warnings = [], [], []
        self.claims = state.Claims("ftai-exec")
        past = execution.Past(archive.connect, archive.get, self.warnings.append)
        given = {
            "claims": self.claims, "append": append, "find": past.find, "ended": past.ended, "kinds": {"skill": skills.named, "cmd": lambda name: acts[name]},
            "fail": self.failures.append, "bug": self.bugs.append, "default": lambda: "local",
        }  # fmt: skip
        self.runner = execution.Runner("ftai-exec", **(given | more))

    def pieces(self, *records):
        return [list(piece) for piece in self.runner.batch([(rec, record.encode(rec)) for rec in records])]

    def __call__(self, *records):
        return [rec for piece in self.pieces(*records) for rec, _ in piece]

    @property
    def codes(self):
        return [bad.code for bad in self.failures]


def append(records):
    assert all(kind == "written" for kind, _, _ in journal.append(paths.journal(), records))


def refuse(records):
    raise Failure("cannot write the journal: no space", 74)


def pair(target="skill:remember", command=None, route=None, **slots):
    asked = record.make("command", "ftai-listen", body="x", tz="UTC", **(command or {}))
    routed = record.make("route", "ftai-route", parent=asked, target=target, rule="r", **(route or {}))
    slots = slots or {"what": "the code is 7"}
    return asked, routed | {"@blocks": [{"@tag": "slots", **slots}]}


def tags(records):
    return [rec["@tag"] for rec in records]


def ends(records):
    return [rec["status"] for rec in records if rec["@tag"] == "result"]


def history(rec):
    return rec | {"@blocks": [*rec.get("@blocks", ()), {"@tag": "chain", "seq": 1, "salt": "0" * 32, "hash": "0" * 64}]}


# -- order and parents


def test_the_records_of_a_route_stand_right_behind_it():
    asked, routed = pair()
    after = record.make("note", "t", body="x")
    made = Run()(asked, routed, after)
    assert tags(made) == ["command", "route", "attempt", "memory", "result", "note"]
    assert made[0] is asked
    for rec in made[2:5]:
        assert rec["parent"] == routed["id"]
        assert rec["thread"] == asked["thread"]
        assert rec["from"] == "ftai-exec"
    assert made[2] | {"target": "skill:remember", "n": 1, "status": "done"} == made[2]
    assert type(made[2]["ms"]) is int
    assert made[4] | {"target": "skill:remember", "status": "done", "body": "I'll remember: the code is 7."} == made[4]
    assert [rec["id"] for rec in made[:5]] == sorted(rec["id"] for rec in made[:5])


def test_lines_are_passed_on_as_the_same_bytes():
    asked, routed = pair()
    line = record.encode(asked).replace(b'":', b'" : ')
    piece = list(Run().runner.batch([(asked, line), (routed, record.encode(routed))]))[0]
    assert piece[0] == (asked, line)
    assert piece[1][1] == record.encode(routed)


def test_an_error_is_the_child_of_its_attempt_and_stands_before_the_result():
    def act(job):
        yield job.make("file", op="x")
        raise Failure("it broke", 65, "try again")

    run = Run({"x": (act,)})
    made = run(*pair("cmd:x"))[2:]
    assert tags(made) == ["attempt", "error", "file", "result"]
    assert made[1]["parent"] == made[0]["id"]
    assert made[1] | {"class": "input", "message": "it broke", "where": "cmd:x", "recovery": "ask", "next": "try again"} == made[1]
    assert made[0] | {"status": "failed", "class": "input"} == made[0]
    assert made[3] | {"status": "failed", "body": "It broke."} == made[3]
    assert run.codes == [65]


def test_what_was_begun_before_an_effect_is_handed_on_before_it():
    seen = []

    def act(job):
        seen.append("acting")
        yield job.audit("run", "x")
        seen.append("effect")
        return "done"

    run = Run({"x": (act,)})
    first, second = pair(), pair("cmd:x")
    for piece in run.runner.batch([(rec, record.encode(rec)) for rec in (*first, *second)]):
        seen.append(tags([rec for rec, _ in piece]))
    assert seen == ["acting", ["command", "route", "attempt", "memory", "result", "command", "route"], ["audit"], "effect", ["attempt", "result"]]


# -- what is acted on


def test_a_route_is_acted_on_once():
    asked, routed = pair()
    assert ends(Run()(asked, routed)) == ["done"]
    assert Run()(asked, routed) == [asked, routed]
    assert ends(Run(again=True)(asked, routed)) == ["done"]


def test_a_route_that_comes_twice_in_one_read():
    asked, routed = pair()
    assert tags(Run()(asked, routed, dict(routed), routed)) == ["command", "route", "attempt", "memory", "result", "route", "route"]


def test_a_uuid_in_capitals_is_the_same():
    asked, routed = pair()
    assert ends(Run()(asked, routed)) == ["done"]
    assert ends(Run()(asked, routed | {"id": routed["id"].upper()})) == []


@pytest.mark.parametrize("first", [str.upper, str.lower])
@pytest.mark.parametrize("second", [str.upper, str.lower])
def test_a_uuid_in_capitals_has_the_same_result(first, second):
    asked, routed = pair()
    one, two = (routed | {"id": form(routed["id"])} for form in (first, second))
    result = record.make("result", "t", parent=one, status="done")
    assert ends(Run()(asked, two, result)) == ["done"]
    run = Run()
    assert run(asked, result) == [asked, result]
    assert run(two) == [two]
    append(Run()(asked, one))
    for end in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):  # the last connection takes the WAL away with it
            os.unlink(paths.state_db() + end)
    assert list(Run().runner.plan([(rec, b"") for rec in (asked, two)])) == []
    assert Run()(asked, two) == [asked, two]


@pytest.mark.parametrize("change", [history, lambda rec: rec | {"provisional": True}, lambda rec: {"@tag": "note", "@blocks": [rec]}])
def test_history_provisional_and_nested_routes_are_passed(change):
    asked, routed = pair()
    assert Run()(asked, change(routed)) == [asked, change(routed)]
    assert ends(Run()(asked, routed)) == ["done"]


def test_history_of_a_command_does_not_keep_its_route_from_being_done():
    asked, routed = pair()
    assert ends(Run()(history(asked), routed)) == ["done"]


@pytest.mark.parametrize("split", [False, True])
def test_a_route_whose_result_is_there_is_passed(split):
    asked, routed = pair()
    result = record.make("result", "t", parent=routed, status="done")
    run = Run()
    if split:
        assert run(asked, result) == [asked, result]
        assert run(routed) == [routed]
    else:
        assert run(asked, routed, result) == [asked, routed, result]


def test_a_route_whose_result_is_in_the_archive_is_passed():
    asked, routed = pair()
    append(Run()(asked, routed))
    for end in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):  # the last connection takes the WAL away with it
            os.unlink(paths.state_db() + end)
    assert Run()(asked, routed) == [asked, routed]


def test_a_route_without_id_is_stamped_and_done():
    asked, routed = pair()
    made = Run()(asked, {key: value for key, value in routed.items() if key not in ("id", "ts")} | {"id": "R-1"})
    assert made[1]["ref"] == "R-1"
    assert record.is_id(made[1]["id"])
    assert made[-1] | {"parent": made[1]["id"], "status": "done"} == made[-1]


def test_an_orphan():
    _, routed = pair()
    run = Run()
    made = run(routed)
    assert tags(made) == ["route", "error", "result"]
    assert made[1] | {"class": "orphan", "parent": routed["id"]} == made[1]
    assert made[2]["status"] == "failed"
    assert run.codes == [1]
    assert ends(Run()(routed)) == []


def test_a_command_without_id_is_nobodys_parent():
    asked, routed = pair()
    del asked["id"], routed["parent"]
    assert [rec["class"] for rec in Run()(asked, routed) if rec["@tag"] == "error"] == ["orphan"]


def test_ids_that_a_person_wrote_find_their_command():
    asked, routed = pair()
    assert ends(Run()(asked | {"id": "T-1"}, routed | {"parent": "T-1"})) == ["done"]


def test_the_command_may_be_in_the_archive():
    asked, routed = pair()
    append([asked])
    assert ends(Run()(routed)) == ["done"]


@pytest.mark.parametrize(("between", "kind"), [(execution.RECENT - 1, []), (execution.RECENT, ["orphan"])])
def test_the_command_may_be_among_the_last_records(between, kind):
    asked, routed = pair()
    run = Run()
    run(asked, *[{"@tag": "x"}] * between)
    assert [rec["class"] for rec in run(routed) if rec["@tag"] == "error"] == kind


def test_a_task_with_a_target_may_be_the_parent():
    asked = record.make("task", "t", title="x", target="skill:time")
    routed = record.make("route", "t", parent=asked, target="skill:time")
    assert ends(Run()(asked, routed)) == ["done"]


def test_a_parent_that_asks_nothing_is_no_command():
    note = record.make("note", "t", body="x")
    assert [rec["class"] for rec in Run()(note, record.make("route", "t", parent=note, target="skill:time")) if rec["@tag"] == "error"] == ["orphan"]


# -- targets


def test_ask():
    asked, routed = pair("ask", route={"hint": ["remember that {what}", "tasks"]})
    run = Run()
    made = run(asked, routed)
    assert tags(made) == ["command", "route", "result"]
    assert made[2] | {"status": "asked", "body": "I don't know how to do that. Did you mean: 'remember that {what}', or 'tasks'?"} == made[2]
    assert run.codes == []


@pytest.mark.parametrize(
    ("target", "code", "status", "kind"),
    [
        ("mcp:files.read", 69, "failed", "spec"), ("agent:cfo", 69, "failed", "spec"),
        ("skill:nothing", 78, "failed", "spec"), ("skill:", 78, "failed", "spec"), ("nonsense", 78, "failed", "spec"), ("shell:rm", 78, "failed", "spec"),
        (7, 78, "failed", "spec"), ("skill:__class__", 78, "failed", "spec"),
    ],
)  # fmt: skip
def test_targets_that_nothing_here_can_do(target, code, status, kind):
    run = Run()
    made = run(*pair(target))[2:]
    assert tags(made) == ["error", "result"]
    assert made[0]["class"] == kind
    assert ends(made) == [status]
    assert run.codes == [code]


def test_a_skill_that_the_specs_turn_off_is_refused():
    os.makedirs(paths.config())
    with open(os.path.join(paths.config(), "serenamaster.system.ftai"), "w") as file:
        file.write('@ftai v2.0\n@skill\n  name: "remember"\n  off: true\n@end\n')
    specs.forget()
    run = Run()
    made = run(*pair())
    assert ends(made) == ["refused"]
    assert run.codes == [77]


@pytest.mark.parametrize(
    ("until", "ends_as"), [("2000-01-01T00:00:00Z", ["failed"]), ("2999-01-01T00:00:00Z", ["done"]), ("soon", ["failed"]), ("2000-01-01T00:00:00", ["failed"])]
)
def test_the_deadline_of_a_route(until, ends_as):
    assert ends(Run()(*pair(route={"deadline": until}))) == ends_as


# -- effects and the journal


def test_the_intent_is_in_the_journal_when_the_effect_comes():
    seen = []

    def act(job):
        intent = job.audit("run", "x")
        yield intent
        seen.append([rec for _, rec in journal.read(paths.journal())][-1]["id"] == intent["id"])
        yield job.audit("run", "x", outcome="done", intent=intent)
        seen.append([rec for _, rec in journal.read(paths.journal())][-1]["about"] == intent["id"])
        return "done"

    made = Run({"x": (act,)})(*pair("cmd:x"))
    assert seen == [True, True]
    assert tags(made)[2:] == ["audit", "audit", "attempt", "result"]
    assert all(rec["parent"] == made[1]["id"] for rec in made[2:])
    # What comes to ftai-log is there already.
    assert [kind for kind, _, _ in journal.append(paths.journal(), made)] == ["written", "written", "repeat", "repeat", "written", "written"]


def test_no_effect_without_its_record():
    seen = []

    def act(job):
        yield job.audit("run", "x")
        seen.append("effect")
        return "done"

    run = Run({"x": (act,)}, append=refuse)
    made = run(*pair("cmd:x"))
    assert seen == []
    assert tags(made)[2:] == ["attempt", "error", "result"]
    assert made[3]["class"] == "storage"
    assert ends(made) == ["failed"]
    assert run.codes == [74]


def test_an_outcome_that_cannot_be_journaled_is_told():
    calls = []

    def once(records):
        calls.append(records)
        if len(calls) > 1:
            refuse(records)

    def act(job):
        intent = job.audit("run", "x")
        yield intent
        yield job.audit("run", "x", outcome="done", intent=intent)
        yield job.make("file", op="x")
        return "done"

    run = Run({"x": (act,)}, append=once)
    made = run(*pair("cmd:x"))
    assert tags(made)[2:] == ["audit", "audit", "attempt", "error", "file", "result"]
    assert ends(made) == ["done"]
    assert run.codes == [74]


def test_a_bug_in_one_does_not_cost_the_others():
    def act(job):
        yield job.make("file", op="x")
        raise ZeroDivisionError

    run = Run({"x": (act,)})
    made = run(*pair("cmd:x"), *pair())
    assert tags(made) == ["command", "route", "attempt", "error", "file", "result", "command", "route", "attempt", "memory", "result"]
    assert made[3]["class"] == "bug"
    assert ends(made) == ["failed", "done"]
    assert [type(bad) for bad in run.bugs] == [ZeroDivisionError]


def test_what_cannot_be_claimed_is_not_done_and_may_be_sent_again(monkeypatch):
    asked, routed = pair()
    with state.Locked(paths.state_db() + ".lock"):
        monkeypatch.setattr(state, "LOCK_SECONDS", 0.01)
        run = Run()
        made = run(asked, routed)
    assert tags(made) == ["command", "route", "error"]
    assert made[2] | {"class": "storage", "recovery": "retry", "parent": routed["id"]} == made[2]
    assert run.codes == [75]
    assert ends(Run()(asked, routed)) == ["done"]


def test_an_archive_that_cannot_be_read_is_no_hindrance(monkeypatch):
    def connect():
        raise Failure("the archive cannot be read", 74)

    warnings = []
    past = execution.Past(connect, archive.get, warnings.append)
    run = Run(find=past.find, ended=past.ended)
    assert ends(run(*pair(), *pair())) == ["done", "done"]
    assert len(warnings) == 1


def test_an_answer_too_long_for_a_record_is_put_into_a_file():
    def act(job):
        return "ü" * execution.BODY
        yield

    made = Run({"x": (act,)})(*pair("cmd:x"))
    assert tags(made)[2:] == ["audit", "audit", "attempt", "file", "result"]
    with open(made[5]["path"], "rb") as file:
        assert file.read() == ("ü" * execution.BODY).encode()
    assert made[5]["bytes"] == 2 * execution.BODY
    assert os.stat(made[5]["path"]).st_mode & 0o777 == 0o600
    assert made[5]["path"] in made[6]["body"]


# -- interrupted


def test_what_a_dead_process_left_is_told_of_and_not_done():
    first, second, third = pair(), pair(), pair()
    dead = Run()
    pieces = dead.runner.batch([(rec, record.encode(rec)) for rec in (*first, *second)])
    next(pieces)  # written or not, nobody knows
    os.close(dead.claims.fd)  # as the kernel does
    run = Run()
    made = run(*second, *third)
    assert tags(made) == ["error", "result", "command", "route", "error", "result", "command", "route", "attempt", "memory", "result"]
    assert [rec["parent"] for rec in made[:2] + made[4:6]] == [first[1]["id"]] * 2 + [second[1]["id"]] * 2
    assert made[0]["class"] == "interrupted"
    assert made[1] | {"status": "failed", "target": "skill:remember", "thread": first[0]["thread"]} == made[1]
    assert run.codes == [1, 1]
    assert Run()(*first, *second) == [*first, *second]


def test_what_a_dead_process_left_with_a_result_in_the_journal_is_over():
    asked, routed = pair()
    dead = Run()
    append([rec for rec, _ in next(dead.runner.batch([(rec, record.encode(rec)) for rec in (asked, routed)]))])
    os.close(dead.claims.fd)
    assert Run()(*pair())[0]["@tag"] == "command"
    assert Run()(asked, routed) == [asked, routed]


def test_what_a_dead_process_journaled_by_handing_it_on_is_told_of():
    def act(job):
        yield job.audit("run", "x")
        raise AssertionError("not reached")

    for kept, told in ((True, ["failed", "done"]), (False, ["done"])):
        asked, routed = pair("cmd:x")
        dead = Run({"x": (act,)}, kept=kept)
        piece = next(dead.runner.batch([(rec, record.encode(rec)) for rec in (asked, routed)]))
        assert tags([rec for rec, _ in piece]) == ["command", "route"]
        os.close(dead.claims.fd)
        assert ends(Run()(*pair())) == told


def test_what_an_earlier_run_left_is_told_apart():
    dead, missed = Run(), []
    next(dead.runner.batch([(rec, record.encode(rec)) for rec in pair()]))
    os.close(dead.claims.fd)
    run = Run(missed=missed.append)
    assert ends(run(*pair())) == ["failed", "done"]
    assert (run.codes, len(missed)) == ([], 1)


def test_again_repeats_what_was_interrupted():
    asked, routed = pair()
    dead = Run()
    next(dead.runner.batch([(rec, record.encode(rec)) for rec in (asked, routed)]))
    os.close(dead.claims.fd)
    assert ends(Run(again=True)(asked, routed)) == ["done"]


# -- privacy


@pytest.mark.parametrize(
    ("command", "route", "seen"),
    [
        (None, None, None), ("local", None, "local"), ("local", "cloud", "local"), (None, "cloud", "cloud"), ("cloud", "cloud", "cloud"),
        ("cloud", "local", "local"), (None, "local", "local"), ("mine", "cloud", "mine"), ("cloud", None, "cloud"),
    ],
)  # fmt: skip
def test_results_and_memories_are_as_private_as_command_and_route(command, route, seen):
    asked, routed = pair(command={"privacy": command}, route={"privacy": route})
    if route is None:
        routed.pop("privacy", None)
    assert [rec.get("privacy") for rec in Run()(asked, routed)[2:]] == [seen] * 3


@pytest.mark.parametrize(
    ("default", "asked", "hit", "seen"),
    [
        ("local", "cloud", None, "local"), ("local", "cloud", "cloud", "cloud"), ("local", "cloud", "local", "local"), ("cloud", "cloud", None, "cloud"),
        ("cloud", None, "local", "local"), ("cloud", None, None, None), ("local", None, "cloud", None), ("cloud", "cloud", "secret", "secret"),
    ],
)  # fmt: skip
def test_an_answer_is_as_private_as_what_it_tells_of(default, asked, hit, seen):
    append([record.make("memory", "t", body="the invoice is paid", privacy=hit)])
    route = {"privacy": asked} if asked else None
    made = Run(default=lambda: default)(*pair("skill:recall", command={"privacy": asked}, route=route, what="invoice"))
    assert "the invoice is paid" in made[-1]["body"]
    assert made[-1].get("privacy") == seen


@pytest.mark.parametrize(
    ("privacy", "consent", "status"),
    [(None, True, "refused"), ("local", True, "refused"), ("cloud", False, "refused"), ("cloud", None, "refused"), ("cloud", True, "done")],
)
def test_what_may_leave_the_machine_needs_cloud_and_consent(privacy, consent, status):
    def act(job):
        return "sent"
        yield

    run = Run({"x": (act, "cloud")}, consent=None if consent is None else lambda target, rec: "" if consent else "no")
    made = run(*pair("cmd:x", command={"privacy": privacy}))
    assert ends(made) == [status]
    assert run.codes == ([77] if status == "refused" else [])


# -- plans


def test_a_plan_acts_on_nothing():
    ready, over = pair(), pair()
    Run()(*over)
    run = Run()
    batch = [(rec, record.encode(rec)) for rec in (*ready, *over, *pair("agent:x"))]
    said = [words for _, words in run.runner.plan(batch)]
    assert said == ["would do 'skill:remember' what='the code is 7'", "would not do 'agent:x': 'agent:x': nothing here can do this yet"]
    assert ends(Run()(*ready)) == ["done"]


# -- signals


@pytest.fixture
def handlers():
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def test_a_signal_lets_what_is_in_hand_come_to_its_end(handlers):
    stop = execution.Stop()

    def act(job):
        os.kill(os.getpid(), signal.SIGTERM)
        yield job.make("file", op="x")
        assert job.stopped()
        assert job.wait(len, "never called") is None
        return job.end("cancelled", "ended")

    run = Run({"x": (act,)}, stop=stop)
    first, second = pair("cmd:x"), pair()
    made = run(*first, *second)
    assert tags(made) == ["command", "route", "attempt", "file", "result"]
    assert made[2]["status"] == "cancelled"
    assert stop.number == signal.SIGTERM
    run.claims.close()
    assert ends(Run()(*second)) == ["done"]
    assert Run()(*first) == [*first]


def test_a_signal_ends_a_wait(handlers):
    stop = execution.Stop()

    def batches():
        yield [1]
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("not reached")

    assert list(stop.each(batches())) == [[1]]
    assert stop.number == signal.SIGINT
    assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL


def test_an_ignored_signal_stays_ignored(handlers):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    execution.Stop()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


# -- requests whose texts are not to be kept


def hidden(act, **more):
    return Run({"x": (act,)}, **more), pair("cmd:x", command={"log": "fact"}, route={"log": None})


def test_all_that_comes_of_a_hidden_command_says_so():
    def act(job):
        yield job.make("memory", body="x")
        yield job.audit("x", "y")
        raise Failure("it broke", 65)

    run, (asked, routed) = hidden(act)
    routed.pop("log")  # a router that does not know of it
    made = run(asked, routed)[2:]
    assert tags(made) == ["audit", "attempt", "error", "memory", "result"]
    assert {rec["log"] for rec in made} == {"fact"}


@pytest.mark.parametrize("way", ["refused", "failed", "ended", "no such target"])
def test_messages_hold_nothing_of_a_hidden_command(way):
    def act(job):
        if way == "ended":
            return execution.End("failed", "hunter2 is wrong", 69)
        raise Failure("cannot read 'hunter2'", 77 if way == "refused" else 66, "rm hunter2")
        yield

    run, records = hidden(act)
    if way == "no such target":
        records = records[0], records[1] | {"target": "mcp:hunter"}
    made = run(*records)
    assert ("hunter2" in str(made)) is (way != "no such target")
    assert run.codes == [{"refused": 77, "failed": 66, "ended": 69}.get(way, 69)]
    assert "hunter2" not in "".join(bad.message + bad.hint for bad in run.failures)
    assert records[1]["target"] in run.failures[0].message
    asked = pair("cmd:x", command={"log": "fact"}, what="hunter2")
    assert [said for _, said in run.runner.plan([(rec, b"") for rec in asked])] == ["would do 'cmd:x'"]


def test_a_bug_says_nothing_of_a_hidden_command():
    import traceback

    def act(job):
        raise ValueError("hunter2")
        yield

    run, records = hidden(act)
    run(*records)
    (bad,) = run.bugs
    said = "".join(traceback.format_exception(bad))
    assert "hunter2" not in said.replace('raise ValueError("hunter2")', "")  # that line is this file's
    assert "ValueError" in said and "in act" in said


def test_what_only_a_record_can_hold_is_refused_where_no_text_is_kept():
    def act(job):
        yield job.make("memory", body="x")

    run, records = hidden(act)
    run.runner.kinds["cmd"] = lambda name: (act, "local", None, True)
    made = run(*records)
    assert tags(made[2:]) == ["error", "result"] and run.codes == [77]
    assert made[-1]["status"] == "refused" and "ask again without --no-log" in made[-1]["body"]
    assert run.runner.kinds["cmd"] and tags(run(*pair("cmd:x"))[2:]) == ["attempt", "memory", "result"]


def test_a_long_answer_to_a_hidden_command_is_in_no_file(home):
    def act(job):
        return "x" * (execution.BODY + 1)
        yield

    run, records = hidden(act)
    assert len(run(*records)[-1]["body"]) == execution.BODY + 1
    assert not (home / "ftai" / "data").exists()
