"""TLS reports of our own deliveries (RFC 8460): each day's, to the domains that ask for them.

An hourly job looks at what was counted yesterday, domain by domain, at an hour of each domain's own
(section 4.1 wants reports spread over four hours). What went out, what a domain does not want and
what failed is written down by day and domain, so that nothing is sent twice; what failed is tried
again with the next hours, FAILURES_MAX times.
"""

import gzip
from base64 import encodebytes
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from email.utils import format_datetime
from hashlib import sha256
from urllib.parse import unquote
from uuid import UUID
from zlib import crc32

import structlog

from mailyard.core.clock import Clock
from mailyard.core.errors import InvalidInput, MailyardError
from mailyard.net.dns import Resolver
from mailyard.net.http import HttpClient
from mailyard.protocol.address import normalise
from mailyard.protocol.dns_answer import Answer, TemporaryFailure
from mailyard.protocol.tls_report import (
    Failure,
    PolicyResult,
    TlsReport,
    addresses,
    record_name,
    write_report,
)
from mailyard.queue.batch import Batch, Handler
from mailyard.queue.job import CLEANUP
from mailyard.sending.accept import Emails
from mailyard.sending.answer import Idempotency
from mailyard.sending.content import WholeMail
from mailyard.sending.request import Prepared
from mailyard.sending.tls_count import REPORT_TLS, TlsCounter, TlsResult
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_SQL = load("tls")
_LOG = structlog.get_logger(__name__)

SPREAD_H = 4
FAILURES_MAX = 5
DOMAINS_PER_RUN = 500
_HTTPS_S = 30.0
_SUCCESS = "success"
_TYPE = "tls-report"
SENT, UNWANTED, FAILED = "sent", "unwanted", "failed"


class TlsReporter:
    """Sends the reports. `sender` is the address that they come from: of a domain that a workspace
    sends from, for a report must be signed (section 3)."""

    def __init__(
        self,
        *,
        database: Database,
        counter: TlsCounter,
        emails: Emails,
        dns: Resolver,
        http: HttpClient,
        clock: Clock,
        sender: str,
        hostname: str,
    ) -> None:
        self._database = database
        self._counter = counter
        self._emails = emails
        self._dns = dns
        self._http = http
        self._clock = clock
        self._sender = sender
        self._hostname = hostname

    def handler(self) -> Handler:
        """What a worker needs to run this."""
        return Handler(
            kind=REPORT_TLS, queue=CLEANUP, handle=self.handle, batch_size=1, concurrency=1
        )

    async def handle(self, batch: Batch) -> None:
        """Report yesterday to the domains whose hour has come."""
        now = self._clock.now()
        day = (now - timedelta(days=1)).date()
        rows = await self._database.fetch(_SQL.unreported, day, FAILURES_MAX, DOMAINS_PER_RUN)
        for row in rows:
            if batch.stopping.is_set():
                return
            if now.hour >= due_hour(row["domain"]):
                await self._report(day, row["domain"])

    async def _report(self, day: date, domain: str) -> None:
        outcome, detail = await self._sent(day, domain)
        if outcome == FAILED:
            _LOG.info("tls_report_failed", domain=domain, day=str(day), reason=detail)
        await self._database.execute(_SQL.note_report, day, domain, outcome, detail[:500])

    async def _sent(self, day: date, domain: str) -> tuple[str, str]:
        """(outcome, in words) of one domain's report. All addresses that it names get it; one that
        takes it is enough."""
        found = await self._dns.txt(record_name(domain))
        if isinstance(found, TemporaryFailure):
            return FAILED, found.trouble.value
        wanted = addresses(found.records) if isinstance(found, Answer) else ()
        if not wanted:
            return UNWANTED, "the domain publishes no address for reports"
        results = await self._counter.of_domain(day, domain)
        report = report_of(day, domain, results, organisation=self._hostname, contact=self._sender)
        packed = gzip.compress(write_report(report), mtime=0)
        problems = []
        taken = []
        for address in wanted:
            try:
                await self._deliver(address, report, domain, packed)
                taken.append(address)
            except MailyardError as error:
                problems.append(f"{address}: {error.message}")
        if taken:
            return SENT, ", ".join(taken)
        return FAILED, "; ".join(problems)

    async def _deliver(self, address: str, report: TlsReport, domain: str, packed: bytes) -> None:
        """Raises MailyardError."""
        if address.lower().startswith("mailto:"):
            await self._mail(unquote(address[7:].partition("?")[0]), report, domain, packed)
            return
        answer = await self._http.request(
            "POST",
            address,
            headers={"content-type": "application/tlsrpt+gzip"},
            body=packed,
            total_s=_HTTPS_S,
        )
        if not 200 <= answer.status < 300:
            raise InvalidInput(f"the server answered {answer.status}")

    async def _mail(self, to: str, report: TlsReport, domain: str, packed: bytes) -> None:
        recipient = normalise(to)
        workspace_id: UUID | None = await self._database.fetchval(
            _SQL.workspace_of_sender, self._sender.rpartition("@")[2].lower()
        )
        if workspace_id is None:
            raise InvalidInput("no workspace sends from the domain of MAILYARD_TLS_REPORTS_FROM")
        mail = mail_of(report, domain, self._sender, recipient, packed, self._clock.now())
        prepared = Prepared(
            content=WholeMail(
                sender=self._sender,
                sender_address=self._sender,
                reverse_path=self._sender,
                subject=subject_of(report, domain, self._sender),
                smtp_utf8=False,
                missing=(),
                mail=mail,
            ),
            sender_address=self._sender,
            recipients=(recipient,),
            keys=(recipient,),
            type=_TYPE,
            send_at=None,
            expires_at=self._clock.now() + timedelta(days=1),
        )
        key = f"tls-report {report.report_id} {recipient}"[:200]
        once = Idempotency(key, sha256(key.encode()).digest())
        await self._emails.accept_prepared(workspace_id, prepared, once)


