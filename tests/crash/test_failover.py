"""A campaign through two providers, real SMTP servers, of which one is killed and comes back.

Each keeps a ledger of what it has taken, which is compared with what the platform says of every
recipient. The short form runs in `make test`; the long one (MAILYARD_TEST_LONG, `make crash`) has
100,000 recipients and the options of production.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from provider_world import Sink, Ways
from sending_world import World

from mailyard.campaigns.states import State
from mailyard.core.backoff import Backoff
from mailyard.core.clock import SystemClock
from mailyard.sending.route.breaker import BreakerOptions
from mailyard.sending.routing import StoredLeg
from mailyard.storage.database import Database

LONG = bool(os.environ.get("MAILYARD_TEST_LONG"))
RECIPIENTS = 100_000 if LONG else 3_000
CONNECTIONS = 10
END = b"the end of the mail"
OPTIONS = BreakerOptions(
    open_for=BreakerOptions().open_for if LONG else Backoff(first_s=0.4, cap_s=0.4)
)
PLACES = 100

pytestmark = pytest.mark.skipif(
    shutil.which("smtp-sink") is None and os.environ.get("CI") != "true",
    reason="smtp-sink comes with Postfix",
)


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    world = World(database, SystemClock())
    await world.open()
    yield world
    await world.bus.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where a server that runs as nobody may write."""
    with tempfile.TemporaryDirectory(prefix="mailyard-failover-") as name:
        Path(name).chmod(0o777)
        yield Path(name)


async def when(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.01)


async def test_a_campaign_outlives_a_provider_and_nobody_is_missed_or_written_to_twice(
    world: World, folder: Path
) -> None:
    sinks = {name: Sink(folder, name) for name in ("one", "two")}
    ways = Ways(world, options=OPTIONS)
    addresses = set(await world.add_contacts(RECIPIENTS))
    template = await world.template(text="Hello {{ name }}\n" + END.decode(), html="")
    campaign_id = await world.campaign(template)
    try:
        for name, sink in sinks.items():
            await sink.start()
            await ways.add_sink(name, sink.port, connections=CONNECTIONS)
        await ways.route(StoredLeg("one", 1), StoredLeg("two", 1))
        async with ways.worker(PLACES):
            await world.campaigns.start(world.workspace_id, campaign_id)
            part = RECIPIENTS // 10 * 500  # bytes of a ledger, about
            await when(lambda: sinks["one"].count() > part)
            sinks["one"].kill()
            two = sinks["two"].count()
            await when(lambda: sinks["two"].count() > two + part)
            await sinks["one"].start()
            one = sinks["one"].count()
            await when(lambda: sinks["one"].count() > one + part // 10)  # it is back by itself
            progress = await world.until(campaign_id, State.FINISHED, timeout_s=600.0)
    finally:
        for sink in sinks.values():
            sink.kill()
    ledgers = {name: sink.ledger(END) for name, sink in sinks.items()}
    taken = ledgers["one"] + ledgers["two"]
    rows = await world.database.fetch(
        "SELECT id, recipient, state::text, transport, attempts FROM delivery"
        " WHERE campaign_id = $1",
        campaign_id,
    )
    # Everybody has one row, and nobody two mails.
    assert {row["recipient"] for row in rows} == addresses and len(rows) == RECIPIENTS
    assert max(taken.values()) == 1
    # Whoever is called accepted lies in the ledger of the provider that the row names; who does not
    # is called unknown, and those are no more than were on their way when the server died.
    unknown = [row for row in rows if row["state"] == "unknown"]
    accepted = [row for row in rows if row["state"] == "accepted"]
    assert len(unknown) + len(accepted) == RECIPIENTS
    assert all(ledgers[row["transport"]][row["recipient"]] == 1 for row in accepted)
    assert {row["transport"] for row in unknown} <= {"one"} and len(unknown) <= PLACES
    assert addresses - set(taken) <= {row["recipient"] for row in unknown}
    assert progress.counts["unknown"] == len(unknown)
    assert progress.counts["accepted"] == len(accepted)
    await check_stories(world, {row["id"]: row for row in rows})
    events = await world.database.fetch("SELECT position, why FROM provider_event ORDER BY id")
    positions = [event["position"] for event in events]
    assert positions[0] == "open" and positions[-1] == "closed" and "half_open" in positions
    print(
        f"{RECIPIENTS} recipients: {len(accepted)} accepted, one {sum(ledgers['one'].values())}, "
        f"two {sum(ledgers['two'].values())}, unknown {len(unknown)} "
        f"of whom {sum(taken[row['recipient']] for row in unknown)} had it; {positions}"
    )


async def check_stories(world: World, rows: dict[object, object]) -> None:
    """Who was refused by the dead provider and taken by the other has a story that says so."""
    events = await world.database.fetch(
        "SELECT delivery_id, state::text, attempt, transport, detail FROM delivery_event"
        " ORDER BY delivery_id, seq"
    )
    passed = [event for event in events if event["state"] == "deferred"]
    assert passed, "somebody was passed on"
    for event in passed:
        row = rows[event["delivery_id"]]
        assert event["transport"] == "one" and event["attempt"] == 1, dict(event)
        assert row["transport"] in ("one", "two")  # type: ignore[index]
