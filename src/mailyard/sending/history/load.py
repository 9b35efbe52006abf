"""A table of sent mail streamed into the partitions of `delivery`, so that it can break off.

A thread reads and turns rows into deliveries; writers copy them, a run in a transaction each. Where
the import stands is written behind the runs, contiguously: after a kill at most the runs under way
are read again, and their rows, whose ids follow from what they say, stand already. A run of which
some rows do so is inserted by way of a temporary table, for COPY itself cannot pass over rows.
"""

import asyncio
import csv
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from mailyard.core.errors import Conflict
from mailyard.sending.history.rows import (
    DELIVERY_COLUMNS,
    EVENT_COLUMNS,
    Past,
    Refused,
)
from mailyard.sending.history.tables import Broken, Rows, Table
from mailyard.storage.database import Connection, Database
from mailyard.storage.partitions import ensure_month
from mailyard.storage.queries import load

_SQL = load("history")
RUN_ROWS = 10_000  # a transaction
WRITERS = 2
_AHEAD = 3  # runs that are read and not written yet
_FAST_AGAIN = 20  # runs without a row that stood already
_DAY_MS = 86_400_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Stand:
    """How far an import is. `rows` of the file are done with; the last stands in `line`."""

    rows: int = 0
    line: int = 0
    imported: int = 0
    already_there: int = 0
    refused: int = 0
    finished: bool = False


@dataclass(slots=True)
class _Run:
    """Rows that are written together."""

    number: int
    rows: int
    line: int
    deliveries: list[tuple[Any, ...]] = field(default_factory=list)
    events: list[tuple[Any, ...]] = field(default_factory=list)
    refused: list[tuple[int, str, Sequence[Any]]] = field(default_factory=list)
    already_there: int = 0


class Rejects:
    """The file of refused rows: the line, the reason, and the row, which can be mended.

    What an import that broke off wrote about rows that it reads again is taken out first.
    """

    def __init__(self, file: Path | None, names: Sequence[str]) -> None:
        self._file = file
        self._header = ["line", "reason", *names]

    def begin(self, line: int) -> None:
        """Keep what is told up to `line`; nothing at 0."""
        if self._file is None:
            return
        kept: list[list[str]] = []
        if line and self._file.exists():
            with self._file.open(newline="", encoding="utf-8", errors="surrogateescape") as old:
                rows = csv.reader(old)
                next(rows, None)
                kept = [row for row in rows if row and row[0].isdigit() and int(row[0]) <= line]
        self._write("w", [self._header, *kept])

    def add(self, refused: Sequence[tuple[int, str, Sequence[Any]]]) -> None:
        """Tell of rows, in the order of the file."""
        if self._file is not None and refused:
            self._write("a", [[line, reason, *row] for line, reason, row in refused])

    def _write(self, mode: str, rows: Sequence[Sequence[Any]]) -> None:
        assert self._file is not None
        with self._file.open(mode, newline="", encoding="utf-8", errors="surrogateescape") as file:
            csv.writer(file).writerows(rows)


