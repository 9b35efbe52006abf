"""The SMTP role: mail comes in from everybody, and from applications that submit it."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

import structlog

from mailyard.app import Application
from mailyard.core import limits
from mailyard.core.errors import ConfigurationError
from mailyard.fleet.ports import why_not
from mailyard.net.guard import networks_in
from mailyard.protocol.smtp.envelope import Envelope, Peer
from mailyard.protocol.smtp.reply import Reply
from mailyard.protocol.smtp.session import LoginAsked, SessionConfig
from mailyard.receiving.accept import Acceptor
from mailyard.receiving.handler import LoginHandler, SessionHandler
from mailyard.receiving.listener import Listener, ListenerLimits
from mailyard.settings import SUBMISSION_PORT, SUBMISSIONS_PORT, Settings

if TYPE_CHECKING:
    from mailyard.cli.serving.smtp_shards import SmtpShards
    from mailyard.sending.submission import Submission

_LOG = structlog.get_logger(__name__)


class SmtpService:
    """Several of these, in as many processes, share the ports."""

    def __init__(self, application: Application) -> None:
        settings = application.settings
        self._application = application
        self._tls = application.tls_context()
        self._shards = _shards(application)
        self._acceptor = acceptor_of(application) if self._shards is None else None
        self._limits = ListenerLimits(
            connections=settings.smtp_connections,
            connections_per_address=settings.smtp_connections_per_address,
        )
        self._balancers = networks_in(settings.smtp_balancers)
        self._listener = Listener(
            host=settings.smtp_host,
            port=settings.smtp_port,
            handler=self._acceptor or self._shards.acceptor,  # type: ignore[union-attr]
            hostname=settings.smtp_name,
            tls_context=self._tls,
            listener_limits=self._limits,
            balancers=self._balancers,
        )
        self._submission: list[Listener] = []
        self._decider: SubmissionDecider = (
            Decider(application) if self._shards is None else self._shards.decider
        )

    async def start(self) -> None:
        settings = self._application.settings
        if self._acceptor is not None:
            self._acceptor.start()
        if self._shards is not None:
            await self._shards.start()
        await self._listen(self._listener, settings.smtp_port, "MAILYARD_SMTP_PORT")
        wanted = (
            (settings.submission_port, SUBMISSION_PORT, False, "MAILYARD_SUBMISSION_PORT"),
            (settings.submissions_port, SUBMISSIONS_PORT, True, "MAILYARD_SUBMISSIONS_PORT"),
        )
        for port, usual, tls_on_connect, setting in wanted:
            if port == 0:
                continue
            listener = self._submitting(port or usual, tls_on_connect=tls_on_connect)
            try:
                await self._listen(listener, port or usual, setting)
            except ConfigurationError as error:
                if port is not None:
                    raise
                _LOG.warning("mail cannot be submitted there", reason=error.message)
            else:
                self._submission.append(listener)

    def reload(self, settings: Settings) -> None:
        """How many connections it takes."""
        self._limits = ListenerLimits(
            connections=settings.smtp_connections,
            connections_per_address=settings.smtp_connections_per_address,
        )
        for listener in (self._listener, *self._submission):
            listener.limits = self._limits

    async def drain(self, timeout_s: float) -> None:
        listeners = [self._listener, *self._submission]
        await asyncio.gather(*(listener.drain(timeout_s) for listener in listeners))
        if self._acceptor is not None:
            await self._acceptor.close()
        if self._shards is not None:
            await self._shards.close()

    async def _listen(self, listener: Listener, port: int, setting: str) -> None:
        try:
            await listener.start()
        except (OSError, UnicodeError) as error:
            raise ConfigurationError(
                f"cannot serve SMTP on {self._application.settings.smtp_host}:{port}: "
                f"{why_not(error, setting)}"
            ) from error

    def _submitting(self, port: int, *, tls_on_connect: bool) -> Listener:
        settings = self._application.settings
        return Listener(
            host=settings.smtp_host,
            port=port,
            handler=self._decider,
            logins=self._decider,
            hostname=settings.smtp_name,
            tls_context=self._tls,
            tls_on_connect=tls_on_connect,
            listener_limits=self._limits,
            balancers=self._balancers,
            session=SessionConfig(
                settings.smtp_name,
                submission=True,
                command_line_bytes=limits.SMTP_AUTH_LINE_BYTES,
            ),
        )


def _shards(application: Application) -> "SmtpShards | None":
    """The database clusters, where there are several."""
    if not application.settings.shards:
        return None
    from mailyard.cli.serving.smtp_shards import SmtpShards

    return SmtpShards(application)


def acceptor_of(
    application: Application, residence: Callable[[UUID], Reply | None] | None = None
) -> Acceptor:
    """What decides about mail that comes into the cluster of `application`."""
    settings = application.settings
    return Acceptor(
        database=application.database,
        engine=application.engine,
        hostname=settings.smtp_name,
        returns=application.return_addresses,
        # Without plans not even the modules that know of them are loaded.
        allowance=application.allowance if settings.plans_file is not None else None,
        elsewhere=application.elsewhere,
        neighbours=application.neighbours,
        door=application.doorkeeper,
        residence=residence,
        raw_mail=application.raw_mail,
        clock=application.clock,
    )


class SubmissionDecider(SessionHandler, LoginHandler, Protocol):
    """What decides about submitted mail, and who may sign in."""


class Decider:
    """Decides about submitted mail. What that takes is loaded with the first login: a listener that
    nobody signs in at does not pay for it."""

    def __init__(self, application: Application) -> None:
        self._application = application

    def authenticate(self, question: LoginAsked) -> Awaitable[Reply]:
        return self._submission.authenticate(question)

    def accept_recipient(self, peer: Peer, reverse_path: str, address: str) -> Reply:
        return self._submission.accept_recipient(peer, reverse_path, address)

    def accept_message(self, envelope: Envelope, content: bytes) -> Awaitable[Reply]:
        return self._submission.accept_message(envelope, content)

    @cached_property
    def _submission(self) -> "Submission":
        from mailyard.sending.login_guard import LoginGuard
        from mailyard.sending.submission import Submission
        from mailyard.web.api.rate import FleetLimiter

        application, settings = self._application, self._application.settings
        limiter = (
            FleetLimiter(
                limits=application.limits, per_s=settings.rate_per_s, burst=settings.rate_burst
            )
            if settings.rate_per_s > 0
            else None
        )
        return Submission(
            keys=application.keys,
            emails=application.emails,
            neighbours=application.neighbours,
            guard=LoginGuard(rate_limit=application.limits, clock=application.clock),
            # A key's mails count as its requests to the API do, in one bucket.
            admit=limiter.take if limiter is not None else None,
            clock=application.clock,
        )
