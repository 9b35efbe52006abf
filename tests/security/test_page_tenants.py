"""No page shows or changes anything of another workspace, and a viewer's forms change nothing.

Generated: every page that there is, and every form (tests/page_forms.py) with the ids of another
workspace's things in it.
"""

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import pytest
from api_platform import Platform, start
from api_things import Things, make_things
from full_log import contents, differing
from page_forms import FORMS, MOVES, Form, Visitor

from mailyard.access import scope
from mailyard.access.audit import Actor
from mailyard.storage.database import Database
from mailyard.storage.queries import Query
from mailyard.web.ui.pages import build_pages

_THEIRS, _OURS = "zebra", "otter"
_PARAMETER = re.compile(r"\{(\w+):\w+\}")
# Which thing a parameter names, where its first word does not say it.
_KINDS = {
    "inbox": "ibx", "message": "msg", "thread": "thr", "draft": "dft", "note": "txt",
    "campaign": "cmp", "segment": "seg", "template": "tpl", "provider": "prv", "webhook": "whk",
    "contact": "con", "list": "lst", "import": "imp", "demo": "dmo", "topic": "top",
}  # fmt: skip
_OF_SECTION = {
    ("domain_id", "domains"): "dom",
    ("domain_id", "receiving"): "rdm",
    ("delivery_id", "deliveries"): "dlv",
    ("delivery_id", "webhooks"): "whd",
}
_PLAIN = {"version": "1", "index": "0", "number": "0", "domain": "nobody.example"}
# For people who are not signed in, and files of the program.
_OPEN = ("/sign-in", "/sign-up", "/reset", "/invitation", "/static")
# A person's own, whoever it is.
_OWN = {"/sign-out", "/access/password"}


@dataclass
class Two:
    """A visitor who owns a workspace, and another workspace's things."""

    visitor: Visitor
    theirs: Things

    @property
    def platform(self) -> Platform:
        return self.visitor.platform

    def stranger(self) -> Visitor:
        """The visitor, whose forms and paths name the other's things."""
        return Visitor(self.platform, self.theirs, self.visitor.session)


@pytest.fixture
async def two(database: Database) -> AsyncIterator[Two]:
    platform = await start(database, with_pages=True)
    theirs = await make_things(platform, platform.workspace_id, platform.key, _THEIRS)
    other_id, other_key = await platform.other_workspace()
    ours = await make_things(platform, other_id, other_key, _OURS)
    theirs.ids["spare"], ours.ids["spare"] = theirs.ids["ibx"], ours.ids["ibx"]
    yield Two(await _visitor(platform, ours, scope.OWNER), theirs)
    await platform.close()


async def _visitor(platform: Platform, things: Things, role: str) -> Visitor:
    """Somebody new with this role in the workspace of `things`."""
    actor = Actor("command", "test", things.workspace_id)
    person = await platform.app.users.add(
        things.workspace_id, f"{role}@visitor.example", role, actor=actor
    )
    session = await platform.app.sessions.start(person.id, things.workspace_id, "a browser")
    return Visitor(platform, things, session)


def _pages(platform: Platform) -> list[str]:
    """The paths of all pages that somebody who is signed in may open."""
    found = {
        route.path
        for route in build_pages(platform.app).routes
        if "GET" in getattr(route, "methods", ()) and not route.path.startswith(_OPEN)
    }
    return sorted(found)


def _path(page: str, known: Mapping[str, str]) -> tuple[str, bool]:
    """The page's path with these ids, and whether there were any."""
    section = page.removeprefix("/fragments").split("/")[1]
    named = False
    for name in _PARAMETER.findall(page):
        kind = _OF_SECTION.get((name, section)) or _KINDS.get(name.removesuffix("_id"))
        named = named or kind is not None
        text = _PLAIN[name] if kind is None else known[kind]
        page = re.sub(rf"\{{{name}:\w+\}}", text, page)
    return page, named


async def test_no_page_shows_a_word_of_another_workspace(two: Two) -> None:
    wrong, seen, addressed = [], 0, 0
    for page in _pages(two.platform):
        path, named = _path(page, two.theirs.ids)
        addressed += named
        shown = await two.visitor.show(path)
        if _THEIRS.encode() in shown.body or (named and shown.status != 404):
            wrong.append((page, shown.status))
        seen += _OURS.encode() in shown.body
    assert wrong == []
    assert addressed >= 15 and seen >= 12, "pages with ids, and lists with our own things"


async def test_the_owner_opens_the_same_pages(two: Two) -> None:
    """What is refused above means something only if it opens at home."""
    unopened = []
    for page in _pages(two.platform):
        path, named = _path(page, two.visitor.things.ids)
        if named:
            shown = await two.visitor.show(path)
            if shown.status != 200:
                unopened.append((page, shown.status))
    assert unopened == []


def _named_in_path(form: Form) -> bool:
    return "{" in form.path.replace("{feature}", "").replace("{version}", "")


async def test_no_form_reaches_anything_of_another_workspace(two: Two) -> None:
    before = await contents(two.platform.app.database)
    stranger, reached = two.stranger(), []
    for form in (*FORMS, *MOVES):
        if _named_in_path(form):
            reply = await stranger.send(form)
            if reply.status < 400 or _THEIRS.encode() in reply.body:
                reached.append((form.path, reply.status))
    assert reached == []
    assert differing(before, await contents(two.platform.app.database)) <= {"process"}


async def test_what_the_fields_of_a_form_name_is_looked_for_at_home_alone(two: Two) -> None:
    naming = [form for form in FORMS if any(text[:1] == "{" for text in form.fields.values())]
    assert len(naming) >= 6
    before = await _of(two.platform.app.database, two.theirs)
    for form in naming:
        reply = await two.visitor.send(form, named=two.theirs)
        assert _THEIRS.encode() not in reply.body, form.path
    assert await _of(two.platform.app.database, two.theirs) == before
    letters = await two.platform.call("GET", "/v1/dead-letters", key=two.theirs.key)
    assert [one["id"] for one in letters.json["items"]] == [two.theirs.dead_letter]


async def test_a_viewers_forms_change_nothing(two: Two) -> None:
    viewer = await _visitor(two.platform, two.visitor.things, scope.VIEWER)
    before = await contents(two.platform.app.database)
    allowed = []
    for form in (*FORMS, *MOVES):
        if form.path not in _OWN:
            reply = await viewer.send(form)
            if reply.status != 403:
                allowed.append((form.path, reply.status))
    assert allowed == []
    assert differing(before, await contents(two.platform.app.database)) <= {"process"}


async def _of(database: Database, things: Things) -> dict[str, int]:
    """A sum over the workspace's rows of each table."""
    names = await database.fetch(
        Query(
            "SELECT c.relname AS name FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
            "WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') "
            "AND NOT c.relispartition AND a.attname = 'workspace_id' AND NOT a.attisdropped"
        )
    )
    sums = {}
    for row in names:
        sql = (
            "SELECT count(*) + coalesce(sum(hashtextextended(t::text, 0)), 0) "
            f"FROM {row['name']} AS t WHERE workspace_id = $1"
        )
        sums[row["name"]] = int(await database.fetchval(Query(sql), things.workspace_id))
    return sums
