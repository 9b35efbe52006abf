"""Segments on real PostgreSQL: SQL says what plain Python says, estimates and counts agree."""

import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from filter_trees import CAMPAIGN, KINDS, LISTS, NAMES, TEXTS, TOPICS, Event, Person, holds, trees
from hypothesis import HealthCheck, Phase, given, settings

from mailyard.campaigns import audience as module
from mailyard.campaigns.audience import FIRST_ID, LAST_ID, Audience, Audiences
from mailyard.campaigns.behaviour import Behaviour, ContactEvent
from mailyard.campaigns.filter.sql import condition
from mailyard.campaigns.filter.tokens import FilterError
from mailyard.campaigns.filter.tree import Node
from mailyard.campaigns.segment import Segments
from mailyard.core import ids
from mailyard.core.clock import ManualClock
from mailyard.core.errors import Conflict, NotFound
from mailyard.storage.database import Database
from mailyard.storage.queries import Query

NOW = datetime.now(UTC).replace(microsecond=0)
PEOPLE = 300
ASK = """
    SELECT c.address FROM contact AS c
    WHERE c.workspace_id = $1 AND c.id > $2::uuid AND c.id <= $3::uuid AND {filter}
"""


def _people(dice: random.Random) -> list[Person]:
    """People with all kinds of attributes, events and memberships, and without."""
    plain: list[Any] = [*TEXTS, 42, 42.0, 3.5, -1, 0, 1e20, 0.001, True, False, None]
    days = [(NOW + timedelta(days=dice.randint(-400, 400))).date().isoformat() for _ in range(8)]

    def attributes(names: tuple[str, ...]) -> dict[str, Any]:
        chosen = dice.sample(names, dice.randint(0, len(names)))
        return {name: dice.choice(plain + days) for name in chosen}

    def event() -> Event:
        at = NOW - timedelta(hours=dice.choice([0.5, 10, 30, 100, 700, 800, 5000]))
        properties = attributes(("plan", "score", "campaign of"))
        return Event(dice.choice(KINDS), at, properties, dice.random() < 0.5)

    return [
        Person(
            address=f"person{number}@example{number % 3}.com",
            name=dice.choice(["", "pro", "it's", *TEXTS[:3]]),
            attributes=attributes(NAMES),
            added=NOW - timedelta(hours=dice.randint(0, 24 * 400)),
            lists=frozenset(name for name in LISTS if dice.random() < 0.4),
            topics={name: dice.random() < 0.5 for name in TOPICS if dice.random() < 0.5},
            events=[event() for _ in range(dice.choice([0, 0, 1, 2, 5]))],
        )
        for number in range(PEOPLE)
    ]


