"""Dead letters: looked at, put back, discarded."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

from litestar import Response, get, post

from mailyard.access import scope
from mailyard.core.errors import InvalidInput
from mailyard.storage.database import Connection
from mailyard.web.ui.frame import Visit

_PAGE = 100
_ID_DIGITS = 18  # whatever has so many fits into PostgreSQL's bigint


@get("/dead-letters")
async def dead_letters(visit: Visit) -> Response[str]:
    visit.principal.require(scope.QUEUES_READ)
    before = visit.ask("before")
    if before and not _is_id(before):
        raise InvalidInput("a dead letter's id is a number", field="before")
    dead = await visit.application.queue_admin.list_dead(
        visit.principal.workspace_id, before=int(before) if before else None, limit=_PAGE
    )
    following = f"/dead-letters?before={dead[-1].id}" if len(dead) == _PAGE else None
    return visit.page("dead_letters.html", dead=dead, next_url=following)


def _is_id(text: str) -> bool:
    return text.isdecimal() and len(text) <= _ID_DIGITS


def _chosen(visit: Visit) -> list[int]:
    texts = [text for text in visit.form.getall("id", []) if isinstance(text, str)]
    if not texts or not all(_is_id(text) for text in texts):
        raise InvalidInput("choose at least one dead letter", field="id")
    return [int(text) for text in texts]


async def _take_out(
    visit: Visit, action: str, act: Callable[[UUID, Sequence[int], Connection], Awaitable[set[int]]]
) -> None:
    visit.principal.require(scope.QUEUES_WRITE)
    chosen = _chosen(visit)
    async with visit.application.database.transaction() as tx:
        ids = sorted(await act(visit.principal.workspace_id, chosen, tx))
        if ids:
            await visit.application.audit.record(
                visit.principal.actor, action, "dead letters", {"ids": ids}, tx=tx
            )


@post("/dead-letters/redrive", status_code=303)
async def redrive(visit: Visit) -> Response[Any]:
    await _take_out(visit, "dead_letter.redrive", visit.application.queue_admin.redrive)
    return visit.go("/dead-letters", "redriven")


@post("/dead-letters/discard", status_code=303)
async def discard(visit: Visit) -> Response[Any]:
    await _take_out(visit, "dead_letter.discard", visit.application.queue_admin.discard)
    return visit.go("/dead-letters", "discarded")


HANDLERS = [dead_letters, redrive, discard]
