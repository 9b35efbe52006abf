"""What ingest hands on: mail of inboxes whose owners have it analysed on arrival gets its jobs, in
the transaction that makes it visible. Where nobody asked that is one look at a small table."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from mailyard.analysis.job import jobs_of
from mailyard.analysis.task import Ask
from mailyard.queue.engine import Engine
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

if TYPE_CHECKING:
    from mailyard.receiving.ingest import Arrival

_SQL = load("analysis")
_ON_ARRIVAL_PRIORITY = 5


class ArrivalAnalysis:
    """A follower of ingest."""

    def __init__(self, *, database: Database, engine: Engine) -> None:
        self._database = database
        self._engine = engine

    async def follow(self, arrivals: "Sequence[Arrival]", tx: Connection) -> None:
        """Enqueue what is to be analysed of the lines that were just written."""
        workspaces = list({one.workspace_id for one in arrivals})
        wanting = {
            row["workspace_id"]: row
            for row in await self._database.fetch(_SQL.wanting, workspaces, tx=tx)
        }
        if not wanting:
            return
        own = await self._say_for_themselves(arrivals, wanting, tx)
        chosen: dict[UUID, dict[UUID, None]] = {}
        for one in arrivals:
            policy = wanting.get(one.workspace_id)
            if policy is not None and own.get(one.inbox_id, policy["on_arrival"]):
                chosen.setdefault(one.workspace_id, {})[one.message_id] = None
        jobs = []
        for workspace_id, message_ids in chosen.items():
            policy = wanting[workspace_id]
            ask = Ask(tuple(policy["aspects"]), policy["fields"])
            jobs += jobs_of(workspace_id, list(message_ids), ask, _ON_ARRIVAL_PRIORITY)
        if jobs:
            await self._engine.enqueue(jobs, tx)

    async def _say_for_themselves(
        self, arrivals: "Sequence[Arrival]", wanting: dict[UUID, Any], tx: Connection
    ) -> dict[UUID, bool]:
        """What the inboxes among them say, which is not what their workspace says."""
        inboxes = {
            one.inbox_id
            for one in arrivals
            if one.workspace_id in wanting and wanting[one.workspace_id]["inboxes"]
        }
        if not inboxes:
            return {}
        rows = await self._database.fetch(
            _SQL.inboxes_that_say,
            list(wanting),
            list(inboxes),
            min(inboxes),
            max(inboxes),
            tx=tx,
        )
        return {row["id"]: row["analysis"] for row in rows}
