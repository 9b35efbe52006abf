"""What an outage costs, and what choosing costs when there is none.

A campaign of 60,000 recipients (200,000 with FULL=1) through two providers, each Postfix's
smtp-sink, of which one is killed (SIGKILL) when a third is sent and started again when two thirds
are, beside the same campaign without an outage. PostgreSQL is the embedded one with fsync on; two
worker processes. Every recipient must be accounted for, or there is no figure.

And the microseconds that `Outbound` adds to a mail: without routes, and with a route to one
provider that is well.
"""

import asyncio
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random
from uuid import UUID

import uvloop
from campaign import draft
from measure import FULL, Row, free_port, median_of, note, report, wait_for_port
from platform_parts import Parts, product_postgres

from mailyard.access.vault import Vault
from mailyard.campaigns.states import State
from mailyard.core import ids
from mailyard.core.clock import SystemClock
from mailyard.net.guard import networks
from mailyard.net.http import HttpClient
from mailyard.ratelimit.adapters.memory import MemoryRateLimit
from mailyard.sending.outbound import Outbound
from mailyard.sending.provider import RELAY, NewProvider, ProviderBook
from mailyard.sending.route.plan import Listed, Plan, View
from mailyard.sending.route.routes import Leg, Route, Routes
from mailyard.sending.routing import Routing, StoredLeg, StoredRoute
from mailyard.sending.transport import CAMPAIGN, Handoff, Outcome, Outgoing, Recipient
from mailyard.sending.transports.kinds import Workshop
from mailyard.sending.transports.smtp import SmtpTransport
from mailyard.sending.upkeep import Shelf, Upkeep

RECIPIENTS = int(os.environ.get("RECIPIENTS", 200_000 if FULL else 60_000))
RUNS = int(os.environ.get("RUNS", 1 if FULL else 3))
WORKERS = 2
CONNECTIONS = 10
UNKNOWN_MAX = WORKERS * 100  # named and not recorded when a provider dies
ADDED_MAILS = 100_000
_LOOPBACK = networks(["127.0.0.0/8"])


