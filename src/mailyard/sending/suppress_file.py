"""Suppressions as a CSV file: brought in from another system, line by line, and taken out.

A file is read as it comes and goes in by thousands, so neither its size nor a bad line matters to
the good ones: a bad line costs itself, and is named with its number and what is wrong. Bringing a
file in again changes nothing twice.

Columns are found by their names: `address` (or `email`, `recipient`), and where there are such,
`stream`, `reason`, `evidence`. A file without a header has the address in its first column.
"""

import csv
import io
import re
from codecs import getincrementaldecoder
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from mailyard.core.errors import InvalidInput, MailyardError
from mailyard.protocol.address import normalise
from mailyard.sending.suppress import (
    Reason,
    Stop,
    Suppression,
    Suppressions,
    check_reason,
    check_stream,
)
from mailyard.storage.database import Connection, Database

LINE_CHARACTERS = 16_000
ERRORS_MAX = 1_000  # that are told; the others are counted
_BATCH = 2_000
_ERROR_CHARACTERS = 200
_ADDRESS = ("address", "email", "e-mail", "email address", "emailaddress", "recipient")
_EVIDENCE = ("evidence", "description", "details", "error", "bounce reason")
# How other systems' exports call the reasons (SendGrid, Postmark, Mailgun, SES, Mailchimp).
_REASONS = {
    "": None,
    "bounce": Reason.HARD_BOUNCE,
    "bounced": Reason.HARD_BOUNCE,
    "hardbounce": Reason.HARD_BOUNCE,
    "permanent": Reason.HARD_BOUNCE,
    "spam": Reason.COMPLAINT,
    "spamcomplaint": Reason.COMPLAINT,
    "spamreport": Reason.COMPLAINT,
    "complained": Reason.COMPLAINT,
    "complaints": Reason.COMPLAINT,
    "unsubscribe": Reason.UNSUBSCRIBED,
    "manualsuppression": Reason.UNSUBSCRIBED,
    "manual": Reason.BY_HAND,
}
_FORMULA = re.compile(r"[=+\-@\t\r]")
HEADER = ("address", "stream", "reason", "source", "evidence", "created_at")

Witness = Callable[[int, Connection], Awaitable[None]]
"""Called with how many addresses a batch adds, in the transaction that adds them."""


@dataclass(frozen=True, slots=True)
class LineError:
    """A line that did not go in. Lines count from 1."""

    line: int
    reason: str
    text: str


@dataclass(slots=True)
class Imported:
    """What became of a file: lines with an address, those that are new, those that stood, bad."""

    lines: int = 0
    added: int = 0
    stood: int = 0
    rejected: int = 0
    errors: list[LineError] = field(default_factory=list)

    def reject(self, line: int, reason: str, text: str) -> None:
        self.rejected += 1
        if len(self.errors) < ERRORS_MAX:
            self.errors.append(LineError(line, reason, text[:_ERROR_CHARACTERS]))


class SuppressionFiles:
    """Brings files in and takes them out."""

    def __init__(self, *, database: Database, suppressions: Suppressions) -> None:
        self._database = database
        self._suppressions = suppressions

    async def bring_in(
        self,
        workspace_id: UUID,
        pieces: AsyncIterator[bytes],
        *,
        source: str,
        stream: str,
        reason: str,
        witness: Witness,
    ) -> Imported:
        """`stream` and `reason` are for lines that name none. Raises InvalidInput for those, and
        what reading the pieces raises; what had gone in by then stays."""
        check_stream(stream)
        check_reason(reason)
        done = Imported()
        reader = _Reader(workspace_id, source, stream, Reason(reason), done)
        waiting: list[Stop] = []
        async for piece in pieces:
            waiting += reader.feed(piece)
            while len(waiting) >= _BATCH:
                await self._write(waiting[:_BATCH], done, witness)
                waiting = waiting[_BATCH:]
        waiting += reader.end()
        if waiting:
            await self._write(waiting, done, witness)
        return done

    async def take_out(self, workspace_id: UUID) -> AsyncIterator[bytes]:
        """The whole list as CSV (UTF-8), in pieces. A spreadsheet would run a cell that begins like
        a formula; such cells get a quote in front."""
        yield _lines([HEADER])
        async for page in self._suppressions.every(workspace_id):
            yield _lines([_row(one) for one in page])

    async def _write(self, stops: Sequence[Stop], done: Imported, witness: Witness) -> None:
        async with self._database.transaction() as tx:
            added = await self._suppressions.stop(stops, tx)
            await witness(added, tx)
        done.added += added
        done.stood += len(stops) - added


