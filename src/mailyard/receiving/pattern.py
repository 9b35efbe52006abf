"""Patterns for the part of an address before @: letters, `*` for any run of them, `?` for one.

Matching is bounded: a pattern has at most PATTERN_CHARACTERS and WILDCARDS stars, and after each
mismatch only the last star moves on, so no text takes more than (text x pattern) steps. Nothing of
a pattern is ever a regular expression.
"""

import re
import unicodedata

from mailyard.core.errors import InvalidInput
from mailyard.core.limits import SMTP_LOCAL_PART_BYTES

PATTERN_CHARACTERS = SMTP_LOCAL_PART_BYTES
WILDCARDS = 8
CATCH_ALL = "*"
_WORD = re.compile(r"[^\s\"(),:;<>@\[\]\\\x00-\x1f\x7f]+")


def checked(text: str, field: str = "pattern") -> str:
    """`text` as it is stored and compared. Raises InvalidInput saying what is wrong."""
    pattern = unicodedata.normalize("NFC", text.strip()).lower()
    if "@" in pattern:
        raise InvalidInput("only the part before @: the domain is the route's", field=field)
    if not pattern or len(pattern.encode()) > PATTERN_CHARACTERS:
        raise InvalidInput(f"1 to {PATTERN_CHARACTERS} bytes", field=field)
    if not _WORD.fullmatch(pattern):
        raise InvalidInput("letters as in an address, with * for any and ? for one", field=field)
    if pattern.count("*") > WILDCARDS:
        raise InvalidInput(f"at most {WILDCARDS} times *", field=field)
    return re.sub(r"\*+", "*", pattern)


def is_wild(pattern: str) -> bool:
    """Whether more than one address can match."""
    return "*" in pattern or "?" in pattern


def matches(pattern: str, text: str) -> bool:
    """Whether `text` as a whole is what `pattern` says. Both as `checked` makes them."""
    at = here = 0
    star = behind = -1
    while here < len(text):
        if at < len(pattern) and pattern[at] == "*":
            star, behind = at, here
            at += 1
        elif at < len(pattern) and pattern[at] in ("?", text[here]):
            at += 1
            here += 1
        elif star >= 0:  # the last star takes one character more
            behind += 1
            at, here = star + 1, behind
        else:
            return False
    return not pattern[at:].strip("*")
