"""DMARC aggregate reports and TLS reports as large receivers send them, and as nobody should."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from corpora.conftest import files_of

from mailyard.protocol.dmarc.report import BadReport, read_report
from mailyard.protocol.mime.message import parse
from mailyard.protocol.report_files import Found, find_reports
from mailyard.protocol.tls_report import read_report as read_tls
from mailyard.protocol.tls_report import write_report


def of_family(corpora: Path, family: str, *, failures: bool = False) -> Iterator[tuple[str, bytes]]:
    for name, data in files_of(corpora / family):
        if name.endswith((".eml", ".xml", ".gz", ".zip")) and ("/failure/" in name) is failures:
            yield name, data


def found_in(name: str, data: bytes) -> Found:
    if name.endswith(".eml"):
        return find_reports(parse(data))
    return find_reports(parse(b"Content-Type: application/octet-stream\r\n\r\n" + data))


def test_every_aggregate_report_is_read(corpora: Path) -> None:
    expected = {
        name.removesuffix(".json"): json.loads(data)
        for name, data in files_of(corpora / "auth-dmarc-reports")
        if name.endswith(".json")
    }
    count = 0
    for name, data in of_family(corpora, "auth-dmarc-reports"):
        found = found_in(name, data)
        assert (len(found.aggregates), found.problems) == (1, ()), (name, found.problems)
        [report] = found.aggregates
        assert report.skipped == 0, name
        assert report.messages >= report.passed >= 0
        count += 1
        told = expected.get(name.rpartition(".")[0])
        if told is None:
            continue
        assert report.organisation == told["report_metadata"]["org_name"]
        assert report.report_id == told["report_metadata"]["report_id"]
        assert report.domain == told["policy_published"]["domain"]
        assert report.begins_at_s == told["report_metadata"]["date_range"]["begin"]
        ours = [(row.source, row.count, row.dkim, row.spf) for row in report.rows]
        assert ours == [
            (
                one["row"]["source_ip"],
                one["row"]["count"],
                one["row"]["policy_evaluated"]["dkim"] == "Pass",
                one["row"]["policy_evaluated"]["spf"] == "Pass",
            )
            for one in told["record"]
        ], name
    assert count > 0


def test_reports_of_single_failures_are_no_aggregate_reports(corpora: Path) -> None:
    for name, data in of_family(corpora, "auth-dmarc-reports", failures=True):
        assert not found_in(name, data).aggregates, name


def test_every_tls_report_is_read_and_written_again(corpora: Path) -> None:
    expected = {
        name.removesuffix(".json"): json.loads(data)
        for name, data in files_of(corpora / "auth-tlsrpt")
        if name.startswith("mail-auth/") and name.endswith(".json")
    }
    count = 0
    for name, data in files_of(corpora / "auth-tlsrpt"):
        if name.startswith("mail-auth/") and name.endswith(".json"):
            continue
        if not name.endswith((".eml", ".json")):
            continue
        reports = [read_tls(data)] if name.endswith(".json") else list(found_in(name, data).tls)
        assert len(reports) == 1, name
        [report] = reports
        assert report.policies, name
        assert read_tls(write_report(report)) == report
        count += 1
        told = expected.get(name.removesuffix(".eml"))
        if told is not None:
            assert report.organisation == told["organization-name"]
            totals = [(one.succeeded, one.failed, len(one.failures)) for one in report.policies]
            assert totals == [
                (
                    one["summary"]["total-successful-session-count"],
                    one["summary"]["total-failure-session-count"],
                    len(one["failure-details"]),
                )
                for one in told["policies"]
            ]
    assert count > 0


@pytest.mark.parametrize(
    "xml",
    [
        b'<!DOCTYPE x [<!ENTITY a "aaaa">]><feedback>&a;</feedback>',
        b'<!DOCTYPE x SYSTEM "http://127.0.0.1/x.dtd"><feedback/>',
        b"<a>" * 100_000,
        b"<feedback>" + b"<record>" * 50,
        b"<feedback>" + b"<x/>" * 100_000,
        b"<feedback><record>" + b"<x/>" * 100_000,
        b"",
        b"\0" * 1000,
    ],
)
def test_hostile_xml_is_refused(xml: bytes) -> None:
    with pytest.raises(BadReport):
        read_report(xml)
