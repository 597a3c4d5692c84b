"""Rotation: when it is time, what becomes of a closed segment, what retention lets go, and that nothing is lost where a step fails."""

import datetime
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pyrage
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serenamaster import archive, canonical, chain, journal, paths, proofs, purge, record, rotation, seal, sealed, segments, specs, verification
from serenamaster.errors import Failure

STAGE = "ftai-test"
DAY = 86400
START = 1_795_694_400  # 2026-11-26T12:00:00Z, a Thursday
root = pytest.mark.skipif(os.geteuid() != 0, reason="NOT ROOT: no file system can be mounted, so no disk is full and none read-only")


class Clock:
    """The time of the machine, as this process sees it."""

    def __init__(self):
        self.seconds = float(START)

    def time_ns(self):
        return int(self.seconds * 1e9)


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(time, "time_ns", made.time_ns)
    monkeypatch.setattr(record, "_last", [0, 0])
    return made


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch, clock):
    monkeypatch.setenv("FTAI_HOME", str(tmp_path / "ftai"))
    monkeypatch.setattr(journal, "_live", {})
    monkeypatch.chdir(tmp_path)
    archive._caught.clear()
    specs.forget()
    yield tmp_path
    archive.discard()
    specs.forget()


class Run:
    """One rotation: its records, its warnings and failures."""

    def __init__(self, **settings):
        self.warned, self.failed = [], []
        ways = {"warn": lambda message, hint="": self.warned.append((message, hint)), "fail": self.failed.append}
        self.records = list(rotation.run(paths.journal(), stage=STAGE, **{**ways, **settings}))

    @property
    def report(self) -> dict:
        assert self.records[-1]["@tag"] == "report"
        return self.records[-1]

    def tags(self) -> list[str]:
        return [rec["@tag"] for rec in self.records]

    def codes(self) -> list[int]:
        return [bad.code for bad in self.failed]


def write(*bodies, **fields):
    made = [record.make(fields.get("tag", "note"), "ftai-elsewhere", body=body, **{k: v for k, v in fields.items() if k != "tag"}) for body in bodies]
    assert [kind for kind, _, _ in journal.append(paths.journal(), made, stage="ftai-elsewhere")] == ["written"] * len(made)
    return made


def own(body: str) -> None:
    """The owner's memory spec."""
    place = Path(paths.config())
    place.mkdir(parents=True, exist_ok=True)
    (place / "serenamaster.memory.ftai").write_text(f"@ftai v2.0\n\n{body}\n")
    specs.forget()


def policy(**keys) -> None:
    fields = "".join(f"  {key}: {orjson.dumps(value).decode()}\n" for key, value in keys.items())
    own(f'@retention\n  name: "journal"\n  summary: "mine"\n{fields}@end')


def names() -> list[str]:
    return [segment.name for segment in chain.segments(paths.journal())]


def bodies() -> list[str]:
    return [rec["body"] for _, rec in journal.read(paths.journal()) if rec["@tag"] == "note"]


def sound() -> verification.Summary:
    summary, troubles = verification.verify(paths.journal())
    assert [str(trouble) for trouble in troubles] == []
    return summary


def image() -> dict:
    """What stands in the journal's folder, and what is in it."""
    return {name: Path(paths.journal(), name).read_bytes() for name in os.listdir(paths.journal()) if name not in (".lock", ".purge")}


SEALED = [f"00000{n}.ftai.zst.sealed" for n in range(10)]


# ---- when it is time ----

UTC = datetime.UTC
MOMENTS = st.datetimes(datetime.datetime(2020, 1, 1), datetime.datetime(2030, 1, 1), timezones=st.just(UTC))


@given(MOMENTS, MOMENTS, st.sampled_from(["daily", "weekly", None]))
def test_it_is_closed_when_its_day_or_week_is_over(begun, present, how):
    asked = {"rotate": how} if how else {}
    form = "%G-%V" if how == "weekly" else "%Y-%m-%d"
    assert bool(rotation.due(asked, 1, begun.isoformat(), present.isoformat())) == (begun.strftime(form) != present.strftime(form))


@pytest.mark.parametrize("how", ["daily", "weekly", "size"])
def test_it_is_closed_by_size_before_that(how):
    same = "2026-11-26T12:00:00.000Z"
    assert rotation.due({"rotate": how, "size": 2}, 1_999_999, same, same) == ""
    assert rotation.due({"rotate": how, "size": 2}, 2_000_000, same, same) == "it has 2 MB"


def test_by_size_alone_no_day_counts():
    assert rotation.due({"rotate": "size", "size": 2}, 1, "2020-01-01T00:00:00.000Z", "2026-11-26T12:00:00.000Z") == ""


