"""Segments as people and programs use them: the editor with its count, `/v1`, what is refused."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import pytest
from api_platform import Platform, Reply, start

from mailyard.access.authenticate import SESSION_COOKIE
from mailyard.campaigns import audience
from mailyard.storage.database import Database


@pytest.fixture
async def platform(database: Database) -> AsyncIterator[Platform]:
    platform = await start(database, with_pages=True)
    yield platform
    await platform.close()


async def post(platform: Platform, path: str, body: Any) -> Any:
    reply = await platform.call("POST", path, json=body)
    assert reply.status < 300, (path, reply.body)
    return reply.json


class Visitor:
    """A signed-in owner."""

    def __init__(self, platform: Platform, token: str, csrf: str) -> None:
        self.platform = platform
        self.csrf = csrf
        self.headers = {"cookie": f"{SESSION_COOKIE}={token}"}

    async def get(self, path: str) -> str:
        reply = await self.platform.call("GET", path, key=None, headers=self.headers)
        assert reply.status == 200, (path, reply.body)
        return reply.body.decode()

    async def send(self, path: str, **fields: str) -> Reply:
        body = urlencode({"csrf": self.csrf, **fields}).encode()
        kind = {"content-type": "application/x-www-form-urlencoded"}
        return await self.platform.call(
            "POST", path, body=body, key=None, headers={**self.headers, **kind}
        )


async def visitor(platform: Platform) -> Visitor:
    session = await platform.app.sessions.start(
        platform.first.user_id, platform.workspace_id, "a browser"
    )
    return Visitor(platform, session.token, session.csrf_token)


async def people(platform: Platform) -> None:
    """Ten contacts, of whom two bought shoes and one of them twice."""
    for number in range(10):
        contact = {"address": f"p{number}@example.org", "attributes": {"score": str(number)}}
        await post(platform, "/v1/contacts", contact)
    said = [("p1", "order-1", 80), ("p1", "order-2", 20.5), ("p2", "order-3", 99)]
    events = [
        {
            "address": f"{name}@example.org",
            "kind": "bought",
            "key": key,
            "at": "2026-11-01T10:00:00Z",
            "properties": {"category": "shoes", "total": total},
        }
        for name, key, total in said
    ]
    for again in (0, 3):
        done = await post(platform, "/v1/contacts/events", {"events": events})
        assert done == {"recorded": 3 - again, "repeated": again, "unknown": []}


async def test_a_segment_by_the_api(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audience, "PAGE_WINDOW", 4)
    await people(platform)
    shoes = 'bought(category = "shoes", total > 50)'
    made = await post(
        platform, "/v1/segments", {"name": "Shoes", "filter": f"{shoes} or score = 9"}
    )
    path = f"/v1/segments/{made['id']}"
    estimate = (await platform.call("GET", f"{path}/estimate")).json
    assert estimate == {"contacts": 3, "low": 3, "high": 3, "looked": 10, "of": 10}
    counted = await post(platform, "/v1/segments/count", {"filter": f"{shoes} at least 2 times"})
    assert (counted["contacts"], counted["next_cursor"]) == (0, None)
    assert (await post(platform, "/v1/segments/count", {"filter": "bought at least 2 times"}))[
        "contacts"
    ] == 1
    found: list[str] = []
    cursor = ""
    while True:
        page = (await platform.call("GET", f"{path}/contacts?limit=2{cursor}")).json
        found += [one["address"] for one in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert found == ["p1@example.org", "p2@example.org", "p9@example.org"]
    contact = (await platform.call("GET", "/v1/contacts?search=p2@")).json["items"][0]["id"]
    events = (await platform.call("GET", f"/v1/contacts/{contact}/events")).json["items"]
    assert [(one["kind"], one["at"], one["properties"]["total"]) for one in events] == [
        ("bought", "2026-11-01T10:00:00Z", 99)
    ]
    wrong = await platform.call("POST", "/v1/segments/estimate", json={"filter": "score > \n 'a'"})
    assert (wrong.status, wrong.json["field"]) == (422, "filter")
    assert wrong.json["detail"].startswith("line 2, column 2: expected a number")


async def test_the_editor_counts_while_one_types_and_exactly_step_by_step(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    await people(platform)
    me = await visitor(platform)
    assert "/fragments/segments/estimate" in await me.get("/segments/new")
    about = await me.send("/fragments/segments/estimate", filter="score >= 5")
    assert "<strong>5</strong> of 10 contacts" in about.body.decode()
    wrong = await me.send("/fragments/segments/estimate", filter='list "<b>"')
    assert "line 1, column 6: there is no list named &#39;&lt;b&gt;&#39;" in wrong.body.decode()
    refused = await me.send("/segments", name="x", filter="score >")
    assert refused.status == 422 and b"line 1, column 8: expected a number" in refused.body
    made = await me.send("/segments", name="High", filter="score >= 5")
    assert made.status == 303
    shown = await me.get(made.headers["location"])
    assert "p5@example.org" in shown and "p4@example.org" not in shown
    assert "High" in await me.get("/segments")
    # Of a count that is not at its end the page asks for the next part.
    part = audience.Counted(contacts=2, looked=640, of=6400, upto=platform.workspace_id)
    parts = [part, audience.Counted(contacts=3, looked=640, of=6400, upto=None)]

    async def count(*_: Any) -> audience.Counted:
        return parts.pop(0)

    monkeypatch.setattr(platform.app.segments.audiences, "count", count)
    first = (await me.send("/fragments/segments/count", filter="score >= 5")).body.decode()
    assert 'hx-trigger="load"' in first and '"contacts": "2", "looked": "640"' in first
    last = await me.send(
        "/fragments/segments/count", filter="score >= 5", contacts="2", looked="640"
    )
    assert "Exactly <strong>5</strong>" in last.body.decode()
