"""Ten times the load: on `inbound-email` (every sender writes at once), and on the API.

One process begins. It is measured how much it can do; then a part of that comes for a while,
then ten times as much, for a minute, in an open loop. Nobody touches anything. The packed policy is
in force but for what goes down, where seconds stand in the place of a quarter of an hour.
"""

import asyncio
import re
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from mailyard.proving.experiments.chart import Line, Panel
from mailyard.proving.experiments.http_load import HttpLoad
from mailyard.proving.experiments.ledger import Verdict
from mailyard.proving.experiments.pace import Pace, drive
from mailyard.proving.experiments.series import Check, Decided, Outcome, recovered_s
from mailyard.proving.experiments.smtp_load import SmtpLoad
from mailyard.proving.experiments.stand import LOOK_S, QUIET_S, Stand, stand
from mailyard.queue.job import INBOUND_EMAIL

TIMES = 10.0
ONE_WORKER = {"MAILYARD_WORKER_PROCESSES": "1", "MAILYARD_WORKER_LANES": INBOUND_EMAIL}
RECOVER_S = 60.0
_NORMAL_S = {"worker": 2.0, "api": 0.5}  # the oldest work is younger, where all is well
_DOWN_S = 120.0  # longer nobody waits for the last step down
_CALM_S = 16.0  # the autoscaler looks back so far: what was measured before is no part of it
_SIGNAL = """
[[{group}.signal]]
metric = "{metric}"
up_above = {up:g}
up_for_s = {up_for_s:g}
"""
_DOWN = "down_below = {down:g}\ndown_for_s = {quiet_s:g}\n"


@dataclass(frozen=True, slots=True)
class Plan:
    """How long each part is, in seconds. `share`: of a core, of each process that is scaled.
    `before`: the load before the spike, of what one process can do."""

    before_s: float = 10.0
    spike_s: float = 60.0
    after_s: float = 25.0
    share: float = 0.03
    before: float = 0.2
    most: int = 6
    quiet_s: float = 15.0
    paragraphs: int = 40  # of each mail that comes in


SHORT = Plan(before_s=4.0, spike_s=45.0, after_s=14.0, quiet_s=8.0)
API = Plan(share=0.06)
API_SHORT = replace(SHORT, share=API.share)


@dataclass(slots=True)
class _Load:
    """What a load is to this page: how it runs, how much was taken, how old the oldest is
    that nobody has done yet."""

    run: Callable[[Pace], Awaitable[None]]
    taken: Callable[[], int]
    oldest_s: Callable[[], float]


class _Unfiled:
    """How old the oldest mail is that was promised and lies in no inbox yet: mails are filed about
    in the order in which they came, so it came when so many had been promised as lie there now."""

    def __init__(self, here: Stand) -> None:
        self._here = here
        self._came: deque[tuple[float, int]] = deque()
        self._oldest_s = 0.0

    def oldest_s(self) -> float:
        """As of the last look."""
        return self._oldest_s

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            promised, now_s = len(self._here.ledger.promised), self._here.now_s
            self._came.append((now_s, promised))
            there = await self._here.ledger.lies_there(self._here.client)
            while len(self._came) > 1 and self._came[1][1] <= there:
                self._came.popleft()
            behind = there < promised and self._came[0][1] <= there
            self._oldest_s = self._here.now_s - self._came[0][0] if behind else 0.0
            await asyncio.sleep(LOOK_S)


