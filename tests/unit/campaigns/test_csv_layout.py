"""What a file is, decided from its first bytes, and why a file is refused."""

import pytest

from mailyard.campaigns.csv_layout import EncodingProbe, Layout, attribute_name, inspect
from mailyard.core.errors import InvalidInput
from mailyard.core.limits import CSV_COLUMNS, CSV_LINE_BYTES


def layout_of(data: bytes, mapping: dict[str, str | None] | None = None) -> Layout:
    layout = inspect(data, True, mapping or {})
    assert layout is not None
    return layout


def refusal_of(data: bytes, mapping: dict[str, str | None] | None = None) -> str:
    with pytest.raises(InvalidInput) as raised:
        inspect(data, True, mapping or {})
    return raised.value.message


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_the_one_that_gives_an_address_column(delimiter: str) -> None:
    header = delimiter.join(("Name", "E-Mail", "City"))
    layout = layout_of(f"{header}\nAda{delimiter}ada@example.org{delimiter}London\n".encode())
    assert layout.delimiter == delimiter
    assert layout.columns == ["name", "address", "city"]


@pytest.mark.parametrize("header", ["email", "E-Mail", "MAIL", "Email Address", "address"])
def test_the_address_column_goes_by_many_names(header: str) -> None:
    assert layout_of(f"{header}\nada@example.org\n".encode()).columns == ["address"]


def test_other_columns_become_attributes_that_a_template_can_name() -> None:
    layout = layout_of(b"First Name,email,2nd Line,,city,City\na,b@c.de,d,e,f,g\n")
    assert layout.columns == ["first_name", "address", "_2nd_line", None, "city", "city_2"]
    assert attribute_name("Größe (cm)") == "größe_cm"


def test_a_mapping_overrides_what_the_header_suggests() -> None:
    layout = layout_of(
        b"email,Login,Name\na@b.de,c@d.de,Ada\n",
        {"Login": "address", "email": "old_address", "NAME": None},
    )
    assert layout.columns == ["old_address", "address", None]


def test_a_mapping_of_an_absent_column_is_refused_by_its_name() -> None:
    assert "'Phone'" in refusal_of(b"email\na@b.de\n", {"Phone": "phone"})


def test_two_columns_cannot_become_the_same_attribute() -> None:
    assert "two columns" in refusal_of(b"email,a,b\nx@y.de,1,2\n", {"a": "x", "b": "x"})


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"\xef\xbb\xbf", "utf-8"),
        (b"\xff\xfe", "utf-16-le"),
        (b"\xfe\xff", "utf-16-be"),
    ],
)
def test_an_encoding_mark_is_believed_and_passed_over(mark: bytes, encoding: str) -> None:
    body = "email,name\r\nada@example.org,Ädä\r\n".encode(encoding)
    layout = layout_of(mark + body)
    assert layout.encoding == encoding
    assert layout.columns == ["address", "name"]
    assert layout.body_offset == len(mark) + len("email,name\r\n".encode(encoding))
    assert layout.body_line == 2


def test_blank_lines_before_the_header_count_as_lines() -> None:
    assert layout_of(b"\n\nemail\na@b.de\n").body_line == 4


def test_a_quoted_header_may_hold_line_breaks_and_delimiters() -> None:
    layout = layout_of(b'"email","street,\nnumber"\na@b.de,x\n')
    assert layout.columns == ["address", "street_number"]
    assert layout.body_line == 3


def test_lines_may_end_with_carriage_returns_alone() -> None:
    assert layout_of(b"email,name\rada@example.org,Ada\r").line_end == "\r"


def test_without_a_mark_utf_8_is_tried_and_windows_1252_is_the_fallback() -> None:
    def verdict(*parts: bytes) -> str:
        probe = EncodingProbe()
        for part in parts:
            probe.feed(part)
        return probe.encoding()

    assert verdict(b"plain") == "utf-8"
    assert verdict("Zoë".encode()) == "utf-8"
    assert verdict(*[bytes([byte]) for byte in "Zoë €".encode()]) == "utf-8"
    assert verdict("Zoë".encode("cp1252")) == "cp1252"
    assert verdict("Zoë Zoë Zoë".encode(), "Zoë".encode("cp1252")) == "utf-8"


def test_more_bytes_are_asked_for_until_header_and_a_row_are_there() -> None:
    assert inspect(b"", False, {}) is None
    assert inspect(b"ema", False, {}) is None
    assert inspect(b"email\n", False, {}) is None
    assert inspect(b"email\na", False, {}) is not None


@pytest.mark.parametrize("data", [b"", b"\n \r\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(data: bytes) -> None:
    assert "empty" in refusal_of(data) or "header" in refusal_of(data)


def test_a_file_with_only_a_header_is_refused() -> None:
    assert refusal_of(b"email,name\n\n") == "the file has a header but no rows"
    assert refusal_of(b"email,name") == "the file has a header but no rows"


def test_a_file_without_a_column_of_addresses_is_refused_with_what_it_has() -> None:
    reason = refusal_of(b"first,last\nAda,Lovelace\n")
    assert "no column holds email addresses" in reason
    assert "'first', 'last'" in reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"PK\x03\x04" + bytes(range(256)) * 8, "Excel workbook"),
        (b"%PDF-1.7\n", "PDF"),
        (b"\x1f\x8b\x08" + bytes(100), "gzip"),
        (bytes(range(256)) * 64, "binary"),
        (b"\x7fELF" + bytes(4000), "binary"),
    ],
)
def test_a_binary_file_is_refused_by_what_it_is(data: bytes, reason: str) -> None:
    assert reason in refusal_of(data)


def test_a_header_that_never_ends_is_refused() -> None:
    assert "header is longer" in refusal_of(b'email,"' + b"x" * (CSV_LINE_BYTES + 10) + b"\n" * 3)
    with pytest.raises(InvalidInput, match="header is longer"):
        inspect(b"e" * (CSV_LINE_BYTES + 10), False, {})


def test_too_many_columns_are_refused() -> None:
    header = ",".join(["email", *(f"c{n}" for n in range(CSV_COLUMNS))])
    assert "columns" in refusal_of(f"{header}\na@b.de\n".encode())
