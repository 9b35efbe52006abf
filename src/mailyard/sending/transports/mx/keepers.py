"""Who is told what own delivery learns: ports that the composition root fills."""

from collections.abc import Callable
from typing import Protocol
from uuid import UUID

from mailyard.sending.shape.dispatch import Dispatch
from mailyard.sending.shape.receiver import Place
from mailyard.sending.shape.site import Reaction
from mailyard.sending.transport import Outcome
from mailyard.sending.transports.mx.parcel import Parcel

Suppress = Callable[[UUID, str, UUID, str], None]
"""(workspace, address, delivery, what was said): nothing more to this recipient."""


class Keeper(Protocol):
    """What collects for the database beside the work (`tls_count`, `late_stops`)."""

    async def keep(self) -> None:
        """Write now and then, until cancelled."""
        ...

    async def flush(self) -> None:
        """Write everything now."""
        ...


class Board(Protocol):
    """Where what is learnt of sites is shown, and told to the others (`sending.shaping_board`)."""

    def note(
        self, key: str, place: Place, outcome: Outcome, shown: str, reaction: Reaction
    ) -> None: ...

    async def keep(self, sites: Dispatch[Parcel], stir: Callable[[], None]) -> None: ...

    async def flush(self, sites: Dispatch[Parcel], *, all_of_it: bool = False) -> None: ...
