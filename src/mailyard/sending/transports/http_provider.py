"""Handing mails to a provider's HTTP API: the part that is the same for all of them.

What `submit` takes is collected for a few milliseconds, put into the vendor's words, packed into
requests as large as its API takes, and sent at its rate, so many at a time. What comes back:

    an answer that was read                  what it says, for each recipient
    no connection, TLS that fails            LATER, the route's fault: nothing has left
    lost, cut off or late after it was sent  UNKNOWN, unless the vendor takes a repetition for the
                                             same request: then it is repeated first
    a refusal of several mails at once       the request is halved until the bad one stands alone
    429 with a short pause                   waited for and sent again, twice at most
    anything that blames the route           LATER, and a pause for everybody: as long as the
                                             provider asks (capped), else a growing backoff

While a pause is longer than anybody should wait for, what is submitted is answered at once, so that
another provider can have it.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from random import Random

import structlog
from msgspec import Struct
from msgspec.structs import replace

from mailyard.core.backoff import Backoff
from mailyard.core.clock import Clock, SystemClock
from mailyard.net.http import Exchange, HttpClient, HttpFailure
from mailyard.observe.limit_use import LIMIT_USE
from mailyard.ratelimit.ratelimit import RateLimit
from mailyard.sending.transport import HANDOFF_REPLY_CHARACTERS, Handoff, Outcome, Outgoing
from mailyard.sending.transports.packing import Done, Packing, Piece, halved, in_words
from mailyard.sending.transports.vendor import (
    RETRY_AFTER_CAP_S,
    Inexpressible,
    Item,
    Request,
    Unreadable,
    Vendor,
    Verdict,
    broken,
    of_failure,
)

_log = structlog.get_logger(__name__)

_RETURNS = 2  # how often a mail waits for a 429 to pass before it is answered
_REPEATS = 2  # of a request whose answer was lost, where repeating is harmless
_TOO_MANY_REQUESTS = 429
# Of the provider's rate we use 0.965, in bursts of 0.01 s: what the provider counts within any
# second stays below its limit although the way there shakes the requests together by 25 ms. One
# refusal costs more than the share: the pause after it is longer.
_RATE_SHARE = 0.965
_BURST_S = 0.01
# Drawn at once: what is as large as the burst would wait for a full bucket, which loses whatever
# flowed in while this process was late.
_DRAWS_PER_BURST = 4
_CUT = "shutting down"


class ProviderOptions(Struct, frozen=True):
    """How to talk to a provider. Times in seconds.

    `per_s` is the provider's limit in what it counts, recipients or requests; None: no limit of
    ours. A pause above `patience_s` is answered rather than waited for.
    """

    in_flight: int = 20
    per_s: float | None = None
    collect_s: float = 0.005
    request_s: float = 60.0
    patience_s: float = 5.0
    backoff: Backoff = Backoff(first_s=0.25, cap_s=30.0)


class HttpProvider:
    """The transport `name`, which speaks `vendor`'s API through `http`.

    Whoever has the same `rate_key` shares the provider's limit; the name, when not said. Figures
    that anybody may see call it `limit_name`.
    """

    def __init__(
        self,
        *,
        name: str,
        vendor: Vendor,
        http: HttpClient,
        rate: RateLimit,
        rate_key: str = "",
        limit_name: str = "",
        options: ProviderOptions | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        self.name = name
        self.vendor = vendor
        self.options = options or ProviderOptions()
        self._http = http
        self._rate = rate
        self._rate_key = rate_key or f"provider:{name}"
        self._limit = f"provider {limit_name or name}"  # as figures call it
        self._clock = clock or SystemClock()
        self._random = random or Random()
        self._incoming: deque[tuple[Outgoing, Done]] = deque()
        self._packing = Packing(vendor)
        self._pump: asyncio.Task[None] | None = None
        self._requests: dict[asyncio.Task[None], tuple[list[Piece], Exchange]] = {}
        self._enough = asyncio.Event()  # a request is full: no need to collect any longer
        self._freed = asyncio.Event()  # a place in flight
        self._unanswered = 0
        self._answered_all = asyncio.Event()
        self._failures = 0
        self._resume_at = 0.0
        self._pause_reason = ""
        self._closing = False
        self._closed = False

    # The port.

    def submit(self, mail: Outgoing, done: Done) -> None:
        """See `Transport.submit`."""
        self._unanswered += len(mail.recipients)
        self._incoming.append((mail, done))
        if len(self._incoming) >= self.vendor.mails_per_request:
            self._enough.set()
        self._wake()

    async def close(self, drain_s: float) -> None:
        """See `Transport.close`. The HTTP client is its owner's to close."""
        self._closing = True
        self._enough.set()
        self._answered_all.clear()
        if self._unanswered:
            try:
                await asyncio.wait_for(self._answered_all.wait(), drain_s)
            except TimeoutError:
                _log.warning("provider_cut", transport=self.name, recipients=self._unanswered)
        self._closed = True
        tasks = [*self._requests, *([self._pump] if self._pump else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._pump = None
        self._fail_waiting(_CUT)

    # From submitted mails to requests.

    def _wake(self) -> None:
        if self._pump is None and not (self._closed and not self._waits()):
            self._pump = asyncio.get_running_loop().create_task(self._send_waiting())

    def _waits(self) -> bool:
        return bool(self._incoming or self._packing)

    async def _send_waiting(self) -> None:
        """Send until nothing waits."""
        try:
            while self._waits():
                await self._collect()
                while self._incoming:
                    mail, done = self._incoming.popleft()
                    for piece in self._pieces(mail, done):
                        self._packing.add(piece)
                if not await self._may_send():
                    self._fail_waiting(_CUT if self._closed else self._pause_reason)
                elif self._packing:
                    await self._send_some()
        except Exception as error:  # most likely the rate limiter's store, which is away
            _log.error("provider_stopped", transport=self.name, exc_info=error)
            self._fail_waiting(f"nothing can be sent: {error}")
        finally:
            self._pump = None
            if self._waits() and not self._closed:
                self._wake()

    async def _collect(self) -> None:
        """A moment for more to come, unless a request is full or something has waited already."""
        if self.vendor.mails_per_request == 1 or self._closing or self._packing:
            return
        try:
            await asyncio.wait_for(self._enough.wait(), self.options.collect_s)
        except TimeoutError:
            pass
        self._enough.clear()

    def _pieces(self, mail: Outgoing, done: Done, returns: int = 0) -> list[Piece]:
        """`mail` in the vendor's words; in parts where it takes fewer recipients at once; nothing
        where it does not take it at all, which is answered here."""
        try:
            return [Piece(in_words(self.vendor, mail), done, returns)]
        except Inexpressible as error:
            if error.apart and len(mail.recipients) > 1:
                return [piece for half in halved(mail) for piece in self._pieces(half, done)]
            reason = str(error)
        except Exception as error:  # whatever stands in a mail, its recipients get an answer
            _log.error("mail_not_expressed", transport=self.name, exc_info=error)
            reason = repr(error)
        reason = f"this provider cannot carry it: {reason}"
        self._settle(mail, done, [Verdict(Outcome.NEVER, None, reason, route_fault=True)])
        return []

    async def _may_send(self) -> bool:
        """Wait until there is a place. False while a pause lasts that is not worth waiting for."""
        loop = asyncio.get_running_loop()
        while True:
            pause_s = self._resume_at - loop.time()
            if pause_s > self.options.patience_s or self._closed:
                return False
            if pause_s > 0:
                await asyncio.sleep(pause_s)
            elif len(self._requests) >= self.options.in_flight:
                self._freed.clear()
                await self._freed.wait()
            else:
                return True

    async def _send_some(self) -> None:
        """As many requests as there are places for, with one draw on the provider's rate."""
        per_s = (self.options.per_s or 0.0) * _RATE_SHARE
        burst = max(1.0, per_s * _BURST_S)
        enough = burst / _DRAWS_PER_BURST
        places = self.options.in_flight - len(self._requests)
        batches: list[list[Piece]] = []
        cost = 0
        while self._packing and len(batches) < places and not (per_s and cost >= enough):
            batches.append(self._packing.take())
            cost += self._cost(batches[-1])
        try:
            if per_s:
                await self._draw(cost, per_s, burst)
        except BaseException:
            self._packing.add_batches_first(batches)
            raise
        for batch in batches:
            exchange = Exchange()
            task = asyncio.get_running_loop().create_task(self._send(batch, exchange))
            self._requests[task] = batch, exchange
            task.add_done_callback(self._sent)

    def _cost(self, batch: list[Piece]) -> int:
        if not self.vendor.counts_recipients:
            return 1
        return sum(len(piece.mail.recipients) for piece in batch)

    async def _draw(self, cost: int, per_s: float, burst: float) -> None:
        wait_s = await self._rate.take(self._rate_key, cost, per_s, burst)
        while wait_s > 0:
            await asyncio.sleep(wait_s)
            wait_s = await self._rate.take(self._rate_key, cost, per_s, burst)
        LIMIT_USE.took(self._limit, cost, self.options.per_s or per_s)

    def _sent(self, task: asyncio.Task[None]) -> None:
        batch, exchange = self._requests.pop(task)
        self._freed.set()
        if task.cancelled():  # perhaps before its first step
            self._settle_all(batch, broken(exchange, _CUT))

    # From requests to answers.

    async def _send(self, batch: list[Piece], exchange: Exchange) -> None:
        """One request, until every recipient in it has an answer or waits again."""
        resume_at = self._resume_at
        try:
            items = [piece.item for piece in batch]
            request = self.vendor.request(items, self._clock.now())
            said = await self._ask(items, request, exchange)
        except Exception as error:
            _log.error("provider_request_failed", transport=self.name, exc_info=error)
            said = broken(exchange, repr(error))
        if isinstance(said, Verdict):
            self._not_taken(batch, said, alone=self._resume_at == resume_at)
        else:
            self._failures = 0
            for piece, verdicts in zip(batch, said, strict=True):
                self._settle(piece.mail, piece.done, verdicts)

    async def _ask(
        self, items: Sequence[Item], request: Request, exchange: Exchange
    ) -> list[list[Verdict]] | Verdict:
        """What the provider says: for each recipient of each item, or one thing for all.

        A request is repeated after its answer was lost, where that is harmless. Then only a yes or
        a no tells what became of it: "later" is said of the repetition.
        """
        tries = 1 + (_REPEATS if self.vendor.repeatable else 0)
        lost = False
        while True:
            said = await self._ask_once(items, request, exchange)
            if not isinstance(said, Verdict) or said.outcome is Outcome.NEVER:
                return said
            lost = lost or said.outcome is Outcome.UNKNOWN
            tries -= 1
            if not lost:
                return said
            if not tries:
                return replace(said, outcome=Outcome.UNKNOWN, route_fault=False)
            await asyncio.sleep(self.options.backoff.delay_s(1, self._random))

    async def _ask_once(
        self, items: Sequence[Item], request: Request, exchange: Exchange
    ) -> list[list[Verdict]] | Verdict:
        try:
            answer = await self._http.request(
                "POST",
                request.url,
                headers=request.headers,
                body=request.body,
                total_s=self.options.request_s,
                exchange=exchange,
            )
        except HttpFailure as failure:
            return of_failure(failure)
        if not 200 <= answer.status < 300:
            return self.vendor.refused(answer, self._clock.now())
        try:
            return self.vendor.accepted(items, answer)
        except Unreadable as error:
            return Verdict(Outcome.UNKNOWN, answer.status, str(error))

    def _not_taken(self, batch: list[Piece], verdict: Verdict, *, alone: bool) -> None:
        """The provider has taken nothing of `batch`, or nobody knows."""
        if verdict.outcome is Outcome.NEVER:
            self._failures = 0
            self._divide(batch, verdict)
            return
        pause_s = self._pause(verdict, alone)
        refused = verdict.outcome is Outcome.LATER and verdict.code == _TOO_MANY_REQUESTS
        if refused:
            LIMIT_USE.refused(self._limit)
        if refused and pause_s <= self.options.patience_s:
            again = [piece for piece in batch if piece.returns < _RETURNS and not self._closed]
            batch = [piece for piece in batch if piece.returns >= _RETURNS or self._closed]
            for piece in again:
                piece.returns += 1
            self._packing.add_first(again)
            self._wake()
        self._settle_all(batch, verdict)

    def _divide(self, batch: list[Piece], verdict: Verdict) -> None:
        """A request was refused: perhaps because of one mail, or of one recipient, in it."""
        middle = len(batch) // 2
        if middle:
            self._packing.add_batches_first([batch[:middle], batch[middle:]])
        elif len(batch[0].mail.recipients) > 1:
            piece = batch[0]
            for half in halved(piece.mail):
                parts = self._pieces(half, piece.done, piece.returns)
                self._packing.add_batches_first([part] for part in parts)
        else:
            self._settle_all(batch, verdict)
        self._wake()

    def _pause(self, verdict: Verdict, alone: bool) -> float:
        """Leave the provider alone for a while; how long, in seconds. Requests that were under way
        together fail together: those after the first (`alone`) only add what is asked for."""
        now = asyncio.get_running_loop().time()
        wait_s = min(verdict.wait_s or 0.0, RETRY_AFTER_CAP_S)
        if alone:
            self._failures += 1
            wait_s = max(wait_s, self.options.backoff.delay_s(self._failures, self._random))
        resume_at = now + wait_s
        if resume_at > self._resume_at:
            self._resume_at = resume_at
            self._pause_reason = f"{self.name} is left alone for now: {verdict.text}"
            _log.warning(
                "provider_paused", transport=self.name, pause_s=round(wait_s, 3), why=verdict.text
            )
        return self._resume_at - now

    # Answers to the caller.

    def _settle(self, mail: Outgoing, done: Done, verdicts: Sequence[Verdict]) -> None:
        """Tell the caller about every recipient of `mail`. One verdict alone is for all."""
        if len(verdicts) == 1:
            verdicts = [verdicts[0]] * len(mail.recipients)
        for recipient, verdict in zip(mail.recipients, verdicts, strict=True):
            handoff = Handoff(
                recipient.delivery_id,
                verdict.outcome,
                verdict.code,
                verdict.text[:HANDOFF_REPLY_CHARACTERS],
                self.name,
                verdict.route_fault,
            )
            try:
                done(handoff)
            except Exception as error:
                _log.error("handoff_callback_failed", transport=self.name, exc_info=error)
        self._unanswered -= len(mail.recipients)
        if not self._unanswered:
            self._answered_all.set()

    def _settle_all(self, batch: Sequence[Piece], verdict: Verdict) -> None:
        for piece in batch:
            self._settle(piece.mail, piece.done, [verdict])

    def _fail_waiting(self, reason: str) -> None:
        """Nothing of what waits has left: another way may have it."""
        verdict = Verdict(Outcome.LATER, None, reason, route_fault=True)
        self._settle_all(self._packing.take_all(), verdict)
        incoming, self._incoming = self._incoming, deque()
        for mail, done in incoming:
            self._settle(mail, done, [verdict])
