"""`POST /v1/emails` and what becomes of it, through the API."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from api_platform import Platform, start

from mailyard.queue.job import EMAIL_SEND
from mailyard.storage.database import Database

EMAIL = {
    "from": "Shop <shop@example.org>",
    "to": ["ada@example.org"],
    "subject": "Your order",
    "html": "<p>Thank you</p>",
    "text": "Thank you",
}


@pytest.fixture
async def platform(database: Database) -> AsyncIterator[Platform]:
    platform = await start(database)
    yield platform
    await platform.close()


async def test_an_email_is_accepted_and_found_with_its_delivery(platform: Platform) -> None:
    accepted = await platform.call("POST", "/v1/emails", json=EMAIL)
    assert accepted.status == 202, accepted.body
    email_id = accepted.json["id"]
    delivery_id = accepted.json["recipients"][0]["delivery_id"]
    email = await platform.call("GET", f"/v1/emails/{email_id}")
    assert email.json["from"] == EMAIL["from"]
    assert email.json["html"] == EMAIL["html"]
    listed = await platform.call("GET", "/v1/emails")
    assert [item["id"] for item in listed.json["items"]] == [email_id]
    delivery = await platform.call("GET", f"/v1/deliveries/{delivery_id}")
    assert delivery.json["email_id"] == email_id
    assert [event["state"] for event in delivery.json["events"]] == ["queued"]


async def test_a_delivery_reads_as_leased_while_a_worker_holds_its_email(
    platform: Platform,
) -> None:
    accepted = await platform.call("POST", "/v1/emails", json=EMAIL)
    path = f"/v1/deliveries/{accepted.json['recipients'][0]['delivery_id']}"
    leased = await platform.app.engine.lease([EMAIL_SEND], 10, 20.0, "worker-1")
    shown = await platform.call("GET", path)
    assert (shown.status, shown.json["state"]) == (200, "leased")
    assert [event["state"] for event in shown.json["events"]] == ["queued"]
    listed = await platform.call("GET", "/v1/deliveries?state=queued")
    assert [item["state"] for item in listed.json["items"]] == ["queued"]
    await platform.app.engine.release(leased)
    assert (await platform.call("GET", path)).json["state"] == "queued"


@pytest.mark.parametrize(
    "query",
    ["recipient=ada@example.org", "type=transactional", "state=queued", "email_id={email_id}"],
)
async def test_a_delivery_is_found_by_what_is_known_of_it(platform: Platform, query: str) -> None:
    accepted = await platform.call("POST", "/v1/emails", json=EMAIL)
    wanted = query.format(email_id=accepted.json["id"])
    found = await platform.call("GET", f"/v1/deliveries?{wanted}")
    assert found.status == 200, found.body
    assert [item["id"] for item in found.json["items"]] == [
        accepted.json["recipients"][0]["delivery_id"]
    ]


async def test_filters_that_would_be_ignored_are_refused(platform: Platform) -> None:
    accepted = await platform.call("POST", "/v1/emails", json=EMAIL)
    found = await platform.call(
        "GET", f"/v1/deliveries?email_id={accepted.json['id']}&type=transactional"
    )
    assert (found.status, found.json["field"]) == (422, "type")


async def test_a_batch_is_taken_whole_or_not_at_all(platform: Platform) -> None:
    good = await platform.call("POST", "/v1/emails/batch", json={"emails": [EMAIL] * 3})
    assert good.status == 202
    assert len({email["id"] for email in good.json["emails"]}) == 3
    bad = await platform.call(
        "POST", "/v1/emails/batch", json={"emails": [EMAIL, {**EMAIL, "to": ["nobody"]}]}
    )
    assert (bad.status, bad.json["field"]) == (422, "emails.1.to.0")
    listed = await platform.call("GET", "/v1/emails")
    assert len(listed.json["items"]) == 3


async def test_a_cancelled_email_says_who_does_not_get_it_and_is_audited(
    platform: Platform,
) -> None:
    later = {**EMAIL, "send_at": "2026-12-24T12:00:00Z"}
    accepted = await platform.call("POST", "/v1/emails", json=later)
    cancelled = await platform.call("POST", f"/v1/emails/{accepted.json['id']}/cancel")
    assert cancelled.json == {"recipients": ["ada@example.org"]}
    again = await platform.call("POST", f"/v1/emails/{accepted.json['id']}/cancel")
    assert (again.status, again.json["code"]) == (409, "conflict")
    audit = await platform.call("GET", "/v1/audit?action=email.cancel")
    assert [entry["subject"] for entry in audit.json["items"]] == [accepted.json["id"]]


async def test_a_template_fills_in_and_a_missing_variable_is_an_error(platform: Platform) -> None:
    made = await platform.call(
        "POST",
        "/v1/templates",
        json={"name": "hello", "subject": "Hello {{ name }}", "text": "Dear {{ name }}"},
    )
    assert made.status == 201, made.body
    addressed: dict[str, Any] = {
        "from": EMAIL["from"],
        "to": EMAIL["to"],
        "template": made.json["id"],
    }
    missing = await platform.call("POST", "/v1/emails", json={**addressed, "data": {}})
    assert missing.status == 422
    good = await platform.call("POST", "/v1/emails", json={**addressed, "data": {"name": "Ada"}})
    email = await platform.call("GET", f"/v1/emails/{good.json['id']}")
    assert email.json["subject"] == "Hello Ada"


async def test_the_same_key_and_body_is_sent_once(platform: Platform) -> None:
    headers = {"Idempotency-Key": "order-1"}
    first = await platform.call("POST", "/v1/emails", json=EMAIL, headers=headers)
    second = await platform.call("POST", "/v1/emails", json=EMAIL, headers=headers)
    assert second.status == 202
    assert second.body == first.body
    assert second.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    listed = await platform.call("GET", "/v1/emails")
    assert len(listed.json["items"]) == 1


async def test_the_same_key_with_another_body_is_a_conflict(platform: Platform) -> None:
    headers = {"Idempotency-Key": "order-1"}
    await platform.call("POST", "/v1/emails", json=EMAIL, headers=headers)
    other = await platform.call(
        "POST", "/v1/emails", json={**EMAIL, "subject": "Another"}, headers=headers
    )
    assert (other.status, other.json["code"]) == (409, "idempotency_key_reused")
    elsewhere = await platform.call("POST", "/v1/inboxes", json={}, headers=headers)
    assert elsewhere.status == 409


async def test_a_key_that_another_route_answered_under_is_a_conflict(platform: Platform) -> None:
    headers = {"Idempotency-Key": "order-1"}
    made = await platform.call("POST", "/v1/inboxes", json={}, headers=headers)
    assert made.status == 201, made.body
    other = await platform.call("POST", "/v1/emails", json=EMAIL, headers=headers)
    assert (other.status, other.json["code"]) == (409, "idempotency_key_reused")


async def test_of_many_concurrent_requests_with_one_key_one_is_done(platform: Platform) -> None:
    headers = {"Idempotency-Key": "order-1"}
    replies = await asyncio.gather(
        *(platform.call("POST", "/v1/emails", json=EMAIL, headers=headers) for _ in range(12))
    )
    assert {reply.status for reply in replies} <= {202, 409}
    assert len({reply.body for reply in replies if reply.status == 202}) == 1
    listed = await platform.call("GET", "/v1/emails")
    assert len(listed.json["items"]) == 1


async def test_a_suppressed_recipient_is_said_at_once(platform: Platform) -> None:
    await platform.call("POST", "/v1/suppressions", json={"address": "ada@example.org"})
    accepted = await platform.call("POST", "/v1/emails", json=EMAIL)
    assert accepted.json["recipients"][0]["state"] == "suppressed"


async def test_a_preview_has_the_contacts_fields_and_the_workspaces_footer(
    platform: Platform,
) -> None:
    made = await platform.call(
        "POST",
        "/v1/templates",
        json={
            "name": "news",
            "subject": "{{ city }}, {{ contact.name }}",
            "html": '<p>{{ x }}</p><a href="{{ unsubscribe_url }}">Stop</a>',
        },
    )
    assert made.status == 201, made.body
    path = f"/v1/templates/{made.json['id']}"
    contact = await platform.call(
        "POST",
        "/v1/contacts",
        json={"address": "ann@example.org", "name": "Ann", "attributes": {"city": "Rome"}},
    )
    shown = await platform.call(
        "PUT", "/v1/imprint", json={"footer_html": "<i>{{ physical_address }}</i>",
                                    "physical_address": "1 Road"},
    )  # fmt: skip
    assert shown.status == 200, shown.body
    body = {"contact": contact.json["id"], "data": {"x": "<1>"}}
    seen = await platform.call("POST", f"{path}/preview", json=body)
    assert seen.status == 200, seen.body
    assert seen.json["subject"] == "Rome, Ann"
    assert "<p>&lt;1&gt;</p>" in seen.json["html"] and "<i>1 Road</i>" in seen.json["html"]
    assert "/u/preview" in seen.json["html"] and "/u/preview>" in seen.json["text"]
    typed = {**body, "source": {"subject": "s", "html": "<p>\n{{ nobody }}</p>"}}
    wrong = await platform.call("POST", f"{path}/preview", json=typed)
    assert wrong.status == 422
    assert wrong.json["detail"] == "html, line 2, column 4: `nobody` is undefined"
    sent = await platform.call(
        "POST",
        "/v1/emails",
        json={"from": "a@example.org", "to": ["Ann <ann@example.org>"], "template": "news",
              "data": {"x": 1, "city": "Rome", "unsubscribe_url": "https://x.example/u"}},
    )  # fmt: skip
    assert sent.status == 202, sent.body
    email = await platform.call("GET", f"/v1/emails/{sent.json['id']}")
    assert email.json["subject"] == "Rome, Ann"
