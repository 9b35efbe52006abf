"""What is found in a mail. Everything names its evidence: the part, and offsets in it.

Offsets count Unicode code points. The part is `subject`, `text` (the text part as the API gives it)
or `html` (the text that the HTML part shows, see `visible.py`).
"""

from dataclasses import dataclass

SUBJECT, TEXT, HTML = "subject", "text", "html"


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where it stands: `start` to `end` (exclusive) of `part`, which reads `quote` there."""

    part: str
    start: int
    end: int
    quote: str


@dataclass(frozen=True, slots=True)
class Code:
    """A one-time code as it is to be typed. `certainty`: `high` where the mail says what it is."""

    value: str
    certainty: str
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class Link:
    """A link that does something once. `purpose`: `sign_in`, `confirm`, `reset`, `invite`."""

    url: str
    purpose: str
    label: str
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """A way off a list. `method`: `one_click` (RFC 8058: POST), `link`, `mail`. Without evidence it
    stands in the header (RFC 2369)."""

    method: str
    url: str
    evidence: Evidence | None


@dataclass(frozen=True, slots=True)
class Parcel:
    """A tracking number whose check digit holds (`checked`), or that its carrier has none of."""

    number: str
    carrier: str
    checked: bool
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Order:
    """A number that the mail is about. `kind`: `order`, `invoice`, `booking`, `ticket`."""

    number: str
    kind: str
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Day:
    """A date, with its time of day where one stands behind it: `2026-03-31`, `2026-03-31T14:00`.

    `ambiguous`: day and month could be the other way round; the value has the day first.
    """

    value: str
    ambiguous: bool
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Amount:
    """A sum of money: a decimal without separators, and its ISO 4217 code, or the sign as it stands
    where several currencies share it (`$`, `¥`, `kr`)."""

    value: str
    currency: str
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the text part."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Reply:
    """What the writer wrote: `text`, joined from `spans` of the part `part`. What is not in a span
    is a quote, an attribution, or `signature`."""

    text: str
    part: str
    spans: tuple[Span, ...]
    signature: Span | None


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything, each kind in the order of its worth (codes) or of its place."""

    codes: tuple[Code, ...]
    links: tuple[Link, ...]
    unsubscribe: tuple[Unsubscribe, ...]
    parcels: tuple[Parcel, ...]
    orders: tuple[Order, ...]
    days: tuple[Day, ...]
    amounts: tuple[Amount, ...]
    reply: Reply
