"""A workspace goes from one database to another with all that it has, and works meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from mail_platform import MailPlatform, about, mail_platform

from mailyard.access.audit import Audit
from mailyard.campaigns.contact import Contacts
from mailyard.campaigns.contact_list import Lists
from mailyard.cli.operator import operator
from mailyard.core.errors import ConfigurationError, Conflict, InvalidInput, Unavailable
from mailyard.core.ids import WORKSPACE, type_id, uuid7
from mailyard.fleet.duties.moves import go_on
from mailyard.fleet.shards import jobs, move
from mailyard.fleet.shards.move import Mover
from mailyard.fleet.shards.tables import read_tables, sort_out
from mailyard.mailbox.inbox_value import NewInbox
from mailyard.queue.job import EMAIL_SEND, NewJob
from mailyard.storage.database import FENCED, Database, DatabaseAddress, Moving
from mailyard.storage.directory import Directory
from mailyard.storage.queries import Query

HOME, EAST = "home", "east"
LATER_JOBS = ["early", "late", "other"]
jobs_send = jobs.send
LATER = datetime.now(UTC) + timedelta(hours=1)


@dataclass
class Two:
    """Two clusters, and a workspace in the first with an inbox."""

    home: MailPlatform
    east: MailPlatform
    workspace: UUID
    inbox: UUID

    def mover(self, **more: Any) -> Mover:
        clusters = {HOME: self.home.database, EAST: self.east.database}
        return Mover(clusters=clusters, home=HOME, whole=True, **more)

    async def subjects(self, platform: MailPlatform) -> list[str]:
        found, before = [], None
        while True:
            page = await platform.messages.list(self.workspace, self.inbox, before=before)
            found += [item.subject for item in page.items]
            before = page.next_before
            if before is None:
                return sorted(found)

    async def rows(self, database: Database) -> dict[str, int]:
        """How many rows of the workspace each table has that has any."""
        found = {}
        for table in await read_tables(database):
            if table.owned and not table.name.startswith("shard_"):
                sql = f"SELECT count(*) FROM {table.name} WHERE workspace_id = $1"
                found[table.name] = await database.fetchval(Query(sql), self.workspace)
        return {name: count for name, count in found.items() if count}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody here keeps old places."""
    _quick(monkeypatch)


@pytest.fixture
async def two(database: Database, other_database_url: str) -> AsyncIterator[Two]:
    other = Database(DatabaseAddress(other_database_url, other_database_url, connections=8))
    await other.open()
    try:
        async with AsyncExitStack() as stack:
            home = await stack.enter_async_context(mail_platform(database))
            east = await stack.enter_async_context(mail_platform(other))
            for one in (database, other):
                await add_workspace(one, UUID(int=1), "operator")
            workspace = uuid7()
            await add_workspace(database, workspace, "tenant")
            (inbox,) = await home.inboxes.create(workspace, [NewInbox(address="you@inbox.test")])
            yield Two(home, east, workspace, inbox.id)
    finally:
        await other.close()


async def add_workspace(database: Database, workspace_id: UUID, name: str) -> None:
    await database.execute(
        Query("INSERT INTO workspace (id, name) VALUES ($1, $2)"), workspace_id, name
    )


async def test_it_takes_all_its_rows_and_jobs_along_and_leaves_only_the_fence(two: Two) -> None:
    for number in range(5):
        await two.home.deliver("you@inbox.test", content=about(f"mail {number}"))
    await two.home.engine.enqueue(
        [NewJob(EMAIL_SEND, "later", b"payload", two.workspace, run_at=LATER)]
    )
    before = await two.rows(two.home.database)
    moved = await two.mover().move(two.workspace, EAST)
    before["audit_log"] = before.get("audit_log", 0) + 1  # of the move
    assert await two.subjects(two.east) == [f"mail {number}" for number in range(5)]
    after = await two.rows(two.east.database)
    stay = {"queue_line", "live_event", "cache_change"}
    assert {k: v for k, v in after.items() if k not in stay} == {
        k: v for k, v in before.items() if k not in stay
    }
    assert await two.rows(two.home.database) == {"queue_line": before["queue_line"]}
    assert [one.scheduled for one in await two.east.engine.depth([EMAIL_SEND])] == [1]
    assert [one.scheduled for one in await two.home.engine.depth([EMAIL_SEND])] == [0]
    assert moved.rows > 10 and moved.frozen_s < 10
    await two.east.deliver("you@inbox.test", content=about("mail 5"))
    assert len(await two.subjects(two.east)) == 6


