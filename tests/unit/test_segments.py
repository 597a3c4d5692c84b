"""Closed segments: closing them, sealing them, reading what is sealed, signing where the journal ends, and removing for good."""

import os
import shutil
import sys

import pytest
from serenamaster import archive, canonical, chain, evidence, journal, paths, proofs, record, rotation, sealed, segments, verification
from serenamaster.errors import CONFIG, IOERR, NOPERM, SOME, Failure

STAGE = "ftai-test"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FTAI_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(journal, "_live", {})
    archive._caught.clear()
    yield tmp_path / "home"
    archive.discard()


def write(count: int, name: str = "n") -> list[dict]:
    made = [record.make("note", "ftai-elsewhere", body=f"{name} {n}") for n in range(count)]
    journal.append(paths.journal(), made, stage=STAGE)
    return made


def close() -> chain.Segment:
    name = segments.rotate(paths.journal(), stage=STAGE)
    return next(part for part in chain.segments(paths.journal()) if part.name == name)


def put_away(segment: chain.Segment) -> chain.Segment:
    folder = paths.journal()
    entry = segments.describe(folder, segment)
    fd = chain.regular(segment.path)
    entry |= sealed.write(fd, segment.path, entry)
    os.close(fd)
    segments.put_away(folder, segment, entry)
    return next(part for part in chain.segments(folder) if part.number == segment.number)


def three() -> str:
    """A journal of a sealed segment, a plain closed one and a live one."""
    write(5, "one")
    put_away(close())
    write(5, "two")
    close()
    write(5, "three")
    return paths.journal()


def live(folder: str) -> chain.Head:
    with open(f"{folder}/current.ftai", "rb") as file:
        return chain.head(file.read(chain.WINDOW))


def check(folder: str, **settings):
    summary, troubles = verification.verify(folder, **settings)
    return summary, [str(trouble) for trouble in troubles]


def bodies(folder: str) -> list[str]:
    return [rec["body"] for _, rec in journal.read(folder) if "body" in rec]


ALL = [f"{name} {n}" for name in ("one", "two", "three") for n in range(5)]


def test_what_is_closed_and_sealed_is_read_on():
    folder = three()
    assert [(part.number, part.sealed) for part in chain.segments(folder)] == [(1, True), (2, False)]
    assert not os.path.exists(f"{folder}/000001.ftai")
    assert bodies(folder) == ALL
    assert [rec["body"] for _, rec in journal.read(folder, after=14) if "body" in rec] == ["three 2", "three 3", "three 4"]
    summary, troubles = check(folder)
    assert not troubles and not summary.notes
    assert summary.records == journal.position(folder) == 17


def test_an_idle_journal_gets_no_new_segment():
    assert segments.rotate(paths.journal(), stage=STAGE) is None
    assert not os.path.exists(f"{paths.journal()}/current.ftai")
    write(1)
    assert close().number == 1
    journal.append(paths.journal(), [record.make("report", STAGE, subject="journal")], stage=STAGE)
    assert segments.rotate(paths.journal(), stage=STAGE) is None
    write(1)
    assert close().number == 2


def test_the_ledger_says_what_the_segment_holds():
    folder = three()
    [entry] = chain.ledger(folder).values()
    back = segments.bring_back(folder, chain.segments(folder)[0])
    assert segments.describe(folder, back) == {key: entry[key] for key in list(entry)[:11]}
    tree = proofs.Tree()
    for _, stored in segments.leaves(folder, back):
        tree.add(stored)
    assert entry["root"] == tree.root() and entry["records"] == tree.size == 5
    assert chain.ledger(folder) == {} and not back.sealed and bodies(folder) == ALL
    assert not check(folder)[1]


def test_without_its_ledger_a_sealed_segment_tells_of_itself():
    folder = three()
    os.unlink(f"{folder}/ledger")
    assert bodies(folder) == ALL
    assert not check(folder)[1]


def test_a_live_segment_that_is_lost_is_begun_behind_a_sealed_one():
    folder = three()
    os.unlink(f"{folder}/000002.ftai")
    os.unlink(f"{folder}/current.ftai")
    write(1, "four")
    assert bodies(folder) == [*ALL[:5], "four 0"]
    assert not check(folder)[1]


