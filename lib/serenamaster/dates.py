"""Days and times in plain English words, as people put them into a question or a task. Pure: what `now` is, the caller says.

Days are those of the zone of `now`, whatever the clocks do in them. Weeks begin on Monday. `next friday` is the Friday of next week,
`friday` the next one to come (for a time that is past: the last one, today included).
"""

import os
import re

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen") + (
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
)
TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50}
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh", "twelfth")
# Minutes, days or months in one of them: which of the three, the code that adds them knows.
UNITS = {"minute": 1, "min": 1, "hour": 60, "day": 1, "week": 7, "fortnight": 14, "month": 1, "year": 12}
# Hours from and to which a part of the day goes, and the hour at which what is due in it is due.
PARTS = {"morning": (0, 12, 9), "afternoon": (12, 18, 15), "evening": (18, 24, 18), "night": (18, 24, 20)}

ISO = re.compile(r"([12][0-9]{3})-([0-9]{1,2})-([0-9]{1,2})\Z")
DOTTED = re.compile(r"([0-9]{1,2})\.([0-9]{1,2})\.([12][0-9]{3})?\Z")
CLOCK = re.compile(r"([0-9]{1,2})(?:[:.]([0-9]{2}))?(am|pm)?\Z")
NTH = re.compile(r"([0-9]{1,2})(?:st|nd|rd|th)\Z")


def now_in(name=None):
    """The time now in the zone of this name, an aware datetime; None is the machine's own zone, an unknown one is UTC."""
    import datetime

    return datetime.datetime.now(zone(name))


def zone(name=None):
    """The tzinfo of an IANA name; None: what TZ or the machine says. UTC where there is none of that name."""
    import datetime
    import zoneinfo

    if name is None:
        name = os.environ.get("TZ", "").lstrip(":")
        if not name:
            # A fixed offset, as the C library gives it, would be wrong on the other side of a change of the clocks.
            try:
                with open("/etc/localtime", "rb") as file:
                    return zoneinfo.ZoneInfo.from_file(file)
            except (OSError, ValueError):
                return datetime.UTC
    try:
        return zoneinfo.ZoneInfo(name)
    except (KeyError, ValueError, OSError, TypeError):
        return datetime.UTC


# -- From words to dates --------------------------------------------------------------------------------------------------------------


def _tokens(words: str) -> list[str]:
    out = []
    for word in words.lower().replace("\u2019", "'").split():
        word = word.strip(",;!?()\"'")
        # The point at the end of a sentence; in `25.12.` it belongs to the date.
        if word.endswith(".") and not DOTTED.match(word):
            word = word[:-1]
        word = {"o'clock": "oclock", "a.m": "am", "p.m": "pm"}.get(word, word)
        out.append(word)
    return out


def _at(tok: list[str], i: int, *words: str) -> bool:
    return tok[i : i + len(words)] == list(words)


def _number(tok, i):
    """(number, index behind it) of digits or words at `i`, or None."""
    if i >= len(tok):
        return None
    word = tok[i]
    if word.isascii() and word.isdigit() and len(word) < 6:
        return int(word), i + 1
    if word in NUMBERS:
        return NUMBERS.index(word), i + 1
    if word in ("a", "an"):
        return 1, i + 1
    if _at(tok, i, "couple", "of") or word == "couple":
        return 2, i + (2 if _at(tok, i, "couple", "of") else 1)
    tens, _, one = word.partition("-")
    if tens in TENS:
        if one in NUMBERS[1:10]:
            return TENS[tens] + NUMBERS.index(one), i + 1
        if not one and i + 1 < len(tok) and tok[i + 1] in NUMBERS[1:10]:
            return TENS[tens] + NUMBERS.index(tok[i + 1]), i + 2
        if not one:
            return TENS[tens], i + 1
    return None


def _amount(tok, i):
    """(number, unit, index behind) of `3 days`, `an hour`, `half an hour`, `a couple of weeks`; None."""
    if _at(tok, i, "half", "an", "hour"):
        return 30, "minute", i + 3
    if _at(tok, i, "a", "couple"):
        i += 1
    found = _number(tok, i)
    if not found:
        return None
    number, i = found
    unit = tok[i] if i < len(tok) else ""
    unit = unit[:-1] if unit.endswith("s") else unit
    if unit not in UNITS:
        return None
    i += 1
    if unit == "hour" and _at(tok, i, "and", "a", "half"):
        return number * 60 + 30, "minute", i + 3
    return number, unit, i


