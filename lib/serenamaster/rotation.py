"""Rotation: the live segment is closed when it is time for it, and what is closed is compressed, sealed, checked, and kept as the memory spec says.

The order makes an end in the middle harmless: an audit record of the intent; the closing, under the journal's lock; for each closed segment,
without the lock, the sealed file, opened again and compared, then the ledger, and only then the plain one goes; a signed checkpoint; what
retention lets go, named in the chain before; the report. What was interrupted is ended by the next run. See ftai-rotate(1).
"""

import os
import re
import time

from . import evidence, journal, retention, sealed, specs, stream
from .errors import CANTCREAT, CONFIG, IOERR, Failure
from .record import LIMIT, make, now

WAIT = 10.0  # seconds to wait for a purge, or another rotation
MEGABYTE = 1_000_000
MEMORY = re.compile(rb'\n@memory(?: "[^\n]*")?\n((?:  [^\n]*\n)*)')


def run(folder: str, *, stage: str, close: bool = False, dry_run: bool = False, warn, fail, told=None, before=None):
    """Rotates the journal in `folder`, and yields the records that tell of it, as they are journaled; none where there is nothing to do.

    close: also where it is not due. dry_run: only tells, in a report. warn(message, hint), fail(Failure): for what does not end the run; what
    failed stays as it was, and is tried again by the next run. told(name, bytes, of): how far the sealing of a segment is. before(): called when segments are
    closed and before they are sealed, as who reads them then needs the identity.
    Raises Failure: 73 and 74 not written, 75 a purge or another rotation is under way.
    """
    try:
        policy = specs.find("memory", "retention", "journal") or {"rotate": "never"}
    except Failure as bad:
        fail(bad)
        policy = {}
    if dry_run:
        yield _rehearsed(folder, stage, close, policy, fail)
        return
    with stream.Lock(os.path.join(folder, ".purge"), WAIT, "a purge or another rotation is under way"):
        try:
            _sweep(folder)
            _tried(fail, journal.finish, folder)
            _tried(fail, journal.relist, folder)
            why, old = _due(folder, stage, close, policy), _old(folder, policy)
            entries = _described(folder, _plain(folder), fail)
            # Before there is anything of ours: with a wrong clock we write too, and that is no proof that it is right.
            newest = _tried(fail, _newest, folder, stage) if _rules(policy) and (why or entries or old) else ""
            if why or entries or old and _timely(newest, fail):
                yield from _rotated(folder, stage, policy, why, entries, newest, warn, fail, told, before)
        except OSError as bad:
            raise _storage(bad) from None


def _rotated(folder: str, stage: str, policy: dict, why: str, entries: dict, newest: str | None, warn, fail, told, before):
    began, failed = time.monotonic(), []

    def missed(bad: Failure) -> None:
        failed.append(bad)
        fail(bad)

    def unsigned(bad: Failure) -> None:
        if bad.code == CONFIG:
            warn(f"the journal has no signed checkpoint: {bad.message}", bad.hint)
        else:
            missed(bad)

    what = [f"close {journal.LIVE}: {why}"] * bool(why) + [f"seal {segment.name}" for segment in entries]
    intent = make("audit", stage, act="rotate", subject="journal", who=journal._user(), outcome="intended", what=what or None)
    yield _journaled(folder, intent, warn)
    closed = _tried(missed, journal.rotate, folder, lambda *_: why, stage=stage) if why else None
    fresh = [segment for segment in _plain(folder) if segment.name == closed]
    put, removed = [], []
    if before:
        before()
    for segment, entry in (entries | _described(folder, fresh, missed)).items():
        if done := _tried(missed, _put_away, folder, segment, entry, told):
            put.append(done)
        elif failed[-1].code in (CANTCREAT, IOERR):
            break  # a disk that is full is so for the rest too
    if (closed or put) and (signed := _tried(unsigned, evidence.checkpoint, folder, stage=stage, warn=warn)):
        yield signed
    old = _old(folder, policy)
    if old and _timely(newest, missed) and (signed := _tried(missed, journal.drop, folder, list(old), "retention", stage=stage)):
        yield signed
        removed = [name for name, _ in old.values()]
    sizes = {key: sum(entry[key] for entry in put) for key in ("bytes", "sealed_bytes")} if put else {}
    said = {"closed": closed, "sealed": [entry["file"] for entry in put] or None, **sizes, "removed": removed or None}
    said |= {"outcome": "failed" if failed else "done", "failed": [bad.message for bad in failed] or None, "ms": int((time.monotonic() - began) * 1000)}
    yield _journaled(folder, make("report", stage, parent=intent, subject="journal", act="rotate", **said), warn)


def _tried(fail, function, *given, **settings):
    """What function(…) returns; None where it failed, and fail(Failure) was called."""
    try:
        return function(*given, **settings)
    except Failure as bad:
        fail(bad)
    except OSError as bad:
        fail(_storage(bad))
    return None


