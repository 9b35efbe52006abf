"""The charset of bytes that name none and are no UTF-8, by where their bytes lie.

Old senders wrote Japanese, Korean, Chinese and Russian without a word about it. Each of these
charsets has a block of lead bytes for what is written most (JIS X 0208 and GB 2312 level 1, the
Hangul of KS X 1001, the small letters of Cyrillic); text that lies in it is taken for it. Western
text has few bytes beyond ASCII, and stays windows-1252. Looks at a bounded sample.
"""

import re

_SAMPLE_BYTES = 4_096
_LEAST_HIGH = 4
# Of letters, how many must lie beyond ASCII before it can be another script.
_FOREIGN_SHARE = 0.4
_HIGH = bytes(range(0x80, 0x100))
_ASCII_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# (codec, lead bytes of what is common, the share of characters that must have them, the lead bytes
# that must occur), in the order in which they are tried.
_WIDE = (
    ("euc_jp", range(0xA4, 0xD0), 0.9, range(0xA4, 0xA6)),
    ("cp949", range(0xB0, 0xC9), 0.97, range(0xB0, 0xC9)),
    ("cp932", (*range(0x82, 0x84), *range(0x88, 0x98)), 0.9, range(0x82, 0x98)),
    ("gb18030", range(0xB0, 0xD8), 0.85, range(0xB0, 0xD8)),
    ("cp950", range(0xA4, 0xC7), 0.85, range(0xA4, 0xC7)),
)
_PUNCTUATION = frozenset((0x81, 0xA1, 0xA2, 0xA3))
_MIXED = re.compile(rb"[A-Za-z][\x80-\xff]|[\x80-\xff][A-Za-z]")
_SMALL_1251 = bytes(range(0xE0, 0x100))
_SMALL_KOI8 = bytes(range(0xC0, 0xE0))


def guess_codec(raw: bytes) -> str | None:
    """The Python codec that `raw` seems to be in; None for windows-1252."""
    sample = raw[:_SAMPLE_BYTES]
    high = len(sample) - len(sample.translate(None, _HIGH))
    if high < _LEAST_HIGH:
        return None
    letters = len(sample) - len(sample.translate(None, _ASCII_LETTERS))
    if high < _FOREIGN_SHARE * (high + letters):
        return None
    for codec, common, share, telling in _WIDE:
        if _is_wide(sample, codec, frozenset(common), share, frozenset(telling)):
            return codec
    return _cyrillic(sample, high)


def _is_wide(
    sample: bytes, codec: str, common: frozenset[int], share: float, telling: frozenset[int]
) -> bool:
    try:
        sample.decode(codec)
    except UnicodeDecodeError as error:
        if error.start < len(sample) - 4:  # the sample may end inside a character
            return False
    leads = _leads(sample)
    counted = [lead for lead in leads if lead not in _PUNCTUATION]
    if len(counted) < _LEAST_HIGH // 2 or telling.isdisjoint(counted):
        return False
    return sum(lead in common for lead in counted) >= share * len(counted)


def _leads(sample: bytes) -> list[int]:
    """The first bytes of the characters of two."""
    leads = []
    position = 0
    while position < len(sample):
        byte = sample[position]
        if byte >= 0x80:
            leads.append(byte)
            position += 1
        position += 1
    return leads


def _cyrillic(sample: bytes, high: int) -> str | None:
    """Most letters of a text are small, and no word is half Latin."""
    if len(_MIXED.findall(sample)) > 0.1 * high:
        return None
    for codec, small in (("cp1251", _SMALL_1251), ("koi8_r", _SMALL_KOI8)):
        if len(sample) - len(sample.translate(None, small)) >= 0.6 * high:
            return codec
    return None
