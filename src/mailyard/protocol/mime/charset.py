"""Bytes to text, by the name of a charset or by a guess. Never raises, whatever the bytes or name.

Labels are read as browsers read them (WHATWG Encoding Standard): `iso-8859-1` is windows-1252 and
`gb2312` is GB 18030, because that is what senders mean by them.
"""

import codecs
from functools import lru_cache

from mailyard.protocol.mime.charset_guess import guess_codec

_LABEL_CHARACTERS = 60

_MEANT = {
    "ascii": "cp1252",
    "us-ascii": "cp1252",
    "ansi_x3.4-1968": "cp1252",
    "646": "cp1252",
    "iso-8859-1": "cp1252",
    "iso8859-1": "cp1252",
    "iso_8859-1": "cp1252",
    "latin1": "cp1252",
    "latin-1": "cp1252",
    "l1": "cp1252",
    "iso-8859-9": "cp1254",
    "iso-8859-11": "cp874",
    "tis-620": "cp874",
    "windows-874": "cp874",
    "unicode-1-1-utf-7": "utf-7",
    "unicode-1-1-utf-8": "utf-8",
    "utf8": "utf-8",
    "utf8mb4": "utf-8",
    "unicode": "utf-16",
    "gb2312": "gb18030",
    "gb_2312-80": "gb18030",
    "gbk": "gb18030",
    "x-gbk": "gb18030",
    "cp936": "gb18030",
    "big5": "cp950",
    "x-x-big5": "cp950",
    "shift_jis": "cp932",
    "shift-jis": "cp932",
    "sjis": "cp932",
    "x-sjis": "cp932",
    "windows-31j": "cp932",
    "ms_kanji": "cp932",
    "x-euc-jp": "euc_jp",
    "iso-2022-jp": "iso2022_jp_ext",
    "ks_c_5601-1987": "cp949",
    "ksc5601": "cp949",
    "euc-kr": "cp949",
    "x-windows-949": "cp949",
    "windows-949": "cp949",
    "macintosh": "mac_roman",
    "x-mac-roman": "mac_roman",
    "x-mac-cyrillic": "mac_cyrillic",
    "iso-8859-8-i": "iso-8859-8",
    "iso-8859-8-e": "iso-8859-8",
    "iso-8859-6-i": "iso-8859-6",
    "logical": "iso-8859-8",
    "visual": "iso-8859-8",
    "koi": "koi8-r",
    "koi8": "koi8-r",
    "koi8-ru": "koi8-u",
}
_UTF_8 = frozenset(("utf-8", "UTF-8"))  # as nearly all write it
_SEVEN_BIT = frozenset(("us-ascii", "ascii", "ansi_x3.4-1968", "646"))  # no name for other bytes
# Python codecs that are no charset, or whose decoder is not linear.
_NO_CHARSET = frozenset(
    ("idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "mbcs", "oem")
)
# windows-1252 with the five bytes that it leaves undefined as the C1 controls of the same number.
_WINDOWS_1252 = "".join(
    bytes((byte,)).decode("latin-1" if byte in b"\x81\x8d\x8f\x90\x9d" else "cp1252")
    for byte in range(256)
)
_UTF16_CODECS = frozenset(("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"))


@lru_cache(maxsize=256)
def _codec(short_label: str) -> str | None:
    label = short_label.strip().strip("\"'").lower()
    meant = _MEANT.get(label) or _MEANT.get(label.replace("_", "-"), label)
    for candidate in (meant, meant.removeprefix("x-"), meant.replace("windows-", "cp")):
        if not candidate.isascii() or "\0" in candidate:
            continue
        try:
            info = codecs.lookup(candidate)
        except (LookupError, ValueError, ImportError):
            continue
        if info._is_text_encoding and info.name.replace("-", "_") not in _NO_CHARSET:
            return info.name
    return None


def codec_of(label: str) -> str | None:
    """The Python codec meant by the charset `label`, or None when nobody knows it."""
    return _codec(label[:_LABEL_CHARACTERS])


def windows_1252(raw: bytes) -> str:
    """Any bytes, as the charset that unlabelled western mail is in."""
    return codecs.charmap_decode(raw, "strict", _WINDOWS_1252)[0]


def guess(raw: bytes) -> str:
    """Decode `raw` of an unknown charset: byte order mark, ISO-2022, UTF-8, else what its bytes
    look like.
    """
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", "replace")
    if raw.startswith(b"\xef\xbb\xbf"):
        return raw[3:].decode("utf-8", "replace")
    if b"\x1b$" in raw or b"\x1b(" in raw:
        try:
            return raw.decode("iso2022_jp_ext")
        except UnicodeDecodeError:
            pass
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        codec = guess_codec(raw)
    return windows_1252(raw) if codec is None else raw.decode(codec, "replace")


def decode(raw: bytes, label: str) -> tuple[str, bool]:
    """(`raw` as text, whether every byte had a meaning in the charset `label`)."""
    if label in _UTF_8:
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            return _repair(raw, "utf-8"), False
        return (text[1:] if text[:1] == "\ufeff" else text), True
    if raw.isascii() and b"\x1b" not in raw:
        codec = codec_of(label) if label else None
        if codec is None or (codec not in _UTF16_CODECS and codec != "utf-7" and codec != "hz"):
            return raw.decode("ascii"), True
    codec = codec_of(label)
    if codec is None or label.strip("\"' ").lower() in _SEVEN_BIT:
        return guess(raw), not label
    try:
        text = raw.decode(codec)
    except (UnicodeError, ValueError):
        return _repair(raw, codec), False
    return (text[1:] if text[:1] == "\ufeff" else text), True


def _repair(raw: bytes, codec: str) -> str:
    """Text of bytes that are not all in `codec`: UTF-8 when they are that, else as much as goes."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        pass
    try:
        if codec in ("cp1252", "utf-7"):  # an error a byte is slow in the decoder of UTF-7
            return windows_1252(raw)
        return raw.decode(codec, "replace")
    except (UnicodeError, ValueError):
        return windows_1252(raw)
