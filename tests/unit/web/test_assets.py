"""Scripts and styles under names that hold their content's hash."""

import gzip
from pathlib import Path

import brotli
import pytest
import zstandard
from litestar.exceptions import NotFoundException

from mailyard.web.ui.asset import Assets


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "vendor").mkdir()
    (tmp_path / "app.css").write_text("a { color: red }\n" * 200)
    (tmp_path / "vendor/small.min.js").write_text("1")
    return tmp_path


def test_a_name_changes_with_the_content_and_not_else(folder: Path) -> None:
    before = Assets(folder).url("app.css")
    assert Assets(folder).url("app.css") == before
    assert before.startswith("/static/app.") and before.endswith(".css")
    (folder / "app.css").write_text("a { color: blue }")
    assert Assets(folder).url("app.css") != before


def test_what_has_the_hash_in_its_name_is_kept_for_ever(folder: Path) -> None:
    assets = Assets(folder)
    answer = assets.answer(assets.url("vendor/small.min.js").removeprefix("/static/"), {})
    assert answer.content == b"1"
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    plain = assets.answer("vendor/small.min.js", {})
    assert plain.content == b"1" and plain.headers["cache-control"] == "public, no-cache"


def test_large_ones_come_compressed_to_who_takes_it(folder: Path) -> None:
    assets = Assets(folder)
    plain = (folder / "app.css").read_bytes()
    for accepted, coding, unpack in (
        ("gzip, deflate, br, zstd", "br", brotli.decompress),
        ("gzip, zstd", "zstd", zstandard.ZstdDecompressor().decompress),
        ("gzip;q=1.0, br;q=0", "gzip", gzip.decompress),
    ):
        packed = assets.answer("app.css", {"accept-encoding": accepted})
        assert packed.headers["content-encoding"] == coding
        assert packed.headers["vary"] == "accept-encoding"
        assert unpack(packed.content) == plain
    assert assets.answer("app.css", {}).content == (folder / "app.css").read_bytes()
    small = assets.answer("vendor/small.min.js", {"accept-encoding": "gzip"})
    assert "content-encoding" not in small.headers


def test_who_has_it_is_told_so(folder: Path) -> None:
    assets = Assets(folder)
    tag = assets.answer("app.css", {}).headers["etag"]
    assert assets.answer("app.css", {"if-none-match": tag}).status_code == 304


@pytest.mark.parametrize("name", ["app.000000000000.css", "../asset.py", "none.js", ""])
def test_nothing_else_is_there(folder: Path, name: str) -> None:
    with pytest.raises(NotFoundException):
        Assets(folder).answer(name, {})


def test_a_file_that_was_not_fetched_has_its_plain_name(folder: Path) -> None:
    assert Assets(folder).url("vendor/none.js") == "/static/vendor/none.js"


def test_what_lies_there_compressed_is_given_and_no_page_finds_it_by_name(folder: Path) -> None:
    digest = Assets(folder).url("app.css").split(".")[1]
    (folder / "vendor/packed").mkdir()
    (folder / f"vendor/packed/{digest}.br").write_bytes(b"packed before")
    assets = Assets(folder)
    assert assets.answer("app.css", {"accept-encoding": "br"}).content == b"packed before"
    with pytest.raises(NotFoundException):
        assets.answer(f"vendor/packed/{digest}.br", {})
