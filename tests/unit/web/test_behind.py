"""Whom a request is from when balancers stand in front."""

import asyncio
from typing import Any

import pytest

from mailyard.net.guard import networks
from mailyard.web.behind import Behind


def seen(peer: str, *headers: tuple[str, str], kind: str = "http") -> dict[str, Any]:
    """The scope as the application gets it behind balancers of 10.0.0.0/8 and ::1."""
    found: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.append(scope)

    scope = {
        "type": kind,
        "client": (peer, 4711),
        "scheme": "http" if kind == "http" else "ws",
        "headers": [(name.encode(), value.encode()) for name, value in headers],
    }
    asyncio.run(Behind(app, networks(["10.0.0.0/8", "::1"]))(scope, None, None))  # type: ignore[arg-type]
    return dict(found[0])


FOR = "x-forwarded-for"
PROTO = "x-forwarded-proto"


def test_a_stranger_is_who_it_connects_as_whatever_it_says() -> None:
    scope = seen("192.0.2.9", (FOR, "198.51.100.1"), (PROTO, "https"))
    assert scope["client"] == ("192.0.2.9", 4711) and scope["scheme"] == "http"


@pytest.mark.parametrize(
    ("said", "client"),
    [
        (["198.51.100.1"], "198.51.100.1"),
        (["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
        (["1.1.1.1", "198.51.100.1, 10.1.1.1"], "198.51.100.1"),
        (["2001:db8::1, [::1]"], "2001:db8::1"),
        (["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        (["198.51.100.1, unknown"], "10.0.0.1"),
        ([""], "10.0.0.1"),
        ([], "10.0.0.1"),
    ],
)
def test_behind_a_balancer_it_is_the_nearest_that_is_none(said: list[str], client: str) -> None:
    assert seen("10.0.0.1", *[(FOR, one) for one in said])["client"][0] == client


def test_the_scheme_is_what_the_nearest_balancer_was_spoken_to_with() -> None:
    assert seen("10.0.0.1", (PROTO, "https"))["scheme"] == "https"
    assert seen("::1", (PROTO, "https, http"))["scheme"] == "http"
    assert seen("10.0.0.1", (PROTO, "https"), kind="websocket")["scheme"] == "wss"
    assert seen("10.0.0.1")["scheme"] == "http"
