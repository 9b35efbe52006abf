"""A name is one over all clusters: claimed before its row is seen, mended after a crash."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from mailyard.access.audit import Actor, Audit
from mailyard.access.key import ApiKeys
from mailyard.access.session import Sessions
from mailyard.access.user import Users
from mailyard.app.shards import upkeep_of
from mailyard.core.errors import Conflict, Unavailable
from mailyard.core.ids import uuid7
from mailyard.fleet.shards import move
from mailyard.fleet.shards.move import Mover
from mailyard.fleet.shards.upkeep import NamesUpkeep
from mailyard.mailbox.inbox import Inboxes
from mailyard.mailbox.inbox_value import NewInbox
from mailyard.mailbox.reservation import Reservations
from mailyard.receiving.domain import Look, ReceivingDomains
from mailyard.storage.database import Database, DatabaseAddress
from mailyard.storage.directory import Directory, Home
from mailyard.storage.names import ADDRESS, DOMAIN, KEY, SESSION, NameBook, Named, Names
from mailyard.storage.queries import Query

HOME, EAST = "home", "east"
CLAIMS = Query("SELECT kind, name, workspace_id FROM shard_name")
OLDER = Query("UPDATE shard_name SET claimed_at = claimed_at - interval '1 hour'")


@dataclass
class Cluster:
    """One of the two, with a workspace, as the processes of that cluster see it."""

    database: Database
    names: Names
    workspace: UUID
    upkeep: NamesUpkeep

    @property
    def owner(self) -> Actor:
        """Whoever runs the workspace, and not the installation."""
        return Actor("user", "owner@example.org", self.workspace)

    @property
    def inboxes(self) -> Inboxes:
        return Inboxes(database=self.database, domains=["inbox.test"], names=self.names)

    @property
    def domains(self) -> ReceivingDomains:
        return ReceivingDomains(
            database=self.database, installation=["inbox.test"], host="mx.test", names=self.names
        )

    @property
    def users(self) -> Users:
        return Users(database=self.database, audit=Audit(database=self.database), names=self.names)

    @property
    def sessions(self) -> Sessions:
        audit = Audit(database=self.database)
        return Sessions(database=self.database, audit=audit, names=self.names)

    @property
    def keys(self) -> ApiKeys:
        return ApiKeys(
            database=self.database, audit=Audit(database=self.database), names=self.names
        )

    async def make(self, *addresses: str, workspace: UUID | None = None) -> None:
        wanted = [NewInbox(address=address) for address in addresses]
        await self.inboxes.create(workspace or self.workspace, wanted)

    async def prove(self, name: str) -> None:
        async with self.database.transaction() as tx:
            domain = await self.domains.create(self.workspace, name, tx)
        async with self.database.transaction() as tx:
            look = Look(frozenset({domain.token}), "", "good", "")
            await self.domains.note(self.workspace, domain.id, look, tx)


@dataclass
class Both:
    home: Cluster
    east: Cluster

    @property
    def book(self) -> NameBook:
        return NameBook(self.home.database)

    async def whose(self, kind: str, name: str) -> UUID | None:
        named = Named(kind, name)
        return (await self.book.find([named])).get(named)

    async def older(self) -> None:
        """What is claimed by now was claimed long ago."""
        await self.home.database.execute(OLDER)

    async def move(self, workspace: UUID, to: str) -> None:
        clusters = {HOME: self.home.database, EAST: self.east.database}
        await Mover(clusters=clusters, home=HOME, whole=True).move(workspace, to)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody here keeps old places."""
    monkeypatch.setattr(move, "BELIEVED_S", 0.1)
    monkeypatch.setattr(move, "_MARGIN_S", 0.1)


@pytest.fixture
async def both(database: Database, other_database_url: str) -> AsyncIterator[Both]:
    other = Database(DatabaseAddress(other_database_url, other_database_url, connections=8))
    await other.open()
    try:
        home = Home(database, opened=True)
        clusters = []
        for shard, own in ((HOME, database), (EAST, other)):
            names = Names(home, name_of_home=HOME, at_home=shard == HOME)
            upkeep = upkeep_of(own, home, shard)
            clusters.append(Cluster(own, names, uuid7(), upkeep))
            await add_workspace(own, UUID(int=1))
            await add_workspace(own, clusters[-1].workspace)
        place = Query(
            "INSERT INTO shard_place (workspace_id, shard, state) VALUES ($1, $2, 'active')"
        )
        await database.execute(place, clusters[1].workspace, EAST)
        yield Both(*clusters)
    finally:
        await other.close()


async def add_workspace(database: Database, workspace_id: UUID) -> None:
    insert = Query("INSERT INTO workspace (id, name) VALUES ($1, 'workspace')")
    await database.execute(insert, workspace_id)


