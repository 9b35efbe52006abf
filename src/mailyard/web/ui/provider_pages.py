"""Providers and routes: how each way out fares, what may go where, and a try."""

from typing import Any

from litestar import Response, get, post
from litestar.params import FromPath

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core.errors import InvalidInput, MailyardError
from mailyard.core.ids import PROVIDER, parse_type_id, type_id
from mailyard.sending.provider import NewProvider, Provider, ProviderChange
from mailyard.sending.provider_health import ProviderHealth
from mailyard.sending.transports.kinds import KINDS
from mailyard.storage.database import Connection
from mailyard.web.api.providers import change_of, may_make, told
from mailyard.web.api.routing import told as told_routes
from mailyard.web.ui.frame import Visit
from mailyard.web.ui.route_lines import as_lines, from_lines

_MOST = 500


def _view(visit: Visit, one: Provider, health: ProviderHealth) -> dict[str, Any]:
    return {
        "id": type_id(PROVIDER, one.id),
        "name": one.name,
        "kind": one.kind,
        "title": KINDS[one.kind].title if one.kind in KINDS else one.kind,
        "enabled": one.enabled,
        "shared": one.shared,
        "own": one.workspace_id == visit.principal.workspace_id,
        "secrets": one.secrets,
        "settings": _as_text(one.settings),
        "health": health,
    }


def _as_text(settings: dict[str, Any]) -> str:
    words = {True: "true", False: "false", None: ""}
    return "\n".join(
        f"{name} = {words[value] if isinstance(value, bool) or value is None else value}"
        for name, value in settings.items()
    )


def _pairs(text: str, field: str) -> dict[str, str]:
    """Lines of `name = value`. Raises InvalidInput."""
    pairs = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, equals, value = line.partition("=")
        if not equals:
            raise InvalidInput(f"{line[:60]!r}: write name = value", field=field)
        pairs[name.strip()] = value.strip()
    return pairs


def _settings(text: str) -> dict[str, Any]:
    """Settings as a person writes them; what is a number is the kind's to say."""
    return {name: value for name, value in _pairs(text, "settings").items() if value}


async def _page(visit: Visit, **shown: Any) -> Response[str]:
    application, workspace_id = visit.application, visit.principal.workspace_id
    found = await application.providers.page(workspace_id, limit=_MOST)
    health = await application.provider_watch.health(workspace_id, found)
    routes, whose = await application.routing.in_force(workspace_id)
    own = as_lines(routes) if whose == "own" else ""
    problem = shown.pop("problem", None)
    return visit.page(
        "providers.html",
        status=422 if problem else 200,
        problem=problem,
        providers=[_view(visit, one, health[one.id]) for one in found],
        kinds={name: kind.title for name, kind in KINDS.items()},
        routes=shown.pop("routes", own),
        whose=whose or "relay",
        may_write=scope.PROVIDERS_WRITE in visit.principal.scopes,
        form={"name": "", "kind": "smtp", "settings": "", "secrets": "", **shown},
    )


@get("/providers")
async def providers(visit: Visit) -> Response[str]:
    visit.principal.require(scope.PROVIDERS_READ)
    return await _page(visit)


@post("/providers", status_code=303)
async def add_provider(visit: Visit) -> Response[Any]:
    visit.principal.require(scope.PROVIDERS_WRITE)
    form = {name: visit.field(name) for name in ("name", "kind", "settings")}
    application, workspace_id = visit.application, visit.principal.workspace_id
    try:
        wanted = NewProvider(
            form["name"],
            form["kind"],
            _settings(form["settings"]),
            _pairs(visit.field("secrets"), "secrets"),
        )
        await may_make(application.workspaces, workspace_id, wanted.kind, shared=False)
        async with application.database.transaction() as tx:
            one = await application.providers.create(workspace_id, wanted, tx)
            await _record(visit, change_of("provider.create", one, None, told(one)), tx)
    except MailyardError as error:
        return await _page(visit, problem=_said(error), **form)
    application.providers.changed()
    return visit.go(f"/providers/{type_id(PROVIDER, one.id)}", "made")


@post("/providers/routes", status_code=303)
async def set_routes(visit: Visit) -> Response[Any]:
    visit.principal.require(scope.PROVIDERS_WRITE)
    application, workspace_id = visit.application, visit.principal.workspace_id
    text = visit.field("routes")
    try:
        wanted = from_lines(text)
        async with application.database.transaction() as tx:
            routing = application.routing
            before = await routing.get(workspace_id, tx=tx)
            after = await routing.replace(workspace_id, wanted, shared=False, tx=tx)
            replaced = Change("route.replace", "routes", told_routes(before), told_routes(after))
            await _record(visit, replaced, tx)
    except MailyardError as error:
        return await _page(visit, problem=_said(error), routes=text)
    application.providers.changed()
    return visit.go("/providers", "saved")


