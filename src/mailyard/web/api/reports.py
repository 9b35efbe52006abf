"""What receivers report of mail in our domains' names: DMARC (RFC 9990) and TLS (RFC 8460)."""

from datetime import date
from typing import Annotated

from msgspec import Meta

from mailyard.access import scope
from mailyard.web.api.page import (
    Input,
    Moment,
    NextCursor,
    Output,
    PageQuery,
    read_cursor,
    write_cursor,
)
from mailyard.web.api.route import Call, Route

TAG = "Reports"
DAYS = 30

_Days = Annotated[int, Meta(ge=1, le=400, description="So many days back from now.")]


class ReportedDomain(Output, gc=False):
    """What was reported of a domain."""

    domain: str
    messages: int
    passed: Annotated[int, Meta(description="DKIM or SPF passed in alignment.")]
    reports: int
    last_day: date


class ReportedDomains(Output):
    """The domains that were reported of, those with most mail first."""

    items: list[ReportedDomain]


class ReportedDay(Output, gc=False):
    """Mail of one day (UTC)."""

    day: date
    messages: int
    passed: int
    quarantined: int
    rejected: int


class ReportedSource(Output, gc=False):
    """Mail in the domain's name from one address."""

    source: str
    messages: int
    dkim: int
    spf: int
    failed: int


class DomainReport(Output):
    """A domain as its receivers report it; the sources with most failures first."""

    domain: str
    days: list[ReportedDay]
    sources: list[ReportedSource]


class DmarcReportItem(Output, gc=False):
    """An aggregate report that arrived in an inbox of the workspace."""

    domain: str
    organisation: Annotated[str, Meta(description="Who reports.")]
    email: str
    report_id: str
    begins_at: Moment
    ends_at: Moment
    policy: Annotated[dict[str, str], Meta(description="The record as the receiver saw it.")]
    messages: int
    passed: int
    skipped: Annotated[int, Meta(description="Rows that made no sense.")]
    standing: Annotated[str, Meta(description="Of the report's own mail: see `authentication`.")]


class DmarcReportPage(Output):
    """DMARC reports, newest first."""

    items: list[DmarcReportItem]
    next_cursor: NextCursor


class TlsFailureItem(Output, gc=False):
    """Sessions that failed in one way."""

    result: Annotated[str, Meta(description="RFC 8460 section 4.3.")]
    host: str
    sessions: int


class TlsReportItem(Output, gc=False):
    """A TLS report that arrived in an inbox of the workspace."""

    domain: str
    organisation: str
    report_id: str
    begins_at: Moment
    ends_at: Moment
    succeeded: int
    failed: int
    failures: list[TlsFailureItem]
    standing: str


class TlsReportPage(Output):
    """TLS reports, newest first."""

    items: list[TlsReportItem]
    next_cursor: NextCursor


class DaysQuery(Input):
    """Of which time."""

    days: _Days = DAYS


class ReportsQuery(PageQuery):
    """Which reports."""

    domain: Annotated[str, Meta(max_length=253, description="Of this domain; of all without.")] = ""


async def list_domains(call: Call[None, DaysQuery]) -> ReportedDomains:
    found = await call.app.reports.domains(call.workspace_id, call.query.days)
    return ReportedDomains(
        items=[
            ReportedDomain(
                domain=one.domain,
                messages=one.messages,
                passed=one.passed,
                reports=one.reports,
                last_day=one.last_day,
            )
            for one in found
        ]
    )


async def get_domain(call: Call[None, DaysQuery]) -> DomainReport:
    domain = call.names["domain"].lower()
    days = await call.app.reports.days(call.workspace_id, domain, call.query.days)
    sources = await call.app.reports.sources(call.workspace_id, domain, call.query.days)
    return DomainReport(
        domain=domain,
        days=[
            ReportedDay(
                day=one.day,
                messages=one.messages,
                passed=one.passed,
                quarantined=one.quarantined,
                rejected=one.rejected,
            )
            for one in days
        ],
        sources=[
            ReportedSource(
                source=one.source,
                messages=one.messages,
                dkim=one.dkim,
                spf=one.spf,
                failed=one.failed,
            )
            for one in sources
        ],
    )


async def list_dmarc(call: Call[None, ReportsQuery]) -> DmarcReportPage:
    query = call.query
    found, following = await call.app.reports.dmarc_reports(
        call.workspace_id,
        query.domain.lower(),
        before=read_cursor(query.cursor),
        limit=query.limit,
    )
    items = [
        DmarcReportItem(
            domain=one.domain,
            organisation=one.organisation,
            email=one.email,
            report_id=one.report_id,
            begins_at=one.begins_at,
            ends_at=one.ends_at,
            policy=one.policy,
            messages=one.messages,
            passed=one.passed,
            skipped=one.skipped,
            standing=one.standing,
        )
        for one in found
    ]
    return DmarcReportPage(items=items, next_cursor=write_cursor(following))


async def list_tls(call: Call[None, ReportsQuery]) -> TlsReportPage:
    query = call.query
    found, following = await call.app.reports.tls_reports(
        call.workspace_id,
        query.domain.lower(),
        before=read_cursor(query.cursor),
        limit=query.limit,
    )
    items = [
        TlsReportItem(
            domain=one.domain,
            organisation=one.organisation,
            report_id=one.report_id,
            begins_at=one.begins_at,
            ends_at=one.ends_at,
            succeeded=one.succeeded,
            failed=one.failed,
            failures=[
                TlsFailureItem(result=each.result, host=each.host, sessions=each.sessions)
                for each in one.failures
            ],
            standing=one.standing,
        )
        for one in found
    ]
    return TlsReportPage(items=items, next_cursor=write_cursor(following))


ROUTES = (
    Route(
        "GET",
        "/v1/dmarc",
        list_domains,
        "listReportedDomains",
        TAG,
        "Read how receivers saw the mail of each domain",
        scope.DOMAINS_READ,
        answer=ReportedDomains,
        query=DaysQuery,
    ),
    Route(
        "GET",
        "/v1/dmarc/{domain}",
        get_domain,
        "getReportedDomain",
        TAG,
        "Read a domain's mail by day and by source",
        scope.DOMAINS_READ,
        answer=DomainReport,
        query=DaysQuery,
    ),
    Route(
        "GET",
        "/v1/dmarc-reports",
        list_dmarc,
        "listDmarcReports",
        TAG,
        "List the DMARC reports that arrived",
        scope.DOMAINS_READ,
        answer=DmarcReportPage,
        query=ReportsQuery,
    ),
    Route(
        "GET",
        "/v1/tls-reports",
        list_tls,
        "listTlsReports",
        TAG,
        "List the TLS reports that arrived",
        scope.DOMAINS_READ,
        answer=TlsReportPage,
        query=ReportsQuery,
    ),
)
