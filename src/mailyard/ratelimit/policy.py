"""Limits by name: what a provider allows a mailbox, what we allow a person. Data, not code.

A policy says "so many units in each window". GCRA lets through a burst and, beside it, an even
rate; so the rate is what is left of the window when the burst has gone, and no window, wherever it
begins, holds more than the units. Buckets are the fleet's (`RateLimit`).
"""

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from typing import Annotated

import msgspec
from msgspec import Meta

from mailyard.core.errors import ConfigurationError, InvalidInput, NotFound, RateLimited
from mailyard.observe.limit_use import LIMIT_USE
from mailyard.ratelimit.ratelimit import RateLimit, Taking

FILE_BYTES_MAX = 256 * 1024
SUBJECT_CHARACTERS = 200
EVERYBODY = ""  # the subject of a policy that others are within

_Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
_Units = Annotated[float, Meta(gt=0, le=1e12)]


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See policies.toml for what the words mean."""

    units: _Units
    window_s: Annotated[float, Meta(gt=0, le=86_400 * 31)]
    burst: _Units
    about: Annotated[str, Meta(max_length=200)] = ""
    per: Annotated[str, Meta(max_length=60)] = ""
    concurrent: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    within: str = ""
    source: Annotated[str, Meta(max_length=300)] = ""
    cost: dict[str, _Units] = {}

    @property
    def per_s(self) -> float:
        """The rate beside the burst, such that no window holds more than `units`."""
        return (self.units - self.burst) / self.window_s

    def units_of(self, action: str) -> float:
        """What one `action` costs."""
        return self.cost.get(action, 1.0)


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    policy: dict[_Name, Policy]


Book = Mapping[str, Policy]


def shipped() -> Book:
    """The policies that come with the program."""
    text = files("mailyard.ratelimit").joinpath("policies.toml").read_text("utf-8")
    return read_policies("policies.toml", text, {})


def read_policies(file: str, text: str, below: Book) -> Book:
    """The policies of a file over those of `below`. Raises ConfigurationError naming the file and
    the key."""
    if len(text.encode()) > FILE_BYTES_MAX:
        raise ConfigurationError(f"{file} is longer than {FILE_BYTES_MAX} bytes")
    try:
        found = msgspec.convert(tomllib.loads(text), _File)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{file} is not TOML: {error}") from None
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{file}: {error}") from None
    book = {**below, **found.policy}
    for name, policy in found.policy.items():
        if policy.burst >= policy.units:
            raise ConfigurationError(
                f"{file}: policy.{name}: burst is {policy.burst:g}; it must be below units, "
                f"{policy.units:g}, or nothing is left for the rest of the window"
            )
        if policy.within and (policy.within not in book or book[policy.within].within):
            raise ConfigurationError(
                f"{file}: policy.{name}: within is {policy.within!r}; it names a policy that is "
                "itself within none"
            )
    return book


class Policies:
    """Takes by name. `limits`: the buckets of the fleet."""

    def __init__(self, *, book: Book, limits: RateLimit) -> None:
        self.book = book
        self._limits = limits

    def policy(self, name: str) -> Policy:
        """Raises InvalidInput."""
        policy = self.book.get(name)
        if policy is None:
            raise InvalidInput(
                f"there is no policy {name!r}; there are {', '.join(sorted(self.book))}",
                field="policy",
            )
        return policy

    def known(self, name: str) -> str:
        """`name`. Raises NotFound where no policy has it."""
        if name not in self.book:
            raise NotFound(f"no such policy; there are {', '.join(sorted(self.book))}")
        return name

    async def take(self, name: str, subject: str, action: str = "", count: int = 1) -> float:
        """Take what `count` actions cost `subject`. 0.0: taken; else the wait in seconds until it
        may be tried again. Where a policy within which it is refuses, the subject's own part is
        gone, which errs on the provider's side."""
        policy = self.policy(name)
        units = policy.units_of(action) * count
        takings = [_taking(name, policy, subject, units)]
        if policy.within:
            takings.append(_taking(policy.within, self.policy(policy.within), EVERYBODY, units))
        drawn = await self._limits.draw_many(takings)
        for policy_name, taking, one in zip((name, policy.within), takings, drawn, strict=False):
            full = one.ahead_s * taking.per_s / taking.burst
            LIMIT_USE.filled(f"policy {policy_name}", 1.0 if one.wait_s > 0 else full)
        return max(one.wait_s for one in drawn)

    async def admit(self, name: str, subject: str, action: str = "") -> None:
        """As `take`. Raises RateLimited with the wait."""
        wait_s = await self.take(name, subject, action)
        if wait_s > 0.0:
            policy = self.policy(name)
            raise RateLimited(
                f"{policy.units:g} in {policy.window_s:g} s is what a {policy.per or 'caller'} may",
                retry_after_s=wait_s,
            )

    async def reset(self, subject: str, name: str | None = None) -> list[str]:
        """Give `subject` all of a policy again, or of every one. The names of what was reset."""
        if not 0 < len(subject) <= SUBJECT_CHARACTERS:
            raise InvalidInput(f"1 to {SUBJECT_CHARACTERS} characters", field="subject")
        names = sorted(self.book) if name is None else [name]
        for one in names:
            self.policy(one)
        await self._limits.forget([_key(one, subject) for one in names])
        return names


def _key(name: str, subject: str) -> str:
    return f"policy:{name}:{subject}"


def _taking(name: str, policy: Policy, subject: str, units: float) -> Taking:
    return Taking(_key(name, subject), units, policy.per_s, policy.burst)
