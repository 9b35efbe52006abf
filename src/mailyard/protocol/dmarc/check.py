"""DMARC for the domain of a From (RFC 9989 sections 4.8 to 4.11): a generator that asks DNS.

It is driven like `spf.check_host`. Which name speaks for the organisation is found by the tree walk
of RFC 9989, or by a list of public suffixes that is handed in (RFC 7489 section 3.2).
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

from mailyard.protocol.dmarc.policy import Policy, read_policy
from mailyard.protocol.dns_answer import (
    Answer,
    Ask,
    NoName,
    Question,
    Result,
    TemporaryFailure,
)
from mailyard.protocol.dns_dmarc import is_dmarc, record_name
from mailyard.protocol.dns_organisation import policy_names

FROM_DOMAINS = 4  # of one mail; more are not looked at, and are an error


class DmarcStatus(StrEnum):
    """RFC 7489 section 11.2."""

    NONE = "none"  # no record counts
    PASS = "pass"
    FAIL = "fail"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


@dataclass(frozen=True, slots=True)
class Identifier:
    """A domain that another check speaks of. `passed`: that check did; None: not to be found out
    now. `dkim` says which alignment counts."""

    domain: str
    dkim: bool
    passed: bool | None


@dataclass(frozen=True, slots=True)
class DmarcResult:
    """`domain` is that of the From. `policy` is what its owner asks for when it fails, of the
    record at `at`; both empty without a record. `testing`: the owner only tries that policy."""

    status: DmarcStatus
    domain: str
    policy: str = ""
    at: str = ""
    testing: bool = False
    reason: str = ""


Organisation: TypeAlias = Callable[[str], str]
Check: TypeAlias = Generator[Question, Result[Any], DmarcResult]
_WORST = (
    DmarcStatus.FAIL,
    DmarcStatus.PERMERROR,
    DmarcStatus.TEMPERROR,
    DmarcStatus.NONE,
    DmarcStatus.PASS,
)
_STRICTEST = ("reject", "quarantine", "none", "")


class _NotNow(Exception):
    """DNS could not say."""


def check_dmarc(
    domains: Sequence[str],
    identifiers: Sequence[Identifier],
    organisation: Organisation | None = None,
) -> Check:
    """The result for the From `domains` of a mail, in ASCII and lower case: of several the worst,
    so that nobody hides behind a second author."""
    if not domains:
        return DmarcResult(DmarcStatus.NONE, "", reason="the From names no domain")
    if len(domains) > FROM_DOMAINS:
        return DmarcResult(
            DmarcStatus.PERMERROR, domains[0], reason="the From names too many domains"
        )
    results = []
    walk = _Walk(organisation)
    for domain in domains:
        results.append((yield from walk.check(domain, identifiers)))
    return min(results, key=lambda one: (_WORST.index(one.status), _STRICTEST.index(one.policy)))


def first_question(domain: str) -> Question:
    """What a check will ask first for `domain`, so that it can be asked beside other things."""
    return Question(record_name(domain), Ask.TXT)


class _Walk:
    """Records found so far, each asked for once."""

    def __init__(self, organisation: Organisation | None) -> None:
        self._listed = organisation
        self._found: dict[str, Policy | None] = {}
        self._organisations: dict[str, str] = {}

    def check(self, domain: str, identifiers: Sequence[Identifier]) -> Check:
        try:
            return (yield from self._check(domain, identifiers))
        except _NotNow:
            reason = f"DNS could not be asked about the policy of {domain}"
            return DmarcResult(DmarcStatus.TEMPERROR, domain, reason=reason)

    def _check(self, domain: str, identifiers: Sequence[Identifier]) -> Check:
        policy = yield from self._policy(domain)
        at, asked = domain, policy.policy if policy else ""
        if policy is None:
            at, policy = yield from self._inherited(domain)
            if policy is None:
                return DmarcResult(DmarcStatus.NONE, domain, reason=f"{domain} has no DMARC record")
            asked = yield from self._asked_of(domain, policy)
        status, reason = yield from self._status(domain, policy, identifiers)
        return DmarcResult(status, domain, asked, at, policy.testing, reason)

    def _status(
        self, domain: str, policy: Policy, identifiers: Sequence[Identifier]
    ) -> Generator[Question, Result[Any], tuple[DmarcStatus, str]]:
        later = False
        for one in sorted(identifiers, key=lambda one: one.domain != domain):
            if one.passed is False:
                continue
            strict = policy.dkim_strict if one.dkim else policy.spf_strict
            if (yield from self._aligned(one.domain, domain, strict)):
                if one.passed:
                    return DmarcStatus.PASS, ""
                later = True
        if later:
            return DmarcStatus.TEMPERROR, "an aligned check could not be made"
        passed = sorted({one.domain for one in identifiers if one.passed})
        if passed:
            return DmarcStatus.FAIL, f"{', '.join(passed[:3])} does not speak for {domain}"
        return DmarcStatus.FAIL, f"neither SPF nor DKIM passes for {domain}"

    def _aligned(
        self, identifier: str, domain: str, strict: bool
    ) -> Generator[Question, Result[Any], bool]:
        """RFC 9989 section 4.10.2. Names without a common end cost no question."""
        if identifier == domain:
            return True
        if strict:
            return False
        organisation = yield from self._organisation(domain)
        if not _at_or_below(identifier, organisation):
            return False
        return (yield from self._organisation(identifier)) == organisation

    def _inherited(
        self, domain: str
    ) -> Generator[Question, Result[Any], tuple[str, Policy | None]]:
        """The record of the organisation, else of the public suffix above it (section 4.10.1)."""
        organisation = yield from self._organisation(domain)
        if organisation != domain:
            policy = yield from self._policy(organisation)
            if policy is not None:
                return organisation, policy
        if self._listed is None:
            for name in policy_names(organisation)[1:]:
                policy = yield from self._policy(name)
                if policy is not None and policy.public == "y":
                    return name, policy
        return "", None

    def _asked_of(self, domain: str, policy: Policy) -> Generator[Question, Result[Any], str]:
        """What a record above asks for `domain`: one that does not exist may have its own (np=)."""
        if policy.absent == policy.below:
            return policy.below
        answer = yield Question(domain, Ask.A)
        return policy.absent if isinstance(answer, NoName) else policy.below

    def _organisation(self, domain: str) -> Generator[Question, Result[Any], str]:
        if self._listed is not None:
            return self._listed(domain)
        known = self._organisations.get(domain)
        if known is None:
            known = self._organisations[domain] = yield from self._walked(domain)
        return known

    def _walked(self, domain: str) -> Generator[Question, Result[Any], str]:
        """The tree walk (section 4.10, and 4.10.2 for what its end means)."""
        organisation, below = domain, ""
        for name in policy_names(domain):
            policy = yield from self._policy(name)
            if policy is not None:
                if policy.public == "n":
                    return name
                if policy.public == "y":
                    return below or organisation
                organisation = name
            below = name
        return organisation

    def _policy(self, domain: str) -> Generator[Question, Result[Any], Policy | None]:
        """The record at `domain` itself; several count as none. Raises _NotNow."""
        if domain in self._found:
            return self._found[domain]
        result = yield first_question(domain)
        if isinstance(result, TemporaryFailure):
            raise _NotNow
        policy = _policy_of(result.records) if isinstance(result, Answer) else None
        self._found[domain] = policy
        return policy


def _policy_of(records: Iterable[str]) -> Policy | None:
    texts = [text for text in records if is_dmarc(text)]
    return read_policy(texts[0]) if len(texts) == 1 else None


def _at_or_below(name: str, organisation: str) -> bool:
    return name == organisation or name.endswith(f".{organisation}")
