"""Inboxes: made by one call, with a time to live."""

from collections.abc import Callable
from typing import Annotated, Any

from msgspec import Meta, UnsetType

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core import ids, limits
from mailyard.core.errors import NotFound
from mailyard.web.api.inbox_item import (
    InboxChange,
    InboxExtension,
    InboxItem,
    NewInbox,
    NewInboxes,
    item_of,
    told,
    wanted_of,
)
from mailyard.web.api.page import (
    InboxId,
    Input,
    NextCursor,
    Output,
    PageQuery,
    read_cursor,
    write_cursor,
)
from mailyard.web.api.route import Answer, Call, Route

TAG = "Inboxes"


class InboxList(Output):
    """Inboxes, in the order asked for."""

    items: list[InboxItem]


class InboxPage(Output):
    """Inboxes, newest first."""

    items: list[InboxItem]
    next_cursor: NextCursor


class InboxesQuery(PageQuery):
    """Which inboxes to list."""

    label: Annotated[str, Meta(max_length=limits.INBOX_LABEL_CHARACTERS)] = ""
    address: (
        Annotated[str, Meta(max_length=320, description="Only the inbox of this address.")] | None
    ) = None


async def _make(
    call: Call[Any, None],
    wanted: list[NewInbox],
    answer: Callable[[list[InboxItem]], InboxItem | InboxList],
) -> Answer:
    async with call.app.database.transaction() as tx:
        made = await call.app.inboxes.create(
            call.workspace_id,
            [wanted_of(one) for one in wanted],
            tx=tx,
        )
        changes = [
            Change("inbox.create", ids.type_id(ids.INBOX, inbox.id), None, told(inbox))
            for inbox in made
        ]
        return await call.done(tx, answer([item_of(inbox) for inbox in made]), *changes)


async def create_inbox(call: Call[NewInbox, None]) -> Answer:
    return await _make(call, [call.body], lambda items: items[0])


async def create_inboxes(call: Call[NewInboxes, None]) -> Answer:
    return await _make(call, call.body.inboxes, lambda items: InboxList(items=items))


async def list_inboxes(call: Call[None, InboxesQuery]) -> InboxPage:
    query = call.query
    if query.address is not None:
        try:
            inbox = await call.app.inboxes.find(call.workspace_id, query.address)
        except NotFound:
            return InboxPage(items=[], next_cursor=None)
        return InboxPage(items=[item_of(inbox)], next_cursor=None)
    page = await call.app.inboxes.list(
        call.workspace_id,
        label=query.label,
        before=read_cursor(query.cursor),
        limit=query.limit,
    )
    return InboxPage(
        items=[item_of(inbox) for inbox in page.items], next_cursor=write_cursor(page.next_before)
    )


async def get_inbox(call: Call[None, None]) -> InboxItem:
    return item_of(await call.app.inboxes.get(call.workspace_id, call.ids["inbox_id"]))


async def change_inbox(call: Call[InboxChange, None]) -> Answer:
    body, inbox_id = call.body, call.ids["inbox_id"]
    before = await call.app.inboxes.get(call.workspace_id, inbox_id)
    async with call.app.database.transaction() as tx:
        after = await call.app.inboxes.relabel(
            call.workspace_id,
            inbox_id,
            name=None if isinstance(body.name, UnsetType) else body.name,
            labels=None if isinstance(body.labels, UnsetType) else body.labels,
            tx=tx,
        )
        limited = [
            _given(one, old)
            for one, old in (
                (body.message_ttl_s, before.message_ttl_s),
                (body.messages_max, before.messages_max),
                (body.bytes_max, before.bytes_max),
            )
        ]
        if limited != [before.message_ttl_s, before.messages_max, before.bytes_max]:
            after = await call.app.inboxes.limit(
                call.workspace_id,
                inbox_id,
                message_ttl_s=limited[0],
                messages_max=limited[1],
                bytes_max=limited[2],
                tx=tx,
            )
        subject = ids.type_id(ids.INBOX, inbox_id)
        changed = Change("inbox.change", subject, told(before), told(after))
        return await call.done(tx, item_of(after), changed)


def _given(value: Any, before: Any) -> Any:
    return before if isinstance(value, UnsetType) else value


