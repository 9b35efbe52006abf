"""The topics of the lanes: how many partitions each has, what brokers are told, who makes them.

Nothing in a topic may go because of its age or size, for it may be a job that nobody has done yet:
what is done is cut off at the low-water mark (`lag.py`).
"""

import asyncio
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from time import monotonic
from typing import Any

from mailyard.core.errors import ConfigurationError, Unavailable
from mailyard.queue.engines.kafka.options import RECORD_BYTES, KafkaOptions, library
from mailyard.queue.job import EMAIL_BULK, EMAIL_EVENTS, EMAIL_SEND, INBOUND_EMAIL
from mailyard.queue.lanes import parse_partitions

PARTITIONS = {EMAIL_SEND: 100, EMAIL_BULK: 50, EMAIL_EVENTS: 20, INBOUND_EMAIL: 50}
OTHER_PARTITIONS = 20
REPLICAS = 3
JUST_MADE_S = 2.0  # until every broker knows of a topic
_AGAIN_S = 0.1

_CONFIG = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "max.message.bytes": str(RECORD_BYTES),
    "message.timestamp.type": "CreateTime",
    "unclean.leader.election.enable": "false",
    "segment.bytes": str(128 * 1024 * 1024),
    "segment.ms": str(3600 * 1000),
}


@dataclass(frozen=True, slots=True)
class Provisioned:
    """What was done about a topic: made, grown, configured, or left as it was."""

    topic: str
    partitions: int
    replicas: int
    outcome: str


class Topics:
    """Looks at topics and makes them. One a process."""

    def __init__(self, options: KafkaOptions) -> None:
        self._options = options
        self._admin: Any = None
        self._partitions: dict[str, int] = {}

    @property
    def admin(self) -> Any:
        """The library's client for administration."""
        if self._admin is None:
            self._admin = library("confluent_kafka.admin").AdminClient(self._options.client())
        return self._admin

    def forget(self) -> None:
        """Ask the brokers again: topics may have been made or grown."""
        self._partitions.clear()

    async def partitions(self, topic: str, patience_s: float = 0.0) -> int:
        """How many partitions `topic` has. Raises ConfigurationError when it was not made yet,
        Unavailable when no broker answers.

        `patience_s`: so long it is asked again, for a topic that was made a moment ago is not known
        to every broker at once.
        """
        known = self._partitions.get(topic)
        if known is None:
            until_s = monotonic() + patience_s
            found = (await self.describe()).get(topic)
            while not found and monotonic() < until_s:
                await asyncio.sleep(_AGAIN_S)
                found = (await self.describe()).get(topic)
            if not found:
                raise ConfigurationError(
                    f"Kafka has no topic {topic}: make it with `mailyard queue provision`"
                )
            known = self._partitions[topic] = found[0]
        return known

    async def describe(self) -> dict[str, tuple[int, int]]:
        """(partitions, replicas) of every topic. Raises Unavailable."""
        timeout_s = self._options.request_s
        try:
            found = await asyncio.to_thread(self.admin.list_topics, timeout=timeout_s)
        except library("confluent_kafka").KafkaException as error:
            raise Unavailable(f"Kafka does not answer: {_said(error)}") from error
        return {
            name: (
                len(topic.partitions),
                min((len(part.replicas) for part in topic.partitions.values()), default=0),
            )
            for name, topic in found.topics.items()
        }

    async def brokers(self) -> int:
        """How many brokers the cluster has. Raises Unavailable."""
        try:
            found = await asyncio.to_thread(self.admin.list_topics, timeout=self._options.request_s)
        except library("confluent_kafka").KafkaException as error:
            raise Unavailable(f"Kafka does not answer: {_said(error)}") from error
        return len(found.brokers)

    async def provision(
        self, wanted: Mapping[str, int], replicas: int = REPLICAS
    ) -> list[Provisioned]:
        """Make the topics of the lanes `wanted` (partitions each), or grow them; never fewer.

        With three replicas, two must have a record before it is acknowledged, so any one broker may
        go. Raises Unavailable, ConfigurationError when the brokers refuse.
        """
        replicas = min(replicas, await self.brokers())
        there = await self.describe()
        done = []
        for queue, partitions in wanted.items():
            topic = self._options.topic(queue)
            if topic not in there:
                await self._make(topic, partitions, replicas)
                done.append(Provisioned(topic, partitions, replicas, "made"))
                continue
            has, copies = there[topic]
            if has < partitions:
                await self._grow(topic, partitions)
            await self._configure(topic, copies)
            outcome = f"grown from {has}" if has < partitions else "there"
            done.append(Provisioned(topic, max(has, partitions), copies, outcome))
        self.forget()
        return done

    async def _make(self, topic: str, partitions: int, replicas: int) -> None:
        new = library("confluent_kafka.admin").NewTopic(
            topic,
            num_partitions=partitions,
            replication_factor=replicas,
            config=_config(replicas),
        )
        await self._ask(topic, self.admin.create_topics([new], operation_timeout=20.0))

    async def _grow(self, topic: str, partitions: int) -> None:
        more = library("confluent_kafka.admin").NewPartitions(topic, partitions)
        await self._ask(topic, self.admin.create_partitions([more], operation_timeout=20.0))

    async def _configure(self, topic: str, replicas: int) -> None:
        admin = library("confluent_kafka.admin")
        resource = admin.ConfigResource(
            admin.ConfigResource.Type.TOPIC,
            topic,
            incremental_configs=[
                admin.ConfigEntry(name, value, incremental_operation=admin.AlterConfigOpType.SET)
                for name, value in _config(replicas).items()
            ],
        )
        await self._ask(topic, self.admin.incremental_alter_configs([resource]))

    async def _ask(self, topic: str, futures: Mapping[Any, "Future[Any]"]) -> None:
        for future in futures.values():
            try:
                await asyncio.wrap_future(future)
            except library("confluent_kafka").KafkaException as error:
                if error.args[0].retriable():
                    raise Unavailable(f"Kafka could not do {topic}: {_said(error)}") from error
                raise ConfigurationError(f"Kafka refuses {topic}: {_said(error)}") from error


def partitions_of(queue: str, settings: str = "") -> int:
    """How many partitions the topic of a lane is made with; `settings`: lane=number, …"""
    chosen = parse_partitions(settings)
    return chosen.get(queue, PARTITIONS.get(queue, OTHER_PARTITIONS))


def _config(replicas: int) -> dict[str, str]:
    return _CONFIG | {"min.insync.replicas": "2" if replicas >= 3 else "1"}


def _said(error: Exception) -> str:
    first = error.args[0] if error.args else error
    return str(first.str()) if hasattr(first, "str") else str(first)
