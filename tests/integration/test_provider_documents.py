"""SendGrid, Mailgun and Resend against a mock server that is driven by their own OpenAPI documents.

Prism checks every request against the document and answers what the document says. The documents
are no part of the project: they lie in the folder MAILYARD_SPECS, and without them, or without
`tests/services/install.sh` having been run, these tests are skipped.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from http_script import letter, sending
from msgspec.structs import replace

from mailyard.net.http import HttpAnswer
from mailyard.sending.transport import Outcome, Outgoing
from mailyard.sending.transports.mailgun import Mailgun
from mailyard.sending.transports.resend import Resend
from mailyard.sending.transports.sendgrid import SendGrid
from mailyard.sending.transports.vendor import Item, Request, Vendor, Verdict

PRISM = Path(__file__).parents[1] / "services" / "prism" / "node_modules" / ".bin" / "prism"
STARTED_WITHIN_S = 60.0


def specs_folder() -> Path:
    given = os.environ.get("MAILYARD_SPECS")
    return Path(given) if given else Path(__file__).parents[3] / "shared" / "specs"


def document(name: str) -> Path:
    path = specs_folder() / name
    if not path.exists():
        pytest.skip(f"no {path}; set MAILYARD_SPECS")
    return path


def serve(path: Path) -> Iterator[str]:
    """A mock of the document at `path` until the generator is closed."""
    if not PRISM.exists() or shutil.which("node") is None:
        missing = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        missing("prism is not installed: run tests/services/install.sh")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [str(PRISM), "mock", "--host", "127.0.0.1", "--port", str(port), str(path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _await_start(process, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _await_start(process: "subprocess.Popen[bytes]", port: int) -> None:
    for _ in range(int(STARTED_WITHIN_S / 0.1)):
        assert process.poll() is None, "prism ended at once"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("prism did not start")


@pytest.fixture(scope="module")
def sendgrid_url() -> Iterator[str]:
    yield from serve(document("sendgrid_tsg_mail_v3.json"))


@pytest.fixture(scope="module")
def resend_url() -> Iterator[str]:
    yield from serve(document("resend.json"))


@pytest.fixture(scope="module")
def mailgun_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of the form's repeated fields prism makes no array, so `to`, which may be repeated, is
    declared as the one string that prism sees."""
    text = document("mailgun.yaml").read_text()
    head, name, rest = text.partition(
        "    POST-v3-domain_name-messages-mime-multipart-form-data-RequestBody:\n"
    )
    array = "type: array\n          items:\n            type: string\n"
    assert name and array in rest[:300]
    path = tmp_path_factory.mktemp("specs") / "mailgun.yaml"
    path.write_text(head + name + rest.replace(array, "type: string\n", 1))
    yield from serve(path)


class Asking:
    """A vendor whose requests ask the mock for a certain answer, or say something else."""

    def __init__(self, vendor: Vendor, code: int = 0, **changes: Any) -> None:
        self.vendor = vendor
        self.mails_per_request = vendor.mails_per_request
        self.recipients_per_mail = vendor.recipients_per_mail
        self.recipients_per_request = vendor.recipients_per_request
        self.request_bytes = vendor.request_bytes
        self.counts_recipients = vendor.counts_recipients
        self.repeatable = False
        self.code = code
        self.changes = changes

    def item(self, mail: Outgoing) -> Item:
        return self.vendor.item(mail)

    def request(self, items: Any, now: datetime) -> Request:
        request = self.vendor.request(items, now)
        if self.code:
            request = replace(request, headers={**request.headers, "Prefer": f"code={self.code}"})
        return replace(request, **self.changes)

    def accepted(self, items: Any, answer: HttpAnswer) -> list[list[Verdict]]:
        return self.vendor.accepted(items, answer)

    def refused(self, answer: HttpAnswer, now: datetime) -> Verdict:
        return self.vendor.refused(answer, now)


RICH = (
    b"From: Shop <shop@s.example>\r\nTo: Ada <ada@example.com>\r\nCc: bob@example.com\r\n"
    b"Reply-To: help@s.example\r\nSubject: Hello\r\nMessage-ID: <m1@s.example>\r\n"
    b"List-Unsubscribe: <https://s.example/u/1>\r\nMIME-Version: 1.0\r\n"
    b'Content-Type: multipart/mixed; boundary="m"\r\n\r\n'
    b'--m\r\nContent-Type: multipart/alternative; boundary="a"\r\n\r\n'
    b"--a\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nplain\r\n"
    b"--a\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>rich</p>\r\n--a--\r\n"
    b"--m\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename=a.pdf\r\n"
    b"Content-Transfer-Encoding: base64\r\n\r\nJVBERg==\r\n--m--\r\n"
)


