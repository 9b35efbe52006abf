"""Search over mail: a box, and what it finds."""

from typing import Any
from urllib.parse import urlencode

import msgspec
from litestar import Response, get, post
from markupsafe import Markup

from mailyard.access import scope
from mailyard.core.errors import InvalidInput
from mailyard.core.ids import INBOX, MESSAGE, WORKSPACE, parse_type_id, type_id
from mailyard.mailbox.search.language import AUTO, languages
from mailyard.mailbox.search.search import BEST, MEANING, NEWEST, WORDS, Hit
from mailyard.web.api.page import read_cursor, write_cursor
from mailyard.web.ui.frame import Visit

_PAGE = 30


def _row(hit: Hit) -> dict[str, Any]:
    summary = hit.summary
    return {
        "id": type_id(MESSAGE, summary.id),
        "inbox_id": type_id(INBOX, summary.inbox_id),
        "recipient": summary.recipient,
        "from_name": summary.from_name,
        "from_address": summary.from_address,
        "subject": Markup(hit.subject),
        "snippet": Markup(hit.snippet),
        "attachments": summary.attachments,
        "received_at": summary.received_at,
    }


@get("/search")
async def search(visit: Visit) -> Response[str]:
    visit.principal.require(scope.INBOXES_READ)
    text, inbox_id, cursor = visit.ask("q"), visit.ask("inbox"), visit.ask("cursor")
    sort = BEST if visit.ask("sort") == BEST else NEWEST
    mode = MEANING if visit.ask("mode") == MEANING else WORDS
    inbox = None
    if inbox_id:
        inbox = await visit.application.inboxes.get(
            visit.principal.workspace_id, parse_type_id(INBOX, inbox_id, "inbox")
        )
    rows: list[dict[str, Any]] = []
    next_url = looked_until = problem = None
    if text:
        try:
            found = await visit.application.search.find(
                visit.principal.workspace_id,
                text,
                inbox_id=None if inbox is None else inbox.id,
                sort=sort,
                mode=mode,
                cursor=read_cursor(cursor or None),
                limit=_PAGE,
            )
        except InvalidInput as error:
            problem = error.message
        else:
            rows = [_row(hit) for hit in found.hits]
            looked_until = found.looked_until
            following = write_cursor(found.next_cursor)
            if following is not None:
                asked = {
                    "q": text,
                    "inbox": inbox_id,
                    "sort": sort,
                    "mode": mode,
                    "cursor": following,
                }
                next_url = "/search?" + urlencode({name: one for name, one in asked.items() if one})
    application, workspace_id = visit.application, visit.principal.workspace_id
    setting = await application.indexer.setting(workspace_id)
    by_meaning = application.vectors.available and await application.indexer.finds_by_meaning(
        workspace_id, None if inbox is None else inbox.id
    )
    return visit.page(
        "search.html",
        q=text,
        sort=sort,
        mode=mode,
        inbox=None if inbox is None else {"id": inbox_id, "address": inbox.address},
        rows=rows,
        next_url=next_url,
        looked_until=looked_until,
        problem=problem,
        setting=setting,
        by_meaning=by_meaning,
        meaning_available=application.vectors.available,
        languages=[AUTO, *languages()],
    )


@post("/search/settings", status_code=303)
async def save_settings(visit: Visit) -> Response[Any]:
    visit.principal.require(scope.INBOXES_WRITE)
    async with visit.application.database.transaction() as tx:
        before, after = await visit.application.indexer.change(
            visit.principal.workspace_id,
            language=visit.field("language") or None,
            every_word=visit.field("every_word") == "yes",
            by_meaning=(
                visit.field("by_meaning") == "yes" if visit.application.vectors.available else None
            ),
            tx=tx,
        )
        await visit.application.audit.record(
            visit.principal.actor,
            "search.change",
            type_id(WORKSPACE, visit.principal.workspace_id),
            msgspec.to_builtins(before),
            msgspec.to_builtins(after),
            tx,
        )
    return visit.go("/search", "saved")


HANDLERS = [search, save_settings]
