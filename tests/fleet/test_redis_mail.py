"""Redis has nothing of a mail, so a purge has nothing to do there."""

import asyncio
from contextlib import suppress
from pathlib import Path

import redis_servers
from app_work import receive, work

from mailyard.app import Application
from mailyard.core.ids import uuid7
from mailyard.mailbox.inbox_value import NewInbox
from mailyard.receiving.accept import Acceptor
from mailyard.settings import Settings

WORDS = (b"zephyrine", b"oblongata", b"marzipanic", b"platypus")
MAIL = (
    b"From: Marzipanic <marzipanic@peer.test>\r\nTo: you@inbox.test\r\nSubject: zephyrine\r\n"
    b"Message-ID: <marzipanic@peer.test>\r\n\r\nYour code is 471147, says oblongata.\r\n"
)


async def test_redis_is_told_nothing_of_what_a_mail_says(database_url: str, tmp_path: Path) -> None:
    """Every command that it gets while a mail comes in and is listed, read, found and purged."""
    with redis_servers.single(tmp_path / "redis") as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"MONITOR\r\n")
        assert (await reader.readline()).startswith(b"+OK")
        app = Application(
            Settings(
                data=tmp_path,
                database_url=database_url,
                inbox_domain="inbox.test",
                redis_url=f"redis://127.0.0.1:{server.port}/0",
            )
        )
        await app.open()
        workspace = uuid7()
        await app.database.pool.execute("INSERT INTO workspace VALUES ($1, 'Shop')", workspace)
        [inbox] = await app.inboxes.create(workspace, [NewInbox("platypus", name="zephyrine")])
        acceptor = Acceptor(database=app.database, engine=app.engine, hostname="mx.test")
        message = await receive(acceptor, inbox.address, content=MAIL)
        await work(app)
        for _ in range(2):  # from the caches too
            assert (await app.messages.list(workspace, inbox.id)).items
            await app.messages.read(workspace, message)
            await app.inboxes.get(workspace, inbox.id)
            assert (await app.search.find(workspace, "oblongata")).hits
        async with app.database.transaction() as tx:
            await app.purges.ask(workspace, [inbox.id], tx)
        await work(app)
        await acceptor.close()
        await app.close()
        heard = b""
        with suppress(TimeoutError):
            while piece := await asyncio.wait_for(reader.read(1 << 16), 1.0):
                heard += piece
        writer.close()
    assert heard.count(b"\r\n") > 5, "it was used"
    assert [word for word in WORDS if word in heard.lower()] == []
