"""Redis: one server, or one with replicas under Sentinels that replace it when it is gone."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from mailyard.fleet.local.place import LOOPBACK, Place, write_private
from mailyard.fleet.local.process import Say, ServiceProcess
from mailyard.fleet.local.program import REDIS_CLIENT, REDIS_SERVER
from mailyard.fleet.local.service import Service

NAME = "mailyard"  # the Sentinels' word for the primary
_DOWN_MS = 2_000
_FAILOVER_MS = 6_000
# A primary that came back empty before the Sentinels have replaced it would empty its replicas.
_REST_S = 5.0
_ASK_S = 1.0


class Redis(Service):
    """`servers`, the first of which begins as the primary, and `sentinels` over them."""

    instead = ("redis_url",)
    needs = (REDIS_SERVER, REDIS_CLIENT)

    def __init__(self, place: Place, say: Say, *, servers: int = 1, sentinels: int = 0) -> None:
        super().__init__()
        self._place = place
        self._servers = {n: place.port(f"redis-{n}") for n in range(1, servers + 1)}
        self._sentinels = {n: place.port(f"sentinel-{n}") for n in range(1, sentinels + 1)}
        rest_s = _REST_S if sentinels else 0.0
        self._serving = [
            ServiceProcess(
                f"redis-{n}",
                place.folder(f"redis-{n}"),
                command=self._server(n),
                ready=self._pong(port),
                say=say,
                rest_s=rest_s,
            )
            for n, port in self._servers.items()
        ]
        self._watching = [
            ServiceProcess(
                f"sentinel-{n}",
                place.folder(f"sentinel-{n}"),
                command=self._sentinel(n),
                ready=self._pong(port),
                say=say,
            )
            for n, port in self._sentinels.items()
        ]
        self.processes = [*self._serving, *self._watching]
        self.settings = {"redis_url": self._url()}

    def places(self) -> Sequence[tuple[str, str]]:
        return [(f"redis-{n}", f"{LOOPBACK}:{port}") for n, port in self._servers.items()] + [
            (f"sentinel-{n}", f"{LOOPBACK}:{port}") for n, port in self._sentinels.items()
        ]

    async def start(self) -> None:
        for n in self._sentinels:  # they begin anew, with the first server as the primary
            self._forget(n)
        await asyncio.gather(*(one.start() for one in self._serving))
        await asyncio.gather(*(one.start() for one in self._watching))

    async def stop(self) -> None:
        # The Sentinels first: they would replace a primary that only ends with the others.
        await asyncio.gather(*(one.stop() for one in self._watching))
        await asyncio.gather(*(one.stop() for one in self._serving))

    def _url(self) -> str:
        secret = self._place.secret
        if not self._sentinels:
            return f"redis://:{secret}@{LOOPBACK}:{self._servers[1]}/0"
        hosts = ",".join(f"{LOOPBACK}:{port}" for port in self._sentinels.values())
        return f"redis+sentinel://:{secret}@{hosts}/{NAME}/0?sentinel_password={secret}"

    def _server(self, number: int) -> Callable[[], Awaitable[Sequence[str | Path]]]:
        async def command() -> Sequence[str | Path]:
            secret, port = self._place.secret, self._servers[number]
            primary = await self._primary()
            lines = [
                f"port {port}",
                f"bind {LOOPBACK}",
                f"requirepass {secret}",
                f"masterauth {secret}",
                'save ""',  # nothing in it must survive
                "appendonly no",
                "maxmemory 256mb",
                "maxmemory-policy allkeys-lru",
                "repl-diskless-sync-delay 0",
                "loglevel warning",
                "daemonize no",
            ]
            if port != primary:
                lines.append(f"replicaof {LOOPBACK} {primary}")
            file = self._place.folder(f"redis-{number}") / "redis.conf"
            write_private(file, "\n".join(lines) + "\n")
            return (REDIS_SERVER.path(), file)

        return command

    def _sentinel(self, number: int) -> Callable[[], Awaitable[Sequence[str | Path]]]:
        async def command() -> Sequence[str | Path]:
            file = self._file_of(number)
            if not file.exists():  # it writes there itself what it has learnt
                secret, most = self._place.secret, len(self._sentinels)
                lines = [
                    f"port {self._sentinels[number]}",
                    f"bind {LOOPBACK}",
                    f"dir {file.parent}",
                    f"requirepass {secret}",
                    f"sentinel sentinel-pass {secret}",
                    f"sentinel monitor {NAME} {LOOPBACK} {self._servers[1]} {most // 2 + 1}",
                    f"sentinel auth-pass {NAME} {secret}",
                    f"sentinel down-after-milliseconds {NAME} {_DOWN_MS}",
                    f"sentinel failover-timeout {NAME} {_FAILOVER_MS}",
                    "loglevel warning",
                ]
                write_private(file, "\n".join(lines) + "\n")
            return (REDIS_SERVER.path(), file, "--sentinel")

        return command

    def _file_of(self, number: int) -> Path:
        return self._place.folder(f"sentinel-{number}") / "sentinel.conf"

    def _forget(self, number: int) -> None:
        self._file_of(number).unlink(missing_ok=True)

    async def _primary(self) -> int:
        """The port of whoever the Sentinels call the primary; of the first before they work."""
        for port in self._sentinels.values():
            with contextlib.suppress(OSError, EOFError, TimeoutError, ValueError):
                words = await self._ask(port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
                if len(words) == 2:
                    return int(words[1])
        return self._servers[1]

    def _pong(self, port: int) -> Callable[[], Awaitable[bool]]:
        async def ready() -> bool:
            return await self._ask(port, "PING") == ["+PONG"]

        return ready

    async def _ask(self, port: int, *words: str) -> list[str]:
        """One question, as lines of the answer without its counts. Raises OSError, EOFError,
        TimeoutError."""
        async with asyncio.timeout(_ASK_S):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                writer.write(_request("AUTH", self._place.secret))
                await reader.readuntil(b"\r\n")
                writer.write(_request(*words))
                first = (await reader.readuntil(b"\r\n")).decode().strip()
                if not first.startswith("*"):
                    return [first]
                lines = [await reader.readuntil(b"\r\n") for _ in range(2 * int(first[1:]))]
                return [line.decode().strip() for line in lines[1::2]]
            finally:
                writer.close()


def _request(*words: str) -> bytes:
    """A command in Redis's protocol (RESP)."""
    texts = [word.encode() for word in words]
    parts = [b"$%d\r\n%b\r\n" % (len(text), text) for text in texts]
    return b"*%d\r\n%b" % (len(parts), b"".join(parts))
