"""Providers: the ways out of a workspace, how they fare, and a try."""

from typing import Annotated, Any
from uuid import UUID

from msgspec import UNSET, Meta, UnsetType, field

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.access.workspace import Workspaces
from mailyard.core import ids
from mailyard.core.errors import NotAllowed
from mailyard.sending.provider import NewProvider, Provider, ProviderChange
from mailyard.sending.provider_health import BreakerChange, ProviderHealth
from mailyard.sending.transports.kinds import KINDS
from mailyard.web.api.page import (
    Input,
    Moment,
    NextCursor,
    Output,
    PageQuery,
    ProviderId,
    page_of,
    read_cursor,
)
from mailyard.web.api.route import Answer, Call, Route

TAG = "Providers and routes"

_KINDS = "One of " + ", ".join(f"`{name}`" for name in KINDS) + "."
_Secrets = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=4_096)]],
    Meta(max_length=10, description="By name, as the kind wants them. They are never shown again."),
]
_Settings = Annotated[
    dict[Annotated[str, Meta(max_length=64)], str | int | float | bool | None],
    Meta(max_length=30, description="As the kind wants them; see the guide to providers."),
]
_Address = Annotated[str, Meta(min_length=3, max_length=320)]


class NewProviderBody(Input):
    """A provider to send through."""

    name: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=64,
            examples=["ses-ireland"],
            description="Stands in the history of deliveries; it is never changed or used again.",
        ),
    ]
    kind: Annotated[str, Meta(max_length=32, description=_KINDS, examples=["smtp"])]
    settings: _Settings = field(default_factory=dict)
    secrets: _Secrets = field(default_factory=dict)
    shared: Annotated[
        bool, Meta(description="For all workspaces: the installation's first one alone.")
    ] = False


class ChangedProvider(Input):
    """What to change: settings as a whole, secrets one by one."""

    settings: _Settings | UnsetType = UNSET
    secrets: _Secrets | UnsetType = UNSET
    enabled: (
        Annotated[bool, Meta(description="Off: its mail goes to others on the route, or waits.")]
        | UnsetType
    ) = UNSET


class ProviderTest(Input):
    """Between whom a test goes."""

    sender: _Address = field(name="from")
    to: _Address


class HealthItem(Output):
    """How a provider fares, all workers together."""

    position: Annotated[
        str,
        Meta(
            description="Of its breaker: `closed` (all is well), `open` (it is left alone), "
            "`half_open` (it is probed); empty when nobody has used it lately."
        ),
    ]
    why: str
    until_at: Annotated[Moment | None, Meta(description="When an open one is tried again.")]
    workers: int
    workers_open: int
    accepted: int
    later: int
    refused: int
    unknown: int
    passed_on: Annotated[int, Meta(description="Not taken by it and given to another.")]


class BreakerItem(Output):
    """A change of a breaker, in one worker."""

    at: Moment
    position: str
    why: str
    until_at: Moment | None


class ProviderItem(Output):
    """A provider. Of a shared one others see that it is there."""

    id: ProviderId
    name: str
    kind: str
    settings: dict[str, Any]
    secrets: Annotated[list[str], Meta(description="Which are set.")]
    enabled: bool
    shared: bool
    own: Annotated[bool, Meta(description="Whether it is this workspace's to change.")]
    health: HealthItem
    created_at: Moment


class ProviderDetail(ProviderItem):
    """A provider with what its breaker did lately."""

    events: list[BreakerItem]


class ProviderPage(Output):
    """Providers, newest first."""

    items: list[ProviderItem]
    next_cursor: NextCursor


class ProviderTestResult(Output):
    """What a provider said to one mail."""

    outcome: Annotated[str, Meta(description="`accepted`, `later`, `never` or `unknown`.")]
    reply_code: int | None
    reply: str


def _health(health: ProviderHealth) -> HealthItem:
    return HealthItem(**{name: getattr(health, name) for name in HealthItem.__struct_fields__})


def _fields(call: Call[Any, Any], one: Provider, health: ProviderHealth) -> dict[str, Any]:
    return {
        "id": ids.type_id(ids.PROVIDER, one.id),
        "name": one.name,
        "kind": one.kind,
        "settings": one.settings,
        "secrets": list(one.secrets),
        "enabled": one.enabled,
        "shared": one.shared,
        "own": one.workspace_id == call.workspace_id,
        "health": _health(health),
        "created_at": ids.time_of(one.id),
    }


def told(one: Provider) -> dict[str, Any]:
    """A provider as the audit log keeps it: of secrets their names."""
    return {
        "name": one.name,
        "kind": one.kind,
        "settings": one.settings,
        "secrets": list(one.secrets),
        "enabled": one.enabled,
        "shared": one.shared,
    }


def change_of(action: str, one: Provider, before: Any, after: Any) -> Change:
    """An entry of the audit log."""
    return Change(action, ids.type_id(ids.PROVIDER, one.id), before, after)


async def may_make(workspaces: Workspaces, workspace_id: UUID, kind: str, *, shared: bool) -> None:
    """Raises NotAllowed where only the installation's operator may: for what all share, and for
    what sends from its addresses or writes to its disk."""
    operators = kind in KINDS and KINDS[kind].of_operator
    if not (shared or operators):
        return
    try:
        await workspaces.require_operator(workspace_id)
    except NotAllowed:
        if not operators:
            raise
        raise NotAllowed(
            f"{kind} is the installation's own (its addresses, its disk): its operator makes one "
            "in the first workspace and may share it; where the installation delivers by itself, "
            "`relay` on a route does so too",
            field="kind",
        ) from None


