"""What the memory engine remembers of a job and of a limited key."""

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from mailyard.queue.job import DeadJob, KeyPolicy, LeasedJob, NewJob


@dataclass(slots=True)
class MemoryJob:
    id: int
    new: NewJob
    enqueued_at: datetime
    due_at: datetime
    state: str = "ready"  # ready, scheduled, parked, leased, dead
    attempts: int = 0
    crashes: int = 0
    turn: int = 0
    token: int = 0
    expires_at: datetime | None = None
    admitted: bool = False
    error: str = ""
    buried_at: datetime | None = None
    chances: int = 0
    again_at: datetime | None = None

    def lent_to(self, token: int, expires_at: datetime) -> LeasedJob:
        """The job as its worker gets it."""
        self.state = "leased"
        self.token = token
        self.expires_at = expires_at
        new = self.new
        return LeasedJob(
            id=self.id,
            queue=new.queue,
            kind=new.kind,
            payload=new.payload,
            workspace_id=new.workspace_id,
            attempt=self.attempts + 1,
            crashes=self.crashes,
            max_attempts=new.max_attempts,
            token=token,
            enqueued_at=self.enqueued_at,
            expires_at=expires_at,
            turn=self.turn,
            trace=new.trace,
        )

    def as_dead(self) -> DeadJob:
        """The job as dead letters are read."""
        assert self.buried_at is not None
        return DeadJob(
            id=self.id,
            queue=self.new.queue,
            kind=self.new.kind,
            payload=self.new.payload,
            workspace_id=self.new.workspace_id,
            attempts=self.attempts,
            crashes=self.crashes,
            error=self.error,
            enqueued_at=self.enqueued_at,
            buried_at=self.buried_at,
            chances=self.chances,
            again_at=self.again_at,
        )


@dataclass(slots=True)
class MemoryKey:
    """The jobs of one limit_key: those that wait, and those let through and not yet finished."""

    waiting: deque[int] = field(default_factory=deque)
    running: set[int] = field(default_factory=set)
    tat: datetime | None = None

    def may_run(self, policy: KeyPolicy, now: datetime) -> bool:
        """Whether one more may be let through; what the rate allows is spent by asking."""
        if policy.concurrency is not None and len(self.running) >= policy.concurrency:
            return False
        if policy.rate_per_s is not None:
            step = timedelta(seconds=1.0 / policy.rate_per_s)
            moved = max(self.tat or now, now) + step
            if moved - now > step * policy.burst:
                return False
            self.tat = moved
        return True
