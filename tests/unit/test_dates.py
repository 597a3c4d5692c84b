"""Days and times in words, against tables: what people say, where the clocks change, and at the ends of months and years."""

import datetime
import zoneinfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serenamaster import dates

ZURICH = zoneinfo.ZoneInfo("Europe/Zurich")
# A Sunday, 14:25.
SUNDAY = datetime.datetime(2026, 11, 22, 14, 25, tzinfo=ZURICH)
WEDNESDAY = datetime.datetime(2026, 11, 25, 9, 0, tzinfo=ZURICH)
FRIDAY = datetime.datetime(2026, 11, 27, 9, 0, tzinfo=ZURICH)


def at(year, month, day, hour=0, minute=0, tz=ZURICH):
    return datetime.datetime(year, month, day, hour, minute, tzinfo=tz)


# -- due --

DAYS = [
    ("today", "2026-11-22"),
    ("tomorrow", "2026-11-23"),
    ("Tomorrow.", "2026-11-23"),
    ("the day after tomorrow", "2026-11-24"),
    ("day after tomorrow", "2026-11-24"),
    ("monday", "2026-11-23"),
    ("on monday", "2026-11-23"),
    ("by friday", "2026-11-27"),
    ("sunday", "2026-11-29"),
    ("this sunday", "2026-11-22"),
    ("next sunday", "2026-11-29"),
    ("next monday", "2026-11-23"),
    ("next friday", "2026-11-27"),
    ("in 3 days", "2026-11-25"),
    ("in three days", "2026-11-25"),
    ("in a week", "2026-11-29"),
    ("in two weeks", "2026-12-06"),
    ("in a couple of weeks", "2026-12-06"),
    ("in a fortnight", "2026-12-06"),
    ("3 weeks from now", "2026-12-13"),
    ("in a month", "2026-12-22"),
    ("in a year", "2027-11-22"),
    ("in twenty-five days", "2026-12-17"),
    ("in twenty five days", "2026-12-17"),
    ("next week", "2026-11-23"),
    ("next month", "2026-12-01"),
    ("next year", "2027-01-01"),
    ("this weekend", "2026-11-22"),
    ("next weekend", "2026-11-28"),
    ("end of the month", "2026-11-30"),
    ("by the end of the month", "2026-11-30"),
    ("at the end of the year", "2026-12-31"),
    ("end of week", "2026-11-27"),
    ("2026-12-01", "2026-12-01"),
    ("on 2026-12-01", "2026-12-01"),
    ("25.12.", "2026-12-25"),
    ("25.12.2027", "2027-12-25"),
    ("25 december", "2026-12-25"),
    ("25th of december", "2026-12-25"),
    ("december 25", "2026-12-25"),
    ("Dec 25th, 2027", "2027-12-25"),
    ("on the first of january", "2027-01-01"),
    ("may 3", "2027-05-03"),
    ("the 25th", "2026-11-25"),
    ("on the 21st", "2026-12-21"),
    ("on the 31st", "2026-12-31"),
    ("29 february", "2028-02-29"),
    ("22 november", "2026-11-22"),
]
CLOCKS = [
    ("at 5pm", "2026-11-22T17:00:00+01:00"),
    ("at 5 pm", "2026-11-22T17:00:00+01:00"),
    ("5 p.m.", "2026-11-22T17:00:00+01:00"),
    ("at 17:30", "2026-11-22T17:30:00+01:00"),
    ("at 5.30pm", "2026-11-22T17:30:00+01:00"),
    ("at 10am", "2026-11-23T10:00:00+01:00"),
    ("at 9", "2026-11-22T21:00:00+01:00"),
    ("at nine", "2026-11-22T21:00:00+01:00"),
    ("at 2", "2026-11-23T02:00:00+01:00"),
    ("at 3 o'clock", "2026-11-22T15:00:00+01:00"),
    ("at 12", "2026-11-23T12:00:00+01:00"),
    ("at 12am", "2026-11-23T00:00:00+01:00"),
    ("at 12pm", "2026-11-23T12:00:00+01:00"),
    ("at noon", "2026-11-23T12:00:00+01:00"),
    ("at midnight", "2026-11-23T00:00:00+01:00"),
    ("at half past 4", "2026-11-22T16:30:00+01:00"),
    ("quarter to six", "2026-11-22T17:45:00+01:00"),
    ("at a quarter past 11 pm", "2026-11-22T23:15:00+01:00"),
    ("9 in the evening", "2026-11-22T21:00:00+01:00"),
    ("at 9 in the morning", "2026-11-23T09:00:00+01:00"),
    ("monday at 9", "2026-11-23T09:00:00+01:00"),
    ("monday at 3", "2026-11-23T15:00:00+01:00"),
    ("tomorrow at 5pm", "2026-11-23T17:00:00+01:00"),
    ("at 5pm tomorrow", "2026-11-23T17:00:00+01:00"),
    ("5pm on friday", "2026-11-27T17:00:00+01:00"),
    ("noon tomorrow", "2026-11-23T12:00:00+01:00"),
    ("tomorrow morning", "2026-11-23T09:00:00+01:00"),
    ("tomorrow afternoon", "2026-11-23T15:00:00+01:00"),
    ("friday night", "2026-11-27T20:00:00+01:00"),
    ("on monday evening at 7", "2026-11-23T19:00:00+01:00"),
    ("this evening", "2026-11-22T18:00:00+01:00"),
    ("tonight", "2026-11-22T20:00:00+01:00"),
    ("in 2 hours", "2026-11-22T16:25:00+01:00"),
    ("in two hours", "2026-11-22T16:25:00+01:00"),
    ("in an hour", "2026-11-22T15:25:00+01:00"),
    ("in half an hour", "2026-11-22T14:55:00+01:00"),
    ("in an hour and a half", "2026-11-22T15:55:00+01:00"),
    ("in 20 minutes", "2026-11-22T14:45:00+01:00"),
    ("an hour from now", "2026-11-22T15:25:00+01:00"),
    ("2026-12-01 at 08:00", "2026-12-01T08:00:00+01:00"),
]


