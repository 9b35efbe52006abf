"""A real Kafka cluster on loopback: brokers that are controllers too (KRaft), one process each.

`tests/services/install_kafka.sh` brings the jars. State lives in a folder of the caller's; a broker
is ended by its pid. Time-outs that decide how soon a dead broker is noticed are shorter than
Kafka's own (a session of 3 s for 9, elections after 1 s), so that tests of failures take seconds.
"""

import base64
import ctypes
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from uuid import uuid4

import pytest
from ports import free_ports

LOG_SEGMENT_BYTES = 16 * 1024 * 1024
SMALL_DISK_BYTES = 512 * 1024 * 1024
_START_S = 180.0  # a broker starts in 6 s when the machine has nothing else to do
_PR_SET_PDEATHSIG = 1
_HEAP = ("-Xms128m", "-Xmx320m")
USER, PASSWORD = "mailyard", "a secret of the tests"
_MODULES = "org.apache.kafka.common.security"


def folder_of_jars() -> Path:
    """Where `install_kafka.sh` puts Kafka; without it tests are skipped, and fail under CI."""
    cache = os.environ.get("MAILYARD_FLEET_CACHE")
    home = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    found = Path(cache or f"{home}/mailyard-fleet") / "kafka-4.4.0"
    if not (found / "complete").exists() or shutil.which("java") is None:
        if os.environ.get("CI"):
            pytest.fail("Kafka is missing: run tests/services/install_kafka.sh")
        pytest.skip("Kafka is missing: run tests/services/install_kafka.sh")
    return found


