"""Reading records from bytes in any chunks, and writing them."""

import errno
import os
import stat
import subprocess
import sys

import orjson
import pytest
import strategies
from hypothesis import example, given
from hypothesis import strategies as st
from serenamaster import record, stream
from serenamaster.errors import DATAERR, IOERR, NOINPUT, SOME, Failure
from serenamaster.record import encode
from serenamaster.stage import Context

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
GOOD = b'{"@tag":"task","title":"x"}\n'


class Quiet(Context):
    """A context that keeps what is said."""

    def __init__(self):
        super().__init__("ftai-test")
        self.said: list[str] = []

    def error(self, message, hint=""):
        self.said.append(message)

    warn = error


def feed(monkeypatch, pieces):
    monkeypatch.setattr(stream, "chunks", lambda name: iter(pieces))


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[begin:end] for begin, end in zip([0, *ends], ends, strict=False) if data[begin:end]]


def read(pieces, *, strict=False, files=("x",)):
    """(records, lines, what was said, statuses) of an input that comes in these pieces."""
    ctx = Quiet()
    with pytest.MonkeyPatch.context() as monkeypatch:
        feed(monkeypatch, pieces)
        both = [pair for batch in stream.read(files, ctx, strict=strict) for pair in batch]
    return [rec for rec, _ in both], [line for _, line in both], ctx.said, ctx.codes


@given(
    st.lists(strategies.record, min_size=1, max_size=5),
    st.lists(st.integers(0, 10**6), max_size=6),
    st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\n \n"]),
    st.booleans(),
)
def test_lines_come_out_as_they_went_in_however_they_were_cut(records, places, end, closed):
    lines = [orjson.dumps(rec) for rec in records]
    data = end.join(lines) + (end if closed else b"")
    seen, raw, said, codes = read(cut(data, places))
    assert seen == records
    assert b"".join(raw).replace(b"\r\n", b"\n") == b"".join(line + b"\n" for line in lines)
    assert (said, codes) == ([], [])


@given(
    st.lists(st.sampled_from([GOOD, b"nonsense\n", b'{"@tag":"a","b":null}\n', b"\n", b'{"@tag":"b"}\r\n']), max_size=8),
    st.lists(st.integers(0, 300), max_size=6),
)
def test_a_bad_line_becomes_an_error_record_in_its_place_and_the_rest_comes_out(lines, places):
    data = GOOD + b"".join(lines)
    seen, raw, said, codes = read(cut(data, places))
    wanted = [line for line in [GOOD, *lines] if line.strip()]
    assert len(seen) == len(wanted)
    bad = 0
    for rec, out, line in zip(seen, raw, wanted, strict=True):
        if line in (GOOD, b'{"@tag":"b"}\r\n'):
            assert out == line
        else:
            bad += 1
            assert (rec["@tag"], rec["class"], rec["from"]) == ("error", "input", "ftai-test")
            assert out == encode(rec)
    assert codes == [SOME] * bad
    assert len(said) == bad


def test_the_place_of_a_bad_line_is_told_and_its_text_is_not():
    seen, _, said, _ = read([GOOD + b"\n" + b'password=hunter2 "\n' + GOOD])
    assert said[0].startswith("x:3:1: not JSON")
    assert (seen[1]["where"], seen[1]["sample"]) == ("x:3", 'aaaaaaaa=aaaaaa0 "')
    assert "hunter2" not in str(seen)


def test_strict_stops_at_the_first_and_gives_out_what_was_before():
    ctx, seen = Quiet(), []
    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(Failure) as bad:
        feed(monkeypatch, [GOOD + GOOD + b"bad\n" + GOOD])
        for batch in stream.read(("x",), ctx, strict=True):
            seen += batch
    assert len(seen) == 2
    assert bad.value.code == SOME
    assert bad.value.message.startswith("x:3")


@pytest.mark.parametrize("where", ["before", "after", "alone"])
def test_a_line_over_the_limit_is_skipped_to_the_next(where, monkeypatch):
    monkeypatch.setattr(stream, "LIMIT", 1000)
    long = b'{"@tag":"a","b":"' + b"x" * 5000 + b'"}\n'
    data = {"before": long + GOOD, "after": GOOD + long, "alone": long}[where]
    for size in (7, 999, 1000, 1001, 10**6):
        seen, raw, said, codes = read([data[at : at + size] for at in range(0, len(data), size)])
        assert [rec["@tag"] for rec in seen] == {"before": ["error", "task"], "after": ["task", "error"], "alone": ["error"]}[where]
        assert "5019 bytes, expected at most 1000" in said[0]
        assert codes == [SOME]


