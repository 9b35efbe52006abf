"""The job `ingest`: what was accepted becomes visible in its inboxes.

A job names the messages that one workspace got in one group commit. Their bytes are loaded, read
within bounds, and everything that follows from them is written in one transaction together with the
completion of the jobs: a line in each inbox, a live event each, the counter. Whoever's lease has
run out completes nothing and so writes nothing; a job that runs again finds its lines standing.

When the database refuses a group it falls apart, first into its jobs and then into its messages, so
that one message that cannot be written holds up no other. A line that stands already is such a
reason too: to look for one each time costs a third of writing it, and hardly ever is there one.

What else follows from a line (its thread, its place in a search) is written by followers, in the
same transaction and in batches.
"""

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID

import asyncpg
import msgspec
import structlog

from mailyard.bus.live import MESSAGE_RECEIVED, LiveEvents
from mailyard.core.errors import Unavailable
from mailyard.core.ids import INBOX, MESSAGE, time_of, type_id
from mailyard.core.limits import INGEST_CHUNK_BYTES, INGEST_CHUNK_MESSAGES
from mailyard.observe.reason import reason_of
from mailyard.protocol.mime.summary import Summary, parse_summary
from mailyard.queue.batch import Batch, Handler
from mailyard.queue.job import INBOUND_EMAIL, LeasedJob
from mailyard.receiving.commit import INGEST
from mailyard.receiving.gate import Gate
from mailyard.storage.blob import RETRY_S
from mailyard.storage.database import Connection, Database
from mailyard.storage.derived import move_with_messages
from mailyard.storage.queries import Query, load
from mailyard.storage.raw_mail import IN_ROWS, RawMail

QUERIES = load("receiving")

_LOG = structlog.get_logger(__name__)

_JOBS_PER_BATCH = 100
_CONCURRENCY = 2
# Under load: a round of statements costs as much as a hundred messages in it. A few messages a
# second wait for nothing; from about a thousand a second a worker takes three times a second.
_GATHER_S = 0.3
_GATHER_MESSAGES = 100
_MESSAGES_BETWEEN_PAUSES = 10  # a campaign's connections in the same loop wait meanwhile
_SUBJECT_CHARACTERS = 998  # what a list shows; the whole stays in the raw bytes
_ADDRESS_CHARACTERS = 320
_NAME_CHARACTERS = 320


class Named(NamedTuple):
    """A message as a job's payload names it."""

    id: UUID
    retention_days: int
    size_bytes: int


class Arrival(NamedTuple):
    """A line that was written, as its followers see it. The classes are those it lies in now."""

    inbox_id: UUID
    message_id: UUID
    workspace_id: UUID
    retention_days: int  # the inbox's class: where derived rows of the line belong
    message_retention_days: int
    recipient: str
    summary: Summary
    size_bytes: int


class Follower(Protocol):
    """Writes what follows from lines, in the transaction that writes them and in few statements.

    What it raises refuses the group, which then falls apart like any other that is refused.
    """

    async def follow(self, arrivals: Sequence[Arrival], tx: Connection) -> None: ...


_PAYLOAD = msgspec.json.Decoder(list[Named])


@dataclass(frozen=True, slots=True)
class _Work:
    job: LeasedJob
    messages: list[Named]


class _Line(NamedTuple):
    """A message in one of its inboxes, in the order of `write_lines`."""

    inbox_id: UUID
    message_id: UUID
    workspace_id: UUID
    message_retention_days: int
    recipient: str
    from_address: str
    from_name: str
    subject: str
    preview: str
    sent_at: datetime | None
    header_message_id: str
    size_bytes: int
    attachments: int
    filed_under: str  # the inbox's own address

    def told(self) -> dict[str, str]:
        """As the live stream tells it."""
        return {
            "message_id": type_id(MESSAGE, self.message_id),
            "inbox_id": type_id(INBOX, self.inbox_id),
            "recipient": self.recipient,
            "from": self.from_address,
            "subject": self.subject,
            "preview": self.preview,
            "at": time_of(self.message_id).isoformat(),
        }

    def arrival(self, home: int, summary: Summary, outgrown: Mapping[UUID, int]) -> Arrival:
        """As its followers see it, written into the class `home`."""
        return Arrival(
            self.inbox_id,
            self.message_id,
            self.workspace_id,
            home,
            outgrown.get(self.message_id, self.message_retention_days),
            self.recipient,
            summary,
            self.size_bytes,
        )


