"""imap_tools: the values that its tests expect, from a parser over the standard library's.

Its ways: texts and files of nested mails count as the mail's own, unless the nested mail has a
transfer encoding; a text with an id is both; comments are added to names.
"""

import base64
import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from corpora.agreement.comparison import Comparison, Family, flat

from mailyard.protocol.address import Mailbox
from mailyard.protocol.mime import Message, parse
from mailyard.protocol.mime.parameter import file_name
from mailyard.protocol.mime.structure import IDENTITY, Part

_EXPECTED = "expected-imaptools.json"
_META = re.compile(r"charset=[\w-]+", re.IGNORECASE)


def compare(family: Family) -> Iterator[Comparison]:
    expected = next(name for name in family if name.endswith(_EXPECTED))
    top = expected.removesuffix(_EXPECTED)
    for case, wanted in json.loads(family[expected]).items():
        yield from _mail(case, parse(family[top + case]), wanted)


def _mail(case: str, message: Message, wanted: Any) -> Iterator[Comparison]:
    yield Comparison(case, "subject", flat(message.subject), flat(wanted["subject"]))
    yield Comparison(case, "from", _boxes(message.from_[:1]), _theirs([wanted["from_values"]]))
    for aspect, ours in (
        ("to", message.to),
        ("cc", message.cc),
        ("bcc", message.bcc),
        ("reply_to", message.reply_to),
    ):
        yield Comparison(case, aspect, _boxes(ours), _theirs(wanted[f"{aspect}_values"]))
    yield Comparison(case, "date", *_instants(message.date, wanted["date"]))
    texts, htmls, files = _sorted(message)
    yield Comparison(case, "text", flat("".join(texts)), flat(wanted["text"]))
    # It writes its own charset into the HTML.
    ours_html, theirs_html = (
        flat(_META.sub("", text)) for text in ("".join(htmls), wanted["html"])
    )
    yield Comparison(case, "html", ours_html, theirs_html)
    theirs = wanted["attachments"]
    names = [file_name(part.disposition, part.content_type) for part in files]
    yield Comparison(case, "names", names, [file["filename"] for file in theirs])
    yield Comparison(
        case,
        "types",
        [part.content_type.value for part in files],
        [file["content_type"] for file in theirs],
    )
    yield Comparison(
        case,
        "content ids",
        [(part.field("content-id") or "").strip().strip("<>") for part in files],
        [file["content_id"].strip("<>") for file in theirs],
    )
    yield Comparison(
        case,
        "contents",
        [_content(message, part) for part in files],
        [_payload(file["payload"]) for file in theirs],
    )


def _sorted(message: Message) -> tuple[list[str], list[str], list[Part]]:
    """Their way: every text without a name is text, in nested mails too; what has a name, an id or
    is said to be an attachment is a file, and so is a nested mail.
    """
    texts: list[str] = []
    htmls: list[str] = []
    files: list[Part] = []
    for part in _walk(message.root):
        kind = part.content_type.value
        named = bool(file_name(part.disposition, part.content_type))
        if kind.startswith("multipart/"):
            continue
        attached = named or part.disposition.value == "attachment"
        if (
            kind == "message/rfc822"
            or (attached and not part.children)
            or (part.field("content-id") and not part.children)
        ):
            files.append(part)
        if attached or kind == "message/rfc822":
            continue
        if kind == "text/plain":
            texts.append(message.part_text(part))
        elif kind == "text/html":
            htmls.append(message.part_text(part))
    return texts, htmls, files


def _walk(part: Part) -> Iterator[Part]:
    yield part
    if part.encoding in IDENTITY or part.content_type.value.startswith("multipart/"):
        for child in part.children:
            yield from _walk(child)


def _content(message: Message, part: Part) -> bytes:
    return flat(message.part_content(part).decode("latin-1")).encode("latin-1")


def _payload(payload: Any) -> bytes:
    raw = base64.b64decode(payload["base64"]) if isinstance(payload, dict) else payload.encode()
    return flat(raw.decode("latin-1")).encode("latin-1")


def _boxes(boxes: list[Mailbox]) -> list[tuple[str, str]]:
    return [(flat(box.name), box.address) for box in boxes]


def _theirs(values: Any) -> list[tuple[str, str]]:
    return [(flat(value["name"]), value["email"]) for value in values or [] if value]


def _instants(ours: datetime | None, said: str | None) -> tuple[object, object]:
    theirs = datetime.fromisoformat(said) if said else None
    if theirs is not None and theirs.year < 1971:  # how it says that there is none
        theirs = None
    if theirs is not None and theirs.tzinfo is None and ours is not None:
        theirs = theirs.replace(tzinfo=ours.tzinfo)
    return ours, theirs
