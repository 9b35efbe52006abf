"""Whether the copies of other regions' databases that are kept here follow: told with the beat.

Every scheduler looks, leader or not: what one of them cannot see is worth an alert (rules.toml,
`region-copy`), for a region whose copy has stopped is lost with its site.
"""

import asyncio
from collections.abc import Mapping
from time import monotonic

import structlog

from mailyard.access.neighbours import STREAMS, CopyState, Neighbours
from mailyard.observe import metrics

EVERY_S = 5.0
_LOG = structlog.get_logger(__name__)


class CopyWatch:
    """Looks at the copies of `neighbours`, and knows since when each does not stream."""

    def __init__(self, neighbours: Neighbours) -> None:
        self._neighbours = neighbours
        self._states: dict[str, CopyState] = {}
        self._silent_since: dict[str, float] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        metrics.tell("region", self.figures)
        while True:
            self.take(await self._neighbours.copies(), monotonic())
            await asyncio.sleep(EVERY_S)

    def take(self, states: list[CopyState], now_s: float) -> None:
        """Remember what a look has found."""
        for state in states:
            region, before = state.region, self._states.get(state.region)
            if state.word == STREAMS:
                self._silent_since.pop(region, None)
            else:
                self._silent_since.setdefault(region, now_s)
            if before is not None and before.word != state.word:
                _LOG.warning("region_copy", region=region, state=state.word, reason=state.why)
            self._states[region] = state

    def figures(self, now_s: float | None = None) -> Mapping[str, float]:
        """`copy_silent_s` and `copy_unreplayed_bytes` of each region; 0 s while it streams."""
        now_s = monotonic() if now_s is None else now_s
        found: dict[str, float] = {}
        for region, state in self._states.items():
            since = self._silent_since.get(region)
            found[f"copy_silent_s {region}"] = 0.0 if since is None else round(now_s - since, 1)
            found[f"copy_unreplayed_bytes {region}"] = float(state.unreplayed_bytes)
        return found
