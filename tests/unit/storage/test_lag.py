"""How far a replica is behind, by the primary's places alone."""

from mailyard.storage.lag import LagClock


def test_a_replica_that_has_all_is_not_behind_however_long_nobody_writes() -> None:
    clock = LagClock()
    clock.note(10.0, 100)
    assert clock.behind_s(100, now_s=500.0) == 0.0


def test_it_is_behind_since_the_primary_first_had_what_it_lacks() -> None:
    clock = LagClock()
    for at_s, position in ((10.0, 100), (11.0, 200), (12.0, 300)):
        clock.note(at_s, position)
    assert clock.behind_s(100, now_s=13.0) == 2.0
    assert clock.behind_s(250, now_s=13.0) == 1.0
    assert clock.behind_s(300, now_s=13.0) == 0.0


def test_a_place_seen_again_makes_nothing_younger() -> None:
    clock = LagClock()
    clock.note(10.0, 100)
    clock.note(11.0, 200)
    clock.note(15.0, 200)
    assert clock.behind_s(150, now_s=16.0) == 5.0


def test_what_is_older_than_it_remembers_is_at_least_as_old_as_that() -> None:
    clock = LagClock(remembered_s=60.0)
    for second in range(300):
        clock.note(float(second), 100 + second)
    assert clock.behind_s(0, now_s=300.0) >= 60.0


def test_another_primary_with_less_begins_anew() -> None:
    clock = LagClock()
    clock.note(10.0, 500)
    clock.note(20.0, 300)
    assert clock.behind_s(300, now_s=21.0) == 0.0
    assert clock.behind_s(299, now_s=21.0) == 1.0
