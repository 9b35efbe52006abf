"""The words of a mail as one text: what search, snippets and analysis read. Bounded; no raise."""

from collections.abc import Sequence
from typing import NamedTuple

from mailyard.core import limits
from mailyard.protocol.mime.html_text import Link, text_of_html
from mailyard.protocol.mime.message import Message, parse


class Text(NamedTuple):
    """`text` has `\\n` line ends and is safe to store (no NUL, no lone surrogates).

    `is_html`: it was made of HTML, because the mail has no text or an empty one; then `links` tells
    where in it each link stands. `clipped`: the mail says more than `limits.MIME_TEXT_CHARACTERS`.
    """

    text: str
    is_html: bool
    links: Sequence[Link]
    clipped: bool


def plain_text(raw: bytes) -> Text:
    """The text of a received mail: its text part, or its HTML turned into text."""
    return text_of(parse(raw))


def text_of(message: Message) -> Text:
    """The same of a mail that has been read already."""
    text = message.text
    if text and not text.isspace():
        most = limits.MIME_TEXT_CHARACTERS
        return Text(text[:most], False, (), len(text) > most)
    html = message.html
    if html is None:
        return Text("", False, (), False)
    found = text_of_html(html)
    return Text(found.text, True, found.links, found.clipped)
