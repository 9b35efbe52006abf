"""A worker that leaks memory, under steady mail.

Above 80 % of what it may have the autoscaler adds one; at all of it the supervisor starts a
successor, lets the worker finish what it has, and ends it. The packed policy is in force but for
the five minutes that memory must be high, and the quarter of an hour that all must be quiet.
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mailyard.core.limits import MIB
from mailyard.proving.chaos import victims_of
from mailyard.proving.experiments import fault_leak
from mailyard.proving.experiments.chart import Line, Panel
from mailyard.proving.experiments.pace import Pace, drive
from mailyard.proving.experiments.series import Check, Outcome
from mailyard.proving.experiments.smtp_load import SmtpLoad
from mailyard.proving.experiments.stand import Stand, python_path, stand

_POLICY = """
[api]
remove = true
[worker]
least = 2
most = 3
up_cooldown_s = 5.0
down_cooldown_s = 6.0
[[worker.signal]]
metric = "memory"
up_above = 0.8
up_for_s = {hot_s}
once = true
[[worker.signal]]
metric = "depth"
up_above = 100.0
up_for_s = 300.0
down_below = 50.0
down_for_s = {quiet_s}
"""
_REPLACED_S = 30.0  # until it is noticed, a successor works, and it has finished what it had
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Plan:
    """Times in seconds. `cap_bytes`: of a worker."""

    before_s: float = 12.0
    after_s: float = 35.0
    leak_bytes_per_s: int = 4 * MIB
    cap_bytes: int = 240 * MIB
    mails_per_s: float = 40.0
    hot_s: float = 5.0
    quiet_s: float = 20.0


SHORT = Plan(before_s=4.0, after_s=12.0, leak_bytes_per_s=6 * MIB, hot_s=1.0, quiet_s=8.0)
_PATIENCE_S = 90.0


async def run(folder: Path, plan: Plan, say: Callable[[str], None]) -> Outcome:
    """The whole of it. Raises Unavailable when the platform does not start."""
    faults = folder / "faults"
    fault_leak.plant(faults, plan.leak_bytes_per_s)
    settings = {
        "PYTHONPATH": python_path(faults),
        "MAILYARD_WORKER_PROCESSES": "2",
        "MAILYARD_WORKER_MEMORY": str(plan.cap_bytes),
        "MAILYARD_DATABASE_CONNECTIONS": "6",
    }
    policy = _POLICY.format(hot_s=plan.hot_s, quiet_s=plan.quiet_s)
    async with stand(folder, policy=policy, settings=settings, shares={}, say=say) as here:
        return await _leak(here, faults, plan, say)


async def _leak(here: Stand, faults: Path, plan: Plan, say: Callable[[str], None]) -> Outcome:
    here.more = lambda: _memory(here, fault_leak.victim(faults), plan.cap_bytes)
    load = SmtpLoad(here.address, here.ledger, 10)
    pace = Pace(lambda _: plan.mails_per_s, plan.before_s + _PATIENCE_S + plan.after_s)
    running = asyncio.create_task(drive(pace, load.run))
    await asyncio.sleep(plan.before_s)
    began_s = here.now_s
    fault_leak.begin(faults)
    say(f"a worker leaks {plan.leak_bytes_per_s // MIB} MB a second now")
    await here.until(lambda: fault_leak.victim(faults) is not None, 10.0)
    pid = fault_leak.victim(faults)
    ended = await here.until(lambda: pid not in _workers(here), _PATIENCE_S)
    ended_s = here.now_s
    say("it has been replaced" if ended else "it was not replaced")
    await here.until(lambda: here.count("worker") <= 2, plan.after_s + 2 * plan.quiet_s)
    pace.stop()
    await running
    decisions = [row for row in await here.decisions() if row.at_s >= began_s - plan.before_s]
    verdict = await here.judge()
    over = [at for at, mb in here.series.points("leaking_mb") if mb > plan.cap_bytes / MIB]
    took_s = ended_s - min(over, default=ended_s)
    worst = max((value for _, value in here.series.points("leaking_mb")), default=0.0)
    up = next((row for row in decisions if row.kind == "up"), None)
    downs = [row for row in decisions if row.kind == "down"]
    cap_mb = plan.cap_bytes / MIB
    fewest = min(value for at, value in here.series.points("workers") if at >= began_s)
    checks = [
        Check(
            "above 80 % of what it may have, the autoscaler adds a worker, once",
            "none" if up is None else f"{up.told} after {up.at_s - began_s:.0f} s: {up.reason}",
            up is not None
            and "memory" in up.reason
            and sum(row.kind == "up" for row in decisions) == 1,
        ),
        Check(
            "at all of it the worker is replaced: a successor first, then it finishes and ends",
            f"ended with {worst:.0f} MB of {cap_mb:.0f}; never fewer than {fewest:.0f} workers",
            ended and bool(over) and fewest >= 2,
        ),
        Check(
            f"within {_REPLACED_S:.0f} s of passing it",
            f"{took_s:.0f} s",
            ended and bool(over) and took_s <= _REPLACED_S,
            of_time=True,
        ),
        Check(
            "when all is quiet again there is one less",
            ", ".join(row.told for row in downs) or "never",
            len(downs) == 1,
        ),
        Check(
            "no mail lost, none twice",
            f"{verdict.promised:,} promised, lost {verdict.lost}, twice {verdict.twice}",
            verdict.clean and verdict.promised > 0,
        ),
    ]
    points = here.series.points
    return Outcome(
        name="leak",
        title="A worker that leaks memory",
        settings={
            "leak_mb_per_s": plan.leak_bytes_per_s / MIB,
            "worker_memory_mb": cap_mb,
            "mails_per_s": plan.mails_per_s,
            "memory_hot_for_s": plan.hot_s,
            "down_after_s": plan.quiet_s,
        },
        figures={
            "replaced_after_s": round(ended_s - began_s, 1),
            "memory_at_most_mb": round(worst, 1),
            "promised": float(verdict.promised),
        },
        checks=checks,
        decisions=decisions,
        series=here.series,
        panels=[
            Panel(
                "memory, MB",
                [
                    Line("the one that leaks", points("leaking_mb")),
                    Line("largest of the others", points("others_mb")),
                    Line("may have", points("cap_mb")),
                ],
            ),
            Panel("jobs that wait or are at work", [Line("jobs", points("jobs"))]),
            Panel("workers on this machine", [Line("workers", points("workers"), stairs=True)]),
        ],
        bands=[(began_s, ended_s, "a worker leaks")],
    )


def _workers(here: Stand) -> list[int]:
    return victims_of(here.platform).get("worker", [])


def _memory(here: Stand, pid: int | None, cap_bytes: int) -> dict[str, float]:
    sizes = {one: _resident_bytes(one) / MIB for one in _workers(here)}
    told = {"others_mb": max((mb for one, mb in sizes.items() if one != pid), default=0.0)}
    if pid in sizes:
        told["leaking_mb"] = sizes[pid]
    return {**told, "cap_mb": cap_bytes / MIB}


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0
