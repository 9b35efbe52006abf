"""What every service stands on: settings, clock, database, queue, bus, cache."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from mailyard.app.fleet_stores import FleetStores, fleet_stores
from mailyard.bus.bus import Bus
from mailyard.bus.live import MAILBOX_CHANGED, MESSAGE_RECEIVED, LiveEvents
from mailyard.core.clock import SystemClock
from mailyard.core.ids import uuid7
from mailyard.queue.engines.postgres import PostgresEngine
from mailyard.settings import HOME, Settings
from mailyard.storage import cluster
from mailyard.storage.database import Database, DatabaseAddress
from mailyard.storage.hosts import for_writes
from mailyard.storage.raw_mail import IN_ROWS, RawMail

if TYPE_CHECKING:
    from mailyard.bus.adapters.postgres_presence import PostgresPresence
    from mailyard.bus.presence import Presence
    from mailyard.cache.cache import Cache
    from mailyard.cache.layered import LayeredCache
    from mailyard.queue.engines.kafka.engine import KafkaEngine
    from mailyard.queue.engines.kafka.options import KafkaOptions
    from mailyard.queue.engines.kafka.topics import Provisioned
    from mailyard.ratelimit.lease import Leases
    from mailyard.ratelimit.ratelimit import RateLimit
    from mailyard.storage.blob import BlobStore
    from mailyard.storage.blob_upkeep import BlobUpkeep
    from mailyard.storage.directory import Home, Residence
    from mailyard.storage.names import Names

# Live events that say that the mail of an inbox has changed, and where they name it.
_OF_MAIL = {MESSAGE_RECEIVED: "inbox_id", MAILBOX_CHANGED: "inbox_id"}


def database_address(settings: Settings) -> DatabaseAddress:
    """Where the platform's PostgreSQL is, its own or the one that the settings name; the shard's
    where the settings are a shard's."""
    if settings.shard:
        url, direct = settings.shard_urls[settings.shard]
        return DatabaseAddress(
            url=for_writes(url),
            direct_url=for_writes(direct or url),
            connections=settings.database_connections,
            behind_pooler=bool(direct),
        )
    url = for_writes(settings.database_url) or cluster.url_of(settings.data)
    return DatabaseAddress(
        url=url,
        direct_url=for_writes(settings.database_direct_url) or url,
        connections=settings.database_connections,
        behind_pooler=settings.database_pooler,
    )


def backups_reach_back_s(settings: Settings) -> float:
    """How old the oldest state is that a backup restores, in seconds; 0: there are none. One base
    backup older than the days to be kept stays, and the newest may be late by a whole turn."""
    if not settings.backup:
        return 0.0
    return 86_400.0 * settings.backup_keep_days + 2 * 3_600.0 * settings.backup_every_h


def kafka_options(settings: Settings) -> "KafkaOptions":
    """Where the brokers are, and who we are there."""
    from mailyard.queue.engines.kafka.options import KafkaOptions

    return KafkaOptions(
        servers=settings.kafka_servers,
        prefix=settings.kafka_prefix,
        group=settings.kafka_group,
        protocol=settings.kafka_group_protocol,
        tls=settings.kafka_tls,
        ca=settings.kafka_ca,
        sasl="" if settings.kafka_sasl == "none" else settings.kafka_sasl.upper(),
        user=settings.kafka_user,
        password=settings.kafka_password,
    )


async def provision_topics(settings: Settings) -> "list[Provisioned]":
    """Make the topics of the queues that are kept in Kafka, or grow them. Raises Unavailable."""
    from mailyard.queue.engines.kafka.topics import Topics, partitions_of
    from mailyard.queue.lanes import parse_lanes

    lanes = parse_lanes(settings.kafka_lanes)
    wanted = {lane: partitions_of(lane, settings.kafka_partitions) for lane in lanes}
    return await Topics(kafka_options(settings)).provision(wanted, settings.kafka_replicas)


def blob_store(url: str) -> "BlobStore":
    """The store at an address, a folder or a bucket. Raises ConfigurationError."""
    if url.startswith("file:"):
        from mailyard.storage.blobs.folder import FolderBlobs

        return FolderBlobs(Path(unquote(urlsplit(url).path)))
    from mailyard.storage.blobs.object_store import ObjectStoreBlobs

    return ObjectStoreBlobs(url)


def database_of(settings: Settings) -> Database:
    """The platform's database: with replicas, or a primary that may move, where settings say so."""
    address = database_address(settings)
    if settings.shard or not (settings.database_replicas or settings.many_hosts):
        return Database(address)
    from mailyard.storage.replicated import ReplicatedDatabase

    return ReplicatedDatabase(address, settings.replica_urls)


