"""Public XSS lists and sanitiser vectors: nothing active survives, by an independent check."""

import json
from pathlib import Path

from corpora.conftest import files_of
from html_check import active_content

from mailyard.mailbox.sanitise import sanitise


def test_no_payload_of_the_xss_lists_survives(corpora: Path) -> None:
    payloads = 0
    for name, data in files_of(corpora / "html-xss"):
        text = data.decode("utf-8", "replace")
        for payload in (*text.splitlines(), text):
            for dress in (payload, f"<p>{payload}</p>", f'<img src="{payload}">'):
                assert active_content(sanitise(dress).html) == [], (name, payload)
            payloads += 1
    assert payloads > 1_000


def test_no_vector_of_dompurify_survives(corpora: Path) -> None:
    family = dict(files_of(corpora / "html-sanitise"))
    vectors = next(data for name, data in family.items() if name.endswith("dompurify-expect.json"))
    cases = json.loads(vectors)
    for case in cases:
        assert active_content(sanitise(case["payload"]).html) == [], case["payload"]
    assert len(cases) > 20


def test_real_templates_keep_their_text(corpora: Path) -> None:
    for name, data in files_of(corpora / "html-templates"):
        if name.endswith(".html"):
            html = data.decode("utf-8", "replace")
            shown = sanitise(html)
            assert active_content(shown.html) == [], name
            assert len(shown.html) > 500, name
            assert not shown.clipped
