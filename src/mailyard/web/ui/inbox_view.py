"""What the pages of an inbox share."""

from typing import Any

from mailyard.core.ids import INBOX, parse_type_id, type_id
from mailyard.mailbox.inbox_value import Inbox
from mailyard.web.ui.frame import Visit


def inbox_view(inbox: Inbox) -> dict[str, Any]:
    return {
        "id": type_id(INBOX, inbox.id),
        "address": inbox.address,
        "name": inbox.name,
        "labels": inbox.labels,
        "expires_at": inbox.expires_at,
    }


async def found_inbox(visit: Visit, inbox_id: str) -> Inbox:
    return await visit.application.inboxes.get(
        visit.principal.workspace_id, parse_type_id(INBOX, inbox_id)
    )