class Ingest:
    """Handles `ingest` jobs. `followers` are called in order, the last nearest to the commit.
    `gate` says who sent a mail, and keeps it out where an inbox wants that; None: nobody asks."""

    def __init__(
        self,
        *,
        database: Database,
        live: LiveEvents,
        followers: Sequence[Follower] = (),
        gate: Gate | None = None,
        raw_mail: RawMail = IN_ROWS,
    ) -> None:
        self._database = database
        self._live = live
        self._raw_mail = raw_mail
        self._followers = tuple(followers)
        self._gate = gate

    def handler(self) -> Handler:
        """What a worker needs to run this."""
        return Handler(
            kind=INGEST,
            queue=INBOUND_EMAIL,
            handle=self.handle,
            batch_size=_JOBS_PER_BATCH,
            concurrency=_CONCURRENCY,
            gather_s=_GATHER_S,
            gather_weight=_GATHER_MESSAGES,
            weigh=_messages_in,
        )

    async def handle(self, batch: Batch) -> None:
        """Ingest a batch of jobs, as many of them in a transaction as memory allows."""
        readable = []
        for job in batch.jobs:
            try:
                readable.append(_Work(job, _PAYLOAD.decode(job.payload)))
            except msgspec.DecodeError as error:
                await batch.bury([job], f"the payload is not what ingest writes: {error}")
        for chunk in _chunks(readable):
            if batch.stopping.is_set():
                await batch.release([work.job for work in chunk])
            else:
                await self._ingest_or_part(batch, chunk)

    async def _ingest_or_part(self, batch: Batch, chunk: Sequence[_Work]) -> None:
        try:
            await self._ingest(batch, chunk)
        except Unavailable:
            raise  # the database is away: nobody was refused
        except Exception as error:
            _LOG.warning("a group falls apart", jobs=len(chunk), error=reason_of(error))
            for work in chunk:
                await self._ingest_alone(batch, work)

    async def _ingest_alone(self, batch: Batch, work: _Work) -> None:
        try:
            await self._ingest(batch, [work], anew=True)
        except Unavailable:
            raise
        except Exception as error:
            if len(work.messages) == 1:
                await batch.fail([work.job], error)
                return
            async with self._database.transaction() as tx:
                payloads = [msgspec.json.encode([named]) for named in work.messages]
                await batch.divide(work.job, payloads, tx)

    async def _ingest(self, batch: Batch, chunk: Sequence[_Work], *, anew: bool = False) -> None:
        """`anew`: what is written may stand there already."""
        write_lines = QUERIES.write_new_lines if anew else QUERIES.write_lines
        messages, away = await self._load(chunk)
        if away:
            chunk = await self._put_off(batch, chunk, away)
            if not chunk:
                return
        judged = await self._gate.judge(messages) if self._gate is not None else {}
        summaries = await _summaries(messages)
        by_job = {work.job.id: work for work in chunk}
        async with self._database.transaction() as tx:
            ours = await batch.complete([work.job for work in chunk], tx=tx)
            wanted = [named.id for job_id in ours for named in by_job[job_id].messages]
            mine = [messages[message_id] for message_id in wanted if message_id in messages]
            lines: Sequence[_Line] = _lines(mine, summaries)
            if self._gate is not None:
                lines = await self._gate.part(lines, judged, tx)
            arrivals = await self._write(tx, lines, summaries, write_lines)
            if self._gate is not None:
                await self._gate.keep(judged, mine, arrivals, tx, anew=anew)
            await self._follow(arrivals, tx)
        self._live.announced()

    async def admit(
        self,
        messages: Sequence[asyncpg.Record],
        places: Collection[tuple[UUID, UUID]],
        tx: Connection,
    ) -> None:
        """Let `messages` (rows of `load_messages`) into inboxes that kept them out: `places` are
        (inbox, message). The caller calls `live.announced` after its commit."""
        summaries = await _summaries({row["id"]: row for row in messages})
        lines = [
            line
            for line in _lines(messages, summaries)
            if (line.inbox_id, line.message_id) in places
        ]
        arrivals = await self._write(tx, lines, summaries, QUERIES.write_new_lines)
        await self._follow(arrivals, tx)

    async def _follow(self, arrivals: Sequence[Arrival], tx: Connection) -> None:
        if arrivals:
            for follower in self._followers:
                await follower.follow(arrivals, tx)

    async def _put_off(self, batch: Batch, chunk: Sequence[_Work], away: set[UUID]) -> list[_Work]:
        """Those of `chunk` that need nothing of the blob store, which is away. A job that does
        waits; one that needs it for some of its messages falls into two."""
        ready = []
        for work in chunk:
            parts = (
                [m for m in work.messages if m.id not in away],
                [m for m in work.messages if m.id in away],
            )
            if not parts[1]:
                ready.append(work)
            elif not parts[0]:
                await batch.release([work.job], RETRY_S)
            else:
                async with self._database.transaction() as tx:
                    await batch.divide(work.job, [msgspec.json.encode(one) for one in parts], tx)
        return ready

    async def _load(self, chunk: Sequence[_Work]) -> tuple[dict[UUID, asyncpg.Record], set[UUID]]:
        """The messages by id, without those that are gone (deleted, expired), and those whose
        bytes are away now."""
        workspaces = list({work.job.workspace_id for work in chunk})
        by_class: dict[int, list[UUID]] = {}
        for work in chunk:
            for named in work.messages:
                by_class.setdefault(named.retention_days, []).append(named.id)
        found: dict[UUID, asyncpg.Record] = {}
        away: set[UUID] = set()
        for retention_days, ids in by_class.items():
            rows = await self._database.fetch(
                QUERIES.load_messages, workspaces, ids, min(ids), max(ids), retention_days
            )
            filled, missing = await self._raw_mail.filled_or_away(rows)
            found.update((row["id"], row) for row in filled)
            away |= missing
        return found, away

    async def _write(
        self,
        tx: Connection,
        lines: Sequence[_Line],
        summaries: Mapping[UUID, Summary],
        write_lines: Query,
    ) -> list[Arrival]:
        """Put the lines where their messages belong now; an inbox gone since the 250 gets none."""
        if not lines:
            return []
        workspaces = list({line.workspace_id for line in lines})
        await self._database.fetch(QUERIES.hold_classes, workspaces, tx=tx)
        written = await self._database.fetchrow(write_lines, *zip(*lines, strict=True), tx=tx)
        assert written is not None
        outgrown = dict(zip(written["outgrown"], written["classes"], strict=True))
        if outgrown:
            await self._move(tx, lines, outgrown)
        stood = set(written["stood"])
        told: dict[UUID, list[dict[str, str]]] = {}
        arrivals = []
        for nth, (line, home) in enumerate(zip(lines, written["homes"], strict=True), 1):
            if home is not None and nth not in stood:
                told.setdefault(line.workspace_id, []).append(line.told())
                arrivals.append(line.arrival(home, summaries[line.message_id], outgrown))
        if len(arrivals) + len(stood) < len(lines):
            await self._forget_unfiled(tx, lines, written["homes"])
        await self._live.publish_runs(
            [(workspace_id, MESSAGE_RECEIVED, items) for workspace_id, items in told.items()], tx
        )
        return arrivals

    async def _forget_unfiled(
        self, tx: Connection, lines: Sequence[_Line], homes: Sequence[int | None]
    ) -> None:
        """Delete messages none of whose inboxes is there any more: nobody could ever read them."""
        filed = {
            line.message_id for line, home in zip(lines, homes, strict=True) if home is not None
        }
        unfiled: dict[UUID, set[UUID]] = {}
        for line in lines:
            if line.message_id not in filed:
                unfiled.setdefault(line.workspace_id, set()).add(line.message_id)
        for workspace_id, ids in unfiled.items():
            await self._database.execute(
                QUERIES.delete_unfiled, workspace_id, list(ids), min(ids), max(ids), tx=tx
            )

    async def _move(
        self, tx: Connection, lines: Sequence[_Line], outgrown: Mapping[UUID, int]
    ) -> None:
        """Put messages into the longer class that one of their inboxes has by now."""
        groups: dict[tuple[UUID, int], list[UUID]] = {}
        for line in lines:
            if line.message_id in outgrown:
                group = (line.workspace_id, outgrown[line.message_id])
                groups.setdefault(group, []).append(line.message_id)
        for (workspace_id, own_class), ids in groups.items():
            await self._database.execute(
                QUERIES.move_messages, workspace_id, ids, own_class, min(ids), max(ids), tx=tx
            )
            await move_with_messages(self._database, tx, workspace_id, ids, own_class)


