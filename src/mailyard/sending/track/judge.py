"""Whether a person opened and clicked, or a machine did: rules as data, `machines.toml`.

Pure. One hit is judged by itself (`Rules.alone`), the clicks on one mail together (`Rules.bursts`).
"""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any
from uuid import UUID

from mailyard.core.errors import ConfigurationError

OPENED = "opened"
CLICKED = "clicked"
UNSUBSCRIBED = "unsubscribed"
BURST = "several-links"

Network = IPv4Network | IPv6Network
_AGENTS_REMEMBERED = 4_096


@dataclass(frozen=True, slots=True)
class Rule:
    """What a machine looks like; see the head of machines.toml."""

    name: str
    kinds: frozenset[str]
    source: str
    methods: frozenset[str] = frozenset()
    user_agent: re.Pattern[str] | None = None
    networks: tuple[Network, ...] = ()
    within_s: float | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """One hit, as far as it is judged. `since_s`: after the hand-over; None: that is not known."""

    kind: str
    method: str
    user_agent: str
    peer: str
    since_s: float | None


@dataclass(frozen=True)
class Rules:
    """The rules, in order."""

    machines: tuple[Rule, ...]
    burst_links: int
    burst_s: float
    _by_agent: dict[tuple[str, str], tuple[Rule, ...]] = field(default_factory=dict, repr=False)

    def alone(self, seen: Seen) -> str:
        """The name of the first rule that fits; empty: a person."""
        for rule in self._possible(seen.kind, seen.user_agent):
            if rule.methods and seen.method not in rule.methods:
                continue
            if rule.within_s is not None and (
                seen.since_s is None or seen.since_s >= rule.within_s
            ):
                continue
            if rule.networks and not _is_in(seen.peer, rule.networks):
                continue
            return rule.name
        return ""

    def _possible(self, kind: str, user_agent: str) -> tuple[Rule, ...]:
        """The rules that kind and user agent leave; a campaign's hits have few different ones."""
        key = (kind, user_agent)
        found = self._by_agent.get(key)
        if found is None:
            found = tuple(
                rule
                for rule in self.machines
                if kind in rule.kinds
                and (rule.user_agent is None or rule.user_agent.search(user_agent))
            )
            if len(self._by_agent) >= _AGENTS_REMEMBERED:
                self._by_agent.clear()
            self._by_agent[key] = found
        return found

    def bursts(self, clicks: Sequence[tuple[int, UUID]]) -> set[int]:
        """Which of the clicks on one mail, (milliseconds, link) in the order of time, are too many
        different ones in too short a time."""
        found: set[int] = set()
        first = 0
        for last, (at_ms, _) in enumerate(clicks):
            while at_ms - clicks[first][0] > self.burst_s * 1000:
                first += 1
            if len({link for _, link in clicks[first : last + 1]}) >= self.burst_links:
                found.update(range(first, last + 1))
        return found


@lru_cache(maxsize=_AGENTS_REMEMBERED)
def _is_in(peer: str, networks: tuple[Network, ...]) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    return any(address in network for network in networks if network.version == address.version)


def read_rules(text: str) -> Rules:
    """The rules of a TOML document. Raises ConfigurationError naming the rule."""
    try:
        table = tomllib.loads(text)
        burst = table["burst"]
        return Rules(
            tuple(_rule(entry) for entry in table["machine"]),
            int(burst["links"]),
            float(burst["seconds"]),
        )
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"machines.toml: {error}") from error


_FIELDS = {"name", "kinds", "source", "methods", "user_agent", "networks", "within_s"}


def _rule(entry: dict[str, Any]) -> Rule:
    name = str(entry["name"])
    unknown = set(entry) - _FIELDS
    if unknown:
        raise ConfigurationError(f"machines.toml, {name}: no such field {min(unknown)}")
    agent = entry.get("user_agent")
    try:
        return Rule(
            name=name,
            kinds=frozenset(entry["kinds"]),
            source=str(entry["source"]),
            methods=frozenset(entry.get("methods", ())),
            user_agent=None if agent is None else re.compile(agent, re.IGNORECASE),
            networks=tuple(ip_network(text) for text in entry.get("networks", ())),
            within_s=entry.get("within_s"),
        )
    except (re.error, ValueError, KeyError) as error:
        raise ConfigurationError(f"machines.toml, {name}: {error}") from error


def shipped_rules() -> Rules:
    """The rules that come with Mailyard."""
    return read_rules(files(__package__ or "").joinpath("machines.toml").read_text("utf-8"))