class Foundation:
    """The parts that a process always has."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = SystemClock()
        self.database = database_of(settings)
        # All of the installation's, by name, where this process serves several (app/shards.py).
        self.clusters: Mapping[str, Database] = {HOME: self.database}
        # The home cluster's, where somebody in this process has opened it (app/shards.py).
        self.home_database: Database | None = None
        self.process_id = uuid7()  # as which this process is known to the others
        self.fleet: FleetStores | None = fleet_stores(settings, self.database, self.clock)
        self.bus = self._bus()
        self.live = LiveEvents(database=self.database, bus=self.bus)
        self.ends: list[Callable[[], Awaitable[None]]] = []  # of services that hold something
        self.check_log: Callable[[], Coroutine[Any, Any, None]] | None = (
            None  # where the queue has a log
        )
        self.engine = self._engine()

    def _engine(self) -> "PostgresEngine | KafkaEngine":
        """The queue on PostgreSQL; the one on Kafka has it beside itself."""
        postgres = PostgresEngine(database=self.database, bus=self.bus)
        if self.settings.queue_engine == "postgres":
            return postgres
        from mailyard.queue.engines.kafka.engine import KafkaEngine
        from mailyard.queue.lanes import parse_lanes

        engine = KafkaEngine(
            postgres=postgres,
            database=self.database,
            bus=self.bus,
            options=kafka_options(self.settings),
            lanes=parse_lanes(self.settings.kafka_lanes),
        )
        self.ends.append(engine.close)
        self.check_log = engine.check_log
        return engine

    def _bus(self) -> Bus:
        from mailyard.bus.adapters.postgres import PostgresBus

        return PostgresBus(database=self.database) if self.fleet is None else self.fleet.bus

    @cached_property
    def raw_mail(self) -> RawMail:
        """Where the bytes of received mail lie. Raises ConfigurationError."""
        return RawMail(self.blobs, self.settings.blobs_above) if self.settings.blobs else IN_ROWS

    @cached_property
    def blobs(self) -> "BlobStore | None":
        """What is too large for rows; None: all is in rows. Raises ConfigurationError."""
        if not self.settings.blobs:
            return None
        from mailyard.storage.blobs.timed import TimedBlobs

        store: BlobStore = TimedBlobs(blob_store(self.settings.blobs))
        if self.settings.blobs_before:
            from mailyard.storage.blobs.moving import MovingBlobs

            store = MovingBlobs(store, TimedBlobs(blob_store(self.settings.blobs_before)))
        self.ends.append(store.close)
        return store

    @cached_property
    def blob_upkeep(self) -> "BlobUpkeep":
        """What deletes blobs that no row names."""
        from mailyard.storage.blob_upkeep import BlobUpkeep

        return BlobUpkeep(
            database=self.database,
            store=self.blobs,
            clock=self.clock,
            keep_s=backups_reach_back_s(self.settings),
            keeps=self.residence,
        )

    @cached_property
    def residence(self) -> "Residence | None":
        """Which workspaces are in this cluster, where there are several."""
        if not self.settings.shards:
            return None
        from mailyard.app.shards import residence_of

        return residence_of(self)

    @cached_property
    def home(self) -> "Home":
        """The home cluster, where there are several."""
        from mailyard.app.shards import home_of

        return home_of(self)

    @cached_property
    def names(self) -> "Names | None":
        """What makes names one of a kind over all clusters, where there are several."""
        if not self.settings.shards:
            return None
        from mailyard.app.shards import names_of

        return names_of(self)

    @cached_property
    def presence(self) -> "Presence":
        """Which processes are there."""
        table = self.presence_table
        return table if self.fleet is None else self.fleet.presence(table)

    @cached_property
    def presence_table(self) -> "PostgresPresence":
        """The same as far as PostgreSQL knows."""
        from mailyard.bus.adapters.postgres_presence import PostgresPresence

        return PostgresPresence(database=self.database)

    @cached_property
    def shared_cache(self) -> "Cache":
        """What the processes share for a while."""
        from mailyard.cache.adapters.postgres import PostgresCache

        if self.fleet is not None:
            return self.fleet.cache
        return PostgresCache(database=self.database)

    @cached_property
    def limits(self) -> "RateLimit":
        """Buckets that all processes share."""
        from mailyard.ratelimit.adapters.postgres import PostgresRateLimit

        if self.fleet is not None:
            return self.fleet.limits
        return PostgresRateLimit(database=self.database)

    @cached_property
    def leases(self) -> "Leases":
        """What only so many may have open at once, over all workers."""
        from mailyard.ratelimit.adapters.postgres_leases import PostgresLeases

        if self.fleet is not None:
            return self.fleet.leases(self.process_id)
        return PostgresLeases(database=self.database)

    def store_sweeps(self) -> list[Callable[[], Awaitable[None]]]:
        """What frees rows that have run out of the tables of cache and limits; there may be some
        also where both are in Redis by now."""
        from mailyard.cache.adapters.postgres import PostgresCache
        from mailyard.ratelimit.adapters.postgres import PostgresRateLimit

        return [
            PostgresCache(database=self.database).sweep,
            PostgresRateLimit(database=self.database).sweep,
        ]

    @cached_property
    def cache(self) -> "LayeredCache":
        """The layers: this process, the shared one, the results."""
        from mailyard.cache.layered import LayeredCache

        cache = LayeredCache(
            database=self.database,
            shared=self.shared_cache,
            bus=self.bus,
            followed=_OF_MAIL,
            clock=self.clock,
        )
        self.ends.append(cache.close)
        return cache
