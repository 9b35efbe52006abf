"""Opens, clicks and unsubscribes, from the mail that leaves to what is counted."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from link_visitor import Visitor, html_of, links_of, mail_of
from sending_world import BASE, World

from mailyard.campaigns.campaign_value import Following, Utm
from mailyard.campaigns.states import State
from mailyard.core.errors import Unavailable
from mailyard.queue.job import EMAIL_EVENTS, NewJob
from mailyard.sending.request import EmailRequest, EmailTrack
from mailyard.sending.track.hit import HITS
from mailyard.sending.track.link import Links
from mailyard.storage.database import Database

HTML = """<html><body><a href="https://shop.example/a?x=1&amp;y=2">A</a>
<a href="https://shop.example/city/{{ city }}">City</a> <a href="mailto:a@b.example">mail</a>
<a href="#top">top</a> <a href="https://shop.example/off" data-track="off">off</a>
<a href="https://shop.example/b#part">B</a> <a href="{{ unsubscribe_url }}">leave</a></body></html>
"""
BOTH = Following(opens=True, clicks=True)


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    world = World(database)
    await world.open()
    yield world
    await world.bus.close()


@pytest.fixture
async def visitor(world: World) -> Visitor:
    return Visitor(world)


async def _sent(world: World, **more: object) -> UUID:
    """A campaign with HTML as its page, sent to its end; an hour later."""
    template_id = await world.template(html=HTML)
    campaign_id = await world.campaign(template_id, **more)
    async with world.workers(1):
        await world.campaigns.start(world.workspace_id, campaign_id)
        await world.until(campaign_id, State.FINISHED)
    world.clock.advance(3600)
    return campaign_id


async def test_a_campaigns_links_lead_where_its_template_says(
    world: World, visitor: Visitor
) -> None:
    await world.add_contacts(3)
    campaign_id = await _sent(
        world, track=BOTH, utm=Utm(source="news", campaign="a b"), list_unsubscribe=""
    )
    tags = "utm_source=news&utm_campaign=a%20b"
    seen = set()
    for mail in world.ledger.mails:
        plain, city, mailto, anchor, off, part, leave, pixel = links_of(mail.content)
        assert (mailto, anchor, off) == ("mailto:a@b.example", "#top", "https://shop.example/off")
        visits = [await visitor.ask(link) for link in (plain, city, part)]
        assert [(visit.status, visit.location) for visit in visits] == [
            (302, f"https://shop.example/a?x=1&y=2&{tags}"),
            (302, f"https://shop.example/city/Turin?{tags}"),
            (302, f"https://shop.example/b?{tags}#part"),
        ]
        shown = await visitor.ask(pixel)
        assert shown.status == 200 and shown.body.startswith(b"GIF89a")
        headers = mail_of(mail.content)
        assert headers["List-Unsubscribe"] == f"<{leave}>"
        assert headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        assert all(link.startswith(f"{BASE}/") for link in (plain, city, part, leave, pixel))
        seen |= {plain, city, part, leave, pixel}
        # One after the other: three links at once would be a scanner.
    assert len(seen) == 15, "every recipient has links of his own"
    links = await Links(database=world.database).of_campaign(world.workspace_id, campaign_id)
    assert sorted(link.url for link in links) == [
        f"https://shop.example/a?x=1&y=2&{tags}",
        f"https://shop.example/b?{tags}#part",
        "https://shop.example/city/{{ city }}",
    ]


async def test_without_tracking_a_mail_is_as_its_template_has_it(world: World) -> None:
    await world.add_contacts(1)
    await _sent(world)
    (mail,) = world.ledger.mails
    assert "shop.example/a?x=1&amp;y=2" in html_of(mail.content)
    assert "<img" not in html_of(mail.content) and f"{BASE}/c/" not in html_of(mail.content)
    assert mail_of(mail.content)["List-Unsubscribe"].startswith("<https://example.org/u/")


async def test_people_are_counted_once_and_machines_apart(world: World, visitor: Visitor) -> None:
    await world.add_contacts(2)
    campaign_id = await _sent(world, track=BOTH)
    first, second = (links_of(mail.content) for mail in world.ledger.mails)
    for _ in range(2):
        await visitor.ask(first[-1])
        await visitor.ask(first[0])
        world.clock.advance(60)
    await visitor.ask(second[-1], agent="Mozilla/5.0", peer="17.58.1.2")
    await visitor.ask(second[0], "HEAD")
    await visitor.settle()
    assert await visitor.totals(campaign_id) == {
        "opens": 2, "opened": 1, "clicks": 2, "clicked": 1, "machine_opens": 1, "machine_clicks": 1
    }  # fmt: skip
    assert sorted(act.kind for act in visitor.acts) == ["clicked", "clicked", "opened", "opened"]
    assert {act.campaign_id for act in visitor.acts} == {campaign_id}
    async with world.database.connection() as connection:
        rows = await connection.fetch("SELECT DISTINCT machine, network FROM tracking_event")
    assert {tuple(row) for row in rows} == {
        ("", "203.0.113.0/24"), ("apple-mail-privacy", "17.58.1.0/24"),
        ("head-request", "203.0.113.0/24"),
    }  # fmt: skip


async def test_a_scanner_is_found_out_by_its_third_link(world: World, visitor: Visitor) -> None:
    """The first two were counted as a person's already; that is taken back."""
    await world.add_contacts(1)
    campaign_id = await _sent(world, track=BOTH)
    plain, city, *_, part, _, _ = links_of(world.ledger.mails[0].content)
    await visitor.ask(plain)
    await visitor.ask(city)
    await visitor.settle()
    assert await visitor.totals(campaign_id) == {"clicks": 2, "clicked": 1}
    world.clock.advance(0.5)
    await visitor.ask(part)
    await visitor.settle()
    assert await visitor.totals(campaign_id) == {"machine_clicks": 3}
    links = await Links(database=world.database).of_campaign(world.workspace_id, campaign_id)
    assert [(link.clicks, link.machine_clicks) for link in links] == [(0, 1)] * 3
    world.clock.advance(600)
    await visitor.ask(plain)
    await visitor.settle()
    assert await visitor.totals(campaign_id) == {"machine_clicks": 3, "clicks": 1, "clicked": 1}


