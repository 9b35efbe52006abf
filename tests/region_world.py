"""Two regions on one machine: full stacks, each with a copy of the other's database, and a link
between them that lets everything through late. One of them is lost, and the other takes it over.
"""

import asyncio
import json
import re
import shutil
import smtplib
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from crash_ledger import ApiSender, SmtpClient, World, build_world
from crash_verdict import INBOUND_WAITING, JOBS_THAT_DELIVER, Findings, compare
from far_link import FarLink, far_link
from postgres_servers import Server, primary_in, standby_of
from running_platform import free_ports, wait_until

from mailyard.app import Application
from mailyard.proving.client import ApiClient
from mailyard.proving.own_platform import Address, OwnPlatform
from mailyard.settings import load_settings
from mailyard.storage import cluster
from mailyard.storage.blobs.folder import MARK

DELAY_S = 0.080  # each way
EU, US = "eu", "us"
KEY = b64encode(b"a master key for all the regions").decode()
SHORT_RULES = """
[region-copy]
warning = 1
warning_for_s = 0
resolve_for_s = 0
"""
ANSWERS = re.compile(r"^([\d.]+) (?:250|202) (\S+)", re.M)


@dataclass
class Stack:
    """A region at a site: its processes, on a database."""

    region: str
    platform: OwnPlatform
    address: Address


