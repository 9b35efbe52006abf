"""A message as other programs are told of it, bounded: a webhook's body is no place for 25 MB."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from mailyard.core.errors import NotFound
from mailyard.core.ids import INBOX, MESSAGE, parse_type_id
from mailyard.core.limits import KIB
from mailyard.mailbox.message import Messages

TEXT_CHARACTERS = 64 * KIB
HTML_CHARACTERS = 256 * KIB
_HEADERS = 100
_HEADER_CHARACTERS = 2 * KIB


async def told_message(
    messages: Messages, workspace_id: UUID, item: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The mail that the event `item` speaks of; None when it is gone. `html` is sanitised;
    `shortened` says that the API has more of it. Raises Unavailable."""
    try:
        found = await messages.read(
            workspace_id,
            parse_type_id(MESSAGE, str(item.get("message_id"))),
            parse_type_id(INBOX, str(item.get("inbox_id"))),
        )
    except NotFound:
        return None
    summary, content = found.summary, found.content
    text, html = content.text, content.html
    return {
        "from": {"address": summary.from_address, "name": summary.from_name},
        "to": summary.recipient,
        "subject": summary.subject,
        "received_at": summary.received_at,
        "sent_at": summary.sent_at,
        "size_bytes": summary.size_bytes,
        "headers": [
            {"name": name, "value": value[:_HEADER_CHARACTERS]}
            for name, value in content.headers[:_HEADERS]
        ],
        "text": text and text[:TEXT_CHARACTERS],
        "html": html and html[:HTML_CHARACTERS],
        "shortened": len(text or "") > TEXT_CHARACTERS or len(html or "") > HTML_CHARACTERS,
        "attachments": [
            {
                "index": file.index,
                "filename": file.filename,
                "content_type": file.content_type,
                "size_bytes": file.size_bytes,
            }
            for file in content.attachments
        ],
    }
