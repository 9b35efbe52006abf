"""Queues: how much waits, pausing, and dead letters.

Queues belong to the installation, so depths and pausing are its first workspace's; dead letters
belong to the workspace whose work they are.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core.errors import NotFound
from mailyard.core.limits import API_PAGE_ITEMS, API_PAGE_ITEMS_MAX
from mailyard.queue.job import LANES, DeadJob
from mailyard.storage.database import Connection
from mailyard.web.api.page import Input, Limit, Moment, Output
from mailyard.web.api.route import Answer, Call, Route

TAG = "Queues"
_Queue = Literal[LANES]  # type: ignore[valid-type]  # the lanes are a tuple of names
_JobId = Annotated[int, Meta(ge=1, le=2**63 - 1)]
_OPERATOR = "Only from the installation's first workspace."


class QueueItem(Output):
    """How much waits in a queue."""

    queue: str
    paused: bool
    ready: int
    scheduled: int
    leased: int
    dead: int
    oldest_age_s: Annotated[float, Meta(description="Of the oldest job that is due.")]


class QueueList(Output):
    """All queues."""

    items: list[QueueItem]


class QueueState(Output):
    """Whether the queue is paused now."""

    queue: str
    paused: bool


class DeadLetter(Output):
    """A job that was given up."""

    id: int
    queue: str
    kind: str
    attempts: int
    crashes: int
    error: str
    enqueued_at: Moment
    buried_at: Moment
    chances: Annotated[int, Meta(description="How often it came back by itself and died again.")]
    again_at: Annotated[
        Moment | None, Meta(description="When it comes back by itself; null: only when redriven.")
    ]


class DeadLetterPage(Output):
    """Dead letters, newest first."""

    items: list[DeadLetter]
    next_before: Annotated[int | None, Meta(description="Give it as `before` for the next page.")]


class DeadLettersQuery(Input):
    """Which dead letters to list."""

    queue: _Queue | None = None
    before: _JobId | None = None
    limit: Limit = API_PAGE_ITEMS


class DeadLetterIds(Input):
    """Which dead letters."""

    ids: Annotated[list[_JobId], Meta(min_length=1, max_length=API_PAGE_ITEMS_MAX)]


class ChangedDeadLetters(Output):
    """Those that it was done to; the others are not there, or not yours."""

    ids: list[int]


async def list_queues(call: Call[None, None]) -> QueueList:
    await call.app.workspaces.require_operator(call.workspace_id)
    paused = await call.app.queue_admin.paused()
    return QueueList(
        items=[
            QueueItem(
                queue=depth.queue,
                paused=depth.queue in paused,
                ready=depth.ready,
                scheduled=depth.scheduled,
                leased=depth.leased,
                dead=depth.dead,
                oldest_age_s=depth.oldest_age_s,
            )
            for depth in await call.app.queue_admin.depths()
        ]
    )


async def pause_queue(call: Call[None, None]) -> Answer:
    return await _set_paused(call, paused=True)


async def resume_queue(call: Call[None, None]) -> Answer:
    return await _set_paused(call, paused=False)


async def _set_paused(call: Call[None, None], *, paused: bool) -> Answer:
    await call.app.workspaces.require_operator(call.workspace_id)
    queue, admin = call.names["queue"], call.app.queue_admin
    if queue not in LANES:
        raise NotFound(f"no such queue; queues: {', '.join(LANES)}")
    before = queue in await admin.paused()
    async with call.app.database.transaction() as tx:
        await (admin.pause if paused else admin.resume)(queue, tx)
        action = "queue.pause" if paused else "queue.resume"
        change = Change(action, queue, {"paused": before}, {"paused": paused})
        return await call.done(tx, QueueState(queue=queue, paused=paused), change)


def _letter(job: DeadJob) -> DeadLetter:
    return DeadLetter(
        id=job.id,
        queue=job.queue,
        kind=job.kind,
        attempts=job.attempts,
        crashes=job.crashes,
        error=job.error,
        enqueued_at=job.enqueued_at,
        buried_at=job.buried_at,
        chances=job.chances,
        again_at=job.again_at,
    )


async def list_dead_letters(call: Call[None, DeadLettersQuery]) -> DeadLetterPage:
    query = call.query
    jobs = await call.app.queue_admin.list_dead(
        call.workspace_id, query.queue, query.before, query.limit
    )
    return DeadLetterPage(
        items=[_letter(job) for job in jobs],
        next_before=jobs[-1].id if len(jobs) >= query.limit else None,
    )


async def redrive(call: Call[DeadLetterIds, None]) -> Answer:
    return await _take_out(call, "dead_letter.redrive", call.app.queue_admin.redrive)


async def discard(call: Call[DeadLetterIds, None]) -> Answer:
    return await _take_out(call, "dead_letter.discard", call.app.queue_admin.discard)


async def _take_out(
    call: Call[DeadLetterIds, None],
    action: str,
    act: Callable[[UUID, Sequence[int], Connection], Awaitable[set[int]]],
) -> Answer:
    async with call.app.database.transaction() as tx:
        ids = sorted(await act(call.workspace_id, call.body.ids, tx))
        changes = [Change(action, "dead letters", {"ids": ids}, None)] if ids else []
        return await call.done(tx, ChangedDeadLetters(ids=ids), *changes)


ROUTES = (
    Route(
        "GET",
        "/v1/queues",
        list_queues,
        "listQueues",
        TAG,
        "Read all queues' depths",
        scope.QUEUES_READ,
        answer=QueueList,
        description=_OPERATOR,
    ),
    Route(
        "POST",
        "/v1/queues/{queue}/pause",
        pause_queue,
        "pauseQueue",
        TAG,
        "Stop giving out a queue's jobs",
        scope.QUEUES_WRITE,
        answer=QueueState,
        description=_OPERATOR,
    ),
    Route(
        "POST",
        "/v1/queues/{queue}/resume",
        resume_queue,
        "resumeQueue",
        TAG,
        "Go on with a queue",
        scope.QUEUES_WRITE,
        answer=QueueState,
        description=_OPERATOR,
    ),
    Route(
        "GET",
        "/v1/dead-letters",
        list_dead_letters,
        "listDeadLetters",
        TAG,
        "List jobs that were given up",
        scope.QUEUES_READ,
        answer=DeadLetterPage,
        query=DeadLettersQuery,
    ),
    Route(
        "POST",
        "/v1/dead-letters/redrive",
        redrive,
        "redriveDeadLetters",
        TAG,
        "Put dead letters back into their queues",
        scope.QUEUES_WRITE,
        answer=ChangedDeadLetters,
        body=DeadLetterIds,
    ),
    Route(
        "POST",
        "/v1/dead-letters/discard",
        discard,
        "discardDeadLetters",
        TAG,
        "Remove dead letters for good",
        scope.QUEUES_WRITE,
        answer=ChangedDeadLetters,
        body=DeadLetterIds,
    ),
)
