"""What the collector looks at while connections come and go."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from mailyard.web.live.collector import Collector


class Node:
    """Something that hangs together in a circle."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    gc.disable()
    yield
    gc.unfreeze()
    gc.enable()


def test_what_came_with_connections_is_set_aside_and_a_circle_goes_in_time() -> None:
    now_s = 0.0
    collector = Collector(clock=lambda: now_s)
    gc.collect()
    set_aside = gc.get_freeze_count()
    collector.tend(199, 199)
    assert gc.get_freeze_count() == set_aside
    circle = Node()
    ended = weakref.ref(circle)
    collector.tend(3_000, 3_000)
    assert gc.get_freeze_count() > set_aside
    del circle
    gc.collect()
    assert ended() is not None, "nobody looks at it"
    collector.tend(500, 3_000)
    assert ended() is not None, "not so soon"
    now_s = 601.0
    collector.tend(500, 3_000)
    assert ended() is None
    assert gc.get_freeze_count() > set_aside


def test_while_nobody_comes_nothing_is_done() -> None:
    collector = Collector(clock=lambda: 1e9)
    before = gc.get_freeze_count()
    for _ in range(3):
        collector.tend(100, 150)
    assert gc.get_freeze_count() == before
