"""Which DNS servers are asked: those of a setting, else the system's (resolv.conf)."""

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from mailyard.core.errors import ConfigurationError

SERVERS = 8  # asked in turn; the system's own resolver takes three
_RESOLV_CONF = Path("/etc/resolv.conf")


@dataclass(frozen=True, slots=True)
class DnsServer:
    """A recursive resolver. `validates`: its AD bit is believed, for it checks DNSSEC and nobody
    can change packets between it and us (RFC 4035 section 4.9.3)."""

    address: str
    port: int = 53
    validates: bool = False

    def __str__(self) -> str:
        return (
            f"[{self.address}]:{self.port}"
            if ":" in self.address
            else f"{self.address}:{self.port}"
        )


def parse_servers(text: str, *, validates: bool) -> tuple[DnsServer, ...]:
    """The servers of a setting: `127.0.0.1, 192.0.2.1:5353 [2001:db8::1]:53`, in order of use.

    Raises ConfigurationError naming what is no address.
    """
    servers = tuple(_server(word, validates) for word in text.replace(",", " ").split())
    if not 0 < len(servers) <= SERVERS:
        raise ConfigurationError(
            f"name 1 to {SERVERS} DNS servers, by address; {text!r} is not that"
        )
    return servers


def system_servers(file: Path = _RESOLV_CONF) -> tuple[DnsServer, ...]:
    """The servers of resolv.conf; this machine's own when it names none, as resolv.conf(5) says.

    The AD bit is believed with `options trust-ad`, which means the same there. Raises
    ConfigurationError when a line names no address.
    """
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    words = [line.split("#")[0].split(";")[0].split() for line in lines]
    validates = any(one and one[0] == "options" and "trust-ad" in one[1:] for one in words)
    named = [one[1] for one in words if len(one) > 1 and one[0] == "nameserver"]
    return tuple(
        DnsServer(_address(text, f"{file}: "), validates=validates)
        for text in named[:SERVERS] or ["127.0.0.1"]
    )


def _server(word: str, validates: bool) -> DnsServer:
    host, port = word, "53"
    if word.startswith("["):
        host, closed, rest = word[1:].partition("]")
        port = (rest.removeprefix(":") or "53") if closed else ""
    elif word.count(":") == 1:
        host, _, port = word.partition(":")
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65_536):
        raise ConfigurationError(f"{word!r}: {port!r} is no port of a DNS server")
    return DnsServer(_address(host, ""), int(port), validates)


def _address(text: str, where: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise ConfigurationError(
            f"{where}{text!r} is no address of a DNS server; write one like 127.0.0.1:53"
        ) from None
