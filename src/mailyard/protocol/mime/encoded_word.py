"""RFC 2047 encoded words in header values, broken in every way that senders found. Linear."""

import binascii
import re

from mailyard.protocol.mime import charset, transfer

_WORDS = 1_000  # of one value; what follows them stays as it is

# Charset, an RFC 2231 language tag, the encoding. Bounded, so that a search stays linear.
_OPENING = re.compile(r"=\?([^\s?*=]{1,60})(?:\*[^\s?*]{0,40})?\?([bBqQ])\?")


def decode_words(value: str) -> str:
    """`value` with its encoded words as text.

    White space between two encoded words is dropped (RFC 2047 section 6.2). Adjacent words of one
    charset are decoded together, because senders split characters between them.
    """
    opening = _OPENING.search(value)
    if opening is None:
        return value
    out: list[str] = []
    pending: list[bytes] = []
    pending_charset = ""
    position = 0
    words = 0
    while opening is not None and words < _WORDS:
        words += 1
        between = value[position : opening.start()]
        content, position = _content(value, opening)
        label = opening[1].lower()
        if pending and (label != pending_charset or not (between == "" or between.isspace())):
            out.append(charset.decode(b"".join(pending), pending_charset)[0])
            pending.clear()
            if not between.isspace():
                out.append(between)
        elif not pending:
            out.append(between)
        pending.append(_bytes_of(content, opening[2]))
        pending_charset = label
        opening = _OPENING.search(value, position)
    out.append(charset.decode(b"".join(pending), pending_charset)[0])
    out.append(value[position:])
    return "".join(out)


def _content(value: str, opening: re.Match[str]) -> tuple[str, int]:
    """The encoded text after `opening` and where what follows the word begins.

    A word without its `?=` ends where the next one opens, or with the value.
    """
    start = opening.end()
    end = value.find("?=", start)
    after = end + 2
    if end < 0:
        end = after = len(value)
    following = _OPENING.search(value, start, end)
    if following is not None:
        end = after = following.start()
    return value[start:end], after


def _bytes_of(content: str, encoding: str) -> bytes:
    raw = content.encode("utf-8", "surrogateescape")
    if encoding in "bB":
        return transfer.undo_base64(raw)[0]
    return binascii.a2b_qp(raw.replace(b"\r", b"").replace(b"\n", b""), header=True)
