"""Every presence: who is there, by their own word, until they leave or fall silent."""

from collections.abc import AsyncIterator, Callable

import pytest

from mailyard.bus.adapters.memory_presence import MemoryPresence
from mailyard.bus.adapters.postgres_presence import PostgresPresence
from mailyard.bus.presence import Crowd, Here, Presence
from mailyard.core.clock import SystemClock
from mailyard.core.ids import uuid7
from mailyard.storage.database import Database

Make = Callable[[float], Presence]


@pytest.fixture(params=["memory", "postgres"])
async def make(request: pytest.FixtureRequest, database: Database) -> AsyncIterator[Make]:
    """Makes a presence in which whoever is silent for so many seconds is not there."""
    if request.param == "memory":
        one = MemoryPresence(clock=SystemClock())
        yield lambda here_s: one if here_s else MemoryPresence(clock=SystemClock(), here_s=here_s)
    else:
        yield lambda here_s: PostgresPresence(database=database, here_s=here_s)


def here(role: str, **live: int) -> Here:
    return Here(uuid7(), role, "host", 4711, live, '{"memory_bytes": 1}')


async def test_who_beats_is_there_until_he_leaves(make: Make) -> None:
    presence = make(60.0)
    worker, api = here("worker"), here("api", stream=2)
    assert [one.id for one in await presence.beat(worker)] == [worker.id]
    assert {one.id for one in await presence.beat(api)} == {worker.id, api.id}
    [found] = [one for one in await presence.who() if one.id == api.id]
    assert (found.role, found.host, found.pid, found.live) == ("api", "host", 4711, {"stream": 2})
    await presence.leave(worker.id)
    await presence.leave(worker.id)
    assert [one.id for one in await presence.who()] == [api.id]


async def test_a_beat_says_how_it_is_now(make: Make) -> None:
    presence = make(60.0)
    first = here("api", stream=2)
    await presence.beat(first)
    again = Here(first.id, first.role, first.host, first.pid, {"socket": 1}, first.stats)
    await presence.beat(again)
    assert [one.live for one in await presence.who()] == [{"socket": 1}]


async def test_who_is_silent_is_not_there(make: Make) -> None:
    presence = make(0.0)
    assert await presence.beat(here("worker")) == []
    assert await presence.who() == []


def test_a_crowd_knows_the_place_of_each_in_its_role() -> None:
    crowd = Crowd()
    first, second, api = here("worker"), here("worker"), here("api")
    assert (crowd.processes(), crowd.place(first.id)) == (1, (0, 1))
    crowd.note([second, api, first])
    assert crowd.processes() == 3
    assert [crowd.place(one.id) for one in (first, second, api)] == [(0, 2), (1, 2), (0, 1)]
    assert crowd.place(uuid7()) == (0, 3)
