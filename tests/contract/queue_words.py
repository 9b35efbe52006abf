"""Short words that the contract's tests are written in."""

from collections.abc import Iterable
from typing import Any

from mailyard.queue.engine import Engine
from mailyard.queue.job import Depth, LeasedJob, NewJob

Q = "email-send"


def job(payload: str = "", queue: str = Q, **rest: Any) -> NewJob:
    return NewJob(queue, rest.pop("kind", "deliver"), payload.encode(), **rest)


async def add(engine: Engine, *payloads: str, **rest: Any) -> list[int]:
    ids = await engine.enqueue([job(payload, **rest) for payload in payloads])
    return [job_id for job_id in ids if job_id is not None]


async def take(engine: Engine, limit: int = 100, queue: str = Q, **rest: Any) -> list[LeasedJob]:
    return await engine.lease([queue], limit, 0.0, "worker-1", **rest)


async def take_one(engine: Engine, queue: str = Q) -> LeasedJob:
    (leased,) = await take(engine, 1, queue)
    return leased


async def depth(engine: Engine, queue: str = Q) -> Depth:
    (found,) = await engine.depth([queue])
    return found


async def counts(engine: Engine, queue: str = Q) -> tuple[int, int, int, int]:
    """(ready, scheduled, leased, dead)"""
    found = await depth(engine, queue)
    return found.ready, found.scheduled, found.leased, found.dead


def payloads(jobs: Iterable[LeasedJob]) -> list[str]:
    return [leased.payload.decode() for leased in jobs]


def ids(jobs: Iterable[LeasedJob]) -> set[int]:
    return {leased.id for leased in jobs}


async def bury(engine: Engine, *names: str, **rest: Any) -> list[int]:
    given = await add(engine, *names, **rest)
    await engine.bury(await take(engine, queue=rest.get("queue", Q)), "no")
    return given
