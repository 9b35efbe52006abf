"""Anthropic's Messages API. docs.anthropic.com/en/api/messages, version 2023-06-01."""

from typing import Any

from mailyard.analysis.model import ModelFailure, Said
from mailyard.analysis.models.over_http import count, exchange
from mailyard.analysis.prompt import Prompt
from mailyard.core.clock import Clock
from mailyard.net.http import HttpClient

VERSION = "2023-06-01"


class AnthropicModel:
    """One model."""

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
        self._url = base_url.rstrip("/") + "/v1/messages"
        self._model = model
        self._key = key
        self._structured = structured
        self._timeout_s = timeout_s

    async def ask(self, prompt: Prompt, max_output_tokens: int) -> Said:
        """The answer's text. Raises ModelFailure."""
        body: dict[str, Any] = {
            "model": self._model,
            "max_tokens": max_output_tokens,
            "system": prompt.system,
            "messages": [{"role": "user", "content": prompt.user}],
        }
        if self._structured == "schema":
            body["output_config"] = {"format": {"type": "json_schema", "schema": prompt.schema}}
        headers = {"x-api-key": self._key, "anthropic-version": VERSION}
        found = await exchange(self._http, self._clock, self._url, headers, body, self._timeout_s)
        return _read(found)


def _read(found: dict[str, Any]) -> Said:
    usage = found.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    inputs = [count(usage.get(name)) for name in names]
    read = None if inputs[0] is None else sum(one or 0 for one in inputs)
    counted = (read, count(usage.get("output_tokens")))
    nothing = Said("", *counted)
    reason = found.get("stop_reason")
    if reason == "refusal":
        raise ModelFailure("the model refused", passing=False, said=nothing)
    if reason in ("max_tokens", "model_context_window_exceeded"):
        raise ModelFailure("the answer was longer than allowed", passing=False, said=nothing)
    content = found.get("content")
    if not isinstance(content, list):
        raise ModelFailure("the answer has no content", said=nothing)
    texts = [
        block["text"]
        for block in content
        if isinstance(block, dict)
        and block.get("type") == "text"
        and isinstance(block.get("text"), str)
    ]
    if not texts:
        raise ModelFailure("the answer has no text", said=nothing)
    return Said("".join(texts), *counted)
