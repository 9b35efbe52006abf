"""DANE for SMTP (RFC 7672 over RFC 6698 and 7671): when TLSA records bind, and whom they let in.

Pure functions over DNS answers and DER bytes. TLSA counts only where every answer on the way was
validated (section 2.2): the MX, the host's addresses, the TLSA records themselves.

    plan = dane_plan(mx_authenticated, addresses_authenticated, tlsa_answer)
    problem = why_not(plan.records, chain, names, now)     # None: the peer is who it should be
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256, sha512
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from mailyard.protocol.dns_answer import Answer, Result, TemporaryFailure, TlsaRecord

DANE_TA = 2
DANE_EE = 3
CHAIN_CERTIFICATES = 16  # of a peer's chain; public chains have three to four
CERTIFICATE_BYTES = 64 * 1024  # one of them
TLSA_RECORDS = 32  # looked at in one answer
_DIGESTS = {1: (sha256, 32), 2: (sha512, 64)}


@dataclass(frozen=True, slots=True)
class DaneOff:
    """DANE does not apply: opportunistic TLS, or what MTA-STS asks for."""


@dataclass(frozen=True, slots=True)
class DaneEncrypt:
    """There are TLSA records and none is usable: TLS is a must, who the peer is stays open
    (RFC 7672 section 2.2)."""


@dataclass(frozen=True, slots=True)
class DaneVerify:
    """TLS is a must, and the certificate has to match one of `records`."""

    records: tuple[TlsaRecord, ...]


@dataclass(frozen=True, slots=True)
class DaneLater:
    """Whether DANE applies cannot be known now: this host is not used now (RFC 7672 2.1.2)."""

    why: str


DanePlan: TypeAlias = DaneOff | DaneEncrypt | DaneVerify | DaneLater


def tlsa_name(host: str, port: int = 25) -> str:
    """Where the TLSA records of a host's SMTP service stand (RFC 7672 section 2.2.3)."""
    return f"_{port}._tcp.{host}"


def dane_plan(
    mx_authenticated: bool, addresses_authenticated: bool, tlsa: Result[TlsaRecord] | None
) -> DanePlan:
    """What DANE asks of one host. `tlsa`: the answer at `tlsa_name`, None when nobody asked.

    Without validated MX and address answers TLSA need not be asked for, and does not count when it
    was (sections 2.2.1 and 2.2.2): servers that break on TLSA are found among unsigned zones.
    """
    if not (mx_authenticated and addresses_authenticated) or tlsa is None:
        return DaneOff()
    if isinstance(tlsa, TemporaryFailure):
        return DaneLater(f"its TLSA records: {tlsa.trouble.value}")
    if not isinstance(tlsa, Answer) or not tlsa.authenticated:
        return DaneOff()
    records = usable(tlsa.records)
    return DaneVerify(records) if records else DaneEncrypt()


def usable(records: Sequence[TlsaRecord]) -> tuple[TlsaRecord, ...]:
    """The records that an SMTP client can use, without those that a stronger digest makes idle.

    Usages 0 and 1 are none (RFC 7672 section 3.1.3). Of two digests of the same usage and
    selector, SHA-512 goes before SHA-256 (RFC 7671 section 9); whole values always stay.
    """
    known = [record for record in records[:TLSA_RECORDS] if _is_usable(record)]
    strongest: dict[tuple[int, int], int] = {}
    for record in known:
        kind = (record.usage, record.selector)
        strongest[kind] = max(record.matching, strongest.get(kind, 0))
    return tuple(
        record
        for record in known
        if record.matching in (0, strongest[record.usage, record.selector])
    )


