"""What a check of `mailyard doctor` finds, and how bad it is."""

from dataclasses import dataclass
from enum import Enum

from mailyard.core.errors import MailyardError


class Grade(Enum):
    """`bad` stops the platform or breaks a promise; `warn` is worth knowing."""

    GOOD = "good"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. `fix` says what to do, and is empty when nothing is."""

    check: str
    grade: Grade
    found: str
    fix: str = ""


def from_error(check: str, error: MailyardError) -> Finding:
    """What went wrong, as a finding."""
    return Finding(check, Grade.BAD, error.message)
