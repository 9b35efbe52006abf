"""What a link of ours carries: a delivery and a subject, signed, in 56 characters.

    16 bytes delivery | 16 bytes subject | 10 bytes MAC        in the URL-safe alphabet, no padding

The subject of a click is the link, of everything else the workspace. The MAC is keyed BLAKE2b
(RFC 7693) over purpose, delivery and subject: 80 bits, which can only be tried online. A MAC of any
master key that is among the settings is good.
"""

import binascii
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
    def _keys(self) -> dict[bytes, Keys]:
        link, unsubscribe = self._keys_for("link"), self._keys_for("unsubscribe")
        return {CLICK: link, OPEN: link, PREFERENCES: unsubscribe}

    def maker(self, wanted: Iterable[tuple[bytes, UUID]]) -> "Maker":
        """What makes the tokens of (purpose, subject) for one delivery after the other."""
        return Maker([(purpose, one.bytes, self._keys[purpose][0]) for purpose, one in wanted])

    def read(self, purpose: bytes, text: str) -> Token | None:
        """What `text` says; None when it was not made here, or for another purpose."""
        if len(text) != CHARACTERS or not text.isascii():
            return None
        try:
            raw = binascii.a2b_base64(text.encode().translate(_FROM_URL), strict_mode=True)
        except binascii.Error:
            return None
        if len(raw) != _BYTES:
            return None
        said, mac = purpose + raw[:32], raw[32:]
        for key in self._keys[purpose]:
            if compare_digest(blake2b(said, digest_size=_MAC_BYTES, key=key).digest(), mac):
                return Token(raw[:16], raw[16:32])
        return None


class Maker:
    """Makes the same few tokens for one delivery after the other, a microsecond each."""

    __slots__ = ("_wanted",)

    def __init__(self, wanted: Sequence[tuple[bytes, bytes, bytes]]) -> None:
        self._wanted = wanted

    def make(self, delivery: bytes) -> list[str]:
        """The tokens of the delivery with these 16 bytes, in order."""
        pieces = []
        for purpose, subject, key in self._wanted:
            said = delivery + subject
            pieces.append(said)
            pieces.append(blake2b(purpose + said, digest_size=_MAC_BYTES, key=key).digest())
        text = binascii.b2a_base64(b"".join(pieces), newline=False).translate(_TO_URL).decode()
        return [text[at : at + CHARACTERS] for at in range(0, len(text), CHARACTERS)]
