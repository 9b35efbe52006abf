"""The Date header (RFC 5322 section 3.3 and its obsolete forms) as an instant. Never raises."""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_MONTHS = {
    "jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6,
    "jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12,
}  # fmt: skip
_ZONES = {  # RFC 5322 section 4.3, hours
    "ut": 0, "utc": 0, "gmt": 0, "z": 0, "est": -5, "edt": -4, "cst": -6, "cdt": -5,
    "mst": -7, "mdt": -6, "pst": -8, "pdt": -7, "cet": 1, "cest": 2, "bst": 1, "jst": 9,
}  # fmt: skip
_DAY_FIRST = re.compile(
    r"(\d{1,2})[ \t-]+([A-Za-z]{3})[A-Za-z.]{0,7}[ \t,-]+(\d{2,4})[ \t,]+"
    r"(\d{1,2})[:.](\d{1,2})(?:[:.](\d{1,2})(?:\.\d{1,9})?)?"
    r"[ \t]*(?:(?:GMT|UTC)?([+-])(\d{1,2}):?(\d{2})|([A-Za-z]{1,4})\b)?"
)
_MONTH_FIRST = re.compile(
    r"([A-Za-z]{3})[a-z]{0,6}[ \t]+(\d{1,2})[ \t]+(\d{1,2}):(\d{2}):(\d{2})[ \t]+"
    r"(?:([A-Za-z]{1,4})[ \t]+)?(\d{4})"
)
_COMMENT = re.compile(r"\((?:[^()\\]++|\\.)*+\)")
_CHARACTERS = 200


def parse_date(text: str) -> datetime | None:
    """An aware UTC datetime, or None when `text` names no instant."""
    return _parse(text[:_CHARACTERS])


@lru_cache(maxsize=256)
def _parse(text: str) -> datetime | None:
    found = _DAY_FIRST.search(text)
    if found is not None:
        day, month, year, hour, minute, second, sign, hours, minutes, zone = found.groups()
        offset = timedelta(hours=_ZONES.get((zone or "").lower(), 0))
        if sign:
            offset = timedelta(hours=int(hours), minutes=int(minutes))
            offset = -offset if sign == "-" else offset
        return _instant(year, month, day, (hour, minute, second or "0"), offset)
    found = _MONTH_FIRST.search(text)
    if found is None:
        bare = _without_comments(text) if "(" in text else text
        return _parse(bare) if bare != text else None
    month, day, hour, minute, second, zone, year = found.groups()
    offset = timedelta(hours=_ZONES.get((zone or "").lower(), 0))
    return _instant(year, month, day, (hour, minute, second), offset)


def _without_comments(text: str) -> str:
    """RFC 5322 section 3.2.2: comments may stand between any two words, and in each other."""
    while (bare := _COMMENT.sub(" ", text)) != text:  # at most half the characters times
        text = bare
    return " ".join(text.split())


def _instant(
    year: str, month: str, day: str, clock: tuple[str, str, str], offset: timedelta
) -> datetime | None:
    number = _MONTHS.get(month.lower())
    if number is None:
        return None
    full_year = int(year)
    if len(year) == 2:
        full_year += 2000 if full_year < 50 else 1900
    elif len(year) == 3:
        full_year += 1900  # RFC 5322 section 4.3
    hour, minute, second = (int(part) for part in clock)
    try:
        local = datetime(full_year, number, int(day), hour, minute, min(second, 59), tzinfo=UTC)
        return local - offset
    except (ValueError, OverflowError):
        return None
