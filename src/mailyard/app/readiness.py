"""What `mailyard doctor --for STAGE` looks at, gathered by the services of the settings."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import TypeVar

import asyncpg

from mailyard import __version__
from mailyard.access.region import Regions
from mailyard.app.application import Application
from mailyard.app.foundation import database_address
from mailyard.core.errors import ConfigurationError, MailyardError
from mailyard.fleet.checkup.finding import Finding
from mailyard.fleet.readiness import (
    front,
    limits,
    mail_names,
    needs,
    processes,
    proven,
    regions,
    shards,
    stores,
    watched,
)
from mailyard.fleet.readiness.item import Item
from mailyard.fleet.stage import Stage
from mailyard.net.guard import ANYWHERE
from mailyard.net.http import HttpClient
from mailyard.net.tls import client_context
from mailyard.sending.return_path import is_public
from mailyard.settings import Settings, describe_budget
from mailyard.storage.redis.address import Form, parse_address

T = TypeVar("T")
_USER_AGENT = "Mailyard (doctor)"


async def examine(
    settings: Settings, stage: Stage, machine: Sequence[Finding], *, database: bool
) -> list[Finding]:
    """The checklist of `stage`. `machine`: what the checks of every stage found. `database`: it may
    be asked (an embedded one that does not run has nothing to say)."""
    async with _application(settings, database=database) as (application, answers):
        kept = await _kept(application) if answers else _Kept()
        items = [
            *_proven(settings, kept),
            *await _watched(settings, kept),
            *await _processes(application, kept),
            *await _stores(application, machine),
            regions.judge_regions(
                machine, _regions(application), kafka=settings.queue_engine == "kafka"
            ),
            shards.judge_shards(await _shards(settings, machine)),
            *_limits(settings),
            *await _outside(application),
        ]
    return needs.grade(items, stage)


@asynccontextmanager
async def _application(
    settings: Settings, *, database: bool
) -> AsyncIterator[tuple[Application, bool]]:
    """The services, and whether the database answers: none of the others needs an open bus."""
    application = Application(settings)
    answers = False
    try:
        if database:
            try:
                await application.database.open()
                answers = True
            except MailyardError:  # the machine's own findings say why
                pass
        yield application, answers
    finally:
        for end in reversed(application.ends):
            await end()
        if answers:
            await application.database.close()


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the database knows. None: it does not say."""

    load_test: proven.LoadTestSeen | None = None
    backups: dict[str, datetime] | None = None
    alerts: watched.AlertsSeen | None = None
    hosts: dict[str, list[str]] | None = None


async def _kept(application: Application) -> _Kept:
    return _Kept(
        load_test=await _or_none(lambda: _load_test(application)),
        backups=await _or_none(lambda: _backups(application)),
        alerts=await _or_none(lambda: _alerts(application)),
        hosts=await _or_none(lambda: _hosts(application)),
    )


async def _or_none(asked: Callable[[], Awaitable[T]]) -> T | None:
    """A schema that lacks a table, or a database that goes away, says nothing."""
    try:
        return await asked()
    except (MailyardError, asyncpg.PostgresError):
        return None


async def _load_test(application: Application) -> proven.LoadTestSeen | None:
    last = await application.load_tests.last(proven.LOAD_TEST_RECIPIENTS)
    if last is None:
        return None
    return proven.LoadTestSeen(
        at=last.at,
        version=last.version,
        recipients=last.recipients,
        per_second=last.per_second,
        clean=last.clean,
    )


async def _backups(application: Application) -> dict[str, datetime]:
    return dict(await application.backup_log.last_good())


async def _alerts(application: Application) -> watched.AlertsSeen:
    alerts = await application.alert_board.list(only_open=True)
    waiting = [told for one in alerts for told in one.told if told.sent_at is None and told.error]
    return watched.AlertsSeen(
        on=application.settings.alerts,
        channels=sorted(application.alert_channels),
        critical=[one.rule for one in alerts if one.level == "critical"],
        undelivered=[(told.channel, told.error) for told in waiting],
    )


async def _hosts(application: Application) -> dict[str, list[str]]:
    hosts: dict[str, list[str]] = {}
    for one in await application.presence_table.who():
        hosts.setdefault(one.role, []).append(one.host)
    return hosts


