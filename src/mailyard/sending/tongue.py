"""Dates, numbers and money as the reader writes them: filters for templates, by CLDR (babel).

    {{ order.total|money("EUR") }}      1.234,50 €
    {{ stock|number }}  {{ kg|number(2) }}  {{ rate|percent }}
    {{ order.at|date }}  {{ order.at|datetime("short") }}  {{ at|time("short", "Europe/Rome") }}

The locale is the data's `locale` (a contact's attribute, or given with the send), else the
workspace's; the zone of an instant is the data's `timezone`, else UTC. A locale or zone that nobody
knows is as if it were not there: a contact's typing error stops no mail.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, tzinfo
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from babel import Locale

DEFAULT = "en"
CALLS = 20_000  # of one render, some 30 microseconds each
_LOCALES = 200  # that one process loads, up to half a megabyte each
_TAG = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8}){0,3}")
_ZONE = re.compile(r"[A-Za-z0-9_+-]{1,32}(?:/[A-Za-z0-9_+-]{1,32}){0,2}")
_CURRENCY = re.compile(r"[A-Z]{3}")
_FORMS = ("short", "medium", "long", "full")
_NUMBER_CHARACTERS = 40
_NUMBER_MAX = Decimal(10) ** 15
_DECIMALS_MAX = 10

_loaded: set[str] = set()


class Refused(Exception):
    """A filter does not take this; the message says why."""


class TooMany(Exception):
    """The filters were called more than CALLS times in one render."""


class Tongue:
    """The filters, and whose locale they speak now. `turn_to` before each render."""

    __slots__ = ("_default", "_left", "_locale", "_zone")

    def __init__(self, default: str) -> None:
        self._default = default
        self._locale: Any = default
        self._zone: Any = None
        self._left = 0

    def turn_to(self, data: Mapping[str, Any]) -> None:
        """Speak as the data's `locale` and `timezone` say."""
        self._locale = data.get("locale")
        self._zone = data.get("timezone")
        self._left = CALLS

    def filters(self) -> dict[str, Callable[..., str]]:
        """By the names that templates use."""
        return {
            "money": self.money,
            "number": self.number,
            "percent": self.percent,
            "date": self.write_date,
            "time": self.write_time,
            "datetime": self.write_datetime,
        }

    def money(self, value: object, currency: object = None) -> str:
        if not isinstance(currency, str) or not _CURRENCY.fullmatch(currency):
            raise Refused('money wants a currency: money("EUR")')
        locale, amount = self._called(), _number("money", value)
        if amount is None:
            return ""
        from babel.numbers import format_currency

        return str(format_currency(amount, currency, locale=locale))

    def number(self, value: object, decimals: object = None) -> str:
        locale, amount = self._called(), _number("number", value)
        return "" if amount is None else _written(locale, locale.decimal_formats, amount, decimals)

    def percent(self, value: object, decimals: object = None) -> str:
        locale, amount = self._called(), _number("percent", value)
        return "" if amount is None else _written(locale, locale.percent_formats, amount, decimals)

    def write_date(self, value: object, form: object = "medium", zone: object = None) -> str:
        locale, moment = self._called(), self._moment("date", value, zone)
        if moment is None:
            return ""
        from babel.dates import format_date

        return str(format_date(moment, _form("date", form), locale=locale))

    def write_time(self, value: object, form: object = "short", zone: object = None) -> str:
        locale, moment = self._called(), self._moment("time", value, zone)
        if moment is None:
            return ""
        from babel.dates import format_time

        return str(
            format_time(moment, _form("time", form), tzinfo=_own_zone(moment), locale=locale)
        )

    def write_datetime(self, value: object, form: object = "medium", zone: object = None) -> str:
        locale, moment = self._called(), self._moment("datetime", value, zone)
        if moment is None:
            return ""
        from babel.dates import format_datetime

        return str(
            format_datetime(
                moment, _form("datetime", form), tzinfo=_own_zone(moment), locale=locale
            )
        )

    def _called(self) -> "Locale":
        self._left -= 1
        if self._left < 0:
            raise TooMany
        for word in (self._locale, self._default):
            if isinstance(word, str) and (found := locale_of(word)) is not None:
                return found
        found = locale_of(DEFAULT)
        assert found is not None, "babel knows English"
        return found

    def _moment(self, name: str, value: object, zone: object) -> datetime | None:
        moment = _moment(name, value)
        if moment is None or moment.tzinfo is None:
            return moment
        return moment.astimezone(zone_of(zone) or zone_of(self._zone) or UTC)


