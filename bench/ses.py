"""The SES transport against a local HTTP peer with 20 ms of latency and a limit of 2,000/s.

The peer is a process of its own that reads requests and answers each after its latency. It refuses
with 429 what is above its limit within any second, and counts: the rate that was reached is a row,
and what was above the limit is another. Mails are 8 kB.
"""

import asyncio
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, cast

import msgspec
import uvloop
from measure import Row, note, report, seconds

from mailyard.core import ids
from mailyard.core.clock import SystemClock
from mailyard.net.guard import networks
from mailyard.net.http import HttpClient
from mailyard.ratelimit.adapters.memory import MemoryRateLimit
from mailyard.sending.transport import Handoff, Outcome, Outgoing, Recipient
from mailyard.sending.transports.http_provider import HttpProvider, ProviderOptions
from mailyard.sending.transports.ses import Ses
from mailyard.sending.transports.sigv4 import AwsCredentials

LIMIT_PER_S = 2_000
LATENCY_S = 0.02
WINDOW = 100  # mails that are handed over and not answered, as a worker has them
CONTENT = b"From: a@s.example\r\nTo: b@x.example\r\nSubject: x\r\n\r\n" + b"y" * 78 + b"\r\n"
CONTENT += (b"z" * 78 + b"\r\n") * 100
YES = b'{"MessageId":"0100-abcdef"}'


class Seen(msgspec.Struct):
    """What the peer counted."""

    requests: int = 0
    above_limit: int = 0


class Peer(asyncio.Protocol):
    """One connection. Requests are cut at their Content-Length, and not looked into."""

    seen: ClassVar = Seen()
    arrivals: ClassVar[deque[float]] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.waiting = b""

    def data_received(self, data: bytes) -> None:
        self.waiting += data
        while (end := self.waiting.find(b"\r\n\r\n")) >= 0:
            head = self.waiting[:end].lower()
            at = head.find(b"content-length:")
            size = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.waiting) < end + 4 + size:
                return
            self.waiting = self.waiting[end + 4 + size :]
            if head.startswith(b"get"):
                self.transport.write(answer(200, msgspec.json.encode(self.seen)))
            else:
                self.take()

    def take(self) -> None:
        now = time.monotonic()
        while self.arrivals and self.arrivals[0] <= now - 1:
            self.arrivals.popleft()
        self.seen.requests += 1
        said = answer(200, YES)
        if len(self.arrivals) >= LIMIT_PER_S:
            self.seen.above_limit += 1
            said = answer(429, b"{}")
        else:
            self.arrivals.append(now)
        asyncio.get_running_loop().call_later(LATENCY_S, self.transport.write, said)


def answer(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Peer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def peer() -> Iterator[str]:
    process = subprocess.Popen([sys.executable, __file__, "peer"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.wait()


async def send(url: str, last_s: float) -> tuple[float, Counter[Outcome], Seen]:
    """(accepted a second, outcomes, what the peer counted) of sending for `last_s`."""
    http = HttpClient(allowed=networks(["127.0.0.1"]))
    vendor = Ses(region="eu-west-1", credentials=AwsCredentials("AKID", "secret"), endpoint=url)
    options = ProviderOptions(in_flight=WINDOW, per_s=LIMIT_PER_S)
    rate = MemoryRateLimit(clock=SystemClock())
    provider = HttpProvider(name="ses", vendor=vendor, http=http, rate=rate, options=options)
    outcomes: Counter[Outcome] = Counter()
    began = time.monotonic()

    def submit() -> None:
        one = Recipient(ids.uuid7(), "b@x.example")
        provider.submit(Outgoing("a@s.example", (one,), CONTENT, False, False), noted)

    def noted(handoff: Handoff) -> None:
        outcomes[handoff.outcome] += 1
        if time.monotonic() - began < last_s:
            submit()

    for _ in range(WINDOW):
        submit()
    await asyncio.sleep(last_s)
    accepted_per_s = outcomes[Outcome.ACCEPTED] / (time.monotonic() - began)
    await provider.close(10)
    body = (await http.request("GET", url)).body
    await http.close()
    return accepted_per_s, outcomes, msgspec.json.decode(body, type=Seen)


def main() -> int:
    with peer() as url:
        accepted_per_s, outcomes, seen = uvloop.run(send(url, seconds(10.0, 60.0)))
    note(f"{accepted_per_s:,.0f} a second; {dict(outcomes)}; {seen}")
    return report(
        [
            Row("ses, of a limit of 2,000/s", accepted_per_s / LIMIT_PER_S, "", 0.95),
            Row("ses, requests within the limit", 1 - seen.above_limit / seen.requests, "", 1.0),
        ]
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["peer"]:
        uvloop.run(serve())
    else:
        raise SystemExit(main())
