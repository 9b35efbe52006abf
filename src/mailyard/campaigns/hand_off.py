"""Handing off the recipients of one chunk through the window: name, submit, record.

A step is one statement: it records the results that have come back and names who goes next by
moving the chunk's `named_upto`, and only after its commit may the newly named be submitted. Mails
are written ahead while a statement is under way. The account of who was named and is not recorded
is the window's (`sending/handoff.py`), which all chunks of a process share.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from uuid import UUID

import asyncpg

from mailyard.campaigns.chunk_rows import ChunkRows
from mailyard.campaigns.mail import CampaignMail, Draft, Written, today
from mailyard.campaigns.progress import ProgressEvents
from mailyard.campaigns.retry import RETRY_BACKOFF, UNWANTED
from mailyard.campaigns.retry_job import Waiting
from mailyard.campaigns.states import State
from mailyard.core.backoff import Backoff
from mailyard.core.clock import Clock
from mailyard.core.errors import InvalidInput, StaleLease, Unavailable
from mailyard.observe.metrics import DELIVERIES
from mailyard.queue.job import EMAIL_BULK, LeasedJob
from mailyard.sending.delivery import millisecond_range
from mailyard.sending.handoff import Step, Window
from mailyard.sending.states import State as DeliveryState
from mailyard.sending.suppress import ASK_AGAIN_S, Suppressions
from mailyard.sending.suppress import CAMPAIGN as CAMPAIGN_STREAM
from mailyard.sending.track.link import Links, StoredLink
from mailyard.sending.transport import Handoff, Outcome, Transport
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("campaign")
_SENDING_SQL = load("sending")

COUNT_EVERY_S = 0.5
STATES = ("accepted", "deferred", "bounced", "failed", "suppressed", "unknown")
RECONNECT = Backoff(first_s=0.1, cap_s=2.0)
RECONNECTS = 20  # longer than a lease: by then the chunk is somebody else's
STEP_RESULTS = 45  # of HANDOFF_WINDOW_BULK: a step is worth its statement from so many on,
STEP_WAIT_S = 0.02  # or when the first of them has waited so long
WINDOWS_AHEAD = 3  # of mails that are written while answers and commits are waited for
_BURST = 8  # mails written, then signed, before the sockets get their turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What handing off needs; the same for all chunks of a process."""

    database: Database
    transport: Transport
    window: Window
    progress: ProgressEvents
    links: Links
    clock: Clock
    random: Random


@dataclass(frozen=True, slots=True)
class Unsent:
    """Somebody whose turn comes and who gets no mail."""

    contact_id: UUID
    address: str
    state: DeliveryState
    why: str


def _suppressed(contact_id: UUID, address: str) -> Unsent:
    return Unsent(contact_id, address, DeliveryState.SUPPRESSED, "the recipient is suppressed")


@dataclass(frozen=True, slots=True)
class Place:
    """Which chunk, under which lease."""

    workspace_id: UUID
    campaign_id: UUID
    number: int
    job: LeasedJob


