"""Receivers, answers and workers for the tests of shaping."""

from mailyard.sending.shape.answer import Answer, Phase, read_answer
from mailyard.sending.shape.book import read_book
from mailyard.sending.shape.receiver import Book
from mailyard.sending.transport import Outcome

BOOK = """
[receiver.default]
connections = 4
messages_per_connection = 100
rate = "100/s"
recover_every = "1 min"
recover_step = 0.1

[[receiver.default.rule]]
name = "full"
enhanced = ["4.2.2"]
retry = "2 h"
recipient_only = true

[[receiver.default.rule]]
name = "block"
code = ["421"]
text = "blocked"
pause = "10 min"
alert = "we are blocked"

[[receiver.default.rule]]
name = "limit-persists"
text = "limit"
after = "3 in 1 min"
pause = "30 min"
alert = "it limits us for long"

[[receiver.default.rule]]
name = "limit"
text = "limit"
slow = 0.5
retry = "10 min"

[[receiver.default.rule]]
name = "policy"
code = ["5xx"]
text = "policy"
suppress = true

[[receiver.default.rule]]
name = "listed"
code = ["5xx"]
text = "listed"
retry = "4 h"

[receiver.slow]
mx = ["slow.example"]
rate = "6/min"
connections = 1
"""


def book(extra: str = "") -> Book:
    return read_book([("book.toml", BOOK), ("extra.toml", extra)])


def accepted() -> Answer:
    return read_answer(Outcome.ACCEPTED, 250, "2.0.0 queued", Phase.CONTENT)


def later(reply: str = "451 4.3.0 not now", phase: Phase = Phase.CONTENT) -> Answer:
    return read_answer(Outcome.LATER, int(reply[:3]), reply, phase)


def never(reply: str = "550 5.1.1 nobody here", phase: Phase = Phase.RCPT) -> Answer:
    return read_answer(Outcome.NEVER, int(reply[:3]), reply, phase)


def unknown() -> Answer:
    return read_answer(Outcome.UNKNOWN, None, "connection lost", Phase.CONTENT)
