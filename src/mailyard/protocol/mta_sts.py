"""MTA-STS (RFC 8461): the record, the policy file, what a policy asks of a host, what to cache.

Pure: whoever fetches (over HTTPS with a verified certificate, status 200, `text/plain`, no
redirects, at most POLICY_BYTES: section 3.3) hands the bytes in. A policy is trusted on first use:
once cached it holds until it expires, so that whoever can forge DNS cannot take it away.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import TypeAlias

from mailyard.core.errors import InvalidInput
from mailyard.protocol.dns_answer import Answer, Result

POLICY_BYTES = 64 * 1024  # section 3.3
POLICY_MX = 256  # patterns: a policy of 64 KiB that names more is no policy
MAX_AGE_S = 31_557_600  # section 3.2: one year
FETCH_AGAIN_S = 300.0  # section 3.3: five minutes or longer after a failure
REFRESH_S = 86_400.0  # section 3.3 (a policy is fetched again before it expires): daily

_VERSION = "v=STSv1"
_FIELD = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,31})=([\x21-\x3a\x3c\x3e-\x7e]+)")
_ID = re.compile(r"[A-Za-z0-9]{1,32}")
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_PATTERN = re.compile(rf"(?=.{{1,255}}\Z)(?:\*\.)?{_LABEL}(?:\.{_LABEL})*\.?", re.IGNORECASE)


class Mode(Enum):
    """What a sender does with a host that fails (section 5)."""

    ENFORCE = "enforce"
    TESTING = "testing"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class StsPolicy:
    """A policy file. `mx`: lower-case patterns, without the last dot."""

    mode: Mode
    max_age_s: int
    mx: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CachedPolicy:
    """What is kept of a domain. `fetched_at` moves with each successful fetch."""

    record_id: str
    policy: StsPolicy
    fetched_at: datetime

    def expired(self, now: datetime) -> bool:
        return now >= self.fetched_at + timedelta(seconds=self.policy.max_age_s)


@dataclass(frozen=True, slots=True)
class FetchFailure:
    """The last fetch that failed: of which record's id, and when."""

    record_id: str
    at: datetime


@dataclass(frozen=True, slots=True)
class NoPolicy:
    """The domain has no policy that holds now; TLS stays opportunistic. `why` is for people."""

    why: str


@dataclass(frozen=True, slots=True)
class UsePolicy:
    """The cached policy holds. `refresh_id`: fetch again beside, nobody waits for it."""

    policy: StsPolicy
    refresh_id: str | None


@dataclass(frozen=True, slots=True)
class FetchPolicy:
    """Fetch before delivering; `otherwise` holds when that fails."""

    record_id: str
    otherwise: StsPolicy | None


NextStep: TypeAlias = NoPolicy | UsePolicy | FetchPolicy


class Treatment(Enum):
    """How to connect to one host of a domain with a policy (section 5)."""

    MUST_VERIFY = "encrypt, with a valid certificate for the host's name, or do not deliver to it"
    REPORT = "deliver as without a policy, count a failed verification or a host not listed"
    NOT_LISTED = "do not deliver to this host: the policy does not name it"
    FREE = "no policy holds"


def record_name(domain: str) -> str:
    """Where the TXT record stands (section 3.1)."""
    return f"_mta-sts.{domain}"


def policy_url(domain: str) -> str:
    """Where the policy file stands (section 3.3). `domain` in its ASCII form."""
    return f"https://mta-sts.{domain}/.well-known/mta-sts.txt"


def parse_record(texts: Sequence[str]) -> str:
    """The `id` of the one MTA-STS record among `texts`, the TXT records of `record_name`.

    Records that do not begin with the version are ignored. Raises InvalidInput when there is not
    exactly one left or it breaks the grammar: the domain then has no policy (section 3.1).
    """
    records = [text for text in texts if _fields_of(text)[0] == _VERSION]
    if len(records) != 1:
        raise InvalidInput(
            f"expected one TXT record that begins with {_VERSION};, found {len(records)}"
        )
    _, *fields = _fields_of(records[0])
    if fields and not fields[-1]:
        fields.pop()  # the last semicolon may stand
    ids = []
    for field in fields:
        match = _FIELD.fullmatch(field)
        if match is None:
            raise InvalidInput(f"{field[:60]!r} is not a field name=value of an MTA-STS record")
        if match[1] == "id":
            ids.append(match[2])
    if len(ids) != 1 or not _ID.fullmatch(ids[0]):
        raise InvalidInput("an MTA-STS record needs one id of 1 to 32 letters and digits")
    return ids[0]


