"""The models that a workspace has, in the order in which they are asked. Keys are sealed and never
shown again."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import asyncpg
import msgspec
from msgspec import Struct

from mailyard.access.vault import Vault
from mailyard.core import ids
from mailyard.core.errors import Conflict, InvalidInput, NotFound
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("analysis")

MODELS_MAX = 20  # of one workspace
NAME_CHARACTERS = 64
KEY_CHARACTERS = 4_096
KINDS = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
}

Structured = Literal["schema", "object", "none"]


class ModelSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How a model is asked. Prices are money for a million tokens; limits of 0 are none.

    `structured`: how the server is told of the answer's schema (`object`: JSON of any shape); it is
    told in words in any case, and the answer is checked in any case. `concurrency` is of one worker
    process, the limits a minute are of all together.
    """

    model: str
    base_url: str = ""
    structured: Structured = "schema"
    timeout_s: float = 30.0
    max_output_tokens: int = 2_000
    concurrency: int = 4
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    input_price: float = 0.0
    output_price: float = 0.0

    def micros(self, input_tokens: int, output_tokens: int) -> int:
        """What so many tokens cost, in millionths of the money, rounded up."""
        cost = input_tokens * self.input_price + output_tokens * self.output_price
        return -int(-cost // 1)


class ModelEntry(Struct, frozen=True):
    """A model as its owner sees it."""

    id: UUID
    name: str
    kind: str
    place: int
    settings: ModelSettings
    has_key: bool
    enabled: bool
    resting_until: datetime | None
    why: str


class OpenModel(Struct, frozen=True):
    """A model with its key, to be asked."""

    entry: ModelEntry
    key: str


class NewModel(Struct, frozen=True):
    """What is wanted."""

    name: str
    kind: str
    settings: dict[str, Any]
    key: str = ""
    place: int = 100


class ModelChange(Struct, frozen=True):
    """What is to change; None leaves it. Settings are given whole."""

    settings: dict[str, Any] | None = None
    key: str | None = None
    place: int | None = None
    enabled: bool | None = None


class ModelBook:
    """The models of all workspaces. `plain_http`: servers in one's own networks may be without TLS.

    The caller writes the audit rows.
    """

    def __init__(self, *, database: Database, vault: Vault, plain_http: bool = False) -> None:
        self._database = database
        self._vault = vault
        self._plain_http = plain_http

    async def create(self, workspace_id: UUID, wanted: NewModel, tx: Connection) -> ModelEntry:
        """Add a model. Raises InvalidInput naming the field, Conflict."""
        _check_name(wanted.name)
        if wanted.kind not in KINDS:
            raise InvalidInput(f"a kind is one of {', '.join(KINDS)}", field="kind")
        settings = self._checked(wanted.kind, wanted.settings)
        await self._database.fetch(_SQL.hold_models, workspace_id, tx=tx)
        there = await self._database.fetch(_SQL.list_models, workspace_id, tx=tx)
        if any(row["name"] == wanted.name for row in there):
            raise Conflict(f"{wanted.name!r} is taken", field="name")
        if len(there) >= MODELS_MAX:
            raise Conflict(f"a workspace has at most {MODELS_MAX} models")
        model_id = ids.uuid7()
        await self._database.execute(
            _SQL.add_model,
            workspace_id,
            model_id,
            wanted.name,
            wanted.kind,
            _place(wanted.place),
            msgspec.json.encode(settings).decode(),
            self._sealed(model_id, wanted.key),
            tx=tx,
        )
        return await self.get(workspace_id, model_id, tx)

    async def get(
        self, workspace_id: UUID, model_id: UUID, tx: Connection | None = None
    ) -> ModelEntry:
        """Raises NotFound."""
        return _entry(await self._row(workspace_id, model_id, tx))

    async def list(self, workspace_id: UUID) -> Sequence[ModelEntry]:
        """In the order in which they are asked."""
        return [_entry(row) for row in await self._database.fetch(_SQL.list_models, workspace_id)]

    async def open_enabled(self, workspace_id: UUID) -> Sequence[OpenModel]:
        """Those that may be asked, with their keys. Raises ConfigurationError when the master key
        is not here."""
        rows = await self._database.fetch(_SQL.list_models, workspace_id)
        return [self._open(row) for row in rows if row["enabled"]]

    async def any_enabled(self, workspace_id: UUID) -> bool:
        """Whether there is one that may be asked."""
        return any(one.enabled for one in await self.list(workspace_id))

    async def open(self, workspace_id: UUID, model_id: UUID) -> OpenModel:
        """Raises NotFound, ConfigurationError."""
        return self._open(await self._row(workspace_id, model_id, None))

    async def change(
        self, workspace_id: UUID, model_id: UUID, change: ModelChange, tx: Connection
    ) -> ModelEntry:
        """Raises NotFound, InvalidInput."""
        await self._database.fetch(_SQL.hold_models, workspace_id, tx=tx)
        row = await self._row(workspace_id, model_id, tx)
        settings = msgspec.json.decode(row["settings"], type=ModelSettings)
        if change.settings is not None:
            settings = self._checked(row["kind"], change.settings)
        sealed = row["sealed_key"] if change.key is None else self._sealed(model_id, change.key)
        await self._database.execute(
            _SQL.change_model,
            workspace_id,
            model_id,
            row["place"] if change.place is None else _place(change.place),
            msgspec.json.encode(settings).decode(),
            sealed,
            row["enabled"] if change.enabled is None else change.enabled,
            tx=tx,
        )
        return await self.get(workspace_id, model_id, tx)

    async def remove(self, workspace_id: UUID, model_id: UUID, tx: Connection) -> ModelEntry:
        """Take a model away, as it was. Raises NotFound."""
        entry = await self.get(workspace_id, model_id, tx)
        await self._database.execute(_SQL.remove_model, workspace_id, model_id, tx=tx)
        return entry

    async def seal_anew(self, limit: int = 100) -> int:
        """Seal up to `limit` keys under the newest master key; how many were under an older one.

        Raises ConfigurationError when that is not here any more.
        """
        if not await self._database.fetchval(_SQL.any_sealed):
            return 0
        rows = await self._database.fetch(_SQL.sealed_otherwise, self._vault.newest, limit)
        if rows:
            sealed = [row["sealed_key"] for row in rows]
            anew = [
                self._vault.seal(
                    self._vault.open(row["sealed_key"], row["id"].bytes), row["id"].bytes
                )
                for row in rows
            ]
            await self._database.execute(_SQL.seal_anew, [row["id"] for row in rows], sealed, anew)
        return len(rows)

    async def _row(
        self, workspace_id: UUID, model_id: UUID, tx: Connection | None
    ) -> asyncpg.Record:
        row = await self._database.fetchrow(_SQL.get_model, workspace_id, model_id, tx=tx)
        if row is None:
            raise NotFound("no such model")
        return row

    def _open(self, row: asyncpg.Record) -> OpenModel:
        key = ""
        if row["sealed_key"] is not None:
            key = self._vault.open(row["sealed_key"], row["id"].bytes).decode()
        return OpenModel(_entry(row), key)

    def _sealed(self, model_id: UUID, key: str) -> bytes | None:
        if not key:
            return None
        if len(key) > KEY_CHARACTERS or not key.isascii() or not key.isprintable():
            raise InvalidInput("a key is one line of plain characters", field="key")
        return self._vault.seal(key.encode(), model_id.bytes)

    def _checked(self, kind: str, settings: dict[str, Any]) -> ModelSettings:
        try:
            checked = msgspec.convert(settings, ModelSettings)
        except msgspec.ValidationError as error:
            raise InvalidInput(str(error), field="settings") from None
        if not 1 <= len(checked.model) <= 200 or not checked.model.isprintable():
            raise InvalidInput("the server's name for the model", field="settings.model")
        base_url = checked.base_url or KINDS[kind]
        if not base_url.startswith("https://" if not self._plain_http else ("https://", "http://")):
            raise InvalidInput(
                "an https address; http only within MAILYARD_ANALYSIS_NETWORKS",
                field="settings.base_url",
            )
        if len(base_url) > 500 or any(one in base_url for one in " ?#@"):
            raise InvalidInput("an address without user, query or space", field="settings.base_url")
        for name, least, most in _BOUNDS:
            value = getattr(checked, name)
            if not least <= value <= most:  # NaN included
                raise InvalidInput(f"{least} to {most}", field=f"settings.{name}")
        return msgspec.structs.replace(checked, base_url=base_url)


_BOUNDS: tuple[tuple[str, float, float], ...] = (
    ("timeout_s", 1, 120),
    ("max_output_tokens", 64, 16_000),
    ("concurrency", 1, 100),
    ("requests_per_minute", 0, 1_000_000),
    ("tokens_per_minute", 0, 1_000_000_000),
    ("input_price", 0, 100_000),
    ("output_price", 0, 100_000),
)


def _entry(row: asyncpg.Record) -> ModelEntry:
    return ModelEntry(
        id=row["id"],
        name=row["name"],
        kind=row["kind"],
        place=row["place"],
        settings=msgspec.json.decode(row["settings"], type=ModelSettings),
        has_key=row["sealed_key"] is not None,
        enabled=row["enabled"],
        resting_until=row["resting_until"],
        why=row["why"],
    )


def _place(place: int) -> int:
    if not 0 <= place <= 10_000:
        raise InvalidInput("0 to 10000; the lowest is asked first", field="place")
    return place


def _check_name(name: str) -> None:
    plain = name.isascii() and all(one.isalnum() or one in "-._" for one in name)
    if not 0 < len(name) <= NAME_CHARACTERS or not plain or name == "rules":
        raise InvalidInput(
            f"1 to {NAME_CHARACTERS} letters, digits, '-', '.' and '_'; not 'rules'", field="name"
        )
