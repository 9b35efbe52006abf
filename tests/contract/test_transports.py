"""What every transport promises (`sending/transport.py`), whatever it speaks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from http_script import LOOPBACK, QUICK, Seen, Step, answer, by_request, letter, scripted
from mx_world import mx_world
from smtp_wire import NotingHandler, listening, until

from mailyard.core import ids
from mailyard.core.clock import SystemClock
from mailyard.net.http import HttpClient
from mailyard.ratelimit.adapters.memory import MemoryRateLimit
from mailyard.sending.transport import (
    HANDOFF_REPLY_CHARACTERS,
    Handoff,
    Outcome,
    Outgoing,
    Recipient,
    Transport,
)
from mailyard.sending.transports.file import FileTransport
from mailyard.sending.transports.http_provider import HttpProvider, ProviderOptions
from mailyard.sending.transports.mailgun import Mailgun
from mailyard.sending.transports.postmark import Postmark
from mailyard.sending.transports.smtp import SmtpOptions, SmtpTransport
from mailyard.sending.transports.vendor import Vendor

KINDS = ["smtp", "one-a-request", "batch", "file", "mx"]


def smtp_to(port: int) -> SmtpTransport:
    options = SmtpOptions(backoff=QUICK)
    return SmtpTransport(
        name="it", host="127.0.0.1", port=port, hello="me.example", options=options
    )


@asynccontextmanager
async def provider_to(vendor: Vendor) -> AsyncIterator[Transport]:
    client = HttpClient(allowed=LOOPBACK)
    rate = MemoryRateLimit(clock=SystemClock())
    options = ProviderOptions(backoff=QUICK)
    yield HttpProvider(name="it", vendor=vendor, http=client, rate=rate, options=options)
    await client.close()


def vendor_of(kind: str, url: str) -> Vendor:
    if kind == "batch":
        return Postmark(token="t", endpoint=url)
    return Mailgun(domain="d.example", key="k", endpoint=url)


@asynccontextmanager
async def working(kind: str, folder: Path) -> AsyncIterator[Transport]:
    """A transport whose other side takes everything."""
    if kind == "smtp":
        async with listening(NotingHandler()) as listener:
            yield smtp_to(listener.port)
    elif kind == "file":
        yield FileTransport(name="it", folder=folder)
    elif kind == "mx":
        async with mx_world() as world:
            await world.peer("d.example")
            yield world.transport(name="it")
    else:

        def taking(seen: Seen) -> Step:
            if kind == "batch":
                mails: Any = seen.json()
                return answer(200, [{"ErrorCode": 0, "MessageID": "1"}] * len(mails))
            return answer(200, {"id": "1"})

        async with (
            scripted(by_request(taking)) as server,
            provider_to(vendor_of(kind, server.url)) as transport,
        ):
            yield transport


@asynccontextmanager
async def out_of_reach(kind: str, folder: Path) -> AsyncIterator[Transport]:
    """A transport whose other side is not there."""
    if kind == "file":
        folder.write_text("in the way")
        yield FileTransport(name="it", folder=folder)
        return
    if kind == "mx":
        async with mx_world() as world:
            world.dns.add("d.example", "A", "127.9.9.9")
            yield world.transport(name="it")
        return
    async with scripted(answer(200)) as server:
        pass
    if kind == "smtp":
        yield smtp_to(int(server.url.rsplit(":", 1)[1]))
        return
    async with provider_to(vendor_of(kind, server.url)) as transport:
        yield transport


class Book:
    """Who was handed over, and what was said of them."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.answers: dict[UUID, list[Handoff]] = {}

    def send(self, *addresses: str) -> None:
        recipients = tuple(Recipient(ids.uuid7(), address) for address in addresses)
        self.answers.update((one.delivery_id, []) for one in recipients)
        mail = Outgoing("b@s.example", recipients, letter(*addresses), False, False)
        self.transport.submit(mail, self.note)
        for one in recipients:
            assert not self.answers[one.delivery_id], "the answer never comes from inside submit"

    def note(self, handoff: Handoff) -> None:
        self.answers[handoff.delivery_id].append(handoff)

    async def outcomes(self) -> set[Outcome]:
        """What was said, once everybody has an answer. Nobody has two."""
        await until(lambda: all(self.answers.values()))
        await asyncio.sleep(0.01)
        assert all(len(answers) == 1 for answers in self.answers.values())
        handoffs = [answers[0] for answers in self.answers.values()]
        assert {handoff.transport for handoff in handoffs} == {"it"}
        assert all(len(handoff.reply) <= HANDOFF_REPLY_CHARACTERS for handoff in handoffs)
        return {handoff.outcome for handoff in handoffs}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_every_recipient_is_answered_once(kind: str, tmp_path: Path) -> None:
    async with working(kind, tmp_path) as transport:
        book = Book(transport)
        for n in range(100):
            book.send(f"{n}@d.example")
        book.send("one@d.example", "two@d.example", "three@d.example")
        assert await book.outcomes() == {Outcome.ACCEPTED}
        assert len(book.answers) == 103
        await transport.close(5)


async def test_out_of_reach_means_later(kind: str, tmp_path: Path) -> None:
    async with out_of_reach(kind, tmp_path / "there") as transport:
        book = Book(transport)
        for n in range(20):
            book.send(f"{n}@d.example", "also@d.example")
        assert await book.outcomes() == {Outcome.LATER}
        await transport.close(1)


async def test_a_caller_that_fails_harms_nobody_else(kind: str, tmp_path: Path) -> None:
    async with working(kind, tmp_path) as transport:

        def fail(handoff: Handoff) -> None:
            raise RuntimeError("the caller's own")

        people = (Recipient(ids.uuid7(), "a@d.example"), Recipient(ids.uuid7(), "b@d.example"))
        transport.submit(Outgoing("b@s.example", people, letter("a@d.example"), False, False), fail)
        book = Book(transport)
        book.send("c@d.example")
        assert await book.outcomes() == {Outcome.ACCEPTED}
        await transport.close(5)


@pytest.mark.parametrize("drain_s", [0.0, 10.0])
async def test_closing_leaves_nobody_without_an_answer(
    kind: str, drain_s: float, tmp_path: Path
) -> None:
    async with working(kind, tmp_path) as transport:
        book = Book(transport)
        for n in range(50):
            book.send(f"{n}@d.example")
        await transport.close(drain_s)
        outcomes = await book.outcomes()
        assert Outcome.NEVER not in outcomes
        if drain_s:
            assert outcomes == {Outcome.ACCEPTED}


async def test_closing_without_work_ends(kind: str, tmp_path: Path) -> None:
    async with working(kind, tmp_path) as transport:
        await transport.close(5)
