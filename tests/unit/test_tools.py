"""Local commands: arguments, environment, bounds."""

import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serenamaster import execution, paths, record, specs, tools
from serenamaster.errors import Failure


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FTAI_HOME", str(tmp_path / "ftai"))
    monkeypatch.setenv("HOME", str(tmp_path))
    specs.forget()
    yield tmp_path
    specs.forget()


def do(run, timeout=20, output=10_000, stop=None, env=(), **slots):
    """Runs a command and returns (records, End)."""
    asked = record.make("command", "t", body="x")
    routed = record.make("route", "t", parent=asked, target="cmd:x") | {"@blocks": [{"@tag": "slots", **slots}]}
    job = execution.Job("t", routed, asked, "local", stop)
    act = tools.run(job, {"run": run, "timeout": timeout, "output": output, "env": env})
    made = []
    try:
        while True:
            made.append(next(act))
    except StopIteration as ended:
        return made, ended.value


def sh(script, *more, **how):
    return do(["sh", "-c", script, "sh", *more], **how)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


# -- arguments


def test_a_slot_is_a_whole_argument():
    assert tools.arguments(["cp", "{from}", "--", "{to}"], {"from": "a b", "to": "-c"}) == ["cp", "a b", "--", "-c"]


@pytest.mark.parametrize("part", ["--x={a}", "{a}{b}", "x{a}", "{a}x", "{", "{{a}}", "{a} "])
def test_a_slot_is_never_a_part_of_an_argument(part):
    with pytest.raises(Failure) as bad:
        tools.arguments(["x", part], {"a": "1", "b": "2"})
    assert bad.value.code == 78


def test_a_slot_never_names_the_program():
    with pytest.raises(Failure):
        tools.arguments(["{a}"], {"a": "rm"})


@pytest.mark.parametrize("value", ["-rf", "--output=/etc/x", "-"])
def test_a_slot_is_never_an_option(value):
    with pytest.raises(Failure) as bad:
        tools.arguments(["x", "{a}"], {"a": value})
    assert bad.value.code == 77


def test_a_slot_that_may_be_missing():
    assert tools.arguments(["x", "{a?}", "{b?}"], {"b": "1"}) == ["x", "1"]
    with pytest.raises(Failure) as bad:
        tools.arguments(["x", "{a}"], {})
    assert bad.value.code == 65


def test_a_slot_too_long_for_an_argument():
    with pytest.raises(Failure) as bad:
        tools.arguments(["x", "{a}"], {"a": "x" * 1024 * 1024})
    assert bad.value.code == 65
    assert do(["printf", "%s", "{a}"], a="x" * tools.ARGUMENT, output=tools.ARGUMENT)[1].body == "x" * tools.ARGUMENT


@given(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=50))
def test_whatever_a_slot_holds_it_is_one_argument(value):
    assert tools.arguments(["x", "--", "{a}"], {"a": value}) == ["x", "--", value]


@pytest.mark.parametrize("value", ["; rm -rf /", "$(touch made)", "`touch made`", "a\nb", "a\n@end\n", "*", "~", "|cat", "&& touch made", "'\"", "a\u2028b"])
def test_no_shell_sees_a_slot(home, value):
    _, end = do(["printf", "%s", "{a}"], a=value)
    assert end.status == "done"
    assert end.body == value.rstrip()
    assert not os.path.exists(home / "made")


def test_a_nul_never_reaches_a_program():
    assert do(["printf", "%s", "{a}"], a="a\0b")[1].body == "a\ufffdb"


# -- environment


