"""Presence inside one process."""

from uuid import UUID

import msgspec

from mailyard.bus.presence import HERE_S, Here
from mailyard.core.clock import Clock


class MemoryPresence:
    """Who beats here."""

    def __init__(self, *, clock: Clock, here_s: float = HERE_S) -> None:
        self._clock = clock
        self._here_s = here_s
        self._there: dict[UUID, tuple[float, Here]] = {}

    async def beat(self, here: Here) -> list[Here]:
        until_s = self._clock.monotonic() + self._here_s
        self._there[here.id] = (until_s, msgspec.structs.replace(here, stats="{}"))
        return await self.who()

    async def who(self) -> list[Here]:
        now_s = self._clock.monotonic()
        return [here for until_s, here in self._there.values() if until_s > now_s]

    async def leave(self, id: UUID) -> None:
        self._there.pop(id, None)
