"""What mail is sent by, as values: the providers of all workspaces and each workspace's routes."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from mailyard.sending.provider import RELAY
from mailyard.sending.route.routes import Envelope, Routes


@dataclass(frozen=True, slots=True)
class Listed:
    """A provider as it is stored, without what is secret. `key` names it among all workspaces'."""

    key: str
    name: str
    enabled: bool
    revision: int


@dataclass(frozen=True, slots=True)
class View:
    """What one workspace sends by: its routes, whose legs are keys, and its providers by name.

    `fault`: why the routes cannot be used; its mail waits. `rewrites`: a provider on the routes
    writes Message-ID or Date anew.
    """

    routes: Routes | None
    keys: Mapping[str, str]
    fault: str = ""
    rewrites: bool = False

    @property
    def sole(self) -> str | None:
        """The provider that all mail goes to, when nothing is to be chosen."""
        if self.routes is None or len(self.routes.routes) > 1:
            return None
        legs = self.routes.routes[0].legs  # the last route takes everything
        return legs[0].provider if len(legs) == 1 else None


@dataclass(frozen=True, slots=True)
class Plan:
    """All providers by key, and the views: of who has one, and of everybody else."""

    providers: Mapping[str, Listed]
    views: Mapping[UUID, View]
    default: View


NO_PLAN = Plan({}, {}, View(None, {RELAY: RELAY}))


def envelope(workspace_id: UUID, stream: str, tag: str, address: str) -> Envelope:
    """What routes ask of a mail to `address`."""
    domain = address.rpartition("@")[2].lower()
    return Envelope(workspace_id, frozenset((tag,)), domain, "", stream)
