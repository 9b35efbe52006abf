"""What a DNS message says to a question: records of the name asked for, through its aliases.

Only the answer's own names count: records of others, wherever they stand in the message, are never
looked at, so an answer cannot plant anything (RFC 2181 section 5.4.1). Values become our own types;
a record whose data breaks its grammar is left out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from dns.rdatatype import RdataType

from mailyard.protocol.dns_answer import MxRecord, TlsaRecord

ALIASES = 8  # followed for one question; resolvers stop at 8 to 16


@dataclass(frozen=True, slots=True)
class Found:
    """Records of the type asked for, at the end of the aliases."""

    records: tuple[Any, ...]
    name: dns.name.Name
    ttl_s: int


@dataclass(frozen=True, slots=True)
class Nothing:
    """The server says that there is nothing; `exists`: the name does, the type does not.

    `ttl_s`: how long that holds (RFC 2308 section 5); 0 when the server did not say.
    """

    exists: bool
    ttl_s: int


@dataclass(frozen=True, slots=True)
class AskNext:
    """The name is an alias and the message does not say what for: ask for `name`."""

    name: dns.name.Name
    aliases: int
    ttl_s: int


class AliasLoop(Exception):
    """The aliases lead in a circle, or there are more than ALIASES."""


def read(
    response: dns.message.Message, name: dns.name.Name, kind: RdataType, aliases: int
) -> Found | Nothing | AskNext:
    """What `response` (rcode NOERROR or NXDOMAIN) says of `name`. `aliases`: followed before.

    Raises AliasLoop.
    """
    ttl_s = 0x7FFF_FFFF
    seen = {name}
    while True:
        records = _records_of(response, name, kind)
        if records is not None and kind != RdataType.CNAME:
            values = tuple(value for value in map(_value_of, records) if value is not None)
            if values:
                return Found(values, name, min(ttl_s, records.ttl))
        alias = _records_of(response, name, RdataType.CNAME)
        if alias is None:
            break
        target = alias[0].target
        ttl_s = min(ttl_s, alias.ttl)
        if kind == RdataType.CNAME:
            return Found((text_of(target),), name, ttl_s)
        aliases += 1
        if target in seen or aliases > ALIASES:
            raise AliasLoop(f"{text_of(name)} is an alias for {text_of(target)}")
        seen.add(target)
        name = target
    if response.rcode() == dns.rcode.NXDOMAIN:
        return Nothing(False, min(ttl_s, _negative_ttl_s(response, name)))
    if len(seen) > 1 and records is None and _soa(response, name) is None:
        return AskNext(name, aliases, ttl_s)
    return Nothing(True, min(ttl_s, _negative_ttl_s(response, name)))


def text_of(name: dns.name.Name) -> str:
    """`name` as the rest of the program writes it: lower case, no last dot, the root as "."."""
    return name.canonicalize().to_text(omit_final_dot=True)


def _records_of(
    response: dns.message.Message, name: dns.name.Name, kind: RdataType
) -> dns.rrset.RRset | None:
    return response.get_rrset(response.answer, name, dns.rdataclass.IN, kind)


def _soa(response: dns.message.Message, name: dns.name.Name) -> dns.rrset.RRset | None:
    """The SOA of `name`'s zone in the authority section: the sign of a whole negative answer."""
    for rrset in response.authority:
        if rrset.rdtype == RdataType.SOA and name.is_subdomain(rrset.name):
            return rrset
    return None


def _negative_ttl_s(response: dns.message.Message, name: dns.name.Name) -> int:
    soa = _soa(response, name)
    return min(soa.ttl, soa[0].minimum) if soa is not None else 0


def _value_of(rdata: Any) -> Any:
    convert = _CONVERT.get(rdata.rdtype)
    return convert(rdata) if convert is not None else None


def _text(rdata: Any) -> str:
    """The strings of a TXT record joined (RFC 7208 section 3.3); other than UTF-8 is escaped."""
    return b"".join(rdata.strings).decode("utf-8", "backslashreplace")


_CONVERT: Mapping[RdataType, Callable[[Any], Any]] = {
    RdataType.A: lambda rdata: IPv4Address(rdata.address),
    RdataType.AAAA: lambda rdata: IPv6Address(rdata.address),
    RdataType.MX: lambda rdata: MxRecord(rdata.preference, text_of(rdata.exchange)),
    RdataType.TXT: _text,
    RdataType.PTR: lambda rdata: text_of(rdata.target),
    RdataType.NS: lambda rdata: text_of(rdata.target),
    RdataType.TLSA: lambda rdata: TlsaRecord(
        rdata.usage, rdata.selector, rdata.mtype, bytes(rdata.cert)
    ),
}
