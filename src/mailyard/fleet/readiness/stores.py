"""Whether what holds the data bears several machines: PostgreSQL, Redis, Kafka, blobs, secrets.

Most was looked at by the checks that every `mailyard doctor` makes: here their findings are read
for what a stage wants.
"""

from collections.abc import Sequence
from contextlib import AsyncExitStack

import asyncpg

from mailyard.fleet.checkup.finding import Finding, Grade
from mailyard.fleet.readiness import needs
from mailyard.fleet.readiness.item import Item, met, missing, thin
from mailyard.storage.database import AWAY
from mailyard.storage.queries import load

_SQL = load("process")
_CLIENTS = 5
_ROUNDS = 3
_CONNECT_S = 5.0


def named(findings: Sequence[Finding], *checks: str) -> list[Finding]:
    """Those of `findings` whose check is, or begins with, one of `checks`."""
    return [one for one in findings if one.check.startswith(checks)]


def judge_budget(findings: Sequence[Finding], said: str) -> Item:
    """`said`: what the settings alone say, where no server was asked."""
    asked = named(findings, "connections")
    if not asked:
        return met(needs.BUDGET, f"{said}; the server was not asked")
    if asked[0].grade is Grade.GOOD:
        return met(needs.BUDGET, asked[0].found)
    return missing(
        needs.BUDGET,
        asked[0].found,
        "lower MAILYARD_DATABASE_CONNECTIONS or …_INSTANCES, or raise max_connections and budget",
    )


async def sharers(url: str) -> tuple[int, int]:
    """How many server processes several idle connections through `url` were given, of how many.

    A pooler in transaction mode gives one to all of them in turn; a server, or a pooler in session
    mode, one to each. Raises OSError, asyncpg.PostgresError.
    """
    fewest = _CLIENTS
    async with AsyncExitStack() as stack:
        clients = []
        for _ in range(_CLIENTS):
            client = await asyncpg.connect(url, timeout=_CONNECT_S, statement_cache_size=0)
            stack.push_async_callback(client.close)
            clients.append(client)
        for _ in range(_ROUNDS):  # others use the pool too: once is enough to see
            backends = {await client.fetchval(_SQL.backend) for client in clients}
            fewest = min(fewest, len(backends))
    return fewest, _CLIENTS


async def judge_pooling(pooler: bool, pooled_url: str, direct_url: str) -> Item:
    """Ask for a pooler in transaction mode, and whether it is one."""
    if not pooler:
        return missing(
            needs.POOLING,
            "each process holds connections of its own",
            "put PgBouncer in transaction mode before PostgreSQL: MAILYARD_DATABASE_URL names it, "
            "MAILYARD_DATABASE_DIRECT_URL the server, MAILYARD_DATABASE_POOLER=true",
        )
    if pooled_url == direct_url:
        fix = "MAILYARD_DATABASE_URL names the pooler, MAILYARD_DATABASE_DIRECT_URL the server"
        return missing(needs.POOLING, "both addresses are the same", fix)
    try:
        given, clients = await sharers(pooled_url)
    except (*AWAY, asyncpg.PostgresError) as error:
        fix = "start it, or correct MAILYARD_DATABASE_URL"
        return missing(needs.POOLING, f"the pooler does not answer: {error}", fix)
    if given == clients:
        found = f"{clients} idle connections hold {given} server processes: they are not shared"
        return missing(needs.POOLING, found, "pool_mode = transaction in PgBouncer")
    return met(needs.POOLING, f"{clients} idle connections share {given} server processes")


def judge_replica(findings: Sequence[Finding], *, many_hosts: bool) -> Item:
    """A standby that could take over."""
    fix = "make a standby (docs/DATABASE.md) and name it in MAILYARD_DATABASE_REPLICAS"
    standbys = named(findings, "replica ")
    if not standbys:
        if many_hosts:
            found = "the address names several servers; no standby is read"
            return met(needs.REPLICA, found)
        return missing(needs.REPLICA, "PostgreSQL stands alone", fix)
    bad = [one for one in standbys if one.grade is not Grade.GOOD]
    if len(bad) == len(standbys):
        return missing(needs.REPLICA, f"{bad[0].check} {bad[0].found}", bad[0].fix)
    if bad:
        return thin(needs.REPLICA, f"{bad[0].check} {bad[0].found}", bad[0].fix)
    return met(needs.REPLICA, "; ".join(f"{one.check} {one.found}" for one in standbys))


def judge_redis(findings: Sequence[Finding], *, used: bool, single: bool) -> Item:
    """A Redis whose loss is mended without people."""
    fix = "three Sentinels, or a cluster with replicas: MAILYARD_REDIS_URL, docs/FLEET.md"
    if not used:
        found = "there is none: PostgreSQL carries cache, limits and wake-ups"
        return missing(needs.REDIS, found, fix)
    asked = named(findings, "redis failover")
    if not asked:  # it does not answer, and the finding on that says why
        away = named(findings, "redis")
        return missing(needs.REDIS, away[0].found if away else "was not asked", fix)
    if single:
        return missing(needs.REDIS, "one server", fix)
    one = asked[0]
    if one.grade is Grade.GOOD:
        return met(needs.REDIS, one.found)
    judged = thin if one.grade is Grade.WARN else missing
    return judged(needs.REDIS, one.found, one.fix)


def judge_kafka(findings: Sequence[Finding], *, used: bool) -> Item:
    """Lanes that outgrow PostgreSQL."""
    if not used:
        return missing(
            needs.KAFKA,
            "all jobs are in PostgreSQL",
            "MAILYARD_QUEUE_ENGINE=kafka, once millions of jobs wait (docs/KAFKA.md)",
        )
    worst = max(named(findings, "Kafka"), key=lambda one: list(Grade).index(one.grade))
    if worst.grade is Grade.GOOD:
        return met(needs.KAFKA, f"Kafka: {worst.found}")
    judged = thin if worst.grade is Grade.WARN else missing
    return judged(needs.KAFKA, f"{worst.check}: {worst.found}", worst.fix)


def judge_blobs(findings: Sequence[Finding], url: str) -> Item:
    """Where large mail lies must be reached from every machine."""
    if not url:
        return missing(
            needs.BLOBS,
            "large mail lies in the database's rows",
            "MAILYARD_BLOBS=s3://BUCKET/PREFIX (docs/BLOBS.md)",
        )
    bad = [one for one in named(findings, "blob store") if one.grade is not Grade.GOOD]
    if bad:
        return missing(needs.BLOBS, bad[0].found, bad[0].fix)
    if url.startswith("file:"):
        fix = "an object store, and mailyard blobs copy; or be sure that all machines mount it"
        return thin(needs.BLOBS, "a folder, which every machine has to see", fix)
    return met(needs.BLOBS, "takes, gives back and deletes a blob")


def judge_master_key(key: str) -> Item:
    """What opens stored secrets is the same everywhere."""
    if key:
        return met(needs.MASTER_KEY, "set, so that every machine opens the same secrets")
    return missing(
        needs.MASTER_KEY,
        "each data folder makes one of its own, which opens nobody else's secrets",
        "MAILYARD_MASTER_KEY=$(openssl rand -base64 32), the same everywhere; on one that ran: "
        "what stands in `master.key` of its data folder",
    )
