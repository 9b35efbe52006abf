"""What workers learn of destinations, written down for each other and for people.

A worker notes what its answers change, once a second in one transaction, and reads what others have
noted and what people have said. A pause that one worker met holds for all within seconds; a site
that a person lets go on goes on everywhere.
"""

import asyncio
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import asyncpg
import msgspec
import structlog

from mailyard.core import ids
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import MailyardError
from mailyard.sending.shape.receiver import DEFAULT, Book, Place, source_of
from mailyard.sending.shape.site import PROBE_AFTER, EventKind, News, Reaction, Site, SiteEvent
from mailyard.sending.transport import Outcome
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_SQL = load("shaping")
_log = structlog.get_logger(__name__)

EVERY_S = 1.0
OVERLAP_S = 10.0  # commits come out of order; taking news in twice changes nothing
NEWS_MAX = 20_000
ANSWERS_KEPT = 5
ACCEPTED_EVERY_S = 10.0  # sites of which there is nothing but acceptances are written so often
SITES_PER_FLUSH = 2_000
EVENTS_WAITING_MAX = 10_000
_ADDRESS = re.compile(r"[^\s<>@\"']+@")

_BY_OUTCOME = {
    Outcome.ACCEPTED: 0,
    Outcome.LATER: 1,
    Outcome.NEVER: 2,
    Outcome.UNKNOWN: 3,
}


class Sites(Protocol):
    """The sites of this process (`shape.dispatch.Dispatch`)."""

    def state(self, key: str) -> Site: ...

    def informed(self, now_s: float, key: str, place: Place, news: News) -> None: ...

    def resumed(self, key: str) -> None: ...


@dataclass(slots=True)
class _Entry:
    """What is not written yet of one site."""

    place: Place
    counts: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    answers: deque[dict[str, str]] = field(default_factory=lambda: deque(maxlen=ANSWERS_KEPT))
    noted_at: datetime | None = None
    urgent: bool = False
    since_s: float = 0.0


