"""The job `judge`: verdicts on mail for which DNS had no answer when it came in.

It waits longer, and again after longer pauses; after the last of them what DNS has not said counts
as unknown. Where an inbox kept a message out meanwhile, the verdict lets it in or refuses it.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID

import asyncpg
import msgspec

from mailyard.bus.live import MESSAGE_AUTHENTICATED, LiveEvents
from mailyard.core.clock import Clock
from mailyard.core.ids import MESSAGE, type_id
from mailyard.protocol.authentication import Standing, Verdict
from mailyard.queue.batch import Batch, Handler
from mailyard.queue.engine import Engine
from mailyard.queue.job import ANALYSIS, LeasedJob
from mailyard.receiving.authenticate import Authenticator
from mailyard.receiving.gate import JUDGE, Late, keep_late, late_jobs, received_of, tell_refused
from mailyard.receiving.ingest import Ingest
from mailyard.receiving.verdict import QUERIES, Verdicts
from mailyard.storage.database import Connection, Database
from mailyard.storage.raw_mail import IN_ROWS, RawMail

# After the n-th try without an answer. A domain whose servers are away for longer is unusual, and
# mail that an inbox keeps out meanwhile is late enough.
PAUSES_S = (10.0, 60.0, 300.0, 1200.0)

_WITHIN_S = 12.0  # the resolver gives up a question after 10
_CONCURRENCY = 2
_PAYLOAD = msgspec.json.Decoder(Late)


class LateJudge:
    """Handles `judge` jobs."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        verdicts: Verdicts,
        ingest: Ingest,
        database: Database,
        engine: Engine,
        live: LiveEvents,
        clock: Clock,
        raw_mail: RawMail = IN_ROWS,
    ) -> None:
        self._authenticator = authenticator
        self._verdicts = verdicts
        self._ingest = ingest
        self._database = database
        self._raw_mail = raw_mail
        self._engine = engine
        self._live = live
        self._clock = clock

    def handler(self) -> Handler:
        """What a worker needs to run this."""
        return Handler(
            kind=JUDGE, queue=ANALYSIS, handle=self.handle, batch_size=1, concurrency=_CONCURRENCY
        )

    async def handle(self, batch: Batch) -> None:
        for job in batch.jobs:
            try:
                late = _PAYLOAD.decode(job.payload)
            except msgspec.DecodeError as error:
                await batch.bury([job], f"the payload is not what the gate writes: {error}")
                continue
            await self._judge(batch, job, late)

    async def _judge(self, batch: Batch, job: LeasedJob, late: Late) -> None:
        workspace_id, ids = job.workspace_id, late.messages
        if workspace_id is None or not ids:
            return
        rows = await self._raw_mail.filled(
            await self._database.fetch(QUERIES.load, workspace_id, ids, min(ids), max(ids))
        )
        last = late.tries > len(PAUSES_S)
        received = [received_of(row) for row in rows]
        verdicts = await self._authenticator.verdicts(received, _WITHIN_S, last=last)
        async with self._database.transaction() as tx:
            if not await batch.complete([job], tx=tx):
                return
            there = await keep_late(self._database, verdicts, rows, tx)
            judged = {one: verdict for one, verdict in verdicts.items() if one in there}
            if judged:
                await self._settle(workspace_id, rows, judged, tx)
            left = [row for row in rows if row["id"] not in verdicts]
            if left and not last:
                run_at = self._clock.now() + timedelta(seconds=PAUSES_S[late.tries - 1])
                await self._engine.enqueue(late_jobs(left, late.tries + 1, run_at), tx)
        self._live.announced()

    async def _settle(
        self,
        workspace_id: UUID,
        rows: Sequence[asyncpg.Record],
        judged: Mapping[UUID, Verdict],
        tx: Connection,
    ) -> None:
        """Tell of verdicts, and let in or refuse what waited for them."""
        items = [
            {"message_id": type_id(MESSAGE, one), "standing": verdict.standing}
            for one, verdict in judged.items()
        ]
        await self._live.publish_runs([(workspace_id, MESSAGE_AUTHENTICATED, items)], tx)
        ids = list(judged)
        found = await self._database.fetch(
            QUERIES.waiting, workspace_id, ids, min(ids), max(ids), tx=tx
        )
        waiting = [(row["inbox_id"], row["message_id"]) for row in found]
        refused = [one for one in waiting if judged[one[1]].standing is Standing.FORGED]
        if refused:
            inboxes, messages = zip(*refused, strict=True)
            await self._database.execute(QUERIES.refuse, workspace_id, inboxes, messages, tx=tx)
            await tell_refused(self._live, [(workspace_id, *one) for one in refused], tx)
        free = [one for one in waiting if judged[one[1]].standing is not Standing.FORGED]
        if free:
            gone = await self._verdicts.let_go(workspace_id, free, tx)
            named = {message_id for _, message_id in gone}
            await self._ingest.admit([row for row in rows if row["id"] in named], gone, tx)
