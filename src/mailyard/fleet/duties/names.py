"""The directory of names is kept true to this cluster's tables, where there are several."""

from mailyard.fleet.duty import Duty
from mailyard.fleet.shards.upkeep import NamesUpkeep

EVERY_S = 600.0  # between two passes over all names


def mend(upkeep: NamesUpkeep) -> Duty:
    """Claims without a row are let go, rows without a claim get one; a page at a time."""
    return Duty("mend-names", EVERY_S, upkeep.step)
