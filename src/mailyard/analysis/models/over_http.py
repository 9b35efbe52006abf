"""What models behind HTTP share: the exchange, and what its failures mean.

Documents: platform.openai.com/docs/guides/error-codes and docs.anthropic.com/en/api/errors. Both
answer errors as `{"error": {"type", "message", …}}`; 429 and 5xx (Anthropic: 529 too) may carry
Retry-After in seconds.
"""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from mailyard.analysis.model import ModelFailure
from mailyard.core.clock import Clock
from mailyard.core.errors import InvalidInput
from mailyard.core.limits import MIB
from mailyard.net.http import HttpAnswer, HttpClient, HttpFailure

_ANSWER_BYTES = 1 * MIB
_RETRY_AFTER_S_MAX = 3600.0
_DECISIVE = (401, 402, 403, 404)
_NO_MONEY = ("insufficient_quota", "billing_hard_limit_reached", "billing_error")


async def exchange(
    http: HttpClient,
    clock: Clock,
    url: str,
    headers: Mapping[str, str],
    body: Mapping[str, Any],
    timeout_s: float,
) -> dict[str, Any]:
    """POST a question; the answer's JSON object. Raises ModelFailure."""
    try:
        answer = await http.request(
            "POST",
            url,
            headers={"content-type": "application/json", **headers},
            body=msgspec.json.encode(body),
            total_s=timeout_s,
            answer_bytes=_ANSWER_BYTES,
        )
    except HttpFailure as error:
        raise ModelFailure(error.message, passing=error.retryable, charged=error.written) from None
    except InvalidInput as error:
        raise ModelFailure(error.message, passing=False, charged=False, decisive=True) from None
    if answer.status != 200:
        raise _failure(answer, clock)
    try:
        found = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise ModelFailure("the answer breaks off: it is no whole JSON") from None
    if not isinstance(found, dict):
        raise ModelFailure("the answer is no JSON object")
    return found


def _failure(answer: HttpAnswer, clock: Clock) -> ModelFailure:
    kind, said = _error_in(answer.body)
    why = (
        f"answered {answer.status}" + (f" ({kind})" if kind else "") + (f": {said}" if said else "")
    )
    if kind in _NO_MONEY or answer.status in _DECISIVE:
        return ModelFailure(why, passing=False, charged=False, decisive=True)
    if answer.status == 429 or answer.status >= 500:
        wait_s = retry_after_s(answer.headers, clock)
        return ModelFailure(why, retry_after_s=wait_s, charged=answer.status != 429)
    if answer.status == 408:
        return ModelFailure(why)
    # 400, 413, 422 and redirects: this question will never do.
    return ModelFailure(why, passing=False, charged=False)


def _error_in(body: bytes) -> tuple[str, str]:
    """(type or code, message) of an error; empty where there is none. Never more than a line."""
    try:
        found = msgspec.json.decode(body)
        error = found["error"]
        kind = error.get("code") or error.get("type") or ""
        said = error.get("message") or ""
    except Exception:  # whatever a stranger's server answers
        return "", ""
    return _line(str(kind), 60), _line(str(said), 200)


def _line(text: str, most: int) -> str:
    return "".join(one for one in text if one.isprintable())[:most]


def retry_after_s(headers: Mapping[str, str], clock: Clock) -> float:
    """Seconds that a server asks for (RFC 9110 section 10.2.3: seconds or a date); 0: none."""
    milliseconds = headers.get("retry-after-ms", "")
    text = headers.get("retry-after", "").strip()
    try:
        if milliseconds:
            asked_s = float(milliseconds) / 1000
        elif text.replace(".", "", 1).isdigit():
            asked_s = float(text)
        elif text:
            asked_s = (parsedate_to_datetime(text) - clock.now()).total_seconds()
        else:
            return 0.0
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return min(max(0.0, asked_s), _RETRY_AFTER_S_MAX) if asked_s == asked_s else 0.0


def count(value: Any) -> int | None:
    """A count of tokens as a server gives it."""
    return (
        value
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40
        else None
    )
