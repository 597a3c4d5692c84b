"""What keeps calls to providers within bounds: breakers, rates, budgets and what is known of the network, in state.db, so that all processes act as one.

A call costs two transactions: begin(), which takes all that it needs or nothing, and end(). A breaker has the name "provider/model/mark" (see
mark()), where the mark tells keys apart. `now` is in seconds since the epoch; where it is left out it is read under the lock, so that times rise
from process to process. A stored deadline further ahead than it was set for counts as past, as the clock was set back then.

The functions raise Failure 73, 74 or 75, as state.py does; those that only read make no file.
"""

import os
import time
from collections import namedtuple

from . import paths
from .record import shown
from .state import BUSY_MS, Write, connect, quote, storage

FAILURES = 3  # transient ones in a row open a breaker
FIRST, LONGEST = 60_000, 900_000  # for so many milliseconds at first, and at most
TRANSIENT = frozenset(("network", "timeout", "rate"))
ANSWERED = frozenset(("request", "length", "policy", "input"))  # troubles of one call: the provider itself is well
FRESH = 30_000  # what is known of the network holds for so long
MINUTE = 61  # seconds that count as the last minute: they are whole ones, so that no 60 s hold more than the limit
DAY = 86_400_000  # the longest that a provider may keep us waiting; and what was reserved that long ago will not be settled any more
KEPT = 62 * DAY  # spends and breakers that nobody asks for
SLACK = 1000  # by so much the clock may be set back unnoticed
BILLION = 10**9  # money is kept in billionths, so that sums are exact
MOST = 10**18  # of anything counted: what is more is no amount, and would be no integer of 64 bits
VERSION = 3  # of the file that has our tables first

Breaker = namedtuple("Breaker", "state until failures reason ts", defaults=("closed", None, 0, "", None))
# All three empty: go. why: of the breaker, in words. wait: seconds until it is worth asking again. budget: the one that would be overrun.
Standing = namedtuple("Standing", "why wait budget", defaults=("", 0.0, None))
# opened: this opened the breaker. changed: this call tells that the provider can be reached again, or not any more; up: which.
Ending = namedtuple("Ending", "opened changed up")

_writer: dict = {}
_inherited: list = []  # connections of a process that forked: SQLite allows neither to use nor to close them here


def _write(act, path: str | None, now: float | None, *, sync: bool = False):
    """What act(db, milliseconds since the epoch) returns, run as one transaction under the lock. sync: it has to outlive a power cut."""
    import sqlite3

    path = path or paths.state_db()
    try:
        with Write(_connection(path), path, sync=sync) as db:
            return act(db, _ms(now))
    except sqlite3.Error as bad:
        raise storage(bad, path) from None


def _connection(path: str):
    """The connection of this process: to open one for each call takes longer than the call's own work."""
    try:
        inode = os.stat(path).st_ino
    except OSError:
        inode = 0
    if _writer.get("key") == (path, inode, os.getpid()):
        return _writer["db"]
    if _writer:
        if _writer["key"][2] == os.getpid():
            _writer["db"].close()
        else:
            _inherited.append(_writer["db"])
        _writer.clear()
    db = connect(path)
    _writer.update(db=db, key=(path, os.stat(path).st_ino, os.getpid()))
    return db


def _read(act, path: str | None, now: float | None, default):
    """What act(db, milliseconds) returns, from one look that changes nothing; default where there is no file, or one without our tables."""
    import sqlite3

    path = path or os.path.join(paths.where("state"), "state.db")
    if not os.path.lexists(path):
        return default
    try:
        db = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, timeout=BUSY_MS / 1000, isolation_level=None)
        try:
            db.execute("BEGIN")
            return act(db, _ms(now)) if db.execute("PRAGMA user_version").fetchone()[0] >= VERSION else default
        finally:
            db.close()
    except sqlite3.Error as bad:
        raise storage(bad, path) from None


def _ms(now: float | None) -> int:
    return time.time_ns() // 1_000_000 if now is None else round(now * 1000)


