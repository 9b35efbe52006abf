"""Sending: one email, a batch, reading back, cancelling."""

# ruff: noqa: RUF012 (msgspec copies a default that is a list or an object)

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core import ids, limits
from mailyard.sending.accept import Email
from mailyard.sending.answer import Accepted, Idempotency
from mailyard.sending.answer import Answer as AcceptAnswer
from mailyard.sending.request import NOT_TRACKED, Attachment, EmailRequest, EmailTrack
from mailyard.web.api.body import check_depth
from mailyard.web.api.page import (
    DeliveryId,
    EmailId,
    Input,
    Moment,
    NextCursor,
    Output,
    PageQuery,
    page_of,
    read_cursor,
    since_epoch,
)
from mailyard.web.api.route import Answer, Call, Route

TAG = "Emails"
_ENCODER = msgspec.json.Encoder()

Mailbox = Annotated[
    str,
    Meta(
        min_length=3,
        max_length=1000,
        description="An address, with or without a name.",
        examples=["Ada Lovelace <ada@example.org>"],
    ),
]
_Mailboxes = Annotated[list[Mailbox], Meta(max_length=limits.RECIPIENTS_PER_EMAIL)]
_HeaderName = Annotated[str, Meta(min_length=1, max_length=76)]
_HeaderValue = Annotated[str, Meta(max_length=limits.HEADER_VALUE_BYTES)]


