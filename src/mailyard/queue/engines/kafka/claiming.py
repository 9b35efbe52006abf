"""From records to leased jobs.

A claim moves a partition's cursor from where it was to behind the records taken, and writes down
who has them, in one statement. It succeeds for one process only, so it does not matter who else has
fetched the same records, and a partition whose records wait (its member died or has slow jobs, the
group is dealing anew, one key has all the work) is helped out by whoever has nothing to do.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from time import monotonic

import structlog

from mailyard.core.limits import LEASE_S
from mailyard.observe.metrics import JOBS
from mailyard.observe.trace import unpacked
from mailyard.queue.engines.kafka.intake import Fetched, Intake, Reader
from mailyard.queue.engines.kafka.lag import Cursor, Lag
from mailyard.queue.engines.kafka.options import KafkaOptions
from mailyard.queue.engines.kafka.record import (
    DIRECT,
    Record,
    batch_of,
    decode,
    digest,
    ranges_text,
    workspace_of,
)
from mailyard.queue.job import LeasedJob
from mailyard.storage.database import Database
from mailyard.storage.queries import load

HELP_EVERY_S = 1.0
_TRIES = 2  # of a claim: another process may have been faster
_SHARE = 100  # records of one partition in a claim, if so many are wanted
_FAR_BEHIND = 2_000  # records: more than one lease of the partition's own worker

_SQL = load("kafka")
_LOG = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LoggedJob(LeasedJob):
    """A job out of the log; `number` is its place in the lease, `claims`: it has a unique key."""

    number: int = -1
    claims: bool = False


@dataclass(slots=True)
class _Part:
    """What of one partition goes into a claim."""

    number: int
    since: int
    upto: int
    batch: int
    seen: set[int]
    taken: list[tuple[int, Record]] = field(default_factory=list)  # offset, job
    copies: int = 0


class Claiming:
    """Takes jobs of lanes out of the log. One a process. `help_every_s` 0: helps at every call."""

    def __init__(
        self,
        *,
        database: Database,
        options: KafkaOptions,
        intake: Intake,
        reader: Reader,
        lag: Lag,
        now: Callable[[], datetime | None],
        help_every_s: float = HELP_EVERY_S,
    ) -> None:
        self._database = database
        self._options = options
        self._intake = intake
        self._reader = reader
        self._lag = lag
        self._now = now
        self._help_every_s = help_every_s
        self._cursors: dict[str, dict[int, Cursor]] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self._help_due_s: dict[str, float] = {}
        self._lay: dict[str, tuple[float, dict[int, int]]] = {}  # when, and how far each reached
        self._next_part: dict[str, int] = {}
        self._sought: dict[tuple[str, int], int] = {}

    async def take(self, queue: str, limit: int, worker: str) -> list[LeasedJob]:
        """Up to `limit` jobs of `queue` that lie here, or that nobody else works on."""
        topic = self._options.topic(queue)
        async with self._turns.setdefault(topic, asyncio.Lock()):
            leased: list[LeasedJob] = []
            for _ in range(_TRIES):
                if leased or not (buffers := self._intake.buffers(topic)):
                    break
                leased = await self._claim(queue, buffers, limit, worker)
            if len(leased) < limit and self._may_help(topic, bool(leased)):
                leased += await self._help(queue, limit - len(leased), worker)
            return leased

    # Of what lies here ------------------------------------------------------------------------

    async def _claim(
        self, queue: str, buffers: Mapping[int, Sequence[Fetched]], limit: int, worker: str
    ) -> list[LeasedJob]:
        topic = self._options.topic(queue)
        cursors = await self._known(topic, buffers)
        parts: list[_Part] = []
        numbers = sorted(buffers)
        turn = self._next_part.get(topic, 0)
        for number in [n for n in numbers if n >= turn] + [n for n in numbers if n < turn]:
            buffer, cursor = buffers[number], cursors[number]
            self._intake.drop((topic, number), cursor.claimed)
            if buffer and await self._follows(topic, number, cursor, buffer[0][0]):
                parts.append(_part(number, cursor))
        _fill(parts, buffers, limit)
        self._next_part[topic] = next(
            (part.number for part in parts if part.upto == part.since), turn
        )
        return await self._commit(queue, parts, worker)

    async def _known(self, topic: str, numbers: Mapping[int, object]) -> dict[int, Cursor]:
        known = self._cursors.setdefault(topic, {})
        if any(number not in known for number in numbers):
            for place, cursor in (await self._lag.cursors([topic])).items():
                known[place[1]] = cursor
        return known

    async def _follows(self, topic: str, number: int, cursor: Cursor, first: int) -> bool:
        """Whether the first record here is the next one. If not, fetch from there once more: what
        is then still missing is not in the log."""
        if first <= cursor.claimed:
            return True
        if self._sought.get((topic, number)) == cursor.claimed:
            _LOG.error(
                "records are missing in the log",
                topic=topic,
                partition=number,
                first=cursor.claimed,
                end=first,
            )
            return True
        self._sought[topic, number] = cursor.claimed
        await self._intake.rewind((topic, number), cursor.claimed)
        return False

    # Of what others should have ---------------------------------------------------------------

    def _may_help(self, topic: str, busy: bool) -> bool:
        now_s = monotonic()
        if self._help_every_s and (busy or now_s < self._help_due_s.get(topic, 0.0)):
            return False
        self._help_due_s[topic] = now_s + self._help_every_s
        return True

    async def _help(self, queue: str, limit: int, worker: str) -> list[LeasedJob]:
        """Work on what lay there at the last look already, or on partitions that are far behind.

        So a partition whose member has died goes on, and one whose member is busy with slow jobs
        shares them with who has nothing to do.
        """
        topic = self._options.topic(queue)
        cursors = {p[1]: c for p, c in (await self._lag.cursors([topic])).items()}
        ends = {p[1]: end for p, end in (await self._lag.ends((topic, n) for n in cursors)).items()}
        behind = {n: end for n, end in ends.items() if end > cursors[n].claimed}
        lay = self._lay_before(topic, behind)
        self._cursors[topic] = cursors
        chosen: dict[int, tuple[int, int]] = {}
        wanted = limit
        for n, end in behind.items():
            first = cursors[n].claimed
            waits = not self._help_every_s or lay.get(n, 0) > first or end - first > _FAR_BEHIND
            if waits and wanted > 0:
                chosen[n] = (first, min(end, first + wanted))
                wanted -= end - first
        if not chosen:
            return []
        fetched = await self._reader.read(topic, chosen)
        parts = [_part(n, cursors[n]) for n, records in fetched.items() if records]
        _fill(parts, fetched, limit)
        leased = await self._commit(queue, parts, worker)
        if leased and self._help_every_s:
            self._help_due_s[topic] = 0.0  # there may be more
        return leased

    def _lay_before(self, topic: str, ends: dict[int, int]) -> dict[int, int]:
        """How far the partitions that were behind reached a look ago; `ends` is for the next."""
        now_s = monotonic()
        at_s, lay = self._lay.get(topic, (0.0, {}))
        if now_s - at_s >= self._help_every_s:
            self._lay[topic] = (now_s, ends)
        return lay

    # The claim --------------------------------------------------------------------------------

    async def _commit(self, queue: str, parts: Sequence[_Part], worker: str) -> list[LeasedJob]:
        parts = [part for part in parts if part.upto > part.since]
        if not parts:
            return []
        topic = self._options.topic(queue)
        ranges = [(part.number, run) for part in parts for run in _runs(part.taken)]
        row = await self._database.fetchrow(
            _SQL.claim,
            queue,
            topic,
            [part.number for part in parts],
            [part.since for part in parts],
            [part.upto for part in parts],
            [part.batch for part in parts],
            [ranges_text(sorted(part.seen)) for part in parts],
            [number for number, _ in ranges],
            [run[0][0] for _, run in ranges],
            [len(run) for _, run in ranges],
            [b"".join(digest(r.workspace, r.payload) for _, r in run) for _, run in ranges],
            worker,
            LEASE_S,
            self._now(),
        )
        assert row is not None, "a function with OUT parameters gives one row"
        if row["got"] is None:  # paused
            return []
        got = set(row["got"])
        self._note(topic, queue, parts, got)
        return [
            _leased(queue, record, number, row["lease_token"], row["until"])
            for number, record in enumerate(
                record for part_number, run in ranges if part_number in got for _, record in run
            )
        ]

    def _note(self, topic: str, queue: str, parts: Sequence[_Part], got: set[int]) -> None:
        known = self._cursors.setdefault(topic, {})
        for part in parts:
            if part.number not in got:
                known.pop(part.number, None)  # another was faster: ask how far it is
                continue
            known[part.number] = Cursor(part.upto, part.batch, part.seen)
            self._intake.drop((topic, part.number), part.upto)
            if part.copies:
                JOBS.labels(queue, "copy").inc(part.copies)


def _part(number: int, cursor: Cursor) -> _Part:
    return _Part(number, cursor.claimed, cursor.claimed, cursor.batch, set(cursor.seen))


def _fill(parts: Sequence[_Part], fetched: Mapping[int, Sequence[Fetched]], limit: int) -> None:
    """Take up to `limit` records into the claims: from each partition its share, then what is left.

    A share is not small: few partitions a claim are cheaper than many, and all have their turn.
    """
    share = max(_SHARE, -(-limit // max(1, len(parts))))
    records = [(part, iter(fetched[part.number])) for part in parts]
    for most in (share, limit):
        for part, rest in records:
            for offset, value in islice(rest, min(most, limit)):
                _put(part, offset, value)
                limit -= 1


def _put(part: _Part, offset: int, value: bytes) -> None:
    """Take a record into the claim, unless it is a copy of one that was seen."""
    part.upto = offset + 1
    if not value.startswith(DIRECT):
        batch, number = batch_of(value)
        if batch < part.batch or (batch == part.batch and number in part.seen):
            part.copies += 1
            return
        if batch > part.batch:
            part.batch, part.seen = batch, set()
        part.seen.add(number)
    try:
        part.taken.append((offset, decode(value)))
    except ValueError as error:
        _LOG.error("a record that nobody of ours wrote", error=str(error), offset=offset)


def _runs(taken: Sequence[tuple[int, Record]]) -> list[list[tuple[int, Record]]]:
    """Pieces without a gap between their offsets."""
    runs: list[list[tuple[int, Record]]] = []
    for offset, record in taken:
        if runs and runs[-1][-1][0] == offset - 1:
            runs[-1].append((offset, record))
        else:
            runs.append([(offset, record)])
    return runs


def _leased(queue: str, record: Record, number: int, token: int, expires_at: datetime) -> LoggedJob:
    payload, marks = unpacked(record.payload)
    return LoggedJob(
        record.id,
        queue,
        record.kind,
        payload,
        workspace_of(record),
        1,
        0,
        record.max_attempts,
        token,
        record.enqueued_at,
        expires_at,
        0,
        number,
        record.claims,
        trace=marks,
    )