def _ahead(until: int | None, span: int, at: int) -> int:
    """Milliseconds to a deadline, 0 where it is past: also one that is further ahead than the `span` it was set for."""
    left = 0 if until is None else until - at
    return left if 0 < left <= span + SLACK else 0


def _span(seconds, most: int) -> int:
    """Seconds as somebody else gave them, in milliseconds from 0 to `most`."""
    return int(min(seconds * 1000, most)) if seconds is not None and seconds > 0 else 0


def _said(ms: int) -> str:
    """A time as records hold it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms // 1000)) + f".{ms % 1000:03d}Z"


def _day(ms: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(ms // 1000))


# ---- keys ----


def mark(key: str | None, path: str | None = None) -> str:
    """8 hex digits that tell this key from others, "-" for None. Without the salt, which stays in state.db, they say nothing of it."""
    return "-" if key is None else _write(lambda db, at: _marked(db, key), path, None)


def known(key: str | None, path: str | None = None) -> str | None:
    """As mark(), for those that only read: None where no salt was made yet; then there is no breaker either."""
    return "-" if key is None else _read(lambda db, at: _marked(db, key), path, None, None)


def _marked(db, key: str) -> str:
    from hashlib import blake2b

    salt = db.execute("SELECT salt FROM salts").fetchone()[0]
    return blake2b(key.encode("utf-8", "surrogatepass"), key=salt, digest_size=4).hexdigest()


# ---- breakers ----


def breaker(name: str, *, now: float | None = None, path: str | None = None) -> Breaker:
    """How a breaker stands. until: of the time it is open for, or of the probe; reason: of the last failure, at ts."""
    return _read(lambda db, at: _breaker(db, name, at), path, now, Breaker())


def enter(name: str, seconds: float, id: str = "", *, now: float | None = None, path: str | None = None) -> str:  # noqa: A002
    """"" where the call may be made, else why not. Where the breaker's time is over, the caller holds the one probe for `seconds`.

    id: of the call; it says good() or bad() by the same one.
    """

    def act(db, at):
        why, _ = _barred(db, name, at)
        if not why:
            _probe(db, name, seconds, id, at)
        return why

    return _write(act, path, now)


def good(name: str, id: str = "", *, now: float | None = None, path: str | None = None) -> None:  # noqa: A002
    """The call was answered. While a breaker is not closed only the word of the probe counts."""
    _write(lambda db, at: _good(db, name, id), path, now)


def bad(name: str, kind: str, reason: str, id: str = "", *, now: float | None = None, path: str | None = None) -> bool:  # noqa: A002
    """The call failed; kind: the class of its error record. True where this opened the breaker.

    Transient failures count, a credential that was refused opens it at once. A provider that refuses one call is well. Of any other kind (unknown,
    cancelled) is said nothing, only a probe is given back. What a call says that began before the breaker opened comes too late.
    """
    return _write(lambda db, at: _bad(db, name, kind, reason, id, at), path, now)


def _breaker(db, name: str, at: int) -> Breaker:
    row = db.execute("SELECT failures, until, span, probe, lease, reason, at FROM breakers WHERE name = ?", (name,)).fetchone()
    if row is None:
        return Breaker()
    failures, until, span, probe, lease, reason, when = row
    if until is None:
        return Breaker("closed", None, failures, reason, _said(when))
    if _ahead(until, span, at):
        return Breaker("open", _said(until), failures, reason, _said(when))
    return Breaker("half", _said(probe) if _ahead(probe, lease, at) else None, failures, reason, _said(when))


def _barred(db, name: str, at: int) -> tuple[str, int]:
    """Why a breaker lets no call through, "" where it does, and for how many milliseconds."""
    row = db.execute("SELECT failures, until, span, probe, lease, reason FROM breakers WHERE name = ? AND until IS NOT NULL", (name,)).fetchone()
    if row is None:
        return "", 0
    failures, until, span, probe, lease, reason = row
    if left := _ahead(until, span, at):
        return f"its breaker is open until {_said(until)} after {failures} failure{'s' * (failures != 1)}: {reason}", left
    if left := _ahead(probe, lease, at):
        return f"its breaker is tried by another call, until {_said(probe)} at the latest: {reason}", left
    return "", 0


def _probe(db, name: str, seconds: float, own: str, at: int) -> None:
    lease = _span(seconds, DAY)
    db.execute("UPDATE breakers SET probe = ?, lease = ?, holder = ? WHERE name = ? AND until IS NOT NULL", (at + lease, lease, own, name))


def _good(db, name: str, own: str) -> None:
    db.execute(
        "UPDATE breakers SET failures = 0, until = NULL, probe = NULL, holder = NULL WHERE name = ?"
        " AND (until IS NULL AND failures > 0 OR until IS NOT NULL AND holder = ?)",
        (name, own),
    )


def _bad(db, name: str, kind: str, reason: str, own: str, at: int) -> bool:
    if not kind or kind in ANSWERED:
        _good(db, name, own)
        return False
    row = db.execute("SELECT failures, until, span, holder FROM breakers WHERE name = ?", (name,)).fetchone()
    failures, until, span, holder = row or (0, None, 0, None)
    failures += 1
    # Not the same: the clock may have been set back to before the probe.
    opened, shut = not _ahead(until, span, at), True
    if kind == "credential":
        span = LONGEST
    elif kind not in TRANSIENT:
        db.execute("UPDATE breakers SET probe = NULL, holder = NULL WHERE name = ? AND holder = ?", (name, own))
        return False
    elif until is None:
        span = FIRST
        opened = shut = failures >= FAILURES
    elif holder == own:
        span = min(span * 2, LONGEST)
    else:
        return False
    until = at + span if shut else None
    db.execute("INSERT OR REPLACE INTO breakers VALUES (?, ?, ?, ?, NULL, 0, NULL, ?, ?)", (name, failures, until, span, shown(reason)[:400], at))
    return opened


# ---- rates ----


def take(provider: dict, tokens: int, *, now: float | None = None, path: str | None = None) -> float:
    """Seconds to wait; 0.0 where a request with so many tokens was taken from this minute.

    provider: of the spec, with `requests` and `tokens` a minute where it limits them. What told() and hold() said holds too. A request that is larger
    than all of a minute's tokens has the minute to itself.
    """

    def act(db, at):
        wait = _wait(db, provider, tokens, at)
        if not wait:
            _take(db, provider, tokens, at)
        return wait / 1000

    return _write(act, path, now)


def told(name: str, limits: dict, *, now: float | None = None, path: str | None = None) -> None:
    """Keeps what the headers of a provider's answer said: requests_left, requests_reset (seconds from now), tokens_left, tokens_reset."""
    _write(lambda db, at: _told(db, name, limits, at, at), path, now)