async def inbound(folder: Path, plan: Plan, say: Callable[[str], None]) -> Outcome:
    """Mail by SMTP; workers are scaled. Raises Unavailable when the platform does not start."""
    policy = (
        of_the_lane(plan.most)
        + _signal("worker", "depth", 100, 300, 10, plan.quiet_s)
        + _signal("worker", "oldest_s", 60, 0, 10, plan.quiet_s)
    )
    settings = {**ONE_WORKER, "MAILYARD_DATABASE_CONNECTIONS": "6"}
    async with stand(
        folder, policy=policy, settings=settings, shares={"worker": plan.share}, say=say
    ) as here:
        load = SmtpLoad(here.address, here.ledger, plan.paragraphs)
        one = await filed_per_s(here, load)
        unfiled = _Unfiled(here)
        wrapped = _Load(load.run, lambda: load.counts.accepted, unfiled.oldest_s)
        watching = asyncio.create_task(unfiled.watch())
        try:
            return await _spike(here, wrapped, plan, one, "worker", say)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def api(folder: Path, plan: Plan, say: Callable[[str], None]) -> Outcome:
    """`POST /v1/emails`; API processes are scaled. Raises Unavailable as `inbound` does."""
    policy = (
        f"[worker]\nremove = true\n[api]\nleast = 1\nmost = {plan.most}\ndown_cooldown_s = 6.0\n"
        f"cores = {plan.share}\n"
        + _signal("api", "cpu", 0.7, 300, 0.5, plan.quiet_s, each=True)
        + _signal("api", "p95_s", 1.0, 60, 0.5, plan.quiet_s)
        + 'needs = "busy"\nneeds_above = 0.5\n'
    )
    settings = {"MAILYARD_WORKER_PROCESSES": "1", "MAILYARD_DATABASE_CONNECTIONS": "6"}
    async with stand(
        folder, policy=policy, settings=settings, shares={"api": plan.share}, say=say
    ) as here:
        load = HttpLoad(here.address, here.ledger)
        one = await _answered_per_s(here)
        wrapped = _Load(load.run, lambda: load.counts.accepted, load.slowest)
        return await _spike(here, wrapped, plan, one, "api", say)


def of_the_lane(most: int) -> str:
    """Policy of workers that serve `inbound-email` alone; the API is left as it is."""
    return (
        f'[api]\nremove = true\n[worker]\nqueues = ["{INBOUND_EMAIL}"]\nleast = 1\n'
        f"most = {most}\ndown_cooldown_s = 6.0\n"
    )


def _signal(
    group: str,
    metric: str,
    up: float,
    up_for_s: float,
    down: float,
    quiet_s: float,
    *,
    each: bool = False,
) -> str:
    told = _SIGNAL.format(group=group, metric=metric, up=up, up_for_s=up_for_s)
    told += _DOWN.format(down=down, quiet_s=quiet_s)
    return told + ("each = true\n" if each else "")


async def filed_per_s(here: Stand, load: SmtpLoad, burst: int = 600) -> float:
    """Mails a second that one worker files when there are more than it can do."""
    began_s = here.now_s
    await drive(Pace(lambda _: 2_000.0, burst / 2_000.0), load.run)
    await here.settle()
    return burst / (here.now_s - began_s - QUIET_S)


async def _answered_per_s(here: Stand, seconds: float = 6.0) -> float:
    """Requests a second that one API process answers when there are always some that wait."""
    few = HttpLoad(here.address, here.ledger, clients=64)
    running = asyncio.create_task(drive(Pace(lambda _: 5_000.0, seconds), few.run, few.give_up))
    await asyncio.sleep(seconds / 2)
    before, began_s = few.counts.answered, here.now_s
    await asyncio.sleep(seconds / 2)
    one = (few.counts.answered - before) / (here.now_s - began_s)
    await running
    await here.settle()
    return max(one, 5.0)


async def _spike(
    here: Stand, load: _Load, plan: Plan, one: float, role: str, say: Callable[[str], None]
) -> Outcome:
    base = plan.before * one
    say(f"one process does {one:.0f} a second; {base:.0f} come soon")
    await asyncio.sleep(_CALM_S)
    first = here.ledger.next_number
    spike = (plan.before_s, plan.before_s + plan.spike_s)
    pace = Pace(
        lambda t: base * (TIMES if spike[0] <= t < spike[1] else 1.0),
        spike[1] + plan.after_s,
        first,
    )
    zero_s = here.now_s
    here.more = _watcher(here, pace, load)
    running = asyncio.create_task(drive(pace, load.run))
    await asyncio.sleep(plan.before_s)
    say(f"ten times as many come now, for {plan.spike_s:g} s")
    await asyncio.sleep(plan.spike_s)
    say("the spike is over")
    await running
    await here.until(lambda: here.count(role) == 1, _DOWN_S)
    decisions = await here.decisions()
    verdict = await here.judge()
    spike = (spike[0] + zero_s, spike[1] + zero_s)
    return _outcome(here, plan, one, role, spike, decisions, verdict)


