"""Whether a region could be lost: the others are known, and a copy of one of them is kept here.

How a copy stands was found by the checks that every `mailyard doctor` makes (checkup/regions.py).
"""

from collections.abc import Sequence

from mailyard.access.region import Regions
from mailyard.fleet.checkup.finding import Finding, Grade
from mailyard.fleet.checkup.regions import COPY
from mailyard.fleet.readiness import needs
from mailyard.fleet.readiness.item import Item, met, missing, thin
from mailyard.fleet.readiness.stores import named


def judge_regions(
    findings: Sequence[Finding], known: Regions | str, *, kafka: bool = False
) -> Item:
    """A neighbour that could be taken over. `known`: why the file is not read, where it is not.
    `kafka`: jobs are in a log that no copy has."""
    fix = "MAILYARD_REGION and MAILYARD_REGIONS_FILE (docs/REGIONS.md)"
    if isinstance(known, str):
        return missing(needs.REGIONS, known, "mend MAILYARD_REGIONS_FILE (docs/REGIONS.md)")
    others = ", ".join(region.name for region in known.others)
    if not known.own or not others:
        return missing(needs.REGIONS, "no other region is known here", fix)
    if not any(region.standby for region in known.others):
        found = f"no copy of {others} is kept here: a lost region stays lost"
        return missing(
            needs.REGIONS, found, "`standby` in MAILYARD_REGIONS_FILE, in one region each"
        )
    copies = named(findings, COPY)
    if not copies:  # the finding on the regions says why
        return missing(needs.REGIONS, "the copies were not asked", "see that PostgreSQL answers")
    for grade, stands in ((Grade.BAD, missing), (Grade.WARN, thin)):
        for one in copies:
            if one.grade is grade:
                return stands(needs.REGIONS, f"the {one.check}: {one.found}", one.fix)
    if kafka:
        found = "jobs in Kafka are in no copy: what a lost region has not done stays undone"
        return thin(needs.REGIONS, found, "MAILYARD_QUEUE_ENGINE=postgres (docs/REGIONS.md)")
    return met(needs.REGIONS, f"{known.own}; {'; '.join(f'{c.check} {c.found}' for c in copies)}")
