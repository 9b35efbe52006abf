"""The parser of received mail on the public MIME suites: no exception, bounded work, agreement."""

import json
from datetime import datetime
from pathlib import Path

import pytest
from corpora.conftest import family_names, files_of

from mailyard.core import limits
from mailyard.protocol.mime import parse, parse_summary


def as_crlf(raw: bytes) -> bytes:
    return raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


@pytest.mark.parametrize("family", family_names("mime-*"))
def test_every_message_is_read_within_bounds(corpora: Path, family: str) -> None:
    read = 0
    for name, data in files_of(corpora / family):
        for raw in (data, as_crlf(data)):
            message = parse(raw)
            texts = [*parse_summary(raw), message.text, message.html]
            texts += [text for field in message.headers for text in field]
            texts += [file.filename for file in message.attachments]
            texts += [text for box in message.from_ for text in (box.name, box.address)]
            for text in texts:
                if isinstance(text, str):
                    text.encode()
                    assert "\0" not in text, name
            assert message.work_units <= (limits.MIME_DEPTH + 4) * len(raw) + 100, name
            read += 1
    assert read > 0


def test_imaptools_expectations_are_mostly_met(corpora: Path) -> None:
    """Subject, sender, date, text, HTML and attachments as another parser read them.

    Its values are those of a stricter parser, so that full agreement is not the aim here; a fall
    below these shares is a regression.
    """
    family = dict(files_of(corpora / "mime-imaptools"))
    expected_name = next(name for name in family if name.endswith("expected-imaptools.json"))
    top = expected_name.removesuffix("expected-imaptools.json")
    agreed = {"subject": 0, "from": 0, "date": 0, "text": 0, "html": 0, "files": 0}
    expectations = json.loads(family[expected_name])
    for name, wanted in expectations.items():
        message = parse(family[top + name])
        sender = message.from_[0].address if message.from_ else ""
        sent = datetime.fromisoformat(wanted["date"]) if wanted["date"] else None
        files = sorted(file["filename"] for file in wanted["attachments"])
        agreed["subject"] += flat(message.subject) == flat(wanted["subject"])
        agreed["from"] += sender.lower() == wanted["from_"].lower()
        agreed["date"] += same_instant(message.date, sent)
        agreed["text"] += flat(message.text or "") == flat(wanted["text"])
        agreed["html"] += flat(message.html or "") == flat(wanted["html"])
        agreed["files"] += sorted(file.filename for file in message.attachments) == files
    shares = {what: count / len(expectations) for what, count in agreed.items()}
    assert all(share >= 0.8 for share in shares.values()), shares


def flat(text: str) -> str:
    return "".join(text.split())


def same_instant(ours: datetime | None, theirs: datetime | None) -> bool:
    if ours is None or theirs is None or theirs.year < 1971:
        return ours is None and (theirs is None or theirs.year < 1971)
    return ours == (theirs if theirs.tzinfo else theirs.replace(tzinfo=ours.tzinfo))
