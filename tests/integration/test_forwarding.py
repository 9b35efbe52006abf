"""Mail that a route sends on: sealed, its sender rewritten, its bounces sent back."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from app_work import receive
from domains_seen import keys_stand
from mail_platform import about

from mailyard.app import Application
from mailyard.core.ids import uuid7
from mailyard.protocol.address import normalise
from mailyard.protocol.arc import ChainStatus, read_chain, verify_chain
from mailyard.protocol.dkim.mail import Mail
from mailyard.queue.batch import Batch
from mailyard.queue.job import EMAIL_EVENTS, EMAIL_SEND, INBOUND_EMAIL, LeasedJob, NewJob
from mailyard.queue.settle import Settler
from mailyard.receiving.accept import Acceptor
from mailyard.receiving.domain import Look
from mailyard.receiving.domain_route import NewRoute
from mailyard.receiving.elsewhere import TOPIC
from mailyard.receiving.forward import FORWARD_JOB, Forwarded, Forwarder, Task
from mailyard.sending.content import WholeMail, decode_content
from mailyard.sending.domain import fresh_keys
from mailyard.sending.forwarded import BOUNCE_JOB
from mailyard.sending.return_path import ReturnPaths
from mailyard.sending.returns.address import ReturnAddresses
from mailyard.sending.returns.mail import ReturnedMail
from mailyard.settings import Settings

DSN = (
    "From: MAILER-DAEMON@next.example\r\nTo: {path}\r\nSubject: Undelivered\r\n"
    "MIME-Version: 1.0\r\n"
    'Content-Type: multipart/report; report-type=delivery-status; boundary="b"\r\n\r\n'
    "--b\r\nContent-Type: text/plain\r\n\r\nNo such user.\r\n"
    "--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; next.example\r\n\r\n"
    "Final-Recipient: rfc822; team@next.example\r\nAction: failed\r\nStatus: 5.1.1\r\n"
    "Diagnostic-Code: smtp; 550 5.1.1 no such user\r\n\r\n--b--\r\n"
)


class NotJudged:
    """Whoever would know what a mail's checks came to has not looked yet."""

    async def get(self, workspace_id: UUID, message_id: UUID) -> None:
        return None


@pytest.fixture
async def app(database_url: str, tmp_path: Path) -> AsyncIterator[Application]:
    application = Application(
        Settings(data=tmp_path, database_url=database_url, inbox_domain="inbox.test")
    )
    await application.open()
    yield application
    await application.close()


async def leased(app: Application, lane: str, kind: str) -> list[LeasedJob]:
    jobs = await app.engine.lease([lane], 100, 0.0, "test")
    return [job for job in jobs if job.kind == kind]


def batch_of(app: Application, jobs: list[LeasedJob]) -> Batch:
    return Batch(jobs, Settler(app.engine), asyncio.Event())


