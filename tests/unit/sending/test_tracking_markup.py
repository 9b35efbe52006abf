"""Where links are in the HTML of mail, what is made of them, and who followed them."""

from time import process_time
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailyard.core.errors import ConfigurationError
from mailyard.sending.render import Compiled
from mailyard.sending.track.dress import Imprint, Tracked, TrackedPage, Wishes, dress
from mailyard.sending.track.hit import network_of
from mailyard.sending.track.judge import CLICKED, OPENED, Rules, Seen, read_rules, shipped_rules
from mailyard.sending.track.markup import address_of, bare_urls, hrefs, with_utm
from mailyard.sending.track.token import CLICK, OPEN, Tokens
from mailyard.web.track.app import ascii_location

BASE = "https://click.example.org"
WORKSPACE, CAMPAIGN = UUID(int=1), UUID(int=2)
BROWSER = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/130.0 Safari/537.36"


@pytest.mark.parametrize(
    ("html", "values"),
    [
        ('<a href="https://a.b/?x=1&amp;y=2">', ["https://a.b/?x=1&amp;y=2"]),
        ("<A class='q' HREF = 'http://x.y/'  >", ["http://x.y/"]),
        ("<a href=https://un.quoted/x>", ["https://un.quoted/x"]),
        ("<a title=\"see href='https://no/'\" href='https://yes/'>", ["https://yes/"]),
        ('<a {% if n > 2 %}href="https://c/d"{% endif %}>', ["https://c/d"]),
        ("""<a href="{{ x|default("https://a>b/") }}">""", ['{{ x|default("https://a>b/") }}']),
        ('<!--[if mso]><v:roundrect href="https://m/"></v:roundrect><![endif]-->', ["https://m/"]),
        ('<area shape="rect" href="https://area/"/>', ["https://area/"]),
        ('<a data-track="off" href="https://no/"><a href="https://no/" data-track=OFF>', []),
        ('<abbr href="https://no/"><base href="https://no/"><a name="x"><ahref="y">', []),
        ('<a href="https://open.end/', []),
    ],
)
def test_links_are_found_where_a_mail_program_sees_them(html: str, values: list[str]) -> None:
    found = list(hrefs(html))
    assert [one.value for one in found] == values
    assert all(html[one.start : one.end] == one.value for one in found)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("See https://a.b/c?d=e&f#g.\nBye", ["https://a.b/c?d=e&f#g"]),
        (
            "(HTTP://a.b/), <https://c.d/e>; https://f.g!",
            ["HTTP://a.b/", "https://c.d/e", "https://f.g"],
        ),
        (
            "https://en.wiki/Mail_(disambiguation) (https://x.y/z)",
            ["https://en.wiki/Mail_(disambiguation)", "https://x.y/z"],
        ),
        ("https://shop/?id={{ id }} https://{{ host }}/ www.a.b ftp://a.b", []),
    ],
)
def test_addresses_in_plain_text_end_where_a_reader_sees_it(text: str, values: list[str]) -> None:
    found = list(bare_urls(text))
    assert [one.value for one in found] == values
    assert all(text[one.start : one.end] == one.value for one in found)


def test_a_mail_of_text_alone_has_its_links_followed_beside_html_they_stay_readable() -> None:
    text = f"A: https://s.example/a.\nB: https://s.example/a, {BASE}/p/x https://s.e/{{{{ n }}}}"
    alone = dress("", text, Wishes(BASE, clicks=True, utm=(("utm_source", "mail"),)))
    assert alone.urls == ("https://s.example/a?utm_source=mail",)
    led = f"{BASE}/c/{{{{ mailyard_link_0 }}}}"
    assert alone.text == f"A: {led}.\nB: {led}, {BASE}/p/x https://s.e/{{{{ n }}}}"
    assert dress('<a href="https://b.c/">b</a>', text, Wishes(BASE, clicks=True)).text == text
    assert dress("", text, Wishes(BASE)).text == text


@given(st.text(alphabet="<a hrefx=\"'{}%> /\n", max_size=300))
def test_whatever_the_text_is_places_are_inside_it_and_in_order(html: str) -> None:
    places = [(one.start, one.end) for one in hrefs(html)]
    assert places == sorted(places)
    assert all(0 <= start <= end <= len(html) for start, end in places)


