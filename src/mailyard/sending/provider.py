"""Providers: the ways out that a workspace has been given, with secrets that are never shown again.

A provider belongs to the workspace that made it. The operator may share one of the installation's
own workspace with all others. A name stands in the history of deliveries for ever, so it is never
changed and never given to another provider, not even after its own is gone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from mailyard.access.vault import Vault
from mailyard.bus.bus import Bus
from mailyard.core import ids
from mailyard.core.errors import Conflict, InvalidInput, NotFound
from mailyard.sending.transports.kinds import Opened, checked
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("provider")
_LAST_ID = UUID(int=(1 << 128) - 1)

TOPIC = "providers"  # on the bus: providers or routes have changed
RELAY = "relay"  # the way out of the settings, which is on no list
_OWN_NAMES = (RELAY, "mx")  # what the way out of the settings calls itself
NAME_CHARACTERS = 64
PROVIDERS_MAX = 100  # of one workspace


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider as its owner sees it: `secrets` are the names of those that are set."""

    id: UUID
    workspace_id: UUID
    shared: bool
    name: str
    kind: str
    settings: dict[str, Any]
    secrets: tuple[str, ...]
    enabled: bool
    revision: int


@dataclass(frozen=True, slots=True)
class NewProvider:
    """What is wanted. `shared` is for the operator alone, which the caller has checked."""

    name: str
    kind: str
    settings: Mapping[str, Any]
    secrets: Mapping[str, str]
    shared: bool = False


@dataclass(frozen=True, slots=True)
class ProviderChange:
    """What is to change; None leaves it. Settings are given whole, secrets one by one."""

    settings: Mapping[str, Any] | None = None
    secrets: Mapping[str, str] | None = None
    enabled: bool | None = None


class ProviderBook:
    """The providers of all workspaces. The caller writes the audit rows, and says `changed` once
    its transaction has committed."""

    def __init__(self, *, database: Database, vault: Vault, bus: Bus) -> None:
        self._database = database
        self._vault = vault
        self._bus = bus

    def changed(self) -> None:
        """Have every worker look again."""
        self._bus.announce(TOPIC)

    async def create(self, workspace_id: UUID, wanted: NewProvider, tx: Connection) -> Provider:
        """Add a provider. Raises InvalidInput naming the field, Conflict for a name in use."""
        name = _checked_name(wanted.name)
        settings = checked(wanted.kind, wanted.settings, wanted.secrets)
        await self._database.execute(_SQL.hold_names, tx=tx)
        await self._claim(workspace_id, name, wanted.shared, tx)
        there = await self._database.fetchval(_SQL.count_providers, workspace_id, tx=tx)
        if there >= PROVIDERS_MAX:
            raise Conflict(f"a workspace has at most {PROVIDERS_MAX} providers")
        provider_id = ids.uuid7()
        await self._database.execute(
            _SQL.add_provider,
            workspace_id,
            provider_id,
            wanted.shared,
            name,
            wanted.kind,
            msgspec.json.encode(settings).decode(),
            sorted(wanted.secrets),
            self._sealed(provider_id, wanted.secrets),
            tx=tx,
        )
        return await self.get(workspace_id, provider_id, tx)

    async def get(
        self, workspace_id: UUID, provider_id: UUID, tx: Connection | None = None
    ) -> Provider:
        """One that the workspace may use. Raises NotFound."""
        return _shown(await self._row(workspace_id, provider_id, tx), workspace_id)

    async def page(
        self, workspace_id: UUID, *, before: UUID | None = None, limit: int = 100
    ) -> Sequence[Provider]:
        """Those that the workspace may use, newest first, with ids below `before`."""
        rows = await self._database.fetch(
            _SQL.list_providers, workspace_id, before or _LAST_ID, limit
        )
        return [_shown(row, workspace_id) for row in rows]

    async def change(
        self, workspace_id: UUID, provider_id: UUID, change: ProviderChange, tx: Connection
    ) -> Provider:
        """Change one of the workspace's own. Raises NotFound, InvalidInput."""
        await self._database.execute(_SQL.hold_names, tx=tx)
        row = await self._row(workspace_id, provider_id, tx)
        _own(row, workspace_id)
        opened = open_provider(self._vault, row)
        secrets = {**opened.secrets, **(change.secrets or {})}
        settings = opened.settings if change.settings is None else change.settings
        whole = checked(opened.kind, settings, secrets)
        enabled = row["enabled"] if change.enabled is None else change.enabled
        await self._database.execute(
            _SQL.change_provider,
            workspace_id,
            provider_id,
            msgspec.json.encode(whole).decode(),
            sorted(secrets),
            self._sealed(provider_id, secrets),
            enabled,
            tx=tx,
        )
        return await self.get(workspace_id, provider_id, tx)

    async def remove(self, workspace_id: UUID, provider_id: UUID, tx: Connection) -> Provider:
        """Take one of the workspace's own away. Raises NotFound, Conflict while a route has it."""
        await self._database.execute(_SQL.hold_names, tx=tx)
        row = await self._row(workspace_id, provider_id, tx)
        _own(row, workspace_id)
        using = await self._database.fetch(
            _SQL.routes_using, workspace_id, row["name"], row["shared"], tx=tx
        )
        if using:
            own = [one["name"] for one in using if one["workspace_id"] == workspace_id]
            where = f"the route {own[0]!r}" if own else "a route of another workspace"
            raise Conflict(f"{row['name']} is on {where}; take it off the routes first")
        await self._database.execute(_SQL.remove_provider, workspace_id, provider_id, tx=tx)
        return _shown(row, workspace_id)

    async def open(self, workspace_id: UUID, provider_id: UUID) -> Opened:
        """One that the workspace may use, with its secrets, to send through it. Raises NotFound,
        ConfigurationError when the master key is not here."""
        return open_provider(self._vault, await self._row(workspace_id, provider_id))

    async def seal_anew(self, limit: int = 100) -> int:
        """Seal up to `limit` secrets, of all workspaces, under the newest master key; how many were
        under an older one. Raises ConfigurationError when that is not here any more."""
        if not await self._database.fetchval(_SQL.any_sealed):
            return 0
        rows = await self._database.fetch(_SQL.sealed_otherwise, self._vault.newest, limit)
        if rows:
            sealed = [row["sealed_secrets"] for row in rows]
            subjects = [row["id"].bytes for row in rows]
            anew = [
                self._vault.seal(self._vault.open(one, subject), subject)
                for one, subject in zip(sealed, subjects, strict=True)
            ]
            await self._database.execute(_SQL.seal_anew, [row["id"] for row in rows], sealed, anew)
        return len(rows)

    async def _row(
        self, workspace_id: UUID, provider_id: UUID, tx: Connection | None = None
    ) -> asyncpg.Record:
        row = await self._database.fetchrow(_SQL.get_provider, workspace_id, provider_id, tx=tx)
        if row is None:
            raise NotFound("no such provider")
        return row

    async def _claim(self, workspace_id: UUID, name: str, shared: bool, tx: Connection) -> None:
        for one in await self._database.fetch(_SQL.names_like, workspace_id, name, shared, tx=tx):
            if one["workspace_id"] == workspace_id and one["removed_at"] is not None:
                raise Conflict(
                    f"{name!r} was a provider's name, and the history of mails speaks of it; "
                    "take another",
                    field="name",
                )
            raise Conflict(f"{name!r} is taken", field="name")

    def _sealed(self, provider_id: UUID, secrets: Mapping[str, str]) -> bytes | None:
        if not secrets:
            return None
        return self._vault.seal(msgspec.json.encode(dict(secrets)), provider_id.bytes)


