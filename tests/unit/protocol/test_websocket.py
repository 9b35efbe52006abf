"""Frames of a WebSocket: the examples of RFC 6455, every rule for clients, any cut of the bytes."""

from random import Random

import pytest

from mailyard.protocol.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    NO_STATUS,
    PING,
    PONG,
    TEXT,
    FrameReader,
    Said,
    SocketFault,
    close_frame,
    frame,
)

MOST = 70_000
MASK = bytes.fromhex("37fa213d")


def masked(opcode: int, payload: bytes = b"", *, fin: bool = True, mask: bytes = MASK) -> bytes:
    """A client's frame."""
    head = bytearray(frame(opcode, payload)[: -len(payload) or None])
    head[0] ^= 0 if fin else 0x80
    head[1] |= 0x80
    covered = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return bytes(head) + mask + covered


def read(data: bytes, most: int = MOST) -> list[Said]:
    return FrameReader(most).feed(data)


def fault(data: bytes, most: int = MOST) -> int:
    with pytest.raises(SocketFault) as caught:
        read(data, most)
    return caught.value.code


def test_the_examples_of_the_rfc() -> None:  # section 5.7
    assert frame(TEXT, b"Hello") == bytes.fromhex("810548656c6c6f")
    assert read(bytes.fromhex("818537fa213d7f9f4d5158")) == [Said(TEXT, b"Hello")]
    assert read(bytes.fromhex("898537fa213d7f9f4d5158")) == [Said(PING, b"Hello")]
    assert frame(BINARY, bytes(256))[:4] == bytes.fromhex("827e0100")
    assert frame(BINARY, bytes(1 << 16))[:10] == bytes.fromhex("827f0000000000010000")


@pytest.mark.parametrize("size", [0, 1, 3, 125, 126, 127, 65_535, 65_536, MOST])
def test_every_form_of_a_size_is_read(size: int) -> None:
    payload = bytes(at % 251 for at in range(size))
    assert read(masked(BINARY, payload)) == [Said(BINARY, payload)]


def test_however_the_bytes_are_cut_the_same_is_read() -> None:
    data = (
        masked(TEXT, "Grüße".encode())
        + masked(TEXT, b"one ", fin=False)
        + masked(PING, b"between")
        + masked(CONTINUATION, b"two ", fin=False)
        + masked(CONTINUATION, b"three")
        + masked(BINARY, bytes(300))
        + masked(PONG)
        + masked(CLOSE, (1000).to_bytes(2, "big") + b"bye")
    )
    whole = read(data)
    assert [one.opcode for one in whole] == [TEXT, PING, TEXT, BINARY, PONG, CLOSE]
    assert whole[2].payload == b"one two three"
    random = Random(6455)
    cuts = [[1] * len(data)] + [
        [random.randint(1, 40) for _ in range(len(data))] for _ in range(30)
    ]
    for sizes in cuts:
        reader, found, at = FrameReader(MOST), [], 0
        for size in sizes:
            found += reader.feed(data[at : at + size])
            at += size
        assert found == whole


def test_a_text_may_be_cut_within_a_character() -> None:
    euro = "€".encode()
    data = masked(TEXT, euro[:1], fin=False) + masked(CONTINUATION, euro[1:])
    assert read(data) == [Said(TEXT, euro)]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"not masked"), 1002),
        (bytes((0xC1, 0x80)), 1002),  # a reserved bit
        (masked(0x3), 1002),
        (masked(0xB), 1002),
        (masked(CONTINUATION, b"of nothing"), 1002),
        (masked(TEXT, b"a", fin=False) + masked(TEXT, b"b"), 1002),
        (masked(PING, b"", fin=False), 1002),
        (bytes((0x89, 0xFE)), 1002),  # a long ping, seen by its first bytes
        (bytes((0x81, 0xFE, 0, 125)), 1002),  # not the shortest form
        (bytes((0x81, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF)), 1002),
        (bytes((0x81, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0)), 1002),
        (masked(CLOSE, b"\x03"), 1002),
        (masked(CLOSE, (1005).to_bytes(2, "big")), 1002),
        (masked(CLOSE, (2999).to_bytes(2, "big")), 1002),
        (masked(CLOSE, (1000).to_bytes(2, "big") + b"\xff"), 1007),
        (masked(TEXT, b"\xff"), 1007),
        (masked(TEXT, b"ok ", fin=False) + masked(CONTINUATION, b"\xe2"), 1007),
    ],
)
def test_what_no_client_may_send_closes_the_connection(data: bytes, code: int) -> None:
    assert fault(data) == code


def test_a_message_that_is_too_big_is_refused_by_its_first_bytes() -> None:
    assert fault(bytes((0x82, 0xFE)) + (201).to_bytes(2, "big"), most=200) == 1009
    begun = masked(BINARY, bytes(160), fin=False)
    assert fault(begun + bytes((0x80, 0x80 | 41)), most=200) == 1009
    rest = masked(PING, bytes(125)) + masked(CONTINUATION, bytes(40))
    assert [one.opcode for one in read(begun + rest, most=200)] == [PING, BINARY]


def test_nothing_is_read_after_a_fault_or_a_goodbye() -> None:
    reader = FrameReader(MOST)
    [goodbye] = reader.feed(masked(CLOSE, (1001).to_bytes(2, "big")) + masked(TEXT, b"more"))
    assert (goodbye.opcode, goodbye.close_code) == (CLOSE, 1001)
    assert reader.feed(masked(TEXT, b"and more")) == []
    assert Said(CLOSE, b"").close_code == NO_STATUS
    broken = FrameReader(MOST)
    with pytest.raises(SocketFault):
        broken.feed(frame(TEXT, b"x"))
    assert broken.feed(masked(TEXT, b"x")) == []


def test_a_last_frame_says_its_code() -> None:
    assert close_frame(1013) == bytes((0x80 | CLOSE, 2)) + (1013).to_bytes(2, "big")
