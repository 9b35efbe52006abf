"""The DNS records that a sending domain needs, and the form of what is said about each.

`wanted_records` is what a page shows to copy; the checks of what was found are in
`dns_check_texts` (DKIM, SPF, DMARC) and `dns_check_hosts` (aliases, MX, PTR).
"""

from dataclasses import dataclass
from enum import Enum

from mailyard.protocol import dns_dmarc, dns_spf_record
from mailyard.protocol.dns_answer import MxRecord

STRING_CHARACTERS = 255  # RFC 1035 section 3.3: one string of a TXT record


class Purpose(Enum):
    """What a record is for."""

    DKIM = "dkim"
    SPF = "spf"
    DMARC = "dmarc"
    ALIGNMENT = "alignment"
    RETURN_PATH = "return_path"
    RETURN_PATH_SPF = "return_path_spf"
    TRACKING = "tracking"
    RECEIVING = "receiving"
    ADDRESS_NAME = "address_name"
    TLS = "tls"


class State(Enum):
    """How a record stands."""

    GOOD = "good"
    WARNING = "warning"  # mail goes out, and something should be better
    MISSING = "missing"
    WRONG = "wrong"
    UNKNOWN = "unknown"  # DNS could not say now; nothing has changed


@dataclass(frozen=True, slots=True)
class DkimKey:
    """A public key to publish. `key`: base64 as it stands in p=; `algorithm`: rsa or ed25519."""

    selector: str
    algorithm: str
    key: str

    @property
    def text(self) -> str:
        """The TXT record (RFC 6376 section 3.6.1, RFC 8463 section 4)."""
        return f"v=DKIM1; k={self.algorithm}; p={self.key}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SendingSetup:
    """What a domain is to be set up for. Names are full, lower case, ASCII.

    `spf_terms`: what allows our servers, such as `include:spf.example.net` or `ip4:192.0.2.1`.
    `return_path`: the name under which bounces come back; an alias for `return_path_target`, or,
    when that is empty, with MX and SPF of its own. `tracking` is an alias for `tracking_target`.
    `receiving`: our hosts, when mail for the domain itself comes here. Empty names: not wanted.
    """

    domain: str
    dkim: tuple[DkimKey, ...]
    spf_terms: tuple[str, ...]
    return_path: str = ""
    return_path_target: str = ""
    return_path_hosts: tuple[MxRecord, ...] = ()
    tracking: str = ""
    tracking_target: str = ""
    receiving: tuple[MxRecord, ...] = ()
    reports_to: str = ""


@dataclass(frozen=True, slots=True)
class WantedRecord:
    """One record to set: what to enter at the domain's DNS host. `kind` is TXT, CNAME, MX or PTR.

    `required`: without it mail fails checks of receivers; the others are for the domain's good.
    """

    purpose: Purpose
    name: str
    kind: str
    value: str
    required: bool

    @property
    def zone_value(self) -> str:
        """As it stands in a zone file: TXT in strings of at most 255 characters, names with the
        last dot (RFC 1035 section 5.1)."""
        if self.kind != "TXT":
            return f"{self.value}."
        pieces = range(0, len(self.value), STRING_CHARACTERS)
        return " ".join(f'"{self.value[at : at + STRING_CHARACTERS]}"' for at in pieces)

    @property
    def zone_line(self) -> str:
        """The whole record as a line of a zone file."""
        return f"{self.name}. IN {self.kind} {self.zone_value}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of one record.

    `problem`: what is wrong, for people ('' when nothing is); `write`: the value to enter instead
    ('' when it may stay); `remove`: values that must go; `found`: what stands there now.
    """

    purpose: Purpose
    name: str
    kind: str
    state: State
    problem: str = ""
    write: str = ""
    remove: tuple[str, ...] = ()
    found: tuple[str, ...] = ()


def wanted_records(setup: SendingSetup) -> tuple[WantedRecord, ...]:
    """Every record to set for `setup`, the required ones of sending first."""
    records = [
        WantedRecord(Purpose.DKIM, dkim_name(key.selector, setup.domain), "TXT", key.text, True)
        for key in setup.dkim
    ]
    records += _of_return_path(setup)
    # With a return-path of its own name SPF is checked there (RFC 7208 section 2.4).
    records.append(
        WantedRecord(
            Purpose.SPF,
            setup.domain,
            "TXT",
            dns_spf_record.merged((), setup.spf_terms),
            not setup.return_path,
        )
    )
    records.append(
        WantedRecord(
            Purpose.DMARC, dns_dmarc.record_name(setup.domain), "TXT", dmarc_text(setup), True
        )
    )
    if setup.tracking:
        records.append(
            WantedRecord(Purpose.TRACKING, setup.tracking, "CNAME", setup.tracking_target, False)
        )
    records += [
        WantedRecord(Purpose.RECEIVING, setup.domain, "MX", mx_text(record), False)
        for record in setup.receiving
    ]
    return tuple(records)


def dkim_name(selector: str, domain: str) -> str:
    """Where a key stands (RFC 6376 section 3.6.2.1)."""
    return f"{selector}._domainkey.{domain}"


def dmarc_text(setup: SendingSetup) -> str:
    """The DMARC record to begin with: it asks for reports and changes nothing."""
    return "v=DMARC1; p=none" + (f"; rua=mailto:{setup.reports_to}" if setup.reports_to else "")


def mx_text(record: MxRecord) -> str:
    """An MX record's data as one writes it, without the last dot."""
    return f"{record.preference} {record.host}"


def doubled_name(name: str, domain: str) -> str:
    """Where a record lands whose full name was entered at a host that adds the domain itself."""
    return f"{name}.{domain}"


def _of_return_path(setup: SendingSetup) -> list[WantedRecord]:
    name = setup.return_path
    if not name:
        return []
    if setup.return_path_target:
        return [WantedRecord(Purpose.RETURN_PATH, name, "CNAME", setup.return_path_target, True)]
    mx = [
        WantedRecord(Purpose.RETURN_PATH, name, "MX", mx_text(record), True)
        for record in setup.return_path_hosts
    ]
    spf = dns_spf_record.merged((), setup.spf_terms)
    return [*mx, WantedRecord(Purpose.RETURN_PATH_SPF, name, "TXT", spf, True)]
