"""`mailyard member`: who is in the workspace, and asking people in."""

from typing import Annotated, Any

import typer

from mailyard.cli.client import AsJson, ask, say, say_rows
from mailyard.proving.client import ApiClient

app = typer.Typer(add_completion=False, no_args_is_help=True)

_MEMBER_COLUMNS = (("ID", "id"), ("Address", "email"), ("Role", "role"), ("Since", "created_at"))
_INVITATION_COLUMNS = (
    ("ID", "id"),
    ("Address", "email"),
    ("Role", "role"),
    ("By", "invited_by"),
    ("Until", "expires_at"),
)


@app.command(name="list")
def list_members(as_json: AsJson = False) -> None:
    """List the members.

    Example: mailyard member list
    """

    async def work(client: ApiClient) -> Any:
        return await client.get("/v1/members", limit=500)

    say_rows(ask(work)["items"], as_json, _MEMBER_COLUMNS)


@app.command()
def invite(
    email: Annotated[str, typer.Argument(help="Whom.")],
    role: Annotated[str, typer.Option(help="owner, member or viewer.")] = "member",
    as_json: AsJson = False,
) -> None:
    """Ask a person in by mail, or ask again.

    Example: mailyard member invite ada@example.org --role viewer
    """

    async def work(client: ApiClient) -> Any:
        return await client.post("/v1/invitations", {"email": email, "role": role})

    made = ask(work)
    say(made, as_json, f"{made['email']} is asked in as {made['role']}, until {made['expires_at']}")


@app.command()
def invitations(as_json: AsJson = False) -> None:
    """List invitations that nobody has taken up.

    Example: mailyard member invitations
    """

    async def work(client: ApiClient) -> Any:
        return await client.get("/v1/invitations", limit=500)

    say_rows(ask(work)["items"], as_json, _INVITATION_COLUMNS)


@app.command()
def withdraw(
    invitation: Annotated[str, typer.Argument(help="Its id (inv_…).")], as_json: AsJson = False
) -> None:
    """Take an invitation back.

    Example: mailyard member withdraw inv_…
    """

    async def work(client: ApiClient) -> str:
        await client.delete(f"/v1/invitations/{invitation}")
        return invitation

    say({"withdrawn": ask(work)}, as_json, f"{invitation} is withdrawn")
