"""The words of a mail: its text, or its HTML as a person would read it."""

import pytest

from mailyard.core import limits
from mailyard.protocol.mime import parse_summary, plain_text
from mailyard.protocol.mime.html_text import text_of_html

HTML = b"Content-Type: text/html; charset=utf-8\r\n\r\n"


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>Your code is <b>123</b>456.</p><p>Bye", "Your code is 123456.\n\nBye"),
        ("a<br>b<br><br>c<div>d</div><div><div>e</div></div>", "a\nb\n\nc\nd\ne"),
        ("<ul><li>one<li>two</ul>after", "- one\n- two\n\nafter"),
        ("<tr><td>a</td> <td>b</td></tr><tr><td>c</td></tr>", "a b\nc"),
        ("on<blockquote>q<br>r<blockquote>s</blockquote></blockquote>t",
         "on\n\n> q\n> r\n>\n> > s\n\nt"),
        ("<pre>a  b\n  c</pre>d", "a  b\n  c\n\nd"),
        ("x <style>a{}</style><script>1<2</script><!-- <p>no --> y<![endif]> z", "x y z"),
        ("a<span style='color:red; DISPLAY : none'>n<span>o</span></span>b", "ab"),
        ("a<div style='display:none'>never closed", "a\nnever closed"),
        ("a<p style=display:none>no<p>yes", "a\n\nyes"),
        ('<a title="x > y" href="https://e.example/?a=1&amp;b=2">go <b>on</b></a>', "go on"),
        ("it<p title=it's>is</p>so", "it\n\nis\n\nso"),
        ("<img alt='a &amp; b' src=x> 1 &lt; 2 &#x41;", "a & b 1 < 2 A"),
        ("a < b and c <3 d", "a < b and c <3 d"),
        ("&#xD800;\0<b>x</b>", "\ufffdx"),
    ],
)  # fmt: skip
def test_html_is_read_as_a_person_would(html: str, text: str) -> None:
    assert text_of_html(html).text == text


def test_a_link_is_where_its_words_are() -> None:
    found = plain_text(HTML + b"<p>Hi <a href='https://e.example/?a=1&amp;b=2'> sign <b>in</b></a>")
    (link,) = found.links
    assert found.is_html
    assert (found.text[link.start : link.end], link.url) == (
        "sign in",
        "https://e.example/?a=1&b=2",
    )


def test_text_goes_before_html_and_html_before_an_empty_text() -> None:
    mail = (
        b"Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\n\r\n%s\r\n--b\r\n"
        b"Content-Type: text/html\r\n\r\n<p>html</p>\r\n--b--\r\n"
    )
    assert plain_text(mail % b"text")[:2] == ("text", False)
    assert plain_text(mail % b" \r\n ")[:2] == ("html", True)
    assert plain_text(b"")[:2] == ("", False)


def test_what_is_too_much_is_clipped() -> None:
    for head in (HTML, b"\r\n"):
        found = plain_text(head + b"word " * limits.MIME_TEXT_CHARACTERS)
        assert found.clipped
        assert len(found.text) == limits.MIME_TEXT_CHARACTERS


def test_a_character_reference_of_9000_digits_does_not_stop_a_summary() -> None:
    assert parse_summary(HTML + b"code &#" + b"1" * 9_000).preview == "code \ufffd"
