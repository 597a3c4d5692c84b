"""What ftai-doctor --storage tells: sizes, growth, how long disks last, rotation, backups and keys; with real journals, sealed and archived."""

import os
from collections import namedtuple
from datetime import UTC, datetime, timedelta

import pytest
from serenamaster import archive, chain, health, journal, paths, proofs, record, seal, sealed, segments, storage
from serenamaster.errors import Failure

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
Disk = namedtuple("Disk", "f_bavail f_frsize f_blocks f_files f_favail", defaults=(1000, 500))
MB = 1024 * 1024


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FTAI_HOME", str(tmp_path / "ftai"))
    archive._caught.clear()
    yield tmp_path
    archive._writer.clear()
    archive._caught.clear()
    journal._live.clear()


def put(count, body="x", **more):
    journal.append(paths.journal(), [record.make("note", "test", body=f"{n} {body}", **more) for n in range(count)], stage="test")


def close():
    name = segments.rotate(paths.journal(), stage="ftai-rotate")
    return next(part for part in chain.segments(paths.journal()) if part.name == name)


def put_away(part):
    entry = segments.describe(paths.journal(), part)
    fd = chain.regular(part.path)
    try:
        entry |= sealed.write(fd, part.path, {"journal": entry["journal"], "segment": part.number})
    finally:
        os.close(fd)
    segments.put_away(paths.journal(), part, entry)


def told(function, *given):
    return [(fields, [check[:1] + check[2:] for check in checks]) for fields, checks in function(*given)]


def ago(days):
    return (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def old(days):
    """Puts a journal there whose id was made so many days ago."""
    at = int((datetime.now(UTC) - timedelta(days=days)).timestamp() * 1000)
    name = f"{at:012x}"
    own = f"{name[:8]}-{name[8:]}-7000-8000-000000000000"
    path = os.path.join(paths.journal(), chain.LIVE)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(chain.heading(own, 1, 1, chain.root(own), journal._tags()))


# --- sizes


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (5 * MB, "5.0 MiB"), (3072 * MB, "3.0 GiB"), (5 * 1024**4, "5120.0 GiB")],
)
def test_amounts(count, words):
    assert storage.amount(count) == words


def test_nothing_is_there_and_nothing_is_made(home):
    grown: dict = {}
    ((fields, checks),) = told(storage._journal, grown)
    assert (fields["bytes"], fields["live"], fields["closed"], fields["sealed"]) == (0, 0, 0, 0)
    assert checks[0][1].endswith("can't be told: nothing was written yet")
    assert [fields["bytes"] for fields, _ in [*told(storage._archive, grown), *told(storage._others, grown)]] == [0, 0, 0, 0]
    assert "nothing was written yet" in told(storage._disks, grown)[0][1][0][1]
    assert told(storage._rotation)[0][1] == [("ok", "nothing was written yet", "")]
    assert not os.path.exists(home / "ftai")


def test_sizes_are_those_of_the_files(home):
    put(50)
    archive.catch_up()
    close()
    put(20)
    put_away(close())
    put(5)
    answers = os.path.join(paths.make(os.path.join(paths.data(), "answers")), "a.txt")
    with open(answers, "w") as file:
        file.write("x" * 5000)
    with open(os.path.join(paths.cache(), "made"), "w") as file:
        file.write("x" * 700)
    folder, grown = paths.journal(), {}
    size = lambda name: os.path.getsize(os.path.join(folder, name))  # noqa: E731
    ((fields, _),) = told(storage._journal, grown)
    parts = {"live": size("current.ftai"), "closed": size("000001.ftai"), "sealed": size("000002.ftai.zst.sealed")}
    assert {name: fields[name] for name in parts} == parts
    assert (fields["bytes"], fields["closed_segments"], fields["sealed_segments"]) == (sum(parts.values()), 1, 1)
    assert fields["unknown"] == "there is less than a day of records" and "a_day" not in fields
    (fields, _), (state, _) = told(storage._archive, grown)
    assert (fields["database"], fields["wal"]) == (os.path.getsize(paths.archive_db()), os.path.getsize(f"{paths.archive_db()}-wal"))
    assert fields["unknown"] and state["name"] == "state.db" and "unknown" not in state
    (fields, _), (cache, _) = told(storage._others, grown)
    assert fields["bytes"] == 5000
    assert cache["bytes"] == sum(path.stat().st_size for path in (home / "ftai" / "cache").rglob("*") if path.is_file()) >= 700


