"""Backups: what a manifest may say, what a folder must be, what is written and what is not, and what is found wrong."""

import json
import os
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serenamaster import archive, backup, canonical, chain, journal, paths, proofs, purge, record, retention, seal, sealed, segments, specs, verification
from serenamaster.errors import CANTCREAT, CONFIG, DATAERR, IOERR, NOINPUT, NOPERM, TEMPFAIL, USAGE, Failure

STAGE = "ftai-test"
ID = "0199c2f4-7d1e-7a31-9c1b-2f0a5b6c7d8e"
HASH = "ab" * 32


def fresh(monkeypatch, home) -> None:
    """Another home, as a process that starts sees it."""
    monkeypatch.setenv("FTAI_HOME", str(home))
    monkeypatch.setattr(journal, "_live", {})
    archive._caught.clear()
    archive._desk.clear()
    specs.forget()
    seal._forget()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    fresh(monkeypatch, tmp_path / "home")
    yield tmp_path / "home"
    specs.forget()
    seal._forget()
    if archive._writer:
        archive._close()


@pytest.fixture
def to(tmp_path):
    """The folder for the backups of a journal with a key to sign them."""
    (tmp_path / "to").mkdir()
    proofs.make_key()
    write(5)
    return os.path.realpath(tmp_path / "to")


def write(count: int = 1, name: str = "n", **fields) -> list[dict]:
    made = [record.make("note", "ftai-elsewhere", body=f"{name} {n}", **fields) for n in range(count)]
    journal.append(paths.journal(), made, stage=STAGE)
    return made


def close(*, put_away: bool = False) -> int:
    """Closes the live segment, and seals it; returns its number."""
    folder = paths.journal()
    name = segments.rotate(folder, stage=STAGE)
    segment = next(part for part in chain.segments(folder) if part.name == name)
    if put_away:
        entry = segments.describe(folder, segment)
        fd = chain.regular(segment.path)
        entry |= sealed.write(fd, segment.path, entry)
        os.close(fd)
        segments.put_away(folder, segment, entry)
    return segment.number


class Said(list):
    """Takes messages and failures, and keeps them."""

    def __call__(self, what) -> None:
        self.append(what.message if isinstance(what, Failure) else what)


def make(to, failed=None, warned=None) -> dict:
    """A backup that goes well, unless the test says what is to be told."""
    failed, warned = Said() if failed is None else failed, Said() if warned is None else warned
    archive.catch_up(limit=None)
    return backup.make(to, stage=STAGE, warn=warned, fail=failed)


def good(to) -> dict:
    failed, warned = Said(), Said()
    made = make(to, failed, warned)
    assert (failed, warned) == ([], [])
    return made


def check(to, read_data: bool = True, keys=None) -> tuple[dict, list]:
    found = Said()
    return backup.check(to, keys, found, read_data=read_data, warn=found), found


def verify(home, segment=None) -> str:
    folder = os.path.join(home, "state", "journal")
    files = [os.path.join(folder, name) for name in os.listdir(folder)] if segment else ()
    _, troubles = verification.verify("" if segment else folder, files)
    return str(troubles[0]) if troubles else ""


def restore(to, into, keys=None, **settings) -> dict:
    return backup.restore(to, str(into), keys, verify=verify, warn=settings.pop("warn", Said()), **settings)


def tree(place) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in Path(place).rglob("*") if path.is_file() and path.name != ".lock"}


def raises(code: int, words: str):
    """As pytest.raises(), for the Failure with this status and these words."""

    class Raises:
        def __enter__(self):
            return self

        def __exit__(self, kind, bad, _):
            assert kind is not None and issubclass(kind, Failure), f"expected a Failure, seen {bad!r}"
            assert (bad.code, bool(re.search(words, bad.message))) == (code, True), (bad.code, bad.message)
            return True

    return Raises()


def entry(name="state/journal/000001.ftai", kind="segment", **more) -> dict:
    made = {"@tag": "entry", "name": name, "kind": kind, "object": f"{ID}.zst.sealed", "bytes": 5, "sha256": HASH, "sealed_bytes": 9, "sealed_sha256": HASH}
    return made | ({"segment": 1, "first": 1, "last": 5, "hash": HASH} if kind == "segment" else {}) | more


def about(count: int, **more) -> dict:
    said = {
        "@tag": "backup",
        "ts": "2026-11-26T14:45:16.123Z",
        "v": 1,
        "of": "all",
        "journal": ID,
        "key": "k",
        "verified": True,
        "size": 5,
        "head": HASH,
        "entries": count,
    }
    return said | more


def forge(to, name: str, change) -> str:
    """Signs a manifest with our own key anew, after change(about, entries); returns the note."""
    path = backup._path(to, name)
    said, entries = backup.parsed(proofs.opened(Path(path).read_text()))
    entries = change(said, entries) or entries
    note = proofs.sign(backup.written(said | {"entries": len(entries)}, entries))
    Path(path).write_text(note)
    return note


# ---- the manifest ----


def test_a_manifest_is_read_as_it_was_written():
    entries = [entry(), entry("state/journal/current.ftai", segment=7), entry("state/archive.db", "archive"), entry(f"data/answers/{ID}.txt", "answer")]
    assert backup.parsed(backup.written(about(4), entries)) == (about(4), entries)


HOSTILE = [
    ("../x", "segment"), ("/etc/passwd", "segment"), ("state/journal/../../../x.ftai", "segment"), ("state/journal/000001.ftai\n", "segment"),
    ("state/journal/1.ftai", "segment"), ("state/journal/000001.ftai", "answer"), ("state/journal/current.ftai/x", "segment"),
    ("state/keys/identity", "recipient"), ("state/keys/signing.key", "signer"), ("state/keys/keys.age", "recipient"), ("./state/archive.db", "archive"),
    ("state//archive.db", "archive"), ("State/archive.db", "archive"), ("config/serenamaster...ftai", "spec"), ("config/serenamaster.a/b.ftai", "spec"),
    ("config/serenamaster.é.ftai", "spec"), ("data/answers/../x.txt", "answer"), ("data/answers/x.txt", "answer"), ("", "segment"),
    ("state/journal/٠٠٠٠٠١.ftai", "segment"),
    ("state/journal/.lock", "accepted"), ("state/state.db-wal", "state"), ("state/archive.db", "nothing"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "kind"), HOSTILE)
def test_names_that_no_backup_has_are_refused(name, kind):
    with raises(DATAERR, "its name is none of those"):
        backup.parsed(backup.written(about(1), [entry(name, kind, segment=1, first=1, last=5, hash=HASH)]))


@pytest.mark.parametrize("more", [
    {"object": "../../x"}, {"object": f"{ID}.zst.sealed/../x"}, {"object": "a" * 40}, {"object": f".{ID}.zst.sealed"}, {"object": 1},
    {"object": f"{ID}.zst.sealed\n"},
    {"bytes": -1}, {"bytes": 1.5}, {"bytes": True}, {"bytes": 2**62}, {"sealed_bytes": "9"}, {"sha256": HASH.upper()}, {"sealed_sha256": HASH[1:]},
    {"segment": 2}, {"first": -1}, {"last": "5"}, {"hash": "x" * 64}, {"kind": ["segment"]}, {"name": ["x"]},
])  # fmt: skip
def test_fields_that_no_backup_has_are_refused(more):
    with raises(DATAERR, "is not what a backup holds"):
        backup.parsed(backup.written(about(1), [entry(**more)]))


@pytest.mark.parametrize("more", [
    {"@tag": "entry"}, {"ts": "2026-11-26T14:45:16Z"}, {"ts": "../../../../x"}, {"ts": 5}, {"v": 2}, {"of": "some"}, {"journal": "x"}, {"head": ""},
    {"size": -1},
    {"entries": 2}, {"verified": 1}, {"key": 1},
])  # fmt: skip
def test_a_manifest_says_of_itself_what_it_must(more):
    with raises(DATAERR, "does not begin"):
        backup.parsed(backup.written(about(1) | more, [entry()]))


def test_a_name_stands_once():
    with raises(DATAERR, "stands twice"):
        backup.parsed(backup.written(about(2), [entry(), entry()]))


def test_a_million_entries_are_refused_before_they_are_looked_at():
    line = backup.written(about(0), []) + "{}\n" * 1_000_000
    with raises(DATAERR, "more than 100000 entries"):
        backup.parsed(line)


@given(st.lists(st.one_of(st.text(), st.sampled_from([json.dumps(about(1)), json.dumps(entry()), "{}", "[]", "null"]))))
def test_no_text_gets_through_that_is_none(lines):
    try:
        _, entries = backup.parsed("\n".join(lines))
    except Failure as bad:
        assert bad.code == DATAERR
    else:
        assert all(os.path.normpath(one["name"]) == one["name"] for one in entries)


@given(st.text(alphabet="./0123456789abcdefu-_\n\0KÅ", max_size=60), st.sampled_from(sorted(backup.PLACES)))
def test_no_name_leads_out_of_the_home(name, kind):
    if backup.PLACES[kind].fullmatch(name):
        assert not os.path.isabs(name) and ".." not in name.split("/") and os.path.normpath(name) == name


def test_names_of_backups_sort_by_time_and_tell_it():
    ts = record.now()
    assert backup.instant(backup.named(ts)) == ts
    assert backup.NAME.fullmatch(backup.named(ts))


# ---- the folder ----


def test_the_folder_must_be_there(to, tmp_path):
    for missing in (tmp_path / "none", tmp_path / "none" / "below"):
        with raises(CANTCREAT, "there is no folder"):
            backup.located(str(missing), making=True)
        with raises(NOINPUT, "there is no folder"):
            backup.located(str(missing))
        assert not missing.exists()
    with pytest.raises(Failure, match="no folder for backups is known") as caught:
        backup.located(None)
    assert (caught.value.code, caught.value.hint) == (USAGE, "--to DIR, where they are")


@pytest.mark.parametrize("name", ["\udcff", "a\x01"])
def test_a_folder_that_no_record_can_tell_of_is_refused(to, tmp_path, name):
    (tmp_path / name).mkdir()
    for making in (False, True):
        with raises(USAGE, "no record can tell of"):
            backup.located(str(tmp_path / name), making=making)
    # Where to it is restored is only said, and nowhere looked up.
    good(to)
    assert restore(to, tmp_path / name)["into"] == f"{tmp_path}/{record.shown(name)}"


