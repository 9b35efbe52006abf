"""A DNS server for tests: real UDP and TCP on one loopback port, a zone, and faults on demand.

    async with ScriptedDns() as server:
        server.add("example.org", "MX", "10 mx.example.org.")
        server.fault("slow.example", "A", Fault.TIMEOUT)
        resolver = Resolver([server.address], SystemClock())

It answers like a recursive server: aliases are followed inside the zone, absent names get NXDOMAIN
with an SOA, answers that do not fit a datagram are truncated. `asked` lists every question.
"""

import asyncio
import struct
from enum import Enum, auto
from types import TracebackType

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from mailyard.net.dns_servers import DnsServer

_IN = dns.rdataclass.IN
_ALIASES = 20  # written into one answer, so that circles are seen as circles


class Fault(Enum):
    """What goes wrong with one question."""

    TIMEOUT = auto()  # no answer, by UDP or TCP
    SLOW = auto()  # the right answer after 0.1 s
    SERVFAIL = auto()
    BOGUS = auto()  # SERVFAIL with the extended error of a failed DNSSEC check
    REFUSED = auto()
    TRUNCATED = auto()  # by UDP only; TCP answers
    TRUNCATED_AND_HANGS_UP = auto()  # TCP closes without an answer
    TRUNCATED_AND_GARBAGE = auto()  # TCP answers with what is no message
    TRUNCATED_AND_OTHER = auto()  # TCP answers another question
    NO_EDNS = auto()  # FORMERR to a question with EDNS
    WRONG_ID = auto()  # the same answer under another id, and nothing else
    WRONG_ID_FIRST = auto()  # forged answers first, then the right one
    WRONG_QUESTION_FIRST = auto()
    GARBAGE_FIRST = auto()
    GARBAGE = auto()
    FLOOD = auto()  # forged answers without end by UDP; TCP answers
    OTHER_NAMES = auto()  # the right records and, beside them, records of names not asked for
    ONLY_OTHER_NAMES = auto()
    ALIAS_ALONE = auto()  # the CNAME without what it leads to
    REFERRAL = auto()  # name servers instead of an answer


