"""Where providers send their events: making such addresses, and taking what comes to them."""

from typing import Annotated, Any, Literal

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core import ids
from mailyard.core.limits import HOOK_BODY_BYTES
from mailyard.sending.returns.hook import ProviderHook
from mailyard.web.api.body import read_body
from mailyard.web.api.page import (
    Input,
    Moment,
    NextCursor,
    Output,
    PageQuery,
    ProviderHookId,
    page_of,
    read_cursor,
)
from mailyard.web.api.route import Answer, Call, Route

TAG = "Provider events"
_SECRET = (
    "What its requests are checked with. SES: the ARN of the SNS topic. SendGrid: the verification "
    "key of the signed event webhook. Postmark: `name:password`, as in the address that it is "
    "given. Mailgun: the HTTP webhook signing key. Resend: the signing secret, `whsec_…`."
)


class NewProviderHook(Input):
    """An address for a provider's events."""

    kind: Literal["ses", "sendgrid", "postmark", "mailgun", "resend"]
    name: Annotated[str, Meta(min_length=1, max_length=100, examples=["SES in Frankfurt"])]
    secret: Annotated[str, Meta(min_length=1, max_length=2000, description=_SECRET)]


class HookSecret(Input):
    """Another secret, because the provider's has been changed."""

    secret: Annotated[str, Meta(min_length=1, max_length=2000, description=_SECRET)]


class ProviderHookItem(Output):
    """An address to which a provider sends its events."""

    id: ProviderHookId
    kind: str
    name: str
    confirmed_at: Annotated[
        Moment | None, Meta(description="SES: when the topic's subscription was confirmed.")
    ]
    created_at: Moment


class MadeProviderHook(ProviderHookItem):
    """A new address. Its `url` is shown once."""

    url: str


class ProviderHookPage(Output):
    """Addresses for events, newest first."""

    items: list[ProviderHookItem]
    next_cursor: NextCursor


class Taken(Output):
    """The events are stored and will be applied."""

    taken: bool


def _fields(hook: ProviderHook) -> dict[str, Any]:
    return {
        "id": ids.type_id(ids.PROVIDER_HOOK, hook.id),
        "kind": hook.kind,
        "name": hook.name,
        "confirmed_at": hook.confirmed_at,
        "created_at": hook.created_at,
    }


def _item(hook: ProviderHook) -> ProviderHookItem:
    return ProviderHookItem(**_fields(hook))


def _change(action: str, hook: ProviderHook, before: Any, after: Any) -> Change:
    return Change(action, ids.type_id(ids.PROVIDER_HOOK, hook.id), before, after)


def told(hook: ProviderHook) -> dict[str, str]:
    """An address as the audit log keeps it."""
    return {"kind": hook.kind, "name": hook.name}


def url_of(page_url: str, kind: str, token: str) -> str:
    """What the provider is told."""
    return f"{page_url}/v1/hooks/{kind}/{token}"


async def create_hook(call: Call[NewProviderHook, None]) -> Answer:
    body = call.body
    async with call.app.database.transaction() as tx:
        made = await call.app.provider_hooks.create(
            call.workspace_id, body.kind, body.name, body.secret, tx
        )
        answer = MadeProviderHook(
            **_fields(made.hook), url=url_of(call.app.settings.page_url, body.kind, made.token)
        )
        change = _change("provider_hook.create", made.hook, None, told(made.hook))
        return await call.done(tx, answer, change)


async def list_hooks(call: Call[None, PageQuery]) -> ProviderHookPage:
    query = call.query
    found = await call.app.provider_hooks.page(
        call.workspace_id, before=read_cursor(query.cursor), limit=query.limit
    )
    return page_of(ProviderHookPage, found, _item, query.limit)


async def get_hook(call: Call[None, None]) -> ProviderHookItem:
    return _item(await call.app.provider_hooks.get(call.workspace_id, call.ids["hook_id"]))


async def change_secret(call: Call[HookSecret, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        hook = await call.app.provider_hooks.change_secret(
            call.workspace_id, call.ids["hook_id"], call.body.secret, tx
        )
        change = _change("provider_hook.secret", hook, told(hook), told(hook))
        return await call.done(tx, _item(hook), change)


async def remove_hook(call: Call[None, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        hook = await call.app.provider_hooks.remove(call.workspace_id, call.ids["hook_id"], tx)
        return await call.done(tx, None, _change("provider_hook.remove", hook, told(hook), None))


async def take_events(call: Call[None, None]) -> Taken:
    length = call.headers.get(b"content-length", b"").decode("latin-1")
    body = await read_body(
        call.receive, int(length) if length.isdecimal() else None, HOOK_BODY_BYTES
    )
    await call.app.hook_intake.take(call.names["kind"], call.names["token"], call.headers, body)
    return Taken(taken=True)


ROUTES = (
    Route(
        "POST",
        "/v1/provider-hooks",
        create_hook,
        "createProviderHook",
        TAG,
        "Make an address for a provider's events",
        scope.HOOKS_WRITE,
        status=201,
        answer=MadeProviderHook,
        body=NewProviderHook,
        idempotency="none",
        description="Give its `url` to the provider. It is shown once.",
    ),
    Route(
        "GET",
        "/v1/provider-hooks",
        list_hooks,
        "listProviderHooks",
        TAG,
        "List the addresses for providers' events",
        scope.HOOKS_READ,
        answer=ProviderHookPage,
        query=PageQuery,
    ),
    Route(
        "GET",
        "/v1/provider-hooks/{hook_id:hok}",
        get_hook,
        "getProviderHook",
        TAG,
        "Read an address for a provider's events",
        scope.HOOKS_READ,
        answer=ProviderHookItem,
    ),
    Route(
        "PUT",
        "/v1/provider-hooks/{hook_id:hok}/secret",
        change_secret,
        "changeProviderHookSecret",
        TAG,
        "Change what a provider's requests are checked with",
        scope.HOOKS_WRITE,
        answer=ProviderHookItem,
        body=HookSecret,
    ),
    Route(
        "DELETE",
        "/v1/provider-hooks/{hook_id:hok}",
        remove_hook,
        "removeProviderHook",
        TAG,
        "Remove an address for a provider's events",
        scope.HOOKS_WRITE,
        status=204,
    ),
    Route(
        "POST",
        "/v1/hooks/{kind}/{token}",
        take_events,
        "takeProviderEvents",
        TAG,
        "Take a provider's events",
        None,
        answer=Taken,
        upload=("application/json", "text/plain"),
        errors=(401, 409),
        counted=False,
        description="For providers: bounces, complaints, confirmations. 200 means durable. What "
        "the provider has not signed, or has signed more than five minutes ago (SES: an hour, for "
        "SNS repeats a message under its first signature), is refused, and so is what was taken "
        "before (409).",
    ),
)
