"""The checks of `mailyard doctor` on regions: is this site still its region, do the copies follow?

One finding for the region that this is, one for each copy that is kept here.
"""

from mailyard.access.neighbours import Neighbours
from mailyard.core.errors import ConfigurationError, MailyardError, Unavailable
from mailyard.fleet.checkup.finding import Finding, Grade
from mailyard.fleet.region_term import TermWatch
from mailyard.storage.database import Database


async def check_regions(database: Database, neighbours: Neighbours) -> list[Finding]:
    """`database`: open, of the region that this is."""
    own = await _check_own(database, neighbours)
    return [own, *[await _check_copy(neighbours, name) for name in _kept(neighbours)]]


def _kept(neighbours: Neighbours) -> list[str]:
    return [region.name for region in neighbours.regions.others if region.standby]


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


async def _check_copy(neighbours: Neighbours, region: str) -> Finding:
    name = f"copy of region {region}"
    try:
        state = await neighbours.state_of(neighbours.regions.find(region))
    except Unavailable as error:
        return Finding(
            name, Grade.BAD, error.message, f"start it: without it {region} cannot be taken over"
        )
    if not state.follows:
        return Finding(
            name, Grade.WARN, "was promoted", f"let it follow the one that is {region} now"
        )
    last = "never" if state.last_commit_at is None else f"{state.last_commit_at:%Y-%m-%d %H:%M:%S}"
    if not state.streams:
        return Finding(
            name,
            Grade.WARN,
            f"does not hear its primary; its last commit is of {last}",
            "see the link and its log: what is committed there meanwhile is in one place only",
        )
    return Finding(name, Grade.GOOD, f"streams; its last commit is of {last} UTC")