def parse_policy(content: bytes) -> StsPolicy:
    """A policy file (section 3.2). Raises InvalidInput saying what is wrong.

    Lines end with LF or CRLF; of a key that stands twice, `mx` aside, the first one counts;
    unknown keys are ignored.
    """
    if len(content) > POLICY_BYTES:
        raise InvalidInput(f"the policy is longer than {POLICY_BYTES} bytes")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidInput("the policy is not UTF-8") from None
    values: dict[str, str] = {}
    patterns: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.removesuffix("\r").strip(" \t")
        if not stripped:
            continue
        key, colon, value = stripped.partition(":")
        if not colon or not _KEY.fullmatch(key):
            raise InvalidInput(f"line {number} of the policy is not key: value")
        value = value.strip(" \t")
        if key == "mx":
            patterns.append(_mx_pattern(value, number))
        else:
            values.setdefault(key, value)
    return _checked(values, patterns)


def allows(policy: StsPolicy, host: str) -> bool:
    """Whether one of the policy's patterns names `host`; `*` is one whole label (section 4.1)."""
    name = host.lower().rstrip(".")
    parent = name.partition(".")[2]
    return any(
        pattern[2:] == parent if pattern.startswith("*.") else pattern == name
        for pattern in policy.mx
    )


def treatment(policy: StsPolicy | None, host: str) -> Treatment:
    """How to deliver to `host`, the MX record's name (never what an alias leads to)."""
    if policy is None or policy.mode is Mode.NONE:
        return Treatment.FREE
    if policy.mode is Mode.TESTING:
        return Treatment.REPORT
    return Treatment.MUST_VERIFY if allows(policy, host) else Treatment.NOT_LISTED


def next_step(
    record: Result[str],
    cached: CachedPolicy | None,
    failed: FetchFailure | None,
    now: datetime,
) -> NextStep:
    """What to do for a domain, given the answer to its TXT question (sections 3.3, 5.1).

    A cached policy that has not expired holds even when the record is gone or DNS fails; a new id
    asks for a fetch, and the cached one holds when that fails; after a failure the same id is
    left alone for FETCH_AGAIN_S.
    """
    held = cached if cached is not None and not cached.expired(now) else None
    record_id, why = _id_in(record)
    if record_id is None:
        return UsePolicy(held.policy, None) if held is not None else NoPolicy(why)
    may_fetch = (
        failed is None
        or failed.record_id != record_id
        or now >= failed.at + timedelta(seconds=FETCH_AGAIN_S)
    )
    if held is None:
        if may_fetch:
            return FetchPolicy(record_id, None)
        return NoPolicy("the policy could not be fetched a short while ago")
    if held.record_id != record_id:
        return FetchPolicy(record_id, held.policy) if may_fetch else UsePolicy(held.policy, None)
    stale = now >= held.fetched_at + timedelta(seconds=min(REFRESH_S, held.policy.max_age_s / 2))
    return UsePolicy(held.policy, record_id if stale and may_fetch else None)


def _fields_of(text: str) -> list[str]:
    return [field.strip(" \t") for field in text.split(";")]


def _id_in(record: Result[str]) -> tuple[str | None, str]:
    if not isinstance(record, Answer):
        return None, "no MTA-STS record was found"
    try:
        return parse_record(record.records), ""
    except InvalidInput as error:
        return None, error.message


def _mx_pattern(value: str, number: int) -> str:
    if not _PATTERN.fullmatch(value):
        raise InvalidInput(f"line {number} of the policy: {value[:60]!r} is no mx pattern")
    return value.lower().rstrip(".")


def _checked(values: dict[str, str], patterns: list[str]) -> StsPolicy:
    if values.get("version") != "STSv1":
        raise InvalidInput("the policy's version is not STSv1")
    try:
        mode = Mode(values.get("mode", ""))
    except ValueError:
        raise InvalidInput("the policy's mode is not enforce, testing or none") from None
    age = values.get("max_age", "")
    if not re.fullmatch(r"[0-9]{1,10}", age) or int(age) > MAX_AGE_S:
        raise InvalidInput(f"the policy's max_age is not a number of seconds up to {MAX_AGE_S}")
    if not patterns and mode is not Mode.NONE:
        raise InvalidInput("the policy names no mx")
    if len(patterns) > POLICY_MX:
        raise InvalidInput(f"the policy names more than {POLICY_MX} mx patterns")
    return StsPolicy(mode, int(age), tuple(patterns))