class HistoryImport:
    """One file on its way in. `read` turns a row into a delivery and raises Refused."""

    def __init__(
        self,
        *,
        database: Database,
        workspace_id: UUID,
        source: str,
        fingerprint: bytes,
        table: Table,
        read: Callable[[Sequence[Any]], Past],
        rejects: Rejects,
        run_rows: int = RUN_ROWS,
    ) -> None:
        self._database = database
        self._key = (workspace_id, source, fingerprint)
        self._table = table
        self._read = read
        self._rejects = rejects
        self._run_rows = run_rows
        self._months: set[datetime] = set()
        self._months_lock = asyncio.Lock()
        self._fresh_runs = _FAST_AGAIN  # since one stood already
        self._reading_failed: Exception | None = None
        self._advancing = asyncio.Lock()
        self._done: dict[int, _Run] = {}
        self._next = 0
        self._stand = Stand()
        self._told: Callable[[Stand], None] = lambda _: None

    async def stand(self) -> Stand:
        """Where it stands; it begins if it is new."""
        row = await self._database.fetchrow(_SQL.begin, *self._key)
        assert row is not None
        rows, line, imported, already_there, refused, finished_at = row
        return Stand(rows, line, imported, already_there, refused, finished_at is not None)

    async def run(
        self, *, again: bool = False, told: Callable[[Stand], None] = lambda _: None
    ) -> Stand:
        """Import what is left of the file, or `again` all of it. Raises Conflict when somebody else
        imports it at this moment, Unavailable; what is written stays, and it goes on there."""
        self._stand = await self.stand()
        if again:
            await self._database.execute(_SQL.restart, *self._key)
            self._stand = Stand()
        if self._stand.finished:
            return self._stand
        self._told = told
        self._rejects.begin(self._stand.line)
        runs: asyncio.Queue[_Run | None] = asyncio.Queue(_AHEAD)
        stopping = threading.Event()
        reading = asyncio.create_task(self._fill(runs, stopping))
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(WRITERS):
                    tasks.create_task(self._drain(runs))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            stopping.set()
            while not runs.empty():
                runs.get_nowait()
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading
        await self._database.execute(_SQL.finish, *self._key)
        self._stand = replace(self._stand, finished=True)
        return self._stand

    # -- reading, in a thread -------------------------------------------------------------------

    async def _fill(self, runs: "asyncio.Queue[_Run | None]", stopping: threading.Event) -> None:
        turned = self._turned(stopping)
        error: Exception | None = None
        try:
            while (run := await asyncio.to_thread(next, turned, None)) is not None:
                await runs.put(run)
        except Exception as raised:  # told to who waits for the runs
            error = raised
        for _ in range(WRITERS):
            await runs.put(None)
        if error is not None:
            self._reading_failed = error

    def _turned(self, stopping: threading.Event) -> Iterator[_Run]:
        rows = self._stand.rows
        for number, some in enumerate(self._table.runs(rows, self._run_rows)):
            if stopping.is_set():
                return
            rows += len(some)
            yield self._turn(some, number, rows)

    def _turn(self, some: Rows, number: int, rows: int) -> _Run:
        run = _Run(number, rows, some[-1][0] if some else self._stand.line)
        read = self._read
        deliveries, events = run.deliveries, run.events
        for line, row in some:
            if isinstance(row, Broken):
                run.refused.append((line, row.reason, ()))
                continue
            try:
                delivery, own_events = read(row)
            except Refused as error:
                run.refused.append((line, str(error), row))
                continue
            deliveries.append(delivery)
            if own_events:
                events += own_events
        return run

    # -- writing --------------------------------------------------------------------------------

    async def _drain(self, runs: "asyncio.Queue[_Run | None]") -> None:
        while (run := await runs.get()) is not None:
            await self._write(run)
            self._done[run.number] = run
            async with self._advancing:
                await self._advance()
        if self._reading_failed is not None:
            raise self._reading_failed

    async def _write(self, run: _Run) -> None:
        if not run.deliveries:
            return
        await self._ensure_months(run.deliveries)
        if self._fresh_runs >= _FAST_AGAIN:
            try:
                async with self._database.transaction() as tx:
                    await _copy(tx, "delivery", "delivery_event", run)
                return
            except asyncpg.UniqueViolationError:
                self._fresh_runs = 0
        async with self._database.transaction() as tx:
            await self._database.execute(_SQL.stage, tx=tx)
            if run.events:
                await self._database.execute(_SQL.stage_events, tx=tx)
            await _copy(tx, "history_staged", "history_staged_event", run)
            inserted = await self._database.execute(_SQL.insert_staged, tx=tx)
            if run.events:
                await self._database.execute(_SQL.insert_staged_events, tx=tx)
        run.already_there = len(run.deliveries) - int(inserted.rpartition(" ")[2])
        self._fresh_runs = 0 if run.already_there else self._fresh_runs + 1

    async def _ensure_months(self, deliveries: Sequence[tuple[Any, ...]]) -> None:
        days = {(delivery[0].int >> 80) // _DAY_MS for delivery in deliveries}
        months = {(_EPOCH + timedelta(days=day)).replace(day=1) for day in days}
        async with self._months_lock:
            for month in sorted(months - self._months):
                for table in ("delivery", "delivery_event"):
                    await ensure_month(self._database, table, month)
                self._months.add(month)

    async def _advance(self) -> None:
        """Note the runs that are done one behind the other, the refused of each before."""
        while (run := self._done.pop(self._next, None)) is not None:
            self._next += 1
            before, refused = self._stand, len(run.refused)
            imported = len(run.deliveries) - run.already_there
            self._stand = Stand(
                run.rows,
                run.line,
                before.imported + imported,
                before.already_there + run.already_there,
                before.refused + refused,
            )
            self._rejects.add(run.refused)
            counts = (imported, run.already_there, refused)
            moved = await self._database.fetchval(
                _SQL.advance, *self._key, before.rows, run.rows, run.line, *counts
            )
            if moved is None:
                raise Conflict("somebody else imports this file at this moment")
            self._told(self._stand)


async def _copy(tx: Connection, deliveries: str, events: str, run: _Run) -> None:
    await tx.copy_records_to_table(deliveries, records=run.deliveries, columns=DELIVERY_COLUMNS)
    if run.events:
        await tx.copy_records_to_table(events, records=run.events, columns=EVENT_COLUMNS)