@pytest.mark.parametrize("words, iso", DAYS + CLOCKS)
def test_due(words, iso):
    assert dates.due(words, SUNDAY) == (iso, "")


@pytest.mark.parametrize(
    "words, rest, iso",
    [
        ("send the invoice tomorrow", "send the invoice", "2026-11-23"),
        ("Send the Invoice, on Friday.", "Send the Invoice", "2026-11-27"),
        ("tomorrow at 5pm call Ann", "call Ann", "2026-11-23T17:00:00+01:00"),
        ("call Bob tomorrow about the invoice", "call Bob about the invoice", "2026-11-23"),
        ("pay 3 bills in 3 days", "pay 3 bills", "2026-11-25"),
        ("call Bob on friday at half past 4", "call Bob", "2026-11-27T16:30:00+01:00"),
        ("water the plants at 7 in the evening", "water the plants", "2026-11-22T19:00:00+01:00"),
    ],
)
def test_due_leaves_the_other_words(words, rest, iso):
    assert dates.due(words, SUNDAY) == (iso, rest)


@pytest.mark.parametrize(
    "words",
    ["", "send the invoice", "read the friday report", "buy 3 eggs", "I may go", "march", "the end of the world", "every friday", "on the second", "2026-13-01"]
    + [
        "30 february",
        "at 25",
        "at 9:75",
        "at 13pm",
        "in days",
        "in 3",
        "in 99999 years",
        "sat",
        "0000-00-00",
        "at",
        "the",
        "on",
        "5",
        "half past",
        "32 december",
    ],
)
def test_no_date(words):
    assert dates.due(words, SUNDAY) is None


