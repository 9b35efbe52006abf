"""Who gets a live place when places are scarce."""

from random import Random
from uuid import UUID, uuid4

import pytest

from mailyard.web.live.places import Place, Places, TooManyLive, TooManyOfYours


class House:
    def __init__(self, ceiling: int) -> None:
        self.places = Places(ceiling, Random(1))
        self.left: list[Place] = []

    def come(self, workspace_id: UUID, most: int | None = None) -> Place:
        place = Place()
        place.leave = lambda: self.left.append(place)
        self.places.enter()
        try:
            self.places.seat(place, workspace_id, most)
        except Exception:
            self.places.gone(place)
            raise
        return place


def test_one_workspace_may_have_all_places_and_no_more() -> None:
    house, mine = House(10), uuid4()
    for _ in range(10):
        house.come(mine)
    with pytest.raises(TooManyLive) as caught:
        house.come(mine)
    assert 2 <= caught.value.retry_after_s <= 10
    assert (house.places.open, house.left) == (10, [])


def test_a_newcomer_gets_the_place_of_the_longest_of_whoever_holds_most() -> None:
    house, greedy, modest = House(10), uuid4(), uuid4()
    places = [house.come(greedy) for _ in range(10)]
    for count in range(1, 6):
        house.come(modest)
        assert house.left == places[:count]
        house.places.gone(house.left[-1])
        assert house.places.open == 10
    with pytest.raises(TooManyLive):  # it has its half
        house.come(modest)
    with pytest.raises(TooManyLive):
        house.come(greedy)
    third = uuid4()
    for _ in range(3):
        house.places.gone(house.come(third))


def test_places_come_free_for_whoever_comes_next() -> None:
    house = House(2)
    first, _ = house.come(uuid4()), house.come(uuid4())
    with pytest.raises(TooManyLive):
        house.come(uuid4())
    house.places.gone(first)
    house.come(uuid4())


def test_a_plan_is_a_ceiling_of_its_own() -> None:
    house, mine = House(10), uuid4()
    house.come(mine, most=1)
    with pytest.raises(TooManyOfYours) as caught:
        house.come(mine, most=1)
    assert caught.value.status == 429
    house.come(uuid4(), most=1)


def test_strangers_at_the_door_are_bounded_too() -> None:
    places = Places(1)
    for _ in range(65):
        places.enter()
    with pytest.raises(TooManyLive):
        places.enter()
    with pytest.raises(TooManyLive):
        Places(0).enter()