def test_which_folder_is_used(to, tmp_path, monkeypatch):
    other, link = tmp_path / "other", tmp_path / "link"
    other.mkdir()
    link.symlink_to(to)
    good(backup.located(str(link), making=True))
    assert backup.located(None) == backup.located(None, making=True) == to
    good(backup.located(str(other), making=True))
    assert backup.located(None) == str(other)
    assert list(backup.known()) == [str(other), to]
    config = Path(paths.where("config"))
    config.mkdir(mode=0o700)
    (config / "serenamaster.config.ftai").write_text(f'@ftai v2.0\n\n@place\n  name: "backup"\n  value: "{to}"\n  summary: "x"\n@end\n')
    specs.forget()
    assert backup.located(None, making=True) == to
    assert backup.located(None) == str(other)


def test_a_folder_that_holds_something_else_is_left_alone(to):
    Path(to, "photo.jpg").write_text("x")
    with raises(CANTCREAT, "is not empty"):
        make(to)
    assert os.listdir(to) == ["photo.jpg"]


def test_a_disk_that_is_not_mounted_is_not_taken_for_an_empty_one(to):
    good(to)
    shutil.rmtree(to)
    os.mkdir(to)
    with raises(CANTCREAT, "its disk is not mounted"):
        make(to)
    assert os.listdir(to) == []
    with raises(NOINPUT, "there is no backup"):
        check(to)
    # As the hint tells where the disk is lost, and another one is in its place.
    places = Path(paths.where("state"), "backups")
    places.write_text("".join(line for line in places.read_text().splitlines(True) if to not in line))
    good(to)


def test_a_folder_whose_first_backup_failed_is_told_of_by_a_check(to):
    good(to)
    [note] = Path(to, "snapshots").iterdir()
    note.unlink()
    backup.remember(to, snapshot=None, held=[])
    made, found = check(to)
    assert (made["outcome"], made["snapshots"]) == ("failed", 0)
    assert found == [f"there is no backup in '{to}'"]


@pytest.mark.parametrize("words", ["", "x", "ftai-backup/1", "ftai-backup/1 \n", "\0" * 49, "x" * 5000])
def test_a_damaged_marker_says_how_to_write_it_anew(to, tmp_path, words):
    good(to)
    marker = Path(to, backup.MARKER)
    whole = marker.read_text()
    marker.write_text(words)
    for act in (make, check, lambda to: restore(to, tmp_path / "restored"), backup.owner):
        try:
            act(to)
        except Failure as bad:
            assert (bad.code, bad.message) == (DATAERR, f"'{marker}' is damaged")
            hint = bad.hint
        else:
            raise AssertionError("it was believed")
    assert hint == f"echo '{whole.strip()}' >'{marker}'; ftai-rotate check"
    subprocess.run(hint.partition(";")[0], shell=True, check=True)
    assert marker.read_text() == whole and check(to)[1] == []
    # Where nothing tells of which journal it was, or a newer version made it.
    marker.write_text(words)
    shutil.rmtree(Path(to, "snapshots"))
    with pytest.raises(Failure) as failure:
        backup.owner(to)
    assert "begin in another folder" in failure.value.hint
    marker.write_text(whole.replace("/1 ", "/2 "))
    with pytest.raises(Failure) as failure:
        backup.owner(to)
    assert "is of a newer version" in failure.value.message and "a newer one" in failure.value.hint


def test_a_marker_with_the_id_of_another_journal_lets_no_manifest_be_believed(to):
    good(to)
    Path(to, backup.MARKER).write_text(f"ftai-backup/1 {ID}\n")
    report, found = check(to)
    assert report["refused"] == 2 and all("it is of another journal" in words for words in found)


def test_what_a_mount_point_has_of_its_own_is_no_obstacle(to):
    Path(to, "lost+found").mkdir()
    good(to)


def test_another_journal_is_refused(to, tmp_path, monkeypatch):
    good(to)
    before = tree(to)
    fresh(monkeypatch, tmp_path / "second")
    proofs.make_key()
    write(3)
    with raises(NOPERM, "those of another journal"):
        make(to)
    with raises(NOPERM, "those of another journal"):
        backup.planned(to, stage=STAGE, warn=Said(), fail=Said())
    assert tree(to) == before


def test_without_a_signing_key_there_is_no_backup(to):
    os.unlink(os.path.join(paths.state(), "keys", "signing.key"))
    with raises(CONFIG, "no key to sign"):
        make(to)
    assert os.listdir(to) == []


@pytest.mark.parametrize("name", backup.FOLDERS)
def test_a_link_in_the_place_of_a_folder_is_refused(to, tmp_path, name):
    good(to)
    shutil.rmtree(os.path.join(to, name))
    (tmp_path / "elsewhere").mkdir()
    os.symlink(tmp_path / "elsewhere", os.path.join(to, name))
    with raises(NOPERM, "is no folder"):
        make(to)
    with raises(NOPERM, "is no folder"):
        check(to)
    assert os.listdir(tmp_path / "elsewhere") == []


def test_two_at_once(to, monkeypatch):
    good(to)
    monkeypatch.setattr(backup, "WAIT", 0.05)
    with open(os.path.join(to, ".lock")) as lock:
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX)
        for act in (make, check, lambda to: restore(to, f"{to}-restored")):
            with raises(TEMPFAIL, "in use|is made"):
                act(to)
        fcntl.flock(lock, fcntl.LOCK_SH)
        check(to)


# ---- what is in it ----


def test_all_that_is_to_be_there_and_nothing_else(to):
    write(3, "one")
    close(put_away=True)
    write(3, "two")
    close()
    seal.recipient()
    state, data, config = Path(paths.state()), Path(paths.data()), Path(paths.where("config"))
    (data / "answers").mkdir(mode=0o700)
    (data / "answers" / f"{ID}.txt").write_text("a long answer")
    (data / "answers" / ".hidden.txt").write_text("x")
    config.mkdir(mode=0o700)
    (config / "serenamaster.memory.ftai").write_text("@ftai v2.0\n")
    (config / "other.ftai").write_text("x")
    (state / "trusted").write_text("x\n")
    (state / "keys" / "keys.age").write_text("KEYSAGE")
    (state / "keys" / "identity").chmod(0o600)
    segments.certify(paths.journal(), ["closed 0"], stage=STAGE)
    from serenamaster import state as state_

    state_.connect(paths.state_db()).close()
    made = good(to)
    _, entries = backup.manifest(to, made["snapshot"], backup.owner(to))
    assert sorted(one["name"] for one in entries) == sorted(
        ["state/journal/000001.ftai", "state/journal/000002.ftai", "state/journal/current.ftai", "state/journal/checkpoint", "state/archive.db"]
        + ["state/state.db", "state/trusted", "state/keys/recipient", "state/keys/signing.pub", "config/serenamaster.memory.ftai", f"data/answers/{ID}.txt"]
    )
    assert {stat.S_IMODE(path.lstat().st_mode) for path in Path(to).rglob("*") if path.is_file()} == {0o600}
    assert {stat.S_IMODE(path.lstat().st_mode) for path in Path(to).rglob("*") if path.is_dir()} == {0o700}
    everything = b"".join(tree(to).values())
    secrets = [(state / "keys" / name).read_bytes().strip() for name in ("identity", "signing.key", "keys.age")]
    assert not [one for one in (*secrets, b"one 1", b"a long answer") if one in everything]
    # What was sealed already is there as it is; of the rest each is a sealed file of its own.
    part = next(one for one in entries if one["name"] == "state/journal/000001.ftai")
    assert Path(to, "objects", part["object"]).read_bytes() == (state / "journal" / "000001.ftai.zst.sealed").read_bytes()
    assert (part["segment"], part["first"]) == (1, 1)
    assert not os.path.exists(os.path.join(paths.cache(), "backup"))


def test_only_what_is_new_is_written(to):
    write(300, "one")
    close(put_away=True)
    write(300, "two")
    close()
    write(5, "live")
    first = good(to)
    write(1, "more")
    second = good(to)
    kinds = {}
    for made in (first, second):
        for one in backup.manifest(to, made["snapshot"], backup.owner(to))[1]:
            kinds.setdefault(one["name"], set()).add(one["object"])
    assert sorted(name for name, objects in kinds.items() if len(objects) > 1) == ["state/archive.db", "state/journal/current.ftai"]
    assert second["new"] < first["new"]
    # A segment that was plain and is sealed since is the same.
    close(put_away=True)
    third = good(to)
    again = {one["name"]: one["object"] for one in backup.manifest(to, third["snapshot"], backup.owner(to))[1]}
    assert {again["state/journal/000002.ftai"]} == kinds["state/journal/000002.ftai"]
    assert check(to)[1] == []


def test_what_was_purged_is_not_in_the_next(to):
    write(3, "geheim4711")
    close()
    good(to)
    list(purge.run(purge.Asked(pattern="geheim4711"), "test", stage=STAGE))
    made = good(to)
    restore(to, f"{to}-restored")
    assert not [name for name, data in tree(f"{to}-restored").items() if b"geheim4711" in data]
    assert check(to)[1] == []
    assert made["verified"]


def sealed_thread(monkeypatch) -> str:
    """The thread of an encrypted record."""
    monkeypatch.setenv("FTAI_ENCRYPT", "local")
    return write(1, "geheim4711")[0]["thread"]


def texts(home, monkeypatch, identity: str) -> list[str]:
    fresh(monkeypatch, home)
    keys = Path(home, "state", "keys")
    keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    (keys / "identity").write_text(identity + "\n")
    (keys / "identity").chmod(0o600)
    return [seal.opened(rec, lambda: identity)["body"] for _, rec in journal.read(paths.journal()) if rec["@tag"] == "note"]


