"""What is stored here, how fast it grows, how long the disks last and whether it could be had back, as ftai-doctor --storage tells it.

Changes nothing. What is told is (fields of a `report` record, checks for people), as in vitals.py.
"""

import os
from collections import namedtuple
from datetime import UTC, datetime, timedelta

from . import health, paths
from .health import FAIL, OK, WARN, Check

WINDOW = 30  # days that growth is measured over, or those that there are
DAYS = 14  # that a disk should last
AGES = {"at": 2, "checked": 8, "drilled": 35}  # days that the last backup, its check and its drill may be old
OPEN = 2  # days that a closed segment may wait to be sealed
YEARS = 3650  # days that are not worth counting
Span = namedtuple("Span", "start first size")  # of a segment: when it began, its first seq, its plain bytes
Growth = namedtuple("Growth", "bytes days")  # bytes a day, seen over so many days


def standing() -> list:
    """The functions that tell of sizes, disks, rotation, backups and keys; in this order, as growth comes before what it fills."""
    grown: dict = {}  # name of a part: Growth
    return [lambda: _journal(grown), lambda: _archive(grown), lambda: _others(grown), lambda: _disks(grown), _rotation, _backups, _keys]


def _folder() -> str:
    return os.path.join(paths.where("state"), "journal")


# --- sizes


def amount(count: float) -> str:
    """So many bytes, in words."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError


def part(name: str, path: str, sizes: dict, growth: Growth | None, why: str = "", **more) -> tuple[dict, list]:
    """One thing that is stored. sizes: {what of it: bytes}, summed up. why: why it can't be told how fast it grows; "" where nobody asks."""
    total = sum(sizes.values())
    fields = {"subject": "storage", "name": name, "path": path, "bytes": total, **sizes, **more, "level": OK}
    parts = ", ".join(f"{what} {amount(count)}" for what, count in sizes.items())
    detail = f"{amount(total)} ({parts})" if len(sizes) > 1 else amount(total)
    if growth:
        fields |= {"a_day": round(growth.bytes), "days": round(growth.days, 1)}
        detail += f", grows by {amount(growth.bytes)} a day (seen over {growth.days:.0f} day{'s' * (round(growth.days) != 1)})"
    elif why:
        fields["unknown"] = why
        detail += f"; how fast it grows can't be told: {why}"
    return fields, [Check(OK, name, detail)]


def _journal(grown: dict):
    from . import chain, journal

    folder = _folder()
    found, entries = chain.segments(folder), chain.ledger(folder)
    live = os.path.join(folder, chain.LIVE)
    sizes = {"live": health.size(live), "closed": 0, "sealed": 0}
    for one in found:
        sizes["sealed" if one.sealed else "closed"] += health.size(one.path)
    spans = _spans(folder, found, entries)
    now = datetime.now(UTC)
    seen = window(spans, now)
    kept = [(entries[one.number]["bytes"], health.size(one.path)) for one in found if one.sealed and one.number in entries]
    share = sum(after for _, after in kept) / max(sum(before for before, _ in kept), 1) if kept else 1.0
    why = "" if seen else "nothing was written yet" if not found and not sizes["live"] else "there is less than a day of records"
    if seen:
        days, first = (now - seen[0].start) / timedelta(days=1), seen[0].first
        grown["journal"] = Growth(sum(span.size for span in seen) * share / days, days)
        grown["records"] = Growth((journal.position(folder) - first + 1) / days, days)
    grown["why"] = why
    counts = {"closed_segments": sum(not one.sealed for one in found), "sealed_segments": sum(one.sealed for one in found)}
    yield part("journal", folder, sizes, grown.get("journal"), why, **counts)


