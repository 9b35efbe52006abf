"""One role, one process, one event loop: `python -m mailyard.cli.roles worker`; `worker@east` is
one of the database cluster east.

A role imports what it needs while its supervisor still starts PostgreSQL, waits for the word, works
until SIGTERM, drains within the limit of the settings and ends.
"""

import asyncio
import gc
import json
import os
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Protocol

# Where structlog and Litestar find these they load them, for tracebacks in colour and for models
# that no role has: some 5 and 10 MB in each process. The command line, which has both, may.
if __name__ == "__main__":
    sys.modules |= dict.fromkeys(("rich", "pydantic"))  # type: ignore[arg-type]

import structlog

from mailyard.access import master_key
from mailyard.app import Application
from mailyard.app.observing import observe
from mailyard.cli import exit_code
from mailyard.core.backoff import Backoff
from mailyard.core.errors import ConfigurationError, MailyardError, Unavailable
from mailyard.fleet import alive
from mailyard.fleet.control import Control
from mailyard.fleet.registry import ProcessRegistry
from mailyard.fleet.vital import vital
from mailyard.observe import log
from mailyard.settings import HOME, Settings, load_settings, reload, reloaded

if TYPE_CHECKING:
    from mailyard.fleet.region_term import TermWatch

_LOG = structlog.get_logger(__name__)
RECONNECT = Backoff(first_s=0.1, cap_s=2.0)
# What a batch makes is many and short-lived, and holds hardly a cycle: looking at it every 700
# objects, as Python does by itself, finds nothing.
GC_THRESHOLDS = (20_000, 20, 20)


class Service(Protocol):
    """What a role does."""

    async def start(self) -> None:
        """Begin; raises ConfigurationError when a setting or the machine forbids it."""
        ...

    def reload(self, settings: Settings) -> None:
        """Go by what may change while it works; `settings` are read and allowed."""
        ...

    async def drain(self, timeout_s: float) -> None:
        """Take nothing new, finish what is there within `timeout_s`, end."""
        ...


def run_alone(role: str, shard: str = "") -> None:
    """The command `mailyard <role>`: no supervisor, the database is there and migrated."""
    sys.exit(_run(role, _for_shard(load_settings(), shard), None))


def main() -> None:
    """What the supervisor starts: `<role> --control <descriptor>`."""
    name, _, descriptor = sys.argv[1:4]
    role, _, shard = name.partition("@")
    sys.exit(_run(role, _for_shard(load_settings(), shard), int(descriptor)))


def _for_shard(settings: Settings, shard: str) -> Settings:
    """The settings of a role that works for one database cluster. Raises ConfigurationError."""
    shard = shard or settings.shard
    if not shard:
        return settings
    if shard not in (HOME, *settings.shard_urls):
        raise ConfigurationError(
            f"no shard is named {shard!r}; MAILYARD_SHARDS names "
            f"{', '.join(settings.shard_urls) or 'none'}"
        )
    return _of_shard(settings, "" if shard == HOME else shard)


def _of_shard(settings: Settings, shard: str) -> Settings:
    """How many processes there are is decided by the home cluster's scheduler."""
    return replace(settings, shard=shard, autoscale="off" if shard else settings.autoscale)


def _run(role: str, settings: Settings, descriptor: int | None) -> int:
    import uvloop

    log.set_up(level=settings.log_level, form=settings.log_format, role=role)
    control = Control(descriptor)
    try:
        uvloop.run(_live(role, settings, control))
    except MailyardError as error:
        if isinstance(error, ConfigurationError):
            control.failed(error.message)
        _LOG.error("stopped", reason=error.message)
        return exit_code.of(error)
    return exit_code.DONE


