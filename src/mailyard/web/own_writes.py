"""Between the server and the API or the pages, where the database has replicas: whoever has written
sees it when he reads.

A request that changes something leaves its place in the write-ahead log behind, under its caller:
the API key or the session, as a hash. A request that reads may be answered by a replica that has
passed its caller's place. The place also goes back in `Mailyard-Position`; a caller who sends it
along need not be the one who wrote.

A replica may not have yet what another caller was told of a moment ago. What it does not find is
therefore looked for once more, in the primary alone.
"""

from hashlib import sha256

import structlog

from mailyard.access.authenticate import session_token
from mailyard.core.errors import Unavailable
from mailyard.storage.reading import Reading, format_position, parse_position, reading
from mailyard.storage.replicated import ReplicatedDatabase
from mailyard.web.protocol import Asgi, Message, Receive, Scope, Send

POSITION_HEADER = b"mailyard-position"
_LOG = structlog.get_logger(__name__)


class OwnWrites:
    """An ASGI application around another."""

    def __init__(self, inner: Asgi, database: ReplicatedDatabase) -> None:
        self._inner = inner
        self._database = database

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller, position = _asks(scope) if scope["type"] == "http" else (None, None)
        if caller is None:
            await self._inner(scope, receive, send)
        elif scope["method"] in ("GET", "HEAD"):
            await self._read(Reading(caller, position), scope, receive, send)
        else:
            await self._inner(scope, receive, self._noting(caller, send))

    async def _read(self, asked: Reading, scope: Scope, receive: Receive, send: Send) -> None:
        assert asked.caller is not None
        noting = self._noting(asked.caller, send)
        missing = False

        async def pass_on(message: Message) -> None:
            nonlocal missing
            if message["type"] == "http.response.start":
                missing = message["status"] == 404 and asked.used
            if missing:
                return
            if asked.wrote:
                await noting(message)
            else:
                await send(message)

        with reading(asked):
            await self._inner({**scope}, receive, pass_on)
        if missing:
            await self._inner(scope, receive, send)

    def _noting(self, caller: bytes, send: Send) -> Send:
        async def note(message: Message) -> None:
            # A stranger has changed nothing, and must not fill the table.
            if message["type"] == "http.response.start" and message["status"] != 401:
                try:
                    position = await self._database.wrote(caller)
                except Unavailable as error:
                    # It moves: for a while afterwards the primary answers everything.
                    _LOG.warning("place not remembered", error=error.message)
                else:
                    headers = [*message.get("headers", ()), _header(position)]
                    message = {**message, "headers": headers}
            await send(message)

        return note


def _header(position: int) -> tuple[bytes, bytes]:
    return POSITION_HEADER, format_position(position).encode()


def _asks(scope: Scope) -> tuple[bytes | None, int | None]:
    """The caller's hash, None for a stranger, and the place that the request names."""
    secret, position = None, None
    for name, value in scope["headers"]:
        if name == b"authorization":
            secret = value
        elif name == b"cookie" and secret is None:
            token = session_token(value.decode("latin-1"))
            secret = token.encode() if token is not None else None
        elif name == POSITION_HEADER:
            position = parse_position(value.decode("latin-1"))
    return (None if secret is None else sha256(secret).digest()), position
