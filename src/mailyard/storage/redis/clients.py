"""The driver's clients behind one face: one server, the primary that the Sentinels name, a cluster.

A client is made, proves itself, is used, and is thrown away with all its connections at the first
failure. The driver's own retries are off: they would multiply the time that a call may take.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from mailyard.core.errors import ConfigurationError
from mailyard.storage.redis.address import Form, RedisAddress
from mailyard.storage.redis.script import Argument, Call

if TYPE_CHECKING:
    from redis.asyncio.client import PubSub

CONNECTIONS = 40  # of one process to one server; calls in flight and a subscription are fewer
PING_S = 2.0  # so often a silent subscription is asked whether its server still hears
PONG_S = 1.0
SCANNED_AT_ONCE = 1_000  # keys: a millisecond or less of the server

Options = dict[str, Any]
Answers = list[tuple[str, Any]]


class Driver:
    """Makes clients. Raises ConfigurationError when the driver is not installed."""

    def __init__(self, address: RedisAddress, call_s: float) -> None:
        try:
            import redis.asyncio  # noqa: F401 (only who has a Redis needs it)
        except ImportError as error:
            raise ConfigurationError(
                f"MAILYARD_REDIS_URL is set, but its driver is missing ({error.name}): install "
                "the extra, pip install 'mailyard[fleet]'"
            ) from None
        self._address = address
        self._options = _options(address, call_s)
        self.spread = address.form is Form.CLUSTER

    def client(self) -> "Client":
        """A new client, which connects when it is used."""
        if self._address.form is Form.CLUSTER:
            return ClusterClient(self._address, self._options)
        if self._address.form is Form.SENTINEL:
            return SentinelClient(self._address, self._options)
        return Client(self._address, self._options)


class Client:
    """One server. `errors`: what it raises when things are not as they should be."""

    def __init__(self, address: RedisAddress, options: Options) -> None:
        from redis.exceptions import RedisClusterException, RedisError

        self.errors = (RedisError, RedisClusterException, OSError, TimeoutError)
        self._redis: Any = self._connect(address, options)

    async def run(self, calls: Sequence[Call]) -> list[Any]:
        """The answers in order; scripts that a server does not know are taught to it."""
        from redis.exceptions import NoScriptError

        answers = await self._send([call.as_known() for call in calls])
        unknown = [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            taught = await self._send([calls[at].in_full() for at in unknown])
            for at, answer in zip(unknown, taught, strict=True):
                answers[at] = answer
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    async def prove(self, key: str) -> None:
        """Write and read: a replica or a server that loads its data is not what we look for."""
        await self.run([Call(("SET", key, "1", "EX", "60")), Call(("GET", key))])

    async def ask(self, *words: str) -> Answers:
        """(server, its answer) of every primary, to a question about itself."""
        return [("", await self._redis.execute_command(*words))]

    async def walk(self, pattern: str) -> AsyncIterator[list[str]]:
        """The names of keys like `pattern`, some at a time, of every primary."""
        for server in self._primaries():
            cursor: Any = 0
            while True:
                cursor, names = await server.execute_command(
                    "SCAN", cursor, "MATCH", pattern, "COUNT", SCANNED_AT_ONCE
                )
                yield [_text(name) for name in names]
                if not int(cursor):
                    break

    def _primaries(self) -> Sequence[Any]:
        return [self._redis]

    @asynccontextmanager
    async def listening(self, channel: str) -> AsyncIterator[AsyncIterator[str]]:
        """What is published on `channel`, from now on."""
        subscription = self._redis.pubsub()
        try:
            yield await _subscribe(subscription, channel)
        finally:
            await subscription.aclose()

    async def close(self) -> None:
        await self._redis.aclose()

    def _connect(self, address: RedisAddress, options: Options) -> Any:
        from redis.asyncio import Redis

        host, port = address.hosts[0]
        return Redis(
            host=host, port=port, db=address.database, max_connections=CONNECTIONS, **options
        )

    async def _send(self, requests: Sequence[tuple[Argument, ...]]) -> list[Any]:
        if len(requests) == 1:
            try:
                return [await self._redis.execute_command(*requests[0])]
            except self.errors as error:
                return [error]
        pipeline = self._redis.pipeline(transaction=False)
        for request in requests:
            pipeline.execute_command(*request)
        return list(await pipeline.execute(raise_on_error=False))


class SentinelClient(Client):
    """The primary of a name: each new connection asks the Sentinels who that is."""

    async def close(self) -> None:
        await super().close()
        await self._sentinel.aclose()

    async def ask_sentinels(self, *words: str) -> Answers:
        """(Sentinel, its answer); one that does not answer is left out."""
        answers: Answers = []
        for sentinel in self._sentinel.sentinels:
            place = sentinel.connection_pool.connection_kwargs
            try:
                answer = await sentinel.execute_command(*words)
            except self.errors:
                continue
            answers.append((f"{place['host']}:{place['port']}", answer))
        return answers

    def _connect(self, address: RedisAddress, options: Options) -> Any:
        from redis.asyncio import sentinel

        sentinel_options = options | {
            "username": address.sentinel_user or None,
            "password": address.sentinel_password or None,
        }
        # The driver moves the Sentinel that answered to the front of the list.
        make: Any = sentinel.Sentinel
        self._sentinel = make(list(address.hosts), sentinel_kwargs=sentinel_options, **options)
        return self._sentinel.master_for(
            address.name, db=address.database, max_connections=CONNECTIONS
        )


class ClusterClient(Client):
    """Many primaries: a batch goes to each in one pipeline, all at the same time."""

    async def prove(self, key: str) -> None:
        from redis.exceptions import ClusterDownError

        await self._redis.initialize()
        await self.ask("PING")
        await super().prove(key)
        for _, state in await self.ask("CLUSTER", "INFO"):
            if "cluster_state:ok" not in _text(state).split():
                raise ClusterDownError("the cluster does not cover all slots")

    async def ask(self, *words: str) -> Answers:
        return [
            (node.name, await node.execute_command(*words)) for node in self._redis.get_primaries()
        ]

    def _primaries(self) -> Sequence[Any]:
        return list(self._redis.get_primaries())

    @asynccontextmanager
    async def listening(self, channel: str) -> AsyncIterator[AsyncIterator[str]]:
        from redis.asyncio import Redis

        # What is published at one node is told to all: any will do.
        node = self._redis.get_random_node()
        redis = Redis(host=node.host, port=node.port, **self._options)
        subscription: Any = redis.pubsub()
        try:
            yield await _subscribe(subscription, channel)
        finally:
            await subscription.aclose()
            await redis.aclose()

    def _connect(self, address: RedisAddress, options: Options) -> Any:
        from redis.asyncio.cluster import ClusterNode, RedisCluster

        self._options = options
        return RedisCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in address.hosts],
            require_full_coverage=True,
            max_connections=CONNECTIONS,
            **options,
        )


async def _subscribe(subscription: "PubSub", channel: str) -> AsyncIterator[str]:
    await subscription.subscribe(channel)
    if await subscription.get_message(timeout=PONG_S) is None:  # the server's word that we listen
        raise TimeoutError
    return _messages(subscription)


async def _messages(subscription: "PubSub") -> AsyncIterator[str]:
    """What comes; a silent server is asked whether it is there, and not waited for twice."""
    asked = False
    while True:
        message = await subscription.get_message(timeout=PONG_S if asked else PING_S)
        if message is None:
            if asked:
                raise TimeoutError
            await subscription.ping()
            asked = True
            continue
        asked = False
        if message["type"] == "message":
            yield _text(message["data"])


def _text(answer: object) -> str:
    return answer.decode("utf-8", "replace") if isinstance(answer, bytes) else str(answer)


def _options(address: RedisAddress, call_s: float) -> Options:
    """What every connection is made with."""
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.maint_notifications import MaintNotificationsConfig

    options: Options = {
        "username": address.user or None,
        "password": address.password or None,
        "socket_timeout": call_s,
        "socket_connect_timeout": call_s,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        "client_name": "mailyard",
    }
    if address.tls:
        options["ssl"] = True
        if address.ca:
            options["ssl_ca_certs"] = address.ca
    return options
