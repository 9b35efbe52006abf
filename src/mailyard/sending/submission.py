"""Submission by SMTP (RFC 6409): who may sign in, and what becomes of the mail.

Implements the listener's handlers without knowing it: mail that is submitted goes the way of
`POST /v1/emails`, into the same group commit, and 250 comes after it. An API key is the password;
the user name is free, or the key's id. What is sent twice with one Message-ID to the same
recipients is sent once, for as long as idempotency keys are kept.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import sha256
from uuid import UUID
from weakref import WeakSet

from mailyard.access import scope
from mailyard.access.idempotency import check_key
from mailyard.access.key import ApiKeys, KeyHolder
from mailyard.access.neighbours import Neighbours
from mailyard.access.region import AtHomeElsewhere
from mailyard.core import ids, limits
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import (
    InvalidInput,
    MailyardError,
    NotAllowed,
    QuotaExceeded,
    RateLimited,
    TooLarge,
)
from mailyard.protocol.address import normalise
from mailyard.protocol.smtp.envelope import Envelope, Peer
from mailyard.protocol.smtp.reply import Reply
from mailyard.protocol.smtp.session import LoginAsked
from mailyard.sending.accept import Emails
from mailyard.sending.answer import Idempotency
from mailyard.sending.content import WholeMail, str_of
from mailyard.sending.login_guard import LoginGuard
from mailyard.sending.request import (
    DEFAULT_TYPE,
    NORMAL,
    EmailRequest,
    Prepared,
    check_headers,
    check_priority,
    check_times,
    check_type,
    prepare,
    template_of,
)
from mailyard.sending.submitted import (
    Submitted,
    followed,
    moment,
    read_submitted,
    template_data,
    waits_for_quiet,
)

_SIGNED_IN = Reply(235, "2.7.0", "Authentication successful")
_WRONG = Reply(535, "5.7.8", "The password must be an API key that is known and not revoked")
_NO_SCOPE = Reply(535, "5.7.8", f"This API key lacks the scope {scope.EMAILS_SEND}")
_TRY_LATER = Reply(454, "4.7.0", "Cannot be checked now, try again later")
_TOO_MANY_SESSIONS = Reply(454, "4.7.0", "This API key has too many sessions, try again later")
_REVOKED = Reply(535, "5.7.8", "The API key of this session was revoked")
_RECIPIENT_OK = Reply(250, "2.1.5", "Ok")
_NOT_AN_ADDRESS = Reply(553, "5.1.3", "That is not a mailbox address")


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Submitter:
    """Who signed in, one a session. The key is asked for again with every mail: it may have been
    revoked."""

    key_id: UUID
    secret: str = field(repr=False)


class Submission:
    """Decides for the sessions of submission ports. `admit` counts a key's requests;
    `neighbours` know the keys of other regions."""

    def __init__(
        self,
        *,
        keys: ApiKeys,
        emails: Emails,
        guard: LoginGuard,
        neighbours: Neighbours | None = None,
        admit: Callable[[str], Awaitable[object]] | None = None,
        sessions_per_key: int = limits.SMTP_SESSIONS_PER_KEY,
        clock: Clock | None = None,
    ) -> None:
        self._keys = keys
        self._neighbours = neighbours
        self._emails = emails
        self._guard = guard
        self._admit = admit
        self._sessions_per_key = sessions_per_key
        # Of each key those who are signed in: who is gone with his session is not among them.
        self._signed_in: dict[UUID, WeakSet[Submitter]] = {}
        self._clock = clock or SystemClock()

    async def authenticate(self, question: LoginAsked) -> Reply:
        """The answer to AUTH. One that fails is answered late, and counted for its address."""
        address = question.peer.address
        wait_s = self._guard.shut_s(address)
        if wait_s > 0:
            return _too_often(wait_s)
        credentials = question.credentials
        try:
            holder = await self._keys.authenticate(credentials.password)
            if holder is None and self._neighbours is not None:
                await self._neighbours.redirect_key(credentials.password)
        except AtHomeElsewhere as error:
            return Reply(535, "5.7.8", error.message)
        except MailyardError:
            return _TRY_LATER
        if holder is None or not _is_named(holder, credentials.name):
            await self._guard.failed(address)
            return _WRONG
        if scope.EMAILS_SEND not in holder.scopes:
            return _NO_SCOPE
        sessions = self._signed_in.setdefault(holder.key_id, WeakSet())
        if len(sessions) >= self._sessions_per_key:
            return _TOO_MANY_SESSIONS
        user = Submitter(holder.key_id, credentials.password)
        sessions.add(user)
        question.user = user
        return _SIGNED_IN

    def accept_recipient(
        self,
        peer: Peer,  # noqa: ARG002 - the port's
        reverse_path: str,  # noqa: ARG002
        address: str,
    ) -> Reply:
        """RCPT: any address. Whether it gets mail is the delivery's to say, as in the API."""
        try:
            normalise(address)
        except InvalidInput:
            return _NOT_AN_ADDRESS
        return _RECIPIENT_OK

    async def accept_message(self, envelope: Envelope, content: bytes) -> Reply:
        """The end of DATA: 250 after the commit."""
        user = envelope.peer.user
        assert isinstance(user, Submitter), "nobody gets here without signing in"
        holder = await self._keys.authenticate(user.secret)
        if holder is None:
            return _REVOKED
        try:
            if self._admit is not None:
                await self._admit(holder.actor.name)
            return await self._take(holder, envelope, content)
        except MailyardError as error:
            return _refusal(error)

    async def _take(self, holder: KeyHolder, envelope: Envelope, content: bytes) -> Reply:
        if scope.EMAILS_SEND not in holder.scopes:
            raise NotAllowed(f"this needs the scope {scope.EMAILS_SEND}")
        mail = read_submitted(content)
        emails = self._emails
        now = self._clock.now()
        if "Template" in mail.orders:
            request = _template_request(mail, envelope)
            template = template_of(request)
            assert template is not None, "it was named"
            rendered = await emails.render(holder.workspace_id, template, request)
            prepared = prepare(request, rendered, now)
        else:
            prepared = _whole(mail, envelope, now)
        prepared = _addressed(prepared, envelope)
        quiet, local_time = waits_for_quiet(mail.orders), mail.orders.get("Local-Time")
        if quiet or local_time is not None:
            prepared = await emails.clocks.place(
                holder.workspace_id, prepared, local_time, quiet=quiet
            )
        answer = await emails.accept_prepared(
            holder.workspace_id, prepared, _idempotency(mail, prepared), holder.actor
        )
        name = ids.type_id(ids.EMAIL, answer.emails[0].id)
        again = " before" if answer.replayed else ""
        return Reply(250, "2.0.0", f"Ok: queued as {name}{again}")


