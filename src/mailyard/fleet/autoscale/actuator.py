"""The port of what makes more or fewer processes."""

from typing import Protocol

from mailyard.fleet.autoscale.policy import Policy


class Actuator(Protocol):
    """`name` is what decisions are recorded under. Both calls raise Unavailable; `set` raises
    Conflict where somebody else decides how many there are."""

    name: str

    async def instances(self, policy: Policy) -> int | None:
        """How many processes of the group are wanted now; None when nobody knows."""
        ...

    async def set(self, policy: Policy, count: int) -> None:
        """Have `count` of them. Returns when it is asked for, not when they run."""
        ...