def hold(name: str, seconds: float, *, now: float | None = None, path: str | None = None) -> None:
    """Nobody asks this provider before so many seconds are over, a day at most."""
    _write(lambda db, at: _hold(db, name, seconds, at), path, now)


def _wait(db, provider: dict, tokens: int, at: int) -> int:
    """Milliseconds until a request with so many tokens fits."""
    name, longest = provider["name"], 0
    for what, left, until, span in db.execute('SELECT what, "left", until, span FROM quotas WHERE provider = ?', (name,)):
        if left < (tokens if what == "tokens" else 1):
            longest = max(longest, _ahead(until, span, at))
    second = at // 1000
    # A second of the future is one from before the clock was set back.
    question = "SELECT requests, tokens, second FROM rates WHERE provider = ? AND second BETWEEN ? AND ? ORDER BY second"
    rows = db.execute(question, (name, second - MINUTE + 1, second + 1)).fetchall()
    for place, what, need in ((0, "requests", 1), (1, "tokens", tokens)):
        if (limit := provider.get(what)) is None:
            continue
        if limit < 1:
            longest = max(longest, MINUTE * 1000)
        over = sum(row[place] for row in rows) + need - limit
        for row in rows:
            if over <= 0:
                break
            over -= row[place]
            longest = max(longest, (row[2] + MINUTE) * 1000 - at)
    return longest


