"""What every stage does the same way, tried with stages made for it."""

import os
import pty
import random
import select
import signal
import stat
import string
import subprocess
import sys
from pathlib import Path

import pytest
from serenamaster import __version__, stage, stream
from serenamaster.errors import Failure, tally

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HEAD = f'''#!{sys.executable}
"""Tries things.

More about it.
"""
import os, sys, time
sys.path.insert(0, {ROOT + "/lib"!r})
from serenamaster import stage, stream
from serenamaster.errors import Failure
'''
PLAIN = """
def main(ctx, files=(), *, strict=False, count=1):
{body}

def options(click):
    return [click.Option(["--strict"], is_flag=True), click.Option(["--count"], type=int, default=1)]

stage.run(main, options, doc=__doc__)
"""
GOOD = b'{"@tag":"task","title":"x"}\n'
PASS = "    for batch in stream.read(files, ctx, strict=strict):\n        for rec, line in batch:\n            stream.write(line)\n        stream.flush()"


@pytest.fixture
def make(tmp_path):
    """Makes a stage of this source and gives a function that runs it."""

    def write(source: str):
        path = tmp_path / "ftai-try"
        path.write_text(HEAD + source)
        path.chmod(0o755)

        def run(*args, given=b"", **settings):
            settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 60, "check": False} | settings
            if "stdin" not in settings:
                settings["input"] = given
            return subprocess.run([str(path), *args], **settings)

        run.path = str(path)
        return run

    return write


@pytest.fixture
def plain(make):
    """A stage whose main has this body."""
    return lambda body: make(PLAIN.format(body=body))


def test_a_filter_passes_bytes_on(plain):
    ran = plain(PASS)(given=GOOD * 3)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, GOOD * 3, b"")


def test_with_and_without_click_it_does_the_same(plain, tmp_path):
    run = plain("    stream.write(repr((tuple(files), strict, count)).encode())")
    assert run().stdout == run("--count", "1").stdout == b"((), False, 1)"
    assert run("a", "-").stdout == run("--count=1", "a", "-").stdout == b"(('a', '-'), False, 1)"
    assert run("--strict", "--count", "3", "x").stdout == b"(('x',), True, 3)"
    assert run("--", "-x").stdout == b"(('-x',), False, 1)"


def test_click_is_imported_for_options_alone(plain):
    run = plain("    stream.write(repr('click' in sys.modules).encode())")
    assert (run().stdout, run("a", "-").stdout, run("--strict").stdout) == (b"False", b"False", b"True")


@pytest.mark.parametrize("args", [["--nonsense"], ["-x"], ["--count"], ["--count", "many"]])
def test_a_wrong_option_is_usage(plain, args):
    ran = plain("    pass")(*args)
    assert (ran.returncode, ran.stdout) == (2, b"")
    lines = ran.stderr.decode().splitlines()
    assert lines[0].startswith("ftai-try: ")
    assert args[0] in lines[0]
    assert lines[1] == "hint: ftai-try --help"


def test_help_and_version(plain):
    run = plain("    1 / 0")
    ran = run("--help")
    assert ran.returncode == 0
    assert ran.stdout.startswith(b"Usage: ftai-try [OPTIONS] [FILE...]")
    assert b"Tries things." in ran.stdout
    assert b"More about it" not in ran.stdout
    assert run("-h").stdout == ran.stdout
    assert run("--version").stdout.decode() == f"ftai-try {__version__}\n"


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_that_cannot_be_written_is_said_and_is_no_bug(plain, option):
    run = plain("    pass")
    with open("/dev/full", "wb") as full:
        ran = run(option, stdout=full)
    assert ran.returncode == 74
    assert b"cannot write" in ran.stderr


def test_an_expected_failure_is_one_line_and_its_status(plain):
    ran = plain("    stream.write(b'before\\n')\n    raise Failure(\"cannot do 'x'\", 75, 'try later')")()
    assert (ran.returncode, ran.stdout, ran.stderr) == (75, b"before\n", b"ftai-try: cannot do 'x'\nhint: try later\n")


def test_failures_on_the_way_count_at_the_end(plain):
    run = plain("    for code in map(int, files):\n        ctx.fail(Failure('no', code))\n    stream.write(b'all the same\\n')")
    for codes, status in [("75 75", 75), ("75 77", 1), ("75 70 1", 70), ("1 74", 74), ("", 0)]:
        ran = run(*codes.split())
        assert (ran.returncode, ran.stdout) == (status, b"all the same\n")


