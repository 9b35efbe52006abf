"""Which providers may have a mail, in which order: routes as data, one choice as a pure function.

Routes are tried from top to bottom; the first whose conditions fit is the mail's. Within it
providers of the lowest `order` share the mail by their weights; those behind get what those could
not have. A provider whose breaker is open is left out, so that its mail flows to the others at
once and comes back by itself.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import inf, log
from random import Random
from uuid import UUID

from mailyard.core.errors import InvalidInput

ROUTES_MAX = 1_000
LEGS_MAX = 20  # providers of one route
WEIGHT_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Envelope:
    """What a route may ask of a mail. `site`: the MX site's name, "" where nobody looked it up."""

    workspace_id: UUID
    tags: frozenset[str]
    domain: str
    site: str
    stream: str  # "transactional", "campaign"


@dataclass(frozen=True, slots=True)
class When:
    """Conditions. One that is empty fits everything; of a list one entry has to fit.

    `domains` and `sites` fit a name and everything below it ("example.com" fits "a.example.com").
    """

    workspaces: frozenset[UUID] = frozenset()
    tags: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset()
    sites: frozenset[str] = frozenset()
    streams: frozenset[str] = frozenset()

    def fits(self, mail: Envelope) -> bool:
        return (
            (not self.workspaces or mail.workspace_id in self.workspaces)
            and (not self.tags or not self.tags.isdisjoint(mail.tags))
            and (not self.streams or mail.stream in self.streams)
            and (not self.domains or _below(mail.domain, self.domains))
            and (not self.sites or _below(mail.site, self.sites))
        )

    @property
    def always(self) -> bool:
        return self == _ALWAYS


_ALWAYS = When()


@dataclass(frozen=True, slots=True)
class Leg:
    """A provider on a route. Weight 0: only when the others of its order cannot."""

    provider: str
    weight: int = 1
    order: int = 0


@dataclass(frozen=True, slots=True)
class Route:
    """`legs` of mails that fit `when`."""

    name: str
    legs: tuple[Leg, ...]
    when: When = field(default_factory=When)


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a provider may be asked now; if not, why, and from when on."""

    ready: bool
    why: str = ""
    until_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Skipped:
    """A provider that is on the route and was left out."""

    provider: str
    why: str


@dataclass(frozen=True, slots=True)
class Choice:
    """`candidates` in order. Nobody: the mail waits until `again_at_s` (None: no route fits)."""

    route: str
    candidates: tuple[str, ...]
    skipped: tuple[Skipped, ...] = ()
    again_at_s: float | None = None


class Routes:
    """The routes in force, checked as a whole."""

    def __init__(self, routes: Iterable[Route], providers: Iterable[str]) -> None:
        """Raises InvalidInput that names the route and says what is allowed."""
        self.routes: Sequence[Route] = tuple(routes)
        known = frozenset(providers)
        if not 0 < len(self.routes) <= ROUTES_MAX:
            raise InvalidInput(f"there must be 1 to {ROUTES_MAX} routes", field="routes")
        for index, route in enumerate(self.routes):
            _check(f"routes[{index}]", route, known)
            if any(route.name == other.name for other in self.routes[:index]):
                raise _wrong(f"routes[{index}].name", route.name, "a name of its own")
            if route.when.always and index < len(self.routes) - 1:
                allowed = "a condition: it fits every mail, so those below it never would"
                raise _wrong(f"routes[{index}].when", "empty", allowed)
        if not self.routes[-1].when.always:
            at = f"routes[{len(self.routes) - 1}].when"
            raise _wrong(at, "a condition", "none: the last route takes what is left")

    def route_of(self, mail: Envelope) -> Route:
        """The first route that fits."""
        return next(route for route in self.routes if route.when.fits(mail))


def choose(route: Route, health: Callable[[str], Health], random: Random) -> Choice:
    """The order in which the providers of `route` may have one mail.

    The first candidates of many choices are distributed as the weights of those that are ready.
    """
    keyed: list[tuple[int, float, str]] = []
    skipped: list[Skipped] = []
    again_at_s = inf
    for leg in route.legs:
        state = health(leg.provider)
        if state.ready:
            keyed.append((leg.order, _turn(leg.weight, random), leg.provider))
        else:
            skipped.append(Skipped(leg.provider, state.why))
            again_at_s = min(again_at_s, state.until_s)
    keyed.sort()
    candidates = tuple(provider for _, _, provider in keyed)
    return Choice(route.name, candidates, tuple(skipped), None if candidates else again_at_s)


def _turn(weight: int, random: Random) -> float:
    """A draw whose smallest falls on each by its weight (Efraimidis and Spirakis, 2006)."""
    if weight == 0:
        return inf
    return -log(1.0 - random.random()) / weight


def _below(name: str, wanted: frozenset[str]) -> bool:
    name = name.lower().rstrip(".")
    while name:
        if name in wanted:
            return True
        _, _, name = name.partition(".")
    return False


def _check(at: str, route: Route, known: frozenset[str]) -> None:
    if not 0 < len(route.legs) <= LEGS_MAX:
        raise _wrong(f"{at}.legs", f"{len(route.legs)} providers", f"1 to {LEGS_MAX}")
    for number, leg in enumerate(route.legs):
        where = f"{at}.legs[{number}]"
        if leg.provider not in known:
            allowed = ", ".join(sorted(known)) or "nothing: there is no provider yet"
            raise _wrong(f"{where}.provider", leg.provider, allowed)
        if any(leg.provider == other.provider for other in route.legs[:number]):
            raise _wrong(f"{where}.provider", leg.provider, "each provider once")
        if not 0 <= leg.weight <= WEIGHT_MAX:
            raise _wrong(f"{where}.weight", leg.weight, f"0 to {WEIGHT_MAX}")
        if not 0 <= leg.order < LEGS_MAX:
            raise _wrong(f"{where}.order", leg.order, f"0 to {LEGS_MAX - 1}")
    for name in route.when.domains | route.when.sites:
        if name != name.lower().strip("."):
            raise _wrong(f"{at}.when", name, "names in lower case, without a dot at the ends")


def _wrong(at: str, value: object, allowed: str) -> InvalidInput:
    return InvalidInput(f"{at} is {value!r}; allowed is {allowed}", field=at)
