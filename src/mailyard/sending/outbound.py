"""The way out: each mail to the provider that its workspace's routes say, and never to two.

    submit -> route -> candidates -> [breaker gives leave -> hand over -> answer] -> done

A provider that certainly has not taken a mail, for a reason of its own, lets the next one have it
(`route/failover.py` has the whole rule); whatever may have been taken is given to nobody else. In a
campaign that happens here at once, for nobody tries its mail again when a worker dies. The provider
of a transactional mail is written down before the mail leaves (`Outgoing.only`), because such a
mail is tried again after a crash, and then has to stay where it may be: it is passed on by whoever
writes that down.

Without routes everything goes by the relay of the settings, as if this were not here.
"""

from collections.abc import Collection
from random import Random
from time import time
from uuid import UUID

from msgspec.structs import replace

from mailyard.core.clock import Clock, SystemClock
from mailyard.sending.passage import Done, Held, Passage
from mailyard.sending.route.breaker import BreakerOptions
from mailyard.sending.route.plan import Plan, envelope
from mailyard.sending.route.providers import ProviderEvent
from mailyard.sending.transport import Outgoing, Transport
from mailyard.sending.ways import Maker, Standing, Ways


class Outbound:
    """Hands mails to providers by the plan that it was given last (`follow`).

    `relay` is the way out of the settings. One for a worker process, used on its loop.
    """

    name = "outbound"

    def __init__(
        self,
        *,
        relay: Transport,
        make: Maker,
        clock: Clock | None = None,
        random: Random | None = None,
        options: BreakerOptions | None = None,
    ) -> None:
        clock = clock or SystemClock()
        self._ways = Ways(
            relay=relay,
            make=make,
            # Asked twice a mail; a datetime in between would cost as much as the rest.
            now_s=time if type(clock) is SystemClock else lambda: clock.now().timestamp(),
            random=random or Random(),
            options=options,
        )
        self._held = Held()

    def submit(self, mail: Outgoing, done: Done) -> None:
        """See `Transport.submit`."""
        ways = self._ways
        view = ways.view_of(mail.workspace_id)
        if view.routes is None and mail.only in ways.relays and not view.fault:
            ways.relay.submit(mail, done)
        elif mail.only or len(mail.recipients) == 1:
            Passage(ways, self._held, mail, done).go()
        else:
            for recipient in mail.recipients:
                one = replace(mail, recipients=(recipient,))
                Passage(ways, self._held, one, done).go()

    def choose(
        self, workspace_id: UUID, stream: str, tag: str, address: str, without: Collection[str]
    ) -> str:
        """See `Chooser`."""
        ways = self._ways
        view = ways.view_of(workspace_id)
        if view.routes is None:
            return "" if ways.relay.name in without or view.fault else ways.relay.name
        choice = ways.providers.choose(
            ways.now_s(), view.routes, envelope(workspace_id, stream, tag, address)
        )
        for key in choice.candidates:
            way = ways.by_key[key]
            if way.name not in without and ways.transport_of(way) is not None:
                return way.name
        return ""

    def may_take_it_later(
        self, workspace_id: UUID, stream: str, tag: str, address: str, without: Collection[str]
    ) -> bool:
        """See `Chooser.may_take_it_later`."""
        ways = self._ways
        view = ways.view_of(workspace_id)
        if view.routes is None:
            return ways.relay.name not in without
        route = view.routes.route_of(envelope(workspace_id, stream, tag, address))
        return any(
            way.enabled and way.name not in without
            for way in (ways.by_key[leg.provider] for leg in route.legs)
        )

    async def close(self, drain_s: float) -> None:
        """See `Transport.close`."""
        self._held.closing = True
        for passage in list(self._held.passages):
            passage.go()
        await self._ways.close(drain_s)

    def follow(self, plan: Plan) -> None:
        """Send by `plan` from now on. What is under way with a provider that was changed or taken
        away is finished there."""
        self._ways.follow(plan)

    def adopt(self, key: str, until_s: float, why: str, at_s: float) -> None:
        """Another process found the provider out of order at `at_s`. It is believed unless this one
        has found out something since."""
        self._ways.adopt(key, until_s, why, at_s)

    def rewrites(self, workspace_id: UUID) -> bool:
        """Whether a signature of the workspace's mail must not cover Message-ID and Date."""
        return self._ways.view_of(workspace_id).rewrites

    def standings(self) -> list[Standing]:
        """Each provider that was used."""
        return self._ways.standings()

    def news(self) -> list[ProviderEvent]:
        """Which breakers changed since the last call, oldest first."""
        return list(self._ways.providers.events())
