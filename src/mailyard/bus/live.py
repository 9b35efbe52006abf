"""The stored stream of live events, in commit order.

One row holds a batch of events. A row's place is (transaction id, row id): a reader takes rows
below the oldest transaction that still runs, so a row that commits late cannot appear before what
was already read. That is commit order as far as any reader can tell, and a cursor never misses nor
repeats an event. The bus only says that there is something to read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any
from uuid import UUID

import msgspec

from mailyard.bus.bus import Bus, Subscription
from mailyard.core.errors import InvalidInput
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

TOPIC = "live"
MESSAGE_RECEIVED = "message.received"
MESSAGE_AUTHENTICATED = "message.authenticated"  # where the verdict came after the message
MESSAGE_REFUSED = "message.refused"
ANALYSIS_DONE = "analysis.done"
MAILBOX_CHANGED = "mailbox.changed"
DELIVERY_CHANGED = "delivery.changed"
CAMPAIGN_PROGRESS = "campaign.progress"
QUEUE_DEPTH = "queue.depth"
DEMO_PROGRESS = "demo.progress"
IMPORT_PROGRESS = "import.progress"
WEBHOOK_DISABLED = "webhook.disabled"

# What happens, for those who choose among it.
KINDS: dict[str, str] = {
    MESSAGE_RECEIVED: "A message lies in an inbox.",
    MESSAGE_AUTHENTICATED: "Who sent a message was found after it had arrived.",
    MESSAGE_REFUSED: "A message was refused by its inbox's policy.",
    ANALYSIS_DONE: "What a message means was found.",
    MAILBOX_CHANGED: "Labels, folders, read states or drafts of a mailbox have changed.",
    DELIVERY_CHANGED: "A sent mail was accepted, delivered, bounced, opened …",
    CAMPAIGN_PROGRESS: "How far a campaign has got.",
    IMPORT_PROGRESS: "How far an import of contacts has got.",
    QUEUE_DEPTH: "How much waits in the queues (the installation's first workspace).",
    DEMO_PROGRESS: "How far a demo run has got.",
    WEBHOOK_DISABLED: "A webhook failed for days and is told of nothing more.",
}

_SQL = load("live")
_LARGEST = 2**63 - 1


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A place in the stream: after event `index` of the row (`xid`, `id`). Ordered like it."""

    xid: int
    id: int
    index: int

    def encode(self) -> str:
        """`xid-id-index`, as the id of a Server-Sent Event."""
        return f"{self.xid}-{self.id}-{self.index}"

    @classmethod
    def decode(cls, text: str, field: str = "cursor") -> "Cursor":
        """The cursor behind `text`. Raises InvalidInput naming `field`."""
        pieces = text.split("-")
        if len(pieces) != 3 or not all(p.isascii() and p.isdigit() and len(p) < 20 for p in pieces):
            raise InvalidInput(f"expected a cursor like 12-34-0, got {text[:60]!r}", field=field)
        xid, row, index = (int(piece) for piece in pieces)
        if max(xid, row, index) > _LARGEST:
            raise InvalidInput(f"no such place in the stream: {text[:60]!r}", field=field)
        return cls(xid, row, index)


START = Cursor(0, 0, 0)


@dataclass(frozen=True, slots=True)
class LiveEvent:
    """Something that happened in a workspace, as JSON values."""

    workspace_id: UUID
    kind: str
    item: dict[str, Any]


Run = tuple[UUID, str, Sequence[Mapping[str, Any]]]  # workspace, kind, the items of the events


def _run_of(event: LiveEvent) -> tuple[UUID, str]:
    return event.workspace_id, event.kind


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event with its place in the stream: give `cursor` to `read_after` to go on behind it."""

    cursor: Cursor
    workspace_id: UUID
    kind: str
    item: dict[str, Any]


class LiveEvents:
    """Publishes and reads the stream. One reader a process fans out to its listeners."""

    def __init__(self, *, database: Database, bus: Bus) -> None:
        self._database = database
        self._bus = bus

    async def publish(self, events: Sequence[LiveEvent], tx: Connection | None = None) -> None:
        """Store `events`, one row for each run of one workspace and kind.

        With `tx` they commit with the caller, who calls `announced` after its commit.
        """
        ordered = sorted(events, key=_run_of)
        await self.publish_runs(
            [(*run, [event.item for event in group]) for run, group in groupby(ordered, _run_of)],
            tx,
        )

    async def publish_runs(self, runs: Sequence[Run], tx: Connection | None = None) -> None:
        """As `publish`, for a caller who has the items of a workspace and kind together already."""
        if not runs:
            return
        await self._database.execute(
            _SQL.publish,
            [workspace_id for workspace_id, _, _ in runs],
            [kind for _, kind, _ in runs],
            [msgspec.json.encode(items).decode() for _, _, items in runs],
            tx=tx,
        )
        if tx is None:
            self.announced()

    def announced(self) -> None:
        """Wake the readers of every process: call it after the commit of a `publish` with `tx`."""
        self._bus.announce(TOPIC)

    def subscribe(self) -> Subscription:
        """Wakes up when there may be something new to read."""
        return self._bus.subscribe(TOPIC)

    async def read_after(
        self, cursor: Cursor, limit: int = 1000, workspace_id: UUID | None = None
    ) -> list[StoredEvent]:
        """The events behind `cursor` in commit order, whole rows: of all workspaces, or of one.

        `limit` counts rows (batches of events). Empty means: nothing new is settled yet.
        """
        place = (cursor.xid, cursor.id, limit)
        if workspace_id is None:
            rows = await self._database.fetch(_SQL.read_after, *place)
        else:
            rows = await self._database.fetch(_SQL.read_workspace_after, *place, workspace_id)
        events: list[StoredEvent] = []
        for row in rows:
            first = cursor.index if (row["xid"], row["id"]) == (cursor.xid, cursor.id) else 0
            items: list[dict[str, Any]] = msgspec.json.decode(row["items"])
            for index in range(first, len(items)):
                events.append(
                    StoredEvent(
                        Cursor(row["xid"], row["id"], index + 1),
                        row["workspace_id"],
                        row["kind"],
                        items[index],
                    )
                )
        return events

    async def newest(self) -> Cursor:
        """The end of the stream now: a listener without a cursor starts here."""
        row = await self._database.fetchrow(_SQL.newest)
        return START if row is None else Cursor(row["xid"], row["id"], row["items"])

    async def oldest(self) -> Cursor:
        """The first place still kept. A cursor below it has missed what was dropped."""
        row = await self._database.fetchrow(_SQL.oldest)
        return START if row is None else Cursor(row["xid"], row["id"], 0)
