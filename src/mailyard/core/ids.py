"""UUIDv7 (RFC 9562 section 5.7) and its readable form, the TypeID (`dlv_01jz…`).

The 48 leading bits of a UUIDv7 are milliseconds since 1970, so ids sort by creation time and
big tables are range-partitioned on the id itself. A TypeID is a lower-case prefix of the kind,
an underscore and 26 characters of Crockford base32 (the TypeID specification, version 0.3).
"""

import hashlib
import os
import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from struct import Struct
from time import time_ns
from uuid import UUID, SafeUUID

from mailyard.core.errors import InvalidInput

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [one + other for one in _ALPHABET for other in _ALPHABET]
_TAIL = re.compile(f"[0-7][{_ALPHABET}]{{25}}")
_TO_PYTHONS_BASE_32 = bytes.maketrans(_ALPHABET.encode(), b"0123456789abcdefghijklmnopqrstuv")
# A UUID refuses `setattr`; its slots themselves are a third of the way through `object`'s.
_new_object = object.__new__
_set_int = vars(UUID)["int"].__set__
_set_is_safe = vars(UUID)["is_safe"].__set__
_UNKNOWN = SafeUUID.unknown
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_40_BITS = (1 << 40) - 1
_50_BITS = (1 << 50) - 1
_VERSION_AND_VARIANT_CLEAR = ~((0xF << 76) | (0x3 << 62)) & ((1 << 128) - 1)
_VERSION_7 = 7 << 12  # in the 16 bits behind the time
_VARIANT_10 = 2 << 62  # in the 64 bits at the end
_VERSION_7_VARIANT_10 = _VERSION_7 << 64 | _VARIANT_10
_RANDOM_64_BITS = Struct("=512Q")
_BELOW_GROUP = (1 << 54) - 1

WORKSPACE = "wsp"
USER = "usr"
API_KEY = "key"
INVITATION = "inv"
INBOX = "ibx"
MESSAGE = "msg"
THREAD = "thr"
DRAFT = "dft"
MAILBOX_TEXT = "txt"
EMAIL = "eml"
DELIVERY = "dlv"
TEMPLATE = "tpl"
CONTACT = "con"
CONTACT_EVENT = "evt"
LIST = "lst"
SEGMENT = "seg"
IMPORT = "imp"
CAMPAIGN = "cmp"
AUDIT = "aud"
SUPPRESSION = "sup"
DOMAIN = "dom"
PROVIDER = "prv"
MODEL = "mdl"
DEMO = "dmo"
TOPIC = "top"
TRACKING_DOMAIN = "tdm"
LINK = "lnk"
PROVIDER_HOOK = "hok"
WEBHOOK = "whk"
WEBHOOK_DELIVERY = "whd"
WEBHOOK_REPLAY = "whr"
RECEIVING_DOMAIN = "rdm"
INBOUND_ROUTE = "irt"


# A system call for each id would be the dearest part of it, so random bits are fetched in blocks.
# Taking one is a single `pop`, which no other thread can come between, and a forked child forgets
# what it was born with: its parent will use those.
_random_64_bits: list[int] = []
os.register_at_fork(after_in_child=_random_64_bits.clear)


def random_64_bits() -> int:
    """From the system's generator, and given out once."""
    try:
        return _random_64_bits.pop()
    except IndexError:
        fresh: list[int] = list(_RANDOM_64_BITS.unpack(os.urandom(_RANDOM_64_BITS.size)))
        one = fresh.pop()
        _random_64_bits.extend(fresh)
        return one


def _uuid(value: int) -> UUID:
    """What `UUID(int=value)` is, without its checks and its choice among six arguments."""
    made = _new_object(UUID)
    _set_int(made, value)
    _set_is_safe(made, _UNKNOWN)
    return made


def _assemble(unix_ms: int, tail_80_bits: int) -> UUID:
    value = ((unix_ms & ((1 << 48) - 1)) << 80) | tail_80_bits
    return _uuid((value & _VERSION_AND_VARIANT_CLEAR) | _VERSION_7_VARIANT_10)


