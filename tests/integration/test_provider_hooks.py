"""What providers tell: only what they have signed, once, in any order, of mail that is theirs."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from api_platform import Platform, Reply, start
from provider_signs import (
    CERTIFICATE_URL,
    SECRETS,
    SIGN,
    TOPIC,
    Signed,
    certificate,
    event,
    sendgrid,
    sns,
)

from mailyard.core import ids
from mailyard.core.clock import ManualClock
from mailyard.queue.batch import Batch
from mailyard.queue.engines.postgres import PostgresEngine
from mailyard.queue.job import EMAIL_EVENTS
from mailyard.queue.settle import Settler
from mailyard.sending.delivery import Delivery, StoryEvent, recipient_key
from mailyard.sending.returns.events import LATER_S, ProviderEvents
from mailyard.sending.returns.intake import HookIntake
from mailyard.sending.returns.record import Recorder
from mailyard.storage.database import Database

KINDS = ("ses", "sendgrid", "postmark", "mailgun", "resend")


class Hooks:
    """A platform with an address for every provider, and the worker's side of it."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        app = platform.app
        self.database: Database = app.database
        self.clock = ManualClock(datetime.now(UTC))
        self.engine = PostgresEngine(database=app.database, bus=app.bus, clock=self.clock)
        self.fetched: list[str] = []
        self.confirmed: list[str] = []
        self.paths: dict[str, str] = {}
        app.hook_intake = HookIntake(
            database=app.database, engine=self.engine, hooks=app.provider_hooks, fetch=self._fetch
        )
        self.handler = ProviderEvents(
            database=app.database,
            engine=self.engine,
            recorder=Recorder(database=app.database, live=app.live, suppressions=app.suppressions),
            hooks=app.provider_hooks,
            confirm=self._confirm,
            clock=self.clock,
        )

    async def _fetch(self, url: str) -> bytes:
        self.fetched.append(url)
        return certificate()

    async def _confirm(self, url: str) -> int:
        self.confirmed.append(url)
        return 200

    async def open(self, *kinds: str) -> None:
        for kind in kinds:
            body = {"kind": kind, "name": kind, "secret": SECRETS[kind]}
            made = await self.platform.call("POST", "/v1/provider-hooks", json=body)
            assert made.status == 201, made.body
            self.paths[kind] = "/v1/hooks/" + made.json["url"].partition("/v1/hooks/")[2]

    async def post(self, kind: str, signed: Signed) -> Reply:
        headers, body = signed
        return await self.platform.call(
            "POST", self.paths[kind], body=body, headers=headers, key=None
        )

    async def tell(self, kind: str, told: Any) -> None:
        """The provider tells it now, and the worker applies it."""
        reply = await self.post(kind, SIGN[kind](told, datetime.now(UTC)))
        assert reply.status == 200, reply.body
        assert await self.work() == 1

    async def work(self, wait_s: float = 0.0) -> int:
        jobs = await self.engine.lease([EMAIL_EVENTS], 100, wait_s, "test")
        if jobs:
            await self.handler.handle(Batch(jobs, Settler(self.engine), asyncio.Event()))
        return len(jobs)

    async def waiting(self) -> int:
        async with self.database.connection() as connection:
            return int(await connection.fetchval("SELECT count(*) FROM job"))

    async def sent(
        self, recipient: str, reply: str = "id=p-1", workspace_id: UUID | None = None
    ) -> str:
        """A delivery that a provider has accepted."""
        delivery_id = ids.uuid7()
        async with self.database.connection() as connection:
            await connection.execute(
                "INSERT INTO delivery (id, workspace_id, email_id, recipient, recipient_key, type,"
                " state, attempts, reply_code, reply, transport, handed_off_at, queued_at)"
                " VALUES ($1, $2, $3, $4, $5, 'receipt', 'accepted', 1, 202, $6, 'provider',"
                " now(), now())",
                delivery_id,
                workspace_id or self.platform.workspace_id,
                ids.uuid7(),
                recipient,
                recipient_key(recipient),
                reply,
            )
        return ids.type_id(ids.DELIVERY, delivery_id)

    async def story(self, delivery: str) -> tuple[Delivery, list[StoryEvent]]:
        found: tuple[Delivery, list[StoryEvent]] = await self.platform.app.deliveries.get(
            self.platform.workspace_id, ids.parse_type_id(ids.DELIVERY, delivery)
        )
        return found

    async def told(self, delivery: str) -> list[str]:
        """What was told of it after its hand-over, in order."""
        return [one.kind for one in (await self.story(delivery))[1] if one.kind]

    async def suppressed(self) -> Sequence[tuple[str, str, str]]:
        listed = await self.platform.app.suppressions.page(self.platform.workspace_id)
        return [(one.address, one.stream, one.reason) for one in reversed(listed)]


