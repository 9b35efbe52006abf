"""What people write into forms, as values: `7 days`, `10 MB`, `1 000`; and values as people write
them. An empty field is None."""

import re

from mailyard.core.errors import InvalidInput

_DURATIONS = {
    "": 1.0, "s": 1.0, "second": 1.0, "seconds": 1.0,
    "min": 60.0, "minute": 60.0, "minutes": 60.0,
    "h": 3600.0, "hour": 3600.0, "hours": 3600.0,
    "d": 86_400.0, "day": 86_400.0, "days": 86_400.0,
}  # fmt: skip
_SIZES: dict[str, float] = {"": 1, "b": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}
_QUANTITY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([A-Za-z]{0,7})")
_WHOLE = re.compile(r"[0-9]{1,15}")
_SPACES = re.compile(r"[ \u00a0\u2009\u202f]")


def whole(text: str, field: str) -> int | None:
    """A whole number, spaces between its thousands or not. Raises InvalidInput."""
    digits = _SPACES.sub("", text)
    if not digits:
        return None
    if not _WHOLE.fullmatch(digits):
        raise InvalidInput("a whole number", field=field)
    return int(digits)


def number(text: str, field: str) -> float | None:
    """A number with a point or a comma. Raises InvalidInput."""
    found = _QUANTITY.fullmatch(text.replace(",", "."))
    if found is not None and not found[2]:
        return float(found[1])
    if text:
        raise InvalidInput("a number", field=field)
    return None


def seconds(text: str, field: str) -> float | None:
    """A duration: a number and s, min, h or d. Raises InvalidInput."""
    return _quantity(text, field, _DURATIONS, "a time such as 90 s, 15 min, 12 h or 7 days")


def size_bytes(text: str, field: str) -> int | None:
    """A size: a number and KB, MB or GB. Raises InvalidInput."""
    found = _quantity(text, field, _SIZES, "a size such as 500 KB, 10 MB or 1 GB")
    return None if found is None else int(found)


def lines(text: str) -> tuple[str, ...]:
    """One entry a line, or several with commas between."""
    return tuple(filter(None, (one.strip() for one in text.replace(",", "\n").split("\n"))))


def said_seconds(value: float | None) -> str:
    """`7 days`: so that `seconds` gives the same again."""
    if value is None:
        return ""
    for name, unit in (("days", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if value >= unit and value % unit == 0:
            return "1 day" if value == 86_400.0 else f"{value / unit:.0f} {name}"
    return f"{value:.6f}".rstrip("0").rstrip(".") + " s"


def said_size(value: int | None) -> str:
    """`10 MB`: so that `size_bytes` gives the same again."""
    if value is None:
        return ""
    for name in ("gb", "mb", "kb"):
        if value % _SIZES[name] == 0:
            return f"{value / _SIZES[name]:.0f} {name.upper()}"
    return str(value)


def _quantity(text: str, field: str, units: dict[str, float], wanted: str) -> float | None:
    if not text:
        return None
    found = _QUANTITY.fullmatch(text.replace(",", "."))
    if found is None or found[2].lower() not in units:
        raise InvalidInput(wanted, field=field)
    return float(found[1]) * units[found[2].lower()]