def test_a_failure_at_the_end_and_others_before_it(plain):
    assert plain("    ctx.fail(Failure('no', 1))\n    raise Failure('no', 75)")().returncode == 1
    assert plain("    ctx.fail(Failure('no', 1))\n    raise Failure('usage', 2)")().returncode == 2


def test_a_bug_is_named_and_its_traceback_is_in_a_file_of_the_users_own(plain, tmp_path):
    ran = plain("    stream.write(b'good\\n')\n    secret = 'hunter2'\n    raise ValueError(secret)")(env=os.environ | {"FTAI_HOME": str(tmp_path / "home")})
    assert (ran.returncode, ran.stdout) == (70, b"good\n")
    assert b"hunter2" not in ran.stderr
    assert ran.stderr.startswith(b"ftai-try: a bug in the program: ValueError\nhint: ")
    (path,) = (tmp_path / "home/state/bugs").iterdir()
    assert str(path) in ran.stderr.decode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "hunter2" in path.read_text()


@pytest.mark.parametrize(("given", "said"), [("5, 'Input/output error'", "read or write"), ("28, 'No space left on device', 'a/b'", "use 'a/b'")])
@pytest.mark.parametrize("click", [[], ["--count", "1"]])
def test_a_disk_that_is_full_or_dying_is_no_bug(plain, tmp_path, given, said, click):
    ran = plain(f"    stream.write(b'good\\n')\n    raise OSError({given})")(*click, env=os.environ | {"FTAI_HOME": str(tmp_path / "home")})
    assert (ran.returncode, ran.stdout) == (74, b"good\n")
    assert ran.stderr.decode() == f"ftai-try: cannot {said}: {given.split(chr(39))[1]}\n"
    # Any other may be one of ours.
    assert plain("    raise OSError(9, 'Bad file descriptor')")(*click, env=os.environ | {"FTAI_HOME": str(tmp_path / "home")}).returncode == 70


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_is_taken_away_at_the_end_is_not_ended_in_turn(plain, tmp_path, first):
    kill = "; ".join(f"os.kill(os.getpid(), {number:d})" for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM))
    body = f"    stage.tidy()\n    try:\n        os.kill(os.getpid(), {first:d})\n    finally:\n        {kill}\n        os.unlink(files[0])"
    (tmp_path / "x").write_text("in plain")
    ran = plain(body)(str(tmp_path / "x"))
    assert (ran.returncode, ran.stdout, ran.stderr) == (-first, b"", b"") and not (tmp_path / "x").exists()


