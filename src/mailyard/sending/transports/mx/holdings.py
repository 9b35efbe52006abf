"""The connections that this process may have, place by place, out of what all workers may have.

A place is claimed for when mails of it wait, the parts are renewed every LEASE_RENEW_S, and one
call is under way at a time. While it is, nothing is opened for the places that it asks about. When
the store is away the parts run out: connections are let go of, what is under way on them ends.
"""

import asyncio
from collections.abc import Callable
from uuid import UUID, uuid4

import structlog

from mailyard.core.clock import Clock
from mailyard.core.errors import MailyardError
from mailyard.ratelimit.lease import (
    CLAIMS_PER_CALL,
    LEASE_RENEW_S,
    LEASE_TTL_S,
    Claim,
    Leases,
)
from mailyard.sending.shape.share import Holding, holding

_log = structlog.get_logger(__name__)

GROW_EVERY_S = 1.0  # how often more is asked for a place where mails wait
_AWAY_S = 1.0


class Holdings:
    """`claim_of`: what to claim for a key now. `changed`: what may be used of it has changed."""

    def __init__(
        self,
        leases: Leases,
        clock: Clock,
        claim_of: Callable[[str], Claim],
        changed: Callable[[str, int], None],
    ) -> None:
        self._leases = leases
        self._clock = clock
        self._claim_of = claim_of
        self._changed = changed
        self._holder: UUID = uuid4()
        self._held: dict[str, Holding] = {}
        self._told: dict[str, int] = {}
        self._wanted: dict[str, None] = {}  # to be claimed for next, in order
        self._asking: frozenset[str] = frozenset()
        self._grown_at: dict[str, float] = {}
        self._renew_at = 0.0
        self._stir = asyncio.Event()

    def usable(self, key: str) -> int:
        """How many may be open now."""
        held = self._held.get(key)
        return 0 if held is None else held.usable(self._clock.monotonic())

    def may_open(self, key: str, already: int) -> bool:
        """Whether one more may be opened."""
        return key not in self._asking and already < self.usable(key)

    def want(self, key: str) -> None:
        """Claim for `key` with the next call."""
        self._wanted[key] = None
        self._stir.set()

    def want_more(self, key: str) -> None:
        """As `want`, but not all the time."""
        now = self._clock.monotonic()
        if now - self._grown_at.get(key, -GROW_EVERY_S) >= GROW_EVERY_S:
            self._grown_at[key] = now
            self.want(key)

    def forgotten(self) -> list[str]:
        """Keys whose part has run out unnoticed, told as such; called once a second."""
        lost = [key for key, told in self._told.items() if told and self.usable(key) < told]
        for key in lost:
            self._tell(key)
        return lost

    async def keep(self) -> None:
        """Claim and renew, until cancelled."""
        while True:
            wait_s = self._renew_at - self._clock.monotonic()
            if not self._wanted and (wait_s > 0 or not self._held):
                try:
                    async with asyncio.timeout(max(wait_s, 0.01) if self._held else None):
                        await self._stir.wait()
                except TimeoutError:
                    pass
            self._stir.clear()
            keys = self._next_keys()
            if not keys:
                continue
            try:
                await self._ask(keys)
            except (MailyardError, OSError) as error:
                _log.warning("leases_away", error=str(error))
                self._wanted.update(dict.fromkeys(keys))
                await asyncio.sleep(_AWAY_S)

    async def release(self) -> None:
        """Everything is closed."""
        await self._leases.release(self._holder)

    def _next_keys(self) -> list[str]:
        if self._clock.monotonic() >= self._renew_at and self._held:
            self._renew_at = self._clock.monotonic() + LEASE_RENEW_S
            self._wanted = dict.fromkeys([*self._wanted, *self._held])
        keys = list(self._wanted)[:CLAIMS_PER_CALL]
        for key in keys:
            del self._wanted[key]
        return keys

    async def _ask(self, keys: list[str]) -> None:
        self._asking = frozenset(keys)
        try:
            claims = [self._claim_of(key) for key in keys]
            asked_at = self._clock.monotonic()
            leases = await self._leases.hold(self._holder, claims, LEASE_TTL_S)
        finally:
            self._asking = frozenset()
        if not self._held:
            self._renew_at = asked_at + LEASE_RENEW_S
        for claim, lease in zip(claims, leases, strict=True):
            if not (claim.open or claim.wanted):
                self._held.pop(claim.key, None)
                self._grown_at.pop(claim.key, None)
                if claim.key in self._wanted:
                    continue  # a mail has come meanwhile: the next call is about it
            else:
                self._held[claim.key] = holding(asked_at, lease, LEASE_TTL_S)
            self._tell(claim.key)

    def _tell(self, key: str) -> None:
        usable = self.usable(key)
        if key in self._held:
            self._told[key] = usable
        else:
            self._told.pop(key, None)
        self._changed(key, usable)
