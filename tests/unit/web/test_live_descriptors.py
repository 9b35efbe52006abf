"""Finding a connection among a process's descriptors."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from mailyard.web.live.descriptor import Descriptors


class House:
    """A listening socket, with both ends of each of its connections."""

    def __init__(self, stack: ExitStack, family: int = socket.AF_INET) -> None:
        self._stack = stack
        self._family = family
        host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        self._listener = stack.enter_context(socket.socket(family))
        self._listener.bind((host, 0))
        self._listener.listen()

    def connection(self) -> tuple[socket.socket, socket.socket, dict[str, Any]]:
        """(the client's end, the server's, what ASGI says of it)."""
        client = self._stack.enter_context(socket.socket(self._family))
        client.connect(self._listener.getsockname())
        accepted, (host, port, *_) = self._listener.accept()
        self._stack.enter_context(accepted)
        server = self._listener.getsockname()[:2]
        return client, accepted, {"client": (host, str(port)), "server": tuple(map(str, server))}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def house(stack: ExitStack) -> House:
    return House(stack)


def test_the_connection_is_found_among_many_and_no_other(house: House) -> None:
    descriptors = Descriptors(100)
    some = [house.connection() for _ in range(40)]
    for client, accepted, scope in reversed(some):
        copy = descriptors.copy_of(scope)
        assert copy is not None
        accepted.close()  # ours stays open when the server's goes
        client.sendall(b"to you")
        copy.socket.setblocking(True)
        assert copy.socket.recv(100) == b"to you"
        assert copy.socket.getpeername() == client.getsockname()
    assert descriptors.open == 40


def test_a_number_that_was_anothers_is_found_again(house: House) -> None:
    descriptors = Descriptors(100)
    before = house.connection()
    assert descriptors.copy_of({"client": ("127.0.0.1", "1"), "server": ("", "2")}) is None
    number = before[1].fileno()
    before[1].close()
    client, accepted, scope = house.connection()
    assert number in (client.fileno(), accepted.fileno()), "the lowest that is free"
    assert descriptors.copy_of(scope) is not None


def test_what_was_given_back_is_anybodys(house: House) -> None:
    descriptors = Descriptors(1)
    _, _, scope = house.connection()
    for _ in range(3):
        copy = descriptors.copy_of(scope)
        assert copy is not None
        assert descriptors.copy_of(house.connection()[2]) is None, "one at a time"
        copy.release()
        copy.release()
    assert descriptors.open == 0


def test_who_is_not_here_is_not_found(house: House) -> None:
    descriptors = Descriptors(10)
    client, _, scope = house.connection()
    assert descriptors.copy_of({}) is None
    other_port = {**scope, "server": ("127.0.0.1", "1")}
    assert descriptors.copy_of(other_port) is None, "a connection to another port"
    # The client's own end has the same two addresses, the other way round.
    host, port = client.getpeername()
    turned = {"client": (host, str(port)), "server": scope["server"]}
    assert descriptors.copy_of(turned) is None


def test_cutting_resets_what_the_peer_has_not_read(house: House) -> None:
    client, accepted, scope = house.connection()
    copy = Descriptors(10).copy_of(scope)
    assert copy is not None
    copy.socket.send(b"x" * 10_000_000)
    copy.cut()
    with pytest.raises(OSError, match="pipe"):
        accepted.send(b"more")
    copy.release()
    accepted.close()
    with pytest.raises(ConnectionResetError):
        while client.recv(1 << 20):
            pass


def test_an_address_of_ipv6_is_found(stack: ExitStack) -> None:
    _, accepted, scope = House(stack, socket.AF_INET6).connection()
    copy = Descriptors(10).copy_of(scope)
    assert copy is not None
    assert copy.socket.getpeername() == accepted.getpeername()
