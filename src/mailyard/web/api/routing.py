"""Routes: which providers may have which mail, set as a whole."""

from typing import Annotated, Any

from msgspec import Meta, field

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core import ids
from mailyard.sending.routing import Conditions, StoredLeg, StoredRoute
from mailyard.web.api.page import Input, Output, WorkspaceId
from mailyard.web.api.providers import TAG
from mailyard.web.api.route import Answer, Call, Route

_Words = Annotated[list[Annotated[str, Meta(max_length=255)]], Meta(max_length=1_000)]


class RouteConditions(Input):
    """Which mails. One that is empty fits all; of a list one entry has to fit."""

    tags: Annotated[_Words, Meta(description="Types of mail.")] = field(default_factory=list)
    domains: Annotated[
        _Words, Meta(description="Of recipients: `example.com`, and everything below it.")
    ] = field(default_factory=list)
    streams: Annotated[_Words, Meta(description="`transactional`, `campaign`.")] = field(
        default_factory=list
    )
    workspaces: Annotated[
        list[WorkspaceId], Meta(max_length=1_000, description="In shared routes alone.")
    ] = field(default_factory=list)


class RouteLeg(Input):
    """A provider on a route."""

    provider: Annotated[
        str, Meta(max_length=64, description="Its name; `relay` is the way out of the settings.")
    ]
    weight: Annotated[
        int, Meta(ge=0, le=1_000, description="Its share among those of the same order.")
    ] = 1
    order: Annotated[
        int, Meta(ge=0, le=19, description="The lowest first; those behind have what it could not.")
    ] = 0


class RouteBody(Input):
    """A route: the first that fits a mail is the mail's."""

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    legs: Annotated[list[RouteLeg], Meta(min_length=1, max_length=20)]
    when: RouteConditions = field(default_factory=RouteConditions)


class RoutesBody(Input):
    """All routes, from the top; the last has no conditions. None: what is shared, or the relay."""

    routes: Annotated[list[RouteBody], Meta(max_length=1_000)]
    shared: Annotated[
        bool,
        Meta(
            description="For workspaces without routes of their own: the installation's first "
            "workspace alone may set them."
        ),
    ] = False


class RoutesQuery(Input):
    """Whose routes."""

    shared: bool = False


class RouteList(Output):
    """Routes, from the top."""

    items: list[RouteBody]
    in_force: Annotated[
        str,
        Meta(
            description="What this workspace's mail goes by: `own` routes, `shared` ones, or the "
            "`relay` of the settings."
        ),
    ]


def _shown(route: StoredRoute) -> RouteBody:
    when = route.when
    return RouteBody(
        name=route.name,
        legs=[RouteLeg(leg.provider, leg.weight, leg.order) for leg in route.legs],
        when=RouteConditions(
            tags=when.tags,
            domains=when.domains,
            streams=when.streams,
            workspaces=[ids.type_id(ids.WORKSPACE, one) for one in when.workspaces],
        ),
    )


def _stored(at: int, route: RouteBody) -> StoredRoute:
    where = f"routes[{at}].when.workspaces"
    return StoredRoute(
        name=route.name,
        legs=[StoredLeg(leg.provider, leg.weight, leg.order) for leg in route.legs],
        when=Conditions(
            tags=route.when.tags,
            domains=route.when.domains,
            streams=route.when.streams,
            workspaces=[
                ids.parse_type_id(ids.WORKSPACE, one, where) for one in route.when.workspaces
            ],
        ),
    )


def told(routes: list[StoredRoute]) -> dict[str, Any]:
    """Routes as the audit log keeps them."""
    return {
        "routes": [
            {"name": route.name, "legs": [[leg.provider, leg.weight, leg.order]
                                          for leg in route.legs]}
            for route in routes
        ]
    }  # fmt: skip


async def _list(call: Call[Any, Any], routes: list[StoredRoute]) -> RouteList:
    _, whose = await call.app.routing.in_force(call.workspace_id)
    return RouteList(items=[_shown(route) for route in routes], in_force=whose or "relay")


async def list_routes(call: Call[None, RoutesQuery]) -> RouteList:
    shared = call.query.shared
    if shared:
        await call.app.workspaces.require_operator(call.workspace_id)
    return await _list(call, await call.app.routing.get(call.workspace_id, shared=shared))


async def replace_routes(call: Call[RoutesBody, None]) -> Answer:
    shared = call.body.shared
    if shared:
        await call.app.workspaces.require_operator(call.workspace_id)
    wanted = [_stored(at, route) for at, route in enumerate(call.body.routes)]
    async with call.app.database.transaction() as tx:
        routing = call.app.routing
        before = await routing.get(call.workspace_id, shared=shared, tx=tx)
        after = await routing.replace(call.workspace_id, wanted, shared=shared, tx=tx)
        subject = "shared routes" if shared else "routes"
        replaced = Change("route.replace", subject, told(before), told(after))
        _, whose = await routing.in_force(call.workspace_id, tx)
        result = RouteList(items=[_shown(one) for one in after], in_force=whose or "relay")
        answer = await call.done(tx, result, replaced)
    call.app.providers.changed()
    return answer


ROUTES = (
    Route(
        "GET",
        "/v1/routes",
        list_routes,
        "listRoutes",
        TAG,
        "Read the routes",
        scope.PROVIDERS_READ,
        answer=RouteList,
        query=RoutesQuery,
    ),
    Route(
        "PUT",
        "/v1/routes",
        replace_routes,
        "replaceRoutes",
        TAG,
        "Set all routes",
        scope.PROVIDERS_WRITE,
        answer=RouteList,
        body=RoutesBody,
        description="Checked and put in force as a whole, within a second or two everywhere.",
    ),
)
