"""What a mailbox shows and tells, as values."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from mailyard.mailbox import state as states
from mailyard.mailbox.inbox_value import Inbox
from mailyard.mailbox.message_value import Summary, summary_of
from mailyard.mailbox.state import State
from mailyard.storage.database import Connection


class Line(msgspec.Struct, frozen=True, gc=False):
    """A mail in a mailbox. `mails`: of its thread, where a list shows threads."""

    summary: Summary
    thread_id: UUID
    state: State
    mails: int = 1


class LinePage(msgspec.Struct, frozen=True):
    """Newest first. `next_before` goes into the next call's `before`; None at the end."""

    items: list[Line]
    next_before: UUID | None


class Wanted(msgspec.Struct, frozen=True):
    """Which lines: of a folder (by thread if `threads`), with a label, or with a star."""

    folder: str = states.INBOX
    label: str = ""
    starred: bool = False
    unread: bool = False
    threads: bool = False


@dataclass(frozen=True, slots=True)
class Overview:
    """`seq`: the last event's number. `unseen`: by folder, counted up to UNSEEN_COUNTED."""

    seq: int
    folders: tuple[str, ...]
    labels: tuple[str, ...]
    unseen: dict[str, int]


@dataclass(frozen=True, slots=True)
class Changed:
    """What a change did: the number of its event (None: nothing was to be done), and the lines."""

    seq: int | None
    message_ids: Sequence[UUID]


@dataclass(frozen=True, slots=True)
class Event:
    """One change of a mailbox, as stored."""

    seq: int
    at: datetime
    kind: str
    item: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who wrote, or was written to."""

    address: str
    name: str
    mails: int
    newest: UUID


class Asleep(msgspec.Struct, frozen=True):
    """The payload of a `mailbox-wake` job."""

    inbox_id: UUID
    message_ids: tuple[UUID, ...]
    until: datetime


def state_of(row: asyncpg.Record) -> State:
    return State(
        row["folder"],
        row["back_to"],
        tuple(row["labels"]),
        row["seen"],
        row["starred"],
        row["muted"],
        row["snoozed_until"],
    )


def line_of(row: asyncpg.Record) -> Line:
    return Line(summary_of(row), row["thread_id"], state_of(row), row.get("mails", 1))


def event_of(row: asyncpg.Record) -> Event:
    return Event(row["seq"], row["at"], row["kind"], msgspec.json.decode(row["item"]))


@dataclass(frozen=True, slots=True)
class Held:
    """A mailbox in the hands of one transaction."""

    workspace_id: UUID
    inbox: Inbox
    tx: Connection

    @property
    def key(self) -> tuple[UUID, UUID, int]:
        """The first arguments of its queries."""
        return self.workspace_id, self.inbox.id, self.inbox.retention_days
