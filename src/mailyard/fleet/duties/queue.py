"""The queue's upkeep: jobs of dead workers back in line, and its depths told to the pages."""

from mailyard.bus.live import LiveEvent, LiveEvents
from mailyard.fleet.duty import Duty
from mailyard.queue.engine import Engine
from mailyard.queue.job import LANES, Depth
from mailyard.queue.schedule import Scheduler
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_SQL = load("process")
RESCUE_EVERY_S = 2.0  # with a lease of 20 s, a dead worker's jobs run again within 30 s
TELL_EVERY_S = 2.0
FIRE_EVERY_S = 1.0


def rescue(engine: Engine) -> Duty:
    """Leases that ran out: back in line, or buried when the job has killed too many workers.

    Those buried so get their second chances here too.
    """

    async def do() -> bool:
        return await engine.rescue() > 0

    return Duty("rescue-jobs", RESCUE_EVERY_S, do)


def fire(scheduler: Scheduler) -> Duty:
    """Jobs by the clock: what is due goes into its queue, once a tick whoever fires."""

    async def do() -> bool:
        return await scheduler.fire() > 0

    return Duty("fire-schedules", FIRE_EVERY_S, do)


def tell_depths(database: Database, engine: Engine, live: LiveEvents) -> Duty:
    """A `queue.depth` event for the installation's first workspace, when a depth has changed.

    Queues serve all workspaces; what waits in them is the operator's to know.
    """
    told: list[Depth] = []

    async def do() -> bool:
        depths = await engine.depth(LANES)
        if [_counts(depth) for depth in depths] == [_counts(depth) for depth in told]:
            return False
        item = {"queues": [_item(depth) for depth in depths]}
        rows = await database.fetch(_SQL.first_workspace)
        await live.publish([LiveEvent(row["id"], "queue.depth", item) for row in rows])
        told[:] = depths
        return False

    return Duty("tell-depths", TELL_EVERY_S, do)


def _counts(depth: Depth) -> tuple[str, int, int, int, int]:
    return (depth.queue, depth.ready, depth.scheduled, depth.leased, depth.dead)


def _item(depth: Depth) -> dict[str, object]:
    return {
        "queue": depth.queue,
        "ready": depth.ready,
        "scheduled": depth.scheduled,
        "leased": depth.leased,
        "dead": depth.dead,
        "oldest_age_s": round(depth.oldest_age_s, 1),
    }
