"""What of a mail is looked for: pure, from its bytes to what `storage/sql/search.sql` stores."""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from unicodedata import combining, normalize

from mailyard.core import limits
from mailyard.mailbox.search.embedder import SAMPLE_CHARACTERS
from mailyard.mailbox.search.grams import UNBROKEN, folded, parts_vector
from mailyard.mailbox.search.language import AUTO, language_of
from mailyard.protocol.address import Mailbox
from mailyard.protocol.mime import charset
from mailyard.protocol.mime.body import storable
from mailyard.protocol.mime.html_text import text_of_html
from mailyard.protocol.mime.message import Message, parse
from mailyard.protocol.mime.text import text_of

# Lexemes of fields stand beside those of the text: no word of a text begins with these.
FROM, TO, SUBJECT, FILE, LIST, WITH_FILE = "f=", "t=", "s=", "n=", "l=", "h="
OF_INBOX, OF_WORKSPACE = "i=", "w="

_TOKENS = re.compile(r"[^\W_]+")
_TEXT_TYPES = ("text/", "message/", "application/json", "application/xml", "application/x-ndjson")
_TEXT_ENDS = (".txt", ".csv", ".md", ".log", ".json", ".xml", ".ics", ".html", ".htm", ".eml")
_PUNCTUATION = dict.fromkeys(map(ord, '!"#$%&()*+,./:;<=>?@[\\]^_`{|}~'), " ")
_SIGNED = re.compile(r"-+(?=\d)")
_SUBJECT = 1_000
_PEOPLE = 5_000
_FIELD_TOKENS = 500
_TOKEN_CHARACTERS = 200
_LINES_OF_BASE64 = re.compile(r"[A-Za-z0-9+/=]{60,}")


class Document(NamedTuple):
    """One mail, ready to be indexed. Everything is safe to store."""

    language: str
    subject: str
    text: str  # body, names, files; without what has no word breaks
    tokens: list[str]  # of fields, with their prefix
    plain: list[str]  # words with marks, without them: `müller` as `muller`
    parts: str  # a tsvector
    sample: str  # how it begins, as it is written


def document_of(raw: bytes, *, language: str = AUTO, every_word: bool = False) -> Document:
    """Read a mail for the index. Never raises; its work is bounded.

    `language`: the workspace's, or `auto`. `every_word`: parts of all words can be looked for.
    """
    message = parse(raw[: limits.SEARCH_RAW_BYTES])
    subject = message.subject[:_SUBJECT]
    body = text_of(message).text[: limits.SEARCH_TEXT_CHARACTERS]
    files = message.attachments
    names = " ".join(file.filename for file in files)
    text = "\n".join(_within(_pieces(message, body), limits.SEARCH_TEXT_CHARACTERS))
    people = " ".join(
        f"{one.name} {one.address}" for one in (*message.from_, *message.to, *message.cc)
    )[:_PEOPLE]
    names = names[:_PEOPLE]
    chosen = language_of(f"{subject}\n{body}") if language == AUTO else language
    return Document(
        language=chosen,
        subject=spaced(subject),
        text=spaced(f"{people}\n{names}\n{text}"),
        tokens=_field_tokens(message, names),
        plain=_plain(f"{subject}\n{text}"),
        parts=parts_vector(f"{subject} {people} {names}", text, every_word=every_word),
        sample=f"{subject}\n{body[:SAMPLE_CHARACTERS]}",
    )


def _within(pieces: Iterable[str], most: int) -> Iterator[str]:
    for piece in pieces:
        yield piece[:most]
        most -= len(piece)
        if most <= 0:
            return


def _pieces(message: Message, body: str) -> Iterator[str]:
    """The body, then the text of text files."""
    yield body
    for file in message.attachments:
        name = file.filename.lower()
        if file.size_bytes > limits.SEARCH_FILE_BYTES:
            continue
        if file.content_type.startswith(_TEXT_TYPES) or name.endswith(_TEXT_ENDS):
            text = storable(charset.decode(message.content(file.index), "")[0])
            if file.content_type == "text/html" or name.endswith((".html", ".htm")):
                text = text_of_html(text).text
            yield _LINES_OF_BASE64.sub(" ", text)


def spaced(text: str) -> str:
    """Words with spaces between them, where PostgreSQL would see addresses, paths, tags or signed
    numbers as one; without the scripts that it cannot take apart."""
    return _SIGNED.sub(" ", UNBROKEN.sub(" ", text).translate(_PUNCTUATION))


def _field_tokens(message: Message, names: str) -> list[str]:
    found: dict[str, None] = {}
    for prefix, people in ((FROM, message.from_), (TO, message.to), (TO, message.cc)):
        for one in people[:_FIELD_TOKENS]:
            found.update(dict.fromkeys(prefix + token for token in tokens_of(one)))
    listed = message.header("list-id") or message.header("list-post") or ""
    if listed:
        found.update(dict.fromkeys(LIST + token for token in words_of(listed)))
        found.update(dict.fromkeys(LIST + one.strip("<>") for one in listed.lower().split()))
    found.update(dict.fromkeys(FILE + token for token in words_of(names)))
    found.update(dict.fromkeys(FILE + file.filename.lower() for file in message.attachments))
    if message.attachments:
        found[WITH_FILE + "file"] = None
    return [token[:_TOKEN_CHARACTERS] for token in found if len(token) > len(FROM)][:_FIELD_TOKENS]


def tokens_of(one: Mailbox) -> Iterator[str]:
    """A person as they are looked for: the address, its domain and those above it, their words."""
    address = one.address.lower()
    yield address
    _, _, domain = address.rpartition("@")
    labels = domain.split(".")[-8:]
    for start in range(len(labels) - 1):
        yield ".".join(labels[start:])
    yield from words_of(f"{one.name} {address}")


def words_of(text: str) -> list[str]:
    """The words of a name or an address, as they are compared; without their marks too."""
    found = _TOKENS.findall(folded(text))
    return [*found, *(plain for word in found if (plain := unmarked(word)) != word)]


def plain_words(text: str) -> list[str]:
    """The words of what is looked for in a field, without their marks: both forms are stored."""
    return [unmarked(word) for word in _TOKENS.findall(folded(text))]


def unmarked(word: str) -> str:
    """Letters without their marks: `müller` is `muller`."""
    if word.isascii():
        return word
    return normalize("NFC", "".join(one for one in normalize("NFD", word) if not combining(one)))


_MARKED = re.compile(r"\b(?=\w*[^\W\d_\x00-\x7f])[^\W_]+\b")
_LATIN_END = "\u0250"  # beyond it marks are letters of their own


def _plain(text: str) -> list[str]:
    found: dict[str, None] = {}
    for word in _MARKED.findall(folded(text)):
        plain = unmarked(word)
        if plain != word and plain < _LATIN_END:
            found[plain] = None
            if len(found) >= _FIELD_TOKENS:
                break
    return list(found)
