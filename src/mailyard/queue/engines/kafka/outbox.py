"""The outbox: what was enqueued in a transaction, on its way to the log.

One process at a time drains: whoever holds the drain's row, for a few seconds that each turn
prolongs. A turn ends the last batch and takes the next in one statement, written down before a byte
of it leaves. Whoever takes over from one who died sends that batch again, to the same partitions
under the same numbers, and whoever claims them from the log knows the copies (`claiming.py`). So
each job is given out once, whenever the drain dies.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from time import monotonic
from typing import Any
from uuid import uuid4

import structlog

from mailyard.core.errors import ConfigurationError
from mailyard.queue.engine import WakeUps
from mailyard.queue.engines.kafka.options import KafkaOptions
from mailyard.queue.engines.kafka.placing import spread_of
from mailyard.queue.engines.kafka.record import came
from mailyard.queue.engines.kafka.sender import Outgoing, Sender
from mailyard.queue.engines.kafka.topics import Topics
from mailyard.storage.database import Database
from mailyard.storage.queries import load

OUTBOX_TOPIC = "queue-outbox"  # announced on the bus when something was put in
HOLD_S = 3.0  # a drain that says nothing for so long is taken over
_BATCH = 2_000
_IDS = 1_000  # drawn ahead
_SETTLED_S = 5.0  # rows that come so late are found by a look from the beginning
_LOOK_S = 1.0
_PAUSE_S = 0.5  # after a batch of which something was refused

_SQL = load("kafka")
_LOG = structlog.get_logger(__name__)


class Drain:
    """Moves the outbox of `queues` into the log. One a process; `turn` is harmless in any."""

    def __init__(
        self,
        *,
        database: Database,
        bus: WakeUps,
        options: KafkaOptions,
        topics: Topics,
        queues: Sequence[str],
        hold_s: float = HOLD_S,
    ) -> None:
        self._database = database
        self._options = options
        self._topics = topics
        self._queues = list(queues)
        self._hold_s = hold_s
        self._who = uuid4()
        self._sender = Sender(options, give_up_s=0.0)
        self._heard = bus.subscribe(OUTBOX_TOPIC)
        self._turn = asyncio.Lock()
        self._sent: list[int] = []
        self._ended: deque[tuple[float, int]] = deque()  # when, and the last id of a batch
        self._after = 0
        self._from_zero_s = 0.0
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Drain in the background whenever the drain is this process's."""
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="kafka-drain")

    async def close(self) -> None:
        """End. What is on its way is sent again by whoever drains next."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        self._heard.close()
        await self._sender.close()

    async def drain(self) -> None:
        """Turn until there is nothing more, or it is another's to drain."""
        async with self._turn:
            while await self._next():
                pass

    async def _run(self) -> None:
        while True:
            try:
                async with self._turn:
                    sent = await self._next()
            except Exception as error:  # away, or whatever: the rows stay, the next turn comes
                _LOG.warning("outbox waits", error=str(error))
                await asyncio.sleep(_LOOK_S)
                continue
            if not sent:
                await self._heard.wait(_LOOK_S)

    async def _next(self) -> int:
        """One turn: how many records went. None go when another drains."""
        sizes = await self._sizes()
        if not sizes:
            return 0
        row = await self._database.fetchrow(
            _SQL.next_batch,
            self._who,
            self._sent,
            list(sizes),
            list(sizes.values()),
            [spread_of(size) for size in sizes.values()],
            self._from(),
            _BATCH,
            self._hold_s,
        )
        assert row is not None, "a function with OUT parameters gives one row"
        if not row["mine"]:
            return 0
        self._note_ended()
        self._sent = []
        if not row["job_ids"]:
            return 0
        records = self._records(row)
        outcomes = await self._sender.send(records)
        self._sent = [
            job_id
            for job_id, outcome in zip(row["job_ids"], outcomes, strict=True)
            if outcome is None
        ]
        if len(self._sent) < len(records):
            self._topics.forget()
            await asyncio.sleep(_PAUSE_S)
        return len(self._sent)

    def _records(self, row: Any) -> list[Outgoing]:
        """The batch, each record numbered within its partition, in the order of the ids."""
        numbers: dict[tuple[str, int], int] = {}
        records = []
        for queue, part, record in zip(
            row["job_queues"], row["job_parts"], row["records"], strict=True
        ):
            number = numbers.get((queue, part), 0)
            numbers[queue, part] = number + 1
            value = came(row["batch"], number) + record
            records.append(Outgoing(self._options.topic(queue), part, value))
        return records

    async def _sizes(self) -> dict[str, int]:
        """Partitions of each queue whose topic was made; the others' rows wait."""
        sizes = {}
        for queue in self._queues:
            try:
                sizes[queue] = await self._topics.partitions(self._options.topic(queue))
            except ConfigurationError as error:
                _LOG.warning("outbox waits", error=error.message)
        return sizes

    def _note_ended(self) -> None:
        if self._sent:
            self._ended.append((monotonic(), max(self._sent)))

    def _from(self) -> int:
        """Behind which id the next batch is looked for.

        A transaction may commit after others that drew larger ids. Ids that went long ago are taken
        as settled, so that the dead rows of a long snapshot are not walked over each time; what
        came later still is found from the beginning, every few seconds.
        """
        now_s = monotonic()
        while self._ended and self._ended[0][0] < now_s - _SETTLED_S:
            self._after = max(self._after, self._ended.popleft()[1])
        if now_s >= self._from_zero_s or not self._hold_s:
            self._from_zero_s = now_s + _SETTLED_S
            return 0
        return self._after


class Ids:
    """Ids for jobs, from the sequence that all engines draw from. One a process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ids: deque[int] = deque()
        self._drawing = asyncio.Lock()

    async def draw(self, count: int, tx: Any = None) -> list[int]:
        """`count` ids for jobs, growing. Drawn ahead, so most calls ask nobody."""
        async with self._drawing:
            while len(self._ids) < count:
                most = max(_IDS, count)
                self._ids.extend(await self._database.fetchval(_SQL.draw_ids, most, tx=tx))
            return [self._ids.popleft() for _ in range(count)]
