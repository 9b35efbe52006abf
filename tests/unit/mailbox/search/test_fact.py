"""Spans of time as keys: nothing of the span is left out, and not much lies beside it."""

from itertools import pairwise
from random import Random
from uuid import UUID

import pytest

from mailyard.mailbox.search.fact import sizes, span

_SHIFTS = [12 + 3 * level for level in range(11)]


def pieces(keys: list[int]) -> list[tuple[int, int]]:
    """What keys stand for: milliseconds from, and before."""
    found = []
    for key in keys:
        level, unit = key >> 40, key & ((1 << 40) - 1)
        found.append((unit << _SHIFTS[level], (unit + 1) << _SHIFTS[level]))
    return sorted(found)


def test_a_span_is_held_by_few_keys_without_a_gap() -> None:
    random = Random(5)
    for _ in range(2_000):
        first = random.randrange(1 << 42)
        last = first + int(10 ** random.uniform(0, 12.5))
        keys = span(UUID(int=first << 80), UUID(int=(last << 80) + 1))
        held = pieces(keys)
        assert held[0][0] <= first
        assert held[-1][1] > last
        assert all(one[1] == other[0] for one, other in pairwise(held))
        assert len(keys) <= 40
        length = last - first
        assert held[-1][1] - held[0][0] <= max(2 * length, length + 2 * 4_096)


def test_all_time_is_a_handful_of_keys() -> None:
    assert len(span(UUID(int=0), UUID(int=(1 << 128) - 1))) <= 5


@pytest.mark.parametrize("size_bytes", [0, 1, 511, 512, 513, 1 << 20, (1 << 31) - 1])
def test_every_size_has_a_key_on_one_side(size_bytes: int) -> None:
    larger, smaller = (
        sizes(larger=True, size_bytes=size_bytes),
        sizes(larger=False, size_bytes=size_bytes),
    )
    assert set(larger) & set(smaller) == {larger[0]} == {smaller[-1]}