def test_a_sealed_segment_without_identity(home):
    folder = three()
    shutil.move(home / "state/keys/identity", home / "identity")
    with pytest.raises(Failure) as bad:
        bodies(folder)
    assert bad.value.code == NOPERM
    # The archive is not made again from less than all.
    with pytest.raises(Failure):
        archive.rebuild()
    write(1, "four")
    summary, troubles = check(folder)
    assert not troubles and (summary.records, summary.shut) == (13, 5) and "1 sealed segment could not be opened" in summary.notes[0]
    path = chain.segments(folder)[0].path
    with open(path, "r+b") as file:
        file.seek(100)
        byte = file.read(1)
        file.seek(100)
        file.write(bytes([byte[0] ^ 1]))
    assert "checksum" in check(folder)[1][0]


@pytest.mark.parametrize("field", ["first", "prev", "bytes"])
def test_a_ledger_that_lies_is_found(field):
    folder = three()
    [entry] = chain.ledger(folder).values()
    entry[field] = "0" * 64 if field == "prev" else entry[field] + 1
    chain.save_ledger(folder, {1: entry})
    assert "does not hold what the ledger says" in check(folder)[1][0]


def test_a_segment_that_is_damaged_inside_has_no_root():
    folder = three()
    path = f"{folder}/000002.ftai"
    with open(path, "rb") as file:
        data = file.read()
    with open(path, "wb") as file:
        file.write(data.replace(b"two 2", b"two 9"))
    part = chain.segments(folder)[1]
    with pytest.raises(Failure) as bad:
        list(segments.leaves(folder, part))
    assert bad.value.code == SOME and "hash" in bad.value.message
    entry = segments.describe(folder, part)
    assert entry["damaged"] == bad.value.message and "root" not in entry
    assert (entry["first"], entry["last"]) == (6, 11)


# ---- signed checkpoints ----


def test_a_checkpoint_needs_a_key():
    write(1)
    with pytest.raises(Failure) as bad:
        segments.certify(paths.journal(), [], stage=STAGE)
    assert bad.value.code == CONFIG and "ftai-keys init" in bad.value.hint
    assert segments.anchor(paths.journal()) == "" and not check(paths.journal())[1]


def test_a_tail_that_is_cut_behind_a_checkpoint_is_missed():
    proofs.make_key()
    folder = three()
    rec = segments.certify(folder, [], stage=STAGE)
    assert rec["note"] == segments.anchor(folder)
    assert proofs.parsed(proofs.opened(rec["note"])).size == rec["size"] == 17
    assert not check(folder)[1]
    with open(f"{folder}/current.ftai", "r+b") as file:
        data = file.read()
        file.truncate(data.rindex(b"\n@note\n", 0, data.rindex(b"\n@checkpoint\n")))
    assert check(folder)[1] == [f"{folder}/current.ftai: seq 17: the records from seq 17 to 17 are missing: the latest checkpoint tells of them"]


def test_a_journal_that_is_written_anew_does_not_fit_its_checkpoint(home):
    proofs.make_key()
    folder = three()
    segments.certify(folder, [], stage=STAGE)
    kept = segments.anchor(folder)
    journal._live.clear()
    top = live(folder)
    sealed_ = chain.digests([canonical.prepare(record.make("note", "x", body="other"))[1] for _ in range(9)])
    data, _ = chain.link(sealed_, top.first - 1, top.prev)
    with open(f"{folder}/current.ftai", "wb") as file:
        file.write(chain.heading(top.journal, top.number, top.first, top.prev, top.tags) + data)
    assert segments.anchor(folder) == kept
    assert "written anew" in check(folder)[1][0]


def test_a_checkpoint_in_the_chain_is_compared_with_what_stands_before():
    proofs.make_key()
    folder = three()
    write(1)
    head = segments.certify(folder, [], stage=STAGE)
    text = proofs.text(live(folder).journal, head["size"] + 1, "0" * 64, ["closed 0"])
    lie = record.make("checkpoint", STAGE, size=head["size"] + 1, hash="0" * 64, note=proofs.sign(text))
    journal.enter(folder, [lie], stage=STAGE)
    assert "signed for another hash" in check(folder)[1][0]