@pytest.fixture
async def hooks(database: Database) -> AsyncIterator[Hooks]:
    platform = await start(database)
    hooks = Hooks(platform)
    yield hooks
    await platform.close()


async def test_every_provider_is_believed_when_it_has_signed_and_its_history_is_told(
    hooks: Hooks,
) -> None:
    await hooks.open(*KINDS)
    for kind in KINDS:
        address = f"ada@{kind}.example"
        delivery = await hooks.sent(address)
        reply = await hooks.post(
            kind, SIGN[kind](event(kind, "bounced", delivery, address), datetime.now(UTC))
        )
        assert (reply.status, reply.json) == (200, {"taken": True}), kind
        assert await hooks.waiting() == 1, "durable before it is answered"
        assert await hooks.work() == 1
        found, story = await hooks.story(delivery)
        assert (found.state, found.reason) == ("bounced", "user_unknown"), kind
        assert [(one.state, one.kind) for one in story] == [
            ("queued", ""), ("handed_off", ""), ("accepted", ""), ("bounced", "bounced"),
        ], kind  # fmt: skip
        assert story[2].detail == "id=p-1"
        assert story[3].source == kind and "User unknown" in story[3].detail
        assert (await hooks.suppressed())[-1] == (address, "all", "hard_bounce")
    assert hooks.fetched == [CERTIFICATE_URL]


async def test_what_is_forged_old_or_for_nobody_is_refused_and_no_history_knows_it(
    hooks: Hooks,
) -> None:
    await hooks.open(*KINDS)
    delivery = await hooks.sent("ada@example.com")
    now = datetime.now(UTC)
    for kind in KINDS:
        told = event(kind, "bounced", delivery, "ada@example.com")
        headers, body = SIGN[kind](told, now)
        plain = {"content-type": headers["content-type"]}
        changed = body.replace(b"ada@", b"bob@").replace(b'"token": "', b'"token": "0')
        wrong = [
            ("changed", headers, changed),
            ("unsigned", plain, body.replace(b"ignature", b"x")),
        ]
        if kind == "postmark":
            wrong[0] = ("guessed", {**headers, "authorization": "Basic Z3Vlc3M6bWU="}, body)
        else:
            age_s = 3_700 if kind == "ses" else 301
            wrong.append(("old", *SIGN[kind](told, now - timedelta(seconds=age_s))))
            wrong.append(("of the future", *SIGN[kind](told, now + timedelta(seconds=400))))
        for what, bad_headers, bad_body in wrong:
            reply = await hooks.post(kind, (bad_headers, bad_body))
            assert (reply.status, reply.json["code"]) == (401, "hook_refused"), (kind, what)
        other = next(name for name in KINDS if name != kind)
        hooks.paths["wrong"] = hooks.paths[kind].replace(f"/{kind}/", f"/{other}/")
        assert (await hooks.post("wrong", (headers, body))).status == 404
    hooks.paths["nobody"] = "/v1/hooks/mailgun/nobody"
    assert (await hooks.post("nobody", (headers, body))).status == 404
    assert await hooks.waiting() == 0
    assert await hooks.told(delivery) == []


