"""evidence.py: signed checkpoints, anchors that are kept elsewhere, and proofs of one record."""

import os
import pathlib
import re
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serenamaster import archive, chain, evidence, journal, paths, proofs, purge, record, sealed, segments, verification
from serenamaster.errors import CONFIG, DATAERR, NOINPUT, SOME, TEMPFAIL, USAGE, Failure

STAGE = "ftai-test"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    begin(monkeypatch, tmp_path / "home")
    yield tmp_path / "home"
    archive.discard()


def begin(monkeypatch, place):
    monkeypatch.setenv("FTAI_HOME", str(place))
    monkeypatch.setattr(journal, "_live", {})
    archive._caught.clear()


def write(count: int, name: str = "n") -> list[str]:
    made = [record.make("note", "ftai-elsewhere", body=f"{name} {n}") for n in range(count)]
    journal.append(paths.journal(), made, stage=STAGE)
    return [rec["id"] for rec in made]


def close() -> chain.Segment:
    name = segments.rotate(paths.journal(), stage=STAGE)
    return next(part for part in chain.segments(paths.journal()) if part.name == name)


def put_away(segment: chain.Segment) -> None:
    entry = segments.describe(paths.journal(), segment)
    fd = chain.regular(segment.path)
    entry |= sealed.write(fd, segment.path, entry)
    os.close(fd)
    segments.put_away(paths.journal(), segment, entry)


def sign(**more) -> dict | None:
    return evidence.checkpoint(paths.journal(), stage=STAGE, **more)


def three() -> list[str]:
    """A journal of a sealed segment, a plain closed one and a live one, with a checkpoint before and after; returns the ids of its notes."""
    proofs.make_key()
    ids = write(5, "one")
    sign()
    put_away(close())
    ids += write(6, "two")
    close()
    ids += write(3, "three")
    sign()
    return ids


def fails(call, *args, **more) -> Failure:
    with pytest.raises(Failure) as caught:
        call(*args, **more)
    return caught.value


def against(path, **more):
    """(what is proven, notes, troubles) of the journal, by an anchor in this file."""
    kept = evidence.Anchor(str(path))
    summary, troubles = verification.verify(paths.journal(), seen=kept.seen, **more)
    troubles += kept.troubles(paths.journal(), summary)
    return kept.proven, kept.notes, [str(trouble) for trouble in troubles]


def keep(path, note=None):
    path.write_text(evidence.anchor(paths.journal()) if note is None else note)
    return path


# ---- checkpoints ----


def test_a_checkpoint_signs_the_end_of_the_chain_and_what_was_closed():
    three()
    folder = paths.journal()
    found = [rec for _, rec in journal.read(folder) if rec["@tag"] == "checkpoint" and "note" in rec]
    assert list(found[0])[:7] == ["@tag", "id", "ts", "thread", "from", "size", "hash"]
    first, second = (proofs.parsed(proofs.opened(rec["note"])) for rec in found)
    hashes = {seq: rec["@blocks"][-1]["hash"] for seq, rec in journal.read(folder)}
    for said, rec in ((first, found[0]), (second, found[1])):
        assert (said.size, said.head) == (rec["size"], rec["hash"]) == (rec["size"], hashes[rec["size"]])
    assert (first.closed, first.segments) == (0, [])
    assert second.closed == 2
    for part, line in zip(chain.segments(folder), second.segments, strict=True):
        entry = segments.describe(folder, part)
        assert line == (part.number, entry["first"], entry["last"], entry["root"])
        tree = proofs.Tree()
        for seq in range(line.first, line.last + 1):
            tree.add(hashes[seq])
        assert tree.root() == line.root
    assert evidence.anchor(folder) == found[1]["note"]


def test_where_nothing_was_written_nothing_is_signed():
    folder = paths.journal()
    assert sign() is None
    assert journal.position(folder) == 0
    write(1)
    assert fails(sign).code == CONFIG
    assert fails(evidence.anchor, folder).code == NOINPUT
    proofs.make_key()
    assert sign()["size"] == 1
    assert sign() is None
    assert evidence.due(folder) is None
    write(1)
    assert evidence.due(folder) == (3, [])
    assert sign()["size"] == 3
    close()
    assert [part[:3] for part in evidence.due(folder)[1]] == [(1, 1, 4)]
    assert sign() is not None
    assert sign() is None


