"""The figures for whoever asks, one monitor an API process: pages, `/monitoring/…`, `/metrics`."""

from collections import deque
from pathlib import Path

from mailyard.fleet.duties.watch import complete
from mailyard.fleet.figures import Figures, figures, slowest_queries
from mailyard.fleet.look import Depths, Look, take_look
from mailyard.storage.database import Database

FRESH_S = 2.0  # who asks more often gets the same
_LOOKS = 8
_BEATS_S = 6.0  # so long and every process that lives has beaten once more
_WINDOW_S = 15.0  # rates are over at least so long, where somebody has asked before
_SLOWEST = 10  # queries that are named


class Monitor:
    """Looks when it is asked, at most once in FRESH_S."""

    def __init__(
        self,
        *,
        database: Database,
        engine: Depths,
        data: Path | None,
        budget: int,
        live_places: int,
    ) -> None:
        self._database = database
        self._engine = engine
        self._data = data
        self._budget = budget
        self._live_places = live_places
        self._looks: deque[Look] = deque(maxlen=_LOOKS)
        self._figures: Figures = {}

    async def look(self) -> tuple[Look, Figures]:
        """The newest look and its figures. Raises Unavailable."""
        now = await take_look(self._database, self._engine, self._data)
        if not self._looks or now.at_s - self._looks[-1].at_s >= FRESH_S:
            self._looks.append(now)
            found = figures(self._before(now), now, self._budget)
            self._figures = complete(found, self._live_places)
        return self._looks[-1], self._figures

    def slowest(self) -> list[tuple[str, float, float]]:
        """(query, share of a second, mean seconds) as of the newest look."""
        if not self._looks:
            return []
        return slowest_queries(self._before(self._looks[-1]), self._looks[-1], _SLOWEST)

    def _before(self, now: Look) -> Look | None:
        """The newest look that is old enough; else the oldest, unless it is too old to compare."""
        older = [one for one in self._looks if one.at_s < now.at_s]
        old = [one for one in older if now.at_s - one.at_s >= _WINDOW_S]
        if old:
            return old[-1]
        # Two looks between the same beats of a process would say that nothing is known of it.
        return older[0] if older and now.at_s - older[0].at_s >= _BEATS_S else None
