"""Between reading mail and writing it into inboxes: who sent it, and which inboxes keep it out.

Ingest asks for verdicts before its transaction (`judge`), lets the gate take out the lines that
their inboxes keep out (`part`) and hands it what was written (`keep`). What has no verdict by then
is judged by a job. An inbox that keeps forged mail out does not show a mail before its verdict:
otherwise a sender with a slow name server would be let in by being slow.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol, TypeVar
from uuid import UUID

import asyncpg
import msgspec

from mailyard.bus.live import MESSAGE_REFUSED, LiveEvents
from mailyard.core.ids import INBOX, MESSAGE, type_id
from mailyard.core.limits import INGEST_CHUNK_BYTES
from mailyard.protocol.authentication import Standing, Verdict
from mailyard.queue.engine import Engine
from mailyard.queue.job import ANALYSIS, NewJob
from mailyard.receiving.authenticate import Authenticator, Received
from mailyard.receiving.verdict import (
    COLUMNS,
    COPY_SECONDS,
    QUERIES,
    REFUSED,
    WAITING,
    detail_of,
    rows_of,
)
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

RECEIVING = load("receiving")

JUDGE = "judge"  # the kind of job that judges later
# What ingest waits for DNS: a few mails may wait for what is asked for the first time, a stream of
# them goes on with what is remembered.
_WITHIN_S = 0.25
_FEW = 30
_WITHIN_S_OF_MANY = 0.05
_MESSAGES_PER_JOB = 200


class Late(msgspec.Struct, array_like=True):
    """What a `judge` job is to do: messages of its workspace, the `tries`-th time."""

    tries: int
    messages: list[UUID]


class Line(Protocol):
    """A message in one of its inboxes, as ingest has it."""

    @property
    def inbox_id(self) -> UUID: ...
    @property
    def message_id(self) -> UUID: ...
    @property
    def workspace_id(self) -> UUID: ...
    @property
    def recipient(self) -> str: ...
    @property
    def from_address(self) -> str: ...
    @property
    def from_name(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...


AnyLine = TypeVar("AnyLine", bound=Line)


class Written(Protocol):
    """A line that was written (`receiving.ingest.Arrival`)."""

    @property
    def message_id(self) -> UUID: ...
    @property
    def workspace_id(self) -> UUID: ...
    @property
    def message_retention_days(self) -> int: ...


class Gate:
    """Judges for ingest. `engine` takes what is left for later."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        database: Database,
        engine: Engine,
        live: LiveEvents,
    ) -> None:
        self._authenticator = authenticator
        self._database = database
        self._engine = engine
        self._live = live

    async def judge(self, messages: Mapping[UUID, asyncpg.Record]) -> Mapping[UUID, Verdict]:
        """What can be said of messages now, without keeping others waiting."""
        received = [received_of(row) for row in messages.values()]
        within_s = _WITHIN_S if len(received) <= _FEW else _WITHIN_S_OF_MANY
        return await self._authenticator.verdicts(received, within_s)

    async def part(
        self, lines: Sequence[AnyLine], judged: Mapping[UUID, Verdict], tx: Connection
    ) -> Sequence[AnyLine]:
        """The lines that go in; the others are noted as kept out, where nobody is told of them but
        who looks there."""
        if not lines:
            return lines
        workspaces = list({line.workspace_id for line in lines})
        inboxes = list({line.inbox_id for line in lines})
        rows = await self._database.fetch(QUERIES.keeping_out, workspaces, inboxes, tx=tx)
        if not rows:
            return lines
        # Somebody may just be extending one of them: its class as it is until the commit.
        await self._database.fetch(RECEIVING.hold_classes, workspaces, tx=tx)
        rows = await self._database.fetch(QUERIES.keeping_out, workspaces, inboxes, tx=tx)
        homes = {row["inbox_id"]: row["retention_days"] for row in rows}
        inside, outside = [], []
        for line in lines:
            state = _state(judged.get(line.message_id))
            if state and line.inbox_id in homes:
                outside.append((line, state))
            else:
                inside.append(line)
        if outside:
            await self._hold(outside, homes, tx)
        return inside

    async def keep(
        self,
        judged: Mapping[UUID, Verdict],
        messages: Sequence[asyncpg.Record],
        written: Sequence[Written],
        tx: Connection,
        *,
        anew: bool,
    ) -> None:
        """Write the verdicts on `messages`, of which `written` came into inboxes, and leave what
        has none to a job. `anew`: some may have been written before, by whoever had the job."""
        places = {one.message_id: (one.message_retention_days, one.workspace_id) for one in written}
        rows = rows_of(judged, places)
        if rows and anew:
            await self._database.execute(QUERIES.keep, *zip(*rows, strict=True), tx=tx)
        elif rows:
            with COPY_SECONDS.time():
                await tx.copy_records_to_table("verdict", columns=COLUMNS, records=rows)
        outside = [row for row in messages if row["id"] not in places]
        if outside:
            await keep_late(self._database, judged, outside, tx)
        late = [row for row in messages if row["id"] not in judged]
        if late:
            await self._engine.enqueue(late_jobs(late, 1), tx)

    async def _hold(
        self,
        outside: Sequence[tuple[AnyLine, str]],
        homes: Mapping[UUID, int],
        tx: Connection,
    ) -> None:
        rows = [
            (
                line.inbox_id,
                line.message_id,
                homes[line.inbox_id],
                line.workspace_id,
                state,
                line.recipient,
                line.from_address,
                line.from_name,
                line.subject,
                line.size_bytes,
            )
            for line, state in outside
        ]
        await self._database.execute(QUERIES.hold, *zip(*rows, strict=True), tx=tx)
        refused = [line for line, state in outside if state == REFUSED]
        await tell_refused(
            self._live, [(one.workspace_id, one.inbox_id, one.message_id) for one in refused], tx
        )


