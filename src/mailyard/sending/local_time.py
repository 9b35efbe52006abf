"""Time where people are: zones, hours of quiet, and a wall clock's time as an instant. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

from mailyard.core.errors import InvalidInput

LOCAL_TIME = "%Y-%m-%dT%H:%M"
_ZONE_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class QuietHours:
    """From `start` until just before `end`, over midnight where `start` is later."""

    start: time
    end: time

    def __post_init__(self) -> None:
        if self.start == self.end:
            raise InvalidInput("quiet hours begin and end at different times", field="quiet_until")

    def over(self, now: datetime, zone: tzinfo) -> datetime | None:
        """When the quiet hours that it is now in `zone` end; None when it is none."""
        local = now.astimezone(zone)
        at = local.time()
        if self.start < self.end:
            if not self.start <= at < self.end:
                return None
            return instant(datetime.combine(local.date(), self.end), zone)
        if self.end <= at < self.start:
            return None
        day = local.date() + timedelta(days=1) if at >= self.start else local.date()
        return instant(datetime.combine(day, self.end), zone)

    def over_everywhere(self, now: datetime, zones: Iterable[tzinfo]) -> datetime:
        """The first instant from `now` on at which it is quiet nowhere; where there is none within
        a day, the last that was looked at: then it is quiet somewhere all the time."""
        zones = list(zones)
        found = now
        while found - now < timedelta(days=1):
            ends = [end for zone in zones if (end := self.over(found, zone)) is not None]
            if not ends:
                break
            found = min(ends)
        return found


@lru_cache(maxsize=4096)
def zone_of(name: str) -> tzinfo | None:
    """The zone of that name (`Europe/Rome`), or None."""
    if not name or len(name) > _ZONE_CHARACTERS or not name.isascii():
        return None
    if name.upper() in ("UTC", "Z"):
        return UTC
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        return None


def check_zone(name: str) -> str:
    """A zone's name. Raises InvalidInput."""
    if zone_of(name) is None:
        raise InvalidInput("not a time zone; one like Europe/Rome is wanted", field="time_zone")
    return name


def wall_clock(text: str) -> datetime:
    """`2026-12-24T09:00` as a time without zone. Raises InvalidInput."""
    try:
        return datetime.strptime(text, LOCAL_TIME)
    except ValueError:
        raise InvalidInput("a time like 2026-12-24T09:00", field="local_time") from None


def instant(local: datetime, zone: tzinfo) -> datetime:
    """When a clock on the wall there shows `local` (without zone).

    A time that a clock jumps over is read as if it had not jumped; of one that it shows twice, the
    first.
    """
    return local.replace(tzinfo=zone).astimezone(UTC)


def day_of(now: datetime, zone: tzinfo) -> tuple[date, datetime]:
    """(the day that it is in `zone`, when the next one begins)."""
    today = now.astimezone(zone).date()
    return today, instant(datetime.combine(today + timedelta(days=1), time()), zone)