def test_keys_of_threads_come_back_and_those_that_were_destroyed_do_not(to, tmp_path, monkeypatch):
    from serenamaster import secret

    sealed_thread(monkeypatch)
    identity = secret.identity()
    first = good(to)
    keys = backup.manifest(to, backup.KEYS, backup.owner(to))[1][0]["object"]
    restore(to, tmp_path / "before")
    list(purge.run(purge.Asked(pattern="geheim4711"), "test", stage=STAGE, opened=lambda rec: seal.opened(rec, lambda: identity)))
    # Until then the backup opens it.
    assert os.path.exists(os.path.join(to, "latest", keys))
    good(to)
    assert not os.path.exists(os.path.join(to, "latest", keys))
    assert restore(to, tmp_path / "after", before=backup.instant(first["snapshot"]))["snapshot"] == first["snapshot"]
    assert "geheim4711 0" in texts(tmp_path / "before", monkeypatch, identity)
    after = texts(tmp_path / "after", monkeypatch, identity)
    assert any(body.startswith("[sealed:") for body in after) and "geheim4711 0" not in after


def test_keys_of_threads_that_are_lost_stay_in_the_backup(to, tmp_path, monkeypatch):
    sealed_thread(monkeypatch)
    good(to)
    held = backup.manifest(to, backup.KEYS, backup.owner(to))[1]
    seal._forget()
    for end in ("", "-wal", "-shm"):
        Path(paths.state(), "keys", f"threads.db{end}").unlink(missing_ok=True)
    warned = Said()
    make(to, warned=warned)
    assert "keeps those it has" in warned[0]
    assert backup.manifest(to, backup.KEYS, backup.owner(to))[1] == held
    assert check(to)[1] == []


def test_older_keys_of_threads_that_are_put_back_are_refused(to, tmp_path, monkeypatch):
    sealed_thread(monkeypatch)
    good(to)
    shutil.copytree(os.path.join(to, "latest"), tmp_path / "kept")
    write(1, "other", thread=record.new_id())
    good(to)
    shutil.rmtree(os.path.join(to, "latest"))
    shutil.copytree(tmp_path / "kept", os.path.join(to, "latest"))
    report, found = check(to)
    assert report["outcome"] == "failed" and "older than the backup" in found[0]
    warned = Said()
    restore(to, tmp_path / "restored", warn=warned)
    assert "encrypted texts will not open" in warned[0]
    assert not (tmp_path / "restored" / "state" / "keys" / "threads.db").exists()


def test_a_damaged_database_does_not_keep_the_journal_from_its_backup(to):
    archive.catch_up(limit=None)
    archive._close()
    Path(paths.archive_db()).write_bytes(b"SQLite format 3\0" + b"x" * 9000)
    failed, warned = Said(), Said()
    made = backup.make(to, stage=STAGE, warn=warned, fail=failed)
    assert made["left"] == [paths.archive_db()] and "not in the backup" in failed[0]
    restore(to, f"{to}-restored")
    assert not os.path.exists(f"{to}-restored/state/archive.db")


@pytest.mark.parametrize("where", ["live", "plain", "sealed when it was damaged already"])
def test_a_damaged_segment_does_not_keep_the_rest_from_its_backup(to, monkeypatch, where):
    policy("  keep_last: 1\n")
    write(5, "one")
    first = good(to)
    number = 1 if where == "live" else close()
    path = Path(paths.journal(), chain.LIVE if where == "live" else f"{number:06d}.ftai")
    path.write_bytes(path.read_bytes().replace(b"one 2", b"two 2"))
    monkeypatch.setattr(journal, "_live", {})
    if where.startswith("sealed"):
        segment = chain.segments(paths.journal())[0]
        entry = segments.describe(paths.journal(), segment)
        fd = chain.regular(segment.path)
        entry |= sealed.write(fd, segment.path, entry)
        os.close(fd)
        segments.put_away(paths.journal(), segment, entry)
    for _ in range(2):
        failed = Said()
        made = make(to, failed)
        assert made["lost"] == ["segment 1 is damaged inside"] and failed == ["segment 1 is damaged inside; older backups are kept"] and made["stopped"]
    assert backup.listed(to, None, Said())[-1]["lost"] == made["lost"]
    assert first["snapshot"] in backup.names(to)
    report, found = check(to)
    assert report["outcome"] == "done" and "was damaged when it was backed up" in found[0]
    assert "hash does not fit" in str(restore(to, f"{to}-restored")["wrong"])
    restore(to, f"{to}-before", before=backup.instant(first["snapshot"]))
    assert b"one 2" in Path(f"{to}-before/state/journal/current.ftai").read_bytes()


def test_records_that_are_missing_at_the_end_of_a_closed_segment_are_told(to):
    write(5, "one")
    number = close()
    path = Path(paths.journal(), f"{number:06d}.ftai")
    path.write_bytes(path.read_bytes().partition(b"one 3")[0].rpartition(b"@note")[0])
    made = make(to, failed := Said())
    assert made["lost"] == ["the records from seq 9 to 10 are missing"] and len(failed) == 1 and made["stopped"]
    report, found = check(to)
    assert report["damaged"] == 1 and "the records from seq 9 to 10 are missing, and no signed checkpoint" in found[0]


def test_a_sealed_segment_that_is_damaged_does_not_keep_the_rest_from_its_backup(to):
    write(5, "one")
    close()
    write(5, "two")
    close(put_away=True)
    path = Path(paths.journal(), "000002.ftai.zst.sealed")
    flip(path, -5)
    failed = Said()
    made = make(to, failed)
    assert (made["left"], made["lost"], made["segments"]) == ([str(path)], ["segment 2 is missing"], 2)
    assert f"'{path}' is not in the backup" in failed[0] and made["stopped"]
    assert restore(to, f"{to}-restored")["wrong"]


