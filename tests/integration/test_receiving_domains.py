"""Own receiving domains: proof, MX, where mail goes that is no inbox's; inboxes with limits."""

from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import UUID

import pytest
from dns_server import ScriptedDns
from mail_platform import MailPlatform, about, mail_platform

from mailyard.app.route_inboxes import RouteInboxes
from mailyard.core.clock import SystemClock
from mailyard.core.errors import Conflict, InvalidInput, NotFound
from mailyard.core.ids import uuid7
from mailyard.mailbox.inbox_value import NewInbox
from mailyard.mailbox.reservation import Reservations
from mailyard.net.dns import DnsLimits, Resolver
from mailyard.receiving.domain import Look, ReceivingDomain, ReceivingDomains
from mailyard.receiving.domain_route import InboundRoutes, NewRoute
from mailyard.receiving.elsewhere import TOPIC
from mailyard.storage.database import Database

HOST = "mx.inbox.test"
FORGETS = DnsLimits(ttl_floor_s=0, ttl_ceiling_s=0, negative_ceiling_s=0, failure_s=0)


@pytest.fixture
async def mail(database: Database) -> AsyncIterator[MailPlatform]:
    async with mail_platform(database) as platform:
        yield platform


@pytest.fixture
def domains(database: Database) -> ReceivingDomains:
    return ReceivingDomains(database=database, installation=["inbox.test"], host=HOST)


@pytest.fixture
def routes(mail: MailPlatform) -> InboundRoutes:
    return InboundRoutes(
        database=mail.database, inboxes=RouteInboxes(mail.inboxes), refused=["inbox.test"]
    )


async def workspace(database: Database) -> UUID:
    workspace_id = uuid7()
    await database.pool.execute("INSERT INTO workspace VALUES ($1, 'Shop')", workspace_id)
    return workspace_id


async def proved(
    domains: ReceivingDomains, database: Database, workspace_id: UUID, name: str = "shop.example"
) -> ReceivingDomain:
    """A domain whose record stands."""
    async with database.transaction() as tx:
        domain = await domains.create(workspace_id, name, tx)
        look = Look(frozenset((domain.token,)), "", "good", "")
        return await domains.note(workspace_id, domain.id, look, tx)


async def add(
    mail: MailPlatform, routes: InboundRoutes, domain: ReceivingDomain, *wanted: NewRoute
) -> None:
    async with mail.database.transaction() as tx:
        for one in wanted:
            await routes.create(domain, one, tx)
    mail.bus.announce(TOPIC)


async def in_inbox(mail: MailPlatform, workspace_id: UUID, inbox_id: UUID) -> list[tuple[str, str]]:
    page = await mail.messages.list(workspace_id, inbox_id)
    return [(item.recipient, item.subject) for item in reversed(page.items)]


