"""The embedded PostgreSQL: made, run unprivileged, repaired, and refused with advice."""

import asyncio
import os
import pwd
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from mailyard.core.errors import ConfigurationError
from mailyard.storage import cluster
from mailyard.storage.embedded import EmbeddedPostgres
from mailyard.storage.unprivileged import Identity, choose_identity

ROOT = os.geteuid() == 0
NOBODY = pwd.getpwnam("nobody")

# Starts on argv[1], says its process id, then waits to be killed.
HOLDER = """
import asyncio, sys
from pathlib import Path
from mailyard.storage.embedded import EmbeddedPostgres

async def hold():
    server = EmbeddedPostgres(Path(sys.argv[1]))
    await server.start()
    print(server.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(hold())
"""


async def query(server: EmbeddedPostgres, sql: str) -> object:
    connection = await asyncpg.connect(server.url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def run_once(data: Path, sql: str = "SELECT 1", **options: object) -> object:
    server = EmbeddedPostgres(data, **options)  # type: ignore[arg-type]
    await server.start()
    try:
        return await query(server, sql)
    finally:
        await server.stop()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder as a clean stop leaves it; tests work on copies."""
    folder = tmp_path_factory.mktemp("made") / "data"
    asyncio.run(run_once(folder))
    return folder


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    subprocess.run(["cp", "-a", str(made), str(folder)], check=True)
    return folder


async def refusal(data: Path, **options: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        await run_once(data, **options)
    return caught.value.message


async def test_durable_private_and_unprivileged_from_the_first_start(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "data")
    await server.start()
    try:
        assert server.pid is not None
        for name, wanted in (
            ("fsync", "on"),
            ("synchronous_commit", "on"),
            ("full_page_writes", "on"),
            ("listen_addresses", ""),
            ("jit", "off"),
        ):
            assert await query(server, f"SELECT current_setting('{name}')") == wanted
        assert (
            await query(server, "SELECT usesuper FROM pg_user WHERE usename = current_user")
            is False
        )
        assert (tmp_path / "data" / "run").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "data" / "postgres").stat().st_mode & 0o777 == 0o700
        status = Path(f"/proc/{server.pid}/status").read_text()
        assert "CapEff:\t0000000000000000" in status
    finally:
        await server.stop()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter; pytest's own are private."""
    with tempfile.TemporaryDirectory(prefix="mailyard-embedded-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.mark.skipif(not ROOT, reason="only root has two ways")
@pytest.mark.parametrize("mode", [0o755, 0o700])
async def test_root_runs_it_without_loosening_any_folder(open_folder: Path, mode: int) -> None:
    above = open_folder / "above"
    above.mkdir()
    above.chmod(mode)
    (above / "data").mkdir(mode=0o711)
    identity = choose_identity(cluster.binaries() / "postgres", above / "data" / "postgres")
    assert identity.way == ("user" if mode == 0o755 else "namespace")
    # A folder of the other way is taken over, both ways round.
    for owner in (identity.owner, (NOBODY.pw_uid, NOBODY.pw_gid), (0, 0)):
        assert await run_once(above / "data", "SELECT 41 + 1") == 42
        subprocess.run(
            ["chown", "-R", f"{owner[0]}:{owner[1]}", str(above / "data" / "postgres")], check=True
        )
    assert above.stat().st_mode & 0o777 == mode


async def test_a_killed_supervisor_takes_postgres_along_and_the_next_start_repairs(
    data: Path,
) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(data)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    url = cluster.url_of(data)
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE kept AS SELECT 7 AS x")
    busy = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))  # a backend at work
    await asyncio.sleep(0.1)
    working = cluster.processes_on(data / "postgres")
    assert len(working) > 4
    holder.kill()
    holder.wait()
    deadline = time.monotonic() + 2.0
    while cluster.processes_on(data / "postgres"):
        assert time.monotonic() < deadline, "PostgreSQL outlived its supervisor"
        await asyncio.sleep(0.02)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await busy
    assert await run_once(data, "SELECT x FROM kept") == 7


async def test_a_power_cut_leaves_a_lock_file_whose_number_somebody_else_has(data: Path) -> None:
    living = os.getppid()  # a process that lives and is no PostgreSQL, as after a reboot
    lock = f"{living}\n{data}/postgres\n1\n5432\n{data}/run\n\n0\nready\n"
    (data / "postgres" / "postmaster.pid").write_text(lock)
    os.chown(data / "postgres" / "postmaster.pid", *owner_of(data / "postgres"))
    assert await run_once(data) == 1


