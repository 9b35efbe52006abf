"""API keys: `my_<prefix>_<secret>`.

The prefix finds the row, SHA-256 of the whole key proves it (the secret has 240 random bits, so a
slow hash would protect nothing and cost every request). A key is shown once. What was found is
kept in the process for `KEY_CACHE_S`, so that a known key costs no round trip: **a revoked key
stops working within two seconds in every process, and at once in the one that revoked it.**
"""

import asyncio
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from uuid import UUID

from mailyard.access.audit import Actor, Audit
from mailyard.access.scope import check_scopes, expand
from mailyard.access.workspace import check_name
from mailyard.core import ids
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import NotFound
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("access")

KEY_CACHE_S = 2.0
KEY_CACHE_ENTRIES = 10_000
_PREFIX_CHARACTERS = 10
_SECRET_CHARACTERS = 48
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_SHAPE = re.compile(r"my_([0-9a-z]{10})_[0-9a-z]{48}", re.ASCII)
_LAST = UUID(int=(1 << 128) - 1)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is listed: everything but the secret."""

    id: UUID
    name: str
    prefix: str
    scopes: tuple[str, ...]
    created_at: datetime
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """A key just made. `secret` is the whole key and is never shown again."""

    key: ApiKey
    secret: str


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """Who a good key is: its workspace and what it may do (scopes expanded)."""

    key_id: UUID
    workspace_id: UUID
    actor: Actor
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Known:
    holder: KeyHolder | None
    secret_hash: bytes
    until: float


def _random_text(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


class ApiKeys:
    """Makes, lists, revokes and recognises keys."""

    def __init__(self, *, database: Database, audit: Audit, clock: Clock | None = None) -> None:
        self._database = database
        self._audit = audit
        self._clock = clock or SystemClock()
        self._known: dict[str, _Known] = {}
        self._asking: dict[str, asyncio.Future[_Known]] = {}

    async def create(
        self,
        workspace_id: UUID,
        name: str,
        scopes: list[str],
        *,
        actor: Actor,
        tx: Connection | None = None,
    ) -> NewApiKey:
        """A new key with these scopes. Raises InvalidInput for an unknown scope."""
        if tx is None:
            async with self._database.transaction() as own:
                return await self.create(workspace_id, name, scopes, actor=actor, tx=own)
        name, scopes = check_name(name), check_scopes(scopes)
        prefix = _random_text(_PREFIX_CHARACTERS)
        secret = f"my_{prefix}_{_random_text(_SECRET_CHARACTERS)}"
        key_id = ids.uuid7()
        created_at = await self._database.fetchval(
            _SQL.add_key,
            key_id,
            workspace_id,
            name,
            prefix,
            sha256(secret.encode()).digest(),
            scopes,
            tx=tx,
        )
        await self._audit.record(
            actor,
            "key.create",
            ids.type_id(ids.API_KEY, key_id),
            None,
            {"name": name, "prefix": prefix, "scopes": scopes},
            tx,
        )
        return NewApiKey(ApiKey(key_id, name, prefix, tuple(scopes), created_at, None), secret)

    async def list(
        self, workspace_id: UUID, *, before_id: UUID = _LAST, limit: int = 100
    ) -> list[ApiKey]:
        """Keys of the workspace, newest first, revoked ones included."""
        rows = await self._database.fetch(_SQL.list_keys, workspace_id, before_id, limit)
        return [
            ApiKey(
                row["id"],
                row["name"],
                row["prefix"],
                tuple(row["scopes"]),
                row["created_at"],
                row["revoked_at"],
            )
            for row in rows
        ]

    async def get(self, workspace_id: UUID, key_id: UUID) -> ApiKey:
        """One key of the workspace. Raises NotFound."""
        row = await self._database.fetchrow(_SQL.get_key, workspace_id, key_id)
        if row is None:
            raise NotFound("no such key")
        return ApiKey(
            row["id"],
            row["name"],
            row["prefix"],
            tuple(row["scopes"]),
            row["created_at"],
            row["revoked_at"],
        )

    async def revoke(self, workspace_id: UUID, key_id: UUID, *, actor: Actor) -> ApiKey:
        """End a key; a second time changes nothing. Raises NotFound."""
        async with self._database.transaction() as tx:
            row = await self._database.fetchrow(_SQL.revoke_key, workspace_id, key_id, tx=tx)
            if row is not None:
                await self._audit.record(
                    actor,
                    "key.revoke",
                    ids.type_id(ids.API_KEY, key_id),
                    {"name": row["name"], "prefix": row["prefix"]},
                    None,
                    tx,
                )
        if row is not None:
            self._known.pop(row["prefix"], None)
        return await self.get(workspace_id, key_id)

    async def authenticate(self, text: str) -> KeyHolder | None:
        """Whose key this is, or None. No round trip for a key that was seen within two seconds."""
        shape = _SHAPE.fullmatch(text)
        if shape is None:
            return None
        prefix = shape[1]
        known = self._known.get(prefix)
        if known is None or known.until <= self._clock.monotonic():
            known = await self._ask(prefix)
        hashed = sha256(text.encode()).digest()
        return known.holder if hmac.compare_digest(hashed, known.secret_hash) else None

    async def _ask(self, prefix: str) -> _Known:
        """Read the key's row; many requests that ask at once share one read."""
        asking = self._asking.get(prefix)
        if asking is not None:
            return await asyncio.shield(asking)
        future: asyncio.Future[_Known] = asyncio.get_running_loop().create_future()
        self._asking[prefix] = future
        try:
            known = await self._read(prefix)
        except BaseException as error:
            future.set_exception(error if isinstance(error, Exception) else ConnectionError())
            future.exception()  # seen: who waits raises its own copy
            raise
        else:
            future.set_result(known)
        finally:
            del self._asking[prefix]
        if len(self._known) >= KEY_CACHE_ENTRIES:
            self._known.clear()
        self._known[prefix] = known
        return known

    async def _read(self, prefix: str) -> _Known:
        # The time is taken before the read: the two seconds count from what the database said.
        until = self._clock.monotonic() + KEY_CACHE_S
        row = await self._database.fetchrow(_SQL.find_key, prefix)
        if row is None:
            return _Known(None, b"", until)
        name = ids.type_id(ids.API_KEY, row["id"])
        holder = KeyHolder(
            key_id=row["id"],
            workspace_id=row["workspace_id"],
            actor=Actor("key", name, row["workspace_id"]),
            scopes=expand(row["scopes"]),
        )
        return _Known(holder, row["secret_hash"], until)
