"""Whatever bytes come back, reading them ends and says one of the things that can be said."""

import dns.exception
import dns.message
import dns.name
import dns.rrset
from dns.rdatatype import RdataType
from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.net.dns_read import AliasLoop, AskNext, Found, Nothing, read

NAME = dns.name.from_text("example.org")


def response() -> bytes:
    message = dns.message.make_response(dns.message.make_query(NAME, "MX"))
    message.answer = [
        dns.rrset.from_text(NAME, 300, "IN", "CNAME", "a.example."),
        dns.rrset.from_text("a.example.", 300, "IN", "MX", "10 mx.a.example.", "20 mx.b.example."),
    ]
    message.authority = [
        dns.rrset.from_text("example.", 300, "IN", "SOA", "ns.example. a.example. 1 2 3 4 5")
    ]
    return message.to_wire()


WIRE = response()


def test_what_was_not_changed_is_read() -> None:
    found = read(dns.message.from_wire(WIRE), NAME, RdataType.MX, 0)
    assert isinstance(found, Found)
    assert {record.host for record in found.records} == {"mx.a.example", "mx.b.example"}


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(12, len(WIRE) - 1), st.integers(0, 255)), max_size=6),
    st.integers(12, len(WIRE)),
)
def test_any_bytes_are_read_or_refused(changes: list[tuple[int, int]], end: int) -> None:
    wire = bytearray(WIRE)
    for at, value in changes:
        wire[at] = value
    try:
        message = dns.message.from_wire(bytes(wire[:end]), ignore_trailing=True)
    except (dns.exception.DNSException, ValueError):
        return
    for kind in (RdataType.MX, RdataType.CNAME, RdataType.TXT):
        try:
            assert isinstance(read(message, NAME, kind, 0), Found | Nothing | AskNext)
        except AliasLoop:
            pass
