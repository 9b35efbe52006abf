"""A DMARC record as its domain's owner must get it right, and alignment (RFC 7489).

The organisational domain comes from a function that is handed in: it needs the public suffix list.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from mailyard.core.errors import InvalidInput
from mailyard.protocol.dns_answer import Answer, NoName, NoRecords, Result, TemporaryFailure

RECORD_CHARACTERS = 4_096
OrganisationalDomain: TypeAlias = Callable[[str], str]

_POLICIES = ("none", "quarantine", "reject")
_TAG = re.compile(r"([A-Za-z][A-Za-z0-9_]*)[ \t]*=[ \t]*([\x20-\x3a\x3c-\x7e]*)")
_VERSION = re.compile(r"v[ \t]*=[ \t]*DMARC1[ \t]*(?:;|\Z)")
_REPORT = re.compile(
    r"(?:mailto:[^\s,@!]+@[^\s,@!]+(?:![0-9]+[kmgt]?)?|https?://\S+)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class DmarcRecord:
    """A record (section 6.3). `subdomain_policy`: what `sp` says, else `policy`."""

    policy: str
    subdomain_policy: str
    dkim_strict: bool
    spf_strict: bool
    percent: int
    reports_to: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DmarcFound:
    """The record that counts for a domain, and where it stands.

    `policy`: what it asks for this domain: `sp` when the record is the organisational domain's.
    """

    record: DmarcRecord
    at: str
    policy: str


@dataclass(frozen=True, slots=True)
class DmarcAbsent:
    """No record counts. `why`: what stands there instead, '' when nothing does."""

    why: str


@dataclass(frozen=True, slots=True)
class DmarcUnknown:
    """DNS could not say now."""

    why: str


def is_dmarc(text: str) -> bool:
    """Whether a TXT record is a DMARC record: the version is its first tag (section 6.3)."""
    return _VERSION.match(text) is not None


def record_name(domain: str) -> str:
    """Where the record of `domain` stands (section 6.1)."""
    return f"_dmarc.{domain}"


def parse_dmarc(text: str) -> DmarcRecord:
    """The record. Raises InvalidInput naming the tag that is wrong. Unknown tags are ignored."""
    if len(text) > RECORD_CHARACTERS or not is_dmarc(text):
        raise InvalidInput("a DMARC record begins with v=DMARC1;")
    tags: dict[str, str] = {}
    for part in text.split(";"):
        if not part.strip(" \t"):
            continue
        match = _TAG.fullmatch(part.strip(" \t"))
        if match is None:
            raise InvalidInput(f"{part.strip()[:60]!r} is not tag=value; tags end with a semicolon")
        if match[1].lower() in tags:
            raise InvalidInput(f"the tag {match[1]} stands twice in the DMARC record")
        tags[match[1].lower()] = match[2].strip()
    policy = _one_of(tags, "p", "", _POLICIES)
    percent = tags.get("pct", "100")
    if not re.fullmatch(r"[0-9]{1,3}", percent) or int(percent) > 100:
        raise InvalidInput(f"pct={percent[:20]} is not a number from 0 to 100")
    reports = tuple(one.strip() for one in tags.get("rua", "").split(",") if one.strip())
    for one in reports:
        if not _REPORT.fullmatch(one):
            raise InvalidInput(
                f"rua={one[:60]} is no address; write rua=mailto:reports@example.org"
            )
    return DmarcRecord(
        policy,
        _one_of(tags, "sp", policy, _POLICIES),
        _one_of(tags, "adkim", "r", ("r", "s")) == "s",
        _one_of(tags, "aspf", "r", ("r", "s")) == "s",
        int(percent),
        reports,
    )


def dmarc_of(
    domain: str,
    own: Result[str],
    organisation: str,
    organisations: Result[str],
) -> DmarcFound | DmarcAbsent | DmarcUnknown:
    """The record that counts for `domain` (section 6.6.3).

    `own`: the TXT answer at `_dmarc.domain`; `organisations`: that of the organisational domain,
    which is the same answer when `domain` is that itself. More than one record is none.
    """
    for at, result in ((domain, own), (organisation, organisations)):
        if isinstance(result, TemporaryFailure):
            return DmarcUnknown(result.trouble.value)
        texts = _dmarc_texts(result)
        if len(texts) > 1:
            return DmarcAbsent(f"{record_name(at)} has {len(texts)} DMARC records; one may stand")
        if texts:
            try:
                record = parse_dmarc(texts[0])
            except InvalidInput as error:
                return DmarcAbsent(f"the record at {record_name(at)}: {error.message}")
            return DmarcFound(
                record, at, record.policy if at == domain else record.subdomain_policy
            )
    return DmarcAbsent("")


def aligned(
    identifier: str, from_domain: str, strict: bool, organisational: OrganisationalDomain
) -> bool:
    """Whether a DKIM d= or return-path domain speaks for the From domain (section 3.1)."""
    one, other = identifier.lower().rstrip("."), from_domain.lower().rstrip(".")
    return one == other or (not strict and organisational(one) == organisational(other))


def _dmarc_texts(result: Answer[str] | NoName | NoRecords) -> Sequence[str]:
    return [text for text in result.records if is_dmarc(text)] if isinstance(result, Answer) else []


def _one_of(tags: dict[str, str], tag: str, default: str, allowed: Sequence[str]) -> str:
    value = tags.get(tag, default).lower()
    if value not in allowed:
        said = f"{tag}={value[:30]}" if tag in tags else f"the tag {tag} is missing"
        raise InvalidInput(f"{said}: it must be one of {', '.join(allowed)}")
    return value
