"""nginx and HAProxy as `deploy/` configures them, in front of role processes of this machine."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from running_platform import free_ports, wait_until

from mailyard.storage.unprivileged import die_with_parent

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
NGINX, HAPROXY = Path("/usr/sbin/nginx"), Path("/usr/sbin/haproxy")
STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
BEHIND = {"MAILYARD_HTTP_BALANCERS": "127.0.0.1", "MAILYARD_SMTP_BALANCERS": "127.0.0.1"}


def listens(port: int) -> bool:
    """Whether somebody listens there; nobody is connected to for that."""
    wanted = f"{port:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(
        fields[1].endswith(f":{wanted}") and fields[3] == "0A"
        for fields in (line.split() for line in lines)
    )


# The same on all machines, as the deployment's secret has it.
MASTER_KEY = "A" * 43 + "="


class Role:
    """`mailyard api` or `mailyard smtp`, one process, behind a balancer."""

    def __init__(self, role: str, database_url: str, folder: Path) -> None:
        (self.port,) = free_ports(1)
        name = "MAILYARD_PORT" if role == "api" else "MAILYARD_SMTP_PORT"
        self._role = role
        self._log = folder / f"{role}-{self.port}.log"
        self._environment = {
            **os.environ,
            **BEHIND,
            "MAILYARD_DATABASE_URL": database_url,
            "MAILYARD_MASTER_KEY": MASTER_KEY,
            "MAILYARD_DATA": str(folder / f"{role}-{self.port}"),
            name: str(self.port),
            "MAILYARD_SUBMISSION_PORT": "0",
            "MAILYARD_SUBMISSIONS_PORT": "0",
        }
        self.start()

    def start(self) -> None:
        """Also again, on the same port, when it has ended."""
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mailyard.cli.main", self._role],
                env=self._environment,
                stdout=subprocess.DEVNULL,
                stderr=log,
                preexec_fn=partial(die_with_parent, signal.SIGKILL, os.getpid()),
            )

    def end(self) -> None:
        self.process.kill()
        self.process.wait(20)


@contextmanager
def roles(database_url: str, folder: Path) -> Iterator[dict[str, Role]]:
    """Two API and two SMTP processes, under the names that `deploy/` gives them; they begin."""
    running = {
        f"{role}-{number}": Role(role, database_url, folder)
        for role in ("api", "smtp")
        for number in (1, 2)
    }
    try:
        yield running
    finally:
        for one in running.values():
            one.end()


def bring_back(running: Mapping[str, Role]) -> None:
    """Start those that have ended, and wait until all listen."""
    for one in running.values():
        if one.process.poll() is not None:
            one.start()
    for one in running.values():
        wait_until(lambda one=one: listens(one.port), 180.0)


def _placed(text: str, backends: Mapping[str, Role]) -> str:
    """A configuration with ports of this machine in the place of its names."""
    for name, role in backends.items():
        text = re.sub(rf"{name}:\d+", f"127.0.0.1:{role.port}", text)
    return text


def sticky_nginx(text: str) -> str:
    """The configuration with the lines in force that keep a person with one process."""
    return text.replace("#sticky hash", "hash").replace("        least_conn;\n", "", 1)


def sticky_haproxy(text: str) -> str:
    """The same for HAProxy."""
    text = re.sub(r"server (api-\d) (api-\d:8025)", r"server \1 \2 cookie \1", text)
    return text.replace("#sticky cookie", "cookie")


def _as_it_is(text: str) -> str:
    return text


@contextmanager
def nginx(
    backends: Mapping[str, Role], folder: Path, edit: Callable[[str], str] = _as_it_is
) -> Iterator[tuple[int, int]]:
    """Its HTTP and SMTP port. `edit`: what becomes of the configuration first."""
    http, smtp, submission, submissions = free_ports(4)
    text = edit((DEPLOY / "nginx/nginx.conf").read_text())
    for usual, port in ((80, http), (25, smtp), (587, submission), (465, submissions)):
        text = text.replace(f"listen {usual};", f"listen 127.0.0.1:{port};")
    text = _placed(text, backends)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    kept = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    text = text.replace("http {", f"http {{ {kept}", 1)
    (folder / "nginx.conf").write_text(f"load_module {STREAM_MODULE};\n{text}")
    command = [str(NGINX), "-p", str(folder), "-c", str(folder / "nginx.conf")]
    command += [
        "-g",
        f"daemon off; user root; pid {folder}/nginx.pid; error_log {folder}/error.log;",
    ]
    with _running(command, {}, (http, smtp)):
        yield http, smtp


@contextmanager
def haproxy(
    backends: Mapping[str, Role],
    folder: Path,
    check_interval: str,
    edit: Callable[[str], str] = _as_it_is,
) -> Iterator[tuple[int, int]]:
    """Its HTTP and SMTP port. `edit`: what becomes of the configuration first."""
    http, smtp = free_ports(2)
    text = edit((DEPLOY / "haproxy/haproxy.cfg").read_text())
    text = text.replace("bind :80", f"bind 127.0.0.1:{http}")
    text = text.replace("bind :25", f"bind 127.0.0.1:{smtp}")
    file = folder / "haproxy.cfg"
    file.write_text(_placed(text, backends))
    command = [str(HAPROXY), "-db", "-f", str(file)]
    with _running(command, {"CHECK_INTERVAL": check_interval}, (http, smtp)):
        yield http, smtp


@contextmanager
def _running(
    command: list[str], environment: Mapping[str, str], ports: tuple[int, int]
) -> Iterator[None]:
    process = subprocess.Popen(command, env={**os.environ, **environment})
    try:
        wait_until(lambda: all(map(listens, ports)))
        yield
    finally:
        process.terminate()
        process.wait(20)
