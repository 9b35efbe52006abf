"""Character references of HTML as characters (HTML 13.5), of hostile text too."""

import re
from html import unescape

# `unescape` hands the digits to `int`, which raises for 4,300 of them; no character has eight.
_TOO_LONG = re.compile(r"&#(?:0*+[1-9][0-9]{7,}+|0{8,}+[0-9]*+|[xX][0-9a-fA-F]{9,}+);?")


def unescaped(text: str) -> str:
    """`text` with `&amp;` and its like read, a number that is no character as U+FFFD. Linear."""
    if "&" not in text:
        return text
    return unescape(_TOO_LONG.sub("\ufffd", text) if "&#" in text else text)
