"""Real Prometheus and InfluxDB servers on free ports, and somebody who takes posts. Each is ended
by its process id, and dies with the tests."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from running_platform import free_ports, wait_until

from mailyard.storage.unprivileged import die_with_parent


@contextmanager
def _process(command: Sequence[str], folder: Path, ready: Callable[[], object]) -> Iterator[None]:
    ours = os.getpid()
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            cwd=folder,
            preexec_fn=lambda: die_with_parent(signal.SIGKILL, ours),
        )
    try:
        wait_until(ready, 180.0)
        yield
    finally:
        process.kill()
        process.wait()


def read_json(url: str) -> Any:
    """What is answered there; None while nobody does."""
    try:
        with urlopen(url, timeout=5) as answer:
            return json.loads(answer.read() or b"null")
    except (URLError, OSError, ValueError):
        return None


def promtool(*words: str, given: bytes = b"") -> str:
    """What promtool says. Raises AssertionError with it when it finds a fault."""
    done = subprocess.run(["promtool", *words], input=given, capture_output=True, timeout=60)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said


@dataclass
class Prometheus:
    """A server that scrapes every second and judges `rules` every second."""

    port: int

    def ask(self, path: str) -> Any:
        return (read_json(f"http://127.0.0.1:{self.port}/api/v1/{path}") or {}).get("data")

    def value(self, expression: str) -> float | None:
        found = (self.ask(f"query?query={quote(expression)}") or {}).get("result")
        return float(found[0]["value"][1]) if found else None

    def firing(self) -> set[tuple[str, str]]:
        """(alert, severity) of those that fire."""
        return {
            (one["labels"]["alertname"], one["labels"]["severity"])
            for one in (self.ask("alerts") or {"alerts": []})["alerts"]
            if one["state"] == "firing"
        }

    def scrapes(self) -> bool:
        """Whether its target was there, and understood, at the last scrape."""
        targets = (self.ask("targets") or {"activeTargets": []})["activeTargets"]
        return bool(targets) and all(one["health"] == "up" for one in targets)


@contextmanager
def prometheus(folder: Path, target: str, key: str, rules: Path) -> Iterator[Prometheus]:
    """Prometheus that watches the platform at `target` with an operator's `key`."""
    folder.mkdir()
    port = free_ports(1)[0]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [
            {
                "job_name": "mailyard",
                "authorization": {"credentials": key},
                "static_configs": [{"targets": [target]}],
            }
        ],
    }
    file = folder / "prometheus.yml"
    file.write_text(json.dumps(config))
    promtool("check", "config", str(file))
    server = Prometheus(port)
    command = [
        "prometheus",
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with _process(command, folder, server.scrapes):
        yield server


@dataclass
class Influx:
    """A server with one database."""

    port: int

    @property
    def write_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/write?db=mailyard"

    def ask(self, query: str, method: str = "GET") -> list[dict[str, Any]]:
        """The series that a query of InfluxQL finds."""
        url = f"http://127.0.0.1:{self.port}/query?db=mailyard&q={quote(query)}"
        with urlopen(Request(url, method=method), timeout=10) as answer:
            found = json.loads(answer.read())["results"][0]
        assert "error" not in found, found
        return list(found.get("series", []))


@contextmanager
def influx(folder: Path) -> Iterator[Influx]:
    """Debian's InfluxDB 1, in a folder."""
    folder.mkdir()
    port, backup_port = free_ports(2)
    file = folder / "influxdb.conf"
    file.write_text(
        f'reporting-disabled = true\nbind-address = "127.0.0.1:{backup_port}"\n'
        f'[meta]\ndir = "{folder}/meta"\n'
        f'[data]\ndir = "{folder}/data"\nwal-dir = "{folder}/wal"\nquery-log-enabled = false\n'
        f'[http]\nbind-address = "127.0.0.1:{port}"\nlog-enabled = false\n'
        "[monitor]\nstore-enabled = false\n"
    )

    def answers() -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{port}/ping", timeout=2) as answer:
                return bool(answer.status == 204)
        except OSError:
            return False

    with _process(["influxd", "-config", str(file)], folder, answers):
        server = Influx(port)
        server.ask("CREATE DATABASE mailyard", "POST")
        yield server


@dataclass
class Posted:
    """What came to one address. `refuse` answers that are not 200 come first."""

    port: int
    bodies: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    refuse: list[int] = field(default_factory=list)

    def at(self, path: str) -> list[bytes]:
        """Bodies that were taken at `path`, in their order."""
        return [body for one, _, body in list(self.bodies) if one == path]

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@contextmanager
def receiver() -> Iterator[Posted]:
    """An HTTP server that keeps what is posted to it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            status = posted.refuse.pop(0) if posted.refuse else 200
            if status == 200:
                posted.bodies.append((self.path, dict(self.headers.items()), body))
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    posted = Posted(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield posted
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
