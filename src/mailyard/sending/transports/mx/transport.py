"""Own delivery: every mail to the mail servers of its recipient's domain.

    submit -> road (DNS, MTA-STS) -> source address -> line of its site
    line -> [connections leased, rate drawn, over all workers] -> turn -> pool -> connection
    answer -> rule of the receiver -> the mail's outcome, and how the site is written to from now on

A mail that cannot go soon is handed back with the instant at which to come again, so that neither a
slow site nor a dead one keeps the worker's places from the others. Every mail of a turn is told to
shaping exactly once: what its answer was, or that it did not go.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from random import Random

import structlog

from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import MailyardError
from mailyard.protocol.smtp.client_mail import Stage, Verdict
from mailyard.ratelimit.lease import Leases
from mailyard.ratelimit.ratelimit import RateLimit
from mailyard.sending.shape.answer import Answer, Phase, read_answer
from mailyard.sending.shape.dispatch import Dispatch, HandedBack, Wanted
from mailyard.sending.shape.receiver import Book
from mailyard.sending.shape.rule import Verdict as Ruled
from mailyard.sending.shape.rule import is_about_us
from mailyard.sending.shape.share import taking
from mailyard.sending.shape.site import Reaction
from mailyard.sending.transport import Handoff, Outcome, Outgoing
from mailyard.sending.transports.mx.keepers import Board, Keeper, Suppress
from mailyard.sending.transports.mx.memory import Memory
from mailyard.sending.transports.mx.parcel import OUTCOMES, Parcel
from mailyard.sending.transports.mx.placing import Placing, Sources
from mailyard.sending.transports.mx.pools import Pools
from mailyard.sending.transports.mx.road import Roads
from mailyard.sending.transports.mx.secure import Security, TlsCounts
from mailyard.sending.transports.mx.yard import MxOptions

_log = structlog.get_logger(__name__)

_SWEEP_S = 1.0
_QUIT_S = 1.0
_DRAW_AGAIN_S = 1.0  # when the store of the rates is away
COME_BACK_S = 30.0  # who waited in vain for a connection; with jitter
RETRY_JITTER = 0.2
_CUT = "shutting down"


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
        sources: Sources,
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
        self._rate = rate
        self._sources = sources
        self._board = board
        self._suppress = suppress
        self._keepers = keepers
        self._clock = clock or SystemClock()
        self.dispatch: Dispatch[Parcel] = Dispatch(random=self.random, leased=0)
        self._pools = Pools(
            yard=self,
            dispatch=self.dispatch,
            leases=leases,
            clock=self._clock,
            handed_back=self._hand_back,
            stir=self._pump_soon,
        )
        self._placing = Placing(
            entrance=self,
            roads=roads,
            book=book,
            sources=sources,
            rate=rate,
            placed=self._pump_soon,
        )
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
        pools = self._pools.every()
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
        work = [keeper.flush() for keeper in (self._sources, *self._keepers)]
        if self._board is not None:
            work.append(self._board.flush(self.dispatch, all_of_it=True))
        work.append(self._pools.holdings.release())
        for done in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(done, Exception):
                _log.warning("mx_transport_left_untidy", error=str(done))  # leases run out alone

    def _give_up_lines(self) -> None:
        """What has no turn yet, or no road."""
        waiting, self._incoming = self._incoming, []
        for parcel in waiting + self._placing.emptied() + self.dispatch.emptied():
            self.settle_back(parcel, self.now(), _CUT)

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
            if self._closed:
                self.settle_back(parcel, self.now(), "the transport is closed")
            else:
                self._placing.place(parcel)
        self._take()
        if not self._sweep_due and not self._closed:
            self._sweep_due = True
            self.loop.call_later(_SWEEP_S, self._sweep)

    def _keep(self) -> None:
        """Begin what goes on beside the mails."""
        self._kept = True
        self.run(self._pools.holdings.keep())
        if self._board is not None:
            self.run(self._board.keep(self.dispatch, self._pump_soon))
        for keeper in (self._sources, *self._keepers):
            self.run(keeper.keep())

    def offer(self, parcel: Parcel) -> None:
        """See `Entrance.offer`."""
        assert parcel.place is not None and parcel.source is not None, "placed before"
        if self._closed:
            self.settle_back(parcel, self.now(), _CUT)
            return
        parcel.key = parcel.place.key(parcel.source.name)
        parcel.waits_since_s = self.loop.time()
        back = self.dispatch.offer(self._now_s(), parcel.key, parcel.place, parcel)
        if back is not None:
            self._hand_back(back)

    def _take(self) -> None:
        """Turns, draws and leases, until nobody can go."""
        now_s = self._now_s()
        taken = self.dispatch.take(now_s, max(1, self.dispatch.waiting))
        for back in taken.back:
            self._hand_back(back)
        for turn in taken.turns:
            self._pools.give(turn.key, turn.place, turn.mails)
        for key in taken.leases:
            self._pools.holdings.want(key)
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

    # What pools ask -----------------------------------------------------------------------------

    def may_open(self, key: str) -> bool:
        """See `Yard.may_open`."""
        return not self._closed and self._pools.may_open(key)

    def starved(self, key: str) -> None:
        """See `Yard.starved`."""
        self._pools.starved(key)

    def freed(self, key: str) -> None:
        """See `Yard.freed`."""
        self._pools.freed(key)

    # Answers ------------------------------------------------------------------------------------

    def answered(self, parcel: Parcel, verdict: Verdict, where: str) -> None:
        """See `Yard.answered`."""
        outcome = OUTCOMES[verdict.fate]
        said = f"{verdict.text} ({where})"
        parcel.stage = verdict.stage.value
        if verdict.stage is Stage.HERE:
            self.dispatch.released(parcel.key, 1)
            self.settle(parcel, outcome, verdict.code, said)
            self._pump_soon()
            return
        now_s = self._now_s()
        answer = read_answer(outcome, verdict.code, verdict.text, Phase(verdict.stage.value))
        reaction = self.dispatch.observe(now_s, parcel.key, answer)
        self._tell(parcel, answer, reaction)
        ruling = reaction.ruling
        if ruling.verdict is None:
            self.settle(parcel, outcome, verdict.code, said)
        elif ruling.verdict is Ruled.RETRY:
            retry_at = None
            if ruling.retry_s is not None:
                wait_s = ruling.retry_s * (1 + RETRY_JITTER * self.random.random())
                retry_at = self.now() + timedelta(seconds=wait_s)
            self.settle(parcel, Outcome.LATER, verdict.code, said, retry_at)
        else:
            if ruling.verdict is Ruled.SUPPRESS:
                self._tell_suppressed(parcel, reaction.rule, answer.shown)
            self.settle(parcel, Outcome.NEVER, verdict.code, said)
        self._pump_soon()

    def _tell(self, parcel: Parcel, answer: Answer, reaction: Reaction) -> None:
        """Whoever keeps account of answers."""
        assert parcel.place is not None and parcel.source is not None, "placed before"
        if self._board is not None:
            self._board.note(parcel.key, parcel.place, answer.outcome, answer.shown, reaction)
        bad = (
            answer.shown if is_about_us(parcel.place.receiver.rules, answer, reaction.rule) else ""
        )
        self._sources.answered(parcel.source, parcel.group, bad)

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
            self.settle_back(parcel, self.now(), _CUT)
            return
        self.offer(parcel)
        self._pump_soon()

    def handed_back(self, parcels: list[Parcel], key: str, why: str) -> None:
        """See `Yard.handed_back`."""
        if not parcels:
            return
        self.dispatch.released(key, len(parcels))
        wait_s = 0.0 if self._closed else COME_BACK_S * (1 + self.random.random())
        for parcel in parcels:
            self.settle_back(parcel, self.now() + timedelta(seconds=wait_s), why)

    def _hand_back(self, back: HandedBack[Parcel]) -> None:
        until = datetime.fromtimestamp(back.until_s, UTC)
        for parcel in back.mails:
            self.settle_back(parcel, until, back.why)

    def settle_back(
        self, parcel: Parcel, until: datetime, why: str, *, route_fault: bool = False
    ) -> None:
        """See `Entrance.settle_back`."""
        if parcel.source is not None:
            self._sources.gave_back(parcel.source, parcel.group)
        parcel.settle(
            self.name,
            Outcome.LATER,
            None,
            f"not tried: {why}",
            route_fault=route_fault,
            retry_at=until,
            tried=False,
        )
        self._count_answered()

    def settle(
        self,
        parcel: Parcel,
        outcome: Outcome,
        code: int | None,
        reply: str,
        retry_at: datetime | None = None,
    ) -> None:
        """See `Entrance.settle`."""
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
        self._pools.sweep(now)
        if self.dispatch.waiting:
            for key, oldest in self.dispatch.lines():
                if now - oldest.waits_since_s > self.options.turn_s:
                    for back in self.dispatch.shed(self._now_s(), key):
                        self._hand_back(back)
        self._sweep_due = bool(self._pools.any or self._unanswered) and not self._closed
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
