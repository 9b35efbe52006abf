"""Verification (RFC 6376 section 6) over DNS answers that are handed in. Nothing here raises.

mail = Mail(content)
for signature in signatures(mail):
    records = ...  # the TXT records of signature.key_name, when it has one
    result = verify(mail, signature, records, now_s)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256

from mailyard.protocol.dkim.canonical import RELAXED, relaxed_field
from mailyard.protocol.dkim.key import PublicKey
from mailyard.protocol.dkim.mail import Mail
from mailyard.protocol.dkim.record import BadKeyRecord, KeyRecord, parse_key_record
from mailyard.protocol.dkim.signature import Signature, Status, without_data

RECORDS_PER_NAME = 4  # section 6.1.2 lets a verifier try each of several; one is the rule


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a signature and why, in words that are safe in a header field.

    `testing`: the domain is trying DKIM out (t=y), nothing may depend on it. `unsigned_bytes`: of
    the canonical body, what l= leaves out and anybody may have added.
    """

    status: Status
    reason: str
    testing: bool = False
    unsigned_bytes: int = 0


def verify(
    mail: Mail, signature: Signature, key_records: Sequence[bytes] | None, now_s: float
) -> Result:
    """`signature` of `mail` judged at `now_s`, in seconds since 1970.

    `key_records` are the TXT records at `signature.key_name`, each with its strings joined; none
    when the name or the type does not exist; None when that could not be found out now.
    """
    return by_keys(signature, key_records, now_s, partial(_content, mail, signature))


def by_keys(
    signature: Signature,
    key_records: Sequence[bytes] | None,
    now_s: float,
    check: Callable[[PublicKey], Result],
) -> Result:
    """`signature` judged by all but what it signs, and where a key may be used by `check` of it.
    The other arguments are those of `verify`."""
    if signature.defect is not None:
        return Result(signature.defect.verdict, signature.defect.message)
    if signature.expires_at_s is not None and now_s > signature.expires_at_s:
        return Result(Status.POLICY, "the signature has expired")
    if key_records is None:
        return Result(Status.TEMPERROR, "the key could not be looked up")
    results = []
    for text in key_records[:RECORDS_PER_NAME]:
        result = _by_record(signature, text, check)
        if result.status is Status.PASS:
            return result
        results.append(result)
    if not results:
        return Result(Status.PERMERROR, "there is no key record")
    return next((result for result in results if result.status is Status.FAIL), results[0])


def _by_record(signature: Signature, text: bytes, check: Callable[[PublicKey], Result]) -> Result:
    try:
        record = parse_key_record(text)
    except BadKeyRecord as error:
        return Result(Status.PERMERROR, error.message)
    result = _by_key(signature, record, check)
    if not record.testing:
        return result
    if result.status is Status.PASS:
        return replace(result, testing=True)
    # Section 3.6.1, t=y: not to be treated otherwise than unsigned mail.
    return Result(Status.NEUTRAL, f"{result.reason} (the key is being tested)", testing=True)


def _by_key(
    signature: Signature, record: KeyRecord, check: Callable[[PublicKey], Result]
) -> Result:
    """Section 6.1.2 from item 4 on, then 6.1.3."""
    key = record.key
    if key is None:
        return Result(Status.PERMERROR, "the key is revoked")
    if key.algorithm != signature.algorithm:
        return Result(Status.PERMERROR, "the key is not of the signature's algorithm")
    if record.hashes is not None and "sha256" not in record.hashes:
        return Result(Status.PERMERROR, "the key record does not allow sha256")
    if record.strict and signature.identity.rpartition("@")[2] != signature.domain:
        return Result(Status.PERMERROR, "the key does not allow i= of a subdomain")
    if record.refusal:
        return Result(Status.POLICY, record.refusal)
    return check(key)


def _content(mail: Mail, signature: Signature, key: PublicKey) -> Result:
    """Section 6.1.3: the body's hash, then the signature on the header."""
    unsigned_bytes = 0
    if signature.length is not None:
        unsigned_bytes = len(mail.canonical_body(signature.body_kind)) - signature.length
        if unsigned_bytes < 0:
            return Result(Status.FAIL, "the body is shorter than what was signed")
    if mail.body_hash(signature.body_kind, signature.length) != signature.body_hash:
        return Result(Status.FAIL, "the body was changed")
    if not key.verifies(signature.data, header_hash(mail, signature)):
        return Result(Status.FAIL, "the signature is not of this header and key")
    return Result(Status.PASS, "", unsigned_bytes=unsigned_bytes)


def header_hash(mail: Mail, signature: Signature) -> bytes:
    """SHA-256 of what b= signs: the chosen fields and the signature's own (section 3.7)."""
    places = mail.chosen(signature.names, besides=signature.index)
    digest = sha256(mail.canonical_fields(signature.header_kind, places))
    name, value, raw = mail.fields[signature.index]
    unsigned = without_data(value)
    if signature.header_kind == RELAXED:
        digest.update(relaxed_field(name, unsigned))
    else:
        digest.update(raw.removesuffix(value) + unsigned)
    return digest.digest()
