"""Reading real and hostile mail: the public mails of the corpora, beside the standard library.

Every mail is read whole (headers, addresses, date, text, HTML, names and sizes of files). Bars: the
slowest within 2 ms + 50 ms a MB, as a share of that; the whole corpus at least five times as fast
as the standard library's parser, in the same run, on the mails that it can read. And HTML is
sanitised: 50 KB within 5 ms.
"""

import gc
import sys
import time
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

from measure import Row, note, report

from mailyard.mailbox.sanitise import sanitise
from mailyard.protocol.mime import parse

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from corpora.conftest import corpora_folder, files_of

FAMILIES = "mime-*", "spam-*", "bounce-*", "auth-dkim*", "auth-arc"
NO_MAIL = (
    ".json", ".xml", ".out", ".list", ".tnef", ".jpg", ".pub", ".html", ".tokens", ".py", ".golden",
    ".yml", ".rtf", ".doc", ".pdf", ".htm", ".zip", ".png", ".gif", ".bin", ".uu", ".b64",
)  # fmt: skip
ROUNDS = 3


def mails() -> list[bytes]:
    found = []
    for pattern in FAMILIES:
        for family in sorted(corpora_folder().glob(pattern)):
            found += [raw for name, raw in files_of(family) if not name.endswith(NO_MAIL)]
    return [raw for raw in found if b":" in raw[:1_000]]


def read(raw: bytes) -> None:
    message = parse(raw)
    _ = (message.headers, message.subject, message.from_, message.to, message.cc, message.date)
    _ = (message.references, message.text, message.html, message.attachments)


def read_by_library(raw: bytes) -> bool:
    """The same by the standard library; False where it raises."""
    try:
        message = message_from_bytes(raw, policy=policy.default)
        _ = message.items(), message["Subject"], message["From"], message["To"], message["Date"]
        for part in message.walk():
            assert isinstance(part, EmailMessage)
            if not part.is_multipart():
                _ = part.get_filename()
                if part.get_content_maintype() == "text":
                    part.get_content()
                else:
                    part.get_payload(decode=True)
    except Exception:  # what it raises is the finding
        return False
    return True


def best_s(raw: bytes) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        read(raw)
        best = min(best, time.perf_counter() - started)
    return best


def dearest_ms() -> float:
    """Milliseconds for 50 KB of the public template that takes longest."""
    worst = 0.0
    for name, raw in files_of(corpora_folder() / "html-templates"):
        if name.endswith(".html"):
            text = raw.decode()
            html = (text * (50_000 // len(text) + 1))[:50_000]
            times = []
            for _ in range(5):
                started = time.perf_counter()
                sanitise(html)
                times.append(time.perf_counter() - started)
            worst = max(worst, min(times))
    return worst * 1e3


def main() -> int:
    if not corpora_folder().is_dir():
        note(f"no corpora at {corpora_folder()}; set MAILYARD_CORPORA")
        return 1
    corpus = mails()
    gc.disable()
    worst = ours_s = theirs_s = 0.0
    raised = 0
    for raw in corpus:
        took_s = best_s(raw)
        worst = max(worst, took_s / (0.002 + 0.05 * len(raw) / 1e6))
        started = time.perf_counter()
        if read_by_library(raw):
            theirs_s += time.perf_counter() - started
            ours_s += took_s
        else:
            raised += 1
    size_mb = sum(map(len, corpus)) / 1e6
    note(f"  {len(corpus):,} mails of {size_mb:.0f} MB; the standard library raises on {raised}")
    note(f"  read in {ours_s:.2f} s, by the standard library in {theirs_s:.2f} s")
    return report(
        [
            Row("slowest mail, share of 2 ms + 50 ms a MB", worst, "x", 1, True),
            Row("sanitising 50 KB of HTML, the dearest template", dearest_ms(), "ms", 5, True),
            Row("the corpus beside the standard library's parser", theirs_s / ours_s, "x", 5),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
