"""What receivers report of mail in our domains' names (DMARC, TLS), read as it arrives.

A report is a mail like any other in an inbox; a follower of ingest sees by its line that it may be
one, and a job reads it. A report counts once, however often it is sent, and not at all when the
checks of its own mail call its author forged.
"""

import asyncio
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TypeVar
from uuid import UUID

import msgspec
import structlog

from mailyard.cache.kind import REPORT
from mailyard.cache.layered import LayeredCache
from mailyard.core import ids
from mailyard.core.clock import Clock
from mailyard.protocol.authentication import Standing
from mailyard.protocol.dmarc.report import AggregateReport
from mailyard.protocol.mime.message import parse
from mailyard.protocol.report_files import Found, find_reports
from mailyard.protocol.tls_report import TlsReport
from mailyard.queue.batch import Batch, Handler
from mailyard.queue.engine import Engine
from mailyard.queue.job import MEDIA, LeasedJob, NewJob
from mailyard.receiving.ingest import Arrival
from mailyard.receiving.verdict import QUERIES as VERDICT
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import Query, load
from mailyard.storage.raw_mail import IN_ROWS, RawMail

QUERIES = load("reports")
READ_REPORTS = "read-reports"
KEPT_DAYS = 400
SOURCES = 100

_LOG = structlog.get_logger(__name__)
_SUBJECT = re.compile(r"report domain|dmarc|tls[ -]?rpt|tls report", re.IGNORECASE)
_NEWEST = UUID(int=(1 << 128) - 1)
_PAYLOAD = msgspec.json.Decoder(list[UUID])
_TEXT_CHARACTERS = 300


class DomainFigure(msgspec.Struct, frozen=True):
    """What was reported of a domain."""

    domain: str
    messages: int
    passed: int
    reports: int
    last_day: date


class DayFigure(msgspec.Struct, frozen=True):
    """What was reported of a domain's mail of one day; days are UTC."""

    day: date
    messages: int
    passed: int
    quarantined: int
    rejected: int


class SourceFigure(msgspec.Struct, frozen=True):
    """Mail in a domain's name from one address."""

    source: str
    messages: int
    dkim: int
    spf: int
    failed: int


class DmarcReport(msgspec.Struct, frozen=True):
    """A report that arrived. `policy`: the domain's record as the receiver saw it."""

    id: UUID
    domain: str
    organisation: str
    email: str
    report_id: str
    begins_at: datetime
    ends_at: datetime
    policy: dict[str, str]
    messages: int
    passed: int
    skipped: int
    standing: str


class TlsFailure(msgspec.Struct, frozen=True):
    result: str
    host: str
    sessions: int


class TlsReportIn(msgspec.Struct, frozen=True):
    """A TLS report that arrived, of one domain."""

    id: UUID
    domain: str
    organisation: str
    report_id: str
    begins_at: datetime
    ends_at: datetime
    succeeded: int
    failed: int
    failures: list[TlsFailure]
    standing: str


_FAILURES = msgspec.json.Decoder(list[TlsFailure])
_POLICY = msgspec.json.Decoder(dict[str, str])
TAG = "reports"  # of cached sums

Figure = TypeVar("Figure", bound=msgspec.Struct)


