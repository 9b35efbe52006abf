"""Layouts, blocks, MJML, styles and the text part: what is written becomes what is sent."""

import pytest

from mailyard.core.errors import InvalidInput
from mailyard.sending.build.build import build
from mailyard.sending.build.source import BLOCK, LAYOUT, Built, Part, Source
from mailyard.sending.render import Compiled, Rendered

LIBRARY = {
    "shell": Part(
        LAYOUT,
        "<html><body><h1>{% block title %}Hello{% endblock %}</h1>\n"
        "{% block body %}{% endblock %}\n{% include 'footer' %}</body></html>",
        "",
        "",
    ),
    "two": Part(LAYOUT, '{% extends "shell" %}{% block title %}Two{% endblock %}', "", ""),
    "footer": Part(BLOCK, "<p>\n  {{ company }}, {{ city }}</p>", "", "-- {{ company }}"),
    "round": Part(BLOCK, "{% include 'round' %}", "", ""),
    "button": Part(BLOCK, "", '<mj-button href="{{ url }}">{{ label }}</mj-button>', ""),
    "frame": Part(LAYOUT, "", "<mjml><mj-body>{% block rows %}{% endblock %}</mj-body></mjml>", ""),
}


def made(**source: str | bool) -> Built:
    return build(Source("s", **source), LIBRARY)  # type: ignore[arg-type]


def rendered(built: Built, **data: object) -> Rendered:
    return Compiled(built.subject, built.html, built.text, built.origins).render(data)


def refusal(**source: str) -> str:
    with pytest.raises(InvalidInput) as refused:
        made(inline_css=True, **source)
    return refused.value.message


def test_a_plain_template_stays_as_it_was_written() -> None:
    html = "<P CLASS=x>Hi {{ name }}<br>\r\n&nbsp;</P>"
    built = made(html=html, text="Hi")
    assert (built.html, built.text, built.origins) == (html, "Hi", {})


def test_a_layout_is_filled_and_blocks_are_put_in_their_place() -> None:
    built = made(
        html='{% extends "two" %}\n{% block body -%}\n <p>{{ name }}</p>{% endblock %}',
        text='Hi {{ name }}\n{% include "footer" %}',
    )
    mail = rendered(built, name="Ann", company="Shop", city="Rome")
    assert "<h1>Two</h1>\n<p>Ann</p>\n<p>\n  Shop, Rome</p>" in mail.html
    assert mail.text == "Hi Ann\n-- Shop"


def test_an_error_names_the_place_in_the_source_that_it_was_written_in() -> None:
    built = made(html="<style>p{color:red}</style>\n<div>\n{% include 'footer' %} {{ x }}</div>")
    with pytest.raises(InvalidInput) as refused:
        rendered(built, company="Shop", x=1)
    assert refused.value.message == "html of footer, line 2, column 18: `city` is undefined"
    followed = Compiled(built.subject, built.html, built.text, built.origins).rewritten(
        "{{ added }} {{ company }}\n" + built.html, built.text
    )
    with pytest.raises(InvalidInput) as refused:
        followed.render({"company": "Shop", "added": 1, "x": 1})
    assert refused.value.message == "html of footer, line 2, column 18: `city` is undefined"
    with pytest.raises(InvalidInput) as refused:
        rendered(built, company="Shop", city="Rome")
    assert refused.value.message == "html, line 3, column 24: `x` is undefined"


@pytest.mark.parametrize(
    ("html", "message"),
    [
        ('a\n {% include "nobody" %}', "line 2, column 2: there is no block 'nobody' that is"),
        ('{% include "shell" %}', "'shell' is no block, it is a template of kind layout"),
        ('{% extends "footer" %}', "'footer' is no layout"),
        ("{% include 'round' %}", "html of round, line 1, column 1: layouts and blocks go in a"),
        ("{% include name %}", 'expected {% include "name" %}'),
        ('{% extends "shell" %}\n\n x', "line 3, column 2: text outside of blocks"),
        ('{% extends "shell" %}{% if a %}{% endif %}', "only blocks may stand beside extends"),
        ("a\n{% block x %}", "line 2, column 1: this block is not closed"),
        ("{% endblock %}", "not begun"),
        ("{% block x %}{% endblock %}{% block x %}{% endblock %}", "twice"),
        ("{% include 'button' %}", "the block 'button' has no HTML"),
    ],
)
def test_what_cannot_be_resolved_is_refused_with_its_place(html: str, message: str) -> None:
    assert message in refusal(html=html)


