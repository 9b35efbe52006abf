"""Tables of sent mail as files: CSV as PostgreSQL and MySQL write it, or Parquet.

Both are read in runs of rows, each row with its number in the file (the line of a CSV file, the row
of a Parquet one, from 1), and neither is held whole.
"""

import csv
import gzip
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, Protocol

from mailyard.core.errors import ConfigurationError, InvalidInput
from mailyard.core.limits import MIB


@dataclass(frozen=True, slots=True)
class Broken:
    """A row that cannot be read, and why."""

    reason: str


Rows = list[tuple[int, Sequence[Any] | Broken]]

_LINE_CHARACTERS = 1 * MIB
# MySQL writes NULL as a field of \N alone; the escape that it is would make it the letter N.
_MYSQL_NULL = re.compile(r"(^|[,;\t|])\\N(?=[,;\t|]|\r?\n|$)")


class Table(Protocol):
    """A file of rows."""

    @property
    def names(self) -> Sequence[str]:
        """Its columns."""
        ...

    @property
    def size_bytes(self) -> int:
        """How much there is to read, for progress."""
        ...

    def runs(self, skip: int, rows: int) -> Iterator[Rows]:
        """Its rows without the first `skip`, in runs of up to `rows`. Raises InvalidInput."""
        ...

    def read_bytes(self) -> int:
        """How much of it has been read."""
        ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a CSV file is written. `escaped`: with backslashes, as MySQL does."""

    delimiter: str = ","
    escaped: bool = False


POSTGRESQL = Dialect()
MYSQL = Dialect("\t", escaped=True)
DIALECTS: Mapping[str, Dialect] = {
    "csv": POSTGRESQL,
    "postgresql": POSTGRESQL,
    "mysql": MYSQL,
    "mysql-csv": Dialect(",", escaped=True),
}


def open_table(file: Path, dialect: Dialect, names: Sequence[str] | None) -> Table:
    """The table in a file; `names` are those of its columns where it has no header. Raises
    InvalidInput, ConfigurationError."""
    if not file.is_file():
        raise InvalidInput(f"{file} is not a file", field="file")
    with file.open("rb") as opened:
        parquet = opened.read(4) == b"PAR1"
    return ParquetTable(file, names) if parquet else CsvTable(file, dialect, names)


class CsvTable:
    """A CSV file, packed with gzip or not."""

    def __init__(self, file: Path, dialect: Dialect, names: Sequence[str] | None) -> None:
        self._file = file
        self._dialect = dialect
        self._has_header = names is None
        self.size_bytes = file.stat().st_size
        self._opened: IO[bytes] | None = None
        if names is None:
            with self._open() as text:
                names = next(iter(self._rows(text)), [])
            names = [name.strip() for name in names]
        if not names:
            raise InvalidInput(f"{file} is empty", field="file")
        self.names: Sequence[str] = names

    def runs(self, skip: int, rows: int) -> Iterator[Rows]:
        with self._open() as text:
            lines = self._rows(text)
            if self._has_header:
                next(lines, None)
            run: Rows = []
            line = lines.line_num
            for row in _each(lines):
                # A row may hold line ends: its own line is the one after the last row's.
                began, line = line + 1, lines.line_num
                if not row:
                    continue
                if skip:
                    skip -= 1
                    continue
                run.append((began, row))
                if len(run) >= rows:
                    yield run
                    run = []
            if run:
                yield run

    def read_bytes(self) -> int:
        return self._opened.tell() if self._opened is not None and not self._opened.closed else 0

    def _open(self) -> IO[str]:
        raw = self._file.open("rb")
        self._opened = raw
        with_gzip = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        binary: Any = gzip.GzipFile(fileobj=raw) if with_gzip else raw
        return TextIOWrapper(binary, encoding="utf-8-sig", newline="", errors="surrogateescape")

    def _rows(self, text: IO[str]) -> Any:
        csv.field_size_limit(_LINE_CHARACTERS)
        dialect = self._dialect
        if not dialect.escaped:
            return csv.reader(text, delimiter=dialect.delimiter)
        return csv.reader(_without_nulls(text), delimiter=dialect.delimiter, escapechar="\\")


def _each(lines: Iterator[list[str]]) -> Iterator[list[str] | Broken]:
    """The rows. One that is broken off by an error is told, and the next is read again."""
    while True:
        try:
            yield from lines
        except csv.Error as error:
            yield Broken(str(error))
        else:
            return


def _without_nulls(lines: IO[str]) -> Iterator[str]:
    for line in lines:
        yield _MYSQL_NULL.sub(r"\1", line) if "\\N" in line else line


class ParquetTable:
    """A Parquet file."""

    def __init__(self, file: Path, names: Sequence[str] | None) -> None:
        try:
            from pyarrow import ArrowException
            from pyarrow.parquet import ParquetFile
        except ImportError:
            raise ConfigurationError(
                "Parquet needs the extra: pip install 'mailyard[fleet]'; or export the table as CSV"
            ) from None
        try:
            self._opened = ParquetFile(file)
        except (ArrowException, OSError) as error:
            raise InvalidInput(f"{file} is no Parquet file: {error}", field="file") from None
        self.names: Sequence[str] = list(names or self._opened.schema_arrow.names)
        if len(self.names) != len(self._opened.schema_arrow.names):
            raise InvalidInput(
                f"{file} has {len(self._opened.schema_arrow.names)} columns", field="columns"
            )
        self.size_bytes = file.stat().st_size
        self._rows: int = self._opened.metadata.num_rows
        self._read = 0

    def runs(self, skip: int, rows: int) -> Iterator[Rows]:
        number = 0
        for batch in self._opened.iter_batches(batch_size=rows):
            if number + batch.num_rows <= skip:
                number += batch.num_rows
                continue
            columns = [column.to_pylist() for column in batch.columns]
            run: Rows = list(enumerate(zip(*columns, strict=True), number + 1))
            number += batch.num_rows
            self._read = number
            yield [one for one in run if one[0] > skip]

    def read_bytes(self) -> int:
        return self.size_bytes * self._read // max(1, self._rows)