class ScriptedDns:
    """One server. Names are given without the last dot; values as in a zone file."""

    def __init__(self, *, authenticated: bool = False) -> None:
        self.authenticated = authenticated
        self.unsigned: set[str] = set()  # names that are answered without the AD bit
        self.negative_ttl_s = 300
        self.asked: list[tuple[str, str, str]] = []
        self._records: dict[tuple[dns.name.Name, dns.rdatatype.RdataType], dns.rrset.RRset] = {}
        self._faults: dict[tuple[str, str], list[Fault | None]] = {}
        self._open: set[asyncio.Task[None]] = set()

    def add(self, name: str, kind: str, *values: str, ttl_s: int = 300) -> None:
        """Records of one name and type, in place of those before."""
        owner = dns.name.from_text(name)
        rrset = dns.rrset.from_text(owner, ttl_s, "IN", kind, *values)
        self._records[owner, dns.rdatatype.from_text(kind)] = rrset

    def fault(self, name: str, kind: str, *faults: Fault | None) -> None:
        """What happens to questions for it, one after another; the last one for all that follow."""
        self._faults[name, kind] = list(faults)

    def times_asked(self, name: str, kind: str, way: str = "udp") -> int:
        return self.asked.count((name, kind, way))

    @property
    def address(self) -> DnsServer:
        return DnsServer("127.0.0.1", self.port, validates=self.authenticated)

    async def __aenter__(self) -> "ScriptedDns":
        loop = asyncio.get_running_loop()
        while True:
            self._datagrams, _ = await loop.create_datagram_endpoint(
                lambda: _Datagrams(self), local_addr=("127.0.0.1", 0)
            )
            self.port: int = self._datagrams.get_extra_info("sockname")[1]
            try:
                self._streams = await asyncio.start_server(self._stream, "127.0.0.1", self.port)
            except OSError:
                self._datagrams.close()  # somebody has that port's TCP side: another one
            else:
                return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._datagrams.close()
        self._streams.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def datagram(self, data: bytes, source: tuple[str, int]) -> None:
        """A question by UDP."""
        query = dns.message.from_wire(data)
        for delay_s, wire in self._replies(query, "udp"):
            if delay_s:
                asyncio.get_running_loop().call_later(delay_s, self._datagrams.sendto, wire, source)
            else:
                self._datagrams.sendto(wire, source)

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            query = dns.message.from_wire(await reader.readexactly(length))
            fault, replies = self._faults_of(query)[0], self._replies(query, "tcp")
            if fault is Fault.TIMEOUT:
                await asyncio.sleep(60)
            if fault is not Fault.TRUNCATED_AND_HANGS_UP:
                for delay_s, wire in replies:
                    await asyncio.sleep(delay_s)
                    writer.write(struct.pack("!H", len(wire)) + wire)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the asker has gone
        finally:
            writer.close()
            self._open.discard(task)

    def _faults_of(self, query: dns.message.Message) -> list[Fault | None]:
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        return self._faults.get((name, dns.rdatatype.to_text(question.rdtype)), [None])

    def _replies(self, query: dns.message.Message, way: str) -> list[tuple[float, bytes]]:
        """(delay, wire) of everything that is sent back."""
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        self.asked.append((name, dns.rdatatype.to_text(question.rdtype), way))
        faults = self._faults_of(query)
        fault = faults.pop(0) if len(faults) > 1 else faults[0]
        if fault is Fault.TIMEOUT:
            return []
        right = self._answer(query)
        if way == "tcp":
            if fault is Fault.TRUNCATED_AND_GARBAGE:
                return [(0.0, b"\xff" * 40)]
            if fault is Fault.TRUNCATED_AND_OTHER:
                return [(0.0, _wrong_question(query))]
            return [(0.0, right.to_wire(max_size=65_535))]
        broken = _BROKEN.get(fault) if fault is not None else None
        if broken is not None:
            return [(0.0, wire) for wire in broken(query, right)]
        if fault is Fault.SLOW:
            return [(0.1, right.to_wire())]
        payload = max(query.payload, 512)
        try:
            wire = right.to_wire(max_size=payload)
        except dns.exception.TooBig:
            wire = _truncated(query)
        return [(0.0, wire)]

    def _answer(self, query: dns.message.Message) -> dns.message.Message:
        question = query.question[0]
        response = dns.message.make_response(query, recursion_available=True)
        asked = question.name.to_text(omit_final_dot=True).lower()
        if self.authenticated and asked not in self.unsigned:
            response.flags |= dns.flags.AD
        name = question.name
        for _ in range(_ALIASES):
            rrset = self._records.get((name, question.rdtype))
            if rrset is not None:
                response.answer.append(rrset)
                return response
            alias = self._records.get((name, dns.rdatatype.CNAME))
            if alias is None:
                break
            if alias not in response.answer:
                response.answer.append(alias)
            name = alias[0].target
        else:
            return response
        if not any(owner == name or owner.is_subdomain(name) for owner, _ in self._records):
            response.set_rcode(dns.rcode.NXDOMAIN)
        response.authority.append(self._soa(name))
        return response

    def _soa(self, name: dns.name.Name) -> dns.rrset.RRset:
        zone = dns.name.Name(name.labels[-2:])  # the last label and the root
        ttl_s = self.negative_ttl_s
        text = f"ns.{zone} admin.{zone} 1 3600 600 86400 {ttl_s}"
        return dns.rrset.from_text(zone, ttl_s * 2, "IN", "SOA", text)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: ScriptedDns) -> None:
        self._server = server

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._server.datagram(data, addr)


def _with_code(query: dns.message.Message, rcode: dns.rcode.Rcode) -> dns.message.Message:
    response = dns.message.make_response(query, recursion_available=True)
    response.set_rcode(rcode)
    return response


def _truncated(query: dns.message.Message) -> bytes:
    response = dns.message.make_response(query, recursion_available=True)
    response.flags |= dns.flags.TC
    return response.to_wire()


