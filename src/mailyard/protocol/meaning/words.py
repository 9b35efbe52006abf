"""The words of `words.toml`, read once, and how words of a text are compared with them."""

import re
import tomllib
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

TABLES: dict[str, Any] = tomllib.loads(
    files("mailyard.protocol.meaning").joinpath("words.toml").read_text("utf-8")
)

_WORD = re.compile(r"[^\W_]+")
_LONGEST_PHRASE = 4  # words
_KEPT = str.maketrans({"ß": "ss", "ł": "l", "ø": "o", "æ": "ae", "đ": "d", "ı": "i"})


@lru_cache(maxsize=4096)
def fold(text: str) -> str:
    """Lower case, without accents: `Código` and `codigo` are one word."""
    lower = text.lower()
    if lower.isascii():
        return lower
    apart = unicodedata.normalize("NFKD", lower.translate(_KEPT))
    kept = "".join([one for one in apart if not unicodedata.combining(one)])
    return unicodedata.normalize("NFC", kept)


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a text, folded, where it stands."""

    text: str
    start: int
    end: int


def words_of(text: str, start: int = 0, end: int | None = None) -> list[Word]:
    """The words of `text[start:end]`; offsets are in `text`."""
    stop = len(text) if end is None else end
    return [
        Word(fold(found[0]), found.start(), found.end())
        for found in _WORD.finditer(text, max(0, start), stop)
    ]


class Lexicon:
    """Words, stems and phrases of one meaning; `scripts` are looked for anywhere in a text."""

    def __init__(self, entries: Iterable[str], scripts: Iterable[str] = ()) -> None:
        folded = [fold(entry) for entry in entries]
        self._stems = tuple(entry[:-1] for entry in folded if entry.endswith("-"))
        plain = [" ".join(_WORD.findall(entry)) for entry in folded if not entry.endswith("-")]
        self._words = frozenset(entry for entry in plain if " " not in entry)
        self._phrases = frozenset(entry for entry in plain if " " in entry)
        self._scripts = re.compile("|".join(map(re.escape, scripts))) if scripts else None

    def says(self, word: str) -> bool:
        """Is this one (folded) word of it?"""
        return word in self._words or (bool(self._stems) and word.startswith(self._stems))

    def among(self, words: list[Word]) -> Iterator[tuple[int, int]]:
        """(start, end) of each place where the words say it."""
        for index, word in enumerate(words):
            if self.says(word.text):
                yield word.start, word.end
            elif self._phrases:
                end = self._phrase_at(words, index)
                if end is not None:
                    yield word.start, end

    def scripted(
        self, text: str, start: int = 0, end: int | None = None
    ) -> Iterator[tuple[int, int]]:
        """(start, end) of each place where a language without spaces says it."""
        if self._scripts is not None:
            stop = len(text) if end is None else end
            for found in self._scripts.finditer(text, max(0, start), stop):
                yield found.span()

    def in_text(self, text: str) -> bool:
        """Does this short text say it anywhere?"""
        return any(True for _ in self.among(words_of(text))) or any(
            True for _ in self.scripted(text)
        )

    def _phrase_at(self, words: list[Word], index: int) -> int | None:
        said = words[index].text
        for word in words[index + 1 : index + _LONGEST_PHRASE]:
            said = f"{said} {word.text}"
            if said in self._phrases:
                return word.end
        return None
