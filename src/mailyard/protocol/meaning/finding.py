"""What is found in a mail. Everything names its evidence: the part, and offsets in it.

Offsets count Unicode code points. The API shows these values as they are.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Part = Literal["subject", "text", "html"]
SUBJECT: Part = "subject"
TEXT: Part = "text"
HTML: Part = "html"

_Offset = Annotated[int, Meta(description="In Unicode code points.")]


class Evidence(Struct, frozen=True, gc=False):
    """Where something stands: `start` to `end` (exclusive) of a part."""

    part: Annotated[
        Part,
        Meta(description="`text`: `content.text`; `html`: the text that the HTML shows."),
    ]
    start: _Offset
    end: _Offset
    quote: Annotated[str, Meta(description="What stands there, at most 200 characters.")]


class OneTimeCode(Struct, frozen=True, gc=False):
    """A one-time code."""

    value: Annotated[str, Meta(description="As it is to be typed.")]
    certainty: Literal["high", "medium"]
    evidence: tuple[Evidence, ...]


class MagicLink(Struct, frozen=True, gc=False):
    """A link that does something once."""

    url: str
    purpose: Literal["sign_in", "confirm", "reset", "invite"]
    label: str
    evidence: Evidence


class UnsubscribeWay(Struct, frozen=True, gc=False):
    """A way off a list."""

    method: Annotated[
        Literal["one_click", "link", "mail"],
        Meta(description="`one_click`: a POST to it is enough (RFC 8058)."),
    ]
    url: str
    evidence: Annotated[
        Evidence | None, Meta(description="Null: it stands in the header (RFC 2369).")
    ]


class ParcelNumber(Struct, frozen=True, gc=False):
    """A tracking number."""

    number: str
    carrier: str
    checked: Annotated[bool, Meta(description="Its check digit holds; else it has none.")]
    evidence: Evidence


OrderKind = Literal["order", "invoice", "booking", "ticket"]


class OrderNumber(Struct, frozen=True, gc=False):
    """A number that the mail is about."""

    number: str
    kind: OrderKind
    evidence: Evidence


class FoundDay(Struct, frozen=True, gc=False):
    """A date, with its time of day where one stands behind it."""

    value: Annotated[str, Meta(examples=["2026-03-31", "2026-03-31T14:00"])]
    ambiguous: Annotated[
        bool, Meta(description="It could be the other way round; here the day comes first.")
    ]
    evidence: Evidence


class FoundAmount(Struct, frozen=True, gc=False):
    """A sum of money."""

    value: Annotated[str, Meta(examples=["1234.50"])]
    currency: Annotated[
        str, Meta(description="ISO 4217; a sign that several currencies share stays as it is.")
    ]
    evidence: Evidence


class TextSpan(Struct, frozen=True, gc=False):
    """A stretch of a part."""

    start: _Offset
    end: _Offset


class WrittenReply(Struct, frozen=True, gc=False):
    """What the writer wrote, without the mail that it answers and what stands underneath."""

    text: str
    part: Part
    spans: Annotated[tuple[TextSpan, ...], Meta(description="Where it stands in the part.")]
    signature: TextSpan | None


class Findings(Struct, frozen=True, gc=False):
    """What rules find in a mail. It proves nothing of the sender."""

    codes: Annotated[tuple[OneTimeCode, ...], Meta(description="The likeliest first.")]
    links: tuple[MagicLink, ...]
    unsubscribe: tuple[UnsubscribeWay, ...]
    parcels: tuple[ParcelNumber, ...]
    orders: tuple[OrderNumber, ...]
    days: tuple[FoundDay, ...]
    amounts: tuple[FoundAmount, ...]
    reply: WrittenReply