class _Reader:
    """Lines out of bytes that come in pieces, and what each of them says."""

    def __init__(
        self, workspace_id: UUID, source: str, stream: str, reason: Reason, done: Imported
    ) -> None:
        self._workspace_id = workspace_id
        self._source = source
        self._stream = stream
        self._reason = reason
        self._done = done
        self._decoder = getincrementaldecoder("utf-8-sig")("replace")
        self._rest = ""
        self._skipping = False
        self._line = 0
        self._delimiter = ""
        self._columns: dict[str, int] = {}

    def feed(self, piece: bytes) -> list[Stop]:
        """What the lines say that are whole by now."""
        text = self._decoder.decode(piece)
        if self._skipping:  # the rest of a line that was refused
            _, newline, text = text.partition("\n")
            self._skipping = not newline
        *whole, self._rest = (self._rest + text).split("\n")
        stops = [stop for line in whole if (stop := self._read(line)) is not None]
        if len(self._rest) > LINE_CHARACTERS:
            self._refuse_long(self._rest)
            self._rest, self._skipping = "", True
        return stops

    def _refuse_long(self, line: str) -> None:
        self._line += 1
        self._done.reject(self._line, f"a line has at most {LINE_CHARACTERS} characters", line)

    def end(self) -> list[Stop]:
        """The last line may lack its end."""
        line, self._rest = self._rest + self._decoder.decode(b"", final=True), ""
        stop = self._read(line) if line else None
        return [stop] if stop is not None else []

    def _read(self, line: str) -> Stop | None:
        if len(line) > LINE_CHARACTERS:
            self._refuse_long(line)
            return None
        self._line += 1
        line = line.rstrip("\r")
        if not line.strip():
            return None
        if not self._delimiter:
            self._delimiter = max(",;\t", key=line.count)
            if self._take_header(self._cells(line)):
                return None
        try:
            stop = self._stop(self._cells(line))
        except MailyardError as error:
            self._done.reject(self._line, error.message, line)
            return None
        self._done.lines += 1
        return stop

    def _cells(self, line: str) -> list[str]:
        try:
            cells = next(csv.reader([line], delimiter=self._delimiter), [])
        except csv.Error as error:
            raise InvalidInput(f"it is no line of CSV: {error}") from None
        return [_plain(cell.strip()) for cell in cells]

    def _take_header(self, cells: Sequence[str]) -> bool:
        """Whether this first line names the columns."""
        names = [cell.lower().replace("_", " ") for cell in cells]
        address = next((names.index(name) for name in _ADDRESS if name in names), None)
        if address is None:
            self._columns = {"address": 0}
            if "@" not in (cells[0] if cells else ""):
                raise InvalidInput(
                    "the first line has neither an address nor a column named address", field="file"
                )
            return False
        self._columns = {"address": address}
        for name in ("stream", "reason"):
            if name in names:
                self._columns[name] = names.index(name)
        evidence = next((names.index(name) for name in _EVIDENCE if name in names), None)
        if evidence is not None:
            self._columns["evidence"] = evidence
        return True

    def _stop(self, cells: Sequence[str]) -> Stop:
        address = self._cell(cells, "address")
        if not address:
            raise InvalidInput("there is no address in it")
        stream = self._cell(cells, "stream") or self._stream
        check_stream(stream)
        return Stop(
            self._workspace_id,
            normalise(address),
            stream,
            self._reason_of(self._cell(cells, "reason")),
            source=self._source,
            evidence=self._cell(cells, "evidence"),
        )

    def _cell(self, cells: Sequence[str], name: str) -> str:
        at = self._columns.get(name)
        return cells[at] if at is not None and at < len(cells) else ""

    def _reason_of(self, text: str) -> Reason:
        word = re.sub(r"[ _-]", "", text.lower())
        if word in _REASONS:
            return _REASONS[word] or self._reason
        for reason in Reason:
            if word == reason.value.replace("_", ""):
                return reason
        check_reason(text)
        return Reason(text)


def _plain(cell: str) -> str:
    """A cell without the quote that stands before what looks like a formula."""
    return cell[1:] if cell[:1] == "'" and _FORMULA.match(cell[1:]) else cell


def _row(one: Suppression) -> tuple[str, ...]:
    cells = (one.address, one.stream, one.reason, one.source, one.evidence)
    return (*map(neutral, cells), one.created_at.isoformat(timespec="seconds"))


def neutral(text: str) -> str:
    """`text` as a cell that no spreadsheet runs (OWASP, "CSV Injection")."""
    return f"'{text}" if _FORMULA.match(text) else text


def _lines(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()


def told(errors: Sequence[LineError]) -> Iterator[str]:
    """The bad lines, for people."""
    for error in errors:
        yield f"line {error.line}: {error.reason}"
