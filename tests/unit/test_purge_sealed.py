"""Purging what stands in sealed segments."""

import os
import shutil
import sys

import pytest
from serenamaster import archive, chain, journal, paths, proofs, purge, record, segments
from test_segments import STAGE, bodies, check, close, home, put_away, write  # noqa: F401

# A use of the fixture `home` that the other file has for all its tests.
pytestmark = pytest.mark.usefixtures("home")


def sealed() -> str:
    """A journal of two sealed segments and a live one, with a word that is to go in the first and the last."""
    proofs.make_key()
    journal.append(paths.journal(), [record.make("note", "x", body="the heron stands")], stage=STAGE)
    write(3, "one")
    put_away(close())
    write(3, "two")
    put_away(close())
    journal.append(paths.journal(), [record.make("note", "x", body="another heron")], stage=STAGE)
    segments.certify(paths.journal(), [], stage=STAGE)
    return paths.journal()


def go(**settings):
    return purge.run(purge.Asked(pattern="heron"), "it was asked for", stage="ftai-archive", **settings)


def everything() -> bytes:
    """All plain bytes of what the journal's folder holds, sealed segments opened."""
    found = b""
    for part, fd, _ in segments.snapshot(paths.journal()):
        os.close(fd)
        fd, size, _ = chain.open_segment(part) if part.name != chain.LIVE else chain.open_plain(part.path)
        found += os.pread(fd, size, 0)
        os.close(fd)
    return found


def test_what_is_sealed_is_purged_too():
    folder = sealed()
    assert b"heron" in everything()
    [_, certificate] = go()
    assert (certificate["outcome"], certificate["records"]) == ("done", 2) and "unreached" not in certificate
    assert b"heron" not in everything()
    # Only the one that was rewritten is plain now.
    assert [(part.number, part.sealed) for part in chain.segments(folder)] == [(1, False), (2, True), (3, False)]
    assert chain.ledger(folder).keys() == {2}
    assert not check(folder)[1]
    root = segments.describe(folder, chain.segments(folder)[0])["root"]
    put_away(chain.segments(folder)[0])
    assert chain.ledger(folder)[1]["root"] == root
    assert not check(folder)[1] and not [body for body in bodies(folder) if "heron" in body]
    assert archive.ask(lambda db: db.execute("SELECT count(*) FROM records WHERE line LIKE '%heron%'").fetchone()[0]) == 0


def test_the_tree_of_hashes_is_as_it_was():
    folder = sealed()
    root = chain.ledger(folder)[1]["root"]
    go()
    assert segments.describe(folder, chain.segments(folder)[0])["root"] == root


def test_a_sealed_segment_that_cannot_be_opened_is_named(home):  # noqa: F811
    folder = sealed()
    shutil.move(home / "state/keys/identity", home / "identity")
    [_, certificate] = go()
    assert (certificate["outcome"], certificate["records"], certificate["shut"]) == ("incomplete", 1, 2)
    assert certificate["unreached"] == [part.path for part in chain.segments(folder)[:2]]
    shutil.move(home / "identity", home / "state/keys/identity")
    [_, certificate] = go()
    assert certificate["outcome"] == "done" and b"heron" not in everything() and not check(folder)[1]


def test_a_lost_ledger_stops_no_purge_beside_what_cannot_be_opened(home):  # noqa: F811
    write(2, "plain")
    close()
    folder = sealed()
    shutil.move(home / "state/keys/identity", home / "identity")
    os.unlink(f"{folder}/ledger")
    certificate = go()[-1]
    assert (certificate["outcome"], certificate["records"], certificate["shut"]) == ("incomplete", 1, 2)


def test_backups_are_named_as_what_was_not_reached():
    sealed()
    [_, certificate] = go(backups=["/mnt/backup", "/mnt/heron"])
    assert certificate["unreached"] == ["/mnt/backup"]


def test_a_purge_that_was_interrupted_is_ended_in_sealed_segments(monkeypatch):
    folder = sealed()

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(segments, "bring_back", stop)
    with pytest.raises(KeyboardInterrupt):
        go()
    monkeypatch.undo()
    monkeypatch.setenv("FTAI_HOME", os.path.dirname(os.path.dirname(folder)))
    assert "says it was purged, and it stands" in check(folder)[1][0]
    [certificate] = purge.run(None, "", stage="ftai-archive")
    assert certificate["records"] == 2 and b"heron" not in everything() and not check(folder)[1]


def test_signed_checkpoints_are_kept():
    folder = sealed()
    segments.certify(folder, [], stage=STAGE)
    purge.run(purge.Asked(since=archive.instant("2020-01-01T00:00:00Z")), "all of it", stage="ftai-archive")
    kept = [found for _, found in journal.read(folder) if found["@tag"] == "checkpoint" and "note" in found]
    assert len(kept) == 2 and not check(folder)[1]
    assert bodies(folder) == []


def test_a_purge_of_what_is_sealed_while_it_is_verified_is_no_finding():
    folder = sealed()
    seen = []

    def hook(event, given_):
        if event == "open" and given_[0] == f"{folder}/.accepted" and not seen:
            seen.append(event)
            go()

    sys.addaudithook(hook)
    assert not check(folder)[1] and seen
    assert not chain.segments(folder)[0].sealed