def why_not(
    records: Sequence[TlsaRecord], chain: Sequence[bytes], names: Sequence[str], now: datetime
) -> str | None:
    """None when `chain` (DER, the server's own certificate first) matches a usable record.

    Otherwise what is wrong, in words. `names`: the TLSA base domain, then the next-hop domain and
    the MX host as it was written; a certificate under a DANE-TA record must be valid for one of
    them (RFC 7672 section 3.2.2). For DANE-EE neither names nor dates count (section 3.1.1).
    """
    if not chain:
        return "the server showed no certificate"
    if len(chain) > CHAIN_CERTIFICATES or max(map(len, chain)) > CERTIFICATE_BYTES:
        return "the server's certificate chain is too long"
    try:
        certificates = [x509.load_der_x509_certificate(der) for der in chain]
        if any(_matches(record, certificates[0]) for record in _of(records, DANE_EE)):
            return None
        anchors = _anchors(records, certificates)
    except ValueError as error:
        return f"the server's certificate cannot be read: {error}"
    if not anchors:
        return "no TLSA record matches the server's certificate chain"
    problem = ""
    for anchor in anchors:
        for name in names:
            problem = _why_not_below(anchor, certificates, name, now)
            if not problem:
                return None
    return f"the chain below the certificate that TLSA names is not valid: {problem}"


def _is_usable(record: TlsaRecord) -> bool:
    if record.usage not in (DANE_TA, DANE_EE) or record.selector not in (0, 1):
        return False
    if record.matching == 0:
        return 0 < len(record.data) <= CERTIFICATE_BYTES
    digest = _DIGESTS.get(record.matching)
    return digest is not None and len(record.data) == digest[1]


def _of(records: Sequence[TlsaRecord], usage: int) -> list[TlsaRecord]:
    return [record for record in records if record.usage == usage]


def _matches(record: TlsaRecord, certificate: x509.Certificate) -> bool:
    """RFC 6698 section 2.1: the certificate or its key, whole or as a digest."""
    if record.selector == 0:
        selected = certificate.public_bytes(Encoding.DER)
    else:
        selected = _public_key_info(certificate)
    if record.matching == 0:
        return selected == record.data
    return _DIGESTS[record.matching][0](selected).digest() == record.data


def _public_key_info(certificate: x509.Certificate) -> bytes:
    """SubjectPublicKeyInfo (RFC 5280 section 4.1) byte for byte, whatever kind of key it holds."""
    der = certificate.tbs_certificate_bytes
    at = _end_of(der, 0, header_alone=True)
    if der[at] == 0xA0:  # [0] version
        at = _end_of(der, at)
    for _ in ("serial", "algorithm", "issuer", "validity", "subject"):
        at = _end_of(der, at)
    return der[at : _end_of(der, at)]


def _end_of(der: bytes, at: int, *, header_alone: bool = False) -> int:
    """Where the element at `at` ends, or its header; `der` has been read as a certificate."""
    length, start = der[at + 1], at + 2
    if length >= 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[at + 2 : start], "big")
    return start if header_alone else start + length


def _anchors(
    records: Sequence[TlsaRecord], certificates: Sequence[x509.Certificate]
) -> list[x509.Certificate]:
    """The certificates that DANE-TA records name: above the server's own in the chain, or, for a
    whole certificate in DNS, that one (RFC 7671 section 5.2.2: servers must send the others)."""
    anchors = []
    for record in _of(records, DANE_TA):
        anchors += [one for one in certificates[1:] if _matches(record, one)]
        whole = record.selector == 0 and record.matching == 0
        if whole and not _matches(record, certificates[0]):
            anchors.append(x509.load_der_x509_certificate(record.data))
    return anchors


def _why_not_below(
    anchor: x509.Certificate, certificates: Sequence[x509.Certificate], name: str, now: datetime
) -> str:
    """'' when the server's certificate is valid for `name` under `anchor` (RFC 5280 section 6)."""
    try:
        verifier = (
            PolicyBuilder()
            .store(Store([anchor]))
            .time(now)
            .extension_policies(ca_policy=_ISSUER, ee_policy=_SERVER)
            .build_server_verifier(x509.DNSName(name))
        )
        verifier.verify(certificates[0], list(certificates[1:]))
    except (VerificationError, ValueError) as error:
        return str(error)
    return ""


def _must_sign_certificates(
    policy: Policy, certificate: x509.Certificate, usage: x509.KeyUsage | None
) -> None:
    del policy, certificate
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("it was issued by a certificate that may not sign others")


# Private authorities often leave out what the web's rules ask for (key identifiers, usages). What
# makes a chain safe stays: the verifier itself wants ca=true of whoever issues, and the name.
_ISSUER = (
    ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
    .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _must_sign_certificates)
)
_SERVER = ExtensionPolicy.permit_all().require_present(
    x509.SubjectAlternativeName, Criticality.AGNOSTIC, None
)
