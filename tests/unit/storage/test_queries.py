"""Named queries: a file is cut at its headers, and parts stand where they are used."""

from pathlib import Path

import pytest

from mailyard.core.errors import ConfigurationError
from mailyard.storage import queries


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `load` looks for its files."""
    (tmp_path / "sql").mkdir()
    monkeypatch.setattr(queries, "files", lambda _: tmp_path)
    return tmp_path / "sql"


def test_a_file_is_cut_into_its_queries(folder: Path) -> None:
    (folder / "cut.sql").write_text(
        "-- Of no query.\n\n-- name: one\n-- What for.\nSELECT 1;\n\n-- name: two\nSELECT 2;\n"
    )
    loaded = queries.load("cut")
    assert list(loaded) == ["-- What for.\nSELECT 1", "SELECT 2"]
    assert queries.name_of(loaded.two) == "cut.two"
    with pytest.raises(AttributeError, match="no query named 'three'"):
        _ = loaded.three


def test_a_part_stands_in_each_query_that_uses_it(folder: Path) -> None:
    (folder / "parts.sql").write_text(
        "-- part: held\nheld AS (SELECT $1),\n\n"
        "-- name: one\nWITH\n-- use: held\ngone AS (SELECT 1) SELECT 1;\n"
        "-- name: two\nWITH\n-- use: held\ngone AS (SELECT 2) SELECT 2;\n"
    )
    assert list(queries.load("parts")) == [
        f"WITH\nheld AS (SELECT $1),\ngone AS (SELECT {n}) SELECT {n}" for n in (1, 2)
    ]


@pytest.mark.parametrize(
    "text",
    [
        "-- name: one\nSELECT 1;\n-- name: one\nSELECT 2;\n",
        "-- part: one\nSELECT 1\n-- name: one\nSELECT 2;\n",
        "-- name: one\n-- use: nothing\nSELECT 1;\n",
    ],
)
def test_a_file_that_contradicts_itself_is_refused(folder: Path, text: str) -> None:
    name = f"wrong{abs(hash(text))}"
    (folder / f"{name}.sql").write_text(text)
    with pytest.raises(ConfigurationError, match=rf"storage/sql/{name}\.sql"):
        queries.load(name)
