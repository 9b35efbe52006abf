"""Reads, decides, acts, records: what the leading scheduler does every few seconds."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import structlog

from mailyard.core.errors import Conflict, MailyardError
from mailyard.fleet.autoscale.actuator import Actuator
from mailyard.fleet.autoscale.book import DecisionBook
from mailyard.fleet.autoscale.decide import (
    ADVISE,
    BLOCKED,
    Decision,
    Memory,
    Reading,
    decide,
)
from mailyard.fleet.autoscale.policy import Policy
from mailyard.fleet.autoscale.read import read
from mailyard.fleet.figures import Figures, slowest_queries
from mailyard.fleet.look import Look

AGAIN_S = 600.0  # what lasts is said again so often
_LOG = structlog.get_logger(__name__)


class Autoscaler:
    """`budget`: connections of the installation; `each`: what one more process may need of them."""

    def __init__(
        self,
        *,
        policies: Sequence[Policy],
        actuator: Actuator,
        book: DecisionBook,
        budget: int,
        each: int,
    ) -> None:
        self._policies = policies
        self._actuator = actuator
        self._book = book
        self._budget = budget
        self._each = each
        self._memories = {policy.group: Memory() for policy in policies}
        self._said: dict[str, tuple[str, float]] = {}

    async def act(self, before: Look | None, now: Look, figures: Figures) -> list[Decision]:
        """One round over all groups. A group that fails holds up no other."""
        decisions = []
        for policy in self._policies:
            try:
                decisions.append(await self._one(policy, before, now, figures))
            except MailyardError as error:
                _LOG.warning("autoscale_failed", group=policy.group, error=error.message)
        return decisions

    async def _one(
        self, policy: Policy, before: Look | None, now: Look, figures: Figures
    ) -> Decision:
        reading = read(
            policy,
            before=before,
            now=now,
            figures=figures,
            instances=await self._actuator.instances(policy),
            budget=self._budget,
            each=self._each,
        )
        remembered = self._memories[policy.group]
        decision, memory = decide(policy, remembered, reading, now.at_s)
        inputs = _inputs(policy, remembered, reading, now.at_s)
        if decision.kind == ADVISE:
            decision, inputs["slowest_queries"] = _with_queries(decision, before, now)
        if decision.changes and decision.became is not None:
            try:
                await self._actuator.set(policy, decision.became)
            except Conflict as error:
                decision, memory = _kept_from(decision, error), remembered
            else:
                _LOG.info(
                    "scaled",
                    group=policy.group,
                    was=decision.was,
                    became=decision.became,
                    reason=decision.reason,
                )
        self._memories[policy.group] = memory
        if self._worth_a_row(decision, now.at_s):
            await self._book.add(self._actuator.name, decision, inputs)
        return decision

    def _worth_a_row(self, decision: Decision, now_s: float) -> bool:
        """Every change; of what lasts, the first and then one now and then."""
        if decision.changes:
            self._said.pop(decision.group, None)
            return True
        if decision.kind not in (BLOCKED, ADVISE):
            self._said.pop(decision.group, None)
            return False
        kind, at_s = self._said.get(decision.group, ("", 0.0))
        if kind == decision.kind and now_s - at_s < AGAIN_S:
            return False
        self._said[decision.group] = (decision.kind, now_s)
        return True


def _kept_from(decision: Decision, error: Conflict) -> Decision:
    """Somebody else decides how many there are: nothing changes, and the page says who."""
    _LOG.warning("scaling_kept_from", group=decision.group, error=error.message)
    return replace(
        decision,
        kind=BLOCKED,
        became=decision.was,
        reason=f"{decision.reason}, but {error.message}",
    )


def _inputs(policy: Policy, memory: Memory, reading: Reading, now_s: float) -> dict[str, Any]:
    """All that the decision was made from, for who asks why."""
    return {
        "instances": reading.instances,
        "least": policy.least,
        "most": policy.most,
        "metrics": dict(reading.values),
        "lanes": [
            asdict(lane)
            for lane in reading.lanes
            if lane.backlog or lane.arrival_per_s or lane.name == "requests"
        ],
        "connections_share": reading.connections,
        "room": reading.room,
        "hot_for_s": {name: round(now_s - since, 1) for name, since in memory.hot.items()},
        "cold_for_s": {name: round(now_s - since, 1) for name, since in memory.cold.items()},
        "panic_for_s": None if memory.panic is None else round(now_s - memory.panic, 1),
    }


def _with_queries(
    decision: Decision, before: Look | None, now: Look
) -> tuple[Decision, list[dict[str, object]]]:
    """The advice to look at queries names them."""
    slowest = slowest_queries(before, now)
    named = ", ".join(f"{name} ({mean * 1000:.1f} ms each)" for name, _, mean in slowest[:3])
    told: list[dict[str, object]] = [
        {"query": name, "share_of_a_second": round(share, 4), "mean_s": round(mean, 6)}
        for name, share, mean in slowest
    ]
    reason = f"{decision.reason}; most time goes to {named}" if named else decision.reason
    return replace(decision, reason=reason), told


def settled(
    policies: Sequence[Policy], starts: Mapping[str, int], most_by_itself: int, room: int
) -> list[Policy]:
    """Policies with their bounds decided. `starts`: processes by role as the settings say. `room`:
    processes that the budget of database connections allows, of all roles: no group may have more
    than it leaves beside the least of the others."""
    least = {one.group: one.least or max(1, starts.get(one.role, 1)) for one in policies}
    scaled = {one.role for one in policies}
    fixed = sum(count for role, count in starts.items() if role not in scaled)
    found = []
    for policy in policies:
        here = least[policy.group]
        ceiling = max(1, room - fixed - (sum(least.values()) - here))
        most = min(policy.most or max(here, most_by_itself), ceiling)
        found.append(replace(policy, least=min(here, most), most=most))
    return found
