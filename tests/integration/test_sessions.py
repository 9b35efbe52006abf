"""People: first start, passwords, sessions, one-time links, roles."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from api_platform import Platform, services, start

from mailyard.access import scope
from mailyard.access.audit import Actor
from mailyard.access.bootstrap import bootstrap
from mailyard.core.errors import Conflict, InvalidInput, NotFound
from mailyard.storage.database import Database

PASSWORD = "correct horse battery"


@pytest.fixture
async def platform(database: Database) -> AsyncIterator[Platform]:
    platform = await start(database)
    yield platform
    await platform.close()


async def test_of_two_instances_that_start_together_one_makes_the_first_workspace(
    database: Database,
) -> None:
    async def begin() -> object:
        app = services(database)
        return await bootstrap(
            database=database,
            workspaces=app.workspaces,
            users=app.users,
            keys=app.keys,
            sessions=app.sessions,
        )

    made = await asyncio.gather(*(begin() for _ in range(4)))
    assert sum(one is not None for one in made) == 1
    async with database.connection() as connection:
        for table in ("workspace", "user_account", "api_key", "login_link"):
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 1


async def test_a_link_signs_in_once(platform: Platform) -> None:
    sessions = platform.app.sessions
    tries = await asyncio.gather(*(sessions.redeem_link(platform.first.link_token) for _ in "abc"))
    assert sorted(tries, key=str) == sorted([platform.first.user_id, None, None], key=str)


async def test_an_expired_link_signs_nobody_in(platform: Platform) -> None:
    token = await platform.app.sessions.create_link(
        platform.first.user_id, actor=platform.actor, lasts_s=-1.0
    )
    assert await platform.app.sessions.redeem_link(token) is None


async def test_tokens_are_stored_as_hashes(platform: Platform) -> None:
    session = await platform.app.sessions.start(
        platform.first.user_id, platform.workspace_id, "browser"
    )
    async with platform.app.database.connection() as connection:
        rows = await connection.fetch(
            "SELECT session::text AS row FROM session UNION ALL SELECT login_link::text "
            "FROM login_link"
        )
    assert len(rows) == 2
    for row in rows:
        for token in (session.token, platform.first.link_token):
            assert token not in row["row"]
            assert token.encode().hex() not in row["row"]


async def test_any_process_finds_a_session_until_it_is_ended(
    platform: Platform, database: Database
) -> None:
    session = await platform.app.sessions.start(
        platform.first.user_id, platform.workspace_id, "browser"
    )
    elsewhere = services(database).sessions
    found = await elsewhere.find(session.token)
    assert found is not None
    assert (found.role, found.csrf_token) == (scope.OWNER, session.csrf_token)
    listed = await elsewhere.list(platform.first.user_id)
    assert [one.user_agent for one in listed] == ["browser"]
    await elsewhere.end_one(platform.first.user_id, listed[0].id)
    assert await platform.app.sessions.find(session.token) is None
    with pytest.raises(NotFound):
        await elsewhere.end_one(platform.first.user_id, listed[0].id)


async def test_a_password_is_argon2id_and_only_the_right_one_opens(platform: Platform) -> None:
    users, owner = platform.app.users, platform.first
    await users.set_password(owner.user_id, PASSWORD, actor=platform.actor)
    assert await users.authenticate(owner.owner, PASSWORD) == owner.user_id
    assert await users.authenticate(owner.owner.upper(), PASSWORD) == owner.user_id
    for email, password in (
        (owner.owner, PASSWORD + "!"),
        (owner.owner, ""),
        ("nobody@example.org", PASSWORD),
        ("not an address", PASSWORD),
    ):
        assert await users.authenticate(email, password) is None
    async with platform.app.database.connection() as connection:
        stored = await connection.fetchval("SELECT password_hash FROM user_account")
    assert stored.startswith("$argon2id$")
    with pytest.raises(InvalidInput):
        await users.set_password(owner.user_id, "short", actor=platform.actor)


async def test_a_new_password_ends_the_other_sessions(platform: Platform) -> None:
    sessions, owner = platform.app.sessions, platform.first.user_id
    kept = await sessions.start(owner, platform.workspace_id, "kept")
    other = await sessions.start(owner, platform.workspace_id, "other")
    found = await sessions.find(kept.token)
    await platform.app.users.set_password(
        owner, PASSWORD, actor=platform.actor, keep_session=found.token_hash
    )
    assert await sessions.find(kept.token) is not None
    assert await sessions.find(other.token) is None


async def test_a_workspace_keeps_an_owner_whatever_two_people_do_at_once(
    platform: Platform,
) -> None:
    users, workspace_id = platform.app.users, platform.workspace_id
    second = await users.add(workspace_id, "b@example.org", scope.OWNER, actor=platform.actor)
    results = await asyncio.gather(
        users.remove(workspace_id, platform.first.user_id, actor=platform.actor),
        users.change_role(workspace_id, second.id, scope.VIEWER, actor=platform.actor),
        return_exceptions=True,
    )
    assert sum(isinstance(result, Conflict) for result in results) == 1
    members = await users.list(workspace_id)
    assert [member.role for member in members].count(scope.OWNER) == 1


async def test_a_removed_member_is_out_at_once(platform: Platform) -> None:
    users, sessions = platform.app.users, platform.app.sessions
    user = await users.add(
        platform.workspace_id, "b@example.org", scope.MEMBER, actor=platform.actor
    )
    session = await sessions.start(user.id, platform.workspace_id, "browser")
    await users.remove(platform.workspace_id, user.id, actor=platform.actor)
    assert await sessions.find(session.token) is None


async def test_who_made_an_account_and_let_it_go_has_no_way_into_the_next_workspace(
    platform: Platform,
) -> None:
    users, sessions = platform.app.users, platform.app.sessions
    trap = await platform.app.workspaces.create("Trap", actor_kind="user", actor_name="mallory")
    mallory = Actor("user", "mallory@example.org", trap.id)
    made = await users.add(trap.id, "ada@example.org", scope.OWNER, actor=mallory)
    await users.add(trap.id, "mallory@example.org", scope.OWNER, actor=mallory)
    link = await sessions.create_link(made.id, actor=mallory)
    await users.set_password(made.id, PASSWORD, actor=mallory)
    await users.remove(trap.id, made.id, actor=mallory)
    owner = Actor("user", "owner@example.org", platform.workspace_id)
    added = await users.add(platform.workspace_id, "ada@example.org", scope.OWNER, actor=owner)
    assert not added.has_password
    assert await users.authenticate("ada@example.org", PASSWORD) is None
    assert await sessions.redeem_link(link) is None


async def test_owners_list_and_end_the_sessions_of_their_workspace_alone(
    platform: Platform,
) -> None:
    sessions = platform.app.sessions
    member = await platform.app.users.add(
        platform.workspace_id, "ada@example.org", scope.MEMBER, actor=platform.actor
    )
    started = [
        await sessions.start(person, platform.workspace_id, browser)
        for person, browser in (
            (platform.first.user_id, "one"),
            (member.id, "two"),
            (member.id, "three"),
        )
    ]
    _, other_key = await platform.other_workspace()
    first = (await platform.call("GET", "/v1/sessions?limit=2")).json
    rest = (await platform.call("GET", f"/v1/sessions?limit=2&after={first['next_after']}")).json
    items = first["items"] + rest["items"]
    assert rest["next_after"] is None
    assert {one["user_agent"] for one in items} == {"one", "two", "three"}
    assert all(one["id"] not in str(started) for one in items), "an id opens nothing"
    hers = (await platform.call("GET", f"/v1/sessions?user_id={items[0]['user_id']}")).json["items"]
    assert {one["user_id"] for one in hers} == {items[0]["user_id"]}

    target = next(one for one in items if one["user_agent"] == "two")["id"]
    path = f"/v1/sessions/{target}"
    assert (await platform.call("GET", "/v1/sessions", key=other_key)).json["items"] == []
    assert (await platform.call("DELETE", path, key=other_key)).status == 404
    assert (await platform.call("DELETE", "/v1/sessions/nonsense")).status == 404
    assert await sessions.find(started[1].token) is not None
    assert (await platform.call("DELETE", path)).status == 204
    assert await sessions.find(started[1].token) is None
    assert await sessions.find(started[2].token) is not None
    assert (await platform.call("DELETE", path)).status == 404
    [entry] = [one for one in await platform.app.audit.list(platform.workspace_id, limit=5)
               if one.action == "session.end"]  # fmt: skip
    assert (entry.actor_kind, entry.before is not None) == ("key", True)
