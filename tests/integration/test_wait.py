"""Waiting for mail: what has come already, what comes, what does not come."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode
from uuid import UUID

import pytest
from asgi_client import Client, authenticate, present
from mail_platform import MailPlatform, about, mail_platform

from mailyard.core.ids import INBOX, MESSAGE, type_id, uuid7
from mailyard.mailbox.inbox_value import Inbox, NewInbox
from mailyard.storage.database import Database
from mailyard.web.live.app import Live, build_live


@pytest.fixture
async def platform(database: Database) -> AsyncIterator[MailPlatform]:
    async with mail_platform(database) as platform:
        yield platform


@pytest.fixture
async def app(platform: MailPlatform) -> AsyncIterator[Live]:
    app = build_live(
        live=platform.live,
        messages=platform.messages,
        authenticate=authenticate,
        present=present,
    )
    await app.start()
    yield app
    await app.drain()


@pytest.fixture
async def ada(platform: MailPlatform, workspace_id: UUID) -> Inbox:
    [inbox] = await platform.inboxes.create(workspace_id, [NewInbox("ada", ttl_s=3600)])
    return inbox


def wait(app: Live, workspace_id: UUID, inbox_id: UUID, **query: object) -> Client:
    path = f"/v1/inboxes/{type_id(INBOX, inbox_id)}/wait"
    return Client(app, workspace_id, path=path, query=urlencode(query))


async def answer(client: Client) -> str | None:
    """The subject that the wait ended with; None in time."""
    await asyncio.wait_for(client.task, 60)
    if client.status == 204:
        return None
    assert client.status == 200, client.body
    subject: str = json.loads(client.body)["subject"]
    return subject


async def test_mail_that_comes_ends_the_wait(
    platform: MailPlatform, app: Live, workspace_id: UUID, ada: Inbox
) -> None:
    client = wait(app, workspace_id, ada.id, timeout_s=20)
    await asyncio.sleep(0.05)
    assert client.status == 0
    await platform.deliver("ada@inbox.test", content=about("hello"))
    assert await answer(client) == "hello"


async def test_mail_that_has_come_already_ends_it_at_once_oldest_first(
    platform: MailPlatform, app: Live, workspace_id: UUID, ada: Inbox
) -> None:
    first = await platform.deliver("ada@inbox.test", content=about("one"))
    await platform.deliver("ada@inbox.test", content=about("two"))
    assert await answer(wait(app, workspace_id, ada.id)) == "one"
    after = type_id(MESSAGE, first)
    assert await answer(wait(app, workspace_id, ada.id, after=after)) == "two"


async def test_only_what_matches_ends_it(
    platform: MailPlatform, app: Live, workspace_id: UUID, ada: Inbox
) -> None:
    client = wait(app, workspace_id, ada.id, subject="CODE", timeout_s=20)
    other = wait(app, workspace_id, ada.id, **{"from": "bob@", "timeout_s": 1})
    await platform.deliver("ada@inbox.test", content=about("noise"))
    await platform.deliver("ada@inbox.test", content=about("Your code is 1"))
    assert await answer(client) == "Your code is 1"
    assert await answer(other) is None


async def test_an_instant_leaves_out_what_came_before(
    platform: MailPlatform, app: Live, workspace_id: UUID, ada: Inbox
) -> None:
    await platform.deliver("ada@inbox.test", content=about("old"))
    later = (datetime.now(UTC) + timedelta(seconds=5)).isoformat()
    client = wait(app, workspace_id, ada.id, after=later, timeout_s=0.2)
    assert await answer(client) is None
    for long_ago in ("0001-01-01T00:00:00+14:00", "1970-01-01", "2026-01-01T00:00:00 01:00"):
        assert await answer(wait(app, workspace_id, ada.id, after=long_ago)) == "old"


async def test_no_mail_in_time_is_204(app: Live, workspace_id: UUID, ada: Inbox) -> None:
    client = wait(app, workspace_id, ada.id, timeout_s=0)
    assert await answer(client) is None
    assert client.status == 204


async def test_mail_between_asking_and_looking_is_not_missed(
    platform: MailPlatform, app: Live, workspace_id: UUID
) -> None:
    """Waits and mail start together, in any order; every wait gets its own."""
    made = await platform.inboxes.create(workspace_id, [NewInbox(ttl_s=3600) for _ in range(60)])
    clients = []
    sending = []
    for place, inbox in enumerate(made):
        if place % 2:
            clients.append(wait(app, workspace_id, inbox.id, timeout_s=20))
        sending.append(
            asyncio.create_task(platform.send(inbox.address, content=about(inbox.address)))
        )
        if not place % 2:
            clients.append(wait(app, workspace_id, inbox.id, timeout_s=20))
    await asyncio.gather(*sending)
    while jobs := await platform.lease():
        await platform.run(jobs)
    answers = [await answer(client) for client in clients]
    assert answers == [inbox.address for inbox in made]


async def test_an_inbox_that_is_not_there_or_anothers_is_404(
    app: Live, workspace_id: UUID, ada: Inbox
) -> None:
    for whose, inbox_id in ((workspace_id, uuid7()), (uuid7(), ada.id)):
        client = wait(app, whose, inbox_id)
        await asyncio.wait_for(client.task, 60)
        assert client.status == 404


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"timeout_s": "nan"}, "timeout_s"),
        ({"timeout_s": "121"}, "timeout_s"),
        ({"timeout_s": "-1"}, "timeout_s"),
        ({"timeout_s": "soon"}, "timeout_s"),
        ({"after": "yesterday"}, "after"),
        ({"after": "msg_short"}, "after"),
        ({"from": "a\0b"}, "from"),
        ({"subject": "x" * 201}, "subject"),
        ({"limit": "1"}, "limit"),
    ],
)
async def test_a_wrong_question_is_refused_by_name(
    app: Live, workspace_id: UUID, ada: Inbox, query: dict[str, str], field: str
) -> None:
    client = wait(app, workspace_id, ada.id, **query)
    await asyncio.wait_for(client.task, 60)
    assert client.status == 422
    assert json.loads(client.body)["field"] == field


async def test_draining_ends_waits_with_503(app: Live, workspace_id: UUID, ada: Inbox) -> None:
    clients = [wait(app, workspace_id, ada.id, timeout_s=60) for _ in range(5)]
    await asyncio.sleep(0.1)
    await app.drain()
    for client in clients:
        await asyncio.wait_for(client.task, 5)
        assert client.status == 503


async def test_a_wait_whose_client_hangs_up_gives_its_place_back(
    app: Live, workspace_id: UUID, ada: Inbox
) -> None:
    client = wait(app, workspace_id, ada.id, timeout_s=60)
    await asyncio.sleep(0.1)
    assert app.open == 1
    client.hang_up()
    await asyncio.wait([client.task], timeout=5)
    assert app.open == 0
