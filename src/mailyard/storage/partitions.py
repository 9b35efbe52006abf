"""Partitions of the big tables: made ahead, and dropped when everything in them has expired.

What exists is decided purely from the clock (`wanted`); the database only says what it has. A
partition is made standing alone, then attached, which stops no reader and no writer; it leaves by
DETACH CONCURRENTLY, then DROP. Every statement runs under `lock_timeout` and is tried again,
because a DDL statement that waits for a lock makes everyone behind it wait, every `250` included.
There is no default partition: with one, each attach would have to scan it.
"""

import asyncio
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

import asyncpg

from mailyard.core.errors import Unavailable
from mailyard.core.ids import lowest_at
from mailyard.storage.database import Database
from mailyard.storage.derived import DERIVED
from mailyard.storage.queries import load

QUERIES = load("partitions")

RETENTION_DAYS = (1, 7, 30, 400, 0)  # 0: kept
ADDRESS_PARTITIONS = 16
MONTHS_AHEAD = 2
DAYS_AHEAD = 2
LIVE_EVENT_KEEP_DAYS = 3  # what listeners that come back and replays of webhooks can read
LIVE_EVENT_KEEP_DAYS_MOST = 14  # for who has not read them yet; as long as webhooks' own log
WEBHOOK_KEEP_DAYS = 14  # what an endpoint was told; longer than it is tried (webhooks/policy.py)
LOCK_TIMEOUT_S = 2.0
LOCK_ATTEMPTS = 10

# Rows that are only ever inserted and leave with their partition need no vacuum for its own sake.
_INSERT_ONLY = "autovacuum_vacuum_insert_threshold = -1"
# A tuple below toast_tuple_target is neither compressed nor moved out of line: with 8160, the most
# a page holds, a mail of up to 8 kB is one page write. The column's storage is in the schema.
_IN_LINE = "toast_tuple_target = 8160"


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition as it should be. `bounds` are texts of the key's type, the upper exclusive."""

    parent: str
    name: str
    kind: str  # range, class or hash
    bounds: tuple[str, ...]
    storage: str = ""


@dataclass(frozen=True, slots=True)
class Keep:
    """For how many months after their own what has no expiry of its own stays; 0: for ever."""

    history_months: int = 0  # deliveries and their events, accepted mails, what contacts did
    audit_months: int = 0


FOR_EVER = Keep()


class LateReader(Protocol):
    """Who reads live events behind a stored place, and may be behind by days."""

    async def needs(self, since: datetime, until: datetime) -> bool:
        """Whether an event of this span is still to be read."""
        ...

    async def lose(self, since: datetime, until: datetime) -> None:
        """The events of this span leave now, read or not: tell whoever misses them."""
        ...


_EVENTS = "live_event"
_HISTORY = ("delivery", "delivery_event", "email", "tracking_event", "tracking_first")


@dataclass(frozen=True, slots=True)
class _Ranged:
    """A table parted by time: by month or by day, on an id or on an instant."""

    parent: str
    daily: bool
    on_id: bool = True
    keep_days: int | None = None  # how long after its upper bound it stays; None: see Keep
    storage: str = ""


def _ranged_tables() -> Iterator[_Ranged]:
    for parent in (*_HISTORY, "audit_log", "contact_event"):
        yield _Ranged(parent, daily=False)
    yield _Ranged(_EVENTS, True, on_id=False, keep_days=LIVE_EVENT_KEEP_DAYS, storage=_INSERT_ONLY)
    for parent in ("webhook_delivery", "webhook_attempt"):
        yield _Ranged(parent, True, keep_days=WEBHOOK_KEEP_DAYS)
    for days in RETENTION_DAYS:
        short = days in (1, 7, 30)
        insert_only = _INSERT_ONLY if short else ""
        keep = days or None
        message_storage = ", ".join(filter(None, (_IN_LINE, insert_only)))
        yield _Ranged(class_name("message", days), short, keep_days=keep, storage=message_storage)
        yield _Ranged(class_name("inbox_message", days), short, keep_days=keep, storage=insert_only)
        yield _Ranged(class_name("inbox", days), short, keep_days=keep)
        for one in DERIVED:
            append_only = _INSERT_ONLY if short and one.insert_only else ""
            storage = ", ".join(filter(None, (one.storage, append_only)))
            yield _Ranged(class_name(one.table, days), short, keep_days=keep, storage=storage)


