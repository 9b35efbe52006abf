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
    ("Database: lag", ("database.lag_s",), "s"),
    (
        "Mail: bounced, complained",
        ("send.bounce_share", "send.complaint_share"),
        "percentunit",
    ),
    ("Mail: wait before it leaves", ("send.latency_s",), "s"),
    ("Processes", ("process.count",), "short"),
    ("Processes: processor", ("process.cpu",), "percentunit"),
    ("Processes: memory", ("process.memory_bytes",), "bytes"),
    ("Live connections", ("live.connections",), "short"),
    ("Cache: hits", ("cache.hit_share",), "percentunit"),
    ("Disk", ("disk.used",), "percentunit"),
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
    source = {"type": "prometheus", "uid": "${source}"}
    panels = []
    for place, (title, figures, unit) in enumerate(_PANELS):
        rule = next((one for one in rules if one.metric in figures), None)
        panels.append(
            {
                "id": place + 1,
                "title": title,
                "type": "timeseries",
                "datasource": source,
                "gridPos": {"h": 8, "w": 8, "x": 8 * (place % 3), "y": 8 * (place // 3)},
                "fieldConfig": {"defaults": _look_of(unit, rule), "overrides": []},
                "targets": [
                    {
                        "refId": chr(ord("A") + number),
                        "datasource": source,
                        "expr": f"max by ({label_of(figure)}) ({prometheus_name(figure)})",
                        "legendFormat": f"{figure} {{{{{label_of(figure)}}}}}",
                    }
                    for number, figure in enumerate(figures)
                ],
            }
        )
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