async def test_an_address_is_one_over_all_clusters(both: Both) -> None:
    await both.east.make("ada@inbox.test", "bob@inbox.test")
    assert await both.whose(ADDRESS, "ada@inbox.test") == both.east.workspace
    with pytest.raises(Conflict, match=r"ada@inbox\.test is taken") as refused:
        await both.home.make("new@inbox.test", "ada@inbox.test")
    assert refused.value.field == "inboxes.1.address"
    assert await both.whose(ADDRESS, "new@inbox.test") is None  # all or none
    await both.home.make("new@inbox.test")
    with pytest.raises(Conflict, match="taken"):
        await both.east.make("new@inbox.test")
    found = await both.east.database.fetchval(Query("SELECT count(*) FROM address"))
    assert found == 2


async def test_of_many_who_want_an_address_at_once_one_has_it(both: Both) -> None:
    tries = [one.make("wanted@inbox.test") for _ in range(4) for one in (both.home, both.east)]
    said = await asyncio.gather(*tries, return_exceptions=True)
    assert [one for one in said if not isinstance(one, Conflict)] == [None]
    count = Query("SELECT count(*) FROM address WHERE address = 'wanted@inbox.test'")
    both_sides = [await one.database.fetchval(count) for one in (both.home, both.east)]
    assert sorted(both_sides) == [0, 1]
    holder = both.home if both_sides[0] else both.east
    assert await both.whose(ADDRESS, "wanted@inbox.test") == holder.workspace


async def test_a_held_address_is_held_against_other_clusters_too(both: Both) -> None:
    def held(one: Cluster) -> Reservations:
        return Reservations(database=one.database, domains=["inbox.test"], names=one.names)

    async with both.east.database.transaction() as tx:
        await held(both.east).reserve(both.east.workspace, ["held@inbox.test"], tx)
    with pytest.raises(Conflict, match="taken"):
        await both.home.make("held@inbox.test")
    with pytest.raises(Conflict, match="taken"):
        async with both.home.database.transaction() as tx:
            await held(both.home).reserve(both.home.workspace, ["held@inbox.test"], tx)
    await both.east.make("held@inbox.test")


async def test_within_a_cluster_an_address_goes_from_one_workspace_to_another(both: Both) -> None:
    """As without shards: at once, when its inbox has ended."""
    await both.east.make("now@inbox.test")
    inbox = await both.east.inboxes.find(both.east.workspace, "now@inbox.test")
    await both.east.inboxes.delete(both.east.workspace, [inbox.id])
    other = uuid7()
    await add_workspace(both.east.database, other)
    place = Query("INSERT INTO shard_place (workspace_id, shard, state) VALUES ($1, $2, 'active')")
    await both.home.database.execute(place, other, EAST)
    await both.east.make("now@inbox.test", workspace=other)
    assert await both.whose(ADDRESS, "now@inbox.test") == other


async def test_a_claim_without_a_row_is_let_go_and_a_row_without_a_claim_gets_one(
    both: Both,
) -> None:
    class Killed(Exception):
        """Stands for the end of a process between the claim and its commit."""

    with pytest.raises(Killed):
        async with both.east.database.transaction() as tx:
            await both.east.inboxes.create(
                both.east.workspace, [NewInbox(address="left@inbox.test")], tx=tx
            )
            raise Killed
    with pytest.raises(Conflict):
        await both.home.make("left@inbox.test")
    await both.east.upkeep.whole()  # too young: its row may be committed yet
    assert await both.whose(ADDRESS, "left@inbox.test") == both.east.workspace
    await both.older()
    assert (await both.home.upkeep.whole()).released == 0  # not its workspace
    assert (await both.east.upkeep.whole()).released == 1
    await both.home.make("left@inbox.test")

    unnamed = Inboxes(database=both.east.database, domains=["inbox.test"])
    await unnamed.create(both.east.workspace, [NewInbox(address="old@inbox.test")])
    assert (await both.east.upkeep.whole()).claimed == 1
    assert await both.whose(ADDRESS, "old@inbox.test") == both.east.workspace
    await unnamed.create(both.east.workspace, [NewInbox(address="left@inbox.test")])
    found = await both.east.upkeep.whole()
    assert (found.claimed, found.twice) == (0, [Named(ADDRESS, "left@inbox.test")])
    assert await both.whose(ADDRESS, "left@inbox.test") == both.home.workspace


async def test_what_has_ended_is_free_everywhere_after_the_upkeep(both: Both) -> None:
    await both.east.make("gone@inbox.test", "stays@inbox.test")
    inbox = await both.east.inboxes.find(both.east.workspace, "gone@inbox.test")
    await both.east.inboxes.delete(both.east.workspace, [inbox.id])
    await both.older()
    assert (await both.east.upkeep.whole()).released == 1
    await both.home.make("gone@inbox.test")
    assert await both.whose(ADDRESS, "stays@inbox.test") == both.east.workspace


