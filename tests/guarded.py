"""A world without a network for the guarded client: a resolver that lies, and connections that are
only noted."""

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

Answers = Callable[[str], Sequence[str]]
_real = socket.getaddrinfo


class Noted(ConnectionRefusedError):
    """Where a connection would have gone."""


@contextmanager
def hostile_network(monkeypatch: pytest.MonkeyPatch, answers: Answers) -> Iterator[list[str]]:
    """Names stand for what `answers` says; yields the addresses that were connected to. Numbers in
    any spelling are read as the system reads them."""
    connected: list[str] = []

    def getaddrinfo(
        host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Any:
        flags &= ~socket.AI_ADDRCONFIG
        text = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
        try:
            return _real(text, port, family, type, proto, flags | socket.AI_NUMERICHOST)
        except (socket.gaierror, UnicodeError):
            found = []
            for address in answers(text):
                found += _real(address, port, family, type, proto, flags)
            if not found:
                raise socket.gaierror(socket.EAI_NONAME, "no such name") from None
            return found

    async def sock_connect(_loop: Any, _sock: Any, address: Any) -> None:
        connected.append(address[0])
        raise Noted(111, "nothing is connected to here")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        patch.setattr("asyncio.selector_events.BaseSelectorEventLoop.sock_connect", sock_connect)
        yield connected
