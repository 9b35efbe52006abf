"""Reading a filter, by recursive descent. The grammar:

    filter     = conjunction { "or" conjunction }
    conjunction= opposite { "and" opposite }
    opposite   = "not" opposite | "(" filter ")" | condition
    condition  = ("list" | "topic") text
               | field comparison
               | word [ "(" property { "," property } ")" ] [ "at least" number "times" ] [ "within" span ]
    field      = word | name in backquotes            (address, name, added: the contact's own)
    comparison = ("=" | "!=") value | ("<" | "<=" | ">" | ">=") number or day
               | ["not"] "in" "(" value { "," value } ")"
               | ("contains" | "starts with" | "ends with") text | "exists"
    property   = field comparison
    value      = text | number | day | "true" | "false"
    day        = 2026-01-31 | number "days" "ago" | number "days" "from" "now" | "today"
    span       = number ("hours" | "days" | "weeks")

A word that no comparison follows is an event: `opened`, `bought within 90 days`. Words of the
language are read in any case; an attribute whose name is one of them stands in backquotes.
"""  # noqa: E501

from collections.abc import Callable
from datetime import date
from decimal import Decimal

from mailyard.campaigns.behaviour import KIND_PATTERN
from mailyard.campaigns.filter.tokens import FilterError, Kind, Token, tokens
from mailyard.campaigns.filter.tree import (
    OF_TEXT,
    ORDERED,
    And,
    Attribute,
    Compare,
    DaysFromNow,
    Did,
    Field,
    InList,
    InTopic,
    Node,
    Not,
    Operator,
    Or,
    Own,
    Value,
)
from mailyard.core import ids
from mailyard.core.errors import InvalidInput

CONDITIONS = 100
DEPTH = 20
VALUES = 200  # of one `in`
PROPERTIES = 10  # of one event
SPAN_DAYS = 3650
TIMES = 1_000

WORDS = frozenset(
    [
        "and",
        "or",
        "not",
        "in",
        "contains",
        "starts",
        "ends",
        "exists",
        "list",
        "topic",
        "within",
        "true",
        "false",
        "today",
        "at",
    ]
)
_CAMPAIGN = "campaign"  # in an event: the campaign whose mail it was about
_SIGNS = {operator.value: operator for operator in Operator if not operator.value[0].isalpha()}
_HOURS = {"hour": 1, "hours": 1, "day": 24, "days": 24, "week": 168, "weeks": 168}
_VALUE = "a value: text in quotes, a number, a date, true or false"
_ORDERED_VALUE = "a number, or a date like 2026-01-31, today or 30 days ago"
_COMPARISON = "=, !=, <, <=, >, >=, in, contains, starts with, ends with or exists"


def parse(source: str) -> Node:
    """The tree of a filter. Raises FilterError with line, column and what was expected."""
    return _Parser(source).whole()


