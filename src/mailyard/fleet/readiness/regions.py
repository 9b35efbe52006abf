"""Whether a region could be lost: the others are known, and a copy of one of them is kept here."""

from collections.abc import Sequence
from dataclasses import dataclass

from mailyard.core.limits import MIB
from mailyard.fleet.readiness import needs
from mailyard.fleet.readiness.item import Item, met, missing, thin

_FAR_BYTES = 64 * MIB


@dataclass(frozen=True, slots=True)
class CopySeen:
    """The copy of a region's database that is kept here. `state`: streams, silent, promoted or
    away."""

    region: str
    state: str
    unreplayed_bytes: int = 0


@dataclass(frozen=True, slots=True)
class RegionsSeen:
    """`own`: MAILYARD_REGION. `others`: names of the rest. `wrong`: why the file is not read."""

    own: str
    others: Sequence[str]
    copies: Sequence[CopySeen] = ()
    wrong: str = ""


def judge_regions(seen: RegionsSeen) -> Item:
    """A neighbour that could be taken over."""
    fix = "MAILYARD_REGION and MAILYARD_REGIONS_FILE (docs/REGIONS.md)"
    if seen.wrong:
        return missing(needs.REGIONS, seen.wrong, "mend MAILYARD_REGIONS_FILE (docs/REGIONS.md)")
    if not seen.own or not seen.others:
        return missing(needs.REGIONS, "no other region is known here", fix)
    if not seen.copies:
        found = f"no copy of {', '.join(seen.others)} is kept here: a lost region stays lost"
        return missing(
            needs.REGIONS, found, "`standby` in MAILYARD_REGIONS_FILE, in one region each"
        )
    for state, word in (("away", "does not answer"), ("promoted", "follows nobody any more")):
        bad = [one.region for one in seen.copies if one.state == state]
        if bad:
            found = f"the copy of {', '.join(bad)} {word}"
            return missing(needs.REGIONS, found, "start it, or make it a standby again")
    late = [
        one.region
        for one in seen.copies
        if one.state != "streams" or one.unreplayed_bytes > _FAR_BYTES
    ]
    if late:
        found = f"the copy of {', '.join(late)} does not stream, or is far behind"
        return thin(needs.REGIONS, found, "see its log: what it lacks is lost with the region")
    return met(needs.REGIONS, f"{seen.own}; copies of {', '.join(c.region for c in seen.copies)}")
