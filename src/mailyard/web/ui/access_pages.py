"""Who may do what here: keys, people, one's password; and the audit log."""

from typing import Any

from litestar import Response, get, post
from litestar.params import FromPath

from mailyard.access import scope
from mailyard.core.errors import MailyardError
from mailyard.core.ids import API_KEY, AUDIT, INVITATION, parse_type_id, type_id
from mailyard.web.ui.frame import Visit

_PAGE = 100


async def _access_page(visit: Visit, **shown_once: str) -> Response[str]:
    workspace_id = visit.principal.workspace_id
    owner = scope.ADMIN in visit.principal.scopes
    keys = await visit.application.keys.list(workspace_id) if owner else []
    members = await visit.application.users.list(workspace_id) if owner else []
    invitations = await visit.application.accounts.invitations(workspace_id) if owner else []
    return visit.page(
        "settings.html",
        status=422 if "problem" in shown_once else 200,
        owner=owner,
        keys=[
            {
                "id": type_id(API_KEY, key.id),
                "name": key.name,
                "prefix": f"my_{key.prefix}_…",
                "scopes": key.scopes,
                "created_at": key.created_at,
                "revoked_at": key.revoked_at,
            }
            for key in keys
        ],
        invitations=[
            {
                "id": type_id(INVITATION, one.id),
                "email": one.email,
                "role": one.role,
                "expires_at": one.expires_at,
            }
            for one in invitations
        ],
        members=[{"email": member.email, "role": member.role} for member in members],
        scopes=sorted(scope.SCOPES),
        **{"new_key": "", "new_link": "", "new_member": "", **shown_once},
    )


@get("/access")
async def access(visit: Visit) -> Response[str]:
    return await _access_page(visit)


@post("/access/keys", status_code=200)
async def make_key(visit: Visit) -> Response[str]:
    """The answer is the page itself: a key must not pass through a redirect's address."""
    visit.principal.require(scope.ADMIN)
    chosen = [text for text in visit.form.getall("scopes", []) if isinstance(text, str)]
    try:
        made = await visit.application.keys.create(
            visit.principal.workspace_id, visit.field("name"), chosen, actor=visit.principal.actor
        )
    except MailyardError as error:
        return await _access_page(visit, problem=error.message)
    return await _access_page(visit, new_key=made.secret)


@post("/access/keys/{key_id:str}/revoke", status_code=303)
async def revoke_key(visit: Visit, key_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.ADMIN)
    await visit.application.keys.revoke(
        visit.principal.workspace_id, parse_type_id(API_KEY, key_id), actor=visit.principal.actor
    )
    return visit.go("/access", "revoked")


@post("/access/members", status_code=200)
async def add_member(visit: Visit) -> Response[str]:
    visit.principal.require(scope.ADMIN)
    try:
        user = await visit.application.users.add(
            visit.principal.workspace_id,
            visit.field("email"),
            visit.field("role"),
            actor=visit.principal.actor,
        )
        token = await visit.application.sessions.create_link(user.id, actor=visit.principal.actor)
    except MailyardError as error:
        return await _access_page(visit, problem=error.message)
    return await _access_page(visit, new_link=f"/sign-in/{token}", new_member=user.email)


@post("/access/invitations", status_code=303)
async def invite(visit: Visit) -> Response[Any]:
    visit.principal.require(scope.ADMIN)
    try:
        async with visit.application.database.transaction() as tx:
            await visit.application.accounts.invite(
                visit.principal.workspace_id,
                visit.field("email"),
                visit.field("role"),
                actor=visit.principal.actor,
                tx=tx,
            )
    except MailyardError as error:
        return await _access_page(visit, problem=error.message)
    return visit.go("/access", "invited")


@post("/access/invitations/{invitation_id:str}/withdraw", status_code=303)
async def withdraw(visit: Visit, invitation_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.ADMIN)
    async with visit.application.database.transaction() as tx:
        await visit.application.accounts.withdraw(
            visit.principal.workspace_id,
            parse_type_id(INVITATION, invitation_id),
            actor=visit.principal.actor,
            tx=tx,
        )
    return visit.go("/access", "withdrawn")


@post("/access/password", status_code=303)
async def set_password(visit: Visit) -> Response[Any]:
    session = visit.principal.session
    if session is None:
        return visit.go("/sign-in")
    try:
        await visit.application.users.set_password(
            session.user_id,
            visit.field("password"),
            actor=visit.principal.actor,
            keep_session=session.token_hash,
        )
    except MailyardError as error:
        return await _access_page(visit, problem=error.message)
    return visit.go("/access", "password")


@get("/audit")
async def audit(visit: Visit) -> Response[str]:
    visit.principal.require(scope.ADMIN)
    before = visit.ask("before")
    entries = await visit.application.audit.list(
        visit.principal.workspace_id,
        actor=visit.ask("actor") or None,
        action=visit.ask("action") or None,
        subject=visit.ask("subject") or None,
        before_id=parse_type_id(AUDIT, before, "before") if before else None,
        limit=_PAGE,
    )
    following = None
    if len(entries) == _PAGE:
        following = "/audit?" + visit.query_with(before=type_id(AUDIT, entries[-1].id))
    return visit.page(
        "audit.html",
        entries=entries,
        next_url=following,
        filters={name: visit.ask(name) for name in ("actor", "action", "subject")},
    )


HANDLERS = [
    access,
    make_key,
    revoke_key,
    add_member,
    invite,
    withdraw,
    set_password,
    audit,
]
