"""What a received mail says: headers, addresses, bodies and attachments, however it is written."""

from datetime import UTC, datetime

import pytest

from mailyard.protocol.address import Mailbox
from mailyard.protocol.mime import parse, parse_summary


def mail(*lines: str | bytes) -> bytes:
    return b"\r\n".join(line if isinstance(line, bytes) else line.encode() for line in lines)


ORDER = mail(
    "Received: from a.example by b.example;",
    "\tMon, 23 Nov 2026 10:00:00 +0000",
    'From: "Example, Ada" <ada@example.org>',
    "To: bob@example.net, Carol <carol@example.net>",
    "Cc: team: dan@example.net, Eve <eve@example.net>;",
    "Subject: =?utf-8?Q?Caf=C3=A9_no=2E_42?=",
    "Date: Mon, 23 Nov 2026 12:30:05 +0200",
    "Message-ID: <one@example.org>",
    "In-Reply-To: <zero@example.org>",
    "References: <minus@example.org> <zero@example.org>",
    "MIME-Version: 1.0",
    'Content-Type: multipart/mixed; boundary="outer"',
    "",
    "This is a preamble.",
    "--outer",
    "Content-Type: multipart/alternative; boundary=inner",
    "",
    "--inner",
    "Content-Type: text/plain; charset=utf-8",
    "Content-Transfer-Encoding: quoted-printable",
    "",
    "Gr=C3=BC=C3=9Fe,=20",
    "Ada",
    "--inner",
    "Content-Type: text/html; charset=iso-8859-1",
    "",
    b"<p>Gr\xfc\xdfe</p>",
    "--inner--",
    "--outer",
    "Content-Type: application/pdf",
    "Content-Disposition: attachment; filename*0*=utf-8''r%C3%A9; filename*1=\"sum.pdf\"",
    "Content-Transfer-Encoding: base64",
    "",
    "JVBERg==",
    "--outer--",
    "An epilogue.",
)


def test_headers_are_in_order_unfolded_and_decoded() -> None:
    message = parse(ORDER)
    assert message.headers[0] == (
        "Received",
        "from a.example by b.example; Mon, 23 Nov 2026 10:00:00 +0000",
    )
    assert message.header("SUBJECT") == message.subject == "Café no. 42"
    assert message.header("X-Absent") is None
    assert message.date == datetime(2026, 11, 23, 10, 30, 5, tzinfo=UTC)
    assert message.message_id == "one@example.org"
    assert message.in_reply_to == ["zero@example.org"]
    assert message.references == ["minus@example.org", "zero@example.org"]
    assert message.defects == ()


def test_addresses_have_names_and_groups_are_flattened() -> None:
    message = parse(ORDER)
    assert message.from_ == [Mailbox("Example, Ada", "ada@example.org")]
    assert message.to == [
        Mailbox("", "bob@example.net"),
        Mailbox("Carol", "carol@example.net"),
    ]
    assert message.cc == [Mailbox("", "dan@example.net"), Mailbox("Eve", "eve@example.net")]
    assert message.reply_to == []


def test_bodies_are_decoded_by_their_encoding_and_charset() -> None:
    message = parse(ORDER)
    assert message.text == "Grüße, \nAda"
    assert message.html == "<p>Grüße</p>"


def test_an_attachment_is_listed_and_its_content_decoded_when_asked() -> None:
    (attachment,) = parse(ORDER).attachments
    assert (attachment.filename, attachment.content_type) == ("résum.pdf", "application/pdf")
    assert (attachment.size_bytes, attachment.index) == (4, 0)
    assert attachment.disposition == "attachment"
    assert parse(ORDER).content(0) == b"%PDF"


def test_parts_are_offsets_into_the_raw_bytes() -> None:
    message = parse(ORDER)
    paths = {part.path: ORDER[part.body_start : part.end] for part in message.root.leaves()}
    assert paths == {
        "1.1": b"Gr=C3=BC=C3=9Fe,=20\r\nAda",
        "1.2": b"<p>Gr\xfc\xdfe</p>",
        "2": b"JVBERg==",
    }
    assert message.raw is ORDER


def test_the_summary_says_the_same_as_the_whole() -> None:
    assert parse_summary(ORDER) == (
        "Example, Ada",
        "ada@example.org",
        "Café no. 42",
        "Grüße, Ada",
        datetime(2026, 11, 23, 10, 30, 5, tzinfo=UTC),
        "one@example.org",
        1,
        "zero@example.org",
        ("minus@example.org", "zero@example.org"),
    )


