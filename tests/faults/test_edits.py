"""A meddling hand: random edits, deletions, swaps and insertions in the segments of a journal, sealed ones among them. All are found, and the first
finding names the record that was touched; of a sealed segment, which opens whole or not at all, its first one.

Left alone are: the list of tags in the head of a segment, which no hash holds; a line end behind the last record, which says nothing; and what stands
behind the last signed checkpoint, of which ftai(5) says that nobody knows how far it went.
"""

import os
import random
import re
import shutil

import pytest
from serenamaster import archive, chain, evidence, journal, paths, proofs, record, sealed, segments, verification

SCALE = int(os.environ.get("FTAI_TEST_SCALE", "1"))
EDITS = 1000 * SCALE
CUTS = 50 * SCALE
STAGE = "ftai-test"
FIELD = re.compile(rb'  optional_tags: \[[^\n]*\n')


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("edits")
        patch.setenv("FTAI_HOME", str(place))
        patch.setattr(journal, "_live", {})
        archive._caught.clear()
        build()
        yield paths.journal()
        archive.discard()


def build() -> None:
    """Segments 1 and 3 sealed, 2 and 4 closed and plain, and a live one that ends in a signed checkpoint."""
    proofs.make_key()
    for n in range(5):
        bodies = ["plain", 'quotes " and \\ and \n@end\n  @chain\n    seq: 7', "ü \u2028", "", "x" * 300]
        made = [record.make("note", "ftai-elsewhere", body=f"{bodies[k % 5]} {n} {k}", list=["a", 1]) for k in range(8)]
        journal.append(paths.journal(), made, stage=STAGE)
        if n == 4:
            break
        name = segments.rotate(paths.journal(), stage=STAGE)
        part = next(part for part in chain.segments(paths.journal()) if part.name == name)
        if n % 2 == 0:
            entry = segments.describe(paths.journal(), part)
            fd = chain.regular(part.path)
            entry |= sealed.write(fd, part.path, entry)
            os.close(fd)
            segments.put_away(paths.journal(), part, entry)
    evidence.checkpoint(paths.journal(), stage=STAGE)


class File:
    """A segment, and where in it which record stands: (offset, end, seq, id), the blank line before a record included."""

    def __init__(self, path: str, plain: bytes, is_sealed: bool):
        self.path, self.sealed = path, is_sealed
        with open(path, "rb") as file:
            self.data = file.read()
        top = chain.head(plain)
        self.start, self.first, self.prev = top.start, top.first, top.prev
        self.records = []
        at = top.start
        for piece in plain[top.start :].split(chain.END)[:-1]:
            own = re.search(rb'\n  id: "([^"]*)"', piece)
            end = at + len(piece) + len(chain.END)
            self.records.append((at, end, int(chain.CHAIN.search(piece)[1]), own[1].decode() if own else ""))
            at = end

    def seq(self, at: int) -> int:
        """Whose bytes these are."""
        return next((seq for start, end, seq, _ in self.records if at < end), self.records[-1][2]) if at >= self.start else self.first


def files(folder: str) -> list[File]:
    made = []
    for part in [*chain.segments(folder), chain.Segment(0, chain.LIVE, f"{folder}/current.ftai", False)]:
        fd, size, _ = chain.open_segment(part)
        made.append(File(part.path, os.pread(fd, size, 0), part.sealed))
        os.close(fd)
    return made


def rehashed(piece: bytes, prev: str, old: bytes, new: bytes) -> bytes:
    """A record with other content and a hash that fits: what comes behind it does not."""
    from hashlib import sha256

    cut = piece.find(chain.MARK) + 1
    found = chain.CHAIN.search(piece, cut)
    content = piece[1:cut].replace(old, new)
    own = sha256(f"ftai-journal/1 {int(found[1])} {prev} {sha256(found[2] + content).hexdigest()}\n".encode()).hexdigest()
    return b"\n" + content + piece[cut:].replace(found[4], own.encode())


