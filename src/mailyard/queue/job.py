"""A job: something to do later, at least once, by whichever worker takes it.

The queue knows nothing of what a payload means. Lanes are named queues (DESIGN section 5), each
with its own concurrency, priority, rate limit and scaling policy.
"""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from mailyard.core.errors import InvalidInput
from mailyard.core.limits import JOB_PAYLOAD_BYTES
from mailyard.observe import trace as traces

INBOUND_EMAIL = "inbound-email"
EMAIL_SEND = "email-send"
EMAIL_BULK = "email-bulk"
EMAIL_EVENTS = "email-events"
ANALYSIS = "analysis"
WEBHOOKS = "webhooks"
MAILBOX_SYNC = "mailbox-sync"
MEDIA = "media"
CLEANUP = "cleanup"

LANES = (
    INBOUND_EMAIL,
    EMAIL_SEND,
    EMAIL_BULK,
    EMAIL_EVENTS,
    ANALYSIS,
    WEBHOOKS,
    MAILBOX_SYNC,
    MEDIA,
    CLEANUP,
)

CRASHED = "its worker died or stood still while it held the job"


@dataclass(frozen=True, slots=True)
class NewJob:
    """What a caller enqueues.

    `priority`: 0 first, 9 last. `run_at`: not before (None: now). `unique_key`: while a job with
    this key waits or runs in the queue, another one is not added. `limit_key`: jobs that share it
    share the rate and concurrency limit that the queue's policy names for keys. `trace`: the marks
    of what it follows from (`observe/trace.py`), by itself those of the caller.
    """

    queue: str
    kind: str
    payload: bytes
    workspace_id: UUID | None = None
    priority: int = 5
    run_at: datetime | None = None
    unique_key: str | None = None
    limit_key: str | None = None
    max_attempts: int = 20
    trace: bytes = field(default_factory=traces.marks, kw_only=True)

    @property
    def stored(self) -> bytes:
        """The payload as engines keep it, with its marks."""
        return traces.packed(self.trace, self.payload) if self.trace else self.payload


@dataclass(frozen=True, slots=True)
class LeasedJob:
    """A job in a worker's hands until `expires_at`, under the fencing token `token`.

    Tokens grow with every lease ever given, so whoever holds the larger token of a job is its
    rightful worker. `attempt` counts leases, 1 first; `crashes` counts leases that ran out without
    a word from the worker, since the last one that ended with a retry. `turn` counts how often the
    job has come back into its line; with the token it names this one lease of this one job.
    """

    id: int
    queue: str
    kind: str
    payload: bytes
    workspace_id: UUID | None
    attempt: int
    crashes: int
    max_attempts: int
    token: int
    enqueued_at: datetime
    expires_at: datetime
    turn: int = 0
    trace: bytes = field(default=b"", kw_only=True)

    @property
    def stored(self) -> bytes:
        """The payload as engines keep it, with its marks."""
        return traces.packed(self.trace, self.payload) if self.trace else self.payload


@dataclass(frozen=True, slots=True)
class Depth:
    """How much waits in one queue: counts from counters, age in seconds of the oldest due job."""

    queue: str
    ready: int
    scheduled: int
    leased: int
    dead: int
    oldest_age_s: float


@dataclass(frozen=True, slots=True)
class KeyPolicy:
    """What a queue allows the jobs of one limit_key; None: no such limit.

    `rate_per_s` starts a second with bursts of `burst`, `concurrency` at the same time. Jobs over
    the limit wait beside the line, so that they hold up nobody.
    """

    rate_per_s: float | None = None
    burst: int = 1
    concurrency: int | None = None

    @property
    def limits(self) -> bool:
        """Does it limit anything?"""
        return self.rate_per_s is not None or self.concurrency is not None


@dataclass(frozen=True, slots=True)
class DeadJob:
    """A buried job, waiting for redrive or discard.

    Buried for crashes it comes back by itself at `again_at`, unless its second chances (`chances`:
    how many it has had) are used up.
    """

    id: int
    queue: str
    kind: str
    payload: bytes
    workspace_id: UUID | None
    attempts: int
    crashes: int
    error: str
    enqueued_at: datetime
    buried_at: datetime
    chances: int = 0
    again_at: datetime | None = None


def check(new: NewJob) -> None:
    """Raises InvalidInput for a job that no engine takes."""
    if len(new.payload) > JOB_PAYLOAD_BYTES:
        raise InvalidInput(f"a payload has at most {JOB_PAYLOAD_BYTES} bytes", field="payload")
    if not 0 <= new.priority <= 9:
        raise InvalidInput("priority is 0 (first) to 9 (last)", field="priority")
    if not 1 <= new.max_attempts <= 1000:
        raise InvalidInput("max_attempts is 1 to 1000", field="max_attempts")
    if not new.queue or not new.kind:
        raise InvalidInput("a job has a queue and a kind", field="queue")
