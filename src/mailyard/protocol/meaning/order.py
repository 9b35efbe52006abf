"""Numbers that a mail is about: its order, invoice, booking or ticket."""

import re
from collections.abc import Iterator
from typing import get_args

from mailyard.protocol.meaning.finding import HTML, OrderKind, OrderNumber, Part
from mailyard.protocol.meaning.letter import Letter, evidence
from mailyard.protocol.meaning.shapes import masked
from mailyard.protocol.meaning.words import TABLES, Lexicon, Word, fold, words_of

_TABLE = TABLES["order"]
_KINDS: dict[OrderKind, Lexicon] = {
    kind: Lexicon(_TABLE[kind], _TABLE["scripts"][kind]) for kind in get_args(OrderKind)
}
_ENDINGS: dict[OrderKind, tuple[str, ...]] = {
    "order": ("bestellnummer", "auftragsnummer", "ordernummer"),
    "invoice": ("rechnungsnummer",),
    "booking": ("buchungsnummer", "buchungscode"),
    "ticket": ("ticketnummer", "vorgangsnummer"),
}
_BETWEEN = frozenset(map(fold, _TABLE["number"]))
_MARKETPLACE = re.compile(r"(?<![\d-])\d{3}-\d{7}-\d{7}(?![\d-])")  # Amazon's, in every country
_NUMBER = re.compile(
    r"(?<![A-Za-z0-9@./&=-])#?\s?([A-Z0-9](?:[A-Z0-9]|[-/._](?=[A-Z0-9])){2,29})(?![A-Za-z0-9@]|[.,:]\d)",
)
_PNR = re.compile(r"[A-Z0-9]{5,8}")
_REACH = 40  # characters between the word and its number
_FOUND = 50
_NUMBERS_READ = 400


def orders_of(letter: Letter) -> tuple[OrderNumber, ...]:
    """Each number once, in their order; the HTML is read when text and subject have none."""
    found: dict[str, OrderNumber] = {}
    for part, text in letter.parts():
        if part == HTML and found:
            break
        for order in _in_text(part, text):
            found.setdefault(order.number, order)
            if len(found) >= _FOUND:
                return tuple(found.values())
    return tuple(found.values())


def _in_text(part: Part, text: str) -> Iterator[OrderNumber]:
    shown = masked(text)
    for found in _MARKETPLACE.finditer(text):
        yield OrderNumber(found[0], "order", evidence(part, text, *found.span()))
    for count, found in enumerate(_NUMBER.finditer(shown)):
        if count >= _NUMBERS_READ:
            return
        number = found[1]
        if not any(map(str.isdigit, number)) and _PNR.fullmatch(number) is None:
            continue
        kind = _kind(shown, found.start(), "#" in found[0], number)
        if kind is not None:
            yield OrderNumber(number, kind, evidence(part, text, found.start(1), found.end(1)))


def _kind(text: str, start: int, hashed: bool, number: str) -> OrderKind | None:
    """What the words before the number call it."""
    for kind, lexicon in _KINDS.items():
        for _, end in lexicon.scripted(text, max(0, start - 12), start):
            if not any(map(str.isalnum, text[end:start])):
                return kind
    begin = max(0, start - _REACH - 20)
    line = text.rfind("\n\n", begin, start)
    words = words_of(text, max(begin, line), start)
    gap_digits = 0
    for index in range(len(words) - 1, max(-1, len(words) - 7), -1):
        word = words[index]
        if start - word.end > _REACH:
            return None
        named = _names(words, index)
        if named is not None:
            return named if _fits(named, number, text[word.end : start], hashed) else None
        if word.text not in _BETWEEN and not _names_number(word):
            gap_digits += 1
            if gap_digits > 0:
                return None
    return None


def _names(words: list[Word], index: int) -> OrderKind | None:
    word = words[index].text
    for kind, lexicon in _KINDS.items():
        if lexicon.says(word) or word.endswith(_ENDINGS[kind]):
            return kind
    return None


def _names_number(word: Word) -> bool:
    return word.text.endswith(("nummer", "numero", "number"))


def _fits(kind: str, number: str, gap: str, hashed: bool) -> bool:
    """A short number needs a sign or a word for "number" before it; a word is none."""
    digits = sum(one.isdigit() for one in number)
    marked = hashed or ":" in gap or "：" in gap or len(gap.strip()) > 1
    if digits == 0:
        return kind == "booking" and marked and len(number) in (5, 6, 7, 8)
    if re.fullmatch(r"(?:19|20)\d\d", number) and not hashed:
        return False
    return digits >= 4 or (digits >= 3 and marked) or (digits >= 2 and len(number) >= 6)