# --- growth


def test_growth_where_records_are_of_days_ago(home):
    old(10)
    put(1, ts=ago(5))
    put(400, "y" * 500)
    archive.catch_up()
    grown: dict = {}
    ((fields, checks),) = told(storage._journal, grown)
    assert fields["days"] == 5.0 and fields["a_day"] == pytest.approx(fields["bytes"] / 5, rel=0.01)
    assert "a day (seen over 5 days)" in checks[0][1]
    ((fields, _), _) = told(storage._archive, grown)
    assert fields["a_day"] == pytest.approx(fields["database"] / 5, rel=0.02)
    (fields, checks), *_ = told(storage._disks, grown)
    assert fields["a_day"] == pytest.approx(grown["journal"].bytes + grown["archive"].bytes, abs=2) and fields["days"] > 100


@pytest.mark.parametrize("ts", [ago(4000), ago(-400), "yesterday", "", None], ids=["before", "ahead", "word", "empty", "none"])
def test_a_time_that_cannot_be_right_is_not_gone_by(ts):
    old(10)
    put(1, **({"ts": ts} if ts is not None else {}))
    grown: dict = {}
    ((fields, _),) = told(storage._journal, grown)
    # Before the journal, ahead of now or no time at all: that of the journal's own id. Without any, ftai-log put the time it came.
    assert fields.get("days") == (None if ts is None else 10.0)


def test_growth_counts_what_sealing_leaves_and_the_last_thirty_days_only(monkeypatch):
    old(100)
    put(1, ts=ago(90))
    put(300, "z" * 400)
    first = close()
    before = os.path.getsize(first.path)
    put_away(first)
    kept = os.path.getsize(f"{first.path}.zst.sealed")
    assert kept < before / 2
    # The second was begun by ours just now: as if twenty days ago.
    spans = storage._spans(paths.journal(), chain.segments(paths.journal()), chain.ledger(paths.journal()))
    assert [span.size for span in spans] == [before, os.path.getsize(os.path.join(paths.journal(), "current.ftai"))]
    assert [span.first for span in spans] == [1, 302]
    now = datetime.now(UTC)
    late = [spans[0]._replace(start=now - timedelta(days=90)), spans[1]._replace(start=now - timedelta(days=20))]
    assert storage.window(late, now) == late, "the first ended within thirty days"
    late[1] = late[1]._replace(start=now - timedelta(days=31))
    assert storage.window(late, now) == late[1:]
    assert storage.window([late[1]._replace(start=now - timedelta(hours=23))], now) == []
    assert storage.window([], now) == []
    monkeypatch.setattr(storage, "_spans", lambda *_: [storage.Span(now - timedelta(days=10), 1, 10 * before)])
    grown: dict = {}
    told(storage._journal, grown)
    assert grown["journal"].bytes == pytest.approx(kept, rel=0.02)


def test_a_sealed_segment_without_an_entry_and_a_damaged_one_are_left_out():
    put(3)
    put_away(close())
    put(3)
    close()
    os.unlink(os.path.join(paths.journal(), chain.LEDGER))
    with open(os.path.join(paths.journal(), "000002.ftai"), "r+b") as file:
        file.write(b"nothing")
    assert len(storage._spans(paths.journal(), chain.segments(paths.journal()), {})) == 1
    ((fields, _),) = told(storage._journal, {})
    assert (fields["closed_segments"], fields["sealed_segments"]) == (1, 1)


def test_growth_of_answers_is_by_the_times_of_the_files(home):
    folder = paths.make(os.path.join(paths.data(), "answers"))
    for name, days, size in (("new", 1, 3000), ("older", 20, 6000), ("old", 31, 90_000), ("ahead", -1, 70_000)):
        with open(os.path.join(folder, name), "w") as file:
            file.write("x" * size)
        os.utime(file.name, times=2 * (datetime.now(UTC).timestamp() - days * 86400,))
    with open(home / "elsewhere", "w") as file:
        file.write("x" * 500_000)
    os.symlink(file.name, os.path.join(folder, "link"))
    for days, over in ((40, 30), (10, 10)):
        grown = {"why": "", "records": storage.Growth(1, days)}
        (fields, _), _ = told(storage._others, grown)
        assert fields["bytes"] == 169_000 + os.lstat(os.path.join(folder, "link")).st_size
        assert (fields["days"], fields["a_day"]) == (over, pytest.approx(9000 / over, abs=10))


