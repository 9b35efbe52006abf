"""A route's own inbox, which the mailbox room makes for the receiving room."""

from typing import TYPE_CHECKING
from uuid import UUID

from mailyard.core.limits import INBOX_NAME_CHARACTERS
from mailyard.storage.database import Connection

if TYPE_CHECKING:
    from mailyard.mailbox.inbox import Inboxes

LABEL = "route"


class RouteInboxes:
    """Makes, finds and deletes inboxes for routes (`receiving.domain_route.InboxMaker`)."""

    def __init__(self, inboxes: "Inboxes") -> None:
        self._inboxes = inboxes

    async def make(
        self, workspace_id: UUID, domain: str, name: str, message_ttl_s: float, tx: Connection
    ) -> tuple[UUID, str]:
        """A new inbox under `domain`, under an address that nobody guesses."""
        from mailyard.mailbox.inbox_value import NewInbox, generated_name

        wanted = NewInbox(
            address=f"route-{generated_name()}@{domain}",
            name=name[:INBOX_NAME_CHARACTERS],
            labels=(LABEL,),
            message_ttl_s=message_ttl_s,
        )
        [made] = await self._inboxes.create(workspace_id, [wanted], tx=tx)
        return made.id, made.address

    async def find(self, workspace_id: UUID, address: str) -> str:
        """The normalised address of a living inbox. Raises NotFound, InvalidInput."""
        return (await self._inboxes.find(workspace_id, address)).address

    async def delete(self, workspace_id: UUID, inbox_id: UUID, tx: Connection) -> None:
        """Delete an inbox with its mail; one that is gone is no fault."""
        await self._inboxes.delete(workspace_id, [inbox_id], tx=tx)
