"""What a delivery's history says after each fault of DNS and of mail servers.

All faults at once, each at a domain of its own, through the deliverer and PostgreSQL; and beside
them a mail for a domain that is well, which none of them keeps.
"""

import asyncio
import re
import socket
import struct
from collections.abc import AsyncIterator

import pytest
from dns_server import Fault
from mx_world import Session, mx_world
from mx_world import World as MxWorld
from sending_world import Process, World

from mailyard.net.dns import DnsLimits
from mailyard.net.tls import ensure_certificate, server_context
from mailyard.protocol.mx import HOSTS_TRIED
from mailyard.sending.delivery import Deliveries
from mailyard.sending.request import EmailRequest
from mailyard.storage.database import Database


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    world = World(database)
    await world.open()
    yield world
    await world.bus.close()


async def reset(session: Session) -> str:
    """The connection is cut off, with whatever the peer had of the mail thrown away."""
    await session.reader.read(1000)
    linger = struct.pack("ii", 1, 0)
    session.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    session.writer.transport.abort()
    return ""


async def cut_in_content(session: Session) -> str:
    await session.say("354 go ahead")
    return await reset(session)


async def silent(session: Session) -> str:
    await session.reader.read()
    return ""


async def garbage_for_tls(session: Session) -> str:
    await session.say("220 go ahead")
    await session.reader.read(10)
    await session.say("this is no handshake")
    raise ConnectionResetError


# domain -> what its mail server says.
PEERS = {
    "well.example": {},
    "reset.example": {"DATA": cut_in_content},
    "silent.example": {"END": silent},
    "busy.example": {"GREETING": "421 4.3.2 too busy"},
    "refusing.example": {"GREETING": "554 5.7.1 not you"},
    "full.example": {"END": "552 5.3.4 that is more than I said I take"},
    "endless.example": {"RCPT": "250-" + "x" * 1000 + ("\r\n250-" + "y" * 1000) * 1000},
    "broken.example": {"MAIL": "2five0 fine"},
    "wrong.example": {"MAIL": "999 what is this"},
    "later.example": {"RCPT": "450 4.2.0 greylisted, come again"},
    "nobody.example": {"RCPT": "550 5.1.1 no such user"},
}

# domain -> (state, what its history says of the attempt).
SAID = {
    "well.example": ("accepted", r"^2\.0\.0 queued \(mx\.well\.example \[127\.1"),
    "reset.example": ("unknown", "lost after its content had left: connection lost"),
    "silent.example": ("unknown", r"lost after its content had left: no reply within \d s \(END"),
    "busy.example": ("deferred", r"^4\.3\.2 too busy \(mx\.busy\.example \["),
    "refusing.example": ("deferred", r"^5\.7\.1 not you \(mx\.refusing\.example \["),
    "full.example": ("bounced", r"^5\.3\.4 that is more than I said I take \("),
    "small.example": ("bounced", r"^5\.3\.4 the peer takes at most 100 bytes"),
    "endless.example": ("deferred", r"^reply too long"),
    "broken.example": ("deferred", r"^not a reply: '2five0 fine"),
    "wrong.example": ("deferred", r"^not a reply: '999 what"),
    "later.example": ("deferred", r"^4\.2\.0 greylisted"),
    "nobody.example": ("bounced", r"^5\.1\.1 no such user"),
    "badtls.example": ("accepted", r"^2\.0\.0 queued .*not encrypted"),
    "closed.example": (
        "deferred",
        r"connecting to mx\.closed\.example \[127\.9\.9\.9\] failed: Co",
    ),
    "timeout.example": ("deferred", r"^4\.4\.3 .*no server answered in time"),
    "servfail.example": ("deferred", r"^4\.4\.3 .*SERVFAIL"),
    "loop.example": ("deferred", r"^4\.4\.3 .*alias"),
    "hundred.example": ("deferred", r"connecting to mx\d+\.hundred\.example .* failed"),
    "poisoned.example": ("accepted", r"^2\.0\.0 queued \(mx\.poisoned\.example"),
    "forged.example": ("accepted", r"^2\.0\.0 queued \(mx\.forged\.example"),
    "inside.example": ("bounced", r"^5\.4\.4 .*none of its addresses is public"),
    "null.example": ("bounced", r"^5\.1\.10 .*null MX"),
    "absent.example": ("bounced", r"^5\.1\.2 .*does not exist"),
}