# ---- removing ----


def many() -> str:
    proofs.make_key()
    for n in range(4):
        write(3, f"s{n}")
        put_away(close())
    write(3, "s4")
    return paths.journal()


@pytest.mark.parametrize("numbers", [[1], [1, 2], [2], [2, 3], [1, 3]])
def test_the_rest_verifies_when_segments_are_removed(numbers):
    folder = many()
    rec = segments.drop(folder, numbers, "keep_last", stage=STAGE)
    assert [part.number for part in chain.segments(folder)] == [n for n in (1, 2, 3, 4) if n not in numbers]
    assert chain.ledger(folder).keys() == {1, 2, 3, 4} - set(numbers)
    summary, troubles = check(folder)
    assert not troubles and any("removed" in note for note in summary.notes)
    assert rec["removed"] and rec["because"] == "keep_last"
    # The record in the chain is enough.
    os.unlink(f"{folder}/checkpoint")
    assert not check(folder)[1]
    assert [body for body in bodies(folder) if body[1] == "4"] == ["s4 0", "s4 1", "s4 2"]
    write(1, "more")
    assert not check(folder)[1]


def test_what_goes_later_says_again_what_went_before():
    folder = many()
    segments.drop(folder, [2], "keep_last", stage=STAGE)
    write(3, "s5")
    put_away(close())
    os.unlink(f"{folder}/checkpoint")
    # Segment 5 holds the checkpoint that told of segment 2.
    segments.drop(folder, [1, 4, 5], "keep_last", stage=STAGE)
    assert [part.number for part in chain.segments(folder)] == [3]
    assert not check(folder)[1]
    os.unlink(f"{folder}/checkpoint")
    assert not check(folder)[1]


@pytest.mark.parametrize("number", [1, 2, 4])
def test_a_segment_that_is_gone_without_a_checkpoint_is_missed(number):
    folder = many()
    segments.drop(folder, [3], "keep_last", stage=STAGE)
    os.unlink(chain.segments(folder)[(1, 2, 4).index(number)].path)
    assert check(folder)[1]


def test_nobody_else_says_what_was_removed(home, tmp_path, monkeypatch):
    folder = many()
    entry = chain.ledger(folder)[2]
    run = (2, entry["first"], entry["last"], entry["prev"], entry["hash"])
    monkeypatch.setenv("FTAI_HOME", str(tmp_path / "other"))
    proofs.make_key()
    lines = ["closed 0", " ".join(map(str, ("removed", *run)))]
    note = proofs.sign(proofs.text(entry["journal"], 17, "0" * 64, lines))
    monkeypatch.setenv("FTAI_HOME", str(home))
    journal.append(folder, [record.make("checkpoint", STAGE, size=17, hash="0" * 64, note=note)], stage=STAGE)
    os.unlink(chain.segments(folder)[1].path)
    assert check(folder)[1]


def test_a_removal_that_was_interrupted_is_finished(monkeypatch):
    folder = many()
    monkeypatch.setattr(segments, "_remove", lambda *_: [])
    segments.drop(folder, [1, 2], "keep_last", stage=STAGE)
    monkeypatch.undo()
    monkeypatch.setenv("FTAI_HOME", os.path.dirname(os.path.dirname(folder)))
    assert len(chain.segments(folder)) == 4 and not check(folder)[1]
    # Killed a second time, with one of both gone.
    shutil.move(f"{folder}/000001.ftai.zst.sealed", f"{folder}/../kept")
    assert not check(folder)[1]
    shutil.move(f"{folder}/../kept", f"{folder}/000001.ftai.zst.sealed")
    assert segments.finish(folder) == ["000001.ftai.zst.sealed", "000002.ftai.zst.sealed"]
    assert not check(folder)[1]


