"""One item of a checklist, as a check found it."""

from dataclasses import dataclass
from enum import Enum


class Standing(Enum):
    """`THIN`: there, and not as it should be; `MISSING`: not there, or of no use."""

    MET = "met"
    THIN = "thin"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Item:
    """`check` is a name of `needs.NEEDS`. `fix` says what to do, and is empty when it is met."""

    check: str
    standing: Standing
    found: str
    fix: str = ""


def met(check: str, found: str) -> Item:
    return Item(check, Standing.MET, found)


def thin(check: str, found: str, fix: str) -> Item:
    return Item(check, Standing.THIN, found, fix)


def missing(check: str, found: str, fix: str) -> Item:
    return Item(check, Standing.MISSING, found, fix)
