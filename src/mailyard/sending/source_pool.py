"""A pool of source addresses at work: who sends the next mail, and how that goes.

What went today from which address is counted by all workers together, in the database and a few
seconds late; a plan's ceiling is kept exactly by the bucket that all workers draw from (`permit`).
What the bucket has refused counts as full for as long as it said.
"""

import asyncio
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from random import Random

import structlog

from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import MailyardError
from mailyard.sending import warmup
from mailyard.sending.source_file import SourceList
from mailyard.sending.transports.mx.source import Source
from mailyard.sending.warmup import Permit, counted_as
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_SQL = load("source")
_log = structlog.get_logger(__name__)

EVERY_S = 3.0
_FULL = 1 << 62


@dataclass(frozen=True, slots=True)
class NoSource:
    """No address may send this now. `overflow`: another provider may; else come again then."""

    why: str
    overflow: bool
    retry_at: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """An address today, for people. `ceilings`: mails of today by receiver; None without one."""

    name: str
    hello: str
    weight: int
    plan: str
    day: int
    paused_until: date | None
    why: str
    mails: int
    answers: int
    bad: int
    ceilings: dict[str, int | None]


@dataclass(slots=True)
class _Count:
    mails: int = 0
    answers: int = 0
    bad: int = 0


_Key = tuple[date, str, str]


