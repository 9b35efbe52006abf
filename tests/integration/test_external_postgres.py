"""The oldest PostgreSQL that is supported, as somebody's own server: Debian's 15."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest
from running_platform import running_platform, wait_until

from mailyard.storage.database import Database, DatabaseAddress
from mailyard.storage.migrate import migrate
from mailyard.storage.partitions import drop_expired, ensure_partitions
from mailyard.storage.unprivileged import Identity, choose_identity

PROGRAMS = Path("/usr/lib/postgresql/15/bin")
pytestmark = pytest.mark.skipif(
    not (PROGRAMS / "postgres").exists() and os.environ.get("CI") != "true",
    reason="postgresql-15 is not installed here",
)


@pytest.fixture(scope="module")
def old_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a PostgreSQL 15 with trust, on a socket."""
    place = tmp_path_factory.mktemp("old")
    data = place / "data"
    data.mkdir(mode=0o700)
    identity: Identity = choose_identity(PROGRAMS / "postgres", data)
    if os.geteuid() == 0:
        os.chown(data, *identity.owner)
        os.chown(place, *identity.owner)
    subprocess.run(
        [str(PROGRAMS / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-N"],
        preexec_fn=identity.enter(),
        cwd=data,
        check=True,
        capture_output=True,
    )
    server = subprocess.Popen(
        [
            *(str(PROGRAMS / "postgres"), "-D", str(data), "-k", str(place), "-h", ""),
            *("-c", "fsync=off", "-c", "max_connections=120"),
        ],
        preexec_fn=identity.enter(signal.SIGQUIT),
        cwd=data,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: "ready" in (data / "postmaster.pid").read_text() if _there(data) else False)
    yield f"postgresql://postgres@/postgres?host={place}"
    server.send_signal(signal.SIGINT)
    server.wait()


def _there(data: Path) -> bool:
    return (data / "postmaster.pid").exists()


def test_the_schema_and_the_partitions_work_there(old_server: str) -> None:
    async def use() -> None:
        server = await asyncpg.connect(old_server)
        await server.execute("CREATE DATABASE schema")
        await server.close()
        url = old_server.replace("/postgres?", "/schema?")
        assert await migrate(url)
        database = Database(DatabaseAddress(url, url, connections=4))
        await database.open()
        assert await ensure_partitions(database, datetime(2026, 1, 1, tzinfo=UTC)) > 50
        assert await ensure_partitions(database, datetime.now(UTC)) > 50
        assert len(await drop_expired(database, datetime.now(UTC))) > 10
        await database.close()

    asyncio.run(use())


def test_the_whole_platform_starts_on_it(old_server: str, tmp_path: Path) -> None:
    with running_platform(tmp_path / "data", database_url=old_server) as platform:
        assert platform.ready["api_key"]
        assert not platform.pids_of("postgres")
        assert platform.stop() == 0
