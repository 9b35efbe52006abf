"""The openspf suites: what receivers call a permanent error is told to the domain's owner.

The suites say what a receiver makes of one mail; here the records themselves are walked. So a
record behind a pass or a fail must be readable, and one behind a permerror must have a problem.
"""

import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from mailyard.core.errors import InvalidInput
from mailyard.protocol.dns_answer import (
    Answer,
    Ask,
    MxRecord,
    NoName,
    NoRecords,
    Question,
    Result,
    TemporaryFailure,
    Trouble,
)
from mailyard.protocol.dns_spf import (
    SpfReport,
    spf_walk,
)
from mailyard.protocol.dns_spf_record import is_spf, parse_spf

SUITES = ("rfc7208-tests.json", "rfc4408-tests.json")


def texts_of(records: list[Any]) -> list[str]:
    """TXT as in the suites: type SPF counts where no TXT is given; strings are joined."""
    by_kind: dict[str, list[str]] = {"TXT": [], "SPF": []}
    for record in records:
        if isinstance(record, dict):
            for kind in by_kind.keys() & record.keys():
                value = record[kind]
                by_kind[kind].append("".join(value) if isinstance(value, list) else value)
    return [text for text in by_kind["TXT"] or by_kind["SPF"] if text != "NONE"]


def answer_to(question: Question, zone: dict[str, list[Any]]) -> Result[Any]:
    records = zone.get(question.name)
    if records is None:
        return NoName(1, False)
    held: list[Any] = []
    if question.ask is Ask.TXT:
        held = list(texts_of(records))
    for record in records:
        if not isinstance(record, dict):
            continue
        if question.ask is Ask.MX and "MX" in record:
            held.append(MxRecord(record["MX"][0], record["MX"][1].rstrip(".") or "."))
        if question.ask is Ask.ADDRESSES:
            held += [ip_address(record[kind]) for kind in ("A", "AAAA") if kind in record]
    if not held and "TIMEOUT" in records:
        return TemporaryFailure(Trouble.TIMEOUT, "")
    return Answer(tuple(held), 1, False, question.name) if held else NoRecords(1, False)


def walk(domain: str, zone: dict[str, list[Any]]) -> SpfReport:
    steps = spf_walk(domain)
    question = next(steps)
    while True:
        try:
            question = steps.send(answer_to(question, zone))
        except StopIteration as end:
            assert isinstance(end.value, SpfReport)
            return end.value


def cases(corpora: Path, suite: str) -> list[tuple[str, str, str, dict[str, list[Any]]]]:
    """(name, domain, result, zone) of tests with one definite result and a sender's domain."""
    found = []
    for part in json.loads((corpora / "auth-spf" / suite).read_text()):
        zone = {name.lower(): records for name, records in part["zonedata"].items()}
        for name, test in part["tests"].items():
            domain = (test["mailfrom"].rpartition("@")[2] or test["helo"]).lower()
            if isinstance(test["result"], str):
                found.append((name, domain, test["result"], zone))
    return found


@pytest.mark.parametrize("suite", SUITES)
def test_a_record_that_receivers_can_use_is_readable(corpora: Path, suite: str) -> None:
    wrong, seen = [], 0
    for name, domain, result, zone in cases(corpora, suite):
        texts = [text for text in texts_of(zone.get(domain, [])) if is_spf(text)]
        if result not in ("pass", "fail", "softfail", "neutral") or not texts:
            continue
        seen += 1
        try:
            parse_spf(texts[0])
        except InvalidInput as error:
            wrong.append(f"{name}: {error.message}")
    assert seen > 40
    assert wrong == []


@pytest.mark.parametrize("suite", SUITES)
def test_a_record_that_receivers_refuse_has_a_problem(corpora: Path, suite: str) -> None:
    refused = [case for case in cases(corpora, suite) if case[2] == "permerror"]
    silent = [name for name, domain, _, zone in refused if not walk(domain, zone).problems]
    print(
        f"{suite}: {len(refused) - len(silent)} of {len(refused)} permanent errors told; {silent}"
    )
    assert len(refused) > 30
    assert silent == []