class Sink:
    """smtp-sink on a port of its own, killed and started again."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        command = ["smtp-sink", *user, "-c", f"127.0.0.1:{self.port}", "1000"]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for_port(self.port)

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


def vault() -> Vault:
    return Vault(lambda: [b"bench key of 32 bytes, no secret"])


def work(url: str, ready: "multiprocessing.synchronize.Event") -> None:
    """One worker process, until it is terminated."""

    async def run() -> None:
        parts = Parts(url, connections=8)
        await parts.open()
        workshop = Workshop(
            hello="bench",
            http=lambda: HttpClient(allowed=_LOOPBACK),
            rate=MemoryRateLimit(clock=SystemClock()),
            clock=SystemClock(),
            random=Random(),
            data=Path("unused"),
            allowed=_LOOPBACK,
        )
        shelf = Shelf(vault=vault(), workshop=workshop)
        relay = SmtpTransport(name=RELAY, host="127.0.0.1", port=9, hello="bench")
        outbound = Outbound(relay=relay, make=shelf.make)
        upkeep = Upkeep(database=parts.database, bus=parts.bus, shelf=shelf, outbound=outbound)
        await upkeep.open()
        worker = parts.bulk_worker_over(outbound)
        ready.set()
        await worker.run()

    uvloop.run(run())


async def route(parts: Parts, workspace_id: UUID, sinks: list[Sink]) -> None:
    """Both sinks as providers that share the mail."""
    book = ProviderBook(database=parts.database, vault=vault(), bus=parts.bus)
    names = [f"sink-{number}" for number in range(len(sinks))]
    async with parts.database.transaction() as tx:
        for name, sink in zip(names, sinks, strict=True):
            settings = {"host": "127.0.0.1", "port": sink.port, "tls": "none",
                        "connections": CONNECTIONS}  # fmt: skip
            await book.create(workspace_id, NewProvider(name, "smtp", settings, {}), tx)
        routes = [StoredRoute("all", [StoredLeg(name) for name in names])]
        await Routing(database=parts.database).replace(workspace_id, routes, shared=False, tx=tx)
    book.changed()


async def campaign(url: str, sinks: list[Sink], *, outage: bool) -> float:
    """Recipients a second, from the start to the end. Raises when somebody is not accounted for."""
    parts = Parts(url, connections=4)
    await parts.open()
    for sink in sinks:
        sink.start()
    try:
        workspace_id, campaign_id = await draft(parts, RECIPIENTS)
        await route(parts, workspace_id, sinks)
        await asyncio.sleep(2.0)  # the workers follow
        started = time.perf_counter()
        await parts.campaigns.start(workspace_id, campaign_id)
        await through(parts, campaign_id, sinks[0] if outage else None)
        seconds = time.perf_counter() - started
        rows = await parts.database.fetch(
            "SELECT state::text, count(*) FROM delivery WHERE campaign_id = $1 GROUP BY 1",
            campaign_id,
        )
        counts = dict(map(tuple, rows))
        note(f"    {counts}")
        lost = RECIPIENTS - counts.get("accepted", 0)
        if lost != counts.get("unknown", 0) or lost > (UNKNOWN_MAX if outage else 0):
            raise SystemExit(f"{RECIPIENTS} recipients: {counts}")
        return RECIPIENTS / seconds
    finally:
        for sink in sinks:
            sink.kill()
        await parts.close()


async def through(parts: Parts, campaign_id: UUID, victim: Sink | None) -> None:
    """Until the campaign is finished, with an outage of `victim` in its middle."""
    blows: list[tuple[int, Callable[[], None]]] = []
    if victim is not None:
        blows = [(RECIPIENTS // 3, victim.kill), (RECIPIENTS * 2 // 3, victim.start)]
    async with parts.database.connection() as connection:
        while True:
            state, done = await connection.fetchrow(
                "SELECT c.state, (SELECT coalesce(sum(k.accepted), 0) FROM campaign_chunk k"
                " WHERE k.campaign_id = c.id) FROM campaign c WHERE c.id = $1",
                campaign_id,
            )
            if state == State.FINISHED:
                return
            if blows and done >= blows[0][0]:
                blows.pop(0)[1]()
            await asyncio.sleep(0.05)


class Instant:
    """A transport that says yes as soon as it is asked to."""

    name = RELAY

    def __init__(self) -> None:
        self.taken: list[tuple[Outgoing, Callable[[Handoff], None]]] = []

    def submit(self, mail: Outgoing, done: Callable[[Handoff], None]) -> None:
        self.taken.append((mail, done))

    def say_yes(self) -> None:
        taken, self.taken = self.taken, []
        for mail, done in taken:
            done(Handoff(mail.recipients[0].delivery_id, Outcome.ACCEPTED, 250, "Ok", self.name))

    async def close(self, drain_s: float) -> None:
        pass


async def added_us(*, routed: bool) -> float:
    """What Outbound adds to handing a mail over and hearing of it."""
    workspace_id, transport = ids.uuid7(), Instant()
    outbound = Outbound(relay=transport, make=lambda _: transport)
    if routed:
        routes = Routes([Route("all", (Leg("one"),))], ["one"])
        keys = {"one": "one", RELAY: RELAY}
        view, plain = View(routes, keys), View(None, keys)
        outbound.follow(Plan({"one": Listed("one", "one", True, 1)}, {workspace_id: view}, plain))
    mails = [
        Outgoing(
            "a@example.org", (Recipient(ids.uuid7(), f"p{n}@example.com"),), b"x\r\n", False, False,
            workspace_id, CAMPAIGN, "news",
        )
        for n in range(100)
    ]  # fmt: skip

    def timed(submit: Callable[[Outgoing, Callable[[Handoff], None]], None]) -> float:
        answers: list[Handoff] = []
        gc.collect()
        gc.disable()
        started = time.process_time()
        for _ in range(ADDED_MAILS // len(mails)):
            for mail in mails:
                submit(mail, answers.append)
            transport.say_yes()
            answers.clear()
        seconds = time.process_time() - started
        gc.enable()
        return seconds / ADDED_MAILS * 1e6

    timed(outbound.submit)
    return timed(outbound.submit) - timed(transport.submit)


def main() -> int:
    note("microseconds that Outbound adds: without routes, with one")
    plain = median_of(lambda: asyncio.run(added_us(routed=False)), 3)
    routed = median_of(lambda: asyncio.run(added_us(routed=True)), 3)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mailyard-bench-")))
        folder.chmod(0o755)
        server = stack.enter_context(product_postgres(folder))
        context = multiprocessing.get_context("spawn")
        for _ in range(WORKERS):
            ready = context.Event()
            worker = context.Process(target=work, args=(server.url, ready), daemon=True)
            worker.start()
            stack.callback(worker.terminate)
            ready.wait(30)

        def one(outage: bool) -> float:
            sinks = [Sink(), Sink()]
            with suppress(ProcessLookupError):
                return uvloop.run(campaign(server.url, sinks, outage=outage))
            raise SystemExit("a sink died by itself")

        shares = []
        for _ in range(RUNS):  # beside one another: the machine's hour is the same for both
            whole = one(False)
            broken = one(True)
            note(f"  {whole:,.0f}/s whole, {broken:,.0f}/s with an outage")
            shares.append(broken / whole)
    share = sorted(shares)[len(shares) // 2]
    return report(
        [
            Row("outage of one of two providers: share of the rate that is left", share, "", 0.9),
            Row("outbound without routes: added to a mail", plain, "us", 1.0, True),
            Row("outbound with a provider: added to a mail", routed, "us", 6.0, True),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
