"""Tag lists (RFC 6376 section 3.2): `v=1; a=rsa-sha256; …`, in signatures and in key records.

Also the kinds of values that several tags share. Raises TagError alone, on any bytes.
"""

import re
from base64 import b64decode
from binascii import Error as Base64Error

from mailyard.core.errors import InvalidInput
from mailyard.protocol.address import ascii_domain

WHITE = " \t\r\n"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")  # none is longer than two; errors name them
# Section 3.2's characters and folding white space, and those of RFC 8616 beyond ASCII.
_VALUE = re.compile(r"[\t\r\n -:<-~\x80-\U0010ffff]*")
_NUMBER = re.compile(r"[0-9]{1,76}")  # section 3.5, l=
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAMES = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_FOLDS = str.maketrans("", "", WHITE)
_ESCAPE = re.compile(rb"=([0-9A-F]{2})")
_UNESCAPED_EQUALS = re.compile(rb"=(?![0-9A-F]{2})")
_DOMAIN_CHARACTERS = 253  # RFC 1035 section 2.3.4, without the root's dot


class TagError(InvalidInput):
    """A tag list or a tag's value that is not as the standard has it; `field` is the tag's name."""

    code = "invalid_tag_list"


def parse_tags(text: bytes) -> dict[str, str]:
    """Name to value, in order, white space around values removed. A name twice is an error."""
    try:
        specs = text.decode().split(";")
    except UnicodeDecodeError:
        raise TagError("the tag list is not UTF-8") from None
    if len(specs) > 1 and not specs[-1].strip(WHITE):
        specs.pop()  # one semicolon may end the list
    tags: dict[str, str] = {}
    for spec in specs:
        name, equals, value = spec.partition("=")
        name = name.strip(WHITE)
        if not equals or not _NAME.fullmatch(name):
            raise TagError("a part of the tag list is not name=value")
        if name in tags:
            raise TagError(f"the tag {name}= is there twice", field=name)
        if not _VALUE.fullmatch(value):
            raise TagError(f"the tag {name}= has a character that is not allowed", field=name)
        tags[name] = value.strip(WHITE)
    return tags


def required(tags: dict[str, str], name: str) -> str:
    """The value of the tag `name`, which must not be empty."""
    value = tags.get(name)
    if not value:
        raise TagError(f"the tag {name}= is {'empty' if value == '' else 'missing'}", field=name)
    return value


def colon_list(value: str) -> list[str]:
    """`a : b:c` as its parts, in lower case (ABNF strings have no case, RFC 5234 section 2.3)."""
    return [part.strip(WHITE).lower() for part in value.split(":")]


def base64_value(value: str, name: str) -> bytes:
    """What base64 with folds in it stands for."""
    try:
        return b64decode(value.translate(_FOLDS), validate=True)
    except (Base64Error, ValueError):
        raise TagError(f"the tag {name}= is not base64", field=name) from None


def number(tags: dict[str, str], name: str) -> int | None:
    value = tags.get(name)
    if value is None:
        return None
    if not _NUMBER.fullmatch(value):
        raise TagError(f"the tag {name}= is not a number", field=name)
    return int(value)


def domain_value(value: str, name: str, labels: int = 2) -> str:
    """`value` as an ASCII domain name in lower case, of `labels` labels or more."""
    domain = value[: _DOMAIN_CHARACTERS + 1]
    if not domain.isascii():
        try:
            domain = ascii_domain(domain)  # RFC 8616 allows U-labels
        except InvalidInput:
            domain = ""
    if (
        not _NAMES.fullmatch(domain)
        or domain.count(".") + 1 < labels
        or len(domain) > _DOMAIN_CHARACTERS
    ):
        raise TagError(f"the tag {name}= is not a domain name", field=name)
    return domain.lower()


def quoted_printable(value: str, name: str) -> str:
    """The text behind dkim-quoted-printable (section 2.11)."""
    raw = value.translate(_FOLDS).encode()
    if _UNESCAPED_EQUALS.search(raw):
        raise TagError(f"the tag {name}= is not quoted-printable", field=name)
    return _ESCAPE.sub(lambda escape: bytes.fromhex(escape[1].decode()), raw).decode(
        errors="replace"
    )