def _proven(settings: Settings, kept: _Kept) -> Iterator[Item]:
    now = datetime.now(UTC)
    yield proven.judge_load_test(kept.load_test, __version__, now)
    yield from proven.judge_backup(settings.backup, kept.backups, now)


async def _watched(settings: Settings, kept: _Kept) -> list[Item]:
    http = _http()
    try:
        seen = await watched.scrape(settings.api_url, http)
    finally:
        await http.close()
    return [watched.judge_monitoring(seen), watched.judge_alerts(kept.alerts)]


async def _processes(application: Application, kept: _Kept) -> list[Item]:
    settings = application.settings
    scaling = processes.ScalingSeen(
        mode=settings.autoscale,
        schedulers=len((kept.hosts or {}).get("scheduler", ())),
        trouble=await application.scaling_trouble(),
        most=application.scaling_most(),
        room=settings.most_instances,
    )
    return [processes.judge_autoscaling(scaling), processes.judge_spare(kept.hosts)]


async def _stores(application: Application, machine: Sequence[Finding]) -> list[Item]:
    settings = application.settings
    address = database_address(settings)
    redis = settings.redis_url
    return [
        stores.judge_budget(machine, describe_budget(settings)),
        await stores.judge_pooling(settings.database_pooler, address.url, address.direct_url),
        stores.judge_replica(machine, many_hosts=settings.many_hosts),
        stores.judge_redis(
            machine,
            used=bool(redis),
            single=bool(redis) and parse_address(redis).form is Form.SINGLE,
        ),
        stores.judge_kafka(machine, used=settings.queue_engine == "kafka"),
        stores.judge_blobs(machine, settings.blobs),
        stores.judge_master_key(settings.master_key),
    ]


def _regions(application: Application) -> Regions | str:
    try:
        return application.regions
    except ConfigurationError as error:
        return error.message


async def _shards(settings: Settings, machine: Sequence[Finding]) -> list[shards.ShardSeen]:
    """The clusters beside the home one. `machine` names them at the end of its checks."""
    seen = []
    for name in settings.shard_urls:
        findings = [one for one in machine if one.check.endswith(f" of {name}")]
        application = Application(replace(settings, shard=name))
        processes = None
        try:
            await application.database.open()
            roles = [one.role for one in await application.presence_table.who()]
            processes = {role: roles.count(role) for role in shards.ROLES}
        except (MailyardError, asyncpg.PostgresError):
            pass  # the findings say why
        finally:
            await application.database.close()
        seen.append(shards.ShardSeen(name, findings, processes))
    return seen


def _limits(settings: Settings) -> Iterator[Item]:
    yield limits.judge_limits(
        limits.LimitSettings(
            rate_per_s=settings.rate_per_s,
            user_limit=settings.user_limit,
            sign_up=settings.sign_up,
            plans=settings.plans_file is not None,
        )
    )
    yield limits.judge_clients(settings.http_balancers, settings.smtp_balancers)


async def _outside(application: Application) -> list[Item]:
    """What others see: pages and files, certificates, DNS."""
    settings, now = application.settings, datetime.now(UTC)
    page = settings.page_url
    http = _http()
    try:
        seen = await front.see_front(page, http)
    finally:
        await http.close()
    https = None
    if page.startswith("https:"):
        https = await front.see_https(page, client_context(verify=True))
    names = mail_names.MailNames(
        host=settings.smtp_name,
        inboxes=settings.inbox_domain,
        returns=settings.returns_at,
        addresses=[ip_address(one) for one in settings.sending_addresses.replace(",", " ").split()],
    )
    faults = await mail_names.see_dns(names, application.dns)
    offered = None
    if is_public(names.host) and settings.tls_cert is not None:
        offered = await mail_names.see_smtp_tls(names.host, application.dns)
    return [
        front.judge_cdn(seen),
        front.judge_https(page, https, now),
        mail_names.judge_smtp_tls(names.host, settings.tls_cert, offered, now),
        mail_names.judge_dns(names, faults),
    ]


def _http() -> HttpClient:
    """Goes where the operator's own settings say, which may be inside."""
    return HttpClient(user_agent=_USER_AGENT, allowed=ANYWHERE)
