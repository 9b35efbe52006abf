"""What is told of an error in a log and in a job's row: what and where, never a mail's words."""

import asyncpg
import pytest
import structlog

from mailyard.core.errors import InvalidInput
from mailyard.observe import log
from mailyard.observe.reason import REASON_MAX, WORDS_MAX, reason_of, trace_of

MAIL = "Subject: Silbermond\r\n\r\nAhornblatt " * 100_000


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as found:
        return found


def refused_row() -> asyncpg.PostgresError:
    """As PostgreSQL refuses a row: with all of it in the detail."""
    fields = {"C": "23514", "M": f"row violates {MAIL[:60]}", "D": f"Failing row has ({MAIL}).",
              "t": "message", "n": "message_size"}  # fmt: skip
    return asyncpg.PostgresError.new(fields)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InvalidInput("to[0] is no address"), "InvalidInput: to[0] is no address"),
        (OSError(28, "No space left on device", MAIL), "OSError: [28] No space left on device"),
        (refused_row(), "CheckViolationError: 23514 message message_size"),
        (KeyError(MAIL), f"KeyError in {__name__}:"),
        (UnicodeDecodeError("ascii", MAIL.encode(), 0, 1, MAIL), "UnicodeDecodeError in "),
        (RuntimeError(), "RuntimeError in "),
    ],
)
def test_a_reason_says_what_it_is_and_no_word_of_a_mail(error: Exception, reason: str) -> None:
    said = reason_of(raised(error))
    assert said.startswith(reason) and len(said) <= REASON_MAX and "\n" not in said
    assert "Silbermond" not in said and "Ahornblatt" not in said


def test_words_of_our_own_are_bounded_and_on_one_line() -> None:
    said = reason_of(InvalidInput(f"{'x' * 1_000}\r\nlevel=critical event=forged"))
    assert len(said) <= WORDS_MAX + 20 and "\r" not in said
    assert reason_of(InvalidInput("a\r\nb")) == "InvalidInput: a b"


def test_a_trace_has_the_frames_of_the_whole_chain_and_no_words() -> None:
    error = raised(KeyError(MAIL), raised(ValueError(MAIL)))
    error.add_note(MAIL)
    said = trace_of((type(error), error, error.__traceback__))
    assert said.startswith("KeyError in ") and "\nValueError in " in said and ".py:" in said
    assert len(said) < 10_000 and "Silbermond" not in said


@pytest.mark.parametrize(("level", "all_of_it"), [("info", False), ("debug", True)])
def test_the_log_has_the_words_at_debug_alone(
    level: str, all_of_it: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    before = structlog.get_config()
    try:
        for form in ("json", "text"):
            log.set_up(level=level, form=form, role="worker")
            error = raised(ValueError("Silbermond"))
            structlog.get_logger("told").warning("job failed", exc_info=error)
            line = capfd.readouterr().err
            assert line.count("\n") == 1 and "ValueError" in line and "raised" in line
            assert ("Silbermond" in line) is all_of_it
    finally:
        structlog.configure(**before)
        log.set_level("info")
