"""Blobs in a folder of this machine, or of a file server that all machines share.

A blob is written beside its place, brought to the disk and renamed into it, and then the folders
that name it are brought to the disk: after a power failure it is there whole, or not at all. Empty
folders go with their last blob.

A folder is one of blobs when it holds the file MARK, which `prepare` makes and nothing else does: a
file server that is not mounted leaves an empty folder, or none, and neither is written to.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from mailyard.core.errors import ConfigurationError
from mailyard.storage.blob import UNFINISHED, BlobMissing, BlobsAway, Stored, try_out

MARK = ".mailyard-blobs"
_PIECE_BYTES = 1 << 20
_RUN = 1_000
_TRIES = 5  # to open a file in a folder that somebody empties at this moment

Found = TypeVar("Found")


class FolderBlobs:
    """A folder as a `BlobStore`.

    Raises ConfigurationError for a relative path.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_absolute():
            raise ConfigurationError(f"the folder of blobs is an absolute path, not {folder}")
        self._folder = folder

    async def put(self, key: str, content: bytes | AsyncIterator[bytes]) -> None:
        place = self._place(key)
        beside = place.with_name(f"{UNFINISHED}{uuid4().hex}")
        await asyncio.to_thread(self._see_mark)
        try:
            descriptor = await asyncio.to_thread(_open_new, beside)
            try:
                if isinstance(content, bytes):
                    await asyncio.to_thread(_write, descriptor, content)
                else:
                    async for piece in content:
                        await asyncio.to_thread(_write, descriptor, piece)
                await asyncio.to_thread(os.fsync, descriptor)
            finally:
                os.close(descriptor)
            await asyncio.to_thread(self._put_in_place, beside, place)
        except OSError as error:
            raise BlobsAway(f"{self._folder} takes no blob: {error.strerror or error}") from error
        finally:
            with suppress(OSError):  # in its place by now, or in a folder that is away
                beside.unlink()

    def _put_in_place(self, beside: Path, place: Path) -> None:
        beside.rename(place)
        for folder in place.parents:
            _bring_to_disk(folder)
            if folder == self._folder:
                break

    async def get(self, key: str, first_bytes: int | None = None) -> bytes:
        place = self._place(key)

        def read() -> bytes:
            with place.open("rb") as file:
                return file.read(-1 if first_bytes is None else first_bytes)

        return await asyncio.to_thread(self._told, key, read)

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        place = self._place(key)
        file = await asyncio.to_thread(self._told, key, lambda: place.open("rb"))

        async def pieces() -> AsyncIterator[bytes]:
            with file:
                piece = partial(file.read, _PIECE_BYTES)
                while some := await asyncio.to_thread(self._told, key, piece):
                    yield some

        return pieces()

    async def size_bytes(self, key: str) -> int | None:
        try:
            status = await asyncio.to_thread(self._told, key, self._place(key).stat)
        except BlobMissing:
            return None
        return status.st_size

    async def delete(self, keys: Sequence[str]) -> None:
        await asyncio.to_thread(self._delete, keys)

    def _delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            place = self._place(key)
            with suppress(BlobMissing):
                self._told(key, place.unlink)
            for folder in place.parents:
                if folder == self._folder:
                    break
                try:
                    folder.rmdir()
                except OSError:  # it holds others, or is gone already
                    break

    async def list(self, prefix: str = "") -> AsyncIterator[Sequence[Stored]]:
        await asyncio.to_thread(self._see_mark)
        walk = self._walk(self._folder / prefix)

        def run() -> list[Stored]:
            return list(islice(walk, _RUN))

        while some := await asyncio.to_thread(run):
            yield some

    def _walk(self, folder: Path) -> Iterator[Stored]:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except FileNotFoundError:
            return
        except OSError as error:
            raise BlobsAway(f"{folder} cannot be listed: {error.strerror}") from error
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from self._walk(Path(entry.path))
                continue
            with suppress(FileNotFoundError):  # it went meanwhile
                status = entry.stat(follow_symlinks=False)
                key = str(Path(entry.path).relative_to(self._folder))
                if key == MARK:
                    continue
                yield Stored(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))

    async def presign(self, key: str, seconds: float) -> str | None:  # noqa: ARG002
        return None

    async def prepare(self) -> None:
        def make() -> None:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / MARK).touch()
            _bring_to_disk(self._folder)

        try:
            await asyncio.to_thread(make)
        except OSError as error:
            raise BlobsAway(f"{self._folder} cannot be made: {error.strerror}") from error
        await try_out(self)

    async def close(self) -> None:
        return None

    def _see_mark(self) -> None:
        try:
            (self._folder / MARK).stat()
        except OSError:
            raise BlobsAway(
                f"{self._folder} is no folder of blobs (it has no {MARK}): is it mounted? A new "
                "one is made by `mailyard blobs prepare`"
            ) from None

    def _told(self, key: str, read: Callable[[], Found]) -> Found:
        """What `read` finds, or why not in the port's words."""
        try:
            return read()
        except (FileNotFoundError, NotADirectoryError):
            self._see_mark()
            raise BlobMissing(f"there is no blob {key} in {self._folder}") from None
        except OSError as error:
            raise BlobsAway(f"{self._folder} cannot be read: {error.strerror}") from error

    def _place(self, key: str) -> Path:
        parts = key.split("/")
        if not all(parts) or ".." in parts or "." in parts or "\0" in key:
            raise BlobMissing(f"{key!r} is no name of a blob")
        return self._folder.joinpath(*parts)


def _open_new(file: Path) -> int:
    for _ in range(_TRIES):
        file.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # its folder has gone with the last blob just now
            return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    raise FileNotFoundError(f"{file.parent} goes as soon as it is made")


def _write(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _bring_to_disk(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
