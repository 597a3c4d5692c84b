"""Rotation: the live segment is closed when it is time for it, and what is closed is compressed, sealed, checked, and kept as the memory spec says.

The order makes an end in the middle harmless: an audit record of the intent; the closing, under the journal's lock; for each closed segment,
without the lock, the sealed file, opened again and compared, then the ledger, and only then the plain one goes; a signed checkpoint; what
retention lets go, named in the chain before; the report. What was interrupted is ended by the next run. See ftai-rotate(1).
"""

import contextlib
import os
import re
import time

import orjson

from . import canonical, chain, evidence, journal, retention, segments, specs, stream
from .errors import CANTCREAT, CONFIG, IOERR, SOME, Failure
from .record import LIMIT, make, now

WAIT = 10.0  # seconds to wait for a purge, or another rotation
MEGABYTE = 1_000_000
FAILED = ".failed"  # in the journal's folder: what the last run was to do and could not, as its records say
TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")
MEMORY = re.compile(rb'\n@memory(?: "[^\n]*")?\n((?:  [^\n]*\n)*)')


def run(folder: str, *, stage: str, close: bool = False, dry_run: bool = False, warn, fail, told=None, before=None, held=tuple):
    """Rotates the journal in `folder`, and yields the records that tell of it, as they are journaled; none where there is nothing to do.

    close: also where it is not due. dry_run: only tells, in a report. warn(message, hint), fail(Failure): for what does not end the run; what
    failed stays as it was, and is tried again by the next run. told(bytes, of, name): how far the sealing of a segment is. before(): called when segments are
    closed and before they are sealed, as who reads them then needs the identity. held(): the seqs of records that must stay, None where nobody knows.
    Raises Failure: 73 and 74 not written, 75 a purge or another rotation is under way.
    """
    try:
        policy = specs.find("memory", "retention", "journal") or {"rotate": "never"}
    except Failure as bad:
        fail(bad)
        policy = {}
    if dry_run:
        yield _rehearsed(folder, stage, close, policy, fail, held)
        return
    with stream.Lock(os.path.join(folder, ".purge"), WAIT, "a purge or another rotation is under way"):
        try:
            _sweep(folder)
            ended = _tried(fail, segments.finish, folder) or []
            _tried(fail, segments.relist, folder)
            why, old = _due(folder, stage, close, policy), _old(folder, policy, held)
            entries = _described(folder, _plain(folder), fail)
            # Before there is anything of ours: with a wrong clock we write too, and that is no proof that it is right.
            newest = _tried(fail, _newest, folder, stage) if _rules(policy) and (why or entries or old) else ""
            if why or entries or ended or old and _timely(newest, fail):
                yield from _rotated(folder, stage, policy, why, entries, ended, newest, warn, fail, told, before, held)
        except OSError as bad:
            raise _storage(bad) from None


