"""What comes back by mail: from the listener's 250 to the delivery's story and the suppression."""

import asyncio
import json
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from returned_mail import RETURNS, Returns, complaint, notification
from sending_world import LedgerTransport, Process, World

from mailyard.core import ids
from mailyard.queue.batch import Batch
from mailyard.queue.job import EMAIL_EVENTS, EMAIL_SEND
from mailyard.queue.settle import Settler
from mailyard.sending.request import EmailRequest
from mailyard.sending.returns.mail import LATER_S
from mailyard.sending.states import State
from mailyard.storage.database import Database
from mailyard.storage.queries import load


@pytest.fixture
async def returns(database: Database) -> AsyncIterator[Returns]:
    world = World(database)
    await world.open()
    returns = Returns(world)
    yield returns
    await returns.close()
    await world.bus.close()


async def sent(returns: Returns, *to: str) -> dict[str, UUID]:
    """Transactional mail that was accepted by the next hop: recipient -> delivery."""
    world = returns.world
    request = EmailRequest(sender="App <app@example.org>", to=list(to), subject="Hi", text="Hi")
    (made,) = (await world.emails.accept(world.workspace_id, request)).emails
    process = Process(world, LedgerTransport(world.ledger))
    jobs = await world.engine.lease([EMAIL_SEND], 100, 0.0, "test")
    await process.deliverer.handle(Batch(jobs, Settler(world.engine), asyncio.Event()))
    assert set((await world.states("email_id = $1", made.id)).values()) == {"accepted"}
    return {one.recipient: one.delivery_id for one in made.recipients}


async def campaign(returns: Returns, recipients: int) -> dict[str, UUID]:
    world = returns.world
    await world.add_contacts(recipients)
    campaign_id = await world.campaign()
    await world.campaigns.start(world.workspace_id, campaign_id)
    async with world.workers(), asyncio.timeout(20):
        while len(world.ledger.mails) < recipients or set(
            (await world.states("campaign_id = $1", campaign_id)).values()
        ) != {"accepted"}:
            await asyncio.sleep(0.02)
    async with world.database.connection() as connection:
        rows = await connection.fetch("SELECT recipient, id FROM delivery")
    return {row["recipient"]: row["id"] for row in rows}


async def test_every_recipient_has_a_return_path_of_his_own(returns: Returns) -> None:
    deliveries = await sent(returns, "ada@example.com", "bob@example.com")
    mails = returns.world.ledger.mails
    assert [len(mail.recipients) for mail in mails] == [1, 1]
    assert {
        mail.recipients[0].address: returns.paths.delivery_of(mail.reverse_path) for mail in mails
    } == deliveries
    assert len({mail.content for mail in mails}) == 1


async def test_only_a_signed_return_path_and_the_report_addresses_are_taken(
    returns: Returns,
) -> None:
    good = returns.paths.address_for(ids.uuid7())
    forged = good[: -1 - len(RETURNS)][:-1] + ("a" if good[44] != "a" else "b") + "@" + RETURNS
    asked = {
        good: 250,
        good.upper(): 250,
        good.replace(RETURNS, "bounce.customer.example"): 250,
        forged: 550,
        forged.replace(RETURNS, "bounce.customer.example"): 550,
        f"nobody@{RETURNS}": 550,
        f"fbl@{RETURNS}": 250,
        f"Abuse@{RETURNS}": 250,
        f"postmaster@{RETURNS}": 250,
    }
    assert {address: (await returns.ask(address)).code for address in asked} == asked


