"""What recipients say by the links in their mail, and the names and footers of those links."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from link_visitor import Visitor, html_of, links_of, mail_of
from sending_world import BASE, World

from mailyard.campaigns.campaign_value import Following
from mailyard.campaigns.states import State
from mailyard.core import ids
from mailyard.core.errors import Conflict, InvalidInput
from mailyard.protocol.dns_answer import Answer, NoRecords, Result, TemporaryFailure, Trouble
from mailyard.sending.imprint import Imprints, SenderImprint
from mailyard.sending.track.domain import REMEMBERED_S, TrackingDomains
from mailyard.storage.database import Database

ONE_CLICK = {"List-Unsubscribe": "One-Click"}
HTML = '<p><a href="https://shop.example/">shop</a> <a href="{{ preferences_url }}">choose</a></p>'


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    world = World(database)
    await world.open()
    yield world
    await world.bus.close()


@pytest.fixture
async def visitor(world: World) -> Visitor:
    return Visitor(world)


async def _send(world: World, topic: UUID | None = None, html: str = HTML) -> UUID:
    """A campaign about `topic` to its end; an hour later."""
    template_id = await world.template(html=html)
    campaign_id = await world.campaign(
        template_id,
        list_unsubscribe="",
        track=Following(clicks=True),
        topic=ids.type_id(ids.TOPIC, topic) if topic else None,
    )
    async with world.workers(1):
        await world.campaigns.start(world.workspace_id, campaign_id)
        await world.until(campaign_id, State.FINISHED)
    world.clock.advance(3600)
    return campaign_id


def _unsubscribe_of(world: World, place: int = 0) -> str:
    header = mail_of(world.ledger.mails[place].content)["List-Unsubscribe"]
    return str(header).strip("<>")


async def test_one_click_acts_by_post_and_by_nothing_else(world: World, visitor: Visitor) -> None:
    (address,) = await world.add_contacts(1)
    campaign_id = await _send(world)
    url = _unsubscribe_of(world)
    page = await visitor.ask(url)
    assert page.status == 200 and b'method="post"' in page.body
    assert b"script" not in page.body and b"script-src" not in page.headers.get(
        b"content-security-policy", b""
    )
    assert (await visitor.ask(url, "HEAD")).body == b""
    for form in ({}, {"List-Unsubscribe": "no"}, {"x": "One-Click"}):
        assert (await visitor.ask(url, "POST", form=form)).status == 400
    assert (await visitor.ask(url, "DELETE")).status == 405
    assert await visitor.suppressions.page(world.workspace_id) == []
    multipart = (
        b'--q\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--q--'
    )
    for body, kind in (
        (b"List-Unsubscribe=One-Click", "application/x-www-form-urlencoded"),
        (multipart, "multipart/form-data; boundary=q"),
    ):
        answer = await visitor.ask(url, "POST", body=body, kind=kind)
        assert answer.status == 200 and b"unsubscribed" in answer.body
    (standing,) = await visitor.suppressions.page(world.workspace_id)
    assert (standing.address, standing.stream, standing.reason) == (
        address, "campaign", "unsubscribed"
    )  # fmt: skip
    assert await visitor.totals(campaign_id) == {"unsubscribed": 1}, "said twice, counted once"
    again = await _send(world)
    assert await world.states("campaign_id = $1", again) == {address: "suppressed"}


async def test_who_leaves_a_topic_gets_the_others(world: World, visitor: Visitor) -> None:
    first, second = await world.add_contacts(2)
    news = await visitor.topics.create(world.workspace_id, "News")
    offers = await visitor.topics.create(world.workspace_id, "Offers")
    await _send(world, news.id)
    assert world.ledger.mails[0].recipients[0].address == first
    await visitor.ask(_unsubscribe_of(world), "POST", form=ONE_CLICK)
    assert await visitor.suppressions.page(world.workspace_id) == []
    about_news, about_offers = await _send(world, news.id), await _send(world, offers.id)
    states = await world.states("campaign_id = $1", about_news)
    assert states == {first: "suppressed", second: "accepted"}
    assert set((await world.states("campaign_id = $1", about_offers)).values()) == {"accepted"}
    async with world.database.connection() as connection:
        why = await connection.fetchval(
            "SELECT reply FROM delivery WHERE campaign_id = $1 AND state = 'suppressed'", about_news
        )
    assert why == "the recipient does not want this topic"


async def test_only_who_asked_gets_what_is_on_request(world: World, visitor: Visitor) -> None:
    first, second = await world.add_contacts(2)
    beta = await visitor.topics.create(world.workspace_id, "Beta", on_request=True)
    async with world.database.transaction() as tx:
        await visitor.topics.choose(world.workspace_id, second, {beta.id: True}, tx)
    campaign_id = await _send(world, beta.id)
    states = await world.states("campaign_id = $1", campaign_id)
    assert states == {first: "suppressed", second: "accepted"}
    draft = await world.campaign(topic=ids.type_id(ids.TOPIC, beta.id))
    with pytest.raises(Conflict):
        async with world.database.transaction() as tx:
            await visitor.topics.remove(world.workspace_id, beta.id, tx)
    assert draft


async def test_the_preference_page_shows_and_keeps_what_is_chosen(
    world: World, visitor: Visitor
) -> None:
    (address,) = await world.add_contacts(1)
    topics = [
        await visitor.topics.create(world.workspace_id, name, on_request=name == "Beta")
        for name in ("Beta", "News", "Offers <b>")
    ]
    await _send(world, topics[1].id)
    url = links_of(world.ledger.mails[0].content)[1]
    assert url.startswith(f"{BASE}/p/")
    page = await visitor.ask(url)
    assert page.body.count(b"checkbox") == 3 and page.body.count(b" checked") == 2
    assert b"Offers &lt;b&gt;" in page.body and address.encode() not in page.body
    chosen = [ids.type_id(ids.TOPIC, topics[0].id), "top_nonsense"]
    saved = await visitor.ask(url, "POST", form={"save": "1", "topic": chosen})
    assert b"Saved" in saved.body and saved.body.count(b" checked") == 1
    choices = await visitor.topics.choices(world.workspace_id, address)
    assert [(one.topic.name, one.subscribed) for one in choices] == [
        ("Beta", True), ("News", False), ("Offers <b>", False)
    ]  # fmt: skip
    everything = await visitor.ask(url, "POST", form={"everything": "1"})
    assert b"unsubscribed from everything" in everything.body
    (standing,) = await visitor.suppressions.page(world.workspace_id)
    assert (standing.address, standing.reason) == (address, "unsubscribed")
    await visitor.ask(url, "POST", form={"save": "1", "topic": chosen})
    assert await visitor.suppressions.page(world.workspace_id) == [], "it was their own word"
    await visitor.suppressions.add(world.workspace_id, address, "all", "hard_bounce")
    await visitor.ask(url, "POST", form={"save": "1", "topic": chosen})
    assert len(await visitor.suppressions.page(world.workspace_id)) == 1, "that is not"
    assert b"only the sender" in (await visitor.ask(url)).body
    async with world.database.connection() as connection:
        actors = await connection.fetch("SELECT DISTINCT actor_kind, action FROM audit_log")
    assert {tuple(row) for row in actors} == {
        ("recipient", "topic.choose"), ("recipient", "suppression.add"),
        ("recipient", "suppression.remove"),
    }  # fmt: skip


async def test_a_topic_is_left_between_the_first_try_and_the_next(
    world: World, visitor: Visitor
) -> None:
    from sending_world import ACCEPTED

    from mailyard.sending.transport import Outcome

    (address,) = await world.add_contacts(1)
    news = await visitor.topics.create(world.workspace_id, "News")
    answers = [(Outcome.LATER, 450, "4.2.0 later"), ACCEPTED]
    template_id = await world.template(html=HTML)
    campaign_id = await world.campaign(template_id, topic=ids.type_id(ids.TOPIC, news.id))
    async with world.workers(1, lambda _: answers.pop(0)):
        await world.campaigns.start(world.workspace_id, campaign_id)
        while (await world.states("campaign_id = $1", campaign_id)) != {address: "deferred"}:
            await world.bus.subscribe("x").wait(0.01)
        async with world.database.transaction() as tx:
            await visitor.topics.choose(world.workspace_id, address, {news.id: False}, tx)
        world.clock.advance(3600)
        await world.until(campaign_id, State.FINISHED)
    assert await world.states("campaign_id = $1", campaign_id) == {address: "suppressed"}


class _Dns:
    def __init__(self, result: Result[str]) -> None:
        self._result = result

    async def cname(self, name: str) -> Result[str]:
        return self._result


async def test_links_go_by_the_workspaces_own_name_once_it_is_shown_to_be_its(
    world: World, visitor: Visitor
) -> None:
    domains = TrackingDomains(database=world.database, target="mail.example.org", clock=world.clock)
    made = await domains.create(world.workspace_id, "Click.Shop.Example")
    assert made.name == "click.shop.example"
    for name in ("shop.example", "mail.example.org", "a b.example.org", ""):
        with pytest.raises(InvalidInput):
            await domains.create(world.workspace_id, name)
    with pytest.raises(Conflict):
        await domains.create(world.workspace_id, "click.shop.example")
    right = Answer(("mail.example.org.",), 60.0, False, "x")
    for result, said in (
        (NoRecords(60.0, False), "there is no CNAME record"),
        (Answer(("elsewhere.example.",), 60.0, False, "x"), "has to point to mail.example.org"),
        (right, "as a sending domain first"),
    ):
        finding = await domains.look(made, _Dns(result))
        async with world.database.transaction() as tx:
            noted = await domains.note(world.workspace_id, made.id, finding, tx)
        assert said in noted.finding and not noted.verified
    async with world.database.connection() as connection:
        await connection.execute(
            "INSERT INTO domain (id, workspace_id, name) VALUES ($1, $2, 'shop.example')",
            made.id, world.workspace_id,
        )  # fmt: skip
        await connection.execute(
            "INSERT INTO dkim_key (id, workspace_id, domain_id, selector, algorithm, record, state)"
            " VALUES ($1, $2, $1, 's', 'rsa-sha256', 'r', 'signing')",
            made.id, world.workspace_id,
        )  # fmt: skip
    async with world.database.transaction() as tx:
        noted = await domains.note(
            world.workspace_id, made.id, await domains.look(made, _Dns(right)), tx
        )
        assert noted.verified and noted.finding == ""
        later = await domains.look(made, _Dns(TemporaryFailure(Trouble.TIMEOUT, "a server")))
        noted = await domains.note(world.workspace_id, made.id, later, tx)
    assert noted.verified and "look again later" in noted.finding
    await world.add_contacts(1)
    await _send(world)
    shop, choose = links_of(world.ledger.mails[0].content)
    assert shop.startswith("https://click.shop.example/c/")
    assert choose.startswith("https://click.shop.example/p/")
    world.clock.advance(REMEMBERED_S + 1)
    assert (await visitor.ask(shop)).status == 302
    assert (await visitor.ask(shop, host="mail.example.org")).status == 302
    async with world.database.connection() as connection:
        await connection.execute(
            "UPDATE tracking_domain SET workspace_id = $1", await _other(world)
        )
    world.clock.advance(REMEMBERED_S + 1)
    assert (await visitor.ask(shop)).status == 404, "by another workspace's name"
    assert await visitor.app.is_link_host({"headers": [(b"host", b"CLICK.shop.example:443")]})


async def _other(world: World) -> UUID:
    other = ids.uuid7()
    async with world.database.connection() as connection:
        await connection.execute("INSERT INTO workspace (id, name) VALUES ($1, 'Other')", other)
    return other


async def test_the_footer_is_in_every_campaign_and_code_is_refused(world: World) -> None:
    imprints = Imprints(database=world.database, clock=world.clock)
    footer = '<p>{{ physical_address }} <a href="{{ unsubscribe_url }}">leave</a></p>'
    async with world.database.transaction() as tx:
        await imprints.save(
            world.workspace_id,
            SenderImprint("1 Any Street\nTown", footer, "{{ unsubscribe_url }}"),
            tx,
        )
        for wrong in ("{{ name }}", "{% if x %}", "{# x #}", "a\0b"):
            with pytest.raises(InvalidInput):
                await imprints.save(world.workspace_id, SenderImprint("", wrong, ""), tx)
    await world.add_contacts(1)
    await _send(world, html="<body><p>Hello</p></body>")
    content = world.ledger.mails[0].content
    (leave,) = links_of(content)
    assert "1 Any Street<br>Town" in html_of(content) and leave == _unsubscribe_of(world)
    text = mail_of(content).get_body(("plain",))
    assert text is not None and leave in text.get_content()
