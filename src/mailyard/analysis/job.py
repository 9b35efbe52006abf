"""The job `analyse`: which messages of a workspace are asked what. Light: ingest imports it."""

from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

import msgspec
from msgspec import Struct

from mailyard.analysis.task import Ask, Aspect
from mailyard.queue.batch import Batch, Handler
from mailyard.queue.job import ANALYSIS, NewJob

ANALYSE = "analyse"
MESSAGES_PER_JOB = 10
_CONCURRENCY = 8


class Payload(Struct, frozen=True):
    """The messages of one workspace, and the ask."""

    message_ids: list[UUID]
    aspects: tuple[Aspect, ...]
    fields: str


def jobs_of(
    workspace_id: UUID, message_ids: Sequence[UUID], ask: Ask, priority: int
) -> list[NewJob]:
    """The jobs that analyse messages."""
    return [
        NewJob(
            ANALYSIS,
            ANALYSE,
            msgspec.json.encode(
                Payload(
                    list(message_ids[start : start + MESSAGES_PER_JOB]), ask.aspects, ask.fields
                )
            ),
            workspace_id,
            priority=priority,
        )
        for start in range(0, len(message_ids), MESSAGES_PER_JOB)
    ]


def handler(work: Callable[[Batch], Awaitable[None]]) -> Handler:
    """What a worker needs. `work` loads what it needs with the first job."""
    return Handler(kind=ANALYSE, queue=ANALYSIS, handle=work, concurrency=_CONCURRENCY)
