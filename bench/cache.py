"""How often the cache has what is asked for, under a recorded load.

The load is what test suites and people make of an API in a minute, in this order and these shares,
drawn once from a fixed seed: inboxes are read and their mail is listed again and again while some
wait for it, a few get mail or are changed, keys are asked for by every request. Two processes take
turns, so that changes of the one are heard by the other. Rates are of the nearest layer.
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import uvloop
from measure import FULL, Row, note, report
from platform_parts import Parts, product_postgres

from mailyard.access.audit import Actor, Audit
from mailyard.access.key import ApiKeys
from mailyard.access.workspace import Workspaces
from mailyard.bus.live import MESSAGE_RECEIVED
from mailyard.cache.adapters.postgres import PostgresCache
from mailyard.cache.kind import STATIC
from mailyard.cache.layered import LayeredCache
from mailyard.core import ids
from mailyard.mailbox.inbox import Inboxes, NewInbox
from mailyard.mailbox.message import Messages
from mailyard.observe.metrics import cache_lookups

REQUESTS = 60_000 if FULL else 12_000
INBOXES = 150
GOALS = {"inbox": 0.95, "list": 0.80, "user": 0.90, "key": 0.90, "static": 0.99}


class Process:
    """What an API process reads through its cache."""

    def __init__(self, parts: Parts) -> None:
        database = parts.database
        self.cache = LayeredCache(
            database=database,
            shared=PostgresCache(database=database),
            bus=parts.bus,
            followed={MESSAGE_RECEIVED: "inbox_id"},
        )
        audit = Audit(database=database)
        self.inboxes = Inboxes(database=database, domains=("bench.test",), cache=self.cache)
        self.messages = Messages(database=database, inboxes=self.inboxes, cache=self.cache)
        self.keys = ApiKeys(database=database, audit=audit, cache=self.cache)
        self.workspaces = Workspaces(database=database, audit=audit, cache=self.cache)


async def run(url: str) -> list[Row]:
    parts = Parts(url, 8)
    await parts.database.open()
    await parts.bus.open()
    processes = [Process(parts), Process(parts)]
    first = processes[0]
    made = await first.workspaces.create("bench", actor_kind="system", actor_name="bench")
    actor = Actor("system", "bench", made.id)
    keys = [await first.keys.create(made.id, f"k{n}", ["admin"], actor=actor) for n in range(10)]
    inboxes = await first.inboxes.create(made.id, [NewInbox() for _ in range(INBOXES)])
    random = Random(3)

    async def static() -> str:
        return "the same for ever"

    async def one() -> None:
        process = random.choice(processes)
        inbox = inboxes[min(int(random.expovariate(1 / 25)), INBOXES - 1)]
        await process.keys.authenticate(random.choice(keys).secret)
        dice = random.random()
        if dice < 0.50:
            await process.messages.list(made.id, inbox.id, limit=50)
        elif dice < 0.80:
            await process.inboxes.get(made.id, inbox.id)
        elif dice < 0.88:
            await process.workspaces.get(made.id)
        elif dice < 0.975:
            await process.cache.get_or_make(STATIC, made.id, f"document{int(dice * 50)}", static)
        elif dice < 0.995:  # mail arrives
            item = {"inbox_id": ids.type_id(ids.INBOX, inbox.id)}
            await parts.live.publish_runs([(made.id, MESSAGE_RECEIVED, [item])])
        elif dice < 0.9995:
            await process.inboxes.relabel(made.id, inbox.id, name=f"{dice}")
        else:
            await process.workspaces.change(made.id, name=f"w{dice}", actor=actor)

    began = time.perf_counter()
    for _ in range(REQUESTS // 20):
        await asyncio.gather(*(one() for _ in range(20)))
    seconds = time.perf_counter() - began
    rows = []
    counts = cache_lookups()
    for kind, goal in GOALS.items():
        hits = counts.get(f"{kind} process hit", 0)
        looks = hits + counts.get(f"{kind} process miss", 0)
        note(f"  {kind}: {hits:,} of {looks:,}")
        rows.append(Row(f"cache, hits of {kind}", 100 * hits / looks, "%", 100 * goal))
    note(f"  {REQUESTS / seconds:,.0f} requests/s")
    for process in processes:
        await process.cache.close()
    await parts.bus.close()
    await parts.database.close()
    return rows


def main() -> int:
    with (
        tempfile.TemporaryDirectory(prefix="mailyard-bench-") as folder,
        product_postgres(Path(folder)) as server,
    ):
        return report(uvloop.run(run(server.url)))


if __name__ == "__main__":
    sys.exit(main())
