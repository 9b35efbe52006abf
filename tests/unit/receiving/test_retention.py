"""Retention classes: never shorter than an inbox's life, never longer than needed."""

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.receiving.retention import KEPT, class_for, is_longer, longest
from mailyard.storage.partitions import RETENTION_DAYS

BIRTH = datetime(2026, 3, 1, 12, tzinfo=UTC)
CLASSES = st.sampled_from(RETENTION_DAYS)


def test_without_an_end_it_is_kept() -> None:
    assert class_for(BIRTH, None) == KEPT


@settings(max_examples=100)
@given(st.integers(1, 500 * 86_400))
def test_the_class_is_the_shortest_that_outlives_the_inbox(life_s: int) -> None:
    days = class_for(BIRTH, BIRTH + timedelta(seconds=life_s))
    enough = [d for d in RETENTION_DAYS if d and life_s <= d * 86_400]
    assert days == (min(enough) if enough else KEPT)


@settings(max_examples=100)
@given(st.lists(CLASSES, min_size=1))
def test_the_longest_class_is_longer_than_none_of_them(classes: list[int]) -> None:
    assert not any(is_longer(days, longest(classes)) for days in classes)
    assert longest(classes) in classes


def test_kept_is_longer_than_any_number_of_days() -> None:
    assert all(is_longer(KEPT, days) for days in RETENTION_DAYS if days)
    assert not is_longer(KEPT, KEPT)
