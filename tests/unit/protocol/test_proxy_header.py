"""What a load balancer says first, cut at every byte, and what is no such header."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailyard.protocol.proxy_header import (
    V2_BYTES,
    V2_SIGNATURE,
    BadProxyHeader,
    Source,
    missing_bytes,
    read_source,
)

ports = st.integers(0, 65_535)


def version_2(command: int, family: int, payload: bytes) -> bytes:
    size = len(payload).to_bytes(2, "big")
    return V2_SIGNATURE + bytes([0x20 | command, family]) + size + payload


def test_a_line_names_who_is_behind() -> None:
    line = b"PROXY TCP4 192.0.2.7 198.51.100.1 40123 25\r\n"
    assert read_source(line + b"EHLO x\r\n") == (Source("192.0.2.7", 40123), b"EHLO x\r\n")
    six = b"PROXY TCP6 2001:db8::7 ::1 1 25\r\n"
    assert read_source(six) == (Source("2001:db8::7", 1), b"")


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n",
        version_2(0, 0x00, b""),
        version_2(0, 0x11, bytes(12)),
        version_2(1, 0x31, bytes(216)),
    ],
    ids=["unknown", "unknown with more", "local", "local with addresses", "a unix socket"],
)
def test_a_balancer_may_speak_for_itself(header: bytes) -> None:
    assert missing_bytes(header) == 0
    assert read_source(header + b"x") == (Source(), b"x")


@given(st.ip_addresses(), ports, st.binary(max_size=50))
def test_version_2_is_read_whatever_else_it_carries(
    address: object, port: int, more: bytes
) -> None:
    source = ip_address(str(address))
    packed = source.packed
    payload = packed + bytes(len(packed)) + port.to_bytes(2, "big") + b"\0\x19" + more
    header = version_2(1, 0x11 if source.version == 4 else 0x21, payload)
    for cut in range(len(header)):
        assert 0 < missing_bytes(header[:cut]) <= len(header) - cut
    assert missing_bytes(header + b"EHLO") == 0
    expected = getattr(source, "ipv4_mapped", None) or source
    assert read_source(header + b"EHLO") == (Source(str(expected), port), b"EHLO")


@given(st.ip_addresses(v=4), ports)
def test_a_line_is_read_to_its_last_byte_and_no_further(address: object, port: int) -> None:
    line = f"PROXY TCP4 {address} 127.0.0.1 {port} 25\r\n".encode()
    for cut in range(len(line)):
        assert 0 < missing_bytes(line[:cut]) <= len(line) - cut
    assert missing_bytes(line + b"x") == 0


@pytest.mark.parametrize(
    "data",
    [
        b"EHLO example.org\r\n",
        b"PROXYTCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY " + b"x" * 120,
        b"PROXY TCP4 1.2.3.4\r\n",
        b"PROXY TCP4 here 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 70000 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 \xb9 2\r\n",
        V2_SIGNATURE + b"\x11\x11\0\x0c" + bytes(12),
        V2_SIGNATURE + b"\x22\x11\0\x0c" + bytes(12),
        version_2(1, 0x21, bytes(12)),
        V2_SIGNATURE + b"\x21\x11" + V2_BYTES.to_bytes(2, "big"),
        b"\r\n\r\n\0\r\nQUIP",
    ],
)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(BadProxyHeader):
        assert missing_bytes(data) == 0
        read_source(data)


@given(st.one_of(st.binary(max_size=140), st.binary(max_size=140).map(V2_SIGNATURE.__add__)))
def test_any_bytes_end_in_a_source_a_refusal_or_a_bounded_wait(data: bytes) -> None:
    try:
        missing = missing_bytes(data)
        if missing == 0:
            source, rest = read_source(data)
            assert data.endswith(rest) and (not source.address or ip_address(source.address))
        else:
            assert missing <= V2_BYTES
    except BadProxyHeader:
        pass
