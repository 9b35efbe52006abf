"""Records in: batches to the brokers, each acknowledged by all replicas in step.

While one batch is on its way the next gathers, so the busier the process the larger the batches.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import structlog

from mailyard.core.errors import Unavailable
from mailyard.queue.engines.kafka.options import KafkaOptions, library

_BATCH = 2_000  # records handed to the library together
_POLL_S = 0.1
_AWAY_S = 5.0  # after a failure others need not find out by themselves

_LOG = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record on its way to a partition."""

    topic: str
    partition: int
    value: bytes


@dataclass(slots=True, eq=False)
class _Waiting:
    records: Sequence[Outgoing]
    answer: "asyncio.Future[list[BaseException | None]]"


class Sender:
    """One a purpose and process. `give_up_s` 0: it tries until it is closed."""

    def __init__(self, options: KafkaOptions, give_up_s: float) -> None:
        self._options = options
        self._give_up_s = give_up_s
        self._producer: Any = None
        self._waiting: list[_Waiting] = []
        self._sending: asyncio.Task[None] | None = None
        self._away_until_s = 0.0
        self._closed = False

    @property
    def away(self) -> bool:
        """Whether the brokers did not answer a moment ago."""
        return monotonic() < self._away_until_s

    async def send(self, records: Sequence[Outgoing]) -> list[BaseException | None]:
        """Send `records`, those of a partition in order; for each None, or why it failed.

        What failed may have reached the log all the same.
        """
        if self._closed:
            raise Unavailable("this process is ending")
        waiting = _Waiting(records, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_all(), name="kafka-send")
        return await waiting.answer

    async def close(self) -> None:
        """End; what is on its way is given up, and said to have failed."""
        self._closed = True
        if self._producer is not None:
            await self._producer.purge()
        if self._sending is not None:
            await asyncio.gather(self._sending, return_exceptions=True)
        if self._producer is not None:
            await self._producer.close()
            self._producer = None

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                batch: list[_Waiting] = []
                size = 0
                while self._waiting and size < _BATCH:
                    batch.append(self._waiting.pop(0))
                    size += len(batch[-1].records)
                await self._send(batch)
        finally:
            self._sending = None

    async def _send(self, batch: Sequence[_Waiting]) -> None:
        try:
            answers = await self._deliver([record for one in batch for record in one.records])
        except Exception as error:
            answers = [error] * sum(len(one.records) for one in batch)
        failed = next((answer for answer in answers if answer is not None), None)
        if failed is not None:
            self._away_until_s = monotonic() + _AWAY_S
            _LOG.warning("records not sent", error=str(failed), records=len(answers))
        start = 0
        for one in batch:
            end = start + len(one.records)
            if not one.answer.done():
                one.answer.set_result(answers[start:end])
            start = end

    async def _deliver(self, records: Sequence[Outgoing]) -> list[BaseException | None]:
        producer = self._open()
        reports = []
        for start in range(0, len(records), _BATCH):
            reports += [
                await producer.produce(one.topic, value=one.value, partition=one.partition)
                for one in records[start : start + _BATCH]
            ]
            # Hands the batch over and waits for nothing: a flush that waits keeps the library's
            # threads spinning while a broker is away. The reports are filled in by `poll`.
            await producer.flush(0)
            while not all(report.done() for report in reports[start:]):
                await producer.poll(_POLL_S)
        return [_outcome(report) for report in reports]

    def _open(self) -> Any:
        if self._producer is None:
            self._producer = library("confluent_kafka.aio").AIOProducer(
                self._options.producer(self._give_up_s),
                max_workers=2,
                batch_size=_BATCH + 1,  # a batch goes when we say so
                buffer_timeout=0,
            )
        return self._producer


def _outcome(report: "asyncio.Future[Any]") -> BaseException | None:
    if not report.done():
        return Unavailable("Kafka gave no report of a record")
    if report.cancelled():
        return Unavailable("this process is ending")
    return report.exception()