def _messages_in(job: LeasedJob) -> int:
    """How many messages a job names, without reading it: a bracket each, and one for all."""
    return job.payload.count(b"[") - 1


def _lines(messages: Sequence[asyncpg.Record], summaries: Mapping[UUID, Summary]) -> list[_Line]:
    lines = []
    for (
        message_id,
        workspace_id,
        retention_days,
        recipients,
        inbox_ids,
        size_bytes,
        own,
        *_,
    ) in messages:
        from_name, from_address, subject, preview, sent_at, header_id, files, *_ = summaries[
            message_id
        ]
        shown = (
            from_address[:_ADDRESS_CHARACTERS],
            from_name[:_NAME_CHARACTERS],
            subject[:_SUBJECT_CHARACTERS],
            preview,
            sent_at,
            header_id[:_SUBJECT_CHARACTERS],
            size_bytes,
            min(files, 32_767),
        )
        lines += [
            _Line(inbox_id, message_id, workspace_id, retention_days, recipient, *shown, address)
            for recipient, inbox_id, address in zip(
                recipients, inbox_ids, own or recipients, strict=True
            )
        ]
    return lines


async def _summaries(messages: dict[UUID, asyncpg.Record]) -> dict[UUID, Summary]:
    """Read them all, letting others have the loop now and then."""
    summaries = {}
    for count, (message_id, row) in enumerate(messages.items(), 1):
        summaries[message_id] = parse_summary(row["raw"])
        if count % _MESSAGES_BETWEEN_PAUSES == 0:
            await asyncio.sleep(0)
    return summaries


def _chunks(works: Sequence[_Work]) -> Iterator[list[_Work]]:
    """Runs of jobs whose messages fit into memory together; a job is never cut."""
    chunk: list[_Work] = []
    size_bytes = count = 0
    for work in works:
        work_bytes = sum(named.size_bytes for named in work.messages)
        if chunk and (
            size_bytes + work_bytes > INGEST_CHUNK_BYTES
            or count + len(work.messages) > INGEST_CHUNK_MESSAGES
        ):
            yield chunk
            chunk, size_bytes, count = [], 0, 0
        chunk.append(work)
        size_bytes += work_bytes
        count += len(work.messages)
    if chunk:
        yield chunk
