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
_SESSION_COLUMNS = (
    ("ID", "id"),
    ("Address", "email"),
    ("Browser", "user_agent"),
    ("Since", "created_at"),
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


@app.command()
def sessions(
    user: Annotated[str | None, typer.Option(help="Only those of this person (usr_…).")] = None,
    as_json: AsJson = False,
) -> None:
    """List where people are signed in to the workspace.

    Example: mailyard member sessions
    """

    async def work(client: ApiClient) -> Any:
        items: list[dict[str, Any]] = []
        query: dict[str, Any] = {"limit": 500} | ({"user_id": user} if user else {})
        while True:
            page = await client.get("/v1/sessions", **query)
            items += page["items"]
            if page["next_after"] is None:
                return items
            query["after"] = page["next_after"]

    say_rows(ask(work), as_json, _SESSION_COLUMNS)


@app.command(name="end-session")
def end_session(
    session: Annotated[str, typer.Argument(help="Its id, as `mailyard member sessions` says it.")],
    as_json: AsJson = False,
) -> None:
    """End a session: its browser has to sign in again.

    Example: mailyard member end-session 5feceb66…
    """
    ask(lambda client: client.delete(f"/v1/sessions/{session}"))
    say({"ended": session}, as_json, f"{session} is ended")
