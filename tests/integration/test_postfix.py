"""The SMTP transport against Postfix as it is: what it delivers is what was handed over."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from smtp_wire import NotingHandler, listening, until

from mailyard.proving.own_platform import free_port
from mailyard.sending.transport import Handoff, Outcome, Outgoing, Recipient
from mailyard.sending.transports.smtp import SmtpOptions, SmtpTransport

POSTFIX = Path("/usr/sbin/postfix")
pytestmark = pytest.mark.skipif(
    (not POSTFIX.exists() or os.geteuid() != 0) and os.environ.get("CI") != "true",
    reason="Postfix runs as root only",
)

MAIN = """compatibility_level = 3.6
queue_directory = {folder}/spool
data_directory = {folder}/data
maillog_file = {folder}/mail.log
maillog_file_prefixes = {folder}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
mydestination =
alias_maps =
relay_domains = inbox.test
transport_maps = inline:{{ {{ inbox.test = smtp:[127.0.0.1]:{next_port} }} }}
default_transport = error:nothing leaves this machine
smtpd_recipient_restrictions =
    check_recipient_access inline:{{ {{ no@inbox.test = REJECT unknown }} }},
    permit_mynetworks, reject
smtp_address_preference = ipv4
{more}
"""
MASTER = """127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 1 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
error unix - - n - - error
retry unix - - n - - error
smtp unix - - n - - smtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
proxymap unix - - n - - proxymap
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""


@pytest.fixture
async def received() -> AsyncIterator[tuple[NotingHandler, int]]:
    """Where Postfix delivers to: a listener of ours that notes what comes."""
    handler = NotingHandler()
    async with listening(handler) as listener:
        yield handler, listener.port


@pytest.fixture(params=["chunking", "no chunking"])
def postfix(request: pytest.FixtureRequest, received: tuple[NotingHandler, int]) -> Iterator[int]:
    """A Postfix of our own; its port."""
    folder = Path(tempfile.mkdtemp(prefix="mailyard-postfix-"))
    folder.chmod(0o755)
    (folder / "spool").mkdir()
    (folder / "data").mkdir()
    shutil.chown(folder / "data", "postfix")
    port = free_port()
    more = "" if request.param == "chunking" else "smtpd_discard_ehlo_keywords = chunking"
    (folder / "main.cf").write_text(MAIN.format(folder=folder, next_port=received[1], more=more))
    (folder / "master.cf").write_text(MASTER.format(port=port))
    command = [str(POSTFIX), "-c", str(folder)]
    subprocess.run([*command, "start"], check=True, capture_output=True)
    try:
        yield port
    finally:
        subprocess.run([*command, "abort"], check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


def mail(number: int) -> tuple[Outgoing, bool]:
    """A mail, and whether Postfix takes it."""
    taken = number % 7 != 0
    address = f"person{number}@inbox.test" if taken else "no@inbox.test"
    content = (
        f"From: a@b.example\r\nTo: {address}\r\nSubject: {number}\r\n\r\n.\r\n..x {number}\r\n"
    )
    recipients = (Recipient(uuid4(), address),)
    return Outgoing(
        "a@b.example", recipients, content.encode(), eight_bit=False, smtp_utf8=False
    ), taken


async def test_every_mail_is_taken_or_refused_as_postfix_says_and_arrives_whole(
    postfix: int, received: tuple[NotingHandler, int]
) -> None:
    mails = [mail(number) for number in range(150)]
    transport = SmtpTransport(
        name="postfix",
        host="127.0.0.1",
        port=postfix,
        hello="me.example",
        options=SmtpOptions(connections=3),
    )
    answers: dict[object, Handoff] = {}
    for outgoing, _ in mails:
        transport.submit(outgoing, lambda handoff: answers.update({handoff.delivery_id: handoff}))
    await until(lambda: len(answers) == len(mails))
    await transport.close(5)
    for outgoing, taken in mails:
        handoff = answers[outgoing.recipients[0].delivery_id]
        assert handoff.outcome is (Outcome.ACCEPTED if taken else Outcome.NEVER), handoff
    wanted = Counter(outgoing.recipients[0].address for outgoing, taken in mails if taken)
    handler = received[0]
    await until(lambda: len(handler.stored) >= wanted.total())
    await asyncio.sleep(0.2)
    arrived = Counter(envelope.recipients[0] for envelope, _ in handler.stored)
    assert arrived == wanted
    bodies = {content.partition(b"\r\n\r\n")[2] for _, content in handler.stored}
    assert bodies == {
        outgoing.content.partition(b"\r\n\r\n")[2] for outgoing, taken in mails if taken
    }
