"""What ftai-doctor makes of a machine; what a stage test can't bring about is brought about here."""

import os
import sqlite3
from collections import namedtuple
from datetime import UTC, datetime, timedelta

import pytest
from serenamaster import health, specs
from serenamaster.errors import Failure


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("FTAI_HOME", str(tmp_path))
    return tmp_path


def levels(checks):
    return [check.level for check in checks]


@pytest.mark.parametrize(("free", "level"), [(50, "fail"), (500, "warn"), (5000, "ok")])
def test_room_on_the_disk(monkeypatch, free, level):
    room = namedtuple("room", "f_bavail f_frsize")
    monkeypatch.setattr(os, "statvfs", lambda folder: room(free, health.MB))
    (check,) = health.disk()
    assert check.level == level
    assert bool(check.hint) == (level != "ok")


@pytest.mark.parametrize(
    ("ahead", "level"),
    [(timedelta(days=-30), "ok"), (timedelta(seconds=30), "ok"), (timedelta(minutes=5), "fail")],
)
def test_the_clock_cannot_be_before_the_newest_record(ahead, level):
    newest = (datetime.now(UTC) + ahead).isoformat()
    assert levels(health.clock(newest)) == [level]


@pytest.mark.parametrize("newest", [None, "", "yesterday", 5, "2026-11-22"])
def test_a_newest_record_without_a_time_says_nothing(newest):
    assert levels(health.clock(newest)) == ["ok"]


@pytest.mark.parametrize(("mode", "level"), [(0o700, "ok"), (0o750, "warn"), (0o705, "warn"), (0o720, "fail"), (0o702, "fail")])
def test_folders(home, mode, level):
    (home / "state").mkdir()
    (home / "state").chmod(mode)
    checks = {check.detail.split()[0]: check for check in health.folders()}
    assert checks["state"].level == level
    assert checks["cache"].level == "ok" and "not there yet" in checks["cache"].detail


def test_an_archive_that_is_behind(home):
    (home / "state").mkdir()
    db = sqlite3.connect(home / "state" / "archive.db")
    db.execute("CREATE TABLE records (seq INTEGER PRIMARY KEY)")
    db.execute("INSERT INTO records VALUES (7)")
    db.commit()
    db.close()
    assert levels(health.databases(7)) == ["ok", "ok"]
    behind = next(health.databases(10))
    assert (behind.level, behind.hint) == ("warn", "ftai-archive maintain") and "3 records" in behind.detail


def test_a_damaged_state_db(home):
    (home / "state").mkdir()
    (home / "state" / "state.db").write_bytes(b"x" * 5000)
    assert levels(health.databases(0)) == ["ok", "fail"]


def test_a_spec_that_others_build_on_is_told_once(monkeypatch):
    def load(name):
        if name == "config":
            return {"notes": []}
        raise Failure("system.ftai:3: broken", 78)

    monkeypatch.setattr(specs, "load", load)
    monkeypatch.setattr(specs, "digest", lambda: "x")
    assert [(check.level, check.detail) for check in health.spec_files()] == [("fail", "system.ftai:3: broken"), ("ok", "1 loaded, digest x")]


def test_a_program_that_is_not_there():
    assert health._run(["/nonexistent/program"]) == 127


def test_hints_for_slow_starts(monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert health._faster() == "unset PYTHONDONTWRITEBYTECODE"
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE")
    monkeypatch.setenv("PATH", "/nonexistent")
    assert health._faster().startswith("export PATH=")


def test_keys_that_are_too_old_or_half_rotated():
    known = [
        {"name": "a", "source": "file", "age": 91.2, "max_age": 90, "overdue": True},
        {"name": "b", "source": "keychain", "age": 1.0, "max_age": 90, "overdue": False, "next": "2026-11-22T12:00:00.000Z"},
        {"name": "c", "source": ""},
    ]
    old, half, all_ = health.keys(known)
    assert (old.level, old.hint) == ("warn", "ftai-keys rotate a") and "91 days" in old.detail
    assert (half.level, half.hint) == ("warn", "ftai-keys rotate --due")
    assert (all_.level, all_.detail) == ("ok", "a (file) b (keychain)")
    assert levels(health.keys([])) == ["ok"]


@pytest.mark.parametrize(("days", "level"), [(None, "ok"), (0, "ok"), (90, "ok"), (91, "warn"), (400, "warn")])
def test_a_table_of_prices_may_be_too_old(days, level):
    (check,) = health.prices_age(days)
    assert check.level == level
    assert bool(check.hint) == (level == "warn")
    assert days is None or f"{days} days old" in check.detail


def test_a_check_that_cannot_be_made_is_told_once_and_the_others_are_made():
    def bad():
        yield health.Check("ok", "a", "b")
        raise Failure("no state", 74, "mend it")

    def worse():
        raise PermissionError(13, "Permission denied", "/x")
        yield

    found = list(health.guarded([bad, worse, bad, lambda: iter([health.Check("ok", "a", "b")])]))
    ok, told = health.Check("ok", "a", "b"), health.Check("fail", "check", "no state", "mend it")
    assert found == [ok, told, health.Check("fail", "check", "cannot read '/x': Permission denied"), ok, ok]


def test_models_that_can_be_asked_and_those_that_cannot():
    lack = namedtuple("lack", "code what hint")
    ready = [("a", []), ("b", [lack("key", "no key", "set it"), lack("consent", "no consent: nobody agreed", "grant it")]), ("c", [lack("off", "gone", "")])]
    able, unable = health.providers(ready)
    assert (able.level, able.detail) == ("ok", "can be asked now: a")
    assert (unable.detail, unable.hint) == ("cannot be asked: b (no key, no consent), c (gone)", "set it && grant it")
    assert "work without" in next(health.providers(ready[1:])).detail
    assert "no model is set up" in next(health.providers([])).detail
