"""TLS towards a host: what is asked of it, how it is tried, what is counted (RFC 8460).

    DANE binds the host            encrypted, and the certificate matches a TLSA record
    DANE binds, nothing usable     encrypted
    an MTA-STS policy enforces     encrypted, verified by name; a host it does not name is not used
    an MTA-STS policy is in testing  verified if that works, else as below; a failure is counted
    nothing                        encrypted if the host can, in the clear if not (RFC 7435)

DANE goes before MTA-STS (RFC 8461 section 2). What is asked for is never given up: the host is not
used, the next one is.
"""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, StrEnum
from typing import Any, Protocol, TypeAlias

from mailyard.net.mail_route import HostDane
from mailyard.net.tls import client_context
from mailyard.protocol.dane import DaneEncrypt, DaneLater, DaneVerify, why_not
from mailyard.protocol.mta_sts import Treatment, treatment
from mailyard.protocol.mx import Target
from mailyard.protocol.smtp.client_mail import StartTls
from mailyard.sending.transports.mx.road import Road, Router

SUCCESS = "success"


class PolicyType(StrEnum):
    """RFC 8460 section 4.4."""

    STS = "sts"
    TLSA = "tlsa"
    NONE = "no-policy-found"


class Manner(Enum):
    """How a connection is tried."""

    CLEAR = "in the clear"
    ENCRYPT = "encrypted"
    VERIFY = "verified by name"
    DANE = "verified by DANE"


@dataclass(frozen=True, slots=True)
class Demand:
    """`manners` are tried in their order, the next one where TLS itself has failed. `required`: the
    host must offer STARTTLS."""

    manners: tuple[Manner, ...]
    required: bool
    policy_type: PolicyType
    dane: HostDane | None = None

    def starttls(self, manner: Manner) -> StartTls:
        if manner is Manner.CLEAR:
            return StartTls.NONE
        # A testing policy tries to verify: whoever does not even offer TLS gets it in the clear.
        return StartTls.REQUIRED if self.required else StartTls.OPPORTUNISTIC


@dataclass(frozen=True, slots=True)
class Unusable:
    """The host is not used now. `result`: how it is counted (RFC 8460 section 4.3)."""

    why: str
    policy_type: PolicyType
    result: str


Plan: TypeAlias = Demand | Unusable

_OPPORTUNISTIC = Demand((Manner.ENCRYPT, Manner.CLEAR), False, PolicyType.NONE)
_TESTING = Demand((Manner.VERIFY, Manner.ENCRYPT, Manner.CLEAR), False, PolicyType.STS)
_ENFORCED = Demand((Manner.VERIFY,), True, PolicyType.STS)


class TlsCounts(Protocol):
    """Counts sessions (`sending.tls_count.TlsCounter`)."""

    def note(self, domain: str, policy_type: str, host: str, result: str) -> None: ...


class Security:
    """Decides, and verifies. `verified`: the context whose authorities MTA-STS trusts."""

    def __init__(self, router: Router, verified: ssl.SSLContext | None = None) -> None:
        self._router = router
        self._any = client_context(verify=False)
        self._verified = verified or client_context(verify=True)

    async def plan(self, road: Road, target: Target) -> Plan:
        """What is asked of `target`."""
        dane = await self._router.dane(road.route, target)
        if isinstance(dane.plan, DaneLater):
            return Unusable(dane.plan.why, PolicyType.TLSA, "dnssec-invalid")
        if isinstance(dane.plan, DaneVerify):
            return Demand((Manner.DANE,), True, PolicyType.TLSA, dane)
        if isinstance(dane.plan, DaneEncrypt):
            return Demand((Manner.ENCRYPT,), True, PolicyType.TLSA, dane)
        match treatment(road.policy, target.host.name):
            case Treatment.FREE:
                return _OPPORTUNISTIC
            case Treatment.REPORT:
                return _TESTING
            case Treatment.MUST_VERIFY:
                return _ENFORCED
            case Treatment.NOT_LISTED:
                why = "the domain's MTA-STS policy does not name it"
                return Unusable(why, PolicyType.STS, "validation-failure")

    def context(self, manner: Manner) -> ssl.SSLContext:
        return self._verified if manner is Manner.VERIFY else self._any

    def server_name(self, demand: Demand, manner: Manner, target: Target) -> str:
        """The name in SNI (RFC 7672 section 8.1, RFC 8461 section 4.3)."""
        if manner is Manner.DANE and demand.dane is not None:
            return demand.dane.names[0]
        return target.host.name

    def objection(
        self, demand: Demand, manner: Manner, secure: Any, now: datetime
    ) -> tuple[str, str] | None:
        """After the handshake: (what is wrong with the peer, how it is counted), or None."""
        if manner is not Manner.DANE or demand.dane is None:
            return None
        plan = demand.dane.plan
        assert isinstance(plan, DaneVerify), "a manner that only such a plan asks for"
        problem = why_not(plan.records, _chain_of(secure), demand.dane.names, now)
        return None if problem is None else (f"DANE: {problem}", "validation-failure")


def _chain_of(secure: ssl.SSLObject) -> Sequence[bytes]:
    """The peer's certificates as DER, its own first."""
    if hasattr(secure, "get_unverified_chain"):  # Python 3.13
        return list(secure.get_unverified_chain())
    held: Any = getattr(secure, "_sslobj", None)
    found = held.get_unverified_chain() if held is not None else None
    return [one.public_bytes(_DER) for one in found or ()]


_DER = 2  # _ssl.ENCODING_DER


def result_of(error: Exception) -> str:
    """How a failed handshake is counted (RFC 8460 section 4.3.1)."""
    if isinstance(error, ssl.SSLCertVerificationError):
        # Numbers of OpenSSL's x509_vfy.h: expired, not yet valid, host name mismatch.
        by_code = {
            9: "certificate-expired",
            10: "certificate-expired",
            62: "certificate-host-mismatch",
        }
        return by_code.get(error.verify_code, "certificate-not-trusted")
    return "validation-failure"
