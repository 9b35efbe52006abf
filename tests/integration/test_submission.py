"""Mail submitted by real clients (smtplib, swaks, Postfix), up to what leaves."""

import asyncio
import json
import os
import shutil
import smtplib
import ssl
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path

import pytest
from sending_world import LedgerTransport, Process, World
from submission_world import SubmissionWorld, submitting

from mailyard.core import ids
from mailyard.protocol.mime import parse
from mailyard.queue.batch import Batch
from mailyard.queue.job import EMAIL_SEND
from mailyard.queue.settle import Settler
from mailyard.sending.suppress import Suppressions
from mailyard.storage.database import Database

POSTFIX = Path("/usr/sbin/postfix")
BODY = b"Caf\xc3\xa9 \xff\r\n..dots\r\n.\r\n  trailing \r\n"
RAW = (
    b"From: Shop <shop@example.org>\r\nTo: ada@example.com\r\nSubject: As it is\r\n"
    b"X-Folded: one\r\n\ttwo\r\nMessage-ID: <one@example.org>\r\n"
    b"Date: Thu, 1 Jan 2026 10:00:00 +0000\r\n\r\n" + BODY
)


@pytest.fixture
async def submission(database: Database, tmp_path: Path) -> AsyncIterator[SubmissionWorld]:
    world = World(database)
    await world.open()
    async with submitting(world, tmp_path) as made:
        yield made
    await world.bus.close()


def unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@contextmanager
def signed_in(submission: SubmissionWorld, password: str = "") -> Iterator[smtplib.SMTP]:
    with smtplib.SMTP("127.0.0.1", submission.port, timeout=20) as client:
        client.starttls(context=unverified())
        client.login("whoever", password or submission.key)
        yield client


async def left(submission: SubmissionWorld, mails: int) -> None:
    """Deliver what is due until so many mails have left."""
    world = submission.world
    process = Process(world, LedgerTransport(world.ledger))
    async with asyncio.timeout(20):
        while len(submission.mails()) < mails:
            jobs = await world.engine.lease([EMAIL_SEND], 50, 0.05, "test")
            if jobs:
                batch = Batch(jobs, Settler(world.engine), asyncio.Event())
                await process.deliverer.handle(batch)


def message(**headers: str) -> EmailMessage:
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = "shop@example.org", "ada@example.com", "Hello"
    for name, value in headers.items():
        made[name.replace("_", "-")] = value
    made.set_content("Hi there")
    return made


async def say(submission: SubmissionWorld, *mails: bytes, to: str = "ada@example.com") -> list[str]:
    """What DATA is answered with for each mail, in one session."""

    def run() -> list[str]:
        said = []
        with signed_in(submission) as client:
            for mail in mails:
                client.ehlo_or_helo_if_needed()
                client.mail("bounce@example.org")
                client.rcpt(to)
                code, text = client.data(mail)
                said.append(f"{code} {text.decode()}")
        return said

    return await asyncio.to_thread(run)


async def test_a_mail_goes_out_byte_for_byte_as_it_was_written(submission: SubmissionWorld) -> None:
    def run() -> None:
        with signed_in(submission) as client:
            client.sendmail(
                "bounce@example.org",
                ["ada@example.com", "ADA@example.com", "hidden@example.net"],
                RAW.replace(b"X-Folded", b"Bcc: hidden@example.net\r\nX-Folded"),
                mail_options=["BODY=8BITMIME"],
            )

    await asyncio.to_thread(run)
    await left(submission, 1)
    (mail,) = submission.mails()
    assert mail.content == RAW
    assert mail.reverse_path == "bounce@example.org" and mail.eight_bit
    assert sorted(one.address for one in mail.recipients) == [
        "ada@example.com",
        "hidden@example.net",
    ]
    (row,) = await submission.rows("SELECT id, type, subject, sender, actor FROM email")
    assert (row["subject"], row["sender"]) == ("As it is", "Shop <shop@example.org>")
    assert row["actor"] == ids.type_id(ids.API_KEY, submission.key_id)
    email = await submission.world.emails.get(submission.world.workspace_id, row["id"])
    assert email.content is not None
    assert email.content.to == ["ada@example.com"] and "..dots" in email.content.text
    assert email.content.headers["X-Folded"] == "one two"


