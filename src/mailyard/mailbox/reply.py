"""Answering and forwarding a mail: to whom, under which subject, with which headers, what quoted.

Pure, over the parsed mail. RFC 5322 section 3.6.3 says who gets an answer, 3.6.4 how it names what
it answers. Addresses that nobody can be written to are left out.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mailyard.core import limits
from mailyard.core.errors import InvalidInput
from mailyard.mailbox.strand import base_subject
from mailyard.protocol.address import Mailbox, normalise
from mailyard.protocol.mime.message import Message
from mailyard.protocol.mime.summary import REFERENCES
from mailyard.protocol.mime.text import text_of

QUOTED_CHARACTERS = 100_000
_WORDS = re.compile(r"[^\x00-\x20\x7f()<>\[\]:;@\\,.\"]+(?: [^\x00-\x20\x7f()<>\[\]:;@\\,.\"]+)*")
_MESSAGE_ID = re.compile(r"[!-;=?-~]{1,900}")  # ASCII without space and angle brackets
_REFERENCES_BYTES = limits.HEADER_VALUE_BYTES - 200


class Answering(NamedTuple):
    """A mail to be written. Mailboxes as people write them; message ids without angle brackets."""

    to: tuple[str, ...]
    cc: tuple[str, ...]
    subject: str
    quoted: str
    in_reply_to: str
    references: tuple[str, ...]


def reply(message: Message, own: str, everyone: bool = False) -> Answering:
    """An answer by the mailbox `own` to whom the mail asks to be answered; with `everyone` also to
    all who got it. To one's own mail: to those it was written to.
    """
    wanted = message.reply_to or message.from_
    mine = {own}
    if all(_key(mailbox) in mine for mailbox in wanted):
        wanted = message.to
    to = _distinct(wanted, mine) or _distinct(wanted, set())
    cc: list[Mailbox] = []
    if everyone:
        named = mine | {_key(mailbox) for mailbox in to}
        cc = _distinct([*message.to, *message.cc], named)
    return Answering(
        to=tuple(written(mailbox) for mailbox in to),
        cc=tuple(written(mailbox) for mailbox in cc),
        subject=_prefixed("Re: ", message.subject, answers=True),
        quoted=_quoted(message),
        in_reply_to=_usable(message.message_id),
        references=references(message),
    )


def forward(message: Message) -> Answering:
    """The mail shown to somebody else. It answers nothing, and still belongs to its thread."""
    return Answering(
        to=(),
        cc=(),
        subject=_prefixed("Fwd: ", message.subject, answers=False),
        quoted=_shown(message),
        in_reply_to="",
        references=references(message),
    )


def references(message: Message) -> tuple[str, ...]:
    """What an answer to `message` puts into References (RFC 5322 section 3.6.4): the root and the
    nearest, where there are too many.
    """
    parents = message.references
    if not parents and len(message.in_reply_to) == 1:
        parents = message.in_reply_to
    named = [usable for one in (*parents, message.message_id) if (usable := _usable(one))]
    named = list(dict.fromkeys(named))
    while len(named) > REFERENCES or sum(len(one) + 3 for one in named) > _REFERENCES_BYTES:
        if len(named) == 1:
            return ()
        del named[1 if len(named) > 2 else 0]
    return tuple(named)


def headers_of(in_reply_to: str, named: Sequence[str]) -> dict[str, str]:
    """The header lines that make a mail an answer."""
    found = {}
    if in_reply_to:
        found["In-Reply-To"] = f"<{in_reply_to}>"
    if named:
        found["References"] = " ".join(f"<{one}>" for one in named)
    return found


def check_message_id(text: str, field: str) -> str:
    """A message id without its angle brackets. Raises InvalidInput naming `field`."""
    if _usable(text) != text:
        raise InvalidInput("no message id: ASCII without space and angle brackets", field=field)
    return text


def written(mailbox: Mailbox) -> str:
    """`Name <address>` as people write it; the name quoted where it must be."""
    if not mailbox.name:
        return mailbox.address
    if _WORDS.fullmatch(mailbox.name):
        return f"{mailbox.name} <{mailbox.address}>"
    escaped = mailbox.name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}" <{mailbox.address}>'


def _usable(message_id: str) -> str:
    """The id, or nothing when it could not stand in a header line as it is."""
    return message_id if _MESSAGE_ID.fullmatch(message_id) and "=?" not in message_id else ""


def _key(mailbox: Mailbox) -> str:
    try:
        return normalise(mailbox.address)
    except InvalidInput:
        return ""


def _distinct(mailboxes: Iterable[Mailbox], without: set[str]) -> list[Mailbox]:
    """Those that can be written to and are not among `without`, each once, a hundred at most."""
    found: dict[str, Mailbox] = {}
    for mailbox in mailboxes:
        key = _key(mailbox)
        if key and key not in without:
            found.setdefault(key, mailbox)
    return list(found.values())[: limits.RECIPIENTS_PER_EMAIL]


def _prefixed(prefix: str, subject: str, *, answers: bool) -> str:
    """The subject with `prefix`, unless it says so already."""
    says_so = base_subject(subject)[1] if answers else subject[:4].lower() in ("fwd:", "fw: ")
    return (subject if says_so else prefix + subject)[: limits.SUBJECT_CHARACTERS]


def _quoted(message: Message) -> str:
    lines = text_of(message).text[:QUOTED_CHARACTERS].rstrip().split("\n")
    who = ", ".join(written(mailbox) for mailbox in message.from_) or "somebody"
    at = message.date
    said = f"On {at:%a, %d %b %Y at %H:%M}, {who} wrote:" if at else f"{who} wrote:"
    return "\n".join([said, *(f">{line}" if line[:1] == ">" else f"> {line}" for line in lines)])


def _shown(message: Message) -> str:
    head = [
        f"{name}: {', '.join(map(written, mailboxes))}"
        for name, mailboxes in (("From", message.from_), ("To", message.to), ("Cc", message.cc))
        if mailboxes
    ]
    at = message.date
    return "\n".join(
        [
            "---------- Forwarded message ----------",
            *head,
            *([f"Date: {at:%a, %d %b %Y %H:%M %z}"] if at else []),
            f"Subject: {message.subject}",
            "",
            text_of(message).text[:QUOTED_CHARACTERS].rstrip(),
        ]
    )
