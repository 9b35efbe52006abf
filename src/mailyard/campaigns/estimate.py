"""How many contacts match, judged by a sample of them, and how far off that may be."""

from dataclasses import dataclass
from math import sqrt

import asyncpg

ANCHOR_EVERY = 64  # contacts, on average: see contact_anchor
ESTIMATE_ERROR = 0.04  # of the estimate, at 95 %: where a sample is large enough
_DEVIATIONS = 1.96  # of 95 %


@dataclass(frozen=True, slots=True)
class Estimate:
    """`low` to `high` holds the truth 19 times of 20. `of`: contacts of the workspace, about;
    `looked`: how many of them were looked at."""

    contacts: int
    low: int
    high: int
    looked: int
    of: int


@dataclass(slots=True)
class Sums:
    """What samples sum up to."""

    runs: int = 0
    looked: int = 0
    matched: int = 0
    looked_looked: int = 0
    looked_matched: int = 0
    matched_matched: int = 0

    def add(self, row: asyncpg.Record) -> None:
        """Add one sample (`storage/sql/segment.sql`)."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + (row[name] or 0))

    @property
    def share(self) -> float:
        """Of those looked at, who matched."""
        return self.matched / self.looked if self.looked else 0.0

    @property
    def error(self) -> float:
        """The standard error of `share` (Cochran, Sampling Techniques, 3rd ed., section 11.7: the
        ratio to size in cluster sampling)."""
        if self.runs < 2:
            return 1.0
        share, size = self.share, self.looked / self.runs
        squares = (
            self.matched_matched
            - 2 * share * self.looked_matched
            + share * share * self.looked_looked
        )
        return sqrt(max(0.0, squares) / (self.runs * (self.runs - 1))) / size

    @property
    def is_good(self) -> bool:
        """Whether the error is small enough to stop here."""
        return self.matched > 0 and _DEVIATIONS * self.error <= ESTIMATE_ERROR * self.share

    def estimate(self, anchors: int) -> Estimate:
        """What the sums say of all contacts; `anchors`: how many these have."""
        of = anchors * ANCHOR_EVERY
        contacts = round(self.share * of)
        if not self.matched:
            # Nobody of so many: with 95 % fewer than one in a third of them (rule of three).
            high = min(of, round(3 * of / max(1, self.looked)))
            return Estimate(0, 0, high, self.looked, of)
        # Both errors: of the share, and of how many contacts there are.
        relative = sqrt((self.error / self.share) ** 2 + 1 / anchors)
        off = round(contacts * _DEVIATIONS * relative)
        return Estimate(contacts, max(0, contacts - off), min(of, contacts + off), self.looked, of)
