"""Taking providers' events in: checked, durable, answered. What they mean is looked at later.

Requests that come together share a commit: the signatures that were never seen before, and a job
for each endpoint with the bodies as they came. A signature that stands already is a replay.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric import rsa

from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import Conflict, MailyardError, TooLarge, Unavailable
from mailyard.core.limits import HOOK_BODY_BYTES, KIB, MIB
from mailyard.queue.engine import Engine
from mailyard.queue.job import EMAIL_EVENTS, NewJob
from mailyard.sending.group import GroupCommit
from mailyard.sending.returns.events import PROVIDER_EVENTS, Bodies, encode
from mailyard.sending.returns.hook import OpenHook, ProviderHooks
from mailyard.sending.returns.hooks import ses
from mailyard.sending.returns.hooks.kinds import kind_of
from mailyard.sending.returns.hooks.told import Headers, Refused
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("provider_hook")

_GROUP_BYTES = 4 * MIB
_JOB_BYTES = 900 * KIB  # a payload holds JOB_PAYLOAD_BYTES
_JOB_BODIES = 500
_WEIGHT_BYTES = 1 * KIB  # what a request weighs beside its body
_SEEN_S = ses.MAX_AGE_S + 600.0  # longer than any signature is taken
_SIGNATURE_BYTES = 16
_CERTIFICATES = 50
_CERTIFICATE_S = 24 * 3600.0

Fetch = Callable[[str], Awaitable[bytes]]
"""The bytes at a URL. Raises MailyardError."""


class Replayed(Conflict):
    """This very request was taken before."""

    code = "hook_replayed"


class Certificates:
    """The keys behind SNS' signatures, by the address of their certificates."""

    def __init__(self, *, fetch: Fetch, clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._known: dict[str, tuple[float, rsa.RSAPublicKey]] = {}
        self._asked: dict[str, asyncio.Task[bytes]] = {}

    async def key(self, url: str) -> rsa.RSAPublicKey:
        """Raises Refused for what is no certificate, Unavailable when it cannot be fetched."""
        known = self._known.get(url)
        now = self._clock.monotonic()
        if known is not None and known[0] > now:
            return known[1]
        key = ses.public_key(await self._pem(url), self._clock.now())
        if len(self._known) >= _CERTIFICATES:
            self._known.clear()
        self._known[url] = (now + _CERTIFICATE_S, key)
        return key

    async def _pem(self, url: str) -> bytes:
        """Fetched once for all who ask meanwhile."""
        task = self._asked.get(url)
        if task is None:
            task = asyncio.ensure_future(self._fetch(url))
            self._asked[url] = task
            task.add_done_callback(lambda _: self._asked.pop(url, None))
        try:
            return await asyncio.shield(task)
        except MailyardError as error:
            raise Unavailable(f"SNS' certificate cannot be fetched now: {error}") from error


@dataclass(frozen=True, slots=True)
class _Request:
    hook: OpenHook
    body: bytes
    at: datetime
    signature: bytes  # empty where nothing tells a replay


class HookIntake:
    """Takes what comes to `/v1/hooks/{kind}/{token}`."""

    def __init__(
        self,
        *,
        database: Database,
        engine: Engine,
        hooks: ProviderHooks,
        fetch: Fetch,
        clock: Clock | None = None,
    ) -> None:
        self._database = database
        self._engine = engine
        self._hooks = hooks
        self._clock = clock or SystemClock()
        self._certificates = Certificates(fetch=fetch, clock=self._clock)
        self._group: GroupCommit[_Request, bool] = GroupCommit(
            self._commit, weight_max=_GROUP_BYTES
        )

    async def take(self, kind: str, token: str, headers: Headers, body: bytes) -> None:
        """Durable when it returns.

        Raises NotFound for an address that is nobody's, Refused for what the provider has not
        signed or has signed too long ago, Replayed, TooLarge, Unavailable.
        """
        if len(body) > HOOK_BODY_BYTES:
            raise TooLarge(f"the body may have {HOOK_BODY_BYTES} bytes")
        hook = await self._hooks.find(kind, token)
        mark = await self._check(hook, headers, body)
        signature = sha256(mark).digest()[:_SIGNATURE_BYTES] if mark else b""
        request = _Request(hook, body, self._clock.now(), signature)
        if not await self._group.submit(request, weight=len(body) + _WEIGHT_BYTES):
            raise Replayed("this request was taken before")

    async def _check(self, hook: OpenHook, headers: Headers, body: bytes) -> bytes:
        check = kind_of(hook.kind).check
        now = self._clock.now()
        if check is not None:
            return check(hook.secret, headers, body, now)
        message = ses.envelope(body)
        if message.get("TopicArn") != hook.secret:
            raise Refused("it is of another topic")
        key = await self._certificates.key(ses.certificate_url(message))
        return ses.check(hook.secret, message, key, now)

    async def _commit(self, requests: Sequence[_Request]) -> list[bool]:
        """Whether each was taken: those that are replays were not."""
        async with self._database.transaction() as tx:
            fresh = await self._see(requests, tx)
            taken = [one for one, is_new in zip(requests, fresh, strict=True) if is_new]
            await self._engine.enqueue(_jobs(taken), tx)
        return fresh

    async def _see(self, requests: Sequence[_Request], tx: Connection) -> list[bool]:
        """Note the signatures; whether each request is the first with its own."""
        firsts: dict[tuple[UUID, bytes], int] = {}
        for index, one in enumerate(requests):
            if one.signature:
                firsts.setdefault((one.hook.id, one.signature), index)
        seen: set[tuple[UUID, bytes]] = set()
        if firsts:
            until = self._clock.now() + timedelta(seconds=_SEEN_S)
            rows = await self._database.fetch(
                _SQL.see_signatures,
                [hook_id for hook_id, _ in firsts],
                [signature for _, signature in firsts],
                [until] * len(firsts),
                tx=tx,
            )
            seen = {(row["hook_id"], row["signature"]) for row in rows}
        return [
            not one.signature
            or (
                (one.hook.id, one.signature) in seen and firsts[one.hook.id, one.signature] == index
            )
            for index, one in enumerate(requests)
        ]


def _jobs(requests: Sequence[_Request]) -> list[NewJob]:
    """The requests of each endpoint, in as few jobs as hold them."""
    by_hook: dict[UUID, list[_Request]] = {}
    for one in requests:
        by_hook.setdefault(one.hook.id, []).append(one)
    jobs = []
    for same in by_hook.values():
        lot: list[_Request] = []
        size_bytes = 0
        for one in same:
            if lot and (size_bytes + len(one.body) > _JOB_BYTES or len(lot) >= _JOB_BODIES):
                jobs.append(_job(lot))
                lot, size_bytes = [], 0
            lot.append(one)
            size_bytes += len(one.body)
        jobs.append(_job(lot))
    return jobs


def _job(requests: Sequence[_Request]) -> NewJob:
    hook = requests[0].hook
    bodies = [(int(one.at.timestamp() * 1000), one.body) for one in requests]
    return NewJob(
        queue=EMAIL_EVENTS,
        kind=PROVIDER_EVENTS,
        payload=encode(Bodies(hook.id.bytes, hook.kind, bodies)),
        workspace_id=hook.workspace_id,
    )
