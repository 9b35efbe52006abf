"""Reading and writing mail: the parser's bound on hostile mail, and both sides on ordinary mail.

Hostile mail is read whole (every header, body and attachment); its bar is 2 ms + 50 ms a MB, and
the row shows the worst case as a share of that bar. Ordinary mail is 4 KB of text and HTML;
composing runs beside the standard library's `EmailMessage`, which is also the peer of the parser.
"""

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage

from measure import Row, note, report

from mailyard.protocol.address import Mailbox
from mailyard.protocol.mime import parse, parse_summary
from mailyard.sending.mould import Mould
from mailyard.sending.render import Compiled

NOW = datetime(2026, 1, 5, 12, 0, 0, tzinfo=UTC)
TEXT = "Dear Ada,\n\n" + "some words of plain text that go on.\n" * 25
HTML = "<html><body>\n" + "<p>some words of HTML that go on and on and on.</p>\n" * 58 + "</body>\n"
PAGE = HTML + "<p>{{ name }} {{ city }} {{ plan }} {{ code }}</p>\n"
DATA = {"name": "Ada", "city": "London", "plan": "gold", "code": "123"}
MOULD = Mould(sender=Mailbox("Shop", "shop@example.org"), seed="0190aa")


def multipart(boundary: bytes, body: bytes) -> bytes:
    return b"Content-Type: multipart/mixed; boundary=%s\r\n\r\n" % boundary + body


def encoded(encoding: bytes, body: bytes) -> bytes:
    return b"Content-Transfer-Encoding: %s\r\n\r\n" % encoding + body


def header(name: bytes, value: bytes) -> bytes:
    return name + b": " + value + b"\r\n\r\n"


def nested() -> bytes:
    levels = b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (level, level)
        for level in range(200)
    )
    return levels + b"z\n" * 500_000


HOSTILE = {
    "50,000 parts": multipart(b"a", b"--a\r\n\r\nx\r\n" * 50_000),
    "false delimiters": multipart(b"a", b"--a\r\n\r\n" + b"--ab\n" * 200_000),
    "nested multiparts": nested(),
    "nested messages": b"Content-Type: message/rfc822\r\n\r\n" * 30_000,
    "200,000 headers": b"X: y\r\n" * 200_000,
    "folded header": b"Subject: a\r\n" + b" x\r\n" * 250_000 + b"\r\n",
    "lines that are no headers": b"x y\r\n" * 200_000 + b"\r\n",
    "encoded words": header(b"Subject", b"=?utf-8?q?x?= " * 18_000),
    "words without end": header(b"Subject", b"=?a?q?" * 40_000),
    "60,000 addresses": header(b"From", b"a@b," * 60_000),
    "open comments": header(b"From", b"(" * 250_000),
    "parameters": header(b"Content-Type", b"text/plain" + b"; a=b" * 50_000),
    "comments in parameters": header(b"Content-Type", b"text/plain; a=" + b"()" * 100_000),
    "base64 runs": encoded(b"base64", b"AA=" * 333_333),
    "quoted-printable": encoded(b"quoted-printable", b"=41=\r\n" * 160_000),
    "uuencoded lines": encoded(b"uuencode", b"begin 644 x\n" + b"zz\n" * 330_000),
    "UTF-7": header(b"Content-Type", b"text/plain; charset=utf-7") + b"\xff\x81+~{" * 200_000,
    "an unknown charset": b"Content-Type: text/plain; charset=?\r\n\r\n" + b"\xff\x81" * 500_000,
    "NUL": b"\0" * 1_000_000,
    "unclosed tags": b"Content-Type: text/html\r\n\r\n" + b"<style>" * 140_000,
}


def read_whole(raw: bytes) -> None:
    message = parse(raw)
    _ = (message.headers, message.subject, message.from_, message.to, message.cc, message.date)
    _ = (message.references, message.text, message.html, message.attachments)


def write_by_library() -> bytes:
    message = EmailMessage(policy=policy.SMTP)
    message["From"] = "Shop <shop@example.org>"
    message["To"] = "Ada <ada@example.net>"
    message["Subject"] = "Hello Ada"
    message["Date"] = NOW
    message["Message-ID"] = "<1@example.org>"
    message["List-Unsubscribe"] = "<https://example.org/u/1>"
    message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    message.set_content(TEXT)
    message.add_alternative(HTML, subtype="html")
    return message.as_bytes()


def write() -> bytes:
    return MOULD.compose(
        "Ada", "ada@example.net", "Hello Ada", TEXT, HTML, "1@example.org", NOW,
        "https://example.org/u/1",
    )  # fmt: skip


def read_by_library(raw: bytes) -> None:
    message = message_from_bytes(raw, policy=policy.default)
    _ = (message["From"], message["Subject"], message["Date"], message["Message-ID"])
    for kind in ("plain", "html"):
        body = message.get_body((kind,))  # type: ignore[attr-defined]
        assert body is not None
        body.get_content()


def best_us(work: Callable[[], object], rounds: int = 7, share_s: float = 0.2) -> float:
    """Microseconds of one `work`, the best of `rounds`: what it costs when nothing disturbs."""
    work()
    started = time.perf_counter()
    work()
    times = max(1, int(share_s / (time.perf_counter() - started)))
    best = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(times):
            work()
        best = min(best, (time.perf_counter() - started) / times)
    return best * 1e6


def worst_hostile_share() -> float:
    """The dearest hostile mail, as a share of 2 ms + 50 ms a MB."""
    worst = 0.0
    for name, raw in HOSTILE.items():
        allowed_us = 2_000 + 50_000 * len(raw) / 1e6
        for what, work in (("whole", read_whole), ("summary", parse_summary)):
            share = best_us(lambda work=work, raw=raw: work(raw), 3, 0.02) / allowed_us  # type: ignore[misc]
            note(f"  {name}, {what}: {share:.2f} of the bar")
            worst = max(worst, share)
    return worst


def main() -> int:
    raw = write()
    compiled = Compiled("Hello {{ name }}", PAGE, TEXT + "{{ name }} {{ city }}\n")
    composing, peer = best_us(write), best_us(write_by_library)
    summary, reading = best_us(lambda: parse_summary(raw)), best_us(lambda: read_whole(raw))
    note(f"  EmailMessage writes in {peer:,.1f} us")
    note(f"  the standard library reads in {best_us(lambda: read_by_library(raw)):,.1f} us")
    hostile = worst_hostile_share()
    return report(
        [
            Row("hostile mail, worst share of 2 ms + 50 ms a MB", hostile, "x", 1, True),
            Row("summary of a 4 KB mail", summary, "us", 60, True),
            Row("whole reading of a 4 KB mail", reading, "us", 120, True),
            Row("composing a campaign mail", composing, "us", 26, True),
            Row("composing beside EmailMessage", peer / composing, "x", 40),
            Row("rendering three sources", best_us(lambda: compiled.render(DATA)), "us", 15, True),
        ]
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
