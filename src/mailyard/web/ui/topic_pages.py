"""Topics: what campaigns can be about, and what people have said of each."""

from typing import Any

from litestar import Response, get, post
from litestar.params import FromPath

from mailyard.access import scope
from mailyard.core.errors import MailyardError
from mailyard.core.ids import TOPIC, parse_type_id, type_id
from mailyard.core.limits import API_PAGE_ITEMS
from mailyard.web.ui.frame import Visit

_FORM = ("name", "description", "on_request")


async def topic_choices(visit: Visit) -> list[dict[str, Any]]:
    """The workspace's topics, for a choice."""
    topics = await visit.application.topics.page(visit.principal.workspace_id)
    return [{"id": type_id(TOPIC, one.id), "name": one.name} for one in topics]


async def _topics_page(
    visit: Visit, form: dict[str, str] | None = None, problem: str | None = None
) -> Response[str]:
    workspace_id, service = visit.principal.workspace_id, visit.application.topics
    text = visit.ask("before")
    found = await service.page(
        workspace_id, before=parse_type_id(TOPIC, text, "before") if text else None
    )
    counts = await service.counts(workspace_id, found)
    views = [
        {
            "id": type_id(TOPIC, one.id),
            "name": one.name,
            "description": one.description,
            "on_request": one.on_request,
            "yes": counts.get(one.id, (0, 0))[0],
            "no": counts.get(one.id, (0, 0))[1],
        }
        for one in found
    ]
    full = len(found) == API_PAGE_ITEMS
    return visit.page(
        "topics.html",
        status=422 if problem else 200,
        topics=views,
        next_url=f"/topics?before={views[-1]['id']}" if full else None,
        form=form or dict.fromkeys(_FORM, ""),
        problem=problem,
    )


@get("/topics")
async def topics(visit: Visit) -> Response[str]:
    visit.principal.require(scope.CONTACTS_READ)
    return await _topics_page(visit)


@post("/topics", status_code=303)
async def make_topic(visit: Visit) -> Response[Any]:
    visit.principal.require(scope.CONTACTS_WRITE)
    form = {name: visit.field(name) for name in _FORM}
    try:
        async with visit.application.database.transaction() as tx:
            made = await visit.application.topics.create(
                visit.principal.workspace_id,
                form["name"],
                form["description"],
                on_request=form["on_request"] == "on",
                tx=tx,
            )
            await visit.application.audit.record(
                visit.principal.actor,
                "topic.create",
                type_id(TOPIC, made.id),
                after={
                    "name": made.name,
                    "description": made.description,
                    "on_request": made.on_request,
                },
                tx=tx,
            )
    except MailyardError as error:
        return await _topics_page(visit, form, error.message)
    return visit.go("/topics", "made")


@post("/topics/{topic_id:str}/delete", status_code=303)
async def delete_topic(visit: Visit, topic_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.CONTACTS_WRITE)
    try:
        async with visit.application.database.transaction() as tx:
            gone = await visit.application.topics.remove(
                visit.principal.workspace_id, parse_type_id(TOPIC, topic_id), tx
            )
            await visit.application.audit.record(
                visit.principal.actor, "topic.delete", topic_id, before={"name": gone.name}, tx=tx
            )
    except MailyardError as error:
        return await _topics_page(visit, problem=error.message)
    return visit.go("/topics", "deleted")


HANDLERS = [topics, make_topic, delete_topic]
