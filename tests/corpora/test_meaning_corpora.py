"""Codes and replies on the public cases: precision and recall, printed (`-s`) and held to a floor.

The families' own disagreements with us, with their reasons:

* talon `standard_replies/iphone`: it expects "Sent from my iPhone" in the reply. It is not of
  its writer's writing, and the same project's signature cases cut it, as do all the others.
"""

import json
import tarfile
from collections.abc import Iterator
from difflib import SequenceMatcher
from pathlib import Path

import pytest
from corpora.conftest import files_of

from mailyard.protocol.meaning.code import codes_of
from mailyard.protocol.meaning.finding import TEXT
from mailyard.protocol.meaning.letter import Letter, read_letter
from mailyard.protocol.meaning.read import findings_of
from mailyard.protocol.meaning.reply import reply_in, reply_of

_FLOOR = 0.95  # of each figure; what is reached is in docs/GUARANTEES.md


@pytest.fixture(scope="module")
def replies(corpora: Path) -> dict[str, bytes]:
    return dict(files_of(corpora / "reply-trim"))


def _cases(corpora: Path) -> Iterator[tuple[Letter, str | None]]:
    folder = corpora / "otp"
    for case in json.loads((folder / "otp-messages.json").read_text("utf-8")):
        yield Letter(text=case["message"]), (case["result"] or {}).get("code")
    for name, case in json.loads((folder / "kratos" / "expected.json").read_text("utf-8")).items():
        path = folder / name
        if path.exists():
            yield read_letter(path.read_bytes()), case["code"]
        yield Letter(text=case["sms"]), case["code"]


def test_codes_are_found_and_nothing_else(corpora: Path) -> None:
    right = wrong = missed = none = 0
    for letter, code in _cases(corpora):
        found = [one.value for one in codes_of(letter)]
        right += code is not None and found[:1] == [code]
        missed += code is not None and found[:1] != [code]
        wrong += bool(found) and found[:1] != [code]
        none += code is None and not found
    precision, recall = right / (right + wrong), right / (right + missed)
    print(f"\ncodes: precision {precision:.3f}, recall {recall:.3f} "
          f"({right} right, {wrong} wrong, {missed} missed, {none} rightly none)")  # fmt: skip
    assert min(precision, recall) >= _FLOOR


def test_replies_are_cut_where_people_cut_them(replies: dict[str, bytes]) -> None:
    whole = cases = right = wrong = missed = 0
    for name, content in replies.items():
        if "/email_reply_trimmer/emails/" not in name:
            continue
        text = content.decode().replace("\r\n", "\n")
        expected = _lines(replies[name.replace("/emails/", "/trimmed/")].decode())
        got = _lines(reply_in(text, TEXT).text)
        same = sum(
            block.size
            for block in SequenceMatcher(None, got, expected, autojunk=False).get_matching_blocks()
        )
        cases += 1
        whole += got == expected
        right, wrong, missed = right + same, wrong + len(got) - same, missed + len(expected) - same
    precision, recall = right / (right + wrong), right / (right + missed)
    print(f"\nreplies: {whole} of {cases} as expected; lines kept: precision {precision:.3f}, "
          f"recall {recall:.3f}")  # fmt: skip
    assert min(precision, recall, whole / cases) >= _FLOOR


def test_whole_mails_and_signatures(replies: dict[str, bytes]) -> None:
    wrong = []
    for name, content in replies.items():
        if "/standard_replies/" in name and name.endswith(".eml") and "iphone" not in name:
            expected = replies.get(f"{name.removesuffix('.eml')}_reply_text", b"Hello").decode()
            if _lines(reply_of(read_letter(content)).text) != _lines(expected):
                wrong.append(name)
        if "/signature/emails/stripped/" in name and name.endswith("_body"):
            text = content.decode().replace("\r\n", "\n")
            expected = replies.get(f"{name.removesuffix('_body')}_signature", b"").decode()
            signature = reply_in(text, TEXT).signature
            got = "" if signature is None else text[signature.start : signature.end]
            if _lines(got) != _lines(expected):
                wrong.append(name)
    assert wrong == []


def test_every_mail_of_every_family_is_read_without_an_error(corpora: Path) -> None:
    count = 0
    for family in sorted(corpora.iterdir()):
        if not family.is_dir():
            continue
        try:
            for _, content in files_of(family):
                if b"\n" in content[:4096] and b":" in content[:4096]:
                    findings = findings_of(content)
                    assert findings.reply.text is not None
                    count += 1
        except tarfile.TarError:  # a family that is no archive of mails
            continue
    print(f"\n{count} files read")
    assert count > 1000


def _lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.replace("\r", "").split("\n") if line.strip()]
