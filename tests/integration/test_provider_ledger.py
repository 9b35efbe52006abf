"""What is said of a mail is true: a provider that fails at random keeps a ledger of its own."""

import asyncio
from collections import Counter
from random import Random
from typing import Any

import pytest
from http_script import Seen, Step, answer, by_request, hang_up, scripted, sending

from mailyard.net.http import HttpOptions
from mailyard.sending.transport import Outcome
from mailyard.sending.transports.postmark import Postmark
from mailyard.sending.transports.resend import Resend
from mailyard.sending.transports.vendor import Vendor

MAILS = 300


class Fickle:
    """Takes batches of Resend's or Postmark's API, or fails in every way that there is.

    It takes a repeated idempotency key for the same request, and refuses whoever is called "bad".
    """

    def __init__(self, random: Random) -> None:
        self.random = random
        self.taken: Counter[str] = Counter()
        self.answers: dict[str, Step] = {}

    def judge(self, seen: Seen) -> Step:
        mails: Any = seen.json()
        key = seen.headers.get("idempotency-key", "")
        if key in self.answers:
            return self.answers[key] if self.random.random() < 0.7 else hang_up()
        fate = self.random.random()
        if fate < 0.1:
            return answer(429, b"", {"Retry-After": "0"})
        if fate < 0.2:
            return answer(self.random.choice([500, 503]))
        if fate < 0.25:
            return hang_up()  # before it took anything
        batch = [self.reader(mail) for mail in mails]
        if key and any(one.startswith("bad") for one in batch):
            return answer(422, {"name": "validation_error", "message": "bad"})
        good = [one for one in batch if not one.startswith("bad")]
        self.taken.update(good)
        yes = answer(200, {"data": [{"id": one} for one in batch]} if key else self.results(batch))
        if key:
            self.answers[key] = yes
        if fate < 0.35:
            return hang_up(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{")
        if fate < 0.4:
            return answer(502)
        return yes

    @staticmethod
    def reader(mail: dict[str, Any]) -> str:
        to = mail.get("To") or mail["to"][0]
        return str(to)

    @staticmethod
    def results(batch: list[str]) -> list[dict[str, object]]:
        return [
            {"ErrorCode": 300, "Message": "bad"}
            if one.startswith("bad")
            else {"ErrorCode": 0, "Message": "OK", "MessageID": one}
            for one in batch
        ]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", [Resend, Postmark])
async def test_nobody_is_missed_nobody_is_sent_to_twice_and_every_answer_is_true(
    kind: type, seed: int
) -> None:
    random = Random(seed)
    fickle = Fickle(random)
    async with scripted(by_request(fickle.judge)) as server:
        vendor: Vendor = (
            Resend(key="k", endpoint=server.url)
            if kind is Resend
            else Postmark(token="t", endpoint=server.url)
        )
        async with sending(vendor, HttpOptions(read_s=1.0), in_flight=4) as sender:
            people = {}
            for n in range(MAILS):
                address = f"{'bad' if n % 37 == 0 else 'good'}{n}@x.example"
                people[sender.send(address)[0]] = address
                if random.random() < 0.1:
                    await asyncio.sleep(0.005)
            outcomes = await sender.settled()
            said = {address: sender.of(one).outcome for one, address in people.items()}
    assert sum(outcomes.values()) == MAILS
    assert max(fickle.taken.values()) == 1, "nobody is sent to twice"
    for address, outcome in said.items():
        if outcome is Outcome.ACCEPTED:
            assert fickle.taken[address] == 1
        elif outcome is not Outcome.UNKNOWN:
            assert fickle.taken[address] == 0
        if outcome is Outcome.NEVER:
            assert address.startswith("bad")