async def test_who_moved_it_stands_in_its_own_log_once(two: Two) -> None:
    """Also where the mover died behind the commit and another went on."""

    async def die(at: str) -> None:
        if at == "arrived":
            raise Killed

    with pytest.raises(Killed):
        await two.mover(pause=die, actor=operator).move(two.workspace, EAST)
    await two.mover(actor=operator).move(two.workspace, EAST)
    entries = await Audit(database=two.east.database).list(two.workspace)
    [moved] = [entry for entry in entries if entry.action == "workspace.move"]
    assert (moved.actor_kind, "@" in moved.actor) == ("command", True)
    assert moved.subject == type_id(WORKSPACE, two.workspace)
    assert (moved.before, moved.after) == ({"shard": HOME}, {"shard": EAST})


async def test_what_changes_while_it_is_copied_is_copied_again(two: Two) -> None:
    lists = Lists(database=two.home.database)
    contacts = Contacts(database=two.home.database)
    gone, kept = [await lists.create(two.workspace, name) for name in ("gone", "kept")]
    ada = await contacts.create(two.workspace, "ada@example.org")
    bob = await contacts.create(two.workspace, "bob@example.org")
    for one in (ada, bob):
        await lists.add(two.workspace, kept.id, [one.id])
    done: list[str] = []

    async def meddle(step: str) -> None:
        done.append(step)
        if done.count("chunk") == 4 and "meddled" not in done:
            done.append("meddled")
            await lists.delete(two.workspace, gone.id)
            await lists.rename(two.workspace, kept.id, "renamed")
            await contacts.delete(two.workspace, [bob.id])
            await contacts.create(two.workspace, "eve@example.org")

    await two.mover(pause=meddle).move(two.workspace, EAST)
    assert "meddled" in done and "change" in done
    east = two.east.database
    assert [one.name for one in (await Lists(database=east).page(two.workspace))] == ["renamed"]
    found = await east.fetch(
        Query("SELECT address FROM contact WHERE workspace_id = $1 ORDER BY 1"), two.workspace
    )
    assert [row["address"] for row in found] == ["ada@example.org", "eve@example.org"]
    members = await east.fetch(
        Query("SELECT contact_id FROM list_member WHERE workspace_id = $1"), two.workspace
    )
    assert [row["contact_id"] for row in members] == [ada.id]


STEPS = (
    "fenced",
    "chunk",
    "change",
    "rested",
    "frozen",
    "closed",
    "compared",
    "arrived",
    "switched",
)


class Killed(BaseException):
    """Stands for the end of a process that is given no time for anything."""


