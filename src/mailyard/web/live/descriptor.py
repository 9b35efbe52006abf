"""A second descriptor of a connection that the HTTP server has accepted.

Granian reads WebSockets into 128 KB each (tungstenite's default, which it does not let one set), so
ten thousand of them would take 1.3 GB. It reads only when it is asked to. So once it has answered
the handshake, what a client says is read over a descriptor of our own, and what we say is written
there too (`wire`): Granian keeps its descriptor, holds no buffer, and closes it when the request
ends. Nothing of Granian is changed or reached into: a descriptor is the kernel's, and the
connection is found by its two addresses, which only one connection can have.

Where the connection is not found (its client has gone) or files are scarce, the WebSocket is served
through Granian as any other, and costs more. Never use this behind TLS of Granian's own: what is
read here would be the sealed bytes.
"""

import errno
import os
import socket
from contextlib import suppress
from pathlib import Path

from mailyard.web.protocol import Scope

_FIRST = 3  # behind stdin, stdout and stderr
_ROOMY = socket.AF_INET6  # an address of either family fits; which it is the kernel says
_AHEAD = 64  # descriptors that are looked at beyond the highest known
# What is known of a descriptor: nothing (or that it was closed), another's, one of ours.
_UNKNOWN, _OTHER, _OURS = 0, 1, 2

Address = tuple[str, int]


class Copy:
    """Our descriptor of a connection, until `release`."""

    __slots__ = ("_numbers", "_of", "socket")

    def __init__(self, of: "Descriptors", number: int, copied: socket.socket) -> None:
        self.socket = copied
        self._of = of
        self._numbers: tuple[int, ...] = (number, copied.fileno())

    def cut(self) -> None:
        """End the connection at once, whatever of it is still unsent."""
        with suppress(OSError):
            # Whoever closes the last descriptor resets the connection: a peer that does not read
            # would else keep what is unsent in the kernel's memory for a quarter of an hour.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.hang_up()

    def hang_up(self) -> None:
        """Say no more and hear no more: the server's own descriptor is of no use from here on."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        """Close ours; the server closes its own."""
        if self._numbers:
            self.socket.close()
            self._of.forget(self._numbers)
            self._numbers = ()


class Descriptors:
    """Finds connections among this process's descriptors, at most `most` at a time.

    A new connection has the lowest number that was free, so those that are known as somebody else's
    are looked at last.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._known = bytearray(_AHEAD)
        self.open = 0

    def copy_of(self, scope: Scope) -> Copy | None:
        """A copy of the descriptor over which the request `scope` came, or None."""
        client, server = scope.get("client"), scope.get("server")
        if self.open >= self.most or not client or not server:
            return None
        peer, port = (str(client[0]), int(client[1])), int(server[1])
        found = (
            self._find(_UNKNOWN, peer, port)
            or (self._grow() and self._find(_UNKNOWN, peer, port))
            or self._find(_OTHER, peer, port)
        )
        return found or None

    def forget(self, numbers: tuple[int, ...]) -> None:
        """Those may be anybody's from now on."""
        self.open -= 1
        for number in numbers:
            self._mark(number, _UNKNOWN)

    def _find(self, known: int, peer: Address, port: int) -> Copy | None:
        at = _FIRST
        while (at := self._known.find(known, at)) >= 0:
            held = _peer_at(at, port)
            if held == peer and (copied := _copied(at, peer, port)):
                copy = Copy(self, at, copied)
                self._mark(at, _OURS)
                self._mark(copied.fileno(), _OURS)
                self.open += 1
                return copy
            self._known[at] = _UNKNOWN if held is None else _OTHER
            at += 1
        return None

    def _grow(self) -> bool:
        """Know of more descriptors; False: there are no more."""
        try:
            highest = max(int(one.name) for one in Path("/dev/fd").iterdir())
        except (OSError, ValueError):
            return False
        more = highest + _AHEAD - len(self._known)
        if more < _AHEAD:
            return False
        self._known += bytes(more)
        return True

    def _mark(self, number: int, known: int) -> None:
        if number >= len(self._known):
            self._known += bytes(number + _AHEAD - len(self._known))
        self._known[number] = known


def _copied(number: int, peer: Address, port: int) -> socket.socket | None:
    """A copy of the descriptor, which is looked at once more: what it copies cannot change."""
    try:
        copied = socket.socket(fileno=os.dup(number))
    except OSError:
        return None
    if _peer_at(copied.fileno(), port) == peer:
        copied.setblocking(False)
        return copied
    copied.close()
    return None


def _peer_at(number: int, port: int) -> Address | None:
    """Who is at the other end of a connection to our `port`; ("", 0) for anything else that is
    open, None for what is closed."""
    try:
        looked_at = socket.socket(_ROOMY, socket.SOCK_STREAM, 0, fileno=number)
    except OSError as error:
        return None if error.errno == errno.EBADF else ("", 0)
    try:
        host, own = looked_at.getpeername(), looked_at.getsockname()
        return (host[0].partition("%")[0], host[1]) if own[1] == port else ("", 0)
    except (OSError, IndexError, TypeError, AttributeError):  # not connected; of another family
        return "", 0
    finally:
        looked_at.detach()
