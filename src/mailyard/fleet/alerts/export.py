"""Prometheus rules and a Grafana dashboard out of the same data that alerts are judged by."""

import json
from collections.abc import Sequence
from typing import Any

from mailyard.fleet.alerts.rule import CRITICAL, WARNING, Rule
from mailyard.fleet.exposition import label_of, prometheus_name

_PANELS = (
    ("API: requests a second", ("api.requests_per_s",), "reqps"),
    ("API: time of answers", ("api.p50_s", "api.p95_s", "api.p99_s"), "s"),
    ("API: errors", ("api.error_share",), "percentunit"),
    ("Queues: waiting", ("queue.depth",), "short"),
    ("Queues: oldest job", ("queue.oldest_s",), "s"),
    ("Queues: time of a job", ("queue.processing_s",), "s"),
    ("Queues: failures", ("queue.failed_share",), "percentunit"),
    ("Jobs a second", ("queue.per_s",), "ops"),
    ("Database: connections", ("database.connections_share",), "percentunit"),
    ("Database: time of a query", ("database.query_mean_s",), "s"),
    ("Database: lag", ("database.lag_s",), "s"),
    (
        "Mail: bounced, complained",
        ("send.bounce_share", "send.complaint_share"),
        "percentunit",
    ),
    ("Mail in, a second", ("smtp.accepted_per_s", "smtp.refused_per_s"), "ops"),
    (
        "Mail out, a second",
        ("send.accepted_per_s", "send.deferred_per_s", "send.bounced_per_s"),
        "ops",
    ),
    ("Mail: taken", ("send.delivered_share",), "percentunit"),
    ("Mail: wait before it leaves", ("send.latency_s",), "s"),
    ("Processes", ("process.count",), "short"),
    ("Processes: processor", ("process.cpu",), "percentunit"),
    ("Processes: memory", ("process.memory_bytes",), "bytes"),
    ("Live connections", ("live.connections",), "short"),
    ("Live connections, of the places", ("live.share",), "percentunit"),
    ("Cache: hits", ("cache.hit_share", "redis.hit_share"), "percentunit"),
    ("Redis: memory", ("redis.memory_share",), "percentunit"),
    ("Redis: evictions a second", ("redis.evictions_per_s",), "ops"),
    ("Limits of providers", ("provider.limit_share",), "percentunit"),
    ("Models: time of an answer", ("analysis.p50_s", "analysis.p95_s"), "s"),
    ("Models: failures", ("analysis.failed_share",), "percentunit"),
    ("Models: tokens a second", ("analysis.tokens_per_s",), "ops"),
    ("Disk", ("disk.used",), "percentunit"),
)
# What is served to an operator's key alone: scrape with it (docs/MONITORING.md).
_OPERATORS_PANELS = (
    (
        "Answers of destinations, a second",
        "sum by (destination, outcome) (max without (instance) "
        "(rate(mailyard_destination_answers_total[5m])))",
        "{{destination}} {{outcome}}",
        "ops",
    ),
    ("Inboxes that live", "max(mailyard_business_active_inboxes)", "inboxes", "short"),
    (
        "Mails of the day",
        "max by (direction) (mailyard_business_mails_today)",
        "{{direction}}",
        "short",
    ),
    ("Sign-ups of the day", "max(mailyard_business_sign_ups_today)", "sign-ups", "short"),
)


def prometheus_rules(rules: Sequence[Rule]) -> str:
    """Alerting rules as Prometheus reads them (YAML, written as JSON, which YAML includes).

    https://prometheus.io/docs/prometheus/latest/configuration/alerting_rules/
    """
    alerts = []
    for rule in rules:
        for level, limit, lasts_s in (
            (WARNING, rule.warning, rule.warning_for_s),
            (CRITICAL, rule.critical, rule.critical_for_s),
        ):
            if limit is not None:
                alerts.append(_alert(rule, level, limit, lasts_s))
    return json.dumps({"groups": [{"name": "mailyard", "rules": alerts}]}, indent=2) + "\n"


def _alert(rule: Rule, level: str, limit: float, lasts_s: float) -> dict[str, Any]:
    label = label_of(rule.metric)
    sign = "<" if rule.below else ">"
    word = "".join(part.capitalize() for part in rule.name.split("-"))
    about = rule.about.replace("{value}", "{{ $value }}").replace(
        "{subject}", f"{{{{ $labels.{label} }}}}"
    )
    annotations = {"summary": about}
    if rule.do:
        annotations["description"] = rule.do
    return {
        "alert": f"Mailyard{word}",
        "expr": f"max by ({label}) ({_selected(rule, label)}) {sign} {limit:g}",
        "for": f"{lasts_s:g}s",
        "labels": {"severity": level},
        "annotations": annotations,
    }


def _selected(rule: Rule, label: str) -> str:
    matchers = []
    if rule.only:
        matchers.append(f'{label}=~"{"|".join(rule.only)}"')
    if rule.but:
        matchers.append(f'{label}!~"{"|".join(rule.but)}"')
    return prometheus_name(rule.metric) + (f"{{{','.join(matchers)}}}" if matchers else "")


def grafana_dashboard(rules: Sequence[Rule]) -> str:
    """A dashboard to import: a panel a subject, with the rules' levels as its thresholds."""
    panels: list[dict[str, Any]] = []
    for title, figures, unit in _PANELS:
        rule = next((one for one in rules if one.metric in figures), None)
        queries = [
            (
                f"max by ({label_of(figure)}) ({prometheus_name(figure)})",
                f"{figure} {{{{{label_of(figure)}}}}}",
            )
            for figure in figures
        ]
        panels.append(_panel(len(panels), title, queries, _look_of(unit, rule)))
    for title, expression, legend, unit in _OPERATORS_PANELS:
        panels.append(_panel(len(panels), title, [(expression, legend)], _look_of(unit, None)))
    dashboard = {
        "uid": "mailyard",
        "title": "Mailyard",
        "schemaVersion": 39,
        "refresh": "15s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [
                {"name": "source", "type": "datasource", "query": "prometheus", "label": "Source"}
            ]
        },
        "panels": panels,
    }
    return json.dumps(dashboard, indent=2) + "\n"


def _panel(
    place: int, title: str, queries: Sequence[tuple[str, str]], look: dict[str, Any]
) -> dict[str, Any]:
    """A chart of `queries`, (expression, legend), at its place in rows of three."""
    source = {"type": "prometheus", "uid": "${source}"}
    return {
        "id": place + 1,
        "title": title,
        "type": "timeseries",
        "datasource": source,
        "gridPos": {"h": 8, "w": 8, "x": 8 * (place % 3), "y": 8 * (place // 3)},
        "fieldConfig": {"defaults": look, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": source,
                "expr": expression,
                "legendFormat": legend,
            }
            for number, (expression, legend) in enumerate(queries)
        ],
    }


def _look_of(unit: str, rule: Rule | None) -> dict[str, Any]:
    if rule is None:
        return {"unit": unit}
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    levels = [("orange", rule.warning), ("red", rule.critical)]
    if rule.below:
        steps = [{"color": "red", "value": None}]
        levels = [("orange", rule.critical), ("green", rule.warning)]
    steps += [{"color": color, "value": value} for color, value in levels if value is not None]
    return {
        "unit": unit,
        "custom": {"thresholdsStyle": {"mode": "line"}},
        "thresholds": {"mode": "absolute", "steps": steps},
    }
