"""For development: every mail becomes a file in a folder, one a recipient, that any mail program
opens.

A file is named by its delivery id and put in place whole, so a mail that is handed over again
overwrites itself, as a receiver that drops duplicates would. It is durable before it counts as
accepted. What was submitted together is written together, in a thread: one fsync of the folder.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path

import structlog
from msgspec import Struct

from mailyard.core import ids
from mailyard.sending.transport import (
    HANDOFF_REPLY_CHARACTERS,
    Handoff,
    Outcome,
    Outgoing,
    Recipient,
)

_log = structlog.get_logger(__name__)

_AT_ONCE = 200  # files between two fsyncs of the folder


class _Sheet(Struct, eq=False):
    """One recipient's file to be."""

    mail: Outgoing
    recipient: Recipient
    done: Callable[[Handoff], None]


class FileTransport:
    """Writes into `folder`, which is made when absent."""

    def __init__(self, *, name: str, folder: Path) -> None:
        self.name = name
        self._folder = folder
        self._waiting: deque[_Sheet] = deque()
        self._writer: asyncio.Task[None] | None = None

    def submit(self, mail: Outgoing, done: Callable[[Handoff], None]) -> None:
        """See `Transport.submit`."""
        self._waiting.extend(_Sheet(mail, recipient, done) for recipient in mail.recipients)
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(self._write_all())

    async def close(self, drain_s: float) -> None:
        """See `Transport.close`. A write under way is never cut off: its answer would be wrong."""
        if self._writer is not None:
            await asyncio.wait([self._writer], timeout=drain_s)
        waiting, self._waiting = self._waiting, deque()
        for sheet in waiting:
            self._answer(sheet, Outcome.LATER, "shutting down")
        if self._writer is not None:
            await self._writer

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                count = min(_AT_ONCE, len(self._waiting))
                sheets = [self._waiting.popleft() for _ in range(count)]
                try:
                    await asyncio.to_thread(self._write, sheets)
                except OSError as error:
                    _log.error("mail_not_written", folder=str(self._folder), error=str(error))
                    reason = f"cannot be written to {self._folder}: {error.strerror or error}"
                    for sheet in sheets:
                        self._answer(sheet, Outcome.LATER, reason)
                else:
                    for sheet in sheets:
                        self._answer(sheet, Outcome.ACCEPTED, f"id={_name(sheet.recipient)}")
        finally:
            self._writer = None

    def _write(self, sheets: list[_Sheet]) -> None:
        """All of `sheets`, durable on return. Runs in a thread. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for sheet in sheets:
            path = self._folder / _name(sheet.recipient)
            partial = path.with_suffix(f".{os.getpid()}.partial")
            with partial.open("wb") as file:
                file.write(_envelope(sheet))
                file.write(sheet.mail.content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _answer(self, sheet: _Sheet, outcome: Outcome, reply: str) -> None:
        handoff = Handoff(
            sheet.recipient.delivery_id,
            outcome,
            None,
            reply[:HANDOFF_REPLY_CHARACTERS],
            self.name,
            outcome is Outcome.LATER,
        )
        try:
            sheet.done(handoff)
        except Exception as error:
            _log.error("handoff_callback_failed", transport=self.name, exc_info=error)


def _name(recipient: Recipient) -> str:
    return f"{ids.type_id(ids.DELIVERY, recipient.delivery_id)}.eml"


def _envelope(sheet: _Sheet) -> bytes:
    """What final delivery writes above a mail (RFC 5321 section 4.4, RFC 9228)."""
    return (
        f"Return-Path: <{sheet.mail.reverse_path}>\r\nDelivered-To: {sheet.recipient.address}\r\n"
    ).encode()
