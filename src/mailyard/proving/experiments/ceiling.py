"""A database at its connection ceiling while more mail comes than one worker can do.

Somebody else holds connections until more than 80 % of the budget is in use: more workers are
wanted and none is started, and the row says why. Then the connections are free again: workers are
added, as many as the budget has room for, and the row says that too. Which thresholds: the packed
policy's.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mailyard.proving.experiments.chart import Line, Panel
from mailyard.proving.experiments.ledger import Verdict
from mailyard.proving.experiments.pace import Pace, drive
from mailyard.proving.experiments.series import Check, Decided, Outcome
from mailyard.proving.experiments.smtp_load import SmtpLoad
from mailyard.proving.experiments.spike import ONE_WORKER, filed_per_s, of_the_lane
from mailyard.proving.experiments.stand import Stand, stand
from mailyard.storage.database import Database, DatabaseAddress
from mailyard.storage.queries import load as queries

_SQL = queries("monitoring")
_POOL = 6
_EACH = _POOL + 2  # the direct ones
_OTHERS = 3  # listener, API, scheduler
_HELD_SHARE = 0.83
_PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Times in seconds; `times`: the load, of what one worker can do; `budget`: of connections."""

    held_s: float = 45.0
    after_s: float = 25.0
    share: float = 0.02
    times: float = 4.0
    budget: int = 48

    @property
    def room(self) -> int:
        """For so many workers."""
        return self.budget // _EACH - _OTHERS


SHORT = Plan(held_s=32.0, after_s=8.0)


async def run(folder: Path, plan: Plan, say: Callable[[str], None]) -> Outcome:
    """The whole of it. Raises Unavailable when the platform does not start."""
    settings = {
        **ONE_WORKER,
        "MAILYARD_DATABASE_BUDGET": str(plan.budget),
        "MAILYARD_DATABASE_CONNECTIONS": str(_POOL),
    }
    async with stand(
        folder, policy=of_the_lane(6), settings=settings, shares={"worker": plan.share}, say=say
    ) as here:
        return await _ceiling(here, plan, say)


async def _ceiling(here: Stand, plan: Plan, say: Callable[[str], None]) -> Outcome:
    load = SmtpLoad(here.address, here.ledger, 40)
    one = await filed_per_s(here, load)
    watching = asyncio.create_task(_watch(here, plan.budget))
    others = await _hold(here, plan.budget)
    begun_s = here.now_s
    say(f"connections are held by others; {plan.times * one:.0f} mails a second come now")
    pace = Pace(
        lambda _: plan.times * one, plan.held_s + _PATIENCE_S + plan.after_s,
        here.ledger.next_number,
    )  # fmt: skip
    running = asyncio.create_task(drive(pace, load.run))
    try:
        await asyncio.sleep(plan.held_s)
        await here.told("blocked", begun_s, _PATIENCE_S)
    finally:
        await others.close()
    freed_s = here.now_s
    say("they have let go")
    await here.until(lambda: here.count("worker") >= plan.room, _PATIENCE_S)
    await asyncio.sleep(plan.after_s)
    pace.stop()
    await running
    decisions = [row for row in await here.decisions() if row.at_s >= begun_s]
    verdict = await here.judge()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    return _outcome(here, plan, one, (begun_s, freed_s), decisions, verdict)


async def _hold(here: Stand, budget: int) -> Database:
    """Connections of somebody else, so many that the share is reached."""
    facts = await here.database.fetchrow(_SQL.database_facts)
    assert facts is not None
    url = here.database.direct_url
    count = max(2, round(budget * _HELD_SHARE + 0.5) - int(facts["connections"]))
    others = Database(DatabaseAddress(url, url, connections=count))
    await others.open()
    taken = [await others.pool.acquire() for _ in range(count)]
    for connection in taken:
        await others.pool.release(connection)
    return others


async def _watch(here: Stand, budget: int) -> None:
    """How many connections there are, into the series."""
    used = [0.0]
    here.more = lambda: {"connections": used[0], "allowed": 0.8 * budget, "budget": float(budget)}
    while True:
        facts = await here.database.fetchrow(_SQL.database_facts)
        used[0] = float(facts["connections"]) if facts is not None else 0.0
        await asyncio.sleep(0.5)


def _outcome(
    here: Stand,
    plan: Plan,
    one: float,
    held: tuple[float, float],
    decisions: list[Decided],
    verdict: Verdict,
) -> Outcome:
    points = here.series.points
    during = [row for row in decisions if row.at_s < held[1]]
    after = [row for row in decisions if row.at_s >= held[1]]
    blocked = [row for row in during if row.kind == "blocked"]
    ups = [row for row in after if row.kind == "up"]
    full = [row for row in after if "budget of database connections has no room" in row.reason]
    most = max(value for _, value in points("workers"))
    checks = [
        Check(
            "above 80 % of the connections more is wanted, none is started, the row says why",
            blocked[0].reason if blocked else "no such row",
            bool(blocked)
            and "of the database's connections are in use" in blocked[0].reason
            and not any(row.kind == "up" for row in during),
        ),
        Check(
            "with the connections free again workers are added",
            ", ".join(f"{row.told}: {row.reason}" for row in ups) or "none",
            bool(ups),
        ),
        Check(
            f"never more than the budget of {plan.budget} connections allows at {_EACH} a process: "
            f"{plan.room} workers; the row says so",
            f"at most {most:.0f}; " + (full[0].reason if full else "no such row"),
            most == plan.room and bool(full),
        ),
        Check(
            "no mail lost, none twice",
            f"{verdict.promised:,} promised, lost {verdict.lost}, twice {verdict.twice}",
            verdict.clean and verdict.promised > 0,
        ),
    ]
    return Outcome(
        name="ceiling",
        title="A database at its connection ceiling",
        settings={
            "database_budget": plan.budget,
            "connections_each": _EACH,
            "one_worker_per_s": round(one, 1),
            "load_per_s": round(plan.times * one, 1),
            "share_of_a_core_each": plan.share,
        },
        figures={
            "connections_at_most": max((value for _, value in points("connections")), default=0.0),
            "workers_at_most": most,
            "promised": float(verdict.promised),
        },
        checks=checks,
        decisions=decisions,
        series=here.series,
        panels=[
            Panel(
                "connections to the database",
                [
                    Line("in use", points("connections")),
                    Line("80 %", points("allowed")),
                    Line("budget", points("budget")),
                ],
            ),
            Panel("jobs that wait or are at work", [Line("jobs", points("jobs"))]),
            Panel("workers on this machine", [Line("workers", points("workers"), stairs=True)]),
        ],
        bands=[(held[0], held[1], "others hold connections")],
    )