def _rotated(folder: str, stage: str, policy: dict, why: str, entries: dict, ended: list, newest: str | None, warn, fail, told, before, held):
    began, failed = time.monotonic(), []

    def missed(bad: Failure) -> None:
        failed.append(bad)
        fail(bad)

    def unsigned(bad: Failure) -> None:
        if bad.code == CONFIG:
            warn(f"the journal has no signed checkpoint: {bad.message}", bad.hint)
        else:
            missed(bad)

    what = [f"close {chain.LIVE}: {why}"] * bool(why) + [f"seal {segment.name}" for segment in entries]
    what += [f"remove {name}" for name in ended] + [f"remove {name}: {reason}" for name, reason in _old(folder, policy, held).values()]
    earlier, of = _last(folder), [entry["hash"] for entry in entries.values()]
    # What was tried before and failed is still intended, and that is journaled.
    same = not why and (earlier.get("what"), earlier.get("of")) == (what, of)
    intent = earlier["intent"] if same else None
    if intent is None:
        intent = make("audit", stage, act="rotate", subject="journal", who=journal.user(), outcome="intended", what=what or None)
        yield _journaled(folder, intent, warn)
    closed = _tried(missed, segments.rotate, folder, stage=stage) if why else None
    fresh = [segment for segment in _plain(folder) if segment.name == closed]
    put, removed = [], ended
    blind: list[str] = []
    if before:
        before()
    for segment, entry in (entries | _described(folder, fresh, missed)).items():
        if done := _tried(missed, _put_away, folder, segment, entry, told, blind):
            put.append(done)
        elif failed[-1].code in (CANTCREAT, IOERR):
            break  # a disk that is full is so for the rest too
    if blind:
        warn("what was sealed could not be opened here: the identity is not at hand", "unlock the keychain, or FTAI_IDENTITY=FILE; ftai-log --verify opens all")
    for entry in put:
        if "damaged" in entry:
            missed(Failure(f"sealed as it is: {entry['damaged']}", SOME, "ftai-log --verify"))
    known = {entry["segment"]: entry for entry in put}
    if (closed or put) and (signed := _tried(unsigned, evidence.checkpoint, folder, stage=stage, warn=warn, known=known)):
        yield signed
    old = _old(folder, policy, held)
    sure = old and _timely(newest, missed) and _tried(missed, _sure, folder, stage, list(old))
    if sure and (signed := _tried(missed, segments.drop, folder, list(old), "retention", stage=stage)):
        yield signed
        removed = [*ended, *(name for name, _ in old.values())]
    last = {"intent": {key: intent[key] for key in ("id", "thread")}, "what": what, "of": of, "failed": [TIME.sub("", bad.message) for bad in failed]}
    if last == earlier and not (closed or put or removed):
        return  # as the journal says already
    sizes = {key: sum(entry[key] for entry in put) for key in ("bytes", "sealed_bytes")} if put else {}
    said = {"closed": closed, "sealed": [entry["file"] for entry in put] or None, **sizes, "removed": removed or None}
    said |= {"outcome": "failed" if failed else "done", "failed": [bad.message for bad in failed] or None, "ms": int((time.monotonic() - began) * 1000)}
    report = _journaled(folder, make("report", stage, parent=intent, subject="journal", act="rotate", **said), warn)
    _remember(folder, last if failed else {})
    yield report


def _last(folder: str) -> dict:
    """What _remember() wrote: {intent: {id, thread}, what, failed}; {} where the last run failed at nothing."""
    try:
        with open(os.path.join(folder, FAILED), "rb") as file:
            made = orjson.loads(file.read())
        return made if made["intent"]["id"] and made["intent"]["thread"] else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _remember(folder: str, last: dict) -> None:
    # Where that fails, the next run tells all of it again.
    with contextlib.suppress(OSError):
        if last:
            stream.save(os.path.join(folder, FAILED), orjson.dumps(last))
        else:
            os.unlink(os.path.join(folder, FAILED))


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


def _rehearsed(folder: str, stage: str, close: bool, policy: dict, fail, held) -> dict:
    """What a run would do, as a report."""
    why = _due(folder, stage, close, policy)
    would = [f"close and seal {chain.LIVE}: {why}"] * bool(why) + [f"seal {segment.name}" for segment in _plain(folder)]
    kept = None
    if _rules(policy):
        judged = _judged(folder, policy, held, _coming(folder, bool(why), fail)).values()
        old = [f"remove {name}: {reason}" for name, keep, reason in judged if not keep]
        kept = [f"{name}: {reason}" for name, keep, reason in judged if keep]
        if old and _timely(_tried(fail, _newest, folder, stage), fail):
            would += old
    return make("report", stage, subject="journal", act="rotate", would=would, kept=kept)


def _coming(folder: str, closing: bool, fail) -> dict[int, tuple[str, dict]]:
    """{segment: (name, entry)} of those that a run would seal, the live one too where it would be closed: it judges them with the others."""
    made = {}
    for segment, entry in _described(folder, _plain(folder) + _live(folder) * closing, fail).items():
        if segment.name == chain.LIVE:
            entry["until"] = now()  # the run writes into it before it closes it
        fd, size, _ = chain.open_plain(segment.path)
        made[segment.number] = segment.name, {**entry, "memories": memories(fd, size), "purges": _purges(fd, size)}
        os.close(fd)
    return made