def test_a_bug_is_named_where_its_traceback_cannot_be_kept(plain, tmp_path):
    (tmp_path / "home").write_text("")
    ran = plain("    raise RecursionError")(env=os.environ | {"FTAI_HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path)})
    assert ran.returncode == 70
    assert b"RecursionError" in ran.stderr


def secret():
    """Something of the form of a secret, which leads nowhere."""
    return "ghp_" + "".join(random.choices(string.ascii_letters + string.digits, k=36))


def test_no_message_and_no_traceback_holds_a_secret(plain, tmp_path):
    key = secret()
    env = os.environ | {"FTAI_HOME": str(tmp_path / "home")}
    say = f"ctx.warn('a {key}'); ctx.note('b {key}'); ctx.error('c {key}', 'd {key}'); stream.say('e {key}')"
    ran = plain(f"    {say}\n    raise ValueError('f {key}')")("-v", env=env)
    assert ran.returncode == 70
    lines = ran.stderr.decode().splitlines()
    beginnings = [line.removeprefix("ftai-try: ").partition("[redacted:github:")[0] for line in lines[:5]]
    assert beginnings == ["warning: a ", "b ", "c ", "hint: d ", "e "]
    (path,) = (tmp_path / "home/state/bugs").iterdir()
    assert "ValueError: f [redacted:" in path.read_text()
    # The line of the source that raised it stands in the traceback, and holds it too.
    assert key not in ran.stderr.decode() + path.read_text()


def test_the_traceback_of_a_hidden_request_has_no_words(plain, tmp_path):
    hidden = GOOD.replace(b'"x"', b'"xylophone","log":"fact"')
    fall = "    for batch in stream.read(files, ctx):\n        raise ValueError(batch[0][0]['title'])"
    for given, said in ((hidden, False), (GOOD.replace(b'"x"', b'"xylophone"'), True)):
        ran = plain(fall)(given=given, env=os.environ | {"FTAI_HOME": str(tmp_path / str(said))})
        assert ran.returncode == 70
        (path,) = (tmp_path / str(said) / "state/bugs").iterdir()
        assert ("xylophone" in path.read_text()) is said
        assert "ValueError" in path.read_text() and "in main" in path.read_text()


def test_a_traceback_outside_the_state_folder_has_no_words(plain, tmp_path):
    (tmp_path / "home").write_text("")
    (tmp_path / "tmp").mkdir()
    ran = plain("    raise ValueError(''.join(['xylo', 'phone']))")(env=os.environ | {"FTAI_HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp")})
    (path,) = (tmp_path / "tmp").iterdir()
    assert str(path) in ran.stderr.decode()
    assert "in main" in path.read_text() and "xylophone" not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_quiet_and_verbose(plain):
    run = plain("    ctx.note('a note')\n    ctx.warn('a warning')\n    ctx.error('an error')")
    assert run().stderr == b"ftai-try: warning: a warning\nftai-try: an error\n"
    assert run("-q").stderr == b"ftai-try: an error\n"
    assert run("--verbose").stderr == b"ftai-try: a note\nftai-try: warning: a warning\nftai-try: an error\n"


VERBS = """
def one(ctx, words=(), *, much=False):
    '''Does one thing.'''
    stream.write(repr((words, much, ctx.quiet)).encode())

def two(ctx):
    '''Does the other.'''
    stream.write(b"two")

stage.run({"one": (one, lambda click: [click.Option(["--much"], is_flag=True)], "[WORDS...]"), "two": (two, None, "")}, doc=__doc__)
"""


def test_verbs(make):
    run = make(VERBS)
    assert run("one", "a").stdout == b"(('a',), False, False)"
    assert run("one", "--much", "a").stdout == b"(('a',), True, False)"
    assert run("-q", "one", "a").stdout == run("one", "-q", "a").stdout == b"(('a',), False, True)"
    assert run("two").stdout == b"two"
    assert b"Does one thing." in run("--help").stdout
    assert b"--much" in run("one", "--help").stdout
    assert run("--version").stdout.decode() == f"ftai-try {__version__}\n"


@pytest.mark.parametrize("args", [[], ["three"], ["two", "words"], ["one", "--less"], ["--much", "one"]])
def test_wrong_verbs_are_usage(make, args):
    ran = make(VERBS)(*args)
    assert (ran.returncode, ran.stdout) == (2, b"")
    assert ran.stderr.startswith(b"ftai-try: ")
    assert ran.stderr.endswith(b"hint: ftai-try --help\n")
    assert "\ufffd".encode() not in ran.stderr  # as the line ends of a whole page would be shown


BARE = """
def main(ctx, *, much=False):
    stream.write(repr((much, ctx.quiet, 'click' in sys.modules)).encode())
    return None

def two(ctx, *, much=False):
    '''Does the other.'''
    stream.write(repr(("two", much, 'click' in sys.modules)).encode())

def options(click):
    return [click.Option(["--much"], is_flag=True, help="More.")]

stage.run({"": (main, options, ""), "two": (two, options, "")}, doc=__doc__)
"""


def test_what_runs_without_a_verb(make):
    run = make(BARE)
    assert run().stdout == b"(False, False, False)"
    assert run("--much", "-q").stdout == b"(True, True, True)"
    assert run("two").stdout == b"('two', False, False)"
    assert run("two", "--much").stdout == b"('two', True, True)"
    assert run("-q", "two").stdout == b"('two', False, True)"
    shown = run("--help").stdout.decode()
    assert shown.startswith("Usage: ftai-try [OPTIONS] [COMMAND] [ARGS]...\n")
    assert "--much" in shown
    assert "Does the other." in shown
    assert "--much" in run("two", "--help").stdout.decode()


@pytest.mark.parametrize("args", [[""], ["", "--much"], ["three"], ["-q", "three"], ["--much", "two"], ["--less"], ["two", "words"], ["--much", ""]])
def test_without_a_verb_nothing_is_guessed(make, args):
    ran = make(BARE)(*args)
    assert (ran.returncode, ran.stdout) == (2, b"")
    assert ran.stderr.endswith(b"hint: ftai-try --help\n")


def test_the_reader_went_away(plain):
    run = plain("    while True:\n        stream.write(b'x' * 100000)\n        stream.flush()")
    child = subprocess.Popen([run.path], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    child.stdout.read(10)
    child.stdout.close()
    assert child.wait(60) == -signal.SIGPIPE
    assert child.stderr.read() == b""
    child.stderr.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_by_the_signal_and_in_silence(plain, number):
    run = plain(PASS)
    child = subprocess.Popen([run.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    child.stdin.write(GOOD)
    child.stdin.flush()
    assert child.stdout.readline() == GOOD
    child.send_signal(number)
    assert child.wait(60) == -number
    assert (child.stdout.read(), child.stderr.read()) == (b"", b"")
    for pipe in (child.stdin, child.stdout, child.stderr):
        pipe.close()


def test_what_was_read_is_passed_on_while_the_input_is_still_open(plain):
    child = subprocess.Popen([plain(PASS).path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    waiting = select.poll()
    waiting.register(child.stdout, select.POLLIN)
    for _ in range(3):
        child.stdin.write(GOOD)
        child.stdin.flush()
        assert waiting.poll(30_000)
        assert child.stdout.readline() == GOOD
    child.stdin.close()
    assert child.wait(60) == 0
    child.stdout.close()


def test_an_input_on_a_terminal_is_usage(plain):
    master, slave = pty.openpty()
    ran = plain(PASS)(stdin=slave)
    os.close(slave)
    os.close(master)
    assert (ran.returncode, ran.stdout) == (2, b"")
    assert ran.stderr.startswith(b"ftai-try: nothing to read\nhint: ftai-try FILE")


@pytest.mark.parametrize(("closed", "status"), [("<&-", 66), (">&-", 74), ("2>&-", 0)])
def test_closed_standard_files(plain, tmp_path, closed, status):
    run = plain("    open('made', 'w').write('kept')\n" + PASS)
    command = f"printf '%s' '{GOOD.decode().strip()}' | ./ftai-try {closed}" if closed != "<&-" else "./ftai-try <&-"
    ran = subprocess.run(["bash", "-c", command], cwd=os.path.dirname(run.path), capture_output=True, check=False, timeout=60)
    assert ran.returncode == status
    assert b"Traceback" not in ran.stderr
    # The first file that is opened does not become standard output.
    assert (tmp_path / "made").read_text() == "kept"


def test_files_are_the_users_alone(plain, tmp_path):
    plain("    open('made', 'w').close(); os.mkdir('folder')")(cwd=tmp_path, umask=0)
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o700


def copy(tmp_path):
    """A clone with a stage in it and no .venv."""
    (tmp_path / "bin").mkdir()
    subprocess.run(["cp", "-r", f"{ROOT}/lib", str(tmp_path)], check=True)
    path = tmp_path / "bin/ftai-try"
    head = "import os, sys\nsys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), 'lib'))\n"
    path.write_text(head + "from serenamaster import stage, stream\ndef main(ctx):\n    stream.write(b'ran')\nstage.run(main, doc='Tries.')\n")
    # -S: without site-packages, so without orjson.
    return [sys.executable, "-S", str(path)]


def test_without_its_packages_it_says_how_to_get_them(tmp_path):
    ran = subprocess.run(copy(tmp_path), capture_output=True, check=False, timeout=60)
    assert (ran.returncode, ran.stdout) == (78, b"")
    assert ran.stderr == b"ftai-try: the package 'orjson' is missing\nhint: make run\n"


def test_without_its_packages_it_runs_again_with_those_of_the_clone(tmp_path):
    command = copy(tmp_path)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tmp_path / ".venv/bin/python").chmod(0o755)
    ran = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"ran", b"")


def by_chance(tmp_path):
    """What else a Python may have that is not ours: an orjson, and none of the other packages."""
    import orjson

    subprocess.run(["cp", "-r", os.path.dirname(orjson.__file__), str(tmp_path / "chance/orjson")], check=True)
    return os.environ | {"PYTHONPATH": str(tmp_path / "chance")}


def test_with_some_of_its_packages_it_runs_again_with_those_of_the_clone(tmp_path):
    command = copy(tmp_path)
    (tmp_path / "chance").mkdir()
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").write_text(f'#!/bin/sh\necho again >&2\nexec {sys.executable} "$@"\n')
    (tmp_path / ".venv/bin/python").chmod(0o755)
    ran = subprocess.run(command, capture_output=True, check=False, timeout=60, env=by_chance(tmp_path))
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"ran", b"again\n")


def test_a_package_that_is_missing_in_the_middle_of_the_work_is_no_bug(tmp_path):
    command = copy(tmp_path)
    (tmp_path / "chance").mkdir()
    path = Path(command[-1])
    path.write_text(path.read_text().replace("stream.write(b'ran')", "stream.write(b'ran'); import pyrage"))
    ran = subprocess.run(command, capture_output=True, check=False, timeout=60, env=by_chance(tmp_path))
    assert (ran.returncode, ran.stdout) == (78, b"ran")
    assert ran.stderr == b"ftai-try: the package 'pyrage' is missing\nhint: make run\n"


def test_byte_code_that_was_cut_off_is_removed(tmp_path):
    _, _, stage_file = copy(tmp_path)
    path = Path(stage_file)
    path.write_text(path.read_text().replace("stream.write(b'ran')", "stream.write(b'ran'); from serenamaster import dates"))
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def ran(*words):
        done = subprocess.run([sys.executable, path, *words], capture_output=True, check=False, timeout=60, env=env)
        return done.returncode, done.stdout, done.stderr.decode()

    assert ran() == (0, b"ran", "")
    (code,) = (tmp_path / "lib/serenamaster/__pycache__").glob("dates.*.pyc")
    for words in ((), ("-q",)):  # click takes the end of a file for an answer that is missing
        os.truncate(code, 1024)  # as a disk that was full
        status, out, said = ran(*words)
        assert (status, out) == (74, b"ran") and said.lstrip() == f"ftai-try: the byte code in '{code}' was damaged, and is removed\nhint: run it again\n"
        assert ran(*words) == (0, b"ran", "")


def test_byte_code_that_was_cut_off_keeps_no_stage_from_its_start(tmp_path):
    _, _, stage_file = copy(tmp_path)
    path = Path(stage_file)
    path.write_text(path.read_text().replace("import stage, stream", "import dates, stage, stream"))
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(2):
        ran = subprocess.run([sys.executable, path], capture_output=True, check=False, timeout=60, env=env)
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"ran", b"")
        (code,) = (tmp_path / "lib/serenamaster/__pycache__").glob("dates.*.pyc")
        assert code.stat().st_size > 1024
        os.truncate(code, 1024)


def test_a_venv_that_does_not_work_is_as_none(tmp_path):
    command = copy(tmp_path)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").write_text("#!/nowhere/python\n")
    (tmp_path / ".venv/bin/python").chmod(0o755)
    ran = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert (ran.returncode, ran.stderr) == (78, b"ftai-try: the package 'orjson' is missing\nhint: make run\n")


def test_what_it_starts_may_run_again_too(tmp_path):
    command = copy(tmp_path)
    path = Path(command[-1])
    path.write_text(path.read_text().replace("stream.write(b'ran')", "stream.write(os.environ.get('FTAI_AGAIN', 'none').encode())"))
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tmp_path / ".venv/bin/python").chmod(0o755)
    ran = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"none", b"")


