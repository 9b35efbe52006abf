"""The check of `mailyard doctor` on backups: is there one, is it fresh, was it ever restored?"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta

import asyncpg

from mailyard.core.errors import MailyardError
from mailyard.fleet.checkup.finding import Finding, Grade

FRESH = timedelta(days=1)
_CHECK = "backup"


async def check_backup(
    store: str, last_good: Callable[[], Awaitable[Mapping[str, datetime]]], tried_every: timedelta
) -> Finding:
    """`last_good`: when the last good base backup and drill ended, as the database knows it."""
    if not store:
        return Finding(
            _CHECK, Grade.WARN, "there is none", "set MAILYARD_BACKUP, like file:///srv/backup"
        )
    try:
        last = await last_good()
    except (MailyardError, asyncpg.PostgresError) as error:  # the schema may lack the table
        return Finding(_CHECK, Grade.WARN, f"not known: {error}")
    return judge(last, datetime.now(UTC), tried_every)


def judge(last: Mapping[str, datetime], now: datetime, tried_every: timedelta) -> Finding:
    """From when the last good ones ended."""
    base, drill = last.get("base"), last.get("drill")
    if base is None:
        return Finding(_CHECK, Grade.BAD, "none was ever finished", "mailyard backup take")
    age = now - base
    found = f"base backup {_hours(age)} old"
    if age > FRESH:
        return Finding(_CHECK, Grade.BAD, found, "see the scheduler's log; mailyard backup take")
    if drill is None:
        return Finding(_CHECK, Grade.WARN, f"{found}, never restored", "mailyard backup try")
    found = f"{found}, restored on trial {_hours(now - drill)} ago"
    if tried_every and now - drill > 2 * tried_every:
        return Finding(_CHECK, Grade.WARN, found, "mailyard backup try")
    return Finding(_CHECK, Grade.GOOD, found)


def _hours(age: timedelta) -> str:
    hours = age.total_seconds() / 3600.0
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} days"
