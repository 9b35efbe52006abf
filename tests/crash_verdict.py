"""The audit after the storm: what was promised against what lies in the inboxes."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic
from uuid import UUID

from crash_ledger import ApiSender, Ledger, SmtpClient, World

from mailyard.app import Application
from mailyard.core.ids import CAMPAIGN, DELIVERY, parse_type_id
from mailyard.proving.client import ApiClient, ApiProblem
from mailyard.settings import load_settings
from mailyard.storage.queries import Query

MAIL_BY_SUBJECT = Query(
    "SELECT subject, recipient, count(*) AS copies FROM inbox_message "
    "WHERE subject LIKE 'ledger %' GROUP BY subject, recipient"
)
INBOUND_WAITING = Query(
    "SELECT count(*) FROM message AS m WHERE NOT EXISTS "
    "(SELECT 1 FROM inbox_message AS i WHERE i.message_id = m.id)"
)
DELIVERIES = Query(
    "SELECT id, email_id, recipient, state FROM delivery WHERE id = ANY ($1::uuid[])"
)
CAMPAIGN_DELIVERIES = Query("SELECT recipient, state FROM delivery WHERE campaign_id = $1")
UNKNOWN_EVENTS = Query(
    "SELECT delivery_id, count(*) AS times FROM delivery_event "
    "WHERE state = 'unknown' GROUP BY delivery_id"
)
JOBS_THAT_DELIVER = Query(
    "SELECT payload FROM job WHERE kind = 'deliver' "
    "UNION ALL SELECT payload FROM job_dead WHERE kind = 'deliver' AND again_at IS NOT NULL"
)
CAMPAIGN_STATE = Query("SELECT state, recipients FROM campaign WHERE id = $1")
ON_ITS_WAY = ("queued", "handed_off", "deferred", "unknown")  # transactional mail is tried again


@dataclass
class Findings:
    """What is wrong, in words, and the figures for the log."""

    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    on_its_way: int = 0
    unknown: int = 0
    checked: int = 0
    settled_s: float = 0.0  # until nothing was missing and nothing on its way

    @property
    def clean(self) -> bool:
        return not self.lost and not self.twice


async def until_alive(world: World, patience_s: float) -> float:
    """Seconds until a mail by SMTP and an email by the API both arrive again. Fails in words."""
    started = monotonic()
    number = len(world.ledger.by_smtp)
    smtp, api = SmtpClient(world, "alive-smtp", 0), ApiSender(world, "alive-api", 0)
    client = ApiClient(world.address.url, world.address.api_key, timeout_s=10.0)
    tokens = [f"alive-smtp-{number}", f"alive-api-{number}"]
    try:
        async with asyncio.timeout(patience_s):
            await asyncio.gather(smtp.send(tokens[0]), api.send(client, tokens[1]))
            for promises, token in (
                (world.ledger.by_smtp, tokens[0]),
                (world.ledger.by_api, tokens[1]),
            ):
                await _until_read(client, promises[token].recipient, f"ledger {token}")
    finally:
        await client.close()
    return monotonic() - started


async def _until_read(client: ApiClient, address: str, subject: str) -> None:
    while True:
        try:
            found = await client.get("/v1/inboxes", address=address)
            inbox_id = found["items"][0]["id"]
            mail = await client.get(f"/v1/inboxes/{inbox_id}/messages", subject=subject)
            if mail["items"]:
                return
        except ApiProblem:
            pass
        await asyncio.sleep(0.1)


async def audit(environment: Mapping[str, str], world: World, settle_s: float) -> Findings:
    """Wait until nothing moves any more, at most `settle_s`, then compare everything.

    `environment`: what the platform's processes run with.
    """
    application = Application(load_settings(environment))
    await application.open()
    try:
        settled_s = await _settle(application, world, settle_s)
        findings = await compare(application, world.ledger)
        findings.settled_s = settled_s
        return findings
    finally:
        await application.close()


async def _settle(application: Application, world: World, settle_s: float) -> float:
    started = monotonic()
    while monotonic() < started + settle_s:
        waiting = await application.database.fetchval(INBOUND_WAITING)
        findings = await compare(application, world.ledger)
        if not waiting and not findings.on_its_way and findings.clean:
            break
        await asyncio.sleep(1.0)
    return monotonic() - started


async def compare(application: Application, ledger: Ledger) -> Findings:
    """Everything that was promised against what is there now."""
    findings = Findings()
    copies: Counter[tuple[str, str]] = Counter()
    for row in await application.database.fetch(MAIL_BY_SUBJECT):
        copies[row["subject"].removeprefix("ledger "), row["recipient"]] += row["copies"]
    unknown = {
        row["delivery_id"]: row["times"] for row in await application.database.fetch(UNKNOWN_EVENTS)
    }
    findings.unknown = sum(unknown.values())
    _compare_smtp(ledger, copies, findings)
    await _compare_api(application, ledger, copies, unknown, findings)
    for word, campaign_id in ledger.campaigns.items():
        identifier = parse_type_id(CAMPAIGN, campaign_id)
        await _compare_campaign(application, word, identifier, copies, unknown, findings)
    return findings


def _compare_smtp(ledger: Ledger, copies: Counter[tuple[str, str]], findings: Findings) -> None:
    for token, promise in ledger.by_smtp.items():
        found = copies[token, promise.recipient]
        findings.checked += 1
        if found == 0:
            findings.lost.append(f"250 {token}")
        if found > 1 + promise.unanswered:
            findings.twice.append(f"250 {token}: {found} copies")


async def _compare_api(
    application: Application,
    ledger: Ledger,
    copies: Counter[tuple[str, str]],
    unknown: dict[UUID, int],
    findings: Findings,
) -> None:
    ids = {
        token: parse_type_id(DELIVERY, promise.delivery_id)
        for token, promise in ledger.by_api.items()
    }
    # Jobs first: a job that is gone has left a final state behind it.
    held = {row["payload"] for row in await application.database.fetch(JOBS_THAT_DELIVER)}
    rows = await application.database.fetch(DELIVERIES, list(ids.values()))
    states = {row["id"]: row["state"] for row in rows}
    worked_on = {row["id"] for row in rows if row["email_id"].bytes in held}
    for token, promise in ledger.by_api.items():
        found = copies[token, promise.recipient]
        state = states.get(ids[token], "no delivery")
        findings.checked += 1
        if found == 0 and state in ON_ITS_WAY and ids[token] in worked_on:
            findings.on_its_way += 1
        elif found == 0:
            findings.lost.append(f"202 {token}: {state}")
        if found > 1 + unknown.get(ids[token], 0):
            findings.twice.append(
                f"202 {token}: {found} copies, {unknown.get(ids[token], 0)} unknown"
            )


async def _compare_campaign(
    application: Application,
    word: str,
    campaign_id: UUID,
    copies: Counter[tuple[str, str]],
    unknown: dict[UUID, int],
    findings: Findings,
) -> None:
    campaign = await application.database.fetchrow(CAMPAIGN_STATE, campaign_id)
    assert campaign is not None, f"the campaign {word} is gone"
    rows = await application.database.fetch(CAMPAIGN_DELIVERIES, campaign_id)
    states = {row["recipient"]: row["state"] for row in rows}
    findings.checked += len(states)
    findings.unknown += sum(state == "unknown" for state in states.values())
    if campaign["state"] == "finished" and len(states) != campaign["recipients"]:
        findings.lost.append(f"{word}: {len(states)} rows of {campaign['recipients']} recipients")
    findings.on_its_way += campaign["state"] == "running"
    for (token, recipient), found in copies.items():
        if token == word and found > 1:
            findings.twice.append(f"{word} {recipient}: {found} copies")
        if token == word and states.get(recipient) in ("bounced", "failed"):
            findings.lost.append(f"{word} {recipient}: there, but recorded {states[recipient]}")
    for recipient, state in states.items():
        if state == "accepted" and copies[word, recipient] == 0:
            findings.lost.append(f"{word} {recipient}: accepted and not there")
        if state in ("bounced", "failed"):
            findings.lost.append(f"{word} {recipient}: {state}")