async def _one_page(visit: Visit, provider_id: str, **shown: Any) -> Response[str]:
    application, workspace_id = visit.application, visit.principal.workspace_id
    one = await application.providers.get(workspace_id, parse_type_id(PROVIDER, provider_id))
    health = await application.provider_watch.health(workspace_id, [one])
    problem = shown.pop("problem", None)
    return visit.page(
        "provider.html",
        status=422 if problem else 200,
        problem=problem,
        it=_view(visit, one, health[one.id]) | shown,
        events=await application.provider_watch.events(workspace_id, one),
        trial=shown.get("trial"),
        may_write=scope.PROVIDERS_WRITE in visit.principal.scopes,
    )


@get("/providers/{provider_id:str}")
async def provider(visit: Visit, provider_id: FromPath[str]) -> Response[str]:
    visit.principal.require(scope.PROVIDERS_READ)
    return await _one_page(visit, provider_id)


@post("/providers/{provider_id:str}", status_code=303)
async def change_provider(visit: Visit, provider_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.PROVIDERS_WRITE)
    text = visit.field("settings")
    try:
        secrets = _pairs(visit.field("secrets"), "secrets")
        change = ProviderChange(settings=_settings(text), secrets=secrets)
        await _change(visit, provider_id, change)
    except MailyardError as error:
        return await _one_page(visit, provider_id, problem=_said(error), settings=text)
    return visit.go(f"/providers/{provider_id}", "saved")


@post("/providers/{provider_id:str}/switch", status_code=303)
async def switch_provider(visit: Visit, provider_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.PROVIDERS_WRITE)
    await _change(visit, provider_id, ProviderChange(enabled=visit.field("on") == "yes"))
    return visit.go(f"/providers/{provider_id}", "saved")


@post("/providers/{provider_id:str}/test", status_code=200)
async def test_provider(visit: Visit, provider_id: FromPath[str]) -> Response[str]:
    """The answer is the page itself, with what the provider said."""
    visit.principal.require(scope.PROVIDERS_WRITE)
    application, workspace_id = visit.application, visit.principal.workspace_id
    identifier, to = parse_type_id(PROVIDER, provider_id), visit.field("to")
    try:
        one = await application.providers.get(workspace_id, identifier)
        trial = await application.provider_trials.run(
            workspace_id, identifier, visit.field("from"), to
        )
        tried = change_of("provider.test", one, None, {"to": to, "outcome": trial.outcome})
        async with application.database.transaction() as tx:
            await _record(visit, tried, tx)
    except MailyardError as error:
        return await _one_page(visit, provider_id, problem=_said(error))
    return await _one_page(visit, provider_id, trial=trial)


@post("/providers/{provider_id:str}/remove", status_code=303)
async def remove_provider(visit: Visit, provider_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.PROVIDERS_WRITE)
    application, workspace_id = visit.application, visit.principal.workspace_id
    identifier = parse_type_id(PROVIDER, provider_id)
    try:
        async with application.database.transaction() as tx:
            one = await application.providers.remove(workspace_id, identifier, tx)
            await _record(visit, change_of("provider.remove", one, told(one), None), tx)
    except MailyardError as error:
        return await _one_page(visit, provider_id, problem=_said(error))
    application.providers.changed()
    return visit.go("/providers", "deleted")


async def _change(visit: Visit, provider_id: str, change: ProviderChange) -> None:
    application, workspace_id = visit.application, visit.principal.workspace_id
    identifier = parse_type_id(PROVIDER, provider_id)
    async with application.database.transaction() as tx:
        before = await application.providers.get(workspace_id, identifier, tx)
        after = await application.providers.change(workspace_id, identifier, change, tx)
        await _record(visit, change_of("provider.change", after, told(before), told(after)), tx)
    application.providers.changed()


async def _record(visit: Visit, change: Change, tx: Connection) -> None:
    await visit.application.audit.record_many(visit.principal.actor, [change], tx)


def _said(error: MailyardError) -> str:
    return f"{error.field}: {error.message}" if error.field else error.message


HANDLERS = [
    providers,
    add_provider,
    set_routes,
    provider,
    change_provider,
    switch_provider,
    test_provider,
    remove_provider,
]
