"""The connections to one site from one source: mails wait here until one of them is taken.

Hosts are tried in their order, each address of a host in turn, hosts of one preference in random
order (RFC 5321 section 5.1). A mail does not wait for long until somebody answers: a worker has few
places for mails under way, and a host that drops packets must not hold them. So the mail goes back
to its queue, nothing of it having left, while the connection is still tried; what comes of that is
remembered and told to the next mail.
"""

import asyncio
import ssl
from collections import deque
from itertools import groupby
from typing import cast

import structlog

from mailyard.protocol.mx import Target, literal_address
from mailyard.protocol.smtp.client_mail import ClientMail, Fate, SessionEnded, Stage, Verdict
from mailyard.sending.shape.receiver import Place
from mailyard.sending.shape.site import HELD_PER_CONNECTION
from mailyard.sending.transports.mx.line import Line
from mailyard.sending.transports.mx.parcel import Parcel
from mailyard.sending.transports.mx.road import Road
from mailyard.sending.transports.mx.secure import (
    SUCCESS,
    Demand,
    Manner,
    Unusable,
    result_of,
)
from mailyard.sending.transports.mx.source import Source
from mailyard.sending.transports.mx.yard import Yard
from mailyard.sending.transports.smtp_connection import Connection, Patience

_log = structlog.get_logger(__name__)

ATTEMPT_S = 180.0  # over all of a site's addresses
REFUSALS_PER_ATTEMPT = 3  # hosts that answer and refuse: they all mean us
SLOW_PATIENCE_S = 120.0  # for a site that is known to answer in the end (postscreen, greet pauses)
SLOW_KNOWN_S = 7 * 86_400.0
AWAY_S = 120.0  # how long it is remembered that nobody answered
RETURNS = 3
_CLEAR_AFTER_FAILURE_S = 600.0


