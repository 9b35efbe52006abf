"""The metrics that every room counts with: one Prometheus registry a process.

Names follow the Prometheus naming guide: `mailyard_` first, the unit last.
"""

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry(auto_describe=True)

FAST_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
SLOW_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0)

QUERY_SECONDS = Histogram(
    "mailyard_database_query_seconds",
    "Time of one named query, the wait for a pooled connection included.",
    ["query"],
    buckets=FAST_BUCKETS,
    registry=REGISTRY,
)
MESSAGES_ACCEPTED = Counter(
    "mailyard_smtp_messages_accepted_total",
    "Messages answered with 250 after DATA or BDAT.",
    registry=REGISTRY,
)
MESSAGES_REFUSED = Counter(
    "mailyard_smtp_messages_refused_total",
    "Messages or recipients refused, by reply code.",
    ["code"],
    registry=REGISTRY,
)
MESSAGES_DROPPED = Counter(
    "mailyard_smtp_messages_dropped_total",
    "Messages taken and not kept, for a route of their domain's owner says so.",
    registry=REGISTRY,
)
SMTP_SESSIONS = Gauge("mailyard_smtp_sessions", "SMTP sessions open now.", registry=REGISTRY)
DELIVERIES = Counter(
    "mailyard_deliveries_total",
    "Delivery attempts by resulting state.",
    ["lane", "state"],
    registry=REGISTRY,
)
RETURNED_MAIL = Counter(
    "mailyard_returned_mail_total",
    "Mails that came back to a return-path or a feedback address, by what they were.",
    ["kind"],
    registry=REGISTRY,
)
PROVIDER_EVENTS_TOTAL = Counter(
    "mailyard_provider_events_total",
    "Events that providers told, by what became of them.",
    ["kind", "outcome"],
    registry=REGISTRY,
)
VERDICTS = Counter(
    "mailyard_verdicts_total",
    "Received messages judged, by what their author stands as.",
    ["standing"],
    registry=REGISTRY,
)
JOBS = Counter(
    "mailyard_jobs_total",
    "Jobs finished, by queue and outcome.",
    ["queue", "outcome"],
    registry=REGISTRY,
)
JOB_SECONDS = Histogram(
    "mailyard_job_seconds",
    "Time from lease to completion of a batch of jobs.",
    ["queue"],
    buckets=FAST_BUCKETS,
    registry=REGISTRY,
)
WORKER_SLOTS = Gauge(
    "mailyard_worker_slots",
    "Batches of a queue's jobs that this worker does at once.",
    ["queue"],
    registry=REGISTRY,
)
HTTP_SECONDS = Histogram(
    "mailyard_http_request_seconds",
    "Time of an HTTP request, by route and status.",
    ["route", "status"],
    buckets=FAST_BUCKETS,
    registry=REGISTRY,
)
HTTP_ARRIVED = Counter(
    "mailyard_http_requests_total",
    "HTTP requests of the API that came, answered or not.",
    registry=REGISTRY,
)
HTTP_WAITING = Gauge(
    "mailyard_http_waiting",
    "Requests that have no answer yet: at work in this process, or before its door (connections "
    "that nobody has accepted).",
    ["where"],
    registry=REGISTRY,
)
LIVE_CONNECTIONS = Gauge(
    "mailyard_live_connections", "Open live streams and waits.", ["kind"], registry=REGISTRY
)
WEBHOOK_LAG = Gauge(
    "mailyard_webhook_fan_out_lag_seconds",
    "Age of the oldest event that is not in the lines of endpoints yet; of the worker that deals.",
    registry=REGISTRY,
)
WEBHOOK_EVENTS_LOST = Counter(
    "mailyard_webhook_events_lost_total",
    "Events that left before an endpoint that wants their kind was told of them.",
    registry=REGISTRY,
)
CACHE_LOOKUPS = Counter(
    "mailyard_cache_lookups_total",
    "Looks into a layer of the cache, by what was looked for and whether it was there.",
    ["kind", "layer", "outcome"],
    registry=REGISTRY,
)
CACHE_BYTES = Gauge(
    "mailyard_cache_process_bytes", "What the cache keeps in this process.", registry=REGISTRY
)
ANALYSIS_CALLS = Counter(
    "mailyard_analysis_calls_total",
    "Questions to models, by the kind of model and what came of them.",
    ["kind", "outcome"],
    registry=REGISTRY,
)
ANALYSIS_SECONDS = Histogram(
    "mailyard_analysis_call_seconds",
    "Time of one question to a model, the failed ones included.",
    ["kind"],
    buckets=SLOW_BUCKETS,
    registry=REGISTRY,
)
ANALYSIS_TOKENS = Counter(
    "mailyard_analysis_tokens_total",
    "Tokens that models read and wrote; where one does not count, the most that it can be.",
    ["kind"],
    registry=REGISTRY,
)
BLOB_OPERATIONS = Counter(
    "mailyard_blob_operations_total",
    "Uses of the blob store, by what was done and what came of it.",
    ["operation", "outcome"],
    registry=REGISTRY,
)
BLOB_SECONDS = Histogram(
    "mailyard_blob_operation_seconds",
    "Time of one use of the blob store that was answered.",
    ["operation"],
    buckets=FAST_BUCKETS,
    registry=REGISTRY,
)
BLOB_BYTES = Counter(
    "mailyard_blob_bytes_total",
    "Bytes written to and read from the blob store.",
    ["operation"],
    registry=REGISTRY,
)
BLOBS_REACHABLE = Gauge(
    "mailyard_blob_store_reachable",
    "Whether the blob store answered last (1) or was away (0).",
    registry=REGISTRY,
)
BLOBS_SWEPT = Counter(
    "mailyard_blobs_swept_total",
    "Blobs deleted, by why: their row went (deleted), or no row names them (unnamed).",
    ["why"],
    registry=REGISTRY,
)