@pytest.mark.parametrize(
    "words, now, iso",
    [
        ("next friday", FRIDAY, "2026-12-04"),
        ("friday", FRIDAY, "2026-12-04"),
        ("on friday", FRIDAY, "2026-12-04"),
        ("this friday", FRIDAY, "2026-11-27"),
        ("next friday", WEDNESDAY, "2026-12-04"),
        ("friday", WEDNESDAY, "2026-11-27"),
        ("next monday", WEDNESDAY, "2026-11-30"),
        ("tomorrow", at(2026, 12, 31, 23, 59), "2027-01-01"),
        ("in 2 hours", at(2026, 12, 31, 23, 0), "2027-01-01T01:00:00+01:00"),
        ("next month", at(2026, 12, 31), "2027-01-01"),
        ("in a month", at(2027, 1, 31), "2027-02-28"),
        ("in a month", at(2028, 1, 31), "2028-02-29"),
        ("in a year", at(2028, 2, 29), "2029-02-28"),
        ("end of the month", at(2028, 2, 1), "2028-02-29"),
        ("1 january", at(2026, 12, 31), "2027-01-01"),
        ("at 9", at(2026, 11, 22, 8, 0), "2026-11-22T09:00:00+01:00"),
        ("at 9", at(2026, 11, 22, 22, 0), "2026-11-23T09:00:00+01:00"),
    ],
)
def test_due_depends_on_the_day(words, now, iso):
    assert dates.due(words, now) == (iso, "")


@pytest.mark.parametrize(
    "words, now, iso",
    [
        # 29 March 2026: 02:00 is 03:00. An hour from 01:30 is 03:30; half past two does not exist.
        ("in an hour", at(2026, 3, 29, 1, 30), "2026-03-29T03:30:00+02:00"),
        ("tomorrow at 02:30", at(2026, 3, 28, 12), "2026-03-29T03:30:00+02:00"),
        ("tomorrow at noon", at(2026, 3, 28, 12), "2026-03-29T12:00:00+02:00"),
        # 25 October 2026: 02:00 to 03:00 comes twice; half past two is the first one.
        ("in an hour", at(2026, 10, 25, 1, 30), "2026-10-25T02:30:00+02:00"),
        ("in 2 hours", at(2026, 10, 25, 1, 30), "2026-10-25T02:30:00+01:00"),
        ("tomorrow at 02:30", at(2026, 10, 24, 12), "2026-10-25T02:30:00+02:00"),
        ("in 24 hours", at(2026, 10, 24, 12), "2026-10-25T11:00:00+01:00"),
    ],
)
def test_due_where_the_clocks_change(words, now, iso):
    assert dates.due(words, now) == (iso, "")


# -- span --