LOSSES = {
    "a sealed segment": lambda folder: os.unlink(f"{folder}/000001.ftai.zst.sealed"),
    "the first two": lambda folder: [os.unlink(f"{folder}/{name}") for name in ("000001.ftai.zst.sealed", "000002.ftai")],
    "one in the midst": lambda folder: os.unlink(f"{folder}/000002.ftai"),
    "the tail": lambda folder: Path(folder, "current.ftai").write_bytes(
        Path(folder, "current.ftai").read_bytes().partition(b"three 1")[0].rpartition(b"@note")[0]
    ),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_what_the_journal_lost_is_told_and_older_backups_stay(to, loss, monkeypatch):
    policy("  keep_last: 1\n")
    write(3, "one")
    close(put_away=True)
    write(3, "two")
    close()
    write(3, "three")
    first = good(to)
    LOSSES[loss](paths.journal())
    monkeypatch.setattr(journal, "_live", {})
    for _ in range(2):
        failed = Said()
        made = make(to, failed)
        assert len(made["lost"]) == 1 and made["lost"][0] in failed[0] and made["stopped"]
        assert backup.manifest(to, made["snapshot"], backup.owner(to))[0]["lost"] == made["lost"]
        write(1, "later")
    assert first["snapshot"] in backup.names(to)
    # A tail leaves no gap.
    _, found = check(to)
    assert len(found) == (0 if loss == "the tail" else 2) and all(made["lost"][0] in words for words in found)
    assert drill(to)["outcome"] == ("done" if loss == "the tail" else "failed")


def test_a_journal_that_went_another_way_is_told(to, tmp_path, monkeypatch):
    """One that was restored from an older backup and gone on with."""
    policy("  keep_last: 1\n")
    seal.recipient()
    shutil.copytree(tmp_path / "home", tmp_path / "fork")
    write(3, "one")
    good(to)
    fresh(monkeypatch, tmp_path / "fork")
    policy("  keep_last: 1\n")
    write(30, "other")
    made = make(to, failed := Said())
    assert "does not go on from seq" in made["lost"][0] and made["stopped"] and len(failed) == 1


@pytest.mark.parametrize("ended", [True, False])
def test_what_retention_took_is_no_loss(to, tmp_path, ended):
    for name in ("one", "two", "three"):
        write(3, name)
        close(put_away=True)
        good(to)
    kept = [name for name in os.listdir(paths.journal()) if name.startswith("000002") or name == "ledger"]
    for name in kept:
        shutil.copy(os.path.join(paths.journal(), name), tmp_path / name)
    segments.drop(paths.journal(), [1, 2], "policy", stage=STAGE)
    for name in () if ended else kept:
        shutil.copy(tmp_path / name, os.path.join(paths.journal(), name))
    made = good(to)
    assert made["first"] == (13 if ended else 9)
    assert check(to)[1] == []


@pytest.mark.parametrize("change", ["before", "hash", "last", "other key", "none"])
def test_a_gap_is_explained_only_by_what_was_signed_for_it(to, monkeypatch, tmp_path, change):
    for name in ("one", "two"):
        write(3, name)
        close(put_away=True)
    write(3, "three")
    segments.drop(paths.journal(), [1], "policy", stage=STAGE)
    good(to)
    assert check(to)[1] == []
    note = Path(paths.journal(), "checkpoint")
    said = proofs.parsed(proofs.opened(note.read_text()))
    runs = [run._replace(**({"last": run.last - 1} if change == "last" else {change: HASH} if change in run._fields else {})) for run in said.removed]
    text = proofs.text(said.journal, said.size, said.head, proofs.lines(said.closed, said.segments, [] if change == "none" else runs))
    if change == "other key":
        fresh(monkeypatch, tmp_path / "other")
        proofs.make_key()
    note_ = proofs.sign(text)
    fresh(monkeypatch, tmp_path / "home")
    note.write_text(note_)
    make(to)
    report, found = check(to)
    assert report["damaged"] == 1 and f"{backup.names(to)[-1]}: segment 1 is missing, and no signed checkpoint says" in found[0]
    assert check(to, False)[0]["outcome"] == "done"


def test_a_lost_ledger_does_not_keep_it_from_its_backup(to):
    write(5, "one")
    close(put_away=True)
    write(5, "two")
    held = [rec for _, rec in journal.read(paths.journal())]
    Path(paths.journal(), "ledger").unlink()
    good(to)
    assert check(to)[1] == []
    restore(to, f"{to}-restored")
    assert [rec for _, rec in journal.read(f"{to}-restored/state/journal")] == held


def test_without_the_identity_it_is_made_and_says_so(to, tmp_path):
    place = Path(paths.state(), "keys", "identity")
    seal.recipient()
    place.rename(tmp_path / "identity")
    failed = Said()
    first = make(to, failed)
    assert not first["verified"] and "could not be opened again" in failed[0]
    assert backup.known()[to]["ok"] is False
    (tmp_path / "identity").rename(place)
    # What was there already was never opened: now it is.
    data = Path(to, "objects", next(one["object"] for one in backup.manifest(to, first["snapshot"], backup.owner(to))[1] if one["kind"] == "signer"))
    broken = bytearray(data.read_bytes())
    broken[-3] ^= 1
    data.write_bytes(broken)
    assert make(to)["mended"] == 1
    assert good(to)["verified"]


def test_after_a_backup_of_a_day_to_come_the_hints_lead_on(to, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(backup, "now", lambda: "2099-12-31T23:59:59.999Z")
        good(to)
    with pytest.raises(Failure) as caught:
        make(to)
    assert caught.value.code == TEMPFAIL
    os.unlink(re.search("rm '(.*)'", caught.value.hint)[1])
    warned = Said()
    make(to, warned=warned)
    book = re.search("take the line of '.*' out of '(.*)'", warned[0])[1]
    Path(book).unlink()
    good(to)
    assert check(to)[1] == [] and "20991231T235959.999Z" not in backup.names(to)


def test_a_clock_that_goes_back_is_seen(to):
    good(to)
    name = backup.names(to)[0]
    forge(to, name, lambda said, _: said.update(ts="2099-12-31T23:59:59.999Z"))
    os.rename(backup._path(to, name), backup._path(to, "20991231T235959.999Z"))
    before = tree(to)
    with raises(TEMPFAIL, "the clock is before the newest backup"):
        make(to)
    assert tree(to) == before


def test_what_is_no_backup_does_not_stop_one(to):
    made = good(to)
    shutil.copy(backup._path(to, made["snapshot"]), backup._path(to, "20991231T235959.999Z"))
    for name in (f"objects/{ID}.zst.sealed", "objects/.x.tmp", "latest/.x.tmp", "snapshots/.x.tmp"):
        Path(to, name).mkdir()
    warned = Said()
    assert make(to, warned=warned)["stopped"]
    assert "put in the place of another" in warned[0]
    os.unlink(backup._path(to, "20991231T235959.999Z"))
    good(to)
    assert Path(to, "objects", ".x.tmp").is_dir()


def test_lines_that_manifests_share_are_held_once(to):
    for _ in range(5):
        write(3)
        close()
        good(to)
    every, _ = backup._all(to, backup.owner(to))
    assert len({id(one) for name, (_, entries) in every.items() for one in entries if one["name"] == "state/journal/000001.ftai"}) == 1
    # What stands twice in one is found all the same.
    path = Path(backup._path(to, backup.names(to)[-1]))
    forge(to, backup.names(to)[-1], lambda _, entries: [*entries, entries[0]])
    assert "stands twice" in check(to)[1][0], path


def test_what_no_manifest_names_is_cleared_away(to):
    good(to)
    kept = sorted(tree(to))
    for name in (f"objects/{ID}.zst.sealed", f"objects/.{ID}.zst.sealed.1.tmp", "snapshots/.20261126T144516.123Z.note.1.tmp", f"latest/{ID}.zst.age"):
        Path(to, name).write_text("x")
    Path(to, "objects", "README").write_text("not ours")
    made = good(to)
    left = set(tree(to)) - set(kept)
    assert [name for name in left if "tmp" in name or ID in name] == []
    assert "objects/README" in left and f"snapshots/{made['snapshot']}.note" in left


def test_nothing_is_cleared_away_while_a_manifest_cannot_be_believed(to):
    first = good(to)
    write(3)
    second = good(to)
    path = Path(backup._path(to, second["snapshot"]))
    note = path.read_text()
    path.write_text(note.replace('"verified":true', '"verified":false'))
    warned = Said()
    made = make(to, warned=warned)
    assert "nothing is removed meanwhile" in warned[0] and made["stopped"]
    path.write_text(note)
    assert check(to)[1] == []
    assert backup.names(to) == [first["snapshot"], second["snapshot"], made["snapshot"]]


def test_what_cannot_be_read_or_copied_does_not_keep_the_rest_from_its_backup(to, tmp_path, monkeypatch):
    answers = Path(paths.data(), "answers")
    answers.mkdir(mode=0o700)
    (answers / f"{ID}.txt").symlink_to("/etc/passwd")
    warned = Said()
    made = make(to, warned=warned)
    assert made["left"] == [str(answers / f"{ID}.txt")] and "cannot read" in warned[0]


def test_a_full_disk_of_the_home_does_not_keep_the_journal_from_its_backup(to, monkeypatch):
    import resource

    write(40, "x" * 3000)
    archive.catch_up(limit=None)
    archive._close()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = os.path.getsize(paths.archive_db())
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, hard))
        made = backup.make(to, stage=STAGE, warn=Said(), fail=Said())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
    assert made["left"] == [paths.archive_db()] and made["verified"]
    assert restore(to, f"{to}-restored")["outcome"] == "done"


def test_a_folder_without_backups_where_no_key_is_known(tmp_path, monkeypatch):
    fresh(monkeypatch, tmp_path / "new")
    (tmp_path / "empty").mkdir()
    with raises(NOINPUT, "there is no backup"):
        backup.signers(str(tmp_path / "empty"), None, Said())


def test_no_name_is_no_folder(to):
    good(to)
    for making in (True, False):
        with raises(USAGE, "no folder"):
            backup.located("", making=making)


# ---- retention ----


def policy(words: str) -> None:
    config = Path(paths.where("config"))
    config.mkdir(mode=0o700, exist_ok=True)
    (config / "serenamaster.memory.ftai").write_text(f'@ftai v2.0\n\n@retention\n  name: "backups"\n  summary: "x"\n{words}@end\n')
    specs.forget()


def test_the_policy_takes_old_backups_away_with_what_only_they_name(to):
    policy("")
    for n in range(4):
        write(3, f"turn {n}")
        good(to)
    every = backup.names(to)
    assert len(every) == 4
    policy("  keep_last: 2\n")
    plan = backup.planned(to, stage=STAGE, warn=Said(), fail=Said())
    assert plan["gone"] == every[:3]
    assert [(one["name"], one["keep"]) for one in plan["blocks"]] == [(name, name == every[3]) for name in every]
    assert backup.names(to) == every
    made = good(to)
    assert made["gone"] == every[:3]
    assert backup.names(to) == [every[3], made["snapshot"]]
    named = {one["object"] for name in backup.names(to) for one in backup.manifest(to, name, backup.owner(to))[1]}
    assert set(os.listdir(f"{to}/objects")) == named
    assert check(to)[1] == []


def test_what_only_older_backups_have_keeps_them(to):
    policy("  keep_last: 1\n")
    answer = Path(paths.make(os.path.join(paths.data(), "answers")), f"{ID}.txt")
    answer.write_text("a long answer")
    first = good(to)["snapshot"]
    answer.unlink()
    answer.mkdir()
    for n in (2, 3):
        write(1)
        failed = Said()
        made = make(to, failed)
        assert made["left"] == [str(answer)] and "is not in the backup" in failed[0]
        assert made["stopped"] == "it lacks what older backups have" and len(backup.names(to)) == n
    # What was never in one keeps nothing.
    answer.rmdir()
    answer.with_name("odd.txt").write_text("x")
    write(1)
    made = make(to, Said())
    assert made["left"] == [str(answer.with_name("odd.txt"))] and first in made["gone"] and len(backup.names(to)) == 1


def test_the_newest_that_was_verified_stays_whatever_the_policy_says(to, tmp_path):
    policy("  keep_last: 1\n")
    seal.recipient()
    first = good(to)
    Path(paths.state(), "keys", "identity").rename(tmp_path / "identity")
    write()
    second = make(to)
    write()
    third = make(to)
    assert not second["verified"] and not third["verified"]
    assert backup.names(to) == [first["snapshot"], third["snapshot"]]


@pytest.mark.parametrize(("ts", "stops"), [("2099-01-01T00:00:00.000Z", True), ("2026-01-01T00:00:00.000Z", True), (None, False)])
def test_a_wrong_clock_takes_nothing_away(to, ts, stops):
    policy("  keep_last: 1\n")
    good(to)
    rec = record.make("note", "ftai-elsewhere", body="x")
    journal.append(paths.journal(), [rec | {"ts": ts} if ts else rec], stage=STAGE)
    # What the stage itself writes with that clock proves nothing.
    journal.append(paths.journal(), [record.make("audit", STAGE, act="backup")], stage=STAGE)
    failed = Said()
    made = make(to, failed)
    assert bool(made.get("stopped")) == bool(failed) == stops
    assert len(backup.names(to)) == (2 if stops else 1)
    assert bool(backup.planned(to, stage=STAGE, warn=Said(), fail=Said())["gone"]) != stops


def days(count: float) -> str:
    """The time so many days from now."""
    import datetime

    then = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=count)
    return then.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def noted(*when: float) -> None:
    journal.append(paths.journal(), [record.make("note", "ftai-elsewhere", body="x") | {"ts": days(count)} for count in when], stage=STAGE)


@pytest.mark.parametrize("place", ["live", "plain", "sealed", "sealed, and no identity"])
@pytest.mark.parametrize(("when", "stops"), [((-50, -0.1), True), ((-50, -0.9, -0.5), True), ((-20, -0.1), False), ((-50, -1.5, -0.1), False)])
def test_a_clock_that_leapt_is_not_believed_for_a_day(tmp_path, when, stops, place):
    """What others wrote with the wrong clock makes it look right."""
    os.mkdir(to := os.path.realpath(tmp_path / "to"))
    proofs.make_key()
    policy("")
    noted(*when)
    for _ in range(2):
        good(to)  # where nothing goes, nothing is said of the clock
    policy("  keep_last: 1\n")
    if place != "live":
        close(put_away=place.startswith("sealed"))
        noted(-0.05)
    if "identity" in place:
        Path(paths.state(), "keys", "identity").rename(tmp_path / "identity")
    failed = Said()
    made = make(to, failed)
    # Where the segment can't be opened, its first and last record tell, on the safe side.
    stops = stops or ("identity" in place and when[0] == -50)
    assert ("leapt ahead" in made.get("stopped", ""), any("leapt ahead" in words for words in failed)) == (stops, stops)
    assert bool(backup.planned(to, stage=STAGE, warn=Said(), fail=Said())["gone"]) != stops
    assert len(backup.names(to)) == (3 if stops else 2 if "identity" in place else 1)


