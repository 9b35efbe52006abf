"""A whole mailbox as a file: download it, or put a file's mail into an inbox."""

from typing import Annotated, Literal

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core import ids, limits
from mailyard.mailbox.mail_file import EML, MBOX, MEDIA_TYPES, TAR, UNKNOWN
from mailyard.storage.database import Connection
from mailyard.web.api.body import stream_body
from mailyard.web.api.page import Input, Output
from mailyard.web.api.route import Call, Download, Media, Route

TAG = "Inboxes"


class ExportQuery(Input):
    """How the mail is packed."""

    format: Annotated[
        Literal["mbox", "eml"],
        Meta(description="`mbox`, or `eml`: a tar archive with a file for each mail."),
    ] = "mbox"


class RefusedMail(Output):
    """A mail of the file that did not go in."""

    number: Annotated[int, Meta(description="Its place in the file, from 1.")]
    reason: str


class ImportedMail(Output):
    """What became of a file. Mail that went in is seen in the inbox a moment later."""

    imported: int
    already_there: Annotated[
        int, Meta(description="Passed over: the inbox has mail of that Message-ID.")
    ]
    refused: int
    refusals: Annotated[list[RefusedMail], Meta(description="The first hundred of them.")]


async def export_inbox(call: Call[None, ExportQuery]) -> Download:
    inbox_id, form = call.ids["inbox_id"], call.query.format
    pieces = await call.app.mail_files.export(call.workspace_id, inbox_id, form)
    ending = "mbox" if form == "mbox" else "tar"
    return Download(pieces, MEDIA_TYPES[form], f"{ids.type_id(ids.INBOX, inbox_id)}.{ending}")


async def import_inbox(call: Call[None, None]) -> ImportedMail:
    inbox_id = call.ids["inbox_id"]
    declared = call.headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode()

    async def witness(tx: Connection) -> None:
        begun = Change("inbox.import", ids.type_id(ids.INBOX, inbox_id), None, {"type": declared})
        await call.app.audit.record_many(call.principal.actor, [begun], tx)

    told = await call.app.mail_files.bring_in(
        call.workspace_id,
        inbox_id,
        stream_body(call.receive, limits.IMPORT_BYTES),
        declared,
        witness,
    )
    return ImportedMail(
        imported=told.imported,
        already_there=told.already_there,
        refused=told.refused,
        refusals=[RefusedMail(number=one.number, reason=one.reason) for one in told.refusals],
    )


ROUTES = (
    Route(
        "GET",
        "/v1/inboxes/{inbox_id:ibx}/export",
        export_inbox,
        "exportInbox",
        TAG,
        "Download all mail of an inbox",
        scope.INBOXES_READ,
        answer=Media(MBOX, "Each mail as it came; with format=eml a tar archive."),
        query=ExportQuery,
    ),
    Route(
        "POST",
        "/v1/inboxes/{inbox_id:ibx}/import",
        import_inbox,
        "importInbox",
        TAG,
        "Put the mail of a file into an inbox",
        scope.INBOXES_WRITE,
        answer=ImportedMail,
        upload=(MBOX, TAR, EML, UNKNOWN),
        errors=(402,),
        idempotency="none",
        description="The body is an mbox file, a tar archive of .eml files or one mail, up to "
        "2 GiB; as application/octet-stream it is taken for what it looks like. It is stored as "
        "it is read, a few hundred mails at a time, and takes the way of mail that arrives: "
        "threads, search, live events and webhooks see it. Sending a file again is safe: mail "
        "whose Message-ID the inbox shows already is passed over.",
    ),
)
