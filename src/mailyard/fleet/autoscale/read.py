"""A group's reading out of two looks at the installation. Pure."""

from mailyard.fleet.autoscale.decide import Lane, Reading
from mailyard.fleet.autoscale.policy import Policy
from mailyard.fleet.figures import Figures, QueueFlow, Step, queue_flows, steps
from mailyard.fleet.look import Look
from mailyard.queue.job import LANES

_HANDS_FULL = 0.5  # of its time; below it, more processes do not make answers faster


def read(
    policy: Policy,
    *,
    before: Look | None,
    now: Look,
    figures: Figures,
    instances: int | None,
    budget: int,
    each: int,
) -> Reading:
    """What the policy's group looks like. `each`: connections that one more process may need."""
    made = [step for step in steps(before, now) if step.now.role == policy.role]
    used = None if now.database is None else now.database.connections
    lanes = (
        (_requests(policy, made, figures),)
        if policy.role == "api"
        else _lanes(policy, made, before, now)
    )
    values = _values(policy, made, figures, now, instances, lanes)
    if policy.role != "api" and (core := _core(policy, made, lanes)) is not None:
        lanes = (*lanes, core)
    return Reading(
        instances=instances,
        values=values,
        lanes=lanes,
        connections=None if used is None else used / budget,
        room=max(0, budget - len(now.processes) * each) // each,
    )


def _values(
    policy: Policy,
    made: list[Step],
    figures: Figures,
    now: Look,
    instances: int | None,
    lanes: tuple[Lane, ...],
) -> dict[str, float | None]:
    role = policy.role
    known = [step for step in made if step.cpu_s is not None]
    ran = [(step.cpu_s or 0.0) / step.seconds / policy.cores for step in known]
    per_s = figures.get("api.requests_per_s", {}).get("")
    depths = [lane.backlog for lane in lanes]
    ages = [lane.oldest_s for lane in lanes]
    return {
        "cpu": sum(ran) / len(ran) if ran else None,
        "busy": _busy(policy, made),
        "memory": figures.get("process.memory_share", {}).get(role),
        "requests_per_s": None if per_s is None else per_s / max(1, instances or 1),
        "p95_s": figures.get("api.p95_s", {}).get(""),
        "depth": _largest(depths),
        "oldest_s": _largest(ages),
        "processing_s": _largest([lane.service_s or 0.0 for lane in lanes]),
        "connections": None if now.database is None else float(now.database.connections),
    }


def _largest(values: list[float | None]) -> float | None:
    """None when there is none, or one that is not known."""
    known = [value for value in values if value is not None]
    return max(known) if known and len(known) == len(values) else None


def _busy(policy: Policy, made: list[Step]) -> float | None:
    """The mean share of its time for which a process of the group ran, or would have if others had
    left it a core. Processes that share a core look idle by `cpu` alone."""
    known = [step for step in made if step.cpu_s is not None]
    shares = [((step.cpu_s or 0.0) + step.cpu_wait_s) / step.seconds for step in known]
    return sum(shares) / len(shares) / policy.cores if shares else None


def _requests(policy: Policy, made: list[Step], figures: Figures) -> Lane:
    """Requests as work: their service is the processor's, of which a process has `cores`.

    What waits is work for more processes only where those that there are have their hands full:
    else it waits for the database.
    """
    # Of a process that has just begun nobody knows yet: the others say how long a request takes.
    known = [step for step in made if step.cpu_s is not None]
    count = sum(step.now.stats.totals.http.count - step.before.http.count for step in known)
    used_s = sum(step.cpu_s or 0.0 for step in known)
    full = (_busy(policy, made) or 0.0) >= _HANDS_FULL
    waiting = figures.get("api.waiting", {}).get("") or 0.0
    return Lane(
        name="requests",
        backlog=waiting if full else 0.0,
        oldest_s=figures.get("api.p95_s", {}).get(""),
        arrival_per_s=figures.get("api.requests_per_s", {}).get(""),
        service_s=used_s / count if count > 0 else None,
        slots=policy.cores,
    )


def _lanes(policy: Policy, made: list[Step], before: Look | None, now: Look) -> tuple[Lane, ...]:
    """The group's queues. What arrives is what was done and by how much the line has grown."""
    flows = queue_flows(made)
    names = policy.queues or tuple(name for name in LANES if name in now.depths)
    return tuple(_lane(name, flows.get(name), before, now) for name in names)


def _core(policy: Policy, made: list[Step], lanes: tuple[Lane, ...]) -> Lane | None:
    """All queues together as work for the processor that a process has for them, in seconds of
    slots: each queue has slots of its own, and may alone need less than all of them together.

    `service_s` is the processor's share of a slot's second. A process does more than jobs, which
    looks like work of the jobs where there are few: no job takes more of the processor than it
    lasts. None while any queue, or how long its jobs take, is not known: it says so itself.
    """
    known = [step for step in made if step.cpu_s is not None]
    used_s = sum(step.cpu_s or 0.0 for step in known)
    worked_s = sum(flow.seconds for flow in queue_flows(known).values())
    if worked_s <= 0 or not lanes:
        return None
    backlog = arrival = oldest_s = 0.0
    for lane in lanes:
        if lane.backlog is None or lane.arrival_per_s is None or lane.oldest_s is None:
            return None
        if not (lane.backlog or lane.arrival_per_s):
            continue
        if lane.service_s is None:
            return None
        backlog += lane.backlog * lane.service_s
        arrival += lane.arrival_per_s * lane.service_s
        oldest_s = max(oldest_s, lane.oldest_s)
    share = min(1.0, used_s / worked_s)
    return Lane("core", backlog, oldest_s, arrival, share, policy.cores)


def _lane(name: str, flow: QueueFlow | None, before: Look | None, now: Look) -> Lane:
    depth = now.depths.get(name)
    if depth is None:
        return Lane(name, None, None, None, None, None)
    old = before.depths.get(name) if before is not None else None
    arrival = None
    if old is not None and before is not None and now.at_s > before.at_s:
        grown = (depth.ready - old.ready) / (now.at_s - before.at_s)
        arrival = max(0.0, (flow.per_s if flow else 0.0) + grown)
    return Lane(
        name=name,
        backlog=float(depth.ready),
        oldest_s=depth.oldest_age_s,
        arrival_per_s=arrival,
        service_s=flow.service_s if flow else None,
        slots=flow.slots if flow else None,
    )
