"""Stored templates: proven before they are stored, versioned, compiled once a process.

A version never changes, so that a campaign renders to its end what it started with; publishing adds
a version.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from mailyard.core import limits
from mailyard.core.errors import Conflict, InvalidInput, NotFound
from mailyard.core.ids import uuid7
from mailyard.sending.proof import Prover
from mailyard.sending.render import Compiled, Rendered
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("template")
_COMPILED = 256  # versions that one process keeps compiled
_NAME_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Template:
    """One version of a template. `variables`: the names that its three sources use."""

    id: UUID
    name: str
    version: int
    subject: str
    html: str
    text: str
    variables: tuple[str, ...]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class TemplateLine:
    """One version in a list: everything but the bodies."""

    id: UUID
    name: str
    version: int
    subject: str
    variables: tuple[str, ...]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Proven:
    """Sources that `Templates.prove` found good: what a version is made from."""

    subject: str
    html: str
    text: str
    variables: tuple[str, ...]


class Templates:
    """Create, publish, read and render the templates of a workspace. Close it at the end."""

    def __init__(self, *, database: Database, prover: Prover | None = None) -> None:
        self._database = database
        self._prover = prover or Prover()
        self._compiled: OrderedDict[tuple[UUID, UUID, int], Compiled] = OrderedDict()

    async def close(self) -> None:
        """End the process that proves templates."""
        await self._prover.close()

    async def prove(self, subject: str, html: str, text: str) -> Proven:
        """Find out whether the sources render within their bounds; before any transaction, for it
        takes as long as they do. Raises InvalidInput (source and line).
        """
        for field, source in (("subject", subject), ("html", html), ("text", text)):
            if "\0" in source:
                raise InvalidInput("NUL is not allowed here", field=field)
            if not source.isascii():
                try:
                    source.encode()
                except UnicodeEncodeError:
                    raise InvalidInput("not valid Unicode", field=field) from None
        if not subject.strip():
            raise InvalidInput("a subject is needed", field="subject")
        if not html.strip() and not text.strip():
            raise InvalidInput("HTML or text is needed", field="html")
        return Proven(subject, html, text, await self._prover.prove(subject, html, text))

    async def create(
        self,
        workspace_id: UUID,
        name: str,
        source: Proven,
        *,
        tx: Connection | None = None,
    ) -> Template:
        """Store version 1. Raises InvalidInput for the name, Conflict when it stands already."""
        row = await self._database.fetchrow(
            _SQL.insert_template,
            workspace_id,
            uuid7(),
            _checked_name(name),
            source.subject,
            source.html,
            source.text,
            source.variables,
            tx=tx,
        )
        if row is None:
            raise Conflict("a template with this name is there already", field="name")
        return _template(row)

    async def publish(
        self,
        workspace_id: UUID,
        template_id: UUID,
        source: Proven,
        *,
        tx: Connection | None = None,
    ) -> Template:
        """Store the next version. Raises NotFound."""
        row = await self._database.fetchrow(
            _SQL.insert_version,
            workspace_id,
            template_id,
            source.subject,
            source.html,
            source.text,
            source.variables,
            tx=tx,
        )
        if row is None:
            raise NotFound("there is no such template")
        return _template(row)

    async def get(
        self,
        workspace_id: UUID,
        template_id: UUID,
        version: int | None = None,
        *,
        tx: Connection | None = None,
    ) -> Template:
        """One version, the newest when none is named. Raises NotFound."""
        row = await self._database.fetchrow(
            _SQL.get_version, workspace_id, template_id, version, tx=tx
        )
        if row is None:
            raise NotFound("there is no such template or version")
        return _template(row)

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
            raise NotFound("there is no such template")
        return [_line(row) for row in rows]

    async def compiled(
        self,
        workspace_id: UUID,
        template_id: UUID,
        version: int | None = None,
        *,
        tx: Connection | None = None,
    ) -> Compiled:
        """A version ready to render, from the cache when it is there. Raises NotFound."""
        if version is None:
            version = await self._database.fetchval(
                _SQL.newest_version, workspace_id, template_id, tx=tx
            )
            if version is None:
                raise NotFound("there is no such template", field="template")
        key = (workspace_id, template_id, version)
        found = self._compiled.get(key)
        if found is None:
            stored = await self.get(workspace_id, template_id, version, tx=tx)
            found = Compiled(stored.subject, stored.html, stored.text)
            self._compiled[key] = found
            while len(self._compiled) > _COMPILED:
                self._compiled.popitem(last=False)
        else:
            self._compiled.move_to_end(key)
        return found

    async def render(
        self,
        workspace_id: UUID,
        template_id: UUID,
        data: Mapping[str, Any],
        *,
        version: int | None = None,
    ) -> Rendered:
        """One mail's subject, HTML and text. Raises NotFound, InvalidInput naming the variable."""
        return (await self.compiled(workspace_id, template_id, version)).render(data)

    async def list(
        self, workspace_id: UUID, *, after: UUID | None = None, limit: int = limits.API_PAGE_ITEMS
    ) -> list[TemplateLine]:
        """A page of templates with their newest versions, the newest first, behind `after`."""
        rows = await self._database.fetch(_SQL.page_templates, workspace_id, after, limit)
        return [_line(row) for row in rows]


def _checked_name(name: str) -> str:
    name = name.strip()
    if not 1 <= len(name) <= _NAME_CHARACTERS or not name.isprintable():
        raise InvalidInput(f"1 to {_NAME_CHARACTERS} printable characters", field="name")
    return name


def _template(row: asyncpg.Record) -> Template:
    return Template(
        id=row["id"],
        name=row["name"],
        version=row["version"],
        subject=row["subject"],
        html=row["html"],
        text=row["text"],
        variables=tuple(row["variables"]),
        created_at=row["created_at"],
    )


def _line(row: asyncpg.Record) -> TemplateLine:
    return TemplateLine(
        id=row["id"],
        name=row["name"],
        version=row["version"],
        subject=row["subject"],
        variables=tuple(row["variables"]),
        created_at=row["created_at"],
    )
