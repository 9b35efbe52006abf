"""Mail over real SMTP at a pace: what a burst of senders does to the listener."""

import asyncio
from dataclasses import dataclass

from mailyard.proving.experiments.ledger import Ledger
from mailyard.proving.experiments.pace import Pace
from mailyard.proving.own_platform import Address

CONNECTIONS = 48
_ANSWER_S = 60.0
_AGAIN_S = 0.2
_PARAGRAPH = (
    "<tr><td style='padding:12px 24px;font:15px/1.6 Georgia,serif;color:#222'>"
    "<a href='https://shop.example/offer/{0}'>Offer {0}</a>: what you looked at last week is back, "
    "in three colours, until the weekend. Written by a person, for people who asked for it.</td>"
    "</tr>\r\n"
)


@dataclass(slots=True)
class Counts:
    """So far."""

    accepted: int = 0


class SmtpLoad:
    """Sends the numbers of `pace` to the ledger's inboxes, each until the platform says 250."""

    def __init__(self, address: Address, ledger: Ledger, paragraphs: int) -> None:
        self._address = address
        self._ledger = ledger
        rows = "".join(_PARAGRAPH.format(number) for number in range(paragraphs))
        self._body = (
            "MIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"
            f"<!doctype html><html><body><table>\r\n{rows}</table></body></html>\r\n"
        ).encode()
        self.counts = Counts()

    async def run(self, pace: Pace) -> None:
        """Until the pace is over and everything that was due is promised."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CONNECTIONS):
                tasks.create_task(self._sender(pace))

    async def _sender(self, pace: Pace) -> None:
        line: _Line | None = None
        while (taken := await pace.take()) is not None:
            number, _ = taken
            while True:
                sent = False
                try:
                    line = line or await _Line.open(self._address)
                    code = await line.envelope(self._ledger.address(number))
                    if code == 354:
                        sent = True
                        code = await line.content(self._mail(number))
                except (OSError, EOFError, TimeoutError, ValueError):
                    if sent:
                        self._ledger.doubtful.add(number)
                    line = None
                    await asyncio.sleep(_AGAIN_S)
                    continue
                if code == 250 and sent:
                    break
                line.close()
                line = None
                self._ledger.refused += 1
                await asyncio.sleep(_AGAIN_S)
            self._ledger.promised.add(number)
            self.counts.accepted += 1
        if line is not None:
            line.close()

    def _mail(self, number: int) -> bytes:
        head = (
            f"From: Shop <news@shop.example>\r\nTo: {self._ledger.address(number)}\r\n"
            f"Subject: {self._ledger.subject(number)}\r\n"
            f"Message-ID: <{self._ledger.run}.{number}@shop.example>\r\n"
        )
        return head.encode() + self._body


class _Line:
    """One connection to the listener."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, address: Address) -> "_Line":
        async with asyncio.timeout(_ANSWER_S):
            line = cls(*await asyncio.open_connection(address.smtp_host, address.smtp_port))
            await line._reply()
            line._writer.write(b"EHLO load.shop.example\r\n")
            await line._reply()
        return line

    async def envelope(self, recipient: str) -> int:
        """354, or the first answer that is none; the three commands go in one packet."""
        self._writer.write(
            b"MAIL FROM:<news@shop.example>\r\nRCPT TO:<%b>\r\nDATA\r\n" % recipient.encode()
        )
        async with asyncio.timeout(_ANSWER_S):
            codes = [await self._reply() for _ in range(3)]
        return next((code for code in codes if code != 250), 250)

    async def content(self, mail: bytes) -> int:
        self._writer.write(mail + b".\r\n")
        async with asyncio.timeout(_ANSWER_S):
            return await self._reply()

    async def _reply(self) -> int:
        while True:
            line = await self._reader.readline()
            if not line:
                raise EOFError("the listener hung up")
            if line[3:4] != b"-":
                return int(line[:3])

    def close(self) -> None:
        self._writer.close()
