"""PostgreSQL servers of one's own: a primary, standbys of it, and PgBouncer before them.

The programs are those of the embedded PostgreSQL, or Debian's 15. Each server is one process that
dies with this one.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from running_platform import free_ports, wait_until

from mailyard.storage import cluster
from mailyard.storage.unprivileged import Identity, choose_identity

DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")
PGBOUNCER = Path("/usr/sbin/pgbouncer")

_SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
wal_level = replica
max_wal_senders = 10
max_replication_slots = 10
wal_keep_size = 256MB
hot_standby = on
hot_standby_feedback = on
wal_receiver_status_interval = 1s
wal_retrieve_retry_interval = 200ms
max_connections = 120
shared_buffers = 64MB
fsync = off
log_min_messages = warning
"""


class Server:
    """One PostgreSQL server on a port of loopback; not started yet."""

    def __init__(self, folder: Path, programs: Path, *, user: str = "postgres") -> None:
        self.folder = folder
        self.programs = programs
        self.user = user
        (self.port,) = free_ports(1)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{self.user}@{self.place}/{database}"

    def identity(self) -> Identity:
        return choose_identity(self.programs / "postgres", self.folder)

    def run(self, program: str, *arguments: str) -> str:
        """One of PostgreSQL's programs, to its end; what it wrote."""
        done = subprocess.run(
            [str(self.programs / program), *arguments],
            preexec_fn=self.identity().enter(),
            cwd=self.folder,
            env=cluster.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def sql(self, text: str, database: str = "postgres") -> str:
        """One statement as psql prints its rows."""
        return self.run("psql", "-XAtq", self.url(database), "-c", text)

    def make_folder(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True)
        os.chown(self.folder, *self.identity().owner)

    def start(self) -> "Server":
        with (self.folder.parent / f"{self.folder.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(self.programs / "postgres"), "-D", str(self.folder), "-p", str(self.port)],
                preexec_fn=self.identity().enter(signal.SIGQUIT),
                cwd=self.folder,
                env=cluster.environment(),
                stderr=log,
            )
        wait_until(lambda: self.state() in ("ready", "standby"))
        return self

    def state(self) -> str:
        """What the server says of itself in its lock file."""
        try:
            lines = (self.folder / "postmaster.pid").read_text().splitlines()
        except OSError:
            return ""
        mine = self.process is not None and lines and lines[0] == str(self.process.pid)
        return lines[7].strip() if mine and len(lines) >= 8 else ""

    def kill(self) -> None:
        """SIGKILL for the postmaster and all its children: as a machine that is gone."""
        assert self.process is not None, "not started"
        processes = cluster.processes_on(self.folder)
        for pid in {self.process.pid, *processes}:
            with suppress(ProcessLookupError):  # a child ends with the postmaster
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def freeze(self, number: int = signal.SIGSTOP) -> None:
        """Stop, or let go on, the server with all its children."""
        for pid in cluster.processes_on(self.folder):
            with suppress(ProcessLookupError):  # one that has just ended
                os.kill(pid, number)

    def stop(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.freeze(signal.SIGCONT)
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(20)

    def promote(self) -> None:
        """Make the standby a primary."""
        self.sql("SELECT pg_promote()")
        wait_until(lambda: self.sql("SELECT pg_is_in_recovery()") == "f")

    def follow(self, primary: "Server", through_port: int | None = None) -> None:
        """Become a standby of another primary. Started anew by the caller.

        `through_port`: of loopback, which leads to the primary.
        """
        url = primary.url()
        if through_port is not None:
            url = url.replace(primary.place, f"127.0.0.1:{through_port}")
        self.run(
            *("pg_basebackup", "-d", f"{url}?application_name=replica"),
            *("-D", str(self.folder), "-R", "-X", "stream", "-c", "fast", "--no-sync"),
        )


def primary_in(folder: Path, programs: Path) -> Server:
    """A new, running primary."""
    server = Server(folder, programs)
    server.make_folder()
    server.run("initdb", "-D", str(folder), "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8")
    with (folder / "postgresql.conf").open("a") as file:
        file.write(_SETTINGS)
    return server.start()


def standby_of(primary: Server, folder: Path, through_port: int | None = None) -> Server:
    """A new, running standby that streams from `primary`, `through_port` where one is named."""
    server = Server(folder, primary.programs)
    server.make_folder()
    server.follow(primary, through_port)
    server.start()
    wait_until(lambda: primary.sql("SELECT count(*) FROM pg_stat_replication") != "0")
    return server


@contextmanager
def servers(
    folder: Path, *, standbys: int, programs: Callable[[], Path] = cluster.binaries
) -> Iterator[list[Server]]:
    """A primary and its standbys, in this order; all are ended afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    made: list[Server] = []
    try:
        made.append(primary_in(folder / "primary", programs()))
        for number in range(1, standbys + 1):
            made.append(standby_of(made[0], folder / f"replica{number}"))
        yield made
    finally:
        for server in reversed(made):
            server.stop()


@contextmanager
def pgbouncer(server: Server, folder: Path, *, connections: int) -> Iterator[str]:
    """The address (without a database) of a PgBouncer in transaction mode before `server`."""
    (port,) = free_ports(1)
    folder.mkdir(mode=0o700)
    identity = choose_identity(PGBOUNCER, folder)
    os.chown(folder, *identity.owner)
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host=127.0.0.1 port={server.port} user={server.user}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = any\npool_mode = transaction\ndefault_pool_size = {connections}\n"
        f"max_client_conn = 300\nlogfile = {folder}/log\n"
    )
    os.chown(folder / "pgbouncer.ini", *identity.owner)
    running = subprocess.Popen(
        [str(PGBOUNCER), "-q", str(folder / "pgbouncer.ini")],
        preexec_fn=identity.enter(),
        cwd=folder,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: (folder / "log").exists() and "process up" in (folder / "log").read_text())
    try:
        yield f"postgresql://anybody@127.0.0.1:{port}"
    finally:
        running.terminate()
        running.wait(20)
