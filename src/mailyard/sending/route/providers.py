"""The health of all providers in one process: a breaker each, and what changed, for the page.

choose -> [admit -> hand over -> record], for one candidate after another until one has it
"""

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from mailyard.sending.route import breaker as machine
from mailyard.sending.route.breaker import (
    CLOSED,
    Breaker,
    BreakerEvent,
    BreakerOptions,
    Position,
    Step,
    Ticket,
)
from mailyard.sending.route.failover import Fault, is_failure
from mailyard.sending.route.routes import Choice, Envelope, Health, Routes, choose
from mailyard.sending.transport import Outcome

EVENTS_KEPT = 1_000  # between two collections; the newest are kept

_READY = Health(True)


@dataclass(frozen=True, slots=True)
class ProviderEvent:
    """A breaker changed."""

    provider: str
    event: BreakerEvent


class Providers:
    """Breakers by provider. A provider that is not known yet is healthy."""

    def __init__(self, *, random: Random, options: BreakerOptions | None = None) -> None:
        self._random = random
        self._options = options or BreakerOptions()
        self._breakers: dict[str, Breaker] = {}
        self._changed_s: dict[str, float] = {}
        self._events: list[ProviderEvent] = []
        # What went well since its slice began, not in the breaker yet: (slice, mails). Nearly every
        # mail goes well, and a breaker is made anew for each that it is told of.
        self._good: dict[str, tuple[int, int]] = {}

    def choose(self, now_s: float, routes: Routes, mail: Envelope) -> Choice:
        """Who may have `mail`, in order."""
        return choose(routes.route_of(mail), lambda name: self.health(now_s, name), self._random)

    def health(self, now_s: float, provider: str) -> Health:
        state = self.breaker(provider)
        if machine.admits(now_s, state, self._options):
            return _READY
        if state.position is Position.OPEN:
            return Health(False, state.why, state.open_until_s)
        # A probe is on its way; its answer, or its loss, decides.
        since_s = state.probe_since_s or now_s
        return Health(False, state.why, since_s + self._options.probe_lost_s)

    def is_well(self, provider: str) -> bool:
        """Whether its breaker is closed: it may be asked, and `admit` would say so."""
        return self._breakers.get(provider, CLOSED).position is Position.CLOSED

    def admit(self, now_s: float, provider: str) -> Ticket | None:
        """Leave to hand one mail to `provider`; None: the next candidate, please."""
        known = self._breakers.get(provider, CLOSED)
        if known.position is Position.CLOSED:
            return Ticket(known.turn)
        state, ticket, events = machine.admit(
            now_s, self.breaker(provider), self._options, self._random
        )
        self._keep(provider, (state, events))
        return ticket

    def record(
        self,
        now_s: float,
        provider: str,
        ticket: Ticket,
        outcome: Outcome,
        fault: Fault,
        reply: str = "",
    ) -> None:
        """How that mail went. A refusal for good that is the provider's fault opens at once."""
        state = self.breaker(provider)
        if ticket.turn != state.turn:
            return
        if outcome is Outcome.ACCEPTED and state.position is Position.CLOSED:
            self._went_well(provider, machine.slice_of(now_s, self._options))
            return
        state = self._told_of_good(provider)
        failure = (reply or outcome.value) if is_failure(outcome, fault) else ""
        if outcome is Outcome.NEVER and failure:
            step = machine.trip(now_s, state, self._options, failure, self._random)
        else:
            step = machine.record(now_s, state, self._options, ticket, failure, self._random)
        self._keep(provider, step)

    def unprobed(self, provider: str, ticket: Ticket) -> None:
        """That mail came back untried: nothing is known, and the next one may be the probe."""
        if provider in self._breakers:
            self._breakers[provider] = machine.unprobed(self._breakers[provider], ticket)

    def pause(self, now_s: float, provider: str, retry_after_s: float, why: str) -> None:
        """The provider said when to come again (Retry-After)."""
        state = self.breaker(provider)
        self._keep(
            provider,
            machine.trip(now_s, state, self._options, why, self._random, retry_after_s),
        )

    def breaker(self, provider: str) -> Breaker:
        return self._breakers.get(provider, CLOSED)

    def changed_s(self, provider: str) -> float:
        """When its breaker changed last; 0 for never."""
        return self._changed_s.get(provider, 0.0)

    def events(self) -> Iterable[ProviderEvent]:
        """What changed since the last call, oldest first."""
        events, self._events = self._events, []
        return events

    def _went_well(self, provider: str, number: int) -> None:
        counted = self._good.get(provider)
        if counted is not None and counted[0] == number:
            self._good[provider] = number, counted[1] + 1
            return
        self._told_of_good(provider)
        self._good[provider] = number, 1

    def _told_of_good(self, provider: str) -> Breaker:
        """The breaker, once it knows of all that went well."""
        state = self.breaker(provider)
        counted = self._good.pop(provider, None)
        if counted is not None and state.position is Position.CLOSED:
            state = self._breakers[provider] = machine.count_good(state, *counted)
        return state

    def _keep(self, provider: str, step: Step) -> None:
        self._breakers[provider], events = step
        if not events:
            return
        self._changed_s[provider] = events[-1].at_s
        self._events += [ProviderEvent(provider, event) for event in events]
        del self._events[:-EVENTS_KEPT]
