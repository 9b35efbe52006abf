"""What pages and API show of the installation's database servers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mailyard.app import Application


@dataclass(frozen=True, slots=True)
class ReplicaFigure:
    """A standby server, as this process sees it. `trouble` says why it is left out."""

    name: str
    usable: bool
    lag_s: float
    trouble: str


@dataclass(frozen=True, slots=True)
class Servers:
    """The standby servers, and how many connections may be used."""

    replicas: Sequence[ReplicaFigure]
    connections_each: int
    processes: int
    budget: int
    processes_most: int


def servers_of(application: "Application") -> Servers:
    """From the settings, and from what this process knows of the replicas."""
    settings, replicas = application.settings, []
    if settings.database_replicas:
        from mailyard.storage.replicated import ReplicatedDatabase

        database = application.database
        assert isinstance(database, ReplicatedDatabase), "the settings name replicas"
        replicas = [
            ReplicaFigure(one.name, one.usable, one.lag_s, one.trouble) for one in database.replicas
        ]
    return Servers(
        replicas=replicas,
        connections_each=settings.connections_each,
        processes=settings.instances,
        budget=settings.database_budget,
        processes_most=settings.most_instances,
    )