def test_days_are_those_of_the_place(monkeypatch):
    late, early = "2026-11-20T22:59:00.000Z", "2026-11-20T23:01:00.000Z"
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    berlin = rotation.due({}, 1, late, early)
    monkeypatch.undo()
    time.tzset()
    assert berlin == "it was begun on 2026-11-20"
    assert rotation.due({}, 1, late, early) == ""


def test_one_that_was_begun_while_the_clock_was_wrong_is_closed():
    for words in ("2038-01-19T03:14:08.000Z", "1970-01-01T00:00:00.000Z", "soon", ""):
        assert rotation.due({}, 1, words, "2026-11-26T12:00:00.000Z")


# ---- a run ----


def test_a_day_after_the_other(clock):
    write("one", "two")
    assert Run().records == []
    clock.seconds += DAY
    run = Run()
    assert (run.tags(), run.failed) == (["audit", "report"], [])
    assert run.records[0]["what"] == ["close current.ftai: it was begun on 2026-11-26"]
    report = run.report
    assert (report["outcome"], report["closed"], report["sealed"]) == ("done", "000001.ftai", [SEALED[1]])
    assert report["sealed_bytes"] == os.path.getsize(f"{paths.journal()}/{SEALED[1]}")
    assert "failed" not in report and "removed" not in report
    assert run.warned == [("the journal has no signed checkpoint: there is no key to sign with", "ftai-keys init")]
    assert names() == [SEALED[1]]
    assert bodies() == ["one", "two"]
    assert sound().records == 5
    # It is journaled as it was told.
    held = {rec["id"]: canonical.stored(rec) for _, rec in journal.read(paths.journal())}
    assert all(held[rec["id"]] == rec for rec in run.records)


def test_the_header_of_what_is_sealed_says_what_it_is():
    write("one")
    Run(close=True)
    header, fd = sealed.open_(f"{paths.journal()}/{SEALED[1]}")
    os.close(fd)
    entry = chain.ledger(paths.journal())[1]
    assert all(header[key] == entry[key] for key in ("journal", "segment", "first", "last", "prev", "hash", "root", "records", "bytes"))
    assert header["name"] == "000001.ftai"


def test_an_idle_journal_stays_idle(clock):
    assert Run(close=True).records == []
    assert image() == {}
    write("one")
    Run(close=True)
    proofs.make_key()
    write("two")
    Run(close=True)
    before = image()
    for _ in range(40):
        clock.seconds += DAY
        run = Run()
        assert (run.records, run.failed, run.warned) == ([], [], [])
        assert Run(close=True).records == []
    assert image() == before
    assert before["current.ftai"].count(b"\n@end\n") == 2 + 3  # its head; what closed the segment before it, the checkpoint, the report


def test_with_a_key_there_is_a_signed_checkpoint_with_the_root():
    proofs.make_key()
    write("one")
    run = Run(close=True)
    assert (run.tags(), run.warned) == (["audit", "checkpoint", "report"], [])
    said = proofs.parsed(proofs.opened(run.records[1]["note"]))
    entry = chain.ledger(paths.journal())[1]
    assert [tuple(one) for one in said.segments] == [(1, 1, entry["last"], entry["root"])]
    assert sound()


@pytest.mark.parametrize("method", ["aes256", "age"])
def test_both_ways_of_sealing(monkeypatch, method):
    monkeypatch.setenv("FTAI_SEAL", method)
    write("one")
    Run(close=True)
    assert names() == ["000001.ftai" + sealed.SUFFIX[method]]
    assert bodies() == ["one"]


