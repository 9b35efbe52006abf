"""Which addresses an outgoing fetch may connect to: the public ones, and those that settings allow.

What users write into a webhook or a template must never reach the machine's own services, the
neighbours in its network or a cloud's metadata service. So the rule is asked with the address that
is about to be connected to, not with a name. The tables are IANA's special-purpose registries
(RFC 6890), less what is reachable from everywhere.
"""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from mailyard.core.errors import ConfigurationError

Network = IPv4Network | IPv6Network

_IPV4 = {
    IPv4Network("0.0.0.0/8"): "this network (RFC 791)",
    IPv4Network("10.0.0.0/8"): "private (RFC 1918)",
    IPv4Network("100.64.0.0/10"): "shared by a provider's customers (RFC 6598)",
    IPv4Network("127.0.0.0/8"): "this machine (RFC 1122)",
    IPv4Network("169.254.0.0/16"): "link-local, where clouds keep their metadata (RFC 3927)",
    IPv4Network("172.16.0.0/12"): "private (RFC 1918)",
    IPv4Network("192.0.0.0/24"): "for protocols (RFC 6890)",
    IPv4Network("192.0.2.0/24"): "documentation (RFC 5737)",
    IPv4Network("192.88.99.0/24"): "6to4 relays (RFC 7526)",
    IPv4Network("192.168.0.0/16"): "private (RFC 1918)",
    IPv4Network("198.18.0.0/15"): "benchmarks (RFC 2544)",
    IPv4Network("198.51.100.0/24"): "documentation (RFC 5737)",
    IPv4Network("203.0.113.0/24"): "documentation (RFC 5737)",
    IPv4Network("224.0.0.0/4"): "multicast (RFC 1112)",
    IPv4Network("240.0.0.0/4"): "reserved (RFC 1112)",
}
_GLOBAL_UNICAST = IPv6Network("2000::/3")  # RFC 4291 section 2.4: nothing else is given out
_IPV6 = {
    IPv6Network("2001::/23"): "for protocols, Teredo too (RFC 2928)",
    IPv6Network("2001:db8::/32"): "documentation (RFC 3849)",
    IPv6Network("2002::/16"): "6to4 (RFC 3056)",
    IPv6Network("3fff::/20"): "documentation (RFC 9637)",
}
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
_ADDRESSES_REMEMBERED = 4096


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """`10.1.0.0/16`, `::1`, … as networks. Raises ConfigurationError naming the wrong one."""
    found = []
    for text in texts:
        try:
            found.append(ip_network(text))
        except ValueError as error:
            raise ConfigurationError(
                f"{text!r} is no network of addresses ({error}); write it as 10.1.0.0/16"
            ) from None
    return tuple(found)


def networks_in(text: str) -> tuple[Network, ...]:
    """The networks of a setting, with commas between. Raises as `networks`."""
    return networks(text.replace(",", " ").split())


ANYWHERE = networks(("0.0.0.0/0", "::/0"))  # for what the operator alone names


@lru_cache(maxsize=_ADDRESSES_REMEMBERED)
def refusal(address: str, allowed: tuple[Network, ...]) -> str | None:
    """Why nothing may connect to `address`; None when it may. Raises ValueError on no address."""
    parsed = ip_address(address)
    inner = _inside(parsed)
    if any(one in network for one in (parsed, inner) for network in allowed):
        return None
    if isinstance(inner, IPv4Address):
        return next((reason for network, reason in _IPV4.items() if inner in network), None)
    if inner not in _GLOBAL_UNICAST:
        return "not a global unicast address (RFC 4291)"
    return next((reason for network, reason in _IPV6.items() if inner in network), None)


def _inside(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 one stands for, else the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return IPv4Address(address.packed[-4:])
    return address
