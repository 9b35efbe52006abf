"""Whether processes come and go with the load, and one of them may be lost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mailyard.fleet.readiness import needs
from mailyard.fleet.readiness.item import Item, met, missing, thin

OFF, LOCAL, KUBERNETES, DRY_RUN, OUTSIDE = "off", "local", "kubernetes", "dry-run", "outside"
ROLES = ("api", "smtp", "worker", "scheduler")


@dataclass(frozen=True, slots=True)
class ScalingSeen:
    """`mode`: MAILYARD_AUTOSCALE. `schedulers`: how many live. `trouble`: why a group cannot be
    scaled, by group. `most`: processes of all groups at their ceilings; `room`: how many the
    connection budget has room for."""

    mode: str
    schedulers: int
    trouble: Mapping[str, str]
    most: int
    room: int


def judge_autoscaling(seen: ScalingSeen) -> Item:
    """Somebody makes more processes when there is more to do."""
    if seen.mode == OFF:
        return missing(
            needs.AUTOSCALING,
            "off: processes are as many as the settings say",
            "MAILYARD_AUTOSCALE=local or kubernetes; outside where HPA or KEDA scale by /metrics",
        )
    if seen.mode == OUTSIDE:
        return met(needs.AUTOSCALING, "left to what scales by our metrics (HPA, KEDA)")
    if seen.schedulers == 0:
        fix = "start mailyard scheduler: the one that leads decides"
        return missing(needs.AUTOSCALING, f"{seen.mode}, and no scheduler lives", fix)
    if seen.trouble:
        group, why = next(iter(seen.trouble.items()))
        fix = "see docs/AUTOSCALING.md: the Deployment's name, and the service account's rights"
        return missing(needs.AUTOSCALING, f"{group} cannot be scaled: {why}", fix)
    if seen.mode == DRY_RUN:
        fix = "MAILYARD_AUTOSCALE=local or kubernetes, once its decisions read well"
        return thin(needs.AUTOSCALING, "dry-run: it decides, and nobody acts", fix)
    if seen.most > seen.room:
        return thin(
            needs.AUTOSCALING,
            f"{seen.mode}, up to {seen.most} processes, but the connection budget has room for "
            f"{seen.room}: it stops there",
            "raise MAILYARD_DATABASE_BUDGET, or lower `most` in MAILYARD_AUTOSCALE_FILE",
        )
    return met(needs.AUTOSCALING, f"{seen.mode}, up to {seen.most} processes")


def judge_spare(hosts: Mapping[str, Sequence[str]] | None) -> Item:
    """Two of each role, on more than one machine. `hosts`: of the living processes, by role; None
    when the database does not say."""
    if hosts is None:
        return missing(needs.SPARE, "not known: the database does not say", "see the database")
    alone = [role for role in ROLES if len(hosts.get(role, ())) < 2]
    if alone:
        counts = ", ".join(f"{len(hosts.get(role, ()))} {role}" for role in alone)
        fix = "start a second one: whichever dies, the other goes on"
        return missing(needs.SPARE, f"there is {counts}", fix)
    found = ", ".join(f"{len(hosts[role])} {role}" for role in ROLES)
    machines = {host for some in hosts.values() for host in some}
    if len(machines) < 2:
        fix = "put the second of each on another machine"
        return thin(needs.SPARE, f"{found}, all on {machines.pop()}", fix)
    return met(needs.SPARE, f"{found}, on {len(machines)} machines")
