"""Who is in a segment: estimated from a sample, counted in slices, read page by page.

A sample is drawn at anchors (`storage/sql/segment.sql`), spread evenly over the contacts of the
workspace in the order in which they came, some contacts behind each. It is as large as the error or
the time asks. A count walks all contacts in slices, so that it can tell how far it is and be gone
on with; nothing of it is kept here.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any
from uuid import UUID

import asyncpg

from mailyard.campaigns.contact import Contact, contact_of
from mailyard.campaigns.estimate import ANCHOR_EVERY, Estimate, Sums
from mailyard.campaigns.filter.names import names_in, nothing_named, with_ids
from mailyard.campaigns.filter.parse import parse
from mailyard.campaigns.filter.sql import FIRST_PARAMETER, Named, TopicId, condition
from mailyard.campaigns.filter.tree import InList, InTopic, Node
from mailyard.campaigns.filter.write import write
from mailyard.core import ids
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import InvalidInput
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import Query, load

_SQL = load("segment")
_CONTACT_SQL = load("contact")

FIRST_ID, LAST_ID = UUID(int=0), UUID(int=(1 << 128) - 1)

COUNT_ALL_ANCHORS = 1_000  # up to so many, some 64,000 contacts, everybody is looked at
SAMPLE_ANCHORS = 8_192
RUN_CONTACTS = 40  # behind each anchor: a page of the table or two
SAMPLES = 48  # as many parts of those anchors, taken one after the other
LANES = 2  # statements at a time
RUNS_LEAST = 300  # from so many on the error of a sample can be told
ESTIMATE_S = 0.4  # for which samples are drawn

SLICE_ANCHORS = 3_200  # of a count: some 200,000 contacts
COUNT_STEP_S = 1.0
PAGE_WINDOW = 50_000
PAGE_S = 2.0
_WINDOWS_TRIED = 4
_PLANNING = ("force_custom_plan", "off", "32MB")  # plan_cache_mode, enable_nestloop, work_mem


@dataclass(frozen=True, slots=True)
class Audience:
    """A filter that was read, and what its names mean."""

    workspace_id: UUID
    tree: Node
    named: Named

    def pinned(self) -> str:
        """The filter with ids in place of names: it means the same whatever is renamed."""
        return write(with_ids(self.tree, self.named))


@dataclass(frozen=True, slots=True)
class Counted:
    """A part of a count: `contacts` match behind where it began, up to `upto`; None: to the end.

    `looked` and `of`: how many contacts were looked at, of how many; about.
    """

    contacts: int
    looked: int
    of: int
    upto: UUID | None


@dataclass(frozen=True, slots=True)
class Members:
    """A page of contacts; `upto`: behind whom the next one begins, None on the last."""

    contacts: list[Contact]
    upto: UUID | None


class Audiences:
    """Looks filters up among the contacts of a workspace."""

    def __init__(self, *, database: Database, clock: Clock | None = None) -> None:
        self._database = database
        self._clock = clock or SystemClock()

    async def read(self, workspace_id: UUID, source: str, tx: Connection | None = None) -> Audience:
        """What a filter says. Raises FilterError, also for a list or topic that is not there."""
        tree = parse(source)
        wanted_lists, wanted_topics = names_in(tree, InList), names_in(tree, InTopic)
        lists: dict[str, UUID] = {}
        topics: dict[str, TopicId] = {}
        if wanted_lists:
            rows = await self._named(_SQL.find_lists, workspace_id, wanted_lists, ids.LIST, tx)
            for row in rows:
                lists[row["name"]] = lists[ids.type_id(ids.LIST, row["id"])] = row["id"]
        if wanted_topics:
            rows = await self._named(_SQL.find_topics, workspace_id, wanted_topics, ids.TOPIC, tx)
            for row in rows:
                topic = TopicId(row["id"], row["on_request"])
                topics[row["name"]] = topics[ids.type_id(ids.TOPIC, row["id"])] = topic
        for name in wanted_lists:
            if name not in lists:
                raise nothing_named(source, "list", name)
        for name in wanted_topics:
            if name not in topics:
                raise nothing_named(source, "topic", name)
        return Audience(workspace_id, tree, Named(lists, topics))

    async def read_pinned(
        self, workspace_id: UUID, source: str, tx: Connection | None = None
    ) -> Audience:
        """A filter that `pinned` has written: nobody is in a list or topic that is gone."""
        tree = parse(source)
        lists = {name: ids.parse_type_id(ids.LIST, name) for name in names_in(tree, InList)}
        wanted = names_in(tree, InTopic)
        rows = await self._named(_SQL.find_topics, workspace_id, wanted, ids.TOPIC, tx)
        on_request = {row["id"]: row["on_request"] for row in rows}
        topics = {}
        for name in wanted:
            topic_id = ids.parse_type_id(ids.TOPIC, name)
            topics[name] = TopicId(topic_id, on_request.get(topic_id, True))
        return Audience(workspace_id, tree, Named(lists, topics))

    async def _named(
        self,
        query: Query,
        workspace_id: UUID,
        names: Sequence[str],
        prefix: str,
        tx: Connection | None,
    ) -> list[asyncpg.Record]:
        identifiers = []
        for name in names:
            try:
                identifiers.append(ids.parse_type_id(prefix, name))
            except InvalidInput:
                continue  # a name
        return await self._database.fetch(query, workspace_id, list(names), identifiers, tx=tx)

    # Estimating -------------------------------------------------------------------------------

    async def estimate(self, audience: Audience) -> Estimate:
        """How many contacts match, about, within half a second."""
        began = self._clock.monotonic()
        anchors = int(await self._database.fetchval(_SQL.count_anchors, audience.workspace_id))
        if anchors <= COUNT_ALL_ANCHORS:
            return await self._count_all(audience)
        step = max(1, anchors // SAMPLE_ANCHORS)
        rows = await self._database.fetch(_SQL.every_anchor, audience.workspace_id, step)
        drawn = [row["id"] for row in rows]
        found = condition(audience.tree, audience.named, self._clock.now(), sliced=False)
        query = Query(_SQL.sample.replace("{filter}", found.text))
        sums, waiting = Sums(), [drawn[place::SAMPLES] for place in range(SAMPLES)]

        async def look(sample: Sequence[UUID]) -> float:
            started = self._clock.monotonic()
            row = await self._database.fetchrow(
                query, audience.workspace_id, sample, RUN_CONTACTS, *found.arguments
            )
            assert row is not None, "an aggregate has a row"
            sums.add(row)
            return self._clock.monotonic() - started

        async def lane() -> None:
            took_s = 0.0  # as long as the next one will
            while waiting and not (sums.runs >= RUNS_LEAST and sums.is_good):
                if self._clock.monotonic() - began + took_s > ESTIMATE_S:
                    break
                took_s = await look(waiting.pop())

        await asyncio.gather(*(lane() for _ in range(LANES)))
        return sums.estimate(anchors)

    async def _count_all(self, audience: Audience) -> Estimate:
        everybody = await self._slice(audience, FIRST_ID, LAST_ID)
        of = int(await self._database.fetchval(_CONTACT_SQL.count_contacts, audience.workspace_id))
        return Estimate(everybody, everybody, everybody, of, of)

    # Counting ---------------------------------------------------------------------------------

    async def count(self, audience: Audience, after: UUID | None = None) -> Counted:
        """Count on behind contact `after`, for COUNT_STEP_S or to the end."""
        until = self._clock.monotonic() + COUNT_STEP_S
        slices = iter(await self._slices(audience.workspace_id, after or FIRST_ID))
        done: list[tuple[UUID, int]] = []

        async def lane() -> None:
            for low, high in slices:
                done.append((high, await self._slice(audience, low, high)))
                if self._clock.monotonic() > until:
                    return

        await asyncio.gather(*(lane() for _ in range(LANES)))
        anchors = int(await self._database.fetchval(_SQL.count_anchors, audience.workspace_id))
        of = anchors * ANCHOR_EVERY
        upto = max(high for high, _ in done)
        return Counted(
            contacts=sum(matched for _, matched in done),
            looked=min(len(done) * SLICE_ANCHORS * ANCHOR_EVERY, of),
            of=of,
            upto=None if upto == LAST_ID else upto,
        )

    async def look(
        self, audience: Audience, template: Query, **more: Any
    ) -> AsyncIterator[asyncpg.Record]:
        """The rows that `template` answers of each slice of all contacts, one after the other."""
        for low, high in await self._slices(audience.workspace_id, FIRST_ID):
            async with self._database.transaction() as tx, self._planned_for_slices(tx):
                rows = await self._in_slice(
                    template, audience, low, high, self._clock.now(), tx, **more
                )
            for row in rows:
                yield row

    async def _slices(self, workspace_id: UUID, after: UUID) -> list[tuple[UUID, UUID]]:
        """All contacts behind `after` in slices (low, high]."""
        rows = await self._database.fetch(_SQL.every_anchor, workspace_id, SLICE_ANCHORS)
        return list(pairwise([after, *(row["id"] for row in rows if row["id"] > after), LAST_ID]))

    async def _slice(self, audience: Audience, low: UUID, high: UUID) -> int:
        """How many of the contacts (low, high] match."""
        async with self._database.transaction() as tx, self._planned_for_slices(tx):
            rows = await self._in_slice(
                _SQL.count_slice, audience, low, high, self._clock.now(), tx
            )
            return int(rows[0][0])

    async def _in_slice(
        self,
        template: Query,
        audience: Audience,
        low: UUID,
        high: UUID,
        now: datetime,
        tx: Connection,
        **more: Any,
    ) -> list[asyncpg.Record]:
        """Ask `template` of the contacts (low, high] at `now`; `more` for its other words."""
        found = condition(audience.tree, audience.named, now, sliced=True)
        text = template.replace("{filter}", found.text)
        arguments = [*found.arguments]
        for name, value in more.items():
            text = text.replace(f"{{{name}}}", f"${FIRST_PARAMETER + len(arguments)}")
            arguments.append(value)
        return await self._database.fetch(
            Query(text), audience.workspace_id, low, high, *arguments, tx=tx
        )

    @asynccontextmanager
    async def _planned_for_slices(self, tx: Connection) -> AsyncIterator[None]:
        """Slices are planned apart; what follows in the caller's transaction is planned as ever."""
        before = await self._database.fetchrow(_SQL.planning, tx=tx)
        assert before is not None, "a setting has a value"
        await self._database.fetch(_SQL.plan_so, *_PLANNING, tx=tx)
        yield
        await self._database.fetch(_SQL.plan_so, *before.values(), tx=tx)

    # Reading ----------------------------------------------------------------------------------

    async def members(
        self, audience: Audience, *, after: UUID | None = None, limit: int
    ) -> Members:
        """The contacts behind `after` that match, in the order of their ids.

        Fewer than `limit` when few match: then it has looked for PAGE_S, and `upto` says how far.
        """
        until = self._clock.monotonic() + PAGE_S
        contacts: list[Contact] = []
        place, ended = after or FIRST_ID, False
        while not ended and len(contacts) < limit and self._clock.monotonic() < until:
            async with self._database.transaction() as tx:
                rows, upto = await self._find(
                    _SQL.page_of_slice,
                    audience,
                    place,
                    limit - len(contacts),
                    self._clock.now(),
                    tx,
                )
            contacts.extend(map(contact_of, rows))
            ended = upto is None
            place = upto or place
        return Members(contacts, None if ended else place)

    async def first_members(
        self, audience: Audience, limit: int, now: datetime, tx: Connection
    ) -> list[asyncpg.Record]:
        """Some of those who match, from the first window that has any; rows of contacts."""
        place: UUID | None = FIRST_ID
        for _ in range(_WINDOWS_TRIED):
            if place is None:
                break
            rows, place = await self._find(_SQL.page_of_slice, audience, place, limit, now, tx)
            if rows:
                return rows
        return []

    async def cut(
        self,
        audience: Audience,
        after: UUID,
        limit: int,
        now: datetime,
        tx: Connection,
        *,
        window: int = PAGE_WINDOW,
    ) -> tuple[list[asyncpg.Record], UUID | None]:
        """Up to `limit` contacts (`contact_id`, `zone`) that match and were there at `now`, from
        the `window` contacts behind `after`; and how far that is, None: to the end."""
        return await self._find(
            _SQL.cut_slice, audience, after, limit, now, tx, window=window, until=now
        )

    async def _find(
        self,
        template: Query,
        audience: Audience,
        after: UUID,
        limit: int,
        now: datetime,
        tx: Connection,
        *,
        window: int = PAGE_WINDOW,
        **more: Any,
    ) -> tuple[list[asyncpg.Record], UUID | None]:
        """Up to `limit` rows of the `window` contacts behind `after`, and behind whom nobody was
        looked at; None when there is nobody."""
        end = await self._database.fetchval(
            _SQL.end_of_window, audience.workspace_id, after, window, tx=tx
        )
        async with self._planned_for_slices(tx):
            rows = await self._in_slice(
                template, audience, after, end or LAST_ID, now, tx, limit=limit, **more
            )
        return rows, rows[-1]["contact_id"] if len(rows) == limit else end
