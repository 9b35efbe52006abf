"""PgBouncer in transaction mode between the platform and its PostgreSQL.

Between two round trips of one connection the pooler may change the server behind it. Two servers
for many clients make it do so all the time.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
from mail_platform import mail_platform
from running_platform import free_ports, running_platform, wait_until

from mailyard.bus.adapters.postgres import PostgresBus
from mailyard.core.ids import uuid7
from mailyard.mailbox.inbox_value import NewInbox
from mailyard.storage.database import Database, DatabaseAddress
from mailyard.storage.migrate import migrate
from mailyard.storage.partitions import drop_expired, ensure_partitions
from mailyard.storage.queries import Query
from mailyard.storage.unprivileged import choose_identity

PROGRAM = Path("/usr/sbin/pgbouncer")
SERVERS = 2
WHO = Query("SELECT $1::integer AS number, pg_backend_pid() AS server")
pytestmark = pytest.mark.skipif(
    not PROGRAM.exists() and os.environ.get("CI") != "true",
    reason="pgbouncer is not installed here",
)


@contextmanager
def pooler(server_url: str, folder: Path, servers: int) -> Iterator[str]:
    """The address of a PgBouncer before `server_url`, with `servers` connections to its database.

    It signs in as the user of `server_url`, on the same machine.
    """
    parts = urlsplit(server_url)
    host = parse_qs(parts.query).get("host", [parts.hostname or ""])[0]
    (port,) = free_ports(1)
    folder.mkdir(mode=0o700)
    identity = choose_identity(PROGRAM, folder)
    os.chown(folder, *identity.owner)
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={host} port={parts.port or 5432} user={parts.username}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = any\npool_mode = transaction\ndefault_pool_size = {servers}\n"
        f"max_client_conn = 200\nlogfile = {folder}/log\n"
    )
    os.chown(folder / "pgbouncer.ini", *identity.owner)
    running = subprocess.Popen(
        [str(PROGRAM), "-q", str(folder / "pgbouncer.ini")],
        preexec_fn=identity.enter(),
        cwd=folder,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: (folder / "log").exists() and "process up" in (folder / "log").read_text())
    try:
        yield f"postgresql://anybody@127.0.0.1:{port}{parts.path}"
    finally:
        running.terminate()
        running.wait(20)


@pytest.fixture
def address(database_url: str, tmp_path: Path) -> Iterator[DatabaseAddress]:
    """This test's database: pooled with two servers, and directly."""
    with pooler(database_url, tmp_path / "pooler", SERVERS) as url:
        yield DatabaseAddress(url, database_url, connections=12, behind_pooler=True)


@pytest.fixture
async def database(address: DatabaseAddress) -> AsyncIterator[Database]:
    database = Database(address)
    await database.open()
    yield database
    await database.close()


async def test_statements_side_by_side_find_what_they_have_parsed(database: Database) -> None:
    async def ask(number: int) -> int:
        row = await database.fetchrow(WHO, number)
        assert row is not None and row["number"] == number
        return int(row["server"])

    servers = await asyncio.gather(*map(ask, range(300)))
    assert len(set(servers)) == SERVERS


async def test_a_connection_held_for_single_statements_finds_them_too(database: Database) -> None:
    async def hold(number: int) -> None:
        async with database.connection() as connection:
            for _ in range(20):
                rows = await database.fetch(WHO, number, tx=connection)
                assert rows[0]["number"] == number
                await asyncio.sleep(0)

    await asyncio.gather(*map(hold, range(12)))


async def test_an_error_in_a_statement_leaves_the_connection_usable(database: Database) -> None:
    async with database.connection() as connection:
        with pytest.raises(Exception, match="division by zero"):
            await database.fetch(Query("SELECT 1 / $1::integer"), 0, tx=connection)
        assert await database.fetchval(WHO, 7, tx=connection) == 7


async def test_migrations_and_partitions_pass_the_pooler_by(address: DatabaseAddress) -> None:
    assert not await migrate(address.direct_url)
    database = Database(address)
    await database.open()
    try:
        await ensure_partitions(database, datetime(2020, 1, 1, tzinfo=UTC))
        assert len(await drop_expired(database, datetime.now(UTC))) > 10
    finally:
        await database.close()


async def test_mail_comes_in_and_is_ingested(database: Database) -> None:
    workspace_id = uuid7()
    async with mail_platform(database) as platform:
        await platform.inboxes.create(
            workspace_id, [NewInbox(f"p{n}@inbox.test", ttl_s=3600) for n in range(20)]
        )
        await asyncio.gather(*(platform.send(f"p{n}@inbox.test") for n in range(20)))
        while jobs := await platform.lease():
            await platform.run(jobs)
        inboxes = (await platform.inboxes.list(workspace_id)).items
        pages = [await platform.messages.list(workspace_id, inbox.id) for inbox in inboxes]
        assert [len(page.items) for page in pages] == [1] * 20


async def test_a_notification_passes_by_the_direct_address(database: Database) -> None:
    bus = PostgresBus(database=database)
    await bus.open()
    try:
        topic = f"topic-{uuid4().hex}"
        subscription = bus.subscribe(topic)
        bus.announce(topic)
        assert await subscription.wait(10.0)
    finally:
        await bus.close()


async def test_the_whole_platform_demonstrates_itself_through_it(
    database_url: str, tmp_path: Path
) -> None:
    """Import, campaign, SMTP, ingest, live events and the queue, in four processes."""
    with (
        pooler(database_url, tmp_path / "pooler", 4) as url,
        running_platform(
            tmp_path / "data",
            database_url=url,
            database_direct_url=database_url,
            database_pooler="true",
        ) as platform,
    ):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mailyard.cli.main", "demo", "--recipients", "300", "--json"),
            env=os.environ
            | {
                "MAILYARD_URL": f"http://127.0.0.1:{platform.port}",
                "MAILYARD_API_KEY": platform.ready["api_key"],
            },
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
        verdict = json.loads(out.strip().splitlines()[-1])
        assert (process.returncode, verdict["received"], verdict["lost"]) == (0, 300, 0)
        log = platform.log.read_text()
        assert "prepared statement" not in log and "portal" not in log, log
        assert platform.stop() == 0
