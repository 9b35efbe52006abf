"""Demonstrations that run on the platform itself: the page's button, and the job behind it.

A run is a row that everybody can watch and a job that one worker has. A worker that dies leaves the
row; its successor begins the run anew, with inboxes of its own.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from mailyard.bus.live import DEMO_PROGRESS, LiveEvent, LiveEvents
from mailyard.core import ids
from mailyard.core.errors import Conflict, InvalidInput, MailyardError, NotFound
from mailyard.core.limits import API_PAGE_ITEMS
from mailyard.proving.demonstration import RECIPIENTS_MAX, STAGES, Demo, Stage
from mailyard.proving.in_process import ServicePlatform, Services
from mailyard.proving.load_test import PAGE, LoadTests
from mailyard.queue.batch import Batch, Handler
from mailyard.queue.engine import Engine
from mailyard.queue.job import MEDIA, LeasedJob, NewJob
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

QUERIES = load("demo")

DEMO_JOB = "demo"
_ONE_AT_A_TIME = "demo"  # a run waits for its own import in the same lane: two would wait for ever
_TELL_EVERY_S = 0.3
_MAX_ATTEMPTS = 3


class DemoPayload(msgspec.Struct, frozen=True):
    """What a `demo` job says."""

    run_id: UUID


@dataclass(frozen=True, slots=True)
class DemoRun:
    """`state`: queued, running, finished (see `verdict`) or failed (see `error`)."""

    id: UUID
    recipients: int
    state: str
    stage: str
    done: int
    verdict: dict[str, Any] | None
    error: str
    created_at: datetime


class Demos:
    """Start runs and look at them."""

    def __init__(self, *, database: Database, engine: Engine) -> None:
        self._database = database
        self._engine = engine

    async def start(
        self, workspace_id: UUID, recipients: int, tx: Connection | None = None
    ) -> DemoRun:
        """Enqueue a run. Raises InvalidInput, and Conflict while another one waits or runs."""
        if tx is None:
            async with self._database.transaction() as own:
                return await self.start(workspace_id, recipients, own)
        if not 1 <= recipients <= RECIPIENTS_MAX:
            raise InvalidInput(f"1 to {RECIPIENTS_MAX:,} recipients", field="recipients")
        run_id = ids.uuid7()
        row = await self._database.fetchrow(
            QUERIES.insert_run, workspace_id, run_id, recipients, tx=tx
        )
        job = NewJob(
            queue=MEDIA,
            kind=DEMO_JOB,
            payload=msgspec.json.encode(DemoPayload(run_id)),
            workspace_id=workspace_id,
            unique_key=_ONE_AT_A_TIME,
            max_attempts=_MAX_ATTEMPTS,
        )
        if (await self._engine.enqueue([job], tx=tx))[0] is None:
            raise Conflict("a demonstration is running already; wait until it has ended")
        assert row is not None
        return _run_of(row)

    async def latest(self, workspace_id: UUID) -> DemoRun | None:
        """The workspace's youngest run, if there is one."""
        row = await self._database.fetchrow(QUERIES.latest_run, workspace_id)
        return None if row is None else _run_of(row)

    async def get(self, workspace_id: UUID, run_id: UUID) -> DemoRun:
        """One run. Raises NotFound."""
        row = await self._database.fetchrow(QUERIES.get_run, workspace_id, run_id)
        if row is None:
            raise NotFound("there is no such demonstration")
        return _run_of(row)

    async def page(
        self, workspace_id: UUID, *, after: UUID | None = None, limit: int = API_PAGE_ITEMS
    ) -> list[DemoRun]:
        """A page of runs, the newest first, behind run `after`."""
        rows = await self._database.fetch(QUERIES.page_runs, workspace_id, after, limit)
        return [_run_of(row) for row in rows]


