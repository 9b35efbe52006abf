"""A pattern of a domain that leads to a program: from SMTP to its HTTP server, by real sockets."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from app_work import ask, receive, work
from webhook_world import Endpoint

from mailyard.app import Application
from mailyard.bus.filter import make_filter
from mailyard.core.ids import INBOX, MESSAGE, type_id, uuid7
from mailyard.mailbox.inbox_value import NewInbox
from mailyard.receiving.accept import Acceptor
from mailyard.receiving.domain import Look
from mailyard.receiving.domain_route import NewRoute
from mailyard.receiving.elsewhere import TOPIC
from mailyard.settings import Settings
from mailyard.webhooks.endpoint import Wish
from mailyard.webhooks.signing import signature

MAIL = (
    b"From: Ada <ada@peer.test>\r\nTo: hook-42@shop.example\r\nSubject: Your order\r\n\r\n"
    b"It left today.\r\n"
)


@pytest.fixture
async def app(database_url: str, tmp_path: Path) -> AsyncIterator[Application]:
    application = Application(
        Settings(
            data=tmp_path,
            database_url=database_url,
            inbox_domain="inbox.test",
            webhook_networks="127.0.0.0/8",
        )
    )
    await application.open()
    yield application
    await application.close()


async def told(app: Application, endpoint: Endpoint, count: int) -> None:
    """Deal and tell until the endpoint has been asked so often."""
    async with asyncio.timeout(60):
        while len(endpoint.asked) < count:
            await app.fan_out.look()  # an event settles when nothing older is under way anywhere
            await work(app)


async def test_mail_to_a_pattern_reaches_the_program_behind_it(app: Application) -> None:
    workspace = uuid7()
    await app.database.pool.execute("INSERT INTO workspace VALUES ($1, 'Shop')", workspace)
    endpoint = Endpoint()
    server = await asyncio.start_server(endpoint.serve, "127.0.0.1", 0)
    endpoint.port = server.sockets[0].getsockname()[1]
    async with app.database.transaction() as tx:
        domain = await app.receiving_domains.create(workspace, "shop.example", tx)
        look = Look(frozenset((domain.token,)), "", "good", "")
        domain = await app.receiving_domains.note(workspace, domain.id, look, tx)
        route = await app.inbound_routes.create(domain, NewRoute("hook-*", "webhook"), tx)
        assert route.filed_in is not None
        wanted = make_filter(["message.received"], [type_id(INBOX, route.filed_in)])
        _, secret = await app.webhooks.create(workspace, Wish("orders", endpoint.url, wanted), tx)
    app.bus.announce(TOPIC)
    [other] = await app.inboxes.create(workspace, [NewInbox("other")])
    acceptor = Acceptor(
        database=app.database, engine=app.engine, hostname="mx.test", elsewhere=app.elsewhere
    )
    await receive(acceptor, other.address, content=MAIL)  # which the program did not ask for
    message_id = await receive(acceptor, "Hook-42@shop.example", content=MAIL)
    assert (await ask(acceptor, "nobody@shop.example")).code == 550
    await told(app, endpoint, 1)

    [asked] = endpoint.asked
    data = asked.json["data"]
    assert asked.json["type"] == "message.received"
    assert data["message_id"] == type_id(MESSAGE, message_id)
    assert data["message"]["to"] == "hook-42@shop.example"
    assert data["message"]["text"].strip() == "It left today."
    assert data["message"]["from"] == {"address": "ada@peer.test", "name": "Ada"}
    headers = asked.headers
    expected = signature(
        secret, headers["webhook-id"], int(headers["webhook-timestamp"]), asked.body
    )
    assert expected in headers["webhook-signature"].split()
    # What the program was told lies in the route's own inbox too, for a week.
    kept = await app.messages.list(workspace, route.filed_in)
    assert [item.id for item in kept.items] == [message_id]

    # A program that is away is told later: what was accepted is not lost.
    endpoint.answer = lambda _: 503
    await receive(acceptor, "hook-43@shop.example", content=MAIL)
    await told(app, endpoint, 2)
    states = await app.database.pool.fetch("SELECT state FROM webhook_delivery ORDER BY id")
    assert [row["state"] for row in states] == ["delivered", "waiting"]
    await acceptor.close()
    server.close()
