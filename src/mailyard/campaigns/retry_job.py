"""The jobs that try deferred recipients of a chunk again: who shares one, and when it runs."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from mailyard.queue.job import EMAIL_BULK, NewJob

RETRY = "campaign-retry"
JOB_RECIPIENTS = 1_000
_TOGETHER = timedelta(seconds=5)
Waiting = tuple[UUID, datetime]  # a delivery, and when it is to be tried again


def retry_jobs(
    workspace_id: UUID, campaign_id: UUID, number: int, waiting: Sequence[Waiting]
) -> list[NewJob]:
    """The jobs that try recipients of chunk `number` again, each not before its instant."""
    head = campaign_id.bytes + number.to_bytes(4, "big")
    jobs = []
    for together in _together(waiting):
        payload = head + b"".join(delivery_id.bytes for delivery_id, _ in together)
        jobs.append(
            NewJob(
                queue=EMAIL_BULK,
                kind=RETRY,
                payload=payload,
                workspace_id=workspace_id,
                run_at=together[-1][1],
                max_attempts=1000,
            )
        )
    return jobs


def _together(waiting: Sequence[Waiting]) -> list[list[Waiting]]:
    """Who is due within _TOGETHER of one another shares a job, as far as its size allows."""
    groups: list[list[Waiting]] = []
    for one in sorted(waiting, key=lambda each: (each[1], each[0])):
        group = groups[-1] if groups else []
        if not group or one[1] - group[0][1] > _TOGETHER or len(group) >= JOB_RECIPIENTS:
            groups.append([one])
        else:
            group.append(one)
    return groups
