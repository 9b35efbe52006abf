"""Mail in inboxes: listed and searched by the lines that ingest wrote, read from the bytes.

Reading parses on demand within the parser's bounds; nothing parsed is stored. A message is seen
through a living inbox or not at all.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
import msgspec

from mailyard.cache.change_log import MAIL_TAG
from mailyard.cache.kind import LIST
from mailyard.cache.layered import LayeredCache
from mailyard.core import limits
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import InvalidInput, NotFound, TooLarge
from mailyard.core.ids import INBOX, lowest_at, type_id
from mailyard.mailbox.follow import Follower
from mailyard.mailbox.inbox import Inboxes
from mailyard.mailbox.message_value import (
    BatchMessage,
    Content,
    File,
    Link,
    Page,
    ReadMessage,
    Summary,
    summary_of,
)
from mailyard.mailbox.sanitise import sanitise
from mailyard.protocol.mime.message import Message, parse
from mailyard.protocol.spam.score import SpamScore, score
from mailyard.storage.blob import parse_name
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load
from mailyard.storage.raw_mail import IN_ROWS, RawMail

QUERIES = load("message")
RECEIVING = load("receiving")

_FIRST = UUID(int=0)
_LAST = UUID(int=(1 << 128) - 1)
_READ_ASIDE_BYTES = 256 * limits.KIB  # larger mail is read in a thread
_MESSAGES_BETWEEN_PAUSES = 20
_ITEM_BYTES = 1_200  # of a list, as it lies in memory


class Messages:
    """The mail of all workspaces' inboxes."""

    def __init__(
        self,
        *,
        database: Database,
        inboxes: Inboxes,
        follower: Follower,
        cache: LayeredCache | None = None,
        raw_mail: RawMail = IN_ROWS,
        clock: Clock | None = None,
    ) -> None:
        self._database = database
        self._raw_mail = raw_mail
        self._inboxes = inboxes
        self._follower = follower
        self._cache = cache
        self._clock = clock or SystemClock()

    async def list(
        self,
        workspace_id: UUID,
        inbox_id: UUID,
        *,
        from_: str = "",
        subject: str = "",
        since: datetime | None = None,
        until: datetime | None = None,
        before: UUID | None = None,
        limit: int = limits.API_PAGE_ITEMS,
    ) -> Page:
        """The mail of an inbox, newest first, older than the message `before`.

        `from_` and `subject` are looked for anywhere in sender and subject, in any case; `since`
        (inclusive) and `until` (exclusive) bound when it was received. Raises NotFound.
        """
        _check_search(from_, "from")
        _check_search(subject, "subject")
        inbox = await self._inboxes.get(workspace_id, inbox_id)
        limit = max(1, min(limit, limits.API_PAGE_ITEMS_MAX))
        lowest = max(_earliest(since), _earliest(inbox.oldest_at(self._clock.now())))
        highest = min(before or _LAST, _LAST if until is None else _earliest(until))
        asked = (lowest, highest, limit + 1, from_, subject)

        async def read() -> Page:
            rows = await self._database.fetch(
                QUERIES.list, workspace_id, inbox_id, inbox.retention_days, *asked
            )
            items = [summary_of(row) for row in rows[:limit]]
            return Page(items, items[-1].id if len(rows) > limit else None)

        if self._cache is None or inbox.message_ttl_s is not None:  # what is shown ends by itself
            return await read()
        key = f"{inbox_id}:{inbox.retention_days}:" + msgspec.json.encode(asked).decode()
        tags = [mail_tag(inbox_id)]
        return await self._cache.get_or_make(
            LIST, workspace_id, key, read, tags, weigh=_page_bytes, ends_at=_first_end
        )

    async def first(
        self,
        workspace_id: UUID,
        inbox_id: UUID,
        *,
        from_: str = "",
        subject: str = "",
        after: UUID | None = None,
    ) -> Summary | None:
        """The oldest matching mail with an id above `after`, or None. Raises NotFound."""
        _check_search(from_, "from")
        _check_search(subject, "subject")
        inbox = await self._inboxes.get(workspace_id, inbox_id)
        row = await self._database.fetchrow(
            QUERIES.first,
            workspace_id,
            inbox_id,
            inbox.retention_days,
            max(after or _FIRST, _earliest(inbox.oldest_at(self._clock.now()))),
            from_,
            subject,
        )
        return None if row is None else summary_of(row)

    async def read(
        self,
        workspace_id: UUID,
        message_id: UUID,
        inbox_id: UUID | None = None,
    ) -> ReadMessage:
        """The message, read, if need be only as `inbox_id` holds it. Raises NotFound."""
        row = await self._row(workspace_id, message_id, inbox_id)
        raw = await self._raw_mail.of(row)
        if len(raw) > _READ_ASIDE_BYTES:
            content, spam = await asyncio.to_thread(_judge, raw)
        else:
            content, spam = _judge(raw)
        return ReadMessage(
            summary=summary_of(row),
            reverse_path=row["reverse_path"],
            peer=row["peer"],
            helo=row["helo"],
            content=content,
            spam=spam,
        )

    async def raw(
        self, workspace_id: UUID, message_id: UUID, inbox_id: UUID | None = None
    ) -> bytes:
        """The message as it came, after our trace line. Raises NotFound."""
        row = await self._row(workspace_id, message_id, inbox_id)
        return await self._raw_mail.of(row)

    async def link(self, workspace_id: UUID, message_id: UUID, seconds: float) -> Link:
        """An address for the bytes that `raw` gives, out of the store itself. Raises NotFound,
        BlobsAway."""
        row = await self._row(workspace_id, message_id, None)
        key = row["blob"]
        name = parse_name(key) if key is not None else None
        url = await self._raw_mail.presign(key, seconds) if key is not None else None
        until = self._clock.now() + timedelta(seconds=seconds)
        return Link(
            url,
            until if url is not None else None,
            name.sha256 if name is not None else None,
            row["size_bytes"],
        )

    async def attachment(
        self, workspace_id: UUID, message_id: UUID, index: int, inbox_id: UUID | None = None
    ) -> File:
        """The attachment `index` (from 0). Raises NotFound."""
        row = await self._row(workspace_id, message_id, inbox_id)
        file = await asyncio.to_thread(_file, await self._raw_mail.of(row), index)
        if file is None:
            raise NotFound("no such attachment")
        return file

    async def read_inboxes(
        self,
        workspace_id: UUID,
        inbox_ids: Sequence[UUID],
        *,
        each: int = limits.API_PAGE_ITEMS,
        headers: bool = True,
    ) -> Sequence[BatchMessage]:
        """The newest `each` messages of every living inbox among `inbox_ids`, read.

        Up to INBOXES_PER_READ inboxes. Without `headers` there are none in the contents: to decode
        them costs as much as text and HTML together. Raises InvalidInput, and TooLarge when the
        mail is more than READ_BYTES: ask for fewer inboxes then.
        """
        if len(inbox_ids) > limits.INBOXES_PER_READ:
            raise InvalidInput(
                f"at most {limits.INBOXES_PER_READ} inboxes at once", field="inbox_ids"
            )
        if not inbox_ids:
            return []
        lines = await self._database.fetch(
            QUERIES.newest_of_many,
            workspace_id,
            inbox_ids,
            min(inbox_ids),
            max(inbox_ids),
            max(1, min(each, limits.API_PAGE_ITEMS_MAX)),
        )
        if sum(line["size_bytes"] for line in lines) > limits.READ_BYTES:
            raise TooLarge("more mail than one answer holds: ask for fewer inboxes")
        raw = await self._raw_of(workspace_id, lines)
        found = []
        for count, line in enumerate(lines, 1):
            content = raw.get(line["message_id"])
            if content is not None:
                found.append(BatchMessage(summary_of(line), _read(content, headers)))
            if count % _MESSAGES_BETWEEN_PAUSES == 0:
                await asyncio.sleep(0)
        return found

    async def count(self, workspace_id: UUID, label: str) -> int:
        """How much mail lies in the living inboxes with `label`; empty: in all."""
        found: int = await self._database.fetchval(QUERIES.count, workspace_id, label)
        return found

    async def delete(
        self,
        workspace_id: UUID,
        message_ids: Sequence[UUID],
        inbox_id: UUID | None = None,
        tx: Connection | None = None,
    ) -> int:
        """Take messages out of all inboxes, or of one; how many lines went. Bytes that no inbox
        shows any more are deleted.
        """
        if not message_ids:
            return 0
        if tx is None:
            async with self._database.transaction() as own:
                return await self.delete(workspace_id, message_ids, inbox_id, own)
        ids = list(dict.fromkeys(message_ids))
        await self._database.fetch(RECEIVING.hold_classes, [workspace_id], tx=tx)
        gone = await self._database.fetch(
            QUERIES.delete_lines, workspace_id, ids, inbox_id, min(ids), max(ids), tx=tx
        )
        if not gone:
            return 0
        await self._follower.forget(workspace_id, gone, tx)
        touched = list({row["message_id"] for row in gone})
        await self._database.execute(
            QUERIES.delete_bytes, workspace_id, touched, min(touched), max(touched), tx=tx
        )
        if self._cache is not None:
            inboxes = {row["inbox_id"] for row in gone}
            await self._cache.change(workspace_id, [mail_tag(one) for one in inboxes], tx)
        return len(gone)

    # -----------------------------------------------------------------------------------------

    async def _row(
        self, workspace_id: UUID, message_id: UUID, inbox_id: UUID | None
    ) -> asyncpg.Record:
        row = await self._database.fetchrow(QUERIES.get, workspace_id, message_id, inbox_id)
        if row is None:
            raise NotFound("no such message")
        return row

    async def _raw_of(
        self, workspace_id: UUID, lines: Sequence[asyncpg.Record]
    ) -> dict[UUID, bytes]:
        by_class: dict[int, set[UUID]] = {}
        for line in lines:
            by_class.setdefault(line["message_retention_days"], set()).add(line["message_id"])
        raw: dict[UUID, bytes] = {}
        for retention_days, ids in by_class.items():
            rows = await self._database.fetch(
                RECEIVING.load_messages,
                [workspace_id],
                list(ids),
                min(ids),
                max(ids),
                retention_days,
            )
            raw.update((row["id"], row["raw"]) for row in await self._raw_mail.filled(rows))
        return raw


