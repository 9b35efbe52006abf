"""Reading a server's replies (RFC 5321 section 4.2), of whatever quality, within bounds."""

from msgspec import Struct

from mailyard.core import limits
from mailyard.core.errors import MailyardError

_LAST_LINES = {b"%d " % code: code for code in range(200, 600)}


class BrokenReply(MailyardError):
    """What came is not an SMTP reply. The session cannot go on."""

    code = "smtp_broken_reply"
    status = 502
    retryable = True


class PeerReply(Struct, frozen=True):
    """One reply. `raw` is its text as sent, the lines of a long one joined by LF, codes removed."""

    code: int
    raw: bytes

    @property
    def text(self) -> str:
        """The text on one line, printable, enhanced code included."""
        text = self.raw.decode("utf-8", "replace")
        if text.isprintable():
            return text
        return " ".join("".join(c if c.isprintable() else " " for c in text).split())


class ReplyReader:
    """Cuts the peer's bytes into replies. Memory is bounded by limits.SMTP_REPLY_BYTES."""

    __slots__ = ("_lines", "_lines_bytes", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._lines: list[bytes] = []
        self._lines_bytes = 0

    @property
    def unread(self) -> bool:
        """Part of a reply is here, its end is not."""
        return bool(self._rest or self._lines)

    def feed(self, data: bytes) -> list[PeerReply]:
        """The replies that `data` completes. Raises BrokenReply."""
        lines = (self._rest + data if self._rest else data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > limits.SMTP_REPLY_LINE_BYTES:
            raise BrokenReply("reply line too long")
        replies: list[PeerReply] = []
        for line in lines:
            whole = _LAST_LINES.get(line[:4])
            if whole is not None and not self._lines:
                replies.append(PeerReply(whole, line[4:].removesuffix(b"\r")))
                continue
            code = line[:3]
            mark = line[3:4]
            if not code.isdigit() or not b"200" <= code <= b"599":
                raise BrokenReply(f"not a reply: {_shown(line)}")
            if mark in (b" ", b"-", b"\r", b""):
                self._gather(line[4:].removesuffix(b"\r"), line)
                if mark != b"-":
                    replies.append(PeerReply(int(code), b"\n".join(self._lines)))
                    self._lines = []
                    self._lines_bytes = 0
            else:
                raise BrokenReply(f"not a reply: {_shown(line)}")
        return replies

    def _gather(self, text: bytes, line: bytes) -> None:
        self._lines_bytes += len(line)
        if self._lines_bytes > limits.SMTP_REPLY_BYTES or len(line) > limits.SMTP_REPLY_LINE_BYTES:
            raise BrokenReply("reply too long")
        self._lines.append(text)


def _shown(line: bytes) -> str:
    return repr(line[:60])[1:]
