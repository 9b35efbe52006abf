"""The mail that we write: legal bytes, nothing smuggled in, and it reads back as it was meant."""

import email
import email.policy
from base64 import b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.core.errors import InvalidInput
from mailyard.protocol.address import Mailbox
from mailyard.protocol.mime import parse
from mailyard.sending import header
from mailyard.sending.compose import Composed, compose
from mailyard.sending.mould import Mould

ADA = Mailbox("Ada Byron", "ada@example.org")
BOB = Mailbox("Bob", "bob@example.net")
NOON = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


@dataclass(frozen=True)
class File:
    filename: str
    content: bytes
    content_type: str = "application/octet-stream"
    content_id: str | None = None


def written(**changes: Any) -> Composed:
    arguments: dict[str, Any] = {
        "sender": ADA, "to": [BOB], "subject": "Hello", "text": "Hi Bob\n", "date": NOON,
        "message_id": "one@example.org",
    }  # fmt: skip
    return compose(**(arguments | changes))


def poured(**changes: Any) -> bytes:
    mould = Mould(
        sender=changes.pop("sender", ADA), headers=changes.pop("headers", None), seed="018f00aa"
    )
    arguments: dict[str, Any] = {
        "to_name": "Bob", "to_address": "bob@example.net", "subject": "Hello", "text": "Hi Bob\n",
        "html": "<p>Hi Bob</p>\n", "message_id": "one@example.org", "date": NOON,
        "unsubscribe_url": "https://example.org/u/1",
    }  # fmt: skip
    return mould.compose(**(arguments | changes))


def head_of(content: bytes) -> str:
    return content.partition(b"\r\n\r\n")[0].decode()


def check_legal(content: bytes) -> None:
    """RFC 5322 section 2.1.1 and RFC 5321 section 4.5.3.1.6."""
    assert content.endswith(b"\r\n")
    lines = content[:-2].split(b"\r\n")
    assert max(map(len, lines)) <= 998
    assert not any(b"\n" in line or b"\r" in line or b"\0" in line for line in lines)
    for line in content.partition(b"\r\n\r\n")[0].split(b"\r\n"):
        assert line.strip()


def test_a_plain_mail_is_written_to_the_letter() -> None:
    assert written().content == (
        b"Date: Mon, 23 Nov 2026 12:00:00 +0000\r\n"
        b"From: Ada Byron <ada@example.org>\r\n"
        b"To: Bob <bob@example.net>\r\n"
        b"Subject: Hello\r\n"
        b"Message-ID: <one@example.org>\r\n"
        b"MIME-Version: 1.0\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Transfer-Encoding: 7bit\r\n"
        b"\r\n"
        b"Hi Bob\r\n"
    )
    assert not written().eight_bit
    assert not written().smtp_utf8


def test_every_part_reads_back() -> None:
    composed = written(
        cc=[Mailbox("", "carol@example.net")],
        reply_to=[Mailbox("Señor", "reply@example.org")],
        subject="Grüße an alle 🎉 " * 8,
        text="Grüße\n.\n..dots\nFrom here\n",
        html='<p>Grüße <img src="cid:logo"></p>',
        headers={"X-Order": "42"},
        attachments=[
            File("résumé.pdf", b"%PDF" * 1000, "application/pdf"),
            File("logo.png", b"\x89PNG", "image/png", "logo"),
        ],
        list_unsubscribe="https://example.org/u/1",
    )
    check_legal(composed.content)
    message = parse(composed.content)
    assert message.defects == ()
    assert message.subject == ("Grüße an alle 🎉 " * 8)
    assert message.cc == [Mailbox("", "carol@example.net")]
    assert message.reply_to == [Mailbox("Señor", "reply@example.org")]
    assert message.text == "Grüße\n.\n..dots\nFrom here\n"
    assert message.html == '<p>Grüße <img src="cid:logo"></p>'
    assert message.header("X-Order") == "42"
    assert message.header("List-Unsubscribe") == "<https://example.org/u/1>"
    assert message.header("List-Unsubscribe-Post") == "List-Unsubscribe=One-Click"
    logo, resume = message.attachments
    assert (resume.filename, message.content(resume.index)) == ("résumé.pdf", b"%PDF" * 1000)
    assert (logo.content_id, logo.disposition) == ("logo", "inline")
    assert composed.eight_bit
    tree = [part.content_type.value for part in message.root.leaves()]
    assert tree == ["text/plain", "text/html", "image/png", "application/pdf"]


def test_the_standard_library_reads_it_the_same() -> None:
    composed = written(html="<p>é</p>", subject="Café", attachments=[File("ä.txt", b"x" * 200)])
    message = email.message_from_bytes(composed.content, policy=email.policy.default)
    assert message["Subject"] == "Café"
    assert message.get_body(("html",)).get_content().strip() == "<p>é</p>"  # type: ignore[union-attr]
    (file,) = message.iter_attachments()  # type: ignore[attr-defined]
    assert (file.get_filename(), file.get_content()) == ("ä.txt", b"x" * 200)
    assert not message.defects


