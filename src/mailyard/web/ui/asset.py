"""The pages' scripts, styles and pictures: each under a name that has its content's hash in it.

What a name with the right hash gives never changes, so browsers and CDNs may keep it for ever
(RFC 8246); the plain name gives the same and is asked for again each time. They are few and small:
all are read at the start. They lie there compressed already (`tools/assets.py` packs them, under
the hash of what they hold); one that has changed since is packed by whoever first wants it so.
"""

from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

from litestar import Request, Response, get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from mailyard.web.coding import BROTLI, GZIP, ZSTD, choose, pack

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
OFFERED = (BROTLI, ZSTD, GZIP)  # the smallest first: they are packed once
PACKED = "vendor/packed"


class Asset:
    """One file. `name` is its path below the folder, `url` the one that may be kept."""

    def __init__(self, name: str, content: bytes, packed: Path | None = None) -> None:
        """`packed`: the folder in which it lies compressed."""
        self.content = content
        self._folder = packed
        self._packed: dict[str, bytes | None] = {}
        self.digest = sha256(content).hexdigest()[:_HASH_CHARACTERS]
        stem, dot, suffix = name.rpartition(".")
        self.hashed = f"{stem}.{self.digest}{dot}{suffix}"
        self.url = _FOLDER + self.hashed
        self.media_type = _KINDS.get(dot + suffix, "application/octet-stream")

    def compressed(self, coding: str) -> bytes | None:
        """In a coding; None where that is not worth it."""
        if len(self.content) < _WORTH_BYTES:
            return None
        if coding not in self._packed:
            file = None if self._folder is None else self._folder / f"{self.digest}.{coding}"
            ready = file is not None and file.exists()
            packed = file.read_bytes() if ready and file else pack(coding, self.content, once=True)
            worth = len(packed) < 0.9 * len(self.content)
            self._packed[coding] = packed if worth else None
        return self._packed[coding]


class Assets:
    """All files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._by_name = {
            file.relative_to(folder).as_posix(): Asset(
                file.relative_to(folder).as_posix(), file.read_bytes(), folder / PACKED
            )
            for file in sorted(folder.rglob("*"))
            if file.is_file() and not file.is_relative_to(folder / PACKED)
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
        coding = choose(headers.get("accept-encoding", ""), OFFERED)
        packed = None if coding is None else asset.compressed(coding)
        if coding is not None and packed is not None:
            content = packed
            given["content-encoding"] = coding
        return Response(content, media_type=asset.media_type, headers=given)


ASSETS = Assets(Path(str(files("mailyard.web.ui") / "static")))


@get(_FOLDER + "{name:path}", include_in_schema=False)
async def give_asset(name: FromPath[Path], request: Request[Any, Any, Any]) -> Response[bytes]:
    """A script, style or picture of the pages."""
    return ASSETS.answer(str(name).lstrip("/"), dict(request.headers))
