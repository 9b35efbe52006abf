"""Event streams: everything once, in order, across pauses; nobody harms a neighbour."""

import asyncio
import json
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from asgi_client import Client, authenticate, present
from mail_platform import MailPlatform, mail_platform

from mailyard.bus.live import Cursor, LiveEvent, LiveEvents, StoredEvent
from mailyard.core.errors import Unavailable
from mailyard.core.ids import uuid7
from mailyard.core.limits import LIVE_BUFFER_BYTES
from mailyard.storage.database import Database
from mailyard.web.live import stream, tail
from mailyard.web.live.app import Live, build_live, is_live


@pytest.fixture
async def platform(database: Database) -> AsyncIterator[MailPlatform]:
    async with mail_platform(database) as platform:
        yield platform


@pytest.fixture
async def app(platform: MailPlatform) -> AsyncIterator[Live]:
    app = build_live(
        live=platform.live,
        messages=platform.messages,
        authenticate=authenticate,
        present=present,
        connections=20,
    )
    await app.start()
    yield app
    await app.drain()


def numbers(events: list[dict[str, str]]) -> list[int]:
    return [json.loads(event["data"])["n"] for event in events]


async def publish(
    platform: MailPlatform, workspace_id: UUID, *wanted: int, kind: str = "queue.depth"
) -> None:
    await platform.live.publish([LiveEvent(workspace_id, kind, {"n": n}) for n in wanted])


async def test_a_listener_hears_its_workspace_and_no_other(
    platform: MailPlatform, app: Live, workspace_id: UUID
) -> None:
    client = Client(app, workspace_id)
    await client.opened()
    await publish(platform, uuid7(), 99)
    await publish(platform, workspace_id, 1, 2)
    assert numbers(await client.until(2)) == [1, 2]
    assert client.status == 200
    assert client.answer_headers[b"content-type"].startswith(b"text/event-stream")
    assert client.events()[0]["event"] == "queue.depth"


async def test_kinds_select(platform: MailPlatform, app: Live, workspace_id: UUID) -> None:
    client = Client(app, workspace_id, query="kinds=demo.progress")
    await client.opened()
    await publish(platform, workspace_id, 1)
    await publish(platform, workspace_id, 2, kind="demo.progress")
    assert numbers(await client.until(1)) == [2]


async def test_a_listener_that_comes_back_has_missed_nothing_and_hears_nothing_twice(
    platform: MailPlatform, app: Live, workspace_id: UUID
) -> None:
    first = Client(app, workspace_id)
    await first.opened()
    await publish(platform, workspace_id, 1, 2, 3)
    heard = await first.until(3)
    first.hang_up()
    await first.task
    await publish(platform, workspace_id, 4, 5)

    again = Client(app, workspace_id, headers=[(b"last-event-id", heard[1]["id"].encode())])
    assert numbers(await again.until(3)) == [3, 4, 5]
    await publish(platform, workspace_id, 6)
    assert numbers(await again.until(4)) == [3, 4, 5, 6]


async def test_the_first_id_lets_a_listener_come_back_who_heard_nothing(
    platform: MailPlatform, app: Live, workspace_id: UUID
) -> None:
    first = Client(app, workspace_id)
    await first.opened()
    first.hang_up()
    await first.task
    await publish(platform, workspace_id, 1)
    again = Client(app, workspace_id, query=f"after={first.last_id()}")
    assert numbers(await again.until(1)) == [1]


async def test_resuming_while_events_pour_in_leaves_no_gap_and_no_repeat(
    platform: MailPlatform, app: Live, workspace_id: UUID
) -> None:
    opening = Client(app, workspace_id)
    await opening.opened()
    start = opening.last_id()

    async def pour() -> None:
        for n in range(0, 600, 3):
            await publish(platform, workspace_id, n, n + 1, n + 2)

    pouring = asyncio.create_task(pour())
    clients = []
    for _ in range(6):
        clients.append(Client(app, workspace_id, query=f"after={start}"))
        await asyncio.sleep(0.02)
    await pouring
    for client in clients:
        assert numbers(await client.until(600)) == list(range(600))