def test_a_line_of_exactly_the_limit_is_read(monkeypatch):
    monkeypatch.setattr(stream, "LIMIT", len(GOOD) - 1)
    seen, _, said, _ = read([GOOD[:10], GOOD[10:]])
    assert (len(seen), said) == (1, [])


@pytest.mark.parametrize("data", [b"", b"\n", b" \n\t\r\n"])
def test_nothing_gives_nothing(data):
    assert read([data] if data else []) == ([], [], [], [])


@pytest.mark.parametrize("data", [b"hello\n", b"\x00\x01\x02", b"[1]\n", b'"x"', b"\x7fELF" + bytes(5000), b"@task\n@end\n", b"- a"])
def test_what_is_in_neither_form_is_refused_whole(data):
    for pieces in ([data], [data[:1], data[1:]]):
        with pytest.raises(Failure) as bad:
            read(pieces)
        assert bad.value.code == DATAERR
        assert "ftai-listen" in bad.value.hint


TEXT = b'\xef\xbb\xbf\n@ftai v2.0\n\n@task\n  title: "x"\n@end\n\n@command\n  body: "y"\n@end\n'


@given(st.lists(st.integers(0, 200), max_size=8))
def test_text_form_is_read_however_it_was_cut(places):
    seen, raw, _, _ = read(cut(TEXT, places))
    assert [rec["@tag"] for rec in seen if rec.get("@tag") in ("task", "command")] == ["task", "command"]
    assert raw == [encode(rec) for rec in seen]


def test_a_bad_file_among_others_is_reported_and_the_others_are_read(tmp_path):
    (tmp_path / "good").write_bytes(GOOD)
    (tmp_path / "bad").write_bytes(b"neither\n")
    names = [str(tmp_path / name) for name in ("missing", "good", "bad", "good")]
    ctx = Quiet()
    seen = [rec for batch in stream.read(names, ctx) for rec, _ in batch]
    assert len(seen) == 2
    assert ctx.codes == [NOINPUT, DATAERR]


def test_missing_folder_and_unreadable_files_have_their_own_status(tmp_path):
    codes = []
    for name in ("missing", ".", "file/below"):
        (tmp_path / "file").write_bytes(GOOD)
        with pytest.raises(Failure) as bad:
            list(stream.chunks(str(tmp_path / name)))
        codes.append(bad.value.code)
        assert bad.value.message.startswith("cannot read '")
    assert codes == [NOINPUT, DATAERR, NOINPUT]


def test_a_file_name_that_is_no_text_can_be_named_in_an_error_record(tmp_path):
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\x1b[0m")
    with open(name, "wb") as out:
        out.write(GOOD + b"bad\n")
    ctx = Quiet()
    seen = [rec for batch in stream.read([name], ctx) for rec, _ in batch]
    assert seen[1]["where"].endswith("/\ufffd\ufffd[0m:2")


def test_what_an_error_record_quotes_of_a_bad_line_is_short_and_can_be_written():
    line = orjson.dumps({"@tag": "a", "\x1b[2J" + "k" * 5000: 1})
    seen, _, said, _ = read([line + b"\n"])
    assert not record.CONTROLS.search(seen[0]["message"])
    assert len(seen[0]["message"]) < 300
    assert len(said[0]) < 300


def test_a_batch_is_what_one_read_returned():
    ctx = Quiet()
    with pytest.MonkeyPatch.context() as monkeypatch:
        feed(monkeypatch, [GOOD * 3, GOOD[:5], GOOD[5:] + GOOD, b"\n"])
        assert [len(batch) for batch in stream.read(("x",), ctx)] == [3, 2]


@given(st.binary(max_size=200))
@example("¼ Ⅷ ፩ ²".encode())  # numbers, and neither letters nor digits
def test_a_sample_shows_the_shape_alone(data):
    shape = stream.mask(data)
    assert len(shape) <= 40
    assert not any(c.isalnum() and c not in "a0" for c in shape)
    assert not record.CONTROLS.search(shape)


def run(code: str, **settings) -> subprocess.CompletedProcess:
    head = f"import os, sys; sys.path.insert(0, {ROOT + '/lib'!r}); from serenamaster import stream\n"
    return subprocess.run([sys.executable, "-c", head + code], check=False, stderr=subprocess.PIPE, timeout=60, **settings)


def test_everything_is_written_to_a_slow_pipe_that_does_not_block():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import sys; sys.path.insert(0, {ROOT + '/lib'!r}); from serenamaster import stream\nstream.write(b'x' * 3_000_000); stream.flush()",
        ],
        stdout=writer,
    )
    os.close(writer)
    total = 0
    while data := os.read(reader, 1 << 16):
        total += len(data)
    os.close(reader)
    assert child.wait(60) == 0
    assert total == 3_000_000


