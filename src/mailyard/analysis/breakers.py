"""Whether each model may be asked: breakers of this process, and what others have found out."""

from datetime import UTC, datetime
from random import Random
from typing import NamedTuple
from uuid import UUID

import structlog

from mailyard.analysis.book import OpenModel
from mailyard.analysis.model import ModelFailure
from mailyard.core.backoff import Backoff
from mailyard.core.clock import Clock
from mailyard.sending.route.breaker import (
    CLOSED,
    Breaker,
    BreakerEvent,
    BreakerOptions,
    Position,
    Ticket,
    admit,
    record,
    trip,
)
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_SQL = load("analysis")
_LOG = structlog.get_logger(__name__)

_BREAKER = BreakerOptions(
    window_s=120.0, least=5, share=0.5, in_a_row=5, open_for=Backoff(15.0, 600.0), probes=1,
    probe_lost_s=150.0,
)  # fmt: skip
_DECISIVE_REST_S = 600.0
MODELS_KEPT = 1_000  # that a process remembers


class Rest(NamedTuple):
    """A model is not asked now: why, and for how many seconds."""

    why: str
    wait_s: float


class Breakers:
    """The breakers of all models. One a process."""

    def __init__(self, *, database: Database, clock: Clock, random: Random) -> None:
        self._database = database
        self._clock = clock
        self._random = random
        self._breakers: dict[UUID, Breaker] = {}

    def admit(self, model: OpenModel) -> Ticket | Rest:
        """Leave to ask the model once; whoever gets it says how it went."""
        now_s = self._clock.now().timestamp()
        breaker = self._breakers.get(model.entry.id, CLOSED)
        told = model.entry.resting_until
        if told is not None and told.timestamp() > now_s and breaker.position is Position.CLOSED:
            return Rest(f"it rests: {model.entry.why}", told.timestamp() - now_s)
        if told is None and breaker.position is Position.OPEN:
            breaker = CLOSED  # somebody has mended it
        breaker, ticket, _ = admit(now_s, breaker, _BREAKER, self._random)
        self._remember(model, breaker)
        if ticket is None:
            return Rest(f"it rests: {breaker.why}", max(1.0, breaker.open_until_s - now_s))
        return ticket

    async def failed(
        self, workspace_id: UUID, model: OpenModel, ticket: Ticket, error: ModelFailure
    ) -> None:
        """It did not answer; what is decisive makes it rest at once."""
        if not (error.decisive or error.retry_after_s):
            counts = error.passing
            await self.note(workspace_id, model, ticket, error.why if counts else "")
            return
        now_s = self._clock.now().timestamp()
        rest_s = error.retry_after_s or _DECISIVE_REST_S
        breaker, events = trip(
            now_s,
            self._breakers.get(model.entry.id, CLOSED),
            _BREAKER,
            error.why,
            self._random,
            rest_s,
        )
        self._remember(model, breaker)
        await self._tell(workspace_id, model, events)

    async def note(
        self, workspace_id: UUID, model: OpenModel, ticket: Ticket, failure: str
    ) -> None:
        """How an ask went; an empty `failure`: well."""
        now_s = self._clock.now().timestamp()
        breaker, events = record(
            now_s,
            self._breakers.get(model.entry.id, CLOSED),
            _BREAKER,
            ticket,
            failure,
            self._random,
        )
        self._remember(model, breaker)
        await self._tell(workspace_id, model, events)

    async def _tell(
        self, workspace_id: UUID, model: OpenModel, events: tuple[BreakerEvent, ...]
    ) -> None:
        """Let the other processes and the page know."""
        for event in events:
            until = None
            if event.position is Position.OPEN and event.until_s is not None:
                until = datetime.fromtimestamp(event.until_s, UTC)
            _LOG.warning("a model's breaker", model=model.entry.name, position=event.position.value)
            why = "" if until is None else event.why[:300]
            await self._database.execute(_SQL.rest_model, workspace_id, model.entry.id, until, why)

    def _remember(self, model: OpenModel, breaker: Breaker) -> None:
        if len(self._breakers) >= MODELS_KEPT:
            self._breakers.clear()
        self._breakers[model.entry.id] = breaker
