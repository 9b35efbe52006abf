"""The outbox on its way to the log: whatever dies in between, each job is given out once."""

from collections.abc import Callable, Sequence

import pytest
from contract.conftest import Yard
from contract.queue_words import Q, counts, job, payloads, take

from mailyard.queue.engines.kafka.engine import KafkaEngine
from mailyard.queue.engines.kafka.options import KafkaOptions
from mailyard.queue.engines.kafka.outbox import Drain
from mailyard.queue.engines.kafka.sender import Outgoing, Sender
from mailyard.queue.job import LANES


class Dies(Exception):
    """The process that drains is no more."""


class DyingSender(Sender):
    """Sends some of a batch's records, and takes its process along; `late` are the others."""

    def __init__(self, options: KafkaOptions, which: Callable[[int], bool]) -> None:
        super().__init__(options, give_up_s=0.0)
        self._which = which
        self.late: list[Outgoing] = []

    async def send(self, records: Sequence[Outgoing]) -> list[BaseException | None]:
        self.late = [record for n, record in enumerate(records) if not self._which(n)]
        await super().send([record for n, record in enumerate(records) if self._which(n)])
        raise Dies

    async def wake_up(self) -> None:
        """It stood still, and now sends the rest."""
        await super().send(self.late)


async def die_draining(
    yard: Yard, options: KafkaOptions, which: Callable[[int], bool]
) -> DyingSender:
    engine = yard.engine
    assert isinstance(engine, KafkaEngine)
    drain = Drain(
        database=engine._database,
        bus=yard.bus,
        options=options,
        topics=engine._topics,
        queues=LANES,
        hold_s=0.0,
    )
    await drain._sender.close()
    drain._sender = sender = DyingSender(options, which)
    with pytest.raises(Dies):
        await drain.drain()
    return sender


async def put(yard: Yard, *names: str) -> None:
    """Enqueue in a transaction, each job of its own tenant or of none."""
    async with yard.transaction() as tx:
        await yard.engine.enqueue([job(name) for name in names], tx)


@pytest.mark.parametrize(
    "sent",
    [lambda n: False, lambda n: n < 20, lambda n: n % 3 == 0, lambda n: n == 39, lambda n: True],
    ids=["none", "the first half", "every third", "the last", "all"],
)
async def test_a_batch_of_a_drain_that_died_is_given_out_once(
    yard: Yard, options: KafkaOptions, sent: Callable[[int], bool]
) -> None:
    names = [str(n) for n in range(40)]
    await put(yard, *names)
    sender = await die_draining(yard, options, sent)
    await put(yard, "behind it")
    leased = await take(yard.other)
    assert sorted(payloads(leased)) == sorted([*names, "behind it"])
    assert await take(yard.engine) == []
    await sender.close()
    await yard.other.complete(leased)
    assert await counts(yard.engine) == (0, 0, 0, 0)


async def test_what_a_drain_sends_that_was_taken_over_meanwhile_is_a_copy(
    yard: Yard, options: KafkaOptions
) -> None:
    await put(yard, *"abcd")
    sender = await die_draining(yard, options, lambda n: n < 2)
    assert payloads(await take(yard.other)) == list("abcd")
    await put(yard, *"ef")
    assert payloads(await take(yard.other, 1)) == ["e"]
    await sender.wake_up()
    await put(yard, "g")
    assert payloads(await take(yard.engine)) == ["f", "g"]
    assert await take(yard.other) == []
    await sender.close()


async def test_what_the_claimer_had_seen_of_a_batch_it_knows_when_another_claims(
    yard: Yard, options: KafkaOptions
) -> None:
    await put(yard, *"abcdef")
    sender = await die_draining(yard, options, lambda n: n % 2 == 0)
    engine = yard.engine
    assert isinstance(engine, KafkaEngine)
    # Before anybody drains anew, what has arrived is given out.
    assert payloads(await engine._claiming.take(Q, 2, "worker-1")) == ["a", "c"]
    assert payloads(await take(yard.other)) == ["e", "b", "d", "f"]
    await sender.close()


async def test_a_job_whose_topic_was_not_made_waits_in_the_outbox(
    yard: Yard, options: KafkaOptions
) -> None:
    engine = yard.engine
    assert isinstance(engine, KafkaEngine)
    elsewhere = KafkaOptions(options.servers, f"{options.prefix}absent.", options.group)
    absent = Drain(
        database=engine._database,
        bus=yard.bus,
        options=elsewhere,
        topics=type(engine._topics)(elsewhere),
        queues=LANES,
        hold_s=0.0,
    )
    await put(yard, "a")
    await absent.drain()
    await absent.close()
    assert payloads(await take(yard.engine)) == ["a"]
