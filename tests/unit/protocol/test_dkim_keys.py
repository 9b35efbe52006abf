"""Keys and their DNS records (RFC 6376 section 3.6, RFC 8301, RFC 8463)."""

from base64 import b64encode

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.protocol.dkim import (
    BadKey,
    BadKeyRecord,
    PrivateKey,
    generate_ed25519,
    generate_rsa,
    load_private_key,
    parse_key_record,
    record_name,
    record_text,
    txt_strings,
)

DIGEST = bytes(32)
# RFC 8463 appendix A.2
ED25519 = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
# RFC 6376 appendix C
RSA_1024 = (
    "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYtIxN2SnFCjxOCKG"
    "9v3b4jYfcTNh5ijSsq631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBc"
    "WToIMmPSPDdQPNUYckcQ2QIDAQAB"
)


@pytest.fixture(scope="module", params=[generate_rsa, generate_ed25519])
def key(request: pytest.FixtureRequest) -> PrivateKey:
    made: PrivateKey = request.param()
    return made


def test_a_key_goes_to_pem_and_back(key: PrivateKey) -> None:
    pem = key.pem()
    assert pem.startswith(b"-----BEGIN PRIVATE KEY-----\n")  # PKCS#8
    again = load_private_key(pem)
    assert again.algorithm == key.algorithm
    assert key.public().verifies(again.sign(DIGEST), DIGEST)


def test_a_key_signs_what_its_published_record_verifies(key: PrivateKey) -> None:
    record = parse_key_record(record_text(key.public()).encode())
    assert record.key is not None
    assert record.key.algorithm == key.algorithm
    assert not record.key.refusal
    signature = key.sign(DIGEST)
    assert record.key.verifies(signature, DIGEST)
    assert not record.key.verifies(signature, b"\1" * 32)
    assert not record.key.verifies(signature[:-1], DIGEST)
    assert not record.key.verifies(b"", DIGEST)


def test_a_key_does_not_show_itself(key: PrivateKey) -> None:
    assert repr(key) == f"PrivateKey({key.algorithm})"


def test_new_rsa_keys_have_2048_bits() -> None:
    assert generate_rsa().public().bits == 2048


def test_what_dkim_cannot_sign_with_is_refused() -> None:
    def pem_of(other: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
        return other.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )

    with pytest.raises(BadKey, match="another kind"):
        load_private_key(pem_of(ec.generate_private_key(ec.SECP256R1())))
    for pem in (b"", b"x", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"):
        with pytest.raises(BadKey, match="PEM"):
            load_private_key(pem)
    older = pem_of(rsa.generate_private_key(65537, 1024))  # PKCS#1, the shortest that may sign
    assert load_private_key(older).public().bits == 1024


def test_where_a_record_lies() -> None:
    assert record_name("s1", "example.org") == "s1._domainkey.example.org"


def test_a_long_record_is_cut_into_strings_of_255() -> None:
    text = record_text(generate_rsa().public())
    strings = txt_strings(text)
    assert [len(string) for string in strings] == [255, len(text) - 255]
    assert "".join(strings) == text
    assert txt_strings("short") == ["short"]


def test_defaults_of_a_record() -> None:
    record = parse_key_record(f"p={RSA_1024}".encode())
    assert record.key_type == "rsa"
    assert record.key is not None
    assert record.key.bits == 1024
    assert (record.hashes, record.testing, record.strict) == (None, False, False)


def test_all_tags_of_a_record() -> None:
    text = (
        f"v=DKIM1; k=ed25519; h=sha1:SHA256; s=web : email; t=y:s:new; n=a note; g=*; p={ED25519};"
    )
    record = parse_key_record(text.encode())
    assert record.hashes == {"sha1", "sha256"}
    assert record.testing
    assert record.strict
    assert record.key is not None
    assert record.key.encoded() == ED25519


def test_an_rsa_key_without_its_frame_is_read() -> None:
    public = rsa.generate_private_key(65537, 1024).public_key()
    bare = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)
    record = parse_key_record(b"p=" + b64encode(bare))
    assert record.key is not None
    assert record.key.bits == 1024


def test_an_empty_p_is_a_revoked_key() -> None:
    assert parse_key_record(b"v=DKIM1; p=").key is None
    assert parse_key_record(b"k=ed25519; p= ;").key is None


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "name=value"),
        ("v=spf1 -all", "v="),
        (f"v=DKIM2; p={RSA_1024}", "v="),
        (f"p={RSA_1024}; v=DKIM1", "v="),  # section 3.6.1: v= must be first
        (f"v=DKIM1: k=rsa; p={RSA_1024}", "v="),
        (f"k=dsa; p={RSA_1024}", "k="),
        (f"s=tlsrpt; p={RSA_1024}", "s="),
        ("k=rsa", "p= is missing"),
        (f"p={RSA_1024}; p={RSA_1024}", "twice"),
        (f"t; p={RSA_1024}", "name=value"),
        ("p=%%%%", "base64"),
        ("p=AAAA", "p="),
        (f"p={ED25519}", "p="),
        (f"k=ed25519; p={RSA_1024}", "p="),
        (f"k=ed25519; p=MCowBQYDK2VwAyEA{ED25519}", "p="),  # framed; RFC 8463 wants the bare key
        (f"p={'A' * 5000}", "too long"),
    ],
)
def test_what_is_wrong_with_a_record_is_said(text: str, wrong: str) -> None:
    for _ in range(2):  # the second answer is a remembered one
        with pytest.raises(BadKeyRecord, match=wrong) as raised:
            parse_key_record(text.encode())
        assert raised.value.message.startswith("key record: ")


def test_sizes_that_do_not_count_are_named() -> None:
    short = (
        "MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBALgSoqXVSEmfcIsOzw7oRuCCOwsmtX/SJnTWxYyj2leFxfS/AVJ+dYfY+hXq"
        "MsT7l+MZvvh/R1WzN4MO/kI/7XsCAwEAAQ=="
    )
    key = parse_key_record(f"p={short}".encode()).key
    assert key is not None
    assert "512" in key.refusal


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_give_a_record_or_an_error_that_says_why(text: bytes) -> None:
    for record in (text, b"p=" + b64encode(text), b"k=ed25519;p=" + b64encode(text)):
        try:
            parse_key_record(record)
        except BadKeyRecord as error:
            assert error.message
