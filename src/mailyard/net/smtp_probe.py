"""Whether a mail server takes TLS, and with a certificate of its own name (RFC 3207).

For the owner's own hosts, before strangers find out. One short conversation, everything bounded; no
mail is sent.
"""

import asyncio
import ssl
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto

from mailyard.net.dns import Resolver
from mailyard.net.tls import client_context
from mailyard.protocol.dns_answer import Answer, TemporaryFailure

PATIENCE_S = 10.0
_REPLY_LINES = 100
_LINE_BYTES = 2_048
_BROKEN = (OSError, EOFError, ValueError, TimeoutError, asyncio.LimitOverrunError)


class TlsState(Enum):
    """What a server has for who wants to encrypt."""

    VERIFIED = auto()
    UNVERIFIED = auto()  # it encrypts; nobody can know that it is who it says
    NONE = auto()
    AWAY = auto()  # it did not answer, or not from here


@dataclass(frozen=True, slots=True)
class TlsFinding:
    """`why`: what is wrong, for people; empty when nothing is."""

    state: TlsState
    why: str = ""


async def probe_tls(
    host: str,
    resolver: Resolver,
    *,
    hello: str,
    port: int = 25,
    context: ssl.SSLContext | None = None,
) -> TlsFinding:
    """Connect to `host`, ask for STARTTLS and verify its certificate (without `context` by the
    system's authorities). Never raises for what the server does."""
    addresses = await resolver.addresses(host)
    if isinstance(addresses, TemporaryFailure):
        return TlsFinding(TlsState.AWAY, f"DNS could not say: {addresses.trouble.value}")
    if not isinstance(addresses, Answer):
        return TlsFinding(TlsState.AWAY, f"{host} has no address in DNS")
    finding = TlsFinding(TlsState.AWAY)
    for address in addresses.records[:2]:
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await _converse(str(address), port, host, hello, context)
        except _BROKEN as error:
            why = f"{address} port {port} does not answer as a mail server: {_said(error)}"
            finding = TlsFinding(TlsState.AWAY, why)
    return finding


async def _converse(
    address: str, port: int, host: str, hello: str, context: ssl.SSLContext | None
) -> TlsFinding:
    reader, writer = await asyncio.open_connection(address, port, limit=_LINE_BYTES)
    try:
        code, _ = await _reply(reader)
        if code != 220:
            return TlsFinding(TlsState.AWAY, f"{host} greets with {code}")
        code, words = await _ask(reader, writer, f"EHLO {hello}")
        if code != 250 or "STARTTLS" not in words:
            return TlsFinding(TlsState.NONE, f"{host} does not offer STARTTLS")
        code, _ = await _ask(reader, writer, "STARTTLS")
        if code != 220:
            return TlsFinding(TlsState.NONE, f"{host} offers STARTTLS and refuses it ({code})")
        try:
            await writer.start_tls(context or client_context(verify=True), server_hostname=host)
        except ssl.SSLCertVerificationError as error:
            return TlsFinding(TlsState.UNVERIFIED, f"its certificate: {error.verify_message}")
        except ssl.SSLError as error:
            return TlsFinding(TlsState.NONE, f"TLS fails: {error.reason}")
        return TlsFinding(TlsState.VERIFIED)
    finally:
        writer.close()
        with suppress(OSError, ssl.SSLError, TimeoutError):
            await writer.wait_closed()


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: str
) -> tuple[int, set[str]]:
    writer.write(f"{line}\r\n".encode("ascii"))
    await writer.drain()
    return await _reply(reader)


async def _reply(reader: asyncio.StreamReader) -> tuple[int, set[str]]:
    """(code, first word of each line in upper case). Raises EOFError, ValueError."""
    words = set()
    for _ in range(_REPLY_LINES):
        line = (await reader.readuntil(b"\n")).decode("latin-1").rstrip("\r\n")
        words.add(line[4:].partition(" ")[0].upper())
        if line[3:4] != "-":
            return int(line[:3]), words
    raise ValueError("its reply does not end")


def _said(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing within {PATIENCE_S:.0f} s"
    return str(error) or type(error).__name__