async def test_a_replay_is_refused_and_a_repetition_is_harmless(hooks: Hooks) -> None:
    await hooks.open(*KINDS)
    for kind in KINDS:
        address = f"ada@{kind}.example"
        delivery = await hooks.sent(address)
        told = event(kind, "complained", delivery, address)
        signed = SIGN[kind](told, datetime.now(UTC))
        first, *others = await asyncio.gather(*(hooks.post(kind, signed) for _ in range(3)))
        again = await hooks.post(kind, signed)
        statuses = sorted(reply.status for reply in [first, *others, again])
        # Postmark signs nothing that a replay could be known by.
        assert statuses == ([200] * 4 if kind == "postmark" else [200, 409, 409, 409]), kind
        await hooks.work()
        await hooks.tell(kind, told)  # the provider itself says it again, signed anew
        assert await hooks.told(delivery) == ["complained"], kind
        assert (await hooks.suppressed())[-1] == (address, "all", "complaint")


async def test_the_order_in_which_things_are_told_does_not_matter(hooks: Hooks) -> None:
    await hooks.open("sendgrid")
    for order in (["bounced", "delivered", "complained"], ["complained", "delivered", "bounced"]):
        address = f"{order[0]}@example.com"
        delivery = await hooks.sent(address)
        for what in order:
            await hooks.tell("sendgrid", event("sendgrid", what, delivery, address))
        found, story = await hooks.story(delivery)
        assert found.state == "bounced"
        assert sorted(await hooks.told(delivery)) == ["bounced", "complained", "delivered"]
        assert story[2].state == "accepted", "our own word comes before what is told of it"
    # All in one request, out of order, with others' between them.
    one, other = await hooks.sent("one@example.com"), await hooks.sent("other@example.com")
    together = [
        *event("sendgrid", "complained", one, "one@example.com"),
        *event("sendgrid", "delivered", other, "other@example.com"),
        *event("sendgrid", "delivered", one, "one@example.com"),
        {"event": "open", "email": "one@example.com", "mailyard_delivery": one},
    ]
    await hooks.tell("sendgrid", together)
    assert (await hooks.story(one))[0].state == "delivered"
    assert (await hooks.story(other))[0].state == "delivered"
    assert await hooks.told(one) == ["complained", "delivered"]


async def test_a_mail_is_found_by_the_providers_own_id_where_ours_does_not_come_back(
    hooks: Hooks,
) -> None:
    await hooks.open(*KINDS)
    for kind in KINDS:
        address, provider_id = f"ada@{kind}.example", f"{kind}-7"
        mine = await hooks.sent(address, f"id={provider_id}")
        beside = await hooks.sent(f"bob@{kind}.example", f"id={provider_id}")
        for what in ("delivered", "bounced", "complained"):  # also after its answer has gone
            await hooks.tell(kind, event(kind, what, "", address, provider_id))
        assert sorted(await hooks.told(mine)) == ["bounced", "complained", "delivered"], kind
        assert await hooks.told(beside) == [], kind


async def test_events_of_mail_that_is_not_there_or_not_theirs_change_nothing(
    hooks: Hooks,
) -> None:
    await hooks.open("mailgun")
    other_id, _ = await hooks.platform.other_workspace()
    theirs = await hooks.sent("ada@example.com", "id=theirs", workspace_id=other_id)
    unknown = ids.type_id(ids.DELIVERY, ids.uuid7())
    for delivery, provider_id in ((theirs, ""), (unknown, ""), ("", "theirs"), ("x", "unknown")):
        told = event("mailgun", "bounced", delivery, "ada@example.com", provider_id)
        await hooks.tell("mailgun", told)
    for later_s in LATER_S:
        hooks.clock.advance(later_s + 1)
        applied = 0
        while applied < 4:
            applied += await hooks.work(wait_s=10.0)
    assert await hooks.waiting() == 0, "it was tried for a while and let go"
    async with hooks.database.connection() as connection:
        row = await connection.fetchrow(
            "SELECT (SELECT count(*) FROM delivery_event), (SELECT count(*) FROM suppression),"
            " (SELECT state::text FROM delivery)"
        )
    assert tuple(row) == (0, 0, "accepted")


