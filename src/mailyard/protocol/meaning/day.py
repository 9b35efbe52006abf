"""Dates as people write them, in many languages, with a time of day where one stands behind."""

import re
from collections.abc import Iterator
from datetime import date
from functools import lru_cache

from mailyard.protocol.meaning.finding import HTML, FoundDay, Part
from mailyard.protocol.meaning.letter import Letter, evidence
from mailyard.protocol.meaning.shapes import URL
from mailyard.protocol.meaning.words import TABLES, fold

_TABLE = TABLES["days"]
_FOUND = 50


def _months() -> dict[str, int]:
    table: dict[str, int] = {}
    for names in _TABLE["months"]:
        for number, name in enumerate(names, 1):
            table.setdefault(fold(name), number)
    for names, numbers in zip(_TABLE["short"], _TABLE["short_values"], strict=True):
        for name, number in zip(names, numbers, strict=True):
            table.setdefault(fold(name), number)
    return table


_MONTHS = _months()
_TIME = (
    r"(?:,?\s{1,3}(?:at|um|à|a las|alle|kl\.?|klo|o|в|om|às|,|-|–|@)?\s{0,2}"
    r"(?P<hour>[01]?\d|2[0-3])(?::|h|\.(?=\d\d\s*(?:Uhr|h\b)))(?P<minute>[0-5]\d)(?::[0-5]\d)?"
    r"(?:\s?(?P<half>[ap]\.?m\b\.?))?)?"
)
_YEAR = r"(?P<y>(?:19|20)\d\d)"
_D, _M = r"(?P<d>\d{1,2})", r"(?P<m>\d{1,2})"
_NAME = r"(?P<name>[^\W\d_]{3,12})"
_PATTERNS = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("ymd", rf"(?<![\d./-]){_YEAR}[-/.]{_M}[-/.]{_D}(?![\d-])(?:T(?=\d))?{_TIME}"),
        ("ymd", rf"{_YEAR}\s?[年년]\s?{_M}\s?[月월]\s?{_D}\s?[日일]"),
        ("dmy", rf"(?<![\d./-]){_D}[./-]{_M}[./-]{_YEAR}(?![\d./-]\d){_TIME}"),
        (
            "named",
            rf"(?<!\d){_D}(?:st|nd|rd|th|er|º|ª|\.)?,?[\s-](?:de\s|of\s|d['’])?"
            rf"{_NAME}\.?,?[\s-](?:de\s|del\s)?{_YEAR}(?!\d){_TIME}",
        ),
        ("named", rf"(?<!\w){_NAME}\.?\s{_D}(?:st|nd|rd|th)?,?\s{_YEAR}(?!\d){_TIME}"),
    )
)


def days_of(letter: Letter) -> tuple[FoundDay, ...]:
    """The dates, each once, in their order; of the HTML when the rest has none."""
    found: dict[str, FoundDay] = {}
    for part, text in letter.parts():
        if part == HTML and found:
            break
        for day in _in_text(part, text):
            found.setdefault(day.value, day)
            if len(found) >= _FOUND:
                return tuple(found.values())
    return tuple(found.values())


def _in_text(part: Part, text: str) -> Iterator[FoundDay]:
    shown = URL.sub(lambda found: "\0" * len(found[0]), text) if "http" in text else text
    taken: list[tuple[int, int, str, bool]] = []
    for kind, pattern in _PATTERNS:
        for found in pattern.finditer(shown):
            read = _read(kind, found)
            if read is not None and not any(
                found.start() < end and start < found.end() for start, end, _, _ in taken
            ):
                taken.append((found.start(), found.end(), *read))
            if len(taken) >= _FOUND * 2:
                break
    for start, end, value, ambiguous in sorted(taken):
        yield FoundDay(value, ambiguous, evidence(part, text, start, end))


def _read(kind: str, found: re.Match[str]) -> tuple[str, bool] | None:
    """(the date, whether it could be another one), or None for what is no date."""
    groups = found.groupdict()
    year, day = int(groups["y"]), int(groups["d"])
    ambiguous = False
    if kind == "named":
        month = month_of(groups["name"])
    else:
        month = int(groups["m"])
        if kind == "dmy":
            if month > 12 >= day:
                day, month = month, day  # the American order: no other reading
            ambiguous = day <= 12 and month <= 12 and day != month and "." not in found[0][:6]
    try:
        value = date(year, month, day).isoformat()
    except ValueError:
        return None
    return value + _time(groups), ambiguous


@lru_cache(maxsize=1024)
def month_of(name: str) -> int:
    """1 to 12, or 0. A name may be cut, if what is left is three letters of one month alone."""
    folded = fold(name)
    exact = _MONTHS.get(folded)
    if exact is not None:
        return exact
    fitting = {
        number for known, number in _MONTHS.items() if len(folded) >= 3 and known.startswith(folded)
    }
    return fitting.pop() if len(fitting) == 1 else 0


def _time(groups: dict[str, str | None]) -> str:
    hour, minute = groups.get("hour"), groups.get("minute")
    if hour is None or minute is None:
        return ""
    number = int(hour)
    half = (groups.get("half") or "").lower()
    if half and number > 12:
        return ""
    if half.startswith("p") and number < 12:
        number += 12
    elif half.startswith("a") and number == 12:
        number = 0
    return f"T{number:02d}:{minute}"
