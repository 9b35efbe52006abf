"""The port of presence: which processes are there, and what live connections they hold.

Each process says every few seconds that it is there; one that has not for HERE_S is not. Nothing
here decides about work: leases and locks do. It is what a limit is divided by when the store of
limits is away, and what people look at.
"""

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

import msgspec

HERE_S = 15.0


class Here(msgspec.Struct, frozen=True):
    """One process. `live`: its open live connections by kind (stream, socket, wait). `stats`: JSON
    about itself, for the table of processes alone."""

    id: UUID
    role: str
    host: str
    pid: int
    live: dict[str, int] = {}
    stats: str = "{}"


class Presence(Protocol):
    """Shared by whoever uses the same adapter and store. Raises Unavailable when that is away."""

    async def beat(self, here: Here) -> list[Here]:
        """Say that a process is there; all that are, itself too, without their `stats`."""
        ...

    async def who(self) -> list[Here]:
        """All that are there, without their `stats`."""
        ...

    async def leave(self, id: UUID) -> None:
        """It has ended in good order."""
        ...


class Crowd:
    """Who was there at the last look: known also when nobody can be asked."""

    def __init__(self) -> None:
        self._there: list[Here] = []

    def note(self, there: Sequence[Here]) -> None:
        self._there = sorted(there, key=lambda one: one.id)

    def processes(self) -> int:
        """How many, at least one: whoever asks."""
        return max(1, len(self._there))

    def place(self, id: UUID) -> tuple[int, int]:
        """Which of how many of its role the process `id` is: (0, 1) for the only one."""
        role = next((one.role for one in self._there if one.id == id), None)
        alike = [one.id for one in self._there if one.role == role]
        return (alike.index(id), len(alike)) if id in alike else (0, self.processes())
