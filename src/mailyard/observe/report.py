"""Reports of errors that nobody expected, for any server that takes Sentry's envelopes.

A report says which kind of error came where in our code: its type, the chain of its causes, and
of each frame the module, the function and the line. It says nothing else of it. What an error says,
the values in its frames and the text of a log line may hold an address, a subject or a whole mail,
so none of them is ever read. https://develop.sentry.dev/sdk/data-model/envelopes/
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import msgspec

from mailyard.core.errors import ConfigurationError, MailyardError

Post = Callable[[bytes], Awaitable[None]]
FRAMES_MAX = 60  # of one error, the innermost
CHAIN_MAX = 8
WAITING_MAX = 50
AGAIN_S = 60.0  # the same error in the same place is told once in so long
KNOWN_MAX = 500
PLACE_FRAMES = 5  # by which an error is the same


@dataclass(frozen=True, slots=True)
class Dsn:
    """Where reports go: `https://KEY@HOST/PROJECT`."""

    url: str
    key: str

    @property
    def headers(self) -> dict[str, str]:
        auth = f"Sentry sentry_version=7, sentry_client=mailyard/1, sentry_key={self.key}"
        return {"Content-Type": "application/x-sentry-envelope", "X-Sentry-Auth": auth}


def read_dsn(text: str) -> Dsn:
    """Raises ConfigurationError."""
    try:
        parts = urlsplit(text)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        parts, port = urlsplit(""), ""
    prefix, _, project = parts.path.rpartition("/")
    if parts.scheme not in ("http", "https") or not (parts.username and parts.hostname and project):
        raise ConfigurationError("MAILYARD_SENTRY_DSN is an address like https://KEY@HOST/PROJECT")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    url = f"{parts.scheme}://{host}{port}{prefix}/api/{project}/envelope/"
    return Dsn(url, parts.username)


class Reporter:
    """Keeps what is noted until `run` has posted it; more than WAITING_MAX is dropped."""

    def __init__(self, post: Post, *, release: str, tags: Mapping[str, str]) -> None:
        self._post = post
        self._release = release
        self._tags = dict(tags)
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue(WAITING_MAX)
        self._known: OrderedDict[tuple[Any, ...], tuple[float, int]] = OrderedDict()
        self._loop = asyncio.get_running_loop()

    def note(self, error: BaseException, where: str = "") -> None:
        """Report `error` soon, unless it is one that we raise ourselves. From any thread."""
        if isinstance(error, (MailyardError, asyncio.CancelledError, KeyboardInterrupt)):
            return
        place = _place(error)
        now = time.monotonic()
        told_at, unsaid = self._known.get(place, (-AGAIN_S, 0))
        if now - told_at < AGAIN_S:
            self._known[place] = (told_at, unsaid + 1)
            return
        self._known[place] = (now, 0)
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
        body = envelope(error, where, self._release, self._tags, unsaid + 1)
        self._loop.call_soon_threadsafe(self._add, body)

    async def run(self) -> None:
        """Post what is noted, until cancelled. What is not taken is lost."""
        while True:
            body = await self._waiting.get()
            try:
                await self._post(body)
            except MailyardError:
                await asyncio.sleep(1.0)

    async def close(self) -> None:
        """Post what waits."""
        while not self._waiting.empty():
            try:
                await self._post(self._waiting.get_nowait())
            except MailyardError:
                return

    def _add(self, body: bytes) -> None:
        if not self._waiting.full():
            self._waiting.put_nowait(body)


_reporter: Reporter | None = None


def use(reporter: Reporter | None) -> None:
    """Report what is noted in this process from now on, or no more."""
    global _reporter
    _reporter = reporter


def note(error: BaseException, where: str = "") -> None:
    """`error` was not expected. `where`: which part of ours met it."""
    if _reporter is not None:
        _reporter.note(error, where)


def envelope(
    error: BaseException, where: str, release: str, tags: Mapping[str, str], times: int
) -> bytes:
    """A report as it is posted."""
    event_id = uuid4().hex
    now = datetime.now(UTC).isoformat()
    event = {
        "event_id": event_id,
        "timestamp": now,
        "platform": "python",
        "level": "error",
        "logger": where or "mailyard",
        "release": release,
        "tags": dict(tags),
        "extra": {"times": times},
        # The cause comes before what it led to.
        "exception": {"values": [_told(one) for one in reversed(list(_chain(error)))]},
    }
    body = msgspec.json.encode(event)
    head = msgspec.json.encode({"event_id": event_id, "sent_at": now})
    item = msgspec.json.encode({"type": "event", "length": len(body)})
    return head + b"\n" + item + b"\n" + body + b"\n"


def _told(error: BaseException) -> dict[str, Any]:
    kind = type(error)
    return {
        "type": kind.__name__,
        "module": kind.__module__,
        "stacktrace": {"frames": [_frame(*one) for one in _frames(error.__traceback__)]},
    }


def _frame(module: str, function: str, line: int) -> dict[str, Any]:
    return {
        "module": module,
        "function": function,
        "filename": module.replace(".", "/") + ".py",
        "lineno": line,
        "in_app": module.startswith("mailyard"),
    }


def _frames(traceback: TracebackType | None) -> list[tuple[str, str, int]]:
    """(module, function, line), the innermost last: names that stand in source, not in mail."""
    found = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        module = traceback.tb_frame.f_globals.get("__name__", "?")
        found.append((str(module), code.co_name, traceback.tb_lineno))
        traceback = traceback.tb_next
    return found[-FRAMES_MAX:]


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, what led to it, and what is in its group."""
    waiting = [error]
    seen: set[int] = set()
    while waiting and len(seen) < CHAIN_MAX:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions
        above = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
        if above is not None:
            waiting.append(above)


def _place(error: BaseException) -> tuple[Any, ...]:
    return (type(error).__name__, *_frames(error.__traceback__)[-PLACE_FRAMES:])