@pytest.mark.parametrize("evil", ["a\r\nBcc: x@y.z", "a\nb", "a\rb", "a\0b", "a\x1bb"])
@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("subject", lambda evil: {"subject": evil}),
        ("from", lambda evil: {"sender": Mailbox(evil, "a@b.c")}),
        ("from", lambda evil: {"sender": Mailbox("", f"{evil}@b.c")}),
        ("to.0", lambda evil: {"to": [Mailbox(evil, "a@b.c")]}),
        ("cc.0", lambda evil: {"cc": [Mailbox("", f"{evil}@b.c")]}),
        ("reply_to.0", lambda evil: {"reply_to": [Mailbox(evil, "a@b.c")]}),
        ("headers.X", lambda evil: {"headers": {"X": evil}}),
        ("message_id", lambda evil: {"message_id": evil}),
        ("list_unsubscribe", lambda evil: {"list_unsubscribe": evil}),
        ("attachments.0.filename", lambda evil: {"attachments": [File(evil, b"")]}),
        ("attachments.0.content_type", lambda evil: {"attachments": [File("a", b"", evil)]}),
        (
            "attachments.0.content_id",
            lambda evil: {"html": "x", "attachments": [File("a", b"", "a/b", evil)]},
        ),
    ],
)
def test_line_breaks_and_controls_are_refused_in_every_header_field(
    field: str, change: Any, evil: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        written(**change(evil))
    assert refused.value.field == field


@pytest.mark.parametrize("name", ["X:Y", "X Y", "", "X\r\nBcc", "Ünicode", "X" * 80])
def test_a_header_name_is_letters_and_signs(name: str) -> None:
    with pytest.raises(InvalidInput):
        written(headers={name: "x"})


@pytest.mark.parametrize("field", ["text", "html"])
def test_a_body_with_nul_or_half_a_character_is_refused(field: str) -> None:
    for body in ("a\0b", "a\ud800b"):
        with pytest.raises(InvalidInput) as refused:
            written(**{field: body})
        assert refused.value.field == field


def test_a_blind_copy_cannot_be_written() -> None:
    with pytest.raises(TypeError):
        written(bcc=[BOB])


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        ("short\n", "7bit"),
        ("grün\n", "8bit"),
        ("x" * 998 + "\n", "7bit"),
        ("x" * 999 + "\n", "quoted-printable"),
        ("é" * 499 + "\n", "8bit"),
        ("é" * 500 + "\n", "quoted-printable"),
        ("x" * 999, "quoted-printable"),
    ],
)
def test_a_body_goes_as_it_is_while_its_lines_are_legal(body: str, encoding: str) -> None:
    for content in (written(text=body).content, poured(text=body, html=body)):
        check_legal(content)
        assert f"Content-Transfer-Encoding: {encoding}".encode() in content
        message = parse(content)
        assert (message.text or "").rstrip("\n") == body.rstrip("\n")


def test_line_ends_of_any_kind_become_crlf() -> None:
    content = written(text="a\nb\r\nc\rd").content
    assert content.endswith(b"a\r\nb\r\nc\r\nd\r\n")


def test_a_long_header_is_folded_before_a_space_and_reads_back() -> None:
    value = " ".join(f"word{number}" for number in range(60))
    content = written(subject=value, headers={"X-Long": value}).content
    assert max(map(len, head_of(content).split("\r\n"))) <= 78
    assert parse(content).subject == value
    assert parse(content).header("X-Long") == value


def test_a_word_longer_than_a_line_is_encoded() -> None:
    content = written(subject="x" * 990, headers={"X-Long": "y" * 3000}).content
    check_legal(content)
    assert parse(content).subject == "x" * 990
    assert parse(content).header("X-Long") == "y" * 3000


def test_what_looks_like_an_encoded_word_is_encoded() -> None:
    content = written(subject="=?utf-8?Q?evil?=").content
    assert parse(content).subject == "=?utf-8?Q?evil?="


@pytest.mark.parametrize(
    "name",
    ["Byron, Ada", 'Ada "A" B', "a.b", "Ada (home)", "Łukasz", "=?x?Q?y?=", "x" * 200, "a\\b"],
)
def test_a_display_name_reads_back(name: str) -> None:
    assert parse(written(to=[Mailbox(name, "a@b.c")]).content).to == [Mailbox(name, "a@b.c")]
    assert parse(poured(to_name=name)).to == [Mailbox(name, "bob@example.net")]


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(codec="utf-8"), min_size=1, max_size=120))
def test_encoded_words_hold_as_many_whole_characters_as_fit(text: str) -> None:
    held = [b""]
    for character in text:
        if len(held[-1]) + len(character.encode()) > 45:
            held.append(b"")
        held[-1] += character.encode()
    words = [f"=?utf-8?B?{b64encode(raw).decode()}?=" for raw in held]
    assert header.encode_words(text) == " ".join(words)


