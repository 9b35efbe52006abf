"""No route shows one workspace anything of another. Generated: every route of the table is tried.

Two workspaces have one of everything. Whoever holds the other's ids and may do everything at home
gets 404 for each of them, and no list has a word of the other in it.
"""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from api_platform import Platform, start
from api_things import Things, make_things, request

from mailyard.access import scope
from mailyard.core import ids
from mailyard.storage.database import Database
from mailyard.web.api.route import Route
from mailyard.web.api.routes import DOCUMENTED, ROUTES

_THEIRS, _OURS = "zebra", "otter"
_BY_OTHER_NAMES = ("endSession",)
_ADDRESSED = [
    route
    for route in DOCUMENTED
    if route.operation in _BY_OTHER_NAMES or any(prefix for _, prefix in route.parameters)
]
# What a route answers whose body names things of another workspace, where that is not 404.
_FINDS_NOTHING: dict[str, Any] = {
    "changeMessages": {"seq": None, "message_ids": []},
    "readInboxes": {"items": []},
    "recordContactEvents": {"recorded": 0, "repeated": 0, "unknown": [0]},
    "addListContacts": {"changed": 0},
    "removeListContacts": {"changed": 0},
    "redriveDeadLetters": {"ids": []},
    "discardDeadLetters": {"ids": []},
}
_REFUSES = {
    "estimateFilter": (422, "filter"),
    "countFilter": (422, "filter"),
    "assignPlan": (403, None),
}
_SAYS_OPERATOR = "first workspace"  # in a route's description: for who runs the installation


@pytest.fixture
async def platform(database: Database) -> AsyncIterator[Platform]:
    platform = await start(database)
    yield platform
    await platform.close()


async def _two(platform: Platform) -> tuple[Things, Things]:
    """Things of the first workspace, and of another one."""
    other_id, other_key = await platform.other_workspace()
    theirs = await make_things(platform, platform.workspace_id, platform.key, _THEIRS)
    ours = await make_things(platform, other_id, other_key, _OURS)
    return theirs, ours


def test_the_walk_covers_every_kind_of_thing() -> None:
    prefixes = {prefix for route in _ADDRESSED for _, prefix in route.parameters if prefix}
    assert prefixes == {
        "eml", "dlv", "tpl", "sup", "dom", "ibx", "msg", "con", "lst", "seg", "imp", "cmp", "dmo",
        "key", "usr", "top", "tdm", "inv", "hok", "prv", "mdl", "whk", "whd", "rdm", "irt",
        "thr", "dft", "txt",
    }  # fmt: skip


async def test_another_workspaces_ids_are_not_found_on_any_route(platform: Platform) -> None:
    theirs, ours = await _two(platform)
    wrong = []
    for route in _ADDRESSED:
        reply = await request(platform, route, theirs, ours.key)
        if reply.status != 404 or _THEIRS.encode() in reply.body:
            wrong.append((route.operation, reply.status, reply.body[:200]))
    assert wrong == []


async def test_the_owner_finds_the_same_ids(platform: Platform) -> None:
    """The walk above means something only if the same requests work at home."""
    theirs, _ = await _two(platform)
    unfound = []
    for route in _ADDRESSED:
        if route.method == "GET" and route in ROUTES:
            reply = await request(platform, route, theirs, theirs.key)
            if reply.status != 200:
                unfound.append((route.operation, reply.status, reply.body[:200]))
    assert unfound == []


async def test_no_list_has_a_word_of_another_workspace(platform: Platform) -> None:
    theirs, ours = await _two(platform)
    leaks, seen = [], 0
    for route in ROUTES:
        if route.method != "GET" or route in _ADDRESSED:
            continue
        reply = await platform.call("GET", route.path, key=ours.key)
        seen += _OURS.encode() in reply.body
        if reply.status not in (200, 403) or _THEIRS.encode() in reply.body:
            leaks.append((route.operation, reply.status))
        found = await platform.call("GET", route.path, key=theirs.key)
        if _OURS.encode() in found.body:
            leaks.append((route.operation, "ours in theirs"))
    assert leaks == []
    assert seen >= 9, "the lists show their own workspace's things"


def _names_in_body(route: Route, ours: Things, theirs: Things) -> bool:
    """Whether the route's body names things of the workspace: other ids make another body."""
    if route.body is None:
        return False
    foreign = replace(ours, ids=theirs.ids, dead_letter=theirs.dead_letter)
    foreign.workspace_id = theirs.workspace_id
    return bool(ours.body_of(route) != foreign.body_of(route))


