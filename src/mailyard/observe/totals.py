"""What this process has counted since it began, small enough to ride in its beat.

Prometheus scrapes one process at a time; who looks at the whole fleet (alerts, the autoscaler, the
pages) reads every process's row instead, and subtracts an earlier reading.
"""

from collections.abc import Iterable
from typing import Any

from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.samples import Sample

from mailyard.observe import metrics
from mailyard.observe.limit_use import LIMIT_USE

QUERIES_TOLD = 20  # those that took most of the time
_ROUND = 6


def totals() -> dict[str, Any]:
    """By section; a section in which nothing was counted is left out."""
    told = {
        "http": _http(),
        "jobs": _jobs(),
        "deliveries": _counts(metrics.DELIVERIES, "lane", "state"),
        "returned": _counts(metrics.RETURNED_MAIL, "kind"),
        "reported": _counts(metrics.PROVIDER_EVENTS_TOTAL, "kind", "outcome"),
        "smtp": _smtp(),
        "live": _sum(metrics.LIVE_CONNECTIONS),
        "queries": _queries(),
        "analysis": _analysis(),
        "redis": metrics.redis_counts(),
        "rates": LIMIT_USE.rates(),
        "fullest": LIMIT_USE.fullest(),
        "more": metrics.told_by_others(),
    }
    return {name: value for name, value in told.items() if value}


def _samples(metric: MetricWrapperBase) -> Iterable[Sample]:
    for family in metric.collect():
        yield from family.samples


def _counts(metric: MetricWrapperBase, *labels: str) -> dict[str, int]:
    """A counter's values by its labels, with spaces between."""
    return {
        " ".join(one.labels[label] for label in labels): int(one.value)
        for one in _samples(metric)
        if one.name.endswith("_total")
    }


def _sum(metric: MetricWrapperBase) -> int:
    return int(sum(one.value for one in _samples(metric) if not one.name.endswith("_created")))


def _http() -> dict[str, Any]:
    """All routes together: how many came and wait, how many were answered, how long it took, how
    many went wrong on our side, by bucket."""
    buckets: dict[float, int] = {}
    count = errors = 0
    seconds = 0.0
    for one in _samples(metrics.HTTP_SECONDS):
        if one.name.endswith("_bucket"):
            bound = float(one.labels["le"])
            buckets[bound] = buckets.get(bound, 0) + int(one.value)
        elif one.name.endswith("_count"):
            count += int(one.value)
            errors += int(one.value) if one.labels["status"] >= "500" else 0
        elif one.name.endswith("_sum"):
            seconds += one.value
    arrived = _sum(metrics.HTTP_ARRIVED)
    waiting = _sum(metrics.HTTP_WAITING)
    if not (count or arrived or waiting):
        return {}
    return {
        "arrived": arrived,
        "waiting": waiting,
        "count": count,
        "errors": errors,
        "seconds": round(seconds, _ROUND),
        "buckets": [buckets[bound] for bound in sorted(buckets)],
    }


def _jobs() -> dict[str, dict[str, float]]:
    """By queue: batches and their seconds, jobs by outcome, and the slots that work on them."""
    found: dict[str, dict[str, float]] = {}
    for one in _samples(metrics.WORKER_SLOTS):
        found.setdefault(one.labels["queue"], {})["slots"] = one.value
    for one in _samples(metrics.JOB_SECONDS):
        key = {"mailyard_job_seconds_count": "batches", "mailyard_job_seconds_sum": "seconds"}
        if one.name in key:
            found.setdefault(one.labels["queue"], {})[key[one.name]] = round(one.value, _ROUND)
    for one in _samples(metrics.JOBS):
        if one.name.endswith("_total"):
            found.setdefault(one.labels["queue"], {})[one.labels["outcome"]] = one.value
    return found


def _analysis() -> dict[str, Any]:
    """All models together: questions, failures, seconds, tokens, and questions by bucket."""
    buckets: dict[float, int] = {}
    seconds = 0.0
    for one in _samples(metrics.ANALYSIS_SECONDS):
        if one.name.endswith("_bucket"):
            bound = float(one.labels["le"])
            buckets[bound] = buckets.get(bound, 0) + int(one.value)
        elif one.name.endswith("_sum"):
            seconds += one.value
    calls = _counts(metrics.ANALYSIS_CALLS, "kind", "outcome")
    if not calls:
        return {}
    return {
        "calls": sum(calls.values()),
        "failures": sum(n for name, n in calls.items() if not name.endswith(" answered")),
        "seconds": round(seconds, _ROUND),
        "tokens": _sum(metrics.ANALYSIS_TOKENS),
        "buckets": [buckets[bound] for bound in sorted(buckets)],
    }


def _smtp() -> dict[str, int]:
    told = {
        "accepted": _sum(metrics.MESSAGES_ACCEPTED),
        "refused": _sum(metrics.MESSAGES_REFUSED),
        "sessions": _sum(metrics.SMTP_SESSIONS),
    }
    return told if any(told.values()) else {}


def _queries() -> dict[str, list[float]]:
    """Name -> [how often, seconds in all] of the queries that took the most time."""
    found: dict[str, list[float]] = {}
    for one in _samples(metrics.QUERY_SECONDS):
        if one.name.endswith("_count"):
            found.setdefault(one.labels["query"], [0.0, 0.0])[0] = one.value
        elif one.name.endswith("_sum"):
            found.setdefault(one.labels["query"], [0.0, 0.0])[1] = round(one.value, _ROUND)
    costly = sorted(found.items(), key=lambda item: -item[1][1])[:QUERIES_TOLD]
    return {name: value for name, value in costly if value[0]}
