"""Since when the copy of another region's database does not follow."""

from mailyard.access.neighbours import CopyState, Neighbours
from mailyard.access.region import Region, Regions
from mailyard.fleet.region_watch import CopyWatch
from mailyard.observe import metrics

FOLLOWS = CopyState("eu", "streams", unreplayed_bytes=7)


def watch() -> CopyWatch:
    return CopyWatch(Neighbours(Regions("us", {"eu": Region("eu", "https://eu.example")})))


def test_a_copy_is_silent_from_the_look_on_that_found_it_so_until_it_streams_again() -> None:
    copies = watch()
    assert copies.figures(0.0) == {}, "nobody has looked: not known"
    copies.take([FOLLOWS], 10.0)
    assert copies.figures(99.0) == {"copy_silent_s eu": 0.0, "copy_unreplayed_bytes eu": 7.0}
    copies.take([CopyState("eu", "silent")], 100.0)
    copies.take([CopyState("eu", "away", why="is down")], 105.0)
    assert copies.figures(107.5)["copy_silent_s eu"] == 7.5, "one silence, whatever it is due to"
    copies.take([FOLLOWS], 110.0)
    assert copies.figures(120.0)["copy_silent_s eu"] == 0.0
    copies.take([CopyState("eu", "promoted")], 130.0)
    assert copies.figures(131.0)["copy_silent_s eu"] == 1.0, "a region without a copy is told of"


def test_it_is_told_with_the_beat_by_region() -> None:
    copies = watch()
    copies.take([CopyState("eu", "silent")], 0.0)
    metrics.tell("region", lambda: copies.figures(31.0))
    try:
        assert metrics.told_by_others()["region.copy_silent_s eu"] == 31.0
    finally:
        metrics.tell("region", dict)
