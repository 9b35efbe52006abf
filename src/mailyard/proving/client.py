"""A small client of the HTTP API: what the commands, the demonstration and the fault tests speak.

Keep-alive connections over asyncio streams, JSON in and out, bodies streamed up, problem documents
(RFC 9457) as exceptions. It follows no redirects and keeps no cookies.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from mailyard.core.errors import ConfigurationError, MailyardError, Unavailable
from mailyard.core.limits import API_PAGE_ITEMS_MAX, MIB

_IDLE_CONNECTIONS = 64
_RECEIVE_BYTES = 1 * MIB
DEFAULT_TIMEOUT_S = 150.0  # the longest call is a wait for a message, of two minutes


class ApiProblem(MailyardError):
    """The API said no: `status` of HTTP, `code` of its problem document."""

    def __init__(self, status: int, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message, field=field)
        self.status = status
        self.code = code
        self.retryable = status in (429, 503)

    def __str__(self) -> str:
        where = f" ({self.field})" if self.field else ""
        return f"{self.message}{where}"


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Connection:
    """One connection, one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def head(self) -> tuple[int, dict[str, str]]:
        block = await self.reader.readuntil(b"\r\n\r\n")
        lines = block.decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ", 2)[1])
        headers: dict[str, str] = {}
        for line in lines[1:-2]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        return (await self.head()) if status == 100 else (status, headers)

    async def pieces(self, status: int, headers: Mapping[str, str]) -> AsyncIterator[bytes]:
        """The body as it comes, however it is framed (RFC 9112 section 6.3)."""
        if status in (204, 304):
            return
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int((await self.reader.readline()).split(b";")[0], 16):
                yield await self.reader.readexactly(size)
                await self.reader.readexactly(2)
            await self.reader.readuntil(b"\r\n")
            return
        if "content-length" in headers:
            left = int(headers["content-length"])
            while left:
                piece = await self.reader.read(min(left, _RECEIVE_BYTES))
                if not piece:
                    raise ConnectionResetError("the answer broke off")
                left -= len(piece)
                yield piece
            return
        while piece := await self.reader.read(_RECEIVE_BYTES):
            yield piece

    def close(self) -> None:
        self.writer.close()