async def test_what_is_forged_or_unknown_leads_nowhere_and_counts_nothing(
    world: World, visitor: Visitor
) -> None:
    await world.add_contacts(1)
    await _sent(world, track=BOTH, list_unsubscribe="")
    plain, *_, leave, pixel = links_of(world.ledger.mails[0].content)
    flipped = plain[:-3] + ("A" if plain[-3] != "A" else "B") + plain[-2:]
    token = plain.rpartition("/")[2]
    forged = [
        flipped,
        f"{BASE}/c/",
        f"{BASE}/c/{'A' * 56}",
        f"{BASE}/c/{token}=",
        f"{BASE}/c/https://evil.example/",
        f"{BASE}/c/{leave.rpartition('/')[2]}",  # of another purpose
        f"{BASE}/o/{token}.gif",
        f"{BASE}/o/{pixel.rpartition('/')[2].removesuffix('.gif')}",
        f"{BASE}/u/{token}",
        f"{BASE}/p/{token}",
    ]
    visits = [await visitor.ask(url) for url in forged]
    assert {(visit.status, b"location" in visit.headers) for visit in visits} == {(404, False)}
    assert len({visit.body for visit in visits}) == 1, "no answer says why"
    async with world.database.connection() as connection:
        await connection.execute("DELETE FROM tracked_link WHERE url LIKE '%/a?%'")
    assert (await visitor.ask(plain)).status == 404, "signed, and not stored"
    assert not await visitor._due()


async def test_a_click_before_its_row_stands_is_counted_when_it_does(
    world: World, visitor: Visitor
) -> None:
    await world.add_contacts(1)
    campaign_id = await _sent(world, track=BOTH, list_unsubscribe="")
    plain, *_, leave, _ = links_of(world.ledger.mails[0].content)
    async with world.database.connection() as connection:
        await connection.execute("CREATE TEMP TABLE aside AS SELECT * FROM delivery")
        await connection.execute("DELETE FROM delivery")
        await visitor.ask(plain)
        await visitor.ask(leave, "POST", form={"List-Unsubscribe": "One-Click"})
        await visitor.settle()
        assert await visitor.totals(campaign_id) == {}
        await connection.execute("INSERT INTO delivery SELECT * FROM aside")
    world.clock.advance(30)
    await visitor.settle()
    assert await visitor.totals(campaign_id) == {"clicks": 1, "clicked": 1, "unsubscribed": 1}


async def test_a_job_that_runs_twice_counts_once(world: World, visitor: Visitor) -> None:
    await world.add_contacts(1)
    campaign_id = await _sent(world, track=BOTH)
    await visitor.ask(links_of(world.ledger.mails[0].content)[0])
    async with world.database.connection() as connection:
        job = await connection.fetchrow("SELECT kind, payload FROM job WHERE kind = $1", HITS)
    again = NewJob(EMAIL_EVENTS, job["kind"], job["payload"], world.workspace_id)
    await world.engine.enqueue([again])
    await visitor.settle()
    await world.engine.enqueue([again])
    await visitor.settle()
    assert await visitor.totals(campaign_id) == {"clicks": 1, "clicked": 1}


async def test_while_the_database_is_away_a_known_link_leads_on(
    world: World, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.add_contacts(1)
    await _sent(world, track=BOTH)
    plain, *_, part, _, pixel = links_of(world.ledger.mails[0].content)
    await visitor.ask(plain)

    async def away(*_: object, **__: object) -> None:
        raise Unavailable("the database is away")

    monkeypatch.setattr(world.engine, "enqueue", away)
    monkeypatch.setattr(visitor.tracking.links, "find", away)
    assert (await visitor.ask(plain)).location == "https://shop.example/a?x=1&y=2"
    for unknown in (part, pixel):
        visit = await visitor.ask(unknown)
        assert (visit.status, b"retry-after" in visit.headers) == (503, True)


async def test_transactional_mail_is_followed_when_asked_and_not_else(
    world: World, visitor: Visitor
) -> None:
    html = '<p><a href="https://shop.example/{{no}}">x</a></p>'
    for track in (EmailTrack(), EmailTrack(opens=True, clicks=True)):
        request = EmailRequest(
            sender="shop@example.org",
            to=["a@b.example", "c@d.example"],
            subject="s",
            text="t",
            html=html,
            track=track,
        )
        await world.emails.accept(world.workspace_id, request)
    async with world.workers(1):
        while len(world.ledger.left) < 2 or sum(world.ledger.left.values()) < 4:
            await world.bus.subscribe("x").wait(0.01)
    shared, *own = sorted(world.ledger.mails, key=lambda mail: -len(mail.recipients))
    assert html_of(shared.content).strip() == html
    assert len(own) == 2, "each recipient has a mail of his own when it is followed"
    for mail in own:
        link, pixel = links_of(mail.content)
        assert link.startswith(f"{BASE}/c/")
        visit = await visitor.ask(link)
        assert (visit.status, visit.location) == (302, "https://shop.example/{{no}}")
        assert (await visitor.ask(pixel)).status == 200
