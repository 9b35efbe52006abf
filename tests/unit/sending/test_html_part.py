"""Another HTML in somebody else's mail: nothing around it changes."""

import pytest

from mailyard.core.errors import InvalidInput
from mailyard.protocol.mime import parse
from mailyard.sending.html_part import HtmlPart

HTML = "<p>Caf\u00e9 <a href='https://shop.example/?a=1&b=2'>here</a></p>\n"
WIDE = "<p>" + "\u00e9" * 150 + "</p>\n"


def mail(encoding: str, body: bytes, charset: str = "utf-8") -> bytes:
    return (
        b"From: a@b.example\r\nContent-Type: multipart/alternative; boundary=x\r\n\r\n"
        b"a preamble\r\n--x\r\nContent-Type: text/plain\r\n\r\nCaf\xff as it is \r\n--x\r\n"
        + f"Content-Type: text/html; charset={charset}\r\n".encode()
        + f"Content-Transfer-Encoding: {encoding}\r\n\r\n".encode()
        + body
        + b"\r\n--x--\r\nan epilogue\r\n"
    )


@pytest.mark.parametrize(
    ("encoding", "body", "charset"),
    [
        ("8bit", "<p>Café</p>".encode(), "utf-8"),
        ("8bit", "<p>Café</p>".encode("latin-1"), "iso-8859-1"),
        ("7bit", b"<p>x</p>", "us-ascii"),
        ("quoted-printable", b"<p>Caf=C3=A9</p>", "utf-8"),
        ("base64", b"PHA+Q2Fmw6k8L3A+", "utf-8"),
    ],
)
@pytest.mark.parametrize("html", [HTML, WIDE], ids=["short", "wide"])
def test_the_part_says_something_else_and_the_rest_is_byte_for_byte(
    encoding: str, body: bytes, charset: str, html: str
) -> None:
    whole = mail(encoding, body, charset)
    part = HtmlPart(whole)
    assert part.html.startswith("<p>")
    written = part.replaced(html)
    before, _, after = whole.partition(body)
    assert written.startswith(before) and written.endswith(after)
    shown = html.replace("é", "&#233;") if charset == "us-ascii" else html
    assert (parse(written).html or "").strip() == shown.strip()
    assert HtmlPart(written).replaced(part.html) == HtmlPart(whole).replaced(part.html)


@pytest.mark.parametrize(
    "whole",
    [
        b"From: a@b.example\r\n\r\nplain\r\n",
        mail("8bit", b"<p>\xff</p>"),
        mail("8bit", b"<p>x</p>", "x-unknown"),
        mail("uuencode", b"<p>x</p>"),
    ],
)
def test_what_is_not_read_for_certain_is_left_alone(whole: bytes) -> None:
    with pytest.raises(InvalidInput):
        HtmlPart(whole)


def test_a_line_that_would_be_too_long_is_refused() -> None:
    with pytest.raises(InvalidInput):
        HtmlPart(mail("8bit", b"<p>x</p>")).replaced("x" * 2000)