def edit(dice: random.Random, file: File, whole: list[File]):
    """(what was done, changed bytes, seqs one of which is to be named, id or "") of one random change; None where it would change nothing."""
    data, n = file.data, dice.randrange(len(file.records))
    at, end, seq, own = file.records[n]
    tags = FIELD.search(data)
    if file.sealed:
        how = dice.choice(["flip", "delete", "insert", "cut", "swap"])
        at = dice.randrange(len(data))
        if how == "swap":
            other = next(one for one in whole if one.sealed and one is not file)
            return how, other.data, {file.first}, ""
        length = dice.randint(1, 40)
        new = {
            "flip": data[:at] + bytes([data[at] ^ (1 << dice.randrange(8))]) + data[at + 1 :],
            "delete": data[:at] + data[at + length :],
            "insert": data[:at] + dice.randbytes(length) + data[at:],
            "cut": data[:at],
        }[how]
        return how, new, {file.first}, ""
    how = dice.choice(["byte", "byte", "bytes out", "bytes in", "record out", "swap", "record in", "rehash"])
    live = file is whole[-1]
    if how in ("byte", "bytes out", "bytes in"):
        at = dice.randrange(len(data))
        length = dice.randint(1, 40) if how == "bytes out" else 1
        if tags.start() < at + length and at < tags.end() or (how == "bytes in" and at >= len(data) - 1):
            return None
        if how == "bytes in":
            new = data[:at] + bytes(dice.choices(b'\n@end "0az\\', k=dice.randint(1, 5))) + data[at:]
        else:
            new = data[:at] + (b"" if how == "bytes out" else bytes([dice.randrange(256)])) + data[at + length :]
        if new == data or (live and new.rstrip(b"\n") == data.rstrip(b"\n")):
            return None
        # Where what is put in or out begins like what it stands in, the first byte that differs is further on.
        at = next((n for n, (old, now) in enumerate(zip(data, new, strict=False)) if old != now), min(len(data), len(new)))
        named = file.seq(at)
        inside = next((one for one in file.records if one[0] < at < one[1]), None)
        id_at = data.find(f'\n  id: "{inside[3]}"'.encode(), inside[0]) if inside and inside[3] else -1
        keeps = how == "byte" and inside and id_at >= 0 and not id_at <= at <= id_at + 45
        return how, new, {named}, inside[3] if keeps else ""
    if live and n >= len(file.records) - 2:
        return None  # behind the checkpoint, or cutting what it covers: test_a_tail_that_was_cut
    piece = data[at:end]
    if how == "record out":
        return how, data[:at] + data[end:], {seq}, ""
    if how == "swap":
        other = dice.randrange(len(file.records))
        if other == n:
            return None
        (a, b, first, _), (c, d, _, _) = sorted((file.records[n], file.records[other]))
        return how, data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:], {first}, ""
    if how == "record in":
        source = dice.choice([one for one in whole if not one.sealed])
        a, b, *_ = dice.choice(source.records)
        # Of a record that stands there twice, the second is one too many.
        return how, data[:at] + source.data[a:b] + data[at:], {seq + (source.data[a:b] == piece)}, ""
    prev = chain.CHAIN.search(data, *file.records[n - 1][:2])[4].decode() if n else file.prev
    new = data[:at] + rehashed(piece[: -len(chain.END)], prev, b"\n  ts: ", b"\n  more: 1\n  ts: ") + chain.END + data[end:]
    return how, new, {seq + 1}, ""


def put(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def test_every_change_is_found_and_the_right_record_named(home):
    whole = files(home)
    assert [one.sealed for one in whole] == [True, False, True, False, False]
    assert verification.verify(home)[1] == []
    seed = int(os.environ.get("FTAI_TEST_SEED", "0")) or random.randrange(1 << 32)
    dice = random.Random(seed)
    done: dict = {}
    while sum(done.values()) < EDITS:
        # Two of three in plain files, where there is more to do, and less to open.
        shut = dice.random() < 0.33
        file = dice.choice([one for one in whole if one.sealed == shut])
        made = edit(dice, file, whole)
        if made is None or made[1] == file.data:
            continue
        how, new, seqs, own = made
        put(file.path, new)
        found = verification.verify(home)[1]
        where = f"seed {seed}, change {sum(done.values())}: {how} in {os.path.basename(file.path)}, expected {seqs} {own}"
        assert found, f"{where}: not found"
        first = next((trouble for trouble in found if trouble.line), found[0])  # rather than one of the file as a whole
        # What is missing at the end of a segment, the head of the next one tells.
        assert first.seq in seqs and first.path in (file.path, whole[min(whole.index(file) + 1, 4)].path), f"{where}: {first}"
        assert not own or first.id == own, f"{where}: {first}"
        put(file.path, file.data)
        done[how, file.sealed] = done.get((how, file.sealed), 0) + 1
    assert verification.verify(home)[1] == []
    assert len(done) == 12, done


def test_a_tail_that_was_cut_behind_a_checkpoint_is_found(home, tmp_path):
    """At any byte up to the seq that the checkpoint covers, and any number of segments."""
    whole, dice = files(home), random.Random(1)
    size = proofs.parsed(proofs.opened(evidence.anchor(home))).size
    anchor = tmp_path / "anchor"
    anchor.write_text(evidence.anchor(home))
    live = whole[-1]
    covered = next(end for _, end, seq, _ in live.records if seq == size)
    for n in range(CUTS):
        at = dice.randrange(live.start, covered) if n % 2 else dice.choice([one[0] for one in live.records if one[1] <= covered])
        put(live.path, live.data[:at])
        summary, troubles = verification.verify(home)
        assert any(trouble.seq <= file_seq <= size for trouble in troubles for file_seq in [summary.last + 1]), at
        assert any(f"to {size} are missing" in str(trouble) for trouble in troubles), (at, troubles)
        kept = evidence.Anchor(str(anchor))
        summary, _ = verification.verify(home, seen=kept.seen)
        assert any("the anchor covers them" in str(trouble) for trouble in kept.troubles(home, summary))
    put(live.path, live.data)
    # The live segment and the one before it.
    shutil.copytree(home, tmp_path / "kept")
    os.unlink(live.path)
    os.rename(whole[-2].path, live.path)
    assert any(f"to {size} are missing" in str(trouble) for trouble in verification.verify(home)[1])
    os.rename(live.path, whole[-2].path)
    put(live.path, live.data)
    assert verification.verify(home)[1] == []


def test_control_without_a_checkpoint_a_cut_tail_is_not_found(home):
    live = files(home)[-1]
    shutil.move(f"{home}/checkpoint", f"{home}/elsewhere")
    put(live.path, live.data[: live.records[-3][0]])
    assert verification.verify(home)[1] == []
    put(live.path, live.data)
    shutil.move(f"{home}/elsewhere", f"{home}/checkpoint")
