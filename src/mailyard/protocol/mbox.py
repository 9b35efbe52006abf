"""Mailboxes in one file (RFC 4155, and the `mboxrd` way of quoting), as a stream in and out.

A mail begins at a `From ` line that bears a time, or has nothing but an address or the dash of
Netscape; some writers leave no blank line before it. In a body `From ` is quoted with `>`, and what
was quoted already gets one more, so that reading gives back what was written. A reader holds one
mail and what it was fed last, whatever the file's size.
"""

import re
from datetime import datetime
from typing import NamedTuple

_FROM = re.compile(
    rb"^From (?:- *\r?$|\S{1,200}@\S{1,200}\r?$|[^\r\n]{0,200}?\d{1,2}:\d{2})", re.MULTILINE
)
_QUOTED = re.compile(rb"^>(?=>*From )", re.MULTILINE)
_TO_QUOTE = re.compile(rb"^(?=>*From )", re.MULTILINE)
_LONGEST_FROM = 1_024  # bytes of a `From ` line that may be cut in two by the feeding


class MboxMail(NamedTuple):
    """The `number`-th mail of a file, from 1; `raw` is None when it is over the limit."""

    number: int
    raw: bytes | None


class MboxReader:
    """Cuts a file that comes in pieces into its mails; none may have more than `most_bytes`."""

    __slots__ = ("_begun", "_held", "_most_bytes", "_number", "_scanned", "_too_large")

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._held = bytearray()
        self._scanned = 0  # of what is held, how much is known to begin no further mail
        self._begun = False
        self._too_large = False
        self._number = 0

    def feed(self, piece: bytes) -> list[MboxMail]:
        """The mails that `piece` completes."""
        mails: list[MboxMail] = []
        self._held += piece
        edge = self._held.rfind(b"\n") + 1  # a line that is not whole is looked at later
        if len(self._held) - edge > _LONGEST_FROM:
            edge = len(self._held)
        while (found := _FROM.search(self._held, self._scanned, edge)) is not None:
            if not self._is_line_start(found.start()):
                self._scanned = found.end()
                continue
            mails += self._cut(found.start())
            edge -= found.start() + self._drop_line()
            self._scanned = 0
            self._begun = True
        self._scanned = max(self._scanned, edge)
        if len(self._held) > self._most_bytes + _LONGEST_FROM:
            self._too_large = True
            del self._held[: len(self._held) - _LONGEST_FROM]
            self._scanned = min(self._scanned, len(self._held))
        return mails

    def close(self) -> list[MboxMail]:
        """What the end of the file completes."""
        mails = self.feed(b"\n") if self._held and self._held[-1] != 10 else []
        return mails + self._cut(len(self._held))

    def _drop_line(self) -> int:
        """Forget the first line; how many bytes it had."""
        size = self._held.find(b"\n") + 1 or len(self._held)
        del self._held[:size]
        return size

    def _is_line_start(self, position: int) -> bool:
        return position == 0 or self._held[position - 1] == 10

    def _cut(self, end: int) -> list[MboxMail]:
        """The mail that ends at `end` of what is held, if one has begun."""
        raw = bytes(self._held[:end])
        del self._held[:end]
        too_large, self._too_large = self._too_large, False
        if not self._begun:  # what stands before the first `From ` line is no mail
            return []
        self._number += 1
        if raw.endswith((b"\n\n", b"\n\r\n")):  # the blank line belongs to the file
            raw = raw[:-2] if raw.endswith(b"\r\n") else raw[:-1]
        if too_large or len(raw) > self._most_bytes:
            return [MboxMail(self._number, None)]
        return [MboxMail(self._number, _QUOTED.sub(b"", raw))]


def mbox_entry(raw: bytes, sender: str, received_at: datetime) -> bytes:
    """One mail as it stands in a file: `From ` line, the quoted mail with LF ends, blank line."""
    moment = received_at.strftime("%a %b %d %H:%M:%S %Y")  # of UTC, as RFC 4155 wants
    address = "".join(sender.split()) or "MAILER-DAEMON"
    body = _TO_QUOTE.sub(b">", raw.replace(b"\r\n", b"\n"))
    end = b"\n" if body.endswith(b"\n") else b"\n\n"
    return b"From %s %s\n%s%s" % (address.encode("utf-8", "replace"), moment.encode(), body, end)
