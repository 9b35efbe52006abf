"""Own delivery: every mail to the mail servers of its recipient's domain.

    submit -> road (DNS, MTA-STS) -> source address -> line of its site
    line -> [connections leased, rate drawn, over all workers] -> turn -> pool -> connection
    answer -> rule of the receiver -> the mail's outcome, and how the site is written to from now on

A mail that cannot go soon is handed back with the instant at which to come again, so that neither a
slow site nor a dead one keeps the worker's places from the others. Every mail of a turn is told to
shaping exactly once: what its answer was, or that it did not go.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from random import Random
from typing import Protocol
from uuid import UUID

import structlog

from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import InvalidInput, MailyardError
from mailyard.protocol.mx import Never
from mailyard.protocol.smtp.client_mail import Stage, Verdict
from mailyard.ratelimit.lease import Claim, Leases
from mailyard.ratelimit.ratelimit import RateLimit
from mailyard.sending.shape.answer import Phase, read_answer
from mailyard.sending.shape.dispatch import Dispatch, HandedBack, Wanted
from mailyard.sending.shape.receiver import Book, Place
from mailyard.sending.shape.rule import Verdict as Ruled
from mailyard.sending.shape.share import claim, taking
from mailyard.sending.shape.site import HELD_PER_CONNECTION, Reaction
from mailyard.sending.transport import Handoff, Outcome, Outgoing
from mailyard.sending.transports.mx.holdings import Holdings
from mailyard.sending.transports.mx.memory import Memory
from mailyard.sending.transports.mx.parcel import OUTCOMES, Parcel, domain_of
from mailyard.sending.transports.mx.pool import Pool
from mailyard.sending.transports.mx.road import Found, Road, Roads
from mailyard.sending.transports.mx.secure import Security, TlsCounts
from mailyard.sending.transports.mx.source import Source
from mailyard.sending.transports.mx.yard import MxOptions

_log = structlog.get_logger(__name__)

_SWEEP_S = 1.0
_QUIT_S = 1.0
_DRAW_AGAIN_S = 1.0  # when the store of the rates is away
COME_BACK_S = 30.0  # who waited in vain for a connection; with jitter
RETRY_JITTER = 0.2
_CUT = "shutting down"

Suppress = Callable[[UUID, str, UUID, str], None]
"""(workspace, address, delivery, what was said): nothing more to this recipient."""


class Keeper(Protocol):
    """What collects for the database beside the work (`tls_count`, `late_stops`)."""

    async def keep(self) -> None:
        """Write now and then, until cancelled."""
        ...

    async def flush(self) -> None:
        """Write everything now."""
        ...


class Board(Protocol):
    """Where what is learnt of sites is shown, and told to the others (`sending.shaping_board`)."""

    def note(
        self, key: str, place: Place, outcome: Outcome, shown: str, reaction: Reaction
    ) -> None: ...

    async def keep(self, sites: Dispatch[Parcel], stir: Callable[[], None]) -> None: ...

    async def flush(self, sites: Dispatch[Parcel], *, all_of_it: bool = False) -> None: ...


class MxTransport:
    """Hands mails to the mail servers of their domains. One a process: limits are its shares."""

    def __init__(
        self,
        *,
        name: str,
        roads: Roads,
        security: Security,
        book: Book,
        rate: RateLimit,
        leases: Leases,
        source: Source,
        board: Board | None = None,
        tls_counts: TlsCounts | None = None,
        suppress: Suppress | None = None,
        keepers: Sequence[Keeper] = (),
        options: MxOptions | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        self.name = name
        self.options = options or MxOptions()
        self.security = security
        self.tls_counts = tls_counts
        self.random = random or Random()
        self.slow = Memory()
        self.clear = Memory()
        self._roads = roads
        self._book = book
        self._rate = rate
        self._source = source
        self._board = board
        self._suppress = suppress
        self._keepers = keepers
        self._clock = clock or SystemClock()
        self.dispatch: Dispatch[Parcel] = Dispatch(random=self.random, leased=0)
        self._holdings = Holdings(leases, self._clock, self._claim, self._leased)
        self._pools: dict[str, dict[object, Pool]] = {}
        self._finding: dict[str, list[Parcel]] = {}
        self._incoming: list[Parcel] = []
        self._draws: dict[str, Wanted] = {}
        self._drawing = False
        self._unanswered = 0
        self._answered_all = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._kept = False
        self._pump_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._sweep_due = False
        self._closed = False

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """See `Yard.loop`."""
        return asyncio.get_running_loop()

    # The port ---------------------------------------------------------------------------------

    def submit(self, mail: Outgoing, done: Callable[[Handoff], None]) -> None:
        """See `Transport.submit`."""
        for recipient in mail.recipients:
            self._unanswered += 1
            self._incoming.append(Parcel(mail, recipient, done, ""))
        self._pump_soon()

    async def close(self, drain_s: float) -> None:
        """See `Transport.close`."""
        self._answered_all.clear()
        if self._unanswered:
            try:
                await asyncio.wait_for(self._answered_all.wait(), drain_s)
            except TimeoutError:
                _log.warning("mx_transport_cut", transport=self.name, mails=self._unanswered)
        self._closed = True
        pools = self._all_pools()
        closed = [future for pool in pools for future in pool.quit_all()]
        for pool in pools:
            self.handed_back(pool.take_queue(), pool.key, _CUT)
        self._give_up_lines()
        if closed:
            await asyncio.wait(closed, timeout=min(_QUIT_S, drain_s))
        for pool in pools:
            pool.fail(_CUT)
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._kept:
            await self._leave()

    async def _leave(self) -> None:
        """Write what was learnt, and give back what was held."""
        work = [keeper.flush() for keeper in self._keepers]
        if self._board is not None:
            work.append(self._board.flush(self.dispatch, all_of_it=True))
        work.append(self._holdings.release())
        for done in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(done, Exception):
                _log.warning("mx_transport_left_untidy", error=str(done))  # leases run out alone

    def _give_up_lines(self) -> None:
        """What has no turn yet, or no road."""
        waiting = [parcel for parcels in self._finding.values() for parcel in parcels]
        waiting += self._incoming
        self._finding.clear()
        self._incoming = []
        for parcel in waiting + self.dispatch.emptied():
            self._settle_back(parcel, self._now_s(), _CUT)

    # From submitted mails to turns --------------------------------------------------------------

    def _pump_soon(self) -> None:
        if not self._pump_due:
            self._pump_due = True
            self.loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Place what is new, then let go what may go."""
        self._pump_due = False
        if not self._kept:
            self._keep()
        incoming, self._incoming = self._incoming, []
        for parcel in incoming:
            self._look_up(parcel)
        self._take()
        if not self._sweep_due and not self._closed:
            self._sweep_due = True
            self.loop.call_later(_SWEEP_S, self._sweep)

    def _keep(self) -> None:
        """Begin what goes on beside the mails."""
        self._kept = True
        self.run(self._holdings.keep())
        if self._board is not None:
            self.run(self._board.keep(self.dispatch, self._pump_soon))
        for keeper in self._keepers:
            self.run(keeper.keep())

    def _look_up(self, parcel: Parcel) -> None:
        if self._closed:
            self._settle_back(parcel, self._now_s(), "the transport is closed")
            return
        try:
            parcel.domain = domain_of(parcel.recipient.address)
        except InvalidInput as error:
            self._settle(parcel, Outcome.NEVER, None, f"5.1.3 {error.message}")
            return
        found = self._roads.known(parcel.domain)
        if found is not None:
            self._place(parcel, found)
            return
        waiting = self._finding.setdefault(parcel.domain, [])
        waiting.append(parcel)
        if len(waiting) == 1:
            self.run(self._find(parcel.domain))

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
                self._settle(parcel, Outcome.LATER, None, reason)
            else:
                self._place(parcel, found)
        self._pump_soon()

    def _place(self, parcel: Parcel, found: Found) -> None:
        if not isinstance(found, Road):
            outcome = Outcome.NEVER if isinstance(found, Never) else Outcome.LATER
            self._settle(parcel, outcome, None, f"{found.status} {found.text}")
            return
        parcel.road = found
        parcel.source = self._source
        self._offer(parcel)

    def _offer(self, parcel: Parcel) -> None:
        assert parcel.road is not None and parcel.source is not None, "placed before"
        place = self._book.place(parcel.road.route.site, parcel.domain)
        parcel.key = place.key(parcel.source.name)
        parcel.waits_since_s = self.loop.time()
        back = self.dispatch.offer(self._now_s(), parcel.key, place, parcel)
        if back is not None:
            self._hand_back(back)

    def _take(self) -> None:
        """Turns, draws and leases, until nobody can go."""
        now_s = self._now_s()
        taken = self.dispatch.take(now_s, max(1, self.dispatch.waiting))
        for back in taken.back:
            self._hand_back(back)
        for turn in taken.turns:
            by_pool: defaultdict[Pool, list[Parcel]] = defaultdict(list)
            for parcel in turn.mails:
                by_pool[self._pool(turn.key, turn.place, parcel)].append(parcel)
            for pool, parcels in by_pool.items():
                pool.push(parcels)
            if self._holdings.usable(turn.key) * HELD_PER_CONNECTION <= self._held(turn.key):
                self._holdings.want_more(turn.key)
        for key in taken.leases:
            self._holdings.want(key)
        for wanted in taken.draws:
            self._draws[wanted.key] = wanted
        if self._draws and not self._drawing:
            self._drawing = True
            self.run(self._draw())
        self._set_timer(now_s)

    def _set_timer(self, now_s: float) -> None:
        at_s = self.dispatch.next_at_s()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at_s is not None and not self._closed:
            self._timer = self.loop.call_later(max(0.0, at_s - now_s), self._pump_soon)

    async def _draw(self) -> None:
        """Ask the buckets of all workers, everybody's wishes at once."""
        try:
            while self._draws:
                wanted = list(self._draws.values())
                self._draws.clear()
                try:
                    drawn = await self._rate.draw_many([taking(one) for one in wanted])
                except (MailyardError, OSError) as error:
                    _log.warning("rates_away", error=str(error))
                    waits = [_DRAW_AGAIN_S] * len(wanted)
                else:
                    waits = [one.wait_s for one in drawn]
                for one, wait_s in zip(wanted, waits, strict=True):
                    self.dispatch.drawn(one, wait_s)
                self._take()
        finally:
            self._drawing = False

    # Connections --------------------------------------------------------------------------------

    def _pool(self, key: str, place: Place, parcel: Parcel) -> Pool:
        assert parcel.road is not None and parcel.source is not None, "placed before"
        pools = self._pools.setdefault(key, {})
        pool = pools.get(parcel.road.shares)
        if pool is None:
            pool = pools[parcel.road.shares] = Pool(self, key, place, parcel.road, parcel.source)
        pool.road, pool.place = parcel.road, place
        return pool

    def _all_pools(self) -> list[Pool]:
        return [pool for pools in self._pools.values() for pool in pools.values()]

    def _open(self, key: str) -> int:
        return sum(pool.open for pool in self._pools.get(key, {}).values())

    def _held(self, key: str) -> int:
        return self.dispatch.state(key).held

    def _claim(self, key: str) -> Claim:
        opened = self._open(key)
        site = self.dispatch.state(key)
        waiting = self.dispatch.line(key) + site.held
        place = self.dispatch.place(key)
        if place is None:
            return Claim(key, opened, 0, opened)
        useful = max(waiting, opened * HELD_PER_CONNECTION)
        return claim(self._now_s(), key, site, place.receiver.limits, opened, useful)

    def _leased(self, key: str, connections: int) -> None:
        """The store has spoken, or has been silent for too long."""
        back = self.dispatch.leased(self._now_s(), key, connections)
        if back is not None:
            self._hand_back(back)
        pools = list(self._pools.get(key, {}).values())
        excess = self._open(key) - connections
        for pool in pools:
            if excess > 0 and pool.close_idle():
                excess -= 1
        for pool in pools:
            if excess > 0:
                excess -= pool.quit(excess)
        for pool in pools:
            if pool.waiting:
                pool.dispatch()
        self._pump_soon()

    def may_open(self, key: str) -> bool:
        """See `Yard.may_open`."""
        return not self._closed and self._holdings.may_open(key, self._open(key))

    def starved(self, key: str) -> None:
        """See `Yard.starved`."""
        for pool in self._pools.get(key, {}).values():
            if pool.close_idle():
                return
        self._holdings.want_more(key)

    def freed(self, key: str) -> None:
        """See `Yard.freed`."""
        for pool in self._pools.get(key, {}).values():
            if pool.waiting and not pool.open:
                pool.dispatch()

    # Answers ------------------------------------------------------------------------------------

    def answered(self, parcel: Parcel, verdict: Verdict, where: str) -> None:
        """See `Yard.answered`."""
        outcome = OUTCOMES[verdict.fate]
        said = f"{verdict.text} ({where})"
        if verdict.stage is Stage.HERE:
            self.dispatch.released(parcel.key, 1)
            self._settle(parcel, outcome, verdict.code, said)
            self._pump_soon()
            return
        now_s = self._now_s()
        answer = read_answer(outcome, verdict.code, verdict.text, Phase(verdict.stage.value))
        reaction = self.dispatch.observe(now_s, parcel.key, answer)
        if self._board is not None:
            place = self.dispatch.place(parcel.key)
            if place is not None:
                self._board.note(parcel.key, place, outcome, answer.shown, reaction)
        ruling = reaction.ruling
        if ruling.verdict is None:
            self._settle(parcel, outcome, verdict.code, said)
        elif ruling.verdict is Ruled.RETRY:
            retry_at = None
            if ruling.retry_s is not None:
                retry_at = self._at(now_s + ruling.retry_s * (1 + RETRY_JITTER * self._jitter()))
            self._settle(parcel, Outcome.LATER, verdict.code, said, retry_at)
        else:
            if ruling.verdict is Ruled.SUPPRESS:
                self._tell_suppressed(parcel, reaction.rule, answer.shown)
            self._settle(parcel, Outcome.NEVER, verdict.code, said)
        self._pump_soon()

    def _tell_suppressed(self, parcel: Parcel, rule: str, shown: str) -> None:
        workspace_id = parcel.mail.workspace_id
        if self._suppress is not None and workspace_id is not None:
            recipient = parcel.recipient
            said = f"{rule}: {shown}"
            self._suppress(workspace_id, recipient.address, recipient.delivery_id, said)

    def again(self, parcel: Parcel) -> None:
        """See `Yard.again`."""
        self.dispatch.released(parcel.key, 1)
        if self._closed:
            self._settle_back(parcel, self._now_s(), _CUT)
            return
        self._offer(parcel)
        self._pump_soon()

    def handed_back(self, parcels: list[Parcel], key: str, why: str) -> None:
        """See `Yard.handed_back`."""
        if not parcels:
            return
        self.dispatch.released(key, len(parcels))
        until_s = self._now_s() + (0.0 if self._closed else COME_BACK_S * (1 + self._jitter()))
        for parcel in parcels:
            self._settle_back(parcel, until_s, why)

    def _hand_back(self, back: HandedBack[Parcel]) -> None:
        for parcel in back.mails:
            self._settle_back(parcel, back.until_s, back.why)

    def _settle_back(self, parcel: Parcel, until_s: float, why: str) -> None:
        """The mail has not gone; it is to come again at that instant."""
        parcel.settle(
            self.name,
            Outcome.LATER,
            None,
            f"not tried: {why}",
            retry_at=self._at(until_s),
            tried=False,
        )
        self._count_answered()

    def _settle(
        self,
        parcel: Parcel,
        outcome: Outcome,
        code: int | None,
        reply: str,
        retry_at: datetime | None = None,
    ) -> None:
        parcel.settle(self.name, outcome, code, reply, retry_at=retry_at)
        self._count_answered()

    def _count_answered(self) -> None:
        self._unanswered -= 1
        if not self._unanswered:
            self._answered_all.set()

    # Time ---------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        """Time limits, once a second while there is anything."""
        now = self.loop.time()
        for key, pools in list(self._pools.items()):
            for shares, pool in list(pools.items()):
                pool.sweep(now)
                if pool.empty:
                    del pools[shares]
            if not pools:
                del self._pools[key]
                self._holdings.want(key)  # with nothing open and nothing waiting: given back
        self._holdings.forgotten()
        if self.dispatch.waiting:
            for key, oldest in self.dispatch.lines():
                if now - oldest.waits_since_s > self.options.turn_s:
                    for back in self.dispatch.shed(self._now_s(), key):
                        self._hand_back(back)
        self._sweep_due = bool(self._pools or self._unanswered) and not self._closed
        if self._sweep_due:
            self.loop.call_later(_SWEEP_S, self._sweep)

    def run(self, work: Coroutine[None, None, None]) -> None:
        """See `Yard.run`."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def now(self) -> datetime:
        """See `Yard.now`."""
        return self._clock.now()

    def _now_s(self) -> float:
        return self._clock.now().timestamp()

    def _at(self, seconds: float) -> datetime:
        return datetime.fromtimestamp(seconds, UTC)

    def _jitter(self) -> float:
        return self.random.random()
