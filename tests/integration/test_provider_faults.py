"""HTTP providers that fail: what the hand-off says then, and what is sent again.

Mailgun's API stands for those that take one mail a request, Postmark's for those that answer for
each mail of a batch, Resend's for those that take a batch whole and know a repeated request.
"""

import asyncio
from collections import Counter
from typing import Any

import pytest
import uvloop
from http_script import (
    LOOPBACK,
    Seen,
    Sender,
    Step,
    answer,
    by_request,
    hang_up,
    letter,
    message_id_of,
    raw,
    scripted,
    sending,
    silent,
)
from smtp_wire import until

from mailyard.core import ids
from mailyard.core.backoff import Backoff
from mailyard.core.errors import Unavailable
from mailyard.net.http import HttpClient, HttpOptions
from mailyard.ratelimit.ratelimit import Drawn
from mailyard.sending.transport import Handoff, Outcome, Outgoing, Recipient
from mailyard.sending.transports.http_provider import HttpProvider, ProviderOptions
from mailyard.sending.transports.mailgun import Mailgun
from mailyard.sending.transports.postmark import Postmark
from mailyard.sending.transports.resend import Resend
from mailyard.sending.transports.sendgrid import SendGrid
from mailyard.sending.transports.ses import Ses
from mailyard.sending.transports.sigv4 import AwsCredentials

TAKEN = answer(200, {"id": "<1@mg>", "message": "Queued. Thank you."})
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
LONG = Backoff(first_s=60.0, cap_s=60.0)


@pytest.fixture(scope="module")
def event_loop_policy() -> uvloop.EventLoopPolicy:
    """The loop of production."""
    return uvloop.EventLoopPolicy()


def mailgun(url: str) -> Mailgun:
    return Mailgun(domain="mg.s.example", key="key", endpoint=url)


async def one_answer(*steps: Step, http: HttpOptions | None = None, **options: object) -> Handoff:
    """What becomes of one mail to a Mailgun that does `steps`."""
    async with scripted(*steps) as server, sending(mailgun(server.url), http, **options) as sender:
        return await sender.one()


def batch_ids(seen: Seen) -> Step:
    """What Resend answers to a batch."""
    emails: Any = seen.json()
    return answer(200, {"data": [{"id": email["to"][0]} for email in emails]})


# One mail, one answer.


async def test_a_mail_that_is_taken_keeps_the_providers_id() -> None:
    handoff = await one_answer(TAKEN)
    assert (handoff.outcome, handoff.reply_code) == (Outcome.ACCEPTED, 200)
    assert message_id_of(handoff.reply) == "1@mg"
    assert handoff.transport == "provider"


async def test_nobody_listens_so_another_way_may_have_it() -> None:
    async with scripted(TAKEN) as server:
        pass
    async with sending(mailgun(server.url)) as sender:
        handoff = await sender.one()
    assert (handoff.outcome, handoff.route_fault) == (Outcome.LATER, True)


async def test_tls_that_fails_leaves_nothing_behind() -> None:
    async with scripted(TAKEN) as server:
        vendor = mailgun(server.url.replace("http:", "https:"))
        async with sending(vendor, HttpOptions(connect_s=0.2)) as sender:
            handoff = await sender.one()
        assert (handoff.outcome, handoff.route_fault) == (Outcome.LATER, True)
        assert server.seen == []


async def test_a_provider_at_a_forbidden_address_is_the_routes_fault() -> None:
    client = HttpClient()
    provider = HttpProvider(
        name="provider", vendor=mailgun("http://127.0.0.1:9"), http=client, rate=Away()
    )
    handoff = await Sender(provider).one()
    assert (handoff.outcome, handoff.route_fault) == (Outcome.LATER, True)
    assert "settings can allow it" in handoff.reply
    await provider.close(1)
    await client.close()


