"""Large mail lies in the blob store: received, read, purged, swept; and the store goes away."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from app_work import ask, receive, work
from mail_platform import envelope
from report_mails import aggregate, carried, row
from sending_world import Ledger, LedgerTransport

from mailyard.app import Application
from mailyard.app.foundation import backups_reach_back_s
from mailyard.core.clock import ManualClock
from mailyard.core.errors import NotFound
from mailyard.core.ids import uuid7
from mailyard.mailbox.inbox_value import NewInbox
from mailyard.protocol.smtp.reply import Reply
from mailyard.queue.batch import Batch
from mailyard.queue.job import CLEANUP, EMAIL_SEND
from mailyard.queue.settle import Settler
from mailyard.receiving.accept import Acceptor
from mailyard.sending.deliver import Deliverer
from mailyard.sending.request import Attachment, EmailRequest
from mailyard.settings import Settings
from mailyard.storage.blob import BlobDamaged, BlobMissing, BlobsAway, parse_name
from mailyard.storage.blob_upkeep import BlobUpkeep
from mailyard.storage.blobs.folder import MARK
from mailyard.web.api.problem import answer_of

ABOVE = 16 * 1024
WORD = "oblongata"


def mail(subject: str, size: int = 0) -> bytes:
    body = f"{WORD} " * max(1, size // (len(WORD) + 1))
    lines = [body[start : start + 70] for start in range(0, len(body), 70)]
    head = (
        f"From: Ada <ada@peer.test>\r\nSubject: {subject}\r\nMessage-ID: <{subject}@peer.test>\r\n"
    )
    return (head + "\r\n" + "\r\n".join(lines) + "\r\n").encode()


LARGE = mail("zephyrine", 40_000)
SMALL = mail("marzipanic")


class Yard:
    """A platform whose large mail lies in a folder that can be taken away."""

    def __init__(self, app: Application, folder: Path) -> None:
        self.app = app
        self.folder = folder
        self.workspace = uuid7()
        self.acceptor = Acceptor(
            database=app.database, engine=app.engine, hostname="mx.test", raw_mail=app.raw_mail
        )

    def blobs(self) -> list[str]:
        return [
            str(one.relative_to(self.folder))
            for one in self.folder.rglob("*")
            if one.is_file() and one.name != MARK
        ]

    def go_away(self) -> None:
        """In its place stands a file: nothing can be read or written there."""
        self.folder.rename(self.folder.with_name("elsewhere"))
        self.folder.write_text("")

    async def come_back(self) -> None:
        self.folder.unlink()
        self.folder.with_name("elsewhere").rename(self.folder)
        await asyncio.sleep(0)

    async def their_time_comes(self) -> None:
        """Jobs that wait for the store are due."""
        await self.app.database.pool.execute("UPDATE job_scheduled SET run_at = now()")
        vars(self.app.engine)["_stage"].hasten()  # it knows when the first was due, and waits

    async def try_to_send(self, address: str, content: bytes) -> Reply:
        assert (await ask(self.acceptor, address)).code == 250
        answer = self.acceptor.accept_message(envelope(address), content)
        return answer if isinstance(answer, Reply) else await answer


@pytest.fixture
async def yard(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Yard]:
    folder = tmp_path / "blobs"
    app = Application(
        Settings(
            data=tmp_path,
            database_url=database_url,
            inbox_domain="inbox.test",
            blobs=f"file://{folder}",
            blobs_above=ABOVE,
        )
    )
    monkeypatch.setattr(app.blobs, "_pause_s", 0.0)  # who was away is asked again at once
    assert app.blobs is not None
    await app.blobs.prepare()
    await app.open()
    yard = Yard(app, folder)
    await app.database.pool.execute("INSERT INTO workspace VALUES ($1, 'Shop')", yard.workspace)
    yield yard
    await yard.acceptor.close()
    await app.close()


async def test_mail_above_the_size_lies_outside_and_reads_the_same(yard: Yard) -> None:
    [inbox] = await yard.app.inboxes.create(yard.workspace, [NewInbox("quokka")])
    large = await receive(yard.acceptor, inbox.address, content=LARGE)
    small = await receive(yard.acceptor, inbox.address, content=SMALL)
    await work(yard.app)
    rows = await yard.app.database.pool.fetch(
        "SELECT id, blob, length(raw) AS held, size_bytes FROM message ORDER BY id"
    )
    by_id = {row["id"]: row for row in rows}
    assert by_id[large]["held"] == 0
    assert by_id[large]["size_bytes"] > len(LARGE)
    assert by_id[small]["blob"] is None
    [key] = yard.blobs()
    assert key == by_id[large]["blob"]
    name = parse_name(key)
    assert name is not None
    assert (name.workspace_id, name.owner_id) == (yard.workspace, large)

    messages = yard.app.messages
    assert (await messages.raw(yard.workspace, large)).endswith(LARGE)
    read = await messages.read(yard.workspace, large)
    assert read.summary.subject == "zephyrine"
    assert WORD in (read.content.text or "")
    both = await messages.read_inboxes(yard.workspace, [inbox.id])
    assert {one.summary.id for one in both} == {large, small}
    found = await yard.app.search.find(yard.workspace, WORD)
    assert {hit.summary.id for hit in found.hits} == {large, small}
    assert any("<mark>" in hit.snippet for hit in found.hits if hit.summary.id == large)
    assert (await yard.app.meanings.of(yard.workspace, large)) is not None
    form = await yard.app.mail_files.export(yard.workspace, inbox.id, "eml")
    archive = b"".join([piece async for piece in form])
    assert LARGE in archive
    assert SMALL in archive


async def test_what_is_not_what_was_put_there_is_not_shown(yard: Yard) -> None:
    [inbox] = await yard.app.inboxes.create(yard.workspace, [NewInbox("quokka")])
    large = await receive(yard.acceptor, inbox.address, content=LARGE)
    await work(yard.app)
    [key] = yard.blobs()
    (yard.folder / key).write_bytes(LARGE[:-1] + b"!")
    with pytest.raises(BlobDamaged):
        await yard.app.messages.raw(yard.workspace, large)


async def test_a_store_that_is_away_defers_large_mail_alone(yard: Yard) -> None:
    [inbox] = await yard.app.inboxes.create(yard.workspace, [NewInbox("quokka")])
    before = await receive(yard.acceptor, inbox.address, content=LARGE)
    yard.go_away()
    assert (await yard.try_to_send(inbox.address, LARGE)).code == 451
    meanwhile = await receive(yard.acceptor, inbox.address, content=SMALL)
    # What was accepted together and needs the store waits; what does not is visible.
    await work(yard.app)
    page = await yard.app.messages.list(yard.workspace, inbox.id)
    assert [one.id for one in page.items] == [meanwhile]
    await yard.come_back()
    await yard.their_time_comes()
    assert (await yard.try_to_send(inbox.address, LARGE)).code == 250
    await work(yard.app)
    page = await yard.app.messages.list(yard.workspace, inbox.id)
    assert {one.id for one in page.items} > {before, meanwhile}
    assert len(page.items) == 3
    yard.go_away()
    with pytest.raises(BlobsAway) as away:
        await yard.app.messages.read(yard.workspace, before)
    assert (away.value.status, away.value.retry_after_s) == (503, 5.0)
    assert (await yard.app.messages.read(yard.workspace, meanwhile)).summary.id == meanwhile
    await yard.come_back()
    assert (await yard.app.messages.read(yard.workspace, before)).summary.id == before


async def test_a_longer_life_of_the_inbox_keeps_the_blob(yard: Yard) -> None:
    [inbox] = await yard.app.inboxes.create(yard.workspace, [NewInbox("quokka", ttl_s=3_600)])
    large = await receive(yard.acceptor, inbox.address, content=LARGE)
    await work(yard.app)
    [key] = yard.blobs()
    await yard.app.inboxes.extend(yard.workspace, inbox.id, 20 * 86_400.0)
    assert await yard.app.blob_upkeep.waiting() == 1, "the row has left its partition"
    await yard.app.blob_upkeep.forget()
    assert yard.blobs() == [key]
    assert await yard.app.blob_upkeep.waiting() == 0
    assert (await yard.app.messages.raw(yard.workspace, large)).endswith(LARGE)


async def test_deleted_mail_takes_its_blob_with_it_and_no_other(yard: Yard) -> None:
    [inbox] = await yard.app.inboxes.create(yard.workspace, [NewInbox("quokka")])
    gone = await receive(yard.acceptor, inbox.address, content=LARGE)
    stays = await receive(yard.acceptor, inbox.address, content=LARGE)
    await work(yard.app)
    assert len(yard.blobs()) == 2
    await yard.app.messages.delete(yard.workspace, [gone])
    yard.go_away()
    await yard.app.blob_upkeep.forget_soon()
    assert await yard.app.blob_upkeep.waiting() == 1
    await yard.come_back()
    await yard.app.blob_upkeep.forget_soon()
    assert await yard.app.blob_upkeep.waiting() == 0
    [left] = yard.blobs()
    assert str(stays) in left
    with pytest.raises(NotFound):
        await yard.app.messages.raw(yard.workspace, gone)


async def test_a_sweep_finds_what_no_row_names_once_it_is_old(yard: Yard) -> None:
    clock = ManualClock(yard.app.clock.now())
    upkeep = BlobUpkeep(database=yard.app.database, store=yard.app.blobs, clock=clock)
    [inbox] = await yard.app.inboxes.create(yard.workspace, [NewInbox("quokka", ttl_s=3_600)])
    dropped = await receive(yard.acceptor, inbox.address, content=LARGE)
    [kept_inbox] = await yard.app.inboxes.create(yard.workspace, [NewInbox("kept")])
    kept = await receive(yard.acceptor, kept_inbox.address, content=LARGE)
    never = await yard.app.raw_mail.put(yard.workspace, 7, uuid7(), LARGE)  # and no commit
    unfinished = yard.folder / str(uuid7()) / ".part-1"
    unfinished.parent.mkdir()
    unfinished.write_text("half")
    (yard.folder / "somebody-elses").write_text("x")
    # A partition leaves without telling of its rows.
    await yard.app.database.pool.execute("TRUNCATE message_d1")
    assert await upkeep.sweep(asyncio.Event()) == 0, "a commit may still come"
    clock.advance(timedelta(hours=7).total_seconds())
    assert await upkeep.sweep(asyncio.Event()) == 3
    left = " ".join(yard.blobs())
    assert str(kept) in left
    assert "somebody-elses" in left
    assert str(dropped) not in left
    assert never not in left
    assert len(yard.blobs()) == 2


async def test_a_sweep_leaves_alone_what_another_installation_keeps_in_the_same_bucket(
    yard: Yard,
) -> None:
    theirs = await yard.app.raw_mail.put(uuid7(), 7, uuid7(), LARGE)
    ours = await yard.app.raw_mail.put(yard.workspace, 7, uuid7(), LARGE)
    clock = ManualClock(yard.app.clock.now() + timedelta(days=1))
    upkeep = BlobUpkeep(database=yard.app.database, store=yard.app.blobs, clock=clock)
    assert await upkeep.sweep(_NEVER) == 1
    assert yard.blobs() == [theirs] and theirs != ours


async def test_a_blob_that_is_not_there_yet_is_not_now_and_comes(yard: Yard) -> None:
    [inbox] = await yard.app.inboxes.create(yard.workspace, [NewInbox("quokka")])
    large = await receive(yard.acceptor, inbox.address, content=LARGE)
    await work(yard.app)
    [key] = yard.blobs()
    (yard.folder / key).rename(yard.folder / "on-its-way")
    with pytest.raises(BlobMissing) as missing:
        await yard.app.messages.raw(yard.workspace, large)
    answer = answer_of(missing.value, "req_1")
    assert answer.status == 503 and b"retry-after" in dict(answer.headers)
    (yard.folder / "on-its-way").rename(yard.folder / key)
    assert LARGE in await yard.app.messages.raw(yard.workspace, large)


async def test_the_blob_of_a_deleted_mail_stays_as_long_as_backups_reach_back(yard: Yard) -> None:
    clock = ManualClock(yard.app.clock.now())
    upkeep = BlobUpkeep(
        database=yard.app.database, store=yard.app.blobs, clock=clock, keep_s=86_400.0
    )
    [inbox] = await yard.app.inboxes.create(yard.workspace, [NewInbox("quokka")])
    deleted = await receive(yard.acceptor, inbox.address, content=LARGE)
    purged = await receive(yard.acceptor, inbox.address, content=LARGE)
    await work(yard.app)
    await yard.app.messages.delete(yard.workspace, [deleted])
    clock.advance(0.9 * 86_400)
    assert await upkeep.forget() == 0
    assert await upkeep.sweep(_NEVER) == 0, "no row names it, and a restored one will"
    assert len(yard.blobs()) == 2
    clock.advance(0.2 * 86_400)
    assert await upkeep.forget() == 1
    await yard.app.messages.delete(yard.workspace, [purged])
    clock = ManualClock(yard.app.clock.now())
    upkeep = BlobUpkeep(
        database=yard.app.database, store=yard.app.blobs, clock=clock, keep_s=86_400.0
    )
    assert await upkeep.forget() == 0
    assert await upkeep.forget(yard.workspace) == 1, "a purge waits for nothing"
    assert yard.blobs() == []


@pytest.mark.parametrize(("backup", "days"), [("", 0.0), ("file:///srv/backup", 16.0)])
def test_how_far_backups_reach_back_is_what_the_settings_say(backup: str, days: float) -> None:
    settings = Settings(backup=backup, backup_keep_days=14.0, backup_every_h=24.0)
    assert backups_reach_back_s(settings) == days * 86_400


async def test_a_purge_takes_blobs_too_and_waits_for_a_store_that_is_away(yard: Yard) -> None:
    [inbox] = await yard.app.inboxes.create(yard.workspace, [NewInbox("quokka")])
    await receive(yard.acceptor, inbox.address, content=LARGE)
    await work(yard.app)
    yard.go_away()
    async with yard.app.database.transaction() as tx:
        await yard.app.purges.ask(yard.workspace, [inbox.id], tx)
    [job] = await yard.app.engine.lease([CLEANUP], 10, 0.0, "test")
    [purge, _] = yard.app.purges.handlers()
    with pytest.raises(BlobsAway):  # the worker gives the job back until later
        await purge.handle(Batch([job], Settler(yard.app.engine), asyncio.Event()))
    await yard.app.engine.release([job])
    await yard.come_back()
    await work(yard.app)
    assert yard.blobs() == []


# -- mail that is sent -------------------------------------------------------------------------

FILE = bytes(range(256)) * 400
REQUEST = EmailRequest(
    sender="Shop <shop@example.org>",
    to=["ada@example.net"],
    subject="Your invoice",
    text="It is attached.",
    attachments=[Attachment("invoice.pdf", FILE, "application/pdf")],
)


def deliverer_of(app: Application, ledger: Ledger) -> Deliverer:
    return Deliverer(
        database=app.database,
        transport=LedgerTransport(ledger),
        signing=app.signing,
        tracking=app.tracking,
        live=app.live,
        hostname="mail.example.org",
        raw_mail=app.raw_mail,
    )


async def deliver(yard: Yard, ledger: Ledger) -> None:
    jobs = await yard.app.engine.lease([EMAIL_SEND], 10, 0.0, "test")
    await deliverer_of(yard.app, ledger).handle(Batch(jobs, Settler(yard.app.engine), _NEVER))


_NEVER = asyncio.Event()


async def test_large_mail_to_send_lies_outside_until_it_is_sent_and_after(yard: Yard) -> None:
    ledger = Ledger()
    answer = await yard.app.emails.accept(yard.workspace, REQUEST)
    small = await yard.app.emails.accept(
        yard.workspace, msgspec.structs.replace(REQUEST, attachments=[])
    )
    [key] = yard.blobs()
    [email] = answer.emails
    held = dict(await yard.app.database.pool.fetch("SELECT id, length(content) FROM email"))
    assert held[email.id] < 200
    assert str(email.id) in key
    await deliver(yard, ledger)
    assert ledger.left == {"ada@example.net": 2}
    assert any(b"invoice.pdf" in mail.content for mail in ledger.mails)
    for one, files in ((email.id, [FILE]), (small.emails[0].id, [])):
        content = (await yard.app.emails.get(yard.workspace, one)).content
        assert content is not None
        assert [file.content for file in content.attachments] == files
    # History names it, so no sweep takes it before its month has gone.
    clock = ManualClock(yard.app.clock.now() + timedelta(days=1))
    upkeep = BlobUpkeep(database=yard.app.database, store=yard.app.blobs, clock=clock)
    assert await upkeep.sweep(_NEVER) == 0
    await yard.app.database.pool.execute("TRUNCATE email")
    assert await upkeep.sweep(_NEVER) == 1
    assert yard.blobs() == []


async def test_large_mail_to_send_is_not_taken_and_not_lost_while_the_store_is_away(
    yard: Yard,
) -> None:
    ledger = Ledger()
    await yard.app.emails.accept(yard.workspace, REQUEST)
    yard.go_away()
    with pytest.raises(BlobsAway):
        await yard.app.emails.accept(yard.workspace, REQUEST)
    await yard.app.emails.accept(yard.workspace, msgspec.structs.replace(REQUEST, attachments=[]))
    await deliver(yard, ledger)
    assert len(ledger.mails) == 1, "what needs nothing of the store is not held up"
    assert await yard.app.database.pool.fetchval("SELECT max(attempts) FROM job") == 0
    await yard.come_back()
    await yard.their_time_comes()
    await deliver(yard, ledger)
    assert ledger.left == {"ada@example.net": 2}


async def test_a_report_that_lies_outside_is_read(yard: Yard) -> None:
    [inbox] = await yard.app.inboxes.create(yard.workspace, [NewInbox("reports")])
    rows = "".join(row(f"192.0.2.{n}", 1, "pass", "fail") for n in range(100))
    day_s = int(yard.app.clock.now().timestamp()) // 86_400 * 86_400
    report = carried(aggregate(day_s - 86_400, "large", rows), "peer.xml", packed=False)
    await receive(yard.acceptor, inbox.address, content=report)
    assert len(yard.blobs()) == 1
    await work(yard.app)
    [domain] = await yard.app.reports.domains(yard.workspace, 30)
    assert (domain.domain, domain.messages, domain.passed) == ("ours.example", 100, 100)
