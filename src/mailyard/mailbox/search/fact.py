"""What the index knows of a line beside its words: when it came, and how large it is, as numbers.

`search_facts` in the schema gives each line one key a level of time (its millisecond cut to 2^12,
2^15, … 2^42) and one for its size. A span of time is then a few keys, and the index finds what lies
in it without a look at anything older.
"""

from bisect import bisect_right
from uuid import UUID

_LOWEST_SHIFT = 12
_STEP = 3
_LEVELS = 11
_LEVEL_SHIFT = 40
_SIZE_LEVEL = 32
_SIZES = tuple(1 << power for power in range(9, 27))
_FEWEST = 4  # units that a span is cut into at least, where the finest level allows
_END_MS = 1 << 44  # of the year 2527


def span(lowest: UUID, before: UUID) -> list[int]:
    """Keys whose times hold all ids in [lowest, before), and up to half as much beside it."""
    first_ms, last_ms = lowest.int >> 80, min(max(0, before.int - 1) >> 80, _END_MS)
    level = _level_of(last_ms - first_ms)
    first, last = _cut(first_ms, level), _cut(last_ms, level)
    keys: list[int] = []
    while first <= last:
        if level == _LEVELS - 1:
            keys += [_key(level, unit) for unit in range(first, last + 1)]
            break
        while first <= last and first % (1 << _STEP):
            keys.append(_key(level, first))
            first += 1
        while first <= last and (last + 1) % (1 << _STEP):
            keys.append(_key(level, last))
            last -= 1
        first, last, level = first >> _STEP, ((last + 1) >> _STEP) - 1, level + 1
    return keys


def sizes(*, larger: bool, size_bytes: int) -> list[int]:
    """Keys of all lines larger, or smaller, than that, and of some that are not."""
    own = bisect_right(_SIZES, size_bytes)
    some = range(own, len(_SIZES) + 1) if larger else range(own + 1)
    return [_key(_SIZE_LEVEL, bucket) for bucket in some]


def _level_of(length_ms: int) -> int:
    level = 0
    while level < _LEVELS - 1 and length_ms >= _FEWEST << (_LOWEST_SHIFT + _STEP * (level + 1)):
        level += 1
    return level


def _cut(ms: int, level: int) -> int:
    return ms >> (_LOWEST_SHIFT + _STEP * level)


def _key(level: int, unit: int) -> int:
    return level << _LEVEL_SHIFT | unit
