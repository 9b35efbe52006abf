"""Mail HTML is shown without anything that acts, and fetches nothing unless the reader asks."""

import pytest
from html_check import active_content
from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.mailbox.sanitise import HTML_CHARACTERS, REMOTE_SOURCE, sanitise


@pytest.mark.parametrize(
    "html",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        '<a href="javascript:alert(1)">x</a>',
        '<a href=" java\nscript:alert(1)">x</a>',
        '<a href="&#106;avascript:alert(1)">x</a>',
        '<a href="data:text/html,<script>alert(1)</script>">x</a>',
        '<img src="data:image/svg+xml;base64,PHN2Zz4=">',
        "<svg><animate onbegin=alert(1)></svg>",
        "<math><mtext><script>alert(1)</script></mtext></math>",
        "<form action=https://a.example><input name=q><button>go</button></form>",
        "<iframe src=https://a.example></iframe>",
        "<object data=x></object><embed src=x>",
        "<meta http-equiv=refresh content='0;url=https://a.example'>",
        "<base href=https://a.example><link rel=stylesheet href=x>",
        "<style>@import 'https://a.example'</style>",
        '<p style="background:url(https://a.example/x.gif)">x</p>',
        '<p style="color:expression(alert(1));width:1px">x</p>',
        '<p style="position:fixed;top:0">x</p>',
        '<p id=head class=x name=y onclick="x()">x</p>',
        "<table background=https://a.example/x.gif><tr><td>x</td></tr></table>",
        "<noscript><p title='</noscript><img src=x onerror=alert(1)>'></noscript>",
        "<img srcset='https://a.example/1x.png 1x' src='cid:a'>",
        "<video poster=https://a.example/p.png></video>",
    ],
)
def test_nothing_active_survives(html: str) -> None:
    assert active_content(sanitise(html).html) == []


def test_a_remote_image_is_left_out_and_counted() -> None:
    html = '<img src="https://a.example/x.gif?a=1&amp;b=2" width="10" alt="logo"><img src="cid:in">'
    shown = sanitise(html)
    assert shown.remote_images == 1
    assert f'{REMOTE_SOURCE}="https://a.example/x.gif?a=1&amp;b=2"' in shown.html
    assert ' src="https' not in shown.html
    assert 'src="cid:in"' in shown.html
    assert 'alt="logo"' in shown.html


def test_a_mail_cannot_bring_the_mark_of_a_left_out_image() -> None:
    shown = sanitise(f'<img {REMOTE_SOURCE}="https://a.example" src="cid:a">')
    assert REMOTE_SOURCE not in shown.html
    assert shown.remote_images == 0


@pytest.mark.parametrize("source", ["//a.example/x.gif", "x.gif", "ftp://a.example/x", "http://["])
def test_what_is_no_absolute_web_address_shows_nothing(source: str) -> None:
    shown = sanitise(f'<img src="{source}">')
    assert "src=" not in shown.html.replace(REMOTE_SOURCE, "")


def test_links_open_elsewhere_and_tell_nothing() -> None:
    shown = sanitise('<a href="https://a.example/?x=1&amp;y=2" target="_top" rel="opener">go</a>')
    assert 'target="_blank"' in shown.html
    assert 'rel="noopener noreferrer nofollow"' in shown.html
    assert 'href="https://a.example/?x=1&amp;y=2"' in shown.html


def test_layout_and_harmless_styles_stay() -> None:
    html = '<table width="600" bgcolor="#ffffff"><tbody><tr><td colspan="2" align="center">'
    html += '<p style="color:#333;position:fixed;background:url(x);padding:4px">x</p>'
    shown = sanitise(html)
    assert '<table width="600" bgcolor="#ffffff">' in shown.html
    assert '<td colspan="2" align="center">' in shown.html
    assert "color:#333" in shown.html
    assert "padding:4px" in shown.html
    assert "fixed" not in shown.html


def test_text_stays_and_hidden_code_goes() -> None:
    assert sanitise("a &lt; b<title>t</title><style>p{}</style>").html == "a &lt; b"


@pytest.mark.parametrize(
    "html", ["<div>" * 100_000, "<p " + "a=1 " * 200_000 + ">", "x" * (HTML_CHARACTERS + 1)]
)
def test_a_page_made_to_be_slow_is_clipped(html: str) -> None:
    shown = sanitise(html)
    assert shown.clipped
    assert len(shown.html) <= 2 * HTML_CHARACTERS


def test_lone_surrogates_do_not_raise() -> None:
    assert sanitise("<p>a\ud800</p>").html == "<p>a?</p>"


BITS = st.sampled_from(
    ["<", ">", "/", '"', "'", "=", " ", "script", "img", "src", "onerror", "style", "svg", "a",
     "href", "javascript:", "&#x3c;", "<!--", "-->", "<![CDATA[", "math", "noscript", "title",
     "url(", "x", "\0", "\n", "data:text/html,"]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(BITS, max_size=40).map("".join))
def test_no_mixture_of_markup_yields_anything_active(html: str) -> None:
    assert active_content(sanitise(html).html) == []
