"""The template engine as far as we let it work: filters with bounds, containers without methods,
and a count of what is written."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from minijinja import Environment

from mailyard.core import limits
from mailyard.sending.tongue import Refused

RANGE_MAX = 1_000  # numbers that one range may have
_VALUE_CHARACTERS = limits.MIB  # what one join or replace may make
_NUMBER_MAX = 1e15
_ENGINE_FILTERS = (
    "attr", "batch", "chain", "format", "indent", "pprint", "slice", "wordwrap", "zip",
)  # fmt: skip
_ENGINE_GLOBALS = ("namespace", "debug", "cycler", "joiner", "dict")


class OutputFull(Exception):
    """More is written than may be."""


class WorkFull(Exception):
    """More is worked than may be."""


class _Row:
    """A dict that answers its own keys and nothing else: no `items`, no `pop`."""

    __slots__ = ("_held",)

    def __init__(self, held: dict[str, Any]) -> None:
        self._held = held

    def __getitem__(self, key: str) -> Any:
        return self._held[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, key: object) -> bool:
        return key in self._held

    def __str__(self) -> str:
        return ", ".join(f"{key}: {value}" for key, value in self._held.items())


def sealed(value: Any) -> Any:
    """`value` with containers that have no methods."""
    if type(value) is dict:
        return _Row({key: sealed(item) for key, item in value.items()})
    if type(value) is list:
        return tuple(sealed(item) for item in value)
    return value


def _join(values: Iterable[object], separator: str = "", attribute: str | None = None) -> str:
    if attribute is not None:
        raise Refused("join takes a separator only; use map(attribute=…) before it")
    separator = str(separator)
    pieces: list[str] = []
    size = 0
    if not isinstance(values, (list, tuple, str)) and not hasattr(values, "__iter__"):
        raise Refused("join wants a list")
    for value in values:
        piece = "" if value is None else str(value)
        size += len(piece) + len(separator)
        if size > _VALUE_CHARACTERS:
            raise OutputFull
        pieces.append(piece)
    return separator.join(pieces)


def _replace(value: object, old: object, new: object) -> str:
    text, was, becomes = str(value), str(old), str(new)
    if len(text) + text.count(was) * len(becomes) > _VALUE_CHARACTERS:
        raise OutputFull
    return text.replace(was, becomes)


def _times(value: object, factor: object) -> int | float:
    for number in (value, factor):
        if type(number) not in (int, float):
            raise Refused("times multiplies numbers only")
    product: int | float = value * factor  # type: ignore[operator]
    if not abs(product) <= _NUMBER_MAX:
        raise Refused("times: the product is too large")
    return product


def _range(first: int, last: int | None = None, step: int = 1) -> list[int]:
    numbers = range(first) if last is None else range(first, last, step)
    if len(numbers) > RANGE_MAX:
        raise WorkFull
    return list(numbers)


OUR_FILTERS: dict[str, Callable[..., Any]] = {
    "join": _join,
    "replace": _replace,
    "times": _times,
}


def environment(
    filters: dict[str, Callable[..., Any]], finalizer: Callable[[Any], Any] | None
) -> Environment:
    """An engine with these filters; `finalizer` sees each value that is written."""
    engine = Environment(
        filters=filters,
        fuel=limits.TEMPLATE_FUEL,
        undefined_behavior="strict",
        keep_trailing_newline=True,
        pycompat=False,
        debug=True,  # an error then names the variable
        finalizer=finalizer,
    )
    for name in _ENGINE_FILTERS:
        engine.remove_filter(name)
    for name in _ENGINE_GLOBALS:
        engine.remove_global(name)
    engine.add_global("range", _range)
    return engine


class Counter:
    """Counts what is written and stops at TEMPLATE_OUTPUT_BYTES. Null is written as nothing."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = 0

    def __call__(self, value: Any) -> Any:
        if value is None:
            return ""
        kind = type(value)
        if kind is int or kind is float or kind is bool:
            self.left -= 24
        elif isinstance(value, str):
            self.left -= len(value)
        else:
            value = str(value)
            self.left -= len(value)
            if self.left >= 0:
                return value
        if self.left < 0:
            raise OutputFull
        return NotImplemented
