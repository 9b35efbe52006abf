"""A whole platform as a user starts it: `mailyard up` in a process, on free ports, in a folder."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ports import free_ports

from mailyard.storage.unprivileged import die_with_parent


def wait_until(condition: Any, patience_s: float = 60.0) -> None:
    """Return when `condition()` is true; fail after `patience_s`.

    What takes long is looked at less and less often: a look may cost a process of its own.
    """
    started = time.monotonic()
    while not condition():
        waited_s = time.monotonic() - started
        assert waited_s < patience_s, f"waited {patience_s:g} s in vain"
        time.sleep(min(0.3, 0.02 + waited_s / 50))


def children_of(pid: int) -> list[int]:
    """Process ids of all descendants of `pid` that live."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir() if Path(f"/proc/{pid}/task").exists() else []:
        try:
            direct = [int(word) for word in (task / "children").read_text().split()]
        except OSError:
            continue
        for child in direct:
            found += [child, *children_of(child)]
    return found


def lives(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@dataclass
class Platform:
    """One run. `ready` is what `mailyard up --json` printed."""

    process: subprocess.Popen[str]
    port: int
    smtp_port: int
    data: Path
    log: Path
    ready: dict[str, Any] = field(default_factory=dict)

    @property
    def pids(self) -> list[int]:
        return children_of(self.process.pid)

    def pids_of(self, role: str) -> list[int]:
        """Process ids of a role, or of `postgres` (the postmaster)."""
        wanted = "bin/postgres" if role == "postgres" else f"mailyard.cli.roles\0{role}\0"
        direct = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        found = []
        for word in direct.split():
            try:
                if wanted in Path(f"/proc/{word}/cmdline").read_text():
                    found.append(int(word))
            except OSError:
                continue
        return found

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal the supervisor and wait for its end; its exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout=180)


def begin(data: Path, **settings: str) -> Platform:
    """Start without waiting. `settings` are variables without MAILYARD_, in lower case."""
    port, smtp_port = free_ports(2)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("MAILYARD_")
    }
    chosen = {"data": str(data), "port": str(port), "smtp_port": str(smtp_port), **settings}
    environment |= {f"MAILYARD_{name.upper()}": value for name, value in chosen.items()}
    log = data.parent / f"{data.name}.log"
    ours = os.getpid()  # a test run that is killed leaves no platform behind
    with log.open("a") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "mailyard.cli.main", "up", "--json"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            preexec_fn=lambda: die_with_parent(signal.SIGKILL, ours),
        )
    return Platform(process, int(chosen["port"]), int(chosen["smtp_port"]), data, log)


def await_ready(platform: Platform) -> Platform:
    """Wait for the line that says that all roles work."""
    assert platform.process.stdout is not None
    line = platform.process.stdout.readline()
    assert line, platform.log.read_text()
    platform.ready = json.loads(line)
    return platform


@contextmanager
def running_platform(data: Path, **settings: str) -> Iterator[Platform]:
    """A platform that is ready, and gone afterwards."""
    platform = begin(data, **settings)
    try:
        yield await_ready(platform)
    finally:
        if platform.process.poll() is None:
            platform.process.kill()
            platform.process.wait()
