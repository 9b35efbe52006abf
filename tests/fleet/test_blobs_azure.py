"""The contract of blob stores, for Azure as its own emulator has it."""

import asyncio
import urllib.error
import urllib.request
from collections.abc import Iterator
from secrets import token_hex
from urllib.parse import urlsplit

import pytest
from azure_server import AzureServer, is_installed
from blob_cases import *  # noqa: F403 (the cases)
from blob_cases import LARGE, a_key

from mailyard.storage.blob import BlobsAway, parse_name
from mailyard.storage.blobs.object_store import ObjectStoreBlobs


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureServer]:
    if not is_installed():
        pytest.skip("Azurite is not installed: tests/services/install_azurite.sh")
    running = AzureServer(tmp_path_factory.mktemp("azure"))
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.fixture
def store(server: AzureServer) -> ObjectStoreBlobs:
    """A store of its own in the container."""
    return ObjectStoreBlobs(server.url(f"blobs/{token_hex(6)}"))


@pytest.fixture
def more_than_a_run() -> int:
    return 20  # the emulator needs long for a thousand; runs are seen with S3


async def test_a_presigned_address_gives_the_blob_as_a_file(store: ObjectStoreBlobs) -> None:
    key = a_key(LARGE)
    await store.put(key, LARGE)
    address, name = await store.presign(key, 60.0), parse_name(key)
    assert address is not None
    assert name is not None

    def download(url: str) -> tuple[bytes, str]:
        with urllib.request.urlopen(url, timeout=30.0) as answer:
            return bytes(answer.read()), answer.headers["Content-Disposition"]

    content, disposition = await asyncio.to_thread(download, address)
    assert content == LARGE
    assert disposition == f'attachment; filename="{name.owner_id}.eml"'
    for wrong in (urlsplit(address)._replace(query="").geturl(), address.replace(key, a_key())):
        with pytest.raises(urllib.error.HTTPError):
            await asyncio.to_thread(download, wrong)


async def test_who_is_not_let_in_is_told_so(server: AzureServer) -> None:
    store = ObjectStoreBlobs(server.url("x", key="Z3Vlc3NlZA=="))
    with pytest.raises(BlobsAway):
        await store.get("a/b")
    with pytest.raises(BlobsAway):
        await store.prepare()