SPANS = [
    ("today", (2026, 11, 22), (2026, 11, 23)),
    ("yesterday", (2026, 11, 21), (2026, 11, 22)),
    ("the day before yesterday", (2026, 11, 20), (2026, 11, 21)),
    ("tomorrow", (2026, 11, 23), (2026, 11, 24)),
    ("monday", (2026, 11, 16), (2026, 11, 17)),
    ("on friday", (2026, 11, 20), (2026, 11, 21)),
    ("sunday", (2026, 11, 22), (2026, 11, 23)),
    ("last sunday", (2026, 11, 15), (2026, 11, 16)),
    ("last friday", (2026, 11, 20), (2026, 11, 21)),
    ("since monday", (2026, 11, 16), (2026, 11, 23)),
    ("since sunday", (2026, 11, 22), (2026, 11, 23)),
    ("since yesterday", (2026, 11, 21), (2026, 11, 23)),
    ("since last week", (2026, 11, 9), (2026, 11, 23)),
    ("after friday", (2026, 11, 21), (2026, 11, 23)),
    ("this week", (2026, 11, 16), (2026, 11, 23)),
    ("last week", (2026, 11, 9), (2026, 11, 16)),
    ("last weekend", (2026, 11, 14), (2026, 11, 16)),
    ("the weekend", (2026, 11, 21), (2026, 11, 23)),
    ("last month", (2026, 10, 1), (2026, 11, 1)),
    ("this month", (2026, 11, 1), (2026, 12, 1)),
    ("last year", (2025, 1, 1), (2026, 1, 1)),
    ("this year", (2026, 1, 1), (2027, 1, 1)),
    ("last 3 days", (2026, 11, 19), (2026, 11, 23)),
    ("in the last three days", (2026, 11, 19), (2026, 11, 23)),
    ("past two weeks", (2026, 11, 8), (2026, 11, 23)),
    ("the past week", (2026, 11, 15), (2026, 11, 23)),
    ("the last 24 hours", (2026, 11, 21, 14, 25), (2026, 11, 22, 14, 25)),
    ("an hour ago", (2026, 11, 22, 13, 25), (2026, 11, 22, 14, 25)),
    ("3 days ago", (2026, 11, 19), (2026, 11, 20)),
    ("two weeks ago", (2026, 11, 2), (2026, 11, 9)),
    ("a month ago", (2026, 10, 1), (2026, 11, 1)),
    ("2026-11-01", (2026, 11, 1), (2026, 11, 2)),
    ("2026-11", (2026, 11, 1), (2026, 12, 1)),
    ("2025", (2025, 1, 1), (2026, 1, 1)),
    ("november", (2026, 11, 1), (2026, 12, 1)),
    ("december", (2025, 12, 1), (2026, 1, 1)),
    ("in october 2025", (2025, 10, 1), (2025, 11, 1)),
    ("may", (2026, 5, 1), (2026, 6, 1)),
    ("25 december", (2025, 12, 25), (2025, 12, 26)),
    ("december 25 2024", (2024, 12, 25), (2024, 12, 26)),
    ("1.11.2026", (2026, 11, 1), (2026, 11, 2)),
    ("29 february", (2024, 2, 29), (2024, 3, 1)),
    ("since the 3rd", (2026, 11, 3), (2026, 11, 23)),
    ("this morning", (2026, 11, 22), (2026, 11, 22, 12)),
    ("yesterday evening", (2026, 11, 21, 18), (2026, 11, 22)),
    ("last night", (2026, 11, 21, 18), (2026, 11, 22, 6)),
    ("since 9am", (2026, 11, 22, 9), (2026, 11, 23)),
    ("monday at 9", (2026, 11, 16, 9), (2026, 11, 16, 10)),
    ("between monday and wednesday", (2026, 11, 16), (2026, 11, 19)),
    ("from 2026-11-01 to 2026-11-05", (2026, 11, 1), (2026, 11, 6)),
    ("2026-11-01T10:00:00+01:00", (2026, 11, 1, 10), (2026, 11, 1, 10)),
    ("2026-11-01T09:00:00Z", (2026, 11, 1, 10), (2026, 11, 1, 10)),
    ("2026-11-01T10:00:00", (2026, 11, 1, 10), (2026, 11, 1, 10)),
    ("now", (2026, 11, 22, 14, 25), (2026, 11, 22, 14, 25)),
]


@pytest.mark.parametrize("words, start, end", SPANS)
def test_span(words, start, end):
    assert dates.span(words, SUNDAY) == (at(*start), at(*end))


@pytest.mark.parametrize("words, end", [("until friday", (2026, 11, 21)), ("before friday", (2026, 11, 20)), ("until 2026-11-05", (2026, 11, 6))])
def test_span_without_beginning(words, end):
    start, seen = dates.span(words, SUNDAY)
    assert start.year == 1970
    assert seen == at(*end)


@pytest.mark.parametrize(
    "words, start, end",
    [("friday", (2026, 11, 27), (2026, 11, 28)), ("sunday", (2026, 11, 22), (2026, 11, 23)), ("25 december", (2026, 12, 25), (2026, 12, 26))]
    + [("next week", (2026, 11, 23), (2026, 11, 30)), ("the weekend", (2026, 11, 21), (2026, 11, 23)), ("tomorrow", (2026, 11, 23), (2026, 11, 24))],
)
def test_span_ahead(words, start, end):
    assert dates.span(words, SUNDAY, ahead=True) == (at(*start), at(*end))


@pytest.mark.parametrize(
    "words",
    [
        "",
        "garbage",
        "since",
        "between",
        "between monday",
        "since garbage",
        "last",
        "last 99999 years",
        "0000-00-00",
        "monday invoice",
        "13",
        "the",
        "ago",
        "3 ago",
    ]
    + ["between friday and monday garbage", "from wednesday to monday 2020", "2026-02-30", "1" * 5000, "in " * 5000],
)
def test_no_span(words):
    assert dates.span(words, SUNDAY) is None


