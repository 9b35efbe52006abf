"""A mail as DKIM sees it: header fields from top to bottom and a body, each canonical form once.

One `Mail` serves all signatures that are made or verified on a message: what two of them have in
common (the body's hash, the signed fields) is computed for the first.
"""

import re
from collections.abc import Iterable, Mapping
from hashlib import sha256

from mailyard.core import limits
from mailyard.protocol.dkim.canonical import CRLF, RELAXED, canonical_body, relaxed_field

# Name in lower case, value as sent, and the whole as sent; without the last CRLF.
Field = tuple[bytes, bytes, bytes]

# What is looked at for fields; no server takes more than a few hundred KiB of headers.
HEADER_BYTES = 1 * limits.MIB
_BETWEEN_FIELDS = re.compile(rb"\r\n(?![ \t])")


class Mail:
    """`content` split once. Any bytes do; `oversized` ones have more headers than are looked at,
    and no fields.
    """

    __slots__ = ("_bodies", "_hashes", "_joined", "_places", "body", "fields", "oversized")

    def __init__(self, content: bytes) -> None:
        head, self.body = split(content)
        self.oversized = len(head) > HEADER_BYTES
        self.fields: list[Field] = [] if self.oversized else fields_of(head)
        self._places: Mapping[bytes, list[int]] | None = None
        self._bodies: dict[str, bytes] = {}
        self._hashes: dict[tuple[str, int | None], bytes] = {}
        self._joined: dict[tuple[str, tuple[int, ...]], bytes] = {}

    @property
    def places(self) -> Mapping[bytes, list[int]]:
        """Where the fields of a name are, from the top."""
        if self._places is None:
            self._places = places_of(name for name, _, _ in self.fields)
        return self._places

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

    def canonical_fields(self, kind: str, places: tuple[int, ...]) -> bytes:
        """The fields at `places` in that order, canonical, each with its CRLF."""
        key = (kind, places)
        joined = self._joined.get(key)
        if joined is None:
            lines = [canonical_field(kind, self.fields[at]) for at in places]
            joined = self._joined[key] = CRLF.join((*lines, b""))
        return joined

    def chosen(self, names: Iterable[bytes], besides: int = -1) -> tuple[int, ...]:
        """The places of the fields that h=`names` signs, in its order.

        A name that is there again means the next field further up; one too many means that there
        is no further field (section 5.4.2). `besides` is the place of the signature itself, which
        never signs itself (section 3.5, h=).
        """
        left: dict[bytes, int] = {}
        chosen = []
        of_name = self.places
        for name in names:
            places = of_name.get(name)
            if places is None:
                continue
            at = left.get(name, len(places)) - 1
            if at >= 0 and places[at] == besides:
                at -= 1
            left[name] = max(at, 0)
            if at >= 0:
                chosen.append(places[at])
        return tuple(chosen)


def canonical_field(kind: str, field: Field) -> bytes:
    """`field` under `kind`, without its CRLF."""
    name, value, raw = field
    return relaxed_field(name, value) if kind == RELAXED else raw


def split(content: bytes) -> tuple[bytes, bytes]:
    """Header fields without the last CRLF, and the body behind the empty line."""
    if content.startswith(CRLF):
        return b"", content[len(CRLF) :]
    end = content.find(b"\r\n\r\n")
    if end < 0:
        return content.removesuffix(CRLF), b""
    return content[:end], content[end + 4 :]


def lines_of(head: bytes) -> list[bytes]:
    """The fields of `head` as they are: every line with its continuations."""
    return _BETWEEN_FIELDS.split(head)


def field_of(raw: bytes) -> Field:
    """One of `lines_of`, read; its name is empty where it is no field."""
    name, colon, value = raw.partition(b":")
    return name.rstrip(b" \t").lower() if colon else b"", value, raw


def fields_of(head: bytes) -> list[Field]:
    """All of `lines_of`, read."""
    return [field_of(raw) for raw in lines_of(head)]


def places_of(names: Iterable[bytes]) -> dict[bytes, list[int]]:
    """Where each of `names` is; no name has no place."""
    places: dict[bytes, list[int]] = {}
    for at, name in enumerate(names):
        if name in places:
            places[name].append(at)
        elif name:
            places[name] = [at]
    return places