class DemoRunner:
    """Runs demonstrations inside a worker."""

    def __init__(self, *, database: Database, live: LiveEvents, services: Services) -> None:
        self._database = database
        self._load_tests = LoadTests(database=database)
        self._live = live
        self._services = services

    def handler(self) -> Handler:
        """What a worker runs for this job."""
        return Handler(kind=DEMO_JOB, queue=MEDIA, handle=self.handle, concurrency=1)

    async def handle(self, batch: Batch) -> None:
        """Run the demonstration; when the worker stops before, another begins it anew."""
        for job in batch.jobs:
            running = asyncio.create_task(self.work(job))
            stopping = asyncio.create_task(batch.stopping.wait())
            try:
                await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
                if running.done():
                    await running
                else:
                    await batch.release([job])
            finally:
                for task in (running, stopping):
                    task.cancel()
                await asyncio.gather(running, stopping, return_exceptions=True)

    async def work(self, job: LeasedJob) -> None:
        """One run from its inboxes to its verdict, kept in its row. Raises nothing of its own."""
        assert job.workspace_id is not None
        workspace_id = job.workspace_id
        run_id = msgspec.json.decode(job.payload, type=DemoPayload).run_id
        recipients = await self._database.fetchval(QUERIES.take_run, workspace_id, run_id)
        if recipients is None:
            return
        teller = _Teller(self._database, self._live, workspace_id, run_id, recipients)
        demo = Demo(
            ServicePlatform(self._services, workspace_id),
            run=f"{run_id.hex[-8:]}-{job.token}",
            recipients=recipients,
            report=teller.report,
        )
        telling = asyncio.create_task(teller.run())
        try:
            verdict = await demo.run()
        except Exception as error:
            known = isinstance(error, MailyardError)
            again = error.retryable if isinstance(error, MailyardError) else True
            if again and job.attempt < job.max_attempts:
                raise
            reason = error.message if isinstance(error, MailyardError) else repr(error)
            await self._database.execute(QUERIES.fail_run, workspace_id, run_id, reason[:1000])
            await teller.tell("failed", Stage("", 0, recipients))
            if not known:
                raise
            return
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
        async with self._database.transaction() as tx:
            await self._database.execute(
                QUERIES.finish_run,
                workspace_id,
                run_id,
                msgspec.json.encode(verdict.as_json()).decode(),
                tx=tx,
            )
            await self._load_tests.add(PAGE, verdict, tx)
        await teller.tell("finished", Stage("", recipients, recipients), verdict.as_json())


class _Teller:
    """Writes a run's progress into its row and the live stream, a few times a second."""

    def __init__(
        self,
        database: Database,
        live: LiveEvents,
        workspace_id: UUID,
        run_id: UUID,
        recipients: int,
    ) -> None:
        self._database = database
        self._live = live
        self._workspace_id = workspace_id
        self._run_id = run_id
        self._recipients = recipients
        self._stage = Stage(STAGES[0], 0, recipients)

    def report(self, stage: Stage) -> None:
        self._stage = stage

    async def run(self) -> None:
        told: Stage | None = None
        while True:
            if self._stage != told:
                told = self._stage
                await self._database.execute(
                    QUERIES.move_run, self._workspace_id, self._run_id, told.name, told.done
                )
                await self.tell("running", told)
            await asyncio.sleep(_TELL_EVERY_S)

    async def tell(
        self, state: str, stage: Stage, verdict: dict[str, int | float | bool] | None = None
    ) -> None:
        item = {
            "demo_id": ids.type_id(ids.DEMO, self._run_id),
            "state": state,
            "recipients": self._recipients,
            "stage": stage.name,
            "done": stage.done,
            "verdict": verdict,
        }
        await self._live.publish([LiveEvent(self._workspace_id, DEMO_PROGRESS, item)])


def _run_of(row: asyncpg.Record) -> DemoRun:
    return DemoRun(
        id=row["id"],
        recipients=row["recipients"],
        state=row["state"],
        stage=row["stage"],
        done=row["done"],
        verdict=None if row["verdict"] is None else msgspec.json.decode(row["verdict"]),
        error=row["error"],
        created_at=row["created_at"],
    )
