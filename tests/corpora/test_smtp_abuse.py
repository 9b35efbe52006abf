"""End-of-data sequences that smuggle, and header injections (MAILYARD_CORPORA)."""

import json
import os
from pathlib import Path
from urllib.parse import unquote

import pytest
from smtp_sessions import greeted

from mailyard.core.errors import InvalidInput
from mailyard.protocol.address import parse_mailbox

FOLDER = Path(os.environ.get("MAILYARD_CORPORA", "../shared/corpora")) / "smtp-abuse"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the corpora are not here")

ENVELOPE = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n"


def test_no_sequence_but_the_true_one_ends_a_message() -> None:
    cases = json.loads((FOLDER / "smuggling-end-of-data.json").read_text())
    assert len(cases) > 5
    for case in cases:
        sequence = bytes.fromhex(case["hex"])
        driver = greeted()
        driver.feed(ENVELOPE)
        ended = driver.codes(b"text" + sequence)
        assert bool(ended) is case["must_end_data"], case
        if not ended:
            driver.feed(ENVELOPE + b"smuggled\r\n.\r\n")
            assert len(driver.stored) <= 1, case
            assert all(len(e.recipients) == 1 for e, _ in driver.stored), case


def test_no_injected_line_end_passes_an_address() -> None:
    payloads = (FOLDER / "patt-crlfinjection.txt").read_text().split()
    assert payloads
    for payload in payloads:
        raw = unquote(unquote(payload))
        if "\r" in raw or "\n" in raw:
            for text in (f"{raw} <a@b.example>", f"a{raw}@b.example", f"a@b.example{raw}"):
                with pytest.raises(InvalidInput):
                    parse_mailbox(text)
