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
_WORDS = re.compile(rf"(?:(?![{_UNBROKEN}])[^\W_])+")


def folded(text: str) -> str:
    """As it is compared: wide forms made narrow, case away."""
    return normalize("NFKC", text).casefold()


def grams_of(run: str) -> list[str]:
    """The grams of one run, in order; of unbroken script the last character too, by itself."""
    if UNBROKEN.match(run):
        return [run[start : start + UNBROKEN_GRAM] for start in range(len(run))]
    if len(run) <= GRAM:
        return [run]
    return [run[start : start + GRAM] for start in range(len(run) - GRAM + 1)]


def runs(text: str) -> Iterator[str]:
    """The stretches of unbroken script, and the words between them, of a folded text."""
    place = 0
    for match in UNBROKEN.finditer(text):
        yield from _WORDS.findall(text, place, match.start())
        yield match[0]
        place = match.end()
    yield from _WORDS.findall(text, place)


def parts_vector(names: str, text: str, *, every_word: bool = False) -> str:
    """A tsvector as text: all words of `names`, and of `text` the unbroken script and the long
    words (with `every_word` all), each once, taken apart into grams.
    """
    wanted = dict.fromkeys(runs(folded(names)))
    least = GRAM if every_word else _LONG_WORD
    for run in runs(folded(text)):
        if len(run) >= least or UNBROKEN.match(run):
            wanted[run] = None
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


def _of_run(run: str) -> str:
    unbroken = UNBROKEN.match(run) is not None
    if len(run) < (UNBROKEN_GRAM if unbroken else GRAM):
        return f"{quoted(run)}:*"  # the beginning of a gram
    grams = grams_of(run)
    return " <-> ".join(map(quoted, grams[:-1] if unbroken else grams))


def quoted(lexeme: str) -> str:
    """A lexeme as tsvector and tsquery read it."""
    return "'" + lexeme.replace("\\", "\\\\").replace("'", "''") + "'"
