"""SMTP TLS reports (RFC 8460): the JSON of strangers read within bounds, our own written, and the
DNS record that says where a domain wants them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from mailyard.core.errors import InvalidInput
from mailyard.core.limits import MIB

REPORT_BYTES = 2 * MIB  # unpacked; JSON in memory is many times as large
POLICIES = 200
FAILURES = 5_000  # of one policy
ADDRESSES = 4  # of one record
_TEXT_CHARACTERS = 500
_COUNT_MAX = 10**12
_RECORD = re.compile(r"v=TLSRPTv1[ \t]*;", re.IGNORECASE)


class BadTlsReport(InvalidInput):
    """Not a report that can be read; the message says why."""

    code = "invalid_tls_report"


@dataclass(frozen=True, slots=True)
class Failure:
    """Sessions that failed in one way (section 4.3)."""

    result: str
    sessions: int
    host: str = ""
    sending_address: str = ""
    receiving_address: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """How sessions under one policy went (section 4.4). `kind`: sts, tlsa or no-policy-found."""

    kind: str
    domain: str
    succeeded: int
    failed: int
    failures: tuple[Failure, ...] = ()
    lines: tuple[str, ...] = ()  # the policy's own
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TlsReport:
    organisation: str
    contact: str
    report_id: str
    begins_at: datetime
    ends_at: datetime
    policies: tuple[PolicyResult, ...]

    @property
    def domains(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one.domain for one in self.policies if one.domain))


def record_name(domain: str) -> str:
    """Where a domain says to whom reports go (section 3)."""
    return f"_smtp._tls.{domain}"


def addresses(records: Sequence[str]) -> tuple[str, ...]:
    """The `mailto:` and `https:` addresses of the one record among `records`; none when there is
    none, or more than one (section 3)."""
    texts = [text for text in records if _RECORD.match(text)]
    if len(texts) != 1:
        return ()
    for part in texts[0].split(";")[1:]:
        name, equals, value = part.partition("=")
        if equals and name.strip().lower() == "rua":
            found = [one.strip() for one in value.split(",")]
            return tuple(one for one in found if one.lower().startswith(("mailto:", "https:")))[
                :ADDRESSES
            ]
    return ()


def read_report(data: bytes) -> TlsReport:
    """The report in `data`, unpacked. Raises BadTlsReport alone."""
    if len(data) > REPORT_BYTES:
        raise BadTlsReport(f"the report is larger than {REPORT_BYTES} bytes")
    try:
        said = msgspec.json.decode(data.lstrip(b"\xef\xbb\xbf \t\r\n").rstrip(b"\0 \t\r\n"))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadTlsReport(f"the report is not JSON: {error}") from None
    if not isinstance(said, dict) or not isinstance(said.get("policies"), list):
        raise BadTlsReport("the report has no policies")
    dates = _object(said, "date-range")
    return TlsReport(
        _text(said, "organization-name"),
        _text(said, "contact-info"),
        _text(said, "report-id"),
        _moment(dates, "start-datetime"),
        _moment(dates, "end-datetime"),
        tuple(_policy(one) for one in said["policies"][:POLICIES] if isinstance(one, dict)),
    )


def write_report(report: TlsReport) -> bytes:
    """`report` as JSON (section 4.4)."""
    return msgspec.json.encode(
        {
            "organization-name": report.organisation,
            "date-range": {
                "start-datetime": f"{report.begins_at:%Y-%m-%dT%H:%M:%SZ}",
                "end-datetime": f"{report.ends_at:%Y-%m-%dT%H:%M:%SZ}",
            },
            "contact-info": report.contact,
            "report-id": report.report_id,
            "policies": [_written(one) for one in report.policies],
        }
    )


def _written(one: PolicyResult) -> dict[str, Any]:
    policy: dict[str, Any] = {"policy-type": one.kind, "policy-domain": one.domain}
    if one.lines:
        policy["policy-string"] = one.lines
    if one.hosts:
        policy["mx-host"] = one.hosts
    written: dict[str, Any] = {
        "policy": policy,
        "summary": {
            "total-successful-session-count": one.succeeded,
            "total-failure-session-count": one.failed,
        },
    }
    if one.failures:
        written["failure-details"] = [
            {
                name: value
                for name, value in (
                    ("result-type", failure.result),
                    ("sending-mta-ip", failure.sending_address),
                    ("receiving-mx-hostname", failure.host),
                    ("receiving-ip", failure.receiving_address),
                    ("failed-session-count", failure.sessions),
                    ("failure-reason-code", failure.reason),
                )
                if value
            }
            for failure in one.failures
        ]
    return written


def _policy(said: Mapping[str, Any]) -> PolicyResult:
    policy, summary = _object(said, "policy"), _object(said, "summary")
    details = said.get("failure-details")
    return PolicyResult(
        _text(policy, "policy-type"),
        _text(policy, "policy-domain").lower().rstrip("."),
        _count(summary, "total-successful-session-count"),
        _count(summary, "total-failure-session-count"),
        tuple(
            Failure(
                _text(one, "result-type"),
                _count(one, "failed-session-count"),
                _text(one, "receiving-mx-hostname").lower(),
                _text(one, "sending-mta-ip"),
                _text(one, "receiving-ip"),
                _text(one, "failure-reason-code") or _text(one, "failure-error-code"),
            )
            for one in (details if isinstance(details, list) else ())[:FAILURES]
            if isinstance(one, dict)
        ),
        _texts(policy, "policy-string"),
        _texts(policy, "mx-host"),
    )


def _object(said: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = said.get(name)
    return value if isinstance(value, dict) else {}


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else ""
    return "".join(one for one in text if one.isprintable())[:_TEXT_CHARACTERS]


def _text(said: Mapping[str, Any], name: str) -> str:
    return _shown(said.get(name))


def _texts(said: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = said.get(name)
    if isinstance(value, str):
        value = [value]
    return tuple(_shown(one) for one in value[:50]) if isinstance(value, list) else ()


def _count(said: Mapping[str, Any], name: str) -> int:
    value = said.get(name)
    return value if isinstance(value, int) and 0 <= value <= _COUNT_MAX else 0


def _moment(said: Mapping[str, Any], name: str) -> datetime:
    try:
        moment = datetime.fromisoformat(_text(said, name).replace("Z", "+00:00"))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadTlsReport("the report does not say of which time it is") from None