def _storage(bad: OSError) -> Failure:
    return Failure(f"cannot use '{bad.filename}': {bad.strerror}" if bad.filename else f"reading or writing failed: {bad.strerror}", IOERR)


def _journaled(folder: str, rec: dict, warn) -> dict:
    kind, _, reason = journal.append(folder, [rec], stage=rec["from"], warn=warn)[0]
    if kind != "written":
        raise Failure(f"cannot write the journal: {reason or kind}", IOERR)
    return rec


def _rehearsed(folder: str, stage: str, close: bool, policy: dict, fail) -> dict:
    """What a run would do, as a report."""
    why = _due(folder, stage, close, policy)
    would = [f"close and seal {journal.LIVE}: {why}"] * bool(why) + [f"seal {segment.name}" for segment in _plain(folder)]
    old = _old(folder, policy)
    if old and _timely(_tried(fail, _newest, folder, stage), fail):
        would += [f"remove {name}: {reason}" for name, reason in old.values()]
    kept = [f"{name}: {reason}" for name, keep, reason in _judged(folder, policy).values() if keep] if _rules(policy) else None
    return make("report", stage, subject="journal", act="rotate", would=would, kept=kept)


# ---- closing ----


def due(policy: dict, size: int, first: str, present: str) -> str:
    """Why a live segment of so many bytes, whose first record is of the time `first`, is to be closed; "" where it is not. present: the time now.

    Days and weeks are those of the local time zone.
    """
    if policy.get("size") and size >= policy["size"] * MEGABYTE:
        return f"it has {size // MEGABYTE} MB"
    how = policy.get("rotate", "daily")
    if how not in ("daily", "weekly"):
        return ""
    begun, today = retention.seconds(first), retention.seconds(present)
    if begun is None or today is None:
        return "nobody knows when it was begun"
    # One that was begun on a day to come, as the clock was wrong, would not be closed for long.
    then, day = retention.day(begun), retention.day(today)
    same = then == day if how == "daily" else then.isocalendar()[:2] == day.isocalendar()[:2]
    return "" if same else f"it was begun on {then.isoformat()}"


def _due(folder: str, stage: str, close: bool, policy: dict) -> str:
    """due() of the live segment; "" too where it holds nothing but what rotations wrote, so that an idle journal stays as it is."""
    try:
        fd, size, top = journal._open(os.path.join(folder, journal.LIVE))
    except FileNotFoundError:
        return ""
    try:
        pieces = journal._pieces(fd, top.start, size) if top else ()
        first = next((_time(piece) or "-" for _, piece in pieces if not _is_own(piece, stage)), "")
    finally:
        os.close(fd)
    return first and ("it was asked for" if close else due(policy, size, first, now()))


def _is_own(piece: bytes, stage: str) -> bool:
    """True for what rotations write, and for checkpoints."""
    return piece.startswith(b"\n@checkpoint\n") or b'\n  from: "%b"\n' % stage.encode() in piece


def _time(piece: bytes) -> str:
    found = re.search(rb'\n  ts: "([^"\n]*)"\n', piece)
    return found[1].decode("utf-8", "replace") if found else ""


# ---- sealing ----


def _plain(folder: str) -> list:
    """The closed segments that are not sealed yet. A sealed file that is there too is of a run that was killed: nobody trusts it, and it is made anew."""
    return [segment for segment in journal.segments(folder) if not segment.sealed]


def _described(folder: str, segments: list, fail) -> dict:
    """{segment: entry of the ledger} of closed segments, those left out that are damaged."""
    made = {segment: _tried(fail, journal.describe, folder, segment) for segment in segments}
    return {segment: entry for segment, entry in made.items() if entry}