def due_hour(domain: str) -> int:
    """At which hour of the next day (UTC) a domain is reported to."""
    return crc32(domain.encode()) % SPREAD_H


def report_of(
    day: date, domain: str, results: Sequence[TlsResult], *, organisation: str, contact: str
) -> TlsReport:
    """The report of `day` from what was counted. The text of policies is not kept, and so is not
    in it."""
    by_policy: dict[str, list[TlsResult]] = defaultdict(list)
    for one in results:
        by_policy[one.policy_type].append(one)
    policies = [
        PolicyResult(
            kind,
            domain,
            sum(one.sessions for one in these if one.result == _SUCCESS),
            sum(one.sessions for one in these if one.result != _SUCCESS),
            tuple(
                Failure(one.result, one.sessions, host=one.host)
                for one in these
                if one.result != _SUCCESS
            ),
            hosts=tuple(dict.fromkeys(one.host for one in these if one.host)),
        )
        for kind, these in sorted(by_policy.items())
    ]
    return TlsReport(
        organisation,
        contact,
        f"{day}+{domain}@{organisation}",
        datetime.combine(day, time.min, UTC),
        datetime.combine(day, time(23, 59, 59), UTC),
        tuple(policies),
    )


def subject_of(report: TlsReport, domain: str, sender: str) -> str:
    """Section 5.3."""
    submitter = sender.rpartition("@")[2]
    return f"Report Domain: {domain} Submitter: {submitter} Report-ID: <{report.report_id}>"


def mail_of(
    report: TlsReport, domain: str, sender: str, recipient: str, packed: bytes, now: datetime
) -> bytes:
    """The whole mail that brings a report (section 5.3)."""
    submitter = sender.rpartition("@")[2]
    begins, ends = (int(one.timestamp()) for one in (report.begins_at, report.ends_at))
    name = f"{submitter}!{domain}!{begins}!{ends}.json.gz"
    boundary = f"=_tlsrpt_{sha256(packed).hexdigest()[:24]}"
    lines = [
        f"From: {sender}",
        f"To: {recipient}",
        f"Date: {format_datetime(now)}",
        f"Message-ID: <{report.report_id.replace('@', '.')}@{submitter}>",
        f"Subject: Report Domain: {domain}",
        f" Submitter: {submitter}",
        f" Report-ID: <{report.report_id}>",
        f"TLS-Report-Domain: {domain}",
        f"TLS-Report-Submitter: {submitter}",
        "MIME-Version: 1.0",
        "Auto-Submitted: auto-generated",
        f'Content-Type: multipart/report; report-type=tlsrpt; boundary="{boundary}"',
        "",
        f"--{boundary}",
        "Content-Type: text/plain; charset=utf-8",
        "",
        f"This is an aggregate TLS report of {submitter} on {domain}.",
        "",
        f"--{boundary}",
        "Content-Type: application/tlsrpt+gzip",
        "Content-Transfer-Encoding: base64",
        f'Content-Disposition: attachment; filename="{name}"',
        "",
        encodebytes(packed).decode("ascii").replace("\n", "\r\n").removesuffix("\r\n"),
        f"--{boundary}--",
        "",
    ]
    return "\r\n".join(lines).encode()