def _live(folder: str) -> list:
    """The live segment with the number of its head, in a list; an empty one where it has none."""
    try:
        fd, _, top = chain.open_plain(os.path.join(folder, chain.LIVE))
    except FileNotFoundError:
        return []
    os.close(fd)
    return [chain.live(folder)._replace(number=top.number)] if top else []


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
    """due() of the live segment; "" too where it holds nothing but what rotations wrote, so that an idle journal stays as it is.

    Raises Failure as chain.follows() does.
    """
    chain.follows(folder)
    try:
        fd, size, top = chain.open_plain(os.path.join(folder, chain.LIVE))
    except FileNotFoundError:
        return ""
    try:
        first = next((_time(piece) or "-" for piece in segments.written(fd, top, size, stage)), "")
    finally:
        os.close(fd)
    return first and ("it was asked for" if close else due(policy, size, first, now()))


def _time(piece: bytes) -> str:
    found = re.search(rb'\n  ts: "([^"\n]*)"\n', piece)
    return found[1].decode("utf-8", "replace") if found else ""


# ---- sealing ----


def _plain(folder: str) -> list:
    """The closed segments that are not sealed yet. A sealed file that is there too is of a run that was killed: nobody trusts it, and it is made anew."""
    return [segment for segment in chain.segments(folder) if not segment.sealed]


def _described(folder: str, parts: list, fail) -> dict:
    """{segment: entry of the ledger} of closed segments, those left out that are damaged."""
    made = {part: _tried(fail, segments.describe, folder, part) for part in parts}
    return {part: entry for part, entry in made.items() if entry}


