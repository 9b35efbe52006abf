"""Coming in by oneself: sign-up, a forgotten password, an invitation; and one's own sessions.

What is asked for an address is answered the same whether there is an account or not. A GET of a
mailed link changes nothing: link scanners and previews fetch it, and must not use it up.
"""

from typing import Any
from urllib.parse import quote

from litestar import Response, get, post
from litestar.params import FromPath

from mailyard.app import Application
from mailyard.core.errors import MailyardError
from mailyard.core.ids import WORKSPACE, parse_type_id, type_id
from mailyard.web.ui.frame import PAGE_HEADERS, PageRequest, Visit
from mailyard.web.ui.gate import start_session

_SENT = (
    "If this address may have such a mail, it is on its way. Look into the folder for spam too; "
    "the link works once and not for long."
)
_OLD = "This link was used before, or is too old. Ask for another one."


def _app(request: PageRequest) -> Application:
    application: Application = request.app.state.application
    return application


def _page(request: PageRequest, status: int = 200, **context: Any) -> Response[str]:
    shown = {"problem": None, "said": None, "email": "", "fields": (), "action": "", **context}
    text = request.app.state.environment.get_template("door.html").render(**shown)
    return Response(text, status_code=status, media_type="text/html", headers=PAGE_HEADERS)


def _peer(request: PageRequest) -> str:
    return request.client.host if request.client is not None else ""


async def _form(request: PageRequest, *names: str) -> list[str]:
    form = await request.form()
    values = (form.get(name, "") for name in names)
    return [value if isinstance(value, str) else "" for value in values]


# Asking ----------------------------------------------------------------------------------------

_ASK = {
    "sign-up": ("Sign up", "We mail you a link to go on with.", "Mail me the link"),
    "reset": ("Forgotten password", "We mail you a link to set a new one.", "Mail me the link"),
}


def _ask_page(request: PageRequest, what: str, status: int = 200, **more: Any) -> Response[str]:
    title, lead, button = _ASK[what]
    if what == "sign-up" and not _app(request).settings.sign_up:
        closed = "Nobody can sign up here. Ask whoever runs this installation for an invitation."
        return _page(request, 403, title=title, said=closed)
    fields = ("email",)
    return _page(
        request, status, title=title, lead=lead, button=button, action=f"/{what}", fields=fields,
        **more,
    )  # fmt: skip


async def _ask(request: PageRequest, what: str) -> Response[str]:
    (email,) = await _form(request, "email")
    accounts = _app(request).accounts
    ask = accounts.ask_sign_up if what == "sign-up" else accounts.ask_reset
    try:
        await ask(email, _peer(request))
    except MailyardError as error:
        return _ask_page(request, what, error.status, problem=error.message, email=email)
    return _page(request, title=_ASK[what][0], said=_SENT)


@get("/sign-up")
async def ask_for_sign_up(request: PageRequest) -> Response[str]:
    return _ask_page(request, "sign-up")


@post("/sign-up", status_code=200)
async def mail_sign_up(request: PageRequest) -> Response[str]:
    return await _ask(request, "sign-up")


@get("/reset")
async def ask_for_reset(request: PageRequest) -> Response[str]:
    return _ask_page(request, "reset")


@post("/reset", status_code=200)
async def mail_reset(request: PageRequest) -> Response[str]:
    return await _ask(request, "reset")


# Following a link ------------------------------------------------------------------------------


async def _link_page(
    request: PageRequest, purpose: str, token: str, problem: str | None = None
) -> Response[str]:
    email = await _app(request).accounts.linked(purpose, token)
    if email is None:
        return _page(request, 404, title="This link does not work", said=problem or _OLD)
    new = purpose == "sign_up"
    return _page(
        request,
        422 if problem else 200,
        title="Your account" if new else "A new password",
        lead=f"For {email}.",
        problem=problem,
        email=email,
        fields=("workspace", "new-password") if new else ("new-password",),
        button="Make my account" if new else "Set it",
        action=f"/{'sign-up' if new else 'reset'}/{quote(token, safe='')}",
    )


