"""The file of receivers: what it says, what lies over it, and nothing wrong in it is guessed."""

import re
from datetime import date

import pytest

from mailyard.core.errors import ConfigurationError
from mailyard.sending.shape import measure
from mailyard.sending.shape.book import read_book, shipped, shipped_text
from mailyard.sending.shape.receiver import Book
from mailyard.sending.shape.rule import Verdict

DEFAULT = """
[receiver.default]
connections = 5
messages_per_connection = 100
rate = "20/s"
recover_every = "5 min"
recover_step = 0.1
[[receiver.default.rule]]
name = "slow-down"
code = ["4xx"]
text = "slow down"
slow = 0.5
"""

BIG = """
[receiver.big]
mx = ["big.example"]
shared = true
rate = "100/min"
source = "its page"
checked = 2026-11-23
[[receiver.big.rule]]
name = "first"
code = ["421"]
text = ["rate", "limit"]
after = "3 in 1 min"
pause = "10 min"
slow = 0.5
retry = "30 min"
alert = "it limits us"
[[receiver.big.rule]]
name = "second"
enhanced = ["4.7.x"]
phase = ["rcpt", "content"]
retry = "1 h"
"""


def book(*layers: str) -> Book:
    return read_book((f"layer{number}.toml", text) for number, text in enumerate(layers, 1))


def test_a_receiver_takes_from_the_default_what_it_does_not_say() -> None:
    limits = book(DEFAULT + BIG).receivers["big"].limits
    assert limits.rate == measure.Rate(100.0, 60.0)
    assert (limits.connections, limits.recover_every_s, limits.recover_step) == (5, 300.0, 0.1)


def test_its_own_rules_come_before_the_default_s() -> None:
    rules = book(DEFAULT + BIG).receivers["big"].rules
    assert [rule.name for rule in rules] == ["first", "second", "default/slow-down"]
    first = rules[0]
    assert (first.pause_s, first.slow, first.retry_s) == (600.0, 0.5, 1800.0)
    assert first.after == measure.Threshold(3, 60.0)
    assert first.verdict is Verdict.RETRY


def test_a_place_is_found_by_domain_then_by_the_longest_suffix_of_the_site() -> None:
    places = book(
        DEFAULT
        + BIG
        + '[receiver.narrow]\nmx = ["mail.big.example"]\n'
        + '[receiver.ours]\ndomains = ["special.example"]\n'
    )
    assert places.place("mx1.mail.big.example", "a.example").receiver.name == "narrow"
    assert places.place("mx1.big.example.", "a.example").receiver.name == "big"
    assert places.place("BIG.example", "a.example").receiver.name == "big"
    assert places.place("notbig.example", "a.example").receiver.name == "default"
    assert places.place("mx1.big.example", "Special.example").receiver.name == "ours"


def test_sites_of_a_shared_receiver_share_one_limit_and_others_have_their_own() -> None:
    places = book(DEFAULT + BIG)
    one, two = (places.place(f"mx{n}.big.example", "a.example") for n in (1, 2))
    assert one.name == two.name == "big"
    own = places.place("mx.small.example", "small.example")
    assert own.name == "mx.small.example"
    assert own.key("192.0.2.1") != own.key("192.0.2.2")


def test_an_override_changes_single_keys_and_rules_by_name() -> None:
    over = """
[receiver.big]
connections = 2
without = ["second"]
[[receiver.big.rule]]
name = "ours"
code = ["450"]
retry = "5 min"
[[receiver.big.rule]]
name = "first"
code = ["421"]
fail = true
"""
    receiver = book(DEFAULT + BIG, over).receivers["big"]
    assert receiver.limits.connections == 2
    assert receiver.limits.rate.amount == 100.0
    assert receiver.mx == ("big.example",)
    assert [rule.name for rule in receiver.rules] == ["ours", "first", "default/slow-down"]
    assert receiver.rules[1].verdict is Verdict.FAIL


def test_an_override_of_the_default_reaches_everybody_who_does_not_say_otherwise() -> None:
    places = book(DEFAULT + BIG, '[receiver.default]\nconnections = 9\nrate = "1/s"\n')
    assert places.receivers["big"].limits.connections == 9
    assert places.receivers["big"].limits.rate.per_s == pytest.approx(100 / 60)


RULE = '[receiver.x]\nmx = ["x.example"]\n[[receiver.x.rule]]\nname = "r"\ncode = ["421"]\n'


