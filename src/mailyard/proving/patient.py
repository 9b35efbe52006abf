"""The API for who goes on while parts of it are killed: what got no answer is asked again.

A change is repeated under its idempotency key, so it is done once.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from secrets import token_hex
from time import monotonic
from typing import Any, TypeVar

from mailyard.core.errors import Unavailable
from mailyard.proving.client import ApiClient, ApiProblem

PATIENCE_S = 60.0
_AGAIN_S = 0.2
# Of balancers, and of a platform whose database is away. 429 as well: it says to come back.
_AGAIN_STATUS = (429, 502, 503, 504)
_IN_PROGRESS = "idempotency_key_in_progress"  # the first try is still at it

Answer = TypeVar("Answer")


class PatientClient:
    """Asks through `client` again and again, for at most `patience_s` one question.

    Every method raises what ApiClient raises, when it is an answer or patience is at its end.
    """

    def __init__(self, client: ApiClient, patience_s: float = PATIENCE_S) -> None:
        self._client = client
        self._patience_s = patience_s
        self.repeated = 0

    async def get(self, path: str, **query: Any) -> Any:
        """A GET, decoded."""
        return await self._again(lambda: self._client.get(path, **query))

    async def change(self, path: str, body: Any = None) -> Any:
        """A POST that changes something: done once, however often it is sent."""
        key = token_hex(16)
        return await self._again(lambda: self._client.post(path, body, idempotency_key=key))

    async def ask(self, path: str, body: Any, answer: Any) -> Any:
        """A POST that only asks, decoded as `answer`."""
        return await self._again(lambda: self._client.post(path, body, answer=answer))

    async def upload(
        self, path: str, chunks: Callable[[], AsyncIterator[bytes]], content_type: str, **query: Any
    ) -> Any:
        """A file, sent anew from its beginning; it may be there twice then."""
        return await self._again(lambda: self._client.upload(path, chunks(), content_type, **query))

    async def _again(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        until = monotonic() + self._patience_s
        while True:
            try:
                return await ask()
            except Unavailable:
                if monotonic() > until:
                    raise
            except ApiProblem as problem:
                later = problem.status in _AGAIN_STATUS or problem.code == _IN_PROGRESS
                if not later or monotonic() > until:
                    raise
            self.repeated += 1
            await asyncio.sleep(_AGAIN_S)
