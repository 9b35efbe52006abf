"""The pages' scripts, styles and pictures: each under a name that has its content's hash in it.

What a name with the right hash gives never changes, so browsers and CDNs may keep it for ever
(RFC 8246); the plain name gives the same and is asked for again each time. They are few and small:
all are read at the start, and compressed once, by whoever first wants them so.
"""

import gzip
from functools import cached_property
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

from litestar import Request, Response, get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

_FOLDER = "/static/"
_KINDS = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".map": "application/json",
    ".json": "application/json",
}
_FOR_EVER = "public, max-age=31536000, immutable"
_ASK_AGAIN = "public, no-cache"
_HASH_CHARACTERS = 12
_WORTH_BYTES = 1024  # smaller ones gain nothing from compression


class Asset:
    """One file. `name` is its path below the folder, `url` the one that may be kept."""

    def __init__(self, name: str, content: bytes) -> None:
        self.content = content
        self.digest = sha256(content).hexdigest()[:_HASH_CHARACTERS]
        stem, dot, suffix = name.rpartition(".")
        self.hashed = f"{stem}.{self.digest}{dot}{suffix}"
        self.url = _FOLDER + self.hashed
        self.media_type = _KINDS.get(dot + suffix, "application/octet-stream")

    @cached_property
    def compressed(self) -> bytes | None:
        """By gzip; None where that is not worth it."""
        if len(self.content) < _WORTH_BYTES:
            return None
        packed = gzip.compress(self.content, 9, mtime=0)
        return packed if len(packed) < 0.9 * len(self.content) else None


class Assets:
    """All files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._by_name = {
            file.relative_to(folder).as_posix(): Asset(
                file.relative_to(folder).as_posix(), file.read_bytes()
            )
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        }
        self._by_hashed = {asset.hashed: asset for asset in self._by_name.values()}

    def url(self, name: str) -> str:
        """Where a page finds `name`; one that is not there (fetched by `make install`) by its plain
        name, so that the page stands without it."""
        asset = self._by_name.get(name)
        return _FOLDER + name if asset is None else asset.url

    def answer(self, name: str, headers: "dict[str, str]") -> Response[bytes]:
        """The file behind a name, plain or hashed. Raises NotFoundException."""
        asset = self._by_hashed.get(name)
        kept = _FOR_EVER if asset is not None else _ASK_AGAIN
        asset = asset or self._by_name.get(name)
        if asset is None:
            raise NotFoundException("There is no such file.")
        tag = f'"{asset.digest}"'
        given = {
            "cache-control": kept,
            "etag": tag,
            "vary": "accept-encoding",
            "x-content-type-options": "nosniff",
        }
        if tag in headers.get("if-none-match", ""):
            return Response(b"", status_code=304, headers=given)
        content = asset.content
        if "gzip" in headers.get("accept-encoding", "") and asset.compressed is not None:
            content = asset.compressed
            given["content-encoding"] = "gzip"
        return Response(content, media_type=asset.media_type, headers=given)


ASSETS = Assets(Path(str(files("mailyard.web.ui") / "static")))


@get(_FOLDER + "{name:path}", include_in_schema=False)
async def give_asset(name: FromPath[Path], request: Request[Any, Any, Any]) -> Response[bytes]:
    """A script, style or picture of the pages."""
    return ASSETS.answer(str(name).lstrip("/"), dict(request.headers))
