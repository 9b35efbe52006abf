"""DKIM on the public suites: verdicts, canonical forms, and every message signed here and verified
by two verifiers of others."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest
from corpora.conftest import corpora_folder, family_names, files_of
from dkim_peers import dkimpy_passes, opendkim

from mailyard.protocol.dkim import (
    Mail,
    Result,
    Signer,
    Status,
    generate_ed25519,
    generate_rsa,
    record_text,
    signatures,
    verify,
)
from mailyard.protocol.dkim.canonical import RELAXED, SIMPLE

Answers = Mapping[str, list[bytes] | None]
MODERN = {"rsa-sha256", "ed25519-sha256"}


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
    """Its own suite. It also takes rsa-sha1, drafts and g=, which RFC 8301 and RFC 6376 do not."""
    files = family(corpora, "auth-dkim-maildkim")
    zone = zone_of(files["FAKE_DNS.dat"].splitlines())
    held = 0
    for case in json.loads(files["expected.json"]):
        content = as_crlf(files[case["file"]])
        said = [s for s in case["signatures"] if s["v"] == "1" and s["a"] in MODERN]
        passed = passes(content, zone)
        if case["asserted"] and said:
            assert passed == (case["expected"] == "pass"), case["file"]
            held += 1
        elif not said:
            assert not passed, case["file"]
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


def test_dkimpy_own_messages(corpora: Path) -> None:
    files = family(corpora, "auth-dkim")
    rsa, ed25519 = files["dkimpy/test.txt"], files["dkimpy/ed25519test.dns"]
    zone: Answers = {
        "test._domainkey.example.com": [rsa],
        "test._domainkey.football.example.com": [rsa],
        "brisbane._domainkey.football.example.com": [ed25519],
    }
    signed = [name for name in files if name.startswith("dkimpy/") and ".signed" in name]
    assert signed
    for name in signed:
        wrong = name.endswith(".bad.msg") or "bad" in Path(name).name
        assert passes(as_crlf(files[name]), zone) != wrong, name


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
    assert seen > 0


@pytest.mark.parametrize("kind", [SIMPLE, RELAXED])
def test_canonical_forms_are_those_of_the_flanker_suite(corpora: Path, kind: str) -> None:
    files = family(corpora, "auth-dkim")
    compared = 0
    for name, data in files.items():
        if name.startswith("flanker-canon/email."):
            mail = Mail(as_crlf(data))
            header = b"".join(
                mail.signed_fields(kind, (field,), besides=-1) for field, _ in mail.fields
            )
            body = mail.canonical_body(kind) if b"\n\n" in data or mail.body else b""
            wanted = files[name.replace("email.", f"{kind}.expected.")]
            assert header + b"\r\n" + body == wanted, name
            compared += 1
    assert compared > 0


@pytest.mark.parametrize("name", family_names("*"))
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
        Signer("mail.example.org", "r2", rsa, kinds=(RELAXED, RELAXED)),
        Signer("mail.example.org", "r3", rsa, kinds=(SIMPLE, SIMPLE)),
        Signer("mail.example.org", "e1", ed25519),
    )
    records = {
        signer.key_name: record_text((rsa if "r" in signer.key_name[0] else ed25519).public())
        for signer in signers
    }
    return signers, {name: text.encode() for name, text in records.items()}


def messages(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Those files of a family that its index calls messages."""
    index = (folder / "INDEX.tsv").read_text(errors="replace").splitlines()
    kinds = dict(line.split("\t")[:2] for line in index if "\t" in line)
    for path, data in files_of(folder):
        if "message" in (kinds.get(path), kinds.get(path.removeprefix(f"{folder.name}/"))):
            yield path, data


def as_sent(raw: bytes) -> bytes:
    """`raw` as a server sends it on (RFC 5321 section 2.3.8, RFC 5322 section 2.2): CRLF alone ends
    lines, the header has fields alone, and a From."""
    lines = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\0", b"")
    mail = Mail(as_crlf(lines))
    fields = [field for name, field in mail.fields if name and not name.strip(FIELD_NAME)]
    if b"from" not in mail.places:
        fields.append(b"From: sender@mail.example.org")
    return b"\r\n".join([*fields, b"", mail.body])


FIELD_NAME = bytes(range(33, 58)) + bytes(range(59, 127))
FAMILIES = [
    name for name in family_names("*") if any(messages(corpora_folder() / name))
] if corpora_folder().is_dir() else ["none"]  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_every_message_that_is_signed_here_passes_elsewhere(corpora: Path, name: str) -> None:
    signers, records = signing()
    library = opendkim()
    for path, data in messages(corpora / name):
        content = as_sent(data)
        for signer in signers:
            mail = signer.sign(content, 1.7e9) + content
            assert {key: [text] for key, text in records.items()}
            assert verdicts(mail, {key: [text] for key, text in records.items()})[0].status is (
                Status.PASS
            ), path
            assert library.passes(mail, records)[0], (path, signer.key_name)
            assert dkimpy_passes(mail, records), (path, signer.key_name)
