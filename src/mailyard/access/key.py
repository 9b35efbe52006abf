"""API keys: `my_<prefix>_<secret>`.

The prefix finds the row, SHA-256 of the whole key proves it (the secret has 240 random bits, so a
slow hash would protect nothing and cost every request). A key is shown once. What was found is
kept in the cache, which looks for changes four times a second, so that a known key costs no round
trip. **Whoever revokes a key is answered when it works in no process any more.**
"""

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
from mailyard.cache.kind import KEY
from mailyard.cache.layered import LayeredCache
from mailyard.core import ids
from mailyard.core.errors import NotFound
from mailyard.storage.database import Connection, Database
from mailyard.storage.names import KEY as KEY_NAME
from mailyard.storage.names import Names
from mailyard.storage.queries import load

_SQL = load("access")

_PREFIX_CHARACTERS = 10
_SECRET_CHARACTERS = 48
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_SHAPE = re.compile(r"my_([0-9a-z]{10})_[0-9a-z]{48}", re.ASCII)
_LAST = UUID(int=(1 << 128) - 1)
_ANY = UUID(int=0)  # a key is looked for before its workspace is known


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
    holder: KeyHolder
    secret_hash: bytes


def _random_text(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def prefix_of(text: str) -> str | None:
    """The part of a key that its row is found by; None for what is no key."""
    shape = _SHAPE.fullmatch(text)
    return None if shape is None else shape[1]


class ApiKeys:
    """Makes, lists, revokes and recognises keys."""

    def __init__(
        self,
        *,
        database: Database,
        audit: Audit,
        cache: LayeredCache | None = None,
        names: Names | None = None,
    ) -> None:
        """`names`: where there are several database clusters."""
        self._database = database
        self._audit = audit
        self._cache = cache
        self._names = names

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
        if self._names is not None:
            await self._names.note(KEY_NAME, prefix, workspace_id, tx)
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
                if self._cache is not None:
                    await self._cache.change(_ANY, [_tag(row["prefix"])], tx)
        if row is not None and self._cache is not None:
            self._cache.changed(_ANY, [_tag(row["prefix"])])
            await self._cache.everybody_has_heard()
        return await self.get(workspace_id, key_id)

    async def authenticate(self, text: str) -> KeyHolder | None:
        """Whose key this is, or None. No round trip for a key that was seen a moment ago."""
        prefix = prefix_of(text)
        if prefix is None:
            return None

        async def read() -> _Known:
            return await self._read(prefix)

        try:
            if self._cache is None:
                known = await read()
            else:
                known = await self._cache.get_or_make(KEY, _ANY, prefix, read, [_tag(prefix)])
        except NotFound:
            return None
        hashed = sha256(text.encode()).digest()
        return known.holder if hmac.compare_digest(hashed, known.secret_hash) else None

    async def _read(self, prefix: str) -> _Known:
        row = await self._database.fetchrow(_SQL.find_key, prefix)
        if row is None:
            raise NotFound("no such key")  # and so not kept: strangers fill no cache
        name = ids.type_id(ids.API_KEY, row["id"])
        holder = KeyHolder(
            key_id=row["id"],
            workspace_id=row["workspace_id"],
            actor=Actor("key", name, row["workspace_id"]),
            scopes=expand(row["scopes"]),
        )
        return _Known(holder, row["secret_hash"])


def _tag(prefix: str) -> str:
    return f"key:{prefix}"
