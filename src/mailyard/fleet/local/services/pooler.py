"""PgBouncer in transaction mode before the embedded PostgreSQL.

It refuses to be root, so it runs as whoever PostgreSQL runs as, and listens beside it: on a socket
in the folder that nobody else may enter.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

from mailyard.fleet.local.place import Place, write_private
from mailyard.fleet.local.process import Say, ServiceProcess
from mailyard.fleet.local.program import PGBOUNCER
from mailyard.fleet.local.service import Moment, Service
from mailyard.storage import cluster
from mailyard.storage.unprivileged import choose_identity

PORT = 6432  # of a socket: the end of its file's name
_CLIENTS = 2_000


class Pooler(Service):
    """One PgBouncer. `connections`: how many the server gives; half of them are the pool, the rest
    is for what needs a connection of its own."""

    moment = Moment.DATABASE
    instead = ("database_url",)
    needs = (PGBOUNCER,)

    def __init__(self, place: Place, say: Say, *, connections: int) -> None:
        super().__init__()
        self._place = place
        self._folder = place.folder("pgbouncer")
        self._pool = max(10, connections // 2)
        sockets = quote(str(cluster.socket_folder(place.data)))
        pooled = f"postgresql://{cluster.ROLE}@/{cluster.DATABASE}?host={sockets}"
        self.settings = {
            "database_url": f"{pooled}&port={PORT}",
            "database_direct_url": pooled,
            "database_pooler": "true",
            "backup_database_url": (
                f"postgresql://{cluster.SUPERUSER}@/{cluster.DATABASE}?host={sockets}"
            ),
        }
        self.processes = [
            ServiceProcess(
                "pgbouncer",
                self._folder,
                command=self._command,
                ready=self._answers,
                say=say,
                become=self._become,
                stop_signal=signal.SIGINT,  # SIGTERM would end it without a word to clients
            )
        ]

    def places(self) -> Sequence[tuple[str, str]]:
        return [("pgbouncer", str(self._socket()))]

    async def _command(self) -> Sequence[str | Path]:
        sockets = cluster.socket_folder(self._place.data)
        write_private(
            self._folder / "pgbouncer.ini",
            "[databases]\n"
            f"{cluster.DATABASE} = host={sockets} port=5432 user={cluster.ROLE}\n"
            "[pgbouncer]\n"
            f"listen_port = {PORT}\nunix_socket_dir = {sockets}\nunix_socket_mode = 0700\n"
            "auth_type = any\npool_mode = transaction\n"
            f"default_pool_size = {self._pool}\nmax_client_conn = {_CLIENTS}\n"
            # A server that was away is asked again soon: by itself it waits for 15 s.
            "server_login_retry = 1\n"
            "log_connections = 0\nlog_disconnections = 0\nlog_stats = 0\n",
        )
        identity = choose_identity(PGBOUNCER.path(), self._folder)
        cluster.give_to(identity, self._folder)
        if os.geteuid() == 0:
            os.chown(self._folder / "pgbouncer.ini", *identity.owner)
        self._socket().unlink(missing_ok=True)
        return (PGBOUNCER.path(), "-q", self._folder / "pgbouncer.ini")

    def _become(self, death_signal: int) -> Callable[[], None]:
        return choose_identity(PGBOUNCER.path(), self._folder).enter(death_signal)

    def _socket(self) -> Path:
        return cluster.socket_folder(self._place.data) / f".s.PGSQL.{PORT}"

    async def _answers(self) -> bool:
        _, writer = await asyncio.open_unix_connection(self._socket())
        writer.close()
        return True
