"""Imports of contacts from CSV: taking the file in, and looking at what became of it.

A file is stored in parts as it arrives, so that an import survives any process; what is wrong with
a whole file is said at once, what is wrong with a row is said by the row's reject. The reading is
`import_run.py`.
"""

import asyncio
import csv
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from io import StringIO
from uuid import UUID

import asyncpg
import msgspec

from mailyard.campaigns.csv_layout import ADDRESS, EncodingProbe, Layout, inspect
from mailyard.core.errors import InvalidInput, MailyardError, NotFound, TooLarge
from mailyard.core.ids import uuid7
from mailyard.core.limits import API_PAGE_ITEMS, IMPORT_BYTES, MIB
from mailyard.queue.engine import Engine
from mailyard.queue.job import MEDIA, NewJob
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

QUERIES = load("import")
CONTACTS = load("contact")

IMPORT_JOB = "contact-import"
PART_BYTES = MIB
REJECTS_PER_READ = 1_000
_HEAD_PARTS = 2
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


class ImportPayload(msgspec.Struct, frozen=True):
    """What a `contact-import` job says."""

    import_id: UUID


@dataclass(frozen=True, slots=True)
class Import:
    """One file's way in. `state`: uploading, queued, running, finished or failed (see `error`)."""

    id: UUID
    list_id: UUID | None
    file_name: str
    state: str
    mapping: dict[str, str | None]
    size_bytes: int
    read_bytes: int
    rows_imported: int
    rows_rejected: int
    error: str
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class RejectedRow:
    line: int
    reason: str
    row_text: str


Witness = Callable[[Import, Connection], Awaitable[None]]


class Imports:
    """Take files in, list imports, read their rejects."""

    def __init__(self, *, database: Database, engine: Engine) -> None:
        self._database = database
        self._engine = engine

    async def upload(
        self,
        workspace_id: UUID,
        file_name: str,
        chunks: AsyncIterator[bytes],
        *,
        list_id: UUID | None = None,
        mapping: Mapping[str, str | None] | None = None,
        witness: Witness | None = None,
    ) -> Import:
        """Store a CSV file as it arrives and enqueue its reading; durable on return. `witness` is
        called in the transaction that enqueues it.

        `mapping`: column name as in the header -> `address`, `name`, an attribute's name, or None
        to leave it out; columns that it does not name mean what their header suggests. Raises
        InvalidInput when the file as a whole is of no use, TooLarge, or NotFound for the list;
        the import is kept as failed, with the same words.
        """
        checked = _checked_mapping(mapping or {})
        if list_id is not None and not await self._database.fetch(
            CONTACTS.get_list, workspace_id, list_id
        ):
            raise NotFound("there is no such list", field="list_id")
        import_id = uuid7()
        await self._database.execute(QUERIES.abandon_uploads, workspace_id)
        await self._database.execute(
            QUERIES.begin_upload,
            workspace_id,
            import_id,
            list_id,
            _checked_file_name(file_name),
            msgspec.json.encode(checked).decode(),
        )
        upload = _Upload(self._database, workspace_id, import_id, checked)
        try:
            async for chunk in chunks:
                await upload.feed(chunk)
            layout = await upload.finish()
            await self._enqueue(workspace_id, import_id, upload.size_bytes, layout, witness)
        except MailyardError as error:
            await self._fail(workspace_id, import_id, error.message, upload.size_bytes)
            raise
        except (asyncio.CancelledError, OSError):
            reason = "the upload was broken off"
            await asyncio.shield(self._fail(workspace_id, import_id, reason, upload.size_bytes))
            raise
        return await self.get(workspace_id, import_id)

    async def get(
        self, workspace_id: UUID, import_id: UUID, tx: Connection | None = None
    ) -> Import:
        """One import. Raises NotFound."""
        row = await self._database.fetchrow(QUERIES.get_import, workspace_id, import_id, tx=tx)
        if row is None:
            raise NotFound("there is no such import")
        return _import_of(row)

    async def page(
        self, workspace_id: UUID, *, after: UUID | None = None, limit: int = API_PAGE_ITEMS
    ) -> list[Import]:
        """A page of imports, the newest first, behind import `after`."""
        rows = await self._database.fetch(QUERIES.page_imports, workspace_id, after, limit)
        return [_import_of(row) for row in rows]

    async def rejects(
        self,
        workspace_id: UUID,
        import_id: UUID,
        *,
        after_line: int = 0,
        limit: int = API_PAGE_ITEMS,
    ) -> list[RejectedRow]:
        """A page of rejected rows in the order of their lines, behind line `after_line`."""
        rows = await self._database.fetch(
            QUERIES.page_rejects, workspace_id, import_id, after_line, limit
        )
        return [RejectedRow(row["line"], row["reason"], row["row_text"]) for row in rows]

    async def rejects_csv(self, workspace_id: UUID, import_id: UUID) -> AsyncIterator[bytes]:
        """The rejects as a CSV file (UTF-8: line, reason, row), in pieces.

        A spreadsheet would run a cell that starts like a formula; such cells get a quote in front.
        """
        yield _csv_lines([("line", "reason", "row")])
        after_line = 0
        while rejects := await self.rejects(
            workspace_id, import_id, after_line=after_line, limit=REJECTS_PER_READ
        ):
            after_line = rejects[-1].line
            yield _csv_lines(
                [(str(bad.line), neutral(bad.reason), neutral(bad.row_text)) for bad in rejects]
            )

    async def _enqueue(
        self,
        workspace_id: UUID,
        import_id: UUID,
        size_bytes: int,
        layout: Layout,
        witness: Witness | None,
    ) -> None:
        async with self._database.transaction() as tx:
            await self._database.execute(
                QUERIES.finish_upload,
                workspace_id,
                import_id,
                size_bytes,
                msgspec.json.encode(layout).decode(),
                layout.body_offset,
                layout.body_line - 1,
                tx=tx,
            )
            await self._engine.enqueue([_job(workspace_id, import_id)], tx=tx)
            if witness is not None:
                await witness(await self.get(workspace_id, import_id, tx), tx)

    async def _fail(
        self, workspace_id: UUID, import_id: UUID, reason: str, size_bytes: int
    ) -> None:
        await self._database.execute(
            QUERIES.fail_import, workspace_id, import_id, reason, size_bytes
        )


