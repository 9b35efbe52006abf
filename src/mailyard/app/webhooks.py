"""Events told to applications."""

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mailyard.app.campaigns import Campaigning

if TYPE_CHECKING:
    from uuid import UUID

    from mailyard.net.guard import Network
    from mailyard.net.http import HttpClient
    from mailyard.webhooks.call import Caller
    from mailyard.webhooks.endpoint import Webhooks
    from mailyard.webhooks.fan_out import FanOut
    from mailyard.webhooks.gap import Gaps
    from mailyard.webhooks.log import WebhookLog
    from mailyard.webhooks.notice import Notices
    from mailyard.webhooks.replay import Replays
    from mailyard.webhooks.tell import Teller


class Webhooking(Campaigning):
    """What tells other programs."""

    @cached_property
    def webhooks(self) -> "Webhooks":
        from mailyard.webhooks.endpoint import Webhooks

        return Webhooks(
            database=self.database,
            vault=self.vault,
            bus=self.bus,
            clock=self.clock,
            allowed=self._webhook_networks(),
        )

    @cached_property
    def webhook_http(self) -> "HttpClient":
        """The way to endpoints: as many connections as can be told at once, none kept for long."""
        from mailyard.net.http import HttpClient, HttpOptions
        from mailyard.webhooks.endpoint import CONCURRENCY_MAX
        from mailyard.webhooks.tell import PLACES

        most = PLACES * CONCURRENCY_MAX
        client = HttpClient(
            user_agent="Mailyard (webhooks)",
            allowed=self._webhook_networks(),
            options=HttpOptions(connections=most, connections_per_host=most, read_s=15.0),
        )
        self.ends.append(client.close)
        return client

    @cached_property
    def webhook_caller(self) -> "Caller":
        from mailyard.webhooks.call import Caller

        return Caller(
            http=self.webhook_http,
            contents=self._message_of,
            page_url=self.settings.page_url,
            clock=self.clock,
        )

    @cached_property
    def webhook_log(self) -> "WebhookLog":
        from mailyard.webhooks.log import WebhookLog

        return WebhookLog(
            database=self.database,
            webhooks=self.webhooks,
            caller=self.webhook_caller,
            clock=self.clock,
        )

    @cached_property
    def webhook_replays(self) -> "Replays":
        from mailyard.webhooks.replay import Replays

        return Replays(
            database=self.database, engine=self.engine, webhooks=self.webhooks, clock=self.clock
        )

    @cached_property
    def webhook_teller(self) -> "Teller":
        from mailyard.webhooks.tell import Teller

        return Teller(
            database=self.database,
            engine=self.engine,
            webhooks=self.webhooks,
            caller=self.webhook_caller,
            live=self.live,
            clock=self.clock,
        )

    @cached_property
    def webhook_notices(self) -> "Notices":
        from mailyard.webhooks.notice import Notices

        return Notices(
            users=self.users,
            emails=self.emails,
            sender=f"Mailyard <postmaster@{self.settings.smtp_name}>",
            page_url=self.settings.page_url,
        )

    @cached_property
    def fan_out(self) -> "FanOut":
        """What brings events into the lines of endpoints."""
        from mailyard.webhooks.fan_out import FanOut

        return FanOut(database=self.database, engine=self.engine, bus=self.bus, clock=self.clock)

    @cached_property
    def webhook_gaps(self) -> "Gaps":
        """What keeps events for endpoints that are behind."""
        from mailyard.webhooks.gap import Gaps

        return Gaps(database=self.database, clock=self.clock)

    def _webhook_networks(self) -> tuple["Network", ...]:
        from mailyard.net.guard import networks_in

        return networks_in(self.settings.webhook_networks)

    async def _message_of(
        self, workspace_id: "UUID", item: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """The mail of a `message.received`, for who wants it by value."""
        from mailyard.mailbox.told import told_message

        return await told_message(self.messages, workspace_id, item)
