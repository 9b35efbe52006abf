"""What people do in a mailbox: move, label, snooze, mute, and take it back; drafts and sending."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import pytest
from mailbox_world import ACTOR, MailboxWorld, mailbox_world

from mailyard.core.clock import ManualClock
from mailyard.core.errors import Conflict, InvalidInput, NotFound
from mailyard.core.ids import MESSAGE, THREAD, type_id
from mailyard.core.limits import LEASE_S
from mailyard.mailbox.draft_value import Content
from mailyard.mailbox.inbox_value import Inbox, NewInbox
from mailyard.mailbox.mailbox_value import Wanted
from mailyard.mailbox.note import Words
from mailyard.mailbox.state import Act
from mailyard.protocol.mime.message import parse
from mailyard.storage.database import Database


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime.now(UTC))


@pytest.fixture
async def world(database: Database, clock: ManualClock) -> AsyncIterator[MailboxWorld]:
    async with mailbox_world(database, clock) as world:
        yield world


@pytest.fixture
async def ada(world: MailboxWorld, workspace_id: UUID) -> Inbox:
    [inbox] = await world.mail.inboxes.create(workspace_id, [NewInbox("ada", name="Ada L.")])
    return inbox


def written(own: str, *references: str, subject: str = "Hello", more: str = "") -> bytes:
    named = f"References: {' '.join(f'<{one}>' for one in references)}\r\n" if references else ""
    return (
        f"From: Bob <bob@peer.test>\r\nTo: ada@inbox.test, Cy <cy@peer.test>\r\n"
        f"Subject: {subject}\r\nMessage-ID: <{own}>\r\nDate: Mon, 23 Nov 2026 12:00:00 +0000\r\n"
        f"{named}{more}\r\nFirst line\r\n> older\r\n"
    ).encode()


async def subjects(world: MailboxWorld, of: UUID, inbox: Inbox, **wanted: object) -> list[str]:
    page = await world.mailboxes.list(of, inbox.id, Wanted(**wanted))  # type: ignore[arg-type]
    return [line.summary.subject for line in page.items]


async def numbers(world: MailboxWorld, of: UUID, inbox: Inbox) -> list[int]:
    return [event.seq for event in await world.mailboxes.events(of, inbox.id, 0, 1000)]


async def test_mail_is_moved_labelled_starred_and_all_of_it_is_taken_back(
    world: MailboxWorld, workspace_id: UUID, ada: Inbox
) -> None:
    ids = [
        await world.mail.deliver("ada@inbox.test", content=written(f"m{n}", subject=f"mail {n}"))
        for n in range(4)
    ]
    of = (workspace_id, ada.id)
    moved = await world.act(*of, Act("move", folder="Orders"), message_ids=ids[:2])
    assert set(moved.message_ids) == set(ids[:2])
    assert await subjects(world, workspace_id, ada) == ["mail 3", "mail 2"]
    assert await subjects(world, workspace_id, ada, folder="Orders") == ["mail 1", "mail 0"]
    await world.act(*of, Act("label", labels=("vip", "later")), message_ids=[ids[0], ids[3]])
    await world.act(*of, Act("star"), message_ids=[ids[0]])
    await world.act(*of, Act("read"), message_ids=[ids[2]])
    assert await subjects(world, workspace_id, ada, label="vip") == ["mail 3", "mail 0"]
    assert await subjects(world, workspace_id, ada, starred=True) == ["mail 0"]
    assert await subjects(world, workspace_id, ada, unread=True) == ["mail 3"]
    overview = await world.mailboxes.overview(*of)
    assert overview.folders[-1] == "Orders"
    assert overview.labels == ("vip", "later")
    assert (overview.unseen["inbox"], overview.unseen["Orders"]) == (1, 2)
    assert overview.seq == 8

    again = await world.act(*of, Act("star"), message_ids=[ids[0]])
    assert again.seq is None, "what is so already is no change"
    undone = await world.undo(*of, moved.seq)
    assert set(undone.message_ids) == set(ids[:2])
    assert await subjects(world, workspace_id, ada) == ["mail 3", "mail 2", "mail 1", "mail 0"]
    assert await subjects(world, workspace_id, ada, starred=True) == ["mail 0"], "nothing else is"
    await world.undo(*of, undone.seq)
    assert await subjects(world, workspace_id, ada, folder="Orders") == ["mail 1", "mail 0"]
    assert await numbers(world, workspace_id, ada) == list(range(1, 11))
    with pytest.raises(Conflict):
        await world.undo(*of, 1)  # that mail came
    with pytest.raises(NotFound):
        await world.undo(*of, 99)


async def test_what_somebody_has_changed_since_is_left_alone_by_an_undo(
    world: MailboxWorld, workspace_id: UUID, ada: Inbox
) -> None:
    first, second = [
        await world.mail.deliver("ada@inbox.test", content=written(f"m{n}", subject=f"mail {n}"))
        for n in range(2)
    ]
    of = (workspace_id, ada.id)
    trashed = await world.act(*of, Act("trash"), message_ids=[first, second])
    await world.act(*of, Act("move", folder="archive"), message_ids=[first])
    undone = await world.undo(*of, trashed.seq)
    assert list(undone.message_ids) == [second]
    assert await subjects(world, workspace_id, ada) == ["mail 1"]
    assert await subjects(world, workspace_id, ada, folder="archive") == ["mail 0"]


ACTS = (
    Act("read"), Act("unread"), Act("star"), Act("unstar"), Act("archive"), Act("trash"),
    Act("restore"), Act("mute"), Act("unmute"), Act("wake"), Act("move", folder="Orders"),
    Act("move", folder="inbox"), Act("label", labels=("a", "b")), Act("label", labels=("b", "c")),
    Act("unlabel", labels=("b",)), Act("snooze", until=datetime(2030, 1, 1, tzinfo=UTC)),
)  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_was_done_at_once_is_taken_back_step_by_step(
    world: MailboxWorld, workspace_id: UUID, ada: Inbox, seed: int
) -> None:
    """Any acts on any mails, then an undo of each, the last first: every state of before comes
    again; and an undo of the undos, the last first, leads to where it began."""
    random, of = Random(seed), (workspace_id, ada.id)
    ids = [await world.mail.deliver("ada@inbox.test", content=written(f"m{n}")) for n in range(5)]

    async def states() -> dict[UUID, tuple[object, ...]]:
        async with world.database.connection() as connection:
            rows = await connection.fetch(
                "SELECT message_id, folder, back_to, labels, seen, starred, muted, snoozed_until"
                " FROM line_state"
            )
        return {row["message_id"]: tuple(row)[1:] for row in rows}

    async def take_back(done: list[tuple[int, dict[UUID, tuple[object, ...]]]]) -> list[Any]:
        undone = []
        for seq, before in reversed(done):
            now = await states()
            back = await world.undo(*of, seq)
            assert await states() == before
            undone.append((back.seq, now))
        return undone

    done = []
    for _ in range(14):
        before = await states()
        some = random.sample(ids, random.randint(1, len(ids)))
        changed = await world.act(*of, random.choice(ACTS), message_ids=some)
        if changed.seq is not None:
            done.append((changed.seq, before))
    assert len(done) > 5
    await take_back(await take_back(done))


async def test_a_thread_is_listed_once_acted_on_whole_and_stays_muted(
    world: MailboxWorld, workspace_id: UUID, ada: Inbox
) -> None:
    of = (workspace_id, ada.id)
    first = await world.mail.deliver("ada@inbox.test", content=written("a", subject="talk"))
    await world.mail.deliver("ada@inbox.test", content=written("b", "a", subject="Re: talk"))
    await world.mail.deliver("ada@inbox.test", content=written("x", subject="other"))
    page = await world.mailboxes.list(*of, Wanted(threads=True))
    assert [(line.summary.subject, line.mails) for line in page.items] == [
        ("other", 1), ("Re: talk", 2)
    ]  # fmt: skip
    thread = await world.mailboxes.thread(*of, first)
    assert [line.summary.subject for line in thread] == ["talk", "Re: talk"]
    muted = await world.act(*of, Act("mute"), thread_ids=[first])
    assert len(muted.message_ids) == 2
    assert await subjects(world, workspace_id, ada) == ["other"]
    late = await world.mail.deliver("ada@inbox.test", content=written("c", "gone", "b"))
    assert await subjects(world, workspace_id, ada) == ["other"], "its mail waits for nobody"
    thread = await world.mailboxes.thread(*of, late)
    assert [line.state.folder for line in thread] == ["archive"] * 3
    # A mail whose only tie is to one that is not here is of the muted thread as well.
    await world.mail.deliver("ada@inbox.test", content=written("d", "gone"))
    assert len(await world.mailboxes.thread(*of, first)) == 4
    assert await subjects(world, workspace_id, ada) == ["other"]
    await world.act(*of, Act("unmute"), message_ids=[late])
    await world.mail.deliver("ada@inbox.test", content=written("e", "d", subject="loud"))
    assert await subjects(world, workspace_id, ada) == ["loud", "other"]


async def test_snoozed_mail_comes_back_by_the_clock_and_unread(
    world: MailboxWorld, workspace_id: UUID, ada: Inbox, clock: ManualClock
) -> None:
    of = (workspace_id, ada.id)
    ids = [
        await world.mail.deliver("ada@inbox.test", content=written(f"m{n}", subject=f"mail {n}"))
        for n in range(2)
    ]
    await world.act(*of, Act("move", folder="Work"), message_ids=ids)
    await world.act(*of, Act("read"), message_ids=ids)
    until = clock.now() + timedelta(hours=3)
    await world.act(*of, Act("snooze", until=until), message_ids=ids)
    assert await subjects(world, workspace_id, ada, folder="snoozed") == ["mail 1", "mail 0"]
    await world.act(*of, Act("archive"), message_ids=ids[:1])  # no longer asleep
    clock.advance(2 * 3600)
    assert await world.work(world.waker.handler()) == 0
    assert await subjects(world, workspace_id, ada, folder="snoozed") == ["mail 1"]
    clock.advance(1 * 3600)
    assert await world.work(world.waker.handler()) == 1
    assert await subjects(world, workspace_id, ada, folder="Work", unread=True) == ["mail 1"]
    assert await subjects(world, workspace_id, ada, folder="archive") == ["mail 0"]
    assert await numbers(world, workspace_id, ada) == list(range(1, 8))
    with pytest.raises(InvalidInput, match="a time to come"):
        await world.act(*of, Act("snooze", until=clock.now()), message_ids=ids)


async def test_people_who_act_at_once_leave_no_gap_in_the_numbers(
    world: MailboxWorld, workspace_id: UUID, ada: Inbox
) -> None:
    of = (workspace_id, ada.id)
    ids = [
        await world.mail.deliver("ada@inbox.test", content=written(f"m{n}", subject=f"mail {n}"))
        for n in range(3)
    ]
    for n in range(3, 6):
        await world.mail.send("ada@inbox.test", content=written(f"m{n}"))
    jobs = await world.mail.lease()
    acts = [Act("star"), Act("read"), Act("archive"), Act("label", labels=("a",))]
    await asyncio.gather(
        *(world.act(*of, act, message_ids=ids) for act in acts),
        *(world.mail.run([job]) for job in jobs),
    )
    seen = await numbers(world, workspace_id, ada)
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) == 3 + 3 + 4
    assert await world.mailboxes.events(*of, seen[-1]) == []


async def test_deleting_a_mail_is_told_and_keeps_its_thread_together(
    world: MailboxWorld, workspace_id: UUID, ada: Inbox
) -> None:
    of = (workspace_id, ada.id)
    first = await world.mail.deliver("ada@inbox.test", content=written("a"))
    middle = await world.mail.deliver("ada@inbox.test", content=written("b", "a"))
    for gone in (first, middle):
        assert await world.mail.messages.delete(workspace_id, [gone]) == 1
    last = await world.mail.deliver("ada@inbox.test", content=written("c", "a"))
    late = await world.mail.deliver("ada@inbox.test", content=written("d", "b"))
    thread = await world.mailboxes.thread(*of, last)
    assert [line.summary.id for line in thread] == [last, late]
    events = await world.mailboxes.events(*of, 2, 2)
    assert [event.item for event in events] == [
        {"message_ids": [type_id(MESSAGE, gone)]} for gone in (first, middle)
    ]
    assert (await world.mailboxes.events(*of, 4))[0].item["thread_id"] == type_id(THREAD, first)


# Drafts --------------------------------------------------------------------------------------


async def test_two_windows_on_one_draft_keep_both_versions(
    world: MailboxWorld, workspace_id: UUID, ada: Inbox
) -> None:
    of = (workspace_id, ada.id)

    async def save(draft_id: UUID, revision: int, text: str):  # type: ignore[no-untyped-def]
        async with world.database.transaction() as tx:
            return await world.drafts.save(*of, draft_id, revision, {"text": text}, tx=tx)

    async with world.database.transaction() as tx:
        draft = await world.drafts.create(*of, Content(text="start"), tx=tx)
    one = await save(draft.id, draft.revision, "window one")
    assert (one.draft.revision, one.other) == (2, None)
    assert (await save(draft.id, draft.revision, "window one")).other is None, "said twice"
    two = await save(draft.id, draft.revision, "window two")
    assert two.other == one.draft
    assert two.draft.conflict_of == draft.id
    assert two.draft.content.text == "window two"
    assert (await save(draft.id, draft.revision, "window two")).draft == two.draft, "kept once"
    more = await save(two.draft.id, two.draft.revision, "window two goes on")
    assert more.other is None
    both = {kept.content.text for kept in await world.drafts.list(*of)}
    assert both == {"window one", "window two goes on"}
    async with world.database.transaction() as tx:
        await world.drafts.discard(*of, draft.id, tx=tx)
    [left] = await world.drafts.list(*of)
    assert (left.content.text, left.conflict_of) == ("window two goes on", None)


async def test_an_answer_is_sent_after_its_undo_window_and_lies_in_its_thread(
    world: MailboxWorld, workspace_id: UUID, ada: Inbox, clock: ManualClock
) -> None:
    of = (workspace_id, ada.id)
    async with world.database.transaction() as tx:
        await world.notes.add(*of, "signature", Words("short", "Ada\nInc.", default=True), tx=tx)
    asked = await world.mail.deliver(
        "ada@inbox.test", content=written("q", "root", subject="Offer")
    )
    content = await world.drafts.start(*of, "reply_all", asked)
    assert (content.to, content.cc) == (("Bob <bob@peer.test>",), ("Cy <cy@peer.test>",))
    assert content.subject == "Re: Offer"
    assert content.text == (
        "\n\n-- \nAda\nInc.\n\nOn Mon, 23 Nov 2026 at 12:00, Bob <bob@peer.test> wrote:\n"
        "> First line\n>> older"
    )

    async def send(draft_id: UUID, revision: int, undo_s: float):  # type: ignore[no-untyped-def]
        async with world.database.transaction() as tx:
            return await world.drafts.send(*of, draft_id, revision, undo_s, ACTOR, tx=tx)

    async with world.database.transaction() as tx:
        draft = await world.drafts.create(*of, content, tx=tx)
    waiting = await send(draft.id, draft.revision, 30.0)
    with pytest.raises(Conflict):
        await send(draft.id, waiting.revision, 0)
    async with world.database.transaction() as tx:
        back = await world.drafts.take_back(*of, draft.id, tx=tx)
    assert back.send_at is None
    await send(draft.id, back.revision, 0)
    handler = world.sender.handler()
    clock.advance(30)  # the job of the first try is due too
    assert await world.work(handler) == 2
    assert await world.drafts.list(*of) == []
    async with world.database.connection() as connection:
        deliveries = await connection.fetch("SELECT recipient FROM delivery ORDER BY recipient")
    assert [row["recipient"] for row in deliveries] == ["bob@peer.test", "cy@peer.test"]

    thread = await world.mailboxes.thread(*of, asked)
    assert [(line.summary.subject, line.state.folder) for line in thread] == [
        ("Offer", "inbox"), ("Re: Offer", "sent")
    ]  # fmt: skip
    sent = parse(await world.mail.messages.raw(workspace_id, thread[1].summary.id, ada.id))
    assert sent.in_reply_to == ["q"]
    assert sent.references == ["root", "q"]
    assert dict(sent.headers)["From"] == '"Ada L." <ada@inbox.test>'
    people = await world.mailboxes.people(*of)
    assert [(person.address, person.mails) for person in people] == [("bob@peer.test", 2)]
    kinds = [event.kind for event in await world.mailboxes.events(*of, 0)]
    assert kinds == [
        "note.added", "message.arrived", "draft.created", "draft.sending", "draft.taken_back",
        "draft.sending", "draft.sent", "message.sent",
    ]  # fmt: skip
    assert await numbers(world, workspace_id, ada) == list(range(1, 9))

    answer = written("z", thread[1].summary.header_message_id, subject="Re: Offer")
    await world.mail.deliver("ada@inbox.test", content=answer)
    assert len(await world.mailboxes.thread(*of, asked)) == 3


async def test_a_worker_that_dies_while_it_sends_sends_nothing_twice(
    world: MailboxWorld,
    workspace_id: UUID,
    ada: Inbox,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    of = (workspace_id, ada.id)
    content = Content(to=("bob@peer.test",), subject="once", text="only")
    async with world.database.transaction() as tx:
        draft = await world.drafts.create(*of, content, tx=tx)
    async with world.database.transaction() as tx:
        await world.drafts.send(*of, draft.id, draft.revision, 0, ACTOR, tx=tx)
    store = world.sender._store

    async def die(*_: object) -> None:
        raise RuntimeError("killed between accepting and storing")

    monkeypatch.setattr(world.sender, "_store", die)
    with pytest.raises(RuntimeError):
        await world.work(world.sender.handler())
    async with world.database.transaction() as tx:
        with pytest.raises(Conflict):  # it has left
            await world.drafts.take_back(*of, draft.id, tx=tx)
    monkeypatch.setattr(world.sender, "_store", store)
    clock.advance(LEASE_S + 1)
    await world.mail.engine.rescue()
    await world.work(world.sender.handler())
    assert await subjects(world, workspace_id, ada, folder="sent") == ["once"]
    async with world.database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM delivery") == 1


async def test_a_forward_takes_the_files_along_and_a_missing_one_gives_the_draft_back(
    world: MailboxWorld, workspace_id: UUID, ada: Inbox
) -> None:
    of = (workspace_id, ada.id)
    source = await world.mail.deliver("ada@inbox.test")
    content = await world.drafts.start(*of, "forward", source)
    assert (content.subject, content.in_reply_to) == ("Fwd: Your code is 4711", "")
    assert [file.filename for file in content.files] == ["a.pdf"]

    async def send(content: Content) -> UUID:
        async with world.database.transaction() as tx:
            draft = await world.drafts.create(*of, content, tx=tx)
        async with world.database.transaction() as tx:
            await world.drafts.send(*of, draft.id, draft.revision, 0, ACTOR, tx=tx)
        await world.work(world.sender.handler())
        return draft.id

    to_bob = {"to": ("bob@peer.test",), "subject": "Fwd", "text": "see"}
    await send(Content(**to_bob, files=content.files, references=content.references))  # type: ignore[arg-type]
    thread = await world.mailboxes.thread(*of, source)
    [line] = [line for line in thread if line.state.folder == "sent"]
    file = await world.mail.messages.attachment(workspace_id, line.summary.id, 0, ada.id)
    assert (file.attachment.filename, file.content) == ("a.pdf", b"PDF")
    await world.mail.messages.delete(workspace_id, [source])
    draft_id = await send(Content(**to_bob, files=content.files))  # type: ignore[arg-type]
    draft = await world.drafts.get(*of, draft_id)
    assert "gone with its mail" in draft.problem
    assert (draft.send_at, draft.leaving) == (None, False)
    with pytest.raises(InvalidInput, match="at least one recipient"):
        await send(Content(text="to nobody"))
