"""The job `contact-import`: reads a stored file piece by piece and brings its contacts in.

Every piece commits its contacts, its rejects and the place behind it together, under the lease's
token. So a killed worker's successor goes on where the last commit was, and a worker that slept
through its lease finds its token outdated and stops: nothing is counted twice.
"""

import asyncio
from dataclasses import dataclass
from uuid import UUID

import msgspec

from mailyard.bus.live import IMPORT_PROGRESS, LiveEvent, LiveEvents
from mailyard.campaigns.contact import Contacts
from mailyard.campaigns.csv_layout import Layout
from mailyard.campaigns.import_rows import Piece, RowReader
from mailyard.campaigns.importing import IMPORT_JOB, PART_BYTES, QUERIES, ImportPayload
from mailyard.core.clock import Clock
from mailyard.core.errors import StaleLease
from mailyard.core.ids import IMPORT, type_id
from mailyard.core.limits import KIB
from mailyard.queue.batch import Batch, Handler
from mailyard.queue.job import MEDIA, LeasedJob
from mailyard.storage.database import Connection, Database

PIECE_BYTES = 128 * KIB  # some 2,000 rows: a commit each, and a twentieth of a second of work
PROGRESS_EVERY_S = 0.5


@dataclass(slots=True)
class _Run:
    """An import in this worker's hands, and how far it is."""

    workspace_id: UUID
    import_id: UUID
    token: int
    list_id: UUID | None
    layout: Layout
    size_bytes: int
    read_bytes: int
    read_lines: int
    rows_imported: int
    rows_rejected: int
    told_at: float = float("-inf")


class ImportRunner:
    """Works imports off, each in one worker at a time."""

    def __init__(
        self, *, database: Database, contacts: Contacts, live: LiveEvents, clock: Clock
    ) -> None:
        self._database = database
        self._contacts = contacts
        self._live = live
        self._clock = clock

    def handler(self) -> Handler:
        """What a worker runs for this job."""
        return Handler(kind=IMPORT_JOB, queue=MEDIA, handle=self.handle, concurrency=2)

    async def handle(self, batch: Batch) -> None:
        """Work the jobs off; a drain is heeded between two pieces, and the rest given back."""
        for job in batch.jobs:
            try:
                finished = await self.work(job, batch.stopping)
            except StaleLease:
                continue  # the younger lease has the job too, and completing it here does nothing
            if not finished:
                await batch.release([job])

    async def work(self, job: LeasedJob, stopping: asyncio.Event) -> bool:
        """Read the job's import to its end; False when `stopping` came first.

        Raises StaleLease when another worker has taken the import over.
        """
        assert job.workspace_id is not None
        payload = msgspec.json.decode(job.payload, type=ImportPayload)
        run = await self._take(job.workspace_id, payload.import_id, job.token)
        if run is None:
            return True
        begun_at = run.read_bytes
        reader = RowReader(run.layout, begun_at, run.read_lines + 1)
        ahead = asyncio.create_task(self._read(run, reader, begun_at))
        try:
            while True:
                piece, next_offset = await ahead
                if next_offset < run.size_bytes:
                    ahead = asyncio.create_task(self._read(run, reader, next_offset))
                await self._store(run, piece, last=next_offset >= run.size_bytes)
                if next_offset >= run.size_bytes:
                    return True
                if stopping.is_set() and run.read_bytes > begun_at:
                    return False  # having gone forward, so that drains without end still end
        finally:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)

    async def _take(self, workspace_id: UUID, import_id: UUID, token: int) -> _Run | None:
        row = await self._database.fetchrow(QUERIES.take_import, workspace_id, import_id, token)
        if row is None:
            return None
        return _Run(
            workspace_id=workspace_id,
            import_id=import_id,
            token=token,
            list_id=row["list_id"],
            layout=msgspec.json.decode(row["layout"], type=Layout),
            size_bytes=row["size_bytes"],
            read_bytes=row["read_bytes"],
            read_lines=row["read_lines"],
            rows_imported=row["rows_imported"],
            rows_rejected=row["rows_rejected"],
        )

    async def _read(self, run: _Run, reader: RowReader, offset: int) -> tuple[Piece, int]:
        """The next piece from byte `offset` of the file on, and where the one behind it starts."""
        number, start = divmod(offset, PART_BYTES)
        data = await self._database.fetchval(
            QUERIES.read_part, run.workspace_id, run.import_id, number, start + 1, PIECE_BYTES
        )
        if data is None:
            raise StaleLease("the import is over already")
        next_offset = offset + len(data)
        piece = await asyncio.to_thread(reader.read, data, next_offset >= run.size_bytes)
        return piece, next_offset

    async def _store(self, run: _Run, piece: Piece, last: bool) -> None:
        async with self._database.transaction() as tx:
            await self._contacts.upsert(
                run.workspace_id, piece.contacts, list_id=run.list_id, tx=tx
            )
            if piece.rejects:
                await self._store_rejects(run, piece, tx)
            await self._advance(run, piece, tx)
            if last:
                await self._database.execute(
                    QUERIES.finish_import, run.workspace_id, run.import_id, run.token, tx=tx
                )
        await self._tell(run, "finished" if last else "running")

    async def _store_rejects(self, run: _Run, piece: Piece, tx: Connection) -> None:
        await self._database.execute(
            QUERIES.store_rejects,
            run.workspace_id,
            run.import_id,
            [reject.line for reject in piece.rejects],
            [reject.reason for reject in piece.rejects],
            [reject.row_text for reject in piece.rejects],
            tx=tx,
        )

    async def _advance(self, run: _Run, piece: Piece, tx: Connection) -> None:
        """Move the place forward within `tx`. Raises StaleLease, which undoes the piece."""
        row = await self._database.fetchrow(
            QUERIES.advance_import,
            run.workspace_id,
            run.import_id,
            run.token,
            piece.offset,
            piece.line - 1,
            piece.rows,
            len(piece.rejects),
            tx=tx,
        )
        if row is None:
            raise StaleLease("another worker has taken the import over")
        run.read_bytes = piece.offset
        run.rows_imported = row["rows_imported"]
        run.rows_rejected = row["rows_rejected"]

    async def _tell(self, run: _Run, state: str) -> None:
        """Publish progress, twice a second at most, and the end always."""
        now = self._clock.monotonic()
        if state == "running" and now - run.told_at < PROGRESS_EVERY_S:
            return
        run.told_at = now
        item = {
            "import_id": type_id(IMPORT, run.import_id),
            "state": state,
            "size_bytes": run.size_bytes,
            "read_bytes": run.size_bytes if state == "finished" else run.read_bytes,
            "rows_imported": run.rows_imported,
            "rows_rejected": run.rows_rejected,
        }
        await self._live.publish([LiveEvent(run.workspace_id, IMPORT_PROGRESS, item)])
