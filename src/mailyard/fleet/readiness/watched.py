"""Whether somebody would see that something is wrong."""

from collections.abc import Sequence
from dataclasses import dataclass

from mailyard.core.errors import MailyardError
from mailyard.fleet.readiness import needs
from mailyard.fleet.readiness.item import Item, met, missing, thin
from mailyard.net.http import HttpClient

_SERIES = b"mailyard_"
_ASK_S = 10.0
_METRICS_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Scrape:
    """What came of asking the API for its health and its metrics; `why` not, when they are None."""

    url: str
    health: int | None
    metrics: int | None
    series: bool = False
    why: str = ""


async def scrape(url: str, http: HttpClient) -> Scrape:
    """Ask as a monitoring system does. Raises nothing."""
    try:
        health = await http.request("GET", f"{url}/health/ready", total_s=_ASK_S)
        metrics = await http.request(
            "GET", f"{url}/metrics", total_s=_ASK_S, answer_bytes=_METRICS_BYTES
        )
    except MailyardError as error:
        return Scrape(url, None, None, why=error.message)
    return Scrape(url, health.status, metrics.status, _SERIES in metrics.body)


def judge_monitoring(seen: Scrape) -> Item:
    """Health and metrics are there for whoever watches."""
    if seen.health is None:
        fix = "start it, or let MAILYARD_URL or MAILYARD_BASE_URL name it"
        return missing(needs.MONITORING, f"{seen.url} does not answer: {seen.why}", fix)
    if seen.metrics != 200 or not seen.series:
        found = f"{seen.url}/metrics answers {seen.metrics}, without figures of ours"
        fix = "let /metrics through to the API for whoever scrapes it"
        return missing(needs.MONITORING, found, fix)
    if seen.health != 200:
        found = f"{seen.url}/health/ready answers {seen.health}"
        return thin(needs.MONITORING, found, "see what it says: mailyard monitoring alerts")
    return met(needs.MONITORING, f"{seen.url}/metrics and /health/ready answer")


@dataclass(frozen=True, slots=True)
class AlertsSeen:
    """`on`: rules are judged. `critical`: rules that are open at that level. `undelivered`: why the
    last notice of an open alert did not arrive, by channel."""

    on: bool
    channels: Sequence[str]
    critical: Sequence[str] = ()
    undelivered: Sequence[tuple[str, str]] = ()


def judge_alerts(seen: AlertsSeen | None) -> Item:
    """Rules are judged, and somebody is told. `seen` is None when the database does not say."""
    tell = "set MAILYARD_ALERTS_MAIL, MAILYARD_ALERTS_SLACK or MAILYARD_ALERTS_WEBHOOK"
    if seen is None:
        return missing(needs.ALERTS, "not known: the database does not say", "see the database")
    if not seen.on:
        fix = "leave MAILYARD_ALERTS out, or export rules: mailyard monitoring export"
        return missing(needs.ALERTS, "rules are not judged: MAILYARD_ALERTS is false", fix)
    if not seen.channels:
        return missing(needs.ALERTS, "they stand on a page and nobody is told", tell)
    if seen.undelivered:
        channel, why = seen.undelivered[0]
        return thin(needs.ALERTS, f"a notice by {channel} did not arrive: {why}", "mend it")
    told = f"told by {', '.join(seen.channels)}"
    if seen.critical:
        found = f"{told}; critical now: {', '.join(sorted(set(seen.critical)))}"
        return thin(needs.ALERTS, found, "mailyard monitoring alerts")
    return met(needs.ALERTS, told)
