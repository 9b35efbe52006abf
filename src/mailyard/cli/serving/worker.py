"""The worker role: every kind of job, each on its lane."""

import asyncio
import os
import socket

from mailyard.analysis import job as analysis_job
from mailyard.app import Application
from mailyard.campaigns.acts import ContactActs
from mailyard.campaigns.chunk import ChunkSender
from mailyard.campaigns.import_run import ImportRunner
from mailyard.campaigns.plan import Planner
from mailyard.campaigns.retry import RetrySender
from mailyard.campaigns.start import Starter
from mailyard.fleet import blob_sweep, sweep
from mailyard.fleet.vital import vital
from mailyard.mailbox.send import Sender, Waker
from mailyard.proving.demo import DemoRunner
from mailyard.proving.in_process import Services
from mailyard.queue.batch import Handler
from mailyard.queue.worker import Worker
from mailyard.receiving.forward import Forwarder
from mailyard.receiving.late_verdict import LateJudge
from mailyard.receiving.reports import ReadReports
from mailyard.sending import delivery_sweep, upkeep
from mailyard.sending.deliver import Deliverer
from mailyard.sending.returns.events import ProviderEvents
from mailyard.sending.returns.mail import ReturnedMail
from mailyard.sending.track.judge import shipped_rules
from mailyard.sending.track.record import Recorder
from mailyard.settings import Settings

_TRANSPORT_DRAIN_S = 5.0


class WorkerService:
    """One `Worker` over the handlers of all rooms."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._worker: Worker | None = None
        self._running: asyncio.Task[None] | None = None
        self._checking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._application.upkeep.open()
        await self._application.fan_out.start()
        self._worker = Worker(
            engine=self._application.engine,
            handlers=self._own(handlers(self._application)),
            name=f"{socket.gethostname()}:{os.getpid()}",
        )
        self._running = vital(asyncio.create_task(self._worker.run(), name="worker"))
        if self._application.check_log is not None:  # brokers that are away hold up no start
            self._checking = vital(asyncio.create_task(self._application.check_log(), name="log"))

    def reload(self, settings: Settings) -> None:
        """Nothing here goes by a setting that may change."""

    def _own(self, all_: list[Handler]) -> list[Handler]:
        """Those of the queues that this worker is for."""
        lanes = self._application.settings.worker_lanes.replace(",", " ").split()
        return [one for one in all_ if not lanes or one.queue in lanes]

    async def drain(self, timeout_s: float) -> None:
        if self._worker is None or self._running is None:
            return
        self._worker.drain()
        await self._application.fan_out.close()
        await asyncio.wait([self._running], timeout=timeout_s)
        if not self._running.done():
            self._running.cancel()  # leases of what is left run out, others take it up
            await asyncio.wait([self._running], timeout=1.0)
        await self._application.outbound.close(_TRANSPORT_DRAIN_S)
        await self._application.upkeep.close()


def handlers(application: Application) -> list[Handler]:
    """What a worker can do. Adding a kind of job is adding it here."""
    return [
        *_received_mail(application),
        *_mailbox_work(application),
        *_sent_mail(application),
        *_campaigns(application),
        *_what_comes_back(application),
        *_late_verdicts(application),
        *_tls_reports(application),
        application.webhook_teller.handler(),
        application.webhook_replays.handler(),
        application.webhook_notices.handler(),
        application.accounts.handler(),
        _demos(application),
        *_upkeep(application),
    ]


def _received_mail(application: Application) -> list[Handler]:
    """What becomes of mail that was taken in."""
    return [
        application.ingest.handler(),
        ReadReports(
            database=application.database,
            reports=application.reports,
            raw_mail=application.raw_mail,
        ).handler(),
        application.indexer.handler(),
        application.reindexer.handler(),
        analysis_job.handler(application.analyse),
        Forwarder(
            database=application.database,
            outbox=application.forwarding,
            verdicts=application.verdicts,
            raw_mail=application.raw_mail,
        ).handler(),
        application.forwarding.handler(),
    ]


def _sent_mail(application: Application) -> list[Handler]:
    """Transactional mail, and the hits of its links and of a campaign's."""
    deliverer = Deliverer(
        database=application.database,
        transport=application.outbound,
        choose=application.outbound.choose,
        signing=application.signing,
        tracking=application.tracking,
        live=application.live,
        hostname=application.settings.smtp_name,
        return_paths=application.return_paths,
        raw_mail=application.raw_mail,
        clock=application.clock,
    )
    hits = Recorder(
        database=application.database,
        engine=application.engine,
        live=application.live,
        rules=shipped_rules(),
        acts=ContactActs(behaviour=application.behaviour),
        clock=application.clock,
    )
    return [deliverer.handler(), hits.handler()]