def _needed(decided: Decided) -> int:
    """How many the work needs, by the decision's own words; 0 when it was about something else."""
    found = re.search(r"the work needs (\d+)", decided.reason)
    return int(found[1]) if found else 0


def _watcher(here: Stand, pace: Pace, load: _Load) -> Callable[[], dict[str, float]]:
    """What the load's own side adds to each row."""
    seen: list[float] = [here.now_s, 0.0, float(load.taken())]

    def more() -> dict[str, float]:
        now = [here.now_s, float(pace.handed), float(load.taken())]
        passed = max(0.05, now[0] - seen[0])
        told = {
            "offered_per_s": (now[1] - seen[1]) / passed,
            "taken_per_s": (now[2] - seen[2]) / passed,
            "not_taken": float(pace.handed - (load.taken() - base)),
            "oldest_work_s": load.oldest_s(),
        }
        seen[:] = now
        return told

    base = load.taken()
    return more


def _outcome(
    here: Stand,
    plan: Plan,
    one: float,
    role: str,
    spike: tuple[float, float],
    decisions: list[Decided],
    verdict: Verdict,
) -> Outcome:
    normal_s = _NORMAL_S[role]
    processes, lag = "workers" if role == "worker" else "apis", "oldest_work_s"
    in_time = [row for row in decisions if row.at_s >= spike[0] - plan.before_s]
    first_up = next((row for row in in_time if row.kind == "up"), None)
    downs = [row for row in in_time if row.kind == "down"]
    back_s = recovered_s(here.series.points(lag), spike[0], normal_s)
    worst_s = max((value for at, value in here.series.points(lag) if at >= spike[0]), default=0.0)
    most = max(value for _, value in here.series.points(processes))
    last = here.count(role)
    checks = [
        Check(
            f"within {RECOVER_S:g} s of the spike's start the oldest work is younger than "
            f"{normal_s:g} s again, while the spike goes on",
            f"{back_s:.1f} s (at worst it was {worst_s:.1f} s old)",
            0 < back_s <= RECOVER_S,
            of_time=True,
        ),
        Check(
            "the panic window acts: all that the work needs at once, before any slow threshold",
            "nothing went up"
            if first_up is None
            else f"{first_up.told}, {first_up.at_s - spike[0]:.1f} s after the "
            f"start: {first_up.reason}",
            first_up is not None and first_up.became == min(_needed(first_up), plan.most),
        ),
        Check(
            "down again one at a time",
            ", ".join(f"{row.was} → {row.became}" for row in downs) or "never",
            bool(downs) and all(row.was - row.became == 1 for row in downs) and last < most,
        ),
        Check(
            "no mail lost, none twice",
            f"{verdict.promised:,} promised, lost {verdict.lost}, twice {verdict.twice}",
            verdict.clean and verdict.promised > 0,
        ),
    ]
    what = "inbound-email" if role == "worker" else "the API"
    points = here.series.points
    return Outcome(
        name="inbound-spike" if role == "worker" else "api-spike",
        title=f"Ten times the load on {what}",
        settings={
            "one_process_per_s": round(one, 1),
            "share_of_a_core_each": plan.share,
            "processes_at_most": plan.most,
            "down_after_s": plan.quiet_s,
            "before_s": plan.before_s,
            "spike_s": plan.spike_s,
        },
        figures={
            "back_to_normal_s": round(back_s, 1),
            "oldest_at_worst_s": round(worst_s, 1),
            "processes_at_most": most,
            "processes_at_the_end": float(last),
            "promised": float(verdict.promised),
            "refused_and_come_again": float(here.ledger.refused),
            "unanswered": float(len(here.ledger.doubtful)),
        },
        checks=checks,
        decisions=in_time,
        series=here.series,
        panels=[
            Panel(
                "a second",
                [Line("offered", points("offered_per_s")), Line("taken", points("taken_per_s"))],
            ),
            Panel(
                "jobs that wait or are at work" if role == "worker" else "requests without answer",
                [Line("waiting", points("jobs" if role == "worker" else "not_taken"))],
            ),
            Panel("age of the oldest work, s", [Line("oldest", points(lag))]),
            Panel("processes on this machine", [Line(role, points(processes), stairs=True)]),
        ],
        bands=[(spike[0], spike[1], "ten times the load")],
    )
