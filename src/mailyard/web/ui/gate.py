"""Signing in and out, and the visitor of every other page."""

from typing import Any
from urllib.parse import quote
from uuid import UUID

from jinja2 import Environment
from litestar import Request, Response, get, post
from litestar.datastructures import FormMultiDict, State
from litestar.params import FromPath
from litestar.response import Redirect

from mailyard.access.authenticate import SESSION_COOKIE, Authenticator, session_token
from mailyard.access.session import SESSION_S
from mailyard.app import Application
from mailyard.core.errors import NotAuthenticated, RateLimited
from mailyard.web.ui.frame import PAGE_HEADERS, PageRequest, PageVisit, Person, Visit
from mailyard.web.ui.navigation import PATHS

_TRIES_PER_S = 0.2
_TRIES_AT_ONCE = 8


def section_of(path: str) -> str:
    """The navigation entry that a path belongs to."""
    head = "/" + path.lstrip("/").split("/")[0]
    return head if head in PATHS else "/"


async def visit(request: PageRequest) -> PageVisit:
    """Who asks for this page. Raises NotAuthenticated, and NotAllowed for a change without CSRF."""
    application: Application = request.app.state.application
    authenticator: Authenticator = request.app.state.authenticator
    form = await request.form() if request.method == "POST" else FormMultiDict([])
    token = form.get("csrf")
    principal = await authenticator.by_headers(
        request.method,
        None,
        request.headers.get("cookie"),
        token if isinstance(token, str) else None,
    )
    session = principal.session
    if session is None:
        raise NotAuthenticated("sign in to see this page")
    workspace = await application.workspaces.get(principal.workspace_id)
    return PageVisit(
        application=application,
        environment=request.app.state.environment,
        principal=principal,
        person=Person(session.email, session.role, workspace.name),
        csrf_token=session.csrf_token,
        form=form,
        query=dict(request.query_params),
        section=section_of(request.url.path),
    )


def sign_in_page(
    environment: Environment,
    status: int = 200,
    *,
    problem: str | None = None,
    email: str = "",
    next_path: str = "/",
    link_token: str | None = None,
) -> Response[str]:
    """The page that asks for a password, or for one press on a one-time link."""
    text = environment.get_template("sign_in.html").render(
        problem=problem, email=email, next_path=next_path, link_token=link_token
    )
    return Response(text, status_code=status, media_type="text/html", headers=PAGE_HEADERS)


def _inner(path: str) -> str:
    """A path of this site, whatever the form said."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"


@get("/sign-in")
async def ask_for_password(request: PageRequest) -> Response[str]:
    return sign_in_page(
        request.app.state.environment, next_path=_inner(request.query_params.get("next", "/"))
    )


@post("/sign-in", status_code=303)
async def sign_in(request: PageRequest) -> Response[Any]:
    """Check the password, at a rate that makes guessing pointless, and start a session."""
    application: Application = request.app.state.application
    form = await request.form()
    email, password = str(form.get("email", "")), str(form.get("password", ""))
    next_path = _inner(str(form.get("next", "/")))
    wait_s = await application.limits.take(
        f"sign-in:{email.lower()[:200]}", 1, _TRIES_PER_S, _TRIES_AT_ONCE
    )
    if wait_s > 0:
        raise RateLimited("too many tries for this address", retry_after_s=wait_s)
    user_id = await application.users.authenticate(email, password)
    if user_id is None:
        return sign_in_page(
            request.app.state.environment,
            401,
            problem="This address and password do not belong together.",
            email=email,
            next_path=next_path,
        )
    return await start_session(request, user_id, next_path)


@get("/sign-in/{token:str}")
async def ask_for_press(request: PageRequest, token: FromPath[str]) -> Response[str]:
    """A GET changes nothing: link scanners and previews fetch it, and must not use it up."""
    return sign_in_page(request.app.state.environment, link_token=quote(token, safe=""))


@post("/sign-in/{token:str}", status_code=303)
async def sign_in_by_link(request: PageRequest, token: FromPath[str]) -> Response[Any]:
    application: Application = request.app.state.application
    user_id = await application.sessions.redeem_link(token)
    if user_id is None:
        return sign_in_page(
            request.app.state.environment, 401, problem="This link was used before, or is too old."
        )
    return await start_session(request, user_id, "/")


@post("/sign-out", status_code=303)
async def sign_out(request: PageRequest, visit: Visit) -> Response[Any]:
    token = session_token(request.headers.get("cookie", ""))
    if token is not None:
        await visit.application.sessions.end(token)
    answer: Response[Any] = Redirect("/sign-in", status_code=303)
    answer.delete_cookie(SESSION_COOKIE, path="/")
    return answer


async def start_session(
    request: Request[Any, Any, State],
    user_id: UUID,
    next_path: str,
    workspace_id: UUID | None = None,
) -> Response[Any]:
    """Sign a person in, in that workspace or their oldest."""
    application: Application = request.app.state.application
    workspaces = await application.workspaces.of_user(user_id)
    if not workspaces:
        return sign_in_page(
            request.app.state.environment, 403, problem="You belong to no workspace."
        )
    session = await application.sessions.start(
        user_id, workspace_id or workspaces[0].id, request.headers.get("user-agent", "")
    )
    answer: Response[Any] = Redirect(next_path, status_code=303)
    answer.set_cookie(
        SESSION_COOKIE,
        session.token,
        path="/",
        max_age=int(SESSION_S),
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    return answer