class Pool:
    """Connections for `key` (a place seen from `source`) to the hosts of `road`."""

    def __init__(self, yard: Yard, key: str, place: Place, road: Road, source: Source) -> None:
        self._yard = yard
        self.key = key
        self.place = place
        self.road = road
        self._source = source
        self._queue: deque[Parcel] = deque()
        self._lines: set[Line] = set()
        self._opening = 0
        self._handed_back = False
        self._away: tuple[float, Verdict, str] | None = None  # until, what to say, where
        self._patience = Patience(yard.options.reply_timeout_s, yard.options.idle_s)

    @property
    def empty(self) -> bool:
        """Nothing is lost when it is forgotten."""
        return not (self._queue or self._lines or self._opening or self._away)

    @property
    def _now(self) -> float:
        return self._yard.loop.time()

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def open(self) -> int:
        """Connections, those being opened among them."""
        return self._opening + sum(line.ready for line in self._lines)

    def push(self, parcels: list[Parcel]) -> None:
        """Mails that may go now."""
        now = self._now
        away = self._away
        if away is not None and now < away[0] and not self._lines:
            for parcel in parcels:
                self._yard.answered(parcel, away[1], away[2])
            return
        self._away = None
        for parcel in parcels:
            parcel.waits_since_s = now
        self._queue.extend(parcels)
        self.dispatch()

    def dispatch(self) -> None:
        """Give what waits to idle connections, open more for the rest, then fill pipelines."""
        for line in list(self._lines):
            if self._queue and line.ready and line.idle:
                line.poke()
        for line in list(self._lines):
            if self._queue and line.ready and line.takes_mail:
                line.poke()
        wanted = -(-len(self._queue) // HELD_PER_CONNECTION) - self._opening
        for _ in range(wanted):
            if not self._yard.may_open(self.key):
                if not self.open:
                    self._yard.starved(self.key)
                return
            self._opening += 1
            self._yard.run(self._attempt())

    def close_idle(self) -> bool:
        """Let go of one connection that has nothing to do; whether there was one."""
        for line in self._lines:
            if line.ready and line.idle:
                line.quit()
                return True
        return False

    def quit(self, count: int) -> int:
        """Let go of up to `count` connections, when what they have under way is answered."""
        leaving = [line for line in self._lines if line.ready][:count]
        for line in leaving:
            line.quit()
        return len(leaving)

    def fail(self, reason: str) -> None:
        """Cut everything off."""
        for line in list(self._lines):
            line.fail(reason)

    def quit_all(self) -> list[asyncio.Future[None]]:
        """Let go of all; what ends with their closing."""
        closed = [line.closed for line in self._lines if line.ready]
        for line in list(self._lines):
            line.quit()
        return closed

    def take_queue(self) -> list[Parcel]:
        """Everything that waits for a connection."""
        waiting = list(self._queue)
        self._queue.clear()
        return waiting

    def sweep(self, now: float, *, crowded: bool) -> None:
        """Once a second: time limits, and mails that have waited long enough for a connection.

        `crowded`: the process has many connections, and keeps none that does nothing.
        """
        for line in list(self._lines):
            line.check_deadlines(now)
            if crowded and line.ready and line.idle:
                line.quit()
        if self._away is not None and now >= self._away[0]:
            self._away = None
        if not self._queue or any(line.ready for line in self._lines):
            return
        if not self._opening:
            self.dispatch()  # there was no room before
        slow = self._yard.slow.has(self.road.route.site, now)
        patience_s = SLOW_PATIENCE_S if slow else self._yard.options.patience_s
        if now - self._queue[0].waits_since_s >= patience_s:
            self._handed_back = True
            why = "no connection to its mail servers yet"
            self._yard.handed_back(self.take_queue(), self.key, why)

    # Opening ----------------------------------------------------------------------------------

    async def _attempt(self) -> None:
        """Open one connection to the first host that has one for us."""
        began = self._now
        end: tuple[Verdict, str] | None = None
        try:
            async with asyncio.timeout(ATTEMPT_S):
                end = await self._try_hosts()
        except TimeoutError:
            end = (_nobody(f"no connection within {ATTEMPT_S:.0f} s"), self.road.domain)
        except Exception as error:
            _log.error("mx_attempt_failed", site=self.road.route.site, exc_info=error)
            end = (_nobody(f"the connection could not be made: {error}"), self.road.domain)
        finally:
            self._opening -= 1
        if end is None:
            if self._handed_back and self._now - began > self._yard.options.patience_s:
                self._yard.slow.keep(self.road.route.site, self._now + SLOW_KNOWN_S)
            self._handed_back = False
            self.dispatch()
        elif not any(line.ready for line in self._lines):
            self._nobody_there(*end)
        self._yard.freed(self.key)

    def _nobody_there(self, verdict: Verdict, where: str) -> None:
        waiting = self.take_queue()
        _log.info("mx_out_of_reach", site=self.road.route.site, reason=verdict.text)
        if waiting:
            for parcel in waiting:
                self._yard.answered(parcel, verdict, where)
        elif self._handed_back:  # the mails have not heard it: the next one will
            self._away = self._now + AWAY_S, verdict, where
        self._handed_back = False

    async def _try_hosts(self) -> tuple[Verdict, str] | None:
        """None: a connection is ready. Else the most telling end of those that were tried."""
        refused: tuple[Verdict, str] | None = None
        failed: tuple[Verdict, str] | None = None
        refusals = 0
        for target in self._in_order():
            plan = await self._yard.security.plan(self.road, target)
            name = target.host.name
            if isinstance(plan, Unusable):
                self._count(plan.policy_type.value, target, plan.result)
                text = f"{name} may not be used: {plan.why}"
                failed = failed or (Verdict(Fate.LATER, None, text, Stage.TLS), name)
                continue
            line, end = await self._try_host(target, plan)
            if end is None:
                return None
            if end.verdict.code is None:
                failed = failed or (end.verdict, line.where)
                continue
            refused = refused or (end.verdict, line.where)
            refusals += 1
            if refusals >= REFUSALS_PER_ATTEMPT:
                break
        nobody = "no address of its mail servers is of a family that our address has"
        return refused or failed or (_nobody(nobody), self.road.domain)

    def _in_order(self) -> list[Target]:
        """Hosts of one preference in random order, a host's addresses as they are."""
        ordered: list[Target] = []
        for _, same in groupby(self.road.targets, key=lambda target: target.host.preference):
            by_host: dict[str, list[Target]] = {}
            for target in same:
                if self._source.reaches(target.address):
                    by_host.setdefault(target.host.name, []).append(target)
            names = list(by_host)
            self._yard.random.shuffle(names)
            for name in names:
                ordered += by_host[name]
        return ordered

    async def _try_host(self, target: Target, demand: Demand) -> tuple[Line, SessionEnded | None]:
        manners = demand.manners
        if not demand.required and self._yard.clear.has(str(target.address), self._now):
            manners = (Manner.CLEAR,)
        for manner in manners:
            line, end = await self._try(target, demand, manner)
            if end is None or line.tls_problem is None:
                break
            problem, result = line.tls_problem
            self._count(demand.policy_type.value, target, result)
            _log.info("mx_tls_failed", host=target.host.name, manner=manner.value, reason=problem)
            if manner is Manner.ENCRYPT and not demand.required:
                until = self._now + _CLEAR_AFTER_FAILURE_S
                self._yard.clear.keep(str(target.address), until)
        return line, end

    async def _try(
        self, target: Target, demand: Demand, manner: Manner
    ) -> tuple[Line, SessionEnded | None]:
        options = self._yard.options
        line = Line(
            self,
            self._yard.loop,
            self._patience,
            self._source.hello,
            self._take_mail,
            target,
            demand,
            manner,
            options.pipeline,
        )
        self._lines.add(line)
        try:
            await asyncio.wait_for(
                self._yard.loop.create_connection(
                    lambda: line,
                    str(target.address),
                    options.port,
                    local_addr=self._source.local(target.address),
                ),
                options.connect_timeout_s,
            )
        except TimeoutError:
            line.fail(f"connecting to {line.where} timed out")
        except OSError as error:
            line.fail(f"connecting to {line.where} failed: {error.strerror or error}")
        try:
            return line, await line.opened
        except asyncio.CancelledError:
            line.fail("given up")
            raise

    # What its connections tell -----------------------------------------------------------------

    def _take_mail(self, line: Line) -> ClientMail | None:
        most = self.place.receiver.limits.messages_per_connection
        if not self._queue or line.mails >= most:
            return None
        line.mails += 1
        if line.mails == most:
            self._yard.loop.call_soon(line.quit)
        return self._queue.popleft().client_mail()

    def settle(self, mail: ClientMail, verdicts: list[Verdict], line: Connection) -> None:
        """See `Owner.settle`."""
        line = cast("Line", line)
        line.said_421 |= verdicts[0].code == 421
        self._yard.answered(cast("Parcel", mail.token), verdicts[0], line.peer)

    def give_back(self, mail: ClientMail, verdict: Verdict, line: Connection) -> None:
        """A session that has worked and ends is no word about a mail that it had not begun: the
        mail goes to another one. A 421 is one, told once a session."""
        line = cast("Line", line)
        parcel = cast("Parcel", mail.token)
        told = verdict.code == 421 and not line.said_421
        line.said_421 |= verdict.code == 421
        if told or not line.ready or parcel.returns >= RETURNS:
            self._yard.answered(parcel, verdict, line.peer)
            return
        parcel.returns += 1
        self._yard.again(parcel)

    def ready(self, connection: Connection) -> None:
        """See `Owner.ready`."""
        line = cast("Line", connection)
        result = SUCCESS if line.encrypted else "starttls-not-supported"
        if line.manner is not Manner.CLEAR:
            self._count(line.demand.policy_type.value, line.target, result)
        if not line.opened.done():
            line.opened.set_result(None)

    def gone(self, connection: Connection, end: SessionEnded) -> None:
        """See `Owner.gone`."""
        line = cast("Line", connection)
        self._lines.discard(line)
        if not line.opened.done():
            in_clear = line.demand.required and not line.encrypted and line.tls_problem is None
            if in_clear and end.verdict.stage is Stage.TLS:
                self._count(line.demand.policy_type.value, line.target, "starttls-not-supported")
            line.opened.set_result(end)
            return
        self._yard.freed(self.key)
        self.dispatch()

    def run_handshake(self, connection: Connection, plain: asyncio.Transport) -> None:
        """See `Owner.run_handshake`."""
        self._yard.run(self._handshake(cast("Line", connection), plain))

    async def _handshake(self, line: Line, plain: asyncio.Transport) -> None:
        security, target = self._yard.security, line.target
        name = security.server_name(line.demand, line.manner, target)
        if literal_address(name) is not None:
            name = str(target.address)
        try:
            secure = await self._yard.loop.start_tls(
                plain,
                line,
                security.context(line.manner),
                server_hostname=name,
                ssl_handshake_timeout=min(60.0, self._yard.options.reply_timeout_s),
            )
        except (OSError, ssl.SSLError) as error:
            plain.abort()
            line.tls_problem = str(error), result_of(error)
            line.fail(f"TLS with {line.where} failed: {error}")
            return
        if secure is None:
            line.tls_problem = "the connection was lost in the handshake", "validation-failure"
            line.fail(f"{line.where} hung up in the TLS handshake")
            return
        held = secure.get_extra_info("ssl_object")
        objection = security.objection(line.demand, line.manner, held, self._yard.now())
        if objection is not None:
            secure.abort()
            line.tls_problem = objection
            line.fail(f"{line.where}: {objection[0]}")
            return
        line.encrypted = held.version() or "TLS"
        line.tls_started(secure)

    def _count(self, policy_type: str, target: Target, result: str) -> None:
        counts = self._yard.tls_counts
        if counts is not None:
            counts.note(self.road.domain, policy_type, target.host.name, result)


def _nobody(text: str) -> Verdict:
    return Verdict(Fate.LATER, None, text, Stage.CONNECT)