async def test_swaks_over_tls_from_the_start_gets_date_and_message_id(
    submission: SubmissionWorld,
) -> None:
    command = ["swaks", "--server", "127.0.0.1", "--port", str(submission.tls_port)]
    command += ["--tls-on-connect", "--auth", "PLAIN", "--auth-password", submission.key]
    command += ["--auth-user", ids.type_id(ids.API_KEY, submission.key_id)]
    command += ["--from", "shop@example.org", "--to", "ada@example.com"]
    command += ["--data", "From: shop@example.org\\nSubject: Bare\\n\\nHi"]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "queued as eml_" in done.stdout
    await left(submission, 1)
    read = parse(submission.mails()[0].content)
    assert read.message_id.startswith("eml_") and read.date is not None


async def test_login_needs_tls_a_known_key_its_scope_and_its_own_name(
    submission: SubmissionWorld,
) -> None:
    reader = await submission.key_with("emails:read")
    other = ids.type_id(ids.API_KEY, ids.uuid7())

    def refused(name: str, password: str) -> str:
        with smtplib.SMTP("127.0.0.1", submission.port, timeout=20) as client:
            client.starttls(context=unverified())
            with pytest.raises(smtplib.SMTPAuthenticationError) as caught:
                client.login(name, password, initial_response_ok=False)
            return f"{caught.value.smtp_code} {caught.value.smtp_error.decode()}"  # type: ignore[union-attr]

    def plain() -> tuple[int, bytes]:
        with smtplib.SMTP("127.0.0.1", submission.port, timeout=20) as client:
            client.ehlo()
            assert "auth" not in client.esmtp_features
            return client.mail("shop@example.org")

    assert (await asyncio.to_thread(plain))[0] == 530
    assert "535 5.7.8" in await asyncio.to_thread(refused, "x", "my_wrong")
    assert "lacks the scope emails:send" in await asyncio.to_thread(refused, "x", reader)
    assert "535 5.7.8" in await asyncio.to_thread(refused, other, submission.key)
    assert submission.late and all(seconds >= 1 for seconds in submission.late)


async def test_an_address_that_keeps_failing_must_wait_whatever_it_shows(
    submission: SubmissionWorld,
) -> None:
    def attempt(client: smtplib.SMTP) -> int:
        try:
            return client.auth("PLAIN", client.auth_plain)[0]
        except smtplib.SMTPResponseException as error:
            return error.smtp_code

    def tries(password: str) -> list[int]:
        codes = []
        for _ in range(4):
            client = smtplib.SMTP("127.0.0.1", submission.port, timeout=20)
            client.starttls(context=unverified())
            client.ehlo()
            client.user, client.password = "x", password
            codes += [attempt(client) for _ in range(3)]
            assert client.noop()[0] == 421
            client.close()
        return codes

    codes = await asyncio.to_thread(tries, "my_wrong")
    assert codes[0] == 535 and codes[-1] == 454
    assert (await asyncio.to_thread(tries, submission.key))[0] == 454
    assert len(submission.late) <= 12


async def test_a_key_has_so_many_sessions_at_once_and_a_new_one_when_one_ends(
    submission: SubmissionWorld,
) -> None:
    def run() -> None:
        with ExitStack() as stack:
            clients = [stack.enter_context(signed_in(submission)) for _ in range(6)]
            with pytest.raises(smtplib.SMTPAuthenticationError, match="too many sessions"):
                stack.enter_context(signed_in(submission))
            clients[0].quit()
            deadline = time.monotonic() + 20
            while True:  # its end is seen a moment after the client's
                try:
                    stack.enter_context(signed_in(submission))
                    break
                except smtplib.SMTPAuthenticationError:
                    assert time.monotonic() < deadline
            for client in clients[1:]:
                assert client.noop()[0] == 250
            clients[0].connect("127.0.0.1", submission.port)

    await asyncio.to_thread(run)