def _spans(folder: str, found: list, entries: dict) -> list[Span]:
    """Of all segments, oldest first. A time that can't be right is that of the one before; the first began with the journal's id at the earliest."""
    from . import archive, chain

    spans: list[Span] = []
    now = datetime.now(UTC)
    for path, entry in [(one.path, entries.get(one.number) if one.sealed else None) for one in found] + [(os.path.join(folder, chain.LIVE), None)]:
        if entry:
            own, first, size, ts = entry["journal"], entry["first"], entry["bytes"], entry.get("since")
        else:
            try:
                own, first, size, ts = _begin(path)
            except (FileNotFoundError, ValueError):
                continue  # sealed without an entry, or damaged: ftai-log --verify tells of it
        least = spans[-1].start if spans else datetime.fromtimestamp(int(own.replace("-", "")[:12], 16) / 1000, UTC)
        stamp = archive.instant(ts)
        start = datetime.fromisoformat(stamp) if stamp else least
        spans.append(Span(max(least, start) if start <= now else least, first, size))
    return spans


def _begin(path: str) -> tuple:
    """(journal id, first seq, bytes, time of the first record or None) of a plain segment. Raises ValueError for what is none, FileNotFoundError."""
    from . import canonical, chain

    fd = chain.regular(path)
    try:
        data, size = os.pread(fd, chain.WINDOW, 0), os.fstat(fd).st_size
    finally:
        os.close(fd)
    top = chain.head(data)
    if top is None:
        raise ValueError("no head")
    content = data[top.start + 1 :].split(chain.MARK, 1)[0] + b"\n"
    try:
        return top.journal, top.first, size, canonical.parse(content).get("ts")
    except ValueError:
        return top.journal, top.first, size, None  # longer than what was read


def window(spans: list[Span], now: datetime) -> list[Span]:
    """Those of the last WINDOW days, and what reaches into them; none where that is less than a day, which is no measure of days."""
    if not spans:
        return []
    since = now - timedelta(days=WINDOW)
    ends = [span.start for span in spans[1:]] + [now]
    seen = [span for span, end in zip(spans, ends, strict=True) if end >= since]
    return seen if now - seen[0].start >= timedelta(days=1) else []


def _archive(grown: dict):
    import sqlite3

    path = os.path.join(paths.where("state"), "archive.db")
    sizes = {"database": health.size(path), "wal": health.size(f"{path}-wal")}
    why = grown.get("why", "the journal can't be read")
    if sizes["database"] and "records" in grown:
        try:
            db = health.reader(path)
            count = db.execute("SELECT max(seq) - min(seq) + 1 FROM records").fetchone()[0]
            db.close()
            if count:
                grown["archive"] = Growth(sizes["database"] / count * grown["records"].bytes, grown["records"].days)
        except sqlite3.Error as bad:
            why = f"it can't be read: {bad}"
    yield part("archive", path, sizes, grown.get("archive"), why or "there is none")
    path = os.path.join(paths.where("state"), "state.db")
    yield part("state.db", path, {"database": health.size(path), "wal": health.size(f"{path}-wal")}, None)


def _others(grown: dict):
    """Answers that are too long for a record, and what can be made again."""
    folder = os.path.join(paths.where("data"), "answers")
    now = datetime.now(UTC).timestamp()
    seen = list(_files(folder))
    late = sum(size for size, at in seen if now - WINDOW * 86400 <= at <= now)
    if days := grown["records"].days if "records" in grown else 0:
        grown["answers"] = Growth(late / min(days, WINDOW), min(days, WINDOW))
    yield part("answers", folder, {"files": sum(size for size, _ in seen)}, grown.get("answers"), grown.get("why", "the journal can't be read"))
    folder = paths.where("cache")
    yield part("cache", folder, {"files": sum(size for size, _ in _files(folder))}, None)


def _files(folder: str):
    """Yields (bytes, mtime) of all files below a folder; no link is followed."""
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                seen = os.lstat(os.path.join(place, name))
            except FileNotFoundError:
                continue
            yield seen.st_size, seen.st_mtime


# --- disks


