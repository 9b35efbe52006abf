"""Workspaces: this one, and the others that its operator makes."""

from typing import Annotated, Any

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.access.region import AtHomeElsewhere
from mailyard.access.workspace import Workspace
from mailyard.core import ids
from mailyard.core.errors import InvalidInput
from mailyard.sending.tongue import locale_of
from mailyard.web.api.page import Input, Moment, Output, WorkspaceId
from mailyard.web.api.route import Answer, Call, Route

TAG = "Workspaces"


class NewWorkspace(Input):
    """A workspace to make."""

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    region: (
        Annotated[
            str,
            Meta(
                max_length=32,
                description="Its home region. Only the API of that region makes it: another answers"
                " with 307 and where.",
            ),
        ]
        | None
    ) = None


class WorkspaceChange(Input):
    """What to change of a workspace."""

    name: Annotated[str, Meta(min_length=1, max_length=100)] | None = None
    locale: (
        Annotated[
            str,
            Meta(
                max_length=35,
                description="How templates write dates, numbers and money where a contact has no"
                " attribute `locale`.",
                examples=["de-AT"],
            ),
        ]
        | None
    ) = None


class WorkspaceItem(Output):
    """A workspace."""

    id: WorkspaceId
    name: str
    locale: str
    region: Annotated[str, Meta(description="Its home region; empty where there are none.")]
    created_at: Moment


class CreatedWorkspace(WorkspaceItem):
    """A workspace just made, with a first key for it: the key is shown this once."""

    secret: Annotated[str, Meta(description="An API key with the scope `admin` there.")]


class WorkspaceList(Output):
    """The workspaces that the caller belongs to."""

    items: list[WorkspaceItem]


def _workspace_fields(workspace: Workspace) -> dict[str, Any]:
    return {
        "id": ids.type_id(ids.WORKSPACE, workspace.id),
        "name": workspace.name,
        "locale": workspace.locale,
        "region": workspace.region,
        "created_at": workspace.created_at,
    }


async def create_workspace(call: Call[NewWorkspace, None]) -> Answer:
    actor = call.principal.actor
    await call.app.workspaces.require_operator(call.workspace_id)
    regions, wanted = call.app.regions, call.body.region
    if wanted is not None and wanted != regions.own:
        raise AtHomeElsewhere(regions.find(wanted), "the workspace to be made")
    async with call.app.database.transaction() as tx:
        workspace = await call.app.workspaces.create(
            call.body.name, actor_kind=actor.kind, actor_name=actor.name, tx=tx
        )
        own = type(actor)(actor.kind, actor.name, workspace.id)
        made = await call.app.keys.create(
            workspace.id, "first key", [scope.ADMIN], actor=own, tx=tx
        )
        created = Change(
            "workspace.create_other",
            ids.type_id(ids.WORKSPACE, workspace.id),
            None,
            {"name": workspace.name},
        )
        item = CreatedWorkspace(**_workspace_fields(workspace), secret=made.secret)
        return await call.done(tx, item, created)


async def list_workspaces(call: Call[None, None]) -> WorkspaceList:
    session = call.principal.session
    if session is not None:
        found = await call.app.workspaces.of_user(session.user_id)
    else:
        found = [await call.app.workspaces.get(call.workspace_id)]
    return WorkspaceList(items=[WorkspaceItem(**_workspace_fields(one)) for one in found])


async def get_workspace(call: Call[None, None]) -> WorkspaceItem:
    return WorkspaceItem(**_workspace_fields(await call.app.workspaces.get(call.workspace_id)))


async def change_workspace(call: Call[WorkspaceChange, None]) -> WorkspaceItem:
    name, locale = call.body.name, call.body.locale
    if locale is not None and locale_of(locale) is None:
        raise InvalidInput("no locale that is known: a tag like de-AT", field="locale")
    workspace = await call.app.workspaces.change(
        call.workspace_id, name=name, locale=locale, actor=call.principal.actor
    )
    if locale is not None:
        call.app.templates.announce()
    return WorkspaceItem(**_workspace_fields(workspace))


ROUTES = (
    Route(
        "POST",
        "/v1/workspaces",
        create_workspace,
        "createWorkspace",
        TAG,
        "Make another workspace",
        scope.ADMIN,
        description="Only from the installation's first workspace.",
        status=201,
        answer=CreatedWorkspace,
        body=NewWorkspace,
        idempotency="none",
    ),
    Route(
        "GET",
        "/v1/workspaces",
        list_workspaces,
        "listWorkspaces",
        TAG,
        "List the workspaces that you belong to",
        scope.ADMIN,
        answer=WorkspaceList,
    ),
    Route(
        "GET",
        "/v1/workspace",
        get_workspace,
        "getWorkspace",
        TAG,
        "Read this workspace",
        scope.ADMIN,
        answer=WorkspaceItem,
    ),
    Route(
        "PATCH",
        "/v1/workspace",
        change_workspace,
        "renameWorkspace",
        TAG,
        "Rename this workspace, or set the locale of its templates",
        scope.ADMIN,
        answer=WorkspaceItem,
        body=WorkspaceChange,
    ),
)
