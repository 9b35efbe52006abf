"""The ARC sets of a mail, read and judged by their structure (RFC 8617 sections 4 and 5.2)."""

import re
from dataclasses import dataclass

from mailyard.protocol.dkim.canonical import RELAXED
from mailyard.protocol.dkim.mail import Mail
from mailyard.protocol.dkim.signature import (
    Rejected,
    Signature,
    Status,
    read_signature,
    read_signer,
)
from mailyard.protocol.dkim.tags import TagError, base64_value, number, parse_tags, required

RESULTS_FIELD = b"arc-authentication-results"
MESSAGE_FIELD = b"arc-message-signature"
SEAL_FIELD = b"arc-seal"
INSTANCES = 50  # section 4.2.1: no chain is longer

_CHAIN_VALUES = ("none", "pass", "fail")
_INSTANCE = re.compile(r"0*([1-9]|[1-4][0-9]|50)")
_RESULTS_INSTANCE = re.compile(rb"[ \t\r\n]*i[ \t\r\n]*=[ \t\r\n]*([0-9]{1,2})[ \t\r\n]*;")


@dataclass(frozen=True, slots=True)
class ArcSet:
    """Three fields of one instance: the place of ARC-Authentication-Results, and two signatures.

    `seal` signs no body and names no fields: what it covers follows from its instance. `verdict`:
    its cv=, what the sealer thought of the chain before it.
    """

    instance: int
    results_at: int
    message: Signature
    seal: Signature
    verdict: str


@dataclass(frozen=True, slots=True)
class Chain:
    """The sets from the first on. With a `defect` the chain fails whatever its signatures are.

    `instances`: the highest number on any field, which counts even where sets are broken. `ended`:
    the newest sealer saw the chain fail, and nobody adds to it any more (section 5.1.2).
    """

    sets: tuple[ArcSet, ...]
    instances: int
    ended: bool = False
    defect: str = ""

    @property
    def key_names(self) -> tuple[str, ...]:
        """The names whose TXT records `verify_chain` wants, each once."""
        if self.defect:
            return ()
        names = [one.seal.key_name for one in self.sets]
        return tuple(dict.fromkeys([*names, self.sets[-1].message.key_name] if names else ()))


def read_chain(mail: Mail) -> Chain:
    """The chain that `mail` brings; one without sets when it brings none. Never raises."""
    places = mail.places
    found = [places.get(name, []) for name in (RESULTS_FIELD, MESSAGE_FIELD, SEAL_FIELD)]
    if not any(found):
        return Chain((), 0)
    if max(map(len, found)) > INSTANCES:
        return Chain((), INSTANCES, defect=f"there are more than {INSTANCES} ARC sets")
    parts = _Parts()
    for at in found[0]:
        parts.results(mail, at)
    for at in found[1]:
        parts.message(mail, at)
    for at in found[2]:
        parts.seal(mail, at)
    return parts.chain()


class _Parts:
    """Fields by their instance, and the first thing that is wrong with them."""

    def __init__(self) -> None:
        self._results: dict[int, int] = {}
        self._messages: dict[int, Signature] = {}
        self._seals: dict[int, tuple[Signature, str]] = {}
        self._defect = ""
        self._instances = 0

    def results(self, mail: Mail, at: int) -> None:
        match = _RESULTS_INSTANCE.match(mail.fields[at][1])
        instance = self._instance(match[1].decode() if match else "", "ARC-Authentication-Results")
        if instance in self._results:
            self._wrong(f"ARC-Authentication-Results i={instance} is there twice")
        elif instance:
            self._results[instance] = at

    def message(self, mail: Mail, at: int) -> None:
        """An ARC-Message-Signature: one of DKIM with an instance as i= and without v= (4.1.2)."""
        tags = self._tags(mail, at, "ARC-Message-Signature")
        instance = self._instance(tags.get("i", ""), "ARC-Message-Signature") if tags else 0
        if not instance:
            return
        if instance in self._messages:
            self._wrong(f"ARC-Message-Signature i={instance} is there twice")
        try:
            signature = read_signature(at, tags)
            if SEAL_FIELD in signature.names:
                self._wrong(f"ARC-Message-Signature i={instance} signs ARC-Seal")
        except TagError as error:
            signature = Signature(index=at, defect=Rejected(Status.NEUTRAL, error.message))
        except Rejected as error:
            signature = Signature(index=at, defect=error)
        self._messages[instance] = signature

    def seal(self, mail: Mail, at: int) -> None:
        """An ARC-Seal, which has no h= (4.1.3)."""
        tags = self._tags(mail, at, "ARC-Seal")
        instance = self._instance(tags.get("i", ""), "ARC-Seal") if tags else 0
        if not instance:
            return
        if instance in self._seals:
            self._wrong(f"ARC-Seal i={instance} is there twice")
        verdict = tags.get("cv", "").lower()
        if verdict not in _CHAIN_VALUES:
            self._wrong(f"ARC-Seal i={instance} has no cv= of {', '.join(_CHAIN_VALUES)}")
        if "h" in tags:
            self._wrong(f"ARC-Seal i={instance} has h=")
        try:
            signature = _read_seal(at, tags)
        except (TagError, Rejected) as error:
            signature = Signature(index=at)
            self._wrong(f"ARC-Seal i={instance}: {error.message}")
        self._seals[instance] = signature, verdict

    def chain(self) -> Chain:
        """What the fields make together (section 5.2, steps 1 to 3)."""
        newest = max(self._seals, default=0)
        ended = bool(newest) and self._seals[newest][1] == "fail" and newest == self._instances
        if ended:
            self._wrong("whoever sealed it last found it broken")
        wanted = range(1, self._instances + 1)
        for kind, fields in (
            ("ARC-Authentication-Results", self._results.keys()),
            ("ARC-Message-Signature", self._messages.keys()),
            ("ARC-Seal", self._seals.keys()),
        ):
            missing = next((instance for instance in wanted if instance not in fields), 0)
            if missing:
                self._wrong(f"{kind} i={missing} is missing")
        for instance, (_, verdict) in sorted(self._seals.items()):
            if verdict != ("none" if instance == 1 else "pass"):
                self._wrong(f"ARC-Seal i={instance} has cv={verdict}")
        if self._defect:
            return Chain((), self._instances, ended, self._defect)
        sets = [
            ArcSet(one, self._results[one], self._messages[one], *self._seals[one])
            for one in wanted
        ]
        return Chain(tuple(sets), self._instances)

    def _tags(self, mail: Mail, at: int, kind: str) -> dict[str, str]:
        try:
            return parse_tags(mail.fields[at][1])
        except TagError as error:
            self._wrong(f"{kind}: {error.message}")
            return {}

    def _instance(self, value: str, kind: str) -> int:
        """1 to INSTANCES; 0, noted, when `value` is none of these."""
        match = _INSTANCE.fullmatch(value)
        if match is None:
            self._wrong(f"{kind} has no i= from 1 to {INSTANCES}")
            return 0
        instance = int(match[1])
        self._instances = max(self._instances, instance)
        return instance

    def _wrong(self, text: str) -> None:
        self._defect = self._defect or text


def _read_seal(index: int, tags: dict[str, str]) -> Signature:
    algorithm, domain, selector = read_signer(tags)
    return Signature(
        index=index,
        algorithm=algorithm,
        domain=domain,
        selector=selector,
        identity=f"@{domain}",
        header_kind=RELAXED,
        data=base64_value(required(tags, "b"), "b"),
        signed_at_s=number(tags, "t"),
    )