class HandOff:
    """One chunk's recipients on their way, under one lease."""

    def __init__(self, means: Means, place: Place, row: asyncpg.Record, mail: CampaignMail) -> None:
        self._means = means
        self._place = place
        self._mail = mail
        self._group = place.number if row["ids_by_chunk"] else None
        self._type: str = row["type"]
        self._named: UUID | None = row["named_upto"]
        self.running = row["state"] == State.RUNNING
        self.deferred: list[Waiting] = []
        self._next_attempt: datetime | None = None
        self._contacts: Sequence[asyncpg.Record] = ()
        self._left_out: frozenset[UUID] = frozenset()
        self._why_left_out = ""
        self._next_contact = 0
        self._ahead: list[Written | Unsent] = []  # not passed by `named_upto` yet
        self._rows = ChunkRows()
        self._away: dict[UUID, Written] = {}
        self._due = asyncio.Event()  # the results that have come back are worth a step
        self._timer: asyncio.TimerHandle | None = None  # of the first of them
        self._left_at(means.clock.now())
        self._abandoned = False
        self._at_full_speed = False
        self._counts: Counter[str] = Counter()
        self._counted_at = means.clock.monotonic()
        self._loaded_at = self._counted_at

    async def begin(self, contacts: Sequence[asyncpg.Record]) -> None:
        """Take the chunk's contacts, in their order; whom an older lease named is not sent to."""
        if self._named is not None:
            upto = self._named
            lost = [contact for contact in contacts if contact["contact_id"] <= upto]
            contacts = contacts[len(lost) :]
            await self._take_over(lost)
        self._contacts = contacts
        if self._mail.asks_people:
            await self._mail.look_up([contact["address"] for contact in contacts])
        self._loaded_at = self._means.clock.monotonic()

    @property
    def left(self) -> list[tuple[UUID, str]]:
        """Who is still to get the mail: contact and address."""
        return [
            (contact_id, address)
            for contact_id, address, _, _, suppressed, unwanted in self._contacts
            if not suppressed and not unwanted
        ]

    def leave_out(self, contacts: frozenset[UUID], why: str) -> None:
        """Those get no mail. Before anything is written."""
        self._left_out, self._why_left_out = contacts, why

    def abandon(self) -> None:
        """Hear no more of those under way: all are recorded, or they are another worker's."""
        self._abandoned = True
        self._means.window.forget(len(self._away) + self._rows.handed_off)

    @property
    def all_named(self) -> bool:
        """Whether nobody is left to be named."""
        return not self._ahead and self._next_contact >= len(self._contacts)

    @property
    def room(self) -> int:
        """How many places a step could give to new names."""
        return self._means.window.room + self._rows.handed_off

    @property
    def ahead(self) -> int:
        """How many are ready to be named."""
        return len(self._ahead)

    @property
    def unrecorded(self) -> int:
        """How many results wait for a step."""
        return self._rows.handed_off

    async def _take_over(self, lost: list[asyncpg.Record]) -> None:
        """Whoever was named under an older token and has no row may have got the mail."""
        for contact in lost:
            delivery_id = self._mail.delivery_id(contact["address"], self._group)
            self._rows.add(
                delivery_id,
                contact["contact_id"],
                contact["address"],
                DeliveryState.UNKNOWN,
                None,
                "its worker died between handing it over and recording the answer",
                handed_off=False,
            )
        if lost:
            low, high = millisecond_range(self._mail.unix_ms)
            await self._commit(self._rows, None, 0)
            rows = await self._means.database.fetch(
                _SQL.find_deferred,
                self._place.workspace_id,
                low,
                high,
                self._rows.delivery_ids,
            )
            self.deferred += [(row["id"], row["next_attempt_at"]) for row in rows]
            self._rows = ChunkRows()
        gone = await self._means.database.fetchval(
            _SQL.count_lost,
            self._place.workspace_id,
            self._place.campaign_id,
            self._place.number,
            self._place.job.token,
        )
        if gone:
            self._count(DeliveryState.UNKNOWN, gone)

    # Writing ----------------------------------------------------------------------------------

    async def write_ahead(self, count: int) -> None:
        """Have up to `count` mails ready to be named, giving others their turn in between."""
        while len(self._ahead) < count and self._next_contact < len(self._contacts):
            await self._write_some(count - len(self._ahead))

    async def _write_until(self, over: Callable[[], bool]) -> None:
        """Write ahead while something else is waited for, until that is `over`."""
        enough = WINDOWS_AHEAD * self._means.window.size
        while not over() and len(self._ahead) < enough and self._next_contact < len(self._contacts):
            await self._write_some(_BURST)

    async def _write_some(self, at_most: int) -> None:
        """A burst of mails: first they are written, then signed."""
        first = self._next_contact
        contacts = self._contacts[first : first + min(at_most, _BURST)]
        self._next_contact += len(contacts)
        drafts = [self._draft(contact) for contact in contacts]
        self._ahead += [one.signed() if isinstance(one, Draft) else one for one in drafts]
        await asyncio.sleep(0)

    def _draft(self, contact: asyncpg.Record) -> Draft | Unsent:
        contact_id, address, name, attributes, suppressed, unwanted = contact
        if suppressed or unwanted:
            why = "the recipient is suppressed" if suppressed else UNWANTED
            return Unsent(contact_id, address, DeliveryState.SUPPRESSED, why)
        if self._left_out and contact_id in self._left_out:
            return Unsent(contact_id, address, DeliveryState.SUPPRESSED, self._why_left_out)
        try:
            return self._mail.draft(
                self._mail.delivery_id(address, self._group),
                contact_id,
                address,
                name,
                attributes,
                self._date,
            )
        except InvalidInput as error:
            why = f"it cannot be written: {error}"
            return Unsent(contact_id, address, DeliveryState.FAILED, why)

    # Steps ------------------------------------------------------------------------------------

    async def steps(self, stopping: asyncio.Event) -> None:
        """Name, submit and record until everybody is named, or naming has to stop."""
        self._at_full_speed = True
        while not self.all_named and self.running and not stopping.is_set():
            if not self._ahead:
                await self.write_ahead(self._means.window.size)
            if not self._worth_a_step():
                await self._wait()
                continue
            await self.step(self._means.window.size)

    def _worth_a_step(self) -> bool:
        waiting = self._rows.handed_off
        return waiting >= STEP_RESULTS or (
            not self._away and (waiting > 0 or self._means.window.room > 0)
        )

    async def _wait(self) -> None:
        """Until enough has come back for a step, or what has come back has waited long enough."""
        window = self._means.window
        if not self._away:  # the chunk before has all places, until its answers are recorded
            await self._write_until(lambda: window.room > 0)
            await window.opened()
            return
        await self._write_until(self._due.is_set)
        await self._due.wait()
        if self._away and self._rows.handed_off < STEP_RESULTS:
            await self.step(self._means.window.size)

    async def step(self, at_most: int) -> None:
        """One statement: record what is finished, name up to `at_most`, submit them.

        Mails are written ahead while it is under way. Raises StaleLease.
        """
        if at_most and self._ahead:
            await self._leave_out_suppressed(at_most)
        rows = self._take_rows()
        mails = sum(isinstance(one, Written) for one in self._ahead[:at_most])
        step = self._means.window.begin(rows.handed_off, mails)
        count = self._count_for(step.named, at_most)
        upto = self._ahead[count - 1].contact_id if count else None
        self._settle_unsent(self._ahead[:count], rows)
        links = [
            link
            for one in self._ahead[:count]
            if isinstance(one, Written) and one.links
            for link in one.links
        ]
        commit = asyncio.create_task(self._commit_surely(rows, upto, count, step, links))
        try:
            await self.write_ahead(count + self._means.window.size)
            if self._at_full_speed:  # else a mail's Date would be long past when its turn comes
                await self._write_until(commit.done)
        finally:
            named_upto, state = await commit
        self.running = state == State.RUNNING
        if upto is None or named_upto != upto:
            self._means.window.forget(step.named)
            return
        self._named = named_upto
        self._left_at(self._means.clock.now())
        leaving, self._ahead = self._ahead[:count], self._ahead[count:]
        self._submit(leaving)
        self._means.progress.touch(self._place.workspace_id, self._place.campaign_id)

    async def _leave_out_suppressed(self, at_most: int) -> None:
        """Whoever was suppressed since the chunk was loaded, a while ago, gets no mail."""
        if self._means.clock.monotonic() - self._loaded_at < ASK_AGAIN_S:
            return
        place = self._place
        asked = [(place.workspace_id, one.address) for one in self._ahead[:at_most]]
        suppressions = Suppressions(database=self._means.database)
        stopped = await suppressions.check_many(asked, CAMPAIGN_STREAM)
        if stopped:
            self._ahead = [
                _suppressed(one.contact_id, one.address)
                if (place.workspace_id, one.address) in stopped
                else one
                for one in self._ahead
            ]

    def _count_for(self, places: int, at_most: int) -> int:
        """How many of those ahead can be named with `places`: who gets no mail takes none."""
        count = 0
        for one in self._ahead[:at_most]:
            if isinstance(one, Written):
                if not places:
                    break
                places -= 1
            count += 1
        return count

    def _settle_unsent(self, passed: list[Written | Unsent], rows: ChunkRows) -> None:
        for one in passed:
            if isinstance(one, Unsent):
                delivery_id = self._mail.delivery_id(one.address, self._group)
                rows.add(
                    delivery_id,
                    one.contact_id,
                    one.address,
                    one.state,
                    None,
                    one.why,
                    handed_off=False,
                )

    def _submit(self, passed: list[Written | Unsent]) -> None:
        transport, away, done = self._means.transport, self._away, self._done
        leaving = [one for one in passed if isinstance(one, Written)]
        for written in leaving:
            away[written.delivery_id] = written
        for written in leaving:
            transport.submit(written.outgoing, done)

    def _done(self, handoff: Handoff) -> None:
        """The transport's answer for one recipient."""
        if self._abandoned:
            return
        written = self._away.pop(handoff.delivery_id)
        if handoff.outcome is Outcome.LATER:
            again_at = handoff.retry_at or self._next_attempt_at()
            self._rows.answer(written, handoff, again_at)
            self.deferred.append((handoff.delivery_id, again_at))
        else:
            self._rows.answer(written, handoff)
            self._rows.refusals.add(self._place.workspace_id, written.address, handoff)
        if not self._away or self._rows.handed_off >= STEP_RESULTS:
            self._due.set()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(STEP_WAIT_S, self._due.set)

    def _take_rows(self) -> ChunkRows:
        """What has come back, for a step; the wait for the next one begins anew."""
        rows, self._rows = self._rows, ChunkRows()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due.clear()
        return rows

    def _left_at(self, now: datetime) -> None:
        """When those who are named next are handed off."""
        self._handed_off_at = now
        self._date = today(now)

    def _next_attempt_at(self) -> datetime:
        """One instant for all that a chunk's recipients are deferred to by nothing else."""
        if self._next_attempt is None:
            delay_s = RETRY_BACKOFF.delay_s(1, self._means.random)
            self._next_attempt = self._means.clock.now() + timedelta(seconds=delay_s)
        return self._next_attempt

    async def drain(self) -> None:
        """Record whatever was named."""
        while self._away or len(self._rows):
            if self._away:
                await self._due.wait()
            await self.step(0)

    # Committing -------------------------------------------------------------------------------

    async def _commit_surely(
        self,
        rows: ChunkRows,
        upto: UUID | None,
        passed: int,
        step: Step,
        links: Sequence[StoredLink],
    ) -> tuple[UUID | None, str]:
        """`_commit`, said again while PostgreSQL is away. Keeps the window's account. The addresses
        that mails lead to stand before the mails may leave."""
        failures = 0
        while True:
            try:
                if links:
                    await self._means.links.store(
                        self._place.workspace_id, self._place.campaign_id, links
                    )
                answer = await self._commit(rows, upto, passed)
                break
            except BaseException as error:
                failures += 1
                if not isinstance(error, Unavailable) or failures >= RECONNECTS:
                    self._means.window.rolled_back(step)
                    self._means.window.forget(step.recorded)
                    raise
                await asyncio.sleep(RECONNECT.delay_s(failures, self._means.random))
        self._means.window.committed(step)
        return answer

    async def _commit(
        self, rows: ChunkRows, upto: UUID | None, passed: int
    ) -> tuple[UUID | None, str]:
        """The statement: (how far is named now, the campaign's state). Raises StaleLease."""
        place = self._place
        arguments = (
            place.workspace_id,
            place.campaign_id,
            place.number,
            place.job.token,
            upto,
            *rows.columns(),
            self._type,
            self._handed_off_at,
            passed,
        )
        counting = self._counts and self._means.clock.monotonic() - self._counted_at > COUNT_EVERY_S
        if counting or rows.passes or rows.refusals:
            async with self._means.database.transaction() as tx:
                row = await self._means.database.fetchrow(_SQL.step_chunk, *arguments, tx=tx)
                if row is not None:
                    await rows.passes.tell(self._means.database, place.workspace_id, tx)
                    await rows.refusals.tell(self._means.database, tx)
                    await self.write_counts(tx)
            self._counts.clear()
            self._counted_at = self._means.clock.monotonic()
        else:
            row = await self._means.database.fetchrow(_SQL.step_chunk, *arguments)
        if row is None:
            raise StaleLease("the chunk was given to another worker")
        for state in STATES:
            if row[state]:
                self._count(state, row[state])
        return row["named_upto"], row["state"]

    def _count(self, state: str, recipients: int) -> None:
        self._counts[state] += recipients
        DELIVERIES.labels(EMAIL_BULK, state).inc(recipients)

    async def write_counts(self, tx: Connection) -> None:
        """The counters of what was recorded since the last time: for rates, not for accounts."""
        if not self._counts:
            return
        place = self._place
        handed_off = sum(self._counts.values()) - self._counts["suppressed"]
        names = [f"delivery.{state}" for state in self._counts]
        await self._means.database.execute(
            _SENDING_SQL.insert_counter_deltas,
            [place.workspace_id] * (len(names) + 1),
            [*names, "campaign.handed_off"],
            [*[place.workspace_id] * len(names), place.campaign_id],
            [*self._counts.values(), handed_off],
            tx=tx,
        )
