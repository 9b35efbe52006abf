"""DMARC on rspamd's own mails and DNS: what its tests expect of each, by SPF, DKIM and alignment.

Organisations are found by the list of public suffixes (RFC 7489 section 3.2), as rspamd does, and
by the tree walk (RFC 9989), which agrees but for BY_THE_TREE.
"""

import json
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from corpora.conftest import files_of

from mailyard.protocol.authentication import Inquiry, Verdict
from mailyard.protocol.dmarc import DmarcStatus
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
from mailyard.protocol.public_suffix import SuffixList
from mailyard.protocol.spf import Sender

ANYBODY = ("192.0.2.1", "nobody.example.net")
NOW_S = 1_700_000_000
PASS, FAIL, NONE, TEMPERROR = (
    DmarcStatus.PASS,
    DmarcStatus.FAIL,
    DmarcStatus.NONE,
    DmarcStatus.TEMPERROR,
)
# Mail, client and reverse-path -> result and the policy of its domain. What is not in the folder (a
# part of rspamd's mails is kept elsewhere) is passed over.
CASES: Mapping[tuple[str, str, str], tuple[DmarcStatus, str]] = {
    ("fail_reject", *ANYBODY): (FAIL, "reject"),
    ("fail_quarantine", *ANYBODY): (FAIL, "quarantine"),
    ("fail_none", *ANYBODY): (FAIL, "none"),
    ("fail_none", "8.8.4.4", "foo@spf.cacophony.za.org"): (PASS, "none"),
    ("pass_none", *ANYBODY): (PASS, "none"),
    ("fail_none1", *ANYBODY): (NONE, ""),
    ("ed25519_from", *ANYBODY): (NONE, ""),
    ("subdomain_fail_reject", *ANYBODY): (FAIL, "reject"),
    ("subdomain_fail_quarantine", *ANYBODY): (FAIL, "quarantine"),
    ("subdomain_fail_none", *ANYBODY): (FAIL, "none"),
    ("onsubdomain_pass_relaxed", *ANYBODY): (PASS, "reject"),
    ("onsubdomain_pass_relaxed", "37.48.67.26", "foo@mom.za.org"): (PASS, "reject"),
    ("onsubdomain_fail_alignment", *ANYBODY): (FAIL, "reject"),
    ("onsubdomain_fail_alignment", "37.48.67.26", "foo@yo.mom.za.org"): (PASS, "reject"),
    ("onsubdomain_fail_alignment", "37.48.67.26", "foo@mom.za.org"): (FAIL, "reject"),
    ("dmarc_tmpfail", *ANYBODY): (TEMPERROR, ""),
    ("bad_dkim1", *ANYBODY): (FAIL, "none"),
    ("bad_dkim3", *ANYBODY): (FAIL, "none"),
    ("bad_dkim4", *ANYBODY): (NONE, ""),
    ("no_dkim_valid_spf", "88.99.142.95", "foo@rspamd.com"): (NONE, ""),
    ("good_dkim_rspamd", *ANYBODY): (NONE, ""),
}
# my.mom.za.org has a record and mom.za.org has none: by the walk they are two organisations.
BY_THE_TREE = {key: (FAIL, "reject") for key in CASES if key[0] == "onsubdomain_pass_relaxed"}

Zone = Mapping[tuple[str, str], tuple[str | None, list[str]]]


@pytest.fixture(scope="module")
def files(corpora: Path) -> dict[str, bytes]:
    prefix = "auth-dkim/rspamd/"
    return {
        name.removeprefix(prefix): data
        for name, data in files_of(corpora / "auth-dkim")
        if name.startswith(prefix)
    }


@pytest.fixture(scope="module")
def zone(files: dict[str, bytes]) -> Zone:
    answers = json.loads(files["fake-dns.json"])
    return {(one["name"], one["type"]): (one["rcode"], one["replies"]) for one in answers}


def asked_of(zone: Zone) -> Callable[[Question], Result[Any]]:
    def answer(question: Question) -> Result[Any]:
        name = question.name.lower().rstrip(".")
        code, replies = zone.get((name, question.ask.name.lower()), ("nxdomain", []))
        if code == "timeout":
            return TemporaryFailure(Trouble.TIMEOUT, "")
        if not replies:
            there = any(of == name for of, _ in zone)
            return NoRecords(1, False) if there else NoName(1, False)
        if question.ask is Ask.MX:
            pairs = [one.split() for one in replies]
            return Answer(tuple(MxRecord(int(n), host) for n, host in pairs), 1, False, name)
        if question.ask in (Ask.A, Ask.AAAA):
            return Answer(tuple(map(ip_address, replies)), 1, False, name)
        return Answer(tuple(replies), 1, False, name)

    return answer


def judged(
    raw: bytes, client: str, path: str, zone: Zone, organisation: Callable[[str], str] | None
) -> Verdict:
    content = raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    sender = Sender(ip_address(client), "nobody.example.net", path if "@" in path else "")
    inquiry = Inquiry(content, sender, NOW_S, organisation)
    assert not inquiry.step(asked_of(zone))
    assert inquiry.verdict is not None
    return inquiry.verdict


@pytest.mark.parametrize("by", ["suffixes", "tree"])
def test_rspamd_own_mails_get_its_verdicts(
    corpora: Path, files: dict[str, bytes], zone: Zone, by: str
) -> None:
    text = (corpora / "auth-psl" / "public_suffix_list.dat").read_text()
    organisation = SuffixList(text).organisation if by == "suffixes" else None
    wrong, count = {}, 0
    for key, wanted in CASES.items():
        name, client, path = key
        raw = files.get(f"messages/dmarc/{name}.eml")
        if raw is None:
            continue
        count += 1
        found = judged(raw, client, path, zone, organisation).dmarc
        expected = wanted if by == "suffixes" else BY_THE_TREE.get(key, wanted)
        if (found.status, found.policy) != expected:
            wrong[key] = (expected, found)
    assert count > 0
    assert wrong == {}


def test_every_one_of_them_has_its_case(files: dict[str, bytes]) -> None:
    """Those whose keys are in live DNS alone have nothing to be held to but a verdict."""
    live = {"dkim_unknown_tags", "bad_dkim_highsecure", "bad_dkim_rspamd"}
    names = {Path(name).stem for name in files if name.startswith("messages/dmarc/")}
    assert names - {name for name, *_ in CASES} <= live