@get("/sign-up/{token:str}")
async def sign_up_form(request: PageRequest, token: FromPath[str]) -> Response[str]:
    return await _link_page(request, "sign_up", token)


@post("/sign-up/{token:str}", status_code=303)
async def sign_up(request: PageRequest, token: FromPath[str]) -> Response[Any]:
    password, workspace = await _form(request, "password", "workspace")
    try:
        user_id = await _app(request).accounts.sign_up(token, password, workspace)
    except MailyardError as error:
        return await _link_page(request, "sign_up", token, error.message)
    return await start_session(request, user_id, "/")


@get("/reset/{token:str}")
async def reset_form(request: PageRequest, token: FromPath[str]) -> Response[str]:
    return await _link_page(request, "reset", token)


@post("/reset/{token:str}", status_code=303)
async def reset(request: PageRequest, token: FromPath[str]) -> Response[Any]:
    (password,) = await _form(request, "password")
    try:
        user_id = await _app(request).accounts.reset(token, password)
    except MailyardError as error:
        return await _link_page(request, "reset", token, error.message)
    return await start_session(request, user_id, "/")


async def _invitation_page(
    request: PageRequest, token: str, problem: str | None = None
) -> Response[str]:
    invited = await _app(request).accounts.invited(token)
    if invited is None:
        return _page(
            request,
            404,
            title="This invitation does not work",
            said="It was used before, withdrawn, or is too old. Ask for another one.",
        )
    return _page(
        request,
        422 if problem else 200,
        title=f"Join {invited.workspace}",
        lead=f"{invited.email} becomes {invited.role} there.",
        problem=problem,
        email=invited.email,
        fields=("new-password",) if invited.needs_password else (),
        button="Join",
        action=f"/invitation/{quote(token, safe='')}",
    )


@get("/invitation/{token:str}")
async def invitation_form(request: PageRequest, token: FromPath[str]) -> Response[str]:
    return await _invitation_page(request, token)


@post("/invitation/{token:str}", status_code=303)
async def take_up(request: PageRequest, token: FromPath[str]) -> Response[Any]:
    (password,) = await _form(request, "password")
    try:
        user_id, workspace_id = await _app(request).accounts.take_up(token, password)
    except MailyardError as error:
        return await _invitation_page(request, token, error.message)
    return await start_session(request, user_id, "/", workspace_id)


# One's own -------------------------------------------------------------------------------------


@get("/account")
async def account(visit: Visit) -> Response[str]:
    session = visit.principal.session
    assert session is not None, "a visit has a session"
    app = visit.application
    return visit.page(
        "account.html",
        sessions=[(one, one.id == session.id) for one in await app.sessions.list(session.user_id)],
        workspaces=[
            (type_id(WORKSPACE, one.id), one, one.id == session.workspace_id)
            for one in await app.workspaces.of_user(session.user_id)
        ],
    )


@post("/account/sessions/{session_id:str}/end", status_code=303)
async def end_session(visit: Visit, session_id: FromPath[str]) -> Response[Any]:
    session = visit.principal.session
    assert session is not None, "a visit has a session"
    await visit.application.sessions.end_one(session.user_id, session_id)
    return visit.go("/account", "ended")


@post("/account/sessions/end", status_code=303)
async def end_other_sessions(visit: Visit) -> Response[Any]:
    session = visit.principal.session
    assert session is not None, "a visit has a session"
    await visit.application.sessions.end_others(
        session.user_id, session.token_hash, actor=visit.principal.actor
    )
    return visit.go("/account", "ended")


@post("/account/workspace", status_code=303)
async def switch(visit: Visit) -> Response[Any]:
    session = visit.principal.session
    assert session is not None, "a visit has a session"
    wanted = parse_type_id(WORKSPACE, visit.field("workspace"), "workspace")
    await visit.application.sessions.move_hashed(session.token_hash, wanted)
    return visit.go("/")


PUBLIC = [
    ask_for_sign_up,
    mail_sign_up,
    ask_for_reset,
    mail_reset,
    sign_up_form,
    sign_up,
    reset_form,
    reset,
    invitation_form,
    take_up,
]
HANDLERS = [account, end_session, end_other_sessions, switch]