# --- disks


@pytest.mark.parametrize(
    ("seen", "a_day", "level", "words"),
    [
        (Disk(2000, MB, 4000), None, "ok", "2.0 GiB of 3.9 GiB free for journal; how long it lasts can't be told: why"),
        (Disk(2000, MB, 4000), 0, "ok", "2.0 GiB of 3.9 GiB free for journal"),
        (Disk(2000, MB, 4000), 100 * MB, "ok", "2.0 GiB of 3.9 GiB free for journal; full in 20 days as it grows now"),
        (Disk(2000, MB, 4000), 2000 * MB / 14, "ok", "2.0 GiB of 3.9 GiB free for journal; full in 14 days as it grows now"),
        (Disk(2000, MB, 4000), 200 * MB, "warn", "2.0 GiB of 3.9 GiB free for journal; full in 10 days as it grows now"),
        (Disk(2000, MB, 4000), 2000 * MB, "warn", "2.0 GiB of 3.9 GiB free for journal; full in 1 day as it grows now"),
        (Disk(2000, MB, 4000), 1, "ok", "2.0 GiB of 3.9 GiB free for journal; it lasts for more than ten years"),
        (Disk(999, MB, 4000), 1, "warn", "999.0 MiB of 3.9 GiB free for journal; it lasts for more than ten years"),
        (Disk(99, MB, 4000), 1, "fail", "99.0 MiB of 3.9 GiB free for journal; it lasts for more than ten years"),
        (Disk(0, MB, 4000), 100, "fail", "0 bytes of 3.9 GiB free for journal; full in 0 days as it grows now"),
        (Disk(2000, MB, 4000, 1000, 0), 0, "fail", "2.0 GiB of 3.9 GiB free for journal, and room for no more files"),
        (Disk(2000, MB, 4000, 0, 0), 0, "ok", "2.0 GiB of 3.9 GiB free for journal"),  # btrfs counts no files
    ],
)
def test_how_long_a_disk_lasts(seen, a_day, level, words):
    fields, (check,) = storage.disk("/d", ["journal"], seen, a_day, "why")
    assert (check.level, check.what, check.detail, bool(check.hint)) == (level, "disk /d", words, level != "ok")
    assert (fields["level"], fields["free"], fields.get("days")) == (level, seen.f_bavail * MB, int(min(seen.f_bavail * MB / a_day, 3650)) if a_day else None)


def test_each_disk_is_told_once():
    (fields, _), *more = told(storage._disks, {"journal": storage.Growth(10, 5), "answers": storage.Growth(5, 5)})
    assert not more and fields["holds"] == ["journal", "archive", "answers", "cache"] and fields["a_day"] == 15


# --- rotation


def rotation(closed=(), last=None, lost=(), live=True):
    fields, checks = storage.rotation(list(closed), last, list(lost), live, NOW)
    return fields, [(check.level, check.hint) for check in checks]


def test_rotation():
    at = NOW.timestamp()
    assert rotation(live=False) == ({"subject": "rotation", "last": None, "open": 0, "lost": None, "level": "ok"}, [("ok", "")])
    never = "ftai-rotate, from cron once a day"
    assert rotation()[1] == [("warn", never)]
    fields, checks = rotation([("000001.ftai", at - 2 * 86400), ("000002.ftai", at)], at)
    assert checks == [("ok", ""), ("ok", "")] and (fields["open"], fields["oldest"], fields["oldest_at"]) == (2, "000001.ftai", "2026-11-24T12:00:00.000Z")
    assert rotation([("000001.ftai", at - 2 * 86400 - 1)], at)[1] == [("ok", ""), ("warn", "ftai-rotate")]
    assert rotation([("000001.ftai", at)], live=False)[1] == [("warn", never), ("ok", "")]
    fields, checks = rotation(last=at, lost=[3])
    assert checks == [("ok", ""), ("fail", "ftai-log --verify")] and fields["level"] == "fail" and fields["lost"] == [3]