def class_name(table: str, retention_days: int) -> str:
    """`message_d7`, `message_kept`: the part of `table` that holds one retention class."""
    return f"{table}_d{retention_days}" if retention_days else f"{table}_kept"


RANGED = tuple(_ranged_tables())
_BY_PARENT = {table.parent: table for table in RANGED}
_RANGE_KEYS = {"message": "id", "inbox_message": "message_id", "inbox": "id"} | {
    one.table: one.key for one in DERIVED
}
_CLASSES_OF = {
    of: frozenset(class_name(of, days) for days in RETENTION_DAYS)
    for of in ("inbox", "inbox_message", "message")
}
_NAME = re.compile(
    "^("
    + "|".join(sorted(_BY_PARENT, key=len, reverse=True))
    + r")_([0-9]{4})_([0-9]{2})(?:_([0-9]{2}))?$"
)


def wanted(moment: datetime) -> list[Partition]:
    """Every partition that `moment` needs, and those ahead of it; parents before their parts."""
    moment = moment.astimezone(UTC)
    found = [
        Partition("address", f"address_h{part:02d}", "hash", (str(ADDRESS_PARTITIONS), str(part)))
        for part in range(ADDRESS_PARTITIONS)
    ]
    for table, key in _RANGE_KEYS.items():
        for days in RETENTION_DAYS:
            found.append(Partition(table, class_name(table, days), "class", (str(days), key)))
    for ranged in RANGED:
        start = _floor(moment, ranged.daily)
        for _ in range(1 + (DAYS_AHEAD if ranged.daily else MONTHS_AHEAD)):
            end = _next(start, ranged.daily)
            found.append(_range_partition(ranged, start, end))
            start = end
    return found


def _beside(present: Iterable[str]) -> Iterator[Partition]:
    """The partitions of derived tables for those of the mail among `present`, however old: what a
    table keeps that came later (a new version's) goes beside the mail that lies there already."""
    for name in present:
        match = _NAME.match(name)
        if match is None:
            continue
        start, daily = _start_of(match), match[4] is not None
        for one in DERIVED:
            if match[1] in _CLASSES_OF[one.of]:
                parent = _BY_PARENT[one.table + match[1].removeprefix(one.of)]
                yield _range_partition(parent, start, _next(start, daily))


def expired(names: Sequence[str], now: datetime, keep: Keep = FOR_EVER) -> list[str]:
    """Those of `names` that hold only expired rows at `now`; other tables are passed over."""
    return [name for name in names if (gone := expires_at(name, keep)) is not None and gone <= now]


def expires_at(name: str, keep: Keep = FOR_EVER) -> datetime | None:
    """When the partition `name` may leave, or None when it never does or is no partition."""
    match = _NAME.match(name)
    if match is None:
        return None
    ranged = _BY_PARENT[match[1]]
    if (match[4] is not None) is not ranged.daily:
        return None
    start = _start_of(match)
    if ranged.keep_days is not None:
        return _next(start, ranged.daily) + timedelta(days=ranged.keep_days)
    months = _months_of(ranged.parent, keep)
    return _months_later(start, 1 + months) if months else None


def _start_of(match: re.Match[str]) -> datetime:
    return datetime(int(match[2]), int(match[3]), int(match[4] or 1), tzinfo=UTC)


def _months_of(parent: str, keep: Keep) -> int:
    if parent in _HISTORY or parent == "contact_event":
        return keep.history_months
    return keep.audit_months if parent == "audit_log" else 0


