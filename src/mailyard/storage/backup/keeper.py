"""The backups of an installation: taken, tried, recorded and thinned out."""

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from mailyard.core.clock import Clock
from mailyard.core.errors import ConfigurationError, MailyardError
from mailyard.storage.backup.archive import WalArchiver
from mailyard.storage.backup.base_backup import take_base
from mailyard.storage.backup.log import is_before
from mailyard.storage.backup.manifest import Base, manifest_name, read_bases
from mailyard.storage.backup.record import BackupLog, run_of
from mailyard.storage.backup.recover import Restored, restore
from mailyard.storage.backup.seal import Sealer, sealer_of
from mailyard.storage.backup.segment import read_segment
from mailyard.storage.backup.store import Store
from mailyard.storage.database import Database
from mailyard.storage.queries import load

QUERIES = load("backup")
_DELETE_MOST = 500
_UNFINISHED_AFTER = timedelta(days=2)  # pieces without a manifest for so long are of no backup


@dataclass(frozen=True, slots=True)
class BackupPlace:
    """Where an installation's backups go, and where they come from.

    `url`: the server's address for one who may replicate; `role`: who asks a restored database.
    `name`: of the store, without secrets. `data`: the folder that spool and trials lie in.
    `master_keys`: keys for backups made from the master keys; `keys_file`: the master keys as text,
    to be kept under a passphrase.
    """

    store: Callable[[], Store]
    name: str
    passphrase: str
    master_keys: Callable[[], Sequence[bytes]]
    keys_file: Callable[[], bytes]
    url: str
    role: str
    data: Path
    keep_days: float
    part_every_s: float


