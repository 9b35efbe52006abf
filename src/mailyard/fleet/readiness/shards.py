"""Whether each database cluster beside the home one is as ready as that, and has processes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mailyard.fleet.checkup.finding import Finding, Grade
from mailyard.fleet.readiness import needs
from mailyard.fleet.readiness.item import Item, met, missing, thin

ROLES = ("worker", "scheduler")


@dataclass(frozen=True, slots=True)
class ShardSeen:
    """One cluster. `findings`: what every `mailyard doctor` finds about it; `processes`: how many
    of each role give signs of life there; None: it does not answer."""

    name: str
    findings: Sequence[Finding]
    processes: Mapping[str, int] | None = field(default=None)


def judge_shards(seen: Sequence[ShardSeen]) -> Item:
    """All of them, or the first that something is wrong with."""
    if not seen:
        return met(needs.SHARDS, "one database cluster")
    for one in seen:
        for finding in one.findings:
            if finding.grade is Grade.BAD:
                return missing(needs.SHARDS, f"{finding.check}: {finding.found}", finding.fix)
        for role in ROLES:
            if not (one.processes or {}).get(role):
                return missing(
                    needs.SHARDS,
                    f"{one.name} has no {role}: what comes in there is kept and waits",
                    f"start `mailyard {role} --shard {one.name}`",
                )
    for one in seen:
        for finding in one.findings:
            if finding.grade is Grade.WARN:
                return thin(needs.SHARDS, f"{finding.check}: {finding.found}", finding.fix)
        if (one.processes or {}).get("scheduler") == 1:
            found = f"{one.name} has one scheduler: nobody stands by"
            return thin(needs.SHARDS, found, f"a second `mailyard scheduler --shard {one.name}`")
    return met(needs.SHARDS, f"home and {', '.join(one.name for one in seen)}")
