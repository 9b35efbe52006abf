"""Who sent a mail: SPF, DKIM, ARC and DMARC of one message, over DNS answers that are handed in.

    inquiry = Inquiry(raw, sender, now_s)
    while questions := inquiry.step(known):      # all that can be asked at once
        ...                                      # put the results into `known`
    verdict = inquiry.verdict

`step` takes a function from a question to its result or None. With all answers at hand the first
step ends it; a chain of SPF records takes a step a link. Nothing is raised for what a mail says.
"""

import re
from base64 import b64encode
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, Generic, TypeAlias, TypeVar

from mailyard.core.errors import InvalidInput
from mailyard.protocol.address import ascii_domain
from mailyard.protocol.arc import ChainResult, ChainStatus, read_chain, verify_chain
from mailyard.protocol.authentication_results import Method
from mailyard.protocol.dkim import Mail, Signature, Status, signatures, verify
from mailyard.protocol.dkim.verify import Result as DkimResult
from mailyard.protocol.dmarc import (
    DmarcResult,
    DmarcStatus,
    Identifier,
    check_dmarc,
    first_question,
)
from mailyard.protocol.dmarc.check import Organisation
from mailyard.protocol.dns_answer import Answer, Ask, Question, Result, TemporaryFailure
from mailyard.protocol.mime.address_list import parse_addresses
from mailyard.protocol.spf import Sender, SpfResult, SpfStatus, check_host
from mailyard.protocol.spf.macro import is_name

Lookup: TypeAlias = Callable[[Question], Result[Any] | None]
Value = TypeVar("Value")

_DATA_CHARACTERS = 8  # of b=, to tell signatures apart (RFC 6008)
_FROM_BYTES = 2_000
_GLANCE_BYTES = 16_384
_FROM = b"\r\nfrom"
_FIELD_END = re.compile(rb"\r\n(?![ \t])")
_UNCHECKED = SpfResult(SpfStatus.NONE, "", "the client is not one to be checked")


class Standing(StrEnum):
    """What the checks make of the author that the From names."""

    VERIFIED = "verified"  # DMARC passes
    UNVERIFIED = "unverified"  # nothing speaks for it, and nothing against it that counts
    FORGED = "forged"  # its domain wants such mail refused or put aside
    UNKNOWN = "unknown"  # DNS could not be asked


@dataclass(frozen=True, slots=True)
class DkimVerdict:
    """What became of one signature. `data` is the start of b=, which tells two apart."""

    status: Status
    domain: str
    selector: str = ""
    algorithm: str = ""
    identity: str = ""
    data: str = ""
    reason: str = ""
    testing: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """All checks of a message. `spf_identity` is the address or, of a notice, the name that SPF was
    about."""

    spf: SpfResult
    spf_identity: str
    dkim: tuple[DkimVerdict, ...]
    dmarc: DmarcResult
    arc: ChainResult
    standing: Standing

    @property
    def settled(self) -> bool:
        """Whether asking DNS again would tell nothing more."""
        return not (
            self.spf.status is SpfStatus.TEMPERROR
            or self.dmarc.status is DmarcStatus.TEMPERROR
            or self.arc.status is ChainStatus.TEMPERROR
            or any(one.status is Status.TEMPERROR for one in self.dkim)
        )

    def methods(self) -> list[Method]:
        """As an Authentication-Results field has them (RFC 8601 section 2.7)."""
        about = "smtp.mailfrom" if "@" in self.spf_identity else "smtp.helo"
        found = [
            Method("spf", self.spf.status, self.spf.reason, ((about, self.spf_identity),)),
            *(
                Method(
                    "dkim",
                    one.status,
                    one.reason,
                    (
                        ("header.d", one.domain),
                        ("header.i", one.identity),
                        ("header.s", one.selector),
                        ("header.a", one.algorithm),
                        ("header.b", one.data),
                    ),
                )
                for one in self.dkim
            ),
        ]
        if not self.dkim:
            found.append(Method("dkim", "none", "the mail is not signed"))
        asked = f"p={self.dmarc.policy} at {self.dmarc.at}" if self.dmarc.policy else ""
        why = "; ".join(filter(None, (self.dmarc.reason, asked)))
        found.append(Method("dmarc", self.dmarc.status, why, (("header.from", self.dmarc.domain),)))
        if self.arc.status is not ChainStatus.NONE:
            sealed = "sealed by " + ", ".join(self.arc.sealers) if self.arc.sealers else ""
            found.append(Method("arc", self.arc.status, self.arc.reason or sealed))
        return found


