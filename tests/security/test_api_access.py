"""Who may do what, on every route. Generated from the table of routes."""

from collections.abc import AsyncIterator

import pytest
from api_platform import Platform, start
from api_things import make_things, request

from mailyard.access import scope
from mailyard.access.authenticate import SESSION_COOKIE
from mailyard.core import ids
from mailyard.storage.database import Database
from mailyard.web.api.route import Route
from mailyard.web.api.routes import DOCUMENTED

_GUARDED = [route for route in DOCUMENTED if route.scope is not None]
# POST only because the question is long.
_READS = {"previewTemplate", "readInboxes", "estimateFilter", "countFilter"}


@pytest.fixture
async def platform(database: Database) -> AsyncIterator[Platform]:
    platform = await start(database)
    yield platform
    await platform.close()


def test_every_route_asks_for_a_scope_that_exists() -> None:
    assert [route.operation for route in _GUARDED if route.scope not in scope.SCOPES] == []
    open_routes = {route.operation for route in DOCUMENTED if route.scope is None}
    assert open_routes == {"takeProviderEvents"}, "whoever else is let in must be known here"


def test_every_change_asks_for_more_than_reading() -> None:
    lax = [
        route.operation
        for route in _GUARDED
        if route.method != "GET" and (route.scope or "").endswith(":read")
    ]
    assert set(lax) == _READS


async def test_no_route_answers_without_a_key(platform: Platform) -> None:
    for route in _GUARDED:
        path = _with_any_ids(route)
        # Each from an address of its own: strangers are limited.
        client = f"10.0.0.{_GUARDED.index(route)}"
        for key in (None, "my_0000000000_" + "0" * 48, "nonsense"):
            reply = await platform.call(route.method, path, key=key, client=client)
            assert reply.status == 401, (route.operation, key)
            assert reply.headers["www-authenticate"].startswith("Bearer")


async def test_every_route_refuses_a_key_that_lacks_just_its_scope(platform: Platform) -> None:
    keys: dict[str, str] = {}
    for route in _GUARDED:
        assert route.scope is not None
        if route.scope not in keys:
            others = _all_but(route.scope)
            keys[route.scope] = await platform.key_with(*others)
        reply = await platform.call(
            route.method, _with_any_ids(route), key=keys[route.scope], json={}
        )
        assert (reply.status, reply.json["code"]) == (403, "not_allowed"), route.operation


async def test_every_route_lets_in_a_key_that_has_just_its_scope(platform: Platform) -> None:
    things = await make_things(platform, platform.workspace_id, platform.key, "otter")
    for route in _GUARDED:
        if route.operation in ("followEvents", "waitForMessage") or route.method == "DELETE":
            continue
        assert route.scope is not None
        key = await platform.key_with(route.scope)
        reply = await request(platform, route, things, key)
        assert reply.status not in (401, 403), (route.operation, reply.body)


async def test_a_viewer_changes_nothing(platform: Platform) -> None:
    things = await make_things(platform, platform.workspace_id, platform.key, "otter")
    viewer = await platform.app.users.add(
        platform.workspace_id, "viewer@example.org", scope.VIEWER, actor=platform.actor
    )
    session = await platform.app.sessions.start(viewer.id, platform.workspace_id, "test")
    headers = {"cookie": f"{SESSION_COOKIE}={session.token}", "x-csrf-token": session.csrf_token}
    before = await _audited(platform)
    for route in _GUARDED:
        if route.method != "GET" and route.operation not in _READS:
            body = things.body_of(route) if route.body is not None else None
            reply = await platform.call(
                route.method, things.path_of(route), json=body, key=None, headers=headers
            )
            assert reply.status == 403, route.operation
    assert await _audited(platform) == before
    seen = await platform.call("GET", "/v1/inboxes", key=None, headers=headers)
    assert seen.status == 200


async def test_a_session_changes_only_with_its_csrf_token(platform: Platform) -> None:
    owner = platform.first.user_id
    session = await platform.app.sessions.start(owner, platform.workspace_id, "test")
    cookie = {"cookie": f"{SESSION_COOKIE}={session.token}"}
    for token in ({}, {"x-csrf-token": "guess"}):
        reply = await platform.call(
            "POST", "/v1/inboxes", json={}, key=None, headers={**cookie, **token}
        )
        assert reply.status == 403
    good = {**cookie, "x-csrf-token": session.csrf_token}
    reply = await platform.call("POST", "/v1/inboxes", json={}, key=None, headers=good)
    assert reply.status == 201


async def test_a_key_in_the_address_is_no_key(platform: Platform) -> None:
    reply = await platform.call("GET", f"/v1/inboxes?key={platform.key}", key=None)
    assert reply.status == 401


async def _audited(platform: Platform) -> int:
    return len(await platform.app.audit.list(platform.workspace_id, limit=10_000))


def _with_any_ids(route: Route) -> str:
    path = route.path
    for name, prefix in route.parameters:
        if prefix is None:
            path = path.replace(f"{{{name}}}", "1")
        else:
            path = path.replace(f"{{{name}:{prefix}}}", ids.type_id(prefix, ids.uuid7()))
    return path


def _all_but(missing: str) -> list[str]:
    """Every scope that does not bring `missing` with it."""
    return [name for name in scope.SCOPES if missing not in scope.expand([name])]
