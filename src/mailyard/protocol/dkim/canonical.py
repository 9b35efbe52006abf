"""Canonical forms of header fields and bodies (RFC 6376 section 3.4), bytes in and bytes out.

Lines end in CRLF alone: a bare CR or LF is content like any other octet. Everything here runs in
linear time and without a Python step per line, because it is done for every mail that is sent.
"""

SIMPLE = "simple"
RELAXED = "relaxed"
CRLF = b"\r\n"


def canonical_body(kind: str, body: bytes) -> bytes:
    """`body` as it is hashed under `kind`, SIMPLE or RELAXED."""
    return relaxed_body(body) if kind == RELAXED else simple_body(body)


def simple_body(body: bytes) -> bytes:
    """Exactly one CRLF at the end, whatever number of empty lines is there (section 3.4.3)."""
    if body.endswith(CRLF) and not body.endswith(b"\r\n\r\n"):
        return body
    return without_blank_end(body) + CRLF


def relaxed_body(body: bytes) -> bytes:
    """White space reduced to one space and to none at ends of lines (section 3.4.4).

    A body of blank lines only, like none at all, is nothing.
    """
    body = _single_spaced(body).replace(b" \r\n", CRLF).removesuffix(b" ")
    body = without_blank_end(body)
    return body + CRLF if body else b""


def relaxed_field(name: bytes, value: bytes) -> bytes:
    """The field of the `name`, in lower case, with all of its `value` (section 3.4.2)."""
    return name + b":" + _single_spaced(value.replace(CRLF, b"")).strip(b" ")


def without_blank_end(body: bytes) -> bytes:
    """`body` without all the CRLFs at its end; bare CR and LF stay."""
    kept = body.rstrip(CRLF)
    end = body[len(kept) :]
    if 2 * end.count(CRLF) == len(end):
        return kept
    if not end.endswith(CRLF):
        return body
    # CR and LF take turns from here on; an LF that comes first belongs to no pair.
    start = max(end.rfind(b"\r\r"), end.rfind(b"\n\n")) + 1
    return kept + end[: start + (end[start] == 0x0A)]


def _single_spaced(text: bytes) -> bytes:
    """Tabs and runs of spaces as one space. Each pass halves the runs: a logarithm of passes."""
    if b"\t" in text:
        text = text.replace(b"\t", b" ")
    while b"  " in text:
        text = text.replace(b"  ", b" ")
    return text
