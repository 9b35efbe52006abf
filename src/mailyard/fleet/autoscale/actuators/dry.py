"""Decides and records, and changes nothing: to see what a policy would do.

It goes on from what it would have done, so that one day of it reads like a day of the real one.
"""

from mailyard.fleet.autoscale.actuator import Actuator
from mailyard.fleet.autoscale.policy import Policy


class DryRun:
    """Stands before the actuator that it does not use; without one, the settings' numbers."""

    name = "dry-run"

    def __init__(self, real: Actuator | None, starts: dict[str, int]) -> None:
        self._real = real
        self._starts = starts
        self._would_be: dict[str, int] = {}

    async def instances(self, policy: Policy) -> int | None:
        if policy.group in self._would_be:
            return self._would_be[policy.group]
        if self._real is not None:
            return await self._real.instances(policy)
        return self._starts.get(policy.role)

    async def set(self, policy: Policy, count: int) -> None:
        self._would_be[policy.group] = count