def test_without_a_key_no_segment_is_opened_in_vain(monkeypatch):
    write(3)
    close()
    monkeypatch.setattr(segments, "describe", lambda *_: pytest.fail("it was looked at"))
    shutil.rmtree(os.path.join(paths.where("state"), "keys"), ignore_errors=True)
    assert fails(sign).code == CONFIG


def test_a_lost_checkpoint_file_is_made_again_with_all_roots():
    three()
    os.unlink(f"{paths.journal()}/checkpoint")
    assert [part.number for part in proofs.parsed(proofs.opened(sign()["note"])).segments] == [1, 2]


def test_of_a_damaged_segment_no_root_is_signed_and_the_rest_goes_on():
    proofs.make_key()
    write(5)
    path = close().path
    write(5)
    close()
    data = pathlib.Path(path).read_bytes()
    with open(path, "wb") as file:
        file.write(data.replace(b"n 2", b"n X"))
    told = []
    said = proofs.parsed(proofs.opened(sign(warn=told.append)["note"]))
    assert [part.number for part in said.segments] == [2]
    assert len(told) == 1 and "segment 1" in told[0]


def test_a_journal_that_was_cut_is_not_signed_over(tmp_path):
    three()
    folder = paths.journal()
    kept = evidence.anchor(folder)
    data = pathlib.Path(folder, "current.ftai").read_bytes()
    at = data.rindex(b"\n@note\n", 0, data.rindex(b"\n@note\n"))
    with open(f"{folder}/current.ftai", "wb") as file:
        file.write(data[:at])
    assert fails(sign).code == SOME
    write(9)
    # It is longer again, and other.
    assert fails(sign).code == SOME
    assert evidence.anchor(folder) == kept
    assert any("is signed for another hash" in str(trouble) for trouble in verification.verify(folder)[1])


# ---- anchors ----


@pytest.mark.parametrize("run", [1, 2, 3, 5, 12])
@pytest.mark.parametrize("size", [1, 6, 9, 10, 12])
def test_an_anchor_takes_of_any_runs_what_it_is_about(run, size, tmp_path):
    """Of a segment from seq 1 to 12 it covers `size`, and 4 to 9 have a root."""
    proofs.make_key()
    hashes = [f"{n:064x}" for n in range(1, 13)]
    words = proofs.text(record.new_id(), size, hashes[-1], proofs.lines(1, [(1, 4, min(9, size), "0" * 64)] if size > 4 else []))
    kept = evidence.Anchor(str(keep(tmp_path / "anchor", proofs.sign(words))))
    tree = proofs.Tree()
    for own in hashes[3 : min(9, size)] if size > 4 else []:
        tree.add(own)
    for at in range(0, 12, run):
        kept.seen(1, at + 1, hashes[at : at + run])
    assert kept.head == hashes[size - 1]
    assert [(found.size, found.root()) for _, found in kept.trees.values()] == [(tree.size, tree.root())] * (size > 4)


def test_an_anchor_proves_what_it_covers(tmp_path):
    three()
    kept = keep(tmp_path / "anchor")
    said = proofs.parsed(proofs.opened(kept.read_text()))
    assert against(kept) == ([f"seq 1 to {said.size}", "segment 1", "segment 2"], [], [])
    write(5, "more")
    sign()
    put_away(close())
    sign()
    assert against(kept) == ([f"seq 1 to {said.size}", "segment 1", "segment 2"], [], [])


def test_an_old_state_of_the_journal_does_not_pass_a_newer_anchor(tmp_path, monkeypatch):
    three()
    shutil.copytree(paths.state(), tmp_path / "old" / "state")
    before = journal.position(paths.journal())
    write(2)
    put_away(close())
    sign()
    kept = keep(tmp_path / "anchor")
    os.chmod(tmp_path / "old" / "state", 0o700)
    begin(monkeypatch, tmp_path / "old")
    assert verification.verify(paths.journal())[1] == [], "by itself it looks whole"
    proven, _, troubles = against(kept)
    assert not [what for what in proven if what.startswith("seq")]
    assert any(f"the records from seq {before + 1} to" in trouble for trouble in troubles)
    assert any("the root of segment 3" in trouble for trouble in troubles)