@pytest.mark.parametrize("piece", ['<a "', "<a ", '<a href="{{', "<a {{", '<a x="{{ a', "<a x = "])
def test_broken_html_of_a_megabyte_is_read_in_linear_time(piece: str) -> None:
    started = process_time()
    assert list(hrefs(piece * (1_000_000 // len(piece)))) == []
    assert process_time() - started < 5, "it takes hundredths of a second"


@pytest.mark.parametrize(
    "value",
    [
        "mailto:a@b.example", "#top", "/path", "//host/x", "javascript:alert(1)", "tel:1", "",
        "https://", "https:///x", "https://a b/", "https://a/\r\nX: y", "https://[::1/", "http:x",
        "https://a/\ud800", "data:text/html,x", "https://a/" + "x" * 9000,
    ],
)  # fmt: skip
def test_what_is_no_web_address_is_left_as_it_is(value: str) -> None:
    assert address_of(value) is None


def test_utm_tags_are_added_where_a_link_has_none() -> None:
    utm = (("utm_source", "news"), ("utm_medium", "e%20mail"))
    assert with_utm("https://a/b", utm) == "https://a/b?utm_source=news&utm_medium=e%20mail"
    assert with_utm("https://a/?", utm) == "https://a/?utm_source=news&utm_medium=e%20mail"
    assert (
        with_utm("https://a/?x=1#f", utm) == "https://a/?x=1&utm_source=news&utm_medium=e%20mail#f"
    )
    assert with_utm("https://a/?UTM_Source=x", utm) == "https://a/?UTM_Source=x&utm_medium=e%20mail"


def test_addresses_beyond_ascii_go_into_a_header_as_ascii() -> None:
    assert ascii_location("https://bücher.example/käse?q=ä#é") == (
        b"https://xn--bcher-kva.example/k%C3%A4se?q=%C3%A4#%C3%A9"
    )
    assert ascii_location("https://a.example:8080/ä%20b") == b"https://a.example:8080/%C3%A4%20b"


def test_a_token_says_what_it_was_made_for_and_nothing_else() -> None:
    keys = {"link": (b"n" * 32, b"o" * 32), "unsubscribe": (b"u" * 32,)}
    tokens = Tokens(lambda purpose: keys[purpose])
    delivery, link = UUID(int=7), UUID(int=9)
    (token,) = tokens.maker([(CLICK, link)]).make(delivery.bytes)
    assert len(token) == 56
    assert tokens.read(CLICK, token) == (delivery.bytes, link.bytes)
    assert tokens.read(OPEN, token) is None
    for place in range(56):
        other = "A" if token[place] != "A" else "B"
        assert tokens.read(CLICK, token[:place] + other + token[place + 1 :]) is None
    before = Tokens(lambda purpose: keys[purpose][-1:])
    (old,) = before.maker([(CLICK, link)]).make(delivery.bytes)
    assert tokens.read(CLICK, old) == (delivery.bytes, link.bytes), "an older key is still good"
    assert before.read(CLICK, token) is None
    for bad in ("", token[:-1], token + "A", "é" * 56, "+" * 56, "\n" * 56):
        assert tokens.read(CLICK, bad) is None


def _tracked(html: str, **wishes: object) -> Tracked:
    tokens = Tokens(lambda purpose: (b"k" * 32,))
    return Tracked(
        tokens=tokens,
        workspace_id=WORKSPACE,
        campaign_id=CAMPAIGN,
        template=Compiled("s", html, "{{ footer }}"),
        wishes=Wishes(base=BASE, **wishes),  # type: ignore[arg-type]
        automatic=False,
    )


def test_links_inside_a_loop_are_led_through_us_for_each_turn() -> None:
    link = '<a href="https://shop.example/{{ item }}?a=1&amp;b=2">x</a>'
    html = f"{{% for item in cart %}}{link}{{% endfor %}}"
    tracked = _tracked(html, clicks=True)
    data: dict[str, object] = {"cart": ["one", "t'w\"o&", "<three>"]}
    tracked.fill(data, bytes(16))
    written, links = tracked.lead(tracked.template.render(data).html, bytes(16))
    assert written.count(f"{BASE}/c/") == 3 and "shop.example" not in written
    assert [link.url for link in links] == [
        "https://shop.example/one?a=1&b=2",
        "https://shop.example/t'w\"o&?a=1&b=2",
        "https://shop.example/<three>?a=1&b=2",
    ]
    assert {link.source for link in links} == {link.id for link in tracked.links}
    assert [link.pattern for link in tracked.links] == [True]


def test_a_variable_that_brings_another_scheme_is_not_followed() -> None:
    tracked = _tracked('<a href="{{ site }}">x</a>', clicks=True)
    for site in ("mailto:a@b.example", "javascript:alert(1)", "nothing"):
        data: dict[str, object] = {"site": site}
        tracked.fill(data, bytes(16))
        assert tracked.lead(tracked.template.render(data).html, bytes(16))[1] == ()


def test_footer_address_and_unsubscribing_have_their_slots() -> None:
    imprint = Imprint(
        "1 Any Street <b>\nTown",
        '<p>{{ physical_address }} <a href="{{unsubscribe_url}}">x</a></p>',
        "{{ physical_address }} {{ unsubscribe_url }}",
    )  # fmt: skip
    slotted = dress("<body>{{ footer }}<p>end</p></body>", "a {{ footer }} b",
                    Wishes(BASE, imprint=imprint, clicks=True))  # fmt: skip
    assert slotted.html == (
        "<body><p>1 Any Street &lt;b&gt;<br>Town "
        f'<a href="{BASE}/u/{{{{ mailyard_preferences }}}}">x</a></p><p>end</p></body>'
    )
    assert slotted.text == (f"a 1 Any Street <b>\nTown {BASE}/u/{{{{ mailyard_preferences }}}} b")
    at_the_end = dress("<body><p>x</p></body>", "t\n", Wishes(BASE, imprint=imprint, opens=True))
    assert at_the_end.html.index("</p>") < at_the_end.html.index("1 Any Street")
    assert at_the_end.html.endswith("</body>") and at_the_end.html.count("<img") == 1
    assert at_the_end.text.startswith("t\n\n1 Any Street")
    assert dress("", "t", Wishes(BASE, opens=True)).html == "", "no pixel without HTML"


def test_a_mail_with_nothing_of_ours_is_left_alone() -> None:
    tracked = _tracked("<a href='https://a.example/'>x</a>")
    assert tracked.idle and tracked.links == ()
    assert tracked.template.sources["html"] == "<a href='https://a.example/'>x</a>"


def test_a_finished_page_is_not_read_as_a_template() -> None:
    html = "<p>{{ x }} {% y %}</p><a href='https://a.example/{{z}}'>1</a></body> end"
    tokens = Tokens(lambda purpose: (b"k" * 32,))
    page = TrackedPage(
        tokens=tokens, workspace_id=WORKSPACE, base=BASE, html=html, opens=True, clicks=True
    )
    written = page.write(bytes(16))
    assert "<p>{{ x }} {% y %}</p>" in written and written.endswith("</body> end")
    assert [link.url for link in page.links] == ["https://a.example/{{z}}"]
    assert written == page.write(bytes(16)) != page.write(b"1" * 16)


@pytest.mark.parametrize(
    ("kind", "method", "agent", "peer", "since_s", "rule"),
    [
        (OPENED, "GET", BROWSER, "203.0.113.9", 900.0, ""),
        (OPENED, "GET", "Mozilla/5.0", "104.28.1.1", 900.0, "apple-mail-privacy"),
        (OPENED, "GET", "Mozilla/5.0 (Macintosh)", "17.58.0.1", 900.0, "apple-network"),
        (CLICKED, "GET", BROWSER, "17.58.0.1", 900.0, ""),
        (OPENED, "GET", "x (via ggpht.com GoogleImageProxy)", "66.249.84.1", 900.0, ""),
        (OPENED, "GET", "x (via ggpht.com GoogleImageProxy)", "66.249.84.1", 2.0, "gmail-prefetch"),
        (OPENED, "GET", "YahooMailProxy; https://help.yahoo.com", "1.2.3.4", 900.0, ""),
        (CLICKED, "HEAD", BROWSER, "203.0.113.9", 900.0, "head-request"),
        (CLICKED, "GET", BROWSER, "203.0.113.9", 0.4, "at-once"),
        (CLICKED, "GET", BROWSER, "203.0.113.9", -3.0, "at-once"),
        (CLICKED, "GET", BROWSER, "203.0.113.9", None, ""),
        (CLICKED, "GET", BROWSER, "40.107.3.4", 900.0, "microsoft-filter"),
        (CLICKED, "GET", "BarracudaSentinel", "1.2.3.4", 900.0, "security-gateway"),
        (CLICKED, "GET", "Slackbot-LinkExpanding 1.0", "1.2.3.4", 900.0, "link-preview"),
        (CLICKED, "GET", "python-requests/2.31", "1.2.3.4", 900.0, "program"),
        (CLICKED, "GET", "", "not an address", 900.0, "no-name"),
        (CLICKED, "GET", BROWSER, "2001:db8::1", 900.0, ""),
    ],
)
def test_machines_are_told_from_people(
    kind: str, method: str, agent: str, peer: str, since_s: float | None, rule: str
) -> None:
    assert shipped_rules().alone(Seen(kind, method, agent, peer, since_s)) == rule


def test_every_rule_says_where_it_comes_from() -> None:
    assert all(rule.source.startswith("https://") for rule in shipped_rules().machines)


def test_several_links_at_once_are_a_scanners() -> None:
    rules = shipped_rules()
    a, b, c = (UUID(int=number) for number in (1, 2, 3))
    assert rules.bursts([(0, a), (500, b), (900, c)]) == {0, 1, 2}
    assert rules.bursts([(0, a), (500, a), (900, b)]) == set(), "one link twice"
    assert rules.bursts([(0, a), (5_000, b), (10_000, c)]) == set(), "a person reads"
    assert rules.bursts([(0, a), (9_000, a), (9_100, b), (9_200, c)]) == {1, 2, 3}


@pytest.mark.parametrize(
    "wrong",
    [
        "user_agent = '('", "networks = ['300.1.1.1/8']", "agent = 'x'", "kinds = 3",
    ],
)  # fmt: skip
def test_a_mistake_in_the_rules_is_named(wrong: str) -> None:
    text = f"[burst]\nlinks = 3\nseconds = 2.0\n[[machine]]\nname = 'mine'\nsource = 's'\n{wrong}\n"
    if not wrong.startswith("kinds"):
        text += "kinds = ['clicked']\n"
    with pytest.raises(ConfigurationError, match=r"machines\.toml"):
        read_rules(text)
    assert isinstance(shipped_rules(), Rules)


def test_of_an_address_only_its_network_is_kept() -> None:
    assert network_of("203.0.113.77") == "203.0.113.0/24"
    assert network_of("2001:db8:1:2::3") == "2001:db8:1::/48"
    assert network_of("unknown") == ""
