"""Address headers of received mail (RFC 5322 section 3.4), read leniently. Never raises; linear.

What is sent to is parsed strictly by `protocol.address`; this is for showing who wrote.
"""

import re
from collections.abc import Iterator
from itertools import islice

from mailyard.core.limits import KIB
from mailyard.protocol.address import Mailbox
from mailyard.protocol.mime.encoded_word import decode_words

_ADDRESSES = 2_000  # of one header
_TOKENS = 20_000  # of one header; some ten for an address
_CHARACTERS = 32 * KIB  # of one header
_TOKEN = re.compile(
    r'"([^"\\]*+(?:\\.[^"\\]*+)*+)"?|<([^<>]*+)>?|([,;:()\\>])|([^"<>,;:()\\]++)', re.DOTALL
)
_COMMENT = re.compile(r"\([^()]*+\)")
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_PLAIN = re.compile(
    r"([^\"<>(),;:\\@=?\s][^\"<>(),;:\\@=?]*)? ?<([^\s\"<>(),;:\\]+@[^\s\"<>(),;:\\]+)>"
)
# RFC 5322 section 4.4: once there was white space around the dots and the at sign.
_SPACED = re.compile(r"\s++([@.])\s*+|(?<=@)\s++")
_BARE = re.compile(r"[^\s\"<>(),;:\\]+@[^\s\"<>(),;:\\]+")


def parse_addresses(value: str) -> list[Mailbox]:
    """The mailboxes of a From, To or Cc value, groups flattened, names decoded."""
    text = value[:_CHARACTERS].strip()
    plain = _PLAIN.fullmatch(text)
    if plain is not None:
        return [Mailbox((plain[1] or "").rstrip(), plain[2])]
    if _BARE.fullmatch(text):
        return [Mailbox("", text)]
    return _Reader().read(text)


class _Reader:
    """One pass over the tokens; an address ends at a comma, a semicolon or the value's end."""

    __slots__ = ("_address", "_comment", "_depth", "_escaped", "_found", "_grouped", "_words")

    def __init__(self) -> None:
        self._found: list[Mailbox] = []
        self._depth = 0
        self._escaped = False
        self._grouped = False
        self._begin()

    def _begin(self) -> None:
        self._words: list[str] = []
        self._comment: list[str] = []
        self._address: str | None = None

    def read(self, text: str) -> list[Mailbox]:
        for token in islice(_tokens(text), _TOKENS):
            quoted, angle, special, word = token.groups()
            if self._depth and (self._escaped or special == "\\"):  # a quoted pair of a comment
                self._escaped = not self._escaped
                self._comment.append(token[0] if special != "\\" else "")
            elif special == "(":
                self._depth += 1
            elif special == ")":
                self._depth = max(0, self._depth - 1)
            elif self._depth:
                self._comment.append(token[0])
            elif special in (",", ";"):
                self._finish()
                if len(self._found) >= _ADDRESSES:
                    return self._found
            elif special == ":":
                self._grouped = True
                self._begin()  # what stood before it was a group's name
            elif angle is not None:
                if self._address is None or "@" in angle:
                    self._address = angle
            elif quoted is not None:
                self._words.append(_QUOTED_PAIR.sub(r"\1", quoted) if "\\" in quoted else quoted)
                if token.string[token.end() : token.end() + 1] == "@":
                    self._words[-1] = f'"{quoted}"'
            elif word is not None:
                self._words.append(word)
        comment = self._comment
        self._finish()
        if not self._found and not self._grouped and comment:
            name = " ".join(decode_words("".join(comment)).split())
            return [Mailbox(name, "")]
        return self._found

    def _finish(self) -> None:
        name = "".join(self._words)
        address = self._address
        if address is None:
            address, name = _bare(name)
        else:
            name = " ".join(decode_words(name).split())
            address = address.strip().rpartition(":")[2]  # an obsolete route, section 4.4
            if "(" in address:
                address = _COMMENT.sub("", address)
        if self._comment and not address and name.count(" ") == 0 < len(name):
            address, name = name, ""  # `nsb (Nathaniel)`, of a time when hosts had no domains
        if not name and address and self._comment:
            name = " ".join(decode_words("".join(self._comment)).split())
        if '"@' not in address:
            address = "".join(decode_words(address).split())
        if address or name:
            self._found.append(Mailbox(name, address))
        self._begin()


def _bare(text: str) -> tuple[str, str]:
    """(address, name) of text without angle brackets."""
    if '"@' in text:
        return text.strip(), ""
    if "@" in text and _SPACED.search(text):
        text = _SPACED.sub(r"\1", text)
    words = text.split()
    for position, word in enumerate(words):
        if "@" in word:
            rest = words[:position] + words[position + 1 :]
            return word, decode_words(" ".join(rest))
    return "", decode_words(" ".join(words))


def _tokens(text: str) -> Iterator[re.Match[str]]:
    """Quoted strings, bracketed addresses, specials and words; a quote without end is a space."""
    for token in _TOKEN.finditer(text):
        if token[1] is not None and (len(token[0]) < 2 or token[0][-1] != '"'):
            yield from _TOKEN.finditer(text[token.start() + 1 :].replace('"', " "))
            return
        yield token
