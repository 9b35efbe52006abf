"""What comes back: bounces read and judged a second and core, and providers' events taken in.

Bounces are those of the corpora (MAILYARD_CORPORA, or `../shared/corpora`), read and classified one
after the other by one core; without corpora, some that are written here. Events go to `mailyard
api`, one process on the embedded PostgreSQL as it is, with fsync on: signed one by one as Mailgun
sends them, and by the hundred as SendGrid does. Every request has a signature of its own, which the
API checks and notes. What is taken is counted in the queue afterwards: none may be missing.
"""

import asyncio
import base64
import hmac
import json
import multiprocessing
import os
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from time import perf_counter
from typing import Any, cast

import asyncpg
import uvloop
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from emails import Api, mailyard_api
from measure import Row, median_of, note, report, seconds
from platform_parts import Server, product_postgres

from mailyard.core import ids
from mailyard.protocol.report import read_report
from mailyard.proving.client import ApiClient
from mailyard.sending.bounce import classify

CLASSIFIED_BAR = 2_000
EVENTS_BAR = 5_000
CONNECTIONS = 256
SECONDS = float(os.environ.get("SECONDS", seconds(8.0, 20.0)))
PER_REQUEST = 100  # events of one SendGrid request
KEY = "a signing key of mailgun"
_NOT_DATA = ("SOURCE.md", "INDEX.tsv")
_WRITTEN_HERE = (
    b"From: MAILER-DAEMON@mx.example.com (Mail Delivery System)\r\n"
    b"Subject: Undelivered Mail Returned to Sender\r\nMIME-Version: 1.0\r\n"
    b'Content-Type: multipart/report; report-type=delivery-status; boundary="=b"\r\n\r\n'
    b"--=b\r\nContent-Type: text/plain\r\n\r\n<ada@example.com>: host mx.example.com said: 550\r\n"
    b" 5.1.1 <ada@example.com>: Recipient address rejected: User unknown\r\n"
    b"--=b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example.com\r\n"
    b"\r\nFinal-Recipient: rfc822; ada@example.com\r\nAction: failed\r\nStatus: 5.1.1\r\n"
    b"Diagnostic-Code: smtp; 550 5.1.1 User unknown\r\n--=b--\r\n"
)


def bounces() -> list[bytes]:
    """Real ones where the corpora are, else the one above."""
    given = os.environ.get("MAILYARD_CORPORA")
    folder = Path(given) if given else Path(__file__).parents[2] / "shared" / "corpora"
    found = [
        raw
        for family in sorted(folder.glob("bounce-*"))
        if family.name != "bounce-smtp-replies"
        for raw in _files_of(family)
    ]
    note(
        f"  {len(found):,} bounces, {sum(map(len, found)) / max(1, len(found)) / 1024:.1f} KB each"
    )
    return found or [_WRITTEN_HERE]


def _files_of(family: Path) -> Iterator[bytes]:
    for path in sorted(family.rglob("*")):
        if not path.is_file() or path.name in _NOT_DATA:
            continue
        if not path.name.endswith(".tar.xz"):
            yield path.read_bytes()
            continue
        with tarfile.open(path) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is not None and Path(member.name).name not in _NOT_DATA:
                    yield content.read()


def classified_per_s() -> float:
    """Bounces read and judged a second of this core's time."""
    found = bounces()
    for raw in found[:200]:
        classify(read_report(raw))

    def once() -> float:
        started_s = time.process_time()
        for raw in found:
            classify(read_report(raw))
        return len(found) / (time.process_time() - started_s)

    return median_of(once)


# Events ------------------------------------------------------------------------------------------


def mailgun_request(path: str) -> Callable[[], bytes]:
    """Makes requests with one event each; the token, and so the signature, is new in each."""
    told = json.dumps(_mailgun_event(), separators=(",", ":")).encode()

    def make() -> bytes:
        stamp, token = str(int(time.time())), token_hex(25)
        signature = hmac.new(KEY.encode(), f"{stamp}{token}".encode(), sha256).hexdigest()
        body = b'{"signature":{"timestamp":"%s","token":"%s","signature":"%s"},"event-data":%s}' % (
            stamp.encode(),
            token.encode(),
            signature.encode(),
            told,
        )
        return _head(path, len(body), "") + body

    return make


def _mailgun_event() -> dict[str, Any]:
    return {
        "event": "failed", "severity": "permanent", "id": "czsjqFATSlC3QtAK-C80nw",
        "timestamp": 1_521_472_262.9, "recipient": "ada@example.com", "reason": "bounce",
        "delivery-status": {
            "code": 550, "enhanced-code": "5.1.1", "attempt-no": 1, "mx-host": "mx.example.com",
            "message": "5.1.1 <ada@example.com>: Recipient address rejected: User unknown",
        },
        "message": {"headers": {"message-id": "20130503192659.13651.20287@mail.example.org",
                                "subject": "Your order", "from": "shop@example.org"}},
        "user-variables": {"mailyard_delivery": ids.type_id(ids.DELIVERY, ids.uuid7())},
    }  # fmt: skip


