"""Retention classes: how long the partition stays that an inbox and its mail lie in.

A class is a number of days, 0 for ever (`storage.partitions.RETENTION_DAYS`). Mail is invisible
from its inbox's instant of expiry; the class only decides when its bytes leave, with their
partition. A partition of class n goes n days after the day (or month) of the ids in it, and nothing
in an inbox is older than the inbox: so an inbox is safe in class n when it expires at most n days
after it was made.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from mailyard.storage.partitions import RETENTION_DAYS

KEPT = 0


def class_for(created_at: datetime, expires_at: datetime | None) -> int:
    """The shortest class that keeps an inbox until `expires_at` (None: for ever)."""
    return KEPT if expires_at is None else class_of(expires_at - created_at)


def class_of(life: timedelta) -> int:
    """The shortest class that keeps for so long."""
    return next((days for days in RETENTION_DAYS if life <= timedelta(days=days)), KEPT)


def longest(classes: Iterable[int]) -> int:
    """The longest of some classes."""
    return max(classes, key=_length)


def is_longer(one: int, other: int) -> bool:
    """Whether class `one` keeps longer than class `other`."""
    return _length(one) > _length(other)


def _length(days: int) -> float:
    return days or float("inf")
