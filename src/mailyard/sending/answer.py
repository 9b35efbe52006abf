"""What is answered for accepted mail, and the idempotency keys under which answers are kept.

A key is claimed before its mail is written and gets the answer after that, all in one transaction,
so that nobody else ever sees a key of an accepted mail without its answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import msgspec

from mailyard.access.idempotency import IdempotencyInProgress
from mailyard.core.errors import IdempotencyMismatch, MailyardError
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("sending")
_ENCODER = msgspec.json.Encoder()
ACCEPTED_STATUS = 202


class AcceptedRecipient(msgspec.Struct, frozen=True):
    """A recipient's delivery and the state that it was born with."""

    delivery_id: UUID
    recipient: str
    state: str


class Accepted(msgspec.Struct, frozen=True):
    """What the caller is answered for one email."""

    id: UUID
    recipients: list[AcceptedRecipient]


_DECODER = msgspec.json.Decoder(list[Accepted])


@dataclass(frozen=True, slots=True)
class Answer:
    """The accepted emails in order. `replayed`: they were accepted before, under the same key."""

    emails: list[Accepted]
    replayed: bool


@dataclass(frozen=True, slots=True)
class Idempotency:
    """The caller's key and the SHA-256 of the body that came with it."""

    key: str
    body_hash: bytes


@dataclass(frozen=True, slots=True)
class Caller:
    """Who brings a request into a group."""

    workspace_id: UUID
    idempotency: Idempotency | None


class Claims:
    """The idempotency keys of a group of callers, who are known by their index in it."""

    def __init__(self, callers: Sequence[Caller]) -> None:
        self._callers = callers
        self._answered: dict[int, Answer | MailyardError] = {}
        self._first: dict[tuple[UUID, str], int] = {}  # a key's first caller in this group
        for index, caller in enumerate(callers):
            if caller.idempotency is not None:
                self._first.setdefault((caller.workspace_id, caller.idempotency.key), index)

    async def claim(self, database: Database, until: datetime, tx: Connection) -> list[int]:
        """Claim the keys until then; the callers whose mail has to be written."""
        keys = sorted(self._first)  # in one order, or two groups could wait for each other
        if keys:
            claimed = await database.fetch(
                _SQL.claim_idempotency_keys,
                [workspace_id for workspace_id, _ in keys],
                [key for _, key in keys],
                [self._hash(self._first[key]) for key in keys],
                ACCEPTED_STATUS,
                until,
                tx=tx,
            )
            mine = {(row["workspace_id"], row["key"]) for row in claimed}
            await self._recall(database, [key for key in keys if key not in mine], tx)
        return [
            index
            for index, caller in enumerate(self._callers)
            if index not in self._answered and self._first_of(caller, index) == index
        ]

    async def _recall(
        self, database: Database, keys: Sequence[tuple[UUID, str]], tx: Connection
    ) -> None:
        """Answer the callers of keys that stand already as they were answered before."""
        if not keys:
            return
        rows = await database.fetch(
            _SQL.read_idempotency_keys,
            [workspace_id for workspace_id, _ in keys],
            [key for _, key in keys],
            tx=tx,
        )
        stored = {(row["workspace_id"], row["key"]): row for row in rows}
        for index, caller in enumerate(self._callers):
            if caller.idempotency is None:
                continue
            key = (caller.workspace_id, caller.idempotency.key)
            row = stored.get(key)
            if row is not None:
                # Of another route's request the answer is none of ours to read.
                own = row["answer"] and row["body_hash"] == caller.idempotency.body_hash
                emails = _DECODER.decode(row["answer"]) if own else None
                self._answered[index] = self._replay(index, row["body_hash"], emails)
            elif key in keys:  # given back since the claim met it: the caller may come again
                self._answered[index] = self._replay(index, caller.idempotency.body_hash, None)

    async def refuse(
        self, database: Database, refused: Mapping[int, MailyardError], tx: Connection
    ) -> None:
        """Give the keys of callers back whose mail is not to be written, and their errors to all
        who came with them."""
        keys = [key for key, index in self._first.items() if index in refused]
        for index, caller in enumerate(self._callers):
            first = self._first_of(caller, index)
            if first in refused:
                self._answered[index] = refused[first]
        if keys:
            await database.execute(
                _SQL.give_back_idempotency_keys,
                [workspace_id for workspace_id, _ in keys],
                [key for _, key in keys],
                tx=tx,
            )

    async def keep(
        self, database: Database, made: Mapping[int, list[Accepted]], tx: Connection
    ) -> None:
        """Store what the callers who claimed their keys are answered."""
        kept = [(*key, index) for key, index in self._first.items() if index in made]
        if kept:
            await database.execute(
                _SQL.answer_idempotency_keys,
                [workspace_id for workspace_id, _, _ in kept],
                [key for _, key, _ in kept],
                [_ENCODER.encode(made[index]) for _, _, index in kept],
                tx=tx,
            )

    def answers(self, made: Mapping[int, list[Accepted]]) -> list[Answer | MailyardError]:
        """What every caller is answered. `made`: for those whose mail was written."""
        return [
            self._answered.get(index) or self._answer(index, caller, made)
            for index, caller in enumerate(self._callers)
        ]

    def _answer(
        self, index: int, caller: Caller, made: Mapping[int, list[Accepted]]
    ) -> Answer | MailyardError:
        first = self._first_of(caller, index)
        if first == index:
            return Answer(made[index], replayed=False)
        return self._replay(index, self._hash(first), made[first])

    def _first_of(self, caller: Caller, index: int) -> int:
        if caller.idempotency is None:
            return index
        return self._first[caller.workspace_id, caller.idempotency.key]

    def _hash(self, index: int) -> bytes:
        idempotency = self._callers[index].idempotency
        assert idempotency is not None, "only callers with a key are asked for its hash"
        return idempotency.body_hash

    def _replay(
        self, index: int, body_hash: bytes, emails: list[Accepted] | None
    ) -> Answer | MailyardError:
        if self._hash(index) != body_hash:
            return IdempotencyMismatch(
                "this idempotency key was used with another request", field="Idempotency-Key"
            )
        if emails is None:
            return IdempotencyInProgress(
                "a request with this idempotency key is running", field="Idempotency-Key"
            )
        return Answer(emails, replayed=True)