def _disks(grown: dict):
    state, data = paths.where("state"), paths.where("data")
    places = {"journal": state, "archive": state, "answers": data, "cache": paths.where("cache")}
    disks: dict[int, list[str]] = {}
    for name, folder in places.items():
        while not os.path.isdir(folder):
            folder = os.path.dirname(folder)
        places[name] = folder
        names = disks.setdefault(os.stat(folder).st_dev, [])
        names.append(name)
    for names in disks.values():
        known = [grown[name].bytes for name in names if name in grown]
        yield disk(places[names[0]], names, os.statvfs(places[names[0]]), sum(known) if known else None, grown.get("why", ""))


def disk(path: str, names: list[str], seen, a_day: float | None, why: str = "") -> tuple[dict, list]:
    """One file system. seen: os.statvfs() of it. a_day: bytes that it gets a day, None where that can't be told (why)."""
    free, total = seen.f_bavail * seen.f_frsize, seen.f_blocks * seen.f_frsize
    days = free / a_day if a_day else None
    nodes = seen.f_files and not seen.f_favail
    level = FAIL if nodes else health.room(free)
    if level == OK and days is not None and days < DAYS:
        level = WARN
    fields = {"subject": "disk", "name": path, "holds": names, "free": free, "size": total, "level": level}
    fields |= {"a_day": round(a_day)} if a_day is not None else {"unknown": why or None}
    detail = f"{amount(free)} of {amount(total)} free for {', '.join(names)}"
    if nodes:
        detail += ", and room for no more files"
    if days is not None:
        fields["days"] = int(min(days, YEARS))
        detail += f"; full in {days:.0f} day{'s' * (round(days) != 1)} as it grows now" if days < YEARS else "; it lasts for more than ten years"
    elif a_day is None and why:
        detail += f"; how long it lasts can't be told: {why}"
    hint = "" if level == OK else f"du -sh '{paths.where('state')}'/* tells what takes it; ftai-rotate seals what is closed"
    return fields, [Check(level, f"disk {path}", detail, hint)]


# --- rotation and backups


def age(ts: str | None, now: datetime) -> float | None:
    """Days since a time, None for what is none."""
    from . import archive

    stamp = archive.instant(ts)
    return (now - datetime.fromisoformat(stamp)) / timedelta(days=1) if stamp else None


def _stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _rotation():
    from . import chain

    folder = _folder()
    found = chain.segments(folder)
    closed = [(one.name, os.path.getmtime(one.path)) for one in found if not one.sealed]
    last = max((os.path.getmtime(one.path) for one in found if one.sealed), default=None)
    lost = sorted(chain.ledger(folder).keys() - {one.number for one in found})
    yield rotation(closed, last, lost, bool(health.size(os.path.join(folder, chain.LIVE))), datetime.now(UTC))


def rotation(closed: list, last: float | None, lost: list[int], live: bool, now: datetime) -> tuple[dict, list]:
    """closed: (name, mtime) of the segments that are not sealed; last: when the newest was sealed; lost: numbers of sealed ones that are gone."""
    checks = []
    if last is not None:
        checks.append(Check(OK, "rotation", f"the last segment was sealed at {_stamp(last)}"))
    elif live or closed:
        checks.append(Check(WARN, "rotation", "nothing was ever sealed", "ftai-rotate, from cron once a day"))
    else:
        checks.append(Check(OK, "rotation", "nothing was written yet"))
    if closed:
        name, at = closed[0]
        late = now.timestamp() - at > OPEN * 86400
        count = f"{len(closed)} closed segment{'s are' if len(closed) > 1 else ' is'} not sealed"
        checks.append(Check(WARN if late else OK, "rotation", f"{count}, the oldest '{name}' of {_stamp(at)}", "ftai-rotate" if late else ""))
    if lost:
        checks.append(Check(FAIL, "rotation", f"sealed segments that the ledger tells of are missing: {', '.join(map(str, lost))}", "ftai-log --verify"))
    fields = {"subject": "rotation", "last": None if last is None else _stamp(last), "open": len(closed), "lost": lost or None, "level": worst(checks)}
    fields |= {"oldest": closed[0][0], "oldest_at": _stamp(closed[0][1])} if closed else {}
    return fields, checks


