"""Reports of unexpected errors: over a socket, by the guarded client, without a word of mail."""

import asyncio
import io
import json
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import monitoring_servers
import pytest
import structlog
from mail_platform import mail_platform
from monitoring_servers import Posted

from mailyard.core.errors import ConfigurationError, InvalidInput, Unavailable
from mailyard.core.ids import uuid7
from mailyard.mailbox.inbox_value import NewInbox
from mailyard.net.guard import networks
from mailyard.net.http import HttpClient
from mailyard.observe import log, report
from mailyard.protocol.mime import summary
from mailyard.queue import batch, lane
from mailyard.queue.batch import Handler
from mailyard.queue.job import INBOUND_EMAIL
from mailyard.queue.worker import Worker
from mailyard.receiving import ingest
from mailyard.storage.database import Database

WORDS = ("Silbermond", "Ahornblatt", "Kieselstein", "Glockenblume", "Wacholder")
SUBJECT, BODY, FROM, HEADER, FILE = WORDS
MAIL = (
    f"From: {FROM} <{FROM}@peer.test>\r\nTo: you@inbox.test\r\nSubject: {SUBJECT}\r\n"
    f"X-Own: {HEADER}\r\nContent-Type: text/plain; name={FILE}\r\n\r\n{BODY}\r\n"
).encode()


@pytest.fixture
def posted() -> Iterator[Posted]:
    with monitoring_servers.receiver() as posted:
        yield posted


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What the worker logs. Loggers remember where they wrote first: these are new ones."""
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    for module in (batch, lane):
        monkeypatch.setattr(module, "_LOG", structlog.get_logger(module.__name__))
    return written


@pytest.fixture
async def reporting(posted: Posted, logged: io.StringIO) -> AsyncIterator[report.Reporter]:
    """As `app/observing.py` does it, with the log as a process sets it up."""
    dsn = report.read_dsn(f"http://key@127.0.0.1:{posted.port}/prefix/7")
    http = HttpClient(user_agent="test", allowed=networks(["127.0.0.0/8"]))

    async def post(body: bytes) -> None:
        answer = await http.request("POST", dsn.url, headers=dsn.headers, body=body, total_s=10.0)
        if answer.status != 200:
            raise Unavailable(str(answer.status))

    reporter = report.Reporter(post, release="mailyard@1", tags={"role": "worker"})
    before = structlog.get_config()
    log.set_up(level="info", form="json", role="worker")
    report.use(reporter)
    running = asyncio.create_task(reporter.run())
    yield reporter
    report.use(None)
    running.cancel()
    structlog.configure(**before)
    await http.close()


async def first(posted: Posted) -> tuple[bytes, dict[str, Any]]:
    """The first report: as it came, and its event."""
    async with asyncio.timeout(20):
        while not posted.bodies:
            await asyncio.sleep(0.02)
    path, headers, body = posted.bodies[0]
    assert path == "/prefix/api/7/envelope/"
    assert "sentry_key=key" in headers["X-Sentry-Auth"]
    head, item, event, rest = body.split(b"\n")
    assert json.loads(item) == {"type": "event", "length": len(event)} and rest == b""
    assert json.loads(head)["event_id"] == json.loads(event)["event_id"]
    return body, json.loads(event)


async def test_of_a_mail_that_makes_a_parser_crash_nothing_is_in_the_report(
    database: Database,
    posted: Posted,
    reporting: report.Reporter,
    monkeypatch: pytest.MonkeyPatch,
    logged: io.StringIO,
) -> None:
    def crashing(raw: bytes) -> summary.Summary:
        text = raw.decode("latin-1")
        try:
            raise UnicodeDecodeError("ascii", raw, 0, 1, text)
        except UnicodeDecodeError as error:
            error.add_note(text)
            raise type("KeyError", (KeyError,), {"mail": raw})(text) from error

    monkeypatch.setattr(ingest, "parse_summary", crashing)
    async with mail_platform(database) as platform:
        await platform.inboxes.create(uuid7(), [NewInbox("you")])
        await platform.send("you@inbox.test", content=MAIL)
        handler = Handler("ingest", INBOUND_EMAIL, platform.ingest.handle)
        worker = Worker(engine=platform.engine, handlers=[handler], name="test")
        working = asyncio.create_task(worker.run())
        body, event = await first(posted)
        worker.drain()
        await working
        rows = await database.pool.fetch("SELECT j::text AS kept FROM job AS j")

    lines = logged.getvalue()
    assert "job failed" in lines or "jobs failed" in lines
    kept = " ".join(row["kept"] for row in rows)
    assert "KeyError in mailyard." in kept
    for word in WORDS:
        assert word not in lines and word not in kept, word
    text = body.decode()
    for word in (*WORDS, "peer.test", "inbox.test", "you@", "X-Own", "text/plain"):
        assert word.lower() not in text.lower(), word
    kinds = [one["type"] for one in event["exception"]["values"]]
    assert kinds[-2:] == ["UnicodeDecodeError", "KeyError"]
    frames = event["exception"]["values"][-1]["stacktrace"]["frames"]
    assert frames[-1]["function"] == "crashing"
    assert any(one["module"] == "mailyard.receiving.ingest" and one["in_app"] for one in frames)
    assert all(set(one) == {"module", "function", "filename", "lineno", "in_app"} for one in frames)
    assert event["tags"] == {"role": "worker"} and event["logger"] == "ingest"


async def test_the_same_error_is_told_once_a_minute_and_ours_never(
    posted: Posted, reporting: report.Reporter
) -> None:
    for number in range(50):
        try:
            raise ValueError(number)
        except ValueError as error:
            report.note(error, "here")
    report.note(InvalidInput("ada@example.org is no address"))
    report.note(asyncio.CancelledError())
    body, event = await first(posted)
    await asyncio.sleep(0.2)
    assert len(posted.bodies) == 1
    assert [one["type"] for one in event["exception"]["values"]] == ["ValueError"]
    assert b"ada@" not in body


async def test_a_server_that_is_away_costs_a_bounded_memory_and_no_error(
    posted: Posted, reporting: report.Reporter
) -> None:
    posted.refuse += [503] * 3
    for number in range(500):
        try:
            exec(compile("raise ValueError", f"f{number}", "exec"), {"__name__": f"m{number}"})
        except ValueError as error:
            report.note(error)
    await first(posted)
    assert reporting._waiting.qsize() <= report.WAITING_MAX


@pytest.mark.parametrize("text", ["", "https://host/1", "https://key@host", "ftp://k@h/1", "x"])
def test_a_wrong_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="MAILYARD_SENTRY_DSN"):
        report.read_dsn(text)


def test_an_address_with_a_port_and_a_path() -> None:
    dsn = report.read_dsn("https://abc@errors.example.org:8443/glitch/12")
    assert dsn.url == "https://errors.example.org:8443/glitch/api/12/envelope/"
