"""Return-paths of our own: each delivery has one, and what comes back to it says whose it is.

`b_01jz…-k3vd…@bounce.example.com`: the delivery's id and a MAC over it (HMAC-SHA256, 80 bits), so
that nobody can make up a bounce of a delivery, or find deliveries by trying. 45 octets, where RFC
5321 section 4.5.3.1.1 allows 64. Only letters and digits that survive a change of case are used,
because peers write local parts in either. Mail that is sent on for somebody else leaves under his
address, rewritten (`sending.srs`).

Keys are rotated by putting the new one first: it signs, and all are honoured.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from hashlib import sha256
from uuid import UUID

from mailyard.core import ids
from mailyard.core.errors import ConfigurationError, InvalidInput
from mailyard.sending.srs import SenderRewriting

KEY_BYTES = 32  # RFC 2104 section 3: as long as the hash
_NOT_IN_DNS = frozenset(("localhost", "local", "internal", "lan", "home", "invalid"))
_PREFIX = "b"
_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS = [one + other for one in _LETTERS for other in _LETTERS]
_40_BITS = (1 << 40) - 1
Keyed = tuple["hashlib._Hash", "hashlib._Hash"]
_MAC_BYTES = 10  # 80 bits, 16 letters: 2^79 tries for one forged bounce
_PURPOSE = b"mailyard return-path 1\0"  # the key may serve other purposes
# Also inside what a forwarder put around it (SRS, BATV): `prvs=0123=b_01jz…-k3vd…`.
_SIGNED = re.compile(r"(?<![0-9a-z])b_([0-7][0-9a-hjkmnp-tv-z]{25})-([a-z2-7]{16})(?![0-9a-z])")
_ADDRESS_CHARACTERS = 320


def is_public(name: str) -> bool:
    """Whether a host name can stand in the DNS that everybody sees (RFC 6761, RFC 6762)."""
    _, dot, last = name.lower().rpartition(".")
    return bool(dot) and last not in _NOT_IN_DNS and not last.isdigit()


class ReturnPaths:
    """Makes and reads return-paths. `keys`: the one that signs, then those before it.

    Raises ConfigurationError when there is none, or one of less than 32 bytes.
    """

    def __init__(self, *, domain: str, keys: Sequence[bytes]) -> None:
        if not keys:
            raise ConfigurationError("return-paths need a key")
        if any(len(key) < KEY_BYTES for key in keys):
            raise ConfigurationError(f"a return-path key needs at least {KEY_BYTES} bytes")
        self._domain = domain
        self._is_public = is_public(domain)
        self._keys = tuple(_keyed(bytes(key)) for key in keys)
        self.rewriting = SenderRewriting([bytes(key) for key in keys])

    def address_for(self, delivery_id: UUID, domain: str = "") -> str:
        """The return-path of a delivery, under `domain` or under the one that all share."""
        signed = f"{ids.type_id(_PREFIX, delivery_id)}-{_mac(self._keys[0], delivery_id)}"
        return f"{signed}@{domain or self._domain}"

    def reverse_path(
        self, delivery_id: UUID, recipient: str, otherwise: str, domain: str = ""
    ) -> str:
        """What a mail leaves under: its return-path, or `otherwise` where nobody could answer it.

        A name that only this machine knows is for recipients of such names: a mail system that
        looks for it in DNS would refuse the mail.
        """
        if domain or self._is_public or not is_public(recipient.rpartition("@")[2]):
            return self.address_for(delivery_id, domain)
        return otherwise

    def rewritten_path(
        self, delivery_id: UUID, recipient: str, sender: str, domain: str = ""
    ) -> str:
        """What a mail that is sent on leaves under: `sender` rewritten (SRS), or the delivery's
        return-path where that does not fit; `sender` itself where nobody could answer either."""
        path = self.reverse_path(delivery_id, recipient, sender, domain)
        if path == sender:
            return sender
        return self.rewriting.rewritten(delivery_id, sender, domain or self._domain) or path

    def delivery_of(self, address: str) -> UUID | None:
        """The delivery whose return-path `address` is; None when it is none of ours or forged."""
        local = address[:_ADDRESS_CHARACTERS].rpartition("@")[0] or address[:_ADDRESS_CHARACTERS]
        found = _SIGNED.search(local.lower())
        if found is None:
            return None
        try:
            delivery_id = ids.parse_type_id(_PREFIX, f"{_PREFIX}_{found[1]}")
        except InvalidInput:
            return None
        return delivery_id if self._is_signed(delivery_id, found[2]) else None

    def is_one(self, address: str) -> bool:
        """Whether `address` looks like a return-path, whoever signed it."""
        return _SIGNED.search(address[:_ADDRESS_CHARACTERS].rpartition("@")[0].lower()) is not None

    def find(self, addresses: Iterable[str]) -> UUID | None:
        """The delivery of the first address that is a return-path of ours."""
        for address in addresses:
            delivery_id = self.delivery_of(address)
            if delivery_id is not None:
                return delivery_id
        return None

    def _is_signed(self, delivery_id: UUID, mac: str) -> bool:
        """Whether one of the keys made `mac`; takes as long whichever it is and if none is."""
        honoured = False
        for key in self._keys:
            honoured |= hmac.compare_digest(_mac(key, delivery_id).encode(), mac.encode())
        return honoured


def _keyed(key: bytes) -> Keyed:
    """The two hashes of HMAC-SHA256 (RFC 2104) that have taken in the key, and the purpose: once,
    for every mail of a campaign needs a MAC."""
    block = (key if len(key) <= 64 else sha256(key).digest()).ljust(64, b"\0")
    inner = sha256(bytes(byte ^ 0x36 for byte in block) + _PURPOSE)
    return inner, sha256(bytes(byte ^ 0x5C for byte in block))


def _mac(key: Keyed, delivery_id: UUID) -> str:
    inner, outer = key[0].copy(), key[1].copy()
    inner.update(delivery_id.bytes)
    outer.update(inner.digest())
    # Base32 (RFC 4648 section 6) in lower case, two letters at once.
    value = int.from_bytes(outer.digest()[:_MAC_BYTES], "big")
    p, a, b = _PAIRS, value >> 40, value & _40_BITS
    return (
        f"{p[a >> 30]}{p[a >> 20 & 1023]}{p[a >> 10 & 1023]}{p[a & 1023]}"
        f"{p[b >> 30]}{p[b >> 20 & 1023]}{p[b >> 10 & 1023]}{p[b & 1023]}"
    )
