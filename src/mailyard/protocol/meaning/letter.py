"""A mail as it is read for its meaning: subject, text, what its HTML shows, and a few headers."""

from dataclasses import dataclass
from datetime import datetime

from mailyard.protocol.address import Mailbox
from mailyard.protocol.meaning.finding import HTML, SUBJECT, TEXT, Evidence, Part
from mailyard.protocol.mime.html_text import Link as Anchor
from mailyard.protocol.mime.html_text import text_of_html
from mailyard.protocol.mime.message import Message, parse

TEXT_CHARACTERS = 100_000  # of each part; what lies behind is not read for meaning
_QUOTE_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Letter:
    """What is read. `text` and `html` are empty when the mail has no such part."""

    subject: str = ""
    text: str = ""
    html: str = ""  # what it shows
    anchors: tuple[Anchor, ...] = ()
    from_: tuple[Mailbox, ...] = ()
    reply_to: tuple[Mailbox, ...] = ()
    sent_at: datetime | None = None
    list_unsubscribe: str = ""
    list_unsubscribe_post: str = ""
    files: tuple[str, ...] = ()

    @property
    def body(self) -> str:
        """The part that a person reads: the text, or what the HTML shows when there is none."""
        return self.text if self.text.strip() else self.html

    @property
    def body_part(self) -> Part:
        return TEXT if self.text.strip() else HTML

    def parts(self) -> list[tuple[Part, str]]:
        """(name, text) of all that is not empty."""
        named: tuple[tuple[Part, str], ...] = (
            (SUBJECT, self.subject),
            (TEXT, self.text),
            (HTML, self.html),
        )
        return [(name, text) for name, text in named if text.strip()]


def letter_of(message: Message) -> Letter:
    """Never raises."""
    html = message.html
    seen = None if html is None else text_of_html(html)
    return Letter(
        subject=message.subject[:1000],
        text=(message.text or "")[:TEXT_CHARACTERS],
        html="" if seen is None else seen.text[:TEXT_CHARACTERS],
        anchors=()
        if seen is None
        else tuple(one for one in seen.links if one.end <= TEXT_CHARACTERS),
        from_=tuple(message.from_[:10]),
        reply_to=tuple(message.reply_to[:10]),
        sent_at=message.date,
        list_unsubscribe=message.header("list-unsubscribe") or "",
        list_unsubscribe_post=message.header("list-unsubscribe-post") or "",
        files=tuple(one.filename for one in message.attachments),
    )


def read_letter(raw: bytes) -> Letter:
    """The letter of a received mail. Never raises."""
    return letter_of(parse(raw))


def evidence(part: Part, text: str, start: int, end: int) -> Evidence:
    """That `text[start:end]` stands there."""
    return Evidence(part, start, end, text[start : min(end, start + _QUOTE_CHARACTERS)])