def author_alone(raw: bytes) -> bytes | None:
    """The From of a mail that neither signature nor chain speaks for, as it stands; None where one
    does, or where that takes more than a glance. Mail with the same From, of no client to be
    checked, has the same verdict."""
    end = raw.find(b"\r\n\r\n")
    if not 0 < end <= _GLANCE_BYTES or raw.startswith(b"\r\n"):
        return None
    head = b"\r\n" + raw[:end]
    lowered = head.lower()
    if b"\ndkim-signature" in lowered or b"\narc-" in lowered:
        return None
    at = lowered.find(_FROM)
    if at < 0 or lowered.find(_FROM, at + 1) >= 0:
        return None
    field = _FIELD_END.split(head[at + 2 :], 1)[0]
    return field if b":" in field else None


class Inquiry:
    """One message. `sender` is None where the client cannot be checked (it is this machine, or not
    known): SPF is then none. `organisation`: see `check_dmarc`."""

    __slots__ = (
        "_answered", "_chain", "_dkim", "_dmarc", "_domains", "_mail", "_now_s", "_organisation",
        "_sender", "_signatures", "_spf", "verdict",
    )  # fmt: skip

    def __init__(
        self,
        raw: bytes,
        sender: Sender | None,
        now_s: float,
        organisation: Organisation | None = None,
    ) -> None:
        self._mail = Mail(raw)
        self._now_s = now_s
        self._sender = sender
        self._organisation = organisation
        self._signatures = signatures(self._mail)
        self._chain = read_chain(self._mail)
        self._domains = from_domains(self._mail)
        self._answered: dict[Question, Result[Any]] = {}
        self._dkim: tuple[DkimVerdict, ...] = ()
        self._spf = _Run(check_host(sender, sender.domain, now_s), _UNCHECKED) if sender else None
        self._dmarc: _Run[DmarcResult] | None = None
        self.verdict: Verdict | None = None

    @property
    def author_alone(self) -> Sequence[str] | None:
        """The domains of the From where nothing else could speak for the mail: no client to be
        checked, no signature, no chain. All such mail of an author has one verdict."""
        chained = self._chain.sets or self._chain.defect
        return None if self._spf or self._signatures or chained else self._domains

    def hash_bodies(self) -> None:
        """Do beforehand what costs time with the mail's size; may run in a thread of its own."""
        newest = [one.message for one in self._chain.sets[-1:]]
        for one in [*self._signatures, *newest]:
            if one.defect is None:
                self._mail.body_hash(one.body_kind, one.length)

    def step(self, lookup: Lookup) -> set[Question]:
        """Go on as far as `lookup` has answers; what it lacks. Empty: `verdict` is there."""
        if self._dmarc is None:
            missing = self._gather(lookup)
            if missing:
                return missing
            self._dmarc = self._judge()
        question = self._dmarc.on(self._known(lookup))
        if question is not None:
            return {question}
        self.verdict = self._verdict(self._dmarc.value)
        return set()

    def _known(self, lookup: Lookup) -> Lookup:
        """`lookup`, with each answer held fast: what was answered once stays so to the end."""
        answered = self._answered

        def known(question: Question) -> Result[Any] | None:
            result = answered.get(question)
            if result is None:
                result = lookup(question)
                if result is not None:
                    answered[question] = result
            return result

        return known

    def _gather(self, lookup: Lookup) -> set[Question]:
        """What all checks can ask at once and has no answer yet."""
        known = self._known(lookup)
        missing = {
            question
            for name in self._key_names()
            if known(question := Question(name, Ask.TXT)) is None
        }
        missing |= {
            question
            for domain in self._domains
            if known(question := first_question(domain)) is None
        }
        if self._spf is not None:
            question_of_spf = self._spf.on(known)
            if question_of_spf is not None:
                missing.add(question_of_spf)
        return missing

    def _key_names(self) -> list[str]:
        names = [one.key_name for one in self._signatures if one.key_name]
        return [*names, *self._chain.key_names]

    def _judge(self) -> "_Run[DmarcResult]":
        """DKIM, now that its keys are there; and with it what DMARC goes by."""
        self._dkim = tuple(
            self._judged(one, verify(self._mail, one, self._keys(one.key_name), self._now_s))
            for one in self._signatures
        )
        identifiers = [
            Identifier(one.domain, True, _passed(one.status)) for one in self._dkim if one.domain
        ]
        spf = self._spf_result
        if spf.domain:
            identifiers.append(Identifier(spf.domain, False, _passed(spf.status)))
        check = check_dmarc(self._domains, identifiers, self._organisation)
        return _Run(check, DmarcResult(DmarcStatus.NONE, ""))

    def _keys(self, name: str) -> Sequence[bytes] | None:
        if not name:
            return ()
        result = self._answered[Question(name, Ask.TXT)]
        if isinstance(result, TemporaryFailure):
            return None
        return [text.encode() for text in result.records] if isinstance(result, Answer) else ()

    def _judged(self, signature: Signature, result: DkimResult) -> DkimVerdict:
        return DkimVerdict(
            result.status,
            signature.domain,
            signature.selector,
            signature.algorithm,
            signature.identity if signature.identity != f"@{signature.domain}" else "",
            _start_of(signature.data),
            result.reason,
            result.testing,
        )

    @property
    def _spf_result(self) -> SpfResult:
        return self._spf.value if self._spf is not None else _UNCHECKED

    def _verdict(self, dmarc: DmarcResult) -> Verdict:
        keys = {name: self._keys(name) for name in self._chain.key_names}
        arc = verify_chain(self._mail, self._chain, keys, self._now_s)
        spf = self._spf_result
        identity = ""
        if self._sender is not None:
            notice = not self._sender.mail_from
            identity = self._sender.helo if notice else self._sender.identity
        return Verdict(spf, identity, self._dkim, dmarc, arc, standing_of(spf, self._dkim, dmarc))