def worst(checks: list[Check]) -> str:
    return max((check.level for check in checks), key=(OK, WARN, FAIL).index)


def _backups():
    from . import backup

    known = backup.known()
    if not known:
        checks = [Check(WARN, "backup", "there is none", "ftai-rotate backup --to DIR, from cron once a day")]
        yield {"subject": "backup", "level": WARN}, checks
    now = datetime.now(UTC)
    for folder in sorted(known):
        yield copied(folder, known[folder], now)


def copied(folder: str, said: dict, now: datetime) -> tuple[dict, list]:
    """The backups in one folder. said: as backup.known() has it."""
    checks = []
    check = f"ftai-rotate check --to '{folder}' --read-data"
    asked = (("at", "backup", f"ftai-rotate backup --to '{folder}'"), ("checked", "check", check), ("drilled", "drill", f"ftai-rotate drill --to '{folder}'"))
    for field, what, hint in asked:
        days = age(said.get(field), now)
        late = days is None or days > AGES[field]
        detail = f"the last {what} was at {said[field]}" if days is not None else f"no {what} was ever made"
        if days is not None and late:
            detail += f", {days:.0f} days ago, {AGES[field]} are allowed"
        if field == "at" and not os.path.isdir(folder):
            detail += "; the folder is not there now"
        checks.append(Check(WARN if late else OK, f"backup {folder}", detail, hint if late else ""))
    if said.get("ok") is False:
        checks.append(Check(FAIL, f"backup {folder}", "what was looked at last was not good", check))
    fields = {"subject": "backup", "name": folder, **{name: said.get(name) for name in ("snapshot", "at", "checked", "drilled", "ok")}, "level": worst(checks)}
    return fields, checks


# --- keys


def _keys():
    from . import proofs, sealed

    place = os.path.join(paths.where("state"), "keys")
    path, known = os.path.join(place, "identity"), os.path.exists(os.path.join(place, "recipient"))
    signing = proofs.has_key()
    told = Check(OK, "signing key", f"in '{place}'") if signing else Check(WARN, "signing key", "there is none, so no checkpoint is signed", "ftai-keys init")
    yield {"subject": "key", "name": "signing", "there": signing, "level": told.level}, [told]
    yield identity(path, known, known and not os.path.exists(path) and not sealed.at_hand(), _folder())
    if known and sealed.for_others():
        detail = "what is sealed now is for those of the setting alone: only their identities open it"
        told = Check(OK, "recipients", detail, "keep a copy of each elsewhere too")
        yield {"subject": "key", "name": "recipients", "level": OK}, [told]


def identity(path: str, known: bool, lost: bool, folder: str) -> tuple[dict, list]:
    """The identity that opens what is sealed in `folder`. known: there is a recipient that belongs to one; lost: which is not at hand."""
    fields = {"subject": "key", "name": "identity", "there": os.path.exists(path), "level": OK}
    if fields["there"]:
        near = not os.path.isdir(folder) or os.stat(path).st_dev == os.stat(folder).st_dev
        fields["same_disk"] = near
        detail = f"in '{path}'{', on the disk of what it opens' if near else ''}; without it nothing that was sealed for it can be opened"
        return fields, [Check(OK, "identity", detail, f"cp '{path}' /MEDIA, on another disk" if near else "")]
    if lost:
        fields["level"] = WARN
        detail = "not at hand; what is sealed meanwhile nobody may be able to open"
        return fields, [Check(WARN, "identity", detail, f"unlock the keychain, or put back your copy as '{path}'")]
    if known:
        return fields, [Check(OK, "identity", "not here, but in the keychain or elsewhere; without it nothing that is sealed can be opened")]
    return fields, [Check(OK, "identity", "there is none yet; the first that is sealed makes one", "ftai-keys init")]
