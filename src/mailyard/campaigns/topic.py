"""Topics: what a campaign is about, which people may take or leave.

What a person has said is kept by address, so that it holds when the contact is deleted and imported
again. Who has said nothing gets what is not `on_request`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from mailyard.core import ids
from mailyard.core.errors import Conflict, InvalidInput, NotFound
from mailyard.core.limits import API_PAGE_ITEMS
from mailyard.protocol.address import normalise
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("topic")
_LAST_ID = UUID(int=(1 << 128) - 1)

NAME_CHARACTERS = 100
DESCRIPTION_CHARACTERS = 500
TOPICS_SHOWN = 200  # on one preference page


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic. `on_request`: only who has asked for it gets it."""

    id: UUID
    name: str
    description: str
    on_request: bool

    @property
    def created_at(self) -> datetime:
        return ids.time_of(self.id)


@dataclass(frozen=True, slots=True)
class Choice:
    """A topic and whether an address gets it. `said`: it has told us so itself."""

    topic: Topic
    subscribed: bool
    said: bool


class Topics:
    """Topics of a workspace, and what people say about them. The caller writes the audit rows."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def create(
        self,
        workspace_id: UUID,
        name: str,
        description: str = "",
        *,
        on_request: bool = False,
        tx: Connection | None = None,
    ) -> Topic:
        """Add a topic. Raises InvalidInput, or Conflict when the name is taken."""
        row = await self._database.fetchrow(
            _SQL.insert_topic,
            workspace_id,
            ids.uuid7(),
            _checked(name, "name", NAME_CHARACTERS),
            _checked(description, "description", DESCRIPTION_CHARACTERS, least=0),
            on_request,
            tx=tx,
        )
        if row is None:
            raise Conflict("a topic with this name is there already", field="name")
        return Topic(**row)

    async def get(self, workspace_id: UUID, topic_id: UUID, tx: Connection | None = None) -> Topic:
        """One topic. Raises NotFound."""
        row = await self._database.fetchrow(_SQL.get_topic, workspace_id, topic_id, tx=tx)
        if row is None:
            raise NotFound("there is no such topic")
        return Topic(**row)

    async def page(
        self, workspace_id: UUID, *, before: UUID | None = None, limit: int = API_PAGE_ITEMS
    ) -> list[Topic]:
        """Topics, newest first, with ids below `before`."""
        rows = await self._database.fetch(_SQL.page_topics, workspace_id, before or _LAST_ID, limit)
        return [Topic(**row) for row in rows]

    async def change(
        self,
        workspace_id: UUID,
        topic_id: UUID,
        *,
        name: str | None,
        description: str | None,
        tx: Connection,
    ) -> Topic:
        """Rename or describe; None leaves what stands. Raises InvalidInput, NotFound, Conflict."""
        stands = await self.get(workspace_id, topic_id, tx)
        name = stands.name if name is None else _checked(name, "name", NAME_CHARACTERS)
        if description is None:
            description = stands.description
        description = _checked(description, "description", DESCRIPTION_CHARACTERS, least=0)
        try:
            row = await self._database.fetchrow(
                _SQL.change_topic, workspace_id, topic_id, name, description, tx=tx
            )
        except asyncpg.UniqueViolationError:
            raise Conflict("a topic with this name is there already", field="name") from None
        if row is None:
            raise NotFound("there is no such topic")
        return Topic(**row)

    async def remove(self, workspace_id: UUID, topic_id: UUID, tx: Connection) -> Topic:
        """Remove a topic with all that people have said about it.

        Raises NotFound, and Conflict while a campaign that is not over is about it.
        """
        if await self._database.fetchval(_SQL.topic_in_use, workspace_id, topic_id, tx=tx):
            raise Conflict("a campaign that is not over is about this topic")
        row = await self._database.fetchrow(_SQL.delete_topic, workspace_id, topic_id, tx=tx)
        if row is None:
            raise NotFound("there is no such topic")
        return Topic(**row)

    async def counts(
        self, workspace_id: UUID, topics: Sequence[Topic]
    ) -> dict[UUID, tuple[int, int]]:
        """How many have said yes and no to each."""
        rows = await self._database.fetch(
            _SQL.count_choices, workspace_id, [topic.id for topic in topics]
        )
        return {row["topic_id"]: (row["yes"], row["no"]) for row in rows}

    async def choices(
        self, workspace_id: UUID, address: str, tx: Connection | None = None
    ) -> list[Choice]:
        """What an address gets, by the topics' names. Raises InvalidInput."""
        rows = await self._database.fetch(
            _SQL.choices_of, workspace_id, normalise(address), TOPICS_SHOWN, tx=tx
        )
        return [_choice(row) for row in rows]

    async def choose(
        self, workspace_id: UUID, address: str, wanted: Mapping[UUID, bool], tx: Connection
    ) -> dict[UUID, bool]:
        """Keep what an address says; what has changed by it. Raises InvalidInput."""
        rows = await self._database.fetch(
            _SQL.choose,
            workspace_id,
            normalise(address),
            list(wanted),
            list(wanted.values()),
            tx=tx,
        )
        return {row["topic_id"]: row["subscribed"] for row in rows}


def _choice(row: asyncpg.Record) -> Choice:
    topic = Topic(row["id"], row["name"], row["description"], row["on_request"])
    said = row["subscribed"]
    return Choice(topic, not topic.on_request if said is None else said, said is not None)


def _checked(text: str, field: str, most: int, least: int = 1) -> str:
    text = text.strip()
    if not least <= len(text) <= most or not text.isprintable():
        raise InvalidInput(f"{least} to {most} printable characters", field=field)
    return text
