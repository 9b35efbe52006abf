"""Every change leaves who made it, to what, and how it was before and after. Generated: each route
that changes something is called, once as it should and once with a log that cannot be written."""

from collections.abc import AsyncIterator

import pytest
from api_platform import Platform, start
from api_things import Things, bury, make_things, request, write_draft
from full_log import contents, differing, the_log_is_full

from mailyard.access.audit import Actor, AuditEntry
from mailyard.access.authenticate import SESSION_COOKIE
from mailyard.core import ids
from mailyard.core.ids import uuid7
from mailyard.sending.build.source import Source
from mailyard.storage.database import Database
from mailyard.web.api.route import Route
from mailyard.web.api.routes import ROUTES

# POST only because the question is long.
_READS = {"previewTemplate", "readInboxes", "estimateFilter", "countFilter"}
_WHOLE = {"deleteInbox"}
_CHANGES = [
    route
    # What goes, goes last: an inbox with all that is in it after that.
    for route in sorted(ROUTES, key=lambda one: (one.method == "DELETE", one.operation in _WHOLE))
    if route.method != "GET" and route.operation not in _READS and route.scope is not None
]
# An email's own row is its entry, so that there are no two that one could lack.
_OWN_ENTRY = {"sendEmail", "sendEmailBatch", "sendTemplateTest"}
# A file that was refused stays, as failed; what a model has read is used, whatever comes of it.
_KEPT_WHEN_REFUSED = {
    "startImport": {"contact_import", "import_part"},
    "testModel": {"analysis_spent"},
}


@pytest.fixture
async def platform(database: Database) -> AsyncIterator[Platform]:
    platform = await start(database)
    yield platform
    await platform.close()


@pytest.fixture
async def things(platform: Platform) -> Things:
    return await make_things(platform, platform.workspace_id, platform.key, "otter")


async def _prepare(platform: Platform, things: Things, route: Route) -> None:
    """What a route needs that an earlier one has used up."""
    if route.operation.endswith("DeadLetters"):
        things.dead_letter = await bury(platform, platform.workspace_id, "otter")
    if route.operation.endswith("TemplateDraft"):
        template_id = ids.parse_type_id(ids.TEMPLATE, things.ids["tpl"])
        draft = Source("otter", "", "", "otter")
        await platform.app.templates.save_draft(platform.workspace_id, template_id, draft)
    if "/drafts/{draft_id" in route.path:
        things.ids["dft"] = await write_draft(platform, things)
    if route.operation == "takeBackDraft":
        path = f"/v1/inboxes/{things.ids['ibx']}/drafts/{things.ids['dft']}/send"
        sent = await platform.call("POST", path, json={"revision": 1}, key=things.key)
        assert sent.status == 202, sent.body
    if route.operation == "purgeInboxes":  # not the one that others need
        made = await platform.call("POST", "/v1/inboxes", json={})
        things.ids["purged"] = made.json["id"]
    if route.operation == "deleteTopic":  # one that no campaign is about
        made = await platform.call("POST", "/v1/topics", json={"name": f"otter {uuid7().hex}"})
        things.ids["top"] = made.json["id"]


async def _entries(platform: Platform) -> list[AuditEntry]:
    return await platform.app.audit.list(platform.workspace_id, limit=10_000)


async def test_every_change_says_who_what_before_and_after(
    platform: Platform, things: Things
) -> None:
    made = await platform.call("POST", "/v1/keys", json={"name": "auditor", "scopes": ["admin"]})
    unaudited = []
    for route in _CHANGES:
        await _prepare(platform, things, route)
        known = {entry.id for entry in await _entries(platform)}
        reply = await request(platform, route, things, made.json["secret"])
        assert reply.status < 300, (route.operation, reply.body)
        fresh = [entry for entry in await _entries(platform) if entry.id not in known]
        good = [
            entry
            for entry in fresh
            if (entry.actor_kind, entry.actor) == ("key", made.json["id"])
            and entry.subject
            and (entry.before is not None or entry.after is not None)
        ]
        if not good or good != fresh:
            unaudited.append((route.operation, fresh))
    assert unaudited == []


async def test_a_change_whose_audit_row_cannot_be_written_is_no_change(
    platform: Platform, things: Things, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is in the transaction of the change: where one fails, neither stands."""
    halves = []
    for route in _CHANGES:
        if route.operation in _OWN_ENTRY:
            continue
        await _prepare(platform, things, route)
        before = await contents(platform.app.database)
        with the_log_is_full(monkeypatch):
            reply = await request(platform, route, things, platform.key)
        changed = differing(before, await contents(platform.app.database))
        changed -= _KEPT_WHEN_REFUSED.get(route.operation, set())
        if reply.status != 503 or changed:
            halves.append((route.operation, reply.status, changed))
        if route.operation.endswith("Campaign") and route.operation != "createCampaign":
            # Moves follow each other: the next one needs this one done.
            assert (await request(platform, route, things, platform.key)).status == 200
    assert halves == []


async def test_what_is_refused_leaves_no_row(platform: Platform) -> None:
    before = await _entries(platform)
    for route in _CHANGES:
        path = route.path
        for name, prefix in route.parameters:
            unknown = "1" if prefix is None else ids.type_id(prefix, ids.uuid7())
            path = path.replace(f"{{{name}:{prefix}}}" if prefix else f"{{{name}}}", unknown)
        reply = await platform.call(route.method, path, json={"nonsense": True})
        assert reply.status >= 400, route.operation
    assert await _entries(platform) == before


async def test_signing_in_and_out_is_in_the_log(platform: Platform) -> None:
    sessions = platform.app.sessions
    session = await sessions.start(platform.first.user_id, platform.workspace_id, "a browser")
    cookie = {"cookie": f"{SESSION_COOKIE}={session.token}"}
    assert (await platform.call("GET", "/v1/inboxes", key=None, headers=cookie)).status == 200
    await sessions.end(session.token)
    await sessions.end(session.token)  # a second time there is nothing to end
    ended, started = (await _entries(platform))[:2]
    person = ids.type_id(ids.USER, platform.first.user_id)
    who = ("user", platform.first.owner, person)
    assert (ended.actor_kind, ended.actor, ended.subject) == who
    assert (started.actor_kind, started.actor, started.subject) == who
    assert ended.action == "session.end"
    assert ended.before is not None
    assert ended.before["user_agent"] == "a browser"
    assert (started.action, started.after) == ("session.start", {"user_agent": "a browser"})


async def test_going_to_another_workspace_is_in_its_log(platform: Platform) -> None:
    other = await platform.app.workspaces.create("Other", actor_kind="system", actor_name="test")
    operator = Actor("command", "shell", other.id)
    await platform.app.users.add(other.id, platform.first.owner, "viewer", actor=operator)
    sessions = platform.app.sessions
    session = await sessions.start(platform.first.user_id, platform.workspace_id, "")
    await sessions.move(session.token, other.id)
    newest = (await platform.app.audit.list(other.id))[0]
    assert (newest.action, newest.before, newest.after) == (
        "session.move",
        {"workspace": ids.type_id(ids.WORKSPACE, platform.workspace_id)},
        {"workspace": ids.type_id(ids.WORKSPACE, other.id)},
    )