def test_what_is_in_doubt_is_in_no_description_of_a_closing_that_was_interrupted(monkeypatch):
    write(3)
    folder = paths.journal()

    def broken(fd):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch, pytest.raises(Failure):
        patch.setattr(chain, "sync", broken)
        write(2)
    os.link(f"{folder}/current.ftai", f"{folder}/000001.ftai")  # the next writer closes it, and is killed
    (part,) = chain.segments(folder)
    made = segments.describe(folder, part)
    assert (made["last"], made["records"]) == (3, 3)
    write(1)
    assert segments.describe(folder, part) == made


def test_an_old_live_segment_takes_no_place_of_a_sealed_one():
    write(2, "one")
    folder = paths.journal()
    shutil.copy(f"{folder}/current.ftai", f"{folder}/../old")
    (later,) = write(1, "later")
    put_away(close())
    os.rename(f"{folder}/../old", f"{folder}/current.ftai")
    with pytest.raises(Failure) as caught:
        write(1, "two")
    assert caught.value.code == IOERR and "an old copy" in caught.value.message
    with pytest.raises(Failure):
        close()
    with pytest.raises(Failure, match="an old copy"):
        list(rotation.run(folder, stage=STAGE, warn=print, fail=print))
    with pytest.raises(Failure, match="an old copy"):
        evidence.due(folder)
    summary, (trouble,) = check(folder)  # of it alone: what was sealed is right
    assert "an old copy" in trouble and summary.records == 3
    os.unlink(f"{folder}/current.ftai")
    (last,) = write(1, "two")
    assert {later["id"], last["id"]} <= {rec.get("id") for _, rec in journal.read(folder)} and not check(folder)[1]


def test_an_old_live_segment_takes_no_place_of_a_closed_one_of_its_number():
    write(2, "one")
    folder = paths.journal()
    shutil.copy(f"{folder}/current.ftai", f"{folder}/../old")
    (later,) = write(1, "later")
    close()
    archive.catch_up(limit=None)
    os.rename(f"{folder}/current.ftai", f"{folder}/../new")
    os.rename(f"{folder}/../old", f"{folder}/current.ftai")
    with pytest.raises(Failure, match="an old copy"):
        write(1, "two")
    for settings in ({}, {"since": record.now()}):
        summary, (trouble,) = check(folder, **settings)
        assert "an old copy" in trouble and summary.records == 3
    assert later["id"] in {rec.get("id") for _, rec in journal.read(folder)}
    archive.rebuild()
    assert later["id"] in archive.lookup([later["id"]])[1]
    os.rename(f"{folder}/../new", f"{folder}/current.ftai")
    write(1, "two")
    assert not check(folder)[1]


def test_an_old_live_segment_takes_no_place_of_a_removed_one():
    proofs.make_key()
    write(1, "old")
    folder = paths.journal()
    shutil.copy(f"{folder}/current.ftai", f"{folder}/../old")
    for _ in range(2):
        write(5, "more")
        put_away(close())
    segments.drop(folder, [1], "retention", stage=STAGE)
    os.rename(f"{folder}/../old", f"{folder}/current.ftai")
    # It would be closed as segment 1, and taken for what a killed removal has left.
    with pytest.raises(Failure) as caught:
        write(1, "new")
    assert caught.value.code == IOERR and "an old copy" in caught.value.message
    os.unlink(f"{folder}/current.ftai")
    write(1, "new")
    segments.finish(folder)
    assert bodies(folder)[-1] == "new 0"


def test_what_is_put_where_records_were_removed_is_found():
    folder = many()
    segments.drop(folder, [1, 2], "keep_last", stage=STAGE)
    assert not check(folder)[1]
    made = chain.digests([canonical.prepare(record.make("note", STAGE, body="never said"))[1]])
    head = chain.heading(live(folder).journal, 1, 2, "ab" * 32, journal._tags())
    with open(f"{folder}/000001.ftai", "wb") as file:
        file.write(head + chain.link(made, 1, "ab" * 32)[0])
    troubles = check(folder)[1]
    assert len(troubles) == 1 and "seq 2: what stands up to seq 2" in troubles[0] and "nothing chains it" in troubles[0]
    assert segments.finish(folder) == ["000001.ftai"] and not check(folder)[1]


