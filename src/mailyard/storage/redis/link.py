"""This process's link to Redis: every call is bounded in time, and a Redis that is away costs no
call more than once.

    up ---- a call fails or takes too long, a look finds it changed ----> away
    away -- a new connection writes and reads, tried again and again ---> up

While it is away every call raises RedisAway at once. Nobody's call is used to find out whether it
is back: a task beside does that, with connections made anew, so that a failover is followed by
asking the Sentinels, or any node of the cluster, where things are now. What is needed of the
outside, a new address or a restart of ours, is nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from random import Random
from time import monotonic
from typing import Any

import structlog

from mailyard.core.backoff import Backoff
from mailyard.core.errors import Unavailable
from mailyard.observe.metrics import (
    REDIS_AWAY,
    REDIS_CALL_SECONDS,
    REDIS_CALLS,
)
from mailyard.storage.redis.address import RedisAddress
from mailyard.storage.redis.clients import Client, Driver
from mailyard.storage.redis.facts import read_facts
from mailyard.storage.redis.script import Call, command

CALL_S = 0.25  # a call and the waiting for its turn
GRACE_S = 0.025
IN_FLIGHT = 32  # calls of one process; a pipeline is one
LOOK_EVERY_S = 1.0  # so soon is it noticed when nobody calls
FACTS_EVERY = 15  # looks: memory, hits and evictions are asked for so seldom
WALK_S = 60.0  # through all keys: a million take a few seconds
PROBE_S = 3.0  # one try to come back: Sentinels and nodes may be silent one after another
RETRY = Backoff(first_s=0.1, cap_s=1.0)

_LOG = structlog.get_logger(__name__)


class RedisAway(Unavailable):
    """Redis does not answer now. Whoever calls has another way."""


class RedisLink:
    """One a process, on the loop that opened it."""

    def __init__(self, address: RedisAddress, *, call_s: float = CALL_S) -> None:
        self.address = address
        self._call_s = call_s
        self._driver: Driver | None = None
        self._client: Client | None = None
        self._turns = asyncio.Semaphore(IN_FLIGHT)
        self._calls: set[asyncio.Task[list[Any]]] = set()
        self._changed = asyncio.Event()
        self._watchers: list[Callable[[bool], None]] = []
        self._keeper: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._random = Random()
        self._looks = 0
        self.away_since: float | None = None  # monotonic
        self.why = "not connected yet"
        self.epoch = 0  # how often it has come

    @property
    def up(self) -> bool:
        return self._client is not None

    def away_s(self) -> float:
        """For how long it has been away; 0.0: it is there."""
        since = self.away_since
        return 0.0 if since is None else monotonic() - since

    @property
    def spread(self) -> bool:
        """Whether keys lie on several servers, so that a batch goes in pieces."""
        return self._driver is not None and self._driver.spread

    def key(self, kind: str, tag: str, name: str) -> str:
        """The name of a key; those with one tag lie in one slot."""
        return f"{self.address.prefix}{kind}:{{{tag}}}:{name}"

    def watch(self, changed: Callable[[bool], None]) -> None:
        """Call `changed` with whether it is there, when that changes."""
        self._watchers.append(changed)

    async def open(self) -> None:
        """Connect, waiting for one try. Raises ConfigurationError when the driver is missing."""
        self._driver = Driver(self.address, self._call_s)
        self.away_since = monotonic()
        REDIS_AWAY.set_function(self.away_s)
        with suppress(Exception):
            await self._come()
        self._keeper = asyncio.create_task(self._keep(), name="redis")

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None
        client, self._client = self._client, None
        if client is not None:
            self._leave(client)
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=1.0)

    async def run(self, calls: Sequence[Call]) -> list[Any]:
        """The answers to `calls`, sent together. Raises RedisAway."""
        client = self._client
        if client is None:
            REDIS_CALLS.labels("away").inc()
            raise RedisAway(f"Redis is away: {self.why}")
        began = monotonic()
        # A task of its own: whoever is cancelled here does not break a connection half-way, and
        # what the driver makes of a cancellation is nobody's concern.
        call = asyncio.create_task(self._turn(client, calls))
        self._calls.add(call)
        call.add_done_callback(self._done)
        await asyncio.wait([call], timeout=self._call_s)
        if not call.done():  # where this loop stood still the answer may lie there, unread
            await asyncio.wait([call], timeout=GRACE_S)
        error: BaseException | None = None
        if not call.done():
            call.cancel()
            error = TimeoutError(f"no answer in {self._call_s} s")
        elif call.cancelled():
            error = ConnectionError("the link was closed")
        else:
            error = call.exception()
        if error is None:
            REDIS_CALLS.labels("done").inc()
            REDIS_CALL_SECONDS.observe(monotonic() - began)
            return call.result()
        if not isinstance(error, client.errors):
            raise error
        self._lost(client, error)
        REDIS_CALLS.labels("failed").inc()
        raise RedisAway(f"Redis is away: {self.why}") from error

    async def walk(self, pattern: str) -> AsyncIterator[list[str]]:
        """The names of keys like `pattern`, some at a time, of all primaries. Raises RedisAway."""
        client = self.client()
        try:
            async with asyncio.timeout(WALK_S):
                async for names in client.walk(pattern):
                    yield names
        except client.errors as error:
            raise RedisAway(f"Redis is away: {error!r}") from error

    async def _turn(self, client: Client, calls: Sequence[Call]) -> list[Any]:
        async with self._turns:
            return await client.run(calls)

    def _done(self, call: "asyncio.Task[list[Any]]") -> None:
        self._calls.discard(call)
        if not call.cancelled():
            call.exception()  # seen: whoever asked may have gone

    async def until(self, up: bool) -> None:
        """Wait until it is there, or until it is not."""
        while self.up is not up:
            await self._changed.wait()

    @asynccontextmanager
    async def listening(self, channel: str) -> AsyncIterator[AsyncIterator[str]]:
        """What is published on `channel`, from now on. Raises RedisAway when the connection ends;
        cancel it when the link is lost."""
        client = self._client
        if client is None:
            raise RedisAway(f"Redis is away: {self.why}")
        try:
            async with client.listening(channel) as messages:
                yield messages
        except client.errors as error:
            raise RedisAway(f"the subscription ended: {error!r}") from error

    def client(self) -> Client:
        """For who asks the servers about themselves. Raises RedisAway."""
        if self._client is None:
            raise RedisAway(f"Redis is away: {self.why}")
        return self._client

    # -----------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        failures = 0
        while True:
            client = self._client
            if client is not None:
                failures = 0
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await self.until(False)
                if self._client is client:
                    await self._look(client)
                continue
            try:
                await self._come()
            except asyncio.CancelledError:
                raise
            except Exception as error:  # whatever a driver raises of a server half alive
                self.why = repr(error)
                failures += 1
                await asyncio.sleep(RETRY.delay_s(failures, self._random))

    async def _look(self, client: Client) -> None:
        """It still takes what is written; now and then, how it is."""
        with suppress(RedisAway):
            await self.run([command("SET", self.key("up", "up", "here"), 1, "EX", 60)])
        self._looks += 1
        if self._looks % FACTS_EVERY == 1:
            try:
                async with asyncio.timeout(PROBE_S):
                    await read_facts(client)
            except client.errors as error:  # a server that may be asked little of still serves
                _LOG.debug("redis_says_nothing_of_itself", why=str(error))

    async def _come(self) -> None:
        """A new client that has written and read."""
        assert self._driver is not None, "open comes first"
        client = self._driver.client()
        try:
            async with asyncio.timeout(PROBE_S):
                await client.prove(self.key("up", "up", "here"))
        except BaseException:
            self._leave(client)
            raise
        away_s = self.away_s()
        self._client, self.away_since, self.why = client, None, ""
        self.epoch += 1
        _LOG.info("redis_is_there", servers=self.address.shown(), away_s=round(away_s, 1))
        self._tell(up=True)

    def _lost(self, client: Client, error: BaseException) -> None:
        if self._client is not client:
            return  # known already, and perhaps there again
        self._client, self.away_since = None, monotonic()
        self.why = str(error) or type(error).__name__
        _LOG.warning("redis_is_away", servers=self.address.shown(), why=self.why)
        self._leave(client)
        self._tell(up=False)

    def _tell(self, *, up: bool) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        for watcher in self._watchers:
            watcher(up)

    def _leave(self, client: Client) -> None:
        """Close beside: a server that is stopped does not answer to a goodbye either."""
        task = asyncio.create_task(_close(client))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


async def _close(client: Client) -> None:
    with suppress(Exception):
        async with asyncio.timeout(PROBE_S):
            await client.close()