def test_a_foreign_domain_is_written_in_ascii_and_a_foreign_local_part_asks_for_utf8() -> None:
    composed = written(to=[Mailbox("", "a@bücher.example")])
    assert b"To: a@xn--bcher-kva.example\r\n" in composed.content
    assert not composed.smtp_utf8
    composed = written(to=[Mailbox("", "jörg@bücher.example")])
    assert "To: jörg@xn--bcher-kva.example\r\n".encode() in composed.content
    assert composed.smtp_utf8
    assert composed.eight_bit


@pytest.mark.parametrize(
    "name",
    ["a b.txt", 'quo"te.txt', "back\\slash.txt", "naïve.txt", "日本語" * 60 + ".txt", "x" * 250],
)
def test_a_file_name_of_any_kind_reads_back(name: str) -> None:
    composed = written(attachments=[File(name, b"x")])
    check_legal(composed.content)
    read = parse(composed.content).attachments[0].filename
    assert read == name.replace("\\", "/").rpartition("/")[2]


def test_an_attached_message_is_not_given_a_type_that_forbids_base64() -> None:
    composed = written(attachments=[File("a.eml", b"Subject: x\r\n\r\n", "message/rfc822")])
    assert parse(composed.content).attachments[0].content_type == "application/octet-stream"


def test_the_boundary_occurs_in_no_part() -> None:
    first = written(html="<p>x</p>").content
    boundary = first.partition(b'boundary="')[2].partition(b'"')[0]
    again = written(text=f"--{boundary.decode()}--\n", html="<p>x</p>").content
    assert parse(again).text == f"--{boundary.decode()}--\n"
    assert parse(again).html == "<p>x</p>"


def test_the_same_arguments_give_the_same_bytes() -> None:
    assert written(html="<p>x</p>") == written(html="<p>x</p>")
    assert poured() == poured()


def test_all_hidden_recipients_leave_a_legal_to_header() -> None:
    assert b"To: undisclosed-recipients:;\r\n" in written(to=[]).content


# The mould ---------------------------------------------------------------------------------------


def test_a_mould_writes_what_compose_writes() -> None:
    content = poured(headers={"X-Campaign": "spring"})
    check_legal(content)
    message = parse(content)
    same = parse(
        written(
            html="<p>Hi Bob</p>\n", headers={"X-Campaign": "spring"},
            list_unsubscribe="https://example.org/u/1",
        ).content
    )  # fmt: skip
    without_type = [field for field in message.headers if field[0] != "Content-Type"]
    assert without_type == [field for field in same.headers if field[0] != "Content-Type"]
    assert (message.text, message.html) == (same.text, same.html)
    assert message.defects == ()


@pytest.mark.parametrize(
    "change",
    [
        {"subject": "Grüße"},
        {"subject": "x" * 300},
        {"subject": " padded "},
        {"to_name": "Łukasz " * 30},
        {"to_address": "jörg@example.net"},
        {"html": ""},
        {"text": ""},
        {"text": "--=_018f00aa--\n"},
        {"unsubscribe_url": ""},
        {"unsubscribe_url": "mailto:stop@example.org"},
        {"text": "grün\n", "html": "<p>grün</p>"},
    ],
)
def test_a_mould_takes_what_does_not_fit_it(change: dict[str, str]) -> None:
    content = poured(**change)
    check_legal(content)
    message = parse(content)
    assert message.defects == ()
    assert message.subject == change.get("subject", "Hello")
    assert message.to[0].address == change.get("to_address", "bob@example.net")
    assert message.text == (change.get("text", "Hi Bob\n") or None)
    expected = change.get("html", "<p>Hi Bob</p>\n")
    assert (message.html or "").rstrip("\n") == expected.rstrip("\n")


@pytest.mark.parametrize("evil", ["a\r\nBcc: x@y.z", "a\nb", "a\0b"])
@pytest.mark.parametrize(
    ("argument", "field"),
    [
        ("subject", "subject"), ("to_name", "to.0"), ("to_address", "to.0"),
        ("message_id", "message_id"), ("unsubscribe_url", "list_unsubscribe"),
    ],
)  # fmt: skip
def test_a_mould_refuses_line_breaks_too(argument: str, field: str, evil: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        poured(**{argument: evil})
    assert refused.value.field == field


LINES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=300)
HEADER = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=200
)


@settings(max_examples=60, deadline=None)
@given(subject=HEADER, name=HEADER, text=LINES, html=LINES)
def test_any_text_gives_a_legal_mail_that_reads_back(
    subject: str, name: str, text: str, html: str
) -> None:
    for content in (
        written(subject=subject, to=[Mailbox(name, "b@c.d")], text=text, html=html).content,
        poured(subject=subject, to_name=name, text=text, html=html),
    ):
        check_legal(content)
        message = parse(content)
        assert message.subject.split() == subject.split()
        assert message.to[0].name.split() == name.split()
        for ours, given_text in ((message.text, text), (message.html, html)):
            plain = given_text.replace("\r\n", "\n").replace("\r", "\n")
            assert (ours or "").rstrip("\n") == plain.rstrip("\n")