async def test_a_transaction_that_commits_late_is_told_late_and_not_lost(
    platform: MailPlatform, app: Live, workspace_id: UUID
) -> None:
    client = Client(app, workspace_id)
    await client.opened()
    async with platform.database.transaction() as tx:
        await platform.live.publish([LiveEvent(workspace_id, "queue.depth", {"n": 1})], tx)
        await publish(platform, workspace_id, 2)
        await asyncio.sleep(0.1)
    platform.live.announced()
    assert numbers(await client.until(2)) == [1, 2]


async def test_a_listener_that_does_not_read_is_cut_and_its_neighbour_is_not(
    platform: MailPlatform, app: Live, workspace_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_PATIENCE_S", 0.0)
    slow, quick = Client(app, workspace_id), Client(app, workspace_id)
    await slow.opened()
    await quick.opened()
    await publish(platform, workspace_id, 0)
    await slow.until(1)
    slow.reading.clear()
    filler = "x" * 10_000
    count = 2 * LIVE_BUFFER_BYTES // 10_000 + 20
    for n in range(1, count):
        await platform.live.publish(
            [LiveEvent(workspace_id, "queue.depth", {"n": n, "filler": filler})]
        )
        assert numbers(await quick.until(n + 1)) == list(range(n + 1))
    await asyncio.wait_for(slow.task, 60)  # cut although it never reads again
    slow.reading.set()
    heard = numbers(slow.events())
    assert heard == list(range(len(heard)))
    assert len(heard) < count

    again = Client(app, workspace_id, query=f"after={slow.last_id()}")
    rest = numbers(await again.until(count - len(heard)))
    assert heard + rest == list(range(count))


async def test_a_burst_that_no_buffer_holds_cuts_nobody_who_reads(
    platform: MailPlatform, app: Live, workspace_id: UUID
) -> None:
    client, late = Client(app, workspace_id), Client(app, workspace_id)
    await client.opened()
    await late.opened()
    late.reading.clear()
    filler = "x" * 1_000
    count = 3 * LIVE_BUFFER_BYTES // 1_000
    for first in range(0, count, 100):  # each a row of its own, all of them settled at once
        numbered = range(first, min(first + 100, count))
        await platform.live.publish(
            [LiveEvent(workspace_id, "queue.depth", {"n": n, "filler": filler}) for n in numbered]
        )
    assert numbers(await client.until(count)) == list(range(count))
    late.reading.set()
    assert numbers(await late.until(count)) == list(range(count))
    assert not client.task.done()
    assert not late.task.done()
    await publish(platform, workspace_id, count)
    assert numbers(await late.until(count + 1))[-1] == count


async def test_a_cursor_from_before_what_is_kept_is_told_of_the_gap(
    platform: MailPlatform, app: Live, workspace_id: UUID
) -> None:
    witness = Client(app, workspace_id)
    await witness.opened()
    await publish(platform, workspace_id, 1)
    await witness.until(1)
    client = Client(app, workspace_id, query="after=1-1-0")
    events = await client.until(2)
    assert events[0]["event"] == "stream.gap"
    assert json.loads(events[1]["data"]) == {"n": 1}
    everything = Client(app, workspace_id, query="after=0-0-0")
    assert numbers(await everything.until(1)) == [1]


async def test_past_the_ceiling_the_answer_is_503_with_retry_after_and_a_place_comes_free(
    app: Live, workspace_id: UUID
) -> None:
    clients = [Client(app, workspace_id) for _ in range(20)]
    for client in clients:
        await client.opened()
    refused = Client(app, workspace_id)
    await refused.task
    assert refused.status == 503
    assert int(refused.answer_headers[b"retry-after"]) >= 1
    assert json.loads(refused.body)["code"] == "too_many_live_connections"
    clients[0].hang_up()
    await clients[0].task
    accepted = Client(app, workspace_id)
    await accepted.opened()
    assert accepted.status == 200


async def test_draining_ends_every_stream_at_once(app: Live, workspace_id: UUID) -> None:
    clients = [Client(app, workspace_id) for _ in range(5)]
    for client in clients:
        await client.opened()
    await app.drain()
    await asyncio.wait_for(asyncio.gather(*(client.task for client in clients)), 5)
    assert all(client.finished for client in clients)
    late = Client(app, workspace_id)
    await late.task
    assert late.status == 503


async def test_a_heartbeat_is_a_comment(platform: MailPlatform, workspace_id: UUID) -> None:
    app = build_live(
        live=platform.live,
        messages=platform.messages,
        authenticate=authenticate,
        present=present,
        heartbeat_s=0.01,
    )
    await app.start()
    client = Client(app, workspace_id)
    await client.until_says(b"\n:\n\n")
    assert client.events() == []
    await app.drain()


class CountedReads(LiveEvents):
    """Notes how often the stream was read on."""

    reads = 0

    async def read_after(
        self, cursor: Cursor, limit: int = 1000, workspace_id: UUID | None = None
    ) -> list[StoredEvent]:
        self.reads += 1
        return await super().read_after(cursor, limit, workspace_id)


async def test_while_nobody_listens_nothing_is_read_and_who_comes_back_has_missed_nothing(
    platform: MailPlatform, workspace_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "_LINGER_S", 0.0)
    live = CountedReads(database=platform.database, bus=platform.bus)
    app = build_live(
        live=live, messages=platform.messages, authenticate=authenticate, present=present
    )
    await app.start()
    first = Client(app, workspace_id)
    await first.opened()
    await publish(platform, workspace_id, 1)
    heard = await first.until(1)
    first.hang_up()
    await first.task
    while await _still_reads(live):
        pass

    await publish(platform, workspace_id, 2, 3)
    assert not await _still_reads(live)
    again = Client(app, workspace_id, headers=[(b"last-event-id", heard[0]["id"].encode())])
    new = Client(app, workspace_id)
    await new.opened()
    await again.until(2)
    await publish(platform, workspace_id, 4)
    assert numbers(await again.until(3)) == [2, 3, 4]
    assert numbers(await new.until(1)) == [4]
    await app.drain()


async def _still_reads(live: CountedReads) -> bool:
    before = live.reads
    await asyncio.sleep(1.2)  # a calm tail looks once a second
    return live.reads > before


async def test_while_the_end_of_the_stream_is_not_to_be_found_a_listener_is_let_go(
    platform: MailPlatform, workspace_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Away(LiveEvents):
        async def newest(self) -> Cursor:
            raise Unavailable("PostgreSQL is away")

    monkeypatch.setattr(tail, "_END_KNOWN_S", 0.05)
    app = build_live(
        live=Away(database=platform.database, bus=platform.bus),
        messages=platform.messages,
        authenticate=authenticate,
        present=present,
    )
    await app.start()
    client = Client(app, workspace_id)
    await asyncio.wait_for(client.task, 10)
    assert client.finished
    assert app.open == 0
    await app.drain()


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("after=garbage", "after"),
        ("after=1-2-99999999999999999999", "after"),
        ("kinds=Not%20A%20Kind", "kinds"),
        ("kinds=a&kinds=b", "kinds"),
        ("other=1", "other"),
        ("after=%00", "after"),
    ],
)
async def test_a_wrong_question_is_refused_by_name(
    app: Live, workspace_id: UUID, query: str, field: str
) -> None:
    client = Client(app, workspace_id, query=query)
    await client.task
    assert client.status == 422
    assert json.loads(client.body)["field"] == field


async def test_strangers_and_other_methods_are_refused(app: Live, workspace_id: UUID) -> None:
    stranger = Client(app, None)
    await stranger.task
    assert stranger.status == 401
    post = Client(app, workspace_id, method="POST")
    await post.task
    assert post.status == 405
    assert app.open == 0


def test_live_paths_are_known_by_their_form() -> None:
    assert is_live({"path": "/v1/events"})
    assert is_live({"path": "/v1/inboxes/ibx_x/wait"})
    assert not is_live({"path": "/v1/inboxes"})
    assert not is_live({"path": "/v1/inboxes/a/b/wait"})