class ApiClient:
    """Speaks to the API at `url` with `key`. Use it in one event loop; `close` it at the end."""

    def __init__(self, url: str, key: str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError(f"{url!r} is not the address of an API (MAILYARD_URL)")
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._authority = parts.netloc
        self._prefix = parts.path.rstrip("/")
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._key = key
        self._timeout_s = timeout_s
        self._idle: deque[_Connection] = deque()

    async def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    async def get(self, path: str, **query: Any) -> Any:
        """The decoded answer of a GET. Raises ApiProblem, Unavailable."""
        return await self.call("GET", path, query=query)

    async def all(self, path: str) -> list[dict[str, Any]]:
        """The items of a list, of all its pages. Raises ApiProblem, Unavailable."""
        page = await self.get(path, limit=API_PAGE_ITEMS_MAX)
        items: list[dict[str, Any]] = page["items"]
        while page["next_cursor"]:
            page = await self.get(path, limit=API_PAGE_ITEMS_MAX, cursor=page["next_cursor"])
            items += page["items"]
        return items

    async def post(
        self, path: str, body: Any = None, *, idempotency_key: str = "", answer: Any = Any
    ) -> Any:
        """The answer of a POST with a JSON body, decoded as `answer`: a type, or any JSON value.

        Raises ApiProblem, Unavailable.
        """
        headers = {"idempotency-key": idempotency_key} if idempotency_key else {}
        return await self.call("POST", path, body=body, headers=headers, answer=answer)

    async def delete(self, path: str) -> None:
        """A DELETE. Raises ApiProblem, Unavailable."""
        await self.call("DELETE", path)

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        answer: Any = Any,
    ) -> Any:
        """One request with a JSON body or none; the answer as `answer`, None when it is empty."""
        content = b"" if body is None else msgspec.json.encode(body)
        more = {"content-type": "application/json"} if content else {}
        response = await self.request(
            method, path, query=query, content=content, headers={**more, **(headers or {})}
        )
        return msgspec.json.decode(response.body, type=answer) if response.body else None

    async def upload(
        self, path: str, chunks: AsyncIterator[bytes], content_type: str, **query: Any
    ) -> Any:
        """POST a body as it comes; the decoded answer. Raises ApiProblem, Unavailable."""
        headers = {"content-type": content_type, "transfer-encoding": "chunked"}
        answer = await self.request("POST", path, query=query, stream=chunks, headers=headers)
        return msgspec.json.decode(answer.body)

    async def download(self, path: str, write: Callable[[bytes], object], **query: Any) -> int:
        """GET a file as it comes and hand its pieces to `write`; how many bytes it had.

        Raises ApiProblem, Unavailable (a file that broke off too).
        """
        size_bytes = 0
        try:
            connection = await self._connection()
            try:
                connection.writer.write(self._head("GET", path, query, {}))
                async with asyncio.timeout(self._timeout_s):
                    status, headers = await connection.head()
                pieces = connection.pieces(status, headers)
                if status >= 300:
                    raise _problem(Response(status, headers, b"".join([p async for p in pieces])))
                async for piece in pieces:
                    size_bytes += len(piece)
                    write(piece)
            finally:
                connection.close()
        except (OSError, EOFError, TimeoutError, ValueError, asyncio.LimitOverrunError) as error:
            raise Unavailable(f"no whole answer from {self._authority}: {error}") from error
        return size_bytes

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        content: bytes = b"",
        stream: AsyncIterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """One request and its whole answer. Raises ApiProblem at a status of 400 and above.

        Raises Unavailable when nobody answers; the request may then have been done or not.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = await self._connection()
                try:
                    answer = await self._exchange(
                        connection, method, path, query, content, stream, headers or {}
                    )
                except BaseException:
                    connection.close()
                    raise
        except (OSError, EOFError, TimeoutError, ValueError, asyncio.LimitOverrunError) as error:
            reason = str(error) or type(error).__name__
            raise Unavailable(f"no answer from {self._authority}: {reason}") from error
        if answer.status >= 300:
            raise _problem(answer)
        return answer

    async def events(
        self, path: str, last_event_id: str = ""
    ) -> AsyncIterator[tuple[str, str, Any]]:
        """Server-Sent Events as (id, kind, decoded data), until the server ends the stream."""
        reader, writer = await asyncio.open_connection(
            self._host, self._port, ssl=self._tls, limit=16 * MIB
        )
        connection = _Connection(reader, writer)
        try:
            more = {"last-event-id": last_event_id} if last_event_id else {}
            writer.write(self._head("GET", path, None, {"accept": "text/event-stream", **more}))
            status, headers = await connection.head()
            if status != 200:
                body = b"".join([piece async for piece in connection.pieces(status, headers)])
                raise _problem(Response(status, headers, body))
            pending = b""
            async for piece in connection.pieces(status, headers):
                *blocks, pending = (pending + piece).split(b"\n\n")
                for block in blocks:
                    event = _event(block)
                    if event is not None:
                        yield event
        finally:
            connection.close()

    async def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.reader.at_eof() and not connection.writer.is_closing():
                return connection
            connection.close()
        reader, writer = await asyncio.open_connection(
            self._host, self._port, ssl=self._tls, limit=_RECEIVE_BYTES
        )
        return _Connection(reader, writer)

    def _head(
        self, method: str, path: str, query: Mapping[str, Any] | None, headers: Mapping[str, str]
    ) -> bytes:
        asked = {name: value for name, value in (query or {}).items() if value not in (None, "")}
        target = self._prefix + quote(path, safe="/:@") + (f"?{urlencode(asked)}" if asked else "")
        lines = [f"{method} {target} HTTP/1.1", f"host: {self._authority}"]
        if self._key:
            lines.append(f"authorization: Bearer {self._key}")
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    async def _exchange(
        self,
        connection: _Connection,
        method: str,
        path: str,
        query: Mapping[str, Any] | None,
        content: bytes,
        stream: AsyncIterator[bytes] | None,
        headers: Mapping[str, str],
    ) -> Response:
        writer = connection.writer
        if stream is None:
            framing = {"content-length": str(len(content))} if content or method == "POST" else {}
            writer.write(self._head(method, path, query, {**headers, **framing}) + content)
            status, answered = await connection.head()
        else:
            writer.write(self._head(method, path, query, headers))
            status, answered = await self._send(connection, stream)
        body = b"".join([piece async for piece in connection.pieces(status, answered)])
        keep = answered.get("connection", "").lower() != "close"
        if keep and len(self._idle) < _IDLE_CONNECTIONS and stream is None:
            self._idle.append(connection)
        else:
            connection.close()
        return Response(status, answered, body)

    async def _send(
        self, connection: _Connection, stream: AsyncIterator[bytes]
    ) -> tuple[int, dict[str, str]]:
        """Send a chunked body; the answer's head, which ends the sending when it comes early."""
        writer = connection.writer
        answer = asyncio.ensure_future(connection.head())
        try:
            async for piece in stream:
                if answer.done():
                    break
                if piece:
                    writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    await writer.drain()
            else:
                writer.write(b"0\r\n\r\n")
        except ConnectionError:
            pass  # refused in mid-body: what the answer says matters, if there is one
        except BaseException:
            answer.cancel()
            raise
        return await answer


def _problem(answer: Response) -> ApiProblem:
    try:
        document = msgspec.json.decode(answer.body)
        code = str(document.get("code", "http_error"))
        message = str(document.get("detail") or document.get("title") or "")
        field = document.get("field")
    except (msgspec.DecodeError, AttributeError):
        code, message, field = "http_error", answer.body[:200].decode("latin-1"), None
    return ApiProblem(answer.status, code, message or f"HTTP {answer.status}", field)


def _event(block: bytes) -> tuple[str, str, Any] | None:
    """One block of an event stream; None for a comment (the heartbeat)."""
    identifier, kind, data = "", "message", ""
    for line in block.decode().split("\n"):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "id":
            identifier = value
        elif name == "event":
            kind = value
        elif name == "data":
            data += value
    return (identifier, kind, msgspec.json.decode(data)) if data else None
