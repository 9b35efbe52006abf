"""Where the login of an SMTP relay comes from: as it is stored, or an access token that is renewed.

Access tokens live for an hour or so; the refresh token that gets new ones is what is stored
(RFC 6749 section 6).
"""

from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from mailyard.core.clock import Clock
from mailyard.core.errors import Unavailable
from mailyard.protocol.smtp.client_auth import XOAUTH2, Login

if TYPE_CHECKING:
    from mailyard.net.http import HttpClient  # which most workers never need

_EARLY_S = 120.0  # a token is renewed before it runs out
_LIFE_S = 300.0  # of a token that does not say how long it lives
_ASK_S = 20.0
_SHOWN_CHARACTERS = 200


class SignIn(Protocol):
    """Gives the login for the next connection."""

    async def login(self) -> Login:
        """Raises MailyardError when there is none now."""
        ...


class Stored:
    """The same each time."""

    def __init__(self, login: Login) -> None:
        self._login = login

    async def login(self) -> Login:
        """See `SignIn.login`."""
        return self._login


class _Granted(Struct):
    access_token: str
    expires_in: float = _LIFE_S


class Refreshed:
    """Access tokens from `token_url`, kept for as long as they live."""

    def __init__(
        self,
        *,
        http: "HttpClient",
        clock: Clock,
        token_url: str,
        username: str,
        client_id: str,
        client_secret: str,
        refresh_token: str,
    ) -> None:
        self._http = http
        self._clock = clock
        self._url = token_url
        self._username = username
        self._form = {
            "grant_type": "refresh_token",
            "client_id": client_id,
            "refresh_token": refresh_token,
        }
        if client_secret:
            self._form["client_secret"] = client_secret
        self._token = ""
        self._until = 0.0

    async def login(self) -> Login:
        """See `SignIn.login`. Raises Unavailable."""
        if not self._token or self._clock.monotonic() >= self._until:
            granted = await self._ask()
            self._token = granted.access_token
            lives_s = max(0.0, granted.expires_in - _EARLY_S)
            self._until = self._clock.monotonic() + lives_s
        return Login(self._username, self._token, XOAUTH2)

    async def _ask(self) -> _Granted:
        answer = await self._http.request(
            "POST",
            self._url,
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            body=urlencode(self._form).encode(),
            total_s=_ASK_S,
        )
        if answer.status != 200:
            said = " ".join(answer.body[:_SHOWN_CHARACTERS].decode("utf-8", "replace").split())
            raise Unavailable(f"no access token from {self._url}: {answer.status} {said}")
        try:
            return msgspec.json.decode(answer.body, type=_Granted)
        except msgspec.DecodeError as error:
            raise Unavailable(f"{self._url} answers no access token: {error}") from None
