"""MimeKit: mailboxes with their trees and the offsets of every part, encoders, partial messages.

Its trees of HTML tokens have no counterpart here (HTML is parsed by html5ever); its TNEF files are
compared in `tnef`.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from corpora.agreement.comparison import Comparison, Family, flat

from mailyard.core.limits import MIB
from mailyard.protocol.mbox import MboxReader
from mailyard.protocol.mime import Message, parse
from mailyard.protocol.mime.date import parse_date
from mailyard.protocol.mime.message import addresses
from mailyard.protocol.mime.structure import Part
from mailyard.protocol.mime.transfer import undo

_MEANINGS: Mapping[str, Callable[[str], object]] = {
    "From": addresses,
    "To": addresses,
    "Subject": flat,
    "Date": parse_date,
}


def compare(family: Family) -> Iterator[Comparison]:
    for name, raw in family.items():
        case = name.partition("/")[2]
        if name.endswith(".mbox.txt") and name.replace(".mbox.txt", "-summary.txt") in family:
            yield from _mailbox(case, family, name.removesuffix(".mbox.txt"), raw)
    yield from _encoders(family)


def _mailbox(case: str, family: Family, stem: str, raw: bytes) -> Iterator[Comparison]:
    summary = family[f"{stem}-summary.txt"].decode()
    wanted = [block for block in summary.split("From - ")[1:] if block.strip()]
    for ends, mailbox in (("unix", raw), ("dos", raw.replace(b"\n", b"\r\n"))):
        mails = _mails(mailbox)
        offsets = json.loads(family[f"{stem}.{ends}-offsets.json"])
        yield Comparison(f"{case} {ends}", "mails", len(mails), len(offsets))
        for number, (mail, lines, places) in enumerate(
            zip(mails, wanted, offsets, strict=False), 1
        ):
            message = parse(mail)
            at = f"{case} {ends} {number}"
            yield from _summary(at, message, lines)
            yield from _offsets(at, message.root, places["body"], places["beginOffset"])


def _mails(mailbox: bytes) -> list[bytes]:
    reader = MboxReader(32 * MIB)
    found = [*reader.feed(mailbox), *reader.close()]
    return [mail.raw for mail in found if mail.raw is not None]


def _summary(case: str, message: Message, block: str) -> Iterator[Comparison]:
    lines = block.split("\n")[1:]
    for line in lines:
        name, _, value = line.partition(": ")
        if name in _MEANINGS:
            ours = message.header(name) or ""
            meaning = _MEANINGS[name]  # it writes addresses and dates in its own way
            yield Comparison(case, name.lower(), meaning(ours), meaning(value))
    kinds = [
        ((len(line) - len(line.lstrip())) // 3, line.strip().removeprefix("Content-Type: ").lower())
        for line in lines
        if line.strip().startswith("Content-Type:")
    ]
    yield Comparison(case, "tree", list(_kinds(message.root, 0)), kinds)


def _kinds(part: Part, depth: int) -> Iterator[tuple[int, str]]:
    yield depth, part.content_type.value
    for child in part.children:
        yield from _kinds(child, depth + 1)


def _offsets(case: str, part: Part, wanted: dict[str, Any], begin: int) -> Iterator[Comparison]:
    at = f"{case}#{part.path}" if part.path else case
    yield Comparison(at, "begin", part.start + begin, wanted["beginOffset"])
    yield Comparison(at, "body", part.body_start + begin, wanted["headersEndOffset"])
    yield Comparison(at, "type", part.content_type.value, wanted["mimeType"].lower())
    if part.path:
        yield Comparison(at, "end", part.end + begin, wanted["endOffset"])
    children = wanted.get("children", [])
    if "message" in wanted:
        children = [wanted["message"]["body"]]
    yield Comparison(at, "parts", len(part.children), len(children))
    for child, theirs in zip(part.children, children, strict=False):
        yield from _offsets(case, child, theirs, begin)


def _encoders(family: Family) -> Iterator[Comparison]:
    top = next(name for name in family if name.endswith("encoders/photo.jpg"))
    folder = top.removesuffix("photo.jpg")
    photo = family[top]
    for name, encoding in (("photo.b64", "base64"), ("photo.uu", "uuencode")):
        yield Comparison(
            f"encoders/{name}", "content", undo(family[folder + name], encoding)[0], photo
        )
    if folder + "wikipedia.qp" in family:
        ours = undo(family[folder + "wikipedia.qp"], "quoted-printable")[0]
        theirs = family[folder + "wikipedia.txt"]
        yield Comparison(
            "encoders/wikipedia.qp",
            "content",
            flat(ours.decode("latin-1")),
            flat(theirs.decode("latin-1")),
        )
