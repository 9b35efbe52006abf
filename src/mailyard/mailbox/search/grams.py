"""Three characters at a time: how parts of words are found, and words where nothing parts them.

A text becomes grams with positions. Grams of one run (a word; a stretch of a script without word
breaks) stand at consecutive positions and runs apart, so a part is found exactly: as its grams
behind one another. Scripts without word breaks take two characters a gram: their words are short.
"""

import re
from collections.abc import Iterable, Iterator
from unicodedata import normalize

GRAM = 3
UNBROKEN_GRAM = 2
POSITIONS = 16_000  # PostgreSQL counts to 16,383
PER_GRAM = 250  # and keeps 255 positions of one
_LONG_WORD = 10  # such words of a text are taken apart: compounds, numbers, names of things

# Han, Hiragana, Katakana, Thai, Lao, Myanmar, Khmer, Tibetan, Bopomofo: written without spaces.
_UNBROKEN = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3100-\u312f"
    "\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
UNBROKEN = re.compile(f"[{_UNBROKEN}]+")
_WORDS = re.compile(r"[^\W_]+")
_LONG_WORDS = re.compile(rf"[^\W_]{{{_LONG_WORD},}}")
_GRAM_WORDS = re.compile(rf"[^\W_]{{{GRAM},}}")


def folded(text: str) -> str:
    """As it is compared: wide forms made narrow, case away."""
    return text.lower() if text.isascii() else normalize("NFKC", text).casefold()


def grams_of(run: str) -> list[str]:
    """The grams of one run, in order; of unbroken script the last character too, by itself."""
    if UNBROKEN.match(run):
        return [run[start : start + UNBROKEN_GRAM] for start in range(len(run))]
    if len(run) <= GRAM:
        return [run]
    return [run[start : start + GRAM] for start in range(len(run) - GRAM + 1)]


def runs(text: str, words: "re.Pattern[str]" = _WORDS) -> Iterator[str]:
    """The words of a folded text, and its stretches of unbroken script."""
    if text.isascii() or UNBROKEN.search(text) is None:
        yield from words.findall(text)
        return
    yield from words.findall(UNBROKEN.sub(" ", text))
    yield from UNBROKEN.findall(text)


def parts_vector(names: str, text: str, *, every_word: bool = False) -> str:
    """A tsvector as text: all words of `names`, and of `text` the unbroken script and the long
    words (with `every_word` all), each once, taken apart into grams.
    """
    wanted = dict.fromkeys(runs(folded(names)))
    wanted.update(dict.fromkeys(runs(folded(text), _GRAM_WORDS if every_word else _LONG_WORDS)))
    return _written(wanted)


def _written(found: Iterable[str]) -> str:
    places: dict[str, list[int]] = {}
    place = 1
    for run in found:
        for gram in grams_of(run):
            at = places.setdefault(gram, [])
            if len(at) < PER_GRAM:
                at.append(place)
            place += 1
        place += 1
        if place > POSITIONS:
            break
    return " ".join(f"{quoted(gram)}:{','.join(map(str, at))}" for gram, at in places.items())


def part_query(part: str) -> str | None:
    """A tsquery as text that finds `part` within a run; None when there is nothing in it."""
    found = list(runs(folded(part)))
    queries = [_of_run(run) for run in found]
    return " & ".join(f"( {query} )" for query in queries) if queries else None


def pieces_query(part: str) -> str | None:
    """What every text with `part` in it has too: its grams, wherever they stand."""
    found = [
        quoted(gram)
        for run in runs(folded(part))
        if len(run) >= (UNBROKEN_GRAM if UNBROKEN.match(run) else GRAM)
        for gram in _whole_grams(run)
    ]
    return " & ".join(dict.fromkeys(found)) or None


def _whole_grams(run: str) -> list[str]:
    """Without the last character by itself, which a longer run does not end with."""
    grams = grams_of(run)
    return grams[:-1] if UNBROKEN.match(run) else grams


def _of_run(run: str) -> str:
    unbroken = UNBROKEN.match(run) is not None
    if len(run) < (UNBROKEN_GRAM if unbroken else GRAM):
        return f"{quoted(run)}:*"  # the beginning of a gram
    return " <-> ".join(map(quoted, _whole_grams(run)))


def quoted(lexeme: str) -> str:
    """A lexeme as tsvector and tsquery read it."""
    return "'" + lexeme.replace("\\", "\\\\").replace("'", "''") + "'"
