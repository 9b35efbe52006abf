"""The index of search: a job behind ingest, which gives way to mail that comes in and goes out.

Ingest's transaction gets one job for all that it wrote (`IndexFollower`): which messages, no more.
The job reads their bytes, takes them apart (`document.py`) and writes a row for each line in one
statement; a line that stands already stays, so that a job that runs again changes nothing. While
mail waits to be taken in or a campaign sends, a batch waits up to `PATIENCE_S`: then it goes ahead,
so that a platform that is never idle is searched all the same.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import islice
from typing import NamedTuple
from uuid import UUID

import asyncpg
import msgspec
import structlog

from mailyard.cache.kind import USER
from mailyard.cache.layered import LayeredCache
from mailyard.core import limits
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import InvalidInput, NotFound, Unavailable
from mailyard.mailbox.search.document import Document, document_of
from mailyard.mailbox.search.language import AUTO, languages
from mailyard.mailbox.search.vectors import Vectors
from mailyard.queue.batch import Batch, Handler
from mailyard.queue.engine import Engine
from mailyard.queue.job import EMAIL_BULK, INBOUND_EMAIL, MEDIA, LeasedJob, NewJob
from mailyard.receiving.ingest import Arrival
from mailyard.storage.blob import RETRY_S
from mailyard.storage.database import Connection, Database
from mailyard.storage.partitions import RETENTION_DAYS
from mailyard.storage.queries import load
from mailyard.storage.raw_mail import IN_ROWS, RawMail

QUERIES = load("search")
RECEIVING = load("receiving")
_LOG = structlog.get_logger(__name__)

INDEX = "index"
PATIENCE_S = 30.0  # how long a batch gives way
_LOOK_S = 0.25
_AHEAD = {INBOUND_EMAIL: 4, EMAIL_BULK: 0}  # lanes that go first, when more jobs are there
_JOBS_PER_BATCH = 8
_GATHER_S = 0.2
_MESSAGES_PER_JOB = 1_000
_CHUNK = 500  # messages of one statement
_CHUNK_BYTES = 16 * limits.MIB
_BETWEEN_PAUSES = 5  # messages read before others have the loop


class Named(NamedTuple):
    """A message in a job's payload."""

    id: UUID
    retention_days: int
    size_bytes: int


_TAG = "search-setting"
_PAYLOAD = msgspec.json.Decoder(list[Named])


class Setting(msgspec.Struct, frozen=True):
    """How a workspace's mail is indexed. `inboxes`: some have said for themselves whether their
    mail is found by meaning; `by_meaning` is what holds for the others."""

    language: str = AUTO
    every_word: bool = False
    by_meaning: bool = False
    inboxes: bool = False

    @property
    def others(self) -> bool | None:
        """What holds for inboxes that do not say; None: none says."""
        return self.by_meaning if self.inboxes else None


class IndexFollower:
    """Follows ingest: one job a workspace for what was written."""

    def __init__(self, *, engine: Engine) -> None:
        self._engine = engine

    async def follow(self, arrivals: Sequence[Arrival], tx: Connection) -> None:
        await self._engine.enqueue(jobs_for(arrivals), tx)


def jobs_for(arrivals: Iterable[Arrival]) -> list[NewJob]:
    """The jobs that index the messages of these lines, each message once."""
    wanted: defaultdict[UUID, dict[UUID, Named]] = defaultdict(dict)
    for one in arrivals:
        wanted[one.workspace_id][one.message_id] = Named(
            one.message_id, one.message_retention_days, one.size_bytes
        )
    return [
        NewJob(MEDIA, INDEX, msgspec.json.encode(some), workspace_id)
        for workspace_id, messages in wanted.items()
        for some in _lists(messages.values(), _MESSAGES_PER_JOB)
    ]


