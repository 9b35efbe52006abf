"""Arguments that are written into a query arrive as what they were, and as nothing else."""

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.storage.bind import bound
from mailyard.storage.queries import Query

_QUERY = Query(
    "SELECT $2::text[] AS texts, $1::bytea[] AS blobs, $3::int[] AS numbers, $1::bytea[]"
)
_TEXTS = st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8")), max_size=5)


@pytest.mark.parametrize("conforming", ["on", "off"])
async def test_values_come_back_whatever_stands_in_them(database_url: str, conforming: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute(f"SET standard_conforming_strings = {conforming}")
    written = []

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.binary(), max_size=5), _TEXTS, st.lists(st.integers(-(2**31), 2**31 - 1)))
    def write(blobs: list[bytes], texts: list[str], numbers: list[int]) -> None:
        written.append((blobs, texts, numbers))

    write()
    written.append(([b"'\\"], ["'; SELECT 1; --", "\\'", "$1", "E'\\''"], [-1]))
    for blobs, texts, numbers in written:
        row = await connection.fetchrow(bound(_QUERY, blobs, texts, numbers))
        assert row is not None
        assert (row["blobs"], row["texts"], row["numbers"]) == (blobs, texts, numbers)
    await connection.close()


def test_nothing_is_null_and_a_text_with_nul_is_refused() -> None:
    assert bound(Query("SELECT $1::text"), None) == "SELECT NULL::text"
    with pytest.raises(ValueError, match="NUL"):
        bound(Query("SELECT $1::text"), "a\0b")
