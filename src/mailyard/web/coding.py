"""Content codings (RFC 9110 8.4.1): which one a client takes, and bytes in it.

The libraries are loaded when somebody first asks for what they make.
"""

import zlib
from collections.abc import Sequence

ZSTD, BROTLI, GZIP = "zstd", "br", "gzip"
_CHARACTERS = 1_000  # of a header that are read; browsers send thirty


def choose(accepted: str, offered: Sequence[str]) -> str | None:
    """The coding of `offered` that the header likes best, the first of those it likes equally.

    None: as it is. What the header does not name is not sent, but for `*`.
    """
    weights: dict[str, float] = {}
    for piece in accepted[:_CHARACTERS].lower().split(","):
        name, _, parameter = piece.partition(";")
        weights[name.strip()] = _weight(parameter)
    rest = weights.get("*", 0.0)
    best = max(offered, key=lambda name: weights.get(name, rest), default=None)
    if best is None or weights.get(best, rest) <= 0.0:
        return None
    # Who likes the plain form better says so.
    return best if weights.get(best, rest) >= weights.get("identity", 0.0) else None


def _weight(parameter: str) -> float:
    name, _, value = parameter.partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return min(1.0, max(0.0, float(value)))
    except ValueError:
        return 0.0


def pack(coding: str, content: bytes, *, once: bool) -> bytes:
    """`content` in `coding`. `once`: as small as can be, for what is packed once and sent often;
    else at a price that a single answer is worth."""
    if coding == ZSTD:
        import zstandard

        return zstandard.ZstdCompressor(level=19 if once else 3).compress(content)
    if coding == BROTLI:
        import brotli

        packed: bytes = brotli.compress(content, quality=11 if once else 4)
        return packed
    assert coding == GZIP, "nothing else is offered"
    packer = zlib.compressobj(9 if once else 5, zlib.DEFLATED, 31)
    return packer.compress(content) + packer.flush()
