"""Tracking: names that links go by, what campaigns say of their sender, what is followed."""

from dataclasses import asdict
from typing import Any

from litestar import Response, get, post
from litestar.params import FromPath

from mailyard.access import scope
from mailyard.core.errors import MailyardError
from mailyard.core.ids import TRACKING_DOMAIN, WORKSPACE, parse_type_id, type_id
from mailyard.sending.imprint import SenderImprint
from mailyard.web.ui.frame import Visit


async def _tracking_page(
    visit: Visit, problem: str | None = None, imprint: SenderImprint | None = None
) -> Response[str]:
    workspace_id, application = visit.principal.workspace_id, visit.application
    found = await application.tracking_domains.page(workspace_id)
    totals = await application.tracking_report.totals(workspace_id, workspace_id)
    return visit.page(
        "tracking.html",
        status=422 if problem else 200,
        domains=[
            {
                "id": type_id(TRACKING_DOMAIN, one.id),
                "name": one.name,
                "verified": one.verified,
                "finding": one.finding,
                "looked_at": one.looked_at,
            }
            for one in found
        ],
        target=application.tracking_domains.target,
        totals=asdict(totals),
        imprint=asdict(imprint or await application.imprints.get(workspace_id)),
        problem=problem,
    )


@get("/tracking")
async def tracking(visit: Visit) -> Response[str]:
    visit.principal.require(scope.CAMPAIGNS_READ)
    return await _tracking_page(visit)


@post("/tracking/imprint", status_code=303)
async def save_imprint(visit: Visit) -> Response[Any]:
    visit.principal.require(scope.CAMPAIGNS_WRITE)
    workspace_id, imprints = visit.principal.workspace_id, visit.application.imprints
    after = SenderImprint(
        physical_address=visit.field("physical_address").replace("\r\n", "\n"),
        footer_html=visit.field("footer_html"),
        footer_text=visit.field("footer_text").replace("\r\n", "\n"),
        track_opens=visit.field("track_opens") == "on",
        track_clicks=visit.field("track_clicks") == "on",
    )
    try:
        async with visit.application.database.transaction() as tx:
            before = await imprints.get(workspace_id, tx)
            await imprints.save(workspace_id, after, tx)
            await visit.application.audit.record(
                visit.principal.actor,
                "imprint.change",
                type_id(WORKSPACE, workspace_id),
                asdict(before),
                asdict(after),
                tx,
            )
    except MailyardError as error:
        said = f"{error.field}: {error.message}" if error.field else error.message
        return await _tracking_page(visit, said, after)
    return visit.go("/tracking", "saved")


@post("/tracking/domains", status_code=303)
async def add_domain(visit: Visit) -> Response[Any]:
    visit.principal.require(scope.DOMAINS_WRITE)
    try:
        async with visit.application.database.transaction() as tx:
            made = await visit.application.tracking_domains.create(
                visit.principal.workspace_id, visit.field("name"), tx
            )
            await visit.application.audit.record(
                visit.principal.actor,
                "tracking_domain.create",
                type_id(TRACKING_DOMAIN, made.id),
                after={"name": made.name},
                tx=tx,
            )
    except MailyardError as error:
        return await _tracking_page(visit, error.message)
    return visit.go("/tracking", "made")


@post("/tracking/domains/{domain_id:str}/check", status_code=303)
async def check_domain(visit: Visit, domain_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.DOMAINS_WRITE)
    workspace_id, domains = visit.principal.workspace_id, visit.application.tracking_domains
    identifier = parse_type_id(TRACKING_DOMAIN, domain_id)
    try:
        before = await domains.get(workspace_id, identifier)
        finding = await domains.look(before, visit.application.fresh_dns)
        async with visit.application.database.transaction() as tx:
            after = await domains.note(workspace_id, identifier, finding, tx)
            await visit.application.audit.record(
                visit.principal.actor,
                "tracking_domain.check",
                domain_id,
                {"verified": before.verified, "finding": before.finding},
                {"verified": after.verified, "finding": after.finding},
                tx,
            )
    except MailyardError as error:
        return await _tracking_page(visit, error.message)
    return visit.go("/tracking", "checked")


@post("/tracking/domains/{domain_id:str}/remove", status_code=303)
async def remove_domain(visit: Visit, domain_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.DOMAINS_WRITE)
    async with visit.application.database.transaction() as tx:
        gone = await visit.application.tracking_domains.remove(
            visit.principal.workspace_id, parse_type_id(TRACKING_DOMAIN, domain_id), tx
        )
        await visit.application.audit.record(
            visit.principal.actor,
            "tracking_domain.remove",
            domain_id,
            before={"name": gone.name, "verified": gone.verified},
            tx=tx,
        )
    return visit.go("/tracking", "deleted")


HANDLERS = [tracking, save_imprint, add_domain, check_domain, remove_domain]