async def test_a_route_sends_mail_on_and_its_bounce_finds_the_way_back(app: Application) -> None:
    workspace, pool = uuid7(), app.database.pool
    await pool.execute("INSERT INTO workspace VALUES ($1, 'Shop')", workspace)
    async with app.database.transaction() as tx:
        domain = await app.receiving_domains.create(workspace, "shop.example", tx)
        look = Look(frozenset((domain.token,)), "", "good", "")
        domain = await app.receiving_domains.note(workspace, domain.id, look, tx)
        sending = await app.domains.create(workspace, "shop.example", await fresh_keys(), tx)
        sending = await app.domains.note(workspace, sending.id, keys_stand(sending), tx)
        wanted = NewRoute("sales", "forward", forward_to=("Team@next.example",))
        await app.inbound_routes.create(domain, wanted, tx)
    app.bus.announce(TOPIC)
    acceptor = Acceptor(
        database=app.database, engine=app.engine, hostname="mx.test", elsewhere=app.elsewhere
    )
    message_id = await receive(acceptor, "sales@shop.example", content=about("order"))
    await app.ingest.handle(batch_of(app, await leased(app, INBOUND_EMAIL, "ingest")))
    [job] = await leased(app, EMAIL_SEND, FORWARD_JOB)

    # A mail whose checks are not done waits a little for them; a job that runs twice sends once.
    waiting = Forwarder(database=app.database, outbox=app.forwarding, verdicts=NotJudged())
    await waiting.handle(batch_of(app, [job]))
    assert await pool.fetchval("SELECT count(*) FROM email") == 0
    row = await pool.fetchrow("SELECT raw, reverse_path FROM message WHERE id = $1", message_id)
    mail = Forwarded(
        row["raw"], row["reverse_path"], "sales@shop.example", ["team@next.example"],
        "spf=pass smtp.mailfrom=peer.test", ChainStatus.NONE, "forward:1",
    )  # fmt: skip
    for _ in range(2):
        assert await app.forwarding.forward(workspace, mail) == ""
    stored = decode_content(await pool.fetchval("SELECT content FROM email"))
    assert isinstance(stored, WholeMail)
    assert stored.reverse_path == "quokkamail@peer.test"
    assert stored.mail.endswith(row["raw"]), "the bytes stay as they came"
    delivery = await pool.fetchrow("SELECT id, recipient, type FROM delivery")
    assert (delivery["recipient"], delivery["type"]) == ("team@next.example", "forward")

    # The seal is good by the key that the domain publishes.
    sealed = Mail(stored.mail)
    chain = read_chain(sealed)
    records = {key.record_name: [key.record.encode()] for key in sending.keys}
    result = verify_chain(sealed, chain, records, app.clock.now().timestamp())
    assert result.status is ChainStatus.PASS and result.sealers == ("shop.example",)

    # What comes round again is not sent on.
    again = mail._replace(raw=stored.mail, key="forward:2")
    assert "before" in await app.forwarding.forward(workspace, again)
    looping = mail._replace(raw=b"Received: from x\r\n" * 31 + row["raw"], key="forward:3")
    assert "30" in await app.forwarding.forward(workspace, looping)

    # Its bounce is told in the delivery's story, and goes to who sent the mail first.
    await pool.execute("UPDATE delivery SET state = 'accepted', handed_off_at = now()")
    paths = ReturnPaths(domain="back.example", keys=app.vault.keys_for("return-path"))
    path = paths.rewritten_path(delivery["id"], "team@next.example", stored.reverse_path)
    assert path.startswith("SRS0=") and "=peer.test=quokkamail@back.example" in path
    returns = ReturnAddresses(paths=paths, domain="back.example", clock=app.clock)
    assert returns.takes(normalise(path)) is True
    assert returns.takes(normalise(path.replace("quokka", "jackal"))) is False
    assert returns.takes("srs0=abc=de=x.example=y@shop.example") is None, "another's, or an inbox"
    returned = uuid7()
    raw = DSN.format(path=path).encode()
    await pool.execute(
        "INSERT INTO message (id, workspace_id, retention_days, reverse_path, recipients, "
        "inbox_ids, helo, peer, size_bytes, raw) VALUES ($1, $2, 30, '', $3, '{}', 'h', "
        "'192.0.2.1', $4, $5)",
        returned, UUID(int=0), [normalise(path)], len(raw), raw,
    )  # fmt: skip
    payload = f'[["{returned}",30,{len(raw)}]]'.encode()
    await app.engine.enqueue([NewJob(EMAIL_EVENTS, "returned-mail", payload)])
    handler = ReturnedMail(
        database=app.database, engine=app.engine, recorder=app.recorder, paths=paths
    )
    await handler.handle(batch_of(app, await leased(app, EMAIL_EVENTS, "returned-mail")))
    assert await pool.fetchval("SELECT state::text FROM delivery") == "bounced"
    [job] = await leased(app, EMAIL_SEND, BOUNCE_JOB)
    for _ in range(2):
        await app.forwarding.handle(batch_of(app, [job]))
    back = await pool.fetchrow(
        "SELECT recipient, content FROM delivery JOIN email ON email.id = email_id "
        "WHERE delivery.type = 'forwarded-bounce'"
    )
    assert back["recipient"] == "quokkamail@peer.test"
    whole = decode_content(back["content"])
    assert isinstance(whole, WholeMail)
    assert (whole.reverse_path, whole.mail) == ("", raw)
    await acceptor.close()


async def test_a_mail_that_was_deleted_meanwhile_is_not_sent_on(app: Application) -> None:
    workspace = uuid7()
    task = Task(uuid7(), uuid7(), "a@shop.example", ["b@next.example"])
    payload = msgspec.json.encode(task)
    await app.engine.enqueue([NewJob(EMAIL_SEND, FORWARD_JOB, payload, workspace)])
    forwarder = Forwarder(database=app.database, outbox=app.forwarding, verdicts=NotJudged())
    await forwarder.handle(batch_of(app, await leased(app, EMAIL_SEND, FORWARD_JOB)))
    assert await app.database.pool.fetchval("SELECT count(*) FROM email") == 0
