"""Replies (RFC 5321 section 4.2) with enhanced status codes (RFC 2034, RFC 3463)."""

from msgspec import Struct


class Reply(Struct, frozen=True):
    """One reply of the server. `enhanced` may be empty (greeting, HELO, 354: RFC 2034 section 4).

    Each line of `text` becomes one line of the reply; characters that are not printable ASCII are
    sent as "?", so that nothing that a peer wrote can forge a line of ours.
    """

    code: int
    enhanced: str
    text: str

    @property
    def accepted(self) -> bool:
        """2yz or 3yz: the command was taken (RFC 5321 section 4.2.1)."""
        return self.code < 400

    def encode(self) -> bytes:
        """The reply as it goes over the wire, CRLF included."""
        text = self.text
        prefix = f"{self.enhanced} " if self.enhanced else ""
        if text.isascii() and text.isprintable():
            return f"{self.code} {prefix}{text}\r\n".encode("ascii")
        lines = [_printable(line) for line in text.split("\n")]
        head = "".join(f"{self.code}-{prefix}{line}\r\n" for line in lines[:-1])
        return f"{head}{self.code} {prefix}{lines[-1]}\r\n".encode("ascii")


def _printable(line: str) -> str:
    return "".join(c if " " <= c <= "~" else "?" for c in line)
