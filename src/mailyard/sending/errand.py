"""One `deliver` job in hand: its email, composed, and which of its recipients are where."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from uuid import UUID

from mailyard.core import ids
from mailyard.core.errors import InvalidInput, MailyardError
from mailyard.protocol.address import parse_mailbox
from mailyard.protocol.dkim.sign import Signer, sign_all
from mailyard.queue.job import LeasedJob
from mailyard.sending import header
from mailyard.sending.compose import Composed, compose
from mailyard.sending.content import WholeMail, decode_content
from mailyard.sending.html_part import HtmlPart
from mailyard.sending.request import EmailContent, EmailTrack
from mailyard.sending.results import Conclusion
from mailyard.sending.return_path import ReturnPaths
from mailyard.sending.sign import Owned, sender_domain
from mailyard.sending.states import State
from mailyard.sending.track.dress import TrackedPage
from mailyard.sending.transport import TRANSACTIONAL, Outgoing, Recipient

FORWARDED = "forward"  # the type of mail that is sent on (sending.forwarded)


@dataclass(frozen=True, slots=True)
class OpenDelivery:
    """A recipient that is not settled. `type`: what kind of mail, the caller's word. `may_have_it`:
    the transport where an earlier attempt ended unknown; nobody else ever gets the mail."""

    id: UUID
    recipient: str
    suppressed: bool
    type: str = ""
    may_have_it: str = ""


@dataclass(frozen=True, slots=True)
class Followed:
    """A mail whose opens or clicks are followed, and how it is written with other HTML."""

    sender: str
    html: str
    track: EmailTrack
    with_html: Callable[[str], Composed]


@dataclass(slots=True)
class Errand:
    """The job's work: `waiting` are still to be named, `away` were handed to the transport."""

    job: LeasedJob
    workspace_id: UUID
    email_id: UUID
    next_attempt_at: datetime  # should another attempt be needed
    expires_at: datetime | None = None
    mail: Composed | None = None
    followed: Followed | None = None  # each recipient has a mail of his own
    page: TrackedPage | None = None
    signed: tuple[Sequence[Signer], datetime] | None = None
    sender_address: str = ""
    reverse_path: str = ""
    hostname: str = ""
    return_domain: str = ""  # the sending domain's own, for return-paths; empty: the shared one
    waiting: list[OpenDelivery] = field(default_factory=list)
    away: set[UUID] = field(default_factory=set)
    again_at: datetime | None = None  # when the first of its recipients is to be tried again
    tried: bool = False  # some recipient was, in this attempt
    gave_up: str = ""  # why some recipient was given up
    later: MailyardError | None = None  # why its content cannot be had now

    @property
    def finished(self) -> bool:
        return not self.waiting and not self.away

    @property
    def is_last_attempt(self) -> bool:
        return self.job.attempt >= self.job.max_attempts

    def prepare(self, content: bytes, hostname: str) -> None:
        """Compose the mail, the same bytes at every attempt. A failure is kept in `gave_up`."""
        try:
            parts = decode_content(content)
            self.hostname = hostname
            if isinstance(parts, WholeMail):
                self._take_whole(parts)
                return
            self.sender_address = self.reverse_path = parse_mailbox(parts.sender).address
            self.mail = self._composed(parts, parts.html)
            if parts.html and (parts.track.opens or parts.track.clicks):
                with_html = partial(self._composed, parts)
                self.followed = Followed(parts.sender, parts.html, parts.track, with_html)
        except MailyardError as error:
            self.gave_up = f"it cannot be composed: {error}"

    def _composed(self, parts: EmailContent, html: str) -> Composed:
        return compose(
            sender=parse_mailbox(parts.sender),
            to=[parse_mailbox(text) for text in parts.to],
            cc=[parse_mailbox(text) for text in parts.cc],
            reply_to=[parse_mailbox(text) for text in parts.reply_to],
            subject=parts.subject,
            text=parts.text,
            html=html,
            headers=parts.headers,
            attachments=parts.attachments,
            date=ids.time_of(self.email_id),
            message_id=self._message_id,
        )

    @property
    def _message_id(self) -> str:
        return f"{ids.type_id(ids.EMAIL, self.email_id)}@{self.hostname}"

    def _take_whole(self, whole: WholeMail) -> None:
        """A mail as it was submitted, with the headers that it lacks before its own."""
        added = {
            "Date": lambda: header.date(ids.time_of(self.email_id)),
            "Message-ID": lambda: f"<{self._message_id}>",
        }
        head = "".join(f"{name}: {added[name]()}\r\n" for name in whole.missing)
        content = head.encode("ascii") + whole.mail
        self.sender_address, self.reverse_path = whole.sender_address, whole.reverse_path
        self.mail = Composed(content, not content.isascii(), whole.smtp_utf8)
        if whole.track.opens or whole.track.clicks:
            try:
                part = HtmlPart(content)
            except InvalidInput:
                return  # it has no page to follow: it goes as it is
            self.followed = Followed(
                whole.sender_address, part.html, whole.track, partial(_replaced, part, self.mail)
            )

    @property
    def sender(self) -> Owned:
        """Whose keys sign the mail."""
        return self.workspace_id, sender_domain(self.sender_address)

    def sign(self, signers: Sequence[Signer], now: datetime) -> None:
        """Put signatures in front of the mail. A failure is kept in `gave_up`."""
        assert self.mail is not None, "what is not composed is not signed"
        try:
            signatures = sign_all(signers, self.mail.content, now.timestamp())
        except MailyardError as error:
            self.mail, self.gave_up = None, f"it cannot be signed: {error}"
        else:
            self.mail = self.mail._replace(content=signatures + self.mail.content)
            self.signed = signers, now

    def early_end(self, recipient: OpenDelivery, now: datetime) -> tuple[State, str] | None:
        """How a recipient ends without being handed over, and why; None when it is to go."""
        if recipient.suppressed:
            return State.SUPPRESSED, "the recipient is on the suppression list"
        if self.expires_at is not None and self.expires_at <= now:
            return State.EXPIRED, "its time ran out before it could be handed over"
        if self.mail is None:
            return State.FAILED, self.gave_up
        return None

    def mails(
        self, recipients: list[OpenDelivery], return_paths: ReturnPaths | None, only: str = ""
    ) -> Iterator[Outgoing]:
        """The mail for some of its recipients: each in an envelope of his own, for what comes back
        says by its address whose it is. All in one without return-paths, and where the sender wants
        nothing back (the null sender), unless each has links of his own.

        `only`: the transport that is written down with the intent; empty where there is one alone.
        """
        if self.mail is None:
            raise AssertionError("a mail that cannot be composed is never handed over")
        returns = return_paths if self.reverse_path else None
        if returns is None and self.page is None:
            yield self._outgoing(recipients, self.reverse_path, self.mail, only)
            return
        for one in recipients:
            reverse_path = self.reverse_path
            if returns is not None:
                path = returns.rewritten_path if one.type == FORWARDED else returns.reverse_path
                reverse_path = path(one.id, one.recipient, self.reverse_path, self.return_domain)
            yield self._outgoing([one], reverse_path, self._own_mail(one, self.mail), only)

    def _own_mail(self, recipient: OpenDelivery, shared: Composed) -> Composed:
        """The mail with the recipient's own links; the shared one when it is not followed, and when
        it would be too large."""
        if self.page is None or self.followed is None:
            return shared
        try:
            mail = self.followed.with_html(self.page.write(recipient.id.bytes))
            if self.signed is None:
                return mail
            signers, now = self.signed
            signatures = sign_all(signers, mail.content, now.timestamp())
        except MailyardError:
            return shared
        return mail._replace(content=signatures + mail.content)

    def _outgoing(
        self, recipients: list[OpenDelivery], reverse_path: str, mail: Composed, only: str
    ) -> Outgoing:
        return Outgoing(
            reverse_path=reverse_path,
            recipients=tuple(Recipient(one.id, one.recipient) for one in recipients),
            content=mail.content,
            eight_bit=mail.eight_bit,
            smtp_utf8=mail.smtp_utf8,
            workspace_id=self.workspace_id,
            stream=TRANSACTIONAL,
            tag=recipients[0].type,
            only=only,
        )

    def comes_again(self, at: datetime) -> None:
        """A recipient is to be tried at `at`."""
        self.again_at = at if self.again_at is None else min(self.again_at, at)

    def came_back(self, delivery_id: UUID, conclusion: Conclusion) -> None:
        """A recipient has its answer."""
        self.away.discard(delivery_id)
        self.tried = self.tried or conclusion.tried
        if conclusion.next_attempt_at is not None:
            self.comes_again(conclusion.next_attempt_at)
        elif conclusion.state in (State.FAILED, State.UNKNOWN):
            self.gave_up = conclusion.reply or "no attempt is left"


def _replaced(part: HtmlPart, mail: Composed, html: str) -> Composed:
    content = part.replaced(html)
    return mail._replace(content=content, eight_bit=not content.isascii())
