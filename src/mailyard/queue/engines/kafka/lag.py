"""How much lies in the log that is not given out, and below what everything is done.

The depth of a lane is the consumer's lag: the ends of its partitions less how far they are given
out. What is done is told to the group, so that Kafka's own tools show the lag too and a new member
begins there, and is cut off the log now and then.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import Any

import structlog

from mailyard.core.errors import ConfigurationError, Unavailable
from mailyard.queue.engines.kafka.intake import Place, Reader
from mailyard.queue.engines.kafka.options import KafkaOptions, library
from mailyard.queue.engines.kafka.record import decode
from mailyard.queue.engines.kafka.topics import JUST_MADE_S, Topics
from mailyard.storage.database import Database
from mailyard.storage.queries import load

CUT_EVERY_S = 60.0

_SQL = load("kafka")
_LOG = structlog.get_logger(__name__)


@dataclass(slots=True)
class Cursor:
    """How far a partition is given out, and which records of the outbox's last batch were seen."""

    claimed: int
    batch: int
    seen: set[int]


class Lag:
    """Asks brokers and database. One a process."""

    def __init__(
        self, database: Database, options: KafkaOptions, topics: Topics, reader: Reader
    ) -> None:
        self._database = database
        self._options = options
        self._topics = topics
        self._reader = reader
        self._begun: dict[str, int] = {}
        self._ends: dict[Place, int] = {}
        self._heads: dict[Place, tuple[int, datetime]] = {}
        self._cut_at_s = monotonic() + CUT_EVERY_S
        self._cut: dict[Place, int] = {}

    async def cursors(self, topics: Sequence[str]) -> dict[Place, Cursor]:
        """The cursors of every partition of `topics`, begun where nobody has yet."""
        for topic in topics:
            size = await self._topics.partitions(topic, JUST_MADE_S)
            if self._begun.get(topic) != size:
                await self._database.execute(_SQL.add_cursors, topic, size)
                self._begun[topic] = size
        rows = await self._database.fetch(_SQL.cursors, list(topics))
        return {
            (row["topic"], row["part"]): Cursor(
                row["claimed"],
                row["batch"],
                {n for part in row["seen"] for n in range(part.lower, part.upper)},
            )
            for row in rows
        }

    async def ends(self, places: Iterable[Place]) -> dict[Place, int]:
        """Behind the last record of each partition; of one without a leader the last one known.

        Raises Unavailable when nobody answers.
        """
        spec = library("confluent_kafka.admin").OffsetSpec.latest()
        places = set(places)
        found = await self._offsets(places, spec)
        self._ends |= found
        return {place: self._ends[place] for place in places if place in self._ends}

    async def begins(self, places: Iterable[Place]) -> dict[Place, int]:
        """The first offset that each partition still has. Raises Unavailable."""
        return await self._offsets(places, library("confluent_kafka.admin").OffsetSpec.earliest())

    async def _offsets(self, places: Iterable[Place], spec: Any) -> dict[Place, int]:
        kafka = library("confluent_kafka")
        asked = {kafka.TopicPartition(*place): spec for place in places}
        if not asked:
            return {}
        futures = self._topics.admin.list_offsets(asked, request_timeout=self._options.request_s)
        answers = await asyncio.gather(
            *(asyncio.wrap_future(future) for future in futures.values()), return_exceptions=True
        )
        found = {
            (part.topic, part.partition): answer.offset
            for part, answer in zip(futures, answers, strict=True)
            if not isinstance(answer, BaseException)
        }
        if not found:
            raise Unavailable(f"Kafka does not answer: {answers[0]}")
        return found

    async def waiting(self, topics: Sequence[str]) -> tuple[dict[str, int], dict[str, datetime]]:
        """By topic: how many records are not given out, and when the first of them was enqueued.

        While no broker answers it is the last that was known.
        """
        cursors = await self.cursors(topics)
        try:
            ends = await self.ends(cursors)
        except Unavailable as error:
            _LOG.warning("lag not known", error=error.message)
            ends = {place: self._ends[place] for place in cursors if place in self._ends}
        lags: dict[str, int] = dict.fromkeys(topics, 0)
        behind: dict[Place, int] = {}
        for place, end in ends.items():
            lag = end - cursors[place].claimed
            if lag > 0:
                lags[place[0]] += lag
                behind[place] = cursors[place].claimed
        await self._look_at_heads(behind)
        firsts: dict[str, datetime] = {}
        for place, claimed in behind.items():
            head = self._heads.get(place)
            if head is not None and head[0] == claimed:
                topic = place[0]
                firsts[topic] = min(head[1], firsts.get(topic, head[1]))
        return lags, firsts

    async def _look_at_heads(self, behind: Mapping[Place, int]) -> None:
        """Read the first record of each partition that has moved since it was last looked at."""
        moved: dict[str, dict[int, tuple[int, int]]] = {}
        for place, claimed in behind.items():
            if self._heads.get(place, (None,))[0] != claimed:
                moved.setdefault(place[0], {})[place[1]] = (claimed, claimed + 1)
        for topic, ranges in moved.items():
            for part, fetched in (await self._reader.read(topic, ranges)).items():
                for _, value in fetched[:1]:
                    self._heads[topic, part] = (ranges[part][0], decode(value).enqueued_at)

    async def check(self, topics: Sequence[str]) -> None:
        """Raises ConfigurationError when less was written than has been given out: it is another
        log, whose first records would be taken for such as were given out. A log that cannot be
        asked says nothing."""
        try:
            cursors = await self.cursors(topics)
            ends = await self.ends(cursors)
        except Unavailable:
            return
        for (topic, part), end in ends.items():
            claimed = cursors[topic, part].claimed
            if end < claimed:
                raise ConfigurationError(
                    f"partition {part} of {topic} ends at {end}, and {claimed} of its records were "
                    "given out: this is not the log that the database knows (another cluster, a "
                    "topic that was made anew). Name topics that nobody has read: another "
                    "MAILYARD_KAFKA_PREFIX, then `mailyard queue provision`"
                )

    # What is done -----------------------------------------------------------------------------

    async def low_water(self, topics: Sequence[str]) -> dict[Place, int]:
        """Below which offset of each partition everything is done, without a gap."""
        rows = await self._database.fetch(_SQL.low_water, list(topics))
        return {(row["topic"], row["part"]): row["low"] for row in rows}

    async def cut(self, low: Mapping[Place, int], assigned: set[Place]) -> None:
        """Now and then, let the brokers delete what is done in this process's partitions."""
        if monotonic() < self._cut_at_s:
            return
        self._cut_at_s = monotonic() + CUT_EVERY_S
        kafka = library("confluent_kafka")
        moved = {
            place: offset
            for place, offset in low.items()
            if place in assigned and offset > self._cut.get(place, 0)
        }
        if not moved:
            return
        parts = [kafka.TopicPartition(*place, offset) for place, offset in moved.items()]
        futures: Mapping[Any, Any] = self._topics.admin.delete_records(parts)
        for part, future in futures.items():
            try:
                await asyncio.wrap_future(future)
                self._cut[part.topic, part.partition] = moved[part.topic, part.partition]
            except kafka.KafkaException as error:
                _LOG.warning("log not cut", topic=part.topic, error=str(error))
                return
