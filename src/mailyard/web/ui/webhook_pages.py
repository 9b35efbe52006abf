"""Webhooks: where events are told, how that goes, each request with its answer."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from litestar import Response, get, post
from litestar.params import FromPath

from mailyard.access import scope
from mailyard.bus.filter import EventFilter, make_filter, parse_where
from mailyard.bus.live import KINDS, MESSAGE_RECEIVED
from mailyard.core.errors import InvalidInput, MailyardError
from mailyard.core.ids import WEBHOOK, WEBHOOK_DELIVERY, parse_type_id, type_id
from mailyard.core.limits import API_PAGE_ITEMS
from mailyard.storage.database import Connection
from mailyard.web.api.webhook_replays import told_replay
from mailyard.web.ui.frame import Visit
from mailyard.webhooks.endpoint import (
    CONCURRENCY_MAX,
    OVERLAP_S,
    WEBHOOKS_MAX,
    Counts,
    Webhook,
    Wish,
    told,
)
from mailyard.webhooks.log import STATES

_NO_COUNTS = Counts(0, 0)


def _line(webhook: Webhook, counts: Mapping[UUID, Counts]) -> dict[str, Any]:
    return {
        "id": type_id(WEBHOOK, webhook.id),
        "stands": _stands(webhook),
        "counts": counts.get(webhook.id, _NO_COUNTS),
        "it": webhook,
    }


def _stands(webhook: Webhook) -> tuple[str, str]:
    """A badge's colour and word."""
    if not webhook.enabled:
        return ("bad", "disabled") if webhook.disabled_why else ("", "off")
    if webhook.rests_until is not None:
        return "bad", "away"
    if webhook.failures:
        return "warn", "failing"
    return ("warn", "slow") if webhook.slow else ("good", "on")


def _wish(visit: Visit) -> Wish:
    """What the form asks for. Raises InvalidInput."""
    inboxes = visit.field("inboxes").replace(",", " ").split()
    where = parse_where([line for line in visit.field("where").splitlines() if line.strip()])
    kinds = [kind for kind in visit.form.getall("kinds", []) if isinstance(kind, str)]
    concurrency = visit.field("concurrency") or "5"
    if not concurrency.isascii() or not concurrency.isdigit():
        raise InvalidInput("expected a number of requests at the same time", field="concurrency")
    return Wish(
        visit.field("name"),
        visit.field("url"),
        make_filter(kinds, inboxes, where),
        visit.field("payload") or "value",
        visit.field("ordered") == "on",
        int(concurrency[:6]),
    )


def _of_inbox(inbox: str) -> Wish | None:
    """A webhook to be made for the mail of one inbox (its id). Raises InvalidInput."""
    return Wish("", "", make_filter([MESSAGE_RECEIVED], [inbox])) if inbox else None


def _form(wish: Wish | None) -> dict[str, Any]:
    """What the fields of the form show."""
    wanted = wish.filter if wish else EventFilter((MESSAGE_RECEIVED,))
    return {
        "name": wish.name if wish else "",
        "url": wish.url if wish else "",
        "chosen": wanted.kinds,
        "inboxes": " ".join(wanted.inboxes),
        "where": "\n".join(f"{name}:{text}" for name, texts in wanted.where for text in texts),
        "payload": wish.payload if wish else "value",
        "ordered": bool(wish and wish.ordered),
        "concurrency": wish.concurrency if wish else 5,
        "most": CONCURRENCY_MAX,
        "kinds": KINDS,
    }


async def _list_page(
    visit: Visit, problem: str | None = None, secret: str = "", wish: Wish | None = None
) -> Response[str]:
    webhooks, workspace_id = visit.application.webhooks, visit.principal.workspace_id
    found = await webhooks.page(workspace_id, limit=WEBHOOKS_MAX)
    counts = await webhooks.counts(workspace_id, [one.id for one in found])
    return visit.page(
        "webhooks.html",
        status=422 if problem else 200,
        problem=problem,
        webhooks=[_line(one, counts) for one in found],
        form=_form(wish or _of_inbox(visit.ask("inbox"))),
        secret=secret,
        may_change=scope.WEBHOOKS_WRITE in visit.principal.scopes,
    )


