"""Stored providers and routes over a `World`: what a worker process has of them, on this loop."""

import asyncio
import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import cast
from uuid import UUID

from sending_world import HOSTNAME, VAULT, LedgerTransport, Process, World

from mailyard.net.guard import networks
from mailyard.net.http import HttpClient
from mailyard.proving.own_platform import free_port
from mailyard.sending.outbound import Outbound
from mailyard.sending.provider import NewProvider, Provider, ProviderBook
from mailyard.sending.route.breaker import BreakerOptions
from mailyard.sending.routing import Conditions, Routing, StoredLeg, StoredRoute
from mailyard.sending.transport import Transport
from mailyard.sending.transports.kinds import Workshop
from mailyard.sending.upkeep import Shelf, Upkeep

LOOPBACK = networks(["127.0.0.0/8"])
_RECIPIENT = re.compile(rb"^X-Rcpt-Args: <([^>]*)>", re.MULTILINE)


class Sink:
    """Postfix's smtp-sink in a process of its own, which keeps a ledger through its deaths."""

    def __init__(self, folder: Path, name: str) -> None:
        self.port = free_port()
        self._file = folder / f"{name}.ledger"
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        self._process = subprocess.Popen(
            ["smtp-sink", *user, "-D", str(self._file), f"127.0.0.1:{self.port}", "500"]
        )
        async with asyncio.timeout(10):
            while True:
                with suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                await asyncio.sleep(0.02)

    def kill(self) -> None:
        """As a power cut would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def count(self) -> int:
        """About how many it has taken."""
        return self._file.stat().st_size if self._file.exists() else 0

    def ledger(self, end: bytes) -> Counter[str]:
        """Recipients of the mails that it has whole: those in which `end` stands."""
        if not self._file.exists():
            return Counter()
        mails = self._file.read_bytes().split(b"X-Client-Addr: ")
        return Counter(
            found[1].decode()
            for mail in mails
            if end in mail and (found := _RECIPIENT.search(mail))
        )


class Ways:
    """The services that keep providers and routes, and a worker's way out."""

    def __init__(
        self,
        world: World,
        *,
        relay: Transport | None = None,
        options: BreakerOptions | None = None,
    ) -> None:
        self.world = world
        self.book = ProviderBook(database=world.database, vault=VAULT, bus=world.bus)
        self.routing = Routing(database=world.database)
        self.http = HttpClient(allowed=LOOPBACK)
        workshop = Workshop(
            hello=HOSTNAME,
            http=lambda: self.http,
            rate=world.rate_limit,
            clock=world.clock,
            random=Random(1),
            data=Path("unused"),
            allowed=LOOPBACK,
        )
        self.shelf = Shelf(vault=VAULT, workshop=workshop)
        self.outbound = Outbound(
            relay=relay or LedgerTransport(world.ledger),
            make=self.shelf.make,
            clock=world.clock,
            random=Random(2),
            options=options,
        )
        self.upkeep = Upkeep(
            database=world.database,
            bus=world.bus,
            shelf=self.shelf,
            outbound=self.outbound,
            tick_s=0.05,
        )

    async def add(self, wanted: NewProvider, workspace_id: UUID | None = None) -> Provider:
        async with self.world.database.transaction() as tx:
            made = await self.book.create(workspace_id or self.world.workspace_id, wanted, tx)
        self.book.changed()
        return made

    async def add_sink(self, name: str, port: int, **settings: object) -> Provider:
        """A provider of kind smtp on this machine, in the clear."""
        wanted = {"host": "127.0.0.1", "port": port, "tls": "none", **settings}
        return await self.add(NewProvider(name, "smtp", wanted, {}))

    async def route(self, *legs: StoredLeg, name: str = "all", **when: list[str]) -> None:
        """One route for everything."""
        await self.routes(StoredRoute(name, list(legs), Conditions(**when)))  # type: ignore[arg-type]

    async def routes(self, *routes: StoredRoute, shared: bool = False) -> None:
        async with self.world.database.transaction() as tx:
            await self.routing.replace(self.world.workspace_id, routes, shared=shared, tx=tx)
        self.book.changed()

    @asynccontextmanager
    async def worker(self, places: int = 100) -> AsyncIterator[Process]:
        """One worker process whose way out this is; drained at the end."""
        await self.upkeep.open()
        process = Process(
            self.world,
            cast("LedgerTransport", self.outbound),
            places=places,
            chooser=self.outbound,
        )
        task = asyncio.create_task(process.worker.run())
        try:
            yield process
        finally:
            process.worker.drain()
            await task
            await self.outbound.close(5.0)
            await self.upkeep.close()
            await self.http.close()
