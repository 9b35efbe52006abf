"""Answers for ever: the same mail asked the same of the same model is answered without asking.

An answer tells of its mail, so it must not outlive it in a form that can be read. It lies under a
hash, sealed with a key: both follow from the mail's content and the installation's master key, and
from nothing that is stored. Who has the mail finds the answer and opens it; with the mail's last
byte both ways are lost (NIST SP 800-88 calls that a cryptographic erase). Each analysis of a
message names the answer that it came from, so that a purge finds it and deletes it with the last
message that asked.
"""

import hmac
import os
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import NamedTuple
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct

from mailyard.cache.count import count
from mailyard.cache.kind import ANALYSIS
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("analysis")
_NONCE_BYTES = 12


class KeptAnswer(Struct, frozen=True):
    """What a model said, before the walls: they are stronger with each version."""

    text: str


class Sealed(NamedTuple):
    """An answer as it is kept, and the name that it is kept under."""

    key: bytes
    sealed: bytes


class Found(NamedTuple):
    """Which of the questions was answered before, what, and under which name."""

    question: int
    answer: str
    key: bytes


class Results:
    """`keys` gives the secrets of the installation, newest first."""

    def __init__(self, *, database: Database, keys: Callable[[], Sequence[bytes]]) -> None:
        self._database = database
        self._keys = keys

    async def find(self, workspace_id: UUID, questions: Sequence[bytes]) -> Found | None:
        """The first of the questions that was answered before."""
        places: dict[bytes, tuple[int, bytes]] = {}
        for index, question in enumerate(questions):
            for secret in self._keys():
                name, key = _derived(secret, workspace_id, question)
                places[name] = (index, key)
        rows = await self._database.fetch(_SQL.get_results, workspace_id, list(places))
        found: list[Found] = []
        for row in rows:
            index, key = places[row["key"]]
            sealed = row["sealed"]
            try:
                text = AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None)
            except InvalidTag:
                continue
            answer = msgspec.json.decode(text, type=KeptAnswer).text
            found.append(Found(index, answer, row["key"]))
        count(ANALYSIS, "result", hit=bool(found))
        return min(found, default=None)

    def seal(self, workspace_id: UUID, question: bytes, answer: str) -> Sealed:
        """An answer in the form in which it may be kept."""
        name, key = _derived(self._keys()[0], workspace_id, question)
        nonce = os.urandom(_NONCE_BYTES)
        text = msgspec.json.encode(KeptAnswer(answer))
        return Sealed(name, nonce + AESGCM(key).encrypt(nonce, text, None))

    async def keep(self, workspace_id: UUID, sealed: Sealed, tx: Connection | None = None) -> None:
        """Keep an answer, in the commit that names it beside its message."""
        await self._database.execute(_SQL.keep_result, workspace_id, *sealed, tx=tx)


def _derived(secret: bytes, workspace_id: UUID, question: bytes) -> tuple[bytes, bytes]:
    """(name, key): independent of each other, and of the question for who lacks the secret."""
    root = hmac.digest(secret, workspace_id.bytes + question, sha256)
    return hmac.digest(root, b"name", sha256), hmac.digest(root, b"key", sha256)
