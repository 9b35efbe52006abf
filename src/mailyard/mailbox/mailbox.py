"""The mailbox of an inbox: where its mail is, how it stands, and every change as an event.

Whoever changes a mailbox holds its row from reading the states to the commit, and takes its events'
numbers from there: they have no gaps, and whoever has seen number n has seen all up to n.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from mailyard.bus.live import MAILBOX_CHANGED, LiveEvents
from mailyard.core import limits
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import Conflict, InvalidInput, NotFound
from mailyard.core.ids import MESSAGE, THREAD, lowest_at, parse_type_id, type_id
from mailyard.mailbox import state as states
from mailyard.mailbox.follow import changed
from mailyard.mailbox.inbox import Inboxes
from mailyard.mailbox.inbox_value import Inbox
from mailyard.mailbox.mailbox_value import (
    Asleep,
    Changed,
    Event,
    Held,
    Line,
    LinePage,
    Overview,
    Person,
    Wanted,
    event_of,
    line_of,
    state_of,
)
from mailyard.mailbox.names import learn, set_names
from mailyard.mailbox.state import Act, State
from mailyard.queue.engine import Engine
from mailyard.queue.job import MAILBOX_SYNC, NewJob
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

QUERIES = load("mailbox")
THREADS = load("thread")
RECEIVING = load("receiving")

CHANGED = "lines.changed"
NAMED = "names.changed"
WAKE = "mailbox-wake"

LINES_PER_CHANGE = 1_000
THREAD_MAILS = 200  # that are shown at once
UNSEEN_COUNTED = 1_000
PEOPLE_MAILS = 2_000  # the newest, in which people are looked for
EVENTS_PER_PAGE = 1_000
_LAST = UUID(int=(1 << 128) - 1)


class Mailboxes:
    """The mailboxes of all workspaces' inboxes."""

    def __init__(
        self,
        *,
        database: Database,
        inboxes: Inboxes,
        live: LiveEvents,
        engine: Engine,
        clock: Clock | None = None,
    ) -> None:
        self._database = database
        self._inboxes = inboxes
        self._live = live
        self._engine = engine
        self._clock = clock or SystemClock()

    # Reading ---------------------------------------------------------------------------------

    async def overview(self, workspace_id: UUID, inbox_id: UUID) -> Overview:
        """The mailbox's folders and labels, and what is unread. Raises NotFound."""
        inbox = await self._inboxes.get(workspace_id, inbox_id)
        key = (workspace_id, inbox_id, inbox.retention_days)
        row = await self._database.fetchrow(QUERIES.overview, *key)
        seq, own, labels = (0, [], []) if row is None else row
        folders = (*states.FOLDERS, *own)
        oldest = self._oldest(inbox)
        counts = await self._database.fetch(
            QUERIES.count_unseen, *key, folders, UNSEEN_COUNTED, oldest
        )
        unseen = {count["name"]: count["unseen"] for count in counts}
        return Overview(seq, folders, tuple(labels), unseen)

    async def list(
        self,
        workspace_id: UUID,
        inbox_id: UUID,
        wanted: Wanted,
        *,
        before: UUID | None = None,
        limit: int = limits.API_PAGE_ITEMS,
    ) -> LinePage:
        """Lines of a mailbox, newest first, older than the message `before`. Raises NotFound."""
        inbox = await self._inboxes.get(workspace_id, inbox_id)
        key = (workspace_id, inbox_id, inbox.retention_days)
        limit = max(1, min(limit, limits.API_PAGE_ITEMS_MAX))
        since = (self._oldest(inbox), before or _LAST, limit + 1)
        if wanted.starred:
            rows = await self._database.fetch(QUERIES.list_starred, *key, *since)
        elif wanted.label:
            rows = await self._database.fetch(QUERIES.list_labelled, *key, *since, wanted.label)
        else:
            query = QUERIES.list_conversations if wanted.threads else QUERIES.list_folder
            rows = await self._database.fetch(query, *key, wanted.folder, *since, wanted.unread)
        items = [line_of(row) for row in rows[:limit]]
        return LinePage(items, items[-1].summary.id if len(rows) > limit else None)

    async def thread(self, workspace_id: UUID, inbox_id: UUID, thread_id: UUID) -> Sequence[Line]:
        """The mails of a thread, oldest first: the newest THREAD_MAILS. Raises NotFound."""
        inbox = await self._inboxes.get(workspace_id, inbox_id)
        key = (workspace_id, inbox_id, inbox.retention_days)
        found = await self._database.fetchval(QUERIES.find_thread, *key, thread_id)
        rows = await self._database.fetch(
            QUERIES.list_thread, *key, found or thread_id, THREAD_MAILS, self._oldest(inbox)
        )
        if not rows:
            raise NotFound("no such thread")
        return [line_of(row) for row in rows]

    def _oldest(self, inbox: Inbox) -> UUID:
        """The lowest id of a mail that the inbox still shows."""
        return lowest_at(inbox.oldest_at(self._clock.now()))

    async def events(
        self, workspace_id: UUID, inbox_id: UUID, after: int, limit: int = limits.API_PAGE_ITEMS
    ) -> Sequence[Event]:
        """The events behind number `after`, in order. Raises NotFound."""
        inbox = await self._inboxes.get(workspace_id, inbox_id)
        rows = await self._database.fetch(
            QUERIES.events_after,
            workspace_id,
            inbox_id,
            inbox.retention_days,
            after,
            max(1, min(limit, EVENTS_PER_PAGE)),
        )
        return [event_of(row) for row in rows]

    async def people(
        self, workspace_id: UUID, inbox_id: UUID, text: str = "", limit: int = 50
    ) -> Sequence[Person]:
        """Whom the mailbox has mail from or has written to, of its newest PEOPLE_MAILS mails; those
        whose name or address holds `text`. The latest first. Raises NotFound."""
        inbox = await self._inboxes.get(workspace_id, inbox_id)
        rows = await self._database.fetch(
            QUERIES.people_seen,
            workspace_id,
            inbox_id,
            inbox.retention_days,
            PEOPLE_MAILS,
            inbox.address,
            text,
            max(1, min(limit, limits.API_PAGE_ITEMS_MAX)),
            self._oldest(inbox),
        )
        return [Person(**row) for row in rows]

    async def inbox(self, workspace_id: UUID, inbox_id: UUID) -> Inbox:
        """The inbox of the mailbox. Raises NotFound."""
        return await self._inboxes.get(workspace_id, inbox_id)

    # Changing --------------------------------------------------------------------------------

    async def hold(self, workspace_id: UUID, inbox_id: UUID, tx: Connection) -> Held:
        """The mailbox, held until the commit of `tx`. Raises NotFound."""
        await self._database.fetch(RECEIVING.hold_classes, [workspace_id], tx=tx)
        inbox = await self._inboxes.get(workspace_id, inbox_id, tx=tx)
        held = Held(workspace_id, inbox, tx)
        await self._database.fetchval(THREADS.advance, *held.key, 0, tx=tx)
        return held

    async def tell(self, held: Held, kind: str, item: dict[str, Any]) -> int:
        """Write an event of a held mailbox; its number. The caller announces after its commit."""
        seq: int = await self._database.fetchval(THREADS.advance, *held.key, 1, tx=held.tx)
        text = msgspec.json.encode(item).decode()
        await self._database.execute(THREADS.tell, *held.key, seq, kind, text, tx=held.tx)
        told = [changed(held.inbox.id, seq, kind)]
        await self._live.publish_runs([(held.workspace_id, MAILBOX_CHANGED, told)], held.tx)
        return seq

    async def change(
        self,
        workspace_id: UUID,
        inbox_id: UUID,
        act: Act,
        *,
        message_ids: Sequence[UUID] = (),
        thread_ids: Sequence[UUID] = (),
        tx: Connection,
    ) -> Changed:
        """Do something to messages and to whole threads; muting is always to whole threads.

        What is not there is passed over. Raises NotFound for the inbox, InvalidInput, TooLarge.
        """
        states.check(act, self._clock.now())
        if len(message_ids) + len(thread_ids) > LINES_PER_CHANGE:
            raise InvalidInput(f"at most {LINES_PER_CHANGE} at once", field="message_ids")
        held = await self.hold(workspace_id, inbox_id, tx)
        found = await self._find(held, message_ids, thread_ids, act.verb in ("mute", "unmute"))
        changes = {}
        for message_id, (thread_id, before) in found.items():
            now = states.after(before, act)
            if now != before:
                changes[message_id] = (thread_id, before, now)
        if not changes:
            return Changed(None, [])
        if act.verb in ("mute", "unmute"):
            threads = list({thread_id for thread_id, _, _ in changes.values()})
            await self._database.execute(
                QUERIES.mute_ties, *held.key, threads, act.verb == "mute", tx=tx
            )
        await learn(self._database, held, act)
        seq = await self._write(held, changes, {"act": act.verb})
        if act.verb == "snooze":
            await self._set_alarm(held, changes, act)
        return Changed(seq, list(changes))

    async def undo(
        self, workspace_id: UUID, inbox_id: UUID, seq: int, *, tx: Connection
    ) -> Changed:
        """Take back the change with the number `seq`, wherever nobody has changed the same since.

        That is a change too, and can be undone. Raises NotFound, and Conflict for other events.
        """
        held = await self.hold(workspace_id, inbox_id, tx)
        row = await self._database.fetchrow(QUERIES.event, *held.key, seq, tx=tx)
        if row is None:
            raise NotFound("this mailbox has no such event")
        event = event_of(row)
        if event.kind != CHANGED:
            raise Conflict(f"what is {event.kind} cannot be undone")
        told = {
            parse_type_id(MESSAGE, change["message_id"]): (change["before"], change["after"])
            for change in event.item["changes"]
        }
        changes = {}
        for message_id, (thread_id, now) in (await self._states(held, list(told))).items():
            back = states.undone(now, *told[message_id])
            if back != now:
                changes[message_id] = (thread_id, now, back)
        if not changes:
            return Changed(None, [])
        for muted in (True, False):
            threads = [
                thread_id
                for thread_id, now, back in changes.values()
                if back.muted is muted and now.muted is not muted
            ]
            if threads:
                await self._database.execute(
                    QUERIES.mute_ties, *held.key, list(set(threads)), muted, tx=tx
                )
        for until in {back.snoozed_until for _, _, back in changes.values()} - {None}:
            asleep = {
                one: change for one, change in changes.items() if change[2].snoozed_until == until
            }
            await self._set_alarm(held, asleep, Act("snooze", until=until))
        return Changed(await self._write(held, changes, {"act": "undo", "of": seq}), list(changes))

    async def wake(self, asleep: Asleep, workspace_id: UUID, tx: Connection) -> None:
        """What was snoozed until then comes back, if it has not been touched since."""
        try:
            held = await self.hold(workspace_id, asleep.inbox_id, tx)
        except NotFound:
            return
        changes = {}
        for message_id, (thread_id, before) in (
            await self._states(held, asleep.message_ids)
        ).items():
            if before.folder == states.SNOOZED and before.snoozed_until == asleep.until:
                changes[message_id] = (thread_id, before, states.after(before, Act("wake")))
        if changes:
            await self._write(held, changes, {"act": "wake"})

    async def name(
        self,
        workspace_id: UUID,
        inbox_id: UUID,
        *,
        folders: Sequence[str] | None = None,
        labels: Sequence[str] | None = None,
        tx: Connection,
    ) -> None:
        """Set the folders and labels that are offered. Labels on mails stay; a folder that has mail
        cannot go. Raises InvalidInput, NotFound, Conflict."""
        held = await self.hold(workspace_id, inbox_id, tx)
        told = await set_names(self._database, held, folders, labels)
        await self.tell(held, NAMED, told)

    def announced(self) -> None:
        """Wake the readers of the live stream: call it after the commit of a change."""
        self._live.announced()

    # -----------------------------------------------------------------------------------------

    async def _find(
        self,
        held: Held,
        message_ids: Sequence[UUID],
        thread_ids: Sequence[UUID],
        whole_threads: bool,
    ) -> dict[UUID, tuple[UUID, State]]:
        found = await self._states(held, message_ids) if message_ids else {}
        threads = set(thread_ids)
        if thread_ids:  # named by a mail that may be of another thread by now
            named = await self._states(held, thread_ids)
            threads |= {thread_id for thread_id, _ in named.values()}
        if whole_threads:
            threads |= {thread_id for thread_id, _ in found.values()}
        if threads:
            rows = await self._database.fetch(
                QUERIES.states_of_threads,
                *held.key,
                list(threads),
                LINES_PER_CHANGE + 1,
                tx=held.tx,
            )
            found |= {row["message_id"]: (row["thread_id"], state_of(row)) for row in rows}
        if len(found) > LINES_PER_CHANGE:
            raise InvalidInput(f"more than {LINES_PER_CHANGE} mails at once", field="thread_ids")
        return found

    async def _states(
        self, held: Held, message_ids: Sequence[UUID]
    ) -> dict[UUID, tuple[UUID, State]]:
        rows = await self._database.fetch(
            QUERIES.states_of, *held.key, list(message_ids), tx=held.tx
        )
        return {row["message_id"]: (row["thread_id"], state_of(row)) for row in rows}

    async def _write(
        self, held: Held, changes: dict[UUID, tuple[UUID, State, State]], said: dict[str, Any]
    ) -> int:
        """Write states and the event that tells of them; its number."""
        now = [state for _, _, state in changes.values()]
        await self._database.execute(
            QUERIES.change_states,
            *held.key,
            list(changes),
            [one.folder for one in now],
            [one.back_to for one in now],
            [msgspec.json.encode(one.labels).decode() for one in now],
            [one.seen for one in now],
            [one.starred for one in now],
            [one.muted for one in now],
            [one.snoozed_until for one in now],
            tx=held.tx,
        )
        told = []
        for message_id, (thread_id, before, state) in changes.items():
            was, is_now = states.difference(before, state)
            told.append(
                {
                    "message_id": type_id(MESSAGE, message_id),
                    "thread_id": type_id(THREAD, thread_id),
                    "before": was,
                    "after": is_now,
                }
            )
        return await self.tell(held, CHANGED, {**said, "changes": told})

    async def _set_alarm(
        self, held: Held, changes: dict[UUID, tuple[UUID, State, State]], act: Act
    ) -> None:
        assert act.until is not None, "a snooze has an end"
        asleep = Asleep(held.inbox.id, tuple(changes), act.until)
        job = NewJob(
            queue=MAILBOX_SYNC,
            kind=WAKE,
            payload=msgspec.json.encode(asleep),
            workspace_id=held.workspace_id,
            run_at=act.until,
        )
        await self._engine.enqueue([job], tx=held.tx)
