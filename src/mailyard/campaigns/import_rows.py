"""From a file's rows to contacts and rejects: pure, and done in a thread beside the event loop."""

from dataclasses import dataclass

from mailyard.campaigns.contact import (
    ATTRIBUTES_BYTES,
    NAME_CHARACTERS,
    ContactColumns,
    ContactRow,
    columns,
)
from mailyard.campaigns.csv_layout import ADDRESS, NAME, Layout
from mailyard.campaigns.csv_rows import CsvRows, Reject, is_text, not_text, shown
from mailyard.core.errors import InvalidInput
from mailyard.protocol.address import normalise, parse_mailbox


@dataclass(frozen=True, slots=True)
class Piece:
    """What a piece of the file brought; reading may go on at byte `offset`, where `line` starts."""

    contacts: ContactColumns
    rows: int
    rejects: list[Reject]
    offset: int
    line: int


class RowReader:
    """Reads pieces of one file in order, from byte `offset` on, where line `line` starts."""

    def __init__(self, layout: Layout, offset: int, line: int) -> None:
        self._csv = CsvRows(layout, offset, line)
        self._delimiter = layout.delimiter
        self._width = len(layout.columns)
        self._address = layout.columns.index(ADDRESS)
        self._name = layout.columns.index(NAME) if NAME in layout.columns else None
        self._attributes = [
            (index, meaning)
            for index, meaning in enumerate(layout.columns)
            if meaning is not None and meaning not in (ADDRESS, NAME)
        ]

    def read(self, piece: bytes, final: bool) -> Piece:
        """The contacts and rejects that `piece` completes; `final` says that none follows."""
        found = self._csv.feed(piece, final)
        clean = is_text(found)
        contacts: list[ContactRow] = []
        rejects = found.rejects
        for line, fields in found.rows:
            try:
                if not clean and (reason := not_text(fields)) is not None:
                    raise InvalidInput(reason)
                contacts.append(self._contact(fields))
            except InvalidInput as error:
                if len(fields) > 1 or fields[0].strip():
                    text = shown(self._delimiter.join(fields))
                    rejects.append(Reject(line, error.message, text))
        return Piece(columns(contacts), len(contacts), rejects, self._csv.offset, self._csv.line)

    def _contact(self, fields: list[str]) -> ContactRow:
        """The contact of one row. Raises InvalidInput with the reason for its reject."""
        if len(fields) != self._width:
            raise InvalidInput(f"the row has {len(fields)} columns, the header {self._width}")
        address = fields[self._address].strip()
        name = fields[self._name].strip() if self._name is not None else ""
        if not address:
            raise InvalidInput("the address is missing")
        if address[-1] == ">":
            mailbox = parse_mailbox(address)
            name, address = name or mailbox.name, mailbox.address
        if len(name) > NAME_CHARACTERS:
            raise InvalidInput(f"the name is longer than {NAME_CHARACTERS} characters")
        if "\n" in name or "\r" in name:
            raise InvalidInput("the name contains a line break")
        attributes = {meaning: fields[index] for index, meaning in self._attributes}
        if sum(map(len, fields)) > ATTRIBUTES_BYTES // 6:
            _refuse_large(attributes)
        return ContactRow(normalise(address), name, attributes)


def _refuse_large(attributes: dict[str, str]) -> None:
    if sum(len(value.encode()) for value in attributes.values()) > ATTRIBUTES_BYTES:
        raise InvalidInput(f"the attributes are longer than {ATTRIBUTES_BYTES:,} bytes")