async def test_ids_inside_bodies_and_queries_reach_nothing_of_another(platform: Platform) -> None:
    theirs, ours = await _two(platform)
    naming = [route for route in ROUTES if _names_in_body(route, ours, theirs)]
    assert {*_FINDS_NOTHING, *_REFUSES} < {route.operation for route in naming}
    for route in naming:
        # Our own things in the path, theirs in the body.
        mixed = replace(ours, ids=theirs.ids, dead_letter=theirs.dead_letter)
        mixed.workspace_id = theirs.workspace_id
        path, body = ours.path_of(route), mixed.body_of(route)
        reply = await platform.call(route.method, path, json=body, key=ours.key)
        assert _THEIRS.encode() not in reply.body, route.operation
        if route.operation in _FINDS_NOTHING:
            assert reply.json == _FINDS_NOTHING[route.operation], route.operation
        elif route.operation in _REFUSES:
            told = (reply.status, reply.json.get("field"))
            assert told == _REFUSES[route.operation], route.operation
        else:
            assert reply.status == 404, (route.operation, reply.status, reply.body)
    await _queries_reach_nothing(platform, theirs, ours)


async def _queries_reach_nothing(platform: Platform, theirs: Things, ours: Things) -> None:
    for query in (f"email_id={theirs.ids['eml']}", f"recipient={_THEIRS}-to@example.org"):
        reply = await platform.call("GET", f"/v1/deliveries?{query}", key=ours.key)
        assert reply.json["items"] == []
    campaign = f"/v1/deliveries?campaign_id={theirs.ids['cmp']}"
    assert (await platform.call("GET", campaign, key=ours.key)).status == 404
    listed = f"/v1/imports?list_id={theirs.ids['lst']}"
    reply = await platform.call(
        "POST", listed, body=b"email\na@b.example\n", headers={"content-type": "text/csv"},
        key=ours.key,
    )  # fmt: skip
    assert reply.status == 404
    template = {"from": "a@b.example", "to": ["c@d.example"], "template": theirs.ids["tpl"]}
    assert (await platform.call("POST", "/v1/emails", json=template, key=ours.key)).status == 404


async def test_another_workspaces_dead_letters_stay_where_they_are(platform: Platform) -> None:
    theirs, ours = await _two(platform)
    for word in ("redrive", "discard"):
        reply = await platform.call(
            "POST", f"/v1/dead-letters/{word}", json={"ids": [theirs.dead_letter]}, key=ours.key
        )
        assert reply.json == {"ids": []}


async def test_only_the_first_workspace_runs_the_installation(platform: Platform) -> None:
    """Generated: what a route's description keeps for the operator is kept for the operator, and
    nothing else is."""
    theirs, ours = await _two(platform)
    wrong = []
    for route in ROUTES:
        said = _SAYS_OPERATOR in route.description
        reply = await request(platform, route, ours, ours.key)
        if (reply.status == 403) is not said:
            wrong.append((route.operation, reply.status, reply.body[:200]))
        if said and _THEIRS.encode() in reply.body:
            wrong.append((route.operation, "theirs is shown"))
    assert wrong == []
    refused = []
    for route in ROUTES:
        if _SAYS_OPERATOR in route.description:
            reply = await request(platform, route, theirs, theirs.key)
            if reply.status >= 300:
                refused.append((route.operation, reply.status, reply.body[:200]))
    assert refused == []
    assert (await platform.call("GET", "/v1/stats", key=ours.key)).json["waiting"] is None


async def test_an_idempotency_key_of_another_workspace_is_no_answer(platform: Platform) -> None:
    _, key = await platform.other_workspace()
    headers = {"Idempotency-Key": "same"}
    first = await platform.call("POST", "/v1/inboxes", json={"name": "zebra"}, headers=headers)
    other = await platform.call(
        "POST", "/v1/inboxes", json={"name": "zebra"}, headers=headers, key=key
    )
    assert other.status == 201
    assert other.json["id"] != first.json["id"]


async def test_a_person_of_another_workspace_cannot_be_taken_over(platform: Platform) -> None:
    """Whoever may add members and make links must not come into another workspace by them."""
    other_id, other_key = await platform.other_workspace()
    person = {"email": "victim@example.org", "role": "owner"}
    made = await platform.call("POST", "/v1/members", json=person)
    taken = await platform.call("POST", "/v1/members", json=person, key=other_key)
    assert taken.status == 409
    link = await platform.call("POST", f"/v1/members/{made.json['id']}/link", key=other_key)
    assert link.status == 404
    # The operator may bring a person into two workspaces; links are the operator's from then on.
    operator = platform.actor.__class__("command", "shell", other_id)
    user_id = ids.parse_type_id(ids.USER, made.json["id"])
    await platform.app.users.add(other_id, person["email"], scope.OWNER, actor=operator)
    for key in (platform.key, other_key):
        refused = await platform.call("POST", f"/v1/members/{made.json['id']}/link", key=key)
        assert refused.status == 403
    assert await platform.app.sessions.create_link(user_id, actor=operator)
