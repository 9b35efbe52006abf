"""Vectors of mail: kept beside the index, and asked for what lies nearest.

A search goes through the vectors of its scope exactly, in two steps: by their signs (32 bytes a
line, in the row), then the nearest `_CANDIDATES` by the vectors themselves (half precision, out of
line). So no graph is kept that mail would have to be put into one by one and that would search a
small workspace beside a large one badly; and what is deleted or has expired is gone.

pgvector is needed only where somebody searches so: what needs it is made at the first use.
"""

import asyncio
from collections.abc import Mapping, Sequence
from uuid import UUID

import asyncpg

from mailyard.core.errors import ConfigurationError, Conflict, InvalidInput
from mailyard.mailbox.search import statement
from mailyard.mailbox.search.embedder import Embedder
from mailyard.mailbox.search.statement import Scope, Span
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

QUERIES = load("search")
RECEIVING = load("receiving")
PARTITIONS = load("partitions")

_BATCH = 64  # texts that a thread makes vectors of at a time
_CANDIDATES = 500


class Vectors:
    """Writes and searches them, or says why not."""

    def __init__(self, *, database: Database, embedder: Embedder | None) -> None:
        self._database = database
        self._embedder = embedder
        self._ready = False

    @property
    def available(self) -> bool:
        """Whether the installation has it switched on."""
        return self._embedder is not None

    async def prepare(self, tx: Connection | None = None) -> None:
        """See that the model and pgvector are there, on `tx` when given, which switches it on.
        Raises InvalidInput where the installation has it switched off, Conflict where either is
        missing."""
        if self._ready:
            return
        try:
            model = self._model("mode" if tx is None else "by_meaning")
            await asyncio.to_thread(model.embed, ["ready"])
        except ConfigurationError as error:
            raise Conflict(error.message) from error
        if tx is not None:
            await self._make(tx)
            return  # it may be rolled back
        async with self._database.transaction() as own:
            await self._make(own)
        self._ready = True

    async def write(
        self, workspace_id: UUID, samples: Mapping[UUID, str], *, others: bool = True
    ) -> int:
        """Keep a vector for each line of these messages; how many lines. What stands stays.

        `others`: whether in inboxes that do not say for themselves what is found by meaning.
        """
        if not samples:
            return 0
        await self.prepare()
        embedder = self._model()
        vectors = []
        for texts in _batches(list(samples.values())):
            vectors += await asyncio.to_thread(embedder.embed, texts)
        made = [(key, one) for key, one in zip(samples, vectors, strict=True) if one is not None]
        if not made:
            return 0
        ids = [key for key, _ in made]
        async with self._database.transaction() as tx:
            await self._database.fetch(RECEIVING.hold_classes, [workspace_id], tx=tx)
            written = await self._database.fetchval(
                QUERIES.write_vectors,
                workspace_id,
                ids,
                embedder.model,
                [one.bits for _, one in made],
                [one.half for _, one in made],
                min(ids),
                max(ids),
                others,
                tx=tx,
            )
        return int(written)

    async def nearest(
        self,
        scope: Scope,
        ids: Span,
        text: str,
        *,
        offset: int,
        limit: int,
        others: bool | None = None,
    ) -> list[asyncpg.Record]:
        """Lines that say what `text` says, the nearest first, from the place `offset` on. `others`:
        as `statement.near`."""
        await self.prepare()
        embedder = self._model()
        (vector,) = await asyncio.to_thread(embedder.embed, [text])
        if vector is None:
            return []
        query, arguments = statement.near(
            scope, ids, embedder.model, vector, _CANDIDATES, offset, limit, others
        )
        hits = await self._database.fetch(query, *arguments)
        query, arguments = statement.lines(scope, hits)
        return await self._database.fetch(query, *arguments)

    # -----------------------------------------------------------------------------------------

    def _model(self, field: str = "mode") -> Embedder:
        if self._embedder is None:
            raise InvalidInput(
                "search by meaning is switched off here: its operator sets "
                "MAILYARD_SEMANTIC_SEARCH=true",
                field=field,
            )
        return self._embedder

    async def _make(self, tx: Connection) -> None:
        if await self._database.fetchval(QUERIES.vectors_are_there, tx=tx):
            return
        try:
            # Nobody makes a partition meanwhile, nor this: one without the column fits no more.
            await self._database.execute(PARTITIONS.lock, tx=tx)
            if await self._database.fetchval(QUERIES.vectors_are_there, tx=tx):
                return
            await self._database.execute(QUERIES.make_extension, tx=tx)
            await self._database.execute(QUERIES.add_vectors, tx=tx)
            await self._database.execute(QUERIES.keep_vectors_apart, tx=tx)
        except asyncpg.PostgresError as error:
            raise Conflict(
                "search by meaning needs the extension pgvector 0.7 or newer in PostgreSQL "
                f"({error}): install it there and run CREATE EXTENSION vector, or set "
                "MAILYARD_SEMANTIC_SEARCH=false"
            ) from error


def _batches(texts: Sequence[str]) -> list[list[str]]:
    return [list(texts[start : start + _BATCH]) for start in range(0, len(texts), _BATCH)]