def _take(db, provider: dict, tokens: int, at: int) -> None:
    name, second = provider["name"], at // 1000
    if provider.get("requests") is not None or provider.get("tokens") is not None:
        db.execute("DELETE FROM rates WHERE second NOT BETWEEN ? AND ?", (second - MINUTE + 1, second + 1))
        add = "ON CONFLICT DO UPDATE SET requests = requests + 1, tokens = tokens + excluded.tokens"
        db.execute(f"INSERT INTO rates VALUES (?, ?, 1, ?) {add}", (name, second, _count(tokens)))
    db.execute("""UPDATE quotas SET "left" = max("left" - iif(what = 'tokens', ?, 1), 0) WHERE provider = ?""", (_count(tokens), name))


def _told(db, name: str, limits: dict, asked: int, at: int) -> None:
    """asked: when the call began. Its answer knows of no call that began later, so those are taken from what it says is left."""
    later = db.execute("SELECT count(*), total(tokens) FROM reservations WHERE provider = ? AND at > ? AND at <= ?", (name, asked, at)).fetchone()
    for what, taken in zip(("requests", "tokens"), later, strict=True):
        if (left := limits.get(f"{what}_left")) is None:
            continue
        reset = limits.get(f"{what}_reset")
        span = _span(60 if reset is None else reset, DAY)
        row = db.execute("SELECT until, span, asked FROM quotas WHERE provider = ? AND what = ?", (name, what)).fetchone()
        if row and _ahead(row[0], row[1], at) and asked < row[2] <= at + SLACK:
            continue  # a call that began later has said more
        left = max(int(min(left, MOST)) - int(taken), 0)
        db.execute("INSERT OR REPLACE INTO quotas VALUES (?, ?, ?, ?, ?, ?)", (name, what, left, at + span, span, asked))


def _hold(db, name: str, seconds: float, at: int) -> None:
    row = db.execute("SELECT until, span FROM quotas WHERE provider = ? AND what = 'hold'", (name,)).fetchone()
    span = _span(seconds, DAY)
    if span > (_ahead(row[0], row[1], at) if row else 0):
        db.execute("INSERT OR REPLACE INTO quotas VALUES (?, 'hold', 0, ?, ?, ?)", (name, at + span, span, at))


# ---- budgets ----


def reserve(id: str, budgets, spend: dict, *, now: float | None = None, path: str | None = None) -> dict | None:  # noqa: A002
    """None where the largest possible cost of a call was reserved, else the budget that it would overrun. On the disk when it returns.

    id: of this one try. spend: provider, model, agent, calls, tokens, and amount and currency where it has a price. Who is not known to cost
    nothing, or costs another currency, overruns each budget of money that covers it.
    """

    def act(db, at):
        over = _overrun(db, budgets, spend, at)
        if over is None:
            _reserve(db, id, spend, at)
        return over

    return _write(act, path, now, sync=_covered(budgets, spend))


def settle(id: str, spend: dict, *, now: float | None = None, path: str | None = None) -> None:  # noqa: A002
    """What the call was in the end; of calls, tokens or amount that it does not say stays what was reserved. The second time does nothing."""
    # No wait for the disk: what a power cut undoes here counts as spent in full.
    _write(lambda db, at: _settle(db, id, spend), path, now)


def release(id: str, *, now: float | None = None, path: str | None = None) -> None:  # noqa: A002
    """It was never sent: what was reserved is free again, and a probe is given back. What was taken of the minute is not."""

    def act(db, at):
        db.execute("DELETE FROM reservations WHERE id = ?", (id,))
        db.execute("UPDATE breakers SET probe = NULL, holder = NULL WHERE holder = ?", (id,))

    _write(act, path, now)


def spent(budget: dict, *, now: float | None = None, path: str | None = None):
    """How much of a budget is used now, with what is reserved."""
    return _shown(budget, _read(lambda db, at: _used(db, budget, at), path, now, 0))


def overrun(budgets, spend: dict, *, now: float | None = None, path: str | None = None) -> dict | None:
    """The budget that reserve() would say, for those that reserve nothing."""
    return _read(lambda db, at: _overrun(db, budgets, spend, at), path, now, _overrun(None, budgets, spend, 0))


