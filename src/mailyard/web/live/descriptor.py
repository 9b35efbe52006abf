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

from mailyard.web.protocol import Scope

_FIRST = 3  # behind stdin, stdout and stderr
_ROOMY = socket.AF_INET6  # an address of either family fits; which it is the kernel says
_AHEAD = 64  # descriptors that are looked at beyond the highest known

Address = tuple[str, int]
_NOBODY: Address = ("", 0)  # open, and no connection to our port
# What is known of a descriptor: nothing (or that it was closed), another's, one of ours.
_UNKNOWN, _OTHER, _OURS = 0, 1, 2


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

    Each descriptor is looked at once and its peer remembered, until it turns out to be somebody
    else's by now. A new connection has the lowest number that was free, so what is not known lies
    in front of what has long been known.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._known = bytearray(_AHEAD)
        self._peers: dict[int, Address] = {}  # of connections to our port that nobody asked for
        self._numbers: dict[Address, int] = {}  # the same, the other way round
        self.open = 0

    def copy_of(self, scope: Scope) -> Copy | None:
        """A copy of the descriptor over which the request `scope` came, or None."""
        client, server = scope.get("client"), scope.get("server")
        if self.open >= self.most or not client or not server:
            return None
        peer, port = (str(client[0]), int(client[1])), int(server[1])
        return (
            self._remembered(peer, port)
            or self._find(_UNKNOWN, peer, port)
            or self._find(_OTHER, peer, port)
            or (self._find(_UNKNOWN, peer, port) if self._see_further() else None)
        )

    def forget(self, numbers: tuple[int, ...]) -> None:
        """Those may be anybody's from now on."""
        self.open -= 1
        for number in numbers:
            self._mark(number, _UNKNOWN)

    def _remembered(self, peer: Address, port: int) -> Copy | None:
        number = self._numbers.get(peer)
        copied = None if number is None else _copied(number, peer, port)
        return None if number is None or copied is None else self._take(number, copied)

    def _find(self, known: int, peer: Address, port: int) -> Copy | None:
        at = _FIRST
        while (at := self._known.find(known, at)) >= 0:
            held = _peer_at(at, port)
            if held == peer and (copied := _copied(at, peer, port)):
                return self._take(at, copied)
            self._mark(at, _UNKNOWN if held is None else _OTHER)
            if held is not None and held != _NOBODY:
                self._peers[at] = held
                self._numbers[held] = at
            at += 1
        return None

    def _take(self, number: int, copied: socket.socket) -> Copy:
        self._mark(number, _OURS)
        self._mark(copied.fileno(), _OURS)
        self.open += 1
        return Copy(self, number, copied)

    def _see_further(self) -> bool:
        """Know of all descriptors there are; False: it is so already."""
        with os.scandir("/dev/fd") as found:
            highest = max(int(one.name) for one in found)
        more = highest + 1 - len(self._known)
        self._known += bytes(max(0, more))
        return more > 0

    def _mark(self, number: int, known: int) -> None:
        if known != _UNKNOWN:  # behind an open one there are soon more
            self._known += bytes(max(0, number + _AHEAD - len(self._known)))
        self._known[number] = known
        before = self._peers.pop(number, None)
        if before is not None and self._numbers.get(before) == number:
            del self._numbers[before]


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
    """Who is at the other end of a connection to our `port`; _NOBODY for anything else that is
    open, None for what is closed."""
    try:
        looked_at = socket.socket(_ROOMY, socket.SOCK_STREAM, 0, fileno=number)
    except OSError as error:
        return None if error.errno == errno.EBADF else _NOBODY
    try:
        host, own = looked_at.getpeername(), looked_at.getsockname()
        return (host[0].partition("%")[0], host[1]) if own[1] == port else _NOBODY
    except (OSError, IndexError, TypeError, AttributeError):  # not connected; of another family
        return _NOBODY
    finally:
        looked_at.detach()
