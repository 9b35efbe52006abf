"""Addresses: the verdicts of isemail and flanker.

isemail sorts by what is legal where. What RFC 5321 lets through is an address to us too
(`address`), an error is none. What only a header may have (comments, folds, forms that are out of
use, literals that no server has) we may refuse to send to, and read where it was received
(`header`).
"""

import json
from collections.abc import Iterator

from corpora.agreement.comparison import Comparison, Family

from mailyard.core.errors import InvalidInput
from mailyard.protocol.address import normalise, parse_mailbox
from mailyard.protocol.mime.message import addresses

_SENT_TO = ("ISEMAIL_VALID_CATEGORY", "ISEMAIL_RFC5321", "ISEMAIL_DNSWARN")
_WRONG = "ISEMAIL_ERR"


def compare(family: Family) -> Iterator[Comparison]:
    for case in json.loads(family["isemail-tests.json"]):
        text, category = unescaped(case["address"]), case["category"]
        name = f"isemail {case['id']}"
        if category in _SENT_TO or category == _WRONG:
            yield Comparison(name, "address", is_address(text), category != _WRONG)
        if category != _WRONG:
            yield Comparison(name, "header", len(addresses(text)), 1)
    for kind, verdict in (("valid", True), ("invalid", False)):
        for number, line in enumerate(lines_of(family[f"flanker/mailbox_{kind}.txt"]), 1):
            yield Comparison(f"flanker {kind} {number}", "address", is_address(line), verdict)
        for number, line in enumerate(
            lines_of(family[f"flanker/abridged_localpart_{kind}.txt"]), 1
        ):
            ours = is_address(f"{line}@example.org")
            yield Comparison(f"flanker local part {kind} {number}", "address", ours, verdict)


def lines_of(data: bytes) -> list[str]:
    """Comments stand behind wide space in some files."""
    lines = [line.partition("   #")[0].rstrip() for line in data.decode().split("\n")]
    return [line for line in lines if line.strip()]


def is_address(text: str) -> bool:
    """Whether mail is sent there."""
    try:
        normalise(parse_mailbox(text).address)
    except InvalidInput:
        return False
    return True


def unescaped(text: str) -> str:
    """U+2400 and what follows it stand for control characters."""
    return "".join(chr(ord(c) - 0x2400) if 0x2400 <= ord(c) < 0x2421 else c for c in text)
