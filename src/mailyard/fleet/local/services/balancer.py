"""nginx in front of the API and SMTP processes, by the configuration that `deploy/` has too."""

import os
import pwd
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from mailyard.fleet.local.place import LOOPBACK, Place, write_private
from mailyard.fleet.local.process import Say, ServiceProcess, listens
from mailyard.fleet.local.program import NGINX
from mailyard.fleet.local.service import Moment, Service

STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
_KEPT = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@dataclass(frozen=True, slots=True)
class Front:
    """Where callers come to. A port of 0: they do not."""

    host: str
    port: int
    smtp_host: str
    smtp_port: int
    submission_port: int = 0
    submissions_port: int = 0


@dataclass(frozen=True, slots=True)
class Way:
    """One way in: nginx's upstream of that name and the port that the configuration listens on."""

    upstream: str
    role: str
    listens: int


# In the order in which an SMTP process has its ports.
WAYS = (
    Way("api", "api", 80),
    Way("smtp", "smtp", 25),
    Way("submission", "smtp", 587),
    Way("submissions", "smtp", 465),
)


class Balancer(Service):
    """One nginx. `serve` tells it which processes there are."""

    moment = Moment.ROLES
    needs = (NGINX,)

    def __init__(self, place: Place, say: Say) -> None:
        super().__init__()
        self._place = place
        self._folder = place.folder("nginx")
        self._front: Front | None = None
        self._children: dict[str, list[str]] = {}
        self.settings = {"http_balancers": LOOPBACK, "smtp_balancers": LOOPBACK}
        self._process = ServiceProcess(
            "nginx",
            self._folder,
            command=self._command,
            ready=self._answers,
            say=say,
            orphaned=signal.SIGTERM,  # it takes its workers along
        )
        self.processes = [self._process]

    def places(self) -> Sequence[tuple[str, str]]:
        if self._front is None:
            return []
        return [("nginx", f"{self._front.host}:{self._front.port}")]

    def stand_before(self, front: Front, children: Mapping[str, Sequence[str]]) -> None:
        """Where callers come to, and the names of the processes of each role. Before `start`."""
        self._front = front
        self._children = {role: list(names) for role, names in children.items()}

    def serve(self, role: str, names: Sequence[str]) -> None:
        """The processes of `role` are these from now on."""
        self._children[role] = list(names)
        if self._process.pid is not None:
            self._write()
            self._process.send(signal.SIGHUP)

    def port_of(self, name: str, way: Way) -> int:
        """The port of loopback on which the process `name` (like smtp-2) takes what comes by
        `way`."""
        return self._place.port(f"{name}-{way.upstream}")

    async def _command(self) -> Sequence[str | Path]:
        self._write()
        me = pwd.getpwuid(os.geteuid()).pw_name
        stay = f" user {me};" if os.geteuid() == 0 else ""
        return (
            NGINX.path(),
            *("-p", self._folder, "-c", self._folder / "nginx.conf"),
            *("-g", f"daemon off; pid {self._folder}/nginx.pid; error_log stderr error;{stay}"),
        )

    async def _answers(self) -> bool:
        assert self._front is not None, "stand_before comes first"
        return await listens(self._front.port)

    def _write(self) -> None:
        assert self._front is not None, "stand_before comes first"
        text = files("mailyard.fleet.local").joinpath("nginx.conf").read_text("utf-8")
        for way in WAYS:
            processes = [self.port_of(name, way) for name in self._children.get(way.role, ())]
            text = _placed(text, way, _where(self._front, way), processes)
        kept = " ".join(f"{kind}_temp_path {self._folder}/{kind};" for kind in _KEPT)
        text = text.replace("http {", f"http {{\n    {kept}", 1)
        write_private(self._folder / "nginx.conf", _loaded() + text)


def _where(front: Front, way: Way) -> str:
    """What nginx is to listen on; empty: nothing."""
    host, port = {
        "api": (front.host, front.port),
        "smtp": (front.smtp_host, front.smtp_port),
        "submission": (front.smtp_host, front.submission_port),
        "submissions": (front.smtp_host, front.submissions_port),
    }[way.upstream]
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{port}" if port else ""


def _placed(text: str, way: Way, where: str, processes: Sequence[int]) -> str:
    """The configuration with real ports in the place of those of `way`; without it where nobody
    may come by it, or nobody is there."""
    upstream = re.compile(rf"^    upstream {way.upstream} {{\n(?:.*\n)*?    }}\n\n?", re.MULTILINE)
    if not where or not processes:
        server = rf"^    server {{\n        listen {way.listens};(?:.*\n)*?    }}\n"
        return re.sub(server, "", upstream.sub("", text), flags=re.MULTILINE)

    def own(found: re.Match[str]) -> str:
        block = found[0]
        (first, *_) = re.findall(r"^ +server \S+ (.*;)\n", block, re.MULTILINE)
        lines = "".join(f"        server {LOOPBACK}:{port} {first}\n" for port in processes)
        bare = re.sub(r"^ +server .*;\n", "", block, flags=re.MULTILINE)
        return bare.replace("        least_conn;\n", f"        least_conn;\n{lines}")

    return upstream.sub(own, text).replace(f"listen {way.listens};", f"listen {where};")


def _loaded() -> str:
    """What loads the module for SMTP, where nginx has it as a file."""
    built = subprocess.run([str(NGINX.path()), "-V"], capture_output=True, text=True, check=False)
    folder = re.search(r"--modules-path=(\S+)", built.stderr)
    module = Path(folder[1]) / STREAM_MODULE.name if folder else STREAM_MODULE
    as_file = "--with-stream=dynamic" in built.stderr or module.exists()
    return f"load_module {module};\n" if as_file else ""
