"""The watch over the installation: looks every few seconds, judges alerts, scales, writes series.

What it keeps from look to look is small and lies in memory: a leader that takes over begins its
durations anew, which errs on the side of doing nothing.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

import structlog

from mailyard.core.errors import MailyardError
from mailyard.fleet.alerts.board import AlertBoard
from mailyard.fleet.alerts.notify import Notifier
from mailyard.fleet.duty import Duty
from mailyard.fleet.figures import Figures, MailTally, figures, steps
from mailyard.fleet.look import Depths, Look, take_look
from mailyard.storage.database import Database

EVERY_S = 5.0
LOOKS = 4  # rates are over three rounds: long enough to be steady, short enough for a spike
TELL_EVERY_S = 3.0
FORGET_EVERY_S = 3600.0
_LOG = structlog.get_logger(__name__)


class Scaler(Protocol):
    """Whoever makes more or fewer processes (`autoscale/scaler.py`)."""

    async def act(self, before: Look | None, now: Look, figures: Figures) -> object: ...


Sink = Callable[[Look, Figures], Awaitable[None]]


class Watch:
    """One for the leading scheduler. `live_places`: of one API process."""

    def __init__(
        self,
        *,
        database: Database,
        engine: Depths,
        data: Path | None,
        budget: int,
        live_places: int,
        board: AlertBoard | None,
        scaler: Scaler | None,
        sinks: Sequence[Sink] = (),
    ) -> None:
        self._database = database
        self._engine = engine
        self._data = data
        self._budget = budget
        self._live_places = live_places
        self._board = board
        self._scaler = scaler
        self._sinks = sinks
        self._looks: deque[Look] = deque(maxlen=LOOKS)
        self._mails = MailTally.empty()

    async def round(self) -> None:
        """One look and what follows from it. A part that fails holds up no other."""
        now = await take_look(self._database, self._engine, self._data)
        last = self._looks[-1] if self._looks else None
        before = self._looks[0] if self._looks else None
        if last is not None:
            self._mails.add(steps(last, now), now.at_s)
        self._looks.append(now)
        found = complete(figures(before, now, self._budget), self._live_places)
        found.update(self._mails.figures())
        parts: list[Callable[[], Awaitable[object]]] = []
        if self._scaler is not None:
            scaler = self._scaler
            parts.append(lambda: scaler.act(before, now, found))
        if self._board is not None:
            board = self._board
            parts.append(lambda: board.judge(found, now.at_s))
        parts += [lambda sink=sink: sink(now, found) for sink in self._sinks]  # type: ignore[misc]
        for part in parts:
            try:
                await part()
            except MailyardError as error:
                _LOG.warning("watch_part_failed", error=error.message)


def complete(found: Figures, live_places: int) -> Figures:
    """With the figures that need a setting."""
    live = found.get("live.connections", {}).get("")
    places = live_places * (found.get("process.count", {}).get("api") or 0.0)
    if live is not None and places:
        found["live.share"] = {"": live / places}
    return found


def watch(watching: Watch) -> Duty:
    """Every few seconds."""

    async def do() -> bool:
        await watching.round()
        return False

    return Duty("watch", EVERY_S, do)


def tell(notifier: Notifier) -> Duty:
    """What is to be told of alerts."""

    async def do() -> bool:
        return await notifier.tell() > 0

    return Duty("tell-alerts", TELL_EVERY_S, do)


def forget(*keepers: Callable[[], Awaitable[None]]) -> Duty:
    """Old alerts and decisions."""

    async def do() -> bool:
        for keeper in keepers:
            await keeper()
        return False

    return Duty("forget-monitoring", FORGET_EVERY_S, do)
