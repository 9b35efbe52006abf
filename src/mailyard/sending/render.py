"""A compiled template: plain JSON values in, a mail's subject, HTML and text out, within bounds.

Undefined variables are errors. HTML is escaped. The data must be plain JSON values, because the
engine calls methods of Python objects; the subset of `language.py` has no calls, and this module
refuses every other type. A render whose output could be large, as its weight and its data say, runs
with a counter on every value that is written and with fuel that bounds its literal text.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from minijinja import TemplateError

from mailyard.core import limits
from mailyard.core.errors import InvalidInput
from mailyard.sending.engine import (
    OUR_FILTERS,
    RANGE_MAX,
    Counter,
    OutputFull,
    WorkFull,
    environment,
    sealed,
)
from mailyard.sending.language import Examined, examine
from mailyard.sending.personal import CONTACT, PREFERENCES, SPOKEN
from mailyard.sending.position import Origin, Positions
from mailyard.sending.straight import straight_mail
from mailyard.sending.tongue import DEFAULT, Refused, Tongue, TooMany

_UNCOUNTED_OUTPUT = 8 * limits.MIB  # what a render may come to without being counted
_LITERAL_OUTPUT = 32 * limits.MIB  # literal text that loops may write before fuel ends
_STRING_WORK = 1024 * limits.MIB  # bytes that comparing and copying one string may touch
_ELEMENT_WORK = 1 << 28  # element visits of filters that walk lists inside loops
_WALK_WORK = 1 << 25  # element visits of whole-list filters, a third of a microsecond each
_FUEL_MIN = 500
_DATA_DEPTH = limits.API_JSON_DEPTH
_ENGINE_NAMES = frozenset(("range", "loop"))
_UNDEFINED = re.compile(r"`([^`]*)` is undefined")
_SOURCES = {"subject": "subject", "html": "page.html", "text": "text"}  # engine escapes *.html


class Rendered(NamedTuple):
    """What a template made of the data."""

    subject: str
    html: str
    text: str


class TooMuch(InvalidInput):
    """The template's output or work passes its limit."""


class _Shape:
    """What the walk over the data found."""

    __slots__ = ("characters", "elements", "longest", "nulls")

    def __init__(self) -> None:
        self.characters = 0
        self.elements = 0
        self.longest = 0
        self.nulls = False

    def walk(self, value: object, path: str, depth: int) -> None:
        """Check that `value` is made of JSON types, exactly. Raises InvalidInput naming it."""
        kind = type(value)
        if kind is str:
            size = len(value)  # type: ignore[arg-type]
            self.characters += size
            if size > self.longest:
                self.longest = size
        elif kind is dict:
            if depth >= _DATA_DEPTH:
                raise InvalidInput(f"nested deeper than {_DATA_DEPTH}", field=path)
            self.elements += len(value)  # type: ignore[arg-type]
            for key, item in value.items():  # type: ignore[attr-defined]
                if type(key) is not str:
                    raise InvalidInput("a name must be text", field=path)
                self.walk(item, f"{path}.{key}", depth + 1)
        elif kind is list:
            if depth >= _DATA_DEPTH:
                raise InvalidInput(f"nested deeper than {_DATA_DEPTH}", field=path)
            self.elements += len(value)  # type: ignore[arg-type]
            for index, item in enumerate(value):  # type: ignore[arg-type]
                self.walk(item, f"{path}.{index}", depth + 1)
        elif value is None:
            self.nulls = True
        elif kind is not int and kind is not float and kind is not bool:
            raise InvalidInput(f"{kind.__name__} is not a JSON value", field=path)