def sendgrid_requests(path: str, key: bytes, count: int) -> Iterator[bytes]:
    """Signed beforehand: ECDSA is drawn anew each time, so no two signatures are alike."""
    private = serialization.load_pem_private_key(key, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    event = {
        "event": "delivered", "email": "ada@example.com", "timestamp": 1_513_299_569,
        "sg_event_id": "ZGVsaXZlcmVk", "sg_message_id": "14c5d75ce93.dfd.64b469.filter0001.0",
        "response": "250 OK", "smtp-id": "<14c5d75ce93.dfd.64b469@ismtpd-555>",
    }  # fmt: skip
    tag = {"mailyard_delivery": ids.type_id(ids.DELIVERY, ids.uuid7())}
    body = json.dumps([event | tag] * PER_REQUEST, separators=(",", ":")).encode()
    stamp = str(int(time.time()))
    for _ in range(count):
        signature = private.sign(stamp.encode() + body, ec.ECDSA(hashes.SHA256()))
        more = (
            f"x-twilio-email-event-webhook-signature: {base64.b64encode(signature).decode()}\r\n"
            f"x-twilio-email-event-webhook-timestamp: {stamp}\r\n"
        )
        yield _head(path, len(body), more) + body


def _head(path: str, length: int, more: str) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n{more}"
        f"content-length: {length}\r\n\r\n"
    ).encode()


class _Provider(asyncio.Protocol):
    """One connection of a provider, which sends again as soon as it is answered."""

    def __init__(self, make: Callable[[], bytes], until: float) -> None:
        self._make = make
        self._until = until
        self._pending = b""
        self.good = self.bad = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class
        self._transport.write(self._make())

    def data_received(self, data: bytes) -> None:
        self._pending += data
        end = self._pending.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._pending[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self._pending) < end + 4 + length:
            return
        good = head[9:12] == b"200"
        self.good += good
        self.bad += not good
        self._pending = b""
        if perf_counter() < self._until:
            self._transport.write(self._make())


def provide(port: int, path: str, key: bytes, answer: Any) -> None:
    """The provider's process: SendGrid with a key, Mailgun without."""
    if key:
        waiting = list(sendgrid_requests(path, key, int(SECONDS * 600)))

        def make() -> bytes:
            return waiting.pop() if waiting else b""  # all are sent: the rest of the time is idle

    else:
        make = mailgun_request(path)

    async def run() -> tuple[int, int, float]:
        started = perf_counter()
        loop = asyncio.get_running_loop()
        providers = []
        for _ in range(CONNECTIONS):
            _, one = await loop.create_connection(
                lambda: _Provider(make, started + SECONDS), "127.0.0.1", port
            )
            providers.append(one)
        await asyncio.sleep(started + SECONDS - perf_counter())
        taken = sum(one.good for one in providers)
        took_s = perf_counter() - started
        await asyncio.sleep(1.0)
        return taken, sum(one.good for one in providers), took_s

    try:
        answer.send(uvloop.run(run()))
    except IndexError:  # all that were signed beforehand are used up: faster than expected
        answer.send((0, 0, 1.0))


async def hook(api: Api, kind: str, secret: str) -> str:
    """The path of a new address for a provider's events."""
    client = ApiClient(f"http://127.0.0.1:{api.port}", api.key)
    body = {"kind": kind, "name": kind, "secret": secret}
    made = await client.post("/v1/provider-hooks", body)
    await client.close()
    return "/v1/hooks/" + str(made["url"]).partition("/v1/hooks/")[2]


async def stored(url: str) -> int:
    """How many requests' signatures stand, each committed with its job."""
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM provider_hook_seen"))
    finally:
        await connection.close()


def take_in(server: Server, api: Api, kind: str, secret: str, key: bytes, events: int) -> float:
    """Events taken in a second. Raises AssertionError when one that was answered is not there."""
    path = asyncio.run(hook(api, kind, secret))
    before = asyncio.run(stored(server.url))
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=provide, args=(api.port, path, key, theirs))
    process.start()
    theirs.close()
    taken, answered, took_s = ours.recv()
    process.join()
    kept = asyncio.run(stored(server.url)) - before
    assert kept >= answered > 0, f"{answered} were answered and {kept} are there"
    note(f"  {kind}: {taken:,} requests of {events} events in {took_s:.1f} s, {kept:,} stored")
    return taken * events / took_s


def events_per_s(server: Server) -> tuple[float, float]:
    """One event a request, and a hundred."""
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    with mailyard_api(server.url) as api:
        alone = take_in(server, api, "mailgun", KEY, b"", 1)
        together = take_in(
            server, api, "sendgrid", base64.b64encode(public).decode(), pem, PER_REQUEST
        )
    return alone, together


def main() -> int:
    rows = [Row("bounces read and classified", classified_per_s(), "/s a core", CLASSIFIED_BAR)]
    with tempfile.TemporaryDirectory(prefix="mailyard-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with product_postgres(folder) as server:
            alone, together = events_per_s(server)
    rows += [
        Row("provider events in, durable, one a request", alone, "/s", EVENTS_BAR),
        Row("provider events in, durable, a hundred a request", together, "/s", EVENTS_BAR),
    ]
    return report(rows)


if __name__ == "__main__":
    sys.exit(main())
