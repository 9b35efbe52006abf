"""The contract of blob stores, for a folder (tests/fleet has the object stores)."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from blob_cases import *  # noqa: F403 (the cases)
from blob_cases import a_key, listed

from mailyard.core.errors import ConfigurationError
from mailyard.storage.blob import UNFINISHED, BlobMissing, BlobsAway
from mailyard.storage.blobs import folder
from mailyard.storage.blobs.folder import FolderBlobs


@pytest.fixture
async def store(tmp_path: Path) -> FolderBlobs:
    found = FolderBlobs(tmp_path / "blobs")
    await found.prepare()
    return found


@pytest.fixture
def more_than_a_run(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(folder, "_RUN", 10)
    return 25


def test_the_folder_is_named_from_the_root() -> None:
    with pytest.raises(ConfigurationError, match="absolute"):
        FolderBlobs(Path("blobs"))


async def test_no_name_leads_out_of_the_folder(store: FolderBlobs, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    for key in ("../secret", "a/../../secret", "/etc/passwd", "a//b", ".", "", "a\0b"):
        with pytest.raises(BlobMissing):
            await store.get(key)
        with pytest.raises(BlobMissing):
            await store.put(key, b"x")
        with pytest.raises(BlobMissing):
            await store.delete([key])
    assert (tmp_path / "secret").read_text() == "x"


async def test_a_folder_that_is_not_mounted_is_away_and_not_empty(
    store: FolderBlobs, tmp_path: Path
) -> None:
    key = a_key()
    await store.put(key, b"x")
    (tmp_path / "blobs").rename(tmp_path / "elsewhere")
    for nothing_there in (lambda: None, (tmp_path / "blobs").mkdir):
        nothing_there()
        for use in (store.put(key, b"x"), store.get(key), store.size_bytes(key), listed(store)):
            with pytest.raises(BlobsAway, match="mounted"):
                await use
    assert list((tmp_path / "blobs").iterdir()) == []
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BlobsAway):
        await FolderBlobs(tmp_path / "file").prepare()


async def test_folders_go_with_their_last_blob(store: FolderBlobs, tmp_path: Path) -> None:
    key = a_key()
    await store.put(key, b"x")
    await store.delete([key])
    assert [one.name for one in (tmp_path / "blobs").iterdir()] == [folder.MARK]


@pytest.fixture
def died(store: FolderBlobs, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process dies before a blob gets its name."""
    monkeypatch.setattr(store, "_put_in_place", lambda *_: Path("/nowhere").stat())
    monkeypatch.setattr(Path, "unlink", lambda _: None)
    yield


@pytest.mark.usefixtures("died")
async def test_what_a_writer_left_that_died_is_listed_as_unfinished(store: FolderBlobs) -> None:
    with pytest.raises(BlobsAway):
        await store.put(a_key(), b"x")
    [left] = await listed(store)
    assert left.key.rpartition("/")[2].startswith(UNFINISHED)
