"""The window: named minus recorded never passes its size, whatever commits, fails or dies."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.sending.handoff import Window


def test_what_a_step_records_makes_room_for_what_it_names() -> None:
    window = Window(10)
    first = window.begin(0, 99)
    assert first.named == 10 and window.room == 0
    window.committed(first)
    step = window.begin(4, 99)
    assert step.named == 4 and window.taken == 10
    window.committed(step)
    assert window.taken == 10


def test_room_made_by_a_step_is_not_anothers_before_its_commit() -> None:
    window = Window(10)
    window.committed(window.begin(0, 10))
    recording = window.begin(6, 0)
    assert window.begin(0, 5).named == 0
    window.committed(recording)
    assert window.begin(0, 5).named == 5


def test_a_step_that_was_rolled_back_changes_nothing() -> None:
    window = Window(10)
    window.committed(window.begin(0, 4))
    step = window.begin(2, 8)
    window.rolled_back(step)
    assert window.taken == 4


async def test_who_waits_for_room_gets_it_at_the_commit() -> None:
    window = Window(1)
    window.committed(window.begin(0, 1))
    waiting = asyncio.create_task(window.opened())
    await asyncio.sleep(0)
    assert not waiting.done()
    window.committed(window.begin(1, 0))
    await asyncio.wait_for(waiting, 1)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 20),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30), st.booleans()), max_size=40),
)
def test_the_truth_in_the_database_never_passes_the_size(
    size: int, moves: list[tuple[int, int, bool]]
) -> None:
    """Four holders with steps that overlap: what is committed as named and unrecorded is counted
    apart, also as a crash would find it while steps are under way."""
    window = Window(size)
    unrecorded = [0, 0, 0, 0]
    under_way: dict[int, object] = {}
    for holder, wanted, commits in moves:
        if holder in under_way:
            step = under_way.pop(holder)
            if commits:
                window.committed(step)  # type: ignore[arg-type]
                unrecorded[holder] += step.named - step.recorded  # type: ignore[attr-defined]
            else:
                window.rolled_back(step)  # type: ignore[arg-type]
        else:
            under_way[holder] = window.begin(unrecorded[holder], wanted)
        assert sum(unrecorded) <= size
        assert sum(unrecorded) <= window.taken <= size


def test_a_window_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError):
        Window(0)