class NewAttachment(Attachment, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file that goes with an email."""

    filename: Annotated[str, Meta(min_length=1, max_length=255, examples=["invoice.pdf"])]
    content: Annotated[bytes, Meta(description="The file in base64.")]
    content_type: Annotated[str, Meta(max_length=129, examples=["application/pdf"])] = (
        "application/octet-stream"
    )
    content_id: Annotated[
        str | None, Meta(description="With it, the HTML can show the file as `cid:…`.")
    ] = None


_Attachments = Annotated[list[NewAttachment], Meta(max_length=limits.ATTACHMENTS_PER_EMAIL)]


class NewEmail(
    EmailRequest,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    rename={"sender": "from"},
):
    """An email to send: subject with html, text or both; or a template with its data."""

    sender: Mailbox
    to: _Mailboxes
    cc: _Mailboxes = []
    bcc: _Mailboxes = []
    reply_to: _Mailboxes = []
    subject: Annotated[str, Meta(max_length=limits.SUBJECT_CHARACTERS)] = ""
    html: Annotated[str, Meta(max_length=limits.BODY_BYTES)] | None = None
    text: Annotated[str, Meta(max_length=limits.BODY_BYTES)] | None = None
    headers: Annotated[
        dict[_HeaderName, _HeaderValue],
        Meta(
            max_length=limits.HEADERS_PER_EMAIL,
            description="More headers. Those that Mailyard writes itself are refused.",
            examples=[{"X-Order": "12345"}],
        ),
    ] = {}
    attachments: _Attachments = []  # type: ignore[assignment]  # a list that is only read
    template: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=200,
                description="A template: its id, or its name.",
                examples=["welcome"],
            ),
        ]
        | None
    ) = None
    data: Annotated[dict[str, Any], Meta(description="What the template's variables are.")] = {}
    type: Annotated[
        str,
        Meta(
            pattern="^[a-z0-9][a-z0-9._-]{0,63}$",
            description="Your word for this kind of mail; deliveries are found by it.",
            examples=["password-reset"],
        ),
    ] = "transactional"
    send_at: (
        Annotated[datetime, Meta(tz=True, description="Not before; up to a year ahead.")] | None
    ) = None
    local_time: (
        Annotated[
            str,
            Meta(
                pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}$",
                description="In place of `send_at`: when no recipient's own clock shows less (the "
                "contact's attribute `timezone`, else the workspace's zone).",
                examples=["2026-12-24T09:00"],
            ),
        ]
        | None
    ) = None
    expires_at: (
        Annotated[
            datetime, Meta(tz=True, description="Not handed over after this: it is `expired`.")
        ]
        | None
    ) = None
    track: Annotated[
        EmailTrack,
        Meta(description="Whether its opens and clicks are followed: not unless it is said."),
    ] = NOT_TRACKED
    priority: Annotated[
        Literal["high", "normal", "low"],
        Meta(description="Which of the emails that wait goes first."),
    ] = "normal"
    quiet_hours: Annotated[
        bool,
        Meta(description="Wait for the end of the workspace's quiet hours at the recipients'."),
    ] = False

    def __post_init__(self) -> None:
        if self.data:
            check_depth(self.data, "data")


class NewEmailBatch(Input):
    """Up to 1,000 emails. All are taken, or none."""

    emails: Annotated[list[NewEmail], Meta(min_length=1, max_length=limits.EMAILS_PER_BATCH)]


class EmailRecipient(Output):
    """One recipient of an email and the delivery that carries it there."""

    recipient: str
    delivery_id: DeliveryId
    state: Annotated[str, Meta(description="`queued`, or `suppressed`.")]


class AcceptedEmail(Output):
    """Taken, durably: it will be sent or its deliveries say why not."""

    id: EmailId
    recipients: list[EmailRecipient]


class AcceptedEmailBatch(Output):
    """Taken, durably, all of them, in the order of the request."""

    emails: list[AcceptedEmail]


class EmailItem(Output):
    """An email as it is listed."""

    id: EmailId
    type: str
    sender: Annotated[str, Meta(description="As in From.")] = msgspec.field(name="from")
    subject: str
    accepted_at: Moment
    send_at: Moment | None
    expires_at: Moment | None


class AttachmentItem(Output):
    """An attachment of a sent email, without its content."""

    filename: str
    content_type: str
    size_bytes: int


class EmailDetail(EmailItem):
    """An email with its content. Blind copies are not among it: see its deliveries."""

    to: list[str]
    cc: list[str]
    reply_to: list[str]
    html: str
    text: str
    headers: dict[str, str]
    attachments: list[AttachmentItem]


class EmailPage(Output):
    """Emails, newest first."""

    items: list[EmailItem]
    next_cursor: NextCursor


class CancelledEmail(Output):
    """The recipients that the email is now not sent to."""

    recipients: list[str]


class EmailsQuery(PageQuery):
    """Which emails to list."""

    since: Annotated[Moment, Meta(description="Accepted since; 90 days ago when not said.")] | (
        None
    ) = None


def _accepted(accepted: Accepted) -> AcceptedEmail:
    return AcceptedEmail(
        id=ids.type_id(ids.EMAIL, accepted.id),
        recipients=[
            EmailRecipient(
                recipient=one.recipient,
                delivery_id=ids.type_id(ids.DELIVERY, one.delivery_id),
                state=one.state,
            )
            for one in accepted.recipients
        ],
    )


def idempotency_of(call: Call[Any, Any]) -> Idempotency | None:
    if call.idempotency_key is None:
        return None
    return Idempotency(call.idempotency_key, call.body_hash)


def _answer(result: AcceptAnswer, body: Any) -> Answer:
    headers = [(b"idempotency-replayed", b"true")] if result.replayed else []
    return Answer(202, _ENCODER.encode(body), headers=headers)


def accepted_answer(result: AcceptAnswer) -> Answer:
    """The answer to one email that was taken."""
    return _answer(result, _accepted(result.emails[0]))


async def send(call: Call[NewEmail, None]) -> Answer:
    result = await call.app.emails.accept(
        call.workspace_id, call.body, idempotency_of(call), call.principal.actor
    )
    return accepted_answer(result)


async def send_batch(call: Call[NewEmailBatch, None]) -> Answer:
    result = await call.app.emails.accept_many(
        call.workspace_id, call.body.emails, idempotency_of(call), call.principal.actor
    )
    emails = [_accepted(one) for one in result.emails]
    return _answer(result, AcceptedEmailBatch(emails=emails))


def _fields(email: Email) -> dict[str, Any]:
    return {
        "id": ids.type_id(ids.EMAIL, email.id),
        "type": email.type,
        "sender": email.sender,
        "subject": email.subject,
        "accepted_at": email.accepted_at,
        "send_at": email.send_at,
        "expires_at": email.expires_at,
    }


async def list_emails(call: Call[None, EmailsQuery]) -> EmailPage:
    query = call.query
    emails = await call.app.emails.page(
        call.workspace_id,
        since=since_epoch(query.since),
        before=read_cursor(query.cursor),
        limit=query.limit,
    )
    return page_of(EmailPage, emails, lambda email: EmailItem(**_fields(email)), query.limit)


async def get_email(call: Call[None, None]) -> EmailDetail:
    email = await call.app.emails.get(call.workspace_id, call.ids["email_id"])
    content = email.content
    assert content is not None, "one email is read with its content"
    return EmailDetail(
        **_fields(email),
        to=content.to,
        cc=content.cc,
        reply_to=content.reply_to,
        html=content.html,
        text=content.text,
        headers=content.headers,
        attachments=[
            AttachmentItem(
                filename=one.filename,
                content_type=one.content_type,
                size_bytes=len(one.content),
            )
            for one in content.attachments
        ],
    )


async def cancel_email(call: Call[None, None]) -> Answer:
    email_id = call.ids["email_id"]
    async with call.app.database.transaction() as tx:
        recipients = await call.app.emails.cancel(call.workspace_id, email_id, tx)
        withdrawn = Change(
            "email.cancel",
            ids.type_id(ids.EMAIL, email_id),
            {"recipients": recipients, "state": "queued"},
            {"state": "cancelled"},
        )
        return await call.done(tx, CancelledEmail(recipients=recipients), withdrawn)


ROUTES = (
    Route(
        "POST",
        "/v1/emails",
        send,
        "sendEmail",
        TAG,
        "Send an email",
        scope.EMAILS_SEND,
        status=202,
        answer=AcceptedEmail,
        body=NewEmail,
        body_bytes=limits.API_BODY_BYTES,
        errors=(402, 404),
        idempotency="own",
        description="Durable when answered: the email, its deliveries and the job to send it are "
        "one commit. An idempotency key is part of that commit. 429 also past the workspace's own "
        "limits.",
    ),
    Route(
        "POST",
        "/v1/emails/batch",
        send_batch,
        "sendEmailBatch",
        TAG,
        "Send up to 1,000 emails",
        scope.EMAILS_SEND,
        status=202,
        answer=AcceptedEmailBatch,
        body=NewEmailBatch,
        body_bytes=limits.API_BODY_BYTES,
        errors=(402, 404),
        idempotency="own",
    ),
    Route(
        "GET",
        "/v1/emails",
        list_emails,
        "listEmails",
        TAG,
        "List accepted emails",
        scope.EMAILS_READ,
        answer=EmailPage,
        query=EmailsQuery,
    ),
    Route(
        "GET",
        "/v1/emails/{email_id:eml}",
        get_email,
        "getEmail",
        TAG,
        "Read an accepted email",
        scope.EMAILS_READ,
        answer=EmailDetail,
    ),
    Route(
        "POST",
        "/v1/emails/{email_id:eml}/cancel",
        cancel_email,
        "cancelEmail",
        TAG,
        "Withdraw an email",
        scope.EMAILS_SEND,
        answer=CancelledEmail,
        description="Recipients whose mail was handed over already keep it; 409 when that is all.",
    ),
)
