"""Mail that came to a return-path or to a feedback loop's address: the job `returned-mail`.

A job names the mails of one group commit of the listener. Each is read, judged and brought to its
delivery: by the signed return-path it was sent to, by the rewritten sender of a mail that was sent
on (SRS), or by a return-path that it quotes. What names no delivery
of ours changes nothing. A bounce can be faster than the commit of the hand-over that it answers;
then it is told again a little later.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

import asyncpg
import msgspec
import structlog

from mailyard.core import ids
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import Unavailable
from mailyard.observe.metrics import RETURNED_MAIL
from mailyard.protocol.report import Kind, Recipient, Report, read_report
from mailyard.queue.batch import Batch, Handler
from mailyard.queue.engine import Engine
from mailyard.queue.job import EMAIL_EVENTS, EMAIL_SEND, LeasedJob, NewJob
from mailyard.sending.bounce import Judged, classify
from mailyard.sending.content import WholeMail, decode_content
from mailyard.sending.delivery import NOBODY, RETURNED_DAYS
from mailyard.sending.return_path import ReturnPaths
from mailyard.sending.returns.occurrence import Occurrence, What, key_of
from mailyard.sending.returns.record import Recorder
from mailyard.sending.stored_content import StoredContents
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load
from mailyard.storage.raw_mail import IN_ROWS, RawMail

_SQL = load("returns")
_LOG = structlog.get_logger(__name__)

RETURNED_MAIL_JOB = "returned-mail"  # as the listener calls it (receiving.commit)
BOUNCE_JOB = "forwarded-bounce"  # as who sends mail on calls it (sending.forwarded)
SOURCE = "mail"
LATER_S = (1.0, 5.0, 30.0, 300.0)  # when it is told again of a delivery that is not there yet

_JOBS_PER_BATCH = 20
_CONCURRENCY = 2
_YIELD_EVERY = 5  # mails read before other work of the loop gets its turn
_WHAT = {Kind.BOUNCE: What.BOUNCED, Kind.DELAY: What.DELAYED, Kind.COMPLAINT: What.COMPLAINED}
_OTHER = {
    Kind.AUTO_REPLY: What.REPLIED,
    Kind.NONE: What.REPLIED,
    Kind.CHALLENGE: What.CHALLENGED,
}


class Named(NamedTuple):
    """A mail as a job names it; `tries`: how often it came too early."""

    id: UUID
    retention_days: int
    size_bytes: int
    tries: int = 0


_PAYLOAD = msgspec.json.Decoder(list[Named])


class ReturnedMail:
    """Handles `returned-mail` jobs."""

    def __init__(
        self,
        *,
        database: Database,
        engine: Engine,
        recorder: Recorder,
        paths: ReturnPaths,
        raw_mail: RawMail = IN_ROWS,
        clock: Clock | None = None,
    ) -> None:
        self._database = database
        self._raw_mail = raw_mail
        self._contents = StoredContents(raw_mail)
        self._engine = engine
        self._recorder = recorder
        self._paths = paths
        self._clock = clock or SystemClock()

    def handler(self) -> Handler:
        """What the worker runs."""
        return Handler(RETURNED_MAIL_JOB, EMAIL_EVENTS, self.handle, _JOBS_PER_BATCH, _CONCURRENCY)

    async def handle(self, batch: Batch) -> None:
        """Bring the mails of a batch to their deliveries."""
        for job in batch.jobs:
            try:
                named = _PAYLOAD.decode(job.payload)
            except msgspec.DecodeError as error:
                await batch.bury([job], f"the payload is not what the listener writes: {error}")
                continue
            try:
                await self._tell(batch, job, named)
            except Unavailable:
                raise
            except Exception as error:  # one mail that cannot be written holds up no other
                await self._divide(batch, job, named, error)

    async def _divide(
        self, batch: Batch, job: LeasedJob, named: Sequence[Named], error: Exception
    ) -> None:
        if len(named) == 1:
            await batch.fail([job], error)
            return
        async with self._database.transaction() as tx:
            await batch.divide(job, [msgspec.json.encode([one]) for one in named], tx)

    async def _tell(self, batch: Batch, job: LeasedJob, named: Sequence[Named]) -> None:
        found = await self._read(named)
        last = {one.id for one in named if one.tries >= len(LATER_S)}
        async with self._database.transaction() as tx:
            if not await batch.complete([job], tx):
                return
            early = await self._recorder.record([o for o in found if o.message_id not in last], tx)
            lost = await self._recorder.record(
                [o for o in found if o.message_id in last], tx, last=True
            )
            await self._again(named, {one.message_id for one in early}, tx)
            await self._send_on([one for one in found if one not in early], tx)
        for one in lost:
            RETURNED_MAIL.labels("no such delivery").inc()
            _LOG.info("mail came back for a delivery that is not there", told=one.what.value)
        self._recorder.announced()

    async def _again(self, named: Sequence[Named], early: set[UUID | None], tx: Connection) -> None:
        """Those that came too early are looked at again, each after its own time."""
        waiting: dict[int, list[Named]] = {}
        for one in named:
            if one.id in early:
                waiting.setdefault(one.tries, []).append(one._replace(tries=one.tries + 1))
        now = self._clock.now()
        jobs = [
            NewJob(
                queue=EMAIL_EVENTS,
                kind=RETURNED_MAIL_JOB,
                payload=msgspec.json.encode(again),
                run_at=now + timedelta(seconds=LATER_S[tries]),
            )
            for tries, again in waiting.items()
        ]
        if jobs:
            await self._engine.enqueue(jobs, tx)

    async def _send_on(self, told: Sequence[Occurrence], tx: Connection) -> None:
        """Bounces of mail that was sent on go to who sent it first (`sending.forwarded`)."""
        bounced = {(one.delivery_id, one.message_id) for one in told if one.what is What.BOUNCED}
        if not bounced:
            return
        deliveries = [delivery_id for delivery_id, _ in bounced]
        rows = await self._database.fetch(
            _SQL.forwarded_among, deliveries, min(deliveries), max(deliveries), tx=tx
        )
        owners = {row["id"]: row["workspace_id"] for row in rows}
        jobs = [
            NewJob(
                EMAIL_SEND,
                BOUNCE_JOB,
                msgspec.json.encode((delivery_id, message_id)),
                owners[delivery_id],
            )
            for delivery_id, message_id in bounced
            if delivery_id in owners
        ]
        if jobs:
            await self._engine.enqueue(jobs, tx)

    async def _read(self, named: Sequence[Named]) -> list[Occurrence]:
        wanted = [one.id for one in named]
        rows = await self._database.fetch(
            _SQL.load_returned, wanted, min(wanted), max(wanted), RETURNED_DAYS, NOBODY
        )
        forwarded = await self._forwarded(rows)
        found: list[Occurrence] = []
        kinds: Counter[str] = Counter()
        for count, row in enumerate(await self._raw_mail.filled(rows), 1):
            report = read_report(row["raw"])
            told = list(self._occurrences(row, report, forwarded))
            kinds[report.kind if told else "unknown"] += 1
            found += told
            if count % _YIELD_EVERY == 0:
                await asyncio.sleep(0)
        for kind, mails in kinds.items():
            RETURNED_MAIL.labels(kind).inc(mails)
        return found

    async def _forwarded(self, rows: Sequence[asyncpg.Record]) -> dict[str, list[asyncpg.Record]]:
        """The deliveries of mail that was sent on under the rewritten senders to which `rows` came:
        those of that millisecond whose stored mail came from him whom the address names."""
        now = self._clock.now()
        asked = {
            address: rewritten
            for row in rows
            for address in row["recipients"]
            if (rewritten := self._paths.rewriting.read(address, now)) is not None
        }
        if not asked:
            return {}
        lowest = [one.lowest for one in asked.values()]
        beyond = [one.beyond for one in asked.values()]
        deliveries = await self._database.fetch(
            _SQL.forwarded_within, lowest, beyond, min(lowest), max(beyond)
        )
        senders = {}
        for row in deliveries:
            mail = decode_content(await self._contents.whole(row["content"]))
            senders[row["id"]] = mail.reverse_path.lower() if isinstance(mail, WholeMail) else ""
        return {
            address: [
                row
                for row in deliveries
                if rewritten.is_of(row["id"]) and senders[row["id"]] == rewritten.sender
            ]
            for address, rewritten in asked.items()
        }

    def _occurrences(
        self,
        row: asyncpg.Record,
        report: Report,
        forwarded: Mapping[str, Sequence[asyncpg.Record]],
    ) -> Iterator[Occurrence]:
        """What the mail tells of each delivery that it was sent to, or else that it quotes."""
        deliveries = dict.fromkeys(
            found
            for address in row["recipients"]
            if (found := self._paths.delivery_of(address)) is not None
        )
        for address in row["recipients"]:
            if (one := _meant(forwarded.get(address, ()), report)) is not None:
                deliveries[one] = None
        if not deliveries and (quoted := self._paths.find(report.return_paths)) is not None:
            deliveries = {quoted: None}
        for delivery_id in deliveries:
            yield from occurrences_of(report, delivery_id, row["id"])


def _meant(deliveries: Sequence[asyncpg.Record], report: Report) -> UUID | None:
    """Which of the deliveries of one mail a report is about: his whom it names, or the first."""
    named = {
        address.lower()
        for recipient in report.recipients
        for address in (recipient.address, recipient.original_recipient)
    }
    for row in deliveries:
        if row["recipient"].lower() in named:
            found: UUID = row["id"]
            return found
    return deliveries[0]["id"] if deliveries else None


def occurrences_of(report: Report, delivery_id: UUID, message_id: UUID) -> Iterator[Occurrence]:
    """What `report` tells of a delivery that it certainly is about."""
    at = ids.time_of(message_id)
    if report.kind in _WHAT:
        what = _WHAT[report.kind]
        judged = classify(report)
        if not judged and report.kind is not Kind.COMPLAINT:  # it names nobody: he is the only one
            judged = [
                replace(one, verdict=replace(one.verdict, suppresses=False))
                for one in classify(replace(report, recipients=(Recipient(""),)))
            ]
        elif not judged:
            judged = classify(replace(report, recipients=(Recipient(""),)))
        for one in judged[:20]:
            yield _judged(what, one, report, delivery_id, message_id)
    elif report.kind is Kind.DELIVERED:
        for recipient in report.recipients[:20]:
            if recipient.action == "delivered":
                yield Occurrence(
                    delivery_id,
                    What.DELIVERED,
                    SOURCE,
                    key_of(What.DELIVERED, recipient.address.lower()),
                    at,
                    named=_named(recipient),
                    status=recipient.status,
                    reply_code=_code(recipient.reply_code),
                    text=recipient.diagnostic or report.subject,
                    message_id=message_id,
                )
    else:
        what = _OTHER[report.kind]
        yield Occurrence(
            delivery_id,
            what,
            SOURCE,
            key_of(what, report.subject, report.notice[:1_000]),
            at,
            text=report.subject,
            message_id=message_id,
        )


def _judged(
    what: What, one: Judged, report: Report, delivery_id: UUID, message_id: UUID
) -> Occurrence:
    recipient, verdict = one.recipient, one.verdict
    text = recipient.diagnostic or recipient.notice or verdict.evidence or report.subject
    # A report of the same failure is the same, however often it is sent; a delay is told each time.
    marks = [what, recipient.address.lower(), verdict.status, verdict.reply_code]
    if what is What.DELAYED:
        marks += [text, report.notice[:1_000]]
    return Occurrence(
        delivery_id,
        what,
        SOURCE,
        key_of(*marks),
        ids.time_of(message_id),
        named=_named(recipient) if what is not What.COMPLAINED else (),
        reason=verdict.reason,
        status=verdict.status,
        reply_code=_code(verdict.reply_code),
        text=text,
        suppresses=verdict.suppresses,
        message_id=message_id,
    )


def _named(recipient: Recipient) -> tuple[str, ...]:
    return tuple(filter(None, dict.fromkeys((recipient.address, recipient.original_recipient))))


def _code(text: str) -> int | None:
    return int(text) if len(text) == 3 and text.isascii() and text.isdigit() else None
