"""Records out: this process's partitions, dealt out by the consumer group, and any range by offset.

The group only shares out who fetches what. Who works on a job is decided by the claim
(`claiming.py`), so a process that has lost a partition without knowing can do no harm.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import structlog

from mailyard.queue.engines.kafka.options import KafkaOptions, library

Fetched = tuple[int, bytes]  # offset, value
Place = tuple[str, int]  # topic, partition

_CONSUMED = 1_000
_POLL_S = 0.2
_FULL_RECORDS = 20_000  # of all partitions together; with more the fetching pauses
_FULL_BYTES = 32 * 1024 * 1024
_FULL_S = 1.0
_PAUSE_S = 1.0
_READ_S = 10.0

_LOG = structlog.get_logger(__name__)


class Intake:
    """A member of the group, and what it has fetched. One a process."""

    def __init__(self, options: KafkaOptions) -> None:
        self.assigned: set[Place] = set()
        self._options = options
        self._consumer: Any = None
        self._topics: set[str] = set()
        self._subscribed: set[str] = set()
        self._buffers: dict[Place, deque[Fetched]] = {}
        self._records = 0
        self._bytes = 0
        self._room = asyncio.Event()
        self._listeners: set[asyncio.Event] = set()
        self._pumping: asyncio.Task[None] | None = None
        self._closing = False

    def want(self, topic: str) -> None:
        """Take part in `topic` from now on."""
        if topic not in self._topics:
            self._topics.add(topic)
            if self._pumping is None:
                self._pumping = asyncio.create_task(self._pump(), name="kafka-intake")

    async def close(self) -> None:
        """Leave the group: the partitions go to others at once."""
        self._closing = True
        self._room.set()
        if self._pumping is not None:
            await asyncio.gather(self._pumping, return_exceptions=True)
        if self._consumer is not None:
            await self._consumer.close()
            self._consumer = None

    # What lies here ---------------------------------------------------------------------------

    def waiting(self, topic: str) -> bool:
        """Whether anything of `topic` lies here."""
        return any(buffer and place[0] == topic for place, buffer in self._buffers.items())

    def buffers(self, topic: str) -> dict[int, deque[Fetched]]:
        """What lies here of each partition of `topic`, oldest first. Take with `drop`."""
        return {
            place[1]: buffer
            for place, buffer in self._buffers.items()
            if buffer and place[0] == topic
        }

    def drop(self, place: Place, below: int) -> None:
        """Forget what lies below the offset `below`: it is given out."""
        buffer = self._buffers.get(place)
        while buffer and buffer[0][0] < below:
            _, value = buffer.popleft()
            self._records -= 1
            self._bytes -= len(value)
        self._taken()

    async def rewind(self, place: Place, offset: int) -> None:
        """Fetch from `offset` again. What lies here of the partition is forgotten."""
        self._clear(place)
        if place in self.assigned:
            partition = library("confluent_kafka").TopicPartition(*place, offset)
            with suppress(library("confluent_kafka").KafkaException):
                await self._consumer.seek(partition)

    def listen(self, arrived: asyncio.Event) -> Callable[[], None]:
        """Set `arrived` whenever something comes; call the answer to listen no more."""
        self._listeners.add(arrived)
        return lambda: self._listeners.discard(arrived)

    async def commit(self, offsets: Mapping[Place, int]) -> None:
        """Tell the group how far everything is done in this process's partitions."""
        if self._consumer is None or not offsets:
            return
        kafka = library("confluent_kafka")
        parts = [kafka.TopicPartition(*place, offset) for place, offset in offsets.items()]
        with suppress(kafka.KafkaException):  # a rebalance is under way: the next time does
            await self._consumer.commit(offsets=parts, asynchronous=False)

    # Fetching ---------------------------------------------------------------------------------

    async def _pump(self) -> None:
        full = False
        while not self._closing:
            try:
                await self._subscribe()
                await self._pause_when_full()
                messages = await self._consume(full)
                full = len(messages) >= _CONSUMED
                self._take(messages)
            except Exception as error:  # away, or whatever: fetching goes on by itself
                _LOG.warning("fetching stopped", error=str(error))
                await asyncio.sleep(_PAUSE_S)

    async def _subscribe(self) -> None:
        if self._topics == self._subscribed:
            return
        await asyncio.sleep(0.02)  # the lanes of a worker begin together: one subscription for all
        if self._consumer is None:
            self._consumer = library("confluent_kafka.aio").AIOConsumer(
                self._options.member(), max_workers=3
            )
        topics = set(self._topics)
        await self._consumer.subscribe(
            sorted(topics),
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_revoke,
        )
        self._subscribed = topics

    async def _consume(self, full: bool) -> Sequence[Any]:
        """What has come. The library waits out its time for a whole batch: so for one, then all."""
        messages: list[Any] = []
        if not full:
            messages = await self._consumer.consume(1, _POLL_S)
            if not messages:
                return []
        messages += await self._consumer.consume(_CONSUMED - len(messages), 0)
        return messages

    def _take(self, messages: Sequence[Any]) -> None:
        for message in messages:
            if (error := message.error()) is not None:
                _LOG.warning("fetching failed", topic=message.topic(), error=error.str())
                continue
            place = (message.topic(), message.partition())
            buffer = self._buffers.get(place)
            if buffer is None:
                if place not in self.assigned:
                    continue  # of a partition that was just revoked
                buffer = self._buffers[place] = deque()
            value = message.value() or b""
            buffer.append((message.offset(), value))
            self._records += 1
            self._bytes += len(value)
        if messages:
            for listener in self._listeners:
                listener.set()

    async def _pause_when_full(self) -> None:
        """Fetch nothing more until half is taken; the group still hears of us.

        For a moment nothing is asked of the library, which fetches ahead only so far. Pausing
        throws that away, so it is for handlers that are slow.
        """
        if self._records < _FULL_RECORDS and self._bytes < _FULL_BYTES:
            return
        self._room.clear()
        if await self._room_within(_FULL_S):
            return
        kafka = library("confluent_kafka")
        paused: set[Place] = set()
        while not self._closing:
            new = self.assigned - paused
            await self._consumer.pause([kafka.TopicPartition(*place) for place in new])
            paused |= new
            self._take(await self._consumer.consume(1, 0))
            if await self._room_within(_POLL_S):
                break
        still = paused & self.assigned
        await self._consumer.resume([kafka.TopicPartition(*place) for place in still])

    async def _room_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._room.wait()
                return True
        return False

    def _taken(self) -> None:
        if self._records <= _FULL_RECORDS // 2 and self._bytes <= _FULL_BYTES // 2:
            self._room.set()

    # Rebalancing ------------------------------------------------------------------------------

    async def _on_assign(self, _: Any, partitions: Sequence[Any]) -> None:
        self.assigned |= {(part.topic, part.partition) for part in partitions}

    async def _on_revoke(self, _: Any, partitions: Sequence[Any]) -> None:
        for part in partitions:
            place = (part.topic, part.partition)
            self.assigned.discard(place)
            self._clear(place)

    def _clear(self, place: Place) -> None:
        for _, value in self._buffers.pop(place, ()):
            self._records -= 1
            self._bytes -= len(value)
        self._taken()


