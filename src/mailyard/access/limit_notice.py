"""Owners are told when a limit of their plan is near, or reached."""

from datetime import date
from uuid import UUID

from mailyard.access.errand import Errand, job_of
from mailyard.access.plan import Plans
from mailyard.access.usage import Usage
from mailyard.queue.engine import Engine
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_SQL = load("usage")


class LimitNotices:
    """Tells owners that a day's limit of their plan is near, or reached: once a day for each."""

    def __init__(self, *, database: Database, engine: Engine, plans: Plans, usage: Usage) -> None:
        self._database = database
        self._engine = engine
        self._plans = plans
        self._usage = usage

    async def look(self) -> None:
        """One look over all workspaces that have a plan."""
        if not self._plans.any:
            return
        today, book = self._usage.today(), self._plans.book
        await self._database.execute(_SQL.forget_notices, today)
        for row in await self._database.fetch(_SQL.beyond, today):
            plan = book.plan(row["plan"])
            most = plan.messages_per_day if row["kind"] == "messages" else plan.sends_per_day
            if most is None or row["amount"] < most * book.soft:
                continue
            level = "soft" if row["amount"] < most else "hard"
            errand = Errand("limit", kind=row["kind"], level=level, used=row["amount"], most=most)
            await self._tell(row["workspace_id"], today, errand)

    async def _tell(self, workspace_id: UUID, today: date, errand: Errand) -> None:
        async with self._database.transaction() as tx:
            if await self._database.fetchval(
                _SQL.note, workspace_id, today, errand.kind, errand.level, tx=tx
            ):
                await self._engine.enqueue([job_of(errand, workspace_id)], tx=tx)
