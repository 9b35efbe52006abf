"""Waiting for mail: the call that test suites and agents make.

A wait is one entry in a table by inbox. It is entered first and the inbox is looked at second, so
that what arrives in between is not missed; after that each arrival in the inbox makes it look
again.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

from mailyard.bus.live import MESSAGE_RECEIVED, StoredEvent
from mailyard.core.ids import INBOX, type_id
from mailyard.mailbox.message import Messages
from mailyard.mailbox.message_value import ReadMessage
from mailyard.web.live.tail import Tail


class Waits:
    """All waits of this process."""

    def __init__(self, *, messages: Messages) -> None:
        self._messages = messages
        self._by_inbox: dict[str, set[asyncio.Event]] = {}

    def hear(self, events: Sequence[StoredEvent]) -> None:
        """What the tail read: wake those who wait for one of these inboxes."""
        for event in events:
            if event.kind == MESSAGE_RECEIVED:
                for arrival in self._by_inbox.get(event.item["inbox_id"], ()):
                    arrival.set()

    async def first(
        self,
        workspace_id: UUID,
        inbox_id: UUID,
        *,
        from_: str,
        subject: str,
        after: UUID | None,
        timeout_s: float,
        tail: Tail,
    ) -> ReadMessage | None:
        """The oldest matching message above `after`, as soon as there is one; None in time.

        Raises NotFound for an inbox that is not there, also when it goes while this waits, and
        Unavailable.
        """
        name = type_id(INBOX, inbox_id)
        arrival = asyncio.Event()
        waiting = self._by_inbox.setdefault(name, set())
        waiting.add(arrival)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s), tail.listening():
                    while True:
                        found = await self._messages.first(
                            workspace_id, inbox_id, from_=from_, subject=subject, after=after
                        )
                        if found is not None:
                            break
                        await arrival.wait()
                        arrival.clear()
                return await self._messages.read(workspace_id, found.id, inbox_id)
        finally:
            waiting.discard(arrival)
            if not waiting and self._by_inbox.get(name) is waiting:
                del self._by_inbox[name]
        return None
