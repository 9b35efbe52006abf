"""The scheduler role: leads or stands by; the leader does the duties."""

import asyncio
from functools import partial

from mailyard.app import Application
from mailyard.core.ids import uuid7
from mailyard.fleet import blob_sweep, sweep
from mailyard.fleet.control import Control
from mailyard.fleet.duties import counters, partitions, processes, queue, secrets, watch
from mailyard.fleet.duty import Duty, perform
from mailyard.fleet.fence import Fence
from mailyard.fleet.leader import Leader
from mailyard.fleet.vital import vital
from mailyard.queue.schedule import Scheduler
from mailyard.sending.tls_count import report_schedule
from mailyard.settings import HOME, Settings
from mailyard.storage.partitions import Keep


class SchedulerService:
    """Of all schedulers of an installation, one works."""

    def __init__(self, application: Application, control: Control) -> None:
        self._application = application
        self._leader = Leader(
            database=application.database,
            duty="scheduler",
            holder=uuid7(),
            lead=lambda fence: perform(
                [*duties(application, fence), *watching(application, control)], fence
            ),
        )
        self._running: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self._running.append(vital(asyncio.create_task(self._leader.run(), name="leader")))
        neighbours = self._application.neighbours
        if neighbours is not None:
            from mailyard.fleet.region_watch import CopyWatch

            copies = asyncio.create_task(CopyWatch(neighbours).run(), name="region-copies")
            self._running.append(vital(copies))

    def reload(self, settings: Settings) -> None:
        """Nothing here goes by a setting that may change."""

    async def drain(self, timeout_s: float) -> None:
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=timeout_s)


def duties(application: Application, fence: Fence) -> list[Duty]:
    """Everything that somebody must do again and again, once for the whole installation."""
    database, clock = application.database, application.clock
    settings = application.settings
    return [
        *_backups(application),
        *([counters.forget_places(database)] if settings.database_replicas else []),
        partitions.make_ahead(database, clock),
        partitions.drop_old(
            database,
            clock,
            Keep(settings.history_months, settings.audit_months),
            application.webhook_gaps,
        ),
        queue.rescue(application.engine),
        queue.tell_depths(database, application.engine, application.live),
        counters.fold(database),
        counters.forget(database, clock),
        queue.fire(
            Scheduler(
                database=database,
                engine=application.engine,
                clock=clock,
                hold=fence.hold,
                schedules=[
                    sweep.schedule(),
                    *([blob_sweep.schedule()] if settings.blobs else []),
                    *([report_schedule()] if settings.tls_reports_from else []),
                ],
            )
        ),
        processes.reap(database),
        *_of_shards(application),
        secrets.seal_anew(
            application.domains,
            application.providers,
            application.models,
            application.provider_hooks,
            application.webhooks,
        ),
    ]


def watching(application: Application, control: Control) -> list[Duty]:
    """Looking after the installation as a whole, as far as the settings ask for it."""
    settings = application.settings
    if not (settings.alerts or settings.autoscale != "off" or settings.influx_url):
        return []
    return [
        watch.watch(application.watch(control)),
        watch.tell(application.notifier),
        watch.forget(application.alert_board.forget, application.decisions.forget),
    ]


def _of_shards(application: Application) -> list[Duty]:
    """Loaded only where there are several clusters."""
    settings = application.settings
    if not settings.shards:
        return []
    from mailyard.app.shards import opened_clusters, upkeep_of
    from mailyard.fleet.duties import moves, names

    shard = settings.shard or HOME
    mend = names.mend(upkeep_of(application.database, application.home, shard))
    if settings.shard:
        return [mend]
    clusters = partial(opened_clusters, settings)
    return [mend, moves.go_on(application.database, clusters, name_of_home=HOME)]


def _backups(application: Application) -> list[Duty]:
    """Loaded only where there are some."""
    settings = application.settings
    if not settings.backup:
        return []
    from mailyard.app.backup import backups_of
    from mailyard.fleet.duties import backup

    return backup.duties(
        backups_of(application),
        application.clock,
        every_h=settings.backup_every_h,
        try_days=settings.backup_try_days,
    )