def test_what_only_this_stage_wrote_since_tells_no_time(home):
    noted(-40)
    journal.append(paths.journal(), [record.make("audit", STAGE, act="backup") | {"ts": days(-3)}], stage=STAGE)
    close(put_away=True)
    assert backup._times(STAGE)[-1] < days(-39)


def test_of_what_was_sealed_long_ago_the_ledger_tells():
    """It is not opened."""
    for when in ((-90, -40), (-5, -4)):
        noted(*when)
        close(put_away=True)
    noted(-0.1)
    # The second begins with a checkpoint, of now.
    assert [round(retention.seconds(ts) / 86400 - retention.seconds(days(0)) / 86400, 1) for ts in backup._times(STAGE)] == [-90, -40, 0, -4, -0.1]
    for segment in chain.segments(paths.journal()):
        Path(segment.path).write_bytes(b"x")
    assert len(backup._times(STAGE)) == 5


def test_where_nobody_can_say_what_time_it_was_nothing_is_taken_away(to, tmp_path):
    policy("  keep_last: 1\n")
    good(to)
    close(put_away=True)
    journal.append(paths.journal(), [record.make("audit", STAGE, act="backup")], stage=STAGE)
    Path(paths.state(), "keys", "identity").rename(tmp_path / "identity")
    make(to)
    for _ in range(2):
        failed = Said()
        assert "the newest segment cannot be opened here" in make(to, failed)["stopped"]
    (tmp_path / "identity").rename(Path(paths.state(), "keys", "identity"))
    assert len(good(to)["gone"]) == 4


def test_behind_a_rotation_the_clock_is_compared_with_what_is_sealed(to):
    policy("  keep_last: 1\n")
    good(to)
    journal.append(paths.journal(), [record.make("note", "ftai-elsewhere", body="x") | {"ts": "2099-01-01T00:00:00.000Z"}], stage=STAGE)
    close(put_away=True)
    assert "before the newest record" in make(to)["stopped"]


# ---- copies of the archive ----


def copies(to) -> list[bool]:
    """For each backup, oldest first, whether its copy of the archive is there."""
    parts = [next(one for one in backup.manifest(to, name, backup.owner(to))[1] if one["kind"] == "archive") for name in backup.names(to)]
    return [Path(to, "objects", part["object"]).exists() for part in parts]


def several(to, count: int) -> list[dict]:
    """As many backups, each with something new, and a policy that keeps all."""
    policy("")
    made = []
    for n in range(count):
        write(2, f"turn {n}")
        made.append(good(to))
    return made


def test_only_the_newest_two_backups_keep_a_copy_of_the_archive(to):
    made = several(to, 4)
    assert copies(to) == [False, False, True, True]
    assert [one.get("archives") for one in made] == [None, None, [made[0]["snapshot"]], [made[1]["snapshot"]]]
    plan = backup.planned(to, stage=STAGE, warn=Said(), fail=Said())
    assert (plan["gone"], plan["archives"]) == (None, [made[2]["snapshot"]]) and copies(to) == [False, False, True, True]
    for read_data in (False, True):
        report, found = check(to, read_data)
        assert (report["outcome"], found) == ("done", [])
    failed = Said()
    assert [row["snapshot"] for row in backup.listed(to, None, failed)] == backup.names(to) and not failed
    # All else of older ones is there.
    named = {one["object"] for name in backup.names(to) for one in backup.manifest(to, name, backup.owner(to))[1]}
    assert len(named - set(os.listdir(f"{to}/objects"))) == 2


@pytest.mark.parametrize("which", [-1, -2])
def test_a_copy_that_should_be_there_is_missed(to, which):
    several(to, 3)
    named(to, "archive", which).unlink()
    report, found = check(to)
    assert (report["outcome"], report["damaged"], len(found)) == ("failed", 1, 1) and "'state/archive.db' is missing" in found[0]


def test_a_copy_that_is_damaged_before_it_goes_is_told(to):
    made = several(to, 3)
    # As one that was killed before it let go of it has it.
    Path(to, "objects", named(to, "archive", 0).name).write_bytes(b"x")
    report, found = check(to)
    assert report["damaged"] == 1 and made[0]["snapshot"] in found[0]
    good(to)
    assert check(to)[1] == []


def test_backups_that_could_not_be_opened_again_push_none_out(to, tmp_path):
    seal.recipient()
    several(to, 2)
    Path(paths.state(), "keys", "identity").rename(tmp_path / "identity")
    for _ in range(2):
        write()
        make(to)
    assert copies(to) == [True, True, True, True]
    (tmp_path / "identity").rename(Path(paths.state(), "keys", "identity"))
    write()
    good(to)
    assert copies(to) == [False, True, True, True, True]
    assert check(to)[1] == []


def test_backups_without_an_archive_push_none_out(to):
    several(to, 2)
    archive._close()
    Path(paths.archive_db()).write_bytes(b"x" * 9000)
    for _ in range(2):
        assert backup.make(to, stage=STAGE, warn=Said(), fail=Said())["left"] == [paths.archive_db()]
    os.unlink(paths.archive_db())
    held = {one["object"] for name in backup.names(to)[:2] for one in backup.manifest(to, name, backup.owner(to))[1]}
    assert held <= set(os.listdir(f"{to}/objects")) and check(to)[1] == []


