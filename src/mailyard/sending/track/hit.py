"""What comes in through links and pixels: durable before it is answered.

Hits that come while one commit runs share the next one; a commit holds one job for each workspace.
Who did it, and what follows from it, is found out by that job (`record.py`).
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from ipaddress import IPv4Address, ip_address
from uuid import UUID

import msgspec

from mailyard.core import ids
from mailyard.core.clock import Clock
from mailyard.core.limits import JOB_PAYLOAD_BYTES
from mailyard.queue.engine import Engine
from mailyard.queue.job import EMAIL_EVENTS, NewJob
from mailyard.sending.group import GroupCommit

HITS = "tracking-hits"
AGENT_CHARACTERS = 200
_PEER_CHARACTERS = 45
_HIT_BYTES = 3 * 18 + 3 * AGENT_CHARACTERS + _PEER_CHARACTERS + 16  # at most, in msgpack
GROUP_HITS = JOB_PAYLOAD_BYTES // _HIT_BYTES


class Hit(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One request. Ids are the bytes of UUIDs; that of the hit has its time. No link: an open."""

    id: bytes
    delivery: bytes
    link: bytes
    method: str
    user_agent: str
    peer: str


class Hits(msgspec.Struct, array_like=True, frozen=True):
    """What a job carries. `tries`: how often it was too early for some of its deliveries."""

    hits: list[Hit]
    tries: int = 0


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Hits)


def hits_job(workspace_id: UUID, hits: Hits, run_at: datetime | None = None) -> NewJob:
    """The job of one workspace's hits."""
    return NewJob(
        queue=EMAIL_EVENTS,
        kind=HITS,
        payload=_ENCODER.encode(hits),
        workspace_id=workspace_id,
        run_at=run_at,
    )


def read_hits(payload: bytes) -> Hits:
    """What `hits_job` wrote."""
    return _DECODER.decode(payload)


def network_of(peer: str) -> str:
    """The network that an address is in, which says where and not who; empty for no address."""
    try:
        address = ip_address(peer)
    except ValueError:
        return ""
    if isinstance(address, IPv4Address):
        return f"{IPv4Address(int(address) >> 8 << 8)}/24"
    return f"{type(address)(int(address) >> 80 << 80)}/48"


class HitCollector:
    """Takes hits in. One for a process."""

    def __init__(self, *, engine: Engine, clock: Clock | None = None) -> None:
        """`clock` None: the system's."""
        self._engine = engine
        self._clock = clock
        self._group: GroupCommit[tuple[UUID, Hit], None] = GroupCommit(
            self._commit, weight_max=GROUP_HITS
        )

    def take(
        self,
        workspace_id: UUID,
        delivery: bytes,
        link: bytes,
        method: str,
        user_agent: str,
        peer: str,
    ) -> "asyncio.Future[None]":
        """Await it: durable then. Raises Unavailable."""
        clock = self._clock
        hit_id = ids.uuid7() if clock is None else ids.uuid7(int(clock.now().timestamp() * 1000))
        hit = Hit(
            hit_id.bytes,
            delivery,
            link,
            method,
            user_agent[:AGENT_CHARACTERS],
            peer[:_PEER_CHARACTERS],
        )
        return self._group.submit((workspace_id, hit))

    async def _commit(self, taken: Sequence[tuple[UUID, Hit]]) -> list[None]:
        of: dict[UUID, list[Hit]] = {}
        for workspace_id, hit in taken:
            of.setdefault(workspace_id, []).append(hit)
        await self._engine.enqueue([hits_job(one, Hits(hits)) for one, hits in of.items()])
        return [None] * len(taken)
