"""The reports that a mail brings: DMARC aggregate reports and TLS reports, wherever in it."""

from collections.abc import Iterator
from dataclasses import dataclass

from mailyard.core.errors import InvalidInput
from mailyard.core.limits import MIB
from mailyard.protocol.dmarc.report import REPORT_BYTES, AggregateReport
from mailyard.protocol.dmarc.report import read_report as read_aggregate
from mailyard.protocol.mime.message import Message
from mailyard.protocol.tls_report import TlsReport
from mailyard.protocol.tls_report import read_report as read_tls
from mailyard.protocol.unpack import unpack

FILES = 8  # of one mail
PACKED_BYTES = 10 * MIB
_ENDINGS = (".xml", ".json")


@dataclass(frozen=True, slots=True)
class Found:
    """`problems`: in words, of files that look like reports and are not readable."""

    aggregates: tuple[AggregateReport, ...]
    tls: tuple[TlsReport, ...]
    problems: tuple[str, ...]


def find_reports(message: Message) -> Found:
    """All reports in `message`. Never raises."""
    aggregates: list[AggregateReport] = []
    tls: list[TlsReport] = []
    problems: list[str] = []
    for name, content in _files(message):
        try:
            data = unpack(content, REPORT_BYTES, _ENDINGS).lstrip(b"\xef\xbb\xbf \t\r\n")
            if data.startswith(b"{"):
                tls.append(read_tls(data))
            elif data.startswith((b"<", b"\xff\xfe", b"\xfe\xff")):
                aggregates.append(read_aggregate(data))
        except InvalidInput as error:
            problems.append(f"{name}: {error.message}"[:300])
    return Found(tuple(aggregates), tuple(tls), tuple(problems))


def _files(message: Message) -> Iterator[tuple[str, bytes]]:
    for one in message.attachments[:FILES]:
        if one.content_type.startswith(("text/plain", "image/", "message/")):
            continue
        content = message.content(one.index)
        if len(content) <= PACKED_BYTES:
            yield one.filename or "unnamed", content