class Compiled:
    """The three sources of one template version. Raises InvalidInput with the source and place.

    `origins`: for a source that was built, where each of its tags was written. `locale`: of dates,
    numbers and money where the data name none.
    """

    __slots__ = (
        "_counted", "_counter", "_examined", "_plain", "_positions", "_sealing", "_sources",
        "_straight", "_tongue", "asks", "locale", "paths", "variables",
    )  # fmt: skip

    variables: tuple[str, ...]  # names, sorted
    paths: frozenset[str]  # the same with their attributes: `order.id`
    asks: frozenset[str]  # what it wants to know of the person beside the data (personal.py)

    def __init__(
        self,
        subject: str,
        html: str,
        text: str,
        origins: Mapping[str, Sequence[Origin]] | None = None,
        locale: str = DEFAULT,
    ) -> None:
        given = {"subject": subject, "html": html, "text": text}
        self._positions = {
            name: Positions(source, name, (origins or {}).get(name, ()))
            for name, source in given.items()
        }
        self._examined: dict[str, Examined] = {
            name: examine(source, name, self._positions[name]) for name, source in given.items()
        }
        self._sources = given
        self._sealing = any(found.container_names for found in self._examined.values())
        self._counter = Counter()
        self.locale = locale
        localised = any(found.localised for found in self._examined.values())
        self._tongue = Tongue(locale) if localised else None
        filters = {**OUR_FILTERS, **(self._tongue.filters() if self._tongue else {})}
        self._plain = environment(filters, None)
        self._counted = environment(filters, self._counter)
        names: set[str] = set()
        paths: set[str] = set()
        for source, name in _SOURCES.items():
            try:
                self._plain.add_template(name, given[source])
                self._counted.add_template(name, given[source])
            except TemplateError as error:
                raise _explained(error, source, self._positions[source]) from None
            read = self._plain.undeclared_variables_in_template(name)
            if not read <= self._examined[source].names | _ENGINE_NAMES:
                # The engine sees code where the examination saw none.
                raise InvalidInput(f"{source}: it can be read in two ways", field=source)
            names |= read
            paths |= self._plain.undeclared_variables_in_template(name, nested=True)
        self.variables = tuple(sorted(names - _ENGINE_NAMES))
        self.paths = frozenset(paths - _ENGINE_NAMES)
        asked = frozenset((CONTACT, PREFERENCES)) & names
        self.asks = asked.union(SPOKEN) if localised else asked
        self._straight = straight_mail(given, self.variables, self._by_engine)

    @property
    def sources(self) -> Mapping[str, str]:
        """What it was compiled from: subject, html, text."""
        return self._sources

    def rewritten(self, html: str, text: str) -> "Compiled":
        """The same template with other bodies. Raises InvalidInput."""
        made = Compiled(self._sources["subject"], html, text, locale=self.locale)
        for name, source in (("html", html), ("text", text)):
            made._positions[name] = Positions(source, name, before=self._positions[name])
        return made

    def render(self, data: Mapping[str, Any]) -> Rendered:
        """One mail. Raises InvalidInput: a variable is missing, the output is too large, …"""
        shape = _Shape()
        for name, value in data.items():
            if type(value) is str:
                size = len(value)
                shape.characters += size
                if size > shape.longest:
                    shape.longest = size
            else:
                shape.walk(value, f"data.{name}", 1)
        if self._straight is not None:
            written = self._straight.write(data, shape.characters)
            if written is not None:
                subject, html, text = written
                return Rendered(_one_line(subject), html, text)
        if self._tongue is not None:
            self._tongue.turn_to(data)
        context = {name: sealed(value) for name, value in data.items()} if self._sealing else data
        subject = _one_line(self._render("subject", context, shape))
        html = self._render("html", context, shape)
        text = self._render("text", context, shape)
        if self._sources["text"].startswith("{%"):
            # In front of the first text of a loop stands what parts it from the one before.
            text = text.lstrip("\n")
        return Rendered(subject, html, text)

    def _by_engine(self, source: str, data: Mapping[str, Any]) -> str:
        return self._plain.render_template(_SOURCES[source], **data)

    def _render(self, source: str, context: Mapping[str, Any], shape: _Shape) -> str:
        examined = self._examined[source]
        if not examined.code:
            return self._sources[source]
        bounded = (
            not examined.loops
            and not shape.nulls
            and examined.weight * shape.characters < _UNCOUNTED_OUTPUT
        )
        if examined.walks * _walkable(shape) > _WALK_WORK:
            raise _too_much_work(source)
        engine = self._plain if bounded else self._counted
        if not bounded:
            self._counter.left = limits.TEMPLATE_OUTPUT_BYTES
            engine.fuel = _fuel(examined, shape)
        try:
            rendered = engine.render_template(_SOURCES[source], **context)
        except TemplateError as error:
            raise _explained(error, source, self._positions[source]) from None
        except OutputFull:
            raise _too_large(source) from None
        except (WorkFull, TooMany):
            raise _too_much_work(source) from None
        except Refused as error:
            raise InvalidInput(f"{source}: {error}", field=source) from None
        except (TypeError, ValueError, AttributeError) as error:
            raise InvalidInput(f"{source}: {error}", field=source) from None
        except BaseException as error:  # a panic of the engine is no Exception
            _reraise_unless_engine(error)
            raise InvalidInput(f"{source}: it cannot be rendered: {error}", field=source) from None
        if len(rendered) > limits.TEMPLATE_OUTPUT_BYTES:
            raise _too_large(source)
        return rendered


def _walkable(shape: _Shape) -> int:
    """What one walk over a list or text can visit; eight characters cost what an element does."""
    return max(shape.elements, shape.longest // 8, RANGE_MAX)


def _fuel(examined: Examined, shape: _Shape) -> int:
    """Instructions that keep literal text, string work and list work within their bounds."""
    return max(
        _FUEL_MIN,
        min(
            limits.TEMPLATE_FUEL,
            _LITERAL_OUTPUT // (examined.loop_text + 1),
            _WALK_WORK // _walkable(shape) if examined.loop_walks else limits.TEMPLATE_FUEL,
            _STRING_WORK // (shape.longest + 1),
            max(20 * shape.elements, _ELEMENT_WORK // (shape.elements + 1)),
        ),
    )


def _one_line(subject: str) -> str:
    """A subject is one line: line breaks (of a value, or around the source) become spaces."""
    if "\n" in subject or "\r" in subject or "\0" in subject:
        subject = " ".join(subject.replace("\0", "").split())
    subject = subject.strip()
    if len(subject) > limits.SUBJECT_CHARACTERS:
        raise InvalidInput(
            f"the subject came to more than {limits.SUBJECT_CHARACTERS} characters", field="subject"
        )
    return subject


def _too_much_work(where: str) -> TooMuch:
    return TooMuch(f"{where}: too much work, a loop is too long", field=where.partition(",")[0])


def _too_large(source: str) -> TooMuch:
    return TooMuch(
        f"{source}: the output passes {limits.TEMPLATE_OUTPUT_BYTES} bytes", field=source
    )


def _explained(error: TemplateError, source: str, positions: Positions) -> InvalidInput:
    """The engine's error as ours: which source, which place, which variable."""
    detail = error.detail or error.kind
    where = str(positions.at_byte(error.range[0])) if error.range else source
    if error.kind == "OutOfFuel":
        return _too_much_work(where)
    missing = _UNDEFINED.search(detail)
    field = f"data.{missing[1]}" if missing else source
    return InvalidInput(f"{where}: {detail}", field=field)


def _reraise_unless_engine(error: BaseException) -> None:
    if type(error).__name__ != "PanicException":
        raise error
