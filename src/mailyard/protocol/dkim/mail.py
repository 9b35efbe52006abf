"""A mail as DKIM sees it: header fields from top to bottom and a body, each canonical form once.

One `Mail` serves all signatures that are made or verified on a message: what two of them have in
common (the body's hash, the signed fields) is computed for the first.
"""

import re
from collections.abc import Iterable, Mapping
from hashlib import sha256

from mailyard.core import limits
from mailyard.protocol.dkim.canonical import CRLF, RELAXED, canonical_body, relaxed_field

Field = tuple[bytes, bytes]  # name in lower case, and the bytes as sent without the last CRLF

# What is looked at for fields; no server takes more than a few hundred KiB of headers.
HEADER_BYTES = 1 * limits.MIB
_BETWEEN_FIELDS = re.compile(rb"\r\n(?![ \t])")


class Mail:
    """`content` split once. Any bytes do; `oversized` ones have more headers than are looked at,
    and no fields.
    """

    __slots__ = ("_bodies", "_hashes", "_signed", "body", "fields", "oversized", "places")

    def __init__(self, content: bytes) -> None:
        head, self.body = split(content)
        self.oversized = len(head) > HEADER_BYTES
        self.fields: list[Field] = [] if self.oversized else fields_of(head)
        self.places: Mapping[bytes, list[int]] = _places(self.fields)  # by name, from the top
        self._bodies: dict[str, bytes] = {}
        self._hashes: dict[tuple[str, int | None], bytes] = {}
        self._signed: dict[tuple[str, tuple[bytes, ...], int], bytes] = {}

    def canonical_body(self, kind: str) -> bytes:
        """The whole body under `kind`, SIMPLE or RELAXED."""
        body = self._bodies.get(kind)
        if body is None:
            body = self._bodies[kind] = canonical_body(kind, self.body)
        return body

    def body_hash(self, kind: str, length: int | None = None) -> bytes:
        """SHA-256 of the canonical body, of its first `length` bytes when given (l=)."""
        key = (kind, length)
        digest = self._hashes.get(key)
        if digest is None:
            body = memoryview(self.canonical_body(kind))[:length]
            digest = self._hashes[key] = sha256(body).digest()
        return digest

    def signed_fields(self, kind: str, names: tuple[bytes, ...], besides: int = -1) -> bytes:
        """The fields that `names` chooses, canonical, each with its CRLF (section 3.7).

        `besides` is the index of the signature itself, which never signs itself (section 3.5, h=).
        """
        key = (kind, names, besides)
        signed = self._signed.get(key)
        if signed is None:
            chosen = self._chosen(names, besides)
            if kind == RELAXED:
                lines = [relaxed_field(name, raw) + CRLF for name, raw in chosen]
            else:
                lines = [raw + CRLF for _, raw in chosen]
            signed = self._signed[key] = b"".join(lines)
        return signed

    def _chosen(self, names: Iterable[bytes], besides: int) -> list[Field]:
        """A name that is there again means the next field further up; one too many means that
        there is no further field (section 5.4.2).
        """
        left: dict[bytes, int] = {}
        chosen = []
        for name in names:
            places = self.places.get(name)
            if places is None:
                continue
            at = left.get(name, len(places)) - 1
            if at >= 0 and places[at] == besides:
                at -= 1
            left[name] = max(at, 0)
            if at >= 0:
                chosen.append(self.fields[places[at]])
        return chosen


def split(content: bytes) -> tuple[bytes, bytes]:
    """Header fields without the last CRLF, and the body behind the empty line."""
    if content.startswith(CRLF):
        return b"", content[len(CRLF) :]
    end = content.find(b"\r\n\r\n")
    if end < 0:
        return content.removesuffix(CRLF), b""
    return content[:end], content[end + 4 :]


def fields_of(head: bytes) -> list[Field]:
    """Every line with its continuations; a name is empty where a line is no field."""
    fields = []
    for raw in _BETWEEN_FIELDS.split(head):
        name, colon, _ = raw.partition(b":")
        fields.append((name.rstrip(b" \t").lower() if colon else b"", raw))
    return fields


def _places(fields: list[Field]) -> dict[bytes, list[int]]:
    places: dict[bytes, list[int]] = {}
    for at, (name, _) in enumerate(fields):
        if name in places:
            places[name].append(at)
        elif name:
            places[name] = [at]
    return places
