"""Stored templates: built and proven before they are stored, versioned, with one version in use.

A version never changes, so that a campaign renders to its end what it started with. Publishing adds
a version and puts it into use; an older one can be put into use again. What is being written is a
draft, which nothing renders but a preview. Layouts and blocks (`kind`) are parts of other
templates: a version is built with the parts as they were published then, and says which.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec

from mailyard.core import limits
from mailyard.core.errors import Conflict, InvalidInput, NotFound
from mailyard.core.ids import uuid7
from mailyard.sending.build.source import (
    KINDS,
    Part,
    Source,
    check_characters,
    check_source,
    names_in,
)
from mailyard.sending.personal import CONTACT, PREFERENCES, SPOKEN, Personal
from mailyard.sending.proof import Prover
from mailyard.sending.ready import Ready
from mailyard.sending.render import Compiled, Rendered
from mailyard.sending.template_value import (
    Draft,
    Proven,
    Template,
    TemplateLine,
    Use,
    line_of,
    use_of,
)
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("template")
_NAME_CHARACTERS = 200
_PARTS = 100  # layouts and blocks that one template may name, directly and through others
_NO_TEMPLATE = "there is no such template"
_NO_VERSION = "there is no such template or version"


class Templates:
    """Create, publish, read and render the templates of a workspace. Close it at the end."""

    def __init__(
        self,
        *,
        database: Database,
        ready: Ready | None = None,
        personal: Personal | None = None,
    ) -> None:
        self.personal = personal
        self._database = database
        self._prover = Prover()
        self._ready = ready or Ready(database=database)

    async def close(self) -> None:
        """End the process that proves templates."""
        await self._prover.close()

    # Proving -------------------------------------------------------------------------------------

    async def prove(self, subject: str, html: str, text: str) -> Proven:
        """As `prove_source`, for a template that stands alone."""
        return await self.prove_source(None, Source(subject, html, "", text))

    async def prove_source(self, workspace_id: UUID | None, source: Source) -> Proven:
        """Find out what the source becomes, with the parts of the workspace that it names, and
        whether that renders within its bounds; before any transaction, for it takes as long as it
        does. Raises InvalidInput (source, line and column).
        """
        check_source(source)
        library: dict[str, Part] = {}
        parts: dict[str, tuple[UUID, int]] = {}
        wanted = names_in(source)
        while wanted and workspace_id is not None:
            if len(library) + len(wanted) > _PARTS:
                raise InvalidInput(f"more than {_PARTS} layouts and blocks", field="html")
            rows = await self._database.fetch(_SQL.parts_by_name, workspace_id, list(wanted))
            for row in rows:
                part = Part(row["kind"], row["html"], row["mjml"], row["text"])
                library[row["name"]] = part
                parts[row["name"]] = (row["id"], row["version"])
            asked = {name for row in rows for name in names_in(library[row["name"]])}
            wanted = asked - library.keys()
            if not rows:
                break
        built, variables = await self._prover.prove(source, library)
        return Proven(source, built, variables, tuple(parts.values()))

    # Writing -------------------------------------------------------------------------------------

    async def create(
        self,
        workspace_id: UUID,
        name: str,
        source: Proven,
        *,
        author: str = "",
        tx: Connection | None = None,
    ) -> Template:
        """Store version 1. Raises InvalidInput for the name, Conflict when it stands already."""
        if tx is None:
            async with self._database.transaction() as own:
                return await self.create(workspace_id, name, source, author=author, tx=own)
        template_id = await self._insert(workspace_id, name, source.source.kind, tx)
        return await self.publish(workspace_id, template_id, source, author=author, tx=tx)

    async def create_draft(
        self,
        workspace_id: UUID,
        name: str,
        source: Source,
        *,
        author: str = "",
        tx: Connection,
    ) -> Draft:
        """A template that has only a draft. Raises as `create` does."""
        template_id = await self._insert(workspace_id, name, source.kind, tx)
        return await self.save_draft(workspace_id, template_id, source, author=author, tx=tx)

    async def _insert(self, workspace_id: UUID, name: str, kind: str, tx: Connection) -> UUID:
        if kind not in KINDS:
            raise InvalidInput(f"one of {', '.join(KINDS)}", field="kind")
        row = await self._database.fetchrow(
            _SQL.insert_template, workspace_id, uuid7(), _checked_name(name), kind, tx=tx
        )
        if row is None:
            raise Conflict("a template with this name is there already", field="name")
        made: UUID = row["id"]
        return made

    async def publish(
        self,
        workspace_id: UUID,
        template_id: UUID,
        source: Proven,
        *,
        author: str = "",
        tx: Connection | None = None,
    ) -> Template:
        """Store the next version and put it into use. Raises NotFound.

        The caller says so with `announce` after the commit.
        """
        given, built = source.source, source.built
        changed = built.origins
        row = await self._database.fetchrow(
            _SQL.insert_version,
            workspace_id,
            template_id,
            given.subject,
            given.html,
            given.mjml,
            given.text,
            built.inline_css,
            source.variables,
            built.html if "html" in changed else None,
            built.text if "text" in changed else None,
            msgspec.json.encode(changed).decode() if changed else None,
            author,
            [part_id for part_id, _ in source.parts],
            [version for _, version in source.parts],
            tx=tx,
        )
        if row is None:
            raise NotFound(_NO_TEMPLATE)
        if tx is None:
            self.announce()
        return await self.get(workspace_id, template_id, row["version"], tx=tx)

    async def roll_back(
        self, workspace_id: UUID, template_id: UUID, version: int, *, tx: Connection
    ) -> int:
        """Put a version that stands into use; the one that was before. Raises NotFound."""
        row = await self._database.fetchrow(
            _SQL.use_version, workspace_id, template_id, version, tx=tx
        )
        if row is None:
            raise NotFound(_NO_VERSION)
        before: int = row["version"]
        return before

    def announce(self) -> None:
        """Another version is in use, or another locale: every process looks again. After the
        commit."""
        self._ready.announce()

    # Drafts --------------------------------------------------------------------------------------

    async def save_draft(
        self,
        workspace_id: UUID,
        template_id: UUID,
        source: Source,
        *,
        author: str = "",
        tx: Connection | None = None,
    ) -> Draft:
        """Keep what is being written, right or wrong. Raises InvalidInput for text that cannot be
        stored, NotFound."""
        check_characters(source)
        row = await self._database.fetchrow(
            _SQL.save_draft,
            workspace_id,
            template_id,
            source.subject,
            source.html,
            source.mjml,
            source.text,
            source.inline_css is not False,
            author,
            tx=tx,
        )
        if row is None:
            raise NotFound(_NO_TEMPLATE)
        return await self.draft(workspace_id, template_id, tx=tx)

    async def draft(
        self, workspace_id: UUID, template_id: UUID, *, tx: Connection | None = None
    ) -> Draft:
        """What is being written. Raises NotFound when nothing is."""
        row = await self._database.fetchrow(_SQL.get_draft, workspace_id, template_id, tx=tx)
        if row is None:
            raise NotFound("this template has no draft")
        source = Source(
            row["subject"], row["html"], row["mjml"], row["text"], row["kind"],
            inline_css=row["inline_css"],
        )  # fmt: skip
        return Draft(
            row["id"], row["name"], row["published"], source, row["author"], row["edited_at"]
        )

    async def drop_draft(
        self, workspace_id: UUID, template_id: UUID, *, tx: Connection | None = None
    ) -> bool:
        """Forget what is being written; whether there was anything."""
        row = await self._database.fetchrow(_SQL.drop_draft, workspace_id, template_id, tx=tx)
        return row is not None

    async def finish_draft(self, workspace_id: UUID, draft: Draft, *, tx: Connection) -> None:
        """Forget a draft that is published now. Raises Conflict when it was edited meanwhile."""
        row = await self._database.fetchrow(_SQL.drop_draft, workspace_id, draft.id, tx=tx)
        if row is None or row["edited_at"] != draft.edited_at:
            raise Conflict("the draft was changed meanwhile: look at it again")

    # Reading -------------------------------------------------------------------------------------

    async def get(
        self,
        workspace_id: UUID,
        template_id: UUID,
        version: int | None = None,
        *,
        tx: Connection | None = None,
    ) -> Template:
        """One version, the one in use when none is named. Raises NotFound."""
        row = await self._database.fetchrow(
            _SQL.get_version, workspace_id, template_id, version, tx=tx
        )
        if row is None:
            raise NotFound(_NO_VERSION)
        return Template(**{**row, "variables": tuple(row["variables"])})

    async def find(self, workspace_id: UUID, word: str) -> Use:
        """The template of this name, with its version in use (0: none). Raises NotFound."""
        row = await self._database.fetchrow(_SQL.published_by_name, workspace_id, word)
        if row is None:
            raise NotFound(_NO_TEMPLATE, field="template")
        return use_of(row)

    async def head(
        self, workspace_id: UUID, template_id: UUID, *, tx: Connection | None = None
    ) -> Use:
        """What a template is, and its version in use (0: none). Raises NotFound."""
        row = await self._database.fetchrow(_SQL.published_by_id, workspace_id, template_id, tx=tx)
        if row is None:
            raise NotFound(_NO_TEMPLATE)
        return use_of(row)

    async def versions(
        self,
        workspace_id: UUID,
        template_id: UUID,
        *,
        before: int | None = None,
        limit: int = limits.API_PAGE_ITEMS,
    ) -> list[TemplateLine]:
        """A page of one template's versions, the newest first. Raises NotFound."""
        rows = await self._database.fetch(
            _SQL.page_versions, workspace_id, template_id, before, limit
        )
        if not rows and before is None:
            await self.head(workspace_id, template_id)
        return [line_of(row) for row in rows]

    async def list(
        self,
        workspace_id: UUID,
        *,
        name: str | None = None,
        after: UUID | None = None,
        limit: int = limits.API_PAGE_ITEMS,
    ) -> list[TemplateLine]:
        """A page of templates with their versions in use, the newest first, behind `after`; with a
        `name` the one that has it."""
        rows = await self._database.fetch(_SQL.page_templates, workspace_id, after, limit, name)
        return [line_of(row) for row in rows]

    async def uses(self, workspace_id: UUID, template_id: UUID, version: int) -> Sequence[Use]:
        """The layouts and blocks that a version was built with."""
        rows = await self._database.fetch(_SQL.uses, workspace_id, template_id, version)
        return [Use(**row) for row in rows]

    async def users(self, workspace_id: UUID, template_id: UUID) -> Sequence[Use]:
        """The templates in use that have this layout or block in them, and which version of it."""
        rows = await self._database.fetch(_SQL.users, workspace_id, template_id, _PARTS)
        return [Use(**row) for row in rows]

    # Rendering -----------------------------------------------------------------------------------

    async def compiled(
        self,
        workspace_id: UUID,
        template: UUID | str,
        version: int | None = None,
        *,
        tx: Connection | None = None,
    ) -> Compiled:
        """A version ready to render, the one in use when none is named. `template`: id or name.

        Raises NotFound.
        """
        return await self._ready.get(workspace_id, template, version, tx=tx)

    async def render(
        self,
        workspace_id: UUID,
        template: UUID | str,
        data: Mapping[str, Any],
        *,
        version: int | None = None,
        to: str = "",
    ) -> Rendered:
        """One mail's subject, HTML and text. Raises NotFound, InvalidInput naming the variable.

        `to`: the normalised address that it goes to, for what the template asks of the person.
        """
        compiled = await self.compiled(workspace_id, template, version)
        if compiled.asks:
            data = await self.with_person(workspace_id, compiled.asks, data, to)
        return compiled.render(data)

    async def with_person(
        self, workspace_id: UUID, asks: frozenset[str], data: Mapping[str, Any], to: str
    ) -> Mapping[str, Any]:
        """The data, and behind them what is known of the person with the address `to`."""
        wanted = asks - data.keys()
        if not wanted or not to or self.personal is None:
            return data
        known: dict[str, Any] = {}
        if wanted != {PREFERENCES}:
            contact = (await self.personal.contacts(workspace_id, [to])).get(to, {})
            known = {name: contact[name] for name in SPOKEN if name in contact}
            known[CONTACT] = {"name": "", "address": to, **contact}
        if PREFERENCES in wanted:
            known[PREFERENCES] = (await self.personal.preferences(workspace_id, [to]))[to]
        return {**known, **data}


def _checked_name(name: str) -> str:
    name = name.strip()
    if not 1 <= len(name) <= _NAME_CHARACTERS or not name.isprintable():
        raise InvalidInput(f"1 to {_NAME_CHARACTERS} printable characters", field="name")
    if any(sign in name for sign in "\"'{}%"):
        raise InvalidInput("a name has no quotes, braces and per cent signs", field="name")
    if name.startswith("tpl_"):
        raise InvalidInput("a name does not begin like an id", field="name")
    return name
