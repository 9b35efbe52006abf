"""One connection to an MX: which host, how it is encrypted, how many mails it has had."""

import asyncio
from collections.abc import Callable

from mailyard.protocol.mx import Target
from mailyard.protocol.smtp.client import ClientSession
from mailyard.protocol.smtp.client_mail import ClientMail, SessionEnded
from mailyard.sending.transports.mx.secure import Demand, Manner
from mailyard.sending.transports.smtp_connection import Connection, Owner, Patience


class Line(Connection):
    """`opened`: None once EHLO is done; what ended it when it never came so far."""

    def __init__(
        self,
        owner: Owner,
        loop: asyncio.AbstractEventLoop,
        patience: Patience,
        hello: str,
        take_mail: Callable[["Line"], ClientMail | None],
        target: Target,
        demand: Demand,
        manner: Manner,
        pipeline: int,
    ) -> None:
        session = ClientSession(
            hello, lambda: take_mail(self), demand.starttls(manner), pipeline=pipeline
        )
        super().__init__(owner, loop, session, patience)
        self.target = target
        self.demand = demand
        self.manner = manner
        self.encrypted = ""  # the protocol's version
        self.tls_problem: tuple[str, str] | None = None  # what is wrong, how it is counted
        self.mails = 0
        self.said_421 = False
        self.opened: asyncio.Future[SessionEnded | None] = loop.create_future()

    @property
    def peer(self) -> str:
        """Whom the mail was given to, for its history."""
        secured = f", {self.encrypted}" if self.encrypted else ", not encrypted"
        verified = self.manner in (Manner.VERIFY, Manner.DANE) and bool(self.encrypted)
        return f"{self.where}{secured}{' and verified' if verified else ''}"

    @property
    def where(self) -> str:
        name = self.target.host.name
        return f"{name} [{self.target.address}]"
