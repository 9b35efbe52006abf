"""What ingest writes of mailboxes, in its transaction: threads, states, events.

A batch costs four statements, or five where mails name others. The first takes the numbers of the
events and with them holds each mailbox's row until the commit, so that no two batches weave at one
mailbox and numbers appear in order, without gaps. That is why this follower comes last: the commit
is what follows.
"""

from collections.abc import Sequence
from time import perf_counter
from typing import NamedTuple
from uuid import UUID

import asyncpg
import msgspec

from mailyard.bus.live import MAILBOX_CHANGED, LiveEvents
from mailyard.core.ids import INBOX, MESSAGE, THREAD, type_id
from mailyard.mailbox import state as states
from mailyard.mailbox.strand import Strand, strand_of
from mailyard.mailbox.weave import Found, NewMail, Woven, weave
from mailyard.observe.metrics import QUERY_SECONDS
from mailyard.receiving.ingest import Arrival
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

QUERIES = load("thread")
MAILBOX = load("mailbox")

ARRIVED = "message.arrived"
JOINED = "thread.joined"
DELETED = "messages.deleted"

_STATE = (
    "inbox_id", "message_id", "retention_days", "workspace_id", "thread_id", "own_key",
    "subject_key", "folder", "seen", "muted",
)  # fmt: skip
_EVENT = ("inbox_id", "seq", "retention_days", "workspace_id", "kind", "item")
_COPY_SECONDS = QUERY_SECONDS.labels("thread.copy_states")
_BY_MESSAGE_ID, _BY_SUBJECT, _BY_TIE_ALONE = 1, 2, 0


class NewLine(NamedTuple):
    """A line that was written, and where it goes. `folder` empty: where its thread says."""

    inbox_id: UUID
    message_id: UUID
    workspace_id: UUID
    retention_days: int
    strand: Strand
    folder: str = ""
    seen: bool = False
    kind: str = ARRIVED


class Placed(NamedTuple):
    """Where a new line has gone. `seq`: of its event."""

    line: NewLine
    thread_id: UUID
    folder: str
    muted: bool
    seq: int


