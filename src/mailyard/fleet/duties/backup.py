"""Backups: the log as it is written, a base backup every day, and a restore now and then to see
that it works. The leader's, so that there is one of each for the whole installation."""

import asyncio

import structlog
from prometheus_client import Gauge

from mailyard.core.clock import Clock
from mailyard.core.errors import MailyardError
from mailyard.fleet.duty import Duty
from mailyard.observe.metrics import REGISTRY
from mailyard.storage.backup.keeper import Backups

LOOK_EVERY_S = 300.0
AGAIN_S = 5.0
_LOG = structlog.get_logger(__name__)

BACKUP_AT = Gauge(
    "mailyard_backup_last_success_timestamp_seconds",
    "When the last good run ended.",
    ["kind"],
    registry=REGISTRY,
)


class _Gap:
    """Whether the log in the store has a gap that the next base backup bridges."""

    def __init__(self) -> None:
        self.there = asyncio.Event()


def duties(backups: Backups, clock: Clock, *, every_h: float, try_days: float) -> list[Duty]:
    """All that backups take; `try_days` 0: no trial restores by themselves."""
    gap = _Gap()
    found = [_archive(backups, gap), _base(backups, clock, every_h * 3600.0, gap)]
    if try_days:
        found.append(_trial(backups, clock, try_days * 86_400.0))
    return found


def _archive(backups: Backups, gap: _Gap) -> Duty:
    """Never done: it receives until it is cancelled or the stream breaks."""

    async def do() -> bool:
        archiver = backups.archiver(*await backups.open())
        try:
            if not await archiver.start():
                _LOG.info("backup_log_begins")
                gap.there.set()
            while True:
                await archiver.step()
        finally:
            await archiver.stop()

    return Duty("backup-log", AGAIN_S, do)


def _base(backups: Backups, clock: Clock, every_s: float, gap: _Gap) -> Duty:
    async def do() -> bool:
        last = (await backups.log.last_good()).get("base")
        if last is not None:
            BACKUP_AT.labels("base").set(last.timestamp())
        due = last is None or (clock.now() - last).total_seconds() >= every_s
        due = due or await backups.is_new_here()
        if not due and not gap.there.is_set():
            # Woken early when a gap is found: until it is bridged nothing after it can be restored.
            try:
                await asyncio.wait_for(gap.there.wait(), LOOK_EVERY_S)
            except TimeoutError:
                return False
        gap.there.clear()
        try:
            base = await backups.take()
        except MailyardError:
            gap.there.set()
            raise
        BACKUP_AT.labels("base").set(base.finished_at.timestamp())
        _LOG.info("backup_taken", base=base.id, stored_bytes=base.stored_bytes)
        return False

    return Duty("backup-base", AGAIN_S, do)


def _trial(backups: Backups, clock: Clock, every_s: float) -> Duty:
    async def do() -> bool:
        last = await backups.log.last_good()
        if "drill" in last:
            BACKUP_AT.labels("drill").set(last["drill"].timestamp())
        if "base" not in last:
            return False
        if "drill" in last and (clock.now() - last["drill"]).total_seconds() < every_s:
            return False
        restored = await backups.try_restore()
        BACKUP_AT.labels("drill").set(clock.now().timestamp())
        _LOG.info("backup_restored_on_trial", seconds=round(restored.seconds, 1))
        return False

    return Duty("backup-trial", LOOK_EVERY_S, do)
