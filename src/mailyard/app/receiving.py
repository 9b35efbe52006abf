"""Inboxes and what lies in them."""

from functools import cached_property
from typing import TYPE_CHECKING

from mailyard.app.access import Access

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mailyard.analysis.meaning import Meanings
    from mailyard.mailbox.follow import Follower as MailboxFollower
    from mailyard.mailbox.inbox import Inboxes
    from mailyard.mailbox.message import Messages
    from mailyard.receiving.ingest import Follower


class Receiving(Access):
    """What reads received mail."""

    @cached_property
    def inboxes(self) -> "Inboxes":
        from mailyard.mailbox.inbox import Inboxes

        return Inboxes(
            database=self.database,
            domains=[self.settings.inbox_domain],
            clock=self.clock,
            cache=self.cache,
        )

    @cached_property
    def messages(self) -> "Messages":
        from mailyard.mailbox.message import Messages

        return Messages(database=self.database, inboxes=self.inboxes, cache=self.cache)

    @cached_property
    def meanings(self) -> "Meanings":
        """What the rules find in mail."""
        from mailyard.analysis.meaning import Meanings

        return Meanings(database=self.database)

    @cached_property
    def followers(self) -> "Sequence[Follower]":
        """What writes what follows from mail that came in, in ingest's transaction. The mailboxes'
        comes last: it holds them until the commit."""
        return (self.mailbox_follower,)

    @cached_property
    def mailbox_follower(self) -> "MailboxFollower":
        from mailyard.mailbox.follow import Follower

        return Follower(database=self.database, live=self.live)