def mail_tag(inbox_id: UUID) -> str:
    """What carries an inbox's lists in a cache."""
    return MAIL_TAG + type_id(INBOX, inbox_id)


def _page_bytes(page: Page) -> int:
    return _ITEM_BYTES * len(page.items)


def _first_end(page: Page) -> datetime | None:
    """When the first of the mails on a page ends."""
    return min((one.expires_at for one in page.items if one.expires_at is not None), default=None)


def _read(raw: bytes, headers: bool) -> Content:
    return _content(parse(raw), headers)


def _content(message: Message, headers: bool) -> Content:
    text, html = message.text, message.html
    shown = message.headers if headers else ()
    return Content(shown, text, None, html, 0, message.attachments, message.defects)


def _judge(raw: bytes) -> tuple[Content, SpamScore]:
    return _show(raw), score(raw)


def _show(raw: bytes) -> Content:
    message = parse(raw)
    content = _content(message, headers=True)
    content = msgspec.structs.replace(content, traits=message.traits, events=message.events)
    if content.html_source is None:
        return content
    clean = sanitise(content.html_source)
    return msgspec.structs.replace(content, html=clean.html, remote_images=clean.remote_images)


def _file(raw: bytes, index: int) -> File | None:
    message = parse(raw)
    if not 0 <= index < len(message.attachments):
        return None
    return File(message.attachments[index], message.content(index))


def _earliest(moment: datetime | None) -> UUID:
    """The lowest id of that time; ids begin with 1970."""
    return _FIRST if moment is None or moment.timestamp() <= 0 else lowest_at(moment)


def _check_search(text: str, path: str) -> None:
    if len(text) > limits.SEARCH_CHARACTERS:
        raise InvalidInput(f"at most {limits.SEARCH_CHARACTERS} characters", field=path)
    if "\0" in text:
        raise InvalidInput("no NUL", field=path)