def test_it_runs_again_only_once(tmp_path):
    command = copy(tmp_path)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    (tmp_path / ".venv/bin/python").chmod(0o755)
    ran = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert ran.returncode == 78
    assert ran.stderr.count(b"missing") == 1


@pytest.mark.parametrize(("codes", "status"), [([], 0), ([1], 1), ([65, 65], 65), ([65, 66], 1), ([70, 74], 70), ([73, 1], 73), ([2, 2], 2)])
def test_the_statuses_of_many_failures_make_one(codes, status):
    assert tally(codes) == status


def test_a_command_knows_its_options_without_being_run():
    import click

    made = stage.command(
        "ftai-x", lambda ctx, files=(), *, deep=False: None, lambda click: [click.Option(["--deep"], is_flag=True)], "Does.\n\nMore.", "[FILE...]"
    )
    assert isinstance(made, click.Command)
    assert {name for param in made.params for name in param.opts} >= {"--deep", "-q", "--quiet", "-v", "--verbose", "--version", "files"}
    assert made.help == "Does."


def test_a_failure_is_told_at_once(capsys):
    ctx = stage.Context("ftai-x")
    ctx.fail(Failure("no", 66, "do it"))
    assert capsys.readouterr().err == "ftai-x: no\nhint: do it\n"
    assert ctx.codes == [66]


def test_nothing_of_a_message_steers_a_terminal(capsys):
    stream.say("a\x1b[2Jb\x07")
    assert capsys.readouterr().err == "a\ufffd[2Jb\ufffd\n"


def test_a_bar_on_a_terminal_that_is_gone_does_not_end_the_work(make):
    body = """
    import pty
    ctx.bar(1, 2)
    screen, other = pty.openpty()
    os.dup2(other, 2)
    os.close(other)
    ctx.bar(1, 2)
    os.close(screen)
    ctx.bar(2, 2)
    stream.write(b"done\\n")
"""
    ran = make(PLAIN.format(body=body))()
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"done\n", b"")