def test_the_summary_names_the_parents_of_a_mail_and_of_many_the_root_and_the_nearest() -> None:
    many = [f"{number}@example.org" for number in range(100)]
    short = mail(
        "In-Reply-To: Ada's mail of Monday <one@example.org> <two@example.org>",
        "References: <root@example.org>",
        " <one@example.org>", "", "x",
    )  # fmt: skip
    summary = parse_summary(short)
    assert summary.in_reply_to == "one@example.org"
    assert summary.references == ("root@example.org", "one@example.org")
    long = parse_summary(mail("References: " + "\r\n ".join(f"<{one}>" for one in many), "", "x"))
    assert long.in_reply_to == ""
    assert long.references == (many[0], *many[-31:])


def test_the_preview_of_an_html_mail_is_its_visible_text() -> None:
    raw = mail(
        "Content-Type: text/html",
        "",
        "<html><head><style>p { color: red }</style></head>",
        "<!-- hidden --><p>Hello&nbsp;&amp;   welcome</p><script>x()</script>" + "w " * 300,
    )
    preview = parse_summary(raw).preview
    assert preview.startswith("Hello & welcome w w")
    assert len(preview) <= 200


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("=?utf-8?B?w6k=?=", "é"),
        ("=?UTF-8?q?a_b=5F?=", "a b_"),
        ("=?utf-8?B?w6k?=", "é"),  # padding is missing
        ("=?utf-8?Q?one?= =?utf-8?Q?_two?=", "one two"),
        ("=?utf-8?B?w6?=\r\n =?utf-8?B?k=?=", "é"),  # base64 cut inside a group
        ("=?utf-8?Q?=C3?= =?utf-8?Q?=A9?=", "é"),  # a character split between words
        ("=?utf-8?Q?a?= b =?utf-8?Q?c?=", "a b c"),
        ("x=?utf-8?Q?a?=y", "xay"),
        ("=?utf-8*en?Q?a?=", "a"),  # RFC 2231 language
        ("=?iso-8859-1?Q?=E9?=", "é"),
        ("=?unheard-of?Q?=E9?=", "é"),
        ("=?utf-8?Q?has space?=", "has space"),
        ("=?utf-8?Q?open", "open"),
        ("=?utf-8?Q?open =?utf-8?Q?_next?=", "open  next"),
        ("=?utf-8?X?a?=", "=?utf-8?X?a?="),
        ("=?gb2312?B?xOO6ww==?=", "你好"),
        ("=?iso-2022-jp?B?GyRCJDMbKEI=?=", "こ"),
        ("caf\u00e9", "café"),
        ("a =? b ?= c", "a =? b ?= c"),
    ],
)
def test_encoded_words_are_read_however_they_are_broken(written: str, meant: str) -> None:
    assert parse(f"Subject: {written}\r\n\r\n".encode()).subject == meant


def test_eight_bit_headers_are_utf8_or_else_windows_1252() -> None:
    assert parse(b"Subject: caf\xc3\xa9\r\nX: caf\xe9 \x93q\x94\r\n\r\n").headers == (
        ("Subject", "café"),
        ("X", "café \u201cq\u201d"),
    )


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("ada@example.org", [("", "ada@example.org")]),
        ("<ada@example.org>", [("", "ada@example.org")]),
        ("Ada Byron <ada@example.org>", [("Ada Byron", "ada@example.org")]),
        ('"Ada \\"A\\" B" <ada@example.org>', [('Ada "A" B', "ada@example.org")]),
        ("ada@example.org (Ada Byron)", [("Ada Byron", "ada@example.org")]),
        ("=?utf-8?Q?Ad=C3=A1?= <a@b.c>", [("Adá", "a@b.c")]),
        ('"=?utf-8?Q?Ad=C3=A1?=" <a@b.c>', [("Adá", "a@b.c")]),
        ("a@b.c,,d@e.f,", [("", "a@b.c"), ("", "d@e.f")]),
        ("Friends: a@b.c, D <d@e.f>;", [("", "a@b.c"), ("D", "d@e.f")]),
        ("undisclosed-recipients:;", []),
        ("<@route.example:a@b.c>", [("", "a@b.c")]),
        ("Ada a@b.c", [("Ada", "a@b.c")]),
        ("Ada <a@b.c", [("Ada", "a@b.c")]),
        ('"unclosed <a@b.c>', [("unclosed", "a@b.c")]),
        ('"a b"@example.org', [("", '"a b"@example.org')]),
        ("just words", [("just words", "")]),
        ("", []),
    ],
)
def test_address_lists_are_read_leniently(written: str, meant: list[tuple[str, str]]) -> None:
    found = parse(f"From: {written}\r\n\r\n".encode()).from_
    assert [(mailbox.name, mailbox.address) for mailbox in found] == meant


