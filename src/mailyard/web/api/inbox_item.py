"""Inboxes as the API takes, shows and logs them."""

# ruff: noqa: RUF012 (msgspec copies a default that is a list or an object)

from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType

from mailyard.core import ids, limits
from mailyard.mailbox.inbox_value import Inbox
from mailyard.mailbox.inbox_value import NewInbox as Wanted
from mailyard.web.api.page import InboxId, Input, Moment, Output

_Ttl = Annotated[
    float,
    Meta(ge=1, le=limits.INBOX_TTL_S, description="Seconds to live; without it for ever."),
]
_Labels = Annotated[
    list[Annotated[str, Meta(min_length=1, max_length=limits.INBOX_LABEL_CHARACTERS)]],
    Meta(max_length=limits.INBOX_LABELS),
]
_Name = Annotated[str, Meta(max_length=limits.INBOX_NAME_CHARACTERS)]
_MessageTtl = Annotated[
    float,
    Meta(
        ge=1,
        le=limits.INBOX_TTL_S,
        description="Seconds that its mail lives; without it as long as the inbox.",
    ),
]
_MessagesMax = Annotated[
    int,
    Meta(
        ge=1,
        le=limits.INBOX_MESSAGES_MAX,
        description="How many messages it holds; more are refused (452) until there is room.",
    ),
]
_BytesMax = Annotated[
    int,
    Meta(
        ge=1,
        le=limits.INBOX_BYTES_MAX,
        description="How many bytes of mail it holds; more are refused until there is room (452), "
        "a message larger than that for good (552).",
    ),
]
_OneTime = Annotated[
    bool, Meta(description="Its first mail closes it: later ones are refused, it can be read.")
]


class NewInbox(Input):
    """An inbox to make."""

    address: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=320,
                description="A whole address, or the part before @; without it one is generated.",
                examples=["signup-test"],
            ),
        ]
        | None
    ) = None
    ttl_s: _Ttl | None = None
    name: _Name = ""
    labels: _Labels = []
    message_ttl_s: _MessageTtl | None = None
    one_time: _OneTime = False
    messages_max: _MessagesMax | None = None
    bytes_max: _BytesMax | None = None


class NewInboxes(Input):
    """Inboxes to make, all or none."""

    inboxes: Annotated[list[NewInbox], Meta(min_length=1, max_length=limits.INBOXES_PER_BATCH)]


class InboxChange(Input):
    """What to change of an inbox. What is left out stays as it is."""

    name: _Name | UnsetType = UNSET
    labels: _Labels | UnsetType = UNSET
    message_ttl_s: _MessageTtl | UnsetType | None = UNSET
    messages_max: _MessagesMax | UnsetType | None = UNSET
    bytes_max: _BytesMax | UnsetType | None = UNSET


class InboxExtension(Input):
    """How long the inbox lives from now."""

    ttl_s: Annotated[_Ttl | None, Meta(description="Null: for ever.")]


class InboxItem(Output):
    """An inbox."""

    id: InboxId
    address: str
    name: str
    labels: list[str]
    created_at: Moment
    expires_at: Annotated[Moment | None, Meta(description="Null: it lives for ever.")]
    message_ttl_s: Annotated[
        float | None, Meta(description="How long its mail lives; null: as long as it does.")
    ]
    one_time: _OneTime
    messages_max: int | None
    bytes_max: int | None


def item_of(inbox: Inbox) -> InboxItem:
    return InboxItem(
        id=ids.type_id(ids.INBOX, inbox.id),
        address=inbox.address,
        name=inbox.name,
        labels=list(inbox.labels),
        created_at=inbox.created_at,
        expires_at=inbox.expires_at,
        message_ttl_s=inbox.message_ttl_s,
        one_time=inbox.one_time,
        messages_max=inbox.messages_max,
        bytes_max=inbox.bytes_max,
    )


def told(inbox: Inbox) -> dict[str, Any]:
    """An inbox as the audit log keeps it."""
    return {
        "address": inbox.address,
        "name": inbox.name,
        "labels": inbox.labels,
        "expires_at": inbox.expires_at,
        "message_ttl_s": inbox.message_ttl_s,
        "one_time": inbox.one_time,
        "messages_max": inbox.messages_max,
        "bytes_max": inbox.bytes_max,
    }


def wanted_of(one: NewInbox) -> Wanted:
    return Wanted(
        one.address,
        one.ttl_s,
        one.name,
        tuple(one.labels),
        one.message_ttl_s,
        one.one_time,
        one.messages_max,
        one.bytes_max,
    )
