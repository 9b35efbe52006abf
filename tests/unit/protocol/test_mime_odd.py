"""Mail as it is sent although no standard allows it, each kind once."""

from base64 import b64encode
from datetime import UTC, datetime

import pytest

from mailyard.protocol.address import Mailbox
from mailyard.protocol.mime import parse, parse_summary
from mailyard.protocol.mime.address_list import parse_addresses
from mailyard.protocol.mime.charset import guess
from mailyard.protocol.mime.date import parse_date
from mailyard.protocol.mime.parameter import parse_structured


@pytest.mark.parametrize(
    ("text", "codec"),
    [
        ("日本語のメールです", "cp932"),
        ("日本語のメールです", "euc_jp"),
        ("주말특가 일본정품 후끈후끈 핫팩", "cp949"),
        ("这是一封测试邮件，请查收", "gb18030"),
        ("這是一封測試郵件，請查收", "cp950"),
        ("Рассылка: Уведомление участникам", "cp1251"),
        ("Рассылка: Уведомление участникам", "koi8_r"),
        ("Formação: Mega Campanha Verão", "cp1252"),
        ("Größe über äöü", "cp1252"),
    ],
)
def test_a_charset_that_nobody_named_is_guessed(text: str, codec: str) -> None:
    assert guess(text.encode(codec)) == text
    assert parse(b"Subject: " + text.encode(codec) + b"\r\n\r\n").subject == text


def test_addresses_of_several_fields_of_one_name_are_all_read() -> None:
    message = parse(b"To: a@x.example\r\nCc: c@x.example\r\nTo: B <b@x.example>\r\n\r\n")
    assert message.to == [Mailbox("", "a@x.example"), Mailbox("B", "b@x.example")]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("(Empty list)(start)Hidden  :(nobody(that I know))  ;", []),
        ("G: John <j@x.example> (my friend); (the end)", [Mailbox("John", "j@x.example")]),
        (r"Pete(A nice \) chap) <pete(his)@x.example(host)>", [Mailbox("Pete", "pete@x.example")]),
        ("jdoe@test   . example", [Mailbox("", "jdoe@test.example")]),
        ("nsb (Nathaniel)", [Mailbox("Nathaniel", "nsb")]),
        ("(only a comment)", [Mailbox("only a comment", "")]),
    ],
)
def test_comments_and_old_white_space_in_addresses(value: str, found: list[Mailbox]) -> None:
    assert parse_addresses(value) == found


@pytest.mark.parametrize(
    ("value", "kind", "parameters"),
    [
        (" message / rfc822", "message/rfc822", {}),
        ("(a) text (b) / (c) plain (d); charset=x", "text/plain", {"charset": "x"}),
        ('a/b; x=y  server="s=1"; z=2', "a/b", {"x": "y", "server": "s=1", "z": "2"}),
        ("a/b  name*0*=us-ascii'en'This%20 name*1=\"isn't\"", "a/b", {"name": "This isn't"}),
        ("a/b; name=a file=1.pdf; charset=x", "a/b", {"name": "a file=1.pdf", "charset": "x"}),
        ('a/b; name=""; name="c"', "a/b", {"name": "c"}),
        ("text/ ;charset=x", "text", {"charset": "x"}),
    ],
)
def test_parameters_without_semicolons(value: str, kind: str, parameters: dict[str, str]) -> None:
    found = parse_structured(value)
    assert (found.value, dict(found.parameters)) == (kind, parameters)


def test_comments_in_a_date_may_stand_in_comments() -> None:
    moment = datetime(2003, 7, 1, 8, 52, 37, tzinfo=UTC)
    assert parse_date("Tue, 1 Jul 2003 ((tricky) comment) 10:52:37 +0200") == moment


def test_a_message_that_was_sent_in_base64_is_read() -> None:
    inner = (
        b"Subject: in\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhi\r\n--b--"
    )
    head = b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    message = parse(head + b64encode(inner))
    (child,) = message.root.children
    assert child.field("subject") == "in"
    assert [message.part_text(part) for part in child.leaves()] == ["hi"]
    assert message.content(0) == inner


def test_encoded_messages_inside_each_other_are_decoded_once_over() -> None:
    raw = b"Subject: core\r\n\r\n"
    head = b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    for _ in range(30):
        raw = head + raw.replace(b"=", b"=3D")
    message = parse(raw)
    assert "too_much_encoded" in message.defects
    assert message.work_units < 4 * len(raw)


def test_an_attached_message_that_is_none_is_a_file() -> None:
    message = parse(b"Content-Type: message/rfc822\r\n\r\nthis is no mail, sorry!")
    assert message.root.children == []
    assert message.content(0) == b"this is no mail, sorry!"


