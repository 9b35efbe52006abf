"""Features that come gradually: by hash, the same everywhere, more and more, and back at once."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from api_platform import Platform, start

from mailyard.access.authenticate import SESSION_COOKIE
from mailyard.access.feature import PERSON_LIMIT, Feature, Features, Rollout
from mailyard.bus.adapters.memory import MemoryBus
from mailyard.core.clock import ManualClock
from mailyard.core.errors import InvalidInput, NotFound
from mailyard.core.ids import uuid7
from mailyard.storage.database import Database


@pytest.fixture
async def platform(database: Database) -> AsyncIterator[Platform]:
    platform = await start(database)
    yield platform
    await platform.close()


def test_more_and_more_workspaces_have_it_and_none_loses_it() -> None:
    feature, other = Feature("one", "", 0), Feature("other", "", 0)
    workspaces = [uuid7() for _ in range(4_000)]
    reached = {
        percent: {one for one in workspaces if Rollout(feature, percent, None).reaches(one)}
        for percent in (0, 25, 50, 100)
    }
    assert reached[0] == set() and reached[100] == set(workspaces)
    assert reached[25] < reached[50]
    assert 0.22 < len(reached[25]) / len(workspaces) < 0.28
    assert 0.47 < len(reached[50]) / len(workspaces) < 0.53
    others = {one for one in workspaces if Rollout(other, 25, None).reaches(one)}
    assert len(others & reached[25]) < len(others) / 2, "each begins with others"


async def test_every_process_goes_by_a_change_at_once(database: Database) -> None:
    bus, clock = MemoryBus(), ManualClock()
    here, there = (Features(database=database, bus=bus, clock=clock) for _ in range(2))
    workspace = uuid7()
    assert await here.on(PERSON_LIMIT, workspace) and await there.on(PERSON_LIMIT, workspace)
    async with database.transaction() as tx:
        before = await here.roll_out("person-limit", 0, tx)
    assert before.percent == 100
    here.announce()
    assert not await here.on(PERSON_LIMIT, workspace)
    assert not await there.on(PERSON_LIMIT, workspace)


async def test_who_heard_nothing_looks_by_himself(database: Database) -> None:
    clock = ManualClock()
    here, deaf = (Features(database=database, bus=MemoryBus(), clock=clock) for _ in range(2))
    workspace = uuid7()
    assert await deaf.on(PERSON_LIMIT, workspace)
    async with database.transaction() as tx:
        await here.roll_out("person-limit", 0, tx)
    here.announce()
    assert await deaf.on(PERSON_LIMIT, workspace)
    clock.advance(6)
    assert not await deaf.on(PERSON_LIMIT, workspace)


async def test_what_is_no_feature_and_no_stage_is_refused(database: Database) -> None:
    features = Features(database=database, bus=MemoryBus(), clock=ManualClock())
    async with database.transaction() as tx:
        with pytest.raises(NotFound):
            await features.roll_out("nobody", 50, tx)
        with pytest.raises(InvalidInput):
            await features.roll_out("person-limit", 33, tx)


async def test_it_is_changed_shown_and_in_the_audit_log(platform: Platform) -> None:
    changed = await platform.call("PATCH", "/v1/features/person-limit", json={"percent": 0})
    assert changed.json == {"name": "person-limit", "percent": 0}
    [feature] = (await platform.call("GET", "/v1/features")).json["items"]
    assert (feature["percent"], feature["having"], feature["counted"]) == (0, 0, 1)
    assert feature["changed_at"] is not None
    newest = (await platform.app.audit.list(platform.workspace_id))[0]
    assert (newest.action, newest.subject) == ("feature.roll_out", "person-limit")
    assert (newest.before, newest.after) == ({"percent": 100}, {"percent": 0})


async def test_people_are_limited_where_the_feature_has_come(platform: Platform) -> None:
    """The first feature: requests of who is signed in count, those of keys do not."""
    platform.asgi.reload(replace(platform.app.settings, user_limit="general"))
    session = await platform.app.sessions.start(
        platform.first.user_id, platform.workspace_id, "a browser"
    )
    cookie = {"cookie": f"{SESSION_COOKIE}={session.token}"}

    async def statuses(count: int, **how: Any) -> list[int]:
        replies = [await platform.call("GET", "/v1/inboxes", **how) for _ in range(count)]
        return [reply.status for reply in replies]

    assert set(await statuses(200, key=None, headers=cookie)) == {200}
    refused = await platform.call("GET", "/v1/inboxes", key=None, headers=cookie)
    assert (refused.status, refused.json["code"]) == (429, "rate_limited")
    assert int(refused.headers["retry-after"]) >= 1
    assert set(await statuses(5)) == {200}
    await platform.call("PATCH", "/v1/features/person-limit", json={"percent": 0})
    assert set(await statuses(3, key=None, headers=cookie)) == {200}
