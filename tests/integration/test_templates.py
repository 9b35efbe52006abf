"""Templates of a workspace: proven, versioned, rendered, and no workspace sees another's."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from mailyard.access.audit import Actor, Audit
from mailyard.access.workspace import Workspaces
from mailyard.bus.adapters.memory import MemoryBus
from mailyard.cache.adapters.memory import MemoryCache
from mailyard.cache.adapters.postgres import PostgresCache
from mailyard.campaigns.contact import Contacts
from mailyard.campaigns.personal import CachedPersonal
from mailyard.campaigns.topic import Topics
from mailyard.core.errors import Conflict, InvalidInput, NotFound
from mailyard.core.ids import uuid7
from mailyard.sending.build.source import BLOCK, LAYOUT, Source
from mailyard.sending.ready import Ready
from mailyard.sending.template import Templates
from mailyard.storage.database import Database
from mailyard.storage.queries import Query

ADD_WORKSPACE = Query("INSERT INTO workspace (id, name) VALUES ($1, 'test')")


async def new_workspace(database: Database) -> UUID:
    workspace_id = uuid7()
    await database.execute(ADD_WORKSPACE, workspace_id)
    return workspace_id


@pytest.fixture
async def workspace(database: Database) -> UUID:
    return await new_workspace(database)


@pytest.fixture
async def templates(database: Database) -> AsyncIterator[Templates]:
    service = Templates(database=database)
    yield service
    await service.close()


async def test_a_template_is_stored_with_its_variables_and_rendered(
    templates: Templates, workspace: UUID
) -> None:
    made = await templates.create(
        workspace,
        "welcome",
        await templates.prove("Hi {{ name }}", "<p>{{ order.id }}</p>", "Hello {{ name }}"),
    )
    assert (made.name, made.version, made.variables) == ("welcome", 1, ("name", "order"))
    assert await templates.get(workspace, made.id) == made
    mail = await templates.render(workspace, made.id, {"name": "<Ann>", "order": {"id": "a&b"}})
    assert mail == ("Hi <Ann>", "<p>a&amp;b</p>", "Hello <Ann>")


async def test_a_missing_variable_is_an_error_before_anything_is_sent(
    templates: Templates, workspace: UUID
) -> None:
    made = await templates.create(
        workspace, "t", await templates.prove("s", "<p>\n{{ city }}</p>", "")
    )
    with pytest.raises(InvalidInput) as refused:
        await templates.render(workspace, made.id, {})
    assert refused.value.field == "data.city"
    assert refused.value.message == "html, line 2, column 4: `city` is undefined"


async def test_publishing_adds_a_version_and_the_old_one_stays(
    templates: Templates, workspace: UUID
) -> None:
    made = await templates.create(workspace, "t", await templates.prove("one", "<p>1</p>", ""))
    assert (await templates.render(workspace, made.id, {})).subject == "one"
    second = await templates.publish(
        workspace, made.id, await templates.prove("two {{ x }}", "<p>2</p>", "")
    )
    assert (second.version, second.name, second.variables) == (2, "t", ("x",))
    assert (await templates.render(workspace, made.id, {"x": 2})).subject == "two 2"
    assert (await templates.render(workspace, made.id, {}, version=1)).subject == "one"
    assert (await templates.get(workspace, made.id, 1)).html == "<p>1</p>"
    assert [line.version for line in await templates.versions(workspace, made.id)] == [2, 1]
    older = await templates.versions(workspace, made.id, before=2)
    assert [line.version for line in older] == [1]
    with pytest.raises(NotFound):
        await templates.get(workspace, made.id, 3)


async def test_a_template_that_cannot_be_proven_is_not_stored(
    templates: Templates, workspace: UUID
) -> None:
    for subject, html, text, field in (
        ("s", "{% for i in range(100000) %}" * 4 + "{% endfor %}" * 4, "", "html"),
        ("s", "{{ 'a' * 1000000 }}", "", "html"),
        ("{{ x|nofilter }}", "h", "", "subject"),
        ("s", "h", "{% if %}", "text"),
        ("s", "", "  ", "html"),
        (" ", "h", "", "subject"),
        ("s", "a\0b", "", "html"),
        ("s", "a", "\ud800", "text"),
    ):
        with pytest.raises(InvalidInput) as refused:
            await templates.create(workspace, "t", await templates.prove(subject, html, text))
        assert refused.value.field == field
    assert await templates.list(workspace) == []


async def test_names_are_unique_in_a_workspace(
    templates: Templates, database: Database, workspace: UUID
) -> None:
    await templates.create(workspace, "t", await templates.prove("s", "h", ""))
    with pytest.raises(Conflict):
        await templates.create(workspace, " t ", await templates.prove("s", "h", ""))
    other = await new_workspace(database)
    assert (await templates.create(other, "t", await templates.prove("s", "h", ""))).version == 1
    for name in ("", "a\nb", "x" * 201):
        with pytest.raises(InvalidInput):
            await templates.create(workspace, name, await templates.prove("s", "h", ""))


async def test_templates_are_listed_newest_first_by_page(
    templates: Templates, workspace: UUID
) -> None:
    made = [
        await templates.create(workspace, f"t{n}", await templates.prove("s", "h", ""))
        for n in range(5)
    ]
    await templates.publish(workspace, made[0].id, await templates.prove("newer", "h", ""))
    first = await templates.list(workspace, limit=3)
    rest = await templates.list(workspace, after=first[-1].id, limit=3)
    assert [line.id for line in first + rest] == [template.id for template in reversed(made)]
    assert (rest[-1].version, rest[-1].subject) == (2, "newer")


async def test_no_workspace_sees_or_renders_anothers_template(
    templates: Templates, database: Database, workspace: UUID
) -> None:
    made = await templates.create(workspace, "t", await templates.prove("s", "h", ""))
    await templates.render(workspace, made.id, {})  # compiled and cached by now
    other = await new_workspace(database)
    assert await templates.list(other) == []
    with pytest.raises(NotFound):
        await templates.get(other, made.id)
    with pytest.raises(NotFound):
        await templates.versions(other, made.id)
    with pytest.raises(NotFound):
        await templates.publish(other, made.id, await templates.prove("s", "h", ""))
    for version in (None, 1):
        with pytest.raises(NotFound):
            await templates.render(other, made.id, {}, version=version)


async def test_a_version_is_compiled_once(templates: Templates, workspace: UUID) -> None:
    made = await templates.create(workspace, "t", await templates.prove("s", "h", ""))
    compiled = await templates.compiled(workspace, made.id)
    assert await templates.compiled(workspace, made.id, 1) is compiled
    await templates.publish(workspace, made.id, await templates.prove("s2", "h", ""))
    assert await templates.compiled(workspace, made.id) is not compiled


async def test_a_template_written_in_a_transaction_goes_with_it(
    templates: Templates, database: Database, workspace: UUID
) -> None:
    with pytest.raises(RuntimeError):
        async with database.transaction() as tx:
            await templates.create(workspace, "t", await templates.prove("s", "h", ""), tx=tx)
            raise RuntimeError
    assert await templates.list(workspace) == []


async def test_a_version_is_rolled_back_and_a_draft_touches_nothing_until_it_is_published(
    templates: Templates, database: Database, workspace: UUID
) -> None:
    made = await templates.create(workspace, "t", await templates.prove("one", "<p>1</p>", ""))
    await templates.publish(workspace, made.id, await templates.prove("two", "<p>2</p>", ""))
    wrong = Source("three", "<p>{% if %}", inline_css=True)
    draft = await templates.save_draft(workspace, made.id, wrong, author="ann")
    assert (draft.source, draft.author, draft.published) == (wrong, "ann", 2)
    assert (await templates.render(workspace, "t", {})).subject == "two"
    async with database.transaction() as tx:
        assert await templates.roll_back(workspace, made.id, 1, tx=tx) == 2
    templates.announce()
    assert (await templates.render(workspace, "t", {})).subject == "one"
    source = await templates.prove_source(workspace, Source("three", "<p>3</p>"))
    changed = await templates.save_draft(workspace, made.id, source.source)
    with pytest.raises(Conflict):  # somebody has written on
        async with database.transaction() as tx:
            await templates.finish_draft(workspace, draft, tx=tx)
    async with database.transaction() as tx:
        await templates.finish_draft(workspace, changed, tx=tx)
        assert (await templates.publish(workspace, made.id, source, tx=tx)).version == 3
    lines = await templates.versions(workspace, made.id)
    assert [(line.version, line.published, line.has_draft) for line in lines] == [
        (3, 3, False), (2, 3, False), (1, 3, False),
    ]  # fmt: skip


async def test_a_template_is_built_with_the_layouts_and_blocks_of_its_own_workspace(
    templates: Templates, database: Database, workspace: UUID
) -> None:
    async def add(where: UUID, name: str, source: Source) -> UUID:
        return (await templates.create(where, name, await templates.prove_source(where, source))).id

    shell = await add(
        workspace, "shell", Source(html="<b>{% block x %}{% endblock %}</b>", kind=LAYOUT)
    )
    await add(workspace, "foot", Source(html="<i>{{ shop }}</i>", kind=BLOCK))
    mail = Source("s", '{% extends "shell" %}{% block x %}{% include "foot" %}{% endblock %}')
    made = await add(workspace, "mail", mail)
    assert (await templates.render(workspace, "mail", {"shop": "Tea"})).html == "<b><i>Tea</i></b>"
    next_shell = Source(html="<u>{% block x %}{% endblock %}</u>", kind=LAYOUT)
    await templates.publish(workspace, shell, await templates.prove_source(workspace, next_shell))
    assert (await templates.render(workspace, made, {"shop": "Tea"})).html == "<b><i>Tea</i></b>"
    uses = await templates.uses(workspace, made, 1)
    assert [(one.name, one.version, one.published) for one in uses] == [
        ("foot", 1, 1), ("shell", 1, 2),
    ]  # fmt: skip
    assert [one.name for one in await templates.users(workspace, shell)] == ["mail"]
    await templates.publish(workspace, made, await templates.prove_source(workspace, mail))
    assert (await templates.render(workspace, made, {"shop": "Tea"})).html == "<u><i>Tea</i></u>"
    with pytest.raises(InvalidInput) as refused:
        await templates.render(workspace, "shell", {})
    assert "a layout, not an email" in refused.value.message
    with pytest.raises(InvalidInput) as refused:
        await templates.prove_source(await new_workspace(database), mail)
    assert "line 1, column 35: there is no block 'foot' that is published" in refused.value.message


async def test_a_new_version_is_used_at_once_by_every_process(
    database: Database, workspace: UUID
) -> None:
    bus = MemoryBus()
    here, there = (
        Templates(database=database, ready=Ready(database=database, bus=bus)) for _ in range(2)
    )
    try:
        made = await here.create(workspace, "t", await here.prove("one", "h", ""))
        assert (await there.render(workspace, "t", {})).subject == "one"
        await here.publish(workspace, made.id, await here.prove("two", "h", ""))
        assert (await there.render(workspace, "t", {})).subject == "two"
        assert (await there.render(workspace, made.id, {})).subject == "two"
    finally:
        await here.close()
        await there.close()


async def test_dates_and_money_are_written_as_the_workspace_says_until_the_contact_does(
    templates: Templates, database: Database, workspace: UUID
) -> None:
    await templates.create(workspace, "t", await templates.prove("{{ 1.5|number }}", "h", ""))
    assert (await templates.render(workspace, "t", {})).subject == "1.5"
    actor = Actor("command", "test", workspace)
    await Workspaces(database=database, audit=Audit(database=database)).change(
        workspace, locale="de", actor=actor
    )
    templates.announce()
    assert (await templates.render(workspace, "t", {})).subject == "1,5"
    assert (await templates.render(workspace, "t", {"locale": "en"})).subject == "1.5"


async def test_the_version_in_use_is_shared_between_processes_and_never_an_old_one(
    database: Database, workspace: UUID
) -> None:
    cache, key = PostgresCache(database=database), "email:template:t"
    processes = [
        Templates(database=database, ready=Ready(database=database, cache=cache)) for _ in range(2)
    ]
    one, two = processes
    try:
        made = await one.create(workspace, "t", await one.prove("one {{ x }}", "h", ""))
        await one.render(workspace, "t", {"x": 1})
        old = (await cache.get(workspace, [key]))[key]
        assert (await two.render(workspace, "t", {"x": 1})).subject == "one 1"
        await one.publish(workspace, made.id, await one.prove("two {{ x }}", "h", ""))
        await cache.put(workspace, {key: old}, 60)  # a slow process comes with what it had read
        assert (await one.render(workspace, "t", {"x": 1})).subject == "two 1"
        assert (await cache.get(workspace, [key]))[key] != old
    finally:
        for process in processes:
            await process.close()


async def test_a_mail_knows_its_contact_and_what_he_wants(
    database: Database, workspace: UUID
) -> None:
    personal = CachedPersonal(database=database, cache=MemoryCache())
    templates = Templates(database=database, personal=personal)
    try:
        await Contacts(database=database).create(
            workspace, "ann@example.org", "Ann", {"city": "Rome", "locale": "it"}
        )
        topics = Topics(database=database)
        await topics.create(workspace, "News")
        await topics.create(workspace, "Sales", on_request=True)
        source = (
            '{{ contact.name|default("you", true) }} {{ 1.5|number }}'
            '{% if preferences["News"] %} news{% endif %}'
            '{% if preferences["Sales"] %} sales{% endif %}'
        )
        await templates.create(workspace, "t", await templates.prove(source, "h", ""))
        for to, data, subject in (
            ("ann@example.org", {}, "Ann 1,5 news"),
            ("bob@example.org", {}, "you 1.5 news"),
            ("ann@example.org", {"locale": "en"}, "Ann 1.5 news"),
            ("ann@example.org", {"contact": {"name": "A"}, "preferences": {"News": False,
             "Sales": True}}, "A 1,5 sales"),
        ):  # fmt: skip
            assert (await templates.render(workspace, "t", data, to=to)).subject == subject
    finally:
        await templates.close()
