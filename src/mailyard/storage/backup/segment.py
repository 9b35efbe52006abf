"""Names of segments of the write-ahead log, as PostgreSQL makes them: timeline, high, low."""

import re
from dataclasses import dataclass

_NAME = re.compile(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})")
_HIGH_BYTES = 1 << 32


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """The segment `number` (its place divided by its size) of a timeline."""

    number: int
    timeline: int

    def name(self, size_bytes: int) -> str:
        each = _HIGH_BYTES // size_bytes
        high, low = divmod(self.number, each)
        return f"{self.timeline:08X}{high:08X}{low:08X}"

    def after(self, segments: int = 1) -> "Segment":
        return Segment(self.number + segments, self.timeline)

    def ends_at(self, size_bytes: int) -> int:
        """The place in the log where the next one begins."""
        return (self.number + 1) * size_bytes


def read_segment(name: str, size_bytes: int) -> Segment | None:
    """The segment of that name; None for a name of something else."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    timeline, high, low = (int(part, 16) for part in match.groups())
    return Segment(high * (_HIGH_BYTES // size_bytes) + low, timeline)
