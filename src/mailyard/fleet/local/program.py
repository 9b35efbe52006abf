"""Programs that services need: where they are on this machine, and how to get those that are not.

Nothing is downloaded: what is missing is named with the command that installs it.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from mailyard.core.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Program:
    """What is looked for: on the PATH, then in `places` (patterns; the last of several matches)."""

    name: str
    install: str
    places: tuple[str, ...] = ()

    def find(self) -> Path | None:
        """Where it is."""
        found = shutil.which(self.name)
        if found is not None:
            return Path(found)
        for place in self.places:
            path = Path(place).expanduser()
            matches = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
            if matches:
                return matches[-1]
        return None

    def path(self) -> Path:
        """Where it is. Raises ConfigurationError when it is missing."""
        found = self.find()
        if found is None:
            raise ConfigurationError(f"{self.name} is missing: {self.install}")
        return found


@dataclass(frozen=True, slots=True)
class Package:
    """A Python package that the roles need to use a service."""

    name: str
    install: str

    def find(self) -> Path | None:
        """Where it is."""
        spec = find_spec(self.name)
        return None if spec is None or spec.origin is None else Path(spec.origin)


def check_all(needed: Sequence[Program | Package], stage: str) -> None:
    """Raise ConfigurationError that names all that is missing, each with what installs it."""
    missing = {one.name: one.install for one in needed if one.find() is None}
    if missing:
        lines = [f"  {name:<16} {install}" for name, install in missing.items()]
        raise ConfigurationError(
            "\n".join([f"{stage} needs what is not on this machine:", *lines, _OWN])
        )


_OWN = (
    "Install it, or name a service of your own, which then is not started: "
    "MAILYARD_DATABASE_URL, MAILYARD_REDIS_URL, MAILYARD_KAFKA_SERVERS, MAILYARD_BLOBS."
)
_FLEET = "pip install 'mailyard[fleet]'"


def _cache() -> str:
    """Where tests/services/install_*.sh of the source tree put what has no package."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return f"{home}/mailyard-fleet"


def _kafka_places() -> tuple[str, ...]:
    own = os.environ.get("KAFKA_HOME")
    folders = (*((own,) if own else ()), "/opt/kafka", "/usr/share/kafka", f"{_cache()}/kafka-*")
    return tuple(f"{folder}/libs/kafka-clients-*.jar" for folder in folders)


NGINX = Program("nginx", "apt-get install nginx libnginx-mod-stream", ("/usr/sbin/nginx",))
PGBOUNCER = Program("pgbouncer", "apt-get install pgbouncer", ("/usr/sbin/pgbouncer",))
REDIS_SERVER = Program("redis-server", "apt-get install redis-server (or valkey)")
JAVA = Program("java", "apt-get install openjdk-17-jre-headless")
KAFKA = Program(
    "kafka-clients.jar",
    "unpack Kafka 4 (https://kafka.apache.org/downloads) to /opt/kafka or where KAFKA_HOME says; "
    "in a source tree: tests/services/install_kafka.sh",
    _kafka_places(),
)
VERSITYGW = Program(
    "versitygw",
    "go install github.com/versity/versitygw/cmd/versitygw@v1.8.0; in a source tree: "
    "tests/services/install_s3.sh",
    ("~/go/bin/versitygw", f"{_cache()}/versitygw-*/versitygw"),
)
CONFLUENT_KAFKA = Package("confluent_kafka", _FLEET)
REDIS_CLIENT = Package("redis", _FLEET)
OBSTORE = Package("obstore", _FLEET)
