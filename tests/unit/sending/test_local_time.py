"""Quiet hours and wall clocks, where clocks are turned and where they are not."""

from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

import pytest

from mailyard.core.errors import InvalidInput
from mailyard.sending.local_time import QuietHours, check_zone, day_of, instant, zone_of

ROME = ZoneInfo("Europe/Rome")
NIGHT = QuietHours(time(22), time(8))
NOON = QuietHours(time(12), time(13, 30))


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("quiet", "now", "until"),
    [
        (NIGHT, "2029-01-10T20:59:59", None),
        (NIGHT, "2029-01-10T21:00:00", "2029-01-11T07:00:00"),
        (NIGHT, "2029-01-10T23:30:00", "2029-01-11T07:00:00"),
        (NIGHT, "2029-01-11T06:59:00", "2029-01-11T07:00:00"),
        (NIGHT, "2029-01-11T07:00:00", None),
        (NIGHT, "2029-03-24T22:00:00", "2029-03-25T06:00:00"),  # the clock goes forward that night
        (NIGHT, "2029-10-27T22:00:00", "2029-10-28T07:00:00"),  # and back
        (NOON, "2029-01-10T10:59:00", None),
        (NOON, "2029-01-10T11:00:00", "2029-01-10T12:30:00"),
        (NOON, "2029-01-10T12:30:00", None),
    ],
)
def test_quiet_hours_end_by_the_recipients_clock(
    quiet: QuietHours, now: str, until: str | None
) -> None:
    assert quiet.over(utc(now), ROME) == (None if until is None else utc(until))


def test_hours_without_length_are_refused() -> None:
    with pytest.raises(InvalidInput):
        QuietHours(time(8), time(8))


def test_a_time_that_the_clock_skips_or_shows_twice_is_one_instant() -> None:
    assert instant(datetime(2029, 3, 25, 2, 30), ROME) == utc("2029-03-25T01:30:00")
    assert instant(datetime(2029, 10, 28, 2, 30), ROME) == utc("2029-10-28T00:30:00")


def test_a_day_begins_where_the_workspace_is() -> None:
    day, tomorrow = day_of(utc("2029-01-10T23:30:00"), ROME)
    assert (day.isoformat(), tomorrow) == ("2029-01-11", utc("2029-01-11T23:00:00"))


def test_names_of_zones_are_those_of_the_world() -> None:
    assert zone_of("Asia/Kolkata") is not None and zone_of("utc") is UTC
    for name in ("", "Europe", "../etc/passwd", "Mars/Base", "é", "x" * 100, "Europe/Rome\0", "/"):
        assert zone_of(name) is None, name
        with pytest.raises(InvalidInput):
            check_zone(name)
