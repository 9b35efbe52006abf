"""Clients with a memory: every `250` and `202` that they were given, to be checked at the end.

They behave as good clients do: what was not answered is tried again, by SMTP as the same mail, by
the API under the same idempotency key. A token in each subject tells the mails apart.
"""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from secrets import token_hex
from time import monotonic
from typing import Any

from mailyard.core.errors import MailyardError, Unavailable
from mailyard.proving.client import ApiClient, ApiProblem
from mailyard.proving.own_platform import Address

ANSWER_S = 40.0  # longer than any stop is held
LIST_NAME = "ledger"
RETRY_STATUS = (429, 500, 502, 503, 504)


@dataclass(slots=True)
class Promise:
    """A mail that the platform has said it holds. `unanswered`: earlier tries that may have gone
    in without an answer, each of which may have left one more copy."""

    recipient: str
    unanswered: int
    delivery_id: str = ""


@dataclass
class Ledger:
    """What was promised. Written to `file` as it happens, for whoever looks into a failure."""

    file: Path
    by_smtp: dict[str, Promise] = field(default_factory=dict)
    by_api: dict[str, Promise] = field(default_factory=dict)
    campaigns: dict[str, str] = field(default_factory=dict)  # word in the subject -> campaign id
    refused: list[str] = field(default_factory=list)  # what must not have been refused

    def note(self, line: str) -> None:
        with self.file.open("a") as out:
            out.write(f"{monotonic():.3f} {line}\n")


@dataclass
class World:
    """What all clients share."""

    address: Address
    ledger: Ledger
    inboxes: list[str]
    list_id: str
    stopping: asyncio.Event = field(default_factory=asyncio.Event)


async def build_world(address: Address, folder: Path, inboxes: int) -> World:
    """Inboxes, and a list of contacts with their addresses."""
    client = ApiClient(address.url, address.api_key)
    try:
        addresses: list[str] = []
        for start in range(0, inboxes, 500):
            names = [f"box{n}" for n in range(start, min(start + 500, inboxes))]
            made = await client.post(
                "/v1/inboxes/batch", {"inboxes": [{"address": name} for name in names]}
            )
            addresses += [inbox["address"] for inbox in made["items"]]
        list_id = (await client.post("/v1/lists", {"name": LIST_NAME}))["id"]

        async def csv() -> Any:
            yield b"email,name\n"
            yield "".join(f"{one},Box {n}\n" for n, one in enumerate(addresses)).encode()

        begun = await client.upload("/v1/imports", csv(), "text/csv", list_id=list_id)
        async with asyncio.timeout(180):
            while begun["state"] != "finished":
                await asyncio.sleep(0.1)
                begun = await client.get(f"/v1/imports/{begun['id']}")
    finally:
        await client.close()
    assert begun["rows_imported"] == inboxes
    return World(address, Ledger(folder / "ledger.log"), addresses, list_id)