async def test_a_domain_receives_once_its_record_stands_and_its_mx_is_looked_at(
    domains: ReceivingDomains, database: Database, mail: MailPlatform
) -> None:
    owner, rival = await workspace(database), await workspace(database)
    async with ScriptedDns() as dns:
        resolver = Resolver([dns.address], SystemClock(), FORGETS)
        async with database.transaction() as tx:
            mine = await domains.create(owner, "Shop.Example.", tx)
            theirs = await domains.create(rival, "shop.example", tx)
        with pytest.raises(InvalidInput):  # it is not proved
            await mail.inboxes.create(owner, [NewInbox("ada@shop.example")])

        look = await domains.look(mine, resolver)
        async with database.transaction() as tx:
            mine = await domains.note(owner, mine.id, look, tx)
        assert mine.proved_at is None and "there is no TXT record" in mine.finding
        assert (mine.mx_state, "10 mx.inbox.test" in mine.mx_finding) == ("missing", True)

        dns.add("_mailyard.shop.example", "TXT", f'"{mine.proof_text}"')
        dns.add("shop.example", "MX", "10 mx.elsewhere.example.")
        look = await domains.look(mine, resolver)
        async with database.transaction() as tx:
            mine = await domains.note(owner, mine.id, look, tx)
        assert mine.proved_at is not None and mine.finding == ""
        assert mine.mx_state == "wrong" and "mx.elsewhere.example" in mine.mx_finding

        dns.add("shop.example", "MX", "10 mx.elsewhere.example.", f"20 {HOST}.")
        assert (await domains.look(mine, resolver)).mx_state == "good"
        assert "first" in (await domains.look(mine, resolver)).mx_finding

        look = await domains.look(theirs, resolver)
        assert "another one" in look.proof_finding
        [inbox] = await mail.inboxes.create(owner, [NewInbox("ada@shop.example")])
        assert (await mail.ask("ada@shop.example")).code == 250

        both = (f'"{mine.proof_text}"', f'"{theirs.proof_text}"')
        dns.add("_mailyard.shop.example", "TXT", *both)
        look = await domains.look(theirs, resolver)
        with pytest.raises(Conflict):  # both records stand: whoever has it keeps it
            async with database.transaction() as tx:
                await domains.note(rival, theirs.id, look, tx)
        await resolver.close()

    # The domain was sold: the old record is gone, the new owner proves it, old inboxes get no mail.
    look = replace(look, tokens=frozenset((theirs.token,)))
    async with database.transaction() as tx:
        theirs = await domains.note(rival, theirs.id, look, tx)
    assert theirs.proved_at is not None
    assert (await domains.get(owner, mine.id)).proved_at is None
    assert (await mail.ask("ada@shop.example")).code == 550
    assert (await mail.inboxes.get(owner, inbox.id)).address == "ada@shop.example"


async def test_mail_goes_where_the_first_fitting_route_says(
    domains: ReceivingDomains, routes: InboundRoutes, mail: MailPlatform, database: Database
) -> None:
    owner = await workspace(database)
    domain = await proved(domains, database, owner)
    ada, team, rest = await mail.inboxes.create(
        owner, [NewInbox("ada@shop.example"), NewInbox("team"), NewInbox("rest")]
    )
    assert (await mail.ask("sales@shop.example")).code == 550
    await add(
        mail,
        routes,
        domain,
        NewRoute("*", "inbox", inbox=rest.address),
        NewRoute("support-*", "inbox", inbox=team.address),
        NewRoute("support-x*", "drop"),
        NewRoute("sales", "inbox", inbox=team.address),
        NewRoute("spam*", "drop"),
        NewRoute("nobody", "refuse"),
    )
    for local, inbox in (
        ("ada", ada),
        ("ada+list", ada),
        ("sales", team),
        ("SALES+q", team),
        ("support-1", team),
        ("support-x1", team),  # patterns in their order
        ("whoever", rest),
        ("whoever+else", rest),
    ):
        address = f"{local}@shop.example"
        await mail.deliver(address, content=about(local))
        assert (await in_inbox(mail, owner, inbox.id))[-1] == (address.lower(), local)
    assert (await mail.ask("nobody@shop.example")).code == 550
    assert (await mail.hand_over_dropped("spammy@shop.example")).code == 250
    stored = await database.pool.fetchval("SELECT count(*) FROM message")
    assert stored == 8
    # One mail to many of them: once stored, once in each inbox.
    await mail.deliver("sales@shop.example", "x@shop.example", "spam@shop.example")
    assert await database.pool.fetchval("SELECT count(*) FROM message") == 9
    async with database.transaction() as tx:
        await domains.set_plus(owner, domain.id, False, tx)
    mail.bus.announce(TOPIC)
    await mail.deliver("ada+plain@shop.example", content=about("plain"))
    assert (await in_inbox(mail, owner, rest.id))[-1] == ("ada+plain@shop.example", "plain")


