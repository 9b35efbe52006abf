"""DMARC aggregate reports (RFC 7489 section 7.2 and appendix C, RFC 9990): XML of strangers.

Read as data: a document type, an entity or a processing instruction ends it, depth, elements and
rows are bounded, and a row that makes no sense is left out and counted. Raises BadReport alone.
"""

from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any
from xml.parsers import expat

from mailyard.core.errors import InvalidInput
from mailyard.core.limits import MIB

REPORT_BYTES = 10 * MIB  # unpacked; a day of a large domain has one or two
ROWS = 50_000
_DEPTH = 16
_ELEMENTS = 10_000  # of the head, and of a record
_TEXT_CHARACTERS = 1_000
_COUNT_MAX = 10**12
_LATEST_S = 4_102_444_800  # 2100
_ENDS_EARLY = expat.errors.codes[expat.errors.XML_ERROR_NO_ELEMENTS]
_DISPOSITIONS = ("none", "quarantine", "reject", "pass")


class BadReport(InvalidInput):
    """Not a report that can be read; the message says why."""

    code = "invalid_report"


@dataclass(frozen=True, slots=True)
class Checked:
    """What the receiver's DKIM or SPF came to. `detail`: the selector, or the scope."""

    domain: str
    result: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """Mail of one source. `dkim` and `spf` say whether they passed in alignment; `disposition` what
    was done. `reasons`: why it was not what the policy asks."""

    source: str
    count: int
    disposition: str
    dkim: bool
    spf: bool
    header_from: str = ""
    envelope_from: str = ""
    envelope_to: str = ""
    reasons: tuple[str, ...] = ()
    dkim_checks: tuple[Checked, ...] = ()
    spf_checks: tuple[Checked, ...] = ()

    @property
    def passed(self) -> bool:
        return self.dkim or self.spf


@dataclass(frozen=True, slots=True)
class AggregateReport:
    """What `organisation` saw of mail from `domain`. Times in seconds since 1970. `policy`: the
    record as it saw it, tag to value. `skipped`: rows that made no sense."""

    organisation: str
    email: str
    report_id: str
    begins_at_s: int
    ends_at_s: int
    domain: str
    policy: dict[str, str]
    rows: tuple[Row, ...]
    skipped: int = 0

    @property
    def messages(self) -> int:
        return sum(row.count for row in self.rows)

    @property
    def passed(self) -> int:
        return sum(row.count for row in self.rows if row.passed)


def read_report(xml: bytes) -> AggregateReport:
    """The report in `xml`, unpacked. Namespaces do not matter, nor does the order of elements."""
    if len(xml) > REPORT_BYTES:
        raise BadReport(f"the report is larger than {REPORT_BYTES} bytes")
    root, records = _parse(xml)
    if root.name != "feedback":  # some write <xml …> where <?xml …?> belongs
        root = root.child("feedback")
    if not root.inside:
        raise BadReport("the report has no <feedback>")
    metadata, policy = root.child("report_metadata"), root.child("policy_published")
    dates = metadata.child("date_range")
    domain = policy.text("domain").lower().rstrip(".")
    if not domain:
        raise BadReport("the report names no domain")
    tags = ("p", "sp", "np", "pct", "adkim", "aspf", "fo", "testing")
    return AggregateReport(
        metadata.text("org_name") or metadata.text("email").rpartition("@")[2],
        metadata.text("email"),
        metadata.text("report_id"),
        _seconds(dates.text("begin")),
        _seconds(dates.text("end")),
        domain,
        {tag: value for tag in tags if (value := policy.text(tag).lower())},
        tuple(records.rows),
        records.skipped,
    )


@dataclass(slots=True)
class _Element:
    name: str
    words: list[str] = field(default_factory=list)
    inside: dict[str, list["_Element"]] = field(default_factory=dict)

    def children(self, name: str) -> list["_Element"]:
        return self.inside.get(name, [])

    def child(self, name: str) -> "_Element":
        """The first of that name, or an empty one."""
        found = self.inside.get(name)
        return found[0] if found else _Element(name)

    def text(self, name: str) -> str:
        """The text of the first child of that name, fit to be shown and stored."""
        words = " ".join("".join(self.child(name).words).split())
        return "".join(one for one in words if one.isprintable())[:_TEXT_CHARACTERS]