async def extend_inbox(call: Call[InboxExtension, None]) -> Answer:
    inbox_id = call.ids["inbox_id"]
    before = await call.app.inboxes.get(call.workspace_id, inbox_id)
    async with call.app.database.transaction() as tx:
        after = await call.app.inboxes.extend(call.workspace_id, inbox_id, call.body.ttl_s, tx=tx)
        extended = Change(
            "inbox.extend",
            ids.type_id(ids.INBOX, inbox_id),
            {"expires_at": before.expires_at},
            {"expires_at": after.expires_at},
        )
        return await call.done(tx, item_of(after), extended)


class PurgeQueued(Output):
    """The inboxes that are gone; their bytes follow."""

    inbox_ids: list[InboxId]


class InboxesToPurge(Input):
    """Inboxes to purge, living, deleted or expired."""

    inbox_ids: Annotated[list[InboxId], Meta(min_length=1, max_length=limits.INBOXES_PER_BATCH)]


async def purge_inboxes(call: Call[InboxesToPurge, None]) -> Answer:
    wanted = list(dict.fromkeys(call.body.inbox_ids))
    found = [
        ids.parse_type_id(ids.INBOX, text, f"inbox_ids.{place}")
        for place, text in enumerate(wanted)
    ]
    async with call.app.database.transaction() as tx:
        await call.app.purges.ask(call.workspace_id, found, tx)
        changes = [Change("inbox.purge", subject, {}, None) for subject in wanted]
        return await call.done(tx, PurgeQueued(inbox_ids=wanted), *changes)


async def delete_inbox(call: Call[None, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        gone = await call.app.inboxes.delete(call.workspace_id, [call.ids["inbox_id"]], tx=tx)
        if not gone:
            raise NotFound("no such inbox")
        subject = ids.type_id(ids.INBOX, gone[0].id)
        return await call.done(tx, None, Change("inbox.delete", subject, told(gone[0]), None))


ROUTES = (
    Route(
        "POST",
        "/v1/inboxes",
        create_inbox,
        "createInbox",
        TAG,
        "Make an inbox",
        scope.INBOXES_WRITE,
        status=201,
        answer=InboxItem,
        body=NewInbox,
        errors=(402,),
    ),
    Route(
        "POST",
        "/v1/inboxes/batch",
        create_inboxes,
        "createInboxes",
        TAG,
        "Make many inboxes",
        scope.INBOXES_WRITE,
        status=201,
        answer=InboxList,
        body=NewInboxes,
        body_bytes=8 * limits.MIB,
        errors=(402,),
    ),
    Route(
        "GET",
        "/v1/inboxes",
        list_inboxes,
        "listInboxes",
        TAG,
        "List inboxes",
        scope.INBOXES_READ,
        answer=InboxPage,
        query=InboxesQuery,
    ),
    Route(
        "GET",
        "/v1/inboxes/{inbox_id:ibx}",
        get_inbox,
        "getInbox",
        TAG,
        "Read an inbox",
        scope.INBOXES_READ,
        answer=InboxItem,
    ),
    Route(
        "PATCH",
        "/v1/inboxes/{inbox_id:ibx}",
        change_inbox,
        "changeInbox",
        TAG,
        "Change an inbox's name, labels or limits",
        scope.INBOXES_WRITE,
        answer=InboxItem,
        body=InboxChange,
    ),
    Route(
        "POST",
        "/v1/inboxes/{inbox_id:ibx}/extend",
        extend_inbox,
        "extendInbox",
        TAG,
        "Let an inbox live longer, or shorter",
        scope.INBOXES_WRITE,
        answer=InboxItem,
        body=InboxExtension,
        errors=(402,),
    ),
    Route(
        "POST",
        "/v1/inboxes/purge",
        purge_inboxes,
        "purgeInboxes",
        TAG,
        "Purge inboxes: leave no byte of them behind",
        scope.INBOXES_WRITE,
        status=202,
        answer=PurgeQueued,
        body=InboxesToPurge,
        errors=(404,),
        description="They are gone at once, their mail is deleted within seconds: from every table "
        "and index, from caches, from live events, from what webhooks were told and from what the "
        "audit log said of them. Mail that another inbox has too stays there.",
    ),
    Route(
        "DELETE",
        "/v1/inboxes/{inbox_id:ibx}",
        delete_inbox,
        "deleteInbox",
        TAG,
        "Delete an inbox with its mail",
        scope.INBOXES_WRITE,
        status=204,
    ),
)
