"""What each lane needs of its engine, and which engine lacks it.

A lane that is not listed needs the core alone. What a lane needs is what its work relies on, not
what it would like: transactional mail likes priorities, and is right without them.
"""

from collections.abc import Sequence

from mailyard.core.errors import ConfigurationError
from mailyard.queue.engine import Capability
from mailyard.queue.job import (
    ANALYSIS,
    CLEANUP,
    EMAIL_BULK,
    EMAIL_EVENTS,
    EMAIL_SEND,
    INBOUND_EMAIL,
    LANES,
    MAILBOX_SYNC,
    MEDIA,
    WEBHOOKS,
)

NEEDS = {
    INBOUND_EMAIL: Capability.TRANSACTIONAL | Capability.DELAYS,
    EMAIL_SEND: Capability.TRANSACTIONAL | Capability.DELAYS,
    EMAIL_BULK: Capability.TRANSACTIONAL | Capability.DELAYS | Capability.UNIQUE,
    EMAIL_EVENTS: Capability.TRANSACTIONAL | Capability.DELAYS,
    # A model is slow: one tenant's mail must not stand before everybody's.
    ANALYSIS: Capability.TRANSACTIONAL | Capability.DELAYS | Capability.TENANT_TURNS,
    # Endpoints that are slow share a few places, so that they hold up no others.
    WEBHOOKS: Capability.TRANSACTIONAL | Capability.UNIQUE | Capability.KEY_LIMITS,
    # One mailbox of a million mails must not stand before everybody's.
    MAILBOX_SYNC: Capability.UNIQUE | Capability.DELAYS | Capability.TENANT_TURNS,
    # Reindexing goes behind what came just now.
    MEDIA: Capability.TRANSACTIONAL | Capability.UNIQUE | Capability.PRIORITIES,
    CLEANUP: Capability.UNIQUE | Capability.DELAYS,
}

PARTITIONS_MOST = 10_000

_WORDS = {
    Capability.TRANSACTIONAL: "transactions",
    Capability.PRIORITIES: "priorities",
    Capability.TENANT_TURNS: "turns between tenants",
    Capability.KEY_LIMITS: "limits on rate and concurrency per key",
    Capability.UNIQUE: "unique keys",
    Capability.DELAYS: "delays",
    Capability.PAUSE: "pausing",
}


def parse_lanes(text: str) -> tuple[str, ...]:
    """Names of lanes with commas between, each once. Raises ValueError for one that is none."""
    lanes = tuple(dict.fromkeys(word for word in text.replace(",", " ").split()))
    if not set(lanes) <= set(LANES):
        raise ValueError
    return lanes


def parse_partitions(text: str) -> dict[str, int]:
    """`lane=number`, with commas between. Raises ValueError."""
    found = {}
    for word in filter(None, text.replace(" ", "").split(",")):
        lane, _, number = word.partition("=")
        if lane not in LANES or not 1 <= int(number) <= PARTITIONS_MOST:
            raise ValueError
        found[lane] = int(number)
    return found


def check_lanes(lanes: Sequence[str], capabilities: Capability, engine: str, setting: str) -> None:
    """Raises ConfigurationError naming the first lane that needs what `engine` lacks."""
    for lane in lanes:
        lacking = NEEDS[lane] & ~capabilities
        if lacking:
            words = " and ".join(_WORDS[one] for one in Capability if one in lacking)
            raise ConfigurationError(
                f"{setting} names {lane}, which needs {words}, and the queue on {engine} has no "
                f"{words}; take {lane} out of {setting}: it stays on PostgreSQL"
            )
