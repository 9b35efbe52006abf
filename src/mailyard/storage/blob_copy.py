"""One store copied into another, while both are in use.

What is there already, whole, is passed over, so a copy that broke off is begun again and goes on
where it was. Each blob is proved on the way: what is read must be what its name says (or, where
the name says nothing, what was listed), and what was written is read back. A blob that is deleted
while it is copied is deleted from the copy too: whoever deletes from both deletes from the source
first, and the copy looks there once more after it has written.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from random import Random

from mailyard.core.backoff import Backoff
from mailyard.core.errors import MailyardError
from mailyard.core.limits import MIB
from mailyard.storage.blob import (
    UNFINISHED,
    BlobDamaged,
    BlobMissing,
    BlobsAway,
    BlobStore,
    Stored,
    parse_name,
)

AT_ONCE = 16
PATIENCE_S = 300.0  # for a store that goes away in the middle
_WHOLE_BYTES = 8 * MIB  # up to this a blob is held whole: one signed request writes it
_FOLDERS_KNOWN = 64
_FAILURES_TOLD = 100
_AGAIN = Backoff(first_s=0.2, cap_s=10.0)


@dataclass
class Copied:
    """How far a copy has come. `bytes` are those that were copied."""

    blobs: int = 0
    bytes: int = 0
    already_there: int = 0
    deleted_meanwhile: int = 0
    failed: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def seen(self) -> int:
        return self.blobs + self.already_there + self.deleted_meanwhile + self.failed

    def fail(self, key: str, error: MailyardError) -> None:
        self.failed += 1
        if len(self.failures) < _FAILURES_TOLD:
            self.failures.append(f"{key}: {error.message}")


async def count(store: BlobStore) -> tuple[int, int]:
    """How many blobs `store` holds, and their bytes."""
    blobs = size_bytes = 0
    async for run in store.list():
        blobs += len(run)
        size_bytes += sum(one.size_bytes for one in run)
    return blobs, size_bytes


class BlobCopy:
    """Copies all of `source` into `target`. With `read_back` false what was written is trusted to
    be what was sent (the stores check the hash of what they get), which spares half the traffic."""

    def __init__(
        self,
        source: BlobStore,
        target: BlobStore,
        *,
        at_once: int = AT_ONCE,
        read_back: bool = True,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._source = source
        self._target = target
        self._places = asyncio.Semaphore(at_once)
        self._read_back = read_back
        self._patience_s = patience_s
        self._known: OrderedDict[str, dict[str, int]] = OrderedDict()
        self._random = Random()
        self.copied = Copied()

    async def run(self, told: Callable[[Copied], None] = lambda _: None) -> Copied:
        """Copy what is not there yet; `told` hears of every blob. Raises BlobsAway when a store
        stays away: what was copied stays."""
        try:
            await self._run(told)
        except ExceptionGroup as errors:
            away, rest = errors.split(BlobsAway)
            if away is None or rest is not None:
                raise
            raise BlobsAway("a store stayed away; call it again, it goes on here") from errors
        return self.copied

    async def _run(self, told: Callable[[Copied], None]) -> None:
        async for run in self._source.list():
            waiting = [one for one in run if await self._is_wanted(one)]
            self.copied.already_there += len(run) - len(waiting)
            told(self.copied)
            async with asyncio.TaskGroup() as tasks:
                for one in waiting:
                    await self._places.acquire()
                    task = tasks.create_task(self._patiently(one))
                    task.add_done_callback(lambda _: self._places.release())
                    task.add_done_callback(lambda _: told(self.copied))

    async def _is_wanted(self, one: Stored) -> bool:
        folder, _, name = one.key.rpartition("/")
        if name.startswith(UNFINISHED):
            return False
        there = self._known.get(folder)
        if there is None:
            there = {}
            async for run in self._target.list(f"{folder}/" if folder else ""):
                there.update((found.key, found.size_bytes) for found in run)
            self._known[folder] = there
            if len(self._known) > _FOLDERS_KNOWN:
                self._known.popitem(last=False)
        return there.get(one.key) != one.size_bytes

    async def _patiently(self, one: Stored) -> None:
        until = asyncio.get_running_loop().time() + self._patience_s
        tries = 0
        while True:
            try:
                await self._copy(one)
                return
            except BlobsAway:
                tries += 1
                if asyncio.get_running_loop().time() > until:
                    raise
                await asyncio.sleep(_AGAIN.delay_s(tries, self._random))
            except BlobDamaged as error:
                self.copied.fail(one.key, error)
                return

    async def _copy(self, one: Stored) -> None:
        try:
            if one.size_bytes <= _WHOLE_BYTES:
                content = await self._source.get(one.key)
                digest = hashlib.sha256(content).hexdigest()
                _prove(one.key, digest)
                await self._target.put(one.key, content)
            else:
                digest = await self._copy_in_pieces(one)
        except BlobMissing:
            self.copied.deleted_meanwhile += 1
            return
        if self._read_back:
            await self._prove_written(one, digest)
        if await self._source.size_bytes(one.key) is None:
            await self._target.delete([one.key])
            self.copied.deleted_meanwhile += 1
            return
        self.copied.blobs += 1
        self.copied.bytes += one.size_bytes

    async def _copy_in_pieces(self, one: Stored) -> str:
        """Its hash. What is found damaged at the end is not left in the target."""
        hashed = hashlib.sha256()

        async def passing(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            async for piece in pieces:
                hashed.update(piece)
                yield piece

        await self._target.put(one.key, passing(await self._source.stream(one.key)))
        try:
            _prove(one.key, hashed.hexdigest())
        except BlobDamaged:
            await self._target.delete([one.key])
            raise
        return hashed.hexdigest()

    async def _prove_written(self, one: Stored, digest: str) -> None:
        hashed = hashlib.sha256()
        try:
            async for piece in await self._target.stream(one.key):
                hashed.update(piece)
        except BlobMissing:  # whoever deletes from both was here
            return
        if hashed.hexdigest() != digest:
            await self._target.delete([one.key])
            raise BlobDamaged(f"blob {one.key} came out of the new store otherwise than it went in")


def _prove(key: str, digest: str) -> None:
    name = parse_name(key)
    if name is not None and name.sha256 != digest:
        raise BlobDamaged("it is not what was put there, and is not copied")
