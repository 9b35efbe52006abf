"""The contract of blob stores, for a real S3 server; mail while it goes away; moving to it."""

import asyncio
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from urllib.parse import urlsplit

import pytest
from app_work import ask, receive, work
from blob_cases import *  # noqa: F403 (the cases)
from blob_cases import LARGE, a_key, listed
from mail_platform import envelope
from s3_server import S3Server, is_installed

from mailyard.app import Application
from mailyard.app.foundation import blob_store
from mailyard.core.errors import ConfigurationError
from mailyard.core.ids import MESSAGE, type_id, uuid7
from mailyard.mailbox.inbox_value import NewInbox
from mailyard.protocol.smtp.reply import Reply
from mailyard.receiving.accept import Acceptor
from mailyard.settings import Settings
from mailyard.storage.blob import BlobsAway, parse_name
from mailyard.storage.blob_copy import BlobCopy, count
from mailyard.storage.blobs.folder import FolderBlobs
from mailyard.storage.blobs.object_store import ObjectStoreBlobs
from mailyard.storage.blobs.timed import TimedBlobs

MAIL = b"From: Ada <ada@peer.test>\r\nSubject: large\r\n\r\n" + b"oblongata\r\n" * 40_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    if not is_installed():
        pytest.skip("versitygw is not installed: tests/services/install_s3.sh")
    running = S3Server(tmp_path_factory.mktemp("s3"))
    running.start()
    yield running
    running.stop()


@pytest.fixture
def url(server: S3Server) -> str:
    """A store of its own in the bucket."""
    return server.url(f"blobs/{token_hex(6)}")


@pytest.fixture
def store(url: str) -> ObjectStoreBlobs:
    return ObjectStoreBlobs(url)


@pytest.fixture
def more_than_a_run() -> int:
    return 1_050


async def test_a_presigned_address_gives_the_blob_to_whoever_has_it(
    store: ObjectStoreBlobs,
) -> None:
    key = a_key(LARGE)
    await store.put(key, LARGE)
    address = await store.presign(key, 60.0)
    assert address is not None

    def download(url: str) -> bytes:
        with urllib.request.urlopen(url, timeout=30.0) as answer:
            assert answer.headers["Content-Disposition"] == f'attachment; filename="{owner}.eml"'
            assert answer.headers["Content-Type"] == "application/octet-stream"
            return bytes(answer.read())

    name = parse_name(key)
    assert name is not None
    owner = name.owner_id
    assert await asyncio.to_thread(download, address) == LARGE
    small = a_key(b"small")
    await store.put(small, b"small")  # in one request; the other went in parts
    [owner] = [name.owner_id for name in [parse_name(small)] if name is not None]
    address = await store.presign(small, 60.0)
    assert address is not None
    assert await asyncio.to_thread(download, address) == b"small"
    without = urlsplit(address)._replace(query="").geturl()
    for wrong in (without, address.replace(small, a_key())):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            await asyncio.to_thread(download, wrong)


async def test_an_address_like_r2s_reaches_its_bucket(tmp_path: Path) -> None:
    """Cloudflare R2 has the region `auto` and its buckets in the path, as this server then has."""
    like_r2 = S3Server(tmp_path, region="auto")
    like_r2.start()
    try:
        store = ObjectStoreBlobs(like_r2.url("x"))
        assert "region=auto" in like_r2.url("x")
        await store.prepare()
        for content in (b"small", LARGE):
            key = a_key(content)
            await store.put(key, content)
            assert await store.get(key) == content
            address = await store.presign(key, 60.0)
            assert address is not None
            with await asyncio.to_thread(urllib.request.urlopen, address, None, 30.0) as answer:
                assert answer.read() == content
            await store.delete([key])
        assert await listed(store) == []
    finally:
        like_r2.stop()


async def test_two_stores_of_a_bucket_do_not_see_each_other(server: S3Server) -> None:
    one, other = (ObjectStoreBlobs(server.url(token_hex(6))) for _ in range(2))
    await one.put("a/b", b"x")
    assert await listed(other) == []
    assert await other.size_bytes("a/b") is None
    await one.delete(["a/b"])


async def test_who_is_not_let_in_is_told_so_and_no_blob_is_missing(server: S3Server) -> None:
    for wrong in (server.url("x", secret="guessed"), server.url("x", bucket="nowhere")):
        store = ObjectStoreBlobs(wrong)
        for use in (store.get("a/b"), store.put("a/b", b"x"), listed(store), store.prepare()):
            with pytest.raises(BlobsAway):
                await use


def test_an_address_that_is_none_is_refused() -> None:
    for wrong in ("s3://", "s3://bucket?nonsense=1", "gs://key:secret@bucket"):
        with pytest.raises(ConfigurationError):
            ObjectStoreBlobs(wrong)


async def test_other_clouds_sign_for_themselves() -> None:
    """Nothing of them is here to be asked; that their addresses are understood can be seen."""
    azure = blob_store("az://account:c2VjcmV0@box/prefix")
    address = await azure.presign("a/b", 60.0)
    assert address is not None
    assert address.startswith("https://account.blob.core.windows.net/box/prefix/a/b?")


# -- mail while the store goes away ------------------------------------------------------------


class Yard:
    def __init__(self, app: Application, server: S3Server) -> None:
        self.app = app
        self.server = server
        self.workspace = uuid7()
        self.acceptor = Acceptor(
            database=app.database, engine=app.engine, hostname="mx.test", raw_mail=app.raw_mail
        )

    async def send(self, address: str) -> Reply:
        assert (await ask(self.acceptor, address)).code == 250
        answer = self.acceptor.accept_message(envelope(address), MAIL)
        return answer if isinstance(answer, Reply) else await answer


