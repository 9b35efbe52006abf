"""Phrases found in the words of a server: many phrases, one pass over a text.

Text is compared as words: lower case, addresses as the word `addr`, everything that is neither
letter nor digit as one space. `550 <a@b.example>... User unknown` reads ` 550 addr user unknown `.

A phrase is written as words. `{mailbox|mail box}` is one of these, with an empty one it may be
missing, and ` * ` stands for up to six words. A phrase in a script without spaces is searched as it
stands. Phrases are kept by the words with which they begin, so that thousands cost little more than
ten, and the work is bounded by the length of the text.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product, zip_longest
from typing import Generic, TypeVar

from mailyard.core.errors import ConfigurationError

T = TypeVar("T")

GAP_WORDS = 6
# From the start of a word only, so that a long one is not tried from each of its letters.
_ADDRESS = re.compile(
    r"(?<![^\s<>\"'(),;:\[\]])[^\s<>\"'(),;:\[\]@]{1,200}@[^\s<>\"'(),;:\[\]]{1,255}"
)
_APOSTROPHE = re.compile(r"(?<=\w)['\u2019`](?=\w)")
_DROPPED = b"'`"
_PLAIN = bytes(byte if chr(byte).isalnum() else 32 for byte in bytes(range(128)).lower()) + bytes(
    [32] * 128
)
_NO_WORD = re.compile(r"[\W_]+")
_TOKEN = re.compile(r"\{([^{}]*)\}|(\S+)")
_CHOICE = re.compile(r"\{([^{}]*)\}")
_WITHOUT_SPACES = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\u0e00-\u0e7f]")

Words = tuple[str, ...]


def words_of(text: str) -> str:
    """`text` as phrases are compared with it: words between single spaces, one at each end."""
    if "@" in text:
        text = _ADDRESS.sub(" addr ", text)
    if text.isascii():  # nearly all: one pass in C
        words = text.encode().translate(_PLAIN, _DROPPED).decode().split()
    else:
        words = _NO_WORD.sub(" ", _APOSTROPHE.sub("", text.lower())).split()
    return f" {' '.join(words)} " if words else " "


@dataclass(frozen=True, slots=True)
class _Slot:
    """One place of a phrase: what may stand there, by its first word; or a gap."""

    by_word: dict[str, tuple[Words, ...]]
    may_be_missing: bool = False
    gap: bool = False


_GAP = _Slot({}, gap=True)


class Phrases(Generic[T]):
    """A set of phrases, each with what it means. Built once, used for every text.

    Raises ConfigurationError naming the phrase that cannot be used.
    """

    __slots__ = ("_by_words", "_unspaced")

    def __init__(self, phrases: Iterable[tuple[str, T]]) -> None:
        # First word -> second word -> phrases; under "" are those of which the second is open.
        self._by_words: dict[str, dict[str, list[tuple[tuple[_Slot, ...], T]]]] = {}
        self._unspaced: list[tuple[str, T]] = []
        for written, meaning in phrases:
            if _WITHOUT_SPACES.search(written):
                self._unspaced += [(phrase, meaning) for phrase in _spelled_out(written)]
                continue
            slots = tuple(_slots(written))
            _check(slots, written)
            for first, second in set(_beginnings(slots)):
                entries = self._by_words.setdefault(first, {}).setdefault(second, [])
                entries.append((slots, meaning))

    def found_in(self, words: str) -> Iterator[T]:
        """What the phrases in `words` (a text as `words_of` gives it) mean; some more than once."""
        by_words = self._by_words
        tokens = words.split()
        for position, (token, following) in enumerate(zip_longest(tokens, tokens[1:])):
            known = by_words.get(token)
            if known is not None:
                for second in ("", following):
                    for slots, meaning in known.get(second, ()):
                        if _stands_at(slots, 0, tokens, position):
                            yield meaning
        if self._unspaced and not words.isascii():
            for phrase, meaning in self._unspaced:
                if phrase in words:
                    yield meaning

    def any_in(self, words: str) -> bool:
        """Whether `words` has one of the phrases."""
        return next((True for _ in self.found_in(words)), False)


def _check(slots: tuple[_Slot, ...], written: str) -> None:
    followed = all(
        not slot.gap or (behind.by_word and not behind.may_be_missing)
        for slot, behind in zip_longest(slots, slots[1:], fillvalue=_GAP)
    )
    if not followed or all(slot.may_be_missing or slot.gap for slot in slots) or slots[0].gap:
        raise ConfigurationError(
            f"the phrase {written!r} cannot be found: it needs words, and words behind each *"
        )


def _slots(written: str) -> Iterator[_Slot]:
    for choice, word in _TOKEN.findall(written):
        if word == "*":
            yield _GAP
        elif word:
            yield _slot(word)
        else:
            yield _slot(choice)


@lru_cache(maxsize=512)
def _slot(choice: str) -> _Slot:
    by_word: dict[str, list[Words]] = {}
    may_be_missing = False
    for alternative in choice.split("|"):
        first, *rest = alternative.split() or [""]
        if first:
            by_word.setdefault(first, []).append(tuple(rest))
        else:
            may_be_missing = True
    return _Slot({word: tuple(rests) for word, rests in by_word.items()}, may_be_missing)


def _beginnings(slots: tuple[_Slot, ...]) -> Iterator[tuple[str, str]]:
    """The first two words with which a phrase may begin; the second is empty when it is open."""
    for first, rests in slots[0].by_word.items():
        for rest in rests:
            if rest:
                yield first, rest[0]
            else:
                yield from ((first, second) for second in _first_words(slots[1:]))
    if slots[0].may_be_missing:
        yield from _beginnings(slots[1:])


def _first_words(slots: tuple[_Slot, ...]) -> set[str]:
    """With which words the rest of a phrase may begin; the empty one when it may be anything."""
    found: set[str] = set()
    for slot in slots:
        if slot.gap:
            break
        found |= slot.by_word.keys()
        if not slot.may_be_missing:
            return found
    return found | {""}


def _stands_at(slots: tuple[_Slot, ...], index: int, tokens: list[str], at: int) -> bool:
    """Whether the phrase from its slot `index` on stands at `tokens[at]`."""
    if index == len(slots):
        return True
    slot = slots[index]
    if slot.gap:
        behind = slots[index + 1].by_word  # what follows a gap may not be missing
        for start in range(at, min(at + GAP_WORDS + 1, len(tokens))):
            if tokens[start] in behind and _stands_at(slots, index + 1, tokens, start):
                return True
        return False
    if at < len(tokens):
        for rest in slot.by_word.get(tokens[at], ()):
            end = at + 1 + len(rest)
            stands = not rest or tuple(tokens[at + 1 : end]) == rest
            if stands and _stands_at(slots, index + 1, tokens, end):
                return True
    return slot.may_be_missing and _stands_at(slots, index + 1, tokens, at)


def _spelled_out(written: str) -> Iterator[str]:
    """Each phrase that `{one|other}` stands for, in a script without spaces."""
    parts = _CHOICE.split(written)
    choices = [part.split("|") if index % 2 else [part] for index, part in enumerate(parts)]
    for chosen in product(*choices):
        yield "".join(chosen)
