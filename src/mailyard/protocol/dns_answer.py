"""What a question to DNS can come to: a closed set, so that nobody confuses "no" with "not now".

A resolver makes these values; everything that decides takes them and asks nobody. Names are lower
case, in their ASCII form, without the last dot; the root is ".".
"""

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Generic, NamedTuple, TypeAlias, TypeVar

Record = TypeVar("Record", covariant=True)
Address: TypeAlias = IPv4Address | IPv6Address


class Trouble(Enum):
    """Why there is no answer now."""

    TIMEOUT = "no server answered in time"
    UNREACHABLE = "no server could be reached"
    SERVER_FAILURE = "the server failed (SERVFAIL)"
    REFUSED = "the server refused the question"
    MALFORMED = "the answer could not be understood"
    ALIAS_LOOP = "the aliases (CNAME) lead in a circle or too far"
    BUSY = "too many questions are open"


@dataclass(frozen=True, slots=True)
class Answer(Generic[Record]):
    """The records of the type that was asked for, at least one, in the server's order.

    `ttl_s`: how long this may be relied on. `authenticated`: a resolver that we trust has
    validated it with DNSSEC (the AD bit, RFC 4035 section 3.2.3). `name`: whose records they are,
    which is another name than the one asked for when that is an alias.
    """

    records: tuple[Record, ...]
    ttl_s: float
    authenticated: bool
    name: str


@dataclass(frozen=True, slots=True)
class NoName:
    """The name does not exist (NXDOMAIN), nor does anything below it (RFC 8020)."""

    ttl_s: float
    authenticated: bool


@dataclass(frozen=True, slots=True)
class NoRecords:
    """The name exists and has no record of this type (NODATA, RFC 2308 section 2.2)."""

    ttl_s: float
    authenticated: bool


@dataclass(frozen=True, slots=True)
class TemporaryFailure:
    """Nobody could say. `detail` names servers and what they said, for people."""

    trouble: Trouble
    detail: str


Result: TypeAlias = Answer[Record] | NoName | NoRecords | TemporaryFailure


class Ask(Enum):
    """What can be asked of a name, and the records that its Answer holds."""

    __hash__ = object.__hash__  # a member is one object: questions are looked up for every mail

    MX = "MX"  # MxRecord
    ADDRESSES = "A and AAAA"  # Address
    A = "A"  # Address
    AAAA = "AAAA"  # Address
    TXT = "TXT"  # str
    CNAME = "CNAME"  # str
    PTR = "PTR"  # str
    TLSA = "TLSA"  # TlsaRecord
    NS = "NS"  # str


class Question(NamedTuple):
    """What a decision wants to know next; somebody with a resolver finds the Result."""

    name: str
    ask: Ask


@dataclass(frozen=True, slots=True)
class MxRecord:
    """A mail exchanger (RFC 1035 section 3.3.9); `host` is "." in a null MX (RFC 7505)."""

    preference: int
    host: str


@dataclass(frozen=True, slots=True)
class TlsaRecord:
    """A certificate association (RFC 6698 section 2.1): four fields as they stand in DNS."""

    usage: int
    selector: int
    matching: int
    data: bytes