def _put_away(folder: str, segment, entry: dict, told, blind: list) -> dict:
    """Seals a closed segment in the place of the plain one, and returns its entry of the ledger. Raises Failure; then the plain one stays.

    blind: where it is sealed for the owner, whose identity is not at hand to open it, its name is put there.
    """
    from . import sealed

    about = {key: entry[key] for key in ("journal", "segment", "first", "last", "prev", "hash", "root", "records") if key in entry}
    about |= {"name": segment.name, "ts": now()}
    fd = chain.regular(segment.path)
    try:
        sealed.vouch()
        size = os.fstat(fd).st_size
        step = told and (lambda count: told(count // 2, size, segment.name))
        written = sealed.write(fd, segment.path, about, check=True, told=step)
        if not written.pop("opened", True):
            blind.append(segment.name)
        entry = {**entry, "memories": memories(fd, size), "purges": _purges(fd, size), **written}
    finally:
        os.close(fd)
    segments.put_away(folder, segment, entry)
    return entry


def _sweep(folder: str) -> None:
    """Removes temporary files of processes that are gone."""
    for name in os.listdir(folder):
        if stream.is_left(name):
            try:
                os.unlink(os.path.join(folder, name))
            except OSError as bad:
                raise Failure(f"cannot remove '{folder}/{name}': {bad.strerror}", IOERR) from None


# ---- retention ----


def memories(fd: int, size: int) -> list[list[str]]:
    """[tier, time of the newest] of the memories that a plain segment holds; the tier "" is the one that is meant where none was said.

    Where the tier or the time is not plain text it is "?", which no spec knows.
    """
    newest: dict[str, str] = {}
    for at in segments.places(fd, size, b"\n@memory"):
        piece = os.pread(fd, chain.WINDOW, at)
        if chain.END not in piece:
            piece = os.pread(fd, LIMIT + chain.WINDOW, at)
        if found := MEMORY.match(piece):
            said = dict(re.findall(rb"^  (tier|ts): ([^\n]*)$", found[1], re.MULTILINE))
            tier, when = (re.fullmatch(r'"([^"\\]*)"', said.get(name, empty).decode("utf-8", "replace")) for name, empty in ((b"tier", b'""'), (b"ts", b"")))
            name, time_ = tier[1] if tier else "?", when[1] if when else "?"
            before, after = retention.seconds(newest.get(name, time_)), retention.seconds(time_)
            newest[name] = "?" if before is None or after is None else time_ if after >= before else newest[name]
    return [[name, newest[name]] for name in sorted(newest)]


def _purges(fd: int, size: int) -> bool:
    """True where a plain segment holds what a purge says of itself, or what looks like it: it proves tombstones in older ones."""
    return next(segments.places(fd, size, canonical.PURGE), None) is not None


def _rules(policy: dict) -> bool:
    return any(policy.get(rule) for rule in retention.RULES)


def _judged(folder: str, policy: dict, held=tuple, coming: dict | None = None) -> dict[int, tuple[str, bool, str]]:
    """{segment: (name, keep, why)} of the sealed segments, and of those that are coming, as _coming() has them. held: as run() has it."""
    names = {segment.number: segment.name for segment in chain.segments(folder) if segment.sealed}
    ledger = {number: entry for number, entry in chain.ledger(folder).items() if number in names}
    for number, (name, entry) in (coming or {}).items():
        names[number], ledger[number] = name, entry
    # The last record may have come from elsewhere, and be of any time; the first of the next segment tells when this one was closed.
    times = {number: [entry.get("until"), ledger.get(number + 1, {}).get("since")] for number, entry in sorted(ledger.items())}
    items = [(number, max(both, key=lambda ts: retention.seconds(ts) or 0.0)) for number, both in times.items()]
    # Where the clock was wrong for a while, the last ones of the chain need not be those of the latest times.
    present, made, last = now(), {}, sorted(ledger)[-max(int(policy.get("keep_last", 0)), 1) :]
    older, needed = False, held()  # that one before it stays
    for number, keep, why in retention.chosen(items, policy, present):
        if not keep:
            entry = ledger[number]
            reason = "one of the last" if number in last else _held(entry, present)
            if not reason and older and entry.get("purges") is not False:
                reason = "it proves what was purged from an older one"
            if not reason and (needed is None or any(entry["first"] <= seq <= entry["last"] for seq in needed)):
                reason = "nobody knows what tasks are open" if needed is None else "it holds an open task"
            keep, why = bool(reason), reason or why
        older = older or keep
        made[number] = names[number], keep, why
    return made


def _old(folder: str, policy: dict, held) -> dict[int, tuple[str, str]]:
    """{segment: (name, why)} of what retention lets go."""
    if not _rules(policy):
        return {}
    return {number: (name, why) for number, (name, keep, why) in _judged(folder, policy, held).items() if not keep}


def _sure(folder: str, stage: str, numbers: list[int]) -> bool:
    """True where these segments hold the memories that the ledger, which is not signed, says they do, and the clock did not just jump.

    Raises Failure else: 77 where one can't be opened, 75 for the clock.
    """
    ledger, times, recent = chain.ledger(folder), [], (retention.seconds(now()) or 0.0) - 2 * 86400
    for segment in chain.segments(folder):
        since, until = (str(ledger.get(segment.number, {}).get(name)) for name in ("since", "until"))
        # Of the last days it must be known record by record.
        times += [since, until] if (retention.seconds(until) or 0.0) < recent else _times(folder, segment, stage)
    retention.steady([*times, *_times(folder, None, stage)], now())
    for segment in chain.segments(folder):
        if segment.number in numbers:
            fd, size, _ = chain.open_segment(segment)
            found = memories(fd, size), _purges(fd, size)
            os.close(fd)
            if found != (ledger[segment.number]["memories"], ledger[segment.number]["purges"]):
                raise Failure(f"'{segment.path}' does not hold what the ledger says", SOME, "ftai-log --verify")
    return True


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
    for segment in [None, *reversed(chain.segments(folder))]:
        if times := _times(folder, segment, stage):
            return times[-1]
    return ""


def _times(folder: str, segment, stage: str) -> list[str]:
    """The times of the records of a segment, of the live one where that is None, that no rotation wrote. Raises Failure as _newest()."""
    try:
        fd, size, top = chain.open_segment(segment) if segment else chain.open_plain(os.path.join(folder, chain.LIVE))
    except FileNotFoundError:
        return []
    try:
        return [found for piece in segments.written(fd, top, size, stage) if (found := _time(piece))]
    finally:
        os.close(fd)