@pytest.mark.parametrize("step", [*STEPS, "removed"])
async def test_a_mover_that_is_killed_anywhere_is_followed_by_one_that_finishes(
    two: Two, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        await two.home.deliver("you@inbox.test", content=about(f"mail {number}"))
    await two.home.send("you@inbox.test", content=about("not ingested"))
    monkeypatch.setattr(move._Run, "_thaw", _nothing)
    seen: set[str] = set()

    async def die(at: str) -> None:
        if at == "chunk" and "sent" not in seen:
            seen.add("sent")
            await two.home.deliver("you@inbox.test", content=about("on the way"))
        if at == step:
            raise Killed

    with pytest.raises(Killed):
        await two.mover(pause=die).move(two.workspace, EAST)
    monkeypatch.undo()
    _quick(monkeypatch)
    moved = await two.mover().move(two.workspace, EAST)
    await two.east.run(await two.east.lease())
    assert await two.subjects(two.east) == [
        *(f"mail {number}" for number in range(3)),
        "not ingested",
        *(["on the way"] if seen else []),
    ]
    assert set(await two.rows(two.home.database)) == {"queue_line"}
    assert moved.rows > 10


async def test_leases_in_the_new_cluster_are_newer_than_all_of_the_old_one(two: Two) -> None:
    """What a delivery was named by there is older than who takes it up here (its fence)."""
    token = Query("SELECT nextval('job_token')")
    await two.home.database.execute(Query("SELECT setval('job_token', 70000000)"))
    for source, target in ((two.home, two.east), (two.east, two.home), (two.home, two.east)):
        before = await source.database.fetchval(token)
        own = await target.database.fetchval(token)
        await two.mover().move(two.workspace, EAST if target is two.east else HOME)
        assert await target.database.fetchval(token) > max(before, own)


@pytest.mark.parametrize("step", ["closed", "arrived", "switched"])
async def test_a_scheduler_goes_on_with_a_move_whose_mover_is_dead(
    two: Two, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await two.home.deliver("you@inbox.test", content=about("mail"))
    clusters = {HOME: two.home.database, EAST: two.east.database}

    @asynccontextmanager
    async def opened() -> AsyncIterator[dict[str, Database]]:
        yield clusters

    duty = go_on(two.home.database, opened, name_of_home=HOME, left_s=0.0)

    async def stop(at: str) -> None:
        if at == step:
            assert not await duty.do()  # a mover that lives is let be
            raise Killed

    with monkeypatch.context() as dead:
        dead.setattr(move._Run, "_thaw", _nothing)
        with pytest.raises(Killed):
            await two.mover(pause=stop).move(two.workspace, EAST)
    state = Query("SELECT state FROM shard_move")
    assert await two.home.database.fetchval(state) in ("frozen", "switched")
    await duty.do()
    assert await two.home.database.fetchval(state) == "done"
    assert await two.subjects(two.east) == ["mail"]


@pytest.mark.parametrize("after", ["held", "sent"])
async def test_a_late_job_is_brought_once_by_whoever_goes_on(
    two: Two, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came into a line of the old cluster when all had arrived, and then the mover died."""
    for name in ("early", "other"):
        await two.home.engine.enqueue(
            [NewJob(EMAIL_SEND, name, name.encode(), two.workspace, run_at=LATER)]
        )

    async def late(at: str) -> None:
        if at == "arrived":
            await two.home.engine.enqueue(
                [NewJob(EMAIL_SEND, "late", b"late", two.workspace, run_at=LATER)]
            )

    calls: list[int] = []

    async def second_dies(*given: Any) -> tuple[list[int], int]:
        calls.append(1)  # the first is of the arrival
        if len(calls) > 1:
            raise Killed
        return await jobs_send(*given)

    async def die(*_: object) -> None:
        raise Killed

    if after == "held":
        monkeypatch.setattr(jobs, "send", second_dies)
    else:
        monkeypatch.setattr(jobs, "forget", die)
    with pytest.raises(Killed):
        await two.mover(pause=late).move(two.workspace, EAST)
    monkeypatch.undo()
    _quick(monkeypatch)
    await two.mover().move(two.workspace, EAST)
    kinds = Query("SELECT kind FROM job ORDER BY kind")
    found = [row["kind"] for row in await two.east.database.fetch(kinds)]
    assert [one for one in found if one in LATER_JOBS] == LATER_JOBS
    left = Query("SELECT count(*) FROM job WHERE kind IN ('early', 'late', 'other')")
    assert await two.home.database.fetchval(left) == 0
    assert await two.east.database.fetchval(Query("SELECT count(*) FROM shard_came_job")) == 0


async def test_an_arrival_that_is_committed_late_is_waited_for(two: Two) -> None:
    """By a mover that goes on: the one before died behind its COMMIT, which the server did."""
    reached, go = asyncio.Event(), asyncio.Event()

    async def stop(at: str) -> None:
        if at == "compared":
            reached.set()
            await go.wait()

    first = asyncio.create_task(two.mover(pause=stop).move(two.workspace, EAST))
    await reached.wait()
    run = move._Run(two.mover(), uuid7(), two.workspace, HOME, EAST)
    asked = asyncio.create_task(run.arrival())
    await asyncio.sleep(0.3)
    assert not asked.done()
    go.set()
    await first
    await asked


async def test_what_was_under_way_holds_the_fence_and_what_comes_later_is_refused(
    two: Two,
) -> None:
    """A transaction that wrote before is waited for; a process that slept through is refused."""
    await two.home.ask("you@inbox.test")  # it believes what it knows, for good
    slow = await two.home.database.direct()
    late = slow.transaction()
    await late.start()
    await slow.execute(
        "INSERT INTO contact (workspace_id, id, address) VALUES ($1, $2, 'slow@example.org')",
        two.workspace,
        uuid7(),
    )
    moving_on = asyncio.create_task(two.mover().move(two.workspace, EAST))
    await asyncio.sleep(0.5)
    assert not moving_on.done()
    await late.commit()
    await moving_on
    found = await two.east.database.fetchval(
        Query("SELECT count(*) FROM contact WHERE workspace_id = $1"), two.workspace
    )
    assert found == 1
    with pytest.raises(asyncpg.PostgresError) as refused:
        await slow.execute(
            "INSERT INTO contact (workspace_id, id, address) VALUES ($1, $2, 'x@example.org')",
            two.workspace,
            uuid7(),
        )
    assert refused.value.sqlstate == FENCED
    await slow.close()
    with pytest.raises(Moving):
        await Contacts(database=two.home.database).create(two.workspace, "y@example.org")
    assert (await two.home.hand_over(("you@inbox.test",))).code == 451


async def test_neighbours_keep_every_row(two: Two) -> None:
    """Of the same tables and partitions, at the same places in them."""
    other = uuid7()
    await add_workspace(two.home.database, other, "neighbour")
    names = [f"n{number}@inbox.test" for number in range(40)]
    await two.home.inboxes.create(other, [NewInbox(address=name) for name in names])
    await two.home.inboxes.create(
        two.workspace, [NewInbox(address=f"y{number}@inbox.test") for number in range(40)]
    )
    for name in (*names[:5], "you@inbox.test", *names[5:10], "y1@inbox.test"):
        await two.home.deliver(name, content=about(name))
    theirs = Two(two.home, two.east, other, two.inbox)
    before = await theirs.rows(two.home.database)
    await two.mover().move(two.workspace, EAST)
    assert await theirs.rows(two.home.database) == before
    assert await theirs.rows(two.east.database) == {}
    await two.mover().move(two.workspace, HOME)
    assert await theirs.rows(two.home.database) == before


async def test_a_refused_mail_does_not_fail_the_others_of_its_group(two: Two) -> None:
    other = uuid7()
    await add_workspace(two.home.database, other, "neighbour")
    await two.home.inboxes.create(other, [NewInbox(address="neighbour@inbox.test")])
    for name in ("you", "neighbour"):
        assert (await two.home.ask(f"{name}@inbox.test")).code == 250
    await two.mover().move(two.workspace, EAST)
    replies = await asyncio.gather(
        *(
            two.home.hand_over((f"{name}@inbox.test",))
            for name in ("you", "neighbour", "you", "neighbour")
        )
    )
    assert [reply.code for reply in replies] == [451, 250, 451, 250]
    assert (await two.home.ask("neighbour@inbox.test")).code == 250
    assert (await two.home.ask("you@inbox.test")).code == 550


async def test_mail_that_comes_all_the_while_is_all_there_afterwards(two: Two) -> None:
    """The ledger: what was answered with 250, by whichever cluster the directory named."""
    directory = Directory(database=two.home.database, home=HOME)
    monkey = {HOME: two.home, EAST: two.east}
    stop, said = asyncio.Event(), []

    async def peer(name: str) -> None:
        number = 0
        while not stop.is_set():
            place = directory.known(two.workspace)
            platform = monkey[place.shard]
            subject = f"{name} {number:04d}"
            if not place.moving and (await platform.ask("you@inbox.test")).code == 250:
                reply = await platform.hand_over(("you@inbox.test",), about(subject))
                if reply.code == 250:
                    said.append(subject)
                    number += 1
                else:
                    assert reply.code == 451
            await asyncio.sleep(0.02)

    async def work() -> None:
        while not stop.is_set():
            for platform in monkey.values():
                if leased := await platform.lease():
                    try:
                        await platform.run(leased)
                    except Unavailable:
                        continue
            await asyncio.sleep(0.01)

    async def follow() -> None:
        while not stop.is_set():
            await directory.look()
            await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as group:
        for one in (peer("a"), peer("b"), work(), follow()):
            group.create_task(one)
        await asyncio.sleep(0.5)
        await two.mover().move(two.workspace, EAST)
        before = len(said)
        await asyncio.sleep(0.5)
        await two.mover().move(two.workspace, HOME)
        await asyncio.sleep(0.5)
        stop.set()
    assert 10 < before < len(said)
    while leased := await two.home.lease():
        await two.home.run(leased)
    assert await two.subjects(two.home) == sorted(said)


async def test_it_stays_where_it_was_when_its_jobs_do_not_end_and_can_be_given_up(
    two: Two,
) -> None:
    await two.home.send("you@inbox.test", content=about("at work"))
    at_work = await two.home.lease()
    with pytest.raises(Unavailable, match="1 ingest"):
        await two.mover(patience_s=0.3).move(two.workspace, EAST)
    await two.home.run(at_work)
    await two.home.deliver("you@inbox.test", content=about("afterwards"))
    directory = Directory(database=two.home.database, home=HOME)
    assert not (await directory.place(two.workspace)).moving
    with pytest.raises(Conflict, match="on its way to east"):
        await two.mover().move(two.workspace, HOME)
    await two.mover().give_up(two.workspace)
    assert await two.rows(two.east.database) == {}
    assert await two.subjects(two.home) == ["afterwards", "at work"]
    assert await two.home.database.fetchval(Query("SELECT count(*) FROM shard_change")) == 0


async def test_what_cannot_move_is_said(two: Two) -> None:
    with pytest.raises(InvalidInput, match=r"no shard is named 'west'; .* home, east"):
        await two.mover().move(two.workspace, "west")
    with pytest.raises(InvalidInput, match="own workspace stays"):
        await two.mover().move(UUID(int=1), EAST)
    with pytest.raises(Conflict, match="is in home already"):
        await two.mover().move(two.workspace, HOME)
    other = uuid7()
    await add_workspace(two.east.database, other, "there")
    await two.east.inboxes.create(other, [NewInbox(address="you@inbox.test")])
    with pytest.raises(Conflict, match=r"table address .*you@inbox\.test"):
        await two.mover().move(two.workspace, EAST)
    await two.home.deliver("you@inbox.test", content=about("works on"))


async def test_every_table_is_a_workspaces_or_a_clusters(database: Database) -> None:
    """A new table with a workspace_id goes along; one without must be named."""
    tables = await read_tables(database)
    sorted_out = sort_out(tables)
    moved = {table.name for table in sorted_out.moved}
    assert {"message", "campaign", "api_key", "user_account", "session"} <= moved
    assert all(table.key for table in sorted_out.live)
    assert all(set(table.key) <= set(table.columns) for table in sorted_out.live)
    await database.execute(Query("CREATE TABLE of_a_workspace (id int, workspace_id uuid)"))
    assert "of_a_workspace" in {t.name for t in sort_out(await read_tables(database)).rest}
    await database.execute(Query("CREATE TABLE of_nobody (id int)"))
    with pytest.raises(ConfigurationError, match=r"\['of_nobody'\] have no workspace_id"):
        sort_out(await read_tables(database))


async def _nothing(*_: object) -> None:
    """Instead of what a killed process does not do."""


def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(move, "BELIEVED_S", 0.1)
    monkeypatch.setattr(move, "_MARGIN_S", 0.1)
