"""Analyses of messages: asked on demand or on arrival, done on the lane `analysis`, kept beside
their message, told as `analysis.done`."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import structlog
from msgspec import Struct

from mailyard.analysis.analyst import Analyst, Answered, Later, Outcome
from mailyard.analysis.book import ModelBook
from mailyard.analysis.job import Payload, jobs_of
from mailyard.analysis.meaning import found_in
from mailyard.analysis.task import Ask
from mailyard.bus.live import ANALYSIS_DONE, LiveEvents
from mailyard.core.errors import NotFound
from mailyard.core.ids import INBOX, MESSAGE, type_id
from mailyard.protocol.meaning.letter import read_letter
from mailyard.queue.batch import Batch
from mailyard.queue.engine import Engine
from mailyard.queue.job import LeasedJob
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load
from mailyard.storage.raw_mail import IN_ROWS, RawMail

_SQL = load("analysis")
_RECEIVING = load("receiving")
_LOG = structlog.get_logger(__name__)

_PATIENT_ATTEMPTS = 5  # then the rules answer
_DELAY_S_MAX = 900.0


class Analysis(Struct, frozen=True):
    """What was asked of a message, and what came of it; `outcome` None while it is queued."""

    task: bytes
    ask: Ask
    state: str
    outcome: Outcome | None
    asked_at: datetime
    done_at: datetime | None


class Analyses:
    """The analyses of all workspaces' mail."""

    def __init__(
        self,
        *,
        database: Database,
        engine: Engine,
        live: LiveEvents,
        book: ModelBook,
        analyst: Analyst,
        raw_mail: RawMail = IN_ROWS,
    ) -> None:
        self._database = database
        self._raw_mail = raw_mail
        self._engine = engine
        self._live = live
        self._book = book
        self._analyst = analyst

    async def request(
        self, workspace_id: UUID, message_id: UUID, ask: Ask, tx: Connection
    ) -> Analysis:
        """Ask something of a message that the caller has looked may be seen.

        Where no model has to be asked the answer is there at once; else it is queued. What is done
        or queued already is given as it is. The caller calls `announced` after its commit. Raises
        NotFound.
        """
        for one in await self.list(workspace_id, message_id):
            if one.task == ask.task and (one.state == "queued" or _is_whole(one)):
                return one
        if not await self._book.any_enabled(workspace_id):
            made = await self._make(workspace_id, message_id, ask, final=True)
            return await self._write(workspace_id, message_id, ask, *made, tx)
        await self._database.fetch(_RECEIVING.hold_classes, [workspace_id], tx=tx)
        row = await self._database.fetchrow(
            _SQL.ask, workspace_id, message_id, ask.task, _text(ask), tx=tx
        )
        if row is None:
            raise NotFound("no such message")
        await self._engine.enqueue(jobs_of(workspace_id, [message_id], ask, 1), tx)
        return _analysis(row)

    def announced(self) -> None:
        """Wake those who follow events, after the commit of a `request`."""
        self._live.announced()

    async def list(self, workspace_id: UUID, message_id: UUID) -> list[Analysis]:
        """What was asked of a message, newest first."""
        rows = await self._database.fetch(_SQL.list_analyses, workspace_id, message_id)
        return [_analysis(row) for row in rows]

    async def handle(self, batch: Batch) -> None:
        """Analyse the messages of each job. Raises nothing that a model does."""
        for job in batch.jobs:
            if batch.stopping.is_set():
                await batch.release([job])
                continue
            await self._do(batch, job)

    async def _do(self, batch: Batch, job: LeasedJob) -> None:
        workspace_id = job.workspace_id
        try:
            payload = msgspec.json.decode(job.payload, type=Payload)
        except msgspec.DecodeError as error:
            await batch.bury([job], f"the payload is not what analysis writes: {error}")
            return
        assert workspace_id is not None
        ask = Ask(payload.aspects, payload.fields)
        done = await self._done(workspace_id, payload.message_ids, ask)
        left = [one for one in payload.message_ids if one not in done]
        final = job.attempt >= _PATIENT_ATTEMPTS
        results = await asyncio.gather(
            *(self._analyse(workspace_id, one, ask, final=final) for one in left),
            return_exceptions=True,
        )
        waiting = [one for one in results if isinstance(one, Later)]
        for one in results:
            if isinstance(one, BaseException) and not isinstance(one, (Later, NotFound)):
                raise one
        if waiting:
            # A server's "later" is longer with each try, and never so long that a mail is old.
            delay_s = min(max(one.delay_s for one in waiting), _DELAY_S_MAX) * (1 + job.attempt / 2)
            await batch.retry([job], delay_s, waiting[0].why)

    async def _done(self, workspace_id: UUID, message_ids: Sequence[UUID], ask: Ask) -> set[UUID]:
        rows = await self._database.fetch(
            _SQL.done_of,
            workspace_id,
            list(message_ids),
            ask.task,
            min(message_ids),
            max(message_ids),
        )
        return {row["message_id"] for row in rows}

    async def _analyse(
        self, workspace_id: UUID, message_id: UUID, ask: Ask, *, final: bool
    ) -> Analysis:
        """Raises NotFound for a message that has gone, Later."""
        made = await self._make(workspace_id, message_id, ask, final=final)
        async with self._database.transaction() as tx:
            written = await self._write(workspace_id, message_id, ask, *made, tx)
        self._live.announced()
        return written

    async def _make(
        self, workspace_id: UUID, message_id: UUID, ask: Ask, *, final: bool
    ) -> tuple[Answered, Sequence[UUID]]:
        """The answer, and the inboxes that hold the message. Raises NotFound, Later."""
        row = await self._database.fetchrow(_SQL.load, workspace_id, message_id)
        if row is None:
            raise NotFound("no such message")
        raw = await self._raw_mail.of(row)
        findings = await found_in(raw)
        letter = read_letter(raw)
        answered = await self._analyst.answer(workspace_id, letter, findings, ask, final=final)
        return answered, row["inbox_ids"]

    async def _write(
        self,
        workspace_id: UUID,
        message_id: UUID,
        ask: Ask,
        answered: Answered,
        inbox_ids: Sequence[UUID],
        tx: Connection,
    ) -> Analysis:
        outcome = answered.outcome
        await self._database.fetch(_RECEIVING.hold_classes, [workspace_id], tx=tx)
        row = await self._database.fetchrow(
            _SQL.answer,
            workspace_id,
            message_id,
            ask.task,
            _text(ask),
            _text(outcome),
            answered.key,
            tx=tx,
        )
        if row is None:
            raise NotFound("no such message")
        await self._analyst.keep(workspace_id, answered, tx)
        await self._tell(workspace_id, message_id, inbox_ids, row, outcome, tx)
        return _analysis(row)

    async def _tell(
        self,
        workspace_id: UUID,
        message_id: UUID,
        inbox_ids: Sequence[UUID],
        row: asyncpg.Record,
        outcome: Outcome,
        tx: Connection,
    ) -> None:
        item: dict[str, Any] = {
            "message_id": type_id(MESSAGE, message_id),
            "inbox_ids": [type_id(INBOX, one) for one in inbox_ids],
            "task": row["task"].hex(),
            "model": outcome.model,
        }
        for aspect in ("category", "urgency"):
            if aspect in outcome.answer:
                item[aspect] = outcome.answer[aspect]["value"]
        await self._live.publish_runs([(workspace_id, ANALYSIS_DONE, [item])], tx)


def _is_whole(one: Analysis) -> bool:
    """Whether asking again would give the same: a model answered, or none was to be asked."""
    return one.outcome is not None and not one.outcome.notes


def _analysis(row: asyncpg.Record) -> Analysis:
    outcome = row["outcome"]
    return Analysis(
        row["task"],
        msgspec.json.decode(row["ask"], type=Ask),
        row["state"],
        msgspec.json.decode(outcome, type=Outcome) if outcome else None,
        row["asked_at"],
        row["done_at"],
    )


def _text(value: Struct) -> str:
    return msgspec.json.encode(value).decode()
