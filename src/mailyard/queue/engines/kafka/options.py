"""Where the brokers are, and what our clients are told."""

import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from mailyard.core.errors import ConfigurationError

FETCH_BYTES = 4 * 1024 * 1024  # of one partition; a record has at most 1 MiB and its head
RECORD_BYTES = 2 * 1024 * 1024  # the largest batch that brokers and clients take
_QUEUED_KB = 16 * 1024  # what the library fetches ahead of us, all partitions together
_REQUEST_S = 10.0


@dataclass(frozen=True, slots=True)
class KafkaOptions:
    """`servers`: host:port, with commas between. `protocol`: classic, or consumer (KIP-848).

    `prefix` stands before the names of topics, for several installations on one cluster. `sasl`: a
    mechanism like SCRAM-SHA-512, with `user` and `password`; `ca` verifies the brokers under TLS.
    """

    servers: str
    prefix: str = ""
    group: str = "mailyard"
    protocol: str = "classic"
    tls: bool = False
    ca: Path | None = None
    sasl: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    request_s: float = _REQUEST_S

    def topic(self, queue: str) -> str:
        """The topic of a lane."""
        return self.prefix + queue

    def queue(self, topic: str) -> str:
        """The lane of a topic."""
        return topic.removeprefix(self.prefix)

    def client(self) -> dict[str, Any]:
        """What every client is told."""
        conf: dict[str, Any] = {
            "bootstrap.servers": self.servers,
            "client.id": f"mailyard-{socket.gethostname()}-{os.getpid()}",
            "socket.keepalive.enable": True,
            "reconnect.backoff.max.ms": 1000,
            "log_level": 3,
        }
        secure = "ssl" if self.tls else "plaintext"
        conf["security.protocol"] = f"sasl_{secure}" if self.sasl else secure
        if self.ca is not None:
            conf["ssl.ca.location"] = str(self.ca)
        if self.sasl:
            conf |= {
                "sasl.mechanism": self.sasl,
                "sasl.username": self.user,
                "sasl.password": self.password,
            }
        return conf

    def producer(self, give_up_s: float) -> dict[str, Any]:
        """Idempotent, acknowledged by all replicas in step. `give_up_s` 0: it tries for ever."""
        return self.client() | {
            "enable.idempotence": True,
            "acks": "all",
            "compression.type": "lz4",
            "message.timeout.ms": int(give_up_s * 1000),
            "message.max.bytes": RECORD_BYTES,
            "queue.buffering.max.messages": 100_000,
            "linger.ms": 1,
        }

    def member(self) -> dict[str, Any]:
        """A member of the group: partitions are dealt out among the processes that work."""
        conf = self._fetching() | {
            "group.id": self.group,
            "group.protocol": self.protocol,
            "auto.offset.reset": "earliest",
            "max.poll.interval.ms": 300_000,
        }
        if self.protocol == "classic":
            conf |= {
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": 10_000,
                "heartbeat.interval.ms": 2_000,
            }
        return conf

    def reader(self) -> dict[str, Any]:
        """Reads given offsets, outside the group."""
        return self._fetching() | {
            "group.id": f"{self.group}-reader",  # wanted by the library; nothing is committed
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "queued.min.messages": 1_000,
        }

    def _fetching(self) -> dict[str, Any]:
        return self.client() | {
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "fetch.wait.max.ms": 100,
            "fetch.message.max.bytes": FETCH_BYTES,
            "queued.max.messages.kbytes": _QUEUED_KB,
            "fetch.queue.backoff.ms": 10,  # by itself it waits a second when a queue was full
            "fetch.error.backoff.ms": 100,
        }


def library(name: str) -> ModuleType:
    """A module of Kafka's client. Raises ConfigurationError naming the extra when it is missing."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigurationError(
            "MAILYARD_QUEUE_ENGINE is kafka, but the package confluent-kafka is not installed: "
            "pip install 'mailyard[fleet]'"
        ) from error
