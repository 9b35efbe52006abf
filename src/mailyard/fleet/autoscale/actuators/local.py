"""The supervisor that started this scheduler: more and fewer real processes on this machine."""

from typing import Protocol

from mailyard.fleet.autoscale.policy import Policy


class Wire(Protocol):
    """What is needed of the wire to the supervisor (`fleet/control.py`)."""

    def have(self, role: str) -> int | None: ...

    def scale(self, role: str, count: int) -> None: ...


class LocalActuator:
    """Speaks to the supervisor, who alone knows how many it keeps."""

    name = "local"

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def instances(self, policy: Policy) -> int | None:
        return self._wire.have(policy.role)

    async def set(self, policy: Policy, count: int) -> None:
        self._wire.scale(policy.role, count)
