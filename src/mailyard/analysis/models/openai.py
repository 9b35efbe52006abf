"""Models that speak OpenAI's Chat Completions: OpenAI itself, and the many servers that do alike
(vLLM, Ollama, llama.cpp, gateways). platform.openai.com/docs/api-reference/chat/create
"""

from typing import Any

from mailyard.analysis.model import ModelFailure, Said
from mailyard.analysis.models.over_http import count, exchange
from mailyard.analysis.prompt import Prompt
from mailyard.core.clock import Clock
from mailyard.net.http import HttpClient


class OpenAiModel:
    """One model of one server."""

    def __init__(
        self,
        *,
        http: HttpClient,
        clock: Clock,
        base_url: str,
        model: str,
        key: str,
        structured: str,
        timeout_s: float,
    ) -> None:
        self._http = http
        self._clock = clock
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._model = model
        self._key = key
        self._structured = structured
        self._timeout_s = timeout_s

    async def ask(self, prompt: Prompt, max_output_tokens: int) -> Said:
        """The answer's text. Raises ModelFailure."""
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [
                {"role": "system", "content": prompt.system},
                {"role": "user", "content": prompt.user},
            ],
            "max_completion_tokens": max_output_tokens,
        }
        if self._structured == "schema":
            # Not strict: it refuses bounds of lengths, which are checked here in any case.
            form = {"name": "answer", "schema": prompt.schema, "strict": False}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        elif self._structured == "object":
            body["response_format"] = {"type": "json_object"}
        headers = {"authorization": f"Bearer {self._key}"} if self._key else {}
        found = await exchange(self._http, self._clock, self._url, headers, body, self._timeout_s)
        return _read(found)


def _read(found: dict[str, Any]) -> Said:
    usage = found.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    counted = (count(usage.get("prompt_tokens")), count(usage.get("completion_tokens")))
    try:
        choice = found["choices"][0]
        message = choice["message"]
        text, refusal = message.get("content"), message.get("refusal")
        reason = choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ModelFailure("the answer has no choice with a message") from None
    nothing = Said("", *counted)
    if refusal or reason == "content_filter":
        raise ModelFailure("the model refused", passing=False, said=nothing)
    if reason == "length":
        raise ModelFailure("the answer was longer than allowed", passing=False, said=nothing)
    if not isinstance(text, str):
        raise ModelFailure("the answer has no text", said=nothing)
    return Said(text, *counted)
