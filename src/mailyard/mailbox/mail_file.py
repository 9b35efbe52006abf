"""A whole mailbox as a file, out and in: mbox, or a tar of `.eml` files.

Both ways are streams: a few megabytes are held, whatever the mailbox's size. What goes out is each
mail as it came, byte for byte (in mbox with LF line ends, as its readers want). What comes in takes
the way of mail that arrives, from the commit on: threads, search, events and webhooks see it. It is
durable a few hundred mails at a time, and a mail whose Message-ID the inbox has already is passed
over, so that an import that broke off is begun again.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC
from typing import Any, Literal, Protocol
from uuid import UUID

import asyncpg
import msgspec

from mailyard.access.plan import MESSAGES
from mailyard.access.usage import Allowance
from mailyard.core import limits
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import InvalidInput
from mailyard.core.ids import MESSAGE, lowest_at, time_of, type_id, uuid7
from mailyard.mailbox.inbox import Inboxes
from mailyard.mailbox.inbox_value import Inbox
from mailyard.protocol.mbox import MboxReader, mbox_entry
from mailyard.protocol.mime import parse
from mailyard.protocol.tar import END, NoTar, TarReader, tar_entry
from mailyard.queue.engine import Engine
from mailyard.queue.job import INBOUND_EMAIL, NewJob
from mailyard.receiving.commit import BLOB_COLUMNS, INGEST, Row
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load
from mailyard.storage.raw_mail import IN_ROWS, RawMail

QUERIES = load("message")
RECEIVING = load("receiving")

MBOX = "application/mbox"
TAR = "application/x-tar"
EML = "message/rfc822"
UNKNOWN = "application/octet-stream"
Format = Literal["mbox", "eml"]
MEDIA_TYPES = {"mbox": MBOX, "eml": TAR}

_LINES_PER_PAGE = 500
_BATCH_BYTES = 8 * limits.MIB
_BATCH_MAILS = 500
_REFUSALS = 100  # that are told of one by one


class Refusal(msgspec.Struct, frozen=True):
    """Why the `number`-th mail of a file did not go in, from 1."""

    number: int
    reason: str


class Imported(msgspec.Struct):
    """What became of a file: mails that went in, that were there already, that were refused."""

    imported: int = 0
    already_there: int = 0
    refused: int = 0
    refusals: list[Refusal] = msgspec.field(default_factory=list)

    def refuse(self, number: int, reason: str) -> None:
        self.refused += 1
        if len(self.refusals) < _REFUSALS:
            self.refusals.append(Refusal(number, reason))


class Witness(Protocol):
    """Writes the audit row of an import, in its first transaction."""

    async def __call__(self, tx: Connection) -> None: ...


class MailFiles:
    """Mailboxes as files. `engine` takes the jobs that make imported mail visible; what comes in
    counts as received mail of the workspace's plan."""

    def __init__(
        self,
        *,
        database: Database,
        inboxes: Inboxes,
        engine: Engine,
        allowance: Allowance | None = None,
        raw_mail: RawMail = IN_ROWS,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._database = database
        self._raw_mail = raw_mail
        self._inboxes = inboxes
        self._engine = engine
        self._allowance = allowance

    async def export(
        self, workspace_id: UUID, inbox_id: UUID, form: Format
    ) -> AsyncIterator[bytes]:
        """The mail of an inbox, the oldest first, as pieces of a file. Raises NotFound at once.

        Mail that comes in meanwhile is in it or not; mail that is deleted meanwhile is not.
        """
        inbox = await self._inboxes.get(workspace_id, inbox_id)
        return self._pieces(workspace_id, inbox, form)

    async def _pieces(self, workspace_id: UUID, inbox: Inbox, form: Format) -> AsyncIterator[bytes]:
        after = lowest_at(inbox.created_at)
        while True:
            lines = await self._database.fetch(
                QUERIES.export_lines, workspace_id, inbox.id, after, _LINES_PER_PAGE
            )
            for some in _chunks(lines):
                raw = await self._raw(workspace_id, some)
                for line in some:
                    content = raw.get(line["message_id"])
                    if content is not None:
                        yield _entry(line, content, form)
            if len(lines) < _LINES_PER_PAGE:
                break
            after = lines[-1]["message_id"]
        if form == "eml":
            yield END

    async def _raw(self, workspace_id: UUID, lines: Sequence[asyncpg.Record]) -> dict[UUID, bytes]:
        by_class: dict[int, list[UUID]] = {}
        for line in lines:
            by_class.setdefault(line["message_retention_days"], []).append(line["message_id"])
        raw: dict[UUID, bytes] = {}
        for days, ids in by_class.items():
            rows = await self._database.fetch(
                RECEIVING.load_messages, [workspace_id], ids, min(ids), max(ids), days
            )
            raw.update((row["id"], row["raw"]) for row in await self._raw_mail.filled(rows))
        for line in lines:  # whose class has changed since the page was read
            if line["message_id"] not in raw:
                row = await self._database.fetchrow(
                    QUERIES.get, workspace_id, line["message_id"], line["inbox_id"]
                )
                if row is not None:
                    raw[line["message_id"]] = await self._raw_mail.of(row)
        return raw

    async def bring_in(
        self,
        workspace_id: UUID,
        inbox_id: UUID,
        pieces: AsyncIterator[bytes],
        media_type: str,
        witness: Witness,
    ) -> Imported:
        """Put the mails of a file into an inbox. Raises NotFound, InvalidInput (no such file),
        QuotaExceeded.

        What was imported before an error stays; the file can be sent again.
        """
        inbox = await self._inboxes.get(workspace_id, inbox_id)
        told = Imported()
        batch: list[tuple[int, bytes]] = []
        size_bytes = 0
        first = True
        async for number, raw in _mails(pieces, media_type):
            if raw is None:
                told.refuse(number, f"it has more than {limits.SMTP_MESSAGE_BYTES} bytes")
                continue
            batch.append((number, raw))
            size_bytes += len(raw)
            if len(batch) >= _BATCH_MAILS or size_bytes >= _BATCH_BYTES:
                await self._store(workspace_id, inbox, batch, told, witness if first else None)
                first, batch, size_bytes = False, [], 0
        await self._store(workspace_id, inbox, batch, told, witness if first else None)
        return told

    async def _store(
        self,
        workspace_id: UUID,
        inbox: Inbox,
        batch: Sequence[tuple[int, bytes]],
        told: Imported,
        witness: Witness | None,
    ) -> None:
        wanted = list(_readable(batch, told))
        ids = [message_id for message_id, _ in wanted if message_id]
        there: set[str] = set()
        if ids:
            rows = await self._database.fetch(
                QUERIES.known_message_ids,
                workspace_id,
                inbox.id,
                lowest_at(inbox.oldest_at(self._clock.now())),
                ids,
            )
            there = {row["header_message_id"] for row in rows}
        rows_in: list[Row] = []
        fresh = iter(sorted([uuid7() for _ in wanted]))  # in the order of the file
        for message_id, raw in wanted:
            if message_id and message_id in there:
                told.already_there += 1
                continue
            there.add(message_id)
            rows_in.append(
                (next(fresh), workspace_id, inbox.retention_days, "", [inbox.address], [inbox.id],
                 "", "", len(raw), None, raw)
            )  # fmt: skip
        if rows_in and self._allowance is not None:
            await self._allowance.check(workspace_id, MESSAGES, len(rows_in))
        placed = [await self._placed(row) for row in rows_in]
        async with self._database.transaction() as tx:
            if witness is not None:
                await witness(tx)
            if rows_in:
                named = [(row[0], row[2], row[8]) for row in rows_in]
                await tx.copy_records_to_table("message", records=placed, columns=BLOB_COLUMNS)
                job = NewJob(
                    queue=INBOUND_EMAIL,
                    kind=INGEST,
                    payload=msgspec.json.encode(named),
                    workspace_id=workspace_id,
                )
                await self._engine.enqueue([job], tx=tx)
        told.imported += len(rows_in)

    async def _placed(self, row: Row) -> tuple[Any, ...]:
        """The row as it is stored, its bytes in it or outside. Raises BlobsAway."""
        raw = row[-1]
        if not self._raw_mail.goes_outside(len(raw)):
            return (*row, None)
        return (*row[:-1], b"", await self._raw_mail.put(row[1], row[2], row[0], raw))


def _readable(batch: Sequence[tuple[int, bytes]], told: Imported) -> Iterator[tuple[str, bytes]]:
    """(Message-ID, the mail with CRLF line ends) of those that are mails."""
    for number, raw in batch:
        message = parse(raw)
        if not message.root.fields:
            told.refuse(number, "it has no header")
            continue
        if b"\r\n" not in raw:
            raw = raw.replace(b"\n", b"\r\n")
        yield message.message_id, raw


def _chunks(lines: Sequence[asyncpg.Record]) -> Iterator[list[asyncpg.Record]]:
    """`lines` in runs whose mails fit into memory together."""
    run: list[asyncpg.Record] = []
    size_bytes = 0
    for line in lines:
        if run and size_bytes + line["size_bytes"] > _BATCH_BYTES:
            yield run
            run, size_bytes = [], 0
        run.append(line)
        size_bytes += line["size_bytes"]
    if run:
        yield run


def _entry(line: asyncpg.Record, raw: bytes, form: Format) -> bytes:
    received_at = time_of(line["message_id"])
    if form == "mbox":
        return mbox_entry(raw, line["from_address"], received_at.astimezone(UTC))
    name = f"{type_id(MESSAGE, line['message_id'])}.eml"
    return tar_entry(name, raw, int(received_at.timestamp()))


async def _mails(
    pieces: AsyncIterator[bytes], media_type: str
) -> AsyncIterator[tuple[int, bytes | None]]:
    """(number, mail or None for one too large) of a file in `media_type` or what it looks like.

    Raises InvalidInput.
    """
    first = b""
    async for piece in pieces:  # enough of it to see what it is
        first += piece
        if len(first) >= 512:
            break
    kind = _kind_of(first) if media_type == UNKNOWN else media_type
    most = limits.SMTP_MESSAGE_BYTES
    if kind == EML:
        whole = bytearray(first)
        async for piece in pieces:
            if len(whole) <= most:
                whole += piece
        if whole:
            yield 1, bytes(whole) if len(whole) <= most else None
        return
    if kind == TAR:
        archive = TarReader(most)
        try:
            for file in archive.feed(first):
                yield file.number, file.content
            async for piece in pieces:
                for file in archive.feed(piece):
                    yield file.number, file.content
            archive.close()
        except NoTar as error:
            raise InvalidInput(f"{error}; what stands before is imported", field="body") from None
        return
    mailbox = MboxReader(most)
    found = 0
    for mail in mailbox.feed(first):
        found += 1
        yield mail.number, mail.raw
    async for piece in pieces:
        for mail in mailbox.feed(piece):
            found += 1
            yield mail.number, mail.raw
    for mail in mailbox.close():
        found += 1
        yield mail.number, mail.raw
    if not found and first:
        raise InvalidInput("no line of the file begins a mail as mbox has it", field="body")


def _kind_of(first: bytes) -> str:
    if first.startswith(b"From "):
        return MBOX
    return TAR if first[257:262] == b"ustar" else EML
