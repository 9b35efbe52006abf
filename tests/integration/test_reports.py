"""Reports of receivers: from the mail that brings one to its domain's figures; and our own."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import pytest
from dns_server import ScriptedDns
from mail_platform import MailPlatform, mail_platform
from report_mails import DAY_S, aggregate, carried, row

from mailyard.core.clock import ManualClock, SystemClock
from mailyard.core.ids import uuid7
from mailyard.mailbox.inbox_value import NewInbox
from mailyard.net.dns import Resolver
from mailyard.net.http import HttpAnswer
from mailyard.protocol.mime.message import parse
from mailyard.protocol.report_files import find_reports
from mailyard.queue.batch import Batch
from mailyard.queue.job import MEDIA
from mailyard.queue.settle import Settler
from mailyard.receiving.ingest import Ingest
from mailyard.receiving.reports import KEPT_DAYS, ReadReports, ReportFollower, Reports
from mailyard.sending.tls_count import TlsCounter
from mailyard.sending.tls_report import TlsReporter, due_hour
from mailyard.storage.database import Database


@pytest.fixture
async def platform(database: Database) -> AsyncIterator[MailPlatform]:
    async with mail_platform(database) as platform:
        follower = ReportFollower(engine=platform.engine)
        platform.ingest = Ingest(database=database, live=platform.live, followers=[follower])
        yield platform


@pytest.fixture
def reports(database: Database) -> Reports:
    return Reports(database=database, clock=SystemClock())


async def read_all(platform: MailPlatform, reports: Reports) -> int:
    reader = ReadReports(database=platform.database, reports=reports)
    jobs = list(await platform.engine.lease([MEDIA], 10, 0.0, "test"))
    await reader.handle(Batch(jobs, Settler(platform.engine), asyncio.Event()))
    return len(jobs)


async def test_a_report_that_arrives_is_counted_once_by_day_and_source(
    platform: MailPlatform, reports: Reports
) -> None:
    workspace_id = uuid7()
    await platform.inboxes.create(workspace_id, [NewInbox("reports")])
    begin_s = int(SystemClock().now().timestamp()) // DAY_S * DAY_S - 2 * DAY_S
    rows = row("192.0.2.1", 7, "pass", "fail") + row("198.51.100.9", 3, "fail", "fail", "reject")
    mail = carried(aggregate(begin_s, rows=rows), "peer.test!ours.example!1!2.xml.gz")
    for _ in range(2):
        await platform.deliver("reports@inbox.test", content=mail)
    await platform.deliver("reports@inbox.test")  # another mail with a file
    assert await read_all(platform, reports) == 2
    [domain] = await reports.domains(workspace_id, 30)
    assert (domain.domain, domain.messages, domain.passed) == ("ours.example", 10, 7)
    [day] = await reports.days(workspace_id, "ours.example", 30)
    assert day.day == date.fromtimestamp(begin_s)
    assert (day.messages, day.passed, day.rejected, day.quarantined) == (10, 7, 3, 0)
    sources = await reports.sources(workspace_id, "ours.example", 30)
    assert [(one.source, one.failed) for one in sources] == [("198.51.100.9", 3), ("192.0.2.1", 0)]
    found, following = await reports.dmarc_reports(
        workspace_id, "ours.example", before=None, limit=5
    )
    assert (len(found), following, found[0].policy) == (1, None, {"p": "reject"})
    assert await reports.domains(uuid7(), 30) == []


async def test_old_reports_leave(platform: MailPlatform, reports: Reports) -> None:
    workspace_id = uuid7()
    await platform.inboxes.create(workspace_id, [NewInbox("reports")])
    old_s = int(SystemClock().now().timestamp()) - (KEPT_DAYS + 3) * DAY_S
    mail = carried(aggregate(old_s, rows=row("192.0.2.1", 1, "pass", "pass")), "old.xml.gz")
    await platform.deliver("reports@inbox.test", content=mail)
    assert await read_all(platform, reports) == 1
    assert (await reports.dmarc_reports(workspace_id, "", before=None, limit=5))[0]
    await reports.sweep()
    assert not (await reports.dmarc_reports(workspace_id, "", before=None, limit=5))[0]


@dataclass
class Posted:
    """Where reports are posted, and where they are mailed."""

    posts: list[tuple[str, bytes]] = field(default_factory=list)
    mails: list[tuple[UUID, Any]] = field(default_factory=list)
    status: int = 201

    async def request(self, _method: str, url: str, *, body: bytes, **_more: Any) -> HttpAnswer:
        self.posts.append((url, body))
        return HttpAnswer(self.status, {}, b"")

    async def accept_prepared(self, workspace_id: UUID, prepared: Any, _once: Any) -> None:
        self.mails.append((workspace_id, prepared))


async def test_yesterday_is_reported_once_to_who_asks_for_it(database: Database) -> None:
    clock, posted, ours = ManualClock(), Posted(), uuid7()
    counter = TlsCounter(database=database, clock=clock)
    for domain in ("mail.example", "web.example", "mute.example"):
        for result in ("success", "success", "certificate-expired"):
            counter.note(domain, "sts", f"mx.{domain}", result)
    await counter.flush()
    async with database.connection() as connection:
        await connection.execute("INSERT INTO workspace (id, name) VALUES ($1, 'ours')", ours)
        await connection.execute(
            "INSERT INTO domain (id, workspace_id, name, return_path) VALUES ($1, $2, $3, 'b')",
            uuid7(), ours, "ours.example",
        )  # fmt: skip
    clock.advance(DAY_S * 2 - clock.now().timestamp() % DAY_S - 1)  # the end of the next day
    async with ScriptedDns() as dns:
        dns.add("_smtp._tls.mail.example", "TXT", '"v=TLSRPTv1; rua=mailto:tls@mail.example"')
        dns.add("_smtp._tls.web.example", "TXT", '"v=TLSRPTv1;rua=https://web.example/tls"')
        resolver = Resolver([dns.address], clock)
        reporter = TlsReporter(
            database=database, counter=counter, emails=posted, dns=resolver, http=posted,  # type: ignore[arg-type]
            clock=clock, sender="tls@ours.example", hostname="mx.ours.example",
        )  # fmt: skip
        posted.status = 503
        for _ in range(2):
            await reporter.handle(Batch([], Settler(None), asyncio.Event()))  # type: ignore[arg-type]
        posted.status = 201
        for _ in range(2):
            await reporter.handle(Batch([], Settler(None), asyncio.Event()))  # type: ignore[arg-type]
        await resolver.close()
    assert [url for url, _ in posted.posts] == ["https://web.example/tls"] * 3
    said = json.loads(gzip.decompress(posted.posts[-1][1]))
    [policy] = said["policies"]
    assert policy["summary"] == {
        "total-successful-session-count": 2,
        "total-failure-session-count": 1,
    }
    [(workspace_id, prepared)] = posted.mails
    assert (workspace_id, prepared.recipients) == (ours, ("tls@mail.example",))
    mail = parse(prepared.content.mail)
    assert mail.header("TLS-Report-Domain") == "mail.example"
    [report] = find_reports(mail).tls
    assert (report.domains, report.policies[0].failed) == (("mail.example",), 1)
    assert report.ends_at - report.begins_at == timedelta(days=1, seconds=-1)


def test_domains_are_spread_over_the_first_hours() -> None:
    hours = {due_hour(f"{number}.example") for number in range(100)}
    assert hours == {0, 1, 2, 3}
