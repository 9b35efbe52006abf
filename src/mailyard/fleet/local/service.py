"""What every service of a stage is."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from enum import Enum

from mailyard.fleet.local.process import ServiceProcess
from mailyard.fleet.local.program import Package, Program


class Moment(Enum):
    """When a service is started: by itself, behind the database, behind the roles."""

    FIRST = "first"
    DATABASE = "database"
    ROLES = "roles"


class Service(ABC):
    """One service. `settings` are those it gives the roles, by name, known before it starts.

    `instead` names settings: an operator who has set one of them has a service of his own, and this
    one is not started.
    """

    moment = Moment.FIRST
    instead: tuple[str, ...] = ()
    needs: tuple[Program | Package, ...] = ()

    def __init__(self) -> None:
        self.settings: dict[str, str] = {}
        self.processes: list[ServiceProcess] = []

    @classmethod
    def is_wanted(cls, given: Mapping[str, object]) -> bool:
        """Whether the operator, who has made the settings `given`, leaves it to us."""
        return not any(name in given for name in cls.instead)

    @abstractmethod
    def places(self) -> Sequence[tuple[str, str]]:
        """(name, where it answers) of each process, for people."""

    async def start(self) -> None:
        """Start all processes at once. Raises ConfigurationError."""
        starts = [asyncio.create_task(process.start()) for process in self.processes]
        try:
            await asyncio.gather(*starts)
        except BaseException:
            for start in starts:
                start.cancel()
            await asyncio.gather(*starts, return_exceptions=True)
            raise

    async def stop(self) -> None:
        """End all processes."""
        await asyncio.gather(*(process.stop() for process in self.processes))
