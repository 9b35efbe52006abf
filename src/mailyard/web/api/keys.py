"""API keys: made, listed, revoked."""

from typing import Annotated, Any, Literal

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.key import ApiKey
from mailyard.core import ids
from mailyard.web.api.page import (
    Input,
    KeyId,
    Moment,
    NextCursor,
    Output,
    PageQuery,
    page_of,
    read_cursor,
)
from mailyard.web.api.route import Call, Route

TAG = "API keys"


class NewKey(Input):
    """A key to make."""

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    scopes: Annotated[
        list[Literal[tuple(scope.SCOPES)]],  # type: ignore[valid-type]  # the table of scopes
        Meta(
            min_length=1,
            max_length=len(scope.SCOPES),
            description="What the key may do; a write brings its read, `admin` everything.",
            examples=[["emails:send", "inboxes:read"]],
        ),
    ]


class KeyItem(Output):
    """An API key as it is listed."""

    id: KeyId
    name: str
    prefix: Annotated[str, Meta(description="How a key begins: `my_<prefix>_`.")]
    scopes: list[str]
    created_at: Moment
    revoked_at: Moment | None


class CreatedKey(KeyItem):
    """A key just made, with its secret: it is shown this once."""

    secret: Annotated[str, Meta(description="The whole key. Keep it now; it is not stored.")]


class KeyPage(Output):
    """Keys, newest first, revoked ones included."""

    items: list[KeyItem]
    next_cursor: NextCursor


def _key_fields(key: ApiKey) -> dict[str, Any]:
    return {
        "id": ids.type_id(ids.API_KEY, key.id),
        "name": key.name,
        "prefix": key.prefix,
        "scopes": list(key.scopes),
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
    }


async def create_key(call: Call[NewKey, None]) -> CreatedKey:
    made = await call.app.keys.create(
        call.workspace_id, call.body.name, call.body.scopes, actor=call.principal.actor
    )
    return CreatedKey(**_key_fields(made.key), secret=made.secret)


async def list_keys(call: Call[None, PageQuery]) -> KeyPage:
    cursor = read_cursor(call.query.cursor)
    before = {"before_id": cursor} if cursor is not None else {}
    keys = await call.app.keys.list(call.workspace_id, limit=call.query.limit, **before)
    return page_of(KeyPage, keys, lambda key: KeyItem(**_key_fields(key)), call.query.limit)


async def get_key(call: Call[None, None]) -> KeyItem:
    return KeyItem(**_key_fields(await call.app.keys.get(call.workspace_id, call.ids["key_id"])))


async def revoke_key(call: Call[None, None]) -> KeyItem:
    key = await call.app.keys.revoke(
        call.workspace_id, call.ids["key_id"], actor=call.principal.actor
    )
    return KeyItem(**_key_fields(key))


ROUTES = (
    Route(
        "POST",
        "/v1/keys",
        create_key,
        "createKey",
        TAG,
        "Make an API key",
        scope.ADMIN,
        status=201,
        answer=CreatedKey,
        body=NewKey,
        # A kept answer would keep the secret, which is stored nowhere.
        idempotency="none",
    ),
    Route(
        "GET",
        "/v1/keys",
        list_keys,
        "listKeys",
        TAG,
        "List API keys",
        scope.ADMIN,
        answer=KeyPage,
        query=PageQuery,
    ),
    Route(
        "GET",
        "/v1/keys/{key_id:key}",
        get_key,
        "getKey",
        TAG,
        "Read an API key's record",
        scope.ADMIN,
        answer=KeyItem,
    ),
    Route(
        "POST",
        "/v1/keys/{key_id:key}/revoke",
        revoke_key,
        "revokeKey",
        TAG,
        "Revoke an API key",
        scope.ADMIN,
        answer=KeyItem,
        description="When this is answered, it works nowhere any more.",
    ),
)
