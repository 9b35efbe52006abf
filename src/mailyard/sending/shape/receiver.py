"""Receivers: who operates a site, how fast it may be written to, and how its answers are read."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date

from mailyard.sending.shape.measure import Rate
from mailyard.sending.shape.rule import Rule

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one source address may do at one site, all workers together.

    `connections` at once; `messages_per_connection` before it is closed; `rate` of recipients.
    After a slow action the share of all this grows by `recover_step` every `recover_every_s`.
    """

    connections: int
    messages_per_connection: int
    rate: Rate
    recover_every_s: float
    recover_step: float


@dataclass(frozen=True, slots=True)
class Receiver:
    """One entry of the book. `mx`: suffixes of MX site names; `domains`: recipients' domains.

    `shared`: all its sites share one limit, as they share one set of machines (every tenant of
    Microsoft 365 has an MX name of its own). `rules`: its own, then the default's.
    """

    name: str
    mx: tuple[str, ...]
    domains: tuple[str, ...]
    shared: bool
    limits: Limits
    rules: tuple[Rule, ...]
    source: str
    checked: date | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where mail goes, as shaping sees it. `name`: what shares one limit."""

    name: str
    receiver: Receiver

    def key(self, source: str) -> str:
        """The name of the state, bucket and lease of this place as seen from address `source`."""
        return f"site:{source}:{self.name}"


def source_of(key: str) -> str:
    """The source address in a place's key; it may hold colons, a place holds none."""
    return key.removeprefix("site:").rpartition(":")[0]


def place_of(key: str) -> str:
    """The place's name in its key."""
    return key.rpartition(":")[2]


class Book:
    """All receivers, found by domain or by the site's name; what fits nobody is the default's."""

    def __init__(self, receivers: Iterable[Receiver]) -> None:
        self.receivers: Mapping[str, Receiver] = {one.name: one for one in receivers}
        self._default = self.receivers[DEFAULT]
        self._by_mx = {mx: one for one in self.receivers.values() for mx in one.mx}
        self._by_domain = {name: one for one in self.receivers.values() for name in one.domains}

    def place(self, site: str, domain: str) -> Place:
        """Where mail to `domain` goes, whose MX names make up `site` ("aspmx.l.google.com").

        An entry for the domain comes first, then the longest suffix of the site's name.
        """
        site = site.lower().rstrip(".")
        receiver = self._by_domain.get(domain.lower().rstrip(".")) or self._of_site(site)
        return Place(receiver.name if receiver.shared else site, receiver)

    def _of_site(self, site: str) -> Receiver:
        suffix = site
        while suffix:
            found = self._by_mx.get(suffix)
            if found is not None:
                return found
            _, _, suffix = suffix.partition(".")
        return self._default
