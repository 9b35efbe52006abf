"""What every blob store must do. A test file brings the fixtures `store`, empty, and
`more_than_a_run`, and imports these."""

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from mailyard.core.ids import uuid7
from mailyard.storage.blob import (
    BlobDamaged,
    BlobMissing,
    BlobStore,
    Stored,
    check,
    name_for,
    parse_name,
)

LARGE = os.urandom(11 * 1024 * 1024)  # more than S3 takes in one part


def a_key(content: bytes = b"content") -> str:
    return str(name_for(uuid7(), 7, uuid7(), content))


async def listed(store: BlobStore, prefix: str = "") -> list[Stored]:
    return [one async for run in store.list(prefix) for one in run]


async def in_pieces(content: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        await asyncio.sleep(0)
        yield content[start : start + size]


@pytest.mark.parametrize("content", [b"", b"x", LARGE], ids=["empty", "small", "large"])
async def test_what_was_put_is_there_until_it_is_deleted(store: BlobStore, content: bytes) -> None:
    key = a_key(content)
    await store.put(key, content)
    assert await store.get(key) == content
    assert await store.size_bytes(key) == len(content)
    [one] = await listed(store)
    assert (one.key, one.size_bytes) == (key, len(content))
    assert abs(one.modified_at - datetime.now(UTC)) < timedelta(minutes=5)
    await store.delete([key, a_key()])  # one that is not there is passed over
    assert await store.size_bytes(key) is None
    assert await listed(store) == []


async def test_a_blob_goes_in_and_out_in_pieces(store: BlobStore) -> None:
    key = a_key(LARGE)
    await store.put(key, in_pieces(LARGE, 1_000_003))
    pieces = [piece async for piece in await store.stream(key)]
    assert len(pieces) > 1
    assert check(key, b"".join(pieces)) == LARGE


async def test_the_beginning_of_a_blob_is_read_alone(store: BlobStore) -> None:
    key = a_key()
    await store.put(key, b"content")
    assert await store.get(key, 4) == b"cont"
    assert await store.get(key, 100) == b"content"


async def test_what_is_put_again_is_replaced(store: BlobStore) -> None:
    key = a_key()
    await store.put(key, b"first")
    await store.put(key, b"second")
    assert await store.get(key) == b"second"
    assert len(await listed(store)) == 1


async def test_what_is_not_there_is_said_to_be_missing(store: BlobStore) -> None:
    key = a_key()
    with pytest.raises(BlobMissing):
        await store.get(key)
    with pytest.raises(BlobMissing):
        await store.get(key, 10)
    with pytest.raises(BlobMissing):
        await store.stream(key)
    assert await store.size_bytes(key) is None
    assert await listed(store) == []


async def test_a_put_that_breaks_off_leaves_no_blob(store: BlobStore) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield LARGE
        raise RuntimeError("the peer is gone")

    key = a_key()
    with pytest.raises(Exception, match="gone"):
        await store.put(key, broken())
    assert await store.size_bytes(key) is None
    assert await listed(store) == []


async def test_lists_go_by_what_a_key_begins_with(store: BlobStore) -> None:
    workspace, other = uuid7(), uuid7()
    keys = {
        str(name_for(one, days, uuid7(), b"x")): (one, days)
        for one in (workspace, other)
        for days in (7, 0)
        for _ in range(3)
    }
    for key in keys:
        await store.put(key, b"x")
    mine = {key for key, whose in keys.items() if whose[0] == workspace}
    kept = {key for key, whose in keys.items() if whose == (workspace, 0)}
    assert {one.key for one in await listed(store)} == keys.keys()
    assert {one.key for one in await listed(store, f"{workspace}/")} == mine
    assert {one.key for one in await listed(store, f"{workspace}/kept/")} == kept
    await store.delete(list(mine))
    assert {one.key for one in await listed(store)} == keys.keys() - mine


async def test_more_are_listed_and_deleted_than_one_run_holds(
    store: BlobStore, more_than_a_run: int
) -> None:
    keys = [a_key() for _ in range(more_than_a_run)]
    await asyncio.gather(*(store.put(key, b"x") for key in keys))
    assert {one.key for one in await listed(store)} == set(keys)
    await store.delete(keys)
    assert await listed(store) == []


def test_a_name_says_whose_it_is_and_proves_what_it_names() -> None:
    workspace, owner = uuid7(), uuid7()
    for days in (1, 400, 0):
        name = name_for(workspace, days, owner, b"content")
        assert parse_name(str(name)) == name
    assert str(name).startswith(f"{workspace}/kept/{name.day}/{owner}-")
    assert check(str(name), b"content") == b"content"
    with pytest.raises(BlobDamaged):
        check(str(name), b"contend")
    for no_name in ("", "backup/base.tar", str(name)[:-1], f"{name}/x", str(name).upper()):
        assert parse_name(no_name) is None


async def test_a_store_can_be_tried_and_keeps_nothing_of_it(store: BlobStore) -> None:
    await store.prepare()
    assert await listed(store) == []
