"""Apache James Mime4J: `X_decoded.xml` is the tree with its headers, and names decoded parts."""

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from corpora.agreement.comparison import Comparison, Family, flat

from mailyard.protocol.mime import Message, parse
from mailyard.protocol.mime.structure import Part

_LEAVES = ("text-body", "binary-body")


def compare(family: Family) -> Iterator[Comparison]:
    for name, raw in family.items():
        if name.endswith(".msg"):
            wanted = family.get(name.removesuffix(".msg") + "_decoded.xml")
            if wanted is not None:
                message = parse(raw)
                folder = name.rpartition("/")[0]
                case = name.rpartition("/")[2]
                root = ElementTree.fromstring(wanted)
                yield from _entity(message, message.root, root, case, folder, family)


def _entity(
    message: Message,
    part: Part,
    wanted: ElementTree.Element,
    case: str,
    folder: str,
    family: Family,
) -> Iterator[Comparison]:
    header = wanted.find("header")
    fields = [] if header is None else [field.text or "" for field in header]
    yield Comparison(
        case,
        "headers",
        [(name.lower(), flat(value)) for name, value in part.fields],
        [_field(field) for field in fields],
    )
    multipart = wanted.find("multipart")
    inner = wanted.find("message")
    kinds = [child.tag for child in wanted if child.tag in ("multipart", "message", *_LEAVES)]
    leaf = next((child for child in wanted if child.tag in _LEAVES), None)
    yield Comparison(case, "kind", _kind(part), (kinds or ["none"])[0].replace("binary", "text"))
    if multipart is not None:
        parts = multipart.findall("body-part")
        yield Comparison(case, "parts", len(part.children), len(parts))
        for number, (child, beneath) in enumerate(zip(part.children, parts, strict=False), 1):
            at = f"{case}.{number}" if "#" in case else f"{case}#{number}"
            yield from _entity(message, child, beneath, at, folder, family)
    elif inner is not None:
        if part.children:
            at = f"{case}.m" if "#" in case else f"{case}#m"
            yield from _entity(message, part.children[0], inner, at, folder, family)
    elif leaf is not None:
        content = family[f"{folder}/{leaf.attrib['name']}"]
        ours = message.part_content(part)
        yield Comparison(case, "content", _lines(ours), _lines(content))


def _kind(part: Part) -> str:
    if part.content_type.parameters.get("boundary") and (
        part.content_type.value.startswith("multipart/")
    ):
        return "multipart"
    return "message" if part.children else "text-body"


def _field(text: str) -> tuple[str, str]:
    name, _, value = text.partition(":")
    return name.strip().lower(), flat(value)


def _lines(content: bytes) -> bytes:
    return re.sub(rb"\r*\n", b"\n", content)
