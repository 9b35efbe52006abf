"""Inboxes: an address of one's own, for a while or for ever.

An inbox lives until it expires or is deleted; from that instant it is found by nobody, its address
refuses mail, and somebody may take the address again. What is left of it goes with its partition
(`receiving.retention`).
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar
from uuid import UUID

import asyncpg
import msgspec

from mailyard.access.plan import INBOXES
from mailyard.access.usage import Allowance
from mailyard.cache.change_log import MAIL_TAG
from mailyard.cache.kind import INBOX
from mailyard.cache.layered import LayeredCache
from mailyard.core import limits
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import ConfigurationError, Conflict, InvalidInput, NotFound, Unavailable
from mailyard.core.ids import INBOX as INBOX_ID
from mailyard.core.ids import type_id
from mailyard.mailbox.inbox_value import (
    Inbox,
    InboxPage,
    NewInbox,
    check_labels,
    check_most,
    check_name,
    inbox_of,
    lifetime,
    mail_days_of,
    planned,
    refuse_repeats,
)
from mailyard.protocol.address import normalise
from mailyard.receiving.retention import class_for, is_longer
from mailyard.sending.suppress import Suppressions
from mailyard.storage.database import Connection, Database
from mailyard.storage.derived import move_with_inbox, move_with_messages
from mailyard.storage.names import ADDRESS, Names
from mailyard.storage.queries import load

QUERIES = load("inbox")
RECEIVING = load("receiving")

# Others met this change: PostgreSQL does not follow a row that was moved to another partition while
# one waited for it, and ends one of two who wait for each other. Nothing is wrong; say it again.
_MET = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
_ATTEMPTS = 5

_T = TypeVar("_T")
_NEWEST = UUID(int=(1 << 128) - 1)


class Inboxes:
    """The inboxes of all workspaces. `domains` are those that this platform receives for; an
    address without a domain gets the first. A workspace has inboxes under its own domains too.
    """

    def __init__(
        self,
        *,
        database: Database,
        domains: Sequence[str],
        clock: Clock | None = None,
        cache: LayeredCache | None = None,
        allowance: Allowance | None = None,
        names: Names | None = None,
    ) -> None:
        """`names`: where there are several database clusters."""
        if not domains:
            raise ConfigurationError("at least one domain for inboxes is needed")
        self._database = database
        self._clock = clock or SystemClock()
        self._domains = tuple(domain.lower() for domain in domains)
        self._cache = cache
        self._names = names
        self._allowance = allowance if allowance is not None and allowance.any else None

    async def create(
        self, workspace_id: UUID, wanted: Sequence[NewInbox], *, tx: Connection | None = None
    ) -> list[Inbox]:
        """Make up to INBOXES_PER_BATCH inboxes, all or none, in the order asked for.

        Raises InvalidInput, and Conflict when an address is taken, each naming its place;
        QuotaExceeded for more than the workspace's plan has.
        """
        if len(wanted) > limits.INBOXES_PER_BATCH:
            raise InvalidInput(
                f"at most {limits.INBOXES_PER_BATCH} inboxes at once", field="inboxes"
            )
        if not wanted:
            return []
        if self._allowance is not None:
            lives = [await self._allowance.life(workspace_id, one.ttl_s) for one in wanted]
            wanted = [replace(one, ttl_s=ttl_s) for one, ttl_s in zip(wanted, lives, strict=True)]
        now = self._clock.now()
        inboxes = [planned(one, place, self._domains, now) for place, one in enumerate(wanted)]
        refuse_repeats(inboxes)
        owned = await self._own_domains(workspace_id, inboxes, tx)
        if tx is not None:
            await self._insert(workspace_id, inboxes, owned, tx)
        else:
            async with self._database.transaction() as own:
                await self._insert(workspace_id, inboxes, owned, own)
        return inboxes

    async def limit(
        self,
        workspace_id: UUID,
        inbox_id: UUID,
        *,
        message_ttl_s: float | None,
        messages_max: int | None,
        bytes_max: int | None,
        tx: Connection | None = None,
    ) -> Inbox:
        """Set how long mail lives and how much there may be; None: no such limit of its own.

        Mail that is there already lives no longer than before by this. Raises NotFound,
        InvalidInput.
        """
        if message_ttl_s is not None:
            lifetime(message_ttl_s, "message_ttl_s")
        check_most(messages_max, bytes_max, "")

        async def limit(own: Connection) -> Inbox:
            await self._database.fetch(QUERIES.hold_classes_alone, workspace_id, tx=own)
            row = await self._database.fetchrow(
                QUERIES.limit,
                workspace_id,
                inbox_id,
                message_ttl_s,
                messages_max,
                bytes_max,
                tx=own,
            )
            inbox = _existing(row)
            await self._database.execute(
                QUERIES.limit_address,
                workspace_id,
                inbox_id,
                inbox.address,
                inbox.mail_days,
                messages_max,
                bytes_max,
                tx=own,
            )
            await self._changed(workspace_id, [inbox_id], own)
            return inbox

        return await self._insist(limit, tx)

    async def get(self, workspace_id: UUID, inbox_id: UUID, tx: Connection | None = None) -> Inbox:
        """The living inbox `inbox_id`; as `tx` sees it when given. Raises NotFound."""

        async def read() -> Inbox:
            row = await self._database.fetchrow(QUERIES.get, workspace_id, inbox_id, tx=tx)
            return _existing(row)

        if self._cache is None or tx is not None:
            return await read()
        return await self._cache.get_or_make(
            INBOX,
            workspace_id,
            str(inbox_id),
            read,
            [_tag(inbox_id)],
            ends_at=lambda inbox: inbox.expires_at,
        )

    async def find(self, workspace_id: UUID, address: str) -> Inbox:
        """The living inbox behind `address`. Raises NotFound, InvalidInput."""
        return _existing(
            await self._database.fetchrow(QUERIES.find, workspace_id, normalise(address))
        )

    async def list(
        self,
        workspace_id: UUID,
        *,
        label: str = "",
        before: UUID | None = None,
        limit: int = limits.API_PAGE_ITEMS,
    ) -> InboxPage:
        """Living inboxes, newest first, those made before the inbox `before`."""
        limit = max(1, min(limit, limits.API_PAGE_ITEMS_MAX))
        rows = await self._database.fetch(
            QUERIES.list, workspace_id, before or _NEWEST, limit + 1, label
        )
        items = [inbox_of(row) for row in rows[:limit]]
        return InboxPage(items, items[-1].id if len(rows) > limit else None)

    async def extend(
        self,
        workspace_id: UUID,
        inbox_id: UUID,
        ttl_s: float | None,
        *,
        tx: Connection | None = None,
    ) -> Inbox:
        """Let the inbox live for `ttl_s` from now (None: for ever). Raises NotFound.

        Within its retention class this is two rows. Beyond it, its mail moves to the longer class,
        during which no mail is ingested in the workspace. A shorter life changes no class.
        """

        async def extend(own: Connection) -> Inbox:
            inbox = await self._extend(workspace_id, inbox_id, ttl_s, own)
            await self._changed(workspace_id, [inbox_id], own)
            return inbox

        return await self._insist(extend, tx)

    async def relabel(
        self,
        workspace_id: UUID,
        inbox_id: UUID,
        *,
        name: str | None = None,
        labels: Sequence[str] | None = None,
        tx: Connection | None = None,
    ) -> Inbox:
        """Change name, labels or both; None leaves as it is. Raises NotFound, InvalidInput."""
        if name is not None:
            check_name(name, "name")
        if labels is not None:
            check_labels(labels, "labels")
        wanted = None if labels is None else list(dict.fromkeys(labels))

        async def relabel(own: Connection) -> Inbox:
            inbox = _existing(
                await self._database.fetchrow(
                    QUERIES.relabel, workspace_id, inbox_id, name, wanted, tx=own
                )
            )
            await self._changed(workspace_id, [inbox_id], own)
            return inbox

        return await self._insist(relabel, tx)

    async def delete(
        self, workspace_id: UUID, inbox_ids: Sequence[UUID], *, tx: Connection | None = None
    ) -> Sequence[Inbox]:
        """Delete inboxes with all their mail, at once; those that were there, as they were."""

        async def delete(own: Connection) -> Sequence[Inbox]:
            rows = await self._database.fetch(QUERIES.delete, workspace_id, inbox_ids, tx=own)
            await self._changed(workspace_id, [row["id"] for row in rows], own)
            return [inbox_of(row) for row in rows]

        return await self._insist(delete, tx)

    # -----------------------------------------------------------------------------------------

    async def _changed(self, workspace_id: UUID, inbox_ids: Sequence[UUID], tx: Connection) -> None:
        if self._cache is not None and inbox_ids:
            await self._cache.change(workspace_id, [_tag(one) for one in inbox_ids], tx)

    async def _insist(
        self, change: Callable[[Connection], Awaitable[_T]], tx: Connection | None
    ) -> _T:
        """Make a change, again when it met another one; the caller's `tx` goes on either way."""
        for _ in range(_ATTEMPTS):
            try:
                if tx is None:
                    async with self._database.transaction() as own:
                        return await change(own)
                async with tx.transaction():  # a savepoint: what comes after it sees the new state
                    return await change(tx)
            except _MET:
                continue
        raise Unavailable("the inbox is being changed by others, try again")

    async def _own_domains(
        self, workspace_id: UUID, inboxes: Sequence[Inbox], tx: Connection | None
    ) -> dict[str, UUID]:
        """The workspace's own domains that `inboxes` are under. Raises InvalidInput for others."""
        named = {
            place: domain
            for place, inbox in enumerate(inboxes)
            if (domain := inbox.address.rpartition("@")[2]) not in self._domains
        }
        if not named:
            return {}
        rows = await self._database.fetch(
            QUERIES.own_domains, workspace_id, list(set(named.values())), tx=tx
        )
        owned: dict[str, UUID] = {row["name"]: row["id"] for row in rows}
        for place, domain in named.items():
            if domain not in owned:
                allowed = ", ".join(self._domains)
                raise InvalidInput(
                    f"inboxes are made under {allowed} and under own domains that are proved",
                    field=f"inboxes.{place}.address",
                )
        return owned

    async def _insert(
        self,
        workspace_id: UUID,
        inboxes: Sequence[Inbox],
        owned: Mapping[str, UUID],
        tx: Connection,
    ) -> None:
        if self._allowance is not None:
            await self._allowance.check(workspace_id, INBOXES, len(inboxes), tx)
        made = await self._database.fetch(
            QUERIES.create,
            workspace_id,
            [inbox.id for inbox in inboxes],
            [inbox.address for inbox in inboxes],
            [inbox.retention_days for inbox in inboxes],
            [inbox.expires_at for inbox in inboxes],
            [inbox.name for inbox in inboxes],
            [msgspec.json.encode(inbox.labels).decode() for inbox in inboxes],
            [inbox.message_ttl_s for inbox in inboxes],
            [inbox.mail_days for inbox in inboxes],
            [inbox.one_time for inbox in inboxes],
            [inbox.messages_max for inbox in inboxes],
            [inbox.bytes_max for inbox in inboxes],
            [owned.get(inbox.address.rpartition("@")[2]) for inbox in inboxes],
            tx=tx,
        )
        free = {row["address"] for row in made}
        for place, inbox in enumerate(inboxes):
            if inbox.address not in free:
                raise _taken(inbox, place)
        if self._names is not None:
            elsewhere = await self._names.claim(ADDRESS, sorted(free), workspace_id, tx)
            for place, inbox in enumerate(inboxes):
                if inbox.address in elsewhere:
                    raise _taken(inbox, place)
        await Suppressions(database=self._database).lift_bounced(workspace_id, sorted(free), tx)

    async def _extend(
        self, workspace_id: UUID, inbox_id: UUID, ttl_s: float | None, tx: Connection
    ) -> Inbox:
        await self._database.fetch(QUERIES.hold_classes_alone, workspace_id, tx=tx)
        inbox = _existing(await self._database.fetchrow(QUERIES.get, workspace_id, inbox_id, tx=tx))
        if self._allowance is not None:
            await self._allowance.extended_life(workspace_id, inbox.created_at, ttl_s)
        expires_at = None if ttl_s is None else self._clock.now() + lifetime(ttl_s, "ttl_s")
        needed = class_for(inbox.created_at, expires_at)
        kept = needed if is_longer(needed, inbox.retention_days) else inbox.retention_days
        row = await self._database.fetchrow(
            QUERIES.extend, workspace_id, inbox_id, expires_at, kept, tx=tx
        )
        extended = _existing(row)
        held = await self._database.fetchval(
            QUERIES.extend_address,
            workspace_id,
            inbox_id,
            inbox.address,
            expires_at,
            kept,
            extended.mail_days,
            tx=tx,
        )
        if held is None:  # it expired while this waited for its turn, and somebody took the address
            raise NotFound("no such inbox")
        if kept != inbox.retention_days:
            await self._move_mail(workspace_id, inbox, kept, tx)
        return extended

    async def _move_mail(
        self, workspace_id: UUID, inbox: Inbox, retention_days: int, tx: Connection
    ) -> None:
        """The inbox's mail into a longer class. Mail that is not ingested yet follows there."""
        shorter = mail_days_of(inbox.message_ttl_s, retention_days)
        mail_days = retention_days if shorter is None else shorter
        lines = await self._database.fetch(
            QUERIES.move_lines,
            workspace_id,
            inbox.id,
            inbox.retention_days,
            retention_days,
            mail_days,
            tx=tx,
        )
        await move_with_inbox(
            self._database, tx, workspace_id, inbox.id, inbox.retention_days, retention_days
        )
        if not lines:
            return
        ids = [line["message_id"] for line in lines]
        arguments = (workspace_id, ids, mail_days, min(ids), max(ids))
        await self._database.execute(QUERIES.follow_messages, *arguments, tx=tx)
        await self._database.execute(RECEIVING.move_messages, *arguments, tx=tx)
        await move_with_messages(self._database, tx, workspace_id, ids, mail_days)


def tags_of(inbox_id: UUID) -> list[str]:
    """What carries anything of an inbox in a cache."""
    return [_tag(inbox_id), MAIL_TAG + type_id(INBOX_ID, inbox_id)]


def _taken(inbox: Inbox, place: int) -> Conflict:
    return Conflict(f"{inbox.address} is taken", field=f"inboxes.{place}.address")


def _tag(inbox_id: UUID) -> str:
    return f"inbox:{inbox_id}"


def _existing(row: asyncpg.Record | None) -> Inbox:
    if row is None:
        raise NotFound("no such inbox")
    return inbox_of(row)
