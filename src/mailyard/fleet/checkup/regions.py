"""The checks of `mailyard doctor` on regions: is this site still its region, do the copies follow?

One finding for the region that this is, one for each copy that is kept here. What a copy's state
means stands here alone: `mailyard doctor --for STAGE` reads these findings (readiness/regions.py).
"""

from mailyard.access import neighbours as copies
from mailyard.access.neighbours import CopyState, Neighbours
from mailyard.core.errors import ConfigurationError, MailyardError
from mailyard.core.limits import MIB
from mailyard.fleet.checkup.finding import Finding, Grade
from mailyard.fleet.region_term import TermWatch
from mailyard.storage.database import Database

COPY = "copy of region "  # how the name of a copy's finding begins
_FAR_BYTES = 64 * MIB


async def check_regions(database: Database, neighbours: Neighbours) -> list[Finding]:
    """`database`: open, of the region that this is."""
    own = await _check_own(database, neighbours)
    return [own, *map(judge_copy, await neighbours.copies())]


async def _check_own(database: Database, neighbours: Neighbours) -> Finding:
    regions = neighbours.regions
    name = f"region {regions.own}"
    term = TermWatch(database, regions)
    try:
        await term.check()
    except ConfigurationError as error:
        return Finding(name, Grade.BAD, error.message, "docs/REGIONS.md, a region is lost")
    except MailyardError as error:
        return Finding(name, Grade.WARN, f"cannot be checked: {error.message}")
    finally:
        await term.close()
    others = ", ".join(region.name for region in regions.others)
    return Finding(name, Grade.GOOD, f"no neighbour ({others}) has taken it over")


def judge_copy(state: CopyState) -> Finding:
    """Whether its region could be taken over by this copy, and what would be lost with it."""
    name, region = COPY + state.region, state.region
    if state.word == copies.AWAY:
        return Finding(
            name, Grade.BAD, state.why, f"start it: without it {region} cannot be taken over"
        )
    if state.word == copies.PROMOTED:
        return Finding(
            name,
            Grade.BAD,
            "was promoted: it follows nobody any more",
            f"let it follow the one that is {region} now",
        )
    last = f"{state.last_commit_at:%Y-%m-%d %H:%M:%S} UTC" if state.last_commit_at else "never"
    if state.word == copies.SILENT:
        return Finding(
            name,
            Grade.WARN,
            f"does not hear its primary; its last commit is of {last}",
            "see the link and its log: what is committed there meanwhile is in one place only",
        )
    if state.unreplayed_bytes > _FAR_BYTES:
        return Finding(
            name,
            Grade.WARN,
            f"has {state.unreplayed_bytes / MIB:.0f} MB that it has not replayed",
            "see what holds it up: a take-over waits for it",
        )
    return Finding(name, Grade.GOOD, f"streams; its last commit is of {last}")
