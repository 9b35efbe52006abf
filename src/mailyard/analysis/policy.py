"""When a workspace has its mail analysed, what is asked, and what it may cost a day."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

from msgspec import Struct

from mailyard.analysis.task import ASPECTS, Ask, ask_of
from mailyard.core.errors import InvalidInput, NotFound
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("analysis")
_LARGEST = 2**62


class Policy(Struct, frozen=True):
    """`ask` is what is asked on arrival. None: no limit of the day."""

    on_arrival: bool = False
    ask: Ask = Ask(ASPECTS)
    day_tokens: int | None = None
    day_micros: int | None = None


class Spent(Struct, frozen=True):
    """A day of a workspace. A call that is under way counts with the most that it may use."""

    day: date
    tokens: int
    micros: int
    calls: int
    failures: int
    kept: int


class Policies:
    """The policies of all workspaces, and what their days have used."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def get(self, workspace_id: UUID, tx: Connection | None = None) -> Policy:
        """The default where none was set."""
        row = await self._database.fetchrow(_SQL.get_policy, workspace_id, tx=tx)
        if row is None:
            return Policy()
        ask = Ask(tuple(row["aspects"]), row["fields"])
        return Policy(row["on_arrival"], ask, row["day_tokens"], row["day_micros"])

    async def set(
        self,
        workspace_id: UUID,
        *,
        on_arrival: bool,
        aspects: Sequence[str],
        fields: dict[str, Any] | None,
        day_tokens: int | None,
        day_micros: int | None,
        tx: Connection,
    ) -> Policy:
        """Raises InvalidInput."""
        ask = ask_of(aspects, fields)
        for name, value in (("day_tokens", day_tokens), ("day_money", day_micros)):
            if value is not None and not 0 <= value <= _LARGEST:
                raise InvalidInput("0 or more", field=name)
        await self._database.execute(
            _SQL.set_policy,
            workspace_id,
            on_arrival,
            list(ask.aspects),
            ask.fields,
            day_tokens,
            day_micros,
            tx=tx,
        )
        return await self.get(workspace_id, tx)

    async def of_inbox(self, workspace_id: UUID, inbox_id: UUID) -> bool | None:
        """What an inbox says for itself; None: as its workspace. Raises NotFound."""
        row = await self._database.fetchrow(_SQL.get_inbox, workspace_id, inbox_id)
        if row is None:
            raise NotFound("no such inbox")
        said: bool | None = row["analysis"]
        return said

    async def set_inbox(
        self, workspace_id: UUID, inbox_id: UUID, on_arrival: bool | None, tx: Connection
    ) -> None:
        """Raises NotFound."""
        found = await self._database.fetchval(
            _SQL.set_inbox, workspace_id, inbox_id, on_arrival, tx=tx
        )
        if found is None:
            raise NotFound("no such inbox")
        if on_arrival is not None:
            await self._database.execute(_SQL.note_inboxes, workspace_id, list(ASPECTS), tx=tx)

    async def spent(self, workspace_id: UUID, days: int = 31) -> list[Spent]:
        """The last days that used anything, newest first."""
        rows = await self._database.fetch(_SQL.list_spent, workspace_id, days)
        return [Spent(*row) for row in rows]


class Budget:
    """What a workspace's days may use. Nothing passes a limit, however many ask at once: the most
    that a call may use is counted before it, and what it did use behind it."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def hold(
        self, workspace_id: UUID, moment: datetime, policy: Policy, tokens: int, micros: int
    ) -> bool:
        """Count a call; False when the day has no room for it."""
        held = await self._database.fetchval(
            _SQL.hold,
            workspace_id,
            moment.date(),
            tokens,
            micros,
            policy.day_tokens,
            policy.day_micros,
        )
        return held is not None

    async def settle(
        self, workspace_id: UUID, moment: datetime, tokens: int, micros: int, *, failed: bool
    ) -> None:
        """Correct the day of a call by so many tokens and micros, most often less than none."""
        await self._database.execute(
            _SQL.settle, workspace_id, moment.date(), tokens, micros, int(failed)
        )

    async def count_kept(self, workspace_id: UUID, moment: datetime) -> None:
        """One more answer that cost nothing."""
        await self._database.execute(_SQL.count_kept, workspace_id, moment.date())