# ---- a part of it, and all of it at one moment ----


def test_verifying_from_a_time_on():
    folder = many()
    since = chain.ledger(folder)[3]["since"]
    seen = []
    summary, troubles = check(folder, since=since, seen=lambda *each: seen.append(each))
    assert not troubles and summary.first == chain.ledger(folder)[3]["first"]
    assert [number for number, _, _ in seen if number == 3] and not [number for number, _, _ in seen if number < 3]
    os.unlink(chain.segments(folder)[0].path)
    assert not check(folder, since=since)[1] and check(folder)[1]


def test_a_snapshot_holds_each_segment_once():
    folder = three()
    with open(f"{folder}/current.ftai", "ab") as file:
        file.write(b"\n@note\n  torn")
    found = segments.snapshot(folder)
    assert [(part.number, part.sealed) for part, _, _ in found] == [(1, True), (2, False), (3, False)]
    assert os.fstat(found[-1][1]).st_size == found[-1][2] + 13
    for _, fd, _ in found:
        os.close(fd)
    os.link(f"{folder}/current.ftai", f"{folder}/000003.ftai")
    again = segments.snapshot(folder)
    assert [part.name for part, _, _ in again] == ["000001.ftai.zst.sealed", "000002.ftai", "current.ftai"]
    for _, fd, _ in again:
        os.close(fd)


def test_damage_that_was_accepted_stays_so_when_it_is_sealed():
    folder = three()
    with open(f"{folder}/000002.ftai", "ab") as file:
        file.write(b"\n@note\n  no end")
    [trouble] = check(folder)[1]
    part = put_away(chain.segments(folder)[1])
    assert check(folder)[1] == [trouble.replace("000002.ftai", part.name)]
    assert [found.damage.split()[0] for found in verification.accept(folder)] == ["000002.ftai"]
    assert not check(folder)[1]
    segments.bring_back(folder, part)
    assert not check(folder)[1]
    with open(f"{folder}/000002.ftai", "ab") as file:
        file.write(b" either")
    put_away(chain.segments(folder)[1])
    assert len(check(folder)[1]) == 1


# ---- what --verify must not miss ----


def test_retention_while_it_is_verified_is_no_finding():
    folder = many()
    seen = []

    def hook(event, given_):
        if event == "open" and given_[0] == f"{folder}/.accepted" and not seen:
            seen.append(event)
            segments.drop(folder, [1, 3], "retention", stage=STAGE)

    sys.addaudithook(hook)
    assert not check(folder)[1] and seen
    assert [part.number for part in chain.segments(folder)] == [2, 4]


@pytest.mark.parametrize("numbers", [[], [1, 3]])
def test_what_is_written_and_signed_while_it_is_verified_is_no_finding(numbers):
    folder = many()
    seen = []

    def hook(event, given_):
        if event == "open" and given_[0] == f"{folder}/.accepted" and not seen:
            seen.append(event)
            write(2)
            segments.drop(folder, numbers, "retention", stage=STAGE) if numbers else segments.certify(folder, [], stage=STAGE)

    sys.addaudithook(hook)
    assert not check(folder)[1] and seen


def test_what_is_plain_may_be_sealed_while_it_is_verified():
    folder = three()
    seen = []

    def hook(event, given_):
        if event == "open" and given_[0] == f"{folder}/.accepted" and not seen:
            seen.append(event)
            put_away(chain.segments(folder)[1])

    sys.addaudithook(hook)
    assert not check(folder)[1] and seen
    assert chain.segments(folder)[1].sealed