@dataclass(slots=True)
class _Records:
    rows: list[Row] = field(default_factory=list)
    skipped: int = 0

    def add(self, record: _Element) -> None:
        row = _row(record)
        if row is None or len(self.rows) >= ROWS:
            self.skipped += 1
        else:
            self.rows.append(row)


class _Tree:
    """Handlers of expat that build elements within bounds; a record is read when it ends, and what
    it was made of is dropped."""

    def __init__(self) -> None:
        self.root: _Element | None = None
        self.records = _Records()
        self._open: list[_Element] = []
        self._elements = 0  # that are held
        self._before_record = 0

    @property
    def only_the_outermost_is_open(self) -> bool:
        """So that all of its records are whole: some reporters open what they never close."""
        return len(self._open) == 1

    def start(self, name: str, _attributes: Any) -> None:
        element = _Element(name.rpartition(":")[2].lower())
        if element.name == "record":
            if any(one.name == "record" for one in self._open):
                raise BadReport("the report has a record in a record")
            self._before_record = self._elements
        self._elements += 1
        if self._elements > self._before_record + _ELEMENTS or len(self._open) >= _DEPTH:
            raise BadReport("the report has too many elements, or they are too deep")
        if self._open:
            if element.name != "record":
                self._open[-1].inside.setdefault(element.name, []).append(element)
        elif self.root is None:
            self.root = element
        self._open.append(element)

    def end(self, _name: str) -> None:
        element = self._open.pop()
        if element.name == "record":
            self.records.add(element)
            self._elements = self._before_record

    def data(self, text: str) -> None:
        if self._open:
            words = self._open[-1].words
            if len(words) < 64:
                words.append(text[:_TEXT_CHARACTERS])

    def refuse(self, *_arguments: Any) -> Any:
        raise BadReport("the report has a document type or an entity, which is refused")


def _parse(xml: bytes) -> tuple[_Element, _Records]:
    tree = _Tree()
    text = _as_utf8(xml)
    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    parser.StartElementHandler = tree.start
    parser.EndElementHandler = tree.end
    parser.CharacterDataHandler = tree.data
    parser.StartDoctypeDeclHandler = tree.refuse
    parser.EntityDeclHandler = tree.refuse
    parser.ExternalEntityRefHandler = tree.refuse
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        if error.code != _ENDS_EARLY or not tree.only_the_outermost_is_open:
            raise BadReport(f"the report is not XML: {error}") from None
    if tree.root is None:
        raise BadReport("the report is empty")
    return tree.root, tree.records


def _as_utf8(xml: bytes) -> bytes:
    """Some reports hold what is not UTF-8 whatever they say."""
    if xml.startswith((b"\xff\xfe", b"\xfe\xff")):
        xml = xml.decode("utf-16", "replace").encode()
    return xml.lstrip(b"\xef\xbb\xbf \t\r\n").decode("utf-8", "replace").encode()


def _row(record: _Element) -> Row | None:
    row, identifiers = record.child("row"), record.child("identifiers")
    judged, results = row.child("policy_evaluated"), record.child("auth_results")
    try:
        source = str(ip_address(row.text("source_ip")))
        count = int(row.text("count"))
    except ValueError:
        return None
    if not 0 < count <= _COUNT_MAX:
        return None
    disposition = judged.text("disposition").lower()
    return Row(
        source,
        count,
        disposition if disposition in _DISPOSITIONS else "",
        judged.text("dkim").lower() == "pass",
        judged.text("spf").lower() == "pass",
        identifiers.text("header_from").lower(),
        identifiers.text("envelope_from").lower(),
        identifiers.text("envelope_to").lower(),
        tuple(
            " ".join(filter(None, (one.text("type"), one.text("comment"))))
            for one in judged.children("reason")[:8]
            if one.inside
        ),
        tuple(
            Checked(one.text("domain").lower(), one.text("result").lower(), one.text("selector"))
            for one in results.children("dkim")[:8]
        ),
        tuple(
            Checked(one.text("domain").lower(), one.text("result").lower(), one.text("scope"))
            for one in results.children("spf")[:8]
        ),
    )


def _seconds(text: str) -> int:
    try:
        seconds = int(float(text))
    except (ValueError, OverflowError):
        raise BadReport("the report does not say of which time it is") from None
    if not 0 <= seconds <= _LATEST_S:
        raise BadReport("the report is of a time that cannot be")
    return seconds
