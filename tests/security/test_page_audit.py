"""What a person changes on a page is in the audit log, in the transaction of the change.

Every form of the pages is sent twice: with a log that cannot be written, when nothing may change,
and as it should be.
"""

from collections.abc import AsyncIterator

import pytest
from api_platform import start
from api_things import bury, make_things
from full_log import contents, differing, the_log_is_full
from page_forms import FORMS, MOVES, Form, Visitor

from mailyard.access.authenticate import SESSION_COOKIE
from mailyard.core.ids import INBOX, type_id
from mailyard.mailbox.inbox_value import NewInbox
from mailyard.storage.database import Database
from mailyard.web.ui.pages import build_pages

# A file that was refused stays, as failed, and the list that was made for it.
_KEPT_WHEN_REFUSED = {"/imports": {"contact_import", "import_part", "contact_list"}}
_WITHOUT_A_VISITOR = {
    "/sign-in",
    "/sign-in/{token:str}",
    "/sign-up",
    "/sign-up/{token:str}",
    "/reset",
    "/reset/{token:str}",
    "/invitation/{token:str}",
    # A person's own sessions: tried in tests/integration/test_accounts.py.
    "/account/sessions/{session_id:str}/end",
    "/account/sessions/end",
    "/account/workspace",
}
# POST only because what is shown, or asked, is long.
_READS = {
    "/templates/{template_id:str}/frame",
    "/fragments/segments/estimate",
    "/fragments/segments/count",
}


@pytest.fixture
async def visitor(database: Database) -> AsyncIterator[Visitor]:
    platform = await start(database, with_pages=True)
    things = await make_things(platform, platform.workspace_id, platform.key, "otter")
    session = await platform.app.sessions.start(
        platform.first.user_id, platform.workspace_id, "a browser"
    )
    [spare] = await platform.app.inboxes.create(platform.workspace_id, [NewInbox("spare")])
    things.ids["spare"] = type_id(INBOX, spare.id)
    yield Visitor(platform, things, session)
    await platform.close()


async def test_every_form_is_among_those_below(visitor: Visitor) -> None:
    pages = build_pages(visitor.platform.app)
    posted = {
        path
        for route in pages.routes
        if "POST" in getattr(route, "methods", ())
        for path in [route.path]
    }
    mine = {form.path for form in (*FORMS, *MOVES)}
    shapes = {_shape(path) for path in mine}
    assert {_shape(path) for path in posted - _WITHOUT_A_VISITOR - _READS} == shapes


@pytest.mark.parametrize("forms", [FORMS, MOVES], ids=["pages", "moves"])
async def test_each_form_changes_with_its_row_or_not_at_all(
    visitor: Visitor, forms: tuple[Form, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = visitor.platform
    for form in forms:
        if form.path.startswith("/dead-letters"):
            visitor.things.dead_letter = await bury(platform, platform.workspace_id, "otter")
        if form.action != "email.send":  # an email's own row is its entry
            before = await contents(platform.app.database)
            with the_log_is_full(monkeypatch):
                refused = await visitor.send(form)
            assert refused.status >= 400, form.path
            changed = differing(before, await contents(platform.app.database))
            assert changed <= _KEPT_WHEN_REFUSED.get(form.path, set()), form.path
        known = {entry.id for entry in await visitor.entries()}
        reply = await visitor.send(form)
        assert reply.status in (200, 303), (form.path, reply.body[-2000:])
        fresh = {entry.action: entry for entry in await visitor.entries() if entry.id not in known}
        assert form.action in fresh, (form.path, fresh)
        entry = fresh[form.action]
        assert (entry.actor_kind, entry.before is None and entry.after is None) == ("user", False)


async def test_a_dead_letter_that_no_number_names_is_refused(visitor: Visitor) -> None:
    cookie = {"cookie": f"{SESSION_COOKIE}={visitor.session.token}"}
    for number in ("x", "9" * 19, "9" * 5000):
        path = "/dead-letters?before=" + number
        listed = await visitor.platform.call("GET", path, key=None, headers=cookie)
        chosen = await visitor.send(Form("/dead-letters/redrive", "", {"id": number}))
        assert (listed.status, chosen.status) == (422, 422), number[:30]


async def test_a_number_of_thousands_of_digits_fails_no_page(visitor: Visitor) -> None:
    cookie = {"cookie": f"{SESSION_COOKIE}={visitor.session.token}"}
    path = "/deliveries?days=" + "9" * 5000
    shown = await visitor.platform.call("GET", path, key=None, headers=cookie)
    begun = await visitor.send(Form("/demo", "", {"recipients": "9" * 5000}))
    assert (shown.status, begun.status) == (200, 422)


def _shape(path: str) -> str:
    """The path with its parameters as stars; the four moves are one form."""
    words = ["*" if word.startswith("{") else word for word in path.split("/")]
    if words[1] == "campaigns" and len(words) == 4:
        words[3] = "*"
    return "/".join(words)
