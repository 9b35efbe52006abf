"""A store is copied into another while both are in use."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from blob_cases import a_key, listed

from mailyard.core.ids import uuid7
from mailyard.storage.blob import BlobMissing, BlobsAway, name_for
from mailyard.storage.blob_copy import BlobCopy, count
from mailyard.storage.blobs import folder as folder_module
from mailyard.storage.blobs.folder import FolderBlobs
from mailyard.storage.blobs.moving import MovingBlobs

WORKSPACE = uuid7()


async def folder(place: Path) -> FolderBlobs:
    store = FolderBlobs(place)
    await store.prepare()
    return store


@pytest.fixture
async def old(tmp_path: Path) -> FolderBlobs:
    return await folder(tmp_path / "old")


@pytest.fixture
async def new(tmp_path: Path) -> FolderBlobs:
    return await folder(tmp_path / "new")


async def fill(store: FolderBlobs, blobs: int) -> dict[str, bytes]:
    contents = [os.urandom(100 + number) for number in range(blobs)]
    filled = {str(name_for(WORKSPACE, 7 * (n % 2), uuid7(), c)): c for n, c in enumerate(contents)}
    for key, content in filled.items():
        await store.put(key, content)
    return filled


class Breaking:
    """A store that is gone after some reads."""

    def __init__(self, store: FolderBlobs, reads: int) -> None:
        self._store = store
        self._reads = reads

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def get(self, key: str, first_bytes: int | None = None) -> bytes:
        self._reads -= 1
        if self._reads < 0:
            raise BlobsAway("gone")
        return await self._store.get(key, first_bytes)


async def test_a_copy_that_broke_off_goes_on_where_it_was(
    old: FolderBlobs, new: FolderBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "_RUN", 7)
    filled = await fill(old, 40)
    with pytest.raises(BlobsAway, match="again"):
        await BlobCopy(Breaking(old, 17), new, patience_s=0.0).run()  # type: ignore[arg-type]
    had = len(await listed(new))
    assert 0 < had <= 17
    heard: list[int] = []
    copied = await BlobCopy(old, new).run(lambda now: heard.append(now.seen))
    assert (copied.blobs, copied.already_there, copied.failed) == (40 - had, had, 0)
    assert heard[-1] == 40
    assert await count(new) == await count(old)
    for key, content in filled.items():
        assert await new.get(key) == content
    again = await BlobCopy(old, new).run()
    assert (again.blobs, again.already_there) == (0, 40)


async def test_a_store_that_is_away_for_a_moment_is_waited_for(
    old: FolderBlobs, new: FolderBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled = await fill(old, 5)
    put, away = new.put, set(filled)

    async def at_the_second_try(key: str, content: bytes) -> None:
        if key in away:
            away.remove(key)
            raise BlobsAway("gone")
        await put(key, content)

    monkeypatch.setattr(new, "put", at_the_second_try)
    assert (await BlobCopy(old, new).run()).blobs == 5
    assert {one.key for one in await listed(new)} == filled.keys()


async def test_what_is_damaged_is_told_and_not_copied(
    old: FolderBlobs, new: FolderBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled = list(await fill(old, 3))
    (tmp_path / "old" / filled[0]).write_bytes(b"x")
    for whole_bytes in (1 << 20, 0):  # held whole, and in pieces
        monkeypatch.setattr("mailyard.storage.blob_copy._WHOLE_BYTES", whole_bytes)
        copied = await BlobCopy(old, new).run()
        assert copied.failed == 1
        assert filled[0] in copied.failures[0]
        assert {one.key for one in await listed(new)} == set(filled[1:])


async def test_what_a_store_takes_otherwise_than_it_was_given_is_told(
    old: FolderBlobs, new: FolderBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(old, 1)
    put = new.put

    async def damaging(key: str, content: bytes | AsyncIterator[bytes]) -> None:
        assert isinstance(content, bytes)
        await put(key, bytes(reversed(content)))

    monkeypatch.setattr(new, "put", damaging)
    copied = await BlobCopy(old, new).run()
    assert (copied.blobs, copied.failed) == (0, 1)
    assert await listed(new) == []


@pytest.mark.parametrize("moment", ["before it is read", "before it is looked at again"])
async def test_what_is_deleted_meanwhile_does_not_come_back(
    old: FolderBlobs, new: FolderBlobs, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    [gone, stays] = await fill(old, 2)
    moving = MovingBlobs(new, old)
    name = "get" if moment == "before it is read" else "size_bytes"
    use = getattr(old, name)

    async def too_late(key: str, *rest: int) -> object:
        if key == gone:
            await moving.delete([gone])
        return await use(key, *rest)

    monkeypatch.setattr(old, name, too_late)
    copied = await BlobCopy(old, new).run()
    assert (copied.blobs, copied.deleted_meanwhile) == (1, 1)
    assert [one.key for one in await listed(new)] == [stays]


async def test_while_it_moves_everything_is_read_and_deleted(
    old: FolderBlobs, new: FolderBlobs
) -> None:
    moving = MovingBlobs(new, old)
    [before] = await fill(old, 1)
    since = a_key()
    await moving.put(since, b"content")
    assert [one.key for one in await listed(old)] == [before], "new ones go to the new store"
    for key, content in ((before, await old.get(before)), (since, b"content")):
        assert await moving.get(key) == content
        assert await moving.size_bytes(key) == len(content)
        assert b"".join([piece async for piece in await moving.stream(key)]) == content
    assert {one.key for one in await listed(moving)} == {before, since}
    await moving.delete([before, since])
    with pytest.raises(BlobMissing):
        await moving.get(before)
    assert await listed(old) == await listed(new) == []
