"""All connections of this process, place by place, within what it may have of each.

A place may have several pools: a receiver with many sites, domains with policies of their own. They
share the place's connections, so who has one that does nothing lets go of it for who has mails.
"""

from collections import defaultdict
from collections.abc import Callable

from mailyard.core.clock import Clock
from mailyard.ratelimit.lease import Claim, Leases
from mailyard.sending.shape.dispatch import Dispatch, HandedBack
from mailyard.sending.shape.receiver import Place
from mailyard.sending.shape.share import claim
from mailyard.sending.shape.site import HELD_PER_CONNECTION
from mailyard.sending.transports.mx.holdings import Holdings
from mailyard.sending.transports.mx.parcel import Parcel
from mailyard.sending.transports.mx.pool import Pool
from mailyard.sending.transports.mx.yard import Yard

_COUNT_EVERY_S = 0.1
_CROWDED_SHARE = 0.6


class Pools:
    """`handed_back`: mails that have no connection to wait for. `stir`: something may go."""

    def __init__(
        self,
        *,
        yard: Yard,
        dispatch: Dispatch[Parcel],
        leases: Leases,
        clock: Clock,
        handed_back: Callable[[HandedBack[Parcel]], None],
        stir: Callable[[], None],
    ) -> None:
        self._yard = yard
        self._dispatch = dispatch
        self._clock = clock
        self._handed_back = handed_back
        self._stir = stir
        self.holdings = Holdings(leases, clock, self._claim, self._leased)
        self._pools: dict[str, dict[object, Pool]] = {}
        self._open_at_most = 0  # since the last count, without what has been closed
        self._counted_at = 0.0

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return bool(self._pools)

    def every(self) -> list[Pool]:
        """All of them."""
        return [pool for pools in self._pools.values() for pool in pools.values()]

    def give(self, key: str, place: Place, parcels: list[Parcel]) -> None:
        """Mails of one turn, to the pools that have or open connections for them."""
        by_pool: defaultdict[Pool, list[Parcel]] = defaultdict(list)
        for parcel in parcels:
            by_pool[self._pool(key, place, parcel)].append(parcel)
        for pool, own in by_pool.items():
            pool.push(own)
        if self.holdings.usable(key) * HELD_PER_CONNECTION <= self._dispatch.state(key).held:
            self.holdings.want_more(key)

    def may_open(self, key: str) -> bool:
        """Whether one more connection to the place of `key` may be opened; it is then."""
        if not self.holdings.may_open(key, self._open(key)) or not self._has_room():
            return False
        self._open_at_most += 1
        return True

    def _has_room(self) -> bool:
        """Whether the process may have one connection more."""
        most = self._yard.options.connections_max
        now = self._clock.monotonic()
        if self._open_at_most >= most and now - self._counted_at >= _COUNT_EVERY_S:
            self._count(now)
        return self._open_at_most < most

    def _count(self, now: float) -> None:
        self._open_at_most = sum(pool.open for pool in self.every())
        self._counted_at = now

    def starved(self, key: str) -> None:
        """Mails wait, and other pools have all connections of `key`."""
        for pool in self._pools.get(key, {}).values():
            if pool.close_idle():
                return
        self.holdings.want_more(key)

    def freed(self, key: str) -> None:
        """A connection has ended: another pool may open one."""
        for pool in self._pools.get(key, {}).values():
            if pool.waiting and not pool.open:
                pool.dispatch()

    def sweep(self, now: float) -> None:
        """Time limits, once a second by the loop's clock; what is not needed is forgotten."""
        self._count(self._clock.monotonic())
        crowded = self._open_at_most > _CROWDED_SHARE * self._yard.options.connections_max
        for key, pools in list(self._pools.items()):
            for shares, pool in list(pools.items()):
                pool.sweep(now, crowded=crowded)
                if pool.empty:
                    del pools[shares]
            if not pools:
                del self._pools[key]
                self.holdings.want(key)  # with nothing open and nothing waiting: given back
        self.holdings.forgotten()

    def _pool(self, key: str, place: Place, parcel: Parcel) -> Pool:
        assert parcel.road is not None and parcel.source is not None, "placed before"
        pools = self._pools.setdefault(key, {})
        pool = pools.get(parcel.road.shares)
        if pool is None:
            pool = Pool(self._yard, key, place, parcel.road, parcel.source)
            pools[parcel.road.shares] = pool
        pool.road, pool.place = parcel.road, place
        return pool

    def _open(self, key: str) -> int:
        return sum(pool.open for pool in self._pools.get(key, {}).values())

    def _claim(self, key: str) -> Claim:
        opened = self._open(key)
        place = self._dispatch.place(key)
        if place is None:
            return Claim(key, opened, 0, opened)
        site = self._dispatch.state(key)
        # Connections that are open stay useful for a while: their idle time ends them.
        waiting = max(self._dispatch.line(key) + site.held, opened * HELD_PER_CONNECTION)
        now_s = self._clock.now().timestamp()
        return claim(now_s, key, site, place.receiver.limits, opened, waiting)

    def _leased(self, key: str, connections: int) -> None:
        """The store has spoken, or has been silent for too long."""
        back = self._dispatch.leased(self._clock.now().timestamp(), key, connections)
        if back is not None:
            self._handed_back(back)
        pools = list(self._pools.get(key, {}).values())
        excess = self._open(key) - connections
        for pool in pools:
            while excess > 0 and pool.close_idle():
                excess -= 1
        for pool in pools:
            if excess > 0:
                excess -= pool.quit(excess)
        for pool in pools:
            if pool.waiting:
                pool.dispatch()
        self._stir()