class Reports:
    """Of all workspaces. What is summed over many reports is cached until another comes."""

    def __init__(
        self, *, database: Database, clock: Clock, cache: LayeredCache | None = None
    ) -> None:
        self._database = database
        self._clock = clock
        self._cache = cache

    async def add(
        self,
        workspace_id: UUID,
        found: Found,
        standing: Standing,
        inbox_ids: Sequence[UUID],
        tx: Connection,
    ) -> int:
        """Keep the reports of a mail that came to `inbox_ids`; how many were new."""
        added = 0
        for report in found.aggregates:
            added += await self._add_dmarc(workspace_id, report, standing, inbox_ids, tx)
        for tls in found.tls:
            for domain in tls.domains:
                added += await self._add_tls(workspace_id, tls, domain, standing, inbox_ids, tx)
        if added and self._cache is not None:
            await self._cache.change(workspace_id, [TAG], tx)
        return added

    async def domains(self, workspace_id: UUID, days: int) -> list[DomainFigure]:
        asked = (self._since(days),)
        return await self._summed(DomainFigure, QUERIES.dmarc_domains, workspace_id, asked)

    async def days(self, workspace_id: UUID, domain: str, days: int) -> list[DayFigure]:
        """Of each day since `days` ago that was reported of."""
        asked = (domain, self._since(days))
        return await self._summed(DayFigure, QUERIES.dmarc_days, workspace_id, asked)

    async def sources(self, workspace_id: UUID, domain: str, days: int) -> list[SourceFigure]:
        """SOURCES at most, those of which the most failed first."""
        asked = (domain, self._since(days), SOURCES)
        return await self._summed(SourceFigure, QUERIES.dmarc_sources, workspace_id, asked)

    async def dmarc_reports(
        self, workspace_id: UUID, domain: str, *, before: UUID | None, limit: int
    ) -> tuple[list[DmarcReport], UUID | None]:
        """(reports, the `before` of the next page), newest first."""
        rows = await self._database.fetch(
            QUERIES.dmarc_reports, workspace_id, domain, before or _NEWEST, limit + 1
        )
        found = [
            DmarcReport(**{**dict(row), "policy": _POLICY.decode(row["policy"])})
            for row in rows[:limit]
        ]
        return found, found[-1].id if len(rows) > limit else None

    async def tls_reports(
        self, workspace_id: UUID, domain: str, *, before: UUID | None, limit: int
    ) -> tuple[list[TlsReportIn], UUID | None]:
        """(reports, the `before` of the next page), newest first."""
        rows = await self._database.fetch(
            QUERIES.tls_reports, workspace_id, domain, before or _NEWEST, limit + 1
        )
        found = [
            TlsReportIn(**{**dict(row), "failures": _FAILURES.decode(row["failures"])})
            for row in rows[:limit]
        ]
        return found, found[-1].id if len(rows) > limit else None

    async def sweep(self) -> None:
        """Delete what is older than KEPT_DAYS."""
        oldest = self._clock.now() - timedelta(days=KEPT_DAYS)
        await self._database.execute(QUERIES.sweep_dmarc, oldest)
        await self._database.execute(QUERIES.sweep_tls, oldest)

    def _since(self, days: int) -> date:
        return (self._clock.now() - timedelta(days=days)).date()

    async def _summed(
        self,
        figure: type[Figure],
        query: Query,
        workspace_id: UUID,
        asked: tuple[object, ...],
    ) -> list[Figure]:
        async def read() -> list[Figure]:
            rows = await self._database.fetch(query, workspace_id, *asked)
            return [figure(*row) for row in rows]

        if self._cache is None:
            return await read()
        key = f"{figure.__name__}:{msgspec.json.encode(asked).decode()}"
        return await self._cache.get_or_make(
            REPORT,
            workspace_id,
            key,
            read,
            [TAG],
            shape=list[figure],  # type: ignore[valid-type]
        )

    async def _add_dmarc(
        self,
        workspace_id: UUID,
        report: AggregateReport,
        standing: Standing,
        inbox_ids: Sequence[UUID],
        tx: Connection,
    ) -> bool:
        begins_at = datetime.fromtimestamp(report.begins_at_s, UTC)
        # Some reporters' days end at their own midnight: what counts is the middle.
        middle = datetime.fromtimestamp((report.begins_at_s + report.ends_at_s) // 2, UTC)
        added = await self._database.fetchval(
            QUERIES.add_dmarc,
            ids.uuid7(),
            workspace_id,
            report.domain[:_TEXT_CHARACTERS],
            report.organisation[:_TEXT_CHARACTERS],
            report.email[:_TEXT_CHARACTERS],
            report.report_id[:_TEXT_CHARACTERS],
            begins_at,
            datetime.fromtimestamp(report.ends_at_s, UTC),
            msgspec.json.encode(report.policy).decode(),
            report.messages,
            report.passed,
            report.skipped,
            str(standing),
            inbox_ids,
            tx=tx,
        )
        if added is None:
            return False
        rows = report.rows
        await self._database.execute(
            QUERIES.add_dmarc_rows,
            added,
            workspace_id,
            report.domain[:_TEXT_CHARACTERS],
            middle.date(),
            [row.source for row in rows],
            [row.count for row in rows],
            [row.disposition for row in rows],
            [row.dkim for row in rows],
            [row.spf for row in rows],
            [row.header_from[:_TEXT_CHARACTERS] for row in rows],
            [row.envelope_from[:_TEXT_CHARACTERS] for row in rows],
            tx=tx,
        )
        return True

    async def _add_tls(
        self,
        workspace_id: UUID,
        report: TlsReport,
        domain: str,
        standing: Standing,
        inbox_ids: Sequence[UUID],
        tx: Connection,
    ) -> bool:
        policies = [one for one in report.policies if one.domain == domain]
        failures = [
            TlsFailure(failure.result, failure.host, failure.sessions)
            for one in policies
            for failure in one.failures
        ]
        added = await self._database.fetchval(
            QUERIES.add_tls,
            ids.uuid7(),
            workspace_id,
            domain[:_TEXT_CHARACTERS],
            report.organisation[:_TEXT_CHARACTERS],
            report.report_id[:_TEXT_CHARACTERS],
            report.begins_at,
            report.ends_at,
            sum(one.succeeded for one in policies),
            sum(one.failed for one in policies),
            msgspec.json.encode(failures[:500]).decode(),
            str(standing),
            inbox_ids,
            tx=tx,
        )
        return added is not None


class ReportFollower:
    """`receiving.ingest.Follower` that leaves what may be a report to a job."""

    def __init__(self, *, engine: Engine) -> None:
        self._engine = engine

    async def follow(self, arrivals: Sequence[Arrival], tx: Connection) -> None:
        found: dict[UUID, dict[UUID, None]] = {}
        for one in arrivals:
            if one.summary.attachments and _SUBJECT.search(one.summary.subject):
                found.setdefault(one.workspace_id, {})[one.message_id] = None
        jobs = [
            NewJob(MEDIA, READ_REPORTS, msgspec.json.encode([message_id]), workspace_id)
            for workspace_id, message_ids in found.items()
            for message_id in message_ids
        ]
        if jobs:
            await self._engine.enqueue(jobs, tx)


class ReadReports:
    """Handles `read-reports` jobs."""

    def __init__(
        self, *, database: Database, reports: Reports, raw_mail: RawMail = IN_ROWS
    ) -> None:
        self._database = database
        self._reports = reports
        self._raw_mail = raw_mail

    def handler(self) -> Handler:
        """What a worker needs to run this. One at a time: a large report is seconds of work."""
        return Handler(
            kind=READ_REPORTS, queue=MEDIA, handle=self.handle, batch_size=1, concurrency=1
        )

    async def handle(self, batch: Batch) -> None:
        for job in batch.jobs:
            try:
                message_ids = _PAYLOAD.decode(job.payload)
            except msgspec.DecodeError as error:
                await batch.bury([job], f"the payload is not what ingest writes: {error}")
                continue
            await self._read(batch, job, message_ids)

    async def _read(self, batch: Batch, job: LeasedJob, message_ids: list[UUID]) -> None:
        workspace_id = job.workspace_id
        if workspace_id is None or not message_ids:
            return
        rows = await self._raw_mail.filled(
            await self._database.fetch(
                VERDICT.load, workspace_id, message_ids, min(message_ids), max(message_ids)
            )
        )
        found = [(row["id"], await asyncio.to_thread(_reports_in, row["raw"])) for row in rows]
        async with self._database.transaction() as tx:
            if not await batch.complete([job], tx=tx):
                return
            for message_id, reports in found:
                places = await self._database.fetchval(
                    QUERIES.hold_mail, workspace_id, message_id, tx=tx
                )
                if places is None:  # it was purged while it was read
                    continue
                row = await self._database.fetchrow(VERDICT.get, workspace_id, message_id, tx=tx)
                standing = Standing(row["standing"]) if row else Standing.UNKNOWN
                if reports.problems:
                    _LOG.info("report_not_read", problems=reports.problems)
                if standing is not Standing.FORGED:
                    await self._reports.add(workspace_id, reports, standing, places, tx)


def _reports_in(raw: bytes) -> Found:
    return find_reports(parse(raw))
