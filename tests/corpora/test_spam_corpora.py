"""The spam score on the spam families: no exception, its time, and how it parts spam from mail.

pytest -s tests/corpora/test_spam_corpora.py    prints the figures
"""

from pathlib import Path
from time import perf_counter

import pytest
from corpora.conftest import files_of

from mailyard.protocol.spam.score import TAG_AT, score

# rspamd's names are its labels: what each of these is about.
PHISHING = ("phishing", "redir_phishing", "url_suspect", "zerofont", "bad_ext", "advance_fee")


def kind_of(name: str) -> str:
    """ham, spam or other: by the folders of SpamAssassin's tests."""
    if "/nice/" in name or "/fp" in name or "nonspam" in name:
        return "ham"
    return "spam" if "/spam/0" in name or name.endswith("sample-spam.txt") else "other"


@pytest.mark.parametrize("family", ["spam-spamassassin", "spam-rspamd"])
def test_every_mail_has_its_score(corpora: Path, family: str) -> None:
    counts: dict[str, list[int]] = {}
    times = []
    for name, raw in files_of(corpora / family):
        start = perf_counter()
        found = score(raw)
        times.append(perf_counter() - start)
        kind = kind_of(name) if family == "spam-spamassassin" else "feature"
        if kind == "feature" and not any(word in name for word in PHISHING):
            kind = "other"
        count = counts.setdefault(kind, [0, 0])
        count[0] += 1
        count[1] += found.points >= TAG_AT
    assert times, f"{family} is empty"
    for kind, (mails, tagged) in sorted(counts.items()):
        print(f"{family} {kind}: {tagged} of {mails} at {TAG_AT:g} points or more")
    median, longest = 1e3 * sorted(times)[len(times) // 2], 1e3 * max(times)
    print(f"{family}: median {median:.2f} ms, longest {longest:.1f} ms")
    spam = counts.get("spam", [0, 0])
    assert spam[1] >= 0.6 * spam[0], "spam passes that was found before"
    ham = counts.get("ham", [1, 0])
    assert ham[1] <= 0.03 * ham[0] + 1, "mail that is none looks like spam"