async def set_up(mx: MxWorld, tls: tuple[object, object]) -> None:
    for domain, says in PEERS.items():
        await mx.peer(domain, says=says)
    await mx.peer("small.example", extensions=("PIPELINING", "SIZE 100"))
    context = server_context(*tls)  # type: ignore[arg-type]
    await mx.peer("badtls.example", tls=context, says={"STARTTLS": garbage_for_tls})
    await mx.peer("poisoned.example")
    await mx.peer("forged.example")
    dns = mx.dns
    dns.add("closed.example", "MX", "10 mx.closed.example.")
    dns.add("mx.closed.example", "A", "127.9.9.9")
    dns.fault("timeout.example", "MX", Fault.TIMEOUT)
    dns.fault("servfail.example", "MX", Fault.SERVFAIL)
    dns.add("loop.example", "CNAME", "loop2.example.")
    dns.add("loop2.example", "CNAME", "loop.example.")
    dns.add("hundred.example", "MX", *(f"{n} mx{n}.hundred.example." for n in range(100)))
    for n in range(100):
        dns.add(f"mx{n}.hundred.example", "A", f"127.9.8.{n + 1}")
    dns.fault("poisoned.example", "MX", Fault.OTHER_NAMES)
    dns.fault("forged.example", "MX", Fault.WRONG_ID_FIRST)
    dns.add("inside.example", "MX", "10 mx.inside.example.")
    dns.add("mx.inside.example", "A", "10.0.0.1")
    dns.add("null.example", "MX", "0 .")


async def test_every_fault_is_told_in_the_history_and_keeps_nobody_else(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tls = ensure_certificate(tmp_path_factory.mktemp("tls"), "mx.example")
    async with mx_world() as mx:
        await set_up(mx, tls)
        transport = mx.transport(
            limits=DnsLimits(try_timeout_s=3.0, deadline_s=12.0, rounds=1),
            options={"reply_timeout_s": 2.5},
        )
        process = Process(world, transport, places=100)  # type: ignore[arg-type]
        requests = [
            EmailRequest(
                sender="App <app@example.org>",
                to=[f"someone@{domain}"],
                subject="Hello",
                text="Hi",
            )
            for domain in SAID
        ]
        made = [(await world.emails.accept(world.workspace_id, one)).emails[0] for one in requests]
        running = asyncio.create_task(process.worker.run())
        async with asyncio.timeout(30):
            while {"queued", "handed_off"} & set((await world.states("true")).values()):
                await asyncio.sleep(0.05)
        process.worker.drain()
        await running

        deliveries = Deliveries(database=world.database, clock=world.clock)
        wrong = []
        for email in made:
            [one] = email.recipients
            delivery, story = await deliveries.get(world.workspace_id, one.delivery_id)
            state, pattern = SAID[one.recipient.partition("@")[2]]
            said = [event.detail for event in story if event.state == state]
            if not (delivery.state == state and any(re.search(pattern, text) for text in said)):
                wrong.append((one.recipient, delivery.state, [event.detail for event in story]))
        assert wrong == []
        tried = {name for name, kind, _ in mx.dns.asked if name.endswith(".hundred.example")}
        assert len(tried) == HOSTS_TRIED


async def test_a_connection_lost_within_a_long_content_leaves_no_doubt() -> None:
    """Its last dot had not left: the mail was certainly not taken."""
    async with mx_world() as mx:
        await mx.peer("reset.example", says={"DATA": cut_in_content})
        [answer] = await mx.sent("a@reset.example", content=b"line\r\n" * 1_000_000)
        assert answer.outcome.value == "later"
        assert answer.reply.startswith("connection lost")
