"""What the API's inputs and outputs share: strict input, pages, cursors, ids, times."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Protocol, TypeVar
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

from mailyard.core import ids
from mailyard.core.errors import InvalidInput
from mailyard.core.limits import API_PAGE_ITEMS, API_PAGE_ITEMS_MAX

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CURSOR = "^[A-Za-z0-9_-]{22}$"


class _Identified(Protocol):
    @property
    def id(self) -> UUID: ...


Found = TypeVar("Found", bound=_Identified)
Page = TypeVar("Page", bound="Output")


class Input(Struct, forbid_unknown_fields=True):
    """What a caller sends. A field that is not named here is an error."""


class Output(Struct):
    """What a caller gets. Every field is always there."""


Moment = Annotated[
    datetime,
    Meta(
        tz=True,
        description="RFC 3339, with its offset.",
        examples=["2026-01-31T12:00:00Z"],
    ),
]
Limit = Annotated[
    int, Meta(ge=1, le=API_PAGE_ITEMS_MAX, description="How many items at most on this page.")
]
Cursor = Annotated[
    str, Meta(pattern=_CURSOR, description="`next_cursor` of the page before this one.")
]
NameCursor = Annotated[
    str,
    Meta(
        pattern="^[A-Za-z0-9_-]{1,1500}$",
        description="`next_cursor` of the page before this one.",
    ),
]
NextCursor = Annotated[
    str | None, Meta(description="Give it as `cursor` for the next page; null on the last.")
]


def id_pattern(prefix: str) -> str:
    """The pattern of a TypeID."""
    return f"^{prefix}_[0-7][0-9a-hjkmnp-tv-z]{{25}}$"


def _id(prefix: str, what: str) -> Meta:
    """What a TypeID looks like, and what the documentation says of it."""
    example = ids.type_id(prefix, UUID("01890a5d-ac96-774b-bcce-b302099a8057"))
    return Meta(
        pattern=id_pattern(prefix), description=f"The id of the {what}.", examples=[example]
    )


WorkspaceId = Annotated[str, _id(ids.WORKSPACE, "workspace")]
UserId = Annotated[str, _id(ids.USER, "person")]
InvitationId = Annotated[str, _id(ids.INVITATION, "invitation")]
KeyId = Annotated[str, _id(ids.API_KEY, "API key")]
InboxId = Annotated[str, _id(ids.INBOX, "inbox")]
ReceivingDomainId = Annotated[str, _id(ids.RECEIVING_DOMAIN, "receiving domain")]
InboundRouteId = Annotated[str, _id(ids.INBOUND_ROUTE, "inbound route")]
MessageId = Annotated[str, _id(ids.MESSAGE, "message")]
ThreadId = Annotated[str, _id(ids.THREAD, "thread")]
DraftId = Annotated[str, _id(ids.DRAFT, "draft")]
MailboxTextId = Annotated[str, _id(ids.MAILBOX_TEXT, "template or signature")]
EmailId = Annotated[str, _id(ids.EMAIL, "email")]
DeliveryId = Annotated[str, _id(ids.DELIVERY, "delivery")]
TemplateId = Annotated[str, _id(ids.TEMPLATE, "template")]
ContactId = Annotated[str, _id(ids.CONTACT, "contact")]
ListId = Annotated[str, _id(ids.LIST, "list")]
SegmentId = Annotated[str, _id(ids.SEGMENT, "segment")]
ImportId = Annotated[str, _id(ids.IMPORT, "import")]
CampaignId = Annotated[str, _id(ids.CAMPAIGN, "campaign")]
DomainId = Annotated[str, _id(ids.DOMAIN, "sending domain")]
ProviderHookId = Annotated[str, _id(ids.PROVIDER_HOOK, "address for a provider's events")]
ProviderId = Annotated[str, _id(ids.PROVIDER, "provider")]
ModelId = Annotated[str, _id(ids.MODEL, "model")]
SuppressionId = Annotated[str, _id(ids.SUPPRESSION, "suppression")]
TopicId = Annotated[str, _id(ids.TOPIC, "topic")]
TrackingDomainId = Annotated[str, _id(ids.TRACKING_DOMAIN, "tracking domain")]
LinkId = Annotated[str, _id(ids.LINK, "link")]
AuditId = Annotated[str, _id(ids.AUDIT, "entry")]
WebhookId = Annotated[str, _id(ids.WEBHOOK, "webhook")]
WebhookDeliveryId = Annotated[str, _id(ids.WEBHOOK_DELIVERY, "webhook's delivery")]
WebhookReplayId = Annotated[str, _id(ids.WEBHOOK_REPLAY, "replay")]
DemoId = Annotated[str, _id(ids.DEMO, "demo run")]


class PageQuery(Input):
    """Where in a list to go on, and how far."""

    limit: Limit = API_PAGE_ITEMS
    cursor: Cursor | None = None


def read_cursor(text: str | None) -> UUID | None:
    """The id behind a cursor. Raises InvalidInput."""
    if text is None:
        return None
    try:
        return UUID(bytes=urlsafe_b64decode(text + "=="))
    except ValueError:
        raise InvalidInput("this is no cursor of this list", field="cursor") from None


def write_cursor(last: UUID | None) -> str | None:
    """The cursor behind an id."""
    return None if last is None else urlsafe_b64encode(last.bytes).decode().rstrip("=")


def read_names(cursor: str | None, count: int) -> list[str]:
    """The names behind a cursor. Raises InvalidInput."""
    if cursor is None:
        return [""] * count
    try:
        names = msgspec.json.decode(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, msgspec.DecodeError):
        names = None
    if (
        not isinstance(names, list)
        or len(names) != count
        or not all(isinstance(name, str) and "\0" not in name for name in names)
    ):
        raise InvalidInput("this is no cursor of this list", field="cursor")
    return names


def write_names(*names: str) -> str:
    """The cursor behind names."""
    return urlsafe_b64encode(msgspec.json.encode(names)).decode().rstrip("=")


def page_of(
    page: Callable[..., Page], found: Sequence[Found], item: Callable[[Found], Any], limit: int
) -> Page:
    """A `page` of what was found, each as an `item`; one that is not full is the last."""
    full = len(found) >= limit and bool(found)
    return page(
        items=[item(one) for one in found],
        next_cursor=write_cursor(found[-1].id if full else None),
    )


def since_epoch(moment: datetime | None) -> datetime | None:
    """The moment, or 1970 for an earlier one: no id is older."""
    return None if moment is None else max(moment, _EPOCH)
