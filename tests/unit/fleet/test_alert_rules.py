"""Alert rules: what they say when, and what a wrong one is told."""

import pytest

from mailyard.core.errors import ConfigurationError
from mailyard.fleet.alerts.judge import State, judge, judge_all
from mailyard.fleet.alerts.rule import Rule, read_rules

P95 = Rule("p95", "api.p95_s", "slow", warning=0.5, critical=2.0, warning_for_s=60,
           critical_for_s=10, resolve_for_s=30)  # fmt: skip


def told(rule: Rule, story: list[tuple[float, float | None]]) -> list[tuple[float, str]]:
    """(when, event) of a story of (seconds, value from then on), looked at every second."""
    state, events = State(), []
    end = story[-1][0]
    value: float | None = None
    rest = list(story)
    for second in range(int(end) + 1):
        while rest and rest[0][0] <= second:
            value = rest.pop(0)[1]
        change, state = judge(rule, state, value, float(second))
        if change is not None:
            events.append((second, change.event))
    return events


@pytest.mark.parametrize(
    ("story", "expected"),
    [
        ([(0, 0.1), (500, 0.1)], []),
        ([(0, 0.6), (59, 0.6)], []),
        ([(0, 0.6), (100, 0.1), (200, 0.1)], [(60, "warning"), (130, "resolved")]),
        ([(0, 3.0), (5, 0.1), (90, 0.1)], []),
        ([(0, 3.0), (20, 0.1), (90, 0.1)], [(10, "critical"), (50, "resolved")]),
        # It gets worse, better, and is over: one alert all the while.
        (
            [(0, 0.6), (70, 3.0), (100, 0.6), (200, 0.1), (300, 0.1)],
            [(60, "warning"), (80, "critical"), (100, "warning"), (230, "resolved")],
        ),
        # A moment of calm is no end, and is not told.
        ([(0, 0.6), (70, 0.1), (80, 0.6), (200, 0.6)], [(60, "warning")]),
        # What is not known changes nothing, and makes every duration begin anew.
        ([(0, 0.6), (50, None), (55, 0.6), (100, 0.6)], []),
        ([(0, 0.6), (70, None), (3000, None)], [(60, "warning")]),
        ([(0, 0.6), (70, None), (3700, None)], [(60, "warning"), (3670, "resolved")]),
    ],
)
def test_what_is_told_when(
    story: list[tuple[float, float | None]], expected: list[tuple[float, str]]
) -> None:
    assert told(P95, story) == expected


def test_less_can_be_worse() -> None:
    rule = Rule("hits", "cache.hit_share", "few", warning=0.7, warning_for_s=0, below=True)

    assert told(rule, [(0, 0.9), (5, 0.69), (9, 0.69)]) == [(5, "warning")]


def test_each_subject_is_judged_alone_and_some_not_at_all() -> None:
    rule = Rule("depth", "queue.depth", "{value} in {subject}", critical=10.0, critical_for_s=0,
                but=("email-bulk",))  # fmt: skip

    changes, states = judge_all(
        rule, {}, {"email-send": 11.0, "webhooks": 3.0, "email-bulk": 1e6}, 5.0
    )

    assert [(subject, change.event) for subject, change in changes] == [("email-send", "critical")]
    assert set(states) == {"email-send", "webhooks"}


def test_the_packed_rules_are_those_that_are_promised() -> None:
    rules = {rule.name: (rule.warning, rule.critical) for rule in read_rules()}

    assert (
        rules.items()
        >= {
            "api-p95": (0.5, 2.0),
            "api-errors": (0.01, 0.05),
            "queue-depth": (500.0, 5000.0),
            "bulk-depth": (50_000.0, 100_000.0),
            "database-connections": (0.8, 0.95),
            "replication-lag": (5.0, 30.0),
            "redis-memory": (0.8, 0.95),
            "disk": (0.7, 0.9),
            "bounces": (0.03, 0.1),
            "delivery": (0.99, 0.95),
            "complaints": (0.001, 0.005),
            "send-latency": (10.0, 60.0),
            "live-connections": (0.9, None),
            "cache-hits": (0.7, None),
            "memory": (0.85, None),
            "interactive-depth": (1000.0, None),
            "processing-time": (30.0, None),
            "redis-away": (None, 0.5),
        }.items()
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[disk]\nwarning = 'much'", "warning"),
        ("[disk]\ncolour = 3", "colour"),
        ("[disk]\nwarning = 0.95", "beyond"),
        ("[mine]\nmetric = 'disk.used'\nabout = 'x'", "warning, a critical"),
        ("[mine]\nwarning = 1", "metric"),
        ("disk = 3", "table"),
    ],
)
def test_a_wrong_rule_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        read_rules(text, "my.toml")


def test_a_file_of_ones_own_replaces_adds_and_removes() -> None:
    rules = {
        rule.name: rule for rule in read_rules("[disk]\nwarning = 0.5\n[memory]\noff = true\n")
    }

    assert (rules["disk"].warning, rules["disk"].critical) == (0.5, 0.9)
    assert "memory" not in rules
