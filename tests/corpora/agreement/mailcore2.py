"""MailCore 2: the parse as JSON, the subjects that it shows, and charsets by guess.

Its ways: a name in a comment is none; a word without an at sign is an address; a missing Message-ID
is made up; of multiparts it knows mixed, related, alternative and signed; names keep their folders;
a subject is shown without its `Re:`.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from corpora.agreement.comparison import Comparison, Family, flat, walk

from mailyard.protocol.mime import parse
from mailyard.protocol.mime.charset import guess
from mailyard.protocol.mime.parameter import file_name
from mailyard.protocol.mime.structure import Part

_MADE_UP = "MyMessageID123@mail.gmail.com"
_NO_SUBJECT = "NoSubject"
_KNOWN = frozenset(
    ("multipart/mixed", "multipart/related", "multipart/alternative", "multipart/signed")
)
_REPLY = re.compile(r"\A(?:re|fwd?):", re.IGNORECASE)


def compare(family: Family) -> Iterator[Comparison]:
    for name, raw in family.items():
        case = name.partition("/")[2]
        if "/parser/output/" in name:
            mail = family[name.replace("/output/", "/input/")]
            yield from _parse(case.removeprefix("parser/output/"), mail, json.loads(raw))
        elif "/summary/output/" in name:
            mail = family[name.replace("/output/", "/input/").replace(".txt", ".eml")]
            yield from _summary(case.removeprefix("summary/output/"), mail, raw.decode())
        elif "/charset-detection/input/" in name:
            label = name.rpartition("/")[2].removesuffix(".txt")
            yield Comparison(case, "charset", guess(raw), raw.decode(label))


def _parse(case: str, mail: bytes, wanted: dict[str, Any]) -> Iterator[Comparison]:
    message = parse(mail)
    header = wanted["header"]
    yield Comparison(case, "subject", flat(message.subject), flat(header.get("subject")))
    if header.get("messageID") != _MADE_UP:
        yield Comparison(case, "message id", message.message_id, header.get("messageID", ""))
    sender = [header["from"]] if "from" in header else []
    for aspect, ours, theirs in (
        ("from", message.from_[:1], sender),
        ("to", message.to, header.get("to", {}).get("items", [])),
        ("cc", message.cc, header.get("cc", {}).get("items", [])),
        ("reply to", message.reply_to, header.get("replyTo", {}).get("items", [])),
    ):
        yield Comparison(
            case,
            aspect,
            [box.address or box.name for box in ours],
            [box.get("mailbox", "") for box in theirs],
        )
        for box, their in zip(ours, theirs, strict=False):
            if "displayName" in their:
                yield Comparison(case, f"{aspect} name", flat(box.name), flat(their["displayName"]))
    yield Comparison(case, "tree", _tree(message.root), _their_tree(wanted["mainPart"]))
    leaves = [part for part in walk(message.root) if not part.children]
    theirs_leaves = list(_leaves(wanted["mainPart"]))
    if len(leaves) == len(theirs_leaves):
        for part, leaf in zip(leaves, theirs_leaves, strict=True):
            name = file_name(part.disposition, part.content_type)
            at = f"{case}#{part.path}"
            yield Comparison(at, "name", name, leaf.get("filename", "").rpartition("/")[2])
            cid = (part.field("content-id") or "").strip().strip("<>")
            yield Comparison(at, "content id", cid, leaf.get("contentID", ""))
            label = part.content_type.parameters.get("charset", "").lower()
            yield Comparison(at, "charset", label, leaf.get("charset", "").lower())


def _tree(part: Part) -> object:
    kind = part.content_type.value
    if kind.startswith("multipart/") and (part.children or part.encoding != "base64"):
        kind = kind if kind in _KNOWN else "multipart/mixed"
        return [kind, *[_tree(child) for child in part.children]]
    if part.children:
        return ["message", _tree(part.children[0])]
    return kind


def _their_tree(part: dict[str, Any]) -> object:
    kind = part["partType"].lower()
    if kind.startswith("multipart"):
        return [kind, *[_their_tree(child) for child in part.get("parts", {}).get("items", [])]]
    if kind == "message":
        return ["message", _their_tree(part["mainPart"])]
    return part.get("mimeType", "").lower()


def _leaves(part: dict[str, Any]) -> Iterator[dict[str, Any]]:
    children = part.get("parts", {}).get("items", [])
    if "mainPart" in part:
        children = [part["mainPart"]]
    if not children:
        yield part
    for child in children:
        yield from _leaves(child)


def _summary(case: str, mail: bytes, wanted: str) -> Iterator[Comparison]:
    """`From:`, `To:`, `Subject:` and the text, which MailCore makes of HTML in its own way."""
    message = parse(mail)
    head, _, _body = wanted.partition("\n\n")
    lines = dict(line.partition(": ")[::2] for line in head.split("\n"))
    ours, theirs = (_REPLY.sub("", flat(text)) for text in (message.subject, lines["Subject"]))
    yield Comparison(case, "subject", ours or _NO_SUBJECT, theirs)
