"""Address vectors of isemail and flanker (MAILYARD_CORPORA names their folder)."""

import json
import os
from pathlib import Path

import pytest

from mailyard.core.errors import InvalidInput
from mailyard.protocol.address import normalise, parse_mailbox

FOLDER = Path(os.environ.get("MAILYARD_CORPORA", "../shared/corpora")) / "address"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the corpora are not here")

# isemail's verdict -> ours. What is missing here (deprecated forms, address literals that RFC 5321
# does not have, names that are too long) is legal in RFC 5322 only; we may refuse it.
VERDICTS = {
    "ISEMAIL_VALID_CATEGORY": True,
    "ISEMAIL_RFC5321": True,
    "ISEMAIL_DNSWARN": True,
    "ISEMAIL_ERR": False,
}
# RFC 6532 section 3.2 lets quoted pairs hold what is not ASCII; isemail is older.
NEWER_GRAMMAR = {'"test\\©"@iana.org'}
# A domain in RFC 5322's dot-atom that no host can have (RFC 5321 section 4.1.2).
NO_HOST = {'Bill Gates <"billy"@retired.Micr!osoft99.com>'}


def is_address(text: str) -> bool:
    try:
        normalise(parse_mailbox(text).address)
    except InvalidInput:
        return False
    return True


def unescaped(text: str) -> str:
    return "".join(chr(ord(c) - 0x2400) if 0x2400 <= ord(c) < 0x2421 else c for c in text)


def test_isemail_agrees() -> None:
    cases = json.loads((FOLDER / "isemail-tests.json").read_text())
    wrong = [
        (case["diagnosis"], case["address"])
        for case in cases
        if case["category"] in VERDICTS
        and case["address"] not in NEWER_GRAMMAR
        and is_address(unescaped(case["address"])) is not VERDICTS[case["category"]]
    ]
    assert len(cases) > 100
    assert wrong == []


@pytest.mark.parametrize(("name", "verdict"), [("valid", True), ("invalid", False)])
def test_flanker_agrees(name: str, verdict: bool) -> None:
    lines = (FOLDER / "flanker" / f"mailbox_{name}.txt").read_text().split("\n")
    if not verdict:  # comments stand behind wide space in this file
        lines = [line.partition("   #")[0].rstrip() for line in lines]
    cases = [line for line in lines if line.strip() and line not in NO_HOST]
    assert len(cases) > 50
    assert [case for case in cases if is_address(case) is not verdict] == []
