"""Where providers send what became of mail."""

from typing import Any

from litestar import Response, get, post
from litestar.params import FromPath

from mailyard.access import scope
from mailyard.core.errors import MailyardError
from mailyard.core.ids import PROVIDER_HOOK, parse_type_id, type_id
from mailyard.sending.returns.hooks.kinds import KINDS
from mailyard.web.api.provider_hooks import told, url_of
from mailyard.web.ui.frame import Visit


async def _page(visit: Visit, problem: str | None = None, new_url: str = "") -> Response[str]:
    found = await visit.application.provider_hooks.page(visit.principal.workspace_id)
    return visit.page(
        "provider_hooks.html",
        status=422 if problem else 200,
        problem=problem,
        hooks=[
            {
                "id": type_id(PROVIDER_HOOK, hook.id),
                "title": KINDS[hook.kind].title,
                "kind": hook.kind,
                "name": hook.name,
                "confirmed_at": hook.confirmed_at,
                "created_at": hook.created_at,
            }
            for hook in found
        ],
        kinds=[
            {"kind": kind, "title": one.title, "secret": one.secret} for kind, one in KINDS.items()
        ],
        new_url=new_url,
        may_change=scope.HOOKS_WRITE in visit.principal.scopes,
    )


@get("/provider-hooks")
async def provider_hooks(visit: Visit) -> Response[str]:
    visit.principal.require(scope.HOOKS_READ)
    return await _page(visit)


@post("/provider-hooks", status_code=200)
async def make(visit: Visit) -> Response[str]:
    """The answer is the page itself: the address is shown once, and passes through no redirect."""
    visit.principal.require(scope.HOOKS_WRITE)
    application = visit.application
    try:
        async with application.database.transaction() as tx:
            made = await application.provider_hooks.create(
                visit.principal.workspace_id,
                visit.field("kind"),
                visit.field("name"),
                visit.field("secret"),
                tx,
            )
            await application.audit.record(
                visit.principal.actor,
                "provider_hook.create",
                type_id(PROVIDER_HOOK, made.hook.id),
                after=told(made.hook),
                tx=tx,
            )
    except MailyardError as error:
        return await _page(visit, error.message)
    return await _page(
        visit, new_url=url_of(application.settings.page_url, made.hook.kind, made.token)
    )


@post("/provider-hooks/{hook_id:str}/remove", status_code=303)
async def remove(visit: Visit, hook_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.HOOKS_WRITE)
    application = visit.application
    async with application.database.transaction() as tx:
        hook = await application.provider_hooks.remove(
            visit.principal.workspace_id, parse_type_id(PROVIDER_HOOK, hook_id), tx
        )
        await application.audit.record(
            visit.principal.actor,
            "provider_hook.remove",
            type_id(PROVIDER_HOOK, hook.id),
            before=told(hook),
            tx=tx,
        )
    return visit.go("/provider-hooks", "deleted")


HANDLERS = [provider_hooks, make, remove]