def _campaigns(application: Application) -> list[Handler]:
    """Contacts that come in; campaigns cut into chunks, handed over and tried again."""
    database, engine = application.database, application.engine
    hostname = application.settings.smtp_name
    chunks = ChunkSender(
        database=database,
        engine=engine,
        transport=application.outbound,
        live=application.live,
        templates=application.templates,
        signing=application.signing,
        tracking=application.tracking,
        rate_limit=application.limits,
        hostname=hostname,
        return_paths=application.return_paths,
        timing=application.timing,
        clock=application.clock,
    )
    retries = RetrySender(
        database=database,
        engine=engine,
        transport=application.outbound,
        templates=application.templates,
        signing=application.signing,
        tracking=application.tracking,
        progress=application.progress,
        window=chunks.window,
        hostname=hostname,
        return_paths=application.return_paths,
        timing=application.timing,
        clock=application.clock,
    )
    return [
        ImportRunner(
            database=database,
            contacts=application.contacts,
            live=application.live,
            clock=application.clock,
        ).handler(),
        Starter(campaigns=application.campaigns).handler(),
        Planner(
            database=database,
            engine=engine,
            progress=application.progress,
            timing=application.timing,
            clock=application.clock,
        ).handler(),
        chunks.handler(),
        retries.handler(),
        application.preferences.handler(),
    ]


def _demos(application: Application) -> Handler:
    services = Services(
        engine=application.engine,
        inboxes=application.inboxes,
        messages=application.messages,
        lists=application.lists,
        imports=application.imports,
        templates=application.templates,
        campaigns=application.campaigns,
    )
    return DemoRunner(
        database=application.database, live=application.live, services=services
    ).handler()


def _upkeep(application: Application) -> list[Handler]:
    """What removes what has run out."""
    database = application.database
    return [
        *application.purges.handlers(),
        application.endings.handler(),
        blob_sweep.handler(application.blob_upkeep),
        sweep.handler(
            [
                sweep.free_addresses(database),
                *application.store_sweeps(),
                sweep.drop_lines(database),
                application.purges.sweep,
                application.endings.sweep,
                application.mail_policies.sweep,
                application.cache.sweep,
                delivery_sweep.sweep_of(database, application.clock),
                application.idempotency.sweep,
                application.sessions.sweep,
                application.accounts.sweep,
                application.limit_notices.look,
                upkeep.sweep(database),
                application.provider_hooks.sweep,
                application.webhooks.sweep,
                application.timing.sweep,
                application.reports.sweep,
                application.blob_upkeep.forget_soon,
            ]
        ),
    ]


def _late_verdicts(application: Application) -> list[Handler]:
    """What judges mail for which DNS had no answer when it came, where senders are checked."""
    if application.gate is None:
        return []
    return [
        LateJudge(
            authenticator=application.authenticator,
            verdicts=application.verdicts,
            ingest=application.ingest,
            database=application.database,
            engine=application.engine,
            live=application.live,
            clock=application.clock,
            raw_mail=application.raw_mail,
        ).handler()
    ]


def _tls_reports(application: Application) -> list[Handler]:
    """What reports how TLS went, where the settings name the address that it comes from."""
    settings = application.settings
    if not settings.tls_reports_from:
        return []
    from mailyard.sending.tls_report import TlsReporter

    return [
        TlsReporter(
            database=application.database,
            counter=application.tls_results,
            emails=application.emails,
            dns=application.dns,
            http=application.http,
            clock=application.clock,
            sender=settings.tls_reports_from,
            hostname=settings.smtp_name,
        ).handler()
    ]


def _mailbox_work(application: Application) -> list[Handler]:
    """What happens in mailboxes later: drafts leave, what was snoozed comes back."""
    return [
        Sender(
            database=application.database,
            drafts=application.drafts,
            mailboxes=application.mailboxes,
            messages=application.messages,
            follower=application.mailbox_follower,
            emails=application.emails,
            hostname=application.settings.smtp_name,
            indexers=application.indexers,
            raw_mail=application.raw_mail,
            clock=application.clock,
        ).handler(),
        Waker(
            database=application.database,
            mailboxes=application.mailboxes,
            clock=application.clock,
        ).handler(),
    ]


def _what_comes_back(application: Application) -> list[Handler]:
    """What reads the mail that comes back, where return-paths are in use, and what applies the
    events that providers send."""

    async def confirm(url: str) -> int:
        return (await application.http.request("GET", url, total_s=10.0)).status

    events = ProviderEvents(
        database=application.database,
        engine=application.engine,
        recorder=application.recorder,
        hooks=application.provider_hooks,
        confirm=confirm,
        clock=application.clock,
    )
    if application.return_paths is None:
        return [events.handler()]
    returned = ReturnedMail(
        database=application.database,
        engine=application.engine,
        recorder=application.recorder,
        paths=application.return_paths,
        raw_mail=application.raw_mail,
        clock=application.clock,
    )
    return [events.handler(), returned.handler()]