class SourcePool:
    """One pool in one worker."""

    def __init__(
        self,
        *,
        sources: SourceList,
        database: Database,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        self._pool = sources.pool
        self._hosts = sources.hosts
        self._database = database
        self._clock = clock or SystemClock()
        self._random = random or Random()
        self._plain = len(sources.pool.sources) == 1 and sources.pool.sources[0].plan is None
        self._unwritten: defaultdict[_Key, _Count] = defaultdict(_Count)
        self._counts: dict[tuple[str, str], int] = {}  # of today: all workers', and ours
        self._counts_of = self._today()
        self._full_until: dict[tuple[str, str], float] = {}
        self._newest_bad: dict[str, str] = {}

    # What the transport asks.

    def pick(self, group: str) -> Source | NoSource:
        """The address that the next mail to receivers of `group` leaves from; it is counted."""
        today = self._today()
        if today != self._counts_of:
            self._counts, self._counts_of = {}, today
        self._forget_full()
        picked = warmup.pick(self._pool, group, today, self._counts, self._random)
        if picked.source is None:
            return NoSource(picked.why, picked.provider is not None, self._retry_at(today))
        self._count(picked.source, group, 1)
        return self._hosts[picked.source]

    def permit(self, source: Source, group: str) -> Permit | None:
        """What to draw before the address is used; None: nothing."""
        if self._plain:
            return None
        return warmup.permit(self._named(source.name), group, self._today())

    def refused(self, source: Source, group: str, wait_s: float) -> None:
        """The bucket has no permit before that: the mail has to be picked for again."""
        self.gave_back(source, group)
        key = self._key(source.name, group)
        self._full_until[key] = self._clock.monotonic() + wait_s
        self._counts[key] = self._counts.get(key, 0) + _FULL

    def gave_back(self, source: Source, group: str) -> None:
        """The mail that was counted has not gone."""
        self._count(source.name, group, -1)

    def answered(self, source: Source, group: str, bad: str) -> None:
        """A mail was answered; `bad`: what was said about our reputation, else empty."""
        count = self._unwritten[self._today(), *self._key(source.name, group)]
        count.answers += 1
        if bad:
            count.bad += 1
            self._newest_bad[source.name] = bad

    def _retry_at(self, today: date) -> datetime:
        """When the next permit may be there, at the latest tomorrow; not for all in one instant."""
        tomorrow = datetime.combine(today + timedelta(days=1), time_of_day(), UTC)
        at = tomorrow + timedelta(seconds=3600 * self._random.random())
        if self._full_until:
            wait_s = min(self._full_until.values()) - self._clock.monotonic()
            soon = timedelta(seconds=max(1.0, wait_s) * (1.0 + self._random.random()))
            at = min(at, self._clock.now() + soon)
        return at

    # Beside the mails.

    async def keep(self) -> None:
        """Write, read and judge until cancelled."""
        while True:
            try:
                await self.flush()
                await self._read()
            except (MailyardError, OSError) as error:
                _log.warning("source_counts_away", error=str(error))
            await asyncio.sleep(EVERY_S)

    async def flush(self) -> None:
        """Add what was counted."""
        unwritten, self._unwritten = self._unwritten, defaultdict(_Count)
        if not unwritten:
            return
        rows = [(*key, one.mails, one.answers, one.bad) for key, one in unwritten.items()]
        try:
            columns = [list(column) for column in zip(*rows, strict=True)]
            await self._database.execute(_SQL.add_counts, *columns)
        except BaseException:
            for key, one in unwritten.items():
                held = self._unwritten[key]
                held.mails += one.mails
                held.answers += one.answers
                held.bad += one.bad
            raise

    async def standings(self) -> list[Standing]:
        """How each address stands today."""
        await self._read()
        today, totals = self._today(), await self._totals(self._today())
        found = []
        for source in self._pool.sources:
            groups = source.plan.ceilings if source.plan is not None else ()
            own = [one for (name, _), one in totals.items() if name == source.name]
            found.append(
                Standing(
                    source.name,
                    self._hosts[source.name].hello,
                    source.weight,
                    "" if source.plan is None else source.plan.name,
                    source.day(today),
                    source.paused_until,
                    source.why,
                    sum(one.mails for one in own),
                    sum(one.answers for one in own),
                    sum(one.bad for one in own),
                    {group: source.ceiling(group, today) for group in groups},
                )
            )
        return found

    async def _read(self) -> None:
        today = self._today()
        names = [source.name for source in self._pool.sources]
        states = {row["name"]: row for row in await self._database.fetch(_SQL.read_states, names)}
        totals = await self._totals(today)
        sources = []
        for source in self._pool.sources:
            row = states.get(source.name)
            if row is not None:
                source = replace(
                    source,
                    lost_days=row["lost_days"],
                    paused_until=row["paused_until"],
                    why=row["why"],
                )
            sources.append(await self._judged(source, today, totals))
        self._pool = replace(self._pool, sources=tuple(sources))
        self._counts = {key: one.mails for key, one in totals.items()}
        for (day, name, group), one in self._unwritten.items():
            if day == today:
                key = (name, group)
                self._counts[key] = self._counts.get(key, 0) + one.mails
        for key in self._full_until:
            self._counts[key] = self._counts.get(key, 0) + _FULL

    async def _totals(self, today: date) -> dict[tuple[str, str], _Count]:
        names = [source.name for source in self._pool.sources]
        rows = await self._database.fetch(_SQL.read_counts, today, names)
        return {
            (row["name"], row["receivers"]): _Count(row["mails"], row["answers"], row["bad"])
            for row in rows
        }

    async def _judged(
        self, source: warmup.Source, today: date, totals: dict[tuple[str, str], _Count]
    ) -> warmup.Source:
        own = [one for (name, _), one in totals.items() if name == source.name]
        answers, bad = sum(one.answers for one in own), sum(one.bad for one in own)
        newest = self._newest_bad.get(source.name, "see the destinations")
        source, event = warmup.judged(source, today, answers, bad, newest)
        if event is not None:
            _log.warning("source_paused", source=source.name, until=str(event.paused_until))
            await self._database.execute(
                _SQL.pause_source,
                source.name,
                source.lost_days,
                source.paused_until,
                source.why[:500].replace("\0", ""),
            )
        return source

    def _count(self, name: str, group: str, mails: int) -> None:
        key = self._key(name, group)
        self._unwritten[self._today(), *key].mails += mails
        self._counts[key] = self._counts.get(key, 0) + mails

    def _key(self, name: str, group: str) -> tuple[str, str]:
        return name, counted_as(self._named(name), group)

    def _named(self, name: str) -> warmup.Source:
        return next(source for source in self._pool.sources if source.name == name)

    def _forget_full(self) -> None:
        if not self._full_until:
            return
        now = self._clock.monotonic()
        for key in [key for key, until in self._full_until.items() if now >= until]:
            del self._full_until[key]
            self._counts[key] = self._counts.get(key, _FULL) - _FULL

    def _today(self) -> date:
        return self._clock.now().date()
