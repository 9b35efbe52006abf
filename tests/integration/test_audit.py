"""The audit log: who, what, before, after; filtered; and kept answers of repeated requests."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from api_platform import Platform, start
from api_things import make_things

from mailyard.access.idempotency import Idempotency
from mailyard.storage.database import Database
from mailyard.storage.queries import Query
from mailyard.web.api.routes import ROUTES


@pytest.fixture
async def platform(database: Database) -> AsyncIterator[Platform]:
    platform = await start(database)
    yield platform
    await platform.close()


async def test_an_entry_says_who_what_before_and_after(platform: Platform) -> None:
    made = await platform.call("POST", "/v1/inboxes", json={"name": "old"})
    inbox = made.json["id"]
    await platform.call("PATCH", f"/v1/inboxes/{inbox}", json={"name": "new"})
    entries = (await platform.call("GET", f"/v1/audit?subject={inbox}")).json["items"]
    assert [entry["action"] for entry in entries] == ["inbox.change", "inbox.create"]
    change = entries[0]
    assert (change["before"]["name"], change["after"]["name"]) == ("old", "new")
    assert change["actor_kind"] == "key"
    assert change["actor"].startswith("key_")


async def test_entries_are_filtered_and_paged(platform: Platform) -> None:
    for number in range(5):
        await platform.call("POST", "/v1/lists", json={"name": f"list {number}"})
    await platform.call("POST", "/v1/inboxes", json={})
    for query, count in (
        ("action=list", 5),
        ("action=list.create", 5),
        ("action=lis", 0),
        ("action=inbox.create", 1),
        ("actor=nobody", 0),
        ("until=2020-01-01T00:00:00Z", 0),
        ("since=2020-01-01T00:00:00Z&action=list", 5),
        ("since=1000-01-01T00:00:00Z&action=list", 5),
    ):
        found = await platform.call("GET", f"/v1/audit?{query}")
        assert len(found.json["items"]) == count, query
    names, cursor = [], ""
    while True:
        page = (await platform.call("GET", f"/v1/audit?action=list&limit=2{cursor}")).json
        names += [entry["after"]["name"] for entry in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert names == [f"list {number}" for number in (4, 3, 2, 1, 0)]


async def test_an_accepted_email_is_an_entry_among_the_others(platform: Platform) -> None:
    email = {"from": "a@example.org", "to": ["b@example.org"], "subject": "s", "text": "t"}
    sent = []
    for number in range(3):
        await platform.call("POST", "/v1/lists", json={"name": f"list {number}"})
        reply = await platform.call("POST", "/v1/emails", json=email)
        sent.append(reply.json["id"])
    everything = (await platform.call("GET", "/v1/audit?limit=6")).json["items"]
    assert [entry["action"] for entry in everything] == ["email.send", "list.create"] * 3
    by_pages, cursor = [], ""
    for _ in range(3):
        page = (await platform.call("GET", f"/v1/audit?limit=2{cursor}")).json
        by_pages += page["items"]
        cursor = f"&cursor={page['next_cursor']}"
    assert by_pages == everything
    newest = everything[0]
    assert (newest["subject"], newest["before"]) == (sent[2], None)
    assert newest["after"] == {
        "from": "a@example.org",
        "subject": "s",
        "type": "transactional",
        "send_at": None,
    }
    assert (newest["actor_kind"], newest["actor"][:4]) == ("key", "key_")
    for query, count in (
        (f"subject={sent[1]}", 1),
        ("action=email", 3),
        ("action=email.send&limit=2", 2),
        ("action=email.cancel", 0),
        (f"actor={newest['actor']}", 6),
        ("actor=nobody", 0),
    ):
        found = await platform.call("GET", f"/v1/audit?{query}")
        assert len(found.json["items"]) == count, query


async def test_a_change_that_fails_leaves_neither_the_change_nor_the_row(
    platform: Platform,
) -> None:
    await platform.call("POST", "/v1/lists", json={"name": "same"})
    again = await platform.call("POST", "/v1/lists", json={"name": "same"})
    assert (again.status, again.json["field"]) == (409, "name")
    entries = await platform.call("GET", "/v1/audit?action=list")
    assert len(entries.json["items"]) == 1


async def test_a_change_and_the_answer_under_its_key_are_one_commit(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever dies between the two leaves both or neither, so no request runs a second time."""
    finish = Idempotency.finish

    async def only_in_a_transaction(*arguments: Any, **named: Any) -> bool:
        assert arguments[5] is not None, "the change has committed without its answer"
        return await finish(*arguments, **named)

    monkeypatch.setattr(Idempotency, "finish", only_in_a_transaction)
    things = await make_things(platform, platform.workspace_id, platform.key, "otter")
    routes = [
        route
        for route in ROUTES
        if route.takes_idempotency_key and route.idempotency == "answer" and route.status == 201
    ]
    assert len(routes) >= 7
    for route in routes:
        path = things.path_of(route)
        body = things.body_of(route) if route.body is not None else None
        headers = {"Idempotency-Key": route.operation}
        first, second = [
            await platform.call("POST", path, json=body, headers=headers) for _ in "ab"
        ]
        assert (first.status, second.status) == (201, 201), route.operation
        assert first.body == second.body
        assert second.headers["idempotency-replayed"] == "true"


async def test_a_request_whose_claim_ran_out_and_went_to_another_changes_nothing(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"Idempotency-Key": "slow"}
    create = platform.app.lists.create

    async def create_slowly(*arguments: Any, **named: Any) -> Any:
        """While this one is at it, its claim runs out and the same request, sent again, is done."""
        monkeypatch.setattr(platform.app.lists, "create", create)
        await platform.app.database.execute(
            Query("UPDATE idempotency_key SET expires_at = now() - interval '1 second'")
        )
        again = await platform.call("POST", "/v1/lists", json={"name": "x"}, headers=headers)
        assert again.status == 201
        return await create(arguments[0], "y", **named)

    monkeypatch.setattr(platform.app.lists, "create", create_slowly)
    slow = await platform.call("POST", "/v1/lists", json={"name": "x"}, headers=headers)
    assert (slow.status, slow.json["code"]) == (409, "idempotency_key_in_progress")
    lists = (await platform.call("GET", "/v1/lists")).json["items"]
    assert [one["name"] for one in lists] == ["x"]


async def test_a_repeated_change_is_done_once_and_audited_once(platform: Platform) -> None:
    headers = {"Idempotency-Key": "make-it"}
    replies = await asyncio.gather(
        *(platform.call("POST", "/v1/lists", json={"name": "x"}, headers=headers) for _ in "abcdef")
    )
    good = [reply for reply in replies if reply.status == 201]
    assert good
    assert len({reply.body for reply in good}) == 1
    codes = {reply.json["code"] for reply in replies if reply.status != 201}
    assert codes <= {"idempotency_key_in_progress"}
    later = await platform.call("POST", "/v1/lists", json={"name": "x"}, headers=headers)
    assert (later.status, later.headers["idempotency-replayed"]) == (201, "true")
    entries = await platform.call("GET", "/v1/audit?action=list")
    assert len(entries.json["items"]) == 1


async def test_a_refused_request_does_not_use_its_key_up(platform: Platform) -> None:
    headers = {"Idempotency-Key": "try"}
    await platform.call("POST", "/v1/lists", json={"name": "taken"})
    refused = await platform.call("POST", "/v1/lists", json={"name": "taken"}, headers=headers)
    assert refused.status == 409
    better = await platform.call("POST", "/v1/lists", json={"name": "free"}, headers=headers)
    assert better.status == 201
