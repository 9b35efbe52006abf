"""DKIM on the public suites: verdicts, canonical forms, and every message signed here and verified
by two verifiers of others."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
from corpora.conftest import corpora_folder, files_of
from dkim_peers import dkimpy_passes, opendkim

from mailyard.core import limits
from mailyard.core.errors import InvalidInput
from mailyard.protocol.address import parse_mailbox_list
from mailyard.protocol.dkim import (
    Mail,
    Result,
    Signer,
    Status,
    generate_ed25519,
    generate_rsa,
    record_text,
    sign_all,
    signatures,
    verify,
)
from mailyard.protocol.dkim.canonical import RELAXED, SIMPLE
from mailyard.protocol.dkim.signature import FIELD

Answers = Mapping[str, list[bytes] | None]
FIELD_NAME = re.compile(rb"[!-9<-~]+")
SIGNED_AT_S = 1_700_000_000
MODERN = {"rsa-sha256", "ed25519-sha256"}


def message_paths(family: Path) -> set[str]:
    """Those files of a family that its index calls messages."""
    index = (family / "INDEX.tsv").read_text(errors="replace").splitlines()
    return {path for path, kind in (line.split("\t")[:2] for line in index) if kind == "message"}


FAMILIES = sorted(path.parent.name for path in corpora_folder().glob("*/INDEX.tsv"))
WITH_MESSAGES = [name for name in FAMILIES if message_paths(corpora_folder() / name)] or ["none"]


def as_crlf(raw: bytes) -> bytes:
    return raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def family(corpora: Path, name: str) -> dict[str, bytes]:
    """The data files of a family by their names below its folder."""
    return {path.removeprefix(f"{name}/"): data for path, data in files_of(corpora / name)}


def verdicts(content: bytes, answers: Answers, now_s: float | None = None) -> list[Result]:
    """Each signature's, at the time of its signing when none is given."""
    mail = Mail(content)
    return [
        verify(
            mail,
            signature,
            answers.get(signature.key_name, []),
            (signature.signed_at_s or 0) if now_s is None else now_s,
        )
        for signature in signatures(mail)
    ]


def passes(content: bytes, answers: Answers) -> bool:
    return any(result.status is Status.PASS for result in verdicts(content, answers))


def zone_of(lines: list[bytes]) -> dict[str, list[bytes] | None]:
    """`name value` a line; other lines are no records."""
    zone: dict[str, list[bytes] | None] = {}
    for line in lines:
        name, _, value = line.strip().partition(b" ")
        value = value.strip()
        if not name or name.startswith(b"#"):
            continue
        if value.startswith(b"~~"):
            zone[name.decode()] = None
        elif value == b"NXDOMAIN":
            zone[name.decode()] = []
        else:
            zone[name.decode()] = [value.strip(b'"')]
    return zone


def test_mail_dkim_agrees_where_the_standard_is_the_same(corpora: Path) -> None:
    """Its own suite. It also takes rsa-sha1, short keys and drafts, which RFC 8301 does not."""
    files = family(corpora, "auth-dkim-maildkim")
    zone = zone_of(files["FAKE_DNS.dat"].splitlines())
    held = 0
    for case in json.loads(files["expected.json"]):
        results = verdicts(as_crlf(files[case["file"]]), zone, now_s=SIGNED_AT_S)
        statuses = {result.status for result in results}
        passed = Status.PASS in statuses
        if not any(said["v"] == "1" and said["a"] in MODERN for said in case["signatures"]):
            assert not passed, case["file"]
        elif case["asserted"] and (passed or Status.POLICY not in statuses):
            assert passed == (case["expected"] == "pass"), case["file"]
            held += 1
    assert held > 0


def test_an_answer_that_dns_owes_is_no_failure(corpora: Path) -> None:
    files = family(corpora, "auth-dkim-maildkim")
    zone = dict.fromkeys(zone_of(files["FAKE_DNS.dat"].splitlines()))
    statuses = set()
    for name, data in files.items():
        if name.startswith("corpus/"):
            statuses |= {result.status for result in verdicts(as_crlf(data), zone)}
    assert Status.TEMPERROR in statuses
    assert not statuses & {Status.PASS, Status.FAIL}


def test_mail_of_the_large_senders_passes(corpora: Path) -> None:
    """Each file brings its records in front of the message."""
    passed = 0
    for name, data in family(corpora, "auth-dkim").items():
        if name.startswith("mail-auth/dkim/"):
            records, _, message = as_crlf(data).partition(b"\r\n\r\n")
            results = verdicts(message, zone_of(records.splitlines()))
            assert results
            assert {result.status for result in results} == {Status.PASS}, (name, results)
            passed += 1
    assert passed > 0


def test_dkimpy_own_messages_get_its_verdicts(corpora: Path) -> None:
    """With each of its keys. It also takes rsa-sha1, which RFC 8301 forbids."""
    files = family(corpora, "auth-dkim")
    own = {name: data for name, data in files.items() if name.startswith("dkimpy/")}
    keys = [data.strip() for data in own.values() if b"p=" in data and b"\nFrom:" not in data]
    passed = 0
    for name, data in own.items():
        mail = Mail(as_crlf(data))
        for number, signature in enumerate(signatures(mail)):
            if signature.defect is not None:
                continue
            ed25519 = signature.algorithm == "ed25519-sha256"
            # dkimpy does not compare k= with a=
            for key in [key for key in keys if (b"k=ed25519" in key) == ed25519]:
                ours = verify(mail, signature, [key], signature.signed_at_s or 0).status
                theirs = dkimpy_passes(as_crlf(data), {signature.key_name: key})[number]
                assert (ours is Status.PASS) == theirs, (name, key)
                passed += theirs
    assert passed > 0


