"""What large receivers and mail servers say is understood, whatever the corpora have of it."""

import tomllib
from pathlib import Path

import pytest

from mailyard.sending.bounce import Reason, classify_reply

TABLE = tomllib.loads(Path(__file__).with_name("bounce_answers.toml").read_text("utf-8"))
ANSWERS = [tuple(answer) for group in TABLE.values() for answer in group["answers"]]
HARD = {Reason.USER_UNKNOWN, Reason.HOST_UNKNOWN, Reason.MOVED, Reason.NOT_ACCEPTING}


@pytest.mark.parametrize(("code", "enhanced", "text", "reasons"), ANSWERS)
def test_what_receivers_say_is_understood(
    code: int, enhanced: str, text: str, reasons: list[str]
) -> None:
    verdict = classify_reply(code, enhanced, text)
    assert verdict.reason in reasons
    assert verdict.hard is (verdict.reason in HARD)
    assert verdict.suppresses is (verdict.hard and code >= 500 and enhanced[1:4] != ".7.")
