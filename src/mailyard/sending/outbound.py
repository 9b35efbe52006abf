"""The way out: each mail to the provider that its workspace's routes say, and never to two.

    submit -> route -> candidates -> [breaker gives leave -> hand over -> answer] -> done

A provider that certainly has not taken a mail, for a reason of its own, lets the next one have it
(`route/failover.py` has the whole rule); whatever may have been taken is given to nobody else. In a
campaign that happens here at once, for nobody tries its mail again when a worker dies. The provider
of a transactional mail is written down before the mail leaves (`Outgoing.only`), because such a
mail is tried again after a crash, and then has to stay where it may be: it is passed on by whoever
writes that down.

Without routes everything goes by the relay of the settings, as if this were not here.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from time import time
from typing import Protocol
from uuid import UUID

import structlog
from msgspec.structs import replace

from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import MailyardError
from mailyard.sending.provider import RELAY
from mailyard.sending.route.breaker import Breaker, BreakerOptions, Position
from mailyard.sending.route.failover import (
    Fault,
    Journey,
    answered,
    candidate,
    handed,
)
from mailyard.sending.route.providers import ProviderEvent, Providers
from mailyard.sending.route.routes import Envelope, Routes
from mailyard.sending.transport import (
    HANDOFF_REPLY_CHARACTERS,
    TRANSACTIONAL,
    Handoff,
    Outcome,
    Outgoing,
    Transport,
)

_LOG = structlog.get_logger(__name__)

Done = Callable[[Handoff], None]

_FRESH = Journey()
PATIENCE_S = 5.0  # a mail is held so long for a provider that is about to be back
_LOOK_S = 0.1  # how often it is looked whether one is
_AGAIN_S = 60.0  # when a mail comes again that nobody can say anything about
_SPREAD_S = 5.0  # what waits for the same provider does not come back all at once
_ADOPTED = "another worker: "
_CHANGE_DRAIN_S = 30.0  # how long a transport that was replaced may finish


@dataclass(slots=True)
class Counts:
    """Recipients that a provider was given, by answer, since the process began."""

    accepted: int = 0
    later: int = 0
    refused: int = 0
    unknown: int = 0
    passed_on: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """How a provider fares here. `adopted`: another process found it out of order."""

    key: str
    breaker: Breaker
    counts: Counts
    changed_s: float
    adopted: bool


@dataclass(frozen=True, slots=True)
class Listed:
    """A provider as it is stored, without what is secret. `key` names it among all workspaces'."""

    key: str
    name: str
    enabled: bool
    revision: int


@dataclass(frozen=True, slots=True)
class View:
    """What one workspace sends by: its routes, whose legs are keys, and its providers by name.

    `fault`: why the routes cannot be used; its mail waits. `rewrites`: a provider on the routes
    writes Message-ID or Date anew.
    """

    routes: Routes | None
    keys: Mapping[str, str]
    fault: str = ""
    rewrites: bool = False

    @property
    def sole(self) -> str | None:
        """The provider that all mail goes to, when nothing is to be chosen."""
        if self.routes is None or len(self.routes.routes) > 1:
            return None
        legs = self.routes.routes[0].legs  # the last route takes everything
        return legs[0].provider if len(legs) == 1 else None


@dataclass(frozen=True, slots=True)
class Plan:
    """All providers by key, and the views: of who has one, and of everybody else."""

    providers: Mapping[str, Listed]
    views: Mapping[UUID, View]
    default: View


NO_PLAN = Plan({}, {}, View(None, {RELAY: RELAY}))


class Maker(Protocol):
    """Makes the transport of a provider of the plan in force. Raises MailyardError."""

    def __call__(self, key: str) -> Transport: ...


@dataclass(slots=True)
class _Way:
    """A provider as this process has it."""

    key: str
    name: str
    enabled: bool
    revision: int
    transport: Transport | None = None
    fault: str = ""
    counts: Counts = field(default_factory=Counts)
    first: Journey = _FRESH  # of a mail that was handed here at once

    def __post_init__(self) -> None:
        self.first = handed(_FRESH, self.key)


