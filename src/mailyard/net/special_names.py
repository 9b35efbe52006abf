"""Names that no public DNS server knows (IANA special-use domain names), which are not asked for.

Servers that the settings name may know private ones (RFC 6761 section 6.2, RFC 6762): then only
those stay unasked that are defined to have no records at all.
"""

from collections.abc import Callable

_NOWHERE = frozenset(("localhost", "invalid", "onion", "alt"))  # RFC 6761, 7686, 9476
_PRIVATE = frozenset(("test", "local", "example", "internal", "lan", "home", "corp", "localdomain"))
_PRIVATE_BELOW = ("home.arpa",)  # RFC 8375


def unasked(*, own_servers: bool) -> Callable[[str], bool]:
    """Whether nobody needs to be asked about a name, for it cannot exist. `own_servers`: the
    settings name the DNS servers."""
    tops = _NOWHERE if own_servers else _NOWHERE | _PRIVATE

    def is_unasked(name: str) -> bool:
        _, _, top = name.rpartition(".")
        if top.lower() in tops:
            return True
        return not own_servers and name.lower().endswith(_PRIVATE_BELOW)

    return is_unasked
