"""One request to an endpoint: signed, sent through the guarded client, judged, kept for the log."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import msgspec

from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import InvalidInput
from mailyard.core.limits import KIB
from mailyard.net.http import Exchange, HttpAnswer, HttpFailure
from mailyard.webhooks import signing
from mailyard.webhooks.endpoint import Secret, Webhook
from mailyard.webhooks.payload import Contents, body_of
from mailyard.webhooks.policy import Outcome, Verdict, judge

TOTAL_S = 15.0  # Standard Webhooks: 15 to 30 seconds
_ANSWER_BYTES = 64 * KIB  # read of an answer; what is more is not needed to know its status
_KEPT_BYTES = 4 * KIB  # of a request and of an answer, for the log
_KEPT_HEADERS = 30
_KEPT_VALUE_CHARACTERS = 300
_ERROR_CHARACTERS = 300


class Http(Protocol):
    """What sends; `net.http.HttpClient` fits."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        total_s: float | None = None,
        answer_bytes: int | None = None,
        exchange: Exchange | None = None,
    ) -> HttpAnswer: ...


class Event(msgspec.Struct, frozen=True):
    """An event as it is told. `id` is its place in the stream, and the same however often it is
    told, to whomever."""

    id: str
    kind: str
    happened_at: datetime
    item: Mapping[str, Any]


class Attempt(msgspec.Struct, frozen=True):
    """A request and what came of it; `status` None: no answer."""

    at: datetime
    took_ms: int
    url: str
    request_headers: Mapping[str, str]
    request_body: str
    status: int | None
    answer_headers: Mapping[str, str]
    answer_body: str
    verdict: Verdict


class Caller:
    """Makes requests. `contents` reads the mail behind an event."""

    def __init__(
        self,
        *,
        http: Http,
        contents: Contents,
        page_url: str,
        clock: Clock | None = None,
    ) -> None:
        self._http = http
        self._contents = contents
        self._page_url = page_url
        self._clock = clock or SystemClock()

    async def call(
        self, workspace_id: UUID, webhook: Webhook, keys: Sequence[Secret], event: Event
    ) -> Attempt:
        """Tell `webhook` of `event` once. Raises Unavailable when the mail cannot be read now."""
        body = await body_of(
            workspace_id,
            event.kind,
            event.happened_at,
            event.item,
            payload=webhook.payload,
            page_url=self._page_url,
            contents=self._contents,
        )
        at, began = self._clock.now(), self._clock.monotonic()
        headers = {
            "content-type": "application/json",
            **signing.headers([key.text for key in keys], event.id, int(at.timestamp()), body),
        }
        status, answered, answer, verdict = await self._exchange(webhook.url, headers, body, at)
        return Attempt(
            at=at,
            took_ms=int((self._clock.monotonic() - began) * 1000),
            url=webhook.url,
            request_headers=headers,
            request_body=_text(body),
            status=status,
            answer_headers=_kept(answered),
            answer_body=_text(answer),
            verdict=verdict,
        )

    async def _exchange(
        self, url: str, headers: Mapping[str, str], body: bytes, at: datetime
    ) -> tuple[int | None, Mapping[str, str], bytes, Verdict]:
        exchange = Exchange()
        try:
            answer = await self._http.request(
                "POST",
                url,
                headers=headers,
                body=body,
                total_s=TOTAL_S,
                answer_bytes=_ANSWER_BYTES,
                exchange=exchange,
            )
        except HttpFailure as error:
            why = error.message[:_ERROR_CHARACTERS]
            if exchange.status is None:
                return None, {}, b"", Verdict(Outcome.AWAY, why)
            # The head of the answer says what became of the event; the rest of it broke or is long.
            verdict = judge(exchange.status, {}, at)
            return exchange.status, {}, f"(not read: {why})".encode(), verdict
        except InvalidInput as error:
            return None, {}, b"", Verdict(Outcome.REFUSED, error.message[:_ERROR_CHARACTERS])
        return answer.status, answer.headers, answer.body, judge(answer.status, answer.headers, at)


def _text(content: bytes) -> str:
    """The beginning, as text that PostgreSQL takes."""
    kept = content[:_KEPT_BYTES].decode("utf-8", "replace").replace("\0", "\ufffd")
    return kept if len(content) <= _KEPT_BYTES else f"{kept}… ({len(content)} bytes)"


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    pieces = list(headers.items())[:_KEPT_HEADERS]
    return {
        name[:100].replace("\0", ""): value[:_KEPT_VALUE_CHARACTERS].replace("\0", "")
        for name, value in pieces
    }