async def test_a_mail_sent_twice_with_one_message_id_leaves_once(
    submission: SubmissionWorld,
) -> None:
    first, again, changed = await say(submission, RAW, RAW, RAW + b"more\r\n")
    (elsewhere,) = await say(submission, RAW, to="bob@example.com")
    assert first.startswith("250 2.0.0 Ok: queued as eml_")
    assert again == f"{first} before"
    assert changed.startswith("550 5.6.0 ") and "used with another request" in changed
    assert elsewhere.startswith("250 ") and elsewhere != first
    assert len(await submission.rows("SELECT id FROM email")) == 2
    assert len(await submission.rows("SELECT id FROM delivery")) == 2


async def test_the_client_hears_250_after_the_commit_and_not_before(
    submission: SubmissionWorld,
) -> None:
    async with submission.world.database.transaction() as tx:
        await tx.execute("LOCK TABLE delivery IN EXCLUSIVE MODE")
        said = asyncio.create_task(say(submission, RAW))
        waiting = "SELECT FROM pg_locks WHERE NOT granted AND relation = 'delivery'::regclass"
        async with asyncio.timeout(20):
            while not await submission.rows(waiting):
                await asyncio.sleep(0.01)
        assert not said.done()
    assert (await said)[0].startswith("250 ")
    assert await submission.world.states("true") == {"ada@example.com": "queued"}


async def test_orders_in_headers_do_what_fields_of_the_api_do(submission: SubmissionWorld) -> None:
    world = submission.world
    template_id = ids.type_id(ids.TEMPLATE, await world.template(text="{{ name }}, {{ plan }}"))
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=2)
    data = json.dumps({"name": "Ada", "city": "Turin", "plan": "gold"})
    asked = message(
        X_Mailyard_Template=template_id, X_Mailyard_Data=data, X_Mailyard_Tag="welcome", X_Shop="7"
    )
    del asked["Subject"]
    timed = message(
        X_Mailyard_Send_At=later.isoformat(),
        X_Mailyard_Expires_At=(later + timedelta(hours=1)).isoformat(),
        X_Mailyard_Priority="high",
        X_Mailyard_Quiet_Hours="wait",
        X_Mailyard_Idempotency_Key="k1",
    )
    wrong = message(X_Mailyard_Template="tpl_00000000000000000000000000", X_Mailyard_Data="{}")
    dataless = message(X_Mailyard_Data="{}")
    loud = message(X_Mailyard_Quiet_Hours="maybe")
    answers = await say(
        submission,
        *(
            one.as_bytes(policy=one.policy.clone(linesep="\r\n"))
            for one in (asked, timed, wrong, dataless, loud)
        ),
    )
    assert [answer[:3] for answer in answers] == ["250", "250", "550", "550", "550"]
    assert "no such template" in answers[2] and "X-Mailyard-Data" in answers[3]
    emails = await submission.rows(
        "SELECT type, send_at, expires_at, subject FROM email ORDER BY id"
    )
    assert [row["type"] for row in emails] == ["welcome", "transactional"]
    assert emails[1]["send_at"] == later and emails[1]["expires_at"] == later + timedelta(hours=1)
    await left(submission, 1)
    read = parse(submission.mails()[0].content)
    assert read.subject == "News for Ada" and read.text is not None and "gold" in read.text
    assert (
        read.header("x-shop") == "7" and b"mailyard-" not in submission.mails()[0].content.lower()
    )


