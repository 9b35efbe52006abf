"""Which tables a workspace takes along when it moves, and in which order.

The schema says it: every table with a `workspace_id` goes along, whoever adds one need not know of
shards. What is an exception stands here as data, with its reason: tables that stay (`LEFT`), tables
that are a workspace's by way of others (`THROUGH`; their condition is in `shard.sql`), and big ones
that are copied while the workspace works (`LIVE`). What is in none of them and has no workspace is
the cluster's own (`CLUSTER`); a test refuses a table that is nowhere.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mailyard.core.errors import ConfigurationError
from mailyard.storage.database import Database
from mailyard.storage.queries import load

QUERIES = load("shard")

WORKSPACE = "workspace"
PEOPLE = "user_account"
# Rows that a workspace shares with others: they are brought along where they lack, and stay behind.
SHARED = frozenset({PEOPLE, "login_link"})

# Copied while the workspace works: they grow with mail and contacts, and in the new cluster nothing
# is done by itself because of their rows. What changes meanwhile is noted by the guard, and copied
# again. In the order of copying: mail before its lines (a sweep takes lines without mail for old).
LIVE: tuple[str, ...] = (
    WORKSPACE,
    "message",
    "message_meaning",
    "message_analysis",
    "verdict",
    "delivery",
    "delivery_event",
    "email",
    "tracking_event",
    "tracking_first",
    "tracked_link",
    "inbox_message",
    "line_state",
    "thread_key",
    "mailbox_event",
    "mailbox_text",
    "search_line",
    "search_vector",
    "contact",
    "contact_event",
    "contact_list",
    "list_member",
    "audit_log",
    "webhook_delivery",
    "webhook_attempt",
    "analysis_result",
    "dmarc_report",
    "dmarc_row",
    "tls_report",
    "usage_day",
)

# A workspace's rows that stay, and are removed where it was.
LEFT: dict[str, str] = {
    "cache_change": "says what the caches of a cluster have to forget",
    "cache_entry": "a cache",
    "cache_result": "a cache",
    "greylist": "peers prove themselves anew; the table is not even logged",
    "live_event": "its order is the cluster's transactions'; webhooks have been dealt all of it",
    "queue_line": "made anew with the jobs, under numbers of the other cluster",
    "shard_change": "of the move itself",
    "shard_held_job": "of the move itself",
    "shard_came_job": "of the move itself",
    "shard_fence": "of the move itself; the fence stays",
    "shard_arrival": "of the move itself",
    "shard_place": "the directory, in the home cluster",
    "shard_move": "the directory, in the home cluster",
    "shard_name": "the directory, in the home cluster",
}
_NEVER_REMOVED = frozenset(
    {"queue_line", "shard_fence", "shard_arrival", "shard_place", "shard_move", "shard_name"}
)

# Without a workspace of their own, but a workspace's.
THROUGH: tuple[str, ...] = (
    WORKSPACE,
    PEOPLE,
    "login_link",
    "provider_hook_seen",
    "provider_event",
)

# A cluster's own.
CLUSTER: dict[str, str] = {
    "account_link": "strangers' sign-ups and forgotten passwords: good for a day at most",
    "alert": "of the cluster",
    "alert_notice": "of the cluster",
    "backup_run": "of the cluster",
    "connection_lease": "held by its workers",
    "feature_rollout": "of the installation",
    "job": "moved by itself, under new numbers (jobs.py)",
    "job_dead": "moved by itself, under new numbers (jobs.py)",
    "job_key": "begins anew",
    "job_lease": "there is none when the workspace leaves",
    "job_parked": "moved as a job that is due",
    "job_ready": "moved as a job that is due",
    "job_scheduled": "moved with its job",
    "job_slot": "there is none when the workspace leaves",
    "kafka_cursor": "of the cluster",
    "kafka_drain": "of the cluster",
    "kafka_lease": "of the cluster",
    "kafka_outbox": "of the cluster; with Kafka's lanes a move is refused",
    "leader": "of the cluster",
    "load_test": "of the installation",
    "master_key": "of the installation",
    "process": "of the cluster",
    "provider_health": "found out anew",
    "queue_count": "of the cluster",
    "queue_delta": "of the cluster",
    "queue_fold": "of the cluster",
    "queue_policy": "of the cluster",
    "queue_schedule": "of the cluster",
    "rate_bucket": "begins anew",
    "region_term": "of the installation",
    "scale_decision": "of the cluster",
    "schema_migration": "of the cluster",
    "shaping_event": "of the cluster's deliverers",
    "shaping_site": "of the cluster's deliverers",
    "shard_progress": "the directory, in the home cluster",
    "source_count": "of the cluster's deliverers",
    "source_state": "of the cluster's deliverers",
    "sts_policy": "found out anew",
    "tls_report_sent": "of the cluster's deliverers",
    "tls_result": "of the cluster's deliverers",
    "webhook_cursor": "of the cluster's stream",
    "written_place": "of the cluster's log",
}


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the schema. `columns`: those that are copied; what the cluster fills in by
    itself (numbers, transactions) is not. `guard`: the arguments of its guard, if it has one."""

    name: str
    owned: bool
    key: tuple[str, ...]
    columns: tuple[str, ...]
    refers_to: frozenset[str]
    guard: str | None

    @property
    def live(self) -> bool:
        """Whether it is copied while the workspace works."""
        return self.name in LIVE

    @property
    def guarded(self) -> bool:
        """Whether a fence closes it: all that is a workspace's by a column."""
        return self.name == WORKSPACE or (
            self.owned and not self.name.startswith("shard_") and self.name not in ("queue_line",)
        )

    @property
    def guard_arguments(self) -> tuple[str, ...]:
        """What its guard is told: its name, and its key where changes are to be noted."""
        return (self.name, *(self.key if self.live else ()))


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of a workspace. `rest`: those that are copied while nothing changes; both in an
    order in which a row comes after those that it refers to. `left`: whose rows stay and go."""

    live: Sequence[Table]
    rest: Sequence[Table]
    left: Sequence[Table]
    guarded: Sequence[Table]

    @property
    def moved(self) -> Sequence[Table]:
        """All that a workspace takes along."""
        return [*self.live, *self.rest]


async def read_tables(database: Database) -> list[Table]:
    """All tables of a cluster."""
    return [
        Table(
            row["name"],
            row["owned"],
            tuple(row["key"]),
            tuple(row["columns"]),
            frozenset(row["refers_to"]),
            row["guard"],
        )
        for row in await database.fetch(QUERIES.tables)
    ]


def sort_out(tables: Sequence[Table]) -> Tables:
    """Raises ConfigurationError for a table that nobody has said anything of, and for one that is
    named here and gone."""
    known = {table.name: table for table in tables}
    lost = sorted({*LIVE, *LEFT, *THROUGH, *CLUSTER} - known.keys())
    if lost:
        raise ConfigurationError(f"fleet/shards/tables.py names tables that are gone: {lost}")
    stray = sorted(
        name
        for name, table in known.items()
        if not table.owned and name not in THROUGH and name not in CLUSTER
    )
    if stray:
        raise ConfigurationError(
            f"tables {stray} have no workspace_id: fleet/shards/tables.py must say whether they "
            "are a workspace's by way of others (THROUGH) or the cluster's (CLUSTER)"
        )
    rest = [
        table
        for name, table in known.items()
        if (table.owned or name in THROUGH) and name not in LIVE and name not in LEFT
    ]
    return Tables(
        live=[known[name] for name in LIVE],
        rest=_ordered(rest),
        left=[known[name] for name in LEFT if name not in _NEVER_REMOVED],
        guarded=[table for table in tables if table.guarded],
    )


def _ordered(tables: Iterable[Table]) -> list[Table]:
    """Each after those of them that it refers to."""
    waiting = {table.name: table for table in tables}
    ordered: list[Table] = []
    while waiting:
        free = [table for table in waiting.values() if not table.refers_to & waiting.keys()]
        if not free:
            raise ConfigurationError(f"tables {sorted(waiting)} refer to each other in a circle")
        for table in sorted(free, key=lambda one: one.name):
            ordered.append(waiting.pop(table.name))
    return ordered
