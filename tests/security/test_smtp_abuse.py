"""Peers that want our memory, our time or our places get neither."""

import asyncio
import tracemalloc

import pytest
from smtp_sessions import Driver, codes_of, greeted
from smtp_wire import NotingHandler, Wire, listening, until

from mailyard.core import limits
from mailyard.protocol.smtp.content import END_OF_DATA, ContentReceiver
from mailyard.protocol.smtp.session import SessionConfig
from mailyard.receiving.listener import ListenerLimits

ENVELOPE = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"
SESSION = b"EHLO c.example\r\n" + ENVELOPE + b"DATA\r\nhello\r\n..\r\n.\r\nQUIT\r\n"


def peak_bytes_of(driver: Driver, piece: bytes, times: int) -> int:
    tracemalloc.start()
    try:
        driver.feed(*(piece for _ in range(times)))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_endless_data_is_cut_and_never_held() -> None:
    driver = greeted(config=SessionConfig("mx.example", message_bytes=100_000))
    driver.feed(ENVELOPE + b"DATA\r\n")
    assert peak_bytes_of(driver, b"x" * 9_998 + b"\r\n", 1000) < 1_000_000
    assert driver.said.endswith(b"552 5.3.4 Message without end\r\n")
    assert driver.session.closed


def test_an_endless_command_is_cut_and_never_held() -> None:
    driver = greeted()
    assert peak_bytes_of(driver, b"x" * 1000, 1000) < 100_000
    assert driver.said.endswith(b"500 5.5.6 Command line too long\r\n")
    assert driver.session.closed


def test_a_line_of_a_megabyte_is_taken_and_a_longer_one_refused() -> None:
    for length, code in (
        (limits.SMTP_TEXT_LINE_BYTES, 250),
        (limits.SMTP_TEXT_LINE_BYTES + 1, 550),
    ):
        driver = greeted()
        line = b"x" * (length - 2) + b"\r\n"
        assert driver.codes(ENVELOPE + b"DATA\r\n", line + b".\r\n")[-1] == code


def test_ten_thousand_recipients_are_answered_and_a_thousand_taken() -> None:
    driver = greeted()
    many = b"".join(b"RCPT TO:<r%d@d.example>\r\n" % n for n in range(10_000))
    codes = driver.codes(b"MAIL FROM:<>\r\n" + many + b"DATA\r\n", b"x\r\n.\r\n")
    assert codes == [250] + [250] * 1000 + [452] * 9000 + [354, 250]
    assert len(driver.stored[0][0].recipients) == 1000


def test_nul_in_content_is_kept_and_in_commands_refused() -> None:
    driver = greeted()
    assert driver.codes(b"NO\0OP\r\n" + ENVELOPE + b"DATA\r\n", b"a\0b\r\n.\r\n") == [
        *(500, 250, 250, 354, 250)
    ]
    assert driver.stored[0][1] == b"a\0b\r\n"


@pytest.mark.parametrize(
    "hostile",
    [
        b"MAIL FROM:<" + b'"' * 2000,
        b"MAIL FROM:<" + b"\\" * 2000 + b">",
        b"MAIL FROM:<" + b"@a," * 600 + b"a@b>",
        b"MAIL FROM:<a@b.c> x" + b" " * 2000 + b"y",
        b"RCPT TO:<" + b"a." * 900 + b"@" + b"b-" * 80,
    ],
)
@pytest.mark.timeout(20)  # a guard: with backtracking each of these takes minutes
def test_no_command_line_costs_more_than_its_length(hostile: bytes) -> None:
    driver = greeted(config=SessionConfig("mx.example", errors_per_session=10_000))
    codes = driver.codes(*[hostile[:2040] + b"\r\n"] * 200)
    assert len(codes) == 200
    assert set(codes) <= {501, 503, 553, 555}


@pytest.mark.timeout(20)  # a guard: searching from the start each time takes minutes
def test_finding_the_end_is_linear_however_it_drips() -> None:
    receiver = ContentReceiver(10 * limits.MIB)
    for _ in range(400_000):
        assert receiver.feed_data(b"\r\n.x", 0) == (None, 4)
    content, at = receiver.feed_data(END_OF_DATA + b"QUIT", 0)
    assert content is not None
    assert (len(content), at) == (1_200_002, 5)  # a dot less in each of its lines


@pytest.mark.parametrize("cut", range(len(SESSION) + 1))
async def test_a_disconnect_at_any_byte_stores_whole_messages_only(cut: int) -> None:
    handler = NotingHandler()
    async with listening(handler) as listener:
        wire = await Wire.open(listener.port)
        wire.writer.write(SESSION[:cut])
        wire.writer.close()
        await until(lambda: not listener.connections and listener.waiting_messages == 0)
        whole = SESSION.index(b"\r\n.\r\n") + 5
        assert [content for _, content in handler.stored] in (
            [[b"hello\r\n.\r\n"]] if cut >= whole else [[]]
        )


async def test_a_dictionary_attack_is_cut_off() -> None:
    handler = NotingHandler()
    async with listening(handler) as listener:
        wire = await Wire.open(listener.port)
        await wire.hello()
        guesses = b"".join(b"RCPT TO:<no%d@d.example>\r\n" % n for n in range(50))
        wire.writer.write(b"MAIL FROM:<a@b.example>\r\n" + guesses)
        said = codes_of(await wire.rest())
        assert said == [250] + [550] * limits.SMTP_ERRORS_PER_SESSION + [421]
        assert len(handler.peers) == limits.SMTP_ERRORS_PER_SESSION


async def test_garbage_from_many_peers_leaves_nothing_behind() -> None:
    handler = NotingHandler()
    async with listening(handler, ListenerLimits(command_timeout_s=1)) as listener:
        wires = [await Wire.open(listener.port) for _ in range(50)]
        for number, wire in enumerate(wires):
            wire.writer.write(bytes((number * 7 + n * n) % 256 for n in range(5000)))
        await asyncio.gather(*(wire.rest() for wire in wires))
        await until(lambda: not listener.connections and not listener.per_address)
        assert not handler.stored