async def create_provider(call: Call[NewProviderBody, None]) -> Answer:
    body = call.body
    await may_make(call.app.workspaces, call.workspace_id, body.kind, shared=body.shared)
    wanted = NewProvider(body.name, body.kind, body.settings, body.secrets, body.shared)
    async with call.app.database.transaction() as tx:
        one = await call.app.providers.create(call.workspace_id, wanted, tx)
        item = ProviderItem(**_fields(call, one, ProviderHealth()))
        made = change_of("provider.create", one, None, told(one))
        answer = await call.done(tx, item, made)
    call.app.providers.changed()
    return answer


async def list_providers(call: Call[None, PageQuery]) -> ProviderPage:
    query = call.query
    found = await call.app.providers.page(
        call.workspace_id, before=read_cursor(query.cursor), limit=query.limit
    )
    health = await call.app.provider_watch.health(call.workspace_id, found)

    def item(one: Provider) -> ProviderItem:
        return ProviderItem(**_fields(call, one, health[one.id]))

    return page_of(ProviderPage, found, item, query.limit)


async def get_provider(call: Call[None, None]) -> ProviderDetail:
    one = await call.app.providers.get(call.workspace_id, call.ids["provider_id"])
    health = await call.app.provider_watch.health(call.workspace_id, [one])
    events = await call.app.provider_watch.events(call.workspace_id, one)
    return ProviderDetail(
        **_fields(call, one, health[one.id]), events=[_event(event) for event in events]
    )


def _event(event: BreakerChange) -> BreakerItem:
    return BreakerItem(at=event.at, position=event.position, why=event.why, until_at=event.until_at)


async def change_provider(call: Call[ChangedProvider, None]) -> Answer:
    body, provider_id = call.body, call.ids["provider_id"]
    change = ProviderChange(
        settings=None if body.settings is UNSET else body.settings,
        secrets=None if body.secrets is UNSET else body.secrets,
        enabled=None if body.enabled is UNSET else body.enabled,
    )
    async with call.app.database.transaction() as tx:
        before = await call.app.providers.get(call.workspace_id, provider_id, tx)
        if change.settings is not None:
            await may_make(call.app.workspaces, call.workspace_id, before.kind, shared=False)
        one = await call.app.providers.change(call.workspace_id, provider_id, change, tx)
        item = ProviderItem(**_fields(call, one, ProviderHealth()))
        changed = change_of("provider.change", one, told(before), told(one))
        answer = await call.done(tx, item, changed)
    call.app.providers.changed()
    return answer


async def remove_provider(call: Call[None, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        one = await call.app.providers.remove(call.workspace_id, call.ids["provider_id"], tx)
        answer = await call.done(tx, None, change_of("provider.remove", one, told(one), None))
    call.app.providers.changed()
    return answer


async def test_provider(call: Call[ProviderTest, None]) -> Answer:
    provider_id = call.ids["provider_id"]
    one = await call.app.providers.get(call.workspace_id, provider_id)
    result = await call.app.provider_trials.run(
        call.workspace_id, provider_id, call.body.sender, call.body.to
    )
    tried = change_of("provider.test", one, None, {"to": call.body.to, "outcome": result.outcome})
    async with call.app.database.transaction() as tx:
        return await call.done(
            tx,
            ProviderTestResult(
                outcome=result.outcome, reply_code=result.reply_code, reply=result.reply
            ),
            tried,
        )


ROUTES = (
    Route(
        "POST",
        "/v1/providers",
        create_provider,
        "createProvider",
        TAG,
        "Add a provider",
        scope.PROVIDERS_WRITE,
        status=201,
        answer=ProviderItem,
        body=NewProviderBody,
        errors=(409,),
        description="It gets mail once a route names it.",
    ),
    Route(
        "GET",
        "/v1/providers",
        list_providers,
        "listProviders",
        TAG,
        "List providers and how they fare",
        scope.PROVIDERS_READ,
        answer=ProviderPage,
        query=PageQuery,
    ),
    Route(
        "GET",
        "/v1/providers/{provider_id:prv}",
        get_provider,
        "getProvider",
        TAG,
        "Read a provider, how it fares and what its breaker did",
        scope.PROVIDERS_READ,
        answer=ProviderDetail,
    ),
    Route(
        "PATCH",
        "/v1/providers/{provider_id:prv}",
        change_provider,
        "changeProvider",
        TAG,
        "Change a provider, switch it off and on",
        scope.PROVIDERS_WRITE,
        answer=ProviderItem,
        body=ChangedProvider,
        errors=(409,),
        description="Workers follow within a second or two; what is under way is finished.",
    ),
    Route(
        "DELETE",
        "/v1/providers/{provider_id:prv}",
        remove_provider,
        "removeProvider",
        TAG,
        "Remove a provider that no route names",
        scope.PROVIDERS_WRITE,
        status=204,
        errors=(409,),
    ),
    Route(
        "POST",
        "/v1/providers/{provider_id:prv}/test",
        test_provider,
        "testProvider",
        TAG,
        "Send one test mail through a provider now",
        scope.PROVIDERS_WRITE,
        answer=ProviderTestResult,
        body=ProviderTest,
        errors=(409,),
        idempotency="none",
    ),
)
