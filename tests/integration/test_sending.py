"""Transactional mail from the request to its rows, with real jobs and a transport with books."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sending_world import ACCEPTED, Answer, World

from mailyard.core import ids
from mailyard.core.errors import Conflict, IdempotencyMismatch, InvalidInput, NotFound
from mailyard.queue.job import EMAIL_SEND
from mailyard.sending.accept import Accepted, Idempotency
from mailyard.sending.delivery import Deliveries
from mailyard.sending.request import EmailRequest
from mailyard.sending.states import State
from mailyard.sending.suppress import Suppressions
from mailyard.sending.transport import Outcome
from mailyard.storage.database import Database


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    world = World(database)
    await world.open()
    yield world
    await world.bus.close()


def request(*to: str, **more: object) -> EmailRequest:
    values: dict[str, object] = {"subject": "Hello", "text": "Hi there"}
    values.update(more)
    return EmailRequest(
        sender="App <app@example.org>", to=list(to) or ["ada@example.com"], **values
    )


async def settled(world: World, email_id: UUID, *waiting: str) -> dict[str, str]:
    """The email's recipients and states, once none is in one of the `waiting` states."""
    async with asyncio.timeout(20):
        while True:
            states = await world.states("email_id = $1", email_id)
            if not set(states.values()) & {"queued", "handed_off", *waiting}:
                return states
            await asyncio.sleep(0.02)


async def accept(world: World, wanted: EmailRequest) -> Accepted:
    return (await world.emails.accept(world.workspace_id, wanted)).emails[0]


async def test_an_accepted_email_reaches_every_recipient_in_one_mail(world: World) -> None:
    made = await accept(
        world,
        request("Ada <ada@example.com>", "bob@example.com", cc=["cc@example.com"],
                bcc=["hidden@example.com", "ADA@example.com"]),
    )
    assert [one.recipient for one in made.recipients] == [
        "ada@example.com", "bob@example.com", "cc@example.com", "hidden@example.com",
    ]
    async with world.workers():
        states = await settled(world, made.id)
    assert set(states.values()) == {"accepted"} and len(states) == 4
    (mail,) = world.ledger.mails
    assert len(mail.recipients) == 4
    assert b"hidden" not in mail.content
    assert ids.type_id(ids.EMAIL, made.id).encode() in mail.content