@pytest.mark.parametrize(
    ("written", "hour"),
    [
        ("Mon, 23 Nov 2026 12:00:00 +0000", 12),
        ("23 Nov 2026 12:00:00 -0800", 20),
        ("Mon, 23 Nov 26 12:00 GMT", 12),
        ("Mon,23 November 2026 12:00:00 EST", 17),
        ("Mon Nov 23 12:00:00 2026", 12),
        ("Mon Nov 23 12:00:00 PST 2026", 20),
        ("Mon, 23 Nov 2026 12:00:00 +0000 (UTC)", 12),
        ("23-Nov-2026 12:00:00 +0100", 11),
    ],
)
def test_dates_are_read_in_every_dress(written: str, hour: int) -> None:
    expected = datetime(2026, 11, 23, hour, tzinfo=UTC)
    assert parse(f"Date: {written}\r\n\r\n".encode()).date == expected


@pytest.mark.parametrize(
    "written", ["", "yesterday", "99 Nov 2026 12:00:00", "1 Foo 2026 1:1:1", "1 Jan 0000 00:00:00"]
)
def test_what_is_no_date_is_none(written: str) -> None:
    assert parse(f"Date: {written}\r\n\r\n".encode()).date is None


@pytest.mark.parametrize(
    ("charset", "raw", "text"),
    [
        ("utf-8", "žluť".encode(), "žluť"),
        ("utf-8", b"caf\xe9", "caf\ufffd"),
        ("us-ascii", "žluť".encode(), "žluť"),  # no charset at all, in truth
        ("windows-1250", "žluť".encode("cp1250"), "žluť"),
        ("iso-8859-1", b"\x80 caf\xe9", "€ café"),
        ("ks_c_5601-1987", "한".encode("cp949"), "한"),
        ("x-sjis", "日本".encode("cp932"), "日本"),
        ("koi8-r", "мир".encode("koi8-r"), "мир"),
        ("unheard-of", b"caf\xe9", "café"),
        ("base64", b"caf\xe9", "café"),  # a Python codec, not a charset
        ("", b"caf\xe9 \x81", "café \x81"),
        ("utf-16", "hé".encode("utf-16"), "hé"),
        ("utf-7", b"caf+AOk-", "café"),
        ('"utf-8"', "é".encode(), "é"),
    ],
)
def test_charsets_go_by_name_and_then_by_guess(charset: str, raw: bytes, text: str) -> None:
    head = f"Content-Type: text/plain; charset={charset}\r\n\r\n".encode()
    assert parse(head + raw).text == text


def test_a_mail_without_headers_has_a_text() -> None:
    assert parse(b"\r\nhello").text == "hello"
    assert parse(b"").text == ""


def test_line_ends_may_be_bare() -> None:
    raw = ORDER.replace(b"\r\n", b"\n")
    assert parse(raw).text == "Grüße, \nAda"
    assert parse(raw).defects == ()


def test_a_multipart_that_is_never_closed_keeps_its_last_part() -> None:
    raw = mail("Content-Type: multipart/mixed; boundary=b", "", "--b", "", "one", "--b", "", "two")
    message = parse(raw)
    assert message.text == "one\ntwo"
    assert message.defects == ("unclosed_multipart",)


def test_an_outer_delimiter_ends_the_inner_multipart() -> None:
    raw = mail(
        "Content-Type: multipart/mixed; boundary=o", "",
        "--o", "Content-Type: multipart/alternative; boundary=i", "",
        "--i", "", "text",
        "--o", "Content-Type: image/png", "Content-Transfer-Encoding: base64", "", "AAAA",
        "--o--",
    )  # fmt: skip
    message = parse(raw)
    assert message.text == "text"
    assert [a.content_type for a in message.attachments] == ["image/png"]


def test_a_boundary_that_begins_like_another_is_another() -> None:
    raw = mail(
        "Content-Type: multipart/mixed; boundary=a", "",
        "--a", "", "--ab", "not a delimiter", "--a--",
    )  # fmt: skip
    assert parse(raw).text == "--ab\nnot a delimiter"


def test_an_attached_mail_is_one_attachment_and_its_parts_stand_in_the_tree() -> None:
    raw = mail(
        "Content-Type: multipart/mixed; boundary=o", "",
        "--o", "", "see below",
        "--o", "Content-Type: message/rfc822", "",
        "Subject: inner", "", "inner text",
        "--o--",
    )  # fmt: skip
    message = parse(raw)
    assert message.text == "see below"
    assert [(a.filename, a.content_type) for a in message.attachments] == [
        ("message.eml", "message/rfc822")
    ]
    assert message.content(0) == b"Subject: inner\r\n\r\ninner text"
    assert message.root.children[1].children[0].field("subject") == "inner"


