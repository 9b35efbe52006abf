"""An installation on two PostgreSQL clusters, its commands, and tenants who use it."""

import asyncio
import json
import os
import signal
import ssl
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
from postgres_servers import Server, servers
from running_platform import Platform, running_platform

from mailyard.storage.unprivileged import die_with_parent

MAIL = "From: peer@example.net\r\nTo: {to}\r\nSubject: {subject}\r\n\r\n{subject}\r\n"


@dataclass
class Stage:
    platform: Platform
    home: Server
    east: Server

    @property
    def settings(self) -> dict[str, str]:
        """What a command of this installation is started with."""
        return {
            **{k: v for k, v in os.environ.items() if not k.startswith("MAILYARD_")},
            "MAILYARD_DATA": str(self.platform.data),
            "MAILYARD_DATABASE_URL": self.home.url(),
            "MAILYARD_SHARDS": f"east={self.east.url()}",
        }

    async def begin(self, *words: str, **settings: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mailyard.cli.main", *words),
            env={**self.settings, **{f"MAILYARD_{k.upper()}": v for k, v in settings.items()}},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            preexec_fn=partial(die_with_parent, signal.SIGKILL, os.getpid()),
        )

    async def run(self, *words: str, **settings: str) -> Any:
        """A command to its end; what it says as JSON."""
        process = await self.begin(*words, "--json", **settings)
        out, err = await process.communicate()
        assert process.returncode == 0, (words, out, err)
        return json.loads(out)


@contextmanager
def two_clusters(folder: Path, **settings: str) -> Iterator[Stage]:
    """A platform on `home` and `east` that is ready, and gone afterwards."""
    with ExitStack() as stack:
        (home,) = stack.enter_context(servers(folder / "home", standbys=0))
        (east,) = stack.enter_context(servers(folder / "east", standbys=0))
        chosen = {"database_connections": "6", "drain_s": "5", **settings}
        platform = stack.enter_context(
            running_platform(
                folder / "data",
                database_url=home.url(),
                shards=f"east={east.url()}",
                **chosen,
            )
        )
        yield Stage(platform, home, east)


@dataclass
class Tenant:
    """A workspace as its application and its peers see it."""

    id: str
    key: str
    address: str
    inbox: str
    port: int
    http: aiohttp.ClientSession
    answers: dict[int, int] = field(default_factory=dict)

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    async def mail(self, subject: str) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for line in ("", "EHLO peer", "MAIL FROM:<a@example.net>", f"RCPT TO:<{self.address}>"):
                if line:
                    writer.write(f"{line}\r\n".encode())
                code = await reply_of(reader)
                if code >= 400:
                    return code
            writer.write(b"DATA\r\n")
            await reply_of(reader)
            mail = MAIL.format(to=self.address, subject=subject)
            writer.write(mail.encode() + b".\r\n")
            return await reply_of(reader)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def call(self, method: str, path: str, **more: Any) -> tuple[int, Any]:
        headers = {**self.headers, **more.pop("headers", {})}
        async with self.http.request(method, path, headers=headers, **more) as answer:
            self.answers[answer.status] = self.answers.get(answer.status, 0) + 1
            if answer.status == 503:
                assert int(answer.headers["retry-after"]) > 0
            return answer.status, await answer.json()

    async def subjects(self) -> list[str]:
        """Of all the mail in the inbox."""
        found, before = [], ""
        while True:
            query = {"limit": "200", **({"before": before} if before else {})}
            status, page = await self.call(
                "GET", f"/v1/inboxes/{self.inbox}/messages", params=query
            )
            assert status == 200, page
            found += [item["subject"] for item in page["items"]]
            before = page.get("next_before") or ""
            if not before:
                return sorted(found)


async def reply_of(reader: asyncio.StreamReader) -> int:
    while True:
        line = await reader.readline()
        if line[3:4] != b"-":
            return int(line[:3] or 421)


async def new_tenant(stage: Stage, http: aiohttp.ClientSession, name: str) -> Tenant:
    operator = {"authorization": f"Bearer {stage.platform.ready['api_key']}"}
    async with http.post("/v1/workspaces", json={"name": name}, headers=operator) as answer:
        made = await answer.json()
        assert answer.status == 201, made
    address = f"{name}@inbox.localhost"
    headers = {"authorization": f"Bearer {made['secret']}"}
    async with http.post("/v1/inboxes", json={"address": address}, headers=headers) as answer:
        inbox = await answer.json()
        assert answer.status == 201, inbox
    port = stage.platform.smtp_port
    return Tenant(made["id"], made["secret"], address, inbox["id"], port, http)


async def submitted(stage: Stage, tenant: Tenant) -> int:
    """A mail by an application over SMTP, signed in with the workspace's key; the last answer."""
    port = stage.platform.ready["submission"]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await reply_of(reader)
    writer.write(b"EHLO app\r\n")
    await reply_of(reader)
    writer.write(b"STARTTLS\r\n")
    await reply_of(reader)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    await writer.start_tls(context)
    secret = b64encode(f"\0app\0{tenant.key}".encode()).decode()
    mail = MAIL.format(to=tenant.address, subject="submitted").encode() + b".\r\n"
    code = 0
    for line in (
        b"EHLO app\r\n",
        f"AUTH PLAIN {secret}\r\n".encode(),
        b"MAIL FROM:<me@inbox.localhost>\r\n",
        f"RCPT TO:<{tenant.address}>\r\n".encode(),
        b"DATA\r\n",
        mail,
    ):
        writer.write(line)
        code = await reply_of(reader)
        assert code < 400, (line, code)
    writer.close()
    return code
