"""Who listens, by what they have shown: a key that is revoked, a session that ends, ends streams.

A stream lives for hours, so what let it in is looked at again and again; once for all streams that
have shown the same.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from mailyard.access.authenticate import Principal
from mailyard.core.errors import MailyardError, NotAllowed, NotAuthenticated
from mailyard.web.live.stream import End, Stream
from mailyard.web.protocol import Scope

Authenticate = Callable[[Scope], Awaitable[Principal]]
Credential = tuple[tuple[bytes, bytes], ...]  # the headers that say who asks
_TELLING = (b"authorization", b"cookie")


class Guests:
    """The streams of this process by credential; `scope` is what each needs."""

    def __init__(self, authenticate: Authenticate, scope: str) -> None:
        self._authenticate = authenticate
        self._scope = scope
        self._by_credential: dict[Credential, set[Stream]] = {}

    @contextmanager
    def listening(self, scope: Scope, stream: Stream) -> Iterator[None]:
        """Have `stream` ended once what its request has shown is good no more."""
        shown = tuple((name, value) for name, value in scope["headers"] if name.lower() in _TELLING)
        streams = self._by_credential.setdefault(shown, set())
        streams.add(stream)
        try:
            yield
        finally:
            streams.discard(stream)
            if not streams and self._by_credential.get(shown) is streams:
                del self._by_credential[shown]

    async def look(self) -> None:
        """Ask for each credential once more."""
        for shown, streams in list(self._by_credential.items()):
            if not streams:
                continue
            workspaces = {stream.workspace_id for stream in streams}
            try:
                scope: Scope = {"type": "http", "method": "GET", "headers": list(shown)}
                principal = await self._authenticate(scope)
                principal.require(self._scope)
                workspaces.discard(principal.workspace_id)
            except (NotAuthenticated, NotAllowed):
                pass
            except MailyardError:
                continue  # nobody knows now: the database is away
            # A session may have gone on in another workspace: its streams of before end.
            for stream in list(streams):
                if stream.workspace_id in workspaces:
                    stream.end(End.REVOKED)
            await asyncio.sleep(0)