async def keep_late(
    database: Database,
    verdicts: Mapping[UUID, Verdict],
    messages: Sequence[asyncpg.Record],
    tx: Connection,
) -> set[UUID]:
    """Write the verdicts on those of `messages` that have one, wherever they lie by now; which are
    still there."""
    judged = [row for row in messages if row["id"] in verdicts]
    if not judged:
        return set()
    workspaces = list({row["workspace_id"] for row in judged})
    await database.fetch(RECEIVING.hold_classes, workspaces, tx=tx)
    ids = [row["id"] for row in judged]
    rows = await database.fetch(
        QUERIES.keep_late,
        ids,
        [row["workspace_id"] for row in judged],
        [str(verdicts[one].standing) for one in ids],
        [detail_of(verdicts[one]) for one in ids],
        min(ids),
        max(ids),
        tx=tx,
    )
    return {row["message_id"] for row in rows}


def late_jobs(
    messages: Sequence[asyncpg.Record], tries: int, run_at: datetime | None = None
) -> list[NewJob]:
    """Jobs that judge `messages` for the `tries`-th time, each of what fits into memory."""
    by_workspace: dict[UUID, list[list[UUID]]] = {}
    held: dict[UUID, int] = {}
    for row in messages:
        jobs = by_workspace.setdefault(row["workspace_id"], [])
        size_bytes = held.get(row["workspace_id"], 0) + row["size_bytes"]
        if not jobs or size_bytes > INGEST_CHUNK_BYTES or len(jobs[-1]) >= _MESSAGES_PER_JOB:
            jobs.append([])
            size_bytes = row["size_bytes"]
        jobs[-1].append(row["id"])
        held[row["workspace_id"]] = size_bytes
    return [
        NewJob(ANALYSIS, JUDGE, msgspec.json.encode(Late(tries, ids)), workspace_id, run_at=run_at)
        for workspace_id, jobs in by_workspace.items()
        for ids in jobs
    ]


async def tell_refused(
    live: LiveEvents, places: Sequence[tuple[UUID, UUID, UUID]], tx: Connection
) -> None:
    """Put on the live stream what was refused: (workspace, inbox, message)."""
    told: dict[UUID, list[dict[str, str]]] = {}
    for workspace_id, inbox_id, message_id in places:
        told.setdefault(workspace_id, []).append(
            {"message_id": type_id(MESSAGE, message_id), "inbox_id": type_id(INBOX, inbox_id)}
        )
    await live.publish_runs(
        [(workspace_id, MESSAGE_REFUSED, items) for workspace_id, items in told.items()], tx
    )


def received_of(row: asyncpg.Record) -> Received:
    return Received(row["id"], row["peer"], row["helo"], row["reverse_path"], row["raw"])


def _state(verdict: Verdict | None) -> str:
    """How an inbox that keeps forged mail out holds a message; empty when it lets it in."""
    if verdict is None:
        return WAITING
    return REFUSED if verdict.standing is Standing.FORGED else ""
