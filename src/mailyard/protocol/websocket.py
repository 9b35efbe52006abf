"""The frames of a WebSocket, as a server reads and writes them (RFC 6455), without a socket.

What a client says comes in as bytes, cut wherever the network cut it, and comes out as whole
messages and control frames. What goes out is made by `frame` and `close_frame`: a server's frames
are not masked (section 5.1), so one frame serves everybody who hears the same.

No extension is spoken: nothing is ever compressed. A reader that waits holds nothing.
"""

from typing import Final, NamedTuple

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

# Why a connection is closed (section 7.4.1, and IANA's registry for 1012 and 1013).
NORMAL: Final = 1000
PROTOCOL_ERROR: Final = 1002
NO_STATUS: Final = 1005  # never on the wire: the close frame was empty
UNREADABLE: Final = 1007
POLICY: Final = 1008
TOO_BIG: Final = 1009
SERVICE_RESTART: Final = 1012
TRY_AGAIN: Final = 1013

CONTROL_BYTES = 125  # section 5.5
_FIN, _RESERVED, _OPCODE, _MASKED, _SIZE = 0x80, 0x70, 0x0F, 0x80, 0x7F
_MASK_BYTES = 4
# Codes that an endpoint may send (section 7.4.2): these, and 3000 to 4999.
_SENT_CODES = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})


class Said(NamedTuple):
    """What a client said: TEXT or BINARY with the whole message, or a control frame."""

    opcode: int
    payload: bytes

    @property
    def close_code(self) -> int:
        """Of a CLOSE: the client's reason, NO_STATUS when it gave none."""
        return int.from_bytes(self.payload[:2], "big") if self.payload else NO_STATUS


class SocketFault(ValueError):
    """What no client may send. `code` is what the connection is closed with."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


def frame(opcode: int, payload: bytes) -> bytes:
    """One whole frame from a server (section 5.2)."""
    size = len(payload)
    if size < 126:
        return bytes((_FIN | opcode, size)) + payload
    if size < 1 << 16:
        return bytes((_FIN | opcode, 126)) + size.to_bytes(2, "big") + payload
    return bytes((_FIN | opcode, 127)) + size.to_bytes(8, "big") + payload


def close_frame(code: int) -> bytes:
    """The last frame, without a reason in words (section 5.5.1)."""
    return frame(CLOSE, code.to_bytes(2, "big"))


class FrameReader:
    """Cuts what a client sends into `Said`. No message may have more than `most_bytes`.

    After a fault and after a CLOSE nothing more is read.
    """

    __slots__ = ("_held", "_kind", "_message", "_most_bytes", "_over")

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._held: bytearray | None = None  # the beginning of a frame
        self._message: bytearray | None = None  # the fragments of a message so far
        self._kind = CONTINUATION  # what that message is
        self._over = False

    def feed(self, piece: bytes) -> list[Said]:
        """What `piece` completes, in order; a fragment of a message completes nothing.

        Raises SocketFault. What was whole before the fault is lost with it, as the connection is.
        """
        if self._over:
            return []
        if self._held is None:
            held = bytearray(piece)
        else:
            held = self._held
            held += piece
        found: list[Said] = []
        at = 0
        try:
            while not self._over and (size := self._next_size(held, at)):
                said = self._take(held, at, size)
                at += size
                if said is not None:
                    found.append(said)
        except SocketFault:
            self._over = True
            raise
        finally:
            del held[:at]
            self._held = held if held and not self._over else None
        return found

    def _next_size(self, held: bytearray, at: int) -> int:
        """How many bytes the frame at `at` has, its head included; 0: it is not all there."""
        have = len(held) - at
        if have < 2:
            return 0
        first, second = held[at], held[at + 1]
        self._check_head(first, second)
        size, head = second & _SIZE, 2
        if size > 125:
            head += 2 if size == 126 else 8
            if have < head:
                return 0
            least = 126 if size == 126 else 1 << 16
            size = int.from_bytes(held[at + 2 : at + head], "big")
            if size < least or size >> 63:  # section 5.2: the shortest form, and no sign
                raise SocketFault(PROTOCOL_ERROR, "a size in the wrong form")
        before = len(self._message or b"") if first & _OPCODE < CLOSE else 0
        if size + before > self._most_bytes:
            raise SocketFault(TOO_BIG, f"a message has at most {self._most_bytes} bytes")
        whole = head + _MASK_BYTES + size
        return whole if have >= whole else 0

    def _check_head(self, first: int, second: int) -> None:
        opcode = first & _OPCODE
        if first & _RESERVED:
            raise SocketFault(PROTOCOL_ERROR, "an extension that was not agreed on")
        if not second & _MASKED:
            raise SocketFault(PROTOCOL_ERROR, "a client masks its frames")  # section 5.1
        if opcode >= CLOSE:
            if opcode > PONG:
                raise SocketFault(PROTOCOL_ERROR, "no such frame")
            if not first & _FIN or second & _SIZE > CONTROL_BYTES:  # section 5.5
                raise SocketFault(PROTOCOL_ERROR, "a control frame is short and whole")
        elif opcode > BINARY:
            raise SocketFault(PROTOCOL_ERROR, "no such frame")
        elif (opcode == CONTINUATION) != (self._message is not None):  # section 5.4
            raise SocketFault(PROTOCOL_ERROR, "fragments of a message come one after the other")

    def _take(self, held: bytearray, at: int, size: int) -> Said | None:
        """The frame of `size` bytes at `at`, unless it is a fragment."""
        first, short = held[at], held[at + 1] & _SIZE
        head = 2 if short < 126 else 4 if short == 126 else 10
        mask = held[at + head : at + head + _MASK_BYTES]
        payload = _unmasked(held[at + head + _MASK_BYTES : at + size], mask)
        opcode = first & _OPCODE
        if opcode >= CLOSE:
            if opcode == CLOSE:
                _check_close(payload)
                self._over = True
            return Said(opcode, payload)
        if opcode != CONTINUATION:
            self._kind = opcode
        if not first & _FIN:
            self._message = bytearray(payload) if self._message is None else self._message
            if opcode == CONTINUATION:
                self._message += payload
            return None
        if self._message is not None:
            payload = bytes(self._message) + payload
            self._message = None
        if self._kind == TEXT:
            _check_text(payload)
        return Said(self._kind, payload)


def _unmasked(payload: bytearray, mask: bytearray) -> bytes:
    """Section 5.3: each byte XOR the mask's byte at its place, all at once as one large number."""
    size = len(payload)
    key = (bytes(mask) * (size // _MASK_BYTES + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def _check_close(payload: bytes) -> None:
    if not payload:
        return
    code = int.from_bytes(payload[:2], "big")
    if len(payload) < 2 or not (code in _SENT_CODES or 3000 <= code <= 4999):
        raise SocketFault(PROTOCOL_ERROR, "no such code")
    _check_text(payload[2:])


def _check_text(payload: bytes) -> None:
    try:
        payload.decode()
    except UnicodeDecodeError:
        raise SocketFault(UNREADABLE, "a text is UTF-8") from None  # section 8.1
