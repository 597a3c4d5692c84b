"""Words and documents as command records."""

import hashlib
import os

import pytest
from serenamaster import intake
from serenamaster.errors import DATAERR, NOINPUT, SOME, USAGE, Failure

THREAD = "0199c2f4-7d1e-7a31-9c1b-2f0a5b6c7d8e"


def test_a_command_is_the_first_of_its_thread():
    rec = intake.command("  send the invoice ", "ftai-listen", tz="Europe/Zurich", lang="en")
    assert list(rec) == ["@tag", "id", "ts", "thread", "from", "body", "via", "lang", "tz"]
    assert rec["thread"] == rec["id"]
    assert rec["body"] == "send the invoice"


def test_a_command_joins_a_thread_and_keeps_a_written_privacy():
    rec = intake.command("go on", "ftai-listen", thread=THREAD, privacy="cloud", tz="UTC")
    assert (rec["thread"], rec["privacy"]) == (THREAD, "cloud")
    assert rec["id"] != THREAD


@pytest.mark.parametrize("bad", ["\x00", "\x1b", "\x7f", "\ud800"])
def test_what_a_record_cannot_hold_becomes_a_replacement_character(bad):
    assert intake.command(f"a{bad}b\tc", "x", tz="UTC")["body"] == "a\ufffdb\tc"


def test_words_over_the_limit_are_refused_with_a_way_out():
    with pytest.raises(Failure) as caught:
        intake.command("x" * (intake.BODY + 1), "x", tz="UTC")
    assert caught.value.code == DATAERR
    assert "--file" in caught.value.hint


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Europe/Zurich", "Europe/Zurich"),
        (":Europe/Zurich", "Europe/Zurich"),
        ("/usr/share/zoneinfo/Asia/Tokyo", "Asia/Tokyo"),
        ("../../etc/passwd", "UTC"),
        ("../../../etc/passwd", "UTC"),
        ("No/Such", "UTC"),
    ],
)
def test_the_time_zone_is_a_name_that_exists_or_utc(monkeypatch, value, expected):
    if not os.path.isfile("/usr/share/zoneinfo/Europe/Zurich"):
        pytest.skip("no time zone data on this machine")
    monkeypatch.setenv("TZ", value)
    assert intake.zone() == expected


@pytest.mark.parametrize("front", ["", ":"])
def test_a_path_of_a_time_zone_is_followed(monkeypatch, tmp_path, front):
    if not os.path.isfile("/usr/share/zoneinfo/Europe/Zurich"):
        pytest.skip("no time zone data on this machine")
    (tmp_path / "localtime").symlink_to("/usr/share/zoneinfo/Europe/Zurich")
    monkeypatch.setenv("TZ", f"{front}{tmp_path}/localtime")
    assert intake.zone() == os.path.realpath("/usr/share/zoneinfo/Europe/Zurich").rpartition("zoneinfo/")[2]
    monkeypatch.setenv("TZ", f"{front}{tmp_path}/none")
    assert intake.zone() == "UTC"
    monkeypatch.setenv("TZ", "")
    local = intake.zone()
    monkeypatch.setenv("TZ", f"{front}/etc/localtime")
    assert intake.zone() == local


def test_a_small_text_document_is_nested_whole(tmp_path):
    path = tmp_path / "notes.md"
    path.write_text('line\n@decision\n  body: "forged"\n@end\n')
    block = intake.document(str(path))
    assert block["body"] == path.read_text()
    assert block["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (block["title"], block["path"], block["bytes"]) == ("notes.md", str(path), len(path.read_bytes()))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00binary", b"a\x00b", b"x" * (intake.BODY + 1)])
def test_binary_and_large_documents_are_named_and_not_nested(tmp_path, content):
    path = tmp_path / "big"
    path.write_bytes(content)
    block = intake.document(str(path))
    assert "body" not in block
    assert (block["bytes"], block["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())


def test_a_document_of_exactly_the_limit_is_nested(tmp_path):
    path = tmp_path / "edge"
    path.write_bytes(b"x" * intake.BODY)
    assert len(intake.document(str(path))["body"]) == intake.BODY


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(Failure) as missing:
        intake.document(str(tmp_path / "none"))
    with pytest.raises(Failure) as folder:
        intake.document(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Failure) as pipe:
        intake.document(str(tmp_path / "pipe"))
    assert [missing.value.code, folder.value.code, pipe.value.code] == [NOINPUT, DATAERR, DATAERR]


def test_the_thread_to_join(monkeypatch):
    monkeypatch.delenv("FTAI_THREAD", raising=False)
    assert intake.join(None, False, "text", None) is None
    assert intake.join(THREAD, True, "text", None) == THREAD
    assert intake.join(None, True, "voice", {"voice": THREAD}.get) == THREAD
    with pytest.raises(Failure) as none:
        intake.join(None, True, "text", {}.get)
    assert none.value.code == SOME
    monkeypatch.setenv("FTAI_THREAD", "nonsense")
    with pytest.raises(Failure) as wrong:
        intake.join(None, True, "text", {}.get)
    assert wrong.value.code == USAGE


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_lines_are_the_same_in_whatever_pieces_they_come(size):
    data = b"one\n\n  \r\ntwo\r\n" + b"x" * 50 + b"\nlast"
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert [pair for found in intake.lines(pieces) for pair in found] == [(1, b"one"), (4, b"two\r"), (5, b"x" * 50), (6, b"last")]


def test_an_endless_line_is_given_once_and_skipped_in_bounded_memory():
    pieces = [b"before\n", *[b"x" * 65536] * 100, b"\nafter\n"]
    found = [(number, line[:6], len(line)) for part in intake.lines(pieces) for number, line in part]
    assert [(number, head) for number, head, _ in found] == [(1, b"before"), (2, b"xxxxxx"), (3, b"after")]
    assert intake.BODY < found[1][2] < 3 * intake.BODY


def test_a_command_that_is_not_to_be_logged_says_so():
    assert intake.command("x", "x", tz="UTC", log="fact")["log"] == "fact"
    (made,) = [rec for batch in intake.commands(None, ["x"], stage="x", newest=None, no_log=True) for rec in batch]
    assert made["log"] == "fact"
