"""What a delivery's history says after each fault of an HTTP provider.

All faults at once, each behind a provider and a domain of its own, through the deliverer and
PostgreSQL. On every route stands a second provider, which takes everything it is given: it may have
what the first certainly has not taken, and nothing else.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, suppress
from functools import partial

import pytest
from http_script import Script, Step, answer, hang_up, raw, scripted, silent
from provider_world import Ways
from sending_world import World

from mailyard.core.clock import SystemClock
from mailyard.sending.delivery import Deliveries
from mailyard.sending.provider import NewProvider
from mailyard.sending.request import EmailRequest
from mailyard.sending.routing import Conditions, StoredLeg, StoredRoute
from mailyard.sending.transports import http_provider
from mailyard.storage.database import Database

TAKEN = answer(200, {"id": "<1@mg>", "message": "Queued. Thank you."})
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 40\r\n\r\n"
INACTIVE = {"ErrorCode": 406, "Message": "You tried to send to an inactive recipient."}
NO_CREDITS = {"ErrorCode": 405, "Message": "Not allowed to send: out of credits"}

# name -> (kind, what its API does). The name is that of its domain's first label too.
FAULTS: Mapping[str, tuple[str, Step]] = {
    "well": ("mailgun", TAKEN),
    "broken": ("mailgun", answer(500, b"oops")),
    "busy": ("mailgun", answer(429, {"message": "slow"}, {"Retry-After": "9" * 30})),
    "timeless": (
        "mailgun",
        answer(429, {"message": "slow"}, {"Retry-After": f"Mon, 01 Jan {'9' * 20} 00:00:00 GMT"}),
    ),
    "unknown-key": ("mailgun", answer(401, b"Forbidden")),
    "half": ("mailgun", answer(200, b'{"id": "<1@')),
    "cut": ("mailgun", hang_up(HEAD + b'{"id": "<1@')),
    "slow": ("mailgun", silent(HEAD + b"{")),
    "lost": ("mailgun", hang_up()),
    "gateway": ("mailgun", answer(502, b"<html>bad gateway</html>")),
    "hotel": ("mailgun", raw(b"250 2.0.0 Ok: queued as 1234\r\n")),
    "refusing": ("mailgun", answer(400, {"message": "to parameter is not a valid address"})),
    "inactive": ("postmark", answer(200, [INACTIVE])),
    "account": ("postmark", answer(200, [NO_CREDITS])),
    "few": ("postmark", answer(200, [])),
}

# name -> (state, what the history says of the first provider, whether the second had the mail).
SAID: Mapping[str, tuple[str, str, bool]] = {
    "well": ("accepted", r"^id=1@mg", False),
    "broken": ("accepted", r"^500 oops", True),
    "busy": ("accepted", r"^429 slow", True),
    "timeless": ("accepted", r"^429 slow", True),
    "unknown-key": ("accepted", r"^401 Forbidden", True),
    "half": ("unknown", r"^200 with an answer that cannot be read", False),
    "cut": ("unknown", r"\S", False),
    "slow": ("unknown", r"no whole answer from .* in time", False),
    "lost": ("unknown", r"\S", False),
    "gateway": ("unknown", r"^502 ", False),
    "hotel": ("unknown", r"\S", False),
    "refusing": ("bounced", r"^400 to parameter is not a valid address", False),
    "inactive": ("bounced", r"^406 You tried to send to an inactive", False),
    "account": ("accepted", r"^405 Not allowed to send", True),
    "few": ("unknown", r"^0 answers came for 1 mails", False),
}


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    world = World(database, SystemClock())
    await world.open()
    yield world
    await world.bus.close()


async def add(ways: Ways, name: str, kind: str, url: str) -> None:
    if kind == "mailgun":
        settings, secrets = {"domain": "mg.example", "endpoint": url}, {"api_key": "k"}
    else:
        settings, secrets = {"endpoint": url}, {"server_token": "t"}
    await ways.add(NewProvider(name, kind, settings, secrets))


def both(name: str) -> list[StoredLeg]:
    return [StoredLeg(name, order=0), StoredLeg("second", order=1)]


async def settled(world: World) -> None:
    """Until every mail is where it should be. What is wrong is told by who looks at each."""
    wanted = {f"x@{name}.example": state for name, (state, _, _) in SAID.items()}
    with suppress(TimeoutError):
        async with asyncio.timeout(20):
            while await world.states("true") != wanted:
                await asyncio.sleep(0.05)


async def test_every_fault_is_told_and_only_what_was_not_taken_goes_elsewhere(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = partial(http_provider.ProviderOptions, request_s=0.5)
    monkeypatch.setattr(http_provider, "ProviderOptions", impatient)
    async with AsyncExitStack() as stack:
        second: Script = await stack.enter_async_context(scripted(TAKEN))
        ways = Ways(world)
        await add(ways, "second", "mailgun", second.url)
        for name, (kind, step) in FAULTS.items():
            script = await stack.enter_async_context(scripted(step))
            await add(ways, name, kind, script.url)
        await ways.routes(
            *(
                StoredRoute(name, both(name), Conditions(domains=[f"{name}.example"]))
                for name in FAULTS
            ),
            StoredRoute("rest", [StoredLeg("second")]),
        )
        async with ways.worker():
            for name in FAULTS:
                await world.emails.accept(
                    world.workspace_id,
                    EmailRequest(
                        sender="a@example.org", to=[f"x@{name}.example"], subject="x", text="y"
                    ),
                )
            await settled(world)
    deliveries = Deliveries(database=world.database)
    page = await deliveries.page(world.workspace_id)
    assert len(page.items) == len(FAULTS)
    wrong = []
    for one in page.items:
        name = one.recipient.removeprefix("x@").removesuffix(".example")
        state, pattern, passed = SAID[name]
        delivery, story = await deliveries.get(world.workspace_id, one.id)
        said = [event.detail for event in story if event.transport == name and event.detail]
        by = "second" if passed else name
        if (
            (delivery.state, delivery.transport) != (state, by)
            or not any(re.search(pattern, text) for text in said)
            or (state == "unknown") != (delivery.next_attempt_at is not None)
        ):
            wrong.append((name, delivery.state, delivery.transport, said))
    assert wrong == []
    assert len(second.seen) == sum(passed for _, _, passed in SAID.values())