async def test_names_follow_their_workspace_through_a_move(both: Both) -> None:
    await both.home.make("you@inbox.test")
    await both.home.prove("own.example")
    made = await both.home.keys.create(both.home.workspace, "k", ["admin"], actor=both.home.owner)
    workspace = both.home.workspace
    directory = Directory(database=both.home.database, home=HOME)
    named = [
        Named(ADDRESS, "you@inbox.test"),
        Named(DOMAIN, "own.example"),
        Named(KEY, made.key.prefix),
    ]
    for to in (EAST, HOME):
        await both.move(workspace, to)
        await directory.look()
        assert await both.book.find(named) == dict.fromkeys(named, workspace)
        assert directory.known(workspace).shard == to
        await both.older()
        for one in (both.home, both.east):
            mended = await one.upkeep.whole()
            assert (mended.claimed, mended.released, mended.twice) == (0, 0, [])


async def test_a_proved_domain_is_one_over_all_clusters(both: Both) -> None:
    await both.east.prove("own.example")
    with pytest.raises(Conflict, match=r"in another database cluster has own\.example"):
        await both.home.prove("own.example")
    assert await both.whose(DOMAIN, "own.example") == both.east.workspace
    proved = Query("SELECT count(*) FROM receiving_domain WHERE proved_at IS NOT NULL")
    assert await both.home.database.fetchval(proved) == 0


async def test_a_person_has_one_account_and_no_owner_takes_one_of_another_cluster(
    both: Both,
) -> None:
    mine = await both.home.users.add(
        both.home.workspace, "eve@example.org", "member", actor=both.home.owner
    )
    with pytest.raises(Conflict, match="belongs to another workspace"):
        await both.east.users.add(
            both.east.workspace, "eve@example.org", "owner", actor=both.east.owner
        )
    async with both.east.database.transaction() as tx:  # she has followed a link in her mail
        theirs = await both.east.users.join(
            both.east.workspace, "eve@example.org", "member", actor=both.east.owner, tx=tx
        )
    assert theirs == mine.id


async def test_who_comes_with_a_workspace_comes_into_no_other_by_it(both: Both) -> None:
    """Sessions of a person that an owner there could have made end with the arrival."""
    await both.home.users.add(
        both.home.workspace, "eve@example.org", "member", actor=both.home.owner
    )
    own = await both.home.users.add(
        both.home.workspace, "ann@example.org", "owner", actor=both.home.owner
    )
    async with both.east.database.transaction() as tx:
        eve = await both.east.users.join(
            both.east.workspace, "eve@example.org", "member", actor=both.east.owner, tx=tx
        )
    bob = await both.east.users.add(
        both.east.workspace, "bob@example.org", "owner", actor=both.east.owner
    )
    taken = await both.east.sessions.start(eve, both.east.workspace, "browser")
    kept = await both.east.sessions.start(bob.id, both.east.workspace, "browser")
    stays = await both.home.sessions.start(own.id, both.home.workspace, "browser")
    await both.move(both.east.workspace, HOME)
    assert await both.home.sessions.find(taken.token) is None
    assert await both.home.sessions.find(kept.token) is not None
    assert await both.home.sessions.find(stays.token) is not None


async def test_a_session_is_known_by_its_workspace_of_now(both: Both) -> None:
    other = uuid7()
    await add_workspace(both.home.database, other)
    eve = await both.home.users.add(
        both.home.workspace, "eve@example.org", "owner", actor=both.home.owner
    )
    command = Actor("command", "cli", other)
    await both.home.users.add(other, "eve@example.org", "owner", actor=command)
    session = await both.home.sessions.start(eve.id, both.home.workspace, "browser")
    ((name, _),) = [
        (row["name"], row["workspace_id"])
        for row in await both.home.database.fetch(CLAIMS)
        if row["kind"] == SESSION
    ]
    assert await both.whose(SESSION, name) == both.home.workspace
    await both.home.sessions.move(session.token, other)
    assert await both.whose(SESSION, name) == other


async def test_without_the_home_cluster_nothing_is_claimed_elsewhere(both: Both) -> None:
    class Away(Home):
        async def get(self) -> Any:
            raise Unavailable("PostgreSQL does not answer")

    names = Names(Away(both.home.database, opened=True), name_of_home=HOME, at_home=False)
    alone = Inboxes(database=both.east.database, domains=["inbox.test"], names=names)
    with pytest.raises(Unavailable):
        await alone.create(both.east.workspace, [NewInbox(address="you@inbox.test")])
    assert await both.east.database.fetchval(Query("SELECT count(*) FROM address")) == 0