async def test_an_event_may_be_faster_than_the_commit_of_its_hand_over(hooks: Hooks) -> None:
    await hooks.open("resend")
    delivery = await hooks.sent("ada@example.com")
    async with hooks.database.connection() as connection:
        await connection.execute("UPDATE delivery SET state = 'handed_off'")
        await hooks.tell("resend", event("resend", "delivered", delivery, "ada@example.com"))
        assert await hooks.told(delivery) == []
        await connection.execute("UPDATE delivery SET state = 'accepted'")
    hooks.clock.advance(LATER_S[0] + 1)
    assert await hooks.work(wait_s=10.0) == 1
    assert (await hooks.story(delivery))[0].state == "delivered"


async def test_sns_is_believed_only_with_its_own_certificate_of_the_right_topic(
    hooks: Hooks,
) -> None:
    await hooks.open("ses")
    now = datetime.now(UTC)
    for url in (
        "https://evil.example/SimpleNotificationService.pem",
        "https://sns.eu-central-1.amazonaws.com.evil.example/cert.pem",
        "https://sns.eu-central-1.amazonaws.com@evil.example/cert.pem",
        "http://sns.eu-central-1.amazonaws.com/cert.pem",
        "https://bucket.s3.amazonaws.com/cert.pem",
        "https://sns.eu-central-1.amazonaws.com:8443/cert.pem",
    ):
        reply = await hooks.post("ses", sns("{}", now, SigningCertURL=url))
        assert reply.status == 401, url
    assert hooks.fetched == []
    topic = TOPIC.replace("123456789012", "999999999999")
    assert (await hooks.post("ses", sns("{}", now, TopicArn=topic))).status == 401
    assert hooks.fetched == []


async def test_a_subscription_is_confirmed_in_the_background_at_an_address_of_sns(
    hooks: Hooks,
) -> None:
    await hooks.open("ses")
    now = datetime.now(UTC)
    url = "https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&Token=abc"
    for address in ("https://evil.example/?Action=ConfirmSubscription", url):
        signed = sns("You have chosen …", now, Type="SubscriptionConfirmation",
                     SubscribeURL=address, Token="abc")  # fmt: skip
        assert (await hooks.post("ses", signed)).status == 200
        assert hooks.confirmed == []
        await hooks.work()
        hooks.confirmed, asked = [], hooks.confirmed
    assert asked == [url]
    (listed,) = (await hooks.platform.call("GET", "/v1/provider-hooks")).json["items"]
    assert listed["confirmed_at"] is not None


async def test_a_request_that_is_signed_and_cannot_be_read_holds_up_no_other(hooks: Hooks) -> None:
    await hooks.open("sendgrid")
    delivery = await hooks.sent("ada@example.com")
    now = datetime.now(UTC)
    good = sendgrid(event("sendgrid", "delivered", delivery, "ada@example.com"), now)
    bad = sendgrid({"not": "an array"}, now)  # type: ignore[arg-type]
    replies = await asyncio.gather(*(hooks.post("sendgrid", one) for one in (bad, good)))
    assert [reply.status for reply in replies] == [200, 200]
    while await hooks.work():
        pass
    assert (await hooks.story(delivery))[0].state == "delivered"
    (dead,) = (await hooks.platform.call("GET", "/v1/dead-letters")).json["items"]
    assert "cannot be read" in json.dumps(dead)


async def test_policy_suppresses_nobody_whatever_the_provider_calls_it(hooks: Hooks) -> None:
    await hooks.open("sendgrid", "postmark")
    delivery = await hooks.sent("ada@example.com")
    said = "550 5.7.1 Message rejected: the sending domain's policy does not allow it"
    (one,) = event("sendgrid", "bounced", delivery, "ada@example.com")
    await hooks.tell("sendgrid", [{**one, "status": "5.7.1", "reason": said}])
    other = await hooks.sent("bob@example.com")
    soft = event("postmark", "bounced", other, "bob@example.com") | {"Type": "SoftBounce"}
    await hooks.tell("postmark", soft)
    third = await hooks.sent("cleo@example.com")
    hard = event("postmark", "bounced", third, "cleo@example.com") | {
        "Type": "HardBounce",
        "Details": "smtp;550 5.7.1 <cleo@example.com>: Recipient address rejected: User unknown",
    }
    await hooks.tell("postmark", hard)
    for one in (delivery, other, third):
        assert (await hooks.story(one))[0].state == "bounced"
    assert await hooks.suppressed() == []
