"""What a policy keeps of things that have a name and a time: segments, backups. Pure; what `now` is, the caller says. See ftai-rotate(1), Retention."""

import time

from .errors import TEMPFAIL, Failure

AHEAD = 30  # days that the clock may be ahead of the newest record
# A rule -> what it calls the time that it keeps one of.
PERIODS = {"keep_daily": "day", "keep_weekly": "week", "keep_monthly": "month"}
RULES = ("keep_last", *PERIODS, "keep_within")


def chosen(items: list[tuple], policy: dict | None, now: str) -> list[tuple]:
    """[(name, keep, why)] in the order of `items`, which are (name, instant in RFC 3339); the newest is never let go.

    policy: an entry of the memory spec. keep_last: so many of the newest; keep_daily, keep_weekly, keep_monthly: the newest of each of the
    last so many days, weeks and months that have one, in the local time zone; keep_within: all of the last so many days. What one rule keeps is kept.
    A policy without any such number, or with one that is no number from 0, keeps all; so is kept what has no readable time.
    """
    rules = {rule: (policy or {}).get(rule, 0) for rule in RULES}
    if any(type(value) not in (int, float) or not value >= 0 for value in rules.values()):
        return [(name, True, "the policy cannot be read") for name, _ in items]
    if not any(rules.values()):
        return [(name, True, "the policy is empty") for name, _ in items]
    whys: dict[int, list[str]] = {n: [] for n in range(len(items))}
    times = {n: seconds(instant) for n, (_, instant) in enumerate(items)}
    newest = sorted((n for n in whys if times[n] is not None), key=lambda n: (times[n], n), reverse=True)
    last = max(int(rules["keep_last"]), 1)
    for n in newest[:last]:
        whys[n].append(f"one of the last {last}" if last > 1 else "the last one")
    for rule, period in PERIODS.items():
        seen: set[str] = set()
        for n in newest:
            name = _period(period, times[n])
            if name not in seen and len(seen) < rules[rule]:
                seen.add(name)
                whys[n].append(f"the last one of the {period} {name}")
    present = seconds(now)
    for n in newest:
        if rules["keep_within"] and (present is None or times[n] >= present - rules["keep_within"] * 86400):  # type: ignore[operator]
            whys[n].append(f"of the last {rules['keep_within']} days")
    return [
        (name, times[n] is None or bool(whys[n]), "its time cannot be read" if times[n] is None else ", ".join(whys[n]) or "no rule keeps it")
        for n, (name, _) in enumerate(items)
    ]


def clock(now: str, newest: str) -> None:
    """Raises Failure 75 where the clock (`now`) is before the time of the newest record, or more than 30 days ahead of it; newest "": there is none.

    A clock that was set wrong would make all that is kept look old.
    """
    if not newest:
        return
    present, then = seconds(now), seconds(newest)
    if present is None or then is None:
        wrong = f"the time of the newest record, '{newest}', cannot be read"
    elif present < then:
        wrong = f"the clock says {now}, before the newest record of {newest}"
    elif present > then + AHEAD * 86400:
        wrong = f"the clock says {now}, more than {AHEAD} days after the newest record of {newest}"
    else:
        return
    raise Failure(f"nothing is removed: {wrong}", TEMPFAIL, "date, and if that is right, run it again when something was journaled")


def steady(times: list[str], now: str) -> None:
    """Raises Failure 75 where the times of the journal's records, in its order, leap ahead by more than 30 days, and go on for less than a day since:
    then nobody can know yet whether the clock was set wrong, or is right again. What is later than `now` is of a clock that was wrong before.
    """
    present, top, leap = seconds(now), None, None
    for then in map(seconds, times):
        if then is None or present is None or then > present:
            continue
        if top is not None and then > top + AHEAD * 86400:
            leap = then
        top = then if top is None else max(top, then)
    if leap is not None and top is not None and top < leap + 86400:
        raise Failure("nothing is removed: the clock leapt ahead by more than a month, less than a day ago", TEMPFAIL, "date, and if that is right, wait a day")


def seconds(instant) -> float | None:
    """Seconds since 1970 of a time in RFC 3339, None where it is none."""
    import datetime

    try:
        found = datetime.datetime.fromisoformat(instant)
        return found.timestamp() if found.tzinfo else None
    except (ValueError, TypeError, OverflowError):
        return None


def day(moment: float):
    """The date in the local time zone at so many seconds since 1970."""
    import datetime

    return datetime.date(*time.localtime(moment)[:3])


def _period(period: str, moment: float | None) -> str:
    date = day(moment or 0)
    if period == "week":
        year, week, _ = date.isocalendar()
        return f"{year}-W{week:02d}"
    return date.isoformat() if period == "day" else date.isoformat()[:7]
