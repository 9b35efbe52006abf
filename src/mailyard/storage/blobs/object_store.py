"""Blobs in an object store through obstore: S3 and what speaks like it (R2, MinIO), GCS, Azure.

    s3://bucket/prefix?region=eu-central-1
    s3://KEY:SECRET@bucket?endpoint=https://ACCOUNT.r2.cloudflarestorage.com&region=auto
    gs://bucket/prefix?service_account=/etc/mailyard/gcs.json
    az://container/prefix?account_name=…

What stands behind `?` is obstore's own configuration of that store, and `allow_http=true` for one
without TLS; without credentials in the
address they come from the environment or the machine's role, as its clients are used to
(https://developmentseed.org/obstore/latest/authentication/). A single PUT carries the hash of its
content in the signature, so the store checks what arrived (AWS, Signature Version 4).
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from mailyard.core.errors import ConfigurationError
from mailyard.storage.blob import BlobMissing, BlobsAway, Stored, parse_name, try_out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from obstore.store import AzureStore, GCSStore, S3Store

_PIECE_BYTES = 1 << 20
_RUN = 1_000  # what S3 lists, and deletes, in one request
_CONNECT_S = 3.0
_REQUEST_S = 30.0
_TRIES_MORE = 3
_TRIES_WITHIN_S = 10.0
_PRESIGNED_MOST_S = 7 * 86_400.0  # S3's own limit
_TOLD_CHARACTERS = 300

# What stands before the @ of an address, in the words of each store.
_CREDENTIALS = {
    "s3": ("access_key_id", "secret_access_key"),
    "az": ("account_name", "account_key"),
}


class ObjectStoreBlobs:
    """A bucket, or what begins with a prefix in it, as a `BlobStore`.

    Raises ConfigurationError for an address that cannot be one, and where the extra is missing.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._where = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
        try:
            import obstore
            from obstore.exceptions import BaseError
        except ImportError:
            raise ConfigurationError(
                "blobs in an object store need the extra: pip install 'mailyard[fleet]'"
            ) from None
        self._obstore = obstore
        self._errors = (BaseError, OSError, TimeoutError)
        try:
            self._store = _store_of(parts)
        except (BaseError, ValueError) as error:
            raise ConfigurationError(f"{self._where} is no store: {_short(error)}") from None

    async def put(self, key: str, content: bytes | AsyncIterator[bytes]) -> None:
        try:
            with self._told(key):
                await self._obstore.put_async(self._store, key, content, attributes=_told_with(key))
        except BlobMissing as error:  # the bucket
            raise BlobsAway(f"{self._where} is not there: {error.message}") from None

    async def get(self, key: str, first_bytes: int | None = None) -> bytes:
        with self._told(key):
            if first_bytes is not None:
                found = await self._obstore.get_range_async(
                    self._store, key, start=0, end=first_bytes
                )
                return bytes(found)
            answer = await self._obstore.get_async(self._store, key)
            return bytes(await answer.bytes_async())

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        with self._told(key):
            answer = await self._obstore.get_async(self._store, key)

        async def pieces() -> AsyncIterator[bytes]:
            with self._told(key):
                async for piece in answer.stream(min_chunk_size=_PIECE_BYTES):
                    yield bytes(piece)

        return pieces()

    async def size_bytes(self, key: str) -> int | None:
        try:
            with self._told(key):
                return int((await self._obstore.head_async(self._store, key))["size"])
        except BlobMissing:
            return None

    async def delete(self, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), _RUN):
            some = list(keys[start : start + _RUN])
            try:
                with self._told(self._where):
                    await self._obstore.delete_async(self._store, some)
            except BlobMissing:  # a store that deletes one by one minds
                for key in some:
                    await self._delete_one(key)

    async def _delete_one(self, key: str) -> None:
        try:
            with self._told(key):
                await self._obstore.delete_async(self._store, key)
        except BlobMissing:
            return

    async def list(self, prefix: str = "") -> AsyncIterator[Sequence[Stored]]:
        with self._told(prefix):
            async for run in self._obstore.list(self._store, prefix or None, chunk_size=_RUN):
                yield [Stored(one["path"], one["size"], one["last_modified"]) for one in run]

    async def presign(self, key: str, seconds: float) -> str | None:
        with self._told(key):
            expires_in = timedelta(seconds=min(seconds, _PRESIGNED_MOST_S))
            return await self._obstore.sign_async(self._store, "GET", key, expires_in)

    async def prepare(self) -> None:
        await try_out(self)

    async def close(self) -> None:
        return None

    @contextmanager
    def _told(self, key: str) -> "Iterator[None]":
        """What goes wrong inside, in the port's words."""
        try:
            yield
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise BlobsAway(f"{self._where} is not there: it has no such bucket") from None
            raise BlobMissing(f"there is no blob {key} in {self._where}") from None
        except self._errors as error:
            raise BlobsAway(f"{self._where}: {_short(error)}") from error


def _told_with(key: str) -> dict[str, str] | None:
    """What the store says of a blob to who downloads it by a link: a file to be kept, under its
    owner's name, and nothing that a browser shows by itself as a page of the store's own site."""
    name = parse_name(key)
    if name is None:
        return None
    return {
        "Content-Type": "application/octet-stream",
        "Content-Disposition": f'attachment; filename="{name.owner_id}.eml"',
        "Cache-Control": "private, no-store",
    }


def _store_of(parts: SplitResult) -> "S3Store | GCSStore | AzureStore":
    """obstore's own object. Raises ValueError and obstore's errors."""
    from obstore.store import AzureStore, GCSStore, S3Store

    config: dict[str, Any] = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    if parts.username is not None:
        words = _CREDENTIALS.get(parts.scheme)
        if words is None:
            raise ValueError("its credentials stand in a file: ?service_account=FILE")
        for word, value in zip(words, (parts.username, parts.password), strict=True):
            if value is not None:
                config[word] = unquote(value)
    if not parts.hostname:
        raise ValueError("it names no bucket")
    endpoint = config.get("endpoint", "")
    if endpoint and parts.scheme == "s3":  # bucket.127.0.0.1 is no name
        config.setdefault("virtual_hosted_style_request", "false")
        config.setdefault("region", "us-east-1")
    # The bucket as it is written: a host's name is lower case to urlsplit.
    bucket = parts.netloc.rpartition("@")[2]
    plain = config.pop("allow_http", "") == "true" or endpoint.startswith("http://")
    shared: Mapping[str, Any] = {
        "prefix": unquote(parts.path).strip("/") or None,
        "config": config,
        "client_options": {
            "allow_http": plain or config.get("use_emulator") == "true",
            "connect_timeout": timedelta(seconds=_CONNECT_S),
            "timeout": timedelta(seconds=_REQUEST_S),
            "user_agent": "mailyard",
        },
        "retry_config": {
            "max_retries": _TRIES_MORE,
            "retry_timeout": timedelta(seconds=_TRIES_WITHIN_S),
        },
    }
    if parts.scheme == "s3":
        return S3Store(bucket, **shared)
    if parts.scheme == "gs":
        return GCSStore(bucket, **shared)
    return AzureStore(bucket, **shared)


def _short(error: BaseException) -> str:
    """The first line: what follows is the driver's own state."""
    text = str(error) or type(error).__name__
    return text.splitlines()[0][:_TOLD_CHARACTERS]
