"""MTA-STS policies of the domains that are written to (RFC 8461), kept for all workers.

A policy that was fetched once holds until it expires, whatever happens to DNS meanwhile, so it is
kept in the database: a worker reads all of them when it begins, and every half a minute what has
changed. What to do for a domain is decided purely (`protocol.mta_sts`).
"""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Protocol

import asyncpg
import structlog

from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import InvalidInput, MailyardError
from mailyard.net.http import HttpClient, HttpFailure
from mailyard.protocol.dns_answer import Result
from mailyard.protocol.mta_sts import (
    POLICY_BYTES,
    CachedPolicy,
    FetchFailure,
    FetchPolicy,
    Mode,
    StsPolicy,
    UsePolicy,
    next_step,
    parse_policy,
    policy_url,
    record_name,
)
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_SQL = load("sts")
_log = structlog.get_logger(__name__)

FETCH_S = 10.0  # section 3.3 suggests a minute, while which mail would wait
REFRESH_EVERY_S = 30.0
OVERLAP = timedelta(seconds=30)  # commits come out of order
POLICIES_MAX = 200_000
_PAGE = 10_000
_FAILURE_CHARACTERS = 300


class TxtLookup(Protocol):
    """What is asked of DNS (`net.dns.Resolver`)."""

    async def txt(self, name: str) -> Result[str]: ...


class Fetcher(Protocol):
    """Brings the policy file of a domain."""

    async def fetch(self, domain: str) -> bytes:
        """Raises InvalidInput, HttpFailure."""
        ...


class HttpsFetcher:
    """Fetches as section 3.3 wants it: verified, no redirects, text/plain, bounded."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    async def fetch(self, domain: str) -> bytes:
        """See `Fetcher`."""
        return await self.fetch_url(policy_url(domain))

    async def fetch_url(self, url: str) -> bytes:
        """The file at `url`."""
        answer = await self._http.request("GET", url, total_s=FETCH_S, answer_bytes=POLICY_BYTES)
        if answer.status != 200:
            raise InvalidInput(f"the policy's server answered {answer.status}, not 200")
        media_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "text/plain":
            raise InvalidInput(f"the policy comes as {media_type[:60]!r}, not as text/plain")
        return answer.body


class StsCache:
    """What MTA-STS asks for, domain by domain."""

    def __init__(
        self,
        *,
        database: Database,
        dns: TxtLookup,
        fetcher: Fetcher,
        clock: Clock | None = None,
    ) -> None:
        self._database = database
        self._dns = dns
        self._fetcher = fetcher
        self._clock = clock or SystemClock()
        self._policies: dict[str, CachedPolicy] = {}
        self._failures: dict[str, FetchFailure] = {}
        self._read_at: datetime | None = None
        self._next_read_s = 0.0
        self._reading: asyncio.Task[None] | None = None
        self._fetching: dict[str, asyncio.Task[StsPolicy | None]] = {}

    async def policy_for(self, domain: str) -> StsPolicy | None:
        """The policy that holds for `domain` now. None: none does."""
        record = await self._dns.txt(record_name(domain))
        await self._refresh()
        step = next_step(
            record, self._policies.get(domain), self._failures.get(domain), self._clock.now()
        )
        if isinstance(step, UsePolicy):
            if step.refresh_id is not None:
                self._fetch(domain, step.refresh_id)  # beside: nobody waits for it
            return step.policy
        if isinstance(step, FetchPolicy):
            fetched = await asyncio.shield(self._fetch(domain, step.record_id))
            return fetched or step.otherwise
        return None

    async def close(self) -> None:
        """Give up what is being fetched."""
        tasks = [*self._fetching.values(), *([self._reading] if self._reading else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Fetching -----------------------------------------------------------------------------------

    def _fetch(self, domain: str, record_id: str) -> asyncio.Task[StsPolicy | None]:
        task = self._fetching.get(domain)
        if task is None:
            task = asyncio.create_task(self._fetched(domain, record_id), name=f"sts {domain}")
            self._fetching[domain] = task
            task.add_done_callback(lambda _: self._fetching.pop(domain, None))
        return task

    async def _fetched(self, domain: str, record_id: str) -> StsPolicy | None:
        now = self._clock.now()
        try:
            async with asyncio.timeout(FETCH_S):
                policy = parse_policy(await self._fetcher.fetch(domain))
        except (InvalidInput, HttpFailure, TimeoutError) as error:
            why = str(error) or "no answer in time"
            _log.info("sts_policy_not_fetched", domain=domain, reason=why)
            self._failures[domain] = FetchFailure(record_id, now)
            await self._keep_failure(domain, record_id, now, why)
            return None
        self._policies[domain] = CachedPolicy(record_id, policy, now)
        self._failures.pop(domain, None)
        try:
            await self._database.execute(
                _SQL.keep_policy,
                domain,
                record_id,
                policy.mode.value,
                policy.max_age_s,
                list(policy.mx),
                now,
            )
        except MailyardError as error:  # it holds here; the others fetch it for themselves
            _log.warning("sts_policy_not_kept", domain=domain, error=str(error))
        return policy

    async def _keep_failure(self, domain: str, record_id: str, now: datetime, why: str) -> None:
        text = why.replace("\0", "")[:_FAILURE_CHARACTERS]
        try:
            await self._database.execute(_SQL.keep_failure, domain, record_id, now, text)
        except MailyardError as error:
            _log.warning("sts_failure_not_kept", domain=domain, error=str(error))

    # What others have fetched -------------------------------------------------------------------

    async def _refresh(self) -> None:
        """Read what changed, now and then. The first time it is waited for: a policy that is held
        must not be forgotten by a worker that begins."""
        if self._clock.monotonic() < self._next_read_s:
            return
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read(), name="sts policies")
        if self._read_at is None:
            await asyncio.shield(self._reading)

    async def _read(self) -> None:
        since = datetime.min.replace(tzinfo=UTC) if self._read_at is None else self._read_at
        began, after = self._clock.now(), ""
        while len(self._policies) < POLICIES_MAX:
            rows = await self._database.fetch(_SQL.read_policies, since, after, _PAGE)
            for row in rows:
                self._take_in(row)
            if len(rows) < _PAGE:
                break
            after = rows[-1]["domain"]
        self._read_at = began - OVERLAP
        self._next_read_s = self._clock.monotonic() + REFRESH_EVERY_S

    def _take_in(self, row: asyncpg.Record) -> None:
        domain = row["domain"]
        if row["fetched_at"] is not None:
            held = self._policies.get(domain)
            if held is None or held.fetched_at <= row["fetched_at"]:
                policy = StsPolicy(Mode(row["mode"]), row["max_age_s"], tuple(row["mx"]))
                self._policies[domain] = CachedPolicy(row["record_id"], policy, row["fetched_at"])
        if row["failed_at"] is not None:
            self._failures[domain] = FetchFailure(row["failed_id"], row["failed_at"])
        else:
            self._failures.pop(domain, None)