REDIS_AWAY = Gauge(
    "mailyard_redis_away_seconds",
    "For how long Redis has not answered this process; 0: it does, or none is used.",
    registry=REGISTRY,
)
REDIS_CALLS = Counter(
    "mailyard_redis_calls_total",
    "Calls to Redis, a pipeline being one: done, failed, or not tried because it is away.",
    ["outcome"],
    registry=REGISTRY,
)
REDIS_CALL_SECONDS = Histogram(
    "mailyard_redis_call_seconds",
    "Time of one call to Redis, the wait for its turn included.",
    buckets=FAST_BUCKETS,
    registry=REGISTRY,
)
REDIS_FALLBACKS = Counter(
    "mailyard_redis_fallbacks_total",
    "What was done without Redis: cache misses, limits by local share, wake-ups by PostgreSQL.",
    ["part"],
    registry=REGISTRY,
)
REDIS_MEMORY_BYTES = Gauge(
    "mailyard_redis_memory_bytes", "Memory that Redis uses, all primaries.", registry=REGISTRY
)
REDIS_MEMORY_MAX_BYTES = Gauge(
    "mailyard_redis_memory_max_bytes",
    "Memory that Redis may use (maxmemory, else the machine's), all primaries.",
    registry=REGISTRY,
)
REDIS_HITS = Gauge(
    "mailyard_redis_keyspace_hits", "Looks that found a key, as Redis counts.", registry=REGISTRY
)
REDIS_MISSES = Gauge(
    "mailyard_redis_keyspace_misses", "Looks that found none, as Redis counts.", registry=REGISTRY
)
REDIS_EVICTIONS = Gauge(
    "mailyard_redis_evicted_keys", "Keys that left for want of memory.", registry=REGISTRY
)


def cache_lookups() -> dict[str, int]:
    """This process's looks into its cache, by `kind layer outcome`."""
    return {
        f"{one.labels['kind']} {one.labels['layer']} {one.labels['outcome']}": int(one.value)
        for family in CACHE_LOOKUPS.collect()
        for one in family.samples
        if one.name.endswith("_total")
    }


def live_connections() -> dict[str, int]:
    """This process's open live connections by kind."""
    return {
        one.labels["kind"]: int(one.value)
        for family in LIVE_CONNECTIONS.collect()
        for one in family.samples
        if one.value
    }


_TELLERS: dict[str, Callable[[], Mapping[str, float]]] = {}


def tell(room: str, figures: Callable[[], Mapping[str, float]]) -> None:
    """Have `figures` (name -> number, e.g. `away` -> 1.0) told with this process's beat.

    A name may have a subject behind a space (`left_out 10.0.0.7:5432`). The whole fleet's are the
    largest of each name and subject, as `<room>.<name>`: for alert rules.
    """
    _TELLERS[room] = figures


def told_by_others() -> dict[str, float]:
    """What the rooms tell of themselves, by `room.name`."""
    return _redis() | {
        f"{room}.{name}": float(value)
        for room, figures in _TELLERS.items()
        for name, value in figures().items()
    }


def _redis() -> dict[str, float]:
    """Whether Redis is away, and how full it is; nothing where no Redis is used."""
    if not any(family.samples for family in REDIS_CALLS.collect()):
        return {}
    told = {"redis.away": float(_value(REDIS_AWAY) > 0)}
    most = _value(REDIS_MEMORY_MAX_BYTES)
    if most > 0:
        told["redis.memory_bytes"] = _value(REDIS_MEMORY_BYTES)
        told["redis.memory_share"] = _value(REDIS_MEMORY_BYTES) / most
    return told


def redis_counts() -> dict[str, float]:
    """What Redis has counted itself, as it last said: hits, misses, evictions."""
    if not _value(REDIS_MEMORY_BYTES):
        return {}
    return {
        "hits": _value(REDIS_HITS),
        "misses": _value(REDIS_MISSES),
        "evictions": _value(REDIS_EVICTIONS),
    }


def _value(gauge: Gauge) -> float:
    """Of a gauge without labels."""
    return sum(one.value for family in gauge.collect() for one in family.samples)