def _bogus(query: dns.message.Message) -> bytes:
    response = _with_code(query, dns.rcode.SERVFAIL)
    response.use_edns(
        0, options=[dns.edns.EDEOption(dns.edns.EDECode.DNSSEC_BOGUS, "signature expired")]
    )
    return response.to_wire()


def _forged(query: dns.message.Message) -> dns.message.Message:
    """What an attacker would like to be believed: his own address for whatever was asked."""
    response = dns.message.make_response(query, recursion_available=True)
    name = query.question[0].name
    response.answer = [
        dns.rrset.from_text(name, 86_400, "IN", "A", "203.0.113.66"),
        dns.rrset.from_text(name, 86_400, "IN", "MX", "0 evil.example."),
    ]
    response.id = (query.id + 1) & 0xFFFF
    return response


def _wrong_question(query: dns.message.Message) -> bytes:
    other = dns.message.make_query("other.example.", query.question[0].rdtype, id=query.id)
    forged = _forged(other)
    forged.id = query.id
    return forged.to_wire()


def _beside(query: dns.message.Message, right: dns.message.Message) -> dns.message.Message:
    """`right` with records of names nobody asked about, in every section."""
    for section in (right.answer, right.authority, right.additional):
        section.append(dns.rrset.from_text("victim.example.", 86_400, "IN", "A", "203.0.113.66"))
        section.append(
            dns.rrset.from_text("victim.example.", 86_400, "IN", "MX", "0 evil.example.")
        )
    return right


def _only_beside(query: dns.message.Message, right: dns.message.Message) -> bytes:
    right.answer.clear()
    return _beside(query, right).to_wire()


def _alias_alone(query: dns.message.Message, right: dns.message.Message) -> bytes:
    del right.answer[1:]
    right.authority.clear()
    right.set_rcode(dns.rcode.NOERROR)
    return right.to_wire()


def _referral(query: dns.message.Message) -> bytes:
    response = dns.message.make_response(query)
    response.authority.append(dns.rrset.from_text("example.", 300, "IN", "NS", "ns.example."))
    return response.to_wire()


def _no_edns(query: dns.message.Message, right: dns.message.Message) -> bytes:
    if query.edns < 0:
        return right.to_wire()
    response = _with_code(query, dns.rcode.FORMERR)
    response.use_edns(False)
    return response.to_wire()


_BROKEN = {
    Fault.SERVFAIL: lambda query, right: [_with_code(query, dns.rcode.SERVFAIL).to_wire()],
    Fault.BOGUS: lambda query, right: [_bogus(query)],
    Fault.REFUSED: lambda query, right: [_with_code(query, dns.rcode.REFUSED).to_wire()],
    Fault.TRUNCATED: lambda query, right: [_truncated(query)],
    Fault.TRUNCATED_AND_HANGS_UP: lambda query, right: [_truncated(query)],
    Fault.TRUNCATED_AND_GARBAGE: lambda query, right: [_truncated(query)],
    Fault.TRUNCATED_AND_OTHER: lambda query, right: [_truncated(query)],
    Fault.NO_EDNS: lambda query, right: [_no_edns(query, right)],
    Fault.WRONG_ID: lambda query, right: [_forged(query).to_wire()],
    Fault.WRONG_ID_FIRST: lambda query, right: [_forged(query).to_wire(), right.to_wire()],
    Fault.WRONG_QUESTION_FIRST: lambda query, right: [_wrong_question(query), right.to_wire()],
    Fault.GARBAGE_FIRST: lambda query, right: [b"\xff", b"", b"\0" * 600, right.to_wire()],
    Fault.GARBAGE: lambda query, right: [b"\xff" * 40],
    Fault.FLOOD: lambda query, right: [_forged(query).to_wire()] * 40,
    Fault.OTHER_NAMES: lambda query, right: [_beside(query, right).to_wire()],
    Fault.ONLY_OTHER_NAMES: lambda query, right: [_only_beside(query, right)],
    Fault.ALIAS_ALONE: lambda query, right: [_alias_alone(query, right)],
    Fault.REFERRAL: lambda query, right: [_referral(query)],
}
