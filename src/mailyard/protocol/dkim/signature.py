"""A DKIM-Signature field, read and judged by itself (RFC 6376 sections 3.5 and 6.1.1)."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from mailyard.core.errors import InvalidInput
from mailyard.protocol.dkim.canonical import RELAXED, SIMPLE
from mailyard.protocol.dkim.key import ED25519_SHA256, RSA_SHA256
from mailyard.protocol.dkim.mail import Mail
from mailyard.protocol.dkim.record import record_name
from mailyard.protocol.dkim.tags import (
    TagError,
    base64_value,
    colon_list,
    domain_value,
    number,
    parse_tags,
    quoted_printable,
    required,
)

FIELD = b"dkim-signature"
# More than any path of mail adds; a longer list costs the receiver keys and hashes (section 6.1).
SIGNATURES_PER_MAIL = 8
_SIGNERS_REMEMBERED = 1024
_KINDS = (SIMPLE, RELAXED)
_HISTORIC = "rsa-sha1"
# b= and what is between it and the next semicolon, in a field's value. Possessive: linear work.
_SIGNED_DATA = re.compile(rb"((?:\A|;)[ \t\r\n]*+b[ \t\r\n]*+=)[^;]*+")


class Status(StrEnum):
    """What became of a signature, in the words of RFC 8601 section 2.7.1."""

    PASS = "pass"
    FAIL = "fail"  # readable, and not on this message
    NEUTRAL = "neutral"  # not readable, or of a kind that is not known here
    POLICY = "policy"  # readable, and of a kind that must not count
    TEMPERROR = "temperror"  # the key could not be fetched now
    PERMERROR = "permerror"  # what is needed is missing or wrong for good


class Rejected(InvalidInput):
    """A signature that cannot pass, known before the key is."""

    code = "invalid_signature"

    def __init__(self, verdict: Status, message: str) -> None:
        super().__init__(message)
        self.verdict = verdict


@dataclass(frozen=True, slots=True)
class Signature:
    """The tags of one field, the one at `index` of the mail's fields, checked.

    A `defect` means that it cannot pass; then `domain` is what it says, and nothing else is set.
    `key_name` is the name whose TXT records `verify` wants; empty when none are needed.
    """

    index: int
    algorithm: str = ""
    domain: str = ""
    selector: str = ""
    identity: str = ""  # i=, an address or @domain
    header_kind: str = SIMPLE
    body_kind: str = SIMPLE
    names: tuple[bytes, ...] = ()  # h=, in lower case
    body_hash: bytes = b""
    data: bytes = b""  # b=
    length: int | None = None  # l=, in bytes of the canonical body
    signed_at_s: int | None = None
    expires_at_s: int | None = None
    defect: Rejected | None = None

    @property
    def key_name(self) -> str:
        return "" if self.defect else record_name(self.selector, self.domain)


def signatures(mail: Mail) -> list[Signature]:
    """The mail's signatures from top to bottom, SIGNATURES_PER_MAIL at most. Never raises."""
    places = mail.places.get(FIELD, [])
    return [parse_signature(mail, index) for index in places[:SIGNATURES_PER_MAIL]]


def parse_signature(mail: Mail, index: int) -> Signature:
    """The field `index` of `mail` as a signature, with a defect when it cannot pass."""
    tags: dict[str, str] = {}
    try:
        tags = parse_tags(mail.fields[index][1])
        return _read(index, tags)
    except TagError as error:
        defect = Rejected(Status.NEUTRAL, f"signature: {error.message}")
    except Rejected as error:
        defect = error
    return Signature(index=index, domain=_claimed_domain(tags), defect=defect)


def without_data(value: bytes) -> bytes:
    """The field's `value` with an empty b= (section 3.7)."""
    return _SIGNED_DATA.sub(rb"\1", value, count=1)


def _claimed_domain(tags: dict[str, str]) -> str:
    """d= of a signature with a defect, for the report; empty when that is the defect."""
    try:
        return domain_value(tags.get("d", ""), "d")
    except TagError:
        return ""