def test_only_what_is_on_the_list_is_in_the_environment(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret")
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("WANTED", "yes")
    monkeypatch.setenv("PATH", f".:{os.environ['PATH']}::relative/bin")
    _, end = do(["env"], env=["WANTED"])
    seen = dict(line.split("=", 1) for line in end.body.splitlines())
    assert "WANTED" in seen
    assert seen["HOME"] == os.environ["HOME"]
    assert all(folder.startswith("/") for folder in seen["PATH"].split(":"))
    assert {name for name in seen if not name.startswith("LC_")} <= tools.KEEP | {"PATH", "WANTED"}


def test_standard_input_is_empty_and_the_folder_is_home(home):
    assert do(["cat"])[1].body == "Done."
    assert do(["pwd"])[1].body == str(home)


def test_a_child_gets_no_descriptor_of_ours(tmp_path):
    with open(tmp_path / "open", "w") as file:
        os.set_inheritable(file.fileno(), True)
        assert sh("ls /proc/self/fd")[1].body.split() == ["0", "1", "2", "3"]  # 3 is the folder that ls reads


# -- the end


def test_intent_and_outcome():
    made, end = sh("echo out")
    assert [(rec["@tag"], rec["outcome"]) for rec in made] == [("audit", "intended"), ("audit", "done")]
    assert made[0]["subject"] == made[1]["subject"] == "sh -c 'echo out' sh"
    assert made[1]["about"] == made[0]["id"]
    assert end == execution.End("done", "out", 0, None, {"exit": 0})


def test_a_failure_says_its_status_and_the_last_words():
    made, end = sh("echo out; echo first >&2; echo last >&2; exit 3")
    assert [rec["@tag"] for rec in made] == ["audit", "audit", "error"]
    assert made[1]["outcome"] == "failed"
    assert made[2] | {"class": "request", "message": "'sh' ended with status 3: last"} == made[2]
    assert end == execution.End("failed", "'sh' ended with status 3: last.\nout", 1, "request", {"exit": 3})


def test_a_signal_that_it_died_of():
    assert sh("kill -SEGV $$")[1].fields == {"signal": "SIGSEGV"}


def test_a_program_that_is_not_there():
    with pytest.raises(Failure) as bad:
        do(["no-such-program"])
    assert bad.value.code == 69


def test_what_it_wrote_is_cleaned():
    assert sh(r"printf 'a\000b\033[31m\377'")[1].body == "a\ufffdb\ufffd[31m\ufffd"


@pytest.fixture
def clock(monkeypatch, tmp_path):
    """The clock of the limit: it stands until the child has made the file `begun`, however long that takes, and is past every limit a look later."""
    looks: list = []

    def monotonic():
        looks.extend([None] * (tmp_path / "begun").exists())
        return 1000.0 if len(looks) > 2 else 0.0

    monkeypatch.setattr(tools, "time", SimpleNamespace(monotonic=monotonic, sleep=time.sleep))
    return f": >{tmp_path}/begun"


def test_the_time_limit(clock):
    began = time.monotonic()
    made, end = sh(f"echo begun; {clock}; sleep 600", timeout=2)
    assert end.status == "failed"
    assert end.kind == "timeout"
    assert end.code == 75
    assert end.fields["signal"] == "SIGTERM"
    assert end.body.endswith("begun")
    assert time.monotonic() - began < 300  # only that it did not wait for the child


def test_the_time_limit_of_one_that_will_not_go(clock, monkeypatch):
    monkeypatch.setattr(tools, "GRACE", 0.2)
    _, end = sh(f"trap '' TERM; echo $$; {clock}; while :; do sleep 1; done", timeout=2)
    assert end.fields["signal"] == "SIGKILL"
    assert not alive(int(end.body.split()[-1]))


def test_the_time_limit_of_one_that_closed_its_output(clock):
    assert sh(f"exec >&- 2>&-; {clock}; exec sleep 600", timeout=0.3)[1].kind == "timeout"


def test_the_output_cap():
    _, end = do(["yes"], output=5000)
    assert end.status == "failed"
    assert end.body.count("y\n") >= 2499
    assert len(end.body) < 5100
    assert sh("head -c 5000 /dev/zero | tr '\\0' x", output=5000)[1].body == "x" * 5000


def test_much_on_stderr_is_no_failure():
    assert sh("head -c 1000000 /dev/zero >&2; echo out")[1].body == "out"


def test_grandchildren_do_not_outlive_it():
    _, end = sh("sleep 600 & echo $!")
    assert end.status == "done"
    deadline = time.monotonic() + 300
    while alive(int(end.body)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(int(end.body))


def test_a_signal_ends_it():
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        stop = execution.Stop()
        mark = os.path.join(os.environ["HOME"], "pid")

        def kill():
            deadline = time.monotonic() + 300
            while not os.path.exists(mark) and time.monotonic() < deadline:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)

        killer = threading.Thread(target=kill)
        killer.start()
        made, end = sh("echo $$ >pid.new; mv pid.new pid; sleep 600", stop=stop)
        killer.join()
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
    assert end.status == "cancelled"
    assert made[-1]["outcome"] == "cancelled"
    with open(mark) as file:
        assert not alive(int(file.read()))


# -- what is declared


def test_only_declared_commands():
    act, reach, plan = tools.named("date")
    assert reach == "local"
    with pytest.raises(Failure) as bad:
        tools.named("rm")
    assert bad.value.code == 78


def test_a_command_that_was_turned_off():
    os.makedirs(paths.config())
    with open(os.path.join(paths.config(), "serenamaster.commands.ftai"), "w") as file:
        file.write('@ftai v2.0\n@program\n  name: "date"\n  off: true\n@end\n')
    specs.forget()
    with pytest.raises(Failure) as bad:
        tools.named("date")
    assert bad.value.code == 77


def test_the_shipped_commands_run():
    for entry in specs.load("commands")["program"]:
        _, end = do(entry["run"], timeout=entry["timeout"], output=entry["output"], env=entry.get("env", ()))
        assert end.status == "done", entry["name"]
