"""The services of one stage, put together: checked, started each at its moment, ended in turn."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from mailyard.core.limits import MIB
from mailyard.fleet.local.place import LOOPBACK, Place
from mailyard.fleet.local.process import Say
from mailyard.fleet.local.program import check_all
from mailyard.fleet.local.service import Moment, Service
from mailyard.fleet.local.services.balancer import WAYS, Balancer, Front
from mailyard.fleet.local.services.kafka import Kafka
from mailyard.fleet.local.services.objects import Objects
from mailyard.fleet.local.services.pooler import Pooler
from mailyard.fleet.local.services.redis import Redis
from mailyard.fleet.local.services.replica import Replica
from mailyard.fleet.local.stage import SERVICES, LocalStage

_REPLICA_MEMORY_BYTES = 64 * MIB
_KINDS: dict[str, type[Service]] = {
    "replica": Replica,
    "pooler": Pooler,
    "redis": Redis,
    "kafka": Kafka,
    "objects": Objects,
    "balancer": Balancer,
}
_Kind = TypeVar("_Kind", bound=Service)


class Yard:
    """The services of `stage` in the folder `data`.

    `given` are the settings that the operator has made: what one of them stands for is his, and is
    not started. Raises ConfigurationError when a program is missing.
    """

    def __init__(
        self, stage: LocalStage, data: Path, given: Mapping[str, object], say: Say
    ) -> None:
        wanted = [
            name for name in SERVICES if name in stage.services and _KINDS[name].is_wanted(given)
        ]
        needed = [one for name in wanted for one in _KINDS[name].needs]
        check_all(needed, f"stage {stage.stage.value} ({stage.stage.word})")
        self.stage = stage.stage
        self._told = stage.settings
        self._place = Place(data) if wanted else None
        makers = {} if self._place is None else _makers(stage, self._place, given, say)
        self._services = [makers[name]() for name in wanted]
        self._front: Front | None = None
        self._page_url = ""

    @property
    def settings(self) -> dict[str, str]:
        """What the roles are told, by the names of settings: to stand under the operator's own."""
        told = dict(self._told)
        for service in self._services:
            told |= service.settings
        return told

    @property
    def slots(self) -> list[str]:
        """The replication slots that the embedded PostgreSQL is to keep."""
        replica = self._find(Replica)
        return [] if replica is None else replica.slots

    @property
    def runs_pooler(self) -> bool:
        """Whether a pooler of ours stands before the embedded PostgreSQL, which then is started
        although the settings name an address."""
        return self._find(Pooler) is not None

    @property
    def runs_kafka(self) -> bool:
        """Whether Kafka is ours, so that its topics are ours to make."""
        return self._find(Kafka) is not None

    def places(self) -> list[tuple[str, str]]:
        """(name, where it answers) of every process, for people."""
        return [place for service in self._services for place in service.places()]

    def stand_before(
        self, front: Front, page_url: str, children: Mapping[str, Sequence[str]]
    ) -> None:
        """Callers come to `front`; `children` are the names of the processes of each role."""
        self._front, self._page_url = front, page_url
        if self._place is not None:
            self._place.keep_settings(self.settings)
        balancer = self._find(Balancer)
        if balancer is not None:
            balancer.stand_before(front, children)

    def scaled(self, role: str, names: Sequence[str]) -> None:
        """The processes of `role` are these from now on."""
        balancer = self._find(Balancer)
        if balancer is not None and role in {way.role for way in WAYS}:
            balancer.serve(role, names)

    def own(self, name: str, environment: Mapping[str, str]) -> dict[str, str]:
        """What the process `name` (like api-2) is told instead of what `environment` tells all: a
        port of its own behind the balancer, whom it believes."""
        balancer, front = self._find(Balancer), self._front
        role = name.rpartition("-")[0]
        if balancer is None or front is None or role not in ("api", "smtp"):
            return {}
        ports = {way.upstream: balancer.port_of(name, way) for way in WAYS if way.role == role}
        if role == "api":
            return {
                "MAILYARD_HOST": LOOPBACK,
                "MAILYARD_PORT": str(ports["api"]),
                "MAILYARD_BASE_URL": self._page_url,
                "MAILYARD_HTTP_BALANCERS": _and_here(environment, "MAILYARD_HTTP_BALANCERS"),
            }
        return {
            "MAILYARD_SMTP_HOST": LOOPBACK,
            "MAILYARD_SMTP_PORT": str(ports["smtp"]),
            "MAILYARD_SUBMISSION_PORT": str(ports["submission"] if front.submission_port else 0),
            "MAILYARD_SUBMISSIONS_PORT": str(ports["submissions"] if front.submissions_port else 0),
            "MAILYARD_SMTP_BALANCERS": _and_here(environment, "MAILYARD_SMTP_BALANCERS"),
        }

    async def start(self, moment: Moment) -> None:
        """Start the services of this moment, all at once. Raises ConfigurationError."""
        starts = [
            asyncio.create_task(service.start())
            for service in self._services
            if service.moment is moment
        ]
        try:
            await asyncio.gather(*starts)
        except BaseException:
            for start in starts:
                start.cancel()
            await asyncio.gather(*starts, return_exceptions=True)
            raise

    async def stop(self) -> None:
        """End them: first who leads callers in, last what the others stand on."""
        for moment in reversed(Moment):
            await asyncio.gather(
                *(service.stop() for service in self._services if service.moment is moment)
            )
        if self._place is not None:
            self._place.release()

    def _find(self, kind: type[_Kind]) -> _Kind | None:
        return next((one for one in self._services if isinstance(one, kind)), None)


def _makers(
    stage: LocalStage, place: Place, given: Mapping[str, object], say: Say
) -> dict[str, Callable[[], Service]]:
    counts = stage.counts
    connections = int(str(given.get("database_budget") or stage.settings["database_budget"]))
    return {
        "replica": lambda: Replica(
            place, say, connections=connections, memory_bytes=_REPLICA_MEMORY_BYTES
        ),
        "pooler": lambda: Pooler(place, say, connections=connections),
        "redis": lambda: Redis(
            place, say, servers=counts.get("redis_servers", 1), sentinels=counts.get("sentinels", 0)
        ),
        "kafka": lambda: Kafka(place, say, brokers=counts.get("kafka_brokers", 1)),
        "objects": lambda: Objects(place, say),
        "balancer": lambda: Balancer(place, say),
    }


def _and_here(environment: Mapping[str, str], name: str) -> str:
    """The networks that the operator named, and this machine."""
    named = environment.get(name, "").replace(",", " ").split()
    return ",".join(dict.fromkeys((*named, LOOPBACK)))
