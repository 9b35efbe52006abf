"""A composed mail, taken apart again for providers that take fields, says the same."""

import base64
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.core import ids
from mailyard.protocol.address import Mailbox
from mailyard.sending.compose import compose
from mailyard.sending.transport import Outgoing, Recipient
from mailyard.sending.transports.parts import named, take_apart, unique_headers
from mailyard.sending.transports.vendor import Inexpressible

ADA = Mailbox("Ada", "ada@example.com")
BOB = Mailbox("", "bob@example.com")
CY = Mailbox("Cy Ü", "cy@example.com")
SHOP = Mailbox("Shop", "shop@s.example")


@dataclass(frozen=True)
class Attached:
    filename: str
    content: bytes
    content_type: str = "application/pdf"
    content_id: str | None = None


def outgoing(content: bytes, *addresses: str) -> Outgoing:
    recipients = tuple(Recipient(ids.uuid7(), address) for address in addresses)
    return Outgoing("b@s.example", recipients, content, False, False)


def composed(**changes: object) -> bytes:
    fields: dict[str, object] = {
        "sender": SHOP,
        "to": [ADA],
        "subject": "Hello",
        "text": "Hi.",
        "date": datetime(2026, 3, 1, tzinfo=UTC),
        "message_id": "m1@s.example",
    }
    return compose(**{**fields, **changes}).content  # type: ignore[arg-type]


printable = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), max_size=40)
words = st.lists(printable.filter(bool), min_size=1, max_size=5).map(" ".join)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), min_size=1, max_size=400)


@settings(max_examples=100, deadline=None)
@given(subject=words, text=texts, html=texts, file=st.binary(max_size=200), name=words)
def test_a_composed_mail_says_the_same(
    subject: str, text: str, html: str, file: bytes, name: str
) -> None:
    content = composed(
        sender=Mailbox(name, "shop@s.example"),
        reply_to=[BOB],
        subject=subject,
        text=text,
        html=html,
        headers={"X-Order": "7"},
        attachments=[Attached("a.pdf", file), Attached("l.png", b"\x89PNG", "image/png", "logo")],
        list_unsubscribe="https://s.example/u/1",
    )
    parts = take_apart(outgoing(content, "ada@example.com"))
    assert parts.sender.address == "shop@s.example"
    assert " ".join(parts.sender.name.split()) == " ".join(name.split())
    assert (parts.to, parts.cc, parts.bcc, parts.reply_to) == ([ADA], [], [], [BOB])
    assert parts.subject == subject
    assert (parts.text or "").removesuffix("\n") == text.removesuffix("\n")
    assert (parts.html or "").removesuffix("\n") == html.removesuffix("\n")
    assert parts.message_id == "m1@s.example"
    assert unique_headers(parts) == {
        "List-Unsubscribe": "<https://s.example/u/1>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        "X-Order": "7",
    }
    found = {
        one.name: (one.kind, base64.b64decode(one.content), one.content_id) for one in parts.files
    }
    assert found == {
        "a.pdf": ("application/pdf", file, ""),
        "l.png": ("image/png", b"\x89PNG", "logo"),
    }


def test_the_header_shows_only_people_to_whom_it_is_sent_now() -> None:
    content = composed(to=[ADA, BOB], cc=[CY])
    parts = take_apart(outgoing(content, "bob@example.com", "CY@example.com", "dee@example.com"))
    assert [one.address for one in parts.to] == ["bob@example.com"]
    assert [(one.name, one.address) for one in parts.cc] == [("Cy Ü", "CY@example.com")]
    assert [one.address for one in parts.bcc] == ["dee@example.com"]


def test_a_copy_without_its_first_reader_has_one_all_the_same() -> None:
    content = composed(to=[ADA], cc=[BOB, CY])
    parts = take_apart(outgoing(content, "bob@example.com", "cy@example.com"))
    assert [one.address for one in parts.to] == ["bob@example.com"]
    assert [one.address for one in parts.cc] == ["cy@example.com"]


def test_hidden_copies_alone_go_one_by_one() -> None:
    content = composed(to=[ADA])
    parts = take_apart(outgoing(content, "bob@example.com"))
    assert ([one.address for one in parts.to], parts.bcc) == (["bob@example.com"], [])
    with pytest.raises(Inexpressible) as caught:
        take_apart(outgoing(content, "bob@example.com", "cy@example.com"))
    assert caught.value.apart


def test_a_domain_is_the_same_in_both_its_spellings() -> None:
    content = composed(to=[Mailbox("Ü", "ada@xn--bcher-kva.example")])
    parts = take_apart(outgoing(content, "ada@bücher.example", "bob@example.com"))
    assert [one.name for one in parts.to] == ["Ü"]


def test_a_signature_over_other_bytes_is_left_out_and_so_is_the_trace() -> None:
    trace = b"Received: from x\r\nDKIM-Signature: v=1; b=AAAA\r\nReturn-Path: <a@s.example>\r\n"
    parts = take_apart(outgoing(trace + composed(), "ada@example.com"))
    assert parts.headers == []


def test_a_file_without_a_name_gets_one() -> None:
    content = (
        b'From: a@s.example\r\nContent-Type: multipart/mixed; boundary="m"\r\n\r\n'
        b"--m\r\nContent-Type: text/plain\r\n\r\nhi\r\n"
        b"--m\r\nContent-Type: text/calendar\r\nContent-Disposition: attachment\r\n\r\nBEGIN\r\n"
        b"--m\r\nContent-Type: x/y\r\nContent-Disposition: attachment\r\n\r\nx\r\n--m--\r\n"
    )
    parts = take_apart(outgoing(content, "ada@example.com"))
    assert [one.name for one in parts.files] == ["invite.ics", "attachment-2"]


@pytest.mark.parametrize(
    ("mailbox", "text"),
    [
        (BOB, "bob@example.com"),
        (ADA, '"Ada" <ada@example.com>'),
        (Mailbox('A "B", \\C', "a@x.example"), '"A \\"B\\", \\\\C" <a@x.example>'),
    ],
)
def test_a_name_is_quoted_where_an_api_takes_one_string(mailbox: Mailbox, text: str) -> None:
    assert named(mailbox) == text