async def test_a_route_leads_to_its_own_workspaces_inboxes_alone(
    domains: ReceivingDomains, routes: InboundRoutes, mail: MailPlatform, database: Database
) -> None:
    owner, other = await workspace(database), await workspace(database)
    domain = await proved(domains, database, owner)
    [theirs] = await mail.inboxes.create(other, [NewInbox("theirs", ttl_s=60)])
    [mine] = await mail.inboxes.create(owner, [NewInbox("mine", ttl_s=60)])
    with pytest.raises(InvalidInput):
        await add(mail, routes, domain, NewRoute("*", "inbox", inbox=theirs.address))
    await add(mail, routes, domain, NewRoute("*", "inbox", inbox=mine.address))
    assert (await mail.ask("x@shop.example")).code == 250
    await mail.inboxes.delete(owner, [mine.id])
    assert (await mail.ask("x@shop.example")).code == 550
    await mail.inboxes.create(other, [NewInbox("mine")])  # another workspace takes the address
    assert (await mail.ask("x@shop.example")).code == 550
    with pytest.raises(InvalidInput):
        await mail.inboxes.create(other, [NewInbox("x@shop.example")])


async def test_what_no_route_can_be_is_refused_by_name(
    domains: ReceivingDomains, routes: InboundRoutes, mail: MailPlatform, database: Database
) -> None:
    owner = await workspace(database)
    domain = await proved(domains, database, owner)
    for wanted, field in (
        (NewRoute("a@b", "drop"), "pattern"),
        (NewRoute("a", "explode"), "action"),
        (NewRoute("a", "inbox"), "inbox"),
        (NewRoute("a", "inbox", inbox="none@inbox.test"), "inbox"),
        (NewRoute("a", "drop", inbox="x@inbox.test"), "inbox"),
        (NewRoute("a", "forward"), "forward_to"),
        (NewRoute("a", "forward", forward_to=("nonsense",)), "forward_to.0"),
        (NewRoute("a", "forward", forward_to=("b@shop.example",)), "forward_to.0"),
        (NewRoute("a", "forward", forward_to=("b@inbox.test",)), "forward_to.0"),
        (NewRoute("a", "drop", forward_to=("b@c.example",)), "forward_to"),
    ):
        with pytest.raises(InvalidInput) as refused:
            await add(mail, routes, domain, wanted)
        assert refused.value.field == field, wanted
    await add(mail, routes, domain, NewRoute("a", "drop"))
    with pytest.raises(Conflict):
        await add(mail, routes, domain, NewRoute("A", "refuse"))


async def test_a_route_with_an_inbox_of_its_own_makes_and_deletes_it(
    domains: ReceivingDomains, routes: InboundRoutes, mail: MailPlatform, database: Database
) -> None:
    owner = await workspace(database)
    domain = await proved(domains, database, owner)
    await add(mail, routes, domain, NewRoute("hook", "webhook"))
    [route] = await routes.list(owner, domain.id)
    assert route.filed_in is not None
    inbox = await mail.inboxes.get(owner, route.filed_in)
    assert inbox.labels == ("route",) and inbox.mail_days == 7
    message_id = await mail.deliver("hook@shop.example", content=about("event"))
    assert await in_inbox(mail, owner, inbox.id) == [("hook@shop.example", "event")]
    days = await database.pool.fetchval(
        "SELECT retention_days FROM message WHERE id = $1", message_id
    )
    assert days == 7  # the inbox is kept, its mail is not
    async with database.transaction() as tx:
        await routes.remove(owner, route.id, tx)
    with pytest.raises(NotFound):
        await mail.inboxes.get(owner, inbox.id)


async def test_a_one_time_inbox_closes_with_its_first_mail_and_loses_none_that_was_taken(
    mail: MailPlatform, database: Database
) -> None:
    owner = await workspace(database)
    [inbox] = await mail.inboxes.create(owner, [NewInbox("once", one_time=True, ttl_s=3600)])
    await mail.send(inbox.address, content=about("first"))
    await mail.send(inbox.address, content=about("second"))  # taken before the first was read
    await mail.run(await mail.lease())
    assert [subject for _, subject in await in_inbox(mail, owner, inbox.id)] == ["first", "second"]
    refused = await mail.ask(inbox.address)
    assert (refused.code, refused.enhanced) == (550, "5.2.1")
    assert (await mail.ask("once+x@inbox.test")).code == 550
    [again] = await mail.inboxes.create(owner, [NewInbox("twice", one_time=True)])
    await mail.inboxes.extend(owner, inbox.id, 7200.0)
    assert (await mail.ask(inbox.address)).code == 550  # longer life opens nothing
    assert (await mail.ask(again.address)).code == 250


