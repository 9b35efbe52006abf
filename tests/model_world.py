"""An analyst over a real database whose models are scripted servers in this process."""

from random import Random
from typing import Any
from uuid import UUID

import msgspec
from http_script import LOOPBACK, Step, answer

from mailyard.access.vault import Vault
from mailyard.analysis.analyst import Analyst, Outcome
from mailyard.analysis.book import ModelBook, NewModel, OpenModel
from mailyard.analysis.model import Model
from mailyard.analysis.models.kinds import make
from mailyard.analysis.policy import Policies
from mailyard.analysis.results import Results
from mailyard.analysis.task import Ask
from mailyard.core.clock import Clock, SystemClock
from mailyard.net.http import HttpClient
from mailyard.protocol.meaning.letter import Letter
from mailyard.protocol.meaning.read import findings_in
from mailyard.ratelimit.adapters.memory import MemoryRateLimit
from mailyard.storage.database import Database

VAULT = Vault(lambda: [b"m" * 32])
GOOD: dict[str, Any] = {
    "category": {"value": "invoice", "quote": "your invoice 4711"},
    "urgency": {"value": "normal", "quote": None},
    "sentiment": {"value": "neutral", "quote": None},
    "summary": "The invoice 4711 is due.",
    "phishing": [],
    "suggested_answer": None,
}


class ModelWorld:
    """What asks, with `clock`; close it at the end."""

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self.http = HttpClient(allowed=LOOPBACK)
        self.database = database
        self.book = ModelBook(database=database, vault=VAULT, plain_http=True)
        self.policies = Policies(database=database)
        self.analyst = Analyst(
            database=database,
            book=self.book,
            policies=self.policies,
            results=Results(database=database, keys=lambda: VAULT.keys_for("analysis results")),
            make=self._make,
            rate=MemoryRateLimit(clock=self.clock),
            clock=self.clock,
            random=Random(1),
        )

    async def answer(
        self, workspace_id: UUID, letter: Letter, what: Ask, *, final: bool = True
    ) -> Outcome:
        """What comes of an ask, kept as the lane keeps it."""
        findings = findings_in(letter)
        answered = await self.analyst.answer(workspace_id, letter, findings, what, final=final)
        async with self.database.transaction() as tx:
            await self.analyst.keep(workspace_id, answered, tx)
        return answered.outcome

    def _make(self, model: OpenModel) -> Model:
        return make(model, self.http, self.clock)

    async def add(
        self, workspace_id: UUID, name: str, kind: str, url: str, place: int = 1, **settings: Any
    ) -> UUID:
        """A model at `url`."""
        wanted = NewModel(
            name, kind, {"model": f"model-{name}", "base_url": url, **settings}, "a key", place
        )
        async with self.database.transaction() as tx:
            return (await self.book.create(workspace_id, wanted, tx)).id


def openai(
    content: object = None,
    *,
    finish: str = "stop",
    usage: tuple[int, int] | None = (400, 80),
    **message: Any,
) -> Step:
    """An answer of Chat Completions."""
    text = content if isinstance(content, str) else msgspec.json.encode(content or GOOD).decode()
    body: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish,
                "message": {"role": "assistant", "content": text, "refusal": None} | message,
            }
        ],
    }
    if usage is not None:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return answer(200, body)


def anthropic(content: object = None, *, stop: str = "end_turn", blocks: Any = None) -> Step:
    """An answer of Messages."""
    text = content if isinstance(content, str) else msgspec.json.encode(content or GOOD).decode()
    body = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": text}] if blocks is None else blocks,
        "stop_reason": stop,
        "usage": {"input_tokens": 400, "output_tokens": 80},
    }
    return answer(200, body)


def error(status: int, kind: str, headers: dict[str, str] | None = None) -> Step:
    """An error as both vendors write it."""
    body = {"type": "error", "error": {"type": kind, "code": kind, "message": "so it is"}}
    return answer(status, body, headers)
