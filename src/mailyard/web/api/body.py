"""Reading what a request carries: a bounded body, strict JSON, typed query parameters.

Unlike a form, JSON is not coerced: `"5"` is no integer. What a Struct does not name is refused, so
that a misspelled field is an error and not a mail without its subject.
"""

import re
from collections.abc import AsyncIterator, Mapping
from functools import cache
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from mailyard.core.errors import InvalidInput, TooLarge
from mailyard.core.limits import API_JSON_DEPTH
from mailyard.web.api.problem import Malformed, UnsupportedMediaType
from mailyard.web.protocol import Receive

# An escaped NUL in a JSON text: PostgreSQL's text cannot hold one, and no mail needs one. An even
# number of backslashes before it is an escaped backslash, and `u0000` then are five letters.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_AT = re.compile(r" - at `(?:key in )?\$(.*)`$", re.DOTALL)
_INDEX = re.compile(r"\[(\d+)\]")
_UNKNOWN = re.compile(r"unknown field `(.*?)`", re.DOTALL)
_MISSING = re.compile(r"missing required field `(.*?)`", re.DOTALL)


class ClientGone(Exception):
    """The caller went away while sending the body: nobody waits for an answer."""


async def stream_body(receive: Receive, limit: int) -> AsyncIterator[bytes]:
    """The body in pieces as they come. Raises TooLarge past `limit` bytes."""
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        piece = message.get("body", b"")
        size += len(piece)
        if size > limit:
            raise TooLarge(f"the body may have {limit} bytes")
        if piece:
            yield piece
        if not message.get("more_body", False):
            return


async def read_body(receive: Receive, declared: int | None, limit: int) -> bytes:
    """The whole body. Raises TooLarge, before reading when Content-Length says so already."""
    if declared is not None and declared > limit:
        raise TooLarge(f"the body may have {limit} bytes")
    message = await receive()
    if message["type"] != "http.request":
        raise ClientGone
    first: bytes = message.get("body", b"")
    if len(first) > limit:
        raise TooLarge(f"the body may have {limit} bytes")
    # All that was declared is all there is: no need to be told, which costs a change of threads.
    if not message.get("more_body", False) or len(first) == declared:
        return first
    pieces = [first]
    async for piece in stream_body(receive, limit - len(first)):
        pieces.append(piece)
    return b"".join(pieces)


@cache
def _decoder(kind: type) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def decode_json(kind: type, content_type: bytes, body: bytes) -> Any:
    """The body as a `kind`. Raises Malformed, UnsupportedMediaType or InvalidInput."""
    media_type = content_type.partition(b";")[0].strip().lower()
    if media_type != b"application/json":
        raise UnsupportedMediaType("send application/json")
    if not body:
        raise Malformed("the request has no body; send a JSON object")
    if b"\\u0000" in body and _NUL.search(body):
        raise InvalidInput("a text has a NUL character in it")
    try:
        return _decoder(kind).decode(body)
    except msgspec.ValidationError as error:
        raise invalid(error) from None
    except msgspec.DecodeError as error:
        raise Malformed(f"the body is not JSON: {error}") from None
    except UnicodeDecodeError as error:
        raise Malformed(f"the body is not UTF-8: byte {error.start}") from None
    except RecursionError:
        raise Malformed(f"the JSON is deeper than {API_JSON_DEPTH} levels") from None


def invalid(error: msgspec.ValidationError, prefix: str = "") -> InvalidInput:
    """The error with the path of the offending field, in the API's words."""
    text = str(error)
    at = _AT.search(text)
    path = _INDEX.sub(r".\1", at[1]).replace("[...]", "").strip(".") if at is not None else ""
    reason = text[: at.start()] if at is not None else text
    inner = _UNKNOWN.search(reason) or _MISSING.search(reason)
    if inner is not None:
        path = f"{path}.{inner[1]}" if path else inner[1]
    return InvalidInput(reason[:500], field=(prefix + path)[:300] or None)


def check_depth(value: Any, field: str) -> None:
    """Free-form JSON (template data, attributes) within API_JSON_DEPTH levels, or ValueError."""
    level = [value]
    for _ in range(API_JSON_DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        if not below:
            return
        level = below
    raise ValueError(f"{field} is deeper than {API_JSON_DEPTH} levels")


@cache
def _lists(kind: type) -> frozenset[str]:
    """The query parameters of `kind` that may come several times."""
    return frozenset(
        field.encode_name
        for field in msgspec.structs.fields(kind)
        if "list[" in str(field.type) or "tuple[" in str(field.type)
    )


def decode_query(kind: type | None, query: bytes) -> Any:
    """The query string as a `kind`; texts become numbers, booleans and times as the fields say."""
    if not query:
        pairs: list[tuple[str, str]] = []
    else:
        try:
            pairs = parse_qsl(
                query.decode("ascii"),
                keep_blank_values=True,
                errors="strict",
                max_num_fields=200,
            )
        except ValueError as error:
            raise Malformed(f"the query string cannot be read: {error}") from None
    if kind is None:
        if pairs:
            raise InvalidInput("this route takes no such parameter", field=pairs[0][0][:100])
        return None
    values: dict[str, Any] = {}
    lists = _lists(kind)
    for name, value in pairs:
        if "\0" in value:
            raise InvalidInput("a parameter has a NUL character in it", field=name[:100])
        if name in lists:
            values.setdefault(name, []).append(value)
        elif name in values:
            raise InvalidInput("this parameter came twice", field=name[:100])
        else:
            values[name] = value
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise invalid(error) from None


def header(headers: list[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """The first value of a header, or None. ASGI gives names in lower case."""
    for key, value in headers:
        if key == name:
            return value
    return None


def collect(headers: list[tuple[bytes, bytes]]) -> Mapping[bytes, bytes]:
    """Headers by name; of a repeated one the first, as a proxy in front of us would read it."""
    found: dict[bytes, bytes] = {}
    for key, value in headers:
        found.setdefault(key, value)
    return found
