"""Mail that is sent on: sealed with ARC, its sender rewritten, and its bounces sent back.

The envelope sender is rewritten at the hand-over (SRS, `sending.srs`), so that SPF holds for what
we send. A bounce to it is recorded with the delivery, and goes on to who sent the mail first, whose
address the stored mail has (decision 0029).

The bytes stay as they came, for signatures over them are what the next hop checks; only fields that
claim to be our own verdicts go (RFC 8601 section 5). In front of them
stand Delivered-To (RFC 9228), by which a mail that comes round again is known, and, where the
domain that it came to has a DKIM key of the workspace, a seal (RFC 8617).
"""

from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple, Protocol
from uuid import UUID

import msgspec

from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import InvalidInput
from mailyard.protocol.address import normalise
from mailyard.protocol.arc import ChainStatus, read_chain
from mailyard.protocol.authentication_results import without_claims
from mailyard.protocol.dkim.mail import Mail
from mailyard.protocol.mime.message import Message
from mailyard.queue.batch import Batch, Handler
from mailyard.queue.job import EMAIL_SEND, LeasedJob
from mailyard.sending.accept import Emails
from mailyard.sending.answer import Idempotency
from mailyard.sending.content import WholeMail, decode_content
from mailyard.sending.delivery import NOBODY, RETURNED_DAYS
from mailyard.sending.errand import FORWARDED
from mailyard.sending.request import Prepared
from mailyard.sending.sign import Signing
from mailyard.sending.stored_content import StoredContents
from mailyard.storage.database import Database
from mailyard.storage.queries import load
from mailyard.storage.raw_mail import IN_ROWS, RawMail

if TYPE_CHECKING:
    from collections.abc import Sequence

_SQL = load("returns")
BOUNCE_TYPE = "forwarded-bounce"
BOUNCE_JOB = "forwarded-bounce"
HOPS_MAX = 30  # trace lines of a mail that is sent on; RFC 5321 section 6.3 asks for a bound


class ToForward(Protocol):
    """A mail to send on (`receiving.forward.Forwarded` fits)."""

    @property
    def raw(self) -> bytes: ...
    @property
    def reverse_path(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def recipients(self) -> "Sequence[str]": ...
    @property
    def checks(self) -> str: ...
    @property
    def chain(self) -> ChainStatus | None: ...
    @property
    def key(self) -> str: ...


class Bounced(NamedTuple):
    """A bounce that goes on, as a job names it."""

    delivery_id: UUID
    message_id: UUID


_BOUNCED = msgspec.json.Decoder(Bounced)


class Forwarding:
    """Sends mail on. `authserv_id` names us in what the seals say."""

    def __init__(
        self,
        *,
        database: Database,
        emails: Emails,
        signing: Signing,
        authserv_id: str,
        raw_mail: RawMail = IN_ROWS,
        clock: Clock | None = None,
    ) -> None:
        self._database = database
        self._raw_mail = raw_mail
        self._contents = StoredContents(raw_mail)
        self._emails = emails
        self._signing = signing
        self._authserv_id = authserv_id
        self._clock = clock or SystemClock()

    async def forward(self, workspace_id: UUID, mail: ToForward) -> str:
        """Accept `mail` for its recipients, durable on return and once for one key. Why it is not
        sent on, empty when it is. Raises as `Emails.accept_prepared`."""
        why = _circles(mail)
        if why:
            return why
        raw = without_claims(mail.raw, self._authserv_id)
        content = b"Delivered-To: %b\r\n" % mail.address.encode() + raw
        content = await self._sealed(workspace_id, mail, content) + content
        prepared = _prepared(content, mail.reverse_path, mail.address, mail.recipients, FORWARDED)
        once = Idempotency(mail.key, sha256(mail.key.encode()).digest())
        await self._emails.accept_prepared(workspace_id, prepared, once)
        return ""

    async def _sealed(self, workspace_id: UUID, mail: ToForward, content: bytes) -> bytes:
        """The seal in front of `content`; empty where there is no key or nothing to say."""
        if mail.chain is None:
            return b""
        domain = mail.address.rpartition("@")[2]
        sealer = await self._signing.sealer(workspace_id, domain, self._authserv_id)
        if sealer is None:
            return b""
        chain = read_chain(Mail(mail.raw))
        try:
            now_s = self._clock.now().timestamp()
            return sealer.seal(Mail(content), chain, mail.chain, mail.checks, now_s)
        except InvalidInput:  # it has no From: there is nothing that a seal could stand for
            return b""

    def handler(self) -> Handler:
        """What sends bounces of forwarded mail back, for the worker."""
        return Handler(BOUNCE_JOB, EMAIL_SEND, self.handle, batch_size=10, concurrency=1)

    async def handle(self, batch: Batch) -> None:
        """Send on the bounces that the jobs name."""
        for job in batch.jobs:
            try:
                bounced = _BOUNCED.decode(job.payload)
            except msgspec.DecodeError as error:
                await batch.bury([job], f"the payload is no bounce: {error}")
                continue
            await self._send_back(job, bounced)

    async def _send_back(self, job: LeasedJob, bounced: Bounced) -> None:
        """The bounce goes to who sent the mail first, with the null sender: it comes back never."""
        row = await self._database.fetchrow(
            _SQL.forwarded_mail, bounced.delivery_id, bounced.message_id, NOBODY, RETURNED_DAYS
        )
        if row is None or job.workspace_id != row["workspace_id"]:
            return
        first = decode_content(await self._contents.whole(row["content"]))
        if not isinstance(first, WholeMail) or not first.reverse_path:
            return
        bounce = await self._raw_mail.of(row)
        back = _prepared(bounce, "", first.reverse_path, [first.reverse_path], BOUNCE_TYPE)
        key = f"bounce:{bounced.message_id.hex}:{bounced.delivery_id.hex}"
        once = Idempotency(key, sha256(key.encode()).digest())
        await self._emails.accept_prepared(row["workspace_id"], back, once)


def _circles(mail: ToForward) -> str:
    """Why the mail goes in circles; empty when it does not."""
    hops = 0
    for name, value, *_ in Mail(mail.raw).fields:
        lower = name.lower()
        hops += lower == b"received"
        if lower == b"delivered-to" and value.strip().lower() == mail.address.encode().lower():
            return f"it was at {mail.address} before"
    return f"it has more than {HOPS_MAX} trace lines" if hops > HOPS_MAX else ""


def _prepared(
    content: bytes, reverse_path: str, author: str, recipients: "Sequence[str]", kind: str
) -> Prepared:
    """A mail that goes out as it is. `author`: who counts as its sender where it names nobody."""
    message = Message(content)
    sender = next((one.address for one in message.from_ if "@" in one.address), author)
    distinct = {normalise(address): address for address in recipients}
    return Prepared(
        content=WholeMail(
            sender=sender,
            sender_address=sender,
            reverse_path=reverse_path,
            subject=message.subject[:998],
            smtp_utf8=not (reverse_path + "".join(distinct)).isascii(),
            missing=(),
            mail=content if content.endswith(b"\r\n") else content + b"\r\n",
        ),
        sender_address=sender,
        recipients=tuple(distinct.values()),
        keys=tuple(distinct),
        type=kind,
        send_at=None,
        expires_at=None,
    )
