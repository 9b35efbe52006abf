"""Signing in at a real relay: Postfix, which asks Dovecot whether a login is good."""

import asyncio
import shutil
import ssl
import subprocess
import tempfile
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from hmac import digest
from pathlib import Path
from time import time
from uuid import uuid4

import msgspec
import pytest
from postfix_server import as_root, running_postfix
from running_platform import wait_until
from smtp_wire import NotingHandler, listening, until

from mailyard.core.backoff import Backoff
from mailyard.net.tls import ensure_certificate
from mailyard.protocol.smtp.client_auth import LOGIN, PLAIN, XOAUTH2, Login
from mailyard.protocol.smtp.client_mail import StartTls
from mailyard.sending.transport import Handoff, Outcome, Outgoing, Recipient
from mailyard.sending.transports.sign_in import Stored
from mailyard.sending.transports.smtp import SmtpOptions, SmtpTransport

pytestmark = as_root

USER, PASSWORD, KEY = "app@example.org", "pässword", b"k" * 32
DOVECOT = """base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/dovecot.log
protocols =
ssl = no
auth_mechanisms = plain login xoauth2
passdb {{
  driver = oauth2
  mechanisms = xoauth2
  args = {folder}/oauth2.conf
}}
passdb {{
  driver = passwd-file
  mechanisms = plain login
  args = {folder}/users
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={folder}
}}
service auth {{
  unix_listener {folder}/login {{
    mode = 0666
  }}
}}
service stats {{
  process_min_avail = 0
}}
"""
TOKENS = """introspection_mode = local
local_validation_key_dict = fs:posix:prefix={folder}/keys/
username_attribute = sub
"""
SIGNED_IN = """smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = {folder}/login
smtpd_sasl_security_options = noanonymous
smtpd_tls_security_level = encrypt
smtpd_tls_auth_only = yes
smtpd_tls_chain_files = {certificate}
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_client_restrictions = permit_sasl_authenticated, reject
smtpd_delay_reject = yes
"""


@pytest.fixture
def dovecot() -> Iterator[Path]:
    """A folder with the socket `login` at which Dovecot answers for one user."""
    folder = Path(tempfile.mkdtemp(prefix="mailyard-dovecot-"))
    folder.chmod(0o755)
    (folder / "users").write_text(f"{USER}:{{PLAIN}}{PASSWORD}\n")
    key = folder / "keys" / "default" / "HS256" / "default"
    key.parent.mkdir(parents=True)
    key.write_text(_text(KEY))
    (folder / "oauth2.conf").write_text(TOKENS.format(folder=folder))
    (folder / "dovecot.conf").write_text(DOVECOT.format(folder=folder))
    command = ["/usr/sbin/dovecot", "-F", "-c", str(folder / "dovecot.conf")]
    running = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        wait_until((folder / "login").exists)
        yield folder
    finally:
        print((folder / "dovecot.log").read_text())  # shown where the test fails
        running.terminate()
        running.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def relay(dovecot: Path) -> AsyncIterator[tuple[NotingHandler, int]]:
    """Postfix's port, and where the mail that it takes comes to."""
    certificate, _ = ensure_certificate(dovecot, "localhost")
    handler = NotingHandler()
    more = SIGNED_IN.format(folder=dovecot, certificate=certificate)
    async with listening(handler) as listener:
        with running_postfix(listener.port, more) as port:
            yield handler, port


def token(user: str, lives_s: float = 600.0, key: bytes = KEY) -> str:
    """An access token as an identity provider signs it (RFC 7519)."""
    now = int(time())
    head = {"alg": "HS256", "typ": "JWT"}
    claims = {"sub": user, "iat": now - 5, "exp": now + int(lives_s)}
    signed = ".".join(_text(msgspec.json.encode(part)).rstrip("=") for part in (head, claims))
    return f"{signed}.{_text(digest(key, signed.encode(), sha256)).rstrip('=')}"


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode()


async def send(port: int, login: Login) -> Handoff:
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
        sign_in=Stored(login),
    )
    got: asyncio.Future[Handoff] = asyncio.get_running_loop().create_future()
    content = b"From: a@b.example\r\nTo: c@inbox.test\r\n\r\nx\r\n"
    mail = Outgoing("a@b.example", (Recipient(uuid4(), "c@inbox.test"),), content, False, False)
    transport.submit(mail, got.set_result)
    try:
        async with asyncio.timeout(20):
            return await got
    finally:
        await transport.close(1.0)


async def test_each_way_of_signing_in_is_taken_and_a_wrong_secret_is_the_ways_fault(
    relay: tuple[NotingHandler, int],
) -> None:
    handler, port = relay
    good = (
        Login(USER, PASSWORD, PLAIN),
        Login(USER, PASSWORD, LOGIN),
        Login(USER, token(USER), XOAUTH2),
    )
    for login in good:
        handoff = await send(port, login)
        assert handoff.outcome is Outcome.ACCEPTED, handoff
    await until(lambda: len(handler.stored) == len(good))
    bad = (
        Login(USER, "wrong", PLAIN),
        Login(USER, "wrong", LOGIN),
        Login(USER, token(USER, key=b"x" * 32), XOAUTH2),
        Login(USER, token(USER, lives_s=-60.0), XOAUTH2),
    )
    for login in bad:
        handoff = await send(port, login)
        assert (handoff.outcome, handoff.route_fault) == (Outcome.LATER, True), handoff
        assert "535" in handoff.reply and login.secret not in handoff.reply
    assert len(handler.stored) == len(good)