@pytest.mark.parametrize(
    "step",
    [
        hang_up(),
        hang_up(b"HTTP/1.1 200 OK\r\nCont"),
        hang_up(HEAD + b"Content-Length: 40\r\n\r\n" + b'{"id": "<1@'),
        answer(200, b'{"id": "<1@'),
        answer(200, b"<html>welcome to the hotel</html>", {"Content-Type": "text/html"}),
        answer(200, b"", {"Content-Type": "application/json"}),
        answer(204),
        raw(b"250 2.0.0 Ok: queued as 1234\r\n"),
        answer(200, b" " * (2 << 20)),
        answer(502, b"<html>bad gateway</html>"),
        answer(504),
    ],
)
async def test_nobody_knows_whether_a_mail_was_taken_when_the_answer_is_lost(step: Step) -> None:
    handoff = await one_answer(step)
    assert (handoff.outcome, handoff.route_fault) == (Outcome.UNKNOWN, False)
    assert handoff.reply


async def test_a_slow_answer_is_unknown_when_its_time_is_over() -> None:
    handoff = await one_answer(silent(), request_s=0.1)
    assert handoff.outcome is Outcome.UNKNOWN
    handoff = await one_answer(silent(HEAD + b"Content-Length: 40\r\n\r\n{"), request_s=0.1)
    assert handoff.outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(
    "step",
    [
        hang_up(b"HTTP/1.1 401 No\r\nContent-Length: 40\r\n\r\nFor"),
        hang_up(b"HTTP/1.1 400 No\r\nContent-Length: 40\r\n\r\n{"),
        answer(500, b"oops"),
        answer(503),
        answer(302, b"", {"Location": "/login"}),
        answer(403, b"Forbidden"),
    ],
)
async def test_a_no_that_blames_nobody_here_lets_another_way_have_the_mail(step: Step) -> None:
    handoff = await one_answer(step)
    assert (handoff.outcome, handoff.route_fault) == (Outcome.LATER, True)


async def test_a_mail_that_is_refused_is_refused_for_good() -> None:
    handoff = await one_answer(answer(400, {"message": "to parameter is not a valid address"}))
    assert (handoff.outcome, handoff.route_fault) == (Outcome.NEVER, False)
    assert handoff.reply == "400 to parameter is not a valid address"


async def test_a_mail_that_is_too_large_for_this_provider_may_go_another_way() -> None:
    async with scripted(TAKEN) as server, sending(mailgun(server.url)) as sender:
        handoff = await sender.one(content=b"x" * (26 << 20))
        assert (handoff.outcome, handoff.route_fault) == (Outcome.NEVER, True)
        assert server.seen == []


async def test_a_long_refusal_is_cut() -> None:
    handoff = await one_answer(answer(400, {"message": "é" * 5000}))
    assert len(handoff.reply) == 500


# Pace.


async def test_a_429_with_a_short_pause_is_waited_for() -> None:
    async with scripted(answer(429), answer(429), TAKEN) as server:
        async with sending(mailgun(server.url)) as sender:
            handoff = await sender.one()
        assert handoff.outcome is Outcome.ACCEPTED
        assert len(server.seen) == 3


async def test_a_429_that_does_not_pass_is_answered() -> None:
    async with scripted(answer(429, {"message": "slow down"})) as server:
        async with sending(mailgun(server.url)) as sender:
            handoff = await sender.one()
        assert (handoff.outcome, handoff.route_fault) == (Outcome.LATER, True)
        assert handoff.reply == "429 slow down"
        assert len(server.seen) == 3


@pytest.mark.parametrize("wish", ["86400", "Fri, 31 Dec 9999 23:59:59 GMT", "9" * 300])
async def test_an_absurd_retry_after_is_capped_and_others_are_not_kept_waiting(wish: str) -> None:
    async with scripted(answer(429, b"", {"Retry-After": wish}), TAKEN) as server:
        async with sending(mailgun(server.url)) as sender:
            first = await sender.one()
            second = await sender.one()
            assert (first.outcome, first.route_fault) == (Outcome.LATER, True)
            assert (second.outcome, second.route_fault) == (Outcome.LATER, True)
            assert "left alone" in second.reply
            now = asyncio.get_running_loop().time()
            assert sender.provider._resume_at - now <= 300.0
        assert len(server.seen) == 1, "during the pause nothing is asked"