@pytest.mark.parametrize("what", ["spoiled", "foreign", "missing", "old"])
def test_a_checkpoint_file_that_somebody_was_at_is_found(what, home, tmp_path, monkeypatch):
    proofs.make_key()
    folder = three()
    for _ in range(3):
        write(1)
        segments.certify(folder, [], stage=STAGE)
        if not os.path.exists(tmp_path / "old"):
            shutil.copy(f"{folder}/checkpoint", tmp_path / "old")
    assert not check(folder)[1]
    if what == "missing":
        os.unlink(f"{folder}/checkpoint")
    elif what == "spoiled":
        with open(f"{folder}/checkpoint", "ab") as file:
            file.write(b"x")
    elif what == "old":
        shutil.copy(tmp_path / "old", f"{folder}/checkpoint")
    else:
        words = proofs.opened(segments.anchor(folder))
        monkeypatch.setenv("FTAI_HOME", str(tmp_path / "other"))
        proofs.make_key()
        note = proofs.sign(words)
        monkeypatch.setenv("FTAI_HOME", str(home))
        with open(f"{folder}/checkpoint", "w") as file:
            file.write(note)
    assert "the latest checkpoint" in check(folder)[1][0]


def test_a_crash_between_a_checkpoint_and_its_file_is_no_finding(tmp_path):
    proofs.make_key()
    folder = three()
    segments.certify(folder, [], stage=STAGE)
    shutil.copy(f"{folder}/checkpoint", tmp_path / "old")
    write(1)
    segments.certify(folder, [], stage=STAGE)
    shutil.copy(tmp_path / "old", f"{folder}/checkpoint")
    assert not check(folder)[1]


def test_nothing_is_signed_that_does_not_go_on_from_the_last_checkpoint():
    proofs.make_key()
    folder = many()
    segments.certify(folder, [], stage=STAGE)
    before = segments.anchor(folder)
    with open(f"{folder}/current.ftai", "r+b") as file:
        data = file.read()
        file.truncate(data.rindex(b"\n@note\n", 0, data.rindex(b"\n@checkpoint\n")))
    for sign in (lambda: segments.certify(folder, [], stage=STAGE), lambda: segments.drop(folder, [1], "retention", stage=STAGE)):
        with pytest.raises(Failure) as bad:
            sign()
        assert bad.value.code == SOME and "does not go on" in bad.value.message
    write(5)  # as long again, and something else
    with pytest.raises(Failure):
        segments.certify(folder, [], stage=STAGE)
    assert segments.anchor(folder) == before and len(chain.segments(folder)) == 4


def test_segments_that_are_gone_from_the_end_are_missed():
    folder = many()
    os.unlink(f"{folder}/current.ftai")
    assert "followed by a live one" in check(folder)[1][0]
    os.unlink(chain.segments(folder)[-1].path)
    assert "segment 4, seq 12 to 15, is missing" in check(folder)[1][1]
    # Nobody takes their numbers.
    journal._live.clear()
    write(1)
    assert live(folder).number == 5 and live(folder).first == 16
    assert "missing" in check(folder)[1][0]


def test_a_ledger_that_is_lost_keeps_nobody_from_writing(home):
    folder = many()
    kept = chain.ledger(folder)
    os.unlink(f"{folder}/ledger")
    shutil.move(home / "state/keys/identity", home / "identity")
    archive.discard()
    journal._live.clear()
    [rec] = write(1)
    assert journal.append(folder, [rec], known=(0, {}), stage=STAGE)[0][0] == "repeat"
    with pytest.raises(Failure):
        segments.relist(folder)
    shutil.move(home / "identity", home / "state/keys/identity")
    assert len(segments.relist(folder)) == 4
    assert {number: {key: entry[key] for key in entry if key != "method"} for number, entry in kept.items()} == chain.ledger(folder)


def test_a_ledger_that_lies_removes_nothing_that_was_not_chosen():
    folder = many()
    entries = chain.ledger(folder)
    entries[1] |= {"last": entries[3]["last"], "hash": entries[3]["hash"]}
    chain.save_ledger(folder, entries)
    assert "does not hold what the ledger says" in check(folder)[1][0]
    with pytest.raises(Failure) as bad:
        segments.drop(folder, [1], "retention", stage=STAGE)
    assert "does not hold what the ledger says" in bad.value.message
    assert len(chain.segments(folder)) == 4