def _read(index: int, tags: dict[str, str]) -> Signature:
    if required(tags, "v") != "1":
        raise Rejected(Status.NEUTRAL, "signature: v= is not 1")
    return read_signature(index, tags, _identity)


def read_signature(
    index: int, tags: dict[str, str], identity: Callable[[dict[str, str], str], str] | None = None
) -> Signature:
    """The field `index` from all of its tags but v= and i=, which ARC has otherwise (RFC 8617
    section 4.1.2); `identity` reads i=. Raises TagError and Rejected."""
    algorithm, domain, selector = read_signer(tags)
    header_kind, body_kind = _kinds(tags.get("c", SIMPLE))
    names = _names(required(tags, "h"))
    if b"from" not in names:
        raise Rejected(Status.PERMERROR, "signature: h= does not have From")
    if "dns/txt" not in colon_list(tags.get("q", "dns/txt")):
        raise Rejected(Status.NEUTRAL, "signature: q= does not have dns/txt")
    signed_at_s, expires_at_s = number(tags, "t"), number(tags, "x")
    if signed_at_s is not None and expires_at_s is not None and expires_at_s <= signed_at_s:
        raise Rejected(Status.NEUTRAL, "signature: x= is not after t=")
    return Signature(
        index=index,
        algorithm=algorithm,
        domain=domain,
        selector=selector,
        identity=identity(tags, domain) if identity is not None else f"@{domain}",
        header_kind=header_kind,
        body_kind=body_kind,
        names=names,
        body_hash=base64_value(required(tags, "bh"), "bh"),
        data=base64_value(required(tags, "b"), "b"),
        length=number(tags, "l"),
        signed_at_s=signed_at_s,
        expires_at_s=expires_at_s,
    )


def read_signer(tags: dict[str, str]) -> tuple[str, str, str]:
    """(algorithm, domain, selector) of a=, d= and s=. Raises TagError and Rejected."""
    return _signer(required(tags, "a"), required(tags, "d"), required(tags, "s"))


@lru_cache(_SIGNERS_REMEMBERED)  # few sign most of all mail
def _signer(algorithm: str, domain: str, selector: str) -> tuple[str, str, str]:
    algorithm = _algorithm(algorithm)
    domain = domain_value(domain, "d")
    selector = domain_value(selector, "s", labels=1)
    domain_value(record_name(selector, domain), "s")  # both together must be a name, too
    return algorithm, domain, selector


@lru_cache(_SIGNERS_REMEMBERED)
def _names(value: str) -> tuple[bytes, ...]:
    """h= as it is."""
    return tuple(name.encode() for name in colon_list(value))


def _algorithm(value: str) -> str:
    algorithm = value.lower()
    if algorithm == _HISTORIC:
        raise Rejected(Status.POLICY, "signature: rsa-sha1 does not count (RFC 8301)")
    if algorithm not in (RSA_SHA256, ED25519_SHA256):
        raise Rejected(Status.NEUTRAL, "signature: a= is not known")
    return algorithm


def _kinds(value: str) -> tuple[str, str]:
    """Those of header and body (section 3.5, c=)."""
    header, _, body = value.lower().partition("/")
    body = body or SIMPLE
    if header not in _KINDS or body not in _KINDS:
        raise Rejected(Status.NEUTRAL, "signature: c= is not known")
    return header, body


def _identity(tags: dict[str, str], domain: str) -> str:
    """i=, whose domain must be d= or below it."""
    if "i" not in tags:
        return f"@{domain}"
    local, at, of = quoted_printable(tags["i"], "i").rpartition("@")
    if not at:
        raise TagError("the tag i= has no @", field="i")
    of = domain_value(of, "i")
    if of != domain and not of.endswith(f".{domain}"):
        raise Rejected(Status.PERMERROR, "signature: i= is not of the domain d=")
    return f"{local}@{of}"