def owner_of(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_uid, found.st_gid


async def test_a_folder_in_use_is_refused_with_the_holders_number(data: Path) -> None:
    server = EmbeddedPostgres(data)
    await server.start()
    try:
        assert f"in use by the Mailyard with process id {os.getpid()}" in await refusal(data)
        assert await query(server, "SELECT 1") == 1
    finally:
        await server.stop()


async def test_a_postgres_that_somebody_else_started_is_left_alone(data: Path) -> None:
    programs = cluster.binaries()
    identity = choose_identity(programs / "postgres", data / "postgres")
    environment = {**cluster.environment()}
    del environment[cluster.MARK]
    foreign = subprocess.Popen(
        [str(programs / "postgres"), "-D", str(data / "postgres")],
        preexec_fn=identity.enter(signal.SIGQUIT),
        env=environment,
        cwd=data / "postgres",
        stderr=subprocess.DEVNULL,
    )
    try:
        while not (data / "postgres" / "postmaster.pid").exists():
            await asyncio.sleep(0.02)
        assert "which Mailyard did not start" in await refusal(data)
        assert foreign.poll() is None
    finally:
        foreign.send_signal(signal.SIGINT)
        foreign.wait()


@pytest.mark.parametrize(("version", "age"), [("17", "an older"), ("19", "a newer")])
async def test_data_of_another_postgres_is_refused(data: Path, version: str, age: str) -> None:
    (data / "postgres" / "PG_VERSION").write_text(f"{version}\n")
    message = await refusal(data)
    assert f"made by PostgreSQL {version}, {age} version" in message and "MAILYARD_DATA" in message


async def test_a_folder_that_is_no_cluster_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data" / "postgres").mkdir(parents=True)
    (tmp_path / "data" / "postgres" / "letters.txt").write_text("mine")
    assert "has files but no PG_VERSION" in await refusal(tmp_path / "data")
    assert (tmp_path / "data" / "postgres" / "letters.txt").read_text() == "mine"


async def test_a_first_start_that_was_cut_short_begins_anew(tmp_path: Path) -> None:
    half = tmp_path / "data" / "postgres.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    assert await run_once(tmp_path / "data") == 1
    assert not half.exists()


async def test_no_permission_is_said_with_what_to_do(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    message = await refusal(blocker / "data")
    assert "cannot be written (Not a directory)" in message and "MAILYARD_DATA" in message


@pytest.mark.skipif(not ROOT, reason="becomes another user")
def test_another_users_folder_is_refused(open_folder: Path) -> None:
    (open_folder / "data").mkdir(mode=0o755)
    become = Identity("user", NOBODY.pw_uid, NOBODY.pw_gid, "nobody").enter()
    child = os.fork()
    if child == 0:
        try:
            become()
            cluster.take_lock(open_folder / "data")
        except ConfigurationError as error:
            os._exit(7 if "Permission denied" in error.message else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m,mode=755", "tmpfs", str(place)], check=False
    )
    if mounted.returncode != 0 and os.environ.get("CI") != "true":
        pytest.skip("this machine lets nobody mount a file system")
    assert mounted.returncode == 0
    yield place
    subprocess.run(["umount", str(place)], check=True)


async def test_a_full_disk_is_said_with_what_to_do(small_disk: Path, made: Path) -> None:
    message = await refusal(small_disk / "data")
    assert "is full (63 MB free, a new database needs 200); free some space" in message
    subprocess.run(["rm", "-r", str(small_disk / "data")], check=True)
    subprocess.run(["cp", "-a", str(made), str(small_disk / "data")], check=False)
    subprocess.run(["dd", "if=/dev/zero", f"of={small_disk}/fill", "status=none"], check=False)
    message = await refusal(small_disk / "data")
    assert "is full" in message and "free some space" in message


async def test_settings_that_postgres_refuses_are_shown(data: Path) -> None:
    (data / "postgres" / "local.conf").write_text("work_mem = 'plenty'\n")
    assert "invalid value for parameter" in await refusal(data)


async def test_the_owners_own_settings_win(data: Path) -> None:
    (data / "postgres" / "local.conf").write_text("work_mem = '9MB'\n")
    assert await run_once(data, "SELECT current_setting('work_mem')") == "9MB"


async def test_a_log_line_of_any_length_stops_nobody(data: Path) -> None:
    loud = "DO $$ BEGIN RAISE WARNING '%', repeat('x', 300000); END $$"
    async with asyncio.timeout(60):
        await run_once(data, loud)


async def test_a_path_too_long_for_a_socket_still_works(tmp_path: Path, data: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.parent.mkdir()
    data.rename(deep)
    folder = cluster.socket_folder(deep)
    assert len(str(folder)) < 60
    try:
        assert await run_once(deep) == 1
        assert folder.stat().st_mode & 0o777 == 0o700
    finally:
        folder.rmdir()