def test_what_was_removed_of_another_journal_removes_nothing(home, tmp_path):
    """With the same key: a journal that was begun anew after a loss."""
    folder = many()
    segments.drop(folder, [1, 2], "retention", stage=STAGE)
    shutil.move(folder, tmp_path / "lost")
    journal._live.clear()
    archive.discard()
    folder = many()
    shutil.copy(tmp_path / "lost" / "checkpoint", f"{folder}/checkpoint")
    assert segments.finish(folder) == [] and len(chain.segments(folder)) == 4
    assert "another journal" in check(folder)[1][0]
    segments.certify(folder, [], stage=STAGE)
    assert segments.removed(folder) == [] and not check(folder)[1]


def test_a_disk_that_can_only_be_read_is_no_damage(monkeypatch):
    folder = three()
    real = sealed.open_
    asked = []

    def only_read(path, *, folder=None, most=None):
        asked.append(folder)
        if folder is None:
            raise Failure("cannot write: Read-only file system", 73)
        return real(path, folder=folder, most=most)

    monkeypatch.setattr(sealed, "open_", only_read)
    assert not check(folder)[1] and bodies(folder) == ALL
    assert asked.count(None) == 2


def test_a_purge_leaves_no_sealed_copy_of_what_is_plain():
    folder = three()
    part = chain.segments(folder)[0]
    shutil.copy(part.path, part.path + ".kept")
    segments.bring_back(folder, part)
    os.rename(part.path + ".kept", part.path)  # as where that was killed in the middle
    assert os.path.exists(f"{folder}/000001.ftai")
    segments.bury(folder, "000001.ftai", [])
    assert not os.path.exists(part.path)


def test_a_journal_that_is_gone_is_missed():
    folder = many()
    segments.certify(folder, [], stage=STAGE)
    for part in chain.segments(folder):
        os.unlink(part.path)
    os.unlink(f"{folder}/current.ftai")
    found = check(folder)[1]
    assert "a journal that is missing" in found[-1] and len(found) == 5
    os.unlink(f"{folder}/ledger")
    assert len(check(folder)[1]) == 1


def test_who_follows_needs_no_identity_for_what_was_read(home):
    write(5, "one")
    folder = paths.journal()
    rec = next(rec for seq, rec in journal.read(folder, after=4))
    part = close()
    put_away(part)
    shutil.move(home / "state/keys/identity", home / "identity")
    write(2, "two")

    class Enough(Exception):
        pass

    def wait():
        raise Enough

    found, warned = [], []
    with pytest.raises(Enough):
        for fresh in journal.follow(folder, 5, wait, digest=rec["@blocks"][-1]["hash"], warn=warned.append):
            found += fresh
    assert [rec["body"] for _, rec in found if "body" in rec] == ["two 0", "two 1"] and not warned
    # With another hash it is not that record, and what stands in its place is read from the beginning.
    shutil.move(home / "identity", home / "state/keys/identity")
    with pytest.raises(Enough):
        for fresh in journal.follow(folder, 5, wait, digest="0" * 64, warn=warned.append):
            found += fresh
    assert warned


def opened() -> list[str]:
    """What the descriptors of this process are open on."""
    places = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    return [os.readlink(place) for place in places if os.path.lexists(place)]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="NO /proc: open files can't be told")
def test_what_is_removed_takes_no_time_under_the_lock(monkeypatch):
    """A file that is still open has no name any more, and its bytes go when the lock is free: with those of 1 GB that takes a second."""
    write(3)
    part, held = close(), []
    free = chain.Lock.__exit__

    def freed(lock, *given):
        held.extend(opened())
        return free(lock, *given)

    with monkeypatch.context() as patch:
        patch.setattr(chain.Lock, "__exit__", freed)
        put_away(part)
    assert f"{part.path} (deleted)" in held
    assert f"{part.path} (deleted)" not in opened()
    proofs.make_key()
    write(3)
    number, held = put_away(close()).number, []
    with monkeypatch.context() as patch:
        patch.setattr(chain.Lock, "__exit__", freed)
        segments.drop(paths.journal(), [number], "retention", stage=STAGE)
    assert any(name.endswith(f"{number:06d}.ftai.zst.sealed (deleted)") for name in held)
