"""RFC 2047 encoded words in header values, broken in every way that senders found. Linear."""

import binascii
import re
from collections.abc import Iterator

from mailyard.protocol.mime import charset, transfer

_PLAIN_PIECES = 400  # four of a word
_MARK = "\ufeff"
_WORDS = 1_000  # of one value; what follows them stays as it is

# Charset, an RFC 2231 language tag, the encoding. Bounded, so that a search stays linear.
_OPENING = re.compile(r"=\?([^\s?*=]{1,60})(?:\*[^\s?*]{0,40})?\?([bBqQ])\?")


def decode_words(value: str) -> str:
    """`value` with its encoded words as text.

    White space between two encoded words is dropped (RFC 2047 section 6.2). Adjacent words of one
    charset are decoded together, because senders split characters between them.
    """
    plain = _plain_words(value)
    if plain is not None:
        return plain
    opening = _OPENING.search(value)
    if opening is None:
        return value
    out: list[str] = []
    run: list[tuple[str, str]] = []  # (encoding, content) of adjacent words of one charset
    label = ""
    position = 0
    words = 0
    while opening is not None and words < _WORDS:
        words += 1
        between = value[position : opening.start()]
        content, position = _content(value, opening)
        apart = bool(between) and not between.isspace()
        if run and (apart or opening[1].lower() != label):
            out.append(_text(run, label))
            run = []
        if apart or words == 1:
            out.append(between)
        label = opening[1].lower()
        run.append((opening[2].upper(), content))
        opening = _OPENING.search(value, position)
    out.append(_text(run, label))
    out.append(value[position:])
    return "".join(out)


def _plain_words(value: str) -> str | None:
    """`value` when it is one run of whole words of UTF-8 in base64, before and after it no `?`.

    So are most that anybody sends; None for all others.
    """
    before, *pieces = value.split("?", _PLAIN_PIECES)
    if not pieces or len(pieces) % 4 or before[-1:] != "=" or pieces[-1][:1] != "=":
        return None
    words = len(pieces) // 4
    label, encoding = pieces[0], pieces[1]
    if label.lower() != "utf-8" or encoding not in ("B", "b"):
        return None
    if words > 1:
        if pieces[0::4].count(label) != words or pieces[1::4].count(encoding) != words:
            return None
        for between in pieces[3:-1:4]:
            if between[:1] != "=" or between[1:].lstrip() != "=":
                return None
    try:
        # Padding anywhere but at the end is refused, so that the words' groups are those of one.
        raw = binascii.a2b_base64("".join(pieces[2::4]), strict_mode=True)
        text = raw.decode()
    except ValueError:
        return None
    return f"{before[:-1]}{text.removeprefix(_MARK)}{pieces[-1][1:]}"


def _text(run: list[tuple[str, str]], label: str) -> str:
    return charset.decode(b"".join(_pieces(run)), label)[0]


def _pieces(run: list[tuple[str, str]]) -> Iterator[bytes]:
    """The words' bytes. Base64 that was cut inside a group goes on in the next word."""
    held = ""
    for encoding, content in run:
        if encoding == "B":
            held += content
            if len(held) % 4 == 0 or content.endswith("="):
                yield _bytes_of(held, "B")
                held = ""
            continue
        if held:
            yield _bytes_of(held, "B")
            held = ""
        yield _bytes_of(content, encoding)
    if held:
        yield _bytes_of(held, "B")


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
    if encoding == "B":
        return transfer.undo_base64(raw)[0]
    return binascii.a2b_qp(raw.replace(b"\r", b"").replace(b"\n", b""), header=True)