def open_provider(vault: Vault, row: asyncpg.Record) -> Opened:
    """A row of `provider` for who makes its transport. Raises ConfigurationError when the master
    key that sealed its secrets is not here."""
    secrets: dict[str, str] = {}
    if row["sealed_secrets"] is not None:
        text = vault.open(row["sealed_secrets"], row["id"].bytes)
        secrets = msgspec.json.decode(text, type=dict[str, str])
    return Opened(
        id=row["id"],
        workspace_id=row["workspace_id"],
        shared=row["shared"],
        name=row["name"],
        kind=row["kind"],
        settings=msgspec.json.decode(row["settings"]),
        secrets=secrets,
    )


def _shown(row: asyncpg.Record, workspace_id: UUID) -> Provider:
    """What the workspace may see of it: of a shared one that it is there."""
    own = row["workspace_id"] == workspace_id
    return Provider(
        id=row["id"],
        workspace_id=row["workspace_id"],
        shared=row["shared"],
        name=row["name"],
        kind=row["kind"],
        settings=msgspec.json.decode(row["settings"]) if own else {},
        secrets=tuple(row["secret_names"]) if own else (),
        enabled=row["enabled"],
        revision=row["revision"],
    )


def _own(row: asyncpg.Record, workspace_id: UUID) -> None:
    if row["workspace_id"] != workspace_id:
        raise Conflict(f"{row['name']} is the installation's; its operator changes it")


def _checked_name(name: str) -> str:
    plain = name.isascii() and all(one.isalnum() or one in "-._" for one in name)
    if not 0 < len(name) <= NAME_CHARACTERS or not plain or name != name.lower():
        raise InvalidInput(
            f"a name has 1 to {NAME_CHARACTERS} of a-z, 0-9, '-', '.' and '_'", field="name"
        )
    if name in _OWN_NAMES:
        raise InvalidInput(f"{name!r} is the way out of the settings; take another", field="name")
    return name
