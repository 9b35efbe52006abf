"""Places for live connections in this process, and who gets them when they are scarce.

A workspace may hold as many as are free. When all are taken, a newcomer whose workspace holds fewer
than its equal share gets the place of the one who sits longest in the workspace that holds most:
that one comes back with its cursor and misses nothing. Whoever holds a share or more is refused,
and told when to ask again, not all at the same time.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from random import Random
from uuid import UUID

from mailyard.core.errors import RateLimited

_DOOR = 64  # may be asked who they are, above the ceiling
_AGAIN_S = 2.0
_SPREAD_S = 8.0


class TooManyLive(RateLimited):
    """The ceiling of live connections is reached."""

    code = "too_many_live_connections"
    status = 503


class TooManyOfYours(RateLimited):
    """The workspace's own ceiling is reached."""

    code = "too_many_live_connections"
    status = 429


class Place:
    """One connection. `leave` asks it to go: set it before the place is seated."""

    __slots__ = ("evicted", "leave", "workspace_id")

    def __init__(self) -> None:
        self.leave: Callable[[], object] = lambda: None
        self.workspace_id: UUID | None = None
        self.evicted = False


class Places:
    """`ceiling` connections, waits and streams together."""

    def __init__(self, ceiling: int, random: Random | None = None) -> None:
        self.ceiling = ceiling
        self._random = random or Random()
        self._empty = asyncio.Event()
        self._at_door = 0
        self._seated = 0
        self.came = 0  # so far, those who were refused a seat too
        self._by_workspace: dict[UUID, dict[Place, None]] = {}  # in the order of their coming

    @property
    def open(self) -> int:
        """How many are here, those at the door too."""
        return self._at_door + self._seated

    async def empty(self, timeout_s: float) -> None:
        """When everybody has gone, or after `timeout_s`."""
        self._empty.clear()
        if self.open:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._empty.wait()

    def enter(self) -> None:
        """Somebody comes, nobody knows who. Raises TooManyLive."""
        if self.open >= self.ceiling + _DOOR or not self.ceiling:
            raise self.full()
        self._at_door += 1
        self.came += 1

    def seat(self, place: Place, workspace_id: UUID, most: int | None) -> None:
        """Who came in is known now; `most`: what the workspace may hold, None: any number.

        Raises TooManyLive, TooManyOfYours.
        """
        mine = self._by_workspace.get(workspace_id, {})
        if most is not None and len(mine) >= most:
            raise TooManyOfYours(
                f"your plan has {most} live connections in each process, and all are in use",
                retry_after_s=self._again_s(),
            )
        if self._seated >= self.ceiling:
            self._make_room(workspace_id, len(mine))
        self._at_door -= 1
        self._seated += 1
        place.workspace_id = workspace_id
        self._by_workspace.setdefault(workspace_id, {})[place] = None

    def gone(self, place: Place) -> None:
        """Whoever entered has gone, seated or not."""
        if place.workspace_id is None:
            self._at_door -= 1
        else:
            self._unseat(place)
        if not self.open:
            self._empty.set()

    def _make_room(self, workspace_id: UUID, mine: int) -> None:
        most, longest = max(
            ((len(places), next(iter(places))) for places in self._by_workspace.values()),
            key=lambda held: held[0],
        )
        workspaces = len(self._by_workspace) + (workspace_id not in self._by_workspace)
        if mine >= self.ceiling // workspaces or most <= mine + 1:
            raise self.full()
        self._unseat(longest)
        self._at_door += 1  # until it has gone
        longest.workspace_id = None
        longest.evicted = True
        longest.leave()

    def _unseat(self, place: Place) -> None:
        assert place.workspace_id is not None, "only who sits can be unseated"
        places = self._by_workspace[place.workspace_id]
        del places[place]
        if not places:
            del self._by_workspace[place.workspace_id]
        self._seated -= 1

    def full(self) -> TooManyLive:
        """What somebody is told who gets no place."""
        return TooManyLive("every live place is taken", retry_after_s=self._again_s())

    def _again_s(self) -> float:
        return _AGAIN_S + _SPREAD_S * self._random.random()
