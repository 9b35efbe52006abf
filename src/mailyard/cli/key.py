"""`mailyard key`: API keys, made at the database itself, so that a lost key locks nobody out.

Whoever may run this on the machine is the operator: the audit log names the user of the machine.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar
from uuid import UUID

import typer

from mailyard.access.key import ApiKey
from mailyard.access.scope import ADMIN, OWNER, SCOPES
from mailyard.app import Application
from mailyard.cli.client import AsJson, say, say_rows
from mailyard.cli.operator import operator
from mailyard.core import ids
from mailyard.core.errors import NotFound
from mailyard.protocol.address import normalise
from mailyard.settings import load_settings

app = typer.Typer(add_completion=False, no_args_is_help=True)

Workspace = Annotated[
    str | None, typer.Option(help="The workspace's id; the installation's first when not said.")
]
_COLUMNS = (
    ("ID", "id"),
    ("Name", "name"),
    ("Prefix", "prefix"),
    ("Scopes", "scopes"),
    ("Created", "created_at"),
    ("Revoked", "revoked_at"),
)
_PAGE = 500
T = TypeVar("T")


@app.command()
def create(
    name: Annotated[str, typer.Option(help="What the key is for.")] = "command line",
    scope: Annotated[
        list[str] | None, typer.Option(help=f"What it may do, repeatable: {', '.join(SCOPES)}.")
    ] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Make an API key and print it, this once.

    Example: mailyard key create --name ci --scope emails:send --scope inboxes:read
    """

    async def work(application: Application, workspace_id: UUID) -> dict[str, Any]:
        made = await application.keys.create(
            workspace_id, name, scope or [ADMIN], actor=operator(workspace_id)
        )
        return {**_row(made.key), "secret": made.secret}

    made = _at_database(work, workspace)
    say(made, as_json, made["secret"])


@app.command(name="list")
def list_keys(workspace: Workspace = None, as_json: AsJson = False) -> None:
    """List API keys, the newest first, revoked ones included.

    Example: mailyard key list
    """

    async def work(application: Application, workspace_id: UUID) -> list[dict[str, Any]]:
        keys = await application.keys.list(workspace_id, limit=_PAGE)
        found = list(keys)
        while len(keys) == _PAGE:
            keys = await application.keys.list(workspace_id, before_id=keys[-1].id, limit=_PAGE)
            found += keys
        return [_row(key) for key in found]

    say_rows(_at_database(work, workspace), as_json, _COLUMNS)


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(help="The key's id, as `mailyard key list` shows it.")],
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """End a key. When this ends, it works nowhere any more.

    Example: mailyard key revoke key_01jz4c0000e9t8q3m5v7x2b1aa
    """
    key_id = ids.parse_type_id(ids.API_KEY, key, "key")

    async def work(application: Application, workspace_id: UUID) -> dict[str, Any]:
        return _row(
            await application.keys.revoke(workspace_id, key_id, actor=operator(workspace_id))
        )

    revoked = _at_database(work, workspace)
    say(revoked, as_json, f"{revoked['name']} ({revoked['prefix']}) is revoked")


@app.command()
def link(
    email: Annotated[
        str | None, typer.Argument(help="Whose; the workspace's first owner when not said.")
    ] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Make a one-time sign-in link, for whoever has no password, or forgot it.

    Example: mailyard key link ada@example.org
    """
    settings = load_settings()

    async def work(application: Application, workspace_id: UUID) -> dict[str, Any]:
        members = await application.users.list(workspace_id, limit=_PAGE)
        chosen = [
            member
            for member in members
            if (member.role == OWNER if email is None else member.email == normalise(email))
        ]
        if not chosen:
            raise NotFound(f"nobody here is {email or 'an owner'}", field="email")
        token = await application.sessions.create_link(chosen[0].id, actor=operator(workspace_id))
        return {"email": chosen[0].email, "link": f"{settings.page_url}/sign-in/{token}"}

    made = _at_database(work, workspace)
    say(made, as_json, made["link"])


def _at_database(work: Callable[[Application, UUID], Awaitable[T]], workspace: str | None) -> T:
    """Run `work` on the settings' database for a workspace. Raises Unavailable, NotFound."""

    async def run() -> T:
        application = Application(load_settings())
        await application.database.open()
        try:
            if workspace is None:
                workspace_id = await application.workspaces.first()
            else:
                workspace_id = ids.parse_type_id(ids.WORKSPACE, workspace, "workspace")
                await application.workspaces.get(workspace_id)
            return await work(application, workspace_id)
        finally:
            await application.database.close()

    return asyncio.run(run())


def _row(key: ApiKey) -> dict[str, Any]:
    return {
        "id": ids.type_id(ids.API_KEY, key.id),
        "name": key.name,
        "prefix": key.prefix,
        "scopes": " ".join(key.scopes),
        "created_at": key.created_at.isoformat(timespec="seconds"),
        "revoked_at": key.revoked_at.isoformat(timespec="seconds") if key.revoked_at else None,
    }
