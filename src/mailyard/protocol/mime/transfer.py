"""Content-Transfer-Encoding undone (RFC 2045 section 6), for any bytes. Linear, never raises."""

import binascii

_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
_NOT_BASE64 = bytes(set(range(256)) - set(_BASE64))
_BASE64_LINES = _BASE64 + b"\r\n"
_SAMPLE_BYTES = 512
_FOREIGN_SHARE = 10  # one of so many
_FOREIGN_LEAST = 8
_BASE64_RUNS = 1_000  # padded pieces glued together by broken senders; more than this is an attack
_UU_LINES = 1_000  # short lines that are let pass; a full line is 61 bytes
_UU_LINE_BYTES = 20


def undo(raw: bytes, encoding: str) -> tuple[bytes, bool]:
    """(content of `raw` without its transfer `encoding`, whether it was well formed)."""
    if encoding == "base64":
        foreign = len(_foreign(raw))
        if foreign > _FOREIGN_LEAST and foreign * _FOREIGN_SHARE > min(len(raw), _SAMPLE_BYTES):
            return raw, False  # a text that only says that it is base64
        return undo_base64(raw)
    if encoding == "quoted-printable":
        return binascii.a2b_qp(raw), True
    if encoding in ("x-uuencode", "uuencode", "x-uue"):
        return undo_uuencode(raw)
    return raw, encoding in ("7bit", "8bit", "binary", "")


def _foreign(raw: bytes) -> bytes:
    """What base64 in lines has none of: other characters, and spaces inside a line."""
    return raw[:_SAMPLE_BYTES].translate(None, _BASE64_LINES)


def undo_base64(raw: bytes) -> tuple[bytes, bool]:
    """RFC 2045 section 6.8: characters outside the alphabet are skipped, padding may be missing."""
    padding = raw.find(b"=")
    if padding < 0 or len(raw) - padding < 8:
        try:
            return binascii.a2b_base64(raw), True
        except binascii.Error:
            pass
    characters = raw.translate(None, _NOT_BASE64)
    runs = characters.split(b"=", _BASE64_RUNS)
    if len(runs) > _BASE64_RUNS:
        runs = [characters.replace(b"=", b"")]
    whole = len([run for run in runs if run]) == 1
    return b"".join(_base64_run(run) for run in runs), whole


def _base64_run(run: bytes) -> bytes:
    """One unpadded run; a lone last character carries no whole byte and is dropped."""
    left_over = len(run) % 4
    if left_over == 1:
        run = run[:-1]
        left_over = 0
    return binascii.a2b_base64(run + b"=" * (-left_over % 4))


def undo_uuencode(raw: bytes) -> tuple[bytes, bool]:
    """The lines between `begin` and `end`; a broken line is dropped."""
    if raw.count(b"\n") > _UU_LINES + len(raw) // _UU_LINE_BYTES:
        return raw, False
    lines = raw.split(b"\n")
    whole = True
    begun = False
    pieces: list[bytes] = []
    for line in lines:
        if not begun:
            begun = line.startswith(b"begin ")
            continue
        if line.strip() in (b"end", b"`", b""):
            continue
        try:
            pieces.append(binascii.a2b_uu(line))
        except binascii.Error:
            whole = False
    return b"".join(pieces), whole and begun
