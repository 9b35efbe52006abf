"""`mailyard doctor`: is this machine, and this configuration, fit for Mailyard?"""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from mailyard.app import Application, database_address
from mailyard.app.foundation import blob_store
from mailyard.cli import exit_code
from mailyard.core.errors import ConfigurationError, Unavailable
from mailyard.fleet.checkup import blobs, database, machine
from mailyard.fleet.checkup.finding import Finding, Grade
from mailyard.fleet.stage import Stage, parse_stage
from mailyard.settings import (
    HOME,
    SAFE,
    Settings,
    check_budget,
    describe,
    describe_budget,
    load_settings,
)
from mailyard.settings.load import PREFIX

app = typer.Typer(add_completion=False)

_MARKS = {Grade.GOOD: "ok  ", Grade.WARN: "warn", Grade.BAD: "BAD "}


@app.command()
def doctor(
    settings: Annotated[
        bool, typer.Option("--settings", help="List every setting instead.")
    ] = False,
    stage: Annotated[
        str,
        typer.Option(
            "--for",
            metavar="STAGE",
            help="Also the checklist of a stage: 1 one-server, 2 separate-roles, 3 fleet, "
            "4 regions.",
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Check the machine and the configuration, and say what to fix; exit code 78 if it must be.

    With --for it asks whether the installation that runs here is ready for a stage, the one that
    it is at or the next: a load test, backups, failover, limits, TLS, DNS and more
    (docs/READINESS.md).

    Example: MAILYARD_DATA=/var/lib/mailyard mailyard doctor

    Example: mailyard doctor --for 2
    """
    if settings:
        _list_settings(as_json)
        return
    wanted = parse_stage(stage) if stage else None
    findings = asyncio.run(_examine(wanted))
    bad = any(finding.grade is Grade.BAD for finding in findings)
    if as_json:
        rows = [
            {"check": one.check, "grade": one.grade.value, "found": one.found, "fix": one.fix}
            for one in findings
        ]
        print(json.dumps({"healthy": not bad, "findings": rows}))
    else:
        for one in findings:
            print(f"{_MARKS[one.grade]}  {one.check:<20} {one.found}")
            if one.fix:
                print(f"      {'':<20} -> {one.fix}")
        print("Something must be fixed." if bad else _good(wanted, findings))
    if bad:
        raise typer.Exit(exit_code.CONFIGURATION)


def _good(stage: Stage | None, findings: Sequence[Finding]) -> str:
    if stage is None:
        return "Mailyard can run here."
    warned = sum(finding.grade is Grade.WARN for finding in findings)
    told = f", with {warned} warnings" if warned else ""
    return f"Ready for stage {stage.value} ({stage.word}){told}."


async def _examine(stage: Stage | None) -> list[Finding]:
    findings = list(machine.check_machine())
    try:
        settings = load_settings()
    except ConfigurationError as error:
        return [*findings, Finding("settings", Grade.BAD, error.message)]
    findings.append(Finding("settings", Grade.GOOD, "every one is known and allowed"))
    findings += machine.check_data(settings.data)
    running = machine.platform_runs(settings.data)
    findings += _check_ports(settings, running)
    if settings.embedded:
        findings += machine.check_embedded(settings.data)
    if running or not settings.embedded:
        findings += await database.check_database(
            database_address(settings).direct_url, lambda limit: _budget(settings, limit)
        )
        findings.append(await _check_backup(settings))
    if settings.database_replicas:
        from mailyard.fleet.checkup.replicas import check_replicas

        findings += await check_replicas(
            database_address(settings).direct_url,
            settings.replica_urls,
            settings.instances * settings.database_connections,
        )
    if settings.regions_file is not None:
        findings += await _check_regions(settings)
    if settings.shards and not settings.shard:
        findings += await _check_shards(settings)
    if settings.redis_url:
        from mailyard.fleet.checkup.redis import check_redis
        from mailyard.storage.redis.address import parse_address

        findings += await check_redis(parse_address(settings.redis_url))
    if settings.tls_cert is not None and settings.tls_key is not None:
        findings.append(machine.check_certificate(settings.tls_cert, settings.tls_key))
    findings += await _check_blobs(settings)
    findings += _check_delivery(settings)
    if settings.queue_engine == "kafka":
        findings += await _check_kafka(settings)
    if stage is not None:
        from mailyard.app.readiness import examine

        asked = running or not settings.embedded
        findings += await examine(settings, stage, findings, database=asked)
    return [_short(finding) for finding in findings]


def _check_ports(settings: Settings, running: bool) -> Iterator[Finding]:
    for name, host, port, setting in (
        ("HTTP port", settings.host, settings.port, "MAILYARD_PORT"),
        ("SMTP port", settings.smtp_host, settings.smtp_port, "MAILYARD_SMTP_PORT"),
    ):
        yield machine.check_port(name, host, port, setting, running=running)
    for name, wanted, setting in (
        ("submission port", settings.submission_port, "MAILYARD_SUBMISSION_PORT"),
        ("submissions port", settings.submissions_port, "MAILYARD_SUBMISSIONS_PORT"),
    ):
        if wanted:  # else the usual one is taken when it is free
            yield machine.check_port(name, settings.smtp_host, wanted, setting, running=running)


async def _check_regions(settings: Settings) -> list[Finding]:
    """Whether this site is its region, and the copies that it keeps of others."""
    from mailyard.fleet.checkup.regions import check_regions

    application = Application(settings)
    try:
        neighbours = application.neighbours
    except ConfigurationError as error:
        return [Finding("regions", Grade.BAD, error.message, "mend MAILYARD_REGIONS_FILE")]
    if neighbours is None:
        return []
    try:
        await application.database.open()
        return await check_regions(application.database, neighbours)
    except Unavailable as error:
        return [Finding("regions", Grade.WARN, f"not checked: {error.message}")]
    finally:
        await neighbours.close()
        await application.database.close()


async def _check_blobs(settings: Settings) -> list[Finding]:
    """The stores that the settings name."""
    found = []
    for name, setting, url in (
        ("blob store", "MAILYARD_BLOBS", settings.blobs),
        ("former blob store", "MAILYARD_BLOBS_BEFORE", settings.blobs_before),
    ):
        if url:
            try:
                found.append(await blobs.check_blobs(name, setting, blob_store(url)))
            except ConfigurationError as error:
                found.append(Finding(name, Grade.BAD, error.message, f"mend {setting}"))
    return found


def _check_delivery(settings: Settings) -> list[Finding]:
    """The files that own delivery reads."""
    application = Application(settings)
    files: list[tuple[str, Path | None, Callable[[], str]]] = [
        (
            "shaping file",
            settings.shaping_file,
            lambda: f"{len(application.receivers.receivers)} receivers",
        ),
        (
            "sources file",
            settings.sources_file,
            lambda: f"pools: {', '.join(application.source_lists)}",
        ),
    ]
    found = []
    for name, file, read in files:
        if file is not None:
            try:
                found.append(Finding(name, Grade.GOOD, read()))
            except ConfigurationError as error:
                found.append(Finding(name, Grade.BAD, error.message, "mend it, or leave it out"))
    return found


async def _check_shards(settings: Settings) -> list[Finding]:
    """The same of each other database cluster as of the home one, and what is on its way."""
    from mailyard.app.shards import clusters_of, settings_of
    from mailyard.fleet.checkup.shards import check_moves
    from mailyard.fleet.shards.overview import Overview

    found: list[Finding] = []
    for name in settings.shard_urls:
        own = settings_of(settings, name)
        about = await database.check_database(
            database_address(own).direct_url, lambda limit: _budget(settings, limit)
        )
        about.append(await _check_backup(own))
        found += [
            replace(
                one,
                check=f"{one.check} of {name}",
                fix=one.fix.replace("MAILYARD_DATABASE_URL", "MAILYARD_SHARDS"),
            )
            for one in about
        ]
    clusters = clusters_of(settings)
    try:
        await clusters[HOME].open()
        found.append(await check_moves(Overview(clusters, HOME)))
    except Unavailable:
        pass  # said of the database itself
    finally:
        await clusters[HOME].close()
    return found


async def _check_kafka(settings: Settings) -> list[Finding]:
    from mailyard.app.foundation import kafka_options
    from mailyard.fleet.checkup.kafka import check_kafka
    from mailyard.queue.lanes import parse_lanes

    try:
        return await check_kafka(kafka_options(settings), parse_lanes(settings.kafka_lanes))
    except ConfigurationError as error:  # the client is not installed
        return [Finding("Kafka", Grade.BAD, error.message)]


async def _check_backup(settings: Settings) -> Finding:
    from mailyard.fleet.checkup.backup import check_backup

    application = Application(settings)

    async def last_good() -> Mapping[str, datetime]:
        await application.database.open()
        try:
            return await application.backup_log.last_good()
        finally:
            await application.database.close()

    return await check_backup(settings.backup, last_good, timedelta(days=settings.backup_try_days))


def _budget(settings: Settings, limit: int) -> str:
    check_budget(settings, limit)
    return describe_budget(settings)


def _short(finding: Finding) -> Finding:
    return replace(finding, found=finding.found.replace("\n", " "))


def _list_settings(as_json: bool) -> None:
    rows = describe()
    if as_json:
        names = ("name", "about", "allowed", "default")
        print(
            json.dumps(
                [
                    {**dict(zip(names, row, strict=True)), "reloads": _reloads(row[0])}
                    for row in rows
                ]
            )
        )
        return
    for name, about, allowed, default in rows:
        said = f"{name}\n    {about}; {allowed}" + (f"; default {default}" if default else "")
        print(said + ("; read again on SIGHUP" if _reloads(name) else ""))


def _reloads(name: str) -> bool:
    """Whether a change of the setting is in force without a restart."""
    return name.removeprefix(PREFIX).lower() in SAFE
