"""One mail's way past the providers that may have it, until one has, or nobody can.

A provider that certainly has not taken it, for a reason of its own, lets the next one have it; one
that may have taken it keeps it (`route/failover.py` has the whole rule).
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from mailyard.sending.route.breaker import Position
from mailyard.sending.route.failover import Fault, answered, candidate, handed
from mailyard.sending.route.plan import envelope
from mailyard.sending.transport import (
    HANDOFF_REPLY_CHARACTERS,
    TRANSACTIONAL,
    Handoff,
    Outcome,
    Outgoing,
)
from mailyard.sending.ways import FRESH, Ways

Done = Callable[[Handoff], None]

PATIENCE_S = 5.0  # a mail is held so long for a provider that is about to be back
_LOOK_S = 0.1  # how often it is looked whether one is
_AGAIN_S = 60.0  # when a mail comes again that nobody can say anything about
_SPREAD_S = 5.0  # what waits for the same provider does not come back all at once


@dataclass(slots=True)
class Held:
    """The mails that wait for a provider; none is held any more once the process is `closing`."""

    passages: "set[Passage]" = field(default_factory=set)
    closing: bool = False


class Passage:
    """One mail on its way: of several recipients only when it is bound to one provider."""

    __slots__ = ("_done", "_held", "_journey", "_mail", "_refusals", "_ticket", "_until", "_view",
                 "_way", "_ways")  # fmt: skip

    def __init__(self, ways: Ways, held: Held, mail: Outgoing, done: Done) -> None:
        self._ways = ways
        self._held = held
        self._mail = mail
        self._done = done
        self._journey = FRESH
        self._refusals: tuple[Handoff, ...] = ()
        self._until = 0.0  # how long it is held, by the loop's clock

    def go(self) -> None:
        """Give the mail to the next who may have it, or end."""
        ways = self._ways
        self._held.passages.discard(self)
        self._view = ways.view_of(self._mail.workspace_id)  # the plan may have changed since
        now_s = ways.now_s()
        candidates, again_at_s = self._candidates(now_s)
        while (key := candidate(self._journey, candidates)) is not None:
            way = ways.by_key[key]
            transport = ways.transport_of(way)
            ticket = ways.providers.admit(now_s, key) if transport is not None else None
            if transport is not None and ticket is not None:
                self._way, self._ticket = way, ticket
                self._journey = way.first if self._journey is FRESH else handed(self._journey, key)
                transport.submit(self._mail, self._answered)
                return
            candidates = tuple(one for one in candidates if one != key)
        self._nobody(now_s, again_at_s)

    def _candidates(self, now_s: float) -> tuple[tuple[str, ...], float | None]:
        """Who may have it, and when somebody else may."""
        ways, mail, view = self._ways, self._mail, self._view
        if mail.only:
            key = ways.key_of(view, mail.only)
            return ((key,) if key is not None else ()), None
        if view.routes is None or mail.workspace_id is None or mail.stream == TRANSACTIONAL:
            return (), None
        sole = view.sole
        if sole is not None and ways.providers.is_well(sole):
            return (sole,), None
        address = mail.recipients[0].address
        choice = ways.providers.choose(
            now_s, view.routes, envelope(mail.workspace_id, mail.stream, mail.tag, address)
        )
        return choice.candidates, choice.again_at_s

    def _answered(self, handoff: Handoff) -> None:
        ways, way = self._ways, self._way
        outcome, counts = handoff.outcome, way.counts
        if outcome is Outcome.ACCEPTED:
            counts.accepted += 1
            ways.providers.record(ways.now_s(), way.key, self._ticket, outcome, Fault.UNSURE)
            self._tell(handoff)
            return
        fault = Fault.PROVIDER if handoff.route_fault else Fault.UNSURE
        self._note(handoff, fault)
        if self._mail.only or self._held.closing:
            self._tell(handoff)
            return
        self._journey = answered(self._journey, outcome, fault)
        if self._journey.ended is not None:
            self._tell(handoff)
            return
        counts.passed_on += 1
        self._refusals = (*self._refusals, handoff)
        self.go()

    def _note(self, handoff: Handoff, fault: Fault) -> None:
        """Count an answer that is no yes. A provider is not out of order because it cannot carry
        this one mail for good: that is said of the mail alone."""
        ways, way, counts = self._ways, self._way, self._way.counts
        if handoff.outcome is Outcome.UNKNOWN:
            counts.unknown += 1
        elif handoff.outcome is Outcome.NEVER:
            counts.refused += 1
            fault = Fault.UNSURE
        else:
            counts.later += 1
        if not handoff.tried:
            ways.providers.unprobed(way.key, self._ticket)
            return
        ways.providers.record(
            ways.now_s(), way.key, self._ticket, handoff.outcome, fault, handoff.reply
        )

    def _nobody(self, now_s: float, again_at_s: float | None) -> None:
        """Nobody is left who may have it now."""
        ways = self._ways
        if self._refusals and again_at_s is None and not self._somebody_waits():
            self._tell(self._all_said(), self._refusals[:-1])
            return
        may_be_held = not self._mail.only and self._mail.stream != TRANSACTIONAL
        if not self._refusals and may_be_held and not self._held.closing and self._hold(now_s):
            return
        again_at_s = self._again_at_s(now_s)
        retry_at = datetime.fromtimestamp(again_at_s, UTC) + timedelta(
            seconds=_SPREAD_S * ways.random.random()
        )
        if self._refusals:
            last = replace(self._refusals[-1], outcome=Outcome.LATER, retry_at=retry_at)
            self._tell(last, self._refusals[:-1])
            return
        self._tell_untried(retry_at)

    def _all_said(self) -> Handoff:
        """What all who were asked say together: never, when each of them cannot carry it; later, as
        long as one of them only could not have it now."""
        last = self._refusals[-1]
        if last.outcome is Outcome.NEVER and any(
            one.outcome is Outcome.LATER for one in self._refusals
        ):
            return replace(last, outcome=Outcome.LATER)
        return last

    def _tell_untried(self, retry_at: datetime) -> None:
        why, outcome = self._why(), Outcome.LATER
        if self._mail.only and not self._legs():
            # An earlier attempt there may have been taken, and it will never say so now.
            outcome = Outcome.UNKNOWN
            why = f"an earlier attempt through {self._mail.only} ended unknown, and it is gone"
        loop = asyncio.get_running_loop()
        for recipient in self._mail.recipients:
            loop.call_soon(
                self._done,
                Handoff(
                    recipient.delivery_id,
                    outcome,
                    None,
                    why[:HANDOFF_REPLY_CHARACTERS],
                    self._mail.only,
                    route_fault=outcome is Outcome.LATER,
                    retry_at=retry_at if outcome is Outcome.LATER else None,
                    tried=outcome is not Outcome.LATER,
                ),
            )

    def _tell(self, handoff: Handoff, passed: tuple[Handoff, ...] | None = None) -> None:
        passed = self._refusals if passed is None else passed
        self._done(replace(handoff, passed=passed) if passed else handoff)

    # Waiting for somebody.

    def _legs(self) -> list[str]:
        """Everybody who could have it if he were well."""
        if self._mail.only:
            key = self._ways.key_of(self._view, self._mail.only)
            return [key] if key is not None else []
        if self._view.routes is None or self._mail.workspace_id is None:
            return []
        mail = self._mail
        asked = envelope(self._mail.workspace_id, mail.stream, mail.tag, mail.recipients[0].address)
        return [leg.provider for leg in self._view.routes.route_of(asked).legs]

    def _somebody_waits(self) -> bool:
        """Whether somebody on the route has not been asked."""
        return any(key not in self._journey.tried for key in self._legs())

    def _again_at_s(self, now_s: float) -> float:
        """When somebody who could have it may be well again."""
        ways = self._ways
        soonest = now_s + _AGAIN_S
        for key in self._legs():
            breaker = ways.providers.breaker(key)
            if not ways.by_key[key].enabled:
                continue
            if breaker.position is Position.OPEN:
                soonest = min(soonest, max(now_s, breaker.open_until_s))
            elif breaker.position is Position.HALF_OPEN:
                soonest = min(soonest, now_s + _LOOK_S)
        return soonest

    def _hold(self, now_s: float) -> bool:
        """Keep the mail for a moment, when somebody is about to be well."""
        loop = asyncio.get_running_loop()
        if not self._until:
            self._until = loop.time() + PATIENCE_S
        wait_s = max(_LOOK_S, self._again_at_s(now_s) - now_s)
        if loop.time() + wait_s > self._until:
            return False
        self._held.passages.add(self)
        loop.call_later(wait_s, self._look_again)
        return True

    def _look_again(self) -> None:
        if self in self._held.passages:
            self.go()

    def _why(self) -> str:
        if self._view.fault:
            return self._view.fault
        ways, reasons = self._ways, []
        for key in self._legs():
            way, breaker = ways.by_key[key], ways.providers.breaker(key)
            if not way.enabled:
                reasons.append(f"{way.name} is switched off")
            elif way.fault or breaker.why:
                reasons.append(f"{way.name}: {way.fault or breaker.why}")
        return "no provider can have it now" + (f" ({'; '.join(reasons)})" if reasons else "")