def test_an_image_that_the_html_shows_has_its_content_id() -> None:
    raw = mail(
        "Content-Type: multipart/related; boundary=r", "",
        "--r", "Content-Type: text/html", "", '<img src="cid:logo@x">',
        "--r", 'Content-Type: image/png; name="logo.png"', "Content-ID: <logo@x>",
        "Content-Disposition: inline", "Content-Transfer-Encoding: base64", "", "AAAA",
        "--r--",
    )  # fmt: skip
    (image,) = parse(raw).attachments
    assert (image.content_id, image.disposition, image.filename) == ("logo@x", "inline", "logo.png")
    assert parse(raw).text is None


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ('attachment; filename="a b.txt"', "a b.txt"),
        ("attachment; filename=a b.txt", "a b.txt"),
        ('attachment; filename="=?utf-8?B?w6kudHh0?="', "é.txt"),
        ("attachment; filename*=utf-8''%C3%A9.txt; filename=e.txt", "é.txt"),
        ("attachment; filename*1=b.txt; filename*0=a", "ab.txt"),
        ("attachment; filename*=%E9.txt", "é.txt"),
        ('attachment; filename="..\\\\..\\\\etc/passwd"', "passwd"),
        ('attachment; filename="C:\\\\x\\\\y.doc"', "y.doc"),
        ('attachment; filename="a;b.txt"', "a;b.txt"),
        ('attachment; filename="open', "open"),
        ("attachment", ""),
    ],
)
def test_file_names_are_read_and_hold_no_folder(header: str, name: str) -> None:
    raw = mail("Content-Type: application/x", f"Content-Disposition: {header}", "", "x")
    assert parse(raw).attachments[0].filename == name


def test_base64_is_read_through_junk_and_missing_padding() -> None:
    def decoded(body: str) -> bytes:
        head = ("Content-Type: application/x", "Content-Transfer-Encoding: BASE64", "")
        return parse(mail(*head, body)).content(0)

    assert decoded("aGVs\r\nbG8=") == b"hello"
    assert decoded("aGVsbG8") == b"hello"
    assert decoded("aGV-s b!G8=") == b"hello"
    assert decoded("aGVsbG8=aGVsbG8=") == b"hellohello"
    assert decoded("a") == b""


def test_uuencoded_content_is_decoded() -> None:
    raw = mail(
        "Content-Type: application/x", "Content-Transfer-Encoding: x-uuencode", "",
        "begin 644 a.txt", "%:&5L;&\\", "`", "end",
    )  # fmt: skip
    assert parse(raw).content(0) == b"hello"


def test_a_body_that_begins_without_its_blank_line_is_found() -> None:
    message = parse(b"Subject: x\r\nDear all,\r\nthis is the body\r\n\r\nand more")
    assert message.subject == "x"
    assert message.text == "Dear all,\nthis is the body\n\nand more"
    assert "missing_blank_line" in message.defects


def test_a_body_without_its_blank_line_begins_at_its_own_line() -> None:
    raw = b"Subject: we meet today\r\nX: =?utf-8?Q?today?= \xe9\r\n folded\r\ntoday\r\nat noon"
    message = parse(raw)
    assert message.subject == "we meet today"
    assert message.text == "today\nat noon"


def test_a_stray_line_between_headers_is_passed_over() -> None:
    message = parse(b"Subject: x\r\nnonsense here\r\nTo: a@b.c\r\n\r\nbody")
    assert (message.subject, message.to[0].address, message.text) == ("x", "a@b.c", "body")
    assert message.defects == ("stray_header_line",)


def test_an_mbox_line_is_no_header() -> None:
    assert parse(b"From ada Mon Nov 23\nSubject: x\n\nbody").subject == "x"


def test_what_postgresql_and_json_cannot_hold_never_comes_out() -> None:
    raw = mail(
        "From: =?utf-7?Q?+2AA-?= <a@b.c>", "Subject: a\0b\x1b", "Message-ID: <\0@x>",
        "Content-Type: text/plain; charset=utf-7", "", "x\0+2AA-y",
    )  # fmt: skip
    message = parse(raw)
    for value in (message.subject, message.text or "", message.from_[0].name, message.message_id):
        assert "\0" not in value
        value.encode()
    for value in parse_summary(raw):
        assert "\0" not in str(value)
        str(value).encode()
