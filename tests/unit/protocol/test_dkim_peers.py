"""What is signed here, verified by dkimpy and by OpenDKIM, which were not written here."""

import pytest
from dkim_peers import OpenDkim, dkimpy_passes, opendkim

from mailyard.protocol.dkim import Signer, generate_ed25519, generate_rsa, record_text, sign_all

SIGNED_AT_S = 1_700_000_000
RSA, ED25519 = generate_rsa(), generate_ed25519()
RECORDS = {
    "r1._domainkey.example.org": record_text(RSA.public()).encode(),
    "e1._domainkey.example.org": record_text(ED25519.public()).encode(),
}
HEAD = b"From: Ada <ada@example.org>\r\nTo: bob@example.net\r\nSubject: Hello\r\n"
LONG_WORDS = b" ".join(b"word%d" % number for number in range(200))
MAILS = {
    "plain": HEAD + b"\r\nHello\r\n",
    "folded": HEAD + b"References: <1@a.b>\r\n\t<2@a.b>\r\n  <3@a.b>\r\nCc:\r\n c@a.b\r\n\r\nx\r\n",
    "long header": HEAD + b"X: y\r\nMIME-Version: " + LONG_WORDS + b"\r\n\r\nx\r\n",
    "long lines": HEAD + b"\r\n" + LONG_WORDS * 20 + b"\r\n" + b"z" * 100_000 + b"\r\n",
    "8-bit": HEAD + "Cc: Zoë <zoë@example.net>\r\n\r\nZwölf Boxkämpfer\r\n".encode(),
    "latin-1": HEAD + b"Cc: Zo\xeb <z@example.net>\r\n\r\nZw\xf6lf \xff\xfe\r\n",
    "empty body": HEAD + b"\r\n",
    "no body": HEAD,
    "blank lines alone": HEAD + b"\r\n\r\n\r\n\r\n",
    "blank lines at the end": HEAD + b"\r\none\r\n\r\n \r\n\t\r\n\r\n\r\n",
    "no line end": HEAD + b"\r\none",
    "white space": HEAD + b"Cc: \t c@a.b \t \r\n\r\n a \t b  \r\n\tc\t\t\r\n",
    "dots": HEAD + b"\r\n.\r\n..\r\n.x\r\n",
    "repeated fields": b"To: 1@a.b\r\n" + HEAD + b"To: 3@a.b\r\nCc: c@a.b\r\nCc:\r\n\r\nx\r\n",
    "empty fields": HEAD + b"Cc:\r\nReply-To: \r\n\r\nx\r\n",
    "space before the colon": HEAD + b"Cc : c@a.b\r\n\r\nx\r\n",
    "campaign": HEAD + (
        b"List-Unsubscribe: <https://example.org/u/1>\r\n"
        b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\nFeedback-ID: 1:2:3:4\r\n\r\nx\r\n"
    ),
}  # fmt: skip
# dkimpy's header names end right before the colon; RFC 5322 section 4.5 allows the old form.
NOT_FOR_DKIMPY = {"space before the colon"}


@pytest.fixture(scope="module")
def library() -> OpenDkim:
    return opendkim()


def signers(*kinds: str) -> tuple[Signer, ...]:
    header, body = kinds
    return tuple(
        Signer("example.org", selector, key, kinds=(header, body), identity="@news.example.org")
        for selector, key in (("r1", RSA), ("e1", ED25519))
    )


@pytest.mark.parametrize("header_kind", ["simple", "relaxed"])
@pytest.mark.parametrize("body_kind", ["simple", "relaxed"])
@pytest.mark.parametrize("mail", MAILS)
def test_both_signatures_pass_with_both(
    library: OpenDkim, mail: str, header_kind: str, body_kind: str
) -> None:
    content = MAILS[mail]
    signed = sign_all(signers(header_kind, body_kind), content, SIGNED_AT_S) + content
    assert library.passes(signed, RECORDS) == [True, True]
    if mail not in NOT_FOR_DKIMPY:
        assert dkimpy_passes(signed, RECORDS) == [True, True]


def test_the_verifiers_do_look(library: OpenDkim) -> None:
    content = MAILS["campaign"]
    field = sign_all(signers("relaxed", "simple"), content, SIGNED_AT_S)
    for changed in (
        content + b"more\r\n",
        content.replace(b"One-Click", b"Two-Click"),
        b"From: eve@example.org\r\n" + content,
        b"Reply-To: eve@example.org\r\n" + content,
    ):
        assert library.passes(field + changed, RECORDS) == [False, False]
        assert dkimpy_passes(field + changed, RECORDS) == [False, False]
    assert library.passes(field + content, {}) == [False, False]
