"""Contacts, lists, imports and campaigns."""

from functools import cached_property
from typing import TYPE_CHECKING

from mailyard.app.sending import Sending

if TYPE_CHECKING:
    from uuid import UUID

    from mailyard.campaigns.behaviour import Behaviour
    from mailyard.campaigns.campaign import Campaigns
    from mailyard.campaigns.contact import Contacts
    from mailyard.campaigns.contact_list import Lists
    from mailyard.campaigns.importing import Imports
    from mailyard.campaigns.preference import PreferenceCenter
    from mailyard.campaigns.preflight_facts import Preflights
    from mailyard.campaigns.progress import ProgressEvents
    from mailyard.campaigns.segment import Segments
    from mailyard.campaigns.timing import Timing
    from mailyard.campaigns.topic import Topics


class Campaigning(Sending):
    """What writes to many."""

    @cached_property
    def contacts(self) -> "Contacts":
        from mailyard.campaigns.contact import Contacts

        return Contacts(database=self.database)

    @cached_property
    def lists(self) -> "Lists":
        from mailyard.campaigns.contact_list import Lists

        return Lists(database=self.database)

    @cached_property
    def behaviour(self) -> "Behaviour":
        from mailyard.campaigns.behaviour import Behaviour

        return Behaviour(database=self.database, clock=self.clock)

    @cached_property
    def imports(self) -> "Imports":
        from mailyard.campaigns.importing import Imports

        return Imports(database=self.database, engine=self.engine)

    @cached_property
    def timing(self) -> "Timing":
        from mailyard.campaigns.timing import Timing

        return Timing(database=self.database, allowances=self.allowances, clock=self.clock)

    @cached_property
    def progress(self) -> "ProgressEvents":
        from mailyard.campaigns.progress import ProgressEvents

        return ProgressEvents(database=self.database, live=self.live)

    @cached_property
    def topics(self) -> "Topics":
        from mailyard.campaigns.topic import Topics

        return Topics(database=self.database)

    @cached_property
    def preferences(self) -> "PreferenceCenter":
        from mailyard.campaigns.preference import PreferenceCenter

        return PreferenceCenter(
            database=self.database,
            engine=self.engine,
            suppressions=self.suppressions,
            topics=self.topics,
            audit=self.audit,
            clock=self.clock,
        )

    @cached_property
    def preflights(self) -> "Preflights":
        from mailyard.campaigns.preflight_facts import Preflights
        from mailyard.net.http import HttpClient

        http = HttpClient(user_agent="Mailyard (preflight)")  # public addresses only
        self.ends.append(http.close)
        return Preflights(
            database=self.database,
            templates=self.templates,
            signing=self.signing,
            tracking=self.tracking,
            domains=self.domains,
            imprints=self.imprints,
            http=http,
            outside=self.leaves_the_house,
            hostname=self.settings.smtp_name,
            clock=self.clock,
        )

    async def leaves_the_house(self, workspace_id: "UUID") -> bool:
        """Whether a workspace's mail goes to other people's servers: to a relay, to a provider, or
        by ourselves. In a fresh install it reaches its own inboxes alone."""
        from mailyard.sending.provider import RELAY

        settings = self.settings
        if settings.relay_url or settings.delivery != "relay":
            return True
        routes, _ = await self.routing.in_force(workspace_id)
        return any(leg.provider != RELAY for route in routes for leg in route.legs)

    @cached_property
    def segments(self) -> "Segments":
        from mailyard.campaigns.audience import Audiences
        from mailyard.campaigns.segment import Segments

        audiences = Audiences(database=self.database, clock=self.clock)
        return Segments(database=self.database, audiences=audiences)

    @cached_property
    def campaigns(self) -> "Campaigns":
        from mailyard.campaigns.campaign import Campaigns

        return Campaigns(
            database=self.database,
            engine=self.engine,
            templates=self.templates,
            progress=self.progress,
            tracking=self.tracking,
            imprints=self.imprints,
            segments=self.segments,
            hostname=self.settings.smtp_name,
            clock=self.clock,
        )
