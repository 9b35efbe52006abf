"""A campaign by own delivery to 5,000 destination sites, one of which begins to refuse.

1,000,000 recipients are queued (a twentieth of them at the site that will refuse, the rest evenly),
in a worker with everything that own delivery has: roads, lines, leases and rates in PostgreSQL, the
board of sites. DNS is answered in the worker. The mail servers are one process that listens on
every address of 127.0.0.0/8; each site has one of its own.

In the middle third of the time the one site answers 451 to every recipient. The others' rate then
is compared with their rate in the two thirds around it, and the worker's memory at the end with
what it had when all sites were known.
"""

import asyncio
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any, cast

import uvloop
from campaign import seed
from measure import Row, free_port, note, report, seconds, wait_for_port
from platform_parts import Parts, cpu_seconds, product_postgres, pss_bytes

from mailyard.core.clock import SystemClock
from mailyard.net.mail_route import HostDane, MailRoute
from mailyard.protocol.dane import DaneOff
from mailyard.protocol.mx import MxHost, MxRoute, Target, Targets
from mailyard.ratelimit.adapters.postgres import PostgresRateLimit
from mailyard.ratelimit.adapters.postgres_leases import PostgresLeases
from mailyard.sending.shape.book import SHIPPED, read_book, shipped_text
from mailyard.sending.shaping import Shaping
from mailyard.sending.shaping_board import SiteBoard
from mailyard.sending.source_file import alone
from mailyard.sending.source_pool import SourcePool
from mailyard.sending.transports.mx.road import Roads
from mailyard.sending.transports.mx.secure import Security
from mailyard.sending.transports.mx.transport import MxTransport
from mailyard.sending.transports.mx.yard import MxOptions

RECIPIENTS = int(os.environ.get("RECIPIENTS", 1_000_000))
SITES = 5_000
BAD_SHARE = 20  # one recipient of so many is at the site that refuses
WARM_S = float(os.environ.get("WARM_S", seconds(30.0, 60.0)))
PART_S = float(os.environ.get("PART_S", seconds(20.0, 60.0)))
PARTS = 3  # of each third
# The shipped 20/s for a site that nobody knows would hold the large one back in all thirds alike.
FASTER = '[receiver.default]\nrate = "1000/s"\n'
HTML = "<p>Hello {{ name }} in {{ city }}.</p>\n"


def address_of(number: int) -> str:
    site = 0 if number % BAD_SHARE == 0 else 1 + number % (SITES - 1)
    return f"person{number}@site{site}.example"


def host_of(domain: str) -> IPv4Address:
    """127.20.0.0 is the site that refuses, the others follow it."""
    return IPv4Address(int(IPv4Address("127.20.0.0")) + int(domain[4:].partition(".")[0]))


class LoopbackRouter:
    """What DNS would say."""

    async def find(self, domain: str) -> MailRoute:
        host = MxHost(f"mx.{domain}", 10)
        target = Target(host, host_of(domain), host.name, False)
        route = MxRoute(domain, (host,), False, False, host.name, ())
        return MailRoute(route, Targets((target,), ()))

    async def dane(self, route: MxRoute, target: Target) -> HostDane:
        del route, target
        return HostDane(DaneOff(), ())


@dataclass(slots=True)
class Seen:
    """What the mail servers have had: `good` mails of the others, `bad` recipients refused."""

    refuses: "Synchronized[int]"
    good: "Synchronized[int]"
    bad: "Synchronized[int]"


