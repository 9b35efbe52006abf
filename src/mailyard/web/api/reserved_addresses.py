"""Addresses that a workspace holds, with or without an inbox."""

from typing import Annotated

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core import limits
from mailyard.web.api.page import Input, Output
from mailyard.web.api.route import Answer, Call, Route

TAG = "Inboxes"
_Address = Annotated[str, Meta(min_length=3, max_length=320)]


class NewReservedAddresses(Input):
    """Addresses to hold for this workspace."""

    addresses: Annotated[list[_Address], Meta(min_length=1, max_length=limits.INBOXES_PER_BATCH)]


class ReservedQuery(Input):
    """Which reserved addresses to list."""

    after: Annotated[str, Meta(max_length=320, description="Those after this address.")] = ""
    limit: Annotated[int, Meta(ge=1, le=limits.API_PAGE_ITEMS_MAX)] = limits.API_PAGE_ITEMS


class ReservedAddressList(Output):
    """Addresses that nobody else can have an inbox at, in order."""

    items: list[str]


async def reserve_addresses(call: Call[NewReservedAddresses, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        held = await call.app.reservations.reserve(call.workspace_id, call.body.addresses, tx)
        changes = [Change("address.reserve", address, None, {}) for address in held]
        return await call.done(tx, ReservedAddressList(items=held), *changes)


async def list_reserved(call: Call[None, ReservedQuery]) -> ReservedAddressList:
    query = call.query
    found = await call.app.reservations.list(call.workspace_id, query.after, query.limit)
    return ReservedAddressList(items=found)


async def release_addresses(call: Call[NewReservedAddresses, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        gone = await call.app.reservations.release(call.workspace_id, call.body.addresses, tx)
        changes = [Change("address.release", address, {}, None) for address in gone]
        return await call.done(tx, ReservedAddressList(items=gone), *changes)


ROUTES = (
    Route(
        "POST",
        "/v1/reserved-addresses",
        reserve_addresses,
        "reserveAddresses",
        TAG,
        "Hold addresses, with or without an inbox",
        scope.INBOXES_WRITE,
        status=201,
        answer=ReservedAddressList,
        body=NewReservedAddresses,
        description="No other workspace can make an inbox there, also after yours has ended. "
        "All are held, or none.",
    ),
    Route(
        "GET",
        "/v1/reserved-addresses",
        list_reserved,
        "listReservedAddresses",
        TAG,
        "List the addresses that are held for this workspace",
        scope.INBOXES_READ,
        answer=ReservedAddressList,
        query=ReservedQuery,
    ),
    Route(
        "POST",
        "/v1/reserved-addresses/release",
        release_addresses,
        "releaseAddresses",
        TAG,
        "Let addresses go",
        scope.INBOXES_WRITE,
        answer=ReservedAddressList,
        body=NewReservedAddresses,
        description="The answer names those that were held.",
    ),
)
