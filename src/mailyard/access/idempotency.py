"""Idempotency keys: the same request sent again gets the answer of the first one, for 24 hours.

A key belongs to a workspace. A request claims it (status 0: in progress) before it acts and stores
its answer after. The claim of a process that died in between runs out after `CLAIM_S`; a request
whose effect and answer must be one commit stores the answer in its own transaction (`finish` with
`tx`). Only answers that changed something are kept: a refused request may be sent again.
"""

from dataclasses import dataclass
from uuid import UUID

from mailyard.core.errors import Conflict, IdempotencyMismatch, InvalidInput
from mailyard.core.limits import IDEMPOTENCY_KEEP_S, IDEMPOTENCY_KEY_CHARACTERS
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("idempotency")

CLAIM_S = 60.0


class IdempotencyInProgress(Conflict):
    """Another request with this key is running now."""

    code = "idempotency_key_in_progress"


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What the first request was answered: HTTP status and body."""

    status: int
    body: bytes


def check_key(key: str) -> str:
    """The key: 1 to 256 printable ASCII characters. Raises InvalidInput."""
    if not 1 <= len(key) <= IDEMPOTENCY_KEY_CHARACTERS or not (key.isascii() and key.isprintable()):
        raise InvalidInput(
            f"an idempotency key is 1 to {IDEMPOTENCY_KEY_CHARACTERS} printable ASCII characters",
            field="Idempotency-Key",
        )
    return key


class Idempotency:
    """Claims keys and keeps answers."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def begin(self, workspace_id: UUID, key: str, body_hash: bytes) -> StoredAnswer | None:
        """Claim `key`: None says "go on", an answer says "that was done before".

        Raises IdempotencyMismatch when the key stands with another body, IdempotencyInProgress
        when the first request with it has not ended.
        """
        for _ in range(3):  # the row may run out or be given back between the two statements
            if await self._database.fetchval(_SQL.claim, workspace_id, key, body_hash, CLAIM_S):
                return None
            row = await self._database.fetchrow(_SQL.look, workspace_id, key)
            if row is None:
                continue
            if row["body_hash"] != body_hash:
                raise IdempotencyMismatch(
                    "this idempotency key was used with another request", field="Idempotency-Key"
                )
            if row["status"] == 0:
                break
            return StoredAnswer(row["status"], row["answer"])
        raise IdempotencyInProgress(
            "a request with this idempotency key is running", field="Idempotency-Key"
        )

    async def finish(
        self,
        workspace_id: UUID,
        key: str,
        body_hash: bytes,
        answer: StoredAnswer,
        tx: Connection | None = None,
    ) -> bool:
        """Store the answer of a claimed key. False when the claim had run out meanwhile."""
        stored = await self._database.fetchval(
            _SQL.finish,
            workspace_id,
            key,
            body_hash,
            answer.status,
            answer.body,
            IDEMPOTENCY_KEEP_S,
            tx=tx,
        )
        return stored is True

    async def abandon(self, workspace_id: UUID, key: str, body_hash: bytes) -> None:
        """Give a claimed key back, because the request came to nothing."""
        await self._database.execute(_SQL.abandon, workspace_id, key, body_hash)

    async def sweep(self) -> None:
        """Remove what has expired (a duty of the scheduler)."""
        await self._database.execute(_SQL.sweep)
