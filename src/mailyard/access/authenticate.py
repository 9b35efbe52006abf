"""Who is asking: from the headers of a request to a principal, for every way in.

A program shows an API key (`Authorization: Bearer my_…`). A browser shows the session cookie; a
change by cookie must carry the session's CSRF token in `X-CSRF-Token` or in the form.
"""

import hmac
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from uuid import UUID

from mailyard.access.audit import Actor
from mailyard.access.key import ApiKeys
from mailyard.access.mask import unmasked
from mailyard.access.neighbours import Neighbours
from mailyard.access.session import Session, Sessions
from mailyard.core.errors import NotAllowed, NotAuthenticated

SESSION_COOKIE = "mailyard_session"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: their workspace, what they may do, and the name the audit log gets.

    `session` is there when a person asks through a browser.
    """

    workspace_id: UUID
    actor: Actor
    scopes: frozenset[str]
    session: Session | None = None

    def require(self, scope: str) -> None:
        """Raises NotAllowed when `scope` is not among theirs."""
        if scope not in self.scopes:
            raise NotAllowed(f"this needs the scope {scope}")


def session_token(cookie_header: str) -> str | None:
    """The session token in a Cookie header, or None."""
    try:
        morsel = SimpleCookie(cookie_header).get(SESSION_COOKIE)
    except CookieError:
        return None
    return morsel.value if morsel is not None else None


class Authenticator:
    """Recognises keys and sessions. `neighbours` know the keys of other regions."""

    def __init__(
        self, *, keys: ApiKeys, sessions: Sessions, neighbours: Neighbours | None = None
    ) -> None:
        self._keys = keys
        self._sessions = sessions
        self._neighbours = neighbours

    async def by_headers(
        self, method: str, authorization: str | None, cookie: str | None, csrf_token: str | None
    ) -> Principal:
        """Whose request this is. Raises NotAuthenticated; NotAllowed without the CSRF token;
        AtHomeElsewhere for a key of another region."""
        if authorization is not None:
            scheme, _, text = authorization.partition(" ")
            if scheme.lower() != "bearer":
                raise NotAuthenticated("send an API key: Authorization: Bearer my_…")
            holder = await self._keys.authenticate(text.strip())
            if holder is None:
                if self._neighbours is not None:
                    await self._neighbours.redirect_key(text.strip())
                raise NotAuthenticated("this API key is not known, or was revoked")
            return Principal(holder.workspace_id, holder.actor, holder.scopes)
        token = session_token(cookie) if cookie is not None else None
        session = await self._sessions.find(token) if token is not None else None
        if session is None:
            raise NotAuthenticated("send an API key (Authorization: Bearer my_…), or sign in")
        if method not in _SAFE and not hmac.compare_digest(
            session.csrf_token.encode(), unmasked(csrf_token or "").encode()
        ):
            raise NotAllowed("the request has no valid CSRF token")
        return Principal(session.workspace_id, session.actor, session.scopes, session)
