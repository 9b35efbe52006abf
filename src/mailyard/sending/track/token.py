"""What a link of ours carries: a delivery and a subject, signed, in 56 characters.

    16 bytes delivery | 16 bytes subject | 10 bytes MAC        in the URL-safe alphabet, no padding

The subject of a click is the link, of everything else the workspace. The MAC is keyed BLAKE2b
(RFC 7693) over purpose, subject and delivery: 80 bits, which can only be tried online. A MAC of any
master key that is among the settings is good.
"""

from binascii import Error as BinasciiError
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from hashlib import blake2b
from hmac import compare_digest
from typing import NamedTuple
from uuid import UUID

CLICK = b"c"
OPEN = b"o"
PREFERENCES = b"u"  # unsubscribing and the preference page: who has the mail may do both

CHARACTERS = 56
_MAC_BYTES = 10
_BYTES = 42
_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_+/", b"+/\x00\x00")

Keys = Sequence[bytes]


class Token(NamedTuple):
    """What a good token says, as the bytes of two UUIDs."""

    delivery: bytes
    subject: bytes


class Tokens:
    """Makes and reads tokens. `keys_for` is the vault's; it is asked when the first is needed."""

    def __init__(self, keys_for: Callable[[str], Keys]) -> None:
        self._keys_for = keys_for

    @cached_property
    def _begun(self) -> dict[bytes, "list[blake2b]"]:
        """Of each purpose, hashes that have taken in a key and the purpose."""
        return {
            purpose: [blake2b(purpose, digest_size=_MAC_BYTES, key=key) for key in keys]
            for purpose, keys in self._keys.items()
        }

    @cached_property
    def _keys(self) -> dict[bytes, Keys]:
        link, unsubscribe = self._keys_for("link"), self._keys_for("unsubscribe")
        return {CLICK: link, OPEN: link, PREFERENCES: unsubscribe}

    def maker(self, wanted: Iterable[tuple[bytes, UUID]]) -> "Maker":
        """What makes the tokens of (purpose, subject) for one delivery after the other."""
        return Maker([(purpose, one.bytes, self._keys[purpose][0]) for purpose, one in wanted])

    def read(self, purpose: bytes, text: str) -> Token | None:
        """What `text` says; None when it was not made here, or for another purpose."""
        if len(text) != CHARACTERS:
            return None
        try:
            raw = a2b_base64(text.encode("ascii").translate(_FROM_URL), strict_mode=True)
        except (BinasciiError, UnicodeEncodeError):
            return None
        if len(raw) != _BYTES:
            return None
        delivery, subject, mac = raw[:16], raw[16:32], raw[32:]
        for begun in self._begun[purpose]:
            ours = begun.copy()
            ours.update(subject)
            ours.update(delivery)
            if compare_digest(ours.digest(), mac):
                return Token(delivery, subject)
        return None


class Maker:
    """Makes the same few tokens for one delivery after the other, less than a microsecond each."""

    __slots__ = ("_begun", "_places")

    def __init__(self, wanted: Sequence[tuple[bytes, bytes, bytes]]) -> None:
        """`wanted`: purpose, subject, key."""
        # Everything but the delivery is hashed beforehand.
        self._begun = [
            (subject, blake2b(purpose + subject, digest_size=_MAC_BYTES, key=key))
            for purpose, subject, key in wanted
        ]
        self._places = [
            slice(at, at + CHARACTERS) for at in range(0, len(wanted) * CHARACTERS, CHARACTERS)
        ]

    def make(self, delivery: bytes) -> list[str]:
        """The tokens of the delivery with these 16 bytes, in order."""
        pieces: list[bytes] = []
        for subject, begun in self._begun:
            mac = begun.copy()
            mac.update(delivery)
            pieces += (delivery, subject, mac.digest())
        text = b2a_base64(b"".join(pieces), newline=False).translate(_TO_URL).decode()
        return [text[place] for place in self._places]