def anew(folder: str, old: bytes, new: bytes) -> None:
    """Writes all plain segments anew from the first that holds `old` on, with `new` in its place, and a chain that is right: as the owner could."""
    from hashlib import sha256

    names = [*(part.name for part in chain.segments(folder)), "current.ftai"]
    prev = None
    for name in names:
        path = f"{folder}/{name}"
        data = pathlib.Path(path).read_bytes()
        top = chain.head(data)
        prev = prev or top.prev
        out = [chain.heading(top.journal, top.number, top.first, prev, top.tags)]
        fd = os.open(path, os.O_RDONLY)
        for _, piece, cut, seq, _, _ in list(chain.walk(fd, top.start, len(data), top.first - 1, top.prev)):
            salt = chain.CHAIN.fullmatch(piece, cut + 9)[2]
            content = piece[1:cut].replace(old, new)
            prev = sha256(f"ftai-journal/1 {seq} {prev} {sha256(salt + content).hexdigest()}\n".encode()).hexdigest()
            out.append(b'\n%b  @chain\n    seq: %d\n    salt: "%b"\n    hash: "%b"\n  @end\n@end\n' % (content, seq, salt, prev.encode()))
        os.close(fd)
        with open(path, "wb") as file:
            file.write(b"".join(out))


def test_what_was_written_anew_does_not_pass(tmp_path):
    proofs.make_key()
    write(5, "one")
    close()
    write(5, "two")
    sign()
    kept, size = keep(tmp_path / "anchor"), journal.position(paths.journal()) - 1
    anew(paths.journal(), b"two 1", b"two 7")
    os.unlink(f"{paths.journal()}/checkpoint")
    _, _, troubles = against(kept)
    assert any(f"anchor: seq {size}: its hash is not the one that was signed" in trouble for trouble in troubles), troubles
    assert not any("the root of" in trouble for trouble in troubles), "the first segment is as it was"
    anew(paths.journal(), b"one 1", b"one 7")
    _, _, troubles = against(kept)
    assert any("anchor: seq 1: the root of segment 1" in trouble for trouble in troubles), troubles


def test_what_retention_removed_is_said_as_such(tmp_path):
    three()
    early = keep(tmp_path / "early", next(rec["note"] for _, rec in journal.read(paths.journal()) if "note" in rec))
    late = keep(tmp_path / "late")
    size = proofs.parsed(proofs.opened(late.read_text())).size
    first, second = chain.segments(paths.journal())
    entry = segments.describe(paths.journal(), first)
    segments.drop(paths.journal(), [1], "retention", stage=STAGE)
    proven, notes, troubles = against(late)
    assert (proven, troubles) == ([f"seq {entry['last'] + 1} to {size}", "segment 2"], [])
    assert notes == ["segment 1 was removed, as a signed checkpoint says: nothing is proven of what it held"]
    proven, notes, troubles = against(early)
    assert (proven, troubles) == ([], [])
    assert f"seq 1 to {entry['last']}, which the anchor covers, were removed" in notes[0]
    # Where nothing signed says so, it is missing.
    os.unlink(second.path)
    assert against(late)[2]


def test_an_anchor_at_the_end_of_what_was_removed_still_proves_where_the_rest_goes_on(tmp_path):
    proofs.make_key()
    write(3)
    note = proofs.sign(proofs.text(*journal_end(), proofs.lines(0)))
    kept = keep(tmp_path / "anchor", note)
    close()
    write(3)
    segments.drop(paths.journal(), [1], "retention", stage=STAGE)
    proven, _, troubles = against(kept)
    assert (proven, troubles) == (["seq 3"], [])
    wrong = keep(tmp_path / "wrong", proofs.sign(proofs.text(journal_end()[0], 3, "00" * 32, proofs.lines(0))))
    assert against(wrong)[2]


def journal_end() -> tuple:
    with open(f"{paths.journal()}/current.ftai", "rb") as file:
        name = chain.head(file.read(chain.WINDOW)).journal
    seq, rec = list(journal.read(paths.journal()))[-1]
    return name, seq, rec["@blocks"][-1]["hash"]


def test_without_the_identity_the_ledger_speaks_for_a_sealed_segment(tmp_path):
    three()
    kept = keep(tmp_path / "anchor")
    os.rename(f"{paths.state()}/keys/identity", tmp_path / "identity")
    proven, notes, troubles = against(kept)
    assert (proven[1:], troubles) == (["segment 2"], [])
    assert notes == ["segment 1 can't be opened here: by the ledger alone its root is the one that was signed"]
    ledger = pathlib.Path(paths.journal(), "ledger").read_text()
    root = chain.ledger(paths.journal())[1]["root"]
    with open(f"{paths.journal()}/ledger", "w") as file:
        file.write(ledger.replace(root, "00" * 32))
    assert any("the root of segment 1" in trouble for trouble in against(kept)[2])


