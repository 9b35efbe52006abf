"""However the bytes are cut, the session says and stores the same."""

from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st
from smtp_sessions import Driver, one_by_one

from mailyard.protocol.smtp.content import stuffed
from mailyard.protocol.smtp.session import SessionConfig

# Small limits, so that generated sessions reach them.
TIGHT = SessionConfig(
    "mx.example",
    message_bytes=300,
    line_bytes=120,
    command_line_bytes=90,
    recipients_per_message=3,
    errors_per_session=8,
    commands_per_session=40,
)

lines = st.sampled_from(
    [
        *(
            b"EHLO c.example\r\n",
            b"HELO c\r\n",
            b"MAIL FROM:<a@b.example>\r\n",
            b"MAIL FROM:<>\r\n",
        ),
        *(b"RCPT TO:<r@d.example>\r\n", b"RCPT TO:<no@d.example>\r\n", b"DATA\r\n", b".\r\n"),
        *(b"BDAT 5\r\nabcde", b"BDAT 7 LAST\r\nabc\r\n.x", b"BDAT 0 LAST\r\n", b"BDAT 400\r\n"),
        *(b"RSET\r\n", b"NOOP\r\n", b"QUIT\r\n", b"VRFY x\r\n", b"\r\n", b"\n", b"\r", b"\0"),
        *(b"..x\r\n", b"\r\n.\r\n", b"\n.\n", b"\r\n.\n", b"text\r\n", b"x" * 130, b"y" * 200),
    ]
)
sessions = st.lists(lines | st.binary(max_size=12), max_size=25).map(b"".join)


def seen(*pieces: bytes) -> tuple[object, ...]:
    driver = Driver(config=TIGHT)
    said = driver.feed(*pieces)
    stored = [(e.reverse_path, e.recipients, content) for e, content in driver.stored]
    return said, stored, driver.session.state


@settings(max_examples=400, deadline=None)
@given(sessions)
@example(b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<r@d.example>\r\nDATA\r\n.\r\nDATA\r\n")
@example(b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<r@d.example>\r\nDATA\r\n.\r\r\n.\r\nQUIT\r\n")
def test_byte_by_byte_is_as_all_at_once(data: bytes) -> None:
    assert seen(*one_by_one(data)) == seen(data)


@settings(max_examples=200, deadline=None)
@given(sessions, st.lists(st.integers(0, 600), max_size=8))
def test_any_cut_is_as_all_at_once(data: bytes, cuts: list[int]) -> None:
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[a:b] for a, b in pairwise(edges)]
    assert seen(*pieces) == seen(data)


text_lines = st.lists(st.sampled_from([b"", b".", b"..", b".x", b"x.", b"abc", b"\xc3\xa4"]))


@settings(max_examples=200, deadline=None)
@given(text_lines, st.integers(1, 9))
def test_what_a_client_stuffs_arrives_as_it_was(content_lines: list[bytes], size: int) -> None:
    content = b"".join(line + b"\r\n" for line in content_lines)[:300].rpartition(b"\r\n")[0]
    content = content + b"\r\n" if content else b""
    driver = Driver(config=TIGHT)
    driver.feed(b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<r@d.example>\r\nDATA\r\n")
    wire = stuffed(content) + b".\r\n"
    driver.feed(*(wire[at : at + size] for at in range(0, len(wire), size)))
    assert [received for _, received in driver.stored] == [content]