class Crowd:
    """People of one workspace, in the database and here."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.workspace_id = ids.uuid7()
        self.people = _people(random.Random(7))
        clock = ManualClock(NOW)
        self.audiences = Audiences(database=database, clock=clock)
        self.segments = Segments(database=database, audiences=self.audiences)
        self.ids = {person.address: ids.uuid7() for person in self.people}

    async def store(self) -> None:
        run, me = self.database.execute, self.workspace_id
        await run(Query("INSERT INTO workspace (id, name) VALUES ($1, 'test')"), me)
        people = self.people
        await run(
            Query(
                "INSERT INTO contact (id, workspace_id, address, name, attributes, created_at)"
                " SELECT id, $1, address, name, attributes::jsonb, added FROM unnest($2::uuid[],"
                " $3::text[], $4::text[], $5::text[], $6::timestamptz[])"
                " AS new (id, address, name, attributes, added)"
            ),
            me,
            [self.ids[person.address] for person in people],
            [person.address for person in people],
            [person.name for person in people],
            [msgspec.json.encode(person.attributes).decode() for person in people],
            [person.added for person in people],
        )
        for name in LISTS:
            list_id = ids.uuid7()
            await run(
                Query("INSERT INTO contact_list (id, workspace_id, name) VALUES ($1, $2, $3)"),
                list_id, me, name,
            )  # fmt: skip
            await run(
                Query("INSERT INTO list_member (list_id, contact_id, workspace_id)"
                      " SELECT $1, id, $2 FROM unnest($3::uuid[]) AS new (id)"),
                list_id, me, [self.ids[one.address] for one in people if name in one.lists],
            )  # fmt: skip
        for name in TOPICS:
            topic_id = ids.uuid7()
            await run(
                Query("INSERT INTO topic (id, workspace_id, name, on_request)"
                      " VALUES ($1, $2, $3, $4)"),
                topic_id, me, name, name == "offers",
            )  # fmt: skip
            said = [one for one in people if name in one.topics]
            await run(
                Query("INSERT INTO contact_topic (topic_id, address, workspace_id, subscribed)"
                      " SELECT $1, address, $2, yes FROM unnest($3::text[], $4::boolean[])"
                      " AS new (address, yes)"),
                topic_id, me, [one.address for one in said], [one.topics[name] for one in said],
            )  # fmt: skip
        await self._store_events()

    async def _store_events(self) -> None:
        behaviour = Behaviour(database=self.database)
        campaign_id = ids.parse_type_id(ids.CAMPAIGN, CAMPAIGN)
        events = [
            ContactEvent(
                id=ids.uuid7(int(event.at.timestamp() * 1000)),
                workspace_id=self.workspace_id,
                contact_id=self.ids[person.address],
                kind=event.kind,
                campaign_id=campaign_id if event.of_campaign else None,
                properties=event.properties,
            )
            for person in self.people
            for event in person.events
        ]
        await behaviour.make_room(event.at for event in events)
        async with self.database.transaction() as tx:
            assert await behaviour.record_many(events, tx) == len(events)

    def expected(self, tree: Node) -> set[str]:
        return {one.address for one in self.people if holds(tree, one, NOW)}

    async def found(self, audience: Audience, sliced: bool) -> set[str]:
        asked = condition(audience.tree, audience.named, NOW, sliced=sliced)
        query = Query(ASK.replace("{filter}", asked.text))
        rows = await self.database.fetch(
            query, self.workspace_id, FIRST_ID, LAST_ID, *asked.arguments
        )
        return {row["address"] for row in rows}


@pytest.fixture
async def crowd(database: Database) -> AsyncIterator[Crowd]:
    crowd = Crowd(database)
    await crowd.store()
    yield crowd


async def test_sql_says_of_every_contact_what_plain_python_says(crowd: Crowd) -> None:
    everything = await crowd.audiences.read(
        crowd.workspace_id,
        " or ".join([*(f'list "{x}"' for x in LISTS), *(f'topic "{x}"' for x in TOPICS)]),
    )
    drawn: list[Node] = []

    @settings(
        max_examples=150, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck), derandomize=True,
    )  # fmt: skip
    @given(trees)
    def draw(tree: Node) -> None:
        drawn.append(tree)

    draw()
    matching = 0
    for tree in drawn:
        audience = Audience(crowd.workspace_id, tree, everything.named)
        expected = crowd.expected(tree)
        for sliced in (True, False):
            assert await crowd.found(audience, sliced) == expected, (sliced, tree)
        matching += 0 < len(expected) < PEOPLE
    assert matching > len(drawn) / 3, "filters that tell people apart"


async def test_a_count_by_slices_and_pages_by_windows_miss_nobody(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLICE_ANCHORS", 1)
    monkeypatch.setattr(module, "COUNT_STEP_S", -1.0)
    monkeypatch.setattr(module, "PAGE_WINDOW", 7)
    audience = await crowd.audiences.read(
        crowd.workspace_id, 'not list "churned" and (opened or plan exists)'
    )
    expected = crowd.expected(audience.tree)
    counted = await crowd.audiences.count(audience)
    contacts, steps = counted.contacts, 1
    while counted.upto is not None:
        counted = await crowd.audiences.count(audience, counted.upto)
        contacts, steps = contacts + counted.contacts, steps + 1
    assert (contacts, steps > 1) == (len(expected), True)
    page = await crowd.audiences.members(audience, limit=10)
    found = page.contacts
    while page.upto is not None:
        page = await crowd.audiences.members(audience, after=page.upto, limit=10)
        found += page.contacts
    assert [one.address for one in found] == [
        one.address for one in crowd.people if one.address in expected
    ]
    estimate = await crowd.audiences.estimate(audience)
    assert estimate.contacts == estimate.low == estimate.high == len(expected)


async def test_an_estimate_holds_the_truth_between_its_bounds(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where neighbours are alike, as in a file that was sorted."""
    monkeypatch.setattr(module, "COUNT_ALL_ANCHORS", 0)
    monkeypatch.setattr(module, "ESTIMATE_S", 30.0)
    monkeypatch.setattr(module, "RUN_CONTACTS", 8)
    workspace_id = ids.uuid7()
    await database.execute(
        Query("INSERT INTO workspace (id, name) VALUES ($1, 'test')"), workspace_id
    )
    await database.execute(
        Query(
            "INSERT INTO contact (id, workspace_id, address, attributes)"
            " SELECT (lpad(to_hex(1700000000000 + n), 12, '0') || '7' ||"
            " substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid, $1,"
            " 'p' || n || '@example.com', jsonb_build_object('block', n / 2000, 'n', n % 100)"
            " FROM generate_series(1, 20000) AS n"
        ),
        workspace_id,
    )
    audiences = Audiences(database=database)
    for source, truth in (
        ("n < 30", 6_000),
        ("block in (1, 2, 3)", 6_000),
        ("n = 5 and not block < 5", 100),
        ("n exists", 20_000),
        ("n = 1000", 0),
    ):
        audience = await audiences.read(workspace_id, source)
        estimate = await audiences.estimate(audience)
        slack = 0.1 * truth  # the seed is fixed: this is no test of 19 in 20
        assert estimate.low - slack <= truth <= estimate.high + slack, (source, estimate)


