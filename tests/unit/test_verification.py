"""Verifying in stretches, by several processes: it must say what is said of one record after the other, whatever is wrong."""

import os
import random
import re
import signal
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from serenamaster import archive, chain, evidence, journal, paths, proofs, purge, record, segments, verification

STAGE = "ftai-test"
LIB = Path(__file__).parents[2] / "lib"
# Verifies, and reads nothing of what the other processes say.
DEAF = """
import marshal, sys, time
from serenamaster import verification
def load(_):
    print("deaf", flush=True)
    time.sleep(1000)
marshal.load = load
verification.STRETCH = 200_000
verification.os.sched_getaffinity = lambda _: {0, 1, 2}
verification.verify(sys.argv[1], seen=lambda *_: None)
"""


@pytest.fixture
def few(monkeypatch):
    """One process, for whatever there is: in stretches, and one record after the other, which must be the same."""

    def alone(function, *args, **settings):
        with monkeypatch.context() as patch:
            patch.setattr(verification, "PROCESSES", 1)
            found = function(*args, **settings)
            patch.setattr(verification, "_looked", lambda *_: ())
            assert function(*args, **settings) == found
            return found

    return alone


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two closed segments and a live one, with tombstones, what a purge has written, and a signed checkpoint; three processors, small stretches."""
    monkeypatch.setenv("FTAI_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(journal, "_live", {})
    archive._caught.clear()
    proofs.make_key()
    home = paths.journal()
    for part in range(3):
        made = [record.make("note", "ftai-elsewhere", body=f"{part} {n} {'geheim' if n % 20 == 7 else 'x' * n}", list=["a", n]) for n in range(60)]
        journal.append(home, made, stage=STAGE)
        evidence.checkpoint(home, stage=STAGE)
        if part < 2:
            segments.rotate(home, stage=STAGE)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    monkeypatch.setattr(verification, "STRETCH", 2000)
    monkeypatch.setattr(chain, "NEAR", 700)
    yield home
    archive.discard()


def looked(path: str):
    fd, size, top = chain.open_plain(path)
    try:
        return list(verification._looked(fd, top, size, None)), size
    finally:
        os.close(fd)


def told(folder: str):
    """All that verifying says, and the hashes that it shows."""
    seen: list = []

    def each(number, seq, hashes):
        seen.extend((number, seq + n, own) for n, own in enumerate(hashes))

    summary, troubles = verification.verify(folder, seen=each)
    return summary, troubles, seen


@pytest.mark.parametrize("most", [1, 8])
def test_all_of_a_segment_is_looked_at_in_stretches(folder, most, monkeypatch):
    monkeypatch.setattr(verification, "PROCESSES", most)
    for part in [*chain.segments(folder), chain.live(folder)]:
        found, size = looked(part.path)
        assert len(found) > 4
        assert found[-1].end == size
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_whole_journal_is_told_of_as_by_one_process(folder, few):
    summary, troubles, seen = told(folder)
    assert (troubles, summary.records, len(seen)) == ([], journal.position(folder), journal.position(folder))
    assert (summary, troubles, seen) == few(told, folder)


def test_tombstones_and_checkpoints_are_seen_in_any_stretch(folder, few):
    purge.run(purge.Asked(pattern="geheim"), "somebody asked", stage=STAGE)
    whole = told(folder)
    assert whole[1] == []
    assert whole == few(told, folder)
    # An audit record that names none of them.
    for part in chain.segments(folder):
        with open(part.path, "rb") as file:
            assert b"\n@tombstone\n" in file.read()
    with open(f"{folder}/current.ftai", "rb+") as file:
        data = file.read()
        file.seek(0)
        file.write(data.replace(b"\n  purged: [", b"\n  kept: [", 1))
        file.truncate()
    torn = told(folder)
    assert len(torn[1]) > 6
    assert torn == few(told, folder)


def spoiled(dice: random.Random, data: bytes) -> bytes:
    """`data` with one thing changed behind its head."""
    ends = [found.end() for found in re.finditer(rb"\n@end\n", data)][2:]
    at, end = sorted(dice.sample(ends, 2))
    how = dice.choice(["flip", "drop", "double", "swap", "cut", "insert"])
    if how == "flip":
        at = dice.randrange(ends[0], len(data))
        return data[:at] + bytes([data[at] ^ (1 << dice.randrange(7))]) + data[at + 1 :]
    if how == "swap":
        after = dice.choice([one for one in ends if one >= end])
        return data[:at] + data[end:after] + data[at:end] + data[after:]
    made = {"drop": data[end:], "double": data[at:end] + data[at:], "cut": b"", "insert": b"\n@note\n@end\n" + data[at:]}
    return data[:at] + made[how]


def test_what_is_wrong_is_told_of_as_by_one_process(folder, few):
    dice = random.Random(4711)
    names = [part.path for part in [*chain.segments(folder), chain.live(folder)]]
    found = 0
    for _ in range(60):
        path = dice.choice(names)
        with open(path, "rb+") as file:
            kept = file.read()
            file.seek(0)
            file.write(spoiled(dice, kept))
            file.truncate()
        said = told(folder)
        assert said == few(told, folder)
        found += bool(said[1])
        with open(path, "wb") as file:
            file.write(kept)
    assert found > 55


# Of a record: what is as it should not be. The hash is of what stands there all the same.
ODD = [
    {"blank": ""},
    {"blank": "\n\n"},
    {"blank": "x"},
    {"content": 'note\n  body: "x"\n'},
    {"content": "@note\n  @chain\n  @end\n"},
    {"content": "@note\n  @chain\n"},
    {"content": '@note\n  body: "x"'},
    {"seq": "05"},
    {"seq": "+5"},
    {"seq": "6"},
    {"salt": "0123456789ABCDEF" * 2},
    {"salt": "0123456789abcdeg" * 2},
    {"salt": "0123456789abcde\n" * 2},
    {"salt": "\u00e9" * 16},
    {"salt": "0" * 31},
    {"salt": "0" * 33},
    {"salt": ""},
    {"more": '    more: "x"\n'},
    {"more": " "},
    {"kind": "digest"},
]


def segment(path, records: list, first: int = 2):
    """A segment of records, each as one of ODD."""
    prev = "0" * 64
    out = [chain.heading(record.new_id(), 2, first, prev, []).decode()]
    for seq, odd in enumerate(records, first):
        one = {"blank": "\n", "content": '@note\n  body: "x"\n', "seq": str(seq), "kind": "salt", "salt": "0123456789abcdef" * 2, "more": ""} | odd
        text, own, kind, salt, more = one["blank"] + one["content"], one["seq"], one["kind"], one["salt"], one["more"]
        digest = sha256((salt + text[1:]).encode()).hexdigest()
        prev = sha256(f"ftai-journal/1 {seq} {prev} {digest}\n".encode()).hexdigest()
        out.append(f'{text}  @chain\n    seq: {own}\n    {kind}: "{salt}"\n{more}    hash: "{prev}"\n  @end\n@end\n')
    path.write_bytes("".join(out).encode())
    return path


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_a_record_of_another_shape_is_found_though_its_hash_fits(odd, few, tmp_path):
    path = str(segment(tmp_path / "x.ftai", [{}, {}, {}, odd, {}, {}]))
    summary, troubles = few(verification.verify, files=[path])
    assert [trouble.seq for trouble in troubles] == [5]
    assert (summary.records, summary.last) == (5, 7)


def test_control_a_record_of_the_right_shape_is_right(few, tmp_path):
    path = str(segment(tmp_path / "x.ftai", [{}] * 6))
    assert few(verification.verify, files=[path])[1] == []


def test_what_is_right_is_not_taken_apart(few, tmp_path, monkeypatch):
    path = str(segment(tmp_path / "x.ftai", [{}] * 6))
    monkeypatch.setattr(chain, "CHAIN", re.compile(b"(?!)"))
    assert few(verification.verify, files=[path])[1] == []


def test_a_record_that_stands_there_again_behind_a_wrong_one_is_found(few, tmp_path):
    """What may follow a wrong record may do so once."""
    path = segment(tmp_path / "x.ftai", [{}] * 8)
    *records, end = path.read_bytes().split(chain.END)
    records[4] = records[4].replace(b'"x"', b'"y"')
    path.write_bytes(chain.END.join([*records[:8], records[5], *records[8:], end]))
    troubles = few(verification.verify, files=[str(path)])[1]
    assert [trouble.message.partition(",")[0] for trouble in troubles] == ["its hash does not fit its content and the record before", "expected seq 8"]


def test_a_seq_has_no_more_than_eighteen_digits(few, tmp_path):
    path = str(segment(tmp_path / "x.ftai", [{}] * 6, 10**18 - 3))
    summary, troubles = few(verification.verify, files=[path])
    assert (summary.records, troubles[0].seq) == (3, 10**18)


def test_a_place_that_only_looks_like_the_end_of_a_record_is_not_believed(folder, few, monkeypatch):
    # As if the search had met a chain block of somebody's own making.
    real = chain.boundaries
    monkeypatch.setattr(chain, "boundaries", lambda fd, top, size: ((at, seq, "f" * 64) for at, seq, _ in real(fd, top, size)))
    assert len(looked(f"{folder}/000001.ftai")[0]) == 0
    monkeypatch.setattr(verification, "PROCESSES", 8)
    assert told(folder) == few(told, folder)


def test_a_process_that_is_killed_is_done_without(folder, few, monkeypatch):
    want = few(told, folder)
    parent = os.getpid()

    def look(*asked):
        assert os.getpid() != parent
        os._exit(9)

    monkeypatch.setattr(verification, "_look", look)
    assert told(folder) == want


def test_no_process_is_to_be_had(folder, few, monkeypatch):
    want = few(told, folder)
    fds = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    def fork():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fork)
    assert told(folder) == want
    assert not fds or len(os.listdir("/proc/self/fd")) == fds


def test_the_hash_that_was_signed_is_looked_for_in_any_stretch(folder, few):
    said = proofs.parsed(proofs.opened(segments.anchor(folder)))
    with open(f"{folder}/checkpoint", "w") as file:
        file.write(proofs.sign(proofs.text(said.journal, said.size - 30, "0" * 64, ["closed 2"])))
    found = told(folder)
    assert any("signed for another hash of this record" in str(trouble) for trouble in found[1])
    assert found == few(told, folder)


def test_records_behind_the_end_that_the_next_segment_knows_do_not_count(folder, few, monkeypatch):
    last = journal.position(folder)
    monkeypatch.setattr(journal, "_live", {})
    with open(f"{folder}/.suspect", "w") as file:
        file.write(f"{last - 20} 3\n")
    journal.append(folder, [record.make("note", "ftai-elsewhere", body="goes on")], stage=STAGE)
    found = told(folder)
    assert found[1][0].message.endswith(f"bytes of damage behind seq {last - 20}")
    assert found == few(told, folder)


def test_no_process_outlives_one_that_was_killed(folder):
    for _ in range(4):
        journal.append(folder, [record.make("note", "ftai-elsewhere", body="x") for _ in range(1000)], stage=STAGE)
    env = os.environ | {"PYTHONPATH": str(LIB)}
    with subprocess.Popen([sys.executable, "-c", DEAF, folder], stdout=subprocess.PIPE, env=env) as ran:
        assert ran.stdout.readline() == b"deaf\n"
        ran.kill()
        # Who is left would hold it open.
        assert ran.communicate(timeout=120)[0] == b""


def test_who_started_it_may_ignore_that_processes_end(folder, few):
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert told(folder) == few(told, folder)
    finally:
        signal.signal(signal.SIGCHLD, before)