def _is_named(holder: KeyHolder, name: str) -> bool:
    """A user name that is a key's id must be this key's; any other is free."""
    if not name.startswith(f"{ids.API_KEY}_"):
        return True
    return name == ids.type_id(ids.API_KEY, holder.key_id)


def _time(orders: dict[str, str], name: str) -> datetime | None:
    return moment(orders[name], f"X-Mailyard-{name}") if name in orders else None


def _whole(mail: Submitted, envelope: Envelope, now: datetime) -> Prepared:
    """The mail as it was written."""
    if "Data" in mail.orders:
        raise InvalidInput("data is for a template, and none is named", field="X-Mailyard-Data")
    send_at, expires_at = check_times(
        _time(mail.orders, "Send-At"), _time(mail.orders, "Expires-At"), now
    )
    return Prepared(
        content=WholeMail(
            sender=mail.sender_text,
            sender_address=mail.sender.address,
            reverse_path=envelope.reverse_path,
            subject=mail.subject,
            smtp_utf8=envelope.smtp_utf8,
            missing=mail.missing,
            mail=mail.mail,
            track=followed(mail.orders.get("Track", "none")),
        ),
        sender_address=mail.sender.address,
        recipients=(),
        keys=(),
        type=check_type(mail.orders.get("Tag", DEFAULT_TYPE), "X-Mailyard-Tag"),
        send_at=send_at,
        expires_at=expires_at,
        priority=check_priority(mail.orders.get("Priority", NORMAL), "X-Mailyard-Priority"),
    )


def _template_request(mail: Submitted, envelope: Envelope) -> EmailRequest:
    """What the API would be asked: a template's mail, with the addresses of the headers."""
    orders = mail.orders
    check_headers(mail.others)
    return EmailRequest(
        sender=str_of(mail.sender.name, mail.sender.address),
        to=[str_of(one.name, one.address) for one in mail.to],
        cc=[str_of(one.name, one.address) for one in mail.cc],
        bcc=list(envelope.recipients),
        reply_to=[str_of(one.name, one.address) for one in mail.reply_to],
        headers=mail.others,
        template=orders["Template"].strip(),
        data=template_data(orders.get("Data", "{}")),
        type=check_type(orders.get("Tag", DEFAULT_TYPE), "X-Mailyard-Tag"),
        priority=check_priority(orders.get("Priority", NORMAL), "X-Mailyard-Priority"),
        track=followed(orders.get("Track", "none")),
        send_at=_time(orders, "Send-At"),
        expires_at=_time(orders, "Expires-At"),
    )


def _addressed(prepared: Prepared, envelope: Envelope) -> Prepared:
    """With the envelope's recipients, each once: headers address nobody (RFC 5321 2.3.1)."""
    recipients: dict[str, str] = {}
    for address in envelope.recipients:
        recipients.setdefault(normalise(address), address)
    return replace(prepared, recipients=tuple(recipients.values()), keys=tuple(recipients))


def _idempotency(mail: Submitted, prepared: Prepared) -> Idempotency | None:
    """The caller's key, else the Message-ID with the recipients: a client may send one mail to
    some of them in one transaction and to the others in the next."""
    orders = "\n".join(f"{name}: {value}" for name, value in sorted(mail.orders.items()))
    body_hash = sha256(orders.encode() + b"\n\n" + mail.unchanging).digest()
    if "Idempotency-Key" in mail.orders:
        return Idempotency(check_key(mail.orders["Idempotency-Key"]), body_hash)
    if not mail.message_id:
        return None
    said = "\0".join((mail.message_id, *sorted(prepared.keys)))
    return Idempotency(f"smtp:{sha256(said.encode()).hexdigest()}", body_hash)


def _too_often(wait_s: float) -> Reply:
    return Reply(
        454, "4.7.0", f"Too many failed attempts from your address, try again in {wait_s:.0f} s"
    )


def _refusal(error: MailyardError) -> Reply:
    """What the API answers with a problem document (RFC 3463 codes)."""
    text = f"{error.field}: {error.message}" if error.field else error.message
    if isinstance(error, RateLimited):
        return Reply(451, "4.7.1", f"{text}, try again in {error.retry_after_s:.0f} s")
    if isinstance(error, QuotaExceeded):
        return Reply(452, "4.5.3", text)  # the client keeps the mail: the next day it goes
    if error.retryable or error.code == "idempotency_key_in_progress":
        return Reply(451, "4.3.0", text)
    if isinstance(error, TooLarge):
        return Reply(552, "5.3.4", text)
    if isinstance(error, NotAllowed):
        return Reply(550, "5.7.1", text)
    if error.status < 500:
        return Reply(550, "5.6.0", text)
    return Reply(451, "4.3.0", "Temporary failure, try again later")
