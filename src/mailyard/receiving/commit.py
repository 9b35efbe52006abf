"""Group commit: messages that arrive together become durable together.

While a group is being committed the next one gathers, so the group grows with the load and a lone
message waits for nobody. After a group of several the next one gathers a moment longer: a group of
ten costs little less than one of twenty. Three things can go wrong with a group:

- One of its rows cannot be stored. The group is halved until that row stands alone; its neighbours
  are stored.
- PostgreSQL is full or refuses for now: everybody in the group is told to come back (451).
- The connection is lost, perhaps after the commit. The same rows, under the same ids, are tried
  again: where they collide with themselves, the first commit had happened. Only when PostgreSQL
  stays away for `patience_s` is the peer told to come back.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter
from typing import Any, Protocol
from uuid import UUID

import asyncpg
import msgspec
import structlog
from msgspec import Struct

from mailyard.core.clock import Clock
from mailyard.core.errors import Unavailable
from mailyard.core.limits import ACCEPT_GROUP_BYTES, ACCEPT_GROUP_MESSAGES
from mailyard.observe.metrics import QUERY_SECONDS
from mailyard.observe.reason import reason_of
from mailyard.protocol.smtp.reply import Reply
from mailyard.queue.job import EMAIL_EVENTS, INBOUND_EMAIL, NewJob
from mailyard.receiving.later import Later
from mailyard.receiving.route import NOBODY
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

INGEST = "ingest"
RETURNED_MAIL = "returned-mail"  # what came back, for who knows what was sent (sending.returns)
RETURNED_DAYS = 30  # its retention class
QUERIES = load("receiving")

# The order of a row's values in `Arrival.rows`.
COLUMNS = (
    "id",
    "workspace_id",
    "retention_days",
    "reverse_path",
    "recipients",
    "inbox_ids",
    "helo",
    "peer",
    "size_bytes",
    "filed_under",
    "raw",
)
BLOB_COLUMNS = (*COLUMNS, "blob")
Row = tuple[UUID, UUID, int, str, list[str], list[UUID], str, str, int, list[str] | None, bytes]

TRY_LATER = Reply(451, "4.3.0", "Local error, try again later")
STORAGE_FULL = Reply(452, "4.3.1", "Insufficient system storage, try again later")
NOT_STORABLE = Reply(554, "5.6.0", "The message cannot be stored")

_ALL_AND_THEN = "true; "  # the condition ends COPY's statement
_ENQUEUED = "SELECT 1"  # PostgreSQL's word for the statement behind it, and so for the commit
_IN_COMPANY = 3  # messages in one group from which on the next one waits for company
_GATHER_S = 0.001
_COMMITTERS = 2  # groups on their way at a time
_CROWD = 32  # messages that do not wait until the one group on its way is stored
_PAUSE_BETWEEN_TRIES_S = 0.2
_COPY_S = 60.0
_COPY_SECONDS = QUERY_SECONDS.labels("receiving.copy_messages")
_AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InterfaceError,
    OSError,
    TimeoutError,
)
_FOR_NOW = (asyncpg.TransactionRollbackError, asyncpg.LockNotAvailableError)

logger = structlog.get_logger(__name__)


class Arrival(Struct, eq=False):
    """A whole message, with the rows it becomes: one a workspace that it is for. `blobs`: where the
    bytes of each lie that are not in it."""

    rows: Sequence[Row]
    size_bytes: int
    arrived_at: float
    when_stored: Reply
    reply: Later
    settled: bool = False
    blobs: Sequence[str] = ()
    trace: bytes = b""  # the marks of its session's span

    def settle(self, reply: Reply) -> None:
        self.settled = True
        self.reply.settle(reply)


class Enqueuer(Protocol):
    """What a group commit needs of the queue (`PostgresEngine` fits)."""

    async def statement(self, jobs: Sequence[NewJob]) -> str:
        """The enqueue of `jobs` as an SQL statement of which one row comes back."""
        ...

    def announce(self, queues: Sequence[str]) -> None: ...


class GroupCommit:
    """Stores arrivals and enqueues one job a workspace and group. One event loop's."""

    def __init__(
        self, *, database: Database, engine: Enqueuer, clock: Clock, patience_s: float
    ) -> None:
        self._database = database
        self._engine = engine
        self._clock = clock
        self._patience_s = patience_s
        self._waiting: deque[Arrival] = deque()
        self._committers: set[asyncio.Task[None]] = set()
        self._at_work = 0  # of them, whose last look found something to do
        self._storing = 0  # of these, whose group is on its way
        self.held_bytes = 0
        self.held_messages = 0

    def add(self, arrival: Arrival) -> None:
        """Take an arrival into the next group. Its reply comes after the commit."""
        self.held_bytes += arrival.size_bytes
        self.held_messages += 1
        self._waiting.append(arrival)
        if not self._at_work or (
            self._storing == self._at_work < _COMMITTERS and len(self._waiting) >= _CROWD
        ):
            self._at_work += 1
            committer = asyncio.create_task(self._commit())
            self._committers.add(committer)
            committer.add_done_callback(self._committers.discard)

    async def close(self) -> None:
        """Wait until everything that was added has its reply."""
        while self._committers:
            await asyncio.wait(self._committers)

    @property
    def _wanted(self) -> bool:
        """Whether one of those at work finds something to do: all but the last leave it to others
        when there is little."""
        return len(self._waiting) >= (1 if self._at_work == 1 else _CROWD)

    async def _commit(self) -> None:
        """Hold one connection while there is something to commit."""
        group: list[Arrival] = []
        try:
            while group or self._wanted:
                try:
                    async with self._database.connection() as connection:
                        while group or self._wanted:
                            self._join(group)
                            self._storing += 1
                            try:
                                await self._store(connection, group)
                            finally:
                                self._storing -= 1
                            self._let_go(group)
                            in_company, group = len(group) >= _IN_COMPANY, []
                            if in_company:
                                await asyncio.sleep(_GATHER_S)
                except Exception as error:
                    self._join(group)
                    group = self._still_patient(group, error)
                    await asyncio.sleep(_PAUSE_BETWEEN_TRIES_S)
        finally:
            self._at_work -= 1  # no turn of the loop since the look that found nothing
            for arrival in group:  # only when cancelled: the peer keeps the mail
                arrival.settle(TRY_LATER)
            self._let_go(group)

    def _join(self, group: list[Arrival]) -> None:
        """Those who wait join `group`, as far as there is room in one transaction."""
        size_bytes = sum(arrival.size_bytes for arrival in group)
        while self._waiting and len(group) < ACCEPT_GROUP_MESSAGES:
            size_bytes += self._waiting[0].size_bytes
            if group and size_bytes > ACCEPT_GROUP_BYTES:
                break
            group.append(self._waiting.popleft())

    def _let_go(self, group: Sequence[Arrival]) -> None:
        self.held_messages -= len(group)
        self.held_bytes -= sum(arrival.size_bytes for arrival in group)

    def _still_patient(self, group: list[Arrival], error: Exception) -> list[Arrival]:
        """Those of `group` that wait on; the others have their reply."""
        oldest = self._clock.monotonic() - self._patience_s
        patient = []
        for arrival in group:
            if not arrival.settled and arrival.arrived_at > oldest:
                patient.append(arrival)
                continue
            if not arrival.settled:
                arrival.settle(TRY_LATER)
            self._let_go([arrival])
        logger.warning("accept.database_away", error=str(error), waiting=len(patient))
        return patient

    async def _store(self, connection: Connection, group: list[Arrival]) -> None:
        """Every arrival of `group` has its reply at return; Unavailable leaves that open."""
        if not group:
            return
        try:
            await self._store_together(connection, group)
        except asyncpg.UniqueViolationError:
            await self._store(connection, await self._without_stored(connection, group))
        except asyncpg.DataError as error:
            await self._store_apart(connection, group, NOT_STORABLE, error)
        except asyncpg.InsufficientResourcesError as error:
            _refuse_for_now(group, STORAGE_FULL, error)
        except _FOR_NOW as error:
            _refuse_for_now(group, TRY_LATER, error)
        except Unavailable:
            raise
        except _AWAY as error:
            raise Unavailable(f"PostgreSQL is away: {error}") from error
        except Exception as error:
            if connection.is_closed():
                raise Unavailable(f"PostgreSQL is away: {error}") from error
            await self._store_apart(connection, group, TRY_LATER, error)
        else:
            for arrival in group:
                arrival.settle(arrival.when_stored)

    async def _store_together(self, connection: Connection, group: list[Arrival]) -> None:
        """One transaction: the rows, and a job for each workspace in the group.

        The enqueue rides behind the COPY in one message. PostgreSQL makes one transaction of such a
        message (its documentation, 54.2.2.1) and answers the last statement after the commit.
        """
        rows = [row for arrival in group for row in arrival.rows]
        jobs = _jobs(group)
        enqueue = await self._engine.statement(jobs)
        started = perf_counter()
        if any(arrival.blobs for arrival in group):
            tag = await _copy_and(enqueue, connection, _with_blobs(group), BLOB_COLUMNS)
        else:
            tag = await _copy_and(enqueue, connection, rows)
        _COPY_SECONDS.observe(perf_counter() - started)
        if tag != _ENQUEUED:
            raise Unavailable(f"PostgreSQL answered {tag} to the enqueue")
        self._engine.announce(list({job.queue for job in jobs}))

    async def _store_apart(
        self, connection: Connection, group: list[Arrival], alone: Reply, error: Exception
    ) -> None:
        """Halve a group that one of its rows spoils; what spoils it gets the reply `alone`."""
        if len(group) == 1:
            logger.error(
                "accept.not_stored", error=reason_of(error), size_bytes=group[0].size_bytes
            )
            group[0].settle(alone)
            return
        middle = len(group) // 2
        await self._store(connection, group[:middle])
        await self._store(connection, group[middle:])

    async def _without_stored(self, connection: Connection, group: list[Arrival]) -> list[Arrival]:
        """Settle what an earlier, unanswered commit has stored after all; the rest is to be stored.

        A collision that is not with ourselves cannot be (80 random bits), and would come back here
        for ever: whoever collides and is not stored is refused for now.
        """
        ids = [arrival.rows[0][0] for arrival in group]
        found = await self._database.fetch(
            QUERIES.find_stored, ids, min(ids), max(ids), tx=connection
        )
        stored = {row["id"] for row in found}
        rest = []
        for arrival in group:
            if arrival.rows[0][0] in stored:
                arrival.settle(arrival.when_stored)
            else:
                rest.append(arrival)
        if len(rest) < len(group):
            return rest
        for arrival in rest:
            arrival.settle(TRY_LATER)
        return []