class SmtpClient:
    """Sends one mail after another over one connection, as long as the world lasts."""

    def __init__(self, world: World, name: str, pause_s: float) -> None:
        self._world = world
        self._name = name
        self._pause_s = pause_s
        self._random = Random(name)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def run(self) -> None:
        number = 0
        while not self._world.stopping.is_set():
            number += 1
            await self.send(f"{self._name}-{number}")
            await asyncio.sleep(self._pause_s)
        self._hang_up()

    async def send(self, token: str) -> None:
        """Until the platform has said 250, or refused it for good, which it must not."""
        recipient = self._random.choice(self._world.inboxes)
        unanswered = 0
        while True:
            dotted = False
            try:
                async with asyncio.timeout(ANSWER_S):
                    await self._connect()
                    code = await self._ask(b"MAIL FROM:<ledger@example.org>")
                    if code == 250:
                        code = await self._ask(f"RCPT TO:<{recipient}>".encode())
                    if code == 250:
                        code = await self._ask(b"DATA")
                    if code == 354:
                        dotted = True
                        code = await self._ask(_mail(token, recipient) + b"\r\n.")
            except (OSError, EOFError, TimeoutError, ValueError, asyncio.LimitOverrunError):
                unanswered += dotted
                self._hang_up()
                await asyncio.sleep(0.2)
                continue
            if dotted and code == 250:
                self._world.ledger.by_smtp[token] = Promise(recipient, unanswered)
                self._world.ledger.note(f"250 {token} {recipient} {unanswered}")
                return
            self._hang_up()
            if code >= 500:
                self._world.ledger.refused.append(f"{token}: {code}")
                return
            await asyncio.sleep(0.3)

    async def _connect(self) -> None:
        if self._writer is not None:
            return
        self._reader, self._writer = await asyncio.open_connection(
            self._world.address.smtp_host, self._world.address.smtp_port
        )
        if await self._reply() != 220 or await self._ask(b"EHLO ledger.example.org") != 250:
            raise ConnectionError("no greeting")

    async def _ask(self, line: bytes) -> int:
        assert self._writer is not None
        self._writer.write(line + b"\r\n")
        await self._writer.drain()
        return await self._reply()

    async def _reply(self) -> int:
        assert self._reader is not None
        while True:
            line = await self._reader.readuntil(b"\r\n")
            if line[3:4] != b"-":
                return int(line[:3])

    def _hang_up(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


class ApiSender:
    """Sends one email after another by `POST /v1/emails`, each under an idempotency key."""

    def __init__(self, world: World, name: str, pause_s: float) -> None:
        self._world = world
        self._name = name
        self._pause_s = pause_s
        self._random = Random(name)

    async def run(self) -> None:
        client = ApiClient(self._world.address.url, self._world.address.api_key, timeout_s=ANSWER_S)
        number = 0
        while not self._world.stopping.is_set():
            number += 1
            await self.send(client, f"{self._name}-{number}")
            await asyncio.sleep(self._pause_s)
        await client.close()

    async def send(self, client: ApiClient, token: str) -> None:
        recipient = self._random.choice(self._world.inboxes)
        body = {
            "from": "ledger@example.org",
            "to": [recipient],
            "subject": f"ledger {token}",
            "text": "An email.",
        }
        accepted = await persist(
            self._world, client, "/v1/emails", body, key=f"{self._name}-{token}-{token_hex(4)}"
        )
        if accepted is not None:
            delivery_id = accepted["recipients"][0]["delivery_id"]
            self._world.ledger.by_api[token] = Promise(recipient, 0, delivery_id)
            self._world.ledger.note(f"202 {token} {recipient} {delivery_id}")


class CampaignRunner:
    """Runs one campaign after another to all inboxes; only the word in the subject differs."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.finished = 0

    async def run(self) -> None:
        client = ApiClient(self._world.address.url, self._world.address.api_key, timeout_s=ANSWER_S)
        number = 0
        while not self._world.stopping.is_set():
            number += 1
            campaign_id = await self._begin(client, f"campaign-{number}")
            if campaign_id is None or not await self._finished(client, campaign_id):
                break
            self.finished += 1
        await client.close()

    async def _begin(self, client: ApiClient, word: str) -> str | None:
        """Make and start it. An unanswered try may leave a draft behind, which sends nothing."""
        template = campaign = None
        while template is None or campaign is None:
            if self._world.stopping.is_set():
                return None
            name = f"{word} {token_hex(4)}"
            body = {"name": name, "subject": f"ledger {word}", "text": "Hello {{ name }}"}
            template = await persist(self._world, client, "/v1/templates", body)
            if template is None:
                continue
            body = {
                "name": name,
                "list": self._world.list_id,
                "template": template["id"],
                "from": "ledger@example.org",
            }
            campaign = await persist(self._world, client, "/v1/campaigns", body)
        campaign_id = str(campaign["id"])
        self._world.ledger.campaigns[word] = campaign_id
        self._world.ledger.note(f"campaign {word} {campaign_id}")
        while not self._world.stopping.is_set():
            path = f"/v1/campaigns/{campaign_id}/start"
            if await persist(self._world, client, path, None) is not None:
                break
        return campaign_id

    async def _finished(self, client: ApiClient, campaign_id: str) -> bool:
        while not self._world.stopping.is_set():
            try:
                now = await client.get(f"/v1/campaigns/{campaign_id}/progress")
            except (ApiProblem, Unavailable):
                now = {"state": "away"}
            if now["state"] == "finished":
                return True
            await asyncio.sleep(0.5)
        return False


async def persist(
    world: World, client: ApiClient, path: str, body: Any, *, key: str = ""
) -> dict[str, Any] | None:
    """POST until it is answered. None when the world ends first; without a key also when nobody
    answered, for then trying again is not safe and the caller's to decide.
    """
    while True:
        try:
            answer: dict[str, Any] = await client.post(path, body, idempotency_key=key)
            return answer
        except ApiProblem as problem:
            if problem.status == 409 and path.endswith("/start"):
                return {}  # an earlier try has started it, and its answer got lost
            if problem.status not in RETRY_STATUS and problem.code != "idempotency_key_in_progress":
                world.ledger.refused.append(f"{path} {key}: {problem.status} {problem}")
                return None
        except MailyardError:
            if not key:
                await asyncio.sleep(0.3)
                return None
        if world.stopping.is_set():
            return None
        await asyncio.sleep(0.3)


def _mail(token: str, recipient: str) -> bytes:
    return (
        f"From: ledger@example.org\r\nTo: {recipient}\r\nSubject: ledger {token}\r\n"
        f"Message-ID: <{token}.{token_hex(4)}@example.org>\r\n\r\nA mail."
    ).encode()