async def test_sendgrids_document_accepts_what_we_say(sendgrid_url: str) -> None:
    async with sending(SendGrid(key="SG.key", endpoint=sendgrid_url)) as sender:
        sender.send("ada@example.com", "bob@example.com", content=RICH)
        for n in range(20):
            sender.send(f"{n}@example.com")
        sender.send("ada@example.com", content=b"From: a@s.example\r\n\r\n")
        assert await sender.settled() == {Outcome.ACCEPTED: 23}


async def test_sendgrids_document_would_have_refused_something_else(sendgrid_url: str) -> None:
    vendor = Asking(SendGrid(key="SG.key", endpoint=sendgrid_url), body=b'{"from": 1}')
    async with sending(vendor) as sender:
        handoff = await sender.one()
    assert handoff.outcome is Outcome.NEVER
    assert handoff.reply_code in (400, 422)


@pytest.mark.parametrize(
    ("code", "outcome", "route_fault"),
    [
        (400, Outcome.NEVER, False), (401, Outcome.LATER, True), (403, Outcome.LATER, True),
        (404, Outcome.LATER, True), (413, Outcome.NEVER, True), (500, Outcome.LATER, True),
    ],
)  # fmt: skip
async def test_sendgrids_own_refusals_are_understood(
    sendgrid_url: str, code: int, outcome: Outcome, route_fault: bool
) -> None:
    async with sending(Asking(SendGrid(key="SG.key", endpoint=sendgrid_url), code)) as sender:
        handoff = await sender.one()
    assert (handoff.outcome, handoff.route_fault) == (outcome, route_fault)
    assert handoff.reply_code == code


async def test_sendgrids_document_wants_a_key(sendgrid_url: str) -> None:
    vendor = SendGrid(key="x", endpoint=sendgrid_url)
    without = Asking(vendor, headers={"Content-Type": "application/json"})
    async with sending(without) as sender:
        handoff = await sender.one()
    assert (handoff.outcome, handoff.reply_code) == (Outcome.LATER, 401)


async def test_resends_document_accepts_what_we_say(resend_url: str) -> None:
    async with sending(Resend(key="re_key", endpoint=resend_url)) as sender:
        batch = await sender.one()
        alone = await sender.one("ada@example.com", content=RICH)
    assert (batch.outcome, alone.outcome) == (Outcome.ACCEPTED, Outcome.ACCEPTED)


async def test_resends_document_would_have_refused_something_else(resend_url: str) -> None:
    vendor = Asking(Resend(key="re_key", endpoint=resend_url), body=b'[{"to": "a@x.example"}]')
    async with sending(vendor) as sender:
        handoff = await sender.one()
    assert (handoff.outcome, handoff.reply_code) == (Outcome.NEVER, 422)


async def test_mailguns_document_accepts_what_we_say(mailgun_url: str) -> None:
    vendor = Mailgun(domain="mg.s.example", key="key", endpoint=mailgun_url)
    async with sending(vendor) as sender:
        sender.send("ada@example.com", "bob@example.com", content=RICH)
        sender.send("ada@example.com")
        outcomes = await sender.settled()
    assert outcomes == {Outcome.ACCEPTED: 3}, [a[0].reply for a in sender.answers.values()]


@pytest.mark.parametrize(
    ("code", "outcome", "route_fault"),
    [
        (400, Outcome.NEVER, False), (401, Outcome.LATER, True), (429, Outcome.LATER, True),
        (500, Outcome.LATER, True),
    ],
)  # fmt: skip
async def test_mailguns_own_refusals_are_understood(
    mailgun_url: str, code: int, outcome: Outcome, route_fault: bool
) -> None:
    vendor = Mailgun(domain="mg.s.example", key="key", endpoint=mailgun_url)
    async with sending(Asking(vendor, code)) as sender:
        handoff = await sender.one()
    assert (handoff.outcome, handoff.route_fault) == (outcome, route_fault), handoff.reply
    assert handoff.reply_code == code


async def test_mailguns_document_wants_a_key(mailgun_url: str) -> None:
    vendor = Mailgun(domain="mg.s.example", key="key", endpoint=mailgun_url)
    item = vendor.item(
        Outgoing("", (), letter("ada@example.com"), eight_bit=False, smtp_utf8=False)
    )
    content_type = vendor.request([item], datetime.now()).headers["Content-Type"]
    without = Asking(vendor, headers={"Content-Type": content_type})
    async with sending(without) as sender:
        handoff = await sender.one(content=letter("ada@example.com"))
    assert (handoff.outcome, handoff.reply_code) == (Outcome.LATER, 401)
