"""From a submitted mail to the line of its site: which domain, which road, which source address.

DNS is asked once for all mails of a domain that wait for it. A source address that is being warmed
up needs a permit out of a bucket that all workers share; permits are drawn for many mails at once.
"""

from collections import defaultdict
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Protocol

import structlog

from mailyard.core.errors import InvalidInput, MailyardError
from mailyard.protocol.mx import Never
from mailyard.ratelimit.ratelimit import RateLimit, Taking
from mailyard.sending.shape.receiver import Book
from mailyard.sending.source_pool import NoSource
from mailyard.sending.transport import Outcome
from mailyard.sending.transports.mx.parcel import Parcel, domain_of
from mailyard.sending.transports.mx.road import Found, Road, Roads
from mailyard.sending.transports.mx.source import Source
from mailyard.sending.warmup import Permit

_log = structlog.get_logger(__name__)

_PERMITS_AWAY_S = 1.0


class Sources(Protocol):
    """Who sends the next mail (`sending.source_pool.SourcePool`)."""

    def pick(self, group: str) -> Source | NoSource: ...

    def permit(self, source: Source, group: str) -> Permit | None: ...

    def refused(self, source: Source, group: str, wait_s: float) -> None: ...

    def gave_back(self, source: Source, group: str) -> None: ...

    def answered(self, source: Source, group: str, bad: str) -> None: ...

    async def keep(self) -> None: ...

    async def flush(self) -> None: ...


class Entrance(Protocol):
    """The transport, as placing sees it."""

    def offer(self, parcel: Parcel) -> None:
        """The mail is placed: it may stand in its site's line."""
        ...

    def settle(self, parcel: Parcel, outcome: Outcome, code: int | None, reply: str) -> None:
        """The mail has its answer."""
        ...

    def settle_back(
        self, parcel: Parcel, until: datetime, why: str, *, route_fault: bool = False
    ) -> None:
        """The mail is to come again at that instant; with `route_fault` another way may have it."""
        ...

    def run(self, work: Coroutine[None, None, None]) -> None:
        """Do `work` beside."""
        ...


class Placing:
    """See the module. `placed`: called after answers that came later than the call."""

    def __init__(
        self,
        *,
        entrance: Entrance,
        roads: Roads,
        book: Book,
        sources: Sources,
        rate: RateLimit,
        placed: Callable[[], None],
    ) -> None:
        self._entrance = entrance
        self._roads = roads
        self._book = book
        self._sources = sources
        self._rate = rate
        self._placed = placed
        self._finding: dict[str, list[Parcel]] = {}
        self._permits: defaultdict[str, list[tuple[Parcel, Permit]]] = defaultdict(list)
        self._drawing = False

    def place(self, parcel: Parcel) -> None:
        """Find the mail's place. What is known already is done at once."""
        try:
            parcel.domain = domain_of(parcel.recipient.address)
        except InvalidInput as error:
            self._entrance.settle(parcel, Outcome.NEVER, None, f"5.1.3 {error.message}")
            return
        found = self._roads.known(parcel.domain)
        if found is not None:
            self._found(parcel, found)
            return
        waiting = self._finding.setdefault(parcel.domain, [])
        waiting.append(parcel)
        if len(waiting) == 1:
            self._entrance.run(self._find(parcel.domain))

    def emptied(self) -> list[Parcel]:
        """Everything that waits for DNS or a permit: the process ends."""
        waiting = [parcel for parcels in self._finding.values() for parcel in parcels]
        waiting += [parcel for pairs in self._permits.values() for parcel, _ in pairs]
        self._finding.clear()
        self._permits.clear()
        return waiting

    async def _find(self, domain: str) -> None:
        found: Found | None = None
        reason = ""
        try:
            found = await self._roads.find(domain)
        except Exception as error:  # whatever DNS says, its mails get an answer
            _log.error("mx_road_failed", domain=domain, exc_info=error)
            reason = f"4.4.3 the way to {domain} could not be found: {error}"
        for parcel in self._finding.pop(domain, []):
            if found is None:
                self._entrance.settle(parcel, Outcome.LATER, None, reason)
            else:
                self._found(parcel, found)
        self._placed()

    def _found(self, parcel: Parcel, found: Found) -> None:
        if not isinstance(found, Road):
            outcome = Outcome.NEVER if isinstance(found, Never) else Outcome.LATER
            self._entrance.settle(parcel, outcome, None, f"{found.status} {found.text}")
            return
        parcel.road = found
        parcel.place = self._book.place(found.route.site, parcel.domain)
        self._pick(parcel)

    def _pick(self, parcel: Parcel) -> None:
        """An address that may send it, if need be with a permit."""
        group = parcel.group
        picked = self._sources.pick(group)
        if isinstance(picked, NoSource):
            self._entrance.settle_back(
                parcel, picked.retry_at, picked.why, route_fault=picked.overflow
            )
            return
        parcel.source = picked
        permit = self._sources.permit(picked, group)
        if permit is None:
            self._entrance.offer(parcel)
            return
        self._permits[permit.key].append((parcel, permit))
        if not self._drawing:
            self._drawing = True
            self._entrance.run(self._draw())

    async def _draw(self) -> None:
        """Draw permits for everybody who waits for one."""
        try:
            while self._permits:
                asked = dict(self._permits)
                self._permits.clear()
                for key, pairs in asked.items():
                    await self._draw_for(key, pairs)
                self._placed()
        finally:
            self._drawing = False

    async def _draw_for(self, key: str, pairs: list[tuple[Parcel, Permit]]) -> None:
        """As many permits as there are: all at once, else by halves."""
        while pairs:
            count = min(len(pairs), max(1, int(pairs[0][1].burst)))
            wait_s = await self._drawn(key, pairs[0][1], count)
            while wait_s > 0 and count > 1:
                count = max(1, count // 2)
                wait_s = await self._drawn(key, pairs[0][1], count)
            if wait_s > 0:
                for parcel, _ in pairs:
                    assert parcel.source is not None, "picked before"
                    self._sources.refused(parcel.source, parcel.group, wait_s)
                    parcel.source = None
                    self._pick(parcel)
                return
            for parcel, _ in pairs[:count]:
                self._entrance.offer(parcel)
            pairs = pairs[count:]

    async def _drawn(self, key: str, permit: Permit, count: int) -> float:
        taking = Taking(key, count, permit.per_s, permit.burst)
        try:
            return (await self._rate.draw_many([taking]))[0].wait_s
        except (MailyardError, OSError) as error:
            _log.warning("permits_away", error=str(error))
            return _PERMITS_AWAY_S
