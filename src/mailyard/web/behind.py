"""Who is behind a load balancer: the client and the scheme of a request, as it passed them on.

Believed of listed addresses only, read from the right: each balancer adds whom it heard from, and
what stands further left anybody may have written.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from mailyard.net.guard import Network
from mailyard.web.protocol import Asgi, Receive, Scope, Send

_HOPS = 32  # more are not looked at


class Behind:
    """`app` as it is for who stands behind `balancers`."""

    def __init__(self, app: Asgi, balancers: Sequence[Network]) -> None:
        self._app = app
        self._balancers = tuple(balancers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        if client and self._is_balancer(_address(client[0])):
            scope = self._seen(scope, client[0])
        await self._app(scope, receive, send)

    def _seen(self, scope: Scope, peer: str) -> Scope:
        heard: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            if name in (b"x-forwarded-for", b"x-forwarded-proto"):
                heard.setdefault(name, []).extend(value.split(b","))
        seen = dict(scope)
        seen["client"] = (self._client(heard.get(b"x-forwarded-for", []), peer), 0)
        protos = heard.get(b"x-forwarded-proto", [])
        if protos:
            secure = protos[-1].strip().lower() == b"https"
            if scope["type"] == "websocket":
                seen["scheme"] = "wss" if secure else "ws"
            else:
                seen["scheme"] = "https" if secure else "http"
        return seen

    def _client(self, named: Sequence[bytes], peer: str) -> str:
        """The nearest that is no balancer; the furthest balancer where all are."""
        for one in reversed(named[-_HOPS:]):
            address = _address(one.decode("latin-1").strip().strip('"[]'))
            if address is None:
                break  # what a balancer cannot name, nobody behind it is believed about
            peer = str(address)
            if not self._is_balancer(address):
                break
        return peer

    def _is_balancer(self, address: IPv4Address | IPv6Address | None) -> bool:
        return address is not None and any(address in network for network in self._balancers)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
