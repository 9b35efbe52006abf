"""Endpoints: where a workspace's events are told, which of them, and with which secrets.

A secret is shown once, when it is made, and lies sealed. Replacing it leaves the old one in force
for a while, so that receivers can change over at their time.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import msgspec

from mailyard.access.vault import Vault
from mailyard.bus.bus import Bus
from mailyard.bus.filter import EventFilter
from mailyard.bus.live import KINDS
from mailyard.core import ids
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import Conflict, InvalidInput, NotFound
from mailyard.net.guard import Network
from mailyard.net.http import check_url
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load
from mailyard.webhooks.signing import new_secret

SQL = load("webhook")
LAST_ID = UUID(int=(1 << 128) - 1)

TOPIC = "webhooks"  # of the bus: endpoints have changed
WEBHOOKS_MAX = 100  # of a workspace
CONCURRENCY_MAX = 10
OVERLAP_S = 86_400.0  # for which a replaced secret still signs
OVERLAP_MAX_S = 30 * 86_400.0
SECRETS_MAX = 5  # that sign at once
URL_CHARACTERS = 2_000
NAME_CHARACTERS = 100
VALUE, REFERENCE = "value", "reference"
_COUNTED = 10_000


class Wish(msgspec.Struct, frozen=True):
    """What an endpoint should be. `payload`: the events whole, or their ids and where to ask."""

    name: str
    url: str
    filter: EventFilter
    payload: str = VALUE
    ordered: bool = False
    concurrency: int = 5


class Webhook(msgspec.Struct, frozen=True):
    """An endpoint as it stands, and how it fares. `disabled_why` empty: a person disabled it."""

    id: UUID
    workspace_id: UUID
    name: str
    url: str
    filter: EventFilter
    payload: str
    ordered: bool
    concurrency: int
    enabled: bool
    disabled_at: datetime | None
    disabled_why: str
    failures: int
    failing_since: datetime | None
    rests_until: datetime | None
    slow: bool
    told_at: datetime | None

    @property
    def created_at(self) -> datetime:
        return ids.time_of(self.id)

    @property
    def wish(self) -> Wish:
        return Wish(self.name, self.url, self.filter, self.payload, self.ordered, self.concurrency)


class Secret(msgspec.Struct, frozen=True):
    """What requests are signed with, until `expires_at` when it is being replaced."""

    id: UUID
    text: str
    expires_at: datetime | None


class Counts(msgspec.Struct, frozen=True):
    """How much is in an endpoint's line and how much is dead, each counted up to 10,000."""

    waiting: int
    dead: int