def _with_blobs(group: Sequence[Arrival]) -> list[tuple[Any, ...]]:
    """The rows of `group`, each with its blob's key or null."""
    return [
        (*row, arrival.blobs[nth] if arrival.blobs else None)
        for arrival in group
        for nth, row in enumerate(arrival.rows)
    ]


async def _copy_and(
    statement: str,
    connection: Connection,
    rows: Sequence[tuple[Any, ...]],
    columns: Sequence[str] = COLUMNS,
) -> str:
    """Store `rows` and run `statement`, all or nothing; PostgreSQL's last word.

    Raises TimeoutError.

    The driver waits for ever where a connection is lost that takes no more bytes just then: who
    waits for room to write is not told. So the end of the connection is the end of the waiting.
    """
    loop = asyncio.get_running_loop()
    copying = True

    def lost(_: object) -> None:
        if copying:
            deadline.reschedule(loop.time())

    try:
        async with asyncio.timeout(_COPY_S) as deadline:
            connection.add_termination_listener(lost)
            return await connection.copy_records_to_table(
                "message", records=rows, columns=columns, where=_ALL_AND_THEN + statement
            )
    finally:
        copying = False
        with suppress(asyncpg.InterfaceError):  # a lost one has no listeners any more
            connection.remove_termination_listener(lost)


def _refuse_for_now(group: list[Arrival], reply: Reply, error: Exception) -> None:
    logger.error("accept.refused_for_now", error=reason_of(error), messages=len(group))
    for arrival in group:
        arrival.settle(reply)


def _jobs(group: Sequence[Arrival]) -> list[NewJob]:
    """One job a workspace; its payload names each message, its class and its size."""
    by_workspace: dict[UUID, list[tuple[Any, ...]]] = {}
    marks: dict[UUID, bytes] = {}
    for arrival in group:
        for row in arrival.rows:
            by_workspace.setdefault(row[1], []).append((row[0], row[2], row[8]))
            if arrival.trace:
                marks[row[1]] = marks.get(row[1], b"") + arrival.trace
    return [
        NewJob(
            queue=INBOUND_EMAIL,
            kind=INGEST,
            payload=msgspec.json.encode(messages),
            workspace_id=workspace_id,
            trace=marks.get(workspace_id, b""),
        )
        if workspace_id != NOBODY
        else NewJob(
            EMAIL_EVENTS,
            RETURNED_MAIL,
            msgspec.json.encode(messages),
            trace=marks.get(workspace_id, b""),
        )
        for workspace_id, messages in by_workspace.items()
    ]
