"""Who is talking, and from whom to whom a message goes (RFC 5321 section 2.3.1)."""

from collections.abc import Hashable

from msgspec import Struct


class Peer(Struct, frozen=True):
    """The other end of a session, as known at the moment of the event that carries it.

    `address` is the IP address in text; `hello` what it said in EHLO or HELO; `tls` whether the
    session is encrypted. `user` is who signed in with AUTH, whatever the shell's handler says that
    is; None for nobody.
    """

    address: str
    port: int
    hello: str
    esmtp: bool
    tls: bool
    user: Hashable | None = None


class Envelope(Struct, frozen=True):
    """One mail transaction. An empty `reverse_path` is the null sender `<>`.

    Addresses are as given in MAIL and RCPT, checked against the grammar but not normalised (the
    local part keeps its case). `recipients` are those whose RCPT was answered with 250, in order,
    repeats included. `declared_bytes` is the SIZE parameter (RFC 1870), None when absent.
    """

    peer: Peer
    reverse_path: str
    recipients: tuple[str, ...]
    declared_bytes: int | None
    eight_bit: bool
    smtp_utf8: bool