def _date(year, month, day):
    import datetime

    try:
        return datetime.date(year, month, day)
    except (ValueError, OverflowError):
        return None


def _add(day, number, unit):
    """`day` so many days, weeks, months or years on; the last day of a month that is too short. None where the calendar ends."""
    import datetime

    try:
        if unit in ("day", "week", "fortnight"):
            return day + datetime.timedelta(days=number * UNITS[unit])
        months = day.year * 12 + day.month - 1 + number * UNITS[unit]
        for last in (day.day, 30, 29, 28):
            if last <= day.day and (found := _date(months // 12, months % 12 + 1, last)):
                return found
    except OverflowError:
        pass
    return None


def _month(word):
    if word in MONTHS:
        return MONTHS.index(word) + 1
    short = word.rstrip(".")
    if short == "sept":
        return 9
    return next((n for n, name in enumerate(MONTHS, 1) if short == name[:3] and short != "may"), None)


def _weekday(word):
    short = {"tues": "tue", "weds": "wed", "thur": "thu", "thurs": "thu"}.get(word, word)
    return next((n for n, name in enumerate(DAYS) if short in (name, name[:3])), None)


def _year(tok, i):
    word = tok[i] if i < len(tok) else ""
    return (int(word), i + 1) if len(word) == 4 and word.isascii() and word.isdigit() and "1900" <= word < "2200" else (None, i)


def _which(word) -> int:
    """The number of `25`, `25th`, `first`; 0 for none."""
    if found := NTH.match(word) or re.fullmatch("([0-9]{1,2})", word):
        return int(found[1])
    return ORDINALS.index(word) + 1 if word in ORDINALS else 0


def _yearless(month, day, today, past):
    """This day of the year: the next to come, or for the past the last one; a 29 February waits for its year."""
    step = -1 if past else 1
    for year in range(today.year - step, today.year + 9 * step, step):
        found = _date(year, month, day)
        if found and (found <= today if past else found >= today):
            return found
    return None


def _calendar(tok, i, today, past):
    """(date, index behind) of a date of the calendar at `i`: 2026-11-23, 23.11.2026, 23 november, november 23rd 2026, the 23rd; None."""
    word = tok[i] if i < len(tok) else ""
    if found := ISO.match(word):
        day = _date(*map(int, found.groups()))
        return (day, i + 1) if day else None
    if found := DOTTED.match(word):
        few, which = int(found[1]), int(found[2])
        day = _date(int(found[3]), which, few) if found[3] else _yearless(which, few, today, past)
        return (day, i + 1) if day else None
    # From here on the day or the month may come first; the year is optional.
    the = word == "the"
    j = i + the
    word = tok[j] if j < len(tok) else ""
    number = _which(word)
    if number:
        k = j + 1 + _at(tok, j + 1, "of")
        month = _month(tok[k]) if k < len(tok) else None
        if month:
            year, k = _year(tok, k + 1)
        elif the and NTH.match(word):
            # `the 25th`: of this month or of the next (the last) that has one.
            step = -1 if past else 1
            for months in range(0, 3 * step, step):
                where = today.year * 12 + today.month - 1 + months
                day = _date(where // 12, where % 12 + 1, number)
                if day and (day <= today if past else day >= today):
                    return day, j + 1
            return None
        else:
            return None
    elif month := _month(word):
        number = _which(tok[j + 1]) if j + 1 < len(tok) else 0
        if not number:
            return None
        year, k = _year(tok, j + 2)
    else:
        return None
    day = _date(year, month, number) if year else _yearless(month, number, today, past)
    return (day, k) if day else None


def _day(tok, i, today, past=False):
    """(date, index behind) of a day at `i`, or None."""
    word = tok[i] if i < len(tok) else ""
    for words, number in (
        (("today",), 0),
        (("tomorrow",), 1),
        (("yesterday",), -1),
        (("the", "day", "after", "tomorrow"), 2),
        (("day", "after", "tomorrow"), 2),
        (("the", "day", "before", "yesterday"), -2),
        (("day", "before", "yesterday"), -2),
    ):
        if _at(tok, i, *words):
            return _add(today, number, "day"), i + len(words)
    which = word if word in ("next", "this", "last", "coming", "past") else ""
    j = i + bool(which)
    weekday = _weekday(tok[j]) if j < len(tok) else None
    if weekday is not None:
        ahead = (weekday - today.weekday()) % 7
        # People differ on `next friday` said on a Wednesday; the Friday of next week is what most calendars take it for.
        if which == "next":
            number = 7 - today.weekday() + weekday
        elif which in ("last", "past"):
            number = ahead - 7
        elif past:
            number = ahead - 7 if ahead else 0
        else:
            number = ahead or (0 if which == "this" else 7)
        return _add(today, number, "day"), j + 1
    return _calendar(tok, i, today, past)


def _time(tok, i):
    """(hour, minute, sure, index behind) of a time of day at `i`; sure: false for a bare `5`, which may be either half of the day. None."""
    at = _at(tok, i, "at")
    i += at
    word = tok[i] if i < len(tok) else ""
    if word in ("noon", "midday"):
        return 12, 0, True, i + 1
    if word == "midnight":
        return 24, 0, True, i + 1
    if word in ("half", "quarter") or _at(tok, i, "a", "quarter"):
        j = i + 1 + (word == "a")
        if j < len(tok) and (tok[j] == "past" or (tok[j] == "to" and word != "half")) and (found := _number(tok, j + 1)) and 1 <= found[0] <= 12:
            minutes = (found[0] * 60 + (30 if word == "half" else 15 if tok[j] == "past" else -15)) % 720
            hour, k = minutes // 60, found[1]
            if k < len(tok) and tok[k] in ("am", "pm"):
                return hour % 12 + 12 * (tok[k] == "pm"), minutes % 60, True, k + 1
            return hour or 12, minutes % 60, False, k
        return None
    if found := CLOCK.match(word):
        hour, minute, half, j = int(found[1]), int(found[2] or 0), found[3], i + 1
        exact = found[2] is not None
    elif (spelled := _number(tok, i)) and word not in ("a", "an", "couple"):
        (hour, j), minute, half, exact = spelled, 0, None, False
    else:
        return None
    oclock = _at(tok, j, "oclock")
    j += oclock
    if not half and j < len(tok) and tok[j] in ("am", "pm"):
        half, j = tok[j], j + 1
    part = tok[j + 2] if _at(tok, j, "in", "the") and j + 2 < len(tok) else "evening" if _at(tok, j, "at", "night") else ""
    named = at or half or oclock or ":" in word or part in PARTS
    if minute > 59 or hour > 24 or (hour == 24 and minute) or (half and not 1 <= hour <= 12) or not named:
        return None
    if half:
        return hour % 12 + 12 * (half == "pm"), minute, True, j
    if part in PARTS and hour <= 12:
        return hour % 12 + 12 * (part != "morning"), minute, True, j + (2 if tok[j] == "at" else 3)
    # `at 9` leaves the half of the day open; `at 09:00`, `at 17` and `at 12` do not.
    return hour, minute, hour >= 12 or hour == 0 or (exact and word[0] == "0"), j


def _moment(day, hour, minute, tz):
    """The aware datetime of a wall clock; hour may be 24. A time that the clocks leave out is the one that follows it."""
    import datetime

    if hour >= 24:
        day, hour = _add(day, 1, "day"), 0
        if day is None:
            return None
    wall = datetime.datetime(day.year, day.month, day.day, hour, minute, tzinfo=tz)
    try:
        return wall.astimezone(datetime.UTC).astimezone(tz)
    except (OverflowError, ValueError):
        return wall


def _later(now, minutes):
    """`now` so many minutes on: real ones, also over a change of the clocks."""
    import datetime

    try:
        return (now.astimezone(datetime.UTC) + datetime.timedelta(minutes=minutes)).astimezone(now.tzinfo)
    except (OverflowError, ValueError):
        return None


# -- When something is due ------------------------------------------------------------------------------------------------------------


def due(words: str, now):
    """(when, the other words) for words that say when something is due: `2026-11-23`, or `2026-11-23T17:00:00+01:00` with a time; or None.

    They stand at the end (`send the invoice tomorrow`), at the beginning (`tomorrow at 5pm call Ann`), or within, where they leave no doubt.
    now: an aware datetime, whose zone counts.
    """
    given = words.split()
    tok = _tokens(words)
    if "every" in tok or "each" in tok:
        return None  # what comes again and again is no date
    # The longest end that is a date as a whole: from the left, the first that reaches it.
    for i in range(len(tok)):
        found = _due(tok, i, now)
        if found and found[1] == len(tok):
            return _iso(found[0]), " ".join(given[:i]).rstrip(" ,;:")
    found = _due(tok, 0, now)
    if found:
        return _iso(found[0]), " ".join(given[found[1] :]).lstrip(" ,;:")
    for i in range(1, len(tok)):
        # `the friday report` has no date: within a sentence it takes a preposition or a word that can be nothing else.
        if tok[i] in ("on", "by", "at", "before", "until", "in", "today", "tomorrow", "tonight", "next") or ISO.match(tok[i]):
            found = _due(tok, i, now)
            if found:
                return _iso(found[0]), " ".join(given[:i] + given[found[1] :])
    return None


def _iso(when) -> str:
    return when.isoformat(timespec="seconds") if hasattr(when, "hour") else when.isoformat()


def _due(tok, i, now):
    """(date or datetime, index behind) of the words at `i`, or None."""
    start = i
    while i < len(tok) and tok[i] in ("due", "by", "on", "before", "until", "till", "for"):
        i += 1
    today = now.date()
    amount = None
    if _at(tok, i, "in") or _at(tok, i, "within"):
        amount = _amount(tok, i + 1)
    elif (amount := _amount(tok, i)) and (_at(tok, amount[2], "from", "now") or _at(tok, amount[2], "from", "today")):
        amount = (amount[0], amount[1], amount[2] + 2)
    else:
        amount = None
    if amount:
        number, unit, j = amount
        if unit in ("minute", "min", "hour"):
            when = _later(now, number * UNITS[unit])
            return (when.replace(second=0, microsecond=0), j) if when else None
        return _with_time(tok, j, _add(today, number, unit), now)
    for words, day in (
        (("next", "week"), lambda: _add(today, 7 - today.weekday(), "day")),
        (("next", "month"), lambda: _add(today.replace(day=1), 1, "month")),
        (("next", "year"), lambda: _date(today.year + 1, 1, 1)),
        (("this", "weekend"), lambda: _add(today, max(5 - today.weekday(), 0), "day")),
        (("the", "weekend"), lambda: _add(today, max(5 - today.weekday(), 0), "day")),
        (("next", "weekend"), lambda: _add(today, 12 - today.weekday(), "day")),
        (("end", "of", "day"), lambda: today),
        (("end", "of", "week"), lambda: _add(today, (4 - today.weekday()) % 7, "day")),
        (("end", "of", "month"), lambda: _add(_add(today.replace(day=1), 1, "month"), -1, "day")),
        (("end", "of", "year"), lambda: _date(today.year, 12, 31)),
    ):
        j = i + (_at(tok, i, "the") and words[0] == "end") + (_at(tok, i, "at", "the") and words[0] == "end") * 2
        here = [word for word in tok[j : j + 4] if word not in ("the", "this")] if words[0] == "end" else tok[j : j + len(words)]
        if here[: len(words)] == list(words):
            behind = j + len(words) + (words[0] == "end" and j + 2 < len(tok) and tok[j + 2] in ("the", "this"))
            return _with_time(tok, behind, day(), now)
    if found := _part(tok, i, today):
        day, part, j = found
        when = _moment(day, PARTS[part][2], 0, now.tzinfo)
        named = _time(tok, j)
        if named:
            hour = named[0] + 12 if not named[2] and part != "morning" and named[0] < 12 else named[0]
            when, j = _moment(day, hour, named[1], now.tzinfo), named[3]
        return (when, j) if when else None
    if found := _day(tok, i, today):
        # A bare short name is too often something else: `sat`, `sun`, `may 3`.
        if i == start and tok[i] in ("sat", "sun", "mon", "wed"):
            return None
        return _with_time(tok, found[1], found[0], now)
    if clock := _time(tok, i):
        hour, minute, sure, j = clock
        while j < len(tok) and tok[j] in ("on", "by"):
            j += 1
        if part := _part(tok, j, today):
            hour = hour + 12 if not sure and part[1] != "morning" and hour < 12 else hour
            when = _moment(part[0], hour, minute, now.tzinfo)
            return (when, part[2]) if when else None
        if found := _day(tok, j, today):
            when = _moment(found[0], _likely(hour, sure), minute, now.tzinfo)
            return (when, found[1]) if when else None
        # The next time that the clock shows this.
        for day in (today, _add(today, 1, "day")):
            for half in (0,) if sure or hour > 12 else (0, 12):
                when = _moment(day, hour % 12 + half if not sure and hour <= 12 else hour, minute, now.tzinfo) if day else None
                if when and when > now:
                    return when, clock[3]
    return None


def _likely(hour, sure):
    """The hour that is meant by a bare number with a day: 1 to 6 are in the afternoon."""
    return hour + 12 if not sure and 1 <= hour <= 6 else hour


def _with_time(tok, j, day, now):
    if day is None:
        return None
    clock = _time(tok, j)
    if clock:
        when = _moment(day, _likely(clock[0], clock[2]), clock[1], now.tzinfo)
        return (when, clock[3]) if when else None
    return day, j


def _part(tok, i, today, past=False):
    """(day, part of the day, index behind) of `tonight`, `this evening`, `tomorrow morning`, `friday night`; None."""
    if _at(tok, i, "tonight"):
        return today, "night", i + 1
    if _at(tok, i, "this") and i + 1 < len(tok) and tok[i + 1] in PARTS:
        return today, tok[i + 1], i + 2
    found = _day(tok, i, today, past)
    if found and found[0] and found[1] < len(tok) and tok[found[1]] in PARTS:
        return found[0], tok[found[1]], found[1] + 1
    return None


# -- A span of the past ---------------------------------------------------------------------------------------------------------------


def span(words: str, now, *, ahead: bool = False):
    """(start, end) as aware datetimes for words that name a time, the end not included; None where they name none.

    `friday` is the last one, today included; ahead: the next one, today included (`what is due on friday`).
    `last 3 days` begins with the day three days ago; `since` goes to the end of today, `until monday` includes the Monday. A time of
    RFC 3339 starts and ends at that instant. now: an aware datetime, whose zone counts.
    """
    import datetime

    tok = _tokens(words)
    # `within the last week`, `over the weekend`: these words say nothing that the rest does not.
    while tok and tok[0] in ("in", "on", "during", "within", "over", "at", "of", "for"):
        tok = tok[1:]
    if not tok:
        return None
    tz, today = now.tzinfo, now.date()
    first = tok[0]
    if first in ("since", "after", "from", "between"):
        for number in range(2, len(tok) - 1):
            if first in ("from", "between") and tok[number] in ("to", "until", "till", "and", "through"):
                left, right = _span(tok[1:number], now, ahead), _span(tok[number + 1 :], now, ahead)
                return (left[0], right[1]) if left and right and left[0] <= right[1] else None
        found = _span(tok[1:], now, ahead)
        tomorrow = _add(today, 1, "day")
        return (found[1 if first == "after" else 0], _moment(tomorrow, 0, 0, tz)) if found and first != "between" and tomorrow else None
    if first in ("until", "till", "before", "by"):
        found = _span(tok[1:], now, ahead)
        return (datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC), found[0 if first == "before" else 1]) if found else None
    return _span(tok, now, ahead)


def _span(tok, now, ahead):
    import datetime

    tz, today = now.tzinfo, now.date()
    while tok and tok[0] in ("on", "in", "at"):
        tok = tok[1:]
    if not tok:
        return None

    def days(start, end):
        """From the beginning of one day to the beginning of another."""
        return (_moment(start, 0, 0, tz), _moment(end, 0, 0, tz)) if start and end else None

    bare = tok[1:] if tok[0] == "the" else tok  # but `the 25th` is a day only with its article
    if tok == ["now"]:
        return now, now
    if bare in (["last", "night"], ["yesterday", "night"]):
        return _moment(_add(today, -1, "day"), 18, 0, tz), _moment(today, 6, 0, tz)
    if len(bare) >= 2 and bare[0] in ("last", "past", "previous", "this", "current", "next"):
        which = bare[0]
        amount = _amount(bare, 1)
        if amount and amount[2] == len(bare) and which in ("last", "past", "previous"):
            number, unit, _ = amount
            return _back(number, unit, now, days)
        unit = bare[1]
        if len(bare) == 2 and unit in ("minute", "hour", "day", "weekend", "week", "month", "year", "fortnight"):
            if which == "past" or unit in ("minute", "hour", "fortnight") or (unit == "day" and which != "this"):
                return _back(1, unit, now, days) if which in ("last", "past", "previous") and unit != "weekend" else None
            step = {"this": 0, "current": 0, "next": 1}.get(which, -1)
            if unit == "weekend":
                saturday = _add(today, 5 - today.weekday() + 7 * step, "day")
                return days(saturday, _add(saturday, 2, "day")) if saturday else None
            start = _begin(today, unit)
            start = _add(start, step, unit) if start else None
            return days(start, _add(start, 1, unit)) if start else None
    if bare == ["weekend"]:
        saturday = _add(today, 5 - today.weekday() - (0 if ahead or today.weekday() > 4 else 7), "day")
        return days(saturday, _add(saturday, 2, "day")) if saturday else None
    amount = _amount(tok, 0)
    if amount and tok[amount[2] :] == ["ago"]:
        number, unit, _ = amount
        if unit in ("minute", "min", "hour"):
            start = _later(now, -number * UNITS[unit])
            return (start, now) if start else None
        start = _add(today, -number, unit)
        start = _begin(start, unit) if start else None
        return days(start, _add(start, 1, "week" if unit == "fortnight" else unit)) if start else None
    if found := _part(tok, 0, today, past=not ahead):
        day, part, j = found
        low, high, _ = PARTS[part]
        return (_moment(day, low, 0, tz), _moment(day, high, 0, tz)) if j == len(tok) else None
    if (found := _day(tok, 0, today, past=not ahead)) and found[0]:
        day, j = found
        if ahead and tok[0] in DAYS and day.weekday() == today.weekday():
            day = today
        if j == len(tok):
            return days(day, _add(day, 1, "day"))
        clock = _time(tok, j)
        if clock and clock[3] == len(tok):
            start = _moment(day, _likely(clock[0], clock[2]), clock[1], tz)
            return (start, _later(start, 60)) if start else None
        return None
    # A bare number is no time here: `13` may be anything.
    clock = _time(tok if tok[0] == "at" else ["at", *tok], 0)
    if clock and clock[3] == len(tok) + (tok[0] != "at") and not re.fullmatch("[0-9]+", tok[-1]):
        start = _moment(today, clock[0], clock[1], tz)
        return (start, _later(start, 60)) if start else None
    return _wide(tok, now, days) or _instant(tok, tz, datetime)


def _begin(day, unit):
    """The first day of the week, month or year that `day` is in; a day is its own."""
    if unit in ("week", "fortnight"):
        return _add(day, -day.weekday(), "day")
    return day.replace(day=1) if unit == "month" else day.replace(month=1, day=1) if unit == "year" else day


def _back(number, unit, now, days):
    if unit in ("minute", "min", "hour"):
        start = _later(now, -number * UNITS[unit])
        return (start, now) if start else None
    return days(_add(now.date(), -number, unit), _add(now.date(), 1, "day"))


def _wide(tok, now, days):
    """A month or a year: `november`, `november 2025`, `2025-11`, `2025`; a month without year is the last one that has begun."""
    word = tok[0]
    month = _month(word)
    # A month that is still to come this year is last year's: a span is mostly of the past.
    if month and len(tok) <= 2:
        year, j = _year(tok, 1)
        if j != len(tok):
            return None
        year = year or now.year - (month > now.month)
    elif len(tok) > 1:
        return None
    elif found := re.fullmatch("([12][0-9]{3})-([0-9]{1,2})", word):
        year, month = int(found[1]), int(found[2])
    else:
        year, _ = _year(tok, 0)
        if not year:
            return None
    start = _date(year, month or 1, 1)
    return days(start, _add(start, 1, "month" if month else "year")) if start else None


def _instant(tok, tz, datetime):
    text = "T".join(tok).upper() if len(tok) <= 2 else ""
    if not re.match("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:?[0-9]{2}", text):
        return None
    try:
        when = datetime.datetime.fromisoformat(text)
        when = when if when.tzinfo else when.replace(tzinfo=tz)
        when.astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        return None
    return when, when


# -- From dates to words --------------------------------------------------------------------------------------------------------------


def spoken(iso: str, now) -> str:
    """A date or time as people say it: `Monday 23 November`, with the year where it is another, with `at 17:00` where it has a time.

    now: an aware datetime, in whose zone it is said. What is no date comes back as it is.
    """
    import datetime

    try:
        if len(iso) == 10:
            day, clock = datetime.date.fromisoformat(iso), ""
        else:
            when = datetime.datetime.fromisoformat(iso)
            when = when.astimezone(now.tzinfo) if when.tzinfo else when
            day, clock = when.date(), f" at {when:%H:%M}"
    except (ValueError, OverflowError, TypeError):
        return str(iso)
    year = "" if day.year == now.year else f" {day.year}"
    return f"{DAYS[day.weekday()].capitalize()} {day.day} {MONTHS[day.month - 1].capitalize()}{year}{clock}"