def history_since(months: int, now: datetime) -> datetime | None:
    """The beginning of the history that `months` keep; None: of all time."""
    return _months_later(_floor(now.astimezone(UTC), daily=False), -months) if months else None


async def ensure_partitions(database: Database, now: datetime) -> int:
    """Make what is missing for `now` and ahead; how many were made. Safe from many processes.

    Raises Unavailable when a lock could not be had in LOCK_ATTEMPTS tries.
    """
    present = {row["name"] for row in await database.fetch(QUERIES.attached)}
    wishes = {partition.name: partition for partition in (*wanted(now), *_beside(present))}
    missing = [partition for name, partition in wishes.items() if name not in present]
    families: dict[str, list[Partition]] = {}
    for partition in missing:
        families.setdefault(partition.parent, []).append(partition)
    made = 0
    for family in families.values():
        made += await _make(database, family)
    return made


async def ensure_like(source: Database, target: Database) -> int:
    """Make in `target` the partitions that `source` has; as above."""
    present = {row["name"] for row in await target.fetch(QUERIES.attached)}
    families: dict[str, list[Partition]] = {}
    for row in await source.fetch(QUERIES.attached):
        match = _NAME.match(row["name"])
        if match is None or row["name"] in present:
            continue
        ranged, start = _BY_PARENT[match[1]], _start_of(match)
        wish = _range_partition(ranged, start, _next(start, ranged.daily))
        families.setdefault(wish.parent, []).append(wish)
    return sum([await _make(target, family) for family in families.values()])


async def ensure_month(database: Database, parent: str, moment: datetime) -> int:
    """Make the month of `moment` of the table `parent`, however long it is gone; as above."""
    start = _floor(moment.astimezone(UTC), daily=False)
    wish = _range_partition(_BY_PARENT[parent], start, _months_later(start, 1))
    return await _make(database, [wish])


async def drop_expired(
    database: Database,
    now: datetime,
    keep: Keep = FOR_EVER,
    readers: Sequence[LateReader] = (),
) -> list[str]:
    """Detach and drop every partition whose rows have all expired; the names of the dropped.

    A day of live events that one of `readers` still needs stays for LIVE_EVENT_KEEP_DAYS_MOST; what
    leaves then is told. Of history, the month of the oldest mail or campaign that is still under
    way stays, and all after it: its worker finds its rows, and who got the campaign's mail gets it
    once.

    Works on a direct connection, because DETACH CONCURRENTLY runs in no transaction. A partition
    whose lock cannot be had is left for the next round; a detach that was cut short is finished.
    """
    connection = await database.direct()
    try:
        if not await connection.fetchval(QUERIES.try_lock_session):
            return []
        await connection.execute(QUERIES.limit_lock_wait, f"{int(LOCK_TIMEOUT_S * 1000)}ms", False)
        rows = {row["name"]: row for row in await connection.fetch(QUERIES.attached)}
        leaving = expired(list(rows), now, keep)
        if any(rows[name]["parent"] in _HISTORY for name in leaving):
            leaving = _without_work(leaving, rows, await connection.fetchval(QUERIES.at_work_since))
        leaving = await _without_needed(leaving, now, readers)
        gone = await _detach(connection, rows, leaving)
        left = [row["name"] for row in await connection.fetch(QUERIES.left_behind, _NAME.pattern)]
        for name in expired(left, now, keep):
            await connection.execute(await connection.fetchval(QUERIES.say_drop, name))
        return sorted(set(expired(left, now, keep)) | set(gone))
    finally:
        await connection.close()


def _without_work(
    names: list[str], rows: Mapping[str, asyncpg.Record], since: datetime | None
) -> list[str]:
    """`names` without the history of the month of `since` and of those after it."""
    if since is None:
        return names
    month = f"{since:%Y_%m}"
    return [
        name
        for name in names
        if rows[name]["parent"] not in _HISTORY
        or name.removeprefix(f"{rows[name]['parent']}_") < month
    ]