def test_rotation_of_a_real_journal():
    put(3)
    put_away(close())
    put(3)
    fields, (check, *more) = told(storage._rotation)[0]
    assert check[0] == "ok" and not more and archive.instant(fields["last"]) and fields["open"] == 0
    os.unlink(os.path.join(paths.journal(), "000001.ftai.zst.sealed"))
    fields, checks = told(storage._rotation)[0]
    assert [check[0] for check in checks] == ["warn", "fail"] and fields["lost"] == [1]


# --- backups


def copied(**said):
    fields, checks = storage.copied("/b", {"snapshot": "s", "ok": True} | said, NOW)
    return fields["level"], [(check.level, check.hint) for check in checks]


def before(**age):
    return (NOW - timedelta(**age)).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def test_backups():
    good = {"at": before(days=2), "checked": before(days=8), "drilled": before(days=35)}
    assert copied(**good) == ("ok", [("ok", "")] * 3)
    hints = ["ftai-rotate backup --to '/b'", "ftai-rotate check --to '/b' --read-data", "ftai-rotate drill --to '/b'"]
    for n, (name, age) in enumerate((("at", {"days": 2, "minutes": 1}), ("checked", {"days": 8, "minutes": 1}), ("drilled", {"days": 35, "minutes": 1}))):
        wanted = [("ok", "")] * 3
        wanted[n] = ("warn", hints[n])
        assert copied(**good | {name: before(**age)}) == ("warn", wanted)
        assert copied(**good | {name: None}) == ("warn", wanted)
        assert copied(**good | {name: "rubbish"}) == ("warn", wanted)
    assert copied(**good, ok=False) == ("fail", [("ok", "")] * 3 + [("fail", hints[1])])


# --- keys


def test_keys(home, monkeypatch):
    (signing, (check,)), (own, (other,)) = told(storage._keys)
    assert (signing["there"], check[0], check[2]) == (False, "warn", "ftai-keys init")
    assert (own["there"], other[0], other[2]) == (False, "ok", "ftai-keys init")
    assert not os.path.exists(home / "ftai")
    proofs.make_key()
    seal.recipient()
    put(1)
    (signing, (check,)), (own, (other,)) = told(storage._keys)
    assert (signing["there"], check[0], own["there"], own["same_disk"], other[0]) == (True, "ok", True, True, "ok")
    path = os.path.join(paths.state(), "keys", "identity")
    assert "on the disk of what it opens" in other[1] and other[2].startswith(f"cp '{path}'")
    with open(path) as file:
        assert file.read().strip() not in str(told(storage._keys))
    # Sealed for others: then a copy of this one is not what opens it.
    monkeypatch.setenv("FTAI_RECIPIENTS", f"passphrase, {seal.recipient()}")
    assert len(told(storage._keys)) == 2
    monkeypatch.setenv("FTAI_RECIPIENTS", "passphrase")
    _, _, (others, (other,)) = told(storage._keys)
    assert (others["name"], other[0]) == ("recipients", "ok") and "only their identities open it" in other[1]
    monkeypatch.delenv("FTAI_RECIPIENTS")
    # Put elsewhere, and then lost.
    os.rename(path, f"{path}.moved")
    monkeypatch.setenv("FTAI_IDENTITY", f"{path}.moved")
    _, (own, (other,)) = told(storage._keys)
    assert (own["there"], other[0], own["level"]) == (False, "ok", "ok") and "keychain" in other[1]
    os.unlink(f"{path}.moved")
    _, (own, (other,)) = told(storage._keys)
    assert (own["there"], other[0], own["level"]) == (False, "warn", "warn") and path in other[2]


def test_all_is_told_where_one_part_cannot_be(monkeypatch):
    def broken(*_):
        raise Failure("no", 74)

    monkeypatch.setattr(chain, "ledger", broken)
    found = list(health.guarded(storage.standing()[:4]))
    assert [one.detail if type(one) is health.Check else one[0]["name"] for one in found][:3] == ["no", "archive", "state.db"]
    assert any(type(one) is tuple and one[0].get("unknown") == "the journal can't be read" for one in found)
