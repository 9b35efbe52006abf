"""Inboxes against a real PostgreSQL: made, found, extended, deleted, expired."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest

from mailyard.access.audit import Audit
from mailyard.access.workspace import Workspaces
from mailyard.core.clock import ManualClock
from mailyard.core.errors import Conflict, InvalidInput, NotFound
from mailyard.core.ids import uuid7
from mailyard.mailbox.inbox import Inboxes
from mailyard.mailbox.inbox_value import NewInbox
from mailyard.sending.suppress import Reason, Suppressions
from mailyard.storage.database import Database

DAY_S = 86_400.0


@pytest.fixture
def inboxes(database: Database) -> Inboxes:
    return Inboxes(database=database, domains=("inbox.test", "other.test"))


async def age(database: Database, inbox_id: UUID) -> None:
    """Let the inbox expire a moment ago, as the passing of time would."""
    async with database.connection() as connection:
        for table, key in (("inbox", "id"), ("address", "inbox_id")):
            await connection.execute(
                f"UPDATE {table} SET expires_at = now() - interval '1 s' WHERE {key} = $1", inbox_id
            )


async def test_an_inbox_has_the_address_of_the_callers_choice(
    inboxes: Inboxes, workspace_id: UUID
) -> None:
    whole, local = await inboxes.create(
        workspace_id, [NewInbox("Ada@Other.test", name="Ada"), NewInbox("bob", labels=("x", "y"))]
    )
    assert whole.address == "ada@other.test"
    assert local.address == "bob@inbox.test"
    assert await inboxes.get(workspace_id, whole.id) == whole
    assert (await inboxes.find(workspace_id, "BOB@INBOX.TEST")) == local
    assert local.labels == ("x", "y")


async def test_a_generated_address_is_free_and_under_the_first_domain(
    inboxes: Inboxes, workspace_id: UUID
) -> None:
    made = await inboxes.create(workspace_id, [NewInbox() for _ in range(1000)])
    assert len({inbox.address for inbox in made}) == 1000
    assert all(inbox.address.endswith("@inbox.test") for inbox in made)
    assert await inboxes.get(workspace_id, made[-1].id) == made[-1]
    assert len(await inboxes.delete(workspace_id, [inbox.id for inbox in made])) == 1000


async def test_a_taken_address_is_a_conflict_and_nothing_of_the_batch_is_made(
    inboxes: Inboxes, workspace_id: UUID
) -> None:
    await inboxes.create(workspace_id, [NewInbox("ada")])
    with pytest.raises(Conflict) as refused:
        await inboxes.create(uuid7(), [NewInbox("bob"), NewInbox("ada")])
    assert refused.value.field == "inboxes.1.address"
    with pytest.raises(NotFound):
        await inboxes.find(workspace_id, "bob@inbox.test")


async def test_one_address_twice_in_a_batch_is_a_conflict(
    inboxes: Inboxes, workspace_id: UUID
) -> None:
    with pytest.raises(Conflict):
        await inboxes.create(workspace_id, [NewInbox("ada"), NewInbox("ADA@inbox.test")])


@pytest.mark.parametrize(
    "wanted",
    [
        NewInbox("no good@inbox.test"),
        NewInbox("ada@elsewhere.test"),
        NewInbox("a\r\nb"),
        NewInbox(ttl_s=0),
        NewInbox(ttl_s=float("nan")),
        NewInbox(ttl_s=1e12),
        NewInbox(name="a\0b"),
        NewInbox(name="n" * 201),
        NewInbox(labels=("",)),
        NewInbox(labels=("a\nb",)),
        NewInbox(labels=tuple(str(n) for n in range(51))),
    ],
)
async def test_what_can_never_work_is_refused_by_name(
    inboxes: Inboxes, workspace_id: UUID, wanted: NewInbox
) -> None:
    with pytest.raises(InvalidInput) as refused:
        await inboxes.create(workspace_id, [wanted])
    assert refused.value.field is not None
    assert refused.value.field.startswith("inboxes.0.")


async def test_an_expired_inbox_is_found_by_nobody_and_its_address_is_free(
    inboxes: Inboxes, database: Database, workspace_id: UUID
) -> None:
    [old] = await inboxes.create(workspace_id, [NewInbox("ada", ttl_s=60)])
    await age(database, old.id)
    for question in (
        inboxes.get(workspace_id, old.id),
        inboxes.find(workspace_id, "ada@inbox.test"),
        inboxes.extend(workspace_id, old.id, 60),
        inboxes.relabel(workspace_id, old.id, name="x"),
    ):
        with pytest.raises(NotFound):
            await question
    assert (await inboxes.list(workspace_id)).items == []
    assert await inboxes.delete(workspace_id, [old.id]) == []

    [new] = await inboxes.create(uuid7(), [NewInbox("ada")])
    assert new.id != old.id


async def test_an_address_that_bounced_before_it_had_an_inbox_is_written_to_again(
    database: Database, inboxes: Inboxes
) -> None:
    workspaces = Workspaces(database=database, audit=Audit(database=database))
    ours, others = [
        (await workspaces.create(name, actor_kind="command", actor_name="test")).id
        for name in ("ours", "others")
    ]
    suppressions = Suppressions(database=database)
    for workspace_id in (ours, others):
        for address, reason in (("ada", Reason.HARD_BOUNCE), ("bob", Reason.COMPLAINT)):
            await suppressions.add(workspace_id, f"{address}@inbox.test", reason=reason)
    await inboxes.create(ours, [NewInbox("ada"), NewInbox("bob")])
    asked = [(one, f"{name}@inbox.test") for one in (ours, others) for name in ("ada", "bob")]
    assert await suppressions.check_many(asked) == set(asked[1:])


async def test_a_deleted_inbox_lets_go_of_its_address(inboxes: Inboxes, workspace_id: UUID) -> None:
    ada, bob = await inboxes.create(workspace_id, [NewInbox("ada"), NewInbox("bob")])
    assert await inboxes.delete(workspace_id, [ada.id, bob.id, uuid7()]) != []
    assert await inboxes.delete(workspace_id, [ada.id]) == []
    with pytest.raises(NotFound):
        await inboxes.get(workspace_id, ada.id)
    [again] = await inboxes.create(workspace_id, [NewInbox("ada")])
    await inboxes.delete(workspace_id, [bob.id])
    assert (await inboxes.find(workspace_id, "ada@inbox.test")) == again


async def test_deleting_an_old_inbox_leaves_its_successors_address(
    inboxes: Inboxes, database: Database, workspace_id: UUID
) -> None:
    [old] = await inboxes.create(workspace_id, [NewInbox("ada", ttl_s=60)])
    async with database.connection() as connection:  # the address first, as a race would have it
        await connection.execute("UPDATE address SET expires_at = now() - interval '1 s'")
    [new] = await inboxes.create(workspace_id, [NewInbox("ada")])
    await inboxes.delete(workspace_id, [old.id])
    assert (await inboxes.find(workspace_id, "ada@inbox.test")) == new


async def test_an_inbox_whose_address_was_taken_meanwhile_is_not_extended(
    inboxes: Inboxes, database: Database, workspace_id: UUID
) -> None:
    [old] = await inboxes.create(workspace_id, [NewInbox("ada", ttl_s=60)])
    async with database.connection() as connection:  # it expires while the extension waits
        await connection.execute("UPDATE address SET expires_at = now() - interval '1 s'")
    [new] = await inboxes.create(workspace_id, [NewInbox("ada")])
    with pytest.raises(NotFound):
        await inboxes.extend(workspace_id, old.id, 40 * DAY_S)
    assert (await inboxes.get(workspace_id, old.id)).expires_at == old.expires_at
    assert (await inboxes.find(workspace_id, "ada@inbox.test")) == new


async def until_somebody_waits_for_a_row(database: Database) -> None:
    async with database.connection() as connection, asyncio.timeout(20):
        while not await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("what", ["relabel", "relabel within", "delete"])
async def test_an_inbox_that_moves_to_a_longer_class_is_found_there_by_who_waited(
    inboxes: Inboxes, database: Database, workspace_id: UUID, what: str
) -> None:
    """PostgreSQL refuses to follow a row into another partition: the change is made again."""
    [inbox] = await inboxes.create(workspace_id, [NewInbox(ttl_s=60)])

    async def change() -> None:
        if what == "relabel":
            await inboxes.relabel(workspace_id, inbox.id, name="Ada")
        elif what == "delete":
            assert await inboxes.delete(workspace_id, [inbox.id])
        else:
            async with database.transaction() as own:
                await inboxes.relabel(workspace_id, inbox.id, name="Ada", tx=own)

    async with database.transaction() as tx:
        await inboxes.extend(workspace_id, inbox.id, 20 * DAY_S, tx=tx)
        waiting = asyncio.create_task(change())
        await until_somebody_waits_for_a_row(database)
    await waiting
    if what == "delete":
        with pytest.raises(NotFound):
            await inboxes.get(workspace_id, inbox.id)
    else:
        changed = await inboxes.get(workspace_id, inbox.id)
        assert (changed.name, changed.retention_days) == ("Ada", 30)


async def test_pages_hold_every_inbox_once_newest_first(
    inboxes: Inboxes, workspace_id: UUID
) -> None:
    made = await inboxes.create(
        workspace_id, [NewInbox(labels=("even",) if n % 2 == 0 else ()) for n in range(25)]
    )
    await inboxes.create(uuid7(), [NewInbox()])
    seen = []
    before = None
    while True:
        page = await inboxes.list(workspace_id, before=before, limit=10)
        seen += page.items
        before = page.next_before
        if before is None:
            break
    assert seen == sorted(made, key=lambda inbox: inbox.id, reverse=True)
    assert len((await inboxes.list(workspace_id, label="even")).items) == 13


async def test_nobody_sees_or_changes_another_workspaces_inbox(
    inboxes: Inboxes, workspace_id: UUID
) -> None:
    [mine] = await inboxes.create(workspace_id, [NewInbox("ada")])
    other = uuid7()
    for question in (
        inboxes.get(other, mine.id),
        inboxes.find(other, mine.address),
        inboxes.extend(other, mine.id, 60),
        inboxes.relabel(other, mine.id, name="x"),
    ):
        with pytest.raises(NotFound):
            await question
    assert await inboxes.delete(other, [mine.id]) == []
    assert await inboxes.get(workspace_id, mine.id) == mine


async def test_relabel_changes_only_what_is_given(inboxes: Inboxes, workspace_id: UUID) -> None:
    [inbox] = await inboxes.create(workspace_id, [NewInbox(name="a", labels=("x",))])
    renamed = await inboxes.relabel(workspace_id, inbox.id, name="b")
    assert (renamed.name, renamed.labels) == ("b", ("x",))
    relabelled = await inboxes.relabel(workspace_id, inbox.id, labels=["y", "y", "z"])
    assert (relabelled.name, relabelled.labels) == ("b", ("y", "z"))


@pytest.mark.parametrize(
    ("ttl_s", "retention_days"),
    [(60, 1), (DAY_S, 1), (DAY_S + 1, 7), (8 * DAY_S, 30), (31 * DAY_S, 400), (401 * DAY_S, 0)],
)
async def test_the_time_to_live_decides_the_class(
    inboxes: Inboxes, workspace_id: UUID, ttl_s: float, retention_days: int
) -> None:
    [inbox] = await inboxes.create(workspace_id, [NewInbox(ttl_s=ttl_s)])
    assert inbox.retention_days == retention_days
    assert (await inboxes.get(workspace_id, inbox.id)).retention_days == retention_days


async def test_extending_counts_the_class_from_the_inboxes_birth(
    database: Database, workspace_id: UUID
) -> None:
    """An inbox of six days that lives seven more needs the class of thirty."""
    clock = ManualClock(datetime.now(UTC))
    inboxes = Inboxes(database=database, domains=("inbox.test",), clock=clock)
    [inbox] = await inboxes.create(workspace_id, [NewInbox(ttl_s=6.5 * DAY_S)])
    assert inbox.retention_days == 7
    assert (await inboxes.extend(workspace_id, inbox.id, 6.9 * DAY_S)).retention_days == 7
    clock.advance(6 * DAY_S)
    extended = await inboxes.extend(workspace_id, inbox.id, 7 * DAY_S)
    assert extended.retention_days == 30
    assert extended.expires_at == clock.now() + timedelta(days=7)
    assert await inboxes.get(workspace_id, inbox.id) == extended
    assert await inboxes.find(workspace_id, inbox.address) == extended


async def test_a_shorter_life_keeps_the_class(inboxes: Inboxes, workspace_id: UUID) -> None:
    [inbox] = await inboxes.create(workspace_id, [NewInbox()])
    shorter = await inboxes.extend(workspace_id, inbox.id, 60)
    assert shorter.retention_days == 0
    assert shorter.expires_at is not None


async def test_a_change_within_the_callers_transaction_goes_with_it(
    inboxes: Inboxes, database: Database, workspace_id: UUID
) -> None:
    with pytest.raises(asyncpg.DivisionByZeroError):
        async with database.transaction() as tx:
            await inboxes.create(workspace_id, [NewInbox("ada")], tx=tx)
            await tx.execute("SELECT 1 / 0")
    with pytest.raises(NotFound):
        await inboxes.find(workspace_id, "ada@inbox.test")