def test_rspamd_own_messages(corpora: Path) -> None:
    files = family(corpora, "auth-dkim")
    zone: dict[str, list[bytes] | None] = {}
    for answer in json.loads(files["rspamd/fake-dns.json"]):
        if answer["type"] == "txt":
            texts = [text.encode() for text in answer["replies"]]
            zone[answer["name"]] = None if answer["rcode"] == "timeout" else texts
    seen = 0
    for name, data in files.items():
        short = Path(name).name
        if not name.startswith("rspamd/messages/") or b"dkim-signature:" not in data.lower():
            continue
        seen += 1
        if short.startswith(("bad_dkim", "dkim_broken", "dkim_revoked", "dkim_key_too")):
            assert not passes(as_crlf(data), zone), name
        if short.startswith(("good_dkim", "ed25519.")):
            assert passes(as_crlf(data), zone), name
    assert seen > 0


@pytest.mark.parametrize("kind", [SIMPLE, RELAXED])
def test_canonical_forms_are_those_of_the_flanker_suite(corpora: Path, kind: str) -> None:
    files = family(corpora, "auth-dkim")
    compared = 0
    for name, data in files.items():
        if name.startswith("flanker-canon/email."):
            mail = Mail(as_crlf(data))
            header = mail.canonical_fields(kind, tuple(range(len(mail.fields))))
            wanted = files[name.replace("email.", f"{kind}.expected.")]
            assert header + b"\r\n" + mail.canonical_body(kind) == wanted, name
            compared += 1
    assert compared > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_every_file_gets_verdicts_and_no_exception(corpora: Path, name: str) -> None:
    for _, data in files_of(corpora / name):
        for content in (data, as_crlf(data)):
            for result in verdicts(content, {}, now_s=1.7e9):
                assert result.status is not Status.PASS
                assert result.reason


# What is signed here, verified by others --------------------------------------------------------


@cache
def signing() -> tuple[tuple[Signer, ...], dict[str, bytes]]:
    """Signers of each key and pair of canonical forms, and the records of their keys."""
    rsa, ed25519 = generate_rsa(), generate_ed25519()
    signers = (
        Signer("mail.example.org", "r1", rsa),
        Signer("mail.example.org", "e1", ed25519),
        Signer("mail.example.org", "e2", ed25519, kinds=(RELAXED, RELAXED)),
        Signer("mail.example.org", "e3", ed25519, kinds=(SIMPLE, SIMPLE)),
    )
    records = {
        signer.key_name: record_text((rsa if signer.key_name.startswith("r") else ed25519).public())
        for signer in signers
    }
    return signers, {name: text.encode() for name, text in records.items()}


def messages(family: Path) -> Iterator[tuple[str, bytes]]:
    paths = message_paths(family)
    for path, data in files_of(family):
        path = path.removeprefix(f"{family.name}/")
        if path in paths:
            yield path, data


def as_sent(raw: bytes) -> bytes:
    """`raw` as a server may send it again.

    CRLF alone ends lines and there is no NUL (RFC 5321 section 2.3.8). The header has fields alone
    (RFC 5322 section 2.2, without section 4's spaces before the colon; no semicolon in a name, RFC
    6376 section 3.5), none longer than what is accepted for sending, and one From with an address.
    Signatures of others are left out: ours sign none of them, and libopendkim looks at none of a
    mail's signatures when one of them is malformed.
    """
    lines = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\0", b"")
    mail = Mail(as_crlf(lines))
    fields = [(name, without_old_spaces(name, field)) for name, _, field in mail.fields]
    senders = [field for name, field in fields if name == b"from"]
    kept = [
        field
        for name, field in fields
        if FIELD_NAME.fullmatch(name)
        and name not in (FIELD, b"from")
        and len(field) <= limits.HEADER_VALUE_BYTES
    ]
    sender = b"From: sender@mail.example.org"
    if len(senders) == 1:
        with suppress(InvalidInput):
            parse_mailbox_list(senders[0][5:].decode(errors="replace"))
            sender = senders[0]
    return b"\r\n".join([*kept, sender, b"", mail.body])


def without_old_spaces(name: bytes, field: bytes) -> bytes:
    return field[: len(name)] + b":" + field.partition(b":")[2]


@pytest.mark.parametrize("name", WITH_MESSAGES)
def test_every_message_that_is_signed_here_passes_elsewhere(corpora: Path, name: str) -> None:
    signers, records = signing()
    answers: Answers = {key: [text] for key, text in records.items()}
    library = opendkim()
    sent = 0
    for path, data in messages(corpora / name):
        content = as_sent(data)
        mail = sign_all(signers, content, SIGNED_AT_S) + content
        assert [result.status for result in verdicts(mail, answers)] == [Status.PASS] * 4, path
        assert library.passes(mail, records) == [True] * 4, path
        assert dkimpy_passes(mail, records) == [True] * 4, path
        sent += 1
    assert sent > 0
