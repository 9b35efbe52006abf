"""Postmark against a small server that follows its documentation: it publishes no document that a
mock could be driven by.

The rules are those of "Send batch emails", "Email API" and "API error codes" of the developer
documentation: 500 messages, 50 MB, 50 recipients, a token, 422 with one error for a whole request,
200 with an answer for each message.
"""

from typing import Any
from uuid import uuid4

from http_script import Seen, Step, answer, by_request, letter, message_id_of, scripted, sending

from mailyard.sending.transport import Outcome
from mailyard.sending.transports.postmark import Postmark

TOKEN = "8f1c2a6e-server-token"
INACTIVE = "gone@example.com"
KNOWN_FIELDS = {
    "From", "To", "Cc", "Bcc", "Subject", "Tag", "HtmlBody", "TextBody", "ReplyTo", "Headers",
    "TrackOpens", "TrackLinks", "Attachments", "Metadata", "MessageStream",
}  # fmt: skip


def documented(seen: Seen) -> Step:
    """What Postmark answers to a request."""
    if (seen.method, seen.path) != ("POST", "/email/batch"):
        return answer(404)
    if seen.headers.get("x-postmark-server-token") != TOKEN:
        return answer(
            401, {"ErrorCode": 10, "Message": "No Account or Server API tokens were supplied"}
        )
    if seen.headers.get("content-type") != "application/json":
        return answer(415)
    batch: Any = seen.json()
    if len(batch) > 500:
        return answer(422, {"ErrorCode": 410, "Message": "Too many batch messages"})
    return answer(200, [result(message) for message in batch])


def result(message: dict[str, Any]) -> dict[str, object]:
    assert set(message) <= KNOWN_FIELDS
    assert message["TrackLinks"] in ("None", "HtmlAndText", "HtmlOnly", "TextOnly")
    people = [
        one for field in ("To", "Cc", "Bcc") for one in message.get(field, "").split(", ") if one
    ]
    if not people or len(people) > 50:
        return {"ErrorCode": 300, "Message": "Zero or too many recipients specified"}
    if not message.get("TextBody") and not message.get("HtmlBody"):
        return {"ErrorCode": 300, "Message": "Provide either email TextBody or HtmlBody or both."}
    if not message["From"].endswith(("@s.example", "@s.example>")):
        return {"ErrorCode": 400, "Message": "The 'From' address is not a Sender Signature"}
    if any("@" not in one for one in people):
        return {"ErrorCode": 300, "Message": "Error parsing 'To': Illegal email address"}
    sent = {"To": message.get("To", ""), "SubmittedAt": "2026-03-01T12:00:00Z"}
    if people == [INACTIVE]:
        return {
            "ErrorCode": 406,
            "Message": "You tried to send to recipient(s) that have been marked as inactive. Found "
            f"inactive addresses: {INACTIVE}. Inactive recipients are ones that have generated a "
            "hard bounce, a spam complaint, or a manual suppression.",
        }
    note = "OK"
    if INACTIVE in people:
        note = f"Message OK, but will not deliver to these inactive addresses: {INACTIVE}."
    return {**sent, "ErrorCode": 0, "Message": note, "MessageID": str(uuid4())}


async def test_a_thousand_mails_are_two_requests_and_each_has_its_own_id() -> None:
    async with scripted(by_request(documented)) as server:
        async with sending(Postmark(token=TOKEN, endpoint=server.url)) as sender:
            for n in range(1000):
                sender.send(f"{n}@example.com")
            assert await sender.settled() == {Outcome.ACCEPTED: 1000}
        assert len(server.seen) == 2
        found = {message_id_of(sender.of(one).reply) for one in sender.answers}
        assert len(found) == 1000


async def test_each_mail_of_a_batch_has_its_own_fate() -> None:
    async with scripted(by_request(documented)) as server:
        async with sending(Postmark(token=TOKEN, endpoint=server.url)) as sender:
            good, gone = sender.send()[0], sender.send(INACTIVE)[0]
            foreign = letter("ada@example.com").replace(b"shop@s.example", b"shop@o.example")
            unsigned = sender.send(content=foreign)[0]
            mixed = sender.send("ada@example.com", INACTIVE)
            await sender.settled()
        assert len(server.seen) == 1
        said = {
            one: (sender.of(one).outcome, sender.of(one).route_fault)
            for one in (good, gone, unsigned, *mixed)
        }
        assert said == {
            good: (Outcome.ACCEPTED, False),
            gone: (Outcome.NEVER, False),
            unsigned: (Outcome.LATER, True),
            mixed[0]: (Outcome.ACCEPTED, False),
            mixed[1]: (Outcome.NEVER, False),
        }


async def test_a_mail_to_a_hundred_is_sent_in_parts_of_fifty() -> None:
    async with (
        scripted(by_request(documented)) as server,
        sending(Postmark(token=TOKEN, endpoint=server.url)) as sender,
    ):
        sender.send(*(f"{n}@example.com" for n in range(100)))
        assert await sender.settled() == {Outcome.ACCEPTED: 100}


async def test_a_wrong_token_is_nobodys_fault_but_the_accounts() -> None:
    async with scripted(by_request(documented)) as server:
        async with sending(Postmark(token="wrong", endpoint=server.url)) as sender:
            handoff = await sender.one()
        assert (handoff.outcome, handoff.route_fault) == (Outcome.LATER, True)
        assert handoff.reply.startswith("401 10 ")