@pytest.fixture
async def yard(
    database_url: str,
    server: S3Server,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Yard]:
    app = Application(
        Settings(data=tmp_path, database_url=database_url, inbox_domain="inbox.test", blobs=url)
    )
    assert isinstance(app.blobs, TimedBlobs)
    for name, seconds in (("_read_s", 2.0), ("_write_s", 2.0), ("_pause_s", 0.2)):
        monkeypatch.setattr(app.blobs, name, seconds)
    await app.open()
    yard = Yard(app, server)
    await app.database.pool.execute("INSERT INTO workspace VALUES ($1, 'Shop')", yard.workspace)
    yield yard
    await yard.acceptor.close()
    await app.close()


@pytest.mark.parametrize("way", ["killed", "frozen"])
async def test_mail_is_deferred_while_the_store_is_away_and_none_is_lost(
    yard: Yard, way: str
) -> None:
    """Peers send at all times; the store goes and comes back in the middle. What got a 250 is
    there, byte for byte; what did not is the peer's; and nobody restarts anything."""
    [inbox] = await yard.app.inboxes.create(yard.workspace, [NewInbox("quokka")])
    replies: list[Reply] = []
    away, back = asyncio.Event(), asyncio.Event()

    async def peer(wanted: int) -> None:
        """Sends until `wanted` mails were taken since the store came back."""
        while True:
            since = back.is_set()
            reply = await yard.send(inbox.address)
            replies.append(reply)
            if reply.code == 451:
                away.set()
                await asyncio.sleep(0.1)
            wanted -= since and reply.code == 250
            if wanted <= 0:
                return

    peers = [asyncio.create_task(peer(5)) for _ in range(4)]
    while sum(reply.code == 250 for reply in replies) < 5:
        await asyncio.sleep(0.01)
    yard.server.kill() if way == "killed" else yard.server.freeze()
    async with asyncio.timeout(120.0):
        await away.wait()
    first = await yard.app.database.pool.fetchval("SELECT min(id::text)::uuid FROM message")
    with pytest.raises(BlobsAway):
        await yard.app.messages.raw(yard.workspace, await visible(yard, first))
    yard.server.start() if way == "killed" else yard.server.thaw()
    back.set()
    async with asyncio.timeout(180.0):
        await asyncio.gather(*peers)

    assert {reply.code for reply in replies} == {250, 451}
    accepted = {reply.text.rpartition(" ")[2] for reply in replies if reply.code == 250}
    await yard.app.database.pool.execute("UPDATE job_scheduled SET run_at = now()")
    await work(yard.app)
    page = await yard.app.messages.list(yard.workspace, inbox.id, limit=500)
    there = {type_id(MESSAGE, one.id) for one in page.items}
    assert accepted <= there
    for one in page.items:
        assert (await yard.app.messages.raw(yard.workspace, one.id)).endswith(MAIL)
    kept = await yard.app.database.pool.fetch("SELECT blob, raw FROM message")
    assert all(row["blob"] and not row["raw"] for row in kept)


async def visible(yard: Yard, message_id: object) -> object:
    """A message with a line, as if it had been read in before the store went."""
    await yard.app.database.pool.execute(
        "INSERT INTO inbox_message SELECT inbox_ids[1], id, workspace_id, retention_days, "
        "retention_days, '', '', '', '', '', NULL, '', size_bytes, 0 FROM message WHERE id = $1",
        message_id,
    )
    return message_id


async def test_a_link_leads_to_the_bytes_that_the_api_says(yard: Yard) -> None:
    [inbox] = await yard.app.inboxes.create(yard.workspace, [NewInbox("quokka")])
    message_id = await receive(yard.acceptor, inbox.address, content=MAIL)
    await work(yard.app)
    link = await yard.app.messages.link(yard.workspace, message_id, 60.0)
    assert link.url is not None

    def download() -> bytes:
        assert link.url is not None
        with urllib.request.urlopen(link.url, timeout=30.0) as answer:
            return bytes(answer.read())

    content = await asyncio.to_thread(download)
    assert content == await yard.app.messages.raw(yard.workspace, message_id)
    assert (link.sha256, link.size_bytes) == (sha256(content).hexdigest(), len(content))


# -- moving ------------------------------------------------------------------------------------


async def test_a_folder_moves_to_s3_and_from_there_to_another_while_it_goes_away(
    server: S3Server, tmp_path: Path
) -> None:
    folder = FolderBlobs(tmp_path / "blobs")
    await folder.prepare()
    contents = {a_key(content): content for content in (LARGE, b"x", b"") for content in (content,)}
    for number in range(40):
        content = b"%d" % number * 1_000
        contents[a_key(content)] = content
    for key, content in contents.items():
        await folder.put(key, content)
    first, second = (ObjectStoreBlobs(server.url(f"moved/{token_hex(6)}")) for _ in range(2))
    copied = await BlobCopy(folder, first).run()
    assert (copied.blobs, copied.failed) == (len(contents), 0)

    copying = BlobCopy(first, second, at_once=2)
    task = asyncio.create_task(copying.run())
    while copying.copied.blobs < 5:
        await asyncio.sleep(0.01)
    server.kill()
    await asyncio.sleep(0.5)
    server.start()
    async with asyncio.timeout(180.0):
        with_break = await asyncio.gather(task, return_exceptions=True)
    if isinstance(with_break[0], BaseException):  # a list was under way
        assert isinstance(with_break[0], BlobsAway)
        await BlobCopy(first, second).run()
    assert await count(second) == await count(folder)
    for key, content in contents.items():
        assert await second.get(key) == content
