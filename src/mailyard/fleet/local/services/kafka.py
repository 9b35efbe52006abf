"""Kafka: brokers that are controllers too (KRaft), each asking for the installation's password."""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from uuid import uuid4

from mailyard.core.errors import ConfigurationError
from mailyard.fleet.local.place import LOOPBACK, Place, write_private
from mailyard.fleet.local.process import Say, ServiceProcess, as_we_are
from mailyard.fleet.local.program import CONFLUENT_KAFKA, JAVA, KAFKA
from mailyard.fleet.local.service import Service
from mailyard.queue.engines.kafka.options import KafkaOptions, library

_USER = "mailyard"
_HEAP = ("-Xms128m", "-Xmx384m")
_READY_S = 120.0  # of three Java machines on a small one
_LIST_S = 1.5


class Kafka(Service):
    """`brokers`, counted from 1. One may be lost of three; one alone only comes back."""

    instead = ("kafka_servers",)
    needs = (JAVA, KAFKA, CONFLUENT_KAFKA)

    def __init__(self, place: Place, say: Say, *, brokers: int = 1) -> None:
        super().__init__()
        self._place = place
        numbers = range(1, brokers + 1)
        self._ports = {n: place.port(f"kafka-{n}") for n in numbers}
        self._controllers = {n: place.port(f"kafka-{n}-controller") for n in numbers}
        servers = ",".join(f"{LOOPBACK}:{port}" for port in self._ports.values())
        self.settings = {
            "queue_engine": "kafka",
            "kafka_servers": servers,
            "kafka_sasl": "plain",
            "kafka_user": _USER,
            "kafka_password": place.secret,
        }
        self.processes = [
            ServiceProcess(
                f"kafka-{n}",
                place.folder(f"kafka-{n}"),
                command=self._broker(n),
                ready=self._in_step,
                say=say,
                ready_s=_READY_S,
            )
            for n in numbers
        ]

    @classmethod
    def is_wanted(cls, given: Mapping[str, object]) -> bool:
        return super().is_wanted(given) and given.get("queue_engine", "kafka") == "kafka"

    def places(self) -> Sequence[tuple[str, str]]:
        return [(f"kafka-{n}", f"{LOOPBACK}:{port}") for n, port in self._ports.items()]

    def _broker(self, number: int) -> Callable[[], Awaitable[Sequence[str | Path]]]:
        async def command() -> Sequence[str | Path]:
            folder = self._place.folder(f"kafka-{number}")
            file = folder / "server.properties"
            settings = self._properties(number, folder)
            write_private(file, "".join(f"{name}={value}\n" for name, value in settings.items()))
            if not (folder / "log" / "meta.properties").exists():
                await self._format(file)
            return _java("kafka.Kafka", file, heap=_HEAP)

        return command

    async def _in_step(self) -> bool:
        """Whether the cluster lists all brokers and every partition has somebody who leads it."""
        return await asyncio.to_thread(self._listed)

    def _listed(self) -> bool:
        kafka = library("confluent_kafka")
        options = KafkaOptions(
            servers=self.settings["kafka_servers"],
            sasl="PLAIN",
            user=_USER,
            password=self._place.secret,
        )
        admin = library("confluent_kafka.admin").AdminClient(options.client() | {"log_level": 0})
        try:
            found = admin.list_topics(timeout=_LIST_S)
        except kafka.KafkaException:
            return False
        parts = (part for topic in found.topics.values() for part in topic.partitions.values())
        led = all(part.leader >= 0 for part in parts)
        return led and len(found.brokers) == len(self._ports)

    async def _format(self, properties: Path) -> None:
        """Make the broker's folder: all of a cluster carry its id."""
        note = self._place.root / "kafka.id"
        if not note.exists():
            write_private(note, _cluster_id())
        words = _java(
            *("kafka.tools.StorageTool", "format", "-t", note.read_text(), "-c", properties),
            heap=("-Xmx96m",),
        )
        process = await asyncio.create_subprocess_exec(
            *map(str, words),
            preexec_fn=as_we_are(9),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        said, _ = await process.communicate()
        if process.returncode != 0:
            text = said.decode("utf-8", "replace").strip().splitlines()
            raise ConfigurationError(
                f"Kafka's folder {properties.parent} was not made: {text[-1:]}"
            )

    def _properties(self, number: int, folder: Path) -> dict[str, object]:
        port, controller = self._ports[number], self._controllers[number]
        copies = min(3, len(self._ports))
        in_step = 2 if copies == 3 else 1
        voters = ",".join(f"{n}@{LOOPBACK}:{one}" for n, one in self._controllers.items())
        secret = self._place.secret
        login = (
            "org.apache.kafka.common.security.plain.PlainLoginModule required "
            f'username="{_USER}" password="{secret}" user_{_USER}="{secret}";'
        )
        return {
            "process.roles": "broker,controller",
            "node.id": number,
            "listeners": f"CLIENT://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller}",
            "advertised.listeners": f"CLIENT://{LOOPBACK}:{port}",
            "listener.security.protocol.map": "CLIENT:SASL_PLAINTEXT,CONTROLLER:SASL_PLAINTEXT",
            "inter.broker.listener.name": "CLIENT",
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.voters": voters,
            "sasl.enabled.mechanisms": "PLAIN",
            "sasl.mechanism.inter.broker.protocol": "PLAIN",
            "sasl.mechanism.controller.protocol": "PLAIN",
            "listener.name.client.plain.sasl.jaas.config": login,
            "listener.name.controller.plain.sasl.jaas.config": login,
            "log.dirs": folder / "log",
            "default.replication.factor": copies,
            "min.insync.replicas": in_step,
            "offsets.topic.replication.factor": copies,
            "offsets.topic.num.partitions": 5,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": in_step,
            "transaction.state.log.num.partitions": 5,
            "share.coordinator.state.topic.replication.factor": copies,
            "share.coordinator.state.topic.min.isr": in_step,
            "auto.create.topics.enable": "false",
            # Copies are no help against a power cut when all brokers hang on one cable.
            "log.flush.interval.messages": 1,
            "group.initial.rebalance.delay.ms": 0,
            "broker.session.timeout.ms": 6_000,
            "broker.heartbeat.interval.ms": 1_000,
            "controlled.shutdown.enable": "false",  # all end together: nobody is left to lead
            "num.network.threads": 2,
            "num.io.threads": 4,
            "log.cleaner.dedupe.buffer.size": 8 * 1024 * 1024,
        }


def _java(*words: str | Path, heap: tuple[str, ...]) -> tuple[str | Path, ...]:
    return (
        JAVA.path(),
        *heap,
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",  # soon warm: a broker on a machine with everything else
        "-XX:-UsePerfData",
        "-Djava.awt.headless=true",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
        "-cp",
        f"{KAFKA.path().parent}/*",
        *words,
    )


def _cluster_id() -> str:
    """22 characters; Kafka's tool takes one with a dash in front for an option."""
    while True:
        text = base64.urlsafe_b64encode(uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text