def locale_of(word: str) -> "Locale | None":
    """The locale that a tag names (`de-AT`, `pt_BR`), or its language; None when unknown."""
    if len(word) > 35 or not _TAG.fullmatch(word):
        return None
    return _known_locale(word.replace("-", "_"))


@lru_cache(4_096)
def _known_locale(tag: str) -> "Locale | None":
    from babel import Locale, UnknownLocaleError

    pieces = tag.split("_")
    while pieces:
        name = "_".join(pieces)
        if name in _loaded or len(_loaded) < _LOCALES:
            try:
                locale = Locale.parse(name)
            except (UnknownLocaleError, ValueError, TypeError, OSError):
                pass
            else:
                _loaded.add(name)
                return locale
        pieces.pop()
    return None


def zone_of(word: object) -> tzinfo | None:
    """The time zone of a name (`Europe/Rome`); None when it is unknown, or no name."""
    if not isinstance(word, str) or not _ZONE.fullmatch(word):
        return None
    return _known_zone(word)


@lru_cache(1_024)
def _known_zone(name: str) -> tzinfo | None:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return None


def _written(locale: "Locale", forms: Any, amount: Decimal, decimals: object) -> str:
    if decimals is None:
        return str(forms[None].apply(amount, locale))
    if type(decimals) is not int or not 0 <= decimals <= _DECIMALS_MAX:
        raise Refused(f"decimals are a number from 0 to {_DECIMALS_MAX}")
    return str(_with_decimals(forms[None].pattern, decimals).apply(amount, locale))


@lru_cache(256)
def _with_decimals(form: str, decimals: int) -> Any:
    from babel.numbers import parse_pattern

    pattern = parse_pattern(form)
    pattern.frac_prec = (decimals, decimals)
    return pattern


def _number(name: str, value: object) -> Decimal | None:
    """A number of the data, or one written as text. Null is nothing."""
    if value is None:
        return None
    if type(value) is int or type(value) is float:
        text = repr(value) if abs(value) < _NUMBER_MAX else "too large"
    elif isinstance(value, str) and len(value) <= _NUMBER_CHARACTERS:
        text = value.strip()
    else:
        raise Refused(f"{name} wants a number")
    try:
        amount = Decimal(text)
    except InvalidOperation:
        raise Refused(f"{name} wants a number, not {str(value)[:20]!r}") from None
    if not amount.is_finite() or abs(amount) >= _NUMBER_MAX:
        raise Refused(f"{name}: the number is too large")
    return amount


def _moment(name: str, value: object) -> datetime | None:
    """A moment in ISO 8601, or in seconds since 1970. Null is nothing."""
    if value is None:
        return None
    try:
        if type(value) is int or type(value) is float:
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, str) and len(value) <= _NUMBER_CHARACTERS:
            text = value.strip()
            if len(text) == 10:
                return datetime.combine(date.fromisoformat(text), time())
            return datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError):
        pass
    raise Refused(f"{name} wants a moment like 2026-01-31T12:00:00Z, not {str(value)[:30]!r}")


def _own_zone(moment: datetime) -> tzinfo:
    return moment.tzinfo or UTC


def _form(name: str, form: object) -> str:
    if form not in _FORMS:
        raise Refused(f"{name} takes one of {', '.join(_FORMS)}")
    return str(form)