async def _without_needed(
    names: list[str], now: datetime, readers: Sequence[LateReader]
) -> list[str]:
    """`names` without the days of live events that a reader needs and may still have."""
    leaving = []
    for name in names:
        match = _NAME.match(name)
        if match is None or match[1] != _EVENTS or not readers:
            leaving.append(name)
            continue
        since = _start_of(match)
        until = _next(since, daily=True)
        if now < until + timedelta(days=LIVE_EVENT_KEEP_DAYS_MOST):
            if any([await reader.needs(since, until) for reader in readers]):
                continue
        else:
            for reader in readers:
                await reader.lose(since, until)
        leaving.append(name)
    return leaving


async def _detach(
    connection: "asyncpg.Connection[asyncpg.Record]",
    rows: Mapping[str, asyncpg.Record],
    leaving: list[str],
) -> list[str]:
    """Detach `leaving`. One waiting detach holds up its parent's others until next time."""
    gone: list[str] = []
    busy: set[str] = set()
    for name in sorted(leaving, key=lambda name: not rows[name]["detaching"]):
        parent = rows[name]["parent"]
        if parent in busy:
            continue
        statement = await connection.fetchval(
            QUERIES.say_detach, parent, name, rows[name]["detaching"]
        )
        try:
            await connection.execute(statement)
            gone.append(name)
        except asyncpg.LockNotAvailableError:
            busy.add(parent)
    return gone


async def _make(database: Database, family: Sequence[Partition]) -> int:
    """Make the partitions of one parent in one transaction: a crash leaves none half made."""
    for attempt in range(LOCK_ATTEMPTS):
        try:
            async with database.transaction() as tx:
                await tx.execute(QUERIES.lock)
                await tx.execute(QUERIES.limit_lock_wait, f"{int(LOCK_TIMEOUT_S * 1000)}ms", True)
                present = {row["name"] for row in await tx.fetch(QUERIES.attached)}
                missing = [partition for partition in family if partition.name not in present]
                if not missing:
                    return 0
                statements = [await _say(tx, partition) for partition in missing]
                await tx.execute("; ".join(statements))
                return len(missing)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            await asyncio.sleep(0.1 * (attempt + 1))
    raise Unavailable(f"no lock on table {family[0].parent} to add partitions; will be tried again")


async def _say(tx: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]", wish: Partition) -> str:
    if wish.kind == "hash":
        modulus, remainder = wish.bounds
        arguments: tuple[object, ...] = (wish.parent, wish.name, int(modulus), int(remainder))
        query = QUERIES.say_hash
    elif wish.kind == "class":
        arguments = (wish.parent, wish.name, *wish.bounds)
        query = QUERIES.say_class
    else:
        arguments = (wish.parent, wish.name, *wish.bounds, wish.storage)
        query = QUERIES.say_range
    return str(await tx.fetchval(query, *arguments))


def _range_partition(ranged: _Ranged, start: datetime, end: datetime) -> Partition:
    if ranged.on_id:
        bounds = (str(lowest_at(start)), str(lowest_at(end)))
    else:
        bounds = (start.isoformat(), end.isoformat())
    name = f"{ranged.parent}_{start:%Y_%m_%d}" if ranged.daily else f"{ranged.parent}_{start:%Y_%m}"
    return Partition(ranged.parent, name, "range", bounds, ranged.storage)


def _floor(moment: datetime, daily: bool) -> datetime:
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return day if daily else day.replace(day=1)


def _next(start: datetime, daily: bool) -> datetime:
    return start + timedelta(days=1) if daily else _months_later(start, 1)


def _months_later(start: datetime, months: int) -> datetime:
    """`start`, which is the first of a month, so many months on."""
    years, month = divmod(start.month - 1 + months, 12)
    return start.replace(year=start.year + years, month=month + 1)
