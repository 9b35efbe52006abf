"""A preflight over the API: the whole list, links asked for, a start refused and forced."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from api_platform import Platform, start
from domains_seen import keys_stand
from http_script import Seen, answer, scripted

from mailyard.access.audit import AuditEntry
from mailyard.core import ids
from mailyard.protocol.dns_records import Purpose, State, Verdict
from mailyard.sending.domain import fresh_keys
from mailyard.storage.database import Database

SENDER = "Shop <news@shop.example>"


@pytest.fixture
async def platform(database: Database) -> AsyncIterator[Platform]:
    platform = await start(database)

    async def leaves(workspace_id: UUID) -> bool:
        return True

    platform.app.preflights._outside = leaves
    yield platform
    await platform.app.preflights._http.close()
    await platform.close()


async def made(platform: Platform, path: str, body: Any) -> str:
    reply = await platform.call("POST", path, json=body)
    assert reply.status in (200, 201), (path, reply.body)
    return str(reply.json.get("id", ""))


async def sign(platform: Platform) -> None:
    """shop.example is set up, and was looked at just now."""
    workspace_id = platform.workspace_id
    async with platform.app.database.transaction() as tx:
        domain = await platform.app.domains.create(
            workspace_id, "shop.example", await fresh_keys(), tx
        )
        stands = [
            Verdict(purpose, "shop.example", "TXT", State.GOOD)
            for purpose in (Purpose.ALIGNMENT, Purpose.DMARC, Purpose.SPF)
        ]
        await platform.app.domains.note(workspace_id, domain.id, [*keys_stand(domain), *stands], tx)


async def draft(platform: Platform, html: str, contacts: list[dict[str, Any]]) -> str:
    """A campaign of `html` to `contacts`; its id."""
    template = await made(
        platform, "/v1/templates", {"name": "news", "subject": "News", "html": html, "text": "Hi"}
    )
    list_id = await made(platform, "/v1/lists", {"name": "all"})
    members = [await made(platform, "/v1/contacts", contact) for contact in contacts]
    await made(platform, f"/v1/lists/{list_id}/contacts", {"contact_ids": members})
    body = {"name": "News", "list": list_id, "template": template, "from": SENDER}
    return await made(platform, "/v1/campaigns", body)


async def preflight(platform: Platform, campaign: str) -> dict[str, Any]:
    reply = await platform.call("GET", f"/v1/campaigns/{campaign}/preflight")
    assert reply.status == 200, reply.body
    return {item["key"]: item for item in reply.json["items"]} | {"level": reply.json["level"]}


async def test_a_campaign_that_keeps_the_rules_starts(platform: Platform) -> None:
    await sign(platform)
    people = [{"address": f"p{n}@people.test.invalid.dev", "name": "P"} for n in range(3)]
    campaign = await draft(platform, "<p>Hello {{ name }}</p>", people)
    found = await preflight(platform, campaign)
    assert found["level"] == "warn", found  # no postal address
    assert [key for key, item in found.items() if key != "level" and item["level"] == "warn"] == [
        "physical_address"
    ]
    assert found["one_click_signed"]["level"] == "pass"
    assert found["one_click"]["source"] == "https://www.rfc-editor.org/rfc/rfc8058"
    assert (await platform.call("POST", f"/v1/campaigns/{campaign}/start")).status == 200


async def test_a_start_that_is_blocked_is_refused_unless_it_is_forced(platform: Platform) -> None:
    campaign = await draft(platform, "<p>Hello</p>", [{"address": "p@people.dev"}])
    refused = await platform.call("POST", f"/v1/campaigns/{campaign}/start")
    assert (refused.status, refused.json["code"]) == (409, "preflight_blocked")
    assert "shop.example is no sending domain" in refused.json["detail"]
    assert (await platform.call("GET", f"/v1/campaigns/{campaign}")).json["state"] == "draft"
    forced = await platform.call("POST", f"/v1/campaigns/{campaign}/start?force=true")
    assert (forced.status, forced.json["state"]) == (200, "running")
    entries: list[AuditEntry] = await platform.app.audit.list(platform.workspace_id, limit=1)
    assert entries[0].action == "campaign.start"
    assert entries[0].after == {
        "state": "running", "forced": ["authentication", "one_click_signed"],
    }  # fmt: skip


async def test_everybody_on_the_list_is_looked_at(platform: Platform) -> None:
    await sign(platform)
    people: list[dict[str, Any]] = [
        {"address": f"p{n}@people.dev", "attributes": {"city": "Turin", "plan": "gold"}}
        for n in range(30)
    ]
    people[27]["attributes"] = {"plan": "gold"}
    people[28]["attributes"] = {"city": "Turin"}
    people += [
        {"address": address, "attributes": {"city": "x", "plan": "x"}}
        for address in ("spamtrap+1@people.dev", "ann@gmial.com", "bob@shop.test")
    ]
    html = "<p>{{ city }}{% if plan is defined %}, {{ plan }}{% endif %}</p>"
    campaign = await draft(platform, html, people)
    found = await preflight(platform, campaign)
    segment = await made(platform, "/v1/segments", {"name": "s", "filter": 'list "all"'})
    again = (await platform.call("GET", f"/v1/campaigns/{campaign}")).json
    body = {"name": "x", "segment": segment, "template": again["template"], "from": SENDER}
    of_segment = await preflight(platform, await made(platform, "/v1/campaigns", body))
    assert of_segment == found, "the same people, asked slice by slice"
    assert found["variables"]["level"] == "block"
    (line,) = found["variables"]["details"]
    assert "city: 1 contacts, such as p27@people.dev" in line  # `plan` is not asked of everybody
    assert found["traps"]["message"].startswith("3 addresses")
    assert found["traps"]["details"] == ["spamtrap+1@people.dev", "ann@gmial.com", "bob@shop.test"]
    assert found["list_age"]["level"] == "pass"


async def test_what_is_asked_of_some_alone_is_missed_where_it_is_asked(platform: Platform) -> None:
    """Forty do without a company; the one who is asked for it, in the middle of them, is found."""
    await sign(platform)
    people: list[dict[str, Any]] = [
        {
            "address": f"p{n}@people.dev",
            "attributes": {"plan": "free", "city": f"c{n}"},
        }
        for n in range(40)
    ]
    people[20]["attributes"] |= {"plan": "pro"}
    people[30]["attributes"] = {"plan": "free"}
    html = '<p>{{ contact.city }}{% if plan == "pro" %}, {{ contact.company }}{% endif %}</p>'
    campaign = await draft(platform, html, people)
    found = (await preflight(platform, campaign))["variables"]
    assert found["level"] == "block"
    assert [line.partition(": ")[2].partition(":")[0] for line in found["details"]] == [
        "1 contacts, such as p20@people.dev",
        "1 contacts, such as p30@people.dev",
    ]
    segment = await made(platform, "/v1/segments", {"name": "s", "filter": 'list "all"'})
    again = (await platform.call("GET", f"/v1/campaigns/{campaign}")).json
    body = {"name": "x", "segment": segment, "template": again["template"], "from": SENDER}
    of_segment = await preflight(platform, await made(platform, "/v1/campaigns", body))
    assert of_segment["variables"] == found


async def test_a_template_that_asks_for_preferences_can_be_written(platform: Platform) -> None:
    await sign(platform)
    await made(platform, "/v1/topics", {"name": "News"})
    html = '<p>Hello{% if preferences["News"] %}, reader{% endif %}</p>'
    campaign = await draft(platform, html, [{"address": "p@people.dev"}])
    found = await preflight(platform, campaign)
    assert (found["variables"]["level"], found["size"]["level"]) == ("pass", "pass"), found


async def test_an_old_list_is_told_by_what_was_sent_to_it(platform: Platform) -> None:
    await sign(platform)
    campaign = await draft(platform, "<p>Hi</p>", [{"address": "p@people.dev"}])
    async with platform.app.database.connection() as connection:
        await connection.execute("UPDATE list_member SET added_at = now() - interval '200 days'")
        assert (await preflight(platform, campaign))["list_age"]["level"] == "warn"
        await connection.execute("UPDATE list_member SET added_at = now() - interval '3 years'")
        assert (await preflight(platform, campaign))["list_age"]["level"] == "block"
        # Another campaign went to it last week.
        await connection.execute(
            "INSERT INTO campaign (id, workspace_id, name, type, template_id, template_version,"
            " list_id, sender, state, first_started_at) SELECT $1, workspace_id, name, type,"
            " template_id, template_version, list_id, sender, 'finished', $2 FROM campaign",
            ids.uuid7(), datetime.now(UTC) - timedelta(days=7),
        )  # fmt: skip
        assert (await preflight(platform, campaign))["list_age"]["level"] == "pass"


async def test_old_members_who_never_opened_a_mail_are_told(platform: Platform) -> None:
    await sign(platform)
    people = [{"address": f"p{n}@people.dev"} for n in range(10)]
    quiet = await draft(platform, "<p>Hi</p>", people)
    assert "silent" not in await preflight(platform, quiet), "opens are not followed"
    async with platform.app.database.connection() as connection:
        await connection.execute("UPDATE campaign SET track_opens = true")
        assert "silent" not in await preflight(platform, quiet), "all are new"
        await connection.execute("UPDATE contact SET created_at = now() - interval '200 days'")
    for opened, level in ((3, "warn"), (6, "pass")):
        events = [{"address": f"p{n}@people.dev", "kind": "opened"} for n in range(opened)]
        await made(platform, "/v1/contacts/events", {"events": events})
        found = (await preflight(platform, quiet))["silent"]
        assert (found["level"], found["message"][:9]) == (level, f"about {10 - opened}0%")


async def test_complaints_and_bounces_of_the_domains_campaigns_count(platform: Platform) -> None:
    await sign(platform)
    campaign = await draft(platform, "<p>Hi</p>", [{"address": "p@people.dev"}])
    campaign_id = ids.parse_type_id(ids.CAMPAIGN, campaign)
    async with platform.app.database.connection() as connection:
        await connection.execute("UPDATE campaign SET first_started_at = now() - interval '1 day'")
        await connection.execute(
            "INSERT INTO campaign_chunk (campaign_id, number, workspace_id, after_contact,"
            " last_contact, size, state, accepted, bounced)"
            " VALUES ($1, 0, $2, $1, $1, 1000, 'finished', 980, 20)",
            campaign_id, platform.workspace_id,
        )  # fmt: skip
        await connection.execute(
            "INSERT INTO campaign_result (campaign_id, slot, workspace_id, bounced, complained)"
            " VALUES ($1, 0, $2, 40, 2), ($1, 1, $2, 0, 1)",
            campaign_id, platform.workspace_id,
        )  # fmt: skip
    found = await preflight(platform, campaign)
    assert found["complaint_rate"]["level"] == "block"
    assert "3 of 1,000 mails complained in 30 days, 0.30%" in found["complaint_rate"]["message"]
    assert found["bounce_rate"]["level"] == "warn"
    assert "60 of 1,000" in found["bounce_rate"]["message"]
    (domain,) = (await platform.call("GET", "/v1/domains")).json["items"]
    of_domain = await platform.call("GET", f"/v1/domains/{domain['id']}/preflight")
    assert of_domain.json["level"] == "block"
    assert {item["key"] for item in of_domain.json["items"]} == {
        "authentication", "alignment", "dmarc", "spf", "address_names", "tls", "complaint_rate",
        "bounce_rate",
    }  # fmt: skip


async def test_complaints_about_single_emails_count_for_their_domain_alone(
    platform: Platform,
) -> None:
    await sign(platform)
    (domain,) = (await platform.call("GET", "/v1/domains")).json["items"]
    for sender in (f"Shop <shop@{domain['name']}>", "shop@other.example"):
        email = {"from": sender, "to": ["p@people.dev"], "subject": "s", "text": "t"}
        batch = {"emails": [email] * 600}
        assert (await platform.call("POST", "/v1/emails/batch", json=batch)).status == 202
    async with platform.app.database.connection() as connection:
        await connection.execute("UPDATE delivery SET state = 'accepted'")
        await connection.execute(
            "INSERT INTO delivery_event (delivery_id, seq, workspace_id, state, kind)"
            " SELECT id, 9, workspace_id, state, 'complained' FROM delivery"
            " WHERE email_id IN (SELECT id FROM email WHERE sender LIKE 'Shop%' LIMIT 2)"
        )
    of_domain = await platform.call("GET", f"/v1/domains/{domain['id']}/preflight")
    found = {item["key"]: item for item in of_domain.json["items"]}["complaint_rate"]
    assert found["level"] == "block"
    assert "2 of 600 mails complained in 30 days, 0.33%" in found["message"]


async def test_links_are_asked_for_with_head_and_answered_within_bounds(platform: Platform) -> None:
    await sign(platform)

    async def by_path(seen: Seen, writer: asyncio.StreamWriter) -> None:
        statuses = {"/gone": 404, "/moved": 302, "/broken": 503}
        await answer(statuses.get(seen.path, 200))(seen, writer)

    async with scripted(by_path) as server:
        links = "".join(
            f'<a href="{server.url}{path}">x</a>'
            for path in ("/fine", "/gone", "/moved", "/broken")
        )
        html = links + '<a href="http://10.0.0.1/inside">x</a><a href="{{ address }}">own</a>'
        campaign = await draft(platform, html, [{"address": "p@people.dev"}])
        found = await preflight(platform, campaign)
    assert {one.method for one in server.seen} == {"HEAD"}
    assert sorted(one.path for one in server.seen) == ["/broken", "/fine", "/gone", "/moved"]
    assert found["links"]["level"] == "block"
    said = " ".join(found["links"]["details"])
    assert "/gone: its server says 404" in said
    assert "10.0.0.1/inside: " in said and "private" in said
    assert "/broken: its server says 503" in said
    assert found["link_hosts"]["level"] == "warn"
