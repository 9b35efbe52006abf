"""What belongs to the services of one installation: their folder, ports and password.

DATA/stage/lock        held by flock while a Mailyard runs its services there
DATA/stage/NAME        a service's own folder
DATA/stage/ports.json  the ports of loopback that they have, kept from run to run
DATA/stage/secret      what they ask for; nobody else on the machine can read it
DATA/stage/settings.toml  what the roles are told, for commands: MAILYARD_CONFIG names it
"""

import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from random import SystemRandom
from secrets import token_hex

from mailyard.core.errors import ConfigurationError
from mailyard.storage.cluster import take_lock

LOOPBACK = "127.0.0.1"
_LOWEST = 15_000
# Linux's own beginning of the ports that connections get. Ours lie below: a client that tries a
# port of that range while nobody listens may be given it as its own and be connected to itself.
_EPHEMERAL = 32_768
_TRIES = 500


class Place:
    """`data` is the installation's data folder, which is ours until `release`.

    Raises ConfigurationError when it is not ours to write, or another Mailyard has it.
    """

    def __init__(self, data: Path) -> None:
        self.data = data.absolute()
        self.root = self.data / "stage"
        self._random = SystemRandom()
        self._ports: dict[str, int] = {}  # of this run
        self._lock: int | None = take_lock(self.root)
        if not (self.root / "secret").exists():
            write_private(self.root / "secret", token_hex(16))
        self.secret = (self.root / "secret").read_text()
        self._before = _read_ports(self.root / "ports.json")

    def folder(self, name: str) -> Path:
        """The service's own folder, which nobody else may enter."""
        folder = self.root / name
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def port(self, name: str) -> int:
        """The port of `name`: as in the last run, unless somebody has taken it meanwhile."""
        if name not in self._ports:
            port = self._before.get(name, 0)
            if not port or port in self._ports.values() or not _is_free(port):
                port = self._new()
            self._ports[name] = port
            kept = {**self._before, **self._ports}
            write_private(self.root / "ports.json", json.dumps(kept, indent=1))
        return self._ports[name]

    def keep_settings(self, settings: Mapping[str, str]) -> None:
        """Write down what the roles are told. It holds the secret."""
        lines = [f"{name} = {json.dumps(text)}\n" for name, text in settings.items()]
        head = "# Written by `mailyard up` at every start, for commands that look at this stage.\n"
        write_private(self.root / "settings.toml", head + "".join(lines))

    def release(self) -> None:
        """Let another Mailyard have it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _new(self) -> int:
        taken = {*self._ports.values(), *self._before.values()}
        for _ in range(_TRIES):
            port = self._random.randrange(_LOWEST, _EPHEMERAL)
            if port not in taken and _is_free(port):
                return port
        raise ConfigurationError(f"no free port of {LOOPBACK} below {_EPHEMERAL} was found")


def write_private(path: Path, text: str) -> None:
    """A file that only this user can read, whole or not at all."""
    beside = path.with_name(f"{path.name}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    beside.rename(path)


def _read_ports(path: Path) -> dict[str, int]:
    try:
        return {str(name): int(port) for name, port in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError):
        return {}  # the first run, or a file that somebody has spoilt: new ones are chosen


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
