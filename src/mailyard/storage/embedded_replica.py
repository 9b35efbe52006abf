"""A standby of the embedded PostgreSQL on the same machine, from the same binaries.

It has a data folder of its own, is copied from the primary at its first start, and follows through
a slot, so that no log is missing when it was away. What it cannot follow any more (the primary was
restored to an earlier instant, or was made anew; the slot kept as much as it may) is thrown away
and copied again: a standby has nothing of its own.
"""

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import asyncpg

from mailyard.core.errors import ConfigurationError
from mailyard.core.limits import MIB
from mailyard.storage import cluster
from mailyard.storage.embedded import QUERIES, EmbeddedPostgres
from mailyard.storage.unprivileged import Identity

_FOLLOWS = "mailyard.follows"  # in the cluster: which primary it was copied from, and its timeline


def slot_name(number: int) -> str:
    """The slot of the replica `number`."""
    return f"mailyard_replica_{number}"


class EmbeddedReplica(EmbeddedPostgres):
    """The standby number `number` of the cluster in `primary`, in `data`. The primary runs."""

    def __init__(
        self,
        primary: Path,
        data: Path,
        *,
        number: int = 1,
        connections: int = 100,
        memory_bytes: int = 64 * MIB,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._primary = primary.absolute()
        self._slot = slot_name(number)
        super().__init__(
            data,
            connections=connections,
            memory_bytes=memory_bytes,
            say=say,
            more={
                "primary_conninfo": self._conninfo,
                "primary_slot_name": self._slot,
                "hot_standby": "on",
                "hot_standby_feedback": "on",
                "wal_receiver_status_interval": "1s",
                "wal_retrieve_retry_interval": "500ms",
            },
        )

    async def start(self) -> None:
        """Copy the primary, or go on behind it, and wait until it answers. Raises
        ConfigurationError."""
        if self._lock is None:
            self._lock = cluster.take_lock(self._data)
        if not await self._may_follow():
            self._throw_away()
        try:
            await super().start()
        except ConfigurationError as error:
            if not (self._data / "postgres").exists():
                raise
            self._say(f"cannot go on ({error.message}): copied anew")
            self._lock = cluster.take_lock(self._data)
            self._throw_away()
            await super().start()

    @property
    def _conninfo(self) -> str:
        folder = str(cluster.socket_folder(self._primary))
        quoted = folder.replace("\\", r"\\").replace("'", r"\'")
        return f"host='{quoted}' user={cluster.SUPERUSER} application_name={self._slot}"

    async def _whom(self) -> tuple[str, bool]:
        """Which primary there is, and whether it has kept the log that this replica needs."""
        server = await asyncpg.connect(
            cluster.url_of(self._primary, database="postgres", role=cluster.SUPERUSER)
        )
        try:
            found = await server.fetchrow(QUERIES.whom_to_follow, self._slot)
        finally:
            await server.close()
        assert found is not None
        return f"{found['system']} {found['timeline']}\n", bool(found["kept"])

    async def _may_follow(self) -> bool:
        whom, kept = await self._whom()
        try:
            return kept and (self._data / "postgres" / _FOLLOWS).read_text() == whom
        except OSError:
            return False

    def _throw_away(self) -> None:
        folder = self._data / "postgres"
        if folder.exists():
            cluster.clear_leftovers(self._data)
            shutil.rmtree(folder)

    async def _make(self, programs: Path, identity: Identity) -> None:
        """A copy of the primary beside its place, then renamed."""
        whom, _ = await self._whom()
        await self._renew_slot()
        making = self._data / "postgres.new"
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(mode=0o700)
        os.chown(making, *identity.owner)
        copying = await asyncio.create_subprocess_exec(
            str(programs / "pg_basebackup"),
            *("-d", self._conninfo, "-D", str(making), "-X", "stream", "-S", self._slot),
            *("-c", "fast", "--no-sync"),  # a copy that a power cut spoils is made again
            preexec_fn=identity.enter(),
            cwd=making,
            env=cluster.environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        _, said = await copying.communicate()
        if copying.returncode != 0:
            shutil.rmtree(making, ignore_errors=True)
            raise cluster.explain(self._data, said.decode("utf-8", "replace").splitlines())
        for name, text in (("standby.signal", ""), (_FOLLOWS, whom)):
            (making / name).write_text(text)
            os.chown(making / name, *identity.owner)
        making.rename(self._data / "postgres")

    async def _renew_slot(self) -> None:
        """The slot begins where the copy begins."""
        server = await asyncpg.connect(
            cluster.url_of(self._primary, database="postgres", role=cluster.SUPERUSER)
        )
        try:
            await server.execute(QUERIES.drop_slot, self._slot)
            await server.execute(QUERIES.make_slot, self._slot)
        finally:
            await server.close()

    async def _prepare(self) -> None:
        """Nothing: what the primary has comes by itself."""