class Webhooks:
    """The endpoints of all workspaces. The caller writes the audit rows."""

    def __init__(
        self,
        *,
        database: Database,
        vault: Vault,
        bus: Bus,
        clock: Clock | None = None,
        allowed: tuple[Network, ...] = (),
    ) -> None:
        """`allowed`: networks that endpoints may be in although they are not public."""
        self._database = database
        self._vault = vault
        self._bus = bus
        self._clock = clock or SystemClock()
        self._allowed = allowed

    async def create(self, workspace_id: UUID, wish: Wish, tx: Connection) -> tuple[Webhook, str]:
        """A new endpoint, told of what happens from now on, and its secret.

        Raises InvalidInput naming the field, Conflict when there are too many.
        """
        wish = self._checked(wish)
        there = await self.page(workspace_id, limit=WEBHOOKS_MAX, tx=tx)
        if len(there) >= WEBHOOKS_MAX:
            raise Conflict(f"a workspace has at most {WEBHOOKS_MAX} webhooks; remove one first")
        webhook_id = ids.uuid7()
        await self._database.execute(
            SQL.add_webhook, workspace_id, webhook_id, *_columns(wish), tx=tx
        )
        secret = await self._add_secret(workspace_id, webhook_id, tx)
        return await self.get(workspace_id, webhook_id, tx), secret

    async def change(
        self, workspace_id: UUID, webhook_id: UUID, wish: Wish, tx: Connection
    ) -> Webhook:
        """Make it so; what waits in its line goes as the endpoint then is.

        Raises InvalidInput naming the field, NotFound.
        """
        wish = self._checked(wish)
        await self._database.execute(
            SQL.change_webhook, workspace_id, webhook_id, *_columns(wish), tx=tx
        )
        return await self.get(workspace_id, webhook_id, tx)

    async def enable(self, workspace_id: UUID, webhook_id: UUID, tx: Connection) -> Webhook:
        """Tell it again, of what happens from now on. What it missed can be replayed."""
        await self._database.execute(SQL.enable, workspace_id, webhook_id, self._clock.now(), tx=tx)
        return await self.get(workspace_id, webhook_id, tx)

    async def disable(self, workspace_id: UUID, webhook_id: UUID, tx: Connection) -> Webhook:
        """A person wants it told nothing more. What waits in its line stays there for days."""
        await self._database.fetchval(
            SQL.disable, workspace_id, webhook_id, "", self._clock.now(), tx=tx
        )
        return await self.get(workspace_id, webhook_id, tx)

    async def remove(self, workspace_id: UUID, webhook_id: UUID, tx: Connection) -> Webhook:
        """Take it away and return it. What waits in its line is told to nobody. Raises NotFound."""
        webhook = await self.get(workspace_id, webhook_id, tx)
        await self._database.execute(SQL.remove_webhook, workspace_id, webhook_id, tx=tx)
        await self._database.execute(SQL.remove_line, workspace_id, webhook_id, tx=tx)
        return webhook

    async def rotate(
        self, workspace_id: UUID, webhook_id: UUID, overlap_s: float, tx: Connection
    ) -> tuple[Webhook, str]:
        """A new secret; those before sign beside it for `overlap_s` seconds more.

        Raises NotFound, InvalidInput, Conflict when too many sign at once.
        """
        if not 0.0 <= overlap_s <= OVERLAP_MAX_S:
            raise InvalidInput(f"expected 0 to {OVERLAP_MAX_S:.0f} seconds", field="overlap_s")
        webhook = await self.get(workspace_id, webhook_id, tx)
        until = self._clock.now() + timedelta(seconds=overlap_s)
        await self._database.execute(SQL.expire_secrets, workspace_id, webhook_id, until, tx=tx)
        if overlap_s and len(await self.secrets(workspace_id, webhook_id, tx)) >= SECRETS_MAX:
            raise Conflict(
                f"{SECRETS_MAX} secrets sign at once already; rotate with overlap_s 0 to end them"
            )
        return webhook, await self._add_secret(workspace_id, webhook_id, tx)

    def changed(self) -> None:
        """Tell the workers, after the commit of a change."""
        self._bus.announce(TOPIC)

    async def get(
        self, workspace_id: UUID, webhook_id: UUID, tx: Connection | None = None
    ) -> Webhook:
        """One endpoint. Raises NotFound."""
        row = await self._database.fetchrow(SQL.webhook, workspace_id, webhook_id, tx=tx)
        if row is None:
            raise NotFound("no such webhook")
        return _webhook(row)

    async def page(
        self,
        workspace_id: UUID,
        *,
        before: UUID | None = None,
        limit: int = 100,
        tx: Connection | None = None,
    ) -> Sequence[Webhook]:
        """Endpoints, newest first, with ids below `before`."""
        rows = await self._database.fetch(
            SQL.webhooks, workspace_id, before or LAST_ID, limit, tx=tx
        )
        return [_webhook(row) for row in rows]

    async def counts(self, workspace_id: UUID, webhook_ids: Sequence[UUID]) -> dict[UUID, Counts]:
        """How much waits for each and how much is dead."""
        rows = await self._database.fetch(SQL.counts, workspace_id, webhook_ids, _COUNTED)
        return {row["id"]: Counts(row["waiting"], row["dead"]) for row in rows}

    async def secrets(
        self, workspace_id: UUID, webhook_id: UUID, tx: Connection | None = None
    ) -> Sequence[Secret]:
        """What its requests are signed with now, the newest first."""
        rows = await self._database.fetch(
            SQL.secrets, workspace_id, webhook_id, self._clock.now(), tx=tx
        )
        return [
            Secret(
                row["id"],
                self._vault.open(row["sealed_secret"], row["id"].bytes).decode(),
                row["expires_at"],
            )
            for row in rows
        ]

    async def seal_anew(self, limit: int = 100) -> int:
        """Seal up to `limit` secrets, of all workspaces, under the newest master key; how many were
        under an older one. Raises ConfigurationError when that is not here any more."""
        rows = await self._database.fetch(SQL.sealed_otherwise, self._vault.newest, limit)
        if rows:
            stale = [row["sealed_secret"] for row in rows]
            opened = [self._vault.open(row["sealed_secret"], row["id"].bytes) for row in rows]
            fresh = [
                self._vault.seal(secret, row["id"].bytes)
                for secret, row in zip(opened, rows, strict=True)
            ]
            await self._database.execute(SQL.seal_anew, [row["id"] for row in rows], stale, fresh)
        return len(rows)

    async def sweep(self) -> None:
        """Forget secrets that were replaced."""
        await self._database.execute(SQL.sweep_secrets, self._clock.now())

    # -----------------------------------------------------------------------------------------

    async def _add_secret(self, workspace_id: UUID, webhook_id: UUID, tx: Connection) -> str:
        secret, secret_id = new_secret(), ids.uuid7()
        sealed = self._vault.seal(secret.encode(), secret_id.bytes)
        await self._database.execute(
            SQL.add_secret, workspace_id, webhook_id, secret_id, sealed, tx=tx
        )
        return secret

    def _checked(self, wish: Wish) -> Wish:
        name, url = wish.name.strip(), wish.url.strip()
        if not 1 <= len(name) <= NAME_CHARACTERS or not name.isprintable():
            raise InvalidInput(f"a name has 1 to {NAME_CHARACTERS} characters", field="name")
        if len(url) > URL_CHARACTERS:
            raise InvalidInput(f"a URL has at most {URL_CHARACTERS} characters", field="url")
        check_url(url, self._allowed)
        if not wish.filter.kinds:
            raise InvalidInput(f"choose among {', '.join(KINDS)}", field="kinds")
        for kind in wish.filter.kinds:
            if kind not in KINDS:
                raise InvalidInput(
                    f"no kind {kind[:60]!r}; kinds: {', '.join(KINDS)}", field="kinds"
                )
        if wish.payload not in (VALUE, REFERENCE):
            raise InvalidInput(f"expected {VALUE} or {REFERENCE}", field="payload")
        if not 1 <= wish.concurrency <= CONCURRENCY_MAX:
            raise InvalidInput(f"expected 1 to {CONCURRENCY_MAX}", field="concurrency")
        return msgspec.structs.replace(wish, name=name, url=url)


def told(webhook: Webhook) -> dict[str, Any]:
    """An endpoint as the audit log keeps it; of the address, its query may be a secret."""
    shown = urlsplit(webhook.url)._replace(query="", fragment="").geturl()
    return {
        "name": webhook.name,
        "url": shown,
        "filter": msgspec.to_builtins(webhook.filter),
        "payload": webhook.payload,
        "ordered": webhook.ordered,
        "concurrency": webhook.concurrency,
        "enabled": webhook.enabled,
    }


def _columns(wish: Wish) -> tuple[Any, ...]:
    return (
        wish.name,
        wish.url,
        list(wish.filter.kinds),
        msgspec.json.encode(wish.filter).decode(),
        wish.payload,
        wish.ordered,
        wish.concurrency,
    )


def _webhook(row: asyncpg.Record) -> Webhook:
    values = dict(row)
    values["filter"] = msgspec.json.decode(values["filter"], type=EventFilter)
    return Webhook(**values)
