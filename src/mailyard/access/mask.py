"""A secret that stands in compressed answers: under another mask each time.

Whoever measures how well a page compresses beside text of his own learns what stands in it twice.
The token against forged requests is the same for a whole session; masked it never is.
"""

import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error

_MARK = "m."


def masked(token: str) -> str:
    """`token` under a fresh mask, as text of letters, digits, - and _ behind `m.`."""
    plain = token.encode()
    mask = secrets.token_bytes(len(plain))
    both = mask + bytes(a ^ b for a, b in zip(mask, plain, strict=True))
    return _MARK + urlsafe_b64encode(both).decode().rstrip("=")


def unmasked(text: str) -> str:
    """The token that was masked; `text` itself when it is under no mask."""
    if not text.startswith(_MARK):
        return text
    packed = text.removeprefix(_MARK)
    try:
        both = urlsafe_b64decode(packed + "=" * (-len(packed) % 4))
    except (ValueError, Error):
        return text
    half = len(both) // 2
    plain = bytes(a ^ b for a, b in zip(both[:half], both[half:], strict=False))
    return plain.decode("latin-1")