class Outbound:
    """Hands mails to providers by the plan that it was given last (`follow`).

    `relay` is the way out of the settings. One for a worker process, used on its loop.
    """

    name = "outbound"

    def __init__(
        self,
        *,
        relay: Transport,
        make: Maker,
        clock: Clock | None = None,
        random: Random | None = None,
        options: BreakerOptions | None = None,
    ) -> None:
        self._relay = relay
        self._relays = ("", RELAY, relay.name)
        self._make = make
        clock = clock or SystemClock()
        # Asked twice a mail; a datetime in between would cost as much as the rest.
        self._now_s = time if type(clock) is SystemClock else lambda: clock.now().timestamp()
        self._random = random or Random()
        self._providers = Providers(random=self._random, options=options)
        self._plan = NO_PLAN
        self._ways: dict[str, _Way] = {}
        self._held: set[_Passage] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._closing = False
        self.follow(NO_PLAN)

    # The port.

    def submit(self, mail: Outgoing, done: Done) -> None:
        """See `Transport.submit`."""
        view = self._view(mail.workspace_id)
        if view.routes is None and mail.only in self._relays and not view.fault:
            self._relay.submit(mail, done)
        elif mail.only or len(mail.recipients) == 1:
            _Passage(self, mail, done).go()
        else:
            for recipient in mail.recipients:
                _Passage(self, replace(mail, recipients=(recipient,)), done).go()

    def choose(
        self, workspace_id: UUID, stream: str, tag: str, address: str, without: Collection[str]
    ) -> str:
        """See `Chooser`."""
        view = self._view(workspace_id)
        if view.routes is None:
            return "" if self._relay.name in without or view.fault else self._relay.name
        choice = self._providers.choose(
            self._now_s(), view.routes, envelope(workspace_id, stream, tag, address)
        )
        for key in choice.candidates:
            way = self._ways[key]
            if way.name not in without and self._transport_of(way) is not None:
                return way.name
        return ""

    async def close(self, drain_s: float) -> None:
        """See `Transport.close`."""
        self._closing = True
        for passage in list(self._held):
            passage.go()
        transports = [way.transport for way in self._ways.values() if way.transport is not None]
        await asyncio.gather(*(transport.close(drain_s) for transport in transports))
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=drain_s)

    # What changes.

    def follow(self, plan: Plan) -> None:
        """Send by `plan` from now on. What is under way with a provider that was changed or taken
        away is finished there."""
        self._plan = plan
        for key, listed in plan.providers.items():
            way = self._ways.get(key)
            if way is None:
                self._ways[key] = _Way(key, listed.name, listed.enabled, listed.revision)
                continue
            if way.revision != listed.revision:
                self._leave(way)
                way.revision = listed.revision
            way.enabled = listed.enabled
        if RELAY not in self._ways:
            self._ways[RELAY] = _Way(RELAY, self._relay.name, True, 0, self._relay)
        for key in [key for key in self._ways if key not in plan.providers and key != RELAY]:
            self._leave(self._ways.pop(key))

    def adopt(self, key: str, until_s: float, why: str, at_s: float) -> None:
        """Another process found the provider out of order at `at_s`. It is believed unless this one
        has found out something since."""
        way, breaker = self._ways.get(key), self._providers.breaker(key)
        now_s = self._now_s()
        if (
            way is None
            or breaker.position is not Position.CLOSED
            or self._providers.changed_s(key) >= at_s
        ):
            return
        self._providers.pause(now_s, key, max(0.0, until_s - now_s), f"{_ADOPTED}{why}")

    def rewrites(self, workspace_id: UUID) -> bool:
        """Whether a signature of the workspace's mail must not cover Message-ID and Date."""
        return self._view(workspace_id).rewrites

    def standings(self) -> list[Standing]:
        """Each provider that was used."""
        providers = self._providers
        return [
            Standing(
                way.key,
                breaker,
                copy(way.counts),
                providers.changed_s(way.key),
                breaker.why.startswith(_ADOPTED),
            )
            for way in self._ways.values()
            if (breaker := providers.breaker(way.key)).turn or way.counts != _UNUSED
        ]

    def news(self) -> list[ProviderEvent]:
        """Which breakers changed since the last call, oldest first."""
        return list(self._providers.events())

    # What passages use.

    def _view(self, workspace_id: UUID | None) -> View:
        plan = self._plan
        return plan.views.get(workspace_id, plan.default) if workspace_id else plan.default

    def _key_of(self, view: View, name: str) -> str | None:
        """The provider that a workspace knows by `name`; None when it is gone."""
        key = RELAY if name in self._relays else view.keys.get(name)
        return key if key in self._ways else None

    def _transport_of(self, way: _Way) -> Transport | None:
        """None: it is switched off, or cannot be made."""
        if not way.enabled:
            return None
        if way.transport is None and not way.fault:
            try:
                way.transport = self._make(way.key)
            except MailyardError as error:
                way.fault = error.message
                _LOG.error("provider_not_made", provider=way.name, error=error.message)
                self._providers.pause(self._now_s(), way.key, 0.0, error.message)
        return way.transport

    def _leave(self, way: _Way) -> None:
        transport, way.transport, way.fault = way.transport, None, ""
        if transport is not None and transport is not self._relay:
            task = asyncio.get_running_loop().create_task(transport.close(_CHANGE_DRAIN_S))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)


