"""The job `webhook-notice`: the owners of a workspace are told that an endpoint was disabled.

Enqueued with the commit that disables it, so that it is told if and only if it happened, and taken
under an idempotency key, so that it is told once.
"""

from hashlib import sha256
from uuid import UUID

import msgspec

from mailyard.access.scope import OWNER
from mailyard.access.user import Users
from mailyard.core import ids
from mailyard.queue.batch import Batch, Handler
from mailyard.queue.job import WEBHOOKS, NewJob
from mailyard.sending.accept import Emails
from mailyard.sending.answer import Idempotency
from mailyard.sending.request import EmailRequest

NOTICE = "webhook-notice"
TYPE = "webhook-disabled"  # of the mail, for limits and the list of deliveries


class Disabled(msgspec.Struct, frozen=True):
    """An endpoint that was disabled by itself, and why."""

    webhook_id: UUID
    name: str
    url: str
    why: str
    at: str


_PAYLOAD = msgspec.json.Decoder(Disabled)


def job(workspace_id: UUID, disabled: Disabled) -> NewJob:
    """What to enqueue in the transaction that disables it."""
    return NewJob(WEBHOOKS, NOTICE, msgspec.json.encode(disabled), workspace_id)


class Notices:
    """Handles `webhook-notice` jobs. `sender`: whom such mail is from."""

    def __init__(self, *, users: Users, emails: Emails, sender: str, page_url: str) -> None:
        self._users = users
        self._emails = emails
        self._sender = sender
        self._page_url = page_url

    def handler(self) -> Handler:
        """What a worker needs to run this."""
        return Handler(kind=NOTICE, queue=WEBHOOKS, handle=self.handle)

    async def handle(self, batch: Batch) -> None:
        """One mail to each owner."""
        (one,) = batch.jobs
        assert one.workspace_id is not None, "an endpoint belongs to a workspace"
        disabled = _PAYLOAD.decode(one.payload)
        for member in await self._users.list(one.workspace_id):
            if member.role == OWNER:
                key = f"{NOTICE}:{disabled.webhook_id}:{disabled.at}:{member.email}"
                await self._emails.accept(
                    one.workspace_id,
                    self._mail(disabled, member.email),
                    Idempotency(key, sha256(one.payload).digest()),
                )

    def _mail(self, disabled: Disabled, to: str) -> EmailRequest:
        page = f"{self._page_url}/webhooks/{ids.type_id(ids.WEBHOOK, disabled.webhook_id)}"
        text = (
            f"The webhook {disabled.name} was disabled: {disabled.why}.\n\n"
            f"It told {disabled.url} of events. Nothing is told there any more. What waited for it "
            "is kept among its dead deliveries.\n\n"
            "When the endpoint works again, enable the webhook, put its dead deliveries back, and "
            f"replay what it missed:\n{page}\n"
        )
        return EmailRequest(
            sender=self._sender,
            to=[to],
            subject=f"The webhook {disabled.name} was disabled",
            text=text,
            type=TYPE,
        )