class _Upload:
    """Cuts what arrives into parts, and watches it to decide the layout."""

    def __init__(
        self,
        database: Database,
        workspace_id: UUID,
        import_id: UUID,
        mapping: Mapping[str, str | None],
    ) -> None:
        self.size_bytes = 0
        self._database = database
        self._workspace_id = workspace_id
        self._import_id = import_id
        self._mapping = mapping
        self._probe = EncodingProbe()
        self._head = b""
        self._layout: Layout | None = None
        self._pending = bytearray()
        self._parts = 0

    async def feed(self, chunk: bytes) -> None:
        self.size_bytes += len(chunk)
        if self.size_bytes > IMPORT_BYTES:
            raise TooLarge(f"the file is larger than {IMPORT_BYTES:,} bytes", field="file")
        self._pending += chunk
        while len(self._pending) >= PART_BYTES:
            await self._store(bytes(self._pending[:PART_BYTES]))
            del self._pending[:PART_BYTES]

    async def finish(self) -> Layout:
        """Store the rest; the layout of the whole file. Raises InvalidInput."""
        if self._pending:
            await self._store(bytes(self._pending))
            self._pending.clear()
        layout = self._layout or inspect(self._head, True, self._mapping)
        if layout is None:
            raise InvalidInput("the header of the file cannot be found", field="file")
        if layout.encoding.startswith("utf-16") or self._head.startswith(b"\xef\xbb\xbf"):
            return layout
        return msgspec.structs.replace(layout, encoding=self._probe.encoding())

    async def _store(self, part: bytes) -> None:
        self._probe.feed(part)
        if self._layout is None:
            self._head += part
            self._layout = inspect(self._head, False, self._mapping)
            if self._layout is None and self._parts > _HEAD_PARTS:
                raise InvalidInput("the file starts with megabytes of nothing", field="file")
        await self._database.execute(
            QUERIES.store_part, self._workspace_id, self._import_id, self._parts, part
        )
        self._parts += 1


def neutral(cell: str) -> str:
    """`cell` so that no spreadsheet takes it for a formula."""
    return f"'{cell}" if cell.startswith(_FORMULA_STARTS) else cell


def _csv_lines(rows: list[tuple[str, str, str]]) -> bytes:
    text = StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _job(workspace_id: UUID, import_id: UUID) -> NewJob:
    return NewJob(
        queue=MEDIA,
        kind=IMPORT_JOB,
        payload=msgspec.json.encode(ImportPayload(import_id)),
        workspace_id=workspace_id,
        unique_key=f"import:{import_id}",
    )


def _import_of(row: asyncpg.Record) -> Import:
    return Import(
        id=row["id"],
        list_id=row["list_id"],
        file_name=row["file_name"],
        state=row["state"],
        mapping=msgspec.json.decode(row["mapping"]),
        size_bytes=row["size_bytes"],
        read_bytes=row["read_bytes"],
        rows_imported=row["rows_imported"],
        rows_rejected=row["rows_rejected"],
        error=row["error"],
        created_at=row["created_at"],
        finished_at=row["finished_at"],
    )


def _checked_file_name(file_name: str) -> str:
    plain = "".join(character for character in file_name if character.isprintable())
    return plain.rpartition("/")[2][:255] or "contacts.csv"


def _checked_mapping(mapping: Mapping[str, str | None]) -> dict[str, str | None]:
    addresses = 0
    for column, meaning in mapping.items():
        if "\0" in column or (meaning is not None and (not meaning.strip() or "\0" in meaning)):
            raise InvalidInput(f"the mapping of {column!r} is empty", field="mapping")
        addresses += meaning == ADDRESS
    if addresses > 1:
        raise InvalidInput("the mapping names two columns as the address", field="mapping")
    return dict(mapping)
