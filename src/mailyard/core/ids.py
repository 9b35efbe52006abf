"""UUIDv7 (RFC 9562 section 5.7) and its readable form, the TypeID (`dlv_01jz…`).

The 48 leading bits of a UUIDv7 are milliseconds since 1970, so ids sort by creation time and
big tables are range-partitioned on the id itself. A TypeID is a lower-case prefix of the kind,
an underscore and 26 characters of Crockford base32 (the TypeID specification, version 0.3).
"""

import hmac
import os
from datetime import UTC, datetime, timedelta
from time import time_ns
from uuid import UUID

from mailyard.core.errors import InvalidInput

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [one + other for one in _ALPHABET for other in _ALPHABET]
_VALUES = {character: value for value, character in enumerate(_ALPHABET)}
_VERSION_AND_VARIANT_CLEAR = ~((0xF << 76) | (0x3 << 62)) & ((1 << 128) - 1)
_VERSION_7_VARIANT_10 = (7 << 76) | (2 << 62)

WORKSPACE = "wsp"
USER = "usr"
API_KEY = "key"
INBOX = "ibx"
MESSAGE = "msg"
EMAIL = "eml"
DELIVERY = "dlv"
TEMPLATE = "tpl"
CONTACT = "con"
LIST = "lst"
IMPORT = "imp"
CAMPAIGN = "cmp"
AUDIT = "aud"
SUPPRESSION = "sup"
DEMO = "dmo"


def _assemble(unix_ms: int, tail_80_bits: int) -> UUID:
    value = ((unix_ms & ((1 << 48) - 1)) << 80) | tail_80_bits
    return UUID(int=(value & _VERSION_AND_VARIANT_CLEAR) | _VERSION_7_VARIANT_10)


def uuid7(unix_ms: int | None = None) -> UUID:
    """A new id whose time is `unix_ms` (milliseconds since 1970; now when absent).

    Made now, its 12 bits behind the version hold the fraction of the millisecond (RFC 9562 section
    6.2, method 3), so that ids of one process sort in the order in which they were made.
    """
    if unix_ms is not None:
        return _assemble(unix_ms, int.from_bytes(os.urandom(10), "big"))
    ms, rest_ns = divmod(time_ns(), 1_000_000)
    fraction = rest_ns * 4096 // 1_000_000
    return _assemble(ms, fraction << 64 | int.from_bytes(os.urandom(8), "big"))


def deterministic_uuid7(unix_ms: int, key: bytes, name: bytes) -> UUID:
    """The one id that `name` has under `key` at `unix_ms`: time, then HMAC-SHA256(key, name).

    A campaign's delivery ids are made so: the time is the campaign's first start and the name is
    the normalised recipient address, which makes inserting a recipient twice a no-op.
    """
    digest = hmac.digest(key, name, "sha256")
    return _assemble(unix_ms, int.from_bytes(digest[:10], "big"))


def unix_ms_of(identifier: UUID) -> int:
    """The time inside a UUIDv7, in milliseconds since 1970."""
    return identifier.int >> 80


def time_of(identifier: UUID) -> datetime:
    """The time inside a UUIDv7, as an aware UTC datetime (exact to the millisecond)."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=unix_ms_of(identifier))


def lowest_at(moment: datetime) -> UUID:
    """The smallest id of `moment`: a partition bound or the edge of a time range."""
    unix_ms = int(moment.timestamp() * 1000)
    return _assemble(unix_ms, 0)


def type_id(prefix: str, identifier: UUID) -> str:
    """`dlv_…`: the id as people and the API see it."""
    value = identifier.int
    tail = "".join([_PAIRS[(value >> shift) & 1023] for shift in range(120, -1, -10)])
    return f"{prefix}_{tail}"


def parse_type_id(prefix: str, text: str, field: str = "id") -> UUID:
    """The id behind `text`, which must be of kind `prefix`. Raises InvalidInput naming `field`."""
    head, _, tail = text.rpartition("_")
    if head != prefix or len(tail) != 26 or tail[0] > "7":
        raise InvalidInput(f"expected an id like {prefix}_…, got {text[:60]!r}", field=field)
    value = 0
    for character in tail:
        digit = _VALUES.get(character)
        if digit is None:
            raise InvalidInput(f"expected an id like {prefix}_…, got {text[:60]!r}", field=field)
        value = (value << 5) | digit
    return UUID(int=value)
