"""Stalwart's mail-parser: full parse results, and vectors for single header fields.

Its ways: the language of a parameter is a parameter of its own; a comment is added to a name in
parentheses; addresses of List- fields stand among the others, with their scheme; names keep their
folders.
"""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from corpora.agreement.comparison import Comparison, Family, flat

from mailyard.protocol.mime import Message, parse
from mailyard.protocol.mime.date import parse_date
from mailyard.protocol.mime.message import addresses, readable
from mailyard.protocol.mime.parameter import file_name, parse_structured
from mailyard.protocol.mime.structure import Part

_IDS = ("message_id", "content_id", "references", "in_reply_to", "return_path")
_OTHER_LINES = re.compile(r"\n(?![ \t]).*", re.DOTALL)
_BRACKETS = re.compile("[<>]")
_SCHEME = re.compile(r"\A(?:mailto|https?|ftp):")
_COMMENT = re.compile(r"(?<=\S)\([^()]*\)\Z")


def compare(family: Family) -> Iterator[Comparison]:
    for name, raw in family.items():
        case = name.partition("/")[2]
        if name.endswith("header-address.json"):
            for number, vector in enumerate(json.loads(raw)):
                yield _address(f"address {number}", vector["header"], vector["expected"])
        elif name.endswith("header-date.json"):
            for number, vector in enumerate(json.loads(raw)):
                wanted = vector["expected"]
                yield Comparison(
                    f"date {number}", "date", parse_date(unfolded(vector["header"])), _date(wanted)
                )
        elif name.endswith("header-content_type.json"):
            for number, vector in enumerate(json.loads(raw)):
                yield from _content_type(
                    f"content type {number}", vector["header"], vector["expected"]
                )
        elif "/eml/" in name and name.endswith(".json"):
            crlf = name.endswith(".crlf.json")
            mail = family[name.removesuffix(".json").removesuffix(".crlf") + ".eml"]
            if crlf:
                mail = mail.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
            message = parse(mail)
            yield from _message(case.removesuffix(".json"), message, message.root, json.loads(raw))


def unfolded(value: str) -> str:
    """Up to the first line that is no continuation."""
    return _OTHER_LINES.sub("", value).replace("\n", "").strip()


def _address(case: str, header: str, expected: Any) -> Comparison:
    ours = [(flat(box.name), box.address) for box in addresses(unfolded(header))]
    return Comparison(case, "address", ours, _boxes(expected))


def _without_scheme(address: str | None) -> str:
    return _SCHEME.sub("", address or "")


def _boxes(expected: Any) -> list[tuple[str, str]]:
    if "Group" in expected:
        found = [box for group in expected["Group"] for box in group["addresses"]]
    else:
        found = expected.get("List", [])
    return [(_COMMENT.sub("", flat(box["name"])), _without_scheme(box["address"])) for box in found]


def _date(wanted: Any) -> datetime | None:
    if not wanted:
        return None
    offset = timedelta(hours=wanted["tz_hour"], minutes=wanted["tz_minute"])
    offset = -offset if wanted["tz_before_gmt"] else offset
    try:
        local = datetime(
            wanted["year"], wanted["month"], wanted["day"], wanted["hour"], wanted["minute"],
            wanted["second"], tzinfo=UTC,
        )  # fmt: skip
        return local - offset
    except (ValueError, OverflowError):
        return None


def _content_type(case: str, header: str, expected: Any) -> Iterator[Comparison]:
    ours = parse_structured(unfolded(header))
    if not expected:
        yield Comparison(case, "type", ours.value, "")
        return
    subtype = expected.get("c_subtype")
    kind = expected["c_type"] + (f"/{subtype}" if subtype else "")
    yield Comparison(case, "type", ours.value, kind.lower())
    pairs = [
        (pair["name"], pair["value"]) if isinstance(pair, dict) else pair
        for pair in expected.get("attributes") or []
    ]
    wanted = {
        name.lower(): flat(value)
        for name, value in reversed(pairs)
        if not name.endswith("-language")
    }
    found = {name: flat(readable(value)) for name, value in ours.parameters.items()}
    yield Comparison(case, "parameters", found, wanted)


def _message(case: str, message: Message, root: Part, wanted: Any) -> Iterator[Comparison]:
    ours: list[Part] = []
    _numbered(root, ours)
    parts = wanted["parts"]
    yield Comparison(
        case,
        "tree",
        [_kind(part) for part in ours],
        [_their_kind(part) for part in parts],
    )
    if len(ours) != len(parts):
        return
    for number, (part, their) in enumerate(zip(ours, parts, strict=True)):
        at = f"{case}#{number}"
        yield from _part(at, message, part, their, is_root=number == 0)


def _numbered(part: Part, found: list[Part]) -> None:
    """Their order: the children of a multipart, each with what is below it; a message is one."""
    found.append(part)
    if part.content_type.value.startswith("multipart/"):
        for child in part.children:
            _numbered(child, found)


def _kind(part: Part) -> str:
    if part.content_type.value.startswith("multipart/") and (part.children):
        return "multipart"
    if part.children:
        return "message"
    return "leaf"


def _their_kind(part: Any) -> str:
    kind = next(iter(part["body"]))
    return kind.lower() if kind in ("Multipart", "Message") else "leaf"


def _part(
    case: str, message: Message, part: Part, their: Any, is_root: bool
) -> Iterator[Comparison]:
    headers: dict[str, Any] = {}
    for header in their["headers"]:
        name = header["name"]
        headers.setdefault(
            name if isinstance(name, str) else name["other"].lower(), header["value"]
        )
    for name, value in headers.items():
        field = part.field(name.replace("_", "-"))
        if isinstance(value, dict) and ("Text" in value or "TextList" in value):
            said = value.get("Text") or "".join(value.get("TextList", []))
            ours = flat(readable(field or ""))
            if name in _IDS:
                ours, said = _BRACKETS.sub("", ours), _BRACKETS.sub("", said)
            yield Comparison(case, f"header {name}", ours, flat(said))
        elif isinstance(value, dict) and "ContentType" in value:
            yield from _content_type(f"{case} {name}", field or "", value["ContentType"])
    for name in ("from", "to", "cc"):
        value = headers.get(name)
        if isinstance(value, dict) and "Address" in value:
            yield Comparison(
                case,
                "address",
                [(flat(box.name), box.address) for box in addresses(part.field(name) or "")],
                _boxes(value["Address"]),
            )
    value = headers.get("date")
    if isinstance(value, dict):
        yield Comparison(
            case, "date", parse_date(part.field("date") or ""), _date(value["DateTime"])
        )
    kind, body = next(iter(their["body"].items()))
    if kind in ("Text", "Html"):
        yield Comparison(case, "text", flat(message.part_text(part)), flat(body.replace("\0", "")))
    elif kind in ("Binary", "InlineBinary"):
        yield Comparison(case, "content", message.part_content(part), bytes(body))
    elif kind == "Message" and part.children:
        yield from _message(case, message, part.children[0], body)
    said = headers.get("content_type")
    if isinstance(said, dict) and "ContentType" in said:
        disposition = headers.get("content_disposition")
        names = _named(disposition, "filename") or _named(said, "name")
        yield Comparison(case, "name", flat(file_name(part.disposition, part.content_type)), names)


def _named(value: Any, attribute: str) -> str:
    if not isinstance(value, dict):
        return ""
    for pair in value["ContentType"]["attributes"] or []:
        if pair["name"].lower() == attribute:
            return flat(pair["value"].rpartition("/")[2])
    return ""