def test_since_verifies_from_the_segment_that_was_live_then(tmp_path, monkeypatch):
    proofs.make_key()
    times = iter(f"2026-11-{day:02}T12:00:00.000Z" for day in range(1, 29))
    with monkeypatch.context() as clock:
        clock.setattr(record, "now", lambda: next(times))
        for name in ("one", "two", "three"):
            write(3, name)
            close()
    sign()
    kept = keep(tmp_path / "anchor")
    path = chain.segments(paths.journal())[0].path
    data = pathlib.Path(path).read_bytes()
    with open(path, "wb") as file:
        file.write(data.replace(b"one 1", b"one X"))
    assert against(kept)[2]
    when = next(rec["ts"] for _, rec in journal.read(paths.journal()) if rec.get("body") == "two 1")
    proven, notes, troubles = against(kept, since=when)
    assert troubles == []
    assert notes == ["segment 1 is older than what was verified"]
    assert proven[1:] == ["segment 2", "segment 3"]
    assert re.match(r"seq [4-6] to ", proven[0])


@pytest.mark.parametrize(
    "change",
    [
        lambda note: note.replace("closed 2", "closed 3"),
        lambda note: note.replace("\n", "\r\n"),
        lambda note: note + note.split("\n\n")[1],
        lambda note: "From: me\n\n" + note,
        lambda note: note[:-3] + ("E" if note[-3] == "A" else "A") + "=\n",
        lambda note: note.replace("\u2014 serenamaster ", "\u2014 serenamaster  "),
        lambda note: note.replace("segment 1", "segment\t1"),
        lambda note: proofs.sign("some text\n"),
        lambda note: "",
    ],
)
def test_a_forged_anchor_is_refused(tmp_path, change):
    three()
    kept = keep(tmp_path / "anchor", change(evidence.anchor(paths.journal())))
    assert fails(evidence.Anchor, str(kept)).code == DATAERR
    shutil.copy(kept, f"{paths.journal()}/checkpoint")
    assert fails(evidence.anchor, paths.journal()).code in (DATAERR, NOINPUT)


def test_an_anchor_of_another_key_or_journal_is_refused(tmp_path, monkeypatch):
    three()
    kept = keep(tmp_path / "anchor")
    begin(monkeypatch, tmp_path / "other")
    three()
    assert fails(evidence.Anchor, str(kept)).code == DATAERR
    with open(f"{paths.state()}/keys/signing.pub", "a") as file:
        file.write((tmp_path / "home" / "state" / "keys" / "signing.pub").read_text())
    assert any("it is of the journal" in trouble for trouble in against(kept)[2])
    assert fails(evidence.Anchor, str(tmp_path / "nowhere")).code == NOINPUT
    assert fails(evidence.Anchor, str(tmp_path)).code == DATAERR
    (tmp_path / "bytes").write_bytes(b"\xff")
    assert fails(evidence.Anchor, str(tmp_path / "bytes")).code == DATAERR


def test_a_key_is_named_without_its_base64():
    """Which may hold a `+` itself."""
    assert evidence._key("serenamaster+29d39126+ATEVfttqktKsZAl1sdngHJkRU9kj+AAA") == "serenamaster+29d39126"


# ---- the proof of one record ----


def test_each_closed_record_is_proven_and_no_live_one(tmp_path):
    ids = three()
    folder = paths.journal()
    known = {rec["id"]: (seq, rec) for seq, rec in journal.read(folder)}
    for own in ids[:11]:
        for at in (None, known[own][0]):
            words = evidence.prove(folder, own, at)
            name, seq, content, vkey, line = evidence.checked(words)
            assert (seq, vkey) == (known[own][0], proofs.own())
            assert f'  id: "{own}"\n' in content and known[own][1]["body"] in content
            assert line.first <= seq <= line.last
            assert name == journal_end()[0]
    for own in ids[11:]:
        bad = fails(evidence.prove, folder, own)
        assert (bad.code, bad.hint) == (TEMPFAIL, "ftai-rotate --now")
    close()
    bad = fails(evidence.prove, folder, ids[-1])
    assert (bad.code, bad.hint) == (TEMPFAIL, "ftai-log --checkpoint")
    sign()
    evidence.checked(evidence.prove(folder, ids[-1]))
    # The latest checkpoint has no root of the first segment: an older one in the journal does.
    evidence.checked(evidence.prove(folder, ids[0]))
    assert fails(evidence.prove, folder, record.make("note", "x")["id"]).code == NOINPUT
    assert fails(evidence.prove, folder, "").code == USAGE
    assert fails(evidence.prove, folder, "../x").code == USAGE