class KafkaCluster:
    """`nodes` brokers in `folder`, counted from 0; `small_disk` is one whose disk can be filled.

    `certificate`: PEM of a key and its certificate for 127.0.0.1. The brokers then listen under
    `secure_servers` too, with TLS, for who signs in as USER by PLAIN or SCRAM.
    """

    def __init__(
        self,
        folder: Path,
        nodes: int,
        small_disk: int | None = None,
        certificate: Path | None = None,
    ) -> None:
        self._jars = folder_of_jars()
        self._folder = folder
        self._id = _cluster_id()
        self._certificate = certificate
        ports = free_ports(3 * nodes)
        self._ports = ports[:nodes]
        self._controller_ports = ports[nodes : 2 * nodes]
        self._secure_ports = ports[2 * nodes :]
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self.small_disk = small_disk if self._mount(small_disk) else None
        self.servers = ",".join(f"127.0.0.1:{port}" for port in self._ports)
        self.secure_servers = ",".join(f"127.0.0.1:{port}" for port in self._secure_ports)

    @property
    def nodes(self) -> range:
        return range(len(self._ports))

    def data(self, node: int) -> Path:
        """Where the node keeps its log."""
        folder = self._folder / str(node)
        return folder / "small" / "data" if node == self.small_disk else folder / "data"

    def start(self) -> None:
        """Format and start all nodes; back when the cluster lists them all."""
        for node in self.nodes:
            self._configure(node)
        formats = [self._format(node) for node in self.nodes]
        for one in formats:
            assert one.wait(_START_S) == 0, "the broker's folder was not formatted"
        for node in self.nodes:
            self.start_node(node)
        self.wait_for(set(self.nodes))

    def start_node(self, node: int) -> None:
        """Start (again) one node, without waiting for it."""
        with (self._folder / str(node) / "log").open("ab") as log:
            self._running[node] = subprocess.Popen(
                self._java("kafka.Kafka", str(self._properties(node)), heap=_HEAP),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def kill(self, node: int) -> None:
        """kill -9."""
        process = self._running.pop(node)
        process.kill()
        process.wait()

    def pause(self, node: int) -> None:
        """The node stands still: it neither answers nor closes a connection."""
        self._running[node].send_signal(signal.SIGSTOP)

    def go_on(self, node: int) -> None:
        self._running[node].send_signal(signal.SIGCONT)

    def runs(self, node: int) -> bool:
        return node in self._running and self._running[node].poll() is None

    def process_ids(self) -> list[int]:
        """Of the nodes that run."""
        return [process.pid for process in self._running.values()]

    def stop(self) -> None:
        """End all nodes. What they wrote stays for the caller to remove."""
        for process in self._running.values():
            process.kill()
        for process in self._running.values():
            process.wait()
        self._running.clear()
        if self.small_disk is not None:
            subprocess.run(["umount", self.data(self.small_disk).parent], check=True)
            self.small_disk = None

    def wait_for(self, nodes: set[int], timeout_s: float = _START_S) -> None:
        """Until the cluster lists just these nodes, and every partition has a leader among them."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            if self.listed() == nodes:
                return
            time.sleep(0.1)
        raise TimeoutError(f"the cluster lists {self.listed()}, not {nodes}")

    def listed(self) -> set[int]:
        """The nodes that the cluster counts as alive; empty while it does not answer."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        admin = AdminClient({"bootstrap.servers": self.servers, "log_level": 0})
        try:
            found = admin.list_topics(timeout=5)
        except KafkaException:
            return set()
        if any(
            part.leader < 0 for topic in found.topics.values() for part in topic.partitions.values()
        ):
            return set()
        return {broker - 1 for broker in found.brokers}

    def controller(self) -> int:
        """The node that leads the others: the one whose log of the cluster says so last."""
        newest: dict[int, int] = {}
        for node in self.nodes:
            state = self.data(node) / "__cluster_metadata-0" / "quorum-state"
            if self.runs(node) and state.exists():
                known = json.loads(state.read_text())
                newest[known["leaderEpoch"]] = known["leaderId"] - 1
        return newest[max(newest)]

    def _mount(self, node: int | None) -> bool:
        """Give `node` a file system of its own that can be filled, where this user may."""
        if node is None:
            return False
        small = self._folder / str(node) / "small"
        small.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}", "tmpfs", str(small)]
        return subprocess.run(mount, stderr=subprocess.DEVNULL).returncode == 0

    def _java(self, *command: str, heap: tuple[str, ...]) -> list[str]:
        return [
            "java",
            *heap,
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:-UsePerfData",
            "-Djava.awt.headless=true",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-cp",
            f"{self._jars}/libs/*",
            *command,
        ]

    def _properties(self, node: int) -> Path:
        return self._folder / str(node) / "server.properties"

    def _format(self, node: int) -> "subprocess.Popen[bytes]":
        arguments = ["format", "-t", self._id, "-c", str(self._properties(node))]
        if self._certificate is not None:
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
                arguments += ["--add-scram", f'{mechanism}=[name={USER},password="{PASSWORD}"]']
        return subprocess.Popen(
            self._java("kafka.tools.StorageTool", *arguments, heap=("-Xmx96m",)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _configure(self, node: int) -> None:
        path = self._properties(node)
        path.parent.mkdir(parents=True, exist_ok=True)
        voters = ",".join(
            f"{other + 1}@127.0.0.1:{port}" for other, port in enumerate(self._controller_ports)
        )
        copies = min(3, len(self._ports))
        in_step = 2 if copies == 3 else 1
        port, controller_port = self._ports[node], self._controller_ports[node]
        settings: dict[str, object] = {
            "process.roles": "broker,controller",
            "node.id": node + 1,
            "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.voters": voters,
            "log.dirs": self.data(node),
            "default.replication.factor": copies,
            "min.insync.replicas": in_step,
            "offsets.topic.replication.factor": copies,
            "offsets.topic.num.partitions": 5,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": in_step,
            "transaction.state.log.num.partitions": 5,
            "share.coordinator.state.topic.replication.factor": copies,
            "share.coordinator.state.topic.min.isr": in_step,
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 2000,
            "group.consumer.min.session.timeout.ms": 2000,
            "group.consumer.session.timeout.ms": 4000,
            "group.consumer.min.heartbeat.interval.ms": 500,
            "group.consumer.heartbeat.interval.ms": 1000,
            "auto.create.topics.enable": "false",
            "broker.session.timeout.ms": 3000,
            "broker.heartbeat.interval.ms": 500,
            "controller.quorum.fetch.timeout.ms": 1500,
            "controller.quorum.election.timeout.ms": 1000,
            "replica.lag.time.max.ms": 4000,
            "log.segment.bytes": LOG_SEGMENT_BYTES,
            "log.index.size.max.bytes": 256 * 1024,
            "log.cleaner.dedupe.buffer.size": 8 * 1024 * 1024,
            "num.network.threads": 2,
            "num.io.threads": 4,
        }
        if self._certificate is not None:
            settings |= self._secure(settings, self._secure_ports[node], self._certificate)
        path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))

    def _secure(
        self, settings: dict[str, object], port: int, certificate: Path
    ) -> dict[str, object]:
        """A listener with TLS and sign-in beside the others."""
        own = "listener.name.secure"
        module = f"{_MODULES}.scram.ScramLoginModule required;"
        plain = f'{_MODULES}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
        return {
            "listeners": f"{settings['listeners']},SECURE://127.0.0.1:{port}",
            "advertised.listeners": f"{settings['advertised.listeners']},SECURE://127.0.0.1:{port}",
            "listener.security.protocol.map": (
                f"{settings['listener.security.protocol.map']},SECURE:SASL_SSL"
            ),
            f"{own}.ssl.keystore.type": "PEM",
            f"{own}.ssl.keystore.location": certificate,
            f"{own}.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            f"{own}.plain.sasl.jaas.config": plain,
            f"{own}.scram-sha-256.sasl.jaas.config": module,
            f"{own}.scram-sha-512.sasl.jaas.config": module,
        }


def _die_with_parent() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _cluster_id() -> str:
    """22 characters; Kafka's tool takes one with a dash in front for an option."""
    while True:
        text = base64.urlsafe_b64encode(uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text
