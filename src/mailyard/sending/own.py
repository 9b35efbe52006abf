"""Mails that Mailyard writes in its own name."""

from hashlib import sha256
from uuid import UUID

from mailyard.access.audit import Actor
from mailyard.access.letter import Letter
from mailyard.core.errors import InvalidInput
from mailyard.sending.accept import PRIVATE, Emails
from mailyard.sending.answer import Idempotency
from mailyard.sending.request import EmailRequest

_SAME = sha256(b"letter").digest()  # the same letter under a key, whatever it says by now


async def post_letter(
    emails: Emails, workspace_id: UUID, sender: str, letter: Letter, key: str
) -> None:
    """Send a letter from a workspace: durable when this returns, once for its key. One to an
    address that no mail can be sent to is nobody's."""
    request = EmailRequest(
        sender=sender,
        to=[letter.to],
        subject=letter.subject,
        text=letter.text,
        headers={"Auto-Submitted": "auto-generated"},  # RFC 3834: nobody's machine answers
        type=PRIVATE,
        priority="high",
    )
    actor = Actor("system", "accounts", workspace_id)
    try:
        await emails.accept(workspace_id, request, Idempotency(key, _SAME), actor)
    except InvalidInput as error:
        if error.field is None or not error.field.startswith("to"):
            raise
