"""What each stage wants: the checklist as a table."""

from collections.abc import Iterable, Mapping
from enum import Enum
from types import MappingProxyType

from mailyard.fleet.checkup.finding import Finding, Grade
from mailyard.fleet.readiness.item import Item, Standing
from mailyard.fleet.stage import Stage


class Need(Enum):
    """`NOT`: not asked there. `WISHED`: a warning without it. `MUST`: it fails without it."""

    NOT = "not"
    WISHED = "wished"
    MUST = "must"


LOAD_TEST = "load test"
MONITORING = "monitoring"
ALERTS = "alerts"
AUTOSCALING = "autoscaling"
BUDGET = "connection budget"
POOLING = "pooling"
REPLICA = "standby database"
REDIS = "Redis failover"
KAFKA = "queue at scale"
BLOBS = "object store"
CDN = "CDN headers"
BACKUP = "backup"
DRILL = "restore drill"
LIMITS = "limits"
CLIENTS = "client addresses"
HTTPS = "HTTPS"
SMTP_TLS = "SMTP TLS"
DNS = "DNS"
MASTER_KEY = "master key"
SPARE = "two of each role"
REGIONS = "regions"
SHARDS = "shards"

_NOT, _WISHED, _MUST = Need.NOT, Need.WISHED, Need.MUST

# In the order in which they are shown.       1         2         3       4
NEEDS: Mapping[str, tuple[Need, Need, Need, Need]] = MappingProxyType(
    {
        LOAD_TEST: (_WISHED, _MUST, _MUST, _MUST),
        MONITORING: (_WISHED, _MUST, _MUST, _MUST),
        ALERTS: (_WISHED, _MUST, _MUST, _MUST),
        AUTOSCALING: (_NOT, _WISHED, _MUST, _MUST),
        BUDGET: (_MUST, _MUST, _MUST, _MUST),
        POOLING: (_NOT, _MUST, _MUST, _MUST),
        REPLICA: (_NOT, _MUST, _MUST, _MUST),
        REDIS: (_NOT, _WISHED, _MUST, _MUST),
        KAFKA: (_NOT, _NOT, _WISHED, _WISHED),
        BLOBS: (_NOT, _WISHED, _MUST, _MUST),
        CDN: (_WISHED, _MUST, _MUST, _MUST),
        BACKUP: (_WISHED, _MUST, _MUST, _MUST),
        DRILL: (_WISHED, _MUST, _MUST, _MUST),
        LIMITS: (_MUST, _MUST, _MUST, _MUST),
        CLIENTS: (_NOT, _MUST, _MUST, _MUST),
        HTTPS: (_WISHED, _MUST, _MUST, _MUST),
        SMTP_TLS: (_WISHED, _MUST, _MUST, _MUST),
        DNS: (_WISHED, _MUST, _MUST, _MUST),
        MASTER_KEY: (_NOT, _MUST, _MUST, _MUST),
        SPARE: (_NOT, _MUST, _MUST, _MUST),
        REGIONS: (_NOT, _NOT, _NOT, _MUST),
        SHARDS: (_MUST, _MUST, _MUST, _MUST),
    }
)


def need(check: str, stage: Stage) -> Need:
    """What `stage` wants of an item."""
    return NEEDS[check][stage - 1]


def grade(items: Iterable[Item], stage: Stage) -> list[Finding]:
    """The findings at `stage`, in the order of NEEDS; what it does not ask for is left out."""
    order = list(NEEDS)
    asked = [one for one in items if need(one.check, stage) is not Need.NOT]
    asked.sort(key=lambda one: order.index(one.check))
    return [_finding(one, need(one.check, stage)) for one in asked]


def _finding(item: Item, wanted: Need) -> Finding:
    if item.standing is Standing.MET:
        return Finding(item.check, Grade.GOOD, item.found)
    fails = item.standing is Standing.MISSING and wanted is Need.MUST
    return Finding(item.check, Grade.BAD if fails else Grade.WARN, item.found, item.fix)
