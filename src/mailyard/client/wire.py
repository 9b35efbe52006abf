"""HTTP/1.1 as bytes and values, without a socket: both clients stand on it (RFC 9112).

A request is one block of bytes. An answer is fed as it comes, in pieces of any size, until it is
whole; what it may take of memory is bounded. No redirects, no cookies, no compression: it speaks to
one API, whose answers it knows.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from mailyard.client.errors import NoAnswer, Refused, WrongSetting

HEAD_BYTES_MAX = 64 * 1024
ANSWER_BYTES_MAX = 256 * 1024 * 1024
RECEIVE_BYTES = 256 * 1024
_KEY = re.compile(r"[!-~]{1,200}")  # printable ASCII: it becomes a header's value
_CHUNK_LINE_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Target:
    """Where the API is, and the key that opens it."""

    host: str
    port: int
    tls: bool
    authority: str
    prefix: str
    key: str = field(repr=False)


def target(url: str | None, api_key: str | None) -> Target:
    """From the arguments, or MAILYARD_URL and MAILYARD_API_KEY. Raises WrongSetting."""
    url = url or os.environ.get("MAILYARD_URL", "")
    key = api_key or os.environ.get("MAILYARD_API_KEY", "")
    if not url:
        raise WrongSetting("set MAILYARD_URL to the address of Mailyard, as http://127.0.0.1:8025")
    if not key:
        raise WrongSetting(
            "set MAILYARD_API_KEY to an API key (the first start printed one; `mailyard key create`"
            " makes another)"
        )
    if not _KEY.fullmatch(key):
        raise WrongSetting("MAILYARD_API_KEY is no API key: it has spaces or control characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise WrongSetting(f"MAILYARD_URL is {url!r}, which is no address") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise WrongSetting(f"MAILYARD_URL is {url!r}; it looks like http://127.0.0.1:8025")
    tls = parts.scheme == "https"
    port = port or (443 if tls else 80)
    return Target(parts.hostname, port, tls, parts.netloc, parts.path.rstrip("/"), key)


def request(
    where: Target,
    method: str,
    path: str,
    query: Mapping[str, object],
    body: object,
    idempotency_key: str,
) -> bytes:
    """One request. Of `query` what is None or empty is left out; `body` None sends none."""
    asked = {name: str(value) for name, value in query.items() if value not in (None, "")}
    line = where.prefix + quote(path, safe="/:@") + (f"?{urlencode(asked)}" if asked else "")
    lines = [
        f"{method} {line} HTTP/1.1",
        f"host: {where.authority}",
        f"authorization: Bearer {where.key}",
        "accept: application/json",
        "user-agent: mailyard-client",
    ]
    content = b"" if body is None else json.dumps(body).encode()
    if body is not None:
        lines.append("content-type: application/json")
    if content or method in ("POST", "PUT", "PATCH"):
        lines.append(f"content-length: {len(content)}")
    if idempotency_key:
        lines.append(f"idempotency-key: {idempotency_key}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + content


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON; None for an empty one. Raises NoAnswer when it is something else."""
        if not self.body:
            return None
        try:
            return json.loads(self.body)
        except ValueError:
            raise NoAnswer("the answer is not JSON: is MAILYARD_URL Mailyard's?") from None

    def check(self) -> "Answer":
        """Itself. Raises Refused for a problem document, and for whatever else is no 2xx."""
        if 200 <= self.status < 300:
            return self
        code, detail, of = "http_error", f"HTTP {self.status}", None
        try:
            said = json.loads(self.body)
            code, detail = str(said.get("code", code)), str(said.get("detail") or detail)
            of = said.get("field")
        except (ValueError, AttributeError):
            pass  # a proxy between us speaks for itself
        after = self.headers.get("retry-after", "")
        wait = float(after) if after.isdigit() else None
        raise Refused(self.status, code, detail, field=of, retry_after_s=wait)


class AnswerReader:
    """Reads one answer out of pieces. `answer` is there when it is whole."""

    def __init__(self) -> None:
        self.answer: Answer | None = None
        self.started = False
        self._pending = bytearray()
        self._status = 0
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._left: int | None = None  # of a body with a length, or of the chunk under way
        self._in_head = True
        self._chunked = False
        self._trailer = False

    @property
    def keeps(self) -> bool:
        """Whether the connection goes on after this answer."""
        framed = self._chunked or self._left is not None
        return framed and self._headers.get("connection", "").lower() != "close"

    def feed(self, piece: bytes) -> None:
        """The next bytes; empty at the end of the connection. Raises NoAnswer."""
        if not piece:
            self._end()
            return
        self.started = True
        self._pending += piece
        try:
            self._read()
        except ValueError:
            raise NoAnswer("the answer breaks the rules of HTTP") from None

    def _read(self) -> None:
        while self.answer is None:
            if self._in_head:
                if not self._read_head():
                    return
            elif self._chunked:
                if not self._read_chunk():
                    return
            else:
                self._take(len(self._pending) if self._left is None else self._left)
                if self._left == 0:
                    self._whole()
                elif not self._pending:
                    return

    def _read_head(self) -> bool:
        end = self._pending.find(b"\r\n\r\n")
        if end < 0:
            if len(self._pending) > HEAD_BYTES_MAX:
                raise NoAnswer("the answer's head does not end")
            return False
        lines = bytes(self._pending[:end]).decode("latin-1").split("\r\n")
        del self._pending[: end + 4]
        version, _, rest = lines[0].partition(" ")
        if not version.startswith("HTTP/1."):
            raise NoAnswer("what answers there does not speak HTTP/1.1")
        self._status = int(rest[:3])
        if self._status == 100:
            return True
        for line in lines[1:]:
            name, _, value = line.partition(":")
            self._headers[name.strip().lower()] = value.strip()
        self._in_head = False
        self._chunked = self._headers.get("transfer-encoding", "").lower() == "chunked"
        if self._status in (204, 304):
            self._chunked, self._left = False, 0
        elif not self._chunked and "content-length" in self._headers:
            self._left = int(self._headers["content-length"])
        if self._left is not None and not 0 <= self._left <= ANSWER_BYTES_MAX:
            raise NoAnswer("the answer is larger than this client takes")
        if self._left == 0 and not self._chunked:
            self._whole()
        return True

    def _read_chunk(self) -> bool:
        """A step through chunks (RFC 9112 section 7.1); False when more bytes are needed."""
        if self._left:
            if not self._pending:
                return False
            self._take(self._left)
            return True
        end = self._pending.find(b"\r\n")
        if end < 0:
            if len(self._pending) > _CHUNK_LINE_BYTES:
                raise NoAnswer("the answer breaks the rules of HTTP")
            return False
        line = bytes(self._pending[:end])
        del self._pending[: end + 2]
        if self._trailer:
            if not line:
                self._whole()
        elif line or self._left is None:  # else the line end behind a chunk
            self._left = int(line.split(b";")[0], 16)
            self._trailer = self._left == 0
        return True

    def _take(self, count: int) -> None:
        taken = bytes(self._pending[:count])
        del self._pending[: len(taken)]
        if self._left is not None:
            self._left -= len(taken)
        self._body += taken
        if len(self._body) > ANSWER_BYTES_MAX:
            raise NoAnswer("the answer is larger than this client takes")

    def _end(self) -> None:
        if self.answer is None and (self._in_head or self._chunked or self._left is not None):
            raise NoAnswer("the answer broke off")
        if self.answer is None:
            self._whole()

    def _whole(self) -> None:
        self.answer = Answer(self._status, self._headers, bytes(self._body))
