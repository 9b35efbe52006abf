"""Content-Type, Content-Disposition and parameters (RFC 2045 section 5.1, RFC 2231). Linear."""

import re
from collections.abc import Iterator
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from mailyard.core.limits import KIB
from mailyard.protocol.mime import charset
from mailyard.protocol.mime.encoded_word import decode_words

_CACHED_CHARACTERS = 200
_CHARACTERS = 32 * KIB  # of one header
_PARAMETERS = 100  # of one header; the rest is ignored
_SEGMENTS = 100  # RFC 2231 continuations of one parameter

# A piece up to the next semicolon outside quotes. Possessive, so that nothing is read twice.
_PIECE = re.compile(r'(?:[^;"]++|"(?:[^"\\]++|\\.)*+"?)++', re.DOTALL)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_COMMENT = re.compile(r"\([^()]*\)")
_SPACED_SLASH = re.compile(r"\s*+/\s*+")
_QUOTED = re.compile(r'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_NEXT = re.compile(r"\s++([A-Za-z][A-Za-z0-9*-]{0,40}+)=")
_FILE_NAMES = frozenset(("name", "filename"))
_KNOWN = frozenset((
    "name", "filename", "charset", "boundary", "size", "type", "format", "delsp", "creation-date",
    "modification-date", "read-date", "x-unix-mode", "x-mac-type", "x-mac-creator", "method",
))  # fmt: skip
_CONTINUED = re.compile(r"([^*]+)\*(\d{1,3})(\*?)")


class Structured(NamedTuple):
    """`value` in lower case (`text/plain`, `attachment`), and its parameters by lower-case name."""

    value: str
    parameters: MappingProxyType[str, str]


def parse_structured(text: str) -> Structured:
    """Read `value; name=value; …` as it comes. Never raises."""
    if len(text) <= _CACHED_CHARACTERS:
        return _parse_cached(text)
    return _parse(text[:_CHARACTERS])


def _parse(text: str) -> Structured:
    value, _, rest = text.partition(";")
    if "(" in value and "=" not in value:
        value = _COMMENT.sub("", value)
    if " /" in value or "/ " in value:  # RFC 822 had white space between any two words
        value = _SPACED_SLASH.sub("/", value)
    words = value.split(None, 1)
    first = words[0] if words else ""
    if "=" in value:  # `Content-Type: charset=x`, or a semicolon is missing
        rest = f"{value if '=' in first else words[1]};{rest}"
        first = "" if "=" in first else first
    first = first.lower()
    if first[-1:] == "/" or first[:1] == "/":
        first = first[:-1] if first[0] != "/" else ""
    plain: dict[str, str] = {}
    if rest:
        _read_parameters(rest, plain)
    return Structured(first.strip("\"'"), MappingProxyType(plain))


_parse_cached = lru_cache(maxsize=1024)(_parse)


def _read_parameters(rest: str, plain: dict[str, str]) -> None:
    segments: dict[str, dict[int, tuple[str, bool]]] = {}
    extended: dict[str, str] = {}
    for count, piece in enumerate(_PIECE.finditer(rest)):
        if count >= _PARAMETERS:
            break
        for name, value in _pairs(piece[0]):
            if "*" not in name:
                if not plain.get(name):  # of several, the first that says something
                    plain[name] = value
                continue
            continued = _CONTINUED.fullmatch(name)
            if continued is not None:
                held = segments.setdefault(continued[1], {})
                if len(held) < _SEGMENTS:
                    held.setdefault(int(continued[2]), (value, bool(continued[3])))
            elif name.endswith("*"):
                extended.setdefault(name[:-1], value)
    for name, held in segments.items():
        plain[name] = _join(held)
    for name, value in extended.items():
        plain[name] = _percent(value)


def _pairs(piece: str) -> Iterator[tuple[str, str]]:
    """The names and values of what stands between two semicolons: one, or more when semicolons
    are missing.
    """
    for _ in range(_PARAMETERS):
        name, equals, value = piece.partition("=")
        name = name.strip().lower()
        if not equals:
            return
        value = value.strip()
        piece = ""
        if value.count("=") and (" " in value or "\t" in value):
            end = _end_of_value(name, value)
            value, piece = value[:end].rstrip(), value[end:]
        if name:
            yield name, _unquote(value)


def _end_of_value(name: str, value: str) -> int:
    """Where `value` ends and, without a semicolon, another parameter begins."""
    if value[0] == '"':
        quoted = _QUOTED.match(value)
        end = quoted.end() if quoted is not None else len(value)
        return end if _NEXT.match(value, end) else len(value)
    following = _NEXT.search(value)
    while following is not None and name in _FILE_NAMES:  # which hold spaces and equals signs
        if "*" in following[1] or following[1].lower() in _KNOWN:
            break
        following = _NEXT.search(value, following.end())
    return len(value) if following is None else following.start()


def _unquote(value: str) -> str:
    if value[:1] != '"':
        return _COMMENT.sub("", value).strip() if "(" in value and "=?" not in value else value
    end = len(value) - 1 if len(value) > 1 and value[-1] == '"' else len(value)
    inner = value[1:end]
    return _QUOTED_PAIR.sub(r"\1", inner) if "\\" in inner else inner


def _percent(value: str) -> str:
    """`utf-8'en'%e2%82%ac`; without the quotes the charset is guessed."""
    label, quote, rest = value.partition("'")
    _, second, tail = rest.partition("'")
    if not quote or not second:
        return charset.guess(unquote_to_bytes(value))
    return charset.decode(unquote_to_bytes(tail), label)[0]


def _join(held: dict[int, tuple[str, bool]]) -> str:
    """RFC 2231 section 4.1: segments in order; the charset stands in the first."""
    label = ""
    raw: list[bytes] = []
    for position, (_, (value, percent)) in enumerate(sorted(held.items())):
        if percent and position == 0:
            head, quote, rest = value.partition("'")
            _, second, tail = rest.partition("'")
            if quote and second:
                label, value = head, tail
        elif percent and label and value[: len(label) + 1].lower() == f"{label.lower()}'":
            value = value[len(label) + 1 :]  # some name the charset in each segment
        encoded = value.encode("utf-8", "surrogateescape")
        raw.append(unquote_to_bytes(encoded) if percent else encoded)
    whole = b"".join(raw)
    return charset.decode(whole, label)[0] if label else charset.guess(whole)


def file_name(disposition: Structured, content_type: Structured) -> str:
    """The file's name as sent, without folders and controls; empty when there is none."""
    name = disposition.parameters.get("filename") or content_type.parameters.get("name") or ""
    return clean_name(decode_words(name) if "=?" in name else name)


def clean_name(name: str) -> str:
    """A file's name without folders and controls."""
    name = name.replace("\\", "/").rpartition("/")[2]
    return "".join(character for character in name if character.isprintable()).strip()[:255]
