"""Signing in at relays: against aiosmtpd, which speaks PLAIN and LOGIN by itself."""

import asyncio
import json
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from http_script import LOOPBACK, Seen, Step, answer, by_request, scripted

from mailyard.core.backoff import Backoff
from mailyard.core.clock import SystemClock
from mailyard.net.http import HttpClient
from mailyard.net.tls import ensure_certificate, server_context
from mailyard.protocol.smtp.client import ClientSession
from mailyard.protocol.smtp.client_auth import LOGIN, PLAIN, XOAUTH2, Login
from mailyard.protocol.smtp.client_mail import SessionEnded, SessionReady, Stage, StartTls
from mailyard.sending.transport import Handoff, Outcome, Outgoing, Recipient
from mailyard.sending.transports.sign_in import Refreshed, SignIn, Stored
from mailyard.sending.transports.smtp import SmtpOptions, SmtpTransport

USER, PASSWORD, TOKEN = "app@example.org", "p\u00e4ss", "ya29.token"


class Relay:
    """Takes mail from who has signed in."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.taken += envelope.rcpt_tos
        return "250 taken"

    async def auth_XOAUTH2(self, server: SMTP, args: list[str]) -> Any:
        wanted = b64encode(f"user={USER}\x01auth=Bearer {TOKEN}\x01\x01".encode()).decode()
        if args[1] == wanted:
            return AuthResult(success=True)
        error = b64encode(json.dumps({"status": "400"}).encode())
        await server.push(b"334 " + error)
        assert await server._reader.readline() == b"\r\n", "an empty answer to the error"
        return AuthResult(success=False, handled=False)


def _authenticate(server: Any, session: Any, envelope: Any, kind: str, data: Any) -> AuthResult:
    good = isinstance(data, LoginPassword) and data == LoginPassword(
        USER.encode(), PASSWORD.encode()
    )
    return AuthResult(success=good, handled=False)


@asynccontextmanager
async def relay(folder: Path, *, refuse: str = "") -> AsyncIterator[tuple[Relay, int]]:
    handler = Relay()
    context = server_context(*ensure_certificate(folder, "localhost"))

    def made() -> SMTP:
        return SMTP(
            handler,
            tls_context=context,
            require_starttls=True,
            auth_required=True,
            authenticator=_authenticate,
            auth_exclude_mechanism=[refuse] if refuse else [],
            enable_SMTPUTF8=False,
        )

    server = await asyncio.get_running_loop().create_server(made, "127.0.0.1", 0)
    try:
        yield handler, server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def send(port: int, sign_in: SignIn) -> Handoff:
    """One mail's answer."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    transport = SmtpTransport(
        name="relay",
        host="127.0.0.1",
        port=port,
        hello="me.example",
        tls_context=context,
        options=SmtpOptions(
            starttls=StartTls.REQUIRED, connections=1, backoff=Backoff(first_s=0.02, cap_s=0.05)
        ),
        sign_in=sign_in,
    )
    got: asyncio.Future[Handoff] = asyncio.get_running_loop().create_future()
    mail = Outgoing("a@b.example", (Recipient(uuid4(), "c@d.example"),), b"x\r\n", False, False)
    transport.submit(mail, got.set_result)
    try:
        async with asyncio.timeout(10):
            return await got
    finally:
        await transport.close(1.0)


@pytest.mark.parametrize(
    ("login", "refuse"),
    [
        (Login(USER, PASSWORD), ""),
        (Login(USER, PASSWORD, LOGIN), ""),
        (Login(USER, PASSWORD), PLAIN),
        (Login(USER, TOKEN, XOAUTH2), ""),
    ],
)
async def test_who_signs_in_sends(tmp_path: Path, login: Login, refuse: str) -> None:
    async with relay(tmp_path, refuse=refuse) as (handler, port):
        handoff = await send(port, Stored(login))
    assert handoff.outcome is Outcome.ACCEPTED, handoff
    assert handler.taken == ["c@d.example"]


async def test_a_wrong_secret_is_the_ways_fault_and_is_told_without_it(tmp_path: Path) -> None:
    async with relay(tmp_path) as (handler, port):
        for mechanism in (PLAIN, LOGIN, XOAUTH2):
            handoff = await send(port, Stored(Login(USER, "wrong-word", mechanism)))
            assert (handoff.outcome, handoff.route_fault) == (Outcome.LATER, True), handoff
            assert "AUTH refused: 535" in handoff.reply and "wrong-word" not in handoff.reply
    assert handler.taken == []


async def test_access_tokens_are_fetched_kept_and_renewed(tmp_path: Path) -> None:
    asked: list[bytes] = []

    def granting(seen: Seen) -> Step:
        asked.append(seen.body)
        if b"refresh_token=good" not in seen.body:
            return answer(400, {"error": "invalid_grant"})
        return answer(200, {"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"})

    http = HttpClient(allowed=LOOPBACK)
    async with relay(tmp_path) as (handler, port), scripted(by_request(granting)) as server:

        def tokens(refresh: str) -> Refreshed:
            return Refreshed(
                http=http,
                clock=SystemClock(),
                token_url=server.url + "/token",
                username=USER,
                client_id="me",
                client_secret="",
                refresh_token=refresh,
            )

        good = tokens("good")
        for _ in range(2):
            assert (await send(port, good)).outcome is Outcome.ACCEPTED
        assert len(asked) == 1, "one token for both"
        refused = await send(port, tokens("bad"))
        assert (refused.outcome, refused.route_fault) == (Outcome.LATER, True)
        assert "invalid_grant" in refused.reply
    await http.close()
    assert len(handler.taken) == 2


@pytest.mark.parametrize(
    ("offers", "secure", "reason"),
    [
        (b"250-it\r\n250 AUTH PLAIN\r\n", False, "over TLS alone"),
        (b"250-it\r\n250 AUTH CRAM-MD5\r\n", True, "does not offer AUTH"),
        (b"250 it\r\n", True, "does not offer AUTH"),
    ],
)
def test_a_password_never_leaves_in_the_clear_nor_by_what_is_not_offered(
    offers: bytes, secure: bool, reason: str
) -> None:
    session = ClientSession("me", lambda: None, login=Login(USER, "word"), secure=secure)
    session.receive(b"220 it\r\n")
    session.take_output()
    session.receive(offers)
    assert session.take_output() == b""
    (end,) = session.take_events()
    assert isinstance(end, SessionEnded) and reason in end.reason
    assert end.verdict.stage is Stage.AUTH


def test_a_response_that_is_too_long_for_the_command_follows_it() -> None:
    login = Login(USER, "t" * 10_000, XOAUTH2)
    session = ClientSession("me", lambda: None, login=login, secure=True)
    session.receive(b"220 it\r\n")
    session.receive(b"250-it\r\n250 AUTH XOAUTH2\r\n")
    assert session.take_output().endswith(b"AUTH XOAUTH2\r\n")
    session.receive(b"334 \r\n")
    assert len(session.take_output()) > 12_288
    session.receive(b"235 welcome\r\n")
    assert isinstance(session.take_events()[0], SessionReady)