WRONG = """
[receivers.x]|the file|receivers|did you mean 'receiver'
X conections = 3|receiver.x|conections|did you mean 'connections'
X connections = 0|receiver.x.connections|0|1 to 1000
X connections = true|receiver.x.connections|True|1 to 1000
X rate = "fast"|receiver.x.rate|fast|per s, min
X rate = 5|receiver.x.rate|5|per s, min
X domains = "x.example"|receiver.x.domains|x.example|a list
X domains = ["X.example"]|receiver.x.domains|X.example|lower case
X domains = ["x.example", "x.example"]|receiver.x.domains|x.example|each once
[receiver.x]; connections = 3|receiver.x.mx|missing|domains
X checked = "today"|receiver.x.checked|today|a date
X recover_step = 1.0|receiver.x.recover_step|1.0|0.01
X without = ["no"]|receiver.x.without|no|below
[receiver."X y"]; mx = ["x.example"]|receiver.X y|X y|a-z
[receiver.x]; mx = ["big.example"]|receiver.x.mx|big.example|receiver.big
[receiver.default]; mx = ["x.example"]|receiver.default.mx|x.example|nothing
R paus = "1 min"|receiver.x.rule[1]|paus|did you mean 'pause'
R pause = "1 month"|receiver.x.rule[1].pause|1 month|10 min
R pause = "8 d"|receiver.x.rule[1].pause|8 d|7 d
R slow = 1.5|receiver.x.rule[1].slow|1.5|below 1
R slow = 0.5; after = "often"|receiver.x.rule[1].after|often|3 in 1 min
R slow = 0.5; after = "0 in 1 min"|receiver.x.rule[1].after|0 in|1 to 100
R retry = "1 h"; after = "3 in 1 min"|receiver.x.rule[1].after|3 in|verdict
R retry = "1 h"; fail = true|receiver.x.rule[1].fail|True|one end
R|receiver.x.rule[1].pause|missing|at least one of
R suppress = true|receiver.x.rule[1].suppress|True|5xx
R alert = "look"|receiver.x.rule[1].alert|look|with after
R text = "(a+)+"; fail = true|receiver.x.rule[1].text|(a+)+|worst case
R text = []; fail = true|receiver.x.rule[1].text|[]|regular expression
R phase = ["later"]; fail = true|receiver.x.rule[1].phase|later|rcpt
R enhanced = ["4.7"]; fail = true|receiver.x.rule[1].enhanced|4.7|4.7.x
X [[receiver.x.rule]]; name = "r"; fail = true|rule[1].code|missing|at least one
X [[receiver.x.rule]]; name = "r"; code = ["250"]|rule[1].code|250|4xx
R fail = true; [[receiver.x.rule]]; name = "r"; code = ["4xx"]; fail = true|rule[2].name|r|no other
X [[receiver.x.rule]]; code = ["4xx"]; fail = true|rule[1].name|missing|overridden
X [[receiver.x.rule]]; name = "r"; code = ["550"]; enhanced = ["5.7.1"]; suppress = true|\
rule[1].suppress|True|about the sender
"""
CASES = [line.split("|") for line in WRONG.replace("\\\n", "").strip().splitlines()]


def written(short: str) -> str:
    """The file that a line above stands for: X opens a receiver, R a receiver and its rule."""
    rule = '[[receiver.x.rule]]; name = "r"; code = ["421"]; '
    long = re.sub("^(X|R) ?", lambda found: HEAD + (rule if found[1] == "R" else ""), short)
    return long.replace("; ", "\n")


HEAD = '[receiver.x]; mx = ["x.example"]; '


@pytest.mark.parametrize(("short", "key", "value", "allowed"), CASES)
def test_a_wrong_file_stops_with_file_key_value_and_what_is_allowed(
    short: str, key: str, value: str, allowed: str
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        book(DEFAULT + BIG, written(short))
    message = str(raised.value)
    for part in ("layer2.toml", key, value, allowed):
        assert part in message, message


def test_text_that_is_not_toml_says_where() -> None:
    with pytest.raises(ConfigurationError, match=r"layer1.toml is not TOML: .*line 2"):
        book("[receiver.x]\nmx = \n")


def test_without_a_default_or_one_of_its_limits_nothing_starts() -> None:
    with pytest.raises(ConfigurationError, match="default"):
        book(BIG)
    with pytest.raises(ConfigurationError, match=r"receiver.default.rate is missing"):
        book(DEFAULT.replace('rate = "20/s"', ""))


def test_every_shipped_entry_names_its_source_and_when_it_was_checked() -> None:
    receivers = shipped().receivers.values()
    assert len(receivers) >= 20
    for receiver in receivers:
        assert receiver.source, receiver.name
        assert receiver.checked is not None and receiver.checked >= date(2026, 1, 1), receiver.name


def test_the_shipped_file_is_itself_a_layer_that_can_be_overridden() -> None:
    over = '[receiver.google]\nconnections = 3\nwithout = ["busy"]\n'
    google = read_book([("receivers.toml", shipped_text()), ("mine.toml", over)]).receivers[
        "google"
    ]
    assert google.limits.connections == 3
    assert google.limits.rate == shipped().receivers["google"].limits.rate
    assert "busy" not in [rule.name for rule in google.rules]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90 s", 90.0), ("10min", 600.0), ("1.5 h", 5400.0), ("7 d", 604_800.0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert measure.duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "0 s", "-1 s", "1", "min", "1 week", "8 d", "1 s ", "٣ s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="10 min"):
        measure.duration_s(text)


@pytest.mark.parametrize(
    ("text", "per_s"), [("100/s", 100.0), ("60 / min", 1.0), ("3600/h", 1.0), ("0.5/s", 0.5)]
)
def test_rates(text: str, per_s: float) -> None:
    assert measure.rate(text).per_s == per_s


RULES = """
[receiver.big]
mx = ["b.example"]

[[receiver.big.rule]]
name = "a"
code = ["421"]
slow = 0.5
[[receiver.big.rule]]
name = "b"
code = ["450"]
pause = "soon"
"""


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ('[receiver.big]\nmx = ["b.example"]\nrate = "fast"\n', 3, "receiver.big.rate"),
        (RULES, 12, "receiver.big.rule[2].pause"),
        ("# mine\n[receiver.big]\nconections = 3\n", 3, "receiver.big.conections"),
    ],
)
def test_what_is_wrong_is_found_by_file_line_and_key(text: str, line: int, key: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        read_book([("shipped.toml", DEFAULT), ("mine.toml", text)])
    assert refused.value.message.startswith(f"mine.toml, line {line}: {key.rpartition('.')[0]}")
    assert refused.value.field == key