def uuid7(unix_ms: int | None = None) -> UUID:
    """A new id whose time is `unix_ms` (milliseconds since 1970; now when absent).

    Made now, its 12 bits behind the version hold the fraction of the millisecond (RFC 9562 section
    6.2, method 3), so that ids of one process sort in the order in which they were made.
    """
    if unix_ms is not None:
        return _assemble(unix_ms, (random_64_bits() & 0xFFFF) << 64 | random_64_bits())
    ms, rest_ns = divmod(time_ns(), 1_000_000)
    fraction = rest_ns * 4096 // 1_000_000
    return _uuid((ms << 16 | _VERSION_7 | fraction) << 64 | _VARIANT_10 | random_64_bits() >> 2)


def deterministic_uuid7(unix_ms: int, key: bytes, name: bytes, group: int | None = None) -> UUID:
    """The one id of `name` under `key` at `unix_ms`: time, `group`, then HMAC-SHA256(key, name).

    A campaign's delivery ids are made so: the time is the campaign's first start and the name is
    the normalised recipient address, which makes inserting a recipient twice a no-op. The group is
    the chunk's number (its lowest 20 bits): what is written together sorts together, so an index
    is written at one place and not all over. Without a group the HMAC fills its bits too.
    """
    inner, outer = _keyed(key)
    inner = inner.copy()
    inner.update(name)
    outer = outer.copy()
    outer.update(inner.digest())
    tail = int.from_bytes(outer.digest()[:10], "big")
    if group is not None:
        tail = (group >> 8 & 0xFFF) << 64 | (group & 0xFF) << 54 | tail & _BELOW_GROUP
    return _assemble(unix_ms, tail)


def uuid7_ending(unix_ms: int, tail: bytes) -> UUID:
    """The id of `unix_ms` with the ten bytes `tail` behind it: for who brings a hash of his own."""
    return _assemble(unix_ms, int.from_bytes(tail, "big"))


@lru_cache(maxsize=64)
def _keyed(key: bytes) -> "tuple[hashlib._Hash, hashlib._Hash]":
    """The two hashes of HMAC-SHA256 (RFC 2104) that have taken in `key`: once a campaign."""
    block = (key if len(key) <= 64 else hashlib.sha256(key).digest()).ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
    return inner, hashlib.sha256(bytes(byte ^ 0x5C for byte in block))


def unix_ms_of(identifier: UUID) -> int:
    """The time inside a UUIDv7, in milliseconds since 1970."""
    return identifier.int >> 80


def time_of(identifier: UUID) -> datetime:
    """The time inside a UUIDv7, as an aware UTC datetime (exact to the millisecond)."""
    return _EPOCH + timedelta(0, 0, (identifier.int >> 80) * 1000)


def lowest_at(moment: datetime) -> UUID:
    """The smallest id of `moment`: a partition bound or the edge of a time range."""
    unix_ms = int(moment.timestamp() * 1000)
    return _assemble(unix_ms, 0)


def type_id(prefix: str, identifier: UUID) -> str:
    """`dlv_…`: the id as people and the API see it."""
    # Unrolled, and cut in three because small numbers shift faster: each request makes two of them.
    p, value = _PAIRS, identifier.int
    a, b, c = value >> 90, value >> 50 & _40_BITS, value & _50_BITS
    return (
        f"{prefix}_{p[a >> 30]}{p[a >> 20 & 1023]}{p[a >> 10 & 1023]}{p[a & 1023]}"
        f"{p[b >> 30]}{p[b >> 20 & 1023]}{p[b >> 10 & 1023]}{p[b & 1023]}"
        f"{p[c >> 40]}{p[c >> 30 & 1023]}{p[c >> 20 & 1023]}{p[c >> 10 & 1023]}{p[c & 1023]}"
    )


def parse_type_id(prefix: str, text: str, field: str = "id") -> UUID:
    """The id behind `text`, which must be of kind `prefix`. Raises InvalidInput naming `field`."""
    head, _, tail = text.rpartition("_")
    if head != prefix or _TAIL.fullmatch(tail) is None:
        raise InvalidInput(f"expected an id like {prefix}_…, got {text[:60]!r}", field=field)
    return _uuid(int(tail.encode("ascii").translate(_TO_PYTHONS_BASE_32), 32))
