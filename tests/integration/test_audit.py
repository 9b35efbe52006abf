"""The audit log: who, what, before, after; filtered; and kept answers of repeated requests."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from api_platform import Platform, start

from mailyard.storage.database import Database


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


async def test_a_change_that_fails_leaves_neither_the_change_nor_the_row(
    platform: Platform,
) -> None:
    await platform.call("POST", "/v1/lists", json={"name": "same"})
    again = await platform.call("POST", "/v1/lists", json={"name": "same"})
    assert (again.status, again.json["field"]) == (409, "name")
    entries = await platform.call("GET", "/v1/audit?action=list")
    assert len(entries.json["items"]) == 1


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
