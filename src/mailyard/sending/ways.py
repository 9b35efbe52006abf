"""The providers as this process has them: their transports, their counts, whether they are well."""

import asyncio
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from random import Random
from typing import Protocol
from uuid import UUID

import structlog

from mailyard.core.errors import MailyardError
from mailyard.sending.provider import RELAY
from mailyard.sending.route.breaker import Breaker, BreakerOptions, Position
from mailyard.sending.route.failover import Journey, handed
from mailyard.sending.route.plan import NO_PLAN, Plan, View
from mailyard.sending.route.providers import Providers
from mailyard.sending.transport import Transport

_LOG = structlog.get_logger(__name__)

FRESH = Journey()
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


class Maker(Protocol):
    """Makes the transport of a provider of the plan in force. Raises MailyardError."""

    def __call__(self, key: str) -> Transport: ...


@dataclass(slots=True)
class Way:
    """A provider as this process has it."""

    key: str
    name: str
    enabled: bool
    revision: int
    transport: Transport | None = None
    fault: str = ""
    counts: Counts = field(default_factory=Counts)
    first: Journey = FRESH  # of a mail that was handed here at once

    def __post_init__(self) -> None:
        self.first = handed(FRESH, self.key)


class Ways:
    """All providers by the plan that is followed, and the relay of the settings among them.

    `now_s`: seconds since 1970. Passages of mail ask here who may have it.
    """

    def __init__(
        self,
        *,
        relay: Transport,
        make: Maker,
        now_s: Callable[[], float],
        random: Random,
        options: BreakerOptions | None,
    ) -> None:
        self.relay = relay
        self.now_s = now_s
        self.random = random
        self.providers = Providers(random=random, options=options)
        self.by_key: dict[str, Way] = {}
        self.relays = ("", RELAY, relay.name)
        self._make = make
        self._plan = NO_PLAN
        self._leaving: set[asyncio.Task[None]] = set()
        self.follow(NO_PLAN)

    def follow(self, plan: Plan) -> None:
        """Send by `plan` from now on. What is under way with a provider that was changed or taken
        away is finished there."""
        self._plan = plan
        for key, listed in plan.providers.items():
            way = self.by_key.get(key)
            if way is None:
                self.by_key[key] = Way(key, listed.name, listed.enabled, listed.revision)
                continue
            if way.revision != listed.revision:
                self._leave(way)
                way.revision = listed.revision
            way.enabled = listed.enabled
        if RELAY not in self.by_key:
            self.by_key[RELAY] = Way(RELAY, self.relay.name, True, 0, self.relay)
        for key in [key for key in self.by_key if key not in plan.providers and key != RELAY]:
            self._leave(self.by_key.pop(key))

    def adopt(self, key: str, until_s: float, why: str, at_s: float) -> None:
        """Another process found the provider out of order at `at_s`. It is believed unless this one
        has found out something since."""
        way, breaker = self.by_key.get(key), self.providers.breaker(key)
        now_s = self.now_s()
        if (
            way is None
            or breaker.position is not Position.CLOSED
            or self.providers.changed_s(key) >= at_s
        ):
            return
        self.providers.pause(now_s, key, max(0.0, until_s - now_s), f"{_ADOPTED}{why}")

    def standings(self) -> list[Standing]:
        """Each provider that was used."""
        providers = self.providers
        return [
            Standing(
                way.key,
                breaker,
                copy(way.counts),
                providers.changed_s(way.key),
                breaker.why.startswith(_ADOPTED),
            )
            for way in self.by_key.values()
            if (breaker := providers.breaker(way.key)).turn or way.counts != _UNUSED
        ]

    def view_of(self, workspace_id: UUID | None) -> View:
        """What a workspace sends by now."""
        plan = self._plan
        return plan.views.get(workspace_id, plan.default) if workspace_id else plan.default

    def key_of(self, view: View, name: str) -> str | None:
        """The provider that a workspace knows by `name`; None when it is gone."""
        key = RELAY if name in self.relays else view.keys.get(name)
        return key if key in self.by_key else None

    def transport_of(self, way: Way) -> Transport | None:
        """None: it is switched off, or cannot be made."""
        if not way.enabled:
            return None
        if way.transport is None and not way.fault:
            try:
                way.transport = self._make(way.key)
            except MailyardError as error:
                way.fault = error.message
                _LOG.error("provider_not_made", provider=way.name, error=error.message)
                self.providers.pause(self.now_s(), way.key, 0.0, error.message)
        return way.transport

    def _leave(self, way: Way) -> None:
        transport, way.transport, way.fault = way.transport, None, ""
        if transport is not None and transport is not self.relay:
            task = asyncio.get_running_loop().create_task(transport.close(_CHANGE_DRAIN_S))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def close(self, drain_s: float) -> None:
        """End all transports within `drain_s`, those that were replaced too."""
        transports = [way.transport for way in self.by_key.values() if way.transport is not None]
        await asyncio.gather(*(transport.close(drain_s) for transport in transports))
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=drain_s)


_UNUSED = Counts()