def test_a_proof_needs_no_journal(monkeypatch, tmp_path):
    own = three()[7]
    words, key = evidence.prove(paths.journal(), own), pathlib.Path(paths.state(), "keys", "signing.pub").read_text()
    begin(monkeypatch, tmp_path / "other")
    assert fails(evidence.checked, words).code == CONFIG
    assert not (tmp_path / "other").exists()
    evidence.checked(words, [key.strip()])
    proofs.make_key()
    assert fails(evidence.checked, words).code == DATAERR


def test_a_purged_record_has_no_proof_and_its_neighbours_do():
    ids = three()
    purge.run(purge.Asked(ids=(ids[7],)), "test", stage=STAGE)
    sign()
    for own in (ids[6], ids[8]):
        evidence.checked(evidence.prove(paths.journal(), own))
    assert fails(evidence.prove, paths.journal(), ids[7]).code == NOINPUT


def test_of_a_segment_that_was_changed_nothing_is_proven():
    ids = three()
    path = chain.segments(paths.journal())[1].path
    data = pathlib.Path(path).read_bytes()
    for old, new in ((b"two 3", b"two X"), (b"two 1", b"two X")):
        with open(path, "wb") as file:
            file.write(data.replace(old, new))
        assert fails(evidence.prove, paths.journal(), ids[8]).code == SOME


@pytest.fixture(scope="module")
def proof(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        begin(patch, tmp_path_factory.mktemp("proof") / "home")
        own = three()[7]
        return evidence.prove(paths.journal(), own), [proofs.own()]


@given(st.data())
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_character_of_a_proof_can_be_another(proof, data):
    words, keys = proof
    evidence.checked(words, keys)
    at = data.draw(st.integers(0, len(words) - 1))
    other = data.draw(st.sampled_from(["", "\n", "0", "a", "Z", "\r", "\x00", " "]) | st.characters(exclude_categories=["Cs"]))
    changed = words[:at] + other + words[at + data.draw(st.integers(0, 2)) :]
    if changed != words:
        assert fails(evidence.checked, changed, keys).code == DATAERR


def test_what_is_no_proof_is_refused(proof):
    words, keys = proof
    for made in ("", "\n", words + "\n", words[:-1], words * 2, "\n" + words, words.replace("\n", "\r\n"), words.replace("-proof/1", "-proof/2")):
        assert fails(evidence.checked, made, keys).code == DATAERR


@pytest.mark.parametrize("name", ["salt", "hash"])
def test_what_the_chain_of_a_record_says_must_be_so(proof, name):
    words, keys = proof
    made = re.sub(rf'    {name}: "(.)', lambda found: f'    {name}: "{"1" if found[1] == "0" else "0"}', words)
    assert made != words
    assert fails(evidence.checked, made, keys).code == DATAERR


def test_a_note_about_other_seqs_is_refused(monkeypatch, tmp_path):
    own = three()[7]
    words = evidence.prove(paths.journal(), own)
    note = words.split("\n\n", 1)[1].rpartition("\n\n")[0] + "\n"
    said = proofs.parsed(proofs.opened(note))
    shifted = [(part.number, part.first + 1, part.last + 1, part.root) for part in said.segments]
    lying = proofs.sign(proofs.text(said.journal, said.size, said.head, proofs.lines(said.closed, shifted)))
    evidence.checked(words.replace(note, note))
    assert note in words
    assert "not what its @chain says" in fails(evidence.checked, words.replace(note, lying)).message


def test_a_tombstone_proves_nothing(proof):
    words, keys = proof
    found = re.search(r"\n\n(@note.*?)  @chain\n    seq: (\d+)\n    salt: \"(\w+)\"\n", words, re.S)
    from hashlib import sha256

    digest = sha256(found[3].encode() + found[1].encode()).hexdigest()
    made = words.replace(found[0], f'\n\n@tombstone\n  @chain\n    seq: {found[2]}\n    digest: "{digest}"\n')
    assert made != words
    assert fails(evidence.checked, made, keys).code == DATAERR