def _put_away(folder: str, segment, entry: dict, told) -> dict:
    """Seals a closed segment in the place of the plain one, and returns its entry of the ledger. Raises Failure; then the plain one stays."""
    about = {key: entry[key] for key in ("journal", "segment", "first", "last", "prev", "hash", "root", "records")} | {"name": segment.name, "ts": now()}
    fd = journal.regular(segment.path)
    try:
        size = os.fstat(fd).st_size
        step = told and (lambda count: told(segment.name, count // 2, size))
        written = sealed.write(fd, segment.path, about, check=True, told=step)
        entry = {**entry, "memories": memories(fd, size), **written}
    finally:
        os.close(fd)
    journal.put_away(folder, segment, entry)
    return entry


def _sweep(folder: str) -> None:
    """Removes temporary files of processes that are gone."""
    for name in os.listdir(folder):
        found = re.fullmatch(r"\..*\.([0-9]{1,9})\.tmp", name)
        if found and not _runs(int(found[1])):
            try:
                os.unlink(os.path.join(folder, name))
            except OSError as bad:
                raise Failure(f"cannot remove '{folder}/{name}': {bad.strerror}", IOERR) from None


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


# ---- retention ----


def memories(fd: int, size: int) -> list[list[str]]:
    """[tier, time of the newest] of the memories that a plain segment holds; the tier "" is the one that is meant where none was said.

    Where the tier or the time is not plain text it is "?", which no spec knows.
    """
    newest: dict[str, str] = {}
    for at in _places(fd, size, b"\n@memory"):
        piece = os.pread(fd, journal.WINDOW, at)
        if journal.END not in piece:
            piece = os.pread(fd, LIMIT + journal.WINDOW, at)
        if found := MEMORY.match(piece):
            said = dict(re.findall(rb"^  (tier|ts): ([^\n]*)$", found[1], re.MULTILINE))
            tier, when = (re.fullmatch(r'"([^"\\]*)"', said.get(name, empty).decode("utf-8", "replace")) for name, empty in ((b"tier", b'""'), (b"ts", b"")))
            name, time_ = tier[1] if tier else "?", when[1] if when else "?"
            before, after = retention.seconds(newest.get(name, time_)), retention.seconds(time_)
            newest[name] = "?" if before is None or after is None else time_ if after >= before else newest[name]
    return [[name, newest[name]] for name in sorted(newest)]


def _places(fd: int, size: int, mark: bytes):
    """Yields the offsets at which `mark` stands in a file."""
    for base in range(0, size, journal.CHUNK):
        data = os.pread(fd, journal.CHUNK + len(mark) - 1, base)
        at = data.find(mark)
        while at >= 0:
            yield base + at
            at = data.find(mark, at + 1)


def _rules(policy: dict) -> bool:
    return any(policy.get(rule) for rule in retention.RULES)


def _judged(folder: str, policy: dict) -> dict[int, tuple[str, bool, str]]:
    """{segment: (name, keep, why)} of the sealed segments."""
    names = {segment.number: segment.name for segment in journal.segments(folder) if segment.sealed}
    ledger = {number: entry for number, entry in journal.ledger(folder).items() if number in names}
    # The last record may have come from elsewhere, and be of any time; the first of the next segment tells when this one was closed.
    times = {number: [entry.get("until"), ledger.get(number + 1, {}).get("since")] for number, entry in sorted(ledger.items())}
    items = [(number, max(both, key=lambda ts: retention.seconds(ts) or 0.0)) for number, both in times.items()]
    # Where the clock was wrong for a while, the last ones of the chain need not be those of the latest times.
    present, made, last = now(), {}, sorted(ledger)[-max(int(policy.get("keep_last", 0)), 1) :]
    for number, keep, why in retention.chosen(items, policy, present):
        if not keep:
            held = "one of the last" if number in last else _held(ledger[number], present)
            keep, why = bool(held), held or why
        made[number] = names[number], keep, why
    return made


def _old(folder: str, policy: dict) -> dict[int, tuple[str, str]]:
    """{segment: (name, why)} of what retention lets go."""
    if not _rules(policy):
        return {}
    return {number: (name, why) for number, (name, keep, why) in _judged(folder, policy).items() if not keep}


def _held(entry: dict, present: str) -> str:
    """Why a segment stays that no rule keeps: a memory in it whose tier keeps it longer. "" where there is none."""
    known = entry.get("memories")
    if type(known) is not list or not all(type(one) is list and [*map(type, one)] == [str, str] for one in known):
        return "nobody knows what memories it holds"
    tiers = {tier["name"]: tier for tier in specs.load("memory")["tier"]}
    for name, when in known:
        name = name or _default()
        days, then = tiers[name].get("keep") if name in tiers else None, retention.seconds(when)
        if days is None or then is None:
            return f"a memory of the tier '{name}', which is kept for ever"
        if then + days * 86400 > (retention.seconds(present) or 0.0):
            return f"a memory of the tier '{name}', which is kept for {days} days"
    return ""


def _default() -> str:
    try:
        return specs.tier()
    except Failure:
        return "none"  # of which there is no entry either


def _timely(newest: str | None, fail) -> bool:
    """True where the clock is right, as far as the newest record tells; None: that could not be read."""
    if newest is None:
        return False
    try:
        retention.clock(now(), newest)
    except Failure as bad:
        fail(bad)
        return False
    return True


def _newest(folder: str, stage: str) -> str:
    """The time of the newest record that no rotation wrote; "" where there is none. Raises Failure 77 where that is sealed and can't be opened here."""
    for segment in [None, *reversed(journal.segments(folder))]:
        try:
            fd, size, top = journal.open_segment(segment) if segment else journal._open(os.path.join(folder, journal.LIVE))
        except FileNotFoundError:
            continue
        try:
            pieces = [] if top is None else journal._pieces(fd, top.start, size)
            found = ""
            for _, piece in pieces:
                if not _is_own(piece, stage):
                    found = _time(piece) or found
        finally:
            os.close(fd)
        if found:
            return found
    return ""