class Indexer:
    """Handles `index` jobs."""

    def __init__(
        self,
        *,
        database: Database,
        engine: Engine,
        vectors: Vectors,
        cache: LayeredCache | None = None,
        raw_mail: RawMail = IN_ROWS,
        clock: Clock | None = None,
    ) -> None:
        self._database = database
        self._raw_mail = raw_mail
        self._clock = clock or SystemClock()
        self._engine = engine
        self._vectors = vectors
        self._cache = cache

    def handler(self) -> Handler:
        """What a worker needs to run this."""
        return Handler(
            kind=INDEX,
            queue=MEDIA,
            handle=self.handle,
            batch_size=_JOBS_PER_BATCH,
            concurrency=1,
            gather_s=_GATHER_S,
        )

    async def handle(self, batch: Batch) -> None:
        """Index a batch of jobs, workspace by workspace."""
        await self._give_way(batch)
        by_workspace: defaultdict[UUID, list[LeasedJob]] = defaultdict(list)
        for job in batch.jobs:
            if job.workspace_id is None:
                await batch.bury([job], "an index job belongs to a workspace")
            else:
                by_workspace[job.workspace_id].append(job)
        for workspace_id, jobs in by_workspace.items():
            if batch.stopping.is_set():
                await batch.release(jobs)
                continue
            try:
                named = [one for job in jobs for one in _PAYLOAD.decode(job.payload)]
                await self.index(workspace_id, named)
            except Unavailable:
                raise
            except Exception as error:
                await self._one_by_one(batch, workspace_id, jobs, error)

    async def index(self, workspace_id: UUID, named: Sequence[Named]) -> int:
        """Index messages; how many lines were written. Those that are gone are left out."""
        setting = await self.setting(workspace_id)
        written = 0
        for chunk in _chunks(named):
            documents = await self._documents(workspace_id, chunk, setting)
            if documents:
                written += await self._write(workspace_id, documents)
            if documents and (setting.by_meaning or setting.inboxes) and self._vectors.available:
                samples = await self._samples(workspace_id, documents, setting)
                await self._vectors.write(workspace_id, samples, others=setting.by_meaning)
        return written

    async def setting(self, workspace_id: UUID) -> Setting:
        """How the workspace's mail is indexed."""

        async def read() -> Setting:
            row = await self._database.fetchrow(QUERIES.setting, workspace_id)
            return _setting_of(row)

        if self._cache is None:
            return await read()
        return await self._cache.get_or_make(USER, workspace_id, _TAG, read, [_TAG])

    async def change(
        self,
        workspace_id: UUID,
        *,
        language: str | None = None,
        every_word: bool | None = None,
        by_meaning: bool | None = None,
        tx: Connection,
    ) -> tuple[Setting, Setting]:
        """Index mail otherwise from now on; None leaves as it is. How it was, and how it is.

        Raises InvalidInput for a language that PostgreSQL has no rules for; and what
        `Vectors.prepare` raises for `by_meaning`.
        """
        if language is not None and language not in (AUTO, *languages()):
            raise InvalidInput(f"one of {', '.join((AUTO, *languages()))}", field="language")
        row = await self._database.fetchrow(QUERIES.setting, workspace_id, tx=tx)
        before = _setting_of(row)
        after = Setting(
            before.language if language is None else language,
            before.every_word if every_word is None else every_word,
            before.by_meaning if by_meaning is None else by_meaning,
            before.inboxes,
        )
        if after.by_meaning and not before.by_meaning:
            await self._vectors.prepare(tx)
        await self._database.execute(
            QUERIES.set, workspace_id, after.language, after.every_word, after.by_meaning, tx=tx
        )
        if self._cache is not None:
            await self._cache.change(workspace_id, [_TAG], tx)
        return before, after

    async def says(self, workspace_id: UUID, inbox_id: UUID) -> bool | None:
        """Whether an inbox's mail is found by meaning; None: as its workspace's. Raises
        NotFound."""
        row = await self._database.fetchrow(QUERIES.get_inbox, workspace_id, inbox_id)
        if row is None:
            raise NotFound("no such inbox")
        said: bool | None = row["by_meaning"]
        return said

    async def say(
        self, workspace_id: UUID, inbox_id: UUID, by_meaning: bool | None, tx: Connection
    ) -> None:
        """An inbox's mail is found by meaning, or not, from now on. Raises NotFound, and what
        `Vectors.prepare` does."""
        if by_meaning:
            await self._vectors.prepare(tx)
        found = await self._database.fetchval(
            QUERIES.set_inbox, workspace_id, inbox_id, by_meaning, tx=tx
        )
        if found is None:
            raise NotFound("no such inbox")
        if by_meaning is not None:
            await self._database.execute(QUERIES.note_inboxes, workspace_id, AUTO, tx=tx)
        if self._cache is not None:
            await self._cache.change(workspace_id, [_TAG], tx)

    async def finds_by_meaning(self, workspace_id: UUID, inbox_id: UUID | None) -> bool:
        """Whether mail of the inbox, or of any of the workspace, is found so. Raises NotFound."""
        setting = await self.setting(workspace_id)
        if not setting.inboxes:
            return setting.by_meaning
        if inbox_id is None:
            any_inbox = await self._database.fetchval(QUERIES.any_inbox, workspace_id)
            return setting.by_meaning or bool(any_inbox)
        said = await self.says(workspace_id, inbox_id)
        return setting.by_meaning if said is None else said

    # -----------------------------------------------------------------------------------------

    async def _give_way(self, batch: Batch) -> None:
        waited_s = 0.0
        while waited_s < PATIENCE_S and not batch.stopping.is_set():
            depths = await self._engine.depth(tuple(_AHEAD))
            if all(depth.ready + depth.leased <= _AHEAD[depth.queue] for depth in depths):
                return
            await asyncio.sleep(_LOOK_S)
            waited_s += _LOOK_S

    async def _one_by_one(
        self, batch: Batch, workspace_id: UUID, jobs: Sequence[LeasedJob], why: Exception
    ) -> None:
        """After a refusal: each job alone, and of a job that is refused each message."""
        _LOG.warning("an index batch falls apart", jobs=len(jobs), error=str(why))
        for job in jobs:
            try:
                named = _PAYLOAD.decode(job.payload)
            except msgspec.DecodeError as error:
                await batch.bury([job], f"the payload is not what ingest writes: {error}")
                continue
            try:
                await self.index(workspace_id, named)
            except Unavailable:
                raise
            except Exception as error:
                if len(named) == 1:
                    await batch.fail([job], error)
                    continue
                async with self._database.transaction() as tx:
                    payloads = [msgspec.json.encode([one]) for one in named]
                    await batch.divide(job, payloads, tx)

    async def _documents(
        self, workspace_id: UUID, chunk: Sequence[Named], setting: Setting
    ) -> Mapping[UUID, Document]:
        ids = [one.id for one in chunk]
        # A message may have moved to a longer class since: then it is looked for in all of them.
        classes = sorted({one.retention_days for one in chunk})
        rows = await self._load(workspace_id, ids, classes)
        if len(rows) < len(ids):
            missing = list(set(ids) - {row["id"] for row in rows})
            rows += await self._load(workspace_id, missing, list(RETENTION_DAYS))
        filled, away = await self._raw_mail.filled_or_away(rows, limits.SEARCH_RAW_BYTES)
        await self._wait_for(workspace_id, [one for one in chunk if one.id in away])
        documents = {}
        for count, row in enumerate(filled, 1):
            documents[row["id"]] = document_of(
                row["raw"], language=setting.language, every_word=setting.every_word
            )
            if count % _BETWEEN_PAUSES == 0:
                await asyncio.sleep(0)
        return documents

    async def _samples(
        self, workspace_id: UUID, documents: Mapping[UUID, Document], setting: Setting
    ) -> dict[UUID, str]:
        """How those mails begin that some inbox finds by meaning."""
        ids = list(documents)
        if setting.inboxes:
            rows = await self._database.fetch(
                QUERIES.meant, workspace_id, ids, min(ids), max(ids), setting.by_meaning
            )
            ids = [row["id"] for row in rows]
        return {one: documents[one].sample for one in ids}

    async def _wait_for(self, workspace_id: UUID, away: Sequence[Named]) -> None:
        """What cannot be read now is a job of its own, later: the rest does not wait for it."""
        if away:
            run_at = self._clock.now() + timedelta(seconds=RETRY_S)
            payload = msgspec.json.encode(away)
            await self._engine.enqueue([NewJob(MEDIA, INDEX, payload, workspace_id, run_at=run_at)])

    async def _load(
        self, workspace_id: UUID, ids: list[UUID], classes: list[int]
    ) -> list[asyncpg.Record]:
        return await self._database.fetch(
            QUERIES.load, workspace_id, ids, classes, min(ids), max(ids), limits.SEARCH_RAW_BYTES
        )

    async def _write(self, workspace_id: UUID, documents: Mapping[UUID, Document]) -> int:
        ids = list(documents)
        ready = list(documents.values())
        async with self._database.transaction() as tx:
            await self._database.fetch(RECEIVING.hold_classes, [workspace_id], tx=tx)
            written = await self._database.fetchval(
                QUERIES.index,
                workspace_id,
                ids,
                [one.language for one in ready],
                [one.subject for one in ready],
                [one.text for one in ready],
                ["\n".join([*one.tokens, *one.plain]) for one in ready],
                [one.parts for one in ready],
                min(ids),
                max(ids),
                tx=tx,
            )
        return int(written)


def _setting_of(row: asyncpg.Record | None) -> Setting:
    if row is None:
        return Setting()
    return Setting(row["language"], row["every_word"], row["by_meaning"], row["inboxes"])


def _lists(ones: Iterable[Named], size: int) -> Iterator[list[Named]]:
    rest = iter(ones)
    while some := list(islice(rest, size)):
        yield some


def _chunks(named: Sequence[Named]) -> Iterable[Sequence[Named]]:
    """Runs that fit into memory together."""
    chunk: list[Named] = []
    size_bytes = 0
    for one in named:
        own = min(one.size_bytes, limits.SEARCH_RAW_BYTES)
        if chunk and (len(chunk) >= _CHUNK or size_bytes + own > _CHUNK_BYTES):
            yield chunk
            chunk, size_bytes = [], 0
        chunk.append(one)
        size_bytes += own
    if chunk:
        yield chunk
