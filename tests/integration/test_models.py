"""Models as their vendors' documents say they behave, and as they should not: who answers in the
end, what is counted, what is kept."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from http_script import Seen, answer, hang_up, raw, scripted, silent
from model_world import GOOD, ModelWorld, anthropic, error, openai

from mailyard.analysis.analyst import Later, Outcome
from mailyard.analysis.book import NewModel
from mailyard.analysis.task import ASPECTS, EVERYTHING, Ask, ask_of
from mailyard.core.clock import ManualClock
from mailyard.core.errors import InvalidInput
from mailyard.core.ids import uuid7
from mailyard.protocol.meaning.letter import Letter
from mailyard.storage.database import Database

LETTER = Letter(
    subject="Your invoice", text="Dear Ada,\n\nyour invoice 4711 over 20.00 EUR is due.\n\nRegards"
)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 3, 1, 12, tzinfo=UTC))


@pytest.fixture
async def world(database: Database, clock: ManualClock) -> AsyncIterator[ModelWorld]:
    world = ModelWorld(database, clock)
    yield world
    await world.http.close()


@pytest.fixture
async def workspace_id(database: Database) -> UUID:
    return await another_workspace(database)


async def another_workspace(database: Database) -> UUID:
    made = uuid7()
    async with database.connection() as connection:
        await connection.execute("INSERT INTO workspace (id, name) VALUES ($1, 'w')", made)
    return made


async def answered(
    world: ModelWorld, workspace_id: UUID, what: Ask = EVERYTHING, *, final: bool = True,
    letter: Letter = LETTER,
) -> Outcome:  # fmt: skip
    return await world.answer(workspace_id, letter, what, final=final)


async def limit(world: ModelWorld, workspace_id: UUID, **limits: int) -> None:
    wanted = {"day_tokens": None, "day_micros": None, **limits}
    async with world.database.transaction() as tx:
        await world.policies.set(
            workspace_id, on_arrival=False, aspects=ASPECTS, fields=None, tx=tx, **wanted
        )


async def test_without_a_model_rules_answer_and_nothing_is_spent(
    world: ModelWorld, workspace_id: UUID
) -> None:
    outcome = await answered(world, workspace_id)
    assert (outcome.model, outcome.answer["category"]["value"]) == ("rules", "invoice")
    assert outcome.answer["summary"].startswith("Dear Ada")
    assert await world.policies.spent(workspace_id) == []


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
async def test_a_model_is_asked_as_its_vendor_wants_it_and_the_answer_is_kept_for_ever(
    world: ModelWorld, workspace_id: UUID, kind: str
) -> None:
    good = openai() if kind == "openai" else anthropic()
    async with scripted(good) as server:
        await world.add(workspace_id, "m", kind, server.url, input_price=2.0, output_price=10.0)
        outcome = await answered(world, workspace_id)
        assert (outcome.model, outcome.answer, outcome.kept) == ("m", GOOD, False)
        assert (outcome.input_tokens, outcome.output_tokens, outcome.micros) == (400, 80, 1600)
        [seen] = server.seen
        _looks_right(seen, kind)
        again = await answered(world, workspace_id)
        assert (again.answer, again.kept, len(server.seen)) == (GOOD, True, 1)
        [day] = await world.policies.spent(workspace_id)
        assert (day.tokens, day.micros, day.calls, day.kept) == (480, 1600, 1, 1)
        # Another ask, another mail and another workspace are other questions.
        await answered(world, workspace_id, ask_of(["summary"], None))
        assert len(server.seen) > 1
    await _tells_nothing(world, workspace_id)


def _looks_right(seen: Seen, kind: str) -> None:
    body: Any = seen.json()
    assert body["model"] == "model-m"
    assert "tools" not in body and "functions" not in body, "a model gets no tools"
    if kind == "openai":
        assert (seen.method, seen.path) == ("POST", "/chat/completions")
        assert seen.headers["authorization"] == "Bearer a key"
        assert body["response_format"]["type"] == "json_schema"
        system, user = (one["content"] for one in body["messages"])
        assert body["max_completion_tokens"] == 2_000
    else:
        assert (seen.method, seen.path) == ("POST", "/v1/messages")
        assert seen.headers["x-api-key"] == "a key"
        assert seen.headers["anthropic-version"] == "2023-06-01"
        assert body["output_config"]["format"]["type"] == "json_schema"
        system, user = body["system"], body["messages"][0]["content"]
        assert body["max_tokens"] == 2_000
    first, data, last, _ = user.split("\n")
    mark = first.removeprefix("BEGIN ")
    assert last == f"END {mark}" and mark in system and mark not in data
    assert json.loads(data)["subject"] == "Your invoice"


async def _tells_nothing(world: ModelWorld, workspace_id: UUID) -> None:
    """What is kept says nothing to who has the database alone."""
    async with world.database.connection() as connection:
        rows = await connection.fetch("SELECT sealed FROM analysis_result")
    assert rows and not any(b"invoice" in row["sealed"] for row in rows)


FAILURES = {
    "a wrong key": (error(401, "authentication_error"), "401", False),
    "no money": (error(429, "insufficient_quota"), "insufficient_quota", False),
    "too much": (error(429, "rate_limit_exceeded", {"Retry-After": "37"}), "429", True),
    "overloaded": (error(529, "overloaded_error"), "529", True),
    "broken": (error(500, "api_error"), "500", True),
    "a page of a gateway": (answer(502, b"<html>Bad Gateway</html>"), "502", True),
    "a bad question": (error(400, "invalid_request_error"), "400", False),
    "cut JSON": (answer(200, b'{"choices": [{"message": {"content": "{\\"cat'), "breaks off", True),
    "no JSON": (answer(200, b"hello"), "breaks off", True),
    "another shape": (answer(200, {"choices": []}), "no choice", True),
    "hung up": (hang_up(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{"), "broke", True),
    "no HTTP": (raw(b"220 mail.example ESMTP\r\n"), "broke", True),
    "too long": (answer(200, b"x" * (1 << 21)), "larger", False),
    "a redirect": (answer(302, b"", {"Location": "http://127.0.0.1/"}), "302", False),
    "refused": (openai(content="", refusal="I cannot"), "refused", False),
    "filtered": (openai(finish="content_filter"), "refused", False),
    "too many tokens": (openai('{"category": {"val', finish="length"), "longer", False),
    "a wrong schema": (openai({"category": "invoice"}), "is missing", False),
    "another object": (openai({**GOOD, "send_money_to": "me"}), "nobody asked", False),
    "no object": (openai("[1, 2]"), "no JSON object", False),
    "prose": (openai("Sure! Here is the JSON you asked for: {}"), "no JSON", False),
    "deep JSON": (openai("[" * 20_000), "no JSON", False),
}


async def test_when_a_model_fails_the_next_one_answers_and_the_reason_is_told(
    world: ModelWorld,
) -> None:
    for name, (step, said, _) in FAILURES.items():
        workspace_id = await another_workspace(world.database)
        async with scripted(step) as bad, scripted(anthropic()) as good:
            await world.add(workspace_id, "first", "openai", bad.url, place=1)
            await world.add(workspace_id, "second", "anthropic", good.url, place=2)
            outcome = await answered(world, workspace_id)
        assert (name, outcome.model, outcome.answer) == (name, "second", GOOD)
        assert outcome.notes[0].startswith("first: ") and said in outcome.notes[0], name


async def test_alone_it_is_asked_later_while_that_may_help_and_rules_answer_at_last(
    world: ModelWorld,
) -> None:
    for name, (step, said, passing) in FAILURES.items():
        workspace_id = await another_workspace(world.database)
        async with scripted(step) as server:
            await world.add(workspace_id, "only", "openai", server.url)
            if passing:
                with pytest.raises(Later) as caught:
                    await answered(world, workspace_id, final=False)
                assert caught.value.delay_s == (37 if name == "too much" else 1), name
            if name == "too much":  # the server has said when: nobody asks it before
                with pytest.raises(Later, match="rests"):
                    await answered(world, workspace_id, final=False)
                assert len(server.seen) == 1
            outcome = await answered(world, workspace_id)
        assert (name, outcome.model) == (name, "rules")
        assert said in outcome.notes[0] or "rests" in outcome.notes[0], name


async def test_what_a_model_would_call_is_nothing_to_us(
    world: ModelWorld, workspace_id: UUID
) -> None:
    calls = [{"id": "1", "type": "function", "function": {"name": "send", "arguments": "{}"}}]
    async with scripted(openai(GOOD, tool_calls=calls)) as server:
        await world.add(workspace_id, "m", "openai", server.url)
        assert (await answered(world, workspace_id)).answer == GOOD


async def test_a_slow_model_is_given_up_in_its_time(world: ModelWorld, workspace_id: UUID) -> None:
    async with scripted(silent(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")) as server:
        await world.add(workspace_id, "slow", "openai", server.url, timeout_s=1.0)
        outcome = await answered(world, workspace_id)
    assert outcome.model == "rules" and "in time" in outcome.notes[0]
    [day] = await world.policies.spent(workspace_id)
    assert day.tokens > 2_000 and day.failures == 1, "it may have been read: the most is counted"


async def test_a_model_that_fails_in_a_row_rests_for_every_process_until_it_is_changed(
    world: ModelWorld, workspace_id: UUID, clock: ManualClock
) -> None:
    async with scripted(*[error(500, "api_error")] * 5, openai()) as server:
        model_id = await world.add(workspace_id, "m", "openai", server.url)
        for _ in range(5):
            await answered(world, workspace_id)
        entry = await world.book.get(workspace_id, model_id)
        assert entry.resting_until is not None and "500" in entry.why
        other = ModelWorld(world.database, clock)  # another process
        try:
            outcome = await answered(other, workspace_id)
        finally:
            await other.http.close()
        assert outcome.model == "rules" and "rests" in outcome.notes[0]
        assert len(server.seen) == 5
        clock.advance(3600)  # its time is over: one probe, which goes well
        assert (await answered(world, workspace_id)).model == "m"
        assert (await world.book.get(workspace_id, model_id)).resting_until is None


async def test_a_day_never_uses_more_than_its_budget_however_many_ask_at_once(
    world: ModelWorld, workspace_id: UUID, clock: ManualClock
) -> None:
    await limit(world, workspace_id, day_tokens=30_000)
    async with scripted(openai(usage=(4_000, 500))) as server:
        await world.add(workspace_id, "m", "openai", server.url, concurrency=50)
        letters = [Letter(subject=f"{n}", text="your invoice 4711 is due") for n in range(40)]
        outcomes = await asyncio.gather(
            *(answered(world, workspace_id, letter=letter) for letter in letters)
        )
        asked = len(server.seen)
        [day] = await world.policies.spent(workspace_id)
        assert day.tokens <= 30_000 and day.tokens == asked * 4_500
        assert 0 < asked < 8
        rest = [one for one in outcomes if one.model == "rules"]
        assert len(rest) == 40 - asked
        assert all(one.notes == ("the day's budget is used up",) for one in rest)
        clock.advance(86_400)
        assert (await answered(world, workspace_id, letter=letters[-1])).model == "m"


async def test_money_has_a_limit_of_its_own(world: ModelWorld, workspace_id: UUID) -> None:
    await limit(world, workspace_id, day_micros=1)
    async with scripted(openai()) as server:
        await world.add(workspace_id, "dear", "openai", server.url, input_price=15.0)
        assert (await answered(world, workspace_id)).model == "rules"
        assert server.seen == []
        await world.add(workspace_id, "free", "openai", server.url, place=0)
        assert (await answered(world, workspace_id)).model == "free"


async def test_calls_stay_within_the_limits_of_the_provider(
    world: ModelWorld, workspace_id: UUID
) -> None:
    at_once = most = 0
    release = asyncio.Event()

    async def slowly(request: Seen, writer: asyncio.StreamWriter) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await release.wait()
        at_once -= 1
        await openai()(request, writer)

    async with scripted(slowly) as server:
        await world.add(
            workspace_id, "m", "openai", server.url, concurrency=3, requests_per_minute=6
        )
        letters = [Letter(subject=f"{n}", text="your invoice 4711 is due") for n in range(10)]
        asking = [
            asyncio.create_task(answered(world, workspace_id, final=False, letter=letter))
            for letter in letters
        ]
        while at_once < 3 or sum(task.done() for task in asking) < 4:
            await asyncio.sleep(0.01)
        release.set()
        results = await asyncio.gather(*asking, return_exceptions=True)
    assert most == 3
    assert sum(isinstance(one, Outcome) for one in results) == 6
    assert all("a minute" in one.why for one in results if isinstance(one, Later))


async def test_fields_of_the_callers_schema_are_of_it_or_none_and_grounded(
    world: ModelWorld, workspace_id: UUID
) -> None:
    schema = {
        "type": "object",
        "properties": {
            "number": {"type": "string"},
            "total": {"type": ["number", "null"]},
            "contacts": {"type": "array", "items": {"type": "string"}},
            "kind": {"enum": ["bill", "other"]},
            "score": {"type": "integer", "minimum": 0, "maximum": 10},
        },
        "required": ["number", "total"],
    }
    what = ask_of([], schema)
    fields = {
        "number": "4711", "total": 20.0, "contacts": ["Ada", "pay@evil.example"], "kind": "bill",
        "score": 7,
    }  # fmt: skip
    made_up = {"number": "4711", "total": 9_999.0}
    lost = {"number": "DE89 3704 0044 0532 0130 00", "total": None}
    steps = [openai({"fields": one}) for one in (fields, made_up, lost)]
    async with scripted(*steps) as server:
        await world.add(workspace_id, "m", "openai", server.url)
        letters = [Letter(subject=f"{n}", text=LETTER.text) for n in ("a", "b", "c")]
        first, second, third = [
            await answered(world, workspace_id, what, letter=letter) for letter in letters
        ]
    assert first.answer["fields"] == fields | {"contacts": ["Ada"]}
    assert second.answer["fields"] == {"number": "4711", "total": None}
    assert third.answer["fields"] is None and len(third.withheld) == 2


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string"},
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "(a+)+$"}}},
        {"type": "object", "properties": {"a": {"$ref": "#/a"}}},
        {"type": "object", "properties": {"a": {"type": "array"}}},
        {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(61)}},
        {"type": "object", "properties": {"a": {"enum": [{}]}}},
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["b"]},
    ],
)
def test_a_schema_that_would_not_be_checked_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as caught:
        ask_of([], schema)
    assert str(caught.value.field).startswith("fields")


async def test_a_model_that_cannot_be_asked_is_refused(
    world: ModelWorld, workspace_id: UUID
) -> None:
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("rules", {"model": "m"}, "name"),
        ("m", {}, "settings"),
        ("m", {"model": "m", "temperature": 1}, "settings"),
        ("m", {"model": "m", "base_url": "ftp://a.example"}, "settings.base_url"),
        ("m", {"model": "m", "base_url": "https://user@a.example"}, "settings.base_url"),
        ("m", {"model": "m", "timeout_s": 1e9}, "settings.timeout_s"),
    ]
    for name, settings, field in wrong:
        with pytest.raises(InvalidInput) as caught:
            async with world.database.transaction() as tx:
                await world.book.create(workspace_id, NewModel(name, "openai", settings), tx)
        assert caught.value.field == field
