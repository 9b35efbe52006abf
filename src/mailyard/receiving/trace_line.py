"""The line that we put before a mail that we take: from whom, how, when (RFC 5321 section 4.4)."""

import re
from functools import lru_cache

from mailyard.protocol.smtp.envelope import Peer

_PLAIN_HELLO = re.compile(r"[A-Za-z0-9.:_\[\]-]{1,255}")


@lru_cache(maxsize=1024)  # a session sends many messages
def trace_head(peer: Peer, smtp_utf8: bool, hostname: str) -> str:
    """The trace line as far as all messages of a session share it."""
    return (
        f"Received: from {_trace_word(peer.hello)} ([{_literal(peer.address)}])\r\n"
        f"\tby {hostname} with {_protocol_name(peer, smtp_utf8)}"
    )


def _protocol_name(peer: Peer, smtp_utf8: bool) -> str:
    """The `with` of the trace line (RFC 3848, and RFC 6531 section 4.3)."""
    if not peer.esmtp:
        return "SMTP"
    name = "UTF8SMTP" if smtp_utf8 else "ESMTP"
    return name + "S" if peer.tls else name


def _literal(address: str) -> str:
    """An address literal's inside (RFC 5321 section 4.1.3)."""
    return f"IPv6:{address}" if ":" in address else address


def _trace_word(hello: str) -> str:
    """What the peer said in EHLO, where it is harmless in a header line."""
    return hello if _PLAIN_HELLO.fullmatch(hello) else "unknown"