class MailServer(asyncio.Protocol):
    """One connection; commands are cut at line ends, content at its dot."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._rest = b""
        self._in_content = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        own = transport.get_extra_info("sockname")[0]
        self._large = own == "127.20.0.0"
        self._transport.write(b"220 mx ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self._rest += data
        said = []
        while True:
            if self._in_content:
                _, dot, rest = self._rest.partition(b"\r\n.\r\n")
                if not dot:
                    break
                self._rest, self._in_content = rest, False
                if not self._large:
                    self._seen.good.value += 1
                said.append(b"250 2.0.0 taken\r\n")
                continue
            line, end, rest = self._rest.partition(b"\r\n")
            if not end:
                break
            self._rest = rest
            said.append(self._answer(line[:4].upper()))
        if said:
            self._transport.write(b"".join(said))

    def _answer(self, verb: bytes) -> bytes:
        if verb == b"EHLO":
            return b"250-mx\r\n250-8BITMIME\r\n250 PIPELINING\r\n"
        if verb == b"DATA":
            if self._large and self._seen.refuses.value:
                return b"554 5.5.1 no recipients\r\n"
            self._in_content = True
            return b"354 go\r\n"
        if verb == b"RCPT" and self._large and self._seen.refuses.value:
            self._seen.bad.value += 1
            return b"451 4.3.0 not now\r\n"
        if verb == b"QUIT":
            return b"221 bye\r\n"
        return b"250 ok\r\n"


def serve(port: int, seen: Seen) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: MailServer(seen), "0.0.0.0", port, backlog=4096)
        await server.serve_forever()

    uvloop.run(run())


def work(url: str, port: int, ready: Any) -> None:
    async def run() -> None:
        parts = Parts(url, connections=8)
        await parts.open()
        clock, database = SystemClock(), parts.database
        book = read_book([(SHIPPED, shipped_text()), ("bench.toml", FASTER)])
        router = LoopbackRouter()
        transport = MxTransport(
            name="mx",
            roads=Roads(router, None, clock),
            security=Security(router),
            book=book,
            rate=PostgresRateLimit(database=database),
            leases=PostgresLeases(database=database),
            sources=SourcePool(sources=alone("bench.example"), database=database),
            board=SiteBoard(database=database, book=book),
            options=MxOptions(port=port),
        )
        worker = parts.bulk_worker_over(transport)
        ready.set()
        await worker.run()

    uvloop.run(run())


@contextmanager
def running(target: Any, *arguments: Any) -> Iterator[int]:
    """A process of its own; its id."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=target, args=arguments, daemon=True)
    process.start()
    try:
        yield process.pid or 0
    finally:
        process.terminate()
        process.join(10)


def rate_over(seen: Seen, wait_s: float) -> float:
    """Mails a second that the other sites take."""
    before, began = seen.good.value, time.monotonic()
    time.sleep(wait_s)
    return (seen.good.value - before) / (time.monotonic() - began)


async def queue(url: str) -> None:
    parts = Parts(url, connections=4)
    await parts.open()
    await seed(parts, RECIPIENTS, HTML, address_of)
    await parts.close()


async def let_go_on(url: str) -> None:
    """The site is well again, and a person says so."""
    parts = Parts(url, connections=2)
    await parts.open()
    shaping = Shaping(database=parts.database, book=read_book([(SHIPPED, shipped_text())]))
    async with parts.database.transaction() as tx:
        await shaping.resume("mx.site0.example", tx)
    await parts.close()


def measured(url: str, seen: Seen, pid: int) -> tuple[list[float], list[float], float, float]:
    """Rates while all is well, rates while one refuses, memory before and after."""
    time.sleep(WARM_S)
    well = [rate_over(seen, PART_S / PARTS) for _ in range(PARTS)]
    memory_before = pss_bytes(pid)
    seen.refuses.value = 1
    refusing = [rate_over(seen, PART_S / PARTS) for _ in range(PARTS)]
    note(f"refused {seen.bad.value:,} recipients")
    seen.refuses.value = 0
    uvloop.run(let_go_on(url))
    well += [rate_over(seen, PART_S / PARTS) for _ in range(PARTS)]
    return well, refusing, memory_before, pss_bytes(pid)


def main() -> int:
    context = multiprocessing.get_context("spawn")
    seen = Seen(context.Value("q", 0), context.Value("q", 0), context.Value("q", 0))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mailyard-bench-")))
        folder.chmod(0o755)
        server = stack.enter_context(product_postgres(folder))
        port = free_port()
        servers = stack.enter_context(running(serve, port, seen))
        wait_for_port(port)
        note(f"queueing {RECIPIENTS:,} recipients at {SITES:,} sites")
        uvloop.run(queue(server.url))
        ready = context.Event()
        pid = stack.enter_context(running(work, server.url, port, ready))
        ready.wait(30)
        groups = {"worker": [pid], "mail servers": [servers], "postgres": server.process_ids()}
        before = {name: sum(map(cpu_seconds, pids)) for name, pids in groups.items()}
        began = seen.good.value
        well, refusing, memory_before, memory_after = measured(server.url, seen, pid)
        taken = max(1, seen.good.value - began)
        for name, pids in groups.items():
            used = sum(map(cpu_seconds, pids)) - before[name]
            note(f"  {name}: {used / taken * 1e6:.0f} us of CPU a mail")
    rate, beside = statistics.fmean(well), statistics.fmean(refusing)
    note(f"others: {rate:,.0f}/s while all is well, {beside:,.0f}/s while one site refuses")
    note(f"memory: {memory_before / 1e6:.1f} MB, then {memory_after / 1e6:.1f} MB")
    return report(
        [
            Row("shaping: others' rate while one site refuses", beside / rate, "", 0.95),
            Row("shaping: memory at the end, of what it was", memory_after / memory_before, "",
                1.10, True),
        ]
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