async def _webhook_page(
    visit: Visit, webhook_id: UUID, problem: str | None = None, secret: str = ""
) -> Response[str]:
    application, workspace_id = visit.application, visit.principal.workspace_id
    webhook = await application.webhooks.get(workspace_id, webhook_id)
    counts = await application.webhooks.counts(workspace_id, [webhook_id])
    state, before = visit.ask("state"), visit.ask("before")
    found = await application.webhook_log.page(
        workspace_id,
        webhook_id,
        state=state,
        before=parse_type_id(WEBHOOK_DELIVERY, before, "before") if before else None,
        limit=API_PAGE_ITEMS,
    )
    following = None
    if len(found) == API_PAGE_ITEMS:
        last = type_id(WEBHOOK_DELIVERY, found[-1].id)
        following = f"?{visit.query_with(before=last)}"
    return visit.page(
        "webhook.html",
        status=422 if problem else 200,
        problem=problem,
        **_line(webhook, counts),
        form=_form(webhook.wish),
        secret=secret,
        deliveries=[(type_id(WEBHOOK_DELIVERY, one.id), one) for one in found],
        state=state,
        states=STATES,
        next_url=following,
        replays=await application.webhook_replays.page(workspace_id, webhook_id),
        may_change=scope.WEBHOOKS_WRITE in visit.principal.scopes,
    )


async def _note(
    visit: Visit, action: str, webhook_id: UUID, before: Any, after: Any, tx: Connection
) -> None:
    await visit.application.audit.record(
        visit.principal.actor, action, type_id(WEBHOOK, webhook_id), before, after, tx
    )


@get("/webhooks")
async def webhooks(visit: Visit) -> Response[str]:
    visit.principal.require(scope.WEBHOOKS_READ)
    return await _list_page(visit)


@post("/webhooks", status_code=200)
async def make(visit: Visit) -> Response[str]:
    """The answer is the page itself: the secret is shown once, and passes through no redirect."""
    visit.principal.require(scope.WEBHOOKS_WRITE)
    application, wish = visit.application, None
    try:
        wish = _wish(visit)
        async with application.database.transaction() as tx:
            made, secret = await application.webhooks.create(visit.principal.workspace_id, wish, tx)
            await _note(visit, "webhook.create", made.id, None, told(made), tx)
    except MailyardError as error:
        return await _list_page(visit, error.message, wish=wish)
    application.webhooks.changed()
    return await _list_page(visit, secret=secret)


@get("/webhooks/{webhook_id:str}")
async def webhook(visit: Visit, webhook_id: FromPath[str]) -> Response[str]:
    visit.principal.require(scope.WEBHOOKS_READ)
    return await _webhook_page(visit, parse_type_id(WEBHOOK, webhook_id))


@post("/webhooks/{webhook_id:str}", status_code=303)
async def change(visit: Visit, webhook_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.WEBHOOKS_WRITE)
    service, workspace_id = visit.application.webhooks, visit.principal.workspace_id
    identifier = parse_type_id(WEBHOOK, webhook_id)
    try:
        wish = _wish(visit)
        async with visit.application.database.transaction() as tx:
            before = await service.get(workspace_id, identifier, tx)
            after = await service.change(workspace_id, identifier, wish, tx)
            await _note(visit, "webhook.change", identifier, told(before), told(after), tx)
    except InvalidInput as error:
        return await _webhook_page(visit, identifier, error.message)
    service.changed()
    return visit.go(f"/webhooks/{webhook_id}", "saved")


@post("/webhooks/{webhook_id:str}/switch", status_code=303)
async def switch(visit: Visit, webhook_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.WEBHOOKS_WRITE)
    service, workspace_id = visit.application.webhooks, visit.principal.workspace_id
    identifier = parse_type_id(WEBHOOK, webhook_id)
    turn = service.enable if visit.field("on") == "yes" else service.disable
    async with visit.application.database.transaction() as tx:
        before = await service.get(workspace_id, identifier, tx)
        after = await turn(workspace_id, identifier, tx)
        await _note(visit, "webhook.change", identifier, told(before), told(after), tx)
    service.changed()
    return visit.go(f"/webhooks/{webhook_id}", "saved")


@post("/webhooks/{webhook_id:str}/rotate", status_code=200)
async def rotate(visit: Visit, webhook_id: FromPath[str]) -> Response[str]:
    """The page itself, as above."""
    visit.principal.require(scope.WEBHOOKS_WRITE)
    application, identifier = visit.application, parse_type_id(WEBHOOK, webhook_id)
    try:
        async with application.database.transaction() as tx:
            _, secret = await application.webhooks.rotate(
                visit.principal.workspace_id, identifier, OVERLAP_S, tx
            )
            kept = {"overlap_s": OVERLAP_S}
            await _note(visit, "webhook.rotate", identifier, None, kept, tx)
    except MailyardError as error:
        return await _webhook_page(visit, identifier, error.message)
    return await _webhook_page(visit, identifier, secret=secret)