async def test_segments_are_named_changed_and_removed(crowd: Crowd) -> None:
    me, segments = crowd.workspace_id, crowd.segments
    made = await segments.create(me, " Readers ", 'opened and not list "churned"')
    assert await segments.get(me, made.id) == made
    assert made.name == "Readers"
    with pytest.raises(Conflict):
        await segments.create(me, "Readers", "opened")
    with pytest.raises(FilterError) as refused:
        await segments.update(me, made.id, source='opened and\n not list "Churned"')
    assert refused.value.message == "line 2, column 11: there is no list named 'Churned'"
    with pytest.raises(FilterError, match="no topic named"):
        await segments.create(me, "Other", 'topic "none"')
    changed = await segments.update(me, made.id, source="clicked")
    assert (changed.name, changed.filter) == ("Readers", "clicked")
    other = await segments.create(me, "Other", "opened")
    with pytest.raises(Conflict):
        await segments.update(me, other.id, name="Readers")
    assert [one.name for one in await segments.page(me)] == ["Other", "Readers"]
    assert [one.name for one in await segments.page(me, after=other.id)] == ["Readers"]
    for stranger in (ids.uuid7(), me):
        with pytest.raises(NotFound):
            await segments.get(stranger, made.id if stranger != me else ids.uuid7())
    await segments.delete(me, made.id)
    with pytest.raises(NotFound):
        await segments.delete(me, made.id)


async def test_a_pinned_filter_means_the_same_after_a_renaming(crowd: Crowd) -> None:
    me = crowd.workspace_id
    audience = await crowd.audiences.read(me, 'list "friends" and topic "offers" or list "churned"')
    pinned = audience.pinned()
    expected = crowd.expected(audience.tree)
    await crowd.database.execute(
        Query("UPDATE contact_list SET name = 'x' || name WHERE workspace_id = $1"), me
    )
    await crowd.database.execute(
        Query("UPDATE topic SET name = 'x' || name WHERE workspace_id = $1"), me
    )
    again = await crowd.audiences.read_pinned(me, pinned)
    assert await crowd.found(again, True) == expected
    await crowd.database.execute(Query("DELETE FROM contact_list WHERE workspace_id = $1"), me)
    assert await crowd.found(again, True) == set(), "nobody is in a list that is gone"
