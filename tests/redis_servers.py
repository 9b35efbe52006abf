"""Real Redis servers on free ports: one, one watched over by Sentinels, a cluster. Each is ended by
its process id, and dies with the tests."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from running_platform import free_ports

from mailyard.storage.unprivileged import die_with_parent

SLOTS = 16_384
NAME = "yard"
_PATIENCE_S = 90.0


@dataclass
class Server:
    """One process, which may be stopped, killed and started again on its port and folder."""

    port: int
    folder: Path
    options: list[str]
    process: "subprocess.Popen[bytes] | None" = None
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "log"

    def start(self, *more: str) -> None:
        """Start and wait until it answers."""
        ours = os.getpid()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["redis-server", *self.options, *more],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                preexec_fn=lambda: die_with_parent(signal.SIGKILL, ours),
            )
        wait_until(self.answers)

    def answers(self) -> bool:
        try:
            return bool(self.ask("PING"))
        except redis.RedisError:
            return False

    def ask(self, *words: Any) -> Any:
        """Ask it something over a connection of its own."""
        with redis.Redis(port=self.port, socket_timeout=2.0, decode_responses=True) as client:
            return client.execute_command(*words)

    def pause(self) -> None:
        """It holds its connections and says nothing."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def _signal(self, number: int) -> None:
        assert self.process is not None, "start comes first"
        self.process.send_signal(number)


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "a Redis was not ready in time"
        time.sleep(0.02)


def _server(folder: Path, port: int, *options: str) -> Server:
    common = f"--port {port} --bind 127.0.0.1 --save --appendonly no --daemonize no"
    words = ["--save" if word == "--save" else word for word in common.split()]
    words.insert(words.index("--save") + 1, "")
    return Server(port, folder / str(port), [*words, "--dir", str(folder / str(port)), *options])


@contextmanager
def single(folder: Path, *options: str) -> Iterator[Server]:
    """One server."""
    server = _server(folder, free_ports(1)[0], *options)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@dataclass
class Watched:
    """A primary, its replicas, and the Sentinels."""

    servers: list[Server]
    sentinels: list[Server]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in self.sentinels)
        return f"redis+sentinel://{hosts}/{NAME}"

    def primary(self) -> Server:
        """Whoever the Sentinels call so."""
        for sentinel in self.sentinels:
            try:
                answer = sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
            except redis.RedisError:
                continue
            if answer:
                return next(one for one in self.servers if one.port == int(answer[1]))
        raise AssertionError("no Sentinel answers")

    def healthy(self) -> bool:
        """Every Sentinel sees the others and the replicas, and these follow."""
        for sentinel in self.sentinels:
            words = sentinel.ask("SENTINEL", "MASTER", NAME)
            state = (
                words
                if isinstance(words, dict)
                else dict(zip(words[::2], words[1::2], strict=True))
            )
            if int(state["num-slaves"]) < len(self.servers) - 1:
                return False
            if int(state["num-other-sentinels"]) < len(self.sentinels) - 1:
                return False
        info = self.primary().ask("INFO", "replication")
        online = [one for name, one in info.items() if name.startswith("slave")]
        return sum(one.get("state") == "online" for one in online) >= len(self.servers) - 1


@contextmanager
def watched(folder: Path, replicas: int = 2) -> Iterator[Watched]:
    """A primary with replicas under three Sentinels, which replace one that is silent for a
    second."""
    ports = free_ports(1 + replicas + 3)
    primary, *others = ports[: 1 + replicas]
    with ExitStack() as stack:
        servers = []
        for port in (primary, *others):
            options = ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"]
            if port != primary:
                options += ["--replicaof", "127.0.0.1", str(primary)]
            server = _server(folder, port, *options)
            stack.callback(server.kill)
            server.start()
            servers.append(server)
        sentinels = []
        for port in ports[1 + replicas :]:
            place = folder / str(port)
            place.mkdir(parents=True)
            settings = place / "sentinel.conf"
            settings.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {place}\n"
                f"sentinel monitor {NAME} 127.0.0.1 {primary} 2\n"
                f"sentinel down-after-milliseconds {NAME} 1000\n"
                f"sentinel failover-timeout {NAME} 5000\n"
            )
            sentinel = Server(port, place, [str(settings), "--sentinel"])
            stack.callback(sentinel.kill)
            sentinel.start()
            sentinels.append(sentinel)
        found = Watched(servers, sentinels)
        wait_until(found.healthy)
        yield found


@dataclass
class Cluster:
    """Three primaries that share the slots."""

    servers: list[Server]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in self.servers[:2])
        return f"redis+cluster://{hosts}"


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster of three, put together by hand, which is quicker than redis-cli's way."""
    ports, own_ports = free_ports(3), free_ports(3)  # on these the nodes talk to each other
    with ExitStack() as stack:
        servers = []
        for port, own in zip(ports, own_ports, strict=True):
            server = _server(
                *(folder, port, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000"),
                *("--cluster-port", str(own)),
            )
            stack.callback(server.kill)
            server.start()
            servers.append(server)
        share = SLOTS // 3
        bounds = [(0, share - 1), (share, 2 * share - 1), (2 * share, SLOTS - 1)]
        for number, (server, (low, high)) in enumerate(zip(servers, bounds, strict=True)):
            server.ask("CLUSTER", "ADDSLOTSRANGE", low, high)
            server.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for server in servers[1:]:
            server.ask("CLUSTER", "MEET", "127.0.0.1", servers[0].port, own_ports[0])
        found = Cluster(servers)
        wait_until(lambda: all(_knows_all(one, len(servers)) for one in servers))
        yield found


def _knows_all(server: Server, nodes: int) -> bool:
    info = server.ask("CLUSTER", "INFO").split()
    return "cluster_state:ok" in info and f"cluster_known_nodes:{nodes}" in info