def test_many_small_pieces_go_out_before_flush_is_called():
    ran = run("for _ in range(5000): stream.write(b'ab')\nos._exit(0)", stdout=subprocess.PIPE)
    assert len(ran.stdout) == 2 * 4096


def test_a_full_disk_is_a_failure_with_its_own_status():
    with open("/dev/full", "wb") as full:
        ran = run("stream.write(b'x')\ntry: stream.flush()\nexcept Exception as bad: sys.exit(bad.code)", stdout=full)
    assert ran.returncode == IOERR


def test_talk_to_a_closed_stderr_is_no_failure():
    assert run("os.close(2); stream.say('x'); sys.stderr = None; stream.say('x'); os._exit(0)").returncode == 0


def test_a_lock_is_held_by_one_and_has_a_deadline(tmp_path):
    path = str(tmp_path / "lock")
    with stream.Lock(path) as held:
        assert stat.S_IMODE(os.fstat(held.fd).st_mode) == 0o600
        for seconds in (0, 0.05):
            with pytest.raises(Failure) as bad, stream.Lock(path, seconds, "it is in use", "fuser lock"):
                pass
            assert (bad.value.message, bad.value.code, bad.value.hint) == ("it is in use", 75, "fuser lock")
    with stream.Lock(path, 0):
        pass


@pytest.mark.parametrize(("place", "words", "code"), [("none/lock", "No such file", 73), ("link", "it is a link", 73)])
def test_a_lock_that_cannot_be_opened(tmp_path, place, words, code):
    (tmp_path / "link").symlink_to(tmp_path / "else")
    with pytest.raises(Failure) as bad, stream.Lock(str(tmp_path / place)):
        pass
    assert bad.value.code == code and words in bad.value.message
    assert not (tmp_path / "else").exists()


def test_a_file_system_without_locks_is_no_bug(tmp_path, monkeypatch):
    import fcntl

    def none(fd, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(Failure) as bad, stream.Lock(str(tmp_path / "lock")):
        pass
    assert bad.value.code == 74 and "cannot lock" in bad.value.message
    monkeypatch.undo()
    with stream.Lock(str(tmp_path / "lock"), 0):
        pass


def test_save_writes_whole_files_for_the_user_alone(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o644)
    stream.save(str(path), b"new" * 100000)
    assert path.read_bytes() == b"new" * 100000
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["file"]


def test_save_leaves_the_old_file_and_nothing_else_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")

    def broken(fd):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(stream.os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        stream.save(str(path), b"new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_save_replaces_a_link_and_does_not_follow_it(tmp_path):
    (tmp_path / "target").write_text("theirs")
    (tmp_path / "link").symlink_to("target")
    stream.save(str(tmp_path / "link"), b"ours")
    assert (tmp_path / "target").read_text() == "theirs"
    assert not (tmp_path / "link").is_symlink()


def test_save_gets_past_what_a_killed_process_with_our_number_left(tmp_path):
    (tmp_path / f".file.{os.getpid()}.tmp").write_text("half")
    stream.save(str(tmp_path / "file"), b"whole")
    assert os.listdir(tmp_path) == ["file"]


def test_what_is_left_is_of_a_process_that_is_gone():
    child = subprocess.Popen(["true"])
    child.wait()
    for number in (child.pid, 1 << 40, 10**200):
        assert stream.is_left(f".file.{number}.tmp")
    for name in (f".file.{os.getpid()}.tmp", ".file.1.tmp", f"file.{child.pid}.tmp", f".file.{child.pid}", ".file.-5.tmp", ".torn"):
        assert not stream.is_left(name)


def test_a_message_is_one_line_whatever_a_name_holds(capfd):
    stream.say("cannot read 'a\nftai-log: forged\x9b2J\u202e\r': no such file")
    assert capfd.readouterr().err == "cannot read 'a\ufffdftai-log: forged\ufffd2J\ufffd\ufffd': no such file\n"
