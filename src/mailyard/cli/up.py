"""`mailyard up`: the whole platform on this machine, under one supervisor."""

import asyncio
import json
import os
import shlex
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import typer

from mailyard.cli.preparing import FirstAccess, Preparation
from mailyard.cli.serving.children import ROLES, specs
from mailyard.core.errors import ConfigurationError, MailyardError
from mailyard.fleet.local.service import Moment
from mailyard.fleet.local.services.balancer import Front
from mailyard.fleet.local.stage import LocalStage, read_stage
from mailyard.fleet.local.yard import Yard
from mailyard.fleet.ports import check_free, settled
from mailyard.fleet.stage import Stage, parse_stage
from mailyard.fleet.supervisor import Supervisor
from mailyard.settings import (
    SUBMISSION_PORT,
    SUBMISSIONS_PORT,
    Settings,
    as_environment,
    given_settings,
    load_settings,
    reload,
    reloaded,
)
from mailyard.storage.embedded import EmbeddedPostgres

app = typer.Typer(add_completion=False)

_POSTGRES_AGAIN_S = 0.5
_GRACE_S = 3.0  # roles keep the drain's limit themselves; who has not is killed after this


@app.command()
def up(
    stage: Annotated[
        str | None,
        typer.Option(
            help="1: one server. 2: also a replica, PgBouncer, Redis, nginx before two of each "
            "role. 3: Redis under Sentinels, Kafka and S3 as well, and roles scale by themselves. "
            "4: one region of several, named by MAILYARD_REGION. As MAILYARD_STAGE.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="When ready, print one JSON object on one line.")
    ] = False,
) -> None:
    """Start everything here: database, migrations, API and pages, SMTP, workers, scheduler.

    With a stage also the services of that stage, all data below MAILYARD_DATA; programs that are
    missing are named with what installs them. One may go from a stage to another with the data.

    Ctrl-C or SIGTERM drains and stops, a second one cuts the drain short; the next start goes on
    with the same data. SIGHUP reads the settings' file again, unless it comes of a terminal that
    is closed. The very first start prints an API key and a one-time sign-in link.

    Example: MAILYARD_PORT=8080 MAILYARD_DATA=/var/lib/mailyard mailyard up
    """
    environment = dict(os.environ)
    if stage is not None:
        environment["MAILYARD_STAGE"] = str(parse_stage(stage).value)
    platform = Platform(environment, as_json=as_json)
    asyncio.run(platform.run())


class Platform:
    """One run of `mailyard up`."""

    def __init__(self, environment: Mapping[str, str], *, as_json: bool) -> None:
        given = given_settings(environment)
        self._environment = environment
        self._yard = Yard(_stage(given), given.get("data", Path("data")), given, self._say)
        # As written; those that the platform goes by have their ports decided.
        self._read = load_settings(environment, beneath=self._yard.settings)
        self._settings = settings = _with_ports(self._read)
        self._as_json = as_json
        self._started = monotonic()
        self._postgres: EmbeddedPostgres | None = None
        self._watching: asyncio.Task[None] | None = None
        self._supervisor = Supervisor(
            specs(settings),
            environment={**environment, **as_environment(settings)},
            drain_s=settings.drain_s + _GRACE_S,
            say=self._say,
            own=self._yard.own,
            counted=self._yard.scaled,
        )
        self._yard.stand_before(
            _front(settings),
            settings.page_url,
            {role: self._supervisor.names(role) for role in ROLES},
        )

    async def run(self) -> None:
        """From nothing to drained. Raises ConfigurationError or Unavailable at the start."""
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_stop, stopping)
        if sys.stdin is not None and sys.stdin.isatty():  # the terminal is closed
            loop.add_signal_handler(signal.SIGHUP, self._asked_to_stop, stopping)
        else:
            loop.add_signal_handler(signal.SIGHUP, self._reload)
        stop = asyncio.create_task(stopping.wait())
        start = asyncio.create_task(self._start())
        try:
            await asyncio.wait([start, stop], return_when=asyncio.FIRST_COMPLETED)
            if start.done():
                await start  # raises what went wrong
                await stop
                self._say("mailyard", "stopping: work under way is finished first")
        finally:
            for task in (start, stop):
                task.cancel()
            await asyncio.gather(start, stop, return_exceptions=True)
            await self._stop()

    def _asked_to_stop(self, stopping: asyncio.Event) -> None:
        if stopping.is_set():
            self._say("mailyard", "asked twice: work under way is cut off")
            self._supervisor.hurry()
        stopping.set()

    def _reload(self) -> None:
        """Read the settings again; who cannot take one over without a restart keeps the old."""
        try:
            new = load_settings(self._environment, beneath=self._yard.settings)
        except MailyardError as error:
            self._say("mailyard", f"the settings stay as they are: {error.message}")
            return
        told = reload(self._read, new)
        self._read = told.settings
        self._settings = replace(
            self._settings, **{name: getattr(new, name) for name in told.taken}
        )
        environment = as_environment(self._settings)
        self._supervisor.reload(
            {**self._environment, **environment},
            drain_s=self._settings.drain_s + _GRACE_S,
            caps={role: getattr(self._settings, f"{role}_memory") for role in ROLES},
            told=environment,
        )
        self._say("mailyard", reloaded(told))

    async def _start(self) -> None:
        settings = self._settings
        if settings.api_processes:
            check_free(settings.host, settings.port, "MAILYARD_PORT")
        if settings.smtp_processes:
            check_free(settings.smtp_host, settings.smtp_port, "MAILYARD_SMTP_PORT")
        environment = {**self._environment, **as_environment(settings)}
        preparation = Preparation(environment, lambda line: self._say("mailyard", line))
        await preparation.spawn()
        spawning = asyncio.create_task(self._supervisor.spawn())
        beside = asyncio.create_task(self._yard.start(Moment.FIRST))
        try:
            if settings.embedded or self._yard.runs_pooler:
                await self._start_postgres()
            await self._yard.start(Moment.DATABASE)
            first = await preparation.database()
            await beside
            if self._yard.runs_kafka:
                await preparation.queue()
        finally:
            beside.cancel()
            await asyncio.gather(beside, return_exceptions=True)
            await spawning
            await preparation.end()
        self._supervisor.release()
        await self._supervisor.until_ready()
        await self._yard.start(Moment.ROLES)
        self._announce(first)

    async def _start_postgres(self) -> None:
        self._postgres = EmbeddedPostgres(
            self._settings.data,
            connections=self._settings.database_budget,
            memory_bytes=self._settings.database_memory,
            say=lambda line: self._say("postgres", line),
            slots=self._yard.slots,
        )
        await self._postgres.start()
        self._watching = asyncio.create_task(self._keep_postgres(self._postgres))

    async def _keep_postgres(self, postgres: EmbeddedPostgres) -> None:
        """Start PostgreSQL again whenever it ends, until we stop."""
        while True:
            status = await postgres.wait()
            self._say("postgres", f"ended with status {status}, starts again")
            while True:
                try:
                    await postgres.restart()
                    break
                except MailyardError as error:
                    self._say("postgres", error.message)
                    await asyncio.sleep(_POSTGRES_AGAIN_S)

    def _announce(self, first: FirstAccess | None) -> None:
        settings = self._settings
        smtp = f"{settings.smtp_host}:{settings.smtp_port}"
        ways = f"SMTP {smtp}{_submission(settings)}"
        link = None if first is None else f"{settings.page_url}/sign-in/{first.link_token}"
        if self._as_json:
            ready = {
                "ready": True,
                "page": settings.page_url,
                "smtp": smtp,
                "submission": settings.submission_port or None,
                "submissions": settings.submissions_port or None,
                "stage": self._yard.stage.value,
                "services": dict(self._yard.places()),
                "seconds": round(monotonic() - self._started, 2),
                "api_key": first and first.api_key,
                "sign_in": link,
            }
            print(json.dumps(ready), flush=True)
            return
        lines = [
            "",
            f"  Mailyard runs: page and API {settings.page_url}, {ways}",
        ]
        if self._yard.places():
            stage = self._yard.stage
            lines.append(f"  Stage {stage.value} ({stage.word}), with")
            lines += [f"    {name:<12} {where}" for name, where in self._yard.places()]
        if first is not None:
            command, inbox = shlex.quote(sys.argv[0]), f"hello@{settings.inbox_domain}"
            lines += [
                f"  Sign in once:  {link}",
                f"  API key:       {first.api_key}   (shown only now)",
                "",
                "  Try next, in another terminal:",
                f"    export MAILYARD_API_KEY={first.api_key} MAILYARD_URL={settings.page_url}",
                f"    {command} inbox create {inbox}",
                f"    {command} send --from me@{settings.inbox_domain} --to {inbox}"
                " --subject Hello --text Hi",
                f"    {command} demo --recipients 1000",
            ]
        print("\n".join([*lines, ""]), flush=True)

    async def _stop(self) -> None:
        await self._supervisor.stop()
        await self._yard.stop()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        if self._postgres is not None:
            await self._postgres.stop()

    def _say(self, name: str, line: str) -> None:
        """One log stream on standard error; in JSON, lines of the roles pass as they are."""
        if self._settings.log_format == "json":
            if not line.startswith("{"):
                now = datetime.now(UTC).isoformat()
                line = json.dumps({"timestamp": now, "role": name, "event": line})
        else:
            line = f"{name:<12} {line}"
        print(line, file=sys.stderr, flush=True)