PEAK = """
from serenamaster import archive, paths, rotation
for rec in rotation.run(paths.journal(), stage="ftai-test", close=True, warn=print, fail=print, before=lambda: archive.catch_up(limit=None, wait=10)):
    pass
assert rec["sealed"], rec
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="only Linux tells what was most in memory")
def test_its_memory_does_not_grow_with_the_journal():
    proofs.make_key()
    peaks, path = [], os.environ | {"PYTHONPATH": os.path.dirname(os.path.dirname(rotation.__file__))}
    for count in (10, 600):
        write(*["word " * 20_000] * count)
        assert archive.catch_up(limit=None, wait=10) is None  # as it mostly is
        told = subprocess.run([sys.executable, "-c", PEAK], env=path, capture_output=True, text=True, check=True)
        peaks.append(int(told.stdout) // 1024)
    assert peaks[1] < peaks[0] + 16, peaks


def test_it_tells_how_far_it_is():
    write("one")
    told = []
    Run(close=True, told=lambda *now: told.append(now))
    size = chain.ledger(paths.journal())[1]["bytes"]
    assert told[-1] == (size, size, "000001.ftai")
    assert {(of, name) for _, of, name in told} == {(size, "000001.ftai")}


def test_only_one_at_a_time(monkeypatch):
    monkeypatch.setattr(rotation, "WAIT", 0.05)
    write("one")
    with rotation.stream.Lock(f"{paths.journal()}/.purge"), pytest.raises(Failure, match="is under way") as caught:
        Run(close=True)
    assert caught.value.code == 75
    assert names() == []


# ---- what an earlier run left ----


def closed(*words) -> str:
    """Closes a segment with these notes, as a run that was killed right behind that leaves it."""
    write(*words)
    name = segments.rotate(paths.journal(), stage=STAGE)
    assert name
    return f"{paths.journal()}/{name}"


def test_a_closed_segment_that_is_not_sealed_yet():
    closed("one")
    run = Run()
    assert run.records[0]["what"] == ["seal 000001.ftai"]
    assert (run.report.get("closed"), run.report["sealed"]) == (None, [SEALED[1]])
    assert names() == [SEALED[1]]
    assert bodies() == ["one"]
    assert Run().records == []


@pytest.mark.parametrize("suffix", sealed.SUFFIX.values())
@pytest.mark.parametrize("kind", ["garbage", "nothing", "another's"])
def test_a_sealed_file_of_a_run_that_was_killed_is_not_trusted(suffix, kind):
    first = closed("one")
    place = Path(first + suffix)
    if kind == "another's":
        fd = os.open(__file__, os.O_RDONLY)
        made = sealed.write(fd, f"{paths.journal()}/x", {"segment": 1})
        os.close(fd)
        os.rename(f"{paths.journal()}/{made['file']}", place)
    else:
        place.write_bytes(b"garbage" * (kind == "garbage"))
    assert bodies() == ["one"]
    Run()
    assert names() == [SEALED[1]]
    assert not any(os.path.exists(first + other) for other in ("", sealed.SUFFIX["age"]))
    assert bodies() == ["one"]
    assert sound()


def test_killed_between_ledger_and_removing(home):
    kept = home / "kept"
    shutil.copy(closed("one"), kept)
    Run()
    shutil.copy(kept, f"{paths.journal()}/000001.ftai")
    assert names() == ["000001.ftai"]
    assert Run().report["sealed"] == [SEALED[1]]
    assert names() == [SEALED[1]]
    assert bodies() == ["one"]


def test_temporary_files_of_processes_that_are_gone():
    folder = Path(paths.journal())
    write("one")
    gone, here = folder / ".000001.ftai.zst.sealed.99999999.tmp", folder / f".ledger.{os.getpid()}.tmp"
    gone.write_text("x")
    here.write_text("x")
    (folder / ".torn").write_text("x")
    assert Run().records == []
    assert not gone.exists()
    assert here.exists()
    assert (folder / ".torn").exists()


def test_a_removal_that_was_interrupted_is_ended(home):
    proofs.make_key()
    policy(keep_last=1)
    for word in ("one", "two"):
        write(word)
        Run(close=True)
    gone = [name for name in os.listdir(paths.journal()) if name.startswith("000001")]
    assert gone == []
    shutil.copy(f"{paths.journal()}/{SEALED[2]}", home / "kept")
    write("three")
    # Killed when the checkpoint was there, and the segment still stood.
    Run(close=True)
    shutil.copy(home / "kept", f"{paths.journal()}/{SEALED[2]}")
    assert names() == SEALED[2:4]
    run = Run()
    assert run.report["removed"] == [SEALED[2]]
    assert run.records[0]["what"] == [f"remove {SEALED[2]}"]
    assert names() == [SEALED[3]]
    assert Run().records == []
    assert sound()


# ---- what fails leaves the plain segment ----


def damage(path: str, at: bytes) -> None:
    data = Path(path).read_bytes()
    assert at in data
    Path(path).write_bytes(data.replace(at, bytes([at[0] ^ 1]) + at[1:], 1))


def test_a_damaged_segment_is_sealed_as_it_is_and_that_is_said_once():
    first = closed("one", "two", "three")
    damage(first, b'ody: "one"')
    closed("four")
    run = Run()
    assert run.codes() == [1]
    assert "seq 1" in run.failed[0].message
    assert run.report["sealed"] == [SEALED[1], SEALED[2]]
    assert "damaged" in chain.ledger(paths.journal())[1]
    again = Run()
    assert (again.records, again.codes()) == ([], [])


def test_the_live_segment_is_damaged():
    write("one", "two", "three")
    damage(f"{paths.journal()}/current.ftai", b'ody: "one"')
    run = Run(close=True)
    assert run.codes() == [1]
    assert run.report["outcome"] == "failed"
    assert run.report["closed"] == "000001.ftai"
    assert names() == [SEALED[1]]
    assert bodies() == ["two", "three"]


def test_all_that_the_live_segment_holds_is_damaged():
    write("one")
    damage(f"{paths.journal()}/current.ftai", b'ody: "one"')
    assert Run(close=True).report["closed"] == "000001.ftai"
    assert Run(close=True).records == []


def test_sealed_for_a_recipient_that_nobody_has_the_identity_of():
    write("one")
    seal.recipient()
    Path(seal.folder(), "identity").write_text(f"{pyrage.x25519.Identity.generate()}\n")
    run = Run(close=True)
    assert run.codes() == [77]
    assert "another identity" in run.report["failed"][0]
    assert names() == ["000001.ftai"]
    assert not [name for name in os.listdir(paths.journal()) if "zst" in name]


def test_without_identity_it_seals(home):
    write("one")
    seal.recipient()
    place = Path(seal.folder(), "identity")
    place.rename(home / "identity")
    assert Run(close=True).failed == []
    assert names() == [SEALED[1]]
    (home / "identity").rename(place)
    assert bodies() == ["one"]


def test_for_others_it_seals(monkeypatch, home):
    other = pyrage.x25519.Identity.generate()
    monkeypatch.setenv("FTAI_RECIPIENTS", str(other.to_public()))
    write("one")
    assert Run(close=True).failed == []
    (home / "other").write_text(f"{other}\n")
    (home / "other").chmod(0o600)
    monkeypatch.setenv("FTAI_IDENTITY", str(home / "other"))
    assert bodies() == ["one"]


@pytest.fixture(params=[("ed25519",), ("rsa", "-b", "2048")])
def ssh(home, request):
    """An SSH key: (public line, the same with a letter wrong and a key too, fingerprint, file of the identity)."""
    path = home / "ssh"
    subprocess.run(["ssh-keygen", "-q", "-t", *request.param, "-N", "", "-C", "", "-f", path], check=True)
    told = subprocess.run(["ssh-keygen", "-lf", f"{path}.pub"], capture_output=True, text=True, check=True).stdout
    line = Path(f"{path}.pub").read_text().strip()
    for at in range(len(line) - 10, 40, -1):
        wrong = f"{line[:at]}{'A' if line[at] != 'A' else 'B'}{line[at + 1 :]}"
        try:
            pyrage.ssh.Recipient.from_str(wrong)
        except pyrage.RecipientError:
            continue
        return line, wrong, told.split()[1], str(path)
    raise AssertionError("each letter that is wrong is found")


def test_for_an_ssh_key_that_may_be_mistyped_the_plain_segment_stays(monkeypatch, ssh):
    line, wrong, told, path = ssh
    may, other = (77, "an SSH key that may be mistyped"), (78, "whose fingerprint is not the one behind it")
    for recipients, identity, (code, words) in (
        (line, "", may),
        (wrong, path, may),
        (f"{line} me@here {told[:-1]}", "", other),
        (f"{wrong} {told}", path, other),
        (f"{wrong} {told}, {line} {told}", "", other),
    ):
        monkeypatch.setenv("FTAI_RECIPIENTS", recipients)
        monkeypatch.setenv("FTAI_IDENTITY", identity)
        closed("one")
        run = Run()
        assert set(run.codes()) == {code}
        assert words in run.failed[0].message
        assert not any(segment.sealed for segment in chain.segments(paths.journal()))
    assert bodies() == ["one"] * 5


def test_for_an_ssh_key_that_is_known_to_be_right_it_seals(monkeypatch, ssh):
    line, wrong, told, path = ssh
    also = pyrage.x25519.Identity.generate().to_public()  # which has a checksum
    named = [(line, path), (f"{line} {told}", ""), (f"{line} me@here {told}", ""), (f"{wrong}, {line} {told}", ""), (f"{wrong}, {also}", "")]
    for recipients, identity in named:
        monkeypatch.setenv("FTAI_RECIPIENTS", recipients)
        monkeypatch.setenv("FTAI_IDENTITY", identity)
        closed("one")
        assert Run().failed == []
    assert names() == SEALED[1:6]
    monkeypatch.setenv("FTAI_IDENTITY", path)
    for segment in chain.segments(paths.journal())[:4]:
        os.close(chain.open_segment(segment)[0])


def test_without_the_passphrase_it_waits_for_one(monkeypatch):
    monkeypatch.setenv("FTAI_RECIPIENTS", "passphrase")
    write("one")
    run = Run(close=True)
    assert run.codes() == [77]
    assert names() == ["000001.ftai"]
    monkeypatch.delenv("FTAI_RECIPIENTS")
    assert Run().report["sealed"] == [SEALED[1]]


@pytest.mark.parametrize("encrypt", ["off", "local"])
def test_what_fails_as_before_is_not_journaled_again(monkeypatch, clock, encrypt):
    monkeypatch.setenv("FTAI_ENCRYPT", encrypt)
    monkeypatch.setenv("FTAI_RECIPIENTS", "passphrase")
    write("one")
    assert Run(close=True).tags() == ["audit", "report"]
    first = Run()
    assert (first.tags(), first.codes(), first.records[0]["what"]) == (["audit", "report"], [77], ["seal 000001.ftai"])
    before = image()
    for _ in range(40):
        clock.seconds += DAY
        again = Run()
        assert (again.records, again.codes()) == ([], [77])
        assert [bad.message for bad in again.failed] == first.report["failed"]
    assert image() == before
    monkeypatch.setenv("FTAI_SEAL", "rot13")  # another failure of the same segment
    changed = Run()
    assert (changed.tags(), changed.codes(), changed.report["parent"]) == (["report"], [78], first.records[0]["id"])
    assert (Run().records, Run().codes()) == ([], [78])
    monkeypatch.delenv("FTAI_SEAL")
    closed("two")  # the same failure of another one
    assert Run().records[0]["what"] == ["seal 000001.ftai", "seal 000002.ftai"]
    assert Run().records == []
    monkeypatch.delenv("FTAI_RECIPIENTS")
    done = Run()
    assert (done.tags(), done.report["sealed"]) == (["report"], SEALED[1:3])
    assert Run().records == []
    assert not os.path.exists(f"{paths.journal()}/.failed")  # what is to be done again later is intended anew
    assert sound()


def test_a_failure_that_names_the_time_is_the_same_at_another_one(monkeypatch, clock):
    proofs.make_key()
    days(clock, 3)
    policy(keep_last=1)
    monkeypatch.setenv("FTAI_RECIPIENTS", "passphrase")
    closed("four")
    clock.seconds += 40 * DAY
    assert Run().codes() == [77, 75]
    clock.seconds += DAY
    again = Run()
    assert (again.records, again.codes()) == ([], [77, 75])


def test_a_mark_of_what_failed_that_cannot_be_read_is_none(monkeypatch):
    monkeypatch.setenv("FTAI_RECIPIENTS", "passphrase")
    closed("one")
    for words in ("", "{", "[]", '{"what":["seal 000001.ftai"]}', '{"what":["seal 000001.ftai"],"intent":7}'):
        Path(paths.journal(), ".failed").write_text(words)
        assert Run().tags() == ["audit", "report"]
    Path(paths.journal(), ".failed").unlink()
    Path(paths.journal(), ".failed").mkdir()
    assert (Run().tags(), Run().codes()) == (["audit", "report"], [77])


def test_a_mark_of_another_journal_spares_nothing_its_audit(monkeypatch):
    monkeypatch.setenv("FTAI_RECIPIENTS", "passphrase")

    def begin():
        for path in Path(paths.journal()).glob("*.ftai"):
            path.unlink()  # what is hidden stays, as with `mv *.ftai elsewhere`
        monkeypatch.setattr(journal, "_live", {})

    closed("one")
    assert (Run().codes(), Run().records) == ([77], [])
    begin()
    closed("two")
    run = Run()
    assert (run.tags(), run.report["parent"], run.records[0]["what"]) == (["audit", "report"], run.records[0]["id"], ["seal 000001.ftai"])
    for _ in range(2):
        begin()
        write("three")
        assert Run(close=True).tags() == ["audit", "report"]


def test_with_a_broken_config_it_closes_and_does_not_seal(monkeypatch):
    monkeypatch.setenv("FTAI_SEAL", "rot13")
    write("one")
    run = Run(close=True)
    assert run.codes() == [78]
    assert names() == ["000001.ftai"]
    assert run.report["outcome"] == "failed"


# ---- retention ----


def days(clock, count: int, **fields):
    """A segment a day, the first at START."""
    for n in range(count):
        write(f"day {n}", **fields)
        clock.seconds += DAY
        run = Run()
        assert run.failed == []
    return run


def test_nothing_is_removed_by_the_shipped_policy(clock):
    proofs.make_key()
    days(clock, 4)
    clock.seconds += 400 * DAY
    write("late")
    clock.seconds += DAY
    assert "removed" not in Run().report
    assert bodies() == [*(f"day {n}" for n in range(4)), "late"]


def test_what_no_rule_keeps_is_removed_and_the_rest_verifies(clock):
    proofs.make_key()
    policy(keep_last=2)
    run = days(clock, 5)
    assert names() == SEALED[4:6]
    assert run.report["removed"] == [SEALED[3]]
    assert run.tags() == ["audit", "checkpoint", "checkpoint", "report"]
    assert run.records[2]["because"] == "retention"
    assert bodies() == ["day 3", "day 4"]
    assert "were removed, as a signed checkpoint says" in sound().notes[0]
    assert chain.ledger(paths.journal()).keys() == {4, 5}


def test_within_so_many_days_also_where_nothing_else_is_to_do(clock):
    proofs.make_key()
    policy(keep_within=10)
    days(clock, 3)
    clock.seconds += 9.5 * DAY
    run = Run()
    assert run.report["removed"] == [SEALED[1], SEALED[2]]
    assert run.records[0]["what"] == [f"remove {name}: no rule keeps it" for name in SEALED[1:3]]
    assert names() == [SEALED[3]]  # the last one stays
    assert Run().records == []


def test_without_a_key_nothing_is_removed(clock):
    policy(keep_last=1)
    write("one")
    Run(close=True)
    write("two")
    run = Run(close=True)
    assert run.codes() == [78]
    assert names() == SEALED[1:3]
    assert run.report["outcome"] == "failed"


@pytest.mark.parametrize("leap", [-2 * DAY, 40 * DAY, 20_000 * DAY])
def test_a_wrong_clock_removes_nothing_and_the_rest_is_done(clock, leap):
    proofs.make_key()
    days(clock, 3)
    policy(keep_last=1)
    write("four")
    right = clock.seconds
    clock.seconds += leap
    run = Run()
    assert run.codes() == [75]
    assert run.report["sealed"] == [SEALED[4]]
    assert "the clock says" in run.report["failed"][0]
    assert len(names()) == 4
    # What it wrote itself with that clock is no proof that the clock is right.
    clock.seconds += DAY
    again = Run()
    assert (again.codes(), again.records) == ([75], [])
    assert len(names()) == 4
    clock.seconds = right + DAY
    # The last one of the chain stays, and so does that of the latest time.
    assert Run().report["removed"] == (SEALED[1:3] if leap < 0 else SEALED[1:4])
    assert names()[-1] == SEALED[4]
    assert sound()


def test_the_time_of_a_segment_is_when_it_was_closed_whatever_its_records_say(clock):
    proofs.make_key()
    policy(keep_within=3)
    write("one", ts="2019-01-01T00:00:00.000Z")
    segments.close(paths.journal(), 1 << 62, stage="ftai-purge")  # as a purge does it
    days(clock, 2, ts="2019-01-01T00:00:00.000Z")
    assert names() == SEALED[1:4]
    clock.seconds += 3 * DAY
    assert Run().failed[0].code == 75  # the newest record is of 2019
    write("now")
    assert Run().report["removed"] == SEALED[1:3]


def memories(*tiers):
    for tier in tiers:
        write("remember", tag="memory", tier=tier)


@pytest.mark.parametrize(
    ("tier", "after", "why"),
    [
        ("long", 1000, "kept for ever"),
        (None, 1000, "the tier 'long', which is kept for ever"),
        ("nosuch", 1000, "kept for ever"),
        ("short", 13, "the tier 'short', which is kept for 14 days"),
        ("short", 15, ""),
    ],
)
def test_a_segment_with_a_memory_that_is_kept_longer_stays(clock, tier, after, why):
    proofs.make_key()
    memories(tier)
    Run(close=True)
    write("other")
    Run(close=True)
    clock.seconds += after * DAY
    write("after a long time")
    clock.seconds += DAY * 1.1 * (after > 30)
    policy(keep_last=1)
    write("now")
    Run()
    clock.seconds += 60
    run = Run(close=True)
    assert run.failed == []
    told = Run(dry_run=True).report["kept"]
    assert (SEALED[1] in names()) == bool(why)
    assert why in told[0]
    assert SEALED[2] not in names()


def test_what_memories_a_segment_holds_is_in_the_ledger(clock):
    memories("short", "long", "short", 7, 'a "quoted" one')
    write("x", tag="memory", tier="odd", ts="no time")
    write("long " * 40_000, tag="memory", tier="huge")
    write('@memory\n  tier: "fake"\n', tier="nested")  # text that looks like one
    journal.append(paths.journal(), [record.make("note", "x", blocks=[{"@tag": "memory", "tier": "inner"}])], stage=STAGE)
    Run(close=True)
    assert chain.ledger(paths.journal())[1]["memories"] == [
        ["?", "2026-11-26T12:00:00.000Z"],
        ["huge", "2026-11-26T12:00:00.000Z"],
        ["long", "2026-11-26T12:00:00.000Z"],
        ["odd", "?"],
        ["short", "2026-11-26T12:00:00.000Z"],
    ]


@given(sizes=st.lists(st.integers(0, 3000), max_size=40))
def test_memories_are_found_wherever_they_stand(tmp_path_factory, sizes):
    """Also where the pieces meet in which the file is read."""
    path = tmp_path_factory.mktemp("memories") / "x"
    kept, chain.CHUNK = chain.CHUNK, 1000
    try:
        made = []
        with open(path, "wb") as file:
            for n, size in enumerate(sizes):
                made.append(f"t{n}")
                file.write(f'\n@note\n  body: "{"x" * size}"\n@end\n'.encode())
                file.write(f'\n@memory\n  ts: "2026-11-26T12:00:00.000Z"\n  body: "{"y" * size}"\n  tier: "t{n}"\n@end\n'.encode())
        fd = os.open(path, os.O_RDONLY)
        found = rotation.memories(fd, os.path.getsize(path))
        os.close(fd)
    finally:
        chain.CHUNK = kept
    assert sorted(name for name, _ in found) == sorted(made)


def test_a_segment_of_which_nobody_knows_its_memories_stays(clock):
    proofs.make_key()
    for word in ("one", "two"):
        write(word)
        Run(close=True)
    folder = paths.journal()
    entries = chain.ledger(folder)
    del entries[1]["memories"]
    chain.save_ledger(folder, entries)
    policy(keep_last=1)
    write("three")
    Run(close=True)
    assert names() == [SEALED[1], SEALED[3]]
    assert "nobody knows" in Run(dry_run=True).report["kept"][0]


@pytest.mark.parametrize("memories", [None, "long", [["long"]], [7], [["long", 7]]])
def test_a_ledger_that_says_something_else_of_them_keeps_it_too(memories):
    assert rotation._held({"memories": memories}, record.now()) == "nobody knows what memories it holds"


def test_where_the_newest_record_cannot_be_read_nothing_is_removed(clock, home):
    proofs.make_key()
    days(clock, 3)
    policy(keep_last=1)
    Path(seal.folder(), "identity").rename(home / "identity")
    for dry_run in (True, False):
        run = Run(dry_run=dry_run)
        assert run.codes() == [77]
        assert [rec.get("would") for rec in run.records] == [[]] * dry_run
    # What goes is opened before, as the ledger is not signed.
    write("four")
    run = Run(close=True)
    assert run.codes() == [77]
    assert "removed" not in run.report
    (home / "identity").rename(Path(seal.folder(), "identity"))
    assert Run().report["removed"] == SEALED[1:4]


def test_what_proves_a_purge_stays_while_the_purged_does(clock):
    proofs.make_key()
    days(clock, 2)
    first = next(rec for _, rec in journal.read(paths.journal()) if rec.get("body"))
    purge.run(purge.Asked(ids=(first["id"],)), "asked for", stage="ftai-archive")
    days(clock, 3)
    entries = chain.ledger(paths.journal())
    assert [entry["purges"] for entry in entries.values()].count(True) >= 1
    assert [number for number, (_, keep, _) in rotation._judged(paths.journal(), {"keep_last": 1}).items() if keep] == [max(entries)]
    older = entries | {1: entries[1] | {"memories": [["long", "2026-11-01T00:00:00.000Z"]]}}
    chain.save_ledger(paths.journal(), older)
    found = rotation._judged(paths.journal(), {"keep_last": 1})
    assert found[1][1]
    assert {number: why for number, (_, keep, why) in found.items() if keep and "purged" in why}
    assert {number for number, (_, keep, why) in found.items() if "purged" in why} <= {number for number, entry in entries.items() if entry["purges"]}


@pytest.mark.parametrize("body", ['@retention\n  name: "journal"\n  summary: "x"\n  keep_last: -1\n@end', "@retention\n  name: [", '@tier\n  name: "x"\n@end'])
def test_an_unreadable_spec_removes_nothing_and_the_rest_is_done(clock, body):
    proofs.make_key()
    days(clock, 3)
    own(body)
    write("four")
    run = Run(close=True)
    assert run.codes() == [78]
    assert run.report["sealed"] == [SEALED[4]]
    assert names() == SEALED[1:5]


def test_turned_off_it_closes_only_what_is_asked_for(clock):
    own('@retention\n  name: "journal"\n  off: true\n@end')
    write("one")
    clock.seconds += 100 * DAY
    assert Run().records == []
    assert Run(close=True).report["sealed"] == [SEALED[1]]


# ---- telling only ----


def test_a_dry_run_tells_what_and_why_and_changes_nothing(clock):
    proofs.make_key()
    days(clock, 3)
    memories("long")
    clock.seconds += DAY
    Run()
    policy(keep_last=1)
    closed("five")
    write("six")
    clock.seconds += DAY
    before = image()
    run = Run(dry_run=True)
    assert run.failed == []
    assert run.tags() == ["report"]
    assert run.report["would"] == [
        "close and seal current.ftai: it was begun on 2026-11-30",
        "seal 000005.ftai",
        *(f"remove {name}: no rule keeps it" for name in [*SEALED[1:4], "000005.ftai"]),
    ]
    # What it would close and seal is judged with the rest.
    assert run.report["kept"] == [f"{SEALED[4]}: a memory of the tier 'long', which is kept for ever", "current.ftai: the last one"]
    assert image() == before
    assert Run().report["removed"] == [*SEALED[1:4], SEALED[5]]
    assert names() == [SEALED[4], SEALED[6]]


@pytest.mark.parametrize("rule", ["keep_last", "keep_daily", "keep_within"])
def test_a_dry_run_removes_what_the_run_does_day_by_day(clock, rule):
    proofs.make_key()
    policy(**{rule: 2})
    for n in range(6):
        write(f"day {n}")
        if n == 2:
            memories("long")
        clock.seconds += DAY
        would = [words.split()[1].rstrip(":") for words in Run(dry_run=True).report["would"] if words.startswith("remove")]
        assert would == (Run().report.get("removed") or [])
    assert SEALED[3] in names()
    assert SEALED[1] not in names()


def test_a_dry_run_of_nothing(clock):
    run = Run(dry_run=True)
    assert (run.report["would"], "kept" in run.report) == ([], False)
    write("one")
    assert Run(dry_run=True).report["would"] == []
    assert Run(dry_run=True, close=True).report["would"] == ["close and seal current.ftai: it was asked for"]


def test_a_dry_run_with_a_wrong_clock(clock):
    proofs.make_key()
    days(clock, 3)
    policy(keep_last=1)
    clock.seconds += 40 * DAY
    run = Run(dry_run=True)
    assert (run.codes(), run.report["would"]) == ([75], [])


# ---- disks ----


@pytest.fixture
def disk(home):
    """A file system of its own for the journal, of 4 MB; gone at the end."""
    place = home / "ftai" / "state" / "journal"
    place.mkdir(mode=0o700, parents=True)
    assert os.system(f"mount -t tmpfs -o size=4m,mode=0700 none '{place}'") == 0
    yield place
    journal._live.clear()
    os.system(f"umount -l '{place}'")


@root
def test_a_full_disk(disk):
    closed(*(os.urandom(400).hex() for _ in range(2000)))
    write("more")
    (disk / "filler").write_bytes(bytes(1_500_000))
    run = Run(close=True)
    assert run.codes() == [74]
    assert run.report["outcome"] == "failed"
    assert "No space left" in run.report["failed"][0]
    assert names() == ["000001.ftai", "000002.ftai"]
    assert not [name for name in os.listdir(disk) if "zst" in name]
    (disk / "filler").unlink()
    assert Run().report["sealed"] == SEALED[1:3]
    assert len(bodies()) == 2001
    assert sound()


@root
def test_a_disk_without_any_room(disk):
    write("one")
    fd = os.open(disk / "filler", os.O_WRONLY | os.O_CREAT)
    with pytest.raises(OSError, match="No space left"):
        while True:
            os.write(fd, bytes(4096))
    os.close(fd)
    with pytest.raises(Failure, match="No space left") as caught:
        Run(close=True)
    assert caught.value.code == 74
    (disk / "filler").unlink()
    # The intent may have found room at the end of a block, and the closing have begun.
    assert bodies() == ["one"]
    write("two")
    Run(close=True)
    assert all(segment.sealed for segment in chain.segments(paths.journal()))
    assert bodies() == ["one", "two"]
    assert sound()


@root
def test_a_read_only_folder(disk):
    write("one")
    Run()  # makes the lock
    before = image()
    journal._live.clear()  # an open file would keep it from being made read-only
    assert os.system(f"mount -o remount,ro '{disk}'") == 0
    with pytest.raises(Failure, match="Read-only file system") as caught:
        Run(close=True)
    assert caught.value.code in (73, 74)
    assert Run(dry_run=True, close=True).report["would"]
    assert image() == before


def test_a_clock_that_others_have_written_with_is_not_believed_either(clock):
    proofs.make_key()
    days(clock, 4)
    policy(keep_within=30)
    clock.seconds += 400 * DAY
    write("by a clock that is wrong")
    run = Run()
    assert run.codes() == [75]
    assert "removed" not in run.report
    clock.seconds += 1.5 * DAY
    write("it was right")
    run = Run()
    assert run.failed == []
    assert run.report["removed"]