class SiteBoard:
    """One for a worker process. `note` is cheap and never waits."""

    def __init__(
        self,
        *,
        database: Database,
        book: Book,
        clock: Clock | None = None,
        every_s: float = EVERY_S,
    ) -> None:
        self._database = database
        self._every_s = every_s
        self._book = book
        self._clock = clock or SystemClock()
        self._entries: dict[str, _Entry] = {}
        self._events: list[tuple[str, SiteEvent]] = []
        self._resumed_at: dict[str, datetime] = {}

    def note(
        self, key: str, place: Place, outcome: Outcome, shown: str, reaction: Reaction
    ) -> None:
        """An answer has come."""
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(place, since_s=self._clock.monotonic())
        entry.counts[_BY_OUTCOME[outcome]] += 1
        if outcome is Outcome.ACCEPTED and reaction.news is None and not reaction.events:
            return
        now = self._clock.now()
        if outcome is not Outcome.ACCEPTED:
            text = _ADDRESS.sub("…@", shown)
            said = {"at": now.isoformat(), "text": text, "outcome": outcome.value}
            entry.answers.appendleft(said)
        entry.urgent = True
        if reaction.news is not None:
            entry.noted_at = now
        if len(self._events) < EVENTS_WAITING_MAX:
            self._events += [(key, event) for event in reaction.events]
        for event in reaction.events:
            if event.kind is EventKind.ALERT:
                _log.warning("shaping_alert", site=key, rule=event.rule, text=event.text)

    async def keep(self, sites: Sites, stir: Callable[[], None]) -> None:
        """Write and read until cancelled. `stir`: something may go, or no longer may."""
        since: datetime | None = None
        while True:
            try:
                await self.flush(sites)
                since = await self._read(sites, since, stir)
            except (MailyardError, OSError) as error:
                _log.warning("shaping_board_away", error=str(error))
            await asyncio.sleep(self._every_s)

    async def flush(self, sites: Sites, *, all_of_it: bool = False) -> None:
        """Write what is due. What cannot be written is written with the next try."""
        due_s = self._clock.monotonic() - ACCEPTED_EVERY_S
        chosen = [
            key
            for key, entry in self._entries.items()
            if all_of_it or entry.urgent or entry.since_s <= due_s
        ][:SITES_PER_FLUSH]
        events, self._events = self._events, []
        taken = {key: self._entries.pop(key) for key in chosen}
        try:
            async with self._database.transaction() as tx:
                if taken:
                    columns = self._columns(taken, sites)
                    await self._database.execute(
                        _SQL.note_sites, *columns, self._clock.now(), tx=tx
                    )
                if events:
                    await self._database.execute(_SQL.add_events, *_event_columns(events), tx=tx)
        except BaseException:
            self._put_back(taken)
            self._events = [*events, *self._events]
            raise

    def _put_back(self, taken: dict[str, _Entry]) -> None:
        for key, entry in taken.items():
            newer = self._entries.get(key)
            if newer is not None:
                entry.counts = [a + b for a, b in zip(entry.counts, newer.counts, strict=True)]
                entry.answers.extendleft(reversed(newer.answers))
                entry.noted_at = newer.noted_at or entry.noted_at
                entry.urgent |= newer.urgent
            self._entries[key] = entry

    def _columns(self, taken: dict[str, _Entry], sites: Sites) -> list[list[Any]]:
        rows = []
        for key, entry in taken.items():
            site = sites.state(key)
            noted = entry.noted_at is not None
            probing = site.refusals >= PROBE_AFTER
            answers = msgspec.json.encode(list(entry.answers)).decode()
            rows.append(
                (
                    key,
                    source_of(key),
                    entry.place.name,
                    entry.place.receiver.name,
                    site.share if noted else 1.0,
                    _moment(site.slowed_at_s) if noted else None,
                    _moment(site.paused_until_s) if noted else None,
                    _ADDRESS.sub("…@", site.why) if noted or probing else "",
                    site.refusals,
                    _moment(site.probe_at_s) if probing else None,
                    *entry.counts,
                    answers,
                    entry.noted_at,
                )
            )
        return [list(column) for column in zip(*rows, strict=True)]

    async def _read(
        self, sites: Sites, since: datetime | None, stir: Callable[[], None]
    ) -> datetime:
        now = self._clock.now()
        if since is None:
            rows = await self._database.fetch(_SQL.read_held, now, NEWS_MAX)
        else:
            rows = await self._database.fetch(_SQL.read_news, since, NEWS_MAX)
        for row in rows:
            self._take_in(sites, row, now)
        if rows:
            stir()
        self._resumed_at = {
            key: at for key, at in self._resumed_at.items() if at > now - timedelta(minutes=5)
        }
        return now - timedelta(seconds=OVERLAP_S)

    def _take_in(self, sites: Sites, row: asyncpg.Record, now: datetime) -> None:
        key, resumed_at = row["key"], row["resumed_at"]
        if resumed_at is not None and resumed_at != self._resumed_at.get(key):
            if resumed_at > now - timedelta(seconds=2 * OVERLAP_S):
                sites.resumed(key)
            self._resumed_at[key] = resumed_at
        receiver = self._book.receivers.get(row["receiver"], self._book.receivers[DEFAULT])
        news = News(
            row["share"],
            _seconds(row["slowed_at"]),
            _seconds(row["paused_until"]),
            row["why"],
        )
        sites.informed(now.timestamp(), key, Place(row["place"], receiver), news)


def _event_columns(events: list[tuple[str, SiteEvent]]) -> list[list[Any]]:
    rows = [
        (
            ids.uuid7(int(event.at_s * 1000)),
            key,
            event.kind.value,
            event.rule,
            _ADDRESS.sub("…@", event.answer),
            event.share,
            None if event.until_s is None else _moment(event.until_s),
            event.text[:500],
        )
        for key, event in events
    ]
    return [list(column) for column in zip(*rows, strict=True)]


def _moment(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def _seconds(moment: datetime | None) -> float:
    return 0.0 if moment is None else moment.timestamp()