def test_rules_of_a_style_sheet_move_into_the_elements_and_code_stays_where_it_was() -> None:
    built = made(
        html="<style>.a{color:{{ brand }}} .a:hover{color:blue}"
        "@media (max-width:600px){.a{width:100%}}</style>"
        '<table class="a">{% for row in cart %}<tr class="a"><td>{{ row }}</td></tr>{% else %}'
        "<tr><td>-</td></tr>{% endfor %}</table>"
        '<a href="/{% if x %}1{% endif %}?a=1&amp;b=2">k</a>'
    )
    html = rendered(built, brand='re"d', cart=["<1>", "2"], x=True).html
    assert html.count('class="a" style="color: re&quot;d;"') == 3
    assert "<td>&lt;1&gt;</td></tr><tr" in html
    assert ".a:hover" in html and "@media (max-width:600px){.a{width:100%}}" in html
    assert '<a href="/1?a=1&amp;b=2">k</a>' in html
    first = made(html="<style>p{margin:0}</style>{% if x %}<p>a</p>{% endif %}<p>b")
    assert "a" not in rendered(first, x=False).html.replace("margin", "").partition("<body>")[2]
    kept = build(Source("s", "<style>p{color:red}</style><p>x", text="x", inline_css=False), {})
    assert kept.html == "<style>p{color:red}</style><p>x"


@pytest.mark.parametrize(
    ("html", "message"),
    [
        ("<p>\n<td {% if x %}class='y'{% endif %}>", "line 2, column 5: inside a tag, template"),
        ("{% if x %}<div>{% else %}<div id=a>{% endif %}</div>", "column 43: an element that is"),
        ("<p style='{% if x %}color:red{% endif %}'>", "no statement in a style"),
        ("<style>{% if x %}p{color:red}{% endif %}</style><p>", "no statement in a style sheet"),
        ("<p title='{% if x %}'>{% endif %}", "a statement that begins in an attribute ends in"),
        ("<p style='{{ x }}'>", "write property: {{ value }}"),
        ("<table><p>{{ x }}</p><tr><td>{{ y }}</table>", "cannot stand here as HTML has it"),
        ("</body>{{ x }}b", "{{ x }} cannot stand here"),
        ("<div>" * 300, "nest deeper than 250"),
    ],
)
def test_code_that_inlining_would_lose_is_refused(html: str, message: str) -> None:
    html = "<style>p{color:red}</style>" + html
    assert message in refusal(html=html)
    if "deeper" not in message:  # who has not asked for it keeps what he wrote
        built = build(Source("s", html, text="x"), {})
        assert (built.html, built.inline_css) == (html, False)


MJML = """<mjml><mj-head><mj-preview>For {{ name }}</mj-preview>
<mj-style inline="inline">.big{letter-spacing:3px}</mj-style></mj-head><mj-body>
{% for row in cart %}<mj-section><mj-column><mj-text css-class="big">{{ row.name }}</mj-text>
</mj-column></mj-section>{% endfor %}
<mj-section><mj-column>{% if vip %}<mj-text><h1>Thanks</h1></mj-text>{% endif %}
<mj-table>{% for row in cart %}<tr><td>{{ row.name }}</td><td>{{ row.n }}</td></tr>{% endfor %}
</mj-table>{% include "button" %}</mj-column></mj-section></mj-body></mjml>"""