@dataclass
class Regions:
    """Both of them. `front`: where a region's names lead (HTTP, SMTP), which can be changed."""

    folder: Path
    delay_s: float
    primaries: dict[str, Server] = field(default_factory=dict)
    copies: dict[str, Server] = field(default_factory=dict)  # of a region, at the other site
    links: dict[str, FarLink] = field(default_factory=dict)  # by which its copy follows
    fronts: dict[str, tuple[FarLink, FarLink]] = field(default_factory=dict)
    far_smtp: dict[str, FarLink] = field(default_factory=dict)  # its listener, from far away
    stacks: dict[str, Stack] = field(default_factory=dict)

    def blobs(self, region: str, site: str) -> Path:
        """A region's blob store at its own site, or its copy at the other."""
        return self.folder / f"blobs-of-{region}-at-{site}"

    def copy_blobs(self, region: str, site: str) -> None:
        """What a store's own replication does, some time later."""
        shutil.copytree(self.blobs(region, region), self.blobs(region, site), dirs_exist_ok=True)

    async def start(self, region: str, database: Server, site: str, *, key: str = "") -> Stack:
        """The processes of a region, at a site; its names lead to them once they are ready."""
        folder = self.folder / f"{region}-at-{site}"
        folder.mkdir(exist_ok=True)
        platform = OwnPlatform(folder, self._settings(region, database, site, folder), api_key=key)
        address = await platform.start()
        http, smtp = self.fronts[region]
        http.target = (address.smtp_host, int(address.url.rpartition(":")[2]))
        smtp.target = self.far_smtp[region].target = (address.smtp_host, address.smtp_port)
        front = Address(f"http://127.0.0.1:{http.port}", address.api_key, "127.0.0.1", smtp.port)
        self.stacks[region] = Stack(region, platform, front)
        return self.stacks[region]

    def _settings(self, region: str, database: Server, site: str, folder: Path) -> dict[str, str]:
        lines = []
        for name in (EU, US):
            at_site = self.primaries[name] if name == site else self.copies[name]
            standby = at_site.url() if name != region else ""
            lines.append(
                f'[{name}]\napi = "http://127.0.0.1:{self.fronts[name][0].port}"\n'
                f'smtp = ["mx.{name}.test"]\ndomains = ["{name}.localhost"]\n'
                f'standby = "{standby}"\n'
            )
        file = folder / "regions.toml"
        file.write_text("\n".join(lines))
        rules = folder / "alerts.toml"
        rules.write_text(SHORT_RULES)
        port, smtp_port = free_ports(2)
        return {
            "MAILYARD_REGION": region,
            "MAILYARD_REGIONS_FILE": str(file),
            "MAILYARD_DATABASE_URL": database.url(),
            "MAILYARD_PORT": str(port),
            "MAILYARD_SMTP_PORT": str(smtp_port),
            "MAILYARD_HOSTNAME": f"mx.{region}.test",
            "MAILYARD_INBOX_DOMAIN": f"{region}.localhost",
            "MAILYARD_MASTER_KEY": KEY,
            "MAILYARD_PROVIDER_NETWORKS": "127.0.0.0/8",
            "MAILYARD_WORKER_PROCESSES": "1",
            "MAILYARD_ALERTS_FILE": str(rules),
            "MAILYARD_BLOBS": f"file://{self.blobs(region, site)}",
            "MAILYARD_BLOBS_ABOVE": "16KB",
        }

    def command(self, region: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """`mailyard …` with the settings of a region's site."""
        return subprocess.run(
            [sys.executable, "-m", "mailyard.cli.main", *arguments],
            env=self.stacks[region].platform.environment,
            capture_output=True,
            text=True,
            check=False,
        )


@contextmanager
def two_regions(folder: Path, delay_s: float = DELAY_S) -> Iterator[Regions]:
    """Databases, copies, links and names; the stacks are started by the caller, in the loop."""
    folder.chmod(0o755)  # PostgreSQL is another user when we are root
    world = Regions(folder, delay_s)
    programs = cluster.binaries()
    with ExitStack() as stack:
        for region, other in ((EU, US), (US, EU)):
            site = folder / region
            site.mkdir(parents=True)
            site.chmod(0o755)
            primary = primary_in(site / "primary", programs)
            stack.callback(primary.stop)
            primary.sql("ALTER SYSTEM SET fsync = on")
            primary.sql("SELECT pg_reload_conf()")
            link = stack.enter_context(far_link(("127.0.0.1", primary.port), delay_s))
            away = folder / f"{other}-copies"
            away.mkdir()
            away.chmod(0o755)
            copy = standby_of(primary, away / region, link.port)
            stack.callback(copy.stop)
            for at in (region, other):
                world.blobs(region, at).mkdir()
                (world.blobs(region, at) / MARK).touch()
            world.primaries[region], world.copies[region] = primary, copy
            world.links[region] = link
            nowhere = ("127.0.0.1", 9)
            world.fronts[region] = (
                stack.enter_context(far_link(nowhere)),
                stack.enter_context(far_link(nowhere)),
            )
            world.far_smtp[region] = stack.enter_context(far_link(nowhere, delay_s))
        yield world


@dataclass
class Outcome:
    """What a region's loss has cost. Seconds, but for what says otherwise."""

    promises: int
    lost: int
    lost_of_the_copied: int  # of those that had reached the copy, which must be none
    window_s: float  # from the first promise that was lost to the end of the site
    decided_s: float  # from the end of the site to the command's success
    back_s: float  # … to the first mail that was taken again
    accept_ms: float  # before it, the median of a mail by SMTP
    findings: Findings
    told: dict[str, Any]


async def lose_and_take_over(world: Regions, *, mails: int, synchronous: bool) -> Outcome:
    """Load on `eu`, its site lost in the middle, taken over at the site of `us`."""
    eu = world.stacks[EU]
    ledger = await build_world(eu.address, world.folder, inboxes=50)
    if synchronous:
        world.primaries[EU].sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
        world.primaries[EU].sql("SELECT pg_reload_conf()")
    accept_ms = await asyncio.to_thread(accept_time_ms, eu.address, ledger.inboxes[0])
    clients = [
        *(asyncio.create_task(SmtpClient(ledger, f"smtp{n}", 0.01).run()) for n in range(4)),
        *(asyncio.create_task(ApiSender(ledger, f"api{n}", 0.02).run()) for n in range(2)),
    ]
    await promised(ledger, mails // 2)
    copied = {*ledger.ledger.by_smtp, *ledger.ledger.by_api}
    await asyncio.to_thread(until_copied, world)
    await promised(ledger, mails - mails // 2)
    lost_at = time.monotonic()
    world.links[EU].fall_silent()  # what is under way does not arrive any more
    await eu.platform.kill()
    world.primaries[EU].kill()
    for front in world.fronts[EU]:
        front.cut()
    told = await asyncio.to_thread(take_over, world)
    decided_at = time.monotonic()
    again = await world.start(EU, world.copies[EU], US, key=eu.address.api_key)
    await promised(ledger, mails // 4)
    ledger.stopping.set()
    await asyncio.gather(*clients)
    findings = await settled(again, ledger)
    times = {token: float(at) for at, token in ANSWERS.findall(ledger.ledger.file.read_text())}
    lost = {line.partition(":")[0].split()[1] for line in findings.lost}
    return Outcome(
        promises=findings.checked,
        lost=len(lost),
        lost_of_the_copied=len(lost & copied),
        window_s=max([lost_at - times[token] for token in lost], default=0.0),
        decided_s=decided_at - lost_at,
        back_s=min(at for at in times.values() if at > decided_at) - lost_at,
        accept_ms=accept_ms,
        findings=findings,
        told=told,
    )


def until_copied(world: Regions) -> None:
    """Until the copy has received all that `eu` has committed by now."""
    position = world.primaries[EU].sql("SELECT pg_current_wal_flush_lsn()")
    there = f"SELECT pg_last_wal_receive_lsn() >= '{position}'"
    wait_until(lambda: world.copies[EU].sql(there) == "t", 120.0)


def take_over(world: Regions) -> dict[str, Any]:
    """The operator's command at the site of `us`; what it said."""
    done = world.command(US, "region", "take-over", EU, "--json")
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


async def promised(world: World, more: int) -> None:
    """Wait until so many more promises were given, by both ways together."""
    ledger = world.ledger
    wanted = len(ledger.by_smtp) + len(ledger.by_api) + more
    async with asyncio.timeout(300):
        while len(ledger.by_smtp) + len(ledger.by_api) < wanted:
            await asyncio.sleep(0.01)


async def settled(stack: Stack, world: World) -> Findings:
    """What is there of all that was promised, once nothing is under way."""
    application = Application(load_settings(stack.platform.environment))
    await application.open()
    try:
        async with asyncio.timeout(300):
            while True:
                waiting = await application.database.fetchval(INBOUND_WAITING)
                if not waiting and not await application.database.fetch(JOBS_THAT_DELIVER):
                    break
                await asyncio.sleep(0.3)
        return await compare(application, world.ledger)
    finally:
        await application.close()


def accept_time_ms(address: Address, recipient: str, mails: int = 15) -> float:
    """The median of a mail over an open connection, in milliseconds."""
    times = []
    with smtplib.SMTP(address.smtp_host, address.smtp_port, timeout=30) as client:
        for number in range(mails):
            mail = f"From: a@b.example\r\nTo: {recipient}\r\nSubject: probe {number}\r\n\r\nx\r\n"
            started = time.perf_counter()
            client.sendmail("a@b.example", [recipient], mail)
            times.append(time.perf_counter() - started)
    return 1000 * median(times)


async def send_far(world: Regions, sender: str, receiver: str) -> float:
    """An email from one region's API into an inbox of the other's; seconds until it is read."""
    here = ApiClient(world.stacks[sender].address.url, world.stacks[sender].address.api_key)
    there = ApiClient(world.stacks[receiver].address.url, world.stacks[receiver].address.api_key)
    try:
        settings = {"host": "127.0.0.1", "port": world.far_smtp[receiver].port, "tls": "none"}
        body = {"name": f"to-{receiver}", "kind": "smtp", "settings": settings}
        await here.post("/v1/providers", body)
        routes = [
            {
                "name": "far",
                "legs": [{"provider": f"to-{receiver}"}],
                "when": {"domains": [f"{receiver}.localhost"]},
            },
            {"name": "near", "legs": [{"provider": "relay"}]},
        ]
        await here.call("PUT", "/v1/routes", body={"routes": routes})
        inbox = await there.post("/v1/inboxes", {"address": f"far-{sender}"})
        started = time.monotonic()
        mail = {"from": f"me@{sender}.localhost", "to": [inbox["address"]], "subject": "Far"}
        await here.post("/v1/emails", {**mail, "text": "Hello"})
        await there.get(f"/v1/inboxes/{inbox['id']}/wait", timeout_s=60)
        return time.monotonic() - started
    finally:
        await here.close()
        await there.close()