class _Passage:
    """One mail on its way: of several recipients only when it is bound to one provider."""

    __slots__ = ("_done", "_journey", "_mail", "_out", "_refusals", "_ticket", "_until", "_view",
                 "_way")  # fmt: skip

    def __init__(self, out: Outbound, mail: Outgoing, done: Done) -> None:
        self._out = out
        self._mail = mail
        self._done = done
        self._journey = _FRESH
        self._refusals: tuple[Handoff, ...] = ()
        self._until = 0.0  # how long it is held, by the loop's clock

    def go(self) -> None:
        """Give the mail to the next who may have it, or end."""
        out = self._out
        out._held.discard(self)
        self._view = out._view(self._mail.workspace_id)  # the plan may have changed since
        now_s = out._now_s()
        candidates, again_at_s = self._candidates(now_s)
        while (key := candidate(self._journey, candidates)) is not None:
            way = out._ways[key]
            transport = out._transport_of(way)
            ticket = out._providers.admit(now_s, key) if transport is not None else None
            if transport is not None and ticket is not None:
                self._way, self._ticket = way, ticket
                self._journey = way.first if self._journey is _FRESH else handed(self._journey, key)
                transport.submit(self._mail, self._answered)
                return
            candidates = tuple(one for one in candidates if one != key)
        self._nobody(now_s, again_at_s)

    def _candidates(self, now_s: float) -> tuple[tuple[str, ...], float | None]:
        """Who may have it, and when somebody else may."""
        out, mail, view = self._out, self._mail, self._view
        if mail.only:
            key = out._key_of(view, mail.only)
            return ((key,) if key is not None else ()), None
        if view.routes is None or mail.workspace_id is None or mail.stream == TRANSACTIONAL:
            return (), None
        sole = view.sole
        if sole is not None and out._providers.is_well(sole):
            return (sole,), None
        address = mail.recipients[0].address
        choice = out._providers.choose(
            now_s, view.routes, envelope(mail.workspace_id, mail.stream, mail.tag, address)
        )
        return choice.candidates, choice.again_at_s

    def _answered(self, handoff: Handoff) -> None:
        out, way = self._out, self._way
        outcome, counts = handoff.outcome, way.counts
        if outcome is Outcome.ACCEPTED:
            counts.accepted += 1
            out._providers.record(out._now_s(), way.key, self._ticket, outcome, Fault.UNSURE)
            self._tell(handoff)
            return
        fault = Fault.PROVIDER if handoff.route_fault else Fault.UNSURE
        self._note(handoff, fault)
        if self._mail.only or out._closing:
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
        out, way, counts = self._out, self._way, self._way.counts
        if handoff.outcome is Outcome.UNKNOWN:
            counts.unknown += 1
        elif handoff.outcome is Outcome.NEVER:
            counts.refused += 1
            fault = Fault.UNSURE
        else:
            counts.later += 1
        if not handoff.tried:
            out._providers.unprobed(way.key, self._ticket)
            return
        out._providers.record(
            out._now_s(), way.key, self._ticket, handoff.outcome, fault, handoff.reply
        )

    def _nobody(self, now_s: float, again_at_s: float | None) -> None:
        """Nobody is left who may have it now."""
        out = self._out
        if self._refusals and again_at_s is None and not self._somebody_waits():
            self._tell(self._refusals[-1], self._refusals[:-1])
            return
        may_be_held = not self._mail.only and self._mail.stream != TRANSACTIONAL
        if not self._refusals and may_be_held and not out._closing and self._hold(now_s):
            return
        again_at_s = self._again_at_s(now_s)
        retry_at = datetime.fromtimestamp(again_at_s, UTC) + timedelta(
            seconds=_SPREAD_S * out._random.random()
        )
        if self._refusals:
            last = replace(self._refusals[-1], outcome=Outcome.LATER, retry_at=retry_at)
            self._tell(last, self._refusals[:-1])
            return
        self._tell_untried(retry_at)

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
            key = self._out._key_of(self._view, self._mail.only)
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
        out = self._out
        soonest = now_s + _AGAIN_S
        for key in self._legs():
            breaker = out._providers.breaker(key)
            if not out._ways[key].enabled:
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
        self._out._held.add(self)
        loop.call_later(wait_s, self._look_again)
        return True

    def _look_again(self) -> None:
        if self in self._out._held:
            self.go()

    def _why(self) -> str:
        if self._view.fault:
            return self._view.fault
        out, reasons = self._out, []
        for key in self._legs():
            way, breaker = out._ways[key], out._providers.breaker(key)
            if not way.enabled:
                reasons.append(f"{way.name} is switched off")
            elif way.fault or breaker.why:
                reasons.append(f"{way.name}: {way.fault or breaker.why}")
        return "no provider can have it now" + (f" ({'; '.join(reasons)})" if reasons else "")


_UNUSED = Counts()


def envelope(workspace_id: UUID, stream: str, tag: str, address: str) -> Envelope:
    """What routes ask of a mail to `address`."""
    domain = address.rpartition("@")[2].lower()
    return Envelope(workspace_id, frozenset((tag,)), domain, "", stream)