async def test_a_bounce_is_durable_with_its_job_before_the_250_and_then_ends_the_delivery(
    returns: Returns,
) -> None:
    (delivery_id,) = (await sent(returns, "ada@example.com")).values()
    path = returns.paths.address_for(delivery_id)
    content = notification("ada@example.com")
    reply = await returns.take(content, path)
    assert reply.code == 250
    async with returns.world.database.connection() as connection:
        stored = await connection.fetchrow("SELECT recipients, inbox_ids, raw FROM message")
        waiting = await connection.fetch("SELECT kind FROM job")
    assert stored["recipients"] == [path] and stored["inbox_ids"] == []
    assert stored["raw"].endswith(content)
    assert [row["kind"] for row in waiting] == ["returned-mail"]

    assert await returns.read() == 1
    delivery, story = await returns.story(delivery_id)
    assert (delivery.state, delivery.reason, delivery.reply_code) == (
        "bounced",
        "user_unknown",
        550,
    )
    assert [(event.state, event.kind) for event in story] == [
        ("queued", ""), ("handed_off", ""), ("accepted", ""), ("bounced", "bounced"),
    ]  # fmt: skip
    assert story[2].detail == "2.0.0 Ok" and story[2].transport == "ledger"
    told = story[3]
    assert (told.reason, told.status, told.source) == ("user_unknown", "5.1.1", "mail")
    assert "User unknown" in told.detail
    kept = await returns.world.database.fetchrow(
        load("returns").read_returned,
        returns.world.workspace_id, delivery_id, told.seq, 30, UUID(int=0),
    )  # fmt: skip
    assert kept is not None and kept["raw"] == stored["raw"]

    (entry,) = await returns.listed()
    assert (entry.address, entry.stream, entry.reason) == ("ada@example.com", "all", "hard_bounce")
    assert entry.delivery_id == delivery_id and "User unknown" in entry.evidence
    async with returns.world.database.connection() as connection:
        items = await connection.fetchval("SELECT items FROM live_event ORDER BY id DESC LIMIT 1")
    assert {"told": "bounced", "state": "bounced"}.items() <= json.loads(items)[0].items()


async def test_duplicates_and_late_words_change_nothing_and_are_told_once(
    returns: Returns,
) -> None:
    (delivery_id,) = (await sent(returns, "ada@example.com")).values()
    path = returns.paths.address_for(delivery_id)
    delay = notification("ada@example.com", action="delayed", status="4.4.1", diagnostic="timeout")
    delivered = notification("ada@example.com", action="delivered", status="2.0.0", diagnostic="ok")
    await returns.come_back(delay, path)
    assert (await returns.story(delivery_id))[0].state is State.ACCEPTED
    await returns.come_back(notification("ada@example.com"), path)
    await returns.come_back(notification("ada@example.com", message_id="2"), path)
    await returns.come_back(delivered, path)  # it was on its way for long
    delivery, story = await returns.story(delivery_id)
    assert delivery.state is State.BOUNCED
    assert [event.kind for event in story if event.kind] == ["delayed", "bounced", "delivered"]
    assert [event.state for event in story][-3:] == ["accepted", "bounced", "bounced"]
    assert len(await returns.listed()) == 1


async def test_a_confirmation_makes_it_delivered_and_a_later_bounce_takes_that_back(
    returns: Returns,
) -> None:
    (delivery_id,) = (await sent(returns, "ada@example.com")).values()
    path = returns.paths.address_for(delivery_id)
    await returns.come_back(
        notification("ada@example.com", action="delivered", status="2.0.0", diagnostic="ok"), path
    )
    assert (await returns.story(delivery_id))[0].state is State.DELIVERED
    full = "552 5.2.2 <{}>: mailbox is full"
    await returns.come_back(notification("ada@example.com", status="5.2.2", diagnostic=full), path)
    delivery, _ = await returns.story(delivery_id)
    assert (delivery.state, delivery.reason) == ("bounced", "mailbox_full")
    assert await returns.listed() == []  # soft: the address is a good one


@pytest.mark.parametrize(
    "diagnostic",
    [
        "550 5.7.1 <{}>: Recipient address rejected: Access denied by policy",
        "550 5.7.26 Unauthenticated email is not accepted due to the domain's DMARC policy",
        "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using a list",
    ],
)
async def test_a_policy_rejection_bounces_the_mail_and_suppresses_nobody(
    returns: Returns, diagnostic: str
) -> None:
    (delivery_id,) = (await sent(returns, "ada@example.com")).values()
    status = diagnostic.split()[1]
    bounce = notification("ada@example.com", status=status, diagnostic=diagnostic)
    await returns.come_back(bounce, returns.paths.address_for(delivery_id))
    assert (await returns.story(delivery_id))[0].state is State.BOUNCED
    assert await returns.listed() == []