@post("/webhooks/{webhook_id:str}/test", status_code=303)
async def test(visit: Visit, webhook_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.WEBHOOKS_WRITE)
    application, identifier = visit.application, parse_type_id(WEBHOOK, webhook_id)
    workspace_id, log = visit.principal.workspace_id, application.webhook_log
    trial = await log.test(workspace_id, identifier)
    async with application.database.transaction() as tx:
        story = await log.keep(workspace_id, trial, tx)
        await _note(visit, "webhook.test", identifier, None, {"status": story.delivery.status}, tx)
    shown = type_id(WEBHOOK_DELIVERY, story.delivery.id)
    return visit.go(f"/webhooks/{webhook_id}/deliveries/{shown}")


@post("/webhooks/{webhook_id:str}/replay", status_code=303)
async def replay(visit: Visit, webhook_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.WEBHOOKS_WRITE)
    application, identifier = visit.application, parse_type_id(WEBHOOK, webhook_id)
    try:
        since, until = _moment(visit, "since"), visit.field("until")
        async with application.database.transaction() as tx:
            started = await application.webhook_replays.start(
                visit.principal.workspace_id,
                identifier,
                since,
                _moment(visit, "until") if until else None,
                tx,
            )
            await _note(visit, "webhook.replay", identifier, None, told_replay(started), tx)
    except MailyardError as error:
        return await _webhook_page(visit, identifier, error.message)
    return visit.go(f"/webhooks/{webhook_id}", "started")


@post("/webhooks/{webhook_id:str}/redrive", status_code=303)
async def redrive(visit: Visit, webhook_id: FromPath[str]) -> Response[Any]:
    """The deliveries that the form names, or all dead ones."""
    visit.principal.require(scope.WEBHOOKS_WRITE)
    application, identifier = visit.application, parse_type_id(WEBHOOK, webhook_id)
    texts = [text for text in visit.form.getall("id", []) if isinstance(text, str)]
    chosen = [parse_type_id(WEBHOOK_DELIVERY, text) for text in texts] or None
    async with application.database.transaction() as tx:
        back = await application.webhook_log.redrive(
            visit.principal.workspace_id, identifier, chosen, tx
        )
        if back:
            await _note(visit, "webhook.redrive", identifier, None, {"deliveries": len(back)}, tx)
    return visit.go(f"/webhooks/{webhook_id}", "redriven")


@post("/webhooks/{webhook_id:str}/remove", status_code=303)
async def remove(visit: Visit, webhook_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.WEBHOOKS_WRITE)
    application = visit.application
    async with application.database.transaction() as tx:
        gone = await application.webhooks.remove(
            visit.principal.workspace_id, parse_type_id(WEBHOOK, webhook_id), tx
        )
        await _note(visit, "webhook.remove", gone.id, told(gone), None, tx)
    application.webhooks.changed()
    return visit.go("/webhooks", "deleted")


@get("/webhooks/{webhook_id:str}/deliveries/{delivery_id:str}")
async def delivery(
    visit: Visit, webhook_id: FromPath[str], delivery_id: FromPath[str]
) -> Response[str]:
    visit.principal.require(scope.WEBHOOKS_READ)
    application, workspace_id = visit.application, visit.principal.workspace_id
    one = await application.webhooks.get(workspace_id, parse_type_id(WEBHOOK, webhook_id))
    story = await application.webhook_log.story(
        workspace_id, parse_type_id(WEBHOOK_DELIVERY, delivery_id)
    )
    return visit.page(
        "webhook_delivery.html",
        webhook=one,
        webhook_id=webhook_id,
        id=delivery_id,
        story=story,
        may_change=scope.WEBHOOKS_WRITE in visit.principal.scopes,
    )


def _moment(visit: Visit, name: str) -> datetime:
    """A time as the browser's field has it; it is taken as UTC."""
    try:
        moment = datetime.fromisoformat(visit.field(name))
    except ValueError:
        raise InvalidInput("expected a time like 2026-01-31T12:00", field=name) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


HANDLERS = [
    webhooks,
    make,
    webhook,
    change,
    switch,
    rotate,
    test,
    replay,
    redrive,
    remove,
    delivery,
]
