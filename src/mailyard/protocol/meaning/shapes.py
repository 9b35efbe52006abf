"""Shapes that are no codes, orders or sums although they have digits: addresses, phones, times."""

import re

URL = re.compile(
    r"(?:https?://|www\.)[^\s<>\"'`{}|\\^\u3000-\u303f\uff00-\uffef]{3,2000}", re.IGNORECASE
)
EMAIL = re.compile(
    r"(?<![A-Za-z0-9.!#$%&*+/=?^_`{|}~-])[A-Za-z0-9.!#$%&*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}"
)
_PHONE = re.compile(
    r"(?<![\w/])(?:\+\d{1,3}[ .-]?)?(?:\(\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]\d{2,4}){2,5}(?![\w])"
    r"|\(\d{3}\) ?\d{3}-\d{4}|\+\d[\d ().-]{7,18}\d"
)
_TIME = re.compile(
    r"(?<!\d)\d{1,2}:\d{2}(?::\d{2})?(?!\d)|(?<!\d)(?:19|20)\d\d[-/.]\d{1,2}[-/.]\d{1,2}(?!\d)|(?<!\d)\d{1,2}[-/.]\d{1,2}[-/.](?:19|20)\d\d(?!\d)"
)
_TRAILING = ".,;:!?*_'\"»›)"
_PHONE_DIGITS = 9


def trimmed_url(text: str) -> str:
    """A URL without the sentence's marks behind it; a bracket that is opened in it stays."""
    while text and text[-1] in _TRAILING:
        if text[-1] == ")" and text.count("(") >= text.count(")"):
            break
        text = text[:-1]
    return text


def masked(text: str) -> str:
    """`text` of the same length, with addresses, phones, dates and times blanked out."""
    for shape in (URL, EMAIL, _TIME):
        text = shape.sub(_blank, text)
    return _PHONE.sub(_blank_phone, text)


def _blank(found: re.Match[str]) -> str:
    return "\0" * len(found[0])


def _blank_phone(found: re.Match[str]) -> str:
    digits = sum(one.isdigit() for one in found[0])
    return "\0" * len(found[0]) if digits >= _PHONE_DIGITS else found[0]