class _Parser:
    """One reading of one text. Each method takes what it is named for and moves behind it."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._tokens = list(tokens(source))
        self._next = 0
        self._conditions = 0

    def whole(self) -> Node:
        node = self._filter(0)
        if self._now.kind is not Kind.END:
            raise self._expected("and, or, or the end")
        return node

    # Tokens -----------------------------------------------------------------------------------

    @property
    def _now(self) -> Token:
        return self._tokens[self._next]

    def _take(self) -> Token:
        token = self._now
        self._next += 1
        return token

    def _is_word(self, *words: str, ahead: int = 0) -> bool:
        place = min(self._next + ahead, len(self._tokens) - 1)
        token = self._tokens[place]
        return token.kind is Kind.WORD and token.text.lower() in words

    def _is_sign(self, *signs: str) -> bool:
        return self._now.kind is Kind.SIGN and self._now.text in signs

    def _word(self, *words: str) -> None:
        for word in words:
            if not self._is_word(word):
                raise self._expected(f'"{word}"')
            self._take()

    def _sign(self, sign: str) -> None:
        if not self._is_sign(sign):
            raise self._expected(f'"{sign}"')
        self._take()

    def _expected(self, what: str) -> FilterError:
        token = self._now
        found = token.kind.value if token.kind is Kind.END else repr(token.text[:40])
        return FilterError(self._source, token.place, f"expected {what}, found {found}")

    def _error(self, token: Token, message: str) -> FilterError:
        return FilterError(self._source, token.place, message)

    # Conditions together ----------------------------------------------------------------------

    def _filter(self, depth: int) -> Node:
        return self._joined("or", Or, lambda: self._joined("and", And, lambda: self._not(depth)))

    def _joined(
        self, word: str, kind: Callable[[tuple[Node, ...]], Node], part: Callable[[], Node]
    ) -> Node:
        parts = [part()]
        while self._is_word(word):
            self._take()
            parts.append(part())
        return kind(tuple(parts)) if len(parts) > 1 else parts[0]

    def _not(self, depth: int) -> Node:
        if depth > DEPTH:
            raise self._error(self._now, f"a filter is nested {DEPTH} deep at most")
        if self._is_word("not"):
            self._take()
            return Not(self._not(depth + 1))
        if self._is_sign("("):
            self._take()
            node = self._filter(depth + 1)
            if not self._is_sign(")"):
                raise self._expected('and, or, or ")"')
            self._take()
            return node
        return self._condition()

    def _count(self) -> None:
        self._conditions += 1
        if self._conditions > CONDITIONS:
            raise self._error(self._now, f"a filter has at most {CONDITIONS} conditions")

    def _condition(self) -> Node:
        self._count()
        if self._is_word("list"):
            self._take()
            return InList(self._text("the list's name in quotes"))
        if self._is_word("topic"):
            self._take()
            return InTopic(self._text("the topic's name in quotes"))
        if self._now.kind is Kind.NAME:
            return self._comparison(Attribute(self._take().text))
        if self._now.kind is not Kind.WORD or self._is_word(*WORDS):
            raise self._expected("a condition: an attribute, an event, list, topic, not or (")
        token = self._take()
        if self._compares():
            return self._comparison(_field(token))
        if not KIND_PATTERN.fullmatch(token.text):
            raise self._expected(f"{_COMPARISON} behind {token.text!r}")
        return self._event(token)

    # Comparisons ------------------------------------------------------------------------------

    def _compares(self) -> bool:
        return (
            self._is_sign(*_SIGNS)
            or self._is_word("in", "contains", "starts", "ends", "exists")
            or (self._is_word("not") and self._is_word("in", ahead=1))
        )

    def _comparison(self, field: Field) -> Node:
        """What stands behind a field."""
        if self._is_word("not") and self._is_word("in", ahead=1):
            self._take()
            return Not(self._comparison(field))
        token = self._now
        operator = self._operator()
        if operator is Operator.EXISTS:
            values: tuple[Value, ...] = ()
        elif operator is Operator.IN:
            values = self._values()
        elif operator in OF_TEXT:
            values = (self._text("text in quotes"),)
        elif operator in ORDERED:
            values = (self._value(_ORDERED_VALUE, ordered=True),)
        else:
            values = (self._value(_VALUE),)
        self._check_own(field, operator, values, token)
        return Compare(field, operator, values)

    def _operator(self) -> Operator:
        if self._is_sign(*_SIGNS):
            return _SIGNS[self._take().text]
        for word in ("in", "contains", "exists"):
            if self._is_word(word):
                self._take()
                return Operator(word)
        for word in ("starts", "ends"):
            if self._is_word(word):
                self._word(word, "with")
                return Operator(f"{word} with")
        raise self._expected(_COMPARISON)

    def _check_own(
        self, field: Field, operator: Operator, values: tuple[Value, ...], token: Token
    ) -> None:
        if not isinstance(field, Own):
            return
        if field is Own.ADDED:
            if operator in OF_TEXT or not all(isinstance(v, date | DaysFromNow) for v in values):
                raise self._error(token, "added is a date: compare it with dates")
        elif operator in ORDERED or not all(isinstance(value, str) for value in values):
            raise self._error(token, f"{field.value} is text: compare it with text in quotes")

    def _values(self) -> tuple[Value, ...]:
        self._sign("(")
        values = [self._value(_VALUE)]
        while self._is_sign(","):
            comma = self._take()
            if len(values) == VALUES:
                raise self._error(comma, f"at most {VALUES} values")
            values.append(self._value(_VALUE))
        if not self._is_sign(")"):
            raise self._expected('"," or ")"')
        self._take()
        return tuple(values)

    def _text(self, what: str) -> str:
        if self._now.kind is not Kind.TEXT:
            raise self._expected(what)
        return self._take().text

    def _value(self, what: str, *, ordered: bool = False) -> Value:
        token = self._now
        if token.kind is Kind.TEXT and not ordered:
            return self._take().text
        if token.kind is Kind.DAY:
            return self._day()
        if token.kind is Kind.NUMBER:
            self._take()
            if self._is_word("day", "days"):
                return self._days(token)
            return Decimal(token.text)
        if self._is_word("true", "false") and not ordered:
            return self._take().text.lower() == "true"
        if self._is_word("today"):
            self._take()
            return DaysFromNow(0)
        raise self._expected(what)

    def _day(self) -> date:
        token = self._take()
        try:
            return date.fromisoformat(token.text)
        except ValueError:
            raise self._error(token, f"there is no day {token.text}") from None

    def _days(self, number: Token) -> DaysFromNow:
        """`30 days ago`, `14 days from now`; the number was taken."""
        self._take()
        days = self._whole_number(number, SPAN_DAYS, "days")
        if self._is_word("ago"):
            self._take()
            return DaysFromNow(-days)
        if self._is_word("from"):
            self._word("from", "now")
            return DaysFromNow(days)
        raise self._expected('"ago" or "from now"')

    def _whole_number(self, token: Token, most: int, what: str) -> int:
        if not token.text.isascii() or not token.text.isdigit() or not 0 <= int(token.text) <= most:
            raise self._error(token, f"a whole number of {what}, {most:,} at most")
        return int(token.text)

    # Events -----------------------------------------------------------------------------------

    def _event(self, kind: Token) -> Did:
        """What stands behind an event's kind."""
        properties: list[Compare] = []
        campaign = None
        if self._is_sign("("):
            self._take()
            while True:
                if self._is_word(_CAMPAIGN):
                    campaign = self._campaign(campaign)
                else:
                    properties.append(self._property())
                if not self._is_sign(","):
                    break
                self._take()
            if not self._is_sign(")"):
                raise self._expected('"," or ")"')
            self._take()
        return Did(kind.text, tuple(properties), campaign, self._times(), self._within())

    def _property(self) -> Compare:
        self._count()
        token = self._now
        if token.kind is Kind.NAME or (token.kind is Kind.WORD and not self._is_word(*WORDS)):
            self._take()
            compare = self._comparison(Attribute(token.text))
            if not isinstance(compare, Compare):
                raise self._error(token, "an event's properties cannot be negated")
            return compare
        raise self._expected("a property of the event")

    def _campaign(self, before: str | None) -> str:
        if before is not None:
            raise self._error(self._now, "one campaign at most")
        self._take()
        self._sign("=")
        token = self._now
        text = self._text("the campaign's id in quotes")
        try:
            ids.parse_type_id(ids.CAMPAIGN, text)
        except InvalidInput as error:
            raise self._error(token, error.message) from error
        return text

    def _times(self) -> int:
        if not self._is_word("at"):
            return 1
        self._word("at", "least")
        number = self._now
        if number.kind is not Kind.NUMBER:
            raise self._expected("a number")
        self._take()
        times = self._whole_number(number, TIMES, "times")
        if times == 0:
            raise self._error(number, "once at least")
        if not self._is_word("time", "times"):
            raise self._expected('"times"')
        self._take()
        return times

    def _within(self) -> int | None:
        if not self._is_word("within"):
            return None
        self._take()
        number = self._now
        if number.kind is not Kind.NUMBER:
            raise self._expected("a number of hours, days or weeks")
        self._take()
        if not self._is_word(*_HOURS):
            raise self._expected("hours, days or weeks")
        each = _HOURS[self._take().text.lower()]
        hours = self._whole_number(number, SPAN_DAYS * 24, "hours, days or weeks") * each
        if not 0 < hours <= SPAN_DAYS * 24:
            raise self._error(number, f"from an hour to {SPAN_DAYS:,} days")
        return hours


def _field(token: Token) -> Field:
    try:
        return Own(token.text)
    except ValueError:
        return Attribute(token.text)