def test_a_run_that_fails_or_stops_lets_go_of_no_copy(to, tmp_path, monkeypatch):
    import resource

    several(to, 2)
    write(40, "x" * 3000)
    archive.catch_up(limit=None)
    before = {name: data for name, data in tree(to).items() if not name.startswith("latest")}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
        with raises(IOERR, "File too large"):
            backup.make(to, stage=STAGE, warn=Said(), fail=Said())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
    assert {name: data for name, data in tree(to).items() if not name.startswith("latest")} == before
    # A manifest that can't be believed; a clock that is wrong; records that are lost.
    path = Path(backup._path(to, backup.names(to)[0]))
    note = path.read_text()
    path.write_text("x")
    assert make(to)["stopped"]
    path.write_text(note)
    assert copies(to) == [True] * 3
    journal.append(paths.journal(), [record.make("note", "ftai-elsewhere", body="x") | {"ts": "2099-01-01T00:00:00.000Z"}], stage=STAGE)
    assert make(to)["stopped"] and copies(to) == [True] * 4
    held = Path(paths.journal(), "current.ftai")
    whole = held.read_bytes()
    held.write_bytes(whole[: len(whole) // 2])
    monkeypatch.setattr(journal, "_live", {})
    failed = Said()
    assert make(to, failed)["stopped"] and copies(to) == [True] * 5
    assert check(to)[1] == []


def test_what_was_interrupted_is_let_go_by_the_next(to):
    several(to, 2)
    held = named(to, "archive", 0)
    data = held.read_bytes()
    write()
    good(to)
    held.write_bytes(data)
    assert copies(to) == [True, True, True] and check(to)[1] == []
    write()
    good(to)
    assert copies(to) == [False, False, True, True]


def test_a_policy_that_takes_the_newest_two_makes_no_damage_of_an_older_one(to):
    """The last one of the month before stays, and its copy is gone already."""
    first = several(to, 3)[0]["snapshot"]
    forge(to, first, lambda said, _: said.update(ts="2026-01-31T12:00:00.000Z"))
    os.rename(backup._path(to, first), backup._path(to, "20260131T120000.000Z"))
    Path(paths.state(), "backups").unlink()
    policy("  keep_monthly: 2\n")
    made = good(to)
    assert backup.names(to) == ["20260131T120000.000Z", made["snapshot"]] and copies(to) == [False, True]
    assert check(to)[1] == []
    good(to)
    assert check(to)[1] == []


def test_an_archive_that_is_again_as_one_that_was_let_go_is_written_again(to, tmp_path):
    archive.catch_up(limit=None)
    archive._close()
    shutil.copy(paths.archive_db(), tmp_path / "held")
    several(to, 3)
    archive._close()
    for end in ("-wal", "-shm"):
        Path(f"{paths.archive_db()}{end}").unlink(missing_ok=True)
    shutil.copy(tmp_path / "held", paths.archive_db())
    for _ in range(4):
        failed, warned = Said(), Said()
        made = backup.make(to, stage=STAGE, warn=warned, fail=failed)
        assert (failed, warned, made.get("mended")) == ([], [], None)
        assert check(to)[1] == []


def test_without_its_copy_the_archive_is_made_from_what_is_restored(to, tmp_path):
    write(5, "one")
    close(put_away=True)
    first = several(to, 3)[0]
    at = backup.instant(first["snapshot"])
    report = restore(to, tmp_path / "restored", before=at, rebuild=rebuild)
    assert (report["snapshot"], report["outcome"], report["rebuilt"]) == (first["snapshot"], "done", True)
    db = sqlite3.connect(tmp_path / "restored" / "state" / "archive.db")
    assert db.execute("SELECT count(*), max(seq) FROM records").fetchone() == (first["last"], first["last"])
    db.close()
    assert restore(to, tmp_path / "newest", rebuild=rebuild)["rebuilt"] is None
    assert restore(to, tmp_path / "one", before=at, segment=1, rebuild=rebuild)["rebuilt"] is None
    failed = restore(to, tmp_path / "failed", before=at, rebuild=lambda home: "no room")
    assert (failed["outcome"], failed["wrong"]) == ("damaged", "no room") and (tmp_path / "failed" / "state" / "journal").exists()


def test_a_drill_of_a_backup_without_its_copy(to):
    first = several(to, 3)[0]
    warned = Said()
    report = backup.drill(to, None, before=backup.instant(first["snapshot"]), verify=verify, rebuild=rebuild, warn=warned)
    assert (report["snapshot"], report["outcome"], report["rows"]) == (first["snapshot"], "done", None)
    assert warned == ["the backup has no archive to compare with"]


# ---- looking ----


def named(to, kind: str, snapshot=-1) -> Path:
    """The object of the first entry of this kind."""
    return Path(to, "objects", next(one["object"] for one in backup.manifest(to, backup.names(to)[snapshot], backup.owner(to))[1] if one["kind"] == kind))


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def letter(path: Path, at: int) -> None:
    """Another letter there, so that what is written in letters is still well-formed."""
    data = bytearray(path.read_bytes())
    data[at] = ord("B" if data[at] == ord("A") else "A")
    path.write_bytes(data)


def swap(one: Path, other: Path) -> None:
    a, b = one.read_bytes(), other.read_bytes()
    one.write_bytes(b)
    other.write_bytes(a)


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


DAMAGE = {
    "a bit": lambda to: flip(named(to, "segment"), -1),
    "who it is for": lambda to: letter(named(to, "signer"), 60),
    "the first bit": lambda to: flip(named(to, "archive"), 0),
    "cut": lambda to: os.truncate(named(to, "segment"), 100),
    "longer": lambda to: named(to, "signer").write_bytes(named(to, "signer").read_bytes() + b"x"),
    "missing": lambda to: named(to, "segment").unlink(),
    "a link": lambda to: link(named(to, "segment")),
    "a fifo": lambda to: fifo(named(to, "segment")),
    "a folder": lambda to: (named(to, "segment").unlink(), named(to, "segment").mkdir()),
    "swapped": lambda to: swap(named(to, "segment"), named(to, "archive")),
}


@pytest.mark.parametrize("read_data", [False, True])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found(to, tmp_path, damage, read_data):
    good(to)
    DAMAGE[damage](to)
    report, found = check(to, read_data)
    assert report["outcome"] == "failed" and report["damaged"] >= 1
    assert backup.names(to)[0] in found[0]
    assert backup.known()[to]["ok"] is False
    with pytest.raises(Failure) as failure:
        restore(to, tmp_path / "restored")
    assert failure.value.code in (DATAERR, NOINPUT)
    assert sorted(os.listdir(tmp_path)) == ["home", "to"]


@pytest.mark.parametrize("put_away", [False, True])
@pytest.mark.parametrize("damage", ["a bit", "cut", "missing", "a link", "a fifo", "a folder"])
def test_what_is_damaged_is_not_used_again_and_mended_by_the_next_backup(to, damage, put_away):
    write(3, "one")
    close(put_away=put_away)
    first = good(to)
    # What was sealed is copied again under its name; else it is only in the new backup that it is whole.
    back = put_away and damage != "a folder"
    path = named(to, "segment")
    DAMAGE[damage](to)
    assert check(to)[0]["outcome"] == "failed"
    warned = Said()
    made = make(to, warned=warned)
    assert (made["verified"], made["mended"], len(warned)) == (True, 1, 1)
    assert str(path) in warned[0] and "is written anew" in warned[0]
    assert (named(to, "segment") == path) == back
    report, found = check(to)
    assert (report["damaged"] == 0) == (report["outcome"] == "done") == back and backup.known()[to]["ok"] == back
    assert all(first["snapshot"] in words for words in found)
    assert restore(to, f"{to}-restored")["outcome"] == "done"
    assert good(to).get("mended") is None


def test_a_damage_that_a_backup_finds_is_known(to):
    close()
    good(to)
    flip(named(to, "segment"), 20)
    assert make(to)["mended"] == 1
    assert backup.known()[to]["ok"] is False


def test_what_cannot_be_mended_is_not_in_the_backup(to):
    close(put_away=True)
    good(to)
    flip(named(to, "segment"), 20)
    flip(Path(paths.journal(), "000001.ftai.zst.sealed"), 20)
    made = make(to)
    assert made["left"] and made["stopped"] and len(backup.names(to)) == 2


@pytest.mark.parametrize("lost", [[0], [1], [0, 1], [0, 1, 2]])
def test_manifests_that_are_gone_keep_everything(to, tmp_path, lost):
    names = []
    for _ in range(3):
        write(3)
        close()
        names.append(good(to)["snapshot"])
    held = {name for name in tree(to) if name.startswith("objects")}
    for n in lost:
        os.rename(backup._path(to, names[n]), tmp_path / names[n])
    policy("  keep_last: 1\n")
    for _ in range(2):
        warned = Said()
        assert not backup.planned(to, stage=STAGE, warn=warned, fail=Said())["gone"] and warned
        assert make(to, warned=warned)["stopped"]
        assert all(re.search(rf"{names[lost[0]]}|{names[lost[-1]]}", words) for words in warned) and len(warned) == 2 * min(len(lost), 2)
        assert all("is gone; nothing is removed meanwhile: put it back" in words for words in warned)
        assert held <= set(tree(to))
        assert check(to)[0]["outcome"] == "failed"
    policy("")
    for n in lost:
        os.rename(tmp_path / names[n], backup._path(to, names[n]))
    assert check(to)[1] == []
    policy("  keep_last: 1\n")
    assert len(good(to)["gone"]) == 5


@pytest.mark.parametrize("lost", [False, True])
def test_the_manifest_of_the_keys_of_threads_is_missed_while_they_are_nowhere_else(to, monkeypatch, lost):
    sealed_thread(monkeypatch)
    good(to)
    held = {name for name in tree(to) if name.startswith("latest") and "note" not in name}
    os.unlink(backup._path(to, backup.KEYS))
    seal._forget()
    for end in ("", "-wal", "-shm") if lost else ():
        Path(paths.state(), "keys", f"threads.db{end}").unlink(missing_ok=True)
    for turn in range(2):
        warned = Said()
        assert bool(make(to, warned=warned).get("stopped")) == lost
        assert len(warned) == (lost or turn == 0)
    assert (held <= set(tree(to))) == lost
    assert len(check(to)[1]) == lost


def test_a_manifest_that_is_to_be_gone_is_forgotten_by_hand(to):
    first = good(to)
    good(to)
    os.unlink(backup._path(to, first["snapshot"]))
    assert make(to)["stopped"]
    Path(paths.state(), "backups").unlink()
    good(to)


def test_one_that_cannot_be_believed_may_be_taken_away(to):
    first = good(to)
    path = Path(backup._path(to, first["snapshot"]))
    path.write_text("x")
    assert make(to)["stopped"]
    path.unlink()
    good(to)


@pytest.mark.parametrize("name", backup.FOLDERS)
def test_folders_that_are_gone_are_not_made_again(to, tmp_path, name):
    good(to)
    os.rename(os.path.join(to, name), tmp_path / name)
    before = tree(to)
    with raises(IOERR, f"cannot use '.*/{name}'"):
        make(to)
    assert tree(to) == before and not os.path.exists(os.path.join(to, name))
    os.rename(tmp_path / name, os.path.join(to, name))
    good(to)
    assert check(to)[1] == []


@pytest.mark.parametrize("change", [
    lambda note: note.replace('"first":1', '"first":2', 1), lambda note: note[:-10] + note[-9:], lambda note: note.split("\n\n")[0] + "\n", lambda note: "",
    lambda note: note + note, lambda note: note.replace("\u2014", "-"), lambda note: note.encode().decode("latin-1"),
])  # fmt: skip
def test_a_manifest_that_was_tampered_with_is_not_believed(to, tmp_path, change):
    good(to)
    path = Path(backup._path(to, backup.names(to)[0]))
    path.write_text(change(path.read_text()))
    report, found = check(to)
    assert report["outcome"] == "failed" and report["refused"] == 1 and "cannot believe" in found[0]
    with raises(DATAERR, "cannot believe"):
        restore(to, tmp_path / "restored")
    assert not (tmp_path / "restored").exists()


def test_a_manifest_signed_by_another_key_is_not_believed(to, tmp_path, monkeypatch):
    good(to)
    path = Path(backup._path(to, backup.names(to)[0]))
    text = proofs.opened(path.read_text())
    fresh(monkeypatch, tmp_path / "other")
    proofs.make_key()
    forged = proofs.sign(text)
    fresh(monkeypatch, tmp_path / "home")
    path.write_text(forged)
    with raises(DATAERR, "not signed by a key that is known"):
        restore(to, tmp_path / "restored")


def test_a_manifest_under_another_name_is_not_believed(to, tmp_path):
    first, _ = good(to), write(3)
    second = good(to)
    shutil.copy(backup._path(to, first["snapshot"]), backup._path(to, second["snapshot"]))
    _, found = check(to)
    assert "put in the place of another" in found[0]
    with raises(DATAERR, "put in the place of another"):
        restore(to, tmp_path / "restored")
    shutil.copy(backup._path(to, backup.KEYS), backup._path(to, second["snapshot"]))
    with raises(DATAERR, "cannot believe"):
        restore(to, tmp_path / "restored")
    # The one before is taken only when it is asked for.
    assert restore(to, tmp_path / "restored", before=backup.instant(first["snapshot"]))["snapshot"] == first["snapshot"]


def test_the_newest_backup_that_was_made_here_is_missed(to):
    good(to)
    made = good(to)
    os.unlink(backup._path(to, made["snapshot"]))
    report, found = check(to)
    assert report["outcome"] == "failed" and f"{made['snapshot']}.note' is gone" in found[0]


def test_a_restore_tells_that_a_newer_backup_is_gone(to, tmp_path, monkeypatch):
    made = []
    for _ in range(3):
        write(2)
        made.append(good(to)["snapshot"])
    paths_ = [backup._path(to, name) for name in made]
    os.rename(paths_[2], tmp_path / "held")
    failed = Said()
    assert [row["snapshot"] for row in backup.listed(to, None, failed)] == made[:2]
    assert len(failed) == 1 and f"{paths_[2]}' is gone" in failed[0]
    warned = Said()
    report = restore(to, tmp_path / "restored", warn=warned)
    assert (report["snapshot"], report["missing"]) == (made[1], [made[2]])
    assert warned == [f"the manifest '{paths_[2]}' is gone: an older backup is taken"]
    # It was made later than what is asked for; it is not the newest; all are gone.
    assert restore(to, tmp_path / "before", before=backup.instant(made[1]), warn=warned)["missing"] is None
    os.rename(tmp_path / "held", paths_[2])
    os.rename(paths_[1], tmp_path / "held")
    assert restore(to, tmp_path / "newest", warn=warned)["missing"] is None and len(warned) == 1
    for path in (paths_[0], paths_[2]):
        os.unlink(path)
    with raises(NOINPUT, "there is no backup"):
        restore(to, tmp_path / "none", warn=warned)
    assert len(warned) == 2 and paths_[2] in warned[1]
    # A machine that made none knows of none.
    os.rename(tmp_path / "held", paths_[1])
    keys = proofs.vkeys()
    own = Path(paths.state(), "keys", "identity")
    monkeypatch.setenv("FTAI_IDENTITY", str(own))
    fresh(monkeypatch, tmp_path / "other")
    assert restore(to, tmp_path / "elsewhere", keys, warn=warned)["missing"] is None and len(warned) == 2


def test_reading_compares_with_what_the_manifest_says(to):
    """Signed by our own key, as a bug could have it: the sealed file is whole, and holds something else."""
    good(to)
    close()
    name = good(to)["snapshot"]

    def change(_, entries):
        next(one for one in entries if one["kind"] == "signer").update(sha256=HASH)

    forge(to, name, change)
    assert check(to, read_data=False)[0]["outcome"] == "done"
    report, found = check(to)
    assert report["outcome"] == "failed" and "does not hold 'state/keys/signing.pub'" in found[0]


@pytest.mark.parametrize(("change", "words"), [
    (lambda parts: parts[0].update(hash=HASH), "does not hold the part of the chain"),
    (lambda parts: parts[0].update(last=parts[0]["last"] - 1), "does not hold the part of the chain"),
    (lambda parts: parts[1].update(first=parts[1]["first"] + 1), "does not hold the part of the chain"),
    (lambda parts: parts[0].update({key: parts[1][key] for key in parts[1] if key not in ("name", "segment")}), "does not hold the part of the chain"),
])  # fmt: skip
def test_the_chain_is_followed(to, change, words):
    close()
    write(4)
    name = good(to)["snapshot"]
    forge(to, name, lambda _, entries: change([one for one in entries if one["kind"] == "segment"]))
    report, found = check(to)
    assert report["outcome"] == "failed" and words in found[0]


def test_segments_of_two_histories_are_no_chain(to, tmp_path, monkeypatch):
    """Of a journal that was restored and gone on with, while the old one was too."""
    seal.recipient()
    shutil.copytree(tmp_path / "home", tmp_path / "fork")
    made = []
    for name in ("home", "fork"):
        fresh(monkeypatch, tmp_path / name)
        write(3, name)
        close()
        write(3, name)
        made.append(make(to)["snapshot"])
    other = backup.manifest(to, made[0], backup.owner(to))[1]
    forge(to, made[1], lambda _, entries: [other[0] if one["name"] == other[0]["name"] else one for one in entries])
    report, found = check(to)
    assert report["damaged"] == 1 and "segment 2 does not go on from the one before" in found[0]


def test_an_entry_that_a_manifest_lacks_is_missed(to):
    """Signed by our own key, as a bug could have it."""
    for name in ("one", "two"):
        write(3, name)
        close(put_away=True)
    name = good(to)["snapshot"]
    whole = Path(backup._path(to, name)).read_text()
    for lacks, words in ((["000001"], "segment 1 is missing"), (["000002"], "segment 2 is missing"), (["000001", "000002"], "of the segments 1 to 2 one is")):
        Path(backup._path(to, name)).write_text(whole)
        forge(to, name, lambda _, entries, lacks=lacks: [one for one in entries if not any(each in one["name"] for each in lacks)])
        report, found = check(to)
        assert (report["outcome"], len(found)) == ("failed", 1) and words in found[0]


def test_list(to):
    first = good(to)
    write(3)
    second = good(to)
    path = Path(backup._path(to, first["snapshot"]))
    rows = backup.listed(to, None, Said())
    assert [(row["snapshot"], row["first"], row["last"], row["new"]) for row in rows] == [
        (made["snapshot"], 1, made["last"], made["new"]) for made in (first, second)
    ]
    path.write_text("x")
    failed = Said()
    assert [row["snapshot"] for row in backup.listed(to, None, failed)] == [second["snapshot"]]
    assert len(failed) == 1


# ---- restoring ----


def test_what_is_restored_is_what_was_there(to, tmp_path):
    write(10, "one")
    close(put_away=True)
    write(10, "two")
    close()
    write(10, "three")
    with sqlite3.connect(paths.state_db()) as db:
        db.execute("CREATE TABLE queue (x)")
        db.execute("INSERT INTO queue VALUES ('waits')")
    held = [rec for _, rec in journal.read(paths.journal())]
    good(to)
    write(5, "later")
    report = restore(to, tmp_path / "restored")
    assert (report["outcome"], report["last"]) == ("done", len(held))
    assert [rec for _, rec in journal.read(str(tmp_path / "restored" / "state" / "journal"))] == held
    assert sqlite3.connect(tmp_path / "restored" / "state" / "state.db").execute("SELECT x FROM queue").fetchall() == [("waits",)]
    assert {stat.S_IMODE(path.lstat().st_mode) for path in (tmp_path / "restored").rglob("*") if path.is_file()} == {0o600}
    assert {stat.S_IMODE(path.lstat().st_mode) for path in (tmp_path / "restored").rglob("*") if path.is_dir()} == {0o700}


def test_by_time(to, tmp_path):
    first = good(to)
    write(3)
    second = good(to)
    with raises(NOINPUT, "no backup"):
        restore(to, tmp_path / "none", before="2026-01-01T00:00:00.000Z")
    assert not (tmp_path / "none").exists()
    for n, (before, name) in enumerate([(backup.instant(first["snapshot"]), first), (backup.instant(second["snapshot"]), second), (None, second)]):
        assert restore(to, tmp_path / str(n), before=before)["snapshot"] == name["snapshot"]


def test_by_segment(to, tmp_path):
    for name in ("one", "two"):
        write(3, name)
        close()
    held = tree(paths.journal())
    good(to)
    report = restore(to, tmp_path / "restored", segment=2)
    assert tree(tmp_path / "restored") == {"state/journal/000002.ftai": held["000002.ftai"]}
    assert report["wrong"] is None
    with raises(NOINPUT, "with segment 9"):
        restore(to, tmp_path / "none", segment=9)


@pytest.mark.parametrize("there", ["a file", "a full folder", "a link", "no folder above"])
def test_only_into_what_is_new_or_empty(to, tmp_path, there):
    good(to)
    into = tmp_path / "into"
    if there == "a file":
        into.write_text("mine")
    elif there == "a full folder":
        into.mkdir()
        (into / "mine").write_text("mine")
    elif there == "a link":
        (tmp_path / "elsewhere").mkdir()
        into.symlink_to(tmp_path / "elsewhere")
    else:
        into = tmp_path / "none" / "into"
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with raises(CANTCREAT, "no empty folder|there is no folder"):
        restore(to, into)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_into_an_empty_folder(to, tmp_path):
    good(to)
    (tmp_path / "into").mkdir()
    restore(to, tmp_path / "into")
    assert (tmp_path / "into" / "state" / "journal" / "current.ftai").exists()


def test_what_no_restore_has_left_there_stays(to, tmp_path):
    good(to)
    own = tmp_path / ".restored.restore"
    own.mkdir(mode=0o700)
    (own / "mine").write_text("x")
    with raises(CANTCREAT, "holds what no restore has left there"):
        restore(to, tmp_path / "restored")
    assert (own / "mine").read_text() == "x" and not (tmp_path / "restored").exists()


def test_what_a_killed_restore_left_is_in_nobodys_way(to, tmp_path):
    good(to)
    left = tmp_path / ".restored.restore"
    (left / "state").mkdir(parents=True, mode=0o700)
    (left / "state" / "x").write_text("x")
    left.chmod(0o700)
    restore(to, tmp_path / "restored")
    assert not (tmp_path / "restored" / "state" / "x").exists() and not left.exists()


def test_no_signed_manifest_writes_where_it_may_not(to, tmp_path):
    """Signed by a key that is believed, as that of a new machine may be."""
    made = good(to)
    whole = Path(backup._path(to, made["snapshot"])).read_text()
    outside = sorted(str(path) for path in tmp_path.rglob("*"))
    for name, kind in HOSTILE:
        Path(backup._path(to, made["snapshot"])).write_text(whole)
        forge(to, made["snapshot"], lambda _, entries, name=name, kind=kind: entries[0].update(name=name, kind=kind))
        with raises(DATAERR, "is not what a backup holds"):
            restore(to, tmp_path / "restored")
        assert sorted(str(path) for path in tmp_path.rglob("*")) == outside


def test_a_bomb_is_refused(to, tmp_path):
    """An object that holds a thousand times what its entry says."""
    made = good(to)
    with open(tmp_path / "zeros", "wb+") as zeros:
        os.truncate(zeros.fileno(), 64 * 1024 * 1024)
        bomb = sealed.write(zeros.fileno(), os.path.join(to, "objects", record.new_id()), {"name": "x"})
    (tmp_path / "zeros").unlink()
    assert bomb["sealed_bytes"] < 100_000

    def change(_, entries):
        part = next(one for one in entries if one["kind"] == "signer")
        part |= {"object": bomb["file"], "sealed_bytes": bomb["sealed_bytes"], "sealed_sha256": bomb["sealed_sha256"]}

    forge(to, made["snapshot"], change)
    with raises(DATAERR, "expected at most"):
        restore(to, tmp_path / "restored")
    assert sorted(os.listdir(tmp_path)) == ["home", "to"]
    assert check(to)[0]["outcome"] == "failed"


def test_more_than_the_disk_has_is_refused_before_anything_is_written(to, tmp_path):
    made = good(to)
    forge(to, made["snapshot"], lambda _, entries: entries[0].update(bytes=1 << 61))
    with raises(IOERR, "are free"):
        restore(to, tmp_path / "restored")
    assert sorted(os.listdir(tmp_path)) == ["home", "to"]


def test_on_a_new_machine(to, tmp_path, monkeypatch):
    from serenamaster import secret

    good(to)
    vkey, identity = proofs.vkeys()[0], secret.identity()
    fresh(monkeypatch, tmp_path / "new")
    (tmp_path / "identity").write_text(identity + "\n")
    (tmp_path / "identity").chmod(0o600)
    monkeypatch.setenv("FTAI_IDENTITY", str(tmp_path / "identity"))
    warned = Said()
    assert backup.signers(to, None, warned) == [vkey]
    assert vkey in warned[0] and "proves nothing" in warned[0]
    assert backup.signers(to, vkey, Said()) == [vkey]
    restore(to, tmp_path / "restored", [vkey])
    other = proofs.make_key()
    assert backup.signers(to, None, Said()) is None
    with raises(DATAERR, "not signed by a key that is known"):
        restore(to, tmp_path / "again")
    with pytest.raises(Failure) as failure:
        restore(to, tmp_path / "again", [other])
    assert (failure.value.code, failure.value.hint[:10]) == (DATAERR, "--key VKEY")
    for none in ("", "garbage", vkey[:-4]):
        with raises(CONFIG, "is no public key"):
            backup.signers(to, none, Said())


# ---- trying, and the records of it ----


def rebuild(home) -> str:
    path = os.path.join(home, "state", "archive.db")
    old = os.environ["FTAI_HOME"]
    os.environ["FTAI_HOME"] = home
    try:
        if archive._writer:
            archive._close()
        archive._caught.clear()
        archive.catch_up(limit=None)
        archive._close()
    finally:
        os.environ["FTAI_HOME"] = old
        archive._caught.clear()
    return "" if os.path.exists(path) else "no archive"


def drill(to) -> dict:
    return backup.drill(to, None, verify=verify, rebuild=rebuild, warn=Said())


def test_a_drill_compares_row_for_row_and_leaves_nothing(to):
    write(50)
    good(to)
    report = drill(to)
    assert (report["outcome"], report["rows"]) == ("done", 55)
    assert not os.path.exists(os.path.join(paths.cache(), "drill"))
    assert backup.known()[to].keys() >= {"drilled", "snapshot", "at", "ok"}


@pytest.mark.parametrize(
    "change", ["UPDATE records SET text = 'x' WHERE seq = 3", "DELETE FROM records WHERE seq = 3", "INSERT INTO records (seq, line) VALUES (99, '{}')"]
)
def test_a_drill_finds_an_archive_that_is_no_view_of_the_journal(to, change):
    archive.catch_up(limit=None)
    archive._close()
    with sqlite3.connect(paths.archive_db()) as db:
        db.execute(change)
    db.close()
    backup.make(to, stage=STAGE, warn=Said(), fail=Said())
    report = drill(to)
    assert report["outcome"] == "failed" and "differs" in report["wrong"]
    assert backup.known()[to]["ok"] is False


def test_a_drill_does_not_miss_what_retention_took_away(to):
    for name in ("one", "two"):
        write(3, name)
        close(put_away=True)
    write(3, "three")
    archive.catch_up(limit=None)
    segments.drop(paths.journal(), [1], "policy", stage=STAGE)
    good(to)
    report = drill(to)
    assert (report["outcome"], report["wrong"]) == ("done", None)
    held = chain.segments(paths.journal())[0].number
    with sqlite3.connect(paths.archive_db()) as db:
        rows = db.execute("SELECT count(*), min(seq) FROM records").fetchone()
        db.execute("UPDATE records SET text = 'x' WHERE seq = (SELECT max(seq) FROM records)")
    db.close()
    assert (held, rows[1]) == (2, 1) and 0 < report["rows"] < rows[0]
    backup.make(to, stage=STAGE, warn=Said(), fail=Said())
    assert "differs from that of the backup in 1 of" in drill(to)["wrong"]


def test_each_identity_that_segments_were_sealed_for_is_tried(to, tmp_path, monkeypatch):
    """Of a journal whose recipients were others before."""
    import pyrage

    seal.recipient()
    write(3, "one")
    close(put_away=True)
    other = pyrage.x25519.Identity.generate()
    (tmp_path / "other").write_text(f"{other}\n")
    (tmp_path / "other").chmod(0o600)
    monkeypatch.setenv("FTAI_RECIPIENTS", str(other.to_public()))
    assert not make(to)["verified"]
    with raises(NOPERM, "for another identity"):
        restore(to, tmp_path / "restored")
    monkeypatch.setenv("FTAI_IDENTITY", str(tmp_path / "other"))
    assert make(to)["verified"]
    assert restore(to, tmp_path / "restored")["outcome"] == "done"
    assert check(to)[1] == []
    own = Path(paths.state(), "keys", "identity")
    words = own.read_text()
    own.unlink()
    with raises(NOPERM, "for another identity"):
        restore(to, tmp_path / "again")
    (tmp_path / "other").write_text(f"# the other\n{other}\n{words}")
    assert restore(to, tmp_path / "again")["outcome"] == "done"


def test_what_a_check_found_no_drill_makes_good(to):
    write(3, "one")
    first = good(to)
    held = named(to, "segment")
    write(3, "two")
    close()
    good(to)
    data = held.read_bytes()
    held.unlink()
    check(to, False)
    assert backup.known()[to]["ok"] is False
    assert drill(to)["outcome"] == "done" and backup.known()[to]["ok"] is False
    good(to)
    assert backup.known()[to]["ok"] is False
    held.write_bytes(data)
    check(to, False)
    assert backup.known()[to]["ok"] is True
    # What only reading finds, only reading finds mended.
    whole = Path(backup._path(to, first["snapshot"])).read_text()
    forge(to, first["snapshot"], lambda _, entries: next(one for one in entries if one["kind"] == "segment").update(sha256=HASH))
    for read_data in (True, False):
        check(to, read_data)
        assert backup.known()[to]["ok"] is False
    Path(backup._path(to, first["snapshot"])).write_text(whole)
    check(to, False)
    assert backup.known()[to]["ok"] is False
    check(to, True)
    assert backup.known()[to]["ok"] is True


def test_nothing_is_restored_into_the_folder_of_the_backups(to, tmp_path):
    good(to)
    before = tree(to)
    (tmp_path / "link").symlink_to(to)
    for into in (f"{to}/in", f"{to}/objects/in", tmp_path / "link" / "in"):
        with raises(CANTCREAT, "in the folder of the backups"):
            restore(to, into)
    assert tree(to) == before


@pytest.mark.parametrize("put", [fifo, link])
def test_what_stands_in_the_place_of_the_lock_keeps_nobody_from_reading(to, tmp_path, put):
    good(to)
    put(Path(to, ".lock"))
    assert restore(to, tmp_path / "restored")["outcome"] == "done"
    assert check(to)[1] == []


def test_records_are_journaled_as_they_are_told():
    write(1)
    told = list(backup.acted("backup", lambda: {"path": "x"}, stage=STAGE, warn=Said(), path="x"))
    held = [canonical.stored(rec) for _, rec in journal.read(paths.journal())][-2:]
    assert told == held
    assert [(rec["@tag"], rec["subject"], rec["act"], rec["outcome"]) for rec in told] == [
        ("audit", "backup", "backup", "intended"),
        ("report", "backup", "backup", "done"),
    ]


def test_a_failure_is_journaled_too():
    write(1)

    def fails():
        raise Failure("no disk", 73)

    told = []
    with raises(73, "no disk"):
        for rec in backup.acted("backup", fails, stage=STAGE, warn=Said()):
            told.append(rec)
    assert (told[-1]["outcome"], told[-1]["because"]) == ("failed", "no disk")


def test_a_disk_that_fails_is_no_bug(to, tmp_path):
    good(to)
    write(1)

    def full():
        os.mkdir(tmp_path / "none" / "below")

    told = []
    with raises(IOERR, "below': No such file"):
        for rec in backup.acted("restore", full, stage=STAGE, warn=Said()):
            told.append(rec)
    assert told[-1]["outcome"] == "failed"
    os.rename(f"{to}/snapshots", f"{to}/gone")
    with raises(IOERR, "snapshots"):
        backup.names(to)


def test_what_ends_it_is_journaled_too():
    write(1)

    def ends():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(backup.acted("drill", ends, stage=STAGE, warn=Said()))
    assert [rec for _, rec in journal.read(paths.journal())][-1]["because"] == "ended by KeyboardInterrupt"


def test_what_failed_is_told_also_where_the_journal_takes_no_more():
    write(1)

    def fails():
        live = Path(paths.journal(), chain.LIVE)
        live.unlink()
        live.mkdir()
        raise Failure("no disk", 73)

    warned = Said()
    with raises(73, "no disk"):
        list(backup.acted("backup", fails, stage=STAGE, warn=warned))
    assert "current.ftai" in warned[0]


def test_as_many_files_as_the_system_allows_may_be_open(monkeypatch):
    import resource

    limits = [256, 1 << 62]

    def limit(_, wanted):
        if wanted[0] > 10240:  # as macOS, which has no hard limit
            raise ValueError
        limits[:] = wanted

    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", limit)
    backup._roomy()
    assert limits == [10240, 1 << 62]


@pytest.mark.parametrize("place", ["snapshots", "latest"])
def test_a_signal_right_behind_the_name_of_a_manifest_leaves_all_that_it_names(to, monkeypatch, place):
    sealed_thread(monkeypatch)
    good(to)
    write(1)
    rename = os.rename

    def signalled(source, target, **ways):
        rename(source, target, **ways)
        if f"/{place}/" in target and target.endswith(".note"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "rename", signalled)
        make(to)
    assert check(to)[1] == []
    assert len(backup.names(to)) == (2 if place == "snapshots" else 1)
    good(to)


def test_a_signal_right_behind_the_name_of_an_object_is_told_as_such(to, monkeypatch):
    write(2)
    close(put_away=True)
    rename = os.rename

    def signalled(source, target, **ways):
        rename(source, target, **ways)
        if "/objects/" in target:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "rename", signalled)
        make(to)
    assert os.listdir(Path(to, "objects")) == []
    good(to)


def test_no_journal_is_begun_for_them(home):
    list(backup.acted("restore", dict, stage=STAGE, warn=Said()))
    assert not (home / "state" / "journal").exists()


def test_what_is_known_survives_damage_of_its_file(to):
    good(to)
    path = Path(paths.state(), "backups")
    path.write_bytes(path.read_bytes() + b"{broken\n\xff\n")
    assert list(backup.known()) == [to]
    path.unlink()
    assert backup.known() == {}
