"""Rows out of bytes, whatever the bytes are and however they are cut."""

import csv
import tracemalloc
from io import StringIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.campaigns.csv_layout import Layout
from mailyard.campaigns.csv_rows import CsvRows, Reject, Rows, is_text, not_text
from mailyard.core.limits import CSV_LINE_BYTES, MIB


def layout(encoding: str = "utf-8", delimiter: str = ",", line_end: str = "\n") -> Layout:
    return Layout(encoding, delimiter, line_end, ["address"], 0, 1)


def read(data: bytes, size: int = 1 << 20, **kind: str) -> tuple[Rows, CsvRows]:
    reader = CsvRows(layout(**kind), 0, 1)
    whole = Rows([], [])
    for start in range(0, max(len(data), 1), size):
        found = reader.feed(data[start : start + size], start + size >= len(data))
        whole.rows.extend(found.rows)
        whole.rejects.extend(found.rejects)
    return whole, reader


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
def test_rows_are_the_same_however_the_bytes_are_cut(size: int, encoding: str) -> None:
    text = 'ada@example.org,"Ada ""the first"" €"\r\n\r\n"two\nlines",😀\nlast,row'
    found, reader = read(text.encode(encoding), size, encoding=encoding)
    assert found.rows == [
        (1, ["ada@example.org", 'Ada "the first" €']),
        (3, ["two\nlines", "😀"]),
        (5, ["last", "row"]),
    ]
    assert found.rejects == []
    assert reader.offset == len(text.encode(encoding))


FIELD = st.text(st.sampled_from('ab",;\n é€ '), max_size=6)


@settings(max_examples=200, deadline=None)
@given(rows=st.lists(st.lists(FIELD, min_size=2, max_size=3), max_size=6), size=st.integers(1, 40))
def test_what_a_csv_writer_writes_is_read_back(rows: list[list[str]], size: int) -> None:
    text = StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    found, reader = read(text.getvalue().encode(), size)
    assert [fields for _, fields in found.rows] == rows
    assert found.rejects == []
    assert reader.offset == len(text.getvalue().encode())


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200), cut=st.integers(0, 200), size=st.integers(1, 50))
def test_reading_can_stop_anywhere_and_go_on_from_its_place(
    data: bytes, cut: int, size: int
) -> None:
    data = data.replace(b"\x01", b'"').replace(b"\x02", b"\n").replace(b"\x03", b",")
    uncut, _ = read(data, size)
    first = CsvRows(layout(), 0, 1)
    before = first.feed(data[:cut], False)
    second = CsvRows(layout(), first.offset, first.line)
    behind = second.feed(data[first.offset :], True)
    assert before.rows + behind.rows == uncut.rows
    assert before.rejects + behind.rejects == uncut.rejects


def test_a_quote_that_never_closes_costs_its_own_line_only() -> None:
    found, _ = read(b'a,1\n"b,2\nc,3\nd,4\n')
    assert [line for line, _ in found.rows] == [1, 3, 4]
    assert found.rejects == [Reject(2, "a quote is opened and never closed", '"b,2')]


def test_a_quote_that_closes_far_behind_is_refused_where_it_opened() -> None:
    data = b'"a,1\n' + b"b,2\n" * 100_000
    found, _ = read(data, 1 << 16)
    assert len(found.rows) == 100_000
    assert [(bad.line, "quote" in bad.reason) for bad in found.rejects] == [(1, True)]


def test_a_quote_inside_a_field_must_be_doubled() -> None:
    found, _ = read(b'"Ada "first" L",1\nb,2\n')
    assert found.rejects[0].reason == "a quote inside a field is not doubled"
    assert found.rows == [(2, ["b", "2"])]


def test_a_line_of_100_mb_is_rejected_in_bounded_memory() -> None:
    reader = CsvRows(layout(), 0, 1)
    rows: list[tuple[int, list[str]]] = []
    rejects: list[Reject] = []
    tracemalloc.start()
    found = reader.feed(b"before,1\n", False)
    rows += found.rows
    for _ in range(100):
        found = reader.feed(b"x" * MIB, False)
        rows += found.rows
        rejects += found.rejects
    assert (reader.offset, reader.line) == (9, 2)
    found = reader.feed(b"\nbehind,2\n", True)
    rows += found.rows
    rejects += found.rejects
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows == [(1, ["before", "1"]), (3, ["behind", "2"])]
    assert [(bad.line, bad.reason) for bad in rejects] == [
        (2, f"the line is longer than {CSV_LINE_BYTES:,} characters")
    ]
    assert peak_bytes < 20 * MIB
    assert reader.offset == 9 + 100 * MIB + 10


def test_a_line_without_end_at_the_end_of_the_file_is_rejected_too() -> None:
    found, reader = read(b"a,1\n" + b"y" * (3 * MIB), MIB)
    assert [bad.line for bad in found.rejects] == [2]
    assert reader.offset == 4 + 3 * MIB


def test_each_of_many_bad_rows_is_rejected() -> None:
    found, _ = read(b'"a"x,1\n' * 50_000, 1 << 18)
    assert len(found.rejects) == 50_000
    assert found.rejects[-1].line == 50_000
    assert found.rows == []


def test_foreign_bytes_in_a_utf_8_file_are_found_row_by_row() -> None:
    found, _ = read("zoë,1\n".encode() + "zoë,2\n".encode("cp1252") + b"a\0b,3\nplain,4\n")
    assert not is_text(found)
    assert [not_text(fields) for _, fields in found.rows] == [
        None,
        "the row contains bytes that are not text in the file's encoding",
        "the row contains a NUL byte",
        None,
    ]


def test_windows_1252_is_read_as_such() -> None:
    found, _ = read("zoë,€\n".encode("cp1252"), encoding="cp1252")
    assert found.rows == [(1, ["zoë", "€"])]
    assert is_text(found)


def test_lines_that_end_with_carriage_returns_alone() -> None:
    found, reader = read(b'a,1\r"b\rc",2\rd,3', line_end="\r")
    assert found.rows == [(1, ["a", "1"]), (2, ["b\rc", "2"]), (4, ["d", "3"])]
    assert reader.offset == 15


def test_half_a_character_at_the_end_of_a_utf_16_file_is_left_out() -> None:
    found, _ = read("a,1\nb,2".encode("utf-16-le") + b"\x00", encoding="utf-16-le")
    assert found.rows == [(1, ["a", "1"]), (2, ["b", "2"])]