def _shown(budget: dict, used: int):
    return used if budget["unit"] in ("calls", "tokens") else round(used / BILLION, 9)


def _covers(budget: dict, spend: dict) -> bool:
    return all(budget.get(part) in (None, spend.get(part)) for part in ("provider", "model", "agent"))


def _covered(budgets, spend: dict) -> bool:
    return any(_covers(budget, spend) for budget in budgets)


def _billionths(amount) -> int:
    return round(min(max(amount, 0), MOST // BILLION) * BILLION)


def _money(spend: dict) -> int | None:
    """The amount of a spend in billionths, None where it has no price."""
    amount = spend.get("amount")
    return None if amount is None or amount != amount else _billionths(amount)


def _count(number) -> int:
    return min(max(int(number or 0), 0), MOST)


def _overrun(db, budgets, spend: dict, at: int) -> dict | None:
    for budget in budgets:
        if not _covers(budget, spend):
            continue
        value, need = budget["value"], None
        if budget["unit"] in ("calls", "tokens"):
            need = _count(spend.get(budget["unit"], 1 if budget["unit"] == "calls" else 0))
        else:
            value, money = _billionths(value), _money(spend)
            if money == 0 or money is not None and spend.get("currency") == budget["unit"]:
                need = money
        # What costs nothing may go on where others spent too much.
        if need is None or need and _used(db, budget, at) + need > value:
            return budget
    return None


def _used(db, budget: dict, at: int) -> int:
    """What is used of a budget: calls, tokens, or billionths of its currency. Nothing, where there is no database."""
    if db is None:
        return 0
    what, day = budget["unit"] if budget["unit"] in ("calls", "tokens") else "amount", _day(at)
    first, last = (day, day) if budget["per"] == "day" else (f"{day[:7]}-01", f"{day[:7]}-31")
    where, values = ["day BETWEEN ? AND ?"], [first, last]
    filters = [(part, budget.get(part)) for part in ("provider", "model", "agent")] + ([("currency", budget["unit"])] if what == "amount" else [])
    for part, wanted in filters:
        if wanted is not None:
            where.append(f"{part} = ?")
            values.append(wanted)
    both = (f"SELECT {what} FROM {table} WHERE {' AND '.join(where)}" for table in ("spends", "reservations"))
    # total() and not sum(): it knows no overflow.
    return int(db.execute(f"SELECT total({what}) FROM ({' UNION ALL '.join(both)})", values * 2).fetchone()[0])


def _reserve(db, own: str, spend: dict, at: int) -> None:
    _sweep(db, own, at)
    who = [spend.get(part) or "" for part in ("provider", "model", "agent")]
    much = _count(spend.get("calls", 1)), _count(spend.get("tokens")), _money(spend) or 0
    db.execute("INSERT INTO reservations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (own, at, _day(at), *who, spend.get("currency") or "", *much))


def _settle(db, own: str, spend: dict | None) -> None:
    row = db.execute("DELETE FROM reservations WHERE id = ? RETURNING day, provider, model, agent, currency, calls, tokens, amount", (own,)).fetchone()
    if row is None:
        return
    *who, currency, calls, tokens, amount = row
    spend = spend or {}
    if (money := _money(spend)) is not None:
        amount, currency = money, spend.get("currency") or currency
    calls, tokens = (_count(given) if (given := spend.get(what)) is not None else kept for what, kept in (("calls", calls), ("tokens", tokens)))
    _book(db, (*who, currency, calls, tokens, amount))


def _book(db, row) -> None:
    db.execute(
        "INSERT INTO spends VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE"
        " SET calls = calls + excluded.calls, tokens = tokens + excluded.tokens, amount = amount + excluded.amount",
        row,
    )


def _sweep(db, own: str, at: int) -> None:
    """Books what will not be settled any more, or stands there under this id, as spent in full; and drops what is too old to matter."""
    gone = "FROM reservations WHERE id = ? OR at < ? OR at > ?"
    values = (own, at - DAY, at + DAY)
    rows = db.execute(f"SELECT day, provider, model, agent, currency, calls, tokens, amount {gone}", values).fetchall()
    if rows:
        for row in rows:
            _book(db, row)
        db.execute(f"DELETE {gone}", values)
    db.execute("DELETE FROM spends WHERE day < ? OR day > ?", (_day(at - KEPT), _day(at + KEPT)))
    db.execute("DELETE FROM breakers WHERE at NOT BETWEEN ? AND ?", (at - KEPT, at + KEPT))


# ---- the network ----


def seen(name: str, up: bool, reason: str = "", *, now: float | None = None, path: str | None = None) -> bool:
    """Keeps that a provider can be reached, or not. True where this is news: to one process only. That the first one can be reached is none."""
    return _write(lambda db, at: _seen(db, name, up, reason, at), path, now)


def net(name: str, *, now: float | None = None, path: str | None = None) -> tuple[bool | None, float, str]:
    """(whether a provider can be reached, None where that is not known or older than 30 s; how many seconds ago it was seen; why it could not)."""
    return _read(lambda db, at: _net(db, name, at), path, now, (None, float("inf"), ""))


def _seen(db, name: str, up: bool, reason: str, at: int) -> bool:
    row = db.execute("SELECT up FROM nets WHERE name = ?", (name,)).fetchone()
    db.execute("INSERT OR REPLACE INTO nets VALUES (?, ?, ?, ?)", (name, up, "" if up else shown(reason)[:400], at))
    return bool(row[0] if row else True) != up


def _net(db, name: str, at: int) -> tuple[bool | None, float, str]:
    row = db.execute("SELECT up, at, reason FROM nets WHERE name = ?", (name,)).fetchone()
    if row is None:
        return None, float("inf"), ""
    up, when, reason = row
    age = abs(at - when)
    return (bool(up) if age <= FRESH else None), age / 1000, reason


# ---- a call as a whole ----


def begin(
    name: str, provider: dict, budgets, spend: dict, id: str, seconds: float, tokens: int, *, now: float | None = None, path: str | None = None  # noqa: A002
) -> Standing:  # fmt: skip
    """enter(), take() and reserve() in one transaction: nothing is taken unless all three give way. Whoever may go has to say end() or release().

    name: of the breaker; provider: of the spec; id: of this one try; seconds: what it may take at most; tokens: what is taken of the minute.
    """

    def act(db, at):
        why, wait = _barred(db, name, at)
        wait = max(wait, _wait(db, provider, tokens, at))
        over = _overrun(db, budgets, spend, at)
        if not (why or wait or over):
            _probe(db, name, seconds, id, at)
            _take(db, provider, tokens, at)
            _reserve(db, id, spend, at)
        return Standing(why, wait / 1000, over)

    return _write(act, path, now, sync=_covered(budgets, spend))


def end(
    name: str, id: str, spend: dict | None, kind: str = "", reason: str = "", limits: dict | None = None,  # noqa: A002
    *, retry_after: float | None = None, up: bool | None = None, now: float | None = None, path: str | None = None,
) -> Ending:  # fmt: skip
    """good() or bad(), settle(), told(), hold() and seen() in one transaction.

    kind: "" for an answer, else as in bad(). spend: None where nobody knows: then what was reserved counts. retry_after: above 60 s it holds for
    all. up: whether the provider was reached; None: not where its kind is `network`, nobody knows where it is `timeout` or anything unknown.
    """

    def act(db, at):
        vendor = name.partition("/")[0]
        row = db.execute("SELECT at FROM reservations WHERE id = ?", (id,)).fetchone()
        opened = _bad(db, name, kind, reason, id, at)
        _settle(db, id, spend)
        if limits:
            _told(db, vendor, limits, row[0] if row else at, at)
        if retry_after is not None and retry_after > 60:
            _hold(db, vendor, retry_after, at)
        reached = up
        if reached is None and (not kind or kind in ANSWERED or kind in ("rate", "credential", "network")):
            reached = kind != "network"
        return Ending(opened, reached is not None and _seen(db, vendor, reached, reason, at), reached)

    return _write(act, path, now)


def standings(names, budgets=(), *, now: float | None = None, path: str | None = None) -> tuple[dict, dict]:
    """({name of a breaker: fields}, {name of a budget: fields}) from one look that takes nothing; the fields are such as a record can hold.

    Of a breaker: breaker (closed open half), until, failures, reason; of its provider: up and age (where known), wait (seconds, as far as the
    provider said), requests_left, tokens_left. Of a budget: used, value, unit, per. A name that ends in "/" is for those who know no key: of the
    breakers of all its keys the one that changed last.
    """

    def act(db, at):
        return {name: _stands(db, name, at) for name in names}, {budget["name"]: _budget(budget, _used(db, budget, at)) for budget in budgets}

    nothing = {name: {"breaker": "closed"} for name in names}, {budget["name"]: _budget(budget, 0) for budget in budgets}
    return _read(act, path, now, nothing)


def about(provider: dict, *, now: float | None = None, path: str | None = None) -> dict:
    """How a provider of the spec stands as a whole, from one look that takes nothing: the fields of standings() but for those of one breaker, and
    `breakers`: {model: Breaker} of those that are not closed or count failures; with several keys the worst.

    requests_left, tokens_left: of this minute, by the spec or by what the provider said, whichever is less.
    """

    def act(db, at):
        name, second = provider["name"], at // 1000
        made = _stands(db, f"{name}/", at)
        made.pop("breaker")
        question = "SELECT total(requests), total(tokens) FROM rates WHERE provider = ? AND second BETWEEN ? AND ?"
        used = db.execute(question, (name, second - MINUTE + 1, second + 1)).fetchone()
        for what, count in zip(("requests", "tokens"), used, strict=True):
            if (limit := provider.get(what)) is not None:
                made[f"{what}_left"] = min(max(limit - int(count), 0), made.get(f"{what}_left", MOST))
        found: dict = {}
        for (own,) in db.execute("SELECT name FROM breakers WHERE substr(name, 1, ?) = ? ORDER BY name", (len(name) + 1, f"{name}/")):
            model, one = own[len(name) + 1 :].rpartition("/")[0], _breaker(db, own, at)
            worse = model not in found or (one.state != "closed", one.until or "", one.failures) > (
                found[model].state != "closed", found[model].until or "", found[model].failures
            )  # fmt: skip
            if worse and (one.failures or one.state != "closed"):
                found[model] = one
        return made | {"breakers": found}

    limited = {f"{what}_left": provider[what] for what in ("requests", "tokens") if what in provider}
    return _read(act, path, now, limited | {"breakers": {}})


def _budget(budget: dict, used: int) -> dict:
    return {"used": _shown(budget, used), "value": budget["value"], "unit": budget["unit"], "per": budget["per"]}


def _stands(db, name: str, at: int) -> dict:
    vendor = name.partition("/")[0]
    own = _breaker(db, _latest(db, name) if name.endswith("/") else name, at)
    made = {"breaker": own.state, "until": own.until, "failures": own.failures or None, "reason": own.reason or None}
    up, age, _ = _net(db, vendor, at)
    if up is not None:
        made |= {"up": up, "age": age}
    for what, left, until, span in db.execute('SELECT what, "left", until, span FROM quotas WHERE provider = ? ORDER BY what', (vendor,)):
        if ahead := _ahead(until, span, at):
            made |= {f"{what}_left": left} if what != "hold" else {}
            made |= {"wait": max(ahead / 1000, made.get("wait", 0))} if not left else {}
    return {key: value for key, value in made.items() if value is not None}


def _latest(db, start: str) -> str:
    # "0" follows "/"; and names of models may have a "/" of their own.
    question = "SELECT name FROM breakers WHERE name > ? AND name < ? AND instr(substr(name, ?), '/') = 0 ORDER BY at DESC LIMIT 1"
    row = db.execute(question, (start, start[:-1] + "0", len(start) + 1)).fetchone()
    return row[0] if row else start