async def _live(role: str, settings: Settings, control: Control) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    control.listen()
    application = Application(settings)
    service = _service(role, application, control)
    _follow(settings, application, service, control)
    await control.go()
    if not await _open(application, stopping, migrated=not control.alone):
        return
    await master_key.meet(application.database, settings.master_key, settings.data)
    term = await _in_its_term(application)
    await observe(application, role)
    registry = ProcessRegistry(
        presence=application.presence,
        role=role,
        id=application.process_id,
        memory_bytes=getattr(settings, f"{role}_memory"),
    )
    beating: asyncio.Task[None] | None = None
    watching: asyncio.Task[None] | None = None
    turning: asyncio.Task[None] | None = None
    try:
        await service.start()
        beating = vital(asyncio.create_task(registry.run(), name="beat"))
        watching = None if term is None else vital(asyncio.create_task(term.run(), name="term"))
        if settings.alive_file is not None:
            turning = asyncio.create_task(alive.touch(settings.alive_file), name="alive")
        # What was made so far lives until the end: no collection need look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        control.ready()
        _LOG.info("ready", pid=os.getpid())
        await stopping.wait()
        await service.drain(application.settings.drain_s)
    finally:
        for task in (beating, watching, turning):
            if task is not None:
                task.cancel()
        if term is not None:
            await term.close()
        await registry.leave()
        await application.close()


def _follow(
    settings: Settings, application: Application, service: Service, control: Control
) -> None:
    """Settings that are read again: by the supervisor, or here on SIGHUP where there is none."""
    known = settings

    def take(new: Settings) -> str:
        nonlocal known
        told = reload(known, _of_shard(new, known.shard))
        application.reload(told.settings)
        service.reload(told.settings)
        log.set_level(told.settings.log_level)
        known = told.settings
        return reloaded(told)

    def heard(text: str) -> None:
        try:
            take(load_settings(json.loads(text)))
        except MailyardError as error:
            _LOG.error("settings_stay", reason=error.message)

    def hang_up() -> None:
        try:
            _LOG.warning("settings_read", outcome=take(load_settings()))
        except MailyardError as error:
            _LOG.error("settings_stay", reason=error.message)

    control.hear_settings(heard)
    if control.alone:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hang_up)


async def _open(application: Application, stopping: asyncio.Event, *, migrated: bool) -> bool:
    """Connect, waiting for a database that is away or recovering; False when told to stop first."""
    random = Random()
    failures = 0
    while not stopping.is_set():
        try:
            if not migrated:
                await _check_schema(application)
                migrated = True
            await application.open()
            return True
        except Unavailable as error:
            failures += 1
            _LOG.warning("waiting for the database", error=error.message, failures=failures)
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), RECONNECT.delay_s(failures, random))
    return False


async def _in_its_term(application: Application) -> "TermWatch | None":
    """What watches that this site stays the region that it is of; None where there is only one.
    Raises ConfigurationError when it is no longer."""
    if not application.regions.others:
        return None
    from mailyard.fleet.region_term import TermWatch

    term = TermWatch(application.database, application.regions)
    try:
        await term.check()
    except ConfigurationError:
        await term.close()
        await application.close()
        raise
    return term


async def _check_schema(application: Application) -> None:
    from mailyard.storage.migrate import standing

    found = await standing(application.database.direct_url)
    if found.missing:
        raise ConfigurationError(
            f"the database lacks {', '.join(found.missing)}: run `mailyard migrate` first"
        )
    if found.newer:
        _LOG.warning("schema_is_newer", unknown_here=found.newer, outcome="it can be worked with")


def _service(role: str, application: Application, control: Control) -> Service:
    if application.settings.shard and role in ("api", "smtp"):
        raise ConfigurationError(
            f"MAILYARD_SHARD is {application.settings.shard!r}, but the role {role} serves all "
            "database clusters; leave it out"
        )
    match role:
        case "api":
            from mailyard.cli.serving.api import ApiService

            return ApiService(application)
        case "smtp":
            from mailyard.cli.serving.smtp import SmtpService

            return SmtpService(application)
        case "worker":
            from mailyard.cli.serving.worker import WorkerService

            return WorkerService(application)
        case "scheduler":
            from mailyard.cli.serving.scheduler import SchedulerService

            return SchedulerService(application, control)
    raise ConfigurationError(f"no role is named {role!r}: api, smtp, worker or scheduler")


if __name__ == "__main__":
    main()