@pytest.mark.parametrize(
    "words, now, hours",
    [
        ("today", at(2026, 3, 29, 12), 23),
        ("yesterday", at(2026, 3, 30, 12), 23),
        ("today", at(2026, 10, 25, 12), 25),
        ("yesterday", at(2026, 10, 26, 12), 25),
        ("last week", at(2026, 11, 1, 12), 7 * 24 + 1),
        ("the last 24 hours", at(2026, 3, 29, 12), 24),
    ],
)
def test_days_are_as_long_as_they_are(words, now, hours):
    start, end = (when.astimezone(datetime.UTC) for when in dates.span(words, now))
    assert (end - start) == datetime.timedelta(hours=hours)


def test_a_day_that_begins_at_one():
    """In São Paulo the clocks went from 00:00 to 01:00."""
    now = at(2018, 11, 4, 12, tz=zoneinfo.ZoneInfo("America/Sao_Paulo"))
    start, end = dates.span("today", now)
    assert start.isoformat() == "2018-11-04T01:00:00-02:00"
    assert end.isoformat() == "2018-11-05T00:00:00-02:00"


@pytest.mark.parametrize("zone, day", [("Pacific/Auckland", "2026-11-23"), ("America/Los_Angeles", "2026-11-22"), ("Pacific/Kiritimati", "2026-11-23")])
def test_today_is_a_day_of_the_zone(zone, day):
    now = SUNDAY.astimezone(zoneinfo.ZoneInfo(zone))
    assert dates.due("today", now)[0] == day
    assert dates.span("today", now)[0].date().isoformat() == day


# -- now_in and spoken --


@pytest.mark.parametrize("name", ["Nowhere/Atall", "../../etc/passwd", "/etc/passwd", "", ".", "Europe", "x" * 5000, "a\0b", 7, ["UTC"], "\ud800"])
def test_an_unknown_zone_is_utc(name):
    assert dates.now_in(name).utcoffset() == datetime.timedelta(0)


def test_zones_have_their_time():
    assert dates.now_in("Asia/Tokyo").utcoffset() == datetime.timedelta(hours=9)


def test_without_a_name_it_is_the_machines_zone(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert dates.now_in().utcoffset() == datetime.timedelta(hours=9)
    monkeypatch.setenv("TZ", ":Nowhere")
    assert dates.now_in().utcoffset() == datetime.timedelta(0)
    monkeypatch.delenv("TZ")
    assert dates.now_in().tzinfo is not None


@pytest.mark.parametrize(
    "iso, words",
    [
        ("2026-11-23", "Monday 23 November"),
        ("2027-01-04", "Monday 4 January 2027"),
        ("2026-11-23T17:00:00+01:00", "Monday 23 November at 17:00"),
        ("2026-11-23T16:00:00Z", "Monday 23 November at 17:00"),
        ("2026-12-31T23:30:00Z", "Friday 1 January 2027 at 00:30"),
        ("soon", "soon"),
        ("2026-02-30", "2026-02-30"),
        ("", ""),
    ],
)
def test_spoken(iso, words):
    assert dates.spoken(iso, SUNDAY) == words


VOCABULARY = (
    "a an the at on in by next last this past since until between and to from of ago 3 25th 25.12. 2026-11-22 9999-12-31 0001-01-01 99999"
    " monday friday today tomorrow yesterday tonight morning week weekend month year days hours minutes half quarter noon midnight 5pm 17:00"
    " am may december end day"
)
spoken_words = st.sampled_from(VOCABULARY.split())
zones = st.sampled_from(["UTC", "Europe/Zurich", "America/Sao_Paulo", "Africa/Casablanca", "Australia/Lord_Howe", "Asia/Kathmandu"]).map(zoneinfo.ZoneInfo)
moments = st.datetimes(datetime.datetime(1970, 1, 2), datetime.datetime(9999, 12, 30), timezones=zones)


@given(st.lists(spoken_words | st.text(max_size=5), max_size=8).map(" ".join), moments)
def test_no_words_break_it(words, now):
    found = dates.due(words, now)
    if found:
        assert datetime.datetime.fromisoformat(found[0])
        assert set(found[1].split()) <= set(words.split()) | {word.rstrip(",;:") for word in words.split()} | {word.lstrip(",;:") for word in words.split()}
        assert dates.spoken(found[0], now)
    for ahead in (False, True):
        found = dates.span(words, now, ahead=ahead)
        if found:
            assert found[0].tzinfo and found[1].tzinfo
