"""In which language a mail is written, as PostgreSQL's text search configurations are named.

By the words that every text of a language has, so it needs a sentence or two; a shorter text, or
one in no language that PostgreSQL has rules for, is `simple`: its words as they are.
"""

import re
import tomllib
from collections import Counter
from functools import cache
from importlib.resources import files

SIMPLE = "simple"
AUTO = "auto"
_SAMPLE_CHARACTERS = 4_000
_SAMPLE_WORDS = 400
_LEAST = 2  # telling words
_SPARSE = 25  # and one among so many words
# Vowel signs and points of Hebrew, Arabic, Devanagari and Tamil, which no letter class has.
_MARKS = (
    "\u0300-\u036f\u0591-\u05bd\u05bf-\u05c2\u064b-\u065f\u0670\u0900-\u0903\u093a-\u093c"
    "\u093e-\u094f\u0955-\u0957\u0962\u0963\u0b82\u0bbe-\u0bcd\u0bd7"
)
_WORD = re.compile(rf"(?:[^\W\d_]|[{_MARKS}])+")


@cache
def _telling() -> dict[str, tuple[str, ...]]:
    """Each telling word with the languages that it tells of."""
    text = files("mailyard.mailbox.search").joinpath("language.toml").read_text("utf-8")
    found: dict[str, list[str]] = {}
    for language, words in tomllib.loads(text).items():
        for word in set(words.split()):
            found.setdefault(word, []).append(language)
    return {word: tuple(languages) for word, languages in found.items()}


@cache
def languages() -> tuple[str, ...]:
    """All of them, `simple` first."""
    return (SIMPLE, *sorted({one for ones in _telling().values() for one in ones}))


def language_of(text: str) -> str:
    """The language of `text`, or `simple`."""
    telling = _telling()
    scores: Counter[str] = Counter()
    sample = _WORD.findall(text[:_SAMPLE_CHARACTERS].lower())[:_SAMPLE_WORDS]
    words = len(sample)
    for word in filter(telling.__contains__, sample):
        scores.update(telling[word])
    if not scores:
        return SIMPLE
    (best, count), *others = scores.most_common(2)
    if count < _LEAST or count * _SPARSE < words:
        return SIMPLE
    return best if not others or others[0][1] < count else SIMPLE
