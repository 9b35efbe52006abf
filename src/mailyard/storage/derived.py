"""What is derived from received mail: the one list of tables that share its life.

Whoever keeps something about a message, about a message in an inbox, or about an inbox (a thread, a
verdict, an index, a draft) adds the table to `DERIVED`. Its partitions then are made beside those
of the mail and dropped on the same day; its rows move along when an inbox is extended into a longer
retention class; a purge deletes them. A table has the columns `workspace_id`, `retention_days` (the
class that its owner lies in) and the owner's ids; its primary key ends in `retention_days`:

    CREATE TABLE verdict (
        message_id uuid NOT NULL, retention_days smallint NOT NULL, workspace_id uuid NOT NULL, ...
        PRIMARY KEY (message_id, retention_days)
    ) PARTITION BY LIST (retention_days);

    Derived("verdict", Of.MESSAGE)

A row that is written after ingest (by a job) must find its owner's class and keep it until the
commit: in the same transaction first `receiving.hold_classes` of its workspace, then the class from
`inbox_message` (or `inbox`), then the row. No row there any more: nothing is written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import Query, load

QUERIES = load("derived")


class Of(StrEnum):
    """Whose life a row shares. The value is the table that it follows."""

    INBOX = "inbox"  # columns inbox_id; ranges are cut on inbox_id
    LINE = "inbox_message"  # columns inbox_id and message_id, the inbox's class; cut on message_id
    MESSAGE = "message"  # column message_id, the message's class; cut on message_id


@dataclass(frozen=True, slots=True)
class Derived:
    """A table of what is derived. `insert_only`: its rows are never updated. `storage`: parameters
    of its partitions. `lines`: of an inbox, and its rows are about the messages in it, which a
    column message_id names."""

    table: str
    of: Of
    insert_only: bool = False
    storage: str = ""
    lines: bool = False

    @property
    def key(self) -> str:
        """The column whose ids its ranges are cut on."""
        return "inbox_id" if self.of is Of.INBOX else "message_id"


# In alphabetical order.
DERIVED: tuple[Derived, ...] = (
    Derived("held_message", Of.LINE),
    Derived("line_state", Of.INBOX, lines=True),
    Derived("mailbox", Of.INBOX),
    Derived("mailbox_event", Of.INBOX, insert_only=True),
    Derived("mailbox_text", Of.INBOX),
    Derived("message_analysis", Of.MESSAGE),
    Derived("message_meaning", Of.MESSAGE),
    # A row is ids alone: a page holds eighty, and a search of many matches reads few pages.
    Derived("search_line", Of.LINE, insert_only=True, storage="toast_tuple_target = 128"),
    Derived("search_vector", Of.LINE, insert_only=True, storage="toast_tuple_target = 128"),
    Derived("thread_key", Of.INBOX),
    Derived("verdict", Of.MESSAGE, insert_only=True),
)


async def move_with_inbox(
    database: Database, tx: Connection, workspace_id: UUID, inbox_id: UUID, before: int, after: int
) -> None:
    """What belongs to an inbox and to its lines goes from class `before` to the longer `after`."""
    for statement in await _say(database, tx, QUERIES.say_move_of_inbox, (Of.INBOX, Of.LINE)):
        await database.execute(statement, workspace_id, inbox_id, before, after, tx=tx)


async def move_with_messages(
    database: Database,
    tx: Connection,
    workspace_id: UUID,
    message_ids: Sequence[UUID],
    retention_days: int,
) -> None:
    """What belongs to messages goes to the longer class that these have now."""
    for statement in await _say(database, tx, QUERIES.say_move_of_messages, (Of.MESSAGE,)):
        await database.execute(
            statement,
            workspace_id,
            message_ids,
            min(message_ids),
            max(message_ids),
            retention_days,
            tx=tx,
        )


async def delete_of_inboxes(
    database: Database, tx: Connection, workspace_id: UUID, inbox_ids: Sequence[UUID]
) -> None:
    """Delete what belongs to inboxes and to their lines."""
    for statement in await _say(database, tx, QUERIES.say_delete_of_inboxes, (Of.INBOX, Of.LINE)):
        await database.execute(statement, workspace_id, inbox_ids, min(inbox_ids), tx=tx)


async def delete_of_lines(
    database: Database,
    tx: Connection,
    workspace_id: UUID,
    inbox_ids: Sequence[UUID],
    message_ids: Sequence[UUID],
) -> None:
    """Delete what belongs to messages in inboxes: each message in the inbox of the same place."""
    tables = [one for one in DERIVED if one.of is Of.LINE or one.lines]
    for statement in await _say_of(database, tx, QUERIES.say_delete_of_lines, tables):
        await database.execute(
            statement,
            workspace_id,
            inbox_ids,
            message_ids,
            min(inbox_ids),
            min(message_ids),
            tx=tx,
        )


async def delete_of_messages(
    database: Database, tx: Connection, workspace_id: UUID, message_ids: Sequence[UUID]
) -> None:
    """Delete what belongs to messages as such, not to their lines."""
    for statement in await _say(database, tx, QUERIES.say_delete_of_messages, (Of.MESSAGE,)):
        await database.execute(
            statement, workspace_id, message_ids, min(message_ids), max(message_ids), tx=tx
        )


async def _say(database: Database, tx: Connection, query: Query, of: tuple[Of, ...]) -> list[Query]:
    return await _say_of(database, tx, query, [one for one in DERIVED if one.of in of])


async def _say_of(
    database: Database, tx: Connection, query: Query, derived: Sequence[Derived]
) -> list[Query]:
    """One statement a table, made by PostgreSQL, which quotes the names."""
    if not derived:
        return []
    tables, keys = [one.table for one in derived], [one.key for one in derived]
    rows = await database.fetch(query, tables, keys, tx=tx)
    return [Query(row["statement"]) for row in rows]
