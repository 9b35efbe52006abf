"""What receivers report of mail in our domains' names: a list, and a chart a domain."""

from datetime import UTC, datetime
from typing import Any

from litestar import Response, get
from litestar.params import FromPath

from mailyard.access import scope
from mailyard.core.limits import API_PAGE_ITEMS
from mailyard.web.ui.frame import Visit

DAYS = 30


@get("/reports")
async def reports(visit: Visit) -> Response[str]:
    visit.principal.require(scope.DOMAINS_READ)
    application, workspace_id = visit.application, visit.principal.workspace_id
    tls, _ = await application.reports.tls_reports(
        workspace_id, "", before=None, limit=API_PAGE_ITEMS
    )
    return visit.page(
        "reports.html",
        days=DAYS,
        domains=await application.reports.domains(workspace_id, DAYS),
        tls=tls,
    )


@get("/reports/{domain:str}")
async def domain_report(visit: Visit, domain: FromPath[str]) -> Response[str]:
    visit.principal.require(scope.DOMAINS_READ)
    application, workspace_id = visit.application, visit.principal.workspace_id
    found, _ = await application.reports.dmarc_reports(
        workspace_id, domain.lower(), before=None, limit=API_PAGE_ITEMS
    )
    return visit.page(
        "report.html",
        days=DAYS,
        domain=domain.lower(),
        sources=await application.reports.sources(workspace_id, domain.lower(), DAYS),
        reports=found,
    )


@get("/reports/{domain:str}/days.json")
async def days(visit: Visit, domain: FromPath[str]) -> dict[str, list[Any]]:
    """The chart's columns: seconds since 1970, what passed, what failed."""
    visit.principal.require(scope.DOMAINS_READ)
    found = await visit.application.reports.days(visit.principal.workspace_id, domain.lower(), DAYS)
    return {
        "at": [
            int(datetime(one.day.year, one.day.month, one.day.day, tzinfo=UTC).timestamp())
            for one in found
        ],
        "passed": [one.passed for one in found],
        "failed": [one.messages - one.passed for one in found],
    }


HANDLERS = [reports, domain_report, days]