def _stage(given: Mapping[str, Any]) -> LocalStage:
    """The stage that the operator asks for, one server by itself. Raises ConfigurationError."""
    file: Path | None = given.get("stage_file")
    try:
        own = "" if file is None else file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"MAILYARD_STAGE_FILE cannot be read: {error}") from error
    return read_stage(Stage(given.get("stage", 1)), given, own, str(file))


def _front(settings: Settings) -> Front:
    """Where callers come to."""
    return Front(
        host=settings.host,
        port=settings.port,
        smtp_host=settings.smtp_host,
        smtp_port=settings.smtp_port,
        submission_port=settings.submission_port or 0,
        submissions_port=settings.submissions_port or 0,
    )


def _with_ports(settings: Settings) -> Settings:
    """With the ports of submission decided, for all processes alike. Raises ConfigurationError."""
    if not settings.smtp_processes:
        return settings
    return replace(
        settings,
        submission_port=settled(
            settings.submission_port,
            SUBMISSION_PORT,
            settings.smtp_host,
            "MAILYARD_SUBMISSION_PORT",
        ),
        submissions_port=settled(
            settings.submissions_port,
            SUBMISSIONS_PORT,
            settings.smtp_host,
            "MAILYARD_SUBMISSIONS_PORT",
        ),
    )


def _submission(settings: Settings) -> str:
    """Where applications submit mail, for people; empty when nowhere."""
    places = [
        f"{port} ({how})"
        for port, how in (
            (settings.submission_port, "STARTTLS"),
            (settings.submissions_port, "TLS"),
        )
        if port
    ]
    return f", submission on {' and '.join(places)}" if places else ""
