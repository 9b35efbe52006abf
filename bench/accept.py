"""Durable accept of 4 KB mails, beside what SMTP can do at most and a peer that only drops them.

The whole path to each `250`: recipient looked up, mail stored with fsync on, job enqueued, by the
role `smtp` as it is (one process) on the embedded PostgreSQL as it is. The load is Postfix's
smtp-source, each mail to another inbox, over SESSIONS connections at once: with 50 each of them
waits for its commit and a quarter of the machine idles, which measures patience and not capacity.
The limit is smtp-source to smtp-sink; the peer is aiosmtpd by its own command with its own Sink,
which forgets. All in the same run with the same load, one after the other, a ratio each round.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from measure import Row, free_port, note, process, report, wait_for_port
from platform_parts import product_postgres

from mailyard.core.ids import uuid7
from mailyard.mailbox.inbox import Inboxes
from mailyard.mailbox.inbox_value import NewInbox
from mailyard.storage.database import Database, DatabaseAddress

SECONDS = float(os.environ.get("SECONDS", 20))
ROUNDS = int(os.environ.get("ROUNDS", 3))
SESSIONS = int(os.environ.get("SESSIONS", 200))
MESSAGE_BYTES = 4096
MESSAGES_PER_RUN = 10_000
DOMAIN = "inbox.localhost"


def per_second(port: int, seconds: float, *, reuse: bool) -> float:
    """Mails a second that smtp-source gets rid of at `port`, over at least `seconds`."""
    command = ["smtp-source", "-N", "-s", str(SESSIONS), "-m", str(MESSAGES_PER_RUN)]
    command += ["-l", str(MESSAGE_BYTES), "-f", "bench@peer.test", "-t", f"bench@{DOMAIN}"]
    command += ["-d"] if reuse else []
    sent = 0
    started = time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds:
        subprocess.run([*command, f"127.0.0.1:{port}"], check=True)
        sent += MESSAGES_PER_RUN
    return sent / passed


async def make_inboxes(url: str) -> None:
    """One for each recipient that smtp-source numbers."""
    database = Database(DatabaseAddress(url, url, connections=2))
    await database.open()
    inboxes = Inboxes(database=database, domains=(DOMAIN,))
    workspace_id = uuid7()
    for first in range(0, MESSAGES_PER_RUN + 1000, 1000):  # it counts from 1
        await inboxes.create(
            workspace_id,
            [NewInbox(f"{n}bench", ttl_s=86_400) for n in range(first, first + 1000)],
        )
    await database.close()


@contextmanager
def mailyard_smtp(url: str) -> Iterator[int]:
    """The role `smtp`, one process; its port."""
    port = free_port()
    environment = {
        **os.environ,
        "MAILYARD_DATABASE_URL": url,
        "MAILYARD_SMTP_PORT": str(port),
        "MAILYARD_SMTP_CONNECTIONS_PER_ADDRESS": "1000",
        "MAILYARD_INBOX_DOMAIN": DOMAIN,
    }
    command = str(Path(sys.executable).with_name("mailyard"))
    running = subprocess.Popen([command, "smtp"], env=environment, stdout=subprocess.DEVNULL)
    try:
        wait_for_port(port)
        yield port
    finally:
        running.terminate()
        running.wait(30)


@contextmanager
def listening(*command: str, port: int) -> Iterator[int]:
    with process(*command):
        wait_for_port(port)
        yield port


def sink() -> AbstractContextManager[int]:
    port = free_port()
    user = ("-u", "nobody") if os.geteuid() == 0 else ()
    return listening("smtp-sink", *user, f"127.0.0.1:{port}", "1000", port=port)


def aiosmtpd() -> AbstractContextManager[int]:
    port = free_port()
    command = (sys.executable, "-m", "aiosmtpd", "-n", "-c", "aiosmtpd.handlers.Sink")
    return listening(*command, "-l", f"127.0.0.1:{port}", port=port)


def main() -> int:
    figures: dict[str, list[float]] = {"reused": [], "peer": [], "new": []}
    with tempfile.TemporaryDirectory() as folder, product_postgres(Path(folder)) as server:
        asyncio.run(make_inboxes(server.url))
        with sink() as limit, aiosmtpd() as peer, mailyard_smtp(server.url) as ours:
            per_second(ours, 1.0, reuse=True)  # warm
            for _ in range(ROUNDS):
                at_most = per_second(limit, SECONDS / 4, reuse=True)
                reached = per_second(ours, SECONDS, reuse=True)
                others = per_second(peer, SECONDS / 4, reuse=True)
                figures["reused"].append(reached / at_most)
                figures["peer"].append(reached / others)
                note(f"  reused: {reached:,.0f}/s of {at_most:,.0f}/s; aiosmtpd {others:,.0f}/s")
                at_most = per_second(limit, SECONDS / 4, reuse=False)
                reached = per_second(ours, SECONDS, reuse=False)
                figures["new"].append(reached / at_most)
                note(f"  new connection each: {reached:,.0f}/s of {at_most:,.0f}/s")
    reused, ratio_to_peer, new = (statistics.median(values) for values in figures.values())
    return report(
        [
            Row("durable accept, reused connections, of the limit", reused, "", 0.35),
            Row("durable accept, reused connections, of aiosmtpd", ratio_to_peer, "", 3.0),
            Row("durable accept, a connection each, of the limit", new, "", 0.45),
        ]
    )


if __name__ == "__main__":
    raise SystemExit(main())
