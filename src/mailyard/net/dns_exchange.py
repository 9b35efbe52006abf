"""One question to one DNS server: UDP from a fresh port, TCP when the answer does not fit.

What comes back belongs to the question or is dropped (RFC 5452 section 9): the socket is connected,
so only that server's address and port count; id, name, type and class must be those sent. Other
datagrams are dropped while the right one is waited for; when many come, somebody is guessing, and
the question is put by TCP instead.
"""

import asyncio
import struct

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype

from mailyard.net.dns_servers import DnsServer

EDNS_PAYLOAD_BYTES = 1232  # what fits every path unfragmented (DNS Flag Day 2020)
STRANGE_DATAGRAMS = 16  # dropped before the question goes by TCP


class Unanswered(Exception):
    """The server gave no usable answer; `args[0]` says what happened. Never leaves this room."""


class Malformed(Unanswered):
    """It answered with what is no DNS message, or with another question's."""


async def exchange(
    server: DnsServer, name: dns.name.Name, kind: dns.rdatatype.RdataType
) -> tuple[dns.message.Message, int]:
    """(the server's answer, its size in bytes) to one question. The caller bounds the time.

    Raises Unanswered or OSError. A server that knows no EDNS is asked again without (RFC 6891
    section 7).
    """
    response, size = await _ask(server, name, kind, edns=True)
    if response.rcode() in (dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS):
        response, size = await _ask(server, name, kind, edns=False)
    return response, size


async def _ask(
    server: DnsServer, name: dns.name.Name, kind: dns.rdatatype.RdataType, *, edns: bool
) -> tuple[dns.message.Message, int]:
    # AD in the question asks for AD in the answer without the signatures (RFC 6840 section 5.7).
    query = dns.message.make_query(
        name,
        kind,
        use_edns=0 if edns else False,
        payload=EDNS_PAYLOAD_BYTES,
        flags=dns.flags.RD | dns.flags.AD,
    )
    wire = query.to_wire()
    reply = await _by_datagram(server, query, wire)
    if reply is None:
        reply = await _by_stream(server, query, wire)
    return reply


async def _by_datagram(
    server: DnsServer, query: dns.message.Message, wire: bytes
) -> tuple[dns.message.Message, int] | None:
    """The answer, or None when the question must go by TCP."""
    loop = asyncio.get_running_loop()
    transport, inbox = await loop.create_datagram_endpoint(
        _Inbox, remote_addr=(server.address, server.port)
    )
    try:
        transport.sendto(wire)
        for _ in range(STRANGE_DATAGRAMS):
            data = await inbox.next()
            try:
                response = dns.message.from_wire(
                    data, ignore_trailing=True, raise_on_truncation=True
                )
            except dns.message.Truncated as truncated:
                partial = truncated.message()  # type: ignore[no-untyped-call]
                if query.is_response(partial):
                    return None
            except (dns.exception.DNSException, ValueError):
                pass  # garbage, or somebody's guess: the right one may still come
            else:
                if query.is_response(response):
                    return response, len(data)
        return None
    finally:
        transport.close()


async def _by_stream(
    server: DnsServer, query: dns.message.Message, wire: bytes
) -> tuple[dns.message.Message, int]:
    reader, writer = await asyncio.open_connection(server.address, server.port)
    try:
        writer.write(struct.pack("!H", len(wire)) + wire)
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        data = await reader.readexactly(length)
    except asyncio.IncompleteReadError:
        raise Unanswered(f"{server} closed the connection") from None
    finally:
        writer.close()
    try:
        response = dns.message.from_wire(data, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError) as error:
        raise Malformed(f"{server} answered with no DNS message: {error}") from None
    if not query.is_response(response):
        raise Malformed(f"{server} answered another question")
    return response, length


class _Inbox(asyncio.DatagramProtocol):
    """Datagrams in order; the first error of the socket (a closed port) ends the waiting."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | Exception] = asyncio.Queue(STRANGE_DATAGRAMS)

    def datagram_received(self, data: bytes, _addr: tuple[str, int]) -> None:
        if not self._queue.full():
            self._queue.put_nowait(data)

    def error_received(self, exc: Exception) -> None:
        if not self._queue.full():
            self._queue.put_nowait(exc)

    async def next(self) -> bytes:
        item = await self._queue.get()
        if isinstance(item, Exception):
            raise item
        return item
