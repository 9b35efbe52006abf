"""Cron expressions and intervals: when the next tick is."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.core.errors import ConfigurationError
from mailyard.queue.schedule import Cron, Every

START = datetime(2026, 3, 14, 15, 9, 26, tzinfo=UTC)  # a Saturday


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("* * * * *", "2026-03-14 15:10"),
        ("*/15 * * * *", "2026-03-14 15:15"),
        ("9 15 * * *", "2026-03-15 15:09"),
        ("0 3 * * *", "2026-03-15 03:00"),
        ("0 0 1 * *", "2026-04-01 00:00"),
        ("30 4 1,15 * *", "2026-03-15 04:30"),
        ("0 9 * * 1-5", "2026-03-16 09:00"),
        ("0 9 * * 0", "2026-03-15 09:00"),
        ("0 9 * * 7", "2026-03-15 09:00"),
        ("0 0 13 * 5", "2026-03-20 00:00"),  # the 13th or a Friday
        ("0 0 29 2 *", "2028-02-29 00:00"),
        ("5/20 16 * * *", "2026-03-14 16:05"),
        ("59 23 31 12 *", "2026-12-31 23:59"),
    ],
)
def test_the_next_tick(text: str, expected: str) -> None:
    assert Cron(text).after(START).strftime("%Y-%m-%d %H:%M") == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "5-1 * * * *",
        "*/0 * * * *",
        "a * * * *",
        "1- * * * *",
        "-1 * * * *",
    ],
)
def test_what_is_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        Cron(text)


def test_a_day_that_never_comes_is_said() -> None:
    with pytest.raises(ConfigurationError, match="never"):
        Cron("0 0 31 2 *").after(START)


@settings(max_examples=100)
@given(
    st.sampled_from(["* * * * *", "*/7 */5 * * *", "0 12 */3 * *", "15 6 * 1,7 2", "3 3 3 3 3"]),
    st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1)),
)
def test_a_tick_lies_ahead_and_none_is_between(text: str, naive: datetime) -> None:
    cron = Cron(text)
    moment = naive.replace(tzinfo=UTC)
    tick = cron.after(moment)
    assert tick > moment
    # Asked from anywhere before the tick, the answer is the same.
    assert cron.after(moment + (tick - moment) / 2) == tick
    assert cron.after(tick - timedelta(microseconds=1)) == tick
    assert cron.after(tick) > tick


def test_an_interval_has_the_same_instants_for_all() -> None:
    every = Every(300)
    assert every.after(START) == datetime(2026, 3, 14, 15, 10, tzinfo=UTC)
    assert every.after(every.after(START)) == datetime(2026, 3, 14, 15, 15, tzinfo=UTC)
