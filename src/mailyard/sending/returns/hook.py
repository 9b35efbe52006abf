"""Where a provider sends its events to: `/v1/hooks/{kind}/{token}`.

The token finds the endpoint and is shown once; what proves the sender is the endpoint's secret
(`hooks.kinds`), which is sealed. Endpoints are remembered for `REMEMBERED_S`: so long may one that
was removed still take events, which are then applied to nothing.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from uuid import UUID

import asyncpg

from mailyard.access.vault import Vault
from mailyard.core import ids
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import InvalidInput, NotFound
from mailyard.sending.returns.hooks.kinds import kind_of
from mailyard.storage.database import Connection, Database
from mailyard.storage.names import HOOK, Names
from mailyard.storage.queries import load

_SQL = load("provider_hook")
_LAST_ID = UUID(int=(1 << 128) - 1)

REMEMBERED_S = 5.0
_REMEMBERED = 10_000
_SWEPT = 20_000  # rows of one statement
_TOKEN_BYTES = 24
_SECRET_BYTES = 2_000
_NAME_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class ProviderHook:
    """An endpoint, without its token and secret."""

    id: UUID
    workspace_id: UUID
    kind: str
    name: str
    confirmed_at: datetime | None

    @property
    def created_at(self) -> datetime:
        return ids.time_of(self.id)


@dataclass(frozen=True, slots=True)
class NewProviderHook:
    """An endpoint that was just made; `token` is the last part of its address, shown once."""

    hook: ProviderHook
    token: str


@dataclass(frozen=True, slots=True)
class OpenHook:
    """An endpoint as it is used: with what its signatures are checked with."""

    id: UUID
    workspace_id: UUID
    kind: str
    secret: str


class ProviderHooks:
    """The endpoints of all workspaces. The caller writes the audit rows."""

    def __init__(
        self,
        *,
        database: Database,
        vault: Vault,
        clock: Clock | None = None,
        names: Names | None = None,
    ) -> None:
        """`names`: where there are several database clusters."""
        self._names = names
        self._database = database
        self._vault = vault
        self._clock = clock or SystemClock()
        self._known: dict[bytes, tuple[float, OpenHook]] = {}

    async def create(
        self, workspace_id: UUID, kind: str, name: str, secret: str, tx: Connection
    ) -> NewProviderHook:
        """A new endpoint. Raises InvalidInput naming the field."""
        name, secret = name.strip(), secret.strip()
        if not 1 <= len(name) <= _NAME_CHARACTERS or not name.isprintable():
            raise InvalidInput(f"a name has 1 to {_NAME_CHARACTERS} characters", field="name")
        kind_of(kind).check_secret(secret)
        hook_id, token = ids.uuid7(), secrets.token_urlsafe(_TOKEN_BYTES)
        sealed = self._seal(hook_id, secret)
        await self._database.execute(
            _SQL.add_hook, workspace_id, hook_id, kind, name, _hash(token), sealed, tx=tx
        )
        if self._names is not None:
            await self._names.note(HOOK, _hash(token).hex(), workspace_id, tx)
        return NewProviderHook(ProviderHook(hook_id, workspace_id, kind, name, None), token)

    async def change_secret(
        self, workspace_id: UUID, hook_id: UUID, secret: str, tx: Connection
    ) -> ProviderHook:
        """Give an endpoint another secret: the provider's was changed. Raises NotFound."""
        hook = await self.get(workspace_id, hook_id, tx)
        kind_of(hook.kind).check_secret(secret.strip())
        sealed = self._seal(hook_id, secret.strip())
        await self._database.execute(_SQL.set_secret, workspace_id, hook_id, sealed, tx=tx)
        self._known.clear()
        return hook

    async def get(
        self, workspace_id: UUID, hook_id: UUID, tx: Connection | None = None
    ) -> ProviderHook:
        """One endpoint. Raises NotFound."""
        row = await self._database.fetchrow(_SQL.get_hook, workspace_id, hook_id, tx=tx)
        if row is None:
            raise NotFound("no such address for a provider's events")
        return ProviderHook(*row)

    async def page(
        self, workspace_id: UUID, *, before: UUID | None = None, limit: int = 100
    ) -> Sequence[ProviderHook]:
        """Endpoints, newest first, with ids below `before`."""
        rows = await self._database.fetch(_SQL.list_hooks, workspace_id, before or _LAST_ID, limit)
        return [ProviderHook(*row) for row in rows]

    async def remove(self, workspace_id: UUID, hook_id: UUID, tx: Connection) -> ProviderHook:
        """Take an endpoint away and return it. Raises NotFound."""
        row = await self._database.fetchrow(_SQL.remove_hook, workspace_id, hook_id, tx=tx)
        if row is None:
            raise NotFound("no such address for a provider's events")
        self._known.clear()
        return ProviderHook(*row)

    async def confirmed(self, workspace_id: UUID, hook_id: UUID) -> None:
        """A provider's subscription to the endpoint stands."""
        await self._database.execute(_SQL.confirm_hook, workspace_id, hook_id)

    async def find(self, kind: str, token: str) -> OpenHook:
        """The endpoint behind an address. Raises NotFound."""
        hashed = _hash(token)
        now = self._clock.monotonic()
        known = self._known.get(hashed)
        if known is None or known[0] <= now:
            row: asyncpg.Record | None = await self._database.fetchrow(_SQL.find_hook, hashed)
            if row is None:
                self._known.pop(hashed, None)
                raise NotFound("there is no such address for a provider's events")
            secret = self._vault.open(row["sealed_secret"], row["id"].bytes).decode()
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            hook = OpenHook(row["id"], row["workspace_id"], row["kind"], secret)
            known = self._known[hashed] = (now + REMEMBERED_S, hook)
        if known[1].kind != kind:
            raise NotFound("there is no such address for a provider's events")
        return known[1]

    async def seal_anew(self, limit: int = 100) -> int:
        """Seal up to `limit` secrets, of all workspaces, under the newest master key; how many were
        under an older one. Raises ConfigurationError when that is not here any more."""
        rows = await self._database.fetch(_SQL.sealed_otherwise, self._vault.newest, limit)
        if rows:
            opened = [self._vault.open(row["sealed_secret"], row["id"].bytes) for row in rows]
            await self._database.execute(
                _SQL.seal_anew,
                [row["id"] for row in rows],
                [row["sealed_secret"] for row in rows],
                [
                    self._vault.seal(secret, row["id"].bytes)
                    for secret, row in zip(opened, rows, strict=True)
                ],
            )
        return len(rows)

    async def sweep(self) -> None:
        """Forget signatures that are too old to be taken."""
        while await self._database.fetchval(_SQL.sweep_seen, self._clock.now(), _SWEPT) == _SWEPT:
            pass

    def _seal(self, hook_id: UUID, secret: str) -> bytes:
        encoded = secret.encode()
        if len(encoded) > _SECRET_BYTES:
            raise InvalidInput(f"a secret has at most {_SECRET_BYTES} bytes", field="secret")
        return self._vault.seal(encoded, hook_id.bytes)


def _hash(token: str) -> bytes:
    return sha256(token.encode("utf-8", "replace")).digest()
