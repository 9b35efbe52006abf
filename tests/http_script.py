"""An HTTP server of raw sockets that does as it is told, and a provider transport that notes.

Nothing here knows more of HTTP than what a test needs: a request is read by its Content-Length, and
an answer is the bytes that a step writes, so that it can be as wrong as a real one.
"""

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import UUID

import msgspec
from smtp_wire import until

from mailyard.core import ids
from mailyard.core.backoff import Backoff
from mailyard.core.clock import SystemClock
from mailyard.net.guard import networks
from mailyard.net.http import HttpClient, HttpOptions
from mailyard.ratelimit.adapters.memory import MemoryRateLimit
from mailyard.sending.transport import Handoff, Outcome, Outgoing, Recipient
from mailyard.sending.transports.http_provider import HttpProvider, ProviderOptions
from mailyard.sending.transports.vendor import ID_PREFIX, Vendor

LOOPBACK = networks(["127.0.0.0/8", "::1/128"])
QUICK = Backoff(first_s=0.01, cap_s=0.02)


class Seen(msgspec.Struct):
    """A request that came. Header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int

    def json(self) -> object:
        return msgspec.json.decode(self.body)


Step = Callable[[Seen, asyncio.StreamWriter], Awaitable[None]]


class Script:
    """A server whose n-th request is answered by its n-th step, and later ones by the last."""

    def __init__(self, steps: tuple[Step, ...]) -> None:
        self.steps = steps
        self.seen: list[Seen] = []
        self.connections = 0
        self.url = ""
        self.tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.connections += 1
        number = self.connections
        try:
            while (request := await read_request(reader, number)) is not None:
                self.seen.append(request)
                step = self.steps[min(len(self.seen), len(self.steps)) - 1]
                await step(request, writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self.tasks.discard(task)


async def read_request(reader: asyncio.StreamReader, connection: int) -> Seen | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Seen(method, path, headers, body, connection)


@asynccontextmanager
async def scripted(*steps: Step, tls: ssl.SSLContext | None = None) -> AsyncIterator[Script]:
    script = Script(steps)
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0, limit=1 << 26, ssl=tls)
    scheme = "http" if tls is None else "https"
    script.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield script
    finally:
        server.close()
        for task in list(script.tasks):
            task.cancel()
        await asyncio.gather(*script.tasks, return_exceptions=True)


# Steps.


def answer(status: int, body: object = b"", headers: dict[str, str] | None = None) -> Step:
    """A well-formed answer; what is not bytes becomes JSON."""
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    kind = {} if isinstance(body, bytes) else {"Content-Type": "application/json"}
    fields = {**kind, "Content-Length": str(len(content)), **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return raw(f"HTTP/1.1 {status} Status\r\n{lines}\r\n".encode("latin-1") + content)


def raw(data: bytes) -> Step:
    async def step(request: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return step


def hang_up(first: bytes = b"") -> Step:
    """Write `first`, then close the connection."""

    async def step(request: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        await writer.drain()
        writer.close()

    return step


def silent(first: bytes = b"") -> Step:
    """Write `first`, then nothing for as long as the test runs."""

    async def step(request: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        await writer.drain()
        await asyncio.sleep(3600)

    return step


def by_request(make: Callable[[Seen], Step]) -> Step:
    """What the request itself decides."""

    async def step(request: Seen, writer: asyncio.StreamWriter) -> None:
        await make(request)(request, writer)

    return step


# A transport and the answers it gave.


class Sender:
    def __init__(self, provider: HttpProvider) -> None:
        self.provider = provider
        self.answers: dict[UUID, list[Handoff]] = {}
        self.open: set[UUID] = set()

    def send(
        self, *addresses: str, content: bytes | None = None, ids_: list[UUID] | None = None
    ) -> list[UUID]:
        addresses = addresses or ("ada@example.com",)
        made = ids_ or [ids.uuid7() for _ in addresses]
        recipients = tuple(
            Recipient(one, address) for one, address in zip(made, addresses, strict=True)
        )
        self.open.update(made)
        mail = Outgoing("b@s.example", recipients, content or letter(*addresses), False, False)
        self.provider.submit(mail, self.note)
        assert self.open.issuperset(made), "the answer never comes from inside submit"
        return made

    def note(self, handoff: Handoff) -> None:
        self.answers.setdefault(handoff.delivery_id, []).append(handoff)
        self.open.discard(handoff.delivery_id)

    async def settled(self) -> Counter[Outcome]:
        """Outcomes of all that was sent; every recipient was answered exactly once."""
        await until(lambda: not self.open)
        assert all(len(answers) == 1 for answers in self.answers.values())
        return Counter(answers[0].outcome for answers in self.answers.values())

    def of(self, delivery_id: UUID) -> Handoff:
        return self.answers[delivery_id][0]

    async def one(self, *addresses: str, content: bytes | None = None) -> Handoff:
        """The answer for one mail to one recipient."""
        (delivery_id,) = self.send(*addresses, content=content)
        await until(lambda: delivery_id not in self.open)
        return self.of(delivery_id)


def letter(*to: str, subject: str = "Hello", text: str = "Hi.") -> bytes:
    shown = ", ".join(to)
    return (
        f"From: Shop <shop@s.example>\r\nTo: {shown}\r\nSubject: {subject}\r\n"
        "Message-ID: <1@s.example>\r\nMIME-Version: 1.0\r\n"
        f"Content-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n"
    ).encode()


@asynccontextmanager
async def sending(
    vendor: Vendor, http: HttpOptions | None = None, **options: object
) -> AsyncIterator[Sender]:
    """A transport to a provider on loopback."""
    client = HttpClient(allowed=LOOPBACK, options=http)
    provider = HttpProvider(
        name="provider",
        vendor=vendor,
        http=client,
        rate=MemoryRateLimit(clock=SystemClock()),
        options=ProviderOptions(**{"backoff": QUICK} | options),  # type: ignore[arg-type]
    )
    try:
        yield Sender(provider)
    finally:
        await provider.close(1)
        await client.close()


def message_id_of(reply: str) -> str | None:
    """The provider's id in the reply of an accepted mail."""
    if not reply.startswith(ID_PREFIX):
        return None
    return reply[len(ID_PREFIX) :].split(" ", 1)[0] or None
