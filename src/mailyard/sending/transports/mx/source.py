"""The address that a mail leaves from."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from mailyard.protocol.dns_answer import Address


@dataclass(frozen=True, slots=True)
class Source:
    """`name` stands in keys and on pages; "" is whatever the system picks.

    `hello`: the name in EHLO, which the reverse names of the addresses should lead to (RFC 5321
    section 4.1.4 lets no receiver insist on it, and the large ones do).
    """

    name: str
    hello: str
    four: IPv4Address | None = None
    six: IPv6Address | None = None

    def local(self, peer: Address) -> tuple[str, int] | None:
        """What a socket to `peer` is bound to; None: whatever the system picks."""
        own = self.four if isinstance(peer, IPv4Address) else self.six
        return None if own is None else (str(own), 0)

    def reaches(self, peer: Address) -> bool:
        """Whether it has an address of the family of `peer`."""
        if self.four is None and self.six is None:
            return True
        return (self.four if isinstance(peer, IPv4Address) else self.six) is not None
