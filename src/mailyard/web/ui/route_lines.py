"""Routes as lines of text, as a person edits them: one a line, from the top.

    codes | tags=code,otp domains=example.com | ses-ireland:3 sendgrid:1 relay:1:1
    all   | always                            | ses-ireland

A provider is `name`, `name:weight` or `name:weight:order`; the lowest order is asked first.
"""

from collections.abc import Sequence
from uuid import UUID

from mailyard.core import ids
from mailyard.core.errors import InvalidInput
from mailyard.sending.routing import Conditions, StoredLeg, StoredRoute

_ALWAYS = "always"
_CONDITIONS = ("tags", "domains", "streams", "workspaces")
LINES_MAX = 1_000


def as_lines(routes: Sequence[StoredRoute]) -> str:
    """The routes as text."""
    return "\n".join(
        f"{route.name} | {_conditions(route.when)} | {' '.join(map(_leg, route.legs))}"
        for route in routes
    )


def from_lines(text: str) -> list[StoredRoute]:
    """The routes that `text` says. Raises InvalidInput that names the line."""
    lines = [line.strip() for line in text.splitlines()]
    wanted = [(number, line) for number, line in enumerate(lines, 1) if line]
    if len(wanted) > LINES_MAX:
        raise InvalidInput(f"at most {LINES_MAX} routes", field="routes")
    return [_route(number, line) for number, line in wanted]


def _route(number: int, line: str) -> StoredRoute:
    parts = [part.strip() for part in line.split("|")]
    if len(parts) != 3:
        raise _wrong(number, "write: name | conditions or always | providers")
    name, conditions, legs = parts
    when = _read_conditions(number, conditions)
    return StoredRoute(name, [_read_leg(number, leg) for leg in legs.split()], when)


def _conditions(when: Conditions) -> str:
    words = {
        "tags": when.tags,
        "domains": when.domains,
        "streams": when.streams,
        "workspaces": [ids.type_id(ids.WORKSPACE, one) for one in when.workspaces],
    }
    shown = " ".join(f"{name}={','.join(of)}" for name, of in words.items() if of)
    return shown or _ALWAYS


def _read_conditions(number: int, text: str) -> Conditions:
    found: dict[str, list[str]] = {}
    for word in text.split():
        name, equals, values = word.partition("=")
        if word == _ALWAYS:
            continue
        if not equals or name not in _CONDITIONS:
            raise _wrong(number, f"{word!r} is no condition; they are {', '.join(_CONDITIONS)}")
        found[name] = [value for value in values.split(",") if value]
    workspaces: list[UUID] = [
        ids.parse_type_id(ids.WORKSPACE, one, "routes") for one in found.pop("workspaces", [])
    ]
    return Conditions(
        tags=found.get("tags", []),
        domains=found.get("domains", []),
        streams=found.get("streams", []),
        workspaces=workspaces,
    )


def _leg(leg: StoredLeg) -> str:
    if leg.order:
        return f"{leg.provider}:{leg.weight}:{leg.order}"
    return leg.provider if leg.weight == 1 else f"{leg.provider}:{leg.weight}"


def _read_leg(number: int, text: str) -> StoredLeg:
    name, *numbers = text.split(":")
    if len(numbers) > 2 or not all(one.isascii() and one.isdigit() and len(one) < 6
                                   for one in numbers):  # fmt: skip
        raise _wrong(number, f"{text!r}: write name, name:weight or name:weight:order")
    return StoredLeg(name, *map(int, numbers))


def _wrong(number: int, why: str) -> InvalidInput:
    return InvalidInput(f"line {number}: {why}", field="routes")
