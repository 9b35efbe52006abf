"""What a pool asks of the transport that it belongs to."""

import asyncio
from collections.abc import Coroutine
from datetime import datetime
from random import Random
from typing import Protocol

from msgspec import Struct

from mailyard.protocol.smtp.client_mail import Verdict
from mailyard.sending.transports.mx.memory import Memory
from mailyard.sending.transports.mx.parcel import Parcel
from mailyard.sending.transports.mx.secure import Security, TlsCounts


class MxOptions(Struct, frozen=True):
    """How to talk to mail servers. Times in seconds.

    `port`: 25 but in tests. `pipeline` and `reply_timeout_s` as in `SmtpOptions`. `patience_s`: how
    long mails wait for a connection before they go back to their queue; `turn_s`: for their turn.
    `connections_max`: of the whole process; well below it idle ones are let go of early.
    """

    port: int = 25
    pipeline: int = 8
    idle_s: float = 10.0
    connect_timeout_s: float = 30.0
    reply_timeout_s: float = 600.0
    patience_s: float = 3.0
    turn_s: float = 1.0
    connections_max: int = 2_000


class Yard(Protocol):
    """The transport, as its pools see it. `slow`: sites that let us wait and answer in the end;
    `clear`: addresses whose TLS has failed; by the loop's clock."""

    options: MxOptions
    security: Security
    tls_counts: TlsCounts | None
    random: Random
    slow: Memory
    clear: Memory

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...

    def now(self) -> datetime: ...

    def may_open(self, key: str) -> bool:
        """Whether one more connection to the place of `key` may be opened now."""
        ...

    def starved(self, key: str) -> None:
        """Mails wait, and other pools have all connections of `key`."""
        ...

    def freed(self, key: str) -> None:
        """A connection has ended, or could not be made."""
        ...

    def answered(self, parcel: Parcel, verdict: Verdict, where: str) -> None:
        """The answer for a mail of a turn, by the peer `where`."""
        ...

    def again(self, parcel: Parcel) -> None:
        """A mail of a turn that a peer has not begun: it takes its turn again."""
        ...

    def handed_back(self, parcels: list[Parcel], key: str, why: str) -> None:
        """Mails of a turn of which nothing has left, and which are not to wait here."""
        ...

    def run(self, work: Coroutine[None, None, None]) -> None:
        """Do `work` beside, until it ends or the transport is closed."""
        ...
