"""What was tried out before it was needed: load, and restoring."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from mailyard.fleet.readiness import needs
from mailyard.fleet.readiness.item import Item, met, missing, thin

LOAD_TEST_GOOD_FOR = timedelta(days=90)
LOAD_TEST_RECIPIENTS = 10_000  # fewer are over before queues, pools and caches are at their ease
BACKUP_GOOD_FOR = timedelta(days=1)
DRILL_GOOD_FOR = timedelta(days=31)


@dataclass(frozen=True, slots=True)
class LoadTestSeen:
    """The last load test that was recorded (`proving.load_test`)."""

    at: datetime
    version: str
    recipients: int
    per_second: int
    clean: bool


def judge_load_test(last: LoadTestSeen | None, version: str, now: datetime) -> Item:
    """`version`: of the program that runs now."""
    again = f"mailyard demo --recipients {LOAD_TEST_RECIPIENTS}, with the operator's key"
    if last is None:
        return missing(needs.LOAD_TEST, "none was recorded", again)
    age = now - last.at
    found = (
        f"{last.recipients:,} recipients at {last.per_second:,}/s, {_days(age)}, "
        f"version {last.version}"
    )
    if not last.clean:
        why = f"the last one lost, doubled or changed mail: {found}"
        return missing(needs.LOAD_TEST, why, "find out why before anything else; then " + again)
    if last.recipients < LOAD_TEST_RECIPIENTS:
        return thin(needs.LOAD_TEST, f"too small to tell: {found}", again)
    if age > LOAD_TEST_GOOD_FOR:
        return thin(needs.LOAD_TEST, f"long ago: {found}", again)
    if last.version != version:
        return thin(needs.LOAD_TEST, f"of another version than {version}: {found}", again)
    return met(needs.LOAD_TEST, found)


def judge_backup(store: str, last: Mapping[str, datetime] | None, now: datetime) -> list[Item]:
    """A fresh backup, and one that was restored. `last`: when the last good base backup and drill
    ended; None when the database does not say."""
    if not store:
        fix = "set MAILYARD_BACKUP, like file:///srv/backup or s3://…"
        return [
            missing(needs.BACKUP, "there is none", fix),
            missing(needs.DRILL, "nothing to restore", fix),
        ]
    if last is None:
        return [
            missing(needs.BACKUP, "not known: the database does not say", "see the database"),
            missing(needs.DRILL, "not known: the database does not say", "see the database"),
        ]
    return [_backup(last.get("base"), now), _drill(last.get("drill"), now)]


def _backup(base: datetime | None, now: datetime) -> Item:
    fix = "see the scheduler's log; mailyard backup take"
    if base is None:
        return missing(needs.BACKUP, "none was ever finished", fix)
    found = f"the last base backup ended {_days(now - base)}"
    if now - base > BACKUP_GOOD_FOR:
        return missing(needs.BACKUP, found, fix)
    return met(needs.BACKUP, found)


def _drill(drill: datetime | None, now: datetime) -> Item:
    if drill is None:
        return missing(needs.DRILL, "no backup was ever restored", "mailyard backup try")
    found = f"the last restore on trial ended {_days(now - drill)}"
    if now - drill > DRILL_GOOD_FOR:
        return thin(needs.DRILL, found, "mailyard backup try; MAILYARD_BACKUP_TRY_DAYS")
    return met(needs.DRILL, found)


def _days(age: timedelta) -> str:
    hours = age.total_seconds() / 3600.0
    return f"{max(hours, 0.0):.0f} h ago" if hours < 72 else f"{hours / 24:.0f} days ago"