async def test_a_full_inbox_refuses_until_there_is_room_again(
    mail: MailPlatform, database: Database
) -> None:
    owner = await workspace(database)
    [few, small] = await mail.inboxes.create(
        owner, [NewInbox("few", messages_max=2), NewInbox("small", bytes_max=2_000)]
    )
    first = await mail.deliver(few.address, content=about("1"))
    await mail.deliver(few.address, content=about("2"))
    refused = await mail.ask(few.address)
    assert (refused.code, refused.enhanced) == (452, "4.2.2")
    assert (await mail.ask("few+tag@inbox.test")).code == 452
    await mail.messages.delete(owner, [first])
    mail.acceptor._router._counted.clear()  # some seconds later
    assert (await mail.ask(few.address)).code == 250

    large = about("x") + b"x" * 900 + b"\r\n"
    await mail.deliver(small.address, content=large)
    assert (await mail.ask(small.address)).code == 250  # there is a little room
    assert (await mail.hand_over((small.address,), large)).code == 452
    assert (await mail.hand_over((small.address,), large * 3)).code == 552
    # Who has room takes it for all: nothing that was accepted for one may be lost for the other.
    assert (await mail.ask(few.address)).code == 250
    assert (await mail.hand_over((small.address, few.address), large)).code == 250

    await mail.inboxes.limit(owner, few.id, message_ttl_s=None, messages_max=None, bytes_max=None)
    assert (await mail.ask(few.address)).code == 250


async def test_mail_may_end_before_its_inbox(mail: MailPlatform, database: Database) -> None:
    owner = await workspace(database)
    [inbox] = await mail.inboxes.create(owner, [NewInbox("kept", message_ttl_s=3600.0)])
    message_id = await mail.deliver(inbox.address, content=about("short"))
    assert len(await in_inbox(mail, owner, inbox.id)) == 1
    await mail.messages.read(owner, message_id)
    await mail.inboxes.limit(owner, inbox.id, message_ttl_s=1.0, messages_max=9, bytes_max=None)
    await database.pool.execute("SELECT pg_sleep(1.05)")
    assert await in_inbox(mail, owner, inbox.id) == []
    assert await mail.messages.read_inboxes(owner, [inbox.id]) == []
    with pytest.raises(NotFound):
        await mail.messages.read(owner, message_id)
    days = await database.pool.fetchrow(
        "SELECT retention_days, message_retention_days FROM inbox_message"
    )
    assert tuple(days) == (0, 1)


async def test_nobody_else_gets_a_reserved_address(mail: MailPlatform, database: Database) -> None:
    owner, other = await workspace(database), await workspace(database)
    held = Reservations(database=database, domains=["inbox.test"])
    async with database.transaction() as tx:
        assert await held.reserve(owner, ["Brand@inbox.test"], tx) == ["brand@inbox.test"]
    with pytest.raises(Conflict):
        await mail.inboxes.create(other, [NewInbox("brand")])
    with pytest.raises(Conflict):
        async with database.transaction() as tx:
            await held.reserve(other, ["free@inbox.test", "brand@inbox.test"], tx)
    [inbox] = await mail.inboxes.create(owner, [NewInbox("brand", ttl_s=60)])
    await mail.inboxes.delete(owner, [inbox.id])
    with pytest.raises(Conflict):  # its own inbox has ended: it stays the owner's
        await mail.inboxes.create(other, [NewInbox("brand")])
    async with database.transaction() as tx:
        assert await held.release(owner, ["brand@inbox.test", "other@inbox.test"], tx) == [
            "brand@inbox.test"
        ]
    await mail.inboxes.create(other, [NewInbox("brand")])
    with pytest.raises(Conflict):
        async with database.transaction() as tx:
            await held.reserve(owner, ["brand@inbox.test"], tx)
    with pytest.raises(InvalidInput) as refused:
        await mail.inboxes.create(owner, [NewInbox("Postmaster")])
    assert refused.value.field == "inboxes.0.address"