async def test_a_provider_that_came_back_is_used_again() -> None:
    async with scripted(answer(503), TAKEN) as server, sending(mailgun(server.url)) as sender:
        assert (await sender.one()).outcome is Outcome.LATER
        assert (await sender.one()).outcome is Outcome.ACCEPTED


async def test_requests_that_fail_together_are_one_failure() -> None:
    async with scripted(answer(503)) as server:
        backoff = Backoff(first_s=0.2, cap_s=1000.0)
        async with sending(mailgun(server.url), backoff=backoff, patience_s=0.0) as sender:
            for _ in range(20):
                sender.send()
            assert await sender.settled() == {Outcome.LATER: 20}
            assert sender.provider._failures == 1


async def test_no_more_requests_are_in_flight_than_the_options_say() -> None:
    now = 0
    most = 0

    async def slow(seen: Seen, writer: asyncio.StreamWriter) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.005)
        now -= 1
        await TAKEN(seen, writer)

    async with scripted(slow) as server, sending(mailgun(server.url), in_flight=3) as sender:
        for _ in range(30):
            sender.send()
        assert await sender.settled() == {Outcome.ACCEPTED: 30}
    assert most == 3


class Noting:
    """A rate limiter that lets everything pass, the second time it is asked, and notes."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float, float, float]] = []

    async def draw(self, key: str, amount: float, per_s: float, burst: float) -> Drawn:
        return Drawn(await self.take(key, amount, per_s, burst))

    async def take(self, key: str, amount: float, per_s: float, burst: float) -> float:
        self.asked.append((key, amount, per_s, burst))
        return 0.001 if len(self.asked) % 2 else 0.0


class Away(Noting):
    async def take(self, key: str, amount: float, per_s: float, burst: float) -> float:
        raise Unavailable("the store of the rate limiter is away")


async def with_rate(rate: Noting, url: str, count: int) -> Sender:
    client = HttpClient(allowed=LOOPBACK)
    vendor = Ses(region="x", credentials=AwsCredentials("a", "b"), endpoint=url)
    options = ProviderOptions(per_s=1000.0)
    provider = HttpProvider(name="ses", vendor=vendor, http=client, rate=rate, options=options)
    sender = Sender(provider)
    for _ in range(count):
        sender.send("a@x.example", "b@x.example")
    await sender.settled()
    await provider.close(1)
    await client.close()
    return sender


async def test_the_providers_rate_is_drawn_in_its_own_unit_and_never_in_large_bursts() -> None:
    rate = Noting()
    async with scripted(answer(200, {"MessageId": "1"})) as server:
        sender = await with_rate(rate, server.url, 50)
    assert await sender.settled() == {Outcome.ACCEPTED: 100}
    assert {(key, per_s) for key, _, per_s, _ in rate.asked} == {("provider:ses", 965.0)}
    assert sum(amount for _, amount, _, _ in rate.asked[1::2]) == 100
    assert max(amount for _, amount, _, _ in rate.asked) <= 22


async def test_without_the_rate_limiter_nothing_is_sent_and_everybody_is_told() -> None:
    async with scripted(TAKEN) as server:
        sender = await with_rate(Away(), server.url, 3)
        assert await sender.settled() == {Outcome.LATER: 6}
        assert server.seen == []


# Batches.


async def test_mails_that_come_together_are_one_request() -> None:
    async with scripted(by_request(batch_ids)) as server:
        async with sending(Resend(key="k", endpoint=server.url)) as sender:
            sent = [sender.send(f"{n}@x.example")[0] for n in range(250)]
            assert await sender.settled() == {Outcome.ACCEPTED: 250}
        assert sorted(len(seen.json()) for seen in server.seen) == [50, 100, 100]  # type: ignore[arg-type]
        for n, delivery_id in enumerate(sent):
            assert message_id_of(sender.of(delivery_id).reply) == f"{n}@x.example"


async def test_a_few_mails_wait_a_moment_for_others_and_go() -> None:
    async with scripted(by_request(batch_ids)) as server:
        async with sending(Resend(key="k", endpoint=server.url)) as sender:
            sender.send()
            await asyncio.sleep(0)
            sender.send()
            await sender.settled()
        assert len(server.seen) == 1


async def test_one_bad_mail_does_not_fail_its_neighbours() -> None:
    def judge(seen: Seen) -> Step:
        if b"bad@" in seen.body:
            return answer(422, {"name": "validation_error", "message": "Invalid `to` field"})
        return batch_ids(seen)

    async with scripted(by_request(judge)) as server:
        async with sending(Resend(key="k", endpoint=server.url)) as sender:
            sent = [sender.send(f"{'bad' if n in (3, 40) else n}@x.example")[0] for n in range(64)]
            assert await sender.settled() == {Outcome.ACCEPTED: 62, Outcome.NEVER: 2}
        for n in (3, 40):
            assert sender.of(sent[n]).outcome is Outcome.NEVER
        assert len(server.seen) < 30


async def test_one_bad_recipient_does_not_fail_the_others_of_a_mail() -> None:
    def judge(seen: Seen) -> Step:
        return answer(400, {"message": "not a valid address"}) if b"bad@" in seen.body else TAKEN

    async with scripted(by_request(judge)) as server, sending(mailgun(server.url)) as sender:
        content = letter("list@s.example")
        addresses = [f"{'bad' if n == 5 else n}@x.example" for n in range(9)]
        sent = sender.send(*addresses, content=content)
        assert await sender.settled() == {Outcome.ACCEPTED: 8, Outcome.NEVER: 1}
        assert sender.of(sent[5]).outcome is Outcome.NEVER


async def test_errors_inside_a_200_are_each_mails_own() -> None:
    results = [
        {"ErrorCode": 0, "Message": "OK", "MessageID": "m1"},
        {"ErrorCode": 406, "Message": "You tried to send to an inactive recipient."},
        {"ErrorCode": 300, "Message": "Invalid 'To' address"},
        {"ErrorCode": 405, "Message": "Not allowed to send: out of credits"},
        {"ErrorCode": 0, "Message": "OK", "MessageID": "m5"},
    ]
    async with (
        scripted(answer(200, results)) as server,
        sending(Postmark(token="t", endpoint=server.url)) as sender,
    ):
        sent = [sender.send()[0] for _ in results]
        await sender.settled()
    said = [(sender.of(one).outcome, sender.of(one).route_fault) for one in sent]
    assert said == [
        (Outcome.ACCEPTED, False),
        (Outcome.NEVER, False),
        (Outcome.NEVER, False),
        (Outcome.LATER, True),
        (Outcome.ACCEPTED, False),
    ]


async def test_fewer_answers_than_mails_leave_all_of_them_unknown() -> None:
    async with scripted(answer(200, [{"ErrorCode": 0, "MessageID": "m1"}])) as server:
        async with sending(Postmark(token="t", endpoint=server.url)) as sender:
            for _ in range(3):
                sender.send()
            assert await sender.settled() == {Outcome.UNKNOWN: 3}
        assert len(server.seen) == 1, "what is unknown is not handed over again"


async def test_a_suspended_account_fails_nobody_for_good() -> None:
    step = answer(400, {"message": "suspended"}, {"x-amzn-ErrorType": "AccountSuspendedException"})
    async with scripted(step) as server:
        vendor = Ses(region="x", credentials=AwsCredentials("a", "b"), endpoint=server.url)
        async with sending(vendor, patience_s=0.0, backoff=LONG) as sender:
            for _ in range(50):
                sender.send()
            assert await sender.settled() == {Outcome.LATER: 50}
        assert all(sender.of(one).route_fault for one in sender.answers)


async def test_a_mail_to_more_than_a_request_takes_is_several() -> None:
    async with scripted(answer(200, {"MessageId": "1"})) as server:
        vendor = Ses(region="x", credentials=AwsCredentials("a", "b"), endpoint=server.url)
        async with sending(vendor) as sender:
            sender.send(*(f"{n}@x.example" for n in range(120)), content=letter("l@s.example"))
            assert await sender.settled() == {Outcome.ACCEPTED: 120}
        bodies: list[Any] = [seen.json() for seen in server.seen]
        told = [to for body in bodies for to in body["Destination"]["ToAddresses"]]
        assert Counter(told) == Counter(f"{n}@x.example" for n in range(120))
        assert max(len(body["Destination"]["ToAddresses"]) for body in bodies) <= 50


async def test_hidden_recipients_do_not_see_each_other_at_an_api_of_fields() -> None:
    async with scripted(answer(202, b"", {"X-Message-Id": "1"})) as server:
        async with sending(SendGrid(key="k", endpoint=server.url)) as sender:
            content = letter("undisclosed-recipients:;")
            sender.send("a@x.example", "b@x.example", "c@x.example", content=content)
            assert await sender.settled() == {Outcome.ACCEPTED: 3}
        people: list[Any] = [p for seen in server.seen for p in seen.json()["personalizations"]]  # type: ignore[index]
        assert sorted(one["to"][0]["email"][0] for one in people) == ["a", "b", "c"]
        assert all(len(one["to"]) == 1 and "bcc" not in one for one in people)


# Repeating, where it is harmless.


async def test_a_lost_answer_is_asked_for_again_where_a_repetition_is_the_same_request() -> None:
    async with scripted(hang_up(), answer(502), by_request(batch_ids)) as server:
        async with sending(Resend(key="k", endpoint=server.url)) as sender:
            handoff = await sender.one()
        assert handoff.outcome is Outcome.ACCEPTED
        assert len({seen.headers["idempotency-key"] for seen in server.seen}) == 1
        assert len({seen.body for seen in server.seen}) == 1
        assert len(server.seen) == 3


async def test_later_said_of_a_repetition_says_nothing_of_the_first() -> None:
    async with scripted(hang_up(), answer(429)) as server:
        async with sending(Resend(key="k", endpoint=server.url)) as sender:
            handoff = await sender.one()
        assert (handoff.outcome, handoff.route_fault) == (Outcome.UNKNOWN, False)
        assert len(server.seen) == 3


async def test_a_no_said_of_a_repetition_was_true_of_the_first() -> None:
    no = answer(422, {"name": "validation_error", "message": "x"})
    async with (
        scripted(hang_up(), no) as server,
        sending(Resend(key="k", endpoint=server.url)) as sender,
    ):
        assert (await sender.one()).outcome is Outcome.NEVER


async def test_a_lost_answer_is_not_asked_for_again_elsewhere() -> None:
    async with scripted(hang_up(), TAKEN) as server, sending(mailgun(server.url)) as sender:
        assert (await sender.one()).outcome is Outcome.UNKNOWN
        assert len(server.seen) == 1


# The end.


async def test_closing_says_of_everybody_what_is_known() -> None:
    async with scripted(silent()) as server:
        async with sending(mailgun(server.url), in_flight=2) as sender:
            sent = [sender.send()[0] for _ in range(5)]
            await until(lambda: len(server.seen) == 2)
            await sender.provider.close(0.05)
            outcomes = await sender.settled()
        assert outcomes == {Outcome.UNKNOWN: 2, Outcome.LATER: 3}
        assert [sender.of(one).outcome for one in sent[:2]] == [Outcome.UNKNOWN] * 2


async def test_closing_waits_for_what_can_still_be_done() -> None:
    async with scripted(TAKEN) as server, sending(mailgun(server.url), in_flight=1) as sender:
        for _ in range(10):
            sender.send()
        await sender.provider.close(10)
        assert await sender.settled() == {Outcome.ACCEPTED: 10}


async def test_what_comes_after_the_end_is_answered_too() -> None:
    async with scripted(TAKEN) as server, sending(mailgun(server.url)) as sender:
        await sender.provider.close(1)
        assert (await sender.one()).outcome is Outcome.LATER
        assert server.seen == []


async def test_a_caller_that_fails_does_not_stop_the_others() -> None:
    async with scripted(TAKEN) as server, sending(mailgun(server.url)) as sender:

        def fail(handoff: Handoff) -> None:
            raise RuntimeError("the caller's own")

        mail = Outgoing("", (Recipient(ids.uuid7(), "a@x.example"),), b"x\r\n", False, False)
        sender.provider.submit(mail, fail)
        assert (await sender.one()).outcome is Outcome.ACCEPTED
