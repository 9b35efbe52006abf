"""The served document and its page, the probes, the rate limit's headers."""

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from api_platform import Platform, start

from mailyard.core.errors import Unavailable
from mailyard.storage.database import Database
from mailyard.web.api.openapi import document
from mailyard.web.api.routes import DOCUMENTED


@pytest.fixture
async def platform(database: Database) -> AsyncIterator[Platform]:
    platform = await start(database)
    yield platform
    await platform.close()


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def test_every_reference_leads_somewhere() -> None:
    made = document(DOCUMENTED)
    for reference in set(_references(made)):
        place = made
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def test_every_operation_says_what_a_client_needs() -> None:
    made = document(DOCUMENTED)
    assert made["openapi"].startswith("3.1")
    for methods in made["paths"].values():
        for operation in methods.values():
            assert operation["operationId"]
            assert operation["summary"]
            by_key = operation["operationId"] != "takeProviderEvents"  # proven by its signature
            assert operation["security"] == ([{"key": []}] if by_key else [])
            always = {"401", "429", "503"} | ({"403"} if by_key else set())
            assert always <= set(operation["responses"])
    for name, schema in made["components"]["schemas"].items():
        assert schema.get("description"), f"{name} says what it is"


def test_an_input_that_has_more_fields_is_said_to_be_refused() -> None:
    schemas = document(DOCUMENTED)["components"]["schemas"]
    for route in DOCUMENTED:
        if route.body is not None:
            assert schemas[route.body.__name__]["additionalProperties"] is False, route.operation


async def test_the_page_needs_no_asset_from_outside_and_no_script(platform: Platform) -> None:
    page = await platform.call("GET", "/docs", key=None)
    text = page.body.decode()
    assert page.status == 200
    assert "<script" not in text
    assert not re.search(r"(src|href)=\"(https?:)?//", text)
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for route in DOCUMENTED:
        assert f'id="{route.operation}"' in text


async def test_the_document_and_the_probes_are_public(platform: Platform) -> None:
    served = await platform.call("GET", "/v1/openapi.json", key=None)
    assert served.json["paths"].keys() == document(DOCUMENTED)["paths"].keys()
    assert (await platform.call("GET", "/health/live", key=None)).status == 200
    assert (await platform.call("GET", "/health/ready", key=None)).json == {"status": "ready"}
    metrics = await platform.call("GET", "/metrics", key=None)
    assert b"mailyard_http_request_seconds" in metrics.body
    stats = await platform.call("GET", "/stats", key=None)
    assert {queue["queue"] for queue in stats.json["queues"]} >= {"email-send", "email-bulk"}


async def test_a_process_without_its_database_is_alive_and_not_ready(platform: Platform) -> None:
    await platform.app.database.close()

    class Away:
        async def fetchval(self, *_: Any) -> Any:
            raise Unavailable("away")

        fetch = fetchval

    platform.asgi._app.database = Away()
    assert (await platform.call("GET", "/health/live")).status == 200
    ready = await platform.call("GET", "/health/ready")
    assert (ready.status, ready.headers["retry-after"]) == (503, "1")
    for path in ("/stats", "/health/regions"):
        answer = await platform.call("GET", path)
        assert (answer.status, answer.headers["retry-after"]) == (503, "2"), path
        assert answer.headers["x-content-type-options"] == "nosniff"
    shown = await platform.call("GET", "/metrics", key="nonsense")
    assert (shown.status, shown.headers["www-authenticate"][:6]) == (401, "Bearer")


async def test_the_rate_limit_is_told_and_kept(database: Database) -> None:
    platform = await start(database, rate_per_s=0.001, rate_burst=2)
    first = await platform.call("GET", "/v1/inboxes")
    assert first.headers["ratelimit-policy"] == '"key";q=2;w=2000'
    assert first.headers["ratelimit"].startswith('"key";r=1;t=')
    assert (await platform.call("GET", "/v1/inboxes")).status == 200
    third = await platform.call("GET", "/v1/inboxes")
    assert (third.status, third.json["code"]) == (429, "rate_limited")
    assert int(third.headers["retry-after"]) > 1
    other = await platform.key_with("inboxes:read")
    assert (await platform.call("GET", "/v1/inboxes", key=other)).status == 200
    await platform.close()


async def test_strangers_are_limited_by_their_address(platform: Platform) -> None:
    replies = [
        await platform.call("GET", "/v1/inboxes", key="nonsense", client="10.1.1.1")
        for _ in range(260)
    ]
    assert {reply.status for reply in replies} == {401, 429}
    assert (await platform.call("GET", "/v1/inboxes", client="10.1.1.1")).status == 200


async def test_whom_nobody_can_look_up_now_is_no_stranger(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many good callers behind one address, while the database starts again: 503 and not 429."""

    async def away(*_: Any) -> Any:
        raise Unavailable("PostgreSQL is away")

    monkeypatch.setattr(type(platform.app.keys), "authenticate", away)
    replies = [await platform.call("GET", "/v1/inboxes", client="10.1.1.2") for _ in range(260)]
    assert {reply.status for reply in replies} == {503}
    assert replies[-1].headers["retry-after"]


def test_each_operation_with_a_key_may_be_at_home_elsewhere() -> None:
    paths = document(DOCUMENTED)["paths"]
    for route in DOCUMENTED:
        answers = paths[route.public_path][route.method.lower()]["responses"]
        assert ("307" in answers) is (route.scope is not None), route.operation
    where = document(DOCUMENTED)["components"]["responses"]["Problem307"]
    assert set(where["headers"]) == {"Location"}