class Backups:
    """Takes backups, restores one to see that it can be, remembers both."""

    def __init__(self, *, database: Database, place: BackupPlace, clock: Clock) -> None:
        self._database = database
        self.log = BackupLog(database=database)
        self._place = place
        self._clock = clock
        self._opening = asyncio.Lock()
        self._opened: tuple[Store, Sealer] | None = None

    async def open(self) -> tuple[Store, Sealer]:
        """The store and its sealer. Raises ConfigurationError.

        A store that has had a backup of ours is not made anew: it may be one that is not mounted.
        """
        async with self._opening:
            if self._opened is None:
                store = self._place.store()
                if await self.is_new_here():
                    sealer = await self._begin(store)
                else:
                    sealer = await self._sealer_of(store)
                self._opened = (store, sealer)
        return self._opened

    async def _begin(self, store: Store) -> Sealer:
        """Make the store. One at a time in the whole installation: two would each draw a salt, and
        what one of them sealed would never open."""
        connection = await self._database.direct()
        try:
            await connection.execute(QUERIES.lock_store)
            await store.prepare()
            return await self._sealer_of(store)
        finally:
            await connection.close()

    async def _sealer_of(self, store: Store) -> Sealer:
        return await sealer_of(store, self._place.passphrase, self._place.master_keys)

    async def is_new_here(self) -> bool:
        """Whether this store has no backup of ours yet."""
        return not await self.log.has_used(self._place.name)

    async def take(self) -> Base:
        """A base backup, recorded; older ones that nobody needs any more are removed."""
        started_at = self._clock.now()
        try:
            store, sealer = await self.open()
            place = self._place
            keys = place.keys_file() if place.passphrase else b""
            base = await take_base(store, sealer, place.url, role=place.role, keys=keys)
        except MailyardError as error:
            await self._record("base", started_at, False, 0, {"problem": error.message})
            raise
        detail: dict[str, object] = {
            "store": self._place.name,
            "base": base.id,
            "size_bytes": base.size_bytes,
            "first_wal": base.first_wal,
        }
        await self._record("base", started_at, True, base.stored_bytes, detail)
        await self.thin_out()
        return base

    async def try_restore(self, say: Callable[[str], None] = lambda _: None) -> Restored:
        """Restore the newest state into a folder of its own, look at it, remove it.

        Raises ConfigurationError when what came out is not this installation.
        """
        started_at = self._clock.now()
        store, sealer = await self.open()
        folder = Path(await asyncio.to_thread(self._make_trial_folder))
        try:
            restored = await restore(store, sealer, folder, say=say)
            await self._compare(restored)
        except MailyardError as error:
            await self._record("drill", started_at, False, 0, {"problem": error.message})
            raise
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        behind = None if restored.replayed_at is None else started_at - restored.replayed_at
        detail: dict[str, object] = {
            "store": self._place.name,
            "base": restored.base.id,
            "segments": restored.segments,
            "seconds": round(restored.seconds, 1),
            "behind_s": None if behind is None else round(max(0.0, behind.total_seconds()), 1),
        }
        await self._record("drill", started_at, True, restored.base.stored_bytes, detail)
        return restored

    def archiver(self, store: Store, sealer: Sealer) -> WalArchiver:
        """What streams the log into the store."""
        return WalArchiver(
            store=store,
            sealer=sealer,
            url=self._place.url,
            spool=self._place.data / "backup" / "spool",
            part_every_s=self._place.part_every_s,
        )

    async def bases(self) -> list[Base]:
        """All base backups in the store, oldest first."""
        store = self._place.store()
        return await read_bases(store, await self._sealer_of(store))

    async def thin_out(self) -> int:
        """Remove base backups that no instant of the last `keep_days` needs, with the log before
        the oldest that stays, and what was never finished. How many names went."""
        store, sealer = await self.open()
        bases = await read_bases(store, sealer)
        since = self._clock.now() - timedelta(days=self._place.keep_days)
        keep = kept_bases(bases, since)
        gone: list[str] = []
        for base in bases:
            if base not in keep:
                gone.append(manifest_name(base.id))
                gone += [base.piece_name(index) for index in range(len(base.pieces))]
        known = {base.id for base in bases}
        gone += [
            name
            for name in await store.names("base/")
            if name.split("/")[1] not in known and _is_old(name.split("/")[1], self._clock.now())
        ]
        if keep:
            first = read_segment(keep[0].first_wal, keep[0].segment_bytes)
            if first is not None:
                gone += [
                    name
                    for name in await store.names("wal/")
                    if is_before(name, first, keep[0].segment_bytes)
                ]
        # Manifests first: what has lost its manifest is no backup, and is swept up in the end.
        for begin in range(0, len(gone), _DELETE_MOST):
            await store.delete(*gone[begin : begin + _DELETE_MOST])
        return len(gone)

    def _make_trial_folder(self) -> str:
        parent = self._place.data / "backup"
        parent.mkdir(parents=True, exist_ok=True, mode=0o711)
        folder = tempfile.mkdtemp(prefix="trial-", dir=parent)
        Path(folder).chmod(0o711)
        return folder

    async def _compare(self, restored: Restored) -> None:
        """Against what the running database says. Raises ConfigurationError."""
        row = await self._database.fetchrow(QUERIES.said)
        assert row is not None, "a SELECT without FROM has one row"
        for name in ("workspaces", "people", "migrations"):
            found, expected = getattr(restored, name), row[name]
            if found == 0 or found > expected:
                raise ConfigurationError(
                    f"a restored database has {found} {name}, the running one {expected}: the "
                    "backup is of another installation, or is damaged"
                )

    async def _record(
        self, kind: str, started_at: datetime, good: bool, size: int, detail: dict[str, object]
    ) -> None:
        await self.log.add(
            run_of(kind, started_at, self._clock.now(), good=good, stored_bytes=size, detail=detail)
        )


def kept_bases(bases: Sequence[Base], since: datetime) -> list[Base]:
    """Those of `bases` (oldest first) that an instant from `since` on is restored from: all that
    were finished after it, and the last one before it."""
    newer = [base for base in bases if base.finished_at >= since]
    older = [base for base in bases if base.finished_at < since]
    return [*older[-1:], *newer]


def _is_old(base_id: str, now: datetime) -> bool:
    try:
        made_at = datetime.fromtimestamp((UUID(base_id).int >> 80) / 1000, UTC)
    except (ValueError, OverflowError):
        return True  # nothing of ours is named so
    return now - made_at > _UNFINISHED_AFTER
