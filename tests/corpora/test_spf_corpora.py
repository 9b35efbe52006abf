"""SPF on the suites of openspf, pyspf and mail-auth: each case gets a result that its suite allows,
or stands in DISAGREEMENTS with the reason (docs/authentication.md has the same list)."""

import json
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

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
from mailyard.protocol.spf import Sender, SpfResult, SpfStatus, check_host

Zone = dict[str, list[tuple[str, Any]]]  # name in lower case: (type, value); TIMEOUT has no value
KINDS = {Ask.TXT: "TXT", Ask.MX: "MX", Ask.A: "A", Ask.AAAA: "AAAA", Ask.PTR: "PTR"}

DEFAULT_MODIFIER = "default= is pyspf's own; RFC 7208 section 6 has unknown modifiers ignored"
DISAGREEMENTS: dict[tuple[str, str], str] = {
    ("pyspf-extra", "default-modifier"): DEFAULT_MODIFIER,
    ("pyspf-extra", "default-modifier-harsh"): DEFAULT_MODIFIER,
    ("basic.yml", "DNS Lookup Limits: sender@ok.test.org 172.168.0.1"): (
        "ten names that do not exist; RFC 7208 section 4.6.4 stops at two such"
    ),
    ("macro.yml", "Macro expansion 2: strong-bad@email.example.com 2001:db8::cb01"): (
        "exists: finds only an AAAA; RFC 7208 section 5.7 asks for A whatever the client is"
    ),
}


def answer_to(question: Question, zone: Zone, aliases: int = 0) -> Result[Any]:
    records = zone.get(question.name.lower().rstrip("."))
    if question.name.endswith(".mx"):
        address = ip_address(question.name.removesuffix(".mx"))
        fits = (question.ask is Ask.A) == (address.version == 4)
        return Answer((address,), 1, False, question.name) if fits else NoRecords(1, False)
    if question.name.startswith("_dns_error."):
        return TemporaryFailure(Trouble.SERVER_FAILURE, "")
    if records is None:
        return NoName(1, False)
    kind = KINDS[question.ask]
    held = [value for of, value in records if of == kind]
    if kind == "TXT" and not held:
        held = [value for of, value in records if of == "SPF"]
    held = [value for value in held if value != "NONE"]
    if not held and any(of == "TIMEOUT" for of, _ in records):
        return TemporaryFailure(Trouble.TIMEOUT, "")
    if not held:
        alias = next((value for of, value in records if of == "CNAME"), None)
        if alias is not None and aliases < 8:
            return answer_to(Question(alias, question.ask), zone, aliases + 1)
        return NoRecords(1, False)
    return Answer(tuple(value_of(kind, value) for value in held), 1, False, question.name)


def value_of(kind: str, value: Any) -> Any:
    if kind == "TXT":
        return value if isinstance(value, str) else "".join(value)
    if kind == "MX":
        preference, host = value if isinstance(value, list) else (10, value)
        return MxRecord(int(preference), host.rstrip(".").lower() or ".")
    return value.rstrip(".") if kind == "PTR" else ip_address(value.strip())


def zone_of(suite: dict[str, Any]) -> Zone:
    zone: Zone = {}
    for name, records in suite["zonedata"].items():
        for record in records:
            pair = (record, None) if isinstance(record, str) else next(iter(record.items()))
            zone.setdefault(name.lower().rstrip("."), []).append(pair)
    return zone


def evaluated(sender: Sender, zone: Zone) -> SpfResult:
    check = check_host(sender, sender.domain, 1_700_000_000)
    try:
        question = next(check)
        while True:
            question = check.send(answer_to(question, zone))
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def test_the_openspf_suites(corpora: Path) -> None:
    wrong = {}
    count = 0
    for file in ("rfc7208-tests", "rfc4408-tests", "pyspf-extra"):
        for suite in json.loads((corpora / "auth-spf" / f"{file}.json").read_text()):
            zone = zone_of(suite)
            for name, test in suite["tests"].items():
                sender = Sender(ip_address(test["host"]), test["helo"], test["mailfrom"])
                got = evaluated(sender, zone)
                results = test["result"]
                allowed = [results] if isinstance(results, str) else results
                said = test.get("explanation", "")
                good = got.status in allowed
                if said and said != "DEFAULT":
                    good = good and got.explanation == said
                elif said:
                    good = good and not got.explanation
                if good is ((file, name) in DISAGREEMENTS):
                    wrong[file, name] = (allowed, said, got)
                count += 1
    assert count > 0
    assert not wrong, "\n".join(f"{key}: {value}" for key, value in wrong.items())


def cases(text: str) -> Iterator[tuple[str, Zone, dict[str, str]]]:
    """mail-auth's own form: lines are read one after the other, `type: name value…` is a record
    (in place of one before), and each `expect:` is a case of what has been said so far."""
    for document in text.split("\n---"):
        zone: Zone = {}
        said: dict[str, str] = {}
        for line in document.splitlines():
            key, _, value = line.strip().removeprefix("- ").partition(":")
            value = value.strip()
            if key in ("spf", "exp", "mx", "a", "aaaa", "ptr"):
                host, _, values = value.partition(" ")
                records = records_of(key, values.strip())
                name = ip_address(host).reverse_pointer if key == "ptr" else host.lower()
                kind = records[0][0]
                kept = [one for one in zone.get(name.rstrip("."), []) if one[0] != kind]
                zone[name.rstrip(".")] = kept + records
            elif key == "expect":
                yield said["name"], zone, {**said, "expect": value}
            elif key in ("name", "domain", "sender", "ip", "helo"):
                said[key] = value


def records_of(kind: str, values: str) -> list[tuple[str, Any]]:
    if kind in ("spf", "exp", "txt"):
        return [("TXT", values)]
    if kind == "mx":
        # Addresses stand there in place of hosts: each becomes a host of its own.
        return [("MX", [10, f"{value.strip()}.mx"]) for value in values.split(",")]
    return [(kind.upper(), value.strip(",")) for value in values.split()]


def test_the_cases_of_mail_auth(corpora: Path) -> None:
    wrong = {}
    count = 0
    for file in sorted((corpora / "auth-spf" / "mail-auth").glob("*.yml")):
        for name, zone, test in cases(file.read_text()):
            client, helo = ip_address(test["ip"]), test.get("helo") or test["domain"]
            got = evaluated(Sender(client, helo), zone)
            if got.status is not SpfStatus.FAIL:  # it makes one verdict of the two identities
                got = evaluated(Sender(client, helo, test.get("sender", "")), zone)
            status, _, said = test["expect"].partition(" ")
            good = got.status == status and said in ("", got.explanation)
            key = (file.name, f"{name}: {test.get('sender', '')} {test['ip']}")
            if good is (key in DISAGREEMENTS):
                wrong[key] = (test, got)
            count += 1
    assert count > 0
    assert not wrong, "\n".join(f"{key}: {value}" for key, value in wrong.items())