def test_mjml_becomes_html_with_its_code_in_it() -> None:
    built = made(mjml=MJML)
    data = {"name": "Ann", "cart": [{"name": "Tea", "n": 1}, {"name": "Cup", "n": 2}],
            "url": "https://x.example/?a=1&b=2", "label": "Buy"}  # fmt: skip
    mail = rendered(built, vip=True, **data)
    assert mail.html.count("letter-spacing: 3px") == 2
    assert "<td>Cup</td><td>2</td></tr>" in mail.html
    assert 'href="https:&#x2f;&#x2f;x.example&#x2f;?a=1&amp;b=2"' in mail.html
    assert "fonts.googleapis.com" not in mail.html
    assert "Thanks" not in rendered(built, vip=False, **data).html
    assert mail.text == (
        "Tea\n\nCup\n\nThanks\n======\n\nTea | 1\nCup | 2\n\nBuy <https://x.example/?a=1&b=2>\n"
    )
    with pytest.raises(InvalidInput) as refused:
        rendered(built, **{**data, "vip": True, "cart": [{"name": "Tea"}]})
    assert refused.value.message == "mjml, line 6, column 63: `row.n` is undefined"


@pytest.mark.parametrize(
    ("mjml", "message"),
    [
        ("<mjml><mj-body>\n <mj-include path='/etc/passwd'/></mj-body></mjml>", "line 2, column 2"),
        ("<mjml><mj-body>\n <mj-sektion/></mj-body></mjml>", "line 2, column 2: MJML has no"),
        ("<mjml><mj-body>\n<mj-section>\n</mj-body></mjml>", "line 3, column 1: </mj-body> where"),
        ("<mjml><mj-body><mj-text>a\n< b</mj-text></mj-body></mjml>", "line 2, column 1: a < that"),
        ("<p>x</p>", "mjml, line 1, column 1: MJML begins with <mjml>"),
        ("<mjml>", "is not closed"),
        ("<mjml><mj-body>{% if x %}<mj-section>{% endif %}</mj-section></mj-body></mjml>",
         "column 38: an element that is opened"),
    ],
)  # fmt: skip
def test_mjml_that_cannot_be_compiled_is_refused_with_its_place(mjml: str, message: str) -> None:
    assert message in refusal(mjml=mjml)


TEXT = [
    ("<p>a</p>{% if x %}<p>b</p>{% endif %}<p>c</p>", "a\n\nb\n\nc\n"),
    ("<h2>Title</h2>x", "Title\n-----\n\nx\n"),
    ("<ul><li>a<li>b<ol><li>c</li><li>d</li></ol></ul>z", "- a\n- b\n  1. c\n  2. d\n\nz\n"),
    ("<ol>{% for r in rows %}<li>{{ r }}</li>{% endfor %}</ol>", "- 1\n- 2\n"),
    ("<table role=presentation><tr><td>a</td><td>b</td></tr></table>", "a\nb\n"),
    ("<table><tr><th>a</th><th>b</th></tr></table>", "a | b\n"),
    ("<a href='https://x.example/{{ v }}'>Go</a>.", "Go <https://x.example/é&>.\n"),
    ("<a href='https://x.example/'>x.example</a>", "x.example\n"),
    ("<a href='mailto:a@b.example'>Write</a>", "Write <a@b.example>\n"),
    ("a <b>b</b>{% if x %} c {% endif %}d &amp;<br>e", "a b c d &\ne\n"),
    (
        "<style>p{}</style><div style='display: none'>pre</div><!-- c -->x<img alt='Logo'>",
        "xLogo\n",
    ),
    ("{{ v|safe }} &#123;&#123; v }} {<i>{ v }}</i>", "é& { { v }} { { v }}\n"),
]


@pytest.mark.parametrize(("html", "text"), TEXT)
def test_the_text_part_follows_from_the_html(html: str, text: str) -> None:
    built = build(Source("s", html, inline_css=False), {})
    assert rendered(built, x=True, v="é&", rows=[1, 2]).text == text
