"""A template as a value: a version, a line of a list, a draft, a use, and what was proven."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from mailyard.sending.build.source import EMAIL, Built, Source


@dataclass(frozen=True, slots=True)
class Template:
    """One version of a template. `variables`: the names that its sources use."""

    id: UUID
    name: str
    version: int
    subject: str
    html: str
    text: str
    variables: tuple[str, ...]
    created_at: datetime
    kind: str = EMAIL
    mjml: str = ""
    inline_css: bool = True
    author: str = ""
    published: int = 0  # the version in use
    newest: int = 0

    @property
    def source(self) -> Source:
        """What its author wrote."""
        return Source(
            self.subject,
            self.html,
            self.mjml,
            self.text,
            kind=self.kind,
            inline_css=self.inline_css,
        )


@dataclass(frozen=True, slots=True)
class TemplateLine:
    """One version in a list: everything but the bodies. Version 0: nothing is published yet."""

    id: UUID
    name: str
    version: int
    subject: str
    variables: tuple[str, ...]
    created_at: datetime | None
    kind: str = EMAIL
    author: str = ""
    published: int = 0
    newest: int = 0
    has_draft: bool = False


@dataclass(frozen=True, slots=True)
class Draft:
    """What is being written of a template."""

    id: UUID
    name: str
    published: int
    source: Source
    author: str
    edited_at: datetime


@dataclass(frozen=True, slots=True)
class Use:
    """A layout or block in a template, or a template that uses one. `version` is built in."""

    id: UUID
    name: str
    kind: str
    version: int
    published: int = 0


@dataclass(frozen=True, slots=True)
class Proven:
    """Sources that `Templates.prove` found good: what a version is made from."""

    source: Source
    built: Built
    variables: tuple[str, ...]
    parts: tuple[tuple[UUID, int], ...] = ()  # the layouts and blocks in it, and their versions


def use_of(row: asyncpg.Record) -> Use:
    """A template with its version in use."""
    return Use(row["id"], row["name"], row["kind"], row["version"], row["version"])


def line_of(row: asyncpg.Record) -> TemplateLine:
    """A row of a list, also of a template that is a draft alone."""
    return TemplateLine(
        **{
            **row,
            "version": row["version"] or 0,
            "subject": row["subject"] or "",
            "author": row["author"] or "",
            "variables": tuple(row["variables"] or ()),
        }
    )
