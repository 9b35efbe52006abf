"""The cache in layers: two instances on one database are two processes of the platform."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from random import Random

import pytest
from api_platform import Platform, nothing_there, services, start
from mail_platform import mail_platform

from mailyard.access.audit import Actor
from mailyard.access.plan import Plan, PlanBook
from mailyard.access.session import token_hash
from mailyard.cache.adapters.postgres import PostgresCache
from mailyard.cache.change_log import REACHES_S
from mailyard.cache.kind import INBOX, KINDS, UNUSED, Kind
from mailyard.cache.layered import LayeredCache
from mailyard.core.clock import ManualClock, SystemClock
from mailyard.core.errors import NotFound
from mailyard.core.ids import uuid7
from mailyard.observe.metrics import cache_lookups
from mailyard.protocol.authentication import Standing
from mailyard.protocol.dmarc.report import AggregateReport, Row
from mailyard.protocol.report_files import Found
from mailyard.storage.database import Database, DatabaseAddress
from mailyard.web.asgi import build

HERE, ELSEWHERE = uuid7(), uuid7()
NEAR = Kind("near", process_s=None)
AGED = Kind("aged", life_s=10.0, process_s=5.0, stale_s=20.0)
SHARED = Kind("shared", shared_s=30.0)
FOR_EVER = Kind("for-ever", result_s=None)


class Source:
    """What is true, and how often somebody looked."""

    def __init__(self, value: str = "one") -> None:
        self.value = value
        self.made = 0

    async def __call__(self) -> str:
        self.made += 1
        return self.value


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def process(
    database: Database, clock: ManualClock
) -> AsyncIterator[Callable[[], LayeredCache]]:
    made: list[LayeredCache] = []

    def make() -> LayeredCache:
        shared = PostgresCache(database=database)
        made.append(LayeredCache(database=database, shared=shared, clock=clock))
        return made[-1]

    yield make
    for one in made:
        await one.close()


Process = Callable[[], LayeredCache]


async def test_many_who_ask_at_once_share_one_making(process: Process) -> None:
    cache, source = process(), Source()
    asked = [cache.get_or_make(NEAR, HERE, "k", source) for _ in range(20)]
    assert await asyncio.gather(*asked) == ["one"] * 20
    assert await cache.get_or_make(NEAR, HERE, "k", source) == "one"
    assert source.made == 1
    await cache.get_or_make(NEAR, ELSEWHERE, "k", source)
    assert source.made == 2


async def test_a_change_in_another_process_is_heard_by_the_next_read(
    process: Process, database: Database
) -> None:
    reader, writer, source = process(), process(), Source()
    await reader.get_or_make(NEAR, HERE, "k", source, ["t"])
    async with database.transaction() as tx:
        await writer.change(HERE, ["t"], tx)
        assert await reader.get_or_make(NEAR, HERE, "k", source, ["t"]) == "one"
        source.value = "two"
    assert await reader.get_or_make(NEAR, HERE, "k", source, ["t"]) == "two"
    await writer.change(HERE, ["other"])
    await writer.change(ELSEWHERE, ["t"])
    await reader.get_or_make(NEAR, HERE, "k", source, ["t"])
    assert source.made == 2


async def test_a_transaction_that_commits_late_is_heard_too(
    process: Process, database: Database
) -> None:
    reader, source = process(), Source()
    async with database.transaction() as early:
        await reader.change(HERE, ["t"], early)
        async with database.transaction() as late:
            await reader.change(HERE, ["u"], late)
        await reader.get_or_make(NEAR, HERE, "k", source, ["t"])  # has heard of the later one
        source.value = "two"
    assert await reader.get_or_make(NEAR, HERE, "k", source, ["t"]) == "two"


async def test_what_was_being_made_during_a_change_is_neither_kept_nor_joined(
    process: Process,
) -> None:
    cache, writer = process(), process()
    old_is_read, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> str:
        old_is_read.set()
        await go_on.wait()
        return "old"

    first = asyncio.create_task(cache.get_or_make(NEAR, HERE, "k", slow, ["t"]))
    await old_is_read.wait()
    await writer.change(HERE, ["t"])
    assert await cache.get_or_make(NEAR, HERE, "k", Source("new"), ["t"]) == "new"
    go_on.set()
    assert await first == "old"  # it asked before the change
    assert await cache.get_or_make(NEAR, HERE, "k", Source("newer"), ["t"]) == "new"


async def test_an_aged_value_is_given_while_a_new_one_is_made_behind_it(
    process: Process, clock: ManualClock
) -> None:
    cache, source = process(), Source()
    await cache.get_or_make(AGED, HERE, "k", source)
    source.value = "two"
    clock.advance(6)
    assert await cache.get_or_make(AGED, HERE, "k", source) == "one"
    while cache._behind:
        await asyncio.sleep(0)
    assert await cache.get_or_make(AGED, HERE, "k", source) == "two"
    clock.advance(26)
    source.value = "three"
    assert await cache.get_or_make(AGED, HERE, "k", source) == "three"


async def test_a_value_ends_when_it_says_so_and_an_error_is_not_kept(
    process: Process, clock: ManualClock
) -> None:
    cache, source = process(), Source()
    end = clock.now() + timedelta(seconds=3)
    for _ in range(2):
        await cache.get_or_make(NEAR, HERE, "k", source, ends_at=lambda _: end)
    assert source.made == 1
    clock.advance(3)
    await cache.get_or_make(NEAR, HERE, "k", source, ends_at=lambda _: end)
    assert source.made == 2

    async def fail() -> str:
        raise NotFound("no")

    with pytest.raises(NotFound):
        await cache.get_or_make(NEAR, HERE, "none", fail)
    assert await cache.get_or_make(NEAR, HERE, "none", source) == "one"


@pytest.mark.parametrize("kind", [SHARED, FOR_EVER])
async def test_a_lower_layer_serves_other_processes_until_a_change(
    process: Process, kind: Kind
) -> None:
    source = Source()
    await process().get_or_make(kind, HERE, "k", source, ["t"])
    assert await process().get_or_make(kind, HERE, "k", source, ["t"]) == "one"
    assert source.made == 1
    source.value = "two"
    await process().change(HERE, ["t"])
    assert await process().get_or_make(kind, HERE, "k", source, ["t"]) == "two"


@pytest.mark.parametrize("kind", [SHARED, FOR_EVER])
async def test_what_was_made_before_a_change_and_stored_after_it_is_never_given(
    process: Process, kind: Kind, database: Database
) -> None:
    writer = process()

    async def overtaken() -> str:
        await writer.change(HERE, ["t"])
        return "old"

    await process().get_or_make(kind, HERE, "k", overtaken, ["t"])
    assert await process().get_or_make(kind, HERE, "k", Source("new"), ["t"]) == "new"
    async with database.connection() as connection:
        await connection.execute("UPDATE cache_change SET at = at - interval '1 hour'")
    await writer.sweep()  # the change leaves, and what it made untrue with it
    assert await process().get_or_make(kind, HERE, "k", Source("newer"), ["t"]) == "new"


async def test_results_that_have_run_out_leave_and_those_for_ever_stay(
    process: Process, database: Database
) -> None:
    cache = process()
    await cache.get_or_make(Kind("short", result_s=-1.0), HERE, "k", Source())
    await cache.get_or_make(FOR_EVER, HERE, "k", Source())
    await cache.sweep()
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT array_agg(kind) FROM cache_result") == ["for-ever"]


async def test_after_a_long_silence_everything_is_made_anew(
    process: Process, clock: ManualClock
) -> None:
    cache, source = process(), Source()
    await cache.get_or_make(NEAR, HERE, "k", source)
    clock.advance(REACHES_S + 1)
    await cache.get_or_make(NEAR, HERE, "k", source)
    assert source.made == 2


async def test_without_the_database_values_are_made_and_nothing_old_is_given() -> None:
    nowhere = Database(
        DatabaseAddress("postgresql://127.0.0.1:9/x", "postgresql://127.0.0.1:9/x", 1)
    )
    cache, source = LayeredCache(database=nowhere), Source()
    nowhere._pool = None

    async def gone(*_: object, **__: object) -> None:
        raise ConnectionRefusedError

    nowhere.fetch = gone  # type: ignore[method-assign,assignment]
    assert await cache.get_or_make(FOR_EVER, HERE, "k", source) == "one"
    assert await cache.get_or_make(FOR_EVER, HERE, "k", source) == "one"
    assert source.made == 2


async def test_the_process_keeps_no_more_bytes_than_it_may(database: Database) -> None:
    cache = LayeredCache(database=database, size_bytes=40_000)
    source = Source()
    for number in range(100):
        await cache.get_or_make(NEAR, HERE, f"{number}", source, ["t"])
    assert cache._near.size_bytes <= 40_000
    assert 20 < len(cache._near) < 100
    await cache.get_or_make(NEAR, HERE, "99", source)
    assert source.made == 100
    await cache.get_or_make(NEAR, HERE, "large", source, weigh=lambda _: 30_000)
    await cache.get_or_make(NEAR, HERE, "large", source, weigh=lambda _: 30_000)
    assert source.made == 102
    await cache.close()


def test_each_kind_has_a_name_of_its_own_and_a_shared_value_an_end() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    for kind in KINDS:
        assert kind.shared_s is not None or kind.life_s is not None, kind.name
    assert INBOX.shared_s == UNUSED


@pytest.fixture
async def two(database: Database) -> AsyncIterator[tuple[Platform, Platform]]:
    """Two API processes of one installation."""
    first = await start(database)
    app = services(database)
    front = build(app, pages=nothing_there)
    await front.start()
    yield first, Platform(app, front, first.first)
    await front.drain()
    await app.cache.close()
    await first.close()


async def test_no_client_reads_what_it_has_changed_as_it_was_in_whatever_process(
    two: tuple[Platform, Platform], database: Database
) -> None:
    random = Random(5)
    made = await two[0].call("POST", "/v1/inboxes", json={"address": "a", "name": "0"})
    path = f"/v1/inboxes/{made.json['id']}"

    async def rename() -> None:
        name = f"{random.random()}"
        assert (await random.choice(two).call("PATCH", path, json={"name": name})).status == 200
        for one in two:
            assert (await one.call("GET", path)).json["name"] == name

    async def extend() -> None:
        ttl_s = random.choice([3_600, 90_000, 10_000_000])
        answer = await random.choice(two).call("POST", f"{path}/extend", json={"ttl_s": ttl_s})
        for one in two:
            assert (await one.call("GET", path)).json["expires_at"] == answer.json["expires_at"]

    async def deliver() -> None:
        await mail.deliver(made.json["address"])

    async def list_all() -> None:
        async with database.connection() as connection:
            wanted = await connection.fetchval(
                "SELECT count(*) FROM inbox_message WHERE deleted_at IS NULL"
            )
        for one in two:
            found = (await one.call("GET", f"{path}/messages")).json["items"]
            assert len(found) == wanted

    async def delete() -> None:
        items = (await two[1].call("GET", f"{path}/messages")).json["items"]
        if items:
            gone = f"/v1/messages/{random.choice(items)['id']}"
            assert (await random.choice(two).call("DELETE", gone)).status == 200

    acts: list[Callable[[], Awaitable[None]]] = [rename, extend, deliver, deliver, delete]
    async with mail_platform(database) as mail:
        for _ in range(40):
            await random.choice(acts)()
            await list_all()
    await two[0].call("DELETE", path)
    for one in two:
        assert (await one.call("GET", path)).status == 404
        assert (await one.call("GET", f"{path}/messages")).status == 404


async def test_a_workspace_and_a_key_are_as_they_were_changed(
    two: tuple[Platform, Platform],
) -> None:
    here, there = two
    assert (await there.app.workspaces.get(here.workspace_id)).name != "New"
    actor = Actor("system", "test", here.workspace_id)
    await here.app.workspaces.change(here.workspace_id, name="New", actor=actor)
    assert (await there.app.workspaces.get(here.workspace_id)).name == "New"


async def test_sessions_and_members_are_as_they_were_changed_in_whatever_process(
    two: tuple[Platform, Platform],
) -> None:
    here, there = two
    workspace_id, actor = here.workspace_id, here.actor

    async def roles(one: Platform) -> dict[str, str]:
        return {user.email: user.role for user in await one.app.users.list(workspace_id)}

    session = await here.app.sessions.start(here.first.user_id, workspace_id, "a browser")
    for one in two:
        owner = await one.app.sessions.find(session.token)
        assert (owner.role, owner.workspace_id) == ("owner", workspace_id)
        assert len(await roles(one)) == 1
    ben = await here.app.users.add(workspace_id, "ben@example.org", "viewer", actor=actor)
    bens = await there.app.sessions.start(ben.id, workspace_id, "another")
    for one in two:
        assert (await roles(one))["ben@example.org"] == "viewer"
        assert (await one.app.sessions.find(bens.token)).role == "viewer"
    await there.app.users.change_role(workspace_id, ben.id, "member", actor=actor)
    for one in two:
        assert (await roles(one))["ben@example.org"] == "member"
        assert (await one.app.sessions.find(bens.token)).role == "member"
        assert not (await one.app.users.get(workspace_id, ben.id)).has_password
    second = await here.app.sessions.start(ben.id, workspace_id, "a third")
    assert await there.app.sessions.find(second.token) is not None
    kept = token_hash(bens.token)
    await here.app.users.set_password(
        ben.id, "correct horse battery", actor=actor, keep_session=kept
    )
    for one in two:
        assert await one.app.sessions.find(second.token) is None
        assert await one.app.sessions.find(bens.token) is not None
        assert (await one.app.users.get(workspace_id, ben.id)).has_password
    await here.app.users.remove(workspace_id, ben.id, actor=actor)
    for one in two:
        assert await one.app.sessions.find(bens.token) is None
        assert len(await roles(one)) == 1


async def test_a_session_that_moves_or_ends_does_so_in_every_process(
    two: tuple[Platform, Platform],
) -> None:
    here, there = two
    owner = here.first.user_id
    session = await here.app.sessions.start(owner, here.workspace_id, "a browser")
    email = (await there.app.sessions.find(session.token)).email
    new = await there.app.workspaces.create("W", actor_kind="system", actor_name="test")
    await here.app.users.add(new.id, email, "member", actor=Actor("command", "test", new.id))
    assert await there.app.sessions.find(session.token) is None, "every way in was forgotten"
    again = await here.app.sessions.start(owner, here.workspace_id, "signed in anew")
    assert (await there.app.sessions.find(again.token)).role == "owner"
    await here.app.sessions.move(again.token, new.id)
    moved = await there.app.sessions.find(again.token)
    assert (moved.workspace_id, moved.role) == (new.id, "member")
    other = await there.app.sessions.start(owner, new.id, "another")
    assert await here.app.sessions.find(other.token) is not None
    await there.app.sessions.end_others(owner, moved.token_hash, actor=here.actor)
    await there.app.sessions.end_one(owner, moved.id)
    for one in two:
        for ended in (again, other):
            assert await one.app.sessions.find(ended.token) is None


async def test_a_plan_is_in_force_everywhere_when_the_call_returns(database: Database) -> None:
    book = PlanBook({"small": Plan(inboxes=1), "large": Plan(inboxes=2)}, "small")
    first = await start(database, book=book)
    elsewhere = services(database, book)
    for name, inboxes in (("small", 1), ("large", 2), ("small", 1)):
        await first.app.plans.assign(first.workspace_id, name, actor=first.actor)
        for app in (first.app, elsewhere):
            assert (await app.plans.of(first.workspace_id)).inboxes == inboxes
    assert elsewhere.plans.known(first.workspace_id) == Plan(inboxes=1), "nobody is asked again"
    await elsewhere.cache.close()
    await first.close()


async def test_sums_over_reports_are_kept_for_all_processes_until_another_report_comes(
    two: tuple[Platform, Platform], database: Database
) -> None:
    day_s = int(SystemClock().now().timestamp()) - 86_400
    here, there = (one.app.reports for one in two)
    for number in (1, 2):
        rows = (Row("192.0.2.1", 5, "none", True, True, "ours.example", ""),)
        report = AggregateReport(
            "Peer", "d@peer.test", f"r{number}", day_s, day_s + 60, "ours.example", {}, rows
        )
        async with database.transaction() as tx:
            await here.add(two[0].workspace_id, Found((report,), (), ()), Standing.UNKNOWN, [], tx)
        for reports in (here, there):
            [domain] = await reports.domains(two[0].workspace_id, 30)
            assert (domain.messages, domain.reports) == (5 * number, number)
    counted = cache_lookups()
    assert counted["report result hit"] >= 1, "the second process asked the table of results"


async def test_the_figures_say_how_each_layer_does(two: tuple[Platform, Platform]) -> None:
    made = await two[0].call("POST", "/v1/inboxes", json={})
    for _ in range(4):
        await two[0].call("GET", f"/v1/inboxes/{made.json['id']}")
    metrics = (await two[0].call("GET", "/metrics")).body.decode()
    assert 'mailyard_cache_lookups_total{kind="inbox",layer="process",outcome="hit"}' in metrics
    stats = (await two[0].call("GET", "/stats")).json
    assert isinstance(stats["cache"], list)