class Follower:
    """`receiving.ingest.Follower` of the mailboxes."""

    def __init__(self, *, database: Database, live: LiveEvents) -> None:
        self._database = database
        self._live = live

    async def follow(self, arrivals: Sequence[Arrival], tx: Connection) -> None:
        """Place the lines of a batch."""
        lines = [
            NewLine(
                arrival.inbox_id,
                arrival.message_id,
                arrival.workspace_id,
                arrival.retention_days,
                strand_of(arrival.summary),
            )
            for arrival in arrivals
        ]
        await self.place(lines, tx)

    async def place(self, lines: Sequence[NewLine], tx: Connection) -> list[Placed]:
        """Thread new lines, give them their states and tell of them; in the order of the inboxes.

        The caller goes on to its commit: until then it holds the mailboxes.
        """
        groups: dict[UUID, list[NewLine]] = {}
        for line in lines:
            groups.setdefault(line.inbox_id, []).append(line)
        held = [groups[inbox_id] for inbox_id in sorted(groups)]
        last = await self._hold(held, tx)
        known = [group for group in held if last[group[0].inbox_id] > len(group)]
        found = await self._find(known, tx) if known else {}
        placed: list[Placed] = []
        ties: list[tuple[UUID, int, UUID, int, UUID, bool]] = []
        for group in held:
            inbox_id, _, workspace_id, retention_days, *_ = group[0]
            mails = [NewMail(line.message_id, line.strand) for line in group]
            woven = weave(mails, found.get(inbox_id, {}))
            seq = last[inbox_id] - len(group)
            if woven.joined:
                woven = await self._join(group[0], woven, tx)
                last[inbox_id] += len(woven.joined)
            for line, thread_id, muted in zip(group, woven.threads, woven.muted, strict=True):
                seq += 1
                folder = line.folder or (states.ARCHIVE if muted else states.INBOX)
                placed.append(Placed(line, thread_id, folder, muted, seq))
            ties += [(inbox_id, retention_days, workspace_id, *tie) for tie in woven.ties]
        await _store(placed, tx)
        if ties:
            await self._database.execute(QUERIES.write_ties, *zip(*ties, strict=True), tx=tx)
        told: dict[UUID, list[dict[str, object]]] = {}
        for group in held:
            item = changed(group[0].inbox_id, last[group[0].inbox_id], group[0].kind)
            told.setdefault(group[0].workspace_id, []).append(item)
        runs = [(workspace_id, MAILBOX_CHANGED, items) for workspace_id, items in told.items()]
        await self._live.publish_runs(runs, tx)
        return placed

    async def forget(
        self, workspace_id: UUID, lines: Sequence[asyncpg.Record], tx: Connection
    ) -> None:
        """Lines (inbox_id, message_id, retention_days) are gone: their states too, and the
        mailboxes tell of it. What ties their threads together stays. The caller goes on to its
        commit, having held the classes of the workspace from the beginning of its transaction.
        """
        groups: dict[tuple[UUID, int], list[UUID]] = {}
        for line in lines:
            key = (line["inbox_id"], line["retention_days"])
            groups.setdefault(key, []).append(line["message_id"])
        told = []
        for inbox_id, retention_days in sorted(groups):
            of = (workspace_id, inbox_id, retention_days)
            seq = await self._database.fetchval(QUERIES.advance, *of, 1, tx=tx)
            ids = groups[inbox_id, retention_days]
            await self._database.fetch(MAILBOX.forget_states, *of, ids, tx=tx)
            item = {"message_ids": [type_id(MESSAGE, one) for one in ids]}
            text = msgspec.json.encode(item).decode()
            await self._database.execute(QUERIES.tell, *of, seq, DELETED, text, tx=tx)
            told.append(changed(inbox_id, seq, DELETED))
        await self._live.publish_runs([(workspace_id, MAILBOX_CHANGED, told)], tx)

    async def _hold(self, held: Sequence[Sequence[NewLine]], tx: Connection) -> dict[UUID, int]:
        """The last number of each mailbox, those of its new lines included."""
        rows = await self._database.fetch(
            QUERIES.hold,
            [group[0].inbox_id for group in held],
            [group[0].retention_days for group in held],
            [group[0].workspace_id for group in held],
            [len(group) for group in held],
            tx=tx,
        )
        return {row["inbox_id"]: row["seq"] for row in rows}

    async def _find(
        self, groups: Sequence[Sequence[NewLine]], tx: Connection
    ) -> dict[UUID, dict[int, list[Found]]]:
        """What lies behind the ties of new lines, by inbox and tie."""
        asked: dict[tuple[UUID, int, int, int], None] = {}
        for group in groups:
            for inbox_id, _, _, retention_days, strand, *_ in group:
                own, named, subject, answers = strand
                if own is not None:
                    asked[inbox_id, retention_days, own, _BY_MESSAGE_ID] = None
                for tie in named:
                    asked[inbox_id, retention_days, tie, _BY_MESSAGE_ID] = None
                if subject is not None:
                    asked[inbox_id, retention_days, subject, _BY_TIE_ALONE] = None
                for tie in answers:
                    asked[inbox_id, retention_days, tie, _BY_SUBJECT] = None
        if not asked:
            return {}
        rows = await self._database.fetch(QUERIES.find_ties, *zip(*asked, strict=True), tx=tx)
        found: dict[UUID, dict[int, list[Found]]] = {}
        for inbox_id, tie, *behind in rows:
            found.setdefault(inbox_id, {}).setdefault(tie, []).append(Found(*behind))
        return found

    async def _join(self, line: NewLine, woven: Woven, tx: Connection) -> Woven:
        """Make threads one. The largest stays: however often it happens, a mail seldom moves."""
        of = (line.workspace_id, line.inbox_id, line.retention_days)
        stays: dict[UUID, UUID] = {}
        items = []
        for threads, muted in woven.joined:
            rows = await self._database.fetch(QUERIES.size_threads, *of, list(threads), tx=tx)
            sizes = {row["thread_id"]: row["mails"] for row in rows}
            survivor = min(threads, key=lambda thread: (-sizes.get(thread, 0), thread))
            gone = sorted(threads - {survivor})
            await self._database.execute(
                QUERIES.join_threads, *of, [*gone, survivor], survivor, muted, tx=tx
            )
            stays |= {min(threads): survivor}
            items.append(
                {
                    "thread_id": type_id(THREAD, survivor),
                    "joined": [type_id(THREAD, thread) for thread in gone],
                }
            )
        seq = await self._database.fetchval(QUERIES.advance, *of, len(items), tx=tx)
        for number, item in enumerate(items, seq - len(items) + 1):
            text = msgspec.json.encode(item).decode()
            await self._database.execute(QUERIES.tell, *of, number, JOINED, text, tx=tx)
        return woven._replace(
            threads=[stays.get(thread, thread) for thread in woven.threads],
            ties=[(tie, stays.get(thread, thread), muted) for tie, thread, muted in woven.ties],
        )


def changed(inbox_id: UUID, seq: int, kind: str) -> dict[str, object]:
    """A change of a mailbox as the live stream tells it: what to read is known by its number."""
    return {"inbox_id": type_id(INBOX, inbox_id), "seq": seq, "kind": kind}


async def _store(placed: Sequence[Placed], tx: Connection) -> None:
    """Write the states of new lines and an event each. By COPY: to hand over as many arrays costs
    the driver more than all else here.
    """
    started = perf_counter()
    await tx.copy_records_to_table(
        "line_state",
        columns=_STATE,
        records=[
            (
                line.inbox_id,
                line.message_id,
                line.retention_days,
                line.workspace_id,
                thread_id,
                line.strand.own,
                line.strand.subject,
                folder,
                line.seen,
                muted,
            )
            for line, thread_id, folder, muted, _ in placed
        ],
    )
    await tx.copy_records_to_table(
        "mailbox_event",
        columns=_EVENT,
        records=[
            (
                line.inbox_id,
                seq,
                line.retention_days,
                line.workspace_id,
                line.kind,
                f'{{"message_id":"{type_id(MESSAGE, line.message_id)}",'
                f'"thread_id":"{type_id(THREAD, thread_id)}","folder":"{folder}"}}',
            )
            for line, thread_id, folder, _, seq in placed
        ],
    )
    _COPY_SECONDS.observe(perf_counter() - started)
