"""One-time codes: a token that could be one, and words around it that say that it is.

First the tokens are found, which are few; then only the words near them are read. A word that makes
another code of it (`promo code`, `postal code`), or says that the number is of something else
(`card ending in 1234`), counts against it. What the mail calls a code and puts on a line of its own
counts most.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mailyard.protocol.meaning.finding import HTML, TEXT, OneTimeCode
from mailyard.protocol.meaning.letter import Letter, evidence
from mailyard.protocol.meaning.shapes import masked
from mailyard.protocol.meaning.words import TABLES, Lexicon, Word, fold, words_of

_TABLE = TABLES["code"]
_NOUNS = Lexicon([*_TABLE["nouns"], *_TABLE["phrases"]], _TABLE["scripts"])
_ENDINGS = tuple(map(fold, _TABLE["noun_endings"]))
_PURPOSE = Lexicon(_TABLE["purpose"], _TABLE["purpose_scripts"])
_SPOILERS = Lexicon(_TABLE["spoilers"], _TABLE["spoiler_scripts"])
_OTHERS = Lexicon(_TABLE["others"])
_UNITS = Lexicon(_TABLE["units"])

_TOKENS_READ = 200  # a mail with more numbers is a table
_BEFORE, _AFTER = 160, 100  # characters of context
_NEAR = 48  # between what a code is called and the code
_ENOUGH = 3
_HIGH = 5

_EDGE = r"A-Za-z0-9\u00c0-\u024f\u0400-\u04ff"
_TOKEN = re.compile(
    rf"(?<![{_EDGE}])(?<![{_EDGE}][-_.+/=@#&$])(?<![+=/\\$€£¥%_#@.])(?:"
    r"(?P<prefixed>[A-Z]{1,3}-\d{4,8})"
    r"|(?P<spaced>\d(?: \d){3,7}|\d{2} \d{2} \d{2}|\d{2}-\d{2}-\d{2})"
    r"|(?P<pairs>\d{3}[-\u2010-\u2013 \u00a0\u2009\u202f]\d{3}|\d{4}[- ]\d{4})"
    r"|(?P<plain>\d{4,8})"
    r"|(?P<groups>[A-Z0-9]{3,5}(?:-[A-Z0-9]{3,5}){1,3})"
    r"|(?P<mixed>(?=[A-Za-z]{0,11}\d)(?=\d{0,11}[A-Za-z])[A-Za-z0-9]{4,12})"
    r"|(?P<letters>[A-Z]{4,10})"
    rf")(?![{_EDGE}%‰€£¥°]|[-_.,:/@+=]\w| ?(?:%|€|£|¥|₽))"
)
_BOUND = re.compile(r"(?:^|\n)@[A-Za-z0-9.-]{3,253}\s#([A-Za-z0-9-]{4,12})[ \t]*(?=\n|$)")
_SENTENCE_END = re.compile(r"[.!?。！？…](?=\s|$)|\n\s*\n")
_STRONG_SHAPES = ("prefixed", "spaced", "pairs", "plain")
_LINKING = re.compile(
    r"[\s\"'“”„«»*:：=\-–—>(\[【]*(?:(?:is|are|ist|lautet|est|es|e|是|为|為|to|by|with|now|below|following)\b)?[\s\"'“”„«»*:：=\-–—>(\[【]*",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class _Token:
    value: str
    shape: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Context:
    """What stands around a token, as words and as text."""

    text: str
    before: list[Word]
    after: list[Word]
    first: int  # where the context begins
    last: int


def codes_of(letter: Letter) -> tuple[OneTimeCode, ...]:
    """The codes, the likeliest first. The HTML is looked at when the text has none."""
    found: dict[str, tuple[int, int, OneTimeCode]] = {}
    helped = any(_NOUNS.in_text(part) for part in (letter.subject,)) and _has_purpose(
        letter.subject
    )
    for place, (part, text) in enumerate(letter.parts()):
        if part == HTML and any(one.evidence[0].part == TEXT for _, _, one in found.values()):
            break
        for token, score in _scored(text, helped):
            known = found.get(token.value)
            seen = evidence(part, text, token.start, token.end)
            if known is None:
                code = OneTimeCode(token.value, _certainty(score), (seen,))
                found[token.value] = (-score, place, code)
            elif len(known[2].evidence) < 3:
                best = min(known[0], -score)
                code = OneTimeCode(token.value, _certainty(-best), (*known[2].evidence, seen))
                found[token.value] = (best, known[1], code)
    return _best(list(found.values()))


def _best(found: list[tuple[int, int, OneTimeCode]]) -> tuple[OneTimeCode, ...]:
    """Those that come near the best one."""
    found.sort(key=lambda one: one[:2])
    return tuple(code for score, _, code in found if score <= found[0][0] + 2)[:10]


def _certainty(score: int) -> Literal["high", "medium"]:
    return "high" if score >= _HIGH else "medium"


def _has_purpose(text: str) -> bool:
    return _PURPOSE.in_text(text)


def _scored(text: str, helped: bool) -> Iterator[tuple[_Token, int]]:
    for bound in _BOUND.finditer(text):
        yield _Token(bound[1], "plain", bound.start(1), bound.end(1)), 10
    whole = text.strip()
    alone = _TOKEN.fullmatch(whole)
    if alone is not None and alone.lastgroup in _STRONG_SHAPES:
        start = text.index(whole)
        yield _Token(_value(alone), alone.lastgroup, start, start + len(whole)), _ENOUGH
        return
    shown = masked(text)
    tokens = _tokens(shown)
    for token in tokens:
        score = _score(shown, token, helped)
        if score >= _ENOUGH:
            yield token, score


def _tokens(text: str) -> list[_Token]:
    found = []
    for match in _TOKEN.finditer(text):
        shape = match.lastgroup or ""
        if shape == "letters" and not _on_own_line(text, match):
            continue
        found.append(_Token(_value(match), shape, match.start(), match.end()))
        if len(found) >= _TOKENS_READ:
            break
    return found


def _value(match: re.Match[str]) -> str:
    """As it is typed: groups of digits belong together, what has letters stays as it is."""
    text = match[0]
    if match.lastgroup in ("spaced", "pairs"):
        return "".join(one for one in text if one.isdigit())
    return text


def _score(text: str, token: _Token, helped: bool) -> int:
    context = _context(text, token)
    called, direct, spoiled = _called(text, token, context)
    if not called:
        return 0
    score = 2 + direct - 4 * spoiled
    score += _says(_PURPOSE, context) or helped
    score += 2 * _stands_alone(text, token)
    if token.shape in ("prefixed", "pairs", "spaced") or (
        token.shape == "plain" and len(token.value) == 6
    ):
        score += 1
    if token.shape in ("groups", "mixed", "letters") and not (direct or _stands_alone(text, token)):
        score -= 2
    return score - _against(text, token, context, direct)


def _context(text: str, token: _Token) -> _Context:
    first = max(0, token.start - _BEFORE)
    last = min(len(text), token.end + _AFTER)
    return _Context(
        text, words_of(text, first, token.start), words_of(text, token.end, last), first, last
    )


def _called(text: str, token: _Token, context: _Context) -> tuple[bool, int, bool]:
    """(whether it is called a code, 1 when right beside it, whether it is another kind of code)."""
    called, direct, spoiled = False, 0, False
    for start, end in _nouns(context.before, text, context.first, token.start):
        gap = text[end : token.start]
        if len(gap.strip()) > _NEAR + 60 or _numbers_in(gap):
            continue
        called = True
        beside = _LINKING.fullmatch(gap) is not None
        direct = max(direct, int(beside))
        spoiled = spoiled or _spoiled(context.before, start, end)
    stop = _SENTENCE_END.search(text, token.end, context.last)
    limit = context.last if stop is None else stop.start()
    if not called and _stands_alone(text, token):
        limit = context.last
    for start, end in _nouns(context.after, text, token.end, limit):
        gap = text[token.end : start]
        if start >= limit or _numbers_in(gap) or "," in gap:
            continue
        called = True
        if start - token.end <= _NEAR:
            direct = 1
        spoiled = spoiled or _spoiled(context.after, start, end)
    return called, direct, spoiled


def _nouns(words: list[Word], text: str, start: int, end: int) -> list[tuple[int, int]]:
    found = list(_NOUNS.among(words))
    found += [(word.start, word.end) for word in words if word.text.endswith(_ENDINGS)]
    found += _NOUNS.scripted(text, start, end)
    return found


def _numbers_in(gap: str) -> bool:
    """Another number lies between: the word is about that one."""
    return any(one.isdigit() for one in gap)


def _spoiled(words: list[Word], start: int, end: int) -> bool:
    """Is the word right before, or the word itself, one of another kind of code?"""
    for index, word in enumerate(words):
        if word.start <= start < word.end:
            nearby = [one.text for one in words[max(0, index - 2) : index + 1]]
            behind = [one.text for one in words[index + 1 : index + 3] if one.start < end + 14]
            return any(_SPOILERS.says(one) for one in (*nearby, *behind)) and not any(
                _PURPOSE.says(one) and not _NOUNS.says(one) for one in nearby
            )
    return False


def _says(lexicon: Lexicon, context: _Context) -> bool:
    words = context.before[-16:] + context.after[:14]
    return (
        any(lexicon.says(word.text) for word in words)
        or any(True for _ in lexicon.scripted(context.text, context.first, context.last))
        or any(word.text.endswith(_ENDINGS) and len(word.text) > 7 for word in words)
    )


def _stands_alone(text: str, token: _Token) -> bool:
    line_start = text.rfind("\n", 0, token.start) + 1
    line_end = text.find("\n", token.end)
    rest = text[line_start : token.start] + text[token.end : line_end if line_end >= 0 else None]
    return (
        not rest.strip(" \t*_\"'`|>[]()-=#.:") and len(text.strip()) > token.end - token.start + 4
    )


def _on_own_line(text: str, match: re.Match[str]) -> bool:
    return _stands_alone(text, _Token("", "", match.start(), match.end()))


def _against(text: str, token: _Token, context: _Context, direct: int) -> int:
    """What speaks against it."""
    against = 0
    ahead = [word for word in context.before[-3:] if token.start - word.end <= 16]
    if ahead and any(_OTHERS.says(word.text) for word in ahead[-2:]):
        against += 4 if not direct or _OTHERS.says(ahead[-1].text) else 2
    behind = context.after[0] if context.after else None
    if behind is not None and behind.start - token.end <= 2 and _UNITS.says(behind.text):
        against += 5
    if token.shape == "plain" and len(token.value) == 4 and token.value[:2] in ("19", "20"):
        against += 0 if direct or _stands_alone(text, token) else 3
    words = context.before + context.after
    shop = any(_SPOILERS.says(word.text) for word in words)
    if token.shape in ("mixed", "groups", "letters") and shop:
        against += 3
    return against