async def test_a_bounce_of_somebody_he_forwards_to_is_told_and_blames_nobody(
    returns: Returns,
) -> None:
    (delivery_id,) = (await sent(returns, "ada@example.com")).values()
    await returns.come_back(
        notification("ada.private@other.example"), returns.paths.address_for(delivery_id)
    )
    delivery, story = await returns.story(delivery_id)
    assert delivery.state is State.ACCEPTED
    assert story[-1].kind == "bounced" and "ada.private@other.example" in story[-1].detail
    assert await returns.listed() == []


async def test_a_complaint_about_a_campaign_stops_campaigns_only(returns: Returns) -> None:
    deliveries = await campaign(returns, 2)
    delivery_id = deliveries["person0@example.com"]
    path = returns.paths.address_for(delivery_id)
    await returns.come_back(complaint(path, "person0@example.com"), f"fbl@{RETURNS}")
    await returns.come_back(notification("person1@example.com"),
        returns.paths.address_for(deliveries["person1@example.com"]))  # fmt: skip
    delivery, story = await returns.story(delivery_id)
    assert delivery.state is State.ACCEPTED
    assert [(event.state, event.kind) for event in story][-1] == ("accepted", "complained")
    assert {(one.address, one.stream, one.reason) for one in await returns.listed()} == {
        ("person0@example.com", "campaign", "complaint"),
        ("person1@example.com", "all", "hard_bounce"),
    }
    async with returns.world.database.connection() as connection:
        row = await connection.fetchrow(
            "SELECT sum(bounced)::int, sum(complained)::int, sum(delivered)::int"
            " FROM campaign_result"
        )
    assert tuple(row) == (1, 1, 0)


async def test_automatic_answers_and_letters_are_kept_apart(returns: Returns) -> None:
    (delivery_id,) = (await sent(returns, "ada@example.com")).values()
    path = returns.paths.address_for(delivery_id)
    for subject, more in (("Out of office", "Auto-Submitted: auto-replied\r\n"), ("Thanks!", "")):
        mail = f"From: ada@example.com\r\nSubject: {subject}\r\n{more}\r\nBack on Monday.\r\n"
        await returns.come_back(mail.encode(), path)
    delivery, story = await returns.story(delivery_id)
    assert delivery.state is State.ACCEPTED
    assert [(event.kind, event.detail) for event in story if event.kind] == [
        ("replied", "Out of office"), ("replied", "Thanks!"),
    ]  # fmt: skip
    assert await returns.listed() == []


async def test_a_bounce_of_a_delivery_that_is_not_there_is_tried_for_a_while_and_let_go(
    returns: Returns,
) -> None:
    """Its row may come a moment later: a campaign's rows are written with their results."""
    world = returns.world
    path = returns.paths.address_for(ids.uuid7())
    await returns.come_back(notification("ada@example.com"), path)
    for later_s in LATER_S:
        assert await returns.read() == 0
        world.clock.advance(later_s + 1)
        assert await returns.read(wait_s=10.0) == 1
    (depth,) = await world.engine.depth([EMAIL_EVENTS])
    assert (depth.ready, depth.scheduled, depth.dead) == (0, 0, 0)
    assert await returns.listed() == []


async def test_a_report_to_the_feedback_address_that_quotes_no_return_path_of_ours_does_nothing(
    returns: Returns,
) -> None:
    (delivery_id,) = (await sent(returns, "ada@example.com")).values()
    forged = returns.paths.address_for(delivery_id).replace("-", "-a", 1)
    await returns.come_back(complaint(forged, "ada@example.com"), f"abuse@{RETURNS}")
    _, story = await returns.story(delivery_id)
    assert not any(event.kind for event in story)
    assert await returns.listed() == []
