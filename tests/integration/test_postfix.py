"""The SMTP transport against Postfix as it is: what it delivers is what was handed over."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest
from postfix_server import as_root, running_postfix
from smtp_wire import NotingHandler, listening, until

from mailyard.sending.transport import Handoff, Outcome, Outgoing, Recipient
from mailyard.sending.transports.smtp import SmtpOptions, SmtpTransport

pytestmark = as_root


@pytest.fixture
async def received() -> AsyncIterator[tuple[NotingHandler, int]]:
    """Where Postfix delivers to: a listener of ours that notes what comes."""
    handler = NotingHandler()
    async with listening(handler) as listener:
        yield handler, listener.port


@pytest.fixture(params=["chunking", "no chunking"])
def postfix(request: pytest.FixtureRequest, received: tuple[NotingHandler, int]) -> Iterator[int]:
    """A Postfix of our own; its port."""
    more = "" if request.param == "chunking" else "smtpd_discard_ehlo_keywords = chunking"
    with running_postfix(received[1], more) as port:
        yield port


def mail(number: int) -> tuple[Outgoing, bool]:
    """A mail, and whether Postfix takes it."""
    taken = number % 7 != 0
    address = f"person{number}@inbox.test" if taken else "no@inbox.test"
    content = (
        f"From: a@b.example\r\nTo: {address}\r\nSubject: {number}\r\n\r\n.\r\n..x {number}\r\n"
    )
    recipients = (Recipient(uuid4(), address),)
    return Outgoing(
        "a@b.example", recipients, content.encode(), eight_bit=False, smtp_utf8=False
    ), taken


async def test_every_mail_is_taken_or_refused_as_postfix_says_and_arrives_whole(
    postfix: int, received: tuple[NotingHandler, int]
) -> None:
    mails = [mail(number) for number in range(150)]
    transport = SmtpTransport(
        name="postfix",
        host="127.0.0.1",
        port=postfix,
        hello="me.example",
        options=SmtpOptions(connections=3),
    )
    answers: dict[object, Handoff] = {}
    for outgoing, _ in mails:
        transport.submit(outgoing, lambda handoff: answers.update({handoff.delivery_id: handoff}))
    await until(lambda: len(answers) == len(mails))
    await transport.close(5)
    for outgoing, taken in mails:
        handoff = answers[outgoing.recipients[0].delivery_id]
        assert handoff.outcome is (Outcome.ACCEPTED if taken else Outcome.NEVER), handoff
    wanted = Counter(outgoing.recipients[0].address for outgoing, taken in mails if taken)
    handler = received[0]
    await until(lambda: len(handler.stored) >= wanted.total())
    await asyncio.sleep(0.2)
    arrived = Counter(envelope.recipients[0] for envelope, _ in handler.stored)
    assert arrived == wanted
    bodies = {content.partition(b"\r\n\r\n")[2] for _, content in handler.stored}
    assert bodies == {
        outgoing.content.partition(b"\r\n\r\n")[2] for outgoing, taken in mails if taken
    }
