"""The PROXY protocol, versions 1 and 2: what a load balancer says first about who is behind it.

(haproxy.org, doc/proxy-protocol.txt, revision 2020/03/05.) To be read from listed addresses only:
whoever else could claim to be anybody.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from struct import Struct

from mailyard.core.errors import InvalidInput

V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V1_BYTES = 107  # section 2.1: the longest line, CRLF included
V2_BYTES = 4096  # ours, of at most 65,551: addresses and what balancers add to them (section 2.2)
_V2_START = 16
_LEAST = 12  # no header of either version is shorter
_V4, _V6 = Struct(">4s4sHH"), Struct(">16s16sHH")
_TCP4, _TCP6 = 0x11, 0x21


class BadProxyHeader(InvalidInput):
    """Not a header of the PROXY protocol."""

    code = "bad_proxy_header"


@dataclass(frozen=True, slots=True)
class Source:
    """Who is behind the balancer; the balancer itself where `address` is empty (a health check)."""

    address: str = ""
    port: int = 0


def missing_bytes(data: bytes) -> int:
    """How many bytes behind `data` are surely still the header's; 0 when it is whole.

    `data` may hold more than the header. Raises BadProxyHeader as soon as it cannot be one.
    """
    if len(data) < _LEAST:
        if not (V2_SIGNATURE.startswith(data) or b"PROXY ".startswith(data[:6])):
            raise BadProxyHeader("the connection does not begin with a PROXY header")
        return _LEAST - len(data)
    if data.startswith(V2_SIGNATURE):
        if len(data) < _V2_START:
            return _V2_START - len(data)
        whole = _V2_START + int.from_bytes(data[14:16], "big")
        if whole > V2_BYTES:
            raise BadProxyHeader(
                f"a PROXY header of {whole:,} bytes; at most {V2_BYTES:,} are read"
            )
        return max(0, whole - len(data))
    if not data.startswith(b"PROXY "):
        raise BadProxyHeader("the connection does not begin with a PROXY header")
    if data.find(b"\r\n", 0, V1_BYTES) >= 0:
        return 0
    if len(data) >= V1_BYTES:
        raise BadProxyHeader(f"a PROXY line longer than {V1_BYTES} bytes")
    return 1


def read_source(data: bytes) -> tuple[Source, bytes]:
    """Whom a whole header at the start of `data` names, and what follows it.

    Raises BadProxyHeader.
    """
    if data.startswith(V2_SIGNATURE):
        end = _V2_START + int.from_bytes(data[14:16], "big")
        return _version_2(data[12], data[13], data[_V2_START:end]), data[end:]
    line, _, rest = data.partition(b"\r\n")
    return _version_1(line), rest


def _version_1(line: bytes) -> Source:
    try:
        words = line.decode("ascii").split(" ")
    except UnicodeDecodeError as error:
        raise BadProxyHeader("a PROXY line is ASCII") from error
    if words[1] == "UNKNOWN":
        return Source()
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise BadProxyHeader(f"cannot be read as a PROXY line: {line[:V1_BYTES]!r}")
    try:
        source = ip_address(words[2])
        port = int(words[4])
    except ValueError as error:
        raise BadProxyHeader(f"a PROXY line names no address: {line[:V1_BYTES]!r}") from error
    if source.version != (4 if words[1] == "TCP4" else 6) or not 0 <= port <= 65_535:
        raise BadProxyHeader(f"a PROXY line contradicts itself: {line[:V1_BYTES]!r}")
    return Source(_plain(source), port)


def _version_2(version_and_command: int, family: int, payload: bytes) -> Source:
    version, command = version_and_command >> 4, version_and_command & 0xF
    if version != 2 or command > 1:
        raise BadProxyHeader(f"version {version}, command {command} of the PROXY protocol")
    if command == 0:  # LOCAL: the balancer for itself
        return Source()
    layout = {_TCP4: _V4, _TCP6: _V6}.get(family)
    if layout is None:  # not TCP over IP: nothing that could be checked
        return Source()
    if len(payload) < layout.size:
        raise BadProxyHeader("a PROXY header that ends within its addresses")
    source, _, port, _ = layout.unpack_from(payload)
    return Source(_plain(ip_address(source)), port)


def _plain(address: IPv4Address | IPv6Address) -> str:
    """As a socket would name it: an IPv4 address that travels as IPv6 is an IPv4 address."""
    return str(getattr(address, "ipv4_mapped", None) or address)