def test_a_text_that_only_says_that_it_is_base64_is_text() -> None:
    head = b"Content-Transfer-Encoding: base64\r\n\r\n"
    said = b"Dear all, this was never encoded; have a look."
    assert parse(head + said).text == said.decode()


def test_a_multipart_with_the_boundary_of_its_parent_keeps_its_parts() -> None:
    message = parse(
        b"Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n"
        b"Content-Type: multipart/alternative; boundary=a\r\n\r\n--a\r\n\r\none\r\n"
        b"--a\r\n\r\ntwo\r\n--a--\r\n"
    )
    (inner,) = message.root.children
    assert [message.part_text(part) for part in inner.children] == ["one", "two"]


def test_what_stands_behind_white_space_on_a_delimiter_line_is_no_part_of_it() -> None:
    message = parse(
        b"Content-Type: multipart/mixed; boundary=a\r\n\r\n--a more words\r\n\r\none\r\n"
        b"--ab\r\n--a-- the end\r\n--a\r\n\r\nno part\r\n"
    )
    assert [message.part_text(part) for part in message.root.children] == ["one\n--ab"]


def test_paragraphs_of_flowed_text_are_joined() -> None:
    head = b"Content-Type: text/plain; format=flowed"
    body = (
        b"\r\n\r\nOne \r\nline.\r\n> quoted \r\n> words\r\n>> deeper\r\n From me\r\n-- \r\nAda \r\n"
    )
    assert parse(head + body).text == "One line.\n> quoted words\n>> deeper\nFrom me\n-- \nAda \n"
    assert (parse(head + b"; delsp=yes" + body).text or "").startswith("Oneline.\n> quotedwords")


def test_a_file_that_stands_uuencoded_in_a_text_is_a_file() -> None:
    block = b"begin 644 ../caf\xc3\xa9.txt\n%:&5L;&\\\n`\nend\n"
    message = parse(b"Subject: x\r\n\r\nbefore\nbegin at six\n" + block + b"after\n")
    assert message.text == "before\nbegin at six\nafter\n"
    (file,) = message.attachments
    assert (file.filename, file.size_bytes, message.content(0)) == ("café.txt", 5, b"hello")
    assert parse_summary(message.raw).attachments == 1
    with pytest.raises(IndexError):
        message.content(1)


@pytest.mark.parametrize(
    ("head", "traits"),
    [
        ('multipart/signed; protocol="application/pgp-signature"', ("pgp_signed",)),
        ('multipart/signed; protocol="application/x-pkcs7-signature"', ("smime_signed",)),
        ('multipart/encrypted; protocol="application/pgp-encrypted"', ("pgp_encrypted",)),
        ("application/pkcs7-mime; smime-type=enveloped-data", ("smime_encrypted",)),
        ("application/x-pkcs7-mime; smime-type=signed-data; name=smime.p7m", ("smime_signed",)),
        ("application/ms-tnef; name=winmail.dat", ("tnef",)),
        ("application/octet-stream; name=WINMAIL.DAT", ("tnef",)),
        ("text/calendar; method=REQUEST", ("calendar",)),
        ("text/plain", ()),
    ],
)
def test_what_a_mail_is_besides_its_text(head: str, traits: tuple[str, ...]) -> None:
    assert parse(f"Content-Type: {head}; boundary=b\r\n\r\n--b\r\n".encode()).traits == traits


def test_armour_of_openpgp_and_a_signature_whose_protocol_is_left_out() -> None:
    assert parse(b"\r\n-----BEGIN PGP MESSAGE-----\r\n").traits == ("pgp_encrypted",)
    head = b"Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b\r\n"
    assert parse(head + b"Content-Type: application/pgp-signature\r\n\r\n").traits == (
        "pgp_signed",
    )


def test_an_invitation_tells_of_its_events() -> None:
    message = parse(
        b"Content-Type: text/calendar; charset=utf-8\r\n\r\nBEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\n"
        b"BEGIN:VTIMEZONE\r\nDTSTART:19700101T000000\r\nEND:VTIMEZONE\r\nBEGIN:VEVENT\r\n"
        b"UID:7@x\r\nSUMMARY;LANGUAGE=en:Tea\\, at\r\n  four\r\n"
        b"DTSTART;TZID=Europe/Vienna:20260105T160000\r\n"
        b'ORGANIZER;CN="Ada: L":mailto:ada@x.example\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n'
    )
    (event,) = message.events
    assert (event.method, event.uid, event.summary) == ("REQUEST", "7@x", "Tea, at four")
    assert (event.starts, event.zone) == ("20260105T160000", "Europe/Vienna")
    assert event.organizer == "ada@x.example"
    assert message.attachments[0].filename == "invite.ics"