async def test_clicks_of_a_submitted_mail_are_followed_where_it_asks_for_that(
    submission: SubmissionWorld,
) -> None:
    html = b'<p>1</p><a href="https://shop.example/x">x</a>'
    tail = b"Content-Type: text/html; charset=utf-8\r\n\r\n" + html + b"\r\n"
    head = b"From: shop@example.org\r\nTo: a@example.com\r\nSubject: s\r\n"
    asked = head + b"X-Mailyard-Track: clicks, opens\r\n" + tail
    wrong = head + b"X-Mailyard-Track: everything\r\n" + tail
    answers = await say(submission, asked, wrong, head + tail)
    assert [answer[:3] for answer in answers] == ["250", "550", "250"]
    await left(submission, 2)
    contents = sorted((mail.content for mail in submission.mails()), key=len)
    assert html in contents[0]
    assert b"https://shop.example/x" not in contents[1] and b"<img" in contents[1]
    assert contents[1].startswith(contents[0][: contents[0].index(b"Date:")])


async def test_a_suppressed_recipient_gets_a_row_and_no_mail_and_a_revoked_key_ends(
    submission: SubmissionWorld,
) -> None:
    world = submission.world
    await Suppressions(database=world.database).add(
        world.workspace_id, "ada@example.com", stream="all", reason="hard_bounce"
    )
    assert (await say(submission, RAW))[0].startswith("250")
    assert await world.states("true") == {"ada@example.com": "suppressed"}

    def run(revoke: Callable[[], object]) -> int:
        with signed_in(submission) as client:
            revoke()
            client.mail("a@example.org")
            client.rcpt("bob@example.com")
            return client.data(RAW)[0]

    loop = asyncio.get_running_loop()

    def revoke() -> None:
        done = submission.keys.revoke(world.workspace_id, submission.key_id, actor=submission.actor)
        asyncio.run_coroutine_threadsafe(done, loop).result(20)

    assert await asyncio.to_thread(run, revoke) == 535


POSTFIX_MAIN = """compatibility_level = 3.6
queue_directory = {folder}/spool
data_directory = {folder}/data
maillog_file = {folder}/mail.log
maillog_file_prefixes = {folder}
myhostname = app.example.org
inet_interfaces = loopback-only
inet_protocols = ipv4
mydestination =
alias_maps =
relayhost = [127.0.0.1]:{port}
smtp_sasl_auth_enable = yes
smtp_sasl_password_maps = inline:{{ {{ [127.0.0.1]:{port} = any:{key} }} }}
smtp_sasl_security_options = noanonymous
smtp_sasl_tls_security_options = noanonymous
smtp_tls_security_level = encrypt
smtp_address_preference = ipv4
"""
POSTFIX_MASTER = """pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 1 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
error unix - - n - - error
retry unix - - n - - error
smtp unix - - n - - smtp
scache unix - - n - 1 scache
proxymap unix - - n - - proxymap
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""


@pytest.mark.skipif(
    (not POSTFIX.exists() or os.geteuid() != 0) and os.environ.get("CI") != "true",
    reason="Postfix runs as root only",
)
async def test_postfix_moves_here_by_its_relayhost_and_a_password(
    submission: SubmissionWorld,
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="mailyard-smarthost-"))
    folder.chmod(0o755)
    (folder / "spool").mkdir()
    (folder / "data").mkdir()
    shutil.chown(folder / "data", "postfix")
    (folder / "main.cf").write_text(
        POSTFIX_MAIN.format(folder=folder, port=submission.port, key=submission.key)
    )
    (folder / "master.cf").write_text(POSTFIX_MASTER)
    command = [str(POSTFIX), "-c", str(folder)]
    subprocess.run([*command, "start"], check=True, capture_output=True)
    try:
        for number in range(5):
            mail = f"From: shop@example.org\nTo: p{number}@example.com\nSubject: {number}\n\n.x\n"
            subprocess.run(
                ["/usr/sbin/sendmail", "-C", str(folder), "-f", "shop@example.org", "-t"],
                input=mail.encode(),
                check=True,
                capture_output=True,
            )
        await left(submission, 5)
    except BaseException:
        print((folder / "mail.log").read_text())
        raise
    finally:
        subprocess.run([*command, "abort"], check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)
    assert submission.world.ledger.left == {f"p{number}@example.com": 1 for number in range(5)}
    assert all(mail.content.endswith(b"\r\n\r\n.x\r\n") for mail in submission.mails())