class Reader:
    """Reads ranges of partitions that are not this process's. One range after the other."""

    def __init__(self, options: KafkaOptions) -> None:
        self._options = options
        self._consumer: Any = None
        self._turn = asyncio.Lock()

    async def read(
        self, topic: str, ranges: Mapping[int, tuple[int, int]]
    ) -> dict[int, list[Fetched]]:
        """What lies in the partitions from the first offset up to the second (not included).

        What is not there any more is missing in the answer; so is what did not come in time.
        """
        kafka = library("confluent_kafka")
        async with self._turn:
            if self._consumer is None:
                self._consumer = library("confluent_kafka.aio").AIOConsumer(
                    self._options.reader(), max_workers=2
                )
            await self._consumer.assign(
                [kafka.TopicPartition(topic, part, first) for part, (first, _) in ranges.items()]
            )
            try:
                return await self._collect(ranges)
            finally:
                await self._consumer.unassign()

    async def close(self) -> None:
        if self._consumer is not None:
            await self._consumer.close()
            self._consumer = None

    async def _collect(self, ranges: Mapping[int, tuple[int, int]]) -> dict[int, list[Fetched]]:
        found: dict[int, list[Fetched]] = {part: [] for part in ranges}
        open_parts = {part for part, (first, end) in ranges.items() if first < end}
        with suppress(TimeoutError):
            async with asyncio.timeout(_READ_S):
                while open_parts:
                    messages = await self._consumer.consume(1, _POLL_S)
                    messages += await self._consumer.consume(_CONSUMED, 0)
                    for message in messages:
                        self._sort_in(message, ranges, found, open_parts)
        return found

    def _sort_in(
        self,
        message: Any,
        ranges: Mapping[int, tuple[int, int]],
        found: dict[int, list[Fetched]],
        open_parts: set[int],
    ) -> None:
        part = message.partition()
        if part not in ranges:
            return
        if message.error() is not None:  # the end of the partition, or it cannot be read from here
            open_parts.discard(part)
            return
        end = ranges[part][1]
        if message.offset() < end:
            found[part].append((message.offset(), message.value() or b""))
        if message.offset() >= end - 1:
            open_parts.discard(part)