class _Run(Generic[Value]):
    """A generator of questions, driven as far as answers go."""

    __slots__ = ("_check", "_question", "value")

    def __init__(self, check: Generator[Question, Result[Any], Value], before: Value) -> None:
        self._check = check
        self.value = before
        self._question: Question | None = None
        self._send(None)

    def on(self, lookup: Lookup) -> Question | None:
        """The question that has no answer yet; None at the end, when `value` is the result."""
        while self._question is not None:
            result = lookup(self._question)
            if result is None:
                return self._question
            self._send(result)
        return None

    def _send(self, result: Result[Any] | None) -> None:
        try:
            # None only starts it.
            self._question = self._check.send(result)  # type: ignore[arg-type]
        except StopIteration as end:
            self._question, self.value = None, end.value


def standing_of(spf: SpfResult, dkim: Sequence[DkimVerdict], dmarc: DmarcResult) -> Standing:
    """DMARC decides where the domain has a record; elsewhere only a refusal by SPF of a mail that
    nobody signed counts against it."""
    match dmarc.status:
        case DmarcStatus.PASS:
            return Standing.VERIFIED
        case DmarcStatus.TEMPERROR:
            return Standing.UNKNOWN
        case DmarcStatus.PERMERROR:
            return Standing.FORGED
        case DmarcStatus.FAIL:
            enforced = dmarc.policy in ("quarantine", "reject") and not dmarc.testing
            return Standing.FORGED if enforced else Standing.UNVERIFIED
    signed = any(one.status is Status.PASS for one in dkim)
    if spf.status is SpfStatus.FAIL and not signed:
        return Standing.FORGED
    return Standing.UNVERIFIED


def from_domains(mail: Mail) -> tuple[str, ...]:
    """The domains of all authors that the From fields name, each once, in ASCII."""
    values = [mail.fields[at][1][:_FROM_BYTES] for at in mail.places.get(b"from", ())]
    if len(values) == 1:
        return _domains_of(values[0])
    return tuple(dict.fromkeys(domain for value in values for domain in _domains_of(value)))


@lru_cache(1024)  # most mail of an hour is from few
def _domains_of(value: bytes) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for mailbox in parse_addresses(value.decode("utf-8", "replace")):
        try:
            domain = ascii_domain(mailbox.address.rpartition("@")[2]).removesuffix(".")
        except InvalidInput:
            continue
        if "." in domain and domain[0] != "[" and is_name(domain):
            found.setdefault(domain)
    return tuple(found)


def _passed(status: Status | SpfStatus) -> bool | None:
    if status in (Status.TEMPERROR, SpfStatus.TEMPERROR):
        return None
    return status in (Status.PASS, SpfStatus.PASS)


def _start_of(data: bytes) -> str:
    return b64encode(data[:6]).decode()[:_DATA_CHARACTERS]
