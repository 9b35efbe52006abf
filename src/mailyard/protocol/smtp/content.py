"""The bytes of a message on the wire: dot-stuffing and the one true end (RFC 5321 4.5.2, 4.1.1.4).

Only CR LF . CR LF ends a message. Anything that another server might take for it (bare LF, bare
CR) makes the whole message refused, so that nothing can be smuggled through us (VU#302671).
Finding the end is linear in the bytes, however they arrive.
"""

from enum import Enum
from io import IncrementalNewlineDecoder

END_OF_DATA = b"\r\n.\r\n"


class Fault(Enum):
    """Why received content cannot be taken."""

    TOO_LARGE = "too large"
    LINE_TOO_LONG = "line too long"
    BARE_LINE_END = "bare line end"


def has_bare_line_end(content: bytes) -> bool:
    """A CR without LF, or an LF without CR.

    The decoder only notes which line ends there are; it needs a quarter of the time that counting
    each kind takes.
    """
    seen = IncrementalNewlineDecoder(None, translate=False)
    seen.decode(content.decode("latin-1"), final=True)
    return seen.newlines not in (None, "\r\n")


def has_line_over(content: bytes, line_bytes: int) -> bool:
    """Some line, its end included, is longer than `line_bytes`. Looks only where it must."""
    start = 0
    while len(content) - start > line_bytes:
        newline = content.rfind(b"\n", start, start + line_bytes)
        if newline < 0:
            return True
        start = newline + 1
    return False


def stuffed(content: bytes) -> bytes:
    """`content` with dots doubled at line starts, ready to be written before the final dot."""
    if b"\r\n." in content:
        content = content.replace(b"\r\n.", b"\r\n..")
    return b"." + content if content.startswith(b".") else content


def with_last_line_end(content: bytes) -> bytes:
    """`content` as it goes over the wire: a last line is ended where it is not."""
    return content if not content or content.endswith(b"\r\n") else content + b"\r\n"


def unstuffed(content: bytes) -> bytes:
    """The reverse: one leading dot of each line taken away."""
    if b"\r\n." in content:
        content = content.replace(b"\r\n.", b"\r\n")
    return content[1:] if content.startswith(b".") else content


class ContentReceiver:
    """Gathers one message, by DATA or by BDAT, within `message_bytes`.

    What goes beyond is counted and dropped, never held.
    """

    __slots__ = ("_held", "_message_bytes", "_scanned", "dropped_bytes")

    def __init__(self, message_bytes: int) -> None:
        self._message_bytes = message_bytes
        self._held = bytearray()
        self._scanned = 0
        self.dropped_bytes = 0

    def feed_data(self, data: bytes, at: int) -> tuple[bytes | None, int]:
        """Take `data` from `at`. Returns (content without its stuffing, position after the final
        dot), or (None, len(data)) while the end has not come."""
        held = self._held
        if not held and not self.dropped_bytes:
            if data.startswith(b".\r\n", at):
                return b"", at + 3
            dot = data.find(b"\r\n.", at)
            if data.startswith(END_OF_DATA, dot) and dot >= 0:  # no line was stuffed but the first
                return data[at + 1 if data.startswith(b".", at) else at : dot + 2], dot + 5
            end = data.find(END_OF_DATA, dot) if dot >= 0 else -1
            if end >= 0:
                return unstuffed(data[at : end + 2]), end + 5
        held += data[at:] if at else data
        if len(held) >= 3 and held.startswith(b".\r\n") and not self.dropped_bytes:
            return b"", len(data) - (len(held) - 3)
        end = held.find(END_OF_DATA, self._scanned)
        if end >= 0:
            with memoryview(held) as view:
                content = unstuffed(bytes(view[: end + 2]))
            return content, len(data) - (len(held) - end - 5)
        self._scanned = max(0, len(held) - 4)
        if len(held) > self._message_bytes + 2 * len(END_OF_DATA):
            self._drop()
        return None, len(data)

    def feed_chunk(self, data: bytes, *, last: bool) -> bytes | None:
        """Octets of a BDAT chunk; with the `last` of them all octets of all chunks."""
        held = self._held
        if self.dropped_bytes or len(held) + len(data) > self._message_bytes:
            self.dropped_bytes += len(held) + len(data)
            held.clear()
        elif last and not held:
            return data
        else:
            held += data
        return bytes(held) if last else None

    def _drop(self) -> None:
        keep = len(END_OF_DATA) - 1
        self.dropped_bytes += len(self._held) - keep
        del self._held[:-keep]
        self._scanned = 0


def fault_in(content: bytes, line_bytes: int) -> Fault | None:
    """What forbids taking received `content`, or None."""
    if has_line_over(content, line_bytes):
        return Fault.LINE_TOO_LONG
    return Fault.BARE_LINE_END if has_bare_line_end(content) else None
