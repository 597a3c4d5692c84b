"""Retention: what a policy keeps, said once more in another way, and what it may never do."""

import datetime
import os
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from serenamaster import retention
from serenamaster.errors import Failure

NOW = "2026-11-26T12:00:00.000Z"
END = datetime.datetime(2026, 11, 26, 12, tzinfo=datetime.UTC)


@pytest.fixture
def zone(monkeypatch):
    def put(name):
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield put
    monkeypatch.undo()
    time.tzset()


def instant(minutes: int) -> str:
    """So many minutes before NOW."""
    return (END - datetime.timedelta(minutes=minutes)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def kept(items, **policy) -> list:
    return [name for name, keep, _ in retention.chosen(items, policy, NOW) if keep]


def days(*ago):
    """Items named for how many days ago they are."""
    return [(n, instant(n * 1440)) for n in ago]


TIMES = st.lists(st.integers(0, 200_000), max_size=60)
POLICIES = st.fixed_dictionaries({}, optional={rule: st.integers(0, 12) for rule in retention.RULES})


def expected(minutes: list[int], policy: dict) -> set[int]:
    """The places of what is kept: rule by rule, from the words of the page."""
    if not any(policy.values()):
        return set(range(len(minutes)))
    moments = [END - datetime.timedelta(minutes=ago) for ago in minutes]
    order = sorted(range(len(minutes)), key=lambda n: (moments[n], n))
    keep = set(order[-max(policy.get("keep_last", 0), 1) :])
    for rule, form in (("keep_daily", "%Y-%m-%d"), ("keep_weekly", "%G-%V"), ("keep_monthly", "%Y-%m")):
        newest = {moments[n].strftime(form): n for n in order}  # a later one takes the place
        names = sorted(newest, reverse=True)[: policy.get(rule, 0)]
        keep |= {newest[name] for name in names}
    if policy.get("keep_within"):
        keep |= {n for n in order if END - moments[n] <= datetime.timedelta(days=policy["keep_within"])}
    return keep


@given(TIMES, POLICIES)
@example([0, 0, 0], {"keep_last": 2})
@example([1440 * 7, 1440 * 14], {"keep_weekly": 1})
def test_each_rule_keeps_what_the_page_says(minutes, policy):
    items = [(n, instant(ago)) for n, ago in enumerate(minutes)]
    assert set(kept(items, **policy)) == expected(minutes, policy)


@given(TIMES.filter(bool), POLICIES)
def test_the_newest_and_the_last_n_are_never_removed(minutes, policy):
    items = [(n, instant(ago)) for n, ago in enumerate(minutes)]
    order = sorted(range(len(minutes)), key=lambda n: (-minutes[n], n))
    assert set(order[-max(policy.get("keep_last", 0), 1) :]) <= set(kept(items, **policy))


@given(TIMES, POLICIES, st.sampled_from(retention.RULES))
def test_a_greater_number_never_keeps_less(minutes, policy, rule):
    items = [(n, instant(ago)) for n, ago in enumerate(minutes)]
    if any(policy.values()):
        assert set(kept(items, **policy)) <= set(kept(items, **policy | {rule: policy.get(rule, 0) + 1}))


@given(TIMES, POLICIES)
def test_what_was_kept_is_kept_again(minutes, policy):
    """Removing and looking again removes nothing more: a run a day does not eat its way through."""
    items = [(n, instant(ago)) for n, ago in enumerate(minutes)]
    once = kept(items, **policy)
    assert kept([item for item in items if item[0] in once], **policy) == once


@given(TIMES, POLICIES, st.randoms())
def test_the_order_they_come_in_counts_only_where_times_are_equal(minutes, policy, chance):
    items = [(ago, instant(ago)) for ago in set(minutes)]
    mixed = list(items)
    chance.shuffle(mixed)
    assert [name for name, _, _ in retention.chosen(mixed, policy, NOW)] == [name for name, _ in mixed]
    assert set(kept(mixed, **policy)) == set(kept(items, **policy))


def test_the_shipped_rules_as_a_calendar():
    items = days(*range(100))
    assert kept(items, keep_last=3) == [0, 1, 2]
    assert kept(items, keep_daily=5) == [0, 1, 2, 3, 4]
    # NOW is a Thursday: the Sundays before it.
    assert kept(items, keep_weekly=3) == [0, 4, 11]
    assert kept(items, keep_monthly=3) == [0, 26, 57]
    assert kept(items, keep_within=2) == [0, 1, 2]
    assert kept(items, keep_last=1, keep_weekly=2, keep_monthly=2) == [0, 4, 26]


def test_days_that_have_none_are_not_counted():
    assert kept(days(0, 10, 20, 30), keep_daily=3) == [0, 10, 20]


@pytest.mark.parametrize("policy", [None, {}, {"name": "journal", "summary": "x"}, {"keep_last": 0}, {"keep_daily": 0, "keep_within": 0.0}])
def test_an_empty_policy_removes_nothing(policy):
    told = retention.chosen(days(*range(50)), policy, NOW)
    assert all(keep for _, keep, _ in told)
    assert {why for _, _, why in told} == {"the policy is empty"}


@pytest.mark.parametrize("value", ["7", -1, None, True, [1], float("nan"), {}])
def test_an_unreadable_policy_removes_nothing(value):
    told = retention.chosen(days(*range(50)), {"keep_last": 1, "keep_daily": value}, NOW)
    assert all(keep for _, keep, _ in told)
    assert {why for _, _, why in told} == {"the policy cannot be read"}


@pytest.mark.parametrize("words", ["", "yesterday", "2026-11-26", "2026-11-26T12:00:00", "2026-13-01T00:00:00Z", "9" * 40, None])
def test_what_has_no_time_is_kept_and_counts_as_nothing(words):
    told = retention.chosen([("odd", words), *days(0, 1)], {"keep_last": 1}, NOW)
    assert told == [("odd", True, "its time cannot be read"), (0, True, "the last one"), (1, False, "no rule keeps it")]


def test_it_says_why():
    told = retention.chosen(days(0, 1, 40), {"keep_last": 2, "keep_daily": 1, "keep_within": 0.5}, NOW)
    assert told == [
        (0, True, "one of the last 2, the last one of the day 2026-11-26, of the last 0.5 days"),
        (1, True, "one of the last 2"),
        (40, False, "no rule keeps it"),
    ]


def test_numbers_beyond_measure():
    items = days(0, 1, 2)
    assert kept(items, keep_within=float("inf")) == kept(items, keep_last=10**18) == kept(items, keep_monthly=10**18, keep_daily=10**18) == [0, 1, 2]


def test_days_are_those_of_the_place(zone):
    # 23:30 and 00:30 in Berlin are two days there, and one in UTC.
    items = [("a", "2026-11-20T22:30:00.000Z"), ("b", "2026-11-20T23:30:00.000Z"), ("c", "2026-11-24T00:00:00.000Z")]
    zone("UTC")
    assert kept(items, keep_daily=3) == ["b", "c"]
    zone("Europe/Berlin")
    assert kept(items, keep_daily=3) == ["a", "b", "c"]
    # On the day on which the clocks go back there are two half past two.
    twice = [("first", "2026-10-25T00:30:00.000Z"), ("second", "2026-10-25T01:30:00.000Z")]
    assert kept(twice, keep_daily=2) == ["second"]
    zone("America/New_York")
    assert kept(items, keep_daily=3) == ["b", "c"]
    assert retention.chosen(items[:2], {"keep_weekly": 1}, NOW)[1][2] == "the last one, the last one of the week 2026-W47"


@pytest.mark.parametrize(
    ("now", "newest", "words"),
    [
        ("2026-11-26T12:00:00.000Z", "2026-11-26T12:00:00.001Z", "before the newest record"),
        ("2026-11-26T12:00:00.000Z", "2036-01-01T00:00:00.000Z", "before the newest record"),
        ("1970-01-01T00:00:00.000Z", "2026-11-26T12:00:00.000Z", "before the newest record"),
        ("2026-12-26T12:00:00.001Z", "2026-11-26T12:00:00.000Z", "more than 30 days after"),
        ("2026-11-26T12:00:00.000Z", "soon", "cannot be read"),
    ],
)
def test_a_wrong_clock_stops_it(now, newest, words):
    with pytest.raises(Failure, match=words) as caught:
        retention.clock(now, newest)
    assert caught.value.code == 75


@pytest.mark.parametrize("newest", ["", "2026-11-26T12:00:00.000Z", "2026-11-26T13:00:00+01:00", "2026-10-27T12:00:00.000Z"])
def test_a_right_clock_does_not(newest):
    retention.clock(NOW, newest)


def test_it_does_not_slow_down_with_many():
    items = [(n, instant(n)) for n in range(20_000 * int(os.environ.get("FTAI_TEST_SCALE", "1")))]
    assert len(kept(items, keep_last=7, keep_daily=14, keep_weekly=8, keep_monthly=24)) < 60


def day(number: float) -> str:
    return (datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(days=number)).isoformat(timespec="milliseconds")[:23] + "Z"


@pytest.mark.parametrize(
    ("times", "now", "leaps"),
    [
        ([], 0, False),
        ([0, 1, 2, 3], 3, False),
        ([0, 29, 58], 58, False),
        # As after a long absence, or with a clock that is wrong.
        ([0, 1, 400], 400, True),
        ([0, 1, 400, 400.9], 401, True),
        ([0, 1, 400, 401.1], 402, False),
        # A wrong clock was put right again.
        ([0, 1, 400, 2, 3], 3, False),
        # Records from elsewhere are old.
        ([100, 101, 3, 102], 102, False),
    ],
)
def test_a_clock_that_leapt_ahead_is_not_believed_for_a_day(times, now, leaps):
    if leaps:
        with pytest.raises(Failure) as bad:
            retention.steady([day(time_) for time_ in times], day(now))
        assert bad.value.code == 75
    else:
        retention.steady([day(time_) for time_ in times], day(now))
