"""DANE for SMTP (RFC 7672): when it binds, which records can be used, which chains match."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256, sha512

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from mailyard.protocol.dane import (
    DaneEncrypt,
    DaneLater,
    DaneOff,
    DaneVerify,
    dane_plan,
    tlsa_name,
    usable,
    why_not,
)
from mailyard.protocol.dns_answer import (
    Answer,
    NoName,
    NoRecords,
    Result,
    TemporaryFailure,
    TlsaRecord,
    Trouble,
)

NOW = datetime(2026, 5, 1, tzinfo=UTC)
HOST = "mx.example.org"


@dataclass(frozen=True)
class Issued:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def key_info(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def issue(
    name: str,
    issuer: Issued | None = None,
    *,
    authority: bool = False,
    names: tuple[str, ...] = (HOST,),
    days: int = 30,
    may_sign: bool | None = None,
) -> Issued:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=60))
        .not_valid_after(NOW + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if not authority:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), critical=False
        )
    if may_sign is not None:
        usage = x509.KeyUsage(True, False, False, False, False, may_sign, False, False, False)
        builder = builder.add_extension(usage, critical=True)
    return Issued(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


ROOT = issue("root", authority=True)
MIDDLE = issue("middle", ROOT, authority=True)
LEAF = issue("leaf", MIDDLE)
OTHER = issue("other", authority=True)
CHAIN = [LEAF.der, MIDDLE.der, ROOT.der]


def tlsa(usage: int, selector: int, matching: int, of: Issued) -> TlsaRecord:
    selected = of.key_info if selector else of.der
    digest = {0: selected, 1: sha256(selected).digest(), 2: sha512(selected).digest()}
    return TlsaRecord(usage, selector, matching, digest[matching])


def found(*records: TlsaRecord, authenticated: bool = True) -> Answer[TlsaRecord]:
    return Answer(records, 300, authenticated, tlsa_name(HOST))


EE = tlsa(3, 1, 1, LEAF)
TA = tlsa(2, 0, 1, ROOT)


def test_where_the_records_stand() -> None:
    assert tlsa_name(HOST) == "_25._tcp.mx.example.org"


# When DANE applies.


@pytest.mark.parametrize(("mx", "addresses"), [(False, True), (True, False), (False, False)])
@pytest.mark.parametrize("answer", [found(EE), TemporaryFailure(Trouble.TIMEOUT, ""), None])
def test_without_validated_mx_and_addresses_there_is_no_dane(
    mx: bool, addresses: bool, answer: Result[TlsaRecord] | None
) -> None:
    assert dane_plan(mx, addresses, answer) == DaneOff()


@pytest.mark.parametrize(
    "answer", [NoName(1, True), NoRecords(1, True), found(EE, authenticated=False), None]
)
def test_without_validated_records_there_is_no_dane(answer: Result[TlsaRecord] | None) -> None:
    assert dane_plan(True, True, answer) == DaneOff()


def test_trouble_with_tlsa_is_never_a_way_around_it() -> None:
    plan = dane_plan(True, True, TemporaryFailure(Trouble.SERVER_FAILURE, ""))
    assert isinstance(plan, DaneLater)


def test_usable_records_must_match() -> None:
    assert dane_plan(True, True, found(tlsa(1, 1, 1, LEAF), EE)) == DaneVerify((EE,))


def test_records_of_which_none_is_usable_ask_for_encryption() -> None:
    assert dane_plan(True, True, found(tlsa(0, 0, 1, LEAF))) == DaneEncrypt()


# Which records are usable.


@pytest.mark.parametrize("usage", [2, 3])
@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching", [0, 1, 2])
def test_what_is_usable(usage: int, selector: int, matching: int) -> None:
    record = tlsa(usage, selector, matching, LEAF)
    assert usable([record]) == (record,)


@pytest.mark.parametrize(
    "record",
    [
        tlsa(0, 1, 1, LEAF),
        tlsa(1, 1, 1, LEAF),
        TlsaRecord(4, 1, 1, b"x" * 32),
        TlsaRecord(3, 2, 1, b"x" * 32),
        TlsaRecord(3, 1, 3, b"x" * 32),
        TlsaRecord(3, 1, 1, b"x" * 31),
        TlsaRecord(3, 1, 2, b"x" * 32),
        TlsaRecord(3, 1, 0, b""),
    ],
)
def test_what_is_not_usable(record: TlsaRecord) -> None:
    assert usable([record]) == ()


def test_a_stronger_digest_of_the_same_kind_goes_before() -> None:
    weak, strong, whole = tlsa(3, 1, 1, OTHER), tlsa(3, 1, 2, LEAF), tlsa(3, 1, 0, LEAF)
    elsewhere = tlsa(3, 0, 1, LEAF)
    assert usable([weak, strong, whole, elsewhere]) == (strong, whole, elsewhere)


# Which chains match.


@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching", [0, 1, 2])
def test_the_servers_own_certificate_or_key(selector: int, matching: int) -> None:
    record = tlsa(3, selector, matching, LEAF)
    assert why_not([record], CHAIN, [HOST], NOW) is None
    assert why_not([record], [OTHER.der, LEAF.der], [HOST], NOW) is not None


def test_under_dane_ee_neither_name_nor_date_counts() -> None:
    old = issue("old", names=("elsewhere.example",), days=-30)
    assert why_not([tlsa(3, 1, 1, old)], [old.der], [HOST], NOW) is None


@pytest.mark.parametrize("anchor", [ROOT, MIDDLE])
@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching", [0, 1, 2])
def test_an_authority_above_the_servers_certificate(
    anchor: Issued, selector: int, matching: int
) -> None:
    assert why_not([tlsa(2, selector, matching, anchor)], CHAIN, [HOST], NOW) is None


def test_a_whole_authority_in_dns_need_not_be_sent() -> None:
    chain = [LEAF.der, MIDDLE.der]
    assert why_not([tlsa(2, 0, 0, ROOT)], chain, [HOST], NOW) is None
    assert why_not([TA], chain, [HOST], NOW) is not None


@pytest.mark.parametrize("names", [["example.org"], ["other.example", HOST]])
def test_under_dane_ta_one_of_the_names_must_be_the_certificates(names: list[str]) -> None:
    problem = why_not([TA], CHAIN, names, NOW)
    assert (problem is None) is (HOST in names)


def test_a_wildcard_name_stands_for_one_label() -> None:
    leaf = issue("leaf", ROOT, names=("*.example.org",))
    assert why_not([TA], [leaf.der, ROOT.der], [HOST], NOW) is None
    assert why_not([TA], [leaf.der, ROOT.der], ["a.mx.example.org"], NOW) is not None


@pytest.mark.parametrize("matching", [0, 1])
@pytest.mark.parametrize("selector", [0, 1])
def test_under_dane_ta_the_servers_own_certificate_is_no_authority(
    selector: int, matching: int
) -> None:
    assert why_not([tlsa(2, selector, matching, LEAF)], CHAIN, [HOST], NOW) is not None


def test_an_authority_that_is_sent_but_did_not_issue_the_certificate() -> None:
    stray = issue("stray")
    problem = why_not([TA], [stray.der, MIDDLE.der, ROOT.der], [HOST], NOW)
    assert problem is not None and "not valid" in problem


def test_under_dane_ta_an_expired_certificate_is_refused() -> None:
    old = issue("old", ROOT, days=-1)
    assert why_not([TA], [old.der, ROOT.der], [HOST], NOW) is not None


@pytest.mark.parametrize(
    "issuer",
    [
        issue("no authority", ROOT),
        issue("may not sign", ROOT, authority=True, may_sign=False),
    ],
)
def test_who_may_not_issue_cannot_stand_between(issuer: Issued) -> None:
    leaf = issue("leaf", issuer)
    assert why_not([TA], [leaf.der, issuer.der, ROOT.der], [HOST], NOW) is not None


def test_one_matching_record_of_several_is_enough() -> None:
    assert why_not([tlsa(3, 1, 1, OTHER), tlsa(2, 1, 1, OTHER), EE], CHAIN, [HOST], NOW) is None


@pytest.mark.parametrize(
    ("chain", "said"),
    [
        ([], "no certificate"),
        ([LEAF.der] * 17, "too long"),
        ([b"x" * 70_000], "too long"),
        ([b"nonsense"], "cannot be read"),
        ([LEAF.der[:-10]], "cannot be read"),
    ],
)
def test_what_is_no_chain(chain: list[bytes], said: str) -> None:
    problem = why_not([EE], chain, [HOST], NOW)
    assert problem is not None and said in problem


def test_a_whole_certificate_in_dns_that_is_none_matches_nothing() -> None:
    assert why_not([TlsaRecord(2, 0, 0, b"nonsense")], CHAIN, [HOST], NOW) is not None
