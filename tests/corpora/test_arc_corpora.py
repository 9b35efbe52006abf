"""ARC on the suite of ValiMail and on mails that other implementations hold as good or bad."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from corpora.conftest import corpora_folder, files_of

from mailyard.protocol.arc import ChainStatus, Sealer, read_chain, verify_chain
from mailyard.protocol.arc.verify import ChainResult
from mailyard.protocol.dkim import Mail, load_private_key

Zone = Mapping[str, list[bytes] | None]
NOW_S = 1_700_000_000


def as_crlf(raw: bytes) -> bytes:
    return raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def judged(content: bytes, zone: Zone, now_s: float = NOW_S) -> ChainResult:
    mail = Mail(content)
    chain = read_chain(mail)
    return verify_chain(mail, chain, {name: zone.get(name, []) for name in chain.key_names}, now_s)


def suite(name: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    file = corpora_folder() / "auth-arc" / f"{name}.json"
    for scenario in json.loads(file.read_text()) if file.is_file() else []:
        for case, test in scenario["tests"].items():
            yield f"{scenario['description']}: {case}", test, scenario


def zone_of(scenario: dict[str, Any]) -> Zone:
    return {
        name: [re.sub(r"\s*\n\s*", "", text).encode()]
        for name, text in (scenario["txt-records"] or {}).items()
    }


def test_chains_get_the_verdicts_of_the_suite(corpora: Path) -> None:
    wrong = []
    count = 0
    for name, test, scenario in suite("arc-draft-validation-tests"):
        result = judged(as_crlf(test["message"].encode()), zone_of(scenario))
        # Left open where the newest seal says itself that the chain is broken.
        expected = (test["cv"] or "Fail").lower()
        if result.status != expected:
            wrong.append((name, expected, result))
        count += 1
    assert count > 0
    assert not wrong, wrong


def canonical(value: str) -> str:
    return re.sub(r"[ \t\r\n]+", " ", value).replace("; ", ";").strip().replace(" ", "")


def own_results(mail: Mail, authserv_id: str) -> str:
    """What the fields of `authserv_id` say together, which the suite wants forwarded."""
    values = [mail.fields[at][1].decode() for at in mail.places.get(b"authentication-results", ())]
    parts = [value.partition(";") for value in values]
    return ";\r\n ".join(rest.strip() for who, _, rest in parts if who.strip() == authserv_id)


def test_what_we_seal_is_what_the_suite_wants(corpora: Path) -> None:
    count = 0
    for name, test, scenario in suite("arc-draft-sign-tests"):
        key = load_private_key(scenario["privatekey"].encode())
        mail = Mail(as_crlf(test["message"].encode()))
        zone = zone_of(scenario)
        chain = read_chain(mail)
        status = verify_chain(mail, chain, zone, NOW_S).status
        sealer = Sealer(scenario["domain"], scenario["sel"], key, test["srv-id"])
        said = own_results(mail, test["srv-id"])
        names = [part.strip().encode() for part in test["sig-headers"].split(":")]
        fields = Mail(sealer.seal(mail, chain, status, said, test["t"], names)).fields
        made = {field.decode(): canonical(value.decode()) for field, value, _ in fields if field}
        wanted = {
            "arc-seal": canonical(test["AS"]),
            "arc-message-signature": canonical(test["AMS"]),
            "arc-authentication-results": canonical(test["AAR"]),
        }
        assert made == (wanted if test["AS"] else {}), name
        count += 1
    assert count > 0


def known_keys() -> dict[str, list[bytes] | None]:
    """The key records that mails of the family bring in front of themselves."""
    zone: dict[str, list[bytes] | None] = {}
    for name, data in files_of(corpora_folder() / "auth-dkim"):
        if "mail-auth/" in name:
            for line in as_crlf(data).partition(b"\r\n\r\n")[0].splitlines():
                where, _, text = line.strip().partition(b" ")
                zone[where.decode()] = [text.strip()]
    return zone


def test_mails_of_large_forwarders_pass_and_changed_ones_fail(corpora: Path) -> None:
    """Where a key is not at hand the verdict is that, and nothing else."""
    zone = known_keys()
    seen = dict.fromkeys(ChainStatus, 0)
    for name, data in files_of(corpora / "auth-dkim"):
        if "/arc" not in name:
            continue
        content = as_crlf(data)
        if "mail-auth/" in name:
            content = content.partition(b"\r\n\r\n")[2]
        mail = Mail(content)
        chain = read_chain(mail)
        result = verify_chain(mail, chain, {key: zone.get(key) for key in chain.key_names}, NOW_S)
        seen[result.status] += 1
        if result.status is ChainStatus.TEMPERROR:
            assert any(key not in zone for key in chain.key_names), name
            continue
        good = not re.search(r"fail|bad|/ko", name)
        assert (result.status is ChainStatus.PASS) == good, (name, result)
    assert seen[ChainStatus.PASS] and seen[ChainStatus.FAIL], seen
